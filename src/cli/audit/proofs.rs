//! `strongroom audit prove | check | grown`: proofs of single leaves, and that the ledger only grew; of the vault, or of a folder
//! that it wrote.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_ledger::checkpoint::Checkpoint;
use strongroom_ledger::log_keys::{KeyLeaf, Told, Trust, number};
use strongroom_ledger::proof::{GrowthProof, LeafProof, Question, Tree, verify_consistency};
use strongroom_ledger::{LedgerError, checkpoint, leaf};
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{
    ExportRequest, GetConsistencyProofRequest, GetConsistencyProofResponse, GetInclusionProofRequest,
    GetInclusionProofResponse,
};

use super::archive;
use super::folder::Folder;
use super::learn::learn;
use super::options::Of;
use super::verify::{known, known_as_json};
use super::{beside, came_with, newest, read, read_keys, write_keys};
use crate::cli::client::{Context, Wire};
use crate::cli::files::replace;
use crate::cli::output::{CliError, Exit, Output, facts};
use crate::cli::shell::quoted;

/// Writes the proof of one leaf, the leaf, and the ledger's keys to files.
pub async fn prove(
    index: u64,
    out: &Path,
    archive: Option<&Path>,
    log: String,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut client = context.audit().await?;
    let asked = GetInclusionProofRequest { index, size: 0, log: log.clone() };
    let GetInclusionProofResponse { hashes, size: _, checkpoint, keys } =
        client.get_inclusion_proof(asked).await?.into_inner();
    let line = &match archive {
        Some(folder) => archive::line(folder, index)?,
        None => {
            let asked = ExportRequest { first: index, end: index + 1, log, ..Default::default() };
            let page = client.export(asked).await?.into_inner().message().await?;
            let line = page.and_then(|page| page.leaves.into_iter().next());
            line.ok_or_else(|| misfit("the vault sent no leaf"))?.to_vec()
        }
    };
    let proof = LeafProof { index, hashes: hashes_of(&hashes)?, checkpoint };
    let known: Vec<&str> = keys.iter().map(String::as_str).collect();
    proof.verify(line, &known).map_err(|error| match archive {
        Some(_) => misfit(&format!("the leaf of the archive is not the ledger's: {error}")),
        None => misfit(&format!("the vault's own proof does not hold: {error}")),
    })?;
    write_proof(out, line, &proof, &keys, context.output)
}

/// The same from a folder that `audit tiles` wrote, without the vault.
pub fn prove_from_tiles(
    index: u64,
    out: &Path,
    folder: &Path,
    log_key: Option<&Path>,
    output: Output,
) -> Result<Exit, CliError> {
    let (tiles, checkpoint, keys) = Folder::open(folder, log_key)?;
    let size = tiles.size();
    if index >= size {
        return Err(misfit(&format!("{} has {size} leaves, from 0 on: there is no leaf {index}", folder.display())));
    }
    let proof = LeafProof { index, hashes: tiles.answer(&Question::Inclusion { index, size })?, checkpoint };
    let line = tiles.leaf(index)?;
    let known: Vec<&str> = keys.iter().map(String::as_str).collect();
    proof.verify(&line, &known).map_err(|error| {
        misfit(&format!("{}: leaf {index} is not the one that its checkpoint signs: {error}", folder.display()))
    })?;
    write_proof(out, &line, &proof, &keys, output)
}

fn write_proof(out: &Path, line: &[u8], proof: &LeafProof, keys: &[String], output: Output) -> Result<Exit, CliError> {
    let (leaf_path, key_path) = (beside(out, ".leaf"), beside(out, ".key"));
    replace(&leaf_path, &[line, b"\n"].concat())?;
    write_keys(&key_path, keys)?;
    replace(out, proof.to_text().as_bytes())?;
    let shown = |path: &Path| path.display().to_string();
    output.show(
        || {
            json!({
                "out": shown(out),
                "leaf": shown(&leaf_path),
                "key": shown(&key_path),
                "index": proof.index.to_string(),
            })
        },
        || {
            facts([
                ("written", shown(out)),
                ("leaf", shown(&leaf_path)),
                ("key", shown(&key_path)),
                ("try", format!("strongroom audit check {}", quoted(&shown(out)))),
            ])
        },
    )?;
    Ok(Exit::Done)
}

/// Checks the proof of one leaf, without the vault.
pub fn check(proof: &Path, leaf: Option<PathBuf>, key: Option<PathBuf>, output: Output) -> Result<Exit, CliError> {
    let own_key = key.is_some();
    let leaf = leaf.unwrap_or_else(|| beside(proof, ".leaf"));
    let key = key.unwrap_or_else(|| beside(proof, ".key"));
    let (text, line, keys) = (read(proof)?, read(&leaf)?, read_keys(&key)?);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let does_not_hold = |error: &dyn std::fmt::Display| CliError::Unfit {
        message: format!("{} does not hold: {error}", proof.display()),
        next: "keep the files as they are, and ask the vault for the proof again: strongroom audit prove".into(),
    };
    let read = LeafProof::from_text(&text).map_err(|error| does_not_hold(&error))?;
    let signed = read.verify(line.as_bytes(), &keys).map_err(|error| does_not_hold(&error))?;
    let said = leaf::parse(line.as_bytes()).map_err(|error| does_not_hold(&error))?;
    if said.index != read.index {
        return Err(does_not_hold(&"the leaf names another index than the proof"));
    }
    let names = KeyLeaf::of(&said, &signed.origin);
    output.show(
        || {
            json!({
                "verified": true,
                "origin": signed.origin,
                "index": read.index.to_string(),
                "time": said.time.to_string(),
                "principal": said.principal,
                "action": said.action,
                "decision": said.decision,
                "leaves": signed.size.to_string(),
                "names_key": names.as_ref().map(|named| &named.key),
                "key_given": own_key,
            })
        },
        || {
            let mut pairs = vec![
                ("verified", "the ledger has this leaf".to_owned()),
                ("origin", signed.origin.clone()),
                ("leaf", format!("{} of {}", read.index, signed.size)),
                ("time", said.time.to_string()),
                ("principal", said.principal.clone()),
                ("action", said.action.clone()),
                ("decision", said.decision.clone()),
            ];
            pairs.extend(names.as_ref().map(|named| match named.told {
                Told::Next { .. } => ("names key", named.key.clone()),
                Told::Compromised => ("compromised", named.key.clone()),
            }));
            pairs.extend((!own_key).then(|| came_with("proof", &key)));
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// Proves that the ledger only grew since an older checkpoint.
#[derive(Clone, Debug, ClapArgs)]
pub struct Grown {
    /// The older checkpoint.
    checkpoint: PathBuf,

    /// The ledger's public keys, one a line [default: those that the vault, or the folder, names].
    #[arg(long, value_name = "FILE")]
    log_key: Option<PathBuf>,

    /// Not of the vault, but up to the checkpoint of this folder, which `audit tiles` wrote.
    #[arg(long, value_name = "FOLDER", conflicts_with = "log")]
    tiles: Option<PathBuf>,

    /// Write the proof to this file, which anybody checks with the older checkpoint and without the vault.
    #[arg(short, long, value_name = "OUT")]
    out: Option<PathBuf>,

    #[command(flatten)]
    pub of: Of,
}

impl Grown {
    /// Whether no vault is asked.
    pub fn is_offline(&self) -> bool {
        self.tiles.is_some()
    }

    /// From the vault.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let older = Older::read(&self.checkpoint)?;
        let kept = self.log_key.as_deref().map(read_keys).transpose()?;
        let log = self.of.log.clone();
        let mut client = context.audit().await?;
        // What is asked depends on the size only; whether the checkpoint holds is looked at with the keys.
        let from = older.said.size;
        let asked = GetConsistencyProofRequest { from: from.max(1), to: 0, log: log.clone() };
        let GetConsistencyProofResponse { hashes, to: _, checkpoint, keys } =
            client.get_consistency_proof(asked).await?.into_inner();
        let hashes = if from == 0 { vec![] } else { hashes_of(&hashes)? };
        let keys = kept.unwrap_or(keys);
        let proof = GrowthProof { from, hashes, checkpoint };
        let now = checkpoint::claimed(&proof.checkpoint).map_err(newest::does_not_hold)?;
        let mut trust = older.trust(&keys)?;
        learn_other(&mut client, &log, (&older.note, &older.said), (&proof.checkpoint, &now), &mut trust).await?;
        self.tell(&older, &proof, &trust, context.output)
    }

    /// From a folder.
    pub fn run_offline(self, output: Output) -> Result<Exit, CliError> {
        let Some(folder) = &self.tiles else { return Err(misfit("no folder is named")) };
        let older = Older::read(&self.checkpoint)?;
        let (tiles, checkpoint, keys) = Folder::open(folder, self.log_key.as_deref())?;
        let (from, to) = (older.said.size, tiles.size());
        if from > to {
            return Err(older.other(&format!("that has {from} leaves, and {} has {to}", folder.display())));
        }
        let hashes = if from == 0 { vec![] } else { tiles.answer(&Question::Consistency { from, to })? };
        let trust = older.trust(&keys)?;
        self.tell(&older, &GrowthProof { from, hashes, checkpoint }, &trust, output)
    }

    fn tell(&self, older: &Older<'_>, proof: &GrowthProof, trust: &Trust, output: Output) -> Result<Exit, CliError> {
        let grown = older.grown(proof, trust)?;
        if let Some(out) = &self.out {
            let sound = trust.trusted().into_iter().filter(|key| key.compromised.is_none());
            let keys: Vec<String> = sound.map(|key| key.key).collect();
            replace(out, proof.to_text().as_bytes())?;
            write_keys(&beside(out, ".key"), &keys)?;
        }
        let named = match self.is_offline() {
            true => "the key came with the folder: give the one you keep, by --log-key FILE",
            false => "the vault itself named the key: give the one you keep, by --log-key FILE",
        };
        let note = self.log_key.is_none().then(|| ("note", named.to_owned()));
        grown.show(proof, trust, self.out.as_deref(), note, output)
    }
}

/// Checks the proof that a ledger only grew, without the vault.
pub fn check_grown(proof: &Path, older: &Path, key: Option<PathBuf>, output: Output) -> Result<Exit, CliError> {
    let own_key = key.is_some();
    let key = key.unwrap_or_else(|| beside(proof, ".key"));
    let (read, keys) = (GrowthProof::from_text(&read(proof)?), read_keys(&key)?);
    let read = read.map_err(|error| misfit(&format!("{} can't be used: {error}", proof.display())))?;
    let older = Older::read(older)?;
    let trust = older.trust(&keys)?;
    let note = (!own_key).then(|| came_with("proof", &key));
    older.grown(&read, &trust)?.show(&read, &trust, None, note, output)
}

/// The checkpoint that somebody kept.
struct Older<'p> {
    path: &'p Path,
    note: String,
    said: Checkpoint,
}

impl<'p> Older<'p> {
    fn read(path: &'p Path) -> Result<Self, CliError> {
        let note = read(path)?;
        let said = checkpoint::claimed(&note);
        let said = said.map_err(|error| misfit(&format!("{} can't be used: {error}", path.display())))?;
        Ok(Self { path, note, said })
    }

    fn unread(&self, error: LedgerError) -> CliError {
        misfit(&format!("{} can't be used: {error}", self.path.display()))
    }

    fn other(&self, why: &str) -> CliError {
        CliError::Unfit {
            message: format!("the ledger is not the one of {}: {why}", self.path.display()),
            next: "keep that file, take another export, and compare both".into(),
        }
    }

    /// What these keys are trusted for.
    fn trust(&self, keys: &[String]) -> Result<Trust, CliError> {
        let given: Vec<&str> = keys.iter().map(String::as_str).collect();
        match checkpoint::verify(&self.note, &given) {
            Err(error @ LedgerError::Key { .. }) => Err(self.unread(error)),
            _ => Ok(Trust::new(&self.said.origin, given)),
        }
    }

    /// Sees that the newer head of a proof continues it, and that trusted keys have signed both.
    fn grown(&self, proof: &GrowthProof, trust: &Trust) -> Result<HasGrown, CliError> {
        let now = checkpoint::claimed(&proof.checkpoint).map_err(newest::does_not_hold)?;
        trust.prove(&self.note, self.said.size).map_err(|error| self.unread(error))?;
        let by = trust.prove(&proof.checkpoint, now.size).map_err(newest::does_not_hold)?;
        if self.said.origin != now.origin {
            return Err(self.other(&format!("it is of the log {}, and the newer is {}", self.said.origin, now.origin)));
        }
        proof.verify(&tree(&self.said), &tree(&now)).map_err(|error| self.other(&error.to_string()))?;
        Ok(HasGrown { from: self.said.size, now, by })
    }
}

/// A ledger that only grew.
struct HasGrown {
    from: u64,
    now: Checkpoint,
    /// The keys that signed its newer head.
    by: Vec<String>,
}

impl HasGrown {
    fn show(
        &self,
        proof: &GrowthProof,
        trust: &Trust,
        out: Option<&Path>,
        note: Option<(&'static str, String)>,
        output: Output,
    ) -> Result<Exit, CliError> {
        let Self { from, now, by } = self;
        let out = out.map(|out| out.display().to_string());
        output.show(
            || {
                json!({
                    "verified": true,
                    "origin": now.origin,
                    "from": from.to_string(),
                    "to": now.size.to_string(),
                    "checkpoint": proof.checkpoint,
                    "signed_by": by,
                    "keys": trust.trusted().iter().map(known_as_json).collect::<Vec<_>>(),
                    "key_given": note.is_none(),
                    "out": out,
                })
            },
            || {
                let mut pairs = vec![
                    ("verified", "nothing was changed or dropped since".to_owned()),
                    ("origin", now.origin.clone()),
                    ("from", format!("{from} leaves")),
                    ("to", format!("{} leaves", now.size)),
                    ("signed by", by.iter().map(|key| number(key)).collect::<Vec<_>>().join(", ")),
                ];
                pairs.push(match &out {
                    Some(out) => ("written", out.clone()),
                    None => ("keep", "the newest checkpoint: strongroom audit checkpoint".to_owned()),
                });
                pairs.extend(trust.trusted().iter().map(|key| ("key", known(key))));
                pairs.extend(note.clone());
                facts(pairs)
            },
        )?;
        Ok(Exit::Done)
    }
}

/// If trusted keys have signed only one of two checkpoints of a log: learns from that one who signed the other.
async fn learn_other(
    client: &mut AuditClient<Wire>,
    log: &str,
    (one_note, one): (&str, &Checkpoint),
    (other_note, other): (&str, &Checkpoint),
    trust: &mut Trust,
) -> Result<(), CliError> {
    let anchor = match (trust.prove(one_note, one.size), trust.prove(other_note, other.size)) {
        _ if one.origin != other.origin => None,
        (Ok(_), Err(LedgerError::Unsigned)) => Some(one),
        (Err(LedgerError::Unsigned), Ok(_)) => Some(other),
        _ => None,
    };
    match anchor {
        Some(anchor) => learn(client, log, anchor, trust).await,
        None => Ok(()),
    }
}

/// Sees that a ledger as it is now is the older one and perhaps more; both are signed by its key. What it means if it is not,
/// `forked` says of the reason.
pub async fn continues(
    client: &mut AuditClient<Wire>,
    log: String,
    older: &Checkpoint,
    now: &Checkpoint,
    forked: impl Fn(String) -> CliError,
) -> Result<(), CliError> {
    if now.origin != older.origin {
        return Err(forked(format!("it was {}, and is {}", older.origin, now.origin)));
    }
    if now.size < older.size {
        return Err(forked(format!("it had {} leaves, and has {}", older.size, now.size)));
    }
    let hashes = match older.size {
        // The tree without leaves is the beginning of every other, and equal trees need no proof.
        0 => vec![],
        size if size == now.size => vec![],
        from => {
            let asked = GetConsistencyProofRequest { from, to: now.size, log };
            hashes_of(&client.get_consistency_proof(asked).await?.into_inner().hashes)?
        }
    };
    verify_consistency(&hashes, &tree(older), &tree(now)).map_err(|error| forked(error.to_string()))
}

/// The tree that a checkpoint signs.
pub fn tree(signed: &Checkpoint) -> Tree {
    Tree { size: signed.size, root: signed.root }
}

pub fn hashes_of(hashes: &[bytes::Bytes]) -> Result<Vec<[u8; 32]>, CliError> {
    let hash = |hash: &bytes::Bytes| <[u8; 32]>::try_from(&**hash).ok();
    hashes.iter().map(hash).collect::<Option<_>>().ok_or_else(|| misfit("the vault sent a hash that is none"))
}

fn misfit(message: &str) -> CliError {
    CliError::unfit(message.to_owned())
}
