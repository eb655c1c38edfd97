//! `strongroom own-key`: the key that a tenant has of its own: brought, moved, and taken away.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use strongroom_proto::v1::{
    CreateImportKeyRequest, GetOwnKeyRequest, ImportOwnKeyRequest, MoveOwnKeyRequest, OwnKey, RemoveOwnKeyRequest,
};

use super::client::Context;
use super::files::replace;
use super::output::{CliError, Exit, Output, facts, instant, say};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

/// Bytes of a wrapped key. What is shorter may be the own key itself, which nobody else shall see.
const WRAPPED: usize = 512;

/// See to the key that your tenant has of its own: bring it, move it, take it away.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show where your tenant's own key is, and whether it is there.
    #[command(after_help = "Examples:
  strongroom own-key show
  strongroom own-key show --output json")]
    Show,
    /// Make the import key: what your tenant's own key is wrapped to. It serves once, within 24 hours.
    #[command(after_help = "Examples:
  strongroom own-key import-key --out import.pem
  strongroom own-key import-key > import.pem

Takes up to some seconds. An import key that was made before is void from then
on. Its SHA-256 is told as well: compare it where the own key is made and kept,
then wrap that:
  openssl pkey -pubin -in import.pem -outform DER | openssl dgst -sha256 -r
  openssl rand -out own.key 32
  openssl pkeyutl -encrypt -pubin -inkey import.pem -in own.key \\
      -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 \\
      -pkeyopt rsa_mgf1_md:sha256 -out own.wrapped

The fingerprint by which the vault names the own key (whoever may see what runs
on that machine can see the key meanwhile):
  printf 'strongroom own key 1' | openssl dgst -sha256 -r -mac HMAC \\
      -macopt hexkey:$(od -An -v -tx1 own.key | tr -d ' \\n') | cut -c1-16

Keep own.key where the vault is not: who has lost it can't bring it again.
Next: strongroom own-key bring own.wrapped")]
    ImportKey {
        /// Where the import key goes, PEM. It replaces what is there.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Bring your tenant's own key, wrapped to the import key. The tenant's keys open only with it from then on.
    #[command(after_help = "Examples:
  strongroom own-key bring own.wrapped
  strongroom own-key bring next.wrapped --replace     another one in its place

One that was removed is brought again in the same way, wrapped to a new import
key: only the same key is taken, and the tenant is unlocked. The ledger calls
it import_own_key. Copies of the
keystore from before, and those that are made while the key is there, open with
the vault's root key alone: its operators destroy them once the key is removed.")]
    Bring {
        /// What was wrapped, as it is: 512 bytes.
        file: PathBuf,

        /// Put it into the place of another own key, which must be present.
        #[arg(long)]
        replace: bool,
    },
    /// Move your tenant to the provider that the vault's configuration names for it, or to no own key.
    #[command(after_help = "Examples:
  strongroom own-key move openbao
  strongroom own-key move none         only the vault's root key is above it then

The own key that the tenant has must be present, and is not needed any more
afterwards. The configuration names the provider in a table
[own_keys.TENANT.openbao], with the settings of [root.openbao].")]
    Move {
        /// none, or the provider: openbao, pkcs11, aws-kms.
        #[arg(value_name = "KIND", value_parser = ["none", "openbao", "pkcs11", "aws-kms"])]
        to: String,
    },
    /// Take the key away that was brought: nothing of the tenant is read or written until it is brought again.
    #[command(after_help = "Examples:
  strongroom own-key remove
  strongroom own-key remove --yes --output json

Asks for the key's fingerprint, unless --yes is given. It holds at once, and for
everybody. Whoever has lost the key by then has lost the tenant. Copies of the
keystore from before still hold it. A key that a provider keeps is taken away
there.")]
    Remove {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Show => {
            let own = context.keys().await?.get_own_key(GetOwnKeyRequest {}).await?.into_inner();
            show(&own, context.output)?;
        }
        Command::ImportKey { out } => import_key(out.as_deref(), context).await?,
        Command::Bring { file, replace } => {
            let request = ImportOwnKeyRequest { wrapped: wrapped(&file)?.into(), replace };
            let own = context.keys().await?.import_own_key(request).await?.into_inner();
            show(&own, context.output)?;
        }
        Command::Move { to } => {
            let own = context.keys().await?.move_own_key(MoveOwnKeyRequest { to }).await?.into_inner();
            show(&own, context.output)?;
        }
        Command::Remove { yes } => remove(yes, context).await?,
    }
    Ok(Exit::Done)
}

async fn import_key(out: Option<&Path>, context: &Context) -> Result<(), CliError> {
    let key = context.keys().await?.create_import_key(CreateImportKeyRequest {}).await?.into_inner();
    if let Some(out) = out {
        replace(out, key.pem.as_bytes()).map_err(|error| error.advise("the same command with another --out"))?;
    }
    let expires = instant(key.expire_time.as_ref());
    let told = facts([("sha256", key.sha256.as_str()), ("expires", &expires)]);
    match (context.output, out) {
        (Output::Table, None) => {
            // The key goes alone, so that it can be piped into a file. It is there also if nobody hears the rest.
            let _ = writeln!(io::stderr(), "{told}");
            say(key.pem.as_bytes())
        }
        (output, _) => output.show(
            || json!({ "pem": key.pem, "sha256": key.sha256, "expire_time": expires }),
            || {
                let file = out.map(|out| out.display().to_string()).unwrap_or_default();
                let told = facts([("import key", file.as_str()), ("sha256", &key.sha256), ("expires", &expires)]);
                format!("{told}\nNext: wrap the own key to it (strongroom own-key import-key --help says how)")
            },
        ),
    }
}

/// What is to be brought.
fn wrapped(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(WRAPPED as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| CliError::file(path, error))?;
    let why = match bytes.len() {
        length if length > WRAPPED => "is too long for a wrapped key, which has 512 bytes",
        length if length < WRAPPED => "is too short for a wrapped key, which has 512 bytes",
        _ => return Ok(bytes),
    };
    Err(CliError::Unfit {
        message: format!("{} {why}; nothing was sent", path.display()),
        next: "strongroom own-key import-key --help, which says how to wrap it".into(),
    })
}

async fn remove(yes: bool, context: &Context) -> Result<(), CliError> {
    if !yes && !io::stdin().is_terminal() {
        return Err(CliError::Usage("nobody can be asked here: add --yes if this is meant".to_owned()));
    }
    let mut keys = context.keys().await?;
    if !yes {
        let own = keys.get_own_key(GetOwnKeyRequest {}).await?.into_inner();
        // One without a fingerprint can't be removed, and the vault says why.
        if !own.fingerprint.is_empty() {
            agreed(&own)?;
        }
    }
    let own = keys.remove_own_key(RemoveOwnKeyRequest {}).await?.into_inner();
    show(&own, context.output)
}

/// Has the fingerprint typed by somebody who was told what goes with it.
fn agreed(own: &OwnKey) -> Result<(), CliError> {
    let mut told = io::stderr();
    let asked = write!(
        told,
        "{}\nNothing of the tenant is read or written until this very key is brought again. Without it the tenant is \
         lost.\nType its fingerprint to remove it: ",
        text(own)
    );
    let mut typed = String::new();
    let heard = asked.and_then(|()| told.flush()).and_then(|()| io::stdin().lock().read_line(&mut typed));
    heard.map_err(|error| CliError::file("the terminal", error))?;
    match typed.trim() == own.fingerprint {
        true => Ok(()),
        false => Err(CliError::unfit("that is not its fingerprint; nothing was removed")),
    }
}

fn show(own: &OwnKey, output: Output) -> Result<(), CliError> {
    output.show(
        || document(own),
        || match next(own) {
            Some(next) => format!("{}\nNext: {next}", text(own)),
            None => text(own),
        },
    )
}

fn document(own: &OwnKey) -> Value {
    json!({
        "kind": own.kind,
        "state": own.state,
        "fingerprint": own.fingerprint,
        "change_time": own.change_time.as_ref().map(|time| instant(Some(time))),
    })
}

fn text(own: &OwnKey) -> String {
    let state = match own.state.as_str() {
        "" | "present" => own.state.clone(),
        away => format!("{away}: the tenant is locked"),
    };
    let known = [
        ("own key", own.kind.clone()),
        ("state", state),
        ("fingerprint", own.fingerprint.clone()),
        ("since", instant(own.change_time.as_ref())),
    ];
    facts(known.into_iter().filter(|(_, value)| !value.is_empty()))
}

/// What an officer may want to do about it.
fn next(own: &OwnKey) -> Option<&'static str> {
    match (own.kind.as_str(), own.state.as_str()) {
        ("none", _) => Some("strongroom own-key import-key --out import.pem"),
        ("imported", "away") => Some("strongroom own-key remove, again: the keystore could not be written"),
        ("imported", "removed") => {
            Some("strongroom own-key import-key --out FILE, wrap the same key to it, then strongroom own-key bring")
        }
        (_, "away") => Some("have the provider allow the vault to use the key: the tenant is unlocked by itself"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(kind: &str, state: &str) -> OwnKey {
        let [kind, state] = [kind, state].map(str::to_owned);
        OwnKey { kind, state, fingerprint: String::new(), change_time: None }
    }

    #[test]
    fn what_is_locked_is_told_with_the_way_back() {
        let removed = own("imported", "removed");
        assert!(text(&removed).contains("removed: the tenant is locked"));
        assert!(next(&removed).unwrap().contains("own-key bring"));
        assert!(next(&own("openbao", "away")).unwrap().contains("by itself"));
        assert!(next(&own("openbao", "present")).is_none() && next(&own("imported", "present")).is_none());
        assert!(next(&own("none", "")).unwrap().contains("import-key"));
        assert!(!text(&own("none", "")).contains("state"));
    }

    #[test]
    fn what_can_be_no_wrapped_key_is_not_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.wrapped");
        for (length, fits) in [(0, false), (32, false), (65, false), (511, false), (512, true), (513, false)] {
            std::fs::write(&path, vec![7; length]).unwrap();
            let read = wrapped(&path);
            assert_eq!(read.is_ok_and(|bytes| bytes.len() == length), fits, "{length}");
        }
        assert!(matches!(wrapped(&folder.path().join("nowhere")), Err(CliError::File { .. })));
    }
}
