//! Latency against load: an open loop at more and more of what the vault can take at most.

use std::time::Duration;

use serde_json::{Value, json};

use super::bars::Bars;
use super::load::{Outcome, Pace, Plan, Target};
use super::measure::Middle;
use super::pace::Until;
use super::picks::Spread;
use super::plot::{self, Point};
use super::population::Shape;
use super::rig::Values;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, spread};
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
    /// How often saturation and the usual part are measured.
    pub runs: u16,
}

/// A rate, and what became of it.
pub struct Step {
    /// The part of the most.
    pub part: f64,
    /// Requests a second that should start.
    pub rate: f64,
    /// What the clients saw: one run, at the usual part several.
    pub runs: Vec<Outcome>,
}

impl Step {
    fn middle(&self, figure: impl Fn(&Outcome) -> f64) -> Middle {
        Middle::of(self.runs.iter().map(figure))
    }

    /// Milliseconds at a quantile, from when requests should have started.
    fn millis(&self, quantile: f64) -> Middle {
        self.middle(|outcome| outcome.sample.latency(quantile) / 1_000.0)
    }

    fn answered(&self) -> Middle {
        self.middle(|outcome| outcome.sample.requests_per_second())
    }

    fn shed(&self) -> Middle {
        self.middle(|outcome| outcome.noted.shed_share())
    }

    fn unsent(&self) -> Middle {
        self.middle(|outcome| outcome.noted.unsent_share())
    }
}

/// Latencies against load.
pub struct Latency {
    /// Requests a second at most, in a closed loop.
    most: Middle,
    /// The rates, from low to high.
    steps: Vec<Step>,
    /// p99 over p50 at the usual part.
    usual_ratio: Middle,
    /// The share of the requests that was turned away there.
    usual_shed: Middle,
}

/// Half Tokenize, half Detokenize, one value each.
pub fn source(values: &Values) -> Source {
    values.requests(vec![Kind::Tokenize, Kind::Detokenize], Shape::of(1), Spread::Zipfian)
}

/// Bars' steps that [`most`] takes.
pub fn steps_of_most(runs: u16) -> u64 {
    1 + u64::from(runs)
}

/// The most that the target takes in a closed loop, in requests a second. A vault that has just started is slow for a
/// moment, and parts of too little would be too easy: the first run warms it up and does not count.
pub async fn most(target: &Target, values: &Values, pacing: Pacing, bars: &Bars) -> Result<Middle, CliError> {
    let plan = Plan {
        connections: pacing.connections,
        pace: Pace::Closed(SATURATING),
        until: Until::Lasted(pacing.time),
        keeps: false,
    };
    let mut runs = Vec::new();
    for run in 0..=pacing.runs {
        let bar = bars.begin("saturation");
        let outcome = target.load(plan, source(values), bar.clone()).await?.whole();
        bars.end(&bar);
        let sample = outcome?.sample;
        if run > 0 {
            runs.push(sample.requests_per_second());
        }
    }
    Ok(Middle::of(runs))
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
        steps_of_most(runs) + (PARTS.len() - 1) as u64 + u64::from(runs)
    }

    /// Measures.
    pub async fn measure(target: &Target, values: &Values, pacing: Pacing, bars: &Bars) -> Result<Self, CliError> {
        let most = most(target, values, pacing, bars).await?;
        let mut steps = Vec::new();
        let (mut usual_ratio, mut usual_shed) = (Middle::of([]), Middle::of([]));
        for part in PARTS {
            let rate = most.median * part;
            let mut step = Step { part, rate, runs: Vec::new() };
            let times = if part == USUAL { pacing.runs } else { 1 };
            for _ in 0..times {
                step.runs.push(at(target, values, pacing, rate, false, bars).await?);
            }
            if part == USUAL {
                usual_ratio = step.middle(|one| one.sample.latency(0.99) / one.sample.latency(0.5));
                usual_shed = step.shed();
            }
            steps.push(step);
        }
        Ok(Self { most, steps, usual_ratio, usual_shed })
    }

    /// p99 over p50 at the usual part, of what was answered, and the share that was not, for it was turned away.
    pub fn usual(&self) -> (Middle, Middle) {
        (self.usual_ratio, self.usual_shed)
    }

    /// As a picture.
    pub fn plot(&self) -> String {
        let points = self.steps.iter().map(|step| Point {
            load: step.rate,
            quantiles: [0.5, 0.99, 0.999].map(|quantile| step.millis(quantile).median),
        });
        plot::svg("requests a second (half Tokenize, half Detokenize, one value each)", &points.collect::<Vec<_>>())
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            json!({
                "part_of_saturation": step.part,
                "rate": rounded(step.rate),
                "runs": step.runs.len(),
                "answered_per_second": rounded(step.answered().median),
                "shed": step.runs.iter().map(|one| one.noted.shed).sum::<u64>(),
                "unsent": step.runs.iter().map(|one| one.noted.unsent).sum::<u64>(),
                "shed_share": rounded(step.shed().median),
                "unsent_share": rounded(step.unsent().median),
                "p50_ms": rounded(step.millis(0.5).median),
                "p99_ms": rounded(step.millis(0.99).median),
                "p99_ms_ends": ends(step.millis(0.99)),
                "p999_ms": rounded(step.millis(0.999).median),
            })
        });
        json!({
            "saturation_requests_per_second": rounded(self.most.median),
            "saturation_requests_per_second_ends": ends(self.most),
            "p99_to_p50_at_70_percent": rounded(self.usual_ratio.median),
            "p99_to_p50_at_70_percent_ends": ends(self.usual_ratio),
            "shed_share_at_70_percent": rounded(self.usual_shed.median),
            "steps": steps.collect::<Vec<_>>(),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let whole = |middle| spread(middle, |number| figure(number, 0));
        let millis = |middle| spread(middle, |number| figure(number, 2));
        let rows = self.steps.iter().map(|step| {
            vec![
                format!("{:.0} %", step.part * 100.0),
                figure(step.rate, 0),
                whole(step.answered()),
                millis(step.millis(0.5)),
                millis(step.millis(0.99)),
                millis(step.millis(0.999)),
                spread(step.shed(), percent),
                spread(step.unsent(), percent),
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
                "turned away",
                "not sent",
            ],
            rows: rows.collect(),
            below: format!(
                "Half Tokenize, half Detokenize, one value each, reads by Zipf's law, against a vault in a process of its own. \
                 Saturation, {} requests/s, is a closed loop of {SATURATING} under way. The rest is an open loop: requests \
                 start when the schedule says so, and their time counts from then. The last columns are shares of the \
                 requests that were due. What was turned away has no latency, so the percentiles are those of the others; \
                 what could not be sent before the schedule ended is among these, with the time that it waited. Each row is \
                 one run, but {:.0} %, where p99 is {} times p50. {SPREAD}",
                whole(self.most),
                USUAL * 100.0,
                spread(self.usual_ratio, |number| figure(number, 1)),
            ),
        }
    }
}

/// A share in per cent; nothing of it is just 0.
pub fn percent(share: f64) -> String {
    if share == 0.0 { "0".to_owned() } else { format!("{} %", figure(share * 100.0, 2)) }
}
