//! Signed notes (C2SP signed-note) with one Ed25519 key: what checkpoints and head files have in common.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use signed_note::{Note, NoteError, Signature, StandardVerifier, Verifier, VerifierList, is_key_name_valid, key_id};

use crate::cosignature::Cosigner;
use crate::error::LedgerError;

/// Signature type of plain Ed25519 in signed notes.
pub(crate) const ED25519: u8 = 0x01;

/// The verifier key of a public key under a name: NAME+ID+BASE64.
pub(crate) fn vkey(name: &str, public: &[u8; 32]) -> String {
    let typed = typed(public);
    format!("{name}+{:08x}+{}", key_id(name, &typed), BASE64.encode(&typed))
}

fn typed(public: &[u8; 32]) -> Vec<u8> {
    [&[ED25519], public.as_slice()].concat()
}

/// Signs lines of text under a name. The signature is verified before it leaves: a wrong key or a fault while signing
/// is found here, and not by an auditor years later.
pub(crate) fn sign(
    name: &str,
    text: &str,
    public: &[u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<String, LedgerError> {
    if !is_key_name_valid(name) {
        return Err(LedgerError::Name);
    }
    let malformed = |_| LedgerError::Note("its lines must be plain text");
    Note::new(text.as_bytes(), &[]).map_err(malformed)?;
    let signature = Signature::new(name.to_owned(), key_id(name, &typed(public)), sign(text.as_bytes()).to_vec())
        .map_err(|_| LedgerError::Name)?;
    let note = Note::new(text.as_bytes(), &[signature]).map_err(malformed)?;
    check(&note, &[&vkey(name, public)])?;
    String::from_utf8(note.to_bytes()).map_err(|_| LedgerError::Note("its lines must be plain text"))
}

/// Verifies a note, and returns its text and the names of those among the given keys that signed it, without those of
/// witnesses: their word is about others.
pub(crate) fn open(note: &str, vkeys: &[&str]) -> Result<(String, Vec<String>), LedgerError> {
    let note = Note::from_bytes(note.as_bytes())
        .map_err(|_| LedgerError::Note("lines of text, a blank line and lines with signatures are expected"))?;
    let names = check(&note, vkeys)?;
    let text =
        String::from_utf8(note.text().to_vec()).map_err(|_| LedgerError::Note("its lines must be plain text"))?;
    Ok((text, names))
}

/// The text of a note, and those of its signatures that these keys verify; at least one.
pub(crate) fn verified(note: &str, vkeys: &[&str]) -> Result<(String, Vec<Signature>), LedgerError> {
    let note = Note::from_bytes(note.as_bytes())
        .map_err(|_| LedgerError::Note("lines of text, a blank line and lines with signatures are expected"))?;
    let (signatures, _) = signatures(&note, vkeys)?;
    let text =
        String::from_utf8(note.text().to_vec()).map_err(|_| LedgerError::Note("its lines must be plain text"))?;
    Ok((text, signatures))
}

fn check(note: &Note, vkeys: &[&str]) -> Result<Vec<String>, LedgerError> {
    let (signatures, own) = signatures(note, vkeys)?;
    let names = signatures.iter().map(|signature| (signature.name().to_owned(), signature.id()));
    Ok(names.filter(|signed| own.contains(signed)).map(|(name, _)| name).collect())
}

/// A key that is no witness's, by its name and number.
type Own = BTreeSet<(String, u32)>;

/// The signatures that these keys verify, at least one, and which of the keys are no witnesses'.
fn signatures(note: &Note, vkeys: &[&str]) -> Result<(Vec<Signature>, Own), LedgerError> {
    let (mut seen, mut own) = (BTreeSet::new(), BTreeSet::new());
    let mut verifiers: Vec<Box<dyn Verifier>> = Vec::with_capacity(vkeys.len());
    for (index, vkey) in vkeys.iter().enumerate() {
        // The same key given twice is no ambiguity.
        if !seen.insert(vkey.trim()) {
            continue;
        }
        if let Some(cosigner) = Cosigner::read(vkey.trim()) {
            verifiers.push(Box::new(cosigner));
            continue;
        }
        let verifier =
            StandardVerifier::new(vkey.trim()).map_err(|_| LedgerError::Key { place: index.saturating_add(1) })?;
        own.insert((verifier.name().to_owned(), verifier.key_id()));
        verifiers.push(Box::new(verifier));
    }
    match note.verify(&VerifierList::new(verifiers)) {
        Ok((verified, _)) => Ok((verified, own)),
        Err(NoteError::UnverifiedNote) => Err(LedgerError::Unsigned),
        Err(_) => Err(LedgerError::Signature),
    }
}
