//! `strongroom keys maintain`: all that is due, once a night.
//!
//! Whatever it does may be done again: a rotation names the version that it replaces, a job that runs already is
//! watched, and a version that is gone is not destroyed twice.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::{
    DestroyKeyVersionRequest, Job, KeyVersion, ListKeysRequest, RotateKeyRequest, StartReindexRequest,
    StartRewrapRequest, StartRollRequest,
};
use tonic::Code;

use super::job;
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit, Refusal, facts};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Do all that is due: rotate, roll, wrap and index anew, destroy. For a job that runs every night.
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Rotates each KEK and index key whose crypto-period is over, rolls the DEKs under which a value was deleted
or replaced, wraps the DEKs of older versions anew, makes their index entries anew, and destroys versions that no
DEK and no index entry has needed for --keep days. To run it again changes nothing.

Backups of the data that were made before the last DEK, or index entry, has left a version can't be read once it is
destroyed: keep versions for as long as such backups shall be restorable.

Exit code 3: something waits, and is printed."
)]
pub struct Args {
    /// Days for which a version is kept after the last DEK or index entry has left it.
    #[arg(long, default_value_t = 90, value_name = "DAYS")]
    keep: u32,

    /// Destroy nothing.
    #[arg(long)]
    no_destroy: bool,
}

/// What was done, and what could not be.
#[derive(Default)]
struct Done {
    rotated: Vec<String>,
    rolled: Option<Job>,
    rewrapped: Option<Job>,
    reindexed: Option<Job>,
    destroyed: Vec<String>,
    /// What waits, and for what.
    waiting: Vec<String>,
}

impl Done {
    /// Notes what a job has left.
    fn wait_for(&mut self, job: &Job, kind: &str) {
        if job.state != "done" {
            self.waiting.push(format!("{} is {}: strongroom keys {kind} --watch", job.name, job.state));
        }
        if job.skipped > 0 {
            let (name, skipped, units) = (&job.name, job.skipped, job::units(job));
            self.waiting.push(format!(
                "{name}: {skipped} {units} need a version that is disabled or destroyed, or are damaged"
            ));
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let mut done = Done::default();
    rotate_due(now, context, &mut done).await?;
    done.rolled = take("roll", &mut done, context).await?;
    let keys = list(context).await?;
    for (kind, prefix) in [("rewrap", "kek/"), ("reindex", "index/")] {
        let older: Vec<&KeyVersion> = keys.iter().filter(|key| is_older(key, &keys, prefix)).collect();
        if older.is_empty() {
            continue;
        }
        let Some(job) = take(kind, &mut done, context).await? else { continue };
        let moved = job.moved_time.as_ref().map_or(i64::MIN, |time| time.seconds);
        let kept = i64::from(args.keep) * DAY;
        // A job that found nothing to do tells that nothing has needed an older version since the last one that did.
        let free = |since: i64| job.state == "done" && now.saturating_sub(since.max(moved)) >= kept;
        let since = |key: &KeyVersion| key.state_time.as_ref().map_or(i64::MAX, |time| time.seconds);
        for key in older.into_iter().filter(|key| !args.no_destroy && key.state != "disabled" && free(since(key))) {
            destroy(key, context, &mut done).await?;
        }
        match kind {
            "rewrap" => done.rewrapped = Some(job),
            _ => done.reindexed = Some(job),
        }
    }
    context.output.show(|| document(&done), || text(&done))?;
    Ok(if done.waiting.is_empty() { Exit::Done } else { Exit::Partly })
}

async fn list(context: &Context) -> Result<Vec<KeyVersion>, CliError> {
    Ok(context.keys().await?.list_keys(ListKeysRequest {}).await?.into_inner().keys)
}

/// Whether a version of such a key was replaced and is still there.
fn is_older(key: &KeyVersion, keys: &[KeyVersion], prefix: &str) -> bool {
    let replaced = keys.iter().any(|other| other.name == key.name && other.version > key.version);
    key.name.starts_with(prefix) && replaced && key.state != "destroyed"
}

async fn rotate_due(now: i64, context: &Context, done: &mut Done) -> Result<(), CliError> {
    let due = |key: &KeyVersion| key.next_rotation_time.as_ref().is_some_and(|time| time.seconds <= now);
    for key in list(context).await?.into_iter().filter(due) {
        if key.state != "enabled" {
            done.waiting
                .push(format!("version {} of {} is {}, so it is not rotated", key.version, key.name, key.state));
            continue;
        }
        let request = RotateKeyRequest { name: key.name.clone(), from_version: key.version };
        let rotated = match context.keys().await?.rotate_key(request).await {
            Ok(rotated) => rotated.into_inner(),
            // An index key has as many versions as it may: an officer destroys some, and the rest is done tonight.
            Err(refused) if Refusal::from(&refused).reason == "KEY_STATE" => {
                done.waiting.push(refused.message().to_owned());
                continue;
            }
            Err(refused) => return Err(refused.into()),
        };
        if rotated.rotated {
            done.rotated.push(format!("{} to version {}", key.name, rotated.version));
        }
    }
    Ok(())
}

/// Starts a job of a kind and watches it to its end. One that runs already may have begun before tonight's rotation, or
/// have passed by what was marked since: it is watched to its end first. None: nobody may start it.
async fn take(kind: &'static str, done: &mut Done, context: &Context) -> Result<Option<Job>, CliError> {
    let job = loop {
        let mut keys = context.keys().await?;
        let started = match kind {
            "roll" => keys.start_roll(StartRollRequest::default()).await,
            "reindex" => keys.start_reindex(StartReindexRequest::default()).await,
            _ => keys.start_rewrap(StartRewrapRequest::default()).await,
        };
        match started {
            Ok(job) => break job::to_its_end(job.into_inner(), context).await?,
            Err(refused) if Refusal::from(&refused).reason == "JOB_RUNNING" => {
                let other = job::watch(kind.to_owned(), context).await?;
                if other.state == "running" {
                    break other;
                }
            }
            // Policies that were applied before there were such jobs do not know the action.
            Err(refused) if refused.code() == Code::PermissionDenied && kind != "rewrap" => {
                done.waiting.push(format!("an officer: policy that permits the action {kind}"));
                return Ok(None);
            }
            Err(refused) => return Err(refused.into()),
        }
    };
    done.wait_for(&job, kind);
    Ok(Some(job))
}

async fn destroy(key: &KeyVersion, context: &Context, done: &mut Done) -> Result<(), CliError> {
    let (name, version) = (&key.name, key.version);
    let request = DestroyKeyVersionRequest { name: name.clone(), version, dry_run: false };
    match context.keys().await?.destroy_key_version(request).await {
        Ok(_) => done.destroyed.push(format!("version {version} of {name}")),
        Err(refused) if refused.code() == Code::PermissionDenied => {
            done.waiting.push(format!("an officer: strongroom keys destroy {name} {version} --as OFFICER"))
        }
        // It waits, and the same is asked for the next night.
        Err(refused) if ["KEY_IN_USE", "APPROVAL_REQUIRED"].contains(&&*Refusal::from(&refused).reason) => {
            done.waiting.push(refused.message().to_owned());
        }
        Err(refused) => return Err(refused.into()),
    }
    Ok(())
}

fn document(done: &Done) -> serde_json::Value {
    json!({
        "rotated": done.rotated,
        "rolled": done.rolled.as_ref().map(job::document),
        "rewrapped": done.rewrapped.as_ref().map(job::document),
        "reindexed": done.reindexed.as_ref().map(job::document),
        "destroyed": done.destroyed,
        "waiting": done.waiting,
    })
}

fn text(done: &Done) -> String {
    let list = |what: &[String]| if what.is_empty() { "nothing".to_owned() } else { what.join(", ") };
    let count = |job: &Option<Job>| {
        job.as_ref().map_or("nothing".to_owned(), |job| format!("{} {}", job.done, job::units(job)))
    };
    let mut pairs = vec![
        ("rotated", list(&done.rotated)),
        ("rolled", count(&done.rolled)),
        ("wrapped anew", count(&done.rewrapped)),
        ("indexed anew", count(&done.reindexed)),
        ("destroyed", list(&done.destroyed)),
    ];
    pairs.extend(done.waiting.iter().map(|what| ("waiting", what.clone())));
    facts(pairs)
}
