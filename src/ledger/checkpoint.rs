//! Checkpoints: the signed head of a log, as C2SP tlog-checkpoint, so that existing witnesses and verifiers work.

use strongroom_ids::{TenantId, VaultId};
use tlog_tiles::{Checkpoint as TreeHead, Hash};

use crate::error::LedgerError;
use crate::note;
use crate::proof::Tree;

/// The name of a log: its first line in every checkpoint and the name of its key. It names vault, tenant, lane and
/// incarnation, never a machine.
pub fn origin(vault: VaultId, tenant: TenantId, lane: u16, incarnation: u16) -> String {
    format!("strongroom/{vault}/{tenant}/{lane}/{incarnation}")
}

/// The verifier key that auditors hold: name, key id and Ed25519 public key (C2SP signed-note).
pub fn vkey(origin: &str, public: &[u8; 32]) -> String {
    note::vkey(origin, public)
}

/// Signs the head of a log of `size` leaves. `sign` gets the bytes and returns their Ed25519 signature by the key
/// whose public half is `public`.
pub fn sign(
    origin: &str,
    size: u64,
    root: &[u8; 32],
    public: &[u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<String, LedgerError> {
    note::sign(origin, &text(origin, size, root)?, public, sign)
}

/// The same by all keys of the log that sign at this time: after a rotation the new one, and those before it, for whoever
/// knows only them. One line each, in the order of the keys.
pub fn sign_all<K>(
    origin: &str,
    size: u64,
    root: &[u8; 32],
    keys: &[K],
    public: impl Fn(&K) -> [u8; 32],
    sign: impl Fn(&K, &[u8]) -> [u8; 64],
) -> Result<String, LedgerError> {
    let text = text(origin, size, root)?;
    note::signed(origin, &text, keys.iter().map(|key| (public(key), sign(key, text.as_bytes()))))
}

fn text(origin: &str, size: u64, root: &[u8; 32]) -> Result<String, LedgerError> {
    let head = TreeHead::new(origin, size, Hash(*root), "").map_err(|_| LedgerError::Name)?;
    String::from_utf8(head.to_bytes()).map_err(|_| LedgerError::Name)
}

/// What a verified checkpoint says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The log's name, as [`origin`] writes it.
    pub origin: String,
    /// How many leaves the log had.
    pub size: u64,
    /// The root of the tree over these leaves.
    pub root: [u8; 32],
}

/// Verifies a checkpoint against verifier keys. One of them must bear the name of the log itself: a witness's word
/// alone is not enough.
pub fn verify(note: &str, vkeys: &[&str]) -> Result<Checkpoint, LedgerError> {
    verify_by(note, vkeys).map(|(checkpoint, _)| checkpoint)
}

/// The same, and which of the keys of the log itself have signed it: one at the least.
pub fn verify_by(note: &str, vkeys: &[&str]) -> Result<(Checkpoint, Vec<String>), LedgerError> {
    let (text, mut signers) = note::open_by(note, vkeys)?;
    let checkpoint = Checkpoint::read(&text)?;
    signers.retain(|vkey| vkey.split_once('+').is_some_and(|(name, _)| name == checkpoint.origin));
    match signers.is_empty() {
        true => Err(LedgerError::Origin),
        false => Ok((checkpoint, signers)),
    }
}

/// What a checkpoint says, whoever signed it: it proves nothing until a key that is known has signed it.
pub fn claimed(note: &str) -> Result<Checkpoint, LedgerError> {
    Checkpoint::read(&note::claimed(note)?)
}

/// How many signatures under the log's own name a checkpoint bears: more than those of known keys, if the log has keys that
/// are not known.
pub fn signatures(note: &str, origin: &str) -> usize {
    note::lines_under(note, origin)
}

impl Checkpoint {
    /// The tree that it is of.
    pub fn tree(&self) -> Tree {
        Tree { size: self.size, root: self.root }
    }

    fn read(text: &str) -> Result<Self, LedgerError> {
        let head = TreeHead::from_bytes(text.as_bytes())
            .map_err(|_| LedgerError::Note("a checkpoint has the lines origin, size and root hash"))?;
        Ok(Self { origin: head.origin().to_owned(), size: head.size(), root: head.hash().0 })
    }
}

/// How many leaves a checkpoint claims that its log had, whoever signed it: to ask for a proof from there.
pub fn claimed_size(note: &str) -> Result<u64, LedgerError> {
    let malformed = LedgerError::Note("a checkpoint has the lines origin, size and root hash");
    let size = note.lines().nth(1).and_then(|line| line.parse().ok());
    size.ok_or(malformed)
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
    use signed_note::{Note, StandardVerifier, VerifierList};

    use super::*;
    use crate::frontier::Frontier;

    /// A log's key, for tests.
    pub(crate) struct Key(Ed25519KeyPair);

    impl Key {
        pub fn new(seed: u8) -> Self {
            Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
        }

        pub fn public(&self) -> [u8; 32] {
            self.0.public_key().as_ref().try_into().unwrap()
        }

        pub fn sign(&self, text: &[u8]) -> [u8; 64] {
            self.0.sign(text).as_ref().try_into().unwrap()
        }

        pub fn checkpoint(&self, origin: &str, tree: &Frontier) -> String {
            sign(origin, tree.size(), &tree.root(), &self.public(), |text| self.sign(text)).unwrap()
        }
    }

    pub(crate) fn log() -> String {
        origin(VaultId([0x11; 16]), TenantId([0x22; 16]), 0, 1)
    }

    fn tree() -> Frontier {
        let mut tree = Frontier::new();
        [b"a", b"b", b"c"].iter().for_each(|leaf| tree.push(*leaf));
        tree
    }

    /// The block of FORMAT.md that is marked with a word.
    pub(crate) fn vector(word: &str) -> String {
        let page = include_str!("FORMAT.md");
        let (_, after) = page.split_once(&format!("```{word}\n")).unwrap();
        after.split_once("```").unwrap().0.to_owned()
    }

    /// Changes every byte of a note, and sees that it is noticed.
    pub(crate) fn is_noticed_wherever_it_is_changed(note: &str, is_noticed: impl Fn(&str) -> bool) {
        for at in 0..note.len() {
            let mut bytes = note.to_owned().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(is_noticed(&changed), "byte {at}");
            }
        }
    }

    #[test]
    fn a_checkpoint_is_written_as_specified() {
        let key = Key::new(7);
        assert_eq!(key.checkpoint(&log(), &tree()), vector("checkpoint"));
        assert_eq!(vkey(&log(), &key.public()), vector("vkey").trim());
    }

    #[test]
    fn the_specified_frontier_is_written_as_specified() {
        let written = data_encoding::HEXLOWER.encode(&tree().to_bytes());
        assert!(include_str!("FORMAT.md").contains(&format!("`{written}`")));
    }

    #[test]
    fn other_verifiers_accept_a_checkpoint() {
        let key = Key::new(1);
        let text = key.checkpoint(&log(), &tree());
        let note = Note::from_bytes(text.as_bytes()).unwrap();
        let verifier = StandardVerifier::new(&vkey(&log(), &key.public())).unwrap();
        let (verified, others) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
        assert_eq!((verified.len(), others.len()), (1, 0));
        UnparsedPublicKey::new(&ED25519, key.public()).verify(note.text(), verified[0].signature()).unwrap();
        assert_eq!(TreeHead::from_bytes(note.text()).unwrap().size(), 3);
    }

    #[test]
    fn a_checkpoint_says_what_was_signed() {
        let key = Key::new(1);
        let vkey = vkey(&log(), &key.public());
        let checkpoint = verify(&key.checkpoint(&log(), &tree()), &[&vkey]).unwrap();
        assert_eq!(checkpoint, Checkpoint { origin: log(), size: 3, root: tree().root() });
        assert_eq!(claimed_size(&key.checkpoint(&log(), &tree())), Ok(3));
        assert!(claimed_size("log\nmany\n").is_err() && claimed_size("").is_err());
    }

    #[test]
    fn a_checkpoint_by_another_key_is_refused() {
        let note = Key::new(1).checkpoint(&log(), &tree());
        let other = vkey(&log(), &Key::new(2).public());
        assert_eq!(verify(&note, &[&other]), Err(LedgerError::Unsigned));
        assert_eq!(verify(&note, &[]), Err(LedgerError::Unsigned));
    }

    #[test]
    fn one_key_of_a_set_is_enough_and_may_be_given_twice() {
        let key = Key::new(1);
        let (old, new) = (vkey(&log(), &Key::new(2).public()), vkey(&log(), &key.public()));
        assert!(verify(&key.checkpoint(&log(), &tree()), &[&old, &new, &new]).is_ok());
    }

    fn by_both(old: &Key, new: &Key) -> String {
        let (tree, keys) = (tree(), [new, old]);
        sign_all(&log(), tree.size(), &tree.root(), &keys, |key| key.public(), |key, text| key.sign(text)).unwrap()
    }

    #[test]
    fn a_checkpoint_by_two_keys_is_written_as_specified() {
        let (old, new) = (Key::new(7), Key::new(8));
        assert_eq!(by_both(&old, &new), vector("checkpoint-by-two"));
        assert_eq!(vkey(&log(), &new.public()), vector("vkey-of-the-second").trim());
        // The line of the first key is the one that it writes alone.
        assert_eq!(vector("checkpoint-by-two").lines().last(), vector("checkpoint").lines().last());
    }

    #[test]
    fn each_of_two_keys_that_signed_is_enough_and_says_that_it_did() {
        let (old, new) = (Key::new(1), Key::new(2));
        let note = by_both(&old, &new);
        let [by_old, by_new] = [&old, &new].map(|key| vkey(&log(), &key.public()));
        let signers = |keys: &[&str]| verify_by(&note, keys).map(|(_, signers)| signers);
        assert_eq!(signers(&[&by_old]), Ok(vec![by_old.clone()]));
        assert_eq!(signers(&[&by_new]), Ok(vec![by_new.clone()]));
        assert_eq!(signers(&[&by_old, &by_new]), Ok(vec![by_new.clone(), by_old.clone()]));
        assert_eq!(signers(&[&vkey(&log(), &Key::new(3).public())]), Err(LedgerError::Unsigned));
        assert_eq!(signatures(&note, &log()), 2);
        assert_eq!(signatures(&old.checkpoint(&log(), &tree()), &log()), 1);
        assert_eq!(claimed(&note), verify(&note, &[&by_old]));
        // Others read it as they read any note.
        let read = Note::from_bytes(note.as_bytes()).unwrap();
        let verifier = StandardVerifier::new(&by_old).unwrap();
        let (known, others) = read.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
        assert_eq!((known.len(), others.len()), (1, 1));
        // A signature by a known key that does not fit is refused, whatever the other says.
        let (text, lines) = note.split_once("\n\n").unwrap();
        let (first, second) = lines.split_once('\n').unwrap();
        let end = first.len() - 8;
        let spoilt = format!("{text}\n\n{}AAAA{}\n{second}", &first[..end], &first[end + 4..]);
        assert_eq!(verify(&spoilt, &[&by_old, &by_new]), Err(LedgerError::Signature));
        assert!(verify(&spoilt, &[&by_old]).is_ok());
    }

    #[test]
    fn a_signature_by_the_wrong_key_among_several_never_leaves() {
        let (keys, tree) = ([Key::new(1), Key::new(2)], tree());
        let wrong =
            |key: &Key, text: &[u8]| if key.public() == keys[1].public() { keys[0].sign(text) } else { key.sign(text) };
        assert_eq!(sign_all(&log(), tree.size(), &tree.root(), &keys, Key::public, wrong), Err(LedgerError::Signature));
        let none: [Key; 0] = [];
        assert!(sign_all(&log(), tree.size(), &tree.root(), &none, Key::public, Key::sign).is_err());
    }

    #[test]
    fn every_changed_byte_of_a_checkpoint_is_noticed() {
        let key = Key::new(1);
        let vkey = vkey(&log(), &key.public());
        let note = key.checkpoint(&log(), &tree());
        is_noticed_wherever_it_is_changed(&note, |changed| verify(changed, &[&vkey]).is_err());
    }

    #[test]
    fn a_key_of_another_name_does_not_speak_for_a_log() {
        let key = Key::new(1);
        let text = "strongroom/other/0/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
        let note = note::sign("witness", text, &key.public(), |text| key.sign(text)).unwrap();
        assert_eq!(verify(&note, &[&vkey("witness", &key.public())]), Err(LedgerError::Origin));
    }

    #[test]
    fn a_signature_by_the_wrong_key_never_leaves() {
        let signed = sign(&log(), 0, &Frontier::new().root(), &Key::new(1).public(), |text| Key::new(2).sign(text));
        assert_eq!(signed, Err(LedgerError::Signature));
    }

    #[test]
    fn a_name_that_notes_cannot_carry_is_refused() {
        for name in ["", "a b", "a+b", "a\nb"] {
            let key = Key::new(1);
            assert_eq!(sign(name, 0, &[0; 32], &key.public(), |text| key.sign(text)), Err(LedgerError::Name));
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named_by_its_place() {
        let key = Key::new(1);
        let vkey = vkey(&log(), &key.public());
        let note = key.checkpoint(&log(), &tree());
        for bad in ["", "x", "a+b", &vkey[1..], &vkey[..vkey.len() - 4]] {
            assert_eq!(verify(&note, &[&vkey, bad]), Err(LedgerError::Key { place: 2 }));
        }
    }
}
