//! What a vault has on its disks at one moment, as a process that is killed then leaves it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use strongroom_storage::faulty::Faults;
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::{Family, Mutation, Range, Store};
use tempfile::TempDir;

use super::rig::Bench;

/// Where files are in memory. What a vault syncs there costs nothing; on a disk its syncs are most of what a test takes.
const MEMORY: &str = "/dev/shm";

/// The disks of a vault at one moment, and what its clocks tell then.
pub struct Snapshot {
    files: Vec<(PathBuf, Vec<u8>)>,
    rows: Vec<Mutation>,
    now: u64,
    running: u64,
}

impl Snapshot {
    /// Of a vault that runs and does nothing at the moment, or is closed.
    pub async fn of(bench: &Bench) -> Self {
        let (mut files, mut rows) = (Vec::new(), Vec::new());
        // The store comes last, as it is what is ahead of all others.
        read(bench.folder.path(), Path::new(""), &mut files);
        for family in Family::ALL {
            let all = Range { from: vec![], to: vec![], limit: usize::MAX };
            let all = bench.disk.scan(family, all).await.unwrap();
            rows.extend(all.into_iter().map(|(key, row)| Mutation::Put(family, key.to_vec(), row.to_vec())));
        }
        let told = |clock: &AtomicU64| clock.load(Ordering::Relaxed);
        Self { files, rows, now: told(&bench.now), running: told(&bench.running) }
    }

    /// Disks of their own, in memory if there is room for them, on which nothing runs yet.
    pub async fn bench(&self) -> Bench {
        let folder = tempfile::tempdir_in(MEMORY).or_else(|_| TempDir::new()).unwrap();
        for (path, bytes) in &self.files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let disk = MemoryStore::default();
        disk.write(self.rows.clone()).await.unwrap();
        Bench {
            disk,
            folder,
            faults: Faults::default(),
            now: Arc::new(AtomicU64::new(self.now)),
            running: Arc::new(AtomicU64::new(self.running)),
            step: Arc::new(AtomicU64::new(1)),
            full: Arc::new(AtomicBool::new(false)),
            last: Default::default(),
        }
    }
}

/// All files below a folder. One that goes while it is looked at was about to be renamed.
fn read(folder: &Path, below: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            read(folder, &path, files);
        } else if let Ok(bytes) = fs::read(folder.join(&path)) {
            files.push((path, bytes));
        }
    }
}
