//! The files of an import or export, and how small files are replaced so that a crash leaves the old or the new one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::output::CliError;

/// The files of one run.
#[derive(Clone, Debug)]
pub struct Files {
    /// The result, once it is whole.
    pub out: PathBuf,
    /// The result as it grows.
    pub part: PathBuf,
    /// The records that were left out.
    pub rejects: PathBuf,
    /// This file.
    pub progress: PathBuf,
}

impl Files {
    /// The files for an output.
    pub fn of(out: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = out.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self {
            out: out.to_owned(),
            part: beside(".part"),
            rejects: beside(".rejects.csv"),
            progress: beside(".progress"),
        }
    }
}

/// Opens the growing output, for its owner only, and keeps other runs away from it.
pub fn lock(path: &Path) -> Result<File, CliError> {
    let mut options = OpenOptions::new();
    // Appending, so that what is written goes to the end also after the file was cut.
    let file = options.append(true).create(true).mode(0o600).open(path).map_err(|error| CliError::file(path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(CliError::unfit(format!("{}: another run is writing it", path.display())));
        }
        Err(fs::TryLockError::Error(error)) => return Err(CliError::file(path, error)),
    }
    file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| CliError::file(path, error))?;
    Ok(file)
}

/// Cuts a file back to what is known of it.
pub fn cut(file: &File, path: &Path, length: u64) -> Result<(), CliError> {
    let now = file.metadata().map_err(|error| CliError::file(path, error))?.len();
    if now < length {
        return Err(CliError::Unfit {
            message: format!("{} is shorter than it was when the run was interrupted", path.display()),
            next: "another -o, to begin anew".into(),
        });
    }
    file.set_len(length).map_err(|error| CliError::file(path, error))
}

pub fn reopen_rejects(path: &Path, length: u64) -> Result<Option<File>, CliError> {
    if length == 0 {
        // What is there was written after the last note; it will come again.
        return remove_if_there(path).map(|()| None);
    }
    let file = OpenOptions::new().append(true).open(path).map_err(|error| CliError::file(path, error))?;
    cut(&file, path, length)?;
    Ok(Some(file))
}

/// Gives the finished output its name and forgets the run. May be done again after an interruption.
///
/// `length` is the output's. What another program put in its place meanwhile is not written over, and the output stays
/// where it is.
pub fn finish_names(files: &Files, length: u64) -> Result<(), CliError> {
    let length_of = |path: &Path| fs::metadata(path).map(|file| file.len()).ok();
    // The growing output is opened anew, empty, by a run that was interrupted after it had renamed it.
    if length_of(&files.out) == Some(length) && length_of(&files.part).unwrap_or_default() == 0 {
        forget_if_empty(files);
    } else {
        rename_new(&files.part, &files.out)?;
    }
    fs::remove_file(&files.progress).map_err(|error| CliError::file(&files.progress, error))?;
    sync_folder(&files.out)
}

/// Removes the growing output of a run that never began.
pub fn forget_if_empty(files: &Files) {
    if fs::metadata(&files.part).is_ok_and(|part| part.len() == 0) {
        // If it stays, the next run finds an empty file, which does no harm.
        let _ = fs::remove_file(&files.part);
    }
}

/// Reads a small file; none if there is none.
pub fn read_if_there(path: &Path) -> Result<Option<String>, CliError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::file(path, error)),
    }
}

/// Removes a file, if there is one.
pub fn remove_if_there(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CliError::file(path, error)),
        _ => Ok(()),
    }
}

/// Replaces a small file: whoever looks sees the old one or the new one, also after a crash.
pub fn replace(path: &Path, text: &[u8]) -> Result<(), CliError> {
    rename(&written_beside(path, text)?, path)
}

/// Writes a small file, for its owner only, under a name beside the one that it shall have, and that nothing else has.
fn written_beside(path: &Path, text: &[u8]) -> Result<PathBuf, CliError> {
    let random = strongroom_keys::random::<8>().map_err(|error| CliError::unfit(error.to_string()))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", data_encoding::HEXLOWER.encode(&random)));
    let new = PathBuf::from(name);
    let failed = |error| CliError::file(&new, error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    if let Err(error) = file.write_all(text).and_then(|()| file.sync_all()) {
        // Half of it helps nobody.
        let _ = fs::remove_file(&new);
        return Err(failed(error));
    }
    Ok(new)
}

/// Writes a small file for its owner only, in whole or not at all. One that is there is kept, unless `force` is given.
pub fn write(path: &Path, text: &[u8], force: bool) -> Result<(), CliError> {
    may_write(path, force)?;
    let new = written_beside(path, text)?;
    if force { rename(&new, path) } else { rename_new(&new, path) }
}

/// Refuses a file that is there, unless `force` is given: before anything is asked for that would go into it.
pub fn may_write(path: &Path, force: bool) -> Result<(), CliError> {
    match force || fs::symlink_metadata(path).is_err() {
        true => Ok(()),
        false => Err(CliError::Unfit {
            message: format!("{} is there already, and nothing is written over", path.display()),
            next: "another name, or --force".into(),
        }),
    }
}

/// Creates an empty file that only its owner can read: what these commands write is personal data. A file that is there
/// already is removed first, since it would keep its own permissions.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => OpenOptions::new().write(true).create_new(true).mode(0o600).open(path),
    }
}

/// Renames a file to a name that nothing has yet.
fn rename_new(from: &Path, to: &Path) -> Result<(), CliError> {
    let renamed = renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    let renamed = match renamed {
        // A file system that can't, such as NFS: a second name is never written over either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        renamed => renamed.map_err(io::Error::from),
    };
    renamed.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => CliError::Unfit {
            message: format!("{} came into being meanwhile, and nothing is written over", to.display()),
            next: format!("move it away, then the same command again: the result is whole in {}", from.display()),
        },
        _ => CliError::file(from, error),
    })?;
    sync_folder(to)
}

/// Renames a file and makes that durable.
pub fn rename(from: &Path, to: &Path) -> Result<(), CliError> {
    fs::rename(from, to).map_err(|error| CliError::file(from, error))?;
    sync_folder(to)
}

/// Makes the names in a file's folder durable.
pub fn sync_folder(path: &Path) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| CliError::file(folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        replace(&path, b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_there_is_written_over_by_force_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let others = folder.path().join("out.new");
        fs::write(&others, b"another's").unwrap();
        write(&path, b"one", false).unwrap();
        assert_eq!(fs::read(&others).unwrap(), b"another's");
        fs::remove_file(&others).unwrap();
        assert_eq!(mode(), 0o600);
        assert!(write(&path, b"two", false).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write(&path, b"two", true).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode()), (b"two".as_slice(), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing is left beside it");
    }
}
