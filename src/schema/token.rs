//! The text form of tokens.
//!
//! An opaque token is one block of 128 bits and the version of the key that made it:
//!
//! ```text
//! srt<key version, decimal>_<the block as a big-endian number, in exactly 22 base-62 digits 0-9A-Za-z>
//! srt<key version, decimal>_<the same number in exactly 26 base-32 digits a-z2-7>
//! ```
//!
//! The second form is for columns that fold case: its letters, those of the prefix too, are read in either case. Each
//! form has one text for each block and version. All other tokens are *shaped*: 1 to 256 printable ASCII characters.
//! What begins like an opaque token (`srt`, digits, `_`, in any case) and is none is malformed, never shaped.

use strongroom_ids::KeyVersion;
use thiserror::Error;

/// The most bytes that a token may have.
pub const MAX_TOKEN: usize = 256;

const PREFIX: &str = "srt";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE62_DIGITS: usize = 22;
/// RFC 4648 section 6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE32_DIGITS: usize = 26;

/// Tokens, as text that somebody sent.
pub struct Token;

/// What a token's text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedToken<'a> {
    /// One of the vault's own.
    Opaque {
        /// Which version of the tenant's token key made it.
        version: KeyVersion,
        /// The block, still encrypted.
        block: [u8; 16],
    },
    /// Any other text; found through a blind index.
    Shaped(&'a str),
}

/// The digits of an opaque token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueAlphabet {
    /// 22 digits, case matters.
    Base62,
    /// 26 digits, case does not matter.
    Base32,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Nothing, or too much.
    #[error("a token has 1 to {MAX_TOKEN} bytes")]
    Length,
    /// Something other than printable ASCII.
    #[error("a token has printable ASCII characters only, and no spaces")]
    Character,
    /// It begins like an opaque token.
    #[error("what begins with \"srt\", digits and \"_\" goes on with exactly 22 base-62 or 26 base-32 digits")]
    Opaque,
}

impl Token {
    /// Reads a token's text.
    pub fn parse(text: &str) -> Result<ParsedToken<'_>, TokenError> {
        if text.is_empty() || text.len() > MAX_TOKEN {
            return Err(TokenError::Length);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Character);
        }
        let Some((prefix, version, digits)) = opaque_parts(text) else { return Ok(ParsedToken::Shaped(text)) };
        let version = key_version(version).ok_or(TokenError::Opaque)?;
        let number = match digits.len() {
            BASE62_DIGITS if prefix == PREFIX => number(digits, 62, base62_digit),
            BASE32_DIGITS => number(digits, 32, base32_digit),
            _ => None,
        };
        let block = number.ok_or(TokenError::Opaque)?.to_be_bytes();
        Ok(ParsedToken::Opaque { version, block })
    }
}

/// The text of an opaque token.
pub fn encode_opaque(version: KeyVersion, block: [u8; 16], alphabet: OpaqueAlphabet) -> String {
    let number = u128::from_be_bytes(block);
    let digits = match alphabet {
        OpaqueAlphabet::Base62 => base62(number),
        OpaqueAlphabet::Base32 => digits(number, BASE32, BASE32_DIGITS),
    };
    format!("{PREFIX}{version}_{digits}")
}

/// A number in exactly 22 base-62 digits.
pub(crate) fn base62(number: u128) -> String {
    digits(number, BASE62, BASE62_DIGITS)
}

fn digits(mut number: u128, alphabet: &[u8], count: usize) -> String {
    /// Digits that are cut off at once, in either base: fewer than 64 bits, which divide many times faster than 128.
    const CUT: usize = 10;
    let base = alphabet.len() as u64;
    let cut = u128::from(base.pow(CUT as u32));
    let mut text = vec![0; count];
    for digits in text.rchunks_mut(CUT) {
        // The remainder is below the divisor, which has 64 bits.
        let mut part = (number % cut) as u64;
        number /= cut;
        for digit in digits.iter_mut().rev() {
            // The remainder is below the alphabet's length.
            *digit = alphabet[(part % base) as usize];
            part /= base;
        }
    }
    text.into_iter().map(char::from).collect()
}

/// The three parts of what begins like an opaque token: prefix, key version, digits.
fn opaque_parts(text: &str) -> Option<(&str, &str, &str)> {
    let (prefix, rest) = text.split_at_checked(PREFIX.len())?;
    let (version, digits) = rest.split_once('_')?;
    let version_like = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    (prefix.eq_ignore_ascii_case(PREFIX) && version_like).then_some((prefix, version, digits))
}

fn key_version(text: &str) -> Option<KeyVersion> {
    if text.starts_with('0') { None } else { text.parse().ok().map(KeyVersion) }
}

/// The number that digits stand for, unless it takes more than 128 bits.
fn number(digits: &str, base: u128, value: fn(u8) -> Option<u8>) -> Option<u128> {
    digits.bytes().try_fold(0u128, |sum, digit| sum.checked_mul(base)?.checked_add(u128::from(value(digit)?)))
}

fn base62_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'Z' => Some(digit - b'A' + 10),
        b'a'..=b'z' => Some(digit - b'a' + 36),
        _ => None,
    }
}

fn base32_digit(digit: u8) -> Option<u8> {
    match digit.to_ascii_lowercase() {
        letter @ b'a'..=b'z' => Some(letter - b'a'),
        b'2'..=b'7' => Some(digit - b'2' + 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opaque(version: u32, block: [u8; 16]) -> Result<ParsedToken<'static>, TokenError> {
        Ok(ParsedToken::Opaque { version: KeyVersion(version), block })
    }

    #[test]
    fn the_ends_of_the_range_have_these_texts() {
        let most = [0xff; 16];
        let texts = [
            ([0; 16], OpaqueAlphabet::Base62, "srt1_0000000000000000000000"),
            (most, OpaqueAlphabet::Base62, "srt1_7n42DGM5Tflk9n8mt7Fhc7"),
            ([0; 16], OpaqueAlphabet::Base32, "srt1_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
            (most, OpaqueAlphabet::Base32, "srt1_h7777777777777777777777777"),
        ];
        for (block, alphabet, text) in texts {
            assert_eq!(encode_opaque(KeyVersion(1), block, alphabet), text);
            assert_eq!(Token::parse(text), opaque(1, block));
        }
    }

    #[test]
    fn what_begins_like_an_opaque_token_and_is_none_is_malformed() {
        let malformed = [
            "srt1_",
            "srt1_000000000000000000000",
            "srt1_00000000000000000000000",
            "srt1_7n42DGM5Tflk9n8mt7Fhc8",
            "srt1_zzzzzzzzzzzzzzzzzzzzzz",
            "srt1_000000000000000000000-",
            "SRT1_0000000000000000000000",
            "Srt1_0000000000000000000000",
            "srt01_0000000000000000000000",
            "srt0_0000000000000000000000",
            "srt4294967296_0000000000000000000000",
            "srt1_iaaaaaaaaaaaaaaaaaaaaaaaaa",
            "srt1_1aaaaaaaaaaaaaaaaaaaaaaaaa",
            "srt1_aaaaaaaaaaaaaaaaaaaaaaaaa=",
            "srt1__aaaaaaaaaaaaaaaaaaaaaaaaa",
        ];
        for text in malformed {
            assert_eq!(Token::parse(text), Err(TokenError::Opaque), "{text}");
        }
    }

    #[test]
    fn other_printable_texts_are_shaped() {
        for text in ["x", "srt", "srt_x", "srtx1_0", "srt1", "6222021234567890", "a_b", "srt1x_0", "sRt-1_0"] {
            assert_eq!(Token::parse(text), Ok(ParsedToken::Shaped(text)));
        }
        assert_eq!(Token::parse(""), Err(TokenError::Length));
        assert_eq!(Token::parse(&"x".repeat(257)), Err(TokenError::Length));
        assert!(Token::parse(&"x".repeat(256)).is_ok());
        for text in ["a b", "张", "a\n", "\u{7f}", "\0"] {
            assert_eq!(Token::parse(text), Err(TokenError::Character));
        }
    }

    proptest! {
        #[test]
        fn an_opaque_token_reads_back_as_it_was_written(version in 1u32.., block: [u8; 16]) {
            for alphabet in [OpaqueAlphabet::Base62, OpaqueAlphabet::Base32] {
                let text = encode_opaque(KeyVersion(version), block, alphabet);
                prop_assert_eq!(Token::parse(&text), opaque(version, block));
            }
        }

        #[test]
        fn a_base_32_token_survives_folding(version in 1u32.., block: [u8; 16]) {
            let folded = encode_opaque(KeyVersion(version), block, OpaqueAlphabet::Base32).to_ascii_uppercase();
            prop_assert_eq!(Token::parse(&folded), opaque(version, block));
        }

        #[test]
        fn what_parses_as_opaque_has_no_second_text(text in "srt[0-9]{1,3}_([0-9A-Za-z]{22}|[a-z2-7]{26})") {
            if let Ok(ParsedToken::Opaque { version, block }) = Token::parse(&text) {
                let texts = [OpaqueAlphabet::Base62, OpaqueAlphabet::Base32].map(|a| encode_opaque(version, block, a));
                prop_assert!(texts.contains(&text));
            }
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "(?s)((?i)srt[0-9]{0,12}_?)?.{0,300}") {
            let _ = Token::parse(&text);
        }
    }
}
