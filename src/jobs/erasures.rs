//! Erasures: what was begun, has waited out its time of grace, or was held until now is finished; and what files still hold of
//! what was erased is written away.

use std::collections::VecDeque;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
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
    let mut look = Look::now();
    while stop.clone().now_or_never().is_none() {
        let next = match work(vault, &mut look, &mut files, stop.clone()).await {
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

/// All that there is to do now. Says when to look again. What can't be done of one erasure, or in one tenant, keeps no other from
/// being done.
async fn work<S: Store>(
    vault: &Vault<S>,
    look: &mut Look,
    files: &mut Files,
    stop: impl Future<Output = ()> + Clone,
) -> Result<Duration, Error> {
    let mut failed = None;
    if look.is_due(vault.time()) {
        *look = erase(vault, stop.clone(), &mut failed).await;
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
async fn erase<S: Store>(vault: &Vault<S>, stop: impl Future<Output = ()> + Clone, failed: &mut Option<Error>) -> Look {
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
    let (mut open, until) = (VecDeque::from_iter(open), Instant::now() + LOOK_EVERY);
    while let Some((tenant, name)) = open.pop_front() {
        if stop.clone().now_or_never().is_some() {
            break;
        }
        if Instant::now() >= until {
            return Look::now();
        }
        match vault.erasure_step(tenant, &name).await {
            Ok(true) => open.push_back((tenant, name)),
            // It goes on when its tenant is unlocked or no longer frozen, or went with it.
            Ok(false) | Err(Error::TenantLocked | Error::TenantDestroyed | Error::Frozen { .. }) => {}
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
