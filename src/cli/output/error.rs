//! Why a command did not do its work, in words and as a document.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thiserror::Error;
use tonic::Status;

use super::refusal::{Broken, Refusal};
use super::{Exit, printable};

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
            // It was asked for, and others have their say.
            Self::Refused(refusal) if refusal.reason == "APPROVAL_REQUIRED" => Exit::Partly,
            Self::Advised { cause, .. } => cause.exit(),
            _ => Exit::Failed,
        }
    }

    /// What the vault said, if it refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Interrupted { cause, .. } | Self::Advised { cause, .. } => cause.refusal(),
            _ => None,
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
    pub(super) fn text(&self) -> String {
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

    pub(super) fn document(&self) -> Value {
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

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

    use super::*;

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
    fn better_advice_leaves_the_rest_of_an_error_as_it_is() {
        let error = CliError::from(Status::permission_denied("no")).advise("ask somebody else");
        assert_eq!((error.exit(), error.document()["code"].as_str()), (Exit::Failed, Some("PERMISSION_DENIED")));
        assert_eq!(error.document()["try"], "ask somebody else");
        assert!(console::strip_ansi_codes(&error.text()).ends_with("error: no\ntry: ask somebody else"));
        assert_eq!(CliError::Usage("a slip".into()).advise("x").exit(), Exit::Usage);
    }
}
