//! What is due and kept all the same: by a hold, by a freeze, by damage; and a subject, by a consent.

use super::*;
use crate::Freeze;

#[tokio::test]
async fn a_legal_hold_keeps_what_it_is_about_until_it_ends() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("held", "c-1")]).await;
    store_short(&bench, &vault, "borrower.email", &[("a@mail.example", "c-1")]).await;
    let stored = rows(&bench).await;
    let (subject, field) = (stored[0].subject, stored[0].field);
    let until = now(&bench) + 200 * 1_000_000;
    with_record(&bench, subject, |record| record.holds = vec![hold(vec![field], until)]).await;
    bench.pass(2 * SHORT);
    let report = vault.retention_report(&privacy()).await.unwrap();
    let of = |name: &str| report.fields.iter().find(|field| field.field == name).unwrap();
    assert_eq!((of("borrower.address").held, of("borrower.address").due), (1, 0));
    assert_eq!((of("borrower.email").held, of("borrower.email").due), (0, 1));
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.total, job.done, job.skipped), ("done", 2, 1, 1));
    let left = rows(&bench).await;
    assert_eq!(left.iter().map(|row| row.field).collect::<Vec<_>>(), [field]);
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.done, job.skipped), (1, 0));
    assert_eq!(all(&bench, Family::Subjects).await.len(), 0, "it goes with its last value");
}

#[tokio::test]
async fn a_hold_on_one_holder_keeps_a_shared_value_for_all() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "company.uscc", &[(USCC, "c-1"), (USCC, "c-2")]).await;
    let holders = all(&bench, Family::Holders).await;
    let second = place::decode_holder(&holders[1].0).unwrap();
    let until = now(&bench) + YEAR * 1_000_000;
    with_record(&bench, second, |record| record.holds = vec![hold(vec![], until)]).await;
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 0, 1));
    assert_eq!(all(&bench, Family::Holders).await.len(), 2);
}

#[tokio::test]
async fn a_standing_consent_keeps_the_subject_and_one_that_ended_does_not() {
    let soon = 100 * 1_000_000;
    for (expires, withdrawn, stays) in
        [(None, None, true), (Some(soon), None, false), (None, Some(1), false), (Some(1_000 * soon), None, true)]
    {
        let (bench, vault) = Bench::new().await;
        store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
        let subject = rows(&bench).await[0].subject;
        let expires = expires.map(|after| now(&bench) + after);
        with_record(&bench, subject, |record| {
            let (purpose, version, channel) = ("marketing".to_owned(), "1".to_owned(), "web".to_owned());
            let consent = Consent {
                purpose,
                scope: Scope::All,
                granted: 1,
                given: None,
                expires,
                withdrawn,
                text: [0; 32],
                version,
                channel,
            };
            record.consents = vec![consent];
        })
        .await;
        bench.pass(2 * SHORT);
        assert_eq!(expire(&vault, 10).await.done, 1);
        assert_eq!(all(&bench, Family::Subjects).await.len(), usize::from(stays));
        assert_eq!(marks(&bench).await, usize::from(stays), "who stays has a DEK to be rolled");
    }
}

#[tokio::test]
async fn who_is_kept_by_a_hold_alone_goes_when_that_ends() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.address", "stays", "c-2").await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    let both = rows(&bench).await;
    let end = now(&bench) + 200 * 1_000_000;
    for subject in [both[0].subject, both[1].subject] {
        with_record(&bench, subject, |record| record.holds = vec![hold(vec![FieldNo(999)], end)]).await;
    }
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 1).await.done, 1);
    assert_eq!((all(&bench, Family::Subjects).await.len(), marks(&bench).await), (2, 1));
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 1).await.done, 0);
    assert_eq!((all(&bench, Family::Subjects).await.len(), marks(&bench).await), (1, 0), "who has a value stays");
}

#[tokio::test]
async fn a_damaged_record_of_a_holder_keeps_its_value_and_nothing_else() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "company.uscc", &[(USCC, "c-1"), (USCC, "c-2")]).await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-3")]).await;
    let holders = all(&bench, Family::Holders).await;
    let damaged = place::subject(TENANT, place::decode_holder(&holders[1].0).unwrap());
    bench.disk.write(vec![Mutation::Put(Family::Subjects, damaged, vec![0xff])]).await.unwrap();
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 1, 1));
    assert_eq!(all(&bench, Family::Holders).await.len(), 2);
}

#[tokio::test]
async fn what_is_frozen_stays_and_is_not_even_asked_for_while_all_is() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    bench.pass(2 * SHORT);
    let freeze = |field: &str| Freeze { field: field.to_owned(), reads: false, writes: true, all_tenants: false };
    vault.freeze(&caller(Role::Officer), &freeze("borrower.address")).await.unwrap();
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 0, 1));
    vault.freeze(&caller(Role::Officer), &freeze("")).await.unwrap();
    assert!(matches!(start(&vault, 0).await, Err(Error::Frozen { .. })));
}
