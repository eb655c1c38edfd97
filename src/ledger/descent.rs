//! From the root of a complete subtree down to its leaves: a tile has the hashes next below it, and they prove themselves.

use std::ops::Range;

use tlog_tiles::{HASH_SIZE, Tile};

use crate::cover::Subtree;
use crate::tiles::{HEIGHT, TileId};

impl Subtree {
    /// The tile that has the hashes next below a subtree, and which of its bytes they are; of a single leaf, its own hash.
    pub fn next_below(start: u64, height: u8) -> (TileId, Range<usize>) {
        let level = height.saturating_sub(1) / HEIGHT;
        let first = start.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0);
        // A subtree stands at a multiple of its size, so all are in one tile; 256 at most.
        let from = (first % (1 << HEIGHT)) as usize * HASH_SIZE;
        let bytes = HASH_SIZE << (height - level * HEIGHT);
        (TileId { level, index: first >> HEIGHT }, from..from + bytes)
    }

    /// The subtree whose hashes next below these are; none if there are not so many.
    pub fn of_hashes(start: u64, height: u8, hashes: &[u8]) -> Option<Self> {
        let (_, bytes) = Self::next_below(start, height);
        (hashes.len() == bytes.len()).then(|| Self { start, height, hash: Tile::subtree_hash(hashes).0 })
    }

    /// The subtrees next below, if these are their hashes: the largest that a tile has a hash of, in order. Below a leaf are none.
    pub fn opened(&self, hashes: &[u8]) -> Option<Vec<Self>> {
        Self::of_hashes(self.start, self.height, hashes).filter(|same| same == self)?;
        if self.height == 0 {
            return Some(vec![]);
        }
        let height = self.height.saturating_sub(1) / HEIGHT * HEIGHT;
        let (hashes, _) = hashes.as_chunks::<HASH_SIZE>();
        let below =
            (0_u64..).zip(hashes).map(|(at, hash)| Self { start: self.start + (at << height), height, hash: *hash });
        Some(below.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frontier;
    use crate::tiles::tests::{Kept, hash_of};

    /// A tree of three levels of tiles, with an edge in each.
    const LEAVES: u64 = 256 * 256 * 2 + 256 * 3 + 77;

    #[test]
    fn every_leaf_is_reached_by_hashes_that_prove_each_other() {
        let kept = Kept::of(LEAVES);
        let mut tree = Frontier::new();
        (0..LEAVES).for_each(|leaf| tree.push_hash(hash_of(leaf)));
        let mut open: Vec<Subtree> = tree.subtrees().collect();
        open.reverse();
        let mut next = 0;
        while let Some(subtree) = open.pop() {
            if subtree.height == 0 {
                assert_eq!((subtree.start, subtree.hash), (next, hash_of(next)));
                next += 1;
                continue;
            }
            let (id, bytes) = Subtree::next_below(subtree.start, subtree.height);
            let hashes = &kept.tile(id).unwrap()[bytes];
            let mut below = subtree.opened(hashes).unwrap();
            assert_eq!(below.first().map(|one| one.start), Some(subtree.start));
            assert_eq!(below.last().and_then(Subtree::end), subtree.end());
            below.reverse();
            open.extend(below);
        }
        assert_eq!(next, LEAVES);
    }

    #[test]
    fn the_roots_of_all_subtrees_follow_from_tiles() {
        let kept = Kept::of(LEAVES);
        let mut tree = Frontier::new();
        for (start, height) in Subtree::over(0, LEAVES) {
            let (id, bytes) = Subtree::next_below(start, height);
            let subtree = Subtree::of_hashes(start, height, &kept.tile(id).unwrap()[bytes]).unwrap();
            tree.push_subtree(&subtree).unwrap();
        }
        assert_eq!(tree.root(), kept.edge.root());
    }

    #[test]
    fn nothing_is_below_a_leaf() {
        let leaf = Subtree { start: 3, height: 0, hash: hash_of(3) };
        assert_eq!(leaf.opened(&leaf.hash), Some(vec![]));
        assert_eq!(leaf.opened(&hash_of(4)), None);
    }

    #[test]
    fn hashes_of_another_subtree_open_nothing() {
        let kept = Kept::of(LEAVES);
        let whole = kept.tile(TileId { level: 0, index: 1 }).unwrap();
        let subtree = Subtree::of_hashes(256, 8, whole).unwrap();
        assert!(subtree.opened(whole).is_some());
        for at in [0, 31, 32, 4_000, whole.len() - 1] {
            let mut other = whole.to_vec();
            other[at] ^= 1;
            assert_eq!(subtree.opened(&other), None, "byte {at}");
        }
        assert_eq!(subtree.opened(&whole[32..]), None);
        assert_eq!(subtree.opened(&[]), None);
        assert_eq!(subtree.opened(kept.tile(TileId { level: 0, index: 2 }).unwrap()), None);
    }
}
