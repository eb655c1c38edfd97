//! Exports with a filter or in another form: lines, what proves them, what the vault signed, and a file made of the lines.
//!
//! The lines are always kept: they are what is proven. A file of another form is made of them here, and whoever verifies holds what
//! it says against them. The manifest is the vault's word about the lines, in a frame that lists the files, which nobody signs: no
//! word of it can make of a file that differs one that holds.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::digest::{Context as Digest, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::json;
use strongroom_export::{Difference, Format, compare, convert};
use strongroom_ledger::cover::{HEADER, Piece, Subtree};
use strongroom_ledger::filter::Filter;
use strongroom_ledger::manifest::Manifest;
use strongroom_ledger::verify::{ExcerptFault, verify_excerpt};
use strongroom_ledger::{LedgerError, leaf, leaf_hash, manifest};
use strongroom_proto::v1::{ExportRequest, ExportResponse, SignedExport};

use super::answered::{is_answered, other};
use super::growing::Growing;
use super::verify::Verify;
use super::{bar, beside, read, witnessed, write_keys};
use crate::cli::client::Context;
use crate::cli::files::{remove_if_there, rename, replace};
use crate::cli::output::{CliError, Exit, Output, facts};
use crate::cli::shell::quoted;

/// What stands in OUT.manifest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame {
    /// The form of the export.
    format: String,
    /// The files of the export, but for the manifest, the checkpoint and the keys.
    files: Vec<Listed>,
    /// What the vault signed.
    signed: String,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Listed {
    /// What is behind OUT in its name.
    ending: String,
    sha256: String,
}

/// The files of an export.
struct Files<'o> {
    out: &'o Path,
    format: Format,
}

impl Files<'_> {
    /// The lines.
    fn lines(&self) -> PathBuf {
        beside(self.out, if self.format == Format::Jsonl { "" } else { ".leaves" })
    }

    /// Endings of what is listed.
    fn listed(&self) -> &'static [&'static str] {
        if self.format == Format::Jsonl { &["", ".proofs"] } else { &["", ".leaves", ".proofs"] }
    }
}

/// Exports what is asked for.
pub async fn export(out: &Path, asked: ExportRequest, format: Format, context: &Context) -> Result<Exit, CliError> {
    let (said, (have, needed)) = take(out, asked, format, context).await?;
    let shown = |ending: &str| beside(out, ending).display().to_string();
    context.output.show(
        || {
            json!({
                "out": shown(""),
                "manifest": shown(".manifest"),
                "proofs": shown(".proofs"),
                "checkpoint": shown(".checkpoint"),
                "key": shown(".key"),
                "origin": said.log.origin,
                "leaves": said.lines.to_string(),
                "looked_at": (said.end - said.first).to_string(),
                "witnesses": have,
                "witnesses_needed": needed,
            })
        },
        || {
            let mut pairs = vec![
                ("written", shown("")),
                ("leaves", format!("{} of {}", said.lines, said.end - said.first)),
                ("origin", said.log.origin.clone()),
                ("manifest", shown(".manifest")),
                ("proofs", shown(".proofs")),
                ("checkpoint", shown(".checkpoint")),
                ("key", shown(".key")),
                ("try", format!("strongroom audit verify --excerpt {}", quoted(&shown("")))),
            ];
            pairs.extend(witnessed(have, needed));
            pairs.extend(unknown(&said.filter).map(|note| ("note", note)));
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// Writes an export, and returns what the vault signed of it; and how many witnesses have cosigned its head, and are needed.
pub async fn take(
    out: &Path,
    asked: ExportRequest,
    format: Format,
    context: &Context,
) -> Result<(Manifest, (u32, u32)), CliError> {
    let files = Files { out, format };
    let (lines, proofs, made) = (beside(out, ".leaves.part"), beside(out, ".proofs.part"), beside(out, ".part"));
    let fetched = async {
        let (filter, first, end) = (asked.filter.clone().unwrap_or_default(), asked.first, asked.end);
        let signed = fetch(asked, &lines, &proofs, context).await?;
        let keys: Vec<&str> = signed.keys.iter().map(String::as_str).collect();
        let said = manifest::verify(&signed.manifest, &keys)
            .map_err(|error| misfit(&format!("the vault's own manifest does not hold: {error}")))?;
        is_answered(&filter, &said.filter)?;
        if said.first != first || said.end != if end == 0 { said.log.size } else { end } {
            return Err(other(&format!("its manifest is of the leaves from {} to {}", said.first, said.end)));
        }
        // Whoever gets the files can do the same; what does not hold is better known now.
        verify_excerpt(opened(&lines)?, opened(&proofs)?, &signed.manifest, &signed.checkpoint, &signed.keys)
            .map_err(|error| misfit(&format!("what the vault sent does not hold: {error}")))?;
        if format != Format::Jsonl {
            make(&files, &said, &lines, &made)?;
        }
        Ok::<_, CliError>((signed, said))
    };
    let (signed, said) = match fetched.await {
        Ok(fetched) => fetched,
        Err(error) => {
            // A part proves nothing; the first error is the one to report.
            [&lines, &proofs, &made].into_iter().for_each(|part| drop(std::fs::remove_file(part)));
            return Err(error);
        }
    };

    // Without a manifest nobody takes what is half replaced for an export.
    forget(out)?;
    replace(&beside(out, ".checkpoint"), signed.checkpoint.as_bytes())?;
    write_keys(&beside(out, ".key"), &signed.keys)?;
    rename(&lines, &files.lines())?;
    rename(&proofs, &beside(out, ".proofs"))?;
    if format != Format::Jsonl {
        rename(&made, out)?;
    }
    frame(&files, signed.manifest)?;
    Ok((said, (signed.witnesses, signed.witnesses_needed)))
}

/// Writes OUT.manifest: what the vault signed, and the files as they are.
fn frame(files: &Files<'_>, signed: String) -> Result<(), CliError> {
    let frame = Frame { format: files.format.as_str().to_owned(), files: listed(files)?, signed };
    let text = serde_json::to_string_pretty(&frame).map_err(|error| CliError::unfit(error.to_string()))?;
    replace(&beside(files.out, ".manifest"), (text + "\n").as_bytes())
}

/// Takes away what an earlier excerpt left beside OUT: it would speak of other lines. The manifest goes first.
pub fn forget(out: &Path) -> Result<(), CliError> {
    if !beside(out, ".manifest").exists() {
        return Ok(());
    }
    [".manifest", ".proofs", ".leaves"].iter().try_for_each(|ending| remove_if_there(&beside(out, ending)))
}

/// Why nothing can fit.
fn unknown(filter: &Filter) -> Option<String> {
    let none = |what: &str| Some(format!("the vault knows no such {what}: no leaf fits"));
    match (&filter.subjects, &filter.rows) {
        (Some(subjects), _) if subjects.is_empty() => none("subject"),
        (_, Some(rows)) if rows.is_empty() => none("token"),
        _ => None,
    }
}

/// Writes what the vault sends, and returns what it signed at the end.
async fn fetch(asked: ExportRequest, lines: &Path, proofs: &Path, context: &Context) -> Result<SignedExport, CliError> {
    let mut client = context.audit().await?;
    let mut stream = client.export(asked).await?.into_inner();
    let mut lines = Growing::new(lines)?;
    let mut proofs = Growing::new(proofs)?;
    proofs.line(HEADER.as_bytes())?;
    let bar = bar(0);
    while let Some(page) = stream.message().await? {
        bar.set_length(page.total);
        bar.set_position(page.looked);
        if let Some(signed) = page.signed {
            bar.finish_and_clear();
            lines.finish()?;
            proofs.finish()?;
            return Ok(signed);
        }
        for piece in pieces(&page)? {
            proofs.line(piece.to_text().as_bytes())?;
        }
        for line in &page.leaves {
            lines.line(line)?;
        }
    }
    Err(CliError::Unfit {
        message: "the vault ended the export without a manifest".to_owned(),
        next: "the same command again".into(),
    })
}

/// What proves the leaves of a page: what it leaves out, and what it sends, in their order in the log.
pub fn pieces(page: &ExportResponse) -> Result<Vec<Piece>, CliError> {
    let mut pieces = Vec::with_capacity(page.leaves.len() + page.left_out.len());
    for subtree in &page.left_out {
        let (hash, height) = (<[u8; 32]>::try_from(&*subtree.hash), u8::try_from(subtree.height));
        let (Ok(hash), Ok(height)) = (hash, height) else { return Err(misfit("the vault sent a hash that is none")) };
        pieces.push(Piece::Tree(Subtree { start: subtree.start, height, hash }));
    }
    for line in &page.leaves {
        let leaf = leaf::parse(line).map_err(|error| misfit(&format!("the vault sent what is no leaf: {error}")))?;
        pieces.push(Piece::Leaf { index: leaf.index, hash: leaf_hash(line) });
    }
    pieces.sort_by_key(|piece| piece.subtree().start);
    Ok(pieces)
}

/// Makes the file of another form from the lines.
fn make(files: &Files<'_>, said: &Manifest, lines: &Path, made: &Path) -> Result<(), CliError> {
    let mut growing = Growing::new(made)?;
    let bar = bar(said.lines);
    convert(files.format, &said.log.origin, opened(lines)?, &mut growing.file, |done| bar.set_position(done))
        .map_err(|error| CliError::unfit(format!("{} can't be made: {error}", made.display())))?;
    bar.finish_and_clear();
    growing.finish()
}

/// An export that holds.
pub struct Proven {
    /// What the vault signed of it.
    pub said: Manifest,
    /// The signed note of that.
    pub signed: String,
    format: Format,
}

/// Sees that an export holds, as it lies there; or makes a file of another form anew of lines that hold.
pub fn prove(out: &Path, note: &str, keys: &[String], anew: bool) -> Result<Proven, CliError> {
    let does_not_hold = |why: &dyn std::fmt::Display| CliError::Unfit {
        message: format!("{} does not hold: {why}", out.display()),
        next: "keep all files as they are, and take the same export again".into(),
    };
    let frame: Frame = serde_json::from_str(&read(&beside(out, ".manifest"))?)
        .map_err(|_| does_not_hold(&"the manifest is not what audit export writes"))?;
    let format = Format::named(&frame.format)
        .ok_or_else(|| does_not_hold(&"the manifest names a form that this version does not know"))?;
    let files = Files { out, format };
    let (lines, proofs) = (files.lines(), beside(out, ".proofs"));
    let excerpt = verify_excerpt(opened(&lines)?, opened(&proofs)?, &frame.signed, note, keys).map_err(|fault| {
        match fault {
            // Checkpoints are signed by older keys as well, manifests by the newest only.
            ExcerptFault::Manifest(LedgerError::Unsigned | LedgerError::UnsignedSince { .. }) => CliError::Unfit {
                message: format!("{} does not hold: {fault}", out.display()),
                next:
                    "if the log's key was rotated, learn the newer one from an export of the whole ledger: strongroom \
                       audit verify WHOLE --log-key KEPT --keys-out KEYS; then this one with --log-key KEYS"
                        .into(),
            },
            fault => does_not_hold(&fault),
        }
    })?;
    let said = excerpt.manifest;
    if anew {
        if format == Format::Jsonl {
            return Err(CliError::Usage("--anew is for tables and events: this export is the lines themselves".into()));
        }
        let made = beside(out, ".part");
        make(&files, &said, &lines, &made)?;
        rename(&made, out)?;
        self::frame(&files, frame.signed.clone())?;
    }
    if format != Format::Jsonl {
        let file = File::open(out).map_err(|error| CliError::file(out, error))?;
        let bar = bar(said.lines);
        let compared = compare(format, &said.log.origin, opened(&lines)?, file, |done| bar.set_position(done));
        bar.finish_and_clear();
        compared.map_err(|why| match why {
            Difference::Form(_) => CliError::Unfit {
                message: format!("{} is not proven, and its lines are: {why}", out.display()),
                next: format!(
                    "make it anew of its lines: strongroom audit verify --excerpt {} --anew",
                    quoted(&out.display().to_string())
                ),
            },
            why => does_not_hold(&why),
        })?;
    }
    if !anew && listed(&files)? != frame.files {
        return Err(does_not_hold(&"the manifest lists files with other hashes than these have"));
    }
    Ok(Proven { said, signed: frame.signed, format })
}

/// Verifies such an export, without the vault.
pub fn verify(args: Verify, output: Output) -> Result<Exit, CliError> {
    if !args.older.is_empty() {
        return Err(CliError::Usage("--older is for whole exports: an excerpt is held against one checkpoint".into()));
    }
    let out = &args.export;
    if args.keys_out.is_some() {
        let why = "--keys-out needs the whole ledger: an export of some of its leaves names few keys or none";
        return Err(CliError::Usage(why.into()));
    }
    let (note, keys) = args.held_against()?;
    let Proven { said, format, .. } = prove(out, &note, &keys, args.anew)?;
    let seen = args.witnessed(0, [&note])?;
    let asked = said.filter.to_json();
    // Every leaf is one of the lines, then, and each line is proven.
    let whole = said.lines == said.log.size;
    output.show(
        || {
            json!({
                "whole": whole,
                "filter": serde_json::from_str::<serde_json::Value>(&asked).unwrap_or_default(),
                "first": said.first.to_string(),
                "end": said.end.to_string(),
                "verified": true,
                "origin": said.log.origin,
                "leaves": said.lines.to_string(),
                "format": format.as_str(),
                "time": said.time.to_string(),
                "checkpoint_leaves": said.log.size.to_string(),
                "key_given": args.log_key.is_some(),
                "witnessed_leaves": seen.map(|leaves| leaves.to_string()),
            })
        },
        || {
            let is_whole = if whole { "yes: the ledger up to its checkpoint" } else { "no: an excerpt of the ledger" };
            let mut pairs = vec![
                ("whole", is_whole.to_owned()),
                ("filter", asked.clone()),
                ("range", format!("leaves {} to {} of {}", said.first, said.end, said.log.size)),
                ("verified", "every line is in the ledger, unchanged, and all that the vault sent are here".to_owned()),
                ("origin", said.log.origin.clone()),
                ("leaves", said.lines.to_string()),
                ("exported", said.time.to_string()),
            ];
            if !whole {
                pairs.push(("not proven", "that no other leaf fits: that is the vault's signed word".to_owned()));
            }
            pairs.extend(seen.map(|leaves| ("witnessed", format!("the first {leaves} leaves"))));
            pairs.extend(args.note());
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// The files that a manifest lists, as they are.
fn listed(files: &Files<'_>) -> Result<Vec<Listed>, CliError> {
    let list = |ending: &&'static str| {
        let path = beside(files.out, ending);
        let sha256 = sum(&path).map_err(|error| CliError::file(&path, error))?;
        Ok(Listed { ending: (*ending).to_owned(), sha256 })
    };
    files.listed().iter().map(list).collect()
}

fn sum(path: &Path) -> io::Result<String> {
    let (mut file, mut sum, mut part) = (File::open(path)?, Digest::new(&SHA256), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(HEXLOWER.encode(sum.finish().as_ref())),
            read => sum.update(&part[..read]),
        }
    }
}

/// A file to read, of any size.
pub fn opened(path: &Path) -> Result<BufReader<File>, CliError> {
    let file = File::open(path).map_err(|error| CliError::file(path, error))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn misfit(message: &str) -> CliError {
    CliError::unfit(message.to_owned())
}
