//! The committer as requests see it: a handle on the one thread that writes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strongroom_ids::TenantNo;
use strongroom_ledger::Timestamp;
use strongroom_ledger::journal::JournalEnd;
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Mutation, Store, StoreError};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::change::{Change, CommitError, Committed, Guard, Position};
use crate::delivery::Reply;
use crate::fact::Fact;
use crate::group::Lanes;
use crate::head_file::{HeadFile, HeadKeeper, HeadRenewal};
use crate::journal::Journal;
use crate::lane::{Lane, LaneView};
use crate::meter::{Meters, Use};
use crate::worker::Worker;

/// When a request that found the queue full should try again: a full queue empties in a few writes.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Bytes of all waiting changes beyond which no more are taken.
const QUEUED_BYTES: usize = 256 << 20;

/// What a change weighs beside its mutations and leaves.
const CHANGE_BYTES: usize = 256;

/// The commit service, one a vault. Clones share it.
#[derive(Clone)]
pub struct Committer {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    head: HeadRenewal,
    /// Closed when the thread has ended.
    done: watch::Receiver<()>,
}

/// What the committer starts from.
pub struct Start {
    /// Every tenant's log and where it ends in the store.
    pub lanes: Vec<(TenantNo, LaneHead)>,
    /// The head file to keep, if any. [`HeadFile::check`] it first.
    pub head: Option<HeadFile>,
    /// The journal to keep, if any, brought to where the store is: [`Journal::follow`].
    pub journal: Option<Journal>,
    /// Microseconds since 1970. The committer's own time never goes backwards, whatever this says.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How many changes may wait.
    pub queue: usize,
    /// How many facts the conflict table remembers.
    pub table: usize,
    /// What principals were told today: [`Meters::load`], of the same logs.
    pub meters: Meters,
}

/// Why the committer could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The stored head of a log does not fit together.
    #[error("the log of tenant {tenant} cannot be continued: {source}")]
    Lane {
        /// Whose log.
        tenant: TenantNo,
        /// What is wrong with its head.
        source: StoreError,
    },
    /// The head file cannot be kept.
    #[error("the head file {path} cannot be written: {source}; see that its folder exists and is writable")]
    Head {
        /// Where it should stand.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The operating system gave no thread.
    #[error("the committer's thread cannot start: {0}; see that the process may make threads")]
    Thread(#[from] std::io::Error),
}

/// Whether changes are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CommitterState {
    /// Changes are taken.
    Serving = 0,
    /// A write failed and the store is being opened again.
    Recovering = 1,
    /// The committer was shut down.
    Stopped = 2,
}

/// What the thread is asked to do.
pub(crate) enum Job {
    Commit {
        change: Change,
        bytes: usize,
        reply: Reply,
    },
    /// The same of a change with the first leaves of a log.
    BeginLog {
        tenant: TenantNo,
        head: LaneHead,
        change: Change,
        bytes: usize,
        reply: Reply,
    },
    Shutdown,
}

/// What the thread publishes and requests read.
pub(crate) struct Shared {
    position: AtomicU64,
    /// The latest time that a durable leaf bears.
    time: AtomicU64,
    state: AtomicU8,
    queued: AtomicUsize,
    /// Durable lanes only.
    lanes: Mutex<Lanes>,
    /// How far the journal has come: at the least as far as the lanes need it.
    journal: Mutex<Option<JournalEnd>>,
}

impl Shared {
    /// The lanes as they are on stable storage.
    pub fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // A panic elsewhere leaves every lane whole: they are replaced one by one.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the journal has come; `None` if none is kept. Who also wants the lanes takes them first.
    pub fn journal(&self) -> Option<JournalEnd> {
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_journal(&self, end: JournalEnd) {
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    pub fn publish(&self, position: Position, time: u64) {
        self.time.store(time, Ordering::Release);
        self.position.store(position.0, Ordering::Release);
    }

    pub fn set_state(&self, state: CommitterState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// A change has left the queue.
    pub fn taken(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn state(&self) -> CommitterState {
        match self.state.load(Ordering::Acquire) {
            0 => CommitterState::Serving,
            1 => CommitterState::Recovering,
            _ => CommitterState::Stopped,
        }
    }
}

impl Committer {
    /// Starts the committer on a thread of its own, over a store that nobody else writes.
    pub fn start<S: Store>(store: Arc<S>, start: Start) -> Result<Self, StartError> {
        let mut lanes = Lanes::new();
        for (tenant, head) in &start.lanes {
            let lane = Lane::open(head).map_err(|source| StartError::Lane { tenant: *tenant, source })?;
            lanes.insert(*tenant, lane);
        }
        let shared = Arc::new(Shared {
            position: AtomicU64::new(0),
            time: AtomicU64::new(lanes.values().map(|lane| lane.time).max().unwrap_or(0)),
            state: AtomicU8::new(CommitterState::Serving as u8),
            queued: AtomicUsize::new(0),
            lanes: Mutex::new(lanes.clone()),
            journal: Mutex::new(start.journal.as_ref().map(Journal::end)),
        });
        let (jobs, queue) = mpsc::channel(start.queue.max(1));
        let heads = start.head.map(|head| head.keep(Arc::clone(&shared))).transpose()?;
        let head = heads.as_ref().map_or_else(HeadRenewal::none, HeadKeeper::renewal);
        let (ended, done) = watch::channel(());
        let settings = (lanes, start.clock, start.table, start.meters);
        Worker::new(store, queue, Arc::clone(&shared), settings, (heads, start.journal)).spawn(ended)?;
        Ok(Self { jobs, shared, head, done })
    }

    /// The point of history that reads from now on stand on. Call it before the first read.
    pub fn position(&self) -> Position {
        Position(self.shared.position.load(Ordering::Acquire))
    }

    /// The latest time that a leaf bears: no later leaf bears an earlier one, whatever the clock says. Whoever decides by
    /// time must not stand before it, or what it decides can never be committed.
    pub fn time(&self) -> Timestamp {
        Timestamp(self.shared.time.load(Ordering::Acquire))
    }

    /// Stores a change, if every guard holds, and returns when it is on stable storage. A caller that stops waiting
    /// does not stop the change.
    pub async fn commit(&self, change: Change) -> Result<Committed, CommitError> {
        self.send(change, |change, bytes, reply| Job::Commit { change, bytes, reply }).await
    }

    /// The same of the change that begins the log of a tenant made since the start: its leaves are the log's first, and
    /// the log is there with them or not at all. A log that is open already is continued.
    pub async fn begin_log(&self, tenant: TenantNo, head: LaneHead, change: Change) -> Result<Committed, CommitError> {
        self.send(change, |change, bytes, reply| Job::BeginLog { tenant, head, change, bytes, reply }).await
    }

    async fn send(
        &self,
        change: Change,
        job: impl FnOnce(Change, usize, Reply) -> Job,
    ) -> Result<Committed, CommitError> {
        if self.shared.state() != CommitterState::Serving {
            return Err(CommitError::Closed);
        }
        let bytes = weight(&change);
        let queued = self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        // A change that is alone is taken whatever its weight: the edge bounds that.
        if queued > 0 && queued.saturating_add(bytes) > QUEUED_BYTES {
            self.shared.taken(bytes);
            return Err(CommitError::Overloaded { retry_after: RETRY_AFTER });
        }
        let (reply, answer) = Reply::new();
        self.jobs.try_send(job(change, bytes, reply)).map_err(|refused| {
            self.shared.taken(bytes);
            refusal(&refused)
        })?;
        // No answer means that the thread is gone, maybe after it wrote.
        answer.await.unwrap_or(Err(CommitError::Unknown))
    }

    /// The durable end of a tenant's log.
    pub fn head(&self, tenant: TenantNo) -> Option<LaneView> {
        let lane = self.shared.lanes().get(&tenant).cloned();
        // The root is hashed outside the lock, so that nobody waits for it.
        lane.map(|lane| lane.view())
    }

    /// How many leaves all logs have together: whoever sees it grow, and appends none, has company.
    pub fn leaves(&self) -> u64 {
        self.shared.lanes().values().map(|lane| lane.frontier.size()).sum()
    }

    /// How far the journal has come; `None` if none is kept.
    pub fn journal(&self) -> Option<JournalEnd> {
        self.shared.journal()
    }

    /// What has the head file written at once, by the key that is the newest then.
    pub fn head_renewal(&self) -> HeadRenewal {
        self.head.clone()
    }

    /// Whether changes are taken.
    pub fn state(&self) -> CommitterState {
        if self.jobs.is_closed() { CommitterState::Stopped } else { self.shared.state() }
    }

    /// Takes no more changes, stores those that wait, writes the head file and stops the thread.
    pub async fn shutdown(&self) {
        // Refused if somebody else asked first; the end is the same.
        let _ = self.jobs.send(Job::Shutdown).await;
        let mut done = self.done.clone();
        while done.changed().await.is_ok() {}
    }
}

fn refusal(refused: &mpsc::error::TrySendError<Job>) -> CommitError {
    match refused {
        mpsc::error::TrySendError::Full(_) => CommitError::Overloaded { retry_after: RETRY_AFTER },
        mpsc::error::TrySendError::Closed(_) => CommitError::Closed,
    }
}

/// The memory that a waiting change holds, roughly.
fn weight(change: &Change) -> usize {
    let mutations: usize = change
        .mutations
        .iter()
        .map(|mutation| match mutation {
            Mutation::Put(_, key, value) => key.len() + value.len(),
            Mutation::Delete(_, key) => key.len(),
        })
        .sum();
    let facts = change.guards.len() * size_of::<Guard>() + change.changes.len() * size_of::<Fact>();
    let leaves: usize = change.leaves.iter().map(|(_, leaf)| leaf.max_len()).sum();
    let charge = change.charge.as_ref().map_or(0, |charge| charge.uses.len() * size_of::<Use>());
    CHANGE_BYTES + mutations + facts + leaves + charge
}
