//! Three times as much as the vault can take: what it still answers, what it turns away, and how soon it is well again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bars::Bars;
use super::child::Child;
use super::latency::{self, Pacing};
use super::rig::Values;
use super::sheet::{Sheet, figure, rounded};
use crate::cli::output::CliError;

/// How many times the most.
const TIMES: f64 = 3.0;
/// The part of the most at which it must be well again.
const CALM: f64 = 0.3;
/// Recovery is looked for in spans of this length, for so long.
const SPAN: Duration = Duration::from_millis(100);
const WATCHED: Duration = Duration::from_secs(5);
/// A span is well when all but one in a hundred requests are answered within twice the usual p99, or this.
const AT_LEAST: Duration = Duration::from_millis(20);

/// An overload.
pub struct Overload {
    /// How long it went on.
    time: Duration,
    /// Requests a second at most, in a closed loop.
    most: f64,
    /// Requests a second that should start.
    rate: f64,
    /// Of those, the ones that reached the vault.
    sent: f64,
    /// Requests a second that were answered.
    goodput: f64,
    /// The share of what reached the vault that was turned away.
    shed: f64,
    /// The share of that which was told when to try again.
    told_when: f64,
    /// Bytes of memory at most: before the overload, and ever.
    memory: (Option<u64>, Option<u64>),
    /// Seconds until it answered as before; nothing if it did not.
    recovery: Option<f64>,
}

impl Overload {
    /// Bars' steps that it takes.
    pub const STEPS: u64 = 4;

    /// Measures.
    pub async fn measure(vault: &Child, values: &Values, pacing: Pacing, bars: &Bars) -> Result<Self, CliError> {
        let target = vault.target();
        let most = latency::most(&target, values, pacing, bars).await?;
        let calm = latency::at(&target, values, pacing, most * CALM, false, bars).await?;
        let usual = Duration::from_micros(calm.sample.latency(0.99) as u64);
        let before = vault.process().peak_memory();
        let rate = most * TIMES;
        let outcome = latency::at(&target, values, pacing, rate, false, bars).await?;
        let after = Pacing { time: WATCHED, ..pacing };
        let began = Instant::now();
        let back = latency::at(&target, values, after, most * CALM, true, bars).await?;
        let slow = (usual * 2).max(AT_LEAST);
        let (noted, time) = (&outcome.noted, pacing.time.as_secs_f64());
        let reached = (noted.requests + noted.shed) as f64;
        Ok(Self {
            time: pacing.time,
            most,
            rate,
            sent: reached / time,
            goodput: noted.requests as f64 / outcome.sample.wall.as_secs_f64(),
            shed: noted.shed as f64 / reached,
            told_when: if noted.shed == 0 { 1.0 } else { noted.told_when as f64 / noted.shed as f64 },
            memory: (before, vault.process().peak_memory()),
            recovery: recovery(&back.noted.trace, began, slow).map(|time| time.as_secs_f64()),
        })
    }

    /// What was answered, in units of the best.
    pub fn goodput_ratio(&self) -> f64 {
        self.goodput / self.most
    }

    /// Seconds until it was well again; as long as was watched, if it was not.
    pub fn recovery(&self) -> f64 {
        self.recovery.unwrap_or(WATCHED.as_secs_f64())
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        json!({
            "saturation_requests_per_second": rounded(self.most),
            "offered_per_second": rounded(self.rate),
            "reached_the_vault_per_second": rounded(self.sent),
            "answered_per_second": rounded(self.goodput),
            "answered_to_saturation": rounded(self.goodput_ratio()),
            "shed_share": rounded(self.shed),
            "shed_with_retry_delay_share": rounded(self.told_when),
            "peak_memory_before": self.memory.0,
            "peak_memory": self.memory.1,
            "recovery_seconds": self.recovery.map(rounded),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let mebibytes =
            |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| figure(bytes as f64 / f64::from(1 << 20), 0));
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        Sheet {
            title: "Overload",
            header: vec!["three times saturation due", ""],
            rows: vec![
                row("requests/s at most, in a closed loop", figure(self.most, 0)),
                row("requests/s that were due", figure(self.rate, 0)),
                row("of those reached the vault", figure(self.sent, 0)),
                row("which is, in units of the most", figure(self.sent / self.most, 2)),
                row("answered/s", figure(self.goodput, 0)),
                row("in units of the most", figure(self.goodput_ratio(), 2)),
                row("share turned away with UNAVAILABLE", figure(self.shed, 3)),
                row("of those with a delay after which to try again", figure(self.told_when, 3)),
                row("peak memory before, MiB", mebibytes(self.memory.0)),
                row("peak memory, MiB", mebibytes(self.memory.1)),
                row(
                    "seconds until it was well again",
                    self.recovery.map_or("never".to_owned(), |time| figure(time, 1)),
                ),
            ],
            below: format!(
                "An open loop over {} s against a vault in a process of its own, clients on the same processors: what they \
                 could not even send is not among what reached the vault. Then, from the last answer on, it is well again from the first {} ms on in which \
                 99 of 100 requests, at {:.0} % of saturation, take no longer than twice the p99 before the overload (at \
                 least {} ms).",
                figure(self.time.as_secs_f64(), 1),
                SPAN.as_millis(),
                CALM * 100.0,
                AT_LEAST.as_millis(),
            ),
        }
    }
}

/// How long after `began` the first span begins that is well. A trace tells when requests should have started, how long
/// they took, and whether they were answered.
fn recovery(trace: &[(Instant, Duration, bool)], began: Instant, slow: Duration) -> Option<Duration> {
    let first = trace.first()?.0;
    let spans = (WATCHED.as_millis() / SPAN.as_millis()) as u32;
    let well = (0..spans).map(|span| SPAN * span).find(|start| {
        let within = |at: &Instant| *at >= first + *start && *at < first + *start + SPAN;
        let (mut all, mut bad) = (0_u32, 0_u32);
        for (_, time, answered) in trace.iter().filter(|(at, _, _)| within(at)) {
            all += 1;
            bad += u32::from(!answered || *time > slow);
        }
        all > 0 && bad * 100 <= all
    });
    well.map(|start| (first + start).saturating_duration_since(began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_well_again_when_a_whole_span_is() {
        let began = Instant::now();
        let (quick, slow) = (Duration::from_millis(1), Duration::from_millis(500));
        // 10 ms apart; bad for 320 ms, and one slow one much later.
        let trace: Vec<_> = (0..500)
            .map(|place| {
                let late = place < 32 || place == 300;
                (began + Duration::from_millis(10 * place), if late { slow } else { quick }, place != 2)
            })
            .collect();
        assert_eq!(recovery(&trace, began, Duration::from_millis(20)), Some(Duration::from_millis(400)));
        let never: Vec<_> = trace.iter().map(|(at, _, _)| (*at, slow, true)).collect();
        assert_eq!(recovery(&never, began, Duration::from_millis(20)), None);
        assert_eq!(recovery(&[], began, slow), None);
    }
}
