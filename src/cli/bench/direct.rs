//! The second yardstick: the seals and store entries of the same requests, made in this process and nothing else.
//!
//! No connection, no validation, no policy, no guards, no committer. What stays is what no vault of this design can
//! leave out: a DEK for each subject and keyring, AES-256-GCM over each value, blind-index MACs, the encoded rows, and
//! one durable write a group, with an entry in it as large as the ledger's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom_ids::{
    DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId, TenantNo, VaultId,
};
use strongroom_keys::{
    self as keys, ArgonCost, Dek, DekCache, DekOwner, DekPlace, IndexName, KeyName, Keystore, Passphrase,
    PassphraseRoot, Sealed, ValuePlace,
};
use strongroom_rocksdb::{Background, RocksOptions, RocksStore};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind, RowDek, SubjectRecord, SubjectState, ValueRow, WrappedDek};
use strongroom_storage::{Family, Mutation, Store};
use tokio::runtime::Handle;

use super::dice::Dice;
use super::drive::Group;
use super::population::{Datum, FIELDS, Owner, Shape};
use super::work::unfit;
use crate::cli::output::CliError;

const TENANT: TenantNo = TenantNo(1);
/// The tenant's own keyring, which seals subject ids.
const OWN: KeyringNo = KeyringNo(0);
/// Row ids that one load may use: gaps are as normal as in the vault.
const ROWS_OF_A_LOAD: u64 = 1 << 32;

/// The leaf of one request, in its parts.
pub type Leaf = Arc<Vec<Vec<u8>>>;

/// A store and keys of its own.
pub struct Direct {
    store: RocksStore,
    keystore: Keystore,
    tenant: TenantId,
    deks: DekCache,
    rows: AtomicU64,
    subjects: AtomicU64,
    leaves: AtomicU64,
}

/// A subject that is being written.
struct Subject {
    record: SubjectRecord,
    deks: Vec<(KeyringNo, Arc<Dek>)>,
}

/// One request's entries, and the random bytes that it draws from.
struct Writing {
    mutations: Vec<Mutation>,
    dice: Dice,
}

impl Direct {
    /// Makes one in an empty folder.
    pub fn create(folder: &Path, options: RocksOptions, hot_deks: usize) -> Result<Self, CliError> {
        let passphrase = Passphrase::new("a yardstick protects nothing".to_owned()).map_err(unfit)?;
        let root = PassphraseRoot::new(passphrase, ArgonCost::LEAST);
        let vault = VaultId(keys::random().map_err(unfit)?);
        let keystore = Keystore::create(&folder.join("keystore"), vault, &root).map_err(unfit)?;
        let tenant = TenantId(keys::random().map_err(unfit)?);
        let mut names = vec![KeyName::Kek(tenant, OWN), KeyName::Index(tenant, IndexName::SubjectId)];
        for (column, field) in FIELDS.iter().enumerate() {
            names.push(KeyName::Kek(tenant, KeyringNo(field.keyring)));
            if field.indexed {
                names.push(KeyName::Index(tenant, IndexName::Field(number_of(column))));
            }
        }
        names.sort_by_key(ToString::to_string);
        names.dedup();
        keystore.ensure(&names, 1).map_err(unfit)?;
        let store = RocksStore::create(&folder.join("data"), options).map_err(unfit)?;
        let [rows, subjects, leaves] = [1, 1, 0].map(AtomicU64::new);
        Ok(Self { store, keystore, tenant, deks: DekCache::new(hot_deks), rows, subjects, leaves })
    }

    /// What its store does in the background.
    pub fn background(&self) -> Background {
        self.store.background()
    }

    /// Row ids for a load; a request's come in the order of its number.
    pub fn rows(&self) -> RowId {
        RowId(self.rows.fetch_add(ROWS_OF_A_LOAD, Ordering::Relaxed))
    }

    /// Writes the requests of a group, all of one shape, in one write. Request `n` has the population's numbers, and the
    /// rows, that come after those of `n` requests.
    pub fn write(&self, group: &Group, shape: Shape, first: u64, rows: RowId, leaf: &Leaf) -> Result<(), CliError> {
        let mut all = Vec::new();
        for request in group.requests() {
            let mut writing = Writing { mutations: all, dice: Dice::default() };
            let mut row = RowId(rows.0 + request * shape.items as u64);
            let mut subject: Option<(u64, Subject)> = None;
            for datum in shape.data(first + request * shape.numbers()) {
                match datum.owner {
                    Owner::Nobody => self.single(&datum, row, &mut writing)?,
                    Owner::Borrower => {
                        if subject.as_ref().is_none_or(|(number, _)| *number != datum.number) {
                            if let Some((_, done)) = subject.take() {
                                keep(&done, &mut writing);
                            }
                            subject = Some((datum.number, self.subject(&datum.subject(), &mut writing)?));
                        }
                        if let Some((_, subject)) = &mut subject {
                            self.of_subject(&datum, row, subject, &mut writing)?;
                        }
                    }
                }
                row.0 += 1;
            }
            if let Some((_, done)) = &subject {
                keep(done, &mut writing);
            }
            all = writing.mutations;
            self.leave(leaf, &mut all);
        }
        Handle::current().block_on(self.store.write(all)).map_err(unfit)
    }

    /// Reads and opens the rows of each request of a group. With a leaf, one a request is written, all in one write.
    pub fn read(&self, requests: &[Vec<RowId>], owner: Owner, leaf: Option<&Leaf>) -> Result<(), CliError> {
        let mut leaves = Vec::new();
        for rows in requests {
            self.open(rows, owner)?;
            if let Some(leaf) = leaf {
                self.leave(leaf, &mut leaves);
            }
        }
        match leaves.is_empty() {
            true => Ok(()),
            false => Handle::current().block_on(self.store.write(leaves)).map_err(unfit),
        }
    }

    fn leave(&self, leaf: &Leaf, mutations: &mut Vec<Mutation>) {
        for part in leaf.iter() {
            let index = self.leaves.fetch_add(1, Ordering::Relaxed);
            mutations.push(Mutation::Put(Family::Leaves, place::leaf(TENANT, index), part.clone()));
        }
    }

    fn subject(&self, id: &str, writing: &mut Writing) -> Result<Subject, CliError> {
        let handle = SubjectHandle(self.subjects.fetch_add(1, Ordering::Relaxed));
        let index = self.keystore.index_key(self.tenant, IndexName::SubjectId).map_err(unfit)?;
        let id_index =
            IndexEntry { kind: IndexKind::SubjectId, version: index.version(), mac: index.mac(&[id.as_bytes()]) };
        let key = place::subject_id(TENANT, id_index.version, &id_index.mac);
        writing.mutations.push(Mutation::Put(Family::Index, key, place::encode_handles(&[handle])));
        let record = SubjectRecord {
            handle,
            state: SubjectState::Open,
            created: 1,
            salt: writing.dice.roll()?,
            sealed_id: vec![],
            id_index,
            deks: vec![],
            labels: vec![],
            consents: vec![],
            holds: vec![],
            erasure: None,
        };
        let mut subject = Subject { record, deks: vec![] };
        let at = self.at(FieldNo(0), RowId(0), handle, OWN, Sealed::SubjectId);
        subject.record.sealed_id = self.dek(&mut subject, OWN)?.seal(&at, id.as_bytes()).map_err(unfit)?;
        Ok(subject)
    }

    fn dek<'s>(&self, subject: &'s mut Subject, keyring: KeyringNo) -> Result<&'s Dek, CliError> {
        let found = subject.deks.iter().position(|(of, _)| *of == keyring);
        let found = match found {
            Some(found) => found,
            None => {
                let owner = DekOwner::Subject(subject.record.handle);
                let (dek, wrapped) = self.new_dek(owner, keyring)?;
                subject.record.deks.push(wrapped);
                subject.deks.push((keyring, dek));
                subject.deks.len() - 1
            }
        };
        Ok(&subject.deks[found].1)
    }

    fn new_dek(&self, owner: DekOwner, keyring: KeyringNo) -> Result<(Arc<Dek>, WrappedDek), CliError> {
        let kek = self.keystore.kek(self.tenant, keyring).map_err(unfit)?;
        let (dek, blob) = kek.new_dek(&self.dek_place(owner, keyring)).map_err(unfit)?;
        Ok((dek, WrappedDek { keyring, version: DekVersion(1), kek_version: kek.version(), blob }))
    }

    /// A value that is nobody's, with a DEK of its own beside its row.
    fn single(&self, datum: &Datum, row: RowId, writing: &mut Writing) -> Result<(), CliError> {
        let keyring = KeyringNo(datum.field().keyring);
        let (dek, wrapped) = self.new_dek(DekOwner::Value(row), keyring)?;
        let key = place::row_dek(TENANT, row);
        writing.mutations.push(Mutation::Put(Family::RowDeks, key, RowDek::from(wrapped).encode()));
        self.value(datum, row, SubjectHandle::NONE, &dek, writing)
    }

    fn of_subject(
        &self,
        datum: &Datum,
        row: RowId,
        subject: &mut Subject,
        writing: &mut Writing,
    ) -> Result<(), CliError> {
        let handle = subject.record.handle;
        let dek = self.dek(subject, KeyringNo(datum.field().keyring))?;
        self.value(datum, row, handle, dek, writing)?;
        writing.mutations.push(Mutation::Put(Family::SubjectRows, place::subject_row(TENANT, handle, row), vec![]));
        Ok(())
    }

    fn value(
        &self,
        datum: &Datum,
        row: RowId,
        subject: SubjectHandle,
        dek: &Dek,
        writing: &mut Writing,
    ) -> Result<(), CliError> {
        let (field, keyring, value) = (number_of(datum.column), KeyringNo(datum.field().keyring), datum.value());
        let mut indexes = Vec::new();
        if datum.field().indexed {
            let key = self.keystore.index_key(self.tenant, IndexName::Field(field)).map_err(unfit)?;
            let entry = IndexEntry { kind: IndexKind::Value, version: key.version(), mac: key.mac(&[&value]) };
            let key = place::value_index(TENANT, field, entry.version, &entry.mac, row);
            writing.mutations.push(Mutation::Put(Family::Index, key, vec![]));
            indexes.push(entry);
        }
        let entry = ValueRow {
            field,
            version: RowVersion(1),
            token_key: KeyVersion(1),
            check: writing.dice.roll()?,
            keyring,
            dek_version: DekVersion(1),
            subject,
            salt: writing.dice.roll()?,
            created: 1_795_000_000_000_000,
            expires: None,
            indexes,
            sealed_token: None,
            sealed: dek.seal(&self.at(field, row, subject, keyring, Sealed::Value), &value).map_err(unfit)?,
        };
        writing.mutations.push(Mutation::Put(Family::Rows, place::row(TENANT, row), entry.encode()));
        Ok(())
    }

    fn open(&self, ids: &[RowId], owner: Owner) -> Result<(), CliError> {
        let mut rows = Vec::with_capacity(ids.len());
        for bytes in self.entries(Family::Rows, ids.iter().map(|id| place::row(TENANT, *id)).collect())? {
            rows.push(ValueRow::decode(&bytes).map_err(unfit)?);
        }
        match owner {
            Owner::Nobody => {
                let deks = self.entries(Family::RowDeks, ids.iter().map(|id| place::row_dek(TENANT, *id)).collect())?;
                for ((id, row), wrapped) in ids.iter().zip(&rows).zip(deks) {
                    let wrapped = RowDek::decode(&wrapped).map_err(unfit)?;
                    let dek = self.unwrap(DekOwner::Value(*id), row.keyring, wrapped.kek_version, &wrapped.blob)?;
                    self.open_value(*id, row, &dek)?;
                }
            }
            Owner::Borrower => {
                let mut handles: Vec<SubjectHandle> = rows.iter().map(|row| row.subject).collect();
                handles.sort_unstable();
                handles.dedup();
                let keys = handles.iter().map(|handle| place::subject(TENANT, *handle)).collect();
                let mut records = Vec::with_capacity(handles.len());
                for bytes in self.entries(Family::Subjects, keys)? {
                    records.push(SubjectRecord::decode(&bytes).map_err(unfit)?);
                }
                for (id, row) in ids.iter().zip(&rows) {
                    let record = handles.binary_search(&row.subject).map(|found| &records[found]);
                    let record = record.map_err(|_| lost("a subject"))?;
                    let wrapped = record.deks.iter().find(|dek| dek.keyring == row.keyring);
                    let wrapped = wrapped.ok_or_else(|| lost("a DEK"))?;
                    let owner = DekOwner::Subject(row.subject);
                    let dek = self.unwrap(owner, row.keyring, wrapped.kek_version, &wrapped.blob)?;
                    self.open_value(*id, row, &dek)?;
                }
            }
        }
        Ok(())
    }

    fn entries(&self, family: Family, keys: Vec<Vec<u8>>) -> Result<Vec<bytes::Bytes>, CliError> {
        let wanted = keys.len();
        let stored = Handle::current().block_on(self.store.multi_get(family, keys)).map_err(unfit)?;
        let found: Vec<_> = stored.into_iter().flatten().collect();
        if found.len() == wanted { Ok(found) } else { Err(lost("an entry")) }
    }

    fn open_value(&self, id: RowId, row: &ValueRow, dek: &Dek) -> Result<(), CliError> {
        let at = self.at(row.field, id, row.subject, row.keyring, Sealed::Value);
        dek.open(&at, &row.sealed).map(drop).map_err(unfit)
    }

    fn unwrap(
        &self,
        owner: DekOwner,
        keyring: KeyringNo,
        kek_version: KeyVersion,
        wrapped: &[u8],
    ) -> Result<Arc<Dek>, CliError> {
        let at = self.dek_place(owner, keyring);
        if let Some(dek) = self.deks.get(&at) {
            return Ok(dek);
        }
        let kek = self.keystore.kek_version(self.tenant, keyring, kek_version).map_err(unfit)?;
        let dek = kek.unwrap(&at, wrapped).map_err(unfit)?;
        self.deks.insert(at, Arc::clone(&dek));
        Ok(dek)
    }

    fn dek_place(&self, owner: DekOwner, keyring: KeyringNo) -> DekPlace {
        DekPlace { tenant: self.tenant, keyring, owner, version: DekVersion(1) }
    }

    fn at(&self, field: FieldNo, row: RowId, subject: SubjectHandle, keyring: KeyringNo, what: Sealed) -> ValuePlace {
        let owner = if subject.is_some() { DekOwner::Subject(subject) } else { DekOwner::Value(row) };
        ValuePlace {
            tenant: self.tenant,
            field,
            row,
            subject,
            owner,
            keyring,
            dek_version: DekVersion(1),
            row_version: RowVersion(1),
            what,
        }
    }
}

fn keep(subject: &Subject, writing: &mut Writing) {
    let key = place::subject(TENANT, subject.record.handle);
    writing.mutations.push(Mutation::Put(Family::Subjects, key, subject.record.encode()));
}

/// A column's number as a field.
fn number_of(column: usize) -> FieldNo {
    FieldNo(101 + column as u32)
}

fn lost(what: &str) -> CliError {
    CliError::unfit(format!("the yardstick lost {what} that it wrote"))
}
