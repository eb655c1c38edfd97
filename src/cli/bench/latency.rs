//! Latency against load: an open loop at more and more of what the vault can take at most.

use std::time::Duration;

use serde_json::{Value, json};

use super::bars::Bars;
use super::load::{Outcome, Pace, Plan, Target};
use super::measure::median;
use super::pace::Until;
use super::picks::Spread;
use super::plot::{self, Point};
use super::population::Shape;
use super::rig::Values;
use super::sheet::{Sheet, figure, rounded};
use super::workload::{Kind, Source};
use crate::cli::output::CliError;

/// Requests under way when the most is looked for: within the quarter of a server's places that one principal has.
const SATURATING: usize = 192;
/// Parts of the most at which latencies are measured.
const PARTS: [f64; 8] = [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// The part of which the goal speaks.
pub const USUAL: f64 = 0.7;

/// How latencies are measured.
#[derive(Clone, Copy)]
pub struct Pacing {
    /// Connections.
    pub connections: usize,
    /// How long each rate is kept.
    pub time: Duration,
    /// How often the usual part is measured.
    pub runs: u16,
}

/// A rate, and what became of it.
pub struct Step {
    /// The part of the most.
    pub part: f64,
    /// Requests a second that should start.
    pub rate: f64,
    /// What the clients saw; at the usual part, the run with the middle p99.
    pub outcome: Outcome,
}

impl Step {
    /// Milliseconds at a quantile, from when requests should have started.
    pub fn millis(&self, quantile: f64) -> f64 {
        self.outcome.sample.latency(quantile) / 1_000.0
    }
}

/// Latencies against load.
pub struct Latency {
    /// Requests a second at most, in a closed loop.
    pub most: f64,
    /// The rates, from low to high.
    pub steps: Vec<Step>,
    /// p99 over p50 at the usual part, the median of the runs.
    pub usual_ratio: f64,
}

/// Half Tokenize, half Detokenize, one value each.
pub fn source(values: &Values) -> Source {
    values.requests(vec![Kind::Tokenize, Kind::Detokenize], Shape::of(1), Spread::Zipfian)
}

/// The most that the target takes in a closed loop, in requests a second.
pub async fn most(target: &Target, values: &Values, pacing: Pacing, bars: &Bars) -> Result<f64, CliError> {
    let plan = Plan {
        connections: pacing.connections,
        pace: Pace::Closed(SATURATING),
        until: Until::Lasted(pacing.time),
        keeps: false,
    };
    let bar = bars.begin("saturation");
    let outcome = target.load(plan, source(values), bar.clone()).await?.whole();
    bars.end(&bar);
    Ok(outcome?.sample.requests_per_second())
}

/// One rate, in an open loop. A part of it may be turned away.
pub async fn at(
    target: &Target,
    values: &Values,
    pacing: Pacing,
    rate: f64,
    keeps: bool,
    bars: &Bars,
) -> Result<Outcome, CliError> {
    let plan =
        Plan { connections: pacing.connections, pace: Pace::Open(rate), until: Until::Lasted(pacing.time), keeps };
    let bar = bars.begin(&format!("open loop, {rate:.0}/s"));
    let outcome = target.load(plan, source(values), bar.clone()).await;
    bars.end(&bar);
    outcome
}

impl Latency {
    /// Bars' steps that it takes.
    pub fn steps(runs: u16) -> u64 {
        PARTS.len() as u64 + u64::from(runs)
    }

    /// Measures.
    pub async fn measure(target: &Target, values: &Values, pacing: Pacing, bars: &Bars) -> Result<Self, CliError> {
        let most = most(target, values, pacing, bars).await?;
        let (mut steps, mut ratios) = (Vec::new(), Vec::new());
        for part in PARTS {
            let runs = if part == USUAL { pacing.runs.max(1) } else { 1 };
            let mut outcomes = Vec::new();
            for _ in 0..runs {
                outcomes.push(at(target, values, pacing, most * part, false, bars).await?);
            }
            outcomes.sort_by(|a, b| a.sample.latency(0.99).total_cmp(&b.sample.latency(0.99)));
            if part == USUAL {
                ratios = outcomes.iter().map(|one| one.sample.latency(0.99) / one.sample.latency(0.5)).collect();
            }
            let middle = outcomes.len() / 2;
            steps.push(Step { part, rate: most * part, outcome: outcomes.swap_remove(middle) });
        }
        Ok(Self { most, steps, usual_ratio: median(ratios) })
    }

    /// As a picture.
    pub fn plot(&self) -> String {
        let points = self.steps.iter().map(|step| Point {
            load: step.rate,
            quantiles: [step.millis(0.5), step.millis(0.99), step.millis(0.999)],
        });
        plot::svg("requests a second (half Tokenize, half Detokenize, one value each)", &points.collect::<Vec<_>>())
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            json!({
                "part_of_saturation": step.part,
                "rate": rounded(step.rate),
                "answered_per_second": rounded(step.outcome.sample.requests_per_second()),
                "shed": step.outcome.noted.shed,
                "unsent": step.outcome.noted.unsent,
                "p50_ms": rounded(step.millis(0.5)),
                "p99_ms": rounded(step.millis(0.99)),
                "p999_ms": rounded(step.millis(0.999)),
            })
        });
        json!({
            "saturation_requests_per_second": rounded(self.most),
            "p99_to_p50_at_70_percent": rounded(self.usual_ratio),
            "steps": steps.collect::<Vec<_>>(),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let rows = self.steps.iter().map(|step| {
            vec![
                format!("{:.0} %", step.part * 100.0),
                figure(step.rate, 0),
                figure(step.outcome.sample.requests_per_second(), 0),
                figure(step.millis(0.5), 2),
                figure(step.millis(0.99), 2),
                figure(step.millis(0.999), 2),
                figure((step.outcome.noted.shed + step.outcome.noted.unsent) as f64, 0),
            ]
        });
        Sheet {
            title: "Latency against load",
            header: vec![
                "of saturation",
                "requests/s",
                "answered/s",
                "p50 ms",
                "p99 ms",
                "p99.9 ms",
                "turned away, not sent",
            ],
            rows: rows.collect(),
            below: format!(
                "Half Tokenize, half Detokenize, one value each, reads by Zipf's law, against a vault in a process of its own. \
                 Saturation, {} requests/s, is a closed loop of {SATURATING} under way. The rest is an open loop: requests \
                 start when the schedule says so, and their time counts from then. What was turned \
                 away has no latency and is left out; what could not be sent counts as long as it waited. Each row is one run, \
                 but 70 %, where p99 is {} times p50 (the medians of the runs).",
                figure(self.most, 0),
                figure(self.usual_ratio, 1),
            ),
        }
    }
}
