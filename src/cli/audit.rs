//! `strongroom audit`: the ledger out of the vault, and its proof without the vault.

mod answered;
mod archive;
mod excerpt;
mod export;
mod folder;
mod growing;
pub(super) mod learn;
mod newest;
pub mod options;
mod proofs;
mod questions;
mod tail;
mod tiles;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use strongroom_proto::v1::GetCheckpointRequest;
use tonic::Code;

use super::client::{Context, Global};
use super::files::replace;
use super::output::{CliError, Exit};
use options::Of;
pub(super) use proofs::continues;
pub(super) use verify::{known, known_as_json};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "auditor";

/// Export the ledger with its signed head, and verify it offline.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Ask(Ask),
    /// Prove an export against its signed checkpoint, without the vault. Names the place of what does not hold.
    #[command(after_help = "Examples:
  strongroom audit verify ledger.jsonl
  strongroom audit verify ledger.jsonl --checkpoint ledger.jsonl.checkpoint \\
      --log-key kept-since-last-year.key
  strongroom audit verify ledger/                  # the folder of audit tiles
  strongroom audit verify --excerpt november.csv \\
      --log-key kept-since-last-year.key

What was exported with a filter or in another form, with an OUT.manifest, is
verified with --excerpt: each line is proven to be in the ledger, and that they
are as many and the same as the vault sent. That they are all that fitted is the
vault's word; so see that filter and range are those that you asked for.

Without --checkpoint and --log-key the files beside the export are taken. A key
that comes with an export proves only that both come from the same hand: give
the one that you kept from before. If the key was rotated since, the kept one
proves the newer one as long as it signs along, or by a checkpoint from that
time: --older FILE; --keys-out FILE writes all that are known then.
A table of another version, with other columns, can't be held against its lines:
--anew makes it anew of them, if they hold.
Exit code 0: all holds; 1: it does not, or can't be read.")]
    Verify(verify::Verify),
    /// Check the proof of one leaf, or that the ledger only grew, without the vault.
    #[command(after_help = "Examples:
  strongroom audit check 41.tlog-proof
  strongroom audit check 41.tlog-proof --log-key kept-since-last-year.key
  strongroom audit check november.growth --older october.checkpoint

With --older PROOF is one that the ledger only grew, by audit grown -o.

Without --leaf and --log-key the files beside the proof are taken. A key that
comes with a proof proves only that both come from the same hand.
Exit code 0: the ledger has the leaf, or only grew; 1: it is not shown, or can't
be read.")]
    Check {
        /// The proof, as C2SP tlog-proof.
        proof: PathBuf,

        /// The leaf, one line [default: PROOF.leaf].
        #[arg(long, value_name = "FILE", conflicts_with = "older")]
        leaf: Option<PathBuf>,

        /// The checkpoint since which the ledger only grew, by the proof.
        #[arg(long, value_name = "FILE")]
        older: Option<PathBuf>,

        /// The ledger's public keys, one a line [default: PROOF.key].
        #[arg(long, value_name = "FILE")]
        log_key: Option<PathBuf>,
    },
}

/// What is asked of the vault.
#[derive(Clone, Debug, Subcommand)]
enum Ask {
    /// Write the ledger, or the leaves of it that are asked for, to files that prove themselves.
    #[command(after_help = export::HELP)]
    Export(Box<export::Export>),
    /// Write old leaves to a folder that proves itself, and have the vault remove them.
    #[command(after_help = archive::HELP)]
    Archive(archive::Archive),
    #[command(flatten)]
    Question(questions::Question),
    /// Print the signed head of the ledger as it is now: a C2SP signed note.
    Checkpoint {
        /// Not as it is now, but the newest that as many witnesses have cosigned as the vault is configured to need.
        #[arg(long)]
        witnessed: bool,

        #[command(flatten)]
        of: Of,
    },
    /// Print the public keys of the ledger, each a C2SP vkey. Keep them apart from the vault.
    Key {
        #[command(flatten)]
        of: Of,
    },
    /// Write the proof that the ledger has one leaf, which anybody can check without the vault.
    #[command(after_help = "Examples:
  strongroom audit prove 41 -o 41.tlog-proof
  strongroom audit check 41.tlog-proof
  strongroom audit prove 7 -o 7.tlog-proof --archive /mnt/archive/ledger-2023
  strongroom audit prove 7 -o 7.tlog-proof --tiles ledger/      # without the vault

Writes OUT (the proof and the signed head it leads to, as C2SP tlog-proof),
OUT.leaf (the leaf) and OUT.key (the public keys).")]
    Prove {
        /// Index of the leaf.
        index: u64,

        /// Where the proof goes.
        #[arg(short, long, value_name = "OUT")]
        out: PathBuf,

        /// The folder of the archive that has the leaf, which the vault has no more.
        #[arg(long, value_name = "FOLDER")]
        archive: Option<PathBuf>,

        /// Not of the vault, but of this folder, which `audit tiles` wrote.
        #[arg(long, value_name = "FOLDER", conflicts_with_all = ["archive", "log"])]
        tiles: Option<PathBuf>,

        /// The public keys for the folder's checkpoint, one a line [default: FOLDER/key].
        #[arg(long, value_name = "FILE", requires = "tiles")]
        log_key: Option<PathBuf>,

        #[command(flatten)]
        of: Of,
    },
    /// Prove that the ledger only grew since a checkpoint that you kept.
    #[command(after_help = "Examples:
  strongroom audit checkpoint > kept.checkpoint
  strongroom audit grown kept.checkpoint --log-key kept-since-last-year.key
  strongroom audit grown kept.checkpoint -o since.growth        # the proof, for others
  strongroom audit check since.growth --older kept.checkpoint   # without the vault
  strongroom audit grown kept.checkpoint --tiles ledger/        # the same, of a folder

OUT is what a C2SP tlog-witness takes: the proof and the newer checkpoint; OUT.key
has the public keys.
Exit code 0: nothing was changed or dropped since; 1: it was, or can't be shown.")]
    Grown(proofs::Grown),
    /// Follow the ledger: print or send each leaf as it is written, until it is stopped.
    #[command(after_help = "Examples:
  strongroom audit tail                          # on the terminal, from now on
  strongroom audit tail --from 0 -o ledger.jsonl # all, and what comes; rotated
  strongroom audit tail --syslog siem.bank.example:6514 --syslog-ca siem-ca.pem \
      --cursor siem.cursor

A file gets every leaf once, over restarts of either side: run it as a service.
What was sent counts as read when the collector closes the connection, so name
the collector itself and no proxy. The rest goes out again, so some comes twice;
the index tells. It must close when the sender does, as collectors do.
Exit code 1: refused, or the ledger is not the one that was followed any more.")]
    Tail(tail::Tail),
    /// Write the ledger to a folder in which other tools find it: C2SP tlog-tiles.
    #[command(after_help = "Examples:
  strongroom audit tiles -o ledger/
  strongroom audit verify ledger/

Writes checkpoint, tile/LEVEL/N (hashes), tile/entries/N (leaves) and key. What is
proven of it without the vault: audit verify FOLDER; audit prove and audit grown
with --tiles FOLDER.")]
    Tiles {
        /// The folder.
        #[arg(short, long, value_name = "FOLDER")]
        out: PathBuf,

        #[command(flatten)]
        of: Of,
    },
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let asked = match args.command {
        Command::Verify(args) => return verify::run(args, global.output),
        Command::Check { proof, older: Some(older), log_key, .. } => {
            return proofs::check_grown(&proof, &older, log_key, global.output);
        }
        Command::Check { proof, leaf, log_key, .. } => return proofs::check(&proof, leaf, log_key, global.output),
        Command::Ask(Ask::Prove { index, out, tiles: Some(folder), log_key, .. }) => {
            return proofs::prove_from_tiles(index, &out, &folder, log_key.as_deref(), global.output);
        }
        Command::Ask(Ask::Grown(asked)) if asked.is_offline() => return asked.run_offline(global.output),
        Command::Ask(asked) => asked,
    };
    let context = &global.context(PRINCIPAL)?;
    let is_system = asked.log() == strongroom_vault::SYSTEM;
    ask(asked, context).await.map_err(|error| match &error {
        CliError::Refused(refusal) if is_system && refusal.code == Code::PermissionDenied => {
            error.advise("the system ledger is for operators only: the same command with --as operator")
        }
        _ => error,
    })
}

impl Ask {
    fn log(&self) -> &str {
        match self {
            Self::Checkpoint { of, .. } | Self::Key { of } | Self::Prove { of, .. } | Self::Tiles { of, .. } => &of.log,
            Self::Export(export) => export.log(),
            Self::Grown(grown) => &grown.of.log,
            Self::Tail(tail) => tail.log(),
            Self::Question(question) => question.log(),
            // Of whoever asks.
            Self::Archive(_) => "",
        }
    }
}

async fn ask(asked: Ask, context: &Context) -> Result<Exit, CliError> {
    match asked {
        Ask::Export(asked) => export::run(*asked, context).await,
        Ask::Checkpoint { of, witnessed } => {
            let asked = GetCheckpointRequest { log: of.log, witnessed, awaited: false };
            let head = context.audit().await?.get_checkpoint(asked).await?.into_inner();
            let (have, needed) = (head.witnesses, head.witnesses_needed);
            context.output.show(
                || json!({ "checkpoint": head.checkpoint, "witnesses": have, "witnesses_needed": needed }),
                || head.checkpoint.clone(),
            )?;
            // Standard output is the checkpoint, as it is kept.
            if have < needed {
                eprintln!("not witnessed yet: {have} of {needed}; the newest that is: --witnessed");
            }
            Ok(Exit::Done)
        }
        Ask::Key { of } => {
            let head = newest::head(&mut context.audit().await?, &of.log).await?;
            context.output.show(|| json!({ "keys": head.keys }), || head.keys.join("\n"))?;
            Ok(Exit::Done)
        }
        Ask::Prove { index, out, archive, of, .. } => {
            proofs::prove(index, &out, archive.as_deref(), of.log, context).await
        }
        Ask::Grown(asked) => asked.run(context).await,
        Ask::Archive(asked) => archive::run(asked, context).await,
        Ask::Tail(tail) => tail::run(tail, context).await,
        Ask::Question(question) => questions::run(question, context).await,
        Ask::Tiles { out, of } => tiles::write(&out, of.log, context).await,
    }
}

pub(super) fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))
}

/// Public keys, one a line.
pub(super) fn read_keys(path: &Path) -> Result<Vec<String>, CliError> {
    Ok(read(path)?.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Writes them so, in the place of what was there.
fn write_keys(path: &Path, keys: &[String]) -> Result<(), CliError> {
    replace(path, (keys.join("\n") + "\n").as_bytes())
}

/// What is said of a checkpoint whose vault needs witnesses: how many have cosigned it, and how many are needed.
fn witnessed(have: u32, needed: u32) -> Option<(&'static str, String)> {
    let text = match have < needed {
        true => format!("not witnessed yet: {have} of {needed} have cosigned the checkpoint"),
        false => format!("{have} have cosigned the checkpoint, {needed} are needed"),
    };
    (needed > 0).then_some(("witnesses", text))
}

/// What is said of keys that nobody gave.
fn came_with(what: &str, keys: &Path) -> (&'static str, String) {
    ("note", format!("{} came with the {what}: compare it with the one you keep", keys.display()))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn bar(leaves: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:32} {percent:>3}%  {human_pos} of {human_len} leaves  {per_sec}  {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(leaves).with_style(style)
}
