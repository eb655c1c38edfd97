//! The rules that a declaration keeps by itself.

use std::collections::BTreeMap;

use crate::MAX_VALUE;
use crate::declaration::{Basis, Class, Declaration, Domain};
use crate::error::Broken;
use crate::file::PurposeDeclaration;
use crate::mask::{HIDDEN_OF_IDENTIFIER, Keep, MOST_KEPT, Mask};
use crate::shape::TokenFormat;
use crate::types::FieldType;

const MAX_NAME: usize = 63;
const MAX_DESCRIPTION: usize = 1_000;
const MAX_VIEWS: usize = 32;
/// Purposes of a schema, at most.
pub(crate) const MAX_PURPOSES: usize = 100;
/// The shortest text that may be indexed.
const MIN_INDEXED_TEXT: usize = 6;

/// A name of a collection, field, view or purpose.
pub(crate) fn name(name: &str) -> Result<(), Broken> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let fits = name.len() <= MAX_NAME
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && name.bytes().all(plain);
    ensure(fits, "name", || {
        format!("a name begins with a-z and goes on with a-z, 0-9 and _, {MAX_NAME} characters at most")
    })
}

/// A purpose.
pub(crate) fn purpose(purpose: &str, declared: &PurposeDeclaration) -> Result<(), Broken> {
    name(purpose)?;
    let described = !declared.description.trim().is_empty() && declared.description.len() <= MAX_DESCRIPTION;
    ensure(described, "description", || {
        format!("a purpose is described in words, {MAX_DESCRIPTION} bytes at most: people consent to it")
    })?;
    // What rests on consent is refused without it, and nothing else is.
    let fits = declared.basis.is_none_or(|basis| declared.consent == (basis == Basis::Consent));
    ensure(fits, "basis", || {
        "basis = \"consent\" and consent = true belong together: write both, or another basis and no consent".to_owned()
    })?;
    ensure(declared.consent || declared.separate_consent.is_empty(), "separate_consent", || {
        "separate_consent is for purposes that rest on consent: write consent = true, or leave it out".to_owned()
    })?;
    for (place, class) in declared.separate_consent.iter().enumerate() {
        let repeated = declared.separate_consent.iter().take(place).any(|earlier| earlier == class);
        ensure(!repeated, "separate_consent", || format!("the class {} is listed twice", class.as_str()))?;
    }
    Ok(())
}

/// A field.
pub(crate) fn field(declared: &Declaration, purposes: &BTreeMap<String, PurposeDeclaration>) -> Result<(), Broken> {
    ensure(declared.number > 0, "number", || "numbers begin at 1".to_owned())?;
    lengths(declared)?;
    purposes_known(declared, purposes)?;
    secret(declared)?;
    index(declared)?;
    token(declared)?;
    views(declared)
}

fn lengths(declared: &Declaration) -> Result<(), Broken> {
    let (least, most) = (declared.min_length.unwrap_or(1), declared.max_length.unwrap_or(MAX_VALUE));
    ensure(1 <= least && least <= most && most <= MAX_VALUE, "length", || {
        format!("min_length is at least 1 and at most max_length, which is at most {MAX_VALUE}")
    })
}

fn purposes_known(declared: &Declaration, purposes: &BTreeMap<String, PurposeDeclaration>) -> Result<(), Broken> {
    ensure(!declared.purposes.is_empty(), "purposes", || {
        "a field lists at least one purpose; without one it could never be read".to_owned()
    })?;
    for (place, purpose) in declared.purposes.iter().enumerate() {
        ensure(purposes.contains_key(purpose), "purpose_unknown", || {
            format!("the purpose {purpose:?} is not declared: [purpose.NAME]")
        })?;
        let repeated = declared.purposes.iter().take(place).any(|earlier| earlier == purpose);
        ensure(!repeated, "purpose_repeated", || format!("the purpose {purpose:?} is listed twice"))?;
    }
    Ok(())
}

/// Authentication secrets are compared, never shown (JR/T 0171-2020, class C3).
fn secret(declared: &Declaration) -> Result<(), Broken> {
    if declared.class != Class::C3 {
        return Ok(());
    }
    ensure(declared.views.is_empty(), "c3_view", || {
        "a field of class c3 is never displayed, so it has no views; only Match works on it".to_owned()
    })?;
    ensure(!declared.lookup && declared.deterministic.is_none(), "c3_index", || {
        "a field of class c3 has no index: it would tell who shares a secret with whom".to_owned()
    })?;
    let formats = [TokenFormat::Opaque, TokenFormat::OpaqueBase32, TokenFormat::Uuid];
    ensure(formats.contains(&declared.token), "c3_token", || {
        "the token of a field of class c3 keeps nothing of the value: opaque, opaque_base32 or uuid".to_owned()
    })
}

/// Blind indexes tell how often a value occurs. Where there are few possible values, that tells the value.
fn index(declared: &Declaration) -> Result<(), Broken> {
    if !declared.lookup && declared.deterministic.is_none() {
        return Ok(());
    }
    ensure(declared.domain != Some(Domain::Small), "small_domain", || {
        "a field of a small domain can't have lookup or deterministic tokens: counting would tell the values".to_owned()
    })?;
    match declared.kind {
        FieldType::Integer | FieldType::Decimal | FieldType::Date | FieldType::Json | FieldType::Bytes => {
            Err(Broken::new(
                "small_domain",
                format!(
                    "a field of type {} can't have lookup or deterministic tokens: its values (incomes, birthdays, yes \
                     and no) are often so few that counting would tell them",
                    declared.kind.as_str()
                ),
            ))
        }
        FieldType::Text => {
            ensure(declared.min_length.is_some_and(|least| least >= MIN_INDEXED_TEXT), "small_domain", || {
                format!("a text has lookup or deterministic tokens only with min_length = {MIN_INDEXED_TEXT} or more")
            })
        }
        _ => Ok(()),
    }
}

fn token(declared: &Declaration) -> Result<(), Broken> {
    let fits = match declared.token {
        TokenFormat::Opaque | TokenFormat::OpaqueBase32 | TokenFormat::Uuid => true,
        TokenFormat::Digits => matches!(
            declared.kind,
            FieldType::Text | FieldType::Phone | FieldType::CnIdCard | FieldType::CnMobile | FieldType::BankCard
        ),
        TokenFormat::Card => declared.kind == FieldType::BankCard,
        TokenFormat::Email => declared.kind == FieldType::Email,
    };
    ensure(fits, "token", || {
        "token = \"digits\" is for text, phone, cn_id_card, cn_mobile and bank_card, \"card\" for bank_card, \"email\" \
         for email"
            .to_owned()
    })
}

fn views(declared: &Declaration) -> Result<(), Broken> {
    ensure(declared.views.len() <= MAX_VIEWS, "too_many_views", || format!("a field has at most {MAX_VIEWS} views"))?;
    for (view, mask) in &declared.views {
        name(view)?;
        // Policies are written over names, so the names must not deceive.
        ensure((view == "plain") == (*mask == Mask::Plain), "plain", || {
            format!("the view {view}: what shows the whole value is named plain, and nothing else is")
        })?;
        match mask {
            Mask::Year => ensure(matches!(declared.kind, FieldType::Date | FieldType::CnIdCard), "year", || {
                format!("the view {view}: only date and cn_id_card have a year")
            })?,
            Mask::Keep(keep) => {
                kept(declared.kind, *keep)
                    .map_err(|broken| Broken { message: format!("the view {view}: {}", broken.message), ..broken })?;
            }
            Mask::Plain | Mask::Customary | Mask::Hidden => {}
        }
    }
    Ok(())
}

fn kept(kind: FieldType, keep: Keep) -> Result<(), Broken> {
    ensure((1..=MOST_KEPT).contains(&keep.first.max(keep.last)), "view_keeps", || {
        format!("first and last are at most {MOST_KEPT}, and one of them is at least 1; else write \"hidden\"")
    })?;
    ensure(keep.fill.is_ascii_punctuation(), "view_fill", || {
        "fill is one ASCII sign that is no letter or digit".to_owned()
    })?;
    ensure(!matches!(kind, FieldType::Bytes | FieldType::Json), "view_kind", || {
        format!("values of type {} have no ends that could be shown", kind.as_str())
    })?;
    let length = match kind {
        FieldType::CnIdCard | FieldType::CnUscc => Some(18),
        FieldType::CnMobile => Some(11),
        FieldType::Ssn => Some(9),
        FieldType::Date => Some(10),
        _ => None,
    };
    let shows_too_much = length.is_some_and(|length| keep.first + keep.last + HIDDEN_OF_IDENTIFIER > length);
    ensure(!shows_too_much, "view_shows_too_much", || {
        format!("values of type {} keep at least {HIDDEN_OF_IDENTIFIER} characters hidden", kind.as_str())
    })
}

fn ensure(holds: bool, rule: &'static str, message: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(rule, message())) }
}
