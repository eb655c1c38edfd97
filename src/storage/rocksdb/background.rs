//! What a store does in the background and what it takes on disk, for who measures it. It shows no entry.

use std::sync::{PoisonError, RwLock, Weak};

use strongroom_storage::{Family, StoreError};

use crate::store::{Opened, elsewhere};

/// A view of a store that keeps it neither open nor alive.
#[derive(Clone)]
pub struct Background(pub(crate) Weak<RwLock<Option<Opened>>>);

impl Background {
    /// Writes the memtables to files and waits until no flush and no compaction runs or is due: what was written until
    /// now costs nothing more.
    pub async fn drain(&self) -> Result<(), StoreError> {
        let engine = self.engine()?;
        elsewhere("drain", move || engine.drain()).await
    }

    /// Writes all that is in memory to files and compacts them.
    pub async fn compact(&self) -> Result<(), StoreError> {
        let engine = self.engine()?;
        elsewhere("compact", move || engine.flush_and_compact()).await
    }

    /// Bytes of a family's files.
    pub fn files(&self, family: Family) -> Result<u64, StoreError> {
        self.engine()?.files(family)
    }

    fn engine(&self) -> Result<std::sync::Arc<crate::engine::Engine>, StoreError> {
        let opened = self.0.upgrade().ok_or(StoreError::Closed)?;
        let opened = opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.as_ref().map(Opened::engine).ok_or(StoreError::Closed)
    }
}
