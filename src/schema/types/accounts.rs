//! Account identifiers: payment cards, IBAN, United States social security numbers.

use super::{Secret, all_digits, without};
use crate::error::Violation;

/// A payment card's number, digits only.
pub(super) fn bank_card(text: &str) -> Result<Secret, Violation> {
    let digits = without(text, &[' ', '-', '\u{2010}']);
    if !(12..=19).contains(&digits.len()) || !all_digits(&digits) {
        return Err(Violation::new(
            "bank_card",
            "a card number has 12 to 19 digits, with spaces or hyphens if need be",
        ));
    }
    if !luhn(digits.as_bytes()) {
        let message = "the last digit of the card number does not follow from the others: one is mistyped";
        return Err(Violation::new("luhn", message));
    }
    Ok(digits)
}

/// Whether the last digit checks the others, ISO/IEC 7812-1 annex B.
pub(crate) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit.wrapping_sub(b'0'));
            if place % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// An IBAN in upper case, without spaces.
pub(super) fn iban(text: &str) -> Result<Secret, Violation> {
    let mut compact = without(text, &[' ']);
    compact.make_ascii_uppercase();
    let wrong = |rule, message: &str| Err(Violation::new(rule, message));
    match compact.parse::<iban::Iban>() {
        Ok(_) => Ok(compact),
        Err(iban::ParseIbanError::UnknownCountry(_)) => {
            wrong("country", "an IBAN begins with a country that uses them")
        }
        Err(iban::ParseIbanError::InvalidBban(_)) => {
            wrong("iban", "what follows the first four characters is not an account number of the IBAN's country")
        }
        Err(iban::ParseIbanError::InvalidBaseIban { source: iban::ParseBaseIbanError::InvalidChecksum }) => {
            wrong("check_digit", "the check digits of the IBAN do not follow from the rest: a character is mistyped")
        }
        Err(_) => wrong("iban", "an IBAN has a country, two check digits and up to 30 letters and digits"),
    }
}

/// A social security number, 9 digits. The SSA never gives out the area 000, 666 or 900 to 999, the group 00 or the
/// serial 0000.
pub(super) fn ssn(text: &str) -> Result<Secret, Violation> {
    let digits = without(text, &[' ', '-', '\u{2010}']);
    if digits.len() != 9 || !all_digits(&digits) {
        return Err(Violation::new("ssn", "a social security number has 9 digits: AAA-GG-SSSS"));
    }
    let (area, group, serial) = (&digits[..3], &digits[3..5], &digits[5..]);
    if area == "000" || area == "666" || area.starts_with('9') || group == "00" || serial == "0000" {
        return Err(Violation::new("ssn", "this social security number is one that is never given out"));
    }
    Ok(digits)
}

/// Valid identifiers, for tests of other modules too.
#[cfg(test)]
pub(crate) mod samples {
    use proptest::prelude::*;

    use super::*;

    pub fn bank_card(lengths: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
        proptest::collection::vec(b'0'..=b'9', lengths).prop_map(|mut digits| {
            let last = digits.len() - 1;
            digits[last] = (b'0'..=b'9').find(|check| luhn(&[&digits[..last], &[*check]].concat())).unwrap();
            String::from_utf8(digits).unwrap()
        })
    }

    pub fn ssn() -> impl Strategy<Value = String> {
        (1u16..900, 1u8..100, 1u16..10_000)
            .prop_filter("never given out", |(area, ..)| *area != 666)
            .prop_map(|(area, group, serial)| format!("{area:03}-{group:02}-{serial:04}"))
    }
}
