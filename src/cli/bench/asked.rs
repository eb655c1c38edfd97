//! What auditors ask of a log, with the filters that the questions of `strongroom audit` send and by the code behind the RPC, until
//! every leaf of the answer is read.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use strongroom_ledger::leaf::{self, ParsedLeaf};
use strongroom_vault::{Export, LeafFilter};

use super::mix;
use super::work::unfit;
use super::year::Year;
use crate::cli::output::CliError;

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Everything that was done to one subject.
    Subject,
    /// What one principal saw in a week.
    Principal,
    /// What was read in plain of a class in a month, by purpose.
    Plain,
    /// Every request that was denied, as a whole or in some of its items.
    Denied,
    /// Every change, and who approved it.
    Changes,
}

impl Question {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Subject, Self::Principal, Self::Plain, Self::Denied, Self::Changes];

    /// Its name in the JSON document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Principal => "principal",
            Self::Plain => "plain",
            Self::Denied => "denied",
            Self::Changes => "changes",
        }
    }

    /// Its name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Subject => "everything done to one subject",
            Self::Principal => "what one principal saw in a week",
            Self::Plain => "plain reads of class c2 in a month, by purpose",
            Self::Denied => "every request that was denied, or an item of it",
            Self::Changes => "every change, and who approved it",
        }
    }

    /// What is asked: each time of another subject, principal, week and month.
    fn filter(self, number: u64) -> LeafFilter {
        let during = |part: f64, of: f64| {
            let first = (number as f64 * part + part) % (1.0 - of);
            LeafFilter { from: Some(Year::at(first)), to: Some(Year::at(first + of)), ..LeafFilter::default() }
        };
        match self {
            Self::Subject => LeafFilter { subject: Year::subject(number), ..LeafFilter::default() },
            Self::Principal => {
                // Busy ones.
                let principal = mix::service(number % (mix::SERVICES / 4));
                LeafFilter { principal, reads: true, ..during(0.23, 7.0 / 365.0) }
            }
            // Values of class c3 have no views.
            Self::Plain => LeafFilter {
                class: "c2".to_owned(),
                view: "plain".to_owned(),
                reads: true,
                ..during(0.19, 30.0 / 365.0)
            },
            Self::Denied => LeafFilter { denied: true, ..LeafFilter::default() },
            Self::Changes => LeafFilter { changes: true, ..LeafFilter::default() },
        }
    }
}

/// What came of one question.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    /// How long it took.
    pub time: Duration,
    /// Leaves that fit.
    pub leaves: u64,
    /// Of them, by purpose.
    pub purposes: BTreeMap<String, u64>,
    /// Changes whose approval was found before them.
    pub approved: u64,
}

/// Asks one question of a year, for the so manieth time: by the index, or with a look at every leaf.
pub async fn ask(year: &Year, question: Question, number: u64, every_leaf: bool) -> Result<Answer, CliError> {
    // The question is in the log as well, and what was asked is no part of the year.
    let export = Export { end: year.leaves, filter: question.filter(number), every_leaf, ..Export::default() };
    let began = Instant::now();
    let mut pages = year.vault.export(&year.auditor, &export).await.map_err(unfit)?;
    let (mut answer, mut approvals) = (Answer::default(), HashMap::new());
    while let Some(page) = pages.next().await.map_err(unfit)? {
        for line in &page.leaves {
            answer.note(leaf::parse(line).map_err(unfit)?, &mut approvals);
        }
    }
    answer.time = began.elapsed();
    Ok(answer)
}

impl Answer {
    /// Notes a leaf. `approvals` are those before it, with who approved.
    fn note(&mut self, leaf: ParsedLeaf, approvals: &mut HashMap<String, String>) {
        self.leaves += 1;
        let approval = leaf.says("approval").map(str::to_owned);
        match (leaf.action.as_str(), approval) {
            ("approve", Some(approval)) => drop(approvals.insert(approval, leaf.principal)),
            (_, Some(approval)) => self.approved += u64::from(approvals.contains_key(&approval)),
            (_, None) => {}
        }
        *self.purposes.entry(leaf.purpose.unwrap_or_default()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_something_else_is_asked_within_the_year() {
        let times = |question: Question| {
            let of = |LeafFilter { from, to, .. }: LeafFilter| (from.unwrap(), to.unwrap());
            (0..20).map(|number| of(question.filter(number))).collect::<Vec<_>>()
        };
        for question in [Question::Principal, Question::Plain] {
            let times = times(question);
            assert!(times.iter().all(|(from, to)| Year::at(0.0) <= *from && from < to && *to <= Year::at(1.0)));
            assert_ne!(times[0], times[1]);
        }
        assert_ne!(Question::Subject.filter(0).subject, Question::Subject.filter(1).subject);
    }
}
