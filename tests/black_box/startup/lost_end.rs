//! A store that lost its end, as no recovery mode of a write-ahead log would notice: it does not start.

use std::fs;
use std::path::{Path, PathBuf};

use super::files;
use crate::harness::{TestVault, item, one_token, read_one, tokenize};

/// A vault that was killed at work, and how many tokens it gave out.
struct Killed {
    vault: TestVault,
    tokens: Vec<String>,
}

/// Writes until the head file, which is written each second, speaks of what was written; then kills the server.
async fn killed_at_work() -> Killed {
    let mut vault = TestVault::start();
    let head = || fs::read(vault.dir().join("head")).unwrap();
    let mut client = vault.vault().await;
    let (mut tokens, first) = (Vec::new(), head());
    while head() == first {
        let request = tokenize(vec![item("borrower.name", &format!("Borrower {}", tokens.len()), "cust-1")]);
        tokens.extend(client.tokenize(request).await.unwrap().into_inner().tokens);
    }
    vault.kill();
    Killed { vault, tokens }
}

impl Killed {
    /// The write-ahead logs, oldest first.
    fn logs(&self) -> Vec<PathBuf> {
        files(&self.vault.dir().join("data"), |name| name.ends_with(".log"))
    }

    #[track_caller]
    fn does_not_start(&self) -> String {
        let said = self.vault.refuses_to_start();
        assert!(!said.contains("Borrower") && !said.contains(&self.tokens[0]), "{said}");
        said
    }
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

fn cut(file: &Path, to: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(to).unwrap();
}

#[tokio::test]
async fn a_deleted_write_ahead_log_is_noticed() {
    let killed = killed_at_work().await;
    assert!(!killed.logs().is_empty());
    for log in killed.logs() {
        fs::remove_file(log).unwrap();
    }
    let said = killed.does_not_start();
    assert!(said.contains("behind its head file") && said.contains("newest copy of the data folder"), "{said}");
    // Nothing that a refused start does makes the next one succeed.
    let again = killed.does_not_start();
    assert!(again.contains("behind its head file"), "{again}");
}

#[tokio::test]
async fn a_write_ahead_log_cut_in_half_is_noticed() {
    let killed = killed_at_work().await;
    let log = killed.logs().pop().unwrap();
    cut(&log, size(&log) / 2);
    let said = killed.does_not_start();
    assert!(said.contains("behind its head file") && said.contains("acknowledged writes are lost"), "{said}");
    let again = killed.does_not_start();
    assert!(again.contains("behind its head file"), "{again}");
}

#[tokio::test]
async fn a_write_ahead_log_damaged_in_its_middle_is_noticed() {
    let killed = killed_at_work().await;
    let log = killed.logs().pop().unwrap();
    super::flip(&log, 0.5);
    let said = killed.does_not_start();
    assert!(said.contains("does not open"), "{said}");
}

#[tokio::test]
async fn a_tail_torn_in_a_write_that_nobody_was_told_of_costs_nothing() {
    let Killed { mut vault, mut tokens } = killed_at_work().await;
    vault.up();
    tokens.push(one_token(&vault, "borrower.name", "The last borrower", "cust-1").await);
    vault.kill();
    // The beginning of a record of 4,096 bytes, of which the machine wrote 500 before it lost its power.
    let log = files(&vault.dir().join("data"), |name| name.ends_with(".log")).pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes.extend([0x5a, 0x17, 0x33, 0x80, 0x00, 0x10, 0x01]);
    bytes.extend([0x42; 500]);
    fs::write(&log, bytes).unwrap();
    vault.up();
    assert_eq!(read_one(&vault, &tokens[0], "kyc_review", "plain").await.unwrap(), "Borrower 0");
    assert_eq!(read_one(&vault, tokens.last().unwrap(), "kyc_review", "plain").await.unwrap(), "The last borrower");
    vault.verify_ledger();
}

#[tokio::test]
async fn a_vault_that_is_killed_right_after_its_start_or_its_first_write_starts_again() {
    let mut vault = TestVault::start();
    assert!(vault.stop().success());
    vault.up();
    vault.kill();
    vault.up();
    let token = one_token(&vault, "borrower.name", "Borrower 0", "cust-1").await;
    vault.kill();
    vault.up();
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), "Borrower 0");
    assert!(vault.stop().success());
    vault.up();
    vault.verify_ledger();
}
