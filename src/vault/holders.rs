//! Holders: the subjects that share one value of a tenant-wide deterministic field.

use std::collections::HashMap;

use strongroom_commit::{Fact, Guard};
use strongroom_ids::SubjectHandle;
use strongroom_keys::IndexName;
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Range, Store};

use crate::error::Error;
use crate::resolve::Found;
use crate::road::{Prepared, Road};

/// Holders read at once.
const PAGE: usize = 1_000;

/// Subject ids that a request names, and the handles behind those that the vault knows.
pub(crate) struct Named<'i>(HashMap<&'i str, Vec<SubjectHandle>>);

impl Named<'_> {
    /// The handles behind an id; none for one that the vault does not know.
    pub fn handles(&self, id: &str) -> &[SubjectHandle] {
        self.0.get(id).map_or(&[], Vec::as_slice)
    }
}

impl<S: Store> Road<'_, S> {
    /// Looks up the handles behind the subject ids that a reading request names.
    pub async fn named<'i>(
        &self,
        ids: impl Iterator<Item = &'i str>,
        guards: &mut Vec<Guard>,
    ) -> Result<Named<'i>, Error> {
        let mut names: Vec<&str> = ids.filter(|id| !id.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(Named(HashMap::new()));
        }
        let index = self.vault.keystore.index_key(self.tenant.id, IndexName::SubjectId)?;
        let mut keys = Vec::with_capacity(names.len());
        for id in &names {
            let key = place::subject_id(self.tenant.number, index.version(), &index.mac(&[id.as_bytes()]));
            guards.push(Guard::Unchanged(Fact::index(self.tenant.number, &key)));
            keys.push(key);
        }
        let stored = self.vault.store.multi_get(Family::Index, keys).await?;
        let mut named = HashMap::with_capacity(names.len());
        for (id, bytes) in names.into_iter().zip(stored) {
            if let Some(bytes) = bytes {
                named.insert(id, place::decode_handles(&bytes)?);
            }
        }
        Ok(Named(named))
    }

    /// Which of a value's holders an item means: the subject that it names, if that one holds the value.
    ///
    /// `Some(NONE)` when nobody is named; `None` when the one who is named does not hold the value, which the caller
    /// must not be able to tell from a token that does not exist.
    pub async fn holder(
        &self,
        found: &Found,
        subject: &str,
        named: &Named<'_>,
        guards: &mut Vec<Guard>,
    ) -> Result<Option<SubjectHandle>, Error> {
        if subject.is_empty() {
            return Ok(Some(if found.is_shared() { SubjectHandle::NONE } else { found.row.subject }));
        }
        let handles = named.handles(subject);
        if !found.is_shared() {
            return Ok(handles.contains(&found.row.subject).then_some(found.row.subject));
        }
        for handle in handles {
            let key = place::holder(self.tenant.number, found.id, *handle);
            if self.vault.store.get(Family::Holders, key).await?.is_some() {
                guards.push(Guard::Unchanged(Fact::holders(self.tenant.number, found.id)));
                guards.push(Guard::Unchanged(Fact::subject_state(self.tenant.number, *handle)));
                return Ok(Some(*handle));
            }
        }
        Ok(None)
    }

    /// All holders of a value: its own subject, or those who share it. Guards that they stay the same.
    pub async fn holders<A>(&self, found: &Found, prepared: &mut Prepared<A>) -> Result<Vec<SubjectHandle>, Error> {
        if !found.is_shared() {
            return Ok(vec![found.row.subject]);
        }
        prepared.guards.push(Guard::Unchanged(Fact::holders(self.tenant.number, found.id)));
        let (mut from, to) = place::holders_range(self.tenant.number, found.id);
        let mut holders = Vec::new();
        loop {
            let range = Range { from: from.clone(), to: to.clone(), limit: PAGE };
            let page = self.vault.store.scan(Family::Holders, range).await?;
            for (key, _) in &page {
                holders.push(place::decode_holder(key)?);
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => {
                    from = last.to_vec();
                    from.push(0);
                }
                _ => return Ok(holders),
            }
        }
    }
}
