//! Background jobs: when their next step is taken.
//!
//! What a step is, the vault knows: each step of a job takes the road of any request, as the vault itself. Here is only the
//! pace: a job goes on after a restart, makes way for callers, waits while the vault cannot write, and ends when it is told
//! to. Beside the jobs, what was begun of making or destroying a tenant is finished (`tenants`), and of erasing a data subject
//! (`erasures`), and what is due by retention is begun to be erased when it is time (`retention`).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod erasures;
mod retention;
mod tenants;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use strongroom_ids::TenantNo;
use strongroom_storage::Store;
use strongroom_storage::rows::JobKind;
use strongroom_vault::{Count, Error, Job, JobPage, Throttle, Vault};

/// How long a job waits when its vault cannot write just now, and when something is wrong that a person must put right.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);

/// An entry is counted in this part of the time that it takes to do it.
const EASY: usize = 8;

/// Does what jobs there are, those that a restart cut off first, until `stop` completes.
pub async fn run<S: Store>(vault: &Vault<S>, stop: impl Future<Output = ()>) {
    let stop = stop.shared();
    let others = async {
        tokio::select! {
            () = stop.clone() => {}
            () = all(vault) => {}
        }
    };
    tokio::join!(
        others,
        tenants::run(vault, stop.clone()),
        erasures::run(vault, stop.clone()),
        retention::run(vault, stop.clone()),
    );
}

async fn all<S: Store>(vault: &Vault<S>) {
    let mut at_work = FuturesUnordered::new();
    let mut known = BTreeSet::new();
    loop {
        match vault.running_jobs().await {
            Ok(running) => {
                for (tenant, job) in running {
                    let which = (tenant, job.kind);
                    if known.insert(which) {
                        at_work.push(async move {
                            take(vault, tenant, job).await;
                            which
                        });
                    }
                }
            }
            Err(error) => {
                pause(&error, "jobs").await;
                continue;
            }
        }
        tokio::select! {
            Some(which) = at_work.next(), if !at_work.is_empty() => drop(known.remove(&which)),
            // One that was started meanwhile has left its mark: this returns at once then.
            () = vault.job_started() => {}
        }
    }
}

/// Takes a tenant's job to its end, or to what a person must put right.
async fn take<S: Store>(vault: &Vault<S>, tenant: TenantNo, mut job: Job) {
    let mut throttle = Throttle::default();
    let (mut total, mut of, mut kept) = (None, 0, 0);
    loop {
        if job.to_count && total.is_none() {
            match count(vault, tenant, job.kind, &mut throttle).await {
                Ok(counted) => (total, of, kept) = (Some(counted.due), counted.of, counted.kept),
                Err(error) => return pause(&error, &job.name).await,
            }
        }
        let (before, began) = (vault.commits(), Instant::now());
        let (kind, number, entries) = (job.kind, job.number, throttle.entries());
        let page = JobPage { kind, number, entries, total: total.take(), of, kept };
        match vault.job_page(tenant, page).await {
            Ok(job) if !job.waits_for.is_empty() => {
                tracing::warn!(tenant = tenant.0, job = job.name, waits_for = job.waits_for, "a job waits");
                return;
            }
            Ok(job) if !job.is_running() => {
                let (done, skipped) = (job.done, job.skipped);
                tracing::info!(tenant = tenant.0, job = job.name, done, skipped, "a job has ended");
                return;
            }
            Ok(further) => {
                job = further;
                // The step itself is one commit; others are somebody else's.
                let company = vault.commits().saturating_sub(before) > 1;
                tokio::time::sleep(throttle.step(began.elapsed(), company)).await;
            }
            // It was cancelled, or its tenant is gone, or locked: then it goes on when that is unlocked.
            Err(Error::JobEnded(_) | Error::TenantDestroyed | Error::TenantLocked) => return,
            Err(error) => return pause(&error, &job.name).await,
        }
    }
}

/// How many DEKs, index entries or values a job has to do with.
async fn count<S: Store>(
    vault: &Vault<S>,
    tenant: TenantNo,
    kind: JobKind,
    throttle: &mut Throttle,
) -> Result<Count, Error> {
    let mut count = Count::default();
    loop {
        let (before, began) = (vault.commits(), Instant::now());
        if !vault.count_for_job(tenant, kind, &mut count, throttle.entries() * EASY).await? {
            return Ok(count);
        }
        // To count is no commit: all of them are somebody else's.
        let company = vault.commits() > before;
        tokio::time::sleep(throttle.step(began.elapsed(), company)).await;
    }
}

/// Waits until an error may have passed.
async fn pause(error: &Error, what: &str) {
    let passes = matches!(error, Error::Recovering | Error::Overloaded { .. } | Error::Unknown | Error::Conflict);
    if !passes {
        tracing::error!(%error, what, "background work can't go on; it is tried again in a minute");
    }
    tokio::time::sleep(if passes { SOON } else { LATER }).await;
}
