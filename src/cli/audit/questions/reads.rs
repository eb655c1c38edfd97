//! `strongroom audit reads`: what one principal or person saw, or what was read whole of a data class, by purpose.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args as ClapArgs};
use serde_json::{Map, Value, json};
use strongroom_ledger::leaf::ParsedLeaf;
use strongroom_proto::v1::LeafFilter;

use super::lines::{COLUMNS, Printer, cells, document, is_done, items};
use super::{Leaves, Window};
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit, table};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit reads --by app/loan-core --from 2026-11-28 --to 2026-11-29
  strongroom audit reads --actor hr/wang.li --month 2026-11
  strongroom audit reads --class c2 --month 2026-11             # in plain
  strongroom audit reads --class c2 --month 2026-11 --totals    # counts alone
  strongroom audit reads --subject cust-1 --field borrower.id_card

--by, --actor, --subject, --field and --purpose show all that somebody was told:
views of values, what matched, tokens that were looked up. --class shows only
what was read in plain, unless --view names another view. The class of a field
is that of the schema that was in force then. Values of class c3 have no views,
so none is ever read in plain.";

/// Without any of these it would be all reads of all.
const WHOSE: [&str; 6] = ["by", "actor", "class", "subject", "field", "purpose"];

/// Whose reads, or of what.
#[derive(Clone, Debug, ClapArgs)]
#[command(group = ArgGroup::new("whose").args(WHOSE).multiple(true).required(true))]
pub struct Reads {
    /// What this principal saw: ROLE/NAME, as leaves have it.
    #[arg(long, value_name = "ROLE/NAME")]
    by: Option<String>,

    /// What this person saw through a service.
    #[arg(long, value_name = "ISSUER/NAME")]
    actor: Option<String>,

    /// What was read of this data class.
    #[arg(long, value_parser = ["c1", "c2", "c3"])]
    class: Option<String>,

    /// What was read of this data subject, by the id that the services know it by.
    #[arg(long, value_name = "ID")]
    subject: Option<String>,

    /// What was read of this field: COLLECTION.FIELD.
    #[arg(long, value_name = "FIELD")]
    field: Option<String>,

    /// What was read for this purpose.
    #[arg(long, value_name = "PURPOSE")]
    purpose: Option<String>,

    /// Only what was shown in this view [default, with --class: plain].
    #[arg(long, value_name = "VIEW")]
    view: Option<String>,

    /// Only the counts by purpose.
    #[arg(long)]
    totals: bool,

    #[command(flatten)]
    window: Window,
}

/// How often something was read for a purpose.
#[derive(Default)]
struct Count {
    values: u64,
    requests: u64,
    /// The last request: its parts follow one another.
    last: Option<[u8; 16]>,
}

/// Asks, and shows what comes.
pub async fn run(asked: Reads, context: &Context) -> Result<Exit, CliError> {
    let Reads { by, actor, class, subject, field, purpose, view, totals, window } = asked;
    let view = view.or_else(|| class.as_ref().map(|_| "plain".to_owned()));
    let filter = LeafFilter {
        principal: by.unwrap_or_default(),
        actor: actor.unwrap_or_default(),
        class: class.unwrap_or_default(),
        subject: subject.unwrap_or_default(),
        field: field.unwrap_or_default(),
        purpose: purpose.unwrap_or_default(),
        view: view.unwrap_or_default(),
        reads: true,
        ..Default::default()
    };
    let mut leaves = Leaves::ask(window.asks(String::new(), filter), window.since(), context).await?;
    let mut printer = Printer::new(context.output, COLUMNS, leaves.archived.as_ref());
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    while let Some(page) = leaves.page().await? {
        for leaf in page.iter().filter(|leaf| leaf.decision == "allow") {
            for item in items(leaf, &leaves.filter).into_iter().filter(|item| item.is_none_or(is_done)) {
                count(&mut counts, leaf);
                if !totals {
                    printer.line(|| cells(leaf, item), || document(leaf, item));
                }
            }
        }
        if !printer.flush()? {
            return Ok(Exit::Done);
        }
    }
    let rows = counts
        .iter()
        .map(|(purpose, count)| vec![purpose.clone(), count.values.to_string(), count.requests.to_string()]);
    let words = match counts.is_empty() {
        true => "nothing was read".to_owned(),
        false => table(&["PURPOSE", "VALUES", "REQUESTS"], rows),
    };
    let by_purpose = counts.iter().map(|(purpose, count)| {
        json!({
            "purpose": purpose,
            "values": count.values.to_string(),
            "requests": count.requests.to_string(),
        })
    });
    printer.end(Map::from_iter([("by_purpose".to_owned(), Value::Array(by_purpose.collect()))]), &words)?;
    Ok(Exit::Done)
}

/// Purposes are those that schemas declare, so they are few.
fn count(counts: &mut BTreeMap<String, Count>, leaf: &ParsedLeaf) {
    let count = counts.entry(leaf.purpose.clone().unwrap_or_default()).or_default();
    count.values += 1;
    count.requests += u64::from(count.last.replace(leaf.request) != Some(leaf.request));
}
