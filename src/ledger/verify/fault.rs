//! What verification finds wrong, and where.

use std::io;

use thiserror::Error;

use super::ApprovalError;
use crate::error::LedgerError;
use crate::timestamp::Timestamp;

/// Why an export does not verify, and how much of it holds all the same.
#[derive(Debug, Error)]
#[error("{fault}{}", holds(*.proven))]
pub struct VerifyError {
    /// So many leaves, from 0, are those that a checkpoint counts, unchanged.
    pub proven: u64,
    /// What is wrong, and where.
    pub fault: Fault,
}

fn holds(proven: u64) -> String {
    match proven {
        0 => String::new(),
        1 => "; leaf 0 is as a checkpoint has it".to_owned(),
        _ => format!("; leaves 0 to {} are as a checkpoint has them", proven - 1),
    }
}

/// What is wrong. Lines are counted from 1, leaves by their index, from 0.
#[derive(Debug, Error)]
pub enum Fault {
    /// A checkpoint does not verify; nothing can be said about the lines.
    #[error("{}: {error}", checkpoint(*.older))]
    Checkpoint {
        /// Which of the older checkpoints, from 1; none: the newest.
        older: Option<usize>,
        /// Why.
        error: LedgerError,
    },
    /// An older checkpoint is of another log.
    #[error("older checkpoint {older} is of log {got}, the newest of log {expected}: give checkpoints of one log")]
    OtherLog {
        /// Which of the older checkpoints, from 1.
        older: usize,
        /// The log of the newest.
        expected: String,
        /// The log of the older one.
        got: String,
    },
    /// An older checkpoint is newer than the newest.
    #[error(
        "older checkpoint {older} counts {size} leaves, the newest only {newest}: verify against the one with most"
    )]
    NotOlder {
        /// Which of the older checkpoints, from 1.
        older: usize,
        /// Its size.
        size: u64,
        /// The size of the newest.
        newest: u64,
    },
    /// Two checkpoints contradict each other: the log was rewritten by whoever holds its key.
    #[error(
        "two signed checkpoints of {size} leaves have different roots: whoever holds the log's key showed two logs"
    )]
    Fork {
        /// How many leaves both count.
        size: u64,
    },
    /// The export cannot be read.
    #[error("line {line} cannot be read: {error}")]
    Read {
        /// Which line.
        line: u64,
        /// What the operating system said.
        error: io::Error,
    },
    /// A line is longer than any leaf.
    #[error("line {line} is longer than the 65535 bytes that a leaf may have")]
    TooLong {
        /// Which line.
        line: u64,
    },
    /// A line was changed so that it is no leaf any more.
    #[error("line {line}, where leaf {index} is expected, was changed: {error}")]
    NotCanonical {
        /// Which line.
        line: u64,
        /// Which leaf should stand there.
        index: u64,
        /// What is wrong with it.
        error: LedgerError,
    },
    /// The export breaks off within a line.
    #[error("the export breaks off within line {line}, in leaf {index}: it was cut, or is still being written")]
    Truncated {
        /// Which line.
        line: u64,
        /// Which leaf should stand there.
        index: u64,
    },
    /// Line ends were converted.
    #[error("line {line} ends with a carriage return: the file was converted; copy it as binary, unchanged")]
    Converted {
        /// Which line.
        line: u64,
    },
    /// The export has no leaf 0.
    #[error("the export begins with leaf {got}; to verify, all leaves from 0 are needed: export from the beginning")]
    StartsLate {
        /// The first leaf there is.
        got: u64,
    },
    /// Leaves are missing.
    #[error(
        "line {line} is leaf {got}, and leaf {expected} is expected, which stands nowhere: {}",
        range(*.expected, *.got)
    )]
    Missing {
        /// Which line.
        line: u64,
        /// Which leaf should stand there.
        expected: u64,
        /// Which leaf does.
        got: u64,
    },
    /// Leaves do not stand in their order.
    #[error("line {line} is leaf {got}, and leaf {expected} is expected, which stands in line {at}: lines were moved")]
    Moved {
        /// Which line.
        line: u64,
        /// Which leaf should stand there.
        expected: u64,
        /// Which leaf does.
        got: u64,
        /// In which line the expected one stands.
        at: u64,
    },
    /// A leaf stands there twice.
    #[error(
        "line {line} is leaf {got}, which stands in line {} already; leaf {expected} is expected",
        .got.saturating_add(1)
    )]
    Repeated {
        /// Which line.
        line: u64,
        /// Which leaf should stand there.
        expected: u64,
        /// Which leaf does.
        got: u64,
    },
    /// Time runs backwards.
    #[error("line {line} has the time {time}, and the line before it {before}: the time of one of them was changed")]
    TimeBackwards {
        /// Which line.
        line: u64,
        /// Its time.
        time: Timestamp,
        /// The time of the line before.
        before: Timestamp,
    },
    /// The parts of a large request are not in order.
    #[error("line {line}, leaf {index}: {}", expected_part(*.begun))]
    Part {
        /// Which line.
        line: u64,
        /// Which leaf.
        index: u64,
        /// Whether parts of a request were still awaited.
        begun: bool,
    },
    /// An approval is forged, or one that was needed is missing.
    #[error("line {line}, leaf {index}: {error}")]
    Approval {
        /// Which line.
        line: u64,
        /// Which leaf.
        index: u64,
        /// What is wrong with it.
        error: ApprovalError,
    },
    /// The log ends before all parts of a request.
    #[error("the log ends after {size} leaves, before all parts of its last request: the signed log itself is broken")]
    PartsMissing {
        /// How many leaves there are.
        size: u64,
    },
    /// The end is missing.
    #[error(
        "the export ends after {size} leaves; the checkpoint counts {newest}: leaves {size} to {} are missing",
        .newest.saturating_sub(1)
    )]
    TooFew {
        /// How many leaves there are.
        size: u64,
        /// How many were signed.
        newest: u64,
    },
    /// There is more than what was signed.
    #[error(
        "the first {size} leaves are those that the checkpoint counts; from line {line} on, nothing is \
        signed: lines were appended, or a newer checkpoint is needed"
    )]
    TooMany {
        /// The first line that is too many.
        line: u64,
        /// How many leaves were signed.
        size: u64,
    },
    /// The leaves are not those that were signed.
    #[error(
        "leaves 0 to {} do not give the signed root: the content of some leaf from {from} to {} was \
        changed; an older checkpoint of this log between the two, or a consistency proof, narrows it",
        .to.saturating_sub(1),
        .to.saturating_sub(1)
    )]
    Root {
        /// All leaves before this one are as signed.
        from: u64,
        /// How many leaves the checkpoint counts whose root they do not give.
        to: u64,
    },
}

fn checkpoint(older: Option<usize>) -> String {
    older.map_or_else(
        || "the checkpoint does not verify".to_owned(),
        |place| format!("older checkpoint {place} does not verify"),
    )
}

fn range(from: u64, to: u64) -> String {
    match to.saturating_sub(from) {
        1 => "it was removed".to_owned(),
        _ => format!("leaves {from} to {} were removed", to.saturating_sub(1)),
    }
}

fn expected_part(begun: bool) -> &'static str {
    match begun {
        true => "the next part of the request before it is expected here: a part is missing or was changed",
        false => "a later part of a request stands here without those before it: a part is missing or was changed",
    }
}
