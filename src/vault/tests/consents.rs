//! Consents of data subjects: what is read while they stand, what a withdrawal turns back, and what proves them.

use strongroom_commit::CommitError;
use strongroom_storage::rows::{SubjectRecord, SubjectState};
use strongroom_storage::{Family, Mutation, Store};

use super::*;
use crate::road::{Attempt, Prepared};
use crate::{
    ConsentScope, Explain, GrantConsent, Kind, ListConsents, ListedConsent, Rate, SetTier, SetTierLimits, TierLimits,
    WithdrawConsent,
};

const MARKETING: &str = "marketing";
const MOBILE: &str = "13800138000";
const USCC: &str = "91350100M000100Y43";

pub(super) fn all() -> ConsentScope {
    ConsentScope::All
}

pub(super) fn field(name: &str) -> ConsentScope {
    ConsentScope::Field(name.to_owned())
}

fn class(name: &str) -> ConsentScope {
    ConsentScope::Class(name.to_owned())
}

fn granting(subject: &str, scope: ConsentScope) -> GrantConsent {
    GrantConsent {
        subject: subject.to_owned(),
        purpose: MARKETING.to_owned(),
        scope,
        text: vec![0xab; 32],
        version: "en-3".to_owned(),
        channel: "web".to_owned(),
        given: None,
        expires: None,
    }
}

fn withdrawing(subject: &str, scope: ConsentScope) -> WithdrawConsent {
    WithdrawConsent { subject: subject.to_owned(), purpose: MARKETING.to_owned(), scope }
}

pub(super) async fn give(vault: &Tested, subject: &str, scope: ConsentScope) -> Result<bool, Error> {
    vault.grant_consent(&caller(Role::App), &granting(subject, scope)).await
}

pub(super) async fn take(vault: &Tested, subject: &str, scope: ConsentScope) -> Result<bool, Error> {
    vault.withdraw_consent(&caller(Role::App), &withdrawing(subject, scope)).await
}

pub(super) async fn listed(vault: &Tested, subject: &str) -> Result<Vec<ListedConsent>, Error> {
    let request = ListConsents { subject: subject.to_owned(), purpose: String::new(), scope: all() };
    vault.list_consents(&caller(Role::Privacy), &request).await
}

/// State and scope of each consent.
async fn states(vault: &Tested, subject: &str) -> Vec<(&'static str, String)> {
    let scope = |one: &ListedConsent| one.field.clone().or(one.class.map(str::to_owned)).unwrap_or_default();
    listed(vault, subject).await.unwrap().iter().map(|one| (one.state, scope(one))).collect()
}

fn reading(token: &str, view: &str, subject: &str) -> Detokenize {
    let items = vec![ReadItem { token: token.to_owned(), view: String::new(), subject: subject.to_owned() }];
    Detokenize { items, purpose: MARKETING.to_owned(), view: view.to_owned() }
}

async fn shown(vault: &Tested, token: &str, view: &str, subject: &str) -> Result<(), Error> {
    vault.detokenize(&caller(Role::App), &reading(token, view, subject)).await.unwrap().remove(0).map(drop)
}

/// As services see it that send messages: the masked view.
pub(super) async fn seen(vault: &Tested, token: &str) -> bool {
    match shown(vault, token, "masked", "").await {
        Ok(()) => true,
        Err(Error::ConsentRequired { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

async fn matched(vault: &Tested, token: &str, value: &str, subject: &str) -> Result<bool, Error> {
    let (token, value, subject) = (token.to_owned(), value.to_owned().into(), subject.to_owned());
    let request = Match { items: vec![MatchItem { token, value, subject }], purpose: MARKETING.to_owned() };
    vault.matches(&caller(Role::Privacy), &request).await.unwrap().remove(0)
}

/// The lending schema in which one field is read for marketing besides.
fn with_marketing(source: &str, field: &str) -> String {
    let at = source.find(&format!("[field.{field}]")).unwrap();
    let at = at + source[at..].find("purposes = [").unwrap() + "purposes = [".len();
    format!("{}\"marketing\", {}", &source[..at], &source[at..])
}

async fn apply(vault: &Tested, source: String) {
    vault.apply_schema(&caller(Role::Officer), &ApplySchema { source, dry_run: false }).await.unwrap();
}

#[tokio::test]
async fn a_purpose_that_rests_on_consent_is_read_while_the_subjects_own_stands() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    let (other, nobodys) =
        (store_one(&vault, "borrower.name", "李四", "c-2").await, store_one(&vault, "borrower.name", "王五", "").await);
    assert!(!seen(&vault, &token).await);
    assert!(give(&vault, "c-1", all()).await.unwrap());
    assert!(!give(&vault, "c-1", all()).await.unwrap(), "the same once more is no change");
    assert!(seen(&vault, &token).await && !seen(&vault, &other).await && !seen(&vault, &nobodys).await);
    // Policy still says which view.
    let plain = shown(&vault, &token, "plain", "").await;
    assert!(matches!(plain, Err(Error::ViewNotAllowed { allowed }) if allowed == ["masked"]));
    // One decision for each subject in a batch.
    let items = [&token, &other, &token, &nobodys];
    let item = |token: &&String| ReadItem { token: (*token).clone(), view: String::new(), subject: String::new() };
    let batch = Detokenize { items: items.iter().map(item).collect(), ..reading("", "masked", "") };
    let answers = vault.detokenize(&caller(Role::App), &batch).await.unwrap();
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
    // Comparing needs consent as well.
    assert!(matched(&vault, &token, "张三", "").await.unwrap());
    assert!(matches!(matched(&vault, &other, "李四", "").await, Err(Error::ConsentRequired { .. })));

    assert!(take(&vault, "c-1", all()).await.unwrap());
    assert!(!take(&vault, "c-1", all()).await.unwrap() && !take(&vault, "c-2", all()).await.unwrap());
    assert!(!seen(&vault, &token).await);
    assert!(matches!(matched(&vault, &token, "张三", "").await, Err(Error::ConsentRequired { .. })));
    // What does not rest on consent is read as ever.
    assert!(read_one(&vault, &token, "masked").await.is_ok());

    let ends = bench.now.load(Ordering::Relaxed) + 60_000_000;
    let soon = GrantConsent { expires: Some(ends), ..granting("c-1", all()) };
    assert!(vault.grant_consent(&caller(Role::App), &soon).await.unwrap());
    assert!(seen(&vault, &token).await);
    bench.pass(60);
    assert!(!seen(&vault, &token).await);
    assert_eq!(states(&vault, "c-1").await, [("expired", String::new())]);
    drop(vault);
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn looking_at_consent_costs_no_read_of_the_store() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    give(&vault, "c-1", all()).await.unwrap();
    let cost = async |purpose: &str| {
        let request = Detokenize { purpose: purpose.to_owned(), ..reading(&token, "masked", "") };
        let before = bench.faults.asked();
        assert!(vault.detokenize(&caller(Role::App), &request).await.unwrap()[0].is_ok());
        bench.faults.asked() - before
    };
    assert_eq!(cost(MARKETING).await, cost("kyc_review").await);
}

#[tokio::test]
async fn a_consent_may_come_before_the_first_value_and_outlives_a_restart() {
    let (bench, vault) = Bench::new().await;
    assert!(give(&vault, "c-1", field("borrower.mobile")).await.unwrap());
    let token = store_one(&vault, "borrower.mobile", MOBILE, "c-1").await;
    let name = store_one(&vault, "borrower.name", "张三", "c-1").await;
    assert!(seen(&vault, &token).await && !seen(&vault, &name).await);
    assert!(give(&vault, "c-1", class("c2")).await.unwrap());
    assert!(take(&vault, "c-1", field("borrower.name")).await.unwrap());
    let expected = [("standing", "c2"), ("standing", "borrower.mobile"), ("withdrawn", "borrower.name")]
        .map(|(a, b)| (a, b.to_owned()));
    assert_eq!(states(&vault, "c-1").await, expected);
    let evidence = listed(&vault, "c-1").await.unwrap();
    vault.close().await;
    drop(vault);
    let vault = bench.open().await;
    assert_eq!(listed(&vault, "c-1").await.unwrap(), evidence);
    assert!(evidence.iter().all(|one| one.text == [0xab; 32] && one.version == "en-3" && one.channel == "web"));
    assert!(seen(&vault, &token).await && !seen(&vault, &name).await);
    // What else changes the record keeps them: another keyring's DEK stands in it, too.
    store_one(&vault, "borrower.account_opened", "2020-01-02", "c-1").await;
    assert_eq!(states(&vault, "c-1").await, expected);
    let made = leaves(&vault).await;
    let first = made.iter().find(|leaf| leaf["action"] == "grant_consent").unwrap();
    let outcomes: Vec<_> = first["items"].as_array().unwrap().iter().map(|item| &item["outcome"]).collect();
    assert_eq!(outcomes, ["subject_created", "consent_granted"]);
    drop(vault);
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn the_leaf_of_a_change_says_all_that_it_takes_to_repeat_it_and_nothing_personal() {
    let (bench, vault) = Bench::new().await;
    let ends = bench.now.load(Ordering::Relaxed) + 3_600_000_000;
    let request = GrantConsent { expires: Some(ends), ..granting("customer-4711", field("borrower.mobile")) };
    vault.grant_consent(&caller(Role::App), &request).await.unwrap();
    take(&vault, "customer-4711", field("borrower.mobile")).await.unwrap();
    give(&vault, "customer-4711", all()).await.unwrap();
    take(&vault, "customer-4711", field("borrower.name")).await.unwrap();
    let all = leaves(&vault).await;
    let told: Vec<_> = all.iter().filter(|leaf| leaf["action"].as_str().unwrap().ends_with("_consent")).collect();
    let (granted, withdrawn, last) = (&told[0], &told[1], &told[3]);
    let said = |leaf: &serde_json::Value, name: &str| leaf["detail"][name].as_str().unwrap_or_default().to_owned();
    for leaf in [granted, withdrawn] {
        assert_eq!((said(leaf, "purpose").as_str(), said(leaf, "scope").as_str()), (MARKETING, "field 3"));
        assert_eq!(said(leaf, "field"), "borrower.mobile");
    }
    // A text that names the person could be guessed by its hash.
    assert!(!granted.to_string().contains(&"ab".repeat(32)));
    assert_eq!((said(granted, "text_version"), said(granted, "channel")), ("en-3".to_owned(), "web".to_owned()));
    assert_eq!(said(granted, "expires"), strongroom_ledger::Timestamp(ends).to_string());
    assert_eq!(said(withdrawn, "withdrawn"), "fields 3");
    assert_eq!((said(last, "scope"), said(last, "withdrawn")), ("field 1".to_owned(), "fields 1".to_owned()));
    let item = |leaf: &serde_json::Value| leaf["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(item(granted)["outcome"], "consent_granted");
    assert_eq!(item(withdrawn)["outcome"], "consent_withdrawn");
    // A salt of its own for each, else the same consent twice would have one hash.
    assert_ne!(item(granted)["sha256"], item(withdrawn)["sha256"]);
    assert_eq!(item(granted)["subject"], item(last)["subject"]);
    assert!(!serde_json::to_string(&all).unwrap().contains("customer-4711"));
}

/// A request that has been decided and not committed yet.
async fn decided<'a, A: Attempt<TestedStore>>(
    vault: &'a Tested,
    tenant: &'a crate::tenant::Tenant,
    who: &'a Caller,
    request: &'a A,
) -> (crate::road::Road<'a, TestedStore>, Prepared<A::Answer>) {
    let road = vault.road(tenant, who, request, [1; 16]).await.unwrap();
    let Ok(prepared) = request.attempt(&road).await else { panic!("it was refused as a whole") };
    (road, prepared)
}

type TestedStore = FaultyStore<MemoryStore>;

#[tokio::test]
async fn what_was_decided_before_a_change_of_consent_and_comes_after_it_is_turned_back() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    let (tenant, app) = (vault.tenant(TenantNo(1)).unwrap(), caller(Role::App));
    let request = reading(&token, "masked", "");
    let late = async |grants: bool| {
        let (road, prepared) = decided(&vault, &tenant, &app, &request).await;
        let allowed = prepared.answer[0].is_ok();
        assert!(if grants { give(&vault, "c-1", all()).await } else { take(&vault, "c-1", all()).await }.unwrap());
        (allowed, road.commit_at(road.position, prepared).await.map(drop))
    };
    // Refused for want of consent, which has come meanwhile.
    let (allowed, committed) = late(true).await;
    assert!(!allowed && matches!(committed, Err(CommitError::Conflict(_))), "{committed:?}");
    // Allowed, and withdrawn meanwhile.
    let (allowed, committed) = late(false).await;
    assert!(allowed && matches!(committed, Err(CommitError::Conflict(_))), "{committed:?}");
    assert!(!seen(&vault, &token).await);

    // Nobody else is turned back: neither who reads for what needs no consent, nor who reads of others.
    give(&vault, "c-1", all()).await.unwrap();
    give(&vault, "c-2", all()).await.unwrap();
    let kyc = Detokenize { purpose: "kyc_review".to_owned(), ..reading(&token, "masked", "") };
    let (road, prepared) = decided(&vault, &tenant, &app, &kyc).await;
    let (other, also) = decided(&vault, &tenant, &app, &request).await;
    take(&vault, "c-2", all()).await.unwrap();
    assert!(other.commit_at(other.position, also).await.is_ok());
    take(&vault, "c-1", all()).await.unwrap();
    assert!(road.commit_at(road.position, prepared).await.is_ok());

    // The clock goes on between decision and commit: what counts is the time of the leaf.
    let ends = bench.now.load(Ordering::Relaxed) + 60_000_000;
    let soon = GrantConsent { expires: Some(ends), ..granting("c-1", all()) };
    vault.grant_consent(&app, &soon).await.unwrap();
    let (road, prepared) = decided(&vault, &tenant, &app, &request).await;
    assert!(prepared.answer[0].is_ok());
    bench.pass(61);
    assert!(matches!(road.commit_at(road.position, prepared).await.map(drop), Err(CommitError::Expired)));
}

#[tokio::test]
async fn a_class_that_wants_separate_consent_is_not_read_by_a_consent_to_all() {
    let (_bench, vault) = Bench::new().await;
    let source = with_marketing(LENDING, "borrower.password_hash");
    apply(&vault, source.replace("consent = true", "consent = true\nseparate_consent = [\"c3\"]")).await;
    let secret = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA";
    let token = store_one(&vault, "borrower.password_hash", secret, "c-1").await;
    let name = store_one(&vault, "borrower.name", "张三", "c-1").await;
    give(&vault, "c-1", all()).await.unwrap();
    assert!(seen(&vault, &name).await);
    assert!(matches!(matched(&vault, &token, secret, "").await, Err(Error::ConsentRequired { .. })));
    give(&vault, "c-1", class("c3")).await.unwrap();
    assert!(matched(&vault, &token, secret, "").await.unwrap());
    // Taking that back leaves the rest.
    take(&vault, "c-1", class("c3")).await.unwrap();
    assert!(matches!(matched(&vault, &token, secret, "").await, Err(Error::ConsentRequired { .. })));
    assert!(seen(&vault, &name).await);
}

#[tokio::test]
async fn a_look_up_finds_only_values_of_those_who_consent() {
    let (_bench, vault) = Bench::new().await;
    let mut tokens = Vec::new();
    for subject in ["c-1", "c-2", "c-3", ""] {
        tokens.push(store_one(&vault, "borrower.mobile", MOBILE, subject).await);
    }
    give(&vault, "c-2", all()).await.unwrap();
    let find = async |vault: &Tested| {
        let items = vec![LookupItem { field: "borrower.mobile".to_owned(), value: MOBILE.into() }];
        let request = Lookup { items, purpose: MARKETING.to_owned() };
        vault.lookup(&caller(Role::Privacy), &request).await.unwrap().remove(0).unwrap()
    };
    let found = find(&vault).await;
    assert_eq!((found.tokens, found.more), (vec![tokens[1].clone()], false));
    take(&vault, "c-2", all()).await.unwrap();
    assert!(find(&vault).await.tokens.is_empty());
    let leaf = leaves(&vault).await.into_iter().rev().find(|leaf| leaf["action"] == "lookup").unwrap();
    let outcomes: Vec<_> = leaf["items"].as_array().unwrap().iter().map(|item| item["outcome"].clone()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "CONSENT_REQUIRED").count(), 4, "{outcomes:?}");
}

#[tokio::test]
async fn of_a_value_that_subjects_share_the_one_who_is_meant_must_consent() {
    let (_bench, vault) = Bench::new().await;
    apply(&vault, with_marketing(LENDING, "company.uscc")).await;
    let items = ["c-1", "c-2"].map(|subject| new_value("company.uscc", USCC, subject));
    let token = vault.tokenize(&caller(Role::App), &tokenize(items.into(), "")).await.unwrap().remove(0);
    store_one(&vault, "borrower.name", "张三", "c-3").await;
    give(&vault, "c-1", all()).await.unwrap();
    give(&vault, "c-3", all()).await.unwrap();
    let read = async |subject: &str| shown(&vault, &token, "masked", subject).await;
    assert!(read("c-1").await.is_ok());
    assert!(matches!(read("c-2").await, Err(Error::ConsentRequired { .. })));
    assert!(matches!(read("").await, Err(Error::SubjectRequired)));
    // Who does not hold it, whether it consents or not, is like a token that there is not.
    assert!(matches!(read("c-3").await, Err(Error::NotFound)));
    assert!(matches!(read("c-9").await, Err(Error::NotFound)));
    assert!(matched(&vault, &token, USCC, "c-1").await.unwrap());
    assert!(matches!(matched(&vault, &token, USCC, "c-2").await, Err(Error::ConsentRequired { .. })));
    assert!(matches!(matched(&vault, &token, USCC, "").await, Err(Error::SubjectRequired)));
    assert!(matches!(matched(&vault, &token, USCC, "c-9").await, Err(Error::NotFound)));
    take(&vault, "c-1", all()).await.unwrap();
    assert!(matches!(read("c-1").await, Err(Error::ConsentRequired { .. })));
    // Who may know nothing of it is told nothing.
    let auditor = vault.detokenize(&caller(Role::Auditor), &reading(&token, "masked", "")).await.unwrap().remove(0);
    assert!(matches!(auditor, Err(Error::NotFound)));
}

#[tokio::test]
async fn no_policy_reads_without_consent() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    let from = DEFAULT_POLICIES.find("@id(\"forbid-without-consent\")").unwrap();
    let end = from + DEFAULT_POLICIES[from..].find("};\n").unwrap() + 3;
    put_in_force(&vault, &caller(Role::Officer), format!("{}{}", &DEFAULT_POLICIES[..from], &DEFAULT_POLICIES[end..]))
        .await;
    assert!(!seen(&vault, &token).await);
    let explain = |consent: &str| Explain {
        role: "app".to_owned(),
        action: "detokenize".to_owned(),
        field: "borrower.name".to_owned(),
        view: "masked".to_owned(),
        purpose: MARKETING.to_owned(),
        consent: consent.to_owned(),
        ..Explain::default()
    };
    let told = vault.explain_policy(&caller(Role::Officer), &explain("")).await.unwrap();
    assert!(!told.allowed && told.allowed_with_consent && told.text.contains("consent"), "{}", told.text);
    assert!(vault.explain_policy(&caller(Role::Officer), &explain("standing")).await.unwrap().allowed);
    give(&vault, "c-1", all()).await.unwrap();
    assert!(seen(&vault, &token).await);
}

#[tokio::test]
async fn what_is_no_consent_is_refused_and_not_repeated() {
    let (bench, vault) = Bench::new().await;
    let app = caller(Role::App);
    let good = || granting("c-1", all());
    let past = Some(bench.now.load(Ordering::Relaxed));
    let bad = [
        (GrantConsent { purpose: "张三".to_owned(), ..good() }, "purpose", "purpose_unknown"),
        (GrantConsent { purpose: String::new(), ..good() }, "purpose", "required"),
        (GrantConsent { purpose: "kyc_review".to_owned(), ..good() }, "purpose", "consent_not_needed"),
        (GrantConsent { scope: field("张三"), ..good() }, "field", "field_unknown"),
        (GrantConsent { scope: field("borrower.id_card"), ..good() }, "field", "purpose_not_listed"),
        (GrantConsent { scope: class("张三"), ..good() }, "class", "name_unknown"),
        (GrantConsent { text: vec![1; 31], ..good() }, "text_sha256", "length"),
        (GrantConsent { text: vec![], ..good() }, "text_sha256", "length"),
        (GrantConsent { version: String::new(), ..good() }, "text_version", "name"),
        (GrantConsent { version: "v".repeat(33), ..good() }, "text_version", "name"),
        (GrantConsent { channel: "张三".to_owned(), ..good() }, "channel", "name"),
        (GrantConsent { channel: "a b".to_owned(), ..good() }, "channel", "name"),
        (GrantConsent { expires: past, ..good() }, "expire_time", "expired"),
        (GrantConsent { subject: String::new(), ..good() }, "subject", "length"),
        (GrantConsent { subject: "c".repeat(129), ..good() }, "subject", "length"),
    ];
    for (request, path, rule) in bad {
        match vault.grant_consent(&app, &request).await {
            Err(Error::Invalid(wrong)) => {
                assert_eq!((wrong.len(), wrong[0].path.as_str(), wrong[0].rule), (1, path, rule), "{wrong:?}");
                assert!(!wrong[0].description.contains("张三"));
                let resting = path != "purpose" || wrong[0].description.ends_with("rest on consent are: marketing");
                assert!(resting, "{}", wrong[0].description);
            }
            other => panic!("{path} {rule}: {other:?}"),
        }
    }
    assert!(matches!(listed(&vault, "c-1").await, Err(Error::NotFoundAt(_))), "nobody was made");
    let longest =
        GrantConsent { version: "v".repeat(32), channel: "c".repeat(32), ..granting(&"c".repeat(128), all()) };
    assert!(vault.grant_consent(&app, &longest).await.unwrap());
    // Whether the vault knows the subject makes no difference.
    for subject in ["c-9", &"c".repeat(128)] {
        let bad = [
            ("张三", all(), "purpose"),
            ("kyc_review", all(), "purpose"),
            (MARKETING, field("张三"), "field"),
            (MARKETING, class("c4"), "class"),
        ];
        for (purpose, scope, path) in bad {
            let request = WithdrawConsent { purpose: purpose.to_owned(), ..withdrawing(subject, scope) };
            match vault.withdraw_consent(&app, &request).await {
                Err(Error::Invalid(wrong)) => assert_eq!(wrong[0].path, path),
                other => panic!("{purpose} {path}: {other:?}"),
            }
        }
    }
    assert!(!serde_json::to_string(&leaves(&vault).await).unwrap().contains("张三"));
}

#[tokio::test]
async fn who_may_change_consents_and_see_them_is_said() {
    let (_bench, vault) = Bench::new().await;
    for role in [Role::Auditor, Role::Officer, Role::Rotator] {
        let who = caller(role);
        assert!(matches!(vault.grant_consent(&who, &granting("c-1", all())).await, Err(Error::Denied { .. })));
        assert!(matches!(vault.withdraw_consent(&who, &withdrawing("c-1", all())).await, Err(Error::Denied { .. })));
    }
    for role in [Role::App, Role::Privacy] {
        assert!(vault.grant_consent(&caller(role), &granting("c-1", all())).await.unwrap());
        assert!(vault.withdraw_consent(&caller(role), &withdrawing("c-1", all())).await.unwrap());
    }
    let request = ListConsents { subject: "c-1".to_owned(), purpose: MARKETING.to_owned(), scope: all() };
    for (role, may) in [(Role::Privacy, true), (Role::Auditor, true), (Role::App, false), (Role::Officer, false)] {
        assert_eq!(vault.list_consents(&caller(role), &request).await.is_ok(), may, "{role:?}");
    }
    let other = ListConsents { purpose: "loyalty".to_owned(), ..request };
    assert!(vault.list_consents(&caller(Role::Privacy), &other).await.unwrap().is_empty());
}

#[tokio::test]
async fn when_a_consent_was_given_is_kept_and_what_was_taken_back_since_does_not_come_back_by_it() {
    let (bench, vault) = Bench::new().await;
    let now = || bench.now.load(Ordering::Relaxed);
    let app = caller(Role::App);
    let at = |given: u64| GrantConsent { given: Some(given), ..granting("c-1", all()) };
    let (before, day) = (now() - 1_000_000, 24 * 3_600_000_000);
    match vault.grant_consent(&app, &at(now() + 3_600_000_000)).await {
        Err(Error::Invalid(wrong)) => assert_eq!((wrong[0].path.as_str(), wrong[0].rule), ("given_time", "future")),
        other => panic!("{other:?}"),
    }
    assert!(vault.grant_consent(&app, &at(before)).await.unwrap());
    let one = listed(&vault, "c-1").await.unwrap().remove(0);
    assert!(one.given == Some(before) && one.granted > before);
    bench.now.fetch_add(day, Ordering::Relaxed);
    assert!(take(&vault, "c-1", all()).await.unwrap());
    // The same paper comes in once more: what the subject said since counts.
    match vault.grant_consent(&app, &at(before)).await {
        Err(Error::Invalid(wrong)) => {
            assert_eq!((wrong[0].path.as_str(), wrong[0].rule), ("given_time", "withdrawn_since"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(listed(&vault, "c-1").await.unwrap()[0].state, "withdrawn");
    bench.now.fetch_add(day, Ordering::Relaxed);
    assert!(vault.grant_consent(&app, &at(now() - 1)).await.unwrap());
    assert_eq!(listed(&vault, "c-1").await.unwrap()[0].state, "standing");
}

#[tokio::test]
async fn consents_are_listed_by_what_they_say_of_a_field_or_a_class() {
    let (_bench, vault) = Bench::new().await;
    give(&vault, "c-1", field("borrower.mobile")).await.unwrap();
    give(&vault, "c-1", class("c3")).await.unwrap();
    let about = async |scope| {
        let request = ListConsents { subject: "c-1".to_owned(), purpose: String::new(), scope };
        let listed = vault.list_consents(&caller(Role::Privacy), &request).await.unwrap();
        listed.into_iter().map(|one| one.field.or(one.class.map(str::to_owned)).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(about(field("borrower.mobile")).await, ["borrower.mobile"]);
    assert_eq!(about(class("c2")).await, ["borrower.mobile"]);
    assert_eq!(about(class("c3")).await, ["c3"]);
    assert_eq!(about(class("c1")).await, [""; 0]);
    assert_eq!(about(all()).await.len(), 2);
    let unknown = ListConsents { subject: "c-1".to_owned(), purpose: String::new(), scope: field("borrower.x") };
    assert!(matches!(vault.list_consents(&caller(Role::Privacy), &unknown).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_withdrawal_goes_through_whatever_the_schema_says_now() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    store_one(&vault, "borrower.name", "李四", "c-2").await;
    give(&vault, "c-1", all()).await.unwrap();
    give(&vault, "c-1", field("borrower.mobile")).await.unwrap();
    let gone = LENDING.replace(", \"marketing\"", "").replace("[purpose.marketing]", "[purpose.outreach]");
    apply(&vault, gone).await;
    assert!(matches!(
        vault.detokenize(&caller(Role::App), &reading(&token, "masked", "")).await,
        Err(Error::Invalid(_))
    ));
    assert!(matches!(give(&vault, "c-1", all()).await, Err(Error::Invalid(_))));
    // Only of who gave one.
    assert!(matches!(take(&vault, "c-2", all()).await, Err(Error::Invalid(_))));
    assert!(take(&vault, "c-1", field("borrower.mobile")).await.unwrap());
    assert!(take(&vault, "c-1", all()).await.unwrap());
    let of = listed(&vault, "c-1").await.unwrap();
    assert!(of.iter().all(|one| one.purpose == MARKETING && one.state == "withdrawn") && of.len() == 2);
    // Declared again, it finds them withdrawn.
    apply(&vault, LENDING.to_owned()).await;
    assert!(!seen(&vault, &token).await);
    drop(vault);
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn a_withdrawal_goes_through_on_a_full_disk_and_beyond_an_allowance() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    give(&vault, "c-1", all()).await.unwrap();
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    assert!(matches!(give(&vault, "c-2", all()).await, Err(Error::DiskFull)));
    assert!(take(&vault, "c-1", all()).await.unwrap());
    bench.full.store(false, Ordering::Relaxed);
    vault.look_at_space();
    assert!(!seen(&vault, &token).await);

    give(&vault, "c-1", all()).await.unwrap();
    let officer = caller(Role::Officer);
    let limits = TierLimits { misses: Rate { per_minute: None, per_day: Some(1) }, ..TierLimits::default() };
    vault.set_tier_limits(&officer, &SetTierLimits { tier: "III".to_owned(), limits }).await.unwrap();
    let give_tier = SetTier { principal: "app/tester".to_owned(), tier: "III".to_owned() };
    vault.set_tier(&officer, &give_tier).await.unwrap();
    assert!(matches!(take(&vault, "c-9", all()).await, Err(Error::NotFoundAt(_))));
    assert!(take(&vault, "c-1", all()).await.unwrap());
    // Whom the vault knows is not found out by guessing.
    for subject in ["c-1", "c-9"] {
        assert!(matches!(take(&vault, subject, all()).await, Err(Error::QuotaExceeded { .. })), "{subject}");
        let request = WithdrawConsent { purpose: "kyc_review".to_owned(), ..withdrawing(subject, all()) };
        let told = vault.withdraw_consent(&caller(Role::App), &request).await;
        assert!(matches!(told, Err(Error::QuotaExceeded { .. })), "{subject}");
    }
}

#[tokio::test]
async fn of_a_subject_that_is_erased_but_for_what_is_held_no_consent_is_known_and_none_taken() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    give(&vault, "c-1", all()).await.unwrap();
    let (key, bytes) = super::rolls::all(&bench, Family::Subjects).await.remove(0);
    let record = SubjectRecord { state: SubjectState::Held, ..SubjectRecord::decode(&bytes).unwrap() };
    bench.disk.write(vec![Mutation::Put(Family::Subjects, key.to_vec(), record.encode())]).await.unwrap();
    assert!(matches!(give(&vault, "c-1", class("c2")).await, Err(Error::SubjectHeld)));
    assert!(matches!(take(&vault, "c-1", all()).await, Err(Error::NotFoundAt(_))));
    assert!(matches!(listed(&vault, "c-1").await, Err(Error::NotFoundAt(_))));
    assert!(shown(&vault, &token, "masked", "").await.is_err());
}

#[tokio::test]
async fn what_is_withdrawn_in_a_time_of_grace_stays_so_when_the_erasure_is_undone() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    give(&vault, "c-1", all()).await.unwrap();
    super::erasures::erase_with(&vault, "c-1", 24 * 3_600, "").await.unwrap();
    assert!(matches!(give(&vault, "c-1", class("c2")).await, Err(Error::SubjectLeaving { .. })));
    assert_eq!(listed(&vault, "c-1").await.unwrap()[0].state, "standing");
    assert!(take(&vault, "c-1", all()).await.unwrap());
    assert_eq!(listed(&vault, "c-1").await.unwrap()[0].state, "withdrawn");
    let undo = crate::UndoErasure { subject: "c-1".to_owned() };
    vault.undo_erasure(&caller(Role::Privacy), &undo).await.unwrap();
    assert_eq!(listed(&vault, "c-1").await.unwrap()[0].state, "withdrawn");
    assert!(shown(&vault, &token, "masked", "").await.is_err());
}

#[tokio::test]
async fn a_subject_has_at_most_100_consents() {
    let (_bench, vault) = Bench::new().await;
    let mut source = LENDING.to_owned();
    for number in 0..94 {
        source.push_str(&format!("\n[purpose.more_{number}]\ndescription = \"More\"\nconsent = true\n"));
    }
    apply(&vault, source).await;
    let grant = async |purpose: String, scope| {
        let request = GrantConsent { purpose, ..granting("c-1", scope) };
        vault.grant_consent(&caller(Role::App), &request).await
    };
    for number in 0..94 {
        assert!(grant(format!("more_{number}"), all()).await.unwrap());
    }
    for scope in [all(), class("c1"), class("c2"), class("c3"), field("borrower.name"), field("company.name")] {
        assert!(grant(MARKETING.to_owned(), scope).await.unwrap());
    }
    let full = grant(MARKETING.to_owned(), field("borrower.mobile")).await;
    assert!(matches!(full, Err(Error::Invalid(wrong)) if wrong[0].rule == "too_many"));
    // What is there can be renewed and withdrawn.
    assert!(take(&vault, "c-1", all()).await.unwrap());
    assert!(grant(MARKETING.to_owned(), all()).await.unwrap());
}

#[tokio::test]
async fn a_withdrawn_consent_that_somebody_puts_back_is_found() {
    let (bench, vault) = Bench::new().await;
    give(&vault, "c-1", all()).await.unwrap();
    let record = async || super::rolls::all(&bench, Family::Subjects).await.remove(0);
    let (key, before) = record().await;
    take(&vault, "c-1", all()).await.unwrap();
    let (_, after) = record().await;
    drop(vault);
    let put = |bytes: Vec<u8>| bench.disk.write(vec![Mutation::Put(Family::Subjects, key.to_vec(), bytes)]);
    let mut forged = SubjectRecord::decode(&after).unwrap();
    forged.consents[0].withdrawn = None;
    for bytes in [forged.encode(), before.to_vec()] {
        put(bytes).await.unwrap();
        let found = findings(&bench, &[]).await;
        assert!(found.iter().any(|finding| finding.kind == Kind::Subject), "{found:?}");
    }
    put(after.to_vec()).await.unwrap();
    assert_eq!(findings(&bench, &[]).await, []);
}
