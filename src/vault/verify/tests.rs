//! Everything that somebody may do to the files of a stopped vault, without its keys, is named.

mod rig;

use rig::{Rig, Row, copy, entries, put, remove};
use strongroom_ids::{KeyVersion, KeyringNo, RowId, SubjectHandle, TenantNo};
use strongroom_ledger::leaf::{LeafHeader, LeafItem, prepare};
use strongroom_ledger::{Frontier, NewRule, Rules, Timestamp, leaf, leaf_hash};
use strongroom_storage::keys::{self as place, Counter};
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::rows::{CounterRow, IndexEntry, LaneHead, RowDek, SubjectRecord, TenantRow, ValueRow};
use strongroom_storage::{Family, Store};

use super::HeadFile;
use super::finding::{Fault, Kind, Place};
use super::state::{self, State};
use crate::tests::rig::THREADS;
use crate::values::entry_key;

const TENANT: TenantNo = TenantNo(1);
const SYSTEM: TenantNo = TenantNo(0);

type Said = (Kind, Fault, Place);

#[tokio::test]
async fn a_vault_that_nobody_touched_verifies_after_all_kinds_of_requests() {
    let rig = Rig::loaded().await;
    let report = rig.report(&rig.store).await;
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let (_, counts) = report.tenants.iter().find(|(name, _)| &**name == "demo").unwrap();
    let rows = entries(&rig.store, Family::Rows, TENANT).await.len() as u64;
    assert_eq!(counts.values, rows);
    assert_eq!(counts.signed_leaves, counts.leaves);
    assert_eq!(counts.index_entries, entries(&rig.store, Family::Index, TENANT).await.len() as u64);
    let holders = entries(&rig.store, Family::Holders, TENANT).await.len();
    assert_eq!(holders, 3, "the load has shared values");
    assert_eq!(counts.holders, (holders + entries(&rig.store, Family::SubjectRows, TENANT).await.len()) as u64);
    assert!(counts.idempotency_keys > 0 && counts.deks > 0 && counts.subjects > 1);
    assert_eq!(report.tenants.len(), 2);
}

#[tokio::test]
async fn a_state_that_was_written_goes_on_as_the_leaves_would() {
    let rig = Rig::loaded().await;
    for tenant in [TENANT, SYSTEM] {
        let (mut whole, mut again) = (State::default(), State::default());
        for (_, line) in entries(&rig.store, Family::Leaves, tenant).await {
            let parsed = leaf::parse(&line).unwrap();
            let hash = leaf_hash(&line);
            assert!(whole.take(&parsed, hash).is_empty() && again.take(&parsed, hash).is_empty());
            let written = state::tests::lines(&again);
            assert_eq!(written, state::tests::lines(&whole), "after leaf {}", parsed.index);
            again = state::tests::read(&written).unwrap();
        }
        let kinds = ["policy ", "older_policy ", "schema ", "subject ", "value ", "holder "];
        let written = state::tests::lines(&whole);
        let has = |kind: &&str| written.iter().any(|line| line.starts_with(*kind));
        assert!(tenant == SYSTEM || kinds.iter().all(has), "{written:#?}");
    }
}

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

#[tokio::test]
async fn a_changed_leaf_is_named_or_its_range_is() {
    let rig = Rig::loaded().await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    // The last is a subtree of its own if the log has an odd size; the load sees to that.
    assert_eq!(leaves.len() % 2, 1);
    let last = leaves.len() as u64 - 1;
    for index in [1, 5, last] {
        let (key, line) = &leaves[index as usize];
        let forged = String::from_utf8(line.to_vec()).unwrap().replacen("\"client\":\"", "\"client\":\"x", 1);
        leaf::parse(forged.as_bytes()).unwrap();
        let store = copy(&rig.store).await;
        put(&store, Family::Leaves, key.to_vec(), forged.into_bytes()).await;
        let said = rig.finds(&store).await;
        let named = (Kind::Leaf, Fault::Changed, Place::Leaf(last));
        let ranged = (Kind::Log, Fault::Changed, Place::Only);
        assert_eq!(said, [if index == last { named } else { ranged.clone() }, ranged], "leaf {index}");

        let store = copy(&rig.store).await;
        let broken = [&line[..], b" "].concat();
        put(&store, Family::Leaves, key.to_vec(), broken).await;
        assert_eq!(rig.finds(&store).await[0], (Kind::Leaf, Fault::Changed, Place::Leaf(index)));
    }
}

#[tokio::test]
async fn leaves_that_are_missing_moved_or_added_are_named() {
    let rig = Rig::loaded().await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let index = rig.leaf_of("detokenize").await;
    let store = copy(&rig.store).await;
    remove(&store, Family::Leaves, place::leaf(TENANT, index)).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Leaf, Fault::Missing, Place::Leaf(index))]);

    let next = index + 1;
    let store = copy(&rig.store).await;
    put(&store, Family::Leaves, place::leaf(TENANT, index), leaves[next as usize].1.to_vec()).await;
    put(&store, Family::Leaves, place::leaf(TENANT, next), leaves[index as usize].1.to_vec()).await;
    let said = rig.finds(&store).await;
    for moved in [index, next] {
        assert!(said.contains(&(Kind::Leaf, Fault::Changed, Place::Leaf(moved))), "{said:?}");
    }

    let end = leaves.len() as u64;
    let store = copy(&rig.store).await;
    let line = forged(end, "replace", &[], &[]);
    put(&store, Family::Leaves, place::leaf(TENANT, end), line).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Leaf, Fault::Added, Place::Leaf(end))]);

    let store = copy(&rig.store).await;
    remove(&store, Family::Leaves, place::leaf(TENANT, end - 1)).await;
    let said = rig.finds(&store).await;
    assert!(said.contains(&(Kind::Leaf, Fault::Missing, Place::Leaf(end - 1))), "{said:?}");
}

#[tokio::test]
async fn a_last_leaf_removed_together_with_the_logs_head_is_seen_by_the_head_file() {
    let rig = Rig::loaded().await;
    let store = copy(&rig.store).await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let end = leaves.len() - 1;
    remove(&store, Family::Leaves, place::leaf(TENANT, end as u64)).await;
    let time = leaf::parse(&leaves[end - 1].1).unwrap().time.0;
    set_head(&store, leaves[..end].iter().map(|(_, line)| &line[..]), time).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Log, Fault::RolledBack, Place::Only)]);
}

#[tokio::test]
async fn a_logs_head_that_was_changed_or_removed_is_named() {
    let rig = Rig::loaded().await;
    let key = place::lane(TENANT, 0);
    let head = LaneHead::decode(&rig.store.get(Family::Meta, key.clone()).await.unwrap().unwrap()).unwrap();
    let mut frontier = head.frontier.clone();
    *frontier.last_mut().unwrap() ^= 1;
    let rules = Rules::default().to_bytes();
    for changed in [
        LaneHead { frontier, ..head.clone() },
        LaneHead { time: head.time + 1, ..head.clone() },
        LaneHead { rules, ..head.clone() },
    ] {
        let store = copy(&rig.store).await;
        put(&store, Family::Meta, key.clone(), changed.encode()).await;
        assert_eq!(rig.finds(&store).await, [(Kind::Log, Fault::Changed, Place::Only)]);
    }
    let store = copy(&rig.store).await;
    remove(&store, Family::Meta, key).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Log, Fault::Missing, Place::Only)]);
}

#[tokio::test]
async fn a_store_put_back_as_a_whole_is_seen_by_the_head_file_and_with_it_by_a_checkpoint_kept_elsewhere() {
    let rig = Rig::loaded().await;
    let rolled_back = [(Kind::Log, Fault::RolledBack, Place::Only)];
    assert_eq!(rig.finds(&rig.before).await, rolled_back);
    std::fs::write(rig.head(), &rig.head_before).unwrap();
    assert!(rig.finds(&rig.before).await.is_empty(), "from within, nobody can tell");
    let said = rig.checked(&rig.before, std::slice::from_ref(&rig.checkpoint)).await.unwrap();
    assert_eq!(said.findings.len(), 1);
    assert_eq!(said.findings[0].fault, Fault::RolledBack);
    let untouched = rig.checked(&rig.store, std::slice::from_ref(&rig.checkpoint)).await.unwrap();
    assert!(untouched.findings.is_empty(), "{:?}", untouched.findings);
    let unsigned = untouched.tenants.iter().find(|(name, _)| &**name == "demo").unwrap();
    assert!(unsigned.1.signed_leaves < unsigned.1.leaves, "the old head file signs fewer");
}

#[tokio::test]
async fn a_checkpoint_of_another_vault_is_refused() {
    let (rig, other) = (Rig::loaded().await, Rig::loaded().await);
    let error = rig.checked(&rig.store, std::slice::from_ref(&other.checkpoint)).await.unwrap_err().to_string();
    assert!(error.starts_with("checkpoint 1 of those given"), "{error}");
}

#[tokio::test]
async fn a_head_file_that_is_missing_changed_or_of_another_vault_is_named() {
    let (rig, other) = (Rig::loaded().await, Rig::loaded().await);
    std::fs::copy(other.head(), rig.head()).unwrap();
    assert_eq!(rig.finds(&rig.store).await, [(Kind::Log, Fault::Changed, Place::Only)]);
    std::fs::remove_file(rig.head()).unwrap();
    assert_eq!(rig.finds(&rig.store).await, [(Kind::Log, Fault::Missing, Place::Only)]);
}

#[tokio::test]
async fn a_store_that_says_it_has_never_had_a_leaf_is_not_new_but_emptied() {
    let rig = Rig::loaded().await;
    std::fs::remove_file(rig.head()).unwrap();
    let store = copy(&rig.store).await;
    for tenant in [SYSTEM, TENANT] {
        for family in [Family::Leaves, Family::Rows, Family::Subjects] {
            for (key, _) in entries(&store, family, tenant).await {
                remove(&store, family, key.to_vec()).await;
            }
        }
        let empty = LaneHead { incarnation: 1, size: 0, time: 0, frontier: vec![], rules: vec![] };
        put(&store, Family::Meta, place::lane(tenant, 0), empty.encode()).await;
    }
    let said = rig.finds(&store).await;
    assert!(said.contains(&(Kind::Log, Fault::Missing, Place::Only)), "the head file is missing: {said:?}");
    assert!(said.contains(&(Kind::Leaf, Fault::Missing, Place::Leaf(0))), "{said:?}");
}

#[tokio::test]
async fn a_forged_leaf_that_records_an_older_version_contradicts_the_log() {
    let rig = Rig::loaded().await;
    let row = rig.replaced("borrower.id_card").await;
    let old = rig.before.get(Family::Rows, row.key()).await.unwrap().unwrap();
    let hash = crate::values::row_hash(&old);
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let end = leaves.len() as u64;
    let item = LeafItem {
        row: Some(row.id),
        outcome: "ok",
        version: Some(strongroom_ids::RowVersion(1)),
        hash: Some(&hash),
        ..LeafItem::default()
    };
    let line = forged(end, "replace", &[], &[item]);
    let store = copy(&rig.store).await;
    put(&store, Family::Rows, row.key(), old.to_vec()).await;
    put(&store, Family::Leaves, place::leaf(TENANT, end), line.clone()).await;
    let lines = leaves.iter().map(|(_, line)| &line[..]).chain([&line[..]]);
    set_head(&store, lines, FORGED_AT).await;
    let said = rig.finds(&store).await;
    assert_eq!(said[0], (Kind::Leaf, Fault::Changed, Place::Leaf(end)), "{said:?}");
}

#[tokio::test]
async fn a_leaf_in_good_form_that_came_after_an_orderly_stop_is_named_and_after_a_crash_it_is_counted() {
    let rig = Rig::loaded().await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let end = leaves.len() as u64;
    let line = forged(end, "detokenize", &[], &[]);
    let store = copy(&rig.store).await;
    put(&store, Family::Leaves, place::leaf(TENANT, end), line.clone()).await;
    set_head(&store, leaves.iter().map(|(_, line)| &line[..]).chain([&line[..]]), FORGED_AT).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Leaf, Fault::Added, Place::Leaf(end))]);
    std::fs::write(rig.head(), &rig.head_before).unwrap();
    let report = rig.report(&store).await;
    let (_, counts) = report.tenants.iter().find(|(name, _)| &**name == "demo").unwrap();
    assert!(report.findings.is_empty() && counts.signed_leaves < counts.leaves, "{:?}", report.findings);
}

#[tokio::test]
async fn a_forged_leaf_that_brings_an_older_policy_back_contradicts_the_log() {
    let rig = Rig::loaded().await;
    let key = place::policy(TENANT);
    let old = rig.before.get(Family::Meta, key.clone()).await.unwrap().unwrap();
    let hash = data_encoding::HEXLOWER.encode(&crate::values::row_hash(&old));
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let end = leaves.len() as u64;
    let line = forged(end, "apply_policy", &[("version", "1"), ("sha256", &hash)], &[]);
    let store = copy(&rig.store).await;
    put(&store, Family::Meta, key, old.to_vec()).await;
    put(&store, Family::Leaves, place::leaf(TENANT, end), line.clone()).await;
    set_head(&store, leaves.iter().map(|(_, line)| &line[..]).chain([&line[..]]), FORGED_AT).await;
    let named = [
        (Kind::Leaf, Fault::Changed, Place::Leaf(end)),
        (Kind::Leaf, Fault::Added, Place::Leaf(end)),
        (Kind::Policy, Fault::RolledBack, Place::Only),
    ];
    assert_eq!(rig.finds(&store).await, named);
}

#[tokio::test]
async fn any_number_of_threads_finds_and_counts_the_same_in_the_same_order() {
    let rig = Rig::loaded().await;
    let damaged = copy(&rig.store).await;
    for (family, each) in
        [(Family::Rows, 7), (Family::Subjects, 5), (Family::Index, 3), (Family::RowDeks, 2), (Family::SubjectRows, 11)]
    {
        let all = entries(&rig.store, family, TENANT).await;
        for (place, (key, row)) in all.iter().enumerate().filter(|(place, _)| place % each == 1) {
            match row.split_last().filter(|_| place % 2 == 0) {
                Some((last, rest)) => {
                    put(&damaged, family, key.to_vec(), [rest, &[last ^ 1]].concat()).await;
                }
                None => remove(&damaged, family, key.to_vec()).await,
            }
        }
    }
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let broken = copy(&damaged).await;
    put(&broken, Family::Leaves, leaves[3].0.to_vec(), [&leaves[3].1[..], b" "].concat()).await;
    remove(&broken, Family::Leaves, place::leaf(TENANT, 5)).await;
    let head = HeadFile::read(&rig.head());
    let rows = [Kind::Value, Kind::Subject, Kind::IndexEntry, Kind::SubjectRow];
    for (store, kinds) in [(&rig.store, &[][..]), (&damaged, &rows), (&broken, &[Kind::Leaf])] {
        let by = async |threads| {
            let threads = std::num::NonZeroUsize::new(threads).unwrap();
            rig.checked_by(store, &head, &[], threads).await.unwrap()
        };
        let one = by(1).await;
        assert_eq!(one.findings.is_empty(), kinds.is_empty());
        for kind in kinds {
            assert!(one.findings.iter().any(|finding| finding.kind == *kind), "no {}", kind.as_str());
        }
        for threads in [2, 3, 4, 9] {
            let other = by(threads).await;
            assert_eq!(other.findings, one.findings, "by {threads}");
            assert_eq!(format!("{:?}", other.tenants), format!("{:?}", one.tenants), "by {threads}");
        }
    }
}

#[tokio::test]
async fn a_copy_of_the_store_is_compared_to_its_own_head_file_and_without_one_to_none() {
    let rig = Rig::loaded().await;
    let of_then = rig.head().with_file_name("head-of-then");
    std::fs::write(&of_then, &rig.head_before).unwrap();
    let by = async |head: HeadFile, checkpoints: &[String]| {
        let report = rig.checked_by(&rig.before, &head, checkpoints, THREADS).await.unwrap();
        (report.findings.iter().map(|finding| finding.fault).collect::<Vec<_>>(), report.without_head)
    };
    assert_eq!(by(HeadFile::read(&rig.head()), &[]).await, (vec![Fault::RolledBack], false));
    assert_eq!(by(HeadFile::read_if_there(&rig.head()), &[]).await, (vec![Fault::RolledBack], false));
    assert_eq!(by(HeadFile::read(&of_then), &[]).await, (vec![], false));
    std::fs::remove_file(&of_then).unwrap();
    assert_eq!(by(HeadFile::read_if_there(&of_then), &[]).await, (vec![], true));
    assert_eq!(by(HeadFile::read(&of_then), &[]).await, (vec![Fault::Missing], false));
    // A checkpoint tells what a head file would have.
    let kept = std::slice::from_ref(&rig.checkpoint);
    assert_eq!(by(HeadFile::read_if_there(&of_then), kept).await, (vec![Fault::RolledBack], true));
}

#[tokio::test]
async fn only_a_head_file_that_is_still_the_same_once_the_store_was_opened_says_that_it_is_as_the_vault_left_it() {
    let rig = Rig::loaded().await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let end = leaves.len() as u64;
    let line = forged(end, "detokenize", &[], &[]);
    let store = copy(&rig.store).await;
    put(&store, Family::Leaves, place::leaf(TENANT, end), line.clone()).await;
    set_head(&store, leaves.iter().map(|(_, line)| &line[..]).chain([&line[..]]), FORGED_AT).await;
    let mut head = HeadFile::read(&rig.head());
    let by = async |head: &HeadFile| {
        let report = rig.checked_by(&store, head, &[], THREADS).await.unwrap();
        report.findings.into_iter().map(|finding| (finding.kind, finding.fault, finding.place)).collect::<Vec<_>>()
    };
    let added = [(Kind::Leaf, Fault::Added, Place::Leaf(end))];
    head.look_again();
    assert_eq!(by(&head).await, added);
    // The vault was started meanwhile.
    std::fs::write(rig.head(), &rig.head_before).unwrap();
    head.look_again();
    assert_eq!(by(&head).await, []);
}

#[tokio::test]
async fn the_page_says_of_every_family_how_it_is_proven() {
    let page = include_str!("../FORMAT.md");
    for family in Family::ALL {
        assert!(page.contains(&format!("`{}`", family.name())), "{}", family.name());
    }
}

const FORGED_AT: u64 = 1_900_000_000_000_000;

/// A leaf in good form that the vault never wrote.
fn forged(index: u64, action: &str, detail: &[(&str, &str)], items: &[LeafItem<'_>]) -> Vec<u8> {
    let header = LeafHeader {
        request: &[9; 16],
        principal: "app/app",
        actor: None,
        action,
        purpose: None,
        decision: "allow",
        reason: None,
        policy: 1,
        schema: 1,
        keys: &[],
        client: "",
        detail,
    };
    prepare(&header, items.iter().copied()).remove(0).finish(index, Timestamp(FORGED_AT))
}

/// Makes the log's head fit these leaves, as whoever writes to the store can.
async fn set_head<'l>(store: &MemoryStore, lines: impl Iterator<Item = &'l [u8]>, time: u64) {
    let (mut frontier, mut rules) = (Frontier::new(), Rules::default());
    for line in lines {
        frontier.push(line);
        leaf::parse(line).ok().as_ref().and_then(NewRule::of).map(|new| rules.put(new));
    }
    let (size, frontier) = (frontier.size(), frontier.to_bytes());
    let head = LaneHead { incarnation: 1, size, time, frontier, rules: rules.to_bytes() };
    put(store, Family::Meta, place::lane(TENANT, 0), head.encode()).await;
}

impl Row {
    fn key(&self) -> Vec<u8> {
        place::row(TENANT, self.id)
    }

    fn value(&self) -> ValueRow {
        ValueRow::decode(&self.bytes).unwrap()
    }

    /// The keys of the index entries that lead to it.
    async fn entries(&self, rig: &Rig) -> Vec<Vec<u8>> {
        let value = self.value();
        let schema = rig.schema().await;
        let field = schema.field_no(value.field).unwrap();
        let key = |entry: &IndexEntry| entry_key(TENANT, field, entry, value.subject, self.id);
        value.indexes.iter().map(key).collect()
    }
}

impl Rig {
    /// What verification says of a store, beside the keystore and head file of this vault.
    async fn finds(&self, store: &MemoryStore) -> Vec<Said> {
        let report = self.report(store).await;
        report.findings.into_iter().map(|finding| (finding.kind, finding.fault, finding.place)).collect()
    }

    async fn report(&self, store: &MemoryStore) -> super::Report {
        self.checked(store, &[]).await.unwrap()
    }
}
