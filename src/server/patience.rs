//! The answers of one connection on their way out: when nothing of one is taken for too long, the connection breaks.
//!
//! Looked at every few seconds by one task a connection, so that an answer that is taken at once, as nearly all are,
//! costs neither a task nor a timer of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep};

/// How often the answers of a connection are looked at.
const LOOK: Duration = Duration::from_secs(15);

/// How much of an answer the transport got, and of that what it is done with.
#[derive(Default)]
pub(crate) struct Progress {
    given: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// The transport got a piece.
    pub fn given(&self) {
        self.given.fetch_add(1, Ordering::Release);
    }

    /// The transport is done with a piece.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }
}

/// The answers of a connection that are under way.
pub(crate) struct Answers {
    /// The address that the connection comes from.
    client: Arc<str>,
    list: Mutex<List>,
    /// Told once when the connection is to end.
    broken: Notify,
}

#[derive(Default)]
struct List {
    watched: Vec<Watched>,
    /// Whether the task that looks at them runs.
    looking: bool,
}

struct Watched {
    progress: Weak<Progress>,
    patience: Duration,
    /// How many pieces were done with when that was last seen to change, and when it was; nothing while none is out.
    seen: Option<(u64, Instant)>,
}

impl Answers {
    /// Of a connection from this address.
    pub fn new(client: Arc<str>) -> Arc<Self> {
        Arc::new(Self { client, list: Mutex::default(), broken: Notify::new() })
    }

    /// Breaks the connection once nothing of an answer was taken for `patience`, or a few seconds more.
    pub fn watch(self: &Arc<Self>, progress: &Arc<Progress>, patience: Duration) {
        let mut list = self.list();
        if list.watched.len() == list.watched.capacity() {
            // Before it grows: it stays as long as answers are under way, and twice that at the most.
            list.watched.retain(|watched| watched.progress.strong_count() > 0);
        }
        list.watched.push(Watched { progress: Arc::downgrade(progress), patience, seen: None });
        if !std::mem::replace(&mut list.looking, true) {
            drop(tokio::spawn(look(Arc::downgrade(self))));
        }
    }

    /// Returns when the connection is to end. For one who waits.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Looks once. Answers whether to look again.
    fn look(&self) -> bool {
        let mut list = self.list();
        let mut untaken = None;
        list.watched.retain_mut(|watched| {
            let Some(progress) = watched.progress.upgrade() else { return false };
            let (done, now) = (progress.done.load(Ordering::Acquire), Instant::now());
            if progress.given.load(Ordering::Acquire) == done {
                watched.seen = None;
                return true;
            }
            let (before, since) = *watched.seen.get_or_insert((done, now));
            if before != done {
                watched.seen = Some((done, now));
            } else if now - since >= watched.patience {
                untaken = Some(watched.patience);
            }
            true
        });
        if let Some(patience) = untaken {
            let seconds = patience.as_secs();
            tracing::warn!(client = &*self.client, seconds, "connection broken: an answer is not taken");
            self.broken.notify_one();
        }
        list.looking = untaken.is_none() && !list.watched.is_empty();
        list.looking
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // A panic elsewhere leaves the list as it was between two answers.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the answers of a connection until none is under way, or the connection is gone.
async fn look(answers: Weak<Answers>) {
    loop {
        sleep(LOOK).await;
        match answers.upgrade() {
            Some(answers) if answers.look() => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_gone_are_forgotten_and_no_task_stays() {
        let answers = Answers::new("127.0.0.1:5".into());
        for _ in 0..1_000 {
            answers.watch(&Arc::default(), LOOK);
        }
        assert!(answers.list().watched.capacity() < 100);
        sleep(2 * LOOK).await;
        assert!(!answers.list().looking);
        assert!(answers.list().watched.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_untaken_answer_is_found_among_many_that_are_taken() {
        let answers = Answers::new("127.0.0.1:5".into());
        let quick: Vec<Arc<Progress>> = (0..100).map(|_| Arc::default()).collect();
        let stuck = Arc::default();
        for progress in quick.iter().chain([&stuck]) {
            progress.given();
            answers.watch(progress, LOOK);
        }
        for progress in &quick {
            progress.done();
        }
        assert!(timeout(LOOK / 2, answers.broken()).await.is_err());
        assert!(timeout(4 * LOOK, answers.broken()).await.is_ok());
    }
}
