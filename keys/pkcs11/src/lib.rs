//! The root key in a hardware security module, by PKCS#11.
//!
//! ```text
//! keystore key --(CKM_AES_GCM under an AES-256 key that never leaves the token)--> Envelope
//! ```
//!
//! [`Pkcs11Root`] is a [`RootProvider`]. The key lies in a token, sensitive and not extractable; the token encrypts the
//! keystore key and decrypts it again, for the vault that it belongs to and for no other.
//!
//! # Settings
//!
//! ```toml
//! [root.pkcs11]
//! module = "/usr/lib/softhsm/libsofthsm2.so"   # the vendor's library
//! token = "vault"                              # the token's label
//! serial = "9ab1d7f2c37b0a5e"                  # its serial number, if several have that label
//! key = "strongroom-root"                      # the key's label (CKA_LABEL)
//! pin_file = "/run/credentials/strongroom.service/pkcs11-pin"
//! ```
//!
//! # What the token needs
//!
//! - The mechanism `CKM_AES_GCM` with additional authenticated data and a 128-bit tag.
//! - One secret key with that label: `CKK_AES`, `CKA_VALUE_LEN` 32, `CKA_PRIVATE`, `CKA_SENSITIVE`, not `CKA_EXTRACTABLE`,
//!   `CKA_ENCRYPT`, `CKA_DECRYPT`. [`Pkcs11Root::create_key`] makes it, with a random `CKA_ID`.
//! - A user PIN, whose user may use that key and needs to do nothing else.
//!
//! # Envelope
//!
//! | part | bytes |
//! | --- | --- |
//! | parameters | format 1 (1 byte), then the key's `CKA_ID` (0 to 255) |
//! | wrapped | nonce (12), encrypted key (32), tag (16) |
//!
//! The AAD is `strongroom root pkcs11 1`, the vault's id (16) and the parameters. Only the last has no fixed size, so no
//! two places have the same AAD. A key that was replaced under its label has another `CKA_ID` and is not taken for the
//! old one.
//!
//! # What must hold
//!
//! - The PIN is read from its file for each call and wiped after it. One that the token refused is not tried again, since
//!   a token locks after a few; nor is any while the token says that one more wrong PIN locks it.
//! - A module is loaded once in a process, and a thread of its own makes all calls into it, one after the other. A call
//!   logs in and out by itself, so no session stays open. After one that did not reach the token, the module is initialised
//!   anew, so that a token that comes back is found.
//! - A call ends within 30 seconds. What a module that hangs still does is waited for by nobody.

#![forbid(unsafe_code)]

mod failure;
mod module;
mod pin;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use strongroom_ids::VaultId;
use strongroom_keys::{Envelope, KeystoreKey, RootError, RootKind, RootProvider};
use zeroize::Zeroizing;

use crate::pin::Pins;
use crate::token::{Access, Token};

const KIND: RootKind = RootKind::Pkcs11;
/// The first byte of the parameters.
const FORMAT: u8 = 1;
/// Bytes of a `CKA_ID` at most.
const LONGEST_ID: usize = 255;
/// What the AAD begins with.
const DOMAIN: &[u8] = b"strongroom root pkcs11 1";

/// Where the root key is: `[root.pkcs11]` of the vault's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The full path of the vendor's library.
    pub module: PathBuf,
    /// The token's label, at most 32 bytes.
    pub token: String,
    /// The token's serial number, to tell tokens of one label apart.
    #[serde(default)]
    pub serial: Option<String>,
    /// The key's label.
    pub key: String,
    /// The full path of the file that holds the user PIN and nothing else; a line end after it does not count.
    pub pin_file: PathBuf,
}

impl Settings {
    fn check(&self) -> Result<(), RootError> {
        for (name, path) in [("module", &self.module), ("pin_file", &self.pin_file)] {
            if !path.is_absolute() {
                return Err(KIND.settings(format!("{name} = {path:?} is no full path: begin it with /")));
            }
        }
        if self.token.is_empty() || self.token.len() > 32 {
            return Err(KIND.settings("token is a label of 1 to 32 bytes: give the token's own"));
        }
        if self.key.is_empty() || self.key.len() > 255 {
            return Err(KIND.settings("key is a label of 1 to 255 bytes: give the key's own"));
        }
        Ok(())
    }
}

/// A root key in a PKCS#11 token.
#[derive(Debug)]
pub struct Pkcs11Root {
    settings: Arc<Settings>,
    pins: Arc<Pins>,
}

impl Pkcs11Root {
    /// Takes the settings. Nothing is loaded or asked yet: module and token may come later.
    ///
    /// # Errors
    /// [`RootError::Settings`] if they can't work.
    pub fn new(settings: Settings) -> Result<Self, RootError> {
        settings.check()?;
        let pins = Arc::new(Pins::new(settings.pin_file.clone()));
        Ok(Self { settings: Arc::new(settings), pins })
    }

    /// Makes the key in the token: AES-256, sensitive, not extractable.
    ///
    /// # Errors
    /// [`RootError::Settings`] if there is a key with that label, or the token can't do AES-GCM; else as
    /// [`RootProvider::wrap`].
    pub fn create_key(&self) -> Result<(), RootError> {
        let id = strongroom_keys::random::<16>()?;
        self.with_token(Access::Change, move |token, settings| token.create_key(&settings.key, &id))
    }

    fn with_token<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(&Token, &Settings) -> Result<T, RootError> + Send + 'static,
    ) -> Result<T, RootError> {
        let (settings, pins) = (Arc::clone(&self.settings), Arc::clone(&self.pins));
        module::call(&self.settings.module, move |pkcs11| {
            let token = Token::open(pkcs11, &settings, &pins, access)?;
            work(&token, &settings)
        })
    }
}

impl RootProvider for Pkcs11Root {
    fn kind(&self) -> RootKind {
        KIND
    }

    fn wrap(&self, vault: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        // What crosses to the module's thread, whose stack nobody wipes, is behind a pointer.
        let plaintext = Zeroizing::new(key.expose().to_vec());
        self.with_token(Access::Use, move |token, settings| {
            let key = token.find_key(&settings.key, None)?;
            let parameters = [&[FORMAT], key.id.as_slice()].concat();
            let wrapped = token.seal(&key, &aad(vault, &parameters), &plaintext)?;
            Ok(Envelope { kind: KIND, parameters, wrapped })
        })
    }

    fn unwrap(&self, vault: VaultId, envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        if envelope.kind != KIND {
            return Err(RootError::OtherProvider { is: envelope.kind, wanted: KIND });
        }
        let id = match envelope.parameters.split_first() {
            Some((&FORMAT, id)) if id.len() <= LONGEST_ID => id.to_vec(),
            _ => return Err(KIND.other_key("its parameters are not of format 1: use the release that sealed it")),
        };
        let (aad, wrapped) = (aad(vault, &envelope.parameters), envelope.wrapped.clone());
        let plaintext = self.with_token(Access::Use, move |token, settings| {
            let key = token.find_key(&settings.key, Some(&id))?;
            token.open_sealed(&key, &aad, &wrapped)
        })?;
        KeystoreKey::from_unwrapped(plaintext)
            .ok_or_else(|| KIND.other_key("what it decrypts to is no key: put the keystore's newest copy back"))
    }
}

fn aad(vault: VaultId, parameters: &[u8]) -> Vec<u8> {
    [DOMAIN, &vault.0, parameters].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            module: "/nowhere/module.so".into(),
            token: "vault".to_owned(),
            serial: None,
            key: "root".to_owned(),
            pin_file: "/nowhere/pin".into(),
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let why = |settings: Settings| Pkcs11Root::new(settings).unwrap_err().to_string();
        assert!(why(Settings { module: "module.so".into(), ..settings() }).contains("module = "));
        assert!(why(Settings { pin_file: "pin".into(), ..settings() }).contains("pin_file = "));
        assert!(why(Settings { token: String::new(), ..settings() }).contains("token is a label"));
        assert!(why(Settings { token: "x".repeat(33), ..settings() }).contains("token is a label"));
        assert!(why(Settings { key: String::new(), ..settings() }).contains("key is a label"));
    }

    #[test]
    fn the_place_is_authenticated_whole() {
        let place = aad(VaultId([7; 16]), &[1, 2, 3]);
        assert_eq!(place, [b"strongroom root pkcs11 1".as_slice(), &[7; 16], &[1, 2, 3]].concat());
    }

    #[test]
    fn parameters_of_another_form_are_refused_before_anything_is_asked() {
        let root = Pkcs11Root::new(settings()).unwrap();
        for parameters in [vec![], vec![0], vec![2, 1, 2], vec![1; LONGEST_ID + 2]] {
            let envelope = Envelope { kind: KIND, parameters, wrapped: vec![0; 60] };
            let error = root.unwrap(VaultId([0; 16]), &envelope).unwrap_err();
            assert!(matches!(error, RootError::OtherKey { .. }), "{error}");
        }
    }
}
