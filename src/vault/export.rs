//! Export: leaves in order, all of a range or those that fit a filter, with what proves them.
//!
//! The road decides, records what was asked for, and finds what stands behind a subject's id and a token. Then every leaf
//! of the range is looked at, a page at a time. What the vault signs at the end it has counted itself while it sent.
//!
//! Without proofs an index of leaves may say which to look at; those that came since are looked at one and all. What is
//! signed never rests on it: whoever writes to the store could hide a leaf. Nor does it rest on the leaves as they lie on the
//! disk: they are held against the tree of the signed head, and so are the leaves by which a range of time is found.

mod filter;
mod held;
mod known;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use strongroom_access::{Action, SecondFactor};
use strongroom_ids::TenantNo;
use strongroom_ledger::cover::{Cover, Subtree};
use strongroom_ledger::filter::{Filter, time_of};
use strongroom_ledger::manifest::{self, Manifest};
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::receipt::LogHead;
use strongroom_ledger::tiles::Edge;
use strongroom_ledger::{Timestamp, checkpoint, leaf_hash};
use strongroom_storage::Store;
use strongroom_storage::rows::BLOCK;

use crate::archive::held as held_archive;
use crate::audit::Checkpoint;
use crate::error::Error;
use crate::leaf_index::Indexing;
use crate::leaves;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenants::Tenants;
use crate::vault::Vault;
pub use filter::LeafFilter;
use held::Held;
use known::Known;
pub(crate) use known::WINDOW;

/// After so many leaves of which none fits, the reader is told how far it is.
const QUIET: u64 = 16_384;

/// Asks for leaves.
#[derive(Default)]
pub struct Export {
    /// Index of the first leaf.
    pub first: u64,
    /// Index after the last; 0 for all.
    pub end: u64,
    /// Empty for the caller's tenant, `system` for the vault's own; for operators also the name of a destroyed tenant.
    pub log: String,
    /// Which leaves.
    pub filter: LeafFilter,
    /// Whether what proves them comes along, and a manifest at the end.
    pub proofs: bool,
    /// Whether every leaf is looked at, as with proofs, even if an index of them says which fit.
    pub every_leaf: bool,
    /// Whether leaves that are archived are left out, which is said, where otherwise nothing is sent.
    pub without_archived: bool,
}

/// Leaves that were asked for, are archived, and are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftArchived {
    /// The first leaf that is not archived.
    pub end: u64,
    /// When the last of them was committed, in microseconds since 1970.
    pub until: u64,
    /// Where the newest archive is, in the words of who made it.
    pub place: String,
}

/// Older leaves of a time that a report is about: they are archived, and were not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivedReads {
    /// The first leaf that is not.
    pub end: u64,
    /// When the last of them was committed, in microseconds since 1970.
    pub until: u64,
}

/// What was found on the road.
pub(crate) struct Begun {
    log: TenantNo,
    first: u64,
    end: u64,
    filter: Filter,
    /// The head that the proofs lead to.
    head: Option<(Checkpoint, Tree)>,
    /// What of it is archived.
    archived: Option<LeftArchived>,
    /// What was seen of a second factor.
    seen: SecondFactor,
}

impl<S: Store> Attempt<S> for Export {
    type Answer = Begun;
    const ACTION: Action = Action::ExportLedger;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Begun>, Refused> {
        road.decide_vault()?;
        let log = road.log(&self.log)?;
        if self.proofs && log != road.tenant.number {
            let description =
                "the key of a destroyed tenant's log is gone, so nothing can be signed: export the whole log as it is";
            return Err(Error::invalid("proofs", "no_key", description).into());
        }
        let head = match self.proofs {
            true => {
                let (head, tree) = road.vault.signed_head(log).await?;
                Some((road.vault.with_cosignatures(log, head, &tree).await, tree))
            }
            false => None,
        };
        let size = match &head {
            Some((_, tree)) => tree.size,
            None => road.vault.committer.head(log).map_or(0, |head| head.size),
        };
        let end = if self.end == 0 { size } else { self.end };
        if end > size || self.first > end {
            let description = format!("the log has {size} leaves: first may be 0 to end, end at most {size}");
            return Err(Error::invalid("end", "out_of_range", description).into());
        }
        let archived = held_archive::row(&*road.vault.store, log).await?.filter(|row| {
            self.first < row.end.min(end)
                // What was committed since a time after all of them, the others have.
                && self.filter.from.is_none_or(|from| from <= row.time)
        });
        let first = match &archived {
            Some(row) if !self.without_archived => return Err(held_archive::archived(row).into()),
            Some(row) => row.end.min(end),
            None => self.first,
        };
        let mut prepared = road.prepare(());
        prepared.detail.push(("first", first.to_string()));
        prepared.detail.push(("end", end.to_string()));
        prepared.detail.extend((log != road.tenant.number).then(|| ("log", self.log.clone())));
        prepared.detail.extend(self.proofs.then(|| ("proofs", "true".to_owned())));
        prepared.detail.extend(self.every_leaf.then(|| ("every_leaf", "true".to_owned())));
        let filter = self.filter.resolve(road, log, &mut prepared).await?;
        let archived = archived.map(|row| LeftArchived { end: row.end, until: row.time, place: row.place });
        let seen = road.showing.seen();
        Ok(prepared.answering(|()| Begun { log, first, end, filter, head, archived, seen }))
    }
}

/// Leaves that were sent, and what lies beside them.
#[derive(Debug, Default)]
pub struct ExportPage {
    /// Leaves, each a line without its newline. May be none.
    pub leaves: Vec<Bytes>,
    /// With proofs: subtrees of leaves that are left out.
    pub left_out: Vec<Subtree>,
    /// How many leaves have been looked at.
    pub looked: u64,
    /// Without proofs, on the first page: what leaves are held against, if anything.
    pub filter: Option<String>,
    /// On the first page: what was asked for and is left out, since it is archived.
    pub archived: Option<LeftArchived>,
}

/// What the vault says of an export.
pub struct SignedExport {
    /// The signed note.
    pub manifest: String,
    /// The signed head that it is of.
    pub checkpoint: Checkpoint,
}

/// An export under way: pages of leaves. Leaves never change, so no snapshot is held.
pub struct ExportPages<S: Store> {
    /// A caller who takes its time keeps no vault open that is to be sealed.
    store: Weak<S>,
    /// Where it is known whether the reader is still let in, and who that is.
    tenants: Weak<Tenants>,
    reader: Caller,
    /// What was seen of the reader's second factor when it began.
    seen: SecondFactor,
    log: TenantNo,
    first: u64,
    next: u64,
    end: u64,
    filter: Filter,
    known: Option<Known>,
    /// Whether the index is held against what is found, and not asked.
    every_leaf: bool,
    indexing: Arc<Indexing>,
    proofs: Option<Box<Proofs>>,
    /// What is to be told on the first page.
    archived: Option<LeftArchived>,
    ended: bool,
    /// Leaves that are looked at in the whole export.
    pub total: u64,
}

/// What is kept for the proofs of an export while it goes on.
struct Proofs {
    checkpoint: Checkpoint,
    tree: Tree,
    /// Its leaves so far.
    held: Held,
    /// The range that was asked for; times make a smaller one of it.
    range: (u64, u64),
    /// What lies before a range that begins with a tile, and was not sent yet.
    before: Vec<Subtree>,
    /// What is left out and was not sent yet.
    cover: Cover,
    /// What lies behind the last leaf that is looked at.
    behind: Vec<Subtree>,
    lines: u64,
    sum: Context,
}

impl<S: Store> ExportPages<S> {
    /// The next leaves; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ExportPage>, Error> {
        let begun = self.next;
        // Whoever has a filter is told which, even if no leaf is looked at; and what is archived.
        let told = self.archived.is_some() || !self.filter.is_empty();
        if self.ended || (begun == self.end && self.proofs.is_none() && !told) {
            return Ok(None);
        }
        let mut page = ExportPage { archived: self.archived.take(), ..ExportPage::default() };
        if let Some(proofs) = &mut self.proofs {
            page.left_out.append(&mut proofs.before);
        }
        if begun == self.first && self.proofs.is_none() && !self.filter.is_empty() {
            page.filter = Some(self.filter.to_json());
        }
        while self.next < self.end && self.next - begun < QUIET && page.leaves.is_empty() {
            let store = self.store.upgrade().ok_or(Error::Sealed)?;
            let (leaves, go_on) = self.leaves(&*store).await?;
            if let Some(proofs) = &mut self.proofs {
                proofs.held.read_block(&*store, self.next).await?;
            }
            for (index, line) in leaves {
                if self.look_at(index, line, &mut page)? && self.every_leaf {
                    self.is_known(&*store, index).await?;
                }
            }
            // Last: a page that was read before the reader was suspended is not told after that.
            self.tenants.upgrade().ok_or(Error::Sealed)?.admit(self.reader.principal.tenant, &self.reader)?;
            self.next = go_on;
            // Pages of which nothing fits take the thread's time one after the other.
            tokio::task::yield_now().await;
        }
        page.looked = self.next - self.first;
        self.ended = self.next == self.end;
        if let Some(proofs) = self.proofs.as_mut().filter(|_| self.ended) {
            for subtree in proofs.behind.drain(..) {
                proofs.held.left_out(&subtree)?;
                proofs.cover.leave_out(subtree);
            }
            page.left_out.extend(proofs.cover.take());
        }
        Ok(Some(page))
    }

    /// Leaves that are looked at next, and from where to go on.
    async fn leaves(&mut self, store: &S) -> Result<(Vec<(u64, Bytes)>, u64), Error> {
        let found = match &mut self.known {
            Some(known) if !self.every_leaf => known.take(store, self.next).await?,
            _ => None,
        };
        if let Some((found, go_on)) = found {
            // Rows of the index go when leaves are archived, so that more may be missing than was found.
            held_archive::not_archived(store, self.log, self.next).await?;
            let lines = leaves::these(store, self.log, &found).await?;
            return Ok((found.into_iter().zip(lines).collect(), go_on));
        }
        // With proofs, no more than the leaves of one tile.
        let block = self.next - self.next % BLOCK + BLOCK;
        let end = if self.proofs.is_some() { block.min(self.end) } else { self.end };
        let page = leaves::page(store, self.log, self.next, end).await?;
        let go_on = self.next + page.len() as u64;
        Ok(((self.next..).zip(page).collect(), go_on))
    }

    /// Sees that the index leads to a leaf that fits.
    async fn is_known(&mut self, store: &S, index: u64) -> Result<(), Error> {
        if let Some(known) = &mut self.known
            && !known.leads_to(store, index).await?
        {
            self.indexing.suspect(self.log, index);
        }
        Ok(())
    }

    /// Sends a leaf, or leaves it out; whether it fits.
    fn look_at(&mut self, index: u64, line: Bytes, page: &mut ExportPage) -> Result<bool, Error> {
        let fits = self.filter.is_empty() || self.filter.fits(&line).map_err(|_| UNREADABLE)?;
        if let Some(proofs) = &mut self.proofs {
            let hash = leaf_hash(&line);
            proofs.held.look_at(index, hash)?;
            if fits {
                page.left_out.extend(proofs.cover.take());
                proofs.lines += 1;
                proofs.sum.update(&line);
                proofs.sum.update(b"\n");
            } else {
                proofs.cover.leave_out(Subtree { start: index, height: 0, hash });
            }
        }
        if fits {
            page.leaves.push(line);
        }
        Ok(fits)
    }
}

/// What is damaged, if leaves do not give the signed root.
const OTHER_LEAVES: &str = "the ledger: its leaves are not those of its head";
const UNREADABLE: Error = Error::DataLoss("the ledger: a leaf can't be read");

impl<S: Store> Vault<S> {
    /// Begins an export of the leaves that are there now.
    pub async fn export(&self, caller: &Caller, request: &Export) -> Result<ExportPages<S>, Error> {
        let begun = self.travel(caller, request).await?;
        self.pages(caller, begun, request.every_leaf || request.proofs).await
    }

    /// The leaves of the caller's own tenant that fit, of a range, without proofs: for what was decided and recorded by
    /// another name than an export's.
    pub(crate) async fn leaves_that_fit(
        &self,
        caller: &Caller,
        (first, end): (u64, u64),
        filter: Filter,
    ) -> Result<ExportPages<S>, Error> {
        let (log, seen) = (caller.principal.tenant, SecondFactor::Absent);
        let begun = Begun { log, first, end, filter, head: None, archived: None, seen };
        self.pages(caller, begun, false).await
    }

    /// In which leaves of the caller's own tenant before `end` to look for what fits: those of the filter's time that are not
    /// archived. And what is archived of that time, if anything is.
    pub(crate) async fn where_to_look(
        &self,
        caller: &Caller,
        end: u64,
        filter: &Filter,
    ) -> Result<((u64, u64), Option<ArchivedReads>), Error> {
        let log = caller.principal.tenant;
        let archived = held_archive::row(&*self.store, log).await?;
        let first = archived.as_ref().map_or(0, |row| row.end).min(end);
        let older = archived.filter(|row| filter.from.is_none_or(|from| from.0 <= row.time));
        let older = older.map(|row| ArchivedReads { end: row.end, until: row.time });
        Ok((self.in_time(log, None, (first, end), filter).await?, older))
    }

    async fn pages(&self, caller: &Caller, begun: Begun, every_leaf: bool) -> Result<ExportPages<S>, Error> {
        let Begun { log, first, end, filter, head, archived, seen } = begun;
        let range = (first, end);
        // Of what is archived nothing fits, or it was refused.
        let first = first.max(held_archive::end(&*self.store, log).await?.min(end));
        let (first, end) = self.in_time(log, head.as_ref().map(|(_, tree)| *tree), (first, end), &filter).await?;
        let proofs = match head {
            None => None,
            Some((checkpoint, tree)) => {
                let (mut cover, mut held) = (Cover::default(), Held::new(log, tree));
                let whole_tiles = first == range.0 && first.is_multiple_of(BLOCK);
                let mut before = Vec::new();
                if whole_tiles {
                    // Not joined: the tiles in which the range begins have these hashes, and an archive writes them.
                    for (start, height) in Edge::cut(first) {
                        before.extend(self.subtrees(log, &tree, start, start + (1 << height)).await?);
                    }
                } else {
                    before = self.subtrees(log, &tree, 0, first).await?;
                }
                for subtree in &before {
                    held.left_out(subtree)?;
                }
                if !whole_tiles {
                    before.drain(..).for_each(|subtree| cover.leave_out(subtree));
                }
                let behind = self.subtrees(log, &tree, end, tree.size).await?;
                if let Some(last) = end.checked_sub(1).filter(|last| *last >= first) {
                    // So that the tiles are there that leaves are held against.
                    self.subtrees(log, &tree, last, end).await?;
                }
                let (lines, sum) = (0, Context::new(&SHA256));
                Some(Box::new(Proofs { checkpoint, tree, held, range, before, cover, behind, lines, sum }))
            }
        };
        let size = self.committer.head(log).map_or(0, |head| head.size);
        let known = Known::of(&*self.store, log, size, (first, end), &filter).await?;
        Ok(ExportPages {
            store: Arc::downgrade(&self.store),
            tenants: Arc::downgrade(&self.tenants),
            // Without the room of its answer, which each page takes by itself.
            reader: Caller { room: None, ..caller.clone() },
            seen,
            log,
            first,
            next: first,
            end,
            filter,
            known,
            every_leaf,
            indexing: Arc::clone(&self.indexing),
            proofs,
            archived,
            ended: false,
            total: end - first,
        })
    }

    /// Whether an export may go on: the caller is still let in, and policy of now lets it begin. Its second factor is
    /// the one that it began with, though the time of that is over, or none would be longer than that. Nothing is
    /// recorded.
    pub async fn may_go_on(&self, caller: &Caller, pages: &ExportPages<S>) -> Result<(), Error> {
        self.still_admits(caller)?;
        let (export, without) = (Export::default(), Caller { second_factor: None, ..caller.clone() });
        let tenant = &*self.tenant(caller.principal.tenant)?;
        let mut road = self.road(tenant, &without, &export, [0; 16]).await?;
        road.showing = self.still_showing(tenant, caller, pages.seen).await?;
        // Whose second factor was reset is told that, if it is why.
        road.decide_vault().or_else(|denied| road.factor_holds().and(Err(denied)))
    }

    /// Signs what an export has sent, once all of it was and it is of the signed head; nothing for one without proofs.
    pub fn sign_export(&self, pages: &ExportPages<S>) -> Result<Option<SignedExport>, Error> {
        let Some(proofs) = pages.proofs.as_ref().filter(|_| pages.ended) else { return Ok(None) };
        if !proofs.held.is_whole() {
            self.damaged(OTHER_LEAVES);
            return Err(Error::DataLoss(OTHER_LEAVES));
        }
        let unsigned = Error::Internal("a manifest that can't be signed");
        let head = proofs.checkpoint.verify(&proofs.checkpoint.note).map_err(|_| unsigned.clone())?;
        let sum = proofs.sum.clone().finish();
        let signed = Manifest {
            log: LogHead { origin: head.origin, size: proofs.tree.size, root: proofs.tree.root },
            time: Timestamp(self.now()),
            first: proofs.range.0,
            end: proofs.range.1,
            filter: pages.filter.clone(),
            lines: proofs.lines,
            sha256: sum.as_ref().try_into().map_err(|_| unsigned.clone())?,
        };
        let key = self.keystore.ledger_key(self.tenant(pages.log)?.id)?;
        let manifest = manifest::sign(&signed, &key.public_key(), |text| key.sign(text)).map_err(|_| unsigned)?;
        let mut checkpoint = proofs.checkpoint.clone();
        let vkey = checkpoint::vkey(&signed.log.origin, &key.public_key());
        if !checkpoint.keys.contains(&vkey) {
            // It was rotated in while the export went on.
            checkpoint.keys.insert(0, vkey);
        }
        Ok(Some(SignedExport { manifest, checkpoint }))
    }

    /// The part of a range that was committed in the time that is asked for: times do not go backwards, so what lies before
    /// and behind need not be looked at. The leaves on both sides of where it begins and ends are those that the search
    /// rests on, so they are held against the tree: of no other would it matter what it says.
    async fn in_time(
        &self,
        log: TenantNo,
        tree: Option<Tree>,
        range: (u64, u64),
        filter: &Filter,
    ) -> Result<(u64, u64), Error> {
        if filter.from.is_none() && filter.to.is_none() {
            return Ok(range);
        }
        let first = self.first_since(log, range, filter.from.unwrap_or(Timestamp(0))).await?;
        let end = match filter.to {
            Some(to) => self.first_since(log, (first, range.1), to).await?,
            None => range.1,
        };
        let now = || self.committer.head(log).map(|head| Tree { size: head.size, root: head.root });
        let Some(tree) = tree.or_else(now) else { return Ok((first, end)) };
        let edges = [first.checked_sub(1), Some(first), end.checked_sub(1), Some(end)].into_iter().flatten();
        for index in edges.filter(|index| (range.0..range.1).contains(index)).collect::<BTreeSet<u64>>() {
            let line = leaves::one(&*self.store, log, index).await?;
            let there = self.subtrees(log, &tree, index, index + 1).await?;
            if there.first().is_none_or(|there| there.hash != leaf_hash(&line)) {
                self.damaged(OTHER_LEAVES);
                return Err(Error::LeafChanged(index));
            }
        }
        Ok((first, end))
    }

    /// The first leaf of a range that was not committed before a time; its end if there is none.
    pub(crate) async fn first_since(
        &self,
        log: TenantNo,
        (mut from, mut to): (u64, u64),
        time: Timestamp,
    ) -> Result<u64, Error> {
        if time == Timestamp(0) {
            return Ok(from);
        }
        while from < to {
            let middle = from + (to - from) / 2;
            let line = leaves::one(&*self.store, log, middle).await?;
            match time_of(&line).ok_or(UNREADABLE)? < time {
                true => from = middle + 1,
                false => to = middle,
            }
        }
        Ok(from)
    }

    /// The complete subtrees over a range of leaves, from tiles.
    pub(crate) async fn subtrees(&self, log: TenantNo, tree: &Tree, from: u64, to: u64) -> Result<Vec<Subtree>, Error> {
        if from == to {
            return Ok(vec![]);
        }
        let hashes = self.prove(log, tree, &Question::Cover { from, to }).await?;
        let places = Subtree::over(from, to).into_iter().zip(hashes);
        Ok(places.map(|((start, height), hash)| Subtree { start, height, hash }).collect())
    }
}
