//! The key of a ledger is rotated: auditors and witnesses who keep the old one go on, and nobody takes a foreign one.

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::approvals::command_with_approval;
use crate::harness::{TestVault, grow};
use crate::house::Process;
use crate::patience::lines;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A vault, and the files that somebody keeps of it.
struct Kept {
    vault: TestVault,
}

impl Kept {
    fn new() -> Self {
        Self { vault: TestVault::start() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.vault.scratch().join(name)
    }

    /// A file's path, as a word.
    fn word(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// Keeps what a command prints.
    fn keep(&self, name: &str, words: &[&str]) {
        fs::write(self.at(name), self.vault.cli_ok(words)).unwrap();
    }

    fn run(&self, words: &[&str]) -> Output {
        self.vault.cli(words)
    }

    /// What a command answers that goes well.
    fn json(&self, words: &[&str]) -> Value {
        self.vault.json(words)
    }

    async fn grow(&self, name: &str) {
        grow(&self.vault, name, 3).await;
    }

    fn export(&self, name: &str) -> String {
        let out = self.word(name);
        self.vault.cli_ok(&["audit", "export", "-o", &out]);
        out
    }

    /// The public keys, as the vault names them.
    fn keys(&self) -> Vec<String> {
        self.vault.cli_ok(&["audit", "key"]).lines().map(str::to_owned).collect()
    }

    fn destroy_first(&self) {
        command_with_approval(&self.vault, &["keys", "destroy", "ledger", "1", "--as", "officer-1"]);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    said(output)
}

/// Which keys are known, and whether the ledger itself names them.
fn known(report: &Value) -> Vec<(String, bool)> {
    let key = |key: &Value| (key["key"].as_str().unwrap().to_owned(), !key["named_by"].is_null());
    report["keys"].as_array().unwrap().iter().map(key).collect()
}

#[tokio::test]
async fn an_auditor_who_keeps_the_old_key_goes_on() {
    let kept = Kept::new();
    kept.grow("Ann").await;
    kept.keep("old.key", &["audit", "key"]);
    kept.keep("old.checkpoint", &["audit", "checkpoint"]);
    let old = kept.word("old.key");
    let rotated = kept.json(&["keys", "rotate", "ledger"]);
    assert_eq!((&rotated["version"], &rotated["rotated"]), (&2.into(), &true.into()));
    kept.grow("Bob").await;
    let keys = kept.keys();
    assert_eq!(keys.len(), 2);
    fs::write(kept.at("new.key"), &keys[0]).unwrap();
    let new = kept.word("new.key");

    // While both sign: with either.
    let first = kept.export("first.jsonl");
    let report = kept.json(&["audit", "verify", &first, "--log-key", &old, "--keys-out", &kept.word("known.key")]);
    assert_eq!(known(&report), [(keys[1].clone(), false), (keys[0].clone(), true)]);
    let signed_by: Vec<&str> =
        report["checkpoints"][0]["signed_by"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    assert_eq!(signed_by, [&keys[1]]);
    assert_eq!(fs::read_to_string(kept.at("known.key")).unwrap(), format!("{}\n{}\n", keys[1], keys[0]));
    let report = kept.json(&["audit", "verify", &first, "--log-key", &new, "--older", &kept.word("old.checkpoint")]);
    assert_eq!(known(&report), [(keys[0].clone(), false), (keys[1].clone(), true)]);
    // A key of another log is none of this one's.
    kept.keep("foreign.key", &["audit", "key", "--log", "system", "--as", "operator"]);
    let foreign = kept.word("foreign.key");
    refused(&kept.run(&["audit", "verify", &first, "--log-key", &foreign]));

    // Only the new one signs: what both signed leads to it.
    kept.destroy_first();
    kept.grow("Eve").await;
    assert_eq!(kept.keys(), keys, "the public half of a destroyed key stays known");
    let last = kept.export("last.jsonl");
    kept.json(&["audit", "verify", &last]);
    kept.json(&["audit", "verify", &last, "--log-key", &new]);
    kept.json(&["audit", "verify", &last, "--log-key", &kept.word("known.key")]);
    let both = format!("{first}.checkpoint");
    let report = kept.json(&["audit", "verify", &last, "--log-key", &old, "--older", &both]);
    assert_eq!(known(&report), [(keys[1].clone(), false), (keys[0].clone(), true)]);
    refused(&kept.run(&["audit", "verify", &last, "--log-key", &old]));
    let why =
        refused(&kept.run(&["audit", "verify", &last, "--log-key", &old, "--older", &kept.word("old.checkpoint")]));
    assert!(why.contains("names a newer key"), "{why}");
    refused(&kept.run(&["audit", "verify", &last, "--log-key", &foreign, "--older", &both]));

    // The same of the vault itself, from one checkpoint to today's.
    let report = kept.json(&["audit", "grown", &both, "--log-key", &old]);
    assert_eq!(report["signed_by"], Value::from(vec![keys[0].clone()]));
    assert_eq!(known(&report), [(keys[1].clone(), false), (keys[0].clone(), true)]);
    kept.json(&["audit", "grown", &kept.word("old.checkpoint"), "--log-key", &new]);
    refused(&kept.run(&["audit", "grown", &kept.word("old.checkpoint"), "--log-key", &old]));
    refused(&kept.run(&["audit", "grown", &both, "--log-key", &foreign]));
}

#[tokio::test]
async fn exports_of_some_leaves_are_by_the_new_key() {
    let kept = Kept::new();
    kept.grow("Ann").await;
    kept.keep("old.key", &["audit", "key"]);
    let old = kept.word("old.key");
    kept.vault.cli_ok(&["keys", "rotate", "ledger"]);
    kept.grow("Bob").await;
    let of = |action: &str, name: &str| {
        kept.vault.cli_ok(&["audit", "export", "--action", action, "-o", &kept.word(name)]);
        kept.word(name)
    };
    let (stored, told) = (of("tokenize", "stored.jsonl"), of("rotate_key", "told.jsonl"));
    kept.json(&["audit", "verify", "--excerpt", &stored]);
    let why = refused(&kept.run(&["audit", "verify", "--excerpt", &stored, "--log-key", &old]));
    assert!(why.contains("--keys-out"), "{why}");
    // The leaf that names the new key is among these.
    kept.json(&["audit", "verify", "--excerpt", &told, "--log-key", &old]);
    let whole = kept.export("whole.jsonl");
    kept.json(&["audit", "verify", &whole, "--log-key", &old, "--keys-out", &kept.word("known.key")]);
    kept.json(&["audit", "verify", "--excerpt", &stored, "--log-key", &kept.word("known.key")]);

    // So does the proof of that leaf alone.
    let leaves = kept.vault.leaves().await;
    let done = |leaf: &&Value| leaf["action"] == "rotate_key" && leaf["detail"]["stage"] == "done";
    let index = leaves.iter().find(done).unwrap()["index"].as_str().unwrap().to_owned();
    let proof = kept.word("leaf.tlog-proof");
    kept.vault.cli_ok(&["audit", "prove", &index, "-o", &proof]);
    let checked = kept.json(&["audit", "check", &proof, "--log-key", &old]);
    assert_eq!(checked["names_key"], kept.keys()[0]);
}

#[tokio::test]
async fn a_witness_that_knew_the_old_key_goes_on() {
    let kept = Kept::new();
    kept.keep("old.key", &["audit", "key"]);
    let (state, old, out) = (kept.word("witness"), kept.word("old.key"), kept.word("cosigned"));
    kept.vault.cli_ok(&["witness", "init", "w.example/1", "--state", &state]);
    let cosign = ["witness", "cosign", "--state", &state, "--log-key", &old, "-o", &out];
    let learned = |report: &Value| report["learned_keys"].as_array().unwrap().len();
    kept.grow("Ann").await;
    assert_eq!(learned(&kept.json(&[&cosign[..], &["--first"]].concat())), 0);
    kept.vault.cli_ok(&["keys", "rotate", "ledger"]);
    kept.grow("Bob").await;
    assert_eq!(learned(&kept.json(&cosign)), 1, "while both sign");
    kept.destroy_first();
    kept.grow("Eve").await;
    kept.json(&cosign);
    kept.json(&cosign);
    let note = fs::read_to_string(&out).unwrap();
    assert_eq!(note.split_once("\n\n").unwrap().1.lines().count(), 2, "the new key's line, and the witness's: {note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_ledger_by_the_old_key_goes_on() {
    let kept = Kept::new();
    kept.keep("old.key", &["audit", "key"]);
    let (old, out) = (kept.word("old.key"), kept.word("followed.jsonl"));
    let follow = |more: &[&str]| {
        let words = [&["audit", "tail", "-o", &out, "--log-key", &old], more].concat();
        Process(kept.vault.cli_command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let run = follow(&["--from", "0"]);
    lines(PATIENCE, &kept.at("followed.jsonl"), 1).await;
    drop(run);
    kept.vault.cli_ok(&["keys", "rotate", "ledger"]);
    // While both sign it learns the other.
    for name in ["Ann", "Bob"] {
        kept.grow(name).await;
        let all = kept.vault.leaves().await.len();
        let run = follow(&[]);
        lines(PATIENCE, &kept.at("followed.jsonl"), all).await;
        drop(run);
        if name == "Ann" {
            kept.destroy_first();
        }
    }
    // One who has never known another key than a foreign one does not begin.
    kept.keep("foreign.key", &["audit", "key", "--log", "system", "--as", "operator"]);
    let words = ["audit", "tail", "-o", &kept.word("other.jsonl"), "--log-key", &kept.word("foreign.key")];
    refused(&kept.run(&words));
}

#[tokio::test]
async fn the_key_of_the_vaults_own_log_rotates_and_it_starts_again() {
    let mut kept = Kept::new();
    kept.keep("old.key", &["audit", "key", "--log", "system", "--as", "operator"]);
    let denied = kept.run(&["keys", "rotate", "ledger", "--as", "app"]);
    assert_ne!(denied.status.code(), Some(0));
    assert_eq!(kept.json(&["keys", "rotate", "ledger", "--as", "operator"])["version"], 2);
    let compromise = ["keys", "state", "ledger", "1", "compromised", "--as", "operator"];
    for round in 0..2 {
        // Killed, and stopped in order.
        if round == 0 {
            kept.vault.kill();
        } else {
            kept.vault.stop();
        }
        kept.vault.up();
        let out = kept.word(&format!("system-{round}.jsonl"));
        kept.vault.cli_ok(&["audit", "export", "--log", "system", "--as", "operator", "-o", &out]);
        kept.json(&["audit", "verify", &out]);
        let by_old = kept.run(&["audit", "verify", &out, "--log-key", &kept.word("old.key")]);
        match round {
            0 => {
                assert!(by_old.status.success(), "{}", said(&by_old));
                kept.vault.cli_ok(&compromise);
            }
            _ => drop(refused(&by_old)),
        }
    }
}
