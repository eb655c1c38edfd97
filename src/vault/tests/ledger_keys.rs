//! Keys of logs that rotate while their logs go on: who verifies with which, and what a crash may cut off.

use std::slice::from_ref;

use strongroom_commit::HeadError;
use strongroom_ledger::verify::{ExcerptFault, Fault, Proof, verify_excerpt, verify_export_since};
use strongroom_ledger::{LedgerError, checkpoint, head, manifest, receipt};

use super::exports::{Written, export};
use super::keys::{TENANT, destroy, rotate, set_state};
use super::tenants::{NUMBER, SAVINGS, make, of, operator};
use super::*;
use crate::{Checkpoint, DestroyTenant, Export, LeafFilter, RotateKey, Rotated, SetKeyState, VerifyError, verify};

const KEY: &str = "ledger";

/// The head of a log as it is now.
async fn head_of(vault: &Tested, caller: &Caller) -> Checkpoint {
    vault.sign_anew(caller.principal.tenant);
    vault.checkpoint(caller, "").await.unwrap()
}

async fn newest(vault: &Tested) -> Checkpoint {
    head_of(vault, &caller(Role::Auditor)).await
}

/// Which of these keys have signed a checkpoint, by their places.
fn signers(note: &str, keys: &[String]) -> Vec<usize> {
    let known: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (_, by) = checkpoint::verify_by(note, &known).unwrap();
    by.iter().map(|key| keys.iter().position(|known| known == key).unwrap()).collect()
}

/// The lines of a log up to a checkpoint.
async fn lines(vault: &Tested, caller: &Caller, head: &Checkpoint) -> String {
    let end = checkpoint::claimed(&head.note).unwrap().size;
    let mut pages = vault.export(caller, &Export { end, ..Export::default() }).await.unwrap();
    let mut lines = String::new();
    while let Some(page) = pages.next().await.unwrap() {
        page.leaves.iter().for_each(|line| lines.push_str(&format!("{}\n", std::str::from_utf8(line).unwrap())));
    }
    lines
}

async fn rotate_system(vault: &Tested) -> Result<Rotated, Error> {
    vault.rotate_key(&operator(), &RotateKey { name: KEY.to_owned(), from_version: 0 }).await
}

/// Whether a head file is signed by the newest key of the log `system`.
fn by_newest(bench: &Bench, vault: &Tested) -> bool {
    let system = vault.tenant(TenantNo(0)).unwrap().id;
    let public = vault.keystore.ledger_key(system).unwrap().public_key();
    let file = std::fs::read(bench.folder.path().join("head")).unwrap();
    head::open(&file, VaultId([7; 16]), &public).is_ok()
}

/// Why a store cannot be verified against a checkpoint.
async fn unverified(bench: &Bench, checkpoint: &str) -> VerifyError {
    verify(&Closed::of(bench).against(&[checkpoint.to_owned()]), &mut |_| {}).await.unwrap_err()
}

#[tokio::test]
async fn both_keys_sign_after_a_rotation_and_who_has_the_old_one_learns_the_new_one() {
    let (bench, vault) = Bench::new().await;
    let auditor = caller(Role::Auditor);
    let before = newest(&vault).await;
    assert_eq!(before.keys.len(), 1);
    let rotated = rotate(&vault, KEY).await.unwrap();
    assert_eq!((rotated.version, rotated.rotated), (2, true));
    store_one(&vault, "borrower.name", "Ann", "c-1").await;
    let both = newest(&vault).await;
    assert_eq!(both.keys.len(), 2);
    assert_eq!(both.keys[1], before.keys[0], "the newest comes first");
    assert_eq!(signers(&both.note, &both.keys), [0, 1]);
    assert_eq!(signers(&before.note, &both.keys), [1]);

    // The leaf names both.
    let told: Vec<_> = leaves(&vault).await.into_iter().filter(|leaf| leaf["action"] == "rotate_key").collect();
    assert_eq!(told.len(), 2);
    assert!(told[0]["detail"]["stage"] == "intent" && told[0]["detail"].get("log_key").is_none());
    let named = &told[1]["detail"];
    assert_eq!((&named["stage"], &named["key"], &named["version"]), (&"done".into(), &KEY.into(), &"2".into()));
    assert_eq!(
        (named["log_key"].as_str(), named["log_key_before"].as_str()),
        (Some(&*both.keys[0]), Some(&*both.keys[1]))
    );
    let leaf: u64 = told[1]["index"].as_str().unwrap().parse().unwrap();

    // Then the old one is destroyed: a checkpoint that both signed leads from it to the new one.
    assert_eq!(destroy(&vault, KEY, 1, true).await.unwrap(), 0);
    destroy(&vault, KEY, 1, false).await.unwrap();
    let after = newest(&vault).await;
    assert_eq!(after.keys, both.keys, "what it signed is verified with its public half for ever");
    assert_eq!(signers(&after.note, &after.keys), [0]);
    let lines = lines(&vault, &auditor, &after).await;
    let proven = |older: &[&Checkpoint], key: &str| {
        let older: Vec<String> = older.iter().map(|one| one.note.clone()).collect();
        let report = verify_export_since(lines.as_bytes(), &after.note, &older, &[key.to_owned()]);
        report.map(|report| (report.proofs, report.keys)).map_err(|error| error.fault)
    };
    let (old, new) = (&both.keys[1], &both.keys[0]);
    let sizes = [&before, &both, &after].map(|one| checkpoint::claimed(&one.note).unwrap().size);
    let (proofs, keys) = proven(&[&before, &both], old).unwrap();
    let by = |size, by: &String| Proof { size, by: vec![by.clone()] };
    assert_eq!(proofs, [by(sizes[0], old), by(sizes[1], old), by(sizes[2], new)]);
    assert_eq!(keys.iter().map(|key| (&key.key, key.leaf)).collect::<Vec<_>>(), [(old, None), (new, Some(leaf))]);
    // Who has the new one learns which signed before it.
    let (proofs, _) = proven(&[&before], new).unwrap();
    assert_eq!(proofs, [by(sizes[0], old), by(sizes[2], new)]);
    let unsigned = proven(&[&before], old).unwrap_err();
    assert!(
        matches!(unsigned, Fault::Checkpoint { older: None, error: LedgerError::UnsignedSince { leaf: at } } if at == leaf),
        "{unsigned}"
    );
    assert!(proven(&[], old).is_err());
    let foreign = checkpoint::vkey(&checkpoint::claimed(&after.note).unwrap().origin, &[9; 32]);
    assert!(proven(&[&before, &both], &foreign).is_err());

    // And so does the whole store, and a vault that was started anew.
    vault.close().await;
    assert_eq!(findings(&bench, &[before.note.clone(), both.note, after.note.clone()]).await, []);
    let vault = bench.open().await;
    assert_eq!(newest(&vault).await.keys, after.keys);
}

#[tokio::test]
async fn a_compromised_key_signs_nothing_and_proves_nothing_also_once_it_is_destroyed() {
    let (bench, vault) = Bench::new().await;
    let before = newest(&vault).await;
    rotate(&vault, KEY).await.unwrap();
    let both = newest(&vault).await;
    assert!(matches!(set_state(&vault, KEY, 2, "compromised").await, Err(Error::KeyState(_))), "it signs");
    assert!(matches!(set_state(&vault, KEY, 1, "disabled").await, Err(Error::Invalid(_))));
    set_state(&vault, KEY, 1, "compromised").await.unwrap();
    let after = newest(&vault).await;
    assert_eq!(after.keys, [both.keys[0].clone()]);
    assert_eq!(signers(&after.note, &after.keys), [0]);
    // From that leaf on nothing rests on it: a log that only it has signed is refused.
    let lines = lines(&vault, &caller(Role::Auditor), &after).await;
    let verified = |older: &[String], key: &str| {
        verify_export_since(lines.as_bytes(), &after.note, older, &[key.to_owned()]).map(|report| report.keys)
    };
    let keys = verified(from_ref(&both.note), &before.keys[0]).unwrap();
    assert!(keys[0].compromised.is_some() && keys[1].compromised.is_none());
    assert!(verified(from_ref(&before.note), &before.keys[0]).is_err());

    destroy(&vault, KEY, 1, false).await.unwrap();
    assert_eq!(newest(&vault).await.keys, after.keys);
    vault.close().await;
    assert_eq!(findings(&bench, &[both.note]).await, []);
    let refused = unverified(&bench, &before.note).await;
    assert!(matches!(refused, VerifyError::Checkpoint { place: 1, error: LedgerError::Unsigned }), "{refused}");
    let vault = bench.open().await;
    assert_eq!(newest(&vault).await.keys, after.keys);
}

#[tokio::test]
async fn a_few_versions_sign_at_once_and_then_the_oldest_must_go() {
    let (_bench, vault) = Bench::new().await;
    for version in 2..=4 {
        assert_eq!(rotate(&vault, KEY).await.unwrap().version, version);
    }
    let all = newest(&vault).await;
    assert_eq!(signers(&all.note, &all.keys), [0, 1, 2, 3]);
    assert!(matches!(rotate(&vault, KEY).await, Err(Error::KeyState(_))));
    destroy(&vault, KEY, 1, false).await.unwrap();
    assert_eq!(rotate(&vault, KEY).await.unwrap().version, 5);
    let all = newest(&vault).await;
    assert_eq!((all.keys.len(), signers(&all.note, &all.keys)), (5, vec![0, 1, 2, 3]));
}

#[tokio::test]
async fn a_rotation_that_was_cut_off_is_finished_by_the_next_start() {
    // Before the keystore was written, and after.
    for written in [false, true] {
        let (bench, vault) = Bench::new().await;
        let first = newest(&vault).await;
        let file = bench.folder.path().join("keys");
        let before = std::fs::read(&file).unwrap();
        bench.faults.fail_writes_after(1, Fate::Lost);
        assert!(rotate(&vault, KEY).await.is_err());
        recovered(&vault).await;
        vault.close().await;
        if !written {
            std::fs::write(&file, before).unwrap();
        }
        let vault = bench.open().await;
        let both = newest(&vault).await;
        assert_eq!((both.keys.len(), &both.keys[1]), (2, &first.keys[0]));
        assert_eq!(signers(&both.note, &both.keys), [0, 1]);

        let before = std::fs::read(&file).unwrap();
        let request = crate::DestroyKeyVersion { name: KEY.to_owned(), version: 1, dry_run: false };
        approved(&vault, TENANT, vault.destroy_key_version(&caller(Role::Officer), &request).await).await;
        // Three entries of the road come first: what is asked, that it is approved, and the intent.
        bench.faults.fail_writes_after(3, Fate::Lost);
        assert!(vault.destroy_key_version(&caller(Role::Officer), &request).await.is_err());
        recovered(&vault).await;
        vault.close().await;
        if !written {
            std::fs::write(&file, before).unwrap();
        }
        let vault = bench.open().await;
        let after = newest(&vault).await;
        assert_eq!((&after.keys, signers(&after.note, &after.keys)), (&both.keys, vec![0]));
        let told = leaves(&vault).await;
        for action in ["rotate_key", "destroy_key_version"] {
            let done = |leaf: &&serde_json::Value| leaf["action"] == action && leaf["detail"]["stage"] == "done";
            let named: Vec<_> = told.iter().filter(done).map(|leaf| leaf["detail"]["log_key"].clone()).collect();
            assert_eq!(named, [both.keys[usize::from(action != "rotate_key")].clone()], "{action}");
        }
        vault.close().await;
        assert_eq!(findings(&bench, &[first.note, both.note, after.note]).await, []);
    }
}

#[tokio::test]
async fn the_head_file_follows_the_key_of_the_vaults_own_log() {
    let (bench, vault) = Bench::new().await;
    let head = bench.folder.path().join("head");
    let first = head_of(&vault, &operator()).await;
    // As it is while the vault runs, by the first version.
    let by_first = std::fs::read(&head).unwrap();
    assert_eq!(rotate_system(&vault).await.unwrap().version, 2);
    assert!(by_newest(&bench, &vault), "before the rotation is told as done");
    let both = head_of(&vault, &operator()).await;
    assert_eq!((both.keys.len(), signers(&both.note, &both.keys)), (2, vec![0, 1]));
    vault.close().await;
    assert_eq!(findings(&bench, &[first.note, both.note]).await, []);

    // A crash between the keystore and the head file.
    let by_second = std::fs::read(&head).unwrap();
    std::fs::write(&head, &by_first).unwrap();
    let vault = bench.open().await;
    assert!(by_newest(&bench, &vault), "a start signs it anew");

    // What a version has signed that is compromised is nobody's word.
    let compromised = SetKeyState { name: KEY.to_owned(), version: 1, state: "compromised".to_owned() };
    vault.set_key_state(&operator(), &compromised).await.unwrap();
    vault.close().await;
    let closed = std::fs::read(&head).unwrap();
    std::fs::write(&head, &by_first).unwrap();
    let refused = bench.try_open().await.err().unwrap();
    assert!(matches!(refused, OpenError::Head(HeadError::Foreign { .. })), "{refused}");
    assert!(!findings(&bench, &[]).await.is_empty());
    std::fs::write(&head, closed).unwrap();
    bench.open().await.close().await;
    // One by the right key that is too old is refused as ever: the vault was stopped in order with fewer leaves.
    std::fs::write(&head, by_second).unwrap();
    let refused = bench.try_open().await.err().unwrap();
    assert!(matches!(refused, OpenError::Head(HeadError::Added { .. })), "{refused}");
}

#[tokio::test]
async fn a_rotation_of_the_vaults_own_key_that_was_cut_off_is_finished_by_the_next_start() {
    // Before the keystore was written; after that and before the head file; after both.
    for (keystore, head_file) in [(false, false), (true, false), (true, true)] {
        let (bench, vault) = Bench::new().await;
        let (keys, head) = (bench.folder.path().join("keys"), bench.folder.path().join("head"));
        let before = [&keys, &head].map(|file| std::fs::read(file).unwrap());
        bench.faults.fail_writes_after(1, Fate::Lost);
        assert!(rotate_system(&vault).await.is_err());
        recovered(&vault).await;
        vault.close().await;
        for (file, before, written) in [(&keys, &before[0], keystore), (&head, &before[1], head_file)] {
            if !written {
                std::fs::write(file, before).unwrap();
            }
        }
        let vault = bench.open().await;
        assert!(by_newest(&bench, &vault), "{keystore} {head_file}");
        let listed = vault.list_keys(&operator()).await.unwrap().into_iter().filter(|key| key.name == KEY);
        let listed: Vec<_> = listed.map(|key| (key.version, key.state)).collect();
        assert_eq!(listed, [(1, "decrypt-only"), (2, "enabled")]);
        let both = head_of(&vault, &operator()).await;
        assert_eq!(signers(&both.note, &both.keys), [0, 1]);
        vault.close().await;
        assert_eq!(findings(&bench, &[both.note]).await, []);
        bench.open().await.close().await;
    }
}

#[tokio::test]
async fn a_head_file_that_cannot_be_written_leaves_the_rotation_open() {
    let (bench, vault) = Bench::new().await;
    let head = bench.folder.path().join("head");
    // Where the new file would be begun there is a folder.
    let new = bench.folder.path().join("head.new");
    std::fs::create_dir(&new).unwrap();
    assert!(matches!(rotate_system(&vault).await, Err(Error::Internal(_))));
    assert!(!by_newest(&bench, &vault));
    std::fs::remove_dir(&new).unwrap();
    // Who comes next finishes it first.
    let known = RotateKey { name: KEY.to_owned(), from_version: 2 };
    let compromised = SetKeyState { name: KEY.to_owned(), version: 1, state: "compromised".to_owned() };
    vault.set_key_state(&operator(), &compromised).await.unwrap();
    assert!(by_newest(&bench, &vault) && head.exists());
    assert_eq!(vault.rotate_key(&operator(), &known).await.unwrap().version, 3);
}

#[tokio::test]
async fn operators_rotate_the_vaults_own_key_and_nobody_elses() {
    let (_bench, vault) = Bench::new().await;
    let request = RotateKey { name: KEY.to_owned(), from_version: 0 };
    for role in [Role::Auditor, Role::App, Role::Privacy] {
        assert!(matches!(vault.rotate_key(&caller(role), &request).await, Err(Error::Denied { .. })));
    }
    let theirs = newest(&vault).await.keys;
    rotate_system(&vault).await.unwrap();
    assert_eq!(newest(&vault).await.keys, theirs);
    let listed = vault.list_keys(&operator()).await.unwrap();
    assert_eq!(listed.iter().filter(|key| key.name == KEY).count(), 2);
}

#[tokio::test]
async fn an_export_is_signed_by_the_newest_key_and_names_all() {
    let (_bench, vault) = Bench::new().await;
    let auditor = caller(Role::Auditor);
    let stored = LeafFilter { action: "tokenize".to_owned(), ..LeafFilter::default() };
    let stored = Export { filter: stored, proofs: true, ..Export::default() };
    let told = LeafFilter { action: "rotate_key".to_owned(), ..LeafFilter::default() };
    let told = Export { filter: told, proofs: true, ..Export::default() };
    store_one(&vault, "borrower.name", "Ann", "c-1").await;
    let old = newest(&vault).await.keys.remove(0);
    // One that is under way while the key rotates.
    let mut pages = vault.export(&auditor, &stored).await.unwrap();
    rotate(&vault, KEY).await.unwrap();
    while pages.next().await.unwrap().is_some() {}
    let signed = vault.sign_export(&pages).unwrap().unwrap();
    assert_eq!(signed.checkpoint.keys.len(), 2);
    let (new, keys) = (signed.checkpoint.keys[0].clone(), signed.checkpoint.keys.clone());
    assert_eq!((&keys[1], signers(&signed.checkpoint.note, &keys)), (&old, vec![1]));
    assert!(manifest::verify(&signed.manifest, &[&new]).is_ok());
    assert_eq!(manifest::verify(&signed.manifest, &[&old]), Err(LedgerError::Unsigned));

    vault.sign_anew(TENANT);
    let (stored, told) = (export(&vault, &stored).await.unwrap(), export(&vault, &told).await.unwrap());
    let verified = |written: &Written, keys: &[String]| {
        let (manifest, note) = (&written.signed.manifest, &written.signed.checkpoint.note);
        verify_excerpt(written.lines.as_bytes(), written.proofs.as_bytes(), manifest, note, keys)
    };
    for written in [&stored, &told] {
        assert_eq!(written.signed.checkpoint.keys, keys);
        verified(written, &keys).unwrap();
        verified(written, from_ref(&new)).unwrap();
    }
    // Who has the old one takes the new one's word if the leaf that names it is among the lines.
    verified(&told, from_ref(&old)).unwrap();
    let refused = verified(&stored, &[old]).unwrap_err();
    assert!(matches!(refused, ExcerptFault::Manifest(LedgerError::Unsigned)), "{refused}");
}

#[tokio::test]
async fn the_end_of_a_tenant_keeps_all_keys_of_its_log_and_receipts_are_by_the_newest_of_the_vaults() {
    let (bench, vault) = Bench::new().await;
    let mut receipts = Vec::new();
    make(&vault, SAVINGS).await.unwrap();
    let its = of(NUMBER, Role::Rotator);
    let auditor = of(NUMBER, Role::Auditor);
    let before = head_of(&vault, &auditor).await;
    vault.rotate_key(&its, &RotateKey { name: KEY.to_owned(), from_version: 0 }).await.unwrap();
    let both = head_of(&vault, &auditor).await;
    for name in [SAVINGS, "third"] {
        if name == "third" {
            rotate_system(&vault).await.unwrap();
            make(&vault, name).await.unwrap();
        }
        let end = DestroyTenant { name: name.to_owned(), dry_run: false };
        receipts.push(vault.destroy_tenant(&operator(), &end).await.unwrap().receipt);
    }
    let last = vault.checkpoint(&operator(), SAVINGS).await.unwrap();
    assert_eq!((&last.keys, signers(&last.note, &last.keys)), (&both.keys, vec![0, 1]));

    let keys = head_of(&vault, &operator()).await.keys;
    let [new, old] = [&*keys[0], &*keys[1]];
    let whose = |receipt: usize, key: &str| receipt::verify(&receipts[receipt], &[key]).map(|told| told.name);
    assert_eq!(whose(0, old), Ok(SAVINGS.to_owned()));
    assert_eq!(whose(1, new), Ok("third".to_owned()));
    assert_eq!([whose(0, new), whose(1, old)], [Err(LedgerError::Unsigned), Err(LedgerError::Unsigned)]);
    assert!(receipts.iter().all(|note| receipt::verify(note, &[new, old]).is_ok()));
    vault.close().await;
    assert_eq!(findings(&bench, &[before.note, both.note, last.note]).await, []);
}
