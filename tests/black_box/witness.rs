//! A witness of a ledger: what continues is cosigned. What does not is refused and named: see `tamper/forks.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::files::path;
use crate::harness::{TestVault, grow};
use crate::patience::until;

/// How long a head may take that is newer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A witness of the vault's ledger, with its folder.
pub struct Witness<'a> {
    pub vault: &'a TestVault,
    pub state: PathBuf,
    pub log_key: PathBuf,
}

impl<'a> Witness<'a> {
    pub fn new(vault: &'a TestVault, name: &str) -> Self {
        let state = vault.scratch().join(name);
        let log_key = vault.scratch().join("log.key");
        vault.cli_ok(&["witness", "init", &format!("{name}.example/w"), "--state", path(&state)]);
        fs::write(&log_key, vault.cli_ok(&["audit", "key"])).unwrap();
        Self { vault, state, log_key }
    }

    pub fn cosign(&self, out: &Path) -> Output {
        self.of(self.vault, out, &[])
    }

    pub fn first(&self, out: &Path) -> Output {
        self.of(self.vault, out, &["--first"])
    }

    pub fn of(&self, vault: &TestVault, out: &Path, more: &[&str]) -> Output {
        let words =
            ["witness", "cosign", "--state", path(&self.state), "--log-key", path(&self.log_key), "-o", path(out)];
        vault.cli(&[&words[..], more].concat())
    }
}

/// What a command said to standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn what_continues_is_cosigned_and_auditors_can_ask_for_it() {
    let vault = TestVault::start();
    let (one, two) = (Witness::new(&vault, "one"), Witness::new(&vault, "two"));
    let cosigned = vault.scratch().join("cosigned");
    for round in 0..3 {
        grow(&vault, &format!("Ann {round}"), 5).await;
        let output = if round == 0 { one.first(&cosigned) } else { one.cosign(&cosigned) };
        assert!(output.status.success(), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let since = if round == 0 { "the first" } else { "from " };
        assert!(told.lines().any(|line| line.contains("continued") && line.contains(since)), "{told}");
    }
    // One that can't be made twice, and does not forget its key.
    let again = vault.cli(&["witness", "init", "one.example/w", "--state", path(&one.state)]);
    assert_eq!(again.status.code(), Some(1));

    let ledger = vault.scratch().join("ledger.jsonl");
    let leaves = fs::read_to_string(&cosigned).unwrap().lines().nth(1).unwrap().parse::<u64>().unwrap();
    grow(&vault, "Ben", 1).await;
    // A head is signed at most once a second: the one that was cosigned may still be the newest.
    until(PATIENCE, "a newer head", async || {
        vault.cli_ok(&["audit", "export", "-o", path(&ledger)]);
        let count = fs::read_to_string(&ledger).unwrap().lines().count() as u64;
        if count > leaves { Ok(()) } else { Err(count) }
    })
    .await;
    let keys = vault.scratch().join("witnesses");
    let both = [&one, &two].map(|witness| fs::read_to_string(witness.state.join("witness.vkey")).unwrap());
    fs::write(&keys, both.concat()).unwrap();
    let verify = |more: &[&str]| {
        let words = ["audit", "verify", path(&ledger), "--older", path(&cosigned), "--witness-keys", path(&keys)];
        vault.cli(&[&words[..], more].concat())
    };
    // What was written since then no witness saw.
    let output = verify(&["--witnesses", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--witnessed-at-least"), "{}", said(&output));
    let more = (leaves + 1).to_string();
    assert_eq!(verify(&["--witnesses", "1", "--witnessed-at-least", &more]).status.code(), Some(1));
    let output = verify(&["--witnesses", "1", "--witnessed-at-least", &leaves.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("witnessed"));
    let output = verify(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("1 at the most"), "{}", said(&output));
    // The log's own key is no witness.
    fs::copy(&one.log_key, &keys).unwrap();
    assert_eq!(verify(&[]).status.code(), Some(1));
}

#[tokio::test]
async fn a_witness_that_lost_what_it_saw_does_not_begin_anew_by_itself() {
    let vault = TestVault::start();
    grow(&vault, "Ann", 3).await;
    let out = vault.scratch().join("cosigned");
    let witness = Witness::new(&vault, "one");
    let output = witness.cosign(&out);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--first") && !out.exists(), "{}", said(&output));
    assert!(witness.first(&out).status.success());
    // Nobody says so each time: it would be no question any more.
    let output = witness.first(&out);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("without --first"), "{}", said(&output));
    for entry in fs::read_dir(&witness.state).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|ending| ending == "checkpoint") {
            fs::remove_file(&file).unwrap();
        }
    }
    fs::remove_file(&out).unwrap();
    assert_eq!(witness.cosign(&out).status.code(), Some(1));
    assert!(!out.exists(), "nothing is cosigned");
}
