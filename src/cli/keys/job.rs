//! A background job, as the command line watches and prints it.

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use strongroom_proto::v1::{CancelJobRequest, GetJobRequest, Job, WatchJobRequest};

use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit, facts, instant};

/// What is done with a job, instead of starting one and watching it.
#[derive(Clone, Debug, ClapArgs)]
#[group(id = "how", multiple = false)]
pub struct How {
    /// Start it and do not wait for its end.
    #[arg(long)]
    detach: bool,

    /// Say how far the newest one has come.
    #[arg(long)]
    status: bool,

    /// Watch the newest one until it ends.
    #[arg(long)]
    watch: bool,

    /// End it.
    #[arg(long)]
    cancel: bool,
}

impl How {
    /// Does what was asked for with the newest job of a kind; none if one shall be started.
    pub async fn with_newest(&self, kind: &str, context: &Context) -> Result<Option<Job>, CliError> {
        let name = kind.to_owned();
        let mut keys = context.keys().await?;
        Ok(if self.status {
            Some(keys.get_job(GetJobRequest { name }).await?.into_inner())
        } else if self.cancel {
            Some(keys.cancel_job(CancelJobRequest { name }).await?.into_inner())
        } else if self.watch {
            Some(watch(name, context).await?)
        } else {
            None
        })
    }

    /// Watches a job that was started to its end, unless nobody is to wait for it.
    pub async fn after(&self, started: Job, context: &Context) -> Result<Job, CliError> {
        if self.detach { Ok(started) } else { to_its_end(started, context).await }
    }

    /// Prints a job.
    pub fn show(&self, job: &Job, context: &Context) -> Result<Exit, CliError> {
        context.output.show(|| document(job), || text(job))?;
        let cancelled = job.state == "cancelled" && !self.cancel;
        Ok(if job.skipped > 0 || cancelled || !job.waits_for.is_empty() { Exit::Partly } else { Exit::Done })
    }
}

/// Watches a job until it ends, with a bar for people.
pub async fn watch(name: String, context: &Context) -> Result<Job, CliError> {
    let mut keys = context.keys().await?;
    let mut steps = keys.watch_job(WatchJobRequest { name: name.clone() }).await?.into_inner();
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg}  {wide_bar}  {human_pos} of {human_len}  {eta} left") {
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

/// Watches a job that was started, if it did not find that there is nothing to do.
pub async fn to_its_end(started: Job, context: &Context) -> Result<Job, CliError> {
    if started.state == "running" { watch(started.name, context).await } else { Ok(started) }
}

/// What a job does, one by one.
pub fn units(job: &Job) -> &'static str {
    match kind(job) {
        "reindex" => "index entries",
        "expire" => "values",
        _ => "DEKs",
    }
}

fn kind(job: &Job) -> &str {
    job.name.split('/').next().unwrap_or_default()
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
        "waits_for": job.waits_for,
    })
}

fn text(job: &Job) -> String {
    let (all, done) = match kind(job) {
        "roll" => ("those that are marked", "rolled"),
        "reindex" => ("all index keys", "made anew"),
        "expire" => ("", "erased"),
        _ => ("all KEKs", "wrapped anew"),
    };
    let units = units(job);
    let keys = if job.key.is_empty() { all } else { &job.key };
    let mut pairs = vec![("job", job.name.clone()), ("state", job.state.clone())];
    pairs.extend((!keys.is_empty()).then(|| ("keys", keys.to_owned())));
    pairs.extend([
        ("started by", job.principal.clone()),
        ("started", instant(job.start_time.as_ref())),
        ("last step", instant(job.update_time.as_ref())),
        (done, format!("{} of {} {units}", job.done, job.total)),
    ]);
    if job.skipped > 0 {
        let why = match kind(job) {
            "expire" => "that a legal hold or a freeze keeps, or whose subject is being erased",
            _ => "that need a version that is disabled or destroyed, or are damaged: the vault's log says which",
        };
        pairs.push(("skipped", format!("{} {units} {why}", job.skipped)));
    }
    if !job.waits_for.is_empty() {
        pairs.push(("waits for", job.waits_for.clone()));
    }
    facts(pairs)
}
