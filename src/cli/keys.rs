//! `strongroom keys`: the life of keys, by hand and every night.

mod copies;
mod job;
mod maintain;
mod reindex;
mod rewrap;
mod roll;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use strongroom_proto::v1::{
    DestroyKeyVersionRequest, KeyVersion, ListKeysRequest, RotateKeyRequest, SetKeyStateRequest,
};

use super::client::Context;
use super::output::{CliError, Exit, instant, table};

pub use job::{How, watch};

/// List keys, rotate them, wrap DEKs anew and roll them, make indexes anew, change states, destroy versions.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show every version of every key, its state and when it should be rotated.
    List,
    /// Make the next version of a key; it protects all that is new from then on. No value is touched.
    #[command(after_help = "Examples:
  strongroom keys rotate kek/1
  strongroom keys rotate kek/1 --from-version 3     not again, if version 4 is there already
  strongroom keys rotate ledger                     the new version signs, and those before it sign checkpoints along
  strongroom keys rotate ledger --as operator       the same of the vault's own ledger")]
    Rotate {
        /// The key: kek/1, index/subject-id, token, ledger.
        name: String,

        /// The newest version that you know of: if there is a newer one, nothing is done.
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
        from_version: u32,
    },
    /// Wrap anew, in the background, the DEKs that an older version of their KEK wraps, and watch it.
    Rewrap(rewrap::Args),
    /// Roll, in the background, the DEKs under which a value was deleted or replaced, and watch it.
    Roll(roll::Args),
    /// Make anew, in the background, the index entries that an older version of their key made, and watch it.
    Reindex(reindex::Args),
    /// Give a version of a key another state.
    #[command(after_help = "Examples:
  strongroom keys state kek/1 4 disabled --as officer-1        nothing under it is read or written for now
  strongroom keys state kek/1 4 enabled --as officer-1
  strongroom keys state kek/1 3 compromised --as officer-1")]
    State {
        /// The key.
        name: String,

        /// The version.
        version: u32,

        /// enabled, decrypt-only, disabled, compromised.
        state: String,
    },
    /// Destroy a version that nothing depends on. Final.
    #[command(after_help = "Examples:
  strongroom keys destroy kek/1 1 --dry-run --as officer-1     what depends on it
  strongroom keys destroy kek/1 1 --as officer-1

Backups of the data that were made before all had moved on (keys rewrap, keys reindex) can't be read as a whole any more
afterwards.")]
    Destroy {
        /// The key.
        name: String,

        /// The version.
        version: u32,

        /// Change nothing, only say what depends on the version.
        #[arg(long)]
        dry_run: bool,
    },
    /// Copy the keystore into a file, and put the copy on the list.
    #[command(after_help = "Examples:
  strongroom keys backup /mnt/safe/keys.1 --label 'safe 3, branch office'

Without the root key a copy opens nothing. With it, it opens all that the keystore opens now: also what is destroyed later.
To put it back, stop the vault and make it the file keystore/keys.")]
    Backup(copies::BackupArgs),
    /// Show the copies of the keystore on the list.
    Copies(copies::CopiesArgs),
    /// Do all that is due: rotate, roll, wrap and index anew, destroy. For a job that runs every night.
    Maintain(maintain::Args),
}

impl Args {
    /// Who asks unless the caller says otherwise: the keystore's copies are the operators' business.
    pub fn principal(&self) -> &'static str {
        match self.command {
            Command::Backup(_) | Command::Copies(_) => "operator",
            _ => "rotator",
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::List => list(context).await,
        Command::Rotate { name, from_version } => rotate(name, from_version, context).await,
        Command::Rewrap(args) => rewrap::run(args, context).await,
        Command::Roll(args) => roll::run(args, context).await,
        Command::Reindex(args) => reindex::run(args, context).await,
        Command::State { name, version, state } => set_state(name, version, state, context).await,
        Command::Destroy { name, version, dry_run } => destroy(name, version, dry_run, context).await,
        Command::Backup(args) => copies::backup(args, context).await,
        Command::Copies(args) => copies::copies(args, context).await,
        Command::Maintain(args) => maintain::run(args, context).await,
    }
}

async fn list(context: &Context) -> Result<Exit, CliError> {
    let keys = context.keys().await?.list_keys(ListKeysRequest {}).await?.into_inner().keys;
    context.output.show(|| json!({ "keys": keys.iter().map(document).collect::<Vec<_>>() }), || text(&keys))?;
    Ok(Exit::Done)
}

fn document(key: &KeyVersion) -> Value {
    json!({
        "name": key.name,
        "version": key.version,
        "state": key.state,
        "create_time": instant(key.create_time.as_ref()),
        "state_time": instant(key.state_time.as_ref()),
        "next_rotation_time": key.next_rotation_time.as_ref().map(|time| instant(Some(time))),
        "class": key.class,
        "retention": key.retention,
        "copies": key.copies,
        "death_time": key.death_time.as_ref().map(|time| instant(Some(time))),
    })
}

fn text(keys: &[KeyVersion]) -> String {
    let day = |time: Option<&prost_types::Timestamp>| instant(time).get(..10).unwrap_or_default().to_owned();
    let rows = keys.iter().map(|key| {
        let values = match key.class.is_empty() {
            true => String::new(),
            false => format!("{}, kept {}", key.class, key.retention),
        };
        vec![
            key.name.clone(),
            key.version.to_string(),
            key.state.clone(),
            day(key.create_time.as_ref()),
            day(key.state_time.as_ref()),
            key.next_rotation_time.as_ref().map_or_else(String::new, |time| day(Some(time))),
            values,
            life_after(key.state == "destroyed", &key.copies),
        ]
    });
    table(&["KEY", "VERSION", "STATE", "MADE", "SINCE", "ROTATE BY", "VALUES", "LIVES ON IN"], rows)
}

/// Of what was destroyed: the copies of the keystore that it lives on in, or that there are none.
pub fn life_after(destroyed: bool, copies: &[String]) -> String {
    match (destroyed, copies.len()) {
        (false, _) => String::new(),
        (true, 0) => "no copy".to_owned(),
        (true, 1..=3) => copies.join(" "),
        (true, count) => format!("{count} copies"),
    }
}

async fn rotate(name: String, from_version: u32, context: &Context) -> Result<Exit, CliError> {
    let request = RotateKeyRequest { name: name.clone(), from_version };
    let rotated = context.keys().await?.rotate_key(request).await?.into_inner();
    context.output.show(
        || json!({ "name": name, "version": rotated.version, "rotated": rotated.rotated }),
        || match rotated.rotated {
            true if name == "ledger" => format!(
                "{name} has version {}; it signs from now on, and those before it sign along: strongroom audit key",
                rotated.version
            ),
            true => format!("{name} has version {}; it protects what is new from now on", rotated.version),
            false => format!("{name} has version {} already; nothing was done", rotated.version),
        },
    )?;
    Ok(Exit::Done)
}

async fn set_state(name: String, version: u32, state: String, context: &Context) -> Result<Exit, CliError> {
    let request = SetKeyStateRequest { name: name.clone(), version, state: state.clone() };
    context.keys().await?.set_key_state(request).await?;
    context.output.show(
        || json!({ "name": name, "version": version, "state": state }),
        || format!("version {version} of {name} is {state}"),
    )?;
    Ok(Exit::Done)
}

async fn destroy(name: String, version: u32, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let request = DestroyKeyVersionRequest { name: name.clone(), version, dry_run };
    let answer = context.keys().await?.destroy_key_version(request).await?.into_inner();
    context.output.show(
        // Numbers of 64 bits are strings, as in the ledger.
        || json!({ "name": name, "version": version, "destroyed": !dry_run, "dependants": answer.dependants.to_string() }),
        || match (dry_run, answer.dependants) {
            (false, _) => format!("version {version} of {name} is destroyed"),
            (true, 0) => format!("nothing depends on version {version} of {name}: it can be destroyed"),
            (true, count) => {
                let what = match name.split('/').next() {
                    Some("kek") => "DEKs, and the values under them, would become unreadable",
                    Some("index") => "index entries would lead nowhere, so what they find would not be found",
                    _ => "tokens would become unreadable",
                };
                format!("version {version} of {name} is in use: {count} {what}")
            }
        },
    )?;
    Ok(Exit::Done)
}
