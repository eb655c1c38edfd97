//! `strongroom keys reindex`: start it, watch it, end it.

use clap::Args as ClapArgs;
use strongroom_proto::v1::StartReindexRequest;

use super::job::How;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit};

/// Make anew, in the background, the index entries that an older version of their key made, and watch it.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom keys rotate index/field/2    the index key of a field; index/subject-id and index/token are the others
  strongroom keys reindex                 all entries under older versions, and watch
  strongroom keys reindex --detach        the vault goes on by itself, also after a restart
  strongroom keys reindex --status
  strongroom keys reindex --cancel        what is done stays done

An index entry is a keyed hash by which a subject's id, a shaped token or a value is found. Meanwhile all versions answer;
tokens stay what they are, and the rows that the entries lead to are sealed anew, in a next version. What is left under
an older version can be seen by strongroom keys destroy --dry-run.

Exit code 3: entries were skipped, since what they are made from needs a version of a KEK that is disabled, or somebody
else cancelled the job.")]
pub struct Args {
    #[command(flatten)]
    how: How,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let job = match args.how.with_newest("reindex", context).await? {
        Some(job) => job,
        None => {
            let started = context.keys().await?.start_reindex(StartReindexRequest {}).await?.into_inner();
            args.how.after(started, context).await?
        }
    };
    args.how.show(&job, context)
}
