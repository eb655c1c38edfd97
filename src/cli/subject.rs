//! `strongroom subject`: the labels of a data subject, its consents, and what it is told of itself.

mod consent;
mod export;
mod report;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_proto::v1::{GetLabelsRequest, SetLabelsRequest};

use super::client::Context;
use super::output::{CliError, Exit};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "privacy";

/// Set and show the labels of a data subject, by which it is in somebody's case load; record what it allows, and tell it what
/// is held of it.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Set all labels of a data subject: policies see whether the person behind a service shares one.
    #[command(after_help = "Examples:
  strongroom subject label customer-4711 branch-12 mortgages
  strongroom subject label customer-4711 --none

Labels stand in the ledger in clear: a branch or a portfolio, and nothing that
is personal. A subject has at most 8, each 1 to 32 of a-z 0-9 . - _")]
    Label {
        /// The subject's id, as values were stored with.
        id: String,

        /// All labels that it shall have; those that it had and that are not here are taken away.
        #[arg(required_unless_present = "none", value_name = "LABEL")]
        labels: Vec<String>,

        /// Take all labels away.
        #[arg(long, conflicts_with = "labels")]
        none: bool,
    },
    /// Show the labels of a data subject.
    #[command(after_help = "Examples:
  strongroom subject labels customer-4711")]
    Labels {
        /// The subject's id, as values were stored with.
        id: String,
    },
    /// Report what is held of a data subject, why and until when, what it allowed, and who read it when and for what.
    #[command(after_help = report::HELP)]
    Report(report::Args),
    /// Export the values of a data subject.
    #[command(after_help = export::HELP)]
    Export(export::Args),
    /// Record what a data subject allows, and takes back.
    Consent(consent::Args),
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Report(args) => return report::run(args, context).await,
        Command::Export(args) => return export::run(args, context).await,
        Command::Consent(args) => return consent::run(args, context).await,
        Command::Label { id, labels, none: _ } => {
            let mut subjects = context.subjects().await?;
            let request = SetLabelsRequest { subject: id, labels };
            let changed = context.subjects().await?.set_labels(request).await?.into_inner().changed;
            context.output.show(
                || json!({ "changed": changed }),
                || match changed {
                    true => "the labels are set: every decision from now on stands on them".to_owned(),
                    false => "it had just these labels: nothing has changed".to_owned(),
                },
            )?;
        }
        Command::Labels { id } => {
            let request = GetLabelsRequest { subject: id };
            let labels = context.subjects().await?.get_labels(request).await?.into_inner().labels;
            context.output.show(
                || json!({ "labels": labels }),
                || if labels.is_empty() { "it has no labels".to_owned() } else { labels.join("\n") },
            )?;
        }
    }
    Ok(Exit::Done)
}
