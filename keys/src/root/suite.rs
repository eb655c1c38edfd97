//! What every provider of the root key must keep, whatever stands behind it: for the tests of providers.

use std::fmt::Write;

use strongroom_ids::VaultId;

use super::{Envelope, KeystoreKey, RootError, RootKind, RootProvider};

const VAULT: VaultId = VaultId([0x5a; 16]);
const ELSEWHERE: VaultId = VaultId([0xa5; 16]);

/// Tries a provider, and another that has another root key, of the same kind or not. Asks each of them some twenty times.
///
/// # Panics
/// If something does not hold, with a sentence that says what.
pub fn holds(provider: &dyn RootProvider, other: &dyn RootProvider) {
    let Ok(key) = KeystoreKey::random() else { panic!("the system gives no random bytes") };
    let envelope = wrapped(provider, &key);
    opens_what_it_wrapped(provider, &key, &envelope);
    let refuses =
        |provider: &dyn RootProvider, vault, envelope: &Envelope, what: &str| match provider.unwrap(vault, envelope) {
            Ok(_) => panic!("{what} was opened"),
            Err(error) => {
                tells_nothing(&error, &key);
                error
            }
        };
    refuses(provider, ELSEWHERE, &envelope, "an envelope of another vault");
    refuses(other, VAULT, &envelope, "an envelope of another root key");
    let foreign = wrapped(other, &key);
    refuses(provider, VAULT, &foreign, "another root key's envelope");
    for is in RootKind::ALL.into_iter().filter(|kind| *kind != provider.kind()) {
        let error = refuses(provider, VAULT, &Envelope { kind: is, ..envelope.clone() }, "another kind's envelope");
        assert_eq!(error, RootError::OtherProvider { is, wanted: provider.kind() }, "of another kind");
    }
    for changed in changed(&envelope) {
        refuses(provider, VAULT, &changed, "a changed envelope");
    }
    opens_what_it_wrapped(provider, &key, &envelope);
}

fn wrapped(provider: &dyn RootProvider, key: &KeystoreKey) -> Envelope {
    let envelope = match provider.wrap(VAULT, key) {
        Ok(envelope) => envelope,
        Err(error) => panic!("it does not wrap: {error}"),
    };
    assert_eq!(envelope.kind, provider.kind(), "an envelope says whose it is");
    assert!(envelope.parameters.len() <= Envelope::PARAMETERS, "the parameters are longer than they may be");
    assert!(envelope.wrapped.len() <= Envelope::WRAPPED, "the wrapped key is longer than it may be");
    for part in [&envelope.parameters, &envelope.wrapped] {
        assert!(!part.windows(8).any(|bytes| key.expose().starts_with(bytes)), "the key stands there in clear");
    }
    envelope
}

fn opens_what_it_wrapped(provider: &dyn RootProvider, key: &KeystoreKey, envelope: &Envelope) {
    match provider.unwrap(VAULT, envelope) {
        Ok(opened) => assert!(opened.expose() == key.expose(), "it opens to another key"),
        Err(error) => panic!("it does not open what it wrapped: {error}"),
    }
}

/// Envelopes with a bit changed, cut short, and made longer.
fn changed(envelope: &Envelope) -> Vec<Envelope> {
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        bytes
    };
    let Envelope { parameters, wrapped, .. } = envelope;
    let last = wrapped.len().saturating_sub(1);
    let wrapped = [
        flipped(wrapped, 0),
        flipped(wrapped, last / 2),
        flipped(wrapped, last),
        wrapped.iter().copied().take(last).collect(),
        wrapped.iter().copied().chain([0]).collect(),
        vec![],
    ];
    let mut all: Vec<Envelope> = wrapped.into_iter().map(|wrapped| Envelope { wrapped, ..envelope.clone() }).collect();
    if !parameters.is_empty() {
        all.push(Envelope { parameters: flipped(parameters, parameters.len() - 1), ..envelope.clone() });
    }
    all
}

/// No error shows the key: not as bytes, not in hexadecimal, and not as a list of numbers.
fn tells_nothing(error: &RootError, key: &KeystoreKey) {
    let said = format!("{error} {error:?}");
    let mut hex = String::new();
    let mut list = String::new();
    for byte in key.expose().iter().take(8) {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        let _ = write!(list, "{byte}, ");
    }
    let shown = said.to_ascii_lowercase().contains(&hex) || said.contains(&list);
    assert!(!shown, "an error shows the key");
    assert!(!said.as_bytes().windows(8).any(|bytes| key.expose().starts_with(bytes)), "an error shows the key");
}
