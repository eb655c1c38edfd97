//! A schema as an officer writes it.
//!
//! ```toml
//! [purpose.kyc_review]
//! description = "Checking who the customer is"
//! basis = "legal_obligation"        # may be left out; why it is lawful (GDPR 6, PIPL 13)
//!
//! [purpose.marketing]
//! description = "Offers by email"
//! consent = true                    # only while the data subject allows it; default false; its basis is "consent"
//! # separate_consent = ["c3"]       # classes that a consent to all does not cover: it must name the class, or the field
//!
//! [crypto_period]                   # how long a KEK protects what is new before it is due for rotation
//! c2 = "1y"                         # by class; default 1y; or "180d", or "forever" for never
//!
//! [field.borrower.id_card]
//! number = 2                        # permanent; never given to another field
//! type = "cn_id_card"
//! class = "c2"                      # c1, c2, c3 (JR/T 0171-2020)
//! retention = "10y"                 # or "180d", "forever"
//! token = "opaque"                  # default; or opaque_base32, uuid, digits, card, email
//! lookup = true                     # default false
//! # deterministic = "per_subject"   # or "tenant": the same token for the same value
//! # domain = "small"                # so few possible values that they can't be indexed
//! # min_length = 6                  # characters
//! # max_length = 40
//! purposes = ["kyc_review"]
//! views = { last4 = { last = 4 }, birth_year = "year", plain = "plain" }
//! ```
//!
//! Every field but those of class C3 has the view `masked`; it is the type's customary one unless declared otherwise.
//! `plain` exists only where it is declared, and no other name shows a value whole.
//!
//! A retention runs from when a value was stored. That of a value which subjects share (`deterministic = "tenant"`) runs
//! anew, to the hour, when it gets one more holder. Lengths bind what comes in: to change them changes nothing that is
//! stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::declaration::{Basis, Class, Declaration, Retention};
use crate::error::{Broken, SchemaError};
use crate::mask::Mask;
use crate::rules::{self, MAX_PURPOSES};

/// The most bytes of a schema file.
const MAX_SOURCE: usize = 1 << 20;

/// Why values are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Its name: `loan_servicing`.
    pub name: Arc<str>,
    /// In words, for people.
    pub description: String,
    /// Whether it rests on the data subject's consent.
    pub consent: bool,
    /// Why it is lawful, if the schema says so.
    pub basis: Option<Basis>,
    /// Classes for which a consent must name the class or the field (PIPL 29).
    pub separate_consent: Vec<Class>,
}

/// A schema file that was read and keeps all rules that a file can keep by itself.
#[derive(Clone, Debug)]
pub struct SchemaFile {
    pub(crate) source: String,
    pub(crate) purposes: BTreeMap<String, PurposeDeclaration>,
    pub(crate) crypto_periods: CryptoPeriods,
    /// By full name, with the line.
    pub(crate) fields: BTreeMap<String, (usize, Declaration)>,
}

/// How long the KEK of a class protects what is new (SP 800-57 part 1, section 5.3), where it isn't the usual time.
pub(crate) type CryptoPeriods = BTreeMap<Class, Retention>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    purpose: BTreeMap<String, Spanned<PurposeDeclaration>>,
    #[serde(default)]
    crypto_period: CryptoPeriods,
    #[serde(default)]
    field: BTreeMap<String, BTreeMap<String, Spanned<Declaration>>>,
}

/// What stands under `[purpose.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PurposeDeclaration {
    pub description: String,
    #[serde(default)]
    pub consent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub separate_consent: Vec<Class>,
}

impl PurposeDeclaration {
    pub fn named(&self, name: &str) -> Purpose {
        Purpose {
            name: name.into(),
            description: self.description.clone(),
            consent: self.consent,
            basis: self.basis.or(self.consent.then_some(Basis::Consent)),
            separate_consent: self.separate_consent.clone(),
        }
    }
}

impl SchemaFile {
    /// Reads and checks a file. The error names the line, the field and the rule.
    pub fn parse(source: &str) -> Result<Self, SchemaError> {
        if source.len() > MAX_SOURCE {
            let broken = Broken::new("too_long", format!("a schema file has at most {MAX_SOURCE} bytes"));
            return Err(SchemaError::rule(None, "the file".to_owned(), broken));
        }
        let written: Written = toml::from_str(source).map_err(|error| SchemaError::Syntax {
            line: line(source, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let purposes = purposes(source, written.purpose)?;
        let fields = fields(source, written.field, &purposes)?;
        Ok(Self { source: source.to_owned(), purposes, crypto_periods: written.crypto_period, fields })
    }
}

fn purposes(
    source: &str,
    written: BTreeMap<String, Spanned<PurposeDeclaration>>,
) -> Result<BTreeMap<String, PurposeDeclaration>, SchemaError> {
    let mut purposes = BTreeMap::new();
    for (name, declared) in written {
        let line = line(source, declared.span().start);
        if purposes.len() == MAX_PURPOSES {
            let broken = Broken::new("too_many", format!("a schema has at most {MAX_PURPOSES} purposes"));
            return Err(SchemaError::rule(Some(line), format!("purpose {name}"), broken));
        }
        rules::purpose(&name, declared.get_ref())
            .map_err(|broken| SchemaError::rule(Some(line), format!("purpose {name}"), broken))?;
        purposes.insert(name, declared.into_inner());
    }
    Ok(purposes)
}

fn fields(
    source: &str,
    written: BTreeMap<String, BTreeMap<String, Spanned<Declaration>>>,
    purposes: &BTreeMap<String, PurposeDeclaration>,
) -> Result<BTreeMap<String, (usize, Declaration)>, SchemaError> {
    let mut fields = BTreeMap::new();
    let mut numbers: HashMap<u32, String> = HashMap::new();
    for (collection, members) in written {
        for (name, declared) in members {
            let full_name = format!("{collection}.{name}");
            let line = line(source, declared.span().start);
            let refused = |broken| SchemaError::rule(Some(line), format!("field {full_name}"), broken);
            let mut declared = declared.into_inner();
            if declared.class != Class::C3 {
                declared.views.entry("masked".to_owned()).or_insert(Mask::Customary);
            }
            rules::name(&collection).and_then(|()| rules::name(&name)).map_err(refused)?;
            rules::field(&declared, purposes).map_err(refused)?;
            if let Some(other) = numbers.insert(declared.number, full_name.clone()) {
                let message = format!("{other} has the number {} too; each field has its own", declared.number);
                return Err(refused(Broken::new("number_taken", message)));
            }
            fields.insert(full_name, (line, declared));
        }
    }
    if fields.is_empty() {
        let broken = Broken::new("no_fields", "a schema declares at least one field: [field.COLLECTION.NAME]");
        return Err(SchemaError::rule(None, "the file".to_owned(), broken));
    }
    Ok(fields)
}

/// The line, counted from 1, in which a byte stands.
fn line(source: &str, at: usize) -> usize {
    1 + source.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
