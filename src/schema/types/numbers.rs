//! Numbers and days.

use time::{Date, Month};

use super::{Secret, all_digits};
use crate::error::Violation;

const MAX_DIGITS: usize = 40;

/// A whole number without a plus or needless zeros.
pub(super) fn integer(text: &str) -> Result<Secret, Violation> {
    let (negative, digits) = signed(text);
    if digits.is_empty() || digits.len() > MAX_DIGITS || !all_digits(digits) {
        let message = format!("a whole number has 1 to {MAX_DIGITS} digits 0-9, with - or + before them if need be");
        return Err(Violation::new("integer", message));
    }
    Ok(number(negative, digits, ""))
}

/// A number with a point, without a plus, needless zeros or a needless point.
pub(super) fn decimal(text: &str) -> Result<Secret, Violation> {
    let (negative, digits) = signed(text);
    let (whole, part) = match digits.split_once('.') {
        Some((whole, part)) if !part.is_empty() => (whole, part),
        Some(_) => ("", ""),
        None => (digits, ""),
    };
    if whole.is_empty() || whole.len() + part.len() > MAX_DIGITS || !all_digits(whole) || !all_digits(part) {
        let message =
            format!("a decimal number has up to {MAX_DIGITS} digits 0-9, on both sides of a point if there is one");
        return Err(Violation::new("decimal", message));
    }
    Ok(number(negative, whole, part))
}

fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn number(negative: bool, whole: &str, part: &str) -> Secret {
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let mut text = Secret::new(String::with_capacity(whole.len() + part.len() + 3));
    if negative && !(whole.is_empty() && part.is_empty()) {
        text.push('-');
    }
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if !part.is_empty() {
        text.push('.');
        text.push_str(part);
    }
    text
}

/// A day, ISO 8601.
pub(super) fn date(text: &str) -> Result<Secret, Violation> {
    let wrong = || Violation::new("date", "a date is a real day written YYYY-MM-DD");
    let parts = match text.as_bytes() {
        [year @ .., b'-', m1, m2, b'-', d1, d2] if year.len() == 4 => {
            [year, [*m1, *m2].as_slice(), [*d1, *d2].as_slice()].map(digits)
        }
        _ => return Err(wrong()),
    };
    let [Some(year), Some(month), Some(day)] = parts else { return Err(wrong()) };
    if year == 0 || !is_day(year, month, day) {
        return Err(wrong());
    }
    Ok(Secret::new(text.to_owned()))
}

/// Whether there was or will be such a day.
pub(super) fn is_day(year: u16, month: u16, day: u16) -> bool {
    let (Ok(month), Ok(day)) = (u8::try_from(month), u8::try_from(day)) else { return false };
    Month::try_from(month).is_ok_and(|month| Date::from_calendar_date(year.into(), month, day).is_ok())
}

/// The number that up to four digits stand for.
pub(super) fn digits(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |sum, digit| {
        digit.is_ascii_digit().then_some(())?;
        sum.checked_mul(10)?.checked_add(u16::from(digit - b'0'))
    })
}
