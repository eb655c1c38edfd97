//! `strongroom officer`: who the officers of a tenant are, and how they change that while the vault runs.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_proto::v1::{EnrolOfficerRequest, ListOfficersRequest, RemoveOfficerRequest};

use super::client::Context;
use super::output::{CliError, Exit, table};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

/// Show, enrol and remove the security officers of your tenant.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show the officers, and the SHA-256 of the public key that each is enrolled with.
    List,
    /// Enrol an officer, or give one a new key, with the approval of another officer.
    #[command(after_help = "Example:
  strongroom officer enrol carol --certificate carol.pem     waits for approval
  strongroom approve approval/7 --as officer-2
  strongroom officer enrol carol --certificate carol.pem     is done

The certificate names the officer by one URI: spiffe://TRUST-DOMAIN/tenant/TENANT/officer/NAME. From then on an officer
is who holds that key. Where no other officer is left: strongroom break-glass officer.
Exit code 3 while it waits.")]
    Enrol {
        /// The name under the role: carol.
        name: String,

        /// Its certificate, PEM.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
    },
    /// Remove an officer, with the approval of another officer.
    #[command(after_help = "Example:
  strongroom officer remove carol

What the officer asks after that is refused, on connections that stand as well. As many officers are left as approvals
need. Exit code 3 while it waits.")]
    Remove {
        /// The name under the role: carol.
        name: String,
    },
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::List => list(context).await,
        Command::Enrol { name, certificate } => enrol(name, certificate, context).await,
        Command::Remove { name } => remove(name, context).await,
    }
}

async fn list(context: &Context) -> Result<Exit, CliError> {
    let officers = context.access().await?.list_officers(ListOfficersRequest {}).await?.into_inner().officers;
    context.output.show(
        || {
            let officers = officers
                .iter()
                .map(|one| json!({ "name": one.name, "key": one.key, "suspended": one.suspended }))
                .collect::<Vec<_>>();
            json!({ "officers": officers })
        },
        || {
            let rows = officers.iter().map(|one| {
                let state = if one.suspended { "suspended" } else { "enrolled" };
                vec![one.name.clone(), one.key.clone(), state.to_owned()]
            });
            table(&["OFFICER", "SHA-256 OF ITS PUBLIC KEY", "IS"], rows)
        },
    )?;
    Ok(Exit::Done)
}

async fn enrol(name: String, path: PathBuf, context: &Context) -> Result<Exit, CliError> {
    let certificate = std::fs::read(&path).map_err(|error| CliError::file(&path, error))?.into();
    context.access().await?.enrol_officer(EnrolOfficerRequest { name: name.clone(), certificate }).await?;
    context.output.show(
        || json!({ "officer": name, "enrolled": true }),
        || format!("{name} is enrolled: whoever holds the key of {} is that officer from now on", path.display()),
    )?;
    Ok(Exit::Done)
}

async fn remove(name: String, context: &Context) -> Result<Exit, CliError> {
    context.access().await?.remove_officer(RemoveOfficerRequest { name: name.clone() }).await?;
    context.output.show(
        || json!({ "officer": name, "enrolled": false }),
        || format!("{name} is no officer any more; `strongroom officer list` shows who is"),
    )?;
    Ok(Exit::Done)
}
