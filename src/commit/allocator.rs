//! Numbers that are never given out twice: row ids, subject handles, uses of a KEK.
//!
//! A block of numbers is reserved durably before the first of it is used. After a restart the allocator goes on at
//! the stored mark, so what was reserved and not used is a gap.

use std::ops::Range;

use strongroom_ids::COUNTER_BITS;
use strongroom_storage::rows::CounterRow;
use strongroom_storage::{Family, Mutation, Store, StoreError};
use thiserror::Error;
use tokio::sync::Mutex;

use crate::change::{Change, CommitError};
use crate::committer::Committer;

/// The first number that is ever given out: zero means "none" everywhere.
const FIRST: u64 = 1;

/// Why no numbers could be had.
#[derive(Debug, Error)]
pub enum AllocateError {
    /// The reservation was not stored, or is not known to be.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The stored mark could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The counter has reached its end.
    #[error("the counter has reached its limit of {limit}: ids of a new incarnation or a new key version are needed")]
    Exhausted {
        /// The first number that is never given out.
        limit: u64,
    },
}

/// One counter, for all that take from it: there must be one allocator a counter, and one process a store.
pub struct Allocator {
    key: Vec<u8>,
    incarnation: u64,
    block: u64,
    limit: u64,
    state: Mutex<Option<Reserved>>,
}

/// What may be given out, and what was asked for.
struct Reserved {
    free: Range<u64>,
    /// No number from here on was ever part of a reservation, stored or not.
    mark: u64,
}

/// Numbers that nobody else has or gets.
#[derive(Debug)]
pub struct Numbers {
    first: Range<u64>,
    then: Range<u64>,
    incarnation: u64,
}

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let counter = self.first.next().or_else(|| self.then.next())?;
        Some(self.incarnation | counter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Never more than were asked for, and that was a `usize`.
        let left = (self.first.end - self.first.start) + (self.then.end - self.then.start);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Numbers {}

impl Allocator {
    /// A counter whose mark is stored under `key` in `Meta`.
    ///
    /// `incarnation` stands in the top 16 bits of every number ([`COUNTER_BITS`] below it), or nowhere. `block` numbers
    /// are reserved at a time. Counts stay below `limit`, which with an incarnation is at most 2^48.
    pub fn new(key: Vec<u8>, incarnation: Option<u16>, block: u64, limit: u64) -> Self {
        let (incarnation, limit) = match incarnation {
            Some(number) => (u64::from(number) << COUNTER_BITS, limit.min(1 << COUNTER_BITS)),
            None => (0, limit),
        };
        Self { key, incarnation, block: block.max(1), limit, state: Mutex::new(None) }
    }

    /// Gives out `count` numbers, in ascending order. Reserves more through the committer first when the block is
    /// used up; who comes meanwhile waits for that one reservation.
    pub async fn take<S: Store>(
        &self,
        committer: &Committer,
        store: &S,
        count: usize,
    ) -> Result<Numbers, AllocateError> {
        let exhausted = || AllocateError::Exhausted { limit: self.limit };
        let count = u64::try_from(count).map_err(|_| exhausted())?;
        let mut state = self.state.lock().await;
        let reserved = match &mut *state {
            Some(reserved) => reserved,
            empty => empty.insert(self.load(store).await?),
        };
        let Range { start, end } = reserved.free;
        let missing = count.saturating_sub(end - start);
        let split = start + (count - missing);
        if missing == 0 {
            reserved.free = split..end;
            return Ok(self.numbers(start..split, 0..0));
        }

        let from = reserved.mark;
        let needed = from.checked_add(missing).filter(|end| *end <= self.limit).ok_or_else(exhausted)?;
        let to = needed.max(from.saturating_add(self.block).min(self.limit));
        // Moved before the commit: its outcome may stay unknown, or this call may be dropped while it waits. Then the
        // block is a gap.
        reserved.mark = to;
        if let Err(error) = committer.commit(self.reservation(committer, to)).await {
            if matches!(error, CommitError::Overloaded { .. } | CommitError::Closed) {
                // Surely not stored: a flood of refusals must not use up a bounded counter.
                reserved.mark = from;
            }
            return Err(error.into());
        }
        reserved.free = needed..to;
        Ok(self.numbers(start..end, from..needed))
    }

    async fn load<S: Store>(&self, store: &S) -> Result<Reserved, AllocateError> {
        let mark = match store.get(Family::Meta, self.key.clone()).await? {
            Some(bytes) => CounterRow::decode(&bytes)?.next.max(FIRST),
            None => FIRST,
        };
        Ok(Reserved { free: mark..mark, mark })
    }

    /// Needs no guard: this allocator alone writes the mark, one reservation after the other.
    fn reservation(&self, committer: &Committer, mark: u64) -> Change {
        let row = CounterRow { next: mark }.encode();
        Change {
            position: committer.position(),
            guards: vec![],
            changes: vec![],
            mutations: vec![Mutation::Put(Family::Meta, self.key.clone(), row)],
            leaves: vec![],
            charge: None,
        }
    }

    fn numbers(&self, first: Range<u64>, then: Range<u64>) -> Numbers {
        Numbers { first, then, incarnation: self.incarnation }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use strongroom_storage::faulty::Fate;
    use strongroom_storage::keys::{self, Counter};
    use strongroom_storage::memory::MemoryStore;

    use super::*;
    use crate::testing::{Disk, Rig, TENANT};

    fn allocator(incarnation: Option<u16>, block: u64, limit: u64) -> Allocator {
        Allocator::new(keys::counter(TENANT, Counter::RowIds), incarnation, block, limit)
    }

    async fn take(allocator: &Allocator, rig: &Rig, count: usize) -> Result<Vec<u64>, AllocateError> {
        let numbers = allocator.take(&rig.committer, &*rig.disk, count).await?;
        assert_eq!(numbers.len(), count);
        Ok(numbers.collect())
    }

    #[tokio::test]
    async fn numbers_begin_at_one_below_their_incarnation() {
        let rig = Rig::new().await;
        let ids = allocator(Some(3), 10, u64::MAX);
        assert_eq!(take(&ids, &rig, 2).await.unwrap(), [3 << 48 | 1, 3 << 48 | 2]);
        assert_eq!(take(&ids, &rig, 0).await.unwrap(), [0u64; 0]);
        assert_eq!(take(&ids, &rig, 1).await.unwrap(), [3 << 48 | 3]);
    }

    #[tokio::test]
    async fn a_request_for_more_than_a_block_gets_all_of_it() {
        let rig = Rig::new().await;
        let ids = allocator(None, 4, u64::MAX);
        assert_eq!(take(&ids, &rig, 3).await.unwrap(), [1, 2, 3]);
        assert_eq!(take(&ids, &rig, 10).await.unwrap(), (4..14).collect::<Vec<u64>>());
        assert_eq!(take(&ids, &rig, 1).await.unwrap(), [14]);
        assert_eq!(rig.disk.writes(), 3);
    }

    #[tokio::test]
    async fn a_restart_goes_on_behind_what_was_reserved() {
        let rig = Rig::new().await;
        assert_eq!(take(&allocator(None, 100, u64::MAX), &rig, 3).await.unwrap(), [1, 2, 3]);
        assert_eq!(take(&allocator(None, 100, u64::MAX), &rig, 1).await.unwrap(), [101]);
    }

    #[tokio::test]
    async fn a_counter_ends_at_its_limit_and_a_smaller_request_still_fits() {
        let rig = Rig::new().await;
        let ids = allocator(None, 6, 11);
        assert_eq!(take(&ids, &rig, 8).await.unwrap().last(), Some(&8));
        assert!(matches!(take(&ids, &rig, 3).await, Err(AllocateError::Exhausted { limit: 11 })));
        assert_eq!(take(&ids, &rig, 2).await.unwrap(), [9, 10]);
        assert!(matches!(take(&ids, &rig, usize::MAX).await, Err(AllocateError::Exhausted { .. })));
        let stamped = allocator(Some(1), 1 << 50, u64::MAX);
        assert!(matches!(take(&stamped, &rig, 1 << 48).await, Err(AllocateError::Exhausted { .. })));
    }

    #[tokio::test]
    async fn requests_that_are_surely_not_stored_use_nothing_up() {
        let rig = Rig::new().await;
        let ids = allocator(None, 10, u64::MAX);
        rig.disk.faults.fail_write(Fate::Lost);
        rig.disk.faults.fail_reopens(1);
        assert!(matches!(take(&ids, &rig, 1).await, Err(AllocateError::Commit(CommitError::Unknown))));
        assert!(matches!(take(&ids, &rig, 1).await, Err(AllocateError::Commit(CommitError::Closed))));
        let numbers = loop {
            match take(&ids, &rig, 1).await {
                Ok(numbers) => break numbers,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        // One block is a gap: that of the reservation whose outcome was unknown.
        assert_eq!(numbers, [11]);
    }

    #[tokio::test]
    async fn who_comes_at_once_gets_numbers_of_its_own_from_one_reservation() {
        let rig = Arc::new(Rig::new().await);
        let ids = Arc::new(allocator(None, 1_000, u64::MAX));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (rig, ids) = (Arc::clone(&rig), Arc::clone(&ids));
                tokio::spawn(async move { take(&ids, &rig, 10).await.unwrap() })
            })
            .collect();
        let mut all = HashSet::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        assert_eq!((all.len(), rig.disk.writes()), (500, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each list is one life of the process; its disk fails at random, and nothing but the disk outlives it.
        #[test]
        fn no_number_is_given_out_twice_whatever_fails(
            lives in vec(vec(0..30usize, 0..20), 1..5), seed in any::<u64>(), block in 1..20u64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let memory = MemoryStore::default();
                let mut all = HashSet::new();
                for (life, takes) in (0..).zip(lives) {
                    let rig = Rig::over(Disk::of(memory.clone())).await;
                    rig.disk.faults.by_chance(seed.wrapping_add(life), 10, 3);
                    let ids = allocator(Some(1), block, u64::MAX);
                    for count in takes {
                        // A caller that leaves in the middle, and another that stays.
                        let abandoned = ids.take(&rig.committer, &*rig.disk, count);
                        tokio::select! { biased; _ = abandoned => {}, () = std::future::ready(()) => {} }
                        for number in take(&ids, &rig, count).await.unwrap_or_default() {
                            prop_assert!(all.insert(number), "{} was given out twice", number);
                        }
                    }
                    rig.committer.shutdown().await;
                }
                Ok(())
            })?;
        }
    }
}
