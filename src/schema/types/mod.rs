//! The types of fields: what is valid, and the normal form in which values are compared.
//!
//! | type | valid | normal form |
//! | --- | --- | --- |
//! | `bytes` | any bytes | as it is |
//! | `text` | UTF-8 | NFC |
//! | `json` | RFC 8259 | as it is |
//! | `integer` | up to 40 digits, a sign | no needless zeros or plus |
//! | `decimal` | the same with a point | no needless zeros, point or plus |
//! | `date` | `YYYY-MM-DD`, a real day | as it is |
//! | `name` | UTF-8 without control characters | NFC, single spaces, one kind of middle dot |
//! | `address` | UTF-8, lines allowed | NFC, single spaces |
//! | `email` | RFC 5321, unquoted, with a dotted domain | NFC, domain in lower case |
//! | `phone` | 5 to 15 digits, with `+` or `00`, separators | `+` if international, digits |
//! | `passport` | 5 to 15 letters and digits | upper case |
//! | `cn_id_card` | GB 11643 | half width, `X` in upper case |
//! | `cn_mobile` | 11 digits, `1[3-9]` first, with `+86` or `0086`, separators | the 11 digits |
//! | `cn_uscc` | GB 32100 | upper case |
//! | `bank_card` | 12 to 19 digits, Luhn, separators | the digits |
//! | `iban` | ISO 13616, spaces | upper case, no spaces |
//! | `ssn` | the SSA's rules, hyphens or spaces | the 9 digits |
//!
//! The types from `phone` on are identifiers: full-width digits and letters are folded to usual ones (NFKC) first.

pub(crate) mod accounts;
pub(crate) mod china;
mod numbers;
mod travel;
pub(crate) mod words;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::MAX_VALUE;
use crate::error::Violation;

/// A text that is wiped when dropped.
pub(crate) type Secret = Zeroizing<String>;

/// The most bytes of an identifier, before folding.
const MAX_IDENTIFIER: usize = 128;

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// Any UTF-8 text.
    Text,
    /// Any bytes.
    Bytes,
    /// A whole number.
    Integer,
    /// A number with a point.
    Decimal,
    /// A day, ISO 8601.
    Date,
    /// A JSON document, RFC 8259.
    Json,
    /// The name of a person or company.
    Name,
    /// A postal address.
    Address,
    /// An email address.
    Email,
    /// A telephone number of any country.
    Phone,
    /// A passport's number.
    Passport,
    /// A Chinese citizen's identity number, GB 11643.
    CnIdCard,
    /// A Chinese mobile number.
    CnMobile,
    /// A unified social credit code, GB 32100.
    CnUscc,
    /// A payment card's number, ISO/IEC 7812.
    BankCard,
    /// An international bank account number, ISO 13616.
    Iban,
    /// A United States social security number.
    Ssn,
}

impl FieldType {
    /// As a schema writes it: `cn_id_card`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Date => "date",
            Self::Json => "json",
            Self::Name => "name",
            Self::Address => "address",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Passport => "passport",
            Self::CnIdCard => "cn_id_card",
            Self::CnMobile => "cn_mobile",
            Self::CnUscc => "cn_uscc",
            Self::BankCard => "bank_card",
            Self::Iban => "iban",
            Self::Ssn => "ssn",
        }
    }

    /// Whether its values are numbers or codes that somebody gives out: of a known length and form.
    pub(crate) fn is_identifier(self) -> bool {
        matches!(
            self,
            Self::Phone
                | Self::Passport
                | Self::CnIdCard
                | Self::CnMobile
                | Self::CnUscc
                | Self::BankCard
                | Self::Iban
                | Self::Ssn
        )
    }

    /// Refuses what is not a value of this type.
    pub(crate) fn check(self, value: &[u8]) -> Result<(), Violation> {
        let text = self.bounded(value)?;
        match self {
            Self::Bytes | Self::Text => Ok(()),
            Self::Json => words::json(text),
            Self::Name => words::check_name(text),
            Self::Address => words::check_address(text),
            Self::Date => numbers::date(text).map(drop),
            _ => self.normal_text(text).map(drop),
        }
    }

    /// The normal form for equality. Refuses what [`FieldType::check`] refuses.
    pub(crate) fn normal(self, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, Violation> {
        let text = self.bounded(value)?;
        if self == Self::Bytes {
            return Ok(Zeroizing::new(value.to_vec()));
        }
        let mut normal = self.normal_text(text)?;
        Ok(Zeroizing::new(std::mem::take(&mut *normal).into_bytes()))
    }

    /// The normal form of a text. `bytes` has none.
    pub(crate) fn normal_text(self, text: &str) -> Result<Secret, Violation> {
        match self {
            Self::Bytes => Ok(Secret::default()),
            Self::Text => Ok(words::nfc(text)),
            Self::Json => words::json(text).map(|()| Secret::new(text.to_owned())),
            Self::Integer => numbers::integer(text),
            Self::Decimal => numbers::decimal(text),
            Self::Date => numbers::date(text),
            Self::Name => words::name(text),
            Self::Address => words::address(text),
            Self::Email => words::email(text),
            Self::Phone => travel::phone(&folded(text)?),
            Self::Passport => travel::passport(&folded(text)?),
            Self::CnIdCard => china::id_card(&folded(text)?),
            Self::CnMobile => china::mobile(&folded(text)?),
            Self::CnUscc => china::uscc(&folded(text)?),
            Self::BankCard => accounts::bank_card(&folded(text)?),
            Self::Iban => accounts::iban(&folded(text)?),
            Self::Ssn => accounts::ssn(&folded(text)?),
        }
    }

    /// The bounds of all types. The text is empty for `bytes`.
    fn bounded(self, value: &[u8]) -> Result<&str, Violation> {
        if value.is_empty() {
            return Err(Violation::new("empty", "a value has at least one byte"));
        }
        if value.len() > MAX_VALUE {
            return Err(Violation::new("too_long", format!("a value has at most {MAX_VALUE} bytes")));
        }
        if self == Self::Bytes { Ok("") } else { utf8(value) }
    }
}

/// The value as text.
pub(crate) fn utf8(value: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(value).map_err(|_| Violation::new("utf8", "a value of this type is UTF-8 text"))
}

/// An identifier with full-width and other look-alike forms folded (NFKC).
fn folded(text: &str) -> Result<Secret, Violation> {
    if text.len() > MAX_IDENTIFIER {
        return Err(Violation::new("too_long", format!("an identifier has at most {MAX_IDENTIFIER} bytes")));
    }
    if text.is_ascii() {
        return Ok(Secret::new(text.to_owned()));
    }
    Ok(Secret::new(text.nfkc().collect()))
}

/// The text without the characters that people put between digits.
fn without(text: &str, separators: &[char]) -> Secret {
    Secret::new(text.chars().filter(|character| !separators.contains(character)).collect())
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
