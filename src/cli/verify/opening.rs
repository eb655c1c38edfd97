//! Opens what is verified so that its parts are of one moment, also while a vault runs over them.
//!
//! ```text
//! the keystore's number -> head file -> journal -> store, at one moment -> head file again, keystore: still that number?
//! ```
//!
//! The journal is written after the commits that it is of, and the head file after all that it signs, so those that were read in
//! this order are never ahead of the store, nor the head file of the journal. Keys change a few
//! times a year, and each change has a number: a keystore that has the same one before and after the store was opened has the
//! keys of that moment, and is at most half-way through a change, as after a crash. So a vault that runs looks like one
//! that was killed at that moment, and nothing that it is about can be taken for damage: no finding has to be looked at twice.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Flock, FlockType, fcntl_getlk};
use strongroom_keys::{Keystore, RootProvider};
use strongroom_rocksdb::{RocksOptions, RocksReader};
use strongroom_vault::{HeadFile, JournalFile};

use super::super::config::Config;
use super::super::hardening;
use super::super::layout::Layout;
use super::super::output::CliError;
use super::super::root::CredentialArgs;

/// How often it is all done again because the keys have changed meanwhile.
const TRIES: usize = 5;

/// Where the parts are.
pub struct Places {
    pub data: PathBuf,
    pub keystore: PathBuf,
    pub head: PathBuf,
    /// Whether the head file may be missing.
    pub without_head: bool,
    /// The folder of the journal, if that is looked at.
    pub journal: Option<PathBuf>,
}

/// The parts, of one moment.
pub struct Opened {
    pub store: RocksReader,
    pub keystore: Keystore,
    pub head_file: HeadFile,
    pub journal: Option<JournalFile>,
    /// Whether a vault runs over the store.
    pub running: bool,
}

impl Places {
    /// Opens all of them. Nothing is written.
    pub fn open(&self, credential: &CredentialArgs, layout: &Layout, config: &Config) -> Result<Opened, CliError> {
        hardening::hold_many_files();
        let options = RocksOptions { block_cache: config.capacity.block_cache_mib << 20, ..RocksOptions::default() };
        let mut root: Option<Arc<dyn RootProvider>> = None;
        for _ in 0..TRIES {
            let header = Keystore::header_of(&self.keystore).map_err(|error| unfit(&self.keystore, &error))?;
            let mut running = is_running(&self.data);
            let mut head_file = match self.without_head {
                true => HeadFile::read_if_there(&self.head),
                false => HeadFile::read(&self.head),
            };
            let journal = self.journal.clone().map(JournalFile::read);
            let store = RocksReader::open(&self.data, &options).map_err(|error| unfit(&self.data, &error))?;
            head_file.look_again();
            running |= is_running(&self.data);
            // Nobody is asked for a passphrase before there is something to open with it, and nobody twice.
            let root = match &root {
                Some(root) => root,
                None => root.insert(credential.provider_of(&self.keystore, layout, config)?),
            };
            let keystore = Keystore::open(&self.keystore, &**root).map_err(|error| unfit(&self.keystore, &error))?;
            if keystore.number() == header.number {
                return Ok(Opened { store, keystore, head_file, journal, running });
            }
        }
        Err(CliError::Unfit {
            message: format!("the keys in {} change all the time", self.keystore.display()),
            next: "the same command when no key is rotated, rewrapped or destroyed".into(),
        })
    }
}

/// Whether a vault runs over a store: RocksDB then has a lock on the file LOCK. Only for a process that has not opened the
/// store itself: it would lose its lock by this.
fn is_running(data: &Path) -> bool {
    let Ok(file) = File::open(data.join("LOCK")) else { return false };
    fcntl_getlk(&file, &Flock::from(FlockType::WriteLock)).is_ok_and(|lock| lock.is_some())
}

fn unfit(place: &Path, error: &dyn std::error::Error) -> CliError {
    CliError::unfit(format!("{} can't be verified: {error}", place.display()))
}
