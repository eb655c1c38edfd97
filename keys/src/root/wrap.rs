//! How a root key that is at hand wraps a keystore key: for passphrases and for shares.

use strongroom_ids::VaultId;

use super::{Envelope, KeystoreKey, RootError, RootKind};
use crate::error::KeyError;
use crate::keystore::damaged;
use crate::seal::{self, Format, SUITE};
use crate::secret::{self, RawKey};

/// Wraps a keystore key for its vault. The parameters are authenticated along.
pub(super) fn wrap(
    root: &RawKey,
    vault: VaultId,
    kind: RootKind,
    parameters: Vec<u8>,
    key: &KeystoreKey,
) -> Result<Envelope, KeyError> {
    let aad = aad(vault, kind, &parameters)?;
    let wrapped = seal::seal_blob(&seal::cipher(root), Format::Root, &aad, key.expose())?;
    Ok(Envelope { kind, parameters, wrapped })
}

/// Unwraps a keystore key.
///
/// # Errors
/// [`KeyError::CannotOpen`] if the root key, the vault or a byte of the envelope is another one.
pub(super) fn unwrap(root: &RawKey, vault: VaultId, envelope: &Envelope) -> Result<KeystoreKey, KeyError> {
    let aad = aad(vault, envelope.kind, &envelope.parameters)?;
    let plaintext = seal::open_blob(&seal::cipher(root), Format::Root, &aad, &envelope.wrapped)?;
    secret::raw_key(plaintext.as_bytes()).map(KeystoreKey).ok_or(KeyError::CannotOpen)
}

/// Refuses an envelope of another kind of provider.
pub(super) fn expect(wanted: RootKind, envelope: &Envelope) -> Result<(), RootError> {
    match envelope.kind {
        is if is == wanted => Ok(()),
        is => Err(RootError::OtherProvider { is, wanted }),
    }
}

/// The parameters of these providers are short enough to be one part.
fn aad(vault: VaultId, kind: RootKind, parameters: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut aad = Vec::new();
    for part in [&[Format::Root as u8][..], &[SUITE], &[kind.number()], &vault.0, parameters] {
        aad.push(u8::try_from(part.len()).map_err(|_| damaged("its envelope's parameters are too long"))?);
        aad.extend_from_slice(part);
    }
    Ok(aad)
}
