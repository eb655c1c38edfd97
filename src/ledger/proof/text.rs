//! Proofs as text: a leaf's, C2SP tlog-proof; and that a log grew, as C2SP tlog-witness shows it to a witness.

use data_encoding::BASE64;

use super::{GrowthProof, LeafProof, MOST_HASHES};
use crate::error::LedgerError;

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

impl LeafProof {
    /// Writes it.
    pub fn to_text(&self) -> String {
        format!("{HEADER}index {}\n{}\n{}", self.index, lines(&self.hashes), self.checkpoint)
    }

    /// Reads one. Extra data, which a proof of this vault has none of, is refused: nobody has signed it.
    pub fn from_text(text: &str) -> Result<Self, LedgerError> {
        let refused = LedgerError::Proof;
        let rest = text.strip_prefix(HEADER).ok_or(refused("it should begin with c2sp.org/tlog-proof@v1"))?;
        let (index, hashes, checkpoint) = read(rest, "index ")?;
        Ok(Self { index, hashes, checkpoint })
    }
}

impl GrowthProof {
    /// Writes it.
    pub fn to_text(&self) -> String {
        format!("old {}\n{}\n{}", self.from, lines(&self.hashes), self.checkpoint)
    }

    /// Reads one.
    pub fn from_text(text: &str) -> Result<Self, LedgerError> {
        let (from, hashes, checkpoint) = read(text, "old ")?;
        Ok(Self { from, hashes, checkpoint })
    }
}

fn lines(hashes: &[[u8; 32]]) -> String {
    hashes.iter().map(|hash| BASE64.encode(hash) + "\n").collect()
}

/// A line with a number behind a word, hashes one a line, a blank line, and a checkpoint.
fn read(text: &str, word: &str) -> Result<(u64, Vec<[u8; 32]>, String), LedgerError> {
    let refused = LedgerError::Proof;
    let (proof, checkpoint) = text.split_once("\n\n").ok_or(refused("a blank line before the checkpoint"))?;
    let mut lines = proof.split('\n');
    let number = lines.next().and_then(|line| line.strip_prefix(word)).ok_or(refused("the line index N, or old N"))?;
    let count = number.parse().ok().filter(|count: &u64| count.to_string() == number);
    let hash = |line: &str| BASE64.decode(line.as_bytes()).ok()?.try_into().ok();
    let hashes = lines.map(hash).collect::<Option<Vec<[u8; 32]>>>();
    let hashes = hashes
        .filter(|hashes| hashes.len() <= MOST_HASHES)
        .ok_or(refused("hashes of 32 bytes in base64, one a line, 64 at most"))?;
    Ok((count.ok_or(refused("a decimal number after index or old"))?, hashes, checkpoint.to_owned()))
}
