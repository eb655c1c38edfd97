//! `strongroom keys maintain`: all that is due, once a night.
//!
//! Whatever it does may be done again: a rotation names the version that it replaces, a rewrap that runs already is
//! watched, and a version that is gone is not destroyed twice.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::{
    DestroyKeyVersionRequest, Job, KeyVersion, ListKeysRequest, RotateKeyRequest, StartRewrapRequest, StartRollRequest,
};
use tonic::Code;

use super::{job, roll};
use crate::cli::client::Context;
use crate::cli::output::{CliError, Exit, Refusal, facts};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Do all that is due: rotate, roll, wrap anew, destroy. For a job that runs every night.
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Rotates each KEK whose crypto-period is over, rolls the DEKs under which a value was deleted or replaced,
wraps the DEKs of older versions anew, and destroys versions that no DEK has needed for --keep days. To run it
again changes nothing.

Backups of the data that were made before a version's last DEK was wrapped anew can't be read once it is
destroyed: keep versions for as long as such backups shall be restorable.

Exit code 3: something waits, and is printed."
)]
pub struct Args {
    /// Days for which a version is kept after the last DEK has left it.
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
            let (name, skipped) = (&job.name, job.skipped);
            self.waiting.push(format!("{name}: {skipped} DEKs need a version that is disabled or destroyed"));
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let mut done = Done::default();
    rotate_due(now, context, &mut done).await?;
    roll_marked(context, &mut done).await?;
    let keys = list(context).await?;
    let older: Vec<&KeyVersion> = keys.iter().filter(|key| is_older(key, &keys)).collect();
    if !older.is_empty() {
        let job = rewrap_all(context).await?;
        done.wait_for(&job, "rewrap");
        let moved = job.moved_time.as_ref().map_or(i64::MIN, |time| time.seconds);
        let kept = i64::from(args.keep) * DAY;
        // A job that found nothing to do tells that no version has had a DEK since the last one that did.
        let free = |since: i64| job.state == "done" && now.saturating_sub(since.max(moved)) >= kept;
        let since = |key: &KeyVersion| key.state_time.as_ref().map_or(i64::MAX, |time| time.seconds);
        for key in older.into_iter().filter(|key| !args.no_destroy && key.state != "disabled" && free(since(key))) {
            destroy(key, context, &mut done).await?;
        }
        done.rewrapped = Some(job);
    }
    context.output.show(|| document(&done), || text(&done))?;
    Ok(if done.waiting.is_empty() { Exit::Done } else { Exit::Partly })
}

async fn list(context: &Context) -> Result<Vec<KeyVersion>, CliError> {
    Ok(context.keys().await?.list_keys(ListKeysRequest {}).await?.into_inner().keys)
}

/// Whether a version of a KEK was replaced and is still there.
fn is_older(key: &KeyVersion, keys: &[KeyVersion]) -> bool {
    let replaced = keys.iter().any(|other| other.name == key.name && other.version > key.version);
    key.name.starts_with("kek/") && replaced && key.state != "destroyed"
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
        let rotated = context.keys().await?.rotate_key(request).await?.into_inner();
        if rotated.rotated {
            done.rotated.push(format!("{} to version {}", key.name, rotated.version));
        }
    }
    Ok(())
}

/// Rolls what is marked. One that runs already may have passed by what was marked since: it is watched to its end first.
async fn roll_marked(context: &Context, done: &mut Done) -> Result<(), CliError> {
    let job = loop {
        match context.keys().await?.start_roll(StartRollRequest::default()).await {
            Ok(job) => break roll::to_its_end(job.into_inner(), context).await?,
            Err(refused) if Refusal::from(&refused).reason == "JOB_RUNNING" => {
                let other = job::watch("roll".to_owned(), context).await?;
                if other.state == "running" {
                    break other;
                }
            }
            // Policies that were applied before there were rolls do not know the action.
            Err(refused) if refused.code() == Code::PermissionDenied => {
                done.waiting.push("an officer: policy that permits the action roll".to_owned());
                return Ok(());
            }
            Err(refused) => return Err(refused.into()),
        }
    };
    done.wait_for(&job, "roll");
    done.rolled = Some(job);
    Ok(())
}

/// Wraps anew what there is. One that runs already may have begun before tonight's rotation, or be about one KEK: it is
/// watched to its end first.
async fn rewrap_all(context: &Context) -> Result<Job, CliError> {
    loop {
        match context.keys().await?.start_rewrap(StartRewrapRequest::default()).await {
            Ok(job) => return job::watch(job.into_inner().name, context).await,
            Err(refused) if Refusal::from(&refused).reason == "JOB_RUNNING" => {
                let other = job::watch("rewrap".to_owned(), context).await?;
                if other.state == "running" {
                    return Ok(other);
                }
            }
            Err(refused) => return Err(refused.into()),
        }
    }
}

async fn destroy(key: &KeyVersion, context: &Context, done: &mut Done) -> Result<(), CliError> {
    let (name, version) = (&key.name, key.version);
    let request = DestroyKeyVersionRequest { name: name.clone(), version, dry_run: false };
    match context.keys().await?.destroy_key_version(request).await {
        Ok(_) => done.destroyed.push(format!("version {version} of {name}")),
        Err(refused) if refused.code() == Code::PermissionDenied => {
            done.waiting.push(format!("an officer: strongroom keys destroy {name} {version} --as OFFICER"))
        }
        Err(refused) if Refusal::from(&refused).reason == "KEY_IN_USE" => {
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
        "destroyed": done.destroyed,
        "waiting": done.waiting,
    })
}

fn text(done: &Done) -> String {
    let list = |what: &[String]| if what.is_empty() { "nothing".to_owned() } else { what.join(", ") };
    let deks = |job: &Option<Job>| job.as_ref().map_or("nothing".to_owned(), |job| format!("{} DEKs", job.done));
    let mut pairs = vec![
        ("rotated", list(&done.rotated)),
        ("rolled", deks(&done.rolled)),
        ("wrapped anew", deks(&done.rewrapped)),
        ("destroyed", list(&done.destroyed)),
    ];
    pairs.extend(done.waiting.iter().map(|what| ("waiting", what.clone())));
    facts(pairs)
}
