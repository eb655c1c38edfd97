//! Views: how much of a value an answer shows.
//!
//! A schema writes a view as a word or as a table:
//!
//! | written | shows |
//! | --- | --- |
//! | `"plain"` | the value as it was stored |
//! | `"masked"` | the type's customary mask, see [`customary`] |
//! | `"year"` | of a `date` or `cn_id_card`: the year, or year of birth |
//! | `"hidden"` | `****`: that there is a value |
//! | `{ first = 6, last = 4, fill = "*" }` | that many characters at the ends |
//!
//! What must hold: no view but `plain` shows a whole value, however short it is. An identifier keeps at least
//! [`HIDDEN_OF_IDENTIFIER`] characters hidden, since its check digit would give away one or two.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize, Serializer};
use unicode_normalization::char::is_combining_mark;
use zeroize::Zeroizing;

use crate::error::Violation;
use crate::types::words::nfc;
use crate::types::{FieldType, Secret, utf8};

/// What stands for a value, or a part of one, whose length is not told.
const FIXED_FILL: usize = 6;
const HIDDEN: &str = "****";
/// The fewest characters of an identifier that a partial view hides.
pub(crate) const HIDDEN_OF_IDENTIFIER: usize = 4;
/// The most characters that a view may keep at either end.
pub(crate) const MOST_KEPT: usize = 64;

/// A view of a field: what is shown, and of what type of value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    kind: FieldType,
    mask: Mask,
}

impl View {
    pub(crate) fn new(kind: FieldType, mask: Mask) -> Self {
        Self { kind, mask }
    }

    /// Whether it shows all of a value.
    pub fn is_plain(&self) -> bool {
        self.mask == Mask::Plain
    }

    /// The view of a value. A value that is not of the field's type, which the vault would not have stored, is refused.
    pub fn apply(&self, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, Violation> {
        let mut shown = match self.mask {
            Mask::Plain => return Ok(Zeroizing::new(value.to_vec())),
            Mask::Hidden => Secret::new(HIDDEN.to_owned()),
            Mask::Customary => customary(self.kind, value)?,
            Mask::Year => year(self.kind, value)?,
            Mask::Keep(keep) => keep.apply(self.kind, &shown_form(self.kind, value)?),
        };
        Ok(Zeroizing::new(std::mem::take(&mut *shown).into_bytes()))
    }
}

/// How a view is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    Plain,
    Customary,
    Year,
    Hidden,
    Keep(Keep),
}

/// So many characters at the ends, and what stands for each of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keep {
    #[serde(default)]
    pub first: usize,
    #[serde(default)]
    pub last: usize,
    #[serde(default = "star")]
    pub fill: char,
}

fn star() -> char {
    '*'
}

impl Keep {
    const fn new(first: usize, last: usize) -> Self {
        Self { first, last, fill: '*' }
    }

    /// The ends of the text, unless they would be too much of it.
    fn apply(self, kind: FieldType, text: &str) -> Secret {
        let fill = |count: usize| std::iter::repeat_n(self.fill, count);
        let count = text.chars().count();
        let kept = self.first.saturating_add(self.last);
        let fewest_hidden = if kind.is_identifier() { HIDDEN_OF_IDENTIFIER } else { 1 };
        if count.saturating_sub(kept) < fewest_hidden {
            return Secret::new(fill(FIXED_FILL).collect());
        }
        let hidden = count - kept;
        let mut shown = Secret::new(String::with_capacity(text.len().max(FIXED_FILL * 4)));
        shown.extend(text.chars().take(self.first));
        // The length of an identifier is known anyway; that of other texts says something.
        shown.extend(fill(if kind.is_identifier() { hidden } else { FIXED_FILL }));
        // A mark would combine with the fill.
        shown.extend(text.chars().skip(self.first + hidden).skip_while(|character| joins(*character)));
        shown
    }
}

/// Whether a character changes the one before it, rather than standing for itself.
fn joins(character: char) -> bool {
    is_combining_mark(character)
        || matches!(character, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// What partial views cut: the normal form of identifiers, NFC of other texts.
fn shown_form(kind: FieldType, value: &[u8]) -> Result<Secret, Violation> {
    let text = utf8(value)?;
    if kind.is_identifier() || kind == FieldType::Email { kind.normal_text(text) } else { Ok(nfc(text)) }
}

/// The customary mask of a type:
///
/// | type | mask |
/// | --- | --- |
/// | `cn_id_card` | `110105********002X` |
/// | `cn_mobile` | `138****5678` |
/// | `bank_card` | `622202******1234`; of fewer than 15 digits the last four |
/// | `cn_uscc` | `9135**********0Y43` |
/// | `iban` | `GB****************5432` |
/// | `ssn` | `***-**-6789` |
/// | `phone`, `passport` | the last four; the first and the last two |
/// | `name` | `张**`, `欧阳**`, `A**` |
/// | `email` | `a***@example.com` |
/// | `address` | of one that begins with a Chinese character, which names the province first: six characters |
/// | others | `******` |
pub(crate) fn customary(kind: FieldType, value: &[u8]) -> Result<Secret, Violation> {
    let keep = match kind {
        FieldType::Bytes | FieldType::Text | FieldType::Json => Keep::new(0, 0),
        FieldType::Integer | FieldType::Decimal | FieldType::Date => Keep::new(0, 0),
        FieldType::Name => return Ok(name(&nfc(utf8(value)?))),
        FieldType::Email => return email(&shown_form(kind, value)?),
        FieldType::Ssn => return Ok(ssn(&shown_form(kind, value)?)),
        FieldType::Address => return Ok(address(&nfc(utf8(value)?))),
        FieldType::CnIdCard => Keep::new(6, 4),
        FieldType::CnMobile => Keep::new(3, 4),
        FieldType::CnUscc => Keep::new(4, 4),
        FieldType::Iban => Keep::new(2, 4),
        FieldType::Phone => Keep::new(0, 4),
        FieldType::Passport => Keep::new(1, 2),
        FieldType::BankCard => {
            let digits = shown_form(kind, value)?;
            // PCI DSS 3.4.1: at most the BIN and the last four. A short card would keep too few hidden.
            let keep = if digits.len() < 15 { Keep::new(0, 4) } else { Keep::new(6, 4) };
            return Ok(keep.apply(kind, &digits));
        }
    };
    if keep == Keep::new(0, 0) {
        return Ok(Secret::new("*".repeat(FIXED_FILL)));
    }
    Ok(keep.apply(kind, &shown_form(kind, value)?))
}

/// The surname or first letter, and two stars whatever the length.
fn name(text: &str) -> Secret {
    let text = text.trim();
    let count = text.chars().filter(|character| !joins(*character)).count();
    let compound = COMPOUND_SURNAMES.iter().find(|surname| text.starts_with(**surname));
    let mut shown = Secret::new(String::with_capacity(16));
    match compound {
        Some(surname) if count > 2 => shown.push_str(surname),
        _ if count > 1 => shown.extend(text.chars().next()),
        _ => {}
    }
    shown.push_str("**");
    shown
}

/// Surnames of two characters. A name that is no more than one of them is taken for a one-character surname.
const COMPOUND_SURNAMES: [&str; 48] = [
    "欧阳", "司马", "上官", "诸葛", "东方", "皇甫", "尉迟", "公孙", "慕容", "令狐", "长孙", "宇文", "司徒", "夏侯",
    "轩辕", "端木", "百里", "东郭", "南宫", "呼延", "赫连", "澹台", "公冶", "宗政", "濮阳", "淳于", "单于", "太叔",
    "申屠", "公羊", "仲孙", "钟离", "闾丘", "司空", "鲜于", "拓跋", "独孤", "完颜", "纳兰", "万俟", "闻人", "西门",
    "歐陽", "司馬", "諸葛", "東方", "尉遲", "長孫",
];

/// The first character before the `@`, if there are more, and the domain.
fn email(normal: &str) -> Result<Secret, Violation> {
    let (local, domain) =
        normal.rsplit_once('@').ok_or_else(|| Violation::new("email", "an email address has an @"))?;
    let mut shown = Secret::new(String::with_capacity(normal.len() + 4));
    let mut characters = local.chars();
    if let (Some(first), true) = (characters.next(), characters.any(|character| !joins(character))) {
        shown.push(first);
    }
    shown.push_str("***@");
    shown.push_str(domain);
    Ok(shown)
}

fn ssn(digits: &str) -> Secret {
    Secret::new(format!("***-**-{}", digits.get(5..).unwrap_or_default()))
}

fn address(text: &str) -> Secret {
    let text = text.trim();
    let first = if text.chars().next().is_some_and(is_chinese) { 6 } else { 0 };
    let long = text.chars().count() >= 2 * first;
    Keep::new(if long { first } else { 0 }, 0).apply(FieldType::Address, text)
}

/// Unified ideographs: the main block, and the extensions in which rare characters stand.
fn is_chinese(character: char) -> bool {
    matches!(character, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}')
}

fn year(kind: FieldType, value: &[u8]) -> Result<Secret, Violation> {
    let normal = kind.normal_text(utf8(value)?)?;
    let digits = match kind {
        FieldType::Date => normal.get(..4),
        FieldType::CnIdCard => normal.get(6..10),
        _ => None,
    };
    let year = digits.ok_or_else(|| Violation::new("year", "values of this type have no year"))?;
    Ok(Secret::new(year.to_owned()))
}

impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain => serializer.serialize_str("plain"),
            Self::Customary => serializer.serialize_str("masked"),
            Self::Year => serializer.serialize_str("year"),
            Self::Hidden => serializer.serialize_str("hidden"),
            Self::Keep(keep) => keep.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Mask;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a view: \"plain\", \"masked\", \"year\", \"hidden\" or a table such as { first = 6, last = 4 }")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Mask, E> {
        match word {
            "plain" => Ok(Mask::Plain),
            "masked" => Ok(Mask::Customary),
            "year" => Ok(Mask::Year),
            "hidden" => Ok(Mask::Hidden),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Mask, A::Error> {
        Keep::deserialize(MapAccessDeserializer::new(map)).map(Mask::Keep)
    }
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
