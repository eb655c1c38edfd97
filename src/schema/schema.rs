//! A version of a tenant's schema in force, and how it follows from the one before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strongroom_ids::{FieldNo, KeyringNo};

use crate::declaration::{Class, Declaration, Retention};
use crate::error::{Broken, SchemaError};
use crate::field::Field;
use crate::file::{CryptoPeriods, Purpose, PurposeDeclaration, SchemaFile};

/// One version of a schema, immutable.
#[derive(Clone, Debug)]
pub struct Schema {
    pub(crate) parts: Parts,
    /// By number, retired ones too.
    by_number: BTreeMap<FieldNo, Arc<Field>>,
    /// Those in force.
    by_name: HashMap<Arc<str>, Arc<Field>>,
    purposes: BTreeMap<Arc<str>, Purpose>,
}

/// What a schema is made of; the rest is derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub version: u32,
    pub source: String,
    pub purposes: BTreeMap<String, PurposeDeclaration>,
    pub crypto_periods: CryptoPeriods,
    /// The keyring of each class and retention that any version had. Keyring 0 is the tenant's own.
    pub keyrings: Vec<(KeyringNo, Class, Retention)>,
    /// Full name, declaration, whether it is retired.
    pub fields: Vec<(String, Declaration, bool)>,
    /// Since which version each field in force has its name, by its number; 1 if it is not said.
    pub since: BTreeMap<u32, u32>,
    /// Names that fields had before.
    pub formerly: Vec<FormerName>,
}

/// A name that a field had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FormerName {
    pub number: u32,
    pub name: String,
    /// The first and the last version in which it had it.
    pub since: u32,
    pub until: u32,
}

/// A field's full name, and in which versions it was the field's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'s> {
    /// The name.
    pub name: &'s str,
    /// The first version.
    pub since: u32,
    /// The last one; none if it still is.
    pub until: Option<u32>,
}

impl Schema {
    /// The schema before there is any: version 0, no field, no purpose.
    pub fn empty() -> Self {
        let parts = Parts {
            version: 0,
            source: String::new(),
            purposes: BTreeMap::new(),
            crypto_periods: CryptoPeriods::new(),
            keyrings: Vec::new(),
            fields: Vec::new(),
            since: BTreeMap::new(),
            formerly: Vec::new(),
        };
        Self { parts, by_number: BTreeMap::new(), by_name: HashMap::new(), purposes: BTreeMap::new() }
    }

    /// The next version. Refuses what would strand values that are stored under the previous one.
    pub fn evolve(previous: Option<&Schema>, file: &SchemaFile, version: u32) -> Result<Self, SchemaError> {
        let whole_file = |broken| SchemaError::rule(None, "the schema".to_owned(), broken);
        if version <= previous.map_or(0, Schema::version) {
            let message = "a schema's version is higher than that of the one before, and begins at 1";
            return Err(whole_file(Broken::new("version", message)));
        }
        for (full_name, (line, declared)) in &file.fields {
            if let Some(before) = previous.and_then(|schema| schema.field_no(FieldNo(declared.number))) {
                same_field(before, full_name, declared)
                    .map_err(|broken| SchemaError::rule(Some(*line), format!("field {full_name}"), broken))?;
            }
        }
        let mut fields: Vec<_> =
            file.fields.iter().map(|(name, (_, declared))| (name.clone(), declared.clone(), false)).collect();
        let declared: HashSet<_> = fields.iter().map(|(_, declared, _)| declared.number).collect();
        let removed = previous.into_iter().flat_map(|schema| schema.by_number.values());
        fields.extend(
            removed
                .filter(|field| !declared.contains(&field.number.0))
                .map(|field| (field.full_name.to_string(), field.declared().clone(), true)),
        );
        fields.sort_by_key(|(_, declared, _)| declared.number);
        let mut keyrings = previous.map(|schema| schema.parts.keyrings.clone()).unwrap_or_default();
        for (_, declared, _) in &fields {
            assign_keyring(&mut keyrings, declared).map_err(whole_file)?;
        }
        let (source, purposes) = (file.source.clone(), file.purposes.clone());
        let crypto_periods = file.crypto_periods.clone();
        let (since, formerly) = names(previous, &fields, version);
        Self::from_parts(Parts { version, source, purposes, crypto_periods, keyrings, fields, since, formerly })
    }

    pub(crate) fn from_parts(parts: Parts) -> Result<Self, SchemaError> {
        let mut by_number = BTreeMap::new();
        let mut by_name = HashMap::new();
        for (full_name, declared, retired) in &parts.fields {
            let keyring = keyring(&parts.keyrings, declared.class, declared.retention)
                .ok_or_else(|| SchemaError::Damaged(format!("field {full_name} has no keyring")))?;
            let field = Arc::new(Field::new(full_name, declared.clone(), keyring, *retired));
            if !retired && by_name.insert(Arc::clone(&field.full_name), Arc::clone(&field)).is_some() {
                return Err(SchemaError::Damaged(format!("two fields are named {full_name}")));
            }
            if by_number.insert(field.number, field).is_some() {
                return Err(SchemaError::Damaged(format!("two fields have the number {}", declared.number)));
            }
        }
        let purposes = parts.purposes.iter().map(|(name, declared)| (name.as_str().into(), declared.named(name)));
        Ok(Self { purposes: purposes.collect(), by_number, by_name, parts })
    }

    /// Which version it is; the first is 1.
    pub fn version(&self) -> u32 {
        self.parts.version
    }

    /// The file as it was applied.
    pub fn source(&self) -> &str {
        &self.parts.source
    }

    /// The field in force of this name: `borrower.id_card`.
    pub fn field(&self, full_name: &str) -> Option<&Arc<Field>> {
        self.by_name.get(full_name)
    }

    /// The field of this number. Retired ones too: rows of theirs may still exist.
    pub fn field_no(&self, number: FieldNo) -> Option<&Arc<Field>> {
        self.by_number.get(&number)
    }

    /// The fields in force, by number.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.by_number.values().filter(|field| !field.retired)
    }

    /// The fields that are in force or were once, by number.
    pub fn all_fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.by_number.values()
    }

    /// The names that fields of a class have and had. A field's class is permanent; its name is not, and may be another's later.
    pub fn names_of(&self, class: Class) -> impl Iterator<Item = Named<'_>> {
        let of_class = move |field: &&Arc<Field>| field.class == class;
        let now = self.all_fields().filter(of_class).filter_map(move |field| {
            let number = field.number.0;
            let named = |since, until| Some(Named { name: &field.full_name, since, until });
            match field.retired {
                false => named(self.since(field.number), None),
                // Of one that was retired before names were kept nobody knows until when it had it.
                true if self.parts.formerly.iter().all(|one| one.number != number) => named(1, Some(self.version())),
                true => None,
            }
        });
        let before = self.parts.formerly.iter();
        let before = before.filter(move |one| self.field_no(FieldNo(one.number)).is_some_and(|field| of_class(&field)));
        now.chain(before.map(|one| Named { name: &one.name, since: one.since, until: Some(one.until) }))
    }

    /// Since which version a field in force has its name.
    fn since(&self, number: FieldNo) -> u32 {
        self.parts.since.get(&number.0).copied().unwrap_or(1)
    }

    /// The purpose of this name.
    pub fn purpose(&self, name: &str) -> Option<&Purpose> {
        self.purposes.get(name)
    }

    /// All purposes, by name.
    pub fn purposes(&self) -> impl Iterator<Item = &Purpose> {
        self.purposes.values()
    }

    /// The keyrings of all fields, retired ones too, from 1 up. The tenant's own keyring 0 is not among them.
    pub fn keyrings(&self) -> impl Iterator<Item = KeyringNo> {
        self.parts.keyrings.iter().map(|(number, ..)| *number)
    }

    /// Class and retention of a keyring's values; none for keyring 0 and for what was never declared.
    pub fn values_of(&self, keyring: KeyringNo) -> Option<(Class, Retention)> {
        let mut keyrings = self.parts.keyrings.iter();
        keyrings.find(|(number, ..)| *number == keyring).map(|(_, class, retention)| (*class, *retention))
    }

    /// How long the KEK of a keyring protects what is new before it is due for rotation, in microseconds; none: it
    /// never is. The tenant's own keyring 0 has the shortest of all classes.
    pub fn crypto_period(&self, keyring: KeyringNo) -> Option<u64> {
        let of = |class| self.parts.crypto_periods.get(&class).copied().unwrap_or(Retention::A_YEAR).micros();
        match self.values_of(keyring) {
            Some((class, _)) => of(class),
            None => [Class::C1, Class::C2, Class::C3].into_iter().filter_map(of).min(),
        }
    }
}

/// Since when the fields of a new version have their names, and which names there were before.
fn names(
    previous: Option<&Schema>,
    fields: &[(String, Declaration, bool)],
    version: u32,
) -> (BTreeMap<u32, u32>, Vec<FormerName>) {
    let mut formerly = previous.map(|schema| schema.parts.formerly.clone()).unwrap_or_default();
    let in_force = fields.iter().filter(|(_, _, retired)| !retired);
    let named: HashMap<u32, &str> = in_force.map(|(name, declared, _)| (declared.number, name.as_str())).collect();
    let mut since: BTreeMap<u32, u32> = named.keys().map(|number| (*number, version)).collect();
    if let Some(schema) = previous {
        for before in schema.fields() {
            let (number, began) = (before.number.0, schema.since(before.number));
            if named.get(&number) == Some(&&*before.full_name) {
                since.insert(number, began);
            } else {
                let name = before.full_name.to_string();
                formerly.push(FormerName { number, name, since: began, until: schema.version() });
            }
        }
    }
    (since, formerly)
}

fn keyring(keyrings: &[(KeyringNo, Class, Retention)], class: Class, retention: Retention) -> Option<KeyringNo> {
    keyrings.iter().find(|(_, c, r)| (*c, *r) == (class, retention)).map(|(number, ..)| *number)
}

/// Gives a class and retention that have none the next keyring.
fn assign_keyring(keyrings: &mut Vec<(KeyringNo, Class, Retention)>, declared: &Declaration) -> Result<(), Broken> {
    if keyring(keyrings, declared.class, declared.retention).is_some() {
        return Ok(());
    }
    let last = keyrings.iter().map(|(number, ..)| number.0).max().unwrap_or(0);
    let next = last.checked_add(1).ok_or_else(|| {
        Broken::new("too_many_keyrings", format!("a tenant has at most {} pairs of class and retention", u16::MAX))
    })?;
    keyrings.push((KeyringNo(next), declared.class, declared.retention));
    Ok(())
}

/// Refuses a declaration under a number whose stored values it would strand.
fn same_field(before: &Field, full_name: &str, declared: &Declaration) -> Result<(), Broken> {
    let number = declared.number;
    // A field in force may be renamed. A retired one may only come back as what it was.
    if before.retired && *before.full_name != *full_name {
        let message = format!("the number {number} was {}'s and stays retired: take a new number", before.full_name);
        return Err(Broken::new("number_retired", message));
    }
    let old = before.declared();
    let permanent = [
        ("type", old.kind == declared.kind),
        ("class", old.class == declared.class),
        ("retention", old.retention == declared.retention),
        ("token", old.token == declared.token),
        ("deterministic", old.deterministic == declared.deterministic),
    ];
    if let Some((what, _)) = permanent.iter().find(|(_, same)| !same) {
        let message = format!(
            "the {what} of number {number} can't change, since values may be stored under it: declare a new field with a \
             new number and move the values"
        );
        return Err(Broken::new("permanent", message));
    }
    if declared.lookup && !old.lookup {
        let message = "lookup can't be switched on later: values stored before would not be found. Declare a new field \
                       with a new number and move the values";
        return Err(Broken::new("permanent", message));
    }
    Ok(())
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
