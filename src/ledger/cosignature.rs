//! Cosignatures (C2SP tlog-cosignature): what a witness signs, who saw each checkpoint of a log continue the one before.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};
use signed_note::{Note, Signature, Verifier, is_key_name_valid, key_id};
use tlog_tiles::Checkpoint as TreeHead;

use crate::error::LedgerError;
use crate::note;

/// Signature type of a timestamped Ed25519 cosignature in signed notes.
pub(crate) const COSIGNATURE: u8 = 0x04;
/// A time in seconds, and an Ed25519 signature.
const LENGTH: usize = 8 + 64;

/// A witness's key.
pub(crate) struct Cosigner {
    name: String,
    public: [u8; 32],
}

impl Cosigner {
    fn typed(&self) -> Vec<u8> {
        [&[COSIGNATURE], self.public.as_slice()].concat()
    }

    /// Reads a verifier key of a witness: NAME+ID+BASE64. None if it is of another kind.
    pub fn read(vkey: &str) -> Option<Self> {
        let (name, rest) = vkey.split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let typed = BASE64.decode(key.as_bytes()).ok()?;
        let (COSIGNATURE, public) = typed.split_first().map(|(kind, public)| (*kind, public))? else { return None };
        let cosigner = Self { name: name.to_owned(), public: public.try_into().ok()? };
        let same = id.len() == 8 && u32::from_str_radix(id, 16) == Ok(cosigner.key_id());
        (same && is_key_name_valid(name)).then_some(cosigner)
    }
}

impl Verifier for Cosigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        key_id(&self.name, &self.typed())
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = <&[u8; LENGTH]>::try_from(signature) else { return false };
        let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
        UnparsedPublicKey::new(&ED25519, self.public)
            .verify(&message(text, u64::from_be_bytes(*time)), signature)
            .is_ok()
    }
}

/// What is signed: the checkpoint's text behind the time at which the witness saw it.
fn message(text: &[u8], time: u64) -> Vec<u8> {
    let mut message = format!("cosignature/v1\ntime {time}\n").into_bytes();
    message.extend_from_slice(text);
    message
}

/// The verifier key of a witness: name, key id and Ed25519 public key.
pub fn vkey(name: &str, public: &[u8; 32]) -> String {
    let cosigner = Cosigner { name: name.to_owned(), public: *public };
    format!("{name}+{:08x}+{}", cosigner.key_id(), BASE64.encode(&cosigner.typed()))
}

/// Adds a witness's cosignature to a checkpoint. `time` is in seconds since 1970; `sign` gets the bytes and returns their
/// Ed25519 signature by the key whose public half is `public`. Whether the checkpoint continues the last one the witness
/// has seen to before.
pub fn cosign(
    checkpoint: &str,
    name: &str,
    public: &[u8; 32],
    time: u64,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<String, LedgerError> {
    let form = LedgerError::Note("a checkpoint has the lines origin, size and root hash");
    if !is_key_name_valid(name) || time > i64::MAX as u64 {
        return Err(LedgerError::Name);
    }
    let note = Note::from_bytes(checkpoint.as_bytes()).map_err(|_| form.clone())?;
    TreeHead::from_bytes(note.text()).map_err(|_| form.clone())?;
    let cosigner = Cosigner { name: name.to_owned(), public: *public };
    let signature = [&time.to_be_bytes()[..], &sign(&message(note.text(), time))].concat();
    if !cosigner.verify(note.text(), &signature) {
        return Err(LedgerError::Signature);
    }
    let line = Signature::new(name.to_owned(), cosigner.key_id(), signature).map_err(|_| LedgerError::Name)?;
    let line = String::from_utf8(line.to_bytes()).map_err(|_| LedgerError::Name)?;
    Ok(format!("{checkpoint}{line}"))
}

/// How many of these witnesses have cosigned a checkpoint. A key that is given under two names counts once.
pub fn witnesses(checkpoint: &str, vkeys: &[&str]) -> Result<usize, LedgerError> {
    let mut seen = BTreeSet::new();
    for (place, vkey) in (1..).zip(vkeys) {
        let cosigner = Cosigner::read(vkey.trim()).ok_or(LedgerError::Witness { place })?;
        match note::open(checkpoint, &[vkey]) {
            Ok(_) => drop(seen.insert(cosigner.public)),
            Err(LedgerError::Unsigned) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(seen.len())
}

/// How many witnesses these keys are: one that is given under two names counts once.
pub fn distinct(vkeys: &[&str]) -> Result<usize, LedgerError> {
    let read = |(place, vkey): (usize, &&str)| Cosigner::read(vkey.trim()).ok_or(LedgerError::Witness { place });
    let publics = (1..).zip(vkeys).map(read).map(|cosigner| Ok(cosigner?.public));
    Ok(publics.collect::<Result<BTreeSet<_>, LedgerError>>()?.len())
}

/// One checkpoint with all signatures of these notes, which are of the same checkpoint, that these keys verify: each once, in
/// the order in which they come. Signatures by other keys are left out.
pub fn join(checkpoints: &[&str], vkeys: &[&str]) -> Result<String, LedgerError> {
    let mut joined: Option<(String, Vec<Signature>)> = None;
    for checkpoint in checkpoints {
        let (text, verified) = note::verified(checkpoint, vkeys)?;
        let (first, signatures) = joined.get_or_insert_with(|| (text.clone(), Vec::new()));
        if *first != text {
            return Err(LedgerError::Note("cosignatures of one checkpoint are expected"));
        }
        for signature in verified {
            let same = |known: &Signature| (known.name(), known.id()) == (signature.name(), signature.id());
            if !signatures.iter().any(same) {
                signatures.push(signature);
            }
        }
    }
    let (text, signatures) = joined.ok_or(LedgerError::Unsigned)?;
    let note =
        Note::new(text.as_bytes(), &signatures).map_err(|_| LedgerError::Note("its lines must be plain text"))?;
    String::from_utf8(note.to_bytes()).map_err(|_| LedgerError::Note("its lines must be plain text"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::tests::{Key, log};
    use crate::checkpoint::{self};
    use crate::frontier::Frontier;

    const TIME: u64 = 1_679_315_147;

    fn tree() -> Frontier {
        let mut tree = Frontier::new();
        [b"a", b"b", b"c"].iter().for_each(|leaf| tree.push(*leaf));
        tree
    }

    fn seen_by(note: &str, witness: &Key, name: &str) -> String {
        cosign(note, name, &witness.public(), TIME, |text| witness.sign(text)).unwrap()
    }

    #[test]
    fn signatures_of_one_checkpoint_are_joined_and_those_of_strangers_left_out() {
        let (log_key, one, two, stranger) = (Key::new(1), Key::new(2), Key::new(3), Key::new(4));
        let note = log_key.checkpoint(&log(), &tree());
        let own = checkpoint::vkey(&log(), &log_key.public());
        let (first, second) = (vkey("w.example/1", &one.public()), vkey("w.example/2", &two.public()));
        assert_eq!(distinct(&[&first, &second, &first, &vkey("w.example/3", &one.public())]), Ok(2));
        assert_eq!(distinct(&[&first, &own]), Err(LedgerError::Witness { place: 2 }));
        let by_one = seen_by(&seen_by(&note, &stranger, "w.example/9"), &one, "w.example/1");
        let by_two = seen_by(&note, &two, "w.example/2");
        let keys = [own.as_str(), first.as_str(), second.as_str()];
        let joined = join(&[&by_one, &by_two, &by_one], &keys).unwrap();
        assert_eq!(witnesses(&joined, &[&first, &second]), Ok(2));
        assert_eq!(joined.lines().filter(|line| line.starts_with('\u{2014}')).count(), 3, "{joined}");
        assert!(!joined.contains("w.example/9"));
        assert_eq!(checkpoint::verify(&joined, &[&own]).unwrap().size, 3);
        // Of another checkpoint, and of nobody who is known.
        let mut longer = tree();
        longer.push(b"d");
        let other = seen_by(&log_key.checkpoint(&log(), &longer), &two, "w.example/2");
        assert!(join(&[&by_one, &other], &keys).is_err());
        assert_eq!(join(&[&by_two], &[&first]), Err(LedgerError::Unsigned));
        assert_eq!(join(&[], &keys), Err(LedgerError::Unsigned));
    }

    #[test]
    fn witnesses_are_counted_by_their_keys() {
        let (log_key, one, two) = (Key::new(1), Key::new(2), Key::new(3));
        let note = log_key.checkpoint(&log(), &tree());
        let (first, second) = (vkey("w.example/1", &one.public()), vkey("w.example/2", &two.public()));
        assert_eq!(witnesses(&note, &[&first, &second]), Ok(0));
        let note = seen_by(&note, &one, "w.example/1");
        assert_eq!(witnesses(&note, &[&first, &second]), Ok(1));
        let note = seen_by(&note, &two, "w.example/2");
        assert_eq!(witnesses(&note, &[&first, &second]), Ok(2));
        let note = seen_by(&note, &one, "w.example/again");
        assert_eq!(witnesses(&note, &[&first, &vkey("w.example/again", &one.public())]), Ok(1));
        // The log's own word is what it was.
        let own = checkpoint::vkey(&log(), &log_key.public());
        assert_eq!(checkpoint::verify(&note, &[&own, &first]).unwrap().size, 3);
        assert!(witnesses(&note, &[&own]).is_err());
    }

    #[test]
    fn a_witness_that_has_the_logs_name_does_not_speak_for_the_log() {
        let (log_key, witness) = (Key::new(1), Key::new(2));
        let note = log_key.checkpoint(&log(), &tree());
        let (text, _) = note.split_once("\n\n").unwrap();
        // A checkpoint that nobody but the witness has signed.
        let cosigned = seen_by(&note, &witness, &log());
        let line = cosigned.strip_prefix(&note).unwrap();
        let alone = format!("{text}\n\n{line}");
        let vkey = vkey(&log(), &witness.public());
        assert_eq!(witnesses(&alone, &[&vkey]), Ok(1));
        assert_eq!(checkpoint::verify(&alone, &[&vkey]), Err(LedgerError::Origin));
    }

    #[test]
    fn what_a_witness_signs_is_as_specified() {
        let witness = Key::new(2);
        let note = Key::new(1).checkpoint(&log(), &tree());
        let text = note.split_once("\n\n").unwrap().0;
        let mut signed = Vec::new();
        let sign = |bytes: &[u8]| {
            signed = bytes.to_vec();
            witness.sign(bytes)
        };
        cosign(&note, "w.example/1", &witness.public(), TIME, sign).unwrap();
        assert_eq!(signed, format!("cosignature/v1\ntime {TIME}\n{text}\n").into_bytes());
        let page = include_str!("FORMAT.md");
        assert!(page.contains(seen_by(&note, &witness, "w.example/1").lines().last().unwrap()));
        assert!(page.contains(&vkey("w.example/1", &witness.public())));
    }

    #[test]
    fn a_cosignature_that_was_changed_or_is_by_another_key_is_refused() {
        let (one, other) = (Key::new(2), Key::new(3));
        let note = Key::new(1).checkpoint(&log(), &tree());
        let wrong = cosign(&note, "w.example/1", &one.public(), TIME, |text| other.sign(text));
        assert_eq!(wrong, Err(LedgerError::Signature));
        let key = vkey("w.example/1", &one.public());
        let cosigned = seen_by(&note, &one, "w.example/1");
        let later = cosigned.replacen("\n3\n", "\n4\n", 1);
        assert!(witnesses(&later, &[&key]).is_err());
        for name in ["", "a b", "a+b"] {
            assert_eq!(cosign(&note, name, &one.public(), TIME, |text| one.sign(text)), Err(LedgerError::Name));
        }
        assert!(cosign("no note", "w", &one.public(), TIME, |text| one.sign(text)).is_err());
        for bad in ["", "x", "a+b", &key[1..], &key[..key.len() - 4]] {
            assert_eq!(witnesses(&cosigned, &[&key, bad]), Err(LedgerError::Witness { place: 2 }));
        }
    }

    proptest! {
        #[test]
        fn nothing_that_claims_to_be_a_cosignature_panics(text in "\\PC{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let cosigner = Cosigner { name: "w".to_owned(), public: Key::new(2).public() };
            prop_assert!(!cosigner.verify(text.as_bytes(), &bytes));
            prop_assert!(Cosigner::read(&text).is_none());
        }
    }
}
