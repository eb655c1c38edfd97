//! The head file: how far every log had come, signed, outside the store, so that a store that lost its end is noticed.
//!
//! No recovery mode of a write-ahead log tells a torn tail from a lost one. So the committer notes in a file of its
//! own what it made durable: after the answers have left, at most once a second, and when it stops. The file also says
//! whether it has stopped: it is written as open before the first commit, and as closed after the last one, when nothing
//! more may come. A log that is longer than a closed file says was written to by somebody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use strongroom_ids::VaultId;
use strongroom_ledger::head::{self, Head, LaneState};
use strongroom_ledger::journal::JournalEnd;

use crate::committer::{Shared, StartError};
use crate::group::Lanes;

/// Two writings of the file lie at least so far apart.
const EVERY: Duration = Duration::from_secs(1);

/// Signs with a version of the `system` log's Ed25519 key.
pub type SignHead = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// A version of the key of the log `system`.
pub struct HeadKey {
    /// Its public half (RFC 8032).
    pub public: [u8; 32],
    /// Signs with it.
    pub sign: SignHead,
}

/// Gives the newest version, which changes when the key is rotated; none if none can be used.
pub type NewestKey = Arc<dyn Fn() -> Option<HeadKey> + Send + Sync>;

/// Where the head file stands, and what signs it.
pub struct HeadFile {
    path: PathBuf,
    vault: VaultId,
    key: NewestKey,
    every: Duration,
}

impl HeadFile {
    /// A head file at `path`, signed by the key that is the newest each time that it is written.
    pub fn new(path: impl Into<PathBuf>, vault: VaultId, key: NewestKey) -> Self {
        Self { path: path.into(), vault, key, every: EVERY }
    }

    /// Writes the file once, as open, and starts the thread that keeps it. When this returns the file is durable: no commit
    /// may come before, or a crash after it would leave a closed file and a log that is longer.
    pub(crate) fn keep(self, shared: Arc<Shared>) -> Result<HeadKeeper, StartError> {
        let lanes = shared.lanes().clone();
        self.write(&lanes, shared.journal(), false)
            .map_err(|source| StartError::Head { path: self.path.clone(), source })?;
        let signal = Arc::new(Signal::default());
        let seen = Arc::clone(&signal);
        let run = move || {
            let _over = Over(&seen);
            self.run(&shared, &seen);
        };
        let thread = thread::Builder::new().name("head-file".to_owned()).spawn(run)?;
        Ok(HeadKeeper { signal, thread })
    }

    fn run(&self, shared: &Shared, signal: &Signal) {
        let mut written = Instant::now();
        let mut failing = false;
        loop {
            let (stopping, asked) = signal.wait(written, self.every);
            let lanes = shared.lanes().clone();
            // After the lanes: what these need stands in the journal by then.
            let result = self.write(&lanes, shared.journal(), stopping == Some(End::InOrder));
            written = Instant::now();
            if let Err(error) = &result {
                if !failing {
                    tracing::error!(%error, path = %self.path.display(), "the head file cannot be written");
                }
                signal.raise(|state| state.changed = true);
            }
            failing = result.is_err();
            signal.answer(asked, result.is_ok());
            if stopping.is_some() {
                return;
            }
        }
    }

    /// Replaces the file: whoever opens it finds the old one or the new one, whole.
    pub(crate) fn write(&self, lanes: &Lanes, journal: Option<JournalEnd>, closed: bool) -> io::Result<()> {
        let key = (self.key)().ok_or_else(|| io::Error::other("no key of the log `system` can be used"))?;
        let bytes = head::sign(&state(lanes, journal, closed), self.vault, &key.public, |message| (key.sign)(message))
            .map_err(io::Error::other)?;
        let new = self.path.with_added_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // The name is durable only once the folder is.
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// The signed content. Its number grows with every commit that the ledger saw: all leaves of all logs.
fn state(lanes: &Lanes, journal: Option<JournalEnd>, closed: bool) -> Head {
    let incarnation = lanes.values().map(|lane| lane.incarnation).max().unwrap_or(1);
    let number = lanes.values().fold(0, |sum: u64, lane| sum.saturating_add(lane.frontier.size()));
    let lanes = lanes
        .iter()
        .map(|(tenant, lane)| LaneState {
            tenant: *tenant,
            size: lane.frontier.size(),
            root: lane.frontier.root(),
            frontier: lane.frontier.to_bytes(),
            rules: lane.rules,
        })
        .collect();
    Head { number, closed, incarnation, journal, lanes }
}

/// How a committer stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The durable lanes are all that the store has.
    InOrder,
    /// A write failed and nobody knows whether the store has it.
    InDoubt,
}

/// The committer's end of the thread that keeps the file.
pub(crate) struct HeadKeeper {
    signal: Arc<Signal>,
    thread: JoinHandle<()>,
}

impl HeadKeeper {
    /// There is something new. Never waits.
    pub fn changed(&self) {
        self.signal.raise(|state| state.changed = true);
    }

    /// What others ask with that the file be written now.
    pub fn renewal(&self) -> HeadRenewal {
        HeadRenewal(Some(Arc::clone(&self.signal)))
    }

    /// Writes the file a last time and ends the thread. Nothing is committed any more.
    pub fn stop(self, end: End) {
        self.signal.raise(|state| state.end = Some(end));
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps the head file has failed");
        }
    }
}

/// Has the head file written at once: with the key that is the newest now, so that those before it may go.
#[derive(Clone, Default)]
pub struct HeadRenewal(Option<Arc<Signal>>);

impl HeadRenewal {
    /// For a committer that keeps no head file.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Waits until it is written, durably; `false` if it can't be. Call it where waiting is allowed.
    #[must_use]
    pub fn wait(&self) -> bool {
        self.0.as_ref().is_none_or(|signal| signal.ask())
    }
}

/// Whoever waits for a thread that has ended waits no longer.
struct Over<'s>(&'s Signal);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.answered.notify_all();
    }
}

#[derive(Default)]
struct Signal {
    state: Mutex<SignalState>,
    raised: Condvar,
    answered: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct SignalState {
    changed: bool,
    /// Whether it is to stop, and how.
    end: Option<End>,
    /// How often somebody asked that the file be written at once.
    asked: u64,
    /// How many of these were answered by an attempt, and by the file.
    tried: u64,
    done: u64,
    /// Whether the thread has ended.
    over: bool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, SignalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self, change: impl FnOnce(&mut SignalState)) {
        let mut state = self.lock();
        let before = *state;
        change(&mut state);
        // Waking a thread that knows already would cost every group of commits two switches.
        if *state != before {
            self.raised.notify_one();
        }
    }

    /// Asks that the file be written, and waits for that.
    fn ask(&self) -> bool {
        let mut state = self.lock();
        state.asked = state.asked.saturating_add(1);
        let mine = state.asked;
        self.raised.notify_one();
        while state.tried < mine && !state.over {
            state = self.answered.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.done >= mine
    }

    /// Answers those that had asked before the file was written.
    fn answer(&self, asked: u64, written: bool) {
        let mut state = self.lock();
        state.tried = asked;
        if written {
            state.done = asked;
        }
        self.answered.notify_all();
    }

    /// Waits until there is something to write and it is time, or somebody asks; returns how it ends if it is the last time,
    /// and who has asked.
    fn wait(&self, written: Instant, every: Duration) -> (Option<End>, u64) {
        let mut state = self.lock();
        loop {
            let left = every.saturating_sub(written.elapsed());
            if state.end.is_some() || state.asked > state.tried || (state.changed && left.is_zero()) {
                state.changed = false;
                return (state.end, state.asked);
            }
            state = if state.changed {
                self.raised.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.raised.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::head;
    use strongroom_storage::faulty::Fate;
    use strongroom_storage::memory::MemoryStore;

    use super::*;
    use crate::testing::{self, Rig, TENANT, VAULT};

    #[tokio::test]
    async fn a_commit_reaches_the_head_file_without_a_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let mut file = testing::head_file(&path);
        file.every = Duration::from_millis(1);
        let rig = Rig::with_head(Default::default(), file).await;
        rig.append(TENANT, "one").await.unwrap();
        let size = || head::open(&fs::read(&path).unwrap(), VAULT, &testing::public_key()).unwrap().lanes[0].size;
        while size() != 1 {
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn the_head_file_says_that_the_vault_runs_before_the_first_commit_and_that_it_was_stopped_after_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let head = || head::open(&fs::read(&path).unwrap(), VAULT, &testing::public_key()).unwrap();
        let store = MemoryStore::default();
        for size in 1..3 {
            let rig = Rig::with_head(store.clone(), testing::head_file(&path)).await;
            assert!(!head().closed, "a start opens the file");
            rig.append(TENANT, "one").await.unwrap();
            assert!(!head().closed);
            rig.committer.shutdown().await;
            assert_eq!((head().closed, head().lanes[0].size), (true, size));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_asked_for_is_written_at_once_by_the_key_that_is_the_newest_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let newest = Arc::new(Mutex::new(9));
        let key = Arc::clone(&newest);
        let key: NewestKey = Arc::new(move || Some(testing::head_key(*key.lock().unwrap())));
        let file = HeadFile { every: Duration::from_secs(3_600), ..HeadFile::new(&path, VAULT, key) };
        let rig = Rig::with_head(MemoryStore::default(), file).await;
        let by = |seed| head::open(&fs::read(&path).unwrap(), VAULT, &testing::head_key(seed).public).is_ok();
        assert!(by(9) && !by(10));
        *newest.lock().unwrap() = 10;
        let renewal = rig.committer.head_renewal();
        assert!(renewal.wait() && by(10) && !by(9));
        // It can't be written: whoever waits is told, and told again when it can.
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(!renewal.wait());
        fs::create_dir(folder.path()).unwrap();
        assert!(renewal.wait() && by(10));
        rig.committer.shutdown().await;
        assert!(!renewal.wait(), "nobody writes it any more");
    }

    #[tokio::test]
    async fn a_vault_that_stops_before_it_knows_what_it_wrote_was_not_stopped_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let rig = Rig::with_head(MemoryStore::default(), testing::head_file(&path)).await;
        rig.append(TENANT, "one").await.unwrap();
        rig.disk.faults.fail_reopens(u32::MAX);
        rig.disk.faults.fail_write(Fate::StoredAfterReopen);
        assert!(rig.append(TENANT, "two").await.is_err());
        rig.committer.shutdown().await;
        assert!(!head::open(&fs::read(&path).unwrap(), VAULT, &testing::public_key()).unwrap().closed);
    }

    #[tokio::test]
    async fn the_head_file_stands_before_the_first_commit_and_is_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let _rig = Rig::with_head(Default::default(), testing::head_file(&path)).await;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_head_file_that_cannot_be_written_is_an_error_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = testing::head_file(&folder.path().join("nowhere").join("head"));
        let error = testing::start(Arc::new(testing::Disk::default()), Some(file), testing::clock_at(1)).await.err();
        assert!(matches!(error, Some(StartError::Head { .. })), "{error:?}");
    }
}
