//! Which columns of a file are replaced, where they stand in a record, and the record with other values in them.

use std::ops::Range;

use super::cells::{self, JsonStyle, Rule};
use super::output::CliError;
use super::records::Record;

/// A value found in a record.
pub struct Found {
    /// Which of the wanted columns.
    pub column: usize,
    /// Where its bytes stand.
    pub at: Range<usize>,
    /// Whether a CSV cell had quotes.
    pub quoted: bool,
    /// The value.
    pub value: Vec<u8>,
}

/// A record that can't be used, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which of the wanted columns; none for the record as a whole.
    pub column: Option<usize>,
    /// The rule that it breaks.
    pub rule: String,
}

impl Reject {
    fn new(column: impl Into<Option<usize>>, rule: Rule) -> Self {
        Self { column: column.into(), rule: rule.to_owned() }
    }
}

/// The columns that a command wants of every record of a file.
pub struct Columns {
    names: Vec<String>,
    layout: Layout,
}

enum Layout {
    Csv { delimiter: u8, places: Vec<usize>, width: usize },
    Jsonl { style: JsonStyle, numbers: Vec<bool> },
}

impl Columns {
    /// Finds the columns in a CSV file's header.
    pub fn of_csv(names: Vec<String>, header: &Record, delimiter: u8) -> Result<Self, CliError> {
        let titles = header.cells.iter().map(|cell| {
            let title = cells::csv_value(header.raw(&cell.at), cell.quoted).ok()?;
            String::from_utf8(title.into_owned()).ok()
        });
        let titles: Option<Vec<String>> = titles.collect();
        let titles = titles.ok_or_else(|| CliError::unfit("the header is no CSV in UTF-8: convert the file first"))?;
        let place = |name: &String| {
            let mut places = titles.iter().enumerate().filter(|(_, title)| *title == name).map(|(place, _)| place);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => {
                    Err(CliError::Usage(format!("the header has several columns named {name:?}: rename them")))
                }
                (None, _) => {
                    let known = titles.iter().map(|title| format!("{title:?}")).collect::<Vec<_>>().join(", ");
                    Err(CliError::Usage(format!("the header has no column {name:?}"))
                        .advise(format!("one of the columns that there are: {known}")))
                }
            }
        };
        let places = names.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self { names, layout: Layout::Csv { delimiter, places, width: titles.len() } })
    }

    /// Finds the columns as members of JSON objects. Those named in `numbers` are written as numbers where they can.
    pub fn of_jsonl(names: Vec<String>, numbers: &[String], style: JsonStyle) -> Self {
        let numbers = names.iter().map(|name| numbers.contains(name)).collect();
        Self { names, layout: Layout::Jsonl { style, numbers } }
    }

    /// The name of a wanted column; of none, the record's.
    pub fn name(&self, column: Option<usize>) -> &str {
        column.and_then(|column| self.names.get(column)).map_or("", String::as_str)
    }

    /// The values of the wanted columns. Empty ones, and JSON members that are absent or null, are not among them.
    pub fn find(&self, record: &Record) -> Result<Vec<Found>, Reject> {
        match &self.layout {
            Layout::Csv { places, width, .. } => self.find_csv(record, places, *width),
            Layout::Jsonl { .. } => self.find_jsonl(record),
        }
    }

    fn find_csv(&self, record: &Record, places: &[usize], width: usize) -> Result<Vec<Found>, Reject> {
        if record.cells.len() != width {
            return Err(Reject::new(None, "csv_columns"));
        }
        let mut found = Vec::with_capacity(places.len());
        for (column, cell) in places.iter().enumerate().filter_map(|(n, place)| Some((n, record.cells.get(*place)?))) {
            let value =
                cells::csv_value(record.raw(&cell.at), cell.quoted).map_err(|rule| Reject::new(column, rule))?;
            if !value.is_empty() {
                found.push(Found { column, at: cell.at.clone(), quoted: cell.quoted, value: value.into_owned() });
            }
        }
        Ok(found)
    }

    fn find_jsonl(&self, record: &Record) -> Result<Vec<Found>, Reject> {
        let members = cells::json_members(record.body()).map_err(|rule| Reject::new(None, rule))?;
        let mut found: Vec<Found> = Vec::with_capacity(self.names.len());
        for (column, name) in self.names.iter().enumerate() {
            let mut named = members.iter().filter(|member| member.name == *name);
            let Some(member) = named.next() else { continue };
            if named.next().is_some() {
                return Err(Reject::new(column, "json_member_twice"));
            }
            let at = member.at.start + record.body.start..member.at.end + record.body.start;
            let value = cells::json_value(record.raw(&at)).map_err(|rule| Reject::new(column, rule))?;
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let value = value.into_owned();
                found.push(Found { column, at, quoted: true, value });
            }
        }
        Ok(found)
    }

    /// Writes a record with other values in the places that were found. All else is copied byte by byte.
    pub fn replace<'a>(
        &self,
        record: &Record,
        others: impl Iterator<Item = (&'a Place, &'a [u8])>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|(place, _)| place.at.start);
        let mut copied = 0;
        for (place, value) in others {
            out.extend_from_slice(record.raw(&(copied..place.at.start)));
            match &self.layout {
                Layout::Csv { delimiter, .. } => cells::write_csv(value, place.quoted, *delimiter, out),
                Layout::Jsonl { style, numbers } => {
                    let number = numbers.get(place.column).copied().unwrap_or_default();
                    cells::write_json(value, number, *style, out).map_err(|rule| Reject::new(place.column, rule))?;
                }
            }
            copied = place.at.end;
        }
        out.extend_from_slice(record.raw(&(copied..record.bytes.len())));
        Ok(())
    }
}

/// Where in a record a value goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which of the wanted columns.
    pub column: usize,
    /// The bytes that it replaces.
    pub at: Range<usize>,
    /// Whether the CSV cell there had quotes.
    pub quoted: bool,
}

#[cfg(test)]
mod tests {
    use super::super::records::{Format, Place as Start, Splitter};
    use super::*;
    use proptest::prelude::*;

    fn records(text: &[u8], format: Format) -> Vec<Record> {
        let mut splitter = Splitter::new(text, format, Start::start());
        std::iter::from_fn(|| splitter.next().unwrap()).collect()
    }

    /// Replaces the wanted values of a file by what a function makes of them.
    fn mapped(text: &[u8], format: Format, names: &[&str], numbers: &[&str], by: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let numbers: Vec<String> = numbers.iter().map(|name| name.to_string()).collect();
        let mut records = records(text, format);
        let mut out = Vec::new();
        let columns = match format {
            Format::Csv { delimiter } => {
                let header = records.remove(0);
                out.extend_from_slice(&header.bytes);
                Columns::of_csv(names, &header, delimiter).unwrap()
            }
            Format::Jsonl => Columns::of_jsonl(names, &numbers, JsonStyle::default()),
        };
        for record in records {
            if record.is_blank() {
                out.extend_from_slice(&record.bytes);
                continue;
            }
            let found = columns.find(&record).unwrap();
            let others: Vec<(Place, Vec<u8>)> = found
                .into_iter()
                .map(|f| (Place { column: f.column, at: f.at, quoted: f.quoted }, by(&f.value)))
                .collect();
            columns.replace(&record, others.iter().map(|(p, v)| (p, v.as_slice())), &mut out).unwrap();
        }
        out
    }

    fn token(value: &[u8]) -> Vec<u8> {
        format!("srt1_{}", data_encoding::HEXLOWER.encode(value)).into_bytes()
    }

    fn value(token: &[u8]) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(token.strip_prefix(b"srt1_").unwrap()).unwrap()
    }

    const CSV: Format = Format::Csv { delimiter: b',' };

    #[test]
    fn only_the_mapped_cells_change() {
        let text = b"\xef\xbb\xbfid,\"name\",note\r\n1,Ann,\"kept, as it is\"\r\n\r\n2,,x\r\n";
        let tokens = mapped(text, CSV, &["name"], &[], |_| b"TOKEN".to_vec());
        assert_eq!(tokens, b"\xef\xbb\xbfid,\"name\",note\r\n1,TOKEN,\"kept, as it is\"\r\n\r\n2,,x\r\n");
    }

    #[test]
    fn a_column_that_the_header_does_not_have_is_named_with_those_it_has() {
        let header = records(b"a,b,b\n", CSV).remove(0);
        let error = Columns::of_csv(vec!["c".into()], &header, b',').err().unwrap();
        assert!(matches!(error, CliError::Advised { next, .. } if next.contains("\"a\", \"b\"")));
        assert!(Columns::of_csv(vec!["b".into()], &header, b',').is_err());
    }

    #[test]
    fn a_record_with_a_cell_too_many_is_rejected() {
        let records = records(b"a,b\n1,2,3\n", CSV);
        let columns = Columns::of_csv(vec!["a".into()], &records[0], b',').unwrap();
        assert_eq!(columns.find(&records[1]).err(), Some(Reject { column: None, rule: "csv_columns".into() }));
    }

    #[test]
    fn json_numbers_come_back_as_numbers_where_that_is_asked() {
        let text = b"{\"income\": 1200.50, \"name\":\"\\\"x\\\"\", \"none\":null}\n{\"name\":\"\"}\n";
        let tokens = mapped(text, Format::Jsonl, &["name", "income", "none"], &[], token);
        assert_eq!(mapped(&tokens, Format::Jsonl, &["income", "name"], &["income"], value), text);
    }

    #[test]
    fn a_member_that_is_there_twice_is_rejected() {
        let records = records(b"{\"a\":\"1\",\"a\":\"2\"}", Format::Jsonl);
        let columns = Columns::of_jsonl(vec!["a".into()], &[], JsonStyle::default());
        assert_eq!(columns.find(&records[0]).err(), Some(Reject { column: Some(0), rule: "json_member_twice".into() }));
    }

    /// A cell as RFC 4180 has it, now and then with quotes that it does not need.
    fn cell() -> impl Strategy<Value = String> {
        ("[a-c张,\"\r\n ]{0,6}", any::<bool>()).prop_map(|(text, quoted)| {
            let needs = text.contains([',', '"', '\n', '\r']);
            if needs || quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
        })
    }

    proptest! {
        #[test]
        fn a_csv_file_comes_back_byte_by_byte(
            rows in prop::collection::vec((prop::collection::vec(cell(), 3), "\r?\n"), 0..8),
            ended: bool,
        ) {
            let mut text = String::from("x,\"y\",z\n");
            for (cells, end) in &rows {
                text.push_str(&cells.join(","));
                text.push_str(end);
            }
            if !ended && rows.last().is_some_and(|(cells, _)| !cells[2].is_empty()) {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
            let tokens = mapped(text.as_bytes(), CSV, &["z", "x"], &[], token);
            let back = mapped(&tokens, CSV, &["x", "z"], &[], value);
            prop_assert_eq!(String::from_utf8(back).unwrap(), text);
        }

        #[test]
        fn a_jsonl_file_comes_back_byte_by_byte(rows in prop::collection::vec((".{0,8}", ".{0,8}", any::<i32>()), 0..6)) {
            let lines = rows.iter().map(|(a, b, n)| serde_json::json!({ "a": a, "b": b, "n": n }).to_string() + "\n");
            let text: String = lines.collect();
            let tokens = mapped(text.as_bytes(), Format::Jsonl, &["a", "n"], &[], token);
            let back = mapped(&tokens, Format::Jsonl, &["a", "n"], &["n"], value);
            prop_assert_eq!(String::from_utf8(back).unwrap(), text);
        }
    }
}
