//! Lines: what a leaf says of one item, or of a request without items, in columns or as JSON.

use serde_json::{Map, Value, json};
use strongroom_ledger::filter::Filter;
use strongroom_ledger::leaf::{ParsedItem, ParsedLeaf};

use super::archived::Archived;
use crate::cli::output::{CliError, Output, print, printable};

/// A column: its name, and how wide it is at least. What is wider pushes the rest of its line aside.
pub type Column = (&'static str, usize);

/// The columns of most questions.
pub const COLUMNS: &[Column] = &[
    ("time", 27),
    ("principal", 20),
    ("actor", 8),
    ("action", 12),
    ("field", 20),
    ("view", 7),
    ("purpose", 16),
    ("decision", 8),
    ("outcome", 10),
    ("leaf", 4),
];

/// Whether something came of an item: the reason why not is in capitals.
pub fn is_done(item: &ParsedItem) -> bool {
    !item.outcome.starts_with(char::is_uppercase)
}

/// The items of a leaf that were asked for, or the leaf itself if it is not about items.
pub fn items<'l>(leaf: &'l ParsedLeaf, filter: &Filter) -> Vec<Option<&'l ParsedItem>> {
    if leaf.items.is_empty() {
        return vec![None];
    }
    leaf.items.iter().filter(|item| filter.fits_item(leaf, item)).map(Some).collect()
}

/// The cells of a line.
pub fn cells(leaf: &ParsedLeaf, item: Option<&ParsedItem>) -> Vec<String> {
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let outcome = item.map(|item| &item.outcome).or(leaf.reason.as_ref());
    vec![
        leaf.time.to_string(),
        leaf.principal.clone(),
        text(leaf.actor.as_ref()),
        leaf.action.clone(),
        text(item.and_then(|item| item.field.as_ref())),
        text(item.and_then(|item| item.view.as_ref())),
        text(leaf.purpose.as_ref()),
        leaf.decision.clone(),
        text(outcome),
        leaf.index.to_string(),
    ]
}

/// The same as JSON.
pub fn document(leaf: &ParsedLeaf, item: Option<&ParsedItem>) -> Value {
    let detail: Map<String, Value> =
        leaf.detail.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "leaf": leaf.index.to_string(),
        "time": leaf.time.to_string(),
        "request": data_encoding::HEXLOWER.encode(&leaf.request),
        "principal": leaf.principal,
        "actor": leaf.actor,
        "action": leaf.action,
        "field": item.and_then(|item| item.field.as_ref()),
        "view": item.and_then(|item| item.view.as_ref()),
        "purpose": leaf.purpose,
        "decision": leaf.decision,
        "reason": leaf.reason,
        "outcome": item.map(|item| &item.outcome),
        "subject": item.and_then(|item| item.subject).map(|subject| subject.0.to_string()),
        "row": item.and_then(|item| item.row).map(|row| row.0.to_string()),
        "client": leaf.client,
        "detail": detail,
    })
}

/// Prints lines as they come: a table, or one JSON document.
pub struct Printer {
    output: Output,
    columns: &'static [Column],
    lines: u64,
    /// What of the answer is archived, as the document has it.
    archived: Value,
    /// What is not printed yet.
    text: String,
}

impl Printer {
    /// Of what is archived is said before all lines.
    pub fn new(output: Output, columns: &'static [Column], archived: Option<&Archived>) -> Self {
        let text = match (output, archived) {
            (Output::Table, Some(archived)) => archived.words() + "\n\n",
            _ => String::new(),
        };
        let archived = archived.map_or(Value::Null, Archived::document);
        Self { output, columns, lines: 0, archived, text }
    }

    /// What a document begins with.
    fn opening(&self) -> String {
        format!("{{\"archived\":{},\n\"lines\":[", self.archived)
    }

    /// One line, in the form that is printed.
    pub fn line(&mut self, cells: impl FnOnce() -> Vec<String>, document: impl FnOnce() -> Value) {
        match self.output {
            Output::Table => {
                if self.lines == 0 {
                    self.text += &in_columns(self.columns, self.columns.iter().map(|(name, _)| (*name).to_owned()));
                }
                self.text += &in_columns(self.columns, cells());
            }
            Output::Json => {
                self.text += &if self.lines == 0 { self.opening() + "\n" } else { ",\n".to_owned() };
                self.text += &document().to_string();
            }
        }
        self.lines += 1;
    }

    /// Prints what there is. `false`: nobody reads any more.
    pub fn flush(&mut self) -> Result<bool, CliError> {
        print([std::mem::take(&mut self.text).as_bytes()])
    }

    /// The end: what else is said, in the document and in words.
    pub fn end(mut self, more: Map<String, Value>, words: &str) -> Result<(), CliError> {
        match self.output {
            Output::Table => {
                if self.lines > 0 && !words.is_empty() {
                    self.text += "\n";
                }
                self.text += words;
                if !self.text.is_empty() && !self.text.ends_with('\n') {
                    self.text += "\n";
                }
            }
            Output::Json => {
                self.text += &if self.lines == 0 { self.opening() } else { "\n".to_owned() };
                self.text += &format!("],\"count\":\"{}\"", self.lines);
                for (name, value) in more {
                    self.text += &format!(",\n{}:{value}", Value::from(name));
                }
                self.text += "}\n";
            }
        }
        self.flush().map(drop)
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

/// A line of a table whose other lines are not known yet.
fn in_columns(columns: &[Column], cells: impl IntoIterator<Item = String>) -> String {
    let mut line = String::new();
    for ((_, width), cell) in columns.iter().zip(cells) {
        let cell = printable(&cell).replace(['\n', '\t'], " ");
        line += &format!("{cell:width$}  ");
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_cell_pushes_the_rest_aside_and_none_breaks_its_line() {
        let columns: &[Column] = &[("a", 3), ("b", 3)];
        let line = |cells: [&str; 2]| in_columns(columns, cells.map(str::to_owned));
        assert_eq!(line(["1", "2"]), "1    2\n");
        assert_eq!(line(["1234", ""]), "1234\n");
        assert_eq!(line(["1234", "5"]), "1234  5\n");
        assert_eq!(line(["a\nb\x1b", "c"]), "a b\\u{1b}  c\n");
    }
}
