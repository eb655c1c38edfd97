//! Tenants with a key of their own: without it nothing of theirs opens, and everybody else goes on.

use std::sync::Arc;
use std::thread;

use strongroom_key_import as import;

use super::*;
use crate::own_key::{self, ImportPublicKey, NewImportKey, OwnKey, OwnKeyKind, ProvidedKey};
use crate::root::{RootKind, RootProvider};
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
fn an_imported_key_is_taken_away_and_brought_again_and_nothing_opens_meanwhile() {
    let (temp, root, store, said) = two();
    let before = bytes(&temp);
    bring(&store, TENANT, &wrapped(&store, &OWN, NOW + 2), NOW + 3).unwrap();
    assert!(said.opens(&store) && said.opens(&Keystore::open(temp.path(), &root).unwrap()));
    let info = store.own_key(TENANT).unwrap();
    assert_eq!((info.kind, info.removed, info.locked, info.changed), (OwnKeyKind::Imported, false, false, NOW + 3));
    assert_eq!((store.own_key(OTHER), store.own_keys().len()), (None, 1));
    // Every key but the ledger's is wrapped anew, and no old wrapping is left.
    for entry in file::parse(&before).unwrap().prove(&store.table.load().sealing.own).unwrap().1 {
        let its = entry.name.tenant() == TENANT && !matches!(entry.name, KeyName::Ledger(_));
        assert!(!its || !holds(&bytes(&temp), &entry.wrapped.unwrap()), "{}", entry.name);
    }

    let number = store.number();
    store.remove_key(TENANT, NOW + 4).unwrap();
    assert!(!said.opens(&store));
    assert!(!said.opens(&Keystore::open(temp.path(), &root).unwrap()));
    assert_eq!((store.number(), store.own_key(TENANT).unwrap().removed), (number + 1, true));
    assert_eq!(store.unlock_tenant(TENANT, None).unwrap_err(), store.kek(TENANT, KEYRING).unwrap_err().into());

    // Another key is told apart, and refused without using the import key up.
    let public = make_import_key(&store, TENANT, NOW + 5);
    let error = bring(&store, TENANT, &import::wrap(&public.der, &WRONG).unwrap(), NOW + 6).unwrap_err();
    let KeyError::OtherOwnKey { tenant: TENANT, wanted, brought } = error else { panic!("{error}") };
    assert_eq!((Some(wanted), brought.len()), (info.fingerprint.clone(), 16));
    assert_ne!(Some(brought), info.fingerprint);
    assert!(!said.opens(&store));

    let own = import::wrap(&public.der, &OWN).unwrap();
    bring(&store, TENANT, &own, NOW + 6).unwrap();
    assert!(said.opens(&store) && said.opens(&Keystore::open(temp.path(), &root).unwrap()));
    let info_now = store.own_key(TENANT).unwrap();
    assert_eq!((info_now.fingerprint, info_now.removed, info_now.changed), (info.fingerprint, false, NOW + 6));
}

#[test]
fn an_import_key_opens_once_for_its_tenant_and_only_while_it_is_fresh() {
    let (_temp, _root, store, said) = two();
    let why = |result: Result<(), KeyError>| match result.unwrap_err() {
        KeyError::OwnKey { tenant: TENANT, why } => why,
        error => panic!("{error}"),
    };
    assert!(why(bring(&store, TENANT, &[0; 512], NOW)).contains("no import key"));
    assert_eq!(store.import_key(TENANT).unwrap(), None);
    let public = make_import_key(&store, TENANT, NOW);
    assert_eq!(store.import_key(TENANT).unwrap(), Some(public.clone()));
    assert_eq!(make_import_key(&store, TENANT, NOW), public, "made again after a crash it is the same");
    let own = import::wrap(&public.der, &OWN).unwrap();
    // A wall: what was wrapped for one tenant does not open for the other.
    assert_eq!(bring(&store, OTHER, &own, NOW).unwrap_err(), why_for(OTHER, &store, &own));
    for (bytes, now, says) in [
        (&own, NOW + ImportPublicKey::AGE + 1, "24 hours"),
        (&own, NOW - 1, "24 hours"),
        (&vec![0; 512], NOW, "does not open"),
        (&own[1..].to_vec(), NOW, "does not open"),
        (&import::wrap(&public.der, &[7; 16]).unwrap(), NOW, "not a key of 32 bytes"),
        (&import::wrap(&public.der, &[7; 33]).unwrap(), NOW, "not a key of 32 bytes"),
    ] {
        let said = why(bring(&store, TENANT, bytes, now));
        assert!(said.contains(says), "{said}");
    }
    assert!(said.opens(&store) && store.own_key(TENANT).is_none(), "nothing was changed");
    // A newer one takes its place.
    let newer = make_import_key(&store, TENANT, NOW + 1);
    assert!(why(bring(&store, TENANT, &own, NOW + 2)).contains("does not open"));
    let own = import::wrap(&newer.der, &OWN).unwrap();
    bring(&store, TENANT, &own, NOW + 1 + ImportPublicKey::AGE).unwrap();
    assert_eq!(store.import_key(TENANT).unwrap(), None);
    // It is used up.
    let number = store.number();
    assert!(why(bring(&store, TENANT, &own, NOW + 2 + ImportPublicKey::AGE)).contains("no import key"));
    assert_eq!(store.number(), number);
}

/// What the other tenant hears that brings a key without an import key of its own, and with one.
fn why_for(tenant: TenantId, store: &Keystore, own: &[u8]) -> KeyError {
    let without = bring(store, tenant, own, NOW).unwrap_err();
    make_import_key(store, tenant, NOW);
    let with = bring(store, tenant, own, NOW).unwrap_err();
    assert!(with.to_string().contains("does not open"), "{with}");
    without
}

#[test]
fn a_tenants_provider_locks_and_unlocks_it_and_no_other_does() {
    let (temp, root, store, said) = two();
    let own = passphrase("the tenant's own");
    move_to(&store, TENANT, &own, NOW + 2).unwrap();
    assert!(said.opens(&store));
    assert_eq!(store.own_key(TENANT).unwrap().kind, OwnKeyKind::Provider(RootKind::Passphrase));
    assert_eq!(unlock(&store, TENANT, &own), Ok(()), "it is still there");

    // Whoever opens the keystore by its root key has everything but this tenant.
    let store = Keystore::open(temp.path(), &root).unwrap();
    assert!(!said.opens(&store));
    let wrong = unlock(&store, TENANT, &passphrase("another")).unwrap_err();
    assert!(matches!(wrong, RootError::Credential { provider: RootKind::Passphrase, .. }), "{wrong}");
    let (is, wanted) = (RootKind::Passphrase, RootKind::Shamir);
    let other_kind = unlock(&store, TENANT, &super::root()).unwrap_err();
    assert_eq!(other_kind, RootError::OtherProvider { is, wanted });
    for wrong in [store.unlock_tenant(TENANT, None), unlock(&store, OTHER, &own)] {
        assert!(matches!(wrong, Err(RootError::Key(KeyError::OwnKey { .. }))));
    }
    assert!(!said.opens(&store));
    let number = store.number();
    unlock(&store, TENANT, &own).unwrap();
    assert!(said.opens(&store));
    assert!(matches!(unlock(&store, TENANT, &passphrase("another")), Err(RootError::Credential { .. })));
    assert!(said.opens(&store), "who asks with something wrong does not lock it");
    store.lock_tenant(TENANT).unwrap();
    assert!(!said.opens(&store));
    unlock(&store, TENANT, &own).unwrap();
    assert!(said.opens(&store));
    assert_eq!(store.number(), number, "the file is the same");
    assert!(matches!(store.lock_tenant(OTHER), Err(KeyError::OwnKey { tenant: OTHER, .. })));
    assert!(matches!(store.remove_key(TENANT, NOW + 9), Err(KeyError::OwnKey { .. })));
    assert!(said.opens(&store));
}

#[test]
fn no_envelope_opens_in_the_place_of_the_vaults_or_of_another_tenants() {
    let temp = tempfile::tempdir().unwrap();
    let same = passphrase("one for all");
    let store = Keystore::create(temp.path(), VAULT, &same).unwrap();
    for (tenant, now) in [(TENANT, NOW), (OTHER, NOW)] {
        move_to(&store, tenant, &same, now).unwrap();
    }
    let table = store.table.load_full();
    let envelope = |tenant| match &table.tenants.own(tenant).unwrap().record.wrapping {
        tenants::Wrapping::Provider(envelope) => envelope.clone(),
        tenants::Wrapping::Imported { .. } => panic!("it is with a provider"),
    };
    let places = [VAULT, own_key::place(VAULT, TENANT), own_key::place(VAULT, OTHER)];
    let envelopes = [table.sealing.envelope.clone(), envelope(TENANT), envelope(OTHER)];
    for (at, place) in places.iter().enumerate() {
        for (of, envelope) in envelopes.iter().enumerate() {
            assert_eq!(same.unwrap(*place, envelope).is_ok(), at == of, "{at} {of}");
        }
    }
}

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

/// A provider that wraps one key and unwraps another.
struct Forgetful(PassphraseRoot);

impl RootProvider for Forgetful {
    fn kind(&self) -> RootKind {
        self.0.kind()
    }

    fn wrap(&self, place: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        self.0.wrap(place, key)
    }

    fn unwrap(&self, _place: VaultId, _envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        Ok(KeystoreKey::random()?)
    }
}

#[test]
fn a_provider_that_unwraps_another_key_neither_takes_nor_unlocks_a_tenant() {
    let (temp, root, store, said) = two();
    let forgetful = Forgetful(passphrase("own"));
    let is_other = |error: RootError| matches!(error, RootError::OtherKey { provider: RootKind::Passphrase, .. });
    assert!(is_other(move_to(&store, TENANT, &forgetful, NOW + 2).unwrap_err()));
    assert!(said.opens(&store) && store.own_key(TENANT).is_none());
    move_to(&store, TENANT, &passphrase("own"), NOW + 2).unwrap();
    assert!(is_other(unlock(&store, TENANT, &forgetful).unwrap_err()));
    assert!(said.opens(&store));
    let again = Keystore::open(temp.path(), &root).unwrap();
    assert!(is_other(unlock(&again, TENANT, &forgetful).unwrap_err()));
    assert!(!said.opens(&again));
}

/// A provider during whose answer the tenant gives up its own key.
struct Slow<'a>(PassphraseRoot, &'a Keystore);

impl RootProvider for Slow<'_> {
    fn kind(&self) -> RootKind {
        self.0.kind()
    }

    fn wrap(&self, place: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        self.0.wrap(place, key)
    }

    fn unwrap(&self, place: VaultId, envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        let key = self.0.unwrap(place, envelope)?;
        self.1.move_key(TENANT, None, NOW + 9)?;
        Ok(key)
    }
}

#[test]
fn an_answer_that_comes_after_the_tenant_has_moved_unlocks_nothing() {
    let (_temp, _root, store, said) = two();
    move_to(&store, TENANT, &passphrase("own"), NOW + 2).unwrap();
    let late = unlock(&store, TENANT, &Slow(passphrase("own"), &store)).unwrap_err();
    assert!(matches!(late, RootError::Key(KeyError::OwnKey { tenant: TENANT, .. })), "{late}");
    assert!(said.opens(&store) && store.own_key(TENANT).is_none());
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
fn a_copy_opens_by_the_imported_key_that_was_there_when_it_was_made() {
    let (_temp, root, store, said) = two();
    let opened = |copy: &[u8]| {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("keys"), copy).unwrap();
        said.opens(&Keystore::open(elsewhere.path(), &root).unwrap())
    };
    bring(&store, TENANT, &wrapped(&store, &OWN, NOW + 2), NOW + 2).unwrap();
    let with = store.copy().unwrap().bytes;
    store.remove_key(TENANT, NOW + 3).unwrap();
    let without = store.copy().unwrap().bytes;
    assert!(opened(&with), "taking the key away takes it out of no copy");
    assert!(!opened(&without));
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
