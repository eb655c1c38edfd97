//! Leaves held against the tree that a head names: what was changed on the disk is named, and nothing is signed over it.
//!
//! A leaf is what its tile says, if the tile leads to the root. Where a tile does not, nobody can say yet which leaf was
//! changed; but all that is looked at and all that is left out is joined, and must give the root in the end.

use bytes::Bytes;
use strongroom_ids::TenantNo;
use strongroom_ledger::Frontier;
use strongroom_ledger::cover::Subtree;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::Store;
use strongroom_storage::rows::BLOCK;

use crate::error::Error;
use crate::tiles;

/// Bytes of a hash.
const HASH: usize = 32;

/// A tree, and how far its leaves have been looked at.
pub(super) struct Held {
    log: TenantNo,
    tree: Tree,
    joined: Frontier,
    /// Hashes of the leaves from the first of a block on; none if its tile is not one of the tree.
    block: (u64, Bytes),
}

impl Held {
    pub fn new(log: TenantNo, tree: Tree) -> Self {
        Self { log, tree, joined: Frontier::new(), block: (0, Bytes::new()) }
    }

    /// Reads the tile of the block in which a leaf is.
    pub async fn read_block<S: Store>(&mut self, store: &S, leaf: u64) -> Result<(), Error> {
        let id = TileId { level: 0, index: leaf / BLOCK };
        let question = Question::Cover { from: leaf, to: leaf + 1 };
        let outside = |_| Error::Internal("a leaf that is not in the tree");
        let wanted = question.tiles(&self.tree).map_err(outside)?;
        let tiles = tiles::stored(store, self.log, wanted).await?;
        let hashes = match question.answer(&self.tree, |id| tiles.get(&id).map(|tile| &**tile)) {
            // What it has beyond the tree came later.
            Ok(_) => tiles.get(&id).and_then(|tile| {
                let bytes = Edge::width(self.tree.size, id) * HASH;
                (tile.len() >= bytes).then(|| tile.slice(..bytes))
            }),
            Err(error) => {
                tracing::warn!(%error, log = self.log.0, leaf, "a tile is not one of the tree: leaves are not held against it");
                None
            }
        };
        self.block = (leaf - leaf % BLOCK, hashes.unwrap_or_default());
        Ok(())
    }

    /// The next leaf that is looked at, of the block that was read last.
    pub fn look_at(&mut self, index: u64, hash: [u8; HASH]) -> Result<(), Error> {
        let at = index.checked_sub(self.block.0).and_then(|at| usize::try_from(at).ok());
        let there = at.and_then(|at| self.block.1.chunks_exact(HASH).nth(at));
        if there.is_some_and(|there| *there != hash) {
            tracing::error!(log = self.log.0, index, "a leaf of the ledger was changed on the disk");
            return Err(Error::LeafChanged(index));
        }
        self.left_out(&Subtree { start: index, height: 0, hash })
    }

    /// What comes next and is not looked at.
    pub fn left_out(&mut self, subtree: &Subtree) -> Result<(), Error> {
        self.joined.push_subtree(subtree).map_err(|_| Error::Internal("an export that skips leaves"))
    }

    /// Whether all of it is the tree.
    pub fn is_whole(&self) -> bool {
        self.joined.size() == self.tree.size && self.joined.root() == self.tree.root
    }
}
