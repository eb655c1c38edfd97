//! What becomes of an archive that is decided: its leaves are summed up, a leaf says so, and they are removed.
//!
//! Each step is done again after a crash, and does the same then. Nothing is removed before the leaf that says it is durable.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use strongroom_access::Action;
use strongroom_commit::{Change, Fact};
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf::{self, ParsedLeaf};
use strongroom_ledger::leaf_hash;
use strongroom_ledger::proof::{Question, Tree, verify_consistency};
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{ArchiveIntent, ArchiveRow};
use strongroom_storage::{Family, Mutation, Store};
use tokio::sync::{Mutex, Notify, mpsc};

use super::{held, put, said_state};
use crate::blocking::blocking;
use crate::error::Error;
use crate::leaves;
use crate::own_leaf::Noted;
use crate::pages::Pages;
use crate::tiles;
use crate::vault::Vault;
use crate::verify::state::{State, StateDigest, Summing, UNREADABLE};

/// Bytes of a page of a state, about.
const PAGE: usize = 60 << 10;
/// Pages that are written in one commit.
const PAGES: usize = 16;
/// Rows that are removed in one commit.
const ROWS: usize = 1_024;
/// How often it is looked whether something is left to do.
const LOOK: Duration = Duration::from_secs(60);
/// What is damaged, if the leaves are not those that were exported.
const OTHER_LEAVES: Error = Error::DataLoss("the ledger: its leaves are not those that were exported");
const UNDECIDED: Error = Error::DataLoss("the ledger: no leaf says that this archive was decided");
const CONTRADICTORY: Error =
    Error::DataLoss("the ledger: its leaves contradict each other; `strongroom verify` names them");

/// Archives that are made.
#[derive(Default)]
pub(crate) struct Archiving {
    /// Something may be to do.
    pub due: Notify,
    /// Held by whoever does it.
    turn: Mutex<()>,
}

/// What leaves that are archived come to.
struct Sum {
    root: [u8; 32],
    time: u64,
    state: StateDigest,
}

impl<S: Store> Vault<S> {
    /// Makes the archives that are decided, whenever some are. Ends never.
    pub(crate) async fn make_archives(&self) {
        loop {
            if let Err(error) = self.finish_archives().await {
                tracing::warn!(%error, "an archive is gone on with later");
            }
            // That it is time to look again is no error.
            let _ = tokio::time::timeout(LOOK, self.archiving.due.notified()).await;
        }
    }

    /// Makes the archives that are decided, and removes what is archived.
    pub(crate) async fn finish_archives(&self) -> Result<(), Error> {
        for log in self.tenants.numbers() {
            match self.finish_archive(log).await {
                // What has no keys now is gone on with when they are there again.
                Ok(()) | Err(Error::TenantLocked | Error::TenantDestroyed) => {}
                Err(error @ (Error::DataLoss(_) | Error::LeafChanged(_))) => {
                    tracing::error!(%error, log = log.0, "an archive could not be made: its leaves stay");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn finish_archive(&self, log: TenantNo) -> Result<(), Error> {
        let _turn = self.archiving.turn.lock().await;
        if held::row(&*self.store, log).await?.is_none_or(|row| row.intent.is_none() && (row.end == 0 || row.removed)) {
            return Ok(());
        }
        let key = Arc::clone(&self.tenant(log)?.fingerprints);
        let Some(mut row) = held::proven(&*self.store, log, &key).await? else { return Ok(()) };
        if let Some(intent) = row.intent.take() {
            let made = self.sum_up(log, &row, &intent).await;
            if let Err(error) = &made
                && !matches!(error, Error::DataLoss(_) | Error::LeafChanged(_))
            {
                return Err(error.clone());
            }
            row = self.record_archive(log, row, &intent, &made).await?;
            made?;
        }
        if row.end > 0 && !row.removed { self.remove_archived(log, row).await } else { Ok(()) }
    }

    /// Goes along the leaves that are to be archived, sees that they are those that were exported and those of the tree, and
    /// writes down what they come to.
    async fn sum_up(&self, log: TenantNo, before: &ArchiveRow, intent: &ArchiveIntent) -> Result<Sum, Error> {
        let store = &*self.store;
        let decided = |leaf: &ParsedLeaf| super::is_decided_by(leaf, intent).then_some(());
        self.said(log, intent.said_from, decided).await?.ok_or(UNDECIDED)?;
        let (mut state, mut edge) = (State::default(), Edge::new());
        if before.end > 0 {
            let (read, digest) = held::state(store, log, before.end).await?;
            if self.state_said(log, before).await? != digest {
                return Err(UNREADABLE);
            }
            edge = tiles::edge_at(store, log, before.end, read.frontier.root()).await?;
            state = read;
        }
        self.tile(log, intent.end).await?;
        let (mut lines, mut wrong) = (Context::new(&SHA256), Vec::new());
        let mut next = before.end;
        while next < intent.end {
            let page = leaves::page(store, log, next, intent.end).await?;
            next += page.len() as u64;
            let mut complete = Vec::new();
            for line in page {
                lines.update(&line);
                lines.update(b"\n");
                let hash = leaf_hash(&line);
                edge.push(hash, |id, tile| complete.push((id, tile)));
                let parsed = leaf::parse(&line).map_err(|_| super::UNREADABLE)?;
                if !state.take(&parsed, hash).is_empty() {
                    return Err(CONTRADICTORY);
                }
            }
            wrong.extend(self.wrong_tiles(log, complete).await?);
            tokio::task::yield_now().await;
        }
        let root = state.frontier.root();
        if lines.finish().as_ref() != intent.lines || edge.root() != root {
            return Err(OTHER_LEAVES);
        }
        self.is_in_tree(log, Tree { size: intent.end, root }).await?;
        // From here on they are all there is to prove these leaves by.
        if !wrong.is_empty() {
            self.commit_unguarded(wrong, vec![]).await?;
        }
        let time = state.time.0;
        let state = self.write_state(log, intent.end, state).await?;
        Ok(Sum { root, time, state })
    }

    /// Those of the tiles that do not stand in the store so.
    async fn wrong_tiles(&self, log: TenantNo, tiles: Vec<(TileId, Vec<u8>)>) -> Result<Vec<Mutation>, Error> {
        let ids = tiles.iter().map(|(id, _)| *id).collect();
        let stored = tiles::stored(&*self.store, log, ids).await?;
        let wrong = tiles.into_iter().filter(|(id, tile)| stored.get(id).is_none_or(|stored| **stored != **tile));
        Ok(wrong.map(|(id, tile)| Mutation::Put(Family::Tiles, place::tile(log, id.level, id.index), tile)).collect())
    }

    /// Sees that a tree is the beginning of the log's.
    async fn is_in_tree(&self, log: TenantNo, older: Tree) -> Result<(), Error> {
        let head = self.committer.head(log).ok_or(Error::Internal("a tenant without a log"))?;
        let newer = Tree { size: head.size, root: head.root };
        let question = Question::Consistency { from: older.size, to: newer.size };
        let proof = self.prove(log, &newer, &question).await?;
        verify_consistency(&proof, &older, &newer).map_err(|_| OTHER_LEAVES)
    }

    /// Writes a state in pages.
    async fn write_state(&self, log: TenantNo, leaves: u64, state: State) -> Result<StateDigest, Error> {
        let (sender, mut pages) = mpsc::channel::<String>(2 * PAGES);
        // Sorting and writing all of it takes a while.
        let made = blocking(move || {
            let (mut page, mut sum) = (String::with_capacity(PAGE), Summing::new());
            state.lines(|line| {
                sum.line(line);
                // Writing to a string does not fail; and who takes no more pages has failed.
                let _ = writeln!(page, "{line}");
                if page.len() >= PAGE {
                    let _ = sender.blocking_send(std::mem::take(&mut page));
                }
            });
            if !page.is_empty() {
                let _ = sender.blocking_send(page);
            }
            sum.done()
        });
        let written = async move {
            let (mut some, mut number) = (Vec::with_capacity(PAGES), 0..);
            while pages.recv_many(&mut some, PAGES).await > 0 {
                let puts = some.drain(..).zip(&mut number).map(|(page, number)| {
                    Mutation::Put(Family::Archived, place::state_page(log, leaves, number), page.into_bytes())
                });
                self.commit_unguarded(puts.collect(), vec![]).await?;
            }
            Ok::<_, Error>(())
        };
        let (made, written) = tokio::join!(made, written);
        written?;
        made
    }

    /// What a leaf says that the state of the archived leaves is.
    async fn state_said(&self, log: TenantNo, row: &ArchiveRow) -> Result<StateDigest, Error> {
        self.said(log, row.said_from.max(row.end), |leaf| said_state(leaf, row.end)).await?.ok_or(UNREADABLE)
    }

    /// What the first leaf that says it says, from an index on; it is held against the tree.
    async fn said<T>(
        &self,
        log: TenantNo,
        from: u64,
        says: impl Fn(&ParsedLeaf) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let head = self.committer.head(log).ok_or(Error::Internal("a tenant without a log"))?;
        let tree = Tree { size: head.size, root: head.root };
        let mut next = from;
        while next < head.size {
            for line in leaves::page(&*self.store, log, next, head.size).await? {
                if let Some(said) = leaf::parse(&line).ok().as_ref().and_then(&says) {
                    let there = self.subtrees(log, &tree, next, next + 1).await?;
                    return match there.first().is_some_and(|there| there.hash == leaf_hash(&line)) {
                        true => Ok(Some(said)),
                        false => Err(Error::LeafChanged(next)),
                    };
                }
                next += 1;
            }
            tokio::task::yield_now().await;
        }
        Ok(None)
    }

    /// Commits that leaves are archived, with what they come to; or that they could not be.
    async fn record_archive(
        &self,
        log: TenantNo,
        before: ArchiveRow,
        intent: &ArchiveIntent,
        made: &Result<Sum, Error>,
    ) -> Result<ArchiveRow, Error> {
        // No leaf comes after the one that ends a tenant's log.
        let _turn = self.turn.read().await;
        let tenant = self.tenant(log)?;
        tenant.is_there()?;
        let (position, rules) = (self.committer.position(), self.rules_in_force(log)?);
        let said_from = self.committer.head(log).map_or(0, |head| head.size);
        let about = Noted {
            request: &HEXLOWER.encode(&intent.request),
            principal: &intent.principal,
            action: Action::ArchiveLedger.as_str(),
            failed: made.as_ref().err().map(Error::reason),
            place: "an archive",
        };
        let hex = |hash: &[u8; 32]| HEXLOWER.encode(hash);
        let mut detail = vec![
            ("stage", "done".to_owned()),
            ("first", before.end.to_string()),
            ("end", intent.end.to_string()),
            ("manifest", hex(&intent.manifest)),
            ("place", intent.place.clone()),
        ];
        let row = match made {
            Err(_) => before,
            Ok(Sum { root, time, state }) => {
                detail.extend([
                    ("lines_sha256", hex(&intent.lines)),
                    ("root", hex(root)),
                    ("state_lines", state.lines.to_string()),
                    ("state_sha256", hex(&state.sha256)),
                ]);
                ArchiveRow {
                    end: intent.end,
                    root: *root,
                    time: *time,
                    said_from,
                    place: intent.place.clone(),
                    manifest: intent.manifest,
                    removed: false,
                    intent: None,
                    mac: [0; 32],
                }
            }
        };
        let leaves = about.leaf(log, (rules.policy.version, rules.schema.version, &[]), &detail)?;
        let (mutations, changes) = (vec![put(log, &row, &tenant.fingerprints)], vec![Fact::archive(log)]);
        self.committer.commit(Change { position, guards: vec![], changes, mutations, leaves, charge: None }).await?;
        Ok(row)
    }

    /// Removes leaves that are archived, what led to them, and the state before.
    async fn remove_archived(&self, log: TenantNo, row: ArchiveRow) -> Result<(), Error> {
        let store = &*self.store;
        // Once they are gone nothing proves it but this.
        if held::state(store, log, row.end).await?.1 != self.state_said(log, &row).await? {
            return Err(UNREADABLE);
        }
        // A start looks at the leaves that came after those of the head file.
        self.renew_head_file().await?;
        let mut pages = Pages::of_tenant(Family::LeafIndex, log).of(ROWS);
        while let Some(page) = pages.next(store).await? {
            let of_archived =
                |key: &[u8]| matches!(place::decode_leaf_index(key), Ok(Some((_, first))) if first < row.end);
            let gone: Vec<Mutation> = page
                .iter()
                .filter(|(key, _)| of_archived(key))
                .map(|(key, _)| Mutation::Delete(Family::LeafIndex, key.to_vec()))
                .collect();
            if !gone.is_empty() {
                self.commit_unguarded(gone, vec![]).await?;
            }
            tokio::task::yield_now().await;
        }
        let (from, to) = place::leaves_range(log, 0, row.end);
        store.purge(Family::Leaves, from, to).await?;
        let (from, to) = place::states_before(log, row.end);
        store.purge(Family::Archived, from, to).await?;
        let position = self.committer.position();
        let row = put(log, &ArchiveRow { removed: true, ..row }, &self.tenant(log)?.fingerprints);
        let (mutations, changes) = (vec![row], vec![Fact::archive(log)]);
        let (guards, leaves) = (vec![], vec![]);
        self.committer.commit(Change { position, guards, changes, mutations, leaves, charge: None }).await?;
        tracing::info!(log = log.0, "archived leaves of a ledger were removed");
        Ok(())
    }
}
