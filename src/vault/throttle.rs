//! How fast work may go that nobody, or not everybody, waits for: as fast as it can while it is alone, and a small part of the time
//! while callers are there.

use std::time::Duration;

/// Entries of a page: while the job is alone, and in company. A page in company is a fraction of a millisecond's work, so
/// that no caller waits for it noticeably.
const ALONE: usize = 1_024;
const IN_COMPANY: usize = 64;
/// In company a job rests so many times as long as it works.
const REST: u32 = 4;
/// Steps for which company is remembered: callers that pause for a moment are not gone.
const REMEMBERED: u32 = 50;

/// The pace of one job.
#[derive(Debug)]
pub struct Throttle {
    /// Steps until company is forgotten.
    company: u32,
}

impl Default for Throttle {
    /// A job that begins does not know yet whether it is alone.
    fn default() -> Self {
        Self { company: REMEMBERED }
    }
}

impl Throttle {
    /// The pace of what somebody waits for: as if it were alone, until it finds that it is not.
    pub fn in_haste() -> Self {
        Self { company: 0 }
    }

    /// How many entries the next page has.
    pub fn entries(&self) -> usize {
        if self.company > 0 { IN_COMPANY } else { ALONE }
    }

    /// Notes a step, how long it took and whether somebody else was there, and says how long to rest.
    pub fn step(&mut self, worked: Duration, company: bool) -> Duration {
        self.company = if company { REMEMBERED } else { self.company.saturating_sub(1) };
        if self.company > 0 { worked * REST } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKED: Duration = Duration::from_millis(2);

    #[test]
    fn alone_a_job_does_not_rest() {
        let mut throttle = Throttle { company: 0 };
        assert_eq!((throttle.entries(), throttle.step(WORKED, false)), (ALONE, Duration::ZERO));
        assert_eq!(Throttle::default().entries(), IN_COMPANY);
    }

    #[test]
    fn in_haste_it_slows_down_once_it_has_company() {
        let mut throttle = Throttle::in_haste();
        assert_eq!((throttle.entries(), throttle.step(WORKED, true)), (ALONE, WORKED * REST));
        assert_eq!(throttle.entries(), IN_COMPANY);
    }

    #[test]
    fn in_company_it_takes_small_steps_and_rests_and_does_so_for_a_while_after() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.step(WORKED, true), WORKED * REST);
        for _ in 1..REMEMBERED {
            assert_eq!((throttle.entries(), throttle.step(WORKED, false)), (IN_COMPANY, WORKED * REST));
        }
        assert_eq!(throttle.step(WORKED, false), Duration::ZERO);
        assert_eq!(throttle.entries(), ALONE);
    }
}
