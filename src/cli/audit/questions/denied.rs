//! `strongroom audit denied`: every request that was denied.

use clap::Args as ClapArgs;
use serde_json::Map;
use strongroom_proto::v1::LeafFilter;

use super::lines::{COLUMNS, Printer, cells, document, items};
use super::{Leaves, Window};
use crate::cli::audit::options::Of;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit denied --from 2026-11-28T22:00:00Z --to 2026-11-29T06:00:00Z
  strongroom audit denied --by app/loan-core --month 2026-11

Requests that were refused as a whole, with the reason. Where only some items of
a request were refused, the request was allowed: audit subject and audit export
show such items. Whoever is refused very often is counted, one line for many.";

/// Whose, of when.
#[derive(Clone, Debug, ClapArgs)]
pub struct Denied {
    /// Only what this principal asked for: ROLE/NAME, as leaves have it.
    #[arg(long, value_name = "ROLE/NAME")]
    by: Option<String>,

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

/// Asks, and shows what comes.
pub async fn run(asked: Denied, context: &Context) -> Result<Exit, CliError> {
    let principal = asked.by.unwrap_or_default();
    let filter = LeafFilter { decision: "deny".to_owned(), principal, ..Default::default() };
    let mut leaves = Leaves::ask(asked.window.asks(asked.of.log, filter), context).await?;
    let mut printer = Printer::new(context.output, COLUMNS);
    let mut requests = 0_u64;
    let mut last = None;
    while let Some(page) = leaves.page().await? {
        for leaf in &page {
            requests += u64::from(last.replace(leaf.request) != Some(leaf.request));
            for item in items(leaf, &leaves.filter) {
                printer.line(|| cells(leaf, item), || document(leaf, item));
            }
        }
        if !printer.flush()? {
            return Ok(Exit::Done);
        }
    }
    let words = format!("{requests} denied");
    printer.end(Map::from_iter([("requests".to_owned(), requests.to_string().into())]), &words)?;
    Ok(Exit::Done)
}
