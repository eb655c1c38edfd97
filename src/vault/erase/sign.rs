//! The end of an erasure: it is signed what was done, and forgotten whose it was.

use std::collections::BTreeSet;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{KeyVersion, KeyringNo, SubjectHandle};
use strongroom_keys::{KeyInfo, KeyName, KeyState};
use strongroom_ledger::erasure::{self, ErasureReceipt};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{ErasureRow, ErasureStage, ErasureWork, JobKind, JobRow};
use strongroom_storage::{Family, Mutation, Store};

use super::clear::note_shared;
use super::{Name, REMEMBERED, day, erasure_fact, load_erasure, load_work, mark_leftovers, put_erasure, put_work};
use crate::error::Error;
use crate::jobs;
use crate::key_copies::Copies;
use crate::open::LANE;
use crate::road::{Attempt, Prepared, Refused, Road};
use crate::roll;
use crate::tenant::Tenant;
use crate::tenant_life::lives_on;
use crate::vault::Vault;

/// Signs what was done, and forgets whose it was.
pub(super) struct Sign {
    pub name: Name,
    /// Subjects whose DEKs were rolled before the files were looked to.
    pub rolled: BTreeSet<SubjectHandle>,
}

impl<S: Store> Attempt<S> for Sign {
    type Answer = ();
    const ACTION: Action = Action::EraseSubject;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        let mut prepared = road.prepare(());
        let mut row = load_erasure(store, tenant, &self.name).await?.ok_or(Error::NotFound)?;
        let records = road.subject_records(&row.open).await?;
        let (mut left, mut held, mut unrolled) = (Vec::new(), 0, 0);
        for subject in &row.open {
            let Some(work) = load_work(store, tenant, *subject).await? else { continue };
            if matches!(work.stage, ErasureStage::Clearing(_) | ErasureStage::Waiting(_)) {
                return Err(Error::Conflict.into());
            }
            let Some(record) = records.get(subject) else {
                prepared.mutations.push(Mutation::Delete(Family::Meta, place::erasure_work(tenant, *subject)));
                continue;
            };
            prepared.guards.push(Guard::Unchanged(Fact::subject_state(tenant, *subject)));
            left.push(*subject);
            held += work.held;
            let still = if self.rolled.contains(subject) { 0 } else { work.unrolled };
            if work.unrolled > 0 {
                // What was erased under them opens from a backup by whatever has wrapped them until now.
                note_shared(record, &mut row.keks);
            }
            unrolled += still;
            let stage = if work.stage == ErasureStage::Cleared {
                // One that has ended since clearing began counts: what was kept for it is still there.
                let began = record.erasure.map_or(0, |erasure| erasure.due);
                let until = record.holds.iter().map(|hold| hold.until).filter(|until| *until >= began).min();
                ErasureStage::Kept(until.unwrap_or(0))
            } else {
                work.stage
            };
            if (stage, still) != (work.stage, work.unrolled) {
                let work = ErasureWork { stage, unrolled: still, ..work };
                prepared.mutations.push(put_work(tenant, *subject, &work));
            }
        }
        row.open = left;
        let day = day(road.now)?;
        row.expires = if row.open.is_empty() { day.saturating_add(REMEMBERED) } else { 0 };
        row.receipt = receipt(road, &row, (held, unrolled), day).await?;
        let fact = erasure_fact(tenant, &self.name);
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        prepared.mutations.push(put_erasure(tenant, &self.name, &row));
        mark_leftovers(tenant, &mut prepared)?;
        prepared.detail.push(("stage", "signed".to_owned()));
        Ok(prepared)
    }
}

/// What is signed of an erasure.
async fn receipt<S: Store>(
    road: &Road<'_, S>,
    row: &ErasureRow,
    (held, unrolled): (u64, u64),
    day: u32,
) -> Result<String, Error> {
    let (vault, id) = (road.vault, road.tenant.id);
    let (mut keks, listed) = (vault.keystore.keys(id), Copies::load(vault).await?);
    keks.retain(|key| match key.name {
        KeyName::Kek(_, keyring) => may_open(row, keyring, key, &listed),
        _ => false,
    });
    let (copies, _) = lives_on(&listed, &keks);
    let kept = vault.backups_kept.get().copied();
    let receipt = ErasureReceipt {
        held,
        subject: row.subject,
        day,
        values: row.erased.values,
        shares: row.erased.shares,
        entries: row.erased.entries,
        consents: row.erased.consents,
        deks: row.erased.deks,
        unread: row.erased.unread,
        unrolled,
        keks: keks.iter().map(|key| (key.name.to_string(), key.version.0, key.state.to_string())).collect(),
        copies,
        // One that was made on that day, too.
        backups: kept.map(|days| day.saturating_add(days).saturating_add(1)),
    };
    let incarnation = vault.committer.head(road.tenant.number).map_or(1, |head| head.incarnation);
    let key = vault.keystore.ledger_key(id)?;
    erasure::sign(&receipt, (vault.id, id), (LANE, incarnation), &key.public_key(), |text| key.sign(text))
        .map_err(|_| Error::Internal("a receipt that can't be signed"))
}

/// Whether a backup may have a DEK of what was erased as this version of a KEK wrapped it, and somebody the version. From before a
/// rewrap it has the DEK as an older version did; one that was destroyed since lives on in copies of the keystore.
fn may_open(row: &ErasureRow, keyring: KeyringNo, key: &KeyInfo, listed: &Copies) -> bool {
    let wrapped = |(of, newest): &(KeyringNo, KeyVersion)| *of == keyring && key.version <= *newest;
    let lives = || key.state != KeyState::Destroyed || row.keks.contains(&(keyring, key.version)) || listed.holds(key);
    row.keks.iter().any(wrapped) && lives()
}

/// Asks that DEKs are rolled which are marked.
pub(super) struct AskRoll;

impl<S: Store> Attempt<S> for AskRoll {
    type Answer = JobRow;
    const ACTION: Action = Action::Roll;
    /// What was erased opens until it is done.
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        let row = jobs::next(road, JobKind::Roll, None).await?;
        Ok(jobs::prepare(road, JobKind::Roll, roll::of_what_is_marked(row)))
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &Self::Answer) {
        vault.jobs.tell_started(tenant.number, JobKind::Roll, answer);
    }
}
