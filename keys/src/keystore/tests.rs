//! The keystore as its users see it: made, opened, extended, damaged.

mod ledger;
mod own;
mod root;

use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;
use ring::digest;
use strongroom_ids::{DekVersion, FieldNo, SubjectHandle};
use tempfile::TempDir;

use super::*;
use crate::disk::faults::Step;
use crate::place::{DekOwner, DekPlace};
use crate::root::shamir::{self, ShamirRoot};

const VAULT: VaultId = VaultId([9; 16]);
const TENANT: TenantId = TenantId([1; 16]);
const OTHER: TenantId = TenantId([2; 16]);
const KEYRING: KeyringNo = KeyringNo(1);
/// When keys are made, in microseconds since 1970.
const NOW: u64 = 1_795_000_000_000_000;

/// A root key of its own.
fn root() -> ShamirRoot {
    shamir::split(3, 2).unwrap().0
}

fn all() -> Vec<KeyName> {
    vec![
        KeyName::Kek(TENANT, KEYRING),
        KeyName::Index(TENANT, IndexName::Field(FieldNo(2))),
        KeyName::Index(TENANT, IndexName::SubjectId),
        KeyName::Index(TENANT, IndexName::Token),
        KeyName::Index(TENANT, IndexName::Fingerprint),
        KeyName::Token(TENANT),
        KeyName::Ledger(TENANT),
    ]
}

fn place(tenant: TenantId) -> DekPlace {
    DekPlace { tenant, keyring: KEYRING, owner: DekOwner::Subject(SubjectHandle(7)), version: DekVersion(1) }
}

/// A keystore in a directory, with all keys of one tenant.
fn filled() -> (TempDir, ShamirRoot, Keystore) {
    let temp = tempfile::tempdir().unwrap();
    let root = root();
    let store = Keystore::create(temp.path(), VAULT, &root).unwrap();
    store.ensure(&all(), NOW).unwrap();
    (temp, root, store)
}

/// A keystore whose KEK has a version in each of the given states.
fn in_states(states: &[KeyState]) -> (TempDir, Keystore) {
    let temp = tempfile::tempdir().unwrap();
    let (root, key) = (root(), KeystoreKey::random().unwrap());
    let (own, envelope) = (FileKeys::derive(&key, VAULT).unwrap(), root.wrap(VAULT, &key).unwrap());
    let (mut records, tenants): (Vec<Record>, _) = (vec![], Tenants::default());
    let wraps = Wraps { own: &own, tenants: &tenants };
    for (state, version) in states.iter().zip(1..) {
        let mut record = Entry::make(KeyName::Kek(TENANT, KEYRING), KeyVersion(version), 5, &wraps).unwrap().record;
        record.state = *state;
        record.wrapped = record.wrapped.filter(|_| *state != KeyState::Destroyed);
        records.push(record);
    }
    fs::write(temp.path().join("keys"), own.encode(1, &envelope, &tenants, &mut records).unwrap()).unwrap();
    let store = Keystore::open(temp.path(), &root).unwrap();
    (temp, store)
}

#[test]
fn keys_are_the_same_after_opening_again() {
    let (temp, root, store) = filled();
    let (dek, wrapped) = store.kek(TENANT, KEYRING).unwrap().new_dek(&place(TENANT)).unwrap();
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert_eq!(again.vault_id(), VAULT);
    assert_eq!(again.number(), store.number());
    assert_eq!(again.keys(TENANT), store.keys(TENANT));
    let unwrapped = again.kek_version(TENANT, KEYRING, KeyVersion(1)).unwrap().unwrap(&place(TENANT), &wrapped);
    assert_eq!(unwrapped.unwrap().raw(), dek.raw());
    for index in [IndexName::Field(FieldNo(2)), IndexName::SubjectId, IndexName::Token, IndexName::Fingerprint] {
        let mac = |store: &Keystore| store.index_key(TENANT, index).unwrap().mac(&[b"value"]);
        assert_eq!(mac(&again), mac(&store));
    }
    let block = |store: &Keystore| store.token_key(TENANT).unwrap().encrypt(strongroom_ids::RowId(1), [1; 8]);
    assert_eq!(block(&again), block(&store));
    let public = |store: &Keystore| store.ledger_key(TENANT).unwrap().public_key();
    assert_eq!(public(&again), public(&store));
}

#[test]
fn no_two_index_keys_are_the_same() {
    let (_temp, _root, store) = filled();
    let names = [IndexName::Field(FieldNo(2)), IndexName::SubjectId, IndexName::Token, IndexName::Fingerprint];
    let macs: std::collections::HashSet<_> =
        names.iter().map(|name| store.index_key(TENANT, *name).unwrap().mac(&[b"value"])).collect();
    assert_eq!(macs.len(), names.len());
}

#[test]
fn the_newest_index_key_makes_entries_and_all_that_may_be_used_find_them() {
    let (_temp, _root, store) = filled();
    let name = KeyName::Index(TENANT, IndexName::SubjectId);
    let versions = || {
        let keys = store.index_keys(TENANT, IndexName::SubjectId).unwrap();
        (keys.newest().version().0, keys.older().map(|key| key.version().0).collect::<Vec<_>>())
    };
    assert_eq!(versions(), (1, vec![]));
    for version in 2..=4 {
        store.rotate_to(name, KeyVersion(version), NOW + u64::from(version)).unwrap();
    }
    assert_eq!(versions(), (4, vec![3, 2, 1]));
    store.set_state(name, KeyVersion(1), KeyState::Compromised, NOW + 10).unwrap();
    store.set_state(name, KeyVersion(2), KeyState::Destroyed, NOW + 11).unwrap();
    assert_eq!(versions(), (4, vec![3, 1]), "what is compromised still finds, what is destroyed does not");
    let one = |version| store.index_key_version(TENANT, IndexName::SubjectId, KeyVersion(version));
    assert_eq!(one(1).unwrap().version(), KeyVersion(1));
    assert!(matches!(one(2), Err(KeyError::NotAllowed { .. })));
    assert!(matches!(one(5), Err(KeyError::MissingVersion { .. })));
    let nobody = store.index_keys(TENANT, IndexName::Field(FieldNo(99)));
    assert!(matches!(nobody, Err(KeyError::Missing { .. })));
}

#[test]
fn a_second_keystore_is_refused() {
    let (temp, root, _store) = filled();
    let exists = KeyError::Exists { file: "keys" };
    assert_eq!(Keystore::create(temp.path(), VAULT, &root).unwrap_err(), exists.into());
}

#[test]
fn ensuring_makes_what_is_missing_once_and_says_what() {
    let (temp, root, store) = filled();
    assert_eq!(store.number(), 2);
    assert_eq!(store.ensure(&all(), NOW).unwrap(), []);
    assert_eq!(store.number(), 2);
    let kek = KeyName::Kek(OTHER, KEYRING);
    let token = KeyName::Token(OTHER);
    assert_eq!(store.ensure(&[all()[0], kek, token, kek], NOW).unwrap(), [kek, token]);
    assert_eq!(store.number(), 3);
    assert_eq!(Keystore::open(temp.path(), &root).unwrap().number(), 3);
    assert_eq!(store.keys(OTHER).len(), 2);
    assert_eq!(store.keys(TENANT).len(), 7);
}

#[test]
fn keys_are_listed_in_order_with_their_state_and_date() {
    let (_temp, _root, store) = filled();
    let keys = store.keys(TENANT);
    assert_eq!(keys.iter().map(|key| key.name).collect::<Vec<_>>(), all());
    assert!(keys.iter().all(|key| key.state == KeyState::Enabled && key.version == KeyVersion(1)));
    assert!(keys.iter().all(|key| key.created > 1_700_000_000_000_000));
}

#[test]
fn threads_that_ensure_the_same_key_get_the_same_one() {
    let (_temp, _root, store) = filled();
    let name = KeyName::Token(OTHER);
    let blocks: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    store.ensure(&[name], NOW).unwrap();
                    store.token_key(OTHER).unwrap().encrypt(strongroom_ids::RowId(1), [1; 8])
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(blocks.iter().all(|block| *block == blocks[0]));
    assert_eq!(store.number(), 3);
}

#[test]
fn a_missing_key_and_a_missing_version_are_named() {
    let (_temp, _root, store) = filled();
    let name = KeyName::Kek(OTHER, KEYRING);
    assert_eq!(store.kek(OTHER, KEYRING).unwrap_err(), KeyError::Missing { name });
    assert_eq!(store.kek_version(OTHER, KEYRING, KeyVersion(1)).unwrap_err(), KeyError::Missing { name });
    let name = KeyName::Kek(TENANT, KEYRING);
    let version = KeyVersion(2);
    assert_eq!(store.kek_version(TENANT, KEYRING, version).unwrap_err(), KeyError::MissingVersion { name, version });
}

#[test]
fn the_newest_enabled_version_wraps_and_states_rule_the_others() {
    use KeyState::*;
    let (_temp, store) = in_states(&[Enabled, Enabled, DecryptOnly, Disabled, Compromised, Destroyed]);
    assert_eq!(store.kek(TENANT, KEYRING).unwrap().version(), KeyVersion(2));
    let name = KeyName::Kek(TENANT, KEYRING);
    for (version, state) in [(1, None), (2, None), (3, None), (4, Some(Disabled)), (5, None), (6, Some(Destroyed))] {
        let version = KeyVersion(version);
        match (store.kek_version(TENANT, KEYRING, version), state) {
            (Ok(kek), None) => assert_eq!(kek.version(), version),
            (Err(error), Some(state)) => assert_eq!(error, KeyError::NotAllowed { name, version, state }),
            (found, _) => panic!("version {version}: {found:?}"),
        }
    }
}

#[test]
fn without_an_enabled_version_nothing_is_wrapped() {
    use KeyState::*;
    let (_temp, store) = in_states(&[DecryptOnly, Compromised]);
    let name = KeyName::Kek(TENANT, KEYRING);
    let expected = KeyError::NotAllowed { name, version: KeyVersion(2), state: Compromised };
    assert_eq!(store.kek(TENANT, KEYRING).unwrap_err(), expected);
}

#[test]
fn a_destroyed_key_is_not_made_anew() {
    let (_temp, store) = in_states(&[KeyState::Destroyed]);
    assert_eq!(store.ensure(&[KeyName::Kek(TENANT, KEYRING)], NOW).unwrap(), []);
    assert!(matches!(store.kek(TENANT, KEYRING), Err(KeyError::NotAllowed { .. })));
}

#[test]
fn states_and_dates_survive_a_replacement() {
    use KeyState::*;
    let (_temp, store) = in_states(&[Destroyed, Disabled, DecryptOnly]);
    let before = store.keys(TENANT);
    store.ensure(&[KeyName::Ledger(OTHER)], NOW).unwrap();
    assert_eq!(store.keys(TENANT), before);
    assert!(before.iter().all(|key| key.created == 5));
}

#[test]
fn a_file_replaced_by_somebody_else_is_not_overwritten() {
    let (temp, root, store) = filled();
    let other = Keystore::open(temp.path(), &root).unwrap();
    other.ensure(&[KeyName::Token(OTHER)], NOW).unwrap();
    assert_eq!(store.ensure(&[KeyName::Ledger(OTHER)], NOW).unwrap_err(), KeyError::Changed);
    assert_eq!(store.ledger_key(OTHER).unwrap_err(), KeyError::Missing { name: KeyName::Ledger(OTHER) });
    assert!(Keystore::open(temp.path(), &root).unwrap().token_key(OTHER).is_ok());
}

#[test]
fn keys_that_could_not_be_kept_are_not_given_out() {
    let (temp, _root, store) = filled();
    fs::remove_file(temp.path().join("keys")).unwrap();
    assert!(matches!(store.ensure(&[KeyName::Token(OTHER)], NOW), Err(KeyError::NoFile { .. })));
    assert!(store.token_key(OTHER).is_err());
    assert_eq!(store.number(), 2);
}

#[test]
fn a_replacement_that_is_not_known_to_be_durable_is_settled_by_the_next() {
    let (temp, root, store) = filled();
    let number = store.number();
    let wanted = [KeyName::Ledger(OTHER)];
    disk::faults::fail(Step::Sync, 1);
    assert!(matches!(store.ensure(&wanted, NOW), Err(KeyError::Io { .. })));
    assert!(store.ledger_key(OTHER).is_err(), "a crash may take it away");
    // Not yet: what is in place is still not durable.
    disk::faults::fail(Step::Sync, 1);
    assert!(matches!(store.ensure(&wanted, NOW), Err(KeyError::Io { .. })));
    assert!(store.ledger_key(OTHER).is_err());
    assert_eq!(store.ensure(&wanted, NOW).unwrap(), []);
    assert_eq!(store.number(), number + 1);
    assert_eq!(store.ensure(&[KeyName::Token(OTHER)], NOW).unwrap(), [KeyName::Token(OTHER)]);
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert_eq!((again.number(), again.keys(OTHER)), (number + 2, store.keys(OTHER)));
}

#[test]
fn a_replacement_that_never_took_its_place_is_forgotten() {
    let (temp, root, store) = filled();
    let before = fs::read(temp.path().join("keys")).unwrap();
    disk::faults::fail(Step::Sync, 1);
    assert!(store.ensure(&[KeyName::Ledger(OTHER)], NOW).is_err());
    // What a crash of the disk may leave, seen by a process that lives on.
    fs::write(temp.path().join("keys"), &before).unwrap();
    assert_eq!(store.ensure(&[KeyName::Token(OTHER)], NOW).unwrap(), [KeyName::Token(OTHER)]);
    assert!(store.ledger_key(OTHER).is_err());
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert_eq!(again.keys(OTHER), store.keys(OTHER));
    // Another process's file is neither taken for its own nor overwritten.
    disk::faults::fail(Step::Sync, 1);
    assert!(store.ensure(&[KeyName::Ledger(OTHER)], NOW).is_err());
    again.ensure(&[KeyName::Index(OTHER, IndexName::Token)], NOW).unwrap_err();
    fs::write(temp.path().join("keys"), &before).unwrap();
    let other = Keystore::open(temp.path(), &root).unwrap();
    other.ensure(&[KeyName::Index(OTHER, IndexName::Token)], NOW).unwrap();
    assert_eq!(store.ensure(&[KeyName::Ledger(OTHER)], NOW).unwrap_err(), KeyError::Changed);
}

#[test]
fn an_entry_under_another_name_or_version_does_not_open() {
    let key = KeystoreKey::random().unwrap();
    let (own, elsewhere) = (FileKeys::derive(&key, VAULT).unwrap(), FileKeys::derive(&key, VaultId([8; 16])).unwrap());
    let tenants = Tenants::default();
    let [own, elsewhere] = [&own, &elsewhere].map(|own| Wraps { own, tenants: &tenants });
    let name = KeyName::Kek(TENANT, KEYRING);
    let raw = secret::new_raw_key().unwrap();
    let wrapped = own.wrap(&name, KeyVersion(1), &raw).unwrap();
    assert_eq!(own.unwrap(&name, KeyVersion(1), &wrapped).unwrap(), raw);
    assert!(own.unwrap(&name, KeyVersion(2), &wrapped).is_err());
    assert!(own.unwrap(&KeyName::Kek(TENANT, KeyringNo(2)), KeyVersion(1), &wrapped).is_err());
    assert!(own.unwrap(&KeyName::Kek(OTHER, KEYRING), KeyVersion(1), &wrapped).is_err());
    assert!(elsewhere.unwrap(&name, KeyVersion(1), &wrapped).is_err());
}

#[test]
fn an_unknown_format_is_named_rather_than_called_damage() {
    let (temp, root, _store) = filled();
    let path = temp.path().join("keys");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, summed(bytes)).unwrap();
    let unsupported = KeyError::Unsupported { file: "keys", format: 2, suite: 1 };
    assert_eq!(Keystore::open(temp.path(), &root).unwrap_err(), unsupported.into());
}

/// Gives a file a checksum that matches again.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 32);
    let sum = digest::digest(&digest::SHA256, &bytes);
    bytes.extend_from_slice(sum.as_ref());
    bytes
}

#[test]
fn a_changed_byte_anywhere_keeps_the_keystore_shut() {
    let (temp, root, _store) = filled();
    let good = fs::read(temp.path().join("keys")).unwrap();
    let open = |bytes: &[u8]| Keystore::from_bytes(temp.path(), &root, bytes).map(|_| ());
    assert_eq!(open(&good), Ok(()));
    let envelope = Keystore::header_of(temp.path()).unwrap().envelope;
    let sealed = 34 + 1 + 2 + envelope.parameters.len() + 2 + envelope.wrapped.len();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let damaged = matches!(open(&bytes), Err(RootError::Key(KeyError::Damaged { file: "keys", .. })));
        assert!(damaged, "byte {at}");
        // With a checksum made to match, the envelope does not open, or the authentication fails.
        if (10..good.len() - 32).contains(&at) {
            match open(&summed(bytes)) {
                Ok(()) => panic!("byte {at}"),
                Err(error) => {
                    assert_eq!(
                        error == KeyError::NotAuthentic.into(),
                        at >= sealed || (26..34).contains(&at),
                        "byte {at}"
                    );
                }
            }
        }
    }
}

/// A file with all keys of one tenant, and the root key that opens it.
static FILE_AND_ROOT: LazyLock<(Vec<u8>, ShamirRoot)> = LazyLock::new(|| {
    let (temp, root, _store) = filled();
    (fs::read(temp.path().join("keys")).unwrap(), root)
});

proptest! {
    #[test]
    fn a_torn_or_arbitrary_file_never_opens(cut: prop::sample::Index, noise: Vec<u8>) {
        let (good, root) = &*FILE_AND_ROOT;
        let torn = &good[..cut.index(good.len())];
        for bytes in [torn, &noise, &[torn, &noise].concat()] {
            let opened = Keystore::from_bytes(Path::new(""), root, bytes);
            prop_assert!(opened.is_err() || bytes == good);
        }
    }
}

const KEK: KeyName = KeyName::Kek(TENANT, KEYRING);

fn states(store: &Keystore) -> Vec<(u32, KeyState, u64)> {
    let keys = store.keys(TENANT).into_iter().filter(|key| key.name == KEK);
    keys.map(|key| (key.version.0, key.state, key.changed)).collect()
}

#[test]
fn a_rotation_makes_one_version_however_often_it_is_tried() {
    let (temp, root, store) = filled();
    let (dek, wrapped) = store.kek(TENANT, KEYRING).unwrap().new_dek(&place(TENANT)).unwrap();
    for _ in 0..2 {
        store.rotate_to(KEK, KeyVersion(2), NOW + 1).unwrap();
        assert_eq!(states(&store), [(1, KeyState::DecryptOnly, NOW + 1), (2, KeyState::Enabled, NOW + 1)]);
    }
    assert_eq!(store.newest_version(KEK), Some(KeyVersion(2)));
    let again = Keystore::open(temp.path(), &root).unwrap();
    let (older, newest) =
        (again.kek_version(TENANT, KEYRING, KeyVersion(1)).unwrap(), again.kek(TENANT, KEYRING).unwrap());
    let anew = newest.rewrap(&older, &place(TENANT), &wrapped).unwrap();
    assert_eq!(store.kek(TENANT, KEYRING).unwrap().unwrap(&place(TENANT), &anew).unwrap().raw(), dek.raw());
    let missing = KeyError::MissingVersion { name: KEK, version: KeyVersion(3) };
    assert_eq!(store.rotate_to(KEK, KeyVersion(4), NOW + 2).unwrap_err(), missing);
    let nobody = KeyName::Token(OTHER);
    assert_eq!(store.rotate_to(nobody, KeyVersion(2), NOW).unwrap_err(), KeyError::Missing { name: nobody });
    assert_eq!(store.newest_version(nobody), None);
}

#[test]
fn a_disabled_newest_version_stays_disabled_when_the_next_is_made() {
    let (_temp, _root, store) = filled();
    store.set_state(KEK, KeyVersion(1), KeyState::Disabled, NOW + 1).unwrap();
    assert!(matches!(store.kek(TENANT, KEYRING), Err(KeyError::NotAllowed { state: KeyState::Disabled, .. })));
    store.rotate_to(KEK, KeyVersion(2), NOW + 2).unwrap();
    assert_eq!(states(&store), [(1, KeyState::Disabled, NOW + 1), (2, KeyState::Enabled, NOW + 2)]);
}

#[test]
fn versions_change_their_state_in_the_ways_that_there_are_and_in_no_other() {
    for from in KeyState::ALL {
        for to in KeyState::ALL {
            // An older version, and the newest.
            let (_temp, store) = in_states(&[from, KeyState::Enabled]);
            let may = from == to || (from.may_become(to) && to != KeyState::Enabled);
            assert_eq!(store.may_become(KEK, KeyVersion(1), to).is_ok(), may, "{from} to {to}");
            assert_eq!(store.set_state(KEK, KeyVersion(1), to, NOW).is_ok(), may, "{from} to {to}");
            let (_temp, store) = in_states(&[from]);
            let stays = matches!(to, KeyState::Enabled | KeyState::Disabled);
            let may = from == to || (from.may_become(to) && stays);
            assert_eq!(store.set_state(KEK, KeyVersion(1), to, NOW).is_ok(), may, "newest, {from} to {to}");
            assert!(may || store.keys(TENANT).iter().all(|key| key.state == from), "nothing has changed");
        }
    }
    let (_temp, _root, store) = filled();
    let missing = KeyError::MissingVersion { name: KEK, version: KeyVersion(9) };
    assert_eq!(store.set_state(KEK, KeyVersion(9), KeyState::Disabled, NOW).unwrap_err(), missing);
}

#[test]
fn a_change_that_was_decided_before_the_last_one_changes_nothing() {
    let (_temp, _root, store) = filled();
    store.set_state(KEK, KeyVersion(1), KeyState::Disabled, NOW + 5).unwrap();
    store.set_state(KEK, KeyVersion(1), KeyState::Enabled, NOW + 7).unwrap();
    let number = store.number();
    for decided in [NOW + 5, NOW + 7] {
        store.set_state(KEK, KeyVersion(1), KeyState::Disabled, decided).unwrap();
    }
    assert_eq!((states(&store), store.number()), (vec![(1, KeyState::Enabled, NOW + 7)], number));
}

#[test]
fn a_destroyed_tenants_keys_are_gone_all_at_once_and_nobody_elses() {
    let (temp, root, store) = filled();
    store.rotate_to(KeyName::Kek(TENANT, KEYRING), KeyVersion(2), NOW + 1).unwrap();
    store.ensure(&[KeyName::Kek(OTHER, KEYRING), KeyName::Token(OTHER)], NOW).unwrap();
    let wrapped = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.windows(63).filter(|at| at[..3] == [62, 3, 1]).map(|at| at[1..].to_vec()).collect()
    };
    let file = || fs::read(temp.path().join(FILE)).unwrap();
    assert_eq!(wrapped(&file()).len(), all().len() + 3);
    let number = store.number();
    store.destroy_tenant(TENANT, NOW + 5).unwrap();
    assert_eq!(store.number(), number + 1, "one replacement");
    store.destroy_tenant(TENANT, NOW + 9).unwrap();
    assert_eq!(store.number(), number + 1, "a second one finds nothing to do");
    for store in [&store, &Keystore::open(temp.path(), &root).unwrap()] {
        let keys = store.keys(TENANT);
        assert_eq!(keys.len(), all().len() + 1);
        assert!(keys.iter().all(|key| key.state == KeyState::Destroyed && key.changed == NOW + 5), "{keys:?}");
        assert!(matches!(store.kek(TENANT, KEYRING), Err(KeyError::NotAllowed { .. })));
        assert!(matches!(store.kek_version(TENANT, KEYRING, KeyVersion(1)), Err(KeyError::NotAllowed { .. })));
        assert!(store.ledger_key(TENANT).is_err() && store.token_key(TENANT).is_err());
        assert!(store.index_key(TENANT, IndexName::Fingerprint).is_err());
        assert!(store.kek(OTHER, KEYRING).is_ok() && store.token_key(OTHER).is_ok());
    }
    assert_eq!(wrapped(&file()).len(), 2, "only the other tenant's keys are in the file");
    for entry in fs::read_dir(temp.path()).unwrap() {
        assert!(wrapped(&fs::read(entry.unwrap().path()).unwrap()).len() <= 2);
    }
    // What is destroyed is not made anew.
    store.ensure(&all(), NOW + 20).unwrap();
    assert!(store.kek(TENANT, KEYRING).is_err());
}

#[test]
fn no_file_of_the_keystore_holds_a_destroyed_key() {
    let (temp, root, store) = filled();
    let wrapped = |store: &Keystore| {
        let table = store.table.load();
        table.keys[&KEK][0].record.wrapped
    };
    let before = wrapped(&store).unwrap();
    let holds = |bytes: &[u8]| bytes.windows(before.len()).any(|window| window == before);
    assert!(holds(&fs::read(temp.path().join("keys")).unwrap()));
    store.rotate_to(KEK, KeyVersion(2), NOW + 1).unwrap();
    store.set_state(KEK, KeyVersion(1), KeyState::Destroyed, NOW + 2).unwrap();
    assert!(wrapped(&store).is_none());
    assert!(matches!(store.kek_version(TENANT, KEYRING, KeyVersion(1)), Err(KeyError::NotAllowed { .. })));
    for entry in fs::read_dir(temp.path()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        assert!(!holds(&fs::read(entry.path()).unwrap()), "{:?}", entry.path());
    }
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert_eq!(states(&again)[0], (1, KeyState::Destroyed, NOW + 2));
    store.ensure(&[KEK], NOW).unwrap();
    assert_eq!(store.newest_version(KEK), Some(KeyVersion(2)));
}
