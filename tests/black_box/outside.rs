//! The root key outside of the process: in OpenBao, in a token, in AWS KMS; there, away, and taken away.

#[allow(dead_code)]
#[path = "../../keys/openbao/tests/server/mod.rs"]
pub mod bao;
pub mod relay;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use strongroom_proto::v1;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::unseal_request::Credential;
use tonic::transport::Channel;

use self::bao::{KEY, Server};
use self::relay::Relay;
use crate::harness::{self, BINARY, detokenize, item, tokenize, value};
use crate::house::{House, PASSPHRASE, TRUST_DOMAIN, spiffe, start_and_read};
use crate::needles::{Needles, stored_files};
use crate::raw;

const ID_CARD: &str = "11010519491231002X";
/// A policy that keeps the vault from its keys.
pub const NOBODY: &str = r#"path "transit/*" { capabilities = ["deny"] }"#;
/// One that lets it use them.
pub const BOTH: &str = r#"path "transit/*" { capabilities = ["update"] }"#;

/// A vault whose root key is in an OpenBao that is reached through a relay.
struct InBao {
    server: Server,
    relay: Relay,
    house: House,
}

impl InBao {
    fn new(root: &str) -> Self {
        let server = Server::start();
        let settings = server.settings();
        let relay = Relay::to(settings.address.strip_prefix("http://").unwrap());
        let file = server.write(
            "root.toml",
            &format!(
                "[root]\n{root}\n[root.openbao]\naddress = \"http://{}\"\nkey = \"{KEY}\"\ntoken_file = {:?}",
                relay.address(),
                settings.token_file.unwrap()
            ),
        );
        let house = House::made_with(&["lending"], |init| {
            init.args(["--root", "openbao", "--root-config"]).arg(file);
        });
        Self { server, relay, house }
    }

    /// What the vault's own log tells.
    async fn system_log(&self) -> Vec<serde_json::Value> {
        let operator = self.house.authority.client(&[&format!("spiffe://{TRUST_DOMAIN}/system/operator/sre")]);
        let request = v1::ExportRequest { log: "system".to_owned(), ..Default::default() };
        let mut pages =
            AuditClient::new(self.house.connect(&operator).await).export(request).await.unwrap().into_inner();
        let mut leaves = Vec::new();
        while let Some(page) = pages.message().await.unwrap() {
            leaves.extend(page.leaves.iter().map(|line| serde_json::from_slice(line).unwrap()));
        }
        leaves
    }

    /// The vault's operator.
    async fn operator(&self) -> SystemClient<Channel> {
        let operator = self.house.authority.client(&[&format!("spiffe://{TRUST_DOMAIN}/system/operator/sre")]);
        SystemClient::new(self.house.connect(&operator).await)
    }
}

/// Asks until the status is so.
async fn until(
    operator: &mut SystemClient<Channel>,
    what: &str,
    is_so: impl Fn(&str, &v1::SealStatus) -> bool,
) -> v1::SealStatus {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = operator.status(v1::StatusRequest {}).await.unwrap().into_inner();
        let seal = status.seal.unwrap();
        if is_so(&status.state, &seal) {
            return seal;
        }
        assert!(Instant::now() < deadline, "{what}: {} {}", status.state, seal.reason);
        tokio::task::yield_now().await;
    }
}

/// Asks until health says so of the root key: 1 is SERVING, 2 is NOT_SERVING.
async fn root_key_is(house: &House, serving: u8) {
    let channel = house.channel("lending", "app", "core").await;
    // HealthCheckRequest { service: "strongroom.root_key" }
    let name = b"strongroom.root_key";
    let request = [&[0x0a, u8::try_from(name.len()).unwrap()], name.as_slice()].concat();
    let deadline = Instant::now() + Duration::from_secs(30);
    while raw::call(&channel, "/grpc.health.v1.Health/Check", &request).await.unwrap() != [0x08, serving] {
        assert!(Instant::now() < deadline, "health does not say so");
        tokio::task::yield_now().await;
    }
}

async fn stores(house: &House) -> String {
    let request = tokenize(vec![item("borrower.id_card", ID_CARD, "c-1")]);
    house.vault("lending", "core").await.tokenize(request).await.unwrap().into_inner().tokens.remove(0)
}

async fn reads(house: &House, token: &str) -> Result<String, tonic::Status> {
    let mut client = house.vault("lending", "core").await;
    let results = client.detokenize(detokenize(&[token], "kyc_review", "plain")).await?.into_inner().results;
    Ok(String::from_utf8(value(results.into_iter().next().unwrap()).unwrap().to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_is_waited_for_and_one_that_denies_ends_it_at_once() {
    let mut vault = InBao::new("check_seconds = 1");
    vault.house.up();
    vault.house.apply_lending().await;
    let token = stores(&vault.house).await;
    let mut operator = vault.operator().await;

    // Away: the vault goes on, and says so.
    vault.relay.cut();
    let seal = until(&mut operator, "it says that it is away", |_, seal| !seal.reason.is_empty()).await;
    assert!(!seal.sealed && seal.reason.contains("openbao can't be reached"), "{}", seal.reason);
    assert_eq!(reads(&vault.house, &token).await.unwrap(), ID_CARD);
    root_key_is(&vault.house, 2).await;
    vault.relay.mend();
    until(&mut operator, "it is back", |state, seal| state == "serving" && seal.reason.is_empty()).await;

    // Denied: no key is left, until it may again.
    vault.server.set_policy(NOBODY);
    let seal = until(&mut operator, "it seals itself", |state, _| state == "sealed").await;
    assert!(seal.sealed && seal.reason.contains("openbao denies the key"), "{}", seal.reason);
    let refused = reads(&vault.house, &token).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let told = harness::refused(operator.unseal(v1::UnsealRequest { credential: None, reset: false }).await);
    assert_eq!(told.reason, "ROOT_KEY_DENIED", "{told:?}");
    let passphrase = Some(Credential::Passphrase(PASSPHRASE.into()));
    let told = harness::refused(operator.unseal(v1::UnsealRequest { credential: passphrase, reset: false }).await);
    assert_eq!(told.reason, "CREDENTIAL_INVALID", "{told:?}");
    vault.server.set_policy(BOTH);
    until(&mut operator, "it opens by itself", |state, _| state == "serving").await;
    assert_eq!(reads(&vault.house, &token).await.unwrap(), ID_CARD);
    root_key_is(&vault.house, 1).await;

    // What somebody sealed stays sealed until somebody unseals it, also if it had sealed itself before.
    vault.server.set_policy(NOBODY);
    until(&mut operator, "it seals itself", |state, seal| state == "sealed" && seal.opens_by_itself).await;
    let mut app = SystemClient::new(vault.house.channel("lending", "app", "core").await);
    assert_eq!(harness::refused(app.seal(v1::SealRequest {}).await).code, tonic::Code::PermissionDenied);
    operator.seal(v1::SealRequest {}).await.unwrap();
    vault.server.set_policy(BOTH);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let status = operator.status(v1::StatusRequest {}).await.unwrap().into_inner();
        assert!(status.state == "sealed" && !status.seal.unwrap().opens_by_itself);
        tokio::task::yield_now().await;
    }
    // Who brings nothing has to be somebody whom the vault knows.
    let mallory = vault.house.authority.client(&[&spiffe("lending", "officer", "mallory")]);
    let mut mallory = SystemClient::new(vault.house.connect(&mallory).await);
    let told = harness::refused(mallory.unseal(v1::UnsealRequest { credential: None, reset: false }).await);
    assert_eq!(told.code, tonic::Code::PermissionDenied);
    assert_eq!(operator.status(v1::StatusRequest {}).await.unwrap().into_inner().state, "sealed");
    let unsealed = operator.unseal(v1::UnsealRequest { credential: None, reset: false }).await.unwrap().into_inner();
    assert!(!unsealed.seal.unwrap().sealed);

    let told = vault.system_log().await;
    let of = |action: &str, key: &str| -> Vec<String> {
        let leaves = told.iter().filter(|leaf| leaf["action"] == action);
        leaves.map(|leaf| leaf["detail"][key].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(of("seal", "why"), ["denied", "denied"]);
    let by = of("unseal", "by");
    assert!(by[0] == "vault" && by[1].ends_with("/system/operator/sre"), "{by:?}");
    let mut needles = Needles::new();
    needles.text(fs::read_to_string(vault.server.token_file()).unwrap().trim());
    needles.absent_from(&stored_files(&vault.house.dir()), "at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_credential_is_waited_out_and_another_key_ends_it_at_once() {
    let mut vault = InBao::new("check_seconds = 1");
    vault.house.up();
    let mut operator = vault.operator().await;
    let file = vault.server.token_file();
    let right = fs::read_to_string(&file).unwrap();
    fs::write(&file, "s.neverknownneverknownnever").unwrap();
    let seal = until(&mut operator, "it says so", |_, seal| !seal.reason.is_empty()).await;
    assert!(!seal.sealed && seal.reason.contains("does not accept the credential"), "{}", seal.reason);
    fs::write(&file, right).unwrap();
    until(&mut operator, "all is well", |_, seal| seal.reason.is_empty()).await;

    vault.relay.cut();
    vault.server.make_key_anew();
    vault.relay.mend();
    let seal = until(&mut operator, "it seals itself", |state, _| state == "sealed").await;
    assert!(seal.opens_by_itself && seal.reason.contains("another key"), "{}", seal.reason);
}

#[test]
fn what_cannot_be_a_root_key_outside_is_refused_before_anything_is_made() {
    let house = House::new(&["lending"]);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("root.toml");
    let settings = "address = \"http://127.0.0.1:1\"\nkey = \"k\"\ntoken_file = \"/nowhere\"";
    let officer = format!("lending/alice={}", house.dir().with_file_name("lending-alice.pem").display());
    let init = |words: &[&str], text: &str| -> (Option<i32>, String) {
        fs::write(&file, text).unwrap();
        let mut command = over(&scratch.path().join("vault"), &["init", "--trust-domain", TRUST_DOMAIN]);
        command.arg("--client-ca").arg(house.dir().with_file_name("authorities.pem"));
        command.args(["--tenant", "lending", "--officer", &officer]).args(words);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let own = ["--root-config", file.to_str().unwrap()];
    for (words, text, code, says) in [
        (&["--root", "openbao"][..], "", 2, "--root-config FILE"),
        (&["--root", "openbao", own[0], own[1]], "[root]", 1, "no table [root.openbao]"),
        (&["--root", "openbao", own[0], own[1]], "[root.openbao]\nadress = \"x\"", 1, "adress"),
        (&["--root", "openbao", own[0], own[1]], "[tls]", 1, "tls"),
        (
            &["--root", "openbao", own[0], own[1]],
            &format!("[root]\ncheck_seconds = 0\n[root.openbao]\n{settings}"),
            1,
            "check_seconds",
        ),
        (&["--root", "openbao", "--create-key", own[0], own[1]], &format!("[root.openbao]\n{settings}"), 2, "pkcs11"),
        // It can't be reached, and nothing is left of the vault.
        (&["--root", "openbao", own[0], own[1]], &format!("[root.openbao]\n{settings}"), 1, "openbao"),
        (&["--root", "file", own[0], own[1]], "", 2, "--root-config"),
        (&["--root", "shamir", "--create-key"], "", 2, "--create-key"),
    ] {
        let (ended, said) = init(words, text);
        assert!(ended == Some(code) && said.contains(says), "{words:?} {text}: {ended:?} {said}");
        assert!(!scratch.path().join("vault").exists(), "{words:?} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stays_away_too_long_ends_it_too() {
    let mut vault = InBao::new("check_seconds = 1\nunreachable_seconds = 3");
    vault.house.up();
    vault.house.apply_lending().await;
    let token = stores(&vault.house).await;
    let mut operator = vault.operator().await;
    vault.relay.cut();
    let seal = until(&mut operator, "it seals itself", |state, _| state == "sealed").await;
    assert!(seal.reason.contains("can't be reached"), "{}", seal.reason);
    vault.relay.mend();
    until(&mut operator, "it opens by itself", |state, _| state == "serving").await;
    assert_eq!(reads(&vault.house, &token).await.unwrap(), ID_CARD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_started_without_its_provider_opens_by_itself() {
    let mut vault = InBao::new("check_seconds = 1");
    vault.relay.cut();
    let (running, said) = start_and_read(&mut vault.house.serve(), "The vault is sealed");
    assert!(said.contains("openbao can't be reached"), "{said}");
    vault.house.runs(running);
    let mut operator = vault.operator().await;
    let status = operator.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.state.as_str(), status.seal.unwrap().provider.as_str()), ("sealed", "openbao"));
    vault.relay.mend();
    until(&mut operator, "it opens by itself", |state, _| state == "serving").await;
}

/// A command of the binary over a vault's folder.
fn over(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words).arg("--dir").arg(dir).stdin(Stdio::null());
    command
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn refused(command: &mut Command, says: &str) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(says), "{says:?} is missing in: {said}");
}

/// SoftHSM with a token of the test's own.
struct Token {
    folder: tempfile::TempDir,
    label: String,
}

const PIN: &str = "73581264";

impl Token {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let config = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        fs::write(folder.path().join("softhsm2.conf"), config).unwrap();
        let label = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        let token = Self { folder, label };
        token.write_pin(PIN);
        let mut init = Command::new("softhsm2-util");
        init.arg("--module").arg(Self::module());
        init.args(["--init-token", "--free", "--label", &token.label, "--pin", PIN, "--so-pin", "40982217"]);
        done(token.seen_by(&mut init));
        token
    }

    fn module() -> PathBuf {
        std::env::var_os("STRONGROOM_TEST_SOFTHSM").expect("STRONGROOM_TEST_SOFTHSM is not set: run ./run test").into()
    }

    fn write_pin(&self, pin: &str) {
        fs::write(self.folder.path().join("pin"), pin).unwrap();
    }

    /// The table of a configuration.
    fn settings(&self) -> String {
        let pin = self.folder.path().join("pin");
        format!(
            "[root]\ncheck_seconds = 1\n[root.pkcs11]\nmodule = {:?}\ntoken = {:?}\nkey = \"root\"\npin_file = {pin:?}\n",
            Self::module(),
            self.label
        )
    }

    /// Lets a command see the token.
    fn seen_by<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SOFTHSM2_CONF", self.folder.path().join("softhsm2.conf"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_moves_into_a_token_and_opens_with_it_alone() {
    let mut house = House::lending(&["lending"]).await;
    let token = stores(&house).await;
    house.kill();
    let hsm = Token::new();
    let passphrase = house.passphrase();
    let mut to_hsm = over(&house.dir(), &["root", "move", "--to", "pkcs11", "--create-key"]);
    refused(hsm.seen_by(to_hsm.arg("--passphrase-file").arg(&passphrase)), "no table [root.pkcs11]");
    let config = house.dir().join("strongroom.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n{}", hsm.settings())).unwrap();
    done(hsm.seen_by(&mut to_hsm));
    let shown = done(&mut over(&house.dir(), &["root", "show"]));
    assert!(shown.contains("pkcs11") && shown.contains("key id"), "{shown}");

    fs::rename(&passphrase, passphrase.with_extension("gone")).unwrap();
    refused(&mut over(&house.dir(), &["verify"]), "pkcs11");
    done(hsm.seen_by(&mut over(&house.dir(), &["verify"])));
    // A wrong PIN is tried once, and the right one when it is there.
    hsm.write_pin("00000000");
    let mut serve = over(&house.dir(), &["serve", "--listen", "127.0.0.1:0"]);
    let (running, said) = start_and_read(hsm.seen_by(&mut serve), "The vault is sealed");
    assert!(said.contains("pkcs11 does not accept the credential"), "{said}");
    house.runs(running);
    let sre = house.authority.client(&[&format!("spiffe://{TRUST_DOMAIN}/system/operator/sre")]);
    let mut operator = SystemClient::new(house.connect(&sre).await);
    until(&mut operator, "it is not tried again", |_, seal| seal.reason.contains("has refused the PIN")).await;
    hsm.write_pin(PIN);
    until(&mut operator, "it opens by itself", |state, _| state == "serving").await;
    assert_eq!(reads(&house, &token).await.unwrap(), ID_CARD);
    house.kill();

    // To another token, of which a file of its own tells.
    let other = Token::new();
    let settings = other.folder.path().join("root.toml");
    fs::write(&settings, other.settings()).unwrap();
    let both = hsm.folder.path().join("softhsm2.conf");
    let tokens = other.folder.path().join("tokens");
    for token in fs::read_dir(&tokens).unwrap().map(|entry| entry.unwrap()) {
        fs::rename(token.path(), hsm.folder.path().join("tokens").join(token.file_name())).unwrap();
    }
    let mut to_other = over(&house.dir(), &["root", "move", "--to", "pkcs11", "--create-key"]);
    let said = done(to_other.arg("--root-config").arg(&settings).env("SOFTHSM2_CONF", &both));
    assert!(said.contains("Before the vault starts again"), "{said}");
    refused(hsm.seen_by(&mut over(&house.dir(), &["verify"])), "CKA_ID");
    fs::write(&config, format!("{text}\n{}", other.settings())).unwrap();
    done(hsm.seen_by(&mut over(&house.dir(), &["verify"])));

    // And back, to a passphrase of its own.
    let mut back = over(&house.dir(), &["root", "move", "--to", "file"]);
    done(hsm.seen_by(back.arg("--new-passphrase-file").arg(passphrase.with_extension("gone"))));
    fs::rename(passphrase.with_extension("gone"), &passphrase).unwrap();
    house.up();
    assert_eq!(reads(&house, &token).await.unwrap(), ID_CARD);
}

/// moto. It ends with its standard input.
struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_made_with_its_root_key_in_aws_kms_opens_by_itself() {
    let python = std::env::var_os("STRONGROOM_TEST_MOTO").expect("STRONGROOM_TEST_MOTO is not set: run ./run test");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys/aws-kms/tests/servers/aws.py");
    let mut command = Command::new(&python);
    command.arg(script).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut moto = Moto(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut address = String::new();
    BufReader::new(moto.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let address = address.trim();
    let create = format!(
        "import boto3; print(boto3.client('kms', 'eu-central-1', endpoint_url='{address}', aws_access_key_id='x', \
         aws_secret_access_key='x').create_key()['KeyMetadata']['Arn'])"
    );
    let arn = done(Command::new(&python).args(["-c", &create]));
    let scratch = tempfile::tempdir().unwrap();
    let (secret, settings) = (scratch.path().join("secret"), scratch.path().join("root.toml"));
    fs::write(&secret, "a-secret-access-key").unwrap();
    let table = format!(
        "[root.aws-kms]\nkey = \"{}\"\nendpoint = \"{address}\"\naccess_key_id = \"AKIAIOSFODNN7EXAMPLE\"\n\
         secret_access_key_file = {secret:?}\n",
        arn.trim()
    );
    fs::write(&settings, table).unwrap();
    let mut house = House::made_with(&["lending"], |init| {
        init.args(["--root", "aws-kms", "--root-config"]).arg(&settings);
    });
    house.up();
    house.apply_lending().await;
    let token = stores(&house).await;
    house.kill();
    house.up();
    assert_eq!(reads(&house, &token).await.unwrap(), ID_CARD);
    let shown = done(&mut over(&house.dir(), &["root", "show"]));
    assert!(shown.contains(arn.trim()), "{shown}");
}
