//! Tenants with a key of their own: what the file keeps of them, and which cipher wraps which key.
//!
//! Such a tenant's keys are wrapped by a cipher that is derived from two halves: the tenant key, which its own key wraps,
//! and one that the keystore key seals. Neither alone opens anything. While the tenant key is away its entries are carried
//! as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use strongroom_ids::{KeyVersion, TenantId, VaultId};
use zeroize::Zeroizing;

use super::file::{FileKeys, WRAPPED, damaged, take, take_part};
use crate::error::KeyError;
use crate::name::KeyName;
use crate::own_key::{FINGERPRINT, ImportedKey, OwnKeyInfo, OwnKeyKind};
use crate::root::{Envelope, KeystoreKey};
use crate::seal::{self, Cipher, OVERHEAD};
use crate::secret::{self, RawKey};

/// Bytes of a sealed import key at most: RSA with 4,096 bits takes about 2,400.
const IMPORT_KEY: usize = 4_096;

/// What else the keystore key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Part {
    /// The vault's half of what a tenant's keys are wrapped by.
    Half = 1,
    /// A tenant's own key, if it was imported.
    Imported = 2,
    /// The private part of an import key.
    ImportKey = 3,
}

/// All that is kept of tenants, besides their keys. In the order of their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Tenants {
    own: BTreeMap<[u8; 16], Own>,
    imports: BTreeMap<[u8; 16], ImportRecord>,
}

/// A tenant that has a key of its own.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub record: OwnRecord,
    /// `None` while its own key is away.
    pub open: Option<Arc<Opened>>,
}

/// A tenant key that was unwrapped, and the cipher that comes of both halves. Wiped on drop.
pub(super) struct Opened {
    key: KeystoreKey,
    wrap: Cipher,
}

/// A tenant's own key, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnRecord {
    /// When it was last brought, moved or taken away; microseconds since 1970.
    pub changed: u64,
    /// The vault's half, sealed.
    pub half: [u8; WRAPPED],
    pub wrapping: Wrapping,
}

/// The tenant key, wrapped by the tenant's own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    Imported {
        fingerprint: [u8; FINGERPRINT],
        wrapped: [u8; WRAPPED],
        /// The own key itself, sealed; `None` if it was taken away.
        key: Option<[u8; WRAPPED]>,
    },
    Provider(Envelope),
}

/// An import key that waits to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImportRecord {
    /// Microseconds since 1970.
    pub made: u64,
    /// The private key as PKCS #8, sealed.
    pub sealed: Vec<u8>,
}

/// Which cipher wraps which key.
#[derive(Clone, Copy)]
pub(super) struct Wraps<'a> {
    pub own: &'a FileKeys,
    pub tenants: &'a Tenants,
}

impl<'a> Wraps<'a> {
    /// A tenant's ledger key stays under the keystore key, so that its log can always say what happened.
    fn cipher(&self, name: &KeyName) -> Result<&'a Cipher, KeyError> {
        let tenant = name.tenant();
        match self.tenants.own(tenant).filter(|_| !matches!(name, KeyName::Ledger(_))) {
            Some(own) => match &own.open {
                Some(open) => Ok(&open.wrap),
                None => Err(own.away(tenant)),
            },
            None => Ok(self.own.wrap()),
        }
    }

    /// Whether a key can be wrapped and unwrapped now.
    pub fn reach(&self, name: &KeyName) -> bool {
        self.cipher(name).is_ok()
    }

    /// Wraps a key for its name and version.
    ///
    /// # Errors
    /// [`KeyError::OwnKeyAway`]; [`KeyError::Random`].
    pub fn wrap(&self, name: &KeyName, version: KeyVersion, raw: &RawKey) -> Result<[u8; WRAPPED], KeyError> {
        self.own.wrap_by(self.cipher(name)?, name, version, raw)
    }

    /// Unwraps a key of a file that was proved, so that only its writer can have gone wrong.
    ///
    /// # Errors
    /// [`KeyError::OwnKeyAway`]; [`KeyError::Damaged`].
    pub fn unwrap(&self, name: &KeyName, version: KeyVersion, wrapped: &[u8]) -> Result<RawKey, KeyError> {
        let raw = self.own.unwrap_by(self.cipher(name)?, name, version, wrapped);
        raw.map_err(|_| damaged("a wrapped key does not open"))
    }
}

impl Opened {
    /// Derives the cipher from both halves.
    fn derive(vault: VaultId, tenant: TenantId, half: &RawKey, key: KeystoreKey) -> Result<Self, KeyError> {
        let mut both = Zeroizing::new([0; 64]);
        both[..32].copy_from_slice(half.as_slice());
        both[32..].copy_from_slice(key.expose());
        let salt = [vault.0, tenant.0];
        let wrap = secret::derived(salt.as_flattened(), both.as_slice(), b"strongroom tenant wrap 1")?;
        Ok(Self { key, wrap: seal::cipher(&wrap) })
    }

    pub fn is_by(&self, key: &KeystoreKey) -> bool {
        self.key.is(key)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(..)")
    }
}

impl Own {
    /// With a new half, for a tenant key that is at hand.
    pub fn new(
        own: &FileKeys,
        tenant: TenantId,
        wrapping: Wrapping,
        key: KeystoreKey,
        changed: u64,
    ) -> Result<Self, KeyError> {
        let half = secret::new_raw_key()?;
        let record = OwnRecord { changed, half: own.seal_key(Part::Half, tenant, &half)?, wrapping };
        let open = Some(Arc::new(Opened::derive(own.vault(), tenant, &half, key)?));
        Ok(Self { record, open })
    }

    /// The same with its tenant key, which was unwrapped.
    pub fn opened(&self, own: &FileKeys, tenant: TenantId, key: KeystoreKey) -> Result<Self, KeyError> {
        let half = own.open_key(Part::Half, tenant, &self.record.half)?;
        let open = Some(Arc::new(Opened::derive(own.vault(), tenant, &half, key)?));
        Ok(Self { record: self.record.clone(), open })
    }

    /// The same without it.
    pub fn locked(&self) -> Self {
        Self { record: self.record.clone(), open: None }
    }

    /// The tenant key, by the imported key that is kept sealed. `None` if that was taken away, or is with a provider.
    pub fn by_what_is_kept(&self, own: &FileKeys, tenant: TenantId) -> Result<Option<KeystoreKey>, KeyError> {
        let Wrapping::Imported { wrapped, key: Some(key), .. } = &self.record.wrapping else { return Ok(None) };
        let raw = own.open_key(Part::Imported, tenant, key)?;
        let imported = ImportedKey::new(raw.as_slice()).ok_or(damaged("an imported key has the wrong length"))?;
        let opened = imported.unwrap(own.vault(), tenant, wrapped);
        opened.map(Some).map_err(|_| damaged("a tenant key does not open"))
    }

    pub fn kind(&self) -> OwnKeyKind {
        match &self.record.wrapping {
            Wrapping::Imported { .. } => OwnKeyKind::Imported,
            Wrapping::Provider(envelope) => OwnKeyKind::Provider(envelope.kind),
        }
    }

    pub fn away(&self, tenant: TenantId) -> KeyError {
        KeyError::OwnKeyAway { tenant, kind: self.kind() }
    }

    pub fn info(&self, tenant: TenantId) -> OwnKeyInfo {
        let (fingerprint, removed) = match &self.record.wrapping {
            Wrapping::Imported { fingerprint, key, .. } => {
                (Some(data_encoding::HEXLOWER.encode(fingerprint)), key.is_none())
            }
            Wrapping::Provider(_) => (None, false),
        };
        let (kind, locked, changed) = (self.kind(), self.open.is_none(), self.record.changed);
        OwnKeyInfo { tenant, kind, fingerprint, removed, locked, changed }
    }
}

impl Tenants {
    pub fn own(&self, tenant: TenantId) -> Option<&Own> {
        self.own.get(&tenant.0)
    }

    pub fn import(&self, tenant: TenantId) -> Option<&ImportRecord> {
        self.imports.get(&tenant.0)
    }

    /// With another own key of a tenant, or without one.
    pub fn set_own(&mut self, tenant: TenantId, own: Option<Own>) {
        match own {
            Some(own) => self.own.insert(tenant.0, own),
            None => self.own.remove(&tenant.0),
        };
    }

    /// With another import key of a tenant, or without one.
    pub fn set_import(&mut self, tenant: TenantId, import: Option<ImportRecord>) {
        match import {
            Some(import) => self.imports.insert(tenant.0, import),
            None => self.imports.remove(&tenant.0),
        };
    }

    /// Drops all that is kept of a tenant. Returns whether there was anything.
    pub fn forget(&mut self, tenant: TenantId) -> bool {
        let (own, import) = (self.own.remove(&tenant.0), self.imports.remove(&tenant.0));
        own.is_some() || import.is_some()
    }

    /// Drops a tenant's imported key. What it wrapped stays.
    pub fn take_imported(&mut self, tenant: TenantId, changed: u64) {
        if let Some(OwnRecord { wrapping: Wrapping::Imported { key, .. }, changed: last, .. }) =
            self.own.get_mut(&tenant.0).map(|own| &mut own.record)
        {
            *key = None;
            *last = changed;
        }
    }

    pub fn infos(&self) -> impl Iterator<Item = OwnKeyInfo> {
        self.own.iter().map(|(tenant, own)| own.info(TenantId(*tenant)))
    }

    /// Unwraps the tenant keys of those whose own key is kept here.
    pub fn open_what_is_kept(&mut self, own: &FileKeys) -> Result<(), KeyError> {
        for (tenant, its) in &mut self.own {
            let tenant = TenantId(*tenant);
            if let Some(key) = its.by_what_is_kept(own, tenant)? {
                *its = its.opened(own, tenant, key)?;
            }
        }
        Ok(())
    }

    /// Seals all of it under another keystore key. Halves are new where the tenant key is at hand; a tenant that is locked
    /// keeps its half, since nothing of it can be wrapped anew.
    pub fn seal_anew(&mut self, old: &FileKeys, new: &FileKeys) -> Result<(), KeyError> {
        for (tenant, its) in &mut self.own {
            let tenant = TenantId(*tenant);
            if let Wrapping::Imported { key: Some(key), .. } = &mut its.record.wrapping {
                *key = new.seal_key(Part::Imported, tenant, &old.open_key(Part::Imported, tenant, key)?)?;
            }
            match its.open.clone() {
                Some(open) => {
                    let OwnRecord { changed, wrapping, .. } = its.record.clone();
                    *its = Own::new(new, tenant, wrapping, open.key.copy(), changed)?;
                }
                None => {
                    let half = old.open_key(Part::Half, tenant, &its.record.half)?;
                    its.record.half = new.seal_key(Part::Half, tenant, &half)?;
                }
            }
        }
        for (tenant, import) in &mut self.imports {
            let tenant = TenantId(*tenant);
            let key = old.open_part(Part::ImportKey, tenant, &import.sealed)?;
            import.sealed = new.seal_part(Part::ImportKey, tenant, key.as_bytes())?;
        }
        Ok(())
    }

    /// As the file has it.
    ///
    /// # Errors
    /// [`KeyError::Exhausted`] if a part is longer than it may be.
    pub fn encode(&self) -> Result<Vec<u8>, KeyError> {
        let too_long = || KeyError::Exhausted("a tenant's envelope or import key is longer than it may be");
        let count = |count: usize| u32::try_from(count).map_err(|_| too_long());
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&count(self.own.len())?.to_be_bytes());
        for (tenant, own) in &self.own {
            bytes.extend_from_slice(tenant);
            own.record.encode(own.kind(), &mut bytes).ok_or_else(too_long)?;
        }
        bytes.extend_from_slice(&count(self.imports.len())?.to_be_bytes());
        for (tenant, import) in &self.imports {
            bytes.extend_from_slice(tenant);
            bytes.extend_from_slice(&import.made.to_be_bytes());
            add_part(&mut bytes, &import.sealed, IMPORT_KEY).ok_or_else(too_long)?;
        }
        Ok(bytes)
    }

    /// Reads it in strict order: one list has one encoding.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut tenants = Self::default();
        for _ in 0..u32::from_be_bytes(*take(bytes)?) {
            let tenant = next(bytes, tenants.own.last_key_value().map(|(last, _)| last))?;
            tenants.own.insert(tenant, Own { record: OwnRecord::decode(bytes)?, open: None });
        }
        for _ in 0..u32::from_be_bytes(*take(bytes)?) {
            let tenant = next(bytes, tenants.imports.last_key_value().map(|(last, _)| last))?;
            let made = u64::from_be_bytes(*take(bytes)?);
            let sealed = take_part(bytes, IMPORT_KEY).ok()?.to_vec();
            tenants.imports.insert(tenant, ImportRecord { made, sealed });
        }
        Some(tenants)
    }
}

/// A tenant that comes after the last.
fn next(bytes: &mut &[u8], last: Option<&[u8; 16]>) -> Option<[u8; 16]> {
    let tenant = *take(bytes)?;
    last.is_none_or(|last| *last < tenant).then_some(tenant)
}

/// A part after its length, if it is not longer than it may be.
fn add_part(bytes: &mut Vec<u8>, part: &[u8], most: usize) -> Option<()> {
    let length = u16::try_from(part.len()).ok().filter(|_| part.len() <= most)?;
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
    Some(())
}

impl OwnRecord {
    fn encode(&self, kind: OwnKeyKind, bytes: &mut Vec<u8>) -> Option<()> {
        bytes.extend_from_slice(&self.changed.to_be_bytes());
        bytes.extend_from_slice(&self.half);
        bytes.push(kind.number());
        let (parameters, wrapped, key) = match &self.wrapping {
            Wrapping::Imported { fingerprint, wrapped, key } => (&fingerprint[..], &wrapped[..], key.as_ref()),
            Wrapping::Provider(envelope) => (&envelope.parameters[..], &envelope.wrapped[..], None),
        };
        add_part(bytes, parameters, Envelope::PARAMETERS)?;
        add_part(bytes, wrapped, Envelope::WRAPPED)?;
        let key = key.map_or(&[][..], |key| key.as_slice());
        const { assert!(WRAPPED < 256) }
        bytes.push(key.len() as u8);
        bytes.extend_from_slice(key);
        Some(())
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let changed = u64::from_be_bytes(*take(bytes)?);
        let half = *take(bytes)?;
        let [kind] = *take(bytes)?;
        let kind = OwnKeyKind::from_number(kind)?;
        let parameters = take_part(bytes, Envelope::PARAMETERS).ok()?;
        let wrapped = take_part(bytes, Envelope::WRAPPED).ok()?;
        let [length] = *take(bytes)?;
        let key = match usize::from(length) {
            0 => None,
            WRAPPED => Some(*take(bytes)?),
            _ => return None,
        };
        let wrapping = match kind {
            OwnKeyKind::Imported => {
                Wrapping::Imported { fingerprint: parameters.try_into().ok()?, wrapped: wrapped.try_into().ok()?, key }
            }
            OwnKeyKind::Provider(kind) => {
                let envelope = Envelope { kind, parameters: parameters.to_vec(), wrapped: wrapped.to_vec() };
                // What a provider keeps is not here.
                key.is_none().then_some(Wrapping::Provider(envelope))?
            }
        };
        Some(Self { changed, half, wrapping })
    }
}

/// Keys of 32 bytes among the parts.
impl FileKeys {
    pub fn seal_key(&self, part: Part, tenant: TenantId, key: &RawKey) -> Result<[u8; WRAPPED], KeyError> {
        const { assert!(WRAPPED == 32 + OVERHEAD) }
        self.seal_part(part, tenant, key.as_slice())?.try_into().map_err(|_| KeyError::TooLong)
    }

    pub fn open_key(&self, part: Part, tenant: TenantId, sealed: &[u8]) -> Result<RawKey, KeyError> {
        let plaintext = self.open_part(part, tenant, sealed)?;
        secret::raw_key(plaintext.as_bytes()).ok_or(damaged("a sealed part has the wrong length"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::root::RootKind;

    fn blob() -> impl Strategy<Value = [u8; WRAPPED]> {
        vec(any::<u8>(), WRAPPED).prop_map(|bytes| bytes.try_into().unwrap())
    }

    fn wrapping() -> impl Strategy<Value = Wrapping> {
        let imported = (any::<[u8; FINGERPRINT]>(), blob(), prop::option::of(blob()))
            .prop_map(|(fingerprint, wrapped, key)| Wrapping::Imported { fingerprint, wrapped, key });
        let kind = prop::sample::select(RootKind::ALL.to_vec());
        let envelope = (kind, vec(any::<u8>(), 0..=Envelope::PARAMETERS), vec(any::<u8>(), 0..300))
            .prop_map(|(kind, parameters, wrapped)| Wrapping::Provider(Envelope { kind, parameters, wrapped }));
        prop_oneof![imported, envelope]
    }

    pub(crate) fn tenants() -> impl Strategy<Value = Tenants> {
        let own = (any::<u64>(), blob(), wrapping())
            .prop_map(|(changed, half, wrapping)| Own { record: OwnRecord { changed, half, wrapping }, open: None });
        let import = (any::<u64>(), vec(any::<u8>(), 0..200)).prop_map(|(made, sealed)| ImportRecord { made, sealed });
        (btree_map(any::<[u8; 16]>(), own, 0..4), btree_map(any::<[u8; 16]>(), import, 0..3))
            .prop_map(|(own, imports)| Tenants { own, imports })
    }

    /// What can be compared of it.
    type Records = (BTreeMap<[u8; 16], OwnRecord>, BTreeMap<[u8; 16], ImportRecord>);

    fn records(tenants: &Tenants) -> Records {
        let own = tenants.own.iter().map(|(tenant, own)| (*tenant, own.record.clone())).collect();
        (own, tenants.imports.clone())
    }

    /// Reads what must be nothing else.
    fn whole(mut bytes: &[u8]) -> Option<Tenants> {
        let tenants = Tenants::decode(&mut bytes)?;
        bytes.is_empty().then_some(tenants)
    }

    fn one(wrapping: Wrapping) -> Tenants {
        let record = OwnRecord { changed: 7, half: [1; WRAPPED], wrapping };
        Tenants { own: [([3; 16], Own { record, open: None })].into(), imports: BTreeMap::new() }
    }

    #[test]
    fn parts_beyond_their_bounds_are_neither_written_nor_read() {
        let envelope = |parameters, wrapped| {
            let kind = RootKind::AwsKms;
            one(Wrapping::Provider(Envelope { kind, parameters: vec![1; parameters], wrapped: vec![2; wrapped] }))
        };
        let most = envelope(Envelope::PARAMETERS, Envelope::WRAPPED).encode().unwrap();
        assert!(whole(&most).is_some());
        for longer in [envelope(Envelope::PARAMETERS + 1, 0), envelope(0, Envelope::WRAPPED + 1)] {
            assert!(matches!(longer.encode(), Err(KeyError::Exhausted(_))));
        }
        let mut import = Tenants::default();
        import.set_import(TenantId([1; 16]), Some(ImportRecord { made: 1, sealed: vec![0; IMPORT_KEY] }));
        assert!(whole(&import.encode().unwrap()).is_some());
        import.set_import(TenantId([1; 16]), Some(ImportRecord { made: 1, sealed: vec![0; IMPORT_KEY + 1] }));
        assert!(matches!(import.encode(), Err(KeyError::Exhausted(_))));
    }

    #[test]
    fn an_unknown_kind_and_a_key_beside_a_providers_envelope_are_refused() {
        let envelope = Envelope { kind: RootKind::OpenBao, parameters: vec![], wrapped: vec![] };
        let good = one(Wrapping::Provider(envelope)).encode().unwrap();
        assert!(whole(&good).is_some());
        let kind = 4 + 16 + 8 + WRAPPED;
        for unknown in [0, 6, 99, 127, 129, 255] {
            let mut bytes = good.clone();
            bytes[kind] = unknown;
            assert!(whole(&bytes).is_none(), "{unknown}");
        }
        let mut with_key = good[..kind + 5].to_vec();
        with_key.push(WRAPPED as u8);
        with_key.extend([0; WRAPPED]);
        with_key.extend([0; 4]);
        assert!(whole(&with_key).is_none());
        // The same bytes are an imported key's only with what belongs to one.
        with_key[kind] = OwnKeyKind::Imported.number();
        assert!(whole(&with_key).is_none());
    }

    proptest! {
        #[test]
        fn tenants_survive_their_encoding(tenants in tenants()) {
            let bytes = tenants.encode().unwrap();
            let read = whole(&bytes).unwrap();
            prop_assert_eq!(records(&read), records(&tenants));
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }

        #[test]
        fn what_parses_encodes_to_the_same_bytes(tenants in tenants(), at: prop::sample::Index, byte: u8) {
            let mut bytes = tenants.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(read) = whole(&bytes) {
                prop_assert_eq!(read.encode().unwrap(), bytes);
            }
        }

        #[test]
        fn tenants_out_of_order_or_twice_are_refused(wrapping in wrapping(), one: [u8; 16], other: [u8; 16]) {
            let record = OwnRecord { changed: 7, half: [1; WRAPPED], wrapping };
            let mut bytes = 2_u32.to_be_bytes().to_vec();
            for tenant in [one, other] {
                bytes.extend(tenant);
                let own = Own { record: record.clone(), open: None };
                record.encode(own.kind(), &mut bytes).unwrap();
            }
            bytes.extend(2_u32.to_be_bytes());
            for tenant in [one, other] {
                bytes.extend(tenant);
                bytes.extend([0; 10]);
            }
            prop_assert_eq!(whole(&bytes).is_some(), one < other);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), own in 0..3_u32) {
            let _ = whole(&bytes);
            let _ = whole(&[&own.to_be_bytes()[..], &bytes].concat());
        }
    }
}
