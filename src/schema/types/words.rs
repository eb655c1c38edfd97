//! Words: names, addresses, email addresses, JSON.

use email_address::EmailAddress;
use serde::de::IgnoredAny;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::Secret;
use crate::error::Violation;

const MAX_NAME: usize = 256;
/// RFC 5321 section 4.5.3.1.3: a path has at most 256 bytes, two of them its brackets.
const MAX_EMAIL: usize = 254;

/// Characters that stand for the middle dot in transcribed names, and the one they become.
const MIDDLE_DOTS: [char; 5] = ['\u{2022}', '\u{2027}', '\u{22c5}', '\u{30fb}', '\u{ff65}'];
const MIDDLE_DOT: char = '\u{b7}';

/// NFC, Unicode standard annex 15.
pub(crate) fn nfc(text: &str) -> Secret {
    if is_nfc(text) { Secret::new(text.to_owned()) } else { Secret::new(text.nfc().collect()) }
}

pub(super) fn check_name(text: &str) -> Result<(), Violation> {
    if text.chars().nth(MAX_NAME).is_some() {
        return Err(Violation::new("too_long", format!("a name has at most {MAX_NAME} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Violation::new("control_character", "a name has no control characters"));
    }
    not_blank(text)
}

/// A name: NFC, no outer spaces, single inner ones, one kind of middle dot (`阿里·买买提`).
pub(super) fn name(text: &str) -> Result<Secret, Violation> {
    check_name(text)?;
    let dotted = Secret::new(text.chars().map(|c| if MIDDLE_DOTS.contains(&c) { MIDDLE_DOT } else { c }).collect());
    Ok(single_spaced(&nfc(&dotted)))
}

pub(super) fn check_address(text: &str) -> Result<(), Violation> {
    if text.chars().any(|character| character.is_control() && !character.is_whitespace()) {
        return Err(Violation::new("control_character", "an address has no control characters but tabs and line ends"));
    }
    not_blank(text)
}

/// An address: NFC on one line, single inner spaces.
pub(super) fn address(text: &str) -> Result<Secret, Violation> {
    check_address(text)?;
    Ok(single_spaced(&nfc(text)))
}

/// An email address: NFC, the domain in lower case. Only the domain's owner knows whether the part before the `@`
/// minds its case (RFC 5321 section 2.4), so that part stays.
pub(super) fn email(text: &str) -> Result<Secret, Violation> {
    let not_email = || Violation::new("email", "an email address looks like name@example.com");
    if text.len() > MAX_EMAIL {
        return Err(Violation::new("too_long", format!("an email address has at most {MAX_EMAIL} bytes")));
    }
    let text = nfc(text);
    let (local, domain) = text.rsplit_once('@').ok_or_else(not_email)?;
    let lower = nfc(&Secret::new(domain.to_lowercase()));
    let quoted = local.starts_with('"') || lower.starts_with('[');
    if quoted || !lower.contains('.') || !EmailAddress::is_valid_local_part(local) {
        return Err(not_email());
    }
    let normal = Secret::new(format!("{local}@{}", lower.as_str()));
    if normal.len() > MAX_EMAIL || !EmailAddress::is_valid_domain(&lower) {
        return Err(not_email());
    }
    Ok(normal)
}

/// Refuses what is not one JSON document. Documents are compared byte by byte: numbers have no agreed normal form.
pub(super) fn json(text: &str) -> Result<(), Violation> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        // The parser's own message may quote the value.
        Err(_) => Err(Violation::new("json", "a value of this type is one JSON document")),
    }
}

fn not_blank(text: &str) -> Result<(), Violation> {
    if text.chars().all(char::is_whitespace) {
        return Err(Violation::new("empty", "a value of this type is more than spaces"));
    }
    Ok(())
}

fn single_spaced(text: &str) -> Secret {
    let mut spaced = Secret::new(String::with_capacity(text.len()));
    for word in text.split_whitespace() {
        if !spaced.is_empty() {
            spaced.push(' ');
        }
        spaced.push_str(word);
    }
    spaced
}
