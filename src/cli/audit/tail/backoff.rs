//! How long to wait before going on where either side went away: longer each time, until something has come of it.

use std::time::Duration;

/// The wait before the first attempt, and before the last ones.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);

/// The waits of one side.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Backoff {
    /// Begins with the shortest.
    pub fn new() -> Self {
        Self(FIRST)
    }

    /// The wait before the next attempt; that before the one after it is twice as long.
    pub fn wait(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(LAST);
        wait
    }

    /// Something has come: it begins with the shortest again.
    pub fn reset(&mut self) {
        self.0 = FIRST;
    }

    /// What was begun has ended, and stood for so long. If that was longer than any wait, the attempts are rare enough as
    /// they are, and there was only nothing to come.
    pub fn ended(&mut self, stood: Duration) {
        if stood >= LAST {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits of an hour in which every stream is cut off as soon as it is begun.
    fn cut_off_at_once(backoff: &mut Backoff) -> usize {
        let (mut gone, mut attempts) = (Duration::ZERO, 0);
        while gone < Duration::from_secs(3_600) {
            backoff.ended(Duration::ZERO);
            gone += backoff.wait();
            attempts += 1;
        }
        attempts
    }

    #[test]
    fn a_vault_that_cuts_off_every_stream_at_once_is_asked_seldom() {
        let attempts = cut_off_at_once(&mut Backoff::new());
        assert!((100..=130).contains(&attempts), "{attempts} in an hour");
    }

    #[test]
    fn what_has_come_and_what_stood_long_make_the_wait_short_again() {
        let mut backoff = Backoff::new();
        cut_off_at_once(&mut backoff);
        assert_eq!(backoff.wait(), LAST);
        backoff.reset();
        assert_eq!([backoff.wait(), backoff.wait(), backoff.wait()], [FIRST, FIRST * 2, FIRST * 4]);
        backoff.ended(LAST - FIRST);
        assert_eq!(backoff.wait(), FIRST * 8);
        backoff.ended(LAST);
        assert_eq!(backoff.wait(), FIRST);
    }
}
