//! What the system says of a process: processor time, memory, bytes written. Linux' /proc, read by hand.

use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// A process that is looked at: this one, another one on this machine, or one that can't be looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// This one.
    Own,
    /// One that was started by this one.
    Other(u32),
    /// One on another machine.
    Unknown,
}

impl Process {
    /// Whether it is this one.
    pub fn is_own(self) -> bool {
        self == Self::Own
    }

    /// Processor time so far, user and system, of all its threads: to the nanosecond of this process, to the system's
    /// tick (10 ms) of another one.
    pub fn cpu(self) -> Option<Duration> {
        if self.is_own() {
            let now = clock_gettime(ClockId::ProcessCPUTime);
            return Some(Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)));
        }
        ticks(&self.file("stat")?).map(|ticks| Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
    }

    /// Bytes that it caused to be written to disk so far: the log, flushes, compactions.
    pub fn written(self) -> Option<u64> {
        number_after(&self.file("io")?, "write_bytes:")
    }

    /// The most memory that it ever had in use, in bytes.
    pub fn peak_memory(self) -> Option<u64> {
        number_after(&self.file("status")?, "VmHWM:").map(|kib| kib << 10)
    }

    /// The memory that it has in use, in bytes.
    pub fn memory(self) -> Option<u64> {
        number_after(&self.file("status")?, "VmRSS:").map(|kib| kib << 10)
    }

    /// Has the most memory that this one had in use counted anew, where the system lets it.
    pub fn forget_peak() {
        drop(std::fs::write("/proc/self/clear_refs", "5"));
    }

    fn file(self, name: &str) -> Option<String> {
        let folder = match self {
            Self::Own => "self".to_owned(),
            Self::Other(id) => id.to_string(),
            Self::Unknown => return None,
        };
        std::fs::read_to_string(format!("/proc/{folder}/{name}")).ok()
    }
}

/// The number in the line that begins with a name.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of a `stat` line, in ticks: the 14th and 15th field, counted behind the name, which may hold
/// anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_found() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 5 0 1000 9 9 18446744073709551615";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a"), None);
        assert_eq!(number_after("VmPeak:\t 9 kB\nVmHWM:\t   12 kB\n", "VmHWM:"), Some(12));
        assert_eq!(number_after("x", "VmHWM:"), None);
    }

    #[test]
    fn this_process_is_looked_at_in_both_ways() {
        let other = Process::Other(std::process::id());
        let (own, seen) = (Process::Own.cpu().unwrap(), other.cpu().unwrap());
        assert!(own.abs_diff(seen) < Duration::from_millis(500));
        Process::forget_peak();
        assert!(other.peak_memory().unwrap() >= 1 << 20);
        assert_eq!(Process::Unknown.cpu(), None);
    }
}
