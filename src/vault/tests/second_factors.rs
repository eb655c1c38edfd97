//! Second factors: codes that are used once, guesses that lock, and assertions that hold for whom and what they were given.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use ring::hmac;
use strongroom_access::Assertion;
use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::*;
use crate::{
    ApplyPolicy, ConfirmSecondFactor, Enrolled, EraseSubject, Fault, Freeze, Kind, ResetSecondFactor, StepUp,
    SteppedUp, Suspend, Unfreeze,
};

const MORE: &str = include_str!("../../../deploy/policies/second-factor.cedar");
const STEP: u64 = 30;

/// Somebody with a certificate; the first officer with the one that it is enrolled by.
fn person(role: Role) -> Caller {
    Caller { certificate: Some([1; 32]), ..caller(role) }
}

/// The second officer, with a certificate.
fn bob() -> Caller {
    Caller { certificate: Some(key_of_second()), ..second(TenantNo(1)) }
}

/// An app that was shown the QR code: RFC 6238 by another implementation than the vault's.
struct App {
    secret: Vec<u8>,
    recovery: Vec<String>,
}

impl App {
    fn new(enrolled: &Enrolled) -> Self {
        let (_, rest) = enrolled.uri.split_once("secret=").unwrap();
        let secret = rest.split('&').next().unwrap();
        let recovery = enrolled.recovery_codes.iter().map(|code| code.to_string()).collect();
        Self { secret: BASE32_NOPAD.decode(secret.as_bytes()).unwrap(), recovery }
    }

    /// The code that is shown so many steps from now.
    fn code(&self, bench: &Bench, steps: i64) -> String {
        let now = bench.now.load(std::sync::atomic::Ordering::Relaxed) / 1_000_000 / STEP;
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret);
        let step = now.checked_add_signed(steps).unwrap();
        let mac = hmac::sign(&key, &step.to_be_bytes());
        let mac = mac.as_ref();
        let at = usize::from(mac[19] & 15);
        let number = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }

    /// One that is never right: no code of the last minute or the next.
    fn wrong(&self, bench: &Bench) -> String {
        let right: Vec<String> = (-2..=2).map(|steps| self.code(bench, steps)).collect();
        (0..).map(|number| format!("{number:06}")).find(|code| !right.contains(code)).unwrap()
    }
}

async fn enrol(bench: &Bench, vault: &Tested, who: &Caller) -> App {
    let app = App::new(&vault.enrol_second_factor(who).await.unwrap());
    let code = app.code(bench, 0);
    vault.confirm_second_factor(who, &ConfirmSecondFactor { code }).await.unwrap();
    bench.pass(STEP);
    app
}

async fn step_up(vault: &Tested, who: &Caller, code: &str, request: &str) -> Result<SteppedUp, Error> {
    vault.step_up(who, &StepUp { code: code.to_owned(), request: request.to_owned() }).await
}

/// The same caller, who shows this.
fn showing(who: &Caller, assertion: &str) -> Caller {
    let shown = Assertion::parse(assertion.as_bytes()).unwrap();
    Caller { second_factor: Some(Arc::new(shown)), ..who.clone() }
}

/// Puts the policies in force that want second factors, by an officer who shows its own.
async fn want_second_factors(bench: &Bench, vault: &Tested, app: &App) {
    let alice = person(Role::Officer);
    let shown = step_up(vault, &alice, &app.code(bench, 0), "").await.unwrap().assertion;
    let alice = showing(&alice, &shown);
    put_in_force(vault, &alice, format!("{DEFAULT_POLICIES}\n{MORE}")).await;
    bench.pass(STEP);
}

fn unfreeze() -> Unfreeze {
    Unfreeze { field: String::new(), reads: true, writes: true, all_tenants: false }
}

#[tokio::test]
async fn a_code_is_taken_once_and_not_again_when_the_clock_is_set_back() {
    let (bench, vault) = Bench::new().await;
    let alice = person(Role::Officer);
    let app = enrol(&bench, &vault, &alice).await;
    let code = app.code(&bench, 0);
    let stepped_up = step_up(&vault, &alice, &code, "").await.unwrap();
    assert_eq!(stepped_up.recovery_codes, 10);
    for _ in 0..2 {
        assert!(matches!(step_up(&vault, &alice, &code, "").await, Err(Error::SecondFactorWrong)));
    }
    bench.now.fetch_sub(STEP * 1_000_000, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(step_up(&vault, &alice, &app.code(&bench, 0), "").await, Err(Error::SecondFactorWrong)));
    bench.pass(3 * STEP);
    step_up(&vault, &alice, &app.code(&bench, -1), "").await.unwrap();
    step_up(&vault, &alice, &app.code(&bench, 1), "").await.unwrap();
    // One of five minutes ago and one of in an hour are no codes.
    bench.pass(300);
    for steps in [-10, 120] {
        assert!(matches!(step_up(&vault, &alice, &app.code(&bench, steps), "").await, Err(Error::SecondFactorWrong)));
    }
    // Spaces as apps show them.
    let code = app.code(&bench, 0);
    step_up(&vault, &alice, &format!(" {} {} ", &code[..3], &code[3..]), "").await.unwrap();
    let leaves = leaves(&vault).await;
    let wrong = leaves.iter().filter(|leaf| leaf["reason"] == "SECOND_FACTOR_WRONG");
    assert!(wrong.clone().all(|leaf| leaf["decision"] == "deny" && leaf["action"] == "step_up"));
    assert_eq!(wrong.count(), 5);
    let all = serde_json::to_string(&leaves).unwrap();
    assert!(!all.contains(&code) && !all.contains(&app.recovery[0]));
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_requests_with_one_code_one_gets_through() {
    let (bench, vault) = Bench::new().await;
    let alice = person(Role::Officer);
    let app = enrol(&bench, &vault, &alice).await;
    for shown in [app.code(&bench, 0), app.recovery[3].clone()] {
        // Fewer than lock it.
        let tries = (0..4).map(|_| {
            let (vault, alice, code) = (Arc::clone(&vault), alice.clone(), shown.clone());
            tokio::spawn(async move { step_up(&vault, &alice, &code, "").await })
        });
        let mut right = 0;
        for one in tries.collect::<Vec<_>>() {
            match one.await.unwrap() {
                Ok(_) => right += 1,
                Err(error) => assert!(matches!(error, Error::SecondFactorWrong | Error::Conflict), "{error}"),
            }
        }
        assert_eq!(right, 1);
        // The next right code forgives the wrong ones.
        bench.pass(STEP);
        step_up(&vault, &alice, &app.code(&bench, 0), "").await.unwrap();
        bench.pass(STEP);
    }
}

#[tokio::test]
async fn guesses_lock_it_and_a_restart_does_not_open_it() {
    let (bench, vault) = Bench::new().await;
    let alice = person(Role::Officer);
    let app = enrol(&bench, &vault, &alice).await;
    for _ in 0..5 {
        let wrong = app.wrong(&bench);
        assert!(matches!(step_up(&vault, &alice, &wrong, "").await, Err(Error::SecondFactorWrong)));
    }
    let locked = |told| match told {
        Err(Error::SecondFactorLocked { retry_after }) => retry_after.as_secs(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it is open"),
    };
    assert!(locked(step_up(&vault, &alice, &app.code(&bench, 0), "").await.map(drop)) > 14 * 60, "right ones, too");
    assert!(locked(step_up(&vault, &alice, &app.recovery[0], "").await.map(drop)) > 0);
    let listed = vault.list_second_factors(&bob()).await.unwrap();
    assert!(listed[0].locked.is_some() && listed[0].confirmed && listed[0].principal == "officer/alice");
    // Without a last word, as after kill -9.
    drop(vault);
    let vault = bench.open().await;
    assert!(locked(step_up(&vault, &alice, &app.code(&bench, 0), "").await.map(drop)) > 0);
    bench.pass(15 * 60);
    let wrong = app.wrong(&bench);
    assert!(matches!(step_up(&vault, &alice, &wrong, "").await, Err(Error::SecondFactorWrong)));
    bench.pass(15 * 60);
    assert!(locked(step_up(&vault, &alice, &app.code(&bench, 0), "").await.map(drop)) > 0, "for twice as long");
    bench.pass(15 * 60);
    step_up(&vault, &alice, &app.code(&bench, 0), "").await.unwrap();
}

#[tokio::test]
async fn services_have_none_and_nobody_enrols_anew_without_the_old_one() {
    let (bench, vault) = Bench::new().await;
    for role in [Role::App, Role::Rotator, Role::Auditor] {
        assert!(matches!(vault.enrol_second_factor(&person(role)).await, Err(Error::Denied { .. })));
        assert!(matches!(step_up(&vault, &person(role), "123456", "").await, Err(Error::Denied { .. })));
    }
    let alice = person(Role::Officer);
    assert!(matches!(step_up(&vault, &alice, "123456", "").await, Err(Error::SecondFactorRefused(_))));
    let confirm = |code: String| ConfirmSecondFactor { code };
    assert!(matches!(
        vault.confirm_second_factor(&alice, &confirm("123456".to_owned())).await,
        Err(Error::SecondFactorRefused(_))
    ));
    // One that was never confirmed is replaced, and its code is wrong.
    let lost = App::new(&vault.enrol_second_factor(&alice).await.unwrap());
    assert!(matches!(step_up(&vault, &alice, &lost.code(&bench, 0), "").await, Err(Error::SecondFactorRefused(_))));
    let app = App::new(&vault.enrol_second_factor(&alice).await.unwrap());
    let told = vault.confirm_second_factor(&alice, &confirm(lost.code(&bench, 0))).await;
    assert!(matches!(told, Err(Error::SecondFactorWrong)));
    vault.confirm_second_factor(&alice, &confirm(app.code(&bench, 0))).await.unwrap();
    let wanted = |told: Result<Enrolled, Error>| match told {
        Err(Error::SecondFactorRequired { request: Some(request) }) => request,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was enrolled"),
    };
    let request = wanted(vault.enrol_second_factor(&alice).await);
    let shown = step_up(&vault, &alice, &app.recovery[9].to_lowercase(), "").await.unwrap();
    assert_eq!(shown.recovery_codes, 9);
    // One that was shown for whatever there was to do is not enough to be replaced.
    assert_eq!(wanted(vault.enrol_second_factor(&showing(&alice, &shown.assertion)).await), request);
    let shown = step_up(&vault, &alice, &app.recovery[8], &request).await.unwrap();
    let with = showing(&alice, &shown.assertion);
    let next = App::new(&vault.enrol_second_factor(&with).await.unwrap());
    // The old one goes on until the new one is confirmed, and ends then with all that it gave.
    step_up(&vault, &alice, &app.code(&bench, 1), "").await.unwrap();
    vault.confirm_second_factor(&alice, &confirm(next.code(&bench, 0))).await.unwrap();
    assert!(matches!(vault.enrol_second_factor(&with).await, Err(Error::SecondFactorNotAccepted)));
    assert!(matches!(step_up(&vault, &alice, &app.recovery[0], "").await, Err(Error::SecondFactorWrong)));
    for bad in ["", &"1".repeat(65)] {
        assert!(matches!(step_up(&vault, &alice, bad, "").await, Err(Error::Invalid(_))));
    }
    for bad in ["ab", &"zz".repeat(32), &"AB".repeat(32)] {
        assert!(matches!(step_up(&vault, &alice, &next.code(&bench, 1), bad).await, Err(Error::Invalid(_))));
    }
}

#[tokio::test]
async fn an_assertion_is_its_holders_for_five_minutes_and_no_other_is_taken_for_none() {
    let (bench, vault) = Bench::new().await;
    let (alice, bob) = (person(Role::Officer), bob());
    let app = enrol(&bench, &vault, &alice).await;
    enrol(&bench, &vault, &bob).await;
    want_second_factors(&bench, &vault, &app).await;
    assert!(matches!(vault.unfreeze(&alice, &unfreeze()).await, Err(Error::SecondFactorRequired { request: None })));
    let text = step_up(&vault, &alice, &app.code(&bench, 0), "").await.unwrap().assertion;
    let with = showing(&alice, &text);
    vault.unfreeze(&with, &unfreeze()).await.unwrap();
    vault.unfreeze(&with, &unfreeze()).await.unwrap();
    let whole = Assertion::parse(text.as_bytes()).unwrap();
    let other = |change: &dyn Fn(&mut Assertion)| {
        let mut other = whole.clone();
        change(&mut other);
        Caller { second_factor: Some(Arc::new(other)), ..alice.clone() }
    };
    for wrong in [
        other(&|one| one.mac[31] ^= 1),
        other(&|one| one.expires += 1),
        other(&|one| one.enrolment[0] ^= 1),
        other(&|one| one.request = Some([0; 32])),
        showing(&bob, &text),
        showing(&person(Role::Privacy), &text),
        showing(&Caller { certificate: None, ..alice.clone() }, &text),
    ] {
        assert!(matches!(vault.unfreeze(&wrong, &unfreeze()).await, Err(Error::SecondFactorNotAccepted)));
        // Also where none is needed.
        assert!(matches!(vault.get_policy(&wrong, 0).await, Err(Error::SecondFactorNotAccepted)));
    }
    let other_key = showing(&Caller { certificate: Some([9; 32]), ..alice.clone() }, &text);
    assert!(
        matches!(vault.get_policy(&other_key, 0).await, Err(Error::OfficerRemoved)),
        "an officer by that key alone"
    );
    let leaves = leaves(&vault).await;
    let of = |reason: &str| leaves.iter().filter(|leaf| leaf["reason"] == reason && leaf["decision"] == "deny").count();
    assert!(of("SECOND_FACTOR_NOT_ACCEPTED") > 0 && of("SECOND_FACTOR_REQUIRED") > 0);
    // The clock set back gives it no longer life, and five minutes are five minutes.
    bench.now.fetch_sub(3_600_000_000, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(vault.get_policy(&with, 0).await, Err(Error::SecondFactorNotAccepted)));
    bench.pass(3_600);
    vault.get_policy(&with, 0).await.unwrap();
    bench.pass(300);
    assert!(matches!(vault.get_policy(&with, 0).await, Err(Error::SecondFactorNotAccepted)));
}

#[tokio::test]
async fn one_for_a_request_is_for_that_alone() {
    let (bench, vault) = Bench::new().await;
    let alice = person(Role::Officer);
    let app = enrol(&bench, &vault, &alice).await;
    want_second_factors(&bench, &vault, &app).await;
    let policy = |more: &str| ApplyPolicy {
        source: format!("{DEFAULT_POLICIES}\n{MORE}\n{more}"),
        tests: String::new(),
        dry_run: false,
    };
    let (one, other) = (policy("// one"), policy("// other"));
    let wanted = |told: Result<crate::Applied, Error>| match told {
        Err(Error::SecondFactorRequired { request: Some(request) }) => request,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was applied"),
    };
    let request = wanted(vault.apply_policy(&alice, &one).await);
    assert_eq!(wanted(vault.apply_policy(&alice, &one).await), request);
    assert_ne!(wanted(vault.apply_policy(&alice, &other).await), request);
    // A fresh one does not do, nor one for something else.
    let fresh = showing(&alice, &step_up(&vault, &alice, &app.recovery[0], "").await.unwrap().assertion);
    assert_eq!(wanted(vault.apply_policy(&fresh, &one).await), request);
    let bound = showing(&alice, &step_up(&vault, &alice, &app.recovery[1], &request).await.unwrap().assertion);
    wanted(vault.apply_policy(&bound, &other).await);
    assert!(matches!(vault.unfreeze(&bound, &unfreeze()).await, Err(Error::SecondFactorRequired { request: None })));
    // One for what only is checked is not for what is done.
    let dry = |dry_run| ApplyPolicy { dry_run, ..policy("// one") };
    let checked = wanted(vault.apply_policy(&alice, &dry(true)).await);
    assert_ne!(checked, request);
    // With it the request goes on to the approval that the policies want besides, which takes a second factor as well, and
    // then through.
    let bob = bob();
    let told = with_approval_by(&vault, &bob, async || vault.apply_policy(&bound, &one).await).await;
    assert!(matches!(told, Err(Error::SecondFactorRequired { request: None })), "{:?}", told.err());
    let bobs = enrol(&bench, &vault, &bob).await;
    let bob = showing(&bob, &step_up(&vault, &bob, &bobs.recovery[0], "").await.unwrap().assertion);
    with_approval_by(&vault, &bob, async || vault.apply_policy(&bound, &one).await).await.unwrap();
    // Under the next policies it is another request.
    wanted(vault.apply_policy(&bound, &one).await);
}

#[tokio::test]
async fn an_export_goes_on_after_the_five_minutes_of_the_factor_that_it_began_with_and_ends_with_that() {
    let (bench, vault) = Bench::new().await;
    let (alice, bob) = (person(Role::Officer), bob());
    let app = enrol(&bench, &vault, &bob).await;
    let with_factor = r#"@id("officer-ledger") @why("With a second factor.")
        permit (principal in Role::"officer", action == Action::"export_ledger", resource)
        when { context.second_factor == SecondFactor::"fresh" };"#;
    put_in_force(&vault, &alice, format!("{DEFAULT_POLICIES}\n{with_factor}")).await;
    let asked = crate::Export::default();
    assert!(matches!(vault.export(&bob, &asked).await.map(drop), Err(Error::SecondFactorRequired { request: None })));
    let with = showing(&bob, &step_up(&vault, &bob, &app.code(&bench, 0), "").await.unwrap().assertion);
    let mut pages = vault.export(&with, &asked).await.unwrap();
    assert!(pages.next().await.unwrap().is_some());
    bench.pass(3_600);
    assert!(matches!(vault.export(&with, &asked).await.map(drop), Err(Error::SecondFactorNotAccepted)));
    assert!(matches!(vault.may_follow(&with).await, Err(Error::SecondFactorNotAccepted)));
    vault.may_go_on(&with, &pages).await.unwrap();
    // It is not the export that lets in, but who shows the factor.
    assert!(matches!(vault.may_go_on(&bob, &pages).await, Err(Error::Denied { .. })));
    put_in_force(&vault, &alice, DEFAULT_POLICIES).await;
    assert!(matches!(vault.may_go_on(&with, &pages).await, Err(Error::Denied { .. })));
    put_in_force(&vault, &alice, format!("{DEFAULT_POLICIES}\n{with_factor}")).await;
    vault.may_go_on(&with, &pages).await.unwrap();
    let reset = ResetSecondFactor { principal: format!("officer/{SECOND}") };
    vault.reset_second_factor(&alice, &reset).await.unwrap();
    assert!(matches!(vault.may_go_on(&with, &pages).await, Err(Error::SecondFactorNotAccepted)));
}

#[tokio::test]
async fn a_reset_or_a_suspension_ends_assertions_at_once() {
    let (bench, vault) = Bench::new().await;
    let (alice, bob) = (person(Role::Officer), bob());
    let app = enrol(&bench, &vault, &bob).await;
    let with = showing(&bob, &step_up(&vault, &bob, &app.code(&bench, 0), "").await.unwrap().assertion);
    vault.get_policy(&with, 0).await.unwrap();
    let reset = |name: &str| ResetSecondFactor { principal: name.to_owned() };
    assert!(matches!(vault.reset_second_factor(&bob, &reset("officer/bob")).await, Err(Error::SecondFactorRefused(_))));
    assert!(matches!(
        vault.reset_second_factor(&alice, &reset("officer/eve")).await,
        Err(Error::SecondFactorRefused(_))
    ));
    assert!(matches!(vault.reset_second_factor(&alice, &reset("bob")).await, Err(Error::Invalid(_))));
    let desk = person(Role::Privacy);
    assert!(matches!(vault.reset_second_factor(&desk, &reset("officer/bob")).await, Err(Error::Denied { .. })));
    vault.reset_second_factor(&alice, &reset("officer/bob")).await.unwrap();
    assert!(matches!(vault.get_policy(&with, 0).await, Err(Error::SecondFactorNotAccepted)));
    assert!(matches!(step_up(&vault, &bob, &app.recovery[0], "").await, Err(Error::SecondFactorRefused(_))));
    assert!(vault.list_second_factors(&alice).await.unwrap().is_empty());
    let app = enrol(&bench, &vault, &bob).await;
    let with = showing(&bob, &step_up(&vault, &bob, &app.code(&bench, 0), "").await.unwrap().assertion);
    let stolen = Suspend { principal: "officer/bob".to_owned(), reason: "its phone was stolen".to_owned() };
    vault.suspend(&alice, &stolen).await.unwrap();
    assert!(matches!(vault.get_policy(&with, 0).await, Err(Error::Suspended)));
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn the_privacy_desk_reads_with_one_and_is_told_so() {
    let (bench, vault) = Bench::new().await;
    let (alice, desk) = (person(Role::Officer), person(Role::Privacy));
    let app = enrol(&bench, &vault, &alice).await;
    want_second_factors(&bench, &vault, &app).await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let masked = async |who: &Caller| vault.detokenize(who, &read(&token, "masked")).await.unwrap().remove(0);
    assert!(matches!(masked(&desk).await, Err(Error::SecondFactorRequired { request: None })));
    let app = enrol(&bench, &vault, &desk).await;
    let with = showing(&desk, &step_up(&vault, &desk, &app.code(&bench, 0), "").await.unwrap().assertion);
    assert!(masked(&with).await.is_ok());
    // Services go on as before.
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn what_is_put_back_is_named() {
    let (bench, vault) = Bench::new().await;
    let alice = person(Role::Officer);
    let app = enrol(&bench, &vault, &alice).await;
    let at = place::second_factor(TenantNo(1), "officer/alice");
    let before = bench.disk.get(Family::Meta, at.clone()).await.unwrap().unwrap().to_vec();
    step_up(&vault, &alice, &app.recovery[0], "").await.unwrap();
    let after = bench.disk.get(Family::Meta, at.clone()).await.unwrap().unwrap().to_vec();
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
    let found = async |change: Mutation| {
        bench.disk.write(vec![change]).await.unwrap();
        let found = findings(&bench, &[]).await;
        found.iter().map(|one| (one.kind, one.fault)).collect::<Vec<_>>()
    };
    assert_eq!(found(Mutation::Put(Family::Meta, at.clone(), before)).await, [(Kind::SecondFactor, Fault::Changed)]);
    assert_eq!(found(Mutation::Delete(Family::Meta, at.clone())).await, [(Kind::SecondFactor, Fault::Missing)]);
    // Moved to another principal it is not that one's.
    let bobs = place::second_factor(TenantNo(1), "officer/bob");
    assert!(
        found(Mutation::Put(Family::Meta, bobs, after.clone())).await.contains(&(Kind::SecondFactor, Fault::Added))
    );
    bench.disk.write(vec![Mutation::Put(Family::Meta, at, after)]).await.unwrap();
    let vault = bench.open().await;
    assert!(matches!(step_up(&vault, &bob(), &app.recovery[1], "").await, Err(Error::DataLoss(_))));
}

#[tokio::test]
async fn who_would_lose_the_rules_applies_no_policy_that_wants_a_factor() {
    let (_bench, vault) = Bench::new().await;
    let policy = ApplyPolicy { source: format!("{DEFAULT_POLICIES}\n{MORE}"), tests: String::new(), dry_run: false };
    let told = vault.apply_policy(&person(Role::Officer), &policy).await;
    assert!(matches!(told, Err(Error::SourceRefused(why)) if why.contains("second-factor step-up")));
    let freeze = Freeze { field: String::new(), reads: true, writes: false, all_tenants: false };
    vault.freeze(&person(Role::Officer), &freeze).await.unwrap();
}

#[tokio::test]
async fn who_could_not_step_up_any_more_applies_no_policy_that_wants_a_factor() {
    let (bench, vault) = Bench::new().await;
    let alice = person(Role::Officer);
    let app = enrol(&bench, &vault, &alice).await;
    let shown = step_up(&vault, &alice, &app.code(&bench, 0), "").await.unwrap().assertion;
    let no_step_up = "@id(\"no\") @why(\"no\") forbid (principal, action == Action::\"step_up\", resource);";
    let source = format!("{DEFAULT_POLICIES}\n{MORE}\n{no_step_up}");
    let policy = ApplyPolicy { source, tests: String::new(), dry_run: true };
    let told = vault.apply_policy(&showing(&alice, &shown), &policy).await;
    assert!(matches!(&told, Err(Error::SourceRefused(_))), "{:?}", told.err());
    // The same, if it is the others who could not: nobody could approve.
    let only = "@id(\"no\") @why(\"no\") forbid (principal, action == Action::\"enrol_second_factor\", resource);";
    let source = format!("{DEFAULT_POLICIES}\n{MORE}\n{only}");
    let policy = ApplyPolicy { source, tests: String::new(), dry_run: true };
    let told = vault.apply_policy(&showing(&alice, &shown), &policy).await;
    assert!(matches!(&told, Err(Error::SourceRefused(why)) if why.contains("approval")), "{:?}", told.err());
}

#[tokio::test]
async fn what_stops_is_bound_to_nothing() {
    let (bench, vault) = Bench::new().await;
    let alice = person(Role::Officer);
    let app = enrol(&bench, &vault, &alice).await;
    let alice = showing(&alice, &step_up(&vault, &alice, &app.code(&bench, 0), "").await.unwrap().assertion);
    let bound = "@id(\"b\") @why(\"b\") forbid (principal, action == Action::\"freeze\", resource) \
                 unless { context.second_factor == SecondFactor::\"bound\" };";
    put_in_force(&vault, &alice, format!("{DEFAULT_POLICIES}\n{bound}")).await;
    // Nothing tells one freeze from another: a factor for one of them would be one for all.
    let freeze = Freeze { field: String::new(), reads: true, writes: false, all_tenants: false };
    assert!(matches!(vault.freeze(&alice, &freeze).await, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn one_for_an_erasure_is_for_that_subject_alone() {
    let (bench, vault) = Bench::new().await;
    let (alice, desk) = (person(Role::Officer), person(Role::Privacy));
    let app = enrol(&bench, &vault, &desk).await;
    let bound = "@id(\"b\") @why(\"b\") forbid (principal, action in [Action::\"erase_subject\", Action::\"lift_hold\"], \
                 resource) unless { context.second_factor == SecondFactor::\"bound\" && context.approvals >= 1 };";
    put_in_force(&vault, &alice, format!("{DEFAULT_POLICIES}\n{bound}")).await;
    for subject in ["c-1", "c-2"] {
        store_one(&vault, "borrower.id_card", ID_CARD, subject).await;
    }
    let erase =
        |subject: &str, grace| EraseSubject { subject: subject.to_owned(), grace, idempotency_key: String::new() };
    let (one, other, later) = (erase("c-1", 0), erase("c-2", 0), erase("c-1", 1_000_000));
    let request = match vault.erase_subject(&desk, &one).await {
        Err(Error::SecondFactorRequired { request: Some(request) }) => request,
        told => panic!("{told:?}"),
    };
    let shown = showing(&desk, &step_up(&vault, &desk, &app.recovery[0], &request).await.unwrap().assertion);
    for another in [&other, &later] {
        let told = vault.erase_subject(&shown, another).await;
        assert!(matches!(told, Err(Error::SecondFactorRequired { request: Some(_) })), "{told:?}");
    }
    // What others are asked is for whom has shown it.
    let ask = async || vault.erase_subject(&shown, &one).await;
    assert_eq!(with_approval(&vault, TenantNo(1), ask).await.unwrap().state, "erased");
    assert!(leaves(&vault).await.iter().all(|leaf| !leaf.to_string().contains("c-1")));
}
