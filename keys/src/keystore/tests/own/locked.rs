//! A tenant that is locked: what can be done with its keys then, and that nothing brings them back but its own key.

use std::sync::Arc;
use std::thread;

use super::*;

#[test]
fn a_locked_tenants_keys_can_be_destroyed_but_not_made_and_the_others_live_on() {
    let (temp, root, store, said) = two();
    let own = passphrase("own");
    move_to(&store, TENANT, &own, NOW + 2).unwrap();
    store.lock_tenant(TENANT).unwrap();
    let away = store.kek(TENANT, KEYRING).unwrap_err();
    assert!(away.to_string().contains("(file) is not there: have its provider"), "{away}");
    assert_eq!(store.rotate_to(KEK, KeyVersion(3), NOW + 3).unwrap_err(), away);
    let new = KeyName::Kek(TENANT, KeyringNo(9));
    assert_eq!(store.ensure(&[KeyName::Kek(OTHER, KeyringNo(9)), new], NOW + 3).unwrap_err(), away);
    assert_eq!(store.move_key(TENANT, None, NOW + 3).unwrap_err(), away.clone());
    assert_eq!(store.keys(TENANT).len(), 8, "nothing was made");
    store.rotate_to(KeyName::Kek(OTHER, KEYRING), KeyVersion(2), NOW + 3).unwrap();
    store.rotate_to(KeyName::Ledger(TENANT), KeyVersion(2), NOW + 3).unwrap();
    store.set_state(KEK, KeyVersion(2), KeyState::Disabled, NOW + 4).unwrap();
    let disabled = KeyError::NotAllowed { name: KEK, version: KeyVersion(2), state: KeyState::Disabled };
    assert_eq!(store.kek_version(TENANT, KEYRING, KeyVersion(2)).unwrap_err(), disabled, "its state goes first");
    store.set_state(KEK, KeyVersion(2), KeyState::Enabled, NOW + 5).unwrap();
    assert_eq!(store.kek(TENANT, KEYRING).unwrap_err(), away);
    store.set_state(KEK, KeyVersion(1), KeyState::Destroyed, NOW + 6).unwrap();
    // What was carried along opens again, and what was destroyed is gone.
    let again = Keystore::open(temp.path(), &root).unwrap();
    for store in [&store, &again] {
        unlock(store, TENANT, &own).unwrap();
        assert_eq!(store.kek(TENANT, KEYRING).unwrap().version(), KeyVersion(2));
        assert!(matches!(
            store.kek_version(TENANT, KEYRING, KeyVersion(1)),
            Err(KeyError::NotAllowed { state: KeyState::Destroyed, .. })
        ));
        let block = store.token_key(TENANT).unwrap().encrypt(strongroom_ids::RowId(1), [1; 8]);
        assert!(holds(&said.own, &block));
    }
    assert_eq!(again.kek(OTHER, KEYRING).unwrap().version(), KeyVersion(2));
    again.rotate_to(KEK, KeyVersion(3), NOW + 7).unwrap();
    assert_eq!(again.kek(TENANT, KEYRING).unwrap().version(), KeyVersion(3));
}

#[test]
fn a_tenant_that_is_locked_while_a_change_is_unsettled_stays_locked() {
    let (_temp, _root, store, said) = two();
    let own = passphrase("own");
    move_to(&store, TENANT, &own, NOW + 2).unwrap();
    disk::faults::fail(Step::Sync, 1);
    assert!(store.ensure(&[KeyName::Kek(TENANT, KeyringNo(5))], NOW).is_err());
    store.lock_tenant(TENANT).unwrap();
    assert!(!said.opens(&store));
    store.ensure(&[KeyName::Kek(OTHER, KeyringNo(5))], NOW).unwrap();
    assert!(!said.opens(&store), "what was pending brings nothing back");
    assert!(matches!(store.kek(TENANT, KeyringNo(5)), Err(KeyError::OwnKeyAway { .. })), "but it was made");
}

#[test]
fn locking_drops_every_key_that_is_not_held_elsewhere() {
    let (_temp, _root, store, _said) = two();
    move_to(&store, TENANT, &passphrase("own"), NOW + 2).unwrap();
    let held = store.kek(TENANT, KEYRING).unwrap();
    let gone = [Arc::downgrade(&store.kek_version(TENANT, KEYRING, KeyVersion(1)).unwrap()), Arc::downgrade(&held)];
    let (index, token) = (
        Arc::downgrade(&store.index_key(TENANT, IndexName::Token).unwrap()),
        Arc::downgrade(&store.token_key(TENANT).unwrap()),
    );
    let opened = Arc::downgrade(store.table.load().tenants.own(TENANT).unwrap().open.as_ref().unwrap());
    store.lock_tenant(TENANT).unwrap();
    assert!(gone[0].upgrade().is_none() && index.upgrade().is_none() && token.upgrade().is_none());
    assert!(opened.upgrade().is_none(), "the tenant key and its cipher");
    assert!(gone[1].upgrade().is_some());
    drop(held);
    assert!(gone[1].upgrade().is_none());
}

#[test]
fn whoever_locks_last_wins_over_changes_of_other_tenants_at_the_same_time() {
    let (_temp, _root, store, said) = two();
    let own = passphrase("own");
    move_to(&store, TENANT, &own, NOW + 2).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for version in 2..8 {
                store.rotate_to(KeyName::Kek(OTHER, KEYRING), KeyVersion(version), NOW + u64::from(version)).unwrap();
            }
        });
        for _ in 0..20 {
            unlock(&store, TENANT, &own).unwrap();
            assert!(store.token_key(TENANT).is_ok());
            store.lock_tenant(TENANT).unwrap();
            locked(&store);
        }
    });
    assert!(store.kek(TENANT, KEYRING).is_err());
    unlock(&store, TENANT, &own).unwrap();
    assert_eq!(all_of(&store, TENANT, &said.wrapped).unwrap(), said.own);
}
