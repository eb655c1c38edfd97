//! The data folder: made once, by `create`, and never by anything else.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rocksdb::{DB, ErrorKind, Options};
use strongroom_storage::{Family, StoreError};

const PLACE: &str = "the data folder";

/// Makes an empty folder that only its owner may enter. Anything in it already is refused: RocksDB would take a folder
/// that has lost its CURRENT file for a new one and delete what it holds.
pub(crate) fn make(dir: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| io_error("create its folder", dir, &error);
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(StoreError::Io {
                    doing: "create its folder",
                    what: format!("{} is not empty; a new store needs an empty folder or none", dir.display()),
                });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    // The folder's own entry must outlive a crash too.
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

/// Refuses a folder that is missing, empty or without one of its families. Answers which are missing that earlier versions
/// did not have.
pub(crate) fn check(dir: &Path, options: &Options) -> Result<Vec<Family>, StoreError> {
    match fs::metadata(dir.join("CURRENT")) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(corrupt(format!(
                "{} holds no store: if it is on a disk of its own, see that the disk is mounted; a new vault is made \
                 with `strongroom init`",
                dir.display()
            )));
        }
        Err(error) => return Err(io_error("open its folder", dir, &error)),
    }
    let found = DB::list_cf(options, dir).map_err(open_failed)?;
    let missing = Family::ALL.into_iter().filter(|family| !found.iter().any(|name| name == family.name()));
    let missing: Vec<Family> = missing.collect();
    match missing.iter().find(|family| !family.may_be_missing()) {
        Some(missing) => Err(corrupt(format!("{} has no column family {}", dir.display(), missing.name()))),
        None => Ok(missing),
    }
}

/// What RocksDB says when it does not open: damage, or something that may pass.
pub(crate) fn open_failed(error: rocksdb::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound => corrupt(error.into_string()),
        _ if error.as_ref().contains("lock file") => StoreError::Io {
            doing: "open",
            what: format!("another process has it open: end that one first ({})", error.as_ref()),
        },
        _ if error.as_ref().contains("No such file") => corrupt(error.into_string()),
        _ => StoreError::Io { doing: "open", what: error.into_string() },
    }
}

/// The names of all files in the folder that are there when it looks.
pub(crate) fn names(dir: &Path) -> Result<BTreeSet<OsString>, StoreError> {
    let names = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    names.map_err(|error| io_error("open its folder", dir, &error))
}

/// Whether a file is one of the write-ahead log.
pub(crate) fn is_log(name: &OsStr) -> bool {
    Path::new(name).extension() == Some(OsStr::new("log"))
}

/// Whether a file is a table.
pub(crate) fn is_table(name: &OsStr) -> bool {
    Path::new(name).extension() == Some(OsStr::new("sst"))
}

/// Bytes of all files in the folder. Files that go while it looks are not counted.
pub(crate) fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|data| data.is_file())
        .map(|data| data.len())
        .sum()
}

fn corrupt(what: String) -> StoreError {
    StoreError::Corrupt { place: PLACE, what }
}

fn io_error(doing: &'static str, dir: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { doing, what: format!("{}: {error}", dir.display()) }
}
