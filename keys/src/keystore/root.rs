//! What a keystore is sealed by: who keeps the root key, whether it still opens, and the way to another one.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use ring::hmac;
use strongroom_ids::VaultId;

use super::{Entry, FILE, FileKeys, Keystore, LIMIT, Sealing, Table, Unsettled, Wraps, file};
use crate::disk;
use crate::error::KeyError;
use crate::root::{Envelope, KeystoreKey, RootError, RootKind, RootProvider};
use crate::stack;

/// What a keystore says of itself to whoever has no key.
pub struct KeystoreHeader {
    /// Which vault it belongs to.
    pub vault: VaultId,
    /// How often it was written.
    pub number: u64,
    /// What it is sealed by.
    pub envelope: Envelope,
}

/// Asks a provider to unwrap a keystore key once more, and compares it with the one in use. For providers that may change
/// their mind, now and then. Holds no key, so that nobody keeps keys in memory who waits for an answer.
pub struct RootProbe {
    vault: VaultId,
    envelope: Envelope,
    mark: hmac::Tag,
}

impl RootProbe {
    /// The kind of provider that is to be asked.
    pub fn kind(&self) -> RootKind {
        self.envelope.kind
    }

    /// Asks. Takes as long as the provider does: call it where waiting is allowed.
    ///
    /// # Errors
    /// A [`RootError`] of the provider; [`RootError::OtherKey`] if what it unwraps is not the key in use.
    pub fn ask(&self, root: &dyn RootProvider) -> Result<(), RootError> {
        stack::wiped_deep(|| {
            let key = root.unwrap(self.vault, &self.envelope)?;
            is_by(&key, self.vault, &self.mark, root.kind())
        })
    }
}

/// Whether a keystore key is the one with this mark.
fn is_by(key: &KeystoreKey, vault: VaultId, mark: &hmac::Tag, provider: RootKind) -> Result<(), RootError> {
    match FileKeys::derive(key, vault)?.has(mark) {
        true => Ok(()),
        false => Err(provider.other_key("what it unwraps is not the key in use")),
    }
}

impl Keystore {
    /// What the keystore in a directory says of itself: read without any key, so not proved yet.
    ///
    /// # Errors
    /// [`KeyError::NoFile`]; [`KeyError::Damaged`]; [`KeyError::Unsupported`]; [`KeyError::UnknownProvider`];
    /// [`KeyError::Io`].
    pub fn header_of(dir: &Path) -> Result<KeystoreHeader, KeyError> {
        let bytes = disk::read(dir, FILE, LIMIT as u64)?;
        let file::Unproved { vault, number, envelope, .. } = file::parse(&bytes)?;
        Ok(KeystoreHeader { vault, number, envelope })
    }

    /// What kind of provider keeps its root key.
    pub fn root(&self) -> RootKind {
        self.table.load().sealing.envelope.kind
    }

    /// What a provider is asked with whether the root key still holds.
    pub fn probe(&self) -> RootProbe {
        let Sealing { own, envelope } = &*self.table.load().sealing;
        RootProbe { vault: self.vault, envelope: envelope.clone(), mark: own.mark() }
    }

    /// Moves to another root key, of the same provider or of another: makes a new keystore key, wraps every key anew under
    /// it, and replaces the file once, durably. After that no file of the directory opens under the old root key; copies
    /// made before still do. After a crash the keystore opens under the one or under the other. Takes as long as the
    /// provider does: call it where waiting is allowed.
    ///
    /// # Errors
    /// A [`RootError`] of the provider, or in it what [`Keystore::ensure`] says. After an error the old root key is in use;
    /// but if [`Keystore::is_settled`] says no the file may have been replaced: the next change, or opening, finds out.
    pub fn move_root(&self, to: &dyn RootProvider) -> Result<(), RootError> {
        stack::wiped_deep(|| {
            // Nobody waits for the provider meanwhile, least of all who locks a tenant.
            let key = KeystoreKey::random()?;
            let sealing = Sealing { own: FileKeys::derive(&key, self.vault)?, envelope: to.wrap(self.vault, &key)? };
            // The way back is about to be cut off: what was wrapped must open.
            is_by(&to.unwrap(self.vault, &sealing.envelope)?, self.vault, &sealing.own.mark(), to.kind())?;
            // A panic leaves what is behind the lock as it was.
            let mut unsettled = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.settle(&mut unsettled)?;
            Ok(self.move_from(&self.table.load_full(), sealing, &mut unsettled)?)
        })
    }

    fn move_from(&self, table: &Table, to: Sealing, unsettled: &mut Option<Unsettled>) -> Result<(), KeyError> {
        let (mut tenants, mut keys) = (table.tenants.clone(), table.keys.clone());
        tenants.seal_anew(&table.sealing.own, &to.own)?;
        let (old, new) = (table.wraps(), Wraps { own: &to.own, tenants: &tenants });
        // What a locked tenant has goes along as it is: only its half was under the old keystore key.
        for entry in keys.values_mut().flatten().filter(|entry| old.reach(&entry.record.name)) {
            entry.wrap_anew(&old, &new)?;
        }
        self.replace(table, Arc::new(to), tenants, keys, unsettled)
    }
}

impl Entry {
    /// Wraps the same key under another one. A key that may not be used for now is wrapped along.
    pub(super) fn wrap_anew(&mut self, old: &Wraps<'_>, new: &Wraps<'_>) -> Result<(), KeyError> {
        let (name, version) = (self.record.name, self.record.version);
        if let Some(wrapped) = &mut self.record.wrapped {
            let raw = old.unwrap(&name, version, wrapped)?;
            *wrapped = new.wrap(&name, version, &raw)?;
        }
        Ok(())
    }
}
