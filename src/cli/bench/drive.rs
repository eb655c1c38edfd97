//! Drives the yardstick in this process: groups of requests on a few threads, until the load ends.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom_rocksdb::Background;

use super::measure::{self, Meter, Sample};
use super::pace::{Numbers, Until};
use super::process::Process;
use super::work::unfit;
use crate::cli::output::CliError;

/// Requests that are written in one go, as the vault's group commit does with what waits.
pub struct Group {
    first: u64,
    count: u64,
}

impl Group {
    /// The numbers of its requests.
    pub fn requests(&self) -> Range<u64> {
        self.first..self.first + self.count
    }
}

/// How requests are grouped.
#[derive(Clone, Copy)]
pub struct Grouping {
    /// Requests of a group.
    pub grouped: u64,
    /// Groups under way at once, each on a thread.
    pub at_once: usize,
    /// Values of a request.
    pub items: u64,
}

/// Does groups of requests. The latency of a group counts for each of its requests.
pub async fn drive(
    grouping: Grouping,
    until: Until,
    store: &Background,
    work: impl Fn(&Group) -> Result<(), CliError> + Send + Sync + 'static,
) -> Result<Sample, CliError> {
    let Grouping { grouped, at_once, items } = grouping;
    let groups = match until {
        Until::Requests(count) => Until::Requests(count.div_ceil(grouped)),
        lasted => lasted,
    };
    let (work, numbers) = (Arc::new(work), Arc::new(Numbers::new(groups)));
    let meter = Meter::start(Process::Own);
    numbers.began();
    let threads = (0..at_once).map(|_| {
        let (work, numbers) = (Arc::clone(&work), Arc::clone(&numbers));
        tokio::task::spawn_blocking(move || {
            let (mut latencies, mut done) = (measure::latencies(), 0);
            while let Some(number) = numbers.next() {
                let first = number * grouped;
                let count = match until {
                    Until::Requests(all) => grouped.min(all - first),
                    Until::Lasted(_) => grouped,
                };
                let begun = Instant::now();
                work(&Group { first, count })?;
                measure::note_many(&mut latencies, begun, count);
                done += count;
            }
            Ok::<_, CliError>((latencies, done))
        })
    });
    let (mut latencies, mut requests) = (measure::latencies(), 0);
    for thread in threads.collect::<Vec<_>>() {
        let (noted, done) =
            thread.await.map_err(|error| CliError::unfit(format!("the yardstick stopped: {error}")))??;
        // All have the same bounds.
        let _ = latencies.add(&noted);
        requests += done;
    }
    let wall = meter.elapsed();
    store.drain().await.map_err(unfit)?;
    Ok(meter.stop(wall, (requests, requests * items), latencies, Duration::ZERO))
}
