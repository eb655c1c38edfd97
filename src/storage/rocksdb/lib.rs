//! The embedded store: RocksDB under the Store trait.
//!
//! What comes in are reads and batches of [`strongroom_storage::Store`]; what goes out are copies of entries, never an
//! iterator or a handle of RocksDB's. What must hold: a write has returned only if it is synced; a read that the
//! memtables or the block cache answer never leaves the calling thread, and one that needs the disk never keeps an
//! asynchronous one; a folder that is missing or damaged is said to be so and never begun anew.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod background;
mod disk;
mod engine;
mod folder;
mod options;
mod reader;
mod snapshot;
mod store;

pub use background::Background;
pub use engine::Memory;
pub use options::RocksOptions;
pub use reader::RocksReader;
pub use snapshot::RocksSnapshot;
pub use store::RocksStore;

#[cfg(test)]
mod tests;
