//! The store: which reads run in place and which on another thread, and how it is opened again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use strongroom_storage::{Entry, Family, KeyRange, Mutation, Range, Store, StoreError};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot};
use tokio::task;

use crate::background::Background;
use crate::disk::{self, Disk};
use crate::engine::{Engine, Fault, Memory, Reach};
use crate::folder;
use crate::options::RocksOptions;
use crate::snapshot::{self, Question, RocksSnapshot};

/// Keys, or entries of a scan, up to which a read is tried in place. From memory each takes one to three
/// microseconds; a thread of asynchronous work is not kept for longer than about a millisecond.
const IN_PLACE: usize = 256;

/// Reads on other threads at once.
const READERS: usize = 16;

/// RocksDB in one folder. All calls but `write` need a Tokio runtime.
pub struct RocksStore {
    dir: PathBuf,
    options: RocksOptions,
    disk: Arc<Disk>,
    /// Turns of reads on other threads.
    readers: Arc<Semaphore>,
    /// None while it is closed.
    opened: Arc<RwLock<Option<Opened>>>,
    /// The last engine, until all that still read from it are done. Held through a reopening, so that there is one.
    closing: AsyncMutex<Option<oneshot::Receiver<()>>>,
    /// The snapshots that may still live.
    snapshots: Mutex<Vec<mpsc::WeakSender<Question>>>,
}

pub(crate) struct Opened {
    engine: Arc<Engine>,
    /// Ends when the engine is gone.
    gone: oneshot::Receiver<()>,
}

impl Opened {
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }
}

impl RocksStore {
    /// Makes a store in a folder that is empty or does not exist.
    pub fn create(dir: &Path, options: RocksOptions) -> Result<Self, StoreError> {
        folder::make(dir)?;
        Self::opened(dir, options, true)
    }

    /// Opens a store that exists. It never makes one: a folder that is not there is an error.
    pub fn open(dir: &Path, options: RocksOptions) -> Result<Self, StoreError> {
        Self::opened(dir, options, false)
    }

    fn opened(dir: &Path, options: RocksOptions, fresh: bool) -> Result<Self, StoreError> {
        let (engine, gone) = Engine::open(dir, &options, fresh)?;
        Ok(Self {
            dir: dir.to_owned(),
            options,
            disk: Arc::default(),
            readers: Arc::new(Semaphore::new(READERS)),
            opened: Arc::new(RwLock::new(Some(Opened { engine: Arc::new(engine), gone }))),
            closing: AsyncMutex::new(None),
            snapshots: Mutex::new(vec![]),
        })
    }

    /// Bytes that the store takes on disk: its files, its log and what is about to be deleted.
    pub fn disk_usage(&self) -> u64 {
        folder::size(&self.dir)
    }

    /// Bytes of memory that the store uses.
    pub fn memory(&self) -> Memory {
        self.engine().map_or_else(|_| Memory::default(), |engine| engine.memory())
    }

    /// Writes all that is in memory to files and compacts them.
    pub async fn flush_and_compact(&self) -> Result<(), StoreError> {
        let engine = self.engine()?;
        elsewhere("compact", move || engine.flush_and_compact()).await
    }

    /// A view of what it does in the background.
    pub fn background(&self) -> Background {
        Background(Arc::downgrade(&self.opened))
    }

    /// Reads keys that memory does not hold where that keeps nobody waiting.
    async fn elsewhere<T: Send + 'static>(
        &self,
        keys: usize,
        read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(&self.disk);
        self.reader(move || disk.watch(keys, read)).await
    }

    /// Reads on another thread when it is this one's turn. Who waits and goes away leaves nothing behind: what a runtime
    /// has queued it does, whether or not anybody still wants it.
    async fn reader<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        elsewhere("read", move || {
            let _turn = turn;
            read()
        })
        .await
    }

    fn engine(&self) -> Result<Arc<Engine>, StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.as_ref().map(Opened::engine).ok_or(StoreError::Closed)
    }
}

impl Store for RocksStore {
    type Snapshot = RocksSnapshot;

    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        let engine = self.engine()?;
        if self.disk.is_quick(1) {
            return Ok(self.disk.watch_any(1, || engine.get(Reach::Disk, family, &key))?);
        }
        match engine.get(Reach::Memory, family, &key) {
            Err(Fault::NotInMemory) => self.elsewhere(1, move || Ok(engine.get(Reach::Disk, family, &key)?)).await,
            answer => Ok(answer?),
        }
    }

    async fn multi_get(&self, family: Family, mut keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, StoreError> {
        let engine = self.engine()?;
        if keys.len() > IN_PLACE {
            return self.reader(move || engine.multi_get(family, &keys)).await;
        }
        if self.disk.is_quick(keys.len()) {
            let mut values = Vec::with_capacity(keys.len());
            let began = Instant::now();
            // It may have become slow just now.
            while values.len() < keys.len() && began.elapsed() < disk::TOGETHER {
                let key = &keys[values.len()];
                values.push(self.disk.watch_any(1, || engine.get(Reach::Disk, family, key))?);
            }
            let rest = keys.split_off(values.len());
            if !rest.is_empty() {
                values.extend(self.elsewhere(rest.len(), move || engine.multi_get(family, &rest)).await?);
            }
            return Ok(values);
        }
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            values.push(match engine.get(Reach::Memory, family, key) {
                Err(Fault::NotInMemory) => {
                    missing.push(place);
                    None
                }
                value => value?,
            });
        }
        if missing.is_empty() {
            return Ok(values);
        }
        let wanted: Vec<Vec<u8>> = missing.iter().map(|place| std::mem::take(&mut keys[*place])).collect();
        let found = self.elsewhere(wanted.len(), move || engine.multi_get(family, &wanted)).await?;
        for (place, value) in missing.into_iter().zip(found) {
            values[place] = value;
        }
        Ok(values)
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        let engine = self.engine()?;
        if range.limit <= IN_PLACE {
            match engine.scan(Reach::Memory, family, &range) {
                Err(Fault::NotInMemory) => {}
                page => return Ok(page?),
            }
        }
        self.reader(move || Ok(engine.scan(Reach::Disk, family, &range)?)).await
    }

    async fn snapshot(&self) -> Result<RocksSnapshot, StoreError> {
        let (snapshot, heard) = RocksSnapshot::new();
        {
            // Before it gets hold of the engine: a reopening in between either ends it or leaves it none.
            let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            snapshots.retain(|ending| ending.strong_count() > 0);
            snapshots.push(snapshot.ending());
        }
        snapshot::start(self.engine()?, heard).await?;
        Ok(snapshot)
    }

    /// What an open snapshot still sees stays in the files until the range is compacted again after the snapshot.
    async fn purge(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> Result<(), StoreError> {
        let engine = self.engine()?;
        elsewhere("purge", move || engine.purge(family, &from, &to)).await
    }

    async fn scrub(&self, ranges: Vec<KeyRange>) -> Result<(), StoreError> {
        let engine = self.engine()?;
        elsewhere("scrub", move || engine.scrub(ranges)).await
    }

    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        self.engine()?.write(batch)
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        let mut closing = self.closing.lock().await;
        if let Some(opened) = self.opened.write().unwrap_or_else(PoisonError::into_inner).take() {
            *closing = Some(opened.gone);
        }
        let snapshots = std::mem::take(&mut *self.snapshots.lock().unwrap_or_else(PoisonError::into_inner));
        for snapshot in snapshots.iter().filter_map(mpsc::WeakSender::upgrade) {
            // One that has ended by itself needs no telling.
            let _ = snapshot.send(Question::Close).await;
        }
        if let Some(gone) = closing.as_mut() {
            // The sender is never used, only dropped.
            let _ = gone.await;
            *closing = None;
        }
        let (dir, options) = (self.dir.clone(), self.options.clone());
        let (engine, gone) = elsewhere("open", move || Engine::open(&dir, &options, false)).await?;
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(Opened { engine: Arc::new(engine), gone });
        Ok(())
    }
}

/// Runs what may wait for the disk on a thread that may.
pub(crate) async fn elsewhere<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = |_| StoreError::Io { doing, what: "the thread that did it ended early".to_owned() };
    task::spawn_blocking(work).await.map_err(ended)?
}
