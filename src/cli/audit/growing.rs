//! A file that grows line by line, for its owner only.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cli::files::create;
use crate::cli::output::CliError;

/// The file, and where it is.
pub struct Growing {
    path: PathBuf,
    /// For what is not written line by line.
    pub file: BufWriter<File>,
}

impl Growing {
    /// An empty one, in the place of what was there.
    pub fn new(path: &Path) -> Result<Self, CliError> {
        let file = create(path).map_err(|error| CliError::file(path, error))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file) })
    }

    /// One line more.
    pub fn line(&mut self, line: &[u8]) -> Result<(), CliError> {
        let written = self.file.write_all(line).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| CliError::file(&self.path, error))
    }

    /// The end: all of it is on disk.
    pub fn finish(self) -> Result<(), CliError> {
        let file = self.file.into_inner().map_err(|error| CliError::file(&self.path, error.into_error()))?;
        file.sync_all().map_err(|error| CliError::file(&self.path, error))
    }
}
