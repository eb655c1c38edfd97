//! People behind services: what policy and the ledger learn of them, how long they hold, whose cases are whose, and that
//! labels are proved.

use strongroom_access::Actor;
use strongroom_storage::rows::SubjectRecord;
use strongroom_storage::{Family, Mutation, Store};

use super::*;
use crate::{ClassLimits, GetLabels, Kind, Rate, SetLabels, SetTier, SetTierLimits, TierLimits};

const MORE: &str = include_str!("../../../deploy/policies/case-load.cedar");
const FIELD: &str = "borrower.id_card";

/// A service that calls for somebody, whose token holds for so many seconds.
fn behind(bench: &Bench, name: &str, labels: &[&str], seconds: u64) -> Caller {
    let ends = bench.now.load(Ordering::Relaxed) + seconds * 1_000_000;
    let labels = labels.iter().map(|label| (*label).to_owned());
    let actor = Actor::new("hr", name, "clerk", labels, ends).unwrap();
    Caller { actor: Some(Arc::new(actor)), ..caller(Role::App) }
}

async fn want_actors(vault: &Tested) {
    let officer = caller(Role::Officer);
    put_in_force(vault, &officer, format!("{DEFAULT_POLICIES}\n{MORE}")).await;
}

async fn label(vault: &Tested, subject: &str, labels: &[&str]) -> Result<bool, Error> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    vault.set_labels(&caller(Role::Privacy), &SetLabels { subject: subject.to_owned(), labels }).await
}

async fn labels(vault: &Tested, subject: &str) -> Result<Vec<String>, Error> {
    vault.get_labels(&caller(Role::Auditor), &GetLabels { subject: subject.to_owned() }).await
}

async fn find_as(vault: &Tested, who: &Caller, value: &str) -> Result<FoundTokens, Error> {
    let items = vec![LookupItem { field: FIELD.to_owned(), value: value.to_owned().into() }];
    let request = Lookup { items, purpose: "kyc_review".to_owned() };
    vault.lookup(who, &request).await.map(|mut answers| answers.remove(0))?
}

async fn match_as(vault: &Tested, who: &Caller, token: &str) -> Result<bool, Error> {
    let items = vec![MatchItem { token: token.to_owned(), value: ID_CARD.into(), subject: String::new() }];
    let request = Match { items, purpose: "kyc_review".to_owned() };
    vault.matches(who, &request).await.map(|mut answers| answers.remove(0))?
}

async fn delete_as(vault: &Tested, who: &Caller, token: &str) -> Result<(), Error> {
    let items = vec![DeleteItem { token: token.to_owned(), subject: String::new() }];
    vault.delete(who, &Delete { items, idempotency_key: String::new() }).await.map(|mut answers| answers.remove(0))?
}

async fn replace_as(vault: &Tested, who: &Caller, token: &str) -> Result<(), Error> {
    let items = vec![NewVersion { token: token.to_owned(), value: ID_CARD.into(), expires: None }];
    vault.replace(who, &Replace { items, idempotency_key: String::new() }).await.map(drop)
}

#[tokio::test]
async fn a_policy_can_demand_somebody_and_the_ledger_names_that_one() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let clerk = behind(&bench, "li.na", &["branch-12"], 600);
    assert_eq!(read_as(&vault, &clerk, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
    want_actors(&vault).await;
    assert!(matches!(read_one(&vault, &token, "masked").await, Err(Error::NotFound)));
    assert!(read_as(&vault, &clerk, &token, "masked").await.is_ok());
    let leaves = leaves(&vault).await;
    let reads: Vec<_> = leaves.iter().filter(|leaf| leaf["action"] == "detokenize").collect();
    let actors: Vec<_> = reads.iter().map(|leaf| leaf.get("actor").and_then(|actor| actor.as_str())).collect();
    assert_eq!(actors, [Some("hr/li.na"), None, Some("hr/li.na")]);
    assert!(reads.iter().all(|leaf| leaf["principal"] == "app/tester"));
}

#[tokio::test]
async fn whoever_is_vouched_for_no_more_reads_nothing_and_that_is_recorded() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let clerk = behind(&bench, "li.na", &[], 60);
    read_as(&vault, &clerk, &token, "plain").await.unwrap();
    bench.pass(60);
    assert!(matches!(read_as(&vault, &clerk, &token, "plain").await, Err(Error::ActorTokenRefused { check: "exp" })));
    // The clock goes on between decision and commit: what counts is the time of the leaf.
    let clerk = behind(&bench, "li.na", &[], 1);
    bench.step.store(1_100_000, Ordering::Relaxed);
    let late = read_as(&vault, &clerk, &token, "plain").await;
    bench.step.store(1, Ordering::Relaxed);
    assert!(matches!(late, Err(Error::ActorTokenRefused { check: "exp" })));
    let leaves = leaves(&vault).await;
    let refused: Vec<_> = leaves.iter().filter(|leaf| leaf["reason"] == "ACTOR_TOKEN_REFUSED").collect();
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|leaf| leaf["decision"] == "deny" && leaf["actor"] == "hr/li.na"));
}

#[tokio::test]
async fn somebody_elses_case_is_as_if_it_were_not_there_for_whatever_is_asked() {
    let (bench, vault) = Bench::new().await;
    want_actors(&vault).await;
    let (own, other, free) = (
        store_one(&vault, FIELD, ID_CARD, "c-own").await,
        store_one(&vault, FIELD, ID_CARD, "c-other").await,
        store_one(&vault, FIELD, ID_CARD, "c-free").await,
    );
    assert!(label(&vault, "c-own", &["branch-12", "gold"]).await.unwrap());
    assert!(label(&vault, "c-other", &["branch-13"]).await.unwrap());
    let clerk = behind(&bench, "li.na", &["branch-12"], 600);
    assert!(read_as(&vault, &clerk, &own, "plain").await.is_ok());
    assert!(matches!(read_as(&vault, &clerk, &other, "masked").await, Err(Error::NotFound)));
    assert!(
        matches!(read_as(&vault, &clerk, &free, "plain").await, Err(Error::ViewNotAllowed { allowed }) if allowed == ["masked"])
    );
    assert!(match_as(&vault, &clerk, &own).await.unwrap());
    assert!(matches!(match_as(&vault, &clerk, &other).await, Err(Error::NotFound)));
    let found = find_as(&vault, &clerk, ID_CARD).await.unwrap();
    assert_eq!((found.tokens, found.more), (vec![own.clone()], false));
    // Batches are decided item by item.
    let items = [&own, &other, &free].map(|token| ReadItem {
        token: token.clone(),
        view: "masked".to_owned(),
        subject: String::new(),
    });
    let request = Detokenize { items: items.into(), purpose: "kyc_review".to_owned(), view: String::new() };
    let answers = vault.detokenize(&clerk, &request).await.unwrap();
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    // Writes.
    assert!(matches!(replace_as(&vault, &clerk, &other).await, Err(Error::NotFoundAt(_))));
    replace_as(&vault, &clerk, &own).await.unwrap();
    let write = |subject: &str, key: &str| tokenize(vec![new_value("borrower.name", "张三", subject)], key);
    assert!(matches!(vault.tokenize(&clerk, &write("c-other", "")).await, Err(Error::Denied { .. })));
    for subject in ["c-own", "c-free", "c-new", ""] {
        vault.tokenize(&clerk, &write(subject, subject)).await.unwrap();
    }
    assert!(matches!(delete_as(&vault, &clerk, &other).await, Err(Error::NotFound)));
    delete_as(&vault, &clerk, &own).await.unwrap();
    // A retry under its key is decided anew.
    label(&vault, "c-own", &["branch-13"]).await.unwrap();
    assert!(matches!(vault.tokenize(&clerk, &write("c-own", "c-own")).await, Err(Error::Denied { .. })));
    vault.tokenize(&clerk, &write("c-free", "c-free")).await.unwrap();
    drop(vault);
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn a_value_that_subjects_share_is_the_case_of_who_is_named() {
    let (bench, vault) = Bench::new().await;
    want_actors(&vault).await;
    let items = ["c-own", "c-other"].map(|subject| new_value("company.uscc", "91350100M000100Y43", subject));
    let token = vault.tokenize(&caller(Role::App), &tokenize(items.into(), "")).await.unwrap().remove(0);
    label(&vault, "c-own", &["branch-12"]).await.unwrap();
    label(&vault, "c-other", &["branch-13"]).await.unwrap();
    let clerk = behind(&bench, "li.na", &["branch-12"], 600);
    let read = async |subject: &str| {
        let items = vec![ReadItem { token: token.clone(), view: String::new(), subject: subject.to_owned() }];
        let request = Detokenize { items, purpose: "kyc_review".to_owned(), view: "plain".to_owned() };
        vault.detokenize(&clerk, &request).await.unwrap().remove(0)
    };
    assert!(read("c-own").await.is_ok());
    // Whoever leaves the name out, or names somebody who does not hold it, learns nothing.
    for subject in ["c-other", "", "c-nobody"] {
        assert!(matches!(read(subject).await, Err(Error::NotFound)), "{subject}");
    }
}

#[tokio::test]
async fn labels_hold_from_the_next_read_on_and_outlive_what_else_changes_the_record() {
    let (bench, vault) = Bench::new().await;
    want_actors(&vault).await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let clerk = behind(&bench, "li.na", &["branch-12"], 600);
    for (set, may) in [(&["branch-12"][..], true), (&["branch-13"], false), (&["a", "branch-12"], true), (&[], false)] {
        assert!(label(&vault, "c-1", set).await.unwrap());
        assert!(!label(&vault, "c-1", set).await.unwrap(), "the same once more is no change");
        assert_eq!(labels(&vault, "c-1").await.unwrap(), set);
        assert_eq!(read_as(&vault, &clerk, &token, "plain").await.is_ok(), may, "{set:?}");
    }
    label(&vault, "c-1", &["branch-12"]).await.unwrap();
    // A value of another keyring makes another DEK, which stands in the same record.
    store_one(&vault, "borrower.password_hash", "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA", "c-1").await;
    assert_eq!(labels(&vault, "c-1").await.unwrap(), ["branch-12"]);
    drop(vault);
    let vault = bench.open().await;
    assert_eq!(labels(&vault, "c-1").await.unwrap(), ["branch-12"]);
    let recorded = leaves(&vault).await;
    let set: Vec<_> = recorded.iter().filter(|leaf| leaf["action"] == "set_labels").collect();
    assert_eq!(set.len(), 9);
    let last = set.last().unwrap();
    assert_eq!(
        (&last["detail"]["labels"], &last["items"][0]["outcome"]),
        (&"branch-12".into(), &"subject_labelled".into())
    );
    drop(vault);
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn who_may_set_labels_and_of_whom_is_said() {
    let (_bench, vault) = Bench::new().await;
    store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let request = SetLabels { subject: "c-1".to_owned(), labels: vec!["a".to_owned()] };
    for role in [Role::App, Role::Auditor, Role::Rotator] {
        assert!(matches!(vault.set_labels(&caller(role), &request).await, Err(Error::Denied { .. })), "{role:?}");
    }
    assert!(vault.set_labels(&caller(Role::Officer), &request).await.unwrap());
    for subject in ["c-2", "11010519491231002X"] {
        assert!(matches!(label(&vault, subject, &["a"]).await, Err(Error::NotFoundAt(_))));
        assert!(matches!(labels(&vault, subject).await, Err(Error::NotFoundAt(_))));
    }
    assert!(matches!(label(&vault, "", &[]).await, Err(Error::Invalid(_))));
    assert!(matches!(label(&vault, "c-1", &["Li Na"]).await, Err(Error::Invalid(_))));
    assert!(matches!(
        label(&vault, "c-1", &["1", "2", "3", "4", "5", "6", "7", "8", "9"]).await,
        Err(Error::Invalid(_))
    ));
    assert_eq!(labels(&vault, "c-1").await.unwrap(), ["a"]);
    let text = serde_json::to_string(&leaves(&vault).await).unwrap();
    assert!(!text.contains("c-1\"") && !text.contains("Li Na") && !text.contains(ID_CARD));
}

#[tokio::test]
async fn labels_that_somebody_changed_behind_the_vaults_back_are_found() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, FIELD, ID_CARD, "c-1").await;
    label(&vault, "c-1", &["branch-12"]).await.unwrap();
    let record = async || super::rolls::all(&bench, Family::Subjects).await.remove(0);
    let (key, before) = record().await;
    label(&vault, "c-1", &["branch-13"]).await.unwrap();
    let (_, after) = record().await;
    drop(vault);
    let put = |bytes: Vec<u8>| bench.disk.write(vec![Mutation::Put(Family::Subjects, key.to_vec(), bytes)]);
    let forged = SubjectRecord { labels: vec!["mine".to_owned()], ..SubjectRecord::decode(&after).unwrap() }.encode();
    for bytes in [forged, before.to_vec()] {
        put(bytes).await.unwrap();
        let found = findings(&bench, &[]).await;
        assert!(found.iter().any(|finding| finding.kind == Kind::Subject), "{found:?}");
    }
    put(after.to_vec()).await.unwrap();
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn each_person_behind_a_service_has_limits_and_the_service_as_a_whole_too() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let officer = caller(Role::Officer);
    for (tier, plain) in [("II", 3), ("III", 1)] {
        let c2 = ClassLimits { plain: Rate { per_minute: None, per_day: Some(plain) }, ..ClassLimits::default() };
        let limits = TierLimits { c2, ..TierLimits::default() };
        vault.set_tier_limits(&officer, &SetTierLimits { tier: tier.to_owned(), limits }).await.unwrap();
    }
    let give = |who: &str, tier: &str| SetTier { principal: who.to_owned(), tier: tier.to_owned() };
    vault.set_tier(&officer, &give("app/tester/actors", "III")).await.unwrap();
    let people = ["li.na", "wang.wei", "zhang.min"].map(|name| behind(&bench, name, &[], 600));
    let reads = async |who: &Caller| read_as(&vault, who, &token, "plain").await.is_ok();
    assert!(reads(&people[0]).await && !reads(&people[0]).await && reads(&people[1]).await);
    // Nobody behind it: the service's own tier, which has no limits yet.
    for _ in 0..4 {
        read_one(&vault, &token, "plain").await.unwrap();
    }
    vault.set_tier(&officer, &give("app/tester", "II")).await.unwrap();
    assert!(reads(&people[2]).await, "the service counts from when it has limits");
    assert!(read_one(&vault, &token, "plain").await.is_ok() && read_one(&vault, &token, "plain").await.is_ok());
    assert!(read_one(&vault, &token, "plain").await.is_err(), "three in all");
    let another = behind(&bench, "zhao.lei", &[], 600);
    assert!(!reads(&another).await);
}

#[tokio::test]
async fn nobody_hides_what_others_behind_its_service_are_refused() {
    let (bench, vault) = Bench::new().await;
    let (flood, quiet) = (behind(&bench, "li.na", &[], 600), behind(&bench, "wang.wei", &[], 600));
    let before = leaves(&vault).await.len();
    for _ in 0..400 {
        read_as(&vault, &flood, "srt1_0000000000000000000000", "plain").await.unwrap_err();
    }
    for who in [&quiet, &caller(Role::App)] {
        read_as(&vault, who, "srt1_0000000000000000000000", "plain").await.unwrap_err();
    }
    vault.write_counted_refusals().await;
    let refused = leaves(&vault).await.split_off(before);
    let of = |actor: Option<&str>| {
        let reads = refused.iter().filter(|leaf| leaf["action"] == "detokenize");
        let own = reads.filter(|leaf| leaf.get("actor").and_then(|actor| actor.as_str()) == actor);
        own.collect::<Vec<_>>()
    };
    assert!(of(Some("hr/li.na")).len() < 400);
    let counted: Vec<_> = refused.iter().filter(|leaf| leaf["detail"].get("counted").is_some()).collect();
    assert!(!counted.is_empty() && counted.iter().all(|leaf| leaf["actor"] == "hr/li.na"), "{counted:?}");
    for actor in [Some("hr/wang.wei"), None] {
        let own = of(actor);
        assert!(own.len() == 1 && own[0]["detail"].get("counted").is_none(), "{actor:?}: {own:?}");
    }
}

#[tokio::test]
async fn a_look_up_finds_the_own_cases_behind_any_number_of_others_and_says_more_of_them_alone() {
    let (bench, vault) = Bench::new().await;
    want_actors(&vault).await;
    for subject in ["c-other", "c-own"] {
        store_one(&vault, FIELD, ID_CARD, subject).await;
    }
    label(&vault, "c-other", &["branch-13"]).await.unwrap();
    label(&vault, "c-own", &["branch-12"]).await.unwrap();
    let clerk = behind(&bench, "li.na", &["branch-12"], 600);
    let own = find_as(&vault, &clerk, ID_CARD).await.unwrap().tokens;
    for _ in 0..4 {
        store_one(&vault, FIELD, ID_CARD, "c-other").await;
    }
    drop(vault);
    // The first row is somebody else's, and an answer has one token.
    let vault = bench.open_within(Limits { found: 1, ..Limits::MOST }).await;
    let found = find_as(&vault, &clerk, ID_CARD).await.unwrap();
    assert_eq!((found.tokens, found.more), (own, false));
    let all = find_as(&vault, &behind(&bench, "wang.wei", &["branch-13"], 600), ID_CARD).await.unwrap();
    assert_eq!((all.tokens.len(), all.more), (1, true));
    store_one(&vault, FIELD, ID_CARD, "c-own").await;
    assert!(find_as(&vault, &clerk, ID_CARD).await.unwrap().more);
}

#[tokio::test]
async fn whom_the_vault_knows_is_not_found_out_by_asking_for_labels() {
    let (_bench, vault) = Bench::new().await;
    store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let officer = caller(Role::Officer);
    let limits = TierLimits { misses: Rate { per_minute: None, per_day: Some(2) }, ..TierLimits::default() };
    vault.set_tier_limits(&officer, &SetTierLimits { tier: "III".to_owned(), limits }).await.unwrap();
    for role in [Role::Auditor, Role::Privacy] {
        let principal = caller(role).principal.name.to_string();
        vault.set_tier(&officer, &SetTier { principal, tier: "III".to_owned() }).await.unwrap();
    }
    for subject in ["c-2", "c-3"] {
        assert!(matches!(labels(&vault, subject).await, Err(Error::NotFoundAt(_))));
        assert!(matches!(label(&vault, subject, &["a"]).await, Err(Error::NotFoundAt(_))));
    }
    // Whether it is known makes no difference any more.
    for subject in ["c-1", "c-4"] {
        assert!(matches!(labels(&vault, subject).await, Err(Error::QuotaExceeded { .. })), "{subject}");
        assert!(matches!(label(&vault, subject, &["a"]).await, Err(Error::QuotaExceeded { .. })), "{subject}");
    }
    let leaves = leaves(&vault).await;
    let asked: Vec<_> = leaves.iter().filter(|leaf| leaf["action"] == "get_labels").collect();
    assert_eq!(asked.len(), 4);
    assert!(asked[..2].iter().all(|leaf| leaf["items"][0]["outcome"] == "none" && leaf["decision"] == "allow"));
}

#[tokio::test]
async fn a_value_of_nobodys_that_subjects_may_share_is_stored_again_under_its_key() {
    let (bench, vault) = Bench::new().await;
    want_actors(&vault).await;
    let clerk = behind(&bench, "li.na", &["branch-12"], 600);
    let request = || tokenize(vec![new_value("company.uscc", "91350100M000100Y43", "")], "key-1");
    let first = vault.tokenize(&clerk, &request()).await.unwrap();
    assert_eq!(vault.tokenize(&clerk, &request()).await.unwrap(), first);
}
