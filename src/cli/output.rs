//! What a command says: tables for people, JSON for programs, errors that name the next command, exit codes.

mod error;
mod refusal;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use error::CliError;
pub use refusal::Refusal;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// It was refused, or it failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A part was done; the rest was refused, or waits for somebody.
    Partly = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Tables and sentences, for people. On a pipe, `tokenize` prints the bare token.
    #[default]
    Table,
    /// One JSON document, with names that do not change.
    Json,
}

impl Output {
    /// Prints an answer: the document, or the text.
    pub fn show(self, document: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), CliError> {
        match self {
            Self::Json => say(format!("{:#}", document()).as_bytes()),
            Self::Table => say(text().as_bytes()),
        }
    }

    /// Prints an error to standard error.
    pub fn complain(self, error: &CliError) {
        let text = match self {
            Self::Json => format!("{:#}", json!({ "error": error.document() })),
            Self::Table => error.text(),
        };
        // Nobody is left to hear that standard error is closed.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Whether a person reads standard output.
pub fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints to standard output, with a newline at the end. A reader that has gone away is no error.
pub fn say(text: &[u8]) -> Result<(), CliError> {
    let ending: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
    print([text, ending]).map(drop)
}

/// Prints parts to standard output as they are. `false`: nobody reads any more.
pub fn print<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match parts.into_iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::file("standard output", error)),
    }
}

/// A table with a header; framed and bold on a terminal, plain elsewhere.
pub fn table<R: AsRef<str>>(header: &[&str], rows: impl IntoIterator<Item = Vec<R>>) -> String {
    let mut table = Table::new();
    if on_terminal() {
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        // Some terminals, those of containers among them, don't know how wide they are.
        if table.width().is_none_or(|width| width == 0) {
            table.set_width(80);
        }
    } else {
        table.load_style(presets::NOTHING);
    }
    let bold = console::colors_enabled();
    table.set_header(header.iter().map(|name| match bold {
        true => Cell::new(name).add_attribute(Attribute::Bold),
        false => Cell::new(name),
    }));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell.as_ref())).collect::<Vec<_>>());
    }
    if !on_terminal() {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }
    table.trim_fmt()
}

/// A table whose columns are named as pages and documents name them: in capitals here.
pub fn named_table<R: AsRef<str>>(header: &[&str], rows: impl IntoIterator<Item = Vec<R>>) -> String {
    let header: Vec<String> = header.iter().map(|name| name.to_uppercase()).collect();
    table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows)
}

/// Names and what they are, one a line.
pub fn facts<R: AsRef<str>>(pairs: impl IntoIterator<Item = (&'static str, R)>) -> String {
    let pairs: Vec<_> = pairs.into_iter().collect();
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs.iter().map(|(name, value)| {
        let name = console::style(format!("{name:width$}")).dim();
        format!("{name}  {}", printable(value.as_ref()))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A time as RFC 3339; empty if there is none.
pub fn instant(time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| OffsetDateTime::from_unix_timestamp(time.seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// The same, or what it means that there is none.
pub fn instant_or(time: Option<prost_types::Timestamp>, absent: &str) -> String {
    time.map_or_else(|| absent.to_owned(), |time| instant(Some(&time)))
}

/// The same for a document; none if there is none.
pub fn instant_if_any(time: Option<prost_types::Timestamp>) -> Option<String> {
    time.map(|time| instant(Some(&time)))
}

/// Text that can't play tricks on a terminal: stored data may hold control sequences.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if c.is_control() || is_reordering(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Marks that make a terminal show characters in another order than they are in.
pub fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value as a JSON document shows it: as text, or in base 64 if it is none.
pub fn value_document(value: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(value) {
        Ok(text) => ("value", Value::from(text)),
        Err(_) => ("value_base64", Value::from(data_encoding::BASE64.encode(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_in_stored_data_reach_no_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(printable("张三\n李四"), "张三\n李四");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_base_64() {
        assert_eq!(value_document(b"\xff\x00"), ("value_base64", json!("/wA=")));
        assert_eq!(value_document("张".as_bytes()), ("value", json!("张")));
    }
}
