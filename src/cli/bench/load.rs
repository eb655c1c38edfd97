//! A closed loop of clients: each sends its next request when the last one is answered.
//!
//! Each connection has a thread and a runtime of its own, so that the clients' processor time can be told from the
//! server's, though both are one process.

use std::cell::RefCell;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use strongroom_proto::v1::vault_client::VaultClient;
use tokio::runtime::Builder;
use tonic::transport::Channel;

use super::measure::{self, Meter, Sample};
use super::workload::Call;
use crate::cli::client::Context;
use crate::cli::output::CliError;

/// Clients, and how much they have under way.
#[derive(Clone)]
pub struct Clients {
    /// Where they connect, and as whom.
    pub context: Context,
    /// How many connections they share.
    pub connections: usize,
    /// Requests under way at once, over all connections.
    pub in_flight: usize,
}

/// What a load brought.
pub struct Outcome {
    /// What was measured.
    pub sample: Sample,
    /// The tokens of each request, in the order of the requests.
    pub tokens: Vec<Vec<String>>,
}

/// What one thread tells when it is done.
struct Done {
    latencies: Histogram<u64>,
    cpu: Duration,
    tokens: Vec<(usize, Vec<String>)>,
}

/// Latencies, and the tokens of each request by its number.
type Noted = (Histogram<u64>, Vec<(usize, Vec<String>)>);
type Queue = Arc<Mutex<std::iter::Enumerate<std::vec::IntoIter<Call>>>>;

impl Clients {
    /// Sends all requests and waits for all answers. The clock runs while every connection stands.
    pub async fn send(&self, calls: Vec<Call>, bar: ProgressBar) -> Result<Outcome, CliError> {
        let clients = self.clone();
        tokio::task::spawn_blocking(move || clients.run(calls, &bar))
            .await
            .map_err(|error| CliError::unfit(format!("the clients stopped: {error}")))?
    }

    fn run(self, calls: Vec<Call>, bar: &ProgressBar) -> Result<Outcome, CliError> {
        let count = calls.len();
        let items: usize = calls.iter().map(Call::items).sum();
        let connections = self.connections.min(self.in_flight).max(1);
        let queue: Queue = Arc::new(Mutex::new(calls.into_iter().enumerate()));
        let (ready, is_ready) = mpsc::channel();
        let (done, are_done) = mpsc::channel();
        let mut starts = Vec::new();
        for number in 0..connections {
            let (start, started) = mpsc::channel();
            starts.push(start);
            let client = Client {
                context: self.context.clone(),
                in_flight: self.in_flight / connections + usize::from(number < self.in_flight % connections),
                queue: Arc::clone(&queue),
                ready: ready.clone(),
                started,
                done: done.clone(),
                bar: bar.clone(),
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
        let meter = Meter::start();
        drop(starts);
        let (mut latencies, mut cpu) = (measure::latencies(), Duration::ZERO);
        let mut tokens = vec![vec![]; count];
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            all.push(are_done.recv().map_err(|_| ended_early())??);
        }
        for one in &all {
            cpu += one.cpu;
        }
        let mut sample = meter.stop((count as u64, items as u64), measure::latencies(), cpu);
        for one in all {
            // Both have the same bounds.
            let _ = latencies.add(&one.latencies);
            for (number, answer) in one.tokens {
                tokens[number] = answer;
            }
        }
        sample.latencies = latencies;
        Ok(Outcome { sample, tokens })
    }
}

fn ended_early() -> CliError {
    CliError::unfit("a client ended early")
}

/// One connection.
struct Client {
    context: Context,
    in_flight: usize,
    queue: Queue,
    ready: Sender<Result<(), CliError>>,
    /// Closed when all connections stand.
    started: Receiver<()>,
    done: Sender<Result<Done, CliError>>,
    bar: ProgressBar,
}

impl Client {
    fn run(self) {
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
            let noted = RefCell::new((measure::latencies(), vec![]));
            let mut loops: FuturesUnordered<_> =
                (0..self.in_flight).map(|_| self.go_round(client.clone(), &noted)).collect();
            let mut ended = Ok(());
            while let (Ok(()), Some(next)) = (&ended, loops.next().await) {
                ended = next;
            }
            drop(loops);
            let cpu = measure::thread_cpu().saturating_sub(begun);
            let (latencies, tokens) = noted.into_inner();
            let _ = self.done.send(ended.map(|()| Done { latencies, cpu, tokens }));
        });
    }

    /// One loop: a request after the other, until none is left.
    async fn go_round(&self, mut client: VaultClient<Channel>, noted: &RefCell<Noted>) -> Result<(), CliError> {
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, call)) = next else { return Ok(()) };
            let begun = Instant::now();
            let answer = call.send(&mut client).await?;
            let mut noted = noted.borrow_mut();
            measure::note(&mut noted.0, begun);
            noted.1.push((number, answer));
            self.bar.inc(1);
        }
    }
}
