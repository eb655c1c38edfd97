//! The embedded store: RocksDB under the Store trait.
