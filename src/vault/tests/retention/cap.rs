//! More than the cap is not erased before two agree on just so many.

use super::*;
use crate::Freeze;

#[tokio::test]
async fn what_is_held_or_frozen_does_not_count_against_the_cap() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let vault = bench.open_keeping(Retention { cap_values: 1, cap_percent: 0, ..Retention::default() }).await;
    store_short(&bench, &vault, "borrower.address", &[("held", "c-1"), ("a", "c-2")]).await;
    store_short(&bench, &vault, "borrower.email", &[("a@mail.example", "c-2")]).await;
    let subject = rows(&bench).await[0].subject;
    let until = now(&bench) + YEAR * 1_000_000;
    with_record(&bench, subject, |record| record.holds = vec![hold(vec![], until)]).await;
    let freeze = Freeze { field: "borrower.email".to_owned(), reads: false, writes: true, all_tenants: false };
    vault.freeze(&caller(Role::Officer), &freeze).await.unwrap();
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 1, 2));
    store_short(&bench, &vault, "borrower.address", &[("b", "c-3"), ("b", "c-4")]).await;
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.total, job.done), ("waiting", 2, 0), "so many as there is to do");
    assert!(job.waits_for.contains("retention run --up-to 2"), "{}", job.waits_for);
}

#[tokio::test]
async fn more_than_the_cap_waits_for_an_approval_of_just_so_many() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let keep = Retention { cap_values: 3, cap_percent: 0, ..Retention::default() };
    let vault = bench.open_keeping(keep).await;
    let values = |from: usize, to: usize| (from..to).map(|number| format!("c-{number}")).collect::<Vec<_>>();
    let store = async |subjects: Vec<String>| {
        let values: Vec<(&str, &str)> = subjects.iter().map(|subject| ("a", subject.as_str())).collect();
        store_short(&bench, &vault, "borrower.address", &values).await;
        bench.pass(2 * SHORT);
    };
    store(values(0, 3)).await;
    assert_eq!(expire(&vault, 2).await.done, 3, "within the cap nobody is asked");

    store(values(10, 15)).await;
    let job = expire(&vault, 2).await;
    assert_eq!((job.state, job.total, job.done), ("waiting", 5, 0));
    assert!(job.waits_for.contains("retention run --up-to 5"), "{}", job.waits_for);
    assert_eq!(rows(&bench).await.len(), 5, "nothing is erased");
    assert!(vault.running_jobs().await.unwrap().is_empty());

    let Err(Error::ApprovalRequired { name, .. }) = start(&vault, 5).await else { panic!("nobody was asked") };
    approve_as(&vault, &second(TENANT), &name).await.unwrap();
    // Another number is another request.
    assert!(matches!(start(&vault, 6).await, Err(Error::ApprovalRequired { .. })));
    store(values(20, 22)).await;
    assert!(start(&vault, 5).await.unwrap().is_running());
    let job = to_its_end(&vault, KIND, 2).await;
    assert_eq!((job.state, job.total, job.done), ("waiting", 7, 0), "more is due than was approved");

    with_approval(&vault, TENANT, async || start(&vault, 7).await).await.unwrap();
    let job = to_its_end(&vault, KIND, 2).await;
    assert_eq!((job.state, job.done), ("done", 7));
    assert_eq!(sizes(&bench).await[0], 0);
    assert!(matches!(start(&vault, 7).await, Err(Error::ApprovalRequired { .. })), "it was used up");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_job_that_waits_can_be_cancelled() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let vault = bench.open_keeping(Retention { cap_values: 0, cap_percent: 0, ..Retention::default() }).await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 10).await.state, "waiting");
    let cancel = CancelJob { name: "expire".to_owned() };
    assert_eq!(vault.cancel_job(&caller(Role::Officer), &cancel).await.unwrap().state, "cancelled");
}

#[tokio::test]
async fn a_part_of_all_values_is_a_cap_as_well() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let vault = bench.open_keeping(Retention { cap_values: 0, cap_percent: 10, ..Retention::default() }).await;
    let lasting = (0..18).map(|number| new_value("borrower.address", "a", &format!("c-{number}"))).collect();
    vault.tokenize(&caller(Role::App), &tokenize(lasting, "")).await.unwrap();
    store_short(&bench, &vault, "borrower.address", &[("a", "d-1"), ("a", "d-2")]).await;
    bench.pass(2 * SHORT);
    assert_eq!(vault.retention_report(&privacy()).await.unwrap().cap, 2);
    assert_eq!(expire(&vault, 10).await.done, 2, "2 of 20");
    store_short(&bench, &vault, "borrower.address", &[("a", "d-1"), ("a", "d-2")]).await;
    bench.pass(2 * SHORT);
    store_short(&bench, &vault, "borrower.address", &[("a", "d-3")]).await;
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 10).await.state, "waiting", "3 of 21");
}
