//! A bank's own house: its certificate authority, and a vault that `init` made and `serve` serves.
//!
//! The authority of a vault for development is gone when the vault is made, so nothing new can be issued under it.

use std::io::{BufRead, BufReader, Read, Seek};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList, CertificateRevocationListParams, CertifiedIssuer,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::vault_client::VaultClient;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::harness::{BINARY, connect, vault_client};

/// The trust domain of every house.
pub const TRUST_DOMAIN: &str = "bank.example";

/// The passphrase of every house.
pub const PASSPHRASE: &str = "seven clouds over nine bridges";

const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

/// A process that is killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is fine.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A server that runs, until this is dropped.
pub struct Running {
    _process: Process,
    /// Where it answers.
    pub address: SocketAddr,
}

/// A server that refused to start.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it said to standard error.
    pub said: String,
}

/// Starts a server, and waits until it answers or has ended.
pub fn start(command: &mut Command) -> Result<Running, Ended> {
    spoken_until(command, "serving on https://").map(|(running, _)| running)
}

/// Starts a server, and brings what it prints up to a line that begins so.
pub fn start_and_read(command: &mut Command, last: &str) -> (Running, String) {
    spoken_until(command, last).unwrap_or_else(|ended| panic!("it ended: {}", ended.said))
}

fn spoken_until(command: &mut Command, last: &str) -> Result<(Running, String), Ended> {
    let mut log = tempfile::tempfile().unwrap();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone().unwrap());
    let mut process = Process(command.spawn().unwrap());
    let mut lines = BufReader::new(process.0.stdout.take().unwrap());
    let (mut address, mut told) = (None, String::new());
    loop {
        let from = told.len();
        if lines.read_line(&mut told).unwrap() == 0 {
            let code = process.0.wait().unwrap().code();
            let mut said = String::new();
            log.rewind().unwrap();
            log.read_to_string(&mut said).unwrap();
            return Err(Ended { code, said });
        }
        let line = told[from..].trim_end();
        if let Some(text) = line.strip_prefix("serving on https://") {
            address = Some(text.parse().unwrap());
        }
        if let (Some(address), true) = (address, line.starts_with(last)) {
            // What else it prints must not fill the pipe.
            std::thread::spawn(move || drop(lines.read_to_end(&mut Vec::new())));
            return Ok((Running { _process: process, address }, told));
        }
    }
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Issued {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

impl Issued {
    /// What a client shows.
    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.certificate.pem(), self.key.serialize_pem())
    }
}

impl Authority {
    /// An authority with this common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate, as TLS takes it.
    pub fn der(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A list of what it has revoked.
    pub fn list(&self, params: &CertificateRevocationListParams) -> CertificateRevocationList {
        params.signed_by(&self.0).unwrap()
    }

    /// A client's certificate with these URI names, and whatever else the test wants of it.
    pub fn issue(&self, key: KeyPair, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        Issued { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// A client's certificate with these URI names.
    pub fn client(&self, uris: &[&str]) -> Issued {
        self.issue(KeyPair::generate().unwrap(), uris, |_| {})
    }

    /// A certificate for the vault itself.
    pub fn server(&self) -> Issued {
        self.issue(KeyPair::generate().unwrap(), &[], |params| {
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }
}

/// `spiffe://bank.example/tenant/TENANT/ROLE/NAME`.
pub fn spiffe(tenant: &str, role: &str, name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/tenant/{tenant}/{role}/{name}")
}

/// A vault of several tenants, each with the officers `alice` and `bob`, and what issues certificates to its callers.
pub struct House {
    folder: TempDir,
    /// Issues the certificates of all callers.
    pub authority: Authority,
    officers: Vec<(String, Issued)>,
    seconds: Vec<(String, Issued)>,
    running: Option<Running>,
}

impl House {
    /// Makes a vault with `init`, and gives it its certificate. It does not run yet.
    pub fn new(tenants: &[&str]) -> Self {
        Self::made_with(tenants, |_| {})
    }

    /// The same, with whatever else the test wants of `init`.
    pub fn made_with(tenants: &[&str], more: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("the house");
        let mut house = Self { folder, authority, officers: vec![], seconds: vec![], running: None };
        std::fs::write(house.passphrase(), PASSPHRASE).unwrap();
        let mut init = house.command("init");
        let authorities = house.folder.path().join("authorities.pem");
        std::fs::write(&authorities, house.authority.pem()).unwrap();
        init.args(["--trust-domain", TRUST_DOMAIN]).arg("--client-ca").arg(authorities);
        for tenant in tenants {
            let alice = house.authority.client(&[&spiffe(tenant, "officer", "alice")]);
            let file = house.folder.path().join(format!("{tenant}-alice.pem"));
            std::fs::write(&file, alice.certificate.pem()).unwrap();
            init.args(["--tenant", tenant, "--officer", &format!("{tenant}/alice={}", file.display())]);
            let bob = house.authority.client(&[&spiffe(tenant, "officer", "bob")]);
            let file = house.folder.path().join(format!("{tenant}-bob.pem"));
            std::fs::write(&file, bob.certificate.pem()).unwrap();
            init.args(["--officer", &format!("{tenant}/bob={}", file.display())]);
            house.officers.push(((*tenant).to_owned(), alice));
            house.seconds.push(((*tenant).to_owned(), bob));
        }
        more(&mut init);
        let made = init.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pki = house.dir().join("pki");
        let server = house.authority.server();
        std::fs::create_dir(&pki).unwrap();
        std::fs::write(pki.join("ca.pem"), house.authority.pem()).unwrap();
        std::fs::write(pki.join("server.pem"), server.certificate.pem()).unwrap();
        std::fs::write(pki.join("server.key"), server.key.serialize_pem()).unwrap();
        house
    }

    /// The same, running.
    pub fn open(tenants: &[&str]) -> Self {
        let mut house = Self::new(tenants);
        house.up();
        house
    }

    /// The same with the lending schema in force for every tenant.
    pub async fn lending(tenants: &[&str]) -> Self {
        let house = Self::open(tenants);
        house.apply_lending().await;
        house
    }

    /// Puts the lending schema in force for every tenant.
    pub async fn apply_lending(&self) {
        for (tenant, alice) in &self.officers {
            let request = v1::ApplySchemaRequest { source: LENDING.to_owned(), dry_run: false };
            let channel = self.connect(alice).await;
            let applied = AccessClient::new(channel).apply_schema(request).await.unwrap().into_inner();
            assert_eq!(applied.version, 1, "{tenant}");
        }
    }

    /// Starts the server.
    pub fn up(&mut self) {
        self.running = Some(start(&mut self.serve()).unwrap());
    }

    /// Starts the server by a command of the test's own.
    pub fn up_by(&mut self, command: &mut Command) {
        self.runs(start(command).unwrap());
    }

    /// Takes over a server that the test started.
    pub fn runs(&mut self, running: Running) {
        self.running = Some(running);
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// The vault's folder.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("vault")
    }

    /// The file with its passphrase.
    pub fn passphrase(&self) -> PathBuf {
        self.folder.path().join("passphrase")
    }

    /// A command of the binary, for this vault and with its passphrase.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(BINARY);
        command.arg(name).arg("--dir").arg(self.dir());
        command.arg("--passphrase-file").arg(self.passphrase()).stdin(Stdio::null());
        command
    }

    /// The command that serves it.
    pub fn serve(&self) -> Command {
        let mut command = self.command("serve");
        command.args(["--listen", "127.0.0.1:0"]);
        command
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address
    }

    /// The officer of a tenant.
    pub fn officer(&self, tenant: &str) -> &Issued {
        &self.officers.iter().find(|(name, _)| name == tenant).unwrap().1
    }

    /// The second officer of a tenant, who approves what the first one asks for.
    pub fn second(&self, tenant: &str) -> &Issued {
        &self.seconds.iter().find(|(name, _)| name == tenant).unwrap().1
    }

    /// A connection with a certificate.
    pub async fn connect(&self, client: &Issued) -> Channel {
        self.try_connect(client).await.unwrap()
    }

    /// The same, if it can be made.
    pub async fn try_connect(&self, client: &Issued) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .identity(client.identity());
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address())).unwrap();
        connect(endpoint.tls_config(tls).unwrap()).await
    }

    /// A connection as a principal of a tenant.
    pub async fn channel(&self, tenant: &str, role: &str, name: &str) -> Channel {
        self.connect(&self.authority.client(&[&spiffe(tenant, role, name)])).await
    }

    /// Values, as a service of a tenant.
    pub async fn vault(&self, tenant: &str, name: &str) -> VaultClient<Channel> {
        vault_client(self.channel(tenant, "app", name).await)
    }

    /// The state, as a service of a tenant sees it.
    pub async fn status(&self, tenant: &str) -> v1::StatusResponse {
        let channel = self.channel(tenant, "app", "core").await;
        SystemClient::new(channel).status(v1::StatusRequest {}).await.unwrap().into_inner()
    }

    /// Every leaf of a tenant's ledger, as text.
    pub async fn ledger(&self, tenant: &str) -> Vec<String> {
        let request = v1::ExportRequest::default();
        let channel = self.channel(tenant, "auditor", "eve").await;
        let mut pages = AuditClient::new(channel).export(request).await.unwrap().into_inner();
        let mut leaves = Vec::new();
        while let Some(page) = pages.message().await.unwrap() {
            leaves.extend(page.leaves.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()));
        }
        leaves
    }
}
