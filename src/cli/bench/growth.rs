//! Growth: what changes when there are a hundred times as many tokens, in a vault of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bars::Bars;
use super::child::Child;
use super::load::{Pace, Plan};
use super::measure::{Middle, Sample};
use super::pace::Until;
use super::picks::Spread;
use super::population::Shape;
use super::rig::{Filling, Values};
use super::served;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, short, spread};
use super::workload::Kind;
use crate::cli::dev;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;

/// Tokens at the beginning.
pub const FEW: u64 = 100_000;
/// Values that are stored before the clients give their tokens away: what they hold meanwhile is bounded.
const STAGE: u64 = 1_000_000;
/// How long compactions may take after filling, and for how long their vault is quiet when they have ended.
const SETTLES: Duration = Duration::from_secs(300);
const QUIET: Duration = Duration::from_secs(1);
/// Values that are being written when the vault is killed.
const LOST: u64 = 50_000;

/// How growth is measured.
#[derive(Clone, Copy)]
pub struct Extent {
    /// Tokens at the end.
    pub tokens: u64,
    /// Connections.
    pub connections: usize,
    /// Requests under way.
    pub in_flight: usize,
    /// How long one run of reads goes on.
    pub time: Duration,
    /// Runs, of which the median counts.
    pub runs: u16,
}

/// A vault of one size.
pub struct Stage {
    /// Tokens.
    tokens: u64,
    /// Runs of Detokenize, one token a request, every token as often as any other.
    reads: Vec<Sample>,
    /// Bytes of memory at the end of them, and ever.
    memory: (Option<u64>, Option<u64>),
}

impl Stage {
    fn speed(&self) -> Middle {
        Middle::of(self.reads.iter().map(Sample::requests_per_second))
    }

    fn cpu(&self) -> Middle {
        Middle::of(self.reads.iter().map(Sample::server_cpu_per_request))
    }

    fn p99(&self) -> Middle {
        Middle::of(self.reads.iter().map(|sample| sample.latency(0.99) / 1_000.0))
    }
}

/// Growth, measured.
pub struct Growth {
    /// Small, and large.
    stages: [Stage; 2],
    /// Seconds to fill from the one to the other.
    fill: f64,
    /// Values stored a second meanwhile.
    fill_speed: f64,
    /// Seconds from the start of the process until health answered SERVING: after a clean stop, and after kill -9.
    starts: (f64, f64),
}

impl Growth {
    /// Bars' steps that it takes.
    pub fn steps(extent: Extent) -> u64 {
        2 + extent.tokens.saturating_sub(FEW).div_ceil(STAGE) + 2 * (1 + u64::from(extent.runs))
    }

    /// Makes a vault in a folder, and measures it small and large.
    pub async fn measure(folder: &Path, extent: Extent, bars: &Bars) -> Result<Self, CliError> {
        let layout = Layout::new(folder.join("growing"));
        dev::make(&layout).await?;
        let vault = Child::start(&layout).await?;
        let officer = served::context(&vault.target().context.connect.endpoint, &layout, "officer-1");
        served::apply_schema(&officer).await?;
        let mut values = Values::default();
        let few = FEW.min(extent.tokens);
        Filling { target: &vault.target(), bars }.borrowers(few, &mut values).await?;
        let small = stage(&vault, &values, extent, bars).await?;

        let began = Instant::now();
        let before = values.stored.borrowers.len() as u64;
        loop {
            let stored = values.stored.borrowers.len() as u64;
            if stored >= extent.tokens {
                break;
            }
            let filling = Filling { target: &vault.target(), bars };
            filling.borrowers((extent.tokens - stored).min(STAGE), &mut values).await?;
        }
        let fill = began.elapsed().as_secs_f64();
        let filled = values.stored.borrowers.len() as u64 - before;
        let large = stage(&vault, &values, extent, bars).await?;

        vault.end().await?;
        let vault = Child::start(&layout).await?;
        let clean = vault.started_in.as_secs_f64();
        let target = vault.target();
        Filling { target: &target, bars }.borrowers(LOST, &mut values).await?;
        vault.kill();
        let vault = Child::start(&layout).await?;
        let killed = vault.started_in.as_secs_f64();
        vault.end().await?;
        std::fs::remove_dir_all(layout.dir()).map_err(|error| CliError::file(layout.dir(), error))?;
        Ok(Self { stages: [small, large], fill, fill_speed: filled as f64 / fill, starts: (clean, killed) })
    }

    /// The speed of Detokenize with many tokens, and with few, in requests a second.
    pub fn speeds(&self) -> (Middle, Middle) {
        (self.stages[1].speed(), self.stages[0].speed())
    }

    /// Seconds of a start after a clean stop, and after kill -9.
    pub fn starts(&self) -> (f64, f64) {
        self.starts
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let stages = self.stages.iter().map(|stage| {
            json!({
                "tokens": stage.tokens,
                "detokenize_requests_per_second": rounded(stage.speed().median),
                "detokenize_requests_per_second_ends": ends(stage.speed()),
                "server_cpu_us_per_request": rounded(stage.cpu().median),
                "p99_ms": rounded(stage.p99().median),
                "memory": stage.memory.0,
                "peak_memory": stage.memory.1,
            })
        });
        json!({
            "stages": stages.collect::<Vec<_>>(),
            "fill_seconds": rounded(self.fill),
            "fill_values_per_second": rounded(self.fill_speed),
            "start_seconds_after_clean_stop": rounded(self.starts.0),
            "start_seconds_after_kill": rounded(self.starts.1),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let mebibytes =
            |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| figure(bytes as f64 / f64::from(1 << 20), 0));
        let rows = self.stages.iter().map(|stage| {
            vec![
                figure(stage.tokens as f64, 0),
                spread(stage.speed(), |number| figure(number, 0)),
                spread(stage.cpu(), short),
                spread(stage.p99(), |number| figure(number, 2)),
                mebibytes(stage.memory.0),
                mebibytes(stage.memory.1),
            ]
        });
        Sheet {
            title: "Growth",
            header: vec!["tokens", "Detokenize/s", "CPU us/request", "p99 ms", "memory MiB", "peak MiB"],
            rows: rows.collect(),
            below: format!(
                "{SPREAD} One token a request, every token as often as any other, a vault in a process of its own with the \
                 cache of the default configuration, once the compactions after filling have ended. Filled in batches of \
                 whole borrowers: {} values/s. A start, from the process' first moment until health answers SERVING, took \
                 {} s after a clean stop, and {} s after kill -9 right after {} more values; each was measured once.",
                figure(self.fill_speed, 0),
                figure(self.starts.0, 2),
                figure(self.starts.1, 2),
                figure(LOST as f64, 0),
            ),
        }
    }
}

/// Waits until what was written no longer occupies the vault: the reads are measured, and not the compactions before them.
pub async fn settled(vault: &Child) {
    let began = Instant::now();
    let mut before = vault.process().cpu();
    while began.elapsed() < SETTLES {
        tokio::time::sleep(QUIET).await;
        let now = vault.process().cpu();
        // A system that does not tell is not waited for.
        let Some((now, then)) = now.zip(before) else { return };
        if now.saturating_sub(then) < QUIET / 10 {
            return;
        }
        before = Some(now);
    }
}

async fn stage(vault: &Child, values: &Values, extent: Extent, bars: &Bars) -> Result<Stage, CliError> {
    settled(vault).await;
    let shape = Shape::of(1);
    let mut reads = Vec::new();
    for run in 0..=extent.runs {
        // The tokens are borrowers'; one a request.
        let mut source = values.requests(vec![Kind::Detokenize], shape, Spread::Uniform);
        source.read_borrowers();
        let plan = Plan {
            connections: extent.connections,
            pace: Pace::Closed(extent.in_flight),
            until: Until::Lasted(extent.time),
            keeps: false,
        };
        let bar = bars.begin(&format!("read {} tokens", values.stored.borrowers.len()));
        let outcome = vault.target().load(plan, source, bar.clone()).await?.whole()?;
        bars.end(&bar);
        // The first run warms up.
        if run > 0 {
            reads.push(outcome.sample);
        }
    }
    let process = vault.process();
    Ok(Stage { tokens: values.stored.borrowers.len() as u64, reads, memory: (process.memory(), process.peak_memory()) })
}
