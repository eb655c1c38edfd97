//! What an index of leaves has for a filter: the leaves that may fit, in order, a window of the log at a time.

use std::collections::BTreeMap;

use strongroom_ids::TenantNo;
use strongroom_ledger::filter::Filter;
use strongroom_ledger::terms::{self, Term};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{BLOCK, BlockRow};
use strongroom_storage::{Family, Store};

use crate::error::Error;
use crate::leaf_index;
use crate::pages::{PAGE, Pages};

/// Leaves of a window: so many that few are needed, and so few that what is known of them is small.
pub(crate) const WINDOW: u64 = 1_024 * BLOCK;

/// What the index knows of a filter.
pub(super) struct Known {
    log: TenantNo,
    conditions: Vec<Vec<Term>>,
    /// Leaves from here on are not in the index.
    end: u64,
    /// The window that was looked up: the leaves before its end that may fit, and how many of them were taken.
    found: Vec<u64>,
    taken: usize,
    window: (u64, u64),
}

impl Known {
    /// None if the index does not help.
    pub async fn of<S: Store>(
        store: &S,
        log: TenantNo,
        size: u64,
        (first, end): (u64, u64),
        filter: &Filter,
    ) -> Result<Option<Self>, Error> {
        let conditions = terms::of_filter(filter);
        if conditions.is_empty() {
            return Ok(None);
        }
        let end = leaf_index::indexed(store, log, size).await?.min(end);
        let known = Self { log, conditions, end, found: vec![], taken: 0, window: (first, first) };
        Ok((first < end).then_some(known))
    }

    /// The leaves from `next` on that may fit, a page of them at most, and from where to go on; none if the index ends here.
    /// `next` is where it was said to go on.
    pub async fn take<S: Store>(&mut self, store: &S, next: u64) -> Result<Option<(Vec<u64>, u64)>, Error> {
        if next >= self.end {
            return Ok(None);
        }
        if next >= self.window.1 {
            self.look_up(store, next).await?;
            // It ends before a row that can't be read.
            if next >= self.end {
                return Ok(None);
            }
        }
        let left = self.found.get(self.taken..).unwrap_or_default();
        let page: Vec<u64> = left.iter().copied().take(PAGE).collect();
        self.taken += page.len();
        let go_on = match page.last() {
            Some(last) if left.len() > page.len() => last + 1,
            _ => self.window.1,
        };
        Ok(Some((page, go_on)))
    }

    /// Whether the index leads to a leaf that fits. Asked in order.
    pub async fn leads_to<S: Store>(&mut self, store: &S, leaf: u64) -> Result<bool, Error> {
        if leaf >= self.end {
            return Ok(true);
        }
        if leaf >= self.window.1 {
            self.look_up(store, leaf).await?;
        }
        Ok(leaf < self.end && self.found.binary_search(&leaf).is_ok())
    }

    /// Looks up the window that begins at a leaf.
    async fn look_up<S: Store>(&mut self, store: &S, from: u64) -> Result<(), Error> {
        let to = (from - from % BLOCK + WINDOW).min(self.end);
        let mut blocks: Option<BTreeMap<u64, BlockRow>> = None;
        for condition in &self.conditions {
            // Only blocks in which all conditions so far are met are of interest.
            let (first, last) = match &blocks {
                None => (from - from % BLOCK, to),
                Some(so_far) => match (so_far.first_key_value(), so_far.last_key_value()) {
                    (Some((first, _)), Some((last, _))) => (*first, last + BLOCK),
                    _ => break,
                },
            };
            let mut met = match self.blocks(store, condition, first, last).await {
                Ok(met) => met,
                Err(Error::DataLoss(_)) => {
                    self.end = from;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if let Some(so_far) = blocks {
                met.retain(|first, row| {
                    so_far.get(first).is_some_and(|before| {
                        row.meet(before);
                        !row.is_empty()
                    })
                });
            }
            blocks = Some(met);
        }
        let blocks = blocks.unwrap_or_default();
        let leaves = blocks.into_iter().flat_map(|(first, row)| row.places().map(move |at| first + u64::from(at)));
        self.found = leaves.filter(|leaf| (from..to).contains(leaf)).collect();
        (self.taken, self.window) = (0, (from, to));
        Ok(())
    }

    /// The blocks in which leaves have one of these terms.
    async fn blocks<S: Store>(
        &self,
        store: &S,
        condition: &[Term],
        first: u64,
        end: u64,
    ) -> Result<BTreeMap<u64, BlockRow>, Error> {
        let mut blocks: BTreeMap<u64, BlockRow> = BTreeMap::new();
        for term in condition {
            let (from, to) = place::leaf_index_range(self.log, &term.to_bytes(), first, end);
            let mut pages = Pages::new(Family::LeafIndex, from, to);
            while let Some(page) = pages.next(store).await? {
                for (key, row) in page {
                    let Some((_, first)) = place::decode_leaf_index(&key)? else { continue };
                    blocks.entry(first).or_default().join(&BlockRow::decode(&row)?);
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(blocks)
    }
}
