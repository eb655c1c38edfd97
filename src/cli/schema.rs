//! `strongroom schema`: declare collections, fields, views and purposes, and show what is in force.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_proto::v1::{ApplySchemaRequest, GetSchemaRequest};

use super::client::Context;
use super::output::{CliError, Exit};
use super::policy::with_notes;

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

/// Declare collections, fields, views and purposes, or show what is in force.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Put a schema file in force, at once and for everybody.
    #[command(after_help = "Examples:
  strongroom schema apply deploy/schemas/lending.toml --check
  strongroom schema apply deploy/schemas/lending.toml

What would strand stored values (another type under the same number, a number
used again) is refused.")]
    Apply {
        /// The schema, TOML.
        file: PathBuf,

        /// Only check it; change nothing.
        #[arg(long)]
        check: bool,
    },
    /// Print the schema in force, as it was applied.
    #[command(after_help = "Example:
  strongroom schema show > in-force.toml")]
    Show,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Apply { file, check } => {
            let source = read_source(&file)?;
            let request = ApplySchemaRequest { source, dry_run: check };
            let applied = context.access().await?.apply_schema(request).await?.into_inner();
            context.output.show(
                || {
                    let (version, fields, notes) = (applied.version, applied.fields, &applied.notes);
                    json!({ "version": version, "fields": fields, "in_force": !check, "notes": notes })
                },
                || {
                    let done = match check {
                        true => format!("good: {} fields; it would be version {}", applied.fields, applied.version),
                        false => format!("schema version {} is in force: {} fields", applied.version, applied.fields),
                    };
                    with_notes(done, &applied.notes)
                },
            )?;
        }
        Command::Show => {
            let schema = context.access().await?.get_schema(GetSchemaRequest {}).await?.into_inner();
            if schema.version == 0 {
                return Err(CliError::Unfit {
                    message: "no schema is in force yet".into(),
                    next: "strongroom schema apply FILE".into(),
                });
            }
            context
                .output
                .show(|| json!({ "version": schema.version, "source": schema.source }), || schema.source.clone())?;
        }
    }
    Ok(Exit::Done)
}

/// Reads a text file that is sent as it is.
pub fn read_source(path: &PathBuf) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))
}
