//! The few files of a keystore: read whole within a bound, replaced atomically.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::KeyError;

/// A directory that no other process writes to while this is held.
pub(crate) struct LockedDir<'a> {
    path: &'a Path,
    dir: File,
}

/// Makes a directory that only its owner may enter, unless it is there.
pub(crate) fn make_dir(path: &Path) -> Result<(), KeyError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("making the directory", path))
}

/// Locks a directory. Waits while another process has it, which is never for long.
pub(crate) fn lock(path: &Path) -> Result<LockedDir<'_>, KeyError> {
    let dir = File::open(path).map_err(failed("opening the directory", path))?;
    dir.lock().map_err(failed("locking the directory", path))?;
    Ok(LockedDir { path, dir })
}

impl LockedDir<'_> {
    /// Creates a file.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if there is one.
    pub(crate) fn create(&self, file: &'static str, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.path.join(file);
        // A link that leads nowhere is there as well.
        match fs::symlink_metadata(&path) {
            Ok(_) => Err(KeyError::Exists { file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.replace(file, bytes),
            Err(error) => Err(failed("looking for the file", &path)(error)),
        }
    }

    /// Puts a file into the place of another: after a crash the old bytes are there or the new, never a mixture.
    pub(crate) fn replace(&self, file: &'static str, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.path.join(file);
        let new = self.path.join(format!("{file}.new"));
        // One that a crash left behind. Nobody else makes one: the directory is locked.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing an unfinished file", &new)(error));
            }
            _ => {}
        }
        #[cfg(test)]
        faults::at(faults::Step::Write).map_err(failed("writing the file", &new))?;
        let written = write_synced(&new, bytes);
        if written.is_err() {
            // Best effort: what is left over is removed by the next replacement.
            let _ = fs::remove_file(&new);
        }
        written?;
        #[cfg(test)]
        faults::at(faults::Step::Rename).map_err(failed("putting the new file in place", &path))?;
        fs::rename(&new, &path).map_err(failed("putting the new file in place", &path))?;
        // Without this the rename itself may be lost in a crash.
        #[cfg(test)]
        faults::at(faults::Step::Sync).map_err(failed("syncing the directory", self.path))?;
        self.dir.sync_all().map_err(failed("syncing the directory", self.path))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(failed("creating the file", path))?;
    file.write_all(bytes).map_err(failed("writing the file", path))?;
    file.sync_all().map_err(failed("syncing the file", path))
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(dir: &Path, file: &'static str, limit: u64) -> Result<Vec<u8>, KeyError> {
    let path = dir.join(file);
    let opened = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyError::NoFile { file, dir: dir.display().to_string() },
        _ => failed("opening the file", &path)(error),
    })?;
    let mut bytes = Vec::new();
    opened.take(limit + 1).read_to_end(&mut bytes).map_err(failed("reading the file", &path))?;
    if bytes.len() as u64 > limit {
        return Err(KeyError::Damaged { file, what: "it is longer than it can be" });
    }
    Ok(bytes)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    move |error| KeyError::Io { doing, what: format!("{}: {error}", path.display()) }
}

/// Replacements that fail at a step, for tests: no file system does so when asked.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::Cell;
    use std::io;

    /// What a replacement does, in this order.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Step {
        /// Writes the new file beside the old one.
        Write,
        /// Puts it in place.
        Rename,
        /// Makes that durable.
        Sync,
    }

    thread_local!(static FAILING: Cell<Option<(Step, u32)>> = const { Cell::new(None) });

    /// Makes a step fail for so many of the next times on this thread.
    pub fn fail(step: Step, times: u32) {
        FAILING.set(Some((step, times)));
    }

    pub(super) fn at(step: Step) -> io::Result<()> {
        match FAILING.get() {
            Some((failing, left)) if failing == step && left > 0 => {
                FAILING.set(Some((step, left - 1)));
                Err(io::Error::other("a fault was injected"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn only_the_owner_may_read_directory_and_file() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/keystore");
        make_dir(&dir).unwrap();
        lock(&dir).unwrap().create("file", b"bytes").unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("file")), 0o600);
    }

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("file.new"), b"left over by a crash").unwrap();
        lock(temp.path()).unwrap().create("file", b"one").unwrap();
        lock(temp.path()).unwrap().replace("file", b"two").unwrap();
        assert_eq!(read(temp.path(), "file", 3).unwrap(), b"two");
        assert_eq!(names(temp.path()), ["file"]);
    }

    #[test]
    fn what_is_there_is_never_overwritten_by_creating() {
        let temp = tempfile::tempdir().unwrap();
        lock(temp.path()).unwrap().create("file", b"one").unwrap();
        let again = lock(temp.path()).unwrap().create("file", b"two");
        assert_eq!(again.unwrap_err(), KeyError::Exists { file: "file" });
        assert_eq!(read(temp.path(), "file", 3).unwrap(), b"one");
        symlink("nowhere", temp.path().join("link")).unwrap();
        assert!(lock(temp.path()).unwrap().create("link", b"two").is_err());
    }

    #[test]
    fn an_unfinished_file_that_is_a_link_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("victim"), b"victim").unwrap();
        symlink("victim", temp.path().join("file.new")).unwrap();
        lock(temp.path()).unwrap().replace("file", b"new").unwrap();
        assert_eq!(read(temp.path(), "victim", 100).unwrap(), b"victim");
        assert_eq!(read(temp.path(), "file", 100).unwrap(), b"new");
    }

    #[test]
    fn a_file_beyond_its_bound_is_damaged() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("file"), [0; 11]).unwrap();
        assert!(matches!(read(temp.path(), "file", 10), Err(KeyError::Damaged { file: "file", .. })));
        assert_eq!(read(temp.path(), "file", 11).unwrap().len(), 11);
    }

    #[test]
    fn a_missing_file_is_named_with_its_directory() {
        let temp = tempfile::tempdir().unwrap();
        let error = read(temp.path(), "file", 10).unwrap_err();
        assert_eq!(error, KeyError::NoFile { file: "file", dir: temp.path().display().to_string() });
    }
}
