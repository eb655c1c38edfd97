//! Near a full disk: what a data subject has the right to, and what frees space, goes on; what fills it, or is only asked for, waits.

use super::consents::{all, give, take};
use super::erasures::{erase, erase_with, get, go_on, said, undo};
use super::holds::{hold, set};
use super::rolls::proven;
use super::*;
use crate::{LiftHold, SetHold};

/// So that there is more than a page to be cleared.
const VALUES: usize = 600;

#[tokio::test]
async fn near_a_full_disk_subjects_are_erased_and_restricted_and_nothing_is_stored_or_read() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "restricted").await;
    for subject in ["held", "leaving", "goes"] {
        store_one(&vault, "borrower.name", "张三", subject).await;
    }
    assert!(give(&vault, "restricted", all()).await.unwrap());
    let keep = |subject: &str, field: &str| SetHold {
        subject: subject.to_owned(),
        ..hold(&bench, &[field], "collections", 30)
    };
    let first = set(&vault, &keep("held", "borrower.name")).await.unwrap();
    erase_with(&vault, "leaving", 3_600, "").await.unwrap();
    // One of which the first page is cleared.
    let values = (0..VALUES).map(|number| new_value("borrower.address", &format!("street {number}"), "half-gone"));
    vault.tokenize(&caller(Role::App), &tokenize(values.collect(), "")).await.unwrap();
    bench.faults.fail_writes_after(2, Fate::Lost);
    let half_gone = erase_with(&vault, "half-gone", 0, "").await.unwrap();
    recovered(&vault).await;
    bench.faults.heal();
    assert_eq!(half_gone.state, "clearing");

    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    assert_eq!(vault.health(), "full");
    let tokenized =
        vault.tokenize(&caller(Role::App), &tokenize(vec![new_value("borrower.name", "李四", "new")], "")).await;
    let refused = [
        ("tokenize", tokenized.map(drop)),
        ("detokenize", read_one(&vault, &token, "plain").await.map(drop)),
        ("grant_consent", give(&vault, "new", all()).await.map(drop)),
    ];
    for (what, answer) in refused {
        assert!(matches!(answer, Err(Error::DiskFull)), "{what}: {answer:?}");
    }

    let lift = LiftHold { subject: "held".to_owned(), number: first };
    let taken = [
        ("withdraw_consent", take(&vault, "restricted", all()).await.map(|changed| assert!(changed))),
        ("set_hold", set(&vault, &keep("restricted", "borrower.id_card")).await.map(drop)),
        ("lift_hold", vault.lift_hold(&caller(Role::Officer), &lift).await),
        ("undo_erasure", undo(&vault, "leaving").await),
        // Of which there are pages to clear, and a receipt to sign.
        ("clearing and signing", go_on(&vault).await.map(drop)),
        ("erase_subject with grace", erase_with(&vault, "leaving", 3_600, "").await.map(drop)),
    ];
    for (what, answer) in taken {
        assert!(answer.is_ok(), "{what}: {answer:?}");
    }
    let mut erased = Vec::new();
    for (subject, state) in [("goes", "erased"), ("held", "erased"), ("restricted", "held")] {
        let told = erase(&vault, subject).await;
        assert_eq!(told.state, state, "{subject}");
        erased.push((told, u64::from(state == "held")));
    }
    assert_eq!(vault.health(), "full");

    bench.full.store(false, Ordering::Relaxed);
    vault.look_at_space();
    let half_gone = get(&vault, &half_gone.erasure).await.unwrap();
    assert_eq!((half_gone.state, said(&vault, &half_gone).await.values), ("erased", VALUES as u64));
    for (told, held) in erased {
        assert_eq!(said(&vault, &told).await.held, held);
    }
    store_one(&vault, "borrower.name", "李四", "new").await;
    proven(&bench, vault).await;
}
