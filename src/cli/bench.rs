//! `strongroom bench`: how fast a vault is on this machine, beside yardsticks measured in the same run.
//!
//! ```text
//! vault       clients -- mTLS --> the vault, all of the road                              (served)
//! (a) echo    clients -- mTLS --> tonic and rustls as they come, the same messages        (echo)
//! (b) direct  the same seals and store entries, in this process, without the road         (direct)
//! (c) (d)     OpenBao and PostgreSQL, by executables that drive them                      (peers)
//! ```
//!
//! What is sent: `population` has the values, `workload` the requests, `loads` their sizes, `picks` which values are read.
//! How: `pace` says when requests start, `load` sends them, `noted` and `measure` keep what came of it. `rig` puts vault
//! and yardsticks up; `latency`, `overload` and `growth` are measurements of their own, and so is `ledger_speed`, of
//! `leaves` that never were in a vault: `append`, `prove`, `convert`; and so are the `questions` that are `asked` of a `year`'s
//! log, whose `mix` is a lender's. What is said: `whole`, from
//! `sheet`s, with the `goals`. Runs take turns: vault, echo, direct, peers, and again; so what else the machine does
//! meanwhile falls on all of them.

mod append;
mod asked;
mod bars;
mod child;
mod convert;
mod decide;
mod dice;
mod direct;
mod disk;
mod drive;
mod echo;
mod fits;
mod generator;
mod goals;
mod growth;
mod latency;
mod leaves;
mod ledger;
mod ledger_speed;
mod load;
mod loads;
mod machine;
mod measure;
mod mix;
mod noted;
mod overload;
mod own;
mod pace;
mod peers;
mod picks;
mod plot;
mod population;
mod process;
mod prove;
mod questions;
mod report;
mod retention;
mod rewrap;
mod rig;
mod served;
mod settings;
mod sheet;
mod stored;
mod streams;
mod tokens;
mod whole;
mod work;
mod workload;
mod year;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use super::anew::make_anew;
use super::client::Global;
use super::demo::borrowers;
use super::output::{CliError, Exit, say};
use super::start;
use bars::Bars;
use child::Child;
use decide::Decide;
use growth::Growth;
use latency::Latency;
use ledger_speed::LedgerSpeed;
use loads::{Load, Size};
use machine::Machine;
use overload::Overload;
use peers::Peers;
use questions::Questions;
use report::Lines;
use retention::Retention;
use rewrap::Rewrap;
use rig::Rig;
use settings::{MEASURING, SIZES, lasting, seconds};
use whole::Whole;

/// Measure this vault on this machine: values in and out, one by one and in batches, beside two yardsticks.
///
/// Makes a vault in ./strongroom-bench and fills it with made-up borrowers, over mutual TLS and with every write
/// synced. Beside it, in the same run, it measures (a) a bare gRPC echo of the same messages over mutual TLS and
/// (b) the same seals and store entries written in one process. Clients, vault and yardsticks share this machine.
///
/// That takes about half a minute. --all measures everything, --parts some of it, --mix puts a load of your own on a
/// vault, and --endpoint names one that is running.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  strongroom bench
  strongroom bench --quick --output json
  strongroom bench --parts latency,overload --plot latency.svg
  strongroom bench --parts ledger                       one part alone; so decide
  strongroom bench --parts questions --leaves 20000000  what auditors ask
  strongroom bench --all --peers deploy/bench --growth 1000000
  strongroom bench --mix tokenize=1,detokenize=4 --rate 5000 --seconds 10
  strongroom bench --mix detokenize=1 --endpoint https://127.0.0.1:7443
  strongroom bench --make-csv 100000 borrowers.csv      a file to try `strongroom import` with")]
pub struct Args {
    /// Where the vault is made; it should be on the disk that you mean to use. It is removed at the end.
    #[arg(long, default_value = "./strongroom-bench", value_name = "FOLDER")]
    folder: PathBuf,

    /// How often everything is measured; medians are shown, with the least and the most.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    runs: u16,

    /// Requests of one value each, a run of a load; 24,000 without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    requests: Option<u32>,

    /// Batches of 1,000 values, a run of a load, and up to ten times as many smaller ones; 100 without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: Option<u32>,

    /// How long a run goes on, 0.1 s at least.
    ///
    /// Loads go on for so long instead of for --requests and --batches. The parts `latency`, `overload`, `growth`,
    /// `rewrap` and `retention`, and --plot, keep each of their rates for so long: 3 s without it. So does --rate: 10 s without it. Other
    /// products are measured for 10 s a load at least.
    #[arg(long, value_name = "SECONDS", value_parser = lasting, conflicts_with_all = ["requests", "batches"])]
    seconds: Option<f64>,

    /// How long a load runs before it is measured; 0.3 s without it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warm_up: Option<f64>,

    /// Connections that the requests share.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,

    /// Requests of one value under way at once; 64 without it.
    #[arg(long, visible_alias = "concurrency", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: Option<u16>,

    /// Batches of 1,000 values under way at once, and four times as many smaller ones; 4 without it. Of a load of your own,
    /// batches of whatever size.
    #[arg(long, visible_alias = "batch-concurrency", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    batches_in_flight: Option<u16>,

    /// Values that are stored beforehand; 50,000 without it.
    ///
    /// They are borrowers', for batches to read. For requests of one value to read, a fifth as many that are nobody's are
    /// stored beside them, 1,000 at least. A load of your own has so many of the kind that it reads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2_000..=50_000_000))]
    stored: Option<u32>,

    /// See only that it works: one short run of whatever is measured, with little stored, whose figures mean little.
    #[arg(long, conflicts_with_all = SIZES)]
    quick: bool,

    /// Measure everything: other batch sizes, streams, the ledger, latency against load, overload, growth, rewrap,
    /// retention, questions of auditors. Takes more than twenty minutes with --peers.
    #[arg(long, conflicts_with_all = ["parts", generator::GROUP])]
    all: bool,

    /// Measure some parts only.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,...", conflicts_with = generator::GROUP)]
    parts: Vec<Part>,

    /// Tokens to which the part `growth` fills its vault; 10,000,000 without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000), conflicts_with = generator::GROUP)]
    growth: Option<u64>,

    /// DEKs that the part `rewrap` wraps anew; 1,000,000 without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10_000..=100_000_000), conflicts_with = generator::GROUP)]
    deks: Option<u64>,

    /// Subjects that the part `retention` erases; 100,000 without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10_000..=100_000_000), conflicts_with = generator::GROUP)]
    subjects: Option<u64>,

    /// Leaves of the export that the part `ledger` verifies and converts, 1,000,000 without it; and of the log that the part
    /// `questions` asks, 2,000,000 without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000), conflicts_with = generator::GROUP)]
    leaves: Option<u64>,

    /// Measure other products in turn with the vault: a folder with the executables `openbao` and `postgres`.
    #[arg(long, value_name = "FOLDER", conflicts_with = generator::GROUP)]
    peers: Option<PathBuf>,

    /// Where the peers keep their state; it should be on the same disk as --folder. It is removed at the end.
    #[arg(long, default_value = "/var/tmp/strongroom-bench-peers", value_name = "FOLDER", requires = "peers")]
    peers_state: PathBuf,

    /// Write the report, Markdown, to a file.
    #[arg(long, value_name = "FILE", conflicts_with = generator::GROUP)]
    report: Option<PathBuf>,

    /// What the report ends with: a file of Markdown that is kept by hand.
    #[arg(long, value_name = "FILE", requires = "report")]
    profile: Option<PathBuf>,

    /// Draw latency against load, SVG, to a file; measures it if nothing else asks for it.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    generator: generator::Args,

    /// Leave the folder as it is at the end.
    #[arg(long)]
    keep: bool,

    /// Measure nothing: write a CSV file of so many made-up borrowers, with six personal columns each.
    #[arg(long, num_args = 2, value_names = ["ROWS", "FILE"], conflicts_with_all = MEASURING, conflicts_with = "print_schema")]
    make_csv: Option<Vec<String>>,

    /// Measure nothing: print the measured fields, to be added to the schema of a vault that is measured by --endpoint.
    #[arg(long, conflicts_with_all = MEASURING)]
    print_schema: bool,

    /// What the part `ledger` starts for itself: make a file of another form of these lines, and say what that took.
    #[arg(long, hide = true, num_args = 2, value_names = ["FORMAT", "FILE"], conflicts_with_all = MEASURING)]
    convert: Option<Vec<String>>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    /// Loads beside their yardsticks, what a value takes on disk, and what a decision costs.
    Loads,
    /// The loads in other sizes, streams, and reads by Zipf's law, as well.
    More,
    /// What a decision costs, alone.
    Decide,
    /// Leaves appended, an export verified, an export made for auditors; alone it takes about a minute.
    Ledger,
    /// Latency against load, in an open loop.
    Latency,
    /// Three times as much as the vault can take.
    Overload,
    /// A hundred times as many tokens; starts after a clean stop and after kill -9.
    Growth,
    /// DEKs wrapped anew, alone and beside callers.
    Rewrap,
    /// Subjects erased by retention, alone and beside callers.
    Retention,
    /// What auditors ask of a log of so many --leaves, by the index that follows it.
    Questions,
}

/// Measures.
pub async fn run(mut args: Args, global: &Global) -> Result<Exit, CliError> {
    if let Some(words) = &args.make_csv {
        return make_csv(words);
    }
    if args.print_schema {
        say(population::SCHEMA.as_bytes())?;
        return Ok(Exit::Done);
    }
    if let Some(words) = &args.convert {
        return convert::run(words);
    }
    fits::check(&args)?;
    if args.quick {
        (args.runs, args.requests, args.batches) = (1, Some(1_000), Some(6));
        (args.stored, args.warm_up) = (Some(2_000), Some(0.0));
        (args.growth, args.deks) = (Some(growth::FEW), Some(10_000));
        (args.subjects, args.leaves) = (Some(10_000), Some(10_000));
    }
    let interrupted = start::asked_to_end();
    let work = async {
        match args.generator.is_asked_for() {
            true => generator::run(&args, global).await,
            false => measure(&args, global).await,
        }
    };
    tokio::select! {
        done = work => done,
        // The work has been dropped, and with it whatever was started: peers, vaults in processes of their own. Threads
        // that play clients would go on until their load ends.
        () = interrupted => {
            global.output.complain(&CliError::Unfit {
                message: "interrupted: nothing was measured to its end".into(),
                next: format!("run it again, or remove what it left in {}{}", args.folder.display(), args.left_by_peers()),
            });
            std::process::exit(Exit::Failed as i32)
        }
    }
}

fn make_csv(words: &[String]) -> Result<Exit, CliError> {
    let [rows, file] = words else { return Err(CliError::Usage("write --make-csv ROWS FILE".into())) };
    let rows = rows.parse().map_err(|_| CliError::Usage(format!("--make-csv {rows}: write a number of rows")))?;
    std::fs::write(file, borrowers::csv(&borrowers::sample(rows))).map_err(|error| CliError::file(file, error))?;
    Ok(Exit::Done)
}

/// Measures the parts that were asked for, and says what came of it.
async fn measure(args: &Args, global: &Global) -> Result<Exit, CliError> {
    make_anew(&args.folder, "bench")?;
    let whole = parts(args).await?;
    if let (Some(file), Some(latency)) = (&args.plot, &whole.latency) {
        write(file, &latency.plot())?;
    }
    if let Some(file) = &args.report {
        let profile = args.profile.as_ref().map(std::fs::read_to_string).transpose();
        let profile = profile.map_err(|error| CliError::file(args.profile.as_deref().unwrap_or(file), error))?;
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let command = format!("strongroom {command}");
        write(file, &whole.markdown(&command, args.plot.as_deref(), &profile.unwrap_or_default()))?;
    }
    global.output.show(|| whole.document(), || args.hinted(whole.text()))?;
    args.tidy()?;
    Ok(Exit::Done)
}

async fn parts(args: &Args) -> Result<Whole, CliError> {
    let has = |part| args.has(part);
    let mut machine = Machine::look(&args.folder);
    let (size, pacing, extent) = (args.size(), args.pacing(), args.extent());
    let mut loads = if has(Part::Loads) { size.first() } else { vec![] };
    if has(Part::More) {
        loads.extend(size.more());
    }
    let mut peers = match &args.peers {
        Some(folder) => Peers::start(folder, &args.peers_state).await?,
        None => Peers::none(),
    };
    if args.peers.is_some() {
        loads.extend(size.as_peers());
    }
    let bars = Bars::new(args.steps(&loads, &peers));
    let rig = match args.has_rig() {
        true => Some(Rig::prepare(&args.folder, args.stored(), bars.clone()).await?),
        false => None,
    };
    let mut lines = Lines::default();
    for _ in 0..args.runs {
        if let Some(rig) = &rig {
            for load in &loads {
                rig.measure(load, &size, args.warm_up(), &mut lines).await?;
            }
        }
        for number in 0..peers.len() {
            let bar = bars.begin(peers.name(number as usize));
            peers.measure(number as usize, args.peer_seconds()).await?;
            bars.end(&bar);
        }
    }
    peers.stop();
    if args.peers.is_some() && !args.keep {
        std::fs::remove_dir_all(&args.peers_state).map_err(|error| CliError::file(&args.peers_state, error))?;
    }
    for (name, version) in peers.versions() {
        machine.add(name, &version);
    }
    let mut whole = Whole {
        machine,
        setting: args.setting(),
        lines,
        footprint: None,
        ledger: None,
        ledger_speed: None,
        decide: None,
        latency: None,
        overload: None,
        growth: None,
        rewrap: None,
        retention: None,
        questions: None,
        peers,
        notes: args.notes(),
    };
    let filled = match rig {
        Some(rig) => {
            let (footprint, ledger, filled) = rig.end().await?;
            (whole.footprint, whole.ledger) = (Some(footprint), Some(ledger));
            Some(filled)
        }
        None => None,
    };
    if has(Part::Loads) || has(Part::Decide) {
        whole.decide = Some(Decide::measure(args.runs, args.quick).await?);
    }
    if has(Part::Ledger) {
        whole.ledger_speed = Some(LedgerSpeed::measure(&args.folder, args.leaves(), args.runs, &bars).await?);
    }
    if let Some((layout, values)) = filled {
        if has(Part::Latency) {
            let vault = Child::start(&layout).await?;
            whole.latency = Some(Latency::measure(&vault.target(), &values, pacing, &bars).await?);
            vault.end().await?;
        }
        if has(Part::Overload) {
            let vault = Child::start(&layout).await?;
            whole.overload = Some(Overload::measure(&vault, &values, pacing, &bars).await?);
            vault.end().await?;
        }
    }
    if has(Part::Growth) {
        whole.growth = Some(Growth::measure(&args.folder, extent, &bars).await?);
    }
    if has(Part::Rewrap) {
        whole.rewrap = Some(Rewrap::measure(&args.folder, args.deks(), pacing, &bars).await?);
    }
    if has(Part::Retention) {
        whole.retention = Some(Retention::measure(&args.folder, args.subjects(), pacing, &bars).await?);
    }
    if has(Part::Questions) {
        whole.questions = Some(Questions::measure(&args.folder, args.asked_leaves(), args.runs, &bars).await?);
    }
    bars.finish();
    Ok(whole)
}

impl Args {
    fn has(&self, part: Part) -> bool {
        let by_default = self.parts.is_empty() && part == Part::Loads;
        let drawn = part == Part::Latency && self.plot.is_some();
        self.all || by_default || drawn || self.parts.contains(&part)
    }

    fn size(&self) -> Size {
        Size {
            requests: self.requests.unwrap_or(24_000).into(),
            batches: self.batches.unwrap_or(100).into(),
            seconds: self.seconds,
            connections: self.connections.into(),
            in_flight: self.in_flight.unwrap_or(64).into(),
            batches_in_flight: self.batches_in_flight.unwrap_or(4).into(),
        }
    }

    fn stored(&self) -> u64 {
        self.stored.unwrap_or(50_000).into()
    }

    fn deks(&self) -> u64 {
        self.deks.unwrap_or(1_000_000)
    }

    fn subjects(&self) -> u64 {
        self.subjects.unwrap_or(100_000)
    }

    fn leaves(&self) -> u64 {
        self.leaves.unwrap_or(1_000_000)
    }

    fn asked_leaves(&self) -> u64 {
        self.leaves.unwrap_or(2_000_000)
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up.unwrap_or(0.3))
    }

    /// Whether loads are measured: the vault's own, or those that other products get.
    fn has_loads(&self) -> bool {
        self.has(Part::Loads) || self.has(Part::More) || self.peers.is_some()
    }

    /// Whether a vault is filled first, with the yardsticks beside it. Growth, rewrap and retention fill their own as well.
    fn has_rig(&self) -> bool {
        let others = [Part::Latency, Part::Overload, Part::Growth, Part::Rewrap, Part::Retention];
        self.has_loads() || others.into_iter().any(|part| self.has(part))
    }

    /// Steps of the bar over everything.
    fn steps(&self, loads: &[Load], peers: &Peers) -> u64 {
        let servers = |load: &Load| if load.beside == loads::Beside::Alone { 1 } else { 2 };
        let a_run = loads.iter().map(servers).sum::<u64>() + peers.len();
        let mut steps = u64::from(self.runs) * a_run + if self.has_rig() { Rig::STEPS } else { 0 };
        for (part, more) in [
            (Part::Ledger, LedgerSpeed::steps(self.runs)),
            (Part::Latency, Latency::steps(self.runs)),
            (Part::Overload, Overload::steps(self.runs)),
            (Part::Growth, Growth::steps(self.extent())),
            (Part::Rewrap, Rewrap::steps(self.pacing())),
            (Part::Retention, Retention::steps(self.pacing())),
            (Part::Questions, Questions::steps(self.runs)),
        ] {
            steps += if self.has(part) { more } else { 0 };
        }
        steps
    }

    /// What longer forms there are, below the tables of the short one.
    fn hinted(&self, text: String) -> String {
        match self.all || !self.parts.is_empty() {
            true => text,
            false => format!(
                "{text}\n\nLonger: --parts more,ledger,latency,overload,growth,rewrap,retention,questions for the rest, --all for everything, --peers FOLDER for \
                 other products beside it, --mix for a load of your own."
            ),
        }
    }
}

fn write(file: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(file, text).map_err(|error| CliError::file(file, error))
}
