//! The index of a log's leaves: each block is made anew, from its leaves as the log is gone along, and held against the rows that
//! are there.

use strongroom_ledger::terms::{self, Term};
use strongroom_storage::rows::{BLOCK, BlockRow};
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::Check;
use super::finding::{Fault, Findings, Kind, Place};
use crate::error::Error;
use crate::leaf_index::{Rows, rows_of, wrong_rows};
use crate::pages::Pages;

/// How far an index goes.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// Leaves that are archived, in whole blocks: what leads to them is gone, or about to be removed.
    start: u64,
    /// Leaves that are in it or archived, in whole blocks.
    end: u64,
    /// Leaves that the log has.
    leaves: u64,
}

/// What is found of an index on the way along its log.
pub(super) struct Index {
    /// How far it goes, or what is wrong with how far it says that it goes.
    extent: Result<Extent, Wrong>,
    /// The block that comes next, by its first leaf.
    next: u64,
    /// Whether all leaves of the blocks until there could be read. What is wrong with a leaf is named with the log; its block, and
    /// what comes after it, can't be made anew.
    whole: bool,
    /// How many rows are as they must be, or have a finding of their own.
    there: u64,
    /// The rows of the first block that is not in the index yet.
    begun: Rows,
    findings: Findings,
}

/// Why an index can't be looked at.
enum Wrong {
    /// It does not say how far it goes.
    Extent,
    /// The store can't read it.
    Store(StoreError),
}

impl Index {
    /// How far it goes; nowhere if that can't be told.
    pub fn extent(&self) -> Extent {
        self.extent.as_ref().map_or(Extent { start: 0, end: 0, leaves: 0 }, |extent| *extent)
    }

    /// Takes the next block of the log that has leaves.
    pub fn take(&mut self, block: Held) {
        let Some(first) = block.first else { return };
        let Extent { start, end, .. } = self.extent();
        if first < start {
            return;
        }
        if first < end {
            let Some(rows) = block.rows.filter(|_| self.whole && first == self.next) else {
                self.whole = false;
                return;
            };
            self.next += BLOCK;
            self.findings.append(block.findings);
            match block.wrong {
                None => self.there += rows.len() as u64 - block.missing,
                Some(error) if self.extent.is_ok() => self.extent = Err(Wrong::Store(error)),
                Some(_) => {}
            }
        } else if first == end {
            self.begun = block.rows.unwrap_or_default();
        }
    }
}

/// A block of leaves, while they are read.
pub(super) struct Block {
    first: Option<u64>,
    /// The leaf that comes next, and the rows of those before it; none if one is missing or can't be read, or if nothing is
    /// held against them.
    rows: Option<(u64, Rows)>,
    extent: Extent,
}

impl Block {
    /// One that begins at a leaf, of which nothing was read yet.
    pub fn new(first: Option<u64>, extent: Extent) -> Self {
        let held = extent.start..=extent.end;
        let rows = first.filter(|first| held.contains(first) && first.saturating_add(BLOCK) <= extent.leaves);
        Self { first, rows: rows.map(|first| (first, Rows::new())), extent }
    }

    /// Adds the next leaf.
    pub fn add(&mut self, index: u64, line: &[u8]) {
        let Some((first, (next, rows))) = self.first.zip(self.rows.as_mut()) else { return };
        let terms = terms::of_leaf(line).ok().filter(|_| index == *next);
        // As it is less than a block beyond the first.
        let at = u8::try_from(*next - first);
        let (Some(terms), Ok(at)) = (terms, at) else {
            self.rows = None;
            return;
        };
        *next += 1;
        for term in terms {
            rows.entry(term).or_default().add(at);
        }
    }
}

/// A block that was held against the rows of the index.
pub(super) struct Held {
    first: Option<u64>,
    /// The rows that it must have; none if not all of its leaves are there and can be read.
    rows: Option<Rows>,
    /// How many of them are missing.
    missing: u64,
    findings: Findings,
    /// Why the index could not be read.
    wrong: Option<StoreError>,
}

impl<S: Store> Check<'_, S> {
    /// The index of a log that has so many leaves, before anything is read of it but how far it goes. What is archived of the log
    /// must be known.
    pub async fn index_of_leaves(&self, leaves: u64) -> Index {
        let start = self.archived.end;
        let row = self.store.get(Family::LeafIndex, place::indexed(self.number)).await;
        let extent = match row.map(|row| row.map(|row| place::decode_indexed(&row))) {
            Ok(None) => Ok(Extent { start, end: start, leaves }),
            Ok(Some(Ok(end))) if end <= leaves && end.is_multiple_of(BLOCK) => {
                Ok(Extent { start, end: end.max(start), leaves })
            }
            Ok(Some(_)) => Err(Wrong::Extent),
            Err(error) => Err(Wrong::Store(error)),
        };
        let findings = self.findings.none();
        Index { extent, next: start, whole: true, there: 0, begun: Rows::new(), findings }
    }

    /// Holds a block that was read against its rows in the index.
    pub async fn held(&self, block: Block) -> Held {
        let Block { first, rows, extent } = block;
        let rows = rows.zip(first).filter(|((next, _), first)| *next == first + BLOCK).map(|((_, rows), _)| rows);
        let mut held = Held { first, rows, missing: 0, findings: self.findings.none(), wrong: None };
        if let Some((first, rows)) = first.filter(|first| *first < extent.end).zip(held.rows.as_ref()) {
            let mut part = self.part();
            match part.block(first, rows).await {
                Ok(missing) => held.missing = missing,
                Err(error) => held.wrong = Some(error),
            }
            held.findings = part.findings;
        }
        held
    }

    /// What was found of the index on the way along the log, and what is in it that no leaf has.
    pub async fn leaf_index(&mut self, index: Index) -> Result<(), StoreError> {
        let Index { extent, next, whole, there, begun, findings } = index;
        self.findings.append(findings);
        let (archived, end) = match extent {
            Ok(Extent { start, end, .. }) => (start, end),
            Err(Wrong::Store(error)) => return Err(error),
            Err(Wrong::Extent) => {
                let what = "how many leaves are in the index can't be read, or can't be";
                self.wrong_row(Fault::Changed, place::indexed(self.number), what);
                return Ok(());
            }
        };
        if !whole || next < end {
            return Ok(());
        }
        let mut found = 0_u64;
        let mut pages = Pages::of_tenant(Family::LeafIndex, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, row) in &page {
                match place::decode_leaf_index(key) {
                    Ok(None) => {}
                    Ok(Some((_, first))) if first < archived => {
                        if self.archived.removed {
                            self.wrong_row(Fault::Added, key.to_vec(), "the leaves that it leads to are archived");
                        }
                    }
                    Ok(Some((_, first))) if first < end => found += 1,
                    // The vault may have been at it, or stopped while it wrote the rows of the next block.
                    Ok(Some((term, first))) => {
                        let own = begun.get(&Term::from_bytes(term)).filter(|_| first == end);
                        if own.is_none_or(|own| own.encode() != **row) {
                            self.wrong_row(Fault::Added, key.to_vec(), "the leaves have no such row yet");
                        }
                    }
                    Err(_) => self.unknown(key),
                }
            }
        }
        if found > there { self.too_many(end).await } else { Ok(()) }
    }

    /// The rows of a block; none if its leaves can't be read.
    async fn rows_of(&self, first: u64) -> Result<Option<Rows>, StoreError> {
        match rows_of(self.store, self.number, first).await {
            Ok(rows) => Ok(Some(rows)),
            Err(Error::DataLoss(_)) => Ok(None),
            Err(_) => Err(StoreError::Io { doing: "read", what: "the leaves of a block".to_owned() }),
        }
    }

    /// Holds a block against its rows. Answers how many are missing.
    async fn block(&mut self, first: u64, rows: &Rows) -> Result<u64, StoreError> {
        let mut missing = 0;
        for ((term, _), stored) in wrong_rows(self.store, self.number, first, rows).await? {
            let key = place::leaf_index(self.number, &term.to_bytes(), first);
            if stored.is_some() {
                self.wrong_row(Fault::Changed, key, "it names other leaves than have the term");
            } else {
                missing += 1;
                self.wrong_row(Fault::Missing, key, "leaves have the term and are not found by it");
            }
        }
        Ok(missing)
    }

    /// Names rows that no leaf has.
    async fn too_many(&mut self, end: u64) -> Result<(), StoreError> {
        // The block that was made last: rows that it has to be made for are few, or all is lost anyhow.
        let mut last: Option<(u64, Rows)> = None;
        let mut pages = Pages::of_tenant(Family::LeafIndex, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, row) in &page {
                let Ok(Some((term, first))) = place::decode_leaf_index(key) else { continue };
                let term = Term::from_bytes(term);
                if first >= end || first < self.archived.end || self.first_has(first, row, term).await? {
                    continue;
                }
                if last.as_ref().is_none_or(|(made, _)| *made != first) {
                    last = Some((first, self.rows_of(first).await?.unwrap_or_default()));
                }
                // One that names other leaves than have the term was named already.
                if !last.as_ref().is_some_and(|(_, rows)| rows.contains_key(&term)) {
                    self.wrong_row(Fault::Added, key.to_vec(), "no leaf of the block has the term");
                }
            }
        }
        Ok(())
    }

    /// Whether the first leaf that a row names has the term.
    async fn first_has(&self, first: u64, row: &[u8], term: Term) -> Result<bool, StoreError> {
        let Some(at) = BlockRow::decode(row).ok().and_then(|row| row.places().next()) else { return Ok(false) };
        let line = self.store.get(Family::Leaves, place::leaf(self.number, first + u64::from(at))).await?;
        Ok(line.and_then(|line| terms::of_leaf(&line).ok()).is_some_and(|terms| terms.contains(&term)))
    }

    fn wrong_row(&mut self, fault: Fault, key: Vec<u8>, what: &str) {
        self.found(Kind::LeafIndex, fault, Place::Key(key), what);
    }
}
