//! Holders: the subjects that share one value of a tenant-wide deterministic field.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use strongroom_access::Consent;
use strongroom_commit::{CommitError, Fact, Guard, Position};
use strongroom_ids::{FieldNo, RowId, SubjectHandle};
use strongroom_keys::{IndexKey, IndexName};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{SubjectRecord, SubjectState};
use strongroom_storage::{Family, Range, Store};

use crate::error::Error;
use crate::index::Places;
use crate::resolve::{Found, Resolved};
use crate::road::{Item, Prepared, Road};
use crate::standing::Relation;

/// Holders of one value that are read, or released in one commit, at most.
const PAGE: usize = 1_000;
/// Holders that are looked at to see whether a value is anybody's: mostly the first few tell.
const FIRST: [usize; 2] = [4, 100];

/// Subject ids that a request names, the handles behind those that the vault knows, and which of them hold its shared
/// values.
#[derive(Default)]
pub(crate) struct Named<'i> {
    handles: HashMap<&'i str, Vec<SubjectHandle>>,
    held: Held,
    /// The records of those who hold shared values.
    records: HashMap<SubjectHandle, Arc<SubjectRecord>>,
}

/// Shared values, and subjects that hold them.
pub(crate) type Held = HashSet<(RowId, SubjectHandle)>;

/// Why nobody could have consented to the read of a shared value.
pub(crate) enum Unmeant {
    /// The item names nobody.
    Nobody,
    /// It names somebody who does not hold the value.
    NoHolder,
}

impl Named<'_> {
    /// The handles behind an id; none for one that the vault does not know.
    fn handles(&self, id: &str) -> &[SubjectHandle] {
        self.handles.get(id).map_or(&[], Vec::as_slice)
    }

    /// The record of the subject that an item means by a shared value; none if it means no holder of it.
    pub fn record(&self, found: &Found, subject: &str) -> Option<&SubjectRecord> {
        self.records.get(&self.meant(found, subject)?).map(|record| &**record)
    }

    /// The subject that an item means, if that one holds the value.
    pub fn meant(&self, found: &Found, subject: &str) -> Option<SubjectHandle> {
        self.handles(subject).iter().copied().find(|handle| self.holds(found, *handle))
    }

    /// Whether a read without consent means nobody whose consent it could have. That somebody must be named is told only to
    /// whom policy would let read then.
    pub fn unmeant(
        &self,
        found: &Found,
        subject: &str,
        relation: Relation,
        may_then: impl FnOnce() -> bool,
    ) -> Option<Unmeant> {
        if relation.consent != Consent::Absent || !found.is_shared() {
            return None;
        }
        match subject.is_empty() {
            true => may_then().then_some(Unmeant::Nobody),
            false => self.meant(found, subject).is_none().then_some(Unmeant::NoHolder),
        }
    }

    /// Refuses what is asked of a shared value for a holder whose erasure waits out its time of grace.
    pub fn not_leaving(&self, holder: SubjectHandle) -> Result<(), Error> {
        self.records.get(&holder).map_or(Ok(()), |record| not_leaving(record))
    }

    /// Whether a handle that the request asked for holds a value.
    pub fn holds(&self, found: &Found, holder: SubjectHandle) -> bool {
        match found.is_shared() {
            true => self.held.contains(&(found.id, holder)),
            false => found.row.subject == holder,
        }
    }
}

/// Refuses what is asked of a subject whose erasure waits out its time of grace.
fn not_leaving(record: &SubjectRecord) -> Result<(), Error> {
    match record.state {
        SubjectState::Leaving => Err(Error::SubjectLeaving { due: record.erasure.map_or(0, |erasure| erasure.due) }),
        _ => Ok(()),
    }
}

impl<S: Store> Road<'_, S> {
    /// Sees that neither a value nor its subject is frozen for what the request does to it.
    pub fn unfrozen_value(&self, found: &Found) -> Result<(), Error> {
        self.unfrozen(&found.field)?;
        found.subject.as_ref().map_or(Ok(()), |record| not_leaving(record))
    }

    /// Looks up what tokens stand for, each with the subject whose value is meant, and who of these holds what is shared. Where no
    /// subject is named, and `nobody` is asked for, it is whether nobody does.
    pub async fn resolve_named<'i>(
        &self,
        items: impl Iterator<Item = (&'i str, &'i str)> + Clone,
        nobody: bool,
        guards: &mut Vec<Guard>,
    ) -> Result<(Vec<Resolved>, Named<'i>), Error> {
        let tokens: Vec<&str> = items.clone().map(|(token, _)| token).collect();
        let mut resolved = self.resolve(&tokens).await?;
        let subjects = items.map(|(_, subject)| subject);
        let named = self.named(subjects.clone().zip(&resolved), nobody, guards).await?;
        self.by_holders(subjects.zip(&mut resolved), &named, guards).await?;
        Ok((resolved, named))
    }

    /// Looks up the handles behind the subject ids that a request names, and whether they hold the values that it means,
    /// each level at once. Where no subject is named, and `nobody` is asked for, it is whether nobody does.
    pub async fn named<'i, 'r>(
        &self,
        items: impl Iterator<Item = (&'i str, &'r Resolved)> + Clone,
        nobody: bool,
        guards: &mut Vec<Guard>,
    ) -> Result<Named<'i>, Error> {
        let mut named =
            Named { handles: self.handles(items.clone().map(|(id, _)| id), guards).await?, ..Named::default() };
        let (mut asked, mut shared) = (Vec::new(), Vec::new());
        for (id, resolved) in items {
            let (Resolved::Value(found) | Resolved::Expired(found)) = resolved else { continue };
            if !found.is_shared() {
                continue;
            }
            shared.push((found.id, found.field.number));
            match id.is_empty() {
                true if nobody => asked.push((found.id, SubjectHandle::NONE)),
                true => {}
                false => asked.extend(named.handles(id).iter().map(|handle| (found.id, *handle))),
            }
        }
        named.held = self.held(asked).await?;
        let mut holders: Vec<SubjectHandle> =
            named.held.iter().map(|(_, holder)| *holder).filter(|holder| holder.is_some()).collect();
        holders.sort_unstable();
        holders.dedup();
        named.records = self.subject_records(&holders).await?;
        // Of a subject that is erased nothing is known but what is held of it, for the hold's own purpose.
        let fields: HashMap<RowId, FieldNo> = shared.into_iter().collect();
        named.held.retain(|(row, holder)| {
            let Some(record) = named.records.get(holder) else { return !holder.is_some() };
            match record.state {
                SubjectState::Open | SubjectState::Leaving => true,
                SubjectState::Held => fields.get(row).is_some_and(|field| self.held_until(record, *field).is_some()),
                SubjectState::Closed => false,
            }
        });
        Ok(named)
    }

    /// Holds shared values that were found against who holds them, where they are told of. To who names nobody one is there as
    /// long as nobody or somebody holds it who is neither erased nor about to be: what is left of others is for who names them.
    /// One that has expired is still there for who names a holder, and reads it for what it is held for.
    pub async fn by_holders<'i, 'r>(
        &self,
        items: impl Iterator<Item = (&'i str, &'r mut Resolved)>,
        named: &Named<'_>,
        guards: &mut Vec<Guard>,
    ) -> Result<(), Error> {
        let mut unnamed = Vec::new();
        for (subject, resolved) in items {
            let (Resolved::Value(found) | Resolved::Expired(found)) = &*resolved else { continue };
            if !found.is_shared() {
                continue;
            }
            if subject.is_empty() {
                unnamed.push((found.id, resolved));
                continue;
            }
            let held = match resolved {
                Resolved::Expired(found) => named
                    .record(found, subject)
                    .and_then(|record| self.held_until(record, found.field.number))
                    .map(|until| Found { expires: Some(until), ..(**found).clone() }),
                _ => None,
            };
            if let Some(found) = held {
                *resolved = Resolved::Value(Arc::new(found));
            }
        }
        if unnamed.is_empty() {
            return Ok(());
        }
        let living = self.living(unnamed.iter().map(|(row, _)| *row).collect(), guards).await?;
        for (row, resolved) in unnamed {
            if !living.contains(&row) {
                resolved.guards_if_unwrapped(self.tenant.number, guards);
                *resolved = Resolved::Nothing;
            }
        }
        Ok(())
    }

    /// Which of these values nobody holds, or somebody who is neither erased nor about to be, among their first holders. Guards
    /// that it stays so.
    async fn living(&self, mut rows: Vec<RowId>, guards: &mut Vec<Guard>) -> Result<HashSet<RowId>, Error> {
        rows.sort_unstable();
        rows.dedup();
        let tenant = self.tenant.number;
        let mut living = HashSet::with_capacity(rows.len());
        for limit in FIRST {
            let mut of_rows = Vec::with_capacity(rows.len());
            for row in rows.drain(..) {
                of_rows.push((row, self.some_holders(row, limit).await?));
            }
            let mut holders: Vec<SubjectHandle> = of_rows.iter().flat_map(|(_, holders)| holders.clone()).collect();
            holders.retain(|holder| holder.is_some());
            holders.sort_unstable();
            holders.dedup();
            let records = self.subject_records(&holders).await?;
            let lives = |holder: &SubjectHandle| {
                !holder.is_some() || records.get(holder).is_some_and(|record| record.state == SubjectState::Open)
            };
            for (row, holders) in of_rows {
                match holders.iter().find(|holder| lives(holder)) {
                    Some(holder) => {
                        guards.push(Guard::Unchanged(Fact::holders(tenant, row)));
                        if holder.is_some() {
                            guards.push(Guard::Unchanged(Fact::subject_state(tenant, *holder)));
                        }
                        living.insert(row);
                    }
                    None if holders.len() == limit => rows.push(row),
                    None => {}
                }
            }
        }
        Ok(living)
    }

    /// The handles behind subject ids that the vault knows. Guards that they stay the same.
    pub async fn handles<'i>(
        &self,
        ids: impl Iterator<Item = &'i str>,
        guards: &mut Vec<Guard>,
    ) -> Result<HashMap<&'i str, Vec<SubjectHandle>>, Error> {
        let mut names: Vec<&str> = ids.filter(|id| !id.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let keys = self.index_keys(IndexName::SubjectId)?;
        let place =
            |key: &IndexKey, id: &str| place::subject_id(self.tenant.number, key.version(), &key.mac(&[id.as_bytes()]));
        let places: Vec<Places> = names.iter().map(|id| Places::of(&keys, |key| place(key, id))).collect();
        places.iter().for_each(|places| places.guard(self.tenant.number, guards));
        let stored = self.look_up(&places.iter().collect::<Vec<_>>()).await?;
        let mut handles = HashMap::with_capacity(names.len());
        for (id, bytes) in names.into_iter().zip(stored) {
            if let Some(bytes) = bytes {
                handles.insert(id, place::decode_handles(&bytes)?);
            }
        }
        Ok(handles)
    }

    /// Which of these subjects hold which of these values.
    pub async fn held(&self, asked: Vec<(RowId, SubjectHandle)>) -> Result<Held, Error> {
        if asked.is_empty() {
            return Ok(Held::new());
        }
        let key = |(row, holder): &(RowId, SubjectHandle)| place::holder(self.tenant.number, *row, *holder);
        let stored = self.vault.store.multi_get(Family::Holders, asked.iter().map(key).collect()).await?;
        Ok(asked.into_iter().zip(stored).filter_map(|(pair, entry)| entry.map(|_| pair)).collect())
    }

    /// Which of a value's holders an item means: the subject that it names, if that one holds the value.
    ///
    /// `Some(NONE)` when nobody is named; `None` when the one who is named does not hold the value, which the caller
    /// must not be able to tell from a token that does not exist.
    pub fn holder(
        &self,
        found: &Found,
        subject: &str,
        named: &Named<'_>,
        guards: &mut Vec<Guard>,
    ) -> Option<SubjectHandle> {
        if subject.is_empty() {
            return Some(if found.is_shared() { SubjectHandle::NONE } else { found.row.subject });
        }
        let holder = named.meant(found, subject)?;
        if found.is_shared() {
            guards.push(Guard::Unchanged(Fact::holders(self.tenant.number, found.id)));
            guards.push(Guard::Unchanged(Fact::subject_state(self.tenant.number, holder)));
        }
        Some(holder)
    }

    /// Whether a value that has a holder has no other. Guards that its holders stay the same.
    pub async fn has_one_holder<A>(&self, found: &Found, prepared: &mut Prepared<A>) -> Result<bool, Error> {
        if !found.is_shared() {
            return Ok(true);
        }
        prepared.guards.push(Guard::Unchanged(Fact::holders(self.tenant.number, found.id)));
        Ok(self.some_holders(found.id, 2).await?.len() < 2)
    }

    /// The holders with whom a value that has expired goes, unless it is held. Guards that they stay the same.
    ///
    /// A value may have any number of holders, and a commit may not. Those beyond a page are released before, page by
    /// page, each in a commit of its own; then the caller's own commit is turned back, and finds but the last of them.
    pub async fn last_holders<A>(
        &self,
        found: &Found,
        prepared: &mut Prepared<A>,
    ) -> Result<Vec<SubjectHandle>, Error> {
        if !found.is_shared() {
            self.not_held(found, prepared)?;
            return Ok(vec![found.row.subject]);
        }
        prepared.guards.push(Guard::Unchanged(Fact::holders(self.tenant.number, found.id)));
        let mut position = self.position;
        loop {
            let mut holders = self.some_holders(found.id, PAGE + 1).await?;
            let mut page = Prepared::new(());
            self.not_held_by_any(found, &holders, &mut page).await?;
            if holders.len() <= PAGE {
                prepared.guards.append(&mut page.guards);
                return Ok(holders);
            }
            holders.truncate(PAGE);
            if !self.release(found, holders, position, page).await? {
                return Ok(vec![]);
            }
            // The next page stands on what there is now.
            position = self.vault.committer.position();
            let now = self.resolve_rows(&[found.id]).await?;
            if !matches!(now.first(), Some(Resolved::Expired(now)) if now.row.version == found.row.version) {
                return Ok(vec![]);
            }
        }
    }

    /// Ends holds on a value that has expired and has more. `false`: others were at it meanwhile, and nothing was done.
    /// `page` guards that none of them is under a legal hold.
    async fn release(
        &self,
        found: &Found,
        holders: Vec<SubjectHandle>,
        position: Position,
        mut page: Prepared<()>,
    ) -> Result<bool, Error> {
        page.guards.push(Guard::Unchanged(Fact::row(self.tenant.number, found.id)));
        page.guards.push(Guard::Unchanged(Fact::holders(self.tenant.number, found.id)));
        for holder in holders {
            self.remove_holding(found, holder, &mut page);
            let version = Some(found.row.version);
            page.items.push(Item { subject: Some(holder), version, ..found.item("released") });
        }
        match self.commit_at(position, page).await {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict(_) | CommitError::Expired | CommitError::TooOld) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The first holders of a shared value.
    async fn some_holders(&self, row: RowId, limit: usize) -> Result<Vec<SubjectHandle>, Error> {
        let (from, to) = place::holders_range(self.tenant.number, row);
        let page = self.vault.store.scan(Family::Holders, Range { from, to, limit }).await?;
        Ok(page.iter().map(|(key, _)| place::decode_holder(key)).collect::<Result<_, _>>()?)
    }
}
