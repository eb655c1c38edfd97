//! The bytes of the file `keys`: a header, the envelope, tenants with keys of their own, the wrapped keys in order, and two
//! sums over it all.

use ring::{digest, hmac};
use strongroom_ids::{KeyVersion, TenantId, VaultId};

use super::tenants::{Part, Tenants};
use crate::error::KeyError;
use crate::name::{KeyName, KeyState, NAME};
use crate::place::Parts;
use crate::root::{Envelope, KeystoreKey, RootKind};
use crate::seal::{self, Cipher, Format, OVERHEAD, SUITE};
use crate::secret::{self, Plaintext, RawKey};

/// The file's name.
pub(super) const FILE: &str = "keys";
const MAGIC: &[u8; 8] = b"SR-KEYS\n";
const FORMAT: u8 = 1;
/// Magic, format, suite, vault id, number; kind and two lengths of the envelope; count of entries. Tenants come beside.
const HEAD: usize = 8 + 1 + 1 + 16 + 8 + 1 + 2 + 2 + 4;
const SUM: usize = 32;
/// What no file is: a file has its magic in front.
const MARK: &[u8] = b"the same";

/// Bytes of a wrapped key.
pub(super) const WRAPPED: usize = 32 + OVERHEAD;
/// Bytes of an entry: name, version, state, created, changed, length of the wrapped key, and that key.
const ENTRY: usize = NAME + 4 + 1 + 8 + 8 + 1 + WRAPPED;

/// More than a file with half a million keys. What is longer is refused before it is read.
pub(super) const LIMIT: usize = 64 * 1024 * 1024;

/// One version of one key, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub name: KeyName,
    pub version: KeyVersion,
    pub state: KeyState,
    /// Microseconds since 1970.
    pub created: u64,
    /// When it got its state; microseconds since 1970.
    pub changed: u64,
    /// The wrapped key; `None` exactly when it is destroyed.
    pub wrapped: Option<[u8; WRAPPED]>,
}

/// The keys by which a keystore keeps itself: derived from its keystore key.
pub(super) struct FileKeys {
    vault: VaultId,
    wrap: Cipher,
    sum: hmac::Key,
}

impl FileKeys {
    pub fn derive(key: &KeystoreKey, vault: VaultId) -> Result<Self, KeyError> {
        let wrap = key.derive(vault, b"strongroom keystore wrap 1")?;
        let sum = key.derive(vault, b"strongroom keystore file 1")?;
        Ok(Self { vault, wrap: seal::cipher(&wrap), sum: hmac::Key::new(hmac::HMAC_SHA256, sum.as_slice()) })
    }

    /// By what these keys are known again; says nothing of them.
    pub fn mark(&self) -> hmac::Tag {
        hmac::sign(&self.sum, MARK)
    }

    /// Whether these are the keys with a mark. In constant time.
    pub fn has(&self, mark: &hmac::Tag) -> bool {
        hmac::verify(&self.sum, MARK, mark.as_ref()).is_ok()
    }

    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// What wraps the keys of those that have no key of their own.
    pub fn wrap(&self) -> &Cipher {
        &self.wrap
    }

    /// Wraps a key for its name and version.
    pub fn wrap_by(
        &self,
        cipher: &Cipher,
        name: &KeyName,
        version: KeyVersion,
        raw: &RawKey,
    ) -> Result<[u8; WRAPPED], KeyError> {
        let blob = seal::seal_blob(cipher, Format::Key, &self.aad(name, version), raw.as_slice())?;
        blob.try_into().map_err(|_| KeyError::TooLong)
    }

    /// Unwraps a key.
    pub fn unwrap_by(
        &self,
        cipher: &Cipher,
        name: &KeyName,
        version: KeyVersion,
        wrapped: &[u8],
    ) -> Result<RawKey, KeyError> {
        let plaintext = seal::open_blob(cipher, Format::Key, &self.aad(name, version), wrapped)?;
        secret::raw_key(plaintext.as_bytes()).ok_or(KeyError::CannotOpen)
    }

    /// Seals what else is kept of a tenant.
    pub fn seal_part(&self, part: Part, tenant: TenantId, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal::seal_blob(&self.wrap, Format::Part, &self.part_aad(part, tenant), plaintext)
    }

    /// Opens it. The file was proved, so only its writer can have gone wrong.
    pub fn open_part(&self, part: Part, tenant: TenantId, sealed: &[u8]) -> Result<Plaintext, KeyError> {
        let opened = seal::open_blob(&self.wrap, Format::Part, &self.part_aad(part, tenant), sealed);
        opened.map_err(|_| damaged("a sealed part does not open"))
    }

    /// Five lengths and their parts.
    fn part_aad(&self, part: Part, tenant: TenantId) -> [u8; 5 + 1 + 1 + 1 + 16 + 16] {
        let mut aad = Parts::new();
        aad.add([Format::Part as u8]);
        aad.add([SUITE]);
        aad.add([part as u8]);
        aad.add(self.vault.0);
        aad.add(tenant.0);
        aad.finish()
    }

    /// Five lengths and their parts.
    fn aad(&self, name: &KeyName, version: KeyVersion) -> [u8; 5 + 1 + 1 + 16 + NAME + 4] {
        let mut aad = Parts::new();
        aad.add([Format::Key as u8]);
        aad.add([SUITE]);
        aad.add(self.vault.0);
        aad.add(name.encode());
        aad.add(version.0.to_be_bytes());
        aad.finish()
    }

    /// The whole file. Puts the records into their order.
    pub fn encode(
        &self,
        number: u64,
        envelope: &Envelope,
        tenants: &Tenants,
        records: &mut [Record],
    ) -> Result<Vec<u8>, KeyError> {
        records.sort_by_key(Record::order);
        let full =
            KeyError::Exhausted("the keystore holds as many keys as fit; destroy versions that nothing depends on");
        let Envelope { kind, parameters, wrapped } = envelope;
        if parameters.len() > Envelope::PARAMETERS || wrapped.len() > Envelope::WRAPPED {
            return Err(KeyError::Exhausted(
                "an envelope has at most 1,024 bytes of parameters and 8,192 of a wrapped key",
            ));
        }
        let tenants = tenants.encode()?;
        let length = records.len().saturating_mul(ENTRY).saturating_add(HEAD + 2 * SUM);
        let length = length.saturating_add(parameters.len() + wrapped.len() + tenants.len());
        let count = u32::try_from(records.len()).ok().filter(|_| length <= LIMIT).ok_or(full)?;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[FORMAT, SUITE]);
        bytes.extend_from_slice(&self.vault.0);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.push(kind.number());
        for part in [parameters, wrapped] {
            const { assert!(Envelope::PARAMETERS <= u16::MAX as usize) }
            const { assert!(Envelope::WRAPPED <= u16::MAX as usize) }
            bytes.extend_from_slice(&(part.len() as u16).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&tenants);
        bytes.extend_from_slice(&count.to_be_bytes());
        for record in records {
            record.encode(&mut bytes);
        }
        let sum = hmac::sign(&self.sum, &bytes);
        bytes.extend_from_slice(sum.as_ref());
        let checksum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(checksum.as_ref());
        Ok(bytes)
    }
}

impl Record {
    fn order(&self) -> ([u8; NAME], KeyVersion) {
        (self.name.encode(), self.version)
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.name.encode());
        bytes.extend_from_slice(&self.version.0.to_be_bytes());
        bytes.push(self.state.encode());
        bytes.extend_from_slice(&self.created.to_be_bytes());
        bytes.extend_from_slice(&self.changed.to_be_bytes());
        let wrapped = self.wrapped.as_ref().map_or(&[][..], |wrapped| wrapped.as_slice());
        const { assert!(WRAPPED < 256) }
        bytes.push(wrapped.len() as u8);
        bytes.extend_from_slice(wrapped);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let name = KeyName::decode(take(bytes)?)?;
        let version = KeyVersion(u32::from_be_bytes(*take(bytes)?));
        let [state] = *take(bytes)?;
        let state = KeyState::decode(state)?;
        let created = u64::from_be_bytes(*take(bytes)?);
        let changed = u64::from_be_bytes(*take(bytes)?);
        let [length] = *take(bytes)?;
        let wrapped = match usize::from(length) {
            0 => None,
            WRAPPED => Some(*take(bytes)?),
            _ => return None,
        };
        // Versions count from 1, and exactly a destroyed key is gone.
        let sound = version.0 > 0 && wrapped.is_none() == (state == KeyState::Destroyed);
        sound.then_some(Self { name, version, state, created, changed, wrapped })
    }
}

/// A file whose checksum matches. Nothing in it is trusted before [`Unproved::prove`].
#[derive(Debug)]
pub(super) struct Unproved<'a> {
    pub vault: VaultId,
    pub number: u64,
    pub envelope: Envelope,
    /// Tenants and entries.
    contents: &'a [u8],
    summed: &'a [u8],
    sum: &'a [u8; SUM],
}

/// Reads the header, the envelope and the checksum, which tells damage from a wrong root key.
pub(super) fn parse(bytes: &[u8]) -> Result<Unproved<'_>, KeyError> {
    if !bytes.starts_with(MAGIC) {
        return Err(damaged("it does not begin as a keystore does"));
    }
    let too_short = || damaged("it is too short");
    let (body, checksum) = bytes.split_last_chunk::<SUM>().ok_or_else(too_short)?;
    if digest::digest(&digest::SHA256, body).as_ref() != checksum {
        return Err(damaged("its checksum does not match"));
    }
    let (_, rest) = body.split_at_checked(MAGIC.len()).ok_or_else(too_short)?;
    let (&[format, suite], _) = rest.split_first_chunk().ok_or_else(too_short)?;
    if format != FORMAT || suite != SUITE {
        return Err(KeyError::Unsupported { file: FILE, format, suite });
    }
    parse_body(body)
}

fn parse_body(body: &[u8]) -> Result<Unproved<'_>, KeyError> {
    let too_short = || damaged("it is too short");
    let (summed, sum) = body.split_last_chunk().ok_or_else(too_short)?;
    let (_, mut rest) = summed.split_at_checked(MAGIC.len() + 2).ok_or_else(too_short)?;
    let vault = VaultId(*take(&mut rest).ok_or_else(too_short)?);
    let number = u64::from_be_bytes(*take(&mut rest).ok_or_else(too_short)?);
    let &[kind] = take(&mut rest).ok_or_else(too_short)?;
    let kind = RootKind::from_number(kind).ok_or(KeyError::UnknownProvider(kind))?;
    let parameters = take_part(&mut rest, Envelope::PARAMETERS)?.to_vec();
    let wrapped = take_part(&mut rest, Envelope::WRAPPED)?.to_vec();
    let envelope = Envelope { kind, parameters, wrapped };
    Ok(Unproved { vault, number, envelope, contents: rest, summed, sum })
}

/// A part of the envelope, after its length. One that is longer than it can be is not read.
pub(super) fn take_part<'a>(bytes: &mut &'a [u8], most: usize) -> Result<&'a [u8], KeyError> {
    let too_short = || damaged("it is too short");
    let length = usize::from(u16::from_be_bytes(*take(bytes).ok_or_else(too_short)?));
    if length > most {
        return Err(damaged("its envelope is longer than it can be"));
    }
    let (part, rest) = bytes.split_at_checked(length).ok_or_else(too_short)?;
    *bytes = rest;
    Ok(part)
}

impl Unproved<'_> {
    /// Proves that the file was written under its keystore key, and reads its tenants and records.
    pub fn prove(&self, keys: &FileKeys) -> Result<(Tenants, Vec<Record>), KeyError> {
        hmac::verify(&keys.sum, self.summed, self.sum).map_err(|_| KeyError::NotAuthentic)?;
        parse_contents(self.contents).ok_or(damaged("its entries are not well formed"))
    }
}

fn parse_contents(mut bytes: &[u8]) -> Option<(Tenants, Vec<Record>)> {
    let tenants = Tenants::decode(&mut bytes)?;
    let count = u32::from_be_bytes(*take(&mut bytes)?);
    Some((tenants, parse_records(bytes, count)?))
}

/// Reads exactly `count` records in strict order, and nothing behind them: one list has one encoding.
fn parse_records(mut bytes: &[u8], count: u32) -> Option<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for _ in 0..count {
        let record = Record::decode(&mut bytes)?;
        if records.last().is_some_and(|last| last.order() >= record.order()) {
            return None;
        }
        records.push(record);
    }
    bytes.is_empty().then_some(records)
}

pub(super) fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

/// The file `keys` is not what was written.
pub(crate) fn damaged(what: &'static str) -> KeyError {
    KeyError::Damaged { file: FILE, what }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::tenants::tests::tenants;
    use super::*;
    use crate::name::tests::key_name;

    fn record() -> impl Strategy<Value = Record> {
        let state = prop::sample::select(KeyState::ALL.to_vec());
        let blob = vec(any::<u8>(), WRAPPED).prop_map(|bytes| bytes.try_into().unwrap());
        let dates = (any::<u64>(), any::<u64>());
        (key_name(), 1..u32::MAX, state, dates, blob).prop_map(|(name, version, state, (created, changed), blob)| {
            let wrapped = (state != KeyState::Destroyed).then_some(blob);
            Record { name, version: KeyVersion(version), state, created, changed, wrapped }
        })
    }

    #[test]
    fn an_envelope_beyond_its_bounds_is_neither_written_nor_read() {
        let keys = FileKeys::derive(&KeystoreKey::random().unwrap(), VaultId([1; 16])).unwrap();
        let envelope = |parameters: usize, wrapped: usize| Envelope {
            kind: RootKind::AwsKms,
            parameters: vec![1; parameters],
            wrapped: vec![2; wrapped],
        };
        let most =
            keys.encode(1, &envelope(Envelope::PARAMETERS, Envelope::WRAPPED), &Tenants::default(), &mut []).unwrap();
        assert!(parse(&most).unwrap().prove(&keys).is_ok());
        for longer in [envelope(Envelope::PARAMETERS + 1, 0), envelope(0, Envelope::WRAPPED + 1)] {
            assert!(matches!(keys.encode(1, &longer, &Tenants::default(), &mut []), Err(KeyError::Exhausted(_))));
        }
        // The two lengths, as somebody may write them.
        for (at, length) in [(35, Envelope::PARAMETERS + 1), (35 + 2 + Envelope::PARAMETERS, Envelope::WRAPPED + 1)] {
            let mut changed = most.clone();
            changed[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
            let body = changed.len() - SUM;
            let sum = digest::digest(&digest::SHA256, &changed[..body]);
            changed[body..].copy_from_slice(sum.as_ref());
            assert_eq!(parse(&changed).unwrap_err(), damaged("its envelope is longer than it can be"));
        }
        let mut unknown = most.clone();
        unknown[34] = 99;
        let body = unknown.len() - SUM;
        let sum = digest::digest(&digest::SHA256, &unknown[..body]);
        unknown[body..].copy_from_slice(sum.as_ref());
        assert_eq!(parse(&unknown).unwrap_err(), KeyError::UnknownProvider(99));
    }

    fn encoded(records: &[Record]) -> Vec<u8> {
        let mut bytes = vec![];
        records.iter().for_each(|record| record.encode(&mut bytes));
        bytes
    }

    proptest! {
        #[test]
        fn records_survive_their_encoding(mut records in vec(record(), 0..10)) {
            records.sort_by_key(Record::order);
            let count = records.len() as u32;
            prop_assert_eq!(parse_records(&encoded(&records), count), Some(records));
        }

        #[test]
        fn records_out_of_order_or_twice_are_refused(mut records in vec(record(), 2..10)) {
            records.sort_by_key(Record::order);
            records.reverse();
            prop_assert_eq!(parse_records(&encoded(&records), records.len() as u32), None);
            let twice = vec![records[0].clone(), records[0].clone()];
            prop_assert_eq!(parse_records(&encoded(&twice), 2), None);
        }

        #[test]
        fn a_wrong_count_is_refused(mut records in vec(record(), 0..10), count: u32) {
            records.sort_by_key(Record::order);
            let right = records.len() as u32;
            prop_assert_eq!(parse_records(&encoded(&records), count).is_some(), count == right);
            prop_assert_eq!(parse_records(&encoded(&records), right + 1), None);
        }

        #[test]
        fn what_parses_encodes_to_the_same_bytes(mut records in vec(record(), 1..4), at: prop::sample::Index, byte: u8) {
            records.sort_by_key(Record::order);
            let mut bytes = encoded(&records);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(parsed) = parse_records(&bytes, records.len() as u32) {
                prop_assert_eq!(encoded(&parsed), bytes);
            }
        }

        #[test]
        fn a_file_survives_its_encoding_within_its_bounds(
            kind in prop::sample::select(RootKind::ALL.to_vec()), number: u64, tenants in tenants(),
            parameters in vec(any::<u8>(), 0..=Envelope::PARAMETERS), wrapped in vec(any::<u8>(), 0..300),
            mut records in vec(record(), 0..3),
        ) {
            let keys = FileKeys::derive(&KeystoreKey::random().unwrap(), VaultId([1; 16])).unwrap();
            let envelope = Envelope { kind, parameters, wrapped };
            let bytes = keys.encode(number, &envelope, &tenants, &mut records).unwrap();
            let gone = records.iter().filter(|record| record.wrapped.is_none()).count();
            prop_assert_eq!(bytes.capacity(), bytes.len() + gone * WRAPPED);
            let parsed = parse(&bytes).unwrap();
            prop_assert_eq!((&parsed.envelope, parsed.number), (&envelope, number));
            let (read, entries) = parsed.prove(&keys).unwrap();
            prop_assert_eq!((read.encode().unwrap(), entries), (tenants.encode().unwrap(), records));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), count: u32) {
            let _ = parse_records(&bytes, count);
            let _ = parse_body(&bytes);
            let _ = parse_contents(&bytes);
            prop_assert!(parse(&bytes).is_err());
            let mut whole = [&MAGIC[..], &[FORMAT, SUITE], &bytes].concat();
            let sum = digest::digest(&digest::SHA256, &whole);
            whole.extend_from_slice(sum.as_ref());
            let _ = parse(&whole);
        }
    }
}
