//! Rows that are not what the ledger has at their place: each is what the ledger has elsewhere (moved, or a copy), or something else.
//!
//! A recorded row has a salt, so one whose hash is that of another row is that row, and nothing else can be.

use std::collections::HashMap;
use std::hash::Hash;

use strongroom_ids::{RowId, SubjectHandle};
use strongroom_storage::Store;

use super::Check;
use super::finding::{Fault, Finding, Kind, LeafRef, Place};
use super::history::{Found, History, Mark};

/// A row that is not what the ledger has at its place, or of which the ledger has nothing there.
pub(super) struct Stray<I> {
    pub at: I,
    pub hash: [u8; 32],
    /// The version that it says it is, of a value that can be read.
    pub version: Option<u32>,
}

/// What the ledger has of a row.
pub(super) struct Recorded<'h> {
    leaf: u64,
    /// Of a value.
    version: Option<u32>,
    found: &'h Mark,
}

/// Numbers by which rows of one kind are named.
pub(super) trait Numbered: Copy + Eq + Hash {
    const KIND: Kind;
    /// What such a row is called, for people.
    const NAME: &'static str;
    fn place(self) -> Place;
    fn recorded(self, history: &History) -> Option<Recorded<'_>>;
    fn hashes(history: &History) -> impl Iterator<Item = (Self, [u8; 32])>;
}

impl Numbered for RowId {
    const KIND: Kind = Kind::Value;
    const NAME: &'static str = "value";

    fn place(self) -> Place {
        Place::Row(self)
    }

    fn recorded(self, history: &History) -> Option<Recorded<'_>> {
        let value = history.values.get(&self)?;
        Some(Recorded { leaf: value.leaf, version: Some(value.version), found: &value.found })
    }

    fn hashes(history: &History) -> impl Iterator<Item = (Self, [u8; 32])> {
        history.values.iter().map(|(row, value)| (*row, value.hash))
    }
}

impl Numbered for SubjectHandle {
    const KIND: Kind = Kind::Subject;
    const NAME: &'static str = "subject";

    fn place(self) -> Place {
        Place::Subject(self)
    }

    fn recorded(self, history: &History) -> Option<Recorded<'_>> {
        let subject = history.subjects.get(&self)?;
        Some(Recorded { leaf: subject.leaf, version: None, found: &subject.found })
    }

    fn hashes(history: &History) -> impl Iterator<Item = (Self, [u8; 32])> {
        history.subjects.iter().map(|(handle, subject)| (*handle, subject.hash))
    }
}

impl<S: Store> Check<'_, S> {
    /// Keeps strays until all rows are looked at; those that can't be listed any more are counted only.
    pub(super) fn keep_strays<I: Numbered>(
        &mut self,
        history: &History,
        strays: &mut Vec<Stray<I>>,
        more: Vec<Stray<I>>,
    ) {
        for stray in more {
            if strays.len() < self.findings.room() {
                strays.push(stray);
            } else {
                let (fault, _) = no_copy::<I>(&stray, stray.at.recorded(history).as_ref());
                self.findings.leave_out(I::KIND, fault);
            }
        }
    }

    /// Names strays. What was found of all other rows must be noted. If not all could be looked at, one that was not found may
    /// stand where it should, so what stands elsewhere is called a copy.
    pub(super) fn strays<I: Numbered>(&mut self, history: &History, strays: &[Stray<I>], all_looked_at: bool) {
        if strays.is_empty() {
            return;
        }
        let mut owners: HashMap<[u8; 32], Option<I>> = strays.iter().map(|stray| (stray.hash, None)).collect();
        for (row, hash) in I::hashes(history) {
            if let Some(owner) = owners.get_mut(&hash) {
                *owner = Some(row);
            }
        }
        let owner = |stray: &Stray<I>| owners.get(&stray.hash).copied().flatten();
        // Where each that does not stand in its own place does: the first is the row, any other a copy.
        let mut moved: HashMap<I, I> = HashMap::new();
        for (stray, owner) in strays.iter().filter_map(|stray| Some((stray, owner(stray)?))) {
            let is_away = |found: Found| !found.is_good() && (all_looked_at || found != Found::Not);
            if owner.recorded(history).is_some_and(|row| is_away(row.found.get())) {
                moved.entry(owner).or_insert(stray.at);
            }
        }
        for stray in strays {
            let here = stray.at.recorded(history);
            let from = owner(stray).and_then(|owner| Some((owner, owner.recorded(history)?)));
            match from {
                Some((owner, row)) if moved.get(&owner) == Some(&stray.at) => {
                    // So it is not missing.
                    row.found.set(Found::Wrong);
                    let what = format!("it stands at {}, and leaf {} records it here", stray.at.place(), row.leaf);
                    self.stray(Fault::Moved, owner, Some(&row), Some(stray.at), what);
                    if let Some(here) = here.filter(|_| !moved.contains_key(&stray.at)) {
                        let what = format!("{} stands here, and not what leaf {} records", owner.place(), here.leaf);
                        self.stray(Fault::Changed, stray.at, Some(&here), Some(owner), what);
                    }
                }
                Some((owner, row)) => match &here {
                    Some(here) => {
                        let what =
                            format!("a copy of {} stands here, and not what leaf {} records", owner.place(), here.leaf);
                        self.stray(Fault::Changed, stray.at, Some(here), Some(owner), what);
                    }
                    None => {
                        let what =
                            format!("it is a copy of {}, which leaf {} records there only", owner.place(), row.leaf);
                        self.stray(Fault::Added, stray.at, Some(&row), Some(owner), what);
                    }
                },
                None => {
                    if self.findings.room() > 0 {
                        self.strange.insert(stray.hash, (I::KIND, stray.at.place()));
                    }
                    let (fault, what) = no_copy::<I>(stray, here.as_ref());
                    self.stray(fault, stray.at, here.as_ref(), None, what);
                }
            }
        }
    }

    fn stray<I: Numbered>(
        &mut self,
        fault: Fault,
        at: I,
        recorded: Option<&Recorded<'_>>,
        elsewhere: Option<I>,
        what: String,
    ) {
        let leaf = recorded.map(|recorded| LeafRef { log: self.name.clone(), index: recorded.leaf });
        let (place, elsewhere) = (at.place(), elsewhere.map(Numbered::place));
        self.findings.add(Finding { tenant: self.name.clone(), kind: I::KIND, fault, place, leaf, elsewhere, what });
    }
}

/// What is said of a stray that is no row of the ledger.
fn no_copy<I: Numbered>(stray: &Stray<I>, here: Option<&Recorded<'_>>) -> (Fault, String) {
    let Some(Recorded { leaf, version, .. }) = here else {
        return (Fault::Added, format!("the ledger has no such {}", I::NAME));
    };
    match (stray.version, version) {
        (Some(older), Some(version)) if older < *version => {
            (Fault::RolledBack, format!("it was put back to version {older}; leaf {leaf} records version {version}"))
        }
        (_, Some(version)) => (Fault::Changed, format!("it is not version {version} as leaf {leaf} records it")),
        (_, None) => (Fault::Changed, format!("its record is not the one that leaf {leaf} records")),
    }
}
