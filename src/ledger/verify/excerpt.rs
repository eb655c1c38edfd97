//! Verification of a filtered export: some of a log's leaves, what lies beside them in the tree, and a manifest.
//!
//! Lines and proofs are read once, side by side, in constant memory. The proofs say which leaf comes next and what its
//! hash is, so whatever does not fit is named by its line, once it is known that they themselves hold, which shows at the end, in the
//! root. What is gone from both shows in the manifest's count. What names the place in a whole export is the same.
//!
//! A manifest by a newer key than those that are known holds if the leaf that names that key is among the lines.

use std::io::BufRead;

use ring::digest::{Context, SHA256};

use super::excerpt_fault::ExcerptFault;
use super::lines::Lines;
use crate::checkpoint::{self, Checkpoint};
use crate::cover::{HEADER, Piece};
use crate::error::LedgerError;
use crate::frontier::{Frontier, leaf_hash};
use crate::leaf;
use crate::log_keys::Trust;
use crate::manifest::{self, Manifest};

/// The longest line of a file of proofs.
const LONGEST: usize = 256;

/// What holds: these lines are leaves of the log, and as many as the vault says that fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excerpt {
    /// What the vault signed.
    pub manifest: Manifest,
}

/// Verifies a filtered export. `lines` are its leaves, one a line; `proofs` what came with it; `keys` are verifier keys,
/// one of which must be the log's own.
pub fn verify_excerpt(
    lines: impl BufRead,
    proofs: impl BufRead,
    manifest: &str,
    checkpoint: &str,
    keys: &[String],
) -> Result<Excerpt, ExcerptFault> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let signed = checkpoint::verify(checkpoint, &keys).map_err(ExcerptFault::Checkpoint)?;
    let (manifest, unknown) = match manifest::verify(manifest, &keys) {
        Ok(said) => (said, None),
        // By whom, is looked at once the lines are proven.
        Err(LedgerError::Unsigned) => (manifest::claimed(manifest).map_err(ExcerptFault::Manifest)?, Some(manifest)),
        Err(error) => return Err(ExcerptFault::Manifest(error)),
    };
    let log = &manifest.log;
    if (&log.origin, log.size, log.root) != (&signed.origin, signed.size, signed.root) {
        return Err(ExcerptFault::OtherCheckpoint { size: log.size, got: signed.size });
    }
    // What is known of the log's keys.
    let mut trust = Trust::new(&signed.origin, keys.iter().copied());
    let mut sum = Context::new(&SHA256);
    let mut walk = Walk::new(lines, Pieces::new(proofs));
    walk.run(&signed, |line, index, text| {
        let within = (manifest.first..manifest.end).contains(&index);
        if !within || manifest.filter.fits(text) != Ok(true) {
            return Err(ExcerptFault::Unasked { line, index });
        }
        if unknown.is_some()
            && let Ok(leaf) = leaf::parse(text)
        {
            trust.hear(&leaf);
        }
        sum.update(text);
        sum.update(b"\n");
        Ok(())
    })?;
    if let Some(note) = unknown {
        trust.believe(signed.size);
        manifest::verify(note, &trust.keys_at(signed.size)).map_err(ExcerptFault::Manifest)?;
    }
    if walk.count != manifest.lines {
        return Err(ExcerptFault::Count { counted: manifest.lines, got: walk.count });
    }
    if sum.finish().as_ref() != manifest.sha256 {
        return Err(ExcerptFault::Sum);
    }
    Ok(Excerpt { manifest })
}

/// Where the lines of a whole export are not the leaves that a checkpoint signs, by the hashes of all leaves, which came with it:
/// they are held against the checkpoint as well. `keys` as for [`verify_excerpt`]. That nothing is found proves nothing yet.
pub fn place(
    lines: impl BufRead,
    pieces: impl Iterator<Item = Result<Numbered, ExcerptFault>>,
    checkpoint: &str,
    keys: &[String],
) -> Result<(), ExcerptFault> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let signed = checkpoint::verify(checkpoint, &keys).map_err(ExcerptFault::Checkpoint)?;
    Walk::new(lines, pieces).run(&signed, |_, _, _| Ok(()))
}

/// A piece of what proves an export, and which one it is, from 1.
pub type Numbered = (u64, Piece);

/// Lines and what proves them, side by side.
struct Walk<L, P> {
    lines: Lines<L>,
    pieces: P,
    tree: Frontier,
    count: u64,
}

/// A line that is a leaf, and not the one that is expected.
struct Odd {
    line: u64,
    /// The leaf that is expected.
    index: u64,
    /// The leaf that it says it is.
    got: u64,
    /// The hash of the line behind it.
    next: Option<[u8; 32]>,
}

impl<L: BufRead, P: Iterator<Item = Result<Numbered, ExcerptFault>>> Walk<L, P> {
    fn new(lines: L, pieces: P) -> Self {
        Self { lines: Lines::new(lines), pieces, tree: Frontier::new(), count: 0 }
    }

    /// Gives each line that is proven, with its number and the leaf's. What does not fit is told only if the proofs give the
    /// signed root: else it may be they that were changed.
    fn run(
        &mut self,
        signed: &Checkpoint,
        mut each: impl FnMut(u64, u64, &[u8]) -> Result<(), ExcerptFault>,
    ) -> Result<(), ExcerptFault> {
        let (mut found, mut odd) = (Ok(()), None);
        while let Some(piece) = self.pieces.next() {
            let (line, piece) = piece?;
            self.tree.push_subtree(&piece.subtree()).map_err(|error| ExcerptFault::Proofs { line, error })?;
            let Piece::Leaf { index, hash } = piece else { continue };
            match odd.take() {
                Some(odd) => found = Err(self.misplaced(&odd, Some(hash))),
                None if found.is_ok() => match self.leaf(index, hash, &mut each) {
                    Ok(next) => odd = next,
                    Err(fault) => found = Err(fault),
                },
                None => {}
            }
        }
        if let Some(odd) = odd {
            found = Err(self.misplaced(&odd, None));
        }
        if self.tree.size() != signed.size {
            return Err(ExcerptFault::ProofsEnd { size: self.tree.size(), signed: signed.size });
        }
        if self.tree.root() != signed.root {
            return Err(ExcerptFault::Root);
        }
        found?;
        if self.lines.advance()? { Err(self.added()) } else { Ok(()) }
    }

    /// Holds the next line against the leaf that is proven here. Says if it names another leaf: what that means shows when the
    /// next leaf is known.
    fn leaf(
        &mut self,
        index: u64,
        hash: [u8; 32],
        each: &mut impl FnMut(u64, u64, &[u8]) -> Result<(), ExcerptFault>,
    ) -> Result<Option<Odd>, ExcerptFault> {
        if !self.lines.advance()? {
            return Err(ExcerptFault::Ends { lines: self.count, index });
        }
        let (line, text) = (self.lines.number, &self.lines.text);
        if !self.lines.whole {
            return Err(ExcerptFault::Truncated { line, index });
        }
        if leaf_hash(text) == hash {
            each(line, index, text)?;
            self.count += 1;
            return Ok(None);
        }
        if text.last() == Some(&b'\r') {
            return Err(ExcerptFault::Converted { line });
        }
        let got = match leaf::parse(text) {
            Ok(leaf) => leaf.index,
            Err(error) => return Err(ExcerptFault::Changed { line, index, why: format!(": {error}") }),
        };
        if got == index {
            return Err(ExcerptFault::Changed { line, index, why: String::new() });
        }
        let next = self.lines.advance()?.then(|| leaf_hash(&self.lines.text));
        // A later one may have changed places with it.
        if got < index && next == Some(hash) {
            return Err(ExcerptFault::Added { line, got });
        }
        Ok(Some(Odd { line, index, got, next }))
    }

    /// Says what stands where a leaf is expected; after it comes the leaf with the hash `following`.
    fn misplaced(&mut self, odd: &Odd, following: Option<[u8; 32]>) -> ExcerptFault {
        let &Odd { line, index, got, next } = odd;
        if got > index {
            let is_next = next.is_some() && leaf::parse(&self.lines.text).is_ok_and(|leaf| leaf.index == index);
            let at = if is_next { Some(self.lines.number) } else { self.lines.find(index) };
            if let Some(at) = at {
                return ExcerptFault::Moved { line, index, got, at };
            }
        }
        match got > index {
            // All goes on behind it as if it were the one.
            _ if next == following => {
                ExcerptFault::Changed { line, index, why: format!(": it says that it is leaf {got}") }
            }
            true => ExcerptFault::Dropped { line, index },
            false => ExcerptFault::Added { line, got },
        }
    }

    /// A line after the last one that is proven.
    fn added(&self) -> ExcerptFault {
        let line = self.lines.number;
        match leaf::parse(&self.lines.text) {
            Ok(leaf) => ExcerptFault::Added { line, got: leaf.index },
            Err(_) => ExcerptFault::AddedOther { line },
        }
    }
}

/// The lines of a file of proofs, one at a time.
pub struct Pieces<P> {
    from: P,
    number: u64,
}

impl<P: BufRead> Pieces<P> {
    /// Those of a file.
    pub fn new(from: P) -> Self {
        Self { from, number: 0 }
    }

    fn read(&mut self) -> Result<Option<Numbered>, ExcerptFault> {
        if self.number == 0 && self.line()?.as_deref() != Some(HEADER) {
            return Err(ExcerptFault::NoProofs);
        }
        let Some(text) = self.line()? else { return Ok(None) };
        let piece = Piece::from_text(&text).map_err(|error| ExcerptFault::Proofs { line: self.number, error })?;
        Ok(Some((self.number, piece)))
    }

    fn line(&mut self) -> Result<Option<String>, ExcerptFault> {
        let mut text = Vec::new();
        let line = self.number + 1;
        let mut bounded = std::io::Read::take(&mut self.from, LONGEST as u64);
        bounded.read_until(b'\n', &mut text).map_err(|error| ExcerptFault::ReadProofs { line, error })?;
        if text.is_empty() {
            return Ok(None);
        }
        self.number = line;
        // One that is cut off or too long is none.
        let text = text.strip_suffix(b"\n").unwrap_or_default().to_vec();
        Ok(Some(String::from_utf8(text).unwrap_or_default()))
    }
}

impl<P: BufRead> Iterator for Pieces<P> {
    type Item = Result<Numbered, ExcerptFault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::{Key, log};
    use crate::cover::tests::pieces;
    use crate::filter::Filter;
    use crate::leaf::sample::header;
    use crate::leaf::{LeafHeader, prepare};
    use crate::receipt::LogHead;
    use crate::timestamp::Timestamp;

    /// A filtered export of a log, as it comes.
    #[derive(Clone)]
    struct Export {
        lines: Vec<String>,
        proofs: Vec<String>,
        manifest: String,
        checkpoint: String,
    }

    const SIZE: u64 = 300;

    fn line(index: u64, action: &str) -> String {
        let header = LeafHeader { principal: "app/a", action, ..header() };
        let leaves = prepare(&header, [].into_iter());
        String::from_utf8(leaves[0].finish(index, Timestamp(index))).unwrap()
    }

    /// Of every seventh leaf.
    fn log_line(index: u64) -> String {
        line(index, if index.is_multiple_of(7) { "match" } else { "lookup" })
    }

    fn key() -> Key {
        Key::new(7)
    }

    impl Export {
        fn new() -> Self {
            let lines: Vec<String> = (0..SIZE).map(log_line).collect();
            let hashes: Vec<[u8; 32]> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
            let mut tree = Frontier::new();
            hashes.iter().for_each(|hash| tree.push_hash(*hash));
            let lines: Vec<String> = lines.into_iter().step_by(7).collect();
            let proofs = pieces(&hashes, |index| index.is_multiple_of(7)).iter().map(Piece::to_text).collect();
            let mut export =
                Self { lines, proofs, manifest: String::new(), checkpoint: key().checkpoint(&log(), &tree) };
            export.manifest = export.signed(&tree);
            export
        }

        fn signed(&self, tree: &Frontier) -> String {
            let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
            let manifest = Manifest {
                log: LogHead { origin: log(), size: tree.size(), root: tree.root() },
                time: Timestamp(SIZE),
                first: 0,
                end: SIZE,
                filter: Filter { action: Some("match".to_owned()), ..Filter::default() },
                lines: self.lines.len() as u64,
                sha256: ring::digest::digest(&SHA256, text.as_bytes()).as_ref().try_into().unwrap(),
            };
            manifest::sign(&manifest, &key().public(), |text| key().sign(text)).unwrap()
        }

        fn verify(&self) -> Result<Excerpt, String> {
            let lines: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
            let proofs: String =
                [HEADER.to_owned()].iter().chain(&self.proofs).map(|line| format!("{line}\n")).collect();
            let keys = [checkpoint::vkey(&log(), &key().public())];
            verify_excerpt(lines.as_bytes(), proofs.as_bytes(), &self.manifest, &self.checkpoint, &keys)
                .map_err(|fault| fault.to_string())
        }

        /// Where the leaf of a line stands in the proofs.
        fn proof_of(&self, line: usize) -> usize {
            self.proofs.iter().position(|proof| proof.starts_with(&format!("leaf {} ", line * 7))).unwrap()
        }
    }

    fn expect(change: impl FnOnce(&mut Export), hints: &[&str]) {
        let mut export = Export::new();
        change(&mut export);
        let said = export.verify().unwrap_err();
        for hint in hints {
            assert!(said.contains(hint), "{hint:?} is not in: {said}");
        }
    }

    #[test]
    fn what_was_exported_verifies() {
        let export = Export::new();
        let manifest = export.verify().unwrap().manifest;
        assert_eq!((manifest.lines, manifest.end), (43, SIZE));
        // Beside each of 43 leaves lie few hashes.
        assert!(export.proofs.len() < 43 * 5, "{}", export.proofs.len());
    }

    #[test]
    fn what_was_changed_dropped_swapped_or_added_is_named_by_its_line() {
        expect(|export| export.lines[3] = export.lines[3].replace("app/a", "app/b"), &["line 4", "leaf 21", "changed"]);
        expect(|export| export.lines[3].truncate(40), &["line 4", "leaf 21", "changed"]);
        expect(|export| export.lines[3].push('\r'), &["line 4", "carriage return"]);
        expect(|export| drop(export.lines.remove(3)), &["line 4", "leaf 21", "removed"]);
        expect(|export| drop(export.lines.pop()), &["after 42 lines", "leaf 294"]);
        expect(|export| export.lines.swap(3, 5), &["line 4", "leaf 35", "leaf 21", "line 6", "moved"]);
        expect(|export| export.lines.insert(3, log_line(16)), &["line 4", "leaf 16", "added"]);
        expect(|export| export.lines.insert(3, export.lines[0].clone()), &["line 4", "leaf 0", "added"]);
        expect(|export| export.lines.push(log_line(299)), &["line 44", "leaf 299", "added"]);
        expect(|export| export.lines.push("x".to_owned()), &["line 44", "added"]);
        for at in 0..export_len(3) {
            let flip = |export: &mut Export| {
                let mut bytes = export.lines[3].clone().into_bytes();
                bytes[at] ^= 1;
                export.lines[3] = String::from_utf8(bytes).unwrap();
            };
            expect(flip, &["line 4"]);
        }
    }

    fn export_len(line: usize) -> usize {
        Export::new().lines[line].len()
    }

    #[test]
    fn proofs_that_were_changed_along_are_noticed() {
        // A forged line with a proof that fits it.
        expect(
            |export| {
                let (at, forged) = (export.proof_of(3), export.lines[3].replace("app/a", "app/b"));
                export.proofs[at] = Piece::Leaf { index: 21, hash: leaf_hash(forged.as_bytes()) }.to_text();
                export.lines[3] = forged;
            },
            &["do not give the signed root"],
        );
        // A line that is gone from both.
        let dropped = |export: &mut Export| {
            let at = export.proof_of(3);
            export.proofs[at] = export.proofs[at].replace("leaf 21", "tree 21 0");
            export.lines.remove(3);
        };
        expect(dropped, &["counts 43 lines", "there are 42"]);
        // One for another: both are in the log.
        let other = |export: &mut Export| {
            dropped(export);
            let spare = export.proofs.iter().position(|proof| proof.contains(" 0 ") && proof.starts_with("tree"));
            let spare = spare.unwrap();
            let start: u64 = export.proofs[spare].split(' ').nth(1).unwrap().parse().unwrap();
            export.proofs[spare] =
                export.proofs[spare].replacen(&format!("tree {start} 0"), &format!("leaf {start}"), 1);
            let at = export.lines.iter().position(|line| leaf::parse(line.as_bytes()).unwrap().index > start).unwrap();
            export.lines.insert(at, log_line(start));
        };
        expect(other, &["was not asked for"]);
        // An honest line is not blamed for a hash that was changed.
        expect(
            |export| {
                let at = export.proof_of(3);
                export.proofs[at] = Piece::Leaf { index: 21, hash: [1; 32] }.to_text();
            },
            &["do not give the signed root"],
        );
        expect(|export| drop(export.proofs.pop()), &["end at leaf"]);
        expect(|export| drop(export.proofs.remove(5)), &["line 7 of the proofs"]);
        expect(|export| export.proofs[0].push('x'), &["line 2 of the proofs"]);
        expect(|export| export.proofs.swap(4, 5), &["of the proofs"]);
    }

    #[test]
    fn the_place_in_a_whole_export_is_found_by_the_hashes_of_its_leaves() {
        let lines: Vec<String> = (0..SIZE).map(log_line).collect();
        let hashes: Vec<[u8; 32]> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
        let mut tree = Frontier::new();
        hashes.iter().for_each(|hash| tree.push_hash(*hash));
        let (note, keys) = (key().checkpoint(&log(), &tree), [checkpoint::vkey(&log(), &key().public())]);
        let placed = |lines: &[String], hashes: &[[u8; 32]]| {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let pieces: String = pieces(hashes, |_| true).iter().map(|piece| piece.to_text() + "\n").collect();
            let pieces = format!("{HEADER}\n{pieces}");
            place(text.as_bytes(), Pieces::new(pieces.as_bytes()), &note, &keys).map_err(|fault| fault.to_string())
        };
        assert_eq!(placed(&lines, &hashes), Ok(()));
        let changed = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines = lines.clone();
            change(&mut lines);
            placed(&lines, &hashes).unwrap_err()
        };
        let said = changed(&|lines| lines[40] = lines[40].replace("app/a", "app/b"));
        assert_eq!(said, "line 41, leaf 40, was changed");
        let said = changed(&|lines| lines[40] = lines[40].replace("\"40\"", "\"48\""));
        assert_eq!(said, "line 41, leaf 40, was changed: it says that it is leaf 48");
        assert!(changed(&|lines| lines[40] = lines[40].replace("\"40\"", "\"30\"")).contains("it is leaf 30"));
        assert!(changed(&|lines| lines[299] = lines[299].replace("\"299\"", "\"399\"")).contains("line 300, leaf 299"));
        assert!(changed(&|lines| drop(lines.remove(40))).contains("leaf 40 is expected in line 41"));
        assert!(changed(&|lines| lines.swap(40, 41)).contains("lines were moved"));
        assert!(changed(&|lines| drop(lines.pop())).contains("ends after 299 lines"));
        assert!(changed(&|lines| lines.push(log_line(300))).contains("line 301"));
        // Hashes that were changed along name no place.
        let mut forged = hashes.clone();
        forged[40] = [1; 32];
        assert!(placed(&lines, &forged).unwrap_err().contains("do not give the signed root"));
    }

    #[test]
    fn another_manifest_or_checkpoint_is_refused() {
        expect(|export| export.manifest = export.manifest.replace("lines 43", "lines 42"), &["manifest", "signature"]);
        expect(|export| export.checkpoint = export.manifest.clone(), &["checkpoint"]);
        expect(|export| export.manifest = export.checkpoint.clone(), &["manifest"]);
        let mut older = Frontier::new();
        (0..299).for_each(|index| older.push(log_line(index).as_bytes()));
        expect(|export| export.checkpoint = key().checkpoint(&log(), &older), &["of 300 leaves", "299"]);
        // A manifest of another export of the same log.
        expect(
            |export| {
                let mut fewer = export.clone();
                fewer.lines[1] = "another".to_owned();
                let mut tree = Frontier::new();
                (0..SIZE).for_each(|index| tree.push(log_line(index).as_bytes()));
                export.manifest = fewer.signed(&tree);
            },
            &["not those that the manifest"],
        );
    }
}
