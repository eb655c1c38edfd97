//! The beginning of a transfer: a new run, or the one that was interrupted.

use std::fs::{self, File};
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use super::super::batches::SubjectColumn;
use super::super::columns::Columns;
use super::super::files::{Files, cut, finish_names, forget_if_empty, lock, reopen_rejects};
use super::super::output::CliError;
use super::super::progress::Progress;
use super::super::records::{self, Format, Splitter};
use super::report::bar;
use super::{IN_FLIGHT, Job, NOTE_EVERY, Transfer, now, split_error};

/// How long the vault remembers an idempotency key.
const KEYS_LIVE: Duration = Duration::from_secs(7 * 86_400);

impl Transfer {
    /// Begins a run, or takes up the one that was interrupted. If that had only to be given its name, then this is done,
    /// and what it did is the answer.
    pub fn begin(job: &Job) -> Result<Result<Self, Progress>, CliError> {
        let files = Files::of(&job.out);
        let file = File::open(&job.input).map_err(|error| CliError::file(&job.input, error))?;
        let metadata = file.metadata().map_err(|error| CliError::file(&job.input, error))?;
        if !metadata.is_file() {
            return Err(CliError::Usage(format!(
                "{}: only a file can be taken up again; save it first",
                job.input.display()
            )));
        }
        let part = lock(&files.part)?;
        let (mut names, mut subject) = (job.mapped.clone(), None);
        if let Some(name) = &job.subject {
            subject = Some(names.iter().position(|known| known == name).unwrap_or(names.len()));
            if subject == Some(names.len()) {
                names.push(name.clone());
            }
        }
        let subject = SubjectColumn { index: subject, mapped: job.mapped.len(), needed: job.subject_needed };

        let mut input = BufReader::with_capacity(256 << 10, file);
        let mut start = Splitter::new(&mut input, job.format, records::Place::start());
        let (header, columns) = match job.format {
            Format::Csv { delimiter } => {
                let header = start.next().map_err(|error| split_error(&job.input, error))?;
                let header =
                    header.ok_or_else(|| CliError::unfit("the file is empty: a CSV file begins with a header"))?;
                let columns = Columns::of_csv(names, &header, delimiter);
                (header.bytes, columns.inspect_err(|_| forget_if_empty(&files))?)
            }
            Format::Jsonl => (Vec::new(), Columns::of_jsonl(names, &job.numbers, job.style)),
        };
        let begin = start.place().clone();

        let earlier = Progress::load(&files.progress)?;
        let is_new = earlier.is_none();
        let (progress, place, rejects) = match earlier {
            None => {
                for path in [&files.out, &files.rejects] {
                    if path.exists() {
                        forget_if_empty(&files);
                        return Err(CliError::Unfit {
                            message: format!("{} is there already, and nothing is written over", path.display()),
                            next: "another -o, or move it away".into(),
                        });
                    }
                }
                // A run that ended before its first note wrote the header at most.
                let grown = fs::read(&files.part).map_err(|error| CliError::file(&files.part, error))?;
                if !grown.is_empty() && grown != header {
                    return Err(CliError::Unfit {
                        message: format!(
                            "{} is there already, but {}, by which its run would go on, is not",
                            files.part.display(),
                            files.progress.display()
                        ),
                        next: "another -o, or move it away".into(),
                    });
                }
                let mut progress = Progress::new(run_id()?, job.options.clone(), metadata.len(), &begin);
                let mut out = &part;
                let written = part.set_len(0).and_then(|()| out.write_all(&header)).and_then(|()| part.sync_all());
                written.map_err(|error| CliError::file(&files.part, error))?;
                progress.output_length = header.len() as u64;
                progress.written = now();
                // Before anything is sent: the run id must outlive an interruption.
                progress.store(&files.progress)?;
                (progress, begin, None)
            }
            Some(progress) => {
                progress.fits(&job.options, metadata.len(), &files)?;
                if progress.finished {
                    finish_names(&files, progress.output_length)?;
                    return Ok(Err(progress));
                }
                if now().saturating_sub(progress.written) > KEYS_LIVE.as_secs() {
                    let _ = writeln!(
                        std::io::stderr(),
                        "note: this run was interrupted more than 7 days ago; up to {} values may get a second token",
                        job.batch * (IN_FLIGHT + NOTE_EVERY as usize),
                    );
                }
                cut(&part, &files.part, progress.output_length)?;
                let rejects = reopen_rejects(&files.rejects, progress.rejects_length)?;
                input.seek(SeekFrom::Start(0)).map_err(|error| CliError::file(&job.input, error))?;
                let place = progress.place_in(&mut input, &job.input)?;
                (progress, place, rejects)
            }
        };
        let bar = bar(metadata.len(), place.offset);
        Ok(Ok(Self {
            columns,
            subject,
            splitter: Splitter::new(input, job.format, place),
            part,
            rejects,
            next_batch: progress.batches,
            batch_values: job.batch,
            is_new,
            begun_with: progress.values,
            bar,
            files,
            progress,
        }))
    }
}

fn run_id() -> Result<String, CliError> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| CliError::unfit("the system gives no random numbers"))?;
    Ok(data_encoding::HEXLOWER.encode(&id))
}
