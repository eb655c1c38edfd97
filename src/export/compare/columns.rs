//! A Parquet file as it is read, a batch of rows at a time.
//!
//! Beside its cells such a file may say things that engines go by: smallest and largest values, indexes, filters, an
//! order. A wrong one hides rows from a query. The form has none of them, and a file that does is refused. What stays
//! are the encodings of its pages, which are held against these, and how values of a column are ordered, by which
//! nothing goes without statistics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use strongroom_ledger::leaf::ParsedLeaf;

use super::{Difference, There, pages};
use crate::parquet::schema;
use crate::rows::{COLUMNS, Cell, Row, rows};

/// Rows that are read at once.
const BATCH: usize = 1_024;

pub(super) const BROKEN: &str = "it is no Parquet, or broken";
const SIDE: &str = "beside its cells it has statistics, indexes, an order or metadata, by which others may go";

/// The rows of all groups.
pub(super) struct Columns<R: ChunkReader + 'static> {
    reader: SerializedFileReader<R>,
    /// The group that is read next.
    group: usize,
    /// Rows of the one that is read which are in no batch yet.
    left: i64,
    columns: Vec<Batch>,
    /// Rows of the batch, and how many of them were held against leaves.
    batch: usize,
    taken: usize,
    rows: u64,
}

/// Cells of a column.
struct Batch {
    from: ColumnReader,
    texts: Vec<ByteArray>,
    numbers: Vec<i64>,
    /// For each row, whether something stands there; empty where it always does.
    there: Vec<i16>,
    /// How many texts or numbers were held against leaves.
    next: usize,
}

impl<R: ChunkReader + 'static> Columns<R> {
    /// A file whose columns are those of the form, and which has nothing else.
    pub fn open(file: R) -> Result<Self, Difference> {
        guarded(0, || {
            let there = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(broken(0))?;
            fits(&there)?;
            there.row_groups().iter().try_for_each(|group| pages::fit(&file, group))?;
            let reader = SerializedFileReader::new(file).map_err(broken(0))?;
            Ok(Self { reader, group: 0, left: 0, columns: vec![], batch: 0, taken: 0, rows: 0 })
        })
    }

    /// Reads more rows if the batch is at its end. Whether there are any.
    fn more(&mut self) -> Result<bool, Difference> {
        let row = self.rows + 1;
        while self.taken == self.batch {
            if self.left == 0 && self.group == self.reader.num_row_groups() {
                return Ok(false);
            }
            guarded(row, || if self.left == 0 { self.open_group(row) } else { self.read_batch(row) })?;
        }
        Ok(true)
    }

    fn open_group(&mut self, row: u64) -> Result<(), Difference> {
        let group = self.reader.get_row_group(self.group).map_err(broken(row))?;
        self.columns.clear();
        for at in 0..COLUMNS.len() {
            let from = group.get_column_reader(at).map_err(broken(row))?;
            self.columns.push(Batch { from, texts: vec![], numbers: vec![], there: vec![], next: 0 });
        }
        self.left = group.metadata().num_rows();
        self.group += 1;
        Ok(())
    }

    fn read_batch(&mut self, row: u64) -> Result<(), Difference> {
        let wanted = usize::try_from(self.left).unwrap_or_default().min(BATCH);
        // `fits` has seen that a group has one at the least.
        self.left -= wanted as i64;
        for column in &mut self.columns {
            if column.read(wanted).map_err(broken(row))? != wanted {
                return Err(Difference::Unreadable { row, why: "a column ends before the others" });
            }
        }
        if self.left == 0 {
            for column in &mut self.columns {
                // What no engine counts may be shown all the same.
                if column.add(1).map_err(broken(row))? > 0 {
                    return Err(Difference::Unreadable { row, why: "a column of its group goes on behind the others" });
                }
            }
        }
        (self.batch, self.taken) = (wanted, 0);
        Ok(())
    }

    /// Holds the next row, which is there, against one of a leaf. Says in which column it differs.
    fn differs(&mut self, row: &Row<'_>) -> Option<&'static str> {
        let at = self.taken;
        let differs = COLUMNS.iter().zip(&mut self.columns).find(|(column, batch)| {
            let is_there = column.always || batch.there.get(at) == Some(&1);
            !match (column.cell)(row) {
                Cell::Nothing => !is_there,
                Cell::Text(text) => is_there && batch.text() == Some(text.as_bytes()),
                Cell::Number(number) => is_there && batch.number() == Some(number.cast_signed()),
                Cell::Time(time) => is_there && batch.number() == Some(time.0.cast_signed()),
            }
        });
        let differs = differs.map(|(column, _)| column.name);
        for (column, batch) in COLUMNS.iter().zip(&mut self.columns) {
            batch.next += usize::from(column.always || batch.there.get(at) == Some(&1));
        }
        self.taken += 1;
        self.rows += 1;
        differs
    }
}

impl Batch {
    /// Reads so many rows in the place of those that were there. Answers how many there are.
    fn read(&mut self, rows: usize) -> Result<usize, ParquetError> {
        self.texts.clear();
        self.numbers.clear();
        self.there.clear();
        self.next = 0;
        self.add(rows)
    }

    /// Reads so many rows more, or as many as there are.
    fn add(&mut self, rows: usize) -> Result<usize, ParquetError> {
        let there = Some(&mut self.there);
        let (rows, ..) = match &mut self.from {
            ColumnReader::ByteArrayColumnReader(from) => from.read_records(rows, there, None, &mut self.texts)?,
            ColumnReader::Int64ColumnReader(from) => from.read_records(rows, there, None, &mut self.numbers)?,
            _ => return Err(ParquetError::General("a column of another kind".to_owned())),
        };
        Ok(rows)
    }

    fn text(&self) -> Option<&[u8]> {
        self.texts.get(self.next).map(ByteArray::data)
    }

    fn number(&self) -> Option<i64> {
        self.numbers.get(self.next).copied()
    }
}

impl<R: ChunkReader + 'static> There for Columns<R> {
    fn leaf(&mut self, leaf: &ParsedLeaf, _: &[u8]) -> Result<(), Difference> {
        for row in rows(leaf) {
            if !self.more()? {
                return Err(Difference::Short(self.rows));
            }
            if let Some(column) = self.differs(&row) {
                return Err(Difference::Cell { row: self.rows, leaf: leaf.index, column: column.to_owned() });
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Difference> {
        if self.more()? { Err(Difference::Long(self.rows + 1)) } else { Ok(()) }
    }
}

/// Sees that a file has the columns of the form and nothing beside them.
fn fits(there: &ParquetMetaData) -> Result<(), Difference> {
    let file = there.file_metadata();
    let form = schema().map_err(crate::ExportError::from)?;
    let (columns, expected) = (file.schema_descr(), form.columns());
    let same = |(one, other): (&ColumnDescriptor, &ColumnDescriptor)| {
        one.path() == other.path()
            && one.physical_type() == other.physical_type()
            && one.converted_type() == other.converted_type()
            && one.logical_type_ref() == other.logical_type_ref()
            && one.max_def_level() == other.max_def_level()
            && one.max_rep_level() == other.max_rep_level()
    };
    let mut pairs = columns.columns().iter().map(|column| &**column).zip(expected.iter().map(|column| &**column));
    if columns.num_columns() != expected.len() || !pairs.all(same) {
        return Err(Difference::Form("it has other columns"));
    }
    let unreadable = |why| Err(Difference::Unreadable { row: 0, why });
    let mut all = 0_i64;
    for group in there.row_groups() {
        // Of one without rows nothing would be read, whatever is in it.
        if group.num_rows() <= 0 || group.num_columns() != COLUMNS.len() {
            return unreadable(BROKEN);
        }
        all = all.saturating_add(group.num_rows());
        if group.columns().iter().any(|chunk| chunk.num_values() != group.num_rows()) {
            return unreadable("a column of it says another number of values than its group has rows");
        }
    }
    if all != file.num_rows() {
        return unreadable("it says another number of rows than its groups");
    }
    match file.key_value_metadata().is_none() && there.row_groups().iter().all(is_bare) {
        true => Ok(()),
        false => Err(Difference::Form(SIDE)),
    }
}

fn is_bare(group: &RowGroupMetaData) -> bool {
    let bare = |chunk: &ColumnChunkMetaData| {
        chunk.statistics().is_none()
            && chunk.column_index_offset().is_none()
            && chunk.offset_index_offset().is_none()
            && chunk.bloom_filter_offset().is_none()
            && chunk.index_page_offset().is_none()
            && chunk.geo_statistics().is_none()
            && chunk.unencoded_byte_array_data_bytes().is_none()
            && chunk.repetition_level_histogram().is_none()
            && chunk.definition_level_histogram().is_none()
            && chunk.file_path().is_none()
    };
    group.sorting_columns().is_none() && group.columns().iter().all(bare)
}

fn broken(row: u64) -> impl Fn(ParquetError) -> Difference {
    move |_| Difference::Unreadable { row, why: BROKEN }
}

/// The library promises nothing of files that somebody made to break it.
fn guarded<T>(row: u64, read: impl FnOnce() -> Result<T, Difference>) -> Result<T, Difference> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(Difference::Unreadable { row, why: BROKEN }))
}
