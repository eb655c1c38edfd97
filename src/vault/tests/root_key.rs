//! The move to another root key: what the ledger says of it, and what a crash leaves.

use strongroom_keys::root::shamir::{self, ShamirRoot};
use strongroom_keys::{KeystoreKey, RootError, RootKind};
use strongroom_storage::{Family, Range, Store};

use super::*;
use crate::RootMoveError;

/// Another root key.
fn shares() -> Arc<ShamirRoot> {
    Arc::new(shamir::split(3, 2).unwrap().0)
}

/// What the log of the vault itself says of moves: decision, providers and stage.
async fn moves(vault: &Tested) -> Vec<[String; 4]> {
    let all = Range { from: vec![], to: vec![], limit: 10_000 };
    let page = vault.store.scan(Family::Leaves, all).await.unwrap();
    let leaves = page.iter().map(|(_, leaf)| serde_json::from_slice::<serde_json::Value>(leaf).unwrap());
    let moves = leaves.filter(|leaf| leaf["action"] == "move_root_key");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    moves
        .map(|leaf| {
            let detail = &leaf["detail"];
            [text(&leaf["decision"]), text(&detail["from"]), text(&detail["to"]), text(&detail["stage"])]
        })
        .collect()
}

fn said(decision: &str, stage: &str) -> [String; 4] {
    [decision, "file", "shamir", stage].map(str::to_owned)
}

#[tokio::test]
async fn a_vault_that_moved_has_all_its_values_and_opens_under_the_new_root_key_alone() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "\u{5f20}\u{4e09}", "c-1").await;
    let new = shares();
    vault.move_root(Arc::clone(&new) as Arc<dyn RootProvider>).await.unwrap();
    assert_eq!(vault.keystore.root(), RootKind::Shamir);
    assert_eq!(moves(&vault).await, [said("allow", "intent"), said("allow", "done")]);
    vault.close().await;
    let opened = Keystore::open(bench.folder.path(), &root());
    assert!(matches!(opened, Err(RootError::OtherProvider { is: RootKind::Shamir, .. })));
    let vault = bench.try_open_with(&*new).await.unwrap();
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), "\u{5f20}\u{4e09}".as_bytes());
    store_one(&vault, "borrower.name", "new", "c-2").await;
}

#[tokio::test]
async fn a_copy_of_the_keystore_from_before_the_move_is_refused() {
    let (bench, vault) = Bench::new().await;
    let file = bench.folder.path().join("keys");
    let older = std::fs::read(&file).unwrap();
    vault.move_root(shares()).await.unwrap();
    vault.close().await;
    std::fs::write(&file, older).unwrap();
    let refused = bench.try_open().await.err().unwrap();
    assert!(matches!(&refused, OpenError::KeystoreOld { tenant } if tenant == "system"), "{refused}");
}

#[tokio::test]
async fn a_move_that_a_crash_cut_off_is_told_by_the_next_start_as_what_it_was() {
    for moved in [false, true] {
        let (bench, vault) = Bench::new().await;
        let token = store_one(&vault, "borrower.name", "kept", "c-1").await;
        let file = bench.folder.path().join("keys");
        let before = std::fs::read(&file).unwrap();
        // The intent is written, and nothing after it.
        bench.faults.fail_writes_after(1, Fate::Lost);
        let new = shares();
        let cut_off = vault.move_root(Arc::clone(&new) as Arc<dyn RootProvider>).await;
        assert!(matches!(cut_off, Err(RootMoveError::Vault(_))));
        recovered(&vault).await;
        vault.close().await;
        if !moved {
            std::fs::write(&file, before).unwrap();
        }
        let vault = match moved {
            true => bench.try_open_with(&*new).await.unwrap(),
            false => bench.try_open().await.unwrap(),
        };
        let end = said(if moved { "allow" } else { "fail" }, "done");
        assert_eq!(moves(&vault).await, [said("allow", "intent"), end], "moved: {moved}");
        assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), b"kept");
        // It is over: the next start adds nothing, and another move may follow.
        vault.move_root(shares()).await.unwrap();
        assert_eq!(moves(&vault).await.len(), 4);
    }
}

/// A provider that says no.
struct Denying;

impl RootProvider for Denying {
    fn kind(&self) -> RootKind {
        RootKind::Shamir
    }

    fn wrap(&self, _vault: VaultId, _key: &KeystoreKey) -> Result<strongroom_keys::Envelope, RootError> {
        Err(RootError::Denied { provider: RootKind::Shamir, why: "not today".to_owned() })
    }

    fn unwrap(&self, _vault: VaultId, _envelope: &strongroom_keys::Envelope) -> Result<KeystoreKey, RootError> {
        Err(RootError::Denied { provider: RootKind::Shamir, why: "not today".to_owned() })
    }
}

#[tokio::test]
async fn a_move_that_the_provider_refuses_is_told_as_failed_and_changes_nothing() {
    let (bench, vault) = Bench::new().await;
    let before = std::fs::read(bench.folder.path().join("keys")).unwrap();
    let refused = vault.move_root(Arc::new(Denying)).await.unwrap_err();
    assert!(matches!(&refused, RootMoveError::Root(RootError::Denied { .. })), "{refused}");
    assert_eq!(moves(&vault).await, [said("allow", "intent"), said("fail", "done")]);
    assert_eq!(std::fs::read(bench.folder.path().join("keys")).unwrap(), before);
    store_one(&vault, "borrower.name", "still here", "c-1").await;
    vault.close().await;
    bench.open().await;
}
