//! Tiers: what counts, that it counts at once and outlives everything, and that who has no limits pays nothing.

use strongroom_storage::{Family, Range, Store, keys as place};

use super::*;
use crate::{ClassLimits, Export, LeafFilter, Rate, SetTier, SetTierLimits, TierLimits};

const FIELD: &str = "borrower.id_card";
const READER: &str = "app/tester";
const OTHER_CARD: &str = "110105194912310038";

async fn tier(vault: &Tested, tier: &str) -> Result<bool, Error> {
    let request = SetTier { principal: READER.to_owned(), tier: tier.to_owned() };
    vault.set_tier(&caller(Role::Officer), &request).await
}

fn per_day(limit: u32) -> Rate {
    Rate { per_minute: None, per_day: Some(limit) }
}

async fn limit(vault: &Tested, name: &str, limits: TierLimits) -> bool {
    let request = SetTierLimits { tier: name.to_owned(), limits };
    vault.set_tier_limits(&caller(Role::Officer), &request).await.unwrap()
}

async fn plain_per_day(vault: &Tested, name: &str, limit_of_plain: u32) -> bool {
    let c2 = ClassLimits { plain: per_day(limit_of_plain), ..ClassLimits::default() };
    limit(vault, name, TierLimits { c2, ..TierLimits::default() }).await
}

async fn matches(vault: &Tested, token: &str, value: &str) -> Result<bool, Error> {
    let items = vec![MatchItem { token: token.to_owned(), value: value.to_owned().into(), subject: String::new() }];
    let request = Match { items, purpose: "kyc_review".to_owned() };
    vault.matches(&caller(Role::App), &request).await.map(|mut answers| answers.remove(0).unwrap())
}

async fn found(vault: &Tested, value: &str) -> Result<usize, Error> {
    let items = vec![LookupItem { field: FIELD.to_owned(), value: value.to_owned().into() }];
    let request = Lookup { items, purpose: "kyc_review".to_owned() };
    vault.lookup(&caller(Role::App), &request).await.map(|mut answers| answers.remove(0).unwrap().tokens.len())
}

fn is_quota<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::QuotaExceeded { .. }))
}

/// How many counts the demo tenant has in the store.
async fn counts(bench: &Bench) -> usize {
    let (from, to) = place::usage_range(TenantNo(1), 0, u32::MAX);
    bench.disk.scan(Family::Meta, Range { from, to, limit: usize::MAX }).await.unwrap().len()
}

#[tokio::test]
async fn a_tier_holds_from_the_next_request_on_and_who_has_none_is_not_counted() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    for _ in 0..3 {
        read_one(&vault, &token, "plain").await.unwrap();
    }
    assert_eq!(counts(&bench).await, 0);
    assert!(plain_per_day(&vault, "III", 2).await);
    assert!(!plain_per_day(&vault, "III", 2).await);
    assert!(tier(&vault, "III").await.unwrap());
    assert!(!tier(&vault, "III").await.unwrap());
    for _ in 0..2 {
        read_one(&vault, &token, "plain").await.unwrap();
    }
    let told = read_one(&vault, &token, "plain").await;
    assert!(
        matches!(&told, Err(Error::QuotaExceeded { what, .. })
        if what == "at most 2 values of class c2 in plain a day"),
        "{:?}",
        told.err()
    );
    let recorded = leaves(&vault).await;
    let refused: Vec<_> = recorded.iter().filter(|leaf| leaf["reason"] == "QUOTA_EXCEEDED").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["decision"], "deny");
    assert!(tier(&vault, "I").await.unwrap());
    read_one(&vault, &token, "plain").await.unwrap();
    // It was told two when it was counted, and has not got new ones by the way.
    assert!(tier(&vault, "III").await.unwrap());
    assert!(is_quota(&read_one(&vault, &token, "plain").await));
    assert!(plain_per_day(&vault, "III", 3).await);
    read_one(&vault, &token, "plain").await.unwrap();
}

#[tokio::test]
async fn counts_outlive_a_restart_and_a_clock_put_back_and_end_with_the_day() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    plain_per_day(&vault, "III", 1).await;
    tier(&vault, "III").await.unwrap();
    read_one(&vault, &token, "plain").await.unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert!(is_quota(&read_one(&vault, &token, "plain").await));
    bench.now.fetch_sub(3 * 86_400_000_000, Ordering::SeqCst);
    assert!(is_quota(&read_one(&vault, &token, "plain").await));
    vault.close().await;
    let vault = bench.open().await;
    assert!(is_quota(&read_one(&vault, &token, "plain").await));
    bench.pass(4 * 86_400);
    read_one(&vault, &token, "plain").await.unwrap();
    assert!(is_quota(&read_one(&vault, &token, "plain").await));
    let before = counts(&bench).await;
    vault.forget_old_counts().await.unwrap();
    let after = counts(&bench).await;
    assert!(0 < after && after < before, "{before} became {after}");
    assert!(is_quota(&read_one(&vault, &token, "plain").await));
    vault.close().await;
    assert!(findings(&bench, &[]).await.is_empty());
}

#[tokio::test]
async fn two_parts_of_one_value_count_as_the_value() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    plain_per_day(&vault, "III", 0).await;
    tier(&vault, "III").await.unwrap();
    for _ in 0..3 {
        read_one(&vault, &token, "last4").await.unwrap();
    }
    assert!(is_quota(&read_one(&vault, &token, "birth_year").await));
    read_one(&vault, &token, "last4").await.unwrap();
}

#[tokio::test]
async fn misses_are_counted_and_what_is_refused_then_says_nothing() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let other = store_one(&vault, FIELD, ID_CARD, "c-2").await;
    let limits = TierLimits { misses: per_day(3), token_misses: per_day(2), ..TierLimits::default() };
    limit(&vault, "III", limits).await;
    tier(&vault, "III").await.unwrap();
    for _ in 0..2 {
        assert!(matches(&vault, &token, ID_CARD).await.unwrap());
        assert!(!matches(&vault, &token, OTHER_CARD).await.unwrap());
    }
    // Those of the token are used up, right or wrong.
    assert!(is_quota(&matches(&vault, &token, ID_CARD).await));
    assert!(is_quota(&matches(&vault, &token, OTHER_CARD).await));
    assert!(matches(&vault, &other, ID_CARD).await.unwrap());
    assert_eq!(found(&vault, ID_CARD).await.unwrap(), 2);
    assert_eq!(found(&vault, OTHER_CARD).await.unwrap(), 0);
    // And now all.
    assert!(is_quota(&found(&vault, ID_CARD).await));
    assert!(is_quota(&found(&vault, OTHER_CARD).await));
    assert!(is_quota(&matches(&vault, &other, ID_CARD).await));
}

#[tokio::test]
async fn only_officers_give_tiers_whatever_policy_permits() {
    let (_bench, vault) = Bench::new().await;
    let request = SetTier { principal: READER.to_owned(), tier: "III".to_owned() };
    for role in [Role::App, Role::Auditor, Role::Privacy, Role::Rotator] {
        assert!(matches!(vault.set_tier(&caller(role), &request).await, Err(Error::Denied { .. })));
    }
    let all = format!("{DEFAULT_POLICIES}\n@id(\"all\") @why(\"All.\") permit (principal, action, resource);");
    let officer = caller(Role::Officer);
    put_in_force(&vault, &officer, all).await;
    assert!(matches!(vault.set_tier(&caller(Role::App), &request).await, Err(Error::Denied { .. })));
    assert!(matches!(tier(&vault, "IV").await, Err(Error::Invalid(_))));
    assert!(tier(&vault, "II").await.unwrap());
    let listed = vault.list_principals(&officer).await.unwrap();
    assert_eq!(listed.principals[0].principal, READER);
    assert_eq!(listed.principals[0].tier, crate::Tier::II);
}

#[tokio::test]
async fn a_tier_of_unknown_outcome_is_read_again() {
    for fate in [Fate::Lost, Fate::Stored] {
        let (bench, vault) = Bench::new().await;
        let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
        plain_per_day(&vault, "III", 0).await;
        bench.faults.fail_write(fate);
        assert!(matches!(tier(&vault, "III").await, Err(Error::Unknown)));
        recovered(&vault).await;
        assert_eq!(is_quota(&read_one(&vault, &token, "plain").await), matches!(fate, Fate::Stored));
    }
}

#[tokio::test]
async fn tiers_that_were_put_back_are_noticed() {
    let (bench, vault) = Bench::new().await;
    plain_per_day(&vault, "III", 1).await;
    let at = place::tiers(TenantNo(1));
    let old = bench.disk.get(Family::Meta, at.clone()).await.unwrap().unwrap();
    tier(&vault, "III").await.unwrap();
    vault.close().await;
    bench.disk.write(vec![strongroom_storage::Mutation::Put(Family::Meta, at, old.to_vec())]).await.unwrap();
    assert!(matches!(bench.try_open().await, Err(OpenError::Rules { what: "list of tiers", .. })));
    let found = findings(&bench, &[]).await;
    assert!(found.iter().any(|finding| finding.kind == crate::Kind::Tiers), "{found:?}");
}

#[tokio::test]
async fn who_guesses_subjects_by_exports_has_a_limit() {
    let (_bench, vault) = Bench::new().await;
    store_one(&vault, FIELD, ID_CARD, "c-1").await;
    limit(&vault, "II", TierLimits { misses: per_day(2), ..TierLimits::default() }).await;
    let request = SetTier { principal: "auditor/tester".to_owned(), tier: "II".to_owned() };
    vault.set_tier(&caller(Role::Officer), &request).await.unwrap();
    let ask = async |subject: &str, token: &str| {
        let filter = LeafFilter { subject: subject.to_owned(), token: token.to_owned(), ..LeafFilter::default() };
        vault.export(&caller(Role::Auditor), &Export { filter, ..Export::default() }).await.map(drop)
    };
    assert!(ask("c-1", "").await.is_ok() && ask("c-2", "").await.is_ok() && ask("", "srt1_x").await.is_ok());
    assert!(is_quota(&ask("c-3", "").await) && is_quota(&ask("c-1", "").await));
    assert!(ask("", "").await.is_ok(), "the ledger itself is not counted");
}
