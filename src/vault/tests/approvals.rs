//! What nobody does alone: it waits for others, and goes through once they have signed.

use std::sync::atomic::AtomicBool;

use strongroom_ledger::approval;
use strongroom_storage::{Family, Mutation, Store};

use super::holds::hold;
use super::keys::rotate;
use super::tenants::{NUMBER, SAVINGS, make, of};
use super::*;
use crate::{
    ApplyPolicy, Approve, ClassLimits, DestroyKeyVersion, EnrolOfficer, EraseSubject, Export, LiftHold, ListHolds,
    Rate, Reject, RemoveOfficer, ResetSecondFactor, RollBackPolicy, SetTier, SetTierLimits, TierLimits, UndoErasure,
};

const TWO_PERSONS: &str = include_str!("../../../deploy/policies/two-persons.cedar");

fn destroy_first() -> DestroyKeyVersion {
    DestroyKeyVersion { name: "kek/1".to_owned(), version: 1, dry_run: false }
}

/// The name of what waits, and how far it has come.
fn waits<T>(asked: Result<T, Error>) -> (String, u8, u8) {
    match asked {
        Err(Error::ApprovalRequired { name, have, need, .. }) => (name, have, need),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was done"),
    }
}

async fn state(vault: &Tested) -> &'static str {
    let keys = vault.list_keys(&caller(Role::Officer)).await.unwrap();
    keys.iter().find(|key| (key.name.as_str(), key.version) == ("kek/1", 1)).unwrap().state
}

/// A vault with an older version of a KEK that nothing needs.
async fn bench() -> (Bench, Arc<Tested>) {
    let (bench, vault) = Bench::new().await;
    rotate(&vault, "kek/1").await.unwrap();
    (bench, vault)
}

#[tokio::test]
async fn a_version_is_destroyed_by_two_and_the_log_proves_who_agreed() {
    let (bench, vault) = bench().await;
    let (alice, bob) = (caller(Role::Officer), second(TenantNo(1)));
    let request = destroy_first();
    let (name, ..) = waits(vault.destroy_key_version(&alice, &request).await);
    let name = name.as_str();
    assert_eq!(waits(vault.destroy_key_version(&alice, &request).await), (name.to_owned(), 0, 1), "it is reused");
    let dry = DestroyKeyVersion { dry_run: true, ..destroy_first() };
    assert_eq!(vault.destroy_key_version(&alice, &dry).await.unwrap(), 0, "to look needs nobody");
    assert_eq!(state(&vault).await, "decrypt-only");
    // Nobody does both, and nobody but an officer does it at all.
    assert!(matches!(approve_as(&vault, &alice, name).await, Err(Error::Invalid(_) | Error::ApprovalRefused(_))));
    for role in [Role::App, Role::Rotator, Role::Auditor] {
        assert!(matches!(approve_as(&vault, &caller(role), name).await, Err(Error::Denied { .. })));
    }
    let listed = vault.list_approvals(&bob).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].approval.summary, "destroy version 1 of key kek/1");

    assert_eq!(approve_as(&vault, &bob, name).await.unwrap().have, 1);
    assert!(matches!(approve_as(&vault, &bob, name).await, Err(Error::ApprovalRefused(_))), "once each");
    vault.destroy_key_version(&alice, &request).await.unwrap();
    assert_eq!(state(&vault).await, "destroyed");
    assert!(vault.list_approvals(&bob).await.unwrap().is_empty());
    assert!(matches!(approve_as(&vault, &bob, name).await, Err(Error::ApprovalRefused(_))));

    // From the leaf alone: whose key signed what.
    let leaves = leaves(&vault).await;
    let of = |action: &str| leaves.iter().filter(|leaf| leaf["action"] == action).cloned().collect::<Vec<_>>();
    let approved = of("approve").into_iter().find(|leaf| leaf["decision"] == "allow").unwrap();
    let detail = |name: &str| approved["detail"][name].as_str().unwrap().to_owned();
    let decoded = |name: &str| data_encoding::BASE64.decode(detail(name).as_bytes()).unwrap();
    let (vault_id, tenant_id) = vault.ids(&alice).unwrap();
    let [named, request, action, requester, summary] =
        ["approval", "request", "asked", "requester", "summary"].map(detail);
    let text = approval::Approval {
        vault: vault_id,
        tenant: tenant_id,
        name: &named,
        request: &request,
        action: &action,
        requester: &requester,
        summary: &summary,
        officer: approved["principal"].as_str().unwrap(),
    };
    text.verify(&decoded("public_key"), &decoded("signature")).unwrap();
    let destroyed = of("destroy_key_version");
    let with = |stage: &str| destroyed.iter().find(|leaf| leaf["detail"]["stage"] == stage).unwrap()["detail"].clone();
    assert_eq!((&with("pending")["approval"], &with("pending")["request"]), (&name.into(), &request.as_str().into()));
    assert_eq!(with("intent")["approval"], name);
    let pending = destroyed.iter().find(|leaf| leaf["detail"]["stage"] == "pending").unwrap();
    assert_eq!((&pending["decision"], &pending["reason"]), (&"deny".into(), &"APPROVAL_REQUIRED".into()));
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn an_approval_is_for_one_request_of_one_principal_under_one_policy() {
    let (_bench, vault) = bench().await;
    rotate(&vault, "kek/1").await.unwrap();
    let (alice, bob) = (caller(Role::Officer), second(TenantNo(1)));
    let (name, ..) = waits(vault.destroy_key_version(&alice, &destroy_first()).await);
    approve_as(&vault, &bob, &name).await.unwrap();
    // Another version, and the same by somebody else.
    let other = DestroyKeyVersion { version: 2, ..destroy_first() };
    let (second_name, have, need) = waits(vault.destroy_key_version(&alice, &other).await);
    assert!(second_name != name && (have, need) == (0, 1));
    let (by_bob, ..) = waits(vault.destroy_key_version(&bob, &destroy_first()).await);
    assert!(by_bob != name && by_bob != second_name);
    let (by_a_job, have, need) = waits(vault.destroy_key_version(&caller(Role::Rotator), &destroy_first()).await);
    assert_eq!((have, need), (0, 2), "a job needs two");
    approve_as(&vault, &bob, &by_a_job).await.unwrap();
    let again = vault.destroy_key_version(&caller(Role::Rotator), &destroy_first()).await;
    assert_eq!(waits(again), (by_a_job, 1, 2));
    // Under another policy nobody has approved it.
    put_in_force(&vault, &alice, format!("// 2\n{DEFAULT_POLICIES}")).await;
    assert_eq!(waits(vault.destroy_key_version(&alice, &destroy_first()).await).1, 0);
    assert_eq!(state(&vault).await, "decrypt-only");
}

#[tokio::test]
async fn what_is_rejected_or_has_expired_must_be_asked_for_again() {
    let (bench, vault) = bench().await;
    let (alice, bob) = (caller(Role::Officer), second(TenantNo(1)));
    let (name, ..) = waits(vault.destroy_key_version(&alice, &destroy_first()).await);
    approve_as(&vault, &bob, &name).await.unwrap();
    vault.reject(&alice, &Reject { name: name.clone() }).await.unwrap();
    assert!(matches!(vault.reject(&alice, &Reject { name: name.clone() }).await, Err(Error::ApprovalRefused(_))));
    let (again, have, _) = waits(vault.destroy_key_version(&alice, &destroy_first()).await);
    assert!(again != name && have == 0);
    approve_as(&vault, &bob, &again).await.unwrap();
    bench.pass(7 * 24 * 3_600);
    let (third, have, _) = waits(vault.destroy_key_version(&alice, &destroy_first()).await);
    assert!(third != again && have == 0);
    assert!(matches!(approve_as(&vault, &bob, &again).await, Err(Error::ApprovalRefused(_))));
    assert_eq!(state(&vault).await, "decrypt-only");
    // Neither does a list of before come back that somebody puts back while the vault is stopped, nor what waits.
    approve_as(&vault, &bob, &third).await.unwrap();
    let at = strongroom_storage::keys::approvals(TenantNo(1));
    let row = bench.disk.get(Family::Meta, at.clone()).await.unwrap().unwrap();
    vault.reject(&bob, &Reject { name: third.clone() }).await.unwrap();
    vault.close().await;
    bench.disk.write(vec![Mutation::Put(Family::Meta, at, row.to_vec())]).await.unwrap();
    let vault = bench.open().await;
    let (fourth, have, _) = waits(vault.destroy_key_version(&alice, &destroy_first()).await);
    assert!(fourth != third && have == 0, "what was rejected stays so");
}

#[tokio::test]
async fn who_is_suspended_has_no_say_any_more() {
    let (_bench, vault) = bench().await;
    let (alice, bob) = (caller(Role::Officer), second(TenantNo(1)));
    let (name, ..) = waits(vault.destroy_key_version(&alice, &destroy_first()).await);
    approve_as(&vault, &bob, &name).await.unwrap();
    let stolen = crate::Suspend { principal: "officer/bob".to_owned(), reason: "its key was stolen".to_owned() };
    vault.suspend(&alice, &stolen).await.unwrap();
    assert_eq!(waits(vault.destroy_key_version(&alice, &destroy_first()).await), (name, 0, 1));
    assert_eq!(state(&vault).await, "decrypt-only");
}

#[tokio::test]
async fn nobody_is_asked_for_what_would_be_refused_anyway() {
    let (_bench, vault) = Bench::new().await;
    let (alice, bob) = (caller(Role::Officer), second(TenantNo(1)));
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    assert!(matches!(vault.destroy_key_version(&alice, &destroy_first()).await, Err(Error::KeyState(_))));
    rotate(&vault, "kek/0").await.unwrap();
    let in_use = DestroyKeyVersion { name: "kek/0".to_owned(), ..destroy_first() };
    assert!(matches!(vault.destroy_key_version(&alice, &in_use).await, Err(Error::KeyInUse { .. })));
    let broken = ApplyPolicy { source: "permit (".to_owned(), tests: String::new(), dry_run: false };
    assert!(matches!(vault.apply_policy(&alice, &broken).await, Err(Error::SourceRefused(_))));
    // Nor for what nobody could approve afterwards.
    let source = DEFAULT_POLICIES.replace("context.approvals >= 1", "context.approvals >= 2");
    let too_many = ApplyPolicy { source, tests: String::new(), dry_run: false };
    assert!(
        matches!(vault.apply_policy(&alice, &too_many).await, Err(Error::SourceRefused(why)) if why.contains("2 other"))
    );
    assert!(vault.list_approvals(&bob).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_signature_by_another_key_or_over_another_text_is_none() {
    let (_bench, vault) = bench().await;
    let (alice, bob) = (caller(Role::Officer), second(TenantNo(1)));
    let (name, ..) = waits(vault.destroy_key_version(&alice, &destroy_first()).await);
    let good = signed(&vault, &bob, &name).await;
    let stranger = rcgen::KeyPair::generate().unwrap();
    let public = rcgen::PublicKeyData::subject_public_key_info(&stranger);
    let mut flipped = good.signature.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let wrong = [
        Approve { public_key: public, ..signed(&vault, &bob, &name).await },
        Approve { signature: flipped, ..signed(&vault, &bob, &name).await },
        Approve { signature: vec![], ..signed(&vault, &bob, &name).await },
        Approve { public_key: vec![], ..signed(&vault, &bob, &name).await },
    ];
    for wrong in wrong {
        assert!(matches!(vault.approve(&bob, &wrong).await, Err(Error::Invalid(_))));
    }
    assert_eq!(vault.list_approvals(&bob).await.unwrap()[0].have, 0);
    vault.approve(&bob, &good).await.unwrap();
    // What one tenant's officer signed is nothing to another tenant.
    make(&vault, SAVINGS).await.unwrap();
    rotate_of(&vault, NUMBER).await;
    let (name, ..) = waits(vault.destroy_key_version(&of(NUMBER, Role::Officer), &destroy_zero()).await);
    let theirs = Approve { name: name.clone(), ..good };
    assert!(matches!(vault.approve(&second(NUMBER), &theirs).await, Err(Error::Invalid(_))));
    approve_as(&vault, &second(NUMBER), &name).await.unwrap();
}

fn destroy_zero() -> DestroyKeyVersion {
    DestroyKeyVersion { name: "kek/0".to_owned(), ..destroy_first() }
}

async fn rotate_of(vault: &Tested, tenant: TenantNo) {
    let request = crate::RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    vault.rotate_key(&of(tenant, Role::Officer), &request).await.unwrap();
}

#[tokio::test]
async fn an_export_shows_that_what_was_done_is_what_was_approved() {
    let (bench, vault) = bench().await;
    let (alice, one) = (caller(Role::Officer), TenantNo(1));
    put_in_force(&vault, &alice, format!("{DEFAULT_POLICIES}\n{TWO_PERSONS}")).await;
    let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
    with_approval(&vault, one, async || vault.apply_schema(&alice, &schema).await).await.unwrap();
    let tier = SetTier { principal: "app/tester".to_owned(), tier: "II".to_owned() };
    with_approval(&vault, one, async || vault.set_tier(&alice, &tier).await).await.unwrap();
    let plain = Rate { per_minute: Some(5), per_day: None };
    let c2 = ClassLimits { plain, ..ClassLimits::default() };
    let limits = SetTierLimits { tier: "II".to_owned(), limits: TierLimits { c2, ..TierLimits::default() } };
    with_approval(&vault, one, async || vault.set_tier_limits(&alice, &limits).await).await.unwrap();
    vault.enrol_second_factor(&Caller { certificate: Some(key_of_second()), ..second(one) }).await.unwrap();
    let reset = ResetSecondFactor { principal: format!("officer/{SECOND}") };
    with_approval(&vault, one, async || vault.reset_second_factor(&alice, &reset).await).await.unwrap();
    let destroy = destroy_first();
    with_approval(&vault, one, async || vault.destroy_key_version(&alice, &destroy).await).await.unwrap();
    let carol = EnrolOfficer { name: "carol".to_owned(), key: [3; 32] };
    with_approval(&vault, one, async || vault.enrol_officer(&alice, &carol).await).await.unwrap();
    let gone = RemoveOfficer { name: "carol".to_owned() };
    with_approval(&vault, one, async || vault.remove_officer(&alice, &gone).await).await.unwrap();
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    vault.set_hold(&alice, &hold(&bench, &[], "collections", 30)).await.unwrap();
    let lift = LiftHold { subject: "c-1".to_owned(), number: 1 };
    with_approval(&vault, one, async || vault.lift_hold(&alice, &lift).await).await.unwrap();
    let gone = erase("c-1", 3, "");
    with_approval(&vault, one, async || vault.erase_subject(&caller(Role::Privacy), &gone).await).await.unwrap();
    let back = RollBackPolicy { version: 1, dry_run: false };
    with_approval(&vault, one, async || vault.roll_back_policy(&alice, &back).await).await.unwrap();
    assert_eq!(proven_approvals(&vault).await, 11);
}

/// How many approvals an export shows; it proves that what was done with one is what was approved.
async fn proven_approvals(vault: &Tested) -> u64 {
    vault.sign_anew(TenantNo(1));
    let head = vault.checkpoint(&caller(Role::Auditor), "").await.unwrap();
    let end = strongroom_ledger::checkpoint::claimed_size(&head.note).unwrap();
    let mut pages = vault.export(&caller(Role::Auditor), &Export { end, ..Export::default() }).await.unwrap();
    let mut export = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        page.leaves.iter().for_each(|line| export.extend([line, &b"\n"[..]].concat()));
    }
    strongroom_ledger::verify::verify_export(&export[..], &head.note, &head.keys).unwrap().approvals
}

fn erase(subject: &str, grace_days: u64, key: &str) -> EraseSubject {
    let grace = grace_days * 24 * 3_600 * 1_000_000;
    EraseSubject { subject: subject.to_owned(), grace, idempotency_key: key.to_owned() }
}

/// A vault in which no data subject is erased, and no hold lifted, by one person.
async fn erased_by_two() -> (Bench, Arc<Tested>) {
    let (bench, vault) = Bench::new().await;
    put_in_force(&vault, &caller(Role::Officer), format!("{DEFAULT_POLICIES}\n{TWO_PERSONS}")).await;
    (bench, vault)
}

#[tokio::test]
async fn an_erasure_waits_for_an_officer_who_can_see_whose_it_is() {
    let (bench, vault) = erased_by_two().await;
    let (desk, bob) = (caller(Role::Privacy), second(TenantNo(1)));
    let id = "customer-4711";
    let token = store_one(&vault, "borrower.id_card", ID_CARD, id).await;
    store_one(&vault, "borrower.name", "张三", "c-2").await;
    // Nobody is asked for somebody who is not there.
    assert!(matches!(vault.erase_subject(&desk, &erase("nobody", 0, "")).await, Err(Error::NotFoundAt(_))));
    assert!(vault.list_approvals(&bob).await.unwrap().is_empty());

    let request = erase(id, 0, "key");
    let (name, have, need) = waits(vault.erase_subject(&desk, &request).await);
    assert_eq!((have, need), (0, 1));
    assert_eq!(waits(vault.erase_subject(&desk, &request).await).0, name, "it is reused");
    assert_ne!(
        waits(vault.erase_subject(&desk, &erase(id, 30, "")).await).0,
        name,
        "with a time of grace it is another"
    );
    assert!(read_one(&vault, &token, "plain").await.is_ok(), "nothing is done before");
    // Whose it is an officer finds out who knows the id, and nobody by what is kept.
    let about = async |id: &str| {
        let listed = vault.list_approvals_about(&bob, id).await.unwrap();
        listed.into_iter().map(|one| (one.approval.name(), one.approval.summary)).collect::<Vec<_>>()
    };
    let found = about(id).await;
    let all = leaves(&vault).await;
    let stored = all.iter().find(|leaf| leaf["action"] == "tokenize").unwrap();
    let handle = stored["items"][0]["subject"].as_str().unwrap();
    let summaries =
        [format!("erase at once the data subject {handle}"), format!("erase after 30d the data subject {handle}")];
    assert_eq!(found.iter().map(|(_, summary)| summary.as_str()).collect::<Vec<_>>(), summaries);
    assert_eq!(found[0].0, name);
    assert!(about("c-2").await.is_empty() && about("nobody").await.is_empty());

    approve_as(&vault, &bob, &name).await.unwrap();
    let told = vault.erase_subject(&desk, &request).await.unwrap();
    assert_eq!((told.state, told.receipt.is_empty()), ("erased", false));
    assert!(matches!(read_one(&vault, &token, "plain").await, Err(Error::NotFound)));
    assert_eq!(vault.erase_subject(&desk, &request).await.unwrap(), told, "a retry asks nobody");
    assert!(about(id).await.is_empty(), "nothing leads from the id any more to what still waits");
    // It was for that subject: who comes under the same id is somebody else, for whom it was not given.
    store_one(&vault, "borrower.id_card", ID_CARD, id).await;
    let (again, have, _) = waits(vault.erase_subject(&desk, &erase(id, 0, "")).await);
    assert!(again != name && have == 0);

    let kept = serde_json::to_string(&leaves(&vault).await).unwrap();
    let row = bench.disk.get(Family::Meta, strongroom_storage::keys::approvals(TenantNo(1))).await.unwrap().unwrap();
    assert!(!kept.contains(id) && !row.windows(id.len()).any(|part| part == id.as_bytes()));
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn an_approval_that_is_given_while_the_request_is_made_again_is_used_up_by_it() {
    let (bench, vault) = erased_by_two().await;
    let (desk, bob) = (caller(Role::Privacy), second(TenantNo(1)));
    // Before each read that the request makes, in turn.
    let mut done = 0;
    loop {
        let id = format!("c-{done}");
        store_one(&vault, "borrower.id_card", ID_CARD, &id).await;
        let request = erase(&id, 0, "");
        let (name, ..) = waits(vault.erase_subject(&desk, &request).await);
        let (given, before) = (Arc::new(AtomicBool::new(false)), proven_approvals(&vault).await);
        bench.faults.before_read(done, {
            let (vault, bob, given) = (Arc::clone(&vault), bob.clone(), Arc::clone(&given));
            async move {
                approve_as(&vault, &bob, &name).await.unwrap();
                given.store(true, Ordering::Relaxed);
            }
        });
        let again = vault.erase_subject(&desk, &request).await;
        bench.faults.heal();
        if !given.load(Ordering::Relaxed) {
            break;
        }
        let told = match again {
            // It had read the list by then.
            Err(Error::ApprovalRequired { .. }) => vault.erase_subject(&desk, &request).await.unwrap(),
            told => told.unwrap(),
        };
        assert_eq!(told.state, "erased");
        assert!(vault.list_approvals(&bob).await.unwrap().is_empty(), "given before read {done}, it is left");
        assert_eq!(proven_approvals(&vault).await, before + 1);
        done += 1;
    }
    assert!(done > 3, "{done} reads");
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn an_erasure_that_waits_out_its_grace_is_brought_forward_by_two_and_undone_by_one() {
    let (_bench, vault) = erased_by_two().await;
    let (desk, one) = (caller(Role::Privacy), TenantNo(1));
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let later = erase("c-1", 30, "");
    let ask = async || vault.erase_subject(&desk, &later).await;
    let first = with_approval(&vault, one, &ask).await.unwrap();
    assert_eq!(first.state, "waiting");
    assert_eq!(ask().await.unwrap(), first, "what changes nothing asks nobody");
    waits(vault.erase_subject(&desk, &erase("c-1", 10, "")).await);
    assert_eq!(ask().await.unwrap(), first);
    vault.undo_erasure(&desk, &UndoErasure { subject: "c-1".to_owned() }).await.unwrap();
    waits(ask().await);
}

#[tokio::test]
async fn a_hold_is_set_by_one_and_lifted_by_two() {
    let (bench, vault) = erased_by_two().await;
    let (alice, bob, desk) = (caller(Role::Officer), second(TenantNo(1)), caller(Role::Privacy));
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    vault.set_hold(&alice, &hold(&bench, &[], "collections", 30)).await.unwrap();
    vault.set_hold(&alice, &hold(&bench, &[], "collections", 60)).await.unwrap();
    let lift = |number| LiftHold { subject: "c-1".to_owned(), number };
    assert!(matches!(vault.lift_hold(&alice, &lift(7)).await, Err(Error::NotFoundAt(_))));
    assert!(vault.list_approvals(&bob).await.unwrap().is_empty(), "nobody is asked for a hold that does not stand");
    let (name, ..) = waits(vault.lift_hold(&alice, &lift(1)).await);
    let listed = vault.list_approvals_about(&bob, "c-1").await.unwrap();
    let summary = &listed[0].approval.summary;
    assert!(summary.starts_with("lift hold 1, set for case-2027/118, on the data subject "), "{summary}");
    approve_as(&vault, &bob, &name).await.unwrap();
    assert_ne!(waits(vault.lift_hold(&alice, &lift(2)).await).0, name, "it is for that hold alone");
    let holds = async || {
        let holds = vault.list_holds(&desk, &ListHolds { subject: "c-1".to_owned() }).await.unwrap();
        holds.into_iter().map(|hold| hold.stands).collect::<Vec<_>>()
    };
    assert_eq!(holds().await, [true, true]);
    vault.lift_hold(&alice, &lift(1)).await.unwrap();
    assert_eq!(holds().await, [false, true]);
}
