//! Whether a file says what these leaves say: it is read, and each row is held against the leaf that it is of.
//!
//! What is compared is what a file says and not its bytes, so whichever encoder wrote it in this form, it holds or it
//! does not. Files are bounded where they are read: whoever made one may have made it to fill the memory.

mod columns;
mod lined;
mod pages;
mod table;

use std::io::BufRead;

use parquet::file::reader::ChunkReader;
use strongroom_ledger::leaf::{self, ParsedLeaf};
use thiserror::Error;

use crate::{ExportError, Format, each};
use columns::Columns;
use lined::Lined;
use table::Table;

/// No row of a table, and no event, takes as many bytes.
const LONGEST: usize = 1 << 20;

/// Where a file does not say what the leaves say. Rows are counted from 1, without the one that names the columns.
#[derive(Debug, Error)]
pub enum Difference {
    /// Something else stands there.
    #[error("row {row} has something else in {column} than leaf {leaf} says")]
    Cell {
        /// Which row.
        row: u64,
        /// Of which leaf.
        leaf: u64,
        /// In which column, or member of an event.
        column: String,
    },
    /// It ends too early.
    #[error("it ends after {0} rows, before all leaves are in it")]
    Short(u64),
    /// There is more.
    #[error("more follows after the last leaf, from row {0} on")]
    Long(u64),
    /// A row is none.
    #[error("{} can't be read: {why}", place(*.row))]
    Unreadable {
        /// Which; 0 of the file as a whole.
        row: u64,
        /// Why.
        why: &'static str,
    },
    /// It has another form than this version writes, so nothing of it was compared.
    #[error("it is not of the form that this version writes, and can't be held against its leaves: {0}")]
    Form(&'static str),
    /// The lines or the file can't be read.
    #[error(transparent)]
    Export(#[from] ExportError),
}

fn place(row: u64) -> String {
    if row == 0 { "it".to_owned() } else { format!("row {row}") }
}

/// A file of one form as it is read.
trait There {
    /// Holds the next rows against a leaf, which is parsed, and a line without its newline.
    fn leaf(&mut self, leaf: &ParsedLeaf, line: &[u8]) -> Result<(), Difference>;

    /// Sees that nothing follows.
    fn end(&mut self) -> Result<(), Difference>;
}

/// Compares what a file says with what leaves say. `origin` and `done` are as in [`crate::convert`].
pub fn compare<F: ChunkReader + 'static>(
    format: Format,
    origin: &str,
    lines: impl BufRead,
    file: F,
    done: impl FnMut(u64),
) -> Result<(), Difference> {
    let read = || file.get_read(0).map_err(ExportError::from);
    let mut there: Box<dyn There + '_> = match format {
        Format::Jsonl => Box::new(Lined::new(read()?, None)),
        Format::Ocsf => Box::new(Lined::new(read()?, Some(origin))),
        Format::Csv => Box::new(Table::open(read()?)?),
        Format::Parquet => Box::new(Columns::open(file)?),
    };
    each(lines, done, |number, line| {
        let leaf = leaf::parse(line).map_err(|error| ExportError::from(error).in_line(number))?;
        there.leaf(&leaf, line)
    })?;
    there.end()
}
