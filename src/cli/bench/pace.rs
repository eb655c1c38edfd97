//! When requests start: in a closed loop, when another one is answered; in an open loop, when the schedule says so.
//!
//! An open loop goes on sending while the server stalls, as a crowd of callers would, and a request's time counts from
//! when it should have started: nothing that waits is left out of the latencies (no coordinated omission).

use std::cell::RefCell;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::noted::Noted;
use super::workload::Answer;
use crate::cli::output::CliError;

/// How long a load goes on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Until {
    /// For so many requests.
    Requests(u64),
    /// For so long.
    Lasted(Duration),
}

/// The numbers of the requests of a load, each given out once, until it ends.
pub struct Numbers {
    next: AtomicU64,
    until: Until,
    began: OnceLock<Instant>,
}

impl Numbers {
    /// From 0 on.
    pub fn new(until: Until) -> Self {
        Self { next: AtomicU64::new(0), until, began: OnceLock::new() }
    }

    /// When the load began: at the first call of this.
    pub fn began(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    /// The next one, unless the load has ended.
    pub fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let goes_on = match self.until {
            Until::Requests(count) => number < count,
            Until::Lasted(time) => self.began().elapsed() < time,
        };
        goes_on.then_some(number)
    }

    /// How much of the load has begun, in 0 to 1.
    pub fn progress(&self) -> f64 {
        match self.until {
            Until::Requests(count) => self.next.load(Ordering::Relaxed).min(count) as f64 / count.max(1) as f64,
            Until::Lasted(time) => (self.began().elapsed().as_secs_f64() / time.as_secs_f64()).min(1.0),
        }
    }
}

/// A request of an open loop: its number, and when it should start.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Its number.
    pub number: u64,
    /// When it should start.
    pub intended: Instant,
}

/// The shortest sleep between ticks: waking up for each of 30,000 a second, here and in every client, would take a good
/// part of a processor from the server. By as much a request may start late, which counts as its latency.
const NAP: Duration = Duration::from_millis(1);

/// A schedule of so many requests a second.
#[derive(Clone, Copy)]
pub struct Schedule {
    /// When the first one starts.
    pub began: Instant,
    /// Requests a second.
    pub rate: f64,
    /// How many there are.
    pub count: u64,
}

impl Schedule {
    /// From now on.
    pub fn new(rate: f64, until: Until) -> Self {
        let count = match until {
            Until::Requests(count) => count,
            Until::Lasted(time) => (time.as_secs_f64() * rate).ceil() as u64,
        };
        Self { began: Instant::now(), rate, count }
    }

    /// When a request should start, whatever became of those before it.
    pub fn intended(&self, number: u64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// When the last one should start.
    pub fn end(&self) -> Instant {
        self.intended(self.count.saturating_sub(1))
    }

    /// Hands out ticks in turn, each when it is due or a moment later, from a thread of its own: an asynchronous runtime's
    /// timer counts whole milliseconds only. Then says that it is over.
    pub fn run(&self, sinks: &[UnboundedSender<Tick>], over: &AtomicBool) {
        for number in 0..self.count {
            let intended = self.intended(number);
            let wait = intended.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait.max(NAP));
            }
            // A client that has ended has failed, which is told by itself.
            let _ = sinks[number as usize % sinks.len()].send(Tick { number, intended });
        }
        over.store(true, Ordering::Relaxed);
    }
}

/// The requests of one connection in an open loop. At most `at_once` are under way: what the connection has no room for
/// waits, and its time runs. When the schedule is over, what could not be sent is not sent any more, and counts as having
/// taken as long as it waited.
pub async fn open_loop<F: Future<Output = Result<Answer, CliError>>>(
    mut ticks: UnboundedReceiver<Tick>,
    over: &AtomicBool,
    at_once: usize,
    send: impl Fn(u64) -> (usize, F),
    noted: &RefCell<Noted>,
) -> Result<(), CliError> {
    let mut under_way = FuturesUnordered::new();
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            Some(answered) = under_way.next(), if !under_way.is_empty() => answered?,
            tick = ticks.recv(), if !ended && under_way.len() < at_once => match tick {
                None => ended = true,
                // What was due at the very end is sent; what was left over by then is not.
                Some(tick) if over.load(Ordering::Relaxed) && tick.intended.elapsed() > LEFT_OVER => {
                    noted.borrow_mut().unsent(tick.intended);
                }
                Some(tick) => {
                    let (items, answer) = send(tick.number);
                    under_way.push(async move {
                        let answer = answer.await?;
                        noted.borrow_mut().note(tick.number, tick.intended, items, answer);
                        Ok::<_, CliError>(())
                    });
                }
            },
            else => return Ok(()),
        }
        if ended && under_way.is_empty() {
            return Ok(());
        }
    }
}

/// A request that is later than this when the schedule is over was left over.
const LEFT_OVER: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Mutex, mpsc};

    use super::*;

    const STALL: Duration = Duration::from_millis(300);

    /// A server that answers one after the other, at once, but stalls once, in the middle.
    async fn with_a_stall(schedule: Schedule, at_once: usize) -> Noted {
        let (sink, ticks) = mpsc::unbounded_channel();
        let over = Arc::new(AtomicBool::new(false));
        let pacer = {
            let over = Arc::clone(&over);
            thread::spawn(move || schedule.run(&[sink], &over))
        };
        let noted = RefCell::new(Noted::default());
        let desk = Mutex::new(());
        let send = |number| {
            let desk = &desk;
            (1, async move {
                let _turn = desk.lock().await;
                if number == 250 {
                    tokio::time::sleep(STALL).await;
                }
                Ok(Answer::Done(vec![]))
            })
        };
        open_loop(ticks, &over, at_once, send, &noted).await.unwrap();
        pacer.join().unwrap();
        noted.into_inner()
    }

    #[tokio::test]
    async fn a_stall_shows_in_every_request_that_should_have_started_in_it() {
        for at_once in [1, 1_000] {
            // 1 ms apart: of 1,000 requests, 300 should start while the server stalls.
            let schedule = Schedule::new(1_000.0, Until::Lasted(Duration::from_secs(1)));
            let noted = with_a_stall(schedule, at_once).await;
            assert_eq!(noted.requests + noted.unsent, 1_000);
            let slow = noted.latencies.count_between(50_000, u64::MAX >> 1);
            // A closed loop would have seen one. A busy machine may add stalls of its own.
            assert!((230..=500).contains(&slow), "{slow} requests took more than 50 ms");
            assert!(noted.latencies.max() >= 290_000);
            assert!(noted.latencies.value_at_quantile(0.5) < 50_000);
        }
    }

    #[tokio::test]
    async fn what_a_server_cannot_take_in_time_counts_as_waiting() {
        // The stall is longer than what is left of the schedule.
        let schedule = Schedule::new(1_000.0, Until::Requests(350));
        let noted = with_a_stall(schedule, 1).await;
        assert_eq!(noted.requests + noted.unsent, 350);
        assert!(noted.unsent > 50, "{}", noted.unsent);
        assert!(noted.latencies.len() == 350 && noted.latencies.max() >= 290_000);
    }

    #[test]
    fn numbers_end_when_the_load_does() {
        let numbers = Numbers::new(Until::Requests(2));
        assert_eq!([numbers.next(), numbers.next(), numbers.next()], [Some(0), Some(1), None]);
        assert_eq!(numbers.progress(), 1.0);
        assert_eq!(Numbers::new(Until::Lasted(Duration::ZERO)).next(), None);
        let schedule = Schedule::new(4.0, Until::Lasted(Duration::from_secs(2)));
        assert_eq!(schedule.count, 8);
        assert_eq!(schedule.intended(6) - schedule.began, Duration::from_millis(1_500));
        assert_eq!(schedule.end() - schedule.began, Duration::from_millis(1_750));
    }
}
