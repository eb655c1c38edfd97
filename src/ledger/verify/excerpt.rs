//! Verification of a filtered export: some of a log's leaves, what lies beside them in the tree, and a manifest.
//!
//! Lines and proofs are read once, side by side, in constant memory. The proofs say which leaf comes next and what its
//! hash is, so whatever does not fit is named by its line; that they themselves hold shows at the end, in the root. What
//! is gone from both shows in the manifest's count.
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
    let walk = Walk {
        lines: Lines::new(lines),
        pieces: Pieces { from: proofs, number: 0 },
        tree: Frontier::new(),
        sum: Context::new(&SHA256),
        count: 0,
        trust: Trust::new(&signed.origin, keys.iter().copied()),
        unknown,
        manifest,
    };
    walk.run(&signed)
}

struct Walk<'n, L, P> {
    lines: Lines<L>,
    pieces: Pieces<P>,
    tree: Frontier,
    sum: Context,
    count: u64,
    /// What is known of the log's keys.
    trust: Trust,
    /// The signed manifest, if none of the given keys has signed it.
    unknown: Option<&'n str>,
    manifest: Manifest,
}

impl<L: BufRead, P: BufRead> Walk<'_, L, P> {
    fn run(mut self, signed: &Checkpoint) -> Result<Excerpt, ExcerptFault> {
        while let Some(piece) = self.pieces.next()? {
            let line = self.pieces.number;
            self.tree.push_subtree(&piece.subtree()).map_err(|error| ExcerptFault::Proofs { line, error })?;
            if let Piece::Leaf { index, hash } = piece {
                self.leaf(index, hash)?;
            }
        }
        if self.lines.advance()? {
            return Err(self.added());
        }
        if self.tree.size() != signed.size {
            return Err(ExcerptFault::ProofsEnd { size: self.tree.size(), signed: signed.size });
        }
        if self.tree.root() != signed.root {
            return Err(ExcerptFault::Root);
        }
        if let Some(manifest) = self.unknown {
            self.trust.believe(signed.size);
            manifest::verify(manifest, &self.trust.keys_at(signed.size)).map_err(ExcerptFault::Manifest)?;
        }
        let counted = self.manifest.lines;
        if self.count != counted {
            return Err(ExcerptFault::Count { counted, got: self.count });
        }
        if self.sum.finish().as_ref() != self.manifest.sha256 {
            return Err(ExcerptFault::Sum);
        }
        Ok(Excerpt { manifest: self.manifest })
    }

    /// Holds the next line against the leaf that is proven here.
    fn leaf(&mut self, index: u64, hash: [u8; 32]) -> Result<(), ExcerptFault> {
        if !self.lines.advance()? {
            return Err(ExcerptFault::Ends { lines: self.count, index });
        }
        let (line, text) = (self.lines.number, &self.lines.text);
        if !self.lines.whole {
            return Err(ExcerptFault::Truncated { line, index });
        }
        if leaf_hash(text) != hash {
            return Err(self.misplaced(index));
        }
        let within = (self.manifest.first..self.manifest.end).contains(&index);
        if !within || self.manifest.filter.fits(text) != Ok(true) {
            return Err(ExcerptFault::Unasked { line, index });
        }
        if self.unknown.is_some()
            && let Ok(leaf) = leaf::parse(text)
        {
            self.trust.hear(&leaf);
        }
        self.sum.update(text);
        self.sum.update(b"\n");
        self.count += 1;
        Ok(())
    }

    /// Says what stands where a leaf is expected.
    fn misplaced(&mut self, index: u64) -> ExcerptFault {
        let line = self.lines.number;
        if self.lines.text.last() == Some(&b'\r') {
            return ExcerptFault::Converted { line };
        }
        let got = match leaf::parse(&self.lines.text) {
            Ok(leaf) => leaf.index,
            Err(error) => return ExcerptFault::Changed { line, index, why: format!(": {error}") },
        };
        if got == index {
            return ExcerptFault::Changed { line, index, why: String::new() };
        }
        if got < index {
            return ExcerptFault::Added { line, got };
        }
        match self.lines.find(index) {
            Some(at) => ExcerptFault::Moved { line, index, got, at },
            None => ExcerptFault::Dropped { line, index },
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
struct Pieces<P> {
    from: P,
    number: u64,
}

impl<P: BufRead> Pieces<P> {
    fn next(&mut self) -> Result<Option<Piece>, ExcerptFault> {
        if self.number == 0 && self.line()?.as_deref() != Some(HEADER) {
            return Err(ExcerptFault::NoProofs);
        }
        let Some(text) = self.line()? else { return Ok(None) };
        Piece::from_text(&text).map(Some).map_err(|error| ExcerptFault::Proofs { line: self.number, error })
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
        expect(|export| drop(export.proofs.pop()), &["end at leaf"]);
        expect(|export| drop(export.proofs.remove(5)), &["line 7 of the proofs"]);
        expect(|export| export.proofs[0].push('x'), &["line 2 of the proofs"]);
        expect(|export| export.proofs.swap(4, 5), &["of the proofs"]);
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
