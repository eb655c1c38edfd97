//! The plain way through an export, line by line, each read as a whole: what the quick one must agree with.

use std::io::BufRead;

use proptest::prelude::*;
use strongroom_ids::{RowId, SubjectHandle};

use super::ahead::{Looked, Source, walked};
use super::lines::Lines;
use super::outline::Seen;
use super::*;
use crate::checkpoint::tests::{Key, log};
use crate::frontier::leaf_hash;
use crate::leaf::sample::header;
use crate::leaf::{self, LeafHeader, LeafItem, prepare};
use crate::log_keys::tests::{rotated, vkey};

/// Lines, each read as a whole when it is its turn.
struct Plain<R> {
    lines: Lines<R>,
    looked: Looked,
}

impl<R: BufRead> Source for Plain<R> {
    fn advance(&mut self) -> Result<bool, Fault> {
        let there = self.lines.advance()?;
        self.looked = Looked { seen: Seen::whole(&self.lines.text), hash: leaf_hash(&self.lines.text) };
        Ok(there)
    }

    fn number(&self) -> u64 {
        self.lines.number
    }

    fn text(&self) -> &[u8] {
        &self.lines.text
    }

    fn whole(&self) -> bool {
        self.lines.whole
    }

    fn looked(&self) -> &Looked {
        &self.looked
    }

    fn find(&mut self, index: u64) -> Option<u64> {
        self.lines.find(index)
    }
}

/// What came of a walk, to the eye.
fn told(mut walk: Walk<'_>, go: impl FnOnce(&mut Walk<'_>) -> Result<(), Fault>) -> String {
    let gone = go(&mut walk).and_then(|()| walk.prove());
    // Of a log that does not hold nothing is reported but the fault and how much of it holds.
    match gone {
        Ok(()) => format!("{:?}", walk.report),
        Err(fault) => format!("{fault:?} {}", walk.proven),
    }
}

fn plainly(export: &[u8], heads: &Heads) -> String {
    told(heads.walk(), |walk| walk.run(&mut Plain { lines: Lines::new(export), looked: Looked::at(b"") }))
}

fn quickly(export: &[u8], heads: &Heads, plan: (usize, usize)) -> String {
    told(heads.walk(), |walk| walked(export, plan, |lines| walk.run(lines)))
}

/// Signed heads of a log, of which the key is known that signed the older ones.
struct Heads {
    newest: String,
    older: Vec<String>,
    keys: Vec<String>,
}

impl Heads {
    /// Of the log at these sizes, and at its end by these keys.
    fn new(lines: &[Vec<u8>], sizes: &[usize], last: &[u8]) -> Self {
        let note = |size: usize, keys: &[u8]| {
            let mut tree = Frontier::new();
            lines[..size].iter().for_each(|line| tree.push(line));
            let keys: Vec<Key> = keys.iter().map(|seed| Key::new(*seed)).collect();
            let sign = |key: &Key, text: &[u8]| key.sign(text);
            checkpoint::sign_all(&log(), tree.size(), &tree.root(), &keys, Key::public, sign).unwrap()
        };
        let older = sizes.iter().map(|size| note(*size, &[1])).collect();
        Self { newest: note(lines.len(), last), older, keys: vec![vkey(1)] }
    }

    fn walk(&self) -> Walk<'_> {
        Walk::new(signed(&self.newest, &self.older, &self.keys).unwrap(), &self.keys)
    }
}

/// A request: which action, decision and detail it has, and how many items.
type Request = (usize, usize, usize, usize);

const ACTIONS: [&str; 8] =
    ["tokenize", "detokenize", "match", "delete", "apply_schema", "create_tenant", "rotate_key", "another"];
const DECISIONS: [&str; 4] = ["allow", "deny", "fail", "perhaps"];
const DETAILS: [&[(&str, &str)]; 6] = [
    &[],
    &[],
    &[("refused", "DENIED=2")],
    &[("text", "quote \" and backslash \\")],
    &[("stage", "pending"), ("approval", "approval/1"), ("request", "0a"), ("summary", "do it"), ("need", "1")],
    &[("stage", "approved"), ("approval", "approval/1")],
];

fn lines_of(requests: &[Request]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for (number, (action, decision, detail, items)) in requests.iter().enumerate() {
        let detail = DETAILS[*detail];
        let waits = detail.first() == Some(&("stage", "pending"));
        let header = LeafHeader {
            request: &[number as u8; 16],
            action: ACTIONS[*action],
            purpose: (*items > 2).then_some("kyc"),
            decision: if waits { "deny" } else { DECISIONS[*decision] },
            reason: waits.then_some("APPROVAL_REQUIRED"),
            keys: &[("token".to_owned(), 1)],
            detail,
            ..header()
        };
        let item = |row| LeafItem {
            field: Some("borrower.id_card"),
            row: Some(RowId(row)),
            outcome: "ok",
            subject: Some(SubjectHandle(row)),
            ..LeafItem::default()
        };
        for leaf in prepare(&header, (0..*items as u64).map(item)) {
            let index = lines.len() as u64;
            lines.push(leaf.finish(index, Timestamp(1_795_487_952_123_456 + number as u64)));
        }
    }
    lines
}

/// Signed heads of the log at these sizes and at its end.
fn signed_at(lines: &[Vec<u8>], sizes: &[usize]) -> Heads {
    Heads::new(lines, sizes, &[1])
}

/// Something that was done to an export.
#[derive(Clone, Debug)]
enum Tamper {
    Byte(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index),
    Cut(prop::sample::Index),
    Replace(prop::sample::Index, &'static str),
    Convert,
    Long(prop::sample::Index),
}

impl Tamper {
    fn apply(&self, lines: &mut Vec<Vec<u8>>) {
        if lines.is_empty() {
            return;
        }
        let many = lines.len();
        match self {
            Self::Byte(at, byte) => {
                let line = &mut lines[at.index(many)];
                if !line.is_empty() {
                    let place = at.index(line.len());
                    line[place] = *byte;
                }
            }
            Self::Remove(at) => drop(lines.remove(at.index(many))),
            Self::Swap(one, other) => lines.swap(one.index(many), other.index(many)),
            Self::Repeat(at) => {
                let again = lines[at.index(many)].clone();
                lines.insert(at.index(many), again);
            }
            Self::Cut(at) => lines.truncate(at.index(many)),
            Self::Replace(at, by) => lines[at.index(many)] = by.as_bytes().to_vec(),
            Self::Convert => lines.iter_mut().for_each(|line| line.push(b'\r')),
            Self::Long(at) => lines[at.index(many)].resize(70_000, b'x'),
        }
    }
}

fn tampers() -> impl Strategy<Value = Tamper> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Tamper::Byte(at, byte)),
        1 => at().prop_map(Tamper::Remove),
        1 => (at(), at()).prop_map(|(one, other)| Tamper::Swap(one, other)),
        1 => at().prop_map(Tamper::Repeat),
        1 => at().prop_map(Tamper::Cut),
        1 => (at(), prop_oneof![Just(""), Just("{}"), Just("{\"index\":\"1\",")])
            .prop_map(|(at, by)| Tamper::Replace(at, by)),
        1 => Just(Tamper::Convert),
        1 => at().prop_map(Tamper::Long),
    ]
}

#[test]
fn a_log_of_many_pieces_is_told_the_same_by_any_number_of_threads() {
    let requests: Vec<Request> = (0..3_000).map(|number| (number % 8, number % 3, number % 3, number % 5)).collect();
    let lines = lines_of(&requests);
    let signed = signed_at(&lines, &[0, 1_000, 2_999]);
    let mut export = lines.join(&b'\n');
    let whole = plainly(&export, &signed);
    assert!(whole.starts_with("Report"), "{whole}");
    for plan in [(1, 1 << 10), (2, 1 << 10), (5, 1 << 12), (16, 1 << 10), (2, ahead::PIECE), (64, 1)] {
        assert_eq!(quickly(&export, &signed, plan), whole, "{plan:?}");
    }
    // And so is what is wrong far behind.
    let place = export.len() - 5_000;
    export[place] = if export[place] == b'7' { b'8' } else { b'7' };
    let faulty = plainly(&export, &signed);
    assert!(!faulty.starts_with("Report"), "{faulty}");
    for plan in [(1, 1 << 10), (3, 1 << 10), (16, 1 << 14)] {
        assert_eq!(quickly(&export, &signed, plan), faulty, "{plan:?}");
    }
}

#[test]
fn any_number_of_threads_follows_a_key_that_was_rotated() {
    let mut lines = lines_of(&[(0, 0, 0, 1); 2_000]);
    let at = 1_234;
    // As the leaves around it have it.
    let time = leaf::parse(&lines[at]).unwrap().time;
    let named = rotated(at as u64, 1, 2).replace(&Timestamp(at as u64).to_string(), &time.to_string());
    lines[at] = named.into_bytes();
    let export = lines.join(&b'\n');
    for (heads, keys) in [
        (Heads::new(&lines, &[1_500], &[2]), 2),
        (Heads::new(&lines, &[1_000], &[2, 1]), 2),
        // Nobody who is known vouches for the leaf.
        (Heads::new(&lines, &[1_000], &[2]), 0),
    ] {
        let whole = plainly(&export, &heads);
        assert_eq!(whole.matches("TrustedKey").count(), keys, "{whole}");
        for plan in [(1, 1 << 10), (2, 1 << 10), (16, 1 << 12)] {
            assert_eq!(quickly(&export, &heads, plan), whole, "{plan:?}");
        }
    }
}

#[test]
fn an_export_that_can_not_be_read_to_its_end_is_told_by_its_line() {
    /// Fails after what it has.
    struct Torn<'t>(&'t [u8]);
    impl std::io::Read for Torn<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            match std::io::Read::read(&mut self.0, into)? {
                0 => Err(std::io::Error::other("torn")),
                read => Ok(read),
            }
        }
    }
    let lines = lines_of(&[(0, 0, 0, 1); 200]);
    let signed = signed_at(&lines, &[]);
    let export = lines.join(&b'\n');
    let torn = || std::io::BufReader::with_capacity(100, Torn(&export[..export.len() / 2]));
    let plain = told(signed.walk(), |walk| walk.run(&mut Plain { lines: Lines::new(torn()), looked: Looked::at(b"") }));
    assert!(plain.contains("Read") && plain.contains("torn"), "{plain}");
    for plan in [(1, 1 << 9), (2, 1 << 9), (2, ahead::PIECE)] {
        let quick = told(signed.walk(), |walk| walked(torn(), plan, |lines| walk.run(lines)));
        assert_eq!(quick, plain, "{plan:?}");
    }
}

#[test]
fn lines_of_nothing_without_end_are_refused_in_bounded_memory() {
    let signed = signed_at(&lines_of(&[(0, 0, 0, 1)]), &[]);
    for plan in [(1, ahead::PIECE), (4, ahead::PIECE), (4, 1)] {
        let endless = std::io::BufReader::new(std::io::repeat(b'\n'));
        let quick = told(signed.walk(), |walk| walked(endless, plan, |lines| walk.run(lines)));
        assert!(quick.starts_with("NotCanonical { line: 1, index: 0"), "{quick}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_was_done_to_an_export_both_ways_tell_the_same(
        requests in prop::collection::vec((0..8_usize, 0..4_usize, 0..6_usize, prop_oneof![9 => 0..4_usize, 1 => Just(900)]), 0..25),
        sizes in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        done in prop::collection::vec(tampers(), 0..3),
        ends in any::<bool>(),
        (threads, piece) in (1..5_usize, 1..3_000_usize),
    ) {
        let mut lines = lines_of(&requests);
        let sizes: Vec<usize> = sizes.iter().map(|size| size.index(lines.len() + 1)).collect();
        let signed = signed_at(&lines, &sizes);
        done.iter().for_each(|tamper| tamper.apply(&mut lines));
        let mut export = lines.join(&b'\n');
        if ends && !export.is_empty() {
            export.push(b'\n');
        }
        prop_assert_eq!(quickly(&export, &signed, (threads, piece)), plainly(&export, &signed));
    }
}
