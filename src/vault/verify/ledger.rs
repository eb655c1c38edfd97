//! The logs: every leaf in its form and order, the tree over them, and what was signed of it.

use std::path::Path;

use strongroom_ids::TenantNo;
use strongroom_ledger::leaf::{self, ParsedLeaf, Part};
use strongroom_ledger::{Frontier, Rules, head};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::finding::{Fault, Kind, Place};
use super::history::History;
use super::state::{Begun, State, StateDigest};
use super::{Check, Phase};
use crate::archive::said_state;
use crate::open::{LANE, SYSTEM, SYSTEM_NO};
use crate::pages::Pages;

/// What was signed of a log.
pub(super) struct Signed {
    /// Leaves that it counts.
    pub size: u64,
    /// The root over them.
    pub root: [u8; 32],
    /// The tree's edge, if it is known: it narrows where a change lies.
    pub frontier: Option<Frontier>,
    /// What signed it, for people.
    pub whose: String,
}

/// What the head file says.
pub(super) struct HeadSigned {
    /// Whether the vault was stopped in order.
    pub closed: bool,
    /// What it signs of each log.
    pub lanes: Vec<(TenantNo, Signed)>,
}

/// Reads the head file, if one of the keys that sign it has.
pub(super) fn read_head_file(
    path: &Path,
    vault: strongroom_ids::VaultId,
    publics: &[[u8; 32]],
) -> Result<HeadSigned, (Fault, String)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("the head file {} is missing: nothing says how far the logs had come", path.display());
            return Err((Fault::Missing, what));
        }
        Err(error) => return Err((Fault::Unreadable, format!("the head file {}: {error}", path.display()))),
    };
    let head = head::open_by_any(&bytes, vault, publics)
        .map_err(|error| (Fault::Changed, format!("the head file {} is not this vault's: {error}", path.display())))?;
    let signed = head.lanes.into_iter().map(|lane| {
        let frontier = Frontier::from_bytes(&lane.frontier).ok();
        (lane.tenant, Signed { size: lane.size, root: lane.root, frontier, whose: "the head file".to_owned() })
    });
    Ok(HeadSigned { closed: head.closed, lanes: signed.collect() })
}

/// The walk along one log.
pub(super) struct Walk {
    /// The sum of the leaves so far.
    state: State,
    /// The index that comes next.
    next: u64,
    /// Whether a leaf was missing, so that the tree can't be followed any more.
    broken: bool,
    open: Option<([u8; 16], Part)>,
    /// The state that it began with, until the leaf comes that says it.
    pub unnamed: Option<StateDigest>,
    /// With how many leaves it began.
    pub archived: u64,
}

impl<S: Store> Check<'_, S> {
    /// Goes along all leaves and sums up what they record.
    pub async fn replay(&mut self, mut signed: Vec<Signed>) -> Result<History, StoreError> {
        signed.sort_by_key(|one| one.size);
        let mut signed = signed.into_iter().peekable();
        let expected = self.lane.as_ref().map_or(0, |lane| lane.size);
        let (state, digest) = self.state_of_archived().await?;
        let archived = state.frontier.size();
        let mut walk = Walk { state, next: archived, broken: false, open: None, unnamed: digest, archived };
        while let Some(one) = signed.next_if(|one| one.size < archived) {
            self.compare_archived(&one).await?;
        }
        let mut pages = Pages::of_tenant(Family::Leaves, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, line) in &page {
                while let Some(one) = signed.next_if(|one| one.size <= walk.next) {
                    self.compare(&walk, &one);
                }
                match place::decode_leaf(key) {
                    Ok(index) if index < archived => self.archived_leaf(index),
                    Ok(index) => self.leaf(&mut walk, index, line),
                    Err(_) => self.unknown(key),
                }
            }
            self.report(Phase::Leaves, walk.next, expected);
        }
        self.named(&walk);
        for one in signed {
            self.compare(&walk, &one);
        }
        self.end(&walk);
        self.counts.leaves = walk.next;
        self.counts.archived_leaves = archived;
        Ok(walk.state.history)
    }

    fn leaf(&mut self, walk: &mut Walk, index: u64, line: &[u8]) {
        if index != walk.next {
            let what = match index - walk.next {
                1 => "the leaf is missing".to_owned(),
                _ => format!("the leaves from here to {} are missing", index - 1),
            };
            self.found(Kind::Leaf, Fault::Missing, Place::Leaf(walk.next), what);
            walk.broken = true;
            walk.open = None;
        }
        walk.next = index.saturating_add(1);
        let parsed = match leaf::parse(line) {
            Ok(parsed) => parsed,
            Err(error) => {
                walk.state.frontier.push(line);
                self.found(Kind::Leaf, Fault::Changed, Place::Leaf(index), error.to_string());
                walk.open = None;
                return;
            }
        };
        let mut wrong = |what: &str| self.found(Kind::Leaf, Fault::Changed, Place::Leaf(index), what);
        if parsed.index != index {
            wrong(&format!("leaf {} stands here", parsed.index));
        }
        if parsed.time < walk.state.time {
            wrong("its time is before that of the leaf before it");
        }
        if !follows(walk.open, &parsed) {
            wrong("a part of a large request is missing before it, or was changed");
        }
        if let Some(end) = walk.state.history.ended {
            wrong(&format!("leaf {end} ends the log, and this one comes after it"));
        }
        for (row, contradiction) in walk.state.take(&parsed, line) {
            wrong(&format!("it contradicts the leaves before it at row {row}: {contradiction}"));
        }
        if index == 0 {
            self.first_leaf(&Begun::of(&parsed));
        }
        if walk.unnamed.is_some() && walk.unnamed == said_state(&parsed, walk.archived) {
            walk.unnamed = None;
        }
        walk.open = parsed.part.filter(|part| part.which < part.of).map(|part| (parsed.request, part));
    }

    /// The first leaf says whose log it is.
    pub(super) fn first_leaf(&mut self, begun: &Begun) {
        let Begun { action, vault, tenant_id, tenant } = begun;
        let made_later = action == "create_tenant" && self.number != SYSTEM_NO;
        if action != "create_vault" && !made_later {
            let what = "the log does not begin with the making of its tenant";
            return self.found(Kind::Leaf, Fault::Changed, Place::Leaf(0), what);
        }
        if *vault != self.vault.to_string() || *tenant_id != self.id.to_string() {
            let what = "the log begins with the making of another vault or tenant";
            self.found(Kind::Leaf, Fault::Changed, Place::Leaf(0), what);
        } else if **tenant != *self.name {
            let what = format!("its name is not the one that leaf 0 records, `{tenant}`");
            self.found(Kind::Tenant, Fault::Changed, Place::Only, what);
        }
    }

    /// Holds what was signed against the tree at its size.
    fn compare(&mut self, walk: &Walk, signed: &Signed) {
        let Signed { size, root, frontier, whose } = signed;
        if *size > walk.next {
            let what = format!(
                "{whose} signs {size} leaves and the log has {}: the last {} are gone; it was put back to an older state",
                walk.next,
                size - walk.next
            );
            return self.found(Kind::Log, Fault::RolledBack, Place::Only, what);
        }
        // A missing leaf is named already, and nothing after it can be compared.
        if walk.broken || walk.state.frontier.root() == *root {
            return;
        }
        let range = frontier.as_ref().and_then(|frontier| first_difference(frontier, &walk.state.frontier));
        let (from, to) = range.unwrap_or((0, *size));
        let place = if to - from == 1 { Place::Leaf(from) } else { Place::Only };
        let what = match to - from {
            1 => format!("it is not the leaf that {whose} signs"),
            _ => format!("leaves {from} to {} are not those that {whose} signs: one or more were changed", to - 1),
        };
        self.found(if to - from == 1 { Kind::Leaf } else { Kind::Log }, Fault::Changed, place, what);
    }

    /// The end of the log: its head must say the same.
    fn end(&mut self, walk: &Walk) {
        if walk.open.is_some() {
            let what = "the log ends before all parts of its last request";
            self.found(Kind::Leaf, Fault::Missing, Place::Leaf(walk.next), what);
        }
        if walk.next == 0 {
            let what = "the log is empty, and every log begins with the leaf that says whose it is";
            return self.found(Kind::Leaf, Fault::Missing, Place::Leaf(0), what);
        }
        let Some(LaneHead { size, time, frontier, rules, .. }) = self.lane.clone() else { return };
        if size > walk.next {
            let what = format!("the log's head counts {size} leaves; all from this one on are missing");
            return self.found(Kind::Leaf, Fault::Missing, Place::Leaf(walk.next), what);
        }
        if size < walk.next {
            let what = format!("the log's head counts {size} leaves; this one and what follows were added");
            return self.found(Kind::Leaf, Fault::Added, Place::Leaf(size), what);
        }
        if let Some(closed) = self.closed_at.filter(|closed| walk.next > *closed) {
            let what = format!(
                "the vault was stopped in order with {closed} leaves; this one and what follows came after, so the vault \
                 did not write them, or the head file is an older copy"
            );
            self.found(Kind::Leaf, Fault::Added, Place::Leaf(closed), what);
        }
        let same = Frontier::from_bytes(&frontier).is_ok_and(|stored| stored == walk.state.frontier);
        if !walk.broken && (!same || time != walk.state.time.0) {
            let what = "the log's head is not the head of its leaves";
            return self.found(Kind::Log, Fault::Changed, Place::Only, what);
        }
        if !walk.broken && Rules::from_bytes(&rules) != Ok(walk.state.history.rules) {
            let what = "the log's head names other rules than its leaves put in force";
            self.found(Kind::Log, Fault::Changed, Place::Only, what);
        }
    }

    /// Reads the head of the tenant's log.
    pub async fn read_lane(&mut self) -> Result<(), StoreError> {
        self.lane = match self.store.get(Family::Meta, place::lane(self.number, LANE)).await? {
            Some(bytes) => match LaneHead::decode(&bytes) {
                Ok(head) => Some(head),
                Err(error) => {
                    self.found(Kind::Log, Fault::Unreadable, Place::Only, error.to_string());
                    None
                }
            },
            None => {
                let what = "the log's head is missing";
                self.found(Kind::Log, Fault::Missing, Place::Only, what);
                None
            }
        };
        Ok(())
    }

    /// What the head file says of a tenant that the store does not know.
    pub fn log_without_tenant(&mut self, tenant: TenantNo, size: u64) {
        debug_assert_eq!(&*self.name, SYSTEM);
        let what = format!("the head file signs {size} leaves of tenant {tenant}, and the store knows no such tenant");
        self.found(Kind::Tenant, Fault::Missing, Place::Only, what);
    }
}

/// Whether a leaf is what may follow the parts that were read.
fn follows(open: Option<([u8; 16], Part)>, leaf: &ParsedLeaf) -> bool {
    match (open, leaf.part) {
        (None, None) => true,
        (None, Some(part)) => part.which == 1 && part.of > 1,
        (Some(_), None) => false,
        (Some((request, last)), Some(part)) => {
            part.of == last.of && part.which.checked_sub(1) == Some(last.which) && leaf.request == request
        }
    }
}

/// The leaves under the first complete subtree in which two trees of one size differ, from inclusive to exclusive.
fn first_difference(one: &Frontier, other: &Frontier) -> Option<(u64, u64)> {
    if one.size() != other.size() {
        return None;
    }
    // Both are format, suite and size, then 32 bytes for each bit set in the size, the highest first.
    let (one, other, size) = (one.to_bytes(), other.to_bytes(), one.size());
    let hashes = |bytes: &[u8]| bytes.get(10..).unwrap_or_default().chunks(32).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut from = 0;
    let bits = (0..u64::BITS).rev().filter(|bit| size >> bit & 1 == 1);
    for ((bit, one), other) in bits.zip(hashes(&one)).zip(hashes(&other)) {
        let to = from + (1 << bit);
        if one != other {
            return Some((from, to));
        }
        from = to;
    }
    None
}
