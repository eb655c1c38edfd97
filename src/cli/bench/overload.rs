//! Three times as much as the vault can take: what it still answers, what it turns away, and how soon it is well again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bars::Bars;
use super::child::Child;
use super::latency::{self, Pacing};
use super::load::Outcome;
use super::measure::Middle;
use super::rig::Values;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, spread};
use crate::cli::output::CliError;

/// How many times the most.
const TIMES: f64 = 3.0;
/// The part of the most at which it must be well again.
const CALM: f64 = 0.3;
/// Recovery is looked for in spans of this length, for so long.
const SPAN: Duration = Duration::from_millis(100);
const WATCHED: Duration = Duration::from_secs(5);
/// Spans that must be well one after the other: one alone may lie between two stalls.
const LASTING: u32 = 5;
/// A span is well when all but one in a hundred requests are answered within twice the usual p99, or this.
const AT_LEAST: Duration = Duration::from_millis(20);

/// An overload, measured some times.
pub struct Overload {
    /// How long one went on.
    time: Duration,
    /// Requests a second at most, in a closed loop.
    most: Middle,
    /// Requests a second that should start.
    rate: f64,
    /// What a request may take at most afterwards, but one in a hundred.
    slow: Duration,
    /// The overloads.
    runs: Vec<Run>,
    /// Bytes of memory at most: before the first overload, and ever.
    memory: (Option<u64>, Option<u64>),
}

/// One overload.
struct Run {
    /// Requests a second that reached the vault.
    sent: f64,
    /// Requests a second that were answered.
    goodput: f64,
    /// The share of what reached the vault that was turned away.
    shed: f64,
    /// The share of that which was told when to try again.
    told_when: f64,
    /// From the moment on in which the overload's last request was due: seconds until it answered as before; nothing if
    /// it did not while it was watched.
    recovery: Option<f64>,
}

impl Run {
    fn of(outcome: &Outcome, back: &Outcome, time: Duration, slow: Duration) -> Self {
        let noted = &outcome.noted;
        let reached = (noted.requests + noted.shed) as f64;
        Self {
            sent: reached / time.as_secs_f64(),
            goodput: noted.requests as f64 / outcome.sample.wall.as_secs_f64(),
            shed: noted.shed as f64 / reached,
            told_when: if noted.shed == 0 { 1.0 } else { noted.told_when as f64 / noted.shed as f64 },
            recovery: recovery(&back.noted.trace, outcome.over, slow).map(|time| time.as_secs_f64()),
        }
    }
}

impl Overload {
    /// Bars' steps that it takes.
    pub fn steps(runs: u16) -> u64 {
        latency::steps_of_most(runs) + 1 + 2 * u64::from(runs)
    }

    /// Measures.
    pub async fn measure(vault: &Child, values: &Values, pacing: Pacing, bars: &Bars) -> Result<Self, CliError> {
        let target = vault.target();
        let most = latency::most(&target, values, pacing, bars).await?;
        let (calm, rate) = (most.median * CALM, most.median * TIMES);
        let usual = latency::at(&target, values, pacing, calm, false, bars).await?;
        let slow = (Duration::from_micros(usual.sample.latency(0.99) as u64) * 2).max(AT_LEAST);
        let before = vault.process().peak_memory();
        let after = Pacing { time: WATCHED, ..pacing };
        let mut runs = Vec::new();
        for _ in 0..pacing.runs {
            let outcome = latency::at(&target, values, pacing, rate, false, bars).await?;
            // What the overload left under way has been answered by now, and new callers connect: both took time, which
            // counts, since recovery is told from when the overload was over.
            let back = latency::at(&target, values, after, calm, true, bars).await?;
            runs.push(Run::of(&outcome, &back, pacing.time, slow));
        }
        let memory = (before, vault.process().peak_memory());
        Ok(Self { time: pacing.time, most, rate, slow, runs, memory })
    }

    fn middle(&self, figure: impl Fn(&Run) -> f64) -> Middle {
        Middle::of(self.runs.iter().map(figure))
    }

    /// What was answered, in units of the best.
    pub fn goodput_ratio(&self) -> Middle {
        self.middle(|run| run.goodput / self.most.median)
    }

    /// Seconds until it was well again; as long as was watched, if it was not.
    pub fn recovery(&self) -> Middle {
        self.middle(|run| run.recovery.unwrap_or(WATCHED.as_secs_f64()))
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        json!({
            "saturation_requests_per_second": rounded(self.most.median),
            "offered_per_second": rounded(self.rate),
            "runs": self.runs.len(),
            "reached_the_vault_per_second": rounded(self.middle(|run| run.sent).median),
            "answered_per_second": rounded(self.middle(|run| run.goodput).median),
            "answered_to_saturation": rounded(self.goodput_ratio().median),
            "answered_to_saturation_ends": ends(self.goodput_ratio()),
            "shed_share": rounded(self.middle(|run| run.shed).median),
            "shed_with_retry_delay_share": rounded(self.middle(|run| run.told_when).median),
            "peak_memory_before": self.memory.0,
            "peak_memory": self.memory.1,
            "recovery_seconds": rounded(self.recovery().median),
            "recovery_seconds_runs": self.runs.iter().map(|run| run.recovery.map(rounded)).collect::<Vec<_>>(),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let mebibytes =
            |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| figure(bytes as f64 / f64::from(1 << 20), 0));
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let shown = |middle, digits| spread(middle, |number| figure(number, digits));
        Sheet {
            title: "Overload",
            header: vec!["three times saturation due", ""],
            rows: vec![
                row("requests/s at most, in a closed loop", shown(self.most, 0)),
                row("requests/s that were due", figure(self.rate, 0)),
                row("of those reached the vault", shown(self.middle(|run| run.sent), 0)),
                row("which is, in units of the most", shown(self.middle(|run| run.sent / self.most.median), 2)),
                row("answered/s", shown(self.middle(|run| run.goodput), 0)),
                row("in units of the most", shown(self.goodput_ratio(), 2)),
                row("share turned away with UNAVAILABLE", shown(self.middle(|run| run.shed), 3)),
                row("of those with a delay after which to try again", shown(self.middle(|run| run.told_when), 3)),
                row("peak memory before, MiB", mebibytes(self.memory.0)),
                row("peak memory, MiB", mebibytes(self.memory.1)),
                row("seconds until it was well again", spread(self.recovery(), recovered)),
            ],
            below: format!(
                "{SPREAD} An open loop over {} s against a vault in a process of its own, clients on the same processors: what \
                 they could not even send is not among what reached the vault. When the last request of the overload has \
                 been due, the clock of recovery starts. Answers to what is under way, and the connections of new callers at \
                 {:.0} % of saturation, are waited for; it is well again from the first {} ms on in which 99 of 100 of their \
                 requests take at most {} ms, if that lasts for {} ms. These are twice the p99 before the overload, and {} ms \
                 at least.",
                figure(self.time.as_secs_f64(), 1),
                CALM * 100.0,
                SPAN.as_millis(),
                figure(self.slow.as_secs_f64() * 1_000.0, 0),
                (SPAN * LASTING).as_millis(),
                AT_LEAST.as_millis(),
            ),
        }
    }
}

/// Seconds of a recovery in words.
fn recovered(seconds: f64) -> String {
    if seconds < WATCHED.as_secs_f64() { figure(seconds, 2) } else { format!("over {}", figure(seconds, 0)) }
}

/// How long after the end of the overload the first span begins that is well, with those after it. A trace tells when
/// requests should have started, how long they took, and whether they were answered.
fn recovery(trace: &[(Instant, Duration, bool)], over: Instant, slow: Duration) -> Option<Duration> {
    let first = trace.first()?.0;
    let spans = (WATCHED.as_millis() / SPAN.as_millis()) as usize;
    let (mut all, mut bad) = (vec![0_u32; spans], vec![0_u32; spans]);
    for (at, time, answered) in trace {
        let span = (at.saturating_duration_since(first).as_millis() / SPAN.as_millis()) as usize;
        if let (Some(all), Some(bad)) = (all.get_mut(span), bad.get_mut(span)) {
            *all += 1;
            *bad += u32::from(!answered || *time > slow);
        }
    }
    let well: Vec<bool> = all.iter().zip(&bad).map(|(all, bad)| *all > 0 && bad * 100 <= *all).collect();
    let start = well.windows(LASTING as usize).position(|spans| spans.iter().all(|well| *well))?;
    Some((first + SPAN * start as u32).saturating_duration_since(over))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_millis(500);
    const WITHIN: Duration = Duration::from_millis(20);

    /// Requests 10 ms apart over five seconds, of which some took long; the third was not answered.
    fn trace(over: Instant, slow: impl Fn(u32) -> bool) -> Vec<(Instant, Duration, bool)> {
        let one = |place| (over + QUICK * 10 * place, if slow(place) { SLOW } else { QUICK }, place != 2);
        (0..500).map(one).collect()
    }

    #[test]
    fn it_is_well_again_when_half_a_second_is() {
        let over = Instant::now();
        let recovered = |trace: &[_]| recovery(trace, over, WITHIN);
        // Bad for 320 ms, and one slow one much later.
        let trace_of = |slow: &dyn Fn(u32) -> bool| trace(over, slow);
        let some = trace_of(&|place| place < 32 || place == 300);
        assert_eq!(recovered(&some), Some(Duration::from_millis(400)));
        // Between two stalls it is not well.
        let stalls = trace_of(&|place| place < 32 || (60..65).contains(&place));
        assert_eq!(recovered(&stalls), Some(Duration::from_millis(700)));
        assert_eq!(recovered(&trace_of(&|_| true)), None);
        assert_eq!(recovered(&trace_of(&|place| place % 40 == 0)), None);
        assert_eq!(recovered(&[]), None);
    }

    #[test]
    fn recovery_counts_from_the_end_of_the_overload_and_not_from_the_first_request_after_it() {
        let over = Instant::now();
        let later = Duration::from_millis(250);
        let trace = trace(over + later, |_| false);
        // The one that was not answered is in the first span.
        assert_eq!(recovery(&trace, over, WITHIN), Some(later + SPAN));
        assert_eq!((recovered(0.25), recovered(WATCHED.as_secs_f64())), ("0.25".into(), "over 5".into()));
    }
}
