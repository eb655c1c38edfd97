//! `strongroom audit denied`: every request that was denied, as a whole or in some of its items.

use clap::Args as ClapArgs;
use serde_json::{Map, Value};
use strongroom_ledger::filter::Filter;
use strongroom_ledger::leaf::{ParsedItem, ParsedLeaf};
use strongroom_ledger::refused::{REFUSED, counted};
use strongroom_proto::v1::LeafFilter;

use super::lines::{Column, Printer, cells, document};
use super::{Leaves, Window};
use crate::cli::audit::options::Of;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit denied --from 2026-11-28T22:00:00Z --to 2026-11-29T06:00:00Z
  strongroom audit denied --by app/loan-core --month 2026-11
  strongroom audit denied --reason NOT_FOUND     # who asks for tokens that are none

Requests that were denied as a whole, and items that were denied of requests of
which others were not; with the reason. --failed shows also what failed and was
not denied: tokens that there are not, values that are not valid. Whoever is
refused very often is counted: one line says how many.";

const COLUMNS: &[Column] = &[
    ("time", 27),
    ("principal", 20),
    ("actor", 8),
    ("action", 12),
    ("field", 20),
    ("view", 7),
    ("purpose", 16),
    ("decision", 8),
    ("outcome", 10),
    ("leaf", 6),
    ("refused", 4),
];

/// Whose, of when, and why.
#[derive(Clone, Debug, ClapArgs)]
pub struct Denied {
    /// Only what this principal asked for: ROLE/NAME, as leaves have it.
    #[arg(long, value_name = "ROLE/NAME")]
    by: Option<String>,

    /// Only what was asked for on behalf of this person.
    #[arg(long, value_name = "ISSUER/NAME")]
    actor: Option<String>,

    /// Only what was refused for this reason, as leaves have it; also one for which something fails and is not denied.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,

    /// Also what failed and was not denied.
    #[arg(long, conflicts_with = "reason")]
    failed: bool,

    #[command(flatten)]
    window: Window,

    #[command(flatten)]
    of: Of,
}

impl Denied {
    /// Which ledger.
    pub fn log(&self) -> &str {
        &self.of.log
    }
}

/// How much was refused.
#[derive(Default)]
struct Totals {
    requests: u64,
    /// The last request: its parts follow one another.
    last: Option<[u8; 16]>,
    /// Items, listed or not.
    items: u64,
    /// Refusals that have no leaves of their own.
    counted: u64,
}

/// What a line is of: an item, or so many refusals that are not listed; 1 of a request as a whole.
struct Line<'l> {
    item: Option<&'l ParsedItem>,
    refused: u64,
}

/// Asks, and shows what comes.
pub async fn run(asked: Denied, context: &Context) -> Result<Exit, CliError> {
    let Denied { by, actor, reason, failed, window, of } = asked;
    let filter = LeafFilter {
        principal: by.unwrap_or_default(),
        actor: actor.unwrap_or_default(),
        denied: reason.is_none() && !failed,
        refused: failed,
        reason: reason.unwrap_or_default(),
        ..Default::default()
    };
    let mut leaves = Leaves::ask(window.asks(of.log, filter), window.since(), context).await?;
    let mut printer = Printer::new(context.output, COLUMNS, leaves.archived.as_ref());
    let mut totals = Totals::default();
    while let Some(page) = leaves.page().await? {
        for leaf in &page {
            for line in totals.take(leaf, &leaves.filter) {
                printer.line(|| in_cells(leaf, &line), || with_count(leaf, &line));
            }
        }
        if !printer.flush()? {
            return Ok(Exit::Done);
        }
    }
    printer.end(totals.document(), &totals.words())?;
    Ok(Exit::Done)
}

impl Totals {
    /// The lines of a leaf, which are counted.
    fn take<'l>(&mut self, leaf: &'l ParsedLeaf, filter: &Filter) -> Vec<Line<'l>> {
        if let Some(count) = counted(leaf) {
            self.counted = self.counted.saturating_add(count);
            return vec![Line { item: None, refused: count }];
        }
        self.requests += u64::from(self.last.replace(leaf.request) != Some(leaf.request));
        let items = leaf.items.iter().filter(|item| filter.fits_item(leaf, item));
        let mut lines: Vec<Line<'l>> = items.map(|item| Line { item: Some(item), refused: 1 }).collect();
        let unlisted = filter.unlisted(leaf);
        self.items = self.items.saturating_add(lines.len() as u64).saturating_add(unlisted);
        if unlisted > 0 {
            lines.push(Line { item: None, refused: unlisted });
        } else if leaf.items.is_empty() {
            lines.push(Line { item: None, refused: 1 });
        }
        lines
    }

    fn document(&self) -> Map<String, Value> {
        let counts = [("requests", self.requests), ("items", self.items), ("counted", self.counted)];
        counts.into_iter().map(|(name, count)| (name.to_owned(), count.to_string().into())).collect()
    }

    fn words(&self) -> String {
        let Self { requests, items, counted, .. } = self;
        let beside = match counted {
            0 => String::new(),
            counted => format!("; and {counted} times that were only counted"),
        };
        format!("{requests} requests refused in whole or in part, {items} items of them{beside}")
    }
}

fn in_cells(leaf: &ParsedLeaf, line: &Line<'_>) -> Vec<String> {
    let mut cells = cells(leaf, line.item);
    // What is not listed of an allowed request says why by itself.
    if let (None, None, Some(why), Some(outcome)) =
        (line.item, &leaf.reason, leaf.says(REFUSED), cells.iter_mut().rev().nth(1))
    {
        why.clone_into(outcome);
    }
    cells.push(line.refused.to_string());
    cells
}

fn with_count(leaf: &ParsedLeaf, line: &Line<'_>) -> Value {
    let mut document = document(leaf, line.item);
    if let Value::Object(members) = &mut document {
        members.insert("refused".to_owned(), line.refused.to_string().into());
    }
    document
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{self, LeafHeader, LeafItem};

    use super::*;

    fn parsed(decision: &str, reason: Option<&str>, detail: &[(&str, &str)], outcomes: &[&str]) -> ParsedLeaf {
        let header = LeafHeader {
            request: &[outcomes.len() as u8; 16],
            principal: "app/a",
            actor: None,
            action: "detokenize",
            purpose: None,
            decision,
            reason,
            policy: 1,
            schema: 1,
            keys: &[],
            client: "",
            detail,
        };
        let items = outcomes.iter().map(|outcome| LeafItem { outcome, ..LeafItem::default() });
        leaf::parse(&leaf::prepare(&header, items)[0].finish(3, Timestamp(1))).unwrap()
    }

    #[test]
    fn refused_items_are_shown_of_what_was_allowed_and_what_is_not_listed_is_counted() {
        let filter = Filter { reasons: Some(vec!["DENIED".to_owned()]), ..Filter::default() };
        let mut totals = Totals::default();
        let mixed = parsed("allow", None, &[], &["ok", "DENIED", "NOT_FOUND", "DENIED"]);
        let shown = totals.take(&mixed, &filter);
        assert_eq!(shown.iter().map(|line| line.item.unwrap().outcome.as_str()).collect::<Vec<_>>(), ["DENIED"; 2]);
        let unlisted = parsed("allow", None, &[("refused", "DENIED=9998 NOT_FOUND=1")], &["ok"]);
        let shown = totals.take(&unlisted, &filter);
        assert_eq!((shown.len(), shown[0].refused), (1, 9_998));
        let told = in_cells(&unlisted, &shown[0]);
        assert_eq!(told[8..], ["DENIED=9998 NOT_FOUND=1", "3", "9998"]);
        let whole = parsed("deny", Some("DENIED"), &[], &[]);
        assert_eq!(totals.take(&whole, &filter)[0].refused, 1);
        let flood = parsed("deny", Some("DENIED"), &[("counted", "700")], &[]);
        let shown = totals.take(&flood, &filter);
        assert_eq!(with_count(&flood, &shown[0])["refused"], "700");
        assert_eq!((totals.requests, totals.items, totals.counted), (3, 10_000, 700));
        assert_eq!(
            totals.words(),
            "3 requests refused in whole or in part, 10000 items of them; and 700 times that were only counted"
        );
    }
}
