//! A store that is only read: at one moment, also while another process has it open.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use strongroom_storage::{Entry, Family, KeyRange, Mutation, Range, Snapshot, Store, StoreError};

use crate::engine::{Engine, Reach};
use crate::options::RocksOptions;

/// RocksDB in one folder, as it was when this was opened: what others write there later it does not see. It writes nothing,
/// so the folder may be on a medium that can only be read, and refuses to. Clones see the same moment.
///
/// Reads run on the calling thread and wait for the disk there: it is for those who have nothing else to do. What was not in
/// table files yet is kept in memory, which is as much as [`RocksOptions::write_ahead_log`] allows; every table file is held
/// open.
#[derive(Clone)]
pub struct RocksReader {
    engine: Arc<Engine>,
    /// Families that a store of an earlier version does not have. Nothing is in them.
    missing: Arc<[Family]>,
}

impl RocksReader {
    /// Opens a store that exists.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if there is none or it is damaged. [`StoreError::Io`] if it can't be read, or if whoever
    /// writes to it replaces its files again and again while they are opened.
    pub fn open(dir: &Path, options: &RocksOptions) -> Result<Self, StoreError> {
        let (engine, missing) = Engine::open_for_reading(dir, options)?;
        Ok(Self { engine: Arc::new(engine), missing: missing.into() })
    }
}

fn refused<T>(doing: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Io { doing, what: "it was opened for reading only".to_owned() })
}

impl Store for RocksReader {
    type Snapshot = Self;

    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        match self.missing.contains(&family) {
            true => Ok(None),
            false => Ok(self.engine.get(Reach::Disk, family, &key)?),
        }
    }

    async fn multi_get(&self, family: Family, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, StoreError> {
        match self.missing.contains(&family) {
            true => Ok(vec![None; keys.len()]),
            false => self.engine.multi_get(family, &keys),
        }
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        match self.missing.contains(&family) {
            true => Ok(vec![]),
            false => Ok(self.engine.scan(Reach::Disk, family, &range)?),
        }
    }

    /// Itself.
    async fn snapshot(&self) -> Result<Self, StoreError> {
        Ok(self.clone())
    }

    async fn purge(&self, _family: Family, _from: Vec<u8>, _to: Vec<u8>) -> Result<(), StoreError> {
        refused("purge")
    }

    async fn scrub(&self, _ranges: Vec<KeyRange>) -> Result<(), StoreError> {
        refused("scrub")
    }

    async fn write(&self, _batch: Vec<Mutation>) -> Result<(), StoreError> {
        refused("write")
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        refused("be opened again")
    }
}

impl Snapshot for RocksReader {
    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        Store::get(self, family, key).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        Store::scan(self, family, range).await
    }
}
