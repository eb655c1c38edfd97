//! What the vault does by itself: counts refusals into the ledger, takes leaves into tiles and into an index, removes those
//! that are archived, and forgets idempotency keys that have expired.

use std::future::Future;
use std::time::{Duration, Instant};

use strongroom_commit::{Change, Fact, Guard};
use strongroom_ids::TenantNo;
use strongroom_keys as keys;
use strongroom_ledger::leaf::LeafHeader;
use strongroom_ledger::refused::COUNTED;
use strongroom_storage::keys as place;
use strongroom_storage::rows::IdempotencyRow;
use strongroom_storage::{Family, Mutation, Store};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::pages::Pages;
use crate::refusals::Counted;
use crate::road;
use crate::vault::Vault;

/// How often counted refusals are written.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How many rounds of that lie between two searches for expired keys: an hour.
const FORGET_EVERY: u64 = 3_600;
/// How many rounds lie between two times that leaves are taken into tiles.
const FOLLOW_EVERY: u64 = 10;
/// How fast leaves are taken into tiles.
const TILES: Pace = Pace { steps: 8, alone: ALONE };
/// How fast they are taken into the index.
const INDEX: Pace = Pace { steps: 32, alone: ALONE };
/// How long either is gone on with in one round at most while the vault is alone. Two of these and what else is done in a
/// round are about the time between two.
const ALONE: Duration = Duration::from_millis(400);
/// Keys looked at in one step.
const PAGE: usize = 1_000;

/// How fast something follows the logs. Others of this house wait for a round of it; what is left is gone on with in the next.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Steps of one round while callers are there.
    pub steps: u32,
    /// How long a round goes on while they are not.
    pub alone: Duration,
}

impl Pace {
    /// Whether somebody else commits, if logs grew by so many leaves during the steps of one round: these have none. Groups would
    /// tell less: on a slow disk a step joins the group of many callers.
    fn in_company(self, leaves: u64) -> bool {
        leaves > u64::from(self.steps)
    }
}

/// What follows the logs.
#[derive(Clone, Copy)]
pub(crate) enum Following {
    /// Tiles.
    Tiles,
    /// The index of leaves.
    Index,
}

/// Logs in their order, from the one after `after` on and then the others: where a round can't do all of them, each has its
/// turn.
pub(crate) fn in_turn(mut logs: Vec<TenantNo>, after: Option<TenantNo>) -> Vec<TenantNo> {
    let begin = logs.partition_point(|log| after.is_some_and(|after| *log <= after));
    logs.rotate_left(begin);
    logs
}

impl<S: Store> Vault<S> {
    /// Runs until `stop` completes.
    pub async fn keep_house(&self, stop: impl Future<Output = ()>) {
        let (ending, ended) = oneshot::channel::<()>();
        let rounds = async move {
            self.keep_rounds(stop).await;
            drop(ending);
        };
        // Beside the rest, which does not wait for it. It is cut off wherever it waits, and goes on after the next start.
        let archives = async {
            tokio::select! {
                () = self.make_archives() => {}
                _ = ended => {}
            }
        };
        tokio::join!(rounds, archives);
    }

    async fn keep_rounds(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut round = 0_u64;
        let (mut followed, mut indexed) = (None, None);
        let mut tick = tokio::time::interval(COUNT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = tick.tick() => {}
            }
            self.look_at_space();
            self.write_counted_refusals().await;
            round += 1;
            if followed.is_some() || round.is_multiple_of(FOLLOW_EVERY) {
                followed = self.catch_up(Following::Tiles, TILES, followed).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "leaves are taken into tiles in a later round");
                    None
                });
            }
            if indexed.is_some() || round.is_multiple_of(FOLLOW_EVERY) {
                indexed = self.catch_up(Following::Index, INDEX, indexed).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "leaves are taken into the index in a later round");
                    None
                });
            }
            if round.is_multiple_of(FOLLOW_EVERY)
                && let Err(error) = self.mend_indexes().await
            {
                tracing::warn!(%error, "the index of leaves is looked through in a later round");
            }
            if round.is_multiple_of(FORGET_EVERY)
                && let Err(error) = self.forget_expired_keys().await
            {
                tracing::warn!(%error, "expired idempotency keys are left for the next round");
            }
            if round.is_multiple_of(FORGET_EVERY)
                && let Err(error) = self.forget_old_erasures().await
            {
                tracing::warn!(%error, "old erasures are forgotten in a later round");
            }
            if round.is_multiple_of(FORGET_EVERY)
                && let Err(error) = self.forget_old_counts().await
            {
                tracing::warn!(%error, "counts of earlier days are left for the next round");
            }
        }
    }

    /// Goes on with what follows the logs, after one of them: for a few steps, and for a part of the round while nobody else
    /// commits. Answers after which log to go on, if there may be more to do.
    pub(crate) async fn catch_up(
        &self,
        what: Following,
        pace: Pace,
        mut after: Option<TenantNo>,
    ) -> Result<Option<TenantNo>, Error> {
        let began = Instant::now();
        loop {
            let before = self.committer.leaves();
            after = match what {
                Following::Tiles => self.follow_logs(after, pace.steps).await?,
                Following::Index => self.index_logs(after, pace.steps).await?,
            };
            let company = pace.in_company(self.committer.leaves().saturating_sub(before));
            if after.is_none() || company || began.elapsed() >= pace.alone {
                return Ok(after);
            }
        }
    }

    /// One leaf for each kind of refusal that went beyond its caller's budget.
    pub(crate) async fn write_counted_refusals(&self) {
        let counted = self.refusals.take(self.now());
        for (what, count) in counted {
            if let Err(error) = self.write_counted(&what, count).await {
                tracing::warn!(%error, "counted refusals are written later");
                self.refusals.put_back(vec![(what, count)]);
            }
        }
    }

    async fn write_counted(&self, what: &Counted, count: u64) -> Result<(), Error> {
        // No leaf comes after the one that ends a tenant's log.
        let _turn = self.turn.read().await;
        // Nobody may know yet what became of its end.
        let there = match self.tenant(what.who.tenant) {
            Ok(tenant) => tenant.refresh(self).await,
            Err(error) => Err(error),
        };
        match there {
            Err(Error::TenantDestroyed) => return Ok(()),
            // Its log is there, if the tenant is.
            Err(Error::TenantLocked) if !self.tenants.is_unsure() => {}
            there => there?,
        }
        let rules = self.rules_in_force(what.who.tenant)?;
        let count = count.to_string();
        let request = keys::random::<16>()?;
        let header = LeafHeader {
            request: &request,
            principal: &what.who.principal,
            actor: what.who.actor.as_deref(),
            action: what.action,
            purpose: None,
            decision: road::refusal(what.reason),
            reason: Some(what.reason),
            policy: rules.policy.version,
            schema: rules.schema.version,
            keys: &[],
            client: "",
            detail: &[(COUNTED, &count)],
        };
        self.append(what.who.tenant, &header, vec![]).await
    }

    /// Removes idempotency rows whose time is over, a page a commit.
    pub(crate) async fn forget_expired_keys(&self) -> Result<(), Error> {
        for tenant in self.tenants.numbers() {
            let (from, to) = place::idempotency_range(tenant);
            let mut pages = Pages::new(Family::Idempotency, from, to).of(PAGE);
            loop {
                let position = self.committer.position();
                let Some(page) = pages.next(&*self.store).await? else { break };
                self.forget_page(tenant, position, page).await?;
            }
        }
        Ok(())
    }

    async fn forget_page(
        &self,
        tenant: TenantNo,
        position: strongroom_commit::Position,
        page: Vec<strongroom_storage::Entry>,
    ) -> Result<(), Error> {
        let now = self.now();
        let mut change =
            Change { position, guards: vec![], changes: vec![], mutations: vec![], leaves: vec![], charge: None };
        for (key, row) in page {
            if IdempotencyRow::decode(&row)?.expires <= now {
                let fact = Fact::idempotency(tenant, &key);
                change.guards.push(Guard::Unchanged(fact));
                change.changes.push(fact);
                change.mutations.push(Mutation::Delete(Family::Idempotency, key.to_vec()));
            }
        }
        if !change.mutations.is_empty() {
            self.committer.commit(change).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_commits_as_much_again_is_company() {
        let pace = Pace { steps: 8, alone: ALONE };
        assert!(!pace.in_company(0) && !pace.in_company(8));
        assert!(pace.in_company(9));
    }
}
