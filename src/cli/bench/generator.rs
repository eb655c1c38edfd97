//! The load generator: a load of one's own, on a vault that is made for it or on one that is running.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use tonic::transport::Uri;

use super::bars::Bars;
use super::latency::Latency;
use super::load::{Outcome, Pace, Plan, Target};
use super::measure::Middle;
use super::pace::Until;
use super::picks::Spread;
use super::population::Shape;
use super::process::Process;
use super::rig::{Filling, Values};
use super::served::{self, Served};
use super::sheet::{Sheet, figure, rounded, short};
use super::workload::Kind;
use crate::cli::anew::make_anew;
use crate::cli::client::Global;
use crate::cli::dev;
use crate::cli::layout::Layout;
use crate::cli::output::{CliError, Exit};

/// The group of the options here: whichever of them is given, a load of one's own is meant.
pub const GROUP: &str = "own_load";

/// A load of one's own.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "A load of your own")]
#[group(id = GROUP)]
pub struct Args {
    /// What requests do, each so often: tokenize=1,detokenize=8,match=1. Without it, half tokenize and half detokenize.
    /// This option, as each of those below, measures such a load only.
    #[arg(long, value_name = "KIND=N,...", value_parser = mix)]
    mix: Option<Mix>,

    /// Values of a request; one without it. One: values without subject; more: whole borrowers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: Option<u16>,

    /// So many requests a second, whatever becomes of them, and their time from when they should have started. Without it
    /// the next request starts when one is answered.
    #[arg(long, value_name = "REQUESTS/S", value_parser = rate, conflicts_with_all = AT_ONCE, conflicts_with_all = COUNTS, conflicts_with = "streams")]
    rate: Option<f64>,

    /// Send over bulk streams, one a connection, four messages ahead of their answers. Needs a --mix of tokenize alone, or
    /// of detokenize alone.
    #[arg(long, conflicts_with_all = AT_ONCE, requires = "mix")]
    streams: bool,

    /// How reads are spread over what is stored; uniform without it.
    #[arg(long, value_enum, value_name = "SPREAD")]
    reads: Option<Spread>,

    /// Measure the vault that answers at this address, with the certificates of --dir and --as, or --ca, --cert and --key.
    /// It needs the fields of --print-schema; values are stored in it.
    #[arg(long, value_name = "URL", conflicts_with_all = ["folder", "keep"])]
    endpoint: Option<String>,

    /// Let --endpoint name another machine.
    #[arg(long, requires = "endpoint")]
    allow_remote: bool,
}

/// What says how many requests are under way; an open loop and streams say that by themselves.
const AT_ONCE: [&str; 2] = ["in_flight", "batches_in_flight"];
/// What says how many requests there are; an open loop goes on for a time.
const COUNTS: [&str; 2] = ["requests", "batches"];

/// Kinds of requests, each as often as it stands here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mix(Vec<Kind>);

/// Parts of a mix at most.
const PARTS: usize = 1_000;

fn mix(text: &str) -> Result<Mix, String> {
    let wrong =
        || format!("write tokenize=N, detokenize=N and match=N, with commas between them and {PARTS} in all at most");
    let mut counted = Vec::new();
    for part in text.split(',') {
        let (kind, count) = part.split_once('=').unwrap_or((part, "1"));
        let kind = match kind.trim() {
            "tokenize" => Kind::Tokenize,
            "detokenize" => Kind::Detokenize,
            "match" => Kind::Match,
            _ => return Err(wrong()),
        };
        counted.push((kind, count.trim().parse::<usize>().map_err(|_| wrong())?));
    }
    let all: usize = counted.iter().map(|(_, count)| *count).fold(0, usize::saturating_add);
    if all == 0 || all > PARTS {
        return Err(wrong());
    }
    // Spread out, so that no kind comes in bursts: the one that is furthest behind its share goes next.
    let mut kinds = Vec::with_capacity(all);
    let mut sent = vec![0; counted.len()];
    while kinds.len() < all {
        let behind = |place: &usize| (counted[*place].1 * (kinds.len() + 1)) as i64 - (sent[*place] * all) as i64;
        let next = (0..counted.len()).max_by_key(behind).unwrap_or(0);
        sent[next] += 1;
        kinds.push(counted[next].0);
    }
    Ok(Mix(kinds))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("write requests a second".to_owned()),
    }
}

impl Args {
    /// Whether a load of one's own is meant.
    pub fn is_asked_for(&self) -> bool {
        let shaped = self.mix.is_some() || self.batch.is_some() || self.reads.is_some();
        shaped || self.endpoint.is_some() || self.rate.is_some() || self.streams
    }

    /// Whether its requests carry more than one value.
    pub fn is_of_batches(&self) -> bool {
        self.shape().items > 1
    }

    /// Whether any of its requests reads what is stored.
    pub fn reads(&self) -> bool {
        self.kinds().iter().any(|kind| *kind != Kind::Tokenize)
    }

    /// Whether it says how reads are spread.
    pub fn says_how_it_reads(&self) -> bool {
        self.reads.is_some()
    }

    /// Whether streams are meant that there are not: those have requests of one kind, in or out.
    pub fn streams_in_vain(&self) -> bool {
        let kinds = self.kinds();
        let one = |wanted| kinds.iter().all(|kind| *kind == wanted);
        self.streams && !one(Kind::Tokenize) && !one(Kind::Detokenize)
    }

    fn kinds(&self) -> Vec<Kind> {
        self.mix.as_ref().map_or_else(|| vec![Kind::Tokenize, Kind::Detokenize], |mix| mix.0.clone())
    }

    fn shape(&self) -> Shape {
        Shape::of(self.batch.unwrap_or(1).into())
    }
}

/// Refuses an address that leads to another machine, unless that is allowed: a load is no joke there.
fn refuse_remote(endpoint: &str, allowed: bool) -> Result<(), CliError> {
    let uri: Uri =
        endpoint.parse().map_err(|_| CliError::Usage(format!("--endpoint {endpoint}: write https://HOST:PORT")))?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if local || allowed {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "--endpoint {endpoint}: {host} is not this machine, and a load may keep its callers out and fills its ledger for \
         good: add --allow-remote if that is meant"
    )))
}

/// A vault to put the load on.
struct Subject {
    target: Target,
    /// The vault that was made for it.
    own: Option<Served>,
}

impl Subject {
    async fn find(args: &super::Args, global: &Global) -> Result<Self, CliError> {
        match &args.generator.endpoint {
            Some(endpoint) => {
                refuse_remote(endpoint, args.generator.allow_remote)?;
                let global = Global { address: endpoint.clone(), ..global.clone() };
                let context = global.context("app")?;
                Ok(Self { target: Target { context, process: Process::Unknown, store: None }, own: None })
            }
            None => {
                make_anew(&args.folder, "bench")?;
                let layout = Layout::new(args.folder.join("vault"));
                dev::make(&layout).await?;
                let vault = Served::vault(&layout).await?;
                served::apply_schema(&vault.context(&layout, "officer-1")).await?;
                Ok(Self { target: vault.target(&layout), own: Some(vault) })
            }
        }
    }
}

/// Puts the load on the vault, and says what came of it.
pub async fn run(args: &super::Args, global: &Global) -> Result<Exit, CliError> {
    let own = &args.generator;
    let subject = Subject::find(args, global).await?;
    let (kinds, shape, runs, size) = (own.kinds(), own.shape(), u64::from(args.runs), args.size());
    let drawn = if args.plot.is_some() { Latency::steps(args.runs) } else { 0 };
    let bars = Bars::new(runs + drawn + 1);
    let values = fill(args, &subject.target, &bars).await?;
    let pace = match (own.rate, own.streams) {
        (Some(rate), _) => Pace::Open(rate),
        (None, true) => Pace::Streams,
        (None, false) if shape.items == 1 => Pace::Closed(size.in_flight),
        (None, false) => Pace::Closed(size.batches_in_flight),
    };
    let open = if args.quick { super::settings::QUICK_SECONDS } else { OPEN_SECONDS };
    let until = match (args.seconds, own.rate) {
        (None, None) => size.until(shape.items),
        (seconds, _) => Until::Lasted(Duration::from_secs_f64(seconds.unwrap_or(open))),
    };
    let plan = Plan { connections: size.connections, pace, until, keeps: false };
    let source = || values.requests(kinds.clone(), shape, own.reads.unwrap_or(Spread::Uniform));
    if !args.warm_up().is_zero() {
        let warm_up = Plan { until: Until::Lasted(args.warm_up()), ..plan };
        subject.target.load(warm_up, source(), indicatif::ProgressBar::hidden()).await?;
    }
    let mut outcomes = Vec::new();
    for run in 0..runs {
        let bar = bars.begin(&format!("run {}", run + 1));
        outcomes.push(subject.target.load(plan, source(), bar.clone()).await?);
        bars.end(&bar);
    }
    let latency = match &args.plot {
        Some(_) => Some(Latency::measure(&subject.target, &values, args.pacing(), &bars).await?),
        None => None,
    };
    bars.finish();
    if let (Some(file), Some(latency)) = (&args.plot, &latency) {
        super::write(file, &latency.plot())?;
    }
    let document = || {
        json!({
            "runs": outcomes.iter().map(document).collect::<Vec<_>>(),
            "latency": latency.as_ref().map(Latency::document),
        })
    };
    let text = || {
        let sheets = [Some(sheet(&outcomes)), latency.as_ref().map(Latency::sheet)];
        sheets.iter().flatten().map(Sheet::text).collect::<Vec<_>>().join("\n\n")
    };
    global.output.show(document, text)?;
    if let Some(vault) = subject.own {
        vault.end().await?;
        args.tidy()?;
    }
    Ok(Exit::Done)
}

/// How long an open loop goes on.
const OPEN_SECONDS: f64 = 10.0;

/// Stores what is read, if anything is.
async fn fill(args: &super::Args, target: &Target, bars: &Bars) -> Result<Values, CliError> {
    let mut values = Values::default();
    // A vault that is running may hold what an earlier run stored: values are looked up by nobody, subjects are found again.
    let filling = Filling { target, bars };
    let (reads, of_batches) = (args.generator.reads(), args.generator.is_of_batches());
    let filled = async {
        // Latency against load is measured with requests of one value.
        if args.plot.is_some() || reads && !of_batches {
            filling.singles(args.stored(), &mut values).await?;
        }
        if reads && of_batches {
            filling.borrowers(args.stored(), &mut values).await?;
        }
        Ok::<_, CliError>(())
    };
    filled.await.map_err(|error| match &error {
        CliError::Refused(refusal) if refusal.violations.iter().any(|broken| broken.rule == "field_unknown") => error
            .advise(
                "(strongroom schema show; strongroom bench --print-schema) > schema.toml, \
                 and: strongroom schema apply schema.toml",
            ),
        _ => error,
    })?;
    Ok(values)
}

/// What is shown of one run.
type Figure = fn(&Outcome) -> f64;

const FIGURES: [(&str, &str, Figure); 11] = [
    ("requests_per_second", "answered/s", |outcome| outcome.sample.requests_per_second()),
    ("items_per_second", "values/s", |outcome| outcome.sample.items_per_second()),
    ("p50_us", "p50 us", |outcome| outcome.sample.latency(0.5)),
    ("p99_us", "p99 us", |outcome| outcome.sample.latency(0.99)),
    ("p999_us", "p99.9 us", |outcome| outcome.sample.latency(0.999)),
    ("max_us", "longest us", |outcome| outcome.sample.latency(1.0)),
    ("server_cpu_us_per_request", "CPU us/request", |outcome| outcome.sample.server_cpu_per_request()),
    ("server_cpu_us_per_item", "CPU us/value", |outcome| outcome.sample.server_cpu_per_item()),
    ("client_cpu_us_per_request", "client CPU us/request", |outcome| outcome.sample.client_cpu_per_request()),
    ("shed", "turned away", |outcome| outcome.noted.shed as f64),
    ("unsent", "not sent", |outcome| outcome.noted.unsent as f64),
];

fn document(outcome: &Outcome) -> Value {
    Value::Object(FIGURES.iter().map(|(name, _, figure)| ((*name).to_owned(), rounded(figure(outcome)))).collect())
}

fn sheet(outcomes: &[Outcome]) -> Sheet {
    let shown = |figure: f64| if figure >= 100.0 { self::figure(figure, 0) } else { short(figure) };
    let row = |name: String, of: &dyn Fn(Figure) -> f64| {
        [name].into_iter().chain(FIGURES.iter().map(|(_, _, figure)| shown(of(*figure)))).collect()
    };
    let mut rows: Vec<Vec<String>> =
        (1..).zip(outcomes).map(|(run, outcome)| row(format!("run {run}"), &|figure| figure(outcome))).collect();
    if outcomes.len() > 1 {
        rows.push(row("median".to_owned(), &|figure| Middle::of(outcomes.iter().map(figure)).median));
    }
    let header = ["run"].into_iter().chain(FIGURES.iter().map(|(_, title, _)| *title)).collect();
    let below = "The percentiles are those of the requests that were answered and, of a load with --rate, of those that could \
                 not be sent before it ended, with the time that they waited. What was turned away for want of room has no \
                 latency and is in none of them; it is counted in its column."
        .to_owned();
    Sheet { title: "Load", header, rows, below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_refused_unless_it_is_allowed() {
        for local in ["https://127.0.0.1:7443", "https://127.8.0.1", "https://[::1]:7443", "https://localhost:1"] {
            assert!(refuse_remote(local, false).is_ok(), "{local}");
        }
        for remote in
            ["https://10.0.0.7:7443", "https://vault.bank.example", "https://[fd00::7]:1", "https://0.0.0.0:1"]
        {
            let error = refuse_remote(remote, false).unwrap_err();
            assert!(error.to_string().contains("--allow-remote") && error.exit() == Exit::Usage, "{error}");
            assert!(refuse_remote(remote, true).is_ok());
        }
        assert!(refuse_remote("no address", true).is_err());
    }

    #[test]
    fn a_mix_is_spread_out() {
        use Kind::{Detokenize, Match, Tokenize};
        assert_eq!(mix("detokenize=1,tokenize=1").unwrap().0.len(), 2);
        let kinds = mix("tokenize=1,detokenize=3,match").unwrap().0;
        assert_eq!(kinds.len(), 5);
        let count = |wanted| kinds.iter().filter(|kind| **kind == wanted).count();
        assert_eq!((count(Tokenize), count(Detokenize), count(Match)), (1, 3, 1));
        assert!(kinds.windows(3).all(|three| three != [Detokenize; 3]), "{kinds:?}");
        for wrong in ["", "tokenise=1", "tokenize=0", "tokenize=x", "tokenize=5000"] {
            assert!(mix(wrong).is_err(), "{wrong}");
        }
    }
}
