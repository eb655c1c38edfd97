//! What verification of a filtered export finds wrong, and where.

use std::io;

use thiserror::Error;

use super::Fault;
use crate::error::LedgerError;

/// What is wrong. Lines are counted from 1, leaves by their index, from 0.
#[derive(Debug, Error)]
pub enum ExcerptFault {
    /// The checkpoint does not verify; nothing can be said about the lines.
    #[error("the checkpoint does not verify: {0}")]
    Checkpoint(LedgerError),
    /// The manifest does not verify.
    #[error("the manifest does not verify: {0}")]
    Manifest(LedgerError),
    /// The manifest is of another export.
    #[error(
        "the manifest is of a checkpoint of {size} leaves, and the one that is here has {got}, or another log or root"
    )]
    OtherCheckpoint {
        /// How many leaves the manifest's has.
        size: u64,
        /// How many the other has.
        got: u64,
    },
    /// The lines cannot be read.
    #[error(transparent)]
    Lines(#[from] Fault),
    /// The proofs cannot be read.
    #[error("line {line} of the proofs cannot be read: {error}")]
    ReadProofs {
        /// Which line.
        line: u64,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file of proofs is none.
    #[error("the proofs do not begin with `strongroom-proofs 1`")]
    NoProofs,
    /// A line of the proofs is not what stands there.
    #[error("line {line} of the proofs was changed: {error}")]
    Proofs {
        /// Which line.
        line: u64,
        /// What is wrong with it.
        error: LedgerError,
    },
    /// The proofs break off.
    #[error("the proofs end at leaf {size}, and the checkpoint counts {signed}: the end of the proofs is missing")]
    ProofsEnd {
        /// How far they go.
        size: u64,
        /// How far they should.
        signed: u64,
    },
    /// A line was changed.
    #[error("line {line}, leaf {index}, was changed{why}")]
    Changed {
        /// Which line.
        line: u64,
        /// Which leaf stood there.
        index: u64,
        /// What else is known.
        why: String,
    },
    /// Line ends were converted.
    #[error("line {line} ends with a carriage return: the file was converted; copy it as binary, unchanged")]
    Converted {
        /// Which line.
        line: u64,
    },
    /// The export breaks off within a line.
    #[error("the export breaks off within line {line}, in leaf {index}: it was cut, or is still being written")]
    Truncated {
        /// Which line.
        line: u64,
        /// Which leaf should stand there.
        index: u64,
    },
    /// A line is missing.
    #[error("leaf {index} is expected in line {line} and stands nowhere: it was removed")]
    Dropped {
        /// Which line.
        line: u64,
        /// Which leaf stood there.
        index: u64,
    },
    /// The last lines are missing.
    #[error("the export ends after {lines} lines; leaf {index}, and what came after it, was removed")]
    Ends {
        /// How many lines there are.
        lines: u64,
        /// Which leaf should come next.
        index: u64,
    },
    /// Lines do not stand in their order.
    #[error("line {line} is leaf {got}, and leaf {index} is expected, which stands in line {at}: lines were moved")]
    Moved {
        /// Which line.
        line: u64,
        /// Which leaf should stand there.
        index: u64,
        /// Which leaf does.
        got: u64,
        /// In which line the expected one stands.
        at: u64,
    },
    /// A line is there that was not, or was once.
    #[error("line {line} is leaf {got}, which was not exported there: it was added, or stands there twice")]
    Added {
        /// Which line.
        line: u64,
        /// Which leaf it is.
        got: u64,
    },
    /// The same of what is no leaf.
    #[error("line {line}, behind the last leaf, is no leaf: it was added")]
    AddedOther {
        /// Which line.
        line: u64,
    },
    /// A leaf that the filter leaves out.
    #[error("line {line}, leaf {index}, was not asked for: it does not fit what the manifest says was")]
    Unasked {
        /// Which line.
        line: u64,
        /// Which leaf.
        index: u64,
    },
    /// Lines and proofs fit each other, and not the log.
    #[error(
        "lines and proofs do not give the signed root: some line was changed together with its proof, or a proof was; \
         each line alone can be asked of the vault: strongroom audit prove INDEX"
    )]
    Root,
    /// Lines are gone together with their proofs.
    #[error("the manifest counts {counted} lines, and there are {got}: lines were removed or added with their proofs")]
    Count {
        /// How many the vault sent.
        counted: u64,
        /// How many there are.
        got: u64,
    },
    /// Other lines, as many.
    #[error("the lines are not those that the manifest was signed for: some were exchanged together with their proofs")]
    Sum,
}
