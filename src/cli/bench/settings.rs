//! What a measurement is made with: what counts as said, what holds where nothing is said, and what the report says of it.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::growth::Extent;
use super::latency::Pacing;
use super::{Args, generator, loads, rig};
use crate::cli::output::CliError;

/// What says how much is measured; --quick says it by itself.
pub(super) const SIZES: [&str; 10] =
    ["runs", "requests", "batches", "seconds", "warm_up", "stored", "growth", "deks", "subjects", "leaves"];

/// What says anything about a measurement.
pub(super) const MEASURING: [&str; 24] = [
    "folder",
    "runs",
    "requests",
    "batches",
    "seconds",
    "warm_up",
    "connections",
    "in_flight",
    "batches_in_flight",
    "stored",
    "quick",
    "all",
    "parts",
    "growth",
    "deks",
    "subjects",
    "leaves",
    "peers",
    "peers_state",
    "report",
    "profile",
    "plot",
    "keep",
    generator::GROUP,
];

/// How long a load of a peer goes on at least: their processor time is told in ticks, and their connections' start is in it.
const PEER_SECONDS: f64 = 10.0;
/// How long each rate of a part is kept.
const PART_SECONDS: f64 = 3.0;
/// How long a quick measurement takes for either.
pub(super) const QUICK_SECONDS: f64 = 0.3;
const QUICK_PEER_SECONDS: f64 = 1.0;

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write seconds, at most 86,400".to_owned()),
    }
}

/// How long something is measured: nothing comes of less than this.
pub(super) fn lasting(text: &str) -> Result<f64, String> {
    match seconds(text) {
        Ok(seconds) if seconds >= 0.1 => Ok(seconds),
        _ => Err("write seconds, from 0.1 to 86,400".to_owned()),
    }
}

impl Args {
    pub(super) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { QUICK_SECONDS } else { PART_SECONDS }))
    }

    pub(super) fn peer_seconds(&self) -> f64 {
        if self.quick { QUICK_PEER_SECONDS } else { PEER_SECONDS.max(self.seconds.unwrap_or(0.0)) }
    }

    /// What to keep in mind of the figures.
    pub(super) fn notes(&self) -> Vec<&'static str> {
        let in_memory =
            "the folder is in memory (tmpfs): a sync there costs nothing, so these are no figures of a disk";
        let quick = "one short run, to see that it works (--quick): its figures mean little";
        let notes = [on_memory(&self.folder).then_some(in_memory), self.quick.then_some(quick)];
        notes.into_iter().flatten().collect()
    }

    pub(super) fn pacing(&self) -> Pacing {
        Pacing { connections: self.connections.into(), time: self.time(), runs: self.runs }
    }

    pub(super) fn extent(&self) -> Extent {
        Extent {
            tokens: self.growth.unwrap_or(10_000_000),
            connections: self.connections.into(),
            in_flight: self.size().in_flight,
            time: self.time(),
            runs: self.runs,
        }
    }

    pub(super) fn setting(&self) -> serde_json::Value {
        let size = self.size();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "runs": self.runs,
            "seconds": self.seconds,
            "part_seconds": self.time().as_secs_f64(),
            "warm_up_seconds": self.warm_up().as_secs_f64(),
            "connections": size.connections,
            "unary_requests": size.seconds.is_none().then_some(size.requests),
            "unary_in_flight": size.in_flight,
            "batches": size.seconds.is_none().then_some(size.batches),
            "batch_items": loads::BATCH,
            "batches_in_flight": size.batches_in_flight,
            "stored_values": self.stored(),
            "stored_single_values": rig::singles(self.stored()),
            "leaves": self.leaves(),
        })
    }

    /// Where peers that were interrupted left their state.
    pub(super) fn left_by_peers(&self) -> String {
        self.peers.as_ref().map(|_| format!(" and {}", self.peers_state.display())).unwrap_or_default()
    }

    pub(super) fn tidy(&self) -> Result<(), CliError> {
        match self.keep {
            true => Ok(()),
            false => std::fs::remove_dir_all(&self.folder).map_err(|error| CliError::file(&self.folder, error)),
        }
    }
}

/// Whether a folder is in memory only.
fn on_memory(folder: &Path) -> bool {
    const TMPFS: i128 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS)
}
