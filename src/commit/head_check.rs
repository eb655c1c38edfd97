//! Whether a store is the one that its head file speaks of, and as far; after an orderly stop, no further.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use strongroom_ids::{TenantNo, VaultId};
use strongroom_ledger::head::{self, Head, LaneState};
use strongroom_ledger::leaf;
use strongroom_ledger::{Frontier, LedgerError, NewRule, Rules};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Range, Store, StoreError, keys};
use thiserror::Error;

use crate::head_file::HeadFile;
use crate::lane::Lane;

/// How many leaves one page of the check brings; a leaf is less than 64 KiB.
const PAGE: usize = 256;

/// Why a vault does not start over this store.
#[derive(Debug, Error)]
pub enum HeadError {
    /// There is no head file. Whatever made the store wrote one before the first leaf.
    #[error(
        "the head file {path} is missing, so nobody can tell whether the store is complete: put the newest copy of the \
         file back, together with the data folder that belongs to it"
    )]
    Missing {
        /// Where it should stand.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("the head file {path} cannot be read: {source}")]
    Unreadable {
        /// Where it stands.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file is not one that this vault signed.
    #[error(
        "the head file {path} is not this vault's: {source}; put the right one back, or the newest copy of the keystore"
    )]
    Foreign {
        /// Where it stands.
        path: PathBuf,
        /// What is wrong with it.
        source: LedgerError,
    },
    /// The store ends before the file says.
    #[error(
        "the store is behind its head file by {missing} leaves of the log of tenant {tenant} (it has {size}): \
         acknowledged writes are lost; bring back the newest copy of the data folder, or, if there is no newer one: \
         `strongroom restore`"
    )]
    Behind {
        /// Whose log.
        tenant: TenantNo,
        /// How many leaves the store lacks.
        missing: u64,
        /// How many it has.
        size: u64,
    },
    /// The store goes on after a file that says that the vault was stopped.
    #[error(
        "the log of tenant {tenant} has {added} leaves more than the {signed} with which the vault was stopped in order: \
         somebody wrote to the data folder since, or the head file is an older copy; `strongroom verify` names what was \
         added; bring back the newest copies of the data folder and the head file that belong together"
    )]
    Added {
        /// Whose log.
        tenant: TenantNo,
        /// How many leaves came after the file.
        added: u64,
        /// How many the file signs.
        signed: u64,
    },
    /// The store's log is not the one that the file speaks of.
    #[error(
        "the log of tenant {tenant} is not the one that the head file speaks of: among its {size} leaves some were \
         changed, or it belongs to another copy; bring back the newest copy of the data folder"
    )]
    Different {
        /// Whose log.
        tenant: TenantNo,
        /// How many leaves the store has.
        size: u64,
    },
    /// The logs' heads say another incarnation than the file.
    #[error(
        "the logs are of incarnation {stored}, and the head file of {signed}: the data folder was changed, or belongs to another \
         copy; bring back its newest copy, or, if there is no newer one: `strongroom restore`"
    )]
    Incarnation {
        /// That of the logs.
        stored: u16,
        /// The one that is signed.
        signed: u16,
    },
    /// The log's head names other rules than its leaves record.
    #[error(
        "the head of the log of tenant {tenant} names other rules than its leaves put in force: the data folder was \
         changed; bring back its newest copy"
    )]
    Rules {
        /// Whose log.
        tenant: TenantNo,
    },
    /// A log without a leaf. The first one is written together with the log's tenant.
    #[error(
        "the log of tenant {tenant} is empty, and every log begins with the leaf that says whose it is: the data folder \
         is not complete; bring back its newest copy"
    )]
    Empty {
        /// Whose log.
        tenant: TenantNo,
    },
    /// A leaf that the log's head counts is not there.
    #[error("the log of tenant {tenant} lacks leaf {index}: put the newest copy of its data back")]
    LeafMissing {
        /// Whose log.
        tenant: TenantNo,
        /// Which leaf.
        index: u64,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HeadFile {
    /// Whether the store reaches as far as its head file, and holds the same logs. `lanes` are all lane heads as
    /// stored; none may be empty. The leaves that came after the file are read and hashed, so a frontier put in place
    /// is noticed; after an orderly stop there may be none. `publics` are the keys of the log `system` that sign: within a
    /// rotation the file may still be by the one before. Returns what the file says.
    pub async fn check<S: Store>(
        path: &Path,
        vault: VaultId,
        publics: &[[u8; 32]],
        lanes: &[(TenantNo, LaneHead)],
        store: &S,
    ) -> Result<Head, HeadError> {
        let head = Self::read(path, vault, publics)?;
        let mut known: HashMap<TenantNo, &LaneState> = head.lanes.iter().map(|lane| (lane.tenant, lane)).collect();
        for (tenant, stored) in lanes {
            let stored = Lane::open(stored)?;
            let signed = match known.remove(tenant) {
                Some(lane) => {
                    check_lane(*tenant, lane, &stored, store).await?;
                    lane.size
                }
                // Made after the file was written: all of it is to be checked.
                None => {
                    follow(*tenant, (Frontier::new(), Rules::default()), &stored, store).await?;
                    0
                }
            };
            let added = stored.frontier.size().saturating_sub(signed);
            if head.closed && added > 0 {
                return Err(HeadError::Added { tenant: *tenant, added, signed });
            }
        }
        if let Some(lane) = known.values().find(|lane| lane.size > 0) {
            return Err(HeadError::Behind { tenant: lane.tenant, missing: lane.size, size: 0 });
        }
        if let Some((tenant, _)) = lanes.iter().find(|(_, lane)| lane.size == 0) {
            return Err(HeadError::Empty { tenant: *tenant });
        }
        // No signature covers the number in a log's head; and by it the journal tells an older copy from what a restore left behind.
        let (stored, signed) = (lanes.iter().map(|(_, lane)| lane.incarnation).max(), head.incarnation);
        match stored.filter(|stored| *stored != signed) {
            Some(stored) => Err(HeadError::Incarnation { stored, signed }),
            None => Ok(head),
        }
    }

    /// Reads a head file that one of these keys has signed.
    pub fn read(path: &Path, vault: VaultId, publics: &[[u8; 32]]) -> Result<Head, HeadError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HeadError::Missing { path: path.to_owned() });
            }
            Err(source) => return Err(HeadError::Unreadable { path: path.to_owned(), source }),
        };
        head::open_by_any(&bytes, vault, publics).map_err(|source| HeadError::Foreign { path: path.to_owned(), source })
    }
}

async fn check_lane<S: Store>(tenant: TenantNo, lane: &LaneState, stored: &Lane, store: &S) -> Result<(), HeadError> {
    let size = stored.frontier.size();
    if size < lane.size {
        return Err(HeadError::Behind { tenant, missing: lane.size - size, size });
    }
    // The file is signed, and its reader has compared sizes and roots.
    let frontier = Frontier::from_bytes(&lane.frontier).map_err(|_| HeadError::Different { tenant, size })?;
    follow(tenant, (frontier, lane.rules), stored, store).await
}

/// Appends the leaves that the store has after a frontier, and the rules that they put in force; the end must be what
/// is stored.
pub(crate) async fn follow<S: Store>(
    tenant: TenantNo,
    (mut frontier, mut rules): (Frontier, Rules),
    stored: &Lane,
    store: &S,
) -> Result<(), HeadError> {
    let end = stored.frontier.size();
    while frontier.size() < end {
        let (from, to) = keys::leaves_range(tenant, frontier.size(), end);
        let page = store.scan(Family::Leaves, Range { from, to, limit: PAGE }).await?;
        for (key, line) in &page {
            let index = frontier.size();
            if keys::decode_leaf(key)? != index {
                return Err(HeadError::LeafMissing { tenant, index });
            }
            frontier.push(line);
            // One that is not in its form is not what was appended, and the tree shows it.
            if let Some(new) = leaf::parse(line).ok().as_ref().and_then(NewRule::of)
                && !rules.put(new)
            {
                // The vault writes none that are not newer. Whoever appends one needs no key for it, and would have it journalled.
                return Err(HeadError::Rules { tenant });
            }
        }
        if page.is_empty() {
            return Err(HeadError::LeafMissing { tenant, index: frontier.size() });
        }
    }
    match (frontier == stored.frontier, rules == stored.rules) {
        (false, _) => Err(HeadError::Different { tenant, size: end }),
        (true, false) => Err(HeadError::Rules { tenant }),
        (true, true) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use strongroom_storage::Mutation;
    use strongroom_storage::memory::MemoryStore;

    use super::*;
    use crate::group::Lanes;
    use crate::testing::{self, OTHER, Rig, TENANT, VAULT, leaf};

    /// A vault's two halves.
    struct Vault {
        folder: tempfile::TempDir,
        store: MemoryStore,
    }

    impl Vault {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), store: MemoryStore::default() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("head")
        }

        /// Serves for a while: one leaf for each name.
        async fn serve(&self, tenant: TenantNo, names: &[&str]) {
            let rig = Rig::with_head(self.store.clone(), testing::head_file(&self.path())).await;
            for name in names {
                rig.append(tenant, name).await.unwrap();
            }
            rig.committer.shutdown().await;
        }

        /// As if it had been killed: its head file is the one of a vault that runs.
        async fn killed(&self) {
            let lanes = testing::stored_lanes(&self.store).await.into_iter().filter(|(_, lane)| lane.size > 0);
            let lanes: Lanes = lanes.map(|(tenant, lane)| (tenant, Lane::open(&lane).unwrap())).collect();
            testing::head_file(&self.path()).write(&lanes, None, false).unwrap();
        }

        /// The same with a head file that nobody looks at, as after the file's last writing.
        async fn serve_unseen(&self, names: &[&str]) {
            self.killed().await;
            let rig = Rig::with_head(self.store.clone(), testing::head_file(&self.folder.path().join("unseen"))).await;
            for name in names {
                rig.append(TENANT, name).await.unwrap();
            }
            rig.committer.shutdown().await;
        }

        async fn check(&self) -> Result<(), HeadError> {
            self.check_against(&self.store).await
        }

        async fn check_against(&self, store: &MemoryStore) -> Result<(), HeadError> {
            let mut lanes = testing::stored_lanes(store).await;
            lanes.retain(|(_, lane)| lane.size > 0);
            HeadFile::check(&self.path(), VAULT, &[testing::public_key()], &lanes, store).await.map(drop)
        }
    }

    #[tokio::test]
    async fn a_vault_that_was_shut_down_starts() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one", "two", "three"]).await;
        vault.check().await.unwrap();
        vault.serve(OTHER, &["four"]).await;
        vault.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_went_on_after_its_head_file_starts() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one", "two", "three"]).await;
        let names: Vec<String> = (0..2 * PAGE + 1).map(|number| number.to_string()).collect();
        vault.serve_unseen(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        vault.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_leaf_that_somebody_appends_after_an_orderly_stop_does_not_start() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one", "two"]).await;
        let stopped = std::fs::read(vault.path()).unwrap();
        // Whoever writes the files needs no key for a leaf and the head that fits it.
        vault.serve_unseen(&["forged"]).await;
        std::fs::write(vault.path(), stopped).unwrap();
        let error = vault.check().await.unwrap_err();
        assert!(matches!(error, HeadError::Added { tenant: TENANT, added: 1, signed: 2 }), "{error}");
        assert!(error.to_string().contains("`strongroom verify`"), "{error}");
    }

    #[tokio::test]
    async fn a_log_that_somebody_begins_after_an_orderly_stop_does_not_start() {
        let vault = Vault::new();
        vault.serve(OTHER, &["forged"]).await;
        testing::head_file(&vault.path()).write(&Lanes::new(), None, true).unwrap();
        let error = vault.check().await.unwrap_err();
        assert!(matches!(error, HeadError::Added { tenant: OTHER, added: 1, signed: 0 }), "{error}");
    }

    #[tokio::test]
    async fn a_vault_that_is_killed_after_its_start_or_its_first_commits_starts() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        // Never shut down: what stands on disk at each moment is what a kill leaves.
        let rig = Rig::with_head(vault.store.clone(), testing::head_file(&vault.path())).await;
        vault.check().await.unwrap();
        for name in ["two", "three"] {
            rig.append(TENANT, name).await.unwrap();
            vault.check().await.unwrap();
        }
        vault.serve(TENANT, &["four"]).await;
        vault.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_store_behind_its_head_file_does_not_start() {
        let (vault, old) = (Vault::new(), Vault::new());
        vault.serve(TENANT, &["one", "two", "three"]).await;
        old.serve(TENANT, &["one"]).await;
        let error = vault.check_against(&old.store).await.unwrap_err();
        assert!(matches!(error, HeadError::Behind { tenant: TENANT, missing: 2, size: 1 }), "{error}");
        let empty = vault.check_against(&MemoryStore::default()).await;
        assert!(matches!(empty, Err(HeadError::Behind { missing: 3, size: 0, .. })), "{empty:?}");
    }

    #[tokio::test]
    async fn a_log_that_says_another_incarnation_than_the_head_file_does_not_start() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        let key = Lane::key(TENANT);
        let head = LaneHead::decode(&vault.store.get(Family::Meta, key.clone()).await.unwrap().unwrap()).unwrap();
        for (incarnation, starts) in [(2, false), (1, true)] {
            let put = Mutation::Put(Family::Meta, key.clone(), LaneHead { incarnation, ..head.clone() }.encode());
            vault.store.write(vec![put]).await.unwrap();
            match vault.check().await {
                Ok(_) => assert!(starts),
                Err(error) => {
                    assert!(!starts && matches!(error, HeadError::Incarnation { stored: 2, signed: 1 }), "{error}")
                }
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_is_gone_does_not_start() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        vault.serve(OTHER, &["two"]).await;
        let lanes = testing::stored_lanes(&vault.store).await;
        let error = HeadFile::check(&vault.path(), VAULT, &[testing::public_key()], &lanes[..1], &vault.store).await;
        assert!(matches!(error, Err(HeadError::Behind { tenant: OTHER, missing: 1, size: 0 })), "{error:?}");
    }

    #[tokio::test]
    async fn a_store_with_another_history_does_not_start() {
        let (vault, other) = (Vault::new(), Vault::new());
        vault.serve(TENANT, &["one", "two"]).await;
        for names in [&["one", "else"][..], &["one", "else", "more"]] {
            other.serve(TENANT, names).await;
            let error = vault.check_against(&other.store).await.unwrap_err();
            assert!(matches!(error, HeadError::Different { tenant: TENANT, .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_leaf_changed_or_missing_after_the_head_file_is_noticed() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        vault.serve_unseen(&["two", "three", "four"]).await;
        vault.check().await.unwrap();
        let third = keys::leaf(TENANT, 2);
        let line = leaf("else").finish(2, strongroom_ledger::Timestamp(1_000));
        vault.store.write(vec![Mutation::Put(Family::Leaves, third.clone(), line)]).await.unwrap();
        assert!(matches!(vault.check().await, Err(HeadError::Different { .. })));
        vault.store.write(vec![Mutation::Delete(Family::Leaves, third)]).await.unwrap();
        assert!(matches!(vault.check().await, Err(HeadError::LeafMissing { index: 2, .. })));
        let fourth = Mutation::Delete(Family::Leaves, keys::leaf(TENANT, 3));
        vault.store.write(vec![fourth]).await.unwrap();
        assert!(matches!(vault.check().await, Err(HeadError::LeafMissing { index: 2, .. })));
    }

    #[tokio::test]
    async fn a_missing_head_file_is_noticed_even_when_the_logs_say_that_they_are_empty() {
        let vault = Vault::new();
        assert!(matches!(vault.check().await, Err(HeadError::Missing { .. })));
        vault.serve(TENANT, &["one"]).await;
        std::fs::remove_file(vault.path()).unwrap();
        assert!(matches!(vault.check().await, Err(HeadError::Missing { .. })));
        let emptied = [(TENANT, testing::empty_head())];
        let error = HeadFile::check(&vault.path(), VAULT, &[testing::public_key()], &emptied, &vault.store).await;
        assert!(matches!(error, Err(HeadError::Missing { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_log_without_a_leaf_does_not_start() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        let lanes = testing::stored_lanes(&vault.store).await;
        let error = HeadFile::check(&vault.path(), VAULT, &[testing::public_key()], &lanes, &vault.store).await;
        assert!(matches!(error, Err(HeadError::Empty { tenant: OTHER })), "{error:?}");
        // Nor does one whose head file was written before it.
        testing::head_file(&vault.path()).write(&Lanes::new(), None, false).unwrap();
        let emptied = [(TENANT, testing::empty_head())];
        let error = HeadFile::check(&vault.path(), VAULT, &[testing::public_key()], &emptied, &vault.store).await;
        assert!(matches!(error, Err(HeadError::Empty { tenant: TENANT })), "{error:?}");
    }

    #[tokio::test]
    async fn rules_in_a_logs_head_that_its_leaves_do_not_record_are_noticed() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        vault.serve_unseen(&["two"]).await;
        let key = Lane::key(TENANT);
        let head = LaneHead::decode(&vault.store.get(Family::Meta, key.clone()).await.unwrap().unwrap()).unwrap();
        let mut rules = Rules::default();
        rules.put(NewRule::Policy(strongroom_ledger::Rule { version: 1, hash: [1; 32] }));
        let changed = LaneHead { rules: rules.to_bytes(), ..head };
        vault.store.write(vec![Mutation::Put(Family::Meta, key, changed.encode())]).await.unwrap();
        assert!(matches!(vault.check().await, Err(HeadError::Rules { tenant: TENANT })));
    }

    #[tokio::test]
    async fn a_leaf_that_brings_no_newer_rules_does_not_start() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        vault.killed().await;
        let hash = "07".repeat(32);
        for (number, starts) in [(1_u64, true), (2, false)] {
            let header = leaf::LeafHeader {
                request: &[1; 16],
                principal: "officer/alice",
                action: "unfreeze",
                policy: 1,
                schema: 1,
                client: "",
                detail: &[("version", "1"), ("sha256", &hash)],
                ..leaf::sample::header()
            };
            let prepared = leaf::prepare(&header, std::iter::empty()).remove(0);
            let stored = testing::stored_lanes(&vault.store).await.remove(0).1;
            let mut lane = Lane::open(&stored).unwrap();
            let mut batch = vec![];
            assert_eq!(lane.append(TENANT, &prepared, 1_000, &mut batch), number);
            batch.push(Mutation::Put(Family::Meta, Lane::key(TENANT), lane.head().encode()));
            vault.store.write(batch).await.unwrap();
            let checked = vault.check().await;
            assert_eq!(checked.is_ok(), starts, "{checked:?}");
        }
    }

    #[tokio::test]
    async fn a_head_file_of_another_vault_or_key_or_a_changed_one_is_refused() {
        let vault = Vault::new();
        vault.serve(TENANT, &["one"]).await;
        let lanes = testing::stored_lanes(&vault.store).await;
        for (id, key) in [(VaultId([8; 16]), testing::public_key()), (VAULT, [3; 32])] {
            let error = HeadFile::check(&vault.path(), id, &[key], &lanes, &vault.store).await;
            assert!(matches!(error, Err(HeadError::Foreign { .. })), "{error:?}");
        }
        let mut bytes = std::fs::read(vault.path()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(vault.path(), bytes).unwrap();
        assert!(matches!(vault.check().await, Err(HeadError::Foreign { .. })));
    }

    #[tokio::test]
    async fn a_log_begun_after_the_head_file_is_checked_from_its_first_leaf() {
        let vault = Vault::new();
        vault.serve(OTHER, &["one", "two"]).await;
        testing::head_file(&vault.path()).write(&Lanes::new(), None, false).unwrap();
        vault.check().await.unwrap();
        let line = leaf("else").finish(0, strongroom_ledger::Timestamp(1_000));
        vault.store.write(vec![Mutation::Put(Family::Leaves, keys::leaf(OTHER, 0), line)]).await.unwrap();
        assert!(matches!(vault.check().await, Err(HeadError::Different { tenant: OTHER, size: 2 })));
    }
}
