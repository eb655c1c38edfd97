//! The tiles of each log: what proofs are made of, brought up to the log as it is now.
//!
//! A commit writes no node of the tree. Tiles follow from the leaves, in steps of which each is one commit together with
//! how far it has come; so a crash costs a step. Whoever changes them behind the vault's back gets no wrong proof: tiles
//! are held against the root that the log's head has. Then they are made anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use strongroom_commit::Change;
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf_hash;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Mutation, Range, Store};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::Error;
use crate::pages::PAGE;
use crate::vault::Vault;

/// Leaves that are taken into tiles in one commit.
const STEP: u64 = 4_096;
/// Held while leaves of one log are taken into tiles, and while proofs are made of these. Logs do not wait for each other.
#[derive(Default)]
pub(crate) struct Tiling(std::sync::Mutex<BTreeMap<TenantNo, Arc<Mutex<()>>>>);

impl Tiling {
    /// One log's, once nobody else has it.
    pub async fn of(&self, log: TenantNo) -> OwnedMutexGuard<()> {
        let one = {
            let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(logs.entry(log).or_default())
        };
        one.lock_owned().await
    }
}

/// What is damaged, if tiles that were just made are not those of the tree.
const PLACE: &str = "the ledger: its leaves are not those of its head";

impl<S: Store> Vault<S> {
    /// Makes a proof of a log that is now `tree`.
    pub(crate) async fn prove(&self, log: TenantNo, tree: &Tree, question: &Question) -> Result<Vec<[u8; 32]>, Error> {
        Ok(self.prove_with(log, tree, question).await?.0)
    }

    /// The same, and the tiles that it was made of, as they are now: each was held against the root of `tree`.
    pub(crate) async fn prove_with(
        &self,
        log: TenantNo,
        tree: &Tree,
        question: &Question,
    ) -> Result<(Vec<[u8; 32]>, HashMap<TileId, Bytes>), Error> {
        let wanted = question.tiles(tree).map_err(|_| Error::Internal("a proof of what is not in the log"))?;
        let _tiling = self.tiling.of(log).await;
        for again in [true, false] {
            self.follow(log, tree.size, u32::MAX).await?;
            let tiles = self.tiles(log, wanted.iter().copied()).await?;
            match question.answer(tree, |id| tiles.get(&id).map(|tile| &**tile)) {
                Ok(proof) => return Ok((proof, tiles)),
                Err(error) if again => {
                    tracing::warn!(%error, log = log.0, "the tiles of a log are not those of its tree: made anew");
                    let (from, to) = place::tiles_range(log);
                    self.store.purge(Family::Tiles, from, to).await?;
                }
                Err(_) => {}
            }
        }
        self.damaged(PLACE);
        Err(Error::DataLoss(PLACE))
    }

    /// Takes leaves that came since into the tiles of every log, so that nobody who wants a proof waits for that: in so many
    /// steps at the most, and beginning with the log after one. Answers after which to go on, if there may be more to do. On a
    /// disk that is nearly full nothing is done: tiles free no space, and can be made whenever there is some again.
    pub(crate) async fn follow_logs(&self, after: Option<TenantNo>, steps: u32) -> Result<Option<TenantNo>, Error> {
        let mut left = steps;
        let mut logs = self.tenants.numbers();
        let begin = logs.partition_point(|log| after.is_some_and(|after| *log <= after));
        logs.rotate_left(begin);
        for log in logs {
            if self.nearly_full.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let Some(head) = self.committer.head(log) else { continue };
            let _tiling = self.tiling.of(log).await;
            left = self.follow(log, head.size, left).await?;
            if left == 0 {
                return Ok(Some(log));
            }
        }
        Ok(None)
    }

    /// Takes the first leaves of a log, `size` of them at the least, into its tiles, or those of so many steps. Answers how many
    /// steps are left.
    async fn follow(&self, log: TenantNo, size: u64, steps: u32) -> Result<u32, Error> {
        let mut left = steps;
        let mut edge = self.edge(log).await?;
        while edge.size() < size && left > 0 {
            left -= 1;
            let end = size.min(edge.size() + STEP);
            let mut mutations = Vec::new();
            let mut put = |id: TileId, tile| {
                mutations.push(Mutation::Put(Family::Tiles, place::tile(log, id.level, id.index), tile));
            };
            while edge.size() < end {
                let (from, to) = place::leaves_range(log, edge.size(), end);
                let page = self.store.scan(Family::Leaves, Range { from, to, limit: PAGE }).await?;
                if page.is_empty() {
                    return Err(Error::DataLoss("the ledger: leaves are missing at its end"));
                }
                for (key, line) in page {
                    if place::decode_leaf(&key)? != edge.size() {
                        return Err(Error::DataLoss("the ledger: a leaf is missing"));
                    }
                    edge.push(leaf_hash(&line), &mut put);
                }
            }
            edge.tiles().for_each(|(id, tile)| put(id, tile.to_vec()));
            mutations.push(Mutation::Put(Family::Tiles, place::tiled(log), place::encode_tiled(edge.size())));
            let position = self.committer.position();
            let (guards, changes, leaves) = (vec![], vec![], vec![]);
            let change = Change { position, guards, changes, mutations, leaves, charge: None };
            self.committer.commit(change).await?;
        }
        Ok(left)
    }

    /// Where the tiles of a log end. Begins anew if that can't be read: what follows from the leaves is no loss.
    async fn edge(&self, log: TenantNo) -> Result<Edge, Error> {
        let Some(row) = self.store.get(Family::Tiles, place::tiled(log)).await? else { return Ok(Edge::new()) };
        let Ok(size) = place::decode_tiled(&row) else { return Ok(Edge::new()) };
        let tiles = self.tiles(log, Edge::incomplete(size).into_iter().map(|(id, _)| id)).await?;
        let head = self.committer.head(log).map_or(0, |head| head.size);
        let edge = Edge::open(size, |id| tiles.get(&id).map(|tile| &**tile));
        Ok(edge.ok().filter(|edge| edge.size() <= head).unwrap_or_default())
    }

    async fn tiles(&self, log: TenantNo, ids: impl Iterator<Item = TileId>) -> Result<HashMap<TileId, Bytes>, Error> {
        let ids: Vec<TileId> = ids.collect();
        let keys = ids.iter().map(|id| place::tile(log, id.level, id.index)).collect();
        let rows = self.store.multi_get(Family::Tiles, keys).await?;
        Ok(ids.into_iter().zip(rows).filter_map(|(id, row)| Some((id, row?))).collect())
    }
}
