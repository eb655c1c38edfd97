//! Blind indexes, under all versions of their keys.
//!
//! What is written gets an entry under the newest version of its index key. What is looked for may still stand under an
//! older one, until a reindex has moved it (`reindex.rs`): so each of them is looked at, and guarded.

use bytes::Bytes;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::TenantNo;
use strongroom_keys::{IndexKey, IndexKeys, IndexName};
use strongroom_storage::{Family, Store};

use crate::error::Error;
use crate::road::Road;

/// The keys of the index under which one thing may stand.
#[derive(Clone)]
pub(crate) struct Places {
    /// Where it is written.
    pub newest: Vec<u8>,
    /// Where it was written before its index key rotated.
    older: Vec<Vec<u8>>,
}

impl Places {
    /// What each version of an index key makes of it.
    pub fn of(keys: &IndexKeys, place: impl Fn(&IndexKey) -> Vec<u8>) -> Self {
        Self { newest: place(keys.newest()), older: keys.older().map(place).collect() }
    }

    /// The one under the newest version, then the others.
    pub fn new(newest: Vec<u8>, older: Vec<Vec<u8>>) -> Self {
        Self { newest, older }
    }

    /// Guards that nothing comes to one of them or leaves it.
    pub fn guard(&self, tenant: TenantNo, into: &mut Vec<Guard>) {
        let places = std::iter::once(&self.newest).chain(&self.older);
        into.extend(places.map(|key| Guard::Unchanged(Fact::index(tenant, key))));
    }
}

impl<S: Store> Road<'_, S> {
    /// The versions of an index key: the newest, for what is written, and the older ones, under which entries may stand.
    pub fn index_keys(&self, index: IndexName) -> Result<IndexKeys, Error> {
        Ok(self.vault.keystore.index_keys(self.tenant.id, index)?)
    }

    /// What the index has of each thing, wherever it stands.
    pub async fn look_up(&self, places: &[&Places]) -> Result<Vec<Option<Bytes>>, Error> {
        let newest = places.iter().map(|places| places.newest.clone()).collect();
        let mut found = self.vault.store.multi_get(Family::Index, newest).await?;
        let is_left =
            |found: &[Option<Bytes>], index: &usize| found[*index].is_none() && !places[*index].older.is_empty();
        let left: Vec<usize> = (0..places.len()).filter(|index| is_left(&found, index)).collect();
        if left.is_empty() {
            return Ok(found);
        }
        let older = left.iter().flat_map(|index| places[*index].older.iter().map(move |key| (*index, key.clone())));
        let (of, keys): (Vec<usize>, Vec<Vec<u8>>) = older.unzip();
        for (index, entry) in of.into_iter().zip(self.vault.store.multi_get(Family::Index, keys).await?) {
            if found[index].is_none() {
                found[index] = entry;
            }
        }
        // What has moved between the two reads is where it has moved to.
        let moved: Vec<usize> = left.into_iter().filter(|index| is_left(&found, index)).collect();
        if !moved.is_empty() {
            let newest = moved.iter().map(|index| places[*index].newest.clone()).collect();
            let entries = self.vault.store.multi_get(Family::Index, newest).await?;
            moved.into_iter().zip(entries).for_each(|(index, entry)| found[index] = entry);
        }
        Ok(found)
    }
}
