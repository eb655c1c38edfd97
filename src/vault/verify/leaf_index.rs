//! The index of a log's leaves: each block is made anew and held against the rows that are there.

use strongroom_ledger::terms::{self, Term};
use strongroom_storage::rows::{BLOCK, BlockRow};
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::Check;
use super::finding::{Fault, Kind, Place};
use crate::error::Error;
use crate::leaf_index::{Rows, rows_of, wrong_rows};
use crate::pages::Pages;

impl<S: Store> Check<'_, S> {
    /// All of the index of the tenant's log.
    pub async fn leaf_index(&mut self) -> Result<(), StoreError> {
        let leaves = self.lane.as_ref().map_or(0, |lane| lane.size);
        let row = self.store.get(Family::LeafIndex, place::indexed(self.number)).await?;
        let end = match row.map(|row| place::decode_indexed(&row)) {
            None => 0,
            Some(Ok(end)) if end <= leaves && end.is_multiple_of(BLOCK) => end,
            Some(_) => {
                let what = "how many leaves are in the index can't be read, or can't be";
                self.wrong_row(Fault::Changed, place::indexed(self.number), what);
                return Ok(());
            }
        };
        // What leads to archived leaves is gone, or about to be removed.
        let (archived, removed) = (self.archived.end, self.archived.removed);
        let end = end.max(archived);
        let mut there = 0_u64;
        let mut first = archived;
        while first < end {
            // What is wrong with a leaf was named.
            let Some(rows) = self.rows_of(first).await? else { return Ok(()) };
            there += self.block(first, &rows).await?;
            first += BLOCK;
        }
        // The vault may have been stopped while it wrote the rows of the next block.
        let begun = match end + BLOCK <= leaves {
            true => self.rows_of(end).await?.unwrap_or_default(),
            false => Rows::new(),
        };
        let mut found = 0_u64;
        let mut pages = Pages::of_tenant(Family::LeafIndex, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, row) in &page {
                match place::decode_leaf_index(key) {
                    Ok(None) => {}
                    Ok(Some((_, first))) if first < archived => {
                        if removed {
                            self.wrong_row(Fault::Added, key.to_vec(), "the leaves that it leads to are archived");
                        }
                    }
                    Ok(Some((_, first))) if first < end => found += 1,
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
    async fn rows_of(&mut self, first: u64) -> Result<Option<Rows>, StoreError> {
        match rows_of(self.store, self.number, first).await {
            Ok(rows) => Ok(Some(rows)),
            Err(Error::DataLoss(_)) => Ok(None),
            Err(_) => Err(StoreError::Io { doing: "read", what: "the leaves of a block".to_owned() }),
        }
    }

    /// Holds a block against its rows. Answers how many are there.
    async fn block(&mut self, first: u64, rows: &Rows) -> Result<u64, StoreError> {
        let mut there = rows.len() as u64;
        for ((term, _), stored) in wrong_rows(self.store, self.number, first, rows).await? {
            let key = place::leaf_index(self.number, &term.to_bytes(), first);
            if stored.is_some() {
                self.wrong_row(Fault::Changed, key, "it names other leaves than have the term");
            } else {
                there -= 1;
                self.wrong_row(Fault::Missing, key, "leaves have the term and are not found by it");
            }
        }
        Ok(there)
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
