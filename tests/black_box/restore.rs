//! An older copy of the data folder in the place of the newest, from outside.

use std::path::PathBuf;

use serde_json::Value;
use tonic::Code;

use crate::approvals::command_with_approval;
use crate::files::{copy, put};
use crate::harness::{TestVault, item, one_token, read_one, refused, tokenize};

const FIELD: &str = "borrower.id_card";
const ID_CARD: &str = "11010519491231002X";

/// A stopped vault with a value, whose application was suspended after the copy of its data was made that lies in its place.
struct Older {
    vault: TestVault,
    token: String,
    newest: PathBuf,
}

impl Older {
    async fn new() -> Self {
        let mut vault = TestVault::start();
        let token = one_token(&vault, FIELD, ID_CARD, "cust-1").await;
        assert!(vault.stop().success());
        let (older, newest) = (vault.scratch().join("older"), vault.scratch().join("newest"));
        let data = vault.dir().join("data");
        copy(&data, &older);
        vault.up();
        vault.cli_ok(&["principal", "suspend", "app/app", "--reason", "its key was found on a laptop"]);
        vault.cli_ok(&["freeze", "borrower.mobile", "--reads"]);
        assert!(vault.stop().success());
        copy(&data, &newest);
        put(&older, &data);
        Self { vault, token, newest }
    }

    fn journal(&self) -> PathBuf {
        self.vault.dir().join("journal/journal")
    }

    /// `restore`, with the exit code that it should have; what it prints, and what it complains about.
    fn restored(&self, code: i32) -> (Value, String) {
        let output = self.vault.cli(&["restore", "--output", "json"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        (serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
    }

    /// The whole vault, which is stopped, is what its ledger says, and its ledger is verified offline once it runs.
    fn proven(&mut self) {
        let verified = self.vault.json(&["verify"]);
        assert_eq!(verified["verified"], true, "{verified:#}");
        self.vault.up();
        self.vault.verify_ledger();
    }
}

fn is_suspended(vault: &TestVault, principal: &str) -> bool {
    vault.cli_ok(&["freezes"]).contains(principal)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_suspended_since_the_copy_is_suspended_after_the_restore() {
    let mut older = Older::new().await;
    let said = older.vault.refuses_to_start();
    assert!(said.contains("behind its head file") && said.contains("`strongroom restore`"), "{said}");
    let (restored, _) = older.restored(0);
    assert_eq!((&restored["incarnation"], &restored["replayed"]), (&2.into(), &"2".into()), "{restored:#}");
    assert_eq!(restored["frozen"], false);
    older.proven();
    let vault = &older.vault;
    assert!(is_suspended(vault, "app/app"));
    let told = refused(vault.vault().await.tokenize(tokenize(vec![item(FIELD, ID_CARD, "cust-2")])).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "SUSPENDED"));
    assert!(vault.cli_ok(&["audit", "checkpoint"]).lines().next().unwrap().ends_with("/0/2"));
    let status = vault.json(&["status"]);
    assert_eq!(status["notice"], "");
    assert!(status["journal"]["path"].as_str().unwrap().ends_with("journal/journal"), "{status:#}");
    // The newest is newer than nothing now: it is of an incarnation that has ended.
    vault.cli_ok(&["principal", "unsuspend", "app/app"]);
    read_one(vault, &older.token, "kyc_review", "plain").await.unwrap();
    assert!(older.vault.stop().success());
    let (_, said) = older.restored(1);
    assert!(said.contains("nothing to restore"), "{said}");
    put(&older.newest, &older.vault.dir().join("data"));
    older.vault.refuses_to_start();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_everything_is_frozen_until_two_officers_end_that() {
    let mut older = Older::new().await;
    std::fs::remove_file(older.journal()).unwrap();
    let (restored, _) = older.restored(3);
    assert!(restored["frozen_because"].as_str().unwrap().contains("is missing"), "{restored:#}");
    older.proven();
    let vault = &older.vault;
    // Nobody knows any more that it was suspended; but nothing is read.
    let told = read_one(vault, &older.token, "kyc_review", "plain").await.unwrap_err();
    assert_eq!(told.reason, "FROZEN");
    let told = refused(vault.vault().await.tokenize(tokenize(vec![item(FIELD, ID_CARD, "cust-2")])).await);
    assert_eq!(told.reason, "FROZEN");
    let status = vault.cli_ok(&["status", "--as", "officer-1"]);
    assert!(status.contains("FROZEN") && status.contains("strongroom unfreeze"), "{status}");
    assert_eq!(vault.json(&["status", "--as", "app"])["notice"], "", "it is none of the application's business");
    command_with_approval(vault, &["unfreeze"]);
    assert_eq!(read_one(vault, &older.token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_named_and_keeps_the_vault_from_starting() {
    let mut vault = TestVault::start();
    vault.cli_ok(&["freeze", FIELD, "--reads"]);
    assert!(vault.stop().success());
    let file = vault.dir().join("journal/journal");
    let whole = std::fs::read(&file).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    std::fs::write(&file, changed).unwrap();
    let said = vault.refuses_to_start();
    assert!(said.contains("is damaged: record"), "{said}");
    let output = vault.cli(&["verify", "--output", "json"]);
    assert!(!output.status.success());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &document["findings"][0];
    assert_eq!((&finding["kind"], &finding["fault"]), (&"journal".into(), &"changed".into()), "{document:#}");
    std::fs::write(&file, whole).unwrap();
    vault.up();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_stands_where_the_configuration_says() {
    let mut vault = TestVault::start();
    vault.cli_ok(&["freeze", FIELD, "--reads"]);
    vault.kill();
    let elsewhere = vault.scratch().join("elsewhere");
    copy(&vault.dir().join("journal"), &elsewhere);
    std::fs::remove_dir_all(vault.dir().join("journal")).unwrap();
    let said = vault.refuses_to_start();
    assert!(said.contains("the journal") && said.contains("is missing"), "{said}");
    vault.configure(&format!("[journal]\nfolder = {elsewhere:?}\n"));
    vault.up();
    let status = vault.json(&["status"]);
    assert_eq!(status["journal"]["path"], elsewhere.join("journal").display().to_string());
}
