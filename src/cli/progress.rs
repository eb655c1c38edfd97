//! How far an import or export has come, kept beside its output so that it can be interrupted at any moment.
//!
//! `OUT.part` grows, `OUT.rejects.csv` grows, and every few batches `OUT.progress` says how long both were, and how
//! much of the input they stand for, when all was last known to be on disk. After an interruption both files are cut
//! back to that, and the work goes on from there under the same run id. Batches that were sent but not yet noted are
//! formed again, byte by byte the same, and sent under the same idempotency keys: so no value is stored twice.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{Files, replace};
use super::output::CliError;
use super::records::Place;

/// The format of the file; another one is not read.
const FORMAT: u32 = 1;

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    format: u32,
    /// What names the run in idempotency keys.
    pub run: String,
    /// All that makes the output what it is; a run goes on only with the same.
    pub options: String,
    /// Bytes of the input when the run began.
    pub input_length: u64,
    /// Bytes of the input that are done.
    pub input_offset: u64,
    /// The line that comes next.
    pub input_line: u64,
    /// SHA-256 over the bytes that are done, in hexadecimal.
    pub input_sha256: String,
    /// Batches that are done.
    pub batches: u64,
    /// Records that were written.
    pub records: u64,
    /// Values that were replaced.
    pub values: u64,
    /// Records that were left out.
    pub rejected: u64,
    /// Bytes of the output.
    pub output_length: u64,
    /// Bytes of the file of rejects.
    pub rejects_length: u64,
    /// When this was written, in seconds since 1970.
    pub written: u64,
    /// Whether nothing is left to do but to give the output its name.
    pub finished: bool,
}

impl Progress {
    /// A run at its beginning.
    pub fn new(run: String, options: String, input_length: u64, done: &Place) -> Self {
        let mut progress = Self {
            format: FORMAT,
            run,
            options,
            input_length,
            input_offset: 0,
            input_line: 0,
            input_sha256: String::new(),
            batches: 0,
            records: 0,
            values: 0,
            rejected: 0,
            output_length: 0,
            rejects_length: 0,
            written: 0,
            finished: false,
        };
        progress.reach(done);
        progress
    }

    /// Notes that the input is done up to a place.
    pub fn reach(&mut self, done: &Place) {
        self.input_offset = done.offset;
        self.input_line = done.line;
        self.input_sha256 = done.hash();
    }

    /// Reads a progress file; none if there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, CliError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::file(path, error)),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(progress) if progress.format == FORMAT => Ok(Some(progress)),
            _ => Err(CliError::Unfit {
                message: format!("{} is not a progress file of this version", path.display()),
                next: "another -o, or remove the file to begin anew".into(),
            }),
        }
    }

    /// Replaces the progress file, atomically and durably.
    pub fn store(&self, path: &Path) -> Result<(), CliError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|_| CliError::unfit("progress can't be written"))?;
        text.push(b'\n');
        replace(path, &text)
    }

    /// Whether a run with other options, or on another input, would go on with this.
    pub fn fits(&self, options: &str, input_length: u64, files: &Files) -> Result<(), CliError> {
        let differs = |what: &str| {
            Err(CliError::Unfit {
                message: format!("{} was interrupted, and {what} are not the same as then", files.part.display()),
                next: format!(
                    "the command as it was, another -o, or remove {} and {} to begin anew (values that were stored stay stored)",
                    files.part.display(),
                    files.progress.display()
                ),
            })
        };
        if self.options != options {
            return differs("the options");
        }
        if self.input_length != input_length {
            return differs("the input's bytes");
        }
        Ok(())
    }

    /// Reads the input up to where it is done; an error if it is not what it was.
    pub fn place_in(&self, input: &mut BufReader<File>, path: &Path) -> Result<Place, CliError> {
        let mut place = Place::start();
        let mut left = self.input_offset;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match input.read(buffer.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Err(CliError::file(path, error)),
            };
            place.digest.update(buffer.get(..read).unwrap_or_default());
            left -= read as u64;
        }
        place.offset = self.input_offset - left;
        place.line = self.input_line;
        if left == 0 && place.hash() == self.input_sha256 {
            return Ok(place);
        }
        Err(CliError::Unfit {
            message: format!("{} has changed since the run was interrupted", path.display()),
            next: "the input as it was, or another -o".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::{Format, Splitter};
    use super::*;
    use std::io::Cursor;

    fn place(text: &[u8], records: usize) -> Place {
        let mut splitter = Splitter::new(Cursor::new(text), Format::Jsonl, Place::start());
        for _ in 0..records {
            splitter.next().unwrap();
        }
        splitter.place().clone()
    }

    #[test]
    fn progress_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(&folder.path().join("out.csv"));
        assert_eq!(Progress::load(&files.progress).unwrap(), None);
        let progress = Progress::new("r".into(), "o".into(), 7, &Place::start());
        progress.store(&files.progress).unwrap();
        assert_eq!(Progress::load(&files.progress).unwrap(), Some(progress));
    }

    #[test]
    fn a_damaged_progress_file_is_not_taken_for_a_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(&folder.path().join("out.csv"));
        fs::write(&files.progress, b"{\"format\":1").unwrap();
        assert!(Progress::load(&files.progress).is_err());
    }

    #[test]
    fn a_run_goes_on_in_the_same_input_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        let text = b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n";
        let done = place(text, 2);
        let progress = Progress::new("r".into(), "o".into(), text.len() as u64, &done);

        fs::write(&path, text).unwrap();
        let found = progress.place_in(&mut BufReader::new(File::open(&path).unwrap()), &path).unwrap();
        assert_eq!((found.offset, found.line), (16, 3));

        fs::write(&path, b"{\"a\":1}\n{\"a\":9}\n{\"a\":3}\n").unwrap();
        assert!(progress.place_in(&mut BufReader::new(File::open(&path).unwrap()), &path).is_err());
        fs::write(&path, b"{\"a\":1}\n").unwrap();
        assert!(progress.place_in(&mut BufReader::new(File::open(&path).unwrap()), &path).is_err());
    }

    #[test]
    fn a_run_with_other_options_does_not_go_on() {
        let files = Files::of(Path::new("out.csv"));
        let progress = Progress::new("r".into(), "o".into(), 7, &Place::start());
        assert!(progress.fits("o", 7, &files).is_ok());
        assert!(progress.fits("p", 7, &files).is_err());
        assert!(progress.fits("o", 8, &files).is_err());
    }
}
