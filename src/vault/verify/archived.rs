//! What stands for leaves that are archived: their state, which a leaf that is there must say.

use strongroom_keys::IndexName;
use strongroom_ledger::tiles::Edge;
use strongroom_storage::rows::{ArchiveRow, BLOCK};
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::Check;
use super::finding::{Fault, Kind, Place};
use super::ledger::{Signed, Walk};
use super::state::{State, StateDigest};
use crate::archive::held;
use crate::error::Error;
use crate::pages::Pages;
use crate::tiles;

impl<S: Store> Check<'_, S> {
    /// The state with which verification begins, and what it is told apart by: that of no leaf if none is archived.
    pub(super) async fn state_of_archived(&mut self) -> Result<(State, Option<StateDigest>), StoreError> {
        let row = held::row(self.store, self.number).await?;
        // Of one that is locked, or destroyed, nobody has the key.
        let key = self.keystore.index_key(self.id, IndexName::Fingerprint).ok();
        let is_forged = |row: &ArchiveRow| key.as_ref().is_some_and(|key| !held::is_proven(self.number, row, key));
        let forged = row.as_ref().is_some_and(is_forged);
        self.archived = row.unwrap_or_default();
        if forged {
            let what = "the row of what is archived is not one that this vault wrote";
            self.found(Kind::State, Fault::Changed, Place::Key(place::archived(self.number)), what);
        }
        self.state_pages().await?;
        let end = self.archived.end;
        if end == 0 {
            return Ok((State::default(), None));
        }
        if !end.is_multiple_of(BLOCK) {
            let what = format!("it says {end} leaves, and they are archived in blocks of {BLOCK}");
            return Err(StoreError::Corrupt { place: "the row of what is archived of a ledger", what });
        }
        let (state, digest) = held::state(self.store, self.number, end).await.map_err(|error| match error {
            // Without it nothing that is stored can be held against what was archived.
            Error::DataLoss(place) => StoreError::Corrupt { place, what: "it is not what the vault wrote".to_owned() },
            _ => StoreError::Io { doing: "read", what: "the state of archived leaves".to_owned() },
        })?;
        self.first_leaf(&state.begun);
        let says_another = state.frontier.root() != self.archived.root || state.time.0 != self.archived.time;
        if says_another && !forged {
            let what = "the row of what is archived says another tree or time than the state of these leaves";
            self.found(Kind::State, Fault::Changed, Place::Key(place::archived(self.number)), what);
        }
        Ok((state, Some(digest)))
    }

    /// Names pages that are of no state which is needed.
    async fn state_pages(&mut self) -> Result<(), StoreError> {
        let mut pages = Pages::of_tenant(Family::Archived, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, _) in &page {
                let row = &self.archived;
                let decided = row.intent.as_ref().map(|intent| intent.end);
                match place::decode_state_page(key) {
                    Ok(None) => {}
                    Ok(Some((leaves, _)))
                        if leaves == row.end
                            // In the making.
                            || Some(leaves) == decided
                            // Not removed yet.
                            || (leaves < row.end && !row.removed) => {}
                    Ok(Some(_)) => {
                        let what = "it is a page of a state of leaves that verification does not begin with";
                        self.found(Kind::State, Fault::Added, Place::Key(key.to_vec()), what);
                    }
                    Err(_) => self.unknown(key),
                }
            }
        }
        Ok(())
    }

    /// A leaf that is archived, and is there.
    pub(super) fn archived_leaf(&mut self, index: u64) {
        // Until all are removed.
        if self.archived.removed {
            let what = "it is archived and was removed from the store, and stands here";
            self.found(Kind::Leaf, Fault::Added, Place::Leaf(index), what);
        }
    }

    /// A leaf must have said the state that all rests on.
    pub(super) fn named(&mut self, walk: &Walk) {
        if let Some(digest) = walk.unnamed {
            let what = format!(
                "no leaf says that the first {} leaves come to a state of {} lines with SHA-256 {}: it was changed",
                walk.archived,
                digest.lines,
                data_encoding::HEXLOWER.encode(&digest.sha256)
            );
            self.found(Kind::State, Fault::Changed, Place::Only, what);
        }
    }

    /// Holds what was signed of leaves that are archived against the tiles over them, which are held against the log's head.
    pub(super) async fn compare_archived(&mut self, signed: &Signed) -> Result<(), StoreError> {
        let ids = Edge::incomplete(signed.size).into_iter().map(|(id, _)| id).collect();
        let tiles = tiles::stored(self.store, self.number, ids).await;
        let Some(tiles) = self.unless_damaged(tiles)? else { return Ok(()) };
        let edge = Edge::open(signed.size, |id| tiles.get(&id).map(|tile| &**tile));
        if edge.is_ok_and(|edge| edge.root() == signed.root) {
            return Ok(());
        }
        let what = format!("{} signs other leaves than the first {} that are archived", signed.whose, signed.size);
        self.found(Kind::Log, Fault::Changed, Place::Only, what);
        Ok(())
    }
}
