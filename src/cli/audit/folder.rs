//! A ledger in a folder, as C2SP tlog-tiles has it: read without the vault, for proofs and to be verified.
//!
//! What a proof is made of is held against the signed root, so a folder proves nothing that is not so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use strongroom_ledger::checkpoint::{self, Checkpoint};
use strongroom_ledger::cover::Piece;
use strongroom_ledger::leaf_hash;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_ledger::tiles::{Edge, TileId, split_entry};
use strongroom_ledger::verify::{ExcerptFault, Numbered};

use super::{read, read_keys};
use crate::cli::output::CliError;

/// Hashes of a complete tile, and leaves of a complete bundle.
const WIDTH: usize = 256;
/// Bytes of a hash.
const HASH: usize = 32;
/// Bytes of a bundle: no leaf is longer than its length in two bytes can say.
const BUNDLE: usize = WIDTH * (2 + (1 << 16));

/// The folder of a log, up to a head.
#[derive(Clone, Copy)]
pub struct Folder<'p> {
    path: &'p Path,
    tree: Tree,
}

impl<'p> Folder<'p> {
    /// A folder, and the head that it has been signed at.
    pub fn new(path: &'p Path, signed: &Checkpoint) -> Self {
        Self { path, tree: signed.tree() }
    }

    /// With its own head, which one of the keys has signed: those that are given, or those that lie in the folder. The head's note
    /// and the keys come along.
    pub fn open(path: &'p Path, log_key: Option<&Path>) -> Result<(Self, String, Vec<String>), CliError> {
        let note = read(&path.join("checkpoint"))?;
        let keys = log_key.map_or_else(|| read_keys(&path.join("key")), read_keys)?;
        let known: Vec<&str> = keys.iter().map(String::as_str).collect();
        let signed = checkpoint::verify(&note, &known).map_err(|error| {
            CliError::unfit(format!("{} does not hold: {error}", path.join("checkpoint").display()))
        })?;
        Ok((Self::new(path, &signed), note, keys))
    }

    /// How many leaves its head has.
    pub fn size(&self) -> u64 {
        self.tree.size
    }

    /// A proof.
    pub fn answer(&self, question: &Question) -> Result<Vec<[u8; HASH]>, CliError> {
        let unfit = |why: &dyn std::fmt::Display| CliError::unfit(format!("{}: {why}", self.path.display()));
        let mut tiles = BTreeMap::new();
        for id in question.tiles(&self.tree).map_err(|error| unfit(&error))? {
            tiles.insert(id, self.tile(id).map_err(|error| unfit(&error))?);
        }
        question.answer(&self.tree, |id| tiles.get(&id).map(Vec::as_slice)).map_err(|error| unfit(&error))
    }

    /// A leaf, as it lies there.
    pub fn leaf(&self, index: u64) -> Result<Vec<u8>, CliError> {
        let unfit = |why: &dyn std::fmt::Display| CliError::unfit(format!("{}: {why}", self.path.display()));
        let bundle = self.bundle(index / WIDTH as u64).map_err(|error| unfit(&error))?;
        // Below 256.
        let at = (index % WIDTH as u64) as usize;
        let leaf = entries(&bundle).nth(at).and_then(Result::ok);
        leaf.map(<[u8]>::to_vec).ok_or_else(|| unfit(&format!("there is no leaf {index}")))
    }

    /// All leaves, a line each.
    pub fn lines(self) -> BufReader<Lines<'p>> {
        let lines = Lines { folder: self, bundle: 0, text: Vec::new(), at: 0, edge: Edge::new(), wrong: None };
        BufReader::with_capacity(1 << 20, lines)
    }

    /// The hashes of all leaves, as the tiles have them.
    pub fn hashes(self) -> impl Iterator<Item = Result<Numbered, ExcerptFault>> {
        let tiles = 0..Edge::tiles_of(self.tree.size, 0);
        tiles.flat_map(move |index| {
            let first = index * WIDTH as u64;
            let (tile, fault) = match self.tile(TileId { level: 0, index }) {
                Ok(tile) => (tile, None),
                Err(error) => (vec![], Some(Err(ExcerptFault::ReadProofs { line: first + 1, error }))),
            };
            let (hashes, _) = tile.as_chunks::<HASH>();
            let leaf = |(index, hash): (u64, &[u8; HASH])| Ok((index + 1, Piece::Leaf { index, hash: *hash }));
            let pieces: Vec<_> = (first..).zip(hashes).map(leaf).chain(fault).collect();
            pieces
        })
    }

    /// The hashes of a tile in the tree of the head.
    fn tile(&self, id: TileId) -> io::Result<Vec<u8>> {
        let width = Edge::width(self.tree.size, id);
        let mut tile = self.read(&[id.path(width), id.path(WIDTH)], WIDTH * HASH)?;
        if tile.len() < width * HASH {
            return Err(io::Error::other(format!("{} is too short", id.path(width))));
        }
        tile.truncate(width * HASH);
        Ok(tile)
    }

    /// The leaves under a tile of level zero, each behind its length.
    fn bundle(&self, index: u64) -> io::Result<Vec<u8>> {
        let id = TileId { level: 0, index };
        let width = Edge::width(self.tree.size, id);
        self.read(&[id.entries_path(width), id.entries_path(WIDTH)], BUNDLE)
    }

    /// The first of these files that is there: what has grown since begins with what it was.
    fn read(&self, names: &[String], most: usize) -> io::Result<Vec<u8>> {
        let mut missing = io::Error::from(io::ErrorKind::NotFound);
        for name in names {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
            match File::open(self.path.join(name)) {
                Ok(file) => {
                    let mut bytes = Vec::new();
                    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(named)?;
                    let longer = io::Error::other(format!("{name} is longer than it can be"));
                    return if bytes.len() > most { Err(longer) } else { Ok(bytes) };
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = named(error),
                Err(error) => return Err(named(error)),
            }
        }
        Err(missing)
    }
}

/// The leaves of a bundle, up to where it breaks off.
fn entries(bundle: &[u8]) -> impl Iterator<Item = io::Result<&[u8]>> {
    let mut rest = Some(bundle);
    std::iter::from_fn(move || {
        let bundle = rest.take().filter(|bundle| !bundle.is_empty())?;
        let split = split_entry(bundle);
        rest = split.map(|(_, after)| after);
        Some(split.map(|(leaf, _)| leaf).ok_or_else(|| io::Error::other("a bundle of leaves breaks off")))
    })
}

/// Leaves as lines. Each tile over those that were read is held against them.
pub struct Lines<'p> {
    folder: Folder<'p>,
    /// The bundle that comes next.
    bundle: u64,
    /// The lines of the one before, and how much of them was taken.
    text: Vec<u8>,
    at: usize,
    edge: Edge,
    wrong: Option<String>,
}

impl Lines<'_> {
    /// The first tile that is not the one over the leaves, once all of them were read.
    pub fn wrong(mut self) -> Option<String> {
        let edge = std::mem::take(&mut self.edge);
        edge.tiles().for_each(|(id, tile)| self.hold(id, tile));
        self.wrong
    }

    fn hold(&mut self, id: TileId, tile: &[u8]) {
        if self.wrong.is_some() {
            return;
        }
        let path = id.path(tile.len() / HASH);
        match self.folder.tile(id) {
            Ok(there) if there == tile => {}
            Ok(_) => self.wrong = Some(format!("{path} has not the hashes of what is under it")),
            Err(error) => self.wrong = Some(error.to_string()),
        }
    }

    /// Reads the next bundle, if there is one.
    fn next(&mut self) -> io::Result<bool> {
        let width = Edge::width(self.folder.tree.size, TileId { level: 0, index: self.bundle });
        self.text.clear();
        self.at = 0;
        if width == 0 {
            return Ok(false);
        }
        let bundle = self.folder.bundle(self.bundle)?;
        let (mut count, mut complete) = (0, Vec::new());
        for leaf in entries(&bundle).take(width) {
            let leaf = leaf?;
            self.text.extend_from_slice(leaf);
            self.text.push(b'\n');
            self.edge.push(leaf_hash(leaf), |id, tile| complete.push((id, tile)));
            count += 1;
        }
        complete.iter().for_each(|(id, tile)| self.hold(*id, tile));
        self.bundle += 1;
        match count == width {
            true => Ok(true),
            false => Err(io::Error::other("a bundle has fewer leaves than its head says")),
        }
    }
}

impl Read for Lines<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.text.len() && !self.next()? {
            return Ok(0);
        }
        let read = self.text.get(self.at..).unwrap_or_default().read(into)?;
        self.at += read;
        Ok(read)
    }
}
