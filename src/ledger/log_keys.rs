//! The keys of a log, as its own leaves name them: who knows one of them learns the others from the log.
//!
//! A leaf vouches for nothing by itself. It does once it is among the leaves of a checkpoint that a key has signed which is
//! trusted already; so a new key is trusted for what the key before it has signed, and whoever has only the newest one learns
//! by the same leaf which key signed before. A key that the log calls compromised proves nothing from that leaf on.

use std::collections::BTreeMap;

use crate::checkpoint;
use crate::cover::Piece;
use crate::error::LedgerError;
use crate::frontier::{Frontier, leaf_hash};
use crate::leaf::{self, ParsedLeaf};
use crate::note;
use crate::proof::Tree;

/// The key, as keys are named in leaves.
pub const NAME: &str = "ledger";
/// In the detail of a leaf: the verifier key of the version that it is about.
pub const KEY: &str = "log_key";
/// In the detail of the leaf of a rotation: the verifier key of the version that signed alone until then.
pub const BEFORE: &str = "log_key_before";

/// So many leaves about keys are looked at: a key has at most 4,096 versions, and a forged export must not fill the memory.
const MOST: usize = 10_000;

/// What a leaf says of the keys of its own log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyLeaf {
    /// The leaf's index.
    pub leaf: u64,
    /// The verifier key that it is about.
    pub key: String,
    /// What it says.
    pub told: Told,
}

/// What a leaf says of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// It signs from now on, after this one.
    Next {
        /// The verifier key of the version before.
        before: Option<String>,
    },
    /// Others know it, or may.
    Compromised,
}

impl KeyLeaf {
    /// What a leaf of a log says of the log's keys; most say nothing.
    pub fn of(leaf: &ParsedLeaf, origin: &str) -> Option<Self> {
        if leaf.decision != "allow" || !["rotate_key", "set_key_state"].contains(&&*leaf.action) {
            return None;
        }
        let vkey = |name| leaf.says(name).filter(|vkey| note::is_of(vkey, origin)).map(str::to_owned);
        if leaf.says("key") != Some(NAME) || leaf.says("stage") != Some("done") {
            return None;
        }
        let told = match &*leaf.action {
            "rotate_key" => Told::Next { before: vkey(BEFORE) },
            _ if leaf.says("state") == Some("compromised") => Told::Compromised,
            _ => return None,
        };
        Some(Self { leaf: leaf.index, key: vkey(KEY)?, told })
    }
}

/// Which keys of a log are trusted, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust {
    origin: String,
    /// The leaf that names each; none for those that were given.
    keys: BTreeMap<String, Option<u64>>,
    /// What leaves say of keys, whether anybody vouches for these leaves or not.
    told: Vec<KeyLeaf>,
}

/// A key that is trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedKey {
    /// The verifier key.
    pub key: String,
    /// The leaf that names it; none if it was given.
    pub leaf: Option<u64>,
    /// The leaf that calls it compromised.
    pub compromised: Option<u64>,
}

impl Trust {
    /// Begins with keys that were given; those of other logs and of witnesses vouch for nothing here.
    pub fn new<'k>(origin: &str, given: impl IntoIterator<Item = &'k str>) -> Self {
        let own = given.into_iter().map(str::trim).filter(|vkey| note::is_of(vkey, origin));
        Self { origin: origin.to_owned(), keys: own.map(|vkey| (vkey.to_owned(), None)).collect(), told: vec![] }
    }

    /// Hears what a leaf says of keys.
    pub fn hear(&mut self, leaf: &ParsedLeaf) {
        if self.told.len() < MOST {
            self.told.extend(KeyLeaf::of(leaf, &self.origin));
        }
    }

    /// Hears some leaves of a tree, once they are seen to be in it: `pieces` are, in order and without a gap, these leaves and
    /// the subtrees beside them.
    ///
    /// # Errors
    /// [`LedgerError::NotProven`], or what is wrong with a leaf or a piece; nothing was heard then.
    pub fn hear_proven<L: AsRef<[u8]>>(
        &mut self,
        lines: &[L],
        pieces: &[Piece],
        tree: &Tree,
    ) -> Result<(), LedgerError> {
        const THESE: LedgerError = LedgerError::NotProven("that the tree has these leaves");
        let (mut joined, mut rest, mut leaves) = (Frontier::new(), lines.iter(), Vec::with_capacity(lines.len()));
        for piece in pieces {
            joined.push_subtree(&piece.subtree())?;
            if let Piece::Leaf { index, hash } = piece {
                let line = rest.next().map(L::as_ref).filter(|line| leaf_hash(line) == *hash).ok_or(THESE)?;
                leaves.push(leaf::parse(line).ok().filter(|leaf| leaf.index == *index).ok_or(THESE)?);
            }
        }
        if rest.next().is_some() || (joined.size(), joined.root()) != (tree.size, tree.root) {
            return Err(THESE);
        }
        leaves.iter().for_each(|leaf| self.hear(leaf));
        Ok(())
    }

    /// A checkpoint of so many leaves vouches for what they say of keys: these leaves are those that were heard.
    pub fn believe(&mut self, size: u64) {
        for told in self.told.iter().filter(|told| told.leaf < size) {
            let Told::Next { before } = &told.told else { continue };
            for key in std::iter::once(&told.key).chain(before) {
                self.keys.entry(key.clone()).or_insert(Some(told.leaf));
            }
        }
    }

    /// The keys that prove a checkpoint of so many leaves: those that are trusted, but for the ones that a leaf among these
    /// calls compromised.
    pub fn keys_at(&self, size: u64) -> Vec<&str> {
        let sound = |key: &&str| self.compromised(key).is_none_or(|leaf| leaf >= size);
        self.keys.keys().map(String::as_str).filter(sound).collect()
    }

    /// Which trusted keys have signed a checkpoint of these leaves.
    ///
    /// # Errors
    /// [`LedgerError::Unsigned`] or [`LedgerError::UnsignedSince`] if none has; [`LedgerError::Signature`].
    pub fn prove(&self, note: &str, size: u64) -> Result<Vec<String>, LedgerError> {
        match checkpoint::verify_by(note, &self.keys_at(size)) {
            Ok((_, signers)) => Ok(signers),
            Err(LedgerError::Unsigned) => Err(self.unsigned(size)),
            Err(error) => Err(error),
        }
    }

    /// Why nobody who is trusted has signed something of so many leaves.
    fn unsigned(&self, size: u64) -> LedgerError {
        let strange = |told: &&KeyLeaf| told.leaf < size && !self.keys.contains_key(&told.key);
        match self.told.iter().find(strange) {
            Some(told) => LedgerError::UnsignedSince { leaf: told.leaf },
            None => LedgerError::Unsigned,
        }
    }

    /// All keys that are trusted, those that were given first, then by the leaves that name them.
    pub fn trusted(&self) -> Vec<TrustedKey> {
        let trusted = |(key, leaf): (&String, &Option<u64>)| TrustedKey {
            key: key.clone(),
            leaf: *leaf,
            compromised: self.compromised(key),
        };
        let mut all: Vec<TrustedKey> = self.keys.iter().map(trusted).collect();
        all.sort_by_key(|key| key.leaf);
        all
    }

    fn compromised(&self, key: &str) -> Option<u64> {
        let called = |told: &&KeyLeaf| told.key == key && told.told == Told::Compromised;
        self.told.iter().find(called).map(|told| told.leaf)
    }
}

/// The number of a verifier key, by which people tell it from others: eight hexadecimal digits.
pub fn number(vkey: &str) -> &str {
    vkey.split('+').nth(1).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checkpoint::tests::{Key, log};
    use crate::frontier::Frontier;
    use crate::leaf::sample::header;
    use crate::leaf::{LeafHeader, parse, prepare};
    use crate::timestamp::Timestamp;

    pub(crate) fn vkey(seed: u8) -> String {
        checkpoint::vkey(&log(), &Key::new(seed).public())
    }

    /// The line of a leaf about keys.
    pub(crate) fn line(index: u64, action: &str, decision: &str, detail: &[(&str, &str)]) -> String {
        let header = LeafHeader { principal: "rotator/night", action, decision, detail, ..header() };
        String::from_utf8(prepare(&header, [].into_iter())[0].finish(index, Timestamp(index))).unwrap()
    }

    /// The line of the leaf of a rotation.
    pub(crate) fn rotated(index: u64, from: u8, to: u8) -> String {
        let (from, to) = (vkey(from), vkey(to));
        let detail =
            [("key", NAME), ("version", "2"), ("state", "enabled"), ("stage", "done"), (KEY, &*to), (BEFORE, &*from)];
        line(index, "rotate_key", "allow", &detail)
    }

    /// The line of the leaf that calls a key compromised.
    pub(crate) fn compromised(index: u64, key: u8) -> String {
        let key = vkey(key);
        let detail = [("key", NAME), ("version", "1"), ("state", "compromised"), ("stage", "done"), (KEY, &*key)];
        line(index, "set_key_state", "allow", &detail)
    }

    fn of(line: &str) -> Option<KeyLeaf> {
        KeyLeaf::of(&parse(line.as_bytes()).unwrap(), &log())
    }

    /// Who was given one key, and heard these lines.
    fn trust(given: u8, lines: &[String]) -> Trust {
        let given = vkey(given);
        let mut trust = Trust::new(&log(), [&*given, "other+00000000+x"]);
        lines.iter().for_each(|line| trust.hear(&parse(line.as_bytes()).unwrap()));
        trust
    }

    fn signed(size: u64, keys: &[u8]) -> String {
        let mut tree = Frontier::new();
        (0..size).for_each(|number| tree.push(&number.to_be_bytes()));
        let keys: Vec<Key> = keys.iter().map(|seed| Key::new(*seed)).collect();
        checkpoint::sign_all(&log(), size, &tree.root(), &keys, Key::public, |key, text| key.sign(text)).unwrap()
    }

    #[test]
    fn only_what_was_done_to_the_logs_own_key_names_a_key() {
        let named = of(&rotated(5, 1, 2)).unwrap();
        assert_eq!(named, KeyLeaf { leaf: 5, key: vkey(2), told: Told::Next { before: Some(vkey(1)) } });
        assert_eq!(of(&compromised(6, 1)).unwrap().told, Told::Compromised);
        let (own, other) = (vkey(2), checkpoint::vkey("strongroom/other", &Key::new(2).public()));
        let bad = own.replacen('+', "+0", 1);
        for (action, decision, key, stage, vkey) in [
            ("rotate_key", "deny", NAME, "done", &own),
            ("rotate_key", "fail", NAME, "done", &own),
            ("rotate_key", "allow", "kek/1", "done", &own),
            ("rotate_key", "allow", NAME, "intent", &own),
            ("rotate_key", "allow", NAME, "done", &other),
            ("rotate_key", "allow", NAME, "done", &bad),
            ("apply_policy", "allow", NAME, "done", &own),
            ("set_key_state", "allow", NAME, "done", &own),
        ] {
            let detail = [("key", key), ("state", "enabled"), ("stage", stage), (KEY, &**vkey)];
            assert_eq!(of(&line(5, action, decision, &detail)), None, "{action} {decision} {key} {stage} {vkey}");
        }
    }

    #[test]
    fn the_new_key_is_trusted_once_the_old_one_vouches_for_the_leaf_that_names_it() {
        let mut trust = trust(1, &[rotated(5, 1, 2), rotated(9, 2, 3)]);
        let (alone, newest) = (signed(8, &[2]), signed(12, &[3]));
        assert_eq!(trust.prove(&alone, 8), Err(LedgerError::UnsignedSince { leaf: 5 }));
        // Up to the leaf, and not with it.
        trust.believe(5);
        assert_eq!(trust.prove(&alone, 8), Err(LedgerError::UnsignedSince { leaf: 5 }));
        assert_eq!(trust.prove(&signed(6, &[2, 1]), 6), Ok(vec![vkey(1)]));
        trust.believe(6);
        assert_eq!(trust.prove(&alone, 8), Ok(vec![vkey(2)]));
        assert_eq!(trust.prove(&newest, 12), Err(LedgerError::UnsignedSince { leaf: 9 }));
        trust.believe(10);
        assert_eq!(trust.prove(&newest, 12), Ok(vec![vkey(3)]));
        let trusted: Vec<_> = trust.trusted().into_iter().map(|key| (key.key, key.leaf)).collect();
        assert_eq!(trusted, [(vkey(1), None), (vkey(2), Some(5)), (vkey(3), Some(9))]);
    }

    #[test]
    fn who_has_the_new_key_learns_which_signed_before() {
        let mut trust = trust(2, &[rotated(5, 1, 2)]);
        assert_eq!(trust.prove(&signed(3, &[1]), 3), Err(LedgerError::Unsigned));
        trust.believe(8);
        assert_eq!(trust.prove(&signed(3, &[1]), 3), Ok(vec![vkey(1)]));
    }

    #[test]
    fn leaves_are_heard_once_they_are_seen_to_be_in_the_tree() {
        let leaves: Vec<String> = (0..9)
            .map(|index| if index == 5 { rotated(5, 1, 2) } else { line(index, "lookup", "allow", &[]) })
            .collect();
        let hashes: Vec<[u8; 32]> = leaves.iter().map(|line| leaf_hash(line.as_bytes())).collect();
        let mut frontier = Frontier::new();
        hashes.iter().for_each(|hash| frontier.push_hash(*hash));
        let tree = Tree { size: 9, root: frontier.root() };
        let pieces = crate::cover::tests::pieces(&hashes, |index| index == 5);
        let hear = |lines: &[&str], pieces: &[Piece], tree: &Tree| {
            let mut trust = trust(1, &[]);
            trust.hear_proven(lines, pieces, tree).map(|()| {
                trust.believe(9);
                trust.trusted().len()
            })
        };
        assert_eq!(hear(&[&leaves[5]], &pieces, &tree), Ok(2));
        let forged = rotated(5, 1, 3);
        let wrong: [Vec<&str>; 4] = [vec![], vec![&forged], vec![&leaves[5], &forged], vec![&leaves[4]]];
        for lines in wrong {
            assert!(hear(&lines, &pieces, &tree).is_err(), "{lines:?}");
        }
        assert!(hear(&[&leaves[5]], &pieces[1..], &tree).is_err());
        assert!(hear(&[&leaves[5]], &pieces, &Tree { size: 9, root: [0; 32] }).is_err());
        // A forged leaf with a piece that fits it gives another root.
        let forged_hash = leaf_hash(forged.as_bytes());
        let swapped = |piece: &Piece| match *piece {
            Piece::Leaf { index, .. } => Piece::Leaf { index, hash: forged_hash },
            other => other,
        };
        let swapped: Vec<Piece> = pieces.iter().map(swapped).collect();
        assert!(hear(&[&forged], &swapped, &tree).is_err());
    }

    #[test]
    fn a_compromised_key_proves_nothing_from_the_leaf_on_that_says_so() {
        let mut trust = trust(1, &[rotated(5, 1, 2), compromised(7, 1)]);
        assert_eq!(trust.prove(&signed(7, &[1]), 7), Ok(vec![vkey(1)]));
        assert!(trust.prove(&signed(8, &[1]), 8).is_err());
        trust.believe(7);
        assert!(trust.prove(&signed(8, &[1]), 8).is_err());
        assert_eq!(trust.prove(&signed(8, &[2]), 8), Ok(vec![vkey(2)]));
        assert_eq!(trust.trusted()[0].compromised, Some(7));
    }
}
