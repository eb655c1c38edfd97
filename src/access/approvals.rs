//! Requests that wait for the approval of others, and who has given theirs.
//!
//! An approval is bound to one request by one principal: to the keyed hash of all that the request says. It ends by being
//! used, by one rejection, or by its time.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::principal::Role;

/// The format of what is stored.
const FORMAT: u32 = 1;
/// Requests of a tenant that may wait at once.
const MOST: usize = 100;
/// Requests of one principal that may wait at once.
const MOST_OF_ONE: usize = 10;
/// How long one waits, in microseconds: seven days, so that a nightly job finds what was approved.
const LIFE: u64 = 7 * 24 * 3_600 * 1_000_000;

/// A request that waits for approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its number, which no other gets: how many leaves the tenant's log had when it was opened.
    pub number: u64,
    /// The action that is asked for.
    pub action: String,
    /// Who asks, by role and name.
    pub requester: String,
    /// The keyed hash of the request, in lower-case hexadecimal.
    pub request: String,
    /// The request in words.
    pub summary: String,
    /// When it was opened, in microseconds since 1970.
    pub opened: u64,
    /// When it ends, in microseconds since 1970.
    pub expires: u64,
    /// How many approvals it needs.
    pub need: u8,
    /// Who has approved.
    pub votes: Vec<Vote>,
}

/// The approval of one officer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The officer, by role and name.
    pub officer: String,
    /// The SHA-256 of its public key, in lower-case hexadecimal: that key signed.
    pub key: String,
    /// When, in microseconds since 1970.
    pub time: u64,
}

impl Approval {
    /// Its name.
    pub fn name(&self) -> String {
        format!("approval/{}", self.number)
    }

    /// How many approvals count: those of officers who still are who they were, each by another key, and none by the
    /// requester's. `pinned` is the hash of an officer's public key by the name under its role, if it is one that counts.
    pub fn standing(&self, pinned: impl Fn(&str) -> Option<String>) -> u8 {
        let own = officer_name(&self.requester).and_then(&pinned);
        let counts = |vote: &&Vote| {
            let key = officer_name(&vote.officer).and_then(&pinned);
            vote.officer != self.requester && key.as_ref() == Some(&vote.key) && key != own
        };
        let keys: BTreeSet<&str> = self.votes.iter().filter(counts).map(|vote| vote.key.as_str()).collect();
        u8::try_from(keys.len()).unwrap_or(u8::MAX)
    }
}

/// The name under the role, of an officer.
fn officer_name(officer: &str) -> Option<&str> {
    officer.strip_prefix(Role::Officer.as_str())?.strip_prefix('/')
}

/// Why an approval is not given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApproveError {
    /// There is none of that name, or it has ended.
    #[error(
        "no request waits under that name: it was done, rejected, or has expired; `strongroom approvals` shows those that wait"
    )]
    Unknown,
    /// The requester can't.
    #[error("nobody approves what it asked for itself: another officer does")]
    Requester,
    /// It has already.
    #[error("you have approved it already: another officer does")]
    Twice,
}

/// All requests of a tenant that wait.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    format: u32,
    waiting: Vec<Approval>,
}

impl Approvals {
    /// Those that wait at a time, in microseconds since 1970, oldest first.
    pub fn waiting(&self, now: u64) -> impl Iterator<Item = &Approval> {
        self.waiting.iter().filter(move |approval| now < approval.expires)
    }

    /// The one that waits for a request of somebody.
    pub fn of(&self, requester: &str, request: &str, now: u64) -> Option<&Approval> {
        self.waiting(now).find(|approval| approval.requester == requester && approval.request == request)
    }

    /// Drops what was opened before a log had so many leaves: who puts an older list back while the vault is stopped brings
    /// nothing back that was rejected or used since.
    pub fn since(mut self, leaves: u64) -> Self {
        self.waiting.retain(|approval| approval.number >= leaves);
        self
    }

    /// Opens one, and drops those that have expired. `None` if as many wait as may, in all or of one principal. `asked` says
    /// action, requester, hash and summary.
    pub fn open(&mut self, asked: [&str; 4], need: u8, number: u64, now: u64) -> Option<Approval> {
        self.waiting.retain(|approval| now < approval.expires);
        let [action, requester, request, summary] = asked.map(str::to_owned);
        let of_one = self.waiting.iter().filter(|approval| approval.requester == requester).count();
        if self.waiting.len() >= MOST || of_one >= MOST_OF_ONE {
            return None;
        }
        self.format = FORMAT;
        // Also if the log is told of the one before only after this was asked: no two have one number.
        let number = self.waiting.last().map_or(number, |last| number.max(last.number.saturating_add(1)));
        let (votes, expires) = (Vec::new(), now.saturating_add(LIFE));
        let opened = Approval { number, action, requester, request, summary, opened: now, expires, need, votes };
        self.waiting.push(opened.clone());
        Some(opened)
    }

    /// Adds somebody's approval.
    pub fn approve(&mut self, name: &str, vote: Vote) -> Result<&Approval, ApproveError> {
        let approval = self.waiting.iter_mut().find(|approval| approval.name() == name && vote.time < approval.expires);
        let approval = approval.ok_or(ApproveError::Unknown)?;
        if approval.requester == vote.officer {
            return Err(ApproveError::Requester);
        }
        if approval.votes.iter().any(|there| there.officer == vote.officer) {
            return Err(ApproveError::Twice);
        }
        approval.votes.push(vote);
        Ok(approval)
    }

    /// Ends one: it was used, or somebody rejects it.
    pub fn end(&mut self, name: &str, now: u64) -> Result<Approval, ApproveError> {
        let at = self.waiting.iter().position(|approval| approval.name() == name && now < approval.expires);
        at.map(|at| self.waiting.remove(at)).ok_or(ApproveError::Unknown)
    }

    /// Whether a stored list is one that this version writes.
    pub fn is_sound(&self) -> bool {
        let known = self.format == FORMAT || *self == Self::default();
        let ordered = self.waiting.is_sorted_by(|one, next| one.number < next.number);
        known && ordered && self.waiting.len() <= MOST
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKED: [&str; 4] = ["apply_policy", "officer/alice", "aa", "policies"];

    fn vote(officer: &str, time: u64) -> Vote {
        Vote { officer: officer.to_owned(), key: format!("key of {officer}"), time }
    }

    fn pinned(name: &str) -> Option<String> {
        Some(format!("key of officer/{name}"))
    }

    #[test]
    fn others_approve_once_each_and_never_what_they_asked_for() {
        let mut approvals = Approvals::default();
        let opened = approvals.open(ASKED, 2, 1, 10).unwrap();
        assert_eq!((opened.name().as_str(), opened.expires), ("approval/1", 10 + LIFE));
        assert_eq!(approvals.approve("approval/1", vote("officer/alice", 11)), Err(ApproveError::Requester));
        assert_eq!(approvals.approve("approval/2", vote("officer/bob", 11)), Err(ApproveError::Unknown));
        assert_eq!(approvals.approve("approval/1", vote("officer/bob", 11)).unwrap().standing(pinned), 1);
        assert_eq!(approvals.approve("approval/1", vote("officer/bob", 12)), Err(ApproveError::Twice));
        assert_eq!(approvals.approve("approval/1", vote("officer/carol", 12)).unwrap().standing(pinned), 2);
        let one = approvals.of("officer/alice", "aa", 12).unwrap();
        assert_eq!(one.standing(|name| pinned(name).filter(|_| name != "bob")), 1, "who left counts no more");
        assert_eq!(one.standing(|name| (name == "bob").then(|| "another key".to_owned())), 0);
        assert!(approvals.of("officer/bob", "aa", 12).is_none() && approvals.of("officer/alice", "ab", 12).is_none());
        assert!(approvals.end("approval/1", 13).is_ok() && approvals.end("approval/1", 13).is_err());
        approvals.open(ASKED, 2, 7, 14).unwrap();
        assert!(approvals.clone().since(7).of("officer/alice", "aa", 14).is_some());
        assert!(approvals.since(8).of("officer/alice", "aa", 14).is_none(), "it was opened before");
    }

    #[test]
    fn one_key_is_one_person_whatever_its_names() {
        let mut approvals = Approvals::default();
        approvals.open(ASKED, 2, 1, 10).unwrap();
        for officer in ["officer/bob", "officer/bob-2"] {
            let vote = Vote { officer: officer.to_owned(), key: "one".to_owned(), time: 11 };
            approvals.approve("approval/1", vote).unwrap();
        }
        let one = approvals.of("officer/alice", "aa", 12).unwrap();
        assert_eq!(one.standing(|_| Some("one".to_owned())), 0, "it is the requester's too");
        assert_eq!(one.standing(|name| (name != "alice").then(|| "one".to_owned())), 1);
    }

    #[test]
    fn what_has_expired_is_gone_and_makes_room() {
        let mut approvals = Approvals::default();
        for number in 0..MOST {
            let requester = format!("officer/{}", number / MOST_OF_ONE);
            assert!(approvals.open(["a", &requester, "aa", ""], 1, number as u64, 0).is_some());
        }
        assert!(approvals.open(ASKED, 1, 100, LIFE - 1).is_none(), "all places are taken");
        approvals.end("approval/99", 1).unwrap();
        assert!(approvals.open(["a", "officer/0", "aa", ""], 1, 100, 1).is_none(), "its own are");
        assert!(approvals.of("officer/3", "aa", LIFE - 1).is_some());
        assert_eq!(approvals.approve("approval/1", vote("officer/bob", LIFE)), Err(ApproveError::Unknown));
        assert!(approvals.of("officer/3", "aa", LIFE).is_none() && approvals.waiting(LIFE).next().is_none());
        assert_eq!(approvals.open(ASKED, 1, 101, LIFE).unwrap().number, 101);
        assert_eq!(approvals.waiting.len(), 1);
    }

    #[test]
    fn they_are_stored_as_specified() {
        let mut approvals = Approvals::default();
        approvals.open(ASKED, 1, 41, 5).unwrap();
        approvals.approve("approval/41", vote("officer/bob", 6)).unwrap();
        let stored = serde_json::to_string(&approvals).unwrap();
        assert_eq!(approvals.clone().open(ASKED, 1, 41, 5).unwrap().number, 42, "no two have one number");
        let expected = format!(
            concat!(
                r#"{{"format":1,"waiting":[{{"number":41,"action":"apply_policy","requester":"officer/alice","#,
                r#""request":"aa","summary":"policies","opened":5,"expires":{},"need":1,"#,
                r#""votes":[{{"officer":"officer/bob","key":"key of officer/bob","time":6}}]}}]}}"#
            ),
            5 + LIFE
        );
        assert_eq!(stored, expected);
        assert!(serde_json::from_str::<Approvals>(&stored).unwrap().is_sound());
        let wrong = stored.replace("\"format\":1", "\"format\":2");
        assert!(!serde_json::from_str::<Approvals>(&wrong).unwrap().is_sound());
    }

    proptest! {
        #[test]
        fn no_order_of_calls_lets_one_person_do_it_alone(
            calls in proptest::collection::vec((0..3_u8, 0..2_u8, 0..3_u64), 0..40),
        ) {
            // Alice asks and votes as often as she likes; nobody else does anything.
            let mut approvals = Approvals::default();
            for (number, (call, request, time)) in (0..).zip(calls) {
                let request = if request == 0 { "aa" } else { "bb" };
                let name = format!("approval/{time}");
                match call {
                    0 => drop(approvals.open(["a", "officer/alice", request, ""], 1, number, time)),
                    1 => drop(approvals.approve(&name, vote("officer/alice", time))),
                    _ => drop(approvals.end(&name, time)),
                }
                prop_assert!(approvals.is_sound());
                prop_assert!(approvals.waiting(time).all(|approval| approval.standing(pinned) == 0));
            }
        }
    }
}
