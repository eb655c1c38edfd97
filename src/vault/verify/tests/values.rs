//! A value that was changed, put back, removed, copied or moved is named, and so are its own DEK and its index entries.

use strongroom_ids::{KeyVersion, RowId};
use strongroom_storage::keys as place;
use strongroom_storage::rows::RowDek;
use strongroom_storage::{Family, Store};

use super::TENANT;
use super::rig::{Rig, Row, copy, put, remove};
use crate::verify::finding::{Fault, Kind, Place};

#[tokio::test]
async fn a_changed_byte_of_a_value_is_named() {
    let rig = Rig::loaded().await;
    for row in [rig.row("borrower.name").await, rig.row("company.uscc").await] {
        let mut bytes = row.bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let store = copy(&rig.store).await;
        put(&store, Family::Rows, row.key(), bytes).await;
        assert_eq!(rig.finds(&store).await, [(Kind::Value, Fault::Changed, Place::Row(row.id))]);
    }
}

#[tokio::test]
async fn every_changed_byte_of_a_value_is_noticed() {
    let rig = Rig::loaded().await;
    let row = rig.row("borrower.bank_card").await;
    for at in 0..row.bytes.len() {
        let mut bytes = row.bytes.to_vec();
        bytes[at] ^= 0x10;
        let store = copy(&rig.store).await;
        put(&store, Family::Rows, row.key(), bytes).await;
        let found = rig.finds(&store).await;
        let place = Place::Row(row.id);
        let named = [(Kind::Value, Fault::Changed, place.clone()), (Kind::Value, Fault::RolledBack, place)];
        assert!(found.len() == 1 && named.contains(&found[0]), "byte {at}: {found:?}");
    }
}

#[tokio::test]
async fn a_value_put_back_to_an_older_version_is_named_even_with_its_old_entries() {
    let rig = Rig::loaded().await;
    for field in ["borrower.id_card", "borrower.address"] {
        let row = rig.replaced(field).await;
        let old = rig.before.get(Family::Rows, row.key()).await.unwrap().unwrap();
        let store = copy(&rig.store).await;
        put(&store, Family::Rows, row.key(), old.to_vec()).await;
        for entry in row.entries(&rig).await {
            remove(&store, Family::Index, entry).await;
        }
        let was = Row { bytes: old, id: row.id };
        for entry in was.entries(&rig).await {
            put(&store, Family::Index, entry, vec![]).await;
        }
        if let Some(dek) = rig.before.get(Family::RowDeks, row.key()).await.unwrap() {
            put(&store, Family::RowDeks, row.key(), dek.to_vec()).await;
        }
        assert_eq!(rig.finds(&store).await, [(Kind::Value, Fault::RolledBack, Place::Row(row.id))], "{field}");
    }
}

#[tokio::test]
async fn a_value_that_was_removed_is_named_even_when_nothing_leads_to_it_any_more() {
    let rig = Rig::loaded().await;
    let row = rig.row("borrower.mobile").await;
    let store = copy(&rig.store).await;
    remove(&store, Family::Rows, row.key()).await;
    let gone = [(Kind::Value, Fault::Missing, Place::Row(row.id))];
    assert_eq!(rig.finds(&store).await, gone);
    for entry in row.entries(&rig).await {
        remove(&store, Family::Index, entry).await;
    }
    remove(&store, Family::SubjectRows, place::subject_row(TENANT, row.value().subject, row.id)).await;
    assert_eq!(rig.finds(&store).await, gone);
}

#[tokio::test]
async fn a_value_that_was_copied_or_brought_back_is_named() {
    let rig = Rig::loaded().await;
    let row = rig.row("borrower.name").await;
    let other = RowId(row.id.0 + 50_000);
    let store = copy(&rig.store).await;
    put(&store, Family::Rows, place::row(TENANT, other), row.bytes.to_vec()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Value, Fault::Added, Place::Row(other))]);

    let deleted = rig.deleted().await;
    let store = copy(&rig.store).await;
    put(&store, Family::Rows, deleted.key(), deleted.bytes.to_vec()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Value, Fault::Added, Place::Row(deleted.id))]);
}

#[tokio::test]
async fn swapped_ciphertexts_are_named_both() {
    let rig = Rig::loaded().await;
    let rows = rig.rows("borrower.name").await;
    let (mut one, mut other) = (rows[0].value(), rows[1].value());
    std::mem::swap(&mut one.sealed, &mut other.sealed);
    let store = copy(&rig.store).await;
    put(&store, Family::Rows, rows[0].key(), one.encode()).await;
    put(&store, Family::Rows, rows[1].key(), other.encode()).await;
    let changed = |row: &Row| (Kind::Value, Fault::Changed, Place::Row(row.id));
    assert_eq!(rig.finds(&store).await, [changed(&rows[0]), changed(&rows[1])]);
}

#[tokio::test]
async fn an_index_entry_that_is_gone_is_named_by_its_value() {
    let rig = Rig::loaded().await;
    for field in ["borrower.id_card", "borrower.bank_card", "company.uscc", "company.settlement_account"] {
        let row = rig.row(field).await;
        let store = copy(&rig.store).await;
        remove(&store, Family::Index, row.entries(&rig).await.remove(0)).await;
        assert_eq!(rig.finds(&store).await, [(Kind::IndexEntry, Fault::Missing, Place::Row(row.id))], "{field}");
    }
}

#[tokio::test]
async fn an_index_entry_that_was_added_or_leads_elsewhere_is_named() {
    let rig = Rig::loaded().await;
    let row = rig.row("borrower.id_card").await;
    let value = row.value();
    let forged = |mac| place::value_index(TENANT, value.field, KeyVersion(1), mac, row.id);
    let store = copy(&rig.store).await;
    put(&store, Family::Index, forged(&[7; 32]), vec![]).await;
    let added = (Kind::IndexEntry, Fault::Added, Place::Row(row.id));
    assert_eq!(rig.finds(&store).await, std::slice::from_ref(&added));

    // A value that is not there.
    let nobody = RowId(row.id.0 + 50_000);
    let store = copy(&rig.store).await;
    let key = place::value_index(TENANT, value.field, KeyVersion(1), &value.indexes[0].mac, nobody);
    put(&store, Family::Index, key, vec![]).await;
    assert_eq!(rig.finds(&store).await, [(Kind::IndexEntry, Fault::Added, Place::Row(nobody))]);

    // Somebody's token is made to lead to somebody else's card.
    let cards = rig.rows("borrower.bank_card").await;
    let store = copy(&rig.store).await;
    put(&store, Family::Index, cards[0].entries(&rig).await.remove(0), place::encode_row_id(cards[1].id)).await;
    let changed = (Kind::IndexEntry, Fault::Changed, Place::Row(cards[0].id));
    let added = (Kind::IndexEntry, Fault::Added, Place::Row(cards[1].id));
    assert_eq!(rig.finds(&store).await, [changed, added]);

    let store = copy(&rig.store).await;
    put(&store, Family::Index, forged(&[7; 32]), vec![1]).await;
    let said = rig.finds(&store).await;
    assert!(matches!(said[..], [(Kind::IndexEntry, Fault::Unreadable, Place::Key(_))]), "{said:?}");
}

#[tokio::test]
async fn a_values_own_dek_that_is_another_gone_or_too_many_is_named() {
    let rig = Rig::loaded().await;
    let row = rig.replaced("borrower.address").await;
    let dek = rig.store.get(Family::RowDeks, row.key()).await.unwrap().unwrap();
    let place = Place::Row(row.id);

    let mut changed = RowDek::decode(&dek).unwrap();
    changed.blob[30] ^= 1;
    let store = copy(&rig.store).await;
    put(&store, Family::RowDeks, row.key(), changed.encode()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Dek, Fault::Changed, place.clone())]);

    let store = copy(&rig.store).await;
    let old = rig.before.get(Family::RowDeks, row.key()).await.unwrap().unwrap();
    put(&store, Family::RowDeks, row.key(), old.to_vec()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Dek, Fault::RolledBack, place.clone())]);

    let store = copy(&rig.store).await;
    remove(&store, Family::RowDeks, row.key()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Dek, Fault::Missing, place)]);

    let owned = rig.row("borrower.name").await;
    for id in [owned.id, RowId(owned.id.0 + 50_000)] {
        let store = copy(&rig.store).await;
        put(&store, Family::RowDeks, place::row_dek(TENANT, id), dek.to_vec()).await;
        assert_eq!(rig.finds(&store).await, [(Kind::Dek, Fault::Added, Place::Row(id))]);
    }
}
