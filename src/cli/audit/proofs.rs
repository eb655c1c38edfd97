//! `strongroom audit prove | check | grown`: proofs of single leaves, and that the ledger only grew.

use std::path::{Path, PathBuf};

use serde_json::json;
use strongroom_ledger::log_keys::{KeyLeaf, Told, Trust, number};
use strongroom_ledger::proof::{LeafProof, Tree, verify_consistency};
use strongroom_ledger::{LedgerError, checkpoint, leaf};
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{
    ExportRequest, GetConsistencyProofRequest, GetConsistencyProofResponse, GetInclusionProofRequest,
    GetInclusionProofResponse,
};

use super::archive;
use super::learn::learn;
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

    let (leaf_path, key_path) = (beside(out, ".leaf"), beside(out, ".key"));
    replace(&leaf_path, &[line.as_slice(), b"\n"].concat())?;
    write_keys(&key_path, &keys)?;
    replace(out, proof.to_text().as_bytes())?;
    let shown = |path: &Path| path.display().to_string();
    context.output.show(
        || {
            json!({
                "out": shown(out),
                "leaf": shown(&leaf_path),
                "key": shown(&key_path),
                "index": index.to_string(),
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
pub async fn grown(older: &Path, key: Option<PathBuf>, log: String, context: &Context) -> Result<Exit, CliError> {
    let note = read(older)?;
    let kept = key.as_deref().map(read_keys).transpose()?;
    let mut client = context.audit().await?;
    let unread = |error| misfit(&format!("{} can't be used: {error}", older.display()));
    // What is asked depends on the size only; whether the checkpoint holds is looked at with the keys.
    let size = checkpoint::claimed_size(&note).map_err(unread)?;
    let asked = GetConsistencyProofRequest { from: size.max(1), to: 0, log: log.clone() };
    let GetConsistencyProofResponse { hashes, to: _, checkpoint: newer_note, keys } =
        client.get_consistency_proof(asked).await?.into_inner();
    let keys = kept.unwrap_or(keys);
    let given: Vec<&str> = keys.iter().map(String::as_str).collect();
    if let Err(error @ LedgerError::Key { .. }) = checkpoint::verify(&note, &given) {
        return Err(unread(error));
    }
    let before = checkpoint::claimed(&note).map_err(unread)?;
    let now = checkpoint::claimed(&newer_note).map_err(newest::does_not_hold)?;
    let mut trust = Trust::new(&before.origin, given);
    learn_other(&mut client, &log, (&note, &before), (&newer_note, &now), &mut trust).await?;
    trust.prove(&note, before.size).map_err(unread)?;
    let by = trust.prove(&newer_note, now.size).map_err(newest::does_not_hold)?;
    let hashes = if before.size == 0 { vec![] } else { hashes_of(&hashes)? };
    let proven = match before.origin == now.origin {
        true => verify_consistency(&hashes, &tree(&before), &tree(&now)).map_err(|error| error.to_string()),
        false => Err(format!("it is of the log {}, and the vault's is {}", before.origin, now.origin)),
    };
    if let Err(why) = proven {
        return Err(CliError::Unfit {
            message: format!("the ledger is not the one of {}: {why}", older.display()),
            next: "keep that file, take another export, and compare both".into(),
        });
    }
    context.output.show(
        || {
            json!({
                "verified": true,
                "origin": now.origin,
                "from": before.size.to_string(),
                "to": now.size.to_string(),
                "checkpoint": newer_note,
                "signed_by": by,
                "keys": trust.trusted().iter().map(known_as_json).collect::<Vec<_>>(),
                "key_given": key.is_some(),
            })
        },
        || {
            let mut pairs = vec![
                ("verified", "nothing was changed or dropped since".to_owned()),
                ("origin", now.origin.clone()),
                ("from", format!("{} leaves", before.size)),
                ("to", format!("{} leaves", now.size)),
                ("signed by", by.iter().map(|key| number(key)).collect::<Vec<_>>().join(", ")),
                ("keep", "the newest checkpoint: strongroom audit checkpoint".to_owned()),
            ];
            pairs.extend(trust.trusted().iter().map(|key| ("key", known(key))));
            let named = "the vault itself named the key: give the one you keep, by --log-key FILE";
            pairs.extend(key.is_none().then(|| ("note", named.to_owned())));
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// If trusted keys have signed only one of two checkpoints of a log: learns from that one who signed the other.
async fn learn_other(
    client: &mut AuditClient<Wire>,
    log: &str,
    (one_note, one): (&str, &checkpoint::Checkpoint),
    (other_note, other): (&str, &checkpoint::Checkpoint),
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
    older: &checkpoint::Checkpoint,
    now: &checkpoint::Checkpoint,
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
pub fn tree(signed: &checkpoint::Checkpoint) -> Tree {
    Tree { size: signed.size, root: signed.root }
}

pub fn hashes_of(hashes: &[bytes::Bytes]) -> Result<Vec<[u8; 32]>, CliError> {
    let hash = |hash: &bytes::Bytes| <[u8; 32]>::try_from(&**hash).ok();
    hashes.iter().map(hash).collect::<Option<_>>().ok_or_else(|| misfit("the vault sent a hash that is none"))
}

fn misfit(message: &str) -> CliError {
    CliError::unfit(message.to_owned())
}
