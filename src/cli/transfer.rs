//! Takes a file through the vault: batches out, answers in, one record after the other into the output.
//!
//! Memory is constant: a batch holds about a thousand values, and a few batches are in flight at once. They are formed
//! from the input alone and written in the input's order, whatever order they are answered in; [`super::progress`]
//! says why.

use std::fs::{self, File};
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{FuturesOrdered, StreamExt};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::batches::{Batch, Exchange, SubjectColumn, is_passing, settle};
use super::cells::{self, JsonStyle};
use super::columns::Columns;
use super::files::{Files, create, cut, finish_names, forget_if_empty, lock, reopen_rejects};
use super::output::{CliError, Exit, Output, facts};
use super::progress::Progress;
use super::records::{self, Format, SplitError, Splitter};

/// Bytes of records that fill a batch.
const BATCH_BYTES: usize = 4 << 20;
/// Records that fill a batch, whatever is in them: blank lines hold no values, and hardly any bytes.
const BATCH_RECORDS: usize = 10_000;
/// Batches in flight at once.
const IN_FLIGHT: usize = 4;
/// Batches between two notes of progress: each costs a few syncs.
const NOTE_EVERY: u64 = 8;
/// How long the vault remembers an idempotency key.
const KEYS_LIVE: Duration = Duration::from_secs(7 * 86_400);

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
        let mut flying = FuturesOrdered::new();
        let mut ended = false;
        loop {
            let most = if self.progress.batches == 0 { 1 } else { IN_FLIGHT };
            while !ended && flying.len() < most {
                match self.batch()? {
                    Some(batch) => flying.push_back(settle(exchange, &run, subject, batch)),
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

    fn show_progress(&self) {
        self.bar.set_position(self.progress.input_offset);
        let values = self.progress.values - self.begun_with;
        let rate = values as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        let rejected = match self.progress.rejected {
            0 => String::new(),
            count => format!(", {} rejected", HumanCount(count)),
        };
        self.bar.set_message(format!(
            "{} values, {}/s{rejected}",
            HumanCount(self.progress.values),
            HumanCount(rate as u64)
        ));
    }
}

/// Prints what a run did.
pub fn report(progress: &Progress, out: &Path, output: Output) -> Result<Exit, CliError> {
    let rejects = Files::of(out).rejects;
    output.show(
        || {
            json!({
                "out": out.display().to_string(),
                "records": progress.records,
                "values": progress.values,
                "rejected": progress.rejected,
                "rejects": (progress.rejected > 0).then(|| rejects.display().to_string()),
            })
        },
        || {
            let mut pairs = vec![
                ("written", out.display().to_string()),
                ("records", HumanCount(progress.records).to_string()),
                ("values", HumanCount(progress.values).to_string()),
            ];
            if progress.rejected > 0 {
                pairs.push((
                    "rejected",
                    format!("{} records: see {}", HumanCount(progress.rejected), rejects.display()),
                ));
            }
            facts(pairs)
        },
    )?;
    Ok(if progress.rejected == 0 { Exit::Done } else { Exit::Partly })
}

/// Whether the vault refused, as against being busy or away.
fn is_final(error: &CliError) -> bool {
    match error {
        CliError::Refused(refusal) => !is_passing(refusal.code),
        _ => false,
    }
}

fn split_error(path: &Path, error: SplitError) -> CliError {
    match error {
        SplitError::Io(error) => CliError::file(path, error),
        SplitError::TooLong { .. } => CliError::unfit(error.to_string()),
    }
}

fn run_id() -> Result<String, CliError> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| CliError::unfit("the system gives no random numbers"))?;
    Ok(data_encoding::HEXLOWER.encode(&id))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A bar over the bytes of the input, on standard error; hidden unless that is a terminal.
fn bar(length: u64, done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style).with_position(done);
    bar.reset_eta();
    bar
}

#[cfg(test)]
mod tests {
    use super::super::batches::{Answer, Item};
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;
    use std::fs::OpenOptions;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

    /// What was sent under a key, and what was answered.
    type Answered = (Vec<Vec<u8>>, Vec<Answer>);

    /// Remembers idempotency keys as a vault does, refuses values that begin with `bad`, and fails when told to.
    #[derive(Default)]
    struct Fake {
        answered: RefCell<HashMap<String, Answered>>,
        made: Cell<usize>,
        calls: Cell<usize>,
        fails_from: Cell<Option<usize>>,
    }

    impl Exchange for Fake {
        async fn send(&self, items: &[&Item], key: &str) -> Result<Vec<Answer>, Status> {
            // Later batches overtake earlier ones.
            if self.calls.get().is_multiple_of(2) {
                tokio::task::yield_now().await;
            }
            self.calls.set(self.calls.get() + 1);
            let fails = self.fails_from.get().is_some_and(|from| self.calls.get() >= from);
            let values: Vec<Vec<u8>> = items.iter().map(|item| item.value.to_vec()).collect();
            if let Some((sent, answers)) = self.answered.borrow().get(key) {
                assert_eq!(*sent, values, "another request under the same key");
                return if fails { Err(Status::internal("stop")) } else { Ok(answers.clone()) };
            }
            let bad = items.iter().enumerate().filter(|(_, item)| item.value.starts_with(b"bad"));
            // Like a vault, it does not name all at once.
            let named: Vec<FieldViolation> = bad.map(|(index, _)| violation(index)).take(2).collect();
            if !named.is_empty() {
                let mut details = ErrorDetails::new();
                details.set_bad_request(named);
                return Err(Status::with_error_details(Code::InvalidArgument, "not valid", details));
            }
            let answers: Vec<Answer> = items
                .iter()
                .map(|item| {
                    self.made.set(self.made.get() + 1);
                    Ok(format!("t{}-{}", String::from_utf8_lossy(&item.value), item.subject).into())
                })
                .collect();
            self.answered.borrow_mut().insert(key.to_owned(), (values, answers.clone()));
            // What was stored stays stored, whatever becomes of the answer.
            if fails { Err(Status::internal("stop")) } else { Ok(answers) }
        }
    }

    fn violation(index: usize) -> FieldViolation {
        FieldViolation {
            field: format!("items[{index}].value"),
            description: "not good".into(),
            reason: "luhn".into(),
            localized_message: None,
        }
    }

    fn job(folder: &Path, text: &str) -> Job {
        let input = folder.join("in.csv");
        fs::write(&input, text).unwrap();
        Job {
            input,
            out: folder.join("out.csv"),
            format: Format::Csv { delimiter: b',' },
            mapped: vec!["name".into(), "card".into()],
            subject: Some("id".into()),
            subject_needed: true,
            numbers: vec![],
            style: JsonStyle::default(),
            batch: 4,
            options: "as given".into(),
        }
    }

    fn rows(count: usize) -> String {
        let rows = (0..count).map(|n| format!("{n},name {n},\"card, {n}\",kept\r\n"));
        std::iter::once("id,name,card,more\r\n".to_owned()).chain(rows).collect()
    }

    async fn go(job: &Job, fake: &Fake) -> Result<Progress, CliError> {
        Transfer::begin(job)?.expect("work is left").run(fake).await
    }

    #[tokio::test]
    async fn the_mapped_columns_are_replaced_and_the_rest_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), "id,name,card,more\n1,Ann,,x\n\n2,\"B, C\",44,\"y\"");
        let progress = go(&job, &Fake::default()).await.unwrap();
        let out = fs::read_to_string(&job.out).unwrap();
        assert_eq!(out, "id,name,card,more\n1,tAnn-1,,x\n\n2,\"tB, C-2\",t44-2,\"y\"");
        assert_eq!((progress.records, progress.values, progress.rejected), (2, 3, 0));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[tokio::test]
    async fn what_the_vault_refuses_is_left_out_and_named_without_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let text = "id,name,card,more\n1,bad1,bad2,\n2,Bo,bad3,\n3,Cy,5,\n,Di,6,\n5,Ed\n6,Fy,\"7\"x,\n";
        let job = job(folder.path(), text);
        let progress = go(&job, &Fake::default()).await.unwrap();
        assert_eq!(fs::read_to_string(&job.out).unwrap(), "id,name,card,more\n3,tCy-3,t5-3,\n");
        let rejects = fs::read_to_string(Files::of(&job.out).rejects).unwrap();
        let expected = "line,column,rule\n2,name,luhn\n2,card,luhn\n3,card,luhn\n5,id,subject_empty\n6,,csv_columns\n\
                        7,card,csv_quotes\n";
        assert_eq!(rejects, expected);
        assert_eq!((progress.records, progress.rejected), (1, 5));
    }

    #[tokio::test]
    async fn an_interrupted_run_makes_no_token_twice_and_ends_with_the_same_bytes() {
        let whole = tempfile::tempdir().unwrap();
        let mut text = rows(60);
        text.push_str("60,bad,1,\r\n61,Zo,2,\r\n");
        let reference = job(whole.path(), &text);
        go(&reference, &Fake::default()).await.unwrap();

        for first_failure in 2..36 {
            let folder = tempfile::tempdir().unwrap();
            let job = job(folder.path(), &text);
            let fake = Fake::default();
            let mut failure = first_failure;
            while !job.out.exists() {
                fake.fails_from.set(Some(failure));
                match go(&job, &fake).await {
                    Ok(progress) => assert_eq!((progress.records, progress.rejected), (61, 1)),
                    Err(error) => assert!(matches!(error, CliError::Interrupted { .. })),
                }
                // What was written after the last note is cut away.
                if let Ok(mut part) = OpenOptions::new().append(true).open(Files::of(&job.out).part) {
                    part.write_all(b"half a rec").unwrap();
                }
                failure = fake.calls.get() + 7;
            }
            assert_eq!(fake.made.get(), 122);
            assert_eq!(fs::read(&job.out).unwrap(), fs::read(&reference.out).unwrap());
            let rejects = |job: &Job| fs::read(Files::of(&job.out).rejects).unwrap();
            assert_eq!(rejects(&job), rejects(&reference));
        }
    }

    #[tokio::test]
    async fn a_command_that_is_refused_at_once_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), &rows(9));
        let fake = Fake::default();
        fake.fails_from.set(Some(1));
        assert!(matches!(go(&job, &fake).await, Err(CliError::Refused(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn an_output_that_is_there_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), &rows(1));
        fs::write(&job.out, "mine").unwrap();
        assert!(go(&job, &Fake::default()).await.is_err());
        assert_eq!(fs::read_to_string(&job.out).unwrap(), "mine");
        assert!(!Files::of(&job.out).part.exists());
    }

    #[tokio::test]
    async fn an_output_that_came_into_being_meanwhile_is_not_written_over_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), &rows(3));
        let files = Files::of(&job.out);
        let transfer = Transfer::begin(&job).unwrap().expect("work is left");
        fs::write(&job.out, "mine").unwrap();
        let error = transfer.run(&Fake::default()).await.unwrap_err();
        assert!(matches!(error, CliError::Unfit { next, .. } if next.contains("move it away")));
        // Still in its way.
        assert!(Transfer::begin(&job).is_err());
        assert_eq!(fs::read_to_string(&job.out).unwrap(), "mine");
        fs::remove_file(&job.out).unwrap();
        assert_eq!(Transfer::begin(&job).unwrap().err().unwrap().records, 3);
        assert_eq!(fs::read_to_string(&job.out).unwrap().lines().count(), 4);
        assert!(!files.part.exists() && !files.progress.exists());
    }

    #[tokio::test]
    async fn a_growing_output_without_its_progress_is_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), &rows(3));
        let part = Files::of(&job.out).part;
        fs::write(&part, "id,name,card,more\r\n1,t1,t2,\r\n").unwrap();
        assert!(Transfer::begin(&job).is_err());
        assert_eq!(fs::read_to_string(&part).unwrap().lines().count(), 2);
        // A header alone is worth nothing.
        fs::write(&part, "id,name,card,more\r\n").unwrap();
        go(&job, &Fake::default()).await.unwrap();
        assert!(job.out.exists() && !part.exists());
    }

    #[tokio::test]
    async fn blank_lines_do_not_make_a_batch_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let text = "id,name,card,more\n".to_owned() + &"\n".repeat(BATCH_RECORDS + 5) + "1,Ann,,x\n";
        let job = job(folder.path(), &text);
        let mut transfer = Transfer::begin(&job).unwrap().expect("work is left");
        assert_eq!(transfer.batch().unwrap().unwrap().entries.len(), BATCH_RECORDS);
        drop(transfer);
        let progress = go(&job, &Fake::default()).await.unwrap();
        assert_eq!((progress.records, progress.batches), (1, 2));
        assert_eq!(fs::read_to_string(&job.out).unwrap(), text.replace("Ann", "tAnn-1"));
    }

    #[tokio::test]
    async fn two_runs_do_not_write_the_same_output() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), &rows(1));
        let first = Transfer::begin(&job).unwrap();
        assert!(Transfer::begin(&job).is_err());
        drop(first);
    }

    #[tokio::test]
    async fn a_run_that_lacked_only_its_name_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), &rows(3));
        let files = Files::of(&job.out);
        let mut transfer = Transfer::begin(&job).unwrap().expect("work is left");
        transfer.work(&Fake::default()).await.unwrap();
        transfer.progress.finished = true;
        transfer.note().unwrap();
        drop(transfer);
        let finished = Transfer::begin(&job).unwrap().err().unwrap();
        assert_eq!(finished.records, 3);
        assert!(job.out.exists() && !files.part.exists() && !files.progress.exists());
    }
}
