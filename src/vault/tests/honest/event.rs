//! What may happen in a history.

use proptest::prelude::*;
use strongroom_storage::faulty::Fate;
use strongroom_storage::rows::JobKind;

/// Fields of all kinds: with and without index, shaped, deterministic for a subject and for the tenant.
pub const FIELDS: [&str; 6] = [
    "borrower.address",
    "borrower.email",
    "borrower.mobile",
    "borrower.name",
    "company.settlement_account",
    "company.uscc",
];
pub const JOBS: [JobKind; 4] = JobKind::ALL;
pub const FATES: [Fate; 3] = [Fate::Lost, Fate::Stored, Fate::StoredAfterReopen];
/// Data subjects beside nobody.
const SUBJECTS: usize = 3;

/// One thing that happens. What it is about is counted round among what there is.
#[derive(Clone, Debug)]
pub enum Event {
    Store {
        field: usize,
        value: usize,
        subject: usize,
    },
    Read(usize),
    Match(usize),
    Lookup(usize),
    Replace(usize),
    Delete(usize),
    Label(usize),
    Consent {
        subject: usize,
        grant: bool,
    },
    /// On one field of a subject, or on all.
    Hold {
        subject: usize,
        field: usize,
    },
    Lift {
        subject: usize,
        number: u32,
    },
    /// At once, or after some hours.
    Erase {
        subject: usize,
        hours: u64,
    },
    UndoErasure(usize),
    /// Does so many steps of what is left of erasures.
    Clear(usize),
    Rotate(usize),
    /// A key that leads to values or subjects.
    RotateIndex(usize),
    Destroy(usize),
    /// Begins a job, or goes on with it by a page.
    Job {
        kind: usize,
        entries: usize,
    },
    Freeze(bool),
    Suspend(bool),
    Tier(usize),
    Policy,
    Schema(bool),
    Tile,
    Pass(u64),
    /// The next write fails.
    Fail(usize),
    Restart,
    /// The process is killed, and started again.
    Kill,
}

impl Event {
    /// What it is called when it comes to something.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Store { .. } => "store",
            Self::Read(_) => "read",
            Self::Match(_) => "match",
            Self::Lookup(_) => "lookup",
            Self::Replace(_) => "replace",
            Self::Delete(_) => "delete",
            Self::Label(_) => "label",
            Self::Consent { grant: true, .. } => "consent",
            Self::Consent { .. } => "withdrawal",
            Self::Hold { .. } => "hold",
            Self::Lift { .. } => "lift",
            Self::Erase { hours: 0, .. } => "erasure",
            Self::Erase { .. } => "erasure with a time of grace",
            Self::UndoErasure(_) => "undone erasure",
            Self::Clear(_) => "clearing",
            Self::Rotate(_) => "rotation",
            Self::RotateIndex(_) => "rotation of an index key",
            Self::Destroy(_) => "destroyed key",
            Self::Job { .. } => "job",
            Self::Freeze(true) => "freeze",
            Self::Freeze(false) => "end of a freeze",
            Self::Suspend(true) => "suspension",
            Self::Suspend(false) => "end of a suspension",
            Self::Tier(_) => "tier",
            Self::Policy => "policy",
            Self::Schema(_) => "schema",
            Self::Tile => "tiles",
            Self::Pass(_) => "time",
            Self::Fail(_) => "failed write",
            Self::Restart => "restart",
            Self::Kill => "kill",
        }
    }
}

/// The life of a vault.
pub fn events() -> impl Strategy<Value = Vec<Event>> {
    let store = (0..FIELDS.len(), 0..5_usize, 0..=SUBJECTS);
    let subject = || 1..=SUBJECTS;
    let values = prop_oneof![
        10 => store.prop_map(|(field, value, subject)| Event::Store { field, value, subject }),
        3 => any::<usize>().prop_map(Event::Read),
        1 => any::<usize>().prop_map(Event::Match),
        1 => any::<usize>().prop_map(Event::Lookup),
        3 => any::<usize>().prop_map(Event::Replace),
        3 => any::<usize>().prop_map(Event::Delete),
    ];
    let subjects = prop_oneof![
        1 => subject().prop_map(Event::Label),
        3 => (subject(), any::<bool>()).prop_map(|(subject, grant)| Event::Consent { subject, grant }),
        2 => (subject(), 0..=FIELDS.len()).prop_map(|(subject, field)| Event::Hold { subject, field }),
        1 => (subject(), 1..3_u32).prop_map(|(subject, number)| Event::Lift { subject, number }),
        2 => (subject(), 0..3_u64).prop_map(|(subject, days)| Event::Erase { subject, hours: days * 24 }),
        1 => subject().prop_map(Event::UndoErasure),
        2 => (1..6_usize).prop_map(Event::Clear),
    ];
    let keys = prop_oneof![
        3 => any::<usize>().prop_map(Event::Rotate),
        1 => any::<usize>().prop_map(Event::RotateIndex),
        2 => any::<usize>().prop_map(Event::Destroy),
        7 => (0..JOBS.len(), 1..9_usize).prop_map(|(kind, entries)| Event::Job { kind, entries }),
    ];
    let rules = prop_oneof![
        any::<bool>().prop_map(Event::Freeze),
        any::<bool>().prop_map(Event::Suspend),
        (0..3_usize).prop_map(Event::Tier),
        Just(Event::Policy),
        any::<bool>().prop_map(Event::Schema),
    ];
    let machine = prop_oneof![
        1 => Just(Event::Tile),
        1 => (1..200_000_u64).prop_map(Event::Pass),
        2 => (0..FATES.len()).prop_map(Event::Fail),
        1 => Just(Event::Restart),
        1 => Just(Event::Kill),
    ];
    let event = prop_oneof![20 => values, 10 => subjects, 12 => keys, 5 => rules, 6 => machine];
    proptest::collection::vec(event, 5..50)
}
