//! A store in memory, for the tests of what is built on a [`Store`]. It forgets all when its last handle is dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{Entry, Family, KeyRange, Mutation, Range, Snapshot, Store, StoreError};

type Entries = BTreeMap<Vec<u8>, Bytes>;

/// A handle to entries in memory. Clones share them, so a clone kept across a "crash" plays the disk.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Families>>);

#[derive(Clone, Default)]
struct Families([Entries; Family::ALL.len()]);

impl Families {
    fn of(&mut self, family: Family) -> &mut Entries {
        // A family's number is its place in `Family::ALL`, as a test holds.
        &mut self.0[family as usize]
    }

    fn scan(&mut self, family: Family, range: Range) -> Vec<Entry> {
        let entries = bounded(self.of(family), &range.from, &range.to);
        entries.take(range.limit).map(|(key, value)| (Bytes::from(key.clone()), value.clone())).collect()
    }
}

fn bounded<'e>(entries: &'e Entries, from: &[u8], to: &[u8]) -> impl Iterator<Item = (&'e Vec<u8>, &'e Bytes)> {
    let end = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
    // A range that ends before it begins would panic in a BTreeMap; here it is empty.
    let empty = !to.is_empty() && from >= to;
    let range = if empty { (Bound::Included(to), Bound::Excluded(to)) } else { (Bound::Included(from), end) };
    entries.range::<[u8], _>(range)
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Families> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    type Snapshot = MemorySnapshot;

    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().of(family).get(&key).cloned())
    }

    async fn multi_get(&self, family: Family, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut families = self.lock();
        let entries = families.of(family);
        Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        Ok(self.lock().scan(family, range))
    }

    async fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        Ok(MemorySnapshot(Self(Arc::new(Mutex::new(self.lock().clone())))))
    }

    /// Nothing is kept of what was removed or overwritten.
    async fn scrub(&self, _: Vec<KeyRange>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn purge(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> Result<(), StoreError> {
        let mut families = self.lock();
        let entries = families.of(family);
        let gone: Vec<Vec<u8>> = bounded(entries, &from, &to).map(|(key, _)| key.clone()).collect();
        for key in gone {
            entries.remove(&key);
        }
        Ok(())
    }

    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        let mut families = self.lock();
        for mutation in batch {
            match mutation {
                Mutation::Put(family, key, value) => families.of(family).insert(key, value.into()),
                Mutation::Delete(family, key) => families.of(family).remove(&key),
            };
        }
        Ok(())
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A copy of a [`MemoryStore`] at one moment.
pub struct MemorySnapshot(MemoryStore);

impl Snapshot for MemorySnapshot {
    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        self.0.get(family, key).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        self.0.scan(family, range).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite;

    #[test]
    fn a_familys_number_is_its_place() {
        assert!(Family::ALL.iter().enumerate().all(|(place, family)| *family as usize == place));
    }

    #[tokio::test]
    async fn a_store_in_memory_keeps_what_every_store_must() {
        suite::run(async || MemoryStore::default()).await;
    }
}
