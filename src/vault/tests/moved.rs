//! Rows that were moved, copied or put back behind the vault's back: verification says which row it is, and by which leaf.

use strongroom_ids::{RowId, SubjectHandle};
use strongroom_ledger::leaf::{self, ParsedLeaf};
use strongroom_storage::rows::ValueRow;
use strongroom_storage::{Entry, Family, Mutation, Range, Store, keys as place};

use super::*;
use crate::{Fault, Finding, HeadFile, Kind, Place, SetLabels, Verification, verify_listing};

const TENANT: TenantNo = TenantNo(1);
const FAR: u64 = 50_000;

async fn all(bench: &Bench, family: Family) -> Vec<Entry> {
    let from = TENANT.0.to_be_bytes().to_vec();
    let to = place::prefix_end(&from);
    bench.disk.scan(family, Range { from, to, limit: usize::MAX }).await.unwrap()
}

/// The values, in order.
async fn rows(bench: &Bench) -> Vec<(RowId, Vec<u8>)> {
    let rows = all(bench, Family::Rows).await;
    rows.iter().map(|(key, row)| (place::decode_row(key).unwrap(), row.to_vec())).collect()
}

async fn write(bench: &Bench, mutations: Vec<Mutation>) {
    bench.disk.write(mutations).await.unwrap();
}

fn put(row: RowId, bytes: &[u8]) -> Mutation {
    Mutation::Put(Family::Rows, place::row(TENANT, row), bytes.to_vec())
}

fn gone(row: RowId) -> Mutation {
    Mutation::Delete(Family::Rows, place::row(TENANT, row))
}

/// The newest leaf with an item of this outcome, of this row if there is one.
async fn leaf_of(bench: &Bench, outcome: &str, row: Option<RowId>) -> u64 {
    let leaves = all(bench, Family::Leaves).await;
    let mut leaves = leaves.iter().map(|(_, line)| leaf::parse(line).unwrap());
    let has = |leaf: &ParsedLeaf| leaf.items.iter().any(|item| item.outcome == outcome && item.row == row);
    leaves.rfind(has).unwrap().index
}

type Said = (Kind, Fault, Place, Option<u64>, Option<Place>);

/// What is said of a finding but for words: which leaf of the tenant's own log, and where else.
fn said(found: &[Finding]) -> Vec<Said> {
    let said = found.iter().map(|one| {
        assert!(one.leaf.as_ref().is_none_or(|leaf| *leaf.log == *one.tenant && &*leaf.log == "demo"), "{one:?}");
        let leaf = one.leaf.as_ref().map(|leaf| leaf.index);
        (one.kind, one.fault, one.place.clone(), leaf, one.elsewhere.clone())
    });
    said.collect()
}

async fn three() -> (Bench, Vec<(RowId, Vec<u8>)>) {
    let (bench, vault) = Bench::new().await;
    for name in ["Ann", "Bob", "Eve"] {
        store_one(&vault, "borrower.name", name, "c-1").await;
    }
    vault.close().await;
    let rows = rows(&bench).await;
    assert_eq!((rows.len(), findings(&bench, &[]).await), (3, vec![]));
    (bench, rows)
}

#[tokio::test]
async fn a_row_that_was_moved_is_one_finding_with_both_places() {
    let (bench, rows) = three().await;
    let ((ann, row), far) = (&rows[0], RowId(rows[0].0.0 + FAR));
    write(&bench, vec![gone(*ann), put(far, row)]).await;
    let leaf = leaf_of(&bench, "ok", Some(*ann)).await;
    let moved = (Kind::Value, Fault::Moved, Place::Row(*ann), Some(leaf), Some(Place::Row(far)));
    assert_eq!(said(&findings(&bench, &[]).await), std::slice::from_ref(&moved));
    // A second one of it is a copy.
    let farther = RowId(far.0 + 1);
    write(&bench, vec![put(farther, row)]).await;
    let copy = (Kind::Value, Fault::Added, Place::Row(farther), Some(leaf), Some(Place::Row(*ann)));
    assert_eq!(said(&findings(&bench, &[]).await), [moved, copy]);
}

#[tokio::test]
async fn rows_that_were_swapped_and_one_that_stands_over_another_are_tied_together() {
    let (bench, rows) = three().await;
    let [(ann, anns), (bob, bobs), _] = &rows[..] else { panic!("{rows:?}") };
    write(&bench, vec![put(*ann, bobs), put(*bob, anns)]).await;
    let (first, second) = (leaf_of(&bench, "ok", Some(*ann)).await, leaf_of(&bench, "ok", Some(*bob)).await);
    let value = |fault, row: RowId, leaf, other: RowId| {
        (Kind::Value, fault, Place::Row(row), Some(leaf), Some(Place::Row(other)))
    };
    let swapped = [value(Fault::Moved, *bob, second, *ann), value(Fault::Moved, *ann, first, *bob)];
    assert_eq!(said(&findings(&bench, &[]).await), swapped);
    write(&bench, vec![gone(*ann)]).await;
    let over = [value(Fault::Moved, *ann, first, *bob), value(Fault::Changed, *bob, second, *ann)];
    assert_eq!(said(&findings(&bench, &[]).await), over);
    write(&bench, vec![put(*ann, anns)]).await;
    assert_eq!(said(&findings(&bench, &[]).await), [value(Fault::Changed, *bob, second, *ann)], "a copy");
}

#[tokio::test]
async fn what_was_deleted_and_is_there_again_names_the_leaf_that_removed_it() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let (row, bytes) = rows(&bench).await.remove(0);
    let items = vec![DeleteItem { token, subject: String::new() }];
    let delete = Delete { items, idempotency_key: String::new() };
    vault.delete(&caller(Role::App), &delete).await.unwrap().remove(0).unwrap();
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
    let (stored, removed) = (leaf_of(&bench, "ok", Some(row)).await, leaf_of(&bench, "deleted", Some(row)).await);
    let entry = ValueRow::decode(&bytes).unwrap().indexes[0];
    let key = place::value_index(TENANT, ValueRow::decode(&bytes).unwrap().field, entry.version, &entry.mac, row);
    write(&bench, vec![put(row, &bytes), Mutation::Put(Family::Index, key, vec![])]).await;
    let found = findings(&bench, &[]).await;
    let added = |kind| (kind, Fault::Added, Place::Row(row), Some(removed), None);
    assert_eq!(said(&found), [added(Kind::Value), added(Kind::IndexEntry)]);
    let what = &found[0].what;
    assert!(what.contains(&format!("leaf {removed} removed it; leaf {stored} wrote what stands here")), "{what}");
}

#[tokio::test]
async fn an_index_entry_that_is_gone_names_the_leaf_of_its_row() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    vault.close().await;
    let (row, _) = rows(&bench).await.remove(0);
    let leads = |key: &[u8]| place::decode_value_index(key).is_ok_and(|to| to == row);
    let entries = all(&bench, Family::Index).await;
    let entry = entries.iter().find(|(key, held)| held.is_empty() && leads(key)).unwrap().0.to_vec();
    write(&bench, vec![Mutation::Delete(Family::Index, entry)]).await;
    let leaf = leaf_of(&bench, "ok", Some(row)).await;
    let missing = (Kind::IndexEntry, Fault::Missing, Place::Row(row), Some(leaf), None);
    assert_eq!(said(&findings(&bench, &[]).await), [missing]);
}

#[tokio::test]
async fn a_subjects_record_that_is_an_older_one_is_rolled_back_and_one_elsewhere_is_moved() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "Ann", "c-1").await;
    let (key, before) = all(&bench, Family::Subjects).await.remove(0);
    let labels = SetLabels { subject: "c-1".to_owned(), labels: vec!["branch-12".to_owned()] };
    assert!(vault.set_labels(&caller(Role::Privacy), &labels).await.unwrap());
    vault.close().await;
    let handle = place::decode_subject(&key).unwrap();
    let now = bench.disk.get(Family::Subjects, key.to_vec()).await.unwrap().unwrap();
    assert_ne!(now, before);
    let newest = leaf_of(&bench, "subject_labelled", None).await;
    let subject = |fault, elsewhere| (Kind::Subject, fault, Place::Subject(handle), Some(newest), elsewhere);

    write(&bench, vec![Mutation::Put(Family::Subjects, key.to_vec(), before.to_vec())]).await;
    let found = findings(&bench, &[]).await;
    assert_eq!(said(&found), [subject(Fault::RolledBack, None)]);
    assert!(found[0].what.contains("wrote what stands here"), "{}", found[0].what);

    let far = SubjectHandle(handle.0 + FAR);
    let there = Mutation::Put(Family::Subjects, place::subject(TENANT, far), now.to_vec());
    write(&bench, vec![Mutation::Delete(Family::Subjects, key.to_vec()), there]).await;
    let said = said(&findings(&bench, &[]).await);
    assert!(said.contains(&subject(Fault::Moved, Some(Place::Subject(far)))), "{said:?}");
    assert!(
        !said.iter().any(|one| matches!((one.0, one.1), (Kind::Subject, Fault::Added | Fault::Missing))),
        "{said:?}"
    );
}

#[tokio::test]
async fn what_was_found_before_a_damaged_page_is_said_and_nothing_is_called_moved_that_may_stand_behind_it() {
    let (bench, vault) = Bench::new().await;
    // More than a page.
    for number in 0..80 {
        store_one(&vault, "borrower.name", &format!("Ann {number}"), "c-1").await;
    }
    vault.close().await;
    let rows = rows(&bench).await;
    let (first, second, last) = (&rows[0], &rows[1], &rows[79]);
    let mut other = first.1.clone();
    *other.last_mut().unwrap() ^= 1;
    write(&bench, vec![put(first.0, &other), put(second.0, &last.1)]).await;
    let found = findings_damaged(&bench, Family::Rows, place::row(TENANT, rows[70].0)).await;
    let mut leaves = Vec::new();
    for row in [first.0, second.0] {
        leaves.push(leaf_of(&bench, "ok", Some(row)).await);
    }
    let changed = |row, leaf, elsewhere| (Kind::Value, Fault::Changed, Place::Row(row), Some(leaf), elsewhere);
    let mut values = said(&found);
    values.retain(|one| one.0 == Kind::Value);
    let copy = Some(Place::Row(last.0));
    assert_eq!(values, [changed(first.0, leaves[0], None), changed(second.0, leaves[1], copy)], "{found:?}");
    assert!(
        found.iter().any(|one| one.fault == Fault::Unreadable && one.what.contains("damaged in rows")),
        "{found:?}"
    );
}

#[tokio::test]
async fn findings_that_are_not_listed_are_counted_by_kind_and_fault() {
    let (bench, rows) = three().await;
    for (row, bytes) in &rows {
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        write(&bench, vec![put(*row, &other), put(RowId(row.0 + FAR), &other)]).await;
    }
    let keystore = Keystore::open(bench.folder.path(), &root()).unwrap();
    let head_file = HeadFile::read(&bench.folder.path().join("head"));
    let (store, checkpoints) = (&bench.disk, &[]);
    for most in [0, 2, 4, 5, usize::MAX] {
        let verification =
            Verification { store, keystore: &keystore, head_file: &head_file, checkpoints, threads: THREADS };
        let report = verify_listing(&verification, None, most, &mut |_| {}).await.unwrap();
        assert_eq!((report.findings.len(), report.left_out), (most.min(6), 6 - most.min(6) as u64));
        let counted: Vec<_> = report.counted.into_iter().collect();
        let value = |fault, count| ((Kind::Value, fault), count);
        assert_eq!(counted, [value(Fault::Changed, 3), value(Fault::Added, 3)], "{most}");
    }
}
