//! What auditors ask of a log of tens of millions of leaves: how fast the index of leaves answers, beside a look at every leaf.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::asked::{Answer, Question, ask};
use super::bars::Bars;
use super::goals::{Bound, Goal};
use super::measure::Middle;
use super::mix;
use super::process::Process;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, short, spread};
use super::year::{Followed, Year};
use crate::cli::output::CliError;

/// What is asked once more with a look at every leaf.
const YARDSTICK: Question = Question::Subject;
/// How long the slowest question may take, in seconds.
const WANTED: f64 = 5.0;

/// Questions, measured.
pub struct Questions {
    /// Leaves of the log, and how many a second were appended.
    leaves: u64,
    filled: f64,
    /// How the index followed them.
    followed: Followed,
    /// The answers to each question, one a run.
    answers: Vec<(Question, Vec<Answer>)>,
    /// The first run's answer to one of them, with a look at every leaf.
    every_leaf: Answer,
    /// Bytes of memory at most, and before the first question.
    peak: f64,
    before: f64,
}

impl Questions {
    /// Bars' steps that it takes.
    pub fn steps(runs: u16) -> u64 {
        3 + u64::from(runs) * Question::ALL.len() as u64
    }

    /// Makes a vault in a folder, with a log of so many leaves, and asks each question once a run.
    pub async fn measure(folder: &Path, leaves: u64, runs: u16, bars: &Bars) -> Result<Self, CliError> {
        let folder = folder.join("asked");
        let bar = bars.begin("fill a log");
        let year = Year::make(&folder, leaves).await?;
        bars.end(&bar);
        let bar = bars.begin("index a log");
        let followed = year.follow().await?;
        bars.end(&bar);
        let memory = |bytes: Option<u64>| bytes.map_or(f64::NAN, |bytes| bytes as f64);
        Process::forget_peak();
        let before = memory(Process::Own.memory());
        let mut answers = Question::ALL.map(|question| (question, vec![]));
        for run in 0..u64::from(runs) {
            for (question, answers) in &mut answers {
                let bar = bars.begin(question.title());
                answers.push(ask(&year, *question, run, false).await?);
                bars.end(&bar);
            }
        }
        let peak = memory(Process::Own.peak_memory());
        let bar = bars.begin("look at every leaf");
        let every_leaf = ask(&year, YARDSTICK, 0, true).await?;
        bars.end(&bar);
        let (size, filled) = (year.leaves, leaves as f64 / year.filled_in.as_secs_f64());
        year.end().await;
        std::fs::remove_dir_all(&folder).map_err(|error| CliError::file(&folder, error))?;
        let all = Self { leaves: size, filled, followed, answers: answers.into(), every_leaf, peak, before };
        match all.by_index().is_some_and(|answer| answer.leaves == all.every_leaf.leaves) {
            true => Ok(all),
            false => Err(CliError::unfit("the index leads to other leaves than a look at every leaf finds")),
        }
    }

    /// What the index answered to the question that every leaf was looked at for.
    fn by_index(&self) -> Option<&Answer> {
        self.answers_to(YARDSTICK).first()
    }

    fn answers_to(&self, question: Question) -> &[Answer] {
        self.answers.iter().find(|(asked, _)| *asked == question).map(|(_, answers)| &answers[..]).unwrap_or_default()
    }

    /// Seconds of the slowest question.
    fn slowest(&self) -> Middle {
        let all = self.answers.iter().map(|(_, answers)| seconds(answers));
        all.max_by(|one, other| one.median.total_cmp(&other.median)).unwrap_or(Middle::of([]))
    }

    /// How many times as long a look at every leaf takes.
    fn ratio(&self) -> f64 {
        self.every_leaf.time.as_secs_f64() / seconds(self.answers_to(YARDSTICK)).median
    }

    /// Leaves a second that the index took.
    fn indexed_a_second(&self) -> f64 {
        self.followed.leaves as f64 / self.followed.time.as_secs_f64()
    }

    /// Microseconds of processor time for each of them.
    fn cpu_a_leaf(&self) -> f64 {
        self.followed.cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6 / self.followed.leaves as f64)
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let one = |(question, answers): &(Question, Vec<Answer>)| {
            let (seconds, leaves) = (seconds(answers), leaves(answers));
            let asked = json!({
                "seconds": rounded(seconds.median),
                "seconds_ends": ends(seconds),
                "leaves": rounded(leaves.median),
                "leaves_ends": ends(leaves),
                "by_purpose": answers.first().map(|answer| &answer.purposes),
                "approved": answers.first().map(|answer| answer.approved),
            });
            (question.name().to_owned(), asked)
        };
        let questions: Map<String, Value> = self.answers.iter().map(one).collect();
        json!({
            "leaves": self.leaves,
            "appended_per_second": rounded(self.filled),
            "indexed_per_second": rounded(self.indexed_a_second()),
            "index_cpu_us_per_leaf": rounded(self.cpu_a_leaf()),
            "index_bytes_per_leaf": rounded(self.followed.index_bytes as f64 / self.leaves as f64),
            "bytes_per_leaf": rounded(self.followed.leaf_bytes as f64 / self.leaves as f64),
            "questions": questions,
            "every_leaf": {
                "question": YARDSTICK.name(),
                "seconds": rounded(self.every_leaf.time.as_secs_f64()),
                "leaves": self.every_leaf.leaves,
                "to_the_index": rounded(self.ratio()),
            },
            "memory_bytes_at_most": rounded(self.peak),
            "memory_bytes_before": rounded(self.before),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let row = |(question, answers): &(Question, Vec<Answer>)| {
            let whole = |number: f64| figure(number, 0);
            vec![
                question.title().to_owned(),
                spread(seconds(answers), |seconds| figure(seconds, 3)),
                spread(leaves(answers), whole),
                String::new(),
            ]
        };
        let mut rows: Vec<Vec<String>> = self.answers.iter().map(row).collect();
        rows.push(vec![
            "  the first, by a look at every leaf".to_owned(),
            figure(self.every_leaf.time.as_secs_f64(), 3),
            figure(self.every_leaf.leaves as f64, 0),
            short(self.ratio()),
        ]);
        let mib = |bytes: f64| figure(bytes / f64::from(1 << 20), 0);
        Sheet {
            title: "Questions",
            header: vec!["question", "s", "leaves in the answer", "in units of the index's"],
            rows,
            below: format!(
                "A year's log of {} leaves, made up, in a vault of its own: {} services, {} people behind one request in four, a \
                 subject for {} requests, one request in {} denied, one read of several values in {} in part, one read in {} in plain, {} \
                 values in bulk in one request in {}, and one change of policy, keys, \
                 schema or tiers with its approval in {}. A committer appended them over the vault's store: {} leaves/s. The index \
                 followed as in a vault that is served and that nobody calls: {} leaves/s, {} us of processor time and {} bytes on \
                 disk a leaf, beside {} of the leaf itself. Each run asks about another subject, principal, week and month, by \
                 the code behind the RPC and without a connection, until each leaf of the answer is read, from a cache that is as warm as \
                 a log that was just written and indexed leaves it; values of class c3 \
                 have no views. A look at every leaf is the same export with `--every-leaf`, once. Memory of the process while the \
                 index was asked: {} MiB at most, {} before. {SPREAD}",
                figure(self.leaves as f64, 0),
                mix::SERVICES,
                mix::PEOPLE,
                mix::OF_A_SUBJECT,
                mix::DENIED,
                mix::PARTLY,
                mix::PLAIN,
                mix::IN_BULK,
                figure(mix::BULK as f64, 0),
                figure(mix::CHANGE as f64, 0),
                figure(self.filled, 0),
                figure(self.indexed_a_second(), 0),
                short(self.cpu_a_leaf()),
                short(self.followed.index_bytes as f64 / self.leaves as f64),
                short(self.followed.leaf_bytes as f64 / self.leaves as f64),
                mib(self.peak),
                mib(self.before),
            ),
        }
    }
}

fn seconds(answers: &[Answer]) -> Middle {
    Middle::of(answers.iter().map(|answer| answer.time.as_secs_f64()))
}

fn leaves(answers: &[Answer]) -> Middle {
    Middle::of(answers.iter().map(|answer| answer.leaves as f64))
}

/// What questions shall reach; without figures if they were not measured.
pub fn goal(questions: Option<&Questions>) -> Goal {
    let slowest = questions.map(Questions::slowest);
    Goal::number(
        "The slowest of auditors' questions over a year's leaves (Questions)",
        "s",
        Bound::AtMost(WANTED),
        slowest,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use strongroom_ids::SubjectHandle;
    use strongroom_ledger::Timestamp;

    use super::*;
    use crate::cli::bench::goals::Verdict;
    use crate::cli::bench::mix::Mix;
    use crate::cli::bench::year::KNOWN;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_year_is_indexed_and_each_question_is_answered_as_a_look_at_every_leaf_would() {
        let folder = tempfile::tempdir().unwrap();
        let questions = Questions::measure(folder.path(), 6_000, 2, &Bars::new(Questions::steps(2))).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(questions.leaves > 6_000 && questions.followed.leaves > 0);
        let first = |question| &questions.answers_to(question)[0];
        for question in Question::ALL {
            assert_eq!(questions.answers_to(question).len(), 2);
            assert!(first(question).leaves > 0, "{question:?}");
        }
        // What the vault began with, and of the year one approval and what was approved.
        let changes = first(Question::Changes);
        assert_eq!((changes.leaves, changes.approved), (4, 1));
        let plain = first(Question::Plain);
        assert!(plain.leaves < 100 && plain.purposes.contains_key("loan_servicing"), "{plain:?}");
        // Of the year alone: nothing was denied before it.
        let mix = Mix::new(6_000, vec![SubjectHandle(1); KNOWN as usize]);
        let lines: Vec<Vec<u8>> =
            (0..6_000).flat_map(|number| mix.leaves(number)).map(|leaf| leaf.finish(1, Timestamp(1))).collect();
        let say = |what: &str| lines.iter().filter(|line| String::from_utf8_lossy(line).contains(what)).count() as u64;
        assert!(say("DENIED") > say(r#""decision":"deny""#), "some are denied in part");
        assert_eq!(first(Question::Denied).leaves, say("DENIED"));
        assert!(questions.ratio() > 0.0 && questions.indexed_a_second() > 0.0);
        assert_eq!(questions.document()["every_leaf"]["leaves"], first(Question::Subject).leaves);
    }

    #[test]
    fn the_goal_is_on_the_slowest_question() {
        let answers = |seconds: &[u64]| {
            let one = |seconds: &u64| Answer { time: Duration::from_secs(*seconds), leaves: 7, ..Answer::default() };
            seconds.iter().map(one).collect::<Vec<_>>()
        };
        let followed = Followed {
            leaves: 2_000,
            time: Duration::from_secs(2),
            cpu: Some(Duration::from_millis(10)),
            index_bytes: 20_000,
            leaf_bytes: 100_000,
        };
        let questions = Questions {
            leaves: 2_000,
            filled: 1_000.0,
            followed,
            answers: vec![(Question::Subject, answers(&[1, 2, 3])), (Question::Denied, answers(&[1, 6, 7]))],
            every_leaf: answers(&[80]).remove(0),
            peak: f64::from(64 << 20),
            before: f64::from(32 << 20),
        };
        let goal = goal(Some(&questions));
        assert_eq!((goal.ratio(), goal.verdict()), (Some(6.0), Verdict::NotMet));
        assert_eq!(super::goal(None).verdict(), Verdict::NotMeasured);
        let sheet = questions.sheet();
        assert!(sheet.rows.iter().all(|row| row.len() == sheet.header.len()));
        assert_eq!(sheet.rows[0][1..], ["2.000 (1.000 to 3.000)", "7 (7 to 7)", ""]);
        assert_eq!(sheet.rows[2][1..], ["80.000", "7", "40.0"]);
        assert!(
            sheet.below.contains("1,000 leaves/s, 5.00 us of processor time and 10.0 bytes on disk"),
            "{}",
            sheet.below
        );
        assert!(sheet.below.contains("64 MiB at most, 32 before"), "{}", sheet.below);
    }
}
