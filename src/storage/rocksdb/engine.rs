//! One opened database: its reads and writes, on the calling thread.

mod scrub;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rocksdb::properties::{
    BACKGROUND_ERRORS, COMPACTION_PENDING, CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_TABLE_READERS_MEM, LIVE_SST_FILES_SIZE,
    MEM_TABLE_FLUSH_PENDING, NUM_RUNNING_COMPACTIONS, NUM_RUNNING_FLUSHES,
};
use rocksdb::{
    Cache, ColumnFamily, DB, DBRawIterator, ErrorKind, FlushOptions, ReadOptions, WaitForCompactOptions, WriteBatch,
};
use strongroom_storage::{Entry, Family, Mutation, Range, StoreError};
use tokio::sync::oneshot;

use crate::folder;
use crate::options::{self, RocksOptions};

/// How often a database is opened for reading while another process replaces its files.
const TRIES: usize = 10;

/// How long a purge waits for needless files to be deleted, and a drain at once.
const SETTLE: Duration = Duration::from_secs(10);

/// Why a read brought nothing.
pub(crate) enum Fault {
    /// It would have had to wait for the disk and was told not to.
    NotInMemory,
    /// It failed.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(error) => error,
            Fault::NotInMemory => {
                Self::Io { doing: "read", what: "it looked in memory only, where the disk was meant".to_owned() }
            }
        }
    }
}

/// How far a read may reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Memtables and the block cache.
    Memory,
    /// The files as well.
    Disk,
}

/// Bytes of memory that a database uses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Memory {
    /// Blocks, filters and indexes of files.
    pub block_cache: u64,
    /// What is not in files yet.
    pub memtables: u64,
    /// What open files need outside the cache.
    pub open_files: u64,
}

/// An opened database. Fields are dropped in their order: `_gone` last, so that whoever waits for it knows that the
/// files are free.
pub(crate) struct Engine {
    db: DB,
    cache: Cache,
    memory: ReadOptions,
    disk: ReadOptions,
    _gone: oneshot::Sender<()>,
}

impl Engine {
    /// Opens the database, and makes it if it shall be `fresh`. The receiver ends when the engine is gone.
    pub fn open(dir: &Path, options: &RocksOptions, fresh: bool) -> Result<(Self, oneshot::Receiver<()>), StoreError> {
        let mut database = options.database(fresh);
        if !fresh {
            let missing = folder::check(dir, &database)?;
            database.create_missing_column_families(!missing.is_empty());
        }
        // A cache of its own: what an engine answers comes from the files that it opened.
        let cache = Cache::new_lru_cache(options.block_cache);
        let db = DB::open_cf_descriptors(&database, dir, options.families(&cache)).map_err(folder::open_failed)?;
        options::keep_what_is_flushed(&db)?;
        let (gone, is_gone) = oneshot::channel();
        let engine = Self { db, cache, memory: options::from_memory(), disk: options::from_disk(), _gone: gone };
        Ok((engine, is_gone))
    }

    /// Opens the database for reading only, as it is at one moment, also while another process writes to it. Answers as well
    /// which families it lacks. Nothing is written into its folder, and nothing there is locked.
    ///
    /// What the moment is, is told by two kinds of files, and neither may go while they are read. A table file is held open
    /// from here on, so that whoever deletes its name takes nothing away. Of the log RocksDB notices in part only that a file
    /// is gone, and would leave out what stood in it: so those that were there before must still be there after. They go
    /// the oldest first, so what has come meanwhile is there as well.
    pub fn open_for_reading(dir: &Path, options: &RocksOptions) -> Result<(Self, Vec<Family>), StoreError> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let before = folder::names(dir);
            let opened = Self::read_once(dir, options);
            let Ok(before) = before else { return opened };
            let after = folder::names(dir)?;
            let settled = match opened {
                Ok(_) => before.iter().all(|name| !folder::is_log(name) || after.contains(name)),
                // If nothing came or went, the next try finds the same.
                Err(_) => before == after,
            };
            match opened {
                opened if settled => return opened,
                Err(error) if tries == 0 => return Err(error),
                Ok(_) if tries == 0 => {
                    let what = "the vault that runs over it replaces its files faster than they can be read";
                    return Err(StoreError::Io { doing: "open", what: what.to_owned() });
                }
                _ => {}
            }
        }
    }

    fn read_once(dir: &Path, options: &RocksOptions) -> Result<(Self, Vec<Family>), StoreError> {
        let database = options.for_reading();
        let missing = folder::check(dir, &database)?;
        let cache = Cache::new_lru_cache(options.block_cache);
        let families = options.families(&cache).into_iter();
        let families = families.filter(|family| !missing.iter().any(|missing| missing.name() == family.name()));
        let db = DB::open_cf_descriptors_read_only(&database, dir, families, false).map_err(folder::open_failed)?;
        let (gone, _) = oneshot::channel();
        let engine = Self { db, cache, memory: options::from_memory(), disk: options::from_disk(), _gone: gone };
        Ok((engine, missing))
    }

    fn reading(&self, reach: Reach) -> &ReadOptions {
        match reach {
            Reach::Memory => &self.memory,
            Reach::Disk => &self.disk,
        }
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(family.name()).ok_or_else(|| StoreError::Corrupt {
            place: family.name(),
            what: "its column family is missing".to_owned(),
        })
    }

    /// The value of a key.
    pub fn get(&self, reach: Reach, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let value = self.db.get_pinned_cf_opt(self.family(family)?, key, self.reading(reach));
        copied(value, family)
    }

    /// The values of many keys, from the files too.
    ///
    /// There is none that reaches memory only: RocksDB's MultiGet reads blocks from disk whatever it is told, and where
    /// a key is not in the first block that it looks at and the next one is not in memory, it answers an empty value
    /// instead of an incomplete read (11.8.1, `BlockBasedTable::MultiGet`). Get does neither.
    pub fn multi_get(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let values = self.db.batched_multi_get_cf_opt(self.family(family)?, keys, false, &self.disk);
        values.into_iter().map(|value| Ok(copied(value, family)?)).collect()
    }

    /// A page of entries.
    pub fn scan(&self, reach: Reach, family: Family, range: &Range) -> Result<Vec<Entry>, Fault> {
        let reading = match reach {
            Reach::Memory => options::from_memory(),
            Reach::Disk => options::from_disk(),
        };
        page(self.db.raw_iterator_cf_opt(self.family(family)?, bounded(reading, range)), family, range)
    }

    /// What the database holds now, for as long as the guest is in.
    pub fn at_one_moment(&self, guest: impl FnOnce(Moment<'_>)) {
        guest(Moment { engine: self, snapshot: self.db.snapshot() });
    }

    /// Applies a batch, and syncs.
    pub fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            families.push(self.family(family)?);
        }
        let size = batch.iter().map(|mutation| match mutation {
            Mutation::Put(_, key, value) => 12 + key.len() + value.len(),
            Mutation::Delete(_, key) => 8 + key.len(),
        });
        let mut all = WriteBatch::with_capacity_bytes(12 + size.sum::<usize>());
        for mutation in &batch {
            // A family's number is its place in `Family::ALL`.
            match mutation {
                Mutation::Put(family, key, value) => all.put_cf(families[*family as usize], key, value),
                Mutation::Delete(family, key) => all.delete_cf(families[*family as usize], key),
            }
        }
        self.db.write_opt(all, &options::synced()).map_err(|error| failed("write", error))
    }

    /// Deletes a range and rewrites what held it: the files that overlap it, and the log.
    pub fn purge(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let column = self.family(family)?;
        let errors = self.background_errors();
        let mut batch = WriteBatch::default();
        if to.is_empty() {
            // A deletion needs an end: the last key, and then that key.
            let mut last = self.db.raw_iterator_cf_opt(column, options::from_disk());
            last.seek_to_last();
            last.status().map_err(|error| failed("purge", error))?;
            if let Some(last) = last.key().filter(|last| *last >= from) {
                batch.delete_range_cf(column, from, last);
                batch.delete_cf(column, last);
            }
        } else if from < to {
            batch.delete_range_cf(column, from, to);
        }
        if !batch.is_empty() {
            self.db.write_opt(batch, &options::synced()).map_err(|error| failed("purge", error))?;
        }
        // All families: a log file goes only when every memtable that it protects is flushed.
        self.flush("purge")?;
        let end = (!to.is_empty()).then_some(to);
        self.db.compact_range_cf_opt(column, Some(from), end, &options::thorough());
        self.no_new_errors("purge", errors)?;
        self.settle("purge")
    }

    /// Waits until no background job is at work, since a job deletes the files that it made needless as its last step.
    /// Under a steady load that may never be so; then they are deleted a little later.
    fn settle(&self, doing: &'static str) -> Result<(), StoreError> {
        let mut options = WaitForCompactOptions::default();
        options.set_timeout(SETTLE.as_micros() as u64);
        match self.db.wait_for_compact(&options) {
            Err(error) if error.kind() != ErrorKind::TimedOut => Err(failed(doing, error)),
            _ => Ok(()),
        }
    }

    /// Writes all memtables to files and compacts all of them.
    pub fn flush_and_compact(&self) -> Result<(), StoreError> {
        let errors = self.background_errors();
        self.flush("compact")?;
        for family in Family::ALL {
            let whole: Option<&[u8]> = None;
            self.db.compact_range_cf_opt(self.family(family)?, whole, whole, &options::thorough());
        }
        self.no_new_errors("compact", errors)
    }

    /// Writes all memtables to files, and waits until no background job runs or is due.
    pub fn drain(&self) -> Result<(), StoreError> {
        self.flush("drain")?;
        loop {
            self.settle("drain")?;
            if self.is_idle()? {
                return Ok(());
            }
        }
    }

    /// Whether no flush and no compaction runs or is due, in any family.
    fn is_idle(&self) -> Result<bool, StoreError> {
        for family in Family::ALL {
            let column = self.family(family)?;
            for due in [MEM_TABLE_FLUSH_PENDING, NUM_RUNNING_FLUSHES, COMPACTION_PENDING, NUM_RUNNING_COMPACTIONS] {
                let count = self.db.property_int_value_cf(column, due).map_err(|error| failed("drain", error))?;
                if count.unwrap_or(0) > 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Bytes of a family's files.
    pub fn files(&self, family: Family) -> Result<u64, StoreError> {
        let size = self.db.property_int_value_cf(self.family(family)?, LIVE_SST_FILES_SIZE);
        Ok(size.map_err(|error| failed("measure its files", error))?.unwrap_or(0))
    }

    fn flush(&self, doing: &'static str) -> Result<(), StoreError> {
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            families.push(self.family(family)?);
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options).map_err(|error| failed(doing, error))
    }

    /// How often a flush or a compaction has failed: a manual compaction says so nowhere else.
    fn background_errors(&self) -> u64 {
        self.db.property_int_value(BACKGROUND_ERRORS).ok().flatten().unwrap_or(0)
    }

    fn no_new_errors(&self, doing: &'static str, before: u64) -> Result<(), StoreError> {
        if self.background_errors() == before {
            return Ok(());
        }
        Err(StoreError::Io { doing, what: "a compaction failed; the file LOG in the data folder says why".to_owned() })
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> Memory {
        let of_all = |property| {
            let families = Family::ALL.iter().filter_map(|family| self.db.cf_handle(family.name()));
            families.filter_map(|family| self.db.property_int_value_cf(family, property).ok().flatten()).sum()
        };
        Memory {
            block_cache: self.cache.get_usage() as u64,
            memtables: of_all(CUR_SIZE_ALL_MEM_TABLES),
            open_files: of_all(ESTIMATE_TABLE_READERS_MEM),
        }
    }
}

/// A database at one moment.
pub(crate) struct Moment<'e> {
    engine: &'e Engine,
    snapshot: rocksdb::Snapshot<'e>,
}

impl Moment<'_> {
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let column = self.engine.family(family)?;
        Ok(copied(self.snapshot.get_pinned_cf_opt(column, key, options::from_disk()), family)?)
    }

    pub fn scan(&self, family: Family, range: &Range) -> Result<Vec<Entry>, StoreError> {
        let mut reading = bounded(options::from_disk(), range);
        // An export reads everything once: it must not drive out what requests need.
        reading.fill_cache(false);
        let column = self.engine.family(family)?;
        Ok(page(self.snapshot.raw_iterator_cf_opt(column, reading), family, range)?)
    }
}

fn bounded(mut reading: ReadOptions, range: &Range) -> ReadOptions {
    if !range.to.is_empty() {
        reading.set_iterate_upper_bound(range.to.as_slice());
    }
    reading
}

fn page(mut entries: DBRawIterator<'_>, family: Family, range: &Range) -> Result<Vec<Entry>, Fault> {
    let mut page = Vec::new();
    if range.limit == 0 {
        return Ok(page);
    }
    entries.seek(&range.from);
    while let Some((key, value)) = entries.item() {
        page.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if page.len() == range.limit {
            return Ok(page);
        }
        entries.next();
    }
    entries.status().map(|()| page).map_err(|error| missed(family, error))
}

fn copied<V: AsRef<[u8]>>(value: Result<Option<V>, rocksdb::Error>, family: Family) -> Result<Option<Bytes>, Fault> {
    match value {
        Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(value.as_ref()))),
        Err(error) => Err(missed(family, error)),
    }
}

fn missed(family: Family, error: rocksdb::Error) -> Fault {
    match error.kind() {
        ErrorKind::Incomplete => Fault::NotInMemory,
        ErrorKind::Corruption => Fault::Store(StoreError::Corrupt { place: family.name(), what: error.into_string() }),
        _ => Fault::Store(failed("read", error)),
    }
}

fn failed(doing: &'static str, error: rocksdb::Error) -> StoreError {
    StoreError::Io { doing, what: error.into_string() }
}

#[cfg(test)]
mod tests {
    use rocksdb::statistics::Ticker;

    use super::*;

    #[test]
    fn what_was_flushed_is_still_answered_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let options = RocksOptions { block_cache: 8 << 20, write_buffers: 4 << 20, ..RocksOptions::default() };
        let (engine, _is_gone) = Engine::open(dir.path(), &options, true).unwrap();
        engine.write(vec![Mutation::Put(Family::Rows, b"key".to_vec(), b"row".to_vec())]).unwrap();
        engine.drain().unwrap();
        assert!(engine.files(Family::Rows).unwrap() > 0);
        let row = engine.get(Reach::Memory, Family::Rows, b"key");
        assert!(matches!(row, Ok(Some(row)) if *row == *b"row"));
    }

    #[test]
    fn every_write_syncs_the_log_before_it_returns() {
        let dir = tempfile::tempdir().unwrap();
        let options = RocksOptions { block_cache: 1 << 20, write_buffers: 4 << 20, ..RocksOptions::default() };
        // Opened as `Engine::open` does, but RocksDB counts what it does.
        let mut database = options.database(true);
        database.enable_statistics();
        let cache = Cache::new_lru_cache(options.block_cache);
        let db = DB::open_cf_descriptors(&database, dir.path(), options.families(&cache)).unwrap();
        let (gone, _is_gone) = oneshot::channel();
        let engine = Engine { db, cache, memory: options::from_memory(), disk: options::from_disk(), _gone: gone };
        let syncs = || database.get_ticker_count(Ticker::WalFileSynced);
        let put = |key: &[u8]| vec![Mutation::Put(Family::Rows, key.to_vec(), b"1".to_vec())];
        for key in [b"a", b"b", b"c"] {
            let before = syncs();
            engine.write(put(key)).unwrap();
            assert_eq!(syncs(), before + 1, "the log was not synced");
        }
        // The count tells a write that is not synced.
        let before = syncs();
        engine.db.put_cf(engine.family(Family::Rows).unwrap(), b"d", b"1").unwrap();
        assert_eq!(syncs(), before);
    }

    #[test]
    fn what_is_on_disk_only_is_not_in_memory_until_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let options = RocksOptions { block_cache: 1 << 20, write_buffers: 4 << 20, ..RocksOptions::default() };
        let all = Range { from: vec![], to: vec![], limit: 10 };
        let (engine, _) = Engine::open(dir.path(), &options, true).unwrap();
        engine.write(vec![Mutation::Put(Family::Rows, b"a".to_vec(), b"1".to_vec())]).unwrap();
        assert!(engine.get(Reach::Memory, Family::Rows, b"a").ok().flatten().is_some());
        engine.flush_and_compact().unwrap();
        drop(engine);
        let (engine, _) = Engine::open(dir.path(), &options, false).unwrap();
        assert!(matches!(engine.get(Reach::Memory, Family::Rows, b"a"), Err(Fault::NotInMemory)));
        assert!(matches!(engine.scan(Reach::Memory, Family::Rows, &all), Err(Fault::NotInMemory)));
        assert!(engine.get(Reach::Disk, Family::Rows, b"a").ok().flatten().is_some());
        assert!(engine.get(Reach::Memory, Family::Rows, b"a").ok().flatten().is_some());
        assert_eq!(engine.scan(Reach::Memory, Family::Rows, &all).ok().map(|page| page.len()), Some(1));
    }

    #[test]
    fn whoever_waits_for_an_engine_hears_when_its_files_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, mut gone) = Engine::open(dir.path(), &RocksOptions::default(), true).unwrap();
        assert_eq!(gone.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(engine);
        assert_eq!(gone.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(Engine::open(dir.path(), &RocksOptions::default(), false).is_ok());
    }
}
