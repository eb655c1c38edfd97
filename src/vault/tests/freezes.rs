//! What is frozen and who is suspended: how far it reaches, since when it holds, and that nobody gets around it.

use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::erasures::erase_with;
use super::tenants::{NUMBER, SAVINGS, fill, log, make, of, operator, read_of};
use super::*;
use crate::{
    BackupKeystore, CreateTenant, DestroyTenant, Export, Freeze, InForceFreezes, LiftHold, RotateKey, SetHold,
    SetKeyState, SetLabels, StartRewrap, Suspend, Unfreeze, Unsuspend,
};

const DEMO: TenantNo = TenantNo(1);
const FIELD: &str = "borrower.id_card";
/// Another card with a right check digit.
const OTHER_CARD: &str = "110105194912310038";

/// What of a field is asked for, or may be done with it.
#[derive(Clone, Copy)]
enum What {
    Reads,
    Writes,
    Both,
}

impl What {
    fn touches(self) -> (bool, bool) {
        (!matches!(self, Self::Writes), !matches!(self, Self::Reads))
    }
}

fn freezing(field: &str, what: What) -> Freeze {
    let (reads, writes) = what.touches();
    Freeze { field: field.to_owned(), reads, writes, all_tenants: false }
}

fn unfreezing(field: &str, what: What) -> Unfreeze {
    let (reads, writes) = what.touches();
    Unfreeze { field: field.to_owned(), reads, writes, all_tenants: false }
}

async fn freeze(vault: &Tested, field: &str, what: What) -> bool {
    vault.freeze(&caller(Role::Officer), &freezing(field, what)).await.unwrap()
}

async fn unfreeze(vault: &Tested, field: &str, what: What) -> bool {
    let request = unfreezing(field, what);
    with_approval(vault, DEMO, async || vault.unfreeze(&caller(Role::Officer), &request).await).await.unwrap()
}

async fn freeze_all(vault: &Tested, what: What) -> Result<bool, Error> {
    vault.freeze(&operator(), &Freeze { all_tenants: true, ..freezing("", what) }).await
}

async fn unfreeze_all(vault: &Tested, what: What) -> Result<bool, Error> {
    vault.unfreeze(&operator(), &Unfreeze { all_tenants: true, ..unfreezing("", what) }).await
}

async fn suspend(vault: &Tested, by: &Caller, principal: &str) -> Result<bool, Error> {
    let (principal, reason) = (principal.to_owned(), "its key was found on a laptop".to_owned());
    vault.suspend(by, &Suspend { principal, reason }).await
}

async fn unsuspend(vault: &Tested, by: &Caller, principal: &str) -> Result<bool, Error> {
    vault.unsuspend(by, &Unsuspend { principal: principal.to_owned() }).await
}

async fn listed(vault: &Tested) -> InForceFreezes {
    vault.list_freezes(&caller(Role::Auditor)).await.unwrap()
}

fn is_frozen<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Frozen { .. }))
}

fn is_suspended<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Suspended))
}

/// Who stores what of a field, and what becomes of each request that reads or writes it.
struct Data {
    token: String,
    deleted: String,
}

impl Data {
    async fn of(vault: &Tested) -> Self {
        let token = store_one(vault, FIELD, ID_CARD, "c-1").await;
        Self { token, deleted: store_one(vault, FIELD, OTHER_CARD, "c-2").await }
    }

    /// Whether detokenize, match and lookup are frozen: all of them, or none.
    async fn reads_are_frozen(&self, vault: &Tested) -> bool {
        let app = caller(Role::App);
        let plain = read_one(vault, &self.token, "plain").await;
        let masked = read_one(vault, &self.token, "masked").await;
        let item = MatchItem { token: self.token.clone(), value: ID_CARD.into(), subject: String::new() };
        let request = Match { items: vec![item], purpose: "kyc_review".to_owned() };
        let matched = vault.matches(&app, &request).await.unwrap().remove(0);
        let item = LookupItem { field: FIELD.to_owned(), value: ID_CARD.into() };
        let request = Lookup { items: vec![item], purpose: "kyc_review".to_owned() };
        let found = vault.lookup(&app, &request).await.unwrap().remove(0);
        let frozen = [is_frozen(&plain), is_frozen(&masked), is_frozen(&matched), is_frozen(&found)];
        if !frozen[0] {
            assert_eq!(plain.unwrap(), ID_CARD.as_bytes());
            assert!(matched.unwrap());
            assert_eq!(found.unwrap().tokens, vec![self.token.clone()]);
        }
        assert!(frozen.iter().all(|one| *one == frozen[0]), "{frozen:?}");
        frozen[0]
    }

    /// Whether tokenize, replace and delete are.
    async fn writes_are_frozen(&mut self, vault: &Tested) -> bool {
        let app = caller(Role::App);
        let stored = vault.tokenize(&app, &tokenize(vec![new_value(FIELD, OTHER_CARD, "c-3")], "")).await;
        let version = NewVersion { token: self.token.clone(), value: ID_CARD.into(), expires: None };
        let replaced = vault.replace(&app, &Replace { items: vec![version], idempotency_key: String::new() }).await;
        let item = DeleteItem { token: self.deleted.clone(), subject: String::new() };
        let request = Delete { items: vec![item], idempotency_key: String::new() };
        let deleted = vault.delete(&app, &request).await.unwrap().remove(0);
        let frozen = [is_frozen(&stored), is_frozen(&replaced), is_frozen(&deleted)];
        if !frozen[0] {
            replaced.unwrap();
            deleted.unwrap();
            self.deleted = stored.unwrap().remove(0);
        }
        assert!(frozen.iter().all(|one| *one == frozen[0]), "{frozen:?}");
        frozen[0]
    }
}

#[tokio::test]
async fn reads_and_writes_of_a_field_are_frozen_apart_and_other_fields_go_on() {
    let (_bench, vault) = Bench::new().await;
    let mut data = Data::of(&vault).await;
    let name = store_one(&vault, "borrower.name", "张三", "c-1").await;
    for (what, reads, writes) in [(What::Reads, true, false), (What::Writes, false, true), (What::Both, true, true)] {
        assert!(freeze(&vault, FIELD, what).await);
        assert_eq!(data.reads_are_frozen(&vault).await, reads);
        assert_eq!(data.writes_are_frozen(&vault).await, writes);
        assert_eq!(read_one(&vault, &name, "plain").await.unwrap(), "张三".as_bytes());
        store_one(&vault, "borrower.name", "李四", "c-2").await;
        // Once more changes nothing, and is no mistake.
        assert!(!freeze(&vault, FIELD, what).await);
        assert!(unfreeze(&vault, FIELD, what).await);
        assert!(!unfreeze(&vault, FIELD, what).await);
        assert!(!data.reads_are_frozen(&vault).await && !data.writes_are_frozen(&vault).await);
    }
}

#[tokio::test]
async fn a_request_that_is_all_or_nothing_stores_nothing_if_one_of_its_fields_is_frozen() {
    let (_bench, vault) = Bench::new().await;
    freeze(&vault, FIELD, What::Writes).await;
    let items = vec![new_value("borrower.name", "张三", "c-1"), new_value(FIELD, ID_CARD, "c-1")];
    assert!(is_frozen(&vault.tokenize(&caller(Role::App), &tokenize(items, "once")).await));
    let leaves = leaves(&vault).await;
    let refused = leaves.iter().rfind(|leaf| leaf["action"] == "tokenize").unwrap();
    assert_eq!((&refused["decision"], &refused["reason"]), (&"deny".into(), &"FROZEN".into()));
    // A refused request does not consume its key.
    unfreeze(&vault, FIELD, What::Writes).await;
    let items = vec![new_value("borrower.name", "李四", "c-1")];
    vault.tokenize(&caller(Role::App), &tokenize(items, "once")).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_tenants_freeze_leaves_a_fields_own_and_a_restart_keeps_both() {
    let (bench, vault) = Bench::new().await;
    let mut data = Data::of(&vault).await;
    let name = store_one(&vault, "borrower.name", "张三", "c-1").await;
    freeze(&vault, FIELD, What::Reads).await;
    assert!(freeze(&vault, "", What::Both).await);
    assert!(is_frozen(&read_one(&vault, &name, "plain").await));
    vault.close().await;
    let vault = bench.open().await;
    assert!(is_frozen(&read_one(&vault, &name, "plain").await));
    assert!(data.reads_are_frozen(&vault).await && data.writes_are_frozen(&vault).await);
    let told = listed(&vault).await;
    assert_eq!(told.tenant.reads.as_ref().map(|since| since.by.as_str()), Some("officer/alice"));
    assert_eq!(told.fields.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), [FIELD]);
    assert!(told.fields[0].frozen.writes.is_none() && told.all_tenants.reads.is_none());
    assert!(unfreeze(&vault, "", What::Both).await);
    assert_eq!(read_one(&vault, &name, "plain").await.unwrap(), "张三".as_bytes());
    assert!(data.reads_are_frozen(&vault).await && !data.writes_are_frozen(&vault).await);
    vault.close().await;
    let vault = bench.open().await;
    assert!(data.reads_are_frozen(&vault).await);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn a_field_stays_frozen_under_another_name() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    freeze(&vault, FIELD, What::Reads).await;
    let renamed = LENDING.replace("field.borrower.id_card", "field.borrower.card");
    assert_ne!(renamed, LENDING);
    let schema = ApplySchema { source: renamed, dry_run: false };
    vault.apply_schema(&caller(Role::Officer), &schema).await.unwrap();
    assert!(is_frozen(&read_one(&vault, &token, "plain").await));
    assert_eq!(listed(&vault).await.fields[0].field, "borrower.card");
    assert!(unfreeze(&vault, "borrower.card", What::Reads).await);
    assert!(read_one(&vault, &token, "plain").await.is_ok());
}

#[tokio::test]
async fn all_tenants_are_frozen_one_made_later_too_and_every_log_says_so() {
    let (bench, vault) = Bench::new().await;
    let mut data = Data::of(&vault).await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    freeze(&vault, FIELD, What::Reads).await;
    assert!(freeze_all(&vault, What::Reads).await.unwrap());
    assert!(data.reads_are_frozen(&vault).await && !data.writes_are_frozen(&vault).await);
    assert!(is_frozen(&read_of(&vault, NUMBER, &tokens[0]).await));
    // Neither can a tenant's officers end it, nor does the end of their own freeze.
    assert!(unfreeze(&vault, FIELD, What::Both).await);
    assert!(!unfreeze(&vault, "", What::Both).await);
    assert!(data.reads_are_frozen(&vault).await);
    make(&vault, "later").await.unwrap();
    let later = fill(&vault, TenantNo(3)).await;
    assert!(is_frozen(&read_of(&vault, TenantNo(3), &later[0]).await));
    vault.close().await;
    let vault = bench.open().await;
    for (tenant, token) in [(NUMBER, &tokens[0]), (TenantNo(3), &later[0])] {
        assert!(is_frozen(&read_of(&vault, tenant, token).await));
    }
    assert!(unfreeze_all(&vault, What::Reads).await.unwrap());
    assert!(!unfreeze_all(&vault, What::Reads).await.unwrap());
    assert!(!data.reads_are_frozen(&vault).await);
    for (tenant, token) in [(NUMBER, &tokens[0]), (TenantNo(3), &later[0])] {
        assert_eq!(read_of(&vault, tenant, token).await.unwrap(), ID_CARD.as_bytes());
    }
    let told = |leaves: Vec<serde_json::Value>| -> Vec<String> {
        let allowed = leaves.into_iter().filter(|leaf| leaf["decision"] == "allow");
        let actions = allowed.map(|leaf| leaf["action"].as_str().unwrap().to_owned());
        actions.filter(|action| action.ends_with("freeze_all")).collect()
    };
    assert_eq!(told(log(&vault, &operator(), "").await), ["freeze_all", "unfreeze_all", "unfreeze_all"]);
    assert_eq!(told(log(&vault, &of(DEMO, Role::Auditor), "").await), ["freeze_all", "unfreeze_all"]);
    assert_eq!(told(log(&vault, &of(NUMBER, Role::Auditor), "").await), ["freeze_all", "unfreeze_all"]);
    assert_eq!(told(log(&vault, &of(TenantNo(3), Role::Auditor), "").await), ["unfreeze_all"]);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn what_frees_protects_or_shows_goes_on_while_all_is_frozen() {
    let (_bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    freeze(&vault, "", What::Both).await;
    freeze_all(&vault, What::Both).await.unwrap();
    let officer = caller(Role::Officer);
    // What the table in SECURITY.md says is stopped.
    let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
    assert!(is_frozen(&vault.apply_schema(&officer, &schema).await));
    let end = DestroyTenant { name: SAVINGS.to_owned(), dry_run: false };
    assert!(is_frozen(&vault.destroy_tenant(&operator(), &end).await));
    // And what goes on.
    put_in_force(&vault, &officer, DEFAULT_POLICIES).await;
    vault.status(&officer).await.unwrap();
    vault.list_keys(&officer).await.unwrap();
    vault.get_schema(&officer).await.unwrap();
    vault.checkpoint(&officer, "").await.unwrap();
    vault.rotate_key(&officer, &RotateKey { name: "kek/1".to_owned(), from_version: 0 }).await.unwrap();
    for state in ["disabled", "enabled"] {
        let request = SetKeyState { name: "kek/1".to_owned(), version: 2, state: state.to_owned() };
        vault.set_key_state(&officer, &request).await.unwrap();
    }
    vault.start_rewrap(&officer, &StartRewrap { name: String::new() }).await.unwrap();
    let create = CreateTenant { name: "later".to_owned(), officers: vec![("carol".to_owned(), [3; 32])] };
    vault.create_tenant(&operator(), &create).await.unwrap();
    vault.backup_keystore(&operator(), &BackupKeystore { label: "safe 3".to_owned() }).await.unwrap();
    assert!(!leaves(&vault).await.is_empty());
    assert!(suspend(&vault, &officer, "app/other").await.unwrap());
    assert!(unsuspend(&vault, &officer, "app/other").await.unwrap());
    assert!(unfreeze(&vault, "", What::Both).await);
    unfreeze_all(&vault, What::Both).await.unwrap();
    vault.apply_schema(&officer, &schema).await.unwrap();
}

#[tokio::test]
async fn no_subject_is_erased_while_all_is_frozen_and_what_is_said_of_it_goes_on() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, FIELD, ID_CARD, "c-1").await;
    freeze(&vault, "", What::Writes).await;
    assert!(is_frozen(&erase_with(&vault, "c-1", 0, "").await));
    let labels = SetLabels { subject: "c-1".to_owned(), labels: vec!["branch-12".to_owned()] };
    assert!(vault.set_labels(&caller(Role::Privacy), &labels).await.unwrap());
    let hold = SetHold {
        subject: "c-1".to_owned(),
        fields: vec![],
        reason: "case-7".to_owned(),
        purpose: "collections".to_owned(),
        until: bench.now.load(Ordering::Relaxed) + 1_000_000,
    };
    let officer = caller(Role::Officer);
    let number = vault.set_hold(&officer, &hold).await.unwrap();
    vault.lift_hold(&officer, &LiftHold { subject: "c-1".to_owned(), number }).await.unwrap();
    assert!(unfreeze(&vault, "", What::Writes).await);
    assert_eq!(erase_with(&vault, "c-1", 0, "").await.unwrap().state, "erased");
}

#[tokio::test]
async fn freezes_and_suspensions_are_made_on_a_full_disk_too() {
    let (bench, vault) = Bench::new().await;
    let data = Data::of(&vault).await;
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    freeze(&vault, "", What::Reads).await;
    suspend(&vault, &caller(Role::Officer), "app/other").await.unwrap();
    assert_eq!(listed(&vault).await.suspended.len(), 1);
    bench.full.store(false, Ordering::Relaxed);
    vault.look_at_space();
    assert!(data.reads_are_frozen(&vault).await);
}

#[tokio::test]
async fn a_frozen_field_is_told_only_to_who_may_have_it() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    freeze(&vault, FIELD, What::Both).await;
    let unknown = "srt1_0000000000000000000000";
    // A view that is not allowed is told as ever, and who may see none is told nothing.
    let privacy = caller(Role::Privacy);
    let plain = vault.detokenize(&privacy, &read(&token, "plain")).await.unwrap().remove(0);
    assert!(matches!(plain, Err(Error::ViewNotAllowed { .. })));
    for role in [Role::Auditor, Role::Rotator] {
        for token in [token.as_str(), unknown] {
            let shown = vault.detokenize(&caller(role), &read(token, "masked")).await.unwrap().remove(0);
            assert!(matches!(shown, Err(Error::NotFound)), "{role}");
        }
        let request = tokenize(vec![new_value(FIELD, ID_CARD, "c-1")], "");
        assert!(matches!(vault.tokenize(&caller(role), &request).await, Err(Error::Denied { .. })), "{role}");
    }
    assert!(is_frozen(&read_one(&vault, &token, "plain").await));
    assert!(matches!(read_one(&vault, unknown, "plain").await, Err(Error::NotFound)));
    let item = DeleteItem { token: unknown.to_owned(), subject: String::new() };
    let request = Delete { items: vec![item], idempotency_key: String::new() };
    assert!(matches!(vault.delete(&caller(Role::App), &request).await.unwrap()[0], Err(Error::NotFound)));
}

#[tokio::test]
async fn whatever_a_suspended_principal_asks_is_refused_and_others_are_answered() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let officer = caller(Role::Officer);
    let export = Export::default();
    let mut under_way = vault.export(&caller(Role::Auditor), &export).await.unwrap();
    for principal in ["app/tester", "auditor/tester"] {
        assert!(suspend(&vault, &officer, principal).await.unwrap());
        assert!(!suspend(&vault, &officer, principal).await.unwrap());
    }
    let app = caller(Role::App);
    let asked = async |vault: &Tested| {
        let stored = vault.tokenize(&app, &tokenize(vec![new_value(FIELD, ID_CARD, "c-2")], "")).await;
        let known = vault.status(&app).await;
        let schema = ApplySchema { source: LENDING.to_owned(), dry_run: true };
        let applied = vault.apply_schema(&app, &schema).await;
        let read = read_one(vault, &token, "masked").await;
        is_suspended(&read) && is_suspended(&stored) && is_suspended(&known) && is_suspended(&applied)
    };
    assert!(asked(&vault).await);
    assert!(is_suspended(&vault.checkpoint(&caller(Role::Auditor), "").await));
    assert!(is_suspended(&under_way.next().await), "an export ends at its next page");
    vault.detokenize(&caller(Role::Privacy), &read(&token, "masked")).await.unwrap().remove(0).unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert!(asked(&vault).await);
    let told = vault.list_freezes(&officer).await.unwrap().suspended;
    assert_eq!(told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["app/tester", "auditor/tester"]);
    assert_eq!((&*told[0].1.since.by, &*told[0].1.reason), ("officer/alice", "its key was found on a laptop"));
    for principal in ["app/tester", "auditor/tester"] {
        assert!(unsuspend(&vault, &officer, principal).await.unwrap());
        assert!(!unsuspend(&vault, &officer, principal).await.unwrap());
    }
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
    let leaves = leaves(&vault).await;
    let refused = leaves.iter().filter(|leaf| leaf["reason"] == "SUSPENDED");
    assert!(refused.clone().count() >= 8 && refused.clone().all(|leaf| leaf["decision"] == "deny"));
    assert!(!leaves.iter().any(|leaf| leaf.to_string().contains("laptop")), "a reason is in no log");
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn nobody_suspends_itself_and_only_officers_suspend_officers() {
    let (_bench, vault) = Bench::new().await;
    let mut officers = [("carol", 3), ("dave", 4)].map(|(name, key)| (name.to_owned(), [key; 32])).to_vec();
    officers.push((SECOND.to_owned(), key_of_second()));
    vault.create_tenant(&operator(), &CreateTenant { name: SAVINGS.to_owned(), officers }).await.unwrap();
    let named = |role, name| {
        let principal = Arc::new(Principal::new(NUMBER, role, name));
        Caller::new(principal, "test")
    };
    let (carol, dave) = (named(Role::Officer, "carol"), named(Role::Officer, "dave"));
    assert!(matches!(suspend(&vault, &carol, "officer/carol").await, Err(Error::SuspensionRefused(_))));
    assert!(matches!(suspend(&vault, &carol, "officer/nobody").await, Err(Error::Invalid(_))));
    assert!(matches!(suspend(&vault, &carol, "carol").await, Err(Error::Invalid(_))));
    let nothing_said = Suspend { principal: "app/x".to_owned(), reason: " ".to_owned() };
    assert!(matches!(vault.suspend(&carol, &nothing_said).await, Err(Error::Invalid(_))));
    // Another tenant's officer of that name is somebody else.
    assert!(matches!(suspend(&vault, &carol, "officer/alice").await, Err(Error::Invalid(_))));
    let app = named(Role::App, "app");
    assert!(matches!(suspend(&vault, &app, "officer/dave").await, Err(Error::Denied { .. })));
    // Not even if policy lets it suspend.
    let lets = "permit (principal in Role::\"app\", action == Action::\"suspend\", resource);";
    let source = format!("{DEFAULT_POLICIES}\n@id(\"x\") @why(\"x\")\n{lets}\n");
    put_in_force(&vault, &carol, source).await;
    assert!(matches!(suspend(&vault, &app, "app/other").await, Err(Error::Denied { .. })));
    assert!(matches!(suspend(&vault, &app, "officer/dave").await, Err(Error::Denied { .. })));

    assert!(suspend(&vault, &carol, "officer/dave").await.unwrap());
    assert!(is_suspended(&unsuspend(&vault, &dave, "officer/dave").await));
    assert!(is_suspended(&suspend(&vault, &dave, "officer/carol").await));
    // The last one stays.
    assert!(matches!(suspend(&vault, &carol, "officer/carol").await, Err(Error::SuspensionRefused(_))));
    assert!(unsuspend(&vault, &carol, "officer/dave").await.unwrap());
    assert!(suspend(&vault, &dave, "officer/carol").await.unwrap());
    assert!(matches!(suspend(&vault, &dave, "officer/dave").await, Err(Error::SuspensionRefused(_))));
}

#[tokio::test]
async fn who_may_not_freeze_does_not_and_what_makes_no_sense_is_refused() {
    let (_bench, vault) = Bench::new().await;
    let data = Data::of(&vault).await;
    for role in [Role::App, Role::Auditor, Role::Rotator, Role::Privacy] {
        assert!(matches!(vault.freeze(&caller(role), &freezing("", What::Both)).await, Err(Error::Denied { .. })));
        assert!(matches!(vault.unfreeze(&caller(role), &unfreezing("", What::Both)).await, Err(Error::Denied { .. })));
    }
    // All tenants are the operators' business, and only all of them.
    let all = Freeze { all_tenants: true, ..freezing("", What::Both) };
    assert!(matches!(vault.freeze(&caller(Role::Officer), &all).await, Err(Error::Denied { .. })));
    assert!(matches!(vault.freeze(&operator(), &freezing("", What::Both)).await, Err(Error::Denied { .. })));
    let of_field = Freeze { all_tenants: true, ..freezing(FIELD, What::Both) };
    assert!(matches!(vault.freeze(&operator(), &of_field).await, Err(Error::Invalid(_))));
    let officer = caller(Role::Officer);
    let unknown = freezing("borrower.nickname", What::Both);
    assert!(matches!(vault.freeze(&officer, &unknown).await, Err(Error::Invalid(_))));
    let nothing = Freeze { reads: false, writes: false, ..freezing(FIELD, What::Both) };
    assert!(matches!(vault.freeze(&officer, &nothing).await, Err(Error::Invalid(_))));
    assert!(!data.reads_are_frozen(&vault).await);
}

#[tokio::test]
async fn a_freeze_of_unknown_outcome_is_read_again_before_anybody_is_answered() {
    for fate in [Fate::Lost, Fate::Stored, Fate::StoredAfterReopen] {
        let (bench, vault) = Bench::new().await;
        let data = Data::of(&vault).await;
        make(&vault, SAVINGS).await.unwrap();
        let tokens = fill(&vault, NUMBER).await;
        let held = fate != Fate::Lost;
        // One tenant's, then all tenants'.
        bench.faults.fail_write(fate);
        assert!(vault.freeze(&caller(Role::Officer), &freezing("", What::Reads)).await.is_err());
        recovered(&vault).await;
        assert_eq!(data.reads_are_frozen(&vault).await, held, "{fate:?}");
        assert_eq!(freeze(&vault, "", What::Reads).await, !held, "a retry is safe");
        assert!(unfreeze(&vault, "", What::Reads).await);

        bench.faults.fail_write(fate);
        assert!(freeze_all(&vault, What::Reads).await.is_err());
        recovered(&vault).await;
        assert_eq!(is_frozen(&read_of(&vault, NUMBER, &tokens[0]).await), held, "{fate:?}");
        assert_eq!(data.reads_are_frozen(&vault).await, held, "{fate:?}");
        assert_eq!(freeze_all(&vault, What::Reads).await.unwrap(), !held);
        assert!(data.reads_are_frozen(&vault).await);
        vault.close().await;
        assert_eq!(findings(&bench, &[]).await, [], "{fate:?}");
    }
}

#[tokio::test]
async fn freezes_that_are_put_back_changed_or_removed_are_found() {
    let (bench, vault) = Bench::new().await;
    let data = Data::of(&vault).await;
    freeze(&vault, "", What::Reads).await;
    freeze_all(&vault, What::Writes).await.unwrap();
    vault.close().await;
    let keys = [place::freezes(DEMO), place::freezes(TenantNo(0))];
    let mut first = Vec::new();
    for key in &keys {
        first.push(bench.disk.get(Family::Meta, key.clone()).await.unwrap().unwrap().to_vec());
    }
    let vault = bench.open().await;
    // By an honest way the tenant's freeze ends and comes again, so that an older row says something else.
    unfreeze(&vault, "", What::Reads).await;
    freeze(&vault, "", What::Both).await;
    freeze_all(&vault, What::Reads).await.unwrap();
    vault.close().await;
    for ((key, older), tenant) in keys.into_iter().zip(first).zip(["demo", "system"]) {
        let newest = bench.disk.get(Family::Meta, key.clone()).await.unwrap().unwrap().to_vec();
        let mut changed = newest.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (row, fault) in [(Some(older), "rolled_back"), (Some(changed), "changed"), (None, "missing")] {
            let mutation = match row {
                Some(row) => Mutation::Put(Family::Meta, key.clone(), row),
                None => Mutation::Delete(Family::Meta, key.clone()),
            };
            bench.disk.write(vec![mutation]).await.unwrap();
            let why = refused(&bench).await;
            assert!(why.contains("its list of freezes is"), "{tenant} {fault}: {why}");
            let found = findings(&bench, &[]).await;
            let told: Vec<_> = found.iter().map(|one| (&*one.tenant, one.kind.as_str(), one.fault.as_str())).collect();
            assert_eq!(told, [(tenant, "freezes", fault)]);
        }
        bench.disk.write(vec![Mutation::Put(Family::Meta, key, newest)]).await.unwrap();
    }
    let vault = bench.open().await;
    assert!(data.reads_are_frozen(&vault).await);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn a_locked_tenant_comes_back_frozen_and_its_suspended_officer_does_not_bring_it_back() {
    let (_bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    let officer = of(NUMBER, Role::Officer);
    let key: [u8; 32] = [0x0c; 32];
    let wrap = |public: &crate::ImportPublicKey| strongroom_key_import::wrap(&public.der, &key).unwrap();
    let public = vault.create_import_key(&officer).await.unwrap();
    let bring = crate::ImportOwnKey { wrapped: wrap(&public), replace: false };
    vault.import_own_key(&officer, &bring).await.unwrap();
    vault.remove_own_key(&officer).await.unwrap();
    // All are frozen while it is locked: its log says so, and it obeys once it is there again.
    freeze_all(&vault, What::Reads).await.unwrap();
    let public = vault.create_import_key(&officer).await.unwrap();
    let bring = crate::ImportOwnKey { wrapped: wrap(&public), replace: false };
    vault.import_own_key(&officer, &bring).await.unwrap();
    assert!(is_frozen(&read_of(&vault, NUMBER, &tokens[0]).await));
    let log = log(&vault, &of(NUMBER, Role::Auditor), "").await;
    assert!(log.iter().any(|leaf| leaf["action"] == "freeze_all"));
    unfreeze_all(&vault, What::Reads).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());

    let officers = vec![("carol".to_owned(), [3; 32]), ("dave".to_owned(), [4; 32])];
    vault.create_tenant(&operator(), &CreateTenant { name: "third".to_owned(), officers }).await.unwrap();
    let third = TenantNo(3);
    let dave = Caller { principal: Arc::new(Principal::new(third, Role::Officer, "dave")), ..officer.clone() };
    let carol = of(third, Role::Officer);
    let public = vault.create_import_key(&carol).await.unwrap();
    let bring = crate::ImportOwnKey { wrapped: wrap(&public), replace: false };
    vault.import_own_key(&carol, &bring).await.unwrap();
    suspend(&vault, &carol, "officer/dave").await.unwrap();
    vault.remove_own_key(&carol).await.unwrap();
    assert!(is_suspended(&vault.get_own_key(&dave).await));
    assert!(is_suspended(&vault.create_import_key(&dave).await));
    assert!(vault.get_own_key(&carol).await.unwrap().unwrap().locked);
}

#[tokio::test]
async fn the_end_of_a_freeze_is_agreed_on_by_two_and_no_later_freeze_is_meant() {
    let (bench, vault) = Bench::new().await;
    let (alice, bob) = (caller(Role::Officer), second(DEMO));
    freeze(&vault, FIELD, What::Reads).await;
    let request = unfreezing(FIELD, What::Both);
    let Err(Error::ApprovalRequired { name, .. }) = vault.unfreeze(&alice, &request).await else {
        panic!("one ends it alone");
    };
    let summary = vault.list_approvals(&bob).await.unwrap().remove(0).approval.summary;
    assert!(summary.starts_with("end the freeze of reads of borrower.id_card (field "), "{summary}");
    assert!(summary.contains("which officer/alice began at "), "{summary}");
    approve_as(&vault, &bob, &name).await.unwrap();
    // Another way it ends first, and a colleague freezes anew: nobody agreed to the end of that.
    let theirs = unfreezing(FIELD, What::Reads);
    let Err(Error::ApprovalRequired { name: other, .. }) = vault.unfreeze(&bob, &theirs).await else {
        panic!("one ends it alone");
    };
    assert_ne!(other, name);
    assert!(unfreeze(&vault, FIELD, What::Reads).await);
    bench.pass(1);
    assert!(vault.freeze(&bob, &freezing(FIELD, What::Reads)).await.unwrap());
    let again = vault.unfreeze(&alice, &request).await;
    assert!(matches!(again, Err(Error::ApprovalRequired { have: 0, name: ref new, .. }) if *new != name));
    assert!(listed(&vault).await.fields[0].frozen.reads.is_some());
    // What changes nothing needs nobody.
    assert!(!vault.unfreeze(&alice, &unfreezing("borrower.name", What::Both)).await.unwrap());
    // Nor does a suspension, unless policy says so; then just that suspension is meant.
    assert!(suspend(&vault, &alice, "app/other").await.unwrap());
    assert!(unsuspend(&vault, &alice, "app/other").await.unwrap());
    let marked = DEFAULT_POLICIES
        .replace("    Action::\"unsuspend\",\n", "")
        .replace("action == Action::\"unfreeze\"", "action in [Action::\"unfreeze\", Action::\"unsuspend\"]");
    put_in_force(&vault, &alice, marked).await;
    assert!(suspend(&vault, &alice, "app/other").await.unwrap());
    let Err(Error::ApprovalRequired { name, .. }) = unsuspend(&vault, &alice, "app/other").await else {
        panic!("one ends it alone");
    };
    approve_as(&vault, &bob, &name).await.unwrap();
    assert!(unsuspend(&vault, &alice, "app/other").await.unwrap());
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_that_begins_after_the_answer_succeeds_nor_any_whose_leaf_comes_after() {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    /// Reads of each reader after the answer.
    const AFTER: usize = 20;
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let (answered, read_before) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (vault, token) = (Arc::clone(&vault), token.clone());
            let (answered, read_before) = (Arc::clone(&answered), Arc::clone(&read_before));
            tokio::spawn(async move {
                let mut after = 0;
                while after < AFTER {
                    let is_after = answered.load(Ordering::SeqCst);
                    match read_one(&vault, &token, "plain").await {
                        Ok(value) => {
                            assert!(!is_after, "a read succeeded that began after the answer");
                            assert_eq!(value, ID_CARD.as_bytes());
                            read_before.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(Error::Frozen { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    after += usize::from(is_after);
                }
            })
        })
        .collect();
    while read_before.load(Ordering::SeqCst) < 40 {
        tokio::task::yield_now().await;
    }
    assert!(freeze(&vault, FIELD, What::Reads).await);
    answered.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    let leaves = leaves(&vault).await;
    let frozen = leaves.iter().position(|leaf| leaf["action"] == "freeze").unwrap();
    let released = |leaf: &serde_json::Value| leaf["action"] == "detokenize" && leaf["decision"] == "allow";
    assert!(leaves[..frozen].iter().filter(|leaf| released(leaf)).count() >= 40);
    assert!(!leaves[frozen..].iter().any(released));
}
