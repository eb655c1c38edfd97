//! A CSV or JSONL file as a stream of records whose bytes are kept exactly as they are.
//!
//! What is not replaced must come out byte by byte as it went in, so records are not parsed into fields and written
//! anew: a splitter finds where records and cells begin and end, and everything else is copied. It reads CSV as RFC
//! 4180 says, and as the `csv` crate does where files differ from it: records end with LF, CRLF or CR, and a quote
//! inside an unquoted cell is a character like any other.

use std::io::{self, BufRead};
use std::ops::Range;

use ring::digest::{Context as Digest, SHA256};
use thiserror::Error;

/// How large a record may be. A value has at most 64 KiB; what is larger than this is a quote that nobody closed.
pub const LARGEST: usize = 4 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Cells between delimiters, a header first.
    Csv {
        /// What stands between cells.
        delimiter: u8,
    },
    /// One JSON object a line.
    Jsonl,
}

/// Where a cell stands in its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its bytes, quotes included.
    pub at: Range<usize>,
    /// Whether it began with a quote.
    pub quoted: bool,
}

/// One record.
pub struct Record {
    /// The line on which it begins; the first is 1.
    pub line: u64,
    /// Its bytes with the terminator, exactly as they stand in the file.
    pub bytes: Vec<u8>,
    /// Its bytes without terminator, and without the byte-order mark that a file may begin with.
    pub body: Range<usize>,
    /// Its cells; none in JSONL.
    pub cells: Vec<Cell>,
}

impl Record {
    /// An empty line, which is no record but is kept.
    pub fn is_blank(&self) -> bool {
        self.body.is_empty()
    }

    /// The record without its terminator.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.body.clone()).unwrap_or_default()
    }

    /// A cell's bytes, quotes included.
    pub fn raw(&self, at: &Range<usize>) -> &[u8] {
        self.bytes.get(at.clone()).unwrap_or_default()
    }
}

/// Why a file can't be split into records.
#[derive(Debug, Error)]
pub enum SplitError {
    /// It can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A record does not end.
    #[error("the record that begins on line {line} is longer than {} MiB: is a quote there never closed?", LARGEST >> 20)]
    TooLong {
        /// Where it begins.
        line: u64,
    },
}

/// A place between two records, and what stands before it.
#[derive(Clone)]
pub struct Place {
    /// Bytes before it.
    pub offset: u64,
    /// The line that begins here.
    pub line: u64,
    /// SHA-256 over the bytes before it.
    pub digest: Digest,
}

impl Place {
    /// The beginning of a file.
    pub fn start() -> Self {
        Self { offset: 0, line: 1, digest: Digest::new(&SHA256) }
    }

    /// The hash of what stands before, in hexadecimal.
    pub fn hash(&self) -> String {
        data_encoding::HEXLOWER.encode(self.digest.clone().finish().as_ref())
    }
}

/// Splits a file into records.
pub struct Splitter<R> {
    input: R,
    format: Format,
    place: Place,
}

/// Where in a record the splitter is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first byte of a cell.
    Begin,
    /// In a cell without quotes.
    Bare,
    /// Between the quotes of a cell.
    Quoted,
    /// After a quote that either closes the cell or begins a doubled one.
    Closing,
    /// After CR: the record is over, an LF belongs to it.
    Return,
}

impl<R: BufRead> Splitter<R> {
    /// Goes on at a place, which is where `input` stands.
    pub fn new(input: R, format: Format, place: Place) -> Self {
        Self { input, format, place }
    }

    /// Where the next record begins.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The next record; none at the end.
    pub fn next(&mut self) -> Result<Option<Record>, SplitError> {
        let mut record = Record { line: self.place.line, bytes: Vec::new(), body: 0..0, cells: Vec::new() };
        if self.place.offset == 0 && self.input.fill_buf()?.starts_with(BOM) {
            self.input.consume(BOM.len());
            record.bytes.extend_from_slice(BOM);
        }
        record.body = record.bytes.len()..record.bytes.len();
        match self.format {
            Format::Csv { delimiter } => self.fill_csv(&mut record, delimiter)?,
            Format::Jsonl => self.fill_line(&mut record)?,
        }
        if record.bytes.is_empty() {
            return Ok(None);
        }
        self.place.offset += record.bytes.len() as u64;
        self.place.line += record.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.place.digest.update(&record.bytes);
        Ok(Some(record))
    }

    fn fill_csv(&mut self, record: &mut Record, delimiter: u8) -> Result<(), SplitError> {
        let mut state = State::Begin;
        let mut cell = Cell { at: record.body.clone(), quoted: false };
        loop {
            let base = record.bytes.len();
            let chunk = self.input.fill_buf()?;
            let mut used = 0;
            let mut over = chunk.is_empty();
            for byte in chunk {
                if state == State::Return && *byte != b'\n' {
                    over = true;
                    break;
                }
                let at = base + used;
                used += 1;
                state = match (state, *byte) {
                    (State::Return, _) => {
                        over = true;
                        break;
                    }
                    (State::Begin, b'"') => {
                        cell.quoted = true;
                        State::Quoted
                    }
                    (State::Quoted, b'"') => State::Closing,
                    (State::Closing, b'"') | (State::Quoted, _) => State::Quoted,
                    (_, byte) if byte == delimiter => {
                        cell.at.end = at;
                        record.cells.push(std::mem::replace(&mut cell, Cell { at: at + 1..at + 1, quoted: false }));
                        State::Begin
                    }
                    (_, byte @ (b'\n' | b'\r')) => {
                        cell.at.end = at;
                        record.cells.push(cell.clone());
                        record.body.end = at;
                        if byte == b'\n' {
                            over = true;
                            break;
                        }
                        State::Return
                    }
                    _ => State::Bare,
                };
            }
            let ended = chunk.is_empty();
            record.bytes.extend_from_slice(chunk.get(..used).unwrap_or_default());
            self.input.consume(used);
            if over {
                if ended && state != State::Return {
                    // The last line of a file without a newline.
                    cell.at.end = record.bytes.len();
                    record.body.end = record.bytes.len();
                    record.cells.push(cell);
                }
                return Ok(());
            }
            self.not_too_long(record)?;
        }
    }

    fn fill_line(&mut self, record: &mut Record) -> Result<(), SplitError> {
        loop {
            let chunk = self.input.fill_buf()?;
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let used = newline.map_or(chunk.len(), |at| at + 1);
            record.bytes.extend_from_slice(chunk.get(..used).unwrap_or_default());
            self.input.consume(used);
            if newline.is_some() || used == 0 {
                let body = record.bytes.strip_suffix(b"\n").unwrap_or(&record.bytes);
                record.body.end = body.strip_suffix(b"\r").unwrap_or(body).len().max(record.body.start);
                return Ok(());
            }
            self.not_too_long(record)?;
        }
    }

    fn not_too_long(&self, record: &Record) -> Result<(), SplitError> {
        if record.bytes.len() <= LARGEST {
            return Ok(());
        }
        Err(SplitError::TooLong { line: record.line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    const CSV: Format = Format::Csv { delimiter: b',' };

    fn split(text: &[u8], format: Format, buffer: usize) -> Vec<Record> {
        let mut splitter = Splitter::new(BufReader::with_capacity(buffer, text), format, Place::start());
        std::iter::from_fn(|| splitter.next().unwrap()).collect()
    }

    fn cells(record: &Record) -> Vec<&[u8]> {
        record.cells.iter().map(|cell| record.raw(&cell.at)).collect()
    }

    #[test]
    fn a_quoted_cell_may_hold_delimiters_and_newlines() {
        let records = split(b"a,\"b,\n\"\"c\",d\r\ne,f,g", CSV, 3);
        assert_eq!(records.len(), 2);
        assert_eq!(cells(&records[0]), [b"a".as_slice(), b"\"b,\n\"\"c\"", b"d"]);
        assert!(records[0].cells[1].quoted && !records[0].cells[0].quoted);
        assert_eq!(records[1].line, 3);
        assert_eq!(cells(&records[1]), [b"e", b"f", b"g"]);
    }

    #[test]
    fn a_byte_order_mark_belongs_to_no_cell() {
        let records = split(b"\xef\xbb\xbf\"a\",b\n1,2\n", CSV, 64);
        assert_eq!(cells(&records[0]), [b"\"a\"".as_slice(), b"b"]);
        assert!(records[0].cells[0].quoted);
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_fill_the_memory() {
        let mut text = b"a\n\"".to_vec();
        text.resize(LARGEST + 100_000, b'x');
        let mut splitter = Splitter::new(BufReader::new(text.as_slice()), CSV, Place::start());
        splitter.next().unwrap();
        assert!(matches!(splitter.next(), Err(SplitError::TooLong { line: 2 })));
    }

    #[test]
    fn lines_of_json_end_with_lf_or_crlf() {
        let records = split(b"{\"a\":1}\r\n\n{}", Format::Jsonl, 4);
        let bodies: Vec<&[u8]> = records.iter().map(Record::body).collect();
        assert_eq!(bodies, [b"{\"a\":1}".as_slice(), b"", b"{}"]);
        assert!(records[1].is_blank());
    }

    #[test]
    fn a_place_knows_what_stands_before_it() {
        let text = b"h\n1\n2\n";
        let mut splitter = Splitter::new(text.as_slice(), CSV, Place::start());
        splitter.next().unwrap();
        splitter.next().unwrap();
        let place = splitter.place();
        assert_eq!((place.offset, place.line), (4, 3));
        let hash = data_encoding::HEXLOWER.encode(ring::digest::digest(&SHA256, b"h\n1\n").as_ref());
        assert_eq!(place.hash(), hash);
    }

    proptest! {
        #[test]
        fn records_put_together_are_the_file(text in "[a,\"\n\r\u{feff}张{}]{0,80}", buffer in 1usize..9) {
            for format in [CSV, Format::Jsonl] {
                let joined: Vec<u8> = split(text.as_bytes(), format, buffer).into_iter().flat_map(|r| r.bytes).collect();
                prop_assert_eq!(&joined, text.as_bytes());
            }
        }

        #[test]
        fn cells_are_where_the_csv_crate_finds_them(text in "[a,\"\n\r ]{0,60}", buffer in 1usize..9) {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            let expected: Vec<usize> = reader.byte_records().map(|record| record.unwrap().len()).collect();
            let found = split(text.as_bytes(), CSV, buffer);
            let found: Vec<usize> = found.iter().filter(|r| !r.is_blank()).map(|r| r.cells.len()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
