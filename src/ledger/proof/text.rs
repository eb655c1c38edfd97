//! A leaf's proof as text, C2SP tlog-proof.

use data_encoding::BASE64;

use super::{LeafProof, MOST_HASHES};
use crate::error::LedgerError;

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

impl LeafProof {
    /// Writes it.
    pub fn to_text(&self) -> String {
        let hashes: String = self.hashes.iter().map(|hash| BASE64.encode(hash) + "\n").collect();
        format!("{HEADER}index {}\n{hashes}\n{}", self.index, self.checkpoint)
    }

    /// Reads one. Extra data, which a proof of this vault has none of, is refused: nobody has signed it.
    pub fn from_text(text: &str) -> Result<Self, LedgerError> {
        let refused = LedgerError::Proof;
        let rest = text.strip_prefix(HEADER).ok_or(refused("it should begin with c2sp.org/tlog-proof@v1"))?;
        let (proof, checkpoint) = rest.split_once("\n\n").ok_or(refused("a blank line before the checkpoint"))?;
        let mut lines = proof.split('\n');
        let number = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(refused("the line index N"))?;
        let index = number.parse().ok().filter(|index: &u64| index.to_string() == number);
        let hash = |line: &str| BASE64.decode(line.as_bytes()).ok()?.try_into().ok();
        let hashes = lines.map(hash).collect::<Option<Vec<[u8; 32]>>>();
        Ok(Self {
            index: index.ok_or(refused("a decimal number after index"))?,
            hashes: hashes
                .filter(|hashes| hashes.len() <= MOST_HASHES)
                .ok_or(refused("hashes of 32 bytes in base64, one a line, 64 at most"))?,
            checkpoint: checkpoint.to_owned(),
        })
    }
}
