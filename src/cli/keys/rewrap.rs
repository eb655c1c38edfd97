//! `strongroom keys rewrap`: start it, watch it, end it.

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use strongroom_proto::v1::{CancelJobRequest, GetJobRequest, Job, StartRewrapRequest, WatchJobRequest};

use super::instant;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit, facts};

/// The newest job of this kind.
const NEWEST: &str = "rewrap";

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
    name: Option<String>,

    /// Start it and do not wait for its end.
    #[arg(long, conflicts_with_all = ["status", "watch", "cancel"])]
    detach: bool,

    /// Say how far the newest one has come.
    #[arg(long, conflicts_with_all = ["name", "watch", "cancel"])]
    status: bool,

    /// Watch the newest one until it ends.
    #[arg(long, conflicts_with_all = ["name", "cancel"])]
    watch: bool,

    /// End it.
    #[arg(long, conflicts_with = "name")]
    cancel: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let newest = || NEWEST.to_owned();
    let mut keys = context.keys().await?;
    let job = if args.status {
        keys.get_job(GetJobRequest { name: newest() }).await?.into_inner()
    } else if args.cancel {
        keys.cancel_job(CancelJobRequest { name: newest() }).await?.into_inner()
    } else if args.watch {
        watch(newest(), context).await?
    } else {
        let name = args.name.unwrap_or_default();
        let started = keys.start_rewrap(StartRewrapRequest { name }).await?.into_inner();
        if args.detach { started } else { watch(started.name, context).await? }
    };
    context.output.show(|| document(&job), || text(&job))?;
    let asked_to_end = args.cancel;
    Ok(if job.skipped > 0 || (job.state == "cancelled" && !asked_to_end) { Exit::Partly } else { Exit::Done })
}

/// Watches a job until it ends, with a bar for people.
pub async fn watch(name: String, context: &Context) -> Result<Job, CliError> {
    let mut keys = context.keys().await?;
    let mut steps = keys.watch_job(WatchJobRequest { name: name.clone() }).await?.into_inner();
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg}  {wide_bar}  {human_pos} of {human_len} DEKs  {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(name.clone());
    let mut last = None;
    while let Some(job) = steps.message().await? {
        bar.set_length(job.total);
        bar.set_position(job.done + job.skipped);
        last = Some(job);
    }
    bar.finish_and_clear();
    match last {
        Some(job) if job.state != "running" => Ok(job),
        // The vault shut down, or another job has begun: it says itself what has become of this one.
        _ => Ok(keys.get_job(GetJobRequest { name }).await?.into_inner()),
    }
}

/// A job as a document.
pub fn document(job: &Job) -> Value {
    json!({
        "name": job.name,
        "state": job.state,
        "key": job.key,
        "principal": job.principal,
        "start_time": instant(job.start_time.as_ref()),
        "update_time": instant(job.update_time.as_ref()),
        "total": job.total.to_string(),
        "moved_time": instant(job.moved_time.as_ref()),
        "done": job.done.to_string(),
        "skipped": job.skipped.to_string(),
    })
}

fn text(job: &Job) -> String {
    let mut pairs = vec![
        ("job", job.name.clone()),
        ("state", job.state.clone()),
        ("keys", if job.key.is_empty() { "all KEKs".to_owned() } else { job.key.clone() }),
        ("started by", job.principal.clone()),
        ("started", instant(job.start_time.as_ref())),
        ("last step", instant(job.update_time.as_ref())),
        ("wrapped anew", format!("{} of {} DEKs", job.done, job.total)),
    ];
    if job.skipped > 0 {
        pairs.push(("skipped", format!("{} DEKs that need a version that is disabled or destroyed", job.skipped)));
    }
    facts(pairs)
}
