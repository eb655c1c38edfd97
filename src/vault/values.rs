//! Writing and removing one value: its row, its entries, its token.

use std::sync::Arc;

use ring::digest;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{KeyVersion, RowId, RowVersion, SubjectHandle, TenantId};
use strongroom_keys::{DekOwner, IndexKey, IndexName, Sealed, ValuePlace};
use strongroom_schema::token::{self, OpaqueAlphabet};
use strongroom_schema::{Field, Scope, TokenFormat};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind, ValueRow, WrappedDek};
use strongroom_storage::{Family, Mutation, Store};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::index::Places;
use crate::resolve::Found;
use crate::road::{Item, OK, Prepared, Road};
use crate::subjects::NamedDek;

/// What a row needs besides its value.
pub(crate) struct Place {
    pub id: RowId,
    pub version: RowVersion,
    /// The version of the key that made the row's token: it stays what it is for as long as the token does.
    pub token_key: KeyVersion,
    /// The 64 random bits of an opaque token.
    pub check: [u8; 8],
    pub salt: [u8; 16],
    /// The subject in the row and its authenticated data; none for tenant-wide deterministic values.
    pub subject: SubjectHandle,
    pub created: u64,
    pub expires: Option<u64>,
    /// A token that isn't opaque.
    pub shaped: Option<String>,
}

impl<S: Store> Road<'_, S> {
    /// Seals a value and adds its row and entries to what is committed. Returns the item for the ledger.
    pub fn write_value<A>(
        &self,
        field: &Arc<Field>,
        value: &[u8],
        at: Place,
        named: &NamedDek,
        prepared: &mut Prepared<A>,
    ) -> Result<Item, Error> {
        let tenant = self.tenant.number;
        let sealing = |what| ValuePlace {
            tenant: self.tenant.id,
            field: field.number,
            row: at.id,
            subject: at.subject,
            owner: named.owner,
            keyring: named.keyring,
            dek_version: named.version,
            row_version: at.version,
            what,
        };
        let mut indexes = Vec::new();
        if let Some(entry) = self.value_index(field, value)? {
            let key = entry_key(tenant, field, &entry, at.subject, at.id);
            prepared.changes.push(index_fact(tenant, field, &entry, at.subject));
            prepared.changes.push(lookup_fact(tenant, field, &entry));
            let leads_to = if field.deterministic.is_some() { place::encode_row_id(at.id) } else { vec![] };
            prepared.mutations.push(Mutation::Put(Family::Index, key, leads_to));
            indexes.push(entry);
        }
        let mut sealed_token = None;
        if let Some(token) = &at.shaped {
            let entry = self.token_entry(token.as_bytes())?;
            let key = place::token(tenant, entry.version, &entry.mac);
            prepared.changes.push(Fact::index(tenant, &key));
            prepared.mutations.push(Mutation::Put(Family::Index, key, place::encode_row_id(at.id)));
            sealed_token = Some(named.dek.seal(&sealing(Sealed::Token), token.as_bytes())?);
            indexes.push(entry);
        }
        let row = ValueRow {
            field: field.number,
            version: at.version,
            token_key: at.token_key,
            check: at.check,
            keyring: named.keyring,
            dek_version: named.version,
            subject: at.subject,
            salt: at.salt,
            created: at.created,
            expires: at.expires,
            indexes,
            sealed_token,
            sealed: named.dek.seal(&sealing(Sealed::Value), value)?,
        };
        let bytes = row.encode();
        let hash = row_hash(&bytes);
        prepared.changes.push(Fact::row(tenant, at.id));
        prepared.mutations.push(Mutation::Put(Family::Rows, place::row(tenant, at.id), bytes));
        Ok(Item {
            field: Some(Arc::clone(&field.full_name)),
            row: Some(at.id),
            outcome: OK,
            subject: Some(at.subject),
            version: Some(at.version),
            hash: Some(hash),
            ..Item::default()
        })
    }

    /// Adds the entries by which a subject's rows, or a shared value's holders, are found.
    pub fn write_holding<A>(&self, field: &Field, id: RowId, subject: SubjectHandle, prepared: &mut Prepared<A>) {
        let tenant = self.tenant.number;
        if subject.is_some() {
            prepared.changes.push(Fact::subject_rows(tenant, subject));
            let key = place::subject_row(tenant, subject, id);
            prepared.mutations.push(Mutation::Put(Family::SubjectRows, key, vec![]));
        }
        if field.deterministic == Some(Scope::Tenant) {
            prepared.changes.push(Fact::holders(tenant, id));
            let key = place::holder(tenant, id, subject);
            prepared.mutations.push(Mutation::Put(Family::Holders, key, vec![]));
        }
    }

    /// Keeps the wrapped DEK of a value without subject beside its row.
    pub fn write_own_dek<A>(&self, id: RowId, wrapped: WrappedDek, prepared: &mut Prepared<A>) {
        let key = place::row_dek(self.tenant.number, id);
        prepared.mutations.push(Mutation::Put(
            Family::RowDeks,
            key,
            strongroom_storage::rows::RowDek::from(wrapped).encode(),
        ));
    }

    /// Removes a value: its row, its DEK if it has one of its own, and the entries that lead to it. The entries that
    /// lead there from its holders are removed by the caller, who knows them.
    pub fn remove_value<A>(&self, found: &Found, prepared: &mut Prepared<A>) {
        let tenant = self.tenant.number;
        prepared.changes.push(Fact::row(tenant, found.id));
        prepared.mutations.push(Mutation::Delete(Family::Rows, place::row(tenant, found.id)));
        if found.subject.is_none() {
            prepared.mutations.push(Mutation::Delete(Family::RowDeks, place::row_dek(tenant, found.id)));
        }
        self.remove_entries(found, prepared);
    }

    /// Removes the index entries that lead to a value. The row keeps their keys, so nothing is decrypted.
    pub fn remove_entries<A>(&self, found: &Found, prepared: &mut Prepared<A>) {
        let tenant = self.tenant.number;
        for entry in &found.row.indexes {
            prepared.changes.push(index_fact(tenant, &found.field, entry, found.row.subject));
            let key = entry_key(tenant, &found.field, entry, found.row.subject, found.id);
            prepared.mutations.push(Mutation::Delete(Family::Index, key));
        }
    }

    /// Removes the entries by which a subject holds a value.
    pub fn remove_holding<A>(&self, found: &Found, subject: SubjectHandle, prepared: &mut Prepared<A>) {
        let tenant = self.tenant.number;
        if subject.is_some() {
            prepared.changes.push(Fact::subject_rows(tenant, subject));
            let key = place::subject_row(tenant, subject, found.id);
            prepared.mutations.push(Mutation::Delete(Family::SubjectRows, key));
        }
        if found.is_shared() {
            prepared.changes.push(Fact::holders(tenant, found.id));
            let key = place::holder(tenant, found.id, subject);
            prepared.mutations.push(Mutation::Delete(Family::Holders, key));
        }
    }

    /// Marks a subject's DEK to be rolled: a value under it is gone or replaced, while the DEK lives on for others. Guards
    /// the row, since a roll that moves the value meanwhile seals it under another version.
    pub fn mark_dek<A>(&self, found: &Found, prepared: &mut Prepared<A>) {
        let row = &found.row;
        if row.subject.is_some() {
            prepared.guards.push(Guard::Unchanged(Fact::row(self.tenant.number, found.id)));
            let key = place::dek_mark(self.tenant.number, row.subject, row.keyring, row.dek_version);
            prepared.mutations.push(Mutation::Put(Family::Meta, key, vec![]));
        }
    }

    /// Opens a value.
    pub fn open(&self, found: &Found, what: Sealed) -> Result<strongroom_keys::Plaintext, Error> {
        let row = &found.row;
        let sealed = match what {
            Sealed::Token => row.sealed_token.as_deref().unwrap_or_default(),
            _ => &row.sealed,
        };
        let at = value_place(self.tenant.id, found.id, row, what);
        Ok(self.dek(found)?.open(&at, sealed)?)
    }

    /// The token that stands for a row.
    pub fn token_of(&self, found: &Found) -> Result<String, Error> {
        if found.row.sealed_token.is_some() {
            let token = self.open(found, Sealed::Token)?;
            return String::from_utf8(token.as_bytes().to_vec()).map_err(|_| Error::DataLoss("a sealed token"));
        }
        let key = self.vault.keystore.token_key_version(self.tenant.id, found.row.token_key)?;
        Ok(token::encode_opaque(key.version(), key.encrypt(found.id, found.row.check), alphabet(&found.field)))
    }

    /// The opaque token of a row that is being made.
    pub fn new_opaque_token(&self, field: &Field, id: RowId, check: [u8; 8]) -> String {
        let key = &self.rules.keys.token;
        token::encode_opaque(key.version(), key.encrypt(id, check), alphabet(field))
    }

    /// The blind-index entry of a value, if its field has one.
    pub fn value_index(&self, field: &Field, value: &[u8]) -> Result<Option<IndexEntry>, Error> {
        let Some(kind) = index_kind(field) else { return Ok(None) };
        let normal = normal(field, value)?;
        let key = self.vault.keystore.index_key(self.tenant.id, IndexName::Field(field.number))?;
        Ok(Some(IndexEntry { kind, version: key.version(), mac: key.mac(&[&normal]) }))
    }

    /// The blind-index entries that a value may have: the one that it is given now, then those that older versions of the
    /// index key made; none if its field has no index.
    pub fn value_indexes(&self, field: &Field, value: &[u8]) -> Result<Vec<IndexEntry>, Error> {
        let Some(kind) = index_kind(field) else { return Ok(vec![]) };
        let normal = normal(field, value)?;
        let keys = self.index_keys(IndexName::Field(field.number))?;
        let entry = |key: &IndexKey| IndexEntry { kind, version: key.version(), mac: key.mac(&[&normal]) };
        Ok(std::iter::once(keys.newest()).chain(keys.older()).map(entry).collect())
    }

    fn token_entry(&self, token: &[u8]) -> Result<IndexEntry, Error> {
        let key = self.vault.keystore.index_key(self.tenant.id, IndexName::Token)?;
        Ok(IndexEntry { kind: IndexKind::Token, version: key.version(), mac: key.mac(&[token]) })
    }

    /// Where the blind index keeps a shaped token.
    pub fn shaped_token_places(&self, token: &[u8]) -> Result<Places, Error> {
        let place = |key: &IndexKey| place::token(self.tenant.number, key.version(), &key.mac(&[token]));
        Ok(Places::of(&self.index_keys(IndexName::Token)?, place))
    }
}

/// What kind of entry leads to the values of a field; none if it has no index.
fn index_kind(field: &Field) -> Option<IndexKind> {
    match field.deterministic {
        Some(Scope::PerSubject) => Some(IndexKind::DeterministicSubject),
        Some(Scope::Tenant) => Some(IndexKind::DeterministicTenant),
        None => field.lookup.then_some(IndexKind::Value),
    }
}

/// The normal form of a value, from which its entry is computed.
fn normal(field: &Field, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    field.normalise(value).map_err(|broken| Error::invalid("value", broken.rule, broken.message))
}

/// Where what a row holds is sealed.
pub(crate) fn value_place(tenant: TenantId, id: RowId, row: &ValueRow, what: Sealed) -> ValuePlace {
    let owner = if row.subject.is_some() { DekOwner::Subject(row.subject) } else { DekOwner::Value(id) };
    ValuePlace {
        tenant,
        field: row.field,
        row: id,
        subject: row.subject,
        owner,
        keyring: row.keyring,
        dek_version: row.dek_version,
        row_version: row.version,
        what,
    }
}

/// The hash by which the ledger records a row. The row's salt is inside.
pub(crate) fn row_hash(encoded: &[u8]) -> [u8; 32] {
    sha256(encoded)
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The key of an index entry.
pub(crate) fn entry_key(
    tenant: strongroom_ids::TenantNo,
    field: &Field,
    entry: &IndexEntry,
    subject: SubjectHandle,
    row: RowId,
) -> Vec<u8> {
    match entry.kind {
        IndexKind::Value => place::value_index(tenant, field.number, entry.version, &entry.mac, row),
        IndexKind::DeterministicSubject => {
            place::deterministic_subject(tenant, field.number, entry.version, &entry.mac, subject)
        }
        IndexKind::DeterministicTenant => place::deterministic_tenant(tenant, field.number, entry.version, &entry.mac),
        IndexKind::SubjectId => place::subject_id(tenant, entry.version, &entry.mac),
        IndexKind::Token => place::token(tenant, entry.version, &entry.mac),
    }
}

/// What the entries of all rows with one value begin with.
pub(crate) fn lookup_prefix(tenant: strongroom_ids::TenantNo, field: &Field, entry: &IndexEntry) -> Vec<u8> {
    match entry.kind {
        IndexKind::DeterministicSubject => {
            place::deterministic_subject_prefix(tenant, field.number, entry.version, &entry.mac)
        }
        IndexKind::DeterministicTenant => place::deterministic_tenant(tenant, field.number, entry.version, &entry.mac),
        _ => place::value_index_prefix(tenant, field.number, entry.version, &entry.mac),
    }
}

/// The fact that a look-up guards: it changes with every new row of the value.
pub(crate) fn lookup_fact(tenant: strongroom_ids::TenantNo, field: &Field, entry: &IndexEntry) -> Fact {
    Fact::index(tenant, &lookup_prefix(tenant, field, entry))
}

/// The fact that an entry belongs to. All rows of one value share it, so that a look-up notices a new one.
pub(crate) fn index_fact(
    tenant: strongroom_ids::TenantNo,
    field: &Field,
    entry: &IndexEntry,
    subject: SubjectHandle,
) -> Fact {
    match entry.kind {
        IndexKind::Value => {
            Fact::index(tenant, &place::value_index_prefix(tenant, field.number, entry.version, &entry.mac))
        }
        _ => Fact::index(tenant, &entry_key(tenant, field, entry, subject, RowId(0))),
    }
}

/// How a field's opaque tokens are spelt.
pub(crate) fn alphabet(field: &Field) -> OpaqueAlphabet {
    match field.token {
        TokenFormat::OpaqueBase32 => OpaqueAlphabet::Base32,
        _ => OpaqueAlphabet::Base62,
    }
}
