//! What can be wrong with bytes that claim to be the ledger's.

use thiserror::Error;

/// Why something is not what the ledger writes or signs. None of these shows a value or a key.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LedgerError {
    /// A line is not a leaf as the vault writes it.
    #[error("not a canonical leaf: {0}")]
    Leaf(String),
    /// A time is not written as leaves write it.
    #[error("not a time of the form 2026-11-24T02:39:12.123456Z")]
    Time,
    /// Stored bytes are not a tree's frontier.
    #[error("not a tree frontier: {0}")]
    Frontier(&'static str),
    /// Stored bytes do not name the rules in force.
    #[error("not the rules in force: {0}")]
    Rules(&'static str),
    /// A verifier key cannot be read.
    #[error("verifier key {place} of those given is not an Ed25519 key written as NAME+ID+BASE64")]
    Key {
        /// Which of the keys given, counted from 1.
        place: usize,
    },
    /// Text is not a signed note with the expected lines.
    #[error("not a signed note of the expected form: {0}")]
    Note(&'static str),
    /// A name cannot be signed under.
    #[error("a log's name may hold neither spaces nor plus signs, and may not be empty")]
    Name,
    /// Nobody whose key was given has signed.
    #[error("none of the given keys has signed this; give the verifier key of the log that the first line names")]
    Unsigned,
    /// Nobody whose key was given has signed, nor anybody whom those name: the log's key was rotated.
    #[error(
        "none of the given keys has signed this; leaf {leaf} names a newer key of the log, and nothing that the given keys \
         have signed has that leaf: give a checkpoint from the time when both signed, or the newer key"
    )]
    UnsignedSince {
        /// The leaf that names it.
        leaf: u64,
    },
    /// A signature by a known key does not fit the text.
    #[error("the signature of the log's key does not fit the text: the text was changed, or the key is another")]
    Signature,
    /// The note is signed, but by a key for another name.
    #[error("signed by a key of another log than the first line names")]
    Origin,
    /// A head to be signed contradicts itself.
    #[error("not a head of this vault: {0}")]
    Head(&'static str),
    /// Tiles that do not make up the tree.
    #[error("the tiles of the tree can't be used: {0}")]
    Tiles(&'static str),
    /// Pieces that do not make up a tree.
    #[error("not the proofs of an export: {0}")]
    Cover(&'static str),
    /// Text is not a proof of a leaf, or that a log grew.
    #[error("not a proof as C2SP tlog-proof or tlog-witness has it: expected {0}")]
    Proof(&'static str),
    /// A proof does not show what it should.
    #[error("the proof does not show {0}")]
    NotProven(&'static str),
    /// A witness's key cannot be read.
    #[error("witness key {place} of those given is not an Ed25519 key for cosignatures, written as NAME+ID+BASE64")]
    Witness {
        /// Which of the keys given, counted from 1.
        place: usize,
    },
}

impl LedgerError {
    /// Of JSON that is no leaf's. The reader's own words might repeat what stands there; its place is enough.
    pub(crate) fn no_leaf(error: &serde_json::Error) -> Self {
        Self::Leaf(format!("at byte {}, other JSON stands than a leaf has there", error.column()))
    }
}
