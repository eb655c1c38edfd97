//! The steps of erasures: which comes next, when, and at which pace; and what files still hold of what was erased.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use strongroom_commit::{Change, CommitError, Fact, Guard};
use strongroom_ids::{KeyringNo, RowId, SubjectHandle, TenantNo};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{ErasureRow, ErasureStage, ErasureWork, JobKind, JobState};
use strongroom_storage::{Family, KeyRange, Mutation, Range, Store};
use tokio::time::Instant;

use super::clear::{ClearPage, Close};
use super::sign::{AskRoll, Sign};
use super::{DAY, LEFTOVERS, Name, load_erasure, load_work};
use crate::error::Error;
use crate::jobs::{self, itself};
use crate::pages::Pages;
use crate::road::Caller;
use crate::throttle::Throttle;
use crate::vault::Vault;

/// Where something of a subject may stand, besides the log.
const FAMILIES: [Family; 8] = [
    Family::Subjects,
    Family::RowDeks,
    Family::Meta,
    Family::Index,
    Family::SubjectRows,
    Family::Holders,
    Family::Idempotency,
    Family::Rows,
];

/// Erasures of a tenant that are cleared and signed in turns, about. Those that are due come beside them: one is soon closed.
const AT_ONCE: usize = 256;
/// How long a roll that was ended, or had to leave something, is not asked for again, in microseconds: an hour.
const ASK_EVERY: u64 = 3_600_000_000;

/// The longest rest between two pages, so that a step which took long holds up no other erasure.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// The pace at which values of a tenant's subjects are cleared: a subject may have any number of them, and nobody reads them any more. So
/// it makes way for callers, as jobs do. What closes a subject, or signs a receipt, has no pace.
struct Pace {
    throttle: Throttle,
    /// Until when the page before has it rest.
    rests: Instant,
}

impl Default for Pace {
    /// Most subjects have a page of values, and somebody waits for the receipt.
    fn default() -> Self {
        Self { throttle: Throttle::in_haste(), rests: Instant::now() }
    }
}

/// What is known of the erasures of a tenant that are under way.
#[derive(Default)]
pub(crate) struct Erasing {
    pace: Pace,
    /// Those that are cleared and not signed, as far as that is known. A step that is cut off leaves them to their own next ones.
    cleared: BTreeSet<Name>,
}

/// What is to be done next of an erasure.
enum Next {
    Close(SubjectHandle),
    Clear(SubjectHandle),
    Sign,
    /// DEKs are marked, and no roll has taken them.
    Roll,
    Nothing,
}

impl<S: Store> Vault<S> {
    /// Waits until something may be left to do of an erasure.
    pub async fn erasure_work(&self) {
        self.erasures_left.notified().await;
    }

    /// Says for how many days a backup is kept, as its operators have it.
    pub fn keep_backups(&self, days: u32) {
        let _ = self.backups_kept.set(days);
    }

    /// Takes an erasure as far as it can be taken now.
    pub(super) async fn finish_erasure(&self, tenant: TenantNo, name: &Name) -> Result<(), Error> {
        while self.erasure_step(tenant, name).await? {}
        Ok(())
    }

    /// Takes the next step of an erasure. `false`: there is none now.
    pub async fn erasure_step(&self, tenant: TenantNo, name: &[u8; 16]) -> Result<bool, Error> {
        // One step of one at a time: two of a tenant would only turn each other back.
        let one = {
            let mut all = self.erasing.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(tenant).or_default())
        };
        let by = itself(tenant);
        let (mut erasing, next) = loop {
            let erasing = one.lock().await;
            let (next, rests) = (self.next_step(tenant, name).await?, erasing.pace.rests);
            if !matches!(next, Next::Clear(_)) || rests <= Instant::now() {
                break (erasing, next);
            }
            // Others of the tenant are closed and signed meanwhile.
            drop(erasing);
            tokio::time::sleep_until(rests).await;
        };
        match next {
            Next::Close(subject) => {
                self.travel(&by, &Close(subject)).await?;
                self.note_cleared(tenant, name, &mut erasing.cleared).await?;
            }
            Next::Clear(subject) => {
                self.clear_page(&by, subject, &mut erasing.pace).await?;
                self.note_cleared(tenant, name, &mut erasing.cleared).await?;
            }
            Next::Sign => self.sign_cleared(tenant, name, &mut erasing.cleared).await?,
            Next::Roll => match self.travel(&by, &AskRoll).await {
                Ok(_) => {}
                // It may have passed what is marked now: it is looked at again when it has ended.
                Err(Error::JobRunning { .. }) => return Ok(false),
                Err(error) => return Err(error),
            },
            Next::Nothing => return Ok(false),
        }
        Ok(true)
    }

    /// Clears a page, and notes how long none follows.
    async fn clear_page(&self, by: &Caller, subject: SubjectHandle, pace: &mut Pace) -> Result<(), Error> {
        let (before, began) = (self.commits(), Instant::now());
        self.travel(by, &ClearPage { subject, rows: pace.throttle.entries() }).await?;
        // The page itself is one commit; others are somebody else's.
        let company = self.commits().saturating_sub(before) > 1;
        let rest = pace.throttle.step(began.elapsed(), company);
        pace.rests = Instant::now() + rest.min(LONGEST_REST);
        Ok(())
    }

    /// Notes an erasure that is to be signed: whoever signs next takes it along.
    async fn note_cleared(&self, tenant: TenantNo, name: &Name, cleared: &mut BTreeSet<Name>) -> Result<(), Error> {
        if matches!(self.next_step(tenant, name).await?, Next::Sign) {
            cleared.insert(*name);
        }
        Ok(())
    }

    /// Signs an erasure, and those that have come as far: to get their keys out of the files takes hardly longer for many than for one.
    async fn sign_cleared(&self, tenant: TenantNo, name: &Name, cleared: &mut BTreeSet<Name>) -> Result<(), Error> {
        cleared.insert(*name);
        let (mut signs, mut ranges) = (Vec::with_capacity(cleared.len()), Vec::new());
        for other in cleared.clone() {
            match self.to_sign(tenant, other).await {
                Ok((sign, its)) => {
                    signs.push(sign);
                    ranges.extend(its);
                }
                Err(error) => {
                    // It is found again by its own next step, and the others shall not wait for it.
                    cleared.remove(&other);
                    if other == *name {
                        return Err(error);
                    }
                    tracing::warn!(%error, "the receipt of an erasure is signed later");
                }
            }
        }
        self.store.scrub(ranges).await?;
        // One that fails from here on is found again by its own next step.
        cleared.clear();
        let mut signed = Ok(());
        for sign in signs {
            match self.travel(&itself(tenant), &sign).await {
                Ok(()) => {}
                Err(error) if sign.name == *name => signed = Err(error),
                Err(error) => tracing::warn!(%error, "the receipt of an erasure is signed later"),
            }
        }
        signed
    }

    /// What signs an erasure, once no file has these keys any more.
    async fn to_sign(&self, tenant: TenantNo, name: Name) -> Result<(Sign, Vec<KeyRange>), Error> {
        // What is rolled later may leave its old version in files that are looked to before.
        let rolled = self.rolled(tenant, &name).await?;
        Ok((Sign { name, rolled }, self.keys_of(tenant, &name).await?))
    }

    async fn next_step(&self, tenant: TenantNo, name: &Name) -> Result<Next, Error> {
        let Some(row) = load_erasure(&*self.store, tenant, name).await? else { return Ok(Next::Nothing) };
        let (mut clear, mut waits, mut sign, mut roll) = (None, false, false, false);
        for subject in row.open {
            let Some(work) = load_work(&*self.store, tenant, subject).await? else { continue };
            match work.stage {
                ErasureStage::Waiting(due) | ErasureStage::Kept(due) if self.is_due(due) => {
                    return Ok(Next::Close(subject));
                }
                ErasureStage::Waiting(_) => waits = true,
                ErasureStage::Kept(_) if work.unrolled == 0 => {}
                // It is said again once it is done.
                ErasureStage::Kept(_) => match self.is_marked(tenant, subject).await? {
                    true => roll = roll || self.wants_roll(tenant).await?,
                    false => sign = true,
                },
                ErasureStage::Clearing(_) => clear = Some(subject),
                ErasureStage::Cleared => sign = true,
            }
        }
        // Of one who is still there nothing is signed: it would say that all is erased.
        Ok(match (clear, sign && !waits, roll) {
            (Some(subject), ..) => Next::Clear(subject),
            (None, true, _) => Next::Sign,
            (None, false, true) => Next::Roll,
            (None, false, false) => Next::Nothing,
        })
    }

    /// Whether a time is over, by a clock that is believed.
    pub(super) fn is_due(&self, due: u64) -> bool {
        self.erasing_time().is_ok_and(|now| due <= now)
    }

    /// The subjects of an erasure whose DEKs are rolled by now.
    async fn rolled(&self, tenant: TenantNo, name: &Name) -> Result<BTreeSet<SubjectHandle>, Error> {
        let mut rolled = BTreeSet::new();
        for subject in load_erasure(&*self.store, tenant, name).await?.map(|row| row.open).unwrap_or_default() {
            if !self.is_marked(tenant, subject).await? {
                rolled.insert(subject);
            }
        }
        Ok(rolled)
    }

    /// Whether a subject has DEKs that are marked, beside the one of its id.
    async fn is_marked(&self, tenant: TenantNo, subject: SubjectHandle) -> Result<bool, Error> {
        let (from, _) = place::dek_marks_range(tenant, subject, KeyringNo(1));
        let (_, to) = place::dek_marks_range(tenant, subject, KeyringNo(u16::MAX));
        Ok(!self.store.scan(Family::Meta, Range { from, to, limit: 1 }).await?.is_empty())
    }

    /// Whether a roll of what is marked is to be asked for.
    async fn wants_roll(&self, tenant: TenantNo) -> Result<bool, Error> {
        let job = jobs::load(&*self.store, tenant, JobKind::Roll).await?;
        Ok(job.is_none_or(|job| match job.state {
            JobState::Running => false,
            // It had passed them already.
            JobState::Done if job.skipped == 0 => true,
            // Somebody has ended it, or a key is missing: not at once again.
            _ => job.updated.saturating_add(ASK_EVERY) <= self.now(),
        }))
    }

    /// Where the DEKs were that an erasure destroyed, and what led from the subjects' ids to them: no file may have them any more.
    async fn keys_of(&self, tenant: TenantNo, name: &Name) -> Result<Vec<KeyRange>, Error> {
        let mut ranges = Vec::new();
        let row = load_erasure(&*self.store, tenant, name).await?;
        for subject in row.map(|row| row.open).unwrap_or_default() {
            let Some(work) = load_work(&*self.store, tenant, subject).await? else { continue };
            let from = place::subject(tenant, subject);
            ranges.push(KeyRange { family: Family::Subjects, to: place::prefix_end(&from), from });
            if !work.mapping.is_empty() {
                let from = work.mapping;
                ranges.push(KeyRange { family: Family::Index, to: place::prefix_end(&from), from });
            }
            if work.alone.1 != RowId(0) {
                let (from, last) = (place::row_dek(tenant, work.alone.0), place::row_dek(tenant, work.alone.1));
                ranges.push(KeyRange { family: Family::RowDeks, to: place::prefix_end(&last), from });
            }
        }
        Ok(ranges)
    }

    /// The erasures that can go on now, and when the next one can, in microseconds since 1970, if that is known. First those of which
    /// something is to be closed, all of them; then some others of each tenant.
    pub async fn open_erasures(&self) -> Result<(Vec<(TenantNo, [u8; 16])>, Option<u64>), Error> {
        let (mut due, mut begun, mut next) = (BTreeSet::new(), BTreeSet::new(), None::<u64>);
        for tenant in self.tenants.numbers() {
            let (from, to) = place::erasure_works_range(tenant);
            let mut pages = Pages::new(Family::Meta, from, to);
            let (mut names, mut asks) = (BTreeSet::new(), false);
            while let Some(page) = pages.next(&*self.store).await? {
                for (key, bytes) in page {
                    let (Ok(subject), Ok(work)) = (place::decode_erasure_work(&key), ErasureWork::decode(&bytes))
                    else {
                        self.damaged("what is left of an erasure");
                        continue;
                    };
                    if let ErasureStage::Waiting(until) | ErasureStage::Kept(until) = work.stage {
                        if self.is_due(until) {
                            due.insert((tenant, work.erasure));
                            continue;
                        }
                        next = Some(next.map_or(until, |next| next.min(until)));
                        if !matches!(work.stage, ErasureStage::Kept(_)) || work.unrolled == 0 || names.len() >= AT_ONCE
                        {
                            continue;
                        }
                        // The roll that one of them asks for takes all; those that it has taken are signed for.
                        if self.is_marked(tenant, subject).await? && std::mem::replace(&mut asks, true) {
                            continue;
                        }
                    }
                    if names.len() < AT_ONCE {
                        names.insert((tenant, work.erasure));
                    }
                }
            }
            begun.append(&mut names);
        }
        let begun = begun.into_iter().filter(|one| !due.contains(one));
        Ok((due.iter().copied().chain(begun).collect(), next))
    }

    /// Tenants of which files may still hold what was erased.
    pub async fn tenants_with_leftovers(&self) -> Result<Vec<TenantNo>, Error> {
        let mut tenants = Vec::new();
        for tenant in self.tenants.numbers() {
            if self.store.get(Family::Meta, place::leftovers(tenant)).await?.is_some() {
                tenants.push(tenant);
            }
        }
        Ok(tenants)
    }

    /// Sees that no file holds what was erased of a tenant's subjects. It rewrites all that the tenant has.
    pub async fn scrub_leftovers(&self, tenant: TenantNo) -> Result<(), Error> {
        let fact = Fact::erasure(tenant, LEFTOVERS);
        let before = self.store.get(Family::Meta, place::leftovers(tenant)).await?;
        let own = tenant.0.to_be_bytes().to_vec();
        let all = FAMILIES.map(|family| KeyRange { family, from: own.clone(), to: place::prefix_end(&own) });
        self.store.scrub(all.to_vec()).await?;
        let position = self.committer.position();
        if self.store.get(Family::Meta, place::leftovers(tenant)).await? != before {
            // More was erased meanwhile.
            return Ok(());
        }
        let mutations = vec![Mutation::Delete(Family::Meta, place::leftovers(tenant))];
        let (guards, changes) = (vec![Guard::Unchanged(fact)], vec![fact]);
        match self.committer.commit(Change { position, guards, changes, mutations, leaves: vec![], charge: None }).await
        {
            // More was erased just now: once more, then.
            Ok(_) | Err(CommitError::Conflict(_) | CommitError::TooOld) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets erasures of which nothing was left so long ago that nobody asks any more.
    pub(crate) async fn forget_old_erasures(&self) -> Result<(), Error> {
        let today = self.now() / DAY;
        for tenant in self.tenants.numbers() {
            let (from, to) = place::erasures_range(tenant);
            let mut pages = Pages::new(Family::Meta, from, to);
            while let Some(page) = pages.next(&*self.store).await? {
                let is_over = |row: &ErasureRow| row.expires > 0 && u64::from(row.expires) <= today;
                let mut gone = Vec::new();
                for (key, row) in &page {
                    let Ok(row) = ErasureRow::decode(row) else { continue };
                    let is_over = match &row.same {
                        Some(same) => load_erasure(&*self.store, tenant, same).await?.is_none_or(|same| is_over(&same)),
                        None => is_over(&row),
                    };
                    if is_over {
                        gone.push(Mutation::Delete(Family::Meta, key.to_vec()));
                    }
                }
                if !gone.is_empty() {
                    self.commit_unguarded(gone, vec![]).await?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use strongroom_access::Role;

    use super::*;
    use crate::erase::EraseSubject;
    use crate::tests::rig::{Bench, caller, store_one};

    const TENANT: TenantNo = TenantNo(1);
    const DAY: u64 = 24 * 3_600;

    #[tokio::test]
    async fn while_one_rests_between_two_pages_others_are_closed_and_signed() {
        let (bench, vault) = Bench::new().await;
        let mut names = Vec::new();
        for (subject, days) in [("c-1", 0), ("c-2", 1)] {
            store_one(&vault, "borrower.name", "Ann", subject).await;
            let grace = days * DAY * 1_000_000;
            let request = EraseSubject { subject: subject.to_owned(), grace, idempotency_key: String::new() };
            names.push(vault.travel(&caller(Role::Privacy), &request).await.unwrap().unwrap().unwrap());
        }
        bench.pass(2 * DAY);
        let (open, _) = vault.open_erasures().await.unwrap();
        assert_eq!(open, [(TENANT, names[1]), (TENANT, names[0])], "what is due comes first");
        let tenants = || vault.erasing.lock().unwrap_or_else(PoisonError::into_inner);
        let erasing = Arc::clone(tenants().entry(TENANT).or_default());
        erasing.lock().await.pace.rests = Instant::now() + Duration::from_secs(3_600);
        let others = async { while vault.erasure_step(TENANT, &names[1]).await.unwrap() {} };
        // That one is cleared by pages, too.
        let closed = async { assert!(vault.erasure_step(TENANT, &names[1]).await.unwrap()) };
        tokio::select! {
            biased;
            _ = vault.erasure_step(TENANT, &names[0]) => panic!("it rests"),
            () = closed => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it waits for the rest of another one"),
        }
        assert!(matches!(vault.next_step(TENANT, &names[1]).await.unwrap(), Next::Clear(_)));
        erasing.lock().await.pace.rests = Instant::now();
        others.await;
        assert!(matches!(vault.next_step(TENANT, &names[1]).await.unwrap(), Next::Nothing));
    }

    #[tokio::test]
    async fn as_many_as_are_cleared_keep_none_that_is_due_from_being_listed() {
        let (bench, vault) = Bench::new().await;
        let ask = async |number: usize, grace: u64| {
            let subject = format!("c-{number}");
            store_one(&vault, "borrower.name", "Ann", &subject).await;
            let request = EraseSubject { subject, grace: grace * 1_000_000, idempotency_key: String::new() };
            vault.travel(&caller(Role::Privacy), &request).await.unwrap().unwrap().unwrap()
        };
        for number in 0..AT_ONCE + 10 {
            ask(number, 0).await;
        }
        // The newest subjects come last in every listing.
        let late = [ask(AT_ONCE + 10, DAY).await, ask(AT_ONCE + 11, DAY).await];
        bench.pass(2 * DAY);
        let (open, _) = vault.open_erasures().await.unwrap();
        assert_eq!(open.len(), AT_ONCE + 2);
        assert!(late.iter().all(|name| open[..2].contains(&(TENANT, *name))));
    }
}
