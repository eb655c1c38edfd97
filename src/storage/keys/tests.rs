//! What must hold for keys: order, walls between tenants and kinds, and strict parsers.

use proptest::collection::vec;
use proptest::prelude::*;
use strongroom_ids::{DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, SubjectHandle};

use super::*;
use crate::rows::JobKind;

const T: TenantNo = TenantNo(7);

fn within(key: &[u8], range: &(Vec<u8>, Vec<u8>)) -> bool {
    key >= range.0.as_slice() && (range.1.is_empty() || key < range.1.as_slice())
}

/// One key of each kind in `Meta`.
fn meta_keys(tenant: TenantNo) -> Vec<Vec<u8>> {
    vec![
        vault(),
        super::tenant(tenant),
        principals(),
        lane(tenant, 0),
        schema(tenant),
        policy(tenant),
        counter(tenant, Counter::RowIds),
        counter(tenant, Counter::SubjectHandles),
        counter(tenant, Counter::Seals(KeyringNo(1), KeyVersion(1))),
        dek_mark(tenant, SubjectHandle(1), KeyringNo(1), DekVersion(1)),
        key_change(tenant),
        keystore_copies(),
        freezes(tenant),
        tiers(tenant),
        usage(tenant, &Usage { day: 1, meter: [7; 16], what: 1, class: 0, id: 0, field: 0 }),
        second_factor(tenant, "officer/alice"),
        tenant_in_making(),
        tenant_end(tenant),
        job(tenant, JobKind::Rewrap),
        job(tenant, JobKind::Roll),
        job(tenant, JobKind::Reindex),
        older_policy(tenant, 1),
        policy_history(tenant),
        witnessed(tenant),
    ]
}

/// One key of each kind in `Index`.
fn index_keys(tenant: TenantNo, n: u8) -> Vec<Vec<u8>> {
    let (field, version, mac) = (FieldNo(n.into()), KeyVersion(1), [n; 32]);
    vec![
        value_index(tenant, field, version, &mac, RowId(1)),
        deterministic_subject(tenant, field, version, &mac, SubjectHandle(1)),
        deterministic_tenant(tenant, field, version, &mac),
        subject_id(tenant, version, &mac),
        token(tenant, version, &mac),
    ]
}

#[test]
fn all_but_lanes_is_all_of_a_tenant_and_nothing_of_others() {
    let range = all_but_lanes_range(T);
    for key in meta_keys(T).into_iter().filter(|key| key.starts_with(&T.0.to_be_bytes())) {
        assert_eq!(within(&key, &range), key != lane(T, 0), "{key:?}");
    }
    assert!(!within(&lane(T, u16::MAX), &range));
    for other in [TenantNo(0), TenantNo(6), TenantNo(8)] {
        let mut keys = meta_keys(other);
        keys.retain(|key| key.starts_with(&other.0.to_be_bytes()));
        assert!(keys.iter().all(|key| !within(key, &range)), "{other}");
    }
}

#[test]
fn no_two_places_of_a_family_have_one_key() {
    for mut all in [
        [meta_keys(T), meta_keys(TenantNo(8))].concat(),
        [index_keys(T, 1), index_keys(T, 2), index_keys(TenantNo(8), 1)].concat(),
    ] {
        all.sort();
        all.dedup_by_key(|key| key.clone());
        // The vault's row, the principals, the list of copies and the tenant in the making are the same for all tenants.
        assert!(all.len() == 44 || all.len() == 15, "{}", all.len());
        for pair in all.windows(2) {
            assert!(!pair[1].starts_with(&pair[0]), "a key begins another");
        }
    }
}

#[test]
fn rows_of_the_leaf_index_stand_by_term_and_then_by_leaf() {
    let (one, other) = ([1, 0, 0, 0, 0, 0, 0, 0, 7], [1, 0, 0, 0, 0, 0, 0, 0, 8]);
    let key = leaf_index(T, &one, 512);
    assert_eq!(decode_leaf_index(&key).unwrap(), Some((one, 512)));
    assert_eq!(decode_leaf_index(&indexed(T)).unwrap(), None);
    assert!(decode_leaf_index(&key[1..]).is_err() && decode_leaf_index(&[]).is_err());
    let range = leaf_index_range(T, &one, 256, 768);
    assert!(within(&key, &range) && within(&leaf_index(T, &one, 256), &range));
    for outside in [leaf_index(T, &one, 0), leaf_index(T, &one, 768), leaf_index(T, &other, 512), indexed(T)] {
        assert!(!within(&outside, &range), "{outside:?}");
    }
    assert_eq!(decode_indexed(&encode_indexed(768)).unwrap(), 768);
    assert!(decode_indexed(&encode_indexed(768)[1..]).is_err());
}

#[test]
fn the_end_of_a_prefix_carries_and_may_be_the_end_of_all() {
    assert_eq!(prefix_end(&[1, 2]), [1, 3]);
    assert_eq!(prefix_end(&[1, 0xff, 0xff]), [2]);
    assert_eq!(prefix_end(&[0xff, 0xff]), [0_u8; 0]);
    assert_eq!(prefix_end(&[]), [0_u8; 0]);
}

#[test]
fn the_last_tenant_has_ranges_too() {
    let last = TenantNo(u32::MAX);
    assert!(within(&idempotency(last, &[0xff; 32]), &idempotency_range(last)));
    assert!(within(&holder(last, RowId(u64::MAX), SubjectHandle(u64::MAX)), &holders_range(last, RowId(u64::MAX))));
    assert!(within(&super::tenant(last), &tenants_range()));
}

proptest! {
    #[test]
    fn keys_order_as_their_numbers(a in any::<(u32, u64)>(), b in any::<(u32, u64)>()) {
        let key = |(tenant, row): (u32, u64)| row_key(tenant, row);
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        let key = |(tenant, index): (u32, u64)| leaf(TenantNo(tenant), index);
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
    }

    #[test]
    fn a_range_holds_its_own_and_nothing_else(
        tenants in any::<(u32, u32)>(), owners in any::<(u64, u64)>(), member in any::<u64>(),
    ) {
        let same = tenants.0 == tenants.1 && owners.0 == owners.1;
        let range = holders_range(TenantNo(tenants.0), RowId(owners.0));
        let key = holder(TenantNo(tenants.1), RowId(owners.1), SubjectHandle(member));
        prop_assert_eq!(within(&key, &range), same);
        let range = idempotency_range(TenantNo(tenants.0));
        prop_assert_eq!(within(&idempotency(TenantNo(tenants.1), &[9; 32]), &range), tenants.0 == tenants.1);
        let range = leaves_range(TenantNo(tenants.0), owners.0, owners.1);
        let inside = tenants.0 == tenants.1 && (owners.0..owners.1).contains(&member);
        prop_assert_eq!(within(&leaf(TenantNo(tenants.1), member), &range), inside);
    }

    #[test]
    fn a_value_index_prefix_leads_to_rows_of_that_value_only(
        a in any::<(u32, u32, u32, [u8; 32])>(), b in any::<(u32, u32, u32, [u8; 32])>(), row in any::<u64>(),
    ) {
        let of = |x: &(u32, u32, u32, [u8; 32])| (TenantNo(x.0), FieldNo(x.1), KeyVersion(x.2), x.3);
        let (tenant, field, version, mac) = of(&a);
        let prefix = value_index_prefix(tenant, field, version, &mac);
        prop_assert!(value_index(tenant, field, version, &mac, RowId(row)).starts_with(&prefix));
        let (tenant, field, version, mac) = of(&b);
        prop_assert_eq!(value_index(tenant, field, version, &mac, RowId(row)).starts_with(&prefix), a == b);
    }

    #[test]
    fn a_mark_comes_back_in_the_range_of_its_dek_and_no_other_bytes_are_one(
        a in any::<(u64, u16, u32)>(), b in any::<(u64, u16, u32)>(), bytes in vec(any::<u8>(), 0..30),
    ) {
        let of = |(subject, keyring, version)| (SubjectHandle(subject), KeyringNo(keyring), DekVersion(version));
        let (subject, keyring, version) = of(a);
        let key = dek_mark(T, subject, keyring, version);
        prop_assert_eq!(decode_dek_mark(&key).unwrap(), DekMark { subject, keyring, version });
        let range = dek_marks_range(T, subject, keyring);
        prop_assert_eq!(decode_dek_marks(&range.0).unwrap(), (subject, keyring));
        prop_assert!(within(&key, &range) && within(&key, &all_dek_marks_range(T)));
        let (other, ring, version) = of(b);
        prop_assert_eq!(within(&dek_mark(T, other, ring, version), &range), (other, ring) == (subject, keyring));
        let is_one = bytes.len() == 19 && bytes[4] == 8;
        prop_assert_eq!(decode_dek_mark(&bytes).is_ok(), is_one);
    }

    #[test]
    fn a_subjects_rows_after_one_are_those_with_greater_ids(
        subjects in any::<(u64, u64)>(), after in any::<u64>(), row in any::<u64>(),
    ) {
        let range = subject_rows_after(T, SubjectHandle(subjects.0), RowId(after));
        let key = subject_row(T, SubjectHandle(subjects.1), RowId(row));
        prop_assert_eq!(within(&key, &range), subjects.0 == subjects.1 && row > after);
        prop_assert_eq!(decode_subject_row(&key).unwrap(), RowId(row));
    }

    #[test]
    fn what_a_scan_did_not_know_comes_back(known in any::<u64>(), wanted in any::<u64>()) {
        prop_assert_eq!(decode_row(&super::row(T, RowId(wanted))).unwrap(), RowId(wanted));
        prop_assert_eq!(decode_subject(&subject(T, SubjectHandle(wanted))).unwrap(), SubjectHandle(wanted));
        let key = holder(T, RowId(known), SubjectHandle(wanted));
        prop_assert_eq!(decode_holder(&key).unwrap(), SubjectHandle(wanted));
        let key = value_index(T, FieldNo(1), KeyVersion(1), &[3; 32], RowId(wanted));
        prop_assert_eq!(decode_value_index(&key).unwrap(), RowId(wanted));
        prop_assert_eq!(decode_leaf(&leaf(T, wanted)).unwrap(), wanted);
    }

    #[test]
    fn keys_of_another_length_or_kind_are_refused(bytes in vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(decode_row(&bytes).is_ok(), bytes.len() == 12);
        prop_assert_eq!(decode_subject(&bytes).is_ok(), bytes.len() == 12);
        prop_assert_eq!(decode_holder(&bytes).is_ok(), bytes.len() == 20);
        prop_assert_eq!(decode_leaf(&bytes).is_ok(), bytes.len() == 12);
        let tiled = bytes.len() == 5 && bytes[4] == 0xff;
        prop_assert_eq!(decode_tile(&bytes).is_ok(), bytes.len() == 13 || tiled);
        prop_assert_eq!(decode_value_index(&bytes).is_ok(), bytes.len() == 53 && bytes[4] == 1);
    }

    #[test]
    fn index_entries_come_back_and_nothing_else_does(row in any::<u64>(), handles in vec(any::<u64>(), 1..5)) {
        use crate::rows::laws;
        let handles: Vec<SubjectHandle> = handles.into_iter().map(SubjectHandle).collect();
        laws::round_trip(&RowId(row), |row| encode_row_id(*row), decode_row_id);
        let bytes = encode_handles(&handles);
        prop_assert_eq!(decode_handles(&bytes).unwrap(), handles);
        // Fewer handles are an entry too, but never none and never a part of one.
        for end in 0..bytes.len() {
            prop_assert_eq!(decode_handles(&bytes[..end]).is_ok(), end > 1 && end % 8 == 1);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_second_form_of_an_index_entry(mut bytes in vec(any::<u8>(), 1..40)) {
        use crate::rows::laws;
        bytes[0] = ENTRY_FORMAT;
        laws::canonical(&bytes, |row| encode_row_id(*row), decode_row_id);
        laws::canonical(&bytes, |leaves| encode_tiled(*leaves), decode_tiled);
        laws::canonical(&bytes, |handles: &Vec<_>| encode_handles(handles), decode_handles);
    }
}

fn row_key(tenant: u32, row: u64) -> Vec<u8> {
    super::row(TenantNo(tenant), RowId(row))
}
