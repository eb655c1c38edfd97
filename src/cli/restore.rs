//! `strongroom restore`: an older copy of the data goes on as a new incarnation, and what restricts is not undone.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_vault::{RestoreError, Restored};

use super::config::Config;
use super::layout::Layout;
use super::output::{CliError, Exit, Output, facts, table};
use super::own_keys;
use super::owner;
use super::root::CredentialArgs;
use super::start::{self, unfit};

/// Go on with an older copy of the data, which was put in the place of the newest, while the vault is stopped.
///
/// What was frozen, suspended or destroyed since the copy was made is done again from the journal, in its order. If the journal
/// does not reach as far as the head file says, all of every tenant is frozen until two of its officers end that. The ledgers go on
/// under other origins: give verifiers and witnesses the new keys. It needs what opens the vault.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples, as root of a vault that systemd runs:
  systemctl stop strongroom
  mv /var/lib/strongroom/data /var/lib/strongroom/data.lost
  cp -a /backup/data /var/lib/strongroom/data
  runuser -u strongroom -- strongroom restore --dir /var/lib/strongroom \\
      --share-file /run/shares/1.txt --share-file /run/shares/2.txt
  systemctl start strongroom

Put back the data folder alone: keystore, head file and journal stay the newest
that there are. What callers stored or changed after the copy is lost, policies
and schemas too: look at them before anything is unfrozen. Exit code 0: done;
1: nothing was restored; 3: done, and everything is frozen.")]
pub struct Args {
    /// The incarnation to begin, where neither head file nor journal is left: above all that the vault has had.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(2..))]
    incarnation: Option<u16>,

    /// The configuration [default: DIR/strongroom.toml].
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    credential: CredentialArgs,
}

/// Runs the command.
pub async fn run(args: Args, layout: &Layout, output: Output) -> Result<Exit, CliError> {
    let config = Config::read(layout, args.config.as_deref())?;
    owner::must_own(layout)?;
    // The store first: its lock says whether a vault runs over it, before anybody is asked for anything.
    let store = RocksStore::open(&layout.data(), RocksOptions::default()).map_err(|error| match error {
        error if start::is_locked(&error) => CliError::Unfit {
            message: format!("a vault runs over {}: only one that is stopped is restored", layout.dir().display()),
            next: "stop it, put the copy in the place of its data folder, then the same command".into(),
        },
        error => unfit(layout, &error),
    })?;
    let root = args.credential.provider(layout, &config)?;
    let opened = start::unlock(layout.keystore(), root).await;
    let keystore = opened.map_err(|closed| closed.into_error(layout))?;
    own_keys::unlock_all(&store, &keystore, &config).await?;
    let opening = start::opening(layout, &config, store, keystore)?;
    let restored = strongroom_vault::restore(opening, args.incarnation).await.map_err(|error| match error {
        error @ RestoreError::Nothing => CliError::Unfit {
            message: error.to_string(),
            next: "strongroom serve; to go on with an older copy, put that in the place of the data folder first"
                .into(),
        },
        error => CliError::unfit(format!("the vault in {} is not restored: {error}", layout.dir().display())),
    })?;
    output.show(|| document(&restored), || text(&restored))?;
    Ok(if restored.frozen.is_some() { Exit::Partly } else { Exit::Done })
}

fn document(restored: &Restored) -> Value {
    let logs = restored.logs.iter().map(|(tenant, had, has)| {
        json!({ "tenant": tenant, "leaves_known": had.map(|had| had.to_string()), "leaves_in_copy": has.to_string() })
    });
    json!({
        "incarnation": restored.incarnation,
        "replayed": restored.replayed.to_string(),
        "held": restored.held.to_string(),
        "passed_over": restored.passed_over.to_string(),
        "frozen": restored.frozen.is_some(),
        "frozen_because": restored.frozen,
        "keks_rolled": restored.keks,
        "journal_put_aside": restored.aside.as_ref().map(|path| path.display().to_string()),
        "logs": logs.collect::<Vec<_>>(),
    })
}

fn text(restored: &Restored) -> String {
    let rows = restored.logs.iter().map(|(tenant, had, has)| {
        vec![tenant.clone(), had.map_or_else(|| "?".to_owned(), |had| had.to_string()), has.to_string()]
    });
    let aside = restored.aside.as_ref().map(|path| ("journal put aside", path.display().to_string()));
    let known = [
        ("incarnation", restored.incarnation.to_string()),
        ("done again", format!("{} of what restricts", restored.replayed)),
        ("held anyway", restored.held.to_string()),
        ("not in the copy", restored.passed_over.to_string()),
        ("new KEK versions", restored.keks.to_string()),
    ];
    let mut text =
        vec![table(&["LOG", "LEAVES KNOWN", "LEAVES IN THE COPY"], rows), facts(known.into_iter().chain(aside))];
    if let Some(why) = &restored.frozen {
        text.push(format!(
            "EVERYTHING IS FROZEN, reads and writes of every tenant: {why}.\nOnce two officers of a tenant know what was stopped since \
             the copy was made, one asks for the end and the other approves it: strongroom unfreeze, strongroom approve"
        ));
    }
    text.push(
        "The ledgers go on under new origins: give verifiers, followers and witnesses the new keys (strongroom audit key).\n\
         Policies, schemas and tiers are those of the copy. Next: start the vault"
            .to_owned(),
    );
    text.join("\n\n")
}
