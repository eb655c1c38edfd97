//! Erasures: what was begun, has waited out its time of grace, or was held until now is finished; and what files still hold of
//! what was erased is written away.

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

/// Erases until `stop` completes. A store's work on its files is not cut off: it must be let go of before it can be opened
/// again.
pub(crate) async fn run<S: Store>(vault: &Vault<S>, stop: impl Future<Output = ()> + Clone) {
    let mut files = Files { since: None, rested: Instant::now() };
    while stop.clone().now_or_never().is_none() {
        let next = match work(vault, &mut files, stop.clone()).await {
            Ok(next) => next,
            Err(error) => {
                tokio::select! {
                    () = stop.clone() => {}
                    () = pause(&error, "erasures") => {}
                }
                continue;
            }
        };
        // What is left by now has left its mark: this returns at once then.
        tokio::select! {
            () = stop.clone() => {}
            () = vault.erasure_work() => {}
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

/// All that there is to do now. Says when to look again.
async fn work<S: Store>(
    vault: &Vault<S>,
    files: &mut Files,
    stop: impl Future<Output = ()> + Clone,
) -> Result<Duration, Error> {
    let stopped = || stop.clone().now_or_never().is_some();
    let (open, due) = vault.open_erasures().await?;
    let mut failed = None;
    for (tenant, name) in open {
        loop {
            if stopped() {
                return Ok(Duration::ZERO);
            }
            match vault.erasure_step(tenant, &name).await {
                Ok(true) => {}
                // It goes on when its tenant is unlocked, or went with it.
                Ok(false) | Err(Error::TenantLocked | Error::TenantDestroyed) => break,
                // The others shall not wait for it.
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let mut next = LOOK_EVERY;
    if let Some(due) = due {
        next = next.min(Duration::from_micros(due.saturating_sub(vault.time())) + Duration::from_millis(1));
    }
    let tenants = vault.tenants_with_leftovers().await?;
    if tenants.is_empty() {
        files.since = None;
        return Ok(next);
    }
    let at = (*files.since.get_or_insert_with(Instant::now) + GATHER).max(files.rested);
    let wait = at.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        return Ok(next.min(wait));
    }
    let began = Instant::now();
    for tenant in tenants {
        if stopped() {
            break;
        }
        vault.scrub_leftovers(tenant).await?;
    }
    *files = Files { since: None, rested: Instant::now() + began.elapsed() * REST };
    Ok(next)
}
