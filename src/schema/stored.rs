//! The stored form of a schema: one JSON document, canonical.
//!
//! ```json
//! {"format":1,"version":2,"source":"...","purposes":{"NAME":{"description":"...","consent":false}},
//!  "crypto_periods":{"c2":"1y"},"keyrings":[{"number":1,"class":"c2","retention":"10y"}],
//!  "fields":[{"name":"borrower.id_card","retired":false,"declared":{"number":2,"type":"cn_id_card",...}}]}
//! ```
//!
//! A field in force has `since`, the first version in which it has its name, if that is not the first of all; and `formerly`, if there
//! is any, lists names that fields had before, with the versions: `{"number":3,"name":"borrower.phone","since":1,"until":4}`.
//!
//! Fields stand in the order of their numbers and are stored as they were checked when they were applied: a later
//! rule for new schemas must not keep an old one from being read. Retired fields stay, so that their rows can be
//! deleted and no number is used twice. A purpose has `separate_consent` if it lists classes there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strongroom_ids::KeyringNo;

use crate::declaration::{Class, Declaration, Retention};
use crate::error::SchemaError;
use crate::file::{CryptoPeriods, PurposeDeclaration};
use crate::schema::{FormerName, Parts, Schema};

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u8,
    version: u32,
    source: String,
    purposes: BTreeMap<String, PurposeDeclaration>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    crypto_periods: CryptoPeriods,
    keyrings: Vec<StoredKeyring>,
    fields: Vec<StoredField>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    formerly: Vec<FormerName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeyring {
    number: u16,
    class: Class,
    retention: Retention,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredField {
    name: String,
    retired: bool,
    declared: Declaration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u32>,
}

impl Schema {
    /// The bytes to store.
    pub fn to_stored(&self) -> Vec<u8> {
        let Parts { version, source, purposes, crypto_periods, keyrings, fields, since, formerly } = self.parts.clone();
        let since = |declared: &Declaration| since.get(&declared.number).copied().filter(|since| *since > 1);
        let keyrings = keyrings.into_iter();
        let fields = fields.into_iter();
        let stored = Stored {
            format: FORMAT,
            version,
            source,
            purposes,
            crypto_periods,
            keyrings: keyrings
                .map(|(number, class, retention)| StoredKeyring { number: number.0, class, retention })
                .collect(),
            fields: fields
                .map(|(name, declared, retired)| {
                    let since = since(&declared);
                    StoredField { name, retired, declared, since }
                })
                .collect(),
            formerly,
        };
        #[expect(clippy::expect_used, reason = "a form with string keys only, written to memory, always serialises")]
        serde_json::to_vec(&stored).expect("a schema serialises")
    }

    /// Reads what [`Schema::to_stored`] gave.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, SchemaError> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| SchemaError::Damaged(error.to_string()))?;
        if stored.format != FORMAT {
            let message = format!("format {} is not one that this version reads; {FORMAT} is", stored.format);
            return Err(SchemaError::Damaged(message));
        }
        let keyrings = stored.keyrings.into_iter();
        let in_force = stored.fields.iter().filter(|field| !field.retired);
        let since = in_force.map(|field| (field.declared.number, field.since.unwrap_or(1))).collect();
        let fields = stored.fields.into_iter();
        Self::from_parts(Parts {
            version: stored.version,
            source: stored.source,
            purposes: stored.purposes,
            crypto_periods: stored.crypto_periods,
            keyrings: keyrings.map(|ring| (KeyringNo(ring.number), ring.class, ring.retention)).collect(),
            fields: fields.map(|field| (field.name, field.declared, field.retired)).collect(),
            since,
            formerly: stored.formerly,
        })
    }
}
