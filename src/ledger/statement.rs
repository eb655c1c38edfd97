//! Statements: what a log's key signs beside checkpoints and head files. Each has a name to be signed under and lines of its
//! own; what they have in common is here.

use std::iter::Skip;
use std::str::{self, FromStr};

use crate::error::LedgerError;
use crate::note;

/// What can be signed and read back.
pub(crate) trait Statement: Sized + PartialEq {
    /// What is said of a text that is none.
    const FORM: LedgerError;

    /// Its lines after the name and the format.
    fn lines(&self) -> String;

    /// Reads these lines. What it would have written otherwise itself is refused afterwards.
    fn read(lines: &mut Lines<'_>) -> Option<Self>;

    /// Its text, as it is signed under a name.
    fn text(&self, name: &str) -> String {
        format!("{name}\nformat 1\n{}", self.lines())
    }

    /// What a text says that was signed under a name.
    fn parse(text: &str, name: &str) -> Result<Self, LedgerError> {
        let statement = Self::read(&mut Lines(text.lines().skip(2))).ok_or(Self::FORM)?;
        // Written again it must come out the same, so that there is one way of saying it.
        if statement.text(name) == text { Ok(statement) } else { Err(Self::FORM) }
    }

    /// Signs it under a name. `sign` gets the bytes and returns their Ed25519 signature by the key whose public half is
    /// `public`.
    fn sign(&self, name: &str, public: &[u8; 32], sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<String, LedgerError> {
        let text = self.text(name);
        // What can't be read back is never signed.
        if Self::parse(&text, name).as_ref() != Ok(self) {
            return Err(Self::FORM);
        }
        note::sign(name, &text, public, sign)
    }
}

/// The lines of a statement, read one after the other.
pub(crate) struct Lines<'t>(Skip<str::Lines<'t>>);

impl<'t> Lines<'t> {
    /// What the next line says after a word.
    pub(crate) fn after(&mut self, word: &str) -> Option<&'t str> {
        self.0.next()?.strip_prefix(word)
    }

    /// The same as a number or whatever else is written in one way.
    pub(crate) fn value<T: FromStr>(&mut self, word: &str) -> Option<T> {
        self.after(word)?.parse().ok()
    }

    /// The lines of a list, whose number the next line says after a word.
    pub(crate) fn list<T>(&mut self, word: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let lines: u32 = self.value(word)?;
        (0..lines).map(|_| read(self.0.next()?)).collect()
    }
}

/// Writes what [`Lines::list`] reads.
pub(crate) fn list<T>(word: &str, all: &[T], line: impl Fn(&T) -> String) -> String {
    let mut text = format!("{word}{}\n", all.len());
    for one in all {
        text.push_str(&line(one));
        text.push('\n');
    }
    text
}
