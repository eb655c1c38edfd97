//! Which leaves of a log are of which incarnation, and whether they are those that head file and journal know.
//!
//! A log goes on under another origin after a restore, from the leaf `restored` on. So the leaves before that one are those of
//! the incarnation before, as far as the copy reached; what that one had beyond them is not here.

use std::collections::HashMap;

use strongroom_commit::HeadError;
use strongroom_ids::TenantNo;
use strongroom_ledger::head::Head;
use strongroom_ledger::journal::{Log, Record};
use strongroom_ledger::leaf::{self, ParsedLeaf};
use strongroom_ledger::tiles::Edge;
use strongroom_ledger::{Frontier, NewRule, Rules, leaf_hash};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Store, keys as place};

use super::RestoreError;
use crate::archive::{held, said_state};
use crate::error::Error;
use crate::own_action::OwnAction;
use crate::pages::Pages;
use crate::tiles;
use crate::verify::stands;
use crate::verify::state::UNREADABLE;

/// The action of the first leaf of an incarnation.
pub(super) const RESTORED: &str = OwnAction::Restored.as_str();
/// What it calls the incarnation that it begins.
pub(super) const INCARNATION: &str = "incarnation";
/// What it calls the one that the copy was of.
pub(super) const BEFORE: &str = "incarnation_before";
/// Bytes of a stored frontier before its hashes, and of each.
const FRAME: usize = 2 + 8;
const HASH: usize = 32;

/// What a journal says, without its lines.
pub(super) struct Journalled {
    pub log: Log,
    /// How many leaves the log has at the least.
    pub size: u64,
    pub said: Said,
}

/// Of which kind it is, with a hash.
pub(super) enum Said {
    /// A leaf: its hash in the tree.
    Leaf([u8; 32]),
    /// So many leaves: the root over them.
    Seen([u8; 32]),
}

impl Journalled {
    pub fn of(record: &Record) -> Self {
        let (log, size) = record.reach();
        let said = match record {
            Record::Leaf { line, .. } => Said::Leaf(leaf_hash(line)),
            Record::Seen { root, .. } => Said::Seen(*root),
        };
        Self { log, size, said }
    }
}

/// A root that somebody knows.
struct Known {
    incarnation: u16,
    size: u64,
    root: [u8; 32],
    by: &'static str,
    /// Whether leaves of this very incarnation are under it, and not only those that it took over.
    proves: bool,
}

/// A log as the copy has it.
pub(super) struct Lineage {
    /// Each incarnation that it has leaves of, and how many leaves the log had when that one ended.
    segments: Vec<(u16, u64)>,
    /// The newest incarnation that a root which head file or journal know proves to be that of the copy: whoever writes the files
    /// can write any number in the log's head, and a leaf that begins an incarnation.
    pub proven: Option<u16>,
}

impl Lineage {
    /// Whether what a journalled leaf says is to be done again. Of an incarnation before the copy's it was, when that one began.
    pub fn lacks(&self, incarnation: u16, index: u64) -> bool {
        !self.has(incarnation, index) && self.proven.is_none_or(|proven| incarnation >= proven)
    }

    /// Whether a leaf of an incarnation is among the copy's.
    fn has(&self, incarnation: u16, index: u64) -> bool {
        self.end_of(incarnation).is_some_and(|end| index < end)
    }

    fn end_of(&self, incarnation: u16) -> Option<u64> {
        self.segments.iter().find(|(known, _)| *known == incarnation).map(|(_, end)| *end)
    }

    /// How many leaves the log had before the first one of an incarnation.
    fn begin_of(&self, incarnation: u16) -> u64 {
        let before = self.segments.iter().take_while(|(known, _)| *known != incarnation).last();
        before.map_or(0, |(_, end)| *end)
    }

    /// Goes through a log: its leaves make up its head, and wherever head file or journal know of a root or a leaf among them, it
    /// is this one. Of leaves that are archived their state tells, which one of the others must say, and the tiles over them.
    pub async fn of<S: Store>(
        tenant: TenantNo,
        lane: &LaneHead,
        (head, journal): (Option<&Head>, &[Journalled]),
        store: &S,
    ) -> Result<Self, RestoreError> {
        let known = known(tenant, lane, head, journal);
        let mut roots: HashMap<u64, [u8; 32]> = known.iter().map(|one| (one.size, [0; 32])).collect();
        let archived = held::end(store, tenant).await?;
        let (mut frontier, mut rules) = (Frontier::new(), Rules::default());
        let (mut first, mut begun, mut ends) = (None, vec![], vec![]);
        let mut unsaid = None;
        if archived > 0 {
            let (state, digest) = held::state(store, tenant, archived).await?;
            (frontier, rules, unsaid) = (state.frontier, state.history.rules, Some(digest));
            for (index, before, incarnation) in state.history.restored {
                first.get_or_insert(before);
                begun.push(incarnation);
                ends.push(index);
            }
            for (size, root) in roots.iter_mut().filter(|(size, _)| **size < archived) {
                *root = archived_root(tenant, *size, store).await?;
            }
            if let Some(root) = roots.get_mut(&archived) {
                *root = frontier.root();
            }
        }
        let (from, to) = place::leaves_range(tenant, archived, lane.size);
        let mut pages = Pages::new(Family::Leaves, from, to);
        while let Some(page) = pages.next(store).await? {
            for (key, line) in &page {
                let index = frontier.size();
                if place::decode_leaf(key)? != index {
                    return Err(HeadError::LeafMissing { tenant, index }.into());
                }
                if let Ok(leaf) = leaf::parse(line) {
                    if unsaid.is_some() && unsaid == said_state(&leaf, archived) {
                        unsaid = None;
                    }
                    if let Some(new) = NewRule::of(&leaf) {
                        rules.put(new);
                    }
                    if let Some((before, incarnation)) = begins(&leaf) {
                        first.get_or_insert(before);
                        begun.push(incarnation);
                        ends.push(index);
                    }
                }
                frontier.push(line);
                if let Some(root) = roots.get_mut(&frontier.size()) {
                    *root = frontier.root();
                }
            }
        }
        if frontier.size() != lane.size || frontier.to_bytes() != lane.frontier {
            return Err(HeadError::Different { tenant, size: lane.size }.into());
        }
        if unsaid.is_some() {
            return Err(UNREADABLE.into());
        }
        if rules.to_bytes() != lane.rules {
            return Err(HeadError::Rules { tenant }.into());
        }
        ends.push(lane.size);
        let first = first.unwrap_or(lane.incarnation);
        let segments: Vec<(u16, u64)> = std::iter::once(first).chain(begun).zip(ends).collect();
        let mut lineage = Self { segments, proven: None };
        for one in &known {
            let among = lineage.end_of(one.incarnation).is_some_and(|end| one.size <= end);
            if among && roots.get(&one.size) != Some(&one.root) {
                return Err(RestoreError::NotThisLog { tenant, size: one.size, by: one.by });
            }
            if among && one.proves && one.size > lineage.begin_of(one.incarnation) {
                lineage.proven = lineage.proven.max(Some(one.incarnation));
            }
        }
        for Journalled { log, size, said } in journal {
            let (Said::Leaf(hash), Some(index)) = (said, size.checked_sub(1)) else { continue };
            if log.tenant == tenant
                && lineage.has(log.incarnation, index)
                && !stands(store, tenant, index, *hash).await?
            {
                return Err(RestoreError::NotThisLog { tenant, size: *size, by: "the journal" });
            }
        }
        Ok(lineage)
    }
}

/// The root of the tree over the first leaves of a log that are archived.
async fn archived_root<S: Store>(tenant: TenantNo, size: u64, store: &S) -> Result<[u8; 32], RestoreError> {
    let ids = Edge::incomplete(size).into_iter().map(|(id, _)| id).collect();
    let tiles = tiles::stored(store, tenant, ids).await?;
    let edge = Edge::open(size, |id| tiles.get(&id).map(|tile| &**tile));
    Ok(edge.map_err(|_| Error::DataLoss("the tiles over archived leaves"))?.root())
}

/// The incarnation that ends before a leaf, and the one that begins with it, if one does.
pub(crate) fn begins(leaf: &ParsedLeaf) -> Option<(u16, u16)> {
    if leaf.action != RESTORED || leaf.decision != "allow" {
        return None;
    }
    Some((leaf.says(BEFORE)?.parse().ok()?, leaf.says(INCARNATION)?.parse().ok()?))
}

/// All roots of a log that are known and lie among its leaves.
fn known(tenant: TenantNo, lane: &LaneHead, head: Option<&Head>, journal: &[Journalled]) -> Vec<Known> {
    let mut known = Vec::new();
    for Journalled { log, size, said } in journal {
        if let Said::Seen(root) = said
            && log.tenant == tenant
            && (1..=lane.size).contains(size)
        {
            // Noted after the leaf that began it.
            let (incarnation, proves) = (log.incarnation, true);
            known.push(Known { incarnation, size: *size, root: *root, by: "the journal", proves });
        }
    }
    let Some(head) = head else { return known };
    // The file has one incarnation for all; a log that ended before it is left as it was.
    let signed = head.lanes.iter().find(|one| one.tenant == tenant);
    let Some(signed) = signed else { return known };
    let hashes = signed.frontier.get(FRAME..).unwrap_or_default();
    let mut size = 0;
    let subtrees = (0..u64::BITS).rev().filter(|bit| signed.size & (1 << bit) != 0);
    for (count, bit) in (1..).zip(subtrees) {
        size += 1_u64 << bit;
        if size > lane.size {
            break;
        }
        // The first subtrees of a frontier are the frontier of the tree that they make up.
        let mut bytes = signed.frontier.get(..2).unwrap_or_default().to_vec();
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(hashes.get(..count * HASH).unwrap_or_default());
        if let Ok(frontier) = Frontier::from_bytes(&bytes) {
            let (incarnation, proves) = (head.incarnation, size == signed.size);
            known.push(Known { incarnation, size, root: frontier.root(), by: "the head file", proves });
        }
    }
    known
}

impl From<strongroom_storage::StoreError> for RestoreError {
    fn from(error: strongroom_storage::StoreError) -> Self {
        Self::Open(error.into())
    }
}

impl From<HeadError> for RestoreError {
    fn from(error: HeadError) -> Self {
        Self::Open(error.into())
    }
}

impl From<Error> for RestoreError {
    fn from(error: Error) -> Self {
        Self::Open(error.into())
    }
}
