//! The table as CSV (RFC 4180).
//!
//! Leaves hold names that callers choose, and a spreadsheet computes what looks like a formula. Such a cell gets an apostrophe
//! in front, as spreadsheets themselves mark text. So does what looks like a formula behind a semicolon, a tab or a line end,
//! where some spreadsheets begin another cell; a part, which looks like a date; and a number of which a spreadsheet would
//! round the last digits. And so does an apostrophe in these places: whoever takes one away at the beginning of a cell and
//! behind each of these characters has what the leaf says.

use std::io::Write;

use strongroom_ledger::leaf;

use crate::rows::{COLUMNS, Cell, Column, Row, rows};
use crate::{ExportError, Form};

/// What begins a formula, in some spreadsheet or other.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Behind what a spreadsheet may begin another cell.
const BEGINS: [char; 4] = [';', '\t', '\r', '\n'];
/// From here on a number has more than the 15 digits that spreadsheets keep.
const ROUNDED: u64 = 1_000_000_000_000_000;

/// A table with a header.
pub(crate) struct Csv<W: Write>(csv::Writer<W>);

impl<W: Write> Csv<W> {
    pub fn new(out: W) -> Result<Self, ExportError> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
        writer.write_record(COLUMNS.iter().map(|column| column.name))?;
        Ok(Self(writer))
    }
}

impl<W: Write> Form for Csv<W> {
    fn leaf(&mut self, line: &[u8]) -> Result<(), ExportError> {
        for row in rows(&leaf::parse(line)?) {
            for column in &COLUMNS {
                self.0.write_field(cell(column, &row))?;
            }
            self.0.write_record(None::<&[u8]>)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ExportError> {
        Ok(self.0.flush()?)
    }
}

/// What stands in a cell.
pub(crate) fn cell(column: &Column, row: &Row<'_>) -> String {
    match (column.cell)(row) {
        Cell::Nothing => String::new(),
        Cell::Text(text) if column.name == "part" => format!("'{text}"),
        Cell::Text(text) => guarded(&text),
        Cell::Number(number) if number >= ROUNDED => format!("'{number}"),
        Cell::Number(number) => number.to_string(),
        Cell::Time(time) => time.to_string(),
    }
}

/// Text of which no spreadsheet takes anything for a formula.
fn guarded(text: &str) -> String {
    let mut guarded = String::with_capacity(text.len() + 1);
    let mut begins = true;
    for next in text.chars() {
        if begins && (next == '\'' || FORMULA.contains(&next)) {
            guarded.push('\'');
        }
        guarded.push(next);
        begins = BEGINS.contains(&next);
    }
    guarded
}

/// What a guarded text was.
#[cfg(test)]
pub(crate) fn unguarded(cell: &str) -> String {
    let mut text = String::new();
    let (mut begins, mut left) = (true, cell.chars());
    while let Some(next) = left.next() {
        let next = if begins && next == '\'' { left.next().unwrap() } else { next };
        text.push(next);
        begins = BEGINS.contains(&next);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_that_a_spreadsheet_computes_begins_a_cell() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\u{ff1d}1", "'=1"] {
            assert_eq!(guarded(formula), format!("'{formula}"));
        }
        for (formula, cell) in [
            ("\t=1", "'\t'=1"),
            ("\r\n=1", "'\r'\n'=1"),
            ("a;=1", "a;'=1"),
            ("a\t@b;c", "a\t'@b;c"),
            ("a\n-1", "a\n'-1"),
        ] {
            assert_eq!(guarded(formula), cell);
        }
        for text in ["", "app/loan-core", "a=b", "{}", "1", "a;b", "a;b=c", "it's"] {
            assert_eq!(guarded(text), text);
        }
    }

    proptest! {
        #[test]
        fn what_a_cell_says_can_be_had_again(text in "[=+;'\t\r\n@a\u{ff1d}-]{0,16}") {
            let cell = guarded(&text);
            prop_assert_eq!(&unguarded(&cell), &text);
            let parts = cell.split(BEGINS);
            prop_assert!(parts.filter(|part| !part.is_empty()).all(|part| !part.starts_with(FORMULA)), "{}", cell);
        }
    }
}
