//! `strongroom bench`: how fast a vault is on this machine, beside two yardsticks measured in the same run.
//!
//! ```text
//! vault       clients -- mTLS --> the vault, all of the road
//! (a) echo    clients -- mTLS --> tonic and rustls as they come, the same messages        (served)
//! (b) direct  the same seals and store entries, in this process, without the road        (direct)
//! ```
//!
//! Runs take turns: vault, echo, direct, and again; so what else the machine does meanwhile falls on all of them.

mod direct;
mod disk;
mod load;
mod measure;
mod report;
mod served;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use strongroom_ids::RowId;
use strongroom_rocksdb::RocksOptions;

use super::config::Config;
use super::demo::borrowers::{self, Borrower};
use super::demo::make_anew;
use super::dev;
use super::layout::Layout;
use super::output::{CliError, Exit, Output};
use direct::Direct;
use disk::Leaves;
use load::{Clients, Outcome};
use measure::Sample;
use report::{Disk, Measured, Report};
use served::Served;
use workload::VALUES;

/// Writes of the yardstick that are under way at once.
const DIRECT_AT_ONCE: usize = 4;
/// Borrowers of the single requests that go ahead of what is measured.
const WARM_UP: usize = 128;

/// Measure this vault on this machine: Tokenize and Detokenize, one value and batches, beside two yardsticks.
///
/// Makes a vault in ./strongroom-bench and fills it with made-up borrowers, over mutual TLS and with every write
/// synced. Beside it, in the same run, it measures (a) a bare gRPC echo of the same messages over mutual TLS and
/// (b) the same seals and store entries written in one process. Clients, vault and yardsticks share this machine.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  strongroom bench
  strongroom bench --quick --output json
  strongroom bench --make-csv 100000 borrowers.csv      a file to try `strongroom import` with")]
pub struct Args {
    /// Where the vault is made; it should be on the disk that you mean to use. It is removed at the end.
    #[arg(long, default_value = "./strongroom-bench", value_name = "FOLDER")]
    folder: PathBuf,

    /// How often everything is measured; medians are shown.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    runs: u16,

    /// Requests of one value each, a run.
    #[arg(long, default_value_t = 24_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    requests: u32,

    /// How many of them are under way at once.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,

    /// Batches, a run.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: u32,

    /// Values of a batch, rounded to whole borrowers of six.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u16).range(6..=9_996))]
    batch: u16,

    /// How many batches are under way at once.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    batch_concurrency: u16,

    /// Connections that the requests share.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,

    /// See only that it works: one short run, whose figures mean little.
    #[arg(long)]
    quick: bool,

    /// Leave the folder as it is at the end.
    #[arg(long)]
    keep: bool,

    /// Measure nothing: write a CSV file of so many made-up borrowers, with six personal columns each.
    #[arg(long, num_args = 2, value_names = ["ROWS", "FILE"], conflicts_with_all = ["quick", "keep"])]
    make_csv: Option<Vec<String>>,
}

/// Measures.
pub async fn run(mut args: Args, output: Output) -> Result<Exit, CliError> {
    if let Some(words) = &args.make_csv {
        return make_csv(words);
    }
    if args.quick {
        (args.runs, args.requests, args.batches) = (1, 1_000, 6);
    }
    make_anew(&args.folder, "bench")?;
    let report = Bench::prepare(&args).await?.measure().await?;
    output.show(|| report.document(), || report.text())?;
    if !args.keep {
        std::fs::remove_dir_all(&args.folder).map_err(|error| CliError::file(&args.folder, error))?;
    }
    Ok(Exit::Done)
}

fn make_csv(words: &[String]) -> Result<Exit, CliError> {
    let [rows, file] = words else { return Err(CliError::Usage("write --make-csv ROWS FILE".into())) };
    let rows = rows.parse().map_err(|_| CliError::Usage(format!("--make-csv {rows}: write a number of rows")))?;
    std::fs::write(file, borrowers::csv(&borrowers::sample(rows))).map_err(|error| CliError::file(file, error))?;
    Ok(Exit::Done)
}

/// A load, of the four.
#[derive(Clone, Copy)]
enum Size {
    Unary,
    Batch,
}

/// A vault that was filled, the yardsticks beside it, and what is left to be measured.
struct Bench<'a> {
    args: &'a Args,
    layout: Layout,
    vault: Served,
    echo: Served,
    direct: Arc<Direct>,
    leaves: Leaves,
    disk: Disk,
    population: Box<dyn Iterator<Item = Borrower> + Send>,
    bars: MultiProgress,
}

impl<'a> Bench<'a> {
    /// Makes everything, and fills the vault with as much as one run brings.
    async fn prepare(args: &'a Args) -> Result<Self, CliError> {
        let layout = Layout::new(args.folder.join("vault"));
        dev::make(&layout).await?;
        let config = Config::read(&layout, None)?;
        let options = || RocksOptions { block_cache: config.capacity.block_cache_mib << 20, ..RocksOptions::default() };
        let before = disk::contents(&layout, options()).await?.on_disk;

        let bars = MultiProgress::new();
        let mut population: Box<dyn Iterator<Item = Borrower> + Send> = Box::new(borrowers::all());
        let fill: Vec<Borrower> = population.by_ref().take(args.batch_borrowers()).collect();
        let vault = Served::vault(&layout).await?;
        let clients = args.clients(&vault, &layout, Size::Batch);
        let calls = workload::tokenize_batches(&fill, args.together());
        clients.send(calls, bar(&bars, "fill", args.batches.into())).await?;
        vault.end().await?;
        let disk = Disk {
            contents: disk::contents(&layout, options()).await?,
            before,
            values: (fill.len() * VALUES) as u64,
            plain: fill.iter().flat_map(Borrower::values).map(|(_, value)| value.len() as u64).sum(),
        };

        let vault = Served::vault(&layout).await?;
        let echo = Served::echo(&layout).await?;
        let leaves =
            warm_up(args, &layout, [&vault, &echo], population.by_ref().take(WARM_UP + args.together()).collect())
                .await?;
        let folder = args.folder.join("direct");
        std::fs::create_dir(&folder).map_err(|error| CliError::file(&folder, error))?;
        let direct = Arc::new(Direct::create(&folder, options(), config.capacity.hot_deks)?);
        let leaf = &leaves.tokenize_batch;
        direct.write_batches(&Arc::new(fill), args.together(), DIRECT_AT_ONCE, leaf).await?;
        direct.settle().await?;
        Ok(Self { args, layout, vault, echo, direct, leaves, disk, population, bars })
    }

    /// Measures everything as often as was asked for.
    async fn measure(mut self) -> Result<Report, CliError> {
        let mut lines = Vec::new();
        for _ in 0..self.args.runs {
            for size in [Size::Unary, Size::Batch] {
                self.run(size, &mut lines).await?;
            }
        }
        self.vault.end().await?;
        self.echo.end().await?;
        let note = on_memory(&self.args.folder).then_some(
            "the folder is in memory (tmpfs): a sync there costs nothing, so these are no figures of a disk",
        );
        Ok(Report { setting: self.args.setting(), lines, disk: self.disk, note })
    }

    /// One size, on all servers.
    async fn run(&mut self, size: Size, lines: &mut Vec<report::Line>) -> Result<(), CliError> {
        let args = self.args;
        let count = match size {
            Size::Unary => args.unary_borrowers(),
            Size::Batch => args.batch_borrowers(),
        };
        let borrowers: Arc<Vec<Borrower>> = Arc::new(self.population.by_ref().take(count).collect());
        let (tokenize, detokenize) = match size {
            Size::Unary => ("tokenize_unary", "detokenize_unary"),
            Size::Batch => ("tokenize_batch", "detokenize_batch"),
        };
        let mut tokens = Vec::new();
        for (server, measured) in [(&self.vault, Measured::Vault), (&self.echo, Measured::Echo)] {
            let clients = args.clients(server, &self.layout, size);
            let calls = match size {
                Size::Unary => workload::tokenize_unary(&borrowers),
                Size::Batch => workload::tokenize_batches(&borrowers, args.together()),
            };
            let outcome = self.send(&clients, calls, tokenize).await?;
            Report::add(lines, tokenize, measured, outcome.sample);
            if measured == Measured::Vault {
                tokens = in_place(outcome.tokens, borrowers.len(), size);
            }
            let calls = match size {
                Size::Unary => workload::detokenize_unary(&tokens),
                Size::Batch => workload::detokenize_batches(&tokens, args.together()),
            };
            Report::add(lines, detokenize, measured, self.send(&clients, calls, detokenize).await?.sample);
        }
        let (written, read, bare) = self.direct(size, &borrowers).await?;
        Report::add(lines, tokenize, Measured::Direct, written);
        Report::add(lines, detokenize, Measured::Direct, read);
        Report::add(lines, detokenize, Measured::WithoutLedger, bare);
        lines.sort_by_key(|line| LOADS.iter().position(|load| *load == line.load));
        Ok(())
    }

    async fn send(&self, clients: &Clients, calls: Vec<workload::Call>, load: &str) -> Result<Outcome, CliError> {
        let bar = bar(&self.bars, load, calls.len() as u64);
        let outcome = clients.send(calls, bar.clone()).await;
        bar.finish_and_clear();
        outcome
    }

    /// The second yardstick: written, read, and read without an entry for the ledger.
    async fn direct(&self, size: Size, borrowers: &Arc<Vec<Borrower>>) -> Result<(Sample, Sample, Sample), CliError> {
        let (leaves, direct) = (&self.leaves, &self.direct);
        match size {
            Size::Unary => {
                // As many requests under way as the clients have.
                let grouped = usize::from(self.args.concurrency).div_ceil(DIRECT_AT_ONCE);
                let leaf = &leaves.tokenize_unary;
                let (written, rows) = direct.write_singles(borrowers, grouped, DIRECT_AT_ONCE, leaf).await?;
                let requests = || workload::scattered(rows.len()).map(|place| vec![rows[place]]).collect();
                let leaf = Some(Arc::clone(&leaves.detokenize_unary));
                let read = direct.read(requests(), grouped, DIRECT_AT_ONCE, leaf).await?;
                Ok((written, read, direct.read(requests(), grouped, DIRECT_AT_ONCE, None).await?))
            }
            Size::Batch => {
                let (together, at_once) = (self.args.together(), usize::from(self.args.batch_concurrency));
                let leaf = &leaves.tokenize_batch;
                let (written, rows) = direct.write_batches(borrowers, together, at_once, leaf).await?;
                let of: Vec<&[RowId]> = rows.chunks(VALUES).collect();
                let order: Vec<usize> = workload::scattered(of.len()).collect();
                let request = |batch: &[usize]| batch.iter().flat_map(|place| of[*place]).copied().collect();
                let requests = || order.chunks(together).map(request).collect();
                let leaf = Some(Arc::clone(&leaves.detokenize_batch));
                let read = direct.read(requests(), 1, at_once, leaf).await?;
                Ok((written, read, direct.read(requests(), 1, at_once, None).await?))
            }
        }
    }
}

/// The loads, in the order in which they are shown.
const LOADS: [&str; 4] = ["tokenize_unary", "detokenize_unary", "tokenize_batch", "detokenize_batch"];

/// Sends some requests of each kind that are not measured, and brings the leaves that the vault wrote of them.
async fn warm_up(
    args: &Args,
    layout: &Layout,
    servers: [&Served; 2],
    borrowers: Vec<Borrower>,
) -> Result<Leaves, CliError> {
    let [vault, echo] = servers;
    let (some, others) = borrowers.split_at(WARM_UP);
    for server in [vault, echo] {
        let hidden = ProgressBar::hidden;
        let clients = args.clients(server, layout, Size::Unary);
        let tokens =
            in_place(clients.send(workload::tokenize_unary(some), hidden()).await?.tokens, some.len(), Size::Unary);
        clients.send(workload::detokenize_unary(&tokens), hidden()).await?;
        let batches = workload::tokenize_batches(others, args.together());
        let tokens = in_place(clients.send(batches, hidden()).await?.tokens, others.len(), Size::Batch);
        clients.send(workload::detokenize_batches(&tokens, args.together()), hidden()).await?;
    }
    disk::leaves(&vault.context(layout, "auditor")).await
}

/// Tokens in the order of borrowers and columns.
fn in_place(answers: Vec<Vec<String>>, borrowers: usize, size: Size) -> Vec<String> {
    match size {
        Size::Batch => answers.into_iter().flatten().collect(),
        Size::Unary => {
            let mut tokens = vec![String::new(); borrowers * VALUES];
            for (request, answer) in answers.into_iter().enumerate() {
                tokens[workload::place_of_unary(request, borrowers)] = answer.into_iter().next().unwrap_or_default();
            }
            tokens
        }
    }
}

impl Args {
    /// Borrowers of a batch.
    fn together(&self) -> usize {
        usize::from(self.batch).div_ceil(VALUES)
    }

    fn batch_borrowers(&self) -> usize {
        self.batches as usize * self.together()
    }

    fn unary_borrowers(&self) -> usize {
        (self.requests as usize).div_ceil(VALUES)
    }

    fn clients(&self, server: &Served, layout: &Layout, size: Size) -> Clients {
        Clients {
            context: server.context(layout, "app"),
            connections: self.connections.into(),
            in_flight: usize::from(match size {
                Size::Unary => self.concurrency,
                Size::Batch => self.batch_concurrency,
            }),
        }
    }

    fn setting(&self) -> serde_json::Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "runs": self.runs,
            "connections": self.connections,
            "unary_requests": self.unary_borrowers() * VALUES,
            "unary_in_flight": self.concurrency,
            "batches": self.batches,
            "batch_items": self.together() * VALUES,
            "batches_in_flight": self.batch_concurrency,
        })
    }
}

fn bar(bars: &MultiProgress, load: &str, requests: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:18} {bar:32} {percent:>3}%  {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bars.add(ProgressBar::new(requests).with_style(style).with_message(load.replace('_', ", ")))
}

/// Whether a folder is in memory only.
fn on_memory(folder: &std::path::Path) -> bool {
    const TMPFS: i128 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS)
}
