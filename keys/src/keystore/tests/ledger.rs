//! The versions of a log's key: which of them sign, and whose public half is known.

use super::*;

fn signing(store: &Keystore) -> Vec<u32> {
    store.ledger_keys(TENANT).unwrap().all().iter().map(|key| key.version().0).collect()
}

#[test]
fn replaced_versions_sign_along_until_they_are_compromised_or_destroyed() {
    let (_temp, _root, store) = filled();
    let name = KeyName::Ledger(TENANT);
    assert_eq!(signing(&store), [1]);
    for version in 2..=4 {
        store.rotate_to(name, KeyVersion(version), NOW + u64::from(version)).unwrap();
    }
    assert_eq!(signing(&store), [4, 3, 2, 1]);
    let publics = store.ledger_publics(TENANT);
    store.set_state(name, KeyVersion(2), KeyState::Compromised, NOW + 10).unwrap();
    assert_eq!(signing(&store), [4, 3, 1]);
    store.set_state(name, KeyVersion(3), KeyState::Destroyed, NOW + 10).unwrap();
    assert_eq!(signing(&store), [4, 1]);
    assert_eq!(store.ledger_key(TENANT).unwrap().version(), KeyVersion(4));
    // What is destroyed can't tell its public half any more, what is compromised can.
    let left = store.ledger_publics(TENANT);
    assert_eq!(left.iter().map(|public| public.version.0).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(left[1].state, KeyState::Compromised);
    assert!(left.iter().all(|one| publics.iter().any(|was| (was.version, was.key) == (one.version, one.key))));
}

#[test]
fn a_log_whose_newest_version_is_gone_signs_nothing() {
    let (_temp, _root, store) = filled();
    store.rotate_to(KeyName::Ledger(TENANT), KeyVersion(2), NOW + 1).unwrap();
    store.destroy_tenant(TENANT, NOW + 2).unwrap();
    assert!(store.ledger_keys(TENANT).is_err() && store.ledger_key(TENANT).is_err());
    assert!(store.ledger_publics(TENANT).is_empty());
}
