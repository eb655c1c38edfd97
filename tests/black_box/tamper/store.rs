//! Attacks on rows of the store: values, what leads to them, subjects, keys and rules.

use std::path::Path;

use strongroom_ids::{FieldNo, KeyVersion, RowId, TenantNo};
use strongroom_storage::rows::ValueRow;
use strongroom_storage::{Family, Mutation, keys as place};

use super::Place;
use super::stage::{ID_CARD, MOBILE, NAME, Stage, TENANT, write};

fn at_row(id: RowId) -> Place {
    Some(("row", id.to_string()))
}

fn put_row(id: RowId, row: &ValueRow) -> Mutation {
    Mutation::Put(Family::Rows, place::row(TENANT, id), row.encode())
}

/// The keys of a value's index entries.
fn entries(id: RowId, row: &ValueRow) -> impl Iterator<Item = Vec<u8>> {
    row.indexes.iter().map(move |entry| place::value_index(TENANT, row.field, entry.version, &entry.mac, id))
}

/// The value that was replaced: as it was, and as it is.
fn replaced(stage: &Stage) -> (RowId, ValueRow, ValueRow) {
    let ((id, was), (_, is)) = (stage.before.values(ID_CARD).remove(0), stage.now.values(ID_CARD).remove(0));
    assert_eq!((was.version.0, is.version.0), (1, 2));
    (id, was, is)
}

pub fn value_changed(stage: &Stage, vault: &Path) -> Place {
    let (id, mut row) = stage.now.values(NAME).remove(0);
    row.sealed[20] ^= 1;
    write(vault, vec![put_row(id, &row)]);
    at_row(id)
}

pub fn value_put_back_to_an_older_version(stage: &Stage, vault: &Path) -> Place {
    let (id, was, is) = replaced(stage);
    let mut mutations = vec![put_row(id, &was)];
    mutations.extend(entries(id, &is).map(|key| Mutation::Delete(Family::Index, key)));
    mutations.extend(entries(id, &was).map(|key| Mutation::Put(Family::Index, key, vec![])));
    write(vault, mutations);
    at_row(id)
}

pub fn value_removed_with_all_that_leads_to_it(stage: &Stage, vault: &Path) -> Place {
    let (id, _, row) = replaced(stage);
    let mut mutations = vec![Mutation::Delete(Family::Rows, place::row(TENANT, id))];
    mutations.extend(entries(id, &row).map(|key| Mutation::Delete(Family::Index, key)));
    mutations.push(Mutation::Delete(Family::SubjectRows, place::subject_row(TENANT, row.subject, id)));
    write(vault, mutations);
    at_row(id)
}

pub fn value_copied_to_another_row(stage: &Stage, vault: &Path) -> Place {
    let (id, row) = stage.now.values(NAME).remove(0);
    let other = RowId(id.0 + 60_000);
    write(vault, vec![put_row(other, &row)]);
    at_row(other)
}

pub fn value_moved_to_another_row(stage: &Stage, vault: &Path) -> Place {
    let (id, row) = stage.now.values(NAME).remove(0);
    write(vault, vec![put_row(RowId(id.0 + 60_000), &row), Mutation::Delete(Family::Rows, place::row(TENANT, id))]);
    at_row(id)
}

pub fn values_swapped(stage: &Stage, vault: &Path) -> Place {
    let names = stage.now.values(NAME);
    let [(one, of_one), (other, of_other), ..] = &names[..] else { panic!("too few names") };
    write(vault, vec![put_row(*one, of_other), put_row(*other, of_one)]);
    at_row(*one)
}

pub fn value_moved_to_another_subject(stage: &Stage, vault: &Path) -> Place {
    let mut names = stage.now.values(NAME);
    let (_, one) = names.remove(0);
    let (id, mut other) = names.into_iter().find(|(_, name)| name.subject != one.subject).unwrap();
    other.sealed = one.sealed;
    write(vault, vec![put_row(id, &other)]);
    at_row(id)
}

pub fn value_moved_to_another_field(stage: &Stage, vault: &Path) -> Place {
    let (id, row) = stage.now.values(NAME).remove(0);
    write(vault, vec![put_row(id, &ValueRow { field: FieldNo(10), ..row })]);
    at_row(id)
}

pub fn value_copied_to_another_tenant(stage: &Stage, vault: &Path) -> Place {
    let (id, row) = stage.now.values(NAME).remove(0);
    write(vault, vec![Mutation::Put(Family::Rows, place::row(TenantNo(0), id), row.encode())]);
    at_row(id)
}

pub fn deleted_value_put_back(stage: &Stage, vault: &Path) -> Place {
    assert!(stage.now.values(MOBILE).is_empty());
    let (id, row) = stage.before.values(MOBILE).remove(0);
    let mut mutations = vec![put_row(id, &row)];
    mutations.extend(entries(id, &row).map(|key| Mutation::Put(Family::Index, key, vec![])));
    mutations.push(Mutation::Put(Family::SubjectRows, place::subject_row(TENANT, row.subject, id), vec![]));
    write(vault, mutations);
    at_row(id)
}

pub fn index_entry_removed(stage: &Stage, vault: &Path) -> Place {
    let (id, _, row) = replaced(stage);
    write(vault, entries(id, &row).map(|key| Mutation::Delete(Family::Index, key)).collect());
    at_row(id)
}

pub fn index_entry_added(stage: &Stage, vault: &Path) -> Place {
    let (id, ..) = replaced(stage);
    let key = place::value_index(TENANT, ID_CARD, KeyVersion(1), &[7; 32], id);
    write(vault, vec![Mutation::Put(Family::Index, key, vec![])]);
    at_row(id)
}

pub fn subjects_id_leads_to_another(stage: &Stage, vault: &Path) -> Place {
    let [one, other] = stage.now.subjects();
    let key = place::subject_id(TENANT, one.id_index.version, &one.id_index.mac);
    write(vault, vec![Mutation::Put(Family::Index, key, place::encode_handles(&[other.handle]))]);
    Some(("subject", one.handle.to_string()))
}

pub fn subject_put_back_to_older_labels(stage: &Stage, vault: &Path) -> Place {
    let ([was, _], [is, _]) = (stage.before.subjects(), stage.now.subjects());
    assert!(was.handle == is.handle && was.labels != is.labels);
    write(vault, vec![Mutation::Put(Family::Subjects, place::subject(TENANT, is.handle), was.encode())]);
    Some(("subject", is.handle.to_string()))
}

pub fn wrapped_dek_of_another_subject(stage: &Stage, vault: &Path) -> Place {
    let [mut one, other] = stage.now.subjects();
    let keyring = other.deks[0].keyring;
    let dek = one.deks.iter_mut().find(|dek| dek.keyring == keyring).unwrap();
    dek.blob.clone_from(&other.deks[0].blob);
    write(vault, vec![Mutation::Put(Family::Subjects, place::subject(TENANT, one.handle), one.encode())]);
    Some(("subject", one.handle.to_string()))
}

pub fn holder_removed(stage: &Stage, vault: &Path) -> Place {
    let (key, id) = stage.now.holder();
    write(vault, vec![Mutation::Delete(Family::Holders, key)]);
    at_row(id)
}

/// A row of the tenant's rules, as it was.
fn put_back(stage: &Stage, vault: &Path, key: Vec<u8>) -> Place {
    let (was, is) = (stage.before.get(Family::Meta, &key), stage.now.get(Family::Meta, &key));
    assert_ne!(was, is);
    write(vault, vec![Mutation::Put(Family::Meta, key, was)]);
    None
}

pub fn policy_put_back(stage: &Stage, vault: &Path) -> Place {
    put_back(stage, vault, place::policy(TENANT))
}

pub fn schema_put_back(stage: &Stage, vault: &Path) -> Place {
    put_back(stage, vault, place::schema(TENANT))
}

pub fn freezes_put_back(stage: &Stage, vault: &Path) -> Place {
    put_back(stage, vault, place::freezes(TENANT))
}

pub fn tiers_put_back(stage: &Stage, vault: &Path) -> Place {
    put_back(stage, vault, place::tiers(TENANT))
}

pub fn freezes_removed(_: &Stage, vault: &Path) -> Place {
    write(vault, vec![Mutation::Delete(Family::Meta, place::freezes(TENANT))]);
    None
}

pub fn schema_changed(stage: &Stage, vault: &Path) -> Place {
    let key = place::schema(TENANT);
    let mut row = stage.now.get(Family::Meta, &key);
    row[5] ^= 1;
    write(vault, vec![Mutation::Put(Family::Meta, key, row)]);
    None
}
