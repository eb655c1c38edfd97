//! What callers read of their own ledger over plain HTTPS, and what nobody else does.

use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;

use serde_json::{Value, json};
use tlog_tiles::{Tile, TileHashReader, TileReader};
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::codegen::{Body as _, Service};
use ureq::Agent;
use ureq::http::Method;
use ureq::tls::{Certificate, ClientCert, PrivateKey};

use crate::harness::{TestVault, grow};
use crate::house::{House, spiffe, start_and_read};
use crate::proofs;
use crate::tiles_https::{Answer, agent, ask};

const ENTRIES: &str = "[entries]\nlisten = \"127.0.0.1:0\"\n";

/// A tool of others, with a certificate.
struct Reader {
    agent: Agent,
    base: String,
}

impl Reader {
    fn new(authority: &[u8], (certificate, key): (&[u8], &[u8]), at: SocketAddr) -> Self {
        let certificate = Certificate::from_pem(certificate).unwrap();
        let client = ClientCert::new_with_certs(&[certificate], PrivateKey::from_pem(key).unwrap());
        Self { agent: agent(authority, Some(client)), base: format!("https://localhost:{}", at.port()) }
    }

    fn of(vault: &TestVault, principal: &str) -> Self {
        let read = |name: String| fs::read(vault.dir().join("pki").join(name)).unwrap();
        let shown = (read(format!("{principal}.pem")), read(format!("{principal}.key")));
        Self::new(&read("ca.pem".to_owned()), (&shown.0, &shown.1), vault.entries())
    }

    fn ask(&self, method: Method, path: &str) -> Answer {
        ask(&self.agent, method, &format!("{}{path}", self.base)).unwrap()
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path)
    }

    fn found(&self, path: &str) -> Vec<u8> {
        let answer = self.get(path);
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!((answer.status, answer.keep.as_str()), (200, "no-store"), "{path}: {said}");
        answer.body
    }

    /// Status and body of what must be refused.
    fn refused(&self, path: &str) -> (u16, String) {
        let answer = self.get(path);
        assert_eq!((answer.kind.as_str(), answer.keep.as_str()), ("text/plain; charset=utf-8", "no-store"), "{path}");
        (answer.status, String::from_utf8(answer.body).unwrap())
    }
}

impl TileReader for Reader {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let path = |tile: &Tile| format!("/demo/{}", tile.path().replacen("tile/8/", "tile/", 1));
        Ok(tiles.iter().map(|tile| self.found(&path(tile))).collect())
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// A vault whose ledger callers read, with so many leaves and some.
async fn readable(leaves: usize) -> TestVault {
    let mut vault = TestVault::start();
    vault.stop();
    vault.configure(ENTRIES);
    vault.up();
    grow(&vault, "Ann", leaves).await;
    vault
}

/// Those that say who read what.
async fn reads(vault: &TestVault, principal: &str) -> Vec<Value> {
    let mut leaves = vault.leaves().await;
    leaves.retain(|leaf| leaf["principal"] == principal && leaf["action"] == "export_ledger");
    leaves
}

#[tokio::test]
async fn the_whole_ledger_is_read_and_verified_from_one_address() {
    // More than a tile, and some.
    let vault = readable(290).await;
    let (reader, key) = (Reader::of(&vault, "auditor"), vault.cli_ok(&["audit", "key"]));
    let head = proofs::head(&reader.found("/demo/checkpoint"), &key);
    let rest = head.size() - 256;
    let bundles = ["000".to_owned(), format!("001.p/{rest}")];
    let bundles = bundles.map(|name| reader.found(&format!("/demo/tile/entries/{name}")));
    let lines: Vec<&[u8]> = bundles.iter().flat_map(|bundle| proofs::bundled(bundle)).collect();
    assert_eq!(lines.len() as u64, head.size());
    let tiles = ["000".to_owned(), format!("001.p/{rest}")].map(|name| reader.found(&format!("/demo/tile/0/{name}")));
    for (line, hash) in lines.iter().zip(tiles.concat().chunks(32)) {
        assert_eq!(tlog_tiles::record_hash(line).0, hash);
    }
    let nodes = TileHashReader::new(head.size(), *head.hash(), &reader);
    assert!(tlog_tiles::tree_hash(head.size(), &nodes).unwrap() == *head.hash());
    // Byte by byte what the command exports, and less of a bundle is its beginning.
    let folder = vault.scratch().join("ledger");
    vault.cli_ok(&["audit", "tiles", "-o", folder.to_str().unwrap()]);
    assert_eq!(bundles[0], fs::read(folder.join("tile/entries/000")).unwrap());
    assert!(bundles[0].starts_with(&reader.found("/demo/tile/entries/000.p/7")));

    // Every read is an export of its leaves, and recorded so.
    let ranges: Vec<Value> = reads(&vault, "auditor/auditor").await.iter().map(|leaf| leaf["detail"].clone()).collect();
    for (first, end) in [(0, 256), (256, 256 + rest), (0, 7)] {
        let range = json!({ "first": first.to_string(), "end": end.to_string() });
        assert!(ranges.contains(&range), "{first} {end}: {ranges:?}");
    }
    let (status, said) = reader.refused("/demo/tile/entries/001.p/255");
    assert!(status == 404 && said.contains("the signed head has") && said.contains("tile/entries/001.p/"), "{said}");
    vault.verify_ledger();
}

#[tokio::test]
async fn http_2_brings_the_same() {
    let vault = readable(3).await;
    let reader = Reader::of(&vault, "auditor");
    let mut channel = vault.channel_to("auditor", vault.entries()).await;
    for (path, status) in [("/demo/tile/entries/000.p/3", 200), ("/demo/tile/0/000.p/3", 200), ("/demo/key", 404)] {
        poll_fn(|context| Service::poll_ready(&mut channel, context)).await.unwrap();
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = channel.call(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let (mut body, mut read) = (answer.into_body(), Vec::new());
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            read.extend(frame.unwrap().into_data().unwrap_or_default());
        }
        assert_eq!(read, reader.get(path).body, "{path}");
    }
}

#[tokio::test]
async fn nobody_gets_it_without_a_certificate_and_who_may_not_export_is_recorded() {
    let mut vault = readable(3).await;
    let authority = fs::read(vault.dir().join("pki/ca.pem")).unwrap();
    let url = format!("https://{}/demo/tile/entries/000.p/1", vault.entries());
    assert!(ask(&agent(&authority, None), Method::GET, &url).is_err(), "the handshake fails");

    let (status, said) = Reader::of(&vault, "app").refused("/demo/tile/entries/000.p/3");
    assert!(status == 403 && said.starts_with("DENIED: policy does not allow export_ledger"), "{status} {said}");
    let denied = reads(&vault, "app/app").await;
    assert_eq!(denied.len(), 1);
    assert_eq!((&denied[0]["decision"], &denied[0]["reason"]), (&"deny".into(), &"DENIED".into()));

    let auditor = Reader::of(&vault, "auditor");
    vault.cli_ok(&["principal", "suspend", "auditor/auditor", "--reason", "its key was found on a laptop"]);
    for path in ["/demo/tile/entries/000.p/3", "/demo/tile/0/000.p/3", "/demo/checkpoint"] {
        let (status, said) = auditor.refused(path);
        assert!(status == 403 && said.starts_with("SUSPENDED: "), "{path}: {status} {said}");
    }
    vault.cli_ok(&["principal", "unsuspend", "auditor/auditor"]);
    assert_eq!(proofs::bundled(&auditor.found("/demo/tile/entries/000.p/3")).len(), 3);
    let stopped = reads(&vault, "auditor/auditor").await;
    assert!(stopped.iter().any(|leaf| leaf["reason"] == "SUSPENDED"));

    // The vault's own log is its operator's.
    assert_eq!(auditor.refused("/system/tile/entries/000.p/1").0, 403);
    assert_eq!(Reader::of(&vault, "operator").get("/system/tile/entries/000.p/1").status, 200);

    vault.cli_ok(&["seal"]);
    let (status, said) = auditor.refused("/demo/tile/entries/000.p/3");
    assert!(status == 503 && said.starts_with("SEALED: "), "{status} {said}");
    assert!(vault.stop().success());
}

#[tokio::test]
async fn the_log_of_another_tenant_is_not_there() {
    let mut house = House::new(&["lending", "retail"]);
    let path = house.dir().join("strongroom.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{config}\n{ENTRIES}")).unwrap();
    let (running, told) = start_and_read(&mut house.serve(), "serving on https://");
    house.runs(running);
    let at = told.lines().find_map(|line| line.strip_prefix("entries on https://")).unwrap().parse().unwrap();
    let reader = |tenant: &str| {
        let issued = house.authority.client(&[&spiffe(tenant, "auditor", "eve")]);
        let (certificate, key) = (issued.certificate.pem(), issued.key.serialize_pem());
        Reader::new(house.authority.pem().as_bytes(), (certificate.as_bytes(), key.as_bytes()), at)
    };
    let (lending, retail) = (reader("lending"), reader("retail"));
    let bundle = |reader: &Reader, log: &str| reader.get(&format!("/{log}/tile/entries/000.p/1"));
    let (own, theirs) = (bundle(&lending, "lending"), bundle(&retail, "retail"));
    assert_eq!((own.status, theirs.status), (200, 200));
    assert_ne!(own.body, theirs.body);
    for what in ["tile/entries/000.p/1", "tile/0/000.p/1", "checkpoint"] {
        let (there, nowhere) =
            (lending.refused(&format!("/retail/{what}")), lending.refused(&format!("/no-one/{what}")));
        assert_eq!((there.0, &there.1), (404, &nowhere.1), "{what}");
    }
    let ledger = house.ledger("lending").await;
    let strange = ledger.iter().filter(|leaf| leaf.contains("\"fail\"") && leaf.contains("export_ledger"));
    assert_eq!(strange.count(), 2, "one leaf each");
    assert!(ledger.iter().all(|leaf| !leaf.contains("retail") && !leaf.contains("no-one")));
    // One whose certificate names nobody here.
    assert_eq!(bundle(&reader("nowhere"), "lending").status, 403);
}

#[tokio::test]
async fn nothing_else_is_found_and_nothing_but_reading_is_done() {
    let mut vault = readable(3).await;
    let auditor = Reader::of(&vault, "auditor");
    let before = reads(&vault, "auditor/auditor").await.len();
    for path in [
        "/",
        "/demo",
        "/checkpoint",
        "/demo/key",
        "/demo/checkpoint?x=1",
        "/demo/tile/entries",
        "/demo/tile/entries/0",
        "/demo/tile/entries/000.p/0",
        "/demo/tile/entries/000.p/256",
        "/demo/tile/entries/-01",
        "/demo/tile/entries/x999/x999/x999/x999/x999/x999/x999/999",
        "/demo/tile/entries/%30%30%30",
        "/demo/tile/data/000",
        "/demo/tile/64/000",
        "/DEMO/checkpoint",
        "/strongroom.v1.Audit/Export",
        "/grpc.health.v1.Health/Check",
    ] {
        let (status, said) = auditor.refused(path);
        assert!(status == 404 && said.contains("/LOG/tile/entries/N"), "{path}: {status} {said}");
    }
    // Whole numbers, but of nothing that there is.
    for path in ["/demo/tile/entries/000", "/demo/tile/entries/x018/x446/x744/x073/x709/x551/615"] {
        let (status, said) = auditor.refused(path);
        assert!(status == 404 && said.contains("the signed head has"), "{path}: {status} {said}");
    }
    for method in [Method::HEAD, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        assert_eq!(auditor.ask(method.clone(), "/demo/tile/entries/000.p/1").status, 405, "{method}");
    }
    let mut recorded = reads(&vault, "auditor/auditor").await.split_off(before);
    recorded.retain(|leaf| leaf["decision"] == "allow");
    assert_eq!(recorded.len(), 1, "the look at the ledger before: {recorded:?}");
    assert!(!vault.read_log().contains("panicked"), "{}", vault.read_log());
    assert!(vault.stop().success());
}
