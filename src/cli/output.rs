//! What a command says: tables for people, JSON for programs, errors that name the next command, exit codes.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use strongroom_proto::v1::Problem;
use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// It was refused, or it failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A part was done; the rest was refused.
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
    let mut out = io::stdout().lock();
    let ending: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
    match out.write_all(text).and_then(|()| out.write_all(ending)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::file("standard output", error)),
        _ => Ok(()),
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
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value as a JSON document shows it: as text, or in base 64 if it is none.
pub fn value_document(value: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(value) {
        Ok(text) => ("value", Value::from(text)),
        Err(_) => ("value_base64", Value::from(data_encoding::BASE64.encode(value))),
    }
}

/// One part of a request that broke one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// A path into the request: `items[3].value`.
    pub field: String,
    /// The rule, for machines: `luhn`.
    pub rule: String,
    /// The rule in words.
    pub description: String,
}

/// What the vault said instead of an answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The canonical code.
    pub code: Code,
    /// The stable word for machines; may be empty.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
    /// What broke which rule.
    pub violations: Vec<Broken>,
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let broken = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let violations = broken.iter().map(|violation| Broken {
            field: violation.field.clone(),
            rule: violation.reason.to_ascii_lowercase(),
            description: violation.description.clone(),
        });
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            violations: violations.collect(),
        }
    }
}

impl From<&Problem> for Refusal {
    fn from(problem: &Problem) -> Self {
        let violations = problem.violations.iter().map(|violation| Broken {
            field: violation.field.clone(),
            rule: violation.rule.clone(),
            description: violation.description.clone(),
        });
        Self {
            code: Code::from_i32(problem.code),
            reason: problem.reason.clone(),
            message: problem.message.clone(),
            violations: violations.collect(),
        }
    }
}

impl Refusal {
    /// As a JSON document.
    pub fn document(&self) -> Value {
        let violations = self.violations.iter();
        let violations = violations
            .map(|broken| json!({ "field": broken.field, "rule": broken.rule, "description": broken.description }));
        json!({
            "code": code_name(self.code),
            "reason": self.reason,
            "message": self.message,
            "violations": violations.collect::<Vec<_>>(),
            "try": self.next(),
        })
    }

    /// In one line, for a table.
    pub fn line(&self) -> String {
        let name = if self.reason.is_empty() { code_name(self.code) } else { &self.reason };
        format!("{name}: {}", self.message)
    }

    /// The command to try next; none where the message names one already.
    pub fn next(&self) -> Option<&'static str> {
        if self.message.contains("`strongroom ") {
            return None;
        }
        let unknown = |part: &str| self.violations.iter().any(|broken| broken.rule == format!("{part}_unknown"));
        match (self.reason.as_str(), self.code) {
            ("FIELD_UNKNOWN", _) => Some("strongroom schema show"),
            ("PURPOSE_UNKNOWN", _) => Some("strongroom schema show"),
            _ if unknown("field") || unknown("purpose") => Some("strongroom schema show"),
            ("NO_SCHEMA", _) => Some("strongroom schema apply FILE"),
            ("VIEW_NOT_ALLOWED" | "VIEW_UNKNOWN", _) => Some("the same command with --view and one of the views above"),
            ("PURPOSE_NOT_ALLOWED", _) => Some("the same command with --purpose and one of the purposes above"),
            ("IDEMPOTENCY_KEY_REUSED", _) => Some("the same command with another --idempotency-key"),
            ("SOURCE_REFUSED", _) => None,
            _ if self.violations.iter().any(|broken| broken.field == "items") => {
                Some("fewer at once (import, export: --batch)")
            }
            (_, Code::Unauthenticated) => Some("the same command with --as NAME, or --cert and --key"),
            (_, Code::PermissionDenied) => Some("strongroom policy explain --role ROLE --action ACTION --field FIELD"),
            (_, Code::Unavailable | Code::Aborted) => Some("the same command again, after a moment"),
            (_, Code::DataLoss) => Some("strongroom status"),
            _ => None,
        }
    }
}

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub enum CliError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The vault refused.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// No connection.
    #[error("{message}")]
    NotReached {
        /// What happened.
        message: String,
        /// What to try.
        next: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that was read is not what it should be.
    #[error("{message}")]
    Unfit {
        /// What was wrong and what would be right.
        message: String,
        /// What to try; may be empty.
        next: String,
    },
    /// An error, of which the command knows better what to try.
    #[error("{cause}")]
    Advised {
        /// What happened.
        cause: Box<CliError>,
        /// What to try.
        next: String,
    },
    /// Work that stopped half-way and can go on.
    #[error("{cause}")]
    Interrupted {
        /// Why it stopped.
        cause: Box<CliError>,
        /// What was kept, and how to go on.
        kept: String,
    },
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(Refusal::from(&status)))
    }
}

impl CliError {
    /// An error of a file.
    pub fn file(path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::File { path: path.as_ref().to_owned(), source }
    }

    /// Something read that is not what it should be.
    pub fn unfit(message: impl Into<String>) -> Self {
        Self::Unfit { message: message.into(), next: String::new() }
    }

    /// The same error with other advice.
    pub fn advise(self, next: impl Into<String>) -> Self {
        Self::Advised { cause: Box::new(self), next: next.into() }
    }

    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Advised { cause, .. } => cause.exit(),
            _ => Exit::Failed,
        }
    }

    fn next(&self) -> Option<&str> {
        let next = match self {
            Self::Refused(refusal) => refusal.next()?,
            Self::NotReached { next, .. } | Self::Unfit { next, .. } | Self::Advised { next, .. } => next,
            Self::Interrupted { kept, .. } => kept,
            Self::Usage(_) => "strongroom help",
            Self::File { .. } => "",
        };
        (!next.is_empty()).then_some(next)
    }

    fn violations(&self) -> &[Broken] {
        match self {
            Self::Refused(refusal) => &refusal.violations,
            Self::Interrupted { cause, .. } | Self::Advised { cause, .. } => cause.violations(),
            _ => &[],
        }
    }

    /// What was wrong, which parts broke which rules, and what to try.
    fn text(&self) -> String {
        let mut lines =
            vec![format!("{} {}", console::style("error:").red().bold().for_stderr(), printable(&self.to_string()))];
        let told = self.to_string();
        let mut rules: Vec<(&str, &str)> = Vec::new();
        for broken in self.violations() {
            // A mistake in the command breaks the same rule a thousand times; a single one is the message itself.
            let rule = (broken.rule.as_str(), broken.description.as_str());
            if rules.contains(&rule) || (self.violations().len() == 1 && told.contains(&broken.description)) {
                continue;
            }
            rules.push(rule);
            let name = if broken.rule.is_empty() { String::new() } else { format!(" ({})", broken.rule) };
            lines.push(format!("  {}: {}{name}", printable(&broken.field), printable(&broken.description)));
        }
        if let Some(next) = self.next() {
            lines.push(format!("{} {next}", console::style("try:").bold().for_stderr()));
        }
        lines.join("\n")
    }

    fn document(&self) -> Value {
        match self {
            Self::Refused(refusal) => refusal.document(),
            Self::Advised { cause, next } => {
                let mut document = cause.document();
                if let Some(object) = document.as_object_mut() {
                    object.insert("try".to_owned(), json!(next));
                }
                document
            }
            other => json!({ "message": other.to_string(), "try": other.next() }),
        }
    }
}

/// The canonical name of a code: `NOT_FOUND`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, FieldViolation};

    #[test]
    fn control_sequences_in_stored_data_reach_no_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(printable("张三\n李四"), "张三\n李四");
    }

    #[test]
    fn a_refusal_keeps_reason_rules_and_code() {
        let mut details =
            ErrorDetails::with_error_info("VALUE_INVALID", "strongroom", std::collections::HashMap::new());
        details.set_bad_request(vec![FieldViolation {
            field: "items[3].value".into(),
            description: "the last digit does not fit".into(),
            reason: "LUHN".into(),
            localized_message: None,
        }]);
        let status = Status::with_error_details(Code::InvalidArgument, "one value is not valid", details);
        let refusal = Refusal::from(&status);
        assert_eq!(refusal.reason, "VALUE_INVALID");
        assert_eq!(refusal.violations[0].rule, "luhn");
        let text = console::strip_ansi_codes(&CliError::from(status).text()).into_owned();
        assert!(text.contains("items[3].value: the last digit does not fit (luhn)"), "{text}");
    }

    #[test]
    fn a_refused_view_names_what_to_try() {
        let refusal = Refusal {
            code: Code::PermissionDenied,
            reason: "VIEW_NOT_ALLOWED".into(),
            message: "this view is not allowed for you; you may ask for: masked".into(),
            violations: vec![],
        };
        assert!(refusal.next().unwrap().contains("--view"));
    }

    #[test]
    fn better_advice_leaves_the_rest_of_an_error_as_it_is() {
        let error = CliError::from(Status::permission_denied("no")).advise("ask somebody else");
        assert_eq!((error.exit(), error.document()["code"].as_str()), (Exit::Failed, Some("PERMISSION_DENIED")));
        assert_eq!(error.document()["try"], "ask somebody else");
        assert!(console::strip_ansi_codes(&error.text()).ends_with("error: no\ntry: ask somebody else"));
        assert_eq!(CliError::Usage("a slip".into()).advise("x").exit(), Exit::Usage);
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_base_64() {
        assert_eq!(value_document(b"\xff\x00"), ("value_base64", json!("/wA=")));
        assert_eq!(value_document("张".as_bytes()), ("value", json!("张")));
    }
}
