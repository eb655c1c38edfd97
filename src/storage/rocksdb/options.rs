//! How RocksDB is set up, and why.

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamilyDescriptor, CompactOptions, DB, DBCompactionStyle,
    DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions, ReadTier, WriteOptions,
};
use strongroom_storage::{Family, StoreError};

/// What an operator may set. The defaults suit a machine with 2 GiB to spare.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Bytes of the cache of blocks, which also holds filters and indexes of files.
    pub block_cache: usize,
    /// Bytes of all memtables together.
    pub write_buffers: usize,
    /// Bytes of the write-ahead log beyond which memtables are flushed; a start after a crash reads that much.
    pub write_ahead_log: u64,
    /// Files that are kept open.
    pub open_files: i32,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache: 256 << 20,
            write_buffers: 128 << 20,
            write_ahead_log: 256 << 20,
            open_files: 1024,
            background_jobs: 2,
        }
    }
}

impl RocksOptions {
    /// The options of the whole database. Only `fresh` ones may make one.
    pub(crate) fn database(&self, fresh: bool) -> Options {
        let mut options = Options::default();
        options.create_if_missing(fresh);
        options.create_missing_column_families(fresh);
        options.set_error_if_exists(fresh);
        options.set_paranoid_checks(true);
        // A crash tears the log's tail, which was not acknowledged then; a log that is damaged before it is refused.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        // A log that was closed and has gone missing since, or has shrunk, is noticed at the start.
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_total_wal_size(self.write_ahead_log);
        options.set_db_write_buffer_size(self.write_buffers);
        options.set_max_open_files(self.open_files);
        options.set_max_background_jobs(self.background_jobs);
        options.set_skip_stats_update_on_db_open(true);
        // Written pages go out as a stream, so that no sync of the log has to wait for a whole file.
        options.set_bytes_per_sync(1 << 20);
        // Pages of files stay out of the address space, which may be locked in memory.
        options.set_allow_mmap_reads(false);
        options.set_allow_mmap_writes(false);
        // Below `Warn` the log tells the first and last keys of files and ranges.
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(4 << 20);
        options.set_keep_log_file_num(4);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options
    }

    /// The options of a database that is read while another process may write to it.
    pub(crate) fn for_reading(&self) -> Options {
        let mut options = self.database(false);
        // All files are opened with the database and kept: later they may have no name any more.
        options.set_max_open_files(-1);
        options
    }

    /// Every column family, with the one that RocksDB insists on and nothing uses.
    pub(crate) fn families(&self, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
        let families = Family::ALL.iter().map(|family| {
            let shape = Shape::of(*family);
            ColumnFamilyDescriptor::new(family.name(), self.family(&shape, cache))
        });
        let unused = Shape { looked_up: false, shrinks: Shrinks::Not, block: 4 << 10 };
        let unused = ColumnFamilyDescriptor::new("default", self.family(&unused, cache));
        families.chain([unused]).collect()
    }

    fn family(&self, shape: &Shape, cache: &Cache) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_block_size(shape.block);
        // Filters and indexes count against the cache, so that memory is bounded whatever is stored.
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        if shape.looked_up {
            table.set_bloom_filter(10.0, false);
            // What is not there, as a new subject is not, is found missing without a walk through the memtable.
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.02);
        }
        options.set_block_based_table_factory(&table);
        options.set_compaction_style(DBCompactionStyle::Level);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_write_buffer_size((self.write_buffers / 2).max(1 << 20));
        match shape.shrinks {
            Shrinks::Not => options.set_compression_type(DBCompressionType::None),
            Shrinks::AtLast => {
                options.set_compression_type(DBCompressionType::Lz4);
                options.set_bottommost_compression_type(DBCompressionType::Zstd);
            }
            Shrinks::AtOnce => options.set_compression_type(DBCompressionType::Zstd),
        }
        options
    }
}

/// What a memtable held stays in memory when it is written to a file: otherwise all readers of what was stored lately
/// would go to the disk at once. Only a database that is open takes this option.
pub(crate) fn keep_what_is_flushed(db: &DB) -> Result<(), StoreError> {
    let looked_up = Family::ALL.iter().filter(|family| Shape::of(**family).looked_up);
    for family in looked_up.filter_map(|family| db.cf_handle(family.name())) {
        let keep = ("block_based_table_factory", "{prepopulate_block_cache=kFlushOnly;}");
        db.set_options_cf(family, &[keep])
            .map_err(|error| StoreError::Io { doing: "set up its cache", what: error.into_string() })?;
    }
    Ok(())
}

/// What a family's entries are like.
struct Shape {
    /// Single keys are looked for, so a filter pays.
    looked_up: bool,
    shrinks: Shrinks,
    block: usize,
}

/// Whether a family's entries are compressed, and when.
#[derive(Clone, Copy)]
enum Shrinks {
    /// Ciphertext, salts and MACs do not shrink.
    Not,
    /// Quickly at first, well when they come to rest.
    AtLast,
    /// Well at once: what is written in the order of its keys is moved from level to level as it is, unless that
    /// changed how it is compressed.
    AtOnce,
}

impl Shape {
    fn of(family: Family) -> Self {
        let (looked_up, shrinks, block) = match family {
            Family::Rows | Family::RowDeks | Family::Subjects => (true, Shrinks::Not, 4 << 10),
            Family::Meta | Family::Index | Family::Idempotency => (true, Shrinks::AtLast, 4 << 10),
            Family::SubjectRows | Family::Holders => (false, Shrinks::AtLast, 8 << 10),
            Family::Leaves => (false, Shrinks::AtOnce, 16 << 10),
            // A tile has 8 KiB of hashes.
            Family::Tiles => (false, Shrinks::Not, 16 << 10),
            // Keys that begin alike, and bitmaps; read in ranges.
            Family::LeafIndex => (false, Shrinks::AtLast, 16 << 10),
            // Pages of text, read one after the other.
            Family::Archived => (false, Shrinks::AtOnce, 16 << 10),
        };
        Self { looked_up, shrinks, block }
    }
}

/// A read that must not wait for the disk: it is answered from memory or is incomplete.
pub(crate) fn from_memory() -> ReadOptions {
    let mut options = from_disk();
    options.set_read_tier(ReadTier::BlockCache);
    options
}

/// A read that may wait for the disk.
pub(crate) fn from_disk() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// A write that returns when it is on stable storage.
pub(crate) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// A compaction that rewrites every file of its range, so that none keeps what was deleted.
pub(crate) fn thorough() -> CompactOptions {
    let mut options = CompactOptions::default();
    options.set_exclusive_manual_compaction(false);
    options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
    options
}
