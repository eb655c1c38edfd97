//! `strongroom audit subject | token | reads | denied | changes`: what auditors ask, each in one command.
//!
//! Every question is an export with a filter, shown as lines: one for each item, or for a leaf without items. Lines are printed
//! as they come, so memory does not grow with them.

mod archived;
mod changes;
mod denied;
mod lines;
mod reads;
mod subject;
mod token;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::Map;
use strongroom_ledger::filter::Filter;
use strongroom_ledger::leaf::{self, ParsedLeaf};
use strongroom_proto::v1::{ExportRequest, ExportResponse, LeafFilter};
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime};

use super::answered::{is_answered, other};
use super::options::Between;
use crate::cli::client::Context;
use crate::cli::expiry::to_wire;
use crate::cli::output::{CliError, Exit};
use archived::Archived;
use lines::{COLUMNS, Printer, cells, document, items};

/// One of the questions.
#[derive(Clone, Debug, Subcommand)]
pub enum Question {
    /// Show everything that was done to one data subject.
    #[command(after_help = subject::HELP)]
    Subject(subject::Subject),
    /// Show everything that was done to the value behind one token.
    #[command(after_help = token::HELP)]
    Token(token::Token),
    /// Show what was read: by one principal or person, or of one data class, with counts by purpose.
    #[command(after_help = reads::HELP)]
    Reads(reads::Reads),
    /// Show the requests that were denied.
    #[command(after_help = denied::HELP)]
    Denied(denied::Denied),
    /// Show the changes of policies, schema, keys, officers, tiers and freezes, and who approved them.
    #[command(after_help = changes::HELP)]
    Changes(changes::Changes),
}

/// Of when, and how thoroughly.
#[derive(Clone, Debug, ClapArgs)]
struct Window {
    #[command(flatten)]
    between: Between,

    /// Only what was committed in this month, in UTC: 2026-11.
    #[arg(long, value_name = "MONTH", value_parser = parse_month, conflicts_with_all = ["from", "to"])]
    month: Option<Period>,

    /// Have every leaf of that time looked at, not only those that the vault's index leads to: slower, and whoever has
    /// tampered with the index hides nothing.
    #[arg(long)]
    every_leaf: bool,
}

/// From one time to another, which is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period {
    from: OffsetDateTime,
    to: OffsetDateTime,
}

/// A month as people write it.
fn parse_month(text: &str) -> Result<Period, String> {
    let first = Date::parse(&format!("{text}-01"), format_description!("[year]-[month]-[day]")).ok();
    let first = first.filter(|_| text.len() == 7);
    let first = first.ok_or_else(|| "write a year and a month: 2026-11".to_owned())?;
    let next = match first.month() {
        Month::December => Date::from_calendar_date(first.year() + 1, Month::January, 1),
        month => Date::from_calendar_date(first.year(), month.next(), 1),
    };
    let next = next.map_err(|_| "that is too far away".to_owned())?;
    Ok(Period { from: first.midnight().assume_utc(), to: next.midnight().assume_utc() })
}

impl Window {
    fn between(&self) -> Between {
        self.month.map_or(self.between, |Period { from, to }| Between { from: Some(from), to: Some(to) })
    }

    /// Since when.
    fn since(&self) -> Option<OffsetDateTime> {
        self.between().from
    }

    /// What is asked of the vault.
    fn asks(&self, log: String, filter: LeafFilter) -> ExportRequest {
        let Between { from, to } = self.between();
        let filter = LeafFilter { from_time: from.map(to_wire), to_time: to.map(to_wire), ..filter };
        ExportRequest { log, filter: Some(filter), every_leaf: self.every_leaf, ..Default::default() }
    }
}

impl Question {
    /// Which ledger.
    pub fn log(&self) -> &str {
        match self {
            Self::Reads(_) => "",
            Self::Subject(asked) => asked.log(),
            Self::Token(asked) => asked.log(),
            Self::Denied(asked) => asked.log(),
            Self::Changes(asked) => asked.log(),
        }
    }
}

/// Asks, and shows what comes.
pub async fn run(question: Question, context: &Context) -> Result<Exit, CliError> {
    match question {
        Question::Subject(asked) => subject::run(asked, context).await,
        Question::Token(asked) => token::run(asked, context).await,
        Question::Reads(asked) => reads::run(asked, context).await,
        Question::Denied(asked) => denied::run(asked, context).await,
        Question::Changes(asked) => changes::run(asked, context).await,
    }
}

/// Leaves that fit, as they come.
struct Leaves {
    pages: tonic::Streaming<ExportResponse>,
    /// The first page, which says what leaves are held against, until it is taken.
    first: Option<ExportResponse>,
    /// What they are held against.
    filter: Filter,
    /// What of it the vault has no more.
    archived: Option<Archived>,
}

impl Leaves {
    /// Asks for what was committed since a time, if one is given, and perhaps for some that was committed before it.
    async fn ask(request: ExportRequest, since: Option<OffsetDateTime>, context: &Context) -> Result<Self, CliError> {
        let asked = request.filter.clone().unwrap_or_default();
        let request = ExportRequest { without_archived: true, ..request };
        let mut pages = context.audit().await?.export(request).await?.into_inner();
        let first = pages.message().await?;
        let filter = first.as_ref().map(|page| page.filter.as_str()).unwrap_or_default();
        if filter.is_empty() {
            return Err(other("it does not say what it held leaves against"));
        }
        let filter = Filter::from_json(filter)
            .ok_or_else(|| CliError::unfit("the vault sent a filter that this version does not know"))?;
        is_answered(&asked, &filter)?;
        let archived = first.as_ref().and_then(|page| page.archived.as_ref()).map(Archived::from);
        if let Some(archived) = &archived {
            archived.allows(since)?;
        }
        Ok(Self { pages, first, filter, archived })
    }

    /// The next leaves, perhaps none; `None` at the end.
    async fn page(&mut self) -> Result<Option<Vec<ParsedLeaf>>, CliError> {
        let page = match self.first.take() {
            None => self.pages.message().await?,
            first => first,
        };
        let Some(page) = page else { return Ok(None) };
        let parse = |line: &bytes::Bytes| {
            leaf::parse(line).map_err(|error| CliError::unfit(format!("the vault sent a leaf that is none: {error}")))
        };
        page.leaves.iter().map(parse).collect::<Result<_, _>>().map(Some)
    }

    /// Shows each item that fits, a line, and then what there is to say of all.
    async fn show(mut self, what: &str, context: &Context) -> Result<Exit, CliError> {
        let mut printer = Printer::new(context.output, COLUMNS, self.archived.as_ref());
        while let Some(page) = self.page().await? {
            for leaf in &page {
                for item in items(leaf, &self.filter) {
                    printer.line(|| cells(leaf, item), || document(leaf, item));
                }
            }
            if !printer.flush()? {
                return Ok(Exit::Done);
            }
        }
        let known = self.is_known();
        let words = match (known, printer.lines()) {
            (Some(false), _) => format!("the vault knows no such {what}"),
            (_, 1) => "1 line".to_owned(),
            (_, lines) => format!("{lines} lines"),
        };
        printer.end(Map::from_iter([("known".to_owned(), known.into())]), &words)?;
        Ok(Exit::Done)
    }

    /// Whether the vault knows the subject or the token that was asked for, if it said so.
    fn is_known(&self) -> Option<bool> {
        let Filter { subjects, rows, .. } = &self.filter;
        let subjects = subjects.as_ref().map(|subjects| !subjects.is_empty());
        subjects.or(rows.as_ref().map(|rows| !rows.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::expiry::parse_time;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let time = |text| parse_time(text).unwrap();
        let month = |from, to| Ok(Period { from: time(from), to: time(to) });
        assert_eq!(parse_month("2026-11"), month("2026-11-01", "2026-12-01"));
        assert_eq!(parse_month("2026-12"), month("2026-12-01", "2027-01-01"));
        for wrong in ["", "2026", "2026-13", "2026-1", "2026-11-01", "11-2026", "9999-12"] {
            assert!(parse_month(wrong).is_err(), "{wrong}");
        }
    }
}
