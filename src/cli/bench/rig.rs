//! What is measured: a vault with values in it, and the yardsticks beside it, ready to take loads in turn.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strongroom_ids::RowId;
use strongroom_rocksdb::{Background, RocksOptions};
use strongroom_storage::Family;

use super::bars::Bars;
use super::direct::{Direct, Leaf};
use super::disk::{self, Leaves};
use super::drive::{Group, Grouping, drive};
use super::ledger;
use super::load::{Outcome, Pace, Plan, Target};
use super::loads::{Beside, Load, Size};
use super::measure::Sample;
use super::pace::Until;
use super::picks::{Picks, Spread};
use super::population::{COLUMNS, Owner, Population, Shape};
use super::report::{Lines, Measured};
use super::served::{self, Served};
use super::stored::Footprint;
use super::workload::{Kind, Source, Stored};
use crate::cli::config::Config;
use crate::cli::dev;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;

/// Values of a batch that fills: whole borrowers, nearly a thousand values.
const WHOLE: usize = 166 * COLUMNS;
/// Batches under way while something is filled.
const FILLING: usize = 4;
/// Single requests under way while something is filled, and connections.
const FILLING_SINGLES: usize = 64;
const CONNECTIONS: usize = 4;
/// Groups of single requests that the bare work has under way.
const DIRECT_AT_ONCE: usize = 4;

/// A vault that was filled, and the yardsticks.
pub struct Rig {
    layout: Layout,
    vault: Served,
    echo: Served,
    direct: Arc<Direct>,
    leaves: Leaves,
    values: Values,
    /// The rows of the yardstick's single values, and of its borrowers' values, in the order of the vault's tokens.
    rows: (RowId, RowId),
    bars: Bars,
    footprint: Footprint,
    ledger: ledger::Ledger,
}

/// What is stored, and the numbers of what is not.
#[derive(Clone, Default)]
pub struct Values {
    /// What is stored and read.
    pub stored: Arc<Stored>,
    /// Where new values come from.
    pub population: Arc<Population>,
}

impl Values {
    /// The requests of a load.
    pub fn source(&self, load: &Load) -> Source {
        self.requests(load.kinds.clone(), load.shape(), load.spread)
    }

    /// Requests of these kinds and this shape.
    pub fn requests(&self, kinds: Vec<Kind>, shape: Shape, spread: Spread) -> Source {
        let picks = Picks::new(shape, self.stored.of(shape).len().max(1), spread);
        let (stored, first) = (Arc::clone(&self.stored), self.population.for_a_load());
        Source { kinds, shape, picks, stored, first }
    }
}

/// Fills a vault.
pub struct Filling<'a> {
    /// The vault.
    pub target: &'a Target,
    /// The bars.
    pub bars: &'a Bars,
}

impl Filling<'_> {
    /// Sends requests of a kind and shape, and brings what was answered.
    pub async fn send(&self, name: &str, source: Source, requests: u64) -> Result<Outcome, CliError> {
        let pace = match source.shape.owner {
            Owner::Nobody => Pace::Closed(FILLING_SINGLES),
            Owner::Borrower => Pace::Closed(FILLING),
        };
        let plan = Plan { connections: CONNECTIONS, pace, until: Until::Requests(requests), keeps: true };
        let bar = self.bars.begin(name);
        let outcome = self.target.load(plan, source, bar.clone()).await?.whole();
        self.bars.end(&bar);
        outcome
    }

    /// Stores borrowers' values, at least so many, and their tokens in their order.
    pub async fn borrowers(&self, values: u64, into: &mut Values) -> Result<u64, CliError> {
        let shape = Shape { owner: Owner::Borrower, items: WHOLE };
        let batches = values.div_ceil(WHOLE as u64).max(2);
        let source = into.requests(vec![Kind::Tokenize], shape, Spread::Uniform);
        let first = source.first;
        let outcome = self.send("store borrowers", source, batches).await?;
        let stored = Arc::make_mut(&mut into.stored);
        if stored.borrowers.len() == 0 {
            stored.first_borrower = first;
        }
        for (_, answer) in &outcome.noted.tokens {
            stored.borrowers.add(answer)?;
        }
        Ok(batches)
    }

    /// Stores values that are nobody's, one a request, and their tokens in their order.
    pub async fn singles(&self, count: u64, into: &mut Values) -> Result<(), CliError> {
        let source = into.requests(vec![Kind::Tokenize], Shape::of(1), Spread::Uniform);
        let first = source.first;
        let outcome = self.send("store single values", source, count).await?;
        let stored = Arc::make_mut(&mut into.stored);
        stored.first_single = first;
        for (_, answer) in &outcome.noted.tokens {
            stored.singles.add(answer)?;
        }
        Ok(())
    }
}

impl Rig {
    /// Bars' steps that preparing takes.
    pub const STEPS: u64 = 4;

    /// Makes everything, fills it, and measures what it takes on disk. `values` of borrowers are stored, and a fifth as many
    /// single ones.
    pub async fn prepare(folder: &Path, values: u64, bars: Bars) -> Result<Self, CliError> {
        let layout = Layout::new(folder.join("vault"));
        dev::make(&layout).await?;
        let config = Config::read(&layout, None)?;
        let options = || RocksOptions { block_cache: config.capacity.block_cache_mib << 20, ..RocksOptions::default() };
        let singles = singles(values);
        let mut known = Values::default();

        let vault = Served::vault(&layout).await?;
        served::apply_schema(&vault.context(&layout, "officer-1")).await?;
        let before = disk::files(store(&vault)?).await?;
        let target = vault.target(&layout);
        let batches = Filling { target: &target, bars: &bars }.borrowers(values, &mut known).await?;
        vault.end().await?;
        let held = disk::contents(&layout, options()).await?;
        let footprint = Footprint { held, before, values: known.stored.borrowers.len() as u64 };

        let vault = Served::vault(&layout).await?;
        let target = vault.target(&layout);
        let filling = Filling { target: &target, bars: &bars };
        let mut sizes = vec![leaves(store(&vault)?).await?];
        filling.singles(singles, &mut known).await?;
        sizes.push(leaves(store(&vault)?).await?);
        let read = |shape| known.requests(vec![Kind::Detokenize], shape, Spread::Uniform);
        filling.send("read single values", read(Shape::of(1)), singles).await?;
        sizes.push(leaves(store(&vault)?).await?);
        let whole = Shape { owner: Owner::Borrower, items: WHOLE };
        filling.send("read borrowers", read(whole), batches).await?;
        sizes.push(leaves(store(&vault)?).await?);
        let a_request = |from: u64, to: u64, requests: u64| to.saturating_sub(from) as f64 / requests as f64;
        let filled = a_request(before[Family::Leaves as usize], sizes[0], batches);
        let of = |unary, batch| ledger::Leaves { unary, batch, items: WHOLE as f64 };
        let ledger = ledger::Ledger {
            tokenize: of(a_request(sizes[0], sizes[1], singles), filled),
            detokenize: of(a_request(sizes[1], sizes[2], singles), a_request(sizes[2], sizes[3], batches)),
        };

        let echo = Served::echo(&layout).await?;
        let leaves = disk::leaves(&vault.context(&layout, "auditor")).await?;
        let folder = folder.join("direct");
        std::fs::create_dir(&folder).map_err(|error| CliError::file(&folder, error))?;
        let direct = Arc::new(Direct::create(&folder, options(), config.capacity.hot_deks)?);
        let rows = (direct.rows(), direct.rows());
        let fill = async |shape: Shape, requests, grouped, rows, leaf: &Leaf| {
            let (direct, leaf, first) = (Arc::clone(&direct), Arc::clone(leaf), known.population.for_a_load());
            let store = direct.background();
            let grouping = Grouping { grouped, at_once: FILLING, items: shape.items as u64 };
            let work = move |group: &Group| direct.write(group, shape, first, rows, &leaf);
            drive(grouping, Until::Requests(requests), &store, work).await
        };
        fill(Shape::of(1), singles, FILLING_SINGLES as u64, rows.0, &leaves.tokenize_unary).await?;
        fill(whole, batches, 1, rows.1, &leaves.tokenize_batch).await?;
        disk::files(&direct.background()).await?;
        Ok(Self { layout, vault, echo, direct, leaves, values: known, rows, bars, footprint, ledger })
    }

    /// One run of a load, on the vault and on the yardsticks beside it.
    pub async fn measure(
        &self,
        load: &Load,
        size: &Size,
        warm_up: Duration,
        lines: &mut Lines,
    ) -> Result<(), CliError> {
        let until = size.until(load.items);
        for (server, measured) in [(&self.vault, Measured::Vault), (&self.echo, Measured::Echo)] {
            if measured == Measured::Echo && load.beside == Beside::Alone {
                continue;
            }
            let target = server.target(&self.layout);
            let bar = self.bars.begin(&format!("{}, {}", load.name, measured.name()));
            if !warm_up.is_zero() {
                target.load(load.plan(Until::Lasted(warm_up)), self.values.source(load), bar.clone()).await?;
            }
            let outcome = target.load(load.plan(until), self.values.source(load), bar.clone()).await?.whole()?;
            self.bars.end(&bar);
            lines.add(load.name, measured, outcome.sample);
        }
        if load.beside == Beside::Both {
            for measured in [Measured::Direct, Measured::WithoutLedger] {
                if let Some(sample) = self.direct(load, size, warm_up, measured).await? {
                    lines.add(load.name, measured, sample);
                }
            }
        }
        Ok(())
    }

    /// One run of a load as bare work; nothing where it would be the same as another one.
    async fn direct(
        &self,
        load: &Load,
        size: &Size,
        warm_up: Duration,
        measured: Measured,
    ) -> Result<Option<Sample>, CliError> {
        let shape = load.shape();
        let reads = load.reads();
        if measured == Measured::WithoutLedger && !reads {
            return Ok(None);
        }
        // As many requests under way as the clients have.
        let (grouped, at_once) = match shape.owner {
            Owner::Nobody => (size.in_flight.div_ceil(DIRECT_AT_ONCE) as u64, DIRECT_AT_ONCE),
            Owner::Borrower => (1, size.batches_in_flight),
        };
        let grouping = Grouping { grouped, at_once, items: shape.items as u64 };
        let run = async |until| {
            let store = self.direct.background();
            let direct = Arc::clone(&self.direct);
            let leaf = Arc::clone(self.leaves.of(reads, shape));
            if reads {
                let leaf = (measured == Measured::Direct).then_some(leaf);
                let picks = Picks::new(shape, self.values.stored.of(shape).len(), load.spread);
                let rows = if shape.owner == Owner::Nobody { self.rows.0 } else { self.rows.1 };
                drive(grouping, until, &store, move |group| {
                    let row = |place: usize| RowId(rows.0 + place as u64);
                    let requests: Vec<Vec<RowId>> =
                        group.requests().map(|request| picks.of(request).into_iter().map(row).collect()).collect();
                    direct.read(&requests, shape.owner, leaf.as_ref())
                })
                .await
            } else {
                let (first, rows) = (self.values.population.for_a_load(), direct.rows());
                drive(grouping, until, &store, move |group| direct.write(group, shape, first, rows, &leaf)).await
            }
        };
        if !warm_up.is_zero() {
            run(Until::Lasted(warm_up)).await?;
        }
        run(size.until(load.items)).await.map(Some)
    }

    /// Ends everything; brings what was measured of the disk, the vault's folder and what is stored in it.
    pub async fn end(self) -> Result<(Footprint, ledger::Ledger, (Layout, Values)), CliError> {
        self.vault.end().await?;
        self.echo.end().await?;
        Ok((self.footprint, self.ledger, (self.layout, self.values)))
    }
}

/// How many single values are stored beside so many of borrowers.
pub fn singles(values: u64) -> u64 {
    (values / 5).max(1_000)
}

fn store(vault: &Served) -> Result<&Background, CliError> {
    vault.store().ok_or_else(|| CliError::unfit("the vault has no store to look at"))
}

/// Bytes of the ledger's files, compacted.
async fn leaves(store: &Background) -> Result<u64, CliError> {
    Ok(disk::files(store).await?[Family::Leaves as usize])
}
