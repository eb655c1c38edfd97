//! `strongroom keys roll`: start it, watch it, end it.

use clap::Args as ClapArgs;
use strongroom_proto::v1::StartRollRequest;

use super::job::How;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// Roll, in the background, the DEKs under which a value was deleted or replaced, and watch it.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom keys roll                    what is marked, and watch
  strongroom keys roll kek/1              also all other DEKs of this KEK
  strongroom keys roll --subject cust-1   also all DEKs of this data subject
  strongroom keys roll --detach           the vault goes on by itself, also after a restart
  strongroom keys roll --status
  strongroom keys roll --cancel           what is done stays done; what is marked is rolled by the next

A DEK that is rolled gets a new version and its values are sealed anew; tokens stay what they are. What it sealed and
is gone since can't be opened any more, wherever its bytes still are; older copies of the whole of `data/` are another
matter: they hold the old version as well, and die with its KEK.

Exit code 3: DEKs were skipped, since they need a version that is disabled or destroyed, or somebody else
cancelled the job.")]
pub struct Args {
    /// Also the DEKs of this KEK: kek/1.
    #[arg(conflicts_with_all = ["status", "watch", "cancel"])]
    name: Option<String>,

    /// Also the DEKs of this data subject; with a KEK, the one DEK of both.
    #[arg(long, value_name = "ID", conflicts_with_all = ["status", "watch", "cancel"])]
    subject: Option<String>,

    #[command(flatten)]
    how: How,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let job = match args.how.with_newest("roll", context).await? {
        Some(job) => job,
        None => {
            let (name, subject) = (args.name.unwrap_or_default(), args.subject.unwrap_or_default());
            let started = context.keys().await?.start_roll(StartRollRequest { name, subject }).await?.into_inner();
            args.how.after(started, context).await?
        }
    };
    args.how.show(&job, context)
}
