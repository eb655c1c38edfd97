//! One subject's DEK: which values move, how they are sealed anew, and what its commit guards and writes.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, KeyringNo, RowId, SubjectHandle, TenantNo};
use strongroom_keys::{Dek, DekOwner, DekPlace};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{SubjectRecord, ValueRow, WrappedDek};
use strongroom_storage::{Family, Mutation, Range, Store};

use crate::error::Error;
use crate::random::Dice;
use crate::road::{Item, Prepared, Road, make_way};
use crate::subjects::{NamedDek, id_place, record_hash};

/// Rows that are read at once.
const CHUNK: usize = 64;
/// Bytes of rows that a page moves, about: of larger values it moves fewer.
pub(super) const BYTES: usize = 4 << 20;

/// A subject's DEK that is marked.
pub(super) struct Marked {
    pub subject: SubjectHandle,
    pub keyring: KeyringNo,
    /// The versions that are.
    pub versions: Vec<DekVersion>,
    /// The last row that was looked at; zero before the first.
    pub after: RowId,
}

impl Marked {
    /// One without marks yet, before its first row.
    pub fn new(subject: SubjectHandle, keyring: KeyringNo) -> Self {
        Self { subject, keyring, versions: vec![], after: RowId(0) }
    }
}

/// A marked subject's record, as it was found.
pub(super) enum Record {
    /// There is none any more.
    Gone,
    /// It can't be read.
    Damaged,
    /// Here it is.
    Read(Box<SubjectRecord>),
}

/// What a page does with a DEK.
pub(super) enum Plan {
    /// It is gone, or its mark is about a version that is: only the mark is left.
    Gone,
    /// Nothing: this can't be read.
    Damaged(&'static str),
    /// It is rolled, or some of its values move.
    Roll(Box<Rolling>),
}

/// A DEK that is being rolled.
pub(super) struct Rolling {
    record: Box<SubjectRecord>,
    /// The version under which its values come.
    target: DekVersion,
    /// Whether this commit makes it.
    fresh: bool,
    /// Values that move.
    rows: Vec<(RowId, ValueRow)>,
    /// Their bytes.
    bytes: usize,
    /// Rows that were looked at.
    seen: usize,
    /// The last of them, if there are more.
    last: Option<RowId>,
}

impl Plan {
    /// Reads what is to be done, in at most so many rows.
    pub async fn make<S: Store>(
        road: &Road<'_, S>,
        marked: &Marked,
        record: Record,
        room: usize,
    ) -> Result<Self, Error> {
        let record = match record {
            Record::Read(record) if record.state.has_keys() => record,
            Record::Read(_) | Record::Gone => return Ok(Self::Gone),
            Record::Damaged => return Ok(Self::Damaged("a subject record")),
        };
        let Some(newest) = record.newest_dek(marked.keyring).map(|dek| dek.version) else { return Ok(Self::Gone) };
        // Values that move already go on to where they go. A mark that came meanwhile is for the next job.
        let fresh = marked.after == RowId(0) && marked.versions.contains(&newest);
        let target = match fresh {
            true => DekVersion(newest.0.checked_add(1).ok_or(Error::Internal("too many versions of a DEK"))?),
            false => newest,
        };
        if !record.deks.iter().any(|dek| dek.keyring == marked.keyring && dek.version != target) {
            return Ok(Self::Gone);
        }
        let mut rolling = Rolling { record, target, fresh, rows: vec![], bytes: 0, seen: 0, last: None };
        // The tenant's own keyring seals subjects' ids and no value.
        if marked.keyring == KeyringNo(0) || rolling.read(road, marked, room).await? {
            return Ok(Self::Roll(Box::new(rolling)));
        }
        Ok(Self::Damaged("a value row"))
    }

    /// Whether a new version is made, which its KEK wraps.
    pub fn makes_version(&self) -> bool {
        matches!(self, Self::Roll(rolling) if rolling.fresh)
    }

    /// How many rows were looked at for it.
    pub fn rows(&self) -> usize {
        match self {
            Self::Roll(rolling) => rolling.seen,
            _ => 0,
        }
    }

    /// How many bytes of rows move.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Roll(rolling) => rolling.bytes,
            _ => 0,
        }
    }

    /// The row after which it goes on in the next page; none if this one does all of it.
    pub fn goes_on_after(&self) -> Option<RowId> {
        match self {
            Self::Roll(rolling) => rolling.last,
            _ => None,
        }
    }

    /// Transform: seals anew what moves. `record` is what the page has made of the subject's record before.
    pub async fn roll<S: Store>(
        self,
        road: &Road<'_, S>,
        marked: Marked,
        record: Option<&SubjectRecord>,
        dice: &mut Dice,
    ) -> Result<Rolled, Error> {
        match self {
            Self::Gone => Ok(Rolled { marked, rows: vec![], dek: None }),
            Self::Damaged(place) => Err(Error::DataLoss(place)),
            Self::Roll(mut rolling) => {
                if let Some(record) = record {
                    *rolling.record = record.clone();
                }
                rolling.roll(road, marked, dice).await
            }
        }
    }
}

impl Rolling {
    /// Reads the next rows of the subject, and keeps those that move. `false`: one of them can't be read.
    async fn read<S: Store>(&mut self, road: &Road<'_, S>, marked: &Marked, room: usize) -> Result<bool, Error> {
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        let (from, to) = place::subject_rows_after(tenant, marked.subject, marked.after);
        let entries = store.scan(Family::SubjectRows, Range { from, to, limit: room + 1 }).await?;
        let Ok(ids) = entries.iter().map(|(key, _)| place::decode_subject_row(key)).collect::<Result<Vec<_>, _>>()
        else {
            return Ok(false);
        };
        for chunk in ids.get(..room).unwrap_or(&ids).chunks(CHUNK) {
            let keys = chunk.iter().map(|id| place::row(tenant, *id)).collect();
            for (id, stored) in chunk.iter().zip(store.multi_get(Family::Rows, keys).await?) {
                // One that was deleted since breaks a guard, or was not to move.
                let Some(stored) = stored else { continue };
                let Ok(row) = ValueRow::decode(&stored) else { return Ok(false) };
                // A subject also holds shared values, which have DEKs of their own, and values of other keyrings.
                let is_its_own = row.subject == marked.subject && row.keyring == marked.keyring;
                if is_its_own && row.dek_version != self.target {
                    self.bytes += stored.len();
                    self.rows.push((*id, row));
                }
            }
            self.seen += chunk.len();
            self.last = chunk.last().copied().filter(|_| self.seen < ids.len());
            if self.bytes >= BYTES {
                break;
            }
        }
        Ok(true)
    }

    async fn roll<S: Store>(mut self, road: &Road<'_, S>, marked: Marked, dice: &mut Dice) -> Result<Rolled, Error> {
        let there = self.unwrap_all(road, marked.keyring)?;
        let new = self.new_version(road, marked.keyring, &there)?;
        let mut rows = Vec::with_capacity(self.rows.len());
        for (place, (id, row)) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            make_way(place).await;
            let old = there.get(&row.dek_version).ok_or(Error::DataLoss("a subject without the DEK of its value"))?;
            let held = road.open_row(id, &row, old)?;
            let row = ValueRow { dek_version: new.version, ..row };
            rows.push((id, road.seal_next(id, row, &held, &new.dek, dice)?));
        }
        let resealed_id = match marked.keyring == KeyringNo(0) {
            true => {
                self.seal_id_anew(road, &there, &new, dice)?;
                Some(record_hash(&self.record))
            }
            false => None,
        };
        let mut dropped = Vec::new();
        if self.last.is_none() {
            self.record.deks.retain(|dek| {
                let stays = dek.keyring != marked.keyring || dek.version == self.target;
                dropped.extend((!stays).then_some(dek.version));
                stays
            });
        }
        let rewritten = self.fresh || !dropped.is_empty();
        let Self { record, target, fresh, last, .. } = self;
        let dek = RolledDek { record, target, fresh, whole: last.is_none(), rewritten, resealed_id, dropped };
        Ok(Rolled { marked, rows, dek: Some(dek) })
    }

    /// All versions that there are by now. They do not get into the cache: this is the last time that most are needed.
    fn unwrap_all<S: Store>(
        &self,
        road: &Road<'_, S>,
        keyring: KeyringNo,
    ) -> Result<HashMap<DekVersion, Arc<Dek>>, Error> {
        let unwrap = |dek: &WrappedDek| {
            let owner = DekOwner::Subject(self.record.handle);
            let at = DekPlace { tenant: road.tenant.id, keyring, owner, version: dek.version };
            road.unwrap_once(&at, dek.kek_version, &dek.blob).map(|opened| (dek.version, opened))
        };
        self.record.deks.iter().filter(|dek| dek.keyring == keyring).map(unwrap).collect()
    }

    /// The version under which values come: made now, or there since an earlier page.
    fn new_version<S: Store>(
        &mut self,
        road: &Road<'_, S>,
        keyring: KeyringNo,
        there: &HashMap<DekVersion, Arc<Dek>>,
    ) -> Result<NamedDek, Error> {
        let (owner, version) = (DekOwner::Subject(self.record.handle), self.target);
        if self.fresh {
            let (named, wrapped) = road.new_dek(owner, keyring, version)?;
            self.record.deks.push(wrapped);
            return Ok(named);
        }
        let dek = there.get(&version).cloned().ok_or(Error::Internal("a DEK without its newest version"))?;
        Ok(NamedDek { dek, owner, keyring, version })
    }

    /// The subject's id moves in the commit that makes the version, so it is under the one before.
    fn seal_id_anew<S: Store>(
        &mut self,
        road: &Road<'_, S>,
        there: &HashMap<DekVersion, Arc<Dek>>,
        new: &NamedDek,
        dice: &mut Dice,
    ) -> Result<(), Error> {
        let (version, old) = there.iter().max_by_key(|(version, _)| **version).ok_or(Error::DataLoss("a DEK"))?;
        let handle = self.record.handle;
        let id = old.open(&id_place(road.tenant.id, handle, *version), &self.record.sealed_id)?;
        self.record.sealed_id = new.dek.seal(&id_place(road.tenant.id, handle, new.version), id.as_bytes())?;
        self.record.salt = dice.roll()?;
        Ok(())
    }
}

/// What is to be committed of one DEK.
pub(super) struct Rolled {
    marked: Marked,
    /// Values that were sealed anew.
    rows: Vec<(RowId, ValueRow)>,
    /// The DEK; none if only its marks are left.
    dek: Option<RolledDek>,
}

struct RolledDek {
    record: Box<SubjectRecord>,
    target: DekVersion,
    fresh: bool,
    /// Whether all of it is done.
    whole: bool,
    /// Whether the record changes.
    rewritten: bool,
    /// The hash of the record, if the subject's id was sealed anew in it.
    resealed_id: Option<[u8; 32]>,
    /// Versions that are no more.
    dropped: Vec<DekVersion>,
}

impl Rolled {
    /// What the page has made of a subject's record, if this is about that subject; none inside if it is left as it was.
    pub fn of(&self, subject: SubjectHandle) -> Option<Option<&SubjectRecord>> {
        (self.marked.subject == subject).then(|| self.dek.as_ref().filter(|dek| dek.rewritten).map(|dek| &*dek.record))
    }

    /// Whether nothing of it is left to be done.
    pub fn is_whole(&self) -> bool {
        self.dek.as_ref().is_none_or(|dek| dek.whole)
    }

    /// What its commit guards, changes and writes. Says how many values move.
    pub fn write<S: Store, A>(self, road: &Road<'_, S>, prepared: &mut Prepared<A>) -> usize {
        let Self { marked, rows, dek } = self;
        let (tenant, subject) = (road.tenant.number, marked.subject);
        let whole = dek.as_ref().is_none_or(|dek| dek.whole);
        let target = dek.as_ref().map(|dek| dek.target);
        prepared.guards.push(Guard::Unchanged(Fact::subject_state(tenant, subject)));
        let values = rows.len();
        for (id, row) in rows {
            road.write_resealed(id, &row, prepared);
        }
        if let Some(dek) = dek {
            dek.write(road, marked.keyring, prepared);
        }
        if whole {
            for version in marked.versions.into_iter().filter(|version| Some(*version) != target) {
                let key = place::dek_mark(tenant, subject, marked.keyring, version);
                prepared.mutations.push(Mutation::Delete(Family::Meta, key));
            }
        }
        values
    }
}

impl RolledDek {
    fn write<S: Store, A>(self, road: &Road<'_, S>, keyring: KeyringNo, prepared: &mut Prepared<A>) {
        let (tenant, subject) = (road.tenant.number, self.record.handle);
        let of = |fact: fn(TenantNo, SubjectHandle) -> Fact| fact(tenant, subject);
        if self.rewritten {
            // The record is written as a whole, so nothing of it may have changed.
            let facts = [of(Fact::subject_keys), of(Fact::subject_consents)];
            prepared.guards.extend(facts.map(Guard::Unchanged));
            prepared.changes.push(of(Fact::subject_keys));
            let key = place::subject(tenant, subject);
            prepared.mutations.push(Mutation::Put(Family::Subjects, key, self.record.encode()));
        }
        if self.fresh {
            // A value that came under the old version since the rows were read would be left behind, wherever its row id
            // stands: ids are given out before their commit. After this commit none comes any more, since who writes
            // guards the subject's keys.
            prepared.guards.push(Guard::Unchanged(of(Fact::subject_rows)));
        }
        if let Some(hash) = self.resealed_id {
            let hash = Some(hash);
            prepared.items.push(Item { outcome: "subject_resealed", subject: Some(subject), hash, ..Item::default() });
        }
        if !self.dropped.is_empty() {
            prepared.items.push(Item { outcome: "dek_rolled", subject: Some(subject), ..Item::default() });
        }
        let owner = DekOwner::Subject(subject);
        let gone = |version: &DekVersion| DekPlace { tenant: road.tenant.id, keyring, owner, version: *version };
        prepared.forget.extend(self.dropped.iter().map(gone));
    }
}
