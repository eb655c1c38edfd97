//! By which clock something is due: never by one that jumped, until an operator says that it is right; and once a day.

use strongroom_storage::rows::JobRow;

use super::*;
use crate::tests::tenants::{NUMBER, SAVINGS, make};
use crate::{Count, JobPage};

#[tokio::test]
async fn after_a_jump_of_the_clock_nothing_is_erased_until_an_operator_says_that_it_is_right() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1"), ("a", "c-2")]).await;
    let far = Some(now(&bench) + 30 * DAY * 1_000_000);
    let item = NewValue { expires: far, ..new_value("borrower.address", "b", "c-3") };
    vault.tokenize(&caller(Role::App), &tokenize(vec![item], "")).await.unwrap();
    bench.pass(2 * SHORT);
    start(&vault, 0).await.unwrap();
    let job = step(&vault, &running(&vault, KIND).await, 1).await;
    assert_eq!(job.done, 1);

    let right = now(&bench);
    bench.set_clock(right + YEAR * 1_000_000);
    let page = JobPage { kind: KIND, number: job.number, entries: 10, total: None, of: 0, kept: 0 };
    assert!(matches!(vault.job_page(TENANT, page).await, Err(Error::ClockJumped)));
    let counted = vault.count_for_job(TENANT, KIND, &mut Count::default(), 10).await;
    assert!(matches!(counted, Err(Error::ClockJumped)), "nor is it looked through for that");
    vault.look_at_clock().await.unwrap();
    let told = vault.get_job(&privacy(), &GetJob { name: "expire".to_owned() }).await.unwrap();
    assert!(told.is_running() && told.waits_for.contains("confirm-clock"), "{}", told.waits_for);
    assert!(vault.status(&operator()).await.unwrap().clock_jump.is_some());
    assert!(vault.retention_report(&privacy()).await.unwrap().clock_jump.is_some());

    // It is set right again, and the vault restarted: somebody has to look at it all the same.
    bench.set_clock(right);
    let vault = proven(&bench, vault).await;
    assert!(matches!(vault.job_page(TENANT, page).await, Err(Error::ClockJumped)));
    let claimed = ConfirmClock { time: right + DAY * 1_000_000 };
    assert!(matches!(vault.confirm_clock(&operator(), &claimed).await, Err(Error::Invalid(_))), "another time");
    for who in [caller(Role::Officer), privacy(), caller(Role::App)] {
        let refused = vault.confirm_clock(&who, &ConfirmClock { time: now(&bench) }).await;
        assert!(matches!(refused, Err(Error::Denied { .. })));
    }
    confirm(&bench, &vault).await.unwrap();
    assert_eq!(to_its_end(&vault, KIND, 10).await.done, 2);
    let vault = proven(&bench, vault).await;
    assert!(vault.clock_jump().is_none(), "the ledger is ahead, and that is known");

    // The ledger's time is a year ahead: what is due by that, and not by the clock, can't be read, and is not erased.
    assert_eq!(expire(&vault, 10).await.total, 0);
    assert_eq!(rows(&bench).await.len(), 1);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn who_stores_a_shared_value_anew_removes_what_has_expired_by_a_clock_that_is_believed_alone() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "company.uscc", &[(USCC, "c-1")]).await;
    let again =
        async || vault.tokenize(&caller(Role::App), &tokenize(vec![new_value("company.uscc", USCC, "c-1")], "")).await;
    let right = now(&bench);
    bench.set_clock(right + YEAR * 1_000_000);
    assert!(matches!(again().await, Err(Error::ClockJumped)));
    // That somebody asked takes the ledger's time along.
    leaves(&vault).await;
    bench.set_clock(right);
    vault.look_at_clock().await.unwrap();
    confirm(&bench, &vault).await.unwrap();
    assert!(matches!(again().await, Err(Error::ClockJumped)), "by the ledger's time it has expired");
    assert_eq!(rows(&bench).await[0].version.0, 1);
    bench.pass(2 * SHORT);
    again().await.unwrap();
    assert_eq!(rows(&bench).await.len(), 1);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_is_a_jump_as_well() {
    let (bench, vault) = Bench::new().await;
    bench.set_clock(now(&bench) - DAY * 1_000_000);
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)));
    vault.close().await;
    let vault = bench.open().await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)), "before the newest leaf");
    confirm(&bench, &vault).await.unwrap();
    assert_eq!(expire(&vault, 10).await.state, "done");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn where_the_ledger_is_ahead_a_vault_that_ran_until_now_may_be_started_anew() {
    let (bench, vault) = Bench::new().await;
    let right = now(&bench);
    bench.set_clock(right + YEAR * 1_000_000);
    leaves(&vault).await;
    bench.set_clock(right);
    vault.look_at_clock().await.unwrap();
    confirm(&bench, &vault).await.unwrap();
    for _ in 0..20 {
        bench.pass(DAY);
        vault.look_at_clock().await.unwrap();
    }
    let vault = proven(&bench, vault).await;
    assert!(vault.clock_jump().is_none());
    vault.close().await;
    bench.pass(8 * DAY);
    let vault = bench.open().await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)), "it was stopped for long");
}

#[tokio::test]
async fn a_start_after_a_long_stop_is_a_jump_and_one_after_some_days_is_none() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    bench.pass(6 * DAY);
    let vault = bench.open().await;
    assert!(vault.clock_jump().is_none());
    vault.status(&caller(Role::App)).await.unwrap();
    vault.close().await;
    bench.pass(8 * DAY);
    let vault = bench.open().await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)));
    // What is said by a leaf is not forgotten because there are newer leaves.
    let vault = proven(&bench, vault).await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)));
    confirm(&bench, &vault).await.unwrap();
    assert!(start(&vault, 0).await.is_ok());
}

#[tokio::test]
async fn what_is_due_is_erased_by_itself_once_a_day_and_not_by_a_clock_that_jumped() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    bench.pass(2 * SHORT);
    vault.start_due_expiries().await.unwrap();
    assert!(vault.running_jobs().await.unwrap().is_empty(), "the tenant is not a day old");
    bench.pass(DAY);
    vault.start_due_expiries().await.unwrap();
    let job = running(&vault, KIND).await;
    assert_eq!((job.number, job.principal.as_str()), (1, "vault"));
    assert_eq!(to_its_end(&vault, KIND, 10).await.done, 1);
    bench.pass(DAY / 2);
    vault.start_due_expiries().await.unwrap();
    assert!(vault.running_jobs().await.unwrap().is_empty());
    bench.set_clock(now(&bench) + DAY * 1_000_000);
    vault.start_due_expiries().await.unwrap();
    assert!(vault.running_jobs().await.unwrap().is_empty(), "it jumped");
    vault.look_at_clock().await.unwrap();
    confirm(&bench, &vault).await.unwrap();
    vault.start_due_expiries().await.unwrap();
    assert_eq!(running(&vault, KIND).await.number, 2);
    to_its_end(&vault, KIND, 10).await;
    proven(&bench, vault).await;
}

#[tokio::test]
async fn what_is_wrong_with_one_tenant_keeps_no_other_waiting() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    start(&vault, 0).await.unwrap();
    to_its_end(&vault, KIND, 10).await;
    let last = bench.disk.get(Family::Meta, place::job(TENANT, KIND)).await.unwrap().unwrap();
    let no_more = JobRow { number: u32::MAX, ..JobRow::decode(&last).unwrap() };
    bench.disk.write(vec![Mutation::Put(Family::Meta, place::job(TENANT, KIND), no_more.encode())]).await.unwrap();
    bench.pass(2 * DAY);
    assert!(matches!(vault.start_due_expiries().await, Err(Error::Internal(_))));
    let running: Vec<_> = vault.running_jobs().await.unwrap().into_iter().map(|(tenant, _)| tenant).collect();
    assert_eq!(running, [NUMBER]);
}
