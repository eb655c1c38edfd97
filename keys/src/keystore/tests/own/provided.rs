//! A key that is with a provider: which answers of which provider unlock a tenant.

use super::*;
use crate::own_key::{self, OwnKeyKind};
use crate::root::RootKind;

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
