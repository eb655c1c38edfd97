//! The ledger as it grows: on a pipe, in a file that is begun anew, and at a collector that goes away.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use strongroom_proto::v1;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use crate::files::{copy, path, put};
use crate::harness::{TestVault, grow, refused};
use crate::house::Process;
use crate::patience::{lines, until};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn follow(vault: &TestVault, words: &[&str]) -> Process {
    let words = [&["audit", "tail"], words].concat();
    Process(vault.cli_command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn index(line: &str) -> u64 {
    let leaf: Value = serde_json::from_str(line).unwrap();
    leaf["index"].as_str().map_or_else(|| leaf["index"].as_u64().unwrap(), |index| index.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_come_as_they_are_written() {
    let vault = TestVault::start();
    let mut run = follow(&vault, &["--from", "0"]);
    let mut lines = BufReader::new(run.0.stdout.take().unwrap()).lines();
    let mut next = 0;
    for _ in 0..3 {
        grow(&vault, "Ann", 2).await;
        for _ in 0..2 {
            assert_eq!(index(&lines.next().unwrap().unwrap()), next);
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_export_may_not_follow_and_who_no_longer_may_is_cut_off() {
    let vault = TestVault::start();
    let mut app = vault.audit_as("app").await;
    let from = |first| v1::TailRequest { first, log: String::new() };
    assert_eq!(refused(app.tail(from(0)).await).code, Code::PermissionDenied);
    let mut stream = vault.audit().await.tail(from(0)).await.unwrap().into_inner();
    assert!(!stream.message().await.unwrap().unwrap().leaves.is_empty());
    vault.cli_ok(&["principal", "suspend", "auditor/auditor", "--reason", "a test"]);
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    });
    assert_eq!(ended.await.unwrap().map(drop).unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_every_leaf_once_whatever_is_killed() {
    let mut vault = TestVault::start();
    let out = vault.scratch().join("ledger.jsonl");
    let whole = || -> Vec<u64> {
        let older = (1..100).rev().map(|number| PathBuf::from(format!("{}.{number}", path(&out))));
        let files = older.chain([out.clone()]).filter_map(|file| fs::read_to_string(file).ok());
        files.flat_map(|text| text.lines().filter(|line| line.ends_with('}')).map(index).collect::<Vec<_>>()).collect()
    };
    let mut words = vec!["--from", "0", "-o", path(&out), "--rotate-mib", "1", "--keep", "99"];
    let mut expected = 0;
    for round in 0..4 {
        let run = follow(&vault, &words);
        // From now on the cursor says where to go on.
        words.retain(|word| !["--from", "0"].contains(word));
        // A large request has large leaves: a megabyte of them begins another file.
        let items =
            (0..2_000).map(|number| crate::harness::item("borrower.name", &format!("{round} {number}"), "")).collect();
        vault.vault().await.tokenize(crate::harness::tokenize(items)).await.unwrap();
        grow(&vault, "Ann", 3).await;
        expected += 4;
        until(PATIENCE, "every leaf", async || {
            let count = whole().len();
            if count < expected { Err(count) } else { Ok(()) }
        })
        .await;
        match round % 2 {
            0 => drop(run),
            _ => {
                // The vault goes, and comes again: at another port, so that the follower waits in vain.
                vault.kill();
                vault.up();
                drop(run);
            }
        }
    }
    let run = follow(&vault, &words);
    grow(&vault, "Ann", 1).await;
    let last = vault.cli_ok(&["audit", "checkpoint"]).lines().nth(1).unwrap().parse::<u64>().unwrap();
    until(PATIENCE, "the rest", async || {
        let count = whole().len();
        if (count as u64) < last { Err(count) } else { Ok(()) }
    })
    .await;
    // Whichever of them was killed as it renamed, the last one ends that.
    let older = format!("{}.1", path(&out));
    until(PATIENCE, "the file to be begun anew", async || fs::metadata(&older).map(drop)).await;
    drop(run);
    let indexes = whole();
    assert!(indexes.iter().copied().eq(0..indexes.len() as u64), "in order, none missing and none twice: {indexes:?}");

    let again = vault.cli(&["audit", "tail", "--from", "0", "-o", path(&out)]);
    assert_eq!(again.status.code(), Some(1), "a file that goes on is not begun anew by mistake");
    assert_eq!(whole().len(), indexes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_was_put_back_is_named_and_not_waited_for() {
    let mut vault = TestVault::start();
    grow(&vault, "Ann", 3).await;
    vault.stop();
    let older = vault.scratch().join("older");
    copy(&vault.dir(), &older);
    vault.up();
    grow(&vault, "Ann", 20).await;
    let out = vault.scratch().join("ledger.jsonl");
    let run = follow(&vault, &["--from", "0", "-o", path(&out)]);
    lines(PATIENCE, &out, 24).await;
    drop(run);
    let kept = fs::read(&out).unwrap();
    vault.stop();
    put(&older, &vault.dir());
    vault.up();
    // Shorter than what was followed, and then longer: another history of the same log.
    for leaves in [1, 60] {
        grow(&vault, "Ann", leaves).await;
        let mut run = follow(&vault, &["-o", path(&out)]);
        let ended = until(PATIENCE, "the end", async || run.0.try_wait().unwrap().ok_or("it runs")).await;
        let mut said = String::new();
        run.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(ended.code(), Some(1), "{said}");
        assert!(said.contains("is not the one that was followed"), "{said}");
        assert!(kept.starts_with(&fs::read(&out).unwrap()), "nothing of it is in the file");
    }
}

/// What a collector does with a connection.
#[derive(Clone, Copy)]
enum Does {
    /// Hangs up in the middle: what else was sent is lost.
    HangUp,
    /// Takes the connection, and reads so many messages. It never closes.
    Stall(usize),
    /// Reads to the end, and never closes.
    Hold,
}

/// A collector that does this with its first connections, and then what it should.
struct Collector {
    address: String,
    ca: String,
    seen: Arc<Mutex<BTreeSet<u64>>>,
    /// How many connections it has had.
    connections: Arc<AtomicUsize>,
}

impl Collector {
    async fn start(does: &'static [Does]) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (kept, count) = (Arc::clone(&seen), Arc::clone(&connections));
        tokio::spawn(async move {
            let mut held = Vec::new();
            let mut does = does.iter();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut io) = acceptor.accept(socket).await else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let does = does.next().copied();
                let mut bytes = Vec::new();
                let mut left = match does {
                    Some(Does::HangUp) => 5,
                    Some(Does::Stall(messages)) => messages,
                    Some(Does::Hold) | None => usize::MAX,
                };
                let mut read = [0; 4096];
                while left > 0 {
                    let Ok(count @ 1..) = io.read(&mut read).await else { break };
                    bytes.extend_from_slice(&read[..count]);
                    while left > 0
                        && let Some(message) = cut(&mut bytes)
                    {
                        kept.lock().unwrap().insert(index(&message[message.find('{').unwrap()..]));
                        left -= 1;
                    }
                }
                if matches!(does, Some(Does::Stall(_) | Does::Hold)) {
                    held.push(io);
                }
            }
        });
        Self { address, ca: authority.pem(), seen, connections }
    }

    /// Follows a vault's ledger into it.
    fn follow(&self, vault: &TestVault, more: &[&str]) -> Process {
        let (ca, cursor) = (vault.scratch().join("siem.pem"), vault.scratch().join("siem.cursor"));
        fs::write(&ca, &self.ca).unwrap();
        let words = ["--syslog", &self.address, "--syslog-ca", path(&ca), "--cursor", path(&cursor)];
        follow(vault, &[&words[..], more].concat())
    }

    /// Waits until it has seen the first leaves.
    async fn has(&self, leaves: u64) {
        until(PATIENCE, "what the collector shall see", async || {
            let seen = self.seen.lock().unwrap();
            match (0..leaves).find(|index| !seen.contains(index)) {
                Some(missing) => Err(format!("leaf {missing} of {leaves} is missing")),
                None => Ok(()),
            }
        })
        .await;
    }

    /// Waits until it has had so many connections.
    async fn had(&self, connections: usize) {
        until(PATIENCE, "connections", async || {
            let count = self.connections.load(Ordering::SeqCst);
            if count < connections { Err(format!("{count} of {connections}")) } else { Ok(()) }
        })
        .await;
    }
}

/// Which leaf comes next by the cursor of whoever follows into a collector.
fn next(vault: &TestVault) -> u64 {
    let cursor: Value = serde_json::from_slice(&fs::read(vault.scratch().join("siem.cursor")).unwrap()).unwrap();
    cursor["next"].as_u64().unwrap()
}

/// How many leaves there are.
fn size(vault: &TestVault) -> u64 {
    vault.cli_ok(&["audit", "checkpoint"]).lines().nth(1).unwrap().parse().unwrap()
}

/// The next message, if it is whole.
fn cut(bytes: &mut Vec<u8>) -> Option<String> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
    let end = space + 1 + length;
    let message = String::from_utf8(bytes.get(space + 1..end)?.to_vec()).unwrap();
    bytes.drain(..end);
    Some(message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_up_gets_every_leaf() {
    let vault = TestVault::start();
    let collector = Collector::start(&[Does::HangUp; 3]).await;
    let run = collector.follow(&vault, &["--from", "0"]);
    grow(&vault, "Ann", 8).await;
    collector.has(5).await;
    // Killed, and started again: it goes on where the cursor is.
    drop(run);
    let _run = collector.follow(&vault, &[]);
    collector.has(size(&vault)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_stalled_and_is_started_again_gets_every_leaf() {
    let vault = TestVault::start();
    let collector = Collector::start(&[Does::Stall(0), Does::Stall(3), Does::Stall(0)]).await;
    let patience = ["--syslog-timeout", "1"];
    let run = collector.follow(&vault, &[&patience[..], &["--from", "0"]].concat());
    grow(&vault, "Ann", 8).await;
    // Both were given up, by who follows.
    collector.had(3).await;
    assert_eq!(next(&vault), 0, "what the kernel of a collector has, the collector has not");
    // Who follows is started again as well.
    drop(run);
    let _run = collector.follow(&vault, &patience);
    let last = size(&vault);
    collector.has(last).await;
    until(PATIENCE, "the cursor", async || if next(&vault) < last { Err(next(&vault)) } else { Ok(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_closes_is_named() {
    let vault = TestVault::start();
    let collector = Collector::start(&[Does::Hold]).await;
    let mut run = collector.follow(&vault, &["--syslog-timeout", "1", "--from", "0"]);
    // Kept, so that nobody writes where nobody reads.
    let mut lines = BufReader::new(run.0.stderr.take().unwrap()).lines();
    let mut said = lines.by_ref().map(Result::unwrap);
    assert!(said.any(|line| line.contains("it did not close the connection")));
    assert_eq!(next(&vault), 0);
    collector.has(1).await;
}
