//! Resolve: tokens become rows, and rows become subjects and wrapped DEKs. One `multi_get` a level.
//!
//! A token that leads nowhere takes the same steps as one that does, down to the look-up of a subject, so that the
//! time of an answer says little about why it is NOT_FOUND.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, SubjectHandle};
use strongroom_keys::{Dek, DekOwner, DekPlace, Sealed};
use strongroom_ledger::Timestamp;
use strongroom_schema::Field;
use strongroom_schema::token::{self, OpaqueAlphabet, ParsedToken, Token};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{RowDek, SubjectRecord, SubjectState, ValueRow};
use strongroom_storage::{Family, Store};
use subtle::ConstantTimeEq;

use crate::error::Error;
use crate::index::Places;
use crate::road::{Item, Road};
use crate::values::alphabet;

/// Rows read at once: what they hold is looked at before more is read.
const CHUNK: usize = 256;
/// Bytes of a row beside its value, about.
const ROW: usize = 1_024;

/// Where a token led. Items that name the same value share it.
#[derive(Clone)]
pub(crate) enum Resolved {
    /// To nothing: malformed in a way that only the vault can tell, never made, or deleted.
    Nothing,
    /// To a value that may no longer be read.
    Expired(Arc<Found>),
    /// To a value.
    Value(Arc<Found>),
}

impl Resolved {
    /// Of a value that is not released though its DEK was unwrapped, to see whether its token is the one: what keeps that DEK
    /// from staying in the cache if it was destroyed meanwhile.
    pub fn guards_if_unwrapped(&self, tenant: strongroom_ids::TenantNo, into: &mut Vec<Guard>) {
        if let Self::Value(found) | Self::Expired(found) = self
            && found.row.sealed_token.is_some()
        {
            into.push(Guard::Unchanged(Fact::row(tenant, found.id)));
            if found.row.subject.is_some() {
                into.push(Guard::Unchanged(Fact::subject_state(tenant, found.row.subject)));
            }
        }
    }
}

/// A value's row, and what it takes to open it.
#[derive(Clone)]
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
        let ids: Vec<RowId> = targets.iter().map(|target| target.row).collect();
        let mut resolved = self.resolve_rows(&ids).await?;
        for ((target, token), resolved) in targets.iter().zip(tokens).zip(&mut resolved) {
            if !self.stands_for(target, token, resolved)? {
                *resolved = Resolved::Nothing;
            }
        }
        Ok(resolved)
    }

    /// Follows row ids, as an index or an idempotency key names them, to their rows. A row that is named more than once
    /// is read once.
    pub async fn resolve_rows(&self, ids: &[RowId]) -> Result<Vec<Resolved>, Error> {
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let limit = self.vault.limits.message;
        let mut size = 0_usize;
        let mut rows = Vec::with_capacity(distinct.len());
        for chunk in distinct.chunks(CHUNK) {
            let keys = chunk.iter().map(|id| place::row(self.tenant.number, *id)).collect();
            let stored = self.vault.store.multi_get(Family::Rows, keys).await?;
            for (id, bytes) in chunk.iter().zip(&stored) {
                size = size.saturating_add(bytes.as_ref().map_or(0, |bytes| bytes.len()));
                rows.push((*id, bytes.as_deref().map(ValueRow::decode).transpose()?));
            }
            // More than an answer holds is not kept in memory either, whoever asks.
            if size > limit.saturating_add(ids.len().saturating_mul(ROW)) {
                return Err(Error::AnswerTooLarge { size, limit });
            }
        }
        let resolved: HashMap<RowId, Resolved> = self.follow(rows).await?.into_iter().collect();
        Ok(ids.iter().map(|id| resolved.get(id).cloned().unwrap_or(Resolved::Nothing)).collect())
    }

    /// Whether a value is the one that a token was made for.
    fn stands_for(&self, target: &Target, token: &str, resolved: &Resolved) -> Result<bool, Error> {
        let (Resolved::Value(found) | Resolved::Expired(found)) = resolved else { return Ok(true) };
        match &target.made_of {
            // The 64 random bits are compared in constant time.
            Some(Opaque { version, block, check }) => {
                let bits = found.row.sealed_token.is_none() && bool::from(check.ct_eq(&found.row.check));
                let spelling = token::encode_opaque(*version, *block, alphabet(&found.field));
                // A token has the alphabet of its field; base 32 is for where case is lost.
                let spelt = match alphabet(&found.field) {
                    OpaqueAlphabet::Base32 => spelling.eq_ignore_ascii_case(token),
                    OpaqueAlphabet::Base62 => spelling == token,
                };
                Ok(bits && spelt)
            }
            None if found.row.sealed_token.is_none() => Ok(false),
            // The index is not what proves a token: the row's own sealed copy does.
            None => match self.open(found, Sealed::Token)?.as_bytes().ct_eq(token.as_bytes()).into() {
                true => Ok(true),
                false => Err(Error::DataLoss("the index entry of a token")),
            },
        }
    }

    /// The second level: subjects' records, and the DEKs of values without one.
    async fn follow(&self, rows: Vec<(RowId, Option<ValueRow>)>) -> Result<Vec<(RowId, Resolved)>, Error> {
        let mut handles: Vec<SubjectHandle> = Vec::new();
        let mut lonely: Vec<RowId> = Vec::new();
        for (id, row) in &rows {
            match row {
                Some(row) if row.subject.is_some() => handles.push(row.subject),
                Some(_) => lonely.push(*id),
                // The same work for a token that leads nowhere: look for a subject that does not exist.
                None => handles.push(SubjectHandle(id.0)),
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
            .map(|(id, row)| match row {
                None => Ok((id, Resolved::Nothing)),
                Some(row) => {
                    let subject = subjects.get(&row.subject).cloned();
                    let own_dek = own.remove(&id);
                    Ok((id, self.found(id, row, subject, own_dek)?))
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
        let mut expires = expiry(&field, row.created, row.expires);
        if row.subject.is_some() {
            let Some(record) = &subject else { return Ok(Resolved::Nothing) };
            let held = self.held_until(record, field.number);
            match record.state {
                SubjectState::Open | SubjectState::Leaving => {
                    let is_over = expires.is_some_and(|at| at <= self.now);
                    expires = held.filter(|_| is_over).or(expires);
                }
                // All else of it is gone, and to everybody else this is, too.
                SubjectState::Held if held.is_some() => expires = held,
                // Its DEKs are destroyed: what is left of the row opens nothing.
                SubjectState::Held | SubjectState::Closed => return Ok(Resolved::Nothing),
            }
        }
        let found = Arc::new(Found { id, row, field, subject, own_dek, expires });
        Ok(if expires.is_some_and(|at| at <= self.now) { Resolved::Expired(found) } else { Resolved::Value(found) })
    }

    /// Until when a field of a subject is held for what the request is for, if it is. The vault itself is for all of it.
    pub fn held_until(&self, record: &SubjectRecord, field: FieldNo) -> Option<u64> {
        let meant = |purpose: &str| self.purpose == Some(purpose) || self.action == Action::Reindex;
        let holds = record.standing(self.now).filter(|hold| hold.keeps(field) && meant(&hold.purpose));
        holds.map(|hold| hold.until).max()
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

    /// The same for one row, however many there are: what is wrong with another is no reason to refuse it.
    pub async fn follow_one(&self, id: RowId, row: ValueRow) -> Result<Resolved, Error> {
        let followed = self.follow(vec![(id, Some(row))]).await?;
        Ok(followed.into_iter().next().map_or(Resolved::Nothing, |(_, resolved)| resolved))
    }

    /// The DEK that opens a value, from the cache or unwrapped.
    pub fn dek(&self, found: &Found) -> Result<Arc<Dek>, Error> {
        let (owner, kek_version, wrapped) = found.wrapped_dek()?;
        self.unwrap_dek(owner, found.row.keyring, found.row.dek_version, kek_version, wrapped)
    }

    /// The same for who needs it once: it does not push others out of the cache.
    pub fn dek_once(&self, found: &Found) -> Result<Arc<Dek>, Error> {
        let (owner, kek_version, wrapped) = found.wrapped_dek()?;
        let (keyring, version) = (found.row.keyring, found.row.dek_version);
        self.unwrap_once(&DekPlace { tenant: self.tenant.id, keyring, owner, version }, kek_version, wrapped)
    }

    /// Unwraps a DEK, unless the cache has it.
    pub fn unwrap_dek(
        &self,
        owner: DekOwner,
        keyring: KeyringNo,
        version: DekVersion,
        kek_version: KeyVersion,
        wrapped: &[u8],
    ) -> Result<Arc<Dek>, Error> {
        let at = DekPlace { tenant: self.tenant.id, keyring, owner, version };
        if let Some(dek) = self.vault.deks.get(&at) {
            return Ok(dek);
        }
        let dek = self.unwrap_anew(&at, kek_version, wrapped)?;
        self.vault.deks.insert(at, Arc::clone(&dek));
        self.unwrapped.note(at);
        Ok(dek)
    }

    /// Unwraps a DEK that nobody may need again soon: it does not push others out of the cache.
    pub fn unwrap_once(&self, at: &DekPlace, kek_version: KeyVersion, wrapped: &[u8]) -> Result<Arc<Dek>, Error> {
        match self.vault.deks.get(at) {
            Some(dek) => Ok(dek),
            None => self.unwrap_anew(at, kek_version, wrapped),
        }
    }

    fn unwrap_anew(&self, at: &DekPlace, kek_version: KeyVersion, wrapped: &[u8]) -> Result<Arc<Dek>, Error> {
        let kek = self.vault.keystore.kek_version(at.tenant, at.keyring, kek_version)?;
        Ok(kek.unwrap(at, wrapped)?)
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
                            Target { row, made_of: Some(Opaque { version, block, check }) }
                        }
                        Err(_) => Target::NOWHERE,
                    });
                }
                Ok(ParsedToken::Shaped(text)) => {
                    shaped.push((index, self.shaped_token_places(text.as_bytes())?));
                    targets.push(Target::NOWHERE);
                }
                Err(_) => targets.push(Target::NOWHERE),
            }
        }
        if !shaped.is_empty() {
            let places: Vec<&Places> = shaped.iter().map(|(_, places)| places).collect();
            for ((index, _), bytes) in shaped.iter().zip(self.look_up(&places).await?) {
                if let Some(bytes) = bytes {
                    targets[*index] = Target { row: place::decode_row_id(&bytes)?, made_of: None };
                }
            }
        }
        Ok(targets)
    }
}

/// Where a token points, before anybody looked.
struct Target {
    row: RowId,
    /// What an opaque token says of itself; none for a shaped one.
    made_of: Option<Opaque>,
}

struct Opaque {
    version: KeyVersion,
    block: [u8; 16],
    check: [u8; 8],
}

impl Target {
    /// No row has this id: the counter starts at one.
    const NOWHERE: Self = Self { row: RowId(0), made_of: None };
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
    /// The DEK that opens the value as it is wrapped, whose it is, and by which version of its KEK.
    fn wrapped_dek(&self) -> Result<(DekOwner, KeyVersion, &[u8]), Error> {
        match &self.subject {
            Some(record) => {
                let (keyring, version) = (self.row.keyring, self.row.dek_version);
                let wrapped = record.deks.iter().find(|dek| dek.keyring == keyring && dek.version == version);
                let wrapped = wrapped.ok_or(Error::DataLoss("a subject without the DEK of its value"))?;
                Ok((DekOwner::Subject(record.handle), wrapped.kek_version, &wrapped.blob))
            }
            None => {
                let wrapped = self.own_dek.as_ref().ok_or(Error::DataLoss("a value without its DEK"))?;
                Ok((DekOwner::Value(self.id), wrapped.kek_version, &wrapped.blob))
            }
        }
    }

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
