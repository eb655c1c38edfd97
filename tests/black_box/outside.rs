//! The root key outside of the process: in OpenBao, in a token, in AWS KMS; there, away, and taken away.

#[allow(dead_code)]
#[path = "../../keys/openbao/tests/server/mod.rs"]
mod bao;
mod relay;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use strongroom_proto::v1;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::system_client::SystemClient;
use tonic::transport::Channel;

use self::bao::{KEY, Server};
use self::relay::Relay;
use crate::harness::{BINARY, detokenize, item, tokenize, value};
use crate::house::{House, TRUST_DOMAIN, start, start_and_read};
use crate::needles::{Needles, stored_files};
use crate::raw;

const ID_CARD: &str = "11010519491231002X";
const NOBODY: &str = r#"path "transit/*" { capabilities = ["deny"] }"#;
const BOTH: &str = r#"path "transit/*" { capabilities = ["update"] }"#;

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
        let request = v1::ExportRequest { first: 0, end: 0, log: "system".to_owned() };
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

/// What health says of the root key: 1 is SERVING, 2 is NOT_SERVING.
async fn root_key_health(house: &House) -> Vec<u8> {
    let channel = house.channel("lending", "app", "core").await;
    // HealthCheckRequest { service: "strongroom.root_key" }
    let name = b"strongroom.root_key";
    let request = [&[0x0a, u8::try_from(name.len()).unwrap()], name.as_slice()].concat();
    raw::call(&channel, "/grpc.health.v1.Health/Check", &request).await.unwrap()
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
    assert_eq!(root_key_health(&vault.house).await, [0x08, 2]);
    vault.relay.mend();
    until(&mut operator, "it is back", |state, seal| state == "serving" && seal.reason.is_empty()).await;

    // Denied: no key is left, until it may again.
    vault.server.set_policy(NOBODY);
    let seal = until(&mut operator, "it seals itself", |state, _| state == "sealed").await;
    assert!(seal.sealed && seal.reason.contains("openbao denies the root key"), "{}", seal.reason);
    let refused = reads(&vault.house, &token).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let refused = operator.unseal(v1::UnsealRequest { credential: None, reset: false }).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    vault.server.set_policy(BOTH);
    until(&mut operator, "it opens by itself", |state, _| state == "serving").await;
    assert_eq!(reads(&vault.house, &token).await.unwrap(), ID_CARD);
    assert_eq!(root_key_health(&vault.house).await, [0x08, 1]);

    // Whom somebody sealed stays sealed until somebody unseals it.
    operator.seal(v1::SealRequest {}).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let status = operator.status(v1::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.state, "sealed");
        tokio::task::yield_now().await;
    }
    let unsealed = operator.unseal(v1::UnsealRequest { credential: None, reset: false }).await.unwrap().into_inner();
    assert!(!unsealed.seal.unwrap().sealed);

    let told = vault.system_log().await;
    let of = |action: &str, key: &str| -> Vec<String> {
        let leaves = told.iter().filter(|leaf| leaf["action"] == action);
        leaves.map(|leaf| leaf["detail"][key].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(of("seal", "why"), ["denied", ""]);
    let by = of("unseal", "by");
    assert!(by[0] == "vault" && by[1].ends_with("/system/operator/sre"), "{by:?}");
    let mut needles = Needles::new();
    needles.text(fs::read_to_string(vault.server.settings().token_file.unwrap()).unwrap().trim());
    needles.absent_from(&stored_files(&vault.house.dir()), "at the end");
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
}

const PIN: &str = "73581264";

impl Token {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let config = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        fs::write(folder.path().join("softhsm2.conf"), config).unwrap();
        let token = Self { folder };
        token.write_pin(PIN);
        let mut init = Command::new("softhsm2-util");
        init.arg("--module").arg(Self::module());
        init.args(["--init-token", "--free", "--label", "vault", "--pin", PIN, "--so-pin", "40982217"]);
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
        format!("[root.pkcs11]\nmodule = {:?}\ntoken = \"vault\"\nkey = \"root\"\npin_file = {pin:?}\n", Self::module())
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
    let passphrase = house.dir().with_file_name("passphrase");
    let mut to_hsm = over(&house.dir(), &["root", "move", "--to", "pkcs11", "--create-key", "--passphrase-file"]);
    refused(hsm.seen_by(to_hsm.arg(&passphrase)), "has no table [root.pkcs11]");
    let config = house.dir().join("strongroom.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n{}", hsm.settings())).unwrap();
    done(hsm.seen_by(&mut to_hsm));
    let shown = done(&mut over(&house.dir(), &["root", "show"]));
    assert!(shown.contains("pkcs11") && shown.contains("key id"), "{shown}");

    fs::rename(&passphrase, passphrase.with_extension("gone")).unwrap();
    refused(&mut over(&house.dir(), &["verify"]), "pkcs11");
    hsm.write_pin("00000000");
    refused(hsm.seen_by(&mut over(&house.dir(), &["serve", "--listen", "127.0.0.1:0"])), "PIN");
    hsm.write_pin(PIN);
    done(hsm.seen_by(&mut over(&house.dir(), &["verify"])));
    let running = start(hsm.seen_by(&mut over(&house.dir(), &["serve", "--listen", "127.0.0.1:0"]))).unwrap();
    house.runs(running);
    assert_eq!(reads(&house, &token).await.unwrap(), ID_CARD);
    house.kill();

    // And back, to a passphrase of its own.
    let mut back = over(&house.dir(), &["root", "move", "--to", "file", "--new-passphrase-file"]);
    done(hsm.seen_by(back.arg(passphrase.with_extension("gone"))));
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
