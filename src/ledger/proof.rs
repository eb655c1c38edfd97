//! Proofs (RFC 6962 sections 2.1.1 and 2.1.2): that a leaf is in a tree, and that one tree is the beginning of another.

mod text;

use std::cell::RefCell;
use std::collections::HashMap;

use tlog_tiles::{Error, HASH_SIZE, Hash, HashReader, Tile, TileHashReader, TileReader, stored_hash_index};

use crate::checkpoint::{self, Checkpoint};
use crate::cover::Subtree;
use crate::error::LedgerError;
use crate::frontier::leaf_hash;
use crate::tiles::{HEIGHT, MAX_SIZE, TileId};

/// More hashes than this has no proof of a tree that can be.
const MOST_HASHES: usize = 64;

/// A tree: how many leaves it has, and its root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tree {
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: [u8; HASH_SIZE],
}

/// What is to be proved of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// That the tree of so many leaves has the leaf with this index.
    Inclusion {
        /// The leaf.
        index: u64,
        /// How many leaves the tree has.
        size: u64,
    },
    /// That the tree of `from` leaves is the beginning of the one of `to`.
    Consistency {
        /// The older tree's leaves, one at least.
        from: u64,
        /// The newer tree's.
        to: u64,
    },
    /// Not whether something holds, but the roots of the complete subtrees over a range of leaves, as
    /// [`Subtree::over`] has them.
    Cover {
        /// Index of the first leaf.
        from: u64,
        /// Index after the last.
        to: u64,
    },
}

impl Question {
    /// Whether it can be answered of a log of so many leaves.
    pub fn fits(&self, leaves: u64) -> bool {
        let (least, most, size) = match *self {
            Self::Inclusion { index, size } => (index, size.checked_sub(1), size),
            Self::Consistency { from, to } | Self::Cover { from, to } => (from, Some(to), to),
        };
        let positive = !matches!(self, Self::Consistency { from: 0, .. });
        positive && most.is_some_and(|most| least <= most) && size <= leaves && leaves <= MAX_SIZE
    }

    /// The tiles that the answer is made of, in a log that is now `tree`.
    pub fn tiles(&self, tree: &Tree) -> Result<Vec<TileId>, LedgerError> {
        let planner = Planner::default();
        match self.prove(tree, &planner) {
            // Nothing needs to be looked up.
            Ok(_) => Ok(vec![]),
            Err(Error::IndexesNotInTree) => Err(LedgerError::Tiles(BEYOND)),
            Err(_) => Ok(planner.0.into_inner()),
        }
    }

    /// The proof, from those tiles. The tiles are held against the root of `tree` first, so a wrong one proves nothing.
    pub fn answer<'t>(
        &self,
        tree: &Tree,
        tile: impl Fn(TileId) -> Option<&'t [u8]>,
    ) -> Result<Vec<[u8; HASH_SIZE]>, LedgerError> {
        let hashes = self.prove(tree, &Given { size: tree.size, tile }).map_err(|error| match error {
            Error::IndexesNotInTree => LedgerError::Tiles(BEYOND),
            _ => LedgerError::Tiles("they are not those of the tree"),
        })?;
        Ok(hashes.into_iter().map(|hash| hash.0).collect())
    }

    fn prove(&self, tree: &Tree, tiles: &impl TileReader) -> Result<Vec<Hash>, Error> {
        if !self.fits(tree.size) {
            return Err(Error::IndexesNotInTree);
        }
        // Every node that a smaller tree's proof has is one of the larger tree too.
        let nodes = TileHashReader::new(tree.size, Hash(tree.root), tiles);
        match *self {
            Self::Inclusion { index, size } => tlog_tiles::prove_record(size, index, &nodes),
            Self::Consistency { from, to } => tlog_tiles::prove_tree(to, from, &nodes),
            Self::Cover { from, to } => {
                let place = |(start, height): (u64, u8)| stored_hash_index(height, start >> height);
                let places: Vec<u64> = Subtree::over(from, to).into_iter().map(place).collect();
                if places.is_empty() { Ok(vec![]) } else { nodes.read_hashes(&places) }
            }
        }
    }
}

const BEYOND: &str = "what is asked is not within the tree";

/// Notes which tiles are wanted, and has none.
#[derive(Default)]
struct Planner(RefCell<Vec<TileId>>);

impl TileReader for Planner {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        self.0.borrow_mut().extend(tiles.iter().map(id));
        Err(Error::InvalidTile)
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// The tiles that somebody has of a log of so many leaves.
struct Given<F> {
    size: u64,
    tile: F,
}

impl<'t, F: Fn(TileId) -> Option<&'t [u8]>> TileReader for Given<F> {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        // One that has grown since begins with what it was.
        let bytes = |tile: &Tile| (self.tile)(id(tile))?.get(..tile.width() as usize * HASH_SIZE);
        let read = |tile: &Tile| Ok((*tile, bytes(tile).ok_or(Error::InvalidTile)?));
        let read = tiles.iter().map(read).collect::<Result<HashMap<Tile, &[u8]>, Error>>()?;
        // tlog_tiles 0.2.0 holds the incomplete tiles against the root, and some complete ones against nothing: it takes the
        // number of subtrees for that of their tiles (`TileHashReader::read_hashes`).
        for (tile, bytes) in read.iter().filter(|(tile, _)| tile.width() == 1 << HEIGHT) {
            let parent = tile.parent(1, self.size).ok_or(Error::InconsistentTile)?;
            let above = read.get(&parent).ok_or(Error::InconsistentTile)?;
            let place = stored_hash_index(parent.level() * HEIGHT, tile.level_index());
            if parent.hash_at_index(above, place)? != Tile::subtree_hash(bytes) {
                return Err(Error::InconsistentTile);
            }
        }
        let bytes = |tile: &Tile| Ok(read.get(tile).copied().ok_or(Error::InvalidTile)?.to_vec());
        tiles.iter().map(bytes).collect()
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

fn id(tile: &Tile) -> TileId {
    TileId { level: tile.level(), index: tile.level_index() }
}

/// Verifies that a tree has a leaf, by the leaf's hash.
pub fn verify_inclusion(
    proof: &[[u8; HASH_SIZE]],
    tree: &Tree,
    index: u64,
    leaf: [u8; HASH_SIZE],
) -> Result<(), LedgerError> {
    let hashes = hashes(proof, &Question::Inclusion { index, size: tree.size }, tree)?;
    tlog_tiles::check_record(&hashes, tree.size, Hash(tree.root), index, Hash(leaf))
        .map_err(|_| LedgerError::NotProven("that the tree has this leaf at this place"))
}

/// Verifies that one tree is the beginning of another. The tree without leaves is that of every other.
pub fn verify_consistency(proof: &[[u8; HASH_SIZE]], older: &Tree, newer: &Tree) -> Result<(), LedgerError> {
    if older.size == 0 {
        let empty = Tree { size: 0, root: tlog_tiles::EMPTY_HASH.0 };
        return match *older == empty && proof.is_empty() {
            true => Ok(()),
            false => Err(LedgerError::NotProven(GREW)),
        };
    }
    let hashes = hashes(proof, &Question::Consistency { from: older.size, to: newer.size }, newer)?;
    tlog_tiles::check_tree(&hashes, newer.size, Hash(newer.root), older.size, Hash(older.root))
        .map_err(|_| LedgerError::NotProven(GREW))
}

const GREW: &str = "that the newer tree only grew from the older one";

fn hashes(proof: &[[u8; HASH_SIZE]], question: &Question, tree: &Tree) -> Result<Vec<Hash>, LedgerError> {
    match question.fits(tree.size) && proof.len() <= MOST_HASHES {
        true => Ok(proof.iter().copied().map(Hash).collect()),
        false => Err(LedgerError::NotProven("what is not within the tree")),
    }
}

/// A proof that a leaf is in a log, with all that it takes to check it but the leaf and the log's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeafProof {
    /// The leaf.
    pub index: u64,
    /// The hashes beside its way to the root, the leaf's neighbour first.
    pub hashes: Vec<[u8; HASH_SIZE]>,
    /// The signed head of the log, as C2SP tlog-checkpoint.
    pub checkpoint: String,
}

impl LeafProof {
    /// Verifies it for a leaf, the line without its newline, and verifier keys of which one must be the log's own.
    pub fn verify(&self, line: &[u8], keys: &[&str]) -> Result<Checkpoint, LedgerError> {
        let signed = checkpoint::verify(&self.checkpoint, keys)?;
        verify_inclusion(&self.hashes, &signed.tree(), self.index, leaf_hash(line))?;
        Ok(signed)
    }
}

/// A proof that a log only grew, with all that it takes to check it but the older checkpoint and the log's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrowthProof {
    /// How many leaves the older checkpoint has.
    pub from: u64,
    /// The hashes (RFC 6962 section 2.1.2).
    pub hashes: Vec<[u8; HASH_SIZE]>,
    /// The newer signed head, as C2SP tlog-checkpoint.
    pub checkpoint: String,
}

impl GrowthProof {
    /// Verifies it between the two heads. Who signed them is another question, and that they are of one log.
    pub fn verify(&self, older: &Tree, newer: &Tree) -> Result<(), LedgerError> {
        match self.from == older.size {
            true => verify_consistency(&self.hashes, older, newer),
            false => Err(LedgerError::NotProven("that it grew from this one: it is of another size")),
        }
    }
}

#[cfg(test)]
mod tests;
