//! The index of each log's leaves: by whom, about whom, what and how decided a leaf is, so that a question about a few of many
//! leaves is answered without a look at all of them.
//!
//! Like tiles it follows the leaves in the background, never in a commit, and each step is one commit with how far it has
//! come: a crash costs a step, or the block that was begun, and a row that is written twice is the same row. Each row follows
//! from its 256 leaves alone and is under no key: it says less than the leaves beside it, and a log whose tenant is locked or
//! gone keeps its own.
//!
//! Rows that somebody removes would hide leaves from whoever asks by the index. So nothing is signed that came by it; an
//! export that looks at every leaf holds the index against what it finds; and blocks are made anew and held against their
//! rows while the vault runs: the newest every few seconds, and all within about a day (`turns.rs`). Until then a removed row
//! hides what it led to. Rows that somebody adds only cost a look at a leaf.

mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use strongroom_ids::TenantNo;
use strongroom_keys as keys;
use strongroom_ledger::terms::{self, Term};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{BLOCK, BlockRow};
use strongroom_storage::{Family, Mutation, Store, StoreError};

use crate::archive::held;
use crate::error::Error;
use crate::housekeeping::in_turn;
use crate::leaves;
use crate::pages::PAGE;
use crate::vault::Vault;
use turns::Turns;

/// Blocks that are taken in one commit, at most. Callers' commits wait for it.
const STEP: u64 = 4;
/// Rows that are written in one commit, at most: a few milliseconds. A block of large requests has more, and takes a step for
/// each of them, of several rounds if need be.
const ROWS: usize = 2_048;
/// Rows that are looked up at once.
const LOOKED_UP: usize = 1_024;
/// Blocks that may wait to be made anew; whoever finds more finds them again.
const SUSPECTS: usize = 1_024;

// A block is read as one page.
const _: () = assert!(PAGE as u64 == BLOCK);

/// What is known of the indexes while the vault runs.
#[derive(Default)]
pub(crate) struct Indexing {
    /// Blocks of which a row is missing, by their first leaf.
    suspects: Mutex<BTreeSet<(TenantNo, u64)>>,
    /// Which blocks are held against their rows next.
    turns: Mutex<Turns>,
    /// Of each log the block of which the first rows are written already, and the last of them. A block that is forgotten
    /// is begun anew.
    begun: Mutex<HashMap<TenantNo, (u64, Term)>>,
}

impl Indexing {
    /// A leaf is not found by what it should be found by.
    pub fn suspect(&self, log: TenantNo, leaf: u64) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < SUSPECTS && suspects.insert((log, leaf - leaf % BLOCK)) {
            tracing::warn!(log = log.0, leaf, "a row of the index of leaves is missing: the block is made anew");
        }
    }

    /// Takes them away.
    pub fn suspects(&self) -> BTreeSet<(TenantNo, u64)> {
        std::mem::take(&mut self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The rows of a block that are not written yet.
    fn left_of(&self, log: TenantNo, first: u64, rows: Rows) -> Vec<(Term, BlockRow)> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).get(&log).copied();
        let last = begun.filter(|(block, _)| *block == first).map(|(_, last)| last);
        rows.into_iter().filter(|(term, _)| last.is_none_or(|last| *term > last)).collect()
    }

    /// The rows of a block are written up to a term, or all of those before the next block.
    fn written(&self, log: TenantNo, begun: Option<(u64, Term)>) {
        let mut all = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match begun {
            Some(begun) => {
                all.insert(log, begun);
            }
            None => {
                all.remove(&log);
            }
        }
    }
}

/// The rows of a block: each term that its leaves have, and which have it.
pub(crate) type Rows = BTreeMap<Term, BlockRow>;

/// Makes the rows of the block that begins at `first`, of which all leaves are there.
pub(crate) async fn rows_of<S: Store>(store: &S, log: TenantNo, first: u64) -> Result<Rows, Error> {
    let leaves = leaves::page(store, log, first, first + BLOCK).await?;
    if leaves.len() as u64 != BLOCK {
        return Err(Error::DataLoss("the ledger: a leaf is missing"));
    }
    let mut rows = Rows::new();
    for (at, line) in (0..=u8::MAX).zip(leaves) {
        for term in terms::of_leaf(&line).map_err(|_| Error::DataLoss("the ledger: a leaf can't be read"))? {
            rows.entry(term).or_default().add(at);
        }
    }
    Ok(rows)
}

/// The rows of a block that do not stand in the store as they should, and what stands there.
pub(crate) async fn wrong_rows<S: Store>(
    store: &S,
    log: TenantNo,
    first: u64,
    rows: &Rows,
) -> Result<Vec<((Term, BlockRow), Option<Bytes>)>, StoreError> {
    let rows: Vec<(Term, BlockRow)> = rows.iter().map(|(term, row)| (*term, *row)).collect();
    let mut wrong = Vec::new();
    for some in rows.chunks(LOOKED_UP) {
        let keys = some.iter().map(|(term, _)| place::leaf_index(log, &term.to_bytes(), first)).collect();
        let stored = store.multi_get(Family::LeafIndex, keys).await?;
        let held = some.iter().copied().zip(stored);
        wrong.extend(held.filter(|((_, row), stored)| stored.as_ref().is_none_or(|stored| **stored != row.encode())));
    }
    Ok(wrong)
}

/// How many leaves of a log are in its index, of `size` that there are. None if that can't be read or can't be: then it is made
/// anew, which is no loss.
pub(crate) async fn indexed<S: Store>(store: &S, log: TenantNo, size: u64) -> Result<u64, StoreError> {
    let row = store.get(Family::LeafIndex, place::indexed(log)).await?;
    let leaves = row.and_then(|row| place::decode_indexed(&row).ok());
    Ok(leaves.filter(|leaves| *leaves <= size && leaves.is_multiple_of(BLOCK)).unwrap_or(0))
}

fn puts(log: TenantNo, first: u64, rows: &[(Term, BlockRow)]) -> impl Iterator<Item = Mutation> {
    rows.iter().map(move |(term, row)| {
        Mutation::Put(Family::LeafIndex, place::leaf_index(log, &term.to_bytes(), first), row.encode())
    })
}

impl<S: Store> Vault<S> {
    /// How many leaves of a tenant's log are in its index, for who measures how it follows.
    pub async fn indexed_leaves(&self, tenant: TenantNo) -> Result<u64, Error> {
        let size = self.committer.head(tenant).map_or(0, |head| head.size);
        Ok(indexed(&*self.store, tenant, size).await?)
    }

    /// Takes leaves that came since into the index of every log, in so many steps at the most, and beginning with the log after
    /// one. Answers after which to go on, if there may be more to do. On a disk that is nearly full nothing is done.
    pub(crate) async fn index_logs(&self, after: Option<TenantNo>, steps: u32) -> Result<Option<TenantNo>, Error> {
        let mut left = steps;
        for log in in_turn(self.tenants.numbers(), after) {
            if self.nearly_full.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let Some(head) = self.committer.head(log) else { continue };
            match self.index_leaves(log, head.size, left).await {
                Ok(steps) => left = steps,
                // What is damaged there is for those to be told who ask for it. The others' logs don't wait for it.
                Err(Error::DataLoss(place)) => {
                    tracing::warn!(log = log.0, place, "a log is not taken into the index of leaves");
                }
                Err(error) => return Err(error),
            }
            if left == 0 {
                return Ok(Some(log));
            }
        }
        Ok(None)
    }

    /// Takes the blocks of a log that are complete into its index, or those of so many steps. Answers how many are left.
    async fn index_leaves(&self, log: TenantNo, size: u64, steps: u32) -> Result<u32, Error> {
        let mut left = steps;
        // What leads to archived leaves is not needed.
        let mut next = indexed(&*self.store, log, size).await?.max(held::end(&*self.store, log).await?);
        let mut begun = next;
        let mut mutations = Vec::new();
        while left > 0 && next + BLOCK <= size {
            let mut rows = self.indexing.left_of(log, next, rows_of(&*self.store, log, next).await?);
            if !mutations.is_empty() && mutations.len() + rows.len() > ROWS {
                self.write_index(log, next, std::mem::take(&mut mutations)).await?;
                left -= 1;
                begun = next;
            }
            while left > 0 && rows.len() > ROWS {
                let rest = rows.split_off(ROWS);
                self.commit_unguarded(puts(log, next, &rows).collect(), vec![]).await?;
                self.indexing.written(log, rows.last().map(|(term, _)| (next, *term)));
                left -= 1;
                rows = rest;
            }
            if left == 0 {
                return Ok(0);
            }
            mutations.extend(puts(log, next, &rows));
            next += BLOCK;
            if next - begun >= STEP * BLOCK {
                self.write_index(log, next, std::mem::take(&mut mutations)).await?;
                left -= 1;
                begun = next;
            }
            tokio::task::yield_now().await;
        }
        if next > begun {
            self.write_index(log, next, mutations).await?;
            left = left.saturating_sub(1);
        }
        Ok(left)
    }

    /// Writes the last rows before `next`, and with them that all leaves before it are in the index.
    async fn write_index(&self, log: TenantNo, next: u64, mut mutations: Vec<Mutation>) -> Result<(), Error> {
        mutations.push(Mutation::Put(Family::LeafIndex, place::indexed(log), place::encode_indexed(next)));
        self.commit_unguarded(mutations, vec![]).await?;
        self.indexing.written(log, None);
        Ok(())
    }

    /// Holds the next blocks against their rows, and those that somebody found wanting; writes what is missing or
    /// was changed.
    pub(crate) async fn mend_indexes(&self) -> Result<(), Error> {
        if self.nearly_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let suspects = self.indexing.suspects();
        for (log, first) in suspects.into_iter().chain(self.next_to_mend().await?) {
            match self.mend_index(log, first).await {
                // As above.
                Err(Error::DataLoss(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The blocks whose turn it is.
    async fn next_to_mend(&self) -> Result<BTreeSet<(TenantNo, u64)>, Error> {
        let mut blocks = BTreeMap::new();
        for log in self.tenants.numbers() {
            let Some(head) = self.committer.head(log) else { continue };
            blocks.insert(log, indexed(&*self.store, log, head.size).await? / BLOCK);
        }
        let drawn = u64::from_be_bytes(keys::random::<8>()?);
        let mut turns = self.indexing.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(turns.round(&blocks, |blocks| drawn % blocks))
    }

    async fn mend_index(&self, log: TenantNo, first: u64) -> Result<(), Error> {
        if first < held::end(&*self.store, log).await? {
            return Ok(());
        }
        let rows = rows_of(&*self.store, log, first).await?;
        let wrong = wrong_rows(&*self.store, log, first, &rows).await?;
        if wrong.is_empty() {
            return Ok(());
        }
        let rows = wrong.len();
        tracing::warn!(log = log.0, first, rows, "rows of the index of leaves were not there: made anew");
        let wrong: Vec<(Term, BlockRow)> = wrong.into_iter().map(|(row, _)| row).collect();
        for some in wrong.chunks(ROWS) {
            self.commit_unguarded(puts(log, first, some).collect(), vec![]).await?;
        }
        Ok(())
    }
}
