//! Why something is not told, in words.

use std::fmt;
use std::time::Duration;

use super::place::What;

/// Data classes, in the order of their names.
const CLASSES: [&str; 3] = ["c1", "c2", "c3"];

/// Why something is not told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    pub(super) what: What,
    pub(super) class: u8,
    pub(super) limit: u32,
    pub(super) span: Span,
    /// Whether it is the person behind the caller who may be told no more.
    pub(super) behind: bool,
    /// When the window ends; none if a whole window would not be enough for what was asked at once.
    pub retry_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Span {
    Minute,
    Day,
    /// The table is full, until the day ends.
    Memory,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = CLASSES.get(usize::from(self.class)).copied().unwrap_or_default();
        let span = match self.span {
            Span::Minute => "a minute",
            Span::Day => "a day",
            Span::Memory => return f.write_str("the vault can count no more reads today"),
        };
        let limit = self.limit;
        if self.behind {
            f.write_str("one person ")?;
        }
        match self.what {
            What::Plain => write!(f, "at most {limit} values of class {class} in plain {span}"),
            What::Masked => write!(f, "at most {limit} masked values of class {class} {span}"),
            What::TokenMisses => write!(f, "at most {limit} comparisons with one token that do not match {span}"),
            What::Misses => write!(f, "at most {limit} comparisons and look-ups that find nothing {span}"),
            _ => write!(f, "at most {limit} subjects with values of class {class} {span}"),
        }
    }
}
