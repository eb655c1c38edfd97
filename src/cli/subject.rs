//! `strongroom subject`: what the vault knows of a data subject besides its values, what it is told of itself, and its end.

mod consent;
mod erase;
mod export;
mod hold;
mod report;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_proto::v1::{GetLabelsRequest, SetLabelsRequest};

use super::client::{Context, Global};
use super::output::{CliError, Exit};

/// Who asks unless the caller says otherwise.
const PRINCIPAL: &str = "privacy";
/// The same of legal holds: who erases does not say what is kept.
const OFFICER: &str = "officer-1";

/// Tell a data subject what is held of it, record what it allows, erase it, hold what must be kept of it, and say in whose
/// case load it is.
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
    Erase(erase::Args),
    UndoErasure(erase::UndoArgs),
    Erasure(erase::GetArgs),
    Erasures(erase::ListArgs),
    VerifyReceipt(erase::VerifyArgs),
    Hold(hold::Args),
    Lift(hold::LiftArgs),
    Holds(hold::ListArgs),
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let (desk, officer) = (|| global.context(PRINCIPAL), || global.context(OFFICER));
    match args.command {
        Command::Label { id, labels, none: _ } => set_labels(id, labels, &desk()?).await,
        Command::Labels { id } => show_labels(id, &desk()?).await,
        Command::Report(args) => report::run(args, &desk()?).await,
        Command::Export(args) => export::run(args, &desk()?).await,
        Command::Consent(args) => consent::run(args, &desk()?).await,
        Command::Erase(args) => erase::run(args, &desk()?).await,
        Command::UndoErasure(args) => erase::undo(args, &desk()?).await,
        Command::Erasure(args) => erase::get(args, &desk()?).await,
        Command::Erasures(args) => erase::list(args, &desk()?).await,
        Command::VerifyReceipt(args) => erase::verify(&args, global.output),
        Command::Hold(args) => hold::run(args, &officer()?).await,
        Command::Lift(args) => hold::lift(args, &officer()?).await,
        Command::Holds(args) => hold::list(args, &desk()?).await,
    }
}

async fn set_labels(subject: String, labels: Vec<String>, context: &Context) -> Result<Exit, CliError> {
    let request = SetLabelsRequest { subject, labels };
    let changed = context.subjects().await?.set_labels(request).await?.into_inner().changed;
    context.output.show(
        || json!({ "changed": changed }),
        || match changed {
            true => "the labels are set: every decision from now on stands on them".to_owned(),
            false => "it had just these labels: nothing has changed".to_owned(),
        },
    )?;
    Ok(Exit::Done)
}

async fn show_labels(subject: String, context: &Context) -> Result<Exit, CliError> {
    let labels = context.subjects().await?.get_labels(GetLabelsRequest { subject }).await?.into_inner().labels;
    context.output.show(
        || json!({ "labels": labels }),
        || if labels.is_empty() { "it has no labels".to_owned() } else { labels.join("\n") },
    )?;
    Ok(Exit::Done)
}
