//! Resolve: tokens become rows, and rows become subjects and wrapped DEKs. One `multi_get` a level.
//!
//! A token that leads nowhere takes the same steps as one that does, down to the look-up of a subject, so that the
//! time of an answer says little about why it is NOT_FOUND.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, KeyringNo, RowId, SubjectHandle};
use strongroom_keys::{Dek, DekOwner, DekPlace};
use strongroom_ledger::Timestamp;
use strongroom_schema::Field;
use strongroom_schema::token::{ParsedToken, Token};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{RowDek, SubjectRecord, SubjectState, ValueRow};
use strongroom_storage::{Family, Store};
use subtle::ConstantTimeEq;

use crate::error::Error;
use crate::road::{Item, Road};

/// Where a token led.
pub(crate) enum Resolved {
    /// To nothing: malformed in a way that only the vault can tell, never made, or deleted.
    Nothing,
    /// To a value that may no longer be read.
    Expired(Box<Found>),
    /// To a value.
    Value(Box<Found>),
}

/// A value's row, and what it takes to open it.
pub(crate) struct Found {
    pub id: RowId,
    pub row: ValueRow,
    pub field: Arc<Field>,
    /// The record of the row's subject, if it has one.
    pub subject: Option<Arc<SubjectRecord>>,
    /// The DEK of a value that has none.
    pub own_dek: Option<RowDek>,
    /// When it stops being readable, in microseconds since 1970.
    pub expires: Option<u64>,
}

impl<S: Store> Road<'_, S> {
    /// Follows tokens to their rows. `tokens` are within the limits already.
    pub async fn resolve(&self, tokens: &[&str]) -> Result<Vec<Resolved>, Error> {
        let targets = self.rows_of_tokens(tokens).await?;
        let keys = targets.iter().map(|target| place::row(self.tenant.number, target.row)).collect();
        let stored = self.vault.store.multi_get(Family::Rows, keys).await?;
        let mut rows = Vec::with_capacity(tokens.len());
        for (target, bytes) in targets.iter().zip(&stored) {
            let row = bytes.as_deref().map(ValueRow::decode).transpose()?;
            rows.push(row.filter(|row| target.stands_for(row)).map(|row| (target.row, row)));
        }
        self.follow(rows, &targets).await
    }

    /// Follows row ids, as an index or an idempotency key names them, to their rows.
    pub async fn resolve_rows(&self, ids: &[RowId]) -> Result<Vec<Resolved>, Error> {
        let keys = ids.iter().map(|id| place::row(self.tenant.number, *id)).collect();
        let stored = self.vault.store.multi_get(Family::Rows, keys).await?;
        let mut rows = Vec::with_capacity(ids.len());
        for (id, bytes) in ids.iter().zip(&stored) {
            rows.push(bytes.as_deref().map(ValueRow::decode).transpose()?.map(|row| (*id, row)));
        }
        self.follow(rows, &[]).await
    }

    /// The second level: subjects' records, and the DEKs of values without one.
    async fn follow(&self, rows: Vec<Option<(RowId, ValueRow)>>, targets: &[Target]) -> Result<Vec<Resolved>, Error> {
        let mut handles: Vec<SubjectHandle> = Vec::new();
        let mut lonely: Vec<RowId> = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            match row {
                Some((_, row)) if row.subject.is_some() => handles.push(row.subject),
                Some((id, _)) => lonely.push(*id),
                // The same work for a token that leads nowhere: look for a subject that does not exist.
                None => handles.push(SubjectHandle(targets.get(index).map_or(u64::MAX, |target| target.row.0))),
            }
        }
        handles.sort_unstable();
        handles.dedup();
        let subjects = self.subject_records(&handles).await?;
        let keys = lonely.iter().map(|id| place::row_dek(self.tenant.number, *id)).collect();
        let own = match lonely.is_empty() {
            true => vec![],
            false => self.vault.store.multi_get(Family::RowDeks, keys).await?,
        };
        let mut own: HashMap<RowId, RowDek> = lonely
            .iter()
            .zip(own)
            .filter_map(|(id, bytes)| bytes.map(|bytes| RowDek::decode(&bytes).map(|dek| (*id, dek))))
            .collect::<Result<_, _>>()?;
        rows.into_iter()
            .map(|row| match row {
                None => Ok(Resolved::Nothing),
                Some((id, row)) => {
                    let subject = subjects.get(&row.subject).cloned();
                    let own_dek = own.remove(&id);
                    self.found(id, row, subject, own_dek)
                }
            })
            .collect()
    }

    fn found(
        &self,
        id: RowId,
        row: ValueRow,
        subject: Option<Arc<SubjectRecord>>,
        own_dek: Option<RowDek>,
    ) -> Result<Resolved, Error> {
        let field = self.schema.field_no(row.field).ok_or(Error::DataLoss("a row of an undeclared field"))?.clone();
        let expires = expiry(&field, row.created, row.expires);
        let closed = subject.as_ref().is_none_or(|record| record.state == SubjectState::Closed);
        if row.subject.is_some() && closed {
            // Its subject is gone and its DEK with it: what is left of the row opens nothing.
            return Ok(Resolved::Nothing);
        }
        let found = Box::new(Found { id, row, field, subject, own_dek, expires });
        Ok(if expires.is_some_and(|at| at <= self.now) { Resolved::Expired(found) } else { Resolved::Value(found) })
    }

    /// The records of subjects, by handle.
    pub async fn subject_records(
        &self,
        handles: &[SubjectHandle],
    ) -> Result<HashMap<SubjectHandle, Arc<SubjectRecord>>, Error> {
        if handles.is_empty() {
            return Ok(HashMap::new());
        }
        let keys = handles.iter().map(|handle| place::subject(self.tenant.number, *handle)).collect();
        let stored = self.vault.store.multi_get(Family::Subjects, keys).await?;
        let mut records = HashMap::with_capacity(handles.len());
        for (handle, bytes) in handles.iter().zip(stored) {
            if let Some(bytes) = bytes {
                records.insert(*handle, Arc::new(SubjectRecord::decode(&bytes)?));
            }
        }
        Ok(records)
    }

    /// The DEK that opens a value, from the cache or unwrapped.
    pub fn dek(&self, found: &Found) -> Result<Arc<Dek>, Error> {
        let version = found.row.dek_version;
        match &found.subject {
            Some(record) => {
                let wrapped = record
                    .deks
                    .iter()
                    .find(|dek| dek.keyring == found.row.keyring && dek.version == version)
                    .ok_or(Error::DataLoss("a subject without the DEK of its value"))?;
                let owner = DekOwner::Subject(record.handle);
                self.unwrap_dek(owner, found.row.keyring, version, wrapped.kek_version, &wrapped.blob)
            }
            None => {
                let wrapped = found.own_dek.as_ref().ok_or(Error::DataLoss("a value without its DEK"))?;
                let owner = DekOwner::Value(found.id);
                self.unwrap_dek(owner, found.row.keyring, version, wrapped.kek_version, &wrapped.blob)
            }
        }
    }

    /// Unwraps a DEK, unless the cache has it.
    pub fn unwrap_dek(
        &self,
        owner: DekOwner,
        keyring: KeyringNo,
        version: DekVersion,
        kek_version: strongroom_ids::KeyVersion,
        wrapped: &[u8],
    ) -> Result<Arc<Dek>, Error> {
        let at = DekPlace { tenant: self.tenant.id, keyring, owner, version };
        if let Some(dek) = self.vault.deks.get(&at) {
            return Ok(dek);
        }
        let kek = self.vault.keystore.kek_version(self.tenant.id, keyring, kek_version)?;
        let dek = Arc::new(kek.unwrap(&at, wrapped)?);
        self.vault.deks.insert(at, Arc::clone(&dek));
        Ok(dek)
    }

    /// First level, before rows: opaque tokens name their row, shaped ones are found through the blind index.
    async fn rows_of_tokens(&self, tokens: &[&str]) -> Result<Vec<Target>, Error> {
        let mut targets = Vec::with_capacity(tokens.len());
        let mut shaped = Vec::new();
        for (index, text) in tokens.iter().enumerate() {
            match Token::parse(text) {
                Ok(ParsedToken::Opaque { version, block }) => {
                    targets.push(match self.vault.keystore.token_key_version(self.tenant.id, version) {
                        Ok(key) => {
                            let (row, check) = key.decrypt(block);
                            Target { row, check: Some(check), opaque: true }
                        }
                        Err(_) => Target::NOWHERE,
                    });
                }
                Ok(ParsedToken::Shaped(text)) => {
                    shaped.push((index, self.shaped_token_key(text.as_bytes())?));
                    targets.push(Target::NOWHERE);
                }
                Err(_) => targets.push(Target::NOWHERE),
            }
        }
        if !shaped.is_empty() {
            let keys = shaped.iter().map(|(_, key)| key.clone()).collect();
            let stored = self.vault.store.multi_get(Family::Index, keys).await?;
            for ((index, _), bytes) in shaped.iter().zip(stored) {
                if let Some(bytes) = bytes {
                    targets[*index] = Target { row: place::decode_row_id(&bytes)?, check: None, opaque: false };
                }
            }
        }
        Ok(targets)
    }
}

/// Where a token points, before anybody looked.
struct Target {
    row: RowId,
    check: Option<[u8; 8]>,
    opaque: bool,
}

impl Target {
    /// No row has this id: the counter starts at one.
    const NOWHERE: Self = Self { row: RowId(0), check: None, opaque: false };

    /// Whether the row is the one that the token was made for. The 64 random bits are compared in constant time.
    fn stands_for(&self, row: &ValueRow) -> bool {
        match self.check {
            Some(check) => self.opaque && row.sealed_token.is_none() && bool::from(check.ct_eq(&row.check)),
            None => row.sealed_token.is_some(),
        }
    }
}

/// When a value stops being readable: its own expiry or its field's retention, whichever is first.
pub(crate) fn expiry(field: &Field, created: u64, own: Option<u64>) -> Option<u64> {
    let retained = field.retention.micros().map(|span| created.saturating_add(span));
    match (own, retained) {
        (Some(own), Some(retained)) => Some(own.min(retained)),
        (own, retained) => own.or(retained),
    }
}

impl Found {
    /// What must not have changed for this value to be released.
    pub fn guards(&self, tenant: strongroom_ids::TenantNo, into: &mut Vec<Guard>) {
        into.push(Guard::Unchanged(Fact::row(tenant, self.id)));
        if self.row.subject.is_some() {
            into.push(Guard::Unchanged(Fact::subject_state(tenant, self.row.subject)));
        }
        if let Some(at) = self.expires {
            into.push(Guard::Before(Timestamp(at)));
        }
    }

    /// Whether the value may have several holders.
    pub fn is_shared(&self) -> bool {
        self.field.deterministic == Some(strongroom_schema::Scope::Tenant)
    }

    /// The ledger's line about it.
    pub fn item(&self, outcome: &'static str) -> Item {
        Item {
            field: Some(Arc::clone(&self.field.full_name)),
            row: Some(self.id),
            outcome,
            subject: Some(self.row.subject),
            ..Item::default()
        }
    }
}
