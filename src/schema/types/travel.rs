//! Telephone numbers and passports of any country.

use super::{Secret, all_digits, without};
use crate::error::Violation;

/// A telephone number: ITU-T E.164 allows 15 digits. `00` is read as `+`.
pub(super) fn phone(text: &str) -> Result<Secret, Violation> {
    let bare = without(text, &[' ', '-', '(', ')', '.', '\u{2010}']);
    let (plus, digits) = match bare.strip_prefix('+').or_else(|| bare.strip_prefix("00")) {
        Some(digits) => ("+", digits),
        None => ("", bare.as_str()),
    };
    if !(5..=15).contains(&digits.len()) || !all_digits(digits) || (plus == "+" && digits.starts_with('0')) {
        let message = "a telephone number has 5 to 15 digits, and + before the country's code if there is one";
        return Err(Violation::new("phone", message));
    }
    Ok(Secret::new(format!("{plus}{digits}")))
}

/// A passport's number: letters and digits, in upper case.
pub(super) fn passport(text: &str) -> Result<Secret, Violation> {
    let fits = (5..=15).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_digit());
    if !fits {
        let message = "a passport number has 5 to 15 letters A-Z and digits, at least one of them a digit";
        return Err(Violation::new("passport", message));
    }
    Ok(Secret::new(text.to_ascii_uppercase()))
}
