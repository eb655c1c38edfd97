//! Covers: the complete subtrees that lie beside the leaves which somebody has, so that both together give the root.
//!
//! A tree is cut, in order and without a gap, into leaves that are there and into the largest complete subtrees that none
//! of them is in. That is the least that proves all of these leaves at once: for a few of many leaves little more than
//! a proof each, for nearly all of them nearly nothing.

use data_encoding::BASE64;
use tlog_tiles::{Hash as Node, node_hash};

use crate::error::LedgerError;
use crate::tiles::MAX_SIZE;

/// A complete subtree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subtree {
    /// Index of its first leaf, a multiple of its size.
    pub start: u64,
    /// It has 2^height leaves.
    pub height: u8,
    /// Its root; of a single leaf, the leaf's hash.
    pub hash: [u8; 32],
}

impl Subtree {
    /// Index after its last leaf; none for what can't be.
    pub fn end(&self) -> Option<u64> {
        let leaves = 1_u64.checked_shl(self.height.into()).filter(|leaves| *leaves <= MAX_SIZE)?;
        let end = self.start.checked_add(leaves).filter(|end| *end <= MAX_SIZE)?;
        self.start.is_multiple_of(leaves).then_some(end)
    }

    /// The complete subtrees over a range of leaves: where each starts, and its height. The fewest, in order.
    pub fn over(from: u64, to: u64) -> Vec<(u64, u8)> {
        let (mut all, mut start) = (Vec::new(), from);
        while start < to {
            // Below 64: aligned where it starts, and not beyond the end.
            let height = start.trailing_zeros().min((to - start).ilog2()) as u8;
            all.push((start, height));
            start += 1 << height;
        }
        all
    }
}

/// Gathers the leaves that are left out into subtrees that are as large as can be.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    /// In order; at most two of each height.
    subtrees: Vec<Subtree>,
}

impl Cover {
    /// Leaves out what comes next.
    pub fn leave_out(&mut self, mut next: Subtree) {
        while let Some(left) = self.subtrees.pop_if(|left| {
            let size = 1 << left.height;
            left.height == next.height && left.start.is_multiple_of(size << 1) && left.start + size == next.start
        }) {
            let hash = node_hash(Node(left.hash), Node(next.hash)).0;
            next = Subtree { start: left.start, height: left.height + 1, hash };
        }
        self.subtrees.push(next);
    }

    /// What was left out since the last time: before a leaf that is there, and at the end.
    pub fn take(&mut self) -> impl Iterator<Item = Subtree> {
        self.subtrees.drain(..)
    }
}

/// The first line of a file of proofs.
pub const HEADER: &str = "strongroom-proofs 1";

/// One line of a file of proofs. In order, they cover the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// A leaf that the export has.
    Leaf {
        /// Its index.
        index: u64,
        /// Its hash.
        hash: [u8; 32],
    },
    /// Leaves that it does not have.
    Tree(Subtree),
}

impl Piece {
    /// The line, without its newline.
    pub fn to_text(&self) -> String {
        match self {
            Self::Leaf { index, hash } => format!("leaf {index} {}", BASE64.encode(hash)),
            Self::Tree(Subtree { start, height, hash }) => format!("tree {start} {height} {}", BASE64.encode(hash)),
        }
    }

    /// Reads one; there is one way of writing it.
    pub fn from_text(text: &str) -> Result<Self, LedgerError> {
        let read = || {
            let mut words = text.split(' ');
            let kind = words.next()?;
            let place: u64 = words.next()?.parse().ok()?;
            let height: u8 = if kind == "tree" { words.next()?.parse().ok()? } else { 0 };
            let hash = BASE64.decode(words.next()?.as_bytes()).ok()?.try_into().ok()?;
            let piece = match kind {
                "leaf" => Self::Leaf { index: place, hash },
                _ => Self::Tree(Subtree { start: place, height, hash }),
            };
            (piece.to_text() == text).then_some(piece)
        };
        read().ok_or(LedgerError::Cover("a line is `leaf INDEX HASH` or `tree START HEIGHT HASH`"))
    }

    /// The same as a subtree.
    pub fn subtree(&self) -> Subtree {
        match *self {
            Self::Leaf { index, hash } => Subtree { start: index, height: 0, hash },
            Self::Tree(subtree) => subtree,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frontier::Frontier;
    use crate::tiles::tests::hash_of;

    /// A tree of so many leaves, cut at those that are there.
    pub(crate) fn pieces(hashes: &[[u8; 32]], there: impl Fn(u64) -> bool) -> Vec<Piece> {
        let (mut cover, mut pieces) = (Cover::default(), Vec::new());
        for (index, hash) in (0..).zip(hashes) {
            if there(index) {
                pieces.extend(cover.take().map(Piece::Tree));
                pieces.push(Piece::Leaf { index, hash: *hash });
            } else {
                cover.leave_out(Subtree { start: index, height: 0, hash: *hash });
            }
        }
        pieces.extend(cover.take().map(Piece::Tree));
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn leaves_and_what_lies_beside_them_give_the_root(there in prop::collection::vec(any::<bool>(), 0..300)) {
            let hashes: Vec<[u8; 32]> = (0..there.len() as u64).map(hash_of).collect();
            let pieces = pieces(&hashes, |index| there[index as usize]);
            let (mut joined, mut whole) = (Frontier::new(), Frontier::new());
            pieces.iter().for_each(|piece| joined.push_subtree(&piece.subtree()).unwrap());
            hashes.iter().for_each(|hash| whole.push_hash(*hash));
            prop_assert_eq!(joined, whole);
            // The fewest: between two leaves what `over` says.
            let expected: usize = there
                .chunk_by(|one, next| !one && !next)
                .scan(0_u64, |start, run| {
                    let from = *start;
                    *start += run.len() as u64;
                    Some(if run[0] { 1 } else { Subtree::over(from, *start).len() })
                })
                .sum();
            prop_assert_eq!(pieces.len(), expected);
            for piece in pieces {
                prop_assert_eq!(Piece::from_text(&piece.to_text()), Ok(piece));
            }
        }

        #[test]
        fn no_text_panics(text in "(leaf|tree|[a-z]{0,3}) [0-9]{0,21}( [0-9]{1,3})? [A-Za-z0-9+/=]{0,50}") {
            if let Ok(piece) = Piece::from_text(&text) {
                let _ = (piece.subtree().end(), Frontier::new().push_subtree(&piece.subtree()));
            }
        }
    }

    #[test]
    fn a_subtree_where_none_can_be_is_refused() {
        let mut tree = Frontier::new();
        let at = |start, height| Subtree { start, height, hash: [0; 32] };
        for wrong in [at(1, 0), at(2, 1), at(0, 49), at(0, 64), at(0, 255), at(u64::MAX, 0)] {
            assert!(tree.push_subtree(&wrong).is_err(), "{wrong:?}");
        }
        tree.push_subtree(&at(0, 0)).unwrap();
        assert!(tree.push_subtree(&at(1, 1)).is_err(), "it is no subtree of the tree");
        assert!(tree.push_subtree(&at(0, 0)).is_err(), "it is there already");
        tree.push_subtree(&at(1, 0)).unwrap();
        tree.push_subtree(&at(2, 1)).unwrap();
        assert_eq!(tree.size(), 4);
    }
}
