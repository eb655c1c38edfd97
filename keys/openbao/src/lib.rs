//! The root key in the transit engine of OpenBao, or of HashiCorp Vault, whose wire is the same.
//!
//! ```text
//! keystore key --(transit/encrypt/KEY, the vault's id as associated data)--> Envelope
//! ```
//!
//! [`OpenBaoRoot`] is a [`RootProvider`]. The key never leaves the server; the server encrypts the keystore key and
//! decrypts it again, for the vault that it belongs to and for no other.
//!
//! # Settings
//!
//! ```toml
//! [root.openbao]
//! address = "https://bao.bank.example:8200"
//! ca_file = "/etc/strongroom/bao-ca.pem"          # the authorities of its certificate, and no others
//! key = "strongroom"                              # the transit key
//! mount = "transit"                               # where the engine is; this is the default
//! namespace = "lending"                           # if there are any
//! token_file = "/run/openbao-agent/token"         # a token that an agent renews, or:
//!
//! [root.openbao.approle]
//! role_id = "4f1c1e0e-6f58-fb5e-b9d5-7ab7f1a8f1b5"
//! secret_id_file = "/run/credentials/strongroom.service/openbao-secret-id"
//! mount = "approle"                               # this is the default
//! ```
//!
//! `http://` is taken for the loopback only, where an agent or proxy listens that speaks TLS itself.
//!
//! # What the token needs
//!
//! ```hcl
//! path "transit/encrypt/strongroom" { capabilities = ["update"] }
//! path "transit/decrypt/strongroom" { capabilities = ["update"] }
//! ```
//!
//! Not `create`: with it, encrypting would make a key that is missing, and a mistyped name would pass. The key is of a type
//! with associated data: `aes256-gcm96`, the default, or `chacha20-poly1305`. `auth/token/lookup-self`, which the
//! server's policy `default` allows, tells a token that has run out from one that may not.
//!
//! # Envelope
//!
//! | part | bytes |
//! | --- | --- |
//! | parameters | format 1 (1 byte), then the key's name |
//! | wrapped | what the server gave: `vault:v1:` and base64 |
//!
//! The associated data is `strongroom root openbao 1`, the vault's id (16) and the parameters. The wrapped text names the
//! key's version, so the key may be rotated; `min_decryption_version` ends older versions.
//!
//! # What its answers mean
//!
//! | the server says | the vault hears |
//! | --- | --- |
//! | the token is valid, and may not do this; the key or the engine is gone; the key's version is disallowed | denied |
//! | the token is not valid, and worked before: it was revoked, or nobody renewed it | denied |
//! | the token is not valid, and never worked | wrong credential |
//! | it does not open with this key | another key |
//! | sealed, overloaded, 5xx, a redirect, no answer to a request within 10 seconds | unreachable |
//!
//! A token that worked and does no longer is what revoking looks like from here, and running out looks the same: the
//! vault gives up its keys in both. So let an agent renew it.
//!
//! # What must hold
//!
//! - Token and secret id are read from their file for each call and wiped after it. A login's own token is revoked after
//!   its call.
//! - No redirect is followed, so a token goes to `address` alone; no proxy is taken from the environment.
//! - A request ends within 10 seconds, and no answer is read beyond 64 KiB. With a token there are two requests at most,
//!   with a role three.

#![forbid(unsafe_code)]

mod client;
mod failure;
mod login;
mod secret;
mod settings;

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use strongroom_ids::VaultId;
use strongroom_keys::{Envelope, KeystoreKey, RootError, RootKind, RootProvider};
use zeroize::Zeroizing;

use crate::client::{Answer, Client};
use crate::login::Login;
pub use crate::settings::{AppRole, Settings};

const KIND: RootKind = RootKind::OpenBao;
/// The first byte of the parameters.
const FORMAT: u8 = 1;
/// What the associated data begins with.
const DOMAIN: &[u8] = b"strongroom root openbao 1";

/// A root key in a transit engine.
#[derive(Debug)]
pub struct OpenBaoRoot {
    client: Client,
    login: Login,
    mount: String,
    key: String,
}

impl OpenBaoRoot {
    /// Takes the settings. Nothing is asked yet: the server may come later.
    ///
    /// # Errors
    /// [`RootError::Settings`] if they can't work.
    pub fn new(settings: &Settings) -> Result<Self, RootError> {
        settings.check()?;
        Ok(Self {
            client: Client::new(settings)?,
            login: Login::new(settings)?,
            mount: settings.mount.clone(),
            key: settings.key.clone(),
        })
    }

    /// One call of the engine. `operation` is `encrypt` or `decrypt`.
    fn transit(&self, operation: &str, body: &Request<'_>) -> Result<Answer, RootError> {
        let path = format!("{}/{operation}/{}", self.mount, self.key);
        self.login.call(&self.client, &path, body, body.plaintext)
    }

    fn parameters(&self) -> Vec<u8> {
        [&[FORMAT], self.key.as_bytes()].concat()
    }
}

/// The body of both calls.
#[derive(Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    plaintext: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ciphertext: &'a str,
    associated_data: String,
}

#[derive(Deserialize)]
struct Encrypted<'a> {
    #[serde(borrow)]
    ciphertext: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Decrypted<'a> {
    // Base64 needs no escapes in JSON, so this borrows what is wiped with the answer.
    #[serde(borrow)]
    plaintext: Cow<'a, str>,
}

impl RootProvider for OpenBaoRoot {
    fn kind(&self) -> RootKind {
        KIND
    }

    fn wrap(&self, vault: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        let parameters = self.parameters();
        let plaintext = Zeroizing::new(BASE64.encode(key.expose()));
        let associated_data = BASE64.encode(&aad(vault, &parameters));
        let answer = self.transit("encrypt", &Request { plaintext: &plaintext, ciphertext: "", associated_data })?;
        let Encrypted { ciphertext } = answer.data()?;
        // Something else's answer must not be kept as if it were sealed.
        if !is_ciphertext(&ciphertext) {
            return Err(KIND.settings("what it encrypts to is no transit ciphertext: name a transit engine in mount"));
        }
        Ok(Envelope { kind: KIND, parameters, wrapped: ciphertext.as_bytes().to_vec() })
    }

    fn unwrap(&self, vault: VaultId, envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        if envelope.kind != KIND {
            return Err(RootError::OtherProvider { is: envelope.kind, wanted: KIND });
        }
        match envelope.parameters.split_first() {
            Some((&FORMAT, name)) if name == self.key.as_bytes() => {}
            Some((&FORMAT, name)) => {
                return Err(KIND.other_key(format!(
                    "it was sealed by the key {:?}, and key names {:?}: name the one that sealed",
                    String::from_utf8_lossy(name),
                    self.key
                )));
            }
            _ => return Err(KIND.other_key("its parameters are not of format 1: use the release that sealed it")),
        }
        let ciphertext = std::str::from_utf8(&envelope.wrapped)
            .ok()
            .filter(|text| is_ciphertext(text))
            .ok_or_else(|| KIND.other_key("it is no transit ciphertext: put the keystore's newest copy back"))?;
        let associated_data = BASE64.encode(&aad(vault, &envelope.parameters));
        let answer = self.transit("decrypt", &Request { plaintext: "", ciphertext, associated_data })?;
        let Decrypted { plaintext } = answer.data()?;
        BASE64
            .decode(plaintext.as_bytes())
            .ok()
            .and_then(|bytes| KeystoreKey::from_unwrapped(Zeroizing::new(bytes)))
            .ok_or_else(|| KIND.other_key("what it decrypts to is no key: put the keystore's newest copy back"))
    }
}

fn aad(vault: VaultId, parameters: &[u8]) -> Vec<u8> {
    [DOMAIN, &vault.0, parameters].concat()
}

/// Whether a text is `vault:vVERSION:BASE64`, written in the one way. The server takes several for the same.
fn is_ciphertext(text: &str) -> bool {
    let Some((version, sealed)) = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    let is_version = version != "0" && version.parse::<u32>().is_ok_and(|number| number.to_string() == version);
    is_version && !sealed.is_empty() && text.len() <= Envelope::WRAPPED && BASE64.decode(sealed.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_is_written_in_one_way() {
        for text in ["vault:v1:AAAA", "vault:v10:AA==", "vault:v4294967295:////"] {
            assert!(is_ciphertext(text), "{text}");
        }
        for text in
            ["", "vault:v1:", "vault:v0:AAAA", "vault:v01:AAAA", "vault:v+1:AAAA", "vault:v:AAAA", "vault:v1:A\nAAA"]
        {
            assert!(!is_ciphertext(text), "{text}");
        }
        for text in ["vault:v1:AB==", "vault:v1:AA", "VAULT:v1:AAAA", "vault:v1:AAAA:", "vault:v4294967296:AAAA"] {
            assert!(!is_ciphertext(text), "{text}");
        }
    }

    #[test]
    fn the_place_is_authenticated_whole() {
        let place = aad(VaultId([7; 16]), &[1, 2, 3]);
        assert_eq!(place, [b"strongroom root openbao 1".as_slice(), &[7; 16], &[1, 2, 3]].concat());
    }
}
