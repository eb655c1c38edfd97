//! Random bytes of one request of the yardstick, drawn in larger pieces, as the vault draws them.

use strongroom_keys as keys;

use super::work::unfit;
use crate::cli::output::CliError;

/// How much is drawn at once.
const PIECE: usize = 1_024;

/// A supply of random bytes.
pub struct Dice {
    piece: Vec<u8>,
    used: usize,
}

impl Default for Dice {
    fn default() -> Self {
        Self { piece: vec![], used: PIECE }
    }
}

impl Dice {
    /// Fresh random bytes.
    pub fn roll<const N: usize>(&mut self) -> Result<[u8; N], CliError> {
        if PIECE - self.used < N {
            self.piece = keys::random::<PIECE>().map_err(unfit)?.to_vec();
            self.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.piece[self.used..self.used + N]);
        self.used += N;
        Ok(bytes)
    }
}
