//! An older copy of the data in the place of the newest: what was stopped since is stopped, and no log looks like a fork.

use strongroom_access::RESTORE;
use strongroom_ledger::leaf::{self, LeafHeader};
use strongroom_storage::{Family, Mutation, Range, Store};

use super::consents::{all, give, take};
use super::erasures::{erase_with, undo};
use super::holds::{hold, lift, set};
use super::tenants::{NUMBER, SAVINGS, fill, listed, make, operator, read_of};
use super::*;
use crate::{
    DestroyTenant, EnrolOfficer, Export, Freeze, InForceFreezes, LeafFilter, RestoreError, Restored, RotateKey,
    SetKeyState, Suspend, TenantState, Unfreeze,
};

const DEMO: TenantNo = TenantNo(1);
const FIELD: &str = "borrower.id_card";

/// A copy of all that a store has.
pub(super) async fn copy(of: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::default();
    for family in Family::ALL {
        let all = of.scan(family, Range { from: vec![], to: vec![], limit: usize::MAX }).await.unwrap();
        let all = all.into_iter().map(|(key, value)| Mutation::Put(family, key.to_vec(), value.to_vec()));
        copy.write(all.collect()).await.unwrap();
    }
    copy
}

/// A stopped vault with a value, a copy of its data, and then the vault again, until it is stopped after something was done.
async fn older(then: impl AsyncFnOnce(&Tested)) -> (Bench, String) {
    let (mut bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    vault.close().await;
    drop(vault);
    let older = copy(&bench.disk).await;
    let vault = bench.open().await;
    then(&vault).await;
    vault.close().await;
    drop(vault);
    bench.disk = older;
    (bench, token)
}

pub(super) async fn restore(bench: &Bench) -> Result<Restored, RestoreError> {
    crate::restore(bench.opening(&root(), Limits::MOST), None).await
}

/// The actions of the changes that a log names.
async fn changes(vault: &Tested, by: &Caller, log: &str) -> Vec<String> {
    let filter = LeafFilter { changes: true, ..LeafFilter::default() };
    let request = Export { log: log.to_owned(), filter, ..Export::default() };
    let mut pages = vault.export(by, &request).await.unwrap();
    let mut actions = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        actions.extend(page.leaves.iter().map(|line| leaf::parse(line).unwrap().action));
    }
    actions
}

#[tokio::test]
async fn who_asks_for_changes_is_told_that_a_copy_brought_older_rules_back() {
    let (bench, _) = older(async |vault| {
        put_in_force(vault, &caller(Role::Officer), format!("{DEFAULT_POLICIES}\n// another\n")).await;
    })
    .await;
    restore(&bench).await.unwrap();
    let vault = bench.open().await;
    let own = changes(&vault, &caller(Role::Auditor), "").await;
    assert_eq!(own.iter().filter(|action| *action == "restored").count(), 1, "{own:?}");
    assert!(!own.iter().any(|action| action == "apply_policy"), "the copy is from before: {own:?}");
    assert!(changes(&vault, &operator(), "system").await.contains(&"restored".to_owned()));
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

pub(super) fn journal(bench: &Bench) -> std::path::PathBuf {
    bench.folder.path().join("journal").join("journal")
}

fn freezing(field: &str) -> Freeze {
    Freeze { field: field.to_owned(), reads: true, writes: true, all_tenants: false }
}

fn unfreezing(field: &str) -> Unfreeze {
    Unfreeze { field: field.to_owned(), reads: true, writes: true, all_tenants: false }
}

async fn suspend(vault: &Tested, principal: &str) {
    let request = Suspend { principal: principal.to_owned(), reason: "its key was found on a laptop".to_owned() };
    vault.suspend(&caller(Role::Officer), &request).await.unwrap();
}

async fn unfreeze(vault: &Tested, field: &str) {
    let request = unfreezing(field);
    with_approval(vault, DEMO, async || vault.unfreeze(&caller(Role::Officer), &request).await).await.unwrap();
}

async fn in_force(vault: &Tested) -> InForceFreezes {
    vault.list_freezes(&caller(Role::Auditor)).await.unwrap()
}

/// Whether the vault, which is closed, is what its ledger says, and its journal too.
pub(super) async fn proven(bench: &Bench) {
    assert_eq!(findings(bench, &[]).await, []);
    assert_eq!(journal_findings(bench).await, []);
}

async fn origin(vault: &Tested) -> String {
    let checkpoint = vault.checkpoint(&caller(Role::Auditor), "").await.unwrap();
    checkpoint.note.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn what_was_frozen_and_suspended_since_the_copy_is_so_again_and_what_ended_is_not() {
    let (bench, token) = older(async |vault| {
        vault.freeze(&caller(Role::Officer), &freezing("borrower.mobile")).await.unwrap();
        vault.freeze(&caller(Role::Officer), &freezing(FIELD)).await.unwrap();
        unfreeze(vault, "borrower.mobile").await;
        suspend(vault, "app/other").await;
        vault.freeze(&operator(), &Freeze { writes: false, all_tenants: true, ..freezing("") }).await.unwrap();
    })
    .await;
    let why = refused(&bench).await;
    assert!(why.contains("behind its head file") && why.contains("`strongroom restore`"), "{why}");
    let restored = restore(&bench).await.unwrap();
    assert_eq!((restored.incarnation, restored.replayed, restored.frozen), (2, 5, None));

    let vault = bench.open().await;
    let now = in_force(&vault).await;
    let fields: Vec<&str> = now.fields.iter().map(|one| one.field.as_str()).collect();
    assert_eq!((fields, now.suspended.len()), (vec![FIELD], 1));
    assert!(now.all_tenants.reads.is_some() && now.all_tenants.writes.is_none());
    assert_eq!(now.suspended[0].1.since.by, "officer/alice");
    assert!(matches!(read_one(&vault, &token, "masked").await, Err(Error::Frozen { .. })));
    store_one(&vault, "borrower.mobile", "13800138000", "c-1").await;
    vault.close().await;
    proven(&bench).await;
    assert!(matches!(restore(&bench).await, Err(RestoreError::Nothing)));
}

#[tokio::test]
async fn the_log_goes_on_under_another_origin_and_says_how_far_the_one_before_had_come() {
    let (bench, _) = older(async |vault| {
        suspend(vault, "app/other").await;
        assert!(origin(vault).await.ends_with("/1"));
    })
    .await;
    let before = restore(&bench).await.unwrap().logs;
    let vault = bench.open().await;
    assert!(origin(&vault).await.ends_with("/0/2"));
    let all = leaves(&vault).await;
    let (_, known, has) = before.iter().find(|(tenant, ..)| tenant == "demo").unwrap();
    let first = &all[usize::try_from(*has).unwrap()];
    assert_eq!(first["action"], "restored");
    let detail = &first["detail"];
    assert_eq!((&detail["incarnation"], &detail["incarnation_before"]), (&"2".into(), &"1".into()));
    assert_eq!(detail["size_before"], known.unwrap().to_string());
    assert!(detail["origin_before"].as_str().unwrap().ends_with("/0/1"));
    let again = all.iter().find(|leaf| leaf["action"] == "suspend").unwrap();
    assert_eq!((&again["principal"], &again["detail"]["by"]), (&"root".into(), &"officer/alice".into()));
    // Numbers of the new incarnation are none of the old one's, whatever that gave out beyond the copy.
    store_one(&vault, FIELD, ID_CARD, "c-2").await;
    let row = leaves(&vault).await.pop().unwrap()["items"][0]["row"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(row >> 48, 2);
    vault.close().await;
}

#[tokio::test]
async fn without_a_journal_that_reaches_far_enough_all_is_frozen_until_two_officers_end_that() {
    type Damage = fn(&Bench);
    let lost: Damage = |bench| std::fs::remove_file(journal(bench)).unwrap();
    let cut: Damage = |bench| {
        let whole = std::fs::read(journal(bench)).unwrap();
        std::fs::write(journal(bench), &whole[..whole.len() - 1]).unwrap();
    };
    let changed: Damage = |bench| {
        let mut whole = std::fs::read(journal(bench)).unwrap();
        let middle = whole.len() / 2;
        whole[middle] ^= 1;
        std::fs::write(journal(bench), whole).unwrap();
    };
    let headless: Damage = |bench| std::fs::remove_file(bench.folder.path().join("head")).unwrap();
    for (damage, says) in [
        (lost, "is missing"),
        (cut, "the head file knows of"),
        (changed, "is damaged: record"),
        (headless, "no head file"),
    ] {
        let (bench, token) = older(async |vault| {
            let all = "@id(\"all\") @why(\"All.\") permit (principal, action, resource);";
            put_in_force(vault, &caller(Role::Officer), all).await;
            suspend(vault, "app/other").await;
        })
        .await;
        damage(&bench);
        refused(&bench).await;
        let restored = restore(&bench).await.unwrap();
        let why = restored.frozen.unwrap();
        assert!(why.contains(says), "{says}: {why}");
        assert_eq!(
            restored.aside.is_some(),
            says == "the head file knows of" || says == "is damaged: record",
            "{says}"
        );

        let vault = bench.open().await;
        assert!(matches!(read_one(&vault, &token, "masked").await, Err(Error::Frozen { .. })), "{says}");
        assert_eq!(in_force(&vault).await.tenant.reads.unwrap().by, RESTORE);
        let status = vault.status(&caller(Role::Officer)).await.unwrap();
        assert!(status.notice.contains("all of demo is frozen"), "{}", status.notice);
        assert_eq!(vault.status(&caller(Role::App)).await.unwrap().notice, "");
        // One alone does not, whatever policy permits.
        let officer = caller(Role::Officer);
        let all = "@id(\"all\") @why(\"All.\") permit (principal, action, resource);";
        put_in_force(&vault, &officer, all).await;
        assert!(matches!(vault.unfreeze(&officer, &unfreezing("")).await, Err(Error::ApprovalRequired { .. })));
        assert!(matches!(read_one(&vault, &token, "masked").await, Err(Error::Frozen { .. })));
        unfreeze(&vault, "").await;
        read_one(&vault, &token, "masked").await.unwrap();
        // What a colleague freezes from then on ends as before.
        vault.freeze(&officer, &freezing("")).await.unwrap();
        vault.unfreeze(&officer, &unfreezing("")).await.unwrap();
        vault.close().await;
        proven(&bench).await;
    }
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_made_again() {
    let (bench, _) = older(async |vault| suspend(vault, "app/other").await).await;
    let files = [bench.folder.path().join("head"), journal(&bench)];
    let before = files.clone().map(|file| std::fs::read(file).unwrap());
    restore(&bench).await.unwrap();
    // The store has it, and neither journal nor head file.
    for (file, bytes) in files.iter().zip(before) {
        std::fs::write(file, bytes).unwrap();
    }
    refused(&bench).await;
    let again = restore(&bench).await.unwrap();
    assert_eq!((again.incarnation, again.replayed, again.held, again.frozen), (3, 0, 1, None));
    let vault = bench.open().await;
    assert_eq!(in_force(&vault).await.suspended.len(), 1);
    vault.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn the_same_copy_restored_twice_begins_two_incarnations() {
    let (mut bench, _) = older(async |vault| suspend(vault, "app/one").await).await;
    let older = copy(&bench.disk).await;
    restore(&bench).await.unwrap();
    let vault = bench.open().await;
    suspend(&vault, "app/two").await;
    vault.close().await;
    drop(vault);
    bench.disk = older;
    let again = restore(&bench).await.unwrap();
    assert_eq!((again.incarnation, again.frozen), (3, None));
    let vault = bench.open().await;
    let suspended: Vec<String> = in_force(&vault).await.suspended.into_iter().map(|(who, _)| who).collect();
    assert_eq!(suspended, ["app/one", "app/two"]);
    vault.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn what_an_earlier_restore_has_done_again_is_not_done_once_more() {
    let (mut bench, _) = older(async |vault| {
        vault.freeze(&caller(Role::Officer), &freezing(FIELD)).await.unwrap();
        unfreeze(vault, FIELD).await;
    })
    .await;
    assert_eq!(restore(&bench).await.unwrap().replayed, 2);
    let vault = bench.open().await;
    vault.freeze(&caller(Role::Officer), &freezing(FIELD)).await.unwrap();
    vault.close().await;
    drop(vault);
    let second = copy(&bench.disk).await;
    let vault = bench.open().await;
    suspend(&vault, "app/other").await;
    vault.close().await;
    drop(vault);
    bench.disk = second;
    // The end of the first freeze must not end the second one.
    let restored = restore(&bench).await.unwrap();
    assert_eq!((restored.incarnation, restored.replayed, restored.frozen), (3, 1, None));
    let vault = bench.open().await;
    let now = in_force(&vault).await;
    assert_eq!((now.fields.len(), now.suspended.len()), (1, 1));
    vault.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn a_copy_that_says_that_it_is_newer_than_it_is_undoes_nothing() {
    let (mut bench, _) = older(async |vault| suspend(vault, "app/other").await).await;
    let older = copy(&bench.disk).await;
    restore(&bench).await.unwrap();
    // The number in a log's head takes no key.
    for tenant in [TenantNo(0), DEMO] {
        let key = strongroom_storage::keys::lane(tenant, 0);
        let head = older.get(Family::Meta, key.clone()).await.unwrap().unwrap();
        let head = strongroom_storage::rows::LaneHead::decode(&head).unwrap();
        let forged = strongroom_storage::rows::LaneHead { incarnation: 2, ..head };
        older.write(vec![Mutation::Put(Family::Meta, key, forged.encode())]).await.unwrap();
    }
    bench.disk = older;
    let restored = restore(&bench).await.unwrap();
    assert!(restored.frozen.unwrap().contains("nothing proves"));
    let vault = bench.open().await;
    assert_eq!(in_force(&vault).await.suspended.len(), 1);
    vault.close().await;
}

#[tokio::test]
async fn data_and_head_file_that_are_both_put_back_are_found_out_by_the_journal() {
    let (mut bench, vault) = Bench::new().await;
    vault.close().await;
    drop(vault);
    let head = bench.folder.path().join("head");
    let (older, head_before) = (copy(&bench.disk).await, std::fs::read(&head).unwrap());
    let vault = bench.open().await;
    suspend(&vault, "app/other").await;
    vault.close().await;
    drop(vault);
    bench.disk = older;
    std::fs::write(head, head_before).unwrap();
    let why = refused(&bench).await;
    assert!(why.contains("behind its journal") && why.contains("`strongroom restore`"), "{why}");
    assert_eq!(restore(&bench).await.unwrap().frozen, None);
    let vault = bench.open().await;
    assert_eq!(in_force(&vault).await.suspended.len(), 1);
    vault.close().await;
}

#[tokio::test]
async fn a_copy_with_another_history_is_refused() {
    let (bench, _) = older(async |vault| suspend(vault, "app/other").await).await;
    let other = older(async |_| {}).await.0;
    // Its keys and its head file are this vault's, and its leaves another's.
    let leaves = Family::Leaves;
    for (key, line) in other.disk.scan(leaves, Range { from: vec![], to: vec![], limit: usize::MAX }).await.unwrap() {
        bench.disk.write(vec![Mutation::Put(leaves, key.to_vec(), line.to_vec())]).await.unwrap();
    }
    let error = restore(&bench).await.unwrap_err();
    assert!(error.to_string().contains("is not the one that the head file speaks of"), "{error}");
}

#[tokio::test]
async fn who_is_an_officer_is_as_it_was_last() {
    let (bench, _) = older(async |vault| {
        let carol = EnrolOfficer { name: "carol".to_owned(), key: [9; 32] };
        let enrol = async || vault.enrol_officer(&caller(Role::Officer), &carol).await;
        with_approval(vault, DEMO, enrol).await.unwrap();
        let anew = EnrolOfficer { name: "alice".to_owned(), key: [8; 32] };
        let enrol = async || vault.enrol_officer(&caller(Role::Officer), &anew).await;
        with_approval(vault, DEMO, enrol).await.unwrap();
    })
    .await;
    assert_eq!(restore(&bench).await.unwrap().replayed, 2);
    let vault = bench.open().await;
    let directory = vault.directory();
    assert_eq!((directory.officer(DEMO, "carol"), directory.officer(DEMO, "alice")), (Some(&[9; 32]), Some(&[8; 32])));
    vault.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn a_keystore_from_before_a_change_of_keys_is_not_taken() {
    let (mut bench, vault) = Bench::new().await;
    vault.close().await;
    drop(vault);
    let keys = bench.folder.path().join("keys");
    let (older, keys_before) = (copy(&bench.disk).await, std::fs::read(&keys).unwrap());
    let vault = bench.open().await;
    let officer = caller(Role::Officer);
    vault.rotate_key(&caller(Role::Rotator), &RotateKey { name: "kek/1".to_owned(), from_version: 0 }).await.unwrap();
    let state = SetKeyState { name: "kek/1".to_owned(), version: 1, state: "compromised".to_owned() };
    vault.set_key_state(&officer, &state).await.unwrap();
    vault.close().await;
    drop(vault);
    bench.disk = older;
    let keys_now = std::fs::read(&keys).unwrap();
    std::fs::write(&keys, keys_before).unwrap();
    assert!(matches!(restore(&bench).await, Err(RestoreError::KeystoreOld { .. })));
    std::fs::write(&keys, keys_now).unwrap();
    let restored = restore(&bench).await.unwrap();
    assert_eq!((restored.held, restored.frozen), (1, None));
    assert!(restored.keks > 0, "of the uses of those before the copy has lost count");
    bench.open().await.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn a_tenant_that_was_destroyed_since_the_copy_stays_destroyed() {
    let (mut bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    vault.close().await;
    drop(vault);
    let older = copy(&bench.disk).await;
    let vault = bench.open().await;
    let gone = DestroyTenant { name: SAVINGS.to_owned(), dry_run: false };
    vault.destroy_tenant(&operator(), &gone).await.unwrap();
    vault.close().await;
    drop(vault);
    bench.disk = older;
    for with_journal in [true, false] {
        if !with_journal {
            // The keystore knows it all the same.
            std::fs::remove_file(journal(&bench)).unwrap();
        }
        let before = copy(&bench.disk).await;
        assert_eq!(restore(&bench).await.unwrap().frozen.is_none(), with_journal);
        let vault = bench.open().await;
        assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Destroyed);
        assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantDestroyed)));
        vault.close().await;
        drop(vault);
        proven(&bench).await;
        bench.disk = before;
    }
}

#[tokio::test]
async fn what_nobody_knows_how_to_do_again_freezes_everything() {
    let (bench, _) = older(async |vault| {
        let header = LeafHeader {
            request: &[7; 16],
            principal: "vault",
            actor: None,
            action: "set_key_state",
            purpose: None,
            decision: "allow",
            reason: None,
            policy: 1,
            schema: 1,
            keys: &[],
            client: "",
            detail: &[("stage", "done")],
        };
        vault.append(DEMO, &header, vec![]).await.unwrap();
    })
    .await;
    let why = restore(&bench).await.unwrap().frozen.unwrap();
    assert!(why.contains("set_key_state"), "{why}");
    let vault = bench.open().await;
    assert!(in_force(&vault).await.tenant.reads.is_some());
    vault.close().await;
}

#[tokio::test]
async fn what_restricts_goes_to_the_journal_in_the_order_of_the_commits() {
    let (bench, vault) = Bench::new().await;
    let journalled = async || {
        let keystore = Keystore::open(bench.folder.path(), &root()).unwrap();
        let rows = crate::open::tenant_rows(&bench.disk).await.unwrap();
        let place =
            crate::open::journal_place(bench.folder.path().join("journal"), VaultId([7; 16]), rows[0].id, &keystore);
        let mut actions = vec![];
        let read = place.unwrap().read(None, |record| {
            if let strongroom_ledger::journal::Record::Leaf { line, .. } = record {
                actions.push(strongroom_ledger::leaf::parse(&line).unwrap().action);
            }
        });
        read.unwrap();
        actions
    };
    suspend(&vault, "app/other").await;
    assert_eq!(journalled().await, ["suspend"], "it stands there before the answer");
    vault.freeze(&caller(Role::Officer), &freezing(FIELD)).await.unwrap();
    unfreeze(&vault, FIELD).await;
    store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let before = ["suspend", "freeze", "unfreeze"];
    assert_eq!(journalled().await, before);
    let hold = hold(&bench, &[], "collections", 1);
    set(&vault, &hold).await.unwrap();
    erase_with(&vault, "c-1", 1, "").await.unwrap();
    undo(&vault, "c-1").await.unwrap();
    lift(&vault, 1).await.unwrap();
    give(&vault, "c-1", all()).await.unwrap();
    take(&vault, "c-1", all()).await.unwrap();
    let of_subjects = ["set_hold", "erase_subject", "undo_erasure", "lift_hold", "withdraw_consent"];
    assert_eq!(journalled().await, [&before[..], &of_subjects].concat());
    let again = vault.freeze(&operator(), &Freeze { all_tenants: true, ..freezing("") }).await;
    again.unwrap();
    // Once, though each log says it.
    assert_eq!(journalled().await, [&before[..], &of_subjects, &["freeze_all"]].concat());
    vault.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn what_a_restore_has_frozen_another_one_freezes_so_that_no_officer_ends_it_alone() {
    let (mut bench, token) = older(async |vault| suspend(vault, "app/other").await).await;
    let older = copy(&bench.disk).await;
    std::fs::remove_file(bench.folder.path().join("head")).unwrap();
    assert!(restore(&bench).await.unwrap().frozen.is_some());
    bench.disk = older;
    let again = restore(&bench).await.unwrap();
    assert_eq!((again.incarnation, again.frozen), (3, None));
    let vault = bench.open().await;
    assert_eq!(in_force(&vault).await.tenant.reads.unwrap().by, RESTORE);
    assert!(matches!(read_one(&vault, &token, "masked").await, Err(Error::Frozen { .. })));
    let alone = vault.unfreeze(&caller(Role::Officer), &unfreezing("")).await;
    assert!(matches!(alone, Err(Error::ApprovalRequired { .. })));
    vault.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn what_a_restore_owes_that_was_cut_off_the_next_start_does() {
    let (bench, _) = older(async |vault| suspend(vault, "app/other").await).await;
    // All that is restored is one write.
    bench.faults.fail_writes_after(1, Fate::Lost);
    restore(&bench).await.unwrap_err();
    bench.faults.heal();
    assert!(matches!(restore(&bench).await, Err(RestoreError::Nothing)));
    let rolled = async |vault: &Tested| {
        let all = leaves(vault).await;
        let done = |leaf: &&serde_json::Value| {
            leaf["action"] == "rotate_key" && leaf["principal"] == "root" && leaf["detail"]["stage"] == "done"
        };
        all.iter().filter(done).count()
    };
    let vault = bench.open().await;
    let first = rolled(&vault).await;
    assert!(first > 0);
    vault.close().await;
    drop(vault);
    let vault = bench.open().await;
    assert_eq!(rolled(&vault).await, first, "once");
    vault.close().await;
    proven(&bench).await;
}

#[tokio::test]
async fn a_keystore_that_is_older_than_the_copy_is_refused_before_anything_is_written() {
    let (mut bench, vault) = Bench::new().await;
    let keys = bench.folder.path().join("keys");
    let keys_before = std::fs::read(&keys).unwrap();
    vault.rotate_key(&caller(Role::Rotator), &RotateKey { name: "kek/1".to_owned(), from_version: 0 }).await.unwrap();
    vault.close().await;
    drop(vault);
    let older = copy(&bench.disk).await;
    let vault = bench.open().await;
    suspend(&vault, "app/other").await;
    vault.close().await;
    drop(vault);
    bench.disk = older;
    std::fs::write(&keys, keys_before).unwrap();
    let lane = strongroom_storage::keys::lane(DEMO, 0);
    let before = bench.disk.get(Family::Meta, lane.clone()).await.unwrap();
    assert!(matches!(restore(&bench).await, Err(RestoreError::KeystoreOld { .. })));
    assert_eq!(bench.disk.get(Family::Meta, lane).await.unwrap(), before);
}

#[tokio::test]
async fn a_tenant_made_after_a_restore_has_the_number_of_none_that_was_lost() {
    let (bench, _) = older(async |vault| {
        make(vault, SAVINGS).await.unwrap();
        fill(vault, NUMBER).await;
    })
    .await;
    restore(&bench).await.unwrap();
    let vault = bench.open().await;
    let made = make(&vault, "loans").await.unwrap();
    assert_eq!(made.number, TenantNo(NUMBER.0 + 1));
    vault.close().await;
    drop(vault);
    bench.open().await.close().await;
    proven(&bench).await;
}
