//! What anybody may read of a log that is published: its signed head, and the hashes of its tree.
//!
//! Neither says more than how many leaves there are: every leaf has its request's number, 16 random bytes, so nobody finds
//! one by guessing whose hash it is. So nobody is asked who they are, and no leaf records it. What strangers ask for signs once
//! a second at the most, and writes no more tiles than are written without them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use strongroom_ids::TenantNo;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::Store;

use crate::error::Error;
use crate::vault::Vault;

/// Bytes of a hash.
const HASH: usize = 32;

impl<S: Store> Vault<S> {
    /// The signed head of a tenant's log, at most a second old, or where witnesses are wanted the newest that enough have
    /// cosigned. Whoever has it finds all tiles of its tree. `None` if there is no such tenant.
    pub async fn published_head(&self, tenant: &str) -> Result<Option<String>, Error> {
        let Some(log) = self.published_log(tenant)? else { return Ok(None) };
        let (checkpoint, tree) = self.signed_head(log).await?;
        if let Some(last) = tree.size.checked_sub(1) {
            // The last leaf's tiles are those at which the tree grows: all others come before them.
            self.prove(log, &tree, &Question::Cover { from: last, to: tree.size }).await?;
        }
        // Where there are witnesses, what strangers get is what these have seen.
        match self.has_witnesses() {
            true => Ok(Some(self.witnessed(log).await?.note)),
            false => Ok(Some(checkpoint.note)),
        }
    }

    /// The first `width` hashes of a tile of a tenant's log. `None` if the log has no such tenant, tile, or not so many hashes.
    pub async fn published_tile(&self, tenant: &str, id: TileId, width: usize) -> Result<Option<Bytes>, Error> {
        let Some(log) = self.published_log(tenant)? else { return Ok(None) };
        let (_, tree) = self.signed_head(log).await?;
        let Some(first) = first_hash(&tree, id).filter(|_| width <= Edge::width(tree.size, id)) else {
            return Ok(None);
        };
        // What proves the first hash is made of the tile itself and of all above it.
        let (_, tiles) = self.prove_with(log, &tree, &first).await?;
        let hashes = tiles.get(&id).filter(|tile| tile.len() >= width * HASH).map(|tile| tile.slice(..width * HASH));
        hashes.map(Some).ok_or(Error::Internal("a tile that was proven without itself"))
    }

    /// Which log is a tenant's, if what strangers ask for may be done now.
    fn published_log(&self, tenant: &str) -> Result<Option<TenantNo>, Error> {
        self.serving()?;
        // Tiles may have to be written first.
        if self.nearly_full.load(Ordering::Relaxed) {
            return Err(Error::DiskFull);
        }
        Ok(self.directory().tenants.get(tenant).copied())
    }
}

/// Asks for the first hash of a tile, if the tree has any of it.
fn first_hash(tree: &Tree, id: TileId) -> Option<Question> {
    if Edge::width(tree.size, id) == 0 {
        return None;
    }
    let leaves = 1_u64.checked_shl(u32::from(id.level) * 8)?;
    let from = id.index.checked_mul(256)?.checked_mul(leaves)?;
    Some(Question::Cover { from, to: from.checked_add(leaves)? })
}
