//! `strongroom principal`: suspend somebody, and end that; say how much somebody may read.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_proto::v1::{SuspendRequest, UnsuspendRequest};

use super::client::Context;
use super::output::{CliError, Exit};
use super::tiers;

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

/// Suspend a principal of your tenant, or end that; put it into a tier, which says how much it may read.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Refuse whatever a principal asks, at once, also what it has under way.
    #[command(after_help = "Examples:
  strongroom principal suspend app/loan-core --reason 'its key was found on a laptop'
  strongroom principal suspend officer/officer-2 --reason 'left the bank'

It goes by role and name: a new certificate under the same name is suspended,
too. Officers are suspended by officers only, and nobody by itself.
`strongroom freezes` shows the reason; write no customer data into it.")]
    Suspend {
        /// Role and name: app/loan-core.
        name: String,

        /// Why: up to 200 bytes on one line.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Answer a principal again.
    #[command(after_help = "Examples:
  strongroom principal unsuspend app/loan-core")]
    Unsuspend {
        /// Role and name: app/loan-core.
        name: String,
    },
    /// Put a principal into a tier, from now on.
    Tier(tiers::TierArgs),
    /// Set how much may be read in a tier.
    Limits(tiers::LimitsArgs),
    /// Show who has a tier or is suspended, and what the tiers allow.
    List(tiers::ListArgs),
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let mut access = context.access().await?;
    let (name, suspended, changed) = match args.command {
        Command::Suspend { name, reason } => {
            let request = SuspendRequest { principal: name.clone(), reason };
            (name, true, access.suspend(request).await?.into_inner().changed)
        }
        Command::Unsuspend { name } => {
            let request = UnsuspendRequest { principal: name.clone() };
            (name, false, access.unsuspend(request).await?.into_inner().changed)
        }
        Command::Tier(args) => return tiers::give(args, context).await,
        Command::Limits(args) => return tiers::limit(args, context).await,
        Command::List(args) => return tiers::list(args, context).await,
    };
    context.output.show(
        || json!({ "principal": name, "suspended": suspended, "changed": changed }),
        || match (suspended, changed) {
            (true, true) => format!("{name} is suspended; `strongroom principal unsuspend {name}` ends that"),
            (true, false) => format!("{name} was suspended already: `strongroom freezes` shows since when and why"),
            (false, true) => format!("{name} is answered again"),
            (false, false) => format!("{name} was not suspended: nothing has changed"),
        },
    )?;
    Ok(Exit::Done)
}
