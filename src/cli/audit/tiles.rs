//! `strongroom audit tiles`: the ledger as a folder in which other tools find it (C2SP tlog-tiles).

use std::fs;
use std::path::Path;

use serde_json::json;
use strongroom_ledger::leaf_hash;
use strongroom_ledger::tiles::{Edge, TileId, push_entry};

use super::{newest, write_keys};
use crate::cli::client::Context;
use crate::cli::files::replace;
use crate::cli::output::{CliError, Exit, facts};

/// The leaves under a tile of level zero.
const BUNDLE: u64 = 256;

/// Writes a ledger's checkpoint, its tree in tiles, and its leaves in bundles.
pub async fn write(out: &Path, log: String, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.audit().await?;
    let head = newest::head(&mut client, &log).await?;
    let own = |why: &dyn std::fmt::Display| CliError::unfit(format!("what the vault sent does not hold: {why}"));
    let signed = newest::signed(&head).map_err(|error| own(&error))?;

    let mut folder = Folder { out, bundle: Vec::new(), edge: Edge::new() };
    let size = newest::leaves(&mut client, log, signed.size, |line| folder.add(line)).await?;
    if (size, folder.edge.root()) != (signed.size, signed.root) {
        return Err(own(&"the leaves are not those that the checkpoint signs"));
    }
    folder.finish()?;
    replace(&out.join("checkpoint"), head.checkpoint.as_bytes())?;
    write_keys(&out.join("key"), &head.keys)?;
    context.output.show(
        || json!({ "out": out.display().to_string(), "origin": signed.origin, "leaves": size.to_string() }),
        || {
            facts([
                ("written", out.display().to_string()),
                ("leaves", size.to_string()),
                ("origin", signed.origin.clone()),
                ("holds", "checkpoint, tile/LEVEL/N, tile/entries/N, key".to_owned()),
            ])
        },
    )?;
    Ok(Exit::Done)
}

/// The folder as it grows.
struct Folder<'a> {
    out: &'a Path,
    /// The leaves that do not fill a bundle yet, each behind its length in two bytes.
    bundle: Vec<u8>,
    edge: Edge,
}

impl Folder<'_> {
    fn add(&mut self, line: &[u8]) -> Result<(), CliError> {
        push_entry(&mut self.bundle, line)
            .map_err(|why| CliError::unfit(format!("what the vault sent does not hold: {why}")))?;
        let mut complete = Vec::new();
        self.edge.push(leaf_hash(line), |id, tile| complete.push((id, tile)));
        for (id, tile) in complete {
            put(self.out, &id.path(tile.len() / 32), &tile)?;
        }
        if self.edge.size().is_multiple_of(BUNDLE) {
            let id = TileId { level: 0, index: self.edge.size() / BUNDLE - 1 };
            put(self.out, &id.entries_path(BUNDLE as usize), &self.bundle)?;
            self.bundle.clear();
        }
        Ok(())
    }

    /// Writes what is incomplete.
    fn finish(self) -> Result<(), CliError> {
        for (id, tile) in self.edge.tiles() {
            put(self.out, &id.path(tile.len() / 32), tile)?;
        }
        let rest = self.edge.size() % BUNDLE;
        if rest > 0 {
            let id = TileId { level: 0, index: self.edge.size() / BUNDLE };
            put(self.out, &id.entries_path(rest as usize), &self.bundle)?;
        }
        Ok(())
    }
}

fn put(out: &Path, path: &str, bytes: &[u8]) -> Result<(), CliError> {
    let path = out.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| CliError::file(folder, error))?;
    }
    fs::write(&path, bytes).map_err(|error| CliError::file(&path, error))
}
