//! What anybody may read of a log that is published: its signed head, and the hashes of its tree.
//!
//! Neither says more than how many leaves there are: every leaf has its request's number, 16 random bytes, so nobody finds
//! one by guessing whose hash it is. So nobody is asked who they are, and no leaf records it. What strangers are shown is a
//! head whose leaves are in tiles: a new one every few seconds, which the vault makes by itself. For them nothing is written,
//! but for the first time that somebody asks after a start, and nobody else waits. Where there are witnesses, strangers are
//! shown nothing that these have not seen, no tile either.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom_ids::TenantNo;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::Store;

use crate::error::Error;
use crate::vault::Vault;

/// Bytes of a hash.
const HASH: usize = 32;

/// How long it is not looked again what witnesses have seen.
const WITNESSED: Duration = Duration::from_secs(10);

/// A signed head, and the tree that it signs.
type Head = (String, Tree);

/// What strangers are shown, of each log that one of them has asked for.
pub(crate) type Shown = Mutex<BTreeMap<TenantNo, Heads>>;

/// The heads of a log.
pub(crate) struct Heads {
    /// All its leaves are in tiles.
    tiled: Head,
    /// The newest that enough witnesses have cosigned, where there are any, and when that was looked at.
    witnessed: Option<(Instant, Head)>,
}

impl<S: Store> Vault<S> {
    /// The signed head of a tenant's log that strangers are shown, or where witnesses are wanted the newest that enough have
    /// cosigned. Whoever has it finds all tiles of its tree. `None` if there is no such tenant.
    pub async fn published_head(&self, tenant: &str) -> Result<Option<String>, Error> {
        let Some(log) = self.published_log(tenant)? else { return Ok(None) };
        Ok(Some(self.shown(log).await?.0))
    }

    /// The first `width` hashes of a tile of a tenant's log. `None` if the log has no such tenant, tile, or not so many hashes
    /// in the head that strangers are shown.
    pub async fn published_tile(&self, tenant: &str, id: TileId, width: usize) -> Result<Option<Bytes>, Error> {
        let Some(log) = self.published_log(tenant)? else { return Ok(None) };
        let (_, tree) = self.shown(log).await?;
        self.written_tile(log, &tree, id, width).await
    }

    /// The first `width` hashes of a tile as it is written, held against the root of `tree`. `None` if that has no such tile, or
    /// not so many hashes of it.
    pub(crate) async fn written_tile(
        &self,
        log: TenantNo,
        tree: &Tree,
        id: TileId,
        width: usize,
    ) -> Result<Option<Bytes>, Error> {
        let Some(first) = first_hash(tree, id).filter(|_| width <= Edge::width(tree.size, id)) else {
            return Ok(None);
        };
        // What proves the first hash is made of the tile itself and of all above it.
        let tiles = self.written(log, tree, &first).await?;
        let hashes = tiles.get(&id).filter(|tile| tile.len() >= width * HASH).map(|tile| tile.slice(..width * HASH));
        hashes.map(Some).ok_or(Error::Internal("a tile that was proven without itself"))
    }

    /// Which log is a tenant's, if what strangers ask for may be done now.
    fn published_log(&self, tenant: &str) -> Result<Option<TenantNo>, Error> {
        self.serving()?;
        let Some(log) = self.directory().tenants.get(tenant).copied() else { return Ok(None) };
        self.tenant(log)?.is_there()?;
        Ok(Some(log))
    }

    /// What strangers are shown of a log.
    async fn shown(&self, log: TenantNo) -> Result<Head, Error> {
        let tiled = self.heads().get(&log).map(|heads| heads.tiled.clone());
        let tiled = match tiled {
            Some(tiled) => tiled,
            None => self.publish_first(log).await?,
        };
        if !self.has_witnesses() {
            return Ok(tiled);
        }
        let known = self.heads().get(&log).and_then(|heads| heads.witnessed.clone());
        if let Some((_, head)) = known.filter(|(at, _)| at.elapsed() < WITNESSED) {
            return Ok(head);
        }
        let head = self.witnessed_tree(log).await?;
        if head.1.size > tiled.1.size {
            // Witnesses were quicker than the vault's own round.
            self.publish_first(log).await?;
        }
        if let Some(heads) = self.heads().get_mut(&log) {
            heads.witnessed = Some((Instant::now(), head.clone()));
        }
        Ok(head)
    }

    /// Takes the log as it is now into tiles, and shows it. Tiles that are wrong stay so.
    async fn publish_first(&self, log: TenantNo) -> Result<Head, Error> {
        if self.nearly_full.load(Ordering::Relaxed) {
            return Err(Error::DiskFull);
        }
        let (checkpoint, tree) = self.signed_head(log).await?;
        self.tile(log, tree.size).await?;
        self.publish(log, checkpoint.note.clone(), tree);
        Ok((checkpoint.note, tree))
    }

    /// Whether a stranger has asked for a log.
    pub(crate) fn is_published(&self, log: TenantNo) -> bool {
        self.heads().contains_key(&log)
    }

    /// Shows strangers a head whose leaves are in tiles.
    pub(crate) fn publish(&self, log: TenantNo, note: String, tree: Tree) {
        let mut heads = self.heads();
        let witnessed = heads.remove(&log).and_then(|heads| heads.witnessed);
        heads.insert(log, Heads { tiled: (note, tree), witnessed });
    }

    /// Witnesses have seen more.
    pub(crate) fn forget_witnessed(&self, log: TenantNo) {
        if let Some(heads) = self.heads().get_mut(&log) {
            heads.witnessed = None;
        }
    }

    fn heads(&self) -> std::sync::MutexGuard<'_, BTreeMap<TenantNo, Heads>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the first hash of a tile, if the tree has any of it.
pub(crate) fn first_hash(tree: &Tree, id: TileId) -> Option<Question> {
    if Edge::width(tree.size, id) == 0 {
        return None;
    }
    let leaves = 1_u64.checked_shl(u32::from(id.level) * 8)?;
    let from = id.index.checked_mul(256)?.checked_mul(leaves)?;
    Some(Question::Cover { from, to: from.checked_add(leaves)? })
}
