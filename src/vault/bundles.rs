//! A log in the pieces in which tools of others read it (C2SP tlog-tiles), for callers: its leaves in bundles, and hash tiles.
//!
//! Whoever reads a bundle exports its leaves: the same decision, the same record. Whoever reads a tile gets what proofs are made of,
//! so that is a proof. Both end where the signed head does and are held against it: leaves that were changed on the disk are
//! named and not released.

use std::time::Duration;

use bytes::Bytes;
use strongroom_access::Action;
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf_hash;
use strongroom_ledger::proof::Tree;
use strongroom_ledger::tiles::{Edge, TileId, push_entry};
use strongroom_storage::Store;
use strongroom_storage::rows::BLOCK;

use crate::error::Error;
use crate::leaves;
use crate::proofs::GetProof;
use crate::published::first_hash;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::vault::Vault;

/// Bytes of a hash.
const HASH: usize = 32;
/// Bytes of the length before a leaf.
const PREFIX: usize = 2;
/// Leaves that are read at once; each has less than 64 KiB.
const AT_ONCE: u64 = 32;
/// When a request that found no memory for its answer should try again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Asks for the leaves under a tile of level zero.
pub struct ReadBundle {
    /// Which log, as for [`crate::Export`].
    pub log: String,
    /// The tile's place in its level.
    pub index: u64,
    /// How many leaves, the first ones first: 256 for all.
    pub width: usize,
}

/// What was found on the road.
pub(crate) struct Found {
    log: TenantNo,
    tree: Tree,
    first: u64,
    /// The leaves, each behind its length.
    bundle: Vec<u8>,
    hashes: Vec<[u8; HASH]>,
}

impl<S: Store> Attempt<S> for ReadBundle {
    type Answer = Found;
    const ACTION: Action = Action::ExportLedger;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Found>, Refused> {
        road.decide_vault()?;
        let log = road.log(&self.log)?;
        let (_, tree) = road.vault.checkpoint_of(road.caller, log).await?;
        let (first, end) = self.range(&tree).ok_or_else(|| beyond(&tree, true))?;
        let (mut bundle, mut hashes) = (vec![], Vec::with_capacity(self.width));
        let mut next = first;
        while next < end {
            // There is room for what was read before more is read.
            let page = leaves::page(&*road.vault.store, log, next, end.min(next + AT_ONCE)).await?;
            let bytes = page.iter().map(|line| line.len() + PREFIX).sum();
            if road.caller.room.as_ref().is_some_and(|room| !room.reserve(bytes)) {
                return Err(Error::Overloaded { retry_after: RETRY_AFTER }.into());
            }
            bundle.reserve_exact(bytes);
            for line in page {
                push_entry(&mut bundle, &line).map_err(|_| Error::LeafChanged(next))?;
                hashes.push(leaf_hash(&line));
                next += 1;
            }
        }
        let mut prepared = road.prepare(Found { log, tree, first, bundle, hashes });
        prepared.detail.push(("first", first.to_string()));
        prepared.detail.push(("end", end.to_string()));
        prepared.detail.extend((log != road.tenant.number).then(|| ("log", self.log.clone())));
        Ok(prepared)
    }
}

impl ReadBundle {
    /// Its leaves, if the tree has them all.
    fn range(&self, tree: &Tree) -> Option<(u64, u64)> {
        let width = u64::try_from(self.width).ok().filter(|width| (1..=BLOCK).contains(width))?;
        let first = self.index.checked_mul(BLOCK)?;
        let end = first.checked_add(width)?;
        (end <= tree.size).then_some((first, end))
    }
}

impl<S: Store> Vault<S> {
    /// The leaves under a tile of level zero, each behind its length.
    pub async fn read_bundle(&self, caller: &Caller, request: &ReadBundle) -> Result<Bytes, Error> {
        let Found { log, tree, first, bundle, hashes } = self.travel(caller, request).await?;
        let id = TileId { level: 0, index: request.index };
        let tile = self.proven_tile(log, &tree, id, hashes.len()).await?;
        for ((index, hash), proven) in (first..).zip(&hashes).zip(tile.chunks_exact(HASH)) {
            if hash.as_slice() != proven {
                tracing::error!(log = log.0, index, "a leaf of the ledger was changed on the disk");
                self.damaged("the ledger: its leaves are not those of its head");
                return Err(Error::LeafChanged(index));
            }
        }
        Ok(bundle.into())
    }

    /// The first `width` hashes of a tile.
    pub async fn read_tile(&self, caller: &Caller, log: &str, id: TileId, width: usize) -> Result<Bytes, Error> {
        let detail = vec![("tile", id.path(width))];
        let whose = self.travel(caller, &GetProof { log, detail }).await?;
        let (_, tree) = self.checkpoint_of(caller, whose).await?;
        self.proven_tile(whose, &tree, id, width).await
    }

    /// A tile of the tree, made or mended if it is not there.
    async fn proven_tile(&self, log: TenantNo, tree: &Tree, id: TileId, width: usize) -> Result<Bytes, Error> {
        let first = first_hash(tree, id).ok_or_else(|| beyond(tree, false))?;
        self.prove(log, tree, &first).await?;
        self.written_tile(log, tree, id, width).await?.ok_or_else(|| beyond(tree, false))
    }
}

/// Whoever asks for more than is signed is told how far that goes.
fn beyond(tree: &Tree, leaves: bool) -> Error {
    let id = TileId { level: 0, index: tree.size.saturating_sub(1) / BLOCK };
    let width = Edge::width(tree.size, id);
    let last = if leaves { id.entries_path(width) } else { id.path(width) };
    Error::invalid(
        "path",
        "out_of_range",
        format!("the signed head has {} leaves, the last of them under {last}", tree.size),
    )
}
