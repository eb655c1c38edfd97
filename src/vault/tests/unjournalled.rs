//! A vault that dies between a commit and its journal: what restricts a data subject is journalled at the next start, which changes
//! nothing else.

use strongroom_ledger::may_restrict;
use strongroom_storage::{Entry, Family, Range, Store, keys as place};

use super::consents::{all, give, take};
use super::erasures::{erase, erase_with, go_on, undo};
use super::holds::{hold, lift, set};
use super::keys::TENANT;
use super::restores::{journal, proven};
use super::*;

const DAY: u64 = 24 * 3_600;
const CARD: &str = "borrower.id_card";

/// The last that a vault commits.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Last {
    /// A subject is closed.
    Close,
    /// The same of one of whom something is held.
    Restrict,
    /// The last page of its rows is cleared.
    Finish,
    /// A time of grace begins.
    Leave,
    /// It is made shorter.
    Hasten,
    /// It is over.
    End,
    /// It is undone.
    Undo,
    SetHold,
    LiftHold,
    /// A hold for which something of an erased subject was kept.
    LiftLastHold,
    Withdraw,
}

impl Last {
    /// All of them, and what their leaves call it.
    const ALL: [(Self, &'static str); 11] = [
        (Self::Close, "erase_subject"),
        (Self::Restrict, "erase_subject"),
        (Self::Finish, "erase_subject"),
        (Self::Leave, "erase_subject"),
        (Self::Hasten, "erase_subject"),
        (Self::End, "erase_subject"),
        (Self::Undo, "undo_erasure"),
        (Self::SetHold, "set_hold"),
        (Self::LiftHold, "lift_hold"),
        (Self::LiftLastHold, "lift_hold"),
        (Self::Withdraw, "withdraw_consent"),
    ];

    /// What is done before, and journalled.
    async fn prepare(self, bench: &Bench, vault: &Tested) {
        store_one(vault, CARD, ID_CARD, "c-1").await;
        store_one(vault, "borrower.name", "张三", "c-1").await;
        match self {
            Self::Close | Self::Leave | Self::SetHold => {}
            Self::Restrict | Self::LiftHold | Self::LiftLastHold => {
                set(vault, &hold(bench, &[CARD], "collections", 30)).await.unwrap();
                if self == Self::LiftLastHold {
                    assert_eq!(erase(vault, "c-1").await.state, "held");
                }
            }
            Self::Finish => {
                cut_off(bench, vault, async { assert_eq!(erase(vault, "c-1").await.state, "clearing") }).await
            }
            Self::Hasten | Self::Undo => _ = erase_with(vault, "c-1", 30 * DAY, "").await.unwrap(),
            Self::End => {
                erase_with(vault, "c-1", DAY, "").await.unwrap();
                bench.pass(2 * DAY);
            }
            Self::Withdraw => assert!(give(vault, "c-1", all()).await.unwrap()),
        }
    }

    /// Commits it, and nothing behind it.
    async fn commit(self, bench: &Bench, vault: &Tested) {
        match self {
            Self::Close | Self::Restrict => {
                cut_off(bench, vault, async { assert_eq!(erase(vault, "c-1").await.state, "clearing") }).await;
            }
            Self::Finish | Self::End => cut_off(bench, vault, async { assert!(go_on(vault).await.is_err()) }).await,
            Self::Leave => assert_eq!(erase_with(vault, "c-1", 30 * DAY, "").await.unwrap().state, "waiting"),
            Self::Hasten => assert_eq!(erase_with(vault, "c-1", 2 * DAY, "").await.unwrap().state, "waiting"),
            Self::Undo => undo(vault, "c-1").await.unwrap(),
            Self::SetHold => assert_eq!(set(vault, &hold(bench, &[CARD], "collections", 30)).await.unwrap(), 1),
            Self::LiftHold | Self::LiftLastHold => lift(vault, 1).await.unwrap(),
            Self::Withdraw => assert!(take(vault, "c-1", all()).await.unwrap()),
        }
    }
}

/// Does something of which the first commit is stored and the second is not.
async fn cut_off(bench: &Bench, vault: &Tested, work: impl Future<Output = ()>) {
    bench.faults.fail_writes_after(1, Fate::Lost);
    work.await;
    recovered(vault).await;
    bench.faults.heal();
}

/// All that there is of subjects, and what the log says of what restricts them.
async fn stored(bench: &Bench) -> Vec<Vec<Entry>> {
    let of_subjects =
        [Family::Subjects, Family::Rows, Family::RowDeks, Family::SubjectRows, Family::Holders, Family::Index];
    let mut stored = Vec::new();
    for family in of_subjects {
        stored.push(super::rolls::all(bench, family).await);
    }
    for (from, to) in [place::erasures_range(TENANT), place::erasure_works_range(TENANT)] {
        stored.push(bench.disk.scan(Family::Meta, Range { from, to, limit: 1_000 }).await.unwrap());
    }
    let mut leaves = super::rolls::all(bench, Family::Leaves).await;
    leaves.retain(|(_, line)| may_restrict(line));
    stored.push(leaves);
    stored
}

/// How often the journal has an action.
fn journalled(bytes: &[u8], action: &str) -> usize {
    let name = format!("\"action\":\"{action}\"");
    bytes.windows(name.len()).filter(|part| *part == name.as_bytes()).count()
}

#[tokio::test]
async fn what_restricts_a_subject_and_is_not_journalled_yet_is_at_the_next_start_and_nothing_else_changes() {
    for (last, action) in Last::ALL {
        let (bench, vault) = Bench::new().await;
        last.prepare(&bench, &vault).await;
        // In this order: the head file may know less than the journal has, and never more.
        let files = [bench.folder.path().join("head"), journal(&bench)];
        let of_the_crash = files.each_ref().map(|file| std::fs::read(file).unwrap());
        last.commit(&bench, &vault).await;
        vault.close().await;
        drop(vault);
        for (file, bytes) in files.iter().zip(&of_the_crash) {
            std::fs::write(file, bytes).unwrap();
        }
        let before = stored(&bench).await;
        let vault = bench.try_open().await.unwrap_or_else(|error| panic!("{last:?}: {error}"));
        vault.close().await;
        drop(vault);
        assert_eq!(stored(&bench).await, before, "{last:?}");
        let now = std::fs::read(&files[1]).unwrap();
        assert_eq!(journalled(&now, action), journalled(&of_the_crash[1], action) + 1, "{last:?}");
        proven(&bench).await;
    }
}
