//! The table in columns: Apache Parquet, compressed with zstd.
//!
//! Rows are gathered into groups that are bounded in rows and in bytes, so memory stays the same. There are no statistics and no
//! indexes: engines would go by them, so each would have to be held against the leaves as well.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::SchemaDescriptor;
use strongroom_ledger::leaf;

use crate::rows::{COLUMNS, Cell, Column, Kind, rows};
use crate::{ExportError, FORM_VERSION, Form};

/// Rows of a group, at most.
const ROWS: usize = 65_536;
/// Bytes of text in a group, about: a leaf more may be in it.
const BYTES: usize = 16 << 20;

/// Columns that are gathered and written in groups.
pub(crate) struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Gathered>,
    rows: usize,
    bytes: usize,
}

/// The cells of a column in the group that is gathered.
#[derive(Default)]
struct Gathered {
    texts: Vec<ByteArray>,
    numbers: Vec<i64>,
    /// For each row, whether something stands there: 1, or 0.
    there: Vec<i16>,
}

impl<W: Write + Send> Parquet<W> {
    pub fn new(out: W) -> Result<Self, ExportError> {
        Self::with(out, properties().build())
    }

    /// The same in another encoding.
    pub fn with(out: W, properties: WriterProperties) -> Result<Self, ExportError> {
        let writer = SerializedFileWriter::new(out, schema()?.root_schema_ptr(), Arc::new(properties))?;
        Ok(Self { writer, columns: COLUMNS.iter().map(|_| Gathered::default()).collect(), rows: 0, bytes: 0 })
    }

    /// Writes the group that was gathered.
    fn write_group(&mut self) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for (column, gathered) in COLUMNS.iter().zip(&mut self.columns) {
            let Some(mut writer) = group.next_column()? else { continue };
            let there = (!column.always).then_some(gathered.there.as_slice());
            match column.kind {
                Kind::Text => writer.typed::<ByteArrayType>().write_batch(&gathered.texts, there, None)?,
                Kind::Number | Kind::Time => writer.typed::<Int64Type>().write_batch(&gathered.numbers, there, None)?,
            };
            writer.close()?;
            gathered.texts.clear();
            gathered.numbers.clear();
            gathered.there.clear();
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl<W: Write + Send> Form for Parquet<W> {
    fn leaf(&mut self, line: &[u8]) -> Result<(), ExportError> {
        for row in rows(&leaf::parse(line)?) {
            for (column, gathered) in COLUMNS.iter().zip(&mut self.columns) {
                let cell = (column.cell)(&row);
                gathered.there.push(i16::from(!matches!(cell, Cell::Nothing)));
                match cell {
                    Cell::Nothing => {}
                    Cell::Text(text) => {
                        self.bytes += text.len();
                        gathered.texts.push(ByteArray::from(text.into_bytes()));
                    }
                    // Parquet has unsigned numbers as signed ones with the same bits.
                    Cell::Number(number) => gathered.numbers.push(number.cast_signed()),
                    Cell::Time(time) => gathered.numbers.push(time.0.cast_signed()),
                }
            }
            self.rows += 1;
            if self.rows >= ROWS || self.bytes >= BYTES {
                self.write_group()?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ExportError> {
        self.write_group()?;
        self.writer.finish()?;
        Ok(self.writer.inner_mut().flush()?)
    }
}

/// How a file is encoded.
pub(crate) fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_created_by(format!("strongroom form {FORM_VERSION}"))
}

/// The columns, as Parquet declares them.
pub(crate) fn schema() -> Result<SchemaDescriptor, ParquetError> {
    Ok(SchemaDescriptor::new(Arc::new(parse_message_type(&declaration())?)))
}

/// The schema as text.
pub(crate) fn declaration() -> String {
    let columns: String = COLUMNS.iter().map(declared).collect();
    format!("message leaf {{\n{columns}}}\n")
}

/// How the schema declares a column.
fn declared(column: &Column) -> String {
    let kind = match column.kind {
        Kind::Text => ("binary", "STRING"),
        Kind::Number => ("int64", "INTEGER(64,false)"),
        Kind::Time => ("int64", "TIMESTAMP(MICROS,true)"),
    };
    let there = if column.always { "required" } else { "optional" };
    format!("  {there} {} {} ({});\n", kind.0, column.name, kind.1)
}
