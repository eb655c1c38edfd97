//! The logs: every leaf in its form and order, the tree over them, and what was signed of it.
//!
//! A log is read once. Threads take a block of leaves each: they hash and parse the leaves, and hold the block against its rows
//! in the index (`leaf_index.rs`). The walk goes along what they bring, in order.

use bytes::Bytes;
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf::{self, ParsedLeaf, Part};
use strongroom_ledger::{Frontier, LedgerError, Rules, leaf_hash};
use strongroom_storage::rows::{BLOCK, LaneHead};
use strongroom_storage::{Entry, Family, Range, Store, StoreError, keys as place};

use super::changed::Suspect;
use super::finding::{Fault, Kind, Place};
use super::history::History;
use super::leaf_index::{Block, Held, Index};
use super::state::{Begun, State, StateDigest};
use super::{Check, Phase, ahead};
use crate::archive::said_state;
use crate::open::{LANE, SYSTEM, SYSTEM_NO};
use crate::pages::Pages;

/// What was signed of a log.
pub(super) struct Signed {
    /// Leaves that it counts.
    pub size: u64,
    /// The root over them.
    pub root: [u8; 32],
    /// The tree's edge, if it is known: it leads to the leaves even where the last tiles are missing.
    pub frontier: Option<Frontier>,
    /// What signed it, for people.
    pub whose: String,
}

/// A stretch of a log: the keys that lie in one block of its index, or one key that is none of a leaf.
struct Stretch {
    from: Vec<u8>,
    to: Vec<u8>,
    /// The first leaf of the block.
    block: Option<u64>,
}

/// The stretches of a log that have something in them.
struct Stretches {
    log: TenantNo,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Stretches {
    fn of(log: TenantNo) -> Self {
        let from = log.0.to_be_bytes().to_vec();
        let to = place::prefix_end(&from);
        Self { log, from, to }
    }

    async fn next<S: Store>(&mut self, store: &S) -> Result<Option<Stretch>, StoreError> {
        let range = Range { from: self.from.clone(), to: self.to.clone(), limit: 1 };
        let Some((key, _)) = store.scan(Family::Leaves, range).await?.pop() else { return Ok(None) };
        let block = place::decode_leaf(&key).ok().map(|index| index - index % BLOCK);
        let from = key.to_vec();
        let to = match block.map(|first| first.checked_add(BLOCK)) {
            Some(Some(next)) => place::leaf(self.log, next),
            Some(None) => [&place::leaf(self.log, u64::MAX)[..], &[0]].concat(),
            None => [&from[..], &[0]].concat(),
        };
        self.from.clone_from(&to);
        Ok(Some(Stretch { from, to, block }))
    }
}

/// What can be said of a leaf by itself.
struct Seen {
    key: Bytes,
    /// Its place; none if the key is none of a leaf.
    index: Option<u64>,
    /// Its hash in the tree.
    hash: [u8; 32],
    parsed: Result<ParsedLeaf, LedgerError>,
}

impl Seen {
    fn look((key, line): &Entry) -> Self {
        let index = place::decode_leaf(key).ok();
        Self { key: key.clone(), index, hash: leaf_hash(line), parsed: leaf::parse(line) }
    }
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
    /// What was signed of other leaves than these.
    suspects: Vec<Suspect>,
}

impl<S: Store> Check<'_, S> {
    /// Goes along all leaves and sums up what they record, and what was found of their index.
    pub async fn replay(&mut self, mut signed: Vec<Signed>) -> Result<(History, Index), StoreError> {
        signed.sort_by_key(|one| one.size);
        let mut signed = signed.into_iter().peekable();
        let expected = self.lane.as_ref().map_or(0, |lane| lane.size);
        let (state, digest) = self.state_of_archived().await?;
        let edge = state.frontier.clone();
        let archived = edge.size();
        let mut walk =
            Walk { state, next: archived, broken: false, open: None, unnamed: digest, archived, suspects: vec![] };
        while let Some(one) = signed.next_if(|one| one.size < archived) {
            self.compare_archived(&one).await?;
        }
        let mut index = self.index_of_leaves(expected).await;
        let (store, seed, threads, extent) = (self.store, self.part(), self.threads, index.extent());
        let mut stretches = Stretches::of(self.number);
        let next = async || stretches.next(store).await;
        let look = async |stretch: Stretch| {
            let mut seen = Vec::new();
            let mut block = Block::new(stretch.block, extent);
            let mut pages = Pages::new(Family::Leaves, stretch.from, stretch.to).of(ahead::PAGE);
            while let Some(page) = pages.next(store).await? {
                for entry in &page {
                    let leaf = Seen::look(entry);
                    if let Some(index) = leaf.index {
                        block.add(index, &entry.1);
                    }
                    seen.push(leaf);
                }
            }
            Ok::<_, StoreError>((seen, seed.held(block).await))
        };
        let take = |(seen, block): (Vec<Seen>, Held)| {
            for leaf in seen {
                while let Some(one) = signed.next_if(|one| one.size <= walk.next) {
                    self.compare(&mut walk, one);
                }
                match leaf.index {
                    Some(at) if at < archived => self.archived_leaf(at),
                    Some(at) => self.leaf(&mut walk, at, leaf.hash, leaf.parsed),
                    None => self.unknown(&leaf.key),
                }
            }
            index.take(block);
            self.report(Phase::Leaves, walk.next, expected);
        };
        let walked = ahead::pieces(threads, next, look, take).await;
        if matches!(walked, Err(StoreError::Corrupt { .. })) {
            // What was found before the damage is said.
            self.changed_leaves(std::mem::take(&mut walk.suspects), &edge).await?;
        }
        walked?;
        self.named(&walk);
        for one in signed {
            self.compare(&mut walk, one);
        }
        self.changed_leaves(std::mem::take(&mut walk.suspects), &edge).await?;
        self.end(&walk);
        self.counts.leaves = walk.next;
        self.counts.archived_leaves = archived;
        Ok((walk.state.history, index))
    }

    fn leaf(&mut self, walk: &mut Walk, index: u64, hash: [u8; 32], parsed: Result<ParsedLeaf, LedgerError>) {
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
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                walk.state.frontier.push_hash(hash);
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
        for (row, contradiction) in walk.state.take(&parsed, hash) {
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

    /// Holds what was signed against the tree at its size. Which leaves were changed is looked for after the walk.
    fn compare(&mut self, walk: &mut Walk, signed: Signed) {
        let Signed { size, root, whose, .. } = &signed;
        if *size > walk.next {
            let what = format!(
                "{whose} signs {size} leaves and the log has {}: the last {} are gone; it was put back to an older state",
                walk.next,
                size - walk.next
            );
            return self.found(Kind::Log, Fault::RolledBack, Place::Only, what);
        }
        if walk.broken || walk.state.frontier.root() != *root {
            // Where a leaf is missing there is no tree to compare.
            let tree = (!walk.broken).then(|| walk.state.frontier.clone());
            walk.suspects.push(Suspect { signed, tree });
        }
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
