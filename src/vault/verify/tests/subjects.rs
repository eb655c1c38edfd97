//! A subject's id, record, DEK or row that was changed, removed or added is named.

use strongroom_ids::SubjectHandle;
use strongroom_storage::Family;
use strongroom_storage::keys as place;
use strongroom_storage::rows::SubjectRecord;

use super::TENANT;
use super::rig::{Rig, copy, entries, put, remove};
use crate::verify::finding::{Fault, Kind, Place};

#[tokio::test]
async fn a_subjects_id_that_leads_nowhere_or_to_somebody_else_is_named() {
    let rig = Rig::loaded().await;
    let subjects = rig.subjects().await;
    let key = |record: &SubjectRecord| place::subject_id(TENANT, record.id_index.version, &record.id_index.mac);
    let store = copy(&rig.store).await;
    remove(&store, Family::Index, key(&subjects[0])).await;
    let place = |record: &SubjectRecord| Place::Subject(record.handle);
    assert_eq!(rig.finds(&store).await, [(Kind::IndexEntry, Fault::Missing, place(&subjects[0]))]);

    let store = copy(&rig.store).await;
    put(&store, Family::Index, key(&subjects[0]), place::encode_handles(&[subjects[1].handle])).await;
    let changed = (Kind::IndexEntry, Fault::Changed, place(&subjects[0]));
    let added = (Kind::IndexEntry, Fault::Added, place(&subjects[1]));
    assert_eq!(rig.finds(&store).await, [changed, added]);
}

#[tokio::test]
async fn a_subjects_record_that_was_changed_removed_or_added_is_named() {
    let rig = Rig::loaded().await;
    let record = rig.subjects().await.remove(0);
    let key = place::subject(TENANT, record.handle);
    let place = Place::Subject(record.handle);

    let mut changed = record.clone();
    changed.sealed_id[20] ^= 1;
    let store = copy(&rig.store).await;
    put(&store, Family::Subjects, key.clone(), changed.encode()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Subject, Fault::Changed, place.clone())]);

    let store = copy(&rig.store).await;
    remove(&store, Family::Subjects, key).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Subject, Fault::Missing, place)]);

    let other = SubjectHandle(record.handle.0 + 50_000);
    let store = copy(&rig.store).await;
    put(&store, Family::Subjects, place::subject(TENANT, other), record.encode()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Subject, Fault::Added, Place::Subject(other))]);
}

#[tokio::test]
async fn a_subjects_dek_that_is_another_or_gone_is_named() {
    let rig = Rig::loaded().await;
    let subjects = rig.subjects().await;
    let key = place::subject(TENANT, subjects[0].handle);
    let mut swapped = subjects[0].clone();
    swapped.deks[1].blob = subjects[1].deks[1].blob.clone();
    let store = copy(&rig.store).await;
    put(&store, Family::Subjects, key.clone(), swapped.encode()).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Dek, Fault::Changed, Place::Subject(subjects[0].handle))]);

    let mut without = subjects[0].clone();
    let keyring = without.deks.pop().unwrap().keyring;
    let store = copy(&rig.store).await;
    put(&store, Family::Subjects, key, without.encode()).await;
    let mut said = rig.finds(&store).await;
    said.dedup_by_key(|(kind, fault, _)| (*kind, *fault));
    assert!(matches!(said[..], [(Kind::Dek, Fault::Missing, Place::Row(_))]), "keyring {keyring}: {said:?}");
}

#[tokio::test]
async fn a_holder_or_a_subjects_row_that_is_gone_or_added_is_named() {
    let rig = Rig::loaded().await;
    let row = rig.row("company.uscc").await;
    let nobody = SubjectHandle(1 << 48 | 60_000);
    for (family, kind) in [(Family::Holders, Kind::Holder), (Family::SubjectRows, Kind::SubjectRow)] {
        let key = |subject| match family {
            Family::Holders => place::holder(TENANT, row.id, subject),
            _ => place::subject_row(TENANT, subject, row.id),
        };
        let (_, holders) = place::holders_range(TENANT, row.id);
        let held = entries(&rig.store, Family::Holders, TENANT).await;
        let subjects = held.iter().filter(|(key, _)| **key < *holders && key[..12] == row.key()[..]);
        let subjects: Vec<SubjectHandle> = subjects.map(|(key, _)| place::decode_holder(key).unwrap()).collect();
        assert_eq!(subjects.len(), 2, "the load leaves it two holders");
        for subject in subjects {
            let store = copy(&rig.store).await;
            remove(&store, family, key(subject)).await;
            assert_eq!(rig.finds(&store).await, [(kind, Fault::Missing, Place::Row(row.id))]);
        }
        let store = copy(&rig.store).await;
        put(&store, family, key(nobody), vec![]).await;
        assert_eq!(rig.finds(&store).await, [(kind, Fault::Added, Place::Row(row.id))]);
    }
    // A value of one subject only is nobody's to share.
    let name = rig.row("borrower.name").await;
    let store = copy(&rig.store).await;
    put(&store, Family::Holders, place::holder(TENANT, name.id, name.value().subject), vec![]).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Holder, Fault::Added, Place::Row(name.id))]);
}
