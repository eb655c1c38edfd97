//! The watch over a vault whose root key somebody outside of this process keeps, who may take it away.
//!
//! An open vault needs its root key no more, so it would go on without it for ever. Therefore it asks now and then whether
//! it still may have it. Denied, it gives up all its keys at once. Not answered, it goes on for a time that its
//! configuration says, tells so in its status, and asks again, less and less often; then it gives them up as well. A vault
//! that gave up its keys by itself, or could not have them when it was started, opens by itself when it may.

use std::sync::Arc;
use std::time::Duration;

use strongroom_storage::Store;
use strongroom_vault::Away;
use tokio::time::Instant;

use crate::door::{Door, Heard};

/// How long after a first failure it is tried again; twice that after the second, and so on.
const FIRST: Duration = Duration::from_secs(1);

/// How long an answer may take. Providers bound their calls, but not what a file system makes them wait for.
pub(crate) const ANSWER: Duration = Duration::from_secs(60);

/// How often, and how long without an answer.
#[derive(Clone, Copy, Debug)]
pub struct RootWatch {
    /// How often an open vault asks, and the longest time between two tries.
    pub every: Duration,
    /// How long it keeps its keys when nobody answers.
    pub patience: Duration,
}

/// What an open vault does after what it heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on, and say this in its status.
    GoOn(String),
    /// Give up all keys; why, and in a sentence.
    GiveUp(Away, String),
}

/// What was heard since when.
pub(crate) struct Watched {
    watch: RootWatch,
    /// When the root key was last known to hold.
    held: Instant,
    failures: u32,
}

impl Watched {
    pub(crate) fn new(watch: RootWatch, now: Instant) -> Self {
        Self { watch, held: now, failures: 0 }
    }

    /// Says how it came out to open the vault, which is sealed.
    fn tried(&mut self, opened: bool, now: Instant) {
        match opened {
            true => *self = Self::new(self.watch, now),
            false => self.failures = self.failures.saturating_add(1),
        }
    }

    pub(crate) fn hears(&mut self, heard: Heard, now: Instant) -> Verdict {
        match heard {
            Heard::Holds => {
                *self = Self::new(self.watch, now);
                Verdict::GoOn(String::new())
            }
            Heard::Denied(why) => {
                self.failures = self.failures.saturating_add(1);
                Verdict::GiveUp(Away::Denied, why)
            }
            Heard::Nothing(why) => {
                let silent = now.duration_since(self.held);
                self.failures = self.failures.saturating_add(1);
                match self.watch.patience.checked_sub(silent).filter(|left| !left.is_zero()) {
                    Some(left) => Verdict::GoOn(format!(
                        "{why}; not confirmed for {} s, and in {} s more the keys are given up",
                        silent.as_secs(),
                        left.as_secs()
                    )),
                    None => {
                        Verdict::GiveUp(Away::Unreachable, format!("{why}; not confirmed for {} s", silent.as_secs()))
                    }
                }
            }
        }
    }

    /// How long until it is asked again: while nobody answers never so long that the patience would end unnoticed.
    pub(crate) fn pause(&self, now: Instant) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else { return self.watch.every };
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(self.watch.every);
        let left = self.watch.patience.saturating_sub(now.duration_since(self.held));
        if left.is_zero() { pause } else { pause.min(left) }
    }
}

/// Watches until `stop` comes. It does not wait for an answer then, but what has begun to be opened or closed is.
pub async fn watch_root<S: Store>(door: Arc<Door<S>>, watch: RootWatch, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut watched = Watched::new(watch, Instant::now());
    let mut opening = door.openings();
    if door.waits() {
        watched.tried(false, Instant::now());
    }
    loop {
        let heard = async {
            tokio::time::sleep(watched.pause(Instant::now())).await;
            let late = Heard::Nothing(format!("there was no answer in {} s", ANSWER.as_secs()));
            tokio::time::timeout(ANSWER, door.ask()).await.unwrap_or(Some(late))
        };
        let heard = tokio::select! {
            heard = heard => heard,
            () = &mut stop => return,
        };
        if opening != door.openings() {
            // Somebody opened it meanwhile: it had its root key then.
            (opening, watched) = (door.openings(), Watched::new(watch, Instant::now()));
            continue;
        }
        match heard.map(|heard| watched.hears(heard, Instant::now())) {
            Some(Verdict::GoOn(note)) => door.note(note),
            Some(Verdict::GiveUp(why, reason)) => door.seal_by_itself(opening, why.as_str(), &reason).await,
            None => {
                let opened = door.unseal_by_itself().await;
                watched.tried(opened.is_ok(), Instant::now());
                if let Err(why) = opened {
                    tracing::warn!(%why, "the vault still can't have its root key");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCH: RootWatch = RootWatch { every: Duration::from_secs(60), patience: Duration::from_secs(600) };

    fn at(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn a_denial_ends_it_at_once_and_silence_only_after_the_patience() {
        let begun = Instant::now();
        let mut watched = Watched::new(WATCH, begun);
        let silence = || Heard::Nothing("no answer".to_owned());
        for second in [60, 300, 599] {
            let Verdict::GoOn(note) = watched.hears(silence(), at(begun, second)) else { panic!("after {second} s") };
            assert!(note.contains("no answer") && note.contains(&format!("in {} s more", 600 - second)), "{note}");
        }
        assert_eq!(watched.hears(Heard::Holds, at(begun, 599)), Verdict::GoOn(String::new()));
        assert!(matches!(watched.hears(silence(), at(begun, 1_100)), Verdict::GoOn(_)), "counted from the last answer");
        assert!(matches!(watched.hears(silence(), at(begun, 1_199)), Verdict::GiveUp(Away::Unreachable, _)));
        let mut watched = Watched::new(WATCH, begun);
        let denied = watched.hears(Heard::Denied("it is disabled".to_owned()), at(begun, 1));
        assert_eq!(denied, Verdict::GiveUp(Away::Denied, "it is disabled".to_owned()));
    }

    #[test]
    fn it_is_asked_less_and_less_often_while_nobody_answers() {
        let begun = Instant::now();
        let mut watched = Watched::new(WATCH, begun);
        assert_eq!(watched.pause(begun), WATCH.every);
        let pauses: Vec<u64> = (0..9)
            .map(|_| {
                watched.hears(Heard::Nothing(String::new()), begun);
                watched.pause(begun).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(watched.pause(at(begun, 590)).as_secs(), 10, "the end of the patience is not overslept");
        for _ in 0..100 {
            watched.tried(false, begun);
        }
        assert_eq!(watched.pause(at(begun, 900)), WATCH.every);
        watched.hears(Heard::Holds, begun);
        assert_eq!(watched.pause(begun), WATCH.every);
    }
}
