//! `strongroom keys rewrap`: start it, watch it, end it.

use clap::Args as ClapArgs;
use strongroom_proto::v1::StartRewrapRequest;

use super::job::How;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// Wrap anew, in the background, the DEKs that an older version of their KEK wraps, and watch it.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom keys rewrap                  all KEKs, and watch
  strongroom keys rewrap kek/1 --detach   one KEK; the vault goes on by itself, also after a restart
  strongroom keys rewrap --status
  strongroom keys rewrap --cancel         what is done stays done

Exit code 3: DEKs were skipped, since they need a version that is disabled or destroyed, or somebody else
cancelled the job.")]
pub struct Args {
    /// Only the DEKs of this KEK: kek/1.
    #[arg(conflicts_with_all = ["status", "watch", "cancel"])]
    name: Option<String>,

    #[command(flatten)]
    how: How,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let job = match args.how.with_newest("rewrap", context).await? {
        Some(job) => job,
        None => {
            let name = args.name.unwrap_or_default();
            let started = context.keys().await?.start_rewrap(StartRewrapRequest { name }).await?.into_inner();
            args.how.after(started, context).await?
        }
    };
    args.how.show(&job, context)
}
