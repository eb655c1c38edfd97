//! `strongroom audit archive`: old leaves of the ledger out of the vault, into a folder that proves itself.
//!
//! The folder is written and read back first, and only then the vault is told that its leaves may go. It goes by the manifest
//! that it signed of just these. So a run that was cut off anywhere, or that waits for an approval, is gone on with by the same
//! command: it finds the folder, and reads it again.

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_export::Format;
use strongroom_ledger::cover::Piece;
use strongroom_ledger::manifest::Manifest;
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_ledger::verify::Pieces;
use strongroom_ledger::{leaf, leaf_hash};
use strongroom_proto::v1::{ArchiveRequest, ExportRequest, GetArchiveRequest, GetArchiveResponse};
use time::OffsetDateTime;

use super::excerpt::{self, Proven};
use super::{beside, read, read_keys};
use crate::cli::client::Context;
use crate::cli::expiry::{parse_time, to_wire};
use crate::cli::files::sync_folder;
use crate::cli::output::{CliError, Exit, facts};
use crate::cli::shell::quoted;

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit archive -o /mnt/archive/ledger-2023
  strongroom audit archive -o /mnt/archive/ledger-2023 --before 2023-12-01
  strongroom audit verify --excerpt /mnt/archive/ledger-2023/leaves.parquet \\
      --log-key kept-since-last-year.key

Writes the leaves that are older than the vault keeps them ([ledger] keep_days,
three years) to FOLDER: leaves.parquet, what proves it beside it, and the tree's
complete tiles over them. Reads all of it back. Then the vault removes these
leaves. Where policy wants an approval, the same command goes on once it was
given; so it does after it was cut off.
Keep FOLDER for good: nobody else has these leaves, and the vault shows where it
said that they are. Exit code 3: it waits for approval, or is still removing.";

/// The name of the export in its folder.
const NAME: &str = "leaves.parquet";
/// How long it is asked whether the leaves are gone, and how often.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_secs(1);
/// Leaves under a tile of level zero.
const TILE: usize = 256;
/// The incomplete tiles of a tree have no more hashes.
const MOST: usize = TILE * 8;

/// What is archived, and where to.
#[derive(Clone, Debug, ClapArgs)]
pub struct Archive {
    /// The folder. One that has an archive already is gone on with.
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,

    /// Only what was committed before this time: 2026-11-01, or RFC 3339 [default: all that is old enough].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<OffsetDateTime>,

    /// Where the archive will be kept, in words; the ledger says it [default: the folder's path].
    #[arg(long, value_name = "WORDS")]
    place: Option<String>,
}

/// Archives.
pub async fn run(asked: Archive, context: &Context) -> Result<Exit, CliError> {
    let Archive { out: folder, before, place } = asked;
    let out = folder.join(NAME);
    let mut client = context.audit().await?;
    if !beside(&out, ".manifest").exists() {
        let asked = GetArchiveRequest { before_time: before.map(to_wire), log: String::new() };
        let there = client.get_archive(asked).await?.into_inner();
        if there.could_end <= there.end {
            let archived =
                if there.end > 0 { format!("; those before {} are archived", there.end) } else { String::new() };
            return Err(CliError::unfit(format!(
                "nothing is old enough to be archived: the vault keeps leaves for [ledger] keep_days, in blocks of \
                 {TILE}{archived}"
            )));
        }
        make(&folder)?;
        let asked = ExportRequest { first: there.end, end: there.could_end, proofs: true, ..ExportRequest::default() };
        excerpt::take(&out, asked, Format::Parquet, context).await?;
    }
    // As it lies on the disk, whoever wrote it.
    let (note, keys) = (read(&beside(&out, ".checkpoint"))?, read_keys(&beside(&out, ".key"))?);
    let Proven { said, signed, .. } = excerpt::prove(&out, &note, &keys, false)?;
    tiles(&folder, &beside(&out, ".leaves"), &beside(&out, ".proofs"), said.first)?;
    sync_folder(&out)?;
    sync_folder(&folder)?;

    let place = match place {
        Some(place) => place,
        None => fs::canonicalize(&folder).map_err(|error| CliError::file(&folder, error))?.display().to_string(),
    };
    client.archive(ArchiveRequest { manifest: signed, place: place.clone() }).await?;
    let begun = std::time::Instant::now();
    let removed = loop {
        let there = client.get_archive(GetArchiveRequest::default()).await?.into_inner();
        match how_far(&there, &said) {
            Some(true) => break true,
            Some(false) if begun.elapsed() < PATIENCE => tokio::time::sleep(LOOK).await,
            Some(false) => break false,
            None => {
                return Err(CliError::Unfit {
                    message: "the vault could not archive these leaves, and keeps them".to_owned(),
                    next: "its log says why; strongroom verify names what is wrong with them".into(),
                });
            }
        }
    };
    show(context, &folder, &out, &said, (&place, removed))
}

/// A leaf of an archive, whose lines are in their order.
pub fn line(folder: &Path, index: u64) -> Result<Vec<u8>, CliError> {
    let path = beside(&folder.join(NAME), ".leaves");
    let file = fs::File::open(&path).map_err(|error| CliError::file(&path, error))?;
    let mut skip = None;
    for (number, line) in (0..).zip(BufReader::with_capacity(1 << 20, file).split(b'\n')) {
        let line = line.map_err(|error| CliError::file(&path, error))?;
        let skip = *skip.get_or_insert_with(|| leaf::parse(&line).ok().and_then(|leaf| index.checked_sub(leaf.index)));
        if skip == Some(number) {
            return Ok(line);
        }
    }
    Err(CliError::unfit(format!("{} does not have leaf {index}", path.display())))
}

/// Whether the leaves are gone; nothing if the vault did not archive them.
fn how_far(there: &GetArchiveResponse, said: &Manifest) -> Option<bool> {
    if there.end >= said.end {
        return Some(!there.removing);
    }
    (there.decided == said.end).then_some(false)
}

fn show(
    context: &Context,
    folder: &Path,
    out: &Path,
    said: &Manifest,
    (place, removed): (&str, bool),
) -> Result<Exit, CliError> {
    let manifest = beside(out, ".manifest").display().to_string();
    context.output.show(
        || {
            json!({
                "out": folder.display().to_string(),
                "manifest": manifest,
                "origin": said.log.origin,
                "first": said.first.to_string(),
                "end": said.end.to_string(),
                "place": place,
                "removed": removed,
            })
        },
        || {
            let gone = if removed { "gone from the vault" } else { "being removed from the vault" };
            facts([
                ("archived", format!("leaves {} to {}, {gone}", said.first, said.end - 1)),
                ("origin", said.log.origin.clone()),
                ("written", folder.display().to_string()),
                ("the ledger says", place.to_owned()),
                ("try", format!("strongroom audit verify --excerpt {}", quoted(&out.display().to_string()))),
            ])
        },
    )?;
    Ok(if removed { Exit::Done } else { Exit::Partly })
}

/// Makes the folder, for its owner only.
fn make(folder: &Path) -> Result<(), CliError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| CliError::file(folder, error))
}

/// Writes the tiles that are complete with the lines, as C2SP tlog-tiles has them: where folders of several archives are laid
/// together, so are their tiles. The hashes from before the lines stand in the proofs.
fn tiles(folder: &Path, lines: &Path, proofs: &Path, first: u64) -> Result<(), CliError> {
    let mut before = Vec::new();
    for piece in Pieces::new(excerpt::opened(proofs)?) {
        match piece.map_err(|fault| CliError::unfit(fault.to_string()))?.1 {
            Piece::Tree(subtree) if subtree.start < first && before.len() < MOST => before.push(subtree),
            _ => break,
        }
    }
    let unfit = |error| CliError::unfit(format!("{}: {error}", proofs.display()));
    let mut edge = Edge::joined(first, before).map_err(unfit)?;
    for line in excerpt::opened(lines)?.split(b'\n') {
        let line = line.map_err(|error| CliError::file(lines, error))?;
        let mut complete = Vec::new();
        edge.push(leaf_hash(&line), |id, tile| complete.push((id, tile)));
        complete.iter().try_for_each(|(id, tile)| put(folder, *id, tile))?;
    }
    Ok(())
}

fn put(folder: &Path, id: TileId, tile: &[u8]) -> Result<(), CliError> {
    let path = folder.join(id.path(TILE));
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(tile)?;
        file.sync_all()
    });
    written.map_err(|error| CliError::file(&path, error))
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::cover::{HEADER, Subtree};

    use super::*;

    #[test]
    fn tiles_of_an_archive_are_those_of_the_whole_ledger() {
        let lines: Vec<String> = (0..256 * 512).map(|number| format!("leaf {number}")).collect();
        let mut edge = Edge::new();
        let mut all = std::collections::BTreeMap::new();
        for line in &lines {
            edge.push(leaf_hash(line.as_bytes()), |id, tile| drop(all.insert(id, tile)));
        }
        let folder = tempfile::tempdir().unwrap();
        // Archives that are laid together, of which the second and the third begin within a tile of level 1.
        for (first, end) in [(0, 256 * 257), (256 * 257, 256 * 260), (256 * 260, 256 * 512)] {
            let (text, proofs) = (folder.path().join("lines"), folder.path().join("proofs"));
            fs::write(&text, lines[first..end].join("\n") + "\n").unwrap();
            let before = Edge::cut(first as u64).into_iter().map(|(start, height)| {
                let hash = Edge::root_of(&all[&TileId { level: height / 8 - 1, index: start >> height }]).unwrap();
                Piece::Tree(Subtree { start, height, hash }).to_text() + "\n"
            });
            fs::write(&proofs, format!("{HEADER}\n{}", before.collect::<String>())).unwrap();
            tiles(folder.path(), &text, &proofs, first as u64).unwrap();
        }
        assert_eq!(all.len(), 512 + 2);
        for (id, tile) in all {
            assert_eq!(fs::read(folder.path().join(id.path(TILE))).unwrap(), tile, "{id}");
        }
    }

    #[test]
    fn it_is_known_how_far_the_vault_is() {
        let of = |end, decided, removing| GetArchiveResponse { end, decided, removing, ..Default::default() };
        let said = strongroom_ledger::manifest::Manifest {
            log: strongroom_ledger::receipt::LogHead { origin: String::new(), size: 600, root: [0; 32] },
            time: strongroom_ledger::Timestamp(0),
            first: 0,
            end: 512,
            filter: Default::default(),
            lines: 512,
            sha256: [0; 32],
        };
        assert_eq!(how_far(&of(0, 512, false), &said), Some(false));
        assert_eq!(how_far(&of(512, 0, true), &said), Some(false));
        assert_eq!(how_far(&of(512, 0, false), &said), Some(true));
        assert_eq!(how_far(&of(0, 0, false), &said), None);
    }
}
