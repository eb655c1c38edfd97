//! The keystore: all keys of a vault but its DEKs, in one small file apart from the data.
//!
//! Apart, because a backup of the data must not bring back a KEK that was destroyed. The file is replaced as a whole
//! and atomically; each replacement has the next number. Reads take no lock: a replacement puts a new table in place.
//! The file also holds the key that all others in it are wrapped under, sealed by a provider of the root key. The keys of a
//! tenant that has a key of its own are wrapped under that too, so they are locked while it is away.

mod copy;
mod file;
mod ledger;
mod life;
mod own;
mod root;
mod tenants;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use strongroom_ids::{KeyVersion, KeyringNo, TenantId, VaultId};

use crate::disk;
use crate::error::KeyError;
use crate::index_key::{IndexKey, IndexKeys};
use crate::kek::Kek;
use crate::ledger_key::LedgerKey;
use crate::name::{IndexName, KeyName, KeyState, Operation};
use crate::root::{Envelope, KeystoreKey, RootError, RootProvider};
use crate::secret::{self, RawKey};
use crate::stack;
use crate::token_key::TokenKey;
pub use copy::KeystoreCopy;
pub(crate) use file::damaged;
use file::{FILE, FileKeys, LIMIT, Record, Unproved};
pub use ledger::LedgerPublic;
pub use root::{KeystoreHeader, RootProbe};
use tenants::{Tenants, Wraps};

/// The keys of a vault, unwrapped in memory. Share it between threads.
pub struct Keystore {
    dir: PathBuf,
    vault: VaultId,
    /// Held while the file is replaced. What a replacement wrote that failed before it was durable.
    writing: Mutex<Option<Unsettled>>,
    table: ArcSwap<Table>,
}

/// What there is to know of one version of a key, but for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Which key.
    pub name: KeyName,
    /// Which version of it.
    pub version: KeyVersion,
    /// What may be done with it.
    pub state: KeyState,
    /// When it was made, in microseconds since 1970.
    pub created: u64,
    /// When it got its state, in microseconds since 1970.
    pub changed: u64,
}

/// The versions of each key. All names are the vault's own, so the hash may be a quick one.
type Keys = HashMap<KeyName, Vec<Entry>, RandomState>;

/// One state of the file, and the keys in it.
struct Table {
    number: u64,
    /// The file's checksum, by which another's replacement is noticed.
    checksum: Vec<u8>,
    sealing: Arc<Sealing>,
    tenants: Tenants,
    keys: Keys,
}

/// What a keystore is sealed by. Another root key brings another one of these.
struct Sealing {
    own: FileKeys,
    envelope: Envelope,
}

/// A file that may have taken its place, or not: nobody knows what a crash would leave. Its keys are not given out.
struct Unsettled {
    bytes: Vec<u8>,
    table: Table,
}

/// One version of a key. The versions of a name are in ascending order.
#[derive(Clone)]
struct Entry {
    record: Record,
    /// `None` while the key's state allows nothing, or its tenant is locked.
    key: Option<Key>,
}

#[derive(Clone)]
enum Key {
    Kek(Arc<Kek>),
    Index(Arc<IndexKey>),
    Token(Arc<TokenKey>),
    Ledger(Arc<LedgerKey>),
}

impl Keystore {
    /// Creates an empty keystore in the file `keys`, under a new keystore key that the root provider wraps. The directory
    /// is made if it is missing. Takes as long as the provider does: call it where waiting is allowed.
    ///
    /// # Errors
    /// A [`RootError`] of the provider, or in it [`KeyError::Exists`] if there is a keystore; [`KeyError::Io`].
    pub fn create(dir: &Path, vault: VaultId, root: &dyn RootProvider) -> Result<Self, RootError> {
        stack::wiped_deep(|| {
            let key = KeystoreKey::random()?;
            let envelope = root.wrap(vault, &key)?;
            let bytes = FileKeys::derive(&key, vault)?.encode(1, &envelope, &Tenants::default(), &mut [])?;
            disk::make_dir(dir)?;
            disk::lock(dir)?.create(FILE, &bytes)?;
            Ok(Self::unwrapped(dir, file::parse(&bytes)?, &key, &bytes)?)
        })
    }

    /// Opens the file `keys` and unwraps what is in it, but for the keys of tenants whose own key is elsewhere or was taken
    /// away: those are locked, see [`Keystore::unlock_tenant`]. Takes as long as the provider does: call it where waiting is
    /// allowed.
    ///
    /// # Errors
    /// A [`RootError`] of the provider, or in it [`KeyError::NoFile`]; [`KeyError::Damaged`] if the file's checksum does
    /// not match; [`KeyError::NotAuthentic`]; [`KeyError::Unsupported`]; [`KeyError::UnknownProvider`]; [`KeyError::Io`].
    pub fn open(dir: &Path, root: &dyn RootProvider) -> Result<Self, RootError> {
        let bytes = disk::read(dir, FILE, LIMIT as u64)?;
        Self::from_bytes(dir, root, &bytes)
    }

    fn from_bytes(dir: &Path, root: &dyn RootProvider, bytes: &[u8]) -> Result<Self, RootError> {
        let unproved = file::parse(bytes)?;
        stack::wiped_deep(|| {
            let key = root.unwrap(unproved.vault, &unproved.envelope)?;
            Ok(Self::unwrapped(dir, unproved, &key, bytes)?)
        })
    }

    fn unwrapped(dir: &Path, unproved: Unproved<'_>, key: &KeystoreKey, bytes: &[u8]) -> Result<Self, KeyError> {
        let own = FileKeys::derive(key, unproved.vault)?;
        let mut keys = Keys::default();
        let (mut tenants, records) = unproved.prove(&own)?;
        tenants.open_what_is_kept(&own)?;
        for record in records {
            let entry = Entry::open(record, &Wraps { own: &own, tenants: &tenants })?;
            keys.entry(entry.record.name).or_default().push(entry);
        }
        let Unproved { vault, number, envelope, .. } = unproved;
        let sealing = Arc::new(Sealing { own, envelope });
        let table = Table { number, checksum: checksum(bytes).to_vec(), sealing, tenants, keys };
        Ok(Self { dir: dir.to_owned(), vault, writing: Mutex::new(None), table: ArcSwap::from_pointee(table) })
    }

    /// Which vault the keys belong to.
    pub fn vault_id(&self) -> VaultId {
        self.vault
    }

    /// How often the file was written; creating it is the first time.
    pub fn number(&self) -> u64 {
        self.table.load().number
    }

    /// Makes version 1, random, of those keys that have no version yet. The file is replaced once, durably, before a
    /// new key can be used; if there is nothing to make it isn't touched. `made` is when that is, in microseconds since
    /// 1970. Returns what was made.
    ///
    /// # Errors
    /// [`KeyError::Changed`] if another process replaced the file since; [`KeyError::Exhausted`] if it is full;
    /// [`KeyError::OwnKeyAway`] if a new key would be a locked tenant's; [`KeyError::Random`]; [`KeyError::Io`].
    /// After an error no key was made that this keystore gives out. The file may still have been replaced, if syncing the
    /// directory failed: the next call finds out, and goes on from there.
    pub fn ensure(&self, names: &[KeyName], made: u64) -> Result<Vec<KeyName>, KeyError> {
        if names.iter().all(|name| self.table.load().keys.contains_key(name)) {
            return Ok(vec![]);
        }
        let mut new = Vec::new();
        self.change(|keys, own| {
            for name in names {
                if !keys.contains_key(name) {
                    keys.insert(*name, vec![Entry::make(*name, KeyVersion(1), made, own)?]);
                    new.push(*name);
                }
            }
            Ok(!new.is_empty())
        })?;
        Ok(new)
    }

    /// Replaces the file by a changed one, unless `change` says that it changed nothing.
    fn change(&self, change: impl FnOnce(&mut Keys, &Wraps<'_>) -> Result<bool, KeyError>) -> Result<(), KeyError> {
        let mut unsettled = self.settled()?;
        let table = self.table.load_full();
        let mut keys = table.keys.clone();
        if change(&mut keys, &table.wraps())? {
            self.replace(&table, Arc::clone(&table.sealing), table.tenants.clone(), keys, &mut unsettled)?;
        }
        Ok(())
    }

    /// Holds off other changes, after what became of the last one is known.
    fn settled(&self) -> Result<MutexGuard<'_, Option<Unsettled>>, KeyError> {
        // A panic leaves what is behind the lock as it was.
        let mut unsettled = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut unsettled)?;
        Ok(unsettled)
    }

    /// Writes the next file, then gives out its keys.
    fn replace(
        &self,
        current: &Table,
        sealing: Arc<Sealing>,
        tenants: Tenants,
        keys: Keys,
        unsettled: &mut Option<Unsettled>,
    ) -> Result<(), KeyError> {
        let number = current.number.checked_add(1).ok_or(KeyError::Exhausted(
            "the keystore cannot be replaced more often; restore it from a copy into a new one",
        ))?;
        let mut records: Vec<Record> = keys.values().flatten().map(|entry| entry.record.clone()).collect();
        let bytes = sealing.own.encode(number, &sealing.envelope, &tenants, &mut records)?;
        let dir = disk::lock(&self.dir)?;
        let on_disk = disk::read(&self.dir, FILE, LIMIT as u64)?;
        if checksum(&on_disk) != current.checksum {
            return Err(KeyError::Changed);
        }
        let table = Table { number, checksum: checksum(&bytes).to_vec(), sealing, tenants, keys };
        if let Err(error) = dir.replace(FILE, &bytes) {
            *unsettled = Some(Unsettled { bytes, table });
            return Err(error);
        }
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Settles what became of a replacement that failed. If its file is in place it is written once more, and only then
    /// are its keys given out: a key that a crash takes away takes with it what was sealed since.
    fn settle(&self, unsettled: &mut Option<Unsettled>) -> Result<(), KeyError> {
        let Some(Unsettled { bytes, table }) = unsettled.take() else { return Ok(()) };
        let written = disk::lock(&self.dir).and_then(|dir| {
            let on_disk = disk::read(&self.dir, FILE, LIMIT as u64)?;
            let ours = checksum(&on_disk) == table.checksum;
            if ours {
                dir.replace(FILE, &bytes)?;
            }
            Ok(ours)
        });
        match written {
            Ok(true) => self.table.store(Arc::new(table)),
            // It never took its place: what is there is what was there before, or another's.
            Ok(false) => {}
            Err(error) => {
                *unsettled = Some(Unsettled { bytes, table });
                return Err(error);
            }
        }
        Ok(())
    }

    /// The newest enabled KEK of a keyring, for wrapping.
    ///
    /// # Errors
    /// [`KeyError::Missing`]; [`KeyError::NotAllowed`] if no version is enabled; [`KeyError::OwnKeyAway`] if the tenant is
    /// locked.
    pub fn kek(&self, tenant: TenantId, keyring: KeyringNo) -> Result<Arc<Kek>, KeyError> {
        let name = KeyName::Kek(tenant, keyring);
        self.newest(name, |key| if let Key::Kek(kek) = key { Some(kek) } else { None })
    }

    /// One version of a KEK, for unwrapping.
    ///
    /// # Errors
    /// [`KeyError::Missing`]; [`KeyError::MissingVersion`]; [`KeyError::NotAllowed`] if its state forbids processing;
    /// [`KeyError::OwnKeyAway`] if the tenant is locked.
    pub fn kek_version(&self, tenant: TenantId, keyring: KeyringNo, version: KeyVersion) -> Result<Arc<Kek>, KeyError> {
        let name = KeyName::Kek(tenant, keyring);
        self.version(name, version, |key| if let Key::Kek(kek) = key { Some(kek) } else { None })
    }

    /// The newest enabled key of a blind index.
    ///
    /// # Errors
    /// As [`Keystore::kek`].
    pub fn index_key(&self, tenant: TenantId, index: IndexName) -> Result<Arc<IndexKey>, KeyError> {
        let name = KeyName::Index(tenant, index);
        self.newest(name, |key| if let Key::Index(index) = key { Some(index) } else { None })
    }

    /// All versions of a blind index's key that may be used: entries are made under the newest, and may be found under the
    /// others for as long as they have not moved.
    ///
    /// # Errors
    /// As [`Keystore::kek`].
    pub fn index_keys(&self, tenant: TenantId, index: IndexName) -> Result<IndexKeys, KeyError> {
        let name = KeyName::Index(tenant, index);
        let table = self.table.load();
        let versions = table.keys.get(&name).ok_or(KeyError::Missing { name })?;
        let mut newest = None;
        let mut older = Vec::new();
        for entry in versions.iter().rev() {
            let Some(Key::Index(key)) = &entry.key else { continue };
            if newest.is_none() && entry.record.state.allows(Operation::Protect) {
                newest = Some(Arc::clone(key));
            } else if entry.record.state.allows(Operation::Process) {
                older.push(Arc::clone(key));
            }
        }
        match (newest, versions.last()) {
            (Some(newest), _) => Ok(IndexKeys::new(newest, older)),
            (None, Some(last)) => Err(last.not_allowed()),
            (None, None) => Err(KeyError::Missing { name }),
        }
    }

    /// One version of a blind index's key, for computing again what it made.
    ///
    /// # Errors
    /// As [`Keystore::kek_version`].
    pub fn index_key_version(
        &self,
        tenant: TenantId,
        index: IndexName,
        version: KeyVersion,
    ) -> Result<Arc<IndexKey>, KeyError> {
        let name = KeyName::Index(tenant, index);
        self.version(name, version, |key| if let Key::Index(index) = key { Some(index) } else { None })
    }

    /// The newest enabled token key, for making tokens.
    ///
    /// # Errors
    /// As [`Keystore::kek`].
    pub fn token_key(&self, tenant: TenantId) -> Result<Arc<TokenKey>, KeyError> {
        self.newest(KeyName::Token(tenant), |key| if let Key::Token(token) = key { Some(token) } else { None })
    }

    /// One version of a token key, for following tokens.
    ///
    /// # Errors
    /// As [`Keystore::kek_version`].
    pub fn token_key_version(&self, tenant: TenantId, version: KeyVersion) -> Result<Arc<TokenKey>, KeyError> {
        let name = KeyName::Token(tenant);
        self.version(name, version, |key| if let Key::Token(token) = key { Some(token) } else { None })
    }

    /// All versions of all keys of a tenant, in the order of the file.
    pub fn keys(&self, tenant: TenantId) -> Vec<KeyInfo> {
        let table = self.table.load();
        let entries = table.keys.values().flatten().filter(|entry| entry.record.name.tenant() == tenant);
        let mut keys: Vec<KeyInfo> = entries.map(Entry::info).collect();
        keys.sort_by_key(|key| (key.name.encode(), key.version));
        keys
    }

    fn newest<T>(&self, name: KeyName, pick: impl Fn(&Key) -> Option<&Arc<T>>) -> Result<Arc<T>, KeyError> {
        let table = self.table.load();
        let newest = table.keys.get(&name).and_then(|versions| versions.last()).ok_or(KeyError::Missing { name })?;
        let versions = table.keys.get(&name).into_iter().flatten().rev();
        let mut enabled = versions.filter(|entry| entry.record.state.allows(Operation::Protect));
        let enabled = enabled.next().ok_or_else(|| newest.not_allowed())?;
        enabled.key.as_ref().and_then(pick).map(Arc::clone).ok_or_else(|| table.not_there(enabled))
    }

    fn version<T>(
        &self,
        name: KeyName,
        version: KeyVersion,
        pick: impl Fn(&Key) -> Option<&Arc<T>>,
    ) -> Result<Arc<T>, KeyError> {
        let table = self.table.load();
        let versions = table.keys.get(&name).ok_or(KeyError::Missing { name })?;
        let entry = versions
            .iter()
            .find(|entry| entry.record.version == version)
            .ok_or(KeyError::MissingVersion { name, version })?;
        if !entry.record.state.allows(Operation::Process) {
            return Err(entry.not_allowed());
        }
        entry.key.as_ref().and_then(pick).map(Arc::clone).ok_or_else(|| table.not_there(entry))
    }
}

impl Table {
    fn wraps(&self) -> Wraps<'_> {
        Wraps { own: &self.sealing.own, tenants: &self.tenants }
    }

    /// Why a key is not in memory though its state allows to use it.
    fn not_there(&self, entry: &Entry) -> KeyError {
        let tenant = entry.record.name.tenant();
        self.tenants.own(tenant).map_or_else(|| entry.not_allowed(), |own| own.away(tenant))
    }
}

impl Entry {
    /// A new random key, wrapped.
    fn make(name: KeyName, version: KeyVersion, created: u64, own: &Wraps<'_>) -> Result<Self, KeyError> {
        let (wrapped, key) = stack::wiped(|| {
            let raw = secret::new_raw_key()?;
            Ok::<_, KeyError>((Some(own.wrap(&name, version, &raw)?), Some(Key::new(&name, version, &raw)?)))
        })?;
        Ok(Self { record: Record { name, version, state: KeyState::Enabled, created, changed: created, wrapped }, key })
    }

    /// Gets another state. The key is kept in memory only while something may be done with it.
    fn become_(&mut self, state: KeyState, time: u64, own: &Wraps<'_>) -> Result<(), KeyError> {
        let Record { name, version, created, wrapped, .. } = self.record.clone();
        let wrapped = wrapped.filter(|_| state != KeyState::Destroyed);
        *self = Self::open(Record { name, version, state, created, changed: time.max(created), wrapped }, own)?;
        Ok(())
    }

    /// A key from the file, unwrapped if its state allows to use it and its tenant is not locked.
    fn open(record: Record, own: &Wraps<'_>) -> Result<Self, KeyError> {
        let usable = record.state.allows(Operation::Process) && own.reach(&record.name);
        let key = match record.wrapped.as_ref().filter(|_| usable) {
            Some(wrapped) => Some(stack::wiped(|| {
                let raw = own.unwrap(&record.name, record.version, wrapped)?;
                Key::new(&record.name, record.version, &raw)
            })?),
            None => None,
        };
        Ok(Self { record, key })
    }

    fn info(&self) -> KeyInfo {
        let Record { name, version, state, created, changed, .. } = self.record;
        KeyInfo { name, version, state, created, changed }
    }

    fn not_allowed(&self) -> KeyError {
        KeyError::NotAllowed { name: self.record.name, version: self.record.version, state: self.record.state }
    }
}

impl Key {
    fn new(name: &KeyName, version: KeyVersion, raw: &RawKey) -> Result<Self, KeyError> {
        Ok(match name {
            KeyName::Kek(tenant, keyring) => Self::Kek(Arc::new(Kek::new(*tenant, *keyring, version, raw))),
            KeyName::Index(..) => Self::Index(Arc::new(IndexKey::new(version, raw))),
            KeyName::Token(_) => Self::Token(Arc::new(TokenKey::new(version, raw))),
            KeyName::Ledger(_) => {
                Self::Ledger(Arc::new(LedgerKey::new(version, raw).ok_or(damaged("a ledger key is no Ed25519 seed"))?))
            }
        })
    }
}

impl fmt::Debug for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keystore").field("vault", &self.vault).field("number", &self.number()).finish_non_exhaustive()
    }
}

/// The last 32 bytes of a file.
fn checksum(bytes: &[u8]) -> &[u8] {
    bytes.last_chunk::<32>().map_or(&[], |sum| sum.as_slice())
}
