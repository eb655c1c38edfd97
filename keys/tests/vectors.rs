//! The vectors of `FORMAT.md`: each blob is rebuilt from its named inputs without the crate, and the crate opens it.
//!
//! The crate seals with `aes-gcm`; here `ring` does. Key stretching and token blocks come from `argon2` and `aes`
//! directly, and shares are computed here. The keys come out of the vectors' own `keys` files, as they would in a vault.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::{aead, digest, hkdf, hmac};
use strongroom_ids::{DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId, VaultId};
use strongroom_keys::root::shamir::{ShamirCollector, ShareSet};
use strongroom_keys::{
    ArgonCost, Dek, DekOwner, DekPlace, Envelope, IndexName, KeyError, KeyState, Keystore, OwnKey, Passphrase,
    PassphraseRoot, RootKind, RootProvider, Sealed, ValuePlace,
};

/// One vector: its fields by name.
struct Vector {
    name: String,
    fields: HashMap<String, Vec<u8>>,
}

impl Vector {
    fn get(&self, field: &str) -> &[u8] {
        self.fields.get(field).unwrap_or_else(|| panic!("vector `{}` has no field `{field}`", self.name))
    }

    fn array<const N: usize>(&self, field: &str) -> [u8; N] {
        self.get(field).try_into().unwrap_or_else(|_| panic!("`{field}` of `{}` is not {N} bytes", self.name))
    }

    fn byte(&self, field: &str) -> u8 {
        u8::from_be_bytes(self.array(field))
    }

    fn u16(&self, field: &str) -> u16 {
        u16::from_be_bytes(self.array(field))
    }

    fn u32(&self, field: &str) -> u32 {
        u32::from_be_bytes(self.array(field))
    }

    fn u64(&self, field: &str) -> u64 {
        u64::from_be_bytes(self.array(field))
    }

    /// Checks that what was built without the crate is what the page says.
    fn says(&self, field: &str, built: &[u8]) {
        let said = HEXLOWER.encode(self.get(field));
        assert_eq!(HEXLOWER.encode(built), said, "`{field}` of `{}`", self.name);
    }

    fn tenant(&self) -> TenantId {
        TenantId(self.array("tenant"))
    }

    fn owner(&self) -> DekOwner {
        match self.byte("owner_kind") {
            1 => DekOwner::Subject(SubjectHandle(self.u64("owner"))),
            2 => DekOwner::Value(RowId(self.u64("owner"))),
            other => panic!("no kind of owner: {other}"),
        }
    }

    fn dek_place(&self) -> DekPlace {
        DekPlace {
            tenant: self.tenant(),
            keyring: KeyringNo(self.u16("keyring")),
            owner: self.owner(),
            version: DekVersion(self.u32("dek_version")),
        }
    }
}

/// All vectors of the page, in its order.
fn vectors() -> Vec<Vector> {
    let page = include_str!("../FORMAT.md");
    let mut vectors = vec![];
    for block in page.split("```vector ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (body, _) = rest.split_once("```").unwrap();
        let joined = body.replace("\n    ", "");
        let fields = joined.lines().map(|line| {
            let (field, hex) = line.split_once(" =").unwrap();
            (field.trim_end().to_owned(), HEXLOWER.decode(hex.trim().as_bytes()).unwrap())
        });
        vectors.push(Vector { name: name.to_owned(), fields: fields.collect() });
    }
    vectors
}

fn vector(name: &str) -> Vector {
    vectors().into_iter().find(|vector| vector.name == name).unwrap_or_else(|| panic!("no vector `{name}`"))
}

fn parts(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&[u8::try_from(part.len()).unwrap()], *part].concat()).collect()
}

fn gcm(key: &[u8], nonce: [u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).unwrap());
    let mut sealed = plaintext.to_vec();
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut sealed).unwrap();
    sealed
}

fn blob(format: u8, key: &[u8], nonce: [u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    [&[format, 1], &nonce[..], &gcm(key, nonce, aad, plaintext)].concat()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

fn hkdf_sha256(salt: &[u8], key: &[u8], info: &str) -> [u8; 32] {
    let mut derived = [0; 32];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    extracted.expand(&[info.as_bytes()], hkdf::HKDF_SHA256).unwrap().fill(&mut derived).unwrap();
    derived
}

/// The passphrase's provider, as the crate has it.
fn passphrase() -> PassphraseRoot {
    let text = String::from_utf8(vector("passphrase envelope").get("passphrase").to_vec()).unwrap();
    PassphraseRoot::new(Passphrase::new(text).unwrap(), ArgonCost::DEFAULT)
}

/// Opens a vector's file by the crate.
fn open(name: &str, root: &dyn RootProvider) -> Keystore {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("keys"), vector(name).get("file")).unwrap();
    Keystore::open(temp.path(), root).unwrap()
}

/// The vectors' keystore, opened by the crate.
fn keystore() -> Keystore {
    open("keys file", &passphrase())
}

/// The part of a file that its envelope is.
fn envelope(v: &Vector, kind: u8) -> Vec<u8> {
    [vec![kind], long(v.get("parameters")), long(v.get("wrapped"))].concat()
}

/// A list of the file, after its count.
fn list(members: &[&[u8]]) -> Vec<u8> {
    [&u32::try_from(members.len()).unwrap().to_be_bytes()[..], &members.concat()].concat()
}

/// A whole file, with its two sums: envelope, own keys, import keys, entries.
fn file(v: &Vector, envelope: &[u8], lists: [&[&[u8]]; 3]) -> Vec<u8> {
    let head = [b"SR-KEYS\n", &[1, 1][..], v.get("vault"), v.get("number")].concat();
    let mut file = [&head, envelope, &lists.map(list).concat()].concat();
    file.extend(hmac_sha256(vector("derived keys").get("file_key"), &file));
    file.extend(sha256(&file));
    file
}

/// The DEK of a vector, unwrapped by the crate.
fn dek(name: &str) -> Arc<Dek> {
    let vector = vector(name);
    let place = vector.dek_place();
    let version = KeyVersion(vector.u32("kek_version"));
    keystore().kek_version(place.tenant, place.keyring, version).unwrap().unwrap(&place, vector.get("blob")).unwrap()
}

#[test]
fn the_passphrase_envelope_is_as_specified_and_opens() {
    let v = vector("passphrase envelope");
    let params = argon2::Params::new(v.u32("memory"), v.u32("passes"), v.u32("lanes"), Some(32)).unwrap();
    let mut key = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(v.get("passphrase"), v.get("salt"), &mut key)
        .unwrap();
    v.says("passphrase_key", &key);
    let parameters = [v.get("memory"), v.get("passes"), v.get("lanes"), v.get("salt")].concat();
    v.says("parameters", &parameters);
    let aad = parts(&[&[4], &[1], &[1], v.get("vault"), &parameters]);
    v.says("aad", &aad);
    v.says("wrapped", &blob(4, &key, v.array("nonce"), &aad, v.get("keystore_key")));
    let envelope = Envelope { kind: RootKind::Passphrase, parameters, wrapped: v.get("wrapped").to_vec() };
    let opened = passphrase().unwrap(VaultId(v.array("vault")), &envelope).unwrap();
    v.says("keystore_key", opened.expose());
}

/// The product in GF(2^8) with the polynomial of AES.
fn product(mut a: u8, b: u8) -> u8 {
    let mut product = 0;
    for bit in 0..8 {
        if b & (1 << bit) != 0 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 != 0 { 0x1b } else { 0 };
    }
    product
}

#[test]
fn shares_are_as_specified_and_open_their_envelope() {
    let (v, sealed) = (vector("shares"), vector("shares envelope"));
    let (threshold, count) = (v.byte("threshold"), v.byte("count"));
    let mut fingerprints = vec![];
    for number in 1..=count {
        let value = |place: usize| {
            let [constant, first, second] =
                ["root_key", "coefficients_1", "coefficients_2"].map(|field| v.get(field)[place]);
            constant ^ product(first, number) ^ product(second, product(number, number))
        };
        let share: Vec<u8> = (0..32).map(value).collect();
        v.says(&format!("share_{number}"), &share);
        let named = parts(&[b"strongroom share 1", &[number], &[threshold], &share]);
        let fingerprint = &hmac_sha256(v.get("set"), &named)[..8];
        v.says(&format!("fingerprint_{number}"), fingerprint);
        fingerprints.extend_from_slice(fingerprint);
        let body = [v.get("set"), &[number, threshold], &share].concat();
        let letters = BASE32_NOPAD.encode(&[&body, &sha256(&body)[..3]].concat()).to_lowercase();
        v.says(&format!("text_{number}"), format!("srs1-{letters}").as_bytes());
    }
    let parameters = [&[threshold, count][..], v.get("set"), &fingerprints].concat();
    sealed.says("parameters", &parameters);
    let aad = parts(&[&[4], &[1], &[2], sealed.get("vault"), &parameters]);
    sealed.says("aad", &aad);
    sealed.says("root_key", v.get("root_key"));
    sealed.says("wrapped", &blob(4, v.get("root_key"), sealed.array("nonce"), &aad, sealed.get("keystore_key")));

    let envelope = Envelope { kind: RootKind::Shamir, parameters, wrapped: sealed.get("wrapped").to_vec() };
    let set = ShareSet::of(&envelope).unwrap();
    assert_eq!((set.threshold(), set.count(), set.id()), (threshold, count, HEXLOWER.encode(v.get("set"))));
    for chosen in [[1, 2, 3], [5, 1, 4]] {
        let mut collector = ShamirCollector::new(&envelope).unwrap();
        for number in chosen {
            collector.add(std::str::from_utf8(v.get(&format!("text_{number}"))).unwrap()).unwrap();
        }
        let root = collector.root().unwrap();
        let opened = root.unwrap(VaultId(sealed.array("vault")), &envelope).unwrap();
        sealed.says("keystore_key", opened.expose());
        assert_eq!(open("keys file sealed by shares", &*root).number(), 1);
    }
    let v = vector("keys file sealed by shares");
    v.says("file", &file(&v, &self::envelope(&sealed, 2), [&[], &[], &[]]));
}

#[test]
fn the_keys_of_the_keystore_are_derived_as_specified() {
    let v = vector("derived keys");
    for (field, info) in [("wrap_key", "strongroom keystore wrap 1"), ("file_key", "strongroom keystore file 1")] {
        v.says(field, &hkdf_sha256(v.get("vault"), v.get("keystore_key"), info));
    }
    for sealed in ["passphrase envelope", "shares envelope"] {
        vector(sealed).says("keystore_key", v.get("keystore_key"));
    }
}

#[test]
fn the_keys_file_is_as_specified() {
    let derived = vector("derived keys");
    let mut entries: Vec<Vec<u8>> = vec![];
    for v in vectors().iter().filter(|vector| vector.name.starts_with("keystore entry")) {
        let name = [v.get("tenant"), v.get("kind"), v.get("number")].concat();
        let wrapped = match v.byte("state") {
            5 => vec![],
            _ => {
                let aad = parts(&[&[3], &[1], v.get("vault"), &name, v.get("version")]);
                v.says("aad", &aad);
                blob(3, derived.get("wrap_key"), v.array("nonce"), &aad, v.get("key"))
            }
        };
        let length = [u8::try_from(wrapped.len()).unwrap()];
        let dates = [v.get("created"), v.get("changed")].concat();
        let entry = [&name, v.get("version"), v.get("state"), &dates, &length, &wrapped].concat();
        v.says("entry", &entry);
        entries.push(entry);
    }
    let v = vector("keys file");
    let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    v.says("file", &file(&v, &envelope(&vector("passphrase envelope"), 1), [&[], &[], &entries]));
}

#[test]
fn the_crate_opens_the_keys_file_and_lists_its_entries() {
    let v = vector("keys file");
    let keystore = keystore();
    assert_eq!(keystore.vault_id(), VaultId(v.array("vault")));
    assert_eq!(keystore.number(), v.u64("number"));
    let entry = vector("keystore entry 1");
    let listed: Vec<_> = keystore
        .keys(entry.tenant())
        .iter()
        .map(|key| (key.name.to_string(), key.version.0, key.state, key.created - entry.u64("created")))
        .collect();
    let expected = [
        ("kek/1", 1, KeyState::DecryptOnly, 0),
        ("kek/1", 2, KeyState::Enabled, 1),
        ("kek/7", 1, KeyState::Destroyed, 2),
        ("index/field/2", 1, KeyState::Enabled, 3),
        ("index/token", 1, KeyState::Disabled, 4),
        ("token", 1, KeyState::Enabled, 5),
        ("ledger", 1, KeyState::Enabled, 6),
    ];
    assert_eq!(listed, expected.map(|(name, version, state, after)| (name.to_owned(), version, state, after)));
}

/// A part after its length.
fn long(part: &[u8]) -> Vec<u8> {
    [&u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat()
}

/// Seals a part of a tenant, and checks its AAD.
fn part(v: &Vector, what: u8, [aad_field, nonce]: [&str; 2], plaintext: &str) -> Vec<u8> {
    let aad = parts(&[&[6], &[1], &[what], v.get("vault"), v.get("tenant")]);
    v.says(aad_field, &aad);
    blob(6, vector("derived keys").get("wrap_key"), v.array(nonce), &aad, v.get(plaintext))
}

/// Checks the vault's half of a tenant, and what comes of both halves.
fn halves(v: &Vector) {
    v.says("half_blob", &part(v, 1, ["half_aad", "half_nonce"], "half"));
    let (salt, both) = ([v.get("vault"), v.get("tenant")].concat(), [v.get("half"), v.get("tenant_key")].concat());
    v.says("tenant_wrap_key", &hkdf_sha256(&salt, &both, "strongroom tenant wrap 1"));
}

#[test]
fn an_imported_own_key_is_as_specified() {
    let v = vector("own key, imported");
    halves(&v);
    v.says("fingerprint", &hmac_sha256(v.get("own_key"), b"strongroom own key 1")[..8]);
    let salt = [v.get("vault"), v.get("tenant")].concat();
    v.says("own_wrap_key", &hkdf_sha256(&salt, v.get("own_key"), "strongroom own key wrap 1"));
    let aad = parts(&[&[5], &[1], &[128], v.get("vault"), v.get("tenant"), v.get("fingerprint")]);
    v.says("aad", &aad);
    v.says("wrapped", &blob(5, v.get("own_wrap_key"), v.array("nonce"), &aad, v.get("tenant_key")));
    v.says("key_blob", &part(&v, 2, ["key_aad", "key_nonce"], "own_key"));
    let head = [v.get("tenant"), v.get("changed"), v.get("half_blob"), &[128]].concat();
    let record = [&head, &long(v.get("fingerprint")), &long(v.get("wrapped")), &[62][..], v.get("key_blob")].concat();
    v.says("record", &record);
}

#[test]
fn an_own_key_with_a_provider_is_as_specified() {
    let v = vector("own key, with a provider");
    halves(&v);
    v.says("place", &sha256(&parts(&[b"strongroom tenant 1", v.get("vault"), v.get("tenant")]))[..16]);
    let sealed = vector("passphrase envelope");
    sealed.says("parameters", v.get("parameters"));
    let aad = parts(&[&[4], &[1], &[1], v.get("place"), v.get("parameters")]);
    v.says("aad", &aad);
    v.says("wrapped", &blob(4, sealed.get("passphrase_key"), v.array("nonce"), &aad, v.get("tenant_key")));
    let head = [v.get("tenant"), v.get("changed"), v.get("half_blob")].concat();
    v.says("record", &[&head, &envelope(&v, 1), &[0][..]].concat());
}

#[test]
fn an_import_key_is_as_specified() {
    let v = vector("import key");
    let sealed = part(&v, 3, ["aad", "nonce"], "private_key");
    v.says("record", &[v.get("tenant"), v.get("made"), &long(&sealed)].concat());
    v.says("own_key_fingerprint", &hmac_sha256(v.get("own_key"), b"strongroom own key 1")[..8]);
}

#[test]
fn a_file_with_own_keys_is_as_specified_and_opens_with_them() {
    let [own, with_provider, import] = ["own key, imported", "own key, with a provider", "import key"].map(vector);
    let entries = [(vector("tenant's entry 1"), &own), (vector("tenant's entry 2"), &with_provider)];
    for (v, own) in &entries {
        let name = [v.get("tenant"), v.get("kind"), v.get("number")].concat();
        let aad = parts(&[&[3], &[1], v.get("vault"), &name, v.get("version")]);
        v.says("aad", &aad);
        let wrapped = blob(3, own.get("tenant_wrap_key"), v.array("nonce"), &aad, v.get("key"));
        v.says("entry", &[&v.get("entry")[..42], &[62], &wrapped].concat());
        assert_eq!(v.get("entry")[..25], [&name, v.get("version")].concat());
    }
    let ledger = vector("keystore entry 7");
    let v = vector("keys file with own keys");
    let file = file(
        &v,
        &envelope(&vector("passphrase envelope"), 1),
        [
            &[own.get("record"), with_provider.get("record")],
            &[import.get("record")],
            &[entries[0].0.get("entry"), ledger.get("entry"), entries[1].0.get("entry")],
        ],
    );
    v.says("sums", &file[file.len() - 64..]);
    assert_eq!(file.len(), v.u32("length") as usize);

    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("keys"), &file).unwrap();
    let store = Keystore::open(temp.path(), &passphrase()).unwrap();
    let tenant = with_provider.tenant();
    assert!(matches!(store.kek(tenant, KeyringNo(1)), Err(KeyError::OwnKeyAway { .. })));
    let unwrapped = store.own_key_probe(tenant).unwrap().ask(&passphrase()).unwrap();
    store.unlock_tenant(tenant, Some(unwrapped)).unwrap();
    for (v, _) in &entries {
        // A DEK that is wrapped here under the entry's key unwraps there.
        let owner = [&[1][..], &7_u64.to_be_bytes()].concat();
        let aad = parts(&[&[2], &[1], v.get("tenant"), &[0, 1], &owner, &[0, 0, 0, 1], &[0, 0, 0, 1]]);
        let owner = DekOwner::Subject(SubjectHandle(7));
        let place = DekPlace { tenant: v.tenant(), keyring: KeyringNo(1), owner, version: DekVersion(1) };
        let dek = blob(2, v.get("key"), [5; 12], &aad, &[9; 32]);
        store.kek(v.tenant(), KeyringNo(1)).unwrap().unwrap(&place, &dek).unwrap();
    }
    let signed = store.ledger_key(own.tenant()).unwrap().public_key();
    vector("ledger signature").says("public_key", &signed);
    let info = store.own_key(own.tenant()).unwrap();
    assert_eq!(info.fingerprint, Some(HEXLOWER.encode(own.get("fingerprint"))));
    assert_eq!((info.locked, info.changed), (false, own.u64("changed")));

    let public = store.import_key(import.tenant()).unwrap().unwrap();
    assert_eq!((public.fingerprint(), public.made), (HEXLOWER.encode(import.get("fingerprint")), import.u64("made")));
    let brought = store.open_brought(import.tenant(), import.get("wrapped"), public.made + 1).unwrap();
    store.move_key(import.tenant(), Some(OwnKey::Imported(brought)), public.made + 1).unwrap();
    let brought = store.own_key(import.tenant()).unwrap().fingerprint;
    assert_eq!(brought, Some(HEXLOWER.encode(import.get("own_key_fingerprint"))));
}

#[test]
fn wrapped_deks_are_as_specified_and_unwrap() {
    for name in ["wrapped DEK", "wrapped DEK of a value"] {
        let v = vector(name);
        let owner = [v.get("owner_kind"), v.get("owner")].concat();
        let aad =
            parts(&[&[2], &[1], v.get("tenant"), v.get("keyring"), &owner, v.get("dek_version"), v.get("kek_version")]);
        v.says("aad", &aad);
        v.says("blob", &blob(2, v.get("kek"), v.array("nonce"), &aad, v.get("dek")));
        dek(name);
    }
}

#[test]
fn sealed_values_tokens_and_subject_ids_are_as_specified_and_open() {
    for (name, dek_name, what) in [
        ("sealed value", "wrapped DEK", Sealed::Value),
        ("sealed value without subject", "wrapped DEK of a value", Sealed::Value),
        ("sealed token", "wrapped DEK", Sealed::Token),
        ("sealed subject id", "wrapped DEK", Sealed::SubjectId),
    ] {
        let v = vector(name);
        let dek_id = [v.get("keyring"), v.get("owner_kind"), v.get("owner")].concat();
        let aad = parts(&[
            &[1],
            &[1],
            v.get("tenant"),
            v.get("field"),
            v.get("row"),
            v.get("subject"),
            &dek_id,
            v.get("dek_version"),
            v.get("row_version"),
            v.get("what"),
        ]);
        v.says("aad", &aad);
        v.says("blob", &blob(1, v.get("dek"), v.array("nonce"), &aad, v.get("plaintext")));
        let place = ValuePlace {
            tenant: v.tenant(),
            field: FieldNo(v.u32("field")),
            row: RowId(v.u64("row")),
            subject: SubjectHandle(v.u64("subject")),
            owner: v.owner(),
            keyring: KeyringNo(v.u16("keyring")),
            dek_version: DekVersion(v.u32("dek_version")),
            row_version: RowVersion(v.u32("row_version")),
            what,
        };
        let opened = dek(dek_name).open(&place, v.get("blob")).unwrap();
        v.says("plaintext", opened.as_bytes());
    }
}

#[test]
fn the_opaque_token_block_is_as_specified_and_opens() {
    let v = vector("opaque token block");
    let key: [u8; 32] = v.array("key");
    let plain: [u8; 16] = [v.get("row"), v.get("check")].concat().try_into().unwrap();
    let mut block = plain.into();
    aes::Aes256::new(&key.into()).encrypt_block(&mut block);
    v.says("block", &block);
    let tenant = vector("keystore entry 6").tenant();
    let token_key = keystore().token_key(tenant).unwrap();
    let (row, check) = (RowId(v.u64("row")), v.array("check"));
    v.says("block", &token_key.encrypt(row, check));
    assert_eq!(token_key.decrypt(v.array("block")), (row, check));
}

#[test]
fn the_index_mac_is_as_specified() {
    let v = vector("index MAC");
    let named = [v.get("part_1"), v.get("part_2"), v.get("part_3")];
    let input: Vec<u8> =
        named.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes()[..], *part].concat()).collect();
    v.says("input", &input);
    v.says("mac", &hmac_sha256(v.get("key"), &input));
    let tenant = vector("keystore entry 4").tenant();
    let index = keystore().index_key(tenant, IndexName::Field(FieldNo(2))).unwrap();
    v.says("mac", &index.mac(&named));
}

#[test]
fn the_ledger_signature_is_as_specified() {
    let v = vector("ledger signature");
    let key = keystore().ledger_key(vector("keystore entry 7").tenant()).unwrap();
    v.says("public_key", &key.public_key());
    v.says("signature", &key.sign(v.get("message")));
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, v.get("public_key"));
    public.verify(v.get("message"), v.get("signature")).unwrap();
}
