//! What is refused: a schema, or a value that breaks a rule of its field.

use std::fmt;

use thiserror::Error;

/// Why a schema was refused, or could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// The file is not TOML, or not of the form of a schema.
    #[error("line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A declaration breaks a rule.
    #[error("{}{place}: {message} ({rule})", at_line(*.line))]
    Rule {
        /// Where the declaration begins, counted from 1; absent for what is not in the file.
        line: Option<usize>,
        /// What was declared: `field borrower.id_card`, `purpose marketing`.
        place: String,
        /// The rule, stable, for machines.
        rule: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The stored form of a schema does not read back.
    #[error("the stored schema is damaged: {0}")]
    Damaged(String),
}

impl SchemaError {
    pub(crate) fn rule(line: Option<usize>, place: String, broken: Broken) -> Self {
        Self::Rule { line, place, rule: broken.rule, message: broken.message }
    }
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!("line {line}: ")).unwrap_or_default()
}

/// A rule that a declaration breaks, before it is known where the declaration stands.
#[derive(Debug)]
pub(crate) struct Broken {
    pub rule: &'static str,
    pub message: String,
}

impl Broken {
    pub fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

/// A rule that a value breaks. Never holds any part of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, stable, for machines: `luhn`.
    pub rule: &'static str,
    /// What would be right, in words.
    pub message: String,
}

impl Violation {
    pub(crate) fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.rule)
    }
}

impl std::error::Error for Violation {}
