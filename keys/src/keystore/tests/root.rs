//! What a keystore is sealed by: whose root key opens it, and how it is moved to another.

use super::*;
use crate::root::RootKind;

/// A provider that fails as it is told.
struct Failing(RootError);

impl RootProvider for Failing {
    fn kind(&self) -> RootKind {
        RootKind::AwsKms
    }

    fn wrap(&self, _vault: VaultId, _key: &KeystoreKey) -> Result<Envelope, RootError> {
        Err(self.0.clone())
    }

    fn unwrap(&self, _vault: VaultId, _envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        Err(self.0.clone())
    }
}

/// A provider that wraps one key and unwraps another.
struct Forgetful(ShamirRoot);

impl RootProvider for Forgetful {
    fn kind(&self) -> RootKind {
        self.0.kind()
    }

    fn wrap(&self, vault: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        self.0.wrap(vault, key)
    }

    fn unwrap(&self, _vault: VaultId, _envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        Ok(KeystoreKey::random()?)
    }
}

/// A keystore whose keys are in all states, so that a move has something to lose; with what one of them wraps.
fn lived() -> (TempDir, ShamirRoot, Keystore, Vec<u8>) {
    let (temp, root, store) = filled();
    let (_, wrapped) = store.kek(TENANT, KEYRING).unwrap().new_dek(&place(TENANT)).unwrap();
    for version in 2..=4 {
        store.rotate_to(KEK, KeyVersion(version), NOW + u64::from(version)).unwrap();
    }
    store.set_state(KEK, KeyVersion(2), KeyState::Destroyed, NOW + 10).unwrap();
    store.set_state(KEK, KeyVersion(3), KeyState::Compromised, NOW + 11).unwrap();
    store.set_state(KEK, KeyVersion(4), KeyState::Disabled, NOW + 12).unwrap();
    (temp, root, store, wrapped)
}

/// All that a keystore gives out, in a form that can be compared.
fn given_out(store: &Keystore, wrapped: &[u8]) -> (Vec<KeyInfo>, Vec<u8>, [u8; 32]) {
    let dek = store.kek_version(TENANT, KEYRING, KeyVersion(1)).unwrap().unwrap(&place(TENANT), wrapped).unwrap();
    let mac = store.index_key(TENANT, IndexName::Token).unwrap().mac(&[b"value"]);
    let mut all = store.token_key(TENANT).unwrap().encrypt(strongroom_ids::RowId(1), [1; 8]).to_vec();
    all.extend(store.ledger_key(TENANT).unwrap().public_key());
    all.extend(dek.raw().iter());
    (store.keys(TENANT), all, mac)
}

/// Whether a root key opens a keystore.
fn opens(temp: &TempDir, root: &ShamirRoot) -> bool {
    Keystore::open(temp.path(), root).is_ok()
}

#[test]
fn another_root_key_is_told_from_damage() {
    let (temp, _root, _store) = filled();
    let error = Keystore::open(temp.path(), &root()).unwrap_err();
    assert!(matches!(error, RootError::OtherKey { provider: RootKind::Shamir, .. }), "{error}");
}

#[test]
fn a_file_says_whose_it_is_and_what_it_is_sealed_by_without_any_key() {
    let (temp, root, store) = filled();
    let KeystoreHeader { vault, number, envelope } = Keystore::header_of(temp.path()).unwrap();
    assert_eq!((vault, envelope.kind, store.root()), (VAULT, RootKind::Shamir, RootKind::Shamir));
    assert_eq!(root.unwrap(VAULT, &envelope).unwrap().expose().len(), 32);
    assert_eq!(number, store.number());
    let nowhere = temp.path().join("nowhere");
    assert!(matches!(Keystore::header_of(&nowhere), Err(KeyError::NoFile { file: "keys", .. })));
}

#[test]
fn a_provider_that_fails_makes_and_opens_nothing_and_its_words_arrive() {
    let denied = RootError::Denied { provider: RootKind::AwsKms, why: "the key is disabled".to_owned() };
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(Keystore::create(temp.path(), VAULT, &Failing(denied.clone())).unwrap_err(), denied);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    let (temp, root, store) = filled();
    let before = fs::read(temp.path().join("keys")).unwrap();
    for result in [store.move_root(&Failing(denied.clone())), store.probe().ask(&Failing(denied.clone()))] {
        assert_eq!(result.unwrap_err(), denied);
    }
    assert_eq!(fs::read(temp.path().join("keys")).unwrap(), before);
    assert!(opens(&temp, &root) && store.is_settled());
}

#[test]
fn a_probe_passes_under_the_root_key_in_use_and_under_no_other() {
    let (_temp, first, store) = filled();
    assert_eq!(store.probe().ask(&first), Ok(()));
    let is_other = |error: &RootError| matches!(error, RootError::OtherKey { provider: RootKind::Shamir, .. });
    assert!(is_other(&store.probe().ask(&root()).unwrap_err()));
    assert!(is_other(&store.probe().ask(&Forgetful(root())).unwrap_err()), "it unwraps, but to another key");
    let second = root();
    store.move_root(&second).unwrap();
    assert_eq!(store.probe().ask(&second), Ok(()));
    assert!(is_other(&store.probe().ask(&first).unwrap_err()));
}

#[test]
fn a_moved_keystore_has_the_same_keys_under_the_new_root_key_and_nothing_under_the_old() {
    let (temp, first, store, wrapped) = lived();
    let (before, number) = (given_out(&store, &wrapped), store.number());
    let old = fs::read(temp.path().join("keys")).unwrap();
    let blobs: Vec<_> = store.table.load().keys.values().flatten().filter_map(|entry| entry.record.wrapped).collect();
    fs::write(temp.path().join("keys.new"), &old).unwrap();
    let second = root();
    store.move_root(&second).unwrap();
    assert_eq!(store.number(), number + 1);
    let again = Keystore::open(temp.path(), &second).unwrap();
    assert_eq!(given_out(&store, &wrapped), before);
    assert_eq!(given_out(&again, &wrapped), before);
    for entry in fs::read_dir(temp.path()).unwrap().map(Result::unwrap) {
        let bytes = fs::read(entry.path()).unwrap();
        assert!(Keystore::from_bytes(temp.path(), &first, &bytes).is_err(), "{:?}", entry.path());
        let holds = |blob: &[u8]| bytes.windows(blob.len()).any(|window| window == blob);
        assert!(!blobs.iter().any(|blob| holds(blob)), "a key is still wrapped as it was");
    }
    // What a state keeps back is moved along, and life goes on.
    store.set_state(KEK, KeyVersion(4), KeyState::Enabled, NOW + 20).unwrap();
    assert_eq!(store.kek(TENANT, KEYRING).unwrap().version(), KeyVersion(4));
    store.ensure(&[KeyName::Token(OTHER)], NOW).unwrap();
    assert!(Keystore::open(temp.path(), &second).unwrap().token_key(OTHER).is_ok());
}

#[test]
fn a_keystore_moves_from_shares_to_a_passphrase_and_back() {
    let (temp, _shares, store, wrapped) = lived();
    let before = given_out(&store, &wrapped);
    let passphrase = crate::Passphrase::new("seven clouds".to_owned()).unwrap();
    let passphrase = crate::PassphraseRoot::new(passphrase, crate::ArgonCost::LEAST);
    store.move_root(&passphrase).unwrap();
    let opened = Keystore::open(temp.path(), &passphrase).unwrap();
    assert_eq!((opened.root(), given_out(&opened, &wrapped)), (RootKind::Passphrase, before.clone()));
    let shares = root();
    let (is, wanted) = (RootKind::Passphrase, RootKind::Shamir);
    assert_eq!(Keystore::open(temp.path(), &shares).unwrap_err(), RootError::OtherProvider { is, wanted });
    opened.move_root(&shares).unwrap();
    assert_eq!(given_out(&Keystore::open(temp.path(), &shares).unwrap(), &wrapped), before);
    // The one that was open meanwhile does not write over it.
    assert_eq!(store.move_root(&root()).unwrap_err(), KeyError::Changed.into());
    assert!(opens(&temp, &shares));
}

#[test]
fn a_move_to_a_provider_that_does_not_unwrap_what_it_wraps_is_not_made() {
    let (temp, first, store) = filled();
    assert!(matches!(store.move_root(&Forgetful(root())), Err(RootError::OtherKey { .. })));
    assert!(opens(&temp, &first));
    assert_eq!(store.probe().ask(&first), Ok(()));
}

#[test]
fn a_move_that_fails_at_any_step_leaves_the_old_root_key_or_the_new_one_and_never_a_mixture() {
    for (step, moved) in [(Step::Write, false), (Step::Rename, false), (Step::Sync, true)] {
        let (temp, first, store, wrapped) = lived();
        let (before, second) = (given_out(&store, &wrapped), root());
        disk::faults::fail(step, 1);
        assert!(matches!(store.move_root(&second), Err(RootError::Key(KeyError::Io { .. }))), "{step:?}");
        // As a process finds it that starts after a crash at this point.
        assert_eq!((opens(&temp, &first), opens(&temp, &second)), (!moved, moved), "{step:?}");
        let found = Keystore::open(temp.path(), if moved { &second } else { &first }).unwrap();
        assert_eq!(given_out(&found, &wrapped), before, "{step:?}");
        // And as the one that lives on does: the next change finds out first.
        assert!(!store.is_settled(), "{step:?}");
        store.ensure(&[KeyName::Token(OTHER)], NOW).unwrap();
        assert!(store.is_settled() && store.probe().ask(if moved { &second } else { &first }).is_ok(), "{step:?}");
        let found = Keystore::open(temp.path(), if moved { &second } else { &first }).unwrap();
        assert_eq!((given_out(&found, &wrapped), found.token_key(OTHER).is_ok()), (before, true), "{step:?}");
        // A move after it goes through.
        let third = root();
        store.move_root(&third).unwrap();
        assert!(opens(&temp, &third) && !opens(&temp, &second) && !opens(&temp, &first), "{step:?}");
    }
}
