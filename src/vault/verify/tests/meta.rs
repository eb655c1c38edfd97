//! Rules, tenants and counters that are not those in force are named, and so is what the vault never writes.

use strongroom_ids::{KeyVersion, KeyringNo, RowId, TenantNo};
use strongroom_storage::keys::{self as place, Counter};
use strongroom_storage::rows::{CounterRow, TenantRow};
use strongroom_storage::{Family, Store};

use super::rig::{Rig, copy, put, remove};
use super::{SYSTEM, TENANT};
use crate::verify::finding::{Fault, Kind, Place};

#[tokio::test]
async fn schema_policy_and_principals_that_are_not_in_force_are_named() {
    let rig = Rig::loaded().await;
    for (key, kind) in [
        (place::schema(TENANT), Kind::Schema),
        (place::policy(TENANT), Kind::Policy),
        (place::principals(), Kind::Principals),
        (place::policy(SYSTEM), Kind::Policy),
    ] {
        let row = rig.store.get(Family::Meta, key.clone()).await.unwrap().unwrap();
        let mut row = row.to_vec();
        row[1] ^= 1;
        let store = copy(&rig.store).await;
        put(&store, Family::Meta, key.clone(), row).await;
        assert_eq!(rig.finds(&store).await, [(kind, Fault::Changed, Place::Only)]);
        let store = copy(&rig.store).await;
        remove(&store, Family::Meta, key).await;
        assert_eq!(rig.finds(&store).await, [(kind, Fault::Missing, Place::Only)]);
    }
    for (key, kind) in [(place::schema(TENANT), Kind::Schema), (place::policy(TENANT), Kind::Policy)] {
        let store = copy(&rig.store).await;
        let old = rig.before.get(Family::Meta, key.clone()).await.unwrap().unwrap();
        put(&store, Family::Meta, key, old.to_vec()).await;
        assert_eq!(rig.finds(&store).await, [(kind, Fault::RolledBack, Place::Only)]);
    }
}

#[tokio::test]
async fn a_tenant_that_was_renamed_removed_or_added_is_named() {
    let rig = Rig::loaded().await;
    let row = rig.store.get(Family::Meta, place::tenant(TENANT)).await.unwrap().unwrap();
    let tenant = TenantRow::decode(&row).unwrap();
    let store = copy(&rig.store).await;
    put(&store, Family::Meta, place::tenant(TENANT), TenantRow { name: "other".into(), ..tenant }.encode()).await;
    let missing = (Kind::Tenant, Fault::Missing, Place::Only);
    assert_eq!(rig.finds(&store).await, [missing.clone(), (Kind::Tenant, Fault::Changed, Place::Only)]);

    let store = copy(&rig.store).await;
    remove(&store, Family::Meta, place::tenant(TENANT)).await;
    let said = rig.finds(&store).await;
    assert_eq!(said[0], missing);
    assert!(said.iter().any(|(kind, fault, _)| (*kind, *fault) == (Kind::Unknown, Fault::Added)), "{said:?}");

    let store = copy(&rig.store).await;
    let key = place::row(TenantNo(9), RowId(1));
    put(&store, Family::Rows, key.clone(), vec![1]).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Unknown, Fault::Added, Place::Key(key))]);
}

#[tokio::test]
async fn counters_that_would_give_out_a_number_twice_are_named() {
    let rig = Rig::loaded().await;
    for counter in [Counter::RowIds, Counter::SubjectHandles, Counter::Seals(KeyringNo(0), KeyVersion(1))] {
        let key = place::counter(TENANT, counter);
        let store = copy(&rig.store).await;
        put(&store, Family::Meta, key.clone(), CounterRow { next: 2 }.encode()).await;
        let rolled_back = (Kind::Counter, Fault::RolledBack, Place::Key(key.clone()));
        assert_eq!(rig.finds(&store).await, std::slice::from_ref(&rolled_back));
        remove(&store, Family::Meta, key.clone()).await;
        assert_eq!(rig.finds(&store).await, std::slice::from_ref(&rolled_back));
        put(&store, Family::Meta, key.clone(), vec![1, 0x80, 0]).await;
        assert_eq!(rig.finds(&store).await, [(Kind::Counter, Fault::Unreadable, Place::Key(key)), rolled_back]);
    }
}

#[tokio::test]
async fn what_the_vault_never_writes_is_named() {
    let rig = Rig::loaded().await;
    for (family, rest) in [
        (Family::Meta, &[99][..]),
        (Family::Meta, &[4, 0, 1]),
        (Family::Rows, &[1, 2]),
        (Family::RowDeks, &[1, 2]),
        (Family::Subjects, &[1, 2]),
        (Family::SubjectRows, &[1, 2]),
        (Family::Holders, &[1, 2]),
        (Family::Idempotency, &[1, 2]),
        (Family::Leaves, &[1, 2]),
        (Family::Tiles, &[1, 2]),
        (Family::LeafIndex, &[1, 2]),
        (Family::Archived, &[1, 2]),
    ] {
        let key = [&TENANT.0.to_be_bytes()[..], rest].concat();
        let store = copy(&rig.store).await;
        put(&store, family, key.clone(), vec![1]).await;
        assert_eq!(rig.finds(&store).await, [(Kind::Unknown, Fault::Added, Place::Key(key))], "{}", family.name());
    }
    let key = place::idempotency(TENANT, &[3; 32]);
    let store = copy(&rig.store).await;
    put(&store, Family::Idempotency, key.clone(), vec![1]).await;
    assert_eq!(rig.finds(&store).await, [(Kind::IdempotencyKey, Fault::Unreadable, Place::Key(key))]);
}
