//! What is measured of a load: how long it took, the time of each request, and whose processor time it was.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::process::Process;

/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 600_000_000;

/// One load, measured once.
#[derive(Clone)]
pub struct Sample {
    /// Requests that were answered.
    pub requests: u64,
    /// Values that they carried.
    pub items: u64,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// Processor time of the server, user and system, all threads, until its store had drained. Nothing of a server
    /// that can't be looked into.
    pub server_cpu: Option<Duration>,
    /// Processor time of the threads that played the clients.
    pub client_cpu: Duration,
    /// Bytes that the server wrote to disk until its store had drained, if the system tells.
    pub written: Option<u64>,
    /// Microseconds of each request.
    pub latencies: Histogram<u64>,
}

impl Sample {
    /// Values a second.
    pub fn items_per_second(&self) -> f64 {
        self.items as f64 / self.wall.as_secs_f64()
    }

    /// Requests a second.
    pub fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    /// Microseconds at a quantile of the latencies.
    pub fn latency(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64
    }

    /// Microseconds of processor time that the server spent on a request; NaN if it can't be told.
    pub fn server_cpu_per_request(&self) -> f64 {
        self.server_cpu.map_or(f64::NAN, |cpu| micros(cpu) / self.requests as f64)
    }

    /// Microseconds of processor time that the server spent on a value; NaN if it can't be told.
    pub fn server_cpu_per_item(&self) -> f64 {
        self.server_cpu.map_or(f64::NAN, |cpu| micros(cpu) / self.items as f64)
    }

    /// Values a second of processor time of the server; NaN if it can't be told.
    pub fn items_per_server_cpu_second(&self) -> f64 {
        1e6 / self.server_cpu_per_item()
    }

    /// Bytes written to disk for a value; NaN if it can't be told.
    pub fn written_per_item(&self) -> f64 {
        self.written.map_or(f64::NAN, |bytes| bytes as f64 / self.items as f64)
    }

    /// Microseconds of processor time that the clients spent on a request.
    pub fn client_cpu_per_request(&self) -> f64 {
        micros(self.client_cpu) / self.requests as f64
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Runs while a load runs: on the process of the server, which may be this one.
pub struct Meter {
    server: Process,
    began: Instant,
    cpu: Option<Duration>,
    written: Option<u64>,
}

impl Meter {
    /// Starts it.
    pub fn start(server: Process) -> Self {
        Self { server, cpu: server.cpu(), written: server.written(), began: Instant::now() }
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Stops it, once the store has drained. `wall` is how long the load itself took; `client_cpu` the processor time of
    /// the threads that played the clients, which is the server's process' where they are one.
    pub fn stop(
        self,
        wall: Duration,
        (requests, items): (u64, u64),
        latencies: Histogram<u64>,
        client_cpu: Duration,
    ) -> Sample {
        let own = if self.server.is_own() { client_cpu } else { Duration::ZERO };
        let server_cpu =
            self.server.cpu().zip(self.cpu).map(|(now, then)| now.saturating_sub(then).saturating_sub(own));
        let written = self.server.written().zip(self.written).map(|(now, then)| now.saturating_sub(then));
        Sample { requests, items, wall, server_cpu, client_cpu, written, latencies }
    }
}

/// A histogram of microseconds.
pub fn latencies() -> Histogram<u64> {
    // The bounds are constants that the library takes.
    Histogram::new_with_bounds(1, LONGEST, DIGITS).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// Notes how long something took.
pub fn note(latencies: &mut Histogram<u64>, since: Instant) {
    latencies.saturating_record(u64::try_from(since.elapsed().as_micros()).unwrap_or(LONGEST));
}

/// Notes how long something took that was done for several at once.
pub fn note_many(latencies: &mut Histogram<u64>, since: Instant, count: u64) {
    latencies.saturating_record_n(u64::try_from(since.elapsed().as_micros()).unwrap_or(LONGEST), count);
}

/// Processor time of the calling thread so far.
pub fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// One figure of several runs: the one in the middle, and how far apart the runs were.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Middle {
    /// The median; of an even number of runs, the mean of the two in the middle. NaN if there was none.
    pub median: f64,
    /// The least of the runs.
    pub least: f64,
    /// The most of the runs.
    pub most: f64,
    /// How many there were.
    pub runs: usize,
}

impl Middle {
    /// Of some runs.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match (sorted.get(middle), sorted.len().is_multiple_of(2)) {
            (Some(upper), true) => sorted.get(middle.wrapping_sub(1)).map_or(*upper, |lower| (lower + upper) / 2.0),
            (Some(one), false) => *one,
            (None, _) => f64::NAN,
        };
        let end = |one: Option<&f64>| one.copied().unwrap_or(f64::NAN);
        Self { median, least: end(sorted.first()), most: end(sorted.last()), runs: sorted.len() }
    }

    /// The same if it is a number.
    pub fn told(self) -> Option<Self> {
        self.median.is_finite().then_some(self)
    }
}

impl From<f64> for Middle {
    /// What was measured once.
    fn from(figure: f64) -> Self {
        Self::of([figure])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_follow_an_outlier() {
        let three = Middle::of([3.0, 1000.0, 1.0]);
        assert_eq!(three, Middle { median: 3.0, least: 1.0, most: 1000.0, runs: 3 });
        assert_eq!((Middle::of([4.0, 2.0]).median, Middle::from(7.0).median), (3.0, 7.0));
        assert_eq!(Middle::of([]).told(), None);
    }

    #[test]
    fn the_clients_time_is_not_the_servers() {
        let meter = Meter::start(Process::Own);
        let before = thread_cpu();
        let mut sum = 0_u64;
        while thread_cpu() - before < Duration::from_millis(20) {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        std::hint::black_box(sum);
        let wall = meter.elapsed();
        let sample = meter.stop(wall, (1, 10), latencies(), Duration::MAX);
        assert_eq!(sample.server_cpu, Some(Duration::ZERO));
        assert!(sample.wall >= Duration::from_millis(20));
        assert!(sample.requests_per_second() * 10.0 - sample.items_per_second() < 1e-6);
    }

    #[test]
    fn what_cannot_be_told_is_no_number() {
        let meter = Meter::start(Process::Unknown);
        let sample = meter.stop(Duration::from_secs(1), (1, 10), latencies(), Duration::ZERO);
        assert!(sample.server_cpu_per_item().is_nan() && sample.written_per_item().is_nan());
        assert!(sample.items_per_server_cpu_second().is_nan());
    }
}
