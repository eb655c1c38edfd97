//! What is frozen and who is suspended: how far it reaches, since when it holds, and that nobody gets around it.

mod durable;
mod of_all;
mod suspensions;

use super::tenants::{of, operator};
use super::*;
use crate::{Freeze, InForceFreezes, Suspend, Unfreeze, Unsuspend};

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
