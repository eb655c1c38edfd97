//! `strongroom keys backup` and `copies`: the keystore's copies, and the list of them.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use strongroom_proto::v1::{BackupKeystoreRequest, KeystoreCopy, ListKeystoreCopiesRequest, StrikeKeystoreCopyRequest};

use super::instant;
use crate::cli::client::Context;
use crate::cli::files::sync_folder;
use crate::cli::output::{CliError, Exit, table};
use crate::cli::pki::write_private;

/// What a backup needs.
#[derive(Clone, Debug, ClapArgs)]
pub struct BackupArgs {
    /// Where the copy goes. A file that is there is never overwritten.
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// What shall stand on the list about this copy: where it will lie.
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
}

/// What is done with the list.
#[derive(Clone, Debug, ClapArgs)]
pub struct CopiesArgs {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Strike a copy off the list: you have destroyed it, or nothing can open it any more.
    Strike {
        /// The copy: copy/7.
        name: String,
    },
}

/// Copies the keystore into a file.
pub async fn backup(args: BackupArgs, context: &Context) -> Result<Exit, CliError> {
    if args.out.exists() {
        return Err(CliError::unfit(format!("{} is there already; nothing was copied", args.out.display())));
    }
    let request = BackupKeystoreRequest { label: args.label };
    let answer = context.keys().await?.backup_keystore(request).await?.into_inner();
    let copy = answer.copy.unwrap_or_default();
    write_private(&args.out, &answer.content).and_then(|()| sync_folder(&args.out)).map_err(|error| {
        CliError::Unfit {
            message: format!("{} is on the list, and its file could not be written: {error}", copy.name),
            next: format!("strongroom keys copies strike {}, then another backup", copy.name),
        }
    })?;
    context.output.show(
        || document(&copy),
        || {
            format!(
                "{}: keystore number {} is in {}\nKeep it apart from copies of the data.",
                copy.name,
                copy.keystore_number,
                args.out.display()
            )
        },
    )?;
    Ok(Exit::Done)
}

/// Shows the list, or strikes a copy off it.
pub async fn copies(args: CopiesArgs, context: &Context) -> Result<Exit, CliError> {
    let mut keys = context.keys().await?;
    match args.command {
        None => {
            let copies = keys.list_keystore_copies(ListKeystoreCopiesRequest {}).await?.into_inner().copies;
            context
                .output
                .show(|| json!({ "copies": copies.iter().map(document).collect::<Vec<_>>() }), || text(&copies))?;
        }
        Some(Command::Strike { name }) => {
            let copy = keys.strike_keystore_copy(StrikeKeystoreCopyRequest { name }).await?.into_inner();
            context.output.show(|| document(&copy), || format!("{} is struck off the list", copy.name))?;
        }
    }
    Ok(Exit::Done)
}

fn document(copy: &KeystoreCopy) -> Value {
    json!({
        "name": copy.name,
        "label": copy.label,
        "principal": copy.principal,
        "create_time": instant(copy.create_time.as_ref()),
        // Numbers of 64 bits are strings, as in the ledger.
        "keystore_number": copy.keystore_number.to_string(),
        "sha256": copy.sha256,
        "strike_time": copy.strike_time.as_ref().map(|time| instant(Some(time))),
    })
}

fn text(copies: &[KeystoreCopy]) -> String {
    if copies.is_empty() {
        return "no copy was made yet: strongroom keys backup OUT".to_owned();
    }
    let rows = copies.iter().map(|copy| {
        vec![
            copy.name.clone(),
            instant(copy.create_time.as_ref()),
            copy.keystore_number.to_string(),
            copy.label.clone(),
            copy.strike_time.as_ref().map_or_else(String::new, |time| instant(Some(time))),
        ]
    });
    table(&["COPY", "MADE", "KEYSTORE", "LABEL", "STRUCK OFF"], rows)
}
