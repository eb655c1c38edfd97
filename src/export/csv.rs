//! The table as CSV (RFC 4180).
//!
//! Leaves hold names that callers choose, and a spreadsheet computes what looks like a formula. Such a cell gets an apostrophe
//! in front, as spreadsheets themselves mark text; so does one that begins with an apostrophe, and whoever takes one away
//! from each cell that begins with it has what the leaf says.

use std::io::Write;

use strongroom_ledger::leaf;

use crate::rows::{COLUMNS, Cell, rows};
use crate::{ExportError, Form};

/// What begins a formula, in some spreadsheet or other.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

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
                match (column.cell)(&row) {
                    Cell::Nothing => self.0.write_field("")?,
                    Cell::Text(text) => self.0.write_field(guarded(text))?,
                    Cell::Number(number) => self.0.write_field(number.to_string())?,
                    Cell::Time(time) => self.0.write_field(time.to_string())?,
                }
            }
            self.0.write_record(None::<&[u8]>)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ExportError> {
        Ok(self.0.flush()?)
    }
}

/// Text that no spreadsheet takes for a formula.
fn guarded(text: String) -> String {
    match text.starts_with(FORMULA) || text.starts_with('\'') {
        true => format!("'{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_spreadsheet_computes_begins_a_cell() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\u{ff1d}1", "'=1"] {
            assert_eq!(guarded(formula.to_owned()), format!("'{formula}"));
        }
        for text in ["", "app/loan-core", "a=b", "{}", "1"] {
            assert_eq!(guarded(text.to_owned()), text);
        }
    }
}
