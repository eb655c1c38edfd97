//! Random bytes for tokens and salts, drawn from the system in larger pieces: one call a request or so, not two a value.

use strongroom_keys as keys;
use zeroize::Zeroize;

use crate::error::Error;

/// How much is drawn first, enough for one value or two, and how much after that.
const FIRST: usize = 64;
const PIECE: usize = 1024;

/// A supply of random bytes for one request.
#[derive(Default)]
pub(crate) struct Dice {
    piece: Vec<u8>,
    used: usize,
}

impl Dice {
    /// Fresh random bytes.
    pub fn roll<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        const { assert!(N <= FIRST) }
        if self.piece.len() - self.used < N {
            self.piece = match self.piece.is_empty() {
                true => keys::random::<FIRST>()?.to_vec(),
                false => keys::random::<PIECE>()?.to_vec(),
            };
            self.used = 0;
        }
        let mut bytes = [0; N];
        let drawn = &mut self.piece[self.used..self.used + N];
        bytes.copy_from_slice(drawn);
        drawn.zeroize();
        self.used += N;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_come_twice_and_used_ones_are_gone() {
        let mut dice = Dice::default();
        let rolled: Vec<[u8; 16]> = (0..200).map(|_| dice.roll().unwrap()).collect();
        assert_eq!(rolled.iter().collect::<HashSet<_>>().len(), rolled.len());
        assert!(dice.piece[..dice.used].iter().all(|byte| *byte == 0));
    }
}
