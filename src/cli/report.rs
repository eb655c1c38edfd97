//! `strongroom report`: what a supervisor asks for.

mod processing;

use clap::{Args as ClapArgs, Subcommand};

use super::client::Context;
use super::output::{CliError, Exit};
pub use processing::{archived, field_document, purpose_document, purpose_row};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "privacy";

/// Draw up reports for supervisors.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// The records of processing (GDPR 30, PIPL 54 and 55): fields, classes, purposes, bases, recipients, retention, volumes.
    #[command(after_help = processing::HELP)]
    Processing(processing::Args),
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Processing(args) => processing::run(args, context).await,
    }
}
