//! `strongroom audit subject`: everything that was done to one data subject.

use clap::Args as ClapArgs;
use serde_json::Map;
use strongroom_proto::v1::LeafFilter;

use super::lines::{COLUMNS, Printer, cells, document, items};
use super::{Leaves, Window};
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit subject cust-1
  strongroom audit subject cust-1 --from 2026-11-01 --to 2026-12-01 --output json

One line for each item that concerns the subject: stored, read, matched, replaced,
deleted, refused. That you ask is recorded. To hand it to somebody who shall not
have to believe you: strongroom audit export --subject cust-1 -o OUT.";

/// Whom it is about.
#[derive(Clone, Debug, ClapArgs)]
pub struct Subject {
    /// The data subject, by the id that the services know it by.
    id: String,

    #[command(flatten)]
    window: Window,
}

/// Asks, and shows what comes.
pub async fn run(asked: Subject, context: &Context) -> Result<Exit, CliError> {
    let filter = LeafFilter { subject: asked.id, ..Default::default() };
    let mut leaves = Leaves::ask(asked.window.asks(String::new(), filter), asked.window.since(), context).await?;
    let mut printer = Printer::new(context.output, COLUMNS, leaves.archived.as_ref());
    while let Some(page) = leaves.page().await? {
        for leaf in &page {
            for item in items(leaf, &leaves.filter) {
                printer.line(|| cells(leaf, item), || document(leaf, item));
            }
        }
        if !printer.flush()? {
            return Ok(Exit::Done);
        }
    }
    let known = leaves.is_known();
    let words = match (known, printer.lines()) {
        (Some(false), _) => "the vault knows no such subject".to_owned(),
        (_, 1) => "1 line".to_owned(),
        (_, lines) => format!("{lines} lines"),
    };
    printer.end(Map::from_iter([("known".to_owned(), known.into())]), &words)?;
    Ok(Exit::Done)
}
