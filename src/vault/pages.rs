//! A range of the store, a page at a time.

use strongroom_ids::TenantNo;
use strongroom_storage::keys as place;
use strongroom_storage::{Entry, Family, Range, Store, StoreError};

/// Entries read at once. A value has at most 64 KiB, so a page has at most some 20 MiB.
pub(crate) const PAGE: usize = 256;

/// A range of a family, a page at a time.
pub(crate) struct Pages {
    family: Family,
    from: Vec<u8>,
    to: Vec<u8>,
    limit: usize,
    ended: bool,
}

impl Pages {
    /// All entries between two keys, the second exclusive; empty for the end of the family.
    pub fn new(family: Family, from: Vec<u8>, to: Vec<u8>) -> Self {
        Self { family, from, to, limit: PAGE, ended: false }
    }

    /// All that a tenant has in a family.
    pub fn of_tenant(family: Family, tenant: TenantNo) -> Self {
        let from = tenant.0.to_be_bytes().to_vec();
        let to = place::prefix_end(&from);
        Self::new(family, from, to)
    }

    /// The same in pages of so many entries.
    pub fn of(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The same from where others had come; from the beginning if that is empty.
    pub fn going_on(self, cursor: &[u8]) -> Self {
        if cursor.is_empty() { self } else { Self { from: cursor.to_vec(), ..self } }
    }

    /// Where the next page begins.
    pub fn cursor(self) -> Vec<u8> {
        self.from
    }

    /// The next entries; none at the end.
    pub async fn next<S: Store>(&mut self, store: &S) -> Result<Option<Vec<Entry>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let range = Range { from: self.from.clone(), to: self.to.clone(), limit: self.limit };
        let page = store.scan(self.family, range).await?;
        self.ended = page.len() < self.limit;
        if let Some((last, _)) = page.last() {
            self.from = last.to_vec();
            self.from.push(0);
        }
        Ok((!page.is_empty()).then_some(page))
    }
}
