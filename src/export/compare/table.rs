//! A CSV file as it is read.

use std::io::{self, Read};

use csv::{ByteRecord, Reader, ReaderBuilder};
use strongroom_ledger::leaf::ParsedLeaf;

use super::{Difference, LONGEST, There};
use crate::csv::cell;
use crate::rows::{COLUMNS, rows};

/// The rows, one at a time.
pub(super) struct Table<R> {
    reader: Reader<Bounded<R>>,
    row: ByteRecord,
    rows: u64,
}

impl<R: Read> Table<R> {
    /// A table whose columns are those of the form.
    pub fn open(file: R) -> Result<Self, Difference> {
        let bounded = Bounded { from: file, left: 0 };
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bounded);
        let mut table = Self { reader, row: ByteRecord::new(), rows: 0 };
        let named = table.next()? && table.row.iter().eq(COLUMNS.iter().map(|column| column.name.as_bytes()));
        if named { Ok(table) } else { Err(Difference::Form("it has other columns")) }
    }

    fn next(&mut self) -> Result<bool, Difference> {
        self.reader.get_mut().left = LONGEST;
        let unreadable =
            |_| Difference::Unreadable { row: self.rows + 1, why: "it is no row, or longer than rows can be" };
        self.reader.read_byte_record(&mut self.row).map_err(unreadable)
    }
}

impl<R: Read> There for Table<R> {
    fn leaf(&mut self, leaf: &ParsedLeaf, _: &[u8]) -> Result<(), Difference> {
        for row in rows(leaf) {
            if !self.next()? {
                return Err(Difference::Short(self.rows));
            }
            self.rows += 1;
            for (at, column) in COLUMNS.iter().enumerate() {
                if self.row.get(at) != Some(cell(column, &row).as_bytes()) {
                    let column = column.name.to_owned();
                    return Err(Difference::Cell { row: self.rows, leaf: leaf.index, column });
                }
            }
            if self.row.len() > COLUMNS.len() {
                return Err(Difference::Unreadable { row: self.rows, why: "it has more cells than there are columns" });
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Difference> {
        if self.next()? { Err(Difference::Long(self.rows + 1)) } else { Ok(()) }
    }
}

/// Reads so many bytes, and no more until it is allowed to.
struct Bounded<R> {
    from: R,
    left: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.left);
        if most == 0 {
            return Err(io::Error::other("a row without an end"));
        }
        let read = self.from.read(into.get_mut(..most).unwrap_or_default())?;
        self.left -= read;
        Ok(read)
    }
}
