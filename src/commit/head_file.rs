//! The head file: how far every log had come, signed, outside the store, so that a store that lost its end is noticed.
//!
//! No recovery mode of a write-ahead log tells a torn tail from a lost one. So the committer notes in a file of its
//! own what it made durable: after the answers have left, at most once a second, and when it stops.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use strongroom_ids::VaultId;
use strongroom_ledger::head::{self, Head, LaneState};

use crate::committer::{Shared, StartError};
use crate::group::Lanes;

/// Two writings of the file lie at least so far apart.
const EVERY: Duration = Duration::from_secs(1);

/// Signs with the `system` log's Ed25519 key.
pub type SignHead = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// Where the head file stands, and what signs it.
pub struct HeadFile {
    path: PathBuf,
    vault: VaultId,
    public: [u8; 32],
    sign: SignHead,
    every: Duration,
}

impl HeadFile {
    /// A head file at `path`. `public` is the Ed25519 key (RFC 8032) that `sign` signs for.
    pub fn new(path: impl Into<PathBuf>, vault: VaultId, public: [u8; 32], sign: SignHead) -> Self {
        Self { path: path.into(), vault, public, sign, every: EVERY }
    }

    /// Writes the file once, so that a vault is never without, and starts the thread that keeps it.
    pub(crate) fn keep(self, shared: Arc<Shared>) -> Result<HeadKeeper, StartError> {
        self.write(&shared.lanes().clone()).map_err(|source| StartError::Head { path: self.path.clone(), source })?;
        let signal = Arc::new(Signal::default());
        let seen = Arc::clone(&signal);
        let thread = thread::Builder::new().name("head-file".to_owned()).spawn(move || self.run(&shared, &seen))?;
        Ok(HeadKeeper { signal, thread })
    }

    fn run(&self, shared: &Shared, signal: &Signal) {
        let mut written = Instant::now();
        let mut failing = false;
        loop {
            let stopping = signal.wait(written, self.every);
            let lanes = shared.lanes().clone();
            let result = self.write(&lanes);
            written = Instant::now();
            if let Err(error) = &result {
                if !failing {
                    tracing::error!(%error, path = %self.path.display(), "the head file cannot be written");
                }
                signal.raise(|state| state.changed = true);
            }
            failing = result.is_err();
            if stopping {
                return;
            }
        }
    }

    /// Replaces the file: whoever opens it finds the old one or the new one, whole.
    pub(crate) fn write(&self, lanes: &Lanes) -> io::Result<()> {
        let bytes = head::sign(&state(lanes), self.vault, &self.public, |message| (self.sign)(message))
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
fn state(lanes: &Lanes) -> Head {
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
    Head { number, lanes }
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

    /// Writes the file a last time and ends the thread.
    pub fn stop(self) {
        self.signal.raise(|state| state.stop = true);
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps the head file has failed");
        }
    }
}

#[derive(Default)]
struct Signal {
    state: Mutex<SignalState>,
    raised: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct SignalState {
    changed: bool,
    stop: bool,
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

    /// Waits until there is something to write and it is time; returns whether it is the last time.
    fn wait(&self, written: Instant, every: Duration) -> bool {
        let mut state = self.lock();
        loop {
            let left = every.saturating_sub(written.elapsed());
            if state.stop || (state.changed && left.is_zero()) {
                state.changed = false;
                return state.stop;
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
