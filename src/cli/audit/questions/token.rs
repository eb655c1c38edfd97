//! `strongroom audit token`: everything that was done to the value behind one token.

use clap::Args as ClapArgs;
use strongroom_proto::v1::LeafFilter;

use super::{Leaves, Window};
use crate::cli::audit::options::Of;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit token srt1_2rYp7Vq9TzKfMhW4cNxUbE
  strongroom audit token --row 281474976710699         # of a value that was deleted

One line for each item that concerns the value: stored, read, matched, replaced,
deleted, refused. That you ask is recorded. A token leads nowhere once its value
is deleted; the row, which every line of it names, still does.";

/// What it is about.
#[derive(Clone, Debug, ClapArgs)]
pub struct Token {
    /// The token.
    #[arg(required_unless_present = "row")]
    token: Option<String>,

    /// The same by its row, as leaves have it.
    #[arg(long, value_name = "NUMBER", conflicts_with = "token")]
    row: Option<u64>,

    #[command(flatten)]
    window: Window,

    #[command(flatten)]
    of: Of,
}

impl Token {
    /// Which ledger.
    pub fn log(&self) -> &str {
        &self.of.log
    }
}

/// Asks, and shows what comes.
pub async fn run(asked: Token, context: &Context) -> Result<Exit, CliError> {
    let Token { token, row, window, of } = asked;
    let filter = LeafFilter { token: token.unwrap_or_default(), row, ..Default::default() };
    Leaves::ask(window.asks(of.log, filter), window.since(), context).await?.show("token", context).await
}
