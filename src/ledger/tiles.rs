//! Tiles (C2SP tlog-tiles): the nodes of a log's tree in pieces of 256 hashes, from which every proof is made.
//!
//! A tile never changes once it is complete, and until then it only grows. So what has been written of the tree at one
//! size serves the tree at every later size.

use std::fmt;

use tlog_tiles::{EMPTY_HASH, HASH_SIZE, Tile, node_hash};

use crate::cover::Subtree;
use crate::error::LedgerError;

/// The height of a tile: it spans as many levels of the tree.
pub(crate) const HEIGHT: u8 = 8;
/// Hashes of a complete tile.
const WIDTH: usize = 1 << HEIGHT;
/// Bytes of a complete tile.
const BYTES: usize = WIDTH * HASH_SIZE;
/// No log gets that long: it would take a million leaves a second for nine years.
pub(crate) const MAX_SIZE: u64 = 1 << 48;
/// The highest level that tiles have (C2SP tlog-tiles), of a log longer than any can be.
const MAX_LEVEL: u8 = 63;

/// Where a tile stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TileId {
    /// Zero for the tiles over leaves; a tile's root is one hash of the level above.
    pub level: u8,
    /// Its place in the level.
    pub index: u64,
}

impl TileId {
    /// The path of the tile of so many hashes (C2SP tlog-tiles): `tile/0/x001/234`, with `.p/WIDTH` unless it is
    /// complete. A width that no tile has counts as a complete one's.
    pub fn path(self, width: usize) -> String {
        self.named(width, false)
    }

    /// The path of the leaves under a tile of level zero: `tile/entries/x001/234`.
    pub fn entries_path(self, width: usize) -> String {
        self.named(width, true)
    }

    /// The tile of a path as [`TileId::path`] writes it, and how many hashes of it; no other spelling of it is a path.
    pub fn from_path(path: &str) -> Option<(Self, usize)> {
        let (level, place) = path.strip_prefix("tile/")?.split_once('/')?;
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, width.parse::<usize>().ok().filter(|width| (1..WIDTH).contains(width))?),
            None => (place, WIDTH),
        };
        let mut index = 0_u64;
        for part in place.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            let part = digits.parse::<u64>().ok().filter(|part| *part < 1_000)?;
            index = index.checked_mul(1_000)?.checked_add(part)?;
        }
        let id = Self { level: level.parse::<u8>().ok().filter(|level| *level <= MAX_LEVEL)?, index };
        // Numbers are also written with signs and zeroes before them, and parts without their `x`.
        (id.path(width) == path).then_some((id, width))
    }

    /// The tile over the leaves of a path as [`TileId::entries_path`] writes it, and how many leaves; no other spelling
    /// of it is a path.
    pub fn from_entries_path(path: &str) -> Option<(Self, usize)> {
        Self::from_path(&format!("tile/0/{}", path.strip_prefix("tile/entries/")?))
    }

    fn named(self, width: usize, entries: bool) -> String {
        // 256 at most.
        let width = if (1..WIDTH).contains(&width) { width as u32 } else { WIDTH as u32 };
        let path = Tile::new(HEIGHT, self.level.min(MAX_LEVEL), self.index, width, entries).path();
        // Go's checksum database, which the library follows, has the height in its paths, and another word for leaves.
        let path = path.strip_prefix("tile/8/").unwrap_or(&path);
        match path.strip_prefix("data/") {
            Some(place) => format!("tile/entries/{place}"),
            None => format!("tile/{path}"),
        }
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile {} of level {}", self.index, self.level)
    }
}

/// Adds a leaf to the bundle of those under a tile of level zero: behind its length, in two bytes.
pub fn push_entry(bundle: &mut Vec<u8>, leaf: &[u8]) -> Result<(), LedgerError> {
    let length = u16::try_from(leaf.len()).map_err(|_| LedgerError::Tiles("a leaf is longer than leaves may be"))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(leaf);
    Ok(())
}

/// The first leaf of a bundle, and what comes after it; none if the bundle breaks off.
pub fn split_entry(bundle: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bundle.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// The incomplete tile of each level, at which a tree grows.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Edge {
    size: u64,
    /// The hashes of each level's incomplete tile; may be none.
    levels: Vec<Vec<u8>>,
}

impl Edge {
    /// The edge of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The incomplete tiles of a tree of so many leaves, and how many hashes of each it has.
    pub fn incomplete(size: u64) -> Vec<(TileId, usize)> {
        let hashes = |level: u8| size.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0);
        let levels = (0..).map(|level| (level, hashes(level))).take_while(|(_, hashes)| *hashes > 0);
        // Below 256.
        let tiles = levels.map(|(level, hashes)| (TileId { level, index: hashes >> HEIGHT }, hashes as usize % WIDTH));
        tiles.filter(|(_, width)| *width > 0).collect()
    }

    /// The edge of a tree of so many leaves, from its incomplete tiles. What a tile has beyond the tree came later.
    pub fn open<'t>(size: u64, tile: impl Fn(TileId) -> Option<&'t [u8]>) -> Result<Self, LedgerError> {
        if size > MAX_SIZE {
            return Err(LedgerError::Tiles("there can't be so many leaves"));
        }
        let mut levels = Vec::new();
        for (id, width) in Self::incomplete(size) {
            let bytes = tile(id).and_then(|bytes| bytes.get(..width * HASH_SIZE));
            levels.resize(usize::from(id.level), Vec::new());
            levels.push(bytes.ok_or(LedgerError::Tiles("one is missing or too short"))?.to_vec());
        }
        Ok(Self { size, levels })
    }

    /// The hashes in the incomplete tiles of a tree of so many leaves: complete subtrees that cover it, in order; where
    /// each starts, and its height.
    pub fn cut(size: u64) -> Vec<(u64, u8)> {
        let tiles = Self::incomplete(size.min(MAX_SIZE)).into_iter().rev();
        let hashes = tiles.flat_map(|(id, width)| {
            let (height, first) = (id.level * HEIGHT, id.index << HEIGHT);
            (first..first + width as u64).map(move |at| (at << height, height))
        });
        hashes.collect()
    }

    /// The edge of a tree of so many leaves from the subtrees that [`Edge::cut`] names.
    pub fn joined(size: u64, subtrees: impl IntoIterator<Item = Subtree>) -> Result<Self, LedgerError> {
        let cut = Self::cut(size);
        let (mut levels, mut count) = (Vec::<Vec<u8>>::new(), 0);
        for (place, Subtree { start, height, hash }) in cut.iter().zip(subtrees) {
            if *place != (start, height) {
                break;
            }
            let level = usize::from(height / HEIGHT);
            if levels.len() <= level {
                levels.resize(level + 1, Vec::new());
            }
            if let Some(tile) = levels.get_mut(level) {
                tile.extend_from_slice(&hash);
            }
            count += 1;
        }
        if count < cut.len() || size > MAX_SIZE {
            return Err(LedgerError::Tiles("what lies before is not cut into the hashes of tiles"));
        }
        Ok(Self { size, levels })
    }

    /// How many tiles the level of a tree of so many leaves has, incomplete ones too.
    pub fn tiles_of(size: u64, level: u8) -> u64 {
        let hashes = size.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0);
        hashes.div_ceil(WIDTH as u64)
    }

    /// How many hashes a tile of a tree of so many leaves has; none if there is no such tile.
    pub fn width(size: u64, id: TileId) -> usize {
        let hashes = size.checked_shr(u32::from(id.level) * u32::from(HEIGHT)).unwrap_or(0);
        let before = id.index.saturating_mul(WIDTH as u64);
        // 256 at most.
        hashes.saturating_sub(before).min(WIDTH as u64) as usize
    }

    /// The hash that stands for a complete tile in the level above; none for an incomplete one.
    pub fn root_of(tile: &[u8]) -> Option<[u8; HASH_SIZE]> {
        (tile.len() == BYTES).then(|| Tile::subtree_hash(tile).0)
    }

    /// The root of the tree; of an empty one, SHA-256 of nothing.
    pub fn root(&self) -> [u8; HASH_SIZE] {
        let mut root = None;
        for tile in &self.levels {
            // A tile's hashes are the roots of complete subtrees, the largest first; they are joined from the smallest.
            let mut rest = tile.as_slice();
            for bit in (0..HEIGHT).filter(|bit| (tile.len() / HASH_SIZE) >> bit & 1 == 1) {
                let (before, subtree) = rest.split_at(rest.len() - (HASH_SIZE << bit));
                let hash = Tile::subtree_hash(subtree);
                root = Some(root.map_or(hash, |right| node_hash(hash, right)));
                rest = before;
            }
        }
        root.unwrap_or(EMPTY_HASH).0
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash. `complete` gets each tile that it completes.
    pub fn push(&mut self, leaf: [u8; HASH_SIZE], mut complete: impl FnMut(TileId, Vec<u8>)) {
        self.size += 1;
        let (mut hash, mut level) = (leaf, 0_u8);
        loop {
            if usize::from(level) == self.levels.len() {
                self.levels.push(Vec::with_capacity(BYTES));
            }
            let Some(tile) = self.levels.get_mut(usize::from(level)) else { return };
            tile.extend_from_slice(&hash);
            if tile.len() < BYTES {
                return;
            }
            let tile = std::mem::take(tile);
            hash = Tile::subtree_hash(&tile).0;
            let tiles = self.size >> (u32::from(level + 1) * u32::from(HEIGHT));
            complete(TileId { level, index: tiles - 1 }, tile);
            level += 1;
        }
    }

    /// The incomplete tiles with their hashes.
    pub fn tiles(&self) -> impl Iterator<Item = (TileId, &[u8])> {
        let hashes = |id: TileId| self.levels.get(usize::from(id.level)).map_or(&[][..], Vec::as_slice);
        Self::incomplete(self.size).into_iter().map(move |(id, _)| (id, hashes(id)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tlog_tiles::{Error, Hash, HashReader, stored_hashes_for_record_hash, tree_hash};

    use super::*;

    /// The tiles of a log, as somebody keeps them.
    #[derive(Default)]
    pub(crate) struct Kept {
        pub tiles: BTreeMap<TileId, Vec<u8>>,
        pub edge: Edge,
    }

    impl Kept {
        pub fn of(leaves: u64) -> Self {
            let mut kept = Self::default();
            kept.grow(leaves);
            kept
        }

        /// Appends leaves, and keeps what is incomplete then.
        pub fn grow(&mut self, leaves: u64) {
            for _ in 0..leaves {
                let leaf = hash_of(self.edge.size());
                self.edge.push(leaf, |id, tile| assert_eq!(self.tiles.insert(id, tile).map_or(0, |_| 0), 0));
            }
            self.tiles.extend(self.edge.tiles().map(|(id, tile)| (id, tile.to_vec())));
        }

        pub fn tile(&self, id: TileId) -> Option<&[u8]> {
            self.tiles.get(&id).map(Vec::as_slice)
        }
    }

    pub(crate) fn hash_of(leaf: u64) -> [u8; 32] {
        crate::leaf_hash(format!("leaf {leaf}").as_bytes())
    }

    struct Stored(Vec<Hash>);

    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
            Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
        }
    }

    #[test]
    fn the_edge_comes_of_the_hashes_in_its_tiles() {
        let all = Kept::of(256 * 258 + 3);
        for size in [0, 1, 255, 256, 257, 512, 256 * 256, 256 * 258, 256 * 258 + 3] {
            let hash = |(start, height): (u64, u8)| {
                let (level, at) = (height / HEIGHT, start >> height);
                let tile = all.tile(TileId { level, index: at >> HEIGHT }).unwrap();
                let from = (at % WIDTH as u64) as usize * HASH_SIZE;
                Subtree { start, height, hash: tile[from..from + HASH_SIZE].try_into().unwrap() }
            };
            let subtrees: Vec<Subtree> = Edge::cut(size).into_iter().map(hash).collect();
            let joined = Edge::joined(size, subtrees.iter().copied()).unwrap();
            assert_eq!((joined.root(), joined.size()), (Kept::of(size).edge.root(), size));
            if let Some((_, fewer)) = subtrees.split_last() {
                assert!(Edge::joined(size, fewer.iter().copied()).is_err());
            }
        }
    }

    #[test]
    fn tiles_are_those_of_the_full_tree() {
        // Past the second level's first complete tile.
        let size = 256 * 256 + 700;
        let kept = Kept::of(size);
        let mut full = Stored(vec![]);
        for leaf in 0..size {
            let hashes = stored_hashes_for_record_hash(leaf, Hash(hash_of(leaf)), &full).unwrap();
            full.0.extend(hashes);
        }
        assert_eq!(kept.edge.root(), tree_hash(size, &full).unwrap().0);
        let expected = Tile::new_tiles(HEIGHT, 0, size);
        assert_eq!(expected.len(), kept.tiles.len());
        for tile in expected {
            let id = TileId { level: tile.level(), index: tile.level_index() };
            assert_eq!(kept.tiles[&id], tile.read_data(&full).unwrap(), "{id}");
            assert_eq!(Edge::width(size, id), tile.width() as usize, "{id}");
        }
    }

    /// The examples of C2SP tlog-tiles.
    #[test]
    fn paths_are_those_of_the_specification() {
        let path = |level, index, width| TileId { level, index }.path(width);
        assert_eq!(path(0, 0, 256), "tile/0/000");
        assert_eq!(path(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(1, 67, 8), "tile/1/067.p/8");
        let entries = |index, width| TileId { level: 0, index }.entries_path(width);
        assert_eq!(entries(1_234_067, 256), "tile/entries/x001/x234/067");
        assert_eq!(entries(273, 112), "tile/entries/273.p/112");
    }

    #[test]
    fn a_path_that_is_written_in_another_way_is_none() {
        for (path, level, index, width) in [
            ("tile/0/000", 0, 0, 256),
            ("tile/0/x001/x234/067", 0, 1_234_067, 256),
            ("tile/0/x001/000", 0, 1_000, 256),
            ("tile/1/067.p/8", 1, 67, 8),
            ("tile/63/273.p/255", 63, 273, 255),
            ("tile/0/x018/x446/x744/x073/x709/x551/615", 0, u64::MAX, 256),
        ] {
            assert_eq!(TileId::from_path(path), Some((TileId { level, index }, width)), "{path}");
            let leaves = path.strip_prefix("tile/0/").map(|place| format!("tile/entries/{place}"));
            let found = leaves.as_deref().and_then(TileId::from_entries_path);
            assert_eq!(found, leaves.map(|_| (TileId { level: 0, index }, width)), "{path}");
        }
        for path in [
            "",
            "/",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "/tile/0/000",
            "tile/0/000/",
            "tile//000",
            "tile/00/000",
            "tile/64/000",
            "tile/256/000",
            "tile/-1/000",
            "tile/+1/000",
            "tile/x0/000",
            "tile/8/0/000",
            "tile/entries/000",
            "tile/data/000",
            "tile/0/0",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/1000",
            "tile/0/x000",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x001/x000",
            "tile/0/xx01/000",
            "tile/0/X001/000",
            "tile/0/+01",
            "tile/0/-01",
            "tile/0/ 01",
            "tile/0/0 1",
            "tile/0/\u{661}\u{662}\u{663}",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/08",
            "tile/0/000.p/+8",
            "tile/0/000.p/256",
            "tile/0/000.p/-1",
            "tile/0/000.p/8/",
            "tile/0/000.p/8.p/8",
            "tile/0/000.P/8",
            "tile/0/../0/000",
            "tile/0/%30%30%30",
            "tile/0/000?x",
            "tile/0/000#x",
            "tile\\0\\000",
        ] {
            assert_eq!(TileId::from_path(path), None, "{path}");
            let leaves = path.replacen("tile/0/", "tile/entries/", 1);
            assert_eq!(TileId::from_entries_path(&leaves).filter(|_| leaves != "tile/entries/000"), None, "{leaves}");
        }
    }

    #[test]
    fn a_bundle_has_each_leaf_behind_its_length() {
        let mut bundle = Vec::new();
        push_entry(&mut bundle, b"abc").unwrap();
        push_entry(&mut bundle, b"").unwrap();
        push_entry(&mut bundle, &[7; 65_535]).unwrap();
        assert_eq!((&bundle[..9], bundle.len()), (&b"\0\x03abc\0\0\xff\xff"[..], 5 + 2 + 2 + 65_535));
        assert!(push_entry(&mut bundle, &[7; 65_536]).is_err());
    }

    #[test]
    fn an_edge_from_tiles_that_are_missing_or_short_is_refused() {
        let kept = Kept::of(700);
        assert_eq!(Edge::open(700, |id| kept.tile(id)), Ok(kept.edge.clone()));
        for (gone, _) in Edge::incomplete(700) {
            assert!(Edge::open(700, |id| kept.tile(id).filter(|_| id != gone)).is_err());
            let short = |id| kept.tile(id).map(|tile| if id == gone { &tile[..tile.len() - 1] } else { tile });
            assert!(Edge::open(700, short).is_err());
        }
        assert!(Edge::open(u64::MAX, |_| None).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_tile_has_one_path(level in 0..=MAX_LEVEL, index in any::<u64>(), width in 1..=WIDTH) {
            let id = TileId { level, index };
            prop_assert_eq!(TileId::from_path(&id.path(width)), Some((id, width)));
        }

        /// Any text at all, and what is almost a path.
        #[test]
        fn no_text_is_the_path_of_a_tile_but_that_which_it_has(
            any in ".*",
            close in "tile/[0-9]{1,2}/(x[0-9]{3}/){0,7}x?[0-9]{1,4}(\\.p/[0-9]{1,3})?[./x]?",
        ) {
            for path in [any, close] {
                if let Some((id, width)) = TileId::from_path(&path) {
                    prop_assert_eq!(id.path(width), path);
                }
            }
        }

        #[test]
        fn a_tree_goes_on_from_what_was_kept(steps in prop::collection::vec(0..400_u64, 1..8)) {
            let mut kept = Kept::default();
            for step in steps {
                kept.edge = Edge::open(kept.edge.size(), |id| kept.tile(id)).unwrap();
                kept.grow(step);
            }
            let at_once = Kept::of(kept.edge.size());
            let mut frontier = crate::Frontier::new();
            (0..kept.edge.size()).for_each(|leaf| frontier.push_hash(hash_of(leaf)));
            prop_assert_eq!(kept.edge.root(), frontier.root());
            let levels = (0..3).map(|level| Edge::tiles_of(kept.edge.size(), level));
            prop_assert_eq!(levels.sum::<u64>(), kept.tiles.len() as u64);
            prop_assert_eq!(kept.edge, at_once.edge);
            // A tile that was complete at the end of a step is not incomplete later.
            prop_assert_eq!(kept.tiles, at_once.tiles);
        }
    }
}
