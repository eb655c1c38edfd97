//! What is measured of a load: how long it took, the time of each request, and whose processor time it was.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 600_000_000;

/// One load, measured once.
pub struct Sample {
    /// Requests that were answered.
    pub requests: u64,
    /// Values that they carried.
    pub items: u64,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// Processor time of the process without its clients, user and system, all threads.
    pub server_cpu: Duration,
    /// Processor time of the threads that played the clients.
    pub client_cpu: Duration,
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

    /// Microseconds of processor time that the server spent on a request.
    pub fn server_cpu_per_request(&self) -> f64 {
        micros(self.server_cpu) / self.requests as f64
    }

    /// Microseconds of processor time that the server spent on a value.
    pub fn server_cpu_per_item(&self) -> f64 {
        micros(self.server_cpu) / self.items as f64
    }

    /// Microseconds of processor time that the clients spent on a request.
    pub fn client_cpu_per_request(&self) -> f64 {
        micros(self.client_cpu) / self.requests as f64
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Runs while a load runs.
pub struct Meter {
    began: Instant,
    cpu: Duration,
}

impl Meter {
    /// Starts it.
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu: process_cpu() }
    }

    /// Stops it. `client_cpu` is the part of the process's time that its clients took.
    pub fn stop(self, (requests, items): (u64, u64), latencies: Histogram<u64>, client_cpu: Duration) -> Sample {
        let (wall, cpu) = (self.began.elapsed(), process_cpu());
        let server_cpu = cpu.saturating_sub(self.cpu).saturating_sub(client_cpu);
        Sample { requests, items, wall, server_cpu, client_cpu, latencies }
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

/// Processor time of the whole process so far.
fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// Processor time of the calling thread so far.
pub fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The middle one of some figures; of an even number, the mean of the two in the middle.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len().is_multiple_of(2)) {
        (Some(upper), true) => sorted.get(middle.wrapping_sub(1)).map_or(*upper, |lower| (lower + upper) / 2.0),
        (Some(one), false) => *one,
        (None, _) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_follow_an_outlier() {
        assert_eq!(median([3.0, 1000.0, 1.0]), 3.0);
        assert_eq!(median([4.0, 2.0]), 3.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn the_clients_time_is_not_the_servers() {
        let before = thread_cpu();
        let meter = Meter::start();
        let mut sum = 0_u64;
        while thread_cpu() - before < Duration::from_millis(20) {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        std::hint::black_box(sum);
        let sample = meter.stop((1, 10), latencies(), Duration::MAX);
        assert_eq!(sample.server_cpu, Duration::ZERO);
        assert!(sample.wall >= Duration::from_millis(20));
        assert!(sample.requests_per_second() * 10.0 - sample.items_per_second() < 1e-6);
    }
}
