//! The forms in which auditors get the ledger.
//!
//! What comes in: leaves, each a line. What goes out: a file of one of the forms. Nothing here reads a clock or a disk, so
//! the same leaves always give the same file, and whoever has the leaves can see whether a file was made of them.
//!
//! ```text
//! lines -> convert -> Form::leaf, for each -> Form::end -> a file
//! lines, a file -> compare -> whether it says what they say, or the first row and column that does not
//! ```
//!
//! What must hold: every form says all that a leaf says; no cell of a CSV file is taken for a formula; memory stays the same
//! however many leaves there are.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod compare;
mod csv;
mod jsonl;
mod ocsf;
mod parquet;
mod rows;
#[cfg(test)]
mod suite;

use std::io::{self, BufRead, Read, Write};

use strongroom_ledger::LedgerError;
use strongroom_ledger::leaf::MAX_LINE;
use thiserror::Error;

pub use compare::{Difference, compare};

/// The version of what the forms say, and not of the tool: a later one reads a file from the archive, and it still says the same.
/// Whoever changes the columns, or what stands in them, counts it up, and writes down what the new form is: `golden/form-N.txt`.
const FORM_VERSION: &str = "1";

/// A form of the export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One leaf a line, as it is.
    Jsonl,
    /// A table with a row an item.
    Csv,
    /// The same table in columns.
    Parquet,
    /// Events of the Open Cybersecurity Schema Framework, one a line.
    Ocsf,
}

/// A file of one form as it is written.
trait Form {
    /// Adds a leaf, a line without its newline.
    fn leaf(&mut self, line: &[u8]) -> Result<(), ExportError>;

    /// Writes what belongs at the end.
    fn end(&mut self) -> Result<(), ExportError>;
}

/// Why there is no file.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A line is no leaf.
    #[error("line {line}: {error}")]
    Leaf {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        error: LedgerError,
    },
    /// The lines can't be read, or the file can't be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A table can't be written.
    #[error("the table can't be written: {0}")]
    Csv(#[from] ::csv::Error),
    /// Columns can't be written, or read.
    #[error("the columns can't be written or read: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

impl Format {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Jsonl, Self::Csv, Self::Parquet, Self::Ocsf];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Ocsf => "ocsf",
        }
    }

    /// The form of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    fn writer<'w>(self, origin: &'w str, out: impl Write + Send + 'w) -> Result<Box<dyn Form + 'w>, ExportError> {
        Ok(match self {
            Self::Jsonl => Box::new(jsonl::Jsonl(out)),
            Self::Csv => Box::new(csv::Csv::new(out)?),
            Self::Parquet => Box::new(parquet::Parquet::new(out)?),
            Self::Ocsf => Box::new(ocsf::Ocsf { out, origin }),
        })
    }
}

/// Writes leaves in a form. `origin` is the log that they are of; `done` is told after each line how many there were.
pub fn convert(
    format: Format,
    origin: &str,
    lines: impl BufRead,
    out: impl Write + Send,
    done: impl FnMut(u64),
) -> Result<(), ExportError> {
    let mut writer = format.writer(origin, out)?;
    each(lines, done, |number, line| writer.leaf(line).map_err(|error| error.in_line(number)))?;
    writer.end()
}

/// Gives each line without its newline, and its number, from 1.
fn each<E: From<ExportError>>(
    mut lines: impl BufRead,
    mut done: impl FnMut(u64),
    mut give: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        let mut bounded = lines.by_ref().take(MAX_LINE as u64 + 1);
        if bounded.read_until(b'\n', &mut line).map_err(ExportError::from)? == 0 {
            return Ok(());
        }
        line.pop_if(|last| *last == b'\n');
        number += 1;
        give(number, &line)?;
        done(number);
    }
}

impl ExportError {
    /// The same, of a line that is known now.
    fn in_line(self, line: u64) -> Self {
        match self {
            Self::Leaf { error, .. } => Self::Leaf { line, error },
            other => other,
        }
    }
}

/// A line that is no leaf; its number is added where it is known.
impl From<LedgerError> for ExportError {
    fn from(error: LedgerError) -> Self {
        Self::Leaf { line: 0, error }
    }
}
