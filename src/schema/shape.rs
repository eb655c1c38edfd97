//! Token formats, and how tokens that are not opaque get their shape.
//!
//! | format | looks like | bits |
//! | --- | --- | --- |
//! | `opaque` | `srt1_` and 22 base-62 digits | 128 |
//! | `opaque_base32` | `srt1_` and 26 base-32 digits; survives folding of case | 128 |
//! | `uuid` | a random UUID, version 4 | 122 |
//! | `digits` | as many digits as the value has, 10 to 40, the first not zero | 3.3 a digit |
//! | `card` | a card's first six and last four digits, the others random; never passes Luhn | 3.3 a random digit |
//! | `email` | 22 base-62 digits and `@token.invalid` (RFC 2606) | 128 |
//!
//! What must hold: no shaped token parses as opaque, and where the type has a check digit or a fixed form, no token
//! is a valid value of it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Violation;
use crate::token::base62;
use crate::types::{FieldType, Secret, accounts, utf8};

/// The fewest digits that a `digits` token may have: 9 * 10^9 possibilities.
const MIN_DIGITS: usize = 10;
/// The most, so that 256 random bits choose them all without a noticeable bias.
const MAX_DIGITS: usize = 40;
/// The fewest digits of a `card` token that may be random.
const MIN_CARD_DIGITS: usize = 6;
const CARD_FIRST: usize = 6;
const CARD_LAST: usize = 4;
/// How often the middle of a card is drawn until it fails Luhn; one in ten passes.
const CARD_DRAWS: usize = 8;

/// What a field's tokens look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TokenFormat {
    /// The vault's own form, in base 62.
    #[default]
    #[serde(rename = "opaque")]
    Opaque,
    /// The vault's own form, in base 32.
    #[serde(rename = "opaque_base32")]
    OpaqueBase32,
    /// A random UUID.
    #[serde(rename = "uuid")]
    Uuid,
    /// Random digits, as many as the value has.
    #[serde(rename = "digits")]
    Digits,
    /// A card's number with a random middle that fails Luhn.
    #[serde(rename = "card")]
    Card,
    /// A random address at `token.invalid`.
    #[serde(rename = "email")]
    Email,
}

impl TokenFormat {
    /// Whether the token is found by decrypting it, not through an index.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Opaque | Self::OpaqueBase32)
    }

    /// How many bits of randomness (rounded down) a token of a value with so many digits has at least; other formats
    /// mind no length. Of an opaque token, the bits of the encrypted block. Zero where such a token can't be made.
    pub fn bits(self, digits: usize) -> u32 {
        let ten_to = |count: usize| f64::from(u32::try_from(count).unwrap_or_default()) * std::f64::consts::LOG2_10;
        let bits = match self {
            Self::Opaque | Self::OpaqueBase32 | Self::Email => 128.0,
            Self::Uuid => 122.0,
            // The first digit is 2 to 9 for some types: three bits.
            Self::Digits if (MIN_DIGITS..=MAX_DIGITS).contains(&digits) => ten_to(digits - 1) + 3.0,
            // One in ten passes Luhn and is drawn again.
            Self::Card if (CARD_FIRST + MIN_CARD_DIGITS + CARD_LAST..=19).contains(&digits) => {
                ten_to(digits - CARD_FIRST - CARD_LAST) + 0.9f64.log2()
            }
            Self::Digits | Self::Card => 0.0,
        };
        // Between 0 and 200.
        bits as u32
    }

    /// A token for a value. The opaque formats have no shape to draw and are refused.
    pub(crate) fn shape(self, kind: FieldType, value: &[u8], random: &[u8; 32]) -> Result<String, Violation> {
        match self {
            Self::Opaque | Self::OpaqueBase32 => {
                Err(Violation::new("token_opaque", "an opaque token is made from a row, not from a value"))
            }
            Self::Uuid => Ok(uuid::Builder::from_random_bytes(half(random)).into_uuid().to_string()),
            Self::Email => Ok(format!("{}@token.invalid", base62(u128::from_be_bytes(half(random))))),
            Self::Digits => digits(kind, &normal(kind, value)?, Chance::new(random)),
            Self::Card => card(&normal(kind, value)?, Chance::new(random)),
        }
    }
}

fn normal(kind: FieldType, value: &[u8]) -> Result<Secret, Violation> {
    kind.normal_text(utf8(value)?)
}

fn half(random: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&random[..16]);
    half
}

fn digits(kind: FieldType, normal: &str, mut chance: Chance) -> Result<String, Violation> {
    let count = normal.bytes().filter(u8::is_ascii_digit).count();
    if count < MIN_DIGITS {
        let message = format!("a token of digits needs a value of at least {MIN_DIGITS} digits");
        return Err(Violation::new("too_few_bits", message));
    }
    if count > MAX_DIGITS {
        let message = format!("a token of digits needs a value of at most {MAX_DIGITS} digits");
        return Err(Violation::new("too_long", message));
    }
    let mut token = vec![b'0'; count];
    for digit in &mut token {
        *digit += chance.below(10);
    }
    // No mobile number begins with 2 to 9; elsewhere only a leading zero could get lost.
    token[0] = b'0' + if kind == FieldType::CnMobile { 2 + chance.below(8) } else { 1 + chance.below(9) };
    // A check digit has one right value, so one of two neighbours is wrong.
    if token == normal.as_bytes() || is_valid(kind, &token) {
        bump(&mut token, count - 1);
    }
    Ok(token.into_iter().map(char::from).collect())
}

fn is_valid(kind: FieldType, token: &[u8]) -> bool {
    matches!(kind, FieldType::BankCard | FieldType::CnIdCard) && kind.check(token).is_ok()
}

fn card(normal: &str, mut chance: Chance) -> Result<String, Violation> {
    let mut token = Zeroizing::new(normal.as_bytes().to_vec());
    let middle = match token.len().checked_sub(CARD_FIRST + CARD_LAST) {
        Some(count) if count >= MIN_CARD_DIGITS => CARD_FIRST..CARD_FIRST + count,
        _ => {
            let least = CARD_FIRST + MIN_CARD_DIGITS + CARD_LAST;
            let message = format!("a card-shaped token needs a card number of at least {least} digits");
            return Err(Violation::new("too_few_bits", message));
        }
    };
    for _ in 0..CARD_DRAWS {
        for digit in &mut token[middle.clone()] {
            *digit = b'0' + chance.below(10);
        }
        if !accounts::luhn(&token) {
            break;
        }
    }
    if accounts::luhn(&token) {
        bump(&mut token, middle.start);
    }
    Ok(token.iter().copied().map(char::from).collect())
}

/// The next digit, and 0 after 9.
fn bump(digits: &mut [u8], place: usize) {
    digits[place] = if digits[place] == b'9' { b'0' } else { digits[place] + 1 };
}

/// Random numbers below small bounds, drawn from one large random number.
///
/// Dividing by the bound leaves a remainder whose bias is below bound / 2^(bits left). The 40 digits of `digits` leave
/// 123 of 256 bits; eight draws of the nine digits of a card leave 16, and need luck of one in ten million.
struct Chance(Zeroizing<[u8; 32]>);

impl Chance {
    fn new(random: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*random))
    }

    /// The next number below a bound of at most 255.
    fn below(&mut self, bound: u8) -> u8 {
        let bound = u16::from(bound);
        let mut rest = 0u16;
        for byte in self.0.iter_mut() {
            let part = rest * 256 + u16::from(*byte);
            // The rest is below the bound, so the quotient fits a byte and the next rest does too.
            *byte = (part / bound) as u8;
            rest = part % bound;
        }
        rest as u8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::{ParsedToken, Token};
    use crate::types::{accounts::samples::bank_card, china::samples};

    fn is_shaped(token: &str) -> bool {
        Token::parse(token) == Ok(ParsedToken::Shaped(token))
    }

    #[test]
    fn bits_are_stated_for_each_format() {
        assert_eq!(TokenFormat::Opaque.bits(0), 128);
        assert_eq!(TokenFormat::Uuid.bits(0), 122);
        assert_eq!(TokenFormat::Digits.bits(9), 0);
        assert_eq!(TokenFormat::Digits.bits(11), 36);
        assert_eq!(TokenFormat::Digits.bits(41), 0);
        assert_eq!(TokenFormat::Card.bits(15), 0);
        assert_eq!(TokenFormat::Card.bits(16), 19);
        assert_eq!(TokenFormat::Card.bits(19), 29);
    }

    #[test]
    fn a_value_with_too_few_digits_gets_no_token_of_digits() {
        let too_few = TokenFormat::Digits.shape(FieldType::Text, b"12345 6789", &[7; 32]).unwrap_err();
        assert_eq!(too_few.rule, "too_few_bits");
        let too_many = TokenFormat::Digits.shape(FieldType::Text, &[b'1'; 41], &[7; 32]).unwrap_err();
        assert_eq!(too_many.rule, "too_long");
        assert!(TokenFormat::Digits.shape(FieldType::Text, &[b'1'; 40], &[7; 32]).is_ok());
    }

    #[test]
    fn a_drawn_number_has_every_value_about_equally_often() {
        let mut counts = [0u32; 10];
        for seed in 0u32..1_000 {
            let mut random = [0; 32];
            random[28..].copy_from_slice(&seed.to_be_bytes());
            let mut chance = Chance::new(&random);
            for _ in 0..3 {
                counts[usize::from(chance.below(10))] += 1;
            }
        }
        assert_eq!(counts, [300; 10]);
    }

    proptest! {
        #[test]
        fn a_card_token_keeps_both_ends_and_fails_luhn(card in bank_card(16..=19), random: [u8; 32]) {
            let token = TokenFormat::Card.shape(FieldType::BankCard, card.as_bytes(), &random).unwrap();
            prop_assert_eq!(token.len(), card.len());
            prop_assert_eq!(&token[..6], &card[..6]);
            prop_assert_eq!(&token[token.len() - 4..], &card[card.len() - 4..]);
            prop_assert!(!accounts::luhn(token.as_bytes()));
            prop_assert!(is_shaped(&token));
        }

        #[test]
        fn a_short_card_gets_no_card_token(card in bank_card(12..=15), random: [u8; 32]) {
            let refused = TokenFormat::Card.shape(FieldType::BankCard, card.as_bytes(), &random).unwrap_err();
            prop_assert_eq!(refused.rule, "too_few_bits");
        }

        #[test]
        fn a_token_of_digits_has_the_length_of_the_value_and_is_no_valid_one(
            (kind, value) in prop_oneof![
                samples::mobile().prop_map(|value| (FieldType::CnMobile, value)),
                samples::id_card().prop_map(|value| (FieldType::CnIdCard, value)),
                bank_card(12..=19).prop_map(|value| (FieldType::BankCard, value)),
            ],
            random: [u8; 32],
        ) {
            let token = TokenFormat::Digits.shape(kind, value.as_bytes(), &random).unwrap();
            prop_assert_eq!(token.len(), value.bytes().filter(u8::is_ascii_digit).count());
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_digit()) && !token.starts_with('0'));
            prop_assert!(kind.check(token.as_bytes()).is_err());
            prop_assert!(is_shaped(&token));
        }

        #[test]
        fn no_shaped_token_parses_as_opaque(random: [u8; 32], value in "[ -~]{1,60}") {
            for format in [TokenFormat::Uuid, TokenFormat::Digits, TokenFormat::Email] {
                if let Ok(token) = format.shape(FieldType::Text, value.as_bytes(), &random) {
                    prop_assert!(is_shaped(&token));
                }
            }
        }

        #[test]
        fn a_uuid_token_is_a_random_one(random: [u8; 32]) {
            let token = TokenFormat::Uuid.shape(FieldType::Bytes, b"x", &random).unwrap();
            prop_assert_eq!(uuid::Uuid::parse_str(&token).unwrap().get_version_num(), 4);
        }
    }
}
