//! Which leaves were changed: the tiles lead from what was signed down to each leaf.
//!
//! The walk along a log only finds that its tree is another than the one that was signed. A tile whose hashes give a hash that
//! is proven is proven itself, whoever wrote it; so each leaf under proven tiles is the one that was signed, or is named. Where a tile
//! was changed as well, those below it may still give what it should have had; else its leaves are named as a range. Leaves
//! are read once more for this, so a log that nobody changed costs nothing.

use std::collections::{HashMap, HashSet};

use data_encoding::HEXLOWER;
use strongroom_ids::TenantNo;
use strongroom_ledger::cover::Subtree;
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_ledger::{Frontier, leaf_hash};
use strongroom_storage::rows::{BLOCK, BlockRow};
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::finding::{Fault, Kind, Place};
use super::ledger::Signed;
use super::{Check, ahead};
use crate::pages::Pages;
use crate::tiles;

/// The height of a subtree whose leaves are under one tile.
const BLOCK_HEIGHT: u8 = 8;

/// What was signed of other leaves than those that are there.
pub(super) struct Suspect {
    pub signed: Signed,
    /// The tree over as many leaves as they are; none if one is missing.
    pub tree: Option<Frontier>,
}

/// What became of the leaves under a subtree that is proven.
enum Looked {
    /// They are those that were signed, as far as they are there.
    Same,
    /// These are others, and what the hash of each should be.
    Changed(Vec<(u64, [u8; 32])>),
    /// Some of them are others, and no tile says which.
    Range,
}

/// Leaves that were named, by their blocks: each is named once however many have signed it.
type Named = HashMap<u64, BlockRow>;

impl<S: Store> Check<'_, S> {
    /// Names the leaves by which the log is another than was signed. Those that are archived are not there to be looked at:
    /// the tree over them is what their state says.
    pub(super) async fn changed_leaves(
        &mut self,
        suspects: Vec<Suspect>,
        archived: &Frontier,
    ) -> Result<(), StoreError> {
        let mut named = HashMap::new();
        // What was looked at by what somebody else has signed, and whether something was found there.
        let mut known: HashMap<Subtree, bool> = HashMap::new();
        // What was signed and is explained: whoever signed the same says nothing more.
        let mut explained = HashSet::new();
        let mut damaged = false;
        for suspect in suspects {
            let signed = (suspect.signed.size, suspect.signed.root);
            if explained.contains(&signed) {
                continue;
            }
            // What can't be read is one finding, and keeps nobody from hearing that the log is another.
            let found = if damaged {
                false
            } else {
                let found = self.names(&suspect, archived, &mut named, &mut known).await;
                let found = self.unless_damaged(found)?;
                damaged = found.is_none();
                found.unwrap_or(false)
            };
            if found {
                explained.insert(signed);
            } else if let Some(tree) = &suspect.tree {
                let Signed { size, frontier, whose, .. } = &suspect.signed;
                let range = frontier.as_ref().and_then(|frontier| first_difference(frontier, tree));
                let (from, to) = range.unwrap_or((0, *size));
                self.changed_range(whose, from, to);
            }
        }
        Ok(())
    }

    /// Names those by which it is another than one was signed. Says whether anything was found, now or before.
    async fn names(
        &mut self,
        suspect: &Suspect,
        archived: &Frontier,
        named: &mut Named,
        known: &mut HashMap<Subtree, bool>,
    ) -> Result<bool, StoreError> {
        let proven = proven(self.store, self.number, suspect).await?;
        self.descend(&suspect.signed.whose, proven, archived, named, known).await
    }

    /// Goes down from subtrees that are proven, in order. Says whether anything was found, now or before.
    async fn descend(
        &mut self,
        whose: &str,
        mut open: Vec<Subtree>,
        archived: &Frontier,
        named: &mut Named,
        known: &mut HashMap<Subtree, bool>,
    ) -> Result<bool, StoreError> {
        let (store, log, threads) = (self.store, self.number, self.threads);
        open.reverse();
        let (mut found, mut before, mut looked_at) = (false, false, Vec::new());
        let seen = &*known;
        let next = async || {
            while let Some(subtree) = open.pop() {
                if subtree.end().is_none_or(|end| end <= archived.size()) {
                    continue;
                }
                if let Some(found) = seen.get(&subtree) {
                    before |= *found;
                    continue;
                }
                if subtree.height <= BLOCK_HEIGHT {
                    return Ok::<_, StoreError>(Some(subtree));
                }
                match below(store, log, &subtree).await? {
                    Some(below) => open.extend(below.into_iter().rev()),
                    None => return Ok(Some(subtree)),
                }
            }
            Ok(None)
        };
        let look = async |subtree: Subtree| Ok::<_, StoreError>((subtree, look(store, log, &subtree, archived).await?));
        // Ranges that follow each other are one finding.
        let mut range: Option<(u64, u64)> = None;
        let take = |(subtree, looked): (Subtree, Looked)| {
            let (from, to) = (subtree.start, subtree.end().unwrap_or(subtree.start));
            let joined = range.filter(|(_, end)| *end == from && matches!(looked, Looked::Range));
            if let (None, Some((from, to))) = (joined, range.take()) {
                self.changed_range(whose, from, to);
            }
            looked_at.push((subtree, !matches!(looked, Looked::Same)));
            found |= !matches!(looked, Looked::Same);
            match looked {
                Looked::Same => {}
                Looked::Range => range = Some((joined.map_or(from, |(from, _)| from), to)),
                Looked::Changed(leaves) => {
                    for (leaf, hash) in leaves {
                        let block = named.entry(leaf / BLOCK).or_default();
                        let before = *block;
                        block.add((leaf % BLOCK) as u8);
                        if *block == before {
                            continue;
                        }
                        let hash = HEXLOWER.encode(&hash);
                        let what = format!("it is not the leaf that {whose} signs, whose hash in the tree is {hash}");
                        self.found(Kind::Leaf, Fault::Changed, Place::Leaf(leaf), what);
                    }
                }
            }
        };
        let looked = ahead::pieces(threads, next, look, take).await;
        if let Some((from, to)) = range {
            self.changed_range(whose, from, to);
        }
        known.extend(looked_at);
        looked.map(|()| found || before)
    }

    fn changed_range(&mut self, whose: &str, from: u64, to: u64) {
        let what = format!(
            "leaves {from} to {} are not those that {whose} signs: one or more were changed, or they are another history's; the tiles \
             over them do not say which, for they are missing, were changed as well or do not reach so far yet",
            to.saturating_sub(1)
        );
        self.found(Kind::Log, Fault::Changed, Place::Only, what);
    }
}

/// The subtrees by which a log is another than was signed, if they can be proven: by the edge that was signed as well, or by tiles
/// that give the root. Where a leaf is missing, all subtrees.
async fn proven<S: Store>(store: &S, log: TenantNo, suspect: &Suspect) -> Result<Vec<Subtree>, StoreError> {
    let Suspect { signed: Signed { size, root, frontier, .. }, tree } = suspect;
    let there: Vec<Subtree> = tree.iter().flat_map(Frontier::subtrees).collect();
    let signed: Vec<Subtree> = match frontier {
        Some(frontier) if frontier.size() == *size && frontier.root() == *root => frontier.subtrees().collect(),
        _ => by_tiles(store, log, (*size, *root), &there).await?,
    };
    Ok(signed.into_iter().filter(|subtree| !there.contains(subtree)).collect())
}

/// The subtrees of a tree of which only the root was signed, from tiles; where these end, from the leaves that are there.
async fn by_tiles<S: Store>(
    store: &S,
    log: TenantNo,
    (size, root): (u64, [u8; 32]),
    there: &[Subtree],
) -> Result<Vec<Subtree>, StoreError> {
    let places = Subtree::over(0, size);
    let ids = places.iter().map(|(start, height)| Subtree::next_below(*start, *height).0).collect();
    let tiles = tiles::stored(store, log, ids).await?;
    let (mut tree, mut subtrees) = (Frontier::new(), Vec::with_capacity(places.len()));
    for (at, (start, height)) in places.into_iter().enumerate() {
        let (id, bytes) = Subtree::next_below(start, height);
        let tiled = tiles.get(&id).and_then(|tile| Subtree::of_hashes(start, height, tile.get(bytes)?));
        let Some(subtree) = tiled.or_else(|| there.get(at).copied()) else { return Ok(vec![]) };
        if tree.push_subtree(&subtree).is_err() {
            return Ok(vec![]);
        }
        subtrees.push(subtree);
    }
    Ok(if tree.root() == root { subtrees } else { vec![] })
}

/// The subtrees next below one that is proven and larger than a tile of leaves: from the tile that has them, or from those below it.
async fn below<S: Store>(store: &S, log: TenantNo, subtree: &Subtree) -> Result<Option<Vec<Subtree>>, StoreError> {
    let (id, bytes) = Subtree::next_below(subtree.start, subtree.height);
    let first = (id.index << BLOCK_HEIGHT) + (bytes.start / 32) as u64;
    let tile = store.get(Family::Tiles, place::tile(log, id.level, id.index)).await?;
    let below = tile.and_then(|tile| subtree.opened(tile.get(bytes.clone())?));
    let (None, Some(level)) = (&below, id.level.checked_sub(1)) else { return Ok(below) };
    let ids: Vec<TileId> = (0..bytes.len() as u64 / 32).map(|at| TileId { level, index: first + at }).collect();
    let tiles = tiles::stored(store, log, ids.clone()).await?;
    let roots: Option<Vec<[u8; 32]>> = ids.iter().map(|id| Edge::root_of(tiles.get(id)?)).collect();
    Ok(roots.and_then(|roots| subtree.opened(&roots.concat())))
}

/// Holds the leaves under a subtree that is proven against it. Those of them that are archived are a part of it.
async fn look<S: Store>(
    store: &S,
    log: TenantNo,
    subtree: &Subtree,
    archived: &Frontier,
) -> Result<Looked, StoreError> {
    let Some(end) = subtree.end() else { return Ok(Looked::Range) };
    let keep = subtree.height <= BLOCK_HEIGHT;
    let (mut tree, mut hashes) = (Frontier::new(), HashMap::new());
    for one in archived.subtrees().filter(|one| one.start >= subtree.start) {
        if tree.push_subtree(&Subtree { start: one.start - subtree.start, ..one }).is_err() {
            return Ok(Looked::Range);
        }
    }
    let from = subtree.start + tree.size();
    let mut pages = Pages::new(Family::Leaves, place::leaf(log, from), place::leaf(log, end)).of(ahead::PAGE);
    while let Some(page) = pages.next(store).await? {
        for (key, line) in &page {
            let Ok(index) = place::decode_leaf(key) else { continue };
            let hash = leaf_hash(line);
            if keep {
                hashes.insert(index, hash);
            }
            if index - subtree.start == tree.size() {
                tree.push_hash(hash);
            }
        }
    }
    let whole = tree.size() == end - subtree.start;
    if whole && tree.root() == subtree.hash {
        return Ok(Looked::Same);
    }
    let leaves = match keep {
        true if subtree.height == 0 => Some(vec![*subtree]),
        true => {
            let (id, bytes) = Subtree::next_below(subtree.start, subtree.height);
            let tile = store.get(Family::Tiles, place::tile(log, id.level, id.index)).await?;
            tile.and_then(|tile| subtree.opened(tile.get(bytes)?))
        }
        false => None,
    };
    let Some(leaves) = leaves else {
        // One that is missing is named already, and others can't be told from it.
        return Ok(if whole { Looked::Range } else { Looked::Same });
    };
    let differs = |leaf: &Subtree| hashes.get(&leaf.start).is_some_and(|hash| *hash != leaf.hash);
    let changed: Vec<_> = leaves.iter().filter(|leaf| differs(leaf)).map(|leaf| (leaf.start, leaf.hash)).collect();
    Ok(if changed.is_empty() { Looked::Same } else { Looked::Changed(changed) })
}

/// The leaves under the first complete subtree in which two trees of one size differ, from inclusive to exclusive.
fn first_difference(one: &Frontier, other: &Frontier) -> Option<(u64, u64)> {
    let mut pairs = one.subtrees().zip(other.subtrees()).filter(|_| one.size() == other.size());
    let (subtree, _) = pairs.find(|(one, other)| one != other)?;
    Some((subtree.start, subtree.end()?))
}

#[cfg(test)]
mod tests {
    use strongroom_storage::Mutation;
    use strongroom_storage::memory::MemoryStore;

    use super::*;

    const LOG: TenantNo = TenantNo(1);

    async fn put(store: &MemoryStore, index: u64, line: &[u8]) {
        let leaf = Mutation::Put(Family::Leaves, place::leaf(LOG, index), line.to_vec());
        store.write(vec![leaf]).await.unwrap();
    }

    #[tokio::test]
    async fn a_subtree_of_which_leaves_are_archived_is_held_against_their_state_and_what_is_there() {
        let store = MemoryStore::default();
        let (mut signed, mut archived, mut others) = (Frontier::new(), Frontier::new(), Frontier::new());
        for index in 0..512_u64 {
            let line = index.to_string().into_bytes();
            signed.push(&line);
            if index < 256 {
                archived.push(&line);
                others.push(b"another");
            } else {
                put(&store, index, &line).await;
            }
        }
        let proven = signed.subtrees().next().unwrap();
        let looked = async |archived: &Frontier| look(&store, LOG, &proven, archived).await.unwrap();
        assert!(matches!(looked(&archived).await, Looked::Same), "nobody changed anything");
        assert!(matches!(looked(&others).await, Looked::Range));
        put(&store, 300, b"another").await;
        assert!(matches!(looked(&archived).await, Looked::Range));
    }
}
