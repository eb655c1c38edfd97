//! The vault's own rows: the vault itself, its tenants, counters and the heads of ledger lanes.

use strongroom_ids::{TenantId, TenantNo, VaultId};

use crate::StoreError;
use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;

/// The vault itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VaultRow {
    /// The format of the whole store: what opens it must know this number.
    pub format: u16,
    /// The vault's permanent identity.
    pub vault: VaultId,
    /// When it was made, in microseconds since 1970.
    pub created: u64,
}

impl VaultRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(FORMAT, 32).number(self.format).fixed(&self.vault.0).number(self.created).finish()
    }

    /// Reads what [`VaultRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new("the vault's row", bytes, FORMAT)?;
        let row = Self { format: reader.small()?, vault: VaultId(reader.array()?), created: reader.number()? };
        reader.finish().map(|()| row)
    }
}

/// A tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantRow {
    /// Its short number, with which all its keys begin.
    pub number: TenantNo,
    /// Its permanent identity.
    pub id: TenantId,
    /// Its name, for people.
    pub name: String,
    /// When it was made, in microseconds since 1970.
    pub created: u64,
}

impl TenantRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 32 + self.name.len());
        row.number(self.number.0).fixed(&self.id.0).bytes(self.name.as_bytes()).number(self.created).finish()
    }

    /// Reads what [`TenantRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new("a tenant's row", bytes, FORMAT)?;
        let number = TenantNo(reader.small()?);
        let id = TenantId(reader.array()?);
        let name = String::from_utf8(reader.bytes()?).map_err(|_| reader.corrupt("a name that is not UTF-8 stands"))?;
        let row = Self { number, id, name, created: reader.number()? };
        reader.finish().map(|()| row)
    }
}

/// How far a counter is reserved: every number below was, or may have been, given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterRow {
    /// The first number that is still free.
    pub next: u64,
}

impl CounterRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(FORMAT, 11).number(self.next).finish()
    }

    /// Reads what [`CounterRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new("a counter", bytes, FORMAT)?;
        let row = Self { next: reader.number()? };
        reader.finish().map(|()| row)
    }
}

/// What a principal was told of one thing on one day.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UsageRow {
    /// The last minute in which it was counted, since 1970.
    pub minute: u32,
    /// How often in that minute.
    pub in_minute: u32,
    /// How often on the day.
    pub in_day: u32,
    /// Which part of a value was shown first; zero in rows that count something else.
    pub mark: u64,
}

impl UsageRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 26);
        row.number(self.minute).number(self.in_minute).number(self.in_day).number(self.mark).finish()
    }

    /// Reads what [`UsageRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let place = "a count of what was told";
        let mut reader = Reader::new(place, bytes, FORMAT)?;
        let mut small = || {
            let number = reader.number()?;
            let wrong = |_| StoreError::Corrupt { place, what: "a number beyond 32 bits stands".to_owned() };
            u32::try_from(number).map_err(wrong)
        };
        let (minute, in_minute, in_day) = (small()?, small()?, small()?);
        let row = Self { minute, in_minute, in_day, mark: reader.number()? };
        reader.finish().map(|()| row)
    }
}

/// Where one lane of a tenant's ledger ends. It is written in the same commit as the leaves before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneHead {
    /// How often the vault was restored: a new incarnation begins a new log.
    pub incarnation: u16,
    /// The number of leaves.
    pub size: u64,
    /// The time of the last leaf, in microseconds since 1970; leaves never go back behind it.
    pub time: u64,
    /// The hashes of the full subtrees that the leaves make up, as the ledger encodes them.
    pub frontier: Vec<u8>,
    /// The rules that the leaves say are in force, as the ledger encodes them.
    pub rules: Vec<u8>,
}

impl LaneHead {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 28 + self.frontier.len() + self.rules.len());
        row.number(self.incarnation).number(self.size).number(self.time);
        row.bytes(&self.frontier).bytes(&self.rules).finish()
    }

    /// Reads what [`LaneHead::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new("the head of a ledger lane", bytes, FORMAT)?;
        let row = Self {
            incarnation: reader.small()?,
            size: reader.number()?,
            time: reader.number()?,
            frontier: reader.bytes()?,
            rules: reader.bytes()?,
        };
        reader.finish().map(|()| row)
    }
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
        fn the_vaults_row_comes_back_and_nothing_else_does(
            format in any::<u16>(), vault in any::<[u8; 16]>(), created in any::<u64>(),
        ) {
            let row = VaultRow { format, vault: VaultId(vault), created };
            laws::round_trip(&row, VaultRow::encode, VaultRow::decode);
        }

        #[test]
        fn a_tenants_row_comes_back_and_nothing_else_does(
            number in any::<u32>(), id in any::<[u8; 16]>(), name in ".{0,40}", created in any::<u64>(),
        ) {
            let row = TenantRow { number: TenantNo(number), id: TenantId(id), name, created };
            laws::round_trip(&row, TenantRow::encode, TenantRow::decode);
        }

        #[test]
        fn a_counter_comes_back_and_nothing_else_does(next in any::<u64>()) {
            laws::round_trip(&CounterRow { next }, CounterRow::encode, CounterRow::decode);
        }

        #[test]
        fn a_lane_head_comes_back_and_nothing_else_does(
            incarnation in any::<u16>(), size in any::<u64>(), time in any::<u64>(),
            frontier in vec(any::<u8>(), 0..200), rules in vec(any::<u8>(), 0..80),
        ) {
            let row = LaneHead { incarnation, size, time, frontier, rules };
            laws::round_trip(&row, LaneHead::encode, LaneHead::decode);
        }

        #[test]
        fn arbitrary_bytes_are_no_second_form_of_a_vaults_rows(mut bytes in vec(any::<u8>(), 1..120)) {
            bytes[0] = FORMAT;
            laws::canonical(&bytes, VaultRow::encode, VaultRow::decode);
            laws::canonical(&bytes, TenantRow::encode, TenantRow::decode);
            laws::canonical(&bytes, CounterRow::encode, CounterRow::decode);
            laws::canonical(&bytes, LaneHead::encode, LaneHead::decode);
        }
    }
}
