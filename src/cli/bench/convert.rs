//! How fast leaves become a file for auditors, and in how much memory: each in a process of its own, which measures itself.
//!
//! Beside Parquet the lines are copied as they are, through the same code: what reading and writing alone take.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use strongroom_export::{Format, convert};

use super::bars::Bars;
use super::leaves::Log;
use super::measure::Middle;
use super::own::{self, Own};
use super::process::Process;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, short, spread};
use super::work::unfit;
use crate::cli::output::{CliError, Exit, say};

/// Leaves in other forms, measured some times in turn.
pub struct Converted {
    leaves: u64,
    bytes: u64,
    parquet: Vec<Run>,
    lines: Vec<Run>,
}

/// What a process said of itself.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    cpu_seconds: f64,
    /// Bytes of memory at most.
    peak: f64,
    /// Bytes of the file.
    out: f64,
}

impl Converted {
    /// Bars' steps that a run takes.
    pub const STEPS: u64 = 2;

    /// Makes files of a log.
    pub async fn measure(log: &Log, runs: u16, bars: &Bars) -> Result<Self, CliError> {
        let (mut parquet, mut lines) = (vec![], vec![]);
        for _ in 0..runs {
            for (format, runs) in [(Format::Parquet, &mut parquet), (Format::Jsonl, &mut lines)] {
                let bar = bars.begin(&format!("export as {}", format.as_str()));
                runs.push(by_another_process(format, log).await?);
                bars.end(&bar);
            }
        }
        Ok(Self { leaves: log.leaves, bytes: log.bytes, parquet, lines })
    }

    /// Memory at most that Parquet takes, in MiB.
    pub fn peak(&self) -> Middle {
        middle(&self.parquet, |run| run.peak / f64::from(1 << 20))
    }

    fn speed(&self, runs: &[Run]) -> Middle {
        middle(runs, |run| self.bytes as f64 / run.seconds / 1e6)
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let one = |runs: &[Run]| {
            let (speed, peak) = (self.speed(runs), middle(runs, |run| run.peak));
            json!({
                "megabytes_per_second": rounded(speed.median),
                "megabytes_per_second_ends": ends(speed),
                "leaves_per_second": rounded(middle(runs, |run| self.leaves as f64 / run.seconds).median),
                "cpu_seconds": rounded(middle(runs, |run| run.cpu_seconds).median),
                "peak_memory": rounded(peak.median),
                "bytes": rounded(middle(runs, |run| run.out).median),
            })
        };
        json!({ "leaves": self.leaves, "bytes": self.bytes, "parquet": one(&self.parquet), "jsonl": one(&self.lines) })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let row = |what: &str, runs: &[Run]| {
            vec![
                what.to_owned(),
                spread(self.speed(runs), short),
                spread(middle(runs, |run| self.leaves as f64 / run.seconds), short),
                spread(middle(runs, |run| run.cpu_seconds), short),
                spread(middle(runs, |run| run.out / self.leaves as f64), short),
                spread(middle(runs, |run| run.peak / f64::from(1 << 20)), short),
            ]
        };
        Sheet {
            title: "Export for auditors",
            header: vec!["leaves as", "MB/s", "leaves/s", "CPU s", "B/leaf", "memory at most, MiB"],
            rows: vec![row("Parquet", &self.parquet), row("  lines, copied", &self.lines)],
            below: format!(
                "{} leaves of requests of one value, {} MB of lines, which is what MB/s counts; each file is made by a process \
                 of its own, and memory is all that this ever had in use (VmHWM). It ends when the file is written, not \
                 synced. {SPREAD}",
                figure(self.leaves as f64, 0),
                short(self.bytes as f64 / 1e6),
            ),
        }
    }
}

fn middle(runs: &[Run], of: impl Fn(&Run) -> f64) -> Middle {
    Middle::of(runs.iter().map(of))
}

/// Makes a file of a log by another process, and removes it.
async fn by_another_process(format: Format, log: &Log) -> Result<Run, CliError> {
    let mut command = own::command()?;
    let stopped = |error| CliError::unfit(format!("the process that converts: {error}"));
    command.args(["bench", "--convert", format.as_str()]).arg(&log.lines);
    let mut process = Own::start(&mut command).map_err(stopped)?;
    // It says one line, which the pipe has room for.
    process.ended().await.map_err(stopped)?;
    let mut said = String::new();
    if let Some(mut out) = process.prints() {
        std::io::Read::read_to_string(&mut out, &mut said).map_err(stopped)?;
    }
    let run = Run::read(&said).ok_or_else(|| CliError::unfit("the process that converts did not say what it took"))?;
    let made = made(&log.lines, format);
    std::fs::remove_file(&made).map_err(|error| CliError::file(&made, error))?;
    Ok(run)
}

/// Where the file of a form stands.
fn made(lines: &Path, format: Format) -> PathBuf {
    lines.with_extension(format!("made.{}", format.as_str()))
}

/// Makes a file of lines, and says what it took: what the other process does.
pub fn run(words: &[String]) -> Result<Exit, CliError> {
    let [format, lines] = words else { return Err(CliError::Usage("write --convert FORMAT FILE".into())) };
    let format = Format::named(format).ok_or_else(|| CliError::Usage(format!("--convert {format}: no such form")))?;
    say(converted(format, Path::new(lines))?.document().to_string().as_bytes())?;
    Ok(Exit::Done)
}

fn converted(format: Format, lines: &Path) -> Result<Run, CliError> {
    let file = File::open(lines).map_err(|error| CliError::file(lines, error))?;
    let out = made(lines, format);
    let written = |error| CliError::file(&out, error);
    let mut file_out = BufWriter::with_capacity(1 << 20, File::create(&out).map_err(written)?);
    let (began, before) = (Instant::now(), Process::Own.cpu());
    convert(format, "strongroom/bench", BufReader::with_capacity(1 << 20, file), &mut file_out, |_| ())
        .map_err(unfit)?;
    let bytes = file_out.into_inner().map_err(|error| written(error.into_error()))?.metadata().map_err(written)?.len();
    let seconds = began.elapsed().as_secs_f64();
    let cpu = Process::Own.cpu().zip(before).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64());
    let peak = Process::Own.peak_memory().map_or(f64::NAN, |peak| peak as f64);
    Ok(Run { seconds, cpu_seconds: cpu, peak, out: bytes as f64 })
}

impl Run {
    fn document(self) -> Value {
        json!({ "seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak": self.peak, "out": self.out })
    }

    /// Reads what a process said; what it could not tell is no number.
    fn read(said: &str) -> Option<Self> {
        let said: Value = serde_json::from_str(said).ok()?;
        let number = |name: &str| said.get(name).map(|number| number.as_f64().unwrap_or(f64::NAN));
        Some(Self {
            seconds: number("seconds")?,
            cpu_seconds: number("cpu_seconds")?,
            peak: number("peak")?,
            out: number("out")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_of_all_leaves_and_what_it_took_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::make(&folder.path().join("lines"), 2_000).unwrap();
        let lines = std::fs::read(&log.lines).unwrap();
        for format in [Format::Parquet, Format::Jsonl] {
            let run = converted(format, &log.lines).unwrap();
            let file = std::fs::read(made(&log.lines, format)).unwrap();
            assert_eq!(run.out, file.len() as f64);
            assert!(run.seconds > 0.0 && run.peak > f64::from(1 << 20));
            match format {
                Format::Jsonl => assert!(file == lines),
                _ => assert!(file.starts_with(b"PAR1") && file.len() < lines.len()),
            }
            let read = Run::read(&run.document().to_string()).unwrap();
            assert_eq!((read.out, read.peak), (run.out, run.peak));
        }
        assert!(Run::read("").is_none() && Run::read("{}").is_none());
        assert!(Run::read(r#"{"seconds":1.0,"cpu_seconds":null,"peak":1,"out":1}"#).unwrap().cpu_seconds.is_nan());
    }

    #[test]
    fn files_are_shown_beside_each_other() {
        let run = |seconds| Run { seconds, cpu_seconds: seconds, peak: f64::from(64 << 20), out: 5_000.0 };
        let converted = Converted { leaves: 100, bytes: 2_000_000, parquet: vec![run(2.0)], lines: vec![run(0.5)] };
        assert_eq!(converted.sheet().rows[0], ["Parquet", "1.00", "50.0", "2.00", "50.0", "64.0"]);
        assert_eq!(converted.document()["jsonl"]["megabytes_per_second"], json!(4.0));
        assert_eq!(converted.peak().median, 64.0);
    }
}
