//! A transfer over a fake vault: whatever interrupts it, each record is written once and nothing is stored twice.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::super::batches::{Answer, Exchange, Item};
use super::super::cells::JsonStyle;
use super::super::files::Files;
use super::super::output::CliError;
use super::super::progress::Progress;
use super::super::records::Format;
use super::{BATCH_RECORDS, Job, Transfer};

/// What was sent under a key, and what was answered.
type Answered = (Vec<Vec<u8>>, Vec<Answer>);

/// Remembers idempotency keys as a vault does, refuses values that begin with `bad`, and fails when told to.
#[derive(Default)]
struct Fake {
    answered: RefCell<HashMap<String, Answered>>,
    made: Cell<usize>,
    calls: Cell<usize>,
    fails_from: Cell<Option<usize>>,
    /// After so many calls limits are used up, once, for so long.
    used_up: Cell<Option<(usize, Duration)>>,
}

impl Exchange for Fake {
    async fn send(&self, items: &[&Item], key: &str) -> Result<Vec<Answer>, Status> {
        // Later batches overtake earlier ones.
        if self.calls.get().is_multiple_of(2) {
            tokio::task::yield_now().await;
        }
        self.calls.set(self.calls.get() + 1);
        if let Some((after, delay)) = self.used_up.get().filter(|(after, _)| self.calls.get() > *after) {
            self.used_up.set(None);
            let details = ErrorDetails::with_retry_info(Some(delay));
            return Err(Status::with_error_details(Code::ResourceExhausted, format!("used up after {after}"), details));
        }
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
async fn limits_that_end_soon_are_waited_for_and_others_interrupt_the_run() {
    for first in [0, 2] {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path(), &rows(30));
        let fake = Fake::default();
        fake.used_up.set(Some((first, Duration::from_millis(1))));
        assert_eq!(go(&job, &fake).await.unwrap().records, 30);
        assert!(fake.used_up.get().is_none() && job.out.exists());
    }
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path(), &rows(30));
    let fake = Fake::default();
    fake.used_up.set(Some((2, Duration::from_secs(3_600))));
    let error = go(&job, &fake).await.unwrap_err();
    assert!(matches!(error, CliError::Interrupted { .. }), "{error:?}");
    assert_eq!(go(&job, &fake).await.unwrap().records, 30);
    assert_eq!(fake.made.get(), 60);
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
