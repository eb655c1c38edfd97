//! `strongroom audit subject`: everything that was done to one data subject.

use clap::Args as ClapArgs;
use strongroom_proto::v1::LeafFilter;

use super::{Leaves, Window};
use crate::cli::audit::options::Of;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit subject cust-1
  strongroom audit subject cust-1 --from 2026-11-01 --to 2026-12-01 --output json
  strongroom audit subject --handle 281474976710698    # of one that was erased

One line for each item that concerns the subject: stored, read, matched, replaced,
deleted, refused. That you ask is recorded. To hand it to somebody who shall not
have to believe you: strongroom audit export --subject cust-1 -o OUT. The handle
of a subject stands in every line of it, and in the leaf that erased it.";

/// Whom it is about.
#[derive(Clone, Debug, ClapArgs)]
pub struct Subject {
    /// The data subject, by the id that the services know it by.
    #[arg(required_unless_present = "handle")]
    id: Option<String>,

    /// The same by its handle, as leaves have it: its id may lead nowhere any more.
    #[arg(long, value_name = "NUMBER", conflicts_with = "id")]
    handle: Option<u64>,

    #[command(flatten)]
    window: Window,

    #[command(flatten)]
    of: Of,
}

impl Subject {
    /// Which ledger.
    pub fn log(&self) -> &str {
        &self.of.log
    }
}

/// Asks, and shows what comes.
pub async fn run(asked: Subject, context: &Context) -> Result<Exit, CliError> {
    let Subject { id, handle, window, of } = asked;
    let filter = LeafFilter { subject: id.unwrap_or_default(), handle, ..Default::default() };
    Leaves::ask(window.asks(of.log, filter), window.since(), context).await?.show("subject", context).await
}
