//! The tiles of each log: what proofs are made of, brought up to the log as it is now.
//!
//! A commit writes no node of the tree. Tiles follow from the leaves, in steps of which each is one commit together with
//! how far it has come; so a crash costs a step. Whoever changes them behind the vault's back gets no wrong proof: tiles
//! are held against the root that the log's head has. Then they are made anew: by whoever may ask for proofs, or by the vault
//! itself, but never at a stranger's word; and where that did not help, not again for an hour.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf_hash;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Mutation, Store, StoreError};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::archive::held;
use crate::error::Error;
use crate::housekeeping::in_turn;
use crate::leaves;
use crate::vault::Vault;

/// Leaves that are taken into tiles in one commit.
const STEP: u64 = 4_096;
/// So long tiles are not made anew that were in vain.
const IN_VAIN: Duration = Duration::from_secs(3_600);

/// What is known of the tiles while the vault runs.
#[derive(Default)]
pub(crate) struct Tiling {
    /// Held while leaves of one log are taken into tiles, and while proofs are made of these. Logs do not wait for each other.
    logs: std::sync::Mutex<BTreeMap<TenantNo, Arc<Mutex<()>>>>,
    /// Logs whose tiles were made anew in vain: with how many leaves, and when.
    in_vain: std::sync::Mutex<BTreeMap<TenantNo, (u64, Instant)>>,
    /// What could not be answered from the tiles of a log as they are written.
    suspects: std::sync::Mutex<BTreeMap<TenantNo, Question>>,
}

impl Tiling {
    /// One log's, once nobody else has it.
    pub async fn of(&self, log: TenantNo) -> OwnedMutexGuard<()> {
        let one = {
            let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(logs.entry(log).or_default())
        };
        one.lock_owned().await
    }

    /// Whether it is worth while to make tiles of so many leaves anew: leaves that were not those of the head a while ago are
    /// not now, however many came since.
    fn may_help(&self, log: TenantNo, size: u64) -> bool {
        let in_vain = self.in_vain.lock().unwrap_or_else(PoisonError::into_inner);
        in_vain.get(&log).is_none_or(|(leaves, at)| size < *leaves || at.elapsed() >= IN_VAIN)
    }

    fn was_in_vain(&self, log: TenantNo, size: u64) {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner).insert(log, (size, Instant::now()));
    }

    fn suspect(&self, log: TenantNo, question: Question) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(log, question);
    }

    /// Takes them away.
    fn suspects(&self) -> BTreeMap<TenantNo, Question> {
        std::mem::take(&mut self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is damaged, if tiles that were just made are not those of the tree.
const PLACE: &str = "the ledger: its leaves are not those of its head";
const ARCHIVED_TILES: Error =
    Error::DataLoss("the ledger: the tiles over its archived leaves are not those of its tree");
const BEYOND: Error = Error::Internal("a proof of what is not in the log");

/// Those of some tiles of a log that are in the store.
pub(crate) async fn stored<S: Store>(
    store: &S,
    log: TenantNo,
    ids: Vec<TileId>,
) -> Result<HashMap<TileId, Bytes>, StoreError> {
    let keys = ids.iter().map(|id| place::tile(log, id.level, id.index)).collect();
    let rows = store.multi_get(Family::Tiles, keys).await?;
    Ok(ids.into_iter().zip(rows).filter_map(|(id, row)| Some((id, row?))).collect())
}

impl<S: Store> Vault<S> {
    /// Makes a proof of a log that is now `tree`, from tiles that are held against its root.
    pub(crate) async fn prove(&self, log: TenantNo, tree: &Tree, question: &Question) -> Result<Vec<[u8; 32]>, Error> {
        let wanted = question.tiles(tree).map_err(|_| BEYOND)?;
        let _tiling = self.tiling.of(log).await;
        for again in [true, false] {
            self.follow(log, tree.size, u32::MAX).await?;
            let tiles = stored(&*self.store, log, wanted.clone()).await?;
            match question.answer(tree, |id| tiles.get(&id).map(|tile| &**tile)) {
                Ok(proof) => return Ok(proof),
                Err(error) if again && self.tiling.may_help(log, tree.size) => {
                    tracing::warn!(%error, log = log.0, "the tiles of a log are not those of its tree: made anew");
                    self.forget_tiles(log).await?;
                }
                Err(_) => {
                    if !again {
                        self.tiling.was_in_vain(log, tree.size);
                    }
                    break;
                }
            }
        }
        self.damaged(PLACE);
        Err(Error::DataLoss(PLACE))
    }

    /// The tiles that a question is answered from, as they are written: each was held against the root of `tree`. Nothing is
    /// written for it and nobody waited for; what is wrong the vault sees to by itself.
    pub(crate) async fn written(
        &self,
        log: TenantNo,
        tree: &Tree,
        question: &Question,
    ) -> Result<HashMap<TileId, Bytes>, Error> {
        let wanted = question.tiles(tree).map_err(|_| BEYOND)?;
        let tiles = stored(&*self.store, log, wanted).await?;
        match question.answer(tree, |id| tiles.get(&id).map(|tile| &**tile)) {
            Ok(_) => Ok(tiles),
            Err(_) => {
                self.tiling.suspect(log, *question);
                Err(Error::DataLoss("the ledger: its tiles are not those of its head"))
            }
        }
    }

    /// Takes the first leaves of a log into its tiles, `size` of them at the least.
    pub(crate) async fn tile(&self, log: TenantNo, size: u64) -> Result<(), Error> {
        let _tiling = self.tiling.of(log).await;
        self.follow(log, size, u32::MAX).await.map(drop)
    }

    /// Proves what could not be answered, so that tiles which are wrong are made anew.
    async fn mend_tiles(&self) {
        for (log, question) in self.tiling.suspects() {
            let Some(head) = self.committer.head(log) else { continue };
            if let Err(error) = self.prove(log, &Tree { size: head.size, root: head.root }, &question).await {
                tracing::warn!(%error, log = log.0, "the tiles of a log can't be mended");
            }
        }
    }

    /// Takes leaves that came since into the tiles of every log, so that nobody who wants a proof waits for that: in so many
    /// steps at the most, and beginning with the log after one. Answers after which to go on, if there may be more to do. On a
    /// disk that is nearly full nothing is done: tiles free no space, and can be made whenever there is some again.
    pub(crate) async fn follow_logs(&self, after: Option<TenantNo>, steps: u32) -> Result<Option<TenantNo>, Error> {
        let mut left = steps;
        if !self.nearly_full.load(Ordering::Relaxed) {
            self.mend_tiles().await;
        }
        for log in in_turn(self.tenants.numbers(), after) {
            if self.nearly_full.load(Ordering::Relaxed) {
                return Ok(None);
            }
            // Signed first: all of it is in tiles then.
            let signed = match self.is_published(log) {
                true => self.signed_head(log).await.ok(),
                false => None,
            };
            let Some(head) = self.committer.head(log) else { continue };
            {
                let _tiling = self.tiling.of(log).await;
                left = self.follow(log, head.size, left).await?;
            }
            if left == 0 {
                return Ok(Some(log));
            }
            if let Some((checkpoint, tree)) = signed {
                self.publish(log, checkpoint.note, tree);
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
                for line in leaves::page(&*self.store, log, edge.size(), end).await? {
                    edge.push(leaf_hash(&line), &mut put);
                }
            }
            edge.tiles().for_each(|(id, tile)| put(id, tile.to_vec()));
            mutations.push(Mutation::Put(Family::Tiles, place::tiled(log), place::encode_tiled(edge.size())));
            self.commit_unguarded(mutations, vec![]).await?;
        }
        Ok(left)
    }

    /// Has the tiles of a log made anew, but for those over leaves that are archived: these are all there is to prove them by.
    async fn forget_tiles(&self, log: TenantNo) -> Result<(), Error> {
        if held::end(&*self.store, log).await? > 0 {
            return self.commit_unguarded(vec![Mutation::Delete(Family::Tiles, place::tiled(log))], vec![]).await;
        }
        let (from, to) = place::tiles_range(log);
        Ok(self.store.purge(Family::Tiles, from, to).await?)
    }

    /// Where the tiles of a log end. Begins anew if that can't be read: what follows from the leaves is no loss.
    async fn edge(&self, log: TenantNo) -> Result<Edge, Error> {
        let archived = held::row(&*self.store, log).await?.filter(|row| row.end > 0);
        let least = archived.as_ref().map_or(0, |row| row.end);
        if let Some(row) = self.store.get(Family::Tiles, place::tiled(log)).await?
            && let Ok(size) = place::decode_tiled(&row)
        {
            let incomplete = Edge::incomplete(size).into_iter().map(|(id, _)| id);
            let tiles = stored(&*self.store, log, incomplete.collect()).await?;
            let head = self.committer.head(log).map_or(0, |head| head.size);
            let edge = Edge::open(size, |id| tiles.get(&id).map(|tile| &**tile)).ok();
            if let Some(edge) = edge.filter(|edge| (least..=head).contains(&edge.size())) {
                return Ok(edge);
            }
        }
        match archived {
            Some(row) => edge_at(&*self.store, log, row.end, row.root).await,
            None => Ok(Edge::new()),
        }
    }
}

/// The edge of a log with so many leaves, whole tiles of them, from the complete tiles over them: these stay when the leaves
/// are archived. What is incomplete follows from those.
pub(crate) async fn edge_at<S: Store>(store: &S, log: TenantNo, leaves: u64, root: [u8; 32]) -> Result<Edge, Error> {
    let mut made: HashMap<TileId, Vec<u8>> = HashMap::new();
    for (id, width) in Edge::incomplete(leaves) {
        // Of level zero there is none.
        let Some(below) = id.level.checked_sub(1) else { continue };
        let ids = (0..width as u64).map(|at| TileId { level: below, index: (id.index << 8) + at });
        let ids: Vec<TileId> = ids.collect();
        let tiles = stored(store, log, ids.clone()).await?;
        let roots = ids.iter().map(|id| tiles.get(id).and_then(|tile| Edge::root_of(tile)));
        let roots: Option<Vec<[u8; 32]>> = roots.collect();
        made.insert(id, roots.ok_or(ARCHIVED_TILES)?.concat());
    }
    let edge = Edge::open(leaves, |id| made.get(&id).map(Vec::as_slice));
    edge.ok().filter(|edge| edge.root() == root).ok_or(ARCHIVED_TILES)
}
