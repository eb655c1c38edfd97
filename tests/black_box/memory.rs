//! The memory of a running vault: what a sealed one still holds of its keys. It is read from outside, and the keys are
//! found out without the code under test, from the files and the passphrase (`keys/FORMAT.md`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use ring::hkdf;
use strongroom_proto::v1;
use strongroom_proto::v1::keys_client::KeysClient;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::rows::SubjectRecord;
use strongroom_storage::{Family, Range, Store};

use crate::harness::{TestVault, detokenize, item, tokenize};
use crate::needles::Needles;
use crate::own_key::{bring, import_key, openssl, remove};

type Key = [u8; 32];

/// Opens a blob: format, suite, nonce, ciphertext and tag.
fn open(key: &Key, parts: &[&[u8]], blob: &[u8]) -> Vec<u8> {
    let mut aad = Vec::new();
    for part in [&[blob[0]][..], &[blob[1]]].iter().chain(parts) {
        aad.push(u8::try_from(part.len()).unwrap());
        aad.extend_from_slice(part);
    }
    let nonce: [u8; 12] = blob[2..14].try_into().unwrap();
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt(&nonce.into(), Payload { msg: &blob[14..], aad: &aad }).expect("the blob opens")
}

fn key(bytes: &[u8]) -> Key {
    bytes.try_into().unwrap()
}

/// A reader of bytes from the front.
struct Front<'a>(&'a [u8]);

impl<'a> Front<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number(&mut self, length: usize) -> u64 {
        self.take(length).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// A KEK, by whom it is for.
struct Kek {
    tenant: Vec<u8>,
    keyring: u16,
    version: u32,
    key: Key,
}

/// What a vault's keystore holds, and what it is opened with.
struct Keys {
    /// The root key, the keystore key and those derived from it.
    above: Vec<(&'static str, Key)>,
    keks: Vec<Kek>,
    /// Index and token keys; the seeds of ledger keys.
    others: Vec<Other>,
}

/// A key that is no KEK.
struct Other {
    tenant: Vec<u8>,
    /// Whether it is the seed of a ledger key.
    signs: bool,
    key: Key,
}

impl Keys {
    fn of(dir: &Path) -> Self {
        let file = std::fs::read(dir.join("keystore/keys")).unwrap();
        let passphrase = std::fs::read_to_string(dir.join("dev-passphrase")).unwrap();
        let mut front = Front(&file);
        front.take(10);
        let vault = front.take(16);
        front.take(8);
        let kind = front.take(1);
        let length = front.number(2);
        let parameters = front.take(usize::try_from(length).unwrap());
        let length = front.number(2);
        let wrapped = front.take(usize::try_from(length).unwrap());

        let mut cost = Front(parameters);
        let [memory, passes, lanes] = [(); 3].map(|()| u32::try_from(cost.number(4)).unwrap());
        let mut root = [0; 32];
        let argon = argon2::Params::new(memory, passes, lanes, Some(32)).unwrap();
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, argon)
            .hash_password_into(passphrase.trim().as_bytes(), cost.take(16), &mut root)
            .unwrap();
        let keystore = key(&open(&root, &[kind, vault, parameters], wrapped));
        let derive = |info: &[u8]| {
            let mut derived = [0; 32];
            let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, vault).extract(&keystore);
            salt.expand(&[info], hkdf::HKDF_SHA256).unwrap().fill(&mut derived).unwrap();
            derived
        };
        let wrap = derive(b"strongroom keystore wrap 1");
        let above = vec![("root key", root), ("keystore key", keystore), ("wrap key", wrap)];
        let (mut keks, mut others) = (vec![], vec![]);
        assert_eq!([front.number(4), front.number(4)], [0, 0], "own keys and import keys of tenants");
        for _ in 0..front.number(4) {
            let name = front.take(21);
            let version = front.take(4);
            front.take(17);
            let length = front.number(1);
            let raw = key(&open(&wrap, &[vault, name, version], front.take(usize::try_from(length).unwrap())));
            let (tenant, mut rest) = (name[..16].to_vec(), Front(&name[16..]));
            match rest.number(1) {
                1 => keks.push(Kek {
                    tenant,
                    keyring: u16::try_from(rest.number(4)).unwrap(),
                    version: u32::from_be_bytes(version.try_into().unwrap()),
                    key: raw,
                }),
                kind => others.push(Other { tenant, signs: kind == 7, key: raw }),
            }
        }
        Self { above, keks, others }
    }

    /// The DEKs of all subjects.
    async fn deks(&self, store: &RocksStore) -> Vec<Key> {
        let rows = store.scan(Family::Subjects, Range { from: vec![], to: vec![], limit: 1_000 }).await.unwrap();
        let mut deks = Vec::new();
        for (_, row) in &rows {
            let Ok(record) = SubjectRecord::decode(row) else { continue };
            for dek in &record.deks {
                let owner = [&[1][..], &record.handle.0.to_be_bytes()].concat();
                let (version, kek_version) = (dek.version.0.to_be_bytes(), dek.kek_version.0.to_be_bytes());
                let ring = dek.keyring.0.to_be_bytes();
                let fits = |kek: &&Kek| kek.keyring == dek.keyring.0 && kek.version == dek.kek_version.0;
                // Two tenants have KEKs of the same names; `system` has no subjects.
                let opened = self.keks.iter().filter(fits).find_map(|kek| {
                    let parts: [&[u8]; 5] = [&kek.tenant, &ring, &owner, &version, &kek_version];
                    std::panic::catch_unwind(|| key(&open(&kek.key, &parts, &dek.blob))).ok()
                });
                deks.push(opened.expect("one KEK opens it"));
            }
        }
        deks
    }
}

/// Which of these stand in a process's memory.
fn found_in(pid: u32, needles: &Needles) -> io::Result<Vec<String>> {
    const STEP: usize = 4 << 20;
    const OVERLAP: usize = 64;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut found = Vec::new();
    let mut bytes = vec![0; STEP + OVERLAP];
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        // What can't be written holds code and constants.
        if !rest.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap().min(STEP + OVERLAP);
            // A part that the process has given back meanwhile can't be read.
            if let Ok(read) = memory.read_at(&mut bytes[..length], at) {
                let place = |(offset, name): (usize, &str)| {
                    let address = at + offset as u64;
                    format!("{name} at {address:x}, {:x} before the end of {line}", to - address)
                };
                found.extend(needles.places(&bytes[..read]).into_iter().map(place));
            }
            at += STEP as u64;
        }
    }
    Ok(found)
}

fn needles<'a>(keys: impl IntoIterator<Item = (String, &'a Key)>) -> Needles {
    let mut needles = Needles::new();
    for (name, key) in keys {
        needles.bytes(&name, key);
    }
    needles
}

/// Has values stored and read, so that keys are used.
async fn store_and_read(vault: &TestVault) {
    let mut client = vault.vault().await;
    for batch in 0..4 {
        // Small requests and large ones are done by different threads.
        let items: Vec<_> = (0..if batch % 2 == 0 { 1 } else { 200 })
            .map(|number| item("borrower.address", &format!("address {batch} {number}"), &format!("c-{number}")))
            .collect();
        let tokens = client.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        client.detokenize(detokenize(&tokens, "loan_servicing", "plain")).await.unwrap();
    }
}

#[tokio::test]
async fn a_sealed_vaults_memory_holds_no_key() {
    let vault = TestVault::start();
    store_and_read(&vault).await;
    let keys = Keys::of(&vault.dir());
    let pid = vault.pid();
    let keks = || keys.keks.iter().map(|kek| (format!("kek/{} of {:02x}", kek.keyring, kek.tenant[0]), &kek.key));
    let before = found_in(pid, &needles(keks()));
    if !rustix::process::geteuid().is_root() {
        // Nobody else may look, not even the user that it runs as.
        assert_eq!(before.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        return;
    }
    // An open vault has its KEKs, so the search finds what there is; what is above them it has let go of.
    assert!(!before.unwrap().is_empty());
    let above =
        || keys.above.iter().map(|(name, key)| ((*name).to_owned(), key)).filter(|(name, _)| name != "wrap key");
    assert_eq!(found_in(pid, &needles(above())).unwrap(), Vec::<String>::new(), "while it is open");

    vault.system().await.seal(v1::SealRequest {}).await.unwrap();
    let store = RocksStore::open(&vault.dir().join("data"), RocksOptions::default()).unwrap();
    let deks = keys.deks(&store).await;
    drop(store);
    assert!(deks.len() >= 200, "{} DEKs", deks.len());
    let all = keks()
        .chain(keys.above.iter().map(|(name, key)| ((*name).to_owned(), key)))
        .chain(keys.others.iter().map(|other| ("index, token or ledger key".to_owned(), &other.key)))
        .chain(deks.iter().map(|key| ("DEK".to_owned(), key)));
    let mut all = needles(all);
    let passphrase = std::fs::read_to_string(vault.dir().join("dev-passphrase")).unwrap();
    all.bytes("passphrase", passphrase.trim().as_bytes());
    let found = found_in(pid, &all).unwrap();
    assert!(found.is_empty(), "{} places: {found:#?}", found.len());
}

#[tokio::test]
async fn a_tenants_keys_go_from_memory_with_its_own_key() {
    let vault = TestVault::start();
    store_and_read(&vault).await;
    // What its own key wraps from then on are the same keys.
    let keys = Keys::of(&vault.dir());
    let tenants = vault.system().await.list_tenants(v1::ListTenantsRequest {}).await.unwrap().into_inner().tenants;
    let demo = tenants.iter().find(|tenant| tenant.name == "demo").unwrap();
    let tenant = data_encoding::HEXLOWER.decode(demo.id.as_bytes()).unwrap();
    let own = openssl::random(32);
    let mut officer = KeysClient::new(vault.channel("officer-1").await);
    let pem = import_key(&mut officer).await;
    bring(&mut officer, openssl::wrapped(&pem, &own), false).await.unwrap();
    store_and_read(&vault).await;

    let keks = keys.keks.iter().filter(|kek| kek.tenant == tenant);
    let keks = keks.map(|kek| (format!("kek/{}", kek.keyring), &kek.key)).collect::<Vec<_>>();
    let others = keys.others.iter().filter(|other| other.tenant == tenant && !other.signs);
    let others = others.map(|other| ("index or token key".to_owned(), &other.key)).collect::<Vec<_>>();
    assert!(keks.len() > 1 && others.len() > 1, "{} {}", keks.len(), others.len());
    let pid = vault.pid();
    let before = found_in(pid, &needles(keks.clone()));
    if !rustix::process::geteuid().is_root() {
        assert_eq!(before.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        return;
    }
    assert!(!before.unwrap().is_empty());
    remove(&mut officer).await;
    let own = key(&own);
    let all = keks.into_iter().chain(others).chain([("own key".to_owned(), &own)]);
    let found = found_in(pid, &needles(all)).unwrap();
    assert!(found.is_empty(), "{} places: {found:#?}", found.len());
}
