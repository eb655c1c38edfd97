//! Chinese identifiers: identity card, mobile number, unified social credit code.

use super::numbers::{digits, is_day};
use super::{Secret, all_digits, without};
use crate::error::Violation;

/// GB 11643 section 4.4: the weights of the 17 digits before the check character.
const ID_CARD_WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
/// The check character for each remainder modulo 11.
const ID_CARD_CHECKS: &[u8; 11] = b"10X98765432";
/// GB/T 2260: the first two digits, a province or what has the rank of one. 81, 82 and 83 are the residence permits
/// of people from Hong Kong, Macao and Taiwan.
const PROVINCES: [u16; 35] = [
    11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46, 50, 51, 52, 53, 54, 61, 62, 63,
    64, 65, 71, 81, 82, 83,
];
/// Nobody who holds such a card was born before.
const FIRST_YEAR: u16 = 1900;

/// A citizen's identity number: region (6 digits), birth date (8), sequence (3), check character.
pub(super) fn id_card(text: &str) -> Result<Secret, Violation> {
    let upper = Secret::new(text.to_ascii_uppercase());
    let bytes = upper.as_bytes();
    let form = || Violation::new("id_card", "an identity number has 17 digits and then a digit or X");
    let (body, check) = match bytes {
        [body @ .., check] if body.len() == 17 && body.iter().all(u8::is_ascii_digit) => (body, *check),
        _ => return Err(form()),
    };
    if !check.is_ascii_digit() && check != b'X' {
        return Err(form());
    }
    if !digits(&body[..2]).is_some_and(|province| PROVINCES.contains(&province)) {
        return Err(Violation::new("region", "an identity number begins with the code of a province"));
    }
    let birth = [&body[6..10], &body[10..12], &body[12..14]].map(digits);
    if !matches!(birth, [Some(year), Some(month), Some(day)] if year >= FIRST_YEAR && is_day(year, month, day)) {
        let message = format!("digits 7 to 14 of an identity number are a real day, {FIRST_YEAR} or later");
        return Err(Violation::new("birth_date", message));
    }
    if id_card_check(body) != check {
        let message = "the last character of an identity number does not follow from the others: one is mistyped";
        return Err(Violation::new("check_digit", message));
    }
    Ok(upper)
}

/// The check character of 17 digits.
fn id_card_check(body: &[u8]) -> u8 {
    let sum: u32 = body.iter().zip(ID_CARD_WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    // A remainder modulo 11 is below 11.
    ID_CARD_CHECKS[(sum % 11) as usize]
}

/// A mobile number without the country's code.
pub(super) fn mobile(text: &str) -> Result<Secret, Violation> {
    let bare = without(text, &[' ', '-', '\u{2010}']);
    let digits = bare.strip_prefix("+86").or_else(|| bare.strip_prefix("0086")).unwrap_or(&bare);
    match digits.as_bytes() {
        [b'1', b'3'..=b'9', rest @ ..] if rest.len() == 9 && all_digits(digits) => Ok(Secret::new(digits.to_owned())),
        _ => {
            let message =
                "a mobile number has 11 digits and begins with 13 to 19, with +86 or 0086 before it if need be";
            Err(Violation::new("mobile", message))
        }
    }
}

/// GB 32100 table 5: the characters of a code, in the order of their values. I, O, S, V and Z are left out.
const USCC_CHARACTERS: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";

/// A unified social credit code: 17 characters and a check character.
pub(super) fn uscc(text: &str) -> Result<Secret, Violation> {
    let upper = Secret::new(text.to_ascii_uppercase());
    let values = upper.bytes().map(uscc_value).collect::<Option<Vec<u32>>>();
    let (body, check) = match values.as_deref() {
        Some([body @ .., check]) if body.len() == 17 => (body, *check),
        _ => {
            let message = "a social credit code has 18 digits and capital letters other than I, O, S, V and Z";
            return Err(Violation::new("uscc", message));
        }
    };
    if uscc_check(body) != check {
        let message = "the last character of the social credit code does not follow from the others: one is mistyped";
        return Err(Violation::new("check_digit", message));
    }
    Ok(upper)
}

fn uscc_value(character: u8) -> Option<u32> {
    USCC_CHARACTERS.iter().position(|known| *known == character).and_then(|place| u32::try_from(place).ok())
}

/// GB 32100 annex A: the weight of character i is 3^(i-1) modulo 31, and the check is what is missing to 31.
fn uscc_check(body: &[u32]) -> u32 {
    let (sum, _) = body.iter().fold((0, 1), |(sum, weight), value| ((sum + value * weight) % 31, weight * 3 % 31));
    (31 - sum) % 31
}

/// Valid identifiers, for tests of other modules too.
#[cfg(test)]
pub(crate) mod samples {
    use proptest::prelude::*;

    use super::*;

    pub fn id_card() -> impl Strategy<Value = String> {
        let birth = (1900u16..2100, 1u16..=12, 1u16..=28);
        (proptest::sample::select(&PROVINCES[..]), 0u16..10_000, birth, 0u16..1_000).prop_map(
            |(province, place, (year, month, day), sequence)| {
                let body = format!("{province:02}{place:04}{year:04}{month:02}{day:02}{sequence:03}");
                let check = char::from(id_card_check(body.as_bytes()));
                format!("{body}{check}")
            },
        )
    }

    pub fn mobile() -> impl Strategy<Value = String> {
        "1[3-9][0-9]{9}"
    }

    pub fn uscc() -> impl Strategy<Value = String> {
        proptest::collection::vec(0u32..31, 17).prop_map(|mut values| {
            values.push(uscc_check(&values));
            values.iter().map(|value| char::from(USCC_CHARACTERS[*value as usize])).collect()
        })
    }
}
