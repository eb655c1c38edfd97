//! What goes on when a caller does not wait for its answer.

use std::task::{Context, Waker};
use std::time::Duration;

use strongroom_keys::{DekOwner, DekPlace};
use strongroom_storage::rows::RowDek;
use strongroom_storage::{Family, Range, Store, keys as place};

use super::*;

/// Where the DEK of the only value without subject stands.
async fn dek_place(bench: &Bench, vault: &Tested) -> DekPlace {
    let (from, to) = (place::row_dek(TenantNo(1), strongroom_ids::RowId(0)), vec![]);
    let entries = bench.disk.scan(Family::RowDeks, Range { from, to, limit: 10 }).await.unwrap();
    assert_eq!(entries.len(), 1);
    let dek = RowDek::decode(&entries[0].1).unwrap();
    let owner = DekOwner::Value(place::decode_row(&entries[0].0).unwrap());
    DekPlace { tenant: vault.tenant(TenantNo(1)).unwrap().id, keyring: dek.keyring, owner, version: dek.version }
}

/// Sends a request as far as its commit, and hangs up.
fn hang_up<T>(request: impl Future<Output = T>) {
    let mut request = Box::pin(request);
    let polled = request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it waits for its commit");
}

/// Waits until a commit of an action is in the ledger.
async fn committed(vault: &Tested, action: &str) {
    while !leaves(vault).await.iter().any(|leaf| leaf["action"] == action) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_destroyed_dek_leaves_memory_even_when_nobody_waits_for_it() {
    for action in ["delete", "replace"] {
        let (bench, vault) = Bench::new().await;
        // Ids are reserved before, so that the request waits for nothing but its own commit.
        let token = store_one(&vault, "borrower.email", "someone@mail.example", "").await;
        assert!(read_email(&vault, &token).await.is_ok());
        let place = dek_place(&bench, &vault).await;
        assert!(vault.deks.get(&place).is_some());
        let app = caller(Role::App);
        let items = vec![DeleteItem { token: token.clone(), subject: String::new() }];
        let delete = Delete { items, idempotency_key: String::new() };
        let items = vec![NewVersion { token, value: "other@mail.example".to_owned().into(), expires: None }];
        let replace = Replace { items, idempotency_key: String::new() };
        match action {
            "delete" => hang_up(vault.delete(&app, &delete)),
            _ => hang_up(vault.replace(&app, &replace)),
        }
        committed(&vault, action).await;
        // The task that commits is told at the same time as the ledger.
        let forgotten = async {
            while vault.deks.get(&place).is_some() {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), forgotten).await.is_ok(), "{action}");
    }
}

async fn read_email(vault: &Tested, token: &str) -> Result<(), Error> {
    let request = Detokenize { purpose: "loan_servicing".to_owned(), ..read(token, "plain") };
    vault.detokenize(&caller(Role::App), &request).await?.remove(0).map(drop)
}

#[tokio::test]
async fn a_dek_that_was_destroyed_while_a_read_was_under_way_does_not_stay_in_memory() {
    use crate::resolve::Resolved;
    let (bench, vault) = Bench::new().await;
    let app = caller(Role::App);
    let token = store_one(&vault, "borrower.email", "someone@mail.example", "").await;
    let place = dek_place(&bench, &vault).await;
    let request = read(&token, "plain");
    let tenant = vault.tenant(TenantNo(1)).unwrap();
    let road = vault.road(&tenant, &app, &request, [0; 16]).await.unwrap();
    // The row is opened for the token that it keeps sealed, so forget that.
    let resolved = road.resolve(&[&token]).await.unwrap();
    vault.deks.clear();
    let items = vec![DeleteItem { token, subject: String::new() }];
    vault.delete(&app, &Delete { items, idempotency_key: String::new() }).await.unwrap().remove(0).unwrap();
    let Resolved::Value(found) = &resolved[0] else { panic!("it was there") };
    road.open(found, strongroom_keys::Sealed::Value).unwrap();
    assert!(vault.deks.get(&place).is_some());
    drop(road);
    assert!(vault.deks.get(&place).is_none());
}

#[tokio::test]
async fn a_refusal_without_a_leaf_leaves_no_dek_in_memory() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.email", "someone@mail.example", "").await;
    let place = dek_place(&bench, &vault).await;
    let refused = async || {
        vault.deks.clear();
        let read = read_as(&vault, &caller(Role::Rotator), &token, "plain").await;
        assert!(matches!(read, Err(Error::NotFound)));
        vault.deks.get(&place).is_some()
    };
    assert!(refused().await, "its leaf stands on the value being there");
    // More than a caller's budget for refusals.
    for _ in 0..300 {
        refused().await;
    }
    assert!(!refused().await, "nothing says that it was not destroyed meanwhile");
}

#[tokio::test]
async fn a_refusal_that_opened_a_token_stands_on_its_subject() {
    use crate::resolve::Resolved;
    use strongroom_commit::{Fact, Guard};
    let (_bench, vault) = Bench::new().await;
    let app = caller(Role::App);
    let token = store_one(&vault, "borrower.email", "someone@mail.example", "c-1").await;
    let request = read(&token, "plain");
    let tenant = vault.tenant(TenantNo(1)).unwrap();
    let road = vault.road(&tenant, &app, &request, [0; 16]).await.unwrap();
    let resolved = road.resolve(&[&token]).await.unwrap();
    let Resolved::Value(found) = &resolved[0] else { panic!("it is there") };
    let mut guards = vec![];
    resolved[0].guards_if_unwrapped(TenantNo(1), &mut guards);
    assert!(guards.contains(&Guard::Unchanged(Fact::subject_state(TenantNo(1), found.row.subject))));
}
