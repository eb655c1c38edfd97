//! The life of a tenant's own key: brought, moved, taken away; and the tenant's keys, locked and unlocked with it.
//!
//! What changes the file does so once, durably. Each change says when it was decided, and one that was decided before the
//! last one changes nothing: so a call that a crash cut off can be made again. Only a tenant that has no key of its own has
//! no such date. Which tenants may have one is not decided here.

use std::sync::{Arc, PoisonError};

use strongroom_ids::TenantId;
use strongroom_key_import::ImportKey;

use super::tenants::{ImportRecord, Own, Part, Tenants, Wrapping, Wraps};
use super::{Entry, Keystore, Table, Unsettled, damaged};
use crate::error::KeyError;
use crate::own_key::{
    BroughtKey, ImportPublicKey, ImportedKey, NewImportKey, OwnKey, OwnKeyInfo, OwnKeyProbe, UnwrappedTenantKey,
    no_import,
};
use crate::root::{KeystoreKey, RootError, RootKind};
use crate::stack;

impl Keystore {
    /// What there is to know of a tenant's own key, if it has one.
    pub fn own_key(&self, tenant: TenantId) -> Option<OwnKeyInfo> {
        Some(self.table.load().tenants.own(tenant)?.info(tenant))
    }

    /// What there is to know of all tenants' own keys, in the order of the file.
    pub fn own_keys(&self) -> Vec<OwnKeyInfo> {
        self.table.load().tenants.infos().collect()
    }

    /// Keeps an import key for its tenant, in the place of an older one. Its public part is for the tenant to wrap its own
    /// key to, once and within [`ImportPublicKey::AGE`]. `made` is when that is, in microseconds since 1970; if one was
    /// made then or later, that one is returned.
    ///
    /// # Errors
    /// As [`Keystore::ensure`].
    pub fn keep_import_key(&self, key: &NewImportKey, made: u64) -> Result<ImportPublicKey, KeyError> {
        stack::wiped_deep(|| {
            let mut unsettled = self.settled()?;
            let table = self.table.load_full();
            if let Some(there) = table.tenants.import(key.tenant).filter(|there| there.made >= made) {
                return table.public_part(key.tenant, there);
            }
            let sealed = table.sealing.own.seal_part(Part::ImportKey, key.tenant, &key.private)?;
            let mut tenants = table.tenants.clone();
            tenants.set_import(key.tenant, Some(ImportRecord { made, sealed }));
            self.replace(&table, Arc::clone(&table.sealing), tenants, table.keys.clone(), &mut unsettled)?;
            Ok(ImportPublicKey { made, der: key.der.clone() })
        })
    }

    /// The public part of the import key that waits for a tenant's own key, if one does.
    ///
    /// # Errors
    /// [`KeyError::Damaged`].
    pub fn import_key(&self, tenant: TenantId) -> Result<Option<ImportPublicKey>, KeyError> {
        let table = self.table.load_full();
        let import = table.tenants.import(tenant);
        import.map(|import| stack::wiped_deep(|| table.public_part(tenant, import))).transpose()
    }

    /// Opens a key that was wrapped to the tenant's import key. Nothing changes: it is for [`Keystore::bring_key`] and
    /// [`Keystore::move_key`]. `now` is when that is, in microseconds since 1970. Takes some milliseconds.
    ///
    /// # Errors
    /// [`KeyError::OwnKey`] if there is no import key or it is too old, or if what was wrapped does not open to 32 bytes.
    pub fn open_brought(&self, tenant: TenantId, wrapped: &[u8], now: u64) -> Result<BroughtKey, KeyError> {
        stack::wiped_deep(|| self.table.load_full().imported(tenant, wrapped, now))
    }

    /// Takes a key that was wrapped to the tenant's import key, which is used up by that. It must be the imported one that was
    /// taken away, and the tenant is unlocked. A first one comes by [`Keystore::move_key`]. `decided` is when that was decided,
    /// in microseconds since 1970.
    ///
    /// # Errors
    /// [`KeyError::OwnKey`] if the import key is not there any more, or if the tenant's own key is with a provider;
    /// [`KeyError::OtherOwnKey`]; else as [`Keystore::ensure`]. After any of the first the import key can still be used.
    pub fn bring_key(&self, tenant: TenantId, brought: BroughtKey, decided: u64) -> Result<(), KeyError> {
        stack::wiped_deep(|| {
            let mut unsettled = self.settled()?;
            let table = self.table.load_full();
            match table.tenants.own(tenant) {
                Some(own) if own.record.changed >= decided => Ok(()),
                Some(own) => {
                    let imported = table.at_hand(tenant, brought)?;
                    let own = table.brought_again(tenant, own, &imported, decided)?;
                    let mut tenants = table.tenants.clone();
                    tenants.set_own(tenant, Some(own));
                    tenants.set_import(tenant, None);
                    let keys = table.opened(tenant, &tenants)?;
                    self.replace(&table, Arc::clone(&table.sealing), tenants, keys, &mut unsettled)
                }
                None => Err(NONE_OF_ITS_OWN.for_(tenant)),
            }
        })
    }

    /// Moves a tenant from the own key that it has, or from none, to another one, or to none. All its keys but the ledger's
    /// are wrapped anew, under a new tenant key, so it must be unlocked. Copies of the keystore made before still open
    /// under what it had. `decided` is when that was decided, in microseconds since 1970.
    ///
    /// # Errors
    /// [`KeyError::OwnKeyAway`]; [`KeyError::OwnKey`] as [`Keystore::bring_key`], or if a provider wrapped for another
    /// tenant; else as [`Keystore::ensure`].
    pub fn move_key(&self, tenant: TenantId, to: Option<OwnKey>, decided: u64) -> Result<(), KeyError> {
        stack::wiped_deep(|| {
            let mut unsettled = self.settled()?;
            let table = self.table.load_full();
            let done = match table.tenants.own(tenant) {
                Some(own) => own.record.changed >= decided,
                None => to.is_none(),
            };
            if done {
                return Ok(());
            }
            let to = match to {
                Some(OwnKey::Imported(brought)) => Some(table.first_imported(tenant, brought)?),
                Some(OwnKey::Provided(provided)) => {
                    let (envelope, key) = provided.of(self.vault, tenant).ok_or_else(|| OTHERS.for_(tenant))?;
                    Some((Wrapping::Provider(envelope), *key))
                }
                None => None,
            };
            self.wrap_tenant_anew(&table, tenant, to, decided, &mut unsettled)
        })
    }

    /// Takes a tenant's imported key away: out of memory at once, with all that it opens, then out of the file, where only
    /// what it wrapped remains. The tenant is locked until the same key is brought again. A copy of the keystore made
    /// before still holds the key. `decided` is when that was decided, in microseconds since 1970.
    ///
    /// # Errors
    /// [`KeyError::OwnKey`] if the tenant has none, or a provider keeps it; else as [`Keystore::ensure`]. After an error of
    /// the file the tenant is locked, but the file may still hold the key: call it again.
    pub fn remove_key(&self, tenant: TenantId, decided: u64) -> Result<(), KeyError> {
        let over = |table: &Table| match table.tenants.own(tenant) {
            None => Err(NONE_OF_ITS_OWN.for_(tenant)),
            Some(own) => match own.record.wrapping {
                Wrapping::Provider(_) => Err(WITH_A_PROVIDER.for_(tenant)),
                Wrapping::Imported { .. } => Ok(own.record.changed >= decided),
            },
        };
        if over(&self.table.load())? {
            return Ok(());
        }
        // Before anything that may fail.
        self.lock_tenant(tenant)?;
        let mut unsettled = self.settled()?;
        let table = self.table.load_full();
        if over(&table)? {
            return Ok(());
        }
        // Somebody may have unlocked it again meanwhile.
        let Some(locked) = table.locked(tenant).map(Arc::new) else { return Ok(()) };
        self.table.store(Arc::clone(&locked));
        let mut tenants = locked.tenants.clone();
        tenants.take_imported(tenant, decided);
        self.replace(&locked, Arc::clone(&locked.sealing), tenants, locked.keys.clone(), &mut unsettled)
    }

    /// What the provider of a tenant's own key is asked with for the tenant key.
    ///
    /// # Errors
    /// [`KeyError::OwnKey`] if the tenant has no own key, or no provider keeps it.
    pub fn own_key_probe(&self, tenant: TenantId) -> Result<OwnKeyProbe, KeyError> {
        let table = self.table.load_full();
        let own = table.tenants.own(tenant).ok_or_else(|| NONE_OF_ITS_OWN.for_(tenant))?;
        match &own.record.wrapping {
            Wrapping::Provider(envelope) => {
                let changed = own.record.changed;
                Ok(OwnKeyProbe { vault: self.vault, tenant, envelope: envelope.clone(), changed })
            }
            Wrapping::Imported { .. } => Err(IMPORTED.for_(tenant)),
        }
    }

    /// Unlocks a tenant: its own key has unwrapped the tenant key, and that unwraps the tenant's keys. The file does not
    /// change. With `None` for an imported key that is in the keystore. Asked of a tenant that is not locked, it sees
    /// whether its own key is still the same.
    ///
    /// # Errors
    /// [`RootError::OtherKey`] if what a provider unwrapped does not open the tenant's keys; or as [`RootError::Key`]
    /// [`KeyError::OwnKeyAway`] if an imported key was taken away; [`KeyError::OwnKey`] if the tenant has none, it lives
    /// elsewhere, or it was moved meanwhile; [`KeyError::Io`].
    pub fn unlock_tenant(&self, tenant: TenantId, with: Option<UnwrappedTenantKey>) -> Result<(), RootError> {
        stack::wiped_deep(|| {
            // What was asked for is not necessarily what is there by now.
            let _settled = self.settled()?;
            let table = self.table.load_full();
            let own = table.tenants.own(tenant).ok_or_else(|| NONE_OF_ITS_OWN.for_(tenant))?;
            let (key, provider) = match (&own.record.wrapping, with) {
                (Wrapping::Provider(now), Some(unwrapped)) => match unwrapped.is_of(tenant, now) {
                    true => (*unwrapped.key, Some(now.kind)),
                    false => return Err(MOVED_MEANWHILE.for_(tenant).into()),
                },
                (Wrapping::Provider(_), None) => return Err(WITH_A_PROVIDER.for_(tenant).into()),
                (Wrapping::Imported { .. }, Some(_)) => return Err(MOVED_MEANWHILE.for_(tenant).into()),
                (Wrapping::Imported { .. }, None) => {
                    let kept = own.by_what_is_kept(&table.sealing.own, tenant)?;
                    (kept.ok_or_else(|| own.away(tenant))?, None)
                }
            };
            let opened = match &own.open {
                Some(open) if open.is_by(&key) => return Ok(()),
                Some(_) => Err(damaged("it is another tenant key")),
                None => own.opened(&table.sealing.own, tenant, key).and_then(|own| table.unlocked(tenant, own)),
            };
            self.table.store(Arc::new(opened.map_err(|error| does_not_open(error, provider))?));
            Ok(())
        })
    }

    /// Whether what a provider unwrapped opens a tenant's keys. Nothing changes.
    ///
    /// # Errors
    /// As [`Keystore::unlock_tenant`].
    pub fn fits(&self, tenant: TenantId, with: &UnwrappedTenantKey) -> Result<(), RootError> {
        stack::wiped_deep(|| {
            let table = self.table.load_full();
            let own = table.tenants.own(tenant).ok_or_else(|| NONE_OF_ITS_OWN.for_(tenant))?;
            let provider = match &own.record.wrapping {
                Wrapping::Provider(now) if with.is_of(tenant, now) => now.kind,
                _ => return Err(MOVED_MEANWHILE.for_(tenant).into()),
            };
            let opened =
                own.opened(&table.sealing.own, tenant, with.key.copy()).and_then(|own| table.unlocked(tenant, own));
            opened.map(drop).map_err(|error| does_not_open(error, Some(provider)))
        })
    }

    /// Locks a tenant: its keys but the ledger's, and what opens them, are gone from this keystore's memory when it
    /// returns. Keys that were given out before live as long as they are held. The file does not change.
    ///
    /// # Errors
    /// [`KeyError::OwnKey`] if the tenant has no key of its own.
    pub fn lock_tenant(&self, tenant: TenantId) -> Result<(), KeyError> {
        let mut unsettled = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load_full();
        let locked = table.locked(tenant).ok_or_else(|| NONE_OF_ITS_OWN.for_(tenant))?;
        self.table.store(Arc::new(locked));
        // What may yet take its place must not bring them back.
        if let Some(pending) = unsettled.as_mut()
            && let Some(locked) = pending.table.locked(tenant)
        {
            pending.table = locked;
        }
        Ok(())
    }

    /// Wraps all keys of a tenant but the ledger's anew, in one replacement. An import key is used up by that.
    fn wrap_tenant_anew(
        &self,
        table: &Table,
        tenant: TenantId,
        to: Option<(Wrapping, KeystoreKey)>,
        decided: u64,
        unsettled: &mut Option<Unsettled>,
    ) -> Result<(), KeyError> {
        let own = &table.sealing.own;
        let mut tenants = table.tenants.clone();
        let to = to.map(|(wrapping, key)| Own::new(own, tenant, wrapping, key, decided)).transpose()?;
        tenants.set_own(tenant, to);
        tenants.set_import(tenant, None);
        let mut keys = table.keys.clone();
        let (old, new) = (table.wraps(), Wraps { own, tenants: &tenants });
        for entry in keys.values_mut().flatten().filter(|entry| entry.record.name.tenant() == tenant) {
            entry.wrap_anew(&old, &new)?;
        }
        self.replace(table, Arc::clone(&table.sealing), tenants, keys, unsettled)
    }
}

impl Table {
    /// The same with a tenant locked; `None` if that has no key of its own.
    fn locked(&self, tenant: TenantId) -> Option<Self> {
        let locked = self.tenants.own(tenant)?.locked();
        let mut tenants = self.tenants.clone();
        tenants.set_own(tenant, Some(locked));
        let wraps = Wraps { own: &self.sealing.own, tenants: &tenants };
        let mut keys = self.keys.clone();
        for entry in keys.values_mut().flatten().filter(|entry| entry.record.name.tenant() == tenant) {
            if !wraps.reach(&entry.record.name) {
                entry.key = None;
            }
        }
        Some(self.same_file(tenants, keys))
    }

    /// The same with a tenant unlocked.
    fn unlocked(&self, tenant: TenantId, own: Own) -> Result<Self, KeyError> {
        let mut tenants = self.tenants.clone();
        tenants.set_own(tenant, Some(own));
        let keys = self.opened(tenant, &tenants)?;
        Ok(self.same_file(tenants, keys))
    }

    fn same_file(&self, tenants: Tenants, keys: super::Keys) -> Self {
        let (number, checksum, sealing) = (self.number, self.checksum.clone(), Arc::clone(&self.sealing));
        Self { number, checksum, sealing, tenants, keys }
    }

    /// All keys, with those of a tenant unwrapped that were not.
    fn opened(&self, tenant: TenantId, tenants: &Tenants) -> Result<super::Keys, KeyError> {
        let wraps = Wraps { own: &self.sealing.own, tenants };
        let mut keys = self.keys.clone();
        for entry in keys.values_mut().flatten().filter(|entry| entry.record.name.tenant() == tenant) {
            *entry = Entry::open(entry.record.clone(), &wraps)?;
        }
        Ok(keys)
    }

    /// The private part of an import key.
    fn private_part(&self, tenant: TenantId, import: &ImportRecord) -> Result<ImportKey, KeyError> {
        let der = self.sealing.own.open_part(Part::ImportKey, tenant, &import.sealed)?;
        ImportKey::from_pkcs8(der.as_bytes()).map_err(|_| damaged("an import key is no RSA key"))
    }

    fn public_part(&self, tenant: TenantId, import: &ImportRecord) -> Result<ImportPublicKey, KeyError> {
        let der = self.private_part(tenant, import)?.public_key().map_err(|error| no_import(tenant, error))?;
        Ok(ImportPublicKey { made: import.made, der })
    }

    /// Opens what was wrapped to the tenant's import key.
    fn imported(&self, tenant: TenantId, wrapped: &[u8], now: u64) -> Result<BroughtKey, KeyError> {
        let import = self.tenants.import(tenant).ok_or_else(|| NO_IMPORT_KEY.for_(tenant))?;
        // One that seems to be of the future is as old as nobody knows.
        if now.checked_sub(import.made).is_none_or(|age| age > ImportPublicKey::AGE) {
            return Err(TOO_OLD.for_(tenant));
        }
        let opened = self.private_part(tenant, import)?.open(wrapped).map_err(|error| no_import(tenant, error))?;
        let key = Box::new(ImportedKey::new(&opened).ok_or_else(|| NOT_256_BITS.for_(tenant))?);
        Ok(BroughtKey { tenant, import: import.made, key })
    }

    /// A key that was brought, if it was wrapped to the import key that is still there.
    fn at_hand(&self, tenant: TenantId, brought: BroughtKey) -> Result<Box<ImportedKey>, KeyError> {
        let there = self.tenants.import(tenant).is_some_and(|import| import.made == brought.import);
        match there && brought.tenant == tenant {
            true => Ok(brought.key),
            false => Err(NO_IMPORT_KEY.for_(tenant)),
        }
    }

    /// An imported key that a tenant has not had until now, with a new tenant key under it.
    fn first_imported(&self, tenant: TenantId, brought: BroughtKey) -> Result<(Wrapping, KeystoreKey), KeyError> {
        let imported = self.at_hand(tenant, brought)?;
        let (own, key) = (&self.sealing.own, KeystoreKey::random()?);
        let wrapped = imported.wrap(own.vault(), tenant, &key)?;
        let sealed = own.seal_part(Part::Imported, tenant, imported.as_bytes())?;
        let kept = sealed.try_into().map_err(|_| KeyError::TooLong)?;
        Ok((Wrapping::Imported { fingerprint: imported.fingerprint(), wrapped, key: Some(kept) }, key))
    }

    /// A tenant's own key with the imported key that it had.
    fn brought_again(
        &self,
        tenant: TenantId,
        own: &Own,
        imported: &ImportedKey,
        decided: u64,
    ) -> Result<Own, KeyError> {
        let Wrapping::Imported { fingerprint, wrapped, .. } = &own.record.wrapping else {
            return Err(WITH_A_PROVIDER.for_(tenant));
        };
        let file = &self.sealing.own;
        let key = imported.unwrap(file.vault(), tenant, wrapped).map_err(|_| KeyError::OtherOwnKey {
            tenant,
            wanted: data_encoding::HEXLOWER.encode(fingerprint),
            brought: data_encoding::HEXLOWER.encode(&imported.fingerprint()),
        })?;
        let mut own = own.opened(file, tenant, key)?;
        let sealed = file.seal_part(Part::Imported, tenant, imported.as_bytes())?;
        if let Wrapping::Imported { key, .. } = &mut own.record.wrapping {
            *key = Some(sealed.try_into().map_err(|_| KeyError::TooLong)?);
        }
        own.record.changed = decided;
        Ok(own)
    }
}

/// Why a tenant's keys don't open: what was read was proved, so it is what a provider unwrapped, if one did.
fn does_not_open(error: KeyError, by: Option<RootKind>) -> RootError {
    match (error, by) {
        (KeyError::Damaged { .. }, Some(provider)) => {
            provider.other_key("what it unwraps does not open the tenant's keys")
        }
        (error, _) => error.into(),
    }
}

/// A reason why a tenant's own key was left as it is.
struct Reason(&'static str);

const NONE_OF_ITS_OWN: Reason = Reason("the tenant has none: bring or move it to one first");
const WITH_A_PROVIDER: Reason =
    Reason("it is with a provider: have that allow the vault to use it, or take it away there");
const IMPORTED: Reason = Reason("it was imported, and no provider keeps it: bring it");
const OTHERS: Reason = Reason("its provider wrapped for another tenant or vault");
const MOVED_MEANWHILE: Reason =
    Reason("it was moved or taken away meanwhile: `strongroom own-key show` says where it is");
const NO_IMPORT_KEY: Reason = Reason("no import key waits for it: make one, and wrap the own key to that");
const TOO_OLD: Reason =
    Reason("its import key is not of the last 24 hours: make a new one, and wrap the own key to that");
const NOT_256_BITS: Reason = Reason("what was wrapped is not a key of 32 bytes: give an AES-256 key as it is");

impl Reason {
    fn for_(&self, tenant: TenantId) -> KeyError {
        KeyError::OwnKey { tenant, why: self.0 }
    }
}
