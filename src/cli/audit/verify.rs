//! `strongroom audit verify`: an export held against what was signed, without the vault.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_ledger::checkpoint::Checkpoint;
use strongroom_ledger::log_keys::{TrustedKey, number};
use strongroom_ledger::verify::{ExcerptFault, Pieces, Proof, Report, VerifyError};
use strongroom_ledger::{checkpoint, cosignature, verify};

use super::folder::Folder;
use super::{beside, came_with, excerpt, read, read_keys};
use crate::cli::files::replace;
use crate::cli::output::{CliError, Exit, Output, facts};

/// What is verified, and against what.
#[derive(Clone, Debug, ClapArgs)]
pub struct Verify {
    /// The export: a whole ledger, one leaf a line, or the folder that audit tiles wrote; with --excerpt, any other.
    pub export: PathBuf,

    /// It is an export with a filter or in another form, with EXPORT.manifest beside it: what it leaves out is not proven to be
    /// of no interest.
    #[arg(long)]
    pub excerpt: bool,

    /// If the lines of an excerpt hold, make the table or the events anew of them, in the place of those that are there.
    #[arg(long, requires = "excerpt")]
    pub anew: bool,

    /// The signed checkpoint [default: EXPORT.checkpoint, or the folder's].
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,

    /// An older checkpoint of the same ledger; give it once for each. If something was changed, they say between which
    /// leaves.
    #[arg(long, value_name = "FILE")]
    pub older: Vec<PathBuf>,

    /// The ledger's public keys, one a line [default: EXPORT.key]. One is enough: newer ones that the ledger names are trusted
    /// as far as something that a trusted key signed has the leaf which names them.
    #[arg(long, value_name = "FILE")]
    pub log_key: Option<PathBuf>,

    /// Write the ledger's keys to this file, one a line: those that were given, and those that the ledger names; without those
    /// that it calls compromised. Keep it instead of the one that you had.
    #[arg(long, value_name = "FILE")]
    pub keys_out: Option<PathBuf>,

    /// Keys of witnesses, one a line: a checkpoint of all leaves must be cosigned by so many of them as --witnesses says.
    #[arg(long, value_name = "FILE")]
    pub witness_keys: Option<PathBuf>,

    /// How many witnesses are needed [default: all whose keys are given].
    #[arg(long, value_name = "COUNT", requires = "witness_keys")]
    pub witnesses: Option<usize>,

    /// Be content with a cosigned checkpoint of the first so many leaves, or more [default: all leaves]. For what came after it
    /// no witness stands.
    #[arg(long, value_name = "LEAVES", requires = "witness_keys")]
    pub witnessed_at_least: Option<u64>,
}

impl Verify {
    fn key_path(&self) -> PathBuf {
        self.log_key.clone().unwrap_or_else(|| self.own("key"))
    }

    /// What came with the export.
    fn own(&self, what: &str) -> PathBuf {
        if self.is_folder() { self.export.join(what) } else { beside(&self.export, &format!(".{what}")) }
    }

    fn is_folder(&self) -> bool {
        self.export.is_dir()
    }

    /// The signed checkpoint and the ledger's keys.
    pub fn held_against(&self) -> Result<(String, Vec<String>), CliError> {
        let note = self.checkpoint.clone().unwrap_or_else(|| self.own("checkpoint"));
        Ok((read(&note)?, read_keys(&self.key_path())?))
    }

    /// What is to be said where no key was given that somebody kept.
    pub fn note(&self) -> Option<(&'static str, String)> {
        self.log_key.is_none().then(|| came_with("export", &self.key_path()))
    }

    /// How many leaves the newest checkpoint has that enough witnesses have cosigned, if their keys are given: `least` or more,
    /// where it is not said how many are enough. That the log's key signed it was seen.
    pub fn witnessed<'n>(
        &self,
        least: u64,
        notes: impl IntoIterator<Item = &'n String>,
    ) -> Result<Option<u64>, CliError> {
        let Some(path) = &self.witness_keys else { return Ok(None) };
        let least = self.witnessed_at_least.unwrap_or(least);
        let keys = read_keys(path)?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let needed = self.witnesses.unwrap_or(keys.len()).max(1);
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
            true => Ok(Some(newest)),
            false => Err(CliError::Unfit {
                message: format!("the witnesses stand for the first {newest} leaves only, and {least} are needed"),
                next:
                    "the same with a newer cosigned checkpoint; or, if so many are enough, --witnessed-at-least LEAVES"
                        .into(),
            }),
        }
    }
}

/// Verifies.
pub fn run(args: Verify, output: Output) -> Result<Exit, CliError> {
    if args.excerpt {
        return excerpt::verify(args, output);
    }
    if !args.is_folder() && beside(&args.export, ".manifest").exists() {
        // Whoever hands over a ledger could put a genuine excerpt of nothing in its place.
        return Err(CliError::Unfit {
            message: format!(
                "{} is no whole ledger: by its manifest it is an excerpt, which leaves out what was not asked for",
                args.export.display()
            ),
            next: "if an excerpt is what you expect, the same with --excerpt; if not, ask for the whole ledger".into(),
        });
    }
    // What is asked about comes first among what is missing.
    let export = if args.is_folder() { None } else { Some(excerpt::opened(&args.export)?) };
    let (note, keys) = args.held_against()?;
    let older = args.older.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let verified = match export {
        None => of_folder(&args.export, &note, &older, &keys)?,
        Some(export) => verify::verify_export_since(export, &note, &older, &keys),
    };
    let report = match verified {
        Ok(report) => report,
        Err(error) => {
            let part = beside(&args.export, ".part");
            if !args.is_folder() && part.exists() {
                // Of what lies beside it some may be newer: nobody need have removed what it has not.
                return Err(CliError::Unfit {
                    message: format!(
                        "{} does not hold ({error}), and {} is there: an export to it was interrupted, or is under way",
                        args.export.display(),
                        part.display()
                    ),
                    next: "keep all files as they are, and export to another place: strongroom audit export -o OTHER"
                        .into(),
                });
            }
            let why = match placed(&args, &note, &keys) {
                Ok(Some(place)) => format!("{place} ({error})"),
                Ok(None) => error.to_string(),
                // What was found counts, though what would tell where can't be read.
                Err(unread) => format!("{error}; where can't be told: {unread}"),
            };
            return Err(CliError::Unfit {
                message: format!("{} does not hold: {why}", args.export.display()),
                next: "keep all files as they are, and compare with an older export or checkpoint".into(),
            });
        }
    };
    let witnessed = args.witnessed(report.leaves, older.iter().chain([&note]))?;
    if let Some(path) = &args.keys_out {
        let sound = report.keys.iter().filter(|key| key.compromised.is_none());
        let text: String = sound.map(|key| format!("{}\n", key.key)).collect();
        replace(path, text.as_bytes())?;
    }
    let root = data_encoding::HEXLOWER.encode(&report.root);
    let time = |time: Option<strongroom_ledger::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let (first, last) = (time(report.first_time), time(report.last_time));
    output.show(
        || {
            json!({
                "whole": true,
                "verified": true,
                "origin": report.origin,
                "leaves": report.leaves.to_string(),
                "first_time": first,
                "last_time": last,
                "root": root,
                "requests": report.counts,
                "approvals": report.approvals.to_string(),
                "key_given": args.log_key.is_some(),
                "keys": report.keys.iter().map(known_as_json).collect::<Vec<_>>(),
                "checkpoints": report.proofs.iter().map(|proof| json!({
                    "leaves": proof.size.to_string(),
                    "signed_by": proof.by,
                })).collect::<Vec<_>>(),
                "witnessed_leaves": witnessed.map(|leaves| leaves.to_string()),
            })
        },
        || {
            let mut pairs = vec![
                ("whole", "yes: the ledger up to its checkpoint".to_owned()),
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
            pairs.extend(report.proofs.iter().map(|proof| ("checkpoint", proven_by(proof))));
            pairs.extend(report.keys.iter().map(|key| ("key", known(key))));
            pairs.extend(witnessed.map(|leaves| ("witnessed", format!("the first {leaves} leaves"))));
            for (action, decisions) in &report.counts {
                let decisions = decisions.iter().map(|(decision, count)| format!("{count} {decision}"));
                pairs.push(("requests", format!("{action}: {}", decisions.collect::<Vec<_>>().join(", "))));
            }
            pairs.extend(args.note());
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// Verifies the leaves in a folder of tiles, and then the tiles over them.
fn of_folder(
    export: &Path,
    note: &str,
    older: &[String],
    keys: &[String],
) -> Result<Result<Report, VerifyError>, CliError> {
    let mut lines = Folder::new(export, &claimed(note)?).lines();
    let verified = verify::verify_export_since(&mut lines, note, older, keys);
    match (&verified, lines.into_inner().wrong()) {
        (Ok(_), Some(wrong)) => Err(CliError::Unfit {
            message: format!("{} does not hold: its leaves do, and {wrong}", export.display()),
            next: "keep the folder as it is, and write another: strongroom audit tiles".into(),
        }),
        _ => Ok(verified),
    }
}

/// Where an export does not hold, if the hashes of its leaves lie beside it and say so.
fn placed(args: &Verify, note: &str, keys: &[String]) -> Result<Option<String>, CliError> {
    let proofs = beside(&args.export, ".proofs");
    let placed = if args.is_folder() {
        let folder = Folder::new(&args.export, &claimed(note)?);
        verify::place(folder.lines(), folder.hashes(), note, keys)
    } else if proofs.exists() {
        verify::place(excerpt::opened(&args.export)?, Pieces::new(excerpt::opened(&proofs)?), note, keys)
    } else {
        return Ok(None);
    };
    match placed {
        // It was told before.
        Ok(()) | Err(ExcerptFault::Checkpoint(_)) => Ok(None),
        Err(fault) => Ok(Some(fault.to_string())),
    }
}

/// What a checkpoint says; who signed it is asked with what it says.
fn claimed(note: &str) -> Result<Checkpoint, CliError> {
    checkpoint::claimed(note).map_err(|error| CliError::unfit(format!("the checkpoint does not verify: {error}")))
}

/// Which keys prove a checkpoint, for people.
fn proven_by(proof: &Proof) -> String {
    let by: Vec<&str> = proof.by.iter().map(|key| number(key)).collect();
    format!("of {} leaves, signed by {}", proof.size, by.join(", "))
}

/// How a key is known, for people.
pub fn known(key: &TrustedKey) -> String {
    let how = key.leaf.map_or_else(|| "given".to_owned(), |leaf| format!("named by leaf {leaf}"));
    let compromised = key.compromised.map(|leaf| format!("; compromised, says leaf {leaf}")).unwrap_or_default();
    format!("{} {how}{compromised}", number(&key.key))
}

/// The same for programs.
pub fn known_as_json(key: &TrustedKey) -> serde_json::Value {
    json!({
        "key": key.key,
        "named_by": key.leaf.map(|leaf| leaf.to_string()),
        "compromised_by": key.compromised.map(|leaf| leaf.to_string()),
    })
}
