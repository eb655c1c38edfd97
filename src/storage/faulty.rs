//! A store that fails when told to, or now and then: for the tests of what must hold when disks do not.
//!
//! After a failed write nobody knows whether it is stored, so a write can fail in three ways: it is lost, it is
//! stored, or it turns up only once the store is opened again, as bytes in a write-ahead log do. Until it is opened
//! again it takes no other write.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{Entry, Family, KeyRange, Mutation, Range, Snapshot, Store, StoreError};

/// What becomes of a write that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is not stored.
    Lost,
    /// It is stored all the same.
    Stored,
    /// It is stored, and shows once the store is opened again.
    StoredAfterReopen,
}

/// What goes wrong in a [`FaultyStore`]. Clones steer the same store.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

/// What is done while a read waits for it.
type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct State {
    reads: u32,
    /// What is done before a read, and how many come before that one.
    meanwhile: Option<(u32, Meanwhile)>,
    writes: Vec<Fate>,
    /// Writes that succeed before the next one fails.
    spared: u32,
    reopens: u32,
    chance: Option<Chance>,
    /// A write has failed and the store was not opened since.
    broken: bool,
    /// What failed and shows when it is.
    late: Vec<Vec<Mutation>>,
    failed: u64,
    asked: u64,
    scrubs: u32,
    scrubbed: u64,
}

struct Chance {
    seed: u64,
    reads: u64,
    writes: u64,
}

impl Chance {
    /// The next number of SplitMix64: enough for faults, and the same from the same seed.
    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn one_in(&mut self, many: u64) -> bool {
        many != 0 && self.next().is_multiple_of(many)
    }
}

impl Faults {
    /// The next `count` reads fail.
    pub fn fail_reads(&self, count: u32) {
        self.lock().reads = count;
    }

    /// The next `count` reads are made, and before the one after them something else is done.
    pub fn before_read(&self, count: u32, meanwhile: impl Future<Output = ()> + Send + 'static) {
        self.lock().meanwhile = Some((count, Box::pin(meanwhile)));
    }

    /// The next write fails, after those that were told to fail before.
    pub fn fail_write(&self, fate: Fate) {
        self.lock().writes.push(fate);
    }

    /// The next `count` writes succeed, and the one after them fails.
    pub fn fail_writes_after(&self, count: u32, fate: Fate) {
        let mut state = self.lock();
        state.spared = count;
        state.writes.push(fate);
    }

    /// The next `count` scrubs find that files may keep what was removed.
    pub fn fail_scrubs(&self, count: u32) {
        self.lock().scrubs = count;
    }

    /// The next `count` attempts to open the store again fail.
    pub fn fail_reopens(&self, count: u32) {
        self.lock().reopens = count;
    }

    /// From now on about one in `reads` reads and one in `writes` writes fails, the same ones for the same seed.
    /// Zero: none.
    pub fn by_chance(&self, seed: u64, reads: u64, writes: u64) {
        self.lock().chance = Some(Chance { seed, reads, writes });
    }

    /// Nothing fails any more; a store that is broken must still be opened again.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.reads = 0;
        state.meanwhile = None;
        state.writes.clear();
        state.spared = 0;
        state.scrubs = 0;
        state.reopens = 0;
        state.chance = None;
    }

    /// How many reads, writes and reopenings have failed.
    pub fn failed(&self) -> u64 {
        self.lock().failed
    }

    /// How many reads were asked for: what a request costs.
    pub fn asked(&self) -> u64 {
        self.lock().asked
    }

    /// How often files were scrubbed.
    pub fn scrubbed(&self) -> u64 {
        self.lock().scrubbed
    }

    fn scrub(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.scrubs > 0 {
            state.scrubs -= 1;
            return Err(StoreError::StillInFiles { what: "a fault was injected".to_owned() });
        }
        state.scrubbed += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done before this read, if it is that one's turn.
    fn meanwhile(&self) -> Option<Meanwhile> {
        let mut state = self.lock();
        match state.meanwhile.take()? {
            (0, meanwhile) => Some(meanwhile),
            (more, meanwhile) => {
                state.meanwhile = Some((more - 1, meanwhile));
                None
            }
        }
    }

    async fn read(&self) -> Result<(), StoreError> {
        let meanwhile = self.meanwhile();
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        let mut state = self.lock();
        state.asked += 1;
        let by_chance = state.chance.as_mut().is_some_and(|chance| chance.one_in(chance.reads));
        if state.reads == 0 && !by_chance {
            return Ok(());
        }
        state.reads = state.reads.saturating_sub(1);
        state.failed += 1;
        Err(injected("read"))
    }

    /// How the next write fails, if it does.
    fn write(&self) -> Result<Option<Fate>, StoreError> {
        let mut state = self.lock();
        if state.broken {
            return Err(StoreError::Closed);
        }
        if state.spared > 0 {
            state.spared -= 1;
            return Ok(None);
        }
        let fate = if !state.writes.is_empty() {
            Some(state.writes.remove(0))
        } else {
            state.chance.as_mut().filter(|chance| chance.writes != 0).and_then(|chance| {
                chance.one_in(chance.writes).then(|| match chance.next() % 3 {
                    0 => Fate::Lost,
                    1 => Fate::Stored,
                    _ => Fate::StoredAfterReopen,
                })
            })
        };
        if fate.is_some() {
            state.broken = true;
            state.failed += 1;
        }
        Ok(fate)
    }
}

fn injected(doing: &'static str) -> StoreError {
    StoreError::Io { doing, what: "a fault was injected".to_owned() }
}

/// Any store, with faults.
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl<S: Store> FaultyStore<S> {
    /// A store that fails as `faults` says: not at all, to begin with.
    pub fn new(inner: S, faults: Faults) -> Self {
        // One that is opened anew takes writes again.
        faults.lock().broken = false;
        Self { inner, faults }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    type Snapshot = FaultySnapshot<S::Snapshot>;

    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        self.faults.read().await?;
        self.inner.get(family, key).await
    }

    async fn multi_get(&self, family: Family, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.faults.read().await?;
        self.inner.multi_get(family, keys).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        self.faults.read().await?;
        self.inner.scan(family, range).await
    }

    async fn snapshot(&self) -> Result<Self::Snapshot, StoreError> {
        self.faults.read().await?;
        Ok(FaultySnapshot { inner: self.inner.snapshot().await?, faults: self.faults.clone() })
    }

    async fn purge(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> Result<(), StoreError> {
        match self.faults.write()? {
            None => self.inner.purge(family, from, to).await,
            Some(_) => Err(injected("purge")),
        }
    }

    /// It changes nothing that could be lost, and fails only when it is told to.
    async fn scrub(&self, ranges: Vec<KeyRange>) -> Result<(), StoreError> {
        self.faults.scrub()?;
        self.inner.scrub(ranges).await
    }

    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        match self.faults.write()? {
            None => return self.inner.write(batch).await,
            Some(Fate::Lost) => {}
            Some(Fate::Stored) => self.inner.write(batch).await?,
            Some(Fate::StoredAfterReopen) => self.faults.lock().late.push(batch),
        }
        Err(injected("write"))
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        let late = {
            let mut state = self.faults.lock();
            if state.reopens > 0 {
                state.reopens -= 1;
                state.failed += 1;
                return Err(injected("open"));
            }
            std::mem::take(&mut state.late)
        };
        self.inner.reopen().await?;
        for batch in late {
            self.inner.write(batch).await?;
        }
        self.faults.lock().broken = false;
        Ok(())
    }
}

/// A snapshot whose reads fail with those of its store.
pub struct FaultySnapshot<S> {
    inner: S,
    faults: Faults,
}

impl<S: Snapshot> Snapshot for FaultySnapshot<S> {
    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        self.faults.read().await?;
        self.inner.get(family, key).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        self.faults.read().await?;
        self.inner.scan(family, range).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;
    use crate::suite;

    fn put(key: u8) -> Vec<Mutation> {
        vec![Mutation::Put(Family::Meta, vec![key], vec![key])]
    }

    async fn has(store: &impl Store, key: u8) -> bool {
        store.get(Family::Meta, vec![key]).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn without_faults_it_keeps_what_every_store_must() {
        suite::run(async || FaultyStore::new(MemoryStore::default(), Faults::default())).await;
    }

    #[tokio::test]
    async fn a_failed_write_is_lost_or_stored_or_shows_after_reopening() {
        for (fate, at_once, later) in
            [(Fate::Lost, false, false), (Fate::Stored, true, true), (Fate::StoredAfterReopen, false, true)]
        {
            let faults = Faults::default();
            let store = FaultyStore::new(MemoryStore::default(), faults.clone());
            faults.fail_write(fate);
            assert!(store.write(put(1)).await.is_err());
            assert_eq!(has(&store, 1).await, at_once, "{fate:?}");
            assert!(matches!(store.write(put(2)).await, Err(StoreError::Closed)));
            store.reopen().await.unwrap();
            assert_eq!(has(&store, 1).await, later, "{fate:?}");
            store.write(put(2)).await.unwrap();
            assert!(has(&store, 2).await);
        }
    }

    #[tokio::test]
    async fn as_many_reads_and_reopenings_fail_as_were_asked_for() {
        let faults = Faults::default();
        let store = FaultyStore::new(MemoryStore::default(), faults.clone());
        faults.fail_reads(2);
        faults.fail_reopens(1);
        assert!(store.get(Family::Meta, vec![1]).await.is_err());
        assert!(store.multi_get(Family::Meta, vec![vec![1]]).await.is_err());
        assert!(!has(&store, 1).await);
        assert!(store.reopen().await.is_err());
        assert!(store.reopen().await.is_ok());
        assert_eq!(faults.failed(), 3);
    }

    #[tokio::test]
    async fn the_same_seed_brings_the_same_faults() {
        let run = async |seed| {
            let faults = Faults::default();
            let store = FaultyStore::new(MemoryStore::default(), faults.clone());
            faults.by_chance(seed, 4, 4);
            let mut outcomes = Vec::new();
            for key in 0..200 {
                let written = store.write(put(key)).await.is_ok();
                if !written {
                    store.reopen().await.unwrap();
                }
                outcomes.push((written, store.get(Family::Meta, vec![key]).await.is_ok()));
            }
            assert!(faults.failed() > 20);
            outcomes
        };
        assert_eq!(run(7).await, run(7).await);
        assert_ne!(run(7).await, run(8).await);
    }
}
