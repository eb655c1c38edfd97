//! What anybody reads over HTTPS of a ledger that is published, and what nobody does.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tlog_tiles::{HashReader, Tile, TileHashReader, TileReader};
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, ClientCert, RootCerts, TlsConfig};

use crate::harness::{TestVault, grow};
use crate::needles::files;
use crate::patience::until;
use crate::proofs;

/// The tenant's log under its name, the vault's own under another.
const PUBLISHED: &str =
    "[tiles]\nlisten = \"127.0.0.1:0\"\nlogs = [\"demo\", { tenant = \"system\", name = \"s1\" }]\n";

/// What was answered.
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub keep: String,
    length: String,
    pub body: Vec<u8>,
}

/// A client for HTTPS (HTTP/1.1) that knows an authority (PEM), and shows a certificate if it has one.
pub fn agent(authority: &[u8], client: Option<ClientCert>) -> Agent {
    let authority = Certificate::from_pem(authority).unwrap();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&[authority]))
        .client_cert(client)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        // One that was kept may have been closed meanwhile.
        .max_idle_connections(0)
        .timeout_global(Some(Duration::from_secs(30)));
    config.build().new_agent()
}

/// What is answered, if a connection can be had.
pub fn ask(agent: &Agent, method: Method, url: &str) -> Result<Answer, ureq::Error> {
    let request = Request::builder().method(method).uri(url).body(()).unwrap();
    let mut response = agent.run(request)?;
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let (kind, keep, length) = (header("content-type"), header("cache-control"), header("content-length"));
    let status = response.status().as_u16();
    Ok(Answer { status, kind, keep, length, body: response.body_mut().read_to_vec()? })
}

/// Somebody with a client for HTTPS, the vault's authority, and no certificate.
pub struct Stranger {
    agent: Agent,
    base: String,
}

impl Stranger {
    pub fn of(vault: &TestVault) -> Self {
        let authority = fs::read(vault.dir().join("pki/ca.pem")).unwrap();
        Self { agent: agent(&authority, None), base: format!("https://{}", vault.tiles()) }
    }

    fn ask(&self, method: Method, path: &str) -> Answer {
        ask(&self.agent, method, &format!("{}{path}", self.base)).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path)
    }

    fn found(&self, path: &str) -> Vec<u8> {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}");
        answer.body
    }

    /// The checkpoint of the tenant's log, which one of these keys must have signed.
    fn head(&self, key: &str) -> tlog_tiles::Checkpoint {
        proofs::head(&self.found("/demo/checkpoint"), key)
    }
}

/// A verifier of others reads tiles as they are asked for.
impl TileReader for Stranger {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        Ok(tiles
            .iter()
            .map(|tile| self.found(&format!("/demo/{}", tile.path().replacen("tile/8/", "tile/", 1))))
            .collect())
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// A vault that publishes, with so many leaves and some.
async fn published(leaves: usize) -> TestVault {
    let mut vault = TestVault::start();
    vault.stop();
    vault.configure(PUBLISHED);
    vault.up();
    grow(&vault, "Ann", leaves).await;
    vault
}

#[tokio::test]
async fn anybody_reads_the_hashes_that_an_auditor_exports_and_proves_a_leaf_by_them() {
    // More than a tile, and some.
    let vault = published(290).await;
    let folder = vault.scratch().join("ledger");
    vault.cli_ok(&["audit", "tiles", "-o", folder.to_str().unwrap()]);
    let stranger = Stranger::of(&vault);
    let mut tiles = 0;
    for file in files(&folder) {
        let path = file.strip_prefix(&folder).unwrap().to_str().unwrap();
        let answer = stranger.get(&format!("/demo/{path}"));
        if !path.starts_with("tile/") || path.starts_with("tile/entries/") {
            // The folder's checkpoint is an older one by now.
            assert_eq!(answer.status, if path == "checkpoint" { 200 } else { 404 }, "{path}");
            continue;
        }
        tiles += 1;
        assert_eq!(answer.body, fs::read(&file).unwrap(), "{path}");
        assert_eq!((answer.status, answer.kind.as_str()), (200, "application/octet-stream"), "{path}");
        assert!(answer.keep.contains("immutable"), "{}", answer.keep);
    }
    assert_eq!(tiles, 3, "two of leaves, of which one is partial, and the one above them");

    let key = fs::read_to_string(folder.join("key")).unwrap();
    let head = stranger.head(&key);
    let kept = proofs::head(&fs::read(folder.join("checkpoint")).unwrap(), &key);
    assert!(kept.size() > 256 && head.size() >= kept.size());
    let nodes = TileHashReader::new(head.size(), *head.hash(), &stranger);
    // Leaves of the first tile and of the last, whose lines the auditor gave out.
    let bundle = |name: String| fs::read(folder.join("tile/entries").join(name)).unwrap();
    for (bundle, first, index) in
        [(bundle("000".to_owned()), 0, 17), (bundle(format!("001.p/{}", kept.size() - 256)), 256, 270)]
    {
        let leaf = tlog_tiles::record_hash(proofs::bundled(&bundle)[index - first]);
        let index = index as u64;
        let proof = tlog_tiles::prove_record(head.size(), index, &nodes).unwrap();
        tlog_tiles::check_record(&proof, head.size(), *head.hash(), index, leaf).unwrap();
        let other = tlog_tiles::check_record(&proof, head.size(), *head.hash(), index + 1, leaf);
        assert!(other.is_err());
    }
    // What was exported is the beginning of what is there.
    assert!(tlog_tiles::tree_hash(kept.size(), &nodes).unwrap() == *kept.hash());
    assert_eq!(nodes.read_hashes(&[tlog_tiles::stored_hash_index(0, 0)]).unwrap().len(), 1);
}

#[tokio::test]
async fn a_checkpoint_follows_the_log_and_reading_it_leaves_no_trace_there() {
    let vault = published(3).await;
    let stranger = Stranger::of(&vault);
    let key = vault.cli_ok(&["audit", "key"]);
    let answer = stranger.get("/demo/checkpoint");
    assert_eq!((answer.kind.as_str(), answer.keep.as_str()), ("text/plain; charset=utf-8", "no-cache"));
    let before = stranger.head(&key).size();
    grow(&vault, "Bob", 20).await;
    // It is signed once a second at the most.
    until(Duration::from_secs(30), "a longer log", async || {
        let size = stranger.head(&key).size();
        if size < before + 20 { Err(size) } else { Ok(()) }
    })
    .await;
    let leaves = vault.leaves().await;
    for _ in 0..30 {
        assert_eq!(stranger.get("/demo/checkpoint").status, 200);
        assert_eq!(stranger.get("/demo/tile/0/000.p/3").body.len(), 3 * 32);
    }
    let after = vault.leaves().await;
    let since: Vec<&serde_json::Value> = after[leaves.len()..].iter().map(|leaf| &leaf["action"]).collect();
    assert!(since.iter().all(|action| *action == "export_ledger"), "{since:?}");
    let origin = |path: &str| String::from_utf8(stranger.found(path)).unwrap().lines().next().unwrap().to_owned();
    assert_ne!(origin("/s1/checkpoint"), origin("/demo/checkpoint"));
}

#[tokio::test]
async fn nothing_else_is_found_and_nothing_but_reading_is_done() {
    let vault = published(3).await;
    let stranger = Stranger::of(&vault);
    for path in [
        "/",
        "/demo",
        "/demo/",
        "/checkpoint",
        "/system/checkpoint",
        "/tile/0/000.p/1",
        "/demo/checkpoint/",
        "/demo/checkpoint?x=1",
        "/demo/key",
        "/demo/tile/",
        "/demo/tile/0/",
        "/demo/tile/0/000",
        "/demo/tile/0/000.p/200",
        "/demo/tile/0/000.p/0",
        "/demo/tile/0/x001/000",
        "/demo/tile/9/000.p/1",
        "/demo/tile/entries/000",
        "/demo/tile/entries/000.p/1",
        "/demo/tile/data/000.p/1",
        "/demo/%63heckpoint",
        "/strongroom.v1.Audit/GetCheckpoint",
    ] {
        let answer = stranger.get(path);
        assert_eq!((answer.status, answer.keep.as_str()), (404, "no-store"), "{path}");
        assert_eq!(answer.body, b"not found\n", "{path}");
    }
    for method in [Method::DELETE, Method::OPTIONS, Method::TRACE] {
        for path in ["/demo/checkpoint", "/demo/tile/0/000.p/1", "/"] {
            assert_eq!(stranger.ask(method.clone(), path).status, 405, "{method} {path}");
        }
    }
    let (get, head) = (stranger.get("/demo/tile/0/000.p/2"), stranger.ask(Method::HEAD, "/demo/tile/0/000.p/2"));
    assert_eq!((get.status, get.length.as_str(), get.body.len()), (200, "64", 64));
    assert_eq!((head.status, head.length.as_str(), head.body.len()), (200, "64", 0));
}

/// A connection of a client that does as the test wants.
fn connect(vault: &TestVault) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(vault.dir().join("pki/ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let socket = TcpStream::connect(vault.tiles()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    StreamOwned::new(client, socket)
}

/// All that comes until the connection ends, which it must.
fn rest(stream: &mut impl Read) -> String {
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it stands open: {error}");
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn too_many_headers_are_refused_and_nobody_reads_about_the_client() {
    let vault = published(1).await;
    let many: String = (0..100).map(|number| format!("x-{number}: needle-in-a-header\r\n")).collect();
    let mut stream = connect(&vault);
    stream.write_all(format!("GET /demo/checkpoint HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).unwrap();
    let said = rest(&mut stream);
    assert!(said.starts_with("HTTP/1.1 431 ") && !said.contains("needle"), "{said}");
    let mut stream = connect(&vault);
    stream.write_all(b"GET /needle-in-a-path?needle HTTP/1.1\r\nhost: needle\r\nconnection: close\r\n\r\n").unwrap();
    let said = rest(&mut stream);
    assert!(said.starts_with("HTTP/1.1 404 ") && !said.contains("needle"), "{said}");
    assert!(!vault.read_log().contains("needle"), "{}", vault.read_log());
}

#[tokio::test]
async fn who_says_nothing_is_left_and_others_are_served_meanwhile() {
    let vault = published(1).await;
    let mut silent = TcpStream::connect(vault.tiles()).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut idle = connect(&vault);
    idle.flush().unwrap();
    assert_eq!(Stranger::of(&vault).get("/demo/checkpoint").status, 200);
    assert_eq!(rest(&mut silent), "");
    assert!(!rest(&mut idle).contains("200"));
}

#[tokio::test]
async fn a_sealed_vault_publishes_nothing_until_it_is_unsealed() {
    let mut vault = published(3).await;
    let stranger = Stranger::of(&vault);
    let kept = stranger.found("/demo/tile/0/000.p/3");
    vault.cli_ok(&["seal"]);
    for path in ["/demo/checkpoint", "/demo/tile/0/000.p/3", "/demo/tile/5/000"] {
        let answer = stranger.get(path);
        assert_eq!((answer.status, answer.keep.as_str()), (503, "no-store"), "{path}");
    }
    assert_eq!(stranger.get("/demo/key").status, 404);
    let passphrase = vault.dir().join("dev-passphrase");
    vault.cli_ok(&["unseal", "--file", passphrase.to_str().unwrap()]);
    assert_eq!(stranger.found("/demo/tile/0/000.p/3"), kept);
    assert_eq!(stranger.get("/demo/checkpoint").status, 200);
    // A client that stands idle does not hold the end up.
    let mut idle = connect(&vault);
    idle.flush().unwrap();
    assert!(vault.stop().success());
}

#[tokio::test]
async fn a_list_of_logs_that_cannot_be_published_is_refused_at_the_start() {
    let mut vault = TestVault::start();
    vault.stop();
    let path = vault.dir().join("strongroom.toml");
    let config = fs::read_to_string(&path).unwrap();
    for (logs, why) in
        [("[]", "name the logs"), ("[\"../demo\"]", "names of tenants"), ("[\"demo\", \"demo\"]", "its own")]
    {
        fs::write(&path, format!("{config}\n[tiles]\nlisten = \"127.0.0.1:0\"\nlogs = {logs}\n")).unwrap();
        let said = vault.refuses_to_start();
        assert!(said.contains(why), "{logs}: {said}");
    }
}
