//! How fast an export is verified, as `audit verify` does it: on one processor, and on all of them.
//!
//! Beside it, the same lines are only read and hashed into the tree, on one thread: less than that nobody can do.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom_ledger::Frontier;
use strongroom_ledger::verify::verify_export_on;

use super::bars::Bars;
use super::leaves::Log;
use super::measure::{self, Meter, Middle, Sample};
use super::process::Process;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, short, spread};
use super::work::{blocking, unfit};
use crate::cli::output::CliError;

/// Verification, measured some times in turn.
pub struct Prove {
    /// Leaves of the log, and bytes of its lines.
    leaves: u64,
    bytes: u64,
    /// Processors.
    cores: usize,
    /// Read and hashed, and nothing else.
    hashed: Vec<Sample>,
    /// Verified on one thread.
    one: Vec<Sample>,
    /// Verified by as many threads as there are processors.
    all: Vec<Sample>,
}

/// What is done with the lines.
#[derive(Clone, Copy)]
enum Way {
    Hash,
    Verify { threads: usize },
}

impl Prove {
    /// Bars' steps that a run takes.
    pub const STEPS: u64 = 3;

    /// Verifies a log.
    pub async fn measure(log: &Arc<Log>, runs: u16, bars: &Bars) -> Result<Self, CliError> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (mut hashed, mut one, mut all) = (vec![], vec![], vec![]);
        for _ in 0..runs {
            for (name, way, samples) in [
                ("hash an export", Way::Hash, &mut hashed),
                ("verify an export, one thread", Way::Verify { threads: 1 }, &mut one),
                ("verify an export", Way::Verify { threads: cores }, &mut all),
            ] {
                let (bar, log) = (bars.begin(name), Arc::clone(log));
                samples.push(blocking(move || walked(&log, way)).await?);
                bars.end(&bar);
            }
        }
        Ok(Self { leaves: log.leaves, bytes: log.bytes, cores, hashed, one, all })
    }

    /// Leaves a second on one processor.
    pub fn speed(&self) -> Middle {
        Middle::of(self.one.iter().map(Sample::items_per_second))
    }

    /// Leaves a second, by a way on so many processors, and for each of them.
    fn rows(&self) -> [(&'static str, &'static str, usize, &[Sample]); 3] {
        [
            ("verified, on one thread", "one_thread", 1, &self.one),
            ("verified, by a thread a processor", "all_processors", self.cores, &self.all),
            ("  read and hashed only, on one thread", "hashed_only", 1, &self.hashed),
        ]
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let mut document = json!({ "leaves": self.leaves, "bytes": self.bytes, "processors": self.cores });
        for (_, name, cores, samples) in self.rows() {
            let speed = Middle::of(samples.iter().map(Sample::items_per_second));
            let cpu = Middle::of(samples.iter().map(Sample::items_per_server_cpu_second));
            document[name] = json!({
                "leaves_per_second": rounded(speed.median),
                "leaves_per_second_ends": ends(speed),
                "leaves_per_second_a_processor": rounded(speed.median / cores as f64),
                "leaves_per_cpu_second": rounded(cpu.median),
            });
        }
        document
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let least = Middle::of(self.hashed.iter().map(Sample::items_per_second)).median;
        let row = |(what, _, cores, samples): (&str, &str, usize, &[Sample])| {
            let middle = |of: &dyn Fn(&Sample) -> f64| Middle::of(samples.iter().map(of));
            let speed = middle(&Sample::items_per_second);
            vec![
                what.to_owned(),
                spread(speed, short),
                spread(middle(&|sample| sample.items_per_second() / cores as f64), short),
                spread(middle(&Sample::items_per_server_cpu_second), short),
                figure(speed.median / least, 2),
            ]
        };
        Sheet {
            title: "Offline verification",
            header: vec!["an export is", "leaves/s", "leaves/s a processor", "leaves/CPU s", "in units of hashing"],
            rows: self.rows().map(row).into(),
            below: format!(
                "{} leaves of requests of one value, {:.0} bytes each, from a file that the system has in memory, against a \
                 signed head. Of each line the form, byte by byte, index, time, parts and approvals are checked, and its \
                 hash goes into the tree. A processor: the speed divided by the processors that verify, {} at most here. {SPREAD}",
                figure(self.leaves as f64, 0),
                self.bytes as f64 / self.leaves.max(1) as f64,
                self.cores,
            ),
        }
    }
}

fn walked(log: &Log, way: Way) -> Result<Sample, CliError> {
    let file = File::open(&log.lines).map_err(|error| CliError::file(&log.lines, error))?;
    // As `audit verify` reads it.
    let lines = BufReader::with_capacity(1 << 20, file);
    let meter = Meter::start(Process::Own);
    let leaves = match way {
        Way::Hash => hashed(lines).map_err(|error| CliError::file(&log.lines, error))?,
        Way::Verify { threads } => {
            let keys = std::slice::from_ref(&log.key);
            verify_export_on(threads, lines, &log.checkpoint, &[], keys).map_err(unfit)?.leaves
        }
    };
    let wall = meter.elapsed();
    if leaves != log.leaves {
        return Err(CliError::unfit(format!("{leaves} leaves were looked at, and there are {}", log.leaves)));
    }
    Ok(meter.stop(wall, (leaves, leaves), measure::latencies(), Duration::ZERO))
}

/// Hashes lines into a tree; how many there were.
fn hashed(mut lines: impl BufRead) -> std::io::Result<u64> {
    let (mut tree, mut line) = (Frontier::new(), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        line.pop_if(|last| *last == b'\n');
        tree.push(&line);
        line.clear();
    }
    std::hint::black_box(tree.root());
    Ok(tree.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_export_is_verified_on_one_processor_and_on_all_beside_its_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::make(&folder.path().join("lines"), 3_000).unwrap());
        let prove = Prove::measure(&log, 2, &Bars::new(6)).await.unwrap();
        let document = prove.document();
        for way in ["hashed_only", "one_thread", "all_processors"] {
            assert!(document[way]["leaves_per_second"].as_f64().unwrap() > 0.0, "{document}");
        }
        assert_eq!((document["leaves"].as_u64(), prove.speed().runs), (Some(3_000), 2));
        let sheet = prove.sheet();
        assert!(sheet.rows.iter().all(|row| row.len() == sheet.header.len()));
    }

    #[test]
    fn a_log_that_does_not_hold_is_no_figure() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::make(&folder.path().join("lines"), 100).unwrap();
        let mut lines = std::fs::read(&log.lines).unwrap();
        lines.truncate(lines.len() / 2);
        std::fs::write(&log.lines, lines).unwrap();
        assert!(walked(&log, Way::Verify { threads: 2 }).is_err());
        assert!(walked(&log, Way::Hash).is_err());
    }
}
