//! A leaf: one line of JSON that says who asked for what, what was decided, and what became of each item.
//!
//! The line is built by pushing bytes. It has one form only: members in a fixed order, no spaces, ASCII only, 64-bit
//! numbers as strings, hashes in lower-case hexadecimal. Names may come from callers, so strings are escaped and
//! bounded. FORMAT.md in this folder says it byte by byte.

mod parse;
#[doc(hidden)]
pub mod sample;
mod scan;
mod write;

use strongroom_ids::{RowId, RowVersion, SubjectHandle, TenantNo};

use crate::restricts::{Restricts, header_restricts};
use crate::rules::NewRule;
use crate::timestamp::Timestamp;
pub use parse::{ParsedItem, ParsedLeaf, Part, parse};
pub(crate) use scan::scan;
pub use write::MAX_STRING;

/// The longest line, in bytes: what C2SP tlog-tiles allows an entry.
pub const MAX_LINE: usize = 65_535;

/// `{"index":"`, 20 digits, `","time":"`, 27 characters, `",`.
const MAX_PREFIX: usize = 10 + 20 + 10 + 27 + 2;
/// `"part":"`, 20 digits, `/`, 20 digits, `",`.
const MAX_PART: usize = 8 + 20 + 1 + 20 + 2;
/// `,"items":[` and `]}`.
const FRAME: usize = 10 + 2;

/// What a leaf says of the request as a whole.
#[derive(Clone, Copy, Debug)]
pub struct LeafHeader<'a> {
    /// The request's number, made by the vault.
    pub request: &'a [u8; 16],
    /// Who asked.
    pub principal: &'a str,
    /// On whose behalf.
    pub actor: Option<&'a str>,
    /// What was asked for.
    pub action: &'a str,
    /// Why.
    pub purpose: Option<&'a str>,
    /// `allow`, `deny` or `fail`.
    pub decision: &'a str,
    /// The stable word for a refusal.
    pub reason: Option<&'a str>,
    /// Version of the policy that decided.
    pub policy: u32,
    /// Version of the schema.
    pub schema: u32,
    /// Versions of the keys in use, by name; no name twice.
    pub keys: &'a [(String, u32)],
    /// The address that the request came from.
    pub client: &'a str,
    /// What else belongs to this action; no name twice.
    pub detail: &'a [(&'a str, &'a str)],
}

/// What a leaf says of one item.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeafItem<'a> {
    /// The field's full name.
    pub field: Option<&'a str>,
    /// The value's row.
    pub row: Option<RowId>,
    /// The view that was shown.
    pub view: Option<&'a str>,
    /// What became of it.
    pub outcome: &'a str,
    /// The data subject.
    pub subject: Option<SubjectHandle>,
    /// Of a write: the row's version.
    pub version: Option<RowVersion>,
    /// Of a write: the hash of the row.
    pub hash: Option<&'a [u8; 32]>,
    /// A keyed hash of what the caller sent and the vault does not know.
    pub sent: Option<&'a [u8; 32]>,
}

/// A leaf that waits for its index and time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreparedLeaf {
    body: Vec<u8>,
    new_rule: Option<NewRule>,
    restricts: Restricts,
}

impl PreparedLeaf {
    /// The line, without newline, at most [`MAX_LINE`] bytes.
    pub fn finish(&self, index: u64, time: Timestamp) -> Vec<u8> {
        let mut line = Vec::with_capacity(MAX_PREFIX + self.body.len());
        write::prefix(&mut line, index, time);
        line.extend_from_slice(&self.body);
        line
    }

    /// The policy or schema that it puts in force, if it does.
    pub fn new_rule(&self) -> Option<NewRule> {
        self.new_rule
    }

    /// Whether it is to be journalled, as a leaf of this log: what it says must hold for an older copy of the data as well.
    pub fn restricts(&self, log: TenantNo) -> bool {
        self.restricts.within(log)
    }

    /// The most bytes that the finished line can have.
    pub fn max_len(&self) -> usize {
        MAX_PREFIX + self.body.len()
    }
}

/// Writes all of a leaf but its index and time. What does not fit one line becomes several, parts `k/n` of one
/// commit, to be appended one after the other.
pub fn prepare<'a>(header: &LeafHeader<'_>, items: impl Iterator<Item = LeafItem<'a>>) -> Vec<PreparedLeaf> {
    let mut head = Vec::with_capacity(512);
    write::header(&mut head, header);
    // Strings and lists of the header are bounded, so that an item always fits beside it.
    let room = MAX_LINE.saturating_sub(MAX_PREFIX + MAX_PART + FRAME + head.len());
    let mut text = Vec::with_capacity(items.size_hint().0.saturating_mul(160).min(4 << 20));
    let mut parts = Vec::with_capacity(1);
    let mut start = 0;
    for item in items {
        let before = text.len();
        if before > start {
            text.push(b',');
        }
        let begin = text.len();
        write::item(&mut text, &item);
        if text.len() - start > room && begin > start {
            parts.push(start..before);
            start = begin;
        }
    }
    parts.push(start..text.len());
    let count = parts.len();
    let new_rule = NewRule::of_header(header);
    let restricts = header_restricts(header);
    let body = |(index, range): (usize, std::ops::Range<usize>)| {
        let items = &text[range];
        let mut body = Vec::with_capacity(MAX_PART + FRAME + head.len() + items.len());
        if count > 1 {
            write::part(&mut body, index as u64 + 1, count as u64);
        }
        body.extend_from_slice(&head);
        write::items(&mut body, items);
        // Once a request: its first part says it.
        PreparedLeaf { body, new_rule: if index == 0 { new_rule } else { None }, restricts }
    };
    parts.into_iter().enumerate().map(body).collect()
}

#[cfg(test)]
pub(crate) mod tests;
