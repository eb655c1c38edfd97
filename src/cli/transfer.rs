//! Takes a file through the vault: batches out, answers in, one record after the other into the output.
//!
//! Memory is constant: a batch holds about a thousand values, and a few batches are in flight at once. They are formed
//! from the input alone and written in the input's order, whatever order they are answered in; [`super::progress`]
//! says why.

mod begin;
mod report;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{FuturesOrdered, StreamExt};
use indicatif::ProgressBar;

use super::batches::{Batch, Exchange, SubjectColumn, is_passing, settle};
use super::cells::{self, JsonStyle};
use super::columns::Columns;
use super::files::{Files, create, finish_names};
use super::output::CliError;
use super::progress::Progress;
use super::records::{Format, SplitError, Splitter};

pub use report::report;
use report::show_wait;

/// Bytes of records that fill a batch.
const BATCH_BYTES: usize = 4 << 20;
/// Records that fill a batch, whatever is in them: blank lines hold no values, and hardly any bytes.
const BATCH_RECORDS: usize = 10_000;
/// Batches in flight at once.
const IN_FLIGHT: usize = 4;
/// Batches between two notes of progress: each costs a few syncs.
const NOTE_EVERY: u64 = 8;
/// What is to be done with a file.
pub struct Job {
    /// The file.
    pub input: PathBuf,
    /// Where the result goes.
    pub out: PathBuf,
    /// Its form.
    pub format: Format,
    /// The columns whose values are replaced.
    pub mapped: Vec<String>,
    /// The column that names the subject of a record's values.
    pub subject: Option<String>,
    /// Whether a record with values and without subject is left out.
    pub subject_needed: bool,
    /// Columns of JSON that are written as numbers.
    pub numbers: Vec<String>,
    /// How JSON is written.
    pub style: JsonStyle,
    /// Values that fill a batch.
    pub batch: usize,
    /// All that makes the output what it is, for the progress file.
    pub options: String,
}

/// A run, new or taken up again.
pub struct Transfer {
    files: Files,
    progress: Progress,
    columns: Columns,
    subject: SubjectColumn,
    splitter: Splitter<BufReader<File>>,
    part: File,
    rejects: Option<File>,
    next_batch: u64,
    batch_values: usize,
    bar: ProgressBar,
    begun_with: u64,
    /// Whether nothing of this run was ever sent before.
    is_new: bool,
}

impl Transfer {
    /// Does the work, and says how much it was.
    pub async fn run(mut self, exchange: &impl Exchange) -> Result<Progress, CliError> {
        match self.work(exchange).await {
            Ok(()) => {
                self.progress.finished = true;
                self.note()?;
                finish_names(&self.files, self.progress.output_length)?;
                self.bar.finish_and_clear();
                Ok(self.progress)
            }
            Err(cause) if self.is_new && self.progress.batches == 0 && is_final(&cause) => {
                // The first batch travels alone, so nothing was stored: a command that is put right begins anew.
                self.bar.finish_and_clear();
                for path in [&self.files.progress, &self.files.part] {
                    fs::remove_file(path).map_err(|error| CliError::file(path, error))?;
                }
                Err(cause)
            }
            Err(cause) => {
                self.bar.abandon();
                let noted = self.note();
                let kept = match noted {
                    Ok(()) => format!(
                        "the same command again; it goes on after line {} ({} records are done)",
                        self.progress.input_line.saturating_sub(1),
                        self.progress.records + self.progress.rejected,
                    ),
                    Err(error) => format!("the same command again; the last progress could not be noted ({error})"),
                };
                Err(CliError::Interrupted { cause: Box::new(cause), kept })
            }
        }
    }

    async fn work(&mut self, exchange: &impl Exchange) -> Result<(), CliError> {
        let run = self.progress.run.clone();
        let subject = self.subject;
        let bar = self.bar.clone();
        let waits = |pause: Duration, why: &str| show_wait(&bar, pause, why);
        let mut flying = FuturesOrdered::new();
        let mut ended = false;
        loop {
            let most = if self.progress.batches == 0 { 1 } else { IN_FLIGHT };
            while !ended && flying.len() < most {
                match self.batch()? {
                    Some(batch) => flying.push_back(settle(exchange, &run, subject, batch, &waits)),
                    None => ended = true,
                }
            }
            let Some(settled) = flying.next().await else { return Ok(()) };
            self.write(settled?)?;
            if self.progress.batches.is_multiple_of(NOTE_EVERY) {
                self.note()?;
            }
        }
    }

    /// The next batch. Only the input decides what is in it.
    fn batch(&mut self) -> Result<Option<Batch>, CliError> {
        let (mut entries, mut values, mut bytes) = (Vec::new(), 0, 0);
        while values < self.batch_values && bytes < BATCH_BYTES && entries.len() < BATCH_RECORDS {
            let record = self.splitter.next().map_err(|error| split_error(&self.files.part, error))?;
            let Some(record) = record else { break };
            bytes += record.bytes.len();
            let entry = self.subject.entry(&self.columns, record);
            values += entry.items.len();
            entries.push(entry);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let number = self.next_batch;
        self.next_batch += 1;
        Ok(Some(Batch { number, entries, end: self.splitter.place().clone() }))
    }

    fn write(&mut self, batch: Batch) -> Result<(), CliError> {
        let (mut out, mut left_out) = (Vec::new(), Vec::new());
        for mut entry in batch.entries {
            if entry.record.is_blank() {
                out.extend_from_slice(&entry.record.bytes);
                continue;
            }
            let before = out.len();
            if entry.rejects.is_empty() {
                let places = entry.items.iter().map(|item| &item.place);
                let others = places.zip(entry.answers.iter().map(|answer| &**answer));
                entry.rejects.extend(self.columns.replace(&entry.record, others, &mut out).err());
            }
            if entry.rejects.is_empty() {
                self.progress.records += 1;
                self.progress.values += entry.answers.len() as u64;
                continue;
            }
            out.truncate(before);
            self.progress.rejected += 1;
            for reject in &entry.rejects {
                left_out.extend_from_slice(format!("{},", entry.record.line).as_bytes());
                cells::write_csv(self.columns.name(reject.column).as_bytes(), false, b',', &mut left_out);
                left_out.push(b',');
                cells::write_csv(reject.rule.as_bytes(), false, b',', &mut left_out);
                left_out.push(b'\n');
            }
        }
        self.part.write_all(&out).map_err(|error| CliError::file(&self.files.part, error))?;
        self.progress.output_length += out.len() as u64;
        self.write_rejects(&left_out)?;
        self.progress.batches += 1;
        self.progress.reach(&batch.end);
        self.show_progress();
        Ok(())
    }

    fn write_rejects(&mut self, lines: &[u8]) -> Result<(), CliError> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = &self.files.rejects;
        let mut text = Vec::new();
        let file = match &mut self.rejects {
            Some(file) => file,
            none => {
                text.extend_from_slice(b"line,column,rule\n");
                none.insert(create(path).map_err(|error| CliError::file(path, error))?)
            }
        };
        text.extend_from_slice(lines);
        file.write_all(&text).map_err(|error| CliError::file(path, error))?;
        self.progress.rejects_length += text.len() as u64;
        Ok(())
    }

    /// Makes what was written durable, and then notes it.
    fn note(&mut self) -> Result<(), CliError> {
        self.part.sync_data().map_err(|error| CliError::file(&self.files.part, error))?;
        if let Some(rejects) = &self.rejects {
            rejects.sync_data().map_err(|error| CliError::file(&self.files.rejects, error))?;
        }
        self.progress.written = now();
        self.progress.store(&self.files.progress)
    }
}

/// Whether the vault refused, as against being busy or away.
fn is_final(error: &CliError) -> bool {
    match error {
        CliError::Refused(refusal) => !is_passing(refusal),
        _ => false,
    }
}

fn split_error(path: &Path, error: SplitError) -> CliError {
    match error {
        SplitError::Io(error) => CliError::file(path, error),
        SplitError::TooLong { .. } => CliError::unfit(error.to_string()),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
