//! Expire: values that are due by retention, or by an expiry of their own, are erased.
//!
//! What is due can't be read any more, from the very moment; this job removes it: the value, what leads to it, who holds
//! it, and the DEK of one that has its own. A subject's DEK lives on for the subject's other values and is marked, so that
//! a roll ends what it sealed. When a subject's last value goes, and nothing else is kept for it, the subject goes along,
//! with its DEKs, and there is nothing to roll.
//!
//! The job takes what was due when it was started, by a clock that is believed (`clock_watch.rs`). It counts that first, and
//! where there is more than may go without asking it waits: a retention of days instead of years makes everything due.
//!
//! A subject is kept by a value, by a standing legal hold, and by a standing consent: whoever allowed something has said so
//! for values that are still to come, and the record is the proof of it. A consent that has ended or was withdrawn keeps
//! nobody; that it was given, the ledger says for as long as it is kept. So when all values are gone through, the job
//! looks for subjects that have no value, and that nothing keeps any more: what has kept them has ended, or their last value
//! went by a request.

mod page;

use strongroom_access::{Action, Touch};
use strongroom_ids::TenantNo;
use strongroom_ledger::summary;
use strongroom_schema::Schema;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{JobKind, JobRow, JobState, TenantRow, ValueRow};
use strongroom_storage::{Family, Store};

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::jobs::{self, Count, Job};
use crate::open::SYSTEM_NO;
use crate::resolve::expiry;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenant::{Rules, Tenant};
use crate::vault::Vault;

pub(crate) use page::ExpirePage;

/// What kind of job it is.
const KIND: JobKind = JobKind::Expire;

/// The families that it goes through: values, then subjects without any.
const STAGES: [Family; 2] = [Family::Rows, Family::Subjects];
const VALUES: u8 = 0;
const SUBJECTS: u8 = 1;

/// Entries that are read at once: a row may have some 64 KiB.
const READ: usize = 512;

/// What a job waits for when the clock jumped.
pub(crate) const CLOCK: &str = "the vault's operator, since the clock jumped: strongroom retention confirm-clock";

/// In microseconds.
const DAY: u64 = 86_400_000_000;

/// What is done of retention by itself, and how much without asking.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How often what is due is erased by itself, in microseconds; none: only when somebody asks for it.
    pub every: Option<u64>,
    /// The part of a tenant's values that goes without approval, in percent.
    pub cap_percent: u8,
    /// Values that go without approval whatever part they are.
    pub cap_values: u64,
    /// How long a vault may be stopped, in microseconds: a start after longer is a jump of the clock.
    pub longest_stop: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { every: Some(DAY), cap_percent: 10, cap_values: 1_000, longest_stop: 7 * DAY }
    }
}

impl Retention {
    /// How many of so many values go without approval.
    pub(crate) fn cap(&self, values: u64) -> u64 {
        let part = u128::from(values) * u128::from(self.cap_percent) / 100;
        u64::try_from(part).unwrap_or(u64::MAX).max(self.cap_values)
    }
}

/// Starts to erase what is due.
pub struct StartExpire {
    /// How many values it may erase at most, where that is more than goes without approval; 0: not more.
    pub up_to: u64,
}

/// The same within the cap: by whoever asked, or by the vault itself.
struct Start {
    by_itself: bool,
}

/// The same above the cap.
struct StartAbove {
    up_to: u64,
}

impl<S: Store> Attempt<S> for Start {
    type Answer = JobRow;
    const ACTION: Action = Action::Expire;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        // What is frozen, the job leaves.
        if !self.by_itself {
            road.decide_vault()?;
        }
        prepare(road, None).await
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell_started(tenant.number, KIND, answer);
    }
}

impl<S: Store> Attempt<S> for StartAbove {
    type Answer = JobRow;
    const ACTION: Action = Action::ExpireAboveCap;
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules))
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        let given = road.decide_approved(self).await?;
        let mut prepared = prepare(road, Some(self.up_to)).await?;
        prepared.detail.push(("up_to", self.up_to.to_string()));
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell_started(tenant.number, KIND, answer);
    }
}

impl<S: Store> Approvable<S> for StartAbove {
    fn asked(&self, _rules: &Rules) -> Asked {
        Asked { parts: vec![self.up_to.to_be_bytes().to_vec()], summary: summary::expire_above_cap(self.up_to) }
    }

    fn would_be_done(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.vault.erasing_time().map(drop)
    }
}

/// The job, which takes what is due now.
async fn prepare<S: Store>(road: &Road<'_, S>, limit: Option<u64>) -> Result<Prepared<JobRow>, Refused> {
    let started = road.vault.erasing_time()?;
    let row = JobRow { started, limit, ..jobs::next(road, KIND, None).await? };
    let mut prepared = jobs::prepare(road, KIND, row);
    prepared.guards.extend(road.rules_unchanged());
    Ok(prepared)
}

/// What somebody has to do before a job that found more than it may goes on.
pub(crate) fn waits_for(row: &JobRow) -> String {
    let (total, limit) = (row.total, row.limit.unwrap_or_default());
    match row.done {
        0 => format!(
            "approval: {total} values are due, and {limit} are erased without more: strongroom retention run --up-to {total}"
        ),
        done => {
            format!("more is due than was counted: {done} are erased, and {limit} may be: strongroom retention run")
        }
    }
}

/// When a value's time is over, if ever; nothing of one whose field is not declared.
pub(crate) fn ends(schema: &Schema, row: &ValueRow) -> Option<u64> {
    expiry(schema.field_no(row.field)?, row.created, row.expires)
}

/// Counts, in the next so many entries, the values that are due for the tenant's job. `false`: all are counted.
pub(crate) async fn count<S: Store>(
    vault: &Vault<S>,
    tenant: &Tenant,
    so_far: &mut Count,
    entries: usize,
) -> Result<bool, Error> {
    // Nothing is due by a clock that is not believed.
    vault.erasing_time()?;
    let Some(job) = jobs::load(&*vault.store, tenant.number, KIND).await? else { return Ok(false) };
    let place = (&mut so_far.stage, &mut so_far.cursor);
    let values = &STAGES[..=usize::from(VALUES)];
    let Some((_, page)) = jobs::next_page(vault, tenant.number, values, place, entries.min(READ)).await? else {
        return Ok(false);
    };
    let rules = tenant.rules();
    let is_due = |row: &ValueRow| ends(&rules.schema, row).is_some_and(|end| end <= job.started);
    let rows = page.iter().filter_map(|(_, bytes)| ValueRow::decode(bytes).ok());
    let due: Vec<ValueRow> = rows.filter(is_due).collect();
    let subjects = due.iter().map(|row| row.subject).filter(|subject| subject.is_some());
    let records = page::records(vault, tenant.number, subjects.collect()).await?;
    // What a holder's hold keeps would have to be asked of each holder.
    let is_frozen = |row: &ValueRow| {
        rules.schema.field_no(row.field).is_some_and(|field| rules.freezes.is_frozen(field, Touch::Writes))
    };
    let kept = due.iter().filter(|row| is_frozen(row) || page::keeps_own(&records, row, job.started));
    so_far.kept += kept.count() as u64;
    so_far.due += due.len() as u64;
    so_far.of += page.len() as u64;
    Ok(true)
}

impl<S: Store> Vault<S> {
    /// Starts to erase what is due by retention.
    pub async fn start_expire(&self, caller: &Caller, request: &StartExpire) -> Result<Job, Error> {
        let row = match request.up_to {
            0 => self.travel(caller, &Start { by_itself: false }).await?,
            up_to => {
                let start = StartAbove { up_to };
                self.approved(caller, &start).await?;
                self.travel(caller, &start).await?
            }
        };
        Ok(Job::of(KIND, &row))
    }

    /// Starts to erase what is due in all tenants where it is time for that. While the clock is not believed it is not.
    pub async fn start_due_expiries(&self) -> Result<(), Error> {
        let Some(every) = self.retention.every else { return Ok(()) };
        let mut failed = None;
        for tenant in self.tenants.numbers().into_iter().filter(|tenant| *tenant != SYSTEM_NO) {
            let Ok(now) = self.erasing_time() else { break };
            match self.start_due_expiry(tenant, every, now).await {
                Ok(()) => {}
                // Somebody was faster, or its time comes once the tenant is there again.
                Err(Error::JobRunning { .. } | Error::TenantLocked | Error::TenantDestroyed) => {}
                // The others shall not wait for it.
                Err(Error::DataLoss(place)) => self.damaged(place),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn start_due_expiry(&self, tenant: TenantNo, every: u64, now: u64) -> Result<(), Error> {
        let last = match jobs::load(&*self.store, tenant, KIND).await? {
            Some(row) if row.state == JobState::Running => return Ok(()),
            Some(row) => row.started,
            // What is new has nothing that is due.
            None => {
                let row = self.store.get(Family::Meta, place::tenant(tenant)).await?;
                TenantRow::decode(&row.ok_or(Error::DataLoss("a tenant's row"))?)?.created
            }
        };
        if last.saturating_add(every) <= now {
            self.travel(&jobs::itself(tenant), &Start { by_itself: true }).await?;
        }
        Ok(())
    }
}
