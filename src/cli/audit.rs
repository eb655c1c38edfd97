//! `strongroom audit`: the ledger out of the vault, and its proof without the vault.

mod proofs;
mod tail;
mod tiles;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use strongroom_ledger::{checkpoint, cosignature, verify};
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{ExportRequest, GetCheckpointRequest, GetCheckpointResponse};
use tonic::Code;

use super::client::{Context, Global, Wire};
use super::files::{create, rename, replace};
use super::output::{CliError, Exit, Output, facts};
use super::shell::quoted;
pub(super) use proofs::{NotShown, continues};

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

Without --checkpoint and --log-key the files beside the export are taken. A key
that comes with an export proves only that both come from the same hand: give
the one that you kept from before.
Exit code 0: all holds; 1: it does not, or can't be read.")]
    Verify(Verify),
    /// Check the proof of one leaf, without the vault.
    #[command(after_help = "Examples:
  strongroom audit check 41.tlog-proof
  strongroom audit check 41.tlog-proof --log-key kept-since-last-year.key

Without --leaf and --log-key the files beside the proof are taken. A key that
comes with a proof proves only that both come from the same hand.
Exit code 0: the ledger has the leaf; 1: it is not shown, or can't be read.")]
    Check {
        /// The proof, as C2SP tlog-proof.
        proof: PathBuf,

        /// The leaf, one line [default: PROOF.leaf].
        #[arg(long, value_name = "FILE")]
        leaf: Option<PathBuf>,

        /// The ledger's public keys, one a line [default: PROOF.key].
        #[arg(long, value_name = "FILE")]
        log_key: Option<PathBuf>,
    },
}

/// What is asked of the vault.
#[derive(Clone, Debug, Subcommand)]
enum Ask {
    /// Write the whole ledger, its signed checkpoint and its public keys to files.
    #[command(after_help = "Examples:
  strongroom audit export -o ledger.jsonl
  strongroom audit verify ledger.jsonl --checkpoint ledger.jsonl.checkpoint \\
      --log-key ledger.jsonl.key

Writes OUT (one leaf a line), OUT.checkpoint (the signed head that OUT leads
to) and OUT.key (the public keys). All three replace what was there, once they
are whole.")]
    Export {
        /// Where the ledger goes.
        #[arg(short, long, value_name = "OUT")]
        out: PathBuf,

        /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
        #[arg(long, default_value = "", hide_default_value = true)]
        log: String,

        /// The form of the export.
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
    },
    /// Print the signed head of the ledger as it is now: a C2SP signed note.
    Checkpoint {
        /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
        #[arg(long, default_value = "", hide_default_value = true)]
        log: String,
    },
    /// Print the public keys of the ledger, each a C2SP vkey. Keep them apart from the vault.
    Key {
        /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
        #[arg(long, default_value = "", hide_default_value = true)]
        log: String,
    },
    /// Write the proof that the ledger has one leaf, which anybody can check without the vault.
    #[command(after_help = "Examples:
  strongroom audit prove 41 -o 41.tlog-proof
  strongroom audit check 41.tlog-proof

Writes OUT (the proof and the signed head it leads to, as C2SP tlog-proof),
OUT.leaf (the leaf) and OUT.key (the public keys).")]
    Prove {
        /// Index of the leaf.
        index: u64,

        /// Where the proof goes.
        #[arg(short, long, value_name = "OUT")]
        out: PathBuf,

        /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
        #[arg(long, default_value = "", hide_default_value = true)]
        log: String,
    },
    /// Prove that the ledger only grew since a checkpoint that you kept.
    #[command(after_help = "Examples:
  strongroom audit checkpoint > kept.checkpoint
  strongroom audit grown kept.checkpoint --log-key kept-since-last-year.key

Exit code 0: nothing was changed or dropped since; 1: it was, or can't be shown.")]
    Grown {
        /// The older checkpoint.
        checkpoint: PathBuf,

        /// The ledger's public keys, one a line [default: those that the vault names].
        #[arg(long, value_name = "FILE")]
        log_key: Option<PathBuf>,

        /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
        #[arg(long, default_value = "", hide_default_value = true)]
        log: String,
    },
    /// Follow the ledger: print or send each leaf as it is written, until it is stopped.
    #[command(after_help = "Examples:
  strongroom audit tail                          # on the terminal, from now on
  strongroom audit tail --from 0 -o ledger.jsonl # all, and what comes; rotated
  strongroom audit tail --syslog siem.bank.example:6514 --syslog-ca siem-ca.pem \
      --cursor siem.cursor

A file gets every leaf once, over restarts of either side: run it as a service. A
collector gets what was not acknowledged again, so some twice; the index tells.
Exit code 1: refused, or the ledger is not the one that was followed any more.")]
    Tail(tail::Tail),
    /// Write the ledger to a folder in which other tools find it: C2SP tlog-tiles.
    #[command(after_help = "Example:
  strongroom audit tiles -o ledger/

Writes checkpoint, tile/LEVEL/N (hashes), tile/entries/N (leaves) and key.")]
    Tiles {
        /// The folder.
        #[arg(short, long, value_name = "FOLDER")]
        out: PathBuf,

        /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
        #[arg(long, default_value = "", hide_default_value = true)]
        log: String,
    },
}

#[derive(Clone, Debug, ClapArgs)]
struct Verify {
    /// The export, one leaf a line.
    export: PathBuf,

    /// The signed checkpoint [default: EXPORT.checkpoint].
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,

    /// An older checkpoint of the same ledger; give it once for each. If something was changed, they say between which
    /// leaves.
    #[arg(long, value_name = "FILE")]
    older: Vec<PathBuf>,

    /// The ledger's public keys, one a line [default: EXPORT.key].
    #[arg(long, value_name = "FILE")]
    log_key: Option<PathBuf>,

    /// Keys of witnesses, one a line: a checkpoint of all leaves must be cosigned by so many of them as --witnesses says.
    #[arg(long, value_name = "FILE")]
    witness_keys: Option<PathBuf>,

    /// How many witnesses are needed [default: all whose keys are given].
    #[arg(long, value_name = "COUNT", requires = "witness_keys")]
    witnesses: Option<usize>,

    /// Be content with a cosigned checkpoint of the first so many leaves, or more [default: all leaves]. For what came after it
    /// no witness stands.
    #[arg(long, value_name = "LEAVES", requires = "witness_keys")]
    witnessed_at_least: Option<u64>,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ExportFormat {
    /// One leaf a line, byte by byte as it is in the ledger: what can be verified.
    #[default]
    Jsonl,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let asked = match args.command {
        Command::Ask(asked) => asked,
        Command::Verify(args) => return verify(args, global.output),
        Command::Check { proof, leaf, log_key } => return proofs::check(&proof, leaf, log_key, global.output),
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
            Self::Export { log, .. }
            | Self::Checkpoint { log }
            | Self::Key { log }
            | Self::Prove { log, .. }
            | Self::Grown { log, .. }
            | Self::Tiles { log, .. } => log,
            Self::Tail(tail) => tail.log(),
        }
    }
}

async fn ask(asked: Ask, context: &Context) -> Result<Exit, CliError> {
    match asked {
        Ask::Export { out, log, format: ExportFormat::Jsonl } => export(&out, log, context).await,
        Ask::Checkpoint { log } => {
            let head = head(log, context).await?;
            context.output.show(|| json!({ "checkpoint": head.checkpoint }), || head.checkpoint.clone())?;
            Ok(Exit::Done)
        }
        Ask::Key { log } => {
            let head = head(log, context).await?;
            context.output.show(|| json!({ "keys": head.keys }), || head.keys.join("\n"))?;
            Ok(Exit::Done)
        }
        Ask::Prove { index, out, log } => proofs::prove(index, &out, log, context).await,
        Ask::Grown { checkpoint, log_key, log } => proofs::grown(&checkpoint, log_key, log, context).await,
        Ask::Tail(tail) => tail::run(tail, context).await,
        Ask::Tiles { out, log } => tiles::write(&out, log, context).await,
    }
}

async fn head(log: String, context: &Context) -> Result<GetCheckpointResponse, CliError> {
    Ok(context.audit().await?.get_checkpoint(GetCheckpointRequest { log }).await?.into_inner())
}

/// Fetches the head first and then exactly the leaves that it signs, while the ledger grows on.
async fn export(out: &Path, log: String, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.audit().await?;
    let head = client.get_checkpoint(GetCheckpointRequest { log: log.clone() }).await?.into_inner();
    let keys: Vec<&str> = head.keys.iter().map(String::as_str).collect();
    let signed = checkpoint::verify(&head.checkpoint, &keys)
        .map_err(|error| CliError::unfit(format!("the vault's own checkpoint does not hold: {error}")))?;

    let part = beside(out, ".part");
    if let Err(error) = fetch(&mut client, log, signed.size, &part).await {
        // Half a ledger proves nothing; the first error is the one to report.
        drop(std::fs::remove_file(&part));
        return Err(error);
    }

    let (note, key) = (beside(out, ".checkpoint"), beside(out, ".key"));
    replace(&note, head.checkpoint.as_bytes())?;
    replace(&key, (head.keys.join("\n") + "\n").as_bytes())?;
    rename(&part, out)?;
    context.output.show(
        || {
            json!({
                "out": out.display().to_string(),
                "checkpoint": note.display().to_string(),
                "key": key.display().to_string(),
                "origin": signed.origin,
                "leaves": signed.size.to_string(),
            })
        },
        || {
            let try_next = format!("strongroom audit verify {}", quoted(&out.display().to_string()));
            facts([
                ("written", out.display().to_string()),
                ("leaves", signed.size.to_string()),
                ("origin", signed.origin.clone()),
                ("checkpoint", note.display().to_string()),
                ("key", key.display().to_string()),
                ("try", try_next),
            ])
        },
    )?;
    Ok(Exit::Done)
}

/// Writes the first leaves of a ledger, `size` of them, to a file.
async fn fetch(client: &mut AuditClient<Wire>, log: String, size: u64, part: &Path) -> Result<(), CliError> {
    let mut file = BufWriter::with_capacity(1 << 20, create(part).map_err(|error| CliError::file(part, error))?);
    let bar = bar(size);
    let mut leaves = 0u64;
    // An end of 0 means the end of the ledger, so an empty one is not asked for.
    if size > 0 {
        let mut stream = client.export(ExportRequest { first: 0, end: size, log }).await?.into_inner();
        while let Some(page) = stream.message().await? {
            for leaf in &page.leaves {
                let written = file.write_all(leaf).and_then(|()| file.write_all(b"\n"));
                written.map_err(|error| CliError::file(part, error))?;
            }
            leaves += page.leaves.len() as u64;
            bar.set_position(leaves);
        }
    }
    bar.finish_and_clear();
    if leaves != size {
        return Err(CliError::Unfit {
            message: format!("the vault sent {leaves} leaves and its checkpoint signs {size}"),
            next: "the same command again".into(),
        });
    }
    let file = file.into_inner().map_err(|error| CliError::file(part, error.into_error()))?;
    file.sync_all().map_err(|error| CliError::file(part, error))
}

fn verify(args: Verify, output: Output) -> Result<Exit, CliError> {
    let own_key = args.log_key.is_some();
    let note_path = args.checkpoint.unwrap_or_else(|| beside(&args.export, ".checkpoint"));
    let key_path = args.log_key.unwrap_or_else(|| beside(&args.export, ".key"));
    let export = File::open(&args.export).map_err(|error| CliError::file(&args.export, error))?;
    let note = read(&note_path)?;
    let keys = read_keys(&key_path)?;
    let older = args.older.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let lines = BufReader::with_capacity(1 << 20, export);
    let report = match verify::verify_export_since(lines, &note, &older, &keys) {
        Ok(report) => report,
        Err(error) => {
            return Err(CliError::Unfit {
                message: format!("{} does not hold: {error}", args.export.display()),
                next: "keep all three files as they are, and compare with an older export or checkpoint".into(),
            });
        }
    };
    let witnessed = match &args.witness_keys {
        Some(path) => {
            let least = args.witnessed_at_least.unwrap_or(report.leaves);
            Some(witnessed(path, args.witnesses, least, older.iter().chain([&note]))?)
        }
        None => None,
    };
    let root = data_encoding::HEXLOWER.encode(&report.root);
    let time = |time: Option<strongroom_ledger::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let (first, last) = (time(report.first_time), time(report.last_time));
    output.show(
        || {
            json!({
                "verified": true,
                "origin": report.origin,
                "leaves": report.leaves.to_string(),
                "first_time": first,
                "last_time": last,
                "root": root,
                "requests": report.counts,
                "approvals": report.approvals.to_string(),
                "key_given": own_key,
                "witnessed_leaves": witnessed.map(|leaves| leaves.to_string()),
            })
        },
        || {
            let mut pairs = vec![
                ("verified", "every leaf is there, in order and unchanged".to_owned()),
                ("origin", report.origin.clone()),
                ("leaves", report.leaves.to_string()),
                ("from", first.clone()),
                ("to", last.clone()),
                ("root", root.clone()),
            ];
            if report.approvals > 0 {
                pairs.push(("approvals", format!("{}, each signed by its officer's key", report.approvals)));
            }
            pairs.extend(witnessed.map(|leaves| ("witnessed", format!("the first {leaves} leaves"))));
            for (action, decisions) in &report.counts {
                let decisions = decisions.iter().map(|(decision, count)| format!("{count} {decision}"));
                pairs.push(("requests", format!("{action}: {}", decisions.collect::<Vec<_>>().join(", "))));
            }
            if !own_key {
                pairs.push((
                    "note",
                    format!("{} came with the export: compare it with the one you keep", key_path.display()),
                ));
            }
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// How many leaves the newest checkpoint has that enough witnesses have cosigned: `least` at the least. That the log's key
/// signed it was seen.
fn witnessed<'n>(
    path: &Path,
    needed: Option<usize>,
    least: u64,
    notes: impl Iterator<Item = &'n String>,
) -> Result<u64, CliError> {
    let keys = read_keys(path)?;
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let needed = needed.unwrap_or(keys.len()).max(1);
    let unfit = |error| CliError::unfit(format!("the witnesses' word does not hold: {error}"));
    let (mut newest, mut most) = (None, 0);
    for note in notes {
        let count = cosignature::witnesses(note, &keys).map_err(unfit)?;
        most = most.max(count);
        if count >= needed {
            newest = newest.max(Some(checkpoint::claimed_size(note).map_err(unfit)?));
        }
    }
    let newest = newest.ok_or_else(|| CliError::Unfit {
        message: format!("no checkpoint is cosigned by {needed} of the given witnesses: {most} at the most"),
        next: "the same with the cosigned checkpoint: --checkpoint FILE, or --older FILE".into(),
    })?;
    match newest >= least {
        true => Ok(newest),
        false => Err(CliError::Unfit {
            message: format!("the witnesses stand for the first {newest} leaves only, and {least} are needed"),
            next: "the same with a newer cosigned checkpoint; or, if so many are enough, --witnessed-at-least LEAVES"
                .into(),
        }),
    }
}

pub(super) fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))
}

/// Public keys, one a line.
pub(super) fn read_keys(path: &Path) -> Result<Vec<String>, CliError> {
    Ok(read(path)?.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
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
