//! A store of which a part can't be read, as where a block on disk is damaged.

use bytes::Bytes;
use strongroom_storage::memory::{MemorySnapshot, MemoryStore};
use strongroom_storage::{Entry, Family, KeyRange, Mutation, Range, Store, StoreError};

/// One family can't be read from a key on.
pub struct Damaged {
    pub inner: MemoryStore,
    pub family: Family,
    pub from: Vec<u8>,
}

impl Damaged {
    fn unless<'k>(&self, family: Family, mut keys: impl Iterator<Item = &'k [u8]>) -> Result<(), StoreError> {
        match family == self.family && keys.any(|key| *key >= *self.from) {
            true => Err(StoreError::Corrupt { place: family.name(), what: "a block is damaged".to_owned() }),
            false => Ok(()),
        }
    }
}

impl Store for Damaged {
    type Snapshot = MemorySnapshot;

    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        self.unless(family, [&key[..]].into_iter())?;
        self.inner.get(family, key).await
    }

    async fn multi_get(&self, family: Family, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.unless(family, keys.iter().map(|key| &key[..]))?;
        self.inner.multi_get(family, keys).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        let page = self.inner.scan(family, range).await?;
        self.unless(family, page.iter().map(|(key, _)| &key[..]))?;
        Ok(page)
    }

    async fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        self.inner.snapshot().await
    }

    async fn purge(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> Result<(), StoreError> {
        self.inner.purge(family, from, to).await
    }

    async fn scrub(&self, ranges: Vec<KeyRange>) -> Result<(), StoreError> {
        self.inner.scrub(ranges).await
    }

    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        self.inner.write(batch).await
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        self.inner.reopen().await
    }
}
