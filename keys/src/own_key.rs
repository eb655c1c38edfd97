//! A tenant's own key: where it lives, how it wraps the tenant key, and what the world may know of it.
//!
//! ```text
//! own key -> tenant key --+
//!                         +-> wraps the tenant's KEKs, index keys and token keys
//! keystore key -> half ---+
//! ```
//!
//! An own key was made elsewhere, and what it was used for before is unknown. So it wraps one random key, the tenant
//! key, and nothing else; an imported one does not even do that itself, but through a key that is derived from it.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ring::{digest, hmac};
use strongroom_ids::{TenantId, VaultId};
use strongroom_key_import::{ImportError, ImportKey};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::KeyError;
use crate::place::Parts;
use crate::root::{Envelope, KeystoreKey, RootError, RootKind, RootProvider};
use crate::seal::{self, Cipher, Format, OVERHEAD, SUITE};
use crate::secret::{self, RawKey};
use crate::stack;

/// Bytes of an imported key's fingerprint.
pub(crate) const FINGERPRINT: usize = 8;

/// Bytes of a tenant key that an imported key wraps.
pub(crate) const WRAPPED: usize = 32 + OVERHEAD;

/// A tenant's own key, as it is given to a keystore.
pub enum OwnKey {
    /// A key that was wrapped to the tenant's import key.
    Imported(BroughtKey),
    /// A key that stays with a provider, which has wrapped a tenant key.
    Provided(ProvidedKey),
}

/// An own key that was wrapped to its tenant's import key, and opened. Wiped on drop.
pub struct BroughtKey {
    pub(crate) tenant: TenantId,
    /// When the import key was made that it was wrapped to: that is used up with it.
    pub(crate) import: u64,
    /// In a place of its own, like the keys below: what is moved leaves nothing behind then.
    pub(crate) key: Box<ImportedKey>,
}

/// A new tenant key, wrapped by a provider that has shown that it unwraps it. Wiped on drop.
pub struct ProvidedKey {
    vault: VaultId,
    tenant: TenantId,
    envelope: Envelope,
    key: Box<KeystoreKey>,
}

impl ProvidedKey {
    /// Asks a provider. Takes as long as that does: call it where waiting is allowed, and nobody is kept waiting.
    ///
    /// # Errors
    /// A [`RootError`] of the provider; [`RootError::OtherKey`] if it does not unwrap what it wrapped.
    pub fn ask(vault: VaultId, tenant: TenantId, provider: &dyn RootProvider) -> Result<Self, RootError> {
        stack::wiped_deep(|| {
            let (key, place) = (Box::new(KeystoreKey::random()?), place(vault, tenant));
            let envelope = provider.wrap(place, &key)?;
            match provider.unwrap(place, &envelope)?.is(&key) {
                true => Ok(Self { vault, tenant, envelope, key }),
                false => Err(provider.kind().other_key("what it unwraps is not what it wrapped")),
            }
        })
    }

    /// What it is for its tenant; `None` for another one.
    pub(crate) fn of(self, vault: VaultId, tenant: TenantId) -> Option<(Envelope, Box<KeystoreKey>)> {
        (self.vault == vault && self.tenant == tenant).then_some((self.envelope, self.key))
    }
}

/// Asks the provider of a tenant's own key to unwrap the tenant key. Holds no key, so that nobody keeps keys in memory who
/// waits for an answer.
pub struct OwnKeyProbe {
    pub(crate) vault: VaultId,
    pub(crate) tenant: TenantId,
    pub(crate) envelope: Envelope,
    pub(crate) changed: u64,
}

/// A tenant key as a provider unwrapped it. Wiped on drop.
pub struct UnwrappedTenantKey {
    probe: OwnKeyProbe,
    pub(crate) key: Box<KeystoreKey>,
}

impl UnwrappedTenantKey {
    /// Whether it is what this envelope of a tenant holds.
    pub(crate) fn is_of(&self, tenant: TenantId, envelope: &Envelope) -> bool {
        self.probe.tenant == tenant && self.probe.envelope == *envelope
    }
}

impl OwnKeyProbe {
    /// The kind of provider that is to be asked.
    pub fn kind(&self) -> RootKind {
        self.envelope.kind
    }

    /// When the own key last changed, in microseconds since 1970: what is heard concerns that one alone.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// Asks. Takes as long as the provider does: call it where waiting is allowed.
    ///
    /// # Errors
    /// A [`RootError`] of the provider.
    pub fn ask(self, provider: &dyn RootProvider) -> Result<UnwrappedTenantKey, RootError> {
        stack::wiped_deep(|| {
            let key = Box::new(provider.unwrap(place(self.vault, self.tenant), &self.envelope)?);
            Ok(UnwrappedTenantKey { probe: self, key })
        })
    }
}

/// An import key that no keystore has yet. Its private part is wiped on drop.
pub struct NewImportKey {
    pub(crate) tenant: TenantId,
    /// PKCS #8, in DER.
    pub(crate) private: Zeroizing<Vec<u8>>,
    pub(crate) der: Vec<u8>,
}

impl NewImportKey {
    /// Makes one for a tenant. Takes up to some seconds: call it where waiting is allowed, and nobody is kept waiting.
    ///
    /// # Errors
    /// [`KeyError::OwnKey`] if the system can't make one.
    pub fn make(tenant: TenantId) -> Result<Self, KeyError> {
        stack::wiped_deep(|| {
            let key = ImportKey::generate().map_err(|error| no_import(tenant, error))?;
            let (private, der) = (key.to_pkcs8(), key.public_key());
            let private = private.map_err(|error| no_import(tenant, error))?;
            let der = der.map_err(|error| no_import(tenant, error))?;
            Ok(Self { tenant, private, der })
        })
    }
}

/// Why an import key was not made, or did not open something.
pub(crate) fn no_import(tenant: TenantId, error: ImportError) -> KeyError {
    let why = match error {
        ImportError::Generate => "no import key can be made: the system's random generator or its memory failed",
        ImportError::Malformed | ImportError::TooLong => "its import key is damaged: make a new one",
        ImportError::CannotOpen => {
            "what was wrapped does not open: wrap it to the newest import key by RSA-OAEP with SHA-256, MGF1 with SHA-256 \
             and no label"
        }
    };
    KeyError::OwnKey { tenant, why }
}

/// Where a tenant's own key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKeyKind {
    /// In the keystore, if it has not been taken away.
    Imported,
    /// With a provider, of the kinds that may keep root keys.
    Provider(RootKind),
}

impl OwnKeyKind {
    /// The number of imported keys. Those of providers are theirs.
    const IMPORTED: u8 = 128;

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Imported => Self::IMPORTED,
            Self::Provider(kind) => kind.number(),
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            Self::IMPORTED => Some(Self::Imported),
            number => RootKind::from_number(number).map(Self::Provider),
        }
    }

    /// What brings a key back that is away.
    pub(crate) fn way_back(self) -> &'static str {
        match self {
            Self::Imported => "have the tenant wrap it to a new import key, and bring it again",
            Self::Provider(_) => "have its provider allow the vault to use it: the tenant is unlocked by itself",
        }
    }
}

impl fmt::Display for OwnKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Imported => f.write_str("imported"),
            Self::Provider(kind) => kind.fmt(f),
        }
    }
}

/// What there is to know of a tenant's own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnKeyInfo {
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it lives.
    pub kind: OwnKeyKind,
    /// An imported key's fingerprint, in hexadecimal.
    pub fingerprint: Option<String>,
    /// Whether an imported key has been taken away.
    pub removed: bool,
    /// Whether the tenant's keys can't be used now.
    pub locked: bool,
    /// When it was last brought, moved or taken away, in microseconds since 1970.
    pub changed: u64,
}

/// The public part of an import key: what a tenant wraps its own key to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportPublicKey {
    /// When it was made, in microseconds since 1970.
    pub made: u64,
    /// A SubjectPublicKeyInfo (RFC 5280), in DER.
    pub der: Vec<u8>,
}

impl ImportPublicKey {
    /// How long it may be used, in microseconds: 24 hours.
    pub const AGE: u64 = 24 * 60 * 60 * 1_000_000;

    /// The key as PEM (RFC 7468).
    pub fn pem(&self) -> String {
        let text = BASE64.encode(&self.der);
        let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
        for line in text.as_bytes().chunks(64) {
            // Base 64 is ASCII.
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem + "-----END PUBLIC KEY-----\n"
    }

    /// The SHA-256 of the DER in hexadecimal: to be compared by another way than the key came by.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(digest::digest(&digest::SHA256, &self.der).as_ref())
    }
}

/// The place that an envelope of a tenant names instead of a vault's. It is no vault's, and no other tenant's, so an
/// envelope that was put in another's place does not open: the first 128 bits of a hash over both.
pub(crate) fn place(vault: VaultId, tenant: TenantId) -> VaultId {
    let mut parts = Parts::<{ 3 + PLACE.len() + 16 + 16 }>::new();
    parts.add(PLACE);
    parts.add(vault.0);
    parts.add(tenant.0);
    let hash = digest::digest(&digest::SHA256, &parts.finish());
    let mut place = [0; 16];
    place.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    VaultId(place)
}

const PLACE: [u8; 19] = *b"strongroom tenant 1";

/// A key that was imported. Wiped on drop.
pub(crate) struct ImportedKey(RawKey);

impl ImportedKey {
    /// `None` if it has not 32 bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        secret::raw_key(bytes).map(Self)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// By which its owner tells it from others. Its 256 bits are beyond guessing, so this gives nothing away.
    pub fn fingerprint(&self) -> [u8; FINGERPRINT] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        let mac = hmac::sign(&key, b"strongroom own key 1");
        let mut fingerprint = [0; FINGERPRINT];
        fingerprint.iter_mut().zip(mac.as_ref()).for_each(|(to, from)| *to = *from);
        fingerprint
    }

    /// Wraps a tenant key.
    pub fn wrap(&self, vault: VaultId, tenant: TenantId, key: &KeystoreKey) -> Result<[u8; WRAPPED], KeyError> {
        let cipher = self.cipher(vault, tenant)?;
        let blob = seal::seal_blob(&cipher, Format::Tenant, &self.aad(vault, tenant), key.expose())?;
        blob.try_into().map_err(|_| KeyError::TooLong)
    }

    /// Unwraps a tenant key.
    ///
    /// # Errors
    /// [`KeyError::CannotOpen`] if it was wrapped by another key or for another tenant, or was changed.
    pub fn unwrap(&self, vault: VaultId, tenant: TenantId, wrapped: &[u8]) -> Result<KeystoreKey, KeyError> {
        let cipher = self.cipher(vault, tenant)?;
        let plaintext = seal::open_blob(&cipher, Format::Tenant, &self.aad(vault, tenant), wrapped)?;
        KeystoreKey::from_slice(plaintext.as_bytes()).ok_or(KeyError::CannotOpen)
    }

    /// What wraps in its stead: how often this key has sealed elsewhere, and under which nonces, is unknown.
    fn cipher(&self, vault: VaultId, tenant: TenantId) -> Result<Cipher, KeyError> {
        let salt = [vault.0, tenant.0];
        let derived = secret::derived(salt.as_flattened(), self.0.as_slice(), b"strongroom own key wrap 1")?;
        Ok(seal::cipher(&derived))
    }

    /// Six lengths and their parts.
    fn aad(&self, vault: VaultId, tenant: TenantId) -> [u8; 6 + 1 + 1 + 1 + 16 + 16 + FINGERPRINT] {
        let mut aad = Parts::new();
        aad.add([Format::Tenant as u8]);
        aad.add([SUITE]);
        aad.add([OwnKeyKind::IMPORTED]);
        aad.add(vault.0);
        aad.add(tenant.0);
        aad.add(self.fingerprint());
        aad.finish()
    }
}

impl ZeroizeOnDrop for ImportedKey {}

impl fmt::Debug for ImportedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImportedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const VAULT: VaultId = VaultId([9; 16]);
    const TENANT: TenantId = TenantId([1; 16]);

    fn key(byte: u8) -> ImportedKey {
        ImportedKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_tenant_key_unwraps_under_its_own_key_in_its_own_place_only() {
        let tenant_key = KeystoreKey::random().unwrap();
        let wrapped = key(1).wrap(VAULT, TENANT, &tenant_key).unwrap();
        assert!(key(1).unwrap(VAULT, TENANT, &wrapped).unwrap().is(&tenant_key));
        let refused = [
            key(2).unwrap(VAULT, TENANT, &wrapped),
            key(1).unwrap(VaultId([8; 16]), TENANT, &wrapped),
            key(1).unwrap(VAULT, TenantId([2; 16]), &wrapped),
            key(1).unwrap(VAULT, TENANT, &wrapped[1..]),
            key(1).unwrap(VAULT, TENANT, &[]),
        ];
        assert!(refused.into_iter().all(|result| result.unwrap_err() == KeyError::CannotOpen));
    }

    #[test]
    fn no_place_of_a_tenant_is_a_vaults_or_another_tenants() {
        let other = VaultId([8; 16]);
        let places = [place(VAULT, TENANT), place(other, TENANT), place(VAULT, TenantId([2; 16])), VAULT, other];
        assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len());
    }

    #[test]
    fn only_32_bytes_are_an_own_key_and_it_shows_none_of_them() {
        for length in [0, 16, 24, 31, 33, 64] {
            assert!(ImportedKey::new(&vec![7; length]).is_none());
        }
        assert_eq!(format!("{:?}", key(7)), "ImportedKey(..)");
        assert_ne!(key(7).fingerprint(), key(8).fingerprint());
    }

    #[test]
    fn kinds_are_known_by_their_numbers_and_no_others_are() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|number| OwnKeyKind::from_number(*number).is_some()).collect();
        assert_eq!(known, [1, 2, 3, 4, 5, 128]);
        for number in known {
            assert_eq!(OwnKeyKind::from_number(number).unwrap().number(), number);
        }
    }

    proptest! {
        #[test]
        fn a_changed_bit_anywhere_keeps_a_tenant_key_shut(at in 0..WRAPPED, bit in 0..8u8) {
            let mut wrapped = key(1).wrap(VAULT, TENANT, &KeystoreKey::random().unwrap()).unwrap();
            wrapped[at] ^= 1 << bit;
            prop_assert_eq!(key(1).unwrap(VAULT, TENANT, &wrapped).unwrap_err(), KeyError::CannotOpen);
        }

        #[test]
        fn pem_holds_the_der_in_lines_of_64(der in prop::collection::vec(any::<u8>(), 0..600)) {
            let pem = ImportPublicKey { made: 1, der: der.clone() }.pem();
            let lines: Vec<&str> = pem.lines().collect();
            let (first, body, last) = (lines[0], &lines[1..lines.len() - 1], lines[lines.len() - 1]);
            prop_assert_eq!((first, last), ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"));
            prop_assert!(body.iter().all(|line| line.len() <= 64));
            prop_assert_eq!(BASE64.decode(body.concat().as_bytes()).unwrap(), der);
        }
    }
}
