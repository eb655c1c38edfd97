//! Random bytes for tokens and salts, drawn from the system in larger pieces: one call a batch, not two a value.

use strongroom_keys as keys;
use zeroize::Zeroize;

use crate::error::Error;

/// How much is drawn at once.
const PIECE: usize = 1024;

/// A supply of random bytes for one request.
pub(crate) struct Dice {
    piece: Box<[u8; PIECE]>,
    used: usize,
}

impl Default for Dice {
    fn default() -> Self {
        Self { piece: Box::new([0; PIECE]), used: PIECE }
    }
}

impl Dice {
    /// Fresh random bytes.
    pub fn roll<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        const { assert!(N <= PIECE) }
        if PIECE - self.used < N {
            *self.piece = keys::random::<PIECE>()?;
            self.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.piece[self.used..self.used + N]);
        self.piece[self.used..self.used + N].zeroize();
        self.used += N;
        Ok(bytes)
    }
}
