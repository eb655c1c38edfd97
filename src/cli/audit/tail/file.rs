//! A file that the ledger is followed into: one leaf a line, begun anew when it is long.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Cursor;
use super::ledger::Followed;
use crate::cli::audit::beside;
use crate::cli::output::{CliError, Exit};

/// The file, and how far it is.
pub struct Sink {
    path: PathBuf,
    cursor_path: PathBuf,
    cursor: Cursor,
    file: File,
    most: u64,
    keep: u32,
}

impl Sink {
    /// Opens the file at what is known of it: what was written after that comes again.
    pub fn open(
        path: PathBuf,
        cursor_path: PathBuf,
        mut cursor: Cursor,
        most: u64,
        keep: u32,
    ) -> Result<Self, CliError> {
        let mut file = open(&path)?;
        let unread = |error| CliError::file(&path, error);
        let length = file.metadata().map_err(unread)?.len();
        if length < cursor.length {
            // It was renamed, and the run ended before that was noted: what the cursor counts is in OUT.1.
            cursor.length = length;
        }
        if cursor.length == 0 && length > 0 && !cursor_path.exists() {
            return Err(CliError::Unfit {
                message: format!("{} is there, and {} is not", path.display(), cursor_path.display()),
                next: "another -o".into(),
            });
        }
        file.set_len(cursor.length).map_err(unread)?;
        file.seek(SeekFrom::End(0)).map_err(unread)?;
        cursor.write(&cursor_path)?;
        Ok(Self { path, cursor_path, cursor, file, most, keep })
    }

    /// Follows the ledger into it.
    pub async fn follow(mut self, followed: &mut Followed<'_>) -> Result<Exit, CliError> {
        loop {
            let mut leaves = followed.begin(&self.cursor).await?;
            self.cursor.begun(&leaves);
            self.cursor.write(&self.cursor_path)?;
            while let Some(page) = leaves.page().await? {
                let lines: Vec<u8> = page.iter().flat_map(|leaf| leaf.iter().chain(b"\n")).copied().collect();
                let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
                written.map_err(|error| CliError::file(&self.path, error))?;
                self.cursor.length += lines.len() as u64;
                self.cursor.go_to(&leaves.mark);
                self.cursor.write(&self.cursor_path)?;
                if self.cursor.length >= self.most {
                    self.rotate()?;
                }
            }
        }
    }

    /// Renames the files, the oldest first, and begins a new one.
    fn rotate(&mut self) -> Result<(), CliError> {
        let older = |number: u32| beside(&self.path, &format!(".{number}"));
        for number in (1..self.keep).rev() {
            rename(&older(number), &older(number + 1))?;
        }
        rename(&self.path, &older(1))?;
        self.file = open(&self.path)?;
        self.cursor.length = 0;
        self.cursor.write(&self.cursor_path)
    }
}

/// Opens the file, and keeps other runs away from it.
fn open(path: &Path) -> Result<File, CliError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(|error| CliError::file(path, error))?;
    file.try_lock().map_err(|_| CliError::unfit(format!("{}: another run is writing it", path.display())))?;
    Ok(file)
}

/// Whatever is there is replaced, and what is not there is no loss.
fn rename(from: &Path, to: &Path) -> Result<(), CliError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CliError::file(from, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(next: u64, length: u64) -> Cursor {
        Cursor { origin: "log".to_owned(), next, length, last: None, checkpoint: None, log_keys: vec![] }
    }

    fn sink(folder: &Path, at: Cursor) -> Result<Sink, CliError> {
        Sink::open(folder.join("out"), folder.join("out.cursor"), at, 100, 2)
    }

    #[test]
    fn what_was_not_noted_is_cut_off_and_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        drop(sink(folder.path(), cursor(0, 0)).unwrap());
        fs::write(&out, "one\ntwo\nhal").unwrap();
        drop(sink(folder.path(), cursor(2, 8)).unwrap());
        assert_eq!(fs::read_to_string(&out).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_rotation_that_was_cut_off_loses_nothing_and_keeps_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut one = sink(folder.path(), cursor(0, 0)).unwrap();
        for name in ["first", "second", "third"] {
            one.file.write_all(name.as_bytes()).unwrap();
            one.rotate().unwrap();
        }
        assert_eq!(fs::read_to_string(path("out.1")).unwrap(), "third");
        assert_eq!(fs::read_to_string(path("out.2")).unwrap(), "second");
        assert!(!path("out.3").exists());
        drop(one);
        // Renamed, and the cursor still counts the old file.
        fs::write(path("out"), "").unwrap();
        let two = sink(folder.path(), cursor(7, 300)).unwrap();
        assert_eq!((two.cursor.next, two.cursor.length), (7, 0));
    }

    #[test]
    fn a_file_of_somebody_else_or_of_a_running_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("out"), "mine").unwrap();
        assert!(sink(folder.path(), cursor(0, 0)).is_err());
        assert_eq!(fs::read_to_string(folder.path().join("out")).unwrap(), "mine");
        fs::remove_file(folder.path().join("out")).unwrap();
        let _running = sink(folder.path(), cursor(0, 0)).unwrap();
        assert!(sink(folder.path(), cursor(0, 0)).is_err());
    }
}
