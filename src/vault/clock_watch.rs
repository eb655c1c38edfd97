//! Whether the clock is believed: what is due by it is erased for good.
//!
//! A clock that is set years ahead makes everything due at once. So what the machine's clock says is held against a clock
//! that nobody can set, while the vault runs, and against the ledger's newest leaf when it starts. After a jump nothing is
//! erased until an operator says that the clock is right. That is a row, so it outlives a restart.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use strongroom_access::Action;
use strongroom_ledger::Timestamp;
use strongroom_storage::Store;
use strongroom_storage::keys as place;

use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::own_action::OwnAction;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::Tenant;
use crate::vault::{Clock, Vault};

/// How far the clock may be from where it should be, in microseconds: 5 minutes. What keeps clocks right moves them by less.
const SLACK: u64 = 300_000_000;
/// In so long, in microseconds: a day. A clock that is a little fast or slow jumps never.
const WINDOW: u64 = 86_400_000_000;

/// The machine's clocks, as they are.
#[derive(Clone)]
pub struct MachineTime {
    /// What it says, microseconds since 1970. It can be set.
    pub wall: Clock,
    /// How long the machine has run, in microseconds. Nobody can set it.
    pub running: Clock,
}

impl MachineTime {
    /// Of a clock that can't be set.
    pub fn of_one(clock: Clock) -> Self {
        Self { wall: Clock::clone(&clock), running: clock }
    }
}

/// A jump of the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockJump {
    /// What it said, in microseconds since 1970.
    pub told: u64,
    /// What it should have said; at a start the time of the newest leaf, or what was last confirmed.
    pub expected: u64,
}

impl fmt::Display for ClockJump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (told, expected) = (Timestamp(self.told), Timestamp(self.expected));
        write!(
            f,
            "the clock jumped: it said {told}, and should have said {expected}; nothing is erased by it until the vault's \
             operator confirms it: strongroom retention confirm-clock"
        )
    }
}

/// What is kept.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockRow {
    /// How it jumped, if nobody has said since that it is right.
    jump: Option<ClockJump>,
    /// When somebody last did; while the ledger is ahead since then, what the clock has come to.
    confirmed: Option<Confirmed>,
}

/// When somebody said that the clock is right.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    /// By that clock.
    clock: u64,
    /// By the ledger, whose time does not go back: where the clock was ahead before, it stands still.
    ledger: u64,
}

impl ClockRow {
    /// Whether the clock jumped while the vault was stopped, or before and was not confirmed.
    fn at_start(&self, told: u64, newest: u64, longest_stop: u64) -> Option<ClockJump> {
        // Where the ledger is ahead its newest leaf says nothing.
        let expected = match self.confirmed {
            Some(confirmed) if newest <= confirmed.ledger => confirmed.clock,
            _ => newest,
        };
        let jumped = told.saturating_add(SLACK) < expected || told > expected.saturating_add(longest_stop);
        self.jump.or(jumped.then_some(ClockJump { told, expected }))
    }
}

/// The watch over the clock.
pub(crate) struct ClockWatch {
    time: MachineTime,
    seen: Mutex<Seen>,
}

struct Seen {
    /// What the clock said when it was right.
    wall: u64,
    /// How long the machine had run then.
    running: u64,
    jump: Option<ClockJump>,
    /// Whether the jump is a row.
    noted: bool,
    /// What it said when it was last seen whether the row is to say so; 0: not yet.
    kept: u64,
}

/// What the machine's clocks said at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    wall: u64,
    running: u64,
}

impl Reading {
    /// A clock that is believed from this moment on.
    fn believed(self) -> Seen {
        Seen { wall: self.wall, running: self.running, jump: None, noted: false, kept: 0 }
    }
}

impl ClockWatch {
    /// Begins with a clock that is believed.
    pub fn new(time: MachineTime) -> Self {
        let reading = Reading { wall: (time.wall)(), running: (time.running)() };
        Self { time, seen: Mutex::new(reading.believed()) }
    }

    /// What the clocks say.
    fn read(&self) -> Reading {
        Reading { wall: (self.time.wall)(), running: (self.time.running)() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the machine's clock says, if it is believed.
    fn look(&self) -> Result<u64, ClockJump> {
        let mut seen = self.seen();
        if let Some(jump) = seen.jump {
            return Err(jump);
        }
        let (told, running) = ((self.time.wall)(), (self.time.running)());
        let ran = running.saturating_sub(seen.running);
        let expected = seen.wall.saturating_add(ran);
        if told.abs_diff(expected) > SLACK {
            let jump = ClockJump { told, expected };
            (seen.jump, seen.noted) = (Some(jump), false);
            return Err(jump);
        }
        if ran >= WINDOW {
            (seen.wall, seen.running) = (told, running);
        }
        Ok(told)
    }

    /// How the clock jumped, if nobody has said since that it is right.
    pub fn jump(&self) -> Option<ClockJump> {
        self.look().err()
    }

    /// The same, if that is no row yet.
    fn to_note(&self) -> Option<ClockJump> {
        let jump = self.jump()?;
        (!self.seen().noted).then_some(jump)
    }

    fn noted(&self) {
        self.seen().noted = true;
    }

    /// From this moment on it is believed.
    fn confirm(&self, reading: Reading) {
        *self.seen() = reading.believed();
    }

    /// What it says, if it is believed, and a day after that was last asked.
    fn to_keep(&self) -> Option<u64> {
        let told = self.look().ok()?;
        let mut seen = self.seen();
        if seen.kept > 0 && told.saturating_sub(seen.kept) < WINDOW {
            return None;
        }
        seen.kept = told;
        Some(told)
    }
}

impl<S: Store> Vault<S> {
    /// The time by which what is due is erased, in microseconds since 1970: the clock's, while that is believed. Never the
    /// ledger's, which may be ahead.
    pub(crate) fn erasing_time(&self) -> Result<u64, Error> {
        let wall = self.clock_watch.look().map_err(|_| Error::ClockJumped)?;
        Ok((self.clock)().min(wall))
    }

    /// How the clock jumped, if nobody has said since that it is right: nothing is erased by it meanwhile.
    pub fn clock_jump(&self) -> Option<ClockJump> {
        self.clock_watch.jump()
    }

    /// Looks at the clock when the vault starts, before there are new leaves. `newest` is the time of the newest one.
    pub(crate) async fn look_at_clock_at_start(&self, newest: u64) -> Result<(), Error> {
        let row = self.clock_row().await?;
        let told = (self.clock_watch.time.wall)();
        if let Some(jump) = row.at_start(told, newest, self.retention.longest_stop) {
            let mut seen = self.clock_watch.seen();
            (seen.jump, seen.noted) = (Some(jump), row.jump.is_some());
        }
        self.look_at_clock().await
    }

    /// Sees whether the clock has jumped, and keeps it if it has.
    pub async fn look_at_clock(&self) -> Result<(), Error> {
        // Nobody confirms it meanwhile.
        let _turn = self.turn.read().await;
        let Some(jump) = self.clock_watch.to_note() else { return self.keep_clock().await };
        tracing::error!("{jump}");
        let row = ClockRow { jump: Some(jump), ..self.clock_row().await? };
        let key = &self.tenant(SYSTEM_NO)?.fingerprints;
        let mutation = Source::put(&row, place::clock(), SourceKind::Clock, key)?;
        let [told, expected] = [jump.told, jump.expected].map(|time| Timestamp(time).to_string());
        let detail = [("told", told.as_str()), ("expected", expected.as_str())];
        self.record_by_itself(SYSTEM_NO, OwnAction::ClockJumped, &detail, vec![mutation]).await?;
        self.clock_watch.noted();
        Ok(())
    }

    /// Keeps, once a day, what a clock says that is believed, where the ledger is ahead of it: the newest leaf does not tell the
    /// next start how long the vault was stopped.
    async fn keep_clock(&self) -> Result<(), Error> {
        let Some(told) = self.clock_watch.to_keep() else { return Ok(()) };
        let row = self.clock_row().await?;
        let Some(confirmed) = row.confirmed.filter(|confirmed| confirmed.clock < told) else { return Ok(()) };
        if self.now() <= told.saturating_add(SLACK) {
            return Ok(());
        }
        let row = ClockRow { confirmed: Some(Confirmed { clock: told, ..confirmed }), ..row };
        let key = &self.tenant(SYSTEM_NO)?.fingerprints;
        let mutation = Source::put(&row, place::clock(), SourceKind::Clock, key)?;
        self.commit_unguarded(vec![mutation], vec![]).await
    }

    async fn clock_row(&self) -> Result<ClockRow, Error> {
        let key = &self.tenant(SYSTEM_NO)?.fingerprints;
        let row = Source::load(&*self.store, place::clock(), SourceKind::Clock, key).await?;
        Ok(row.unwrap_or_default())
    }

    /// Says that the clock is right. Returns what it says.
    pub async fn confirm_clock(&self, caller: &Caller, request: &ConfirmClock) -> Result<u64, Error> {
        Ok(self.travel(caller, request).await?.0)
    }
}

/// Says that the clock is right, after a jump.
pub struct ConfirmClock {
    /// What the operator's own clock says, in microseconds since 1970: what is confirmed is what somebody has looked at.
    pub time: u64,
}

impl ConfirmClock {
    /// The clock, if it is the operator's, and the machine's as they were held against it.
    fn clock<S: Store>(&self, road: &Road<'_, S>) -> Result<(u64, Reading), Error> {
        road.decide_vault()?;
        let vault = road.vault;
        let (clock, reading) = ((vault.clock)(), vault.clock_watch.read());
        let machine = reading.wall;
        if clock.abs_diff(machine) > SLACK {
            let description = format!(
                "the machine's clock says {}, and the vault, which does not follow a jump while it runs, {}: set the clock \
                 right, or restart the vault if it is, and confirm it then",
                Timestamp(machine),
                Timestamp(clock)
            );
            return Err(Error::invalid("time", "clock_not_followed", description));
        }
        if clock.abs_diff(self.time) > SLACK {
            let description = format!(
                "your clock says {}, and the vault's {}: set right the one that is wrong",
                Timestamp(self.time),
                Timestamp(clock)
            );
            return Err(Error::invalid("time", "clock_differs", description));
        }
        Ok((clock, reading))
    }
}

impl<S: Store> Attempt<S> for ConfirmClock {
    type Answer = (u64, Reading);
    const ACTION: Action = Action::ConfirmClock;
    /// Who notes a jump does not do so meanwhile.
    const ALONE: bool = true;
    const ON_FULL_DISK: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        self.clock(road).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        let (clock, reading) = self.clock(road)?;
        let row = ClockRow { jump: None, confirmed: Some(Confirmed { clock, ledger: road.now }) };
        let mut prepared = road.prepare((clock, reading));
        let key = &road.tenant.fingerprints;
        prepared.mutations.push(Source::put(&row, place::clock(), SourceKind::Clock, key)?);
        prepared.detail.push(("clock", Timestamp(clock).to_string()));
        if let Some(jump) = road.vault.clock_watch.jump() {
            prepared.detail.push(("told", Timestamp(jump.told).to_string()));
            prepared.detail.push(("expected", Timestamp(jump.expected).to_string()));
        }
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, _tenant: &Tenant, (_, reading): &Self::Answer) {
        vault.clock_watch.confirm(*reading);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MINUTE: u64 = 60_000_000;
    const START: u64 = 1_700_000_000_000_000;

    /// A watch over two clocks that can be turned.
    fn watch() -> (ClockWatch, Arc<AtomicU64>, Arc<AtomicU64>) {
        let (wall, running) = (Arc::new(AtomicU64::new(START)), Arc::new(AtomicU64::new(7)));
        let clock = |of: &Arc<AtomicU64>| -> Clock {
            let of = Arc::clone(of);
            Arc::new(move || of.load(Ordering::Relaxed))
        };
        (ClockWatch::new(MachineTime { wall: clock(&wall), running: clock(&running) }), wall, running)
    }

    #[test]
    fn time_that_passes_is_no_jump_and_neither_is_a_clock_that_is_kept_right() {
        let (watch, wall, running) = watch();
        for day in 0..400 {
            // Some minutes a day too fast.
            wall.fetch_add(WINDOW + 4 * MINUTE, Ordering::Relaxed);
            running.fetch_add(WINDOW, Ordering::Relaxed);
            assert_eq!(watch.jump(), None, "day {day}");
        }
        wall.fetch_sub(4 * MINUTE, Ordering::Relaxed);
        assert_eq!(watch.jump(), None);
    }

    #[test]
    fn a_jump_ahead_or_back_stays_one_until_somebody_says_that_the_clock_is_right() {
        for told in [START + 6 * MINUTE, START - 6 * MINUTE, START + 365 * WINDOW, 0, u64::MAX] {
            let (watch, wall, _) = watch();
            wall.store(told, Ordering::Relaxed);
            let jump = ClockJump { told, expected: START };
            assert_eq!((watch.jump(), watch.to_note()), (Some(jump), Some(jump)));
            watch.noted();
            wall.store(START, Ordering::Relaxed);
            assert_eq!((watch.jump(), watch.to_note()), (Some(jump), None), "nobody knows what is right");
            watch.confirm(watch.read());
            assert_eq!(watch.jump(), None);
        }
    }

    #[test]
    fn what_is_confirmed_is_what_was_looked_at() {
        let (watch, wall, _) = watch();
        let looked_at = watch.read();
        wall.store(START + 365 * WINDOW, Ordering::Relaxed);
        watch.confirm(looked_at);
        assert_eq!(watch.jump(), Some(ClockJump { told: START + 365 * WINDOW, expected: START }));
    }

    #[test]
    fn a_clock_that_is_believed_is_kept_once_a_day() {
        let (watch, wall, running) = watch();
        assert_eq!((watch.to_keep(), watch.to_keep()), (Some(START), None));
        for clock in [&wall, &running] {
            clock.fetch_add(WINDOW, Ordering::Relaxed);
        }
        assert_eq!((watch.to_keep(), watch.to_keep()), (Some(START + WINDOW), None));
        wall.fetch_add(2 * WINDOW, Ordering::Relaxed);
        assert_eq!(watch.to_keep(), None, "it jumped");
    }

    #[test]
    fn many_small_steps_of_one_day_are_a_jump() {
        let (watch, wall, _) = watch();
        wall.fetch_add(4 * MINUTE, Ordering::Relaxed);
        assert_eq!(watch.jump(), None);
        wall.fetch_add(4 * MINUTE, Ordering::Relaxed);
        assert!(watch.jump().is_some());
    }

    #[test]
    fn a_start_after_longer_than_a_vault_is_stopped_or_before_its_newest_leaf_is_a_jump() {
        let week = 7 * WINDOW;
        let row = ClockRow::default();
        for fine in [START, START + week, START - 4 * MINUTE] {
            assert_eq!(row.at_start(fine, START, week), None, "{fine}");
        }
        for wrong in [START + week + 1, START - 6 * MINUTE, 0, u64::MAX] {
            let jump = Some(ClockJump { told: wrong, expected: START });
            assert_eq!(row.at_start(wrong, START, week), jump, "{wrong}");
        }
        // It was noted, and nobody has confirmed it.
        let jump = Some(ClockJump { told: 1, expected: 2 });
        assert_eq!(ClockRow { jump, ..row }.at_start(START, START, week), jump);
    }

    #[test]
    fn where_the_ledger_is_ahead_the_clock_that_was_confirmed_counts() {
        let week = 7 * WINDOW;
        let ahead = START + 5_000 * WINDOW;
        let confirmed = Some(Confirmed { clock: START, ledger: ahead });
        let row = ClockRow { jump: None, confirmed };
        assert_eq!(row.at_start(START + WINDOW, ahead, week), None);
        assert!(row.at_start(ahead, ahead, week).is_some(), "it is where it was wrong before");
        assert!(row.at_start(START + week + 1, ahead, week).is_some());
        assert_eq!(row.at_start(ahead + 1, ahead + 1, week), None, "the ledger goes on");
    }
}
