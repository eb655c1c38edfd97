//! What is stored: the rows of all families, to bytes and back. FORMAT.md in this folder's parent specifies them byte
//! by byte.
//!
//! Each row begins with a format byte of its own. Small numbers are LEB128, so rows stay small. Readers are strict:
//! bytes are read only if writing what was read gives the same bytes again; all else is [`StoreError::Corrupt`],
//! which names the kind of row and never its content.

mod archive;
mod block;
mod erasure;
mod job;
mod requests;
mod rights;
mod subject;
mod value;
mod vault;

pub use archive::{ArchiveIntent, ArchiveRow};
pub use block::{BLOCK, BlockRow};
pub use erasure::{Erased, ErasureRow, ErasureStage, ErasureWork};
pub use job::{JobKind, JobRow, JobState};
pub use requests::IdempotencyRow;
pub use rights::{Consent, Erasure, Hold, Scope};
pub use subject::{RowDek, SubjectRecord, SubjectState, WrappedDek};
pub use value::{IndexEntry, IndexKind, ValueRow};
pub use vault::{CounterRow, LaneHead, TenantRow, UsageRow, VaultRow};

#[cfg(doc)]
use crate::StoreError;

#[cfg(test)]
pub(crate) mod laws {
    //! What holds for every codec of rows.

    use std::fmt::Debug;

    use crate::StoreError;

    /// Encoding and decoding give the row back, and no beginning of the bytes and no longer bytes are a row.
    pub fn round_trip<R: PartialEq + Debug>(
        row: &R,
        encode: impl Fn(&R) -> Vec<u8>,
        decode: impl Fn(&[u8]) -> Result<R, StoreError>,
    ) {
        let bytes = encode(row);
        assert_eq!(&decode(&bytes).unwrap(), row);
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "the first {end} of {} bytes are a row", bytes.len());
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte more is still a row");
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            canonical(&flipped, &encode, &decode);
        }
    }

    /// Bytes that decode at all are the bytes that encoding gives.
    pub fn canonical<R>(bytes: &[u8], encode: impl Fn(&R) -> Vec<u8>, decode: impl Fn(&[u8]) -> Result<R, StoreError>) {
        if let Ok(row) = decode(bytes) {
            assert_eq!(encode(&row), bytes, "two ways to write one row");
        }
    }
}
