//! What `import` and `export` are told of a file: its form, and which column belongs to which field.

use std::path::Path;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::output::CliError;
use super::records::Format;

/// `COLUMN=FIELD`: the values of a column belong to a field of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The column's name, as the header or the JSON member has it.
    pub column: String,
    /// The field's full name.
    pub field: String,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Field names hold no '=', column names may.
        match text.rsplit_once('=') {
            Some((column, field)) if !column.is_empty() && !field.is_empty() => {
                Ok(Self { column: column.to_owned(), field: field.to_owned() })
            }
            _ => Err("write COLUMN=FIELD, as in \"ID number=borrower.id_card\"".to_owned()),
        }
    }
}

/// The form of a file, as it is given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// Cells between delimiters, the first line a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl FormatName {
    /// The form that a file's name tells.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" | "txt" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// What stands between the cells of a CSV line: one character of ASCII, or the word `tab`.
pub fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("write one character of ASCII, or tab".to_owned()),
    }
}

/// A column that is named twice is a slip.
pub fn once_each(columns: &[String]) -> Result<(), CliError> {
    for (at, column) in columns.iter().enumerate() {
        if columns.iter().skip(at + 1).any(|other| other == column) {
            return Err(CliError::Usage(format!("--map names the column {column:?} twice: a column is one field")));
        }
    }
    Ok(())
}

/// The form of a file, and how much of it travels at once.
#[derive(Clone, Debug, Args)]
pub struct Form {
    /// The form of the file, where its name does not tell.
    #[arg(long, value_enum)]
    pub format: Option<FormatName>,

    /// What stands between CSV cells: one character, or tab.
    #[arg(long, value_name = "CHARACTER", value_parser = parse_delimiter)]
    pub delimiter: Option<u8>,

    /// How many values travel together; fewer where the vault's limits are lower.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub batch: u16,
}

impl Form {
    /// The format of a file by its name, unless it is said.
    pub fn of(&self, path: &Path) -> Result<Format, CliError> {
        let is_tsv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
        match self.format.or_else(|| FormatName::of(path)) {
            Some(FormatName::Csv) => {
                Ok(Format::Csv { delimiter: self.delimiter.unwrap_or(if is_tsv { b'\t' } else { b',' }) })
            }
            Some(FormatName::Jsonl) => Ok(Format::Jsonl),
            None => Err(CliError::Usage(format!(
                "{}: the name does not tell the form; add --format csv or jsonl",
                path.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_split_at_its_last_equals_sign() {
        let mapping: Mapping = "a=b=borrower.name".parse().unwrap();
        assert_eq!((mapping.column.as_str(), mapping.field.as_str()), ("a=b", "borrower.name"));
        assert!("name".parse::<Mapping>().is_err());
        assert!("=x".parse::<Mapping>().is_err());
    }
}
