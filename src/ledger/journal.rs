//! The journal: the leaves that restrict, in the order of the commits, at a second place. Pure; `FORMAT.md` says it byte by byte.
//!
//! Each record's MAC covers the one before, so one that was changed, dropped or put elsewhere breaks the chain at its place. How
//! far the chain had come stands in the head file ([`JournalEnd`]): so one that lost its end is found out as well.

use strongroom_ids::{TenantNo, VaultId};

use crate::leaf::MAX_LINE;

/// Format and suite: HMAC-SHA256.
const START: [u8; 2] = [1, 1];
/// Bytes before the first record: format, suite, and the vault's id.
pub const HEADER: usize = 2 + 16;
/// Bytes of a record's length.
pub const LENGTH: usize = 4;
/// Bytes of a record's MAC.
const MAC: usize = 32;
/// Kind, tenant, incarnation, and an index or a size.
const FRAME: usize = 1 + 4 + 2 + 8;
/// Bytes of a record behind its length, at most.
pub const MAX_RECORD: usize = FRAME + MAX_LINE + MAC;
/// The shortest one: of an empty line.
const MIN_RECORD: usize = FRAME + MAC;

const LEAF: u8 = 1;
const SEEN: u8 = 2;

/// HMAC-SHA256 over parts, each behind its length as eight big-endian bytes, under a key that the data folder does not hold.
pub type Mac<'m> = &'m dyn Fn(&[&[u8]]) -> [u8; 32];

/// A log in one incarnation: after a restore it goes on as another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Log {
    /// Whose; zero is the vault's own.
    pub tenant: TenantNo,
    /// How often the vault was restored before, and one.
    pub incarnation: u16,
}

/// What stands in a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A leaf that restricts.
    Leaf {
        /// Of which log.
        log: Log,
        /// Its index.
        index: u64,
        /// All of it, as it was exported.
        line: Vec<u8>,
    },
    /// All that restricts among the first leaves of a log stands before this.
    Seen {
        /// Which log.
        log: Log,
        /// How many leaves were looked at.
        size: u64,
        /// The root of the tree over them.
        root: [u8; 32],
    },
}

impl Record {
    /// Which log it is about, and how many leaves that one has at the least.
    pub fn reach(&self) -> (Log, u64) {
        match self {
            Self::Leaf { log, index, .. } => (*log, index.saturating_add(1)),
            Self::Seen { log, size, .. } => (*log, *size),
        }
    }

    fn body(&self) -> Vec<u8> {
        let (kind, log, number, rest) = match self {
            Self::Leaf { log, index, line } => (LEAF, log, index, line.as_slice()),
            Self::Seen { log, size, root } => (SEEN, log, size, root.as_slice()),
        };
        let mut body = Vec::with_capacity(FRAME + rest.len());
        body.push(kind);
        body.extend_from_slice(&log.tenant.0.to_be_bytes());
        body.extend_from_slice(&log.incarnation.to_be_bytes());
        body.extend_from_slice(&number.to_be_bytes());
        body.extend_from_slice(rest);
        body
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        let (tenant, rest) = rest.split_first_chunk::<4>()?;
        let (incarnation, rest) = rest.split_first_chunk::<2>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let log = Log { tenant: TenantNo(u32::from_be_bytes(*tenant)), incarnation: u16::from_be_bytes(*incarnation) };
        let number = u64::from_be_bytes(*number);
        match kind {
            LEAF => Some(Self::Leaf { log, index: number, line: rest.to_vec() }),
            SEEN => Some(Self::Seen { log, size: number, root: rest.try_into().ok()? }),
            _ => None,
        }
    }
}

/// How far a journal has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalEnd {
    /// How many records it has.
    pub records: u64,
    /// The MAC of the last one: it covers all.
    pub mac: [u8; 32],
}

impl JournalEnd {
    /// That of a journal without records.
    pub fn start(vault: VaultId, mac: Mac<'_>) -> Self {
        Self { records: 0, mac: mac(&[b"strongroom journal", &START, &vault.0]) }
    }

    fn next(&self, mac: Mac<'_>, body: &[u8]) -> Self {
        Self { records: self.records.saturating_add(1), mac: mac(&[b"strongroom journal record", &self.mac, body]) }
    }
}

/// What a journal begins with.
pub fn header(vault: VaultId) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&START);
    header[2..].copy_from_slice(&vault.0);
    header
}

/// Appends a record to the bytes that shall be written, and takes the end there.
pub fn append(end: &mut JournalEnd, record: &Record, mac: Mac<'_>, out: &mut Vec<u8>) {
    let body = record.body();
    *end = end.next(mac, &body);
    // A line is less than 64 KiB.
    out.extend_from_slice(&((body.len() + MAC) as u32).to_be_bytes());
    out.extend_from_slice(&body);
    out.extend_from_slice(&end.mac);
}

/// How many bytes a record has behind its length; `None` if no record is so long or so short.
pub fn length(bytes: [u8; LENGTH]) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(bytes)).ok()?;
    (MIN_RECORD..=MAX_RECORD).contains(&length).then_some(length)
}

/// Reads what stands behind a record's length, and takes the end there; `None` if it is not what follows.
pub fn read(end: &mut JournalEnd, bytes: &[u8], mac: Mac<'_>) -> Option<Record> {
    let (body, written) = bytes.split_last_chunk::<MAC>()?;
    let next = end.next(mac, body);
    // Whoever could find it out byte by byte would need to write the file again and again while the vault is stopped.
    if next.mac != *written {
        return None;
    }
    let record = Record::parse(body)?;
    *end = next;
    Some(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::hmac;

    use super::*;

    const VAULT: VaultId = VaultId([0x11; 16]);

    fn mac(seed: u8) -> impl Fn(&[&[u8]]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[seed; 32]);
        move |parts| {
            let mut context = hmac::Context::with_key(&key);
            for part in parts {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            context.sign().as_ref().try_into().unwrap()
        }
    }

    fn written(records: &[Record]) -> Vec<u8> {
        let mac = mac(7);
        let (mut bytes, mut end) = (header(VAULT).to_vec(), JournalEnd::start(VAULT, &mac));
        records.iter().for_each(|record| append(&mut end, record, &mac, &mut bytes));
        bytes
    }

    /// What can be read from the beginning on, and how many bytes that are.
    fn read_all(bytes: &[u8]) -> (Vec<Record>, usize) {
        let mac = mac(7);
        let (mut records, mut end, mut at) = (vec![], JournalEnd::start(VAULT, &mac), HEADER);
        if bytes.get(..HEADER) != Some(&header(VAULT)[..]) {
            return (records, 0);
        }
        let behind = |at: usize| {
            let length = length(bytes.get(at..at + LENGTH)?.try_into().unwrap())?;
            bytes.get(at + LENGTH..at + LENGTH + length)
        };
        while let Some(record) = behind(at).and_then(|bytes| Some((bytes.len(), read(&mut end, bytes, &mac)?))) {
            at += LENGTH + record.0;
            records.push(record.1);
        }
        (records, at)
    }

    fn log() -> impl Strategy<Value = Log> {
        (any::<u32>(), any::<u16>()).prop_map(|(tenant, incarnation)| Log { tenant: TenantNo(tenant), incarnation })
    }

    fn record() -> impl Strategy<Value = Record> {
        let line = proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            (log(), any::<u64>(), line).prop_map(|(log, index, line)| Record::Leaf { log, index, line }),
            (log(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(log, size, root)| Record::Seen { log, size, root }),
        ]
    }

    proptest! {
        #[test]
        fn records_are_read_back_in_their_order(records in proptest::collection::vec(record(), 0..9)) {
            let bytes = written(&records);
            prop_assert_eq!(read_all(&bytes), (records, bytes.len()));
        }

        #[test]
        fn a_changed_byte_ends_the_chain_before_it(
            records in proptest::collection::vec(record(), 1..6), at in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let mut bytes = written(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let (read, to) = read_all(&bytes);
            prop_assert!(to <= at && read.len() < records.len());
            prop_assert_eq!(&read[..], &records[..read.len()]);
        }

        #[test]
        fn a_record_that_is_dropped_or_moved_ends_the_chain(
            records in proptest::collection::vec(record(), 2..6), at in any::<prop::sample::Index>(),
        ) {
            let whole = written(&records);
            let at = at.index(records.len() - 1);
            let (from, to) = (written(&records[..at]).len(), written(&records[..=at]).len());
            let dropped = [&whole[..from], &whole[to..]].concat();
            prop_assert_eq!(read_all(&dropped).0, &records[..at]);
            let next = written(&records[..at + 2]).len();
            let moved = [&whole[..from], &whole[to..next], &whole[from..to], &whole[next..]].concat();
            prop_assert_eq!(read_all(&moved).0, &records[..at]);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
            let behind = [&header(VAULT)[..], &bytes].concat();
            prop_assert_eq!(read_all(&behind).0, vec![]);
        }
    }

    #[test]
    fn the_journal_of_another_key_or_vault_is_none() {
        let seen = Record::Seen { log: Log { tenant: TenantNo(1), incarnation: 1 }, size: 3, root: [2; 32] };
        let other = mac(8);
        let mut bytes = header(VAULT).to_vec();
        append(&mut JournalEnd::start(VAULT, &other), &seen, &other, &mut bytes);
        assert_eq!(read_all(&bytes).0, []);
        let (own, mut bytes) = (mac(7), header(VAULT).to_vec());
        append(&mut JournalEnd::start(VaultId([0x12; 16]), &own), &seen, &own, &mut bytes);
        assert_eq!(read_all(&bytes).0, []);
    }

    #[test]
    fn a_journal_is_written_as_specified() {
        let log = Log { tenant: TenantNo(1), incarnation: 1 };
        let line = br#"{"index":"2"}"#.to_vec();
        let bytes = written(&[Record::Leaf { log, index: 2, line }, Record::Seen { log, size: 3, root: [2; 32] }]);
        let written = data_encoding::HEXLOWER.encode(&bytes);
        assert!(include_str!("FORMAT.md").contains(&format!("`{written}`")), "{written}");
    }
}
