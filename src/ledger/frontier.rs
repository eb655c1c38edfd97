//! The tree's growing edge: what is needed to append and to know the root, and nothing else.

use tlog_tiles::{EMPTY_HASH, HASH_SIZE, Hash, node_hash, record_hash};

use crate::cover::Subtree;
use crate::error::LedgerError;

/// First byte of a stored frontier.
const FORMAT: u8 = 1;
/// Second byte: SHA-256, trees as in RFC 6962.
const SUITE: u8 = 1;
const HEADER: usize = 2 + 8;
/// No log gets that long; so no stored number can make a later append overflow.
const MAX_SIZE: u64 = 1 << 62;

/// The hash of a leaf: SHA-256(0x00 || line), RFC 6962 section 2.1.
pub fn leaf_hash(line: &[u8]) -> [u8; HASH_SIZE] {
    record_hash(line).0
}

/// A Merkle tree (RFC 6962 section 2.1), reduced to the roots of its complete subtrees.
///
/// There is one such subtree for each bit that is set in the size, the largest first: at most 64 hashes, whatever
/// the size of the log.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Frontier {
    size: u64,
    subtrees: Vec<Hash>,
}

impl Eq for Frontier {}

impl Frontier {
    /// The frontier of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves the tree has; the index of the next one.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf.
    pub fn push(&mut self, line: &[u8]) {
        self.push_hash(leaf_hash(line));
    }

    /// Appends a leaf whose [`leaf_hash`] is known already.
    pub fn push_hash(&mut self, leaf: [u8; HASH_SIZE]) {
        let mut hash = Hash(leaf);
        // Each trailing one of the size is a complete subtree as large as what has been joined so far.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                hash = node_hash(left, hash);
            }
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// Appends a complete subtree, which must begin where the tree ends.
    pub fn push_subtree(&mut self, subtree: &Subtree) -> Result<(), LedgerError> {
        let end = subtree.end().filter(|_| subtree.start == self.size);
        let end = end.ok_or(LedgerError::Cover("one piece begins where the one before it ends"))?;
        let mut hash = Hash(subtree.hash);
        // Beyond its own height as in `push_hash`; below it the size has no ones, or it would not begin here.
        for _ in 0..(self.size >> subtree.height).trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                hash = node_hash(left, hash);
            }
        }
        self.subtrees.push(hash);
        self.size = end;
        Ok(())
    }

    /// The root of the tree; of an empty one, SHA-256 of nothing.
    pub fn root(&self) -> [u8; HASH_SIZE] {
        let smallest_first = self.subtrees.iter().rev().copied();
        smallest_first.reduce(|right, left| node_hash(left, right)).unwrap_or(EMPTY_HASH).0
    }

    /// The complete subtrees that it is made of, the largest first.
    pub fn subtrees(&self) -> impl Iterator<Item = Subtree> {
        let places = Subtree::over(0, self.size).into_iter().zip(&self.subtrees);
        places.map(|((start, height), hash)| Subtree { start, height, hash: hash.0 })
    }

    /// The stored form: format, suite, size (8 bytes, big-endian), and the subtrees' hashes, largest subtree first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.subtrees.len() * HASH_SIZE);
        bytes.extend_from_slice(&[FORMAT, SUITE]);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        self.subtrees.iter().for_each(|hash| bytes.extend_from_slice(&hash.0));
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LedgerError> {
        let (format, rest) =
            bytes.split_first_chunk::<2>().ok_or(LedgerError::Frontier("it is shorter than its header"))?;
        if *format != [FORMAT, SUITE] {
            return Err(LedgerError::Frontier("its format is not one that this version reads"));
        }
        let (size, hashes) =
            rest.split_first_chunk::<8>().ok_or(LedgerError::Frontier("it is shorter than its header"))?;
        let size = u64::from_be_bytes(*size);
        if size > MAX_SIZE {
            return Err(LedgerError::Frontier("its size is beyond 2^62 leaves"));
        }
        let (hashes, rest) = hashes.as_chunks::<HASH_SIZE>();
        if !rest.is_empty() || hashes.len() != size.count_ones() as usize {
            return Err(LedgerError::Frontier("it must hold one hash for each bit set in its size"));
        }
        Ok(Self { size, subtrees: hashes.iter().map(|hash| Hash(*hash)).collect() })
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use tlog_tiles::{Error, HashReader, stored_hashes, tree_hash};

    use super::*;

    struct Stored(Vec<Hash>);

    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
            Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
        }
    }

    fn leaf(number: u64) -> Vec<u8> {
        format!("leaf {number}").into_bytes()
    }

    #[test]
    fn roots_are_those_of_the_full_tree_at_every_size() {
        let mut full = Stored(vec![]);
        let mut frontier = Frontier::new();
        for number in 0..=300 {
            assert_eq!(frontier.size(), number);
            assert_eq!(Hash(frontier.root()), tree_hash(number, &full).unwrap(), "size {number}");
            assert_eq!(Frontier::from_bytes(&frontier.to_bytes()), Ok(frontier.clone()));
            let hashes = stored_hashes(number, &leaf(number), &full).unwrap();
            full.0.extend(hashes);
            frontier.push(&leaf(number));
        }
    }

    /// The inputs and roots that certificate-transparency's reference tests publish for RFC 6962.
    #[test]
    fn roots_are_those_of_the_rfc_6962_reference_tests() {
        let inputs =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::new();
        assert_eq!(
            HEXLOWER.encode(&frontier.root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (input, root) in inputs.iter().zip(roots) {
            frontier.push(&HEXLOWER.decode(input.as_bytes()).unwrap());
            assert_eq!(HEXLOWER.encode(&frontier.root()), root);
        }
    }

    #[test]
    fn a_frontier_with_a_hash_too_many_or_too_few_is_refused() {
        let mut frontier = Frontier::new();
        (0..5).for_each(|number| frontier.push(&leaf(number)));
        let bytes = frontier.to_bytes();
        assert!(Frontier::from_bytes(&[&bytes[..], &[0; 32]].concat()).is_err());
        for end in 0..bytes.len() {
            assert!(Frontier::from_bytes(&bytes[..end]).is_err(), "cut to {end} bytes");
        }
    }

    #[test]
    fn a_size_that_could_overflow_is_refused() {
        let bytes = [&[FORMAT, SUITE][..], &u64::MAX.to_be_bytes(), &[0; 64 * 32]].concat();
        assert!(Frontier::from_bytes(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mut frontier) = Frontier::from_bytes(&bytes) {
                prop_assert_eq!(frontier.to_bytes(), bytes);
                frontier.push(b"next");
                let _ = frontier.root();
            }
        }
    }
}
