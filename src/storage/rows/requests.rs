//! What was made under an idempotency key.

use strongroom_ids::{RowId, RowVersion};

use crate::StoreError;
use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;
const PLACE: &str = "an idempotency row";

/// The request behind an idempotency key, and the rows that it made.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct IdempotencyRow {
    /// When the key may be used anew, in microseconds since 1970.
    pub expires: u64,
    /// A keyed hash of the request.
    pub fingerprint: [u8; 32],
    /// The rows that the request's items led to, in their order.
    pub rows: Vec<RowId>,
    /// The version that each of them got, where rows have several; otherwise none.
    pub versions: Vec<RowVersion>,
}

impl IdempotencyRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 64 + self.rows.len());
        row.number(self.expires).fixed(&self.fingerprint).number(self.rows.len() as u64);
        let mut last = 0;
        for id in &self.rows {
            // Rows made together follow one another, so a step takes one byte.
            row.number(zigzag(id.0.wrapping_sub(last)));
            last = id.0;
        }
        row.number(self.versions.len() as u64);
        for version in &self.versions {
            row.number(version.0);
        }
        row.finish()
    }

    /// Reads what [`IdempotencyRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(PLACE, bytes, FORMAT)?;
        let expires = reader.number()?;
        let fingerprint = reader.array()?;
        let count = reader.count(1)?;
        let mut rows = Vec::with_capacity(count);
        let mut last: u64 = 0;
        for _ in 0..count {
            last = last.wrapping_add(unzigzag(reader.number()?));
            rows.push(RowId(last));
        }
        let count = reader.count(1)?;
        let mut versions = Vec::with_capacity(count);
        for _ in 0..count {
            versions.push(RowVersion(reader.small()?));
        }
        if !versions.is_empty() && versions.len() != rows.len() {
            return Err(reader.corrupt("another number of versions than of rows stands"));
        }
        reader.finish().map(|()| Self { expires, fingerprint, rows, versions })
    }
}

/// Maps steps near zero, up or down, to small numbers; one to one over all 64 bits.
fn zigzag(step: u64) -> u64 {
    let down = step >> 63;
    (step << 1) ^ down.wrapping_neg()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::rows::laws;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_idempotency_row_comes_back_and_nothing_else_does(
            expires in any::<u64>(),
            fingerprint in any::<[u8; 32]>(),
            rows in vec((any::<u64>().prop_map(RowId), any::<u32>().prop_map(RowVersion)), 0..20),
            several in any::<bool>(),
        ) {
            let (rows, mut versions): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            if !several {
                versions.clear();
            }
            let row = IdempotencyRow { expires, fingerprint, rows, versions };
            laws::round_trip(&row, IdempotencyRow::encode, IdempotencyRow::decode);
        }

        #[test]
        fn arbitrary_bytes_are_no_second_form_of_an_idempotency_row(mut bytes in vec(any::<u8>(), 1..200)) {
            bytes[0] = FORMAT;
            laws::canonical(&bytes, IdempotencyRow::encode, IdempotencyRow::decode);
        }

        #[test]
        fn zigzag_is_one_to_one(step in any::<u64>()) {
            prop_assert_eq!(unzigzag(zigzag(step)), step);
            prop_assert_eq!(zigzag(unzigzag(step)), step);
        }
    }

    #[test]
    fn rows_made_together_take_a_byte_each() {
        let first = 3 << 48 | 123_456;
        let rows: Vec<RowId> = (first..first + 10_000).map(RowId).collect();
        let row = IdempotencyRow { expires: 1_795_000_000_000_000, fingerprint: [1; 32], rows, versions: vec![] };
        assert!(row.encode().len() < 10_100);
    }
}
