//! The tiles of each log: what proofs are made of, brought up to the log as it is now.
//!
//! A commit writes no node of the tree. Tiles follow from the leaves, in steps of which each is one commit together with
//! how far it has come; so a crash costs a step. Whoever changes them behind the vault's back gets no wrong proof: tiles
//! are held against the root that the log's head has. Then they are made anew.

use std::collections::HashMap;

use bytes::Bytes;
use strongroom_commit::Change;
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf_hash;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Mutation, Range, Store};

use crate::error::Error;
use crate::pages::PAGE;
use crate::vault::Vault;

/// Leaves that are taken into tiles in one commit.
const STEP: u64 = 4_096;
/// What is damaged, if tiles that were just made are not those of the tree.
const PLACE: &str = "the ledger: its leaves are not those of its head";

impl<S: Store> Vault<S> {
    /// Makes a proof of a log that is now `tree`.
    pub(crate) async fn prove(&self, log: TenantNo, tree: &Tree, question: &Question) -> Result<Vec<[u8; 32]>, Error> {
        let wanted = question.tiles(tree).map_err(|_| Error::Internal("a proof of what is not in the log"))?;
        let _tiling = self.tiling.lock().await;
        for again in [true, false] {
            self.follow(log, tree.size).await?;
            let tiles = self.tiles(log, wanted.iter().copied()).await?;
            match question.answer(tree, |id| tiles.get(&id).map(|tile| &**tile)) {
                Ok(proof) => return Ok(proof),
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

    /// Takes the leaves that came since into the tiles of every log, so that nobody who wants a proof waits for that.
    pub(crate) async fn follow_logs(&self) -> Result<(), Error> {
        for log in self.tenants.numbers() {
            let Some(head) = self.committer.head(log) else { continue };
            let _tiling = self.tiling.lock().await;
            self.follow(log, head.size).await?;
        }
        Ok(())
    }

    /// Takes the first leaves of a log, `size` of them at the least, into its tiles.
    async fn follow(&self, log: TenantNo, size: u64) -> Result<(), Error> {
        let mut edge = self.edge(log).await?;
        while edge.size() < size {
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
        Ok(())
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
