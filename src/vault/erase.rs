//! Erasing a data subject, for the privacy desk: at once, or after a time of grace in which it can be undone.
//!
//! ```text
//! asked -> (Leaving) -> Closed: its DEKs and what leads from its id are destroyed -> rows are cleared, in pages -> a receipt
//!                    -> Held:   so it is but for what legal holds keep, until they end
//! ```
//!
//! Where policy wants approvals, what is asked waits for them first: nothing of the subject changes until it is asked for again.
//!
//! The first commit decides: after it nothing of the subject that is not held opens, and none of its tokens is anything. The
//! rest is cleared (`clear.rs`) and signed (`sign.rs`), step by step, by whoever asked or in the background (`steps.rs`), and
//! goes on after a crash. An erasure has a name, which its desk knows and no leaf says: under it stands what is told of it, and
//! once all is erased no handle.

mod clear;
mod sign;
mod steps;
mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{SubjectHandle, TenantNo};
use strongroom_keys as keys;
use strongroom_ledger::erasure::commitment;
use strongroom_ledger::{Timestamp, summary};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{Erased, Erasure, ErasureRow, ErasureStage, ErasureWork, SubjectRecord, SubjectState};
use strongroom_storage::{Family, Mutation, Store};

use crate::approvals::Asked;
use crate::error::Error;
use crate::road::{Attempt, Caller, Item, Prepared, Refused, Road, Told};
use crate::subjects::unknown;
use crate::tenant::{Rules, Tenant};
use crate::vault::Vault;

pub(crate) use clear::{Held, count, led_from, new_work};
pub(crate) use steps::Erasing;
pub use told::{ErasurePage, ErasureStatus, GetErasure, Kept, ListErasures};

/// The longest time of grace, in microseconds: a year.
const LONGEST_GRACE: u64 = 366 * DAY;
/// A day, in microseconds.
const DAY: u64 = 24 * 3_600 * 1_000_000;
/// How long who asks waits for rows to be cleared. What is left then is done in the background.
const WAIT: Duration = Duration::from_secs(20);
/// For how long it is known what became of an erasure, in days.
const REMEMBERED: u32 = 90;
/// The name of what files may still hold, among the facts of erasures.
const LEFTOVERS: &[u8] = b"leftovers";

/// Says that files may still hold what is erased now, so that it is written away.
pub(crate) fn mark_leftovers<A>(tenant: TenantNo, prepared: &mut Prepared<A>) -> Result<(), Error> {
    prepared.changes.push(Fact::erasure(tenant, LEFTOVERS));
    // Another one each time, so that who writes leftovers away sees that there are more.
    let leftovers = keys::random::<16>()?.to_vec();
    prepared.mutations.push(Mutation::Put(Family::Meta, place::leftovers(tenant), leftovers));
    Ok(())
}

/// Erases a data subject.
pub struct EraseSubject {
    /// The caller's own id of the subject.
    pub subject: String,
    /// For how long it is only frozen first, in microseconds; 0: it is erased at once.
    pub grace: u64,
    /// Makes a retry safe; may be empty.
    pub idempotency_key: String,
}

/// Undoes an erasure whose time of grace runs.
pub struct UndoErasure {
    /// The caller's own id of the subject.
    pub subject: String,
}

/// The name of an erasure.
type Name = [u8; 16];

pub(crate) fn erasure_fact(tenant: TenantNo, name: &Name) -> Fact {
    Fact::erasure(tenant, name)
}

pub(crate) async fn load_erasure<S: Store>(
    store: &S,
    tenant: TenantNo,
    name: &Name,
) -> Result<Option<ErasureRow>, Error> {
    let row = store.get(Family::Meta, place::erasure(tenant, name)).await?;
    Ok(row.as_deref().map(ErasureRow::decode).transpose()?)
}

pub(crate) fn put_erasure(tenant: TenantNo, name: &Name, row: &ErasureRow) -> Mutation {
    Mutation::Put(Family::Meta, place::erasure(tenant, name), row.encode())
}

/// An erasure of which nothing is done yet.
pub(crate) fn new_row(fingerprint: [u8; 32]) -> ErasureRow {
    ErasureRow {
        fingerprint,
        subject: None,
        open: vec![],
        due: 0,
        erased: Erased::default(),
        keks: vec![],
        receipt: String::new(),
        expires: 0,
        same: None,
    }
}

/// What is left to do for a subject.
pub(crate) async fn load_work<S: Store>(
    store: &S,
    tenant: TenantNo,
    subject: SubjectHandle,
) -> Result<Option<ErasureWork>, Error> {
    let row = store.get(Family::Meta, place::erasure_work(tenant, subject)).await?;
    Ok(row.as_deref().map(ErasureWork::decode).transpose()?)
}

pub(crate) fn put_work(tenant: TenantNo, subject: SubjectHandle, work: &ErasureWork) -> Mutation {
    Mutation::Put(Family::Meta, place::erasure_work(tenant, subject), work.encode())
}

impl EraseSubject {
    /// Under an idempotency key an erasure has the name that follows from it, so that a retry finds what became of the first.
    fn name<S: Store>(&self, road: &Road<'_, S>) -> Result<Name, Error> {
        if self.idempotency_key.is_empty() {
            return Ok(keys::random::<16>()?);
        }
        let (principal, key) = (road.caller.principal.name.as_bytes(), self.idempotency_key.as_bytes());
        let mac = road.tenant.fingerprints.mac(&[b"name of an erasure", principal, key]);
        let mut name = [0; 16];
        name.copy_from_slice(&mac[..16]);
        Ok(name)
    }

    /// What others are asked to approve, and what the leaf says of it then: by the subject's handles, since nothing is to lead from
    /// its id to them once it is erased. The key says only that it is the same request.
    fn asked(&self, subjects: &[SubjectHandle]) -> (Asked, Told) {
        let (when, named) = (when(self.grace), summary::subjects(subjects));
        let mut parts = vec![self.grace.to_be_bytes().to_vec()];
        parts.extend(subjects.iter().map(|subject| subject.0.to_be_bytes().to_vec()));
        let summary = summary::erase_subject(&when, &named);
        (Asked { parts, summary }, vec![("when", when), ("subjects", named)])
    }

    /// Keeps for a retry which erasure was found under way, if that has a key.
    fn remember<A>(
        &self,
        (tenant, name): (TenantNo, Name),
        fingerprint: [u8; 32],
        same: Option<Name>,
        prepared: &mut Prepared<A>,
    ) {
        if same.is_some() && !self.idempotency_key.is_empty() {
            prepared.changes.push(erasure_fact(tenant, &name));
            prepared.mutations.push(put_erasure(tenant, &name, &ErasureRow { same, ..new_row(fingerprint) }));
        }
    }

    /// The salt by which the receipt of an erasure says whose it is: to make it takes the name, the id and the vault's key.
    fn salt(&self, tenant: &Tenant, name: &Name) -> [u8; 32] {
        tenant.fingerprints.mac(&[b"salt of a receipt", name, self.subject.as_bytes()])
    }

    fn within_limits<S: Store>(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.vault.limits.idempotency_key(&self.idempotency_key)?;
        if self.grace > LONGEST_GRACE {
            return Err(Error::invalid("grace", "too_long", "a time of grace has at most 366 days"));
        }
        Ok(())
    }
}

/// When a subject is erased that has so many microseconds of grace, in words.
fn when(grace: u64) -> String {
    const SECOND: u64 = 1_000_000;
    match grace {
        0 => "at once".to_owned(),
        days if days.is_multiple_of(DAY) => format!("after {}d", days / DAY),
        seconds if seconds.is_multiple_of(SECOND) => format!("after {}s", seconds / SECOND),
        _ => format!("after {grace}us"),
    }
}

impl<S: Store> Attempt<S> for EraseSubject {
    /// Its name, or what it waits for; none if the vault does not know the subject.
    type Answer = Result<Option<Name>, Error>;
    const ACTION: Action = Action::EraseSubject;
    /// It frees space.
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        let parts = vec![self.subject.clone().into_bytes(), self.grace.to_be_bytes().to_vec()];
        Some(Asked { parts, summary: "erase a data subject".to_owned() })
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_with_others()?;
        self.within_limits(road)?;
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        let name = self.name(road)?;
        let fingerprint =
            road.tenant.fingerprints.mac(&[b"an erasure", self.subject.as_bytes(), &self.grace.to_be_bytes()]);
        let mut prepared: Prepared<Self::Answer> = road.prepare(Ok(None));
        let fact = erasure_fact(tenant, &name);
        prepared.guards.push(Guard::Unchanged(fact));
        if let Some(row) = load_erasure(store, tenant, &name).await? {
            if row.fingerprint != fingerprint {
                return Err(Error::IdempotencyKeyReused.into());
            }
            // What it found under way may have been forgotten since.
            let meant = row.same.unwrap_or(name);
            if meant == name || load_erasure(store, tenant, &meant).await?.is_some() {
                prepared.items.push(Item { outcome: "repeated", ..Item::default() });
                prepared.answer = Ok(Some(meant));
                return Ok(prepared);
            }
        }
        let records = road.asked_records(&self.subject, &mut prepared).await?;
        let (open, under_way): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.state == SubjectState::Open);
        let due = road.now.saturating_add(self.grace);
        // Asked for before: what becomes of that is the answer, and it is not later than it is asked for now.
        let (mut known, mut earlier) = (None, Vec::new());
        for record in under_way {
            let work = load_work(store, tenant, record.handle).await?;
            let work = work.ok_or(Error::DataLoss("a subject's erasure"))?;
            known.get_or_insert(work.erasure);
            match work.stage {
                ErasureStage::Waiting(until) if due < until => earlier.push((record, work)),
                _ => prepared.items.push(unchanged(record.handle)),
            }
        }
        prepared.answer = Ok(known);
        let changed = open.iter().chain(earlier.iter().map(|(record, _)| record));
        let changed: Vec<SubjectHandle> = changed.map(|record| record.handle).collect();
        if changed.is_empty() {
            self.remember((tenant, name), fingerprint, known, &mut prepared);
            return Ok(prepared);
        }
        let (asked, told) = self.asked(&changed);
        if let Some(missing) = road.agreed(&asked, told, &mut prepared).await? {
            prepared.items.extend(changed.into_iter().map(unchanged));
            prepared.answer = Err(missing);
            return Ok(prepared);
        }
        if self.grace > 0 || !earlier.is_empty() {
            prepared.detail.push(("due", Timestamp(due).to_string()));
        }
        for (record, work) in earlier {
            hasten(road, record, work, due, &mut prepared).await?;
        }
        if open.is_empty() {
            self.remember((tenant, name), fingerprint, known, &mut prepared);
            return Ok(prepared);
        }
        let subject = Some(commitment(&self.salt(road.tenant, &name), &self.subject));
        let open_handles = open.iter().map(|record| record.handle).collect();
        let mut row = ErasureRow {
            subject,
            open: open_handles,
            due: if self.grace > 0 { due } else { 0 },
            ..new_row(fingerprint)
        };
        for record in open {
            let record = SubjectRecord { erasure: Some(Erasure { asked: road.now, due }), ..record };
            match self.grace {
                0 => road.begin_clearing(&record, clear::new_work(name), &mut row, &mut prepared).await?,
                _ => leave(road, record, name, due, &mut prepared)?,
            }
        }
        prepared.changes.push(fact);
        prepared.mutations.push(put_erasure(tenant, &name, &row));
        prepared.answer = Ok(Some(name));
        Ok(prepared)
    }
}

/// What the ledger says of a subject that is left as it is.
fn unchanged(handle: SubjectHandle) -> Item {
    Item { outcome: "unchanged", subject: Some(handle), ..Item::default() }
}

/// Lets a subject's time of grace end earlier.
async fn hasten<S: Store, A>(
    road: &Road<'_, S>,
    record: SubjectRecord,
    work: ErasureWork,
    due: u64,
    prepared: &mut Prepared<A>,
) -> Result<(), Error> {
    let (tenant, handle) = (road.tenant.number, record.handle);
    let row = load_erasure(&*road.vault.store, tenant, &work.erasure).await?.ok_or(Error::DataLoss("an erasure"))?;
    let fact = erasure_fact(tenant, &work.erasure);
    prepared.guards.push(Guard::Unchanged(fact));
    prepared.changes.push(fact);
    road.change_subject(&record, prepared);
    let erasure = record.erasure.map(|erasure| Erasure { due, ..erasure });
    let record = SubjectRecord { erasure, salt: keys::random::<16>()?, ..record };
    road.put_record(&record, "subject_leaving", prepared);
    prepared.mutations.push(put_erasure(tenant, &work.erasure, &ErasureRow { due, ..row }));
    prepared.mutations.push(put_work(tenant, handle, &ErasureWork { stage: ErasureStage::Waiting(due), ..work }));
    Ok(())
}

/// Freezes a subject until its time of grace is over.
fn leave<S: Store, A>(
    road: &Road<'_, S>,
    record: SubjectRecord,
    erasure: Name,
    due: u64,
    prepared: &mut Prepared<A>,
) -> Result<(), Error> {
    road.change_subject(&record, prepared);
    let record = SubjectRecord { state: SubjectState::Leaving, salt: keys::random::<16>()?, ..record };
    road.put_record(&record, "subject_leaving", prepared);
    let work = ErasureWork { stage: ErasureStage::Waiting(due), ..new_work(erasure) };
    prepared.mutations.push(put_work(road.tenant.number, record.handle, &work));
    Ok(())
}

impl<S: Store> Attempt<S> for UndoErasure {
    /// Whether anything was undone; none if the vault does not know the subject.
    type Answer = Option<bool>;
    const ACTION: Action = Action::UndoErasure;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Option<bool>>, Refused> {
        road.decide_vault()?;
        let tenant = road.tenant.number;
        let mut prepared: Prepared<Option<bool>> = road.prepare(None);
        let mut names: BTreeMap<Name, Vec<SubjectHandle>> = BTreeMap::new();
        for record in road.asked_records(&self.subject, &mut prepared).await? {
            let undone = prepared.answer.get_or_insert(false);
            if record.state != SubjectState::Leaving {
                prepared.items.push(unchanged(record.handle));
                continue;
            }
            *undone = true;
            let work = load_work(&*road.vault.store, tenant, record.handle).await?;
            let name = work.ok_or(Error::DataLoss("a subject's erasure"))?.erasure;
            road.change_subject(&record, &mut prepared);
            let record = SubjectRecord {
                state: SubjectState::Open,
                salt: keys::random::<16>().map_err(Error::from)?,
                erasure: None,
                ..record
            };
            road.put_record(&record, "erasure_undone", &mut prepared);
            prepared.mutations.push(Mutation::Delete(Family::Meta, place::erasure_work(tenant, record.handle)));
            names.entry(name).or_default().push(record.handle);
        }
        for (name, undone) in names {
            let row = load_erasure(&*road.vault.store, tenant, &name).await?.ok_or(Error::DataLoss("an erasure"))?;
            prepared.guards.push(Guard::Unchanged(erasure_fact(tenant, &name)));
            prepared.changes.push(erasure_fact(tenant, &name));
            prepared.mutations.push(put_erasure(tenant, &name, &without(row, &undone, day(road.now)?)));
        }
        Ok(prepared)
    }
}

/// An erasure without subjects of which it was undone. Without any it is remembered as one that was, so that its key does not
/// begin it again.
pub(crate) fn without(mut row: ErasureRow, undone: &[SubjectHandle], day: u32) -> ErasureRow {
    row.open.retain(|subject| !undone.contains(subject));
    if row.open.is_empty() && row.receipt.is_empty() {
        (row.due, row.expires) = (0, day.saturating_add(REMEMBERED));
    }
    row
}

/// The day of a time, counted from 1970.
pub(crate) fn day(now: u64) -> Result<u32, Error> {
    u32::try_from(now / DAY).map_err(|_| Error::Internal("a day beyond all calendars"))
}

impl<S: Store> Vault<S> {
    /// Erases a data subject of the caller's tenant, or lets its time of grace begin. When this returns with a receipt all is
    /// cleared that can be; otherwise the rest is done in the background.
    pub async fn erase_subject(&self, caller: &Caller, request: &EraseSubject) -> Result<ErasureStatus, Error> {
        let name = self.travel(caller, request).await??.ok_or_else(unknown)?;
        let tenant = caller.principal.tenant;
        self.erasures_left.notify_one();
        match tokio::time::timeout(WAIT, self.finish_erasure(tenant, &name)).await {
            // What is left is done in the background.
            Err(_) | Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the rest of an erasure is done in the background"),
        }
        let row = load_erasure(&*self.store, tenant, &name).await?.ok_or(Error::Unknown)?;
        let salt = request.salt(&*self.tenant(tenant)?, &name);
        // An erasure that was done again after a restore says of nobody whose it is.
        let salt = row.subject.filter(|hash| *hash == commitment(&salt, &request.subject)).map(|_| salt);
        Ok(ErasureStatus { salt, ..self.erasure_told(tenant, &name, row).await? })
    }

    /// Undoes the erasure of a data subject whose time of grace runs.
    pub async fn undo_erasure(&self, caller: &Caller, request: &UndoErasure) -> Result<(), Error> {
        match self.travel(caller, request).await? {
            Some(true) => Ok(()),
            Some(false) => Err(Error::NothingToUndo),
            None => Err(unknown()),
        }
    }
}
