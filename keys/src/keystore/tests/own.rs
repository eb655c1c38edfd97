//! Tenants with a key of their own: without it nothing of theirs opens, and everybody else goes on.

mod imported;
mod locked;
mod provided;

use strongroom_key_import as import;

use super::*;
use crate::own_key::{ImportPublicKey, NewImportKey, OwnKey, ProvidedKey};
use crate::root::RootProvider;
use crate::{ArgonCost, Passphrase, PassphraseRoot};

/// A tenant's own key, and another one.
const OWN: [u8; 32] = [0x0a; 32];
const WRONG: [u8; 32] = [0x0b; 32];

/// A provider of a tenant.
fn passphrase(text: &str) -> PassphraseRoot {
    PassphraseRoot::new(Passphrase::new(text.to_owned()).unwrap(), ArgonCost::LEAST)
}

/// A keystore with all keys of two tenants, and what one of each wraps and says.
fn two() -> (TempDir, ShamirRoot, Keystore, Said) {
    let (temp, root, store) = filled();
    let others = all().iter().map(|name| KeyName::decode(&with_tenant(name, OTHER)).unwrap()).collect::<Vec<_>>();
    store.ensure(&others, NOW).unwrap();
    store.rotate_to(KEK, KeyVersion(2), NOW + 1).unwrap();
    let said = Said::by(&store);
    (temp, root, store, said)
}

fn with_tenant(name: &KeyName, tenant: TenantId) -> [u8; crate::name::NAME] {
    let mut bytes = name.encode();
    bytes[..16].copy_from_slice(&tenant.0);
    bytes
}

/// What each key of the two tenants does, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct Said {
    wrapped: [Vec<u8>; 2],
    own: Vec<u8>,
    others: Vec<u8>,
}

impl Said {
    fn by(store: &Keystore) -> Self {
        let wrapped = [TENANT, OTHER].map(|tenant| {
            store.kek_version(tenant, KEYRING, KeyVersion(1)).unwrap().new_dek(&place(tenant)).unwrap().1
        });
        let [own, others] = [TENANT, OTHER].map(|tenant| all_of(store, tenant, &wrapped).unwrap());
        Self { wrapped, own, others }
    }

    /// Whether a keystore gives the first tenant's keys out, all of them and as they were. The other's it always must.
    fn opens(&self, store: &Keystore) -> bool {
        assert_eq!(all_of(store, OTHER, &self.wrapped).unwrap(), self.others);
        match all_of(store, TENANT, &self.wrapped) {
            Ok(all) => all == self.own,
            Err(error) => {
                assert!(matches!(error, KeyError::OwnKeyAway { tenant: TENANT, .. }), "{error}");
                locked(store);
                false
            }
        }
    }
}

fn all_of(store: &Keystore, tenant: TenantId, wrapped: &[Vec<u8>; 2]) -> Result<Vec<u8>, KeyError> {
    let wrapped = &wrapped[usize::from(tenant == OTHER)];
    let mut all = store.kek_version(tenant, KEYRING, KeyVersion(1))?.unwrap(&place(tenant), wrapped)?.raw().to_vec();
    all.push(store.kek(tenant, KEYRING)?.version().0 as u8);
    for index in [IndexName::Field(FieldNo(2)), IndexName::SubjectId, IndexName::Token, IndexName::Fingerprint] {
        all.extend(store.index_key(tenant, index)?.mac(&[b"value"]));
    }
    all.extend(store.token_key(tenant)?.encrypt(strongroom_ids::RowId(1), [1; 8]));
    all.extend(store.ledger_key(tenant)?.public_key());
    Ok(all)
}

/// Of a locked tenant nothing is there but its ledger key.
fn locked(store: &Keystore) {
    let kind = store.own_key(TENANT).unwrap().kind;
    let away = KeyError::OwnKeyAway { tenant: TENANT, kind };
    assert_eq!(store.kek(TENANT, KEYRING).unwrap_err(), away);
    assert_eq!(store.kek_version(TENANT, KEYRING, KeyVersion(1)).unwrap_err(), away);
    assert_eq!(store.index_key(TENANT, IndexName::Token).unwrap_err(), away);
    assert_eq!(store.token_key(TENANT).unwrap_err(), away);
    assert_eq!(store.token_key_version(TENANT, KeyVersion(1)).unwrap_err(), away);
    assert!(store.ledger_key(TENANT).is_ok());
    let table = store.table.load();
    let its = table.keys.values().flatten().filter(|entry| entry.record.name.tenant() == TENANT);
    assert!(its.filter(|entry| entry.key.is_some()).all(|entry| matches!(entry.record.name, KeyName::Ledger(_))));
    assert!(table.tenants.own(TENANT).unwrap().open.is_none());
    assert!(store.own_key(TENANT).unwrap().locked);
}

/// Makes an import key and keeps it.
fn make_import_key(store: &Keystore, tenant: TenantId, now: u64) -> ImportPublicKey {
    store.keep_import_key(&NewImportKey::make(tenant).unwrap(), now).unwrap()
}

/// Has a key wrapped to a new import key, as the tenant would.
fn wrapped(store: &Keystore, key: &[u8], now: u64) -> Vec<u8> {
    import::wrap(&make_import_key(store, TENANT, now).der, key).unwrap()
}

/// Brings what was wrapped: as a first own key, or as the one that was taken away.
fn bring(store: &Keystore, tenant: TenantId, wrapped: &[u8], now: u64) -> Result<(), KeyError> {
    let brought = store.open_brought(tenant, wrapped, now)?;
    match store.own_key(tenant) {
        None => store.move_key(tenant, Some(OwnKey::Imported(brought)), now),
        Some(_) => store.bring_key(tenant, brought, now),
    }
}

/// Moves a tenant to what was wrapped.
fn move_to_brought(store: &Keystore, wrapped: &[u8], now: u64) -> Result<(), KeyError> {
    let brought = store.open_brought(TENANT, wrapped, now)?;
    store.move_key(TENANT, Some(OwnKey::Imported(brought)), now)
}

/// Moves a tenant to a provider's key.
fn move_to(store: &Keystore, tenant: TenantId, to: &dyn RootProvider, now: u64) -> Result<(), RootError> {
    let provided = ProvidedKey::ask(VAULT, tenant, to)?;
    Ok(store.move_key(tenant, Some(OwnKey::Provided(provided)), now)?)
}

/// Unlocks a tenant by what its provider says.
fn unlock(store: &Keystore, tenant: TenantId, by: &dyn RootProvider) -> Result<(), RootError> {
    let unwrapped = store.own_key_probe(tenant)?.ask(by)?;
    store.unlock_tenant(tenant, Some(unwrapped))
}

fn bytes(temp: &TempDir) -> Vec<u8> {
    fs::read(temp.path().join("keys")).unwrap()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_tenant_moves_from_one_own_key_to_another_and_back_to_none() {
    let (temp, root, store, said) = two();
    let (first, second) = (passphrase("first"), super::root());
    move_to(&store, TENANT, &first, NOW + 2).unwrap();
    move_to(&store, TENANT, &second, NOW + 3).unwrap();
    let number = store.number();
    move_to(&store, TENANT, &first, NOW + 3).unwrap();
    assert_eq!(store.number(), number, "what was decided before changes nothing");
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert!(unlock(&again, TENANT, &first).is_err());
    unlock(&again, TENANT, &second).unwrap();
    assert!(said.opens(&again) && said.opens(&store));

    let own = wrapped(&store, &OWN, NOW + 4);
    move_to_brought(&store, &own, NOW + 5).unwrap();
    assert!(said.opens(&Keystore::open(temp.path(), &root).unwrap()));
    // To another imported key: the one before is in no file any more, and does not open.
    let kept = match &store.table.load().tenants.own(TENANT).unwrap().record.wrapping {
        tenants::Wrapping::Imported { key, .. } => key.unwrap(),
        tenants::Wrapping::Provider(_) => panic!("it was imported"),
    };
    assert!(holds(&bytes(&temp), &kept));
    let other = wrapped(&store, &WRONG, NOW + 6);
    move_to_brought(&store, &other, NOW + 7).unwrap();
    assert!(!holds(&bytes(&temp), &kept) && said.opens(&store));
    store.remove_key(TENANT, NOW + 8).unwrap();
    let own = wrapped(&store, &OWN, NOW + 9);
    assert!(matches!(bring(&store, TENANT, &own, NOW + 9), Err(KeyError::OtherOwnKey { .. })));
    let other = wrapped(&store, &WRONG, NOW + 10);
    bring(&store, TENANT, &other, NOW + 10).unwrap();

    store.move_key(TENANT, None, NOW + 11).unwrap();
    assert_eq!(store.own_key(TENANT), None);
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert!(said.opens(&store) && said.opens(&again));
    assert!(again.move_key(TENANT, None, NOW + 11).is_ok(), "made again after a crash it is done already");
}

#[test]
fn another_root_key_takes_locked_and_unlocked_tenants_along() {
    let (temp, _root, store, said) = two();
    let (own, second, third) = (passphrase("own"), super::root(), super::root());
    move_to(&store, TENANT, &own, NOW + 2).unwrap();
    let import = import::wrap(&make_import_key(&store, OTHER, NOW + 2).der, &OWN).unwrap();
    let half = |store: &Keystore| store.table.load().tenants.own(TENANT).unwrap().record.half;
    let before = (bytes(&temp), half(&store));
    let its = |bytes: &[u8], store: &Keystore| -> Vec<_> {
        let records = file::parse(bytes).unwrap().prove(&store.table.load().sealing.own).unwrap().1;
        let its = records.into_iter().filter(|record| record.name.tenant() == TENANT);
        its.filter(|record| !matches!(record.name, KeyName::Ledger(_))).filter_map(|record| record.wrapped).collect()
    };
    let wrapped = its(&before.0, &store);
    store.move_root(&second).unwrap();
    assert!(said.opens(&store) && half(&store) != before.1);
    assert!(!wrapped.iter().any(|key| holds(&bytes(&temp), key)), "an unlocked tenant's keys are wrapped anew");

    store.lock_tenant(TENANT).unwrap();
    let wrapped = its(&bytes(&temp), &store);
    store.move_root(&third).unwrap();
    assert!(!said.opens(&store));
    assert!(wrapped.iter().all(|key| holds(&bytes(&temp), key)), "a locked tenant's keys are carried as they are");
    assert!(Keystore::open(temp.path(), &second).is_err());
    let again = Keystore::open(temp.path(), &third).unwrap();
    for store in [&store, &again] {
        unlock(store, TENANT, &own).unwrap();
        assert!(said.opens(store));
    }
    // An import key and an imported key move along as well.
    bring(&again, OTHER, &import, NOW + 3).unwrap();
    again.move_root(&second).unwrap();
    let again = Keystore::open(temp.path(), &second).unwrap();
    assert!(!again.own_key(OTHER).unwrap().locked);
    unlock(&again, TENANT, &own).unwrap();
    assert!(said.opens(&again));
}

#[test]
fn a_destroyed_tenant_loses_what_is_kept_of_its_own_key_even_if_that_is_away() {
    let (temp, root, store, _said) = two();
    bring(&store, TENANT, &wrapped(&store, &OWN, NOW + 2), NOW + 2).unwrap();
    store.remove_key(TENANT, NOW + 3).unwrap();
    make_import_key(&store, TENANT, NOW + 4);
    store.destroy_tenant(TENANT, NOW + 5).unwrap();
    assert_eq!(store.own_keys(), []);
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert_eq!((again.own_keys(), again.import_key(TENANT).unwrap()), (vec![], None));
    let number = store.number();
    store.destroy_tenant(TENANT, NOW + 5).unwrap();
    assert_eq!(store.number(), number, "made again after a crash it is done already");
}

#[test]
fn a_change_that_fails_at_any_step_leaves_what_was_or_what_is_to_be() {
    /// What is done, and whether the tenant opens by its imported key before and after it.
    type Change = fn(&Keystore, &[u8]) -> Result<(), KeyError>;
    let changes: [(&str, Change, bool, bool); 3] = [
        ("bring", |store, own| bring(store, TENANT, own, NOW + 3), true, true),
        ("remove", |store, _| store.remove_key(TENANT, NOW + 4), true, false),
        ("bring again", |store, own| bring(store, TENANT, own, NOW + 6), false, true),
    ];
    for (step, done) in [(Step::Write, false), (Step::Rename, false), (Step::Sync, true)] {
        let (temp, root, store, said) = two();
        let mut own = wrapped(&store, &OWN, NOW + 2);
        for (what, change, before, after) in changes {
            if what == "bring again" {
                own = wrapped(&store, &OWN, NOW + 5);
            }
            disk::faults::fail(step, 1);
            let failed = change(&store, &own);
            assert!(matches!(failed, Err(KeyError::Io { .. })), "{what} {step:?}: {failed:?}");
            // As a process finds it that starts after a crash at this point, and makes the call again.
            let copy = tempfile::tempdir().unwrap();
            fs::copy(temp.path().join("keys"), copy.path().join("keys")).unwrap();
            let found = Keystore::open(copy.path(), &root).unwrap();
            assert_eq!(said.opens(&found), if done { after } else { before }, "{what} {step:?}");
            // An import key that is used up opens nothing again.
            let again = change(&found, &own);
            assert!(again.is_ok() || (done && what != "remove"), "{what} {step:?}: {again:?}");
            assert_eq!(said.opens(&found), after, "{what} {step:?}");
            // As the one finds it that lives on: locked at once, unlocked only when it is known to be durable.
            assert_eq!(said.opens(&store), what == "bring", "{what} {step:?}");
            change(&store, &own).unwrap();
            assert_eq!(said.opens(&store), after, "{what} {step:?}");
            assert_eq!(said.opens(&Keystore::open(temp.path(), &root).unwrap()), after, "{what} {step:?}");
        }
    }
}

#[test]
fn a_changed_byte_anywhere_keeps_a_keystore_with_own_keys_shut() {
    let (temp, root, store, _said) = two();
    move_to(&store, OTHER, &passphrase("own"), NOW + 2).unwrap();
    bring(&store, TENANT, &wrapped(&store, &OWN, NOW + 2), NOW + 3).unwrap();
    let good = bytes(&temp);
    let envelope = Keystore::header_of(temp.path()).unwrap().envelope;
    let begin = 34 + 1 + 2 + envelope.parameters.len() + 2 + envelope.wrapped.len();
    let end = begin + store.table.load().tenants.encode().unwrap().len();
    for at in begin..end {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let opened = Keystore::from_bytes(temp.path(), &root, &summed(bytes)).map(drop);
        assert_eq!(opened, Err(KeyError::NotAuthentic.into()), "byte {at}");
    }
}
