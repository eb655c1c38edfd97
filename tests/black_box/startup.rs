//! A vault that does not fit together does not start: it says what is wrong and what to do, and no secret. What somebody puts back
//! or changes on purpose: see `tamper.rs`.

mod lost_end;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::files::{copy, put};
use crate::harness::{BINARY, TestVault, one_token, read_one};
use crate::house::{Authority, Ended, House, PASSPHRASE, start};

const ID_CARD: &str = "11010519491231002X";

/// The command that serves a vault for development.
pub fn dev(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("dev").arg("--dir").arg(dir).args(["--listen", "127.0.0.1:0"]);
    command
}

/// Expects that a server refuses to start, with exit code 1 and without a secret of its folder; brings what it says.
#[track_caller]
fn refusal(command: &mut Command, secrets: &[&str]) -> String {
    let Err(Ended { code, said }) = start(command) else { panic!("it started") };
    assert_eq!(code, Some(1), "{said}");
    assert!(!secrets.iter().any(|secret| said.contains(secret)), "it gives a secret away: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The files of a folder whose names begin or end like this, oldest name first.
fn files(dir: &Path, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| fits(path.file_name().unwrap().to_str().unwrap())).collect();
    found.sort();
    found
}

/// Changes one byte of a file: `part` is 0 for the first and 1 for the last.
fn flip(file: &Path, part: f64) {
    let mut bytes = fs::read(file).unwrap();
    let at = ((bytes.len() - 1) as f64 * part) as usize;
    bytes[at] ^= 0x20;
    fs::write(file, bytes).unwrap();
}

/// A vault with a value in it, stopped in good order: something to break copies of.
struct Whole {
    vault: TestVault,
    token: String,
    copies: TempDir,
}

impl Whole {
    // A stopped server waits for its connections, and a test's end on another thread than the one that waits for it:
    // hence the flavor of these tests.
    async fn new() -> Self {
        let mut vault = TestVault::start();
        let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
        assert!(vault.stop().success());
        Self { vault, token, copies: tempfile::tempdir().unwrap() }
    }

    /// Breaks a copy, and expects that it does not start and says this.
    #[track_caller]
    fn broken(&self, what: &str, breaks: impl FnOnce(&Path), says: &[&str]) {
        let dir = self.copies.path().join(what.replace(['/', ' '], "-"));
        copy(&self.vault.dir(), &dir);
        breaks(&dir);
        let passphrase = fs::read_to_string(self.vault.dir().join("dev-passphrase")).unwrap();
        let said = refusal(&mut dev(&dir), &[&passphrase, ID_CARD, &self.token]);
        for says in says {
            assert!(said.contains(says), "{what}: {says:?} is missing in: {said}");
        }
    }

    /// The unbroken one starts and has its value.
    async fn still_whole(mut self) {
        self.vault.up();
        assert_eq!(read_one(&self.vault, &self.token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_part_is_named() {
    let whole = Whole::new().await;
    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
    let remove_dir = |name: &'static str| move |dir: &Path| fs::remove_dir_all(dir.join(name)).unwrap();
    whole.broken("no data", remove_dir("data"), &["data", "holds no store", "strongroom init"]);
    let emptied = |dir: &Path| {
        fs::remove_dir_all(dir.join("data")).unwrap();
        fs::create_dir(dir.join("data")).unwrap();
    };
    whole.broken("empty data", emptied, &["data", "holds no store", "mounted"]);
    whole.broken("no keystore", remove_dir("keystore"), &["no file `keys`", "keystore", "strongroom init"]);
    whole.broken("no keys", remove("keystore/keys"), &["no file `keys`", "keystore"]);
    whole.broken("no head file", remove("head"), &["head file", "missing", "newest copy of the file"]);
    whole.broken("no configuration", remove("strongroom.toml"), &["strongroom.toml", "strongroom init"]);
    whole.broken("no passphrase", remove("dev-passphrase"), &["not one for development", "strongroom serve"]);
    whole.broken("no certificate", remove("pki/server.pem"), &["pki/server.pem"]);
    whole.broken("no key of the certificate", remove("pki/server.key"), &["pki/server.key"]);
    whole.broken("no authority", remove("pki/ca.pem"), &["pki/ca.pem"]);
    let usurped = |dir: &Path| fs::write(dir.join("pki/ca.pem"), Authority::new("somebody else").pem()).unwrap();
    whole.broken("an authority that is not enrolled", usurped, &["authorities", "enrolled"]);
    whole.broken("no CURRENT", remove("data/CURRENT"), &["data", "holds no store"]);
    let manifest = |dir: &Path| {
        for file in files(&dir.join("data"), |name| name.starts_with("MANIFEST-")) {
            fs::remove_file(file).unwrap();
        }
    };
    whole.broken("no MANIFEST", manifest, &["the data folder", "MANIFEST"]);
    let tables = |dir: &Path| {
        for file in files(&dir.join("data"), |name| name.ends_with(".sst")) {
            fs::remove_file(file).unwrap();
        }
    };
    whole.broken("no tables", tables, &["the data folder", ".sst"]);
    whole.still_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_is_noticed() {
    let whole = Whole::new().await;
    for part in [0.0, 0.3, 0.6, 1.0] {
        let change = |name: &'static str| move |dir: &Path| flip(&dir.join(name), part);
        whole.broken(&format!("keys {part}"), change("keystore/keys"), &["`keys`", "damaged", "copy of the keystore"]);
        whole.broken(&format!("head {part}"), change("head"), &["head file", "put the right one back"]);
        let manifest = |dir: &Path| {
            let newest = files(&dir.join("data"), |name| name.starts_with("MANIFEST-")).pop().unwrap();
            flip(&newest, part);
        };
        whole.broken(&format!("manifest {part}"), manifest, &["does not open"]);
        whole.broken(&format!("current {part}"), change("data/CURRENT"), &["does not open"]);
    }
    let cut = |name: &'static str| {
        move |dir: &Path| {
            let bytes = fs::read(dir.join(name)).unwrap();
            fs::write(dir.join(name), &bytes[..bytes.len() / 2]).unwrap();
        }
    };
    whole.broken("keys cut", cut("keystore/keys"), &["`keys`", "damaged"]);
    whole.broken("head cut", cut("head"), &["head file"]);
    whole.still_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_two_vaults_do_not_go_together() {
    let whole = Whole::new().await;
    let other = Whole::new().await;
    let foreign = other.vault.dir();
    let put_dir = |name: &'static str| {
        let foreign = foreign.clone();
        move |dir: &Path| put(&foreign.join(name), &dir.join(name))
    };
    let put_file = |name: &'static str| {
        let foreign = foreign.clone();
        move |dir: &Path| assert!(fs::copy(foreign.join(name), dir.join(name)).is_ok())
    };
    whole.broken("data of another vault", put_dir("data"), &["belongs to vault", "put the two together"]);
    whole.broken("another passphrase", put_file("dev-passphrase"), &["passphrase does not open the root key"]);
    whole.broken("keystore of another vault", put_dir("keystore"), &["passphrase does not open the root key"]);
    let both = |dir: &Path| {
        put_dir("keystore")(dir);
        put_file("dev-passphrase")(dir);
    };
    whole.broken("keystore of another vault, and its passphrase", both, &["belongs to vault", "put the two together"]);
    whole.broken("head of another vault", put_file("head"), &["head file", "put the right one back"]);
    let data_and_head = |dir: &Path| {
        put_dir("data")(dir);
        put_file("head")(dir);
    };
    whole.broken("data and head of another vault", data_and_head, &["belongs to vault", "put the two together"]);
    whole.broken("key of another certificate", put_file("pki/server.key"), &["server certificate and key"]);
    whole.still_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_stays_away_while_the_first_one_runs() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let passphrase = fs::read_to_string(vault.dir().join("dev-passphrase")).unwrap();
    let said = vault.refuses_to_start();
    assert!(said.contains("another process has this vault open") && !said.contains(&passphrase), "{said}");
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    // Nor does another vault take its port.
    let other = tempfile::tempdir().unwrap();
    let mut same_port = Command::new(BINARY);
    same_port.arg("dev").arg("--dir").arg(other.path().join("vault"));
    same_port.arg("--listen").arg(vault.url().trim_start_matches("https://"));
    let said = refusal(&mut same_port, &[]);
    assert!(said.contains("can't listen on") && said.contains("--listen"), "{said}");
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
}

#[test]
fn a_passphrase_comes_from_a_file_and_only_the_right_one_opens() {
    let mut house = House::new(&["lending"]);
    let folder = tempfile::tempdir().unwrap();
    let serve = |content: Option<&str>| {
        let file = folder.path().join("passphrase");
        drop(fs::remove_file(&file));
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--dir").arg(house.dir()).args(["--listen", "127.0.0.1:0"]);
        command.arg("--passphrase-file").arg(file);
        command
    };
    let says = |content: Option<&str>, words: &[&str]| {
        let said = refusal(&mut serve(content), &[PASSPHRASE, "eight clouds"]);
        assert!(words.iter().all(|word| said.contains(word)), "{content:?}: {said}");
    };
    let wrong = ["passphrase does not open the root key", "keyboard layout"];
    says(Some("eight clouds over nine bridges"), &wrong);
    says(Some(&format!("{PASSPHRASE} ")), &wrong);
    says(Some(&PASSPHRASE.to_uppercase()), &wrong);
    says(Some(""), &["passphrase is empty"]);
    says(Some(&format!("\n{PASSPHRASE}")), &["passphrase is empty"]);
    says(None, &["passphrase"]);
    let mut without = Command::new(BINARY);
    without.arg("serve").arg("--dir").arg(house.dir()).args(["--listen", "127.0.0.1:0"]);
    without.env_remove("STRONGROOM_PASSPHRASE_FILE").env_remove("CREDENTIALS_DIRECTORY");
    let said = refusal(&mut without, &[PASSPHRASE]);
    assert!(said.contains("no terminal") && said.contains("--passphrase-file"), "{said}");
    // A line end, and what comes after it, is no part of it.
    drop(start(&mut serve(Some(&format!("{PASSPHRASE}\nanother line\n")))).unwrap());
    house.up();
    house.kill();
}

#[test]
fn init_makes_a_vault_once_and_leaves_nothing_half_made() {
    let house = House::new(&["lending"]);
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let alice = house.dir().with_file_name("lending-alice.pem");
    let fresh = tempfile::tempdir().unwrap();
    let init = |dir: &Path, arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.arg("init").arg("--dir").arg(dir).args(["--trust-domain", "bank.example"]).args(arguments);
        command.arg("--passphrase-file").arg(house.passphrase());
        command.arg("--client-ca").arg(house.dir().with_file_name("authorities.pem"));
        command
    };
    let officer = format!("lending/alice={}", alice.display());
    let usual = ["--tenant", "lending", "--officer", &officer];
    let (code, again) = said(&mut init(&house.dir(), &usual));
    assert_eq!(code, Some(1), "{again}");
    assert!(again.contains("exists already"), "{again}");
    let no_certificate = format!("lending/alice={}", house.dir().join("pki/server.key").display());
    let elsewhere = format!("savings/alice={}", alice.display());
    for (arguments, code, words) in [
        (&["--tenant", "lending", "--officer", &no_certificate][..], 1, "no certificate in PEM"),
        (&["--tenant", "lending", "--officer", "lending/alice=/nowhere.pem"], 1, "/nowhere.pem"),
        (&["--tenant", "lending", "--officer", &elsewhere], 2, "there is no --tenant savings"),
        (&["--tenant", "savings", "--tenant", "lending", "--officer", &officer], 2, "name its first officer"),
        (&["--tenant", "Lending", "--officer", &officer.replace("lending/", "Lending/")], 1, "lower-case"),
        (&["--tenant", "system", "--officer", &officer.replace("lending/", "system/")], 1, "not `system`"),
        (&["--tenant", "lending", "--tenant", "lending", "--officer", &officer], 2, "name its first officer"),
        (&["--tenant", "lending", "--officer", "alice.pem"], 2, "TENANT/NAME=CERT.pem"),
    ] {
        let (ended, text) = said(&mut init(&fresh.path().join("vault"), arguments));
        assert_eq!(ended, Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words) && !text.contains(PASSPHRASE), "{arguments:?}: {text}");
        assert_eq!(fs::read_dir(fresh.path()).unwrap().count(), 0, "{arguments:?} left something behind");
    }
    assert_eq!(said(&mut init(&fresh.path().join("vault"), &usual)).0, Some(0));
}
