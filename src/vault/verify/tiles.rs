//! The tiles of a log's tree: each is held against the one above it, and the topmost against the leaves.

use std::collections::BTreeMap;

use strongroom_ledger::Frontier;
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::Check;
use super::finding::{Fault, Kind, Place};
use crate::pages::Pages;
use crate::tiles;

impl<S: Store> Check<'_, S> {
    /// All tiles of the tenant's log.
    pub async fn tiles(&mut self) -> Result<(), StoreError> {
        let leaves = self.lane.as_ref().map_or(0, |lane| lane.size);
        let row = self.store.get(Family::Tiles, place::tiled(self.number)).await?;
        let size = match row.map(|row| place::decode_tiled(&row)) {
            None => 0,
            Some(Ok(size)) if size <= leaves => size,
            Some(_) => {
                let what = "how many leaves are in tiles can't be read, or the log has fewer";
                return self.wrong_tile(Fault::Changed, place::tiled(self.number), what);
            }
        };
        let mut found = BTreeMap::new();
        let mut pages = Pages::of_tenant(Family::Tiles, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, tile) in &page {
                match place::decode_tile(key) {
                    Ok(None) => {}
                    Ok(Some((level, index))) => {
                        *found.entry(level).or_insert(0_u64) += 1;
                        self.tile(size, TileId { level, index }, key, tile).await?;
                    }
                    Err(_) => self.unknown(key),
                }
            }
        }
        for (level, expected) in
            (0..).map(|level| (level, Edge::tiles_of(size, level))).take_while(|(_, tiles)| *tiles > 0)
        {
            let there = found.get(&level).copied().unwrap_or(0);
            if there < expected {
                let what = format!("of {expected} tiles of level {level} {there} are there");
                self.wrong_tile(Fault::Missing, place::tiled(self.number), &what)?;
            }
        }
        self.topmost(size, leaves).await
    }

    async fn tile(&mut self, size: u64, id: TileId, key: &[u8], tile: &[u8]) -> Result<(), StoreError> {
        let width = Edge::width(size, id);
        if width == 0 {
            return self.wrong_tile(Fault::Added, key.to_vec(), &format!("the log has no {id}"));
        }
        if tile.len() != width * 32 {
            let what = format!("{id}{} has another length than it should", over(size, id));
            return self.wrong_tile(Fault::Changed, key.to_vec(), &what);
        }
        let Some(root) = Edge::root_of(tile) else { return Ok(()) };
        let above = TileId { level: id.level + 1, index: id.index / 256 };
        let parent = self.store.get(Family::Tiles, place::tile(self.number, above.level, above.index)).await?;
        // 255 at most, times 32.
        let at = (id.index % 256) as usize * 32;
        match parent.as_ref().and_then(|parent| parent.get(at..at + 32)) {
            Some(named) if *named == root => Ok(()),
            _ => {
                let what = format!("{id}{} is not the one that the tile above names", over(size, id));
                self.wrong_tile(Fault::Changed, key.to_vec(), &what)
            }
        }
    }

    /// What no tile stands above: the tree that it ends in must be that of the leaves.
    async fn topmost(&mut self, size: u64, leaves: u64) -> Result<(), StoreError> {
        let Some(head) = self.lane.as_ref().and_then(|lane| Frontier::from_bytes(&lane.frontier).ok()) else {
            return Ok(());
        };
        if size < leaves || size == 0 {
            // They are held against the root before any proof is made of them.
            return Ok(());
        }
        let incomplete = Edge::incomplete(size).into_iter().map(|(id, _)| id);
        let tiles = tiles::stored(self.store, self.number, incomplete.collect()).await?;
        match Edge::open(size, |id| tiles.get(&id).map(|tile| &**tile)) {
            Ok(edge) if edge.root() == head.root() => Ok(()),
            // What is missing was named.
            Err(_) => Ok(()),
            Ok(_) => {
                let what = "they make up another tree than the leaves";
                self.wrong_tile(Fault::Changed, place::tiled(self.number), what)
            }
        }
    }

    fn wrong_tile(&mut self, fault: Fault, key: Vec<u8>, what: &str) -> Result<(), StoreError> {
        self.found(Kind::Tile, fault, Place::Key(key), what);
        Ok(())
    }
}

/// The leaves under a tile, for people.
fn over(size: u64, id: TileId) -> String {
    let leaves = 1_u64.checked_shl((u32::from(id.level) + 1) * 8);
    let from = leaves.and_then(|leaves| id.index.checked_mul(leaves));
    from.zip(leaves).map_or_else(String::new, |(from, leaves)| {
        format!(", over leaves {from} to {},", from.saturating_add(leaves).min(size).saturating_sub(1))
    })
}
