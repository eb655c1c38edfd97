//! How quick reads are that go beyond the store's own memory.
//!
//! Such a read may find its page in the system's memory, or on a disk that answers in microseconds: then to send it to
//! another thread and back costs more than the read. Or it may wait for a disk across a network, and keep everybody waiting
//! who shares its thread. Nobody says beforehand, so what such reads took of late decides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a quick read takes at most, on average.
const QUICK: Duration = Duration::from_micros(60);
/// How long quick reads may hold up a thread together.
pub(crate) const TOGETHER: Duration = Duration::from_micros(240);
/// What a read from the store's own memory takes at most. More was a read that went beyond.
const FROM_MEMORY: Duration = Duration::from_micros(8);
/// A slower reading counts one in so many, a quicker one much less: of a disk that is slow now and then, every slow read
/// would otherwise come after quick ones, and keep everybody waiting.
const WEIGHT: u64 = 16;
const QUICKER: u64 = 256;

/// What reads took of late.
pub(crate) struct Disk {
    /// Nanoseconds a key: the mean, newer readings weighing more.
    mean: AtomicU64,
}

impl Default for Disk {
    /// A disk that nobody knows is slow.
    fn default() -> Self {
        Self { mean: AtomicU64::new(QUICK.as_nanos() as u64 * WEIGHT) }
    }
}

impl Disk {
    /// Whether so many keys may be read where others wait.
    pub fn is_quick(&self, keys: usize) -> bool {
        let mean = Duration::from_nanos(self.mean.load(Ordering::Relaxed));
        mean <= QUICK && mean.saturating_mul(u32::try_from(keys).unwrap_or(u32::MAX)) <= TOGETHER
    }

    /// Reads so many keys that memory does not hold, and remembers how long that took.
    pub fn watch<T>(&self, keys: usize, read: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let answer = read();
        self.note(keys, began.elapsed());
        answer
    }

    /// The same with keys that memory may hold: what it does hold says nothing of the disk.
    pub fn watch_any<T>(&self, keys: usize, read: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let answer = read();
        let took = began.elapsed();
        if took > FROM_MEMORY.saturating_mul(u32::try_from(keys).unwrap_or(u32::MAX)) {
            self.note(keys, took);
        }
        answer
    }

    fn note(&self, keys: usize, took: Duration) {
        let a_key = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / (keys.max(1) as u64);
        let mean = self.mean.load(Ordering::Relaxed);
        // Of two readings at once one may be lost, which changes little.
        let weight = if a_key > mean { WEIGHT } else { QUICKER };
        self.mean.store(mean - mean / weight + a_key / weight, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(readings: impl IntoIterator<Item = u64>) -> Disk {
        let disk = Disk::default();
        readings.into_iter().for_each(|micros| disk.note(1, Duration::from_micros(micros)));
        disk
    }

    #[test]
    fn a_disk_shows_that_it_is_quick_and_loses_that_at_once_when_it_is_not() {
        assert!(!Disk::default().is_quick(1));
        assert!(!after([5; 10]).is_quick(1));
        assert!(after([5; 1_000]).is_quick(1));
        assert!(!after([5; 1_000].into_iter().chain([2_000])).is_quick(1));
        assert!(!after([5; 1_000].into_iter().chain([2_000]).chain([5; 100])).is_quick(1));
        assert!(after([5; 1_000].into_iter().chain([2_000]).chain([5; 1_000])).is_quick(1));
        assert!(!after([500; 100]).is_quick(1));
        // One in a hundred is slow, and none of them is waited for.
        assert!(!after((0..10_000).map(|number| if number % 100 == 0 { 10_000 } else { 5 })).is_quick(1));
    }

    #[test]
    fn many_keys_are_not_read_where_others_wait() {
        let disk = after([20; 2_000]);
        assert!(disk.is_quick(10) && !disk.is_quick(20) && !disk.is_quick(usize::MAX));
    }

    #[test]
    fn no_reading_overflows() {
        let disk = Disk::default();
        for _ in 0..100 {
            disk.note(0, Duration::MAX);
        }
        assert!(!disk.is_quick(1));
        assert_eq!(disk.watch(1, || 7), 7);
    }

    #[test]
    fn what_memory_holds_says_nothing_of_the_disk() {
        let disk = after([500; 100]);
        let before = disk.mean.load(Ordering::Relaxed);
        for _ in 0..10_000 {
            disk.watch_any(1_000, || ());
        }
        assert_eq!(disk.mean.load(Ordering::Relaxed), before);
        disk.watch_any(1, || std::thread::sleep(FROM_MEMORY * 2));
        assert_ne!(disk.mean.load(Ordering::Relaxed), before);
    }
}
