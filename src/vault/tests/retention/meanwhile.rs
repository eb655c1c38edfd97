//! Holds and consents as officers and services set them, before a job, between its count and its page, and between the page and its
//! commit: what is kept then stays, and goes once nothing keeps it.

use super::*;
use crate::expire::ExpirePage;
use crate::jobs::itself;
use crate::tests::erasures::is_turned_back;
use crate::tests::{consents, holds};
use crate::{Count, JobPage, LiftHold, SetHold};

const ADDRESS: &str = "borrower.address";

async fn keep(bench: &Bench, vault: &Tested, subject: &str, field: &str) -> u32 {
    let request = SetHold { subject: subject.to_owned(), ..holds::hold(bench, &[field], "collections", 30) };
    holds::set(vault, &request).await.unwrap()
}

async fn lift(vault: &Tested, subject: &str, number: u32) {
    let request = LiftHold { subject: subject.to_owned(), number };
    vault.lift_hold(&caller(Role::Officer), &request).await.unwrap();
}

/// How many values and subjects there are.
async fn left(bench: &Bench) -> (usize, usize) {
    (rows(bench).await.len(), all(bench, Family::Subjects).await.len())
}

#[tokio::test]
async fn what_an_officer_holds_stays_until_the_hold_is_lifted() {
    let (bench, vault) = Bench::new().await;
    let tokens = store_short(&bench, &vault, ADDRESS, &[("held", "c-1"), ("a", "c-2")]).await;
    let number = keep(&bench, &vault, "c-1", ADDRESS).await;
    bench.pass(2 * SHORT);
    for _ in 0..2 {
        let job = expire(&vault, 10).await;
        assert_eq!((job.state, job.skipped, left(&bench).await), ("done", 1, (1, 1)));
    }
    assert_eq!(holds::read_for(&vault, &tokens[0], "collections").await.unwrap(), b"held");
    let vault = proven(&bench, vault).await;
    lift(&vault, "c-1", number).await;
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped, left(&bench).await), ("done", 1, 0, (0, 0)));
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_consent_that_was_granted_keeps_the_subject_until_it_is_withdrawn() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, ADDRESS, &[("a", "c-1"), ("a", "c-2")]).await;
    assert!(consents::give(&vault, "c-1", consents::all()).await.unwrap());
    bench.pass(2 * SHORT);
    assert_eq!((expire(&vault, 10).await.done, left(&bench).await), (2, (0, 1)));
    let vault = proven(&bench, vault).await;
    assert!(consents::take(&vault, "c-1", consents::all()).await.unwrap());
    assert_eq!((expire(&vault, 10).await.done, left(&bench).await), (0, (0, 0)));
    proven(&bench, vault).await;
}

#[tokio::test]
async fn what_is_held_after_it_was_counted_stays() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, ADDRESS, &[("held", "c-1"), ("a", "c-2")]).await;
    store_short(&bench, &vault, "company.uscc", &[(USCC, "c-2"), (USCC, "c-3")]).await;
    bench.pass(2 * SHORT);
    start(&vault, 0).await.unwrap();
    let (job, mut count) = (running(&vault, KIND).await, Count::default());
    while vault.count_for_job(TENANT, KIND, &mut count, 10).await.unwrap() {}
    assert_eq!((count.due, count.kept), (3, 0));
    let numbers = [keep(&bench, &vault, "c-1", ADDRESS).await, keep(&bench, &vault, "c-3", "company.uscc").await];
    let page = JobPage { kind: KIND, number: job.number, entries: 10, total: Some(3), of: count.of, kept: 0 };
    let job = vault.job_page(TENANT, page).await.unwrap();
    assert_eq!((job.done, job.skipped), (1, 2));
    assert_eq!(to_its_end(&vault, KIND, 10).await.state, "done");
    assert_eq!(left(&bench).await.0, 2);
    let vault = proven(&bench, vault).await;
    for (subject, number) in ["c-1", "c-3"].into_iter().zip(numbers) {
        lift(&vault, subject, number).await;
    }
    assert_eq!((expire(&vault, 10).await.done, left(&bench).await), (2, (0, 0)));
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_page_is_turned_back_by_what_keeps_or_frees_its_subjects_before_its_commit() {
    // What comes meanwhile, whether it turns the page back, and what there is of values and subjects then.
    let cases = [
        ("a hold", true, (4, 4)),
        ("a hold of who shares", true, (4, 4)),
        ("a consent", true, (3, 5)),
        ("a withdrawal", true, (3, 3)),
        ("a hold of somebody else", false, (3, 4)),
    ];
    for (case, back, expected) in cases {
        let (bench, vault) = Bench::new().await;
        for subject in ["held", "shares", "other"] {
            store_one(&vault, "borrower.name", "张三", subject).await;
        }
        store_short(&bench, &vault, ADDRESS, &[("a", "held"), ("b", "last"), ("c", "consents")]).await;
        store_short(&bench, &vault, "company.uscc", &[(USCC, "shares")]).await;
        assert!(consents::give(&vault, "consents", consents::all()).await.unwrap());
        bench.pass(2 * SHORT);
        start(&vault, 0).await.unwrap();
        let number = running(&vault, KIND).await.number;
        let page = JobPage { kind: KIND, number, entries: 100, total: Some(4), of: 7, kept: 0 };
        let meanwhile = async || match case {
            "a hold" => _ = keep(&bench, &vault, "held", ADDRESS).await,
            "a hold of who shares" => _ = keep(&bench, &vault, "shares", "company.uscc").await,
            "a consent" => assert!(consents::give(&vault, "last", consents::all()).await.unwrap()),
            "a withdrawal" => assert!(consents::take(&vault, "consents", consents::all()).await.unwrap()),
            _ => _ = keep(&bench, &vault, "other", "borrower.name").await,
        };
        assert_eq!(is_turned_back(&vault, &itself(TENANT), &ExpirePage(page), meanwhile).await, back, "{case}");
        if back {
            assert_eq!(left(&bench).await.0, 7, "{case}");
            assert_eq!(to_its_end(&vault, KIND, 100).await.state, "done");
        }
        assert_eq!(left(&bench).await, expected, "{case}");
        proven(&bench, vault).await;
    }
}
