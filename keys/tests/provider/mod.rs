//! What every provider of a root key keeps, and words to say it with. The tests of the providers' crates include this.

#![allow(dead_code)]

use strongroom_ids::VaultId;
use strongroom_keys::root::suite;
use strongroom_keys::{ArgonCost, Envelope, KeystoreKey, Passphrase, PassphraseRoot, RootError, RootProvider};

/// The vault of the tests.
pub const VAULT: VaultId = VaultId([7; 16]);

/// A new key, and what the provider makes of it.
pub fn wrapped(root: &dyn RootProvider) -> (KeystoreKey, Envelope) {
    let key = KeystoreKey::random().unwrap();
    let envelope = root.wrap(VAULT, &key).unwrap();
    (key, envelope)
}

/// Why the provider wraps nothing.
pub fn not_wrapped(root: &dyn RootProvider) -> RootError {
    root.wrap(VAULT, &KeystoreKey::random().unwrap()).unwrap_err()
}

/// Why the provider does not unwrap.
pub fn not_opened(root: &dyn RootProvider, envelope: &Envelope) -> RootError {
    root.unwrap(VAULT, envelope).unwrap_err()
}

/// Whether the provider unwraps just that key.
#[track_caller]
pub fn opens(root: &dyn RootProvider, envelope: &Envelope, key: &KeystoreKey) -> bool {
    root.unwrap(VAULT, envelope).unwrap().expose() == key.expose()
}

/// What kind of error it is.
pub fn kind(error: &RootError) -> &'static str {
    match error {
        RootError::Credential { .. } => "credential",
        RootError::Denied { .. } => "denied",
        RootError::Unreachable { .. } => "unreachable",
        RootError::OtherKey { .. } => "other key",
        RootError::Settings { .. } => "settings",
        RootError::OtherProvider { .. } => "other provider",
        RootError::Key(_) => "key",
    }
}

/// An error is of that kind.
#[track_caller]
pub fn is(error: &RootError, wanted: &str) {
    assert_eq!(kind(error), wanted, "{error}");
}

/// What holds for each of them: `again` is the same provider made anew.
pub fn keeps_what_all_keep(root: &dyn RootProvider, again: &dyn RootProvider) {
    let passphrase = Passphrase::new("of another kind".to_owned()).unwrap();
    suite::holds(root, &PassphraseRoot::new(passphrase, ArgonCost::LEAST));
    let (key, envelope) = wrapped(root);
    assert!(opens(again, &envelope, &key));
    let second = root.wrap(VAULT, &key).unwrap();
    assert_ne!(second.wrapped, envelope.wrapped, "no two wrappings of a key are alike");
    assert!(opens(again, &second, &key));
    // What stands behind these has a form of its own, so each byte counts.
    for at in 0..envelope.wrapped.len() {
        let mut changed = envelope.clone();
        changed.wrapped[at] ^= 1;
        assert!(root.unwrap(VAULT, &changed).is_err(), "byte {at} of what is wrapped");
    }
    for parameters in [vec![], vec![0], vec![1], vec![0xff; Envelope::PARAMETERS]] {
        is(&not_opened(root, &Envelope { parameters, ..envelope.clone() }), "other key");
    }
    is(&root.unwrap(VaultId([8; 16]), &envelope).unwrap_err(), "other key");
    assert!(opens(root, &envelope, &key), "nothing of this has changed anything");
}

/// No text shows the key, in any usual form, nor one of these secrets.
#[track_caller]
pub fn shows_nothing(told: &str, key: &KeystoreKey, secrets: &[&str]) {
    let key = key.expose();
    let forms = [
        data_encoding::BASE64.encode(key),
        data_encoding::HEXLOWER.encode(key),
        data_encoding::HEXUPPER.encode(key),
        format!("{key:?}"),
    ];
    for secret in forms.iter().map(String::as_str).chain(secrets.iter().copied()) {
        assert!(!told.contains(secret), "{told}");
    }
}
