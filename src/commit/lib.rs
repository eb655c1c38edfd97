//! The committer: guards, group commit and leaf indexes.
//!
//! ```text
//!   requests ── Change ──> queue ──> one thread: check guards, number leaves, ONE write, ONE sync ──> Committed
//!                                        │                                     │
//!                                  conflict table                   lanes, position, head file
//! ```
//!
//! In comes a [`Change`]: at which [`Position`] of the store's history the request read, which facts must not have
//! changed since, what to write and which leaves to append. Out goes [`Committed`], once everything is on stable
//! storage, or a [`CommitError`]. What holds:
//!
//! - All of a change is stored or nothing, and a change is answered only when it is durable.
//! - Changes are checked one after the other. A change sees what earlier members of its own group do, and a broken
//!   guard turns back only its own request.
//! - What restricts stands in the journal as well before anybody is told of it, in the order of the commits ([`Journal`]).
//! - Leaf indexes have no gaps, and time in a log never goes backwards.
//! - After a failed write nobody knows what is on disk. The committer answers [`CommitError::Unknown`], opens the
//!   store again, reloads its lanes and counts, and only then goes on.
//! - What a change lets be told is counted with it ([`Charge`]), or it is refused and leaves no trace.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod allocator;
mod change;
mod committer;
mod delivery;
mod fact;
mod group;
mod head_check;
mod head_file;
mod journal;
mod lane;
mod meter;
mod offline;
mod table;
mod worker;

#[cfg(test)]
mod history;
#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use allocator::{AllocateError, Allocator, Numbers};
pub use change::{Change, CommitError, Committed, Guard, Position};
pub use committer::{Committer, CommitterState, Start, StartError};
pub use delivery::take_delivery;
pub use fact::Fact;
pub use head_check::HeadError;
pub use head_file::{HeadFile, HeadKey, HeadRenewal, NewestKey, SignHead};
pub use journal::{Journal, JournalError, JournalMac, JournalPlace, OpenedJournal, Sound, put_aside};
pub use lane::LaneView;
pub use meter::{Behind, Charge, ClassWindows, MeterLimits, Meters, Quota, Shown, Use, Window, day_of};
pub use offline::Offline;
