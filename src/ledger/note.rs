//! Signed notes (C2SP signed-note) with Ed25519 keys: what checkpoints and head files have in common.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use signed_note::{Note, NoteError, Signature, StandardVerifier, Verifier, VerifierList, is_key_name_valid, key_id};

use crate::cosignature::Cosigner;
use crate::error::LedgerError;

/// Signature type of plain Ed25519 in signed notes.
const ED25519: u8 = 0x01;

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
    signed(name, text, [(*public, sign(text.as_bytes()))])
}

/// The same with signatures by several keys, each with its public half, one line each and in this order. A verifier that
/// knows one of the keys passes over the lines of the others.
pub(crate) fn signed(
    name: &str,
    text: &str,
    signatures: impl IntoIterator<Item = ([u8; 32], [u8; 64])>,
) -> Result<String, LedgerError> {
    if !is_key_name_valid(name) {
        return Err(LedgerError::Name);
    }
    let malformed = |_| LedgerError::Note("its lines must be plain text");
    Note::new(text.as_bytes(), &[]).map_err(malformed)?;
    let (mut lines, mut vkeys) = (Vec::new(), Vec::new());
    for (public, signature) in signatures {
        let line = Signature::new(name.to_owned(), key_id(name, &typed(&public)), signature.to_vec());
        lines.push(line.map_err(|_| LedgerError::Name)?);
        vkeys.push(vkey(name, &public));
    }
    let note = Note::new(text.as_bytes(), &lines).map_err(malformed)?;
    let known: Vec<&str> = vkeys.iter().map(String::as_str).collect();
    if check(&note, &known)?.len() != lines.len() {
        return Err(LedgerError::Signature);
    }
    String::from_utf8(note.to_bytes()).map_err(|_| LedgerError::Note("its lines must be plain text"))
}

/// Verifies a note, and returns its text and the names of those among the given keys that signed it, without those of
/// witnesses: their word is about others.
pub(crate) fn open(note: &str, vkeys: &[&str]) -> Result<(String, Vec<String>), LedgerError> {
    let (text, signers) = open_by(note, vkeys)?;
    let name = |vkey: String| vkey.split('+').next().unwrap_or_default().to_owned();
    Ok((text, signers.into_iter().map(name).collect()))
}

/// The same with the keys themselves, in the order of their lines in the note.
pub(crate) fn open_by(note: &str, vkeys: &[&str]) -> Result<(String, Vec<String>), LedgerError> {
    let note = read(note)?;
    let signers = check(&note, vkeys)?;
    Ok((text(&note)?, signers))
}

/// Verifies a note that keys of logs signed under other names than the logs', and returns its text and those names. `vkeys` are
/// verifier keys as auditors hold them for checkpoints; `name` says under which name a log's key signs such notes, if it does.
pub(crate) fn open_as(
    note: &str,
    vkeys: &[&str],
    name: impl Fn(&str) -> Option<String>,
) -> Result<(String, Vec<String>), LedgerError> {
    let renamed = |vkey: &str| {
        let (log, public) = read_vkey(vkey)?;
        Some(self::vkey(&name(log)?, &public))
    };
    let own = (1..).zip(vkeys).map(|(place, vkey)| renamed(vkey.trim()).ok_or(LedgerError::Key { place }));
    let own = own.collect::<Result<Vec<String>, LedgerError>>()?;
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    open(note, &own)
}

/// The text of a note, and those of its signatures that these keys verify, also those of witnesses; at least one.
pub(crate) fn verified(note: &str, vkeys: &[&str]) -> Result<(String, Vec<Signature>), LedgerError> {
    let note = read(note)?;
    let (signatures, _) = signatures(&note, vkeys)?;
    Ok((text(&note)?, signatures))
}

/// The text of a note, whoever signed it.
pub(crate) fn claimed(note: &str) -> Result<String, LedgerError> {
    text(&read(note)?)
}

/// How many lines with signatures under a name a note has, whether they are right or not.
pub(crate) fn lines_under(note: &str, name: &str) -> usize {
    let lines = note.rsplit_once("\n\n").map_or("", |(_, lines)| lines);
    let under = |line: &&str| line.strip_prefix("\u{2014} ").and_then(|line| line.split(' ').next()) == Some(name);
    lines.lines().filter(under).count()
}

/// The name and the Ed25519 key of a verifier key. There is one way of writing it: its number must fit both.
fn read_vkey(vkey: &str) -> Option<(&str, [u8; 32])> {
    let mut parts = vkey.splitn(3, '+');
    let (name, _number, key) = (parts.next()?, parts.next()?, parts.next()?);
    let public: [u8; 32] = BASE64.decode(key.as_bytes()).ok()?.strip_prefix(&[ED25519])?.try_into().ok()?;
    (self::vkey(name, &public) == vkey).then_some((name, public))
}

/// Whether a verifier key is that of an Ed25519 key under a name, written in the one way that there is.
pub(crate) fn is_of(vkey: &str, name: &str) -> bool {
    read_vkey(vkey).is_some_and(|(known, _)| known == name)
}

fn read(note: &str) -> Result<Note, LedgerError> {
    Note::from_bytes(note.as_bytes())
        .map_err(|_| LedgerError::Note("lines of text, a blank line and lines with signatures are expected"))
}

fn text(note: &Note) -> Result<String, LedgerError> {
    String::from_utf8(note.text().to_vec()).map_err(|_| LedgerError::Note("its lines must be plain text"))
}

/// Those of the given keys that signed a note, without those of witnesses.
fn check(note: &Note, vkeys: &[&str]) -> Result<Vec<String>, LedgerError> {
    let (signatures, own) = signatures(note, vkeys)?;
    let signer = |signature: &Signature| own.get(&(signature.name().to_owned(), signature.id())).copied();
    Ok(signatures.iter().filter_map(signer).map(str::to_owned).collect())
}

/// Keys that are no witnesses', by their names and numbers.
type Own<'k> = BTreeMap<(String, u32), &'k str>;

/// The signatures that these keys verify, at least one, and which of the keys are no witnesses'.
fn signatures<'k>(note: &Note, vkeys: &[&'k str]) -> Result<(Vec<Signature>, Own<'k>), LedgerError> {
    let (mut seen, mut own) = (BTreeSet::new(), BTreeMap::new());
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
        own.insert((verifier.name().to_owned(), verifier.key_id()), vkey.trim());
        verifiers.push(Box::new(verifier));
    }
    match note.verify(&VerifierList::new(verifiers)) {
        Ok((verified, _)) => Ok((verified, own)),
        Err(NoteError::UnverifiedNote) => Err(LedgerError::Unsigned),
        Err(_) => Err(LedgerError::Signature),
    }
}
