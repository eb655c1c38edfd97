//! The two halves of every row codec: a writer, and a strict reader that refuses what the writer would not write.

use strongroom_ids::{COUNTER_BITS, SubjectHandle};

use crate::StoreError;

/// The low bits of a handle, its counter.
const COUNTER: u64 = (1 << COUNTER_BITS) - 1;

/// Builds a row's bytes.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A row of the given format; `room` is a guess of its size.
    pub fn new(format: u8, room: usize) -> Self {
        let mut bytes = Vec::with_capacity(room);
        bytes.push(format);
        Self(bytes)
    }

    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    /// Bytes whose number the reader knows.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A number in unsigned LEB128: small numbers take one byte.
    pub fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        let mut left: u64 = number.into();
        while left >= 0x80 {
            self.0.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        self.0.push(left as u8);
        self
    }

    /// Bytes after their number.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).fixed(bytes)
    }

    /// A handle as incarnation and counter, both small as a rule.
    pub fn handle(&mut self, handle: SubjectHandle) -> &mut Self {
        self.number(handle.0 >> COUNTER_BITS).number(handle.0 & COUNTER)
    }

    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Takes a row's bytes apart. Counts and lengths are checked against the bytes that are left before anything is
/// reserved for them.
pub(crate) struct Reader<'a> {
    place: &'static str,
    size: usize,
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over a row of `place` that must have the given format.
    pub fn new(place: &'static str, bytes: &'a [u8], format: u8) -> Result<Self, StoreError> {
        let mut reader = Self { place, size: bytes.len(), left: bytes };
        match reader.byte()? {
            found if found == format => Ok(reader),
            found => Err(StoreError::Corrupt {
                place,
                what: format!("its format is {found} and this version of strongroom reads {format}"),
            }),
        }
    }

    /// The error for what was read last.
    pub fn corrupt(&self, what: &str) -> StoreError {
        let at = self.size.saturating_sub(self.left.len());
        StoreError::Corrupt { place: self.place, what: format!("{what} before byte {at} of {}", self.size) }
    }

    pub fn byte(&mut self) -> Result<u8, StoreError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        match self.left.split_first_chunk::<N>() {
            Some((bytes, left)) => {
                self.left = left;
                Ok(*bytes)
            }
            None => Err(self.corrupt("it ends too early")),
        }
    }

    /// A number in its only LEB128 form: no padding, no bit beyond the 64th.
    pub fn number(&mut self) -> Result<u64, StoreError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let moved = bits << shift;
            if moved >> shift != bits {
                return Err(self.corrupt("a number beyond 64 bits stands"));
            }
            number |= moved;
            if byte < 0x80 {
                return match byte {
                    0 if shift > 0 => Err(self.corrupt("a padded number stands")),
                    _ => Ok(number),
                };
            }
        }
        Err(self.corrupt("a number beyond 64 bits stands"))
    }

    /// A number of a smaller type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T, StoreError> {
        let number = self.number()?;
        T::try_from(number).map_err(|_| self.corrupt("a number too large for its field stands"))
    }

    /// How many things follow, each of at least `least` bytes.
    pub fn count(&mut self, least: usize) -> Result<usize, StoreError> {
        let count: usize = self.small()?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.left.len() => Ok(count),
            _ => Err(self.corrupt("a count of more than what follows stands")),
        }
    }

    /// Bytes after their number.
    pub fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        let length = self.count(1)?;
        match self.left.split_at_checked(length) {
            Some((bytes, left)) => {
                self.left = left;
                Ok(bytes.to_vec())
            }
            None => Err(self.corrupt("it ends too early")),
        }
    }

    /// A handle as incarnation and counter.
    pub fn handle(&mut self) -> Result<SubjectHandle, StoreError> {
        let incarnation = u64::from(self.small::<u16>()?);
        let counter = self.number()?;
        if counter > COUNTER {
            return Err(self.corrupt("a handle beyond 48 bits stands"));
        }
        Ok(SubjectHandle(incarnation << COUNTER_BITS | counter))
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The end: nothing may be left.
    pub fn finish(self) -> Result<(), StoreError> {
        match self.left {
            [] => Ok(()),
            _ => Err(self.corrupt("it should end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, StoreError> {
        let mut row = vec![1];
        row.extend_from_slice(bytes);
        let mut reader = Reader::new("a test", &row, 1)?;
        let number = reader.number()?;
        reader.finish().map(|()| number)
    }

    #[test]
    fn a_number_has_one_form_only() {
        assert_eq!(read(&[0]).unwrap(), 0);
        assert_eq!(read(&[0x80, 0x01]).unwrap(), 128);
        assert!(read(&[0x80, 0x00]).is_err());
        assert!(read(&[0xff, 0x80, 0x00]).is_err());
        assert!(read(&[0x80]).is_err());
        assert!(read(&[0, 0]).is_err());
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        let mut most = [0xff; 10];
        most[9] = 0x01;
        assert_eq!(read(&most).unwrap(), u64::MAX);
        most[9] = 0x02;
        assert!(read(&most).is_err());
        most[9] = 0x81;
        assert!(read(&[&most[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_length_beyond_the_row_reserves_nothing() {
        let row = Writer::new(1, 0).number(u64::MAX).finish();
        let mut reader = Reader::new("a test", &row, 1).unwrap();
        assert!(reader.bytes().is_err());
    }

    #[test]
    fn an_error_names_the_place_and_no_content() {
        let error = Reader::new("a value row", &[9, 77], 1).err().unwrap().to_string();
        assert!(error.starts_with("data loss in a value row: its format is 9"), "{error}");
        assert!(!error.contains("77"));
    }

    proptest! {
        #[test]
        fn any_number_comes_back(number in any::<u64>()) {
            let bytes = Writer::new(1, 10).number(number).finish();
            prop_assert_eq!(read(&bytes[1..]).unwrap(), number);
        }

        #[test]
        fn any_handle_comes_back(handle in any::<u64>()) {
            let bytes = Writer::new(1, 10).handle(SubjectHandle(handle)).finish();
            let mut reader = Reader::new("a test", &bytes, 1).unwrap();
            prop_assert_eq!(reader.handle().unwrap(), SubjectHandle(handle));
            prop_assert!(reader.finish().is_ok());
        }
    }
}
