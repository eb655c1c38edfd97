//! The state of a log: all that verification has to know of leaves that are archived to go on with those that follow.
//!
//! It is the sum of leaves, and of nothing else. Written as lines of text, in one order, it has one form, and SHA-256 over that
//! is its digest, which a leaf says. FORMAT.md in this folder's parent has each line.

use std::fmt::{Display, Write};

use data_encoding::BASE64;
use ring::digest::{Context, SHA256};
use strongroom_ids::{RowId, SubjectHandle, TenantNo};
use strongroom_ledger::leaf::ParsedLeaf;
use strongroom_ledger::{Frontier, Rules, Timestamp};

use super::history::{History, Mark, RecordedEnd, RecordedRule, RecordedSubject, RecordedValue};
use crate::error::Error;

/// The first line.
const HEADER: &str = "strongroom-state 1";
/// What is damaged, if a state can't be read.
pub(crate) const UNREADABLE: Error = Error::DataLoss("the state of archived leaves");

/// The sum of a log's first leaves.
pub(crate) struct State {
    /// The tree over them.
    pub frontier: Frontier,
    /// When the last of them was committed.
    pub time: Timestamp,
    /// What leaf 0 says of whose log it is.
    pub begun: Begun,
    /// What they say that the store must hold.
    pub history: History,
}

impl Default for State {
    /// Of no leaf.
    fn default() -> Self {
        let (frontier, begun, history) = (Frontier::new(), Begun::default(), History::default());
        Self { frontier, time: Timestamp(0), begun, history }
    }
}

/// Whose log it is, as its first leaf says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Begun {
    /// `create_vault` or `create_tenant`.
    pub action: String,
    pub vault: String,
    pub tenant_id: String,
    pub tenant: String,
}

impl Begun {
    /// What the first leaf says.
    pub fn of(leaf: &ParsedLeaf) -> Self {
        let says = |name| leaf.says(name).unwrap_or_default().to_owned();
        Self { action: leaf.action.clone(), vault: says("vault"), tenant_id: says("tenant_id"), tenant: says("tenant") }
    }
}

/// How a state is told apart from every other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StateDigest {
    /// How many lines it has.
    pub lines: u64,
    /// SHA-256 over them, each with its newline.
    pub sha256: [u8; 32],
}

/// Sums up the lines of a state.
pub(crate) struct Summing {
    lines: u64,
    sum: Context,
}

impl Summing {
    pub fn new() -> Self {
        Self { lines: 0, sum: Context::new(&SHA256) }
    }

    /// The next line, without its newline.
    pub fn line(&mut self, line: &str) {
        self.lines += 1;
        self.sum.update(line.as_bytes());
        self.sum.update(b"\n");
    }

    pub fn done(self) -> StateDigest {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sum.finish().as_ref());
        StateDigest { lines: self.lines, sha256 }
    }
}

impl State {
    /// Takes the next leaf, with its hash in the tree. Answers what in it contradicts the leaves before it.
    pub fn take(&mut self, leaf: &ParsedLeaf, hash: [u8; 32]) -> Vec<(RowId, &'static str)> {
        if self.frontier.size() == 0 {
            self.begun = Begun::of(leaf);
        }
        self.frontier.push_hash(hash);
        self.time = leaf.time;
        self.history.add(leaf)
    }

    /// Gives each of its lines, in their order. Two states are the same if, and only if, their lines are.
    pub fn lines(&self, mut give: impl FnMut(&str)) {
        // Without `..`: what is new in a history must be thought of here.
        let History {
            values,
            more,
            subjects,
            rules,
            schema,
            policy,
            freezes,
            older_policies,
            policy_by,
            tiers,
            second_factors,
            principals,
            ends,
            ended,
            restored,
            last_row,
            last_subject,
        } = &self.history;
        let Begun { action, vault, tenant_id, tenant } = &self.begun;
        let mut text = String::new();
        let mut line = |parts: &[&dyn Display]| {
            text.clear();
            for (place, part) in parts.iter().enumerate() {
                // Writing to a string does not fail.
                let _ = if place == 0 { write!(text, "{part}") } else { write!(text, " {part}") };
            }
            give(&text);
        };
        line(&[&HEADER]);
        line(&[&"log", &quoted(action), &quoted(vault), &quoted(tenant_id), &quoted(tenant)]);
        line(&[&"leaves", &self.frontier.size(), &self.time.0, &BASE64.encode(&self.frontier.to_bytes())]);
        line(&[&"last", &last_row, &last_subject]);
        line(&[&"rules", &BASE64.encode(&rules.to_bytes())]);
        line(&[&"ended", &or_none(ended.as_ref())]);
        for (leaf, before, incarnation) in restored {
            line(&[&"restored", &leaf, &before, &incarnation]);
        }
        for (kind, rule) in [("schema", schema), ("freezes", freezes), ("tiers", tiers)] {
            if let Some(RecordedRule { leaf, version, hash }) = rule {
                line(&[&kind, &leaf, &version, &hex(hash)]);
            }
        }
        if let Some(RecordedRule { leaf, version, hash }) = policy {
            line(&[&"policy", &leaf, &version, &hex(hash), &quoted(policy_by)]);
        }
        for (version, (RecordedRule { leaf, version: _, hash }, by)) in older_policies {
            line(&[&"older_policy", &leaf, &version, &hex(hash), &quoted(by)]);
        }
        if let Some((hash, leaf)) = principals {
            line(&[&"principals", &leaf, &hex(hash)]);
        }
        for (principal, (hash, leaf)) in second_factors {
            line(&[&"second_factor", &leaf, &or_none(hash.as_ref().map(hex).as_ref()), &quoted(principal)]);
        }
        for (number, RecordedEnd { done, cleared }) in ends {
            line(&[&"end", &number.0, &or_none(done.as_ref()), &or_none(cleared.as_ref())]);
        }
        let mut handles: Vec<SubjectHandle> = subjects.keys().copied().collect();
        handles.sort_unstable();
        for handle in handles {
            let Some(RecordedSubject { leaf, found: _, hash }) = subjects.get(&handle) else { continue };
            line(&[&"subject", &handle.0, &leaf, &hex(hash)]);
        }
        let mut rows: Vec<RowId> = values.keys().copied().collect();
        rows.sort_unstable();
        for row in rows {
            let Some(RecordedValue { leaf, holder, version, found: _, hash }) = values.get(&row) else { continue };
            line(&[&"value", &row.0, &leaf, &version, &holder.0, &hex(hash)]);
        }
        let mut rows: Vec<RowId> = more.keys().copied().collect();
        rows.sort_unstable();
        for row in rows {
            for holder in more.get(&row).into_iter().flatten() {
                line(&[&"holder", &row.0, &holder.0]);
            }
        }
    }

    /// Takes the next line of a state that is read, which begins as an empty one. Whether it is the one that was written, its
    /// digest says.
    pub fn read_line(&mut self, text: &str) -> Result<(), Error> {
        self.line(text).ok_or(UNREADABLE)
    }

    fn line(&mut self, text: &str) -> Option<()> {
        let history = &mut self.history;
        let (kind, rest) = text.split_once(' ')?;
        if kind == "log" {
            let [action, vault, tenant_id, tenant] = strings(rest)?;
            self.begun = Begun { action, vault, tenant_id, tenant };
            return Some(());
        }
        let mut words = rest.split(' ');
        let mut word = || words.next();
        match kind {
            "strongroom-state" => (text == HEADER).then_some(())?,
            "leaves" => {
                let (size, time): (u64, u64) = (word()?.parse().ok()?, word()?.parse().ok()?);
                self.frontier = Frontier::from_bytes(&BASE64.decode(word()?.as_bytes()).ok()?).ok()?;
                self.time = Timestamp(time);
                (self.frontier.size() == size).then_some(())?;
            }
            "last" => (history.last_row, history.last_subject) = (word()?.parse().ok()?, word()?.parse().ok()?),
            "rules" => history.rules = Rules::from_bytes(&BASE64.decode(word()?.as_bytes()).ok()?).ok()?,
            "ended" => history.ended = number_or_none(word()?)?,
            "restored" => {
                let leaf = word()?.parse().ok()?;
                history.restored.push((leaf, word()?.parse().ok()?, word()?.parse().ok()?));
            }
            "schema" | "freezes" | "tiers" | "policy" | "older_policy" => {
                let (leaf, version) = (word()?.parse().ok()?, word()?.parse().ok()?);
                let rule = RecordedRule { leaf, version, hash: hash(word()?)? };
                let by = || rest.splitn(4, ' ').nth(3).and_then(string);
                match kind {
                    "schema" => history.schema = Some(rule),
                    "freezes" => history.freezes = Some(rule),
                    "tiers" => history.tiers = Some(rule),
                    "policy" => (history.policy, history.policy_by) = (Some(rule), by()?),
                    _ => drop(history.older_policies.insert(version, (rule, by()?))),
                }
            }
            "principals" => {
                let leaf = word()?.parse().ok()?;
                history.principals = Some((hash(word()?)?, leaf));
            }
            "second_factor" => {
                let leaf = word()?.parse().ok()?;
                let hash = match word()? {
                    NONE => None,
                    hex => Some(hash(hex)?),
                };
                let principal = string(rest.splitn(3, ' ').nth(2)?)?;
                history.second_factors.insert(principal, (hash, leaf));
            }
            "end" => {
                let number = TenantNo(word()?.parse().ok()?);
                let (done, cleared) = (number_or_none(word()?)?, number_or_none(word()?)?);
                history.ends.insert(number, RecordedEnd { done, cleared });
            }
            "subject" => {
                let (handle, leaf) = (SubjectHandle(word()?.parse().ok()?), word()?.parse().ok()?);
                history.subjects.insert(handle, RecordedSubject { leaf, found: Mark::new(), hash: hash(word()?)? });
            }
            "value" => {
                let (row, leaf) = (RowId(word()?.parse().ok()?), word()?.parse().ok()?);
                let (version, holder) = (word()?.parse().ok()?, SubjectHandle(word()?.parse().ok()?));
                let value = RecordedValue { leaf, holder, version, found: Mark::new(), hash: hash(word()?)? };
                history.values.insert(row, value);
            }
            "holder" => {
                let (row, holder) = (RowId(word()?.parse().ok()?), SubjectHandle(word()?.parse().ok()?));
                history.more.entry(row).or_default().insert(holder);
            }
            _ => return None,
        }
        Some(())
    }
}

/// Where there is nothing.
const NONE: &str = "-";

fn or_none<T: Display>(part: Option<&T>) -> String {
    part.map_or_else(|| NONE.to_owned(), T::to_string)
}

fn number_or_none(word: &str) -> Option<Option<u64>> {
    match word {
        NONE => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn hex(hash: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(hash)
}

fn hash(word: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(word.as_bytes()).ok()?.try_into().ok()
}

/// A text of a leaf as JSON has it: so none has an end of line.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn string(quoted: &str) -> Option<String> {
    serde_json::from_str(quoted).ok()
}

/// Texts one after the other.
fn strings<const N: usize>(quoted: &str) -> Option<[String; N]> {
    let read: Result<Vec<String>, _> = serde_json::Deserializer::from_str(quoted).into_iter().collect();
    read.ok()?.try_into().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use strongroom_ledger::{leaf, leaf_hash};

    use super::*;

    pub fn lines(state: &State) -> Vec<String> {
        let mut lines = Vec::new();
        state.lines(|line| lines.push(line.to_owned()));
        lines
    }

    fn digest(state: &State) -> StateDigest {
        let mut sum = Summing::new();
        state.lines(|line| sum.line(line));
        sum.done()
    }

    pub fn read(lines: &[String]) -> Result<State, Error> {
        let mut state = State::default();
        lines.iter().try_for_each(|line| state.read_line(line))?;
        Ok(state)
    }

    fn recorded(seed: u8) -> RecordedRule {
        RecordedRule { leaf: seed.into(), version: u32::from(seed) + 1, hash: [seed; 32] }
    }

    /// One that has something of everything, put together in an order that is drawn.
    fn full(order: &[u64], words: &[String]) -> State {
        let mut state = State { time: Timestamp(1_795_000_000_000_000), ..State::default() };
        state.begun = Begun {
            action: "create_vault".to_owned(),
            vault: "11".repeat(16),
            tenant_id: "22".repeat(16),
            tenant: words.first().cloned().unwrap_or_default(),
        };
        let history = &mut state.history;
        for number in order {
            state.frontier.push(b"a");
            let seed = (number % 251) as u8;
            let value = RecordedValue {
                leaf: *number,
                holder: SubjectHandle(number / 2),
                version: 3,
                found: Mark::new(),
                hash: [seed; 32],
            };
            history.values.insert(RowId(*number), value);
            history.more.entry(RowId(number / 3)).or_default().insert(SubjectHandle(*number));
            let subject = RecordedSubject { leaf: *number, found: Mark::new(), hash: [seed; 32] };
            history.subjects.insert(SubjectHandle(*number), subject);
            let end = RecordedEnd { done: (number % 2 == 0).then_some(*number), cleared: None };
            history.ends.insert(TenantNo(u32::from(seed)), end);
        }
        for (word, seed) in words.iter().zip(0..=u8::MAX) {
            let hash = (!seed.is_multiple_of(2)).then_some([seed; 32]);
            history.second_factors.insert(word.clone(), (hash, u64::from(seed)));
            history.older_policies.insert(u32::from(seed) + 1, (recorded(seed), word.clone()));
            history.policy_by.clone_from(word);
        }
        history.policy = Some(recorded(1));
        history.schema = Some(recorded(2));
        history.freezes = Some(recorded(3));
        history.tiers = Some(recorded(4));
        history.principals = Some(([5; 32], 5));
        (history.last_row, history.last_subject, history.ended) = (7, 8, Some(9));
        history.restored = vec![(3, 1, 2), (5, 2, 4)];
        state
    }

    proptest! {
        #[test]
        fn a_state_comes_back_and_has_one_form_however_it_came_together(
            numbers in prop::collection::btree_set(any::<u64>(), 0..40),
            words in prop::collection::btree_set(".{0,12}", 0..6),
        ) {
            let words: Vec<String> = words.into_iter().collect();
            let forth: Vec<u64> = numbers.iter().copied().collect();
            // Two numbers with the same seed are of one tenant: the last one counts, so the ends are left out.
            let mut one = full(&forth, &words);
            let mut other = full(&forth.iter().rev().copied().collect::<Vec<u64>>(), &words);
            one.history.ends.clear();
            other.history.ends.clear();
            prop_assert_eq!(lines(&one), lines(&other));
            let whole = full(&forth, &words);
            let written = lines(&whole);
            prop_assert_eq!(written.len() as u64, digest(&whole).lines);
            prop_assert!(written.iter().all(|line| !line.contains('\n')));
            let again = read(&written).unwrap();
            prop_assert_eq!(digest(&again), digest(&whole));
            prop_assert_eq!(lines(&again), written);
        }

        #[test]
        fn no_line_panics(text in ".*", kind in "(log|leaves|last|rules|ended|policy|older_policy|second_factor|end|value) .{0,40}") {
            let _ = State::default().read_line(&text);
            let _ = State::default().read_line(&kind);
        }
    }

    #[test]
    fn every_part_is_in_the_digest() {
        let base = || full(&[1, 2, 3], &["a".to_owned(), "b".to_owned()]);
        let changes: [fn(&mut State); 17] = [
            |state| state.frontier.push(b"b"),
            |state| state.time.0 += 1,
            |state| state.begun.tenant.push('x'),
            |state| state.history.last_row += 1,
            |state| state.history.last_subject += 1,
            |state| state.history.ended = None,
            |state| state.history.restored[1].2 = 3,
            |state| state.history.rules.policy.version += 1,
            |state| state.history.schema = None,
            |state| state.history.policy = None,
            |state| state.history.policy_by.push('x'),
            |state| {
                state.history.older_policies.pop_last();
            },
            |state| {
                state.history.second_factors.pop_last();
            },
            |state| {
                state.history.ends.pop_last();
            },
            |state| {
                state.history.subjects.remove(&SubjectHandle(2));
            },
            |state| state.history.values.values_mut().for_each(|value| value.version += 1),
            |state| {
                state.history.more.remove(&RowId(1));
            },
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut changed = base();
            change(&mut changed);
            assert_ne!(digest(&changed), digest(&base()), "change {place}");
        }
    }

    #[test]
    fn a_state_is_written_as_specified() {
        let line = br#"{"index":"0","time":"2026-11-18T11:06:40.000000Z","request":"01010101010101010101010101010101","principal":"vault","action":"create_vault","decision":"allow","policy":1,"schema":0,"keys":{},"client":"","detail":{"vault":"11111111111111111111111111111111","tenant":"demo","tenant_id":"22222222222222222222222222222222","policy_sha256":"0303030303030303030303030303030303030303030303030303030303030303"}}"#;
        let mut state = State::default();
        assert!(state.take(&leaf::parse(line).unwrap(), leaf_hash(line)).is_empty());
        let page = include_str!("../FORMAT.md");
        let (_, after) = page.split_once("```state\n").unwrap();
        let (expected, _) = after.split_once("```").unwrap();
        assert_eq!(lines(&state).join("\n") + "\n", expected);
    }
}
