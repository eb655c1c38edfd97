//! What a log says that its store must hold: the sum of its leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU8, Ordering};

use data_encoding::HEXLOWER;
use strongroom_ids::{COUNTER_BITS, RowId, SubjectHandle, TenantNo};
use strongroom_ledger::leaf::{ParsedItem, ParsedLeaf};
use strongroom_ledger::{NewRule, Rule, Rules};

use crate::policies;
use crate::restore::begins;

/// Outcomes of an item whose value is gone.
pub(super) const REMOVED: [&str; 2] = ["deleted", "expired_removed"];
/// The outcome of an item whose subject is gone.
pub(super) const ERASED: &str = "subject_erased";

/// A value as its leaf records it, and what was found of it. 64 bytes with its key, so that a million of values take
/// about 75 to 150 MB, the more the closer the table is to its next growth.
pub(crate) struct RecordedValue {
    /// The leaf that recorded its newest version.
    pub leaf: u64,
    /// A subject that holds it: its own, or the first of those who share it.
    pub holder: SubjectHandle,
    /// Its newest version.
    pub version: u32,
    /// How the row was found.
    pub found: Mark,
    /// SHA-256 of its row.
    pub hash: [u8; 32],
}

/// What was found of a row, noted while other threads look at the history. Who reads it does so after all was noted.
pub(crate) struct Mark(AtomicU8);

impl Mark {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(AtomicU8::new(Found::Not as u8))
    }

    /// What was noted last.
    pub fn get(&self) -> Found {
        let noted = self.0.load(Ordering::Relaxed);
        Found::ALL.into_iter().find(|found| *found as u8 == noted).unwrap_or(Found::Not)
    }

    /// Notes what was found.
    pub fn set(&self, found: Found) {
        self.0.store(found as u8, Ordering::Relaxed);
    }
}

/// How a row that the log records was found in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Found {
    /// Not yet, or not at all.
    Not,
    /// As recorded: a value of one subject, or a subject's record.
    Owned,
    /// As recorded: a value without subject, with a DEK of its own.
    Alone,
    /// As recorded: a value that subjects may share, with a DEK of its own.
    Shared,
    /// Not as recorded. What leads to it is not looked at: the row itself is the finding.
    Wrong,
}

impl Found {
    const ALL: [Self; 5] = [Self::Not, Self::Owned, Self::Alone, Self::Shared, Self::Wrong];

    /// Whether the row is as recorded.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Owned | Self::Alone | Self::Shared)
    }
}

/// A subject as its leaf records it.
pub(crate) struct RecordedSubject {
    pub leaf: u64,
    /// How the record was found.
    pub found: Mark,
    /// SHA-256 of its record without its wrapped DEKs.
    pub hash: [u8; 32],
}

/// A schema, policy, list of freezes or of tiers as its leaf records it.
pub(crate) struct RecordedRule {
    pub leaf: u64,
    pub version: u32,
    pub hash: [u8; 32],
}

/// The end of a tenant as the vault's own log records it.
#[derive(Default)]
pub(crate) struct RecordedEnd {
    /// The leaf that says that its keys are destroyed.
    pub done: Option<u64>,
    /// The leaf that says that nothing is left of it but its log.
    pub cleared: Option<u64>,
}

/// Tenants that were destroyed.
pub(crate) type Ends = BTreeMap<TenantNo, RecordedEnd>;

/// The sum of a log's leaves.
#[derive(Default)]
pub(crate) struct History {
    pub values: HashMap<RowId, RecordedValue>,
    /// Holders of shared values beside the one that stands with the value.
    pub more: HashMap<RowId, BTreeSet<SubjectHandle>>,
    pub subjects: HashMap<SubjectHandle, RecordedSubject>,
    /// What is in force, as the log's head carries it along.
    pub rules: Rules,
    pub schema: Option<RecordedRule>,
    pub policy: Option<RecordedRule>,
    pub freezes: Option<RecordedRule>,
    /// Older versions of the policy that must be kept, by version, and who applied each.
    pub older_policies: BTreeMap<u32, (RecordedRule, String)>,
    /// Who applied the policy in force.
    pub policy_by: String,
    pub tiers: Option<RecordedRule>,
    /// SHA-256 of each second factor's row, by whose it is, and the leaf that recorded it; no hash of one that was reset.
    pub second_factors: BTreeMap<String, (Option<[u8; 32]>, u64)>,
    /// SHA-256 of the principals' row, in the vault's own log, and the leaf that recorded it.
    pub principals: Option<([u8; 32], u64)>,
    /// Tenants that were destroyed, in the vault's own log.
    pub ends: Ends,
    /// The leaf that ends the log: its tenant was destroyed.
    pub ended: Option<u64>,
    /// The leaves that begin an incarnation: each with the one before, and its own.
    pub restored: Vec<(u64, u16, u16)>,
    /// The highest row id and handle that the log ever named, by incarnation and counter.
    pub last_row: u64,
    pub last_subject: u64,
}

impl History {
    /// Takes the next leaf. Returns what in it contradicts the leaves before it: leaves are what the vault wrote, so
    /// either a leaf was forged or the vault has gone wrong.
    pub fn add(&mut self, leaf: &ParsedLeaf) -> Vec<(RowId, &'static str)> {
        let mut wrong = Vec::new();
        self.second_factor(leaf);
        if leaf.decision != "allow" {
            return wrong;
        }
        if leaf.action == "destroy_tenant" {
            self.end(leaf);
        }
        self.restored.extend(begins(leaf).map(|(before, incarnation)| (leaf.index, before, incarnation)));
        if let Some(new) = NewRule::of(leaf) {
            let recorded = |rule: Rule| RecordedRule { leaf: leaf.index, version: rule.version, hash: rule.hash };
            match new {
                _ if !self.rules.put(new) => wrong.push((RowId(0), "rules of an older version come into force")),
                NewRule::Policy(rule) => self.applied(recorded(rule), &leaf.principal),
                NewRule::Schema(rule) => self.schema = Some(recorded(rule)),
                NewRule::Freezes(rule) => self.freezes = Some(recorded(rule)),
                NewRule::Principals(rule) => self.principals = Some((rule.hash, leaf.index)),
                NewRule::First { policy, principals } => {
                    self.policy = Some(recorded(policy));
                    self.principals = Some((principals.hash, leaf.index));
                }
                NewRule::Tiers(rule) => self.tiers = Some(recorded(rule)),
            }
        }
        for item in &leaf.items {
            if let Some(contradiction) = self.item(leaf.index, item) {
                wrong.push((item.row.unwrap_or(RowId(0)), contradiction));
            }
        }
        wrong
    }

    /// Another policy comes into force, and the one before it is kept.
    fn applied(&mut self, rule: RecordedRule, by: &str) {
        let oldest = policies::oldest(rule.version);
        let before = self.policy.replace(rule);
        let before_by = std::mem::replace(&mut self.policy_by, by.to_owned());
        self.older_policies.extend(before.map(|before| (before.version, (before, before_by))));
        self.older_policies.retain(|version, _| *version >= oldest);
    }

    /// A wrong code, too, changes its factor: that leaf says `deny`, and names the row. A refusal that changed nothing names
    /// none.
    fn second_factor(&mut self, leaf: &ParsedLeaf) {
        const CHANGE: [&str; 4] = ["enrol_second_factor", "confirm_second_factor", "step_up", "reset_second_factor"];
        if CHANGE.contains(&leaf.action.as_str())
            && let Some(principal) = leaf.says("factor")
        {
            self.second_factors.insert(principal.to_owned(), (hash(leaf, "sha256"), leaf.index));
        }
    }

    /// A tenant's own log only says that it ends; the vault's says whose end has come how far.
    fn end(&mut self, leaf: &ParsedLeaf) {
        let Some(number) = leaf.says("number").and_then(|number| number.parse().ok()) else {
            self.ended.get_or_insert(leaf.index);
            return;
        };
        let (done, cleared) = match leaf.says("stage") {
            Some("intent") => (None, None),
            Some("done") => (Some(leaf.index), None),
            Some("cleared") => (None, Some(leaf.index)),
            // Who only asked.
            _ => return,
        };
        let end = self.ends.entry(TenantNo(number)).or_default();
        end.done = end.done.or(done);
        end.cleared = end.cleared.or(cleared);
    }

    fn item(&mut self, leaf: u64, item: &ParsedItem) -> Option<&'static str> {
        let holder = item.subject.unwrap_or(SubjectHandle::NONE);
        self.last_subject = self.last_subject.max(holder.0);
        if item.outcome == "subject_created" {
            let hash = item.hash?;
            let before = self.subjects.insert(holder, RecordedSubject { leaf, found: Mark::new(), hash });
            return before.map(|_| "a handle is given to a second subject");
        }
        if item.outcome == ERASED {
            let before = self.subjects.remove(&holder);
            return before.is_none().then_some("a subject is erased, and there is none");
        }
        const CHANGED: [&str; 10] = [
            "subject_resealed",
            "subject_labelled",
            "consent_granted",
            "consent_withdrawn",
            "subject_leaving",
            "erasure_undone",
            "subject_held",
            "subject_closed",
            "hold_set",
            "hold_lifted",
        ];
        if CHANGED.contains(&item.outcome.as_str()) {
            let before = self.subjects.insert(holder, RecordedSubject { leaf, found: Mark::new(), hash: item.hash? });
            return before.is_none().then_some("a subject's record is changed, and there is no such subject");
        }
        let row = item.row?;
        self.last_row = self.last_row.max(row.0);
        match item.outcome.as_str() {
            // Reads have the outcome `ok` as well, and neither version nor hash.
            "ok" => self.written(leaf, row, holder, item.version?.0, item.hash?),
            "renewed" | "resealed" => self.same_value(leaf, row, item.version?.0, item.hash?),
            "existing" => match self.values.get(&row) {
                Some(value) if value.holder == holder => None,
                Some(_) => {
                    self.more.entry(row).or_default().insert(holder);
                    None
                }
                None => Some("a value gets another holder and was never stored, or is deleted"),
            },
            "released" => self.released(row, holder),
            outcome if REMOVED.contains(&outcome) => {
                self.more.remove(&row);
                let before = self.values.remove(&row);
                before.is_none().then_some("a value is deleted that was never stored, or is deleted already")
            }
            _ => None,
        }
    }

    fn written(
        &mut self,
        leaf: u64,
        row: RowId,
        holder: SubjectHandle,
        version: u32,
        hash: [u8; 32],
    ) -> Option<&'static str> {
        let value = RecordedValue { leaf, holder, version, found: Mark::new(), hash };
        match (self.values.insert(row, value).map(|before| before.version), version) {
            (None, 1) => None,
            (Some(before), version) if before.checked_add(1) == Some(version) => None,
            (None, _) => Some("a version is replaced that was never stored"),
            (Some(_), 1) => Some("a row id is given to a second value"),
            (Some(_), _) => Some("a version does not follow the one before it"),
        }
    }

    /// The same value in a new version of its row; who holds it stays.
    fn same_value(&mut self, leaf: u64, row: RowId, version: u32, hash: [u8; 32]) -> Option<&'static str> {
        let holder = self.values.get(&row).map(|value| value.holder);
        self.written(leaf, row, holder.unwrap_or(SubjectHandle::NONE), version, hash)
    }

    fn released(&mut self, row: RowId, holder: SubjectHandle) -> Option<&'static str> {
        let wrong = Some("a hold on a value ends that never began, or is the last one");
        let (Some(value), Some(more)) = (self.values.get_mut(&row), self.more.get_mut(&row)) else { return wrong };
        if more.remove(&holder) {
            return None;
        }
        match more.pop_first() {
            Some(next) if value.holder == holder => {
                value.holder = next;
                None
            }
            next => {
                more.extend(next);
                wrong
            }
        }
    }

    /// All who hold a value.
    pub fn holders<'h>(&'h self, row: RowId, value: &'h RecordedValue) -> impl Iterator<Item = SubjectHandle> + 'h {
        std::iter::once(value.holder).chain(self.more.get(&row).into_iter().flatten().copied())
    }

    /// Whether a subject holds a value.
    pub fn holds(&self, row: RowId, value: &RecordedValue, subject: SubjectHandle) -> bool {
        value.holder == subject || self.more.get(&row).is_some_and(|more| more.contains(&subject))
    }

    /// The counters of the highest row id and handle of an incarnation; none if there is none of that incarnation.
    pub fn last_counters(&self, incarnation: u16) -> [Option<u64>; 2] {
        [self.last_row, self.last_subject]
            .map(|last| (last >> COUNTER_BITS == u64::from(incarnation)).then_some(last & ((1 << COUNTER_BITS) - 1)))
    }
}

/// A hash in a leaf's detail.
fn hash(leaf: &ParsedLeaf, name: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(leaf.says(name)?.as_bytes()).ok()?.try_into().ok()
}
