//! Has pieces of the store looked at by several threads, and takes what they make of them in the order of the pieces.
//!
//! ```text
//! one thread reads -> a piece -> one of the threads: all that can be said of it by itself -> in their order: the sum
//! ```
//!
//! What can be said of a page of values by itself (its DEKs unwrap, it opens, its index entries follow and are there) is nearly
//! all of the work and needs no order. What does need one, findings and counts, is taken on the thread that asked, so it is the
//! same for any number of threads. Memory is bounded by pieces and threads: each has one piece that it looks at or that waits
//! to be taken, and one that waits for it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Builder, ScopedJoinHandle};

use strongroom_storage::{Entry, Store, StoreError};
use tokio::runtime::Handle;

use crate::pages::Pages;

/// Entries of a page that a thread looks at. A value has at most 64 KiB, so a page has some 5 MiB at most.
pub(super) const PAGE: usize = 64;

/// Goes through pages. Whatever fails ends it, after what came before was taken.
pub(super) async fn pages<S: Store, T: Send>(
    (store, mut pages, threads): (&S, Pages, usize),
    look: impl AsyncFn(Vec<Entry>) -> Result<T, StoreError> + Sync,
    take: impl FnMut(T),
) -> Result<(), StoreError> {
    pieces(threads, async || pages.next(store).await, look, take).await
}

/// Goes through whatever pieces `next` brings; with one thread, all is done on the caller's.
pub(super) async fn pieces<P: Send, T: Send>(
    threads: usize,
    mut next: impl AsyncFnMut() -> Result<Option<P>, StoreError> + Send,
    look: impl AsyncFn(P) -> Result<T, StoreError> + Sync,
    mut take: impl FnMut(T),
) -> Result<(), StoreError> {
    if threads < 2 {
        while let Some(piece) = next().await? {
            take(look(piece).await?);
        }
        return Ok(());
    }
    let runtime = Handle::current();
    thread::scope(|scope| {
        let mut lookers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (give, given) = sync_channel::<P>(1);
            let (done, looked) = sync_channel::<Result<T, StoreError>>(0);
            let (runtime, look) = (&runtime, &look);
            let work = move || {
                for piece in given {
                    if done.send(runtime.block_on(look(piece))).is_err() {
                        return;
                    }
                }
            };
            // With fewer threads than were asked for it only takes longer.
            match Builder::new().name("verifier".to_owned()).spawn_scoped(scope, work) {
                Ok(_) => lookers.push((give, looked)),
                Err(error) if lookers.is_empty() => return Err(no_thread(&error.to_string())),
                Err(_) => break,
            }
        }
        let (gives, looked): (Vec<SyncSender<P>>, Vec<Receiver<_>>) = lookers.into_iter().unzip();
        let runtime = &runtime;
        let read = move || {
            runtime.block_on(async {
                for give in gives.iter().cycle() {
                    let Some(piece) = next().await? else { break };
                    // Who has ended did so because nothing more is taken.
                    if give.send(piece).is_err() {
                        break;
                    }
                }
                Ok(())
            })
        };
        let reader = Builder::new().name("verifier".to_owned()).spawn_scoped(scope, read);
        let reader: ScopedJoinHandle<'_, Result<(), StoreError>> =
            reader.map_err(|error| no_thread(&error.to_string()))?;
        // Pieces were given in turn, so the first who has none ends it. A thread that panicked is told of by the scope.
        for looked in looked.iter().cycle() {
            match looked.recv() {
                Ok(looked) => take(looked?),
                Err(_) => break,
            }
        }
        reader.join().unwrap_or_else(|_| Err(no_thread("one of its threads has ended")))
    })
}

fn no_thread(what: &str) -> StoreError {
    StoreError::Io { doing: "be verified", what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    fn broken() -> StoreError {
        StoreError::Closed
    }

    /// Squares of the numbers below an end, as they are taken; `bad` can't be looked at, `unread` can't be read.
    async fn squares(threads: usize, end: u32, bad: u32, unread: u32) -> (Vec<u32>, bool, usize) {
        let (mut number, mut taken) = (0, Vec::new());
        let at_work = Mutex::new(BTreeSet::new());
        let next = async || {
            number += 1;
            match number - 1 {
                one if one == unread => Err(broken()),
                one => Ok((one < end).then_some(one)),
            }
        };
        let look = async |number: u32| {
            at_work.lock().unwrap().insert(format!("{:?}", thread::current().id()));
            if number == bad { Err(broken()) } else { Ok(number * number) }
        };
        let done = pieces(threads, next, look, |square| taken.push(square)).await;
        (taken, done.is_ok(), at_work.into_inner().unwrap().len())
    }

    #[tokio::test]
    async fn pieces_are_taken_in_their_order_by_any_number_of_threads() {
        for end in [0, 1, 2, 7, 100] {
            let expected: Vec<u32> = (0..end).map(|number| number * number).collect();
            for threads in 1..=5 {
                let (taken, done, at_work) = squares(threads, end, u32::MAX, u32::MAX).await;
                assert!(done && taken == expected, "{end} by {threads}");
                assert_eq!(at_work, threads.min(end as usize), "each has its turn");
            }
        }
    }

    #[tokio::test]
    async fn what_fails_ends_it_after_what_came_before() {
        for threads in 1..=4 {
            for (bad, unread) in [(5, u32::MAX), (u32::MAX, 5), (5, 6), (6, 5)] {
                let (taken, done, _) = squares(threads, 50, bad, unread).await;
                assert!(!done && taken == [0, 1, 4, 9, 16], "{bad}, {unread} by {threads}: {taken:?}");
            }
        }
    }
}
