//! Which blocks of the index are held against their rows next: of every log in its turn, and the newest of each besides.
//!
//! Logs take turns by their size, one block at a time, so that a log of many blocks keeps no other waiting and each is gone
//! through in about the same time: a day, or as many more as there are more blocks than a round takes.

use std::collections::{BTreeMap, BTreeSet};

use strongroom_ids::TenantNo;
use strongroom_storage::rows::BLOCK;

use crate::housekeeping::in_turn;

/// Rounds of a day, at one in ten seconds.
const DAY: u64 = 8_640;
/// Blocks of all logs in one round: at least, and at most. Others of the house wait for these.
const LEAST: u64 = 4;
const MOST: u64 = 64;
/// Logs of which the newest block is looked at in one round.
const NEWEST: usize = 16;

/// How far each log is.
#[derive(Default)]
pub(super) struct Turns {
    logs: BTreeMap<TenantNo, Turn>,
    /// The log whose newest block was looked at last.
    newest: Option<TenantNo>,
}

struct Turn {
    /// The block that is next.
    next: u64,
    /// Grows by the log's blocks with each block that is taken of any log; whose is the largest is next.
    waited: i128,
}

impl Turns {
    /// The blocks of this round by their first leaves, given how many each log has. A log that is new here begins at a block that
    /// `begin` draws of so many: nobody remembers how far it was when the vault last stopped.
    pub fn round(&mut self, blocks: &BTreeMap<TenantNo, u64>, begin: impl Fn(u64) -> u64) -> BTreeSet<(TenantNo, u64)> {
        self.logs.retain(|log, _| blocks.get(log).is_some_and(|blocks| *blocks > 0));
        for (log, blocks) in blocks.iter().filter(|(_, blocks)| **blocks > 0) {
            self.logs.entry(*log).or_insert_with(|| Turn { next: begin(*blocks), waited: 0 });
        }
        let total: u64 = blocks.values().sum();
        let mut taken = self.newest(blocks);
        for _ in 0..total.div_ceil(DAY).clamp(LEAST, MOST).min(total) {
            for (log, turn) in &mut self.logs {
                turn.waited += blocks.get(log).copied().map_or(0, i128::from);
            }
            let Some((log, turn)) = self.logs.iter_mut().max_by_key(|(_, turn)| turn.waited) else { break };
            turn.waited -= i128::from(total);
            let block = if blocks.get(log).is_some_and(|blocks| turn.next < *blocks) { turn.next } else { 0 };
            turn.next = block + 1;
            taken.insert((*log, block * BLOCK));
        }
        taken
    }

    /// The newest block of some logs, and of others in the next round.
    fn newest(&mut self, blocks: &BTreeMap<TenantNo, u64>) -> BTreeSet<(TenantNo, u64)> {
        let logs = blocks.iter().filter(|(_, blocks)| **blocks > 0).map(|(log, _)| *log);
        let mut logs = in_turn(logs.collect(), self.newest);
        logs.truncate(NEWEST);
        self.newest = logs.last().copied();
        let newest = |log: TenantNo| Some((log, (blocks.get(&log)? - 1) * BLOCK));
        logs.into_iter().filter_map(newest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(of: &[u64]) -> BTreeMap<TenantNo, u64> {
        (0..).map(TenantNo).zip(of.iter().copied()).collect()
    }

    /// In how many rounds every block was looked at, and the most of one round.
    fn pass(blocks: &BTreeMap<TenantNo, u64>, begin: impl Fn(u64) -> u64 + Copy) -> (u64, usize) {
        let mut left: BTreeSet<(TenantNo, u64)> =
            blocks.iter().flat_map(|(log, blocks)| (0..*blocks).map(|block| (*log, block * BLOCK))).collect();
        let (mut turns, mut rounds, mut most) = (Turns::default(), 0, 0);
        while !left.is_empty() {
            let taken = turns.round(blocks, begin);
            most = most.max(taken.len());
            for block in &taken {
                left.remove(block);
            }
            rounds += 1;
            assert!(rounds < 100_000);
        }
        (rounds, most)
    }

    #[test]
    fn every_block_of_every_log_has_its_turn_within_a_day_and_a_little() {
        for logs in [&[3][..], &[0, 2, 1], &[40_000, 1, 0, 7], &[1; 500], &[100_000, 1, 1, 1]] {
            let logs = blocks(logs);
            let begins: [fn(u64) -> u64; 2] = [|_| 0, |blocks| blocks / 2];
            for begin in begins {
                let (rounds, most) = pass(&logs, begin);
                assert!(rounds <= DAY + 2, "{rounds} rounds");
                assert!(most <= MOST as usize + NEWEST, "{most} in one round");
            }
        }
        // More than rounds have room for takes longer, and no round is larger.
        let (rounds, most) = pass(&blocks(&[600_000, 1]), |_| 0);
        assert!(rounds > DAY && most <= MOST as usize + NEWEST, "{rounds} {most}");
    }

    #[test]
    fn a_long_log_keeps_no_other_waiting() {
        let logs = blocks(&[80_000, 100]);
        let mut turns = Turns::default();
        let seen: BTreeSet<u64> = (0..DAY / 4)
            .flat_map(|_| turns.round(&logs, |_| 0))
            .filter(|(log, _)| *log == TenantNo(1))
            .map(|(_, first)| first / BLOCK)
            .collect();
        assert!((24..=30).contains(&seen.len()), "a quarter of it in a quarter of the day: {}", seen.len());
    }

    #[test]
    fn the_newest_block_of_each_log_is_looked_at_in_each_round_or_soon() {
        let few = blocks(&[50_000, 90]);
        let mut turns = Turns::default();
        for _ in 0..3 {
            let taken = turns.round(&few, |_| 0);
            assert!(taken.contains(&(TenantNo(0), 49_999 * BLOCK)) && taken.contains(&(TenantNo(1), 89 * BLOCK)));
        }
        let many = blocks(&[5_000; 40]);
        let seen: BTreeSet<(TenantNo, u64)> = (0..3).flat_map(|_| turns.round(&many, |_| 0)).collect();
        assert!((0..40).all(|log| seen.contains(&(TenantNo(log), 4_999 * BLOCK))));
    }

    #[test]
    fn a_log_that_is_gone_or_shorter_is_no_ones_turn() {
        let mut turns = Turns::default();
        turns.round(&blocks(&[9, 9]), |_| 8);
        let taken = turns.round(&blocks(&[2]), |_| 0);
        assert!(taken.iter().all(|(log, first)| *log == TenantNo(0) && *first < 2 * BLOCK), "{taken:?}");
        assert!(turns.round(&BTreeMap::new(), |_| 0).is_empty());
    }
}
