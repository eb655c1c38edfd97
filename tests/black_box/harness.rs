//! Starts the binary in a folder of its own and hands out clients.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::vault_client::VaultClient;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::needles::{Needles, stored_files};

/// More than any answer takes.
const MESSAGE: usize = 64 << 20;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_strongroom");

/// Connects, on a thread apart from the tests': a server ends at once only if its clients hear that it ends, also those
/// of a test that waits for the end.
pub async fn connect(endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
    static CLIENTS: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    CLIENTS.spawn(async move { endpoint.connect().await }).await.unwrap()
}

/// A vault that `strongroom dev` made in a folder of its own.
pub struct TestVault {
    folder: TempDir,
    server: Option<Server>,
    /// Variables of the server's environment.
    environment: Vec<(String, String)>,
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    /// Where callers read their ledger over plain HTTPS.
    entries: Option<SocketAddr>,
    /// Where it serves what is published.
    tiles: Option<SocketAddr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl TestVault {
    /// Makes a vault and starts it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with variables in the environment of every server that runs over the folder.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut vault = Self { folder: tempfile::tempdir().unwrap(), server: None, environment: environment.collect() };
        vault.up();
        vault
    }

    /// Starts the server over the folder as it is.
    #[expect(clippy::zombie_processes, reason = "a server is waited for when it is dropped")]
    pub fn up(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let mut child = self.dev_command().stdout(Stdio::piped()).stderr(self.log()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let (mut line, mut entries, mut tiles) = (String::new(), None, None);
        loop {
            line.clear();
            if lines.read_line(&mut line).unwrap() == 0 {
                let status = child.wait().unwrap();
                panic!("the server ended ({status}):\n{}", self.read_log());
            }
            if let Some(address) = line.trim().strip_prefix("entries on https://") {
                entries = Some(address.parse().unwrap());
            }
            if let Some(address) = line.trim().strip_prefix("tiles on https://") {
                tiles = Some(address.parse().unwrap());
            }
            if let Some(address) = line.trim().strip_prefix("serving on https://") {
                let address = address.parse().unwrap();
                // What else it prints must not fill the pipe.
                std::thread::spawn(move || drop(lines.read_to_end(&mut Vec::new())));
                self.server = Some(Server { child, address, entries, tiles });
                return;
            }
        }
    }

    /// Starts the server and expects that it refuses; returns what it says.
    pub fn refuses_to_start(&self) -> String {
        let Err(ended) = crate::house::start(&mut self.dev_command()) else { panic!("it started") };
        assert_eq!(ended.code, Some(1), "{}", ended.said);
        ended.said
    }

    fn dev_command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("dev").arg("--dir").arg(self.dir()).args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn log(&self) -> std::fs::File {
        std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap()
    }

    /// Where everything goes that the server says to its log.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What the server has logged.
    pub fn read_log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The vault's folder.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("vault")
    }

    /// A folder beside the vault's, for files of the test.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a section to the configuration, for the next start.
    pub fn configure(&self, section: &str) {
        let path = self.dir().join("strongroom.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{config}\n{section}")).unwrap();
    }

    /// Nothing that the vault wrote, its log included, holds any of these texts in any form.
    pub fn hides<T: AsRef<str>>(&self, texts: impl IntoIterator<Item = T>) {
        let mut needles = Needles::new();
        for text in texts {
            needles.text(text.as_ref());
        }
        let mut written = stored_files(&self.dir());
        written.push(self.log_path());
        needles.absent_from(&written, "at the end");
    }

    /// The number of the server's process.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().child.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    }

    /// SIGTERM, and waits until it has ended.
    pub fn stop(&mut self) -> ExitStatus {
        let mut server = self.server.take().unwrap();
        let status = Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
        assert!(status.success());
        server.child.wait().unwrap()
    }

    /// Where callers read their ledger over plain HTTPS.
    pub fn entries(&self) -> SocketAddr {
        self.server.as_ref().unwrap().entries.unwrap()
    }

    /// Where it serves what is published.
    pub fn tiles(&self) -> SocketAddr {
        self.server.as_ref().unwrap().tiles.unwrap()
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.server.as_ref().unwrap().address)
    }

    /// Runs a command of the binary against this vault.
    pub fn cli(&self, words: &[&str]) -> Output {
        self.cli_command(words).output().unwrap()
    }

    /// The same, to be started by the test.
    pub fn cli_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(words).arg("--dir").arg(self.dir()).stdin(Stdio::null());
        if self.server.is_some() {
            command.arg("--address").arg(self.url());
        }
        command
    }

    /// Runs a command, expects that it succeeds, and returns what it printed.
    pub fn cli_ok(&self, words: &[&str]) -> String {
        let output = self.cli(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?} ended with {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as a document.
    pub fn json(&self, words: &[&str]) -> Value {
        let text = self.cli_ok(&[words, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?} printed no JSON ({error}): {text}"))
    }

    /// A connection of its own as one of the principals in `pki/`.
    pub async fn channel(&self, principal: &str) -> Channel {
        self.channel_to(principal, self.server.as_ref().unwrap().address).await
    }

    /// The same on the test's own thread: while that waits, the client stands still.
    pub async fn channel_that_stands_still(&self, principal: &str) -> Channel {
        self.endpoint(principal, self.server.as_ref().unwrap().address).connect().await.unwrap()
    }

    /// The same to another of its sockets.
    pub async fn channel_to(&self, principal: &str, at: SocketAddr) -> Channel {
        connect(self.endpoint(principal, at)).await.unwrap()
    }

    fn endpoint(&self, principal: &str, at: SocketAddr) -> Endpoint {
        let pki = self.dir().join("pki");
        let read = |name: String| std::fs::read(pki.join(name)).unwrap();
        let (certificate, key) = (read(format!("{principal}.pem")), read(format!("{principal}.key")));
        let ca = std::fs::read(pki.join("ca.pem")).unwrap();
        let tls = ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(ca));
        let tls = tls.identity(Identity::from_pem(certificate, key));
        Endpoint::from_shared(format!("https://{at}")).unwrap().tls_config(tls).unwrap()
    }

    /// Values, as a principal.
    pub async fn vault_as(&self, principal: &str) -> VaultClient<Channel> {
        vault_client(self.channel(principal).await)
    }

    /// Values, as the application.
    pub async fn vault(&self) -> VaultClient<Channel> {
        self.vault_as("app").await
    }

    /// The ledger, as the auditor.
    pub async fn audit(&self) -> AuditClient<Channel> {
        self.audit_as("auditor").await
    }

    /// The ledger, as a principal.
    pub async fn audit_as(&self, principal: &str) -> AuditClient<Channel> {
        AuditClient::new(self.channel(principal).await).max_decoding_message_size(MESSAGE)
    }

    /// The ledger, as an auditor who takes as little at once as HTTP/2 allows by itself: the rest waits at the vault.
    pub async fn audit_in_a_small_window(&self) -> AuditClient<Channel> {
        const WINDOW: u32 = 65_535;
        let endpoint = self.endpoint("auditor", self.server.as_ref().unwrap().address);
        let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        AuditClient::new(connect(endpoint).await.unwrap()).max_decoding_message_size(MESSAGE)
    }

    /// Schema and policy, as the first officer.
    pub async fn access(&self) -> AccessClient<Channel> {
        self.access_as("officer-1").await
    }

    /// Rules and whoever goes by them, as a principal.
    pub async fn access_as(&self, principal: &str) -> AccessClient<Channel> {
        AccessClient::new(self.channel(principal).await)
    }

    /// The state, as the operator.
    pub async fn system(&self) -> SystemClient<Channel> {
        SystemClient::new(self.channel("operator").await)
    }

    /// Every leaf of the tenant's ledger, parsed.
    pub async fn leaves(&self) -> Vec<Value> {
        let request = v1::ExportRequest::default();
        let mut pages = self.audit().await.export(request).await.unwrap().into_inner();
        let mut leaves = Vec::new();
        while let Some(page) = pages.message().await.unwrap() {
            leaves.extend(page.leaves.iter().map(|line| serde_json::from_slice(line).unwrap()));
        }
        leaves
    }

    /// Exports the ledger and verifies it offline, with the command line's own commands.
    pub fn verify_ledger(&self) {
        let file = self.scratch().join("ledger.jsonl");
        let file = file.to_str().unwrap();
        self.cli_ok(&["audit", "export", "-o", file]);
        self.cli_ok(&["audit", "verify", file]);
    }
}

/// A client for values that takes answers of any size.
pub fn vault_client(channel: Channel) -> VaultClient<Channel> {
    VaultClient::new(channel).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE)
}

/// One value to be stored.
pub fn item(field: &str, value: &str, subject: &str) -> v1::TokenizeItem {
    v1::TokenizeItem {
        field: field.to_owned(),
        value: value.to_owned().into(),
        subject: subject.to_owned(),
        expire_time: None,
        token: String::new(),
    }
}

/// A request to store values.
pub fn tokenize(items: Vec<v1::TokenizeItem>) -> v1::TokenizeRequest {
    v1::TokenizeRequest { items, idempotency_key: String::new() }
}

/// A request to read tokens.
pub fn detokenize(tokens: &[&str], purpose: &str, view: &str) -> v1::DetokenizeRequest {
    let item =
        |token: &&str| v1::DetokenizeItem { token: (*token).to_owned(), view: String::new(), subject: String::new() };
    v1::DetokenizeRequest {
        items: tokens.iter().map(item).collect(),
        purpose: purpose.to_owned(),
        view: view.to_owned(),
    }
}

/// What a caller is told of a refusal, of a whole call or of one item.
#[derive(Debug, PartialEq)]
pub struct Told {
    /// The canonical code.
    pub code: Code,
    /// The stable word.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// Path and rule of each violation, the rule in lower case.
    pub violations: Vec<(String, String)>,
}

impl From<Status> for Told {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().expect("every refusal carries ErrorInfo");
        assert_eq!(info.domain, "strongroom");
        let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            message: status.message().to_owned(),
            violations: violations.into_iter().map(|one| (one.field, one.reason.to_ascii_lowercase())).collect(),
        }
    }
}

impl From<v1::Problem> for Told {
    fn from(problem: v1::Problem) -> Self {
        Self {
            code: Code::from_i32(problem.code),
            reason: problem.reason,
            message: problem.message,
            violations: problem.violations.into_iter().map(|one| (one.field, one.rule)).collect(),
        }
    }
}

/// Why a call was refused; it must have been. Answers have no text form that a failed test could print.
pub fn refused<T>(answer: Result<T, Status>) -> Told {
    answer.err().expect("it was not refused").into()
}

/// The value of a result, or why there is none.
pub fn value(result: v1::DetokenizeResult) -> Result<Vec<u8>, Told> {
    match result.result.unwrap() {
        v1::detokenize_result::Result::Value(value) => Ok(value.to_vec()),
        v1::detokenize_result::Result::Problem(problem) => Err(problem.into()),
    }
}

/// Stores one value and returns its token.
pub async fn one_token(vault: &TestVault, field: &str, value: &str, subject: &str) -> String {
    let request = tokenize(vec![item(field, value, subject)]);
    vault.vault().await.tokenize(request).await.unwrap().into_inner().tokens.remove(0)
}

/// Makes the tenant's ledger longer by so many leaves: names are stored, one a request.
pub async fn grow(vault: &TestVault, name: &str, leaves: usize) {
    let mut client = vault.vault().await;
    for number in 0..leaves {
        client.tokenize(tokenize(vec![item("borrower.name", &format!("{name} {number}"), "")])).await.unwrap();
    }
}

/// Reads one token.
pub async fn read_one(vault: &TestVault, token: &str, purpose: &str, view: &str) -> Result<String, Told> {
    let results = vault.vault().await.detokenize(detokenize(&[token], purpose, view)).await.unwrap();
    value(results.into_inner().results.remove(0)).map(|bytes| String::from_utf8(bytes).unwrap())
}
