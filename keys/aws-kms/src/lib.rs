//! The root key in AWS KMS.
//!
//! ```text
//! keystore key --(kms:Encrypt, the vault's id as encryption context)--> Envelope
//! ```
//!
//! [`AwsKmsRoot`] is a [`RootProvider`]. The key never leaves KMS; KMS encrypts the keystore key and decrypts it again, for
//! the vault that it belongs to and for no other.
//!
//! # Settings
//!
//! ```toml
//! [root.aws-kms]
//! key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
//! region = "eu-central-1"                # where key is no ARN, which names its region
//! endpoint = "https://vpce-0a1b.kms.eu-central-1.vpce.amazonaws.com"   # if not the region's own
//!
//! # Without these two, the credentials come from where AWS's programs find theirs: environment, profile, web identity,
//! # container, instance.
//! access_key_id = "AKIAIOSFODNN7EXAMPLE"
//! secret_access_key_file = "/run/credentials/strongroom.service/aws-secret-access-key"
//! ```
//!
//! `key` is the ARN or id of a symmetric key, or an alias (`alias/strongroom`). With an ARN nothing that another key
//! sealed is opened; an alias may be pointed at another key, and what the old one sealed still opens. `http://` is taken
//! for the loopback only.
//!
//! # What the credentials need
//!
//! ```json
//! {
//!   "Effect": "Allow",
//!   "Action": ["kms:Encrypt", "kms:Decrypt"],
//!   "Resource": "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
//!   "Condition": { "StringEquals": { "kms:EncryptionContext:strongroom:vault": "THE VAULT'S ID" } }
//! }
//! ```
//!
//! The condition is for after `init`, which makes the vault's id.
//!
//! # Envelope
//!
//! | part | bytes |
//! | --- | --- |
//! | parameters | format 1 (1 byte), then the ARN of the key that sealed |
//! | wrapped | KMS's `CiphertextBlob` |
//!
//! The encryption context is `strongroom:vault`: the vault's id in lower-case hexadecimal. Unwrapping names that ARN as
//! `KeyId`, and takes no answer of another key.
//!
//! # What must hold
//!
//! - Credentials are looked up for each call and dropped after it, so renewed ones are used and old ones are not kept.
//! - A call ends within 10 seconds, of which connecting has 3. What may pass is tried three times within them.
//! - Calls run on a thread of their own, so it does not matter whether the caller has a runtime.
//! - What the SDK traces, among it the headers of requests with session tokens, goes nowhere.

#![forbid(unsafe_code)]

mod credentials;
mod failure;
mod kms;
mod settings;

use aws_sdk_kms::primitives::Blob;
use strongroom_ids::VaultId;
use strongroom_keys::{Envelope, KeystoreKey, RootError, RootKind, RootProvider};
use zeroize::Zeroizing;

pub use crate::settings::Settings;

const KIND: RootKind = RootKind::AwsKms;
/// The first byte of the parameters.
const FORMAT: u8 = 1;
/// The encryption context's one name.
const CONTEXT: &str = "strongroom:vault";

/// A root key in AWS KMS.
#[derive(Debug)]
pub struct AwsKmsRoot {
    settings: Settings,
}

impl AwsKmsRoot {
    /// Takes the settings. Nothing is asked yet.
    ///
    /// # Errors
    /// [`RootError::Settings`] if they can't work.
    pub fn new(settings: Settings) -> Result<Self, RootError> {
        settings.check()?;
        Ok(Self { settings })
    }

    /// Refuses an envelope that another key sealed, if the settings say which one it has to be.
    fn check_arn(&self, arn: &str) -> Result<(), RootError> {
        if settings::is_key_arn(&self.settings.key) && self.settings.key != arn {
            return Err(KIND.other_key(format!(
                "it was sealed by {arn}, and key names {}: name the one that sealed",
                self.settings.key
            )));
        }
        Ok(())
    }
}

impl RootProvider for AwsKmsRoot {
    fn kind(&self) -> RootKind {
        KIND
    }

    fn wrap(&self, vault: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        let plaintext = Blob::new(key.expose().as_slice());
        let sealed = kms::call(&self.settings, async |client| {
            let request = client.encrypt().key_id(&self.settings.key).plaintext(plaintext);
            request.encryption_context(CONTEXT, vault.to_string()).send().await.map_err(failure::while_wrapping)
        })?;
        let (Some(arn), Some(wrapped)) = (sealed.key_id, sealed.ciphertext_blob) else {
            return Err(KIND.unreachable("it answers without a key's ARN or a ciphertext: check endpoint"));
        };
        self.check_arn(&arn)?;
        let envelope =
            Envelope { kind: KIND, parameters: [&[FORMAT], arn.as_bytes()].concat(), wrapped: wrapped.into_inner() };
        if envelope.parameters.len() > Envelope::PARAMETERS || envelope.wrapped.len() > Envelope::WRAPPED {
            return Err(KIND.unreachable("it answers with more than KMS ever gives: check endpoint"));
        }
        Ok(envelope)
    }

    fn unwrap(&self, vault: VaultId, envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        if envelope.kind != KIND {
            return Err(RootError::OtherProvider { is: envelope.kind, wanted: KIND });
        }
        let arn = match envelope.parameters.split_first() {
            Some((&FORMAT, arn)) => std::str::from_utf8(arn).ok().filter(|arn| settings::is_key_arn(arn)),
            _ => None,
        };
        let arn =
            arn.ok_or_else(|| KIND.other_key("its parameters are not of format 1: use the release that sealed it"))?;
        self.check_arn(arn)?;
        let opened = kms::call(&self.settings, async |client| {
            let request = client.decrypt().key_id(arn).ciphertext_blob(Blob::new(envelope.wrapped.as_slice()));
            request.encryption_context(CONTEXT, vault.to_string()).send().await.map_err(failure::while_unwrapping)
        })?;
        let (Some(answering), Some(plaintext)) = (opened.key_id, opened.plaintext) else {
            return Err(KIND.unreachable("it answers without a key's ARN or a plaintext: check endpoint"));
        };
        let plaintext = Zeroizing::new(plaintext.into_inner());
        if answering != arn {
            return Err(KIND.other_key(format!("{arn} was asked for, and another key answers: check endpoint")));
        }
        KeystoreKey::from_unwrapped(plaintext)
            .ok_or_else(|| KIND.other_key("what it decrypts to is no key: put the keystore's newest copy back"))
    }
}
