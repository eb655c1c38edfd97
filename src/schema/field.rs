//! A field in force: validates, normalises, shapes tokens, applies views.

use std::sync::Arc;

use strongroom_ids::{FieldNo, KeyringNo};
use zeroize::Zeroizing;

use crate::declaration::{Class, Declaration, Retention, Scope};
use crate::error::Violation;
use crate::mask::View;
use crate::shape::TokenFormat;
use crate::types::{FieldType, utf8};

/// A field of a schema in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its permanent number; never another field's.
    pub number: FieldNo,
    /// `collection.name`.
    pub full_name: Arc<str>,
    /// The collection's name.
    pub collection: Arc<str>,
    /// Its name within the collection.
    pub name: Arc<str>,
    /// The type of its values.
    pub kind: FieldType,
    /// Its data class.
    pub class: Class,
    /// Under which keyring its values are sealed: that of its class and retention.
    pub keyring: KeyringNo,
    /// How long a value may be read after it was stored, or got its last holder.
    pub retention: Retention,
    /// What its tokens look like.
    pub token: TokenFormat,
    /// Whether values can be looked up by equality.
    pub lookup: bool,
    /// Whether the same value gives the same token, and within which bounds.
    pub deterministic: Option<Scope>,
    /// The purposes for which it is read. Empty for a retired field.
    pub purposes: Vec<Arc<str>>,
    /// Whether it is no longer in the schema. Its values can be deleted and expire as before, but have no views.
    pub retired: bool,
    views: Vec<(Arc<str>, View)>,
    declared: Declaration,
}

impl Field {
    pub(crate) fn new(full_name: &str, declared: Declaration, keyring: KeyringNo, retired: bool) -> Self {
        let (collection, name) = full_name.split_once('.').unwrap_or_default();
        // What a removed field allowed is withdrawn with it.
        let purposes = declared.purposes.iter().filter(|_| !retired).map(|name| name.as_str().into()).collect();
        let views = declared.views.iter().filter(|_| !retired);
        Self {
            number: FieldNo(declared.number),
            full_name: full_name.into(),
            collection: collection.into(),
            name: name.into(),
            kind: declared.kind,
            class: declared.class,
            keyring,
            retention: declared.retention,
            token: declared.token,
            lookup: declared.lookup,
            deterministic: declared.deterministic,
            purposes,
            retired,
            views: views.map(|(name, mask)| (name.as_str().into(), View::new(declared.kind, *mask))).collect(),
            declared,
        }
    }

    pub(crate) fn declared(&self) -> &Declaration {
        &self.declared
    }

    /// Refuses what is not a value of this field.
    pub fn validate(&self, value: &[u8]) -> Result<(), Violation> {
        self.kind.check(value)?;
        self.length(value)
    }

    /// The normal form, in which values are compared; it keeps nothing that does not matter for equality. Refuses what
    /// is not of the field's type, and minds no length: a bound may change while values are stored, and what was
    /// stored under another one stays a value.
    pub fn normalise(&self, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, Violation> {
        self.kind.normal(value)
    }

    /// A token in the field's shape, from random bytes of which each token needs fresh ones. Opaque formats have none.
    pub fn shape_token(&self, value: &[u8], random: &[u8; 32]) -> Result<String, Violation> {
        self.token.shape(self.kind, value, random)
    }

    /// The view of this name.
    pub fn view(&self, name: &str) -> Option<&View> {
        self.views.iter().find(|(known, _)| &**known == name).map(|(_, view)| view)
    }

    /// All views, by name. None for class C3 and for a retired field.
    pub fn views(&self) -> impl Iterator<Item = (&Arc<str>, &View)> {
        self.views.iter().map(|(name, view)| (name, view))
    }

    /// The field's own bounds: of characters, or of bytes for `bytes`.
    fn length(&self, value: &[u8]) -> Result<(), Violation> {
        let (least, most) = (self.declared.min_length, self.declared.max_length);
        if least.is_none() && most.is_none() {
            return Ok(());
        }
        let (count, unit) = match self.kind {
            FieldType::Bytes => (value.len(), "bytes"),
            _ => (utf8(value)?.chars().count(), "characters"),
        };
        match (least, most) {
            (Some(least), _) if count < least => {
                Err(Violation::new("too_short", format!("a value of this field has at least {least} {unit}")))
            }
            (_, Some(most)) if count > most => {
                Err(Violation::new("too_long", format!("a value of this field has at most {most} {unit}")))
            }
            _ => Ok(()),
        }
    }
}
