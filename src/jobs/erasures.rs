//! Erasures: what was begun, has waited out its time of grace, or was held until now is finished; and what files still hold of
//! what was erased is written away.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use strongroom_ids::TenantNo;
use strongroom_storage::Store;
use strongroom_vault::{Error, Vault};

use crate::pause;

/// How often it is looked whether anything is due, if nobody says so before.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long leftovers wait, so that erasures that follow one another have theirs written away together.
const GATHER: Duration = Duration::from_secs(2);
/// To write them away rewrites all that a tenant has: it rests so many times as long as that takes.
const REST: u32 = 20;

/// How often all that is left to do is looked through again, if nothing is known to be due before.
const LOOK_THROUGH: Duration = Duration::from_secs(600);

/// Erases until `stop` completes. A store's work on its files is not cut off: it must be let go of before it can be opened
/// again.
pub(crate) async fn run<S: Store>(vault: &Vault<S>, stop: impl Future<Output = ()> + Clone) {
    let mut files = Files { since: None, rested: Instant::now() };
    let (mut look, mut turns) = (Look::now(), Turns::default());
    while stop.clone().now_or_never().is_none() {
        let next = match work(vault, (&mut look, &mut turns), &mut files, stop.clone()).await {
            Ok(next) => next,
            Err(error) => {
                look = Look::now();
                tokio::select! {
                    () = stop.clone() => {}
                    () = vault.erasure_work() => {}
                    () = pause(&error, "erasures") => {}
                }
                continue;
            }
        };
        // What is left by now has left its mark: this returns at once then.
        tokio::select! {
            () = stop.clone() => {}
            () = vault.erasure_work() => look = Look::now(),
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// When files are rewritten.
struct Files {
    /// Since when there are leftovers.
    since: Option<Instant>,
    /// When it has rested enough.
    rested: Instant,
}

/// When it is looked through what is left to do: that reads something of each erasure that waits.
struct Look {
    /// Something is due then, in microseconds since 1970, if that is known.
    due: Option<u64>,
    /// At the latest then.
    latest: Instant,
}

impl Look {
    fn now() -> Self {
        Self { due: None, latest: Instant::now() }
    }

    fn is_due(&self, now: u64) -> bool {
        self.due.is_some_and(|due| due <= now) || self.latest <= Instant::now()
    }
}

/// An erasure: its tenant, and its name.
type Erasure = (TenantNo, [u8; 16]);

/// Whose turn it is. It goes on from one look to the next, so that however long a step takes, and however many there are, each
/// erasure has its turn.
#[derive(Default)]
struct Turns {
    /// Those that go on, the next one first.
    line: VecDeque<Erasure>,
    /// Those of which there was nothing more to do when they had their turn.
    passed: VecDeque<Erasure>,
}

impl Turns {
    /// Begins with what was found to be open. What was not known comes first, in its order: what has fallen due is among that.
    fn begin(&mut self, open: Vec<Erasure>) {
        self.line.append(&mut self.passed);
        let known: BTreeSet<Erasure> = self.line.iter().copied().collect();
        let there: BTreeSet<Erasure> = open.iter().copied().collect();
        self.line.retain(|one| there.contains(one));
        for one in open.into_iter().rev().filter(|one| !known.contains(one)) {
            self.line.push_front(one);
        }
    }

    /// The one whose turn it is.
    fn first(&self) -> Option<Erasure> {
        self.line.front().copied()
    }

    /// It has had its turn.
    fn next(&mut self, goes_on: bool) {
        let Some(one) = self.line.pop_front() else { return };
        let line = if goes_on { &mut self.line } else { &mut self.passed };
        line.push_back(one);
    }
}

/// All that there is to do now. Says when to look again. What can't be done of one erasure, or in one tenant, keeps no other from
/// being done.
async fn work<S: Store>(
    vault: &Vault<S>,
    (look, turns): (&mut Look, &mut Turns),
    files: &mut Files,
    stop: impl Future<Output = ()> + Clone,
) -> Result<Duration, Error> {
    let mut failed = None;
    if look.is_due(vault.time()) {
        *look = erase(vault, turns, stop.clone(), &mut failed).await;
    }
    // What was not finished goes on, once what has fallen due was looked for.
    let mut next = if look.latest <= Instant::now() { Duration::ZERO } else { LOOK_EVERY };
    // What is due and yet was not begun waits for somebody who says that the clock is right.
    if let Some(due) = look.due.filter(|due| *due > vault.time()) {
        next = next.min(Duration::from_micros(due.saturating_sub(vault.time())) + Duration::from_millis(1));
    }
    let next = match rewrite(vault, files, stop).await {
        Ok(wait) => next.min(wait),
        Err(error) => {
            failed.get_or_insert(error);
            next
        }
    };
    failed.map_or(Ok(next), Err)
}

/// Takes erasures as far as they can be taken now. Says when to look again.
async fn erase<S: Store>(
    vault: &Vault<S>,
    turns: &mut Turns,
    stop: impl Future<Output = ()> + Clone,
    failed: &mut Option<Error>,
) -> Look {
    let (open, due) = match vault.open_erasures().await {
        Ok(found) => found,
        Err(error) => {
            failed.get_or_insert(error);
            return Look::now();
        }
    };
    // What was taken on may go on later, and what was not may be able to then.
    let wait = if open.is_empty() { LOOK_THROUGH } else { LOOK_EVERY };
    // In turns, so that no subject waits to be closed until the values of others are cleared; and what has fallen due meanwhile is
    // looked for now and then.
    turns.begin(open);
    let until = Instant::now() + LOOK_EVERY;
    while let Some((tenant, name)) = turns.first() {
        if stop.clone().now_or_never().is_some() {
            break;
        }
        if Instant::now() >= until {
            return Look::now();
        }
        let step = vault.erasure_step(tenant, &name).await;
        turns.next(matches!(step, Ok(true)));
        match step {
            // It goes on when its tenant is unlocked or no longer frozen, or went with it.
            Ok(_) | Err(Error::TenantLocked | Error::TenantDestroyed | Error::Frozen { .. }) => {}
            // The others shall not wait for it.
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    Look { due, latest: Instant::now() + wait }
}

/// Writes leftovers away, if it is time for that. Says how long it waits.
async fn rewrite<S: Store>(
    vault: &Vault<S>,
    files: &mut Files,
    stop: impl Future<Output = ()> + Clone,
) -> Result<Duration, Error> {
    let tenants = vault.tenants_with_leftovers().await?;
    if tenants.is_empty() {
        files.since = None;
        return Ok(LOOK_EVERY);
    }
    let at = (*files.since.get_or_insert_with(Instant::now) + GATHER).max(files.rested);
    let wait = at.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        return Ok(wait);
    }
    let began = Instant::now();
    let mut failed = None;
    for tenant in tenants {
        if stop.clone().now_or_never().is_some() {
            break;
        }
        if let Err(error) = vault.scrub_leftovers(tenant).await {
            failed.get_or_insert(error);
        }
    }
    *files = Files { since: None, rested: Instant::now() + began.elapsed() * REST };
    failed.map_or(Ok(LOOK_EVERY), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(number: u8) -> Erasure {
        (TenantNo(1), [number; 16])
    }

    /// Has so many take their turns, none of which comes to its end.
    fn take(turns: &mut Turns, count: usize) -> Vec<Erasure> {
        let mut took = Vec::new();
        for _ in 0..count {
            took.extend(turns.first());
            turns.next(true);
        }
        took
    }

    #[test]
    fn what_falls_due_beside_many_that_are_cleared_slowly_is_closed_at_the_next_look() {
        let clearing: Vec<Erasure> = (1..=250).map(named).collect();
        let mut turns = Turns::default();
        turns.begin(clearing.clone());
        assert_eq!(take(&mut turns, 20), clearing[..20]);
        let open: Vec<Erasure> = [named(255)].into_iter().chain(clearing.clone()).collect();
        turns.begin(open.clone());
        assert_eq!(take(&mut turns, 20), [&[named(255)][..], &clearing[20..39]].concat());
        // However often it is looked, and whatever falls due, all have their turns.
        let mut took = BTreeSet::new();
        for _ in 0..13 {
            turns.begin(open.clone());
            took.extend(take(&mut turns, 20));
        }
        assert_eq!(took.len(), open.len());
    }

    #[test]
    fn what_cannot_go_on_is_tried_once_a_look_and_lets_the_others_go_first_then() {
        let mut turns = Turns::default();
        let open = vec![named(1), named(2), named(3)];
        turns.begin(open.clone());
        turns.next(false);
        turns.next(false);
        assert_eq!(take(&mut turns, 2), [named(3), named(3)]);
        turns.begin(open);
        assert_eq!(take(&mut turns, 3), [named(3), named(1), named(2)]);
        turns.begin(vec![named(2)]);
        assert_eq!(take(&mut turns, 2), [named(2), named(2)], "what is done is forgotten");
    }
}
