//! `strongroom break-glass`: what those change who hold the root key, while the vault is stopped.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_vault::{BreakGlass, Vault, is_reason};

use super::config::Config;
use super::layout::Layout;
use super::output::{CliError, Exit, Output, facts};
use super::own_keys;
use super::owner;
use super::pki::sha256;
use super::root::CredentialArgs;
use super::start::{self, unfit};

/// Change officers, authorities or policies without asking anybody, by who holds the root key, while the vault is stopped.
///
/// For when nobody else can: officers are gone, or policy locks all of them out, or callers' certificates come from another
/// authority. It needs what opens the vault: the passphrase, as many shares as the root key needs, or the provider that
/// keeps it. The ledger keeps for ever what was done, and the reason.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples, as root of a vault that systemd runs:
  systemctl stop strongroom
  runuser -u strongroom -- strongroom break-glass officer lending alice \\
      --dir /var/lib/strongroom --certificate /etc/strongroom/alice.pem \\
      --reason \"alice lost her key\" \\
      --share-file /run/shares/1.txt --share-file /run/shares/2.txt
  systemctl start strongroom

  strongroom break-glass officer lending mallory --dir DIR --remove \\
      --reason \"...\"
  strongroom break-glass anchor add new-ca.pem --dir DIR --reason \"...\"
  strongroom break-glass policy lending default.cedar --dir DIR \\
      --reason \"locked out\"

Only who owns the vault's folder may: what root wrote there the vault could not
open. Auditors see it: strongroom audit export, action break_glass.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol an officer of a tenant, give one another key, or remove one.
    Officer {
        /// The tenant.
        tenant: String,

        /// The officer's name under its role: alice.
        name: String,

        /// Its certificate, PEM: from then on the officer is who holds its key.
        #[arg(long, value_name = "FILE", required_unless_present = "remove")]
        certificate: Option<PathBuf>,

        /// Remove it instead, be it the last one.
        #[arg(long, conflicts_with = "certificate")]
        remove: bool,

        #[command(flatten)]
        why: Why,
    },
    /// Let an authority vouch for callers, or no longer.
    Anchor {
        #[command(subcommand)]
        change: Anchor,
    },
    /// Put policies of a tenant in force, whomever they lock out.
    Policy {
        /// The tenant.
        tenant: String,

        /// The policies, in Cedar.
        file: PathBuf,

        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Subcommand)]
enum Anchor {
    /// Let it vouch for callers.
    Add(AnchorFile),
    /// Let it vouch for callers no longer.
    Remove(AnchorFile),
}

#[derive(Debug, ClapArgs)]
struct AnchorFile {
    /// The certificate of the authority, PEM: one.
    file: PathBuf,

    #[command(flatten)]
    why: Why,
}

#[derive(Debug, ClapArgs)]
struct Why {
    /// Why: 1 to 200 bytes on one line, without anything that no ledger should keep.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,

    /// The configuration [default: DIR/strongroom.toml].
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    credential: CredentialArgs,
}

fn reason(text: &str) -> Result<String, &'static str> {
    match is_reason(text) {
        true => Ok(text.to_owned()),
        false => Err("a reason is 1 to 200 bytes of printable text on one line"),
    }
}

/// What is to be changed, before the trust domain of the vault is known.
enum Wanted {
    Officer { tenant: String, name: String, certificate: Vec<u8>, path: PathBuf },
    Other(BreakGlass),
}

/// Runs the command.
pub async fn run(args: Args, layout: &Layout, output: Output) -> Result<Exit, CliError> {
    let (wanted, why, said) = wanted(args.command)?;
    let config = Config::read(layout, why.config.as_deref())?;
    owner::must_own(layout)?;
    // The store first: its lock says whether a vault runs over it, before anybody is asked for anything.
    let store = RocksStore::open(&layout.data(), RocksOptions::default()).map_err(|error| match error {
        error if start::is_locked(&error) => CliError::Unfit {
            message: format!(
                "a vault runs over {}: the glass is broken of one that is stopped",
                layout.dir().display()
            ),
            next: "stop it, then the same command".into(),
        },
        error => unfit(layout, &error),
    })?;
    let root = why.credential.provider(layout, &config)?;
    let opened = start::unlock(layout.keystore(), root).await;
    let keystore = opened.map_err(|closed| closed.into_error(layout))?;
    if matches!(&wanted, Wanted::Other(BreakGlass::Policy { .. })) {
        // Only the tenant's keys vouch for its policy.
        own_keys::unlock_all(&store, &keystore, &config).await?;
    }
    let opening = start::opening(layout, &config, store, keystore)?;
    let vault = Vault::open(opening).await.map_err(|error| unfit(layout, &error))?;
    let done = async {
        let change = match wanted {
            Wanted::Other(change) => change,
            Wanted::Officer { tenant, name, certificate, path } => {
                let key = strongroom_server::officer_key(&certificate, &vault.directory().trust_domain, &tenant, &name);
                let key = key.ok_or_else(|| {
                    CliError::unfit(format!(
                        "{} is no certificate in PEM whose only URI name is spiffe://{}/tenant/{tenant}/officer/{name}, and whose \
                         key can approve: ECDSA on P-256 or P-384, or Ed25519",
                        path.display(),
                        vault.directory().trust_domain
                    ))
                })?;
                BreakGlass::EnrolOfficer { tenant, name, key }
            }
        };
        let broken = vault.break_glass(&change, &why.reason).await;
        broken.map_err(|error| CliError::unfit(format!("nothing is known to be changed: {error}")))
    }
    .await;
    vault.close().await;
    done?;
    output.show(
        || json!({ "done": said, "reason": why.reason }),
        || {
            format!(
                "{}\nIt is in the ledger for ever, as break_glass by root. Next: start the vault",
                facts([("done", said.clone()), ("reason", why.reason.clone())])
            )
        },
    )?;
    Ok(Exit::Done)
}

/// What is to be changed, why, and how it is called in words.
fn wanted(command: Command) -> Result<(Wanted, Why, String), CliError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| CliError::file(path, error));
    Ok(match command {
        Command::Officer { tenant, name, certificate: Some(path), remove: _, why } => {
            let said = format!("officer {name} of {tenant} is enrolled");
            (Wanted::Officer { tenant, name, certificate: read(&path)?, path }, why, said)
        }
        Command::Officer { tenant, name, certificate: None, remove: _, why } => {
            let said = format!("officer {name} of {tenant} is removed");
            (Wanted::Other(BreakGlass::RemoveOfficer { tenant, name }), why, said)
        }
        Command::Anchor { change: Anchor::Add(AnchorFile { file, why }) } => {
            let (anchor, hex) = anchor(&file)?;
            (Wanted::Other(BreakGlass::AddAnchor(anchor)), why, format!("the authority {hex} may vouch for callers"))
        }
        Command::Anchor { change: Anchor::Remove(AnchorFile { file, why }) } => {
            let (anchor, hex) = anchor(&file)?;
            let said = format!("the authority {hex} may vouch for callers no longer: take it out of [tls] client_ca");
            (Wanted::Other(BreakGlass::RemoveAnchor(anchor)), why, said)
        }
        Command::Policy { tenant, file, why } => {
            let source = String::from_utf8(read(&file)?)
                .map_err(|_| CliError::unfit(format!("{} is no text in UTF-8", file.display())))?;
            let sha256 = data_encoding::HEXLOWER.encode(&sha256(source.as_bytes()));
            let said = format!("the policies with SHA-256 {sha256} are in force for {tenant}");
            (Wanted::Other(BreakGlass::Policy { tenant, source }), why, said)
        }
    })
}

/// The one authority in a file: its SHA-256, and that in hexadecimal.
fn anchor(path: &Path) -> Result<([u8; 32], String), CliError> {
    let pem = std::fs::read(path).map_err(|error| CliError::file(path, error))?;
    let found = strongroom_server::authorities(&pem)
        .map_err(|error| CliError::unfit(format!("{}: {error}", path.display())))?;
    match found[..] {
        [one] => Ok((one, data_encoding::HEXLOWER.encode(&one))),
        _ => Err(CliError::unfit(format!(
            "{} holds {} certificates: give a file with the one that is meant",
            path.display(),
            found.len()
        ))),
    }
}
