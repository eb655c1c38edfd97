//! Which of 256 leaves have something that leaves are found by.

use crate::StoreError;
use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;
const PLACE: &str = "a row of the leaf index";

/// Leaves of a block.
pub const BLOCK: u64 = 256;

/// From so many leaves on, a bit for each of the block is shorter than their list.
const MANY: usize = 32;

/// Some of the leaves of a block, by their place in it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BlockRow([u64; 4]);

impl BlockRow {
    /// Adds a leaf.
    pub fn add(&mut self, place: u8) {
        self.0[usize::from(place / 64)] |= 1 << (place % 64);
    }

    /// Adds those of another row.
    pub fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
    }

    /// Keeps only those that another row has too.
    pub fn meet(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own &= other);
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The places of its leaves, in order.
    pub fn places(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |place| self.0[usize::from(place / 64)] >> (place % 64) & 1 == 1)
    }

    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 1 + MANY);
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        if (count as usize) < MANY {
            for place in self.places() {
                row.byte(place);
            }
        } else {
            for word in self.0 {
                row.fixed(&word.to_le_bytes());
            }
        }
        row.finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(PLACE, bytes, FORMAT)?;
        let mut row = Self::default();
        if bytes.len() == 1 + MANY {
            for word in &mut row.0 {
                *word = u64::from_le_bytes(reader.array()?);
            }
            reader.finish()?;
        } else {
            while !reader.is_empty() {
                row.add(reader.byte()?);
            }
        }
        // Each set of leaves has one form.
        match row.encode() == bytes && !row.is_empty() {
            true => Ok(row),
            false => {
                Err(StoreError::Corrupt { place: PLACE, what: "it is not written as the vault writes it".to_owned() })
            }
        }
    }
}

impl FromIterator<u8> for BlockRow {
    fn from_iter<I: IntoIterator<Item = u8>>(places: I) -> Self {
        let mut row = Self::default();
        places.into_iter().for_each(|place| row.add(place));
        row
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::rows::laws;

    proptest! {
        #[test]
        fn a_block_is_a_set_of_places(one: BTreeSet<u8>, other: BTreeSet<u8>) {
            let of = |set: &BTreeSet<u8>| set.iter().copied().collect::<BlockRow>();
            let places = |row: BlockRow| row.places().collect::<BTreeSet<u8>>();
            prop_assert_eq!(places(of(&one)), one.clone());
            prop_assert_eq!(of(&one).is_empty(), one.is_empty());
            let (mut joined, mut met) = (of(&one), of(&one));
            joined.join(&of(&other));
            met.meet(&of(&other));
            prop_assert_eq!(places(joined), &one | &other);
            prop_assert_eq!(places(met), &one & &other);
        }

        #[test]
        fn blocks_come_back_and_have_one_form(some in prop::collection::btree_set(any::<u8>(), 1..80), bytes: Vec<u8>) {
            let row: BlockRow = some.into_iter().collect();
            prop_assert_eq!(BlockRow::decode(&row.encode()).unwrap(), row);
            prop_assert!(row.encode().len() <= 33);
            laws::canonical(&bytes, BlockRow::encode, BlockRow::decode);
            laws::canonical(&[&[FORMAT][..], &bytes[..]].concat(), BlockRow::encode, BlockRow::decode);
        }
    }

    #[test]
    fn no_leaf_is_no_row() {
        assert!(BlockRow::decode(&BlockRow::default().encode()).is_err());
        for wrong in [&[][..], &[2, 1], &[FORMAT, 3, 2], &[FORMAT, 2, 2], &[FORMAT; 34]] {
            assert!(BlockRow::decode(wrong).is_err(), "{wrong:?}");
        }
    }
}
