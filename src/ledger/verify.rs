//! Verification of an export: lines, a checkpoint and a public key are all it takes, no vault.
//!
//! The lines are read once, in bounded memory, and looked at by as many threads as there are processors (`ahead`); what
//! is found is the same for any number of them. Whatever can be seen in a line itself (its form, its index, its time,
//! its part of a request) is named by its line. A change that keeps all that in order shows in the root of the tree,
//! which says that something is wrong and not where: the hashes of all leaves say it, which an export has beside it ([`place`]), and
//! older checkpoints of the same log narrow it.
//!
//! Who keeps a key that was rotated since follows the log: once all lines are read, what a known key has signed vouches for
//! the leaves that name further keys, and those for other checkpoints (`log_keys`).

mod ahead;
mod approvals;
mod excerpt;
mod excerpt_fault;
mod fault;
mod lines;
mod outline;
mod parts;

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::checkpoint::{self, Checkpoint};
use crate::error::LedgerError;
use crate::frontier::Frontier;
use crate::log_keys::{Trust, TrustedKey};
use crate::timestamp::Timestamp;
use ahead::Source;
pub use approvals::ApprovalError;
use approvals::Approvals;
pub use excerpt::{Excerpt, Numbered, Pieces, place, verify_excerpt};
pub use excerpt_fault::ExcerptFault;
pub use fault::{Fault, VerifyError};
use outline::Outline;
use parts::Parts;

/// So many actions, and decisions of one action, are counted by name; a forged export must not fill the memory.
const MAX_COUNTED: usize = 256;
/// Under this name the rest is counted.
const OTHERS: &str = "\u{2026}";

/// What holds: these leaves, all of them and nothing else, are what the log's key has signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The log's name.
    pub origin: String,
    /// How many leaves.
    pub leaves: u64,
    /// When the first was committed.
    pub first_time: Option<Timestamp>,
    /// When the last was committed.
    pub last_time: Option<Timestamp>,
    /// The root of the tree over them.
    pub root: [u8; 32],
    /// How many requests, by action and decision. A request in several parts counts once.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// How many approvals officers gave; each is signed by a key that the log enrolled.
    pub approvals: u64,
    /// The checkpoints, by their sizes, and which keys prove each: those that signed it and are known, or are named by the log.
    pub proofs: Vec<Proof>,
    /// The log's keys that were given, and those that it names.
    pub keys: Vec<TrustedKey>,
}

/// Who proves a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// How many leaves it has.
    pub size: u64,
    /// The verifier keys that signed it, of those that are trusted.
    pub by: Vec<String>,
}

/// Verifies the export of a whole log against its checkpoint.
///
/// `lines` are the leaves from 0 to the checkpoint's size, one a line; `keys` are verifier keys, one of which must be
/// the log's own.
pub fn verify_export(lines: impl BufRead, checkpoint: &str, keys: &[String]) -> Result<Report, VerifyError> {
    verify_export_since(lines, checkpoint, &[], keys)
}

/// The same with older checkpoints of the same log, in any order: each must hold for the leaves that it counts, and if
/// something was changed, they say between which leaves.
pub fn verify_export_since(
    lines: impl BufRead,
    checkpoint: &str,
    older: &[String],
    keys: &[String],
) -> Result<Report, VerifyError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    verify_export_on(threads, lines, checkpoint, older, keys)
}

/// The same by so many threads beside the caller's; with one, all is done on the caller's.
pub fn verify_export_on(
    threads: usize,
    lines: impl BufRead,
    checkpoint: &str,
    older: &[String],
    keys: &[String],
) -> Result<Report, VerifyError> {
    let signed = signed(checkpoint, older, keys).map_err(|fault| VerifyError { proven: 0, fault })?;
    let mut walk = Walk::new(signed, keys);
    match ahead::walked(lines, (threads, ahead::PIECE), |lines| walk.run(lines)).and_then(|()| walk.prove()) {
        Ok(()) => Ok(walk.report),
        Err(fault) => Err(VerifyError { proven: walk.proven, fault }),
    }
}

/// A checkpoint that the lines are held against.
struct Signed<'n> {
    note: &'n str,
    /// Which of the older ones it is, from 1; none: the newest.
    older: Option<usize>,
    said: Checkpoint,
    /// Whether a key that was given has signed it; else only the log itself can say whose key it was.
    proven: bool,
    /// Whether the lines give its root, once there were as many.
    fits: bool,
}

impl<'n> Signed<'n> {
    fn read(note: &'n str, older: Option<usize>, keys: &[&str]) -> Result<Self, Fault> {
        let fault = |error| Fault::Checkpoint { older, error };
        let (said, proven) = match checkpoint::verify(note, keys) {
            Ok(said) => (said, true),
            Err(LedgerError::Unsigned) => (checkpoint::claimed(note).map_err(fault)?, false),
            Err(error) => return Err(fault(error)),
        };
        Ok(Self { note, older, said, proven, fits: false })
    }

    fn unsigned(&self, error: LedgerError) -> Fault {
        Fault::Checkpoint { older: self.older, error }
    }
}

/// The checkpoints, read and in the order of their sizes; the newest is the last.
fn signed<'n>(checkpoint: &'n str, older: &'n [String], keys: &[String]) -> Result<Vec<Signed<'n>>, Fault> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let newest = Signed::read(checkpoint, None, &keys)?;
    let mut signed = Vec::with_capacity(older.len().saturating_add(1));
    for (place, note) in (1..).zip(older) {
        let one = Signed::read(note, Some(place), &keys)?;
        if one.said.origin != newest.said.origin {
            return Err(Fault::OtherLog { older: place, expected: newest.said.origin, got: one.said.origin });
        }
        if one.said.size > newest.said.size {
            return Err(Fault::NotOlder { older: place, size: one.said.size, newest: newest.said.size });
        }
        signed.push(one);
    }
    signed.push(newest);
    if let Some(last) = signed.last().filter(|_| signed.iter().all(|one| !one.proven)) {
        // Nobody vouches for any leaf, so none can name a key.
        return Err(last.unsigned(LedgerError::Unsigned));
    }
    signed.sort_by_key(|one| one.said.size);
    let proven: Vec<&Checkpoint> = signed.iter().filter(|one| one.proven).map(|one| &one.said).collect();
    for (one, next) in proven.iter().zip(proven.iter().skip(1)) {
        if one.size == next.size && one.root != next.root {
            return Err(Fault::Fork { size: one.size });
        }
    }
    Ok(signed)
}

/// The way through the lines.
struct Walk<'n> {
    signed: Vec<Signed<'n>>,
    /// How many of them have been held against the lines.
    compared: usize,
    newest: u64,
    trust: Trust,
    frontier: Frontier,
    parts: Parts,
    approvals: Approvals,
    proven: u64,
    report: Report,
}

impl<'n> Walk<'n> {
    fn new(signed: Vec<Signed<'n>>, keys: &[String]) -> Self {
        let last = signed.last().map(|last| (last.said.origin.clone(), last.said.size));
        let (origin, newest) = last.unwrap_or_default();
        let trust = Trust::new(&origin, keys.iter().map(String::as_str));
        let frontier = Frontier::new();
        let report = Report {
            origin,
            leaves: 0,
            first_time: None,
            last_time: None,
            root: frontier.root(),
            counts: BTreeMap::new(),
            approvals: 0,
            proofs: vec![],
            keys: vec![],
        };
        let (parts, approvals) = (Parts::default(), Approvals::of(&report.origin));
        Self { signed, compared: 0, newest, trust, frontier, parts, approvals, proven: 0, report }
    }

    fn run(&mut self, lines: &mut impl Source) -> Result<(), Fault> {
        self.check_roots()?;
        while lines.advance()? {
            let line = lines.number();
            if self.frontier.size() == self.newest {
                return Err(Fault::TooMany { line, size: self.newest });
            }
            let looked = lines.looked();
            let seen = match &looked.seen {
                Ok(seen) => seen,
                Err(error) => return Err(self.unreadable(error.clone(), &*lines)),
            };
            let outline = seen.outline();
            if outline.index != self.frontier.size() {
                return Err(self.out_of_sequence(outline.index, lines));
            }
            self.check_time(&outline, line)?;
            self.parts.step(&outline, line)?;
            // Of a request for values that no approval has to do with, all that is asked stands in its outline; none of them
            // speaks of the log's keys.
            if let Some(leaf) = seen.leaf() {
                self.report.approvals += u64::from(self.approvals.step(leaf, line)?);
                self.trust.hear(leaf);
            }
            self.count(&outline);
            self.frontier.push_hash(looked.hash);
            self.check_roots()?;
        }
        let size = self.frontier.size();
        if size < self.newest {
            return Err(Fault::TooFew { size, newest: self.newest });
        }
        self.parts.end(size)
    }

    /// Compares the root with every checkpoint of just this size.
    fn check_roots(&mut self) -> Result<(), Fault> {
        let size = self.frontier.size();
        while let Some(one) = self.signed.get_mut(self.compared).filter(|one| one.said.size == size) {
            self.compared += 1;
            self.report.root = self.frontier.root();
            one.fits = one.said.root == self.report.root;
            match (one.proven, one.fits) {
                (true, false) => return Err(Fault::Root { from: self.proven, to: size }),
                (true, true) => self.proven = size,
                // It says nothing until it is known whose word it is.
                (false, _) => {}
            }
        }
        Ok(())
    }

    /// Finds out who proves each checkpoint: what is proven vouches for the leaves that name further keys.
    fn prove(&mut self) -> Result<(), Fault> {
        let mut open: Vec<usize> = (0..self.signed.len()).collect();
        let mut proofs: Vec<Proof> = Vec::with_capacity(open.len());
        loop {
            let (before, mut unsigned) = (open.len(), None);
            let mut left = Vec::new();
            for at in open {
                let Some(one) = self.signed.get(at) else { continue };
                match self.trust.prove(one.note, one.said.size) {
                    Ok(by) if one.fits => {
                        self.trust.believe(one.said.size);
                        self.proven = self.proven.max(one.said.size);
                        proofs.push(Proof { size: one.said.size, by });
                    }
                    Ok(_) => {
                        let to = one.said.size;
                        let from = proofs.iter().map(|proof| proof.size).filter(|size| *size < to).max();
                        return Err(Fault::Root { from: from.unwrap_or(0), to });
                    }
                    Err(error @ (LedgerError::Unsigned | LedgerError::UnsignedSince { .. })) => {
                        unsigned = Some(one.unsigned(error));
                        left.push(at);
                    }
                    Err(error) => return Err(one.unsigned(error)),
                }
            }
            open = left;
            match unsigned {
                None => break,
                Some(fault) if open.len() == before => return Err(fault),
                Some(_) => {}
            }
        }
        proofs.sort_by_key(|proof| proof.size);
        self.report.proofs = proofs;
        self.report.keys = self.trust.trusted();
        Ok(())
    }

    fn check_time(&mut self, leaf: &Outline<'_>, line: u64) -> Result<(), Fault> {
        match self.report.last_time.replace(leaf.time) {
            Some(before) if leaf.time < before => Err(Fault::TimeBackwards { line, time: leaf.time, before }),
            Some(_) => Ok(()),
            None => {
                self.report.first_time = Some(leaf.time);
                Ok(())
            }
        }
    }

    fn count(&mut self, leaf: &Outline<'_>) {
        self.report.leaves += 1;
        if leaf.part.is_none_or(|part| part.which == 1) {
            at(&mut self.report.counts, leaf.action, |decisions| at(decisions, leaf.decision, |count| *count += 1));
        }
    }

    fn unreadable(&self, error: LedgerError, lines: &impl Source) -> Fault {
        let (line, index) = (lines.number(), self.frontier.size());
        if !lines.whole() {
            Fault::Truncated { line, index }
        } else if lines.text().last() == Some(&b'\r') {
            Fault::Converted { line }
        } else {
            Fault::NotCanonical { line, index, error }
        }
    }

    /// Says of a leaf that is not the next one whether the next one stands further on.
    fn out_of_sequence(&self, got: u64, lines: &mut impl Source) -> Fault {
        let (line, expected) = (lines.number(), self.frontier.size());
        if got < expected {
            return Fault::Repeated { line, expected, got };
        }
        match lines.find(expected) {
            Some(at) => Fault::Moved { line, expected, got, at },
            None if expected == 0 => Fault::StartsLate { got },
            None => Fault::Missing { line, expected, got },
        }
    }
}

/// Changes what is counted under a name, or under the common one when there are too many names. A name that is known takes
/// no memory.
fn at<V: Default>(map: &mut BTreeMap<String, V>, name: &str, change: impl FnOnce(&mut V)) {
    match map.get_mut(name) {
        Some(counted) => change(counted),
        None => {
            let name = if map.len() < MAX_COUNTED { name } else { OTHERS };
            change(map.entry(name.to_owned()).or_default());
        }
    }
}

#[cfg(test)]
mod plain;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
