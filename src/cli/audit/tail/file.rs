//! A file that the ledger is followed into: one leaf a line, begun anew when it is long.
//!
//! It is this program's alone to cut and to rename: whoever collects takes the older files, which have numbers. If something
//! of it is gone nothing is written any more, since nobody would know where the gap is.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;

use super::Cursor;
use super::form::Form;
use super::ledger::{Followed, Mark};
use crate::cli::audit::beside;
use crate::cli::files::sync_folder;
use crate::cli::output::{CliError, Exit};

/// The most older files that can be counted.
const MOST: u32 = 1_000;

/// How many older files are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// All of them.
    All,
    /// So many, the newest.
    Newest(u32),
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) | (_, Ok(0)) => Ok(Self::All),
            (_, Ok(count @ 1..=MOST)) => Ok(Self::Newest(count)),
            _ => Err(format!("a number up to {MOST}, or `all`")),
        }
    }
}

/// The file, and how far it is.
pub struct Sink {
    path: PathBuf,
    cursor_path: PathBuf,
    cursor: Cursor,
    file: File,
    most: u64,
    keep: Keep,
    form: Form,
}

impl Sink {
    /// Opens the file at what is known of it: what was written after that comes again.
    pub fn open(
        path: PathBuf,
        cursor_path: PathBuf,
        mut cursor: Cursor,
        most: u64,
        keep: Keep,
        form: Form,
    ) -> Result<Self, CliError> {
        let mut file = open(&path)?;
        let unread = |error| CliError::file(&path, error);
        let length = file.metadata().map_err(unread)?.len();
        if length < cursor.length {
            // If it was renamed, and the run ended before that was noted, what the cursor counts is in OUT.1, or was
            // collected.
            if length > 0 || !cursor.rotates {
                return Err(gone(&path, &cursor_path, &cursor));
            }
            cursor.length = 0;
        }
        // If it was not renamed, it is behind the next leaves.
        cursor.rotates = false;
        if cursor.length == 0 && length > 0 && !cursor_path.exists() {
            return Err(CliError::Unfit {
                message: format!("{} is there, and {} is not", path.display(), cursor_path.display()),
                next: "another -o".into(),
            });
        }
        file.set_len(cursor.length).map_err(unread)?;
        file.seek(SeekFrom::End(0)).map_err(unread)?;
        sync_folder(&path)?;
        cursor.write(&cursor_path)?;
        Ok(Self { path, cursor_path, cursor, file, most, keep, form })
    }

    /// Follows the ledger into it.
    pub async fn follow(mut self, followed: &mut Followed<'_>) -> Result<Exit, CliError> {
        loop {
            let mut leaves = followed.begin(&self.cursor).await?;
            self.cursor.begun(&leaves);
            self.cursor.write(&self.cursor_path)?;
            while let Some(page) = leaves.page().await? {
                self.add(&page, &leaves.mark)?;
            }
        }
    }

    /// Adds leaves, and notes how far it is. A file that is long then is begun anew.
    fn add(&mut self, page: &[Bytes], mark: &Mark) -> Result<(), CliError> {
        let failed = |error| CliError::file(&self.path, error);
        let same = |own: &Metadata, named: &Metadata| (own.dev(), own.ino()) == (named.dev(), named.ino());
        let own = self.file.metadata().map_err(failed)?;
        if own.len() != self.cursor.length || !fs::metadata(&self.path).is_ok_and(|named| same(&own, &named)) {
            return Err(gone(&self.path, &self.cursor_path, &self.cursor));
        }
        let mut lines = Vec::new();
        for leaf in page {
            lines.extend_from_slice(&self.form.line(&self.cursor.origin, leaf)?);
            lines.push(b'\n');
        }
        self.file.write_all(&lines).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.cursor.length += lines.len() as u64;
        self.cursor.go_to(mark);
        self.cursor.write(&self.cursor_path)?;
        if self.cursor.length >= self.most { self.rotate() } else { Ok(()) }
    }

    /// Renames the files up to the first number that is free, the oldest first, and begins a new one.
    fn rotate(&mut self) -> Result<(), CliError> {
        let older = |number: u32| beside(&self.path, &format!(".{number}"));
        let mut last = 1;
        while older(last).exists() {
            if self.keep == Keep::Newest(last) {
                eprintln!("removing {} for a newer one: no more are kept (--keep {last})", older(last).display());
                break;
            }
            last += 1;
        }
        // Before it goes: whoever collects may take it at once.
        self.cursor.rotates = true;
        self.cursor.write(&self.cursor_path)?;
        for number in (1..last).rev() {
            rename(&older(number), &older(number + 1))?;
        }
        rename(&self.path, &older(1))?;
        self.file = open(&self.path)?;
        // Before the cursor counts from its beginning: another run would cut the old one down to that.
        sync_folder(&self.path)?;
        (self.cursor.length, self.cursor.rotates) = (0, false);
        self.cursor.write(&self.cursor_path)
    }
}

/// The file is not as it was left.
fn gone(path: &Path, cursor_path: &Path, cursor: &Cursor) -> CliError {
    let (path, kept, Cursor { length, next, .. }) = (path.display(), cursor_path.display(), cursor);
    CliError::Unfit {
        message: format!("{path} has not the {length} bytes that {kept} counts: it was cut, removed or renamed"),
        next: format!(
            "put back what it had; or remove {path} and {kept} and begin anew with --from {next}, or with an earlier \
             index if what is gone was not collected"
        ),
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
        Cursor {
            origin: "log".to_owned(),
            next,
            length,
            rotates: false,
            last: None,
            checkpoint: None,
            log_keys: vec![],
        }
    }

    fn sink(folder: &Path, at: Cursor) -> Result<Sink, CliError> {
        keeping(Keep::Newest(2), folder, at)
    }

    fn keeping(keep: Keep, folder: &Path, at: Cursor) -> Result<Sink, CliError> {
        Sink::open(folder.join("out"), folder.join("out.cursor"), at, 100, keep, Form::Jsonl)
    }

    /// Adds a leaf that makes the file long enough to be begun anew, or not.
    fn add(sink: &mut Sink, leaf: &str) -> Result<(), CliError> {
        sink.add(&[Bytes::copy_from_slice(leaf.as_bytes())], &Mark { next: sink.cursor.next + 1, last: None })
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
            add(&mut one, &name.repeat(50)).unwrap();
        }
        let third = "third".repeat(50) + "\n";
        assert_eq!(fs::read_to_string(path("out.1")).unwrap(), third);
        assert!(fs::read_to_string(path("out.2")).unwrap().starts_with("second"));
        assert!(!path("out.3").exists());
        drop(one);
        // Renamed, and the cursor still counts the old file, which was collected.
        fs::remove_file(path("out")).unwrap();
        fs::remove_file(path("out.1")).unwrap();
        let at = Cursor { rotates: true, ..cursor(3, third.len() as u64) };
        let two = sink(folder.path(), at.clone()).unwrap();
        assert_eq!((two.cursor.next, two.cursor.length, two.cursor.rotates), (3, 0, false));
        drop(two);
        // Not renamed yet: then what it has counts as before.
        fs::write(path("out"), &third).unwrap();
        let mut three = sink(folder.path(), at).unwrap();
        assert_eq!((three.cursor.length, three.cursor.rotates), (third.len() as u64, false));
        add(&mut three, "leaf").unwrap();
        assert_eq!(fs::read_to_string(path("out.1")).unwrap(), third + "leaf\n");
    }

    #[test]
    fn all_older_files_are_kept_and_a_number_that_was_collected_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let begins = |number: u32| {
            let text = fs::read_to_string(folder.path().join(format!("out.{number}")));
            text.ok().map(|text| text[..1].to_owned()).unwrap_or_default()
        };
        let mut all = keeping(Keep::All, folder.path(), cursor(0, 0)).unwrap();
        for name in ["a", "b", "c", "d"] {
            add(&mut all, &name.repeat(200)).unwrap();
        }
        assert_eq!([1, 2, 3, 4].map(begins), ["d", "c", "b", "a"]);
        fs::remove_file(folder.path().join("out.3")).unwrap();
        add(&mut all, &"e".repeat(200)).unwrap();
        assert_eq!([1, 2, 3, 4, 5].map(begins), ["e", "d", "c", "a", ""]);
    }

    #[test]
    fn the_cursor_says_that_a_file_is_renamed_before_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = sink(folder.path(), cursor(0, 0)).unwrap();
        // It can't be renamed to that.
        fs::create_dir(folder.path().join("out.1")).unwrap();
        fs::create_dir(folder.path().join("out.2")).unwrap();
        fs::write(folder.path().join("out.2/full"), "").unwrap();
        assert!(add(&mut one, &"leaf".repeat(50)).is_err());
        let kept = Cursor::read(&folder.path().join("out.cursor"), "log").unwrap().unwrap();
        assert!(kept.rotates && kept.length == 201);
    }

    #[test]
    fn a_file_that_somebody_cut_or_removed_is_not_taken_for_one_that_was_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut one = sink(folder.path(), cursor(0, 0)).unwrap();
        add(&mut one, &"old".repeat(50)).unwrap();
        add(&mut one, "leaf").unwrap();
        let at = one.cursor.clone();
        // While it is written, and before it is again.
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&out, &elsewhere).unwrap();
        assert!(add(&mut one, "leaf").is_err());
        fs::rename(&elsewhere, &out).unwrap();
        fs::write(&out, "le").unwrap();
        assert!(add(&mut one, "leaf").is_err());
        drop(one);
        for left in ["", "le"] {
            fs::write(&out, left).unwrap();
            let told = sink(folder.path(), at.clone()).err().unwrap().to_string();
            assert!(told.contains("has not the 5 bytes"), "{told}");
        }
        fs::write(&out, "leaf\n").unwrap();
        assert!(sink(folder.path(), at).is_ok());
    }

    #[test]
    fn how_many_are_kept_is_a_number_or_all() {
        let keep = |text: &str| text.parse::<Keep>().ok();
        assert_eq!(["all", "0", "10"].map(keep), [Some(Keep::All), Some(Keep::All), Some(Keep::Newest(10))]);
        assert_eq!(["", "-1", "1001", "none"].map(keep), [None; 4]);
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
