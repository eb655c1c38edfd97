//! What the way through a log needs of each leaf. Of most leaves that is little, and the rest of them is not kept.

use crate::error::LedgerError;
use crate::leaf::{self, ParsedLeaf, Part};
use crate::timestamp::Timestamp;

/// The actions of requests for values, of which a log has millions. A leaf of any other action is read as a whole, so that
/// whatever is asked of such a leaf finds it.
const USUAL: [&str; 7] = ["tokenize", "import_token", "detokenize", "match", "lookup", "replace", "delete"];
/// What a leaf says was decided.
const DECISIONS: [&str; 3] = ["allow", "deny", "fail"];
/// Members of `detail` by which a request has to do with approvals: then the leaf is read as a whole as well.
const APPROVALS: [&str; 2] = ["stage", "approval"];

/// What is needed of every leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outline<'l> {
    pub index: u64,
    pub time: Timestamp,
    pub part: Option<Part>,
    pub request: [u8; 16],
    pub action: &'l str,
    pub decision: &'l str,
}

/// A line that is a leaf as the vault writes it.
#[derive(Debug)]
pub(super) enum Seen {
    /// Of a request for values: nothing else is asked of it.
    Usual(Outline<'static>),
    /// Of anything else.
    Whole(Box<ParsedLeaf>),
}

impl Seen {
    /// Looks at a line. It must be a leaf in its one form, whichever of the two becomes of it.
    pub fn look(line: &[u8]) -> Result<Self, LedgerError> {
        match usual(line) {
            Some(outline) => Ok(Self::Usual(outline)),
            None => Self::whole(line),
        }
    }

    /// Reads a line as a whole, whatever it is of.
    pub fn whole(line: &[u8]) -> Result<Self, LedgerError> {
        leaf::parse(line).map(|leaf| Self::Whole(Box::new(leaf)))
    }

    /// What is needed of every leaf.
    pub fn outline(&self) -> Outline<'_> {
        match self {
            Self::Usual(outline) => *outline,
            Self::Whole(leaf) => Outline {
                index: leaf.index,
                time: leaf.time,
                part: leaf.part,
                request: leaf.request,
                action: &leaf.action,
                decision: &leaf.decision,
            },
        }
    }

    /// The whole leaf, if it is of more than a request for values.
    pub fn leaf(&self) -> Option<&ParsedLeaf> {
        match self {
            Self::Usual(_) => None,
            Self::Whole(leaf) => Some(leaf),
        }
    }
}

fn usual(line: &[u8]) -> Option<Outline<'static>> {
    let scanned = leaf::scan(line, &APPROVALS)?;
    Some(Outline {
        index: scanned.index,
        time: scanned.time,
        part: scanned.part,
        request: scanned.request,
        action: known(&USUAL, scanned.action)?,
        decision: known(&DECISIONS, scanned.decision)?,
    })
}

fn known(words: &[&'static str], text: &[u8]) -> Option<&'static str> {
    words.iter().copied().find(|word| word.as_bytes() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::sample::header;
    use crate::leaf::{LeafHeader, prepare};

    fn line(action: &str, decision: &str, detail: &[(&str, &str)]) -> Vec<u8> {
        let header = LeafHeader { action, decision, detail, ..header() };
        prepare(&header, std::iter::empty())[0].finish(3, Timestamp(4))
    }

    #[test]
    fn only_of_requests_for_values_that_no_approval_has_to_do_with_an_outline_is_enough() {
        for (action, decision, detail, enough) in [
            ("tokenize", "allow", &[][..], true),
            ("detokenize", "deny", &[("refused", "DENIED=3")], true),
            ("detokenize", "allow", &[("approval", "approval/1")], false),
            ("detokenize", "deny", &[("stage", "pending")], false),
            ("tokenize", "perhaps", &[], false),
            ("approve", "allow", &[], false),
            ("create_tenant", "allow", &[], false),
            ("rotate_key", "allow", &[("key", "kek/1")], false),
            ("rotate_key", "allow", &[("key", "ledger")], false),
            ("set_key_state", "allow", &[("key", "ledger"), ("state", "compromised")], false),
            ("no_such_action", "allow", &[], false),
        ] {
            let line = line(action, decision, detail);
            let (seen, whole) = (Seen::look(&line).unwrap(), Seen::whole(&line).unwrap());
            assert_eq!(seen.leaf().is_none(), enough, "{action} {decision} {detail:?}");
            assert_eq!(seen.outline(), whole.outline());
        }
    }
}
