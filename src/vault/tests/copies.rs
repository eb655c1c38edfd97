//! Copies of the keystore: a destroyed key lives on in them, and the vault says in which.

use super::*;
use crate::{BackupKeystore, DestroyKeyVersion, ListedKey, RotateKey, StrikeKeystoreCopy};

fn operator() -> Caller {
    let principal = Principal::new(TenantNo(0), Role::Operator, "sre-1");
    Caller::new(Arc::new(principal), "test")
}

async fn backup(vault: &Tested, label: &str) -> Result<crate::NewKeyCopy, Error> {
    vault.backup_keystore(&operator(), &BackupKeystore { label: label.to_owned() }).await
}

async fn strike(vault: &Tested, name: &str) -> Result<crate::KeyCopy, Error> {
    vault.strike_keystore_copy(&operator(), &StrikeKeystoreCopy { name: name.to_owned() }).await
}

async fn listed(vault: &Tested, name: &str, version: u32) -> ListedKey {
    let keys = vault.list_keys(&caller(Role::Rotator)).await.unwrap();
    keys.into_iter().find(|key| key.name == name && key.version == version).unwrap()
}

#[tokio::test]
async fn a_destroyed_version_is_dead_when_no_copy_on_the_list_holds_it() {
    let (bench, vault) = Bench::new().await;
    backup(&vault, "before kek/1 was rotated").await.unwrap();
    bench.pass(60);
    vault.rotate_key(&caller(Role::Rotator), &RotateKey { name: "kek/1".to_owned(), from_version: 0 }).await.unwrap();
    bench.pass(60);
    backup(&vault, "after").await.unwrap();
    bench.pass(60);
    let destroy = DestroyKeyVersion { name: "kek/1".to_owned(), version: 1, dry_run: false };
    let asked = async || vault.destroy_key_version(&caller(Role::Officer), &destroy).await;
    with_approval(&vault, TenantNo(1), asked).await.unwrap();
    bench.pass(60);
    backup(&vault, "without it").await.unwrap();

    let old = listed(&vault, "kek/1", 1).await;
    assert_eq!((old.state, old.dead), ("destroyed", None));
    assert_eq!(old.copies, ["copy/1", "copy/2"]);
    let new = listed(&vault, "kek/1", 2).await;
    assert_eq!((new.copies.as_slice(), new.dead), (&["copy/2".to_owned(), "copy/3".to_owned()][..], None));

    bench.pass(60);
    strike(&vault, "copy/1").await.unwrap();
    assert_eq!(listed(&vault, "kek/1", 1).await.copies, ["copy/2"]);
    bench.pass(60);
    let struck = strike(&vault, "copy/2").await.unwrap().struck.unwrap();
    bench.pass(60);
    // Struck off once is struck off: the date of death does not move.
    assert_eq!(strike(&vault, "copy/2").await.unwrap().struck, Some(struck));
    let old = listed(&vault, "kek/1", 1).await;
    assert!(old.copies.is_empty());
    assert_eq!(old.dead, Some(struck));
    // All of it outlives a restart.
    vault.close().await;
    let vault = bench.open().await;
    assert_eq!(listed(&vault, "kek/1", 1).await.dead, Some(struck));
    assert_eq!(vault.list_keystore_copies(&operator()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_copy_is_the_keystore_and_its_listing_says_which() {
    let (bench, vault) = Bench::new().await;
    let copy = backup(&vault, "safe 3").await.unwrap();
    let file = std::fs::read(bench.folder.path().join("keys")).unwrap();
    assert_eq!(copy.bytes, file);
    assert_eq!(copy.listed.keystore, vault.keystore.number());
    assert_eq!((copy.listed.label.as_str(), copy.listed.principal.as_str()), ("safe 3", "operator/sre-1"));
    let sum = ring::digest::digest(&ring::digest::SHA256, &file);
    assert_eq!(copy.listed.sha256, data_encoding::HEXLOWER.encode(sum.as_ref()));
}

#[tokio::test]
async fn copies_are_the_operators_business_and_bad_requests_list_nothing() {
    let (_bench, vault) = Bench::new().await;
    for role in [Role::App, Role::Rotator, Role::Auditor, Role::Privacy, Role::Officer] {
        let caller = caller(role);
        let request = BackupKeystore { label: String::new() };
        assert!(matches!(vault.backup_keystore(&caller, &request).await, Err(Error::Denied { .. })), "{role}");
        assert!(matches!(vault.list_keystore_copies(&caller).await, Err(Error::Denied { .. })), "{role}");
        let request = StrikeKeystoreCopy { name: "copy/1".to_owned() };
        assert!(matches!(vault.strike_keystore_copy(&caller, &request).await, Err(Error::Denied { .. })), "{role}");
    }
    for label in ["with\nnewline", "名", &"x".repeat(129)] {
        assert!(matches!(backup(&vault, label).await, Err(Error::Invalid(_))), "{label}");
    }
    for name in ["copy/1", "copy/0", "copy/", "", "1"] {
        assert!(matches!(strike(&vault, name).await, Err(Error::Invalid(_))), "{name}");
    }
    assert!(vault.list_keystore_copies(&operator()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_copy_that_is_made_while_a_change_is_open_waits_for_it_and_tells_the_truth() {
    let (bench, vault) = Bench::new().await;
    vault.rotate_key(&caller(Role::Rotator), &RotateKey { name: "kek/1".to_owned(), from_version: 0 }).await.unwrap();
    // The keystore can't be written: the version is to be destroyed, and that stays open.
    let in_the_way = bench.folder.path().join("keys.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let destroy = DestroyKeyVersion { name: "kek/1".to_owned(), version: 1, dry_run: false };
    let asked = async || vault.destroy_key_version(&caller(Role::Officer), &destroy).await;
    assert!(matches!(with_approval(&vault, TenantNo(1), asked).await, Err(Error::KeyUnavailable(_))));
    assert!(vault.has_open_key_change().await.unwrap());
    bench.pass(60);
    assert!(backup(&vault, "meanwhile").await.is_err());
    std::fs::remove_dir(&in_the_way).unwrap();
    bench.pass(60);
    let copy = backup(&vault, "afterwards").await.unwrap();
    let old = listed(&vault, "kek/1", 1).await;
    assert_eq!((old.state, old.copies.len(), old.dead.is_some()), ("destroyed", 0, true));
    // What is called dead is not in the copy.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("keys"), &copy.bytes).unwrap();
    let opened = Keystore::open(elsewhere.path(), &root()).unwrap();
    let tenant = vault.tenant(TenantNo(1)).unwrap().id;
    let states: Vec<_> = opened.keys(tenant).into_iter().filter(|key| key.name.to_string() == "kek/1").collect();
    assert_eq!(states.iter().map(|key| key.state.as_str()).collect::<Vec<_>>(), ["destroyed", "enabled"]);
}
