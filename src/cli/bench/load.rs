//! Clients that put a load on a server, over mutual TLS.
//!
//! Each connection has a thread and a runtime of its own, so that the clients' processor time can be told from the
//! server's, though both may be one process.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use indicatif::ProgressBar;
use strongroom_proto::v1::vault_client::VaultClient;
use strongroom_rocksdb::Background;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::measure::{self, Meter, Sample};
use super::noted::Noted;
use super::pace::{self, Numbers, Schedule, Tick, Until};
use super::process::Process;
use super::streams;
use super::work::unfit;
use super::workload::Source;
use crate::cli::client::{Context, Wire};
use crate::cli::output::CliError;

/// Calls that the vault lets one connection have under way.
const CALLS_OF_A_CONNECTION: usize = 256;
/// How often a bar moves.
const BLINK: Duration = Duration::from_millis(100);
/// Ticks of a bar, whatever the load.
pub const BAR: u64 = 1_000;

/// How requests follow each other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// So many are under way at once, over all connections: the next one starts when one is answered.
    Closed(usize),
    /// So many start a second, whatever becomes of them.
    Open(f64),
    /// One bulk stream a connection, with some messages under way on each.
    Streams,
}

/// A load.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plan {
    /// How many connections the requests share.
    pub connections: usize,
    /// How they follow each other.
    pub pace: Pace,
    /// When it ends.
    pub until: Until,
    /// Whether single answers, and the tokens in them, are kept.
    pub keeps: bool,
}

/// A server that clients call.
#[derive(Clone)]
pub struct Target {
    /// Where it is, and as whom it is called.
    pub context: Context,
    /// The process it runs in.
    pub process: Process,
    /// Its store, if that is in this process: the clock of its processor time runs until it has drained.
    pub store: Option<Background>,
}

/// What a load brought.
pub struct Outcome {
    /// What was measured.
    pub sample: Sample,
    /// What the clients noted; its tokens and its trace in the order of the requests.
    pub noted: Noted,
    /// When nothing more was due: in an open loop when the last request should have started, else with the last answer.
    pub over: Instant,
}

impl Outcome {
    /// Refuses a load of which the vault turned a part away: what is left says nothing of the load that was meant.
    pub fn whole(self) -> Result<Self, CliError> {
        match self.noted.shed + self.noted.unsent {
            0 => Ok(self),
            lost => Err(CliError::Unfit {
                message: format!("the server had no room for {lost} of the requests"),
                next: "fewer at once with --in-flight, or a lower --rate".into(),
            }),
        }
    }
}

impl Target {
    /// Puts a load on it and waits for all answers. The clock runs while every connection stands.
    pub async fn load(&self, plan: Plan, source: Source, bar: ProgressBar) -> Result<Outcome, CliError> {
        let target = self.clone();
        tokio::task::spawn_blocking(move || target.run(plan, &Arc::new(source), &bar))
            .await
            .map_err(|error| CliError::unfit(format!("the clients stopped: {error}")))?
    }

    fn run(self, plan: Plan, source: &Arc<Source>, bar: &ProgressBar) -> Result<Outcome, CliError> {
        let connections = plan.connections.max(1);
        let numbers = Arc::new(Numbers::new(plan.until));
        let over = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let (done, are_done) = mpsc::channel();
        let (mut starts, mut sinks) = (Vec::new(), Vec::new());
        for number in 0..connections {
            let (start, started) = mpsc::channel();
            let (sink, ticks) = unbounded_channel();
            starts.push(start);
            sinks.push(sink);
            let share = |whole: usize| whole / connections + usize::from(number < whole % connections);
            let client = Client {
                context: self.context.clone(),
                way: match plan.pace {
                    Pace::Closed(at_once) => Way::Closed(share(at_once)),
                    Pace::Open(_) => Way::Open(ticks, Arc::clone(&over)),
                    Pace::Streams => Way::Stream,
                },
                keeps: plan.keeps,
                source: Arc::clone(source),
                numbers: Arc::clone(&numbers),
                ready: ready.clone(),
                started,
                done: done.clone(),
            };
            thread::Builder::new()
                .name("client".to_owned())
                .spawn(move || client.run())
                .map_err(|error| CliError::unfit(format!("a client can't start: {error}")))?;
        }
        drop((ready, done));
        for _ in 0..connections {
            is_ready.recv().map_err(|_| ended_early())??;
        }
        let meter = Meter::start(self.process);
        numbers.began();
        drop(starts);
        let schedule = match plan.pace {
            Pace::Open(rate) => Some(Schedule::new(rate, plan.until)),
            _ => None,
        };
        let pacer = schedule.map(|schedule| {
            thread::spawn(move || {
                schedule.run(&sinks, &over);
                measure::thread_cpu()
            })
        });
        let (mut noted, mut cpu) = (Noted::default(), Duration::ZERO);
        for _ in 0..connections {
            let (of_one, its_cpu) = self.wait(&are_done, &numbers, bar)?;
            noted.add(of_one);
            cpu += its_cpu;
        }
        let wall = meter.elapsed();
        let over = schedule.map_or_else(Instant::now, |schedule| schedule.end());
        if let Some(pacer) = pacer {
            cpu += pacer.join().map_err(|_| ended_early())?;
        }
        if let Some(store) = &self.store {
            Handle::current().block_on(store.drain()).map_err(unfit)?;
        }
        noted.tokens.sort_unstable_by_key(|(number, _)| *number);
        noted.trace.sort_unstable();
        let sample = meter.stop(wall, (noted.requests, noted.items), noted.latencies.clone(), cpu);
        Ok(Outcome { sample, noted, over })
    }

    /// Waits for a client, and moves the bar meanwhile.
    fn wait(
        &self,
        done: &Receiver<Result<(Noted, Duration), CliError>>,
        numbers: &Numbers,
        bar: &ProgressBar,
    ) -> Result<(Noted, Duration), CliError> {
        loop {
            match done.recv_timeout(BLINK) {
                Ok(told) => return told,
                Err(RecvTimeoutError::Timeout) => bar.set_position((numbers.progress() * BAR as f64) as u64),
                Err(RecvTimeoutError::Disconnected) => return Err(ended_early()),
            }
        }
    }
}

fn ended_early() -> CliError {
    CliError::unfit("a client ended early")
}

/// How one connection sends.
enum Way {
    /// So many requests under way.
    Closed(usize),
    /// When a tick comes.
    Open(UnboundedReceiver<Tick>, Arc<AtomicBool>),
    /// A bulk stream.
    Stream,
}

/// One connection.
struct Client {
    context: Context,
    way: Way,
    keeps: bool,
    source: Arc<Source>,
    numbers: Arc<Numbers>,
    ready: Sender<Result<(), CliError>>,
    /// Closed when all connections stand.
    started: Receiver<()>,
    done: Sender<Result<(Noted, Duration), CliError>>,
}

impl Client {
    fn run(mut self) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                // Nobody listens once another client has failed; so it is below.
                let _ = self.ready.send(Err(CliError::unfit(format!("a client can't start: {error}"))));
                return;
            }
        };
        runtime.block_on(async {
            let client = match self.context.vault().await {
                Ok(client) => client,
                Err(error) => {
                    let _ = self.ready.send(Err(error));
                    return;
                }
            };
            let _ = self.ready.send(Ok(()));
            // It ends when the sender is gone: that is the start.
            let _ = self.started.recv();
            let begun = measure::thread_cpu();
            let noted = RefCell::new(Noted { keeps: self.keeps, ..Noted::default() });
            let way = std::mem::replace(&mut self.way, Way::Stream);
            let ended = match way {
                Way::Closed(at_once) => self.closed(&client, at_once, &noted).await,
                Way::Open(ticks, over) => self.open(&client, ticks, &over, &noted).await,
                Way::Stream => streams::run(client, &self.source, &self.numbers, &noted).await,
            };
            let cpu = measure::thread_cpu().saturating_sub(begun);
            let _ = self.done.send(ended.map(|()| (noted.into_inner(), cpu)));
        });
    }

    async fn closed(&self, client: &VaultClient<Wire>, at_once: usize, noted: &RefCell<Noted>) -> Result<(), CliError> {
        let mut loops: FuturesUnordered<_> = (0..at_once).map(|_| self.go_round(client.clone(), noted)).collect();
        while let Some(ended) = loops.next().await {
            ended?;
        }
        Ok(())
    }

    /// One loop: a request after the other, until the load ends.
    async fn go_round(&self, mut client: VaultClient<Wire>, noted: &RefCell<Noted>) -> Result<(), CliError> {
        while let Some(number) = self.numbers.next() {
            let call = self.source.call(number);
            let items = call.items();
            let begun = Instant::now();
            let answer = call.send(&mut client).await?;
            noted.borrow_mut().note(number, begun, items, answer);
        }
        Ok(())
    }

    async fn open(
        &self,
        client: &VaultClient<Wire>,
        ticks: UnboundedReceiver<Tick>,
        over: &AtomicBool,
        noted: &RefCell<Noted>,
    ) -> Result<(), CliError> {
        let send = |number| {
            let call = self.source.call(number);
            let mut client = client.clone();
            (call.items(), async move { call.send(&mut client).await })
        };
        pace::open_loop(ticks, over, CALLS_OF_A_CONNECTION, send, noted).await
    }
}
