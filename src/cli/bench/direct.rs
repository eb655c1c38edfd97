//! The second yardstick: the seals and store entries of the same requests, made in this process and nothing else.
//!
//! No connection, no validation, no policy, no guards, no committer. What stays is what no vault of this design can
//! leave out: a DEK for each subject and keyring, AES-256-GCM over each value, blind-index MACs, the encoded rows, and
//! one durable write a group, with an entry in it as large as the ledger's.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strongroom_ids::{
    DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId, TenantNo, VaultId,
};
use strongroom_keys::{
    self as keys, ArgonCost, Dek, DekCache, DekOwner, DekPlace, IndexName, KeyName, Keystore, Passphrase, Sealed,
    ValuePlace, root_key,
};
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind, SubjectRecord, SubjectState, ValueRow, WrappedDek};
use strongroom_storage::{Family, Mutation, Store};
use tokio::runtime::Handle;

use super::measure::{self, Meter, Sample};
use super::workload::{self, VALUES};
use crate::cli::demo::borrowers::Borrower;
use crate::cli::output::CliError;

const TENANT: TenantNo = TenantNo(1);
/// The tenant's own keyring, which seals subject ids.
const OWN: KeyringNo = KeyringNo(0);

/// What the lending schema makes of a borrower's columns: field, keyring, equality lookup, shaped token.
const COLUMNS: [(u32, u16, bool, bool); VALUES] = [
    (1, 1, false, false),
    (2, 1, true, false),
    (3, 1, true, false),
    (4, 1, false, true),
    (5, 2, false, true),
    (6, 1, false, false),
];

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
    deks: Vec<(KeyringNo, Dek)>,
}

impl Direct {
    /// Makes one in an empty folder.
    pub fn create(folder: &Path, options: RocksOptions, hot_deks: usize) -> Result<Self, CliError> {
        let passphrase = Passphrase::new("a yardstick protects nothing".to_owned()).map_err(unfit)?;
        let root = root_key::seal_new(&folder.join("keystore"), &passphrase, ArgonCost::LEAST).map_err(unfit)?;
        let vault = VaultId(keys::random().map_err(unfit)?);
        let keystore = Keystore::create(&folder.join("keystore"), vault, &root).map_err(unfit)?;
        let tenant = TenantId(keys::random().map_err(unfit)?);
        let mut names = vec![
            KeyName::Kek(tenant, OWN),
            KeyName::Index(tenant, IndexName::SubjectId),
            KeyName::Index(tenant, IndexName::Token),
        ];
        for (field, keyring, indexed, _) in COLUMNS {
            names.push(KeyName::Kek(tenant, KeyringNo(keyring)));
            if indexed {
                names.push(KeyName::Index(tenant, IndexName::Field(FieldNo(field))));
            }
        }
        names.sort_by_key(ToString::to_string);
        names.dedup();
        keystore.ensure(&names).map_err(unfit)?;
        let store = RocksStore::create(&folder.join("data"), options).map_err(unfit)?;
        let [rows, subjects, leaves] = [1, 1, 0].map(AtomicU64::new);
        Ok(Self { store, keystore, tenant, deks: DekCache::new(hot_deks), rows, subjects, leaves })
    }

    /// Writes all that is in memory to files and compacts them.
    pub async fn settle(&self) -> Result<(), CliError> {
        self.store.flush_and_compact().await.map_err(unfit)
    }

    /// Writes borrowers, this many in one write, `at_once` writes under way. Returns the rows by their places.
    pub async fn write_batches(
        self: &Arc<Self>,
        borrowers: &Arc<Vec<Borrower>>,
        together: usize,
        at_once: usize,
        leaf: &Leaf,
    ) -> Result<(Sample, Vec<RowId>), CliError> {
        let batches = borrowers.len().div_ceil(together);
        let (this, rows) = (Arc::clone(self), places(borrowers.len()));
        let work = {
            let (borrowers, rows, leaf) = (Arc::clone(borrowers), Arc::clone(&rows), Arc::clone(leaf));
            move |batch: usize| {
                let mut mutations = Vec::new();
                for number in batch * together..borrowers.len().min((batch + 1) * together) {
                    let mut subject = this.subject(&borrowers[number].customer, &mut mutations)?;
                    for column in 0..VALUES {
                        let row = this.value(&mut subject, &borrowers[number], column, &mut mutations)?;
                        rows[number * VALUES + column].store(row.0, Ordering::Relaxed);
                    }
                    keep(&subject, &mut mutations);
                }
                this.write(mutations, &leaf, 1)
            }
        };
        let sample = drive(at_once, batches, (batches, borrowers.len() * VALUES), work).await?;
        Ok((sample, taken(&rows)))
    }

    /// Writes the same values one a request, as many requests in one write as `together` says.
    pub async fn write_singles(
        self: &Arc<Self>,
        borrowers: &Arc<Vec<Borrower>>,
        together: usize,
        at_once: usize,
        leaf: &Leaf,
    ) -> Result<(Sample, Vec<RowId>), CliError> {
        let requests = borrowers.len() * VALUES;
        let (this, rows) = (Arc::clone(self), places(borrowers.len()));
        let subjects: Vec<Mutex<Option<Subject>>> = borrowers.iter().map(|_| Mutex::new(None)).collect();
        let work = {
            let (borrowers, rows, leaf) = (Arc::clone(borrowers), Arc::clone(&rows), Arc::clone(leaf));
            move |group: usize| {
                let mut mutations = Vec::new();
                let members = group * together..requests.min((group + 1) * together);
                let count = members.len();
                for request in members {
                    let place = workload::place_of_unary(request, borrowers.len());
                    let borrower = &borrowers[place / VALUES];
                    let mut held = subjects[place / VALUES].lock().unwrap_or_else(PoisonError::into_inner);
                    let mut subject = match held.take() {
                        Some(subject) => subject,
                        None => this.subject(&borrower.customer, &mut mutations)?,
                    };
                    let known = subject.deks.len();
                    let row = this.value(&mut subject, borrower, place % VALUES, &mut mutations)?;
                    if subject.deks.len() > known {
                        keep(&subject, &mut mutations);
                    }
                    rows[place].store(row.0, Ordering::Relaxed);
                    *held = Some(subject);
                }
                this.write(mutations, &leaf, count)
            }
        };
        let sample = drive(at_once, requests.div_ceil(together), (requests, requests), work).await?;
        Ok((sample, taken(&rows)))
    }

    /// Reads and opens rows: requests of `together` rows each, `grouped` requests' leaves in one write. Without a leaf
    /// nothing is written.
    pub async fn read(
        self: &Arc<Self>,
        requests: Vec<Vec<RowId>>,
        grouped: usize,
        at_once: usize,
        leaf: Option<Leaf>,
    ) -> Result<Sample, CliError> {
        let this = Arc::clone(self);
        let (count, items) = (requests.len(), requests.iter().map(Vec::len).sum());
        drive(at_once, count.div_ceil(grouped), (count, items), move |group: usize| {
            let members = &requests[group * grouped..requests.len().min((group + 1) * grouped)];
            for request in members {
                this.open(request)?;
            }
            leaf.as_ref().map_or(Ok(()), |leaf| this.write(vec![], leaf, members.len()))
        })
        .await
    }

    fn write(&self, mut mutations: Vec<Mutation>, leaf: &Leaf, requests: usize) -> Result<(), CliError> {
        for part in (0..requests).flat_map(|_| leaf.iter()) {
            let index = self.leaves.fetch_add(1, Ordering::Relaxed);
            mutations.push(Mutation::Put(Family::Leaves, place::leaf(TENANT, index), part.clone()));
        }
        Handle::current().block_on(self.store.write(mutations)).map_err(unfit)
    }

    fn subject(&self, id: &str, mutations: &mut Vec<Mutation>) -> Result<Subject, CliError> {
        let handle = SubjectHandle(self.subjects.fetch_add(1, Ordering::Relaxed));
        let index = self.keystore.index_key(self.tenant, IndexName::SubjectId).map_err(unfit)?;
        let id_index =
            IndexEntry { kind: IndexKind::SubjectId, version: index.version(), mac: index.mac(&[id.as_bytes()]) };
        let key = place::subject_id(TENANT, id_index.version, &id_index.mac);
        mutations.push(Mutation::Put(Family::Index, key, place::encode_handles(&[handle])));
        let record = SubjectRecord {
            handle,
            state: SubjectState::Open,
            created: 1,
            salt: keys::random().map_err(unfit)?,
            sealed_id: vec![],
            id_index,
            deks: vec![],
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
                let kek = self.keystore.kek(self.tenant, keyring).map_err(unfit)?;
                let (dek, blob) = kek.new_dek(&self.dek_place(subject.record.handle, keyring)).map_err(unfit)?;
                let version = DekVersion(1);
                subject.record.deks.push(WrappedDek { keyring, version, kek_version: kek.version(), blob });
                subject.deks.push((keyring, dek));
                subject.deks.len() - 1
            }
        };
        Ok(&subject.deks[found].1)
    }

    fn value(
        &self,
        subject: &mut Subject,
        borrower: &Borrower,
        column: usize,
        mutations: &mut Vec<Mutation>,
    ) -> Result<RowId, CliError> {
        let (field, keyring, indexed, shaped) = COLUMNS[column];
        let (field, keyring) = (FieldNo(field), KeyringNo(keyring));
        let value = borrower.values()[column].1.as_bytes();
        let row = RowId(self.rows.fetch_add(1, Ordering::Relaxed));
        let handle = subject.record.handle;
        let dek = self.dek(subject, keyring)?;
        let mut indexes = Vec::new();
        if indexed {
            let key = self.keystore.index_key(self.tenant, IndexName::Field(field)).map_err(unfit)?;
            let entry = IndexEntry { kind: IndexKind::Value, version: key.version(), mac: key.mac(&[value]) };
            let key = place::value_index(TENANT, field, entry.version, &entry.mac, row);
            mutations.push(Mutation::Put(Family::Index, key, vec![]));
            indexes.push(entry);
        }
        let mut sealed_token = None;
        if shaped {
            // As long as its value, and one for each row: the row's number stands in the MAC.
            let key = self.keystore.index_key(self.tenant, IndexName::Token).map_err(unfit)?;
            let mac = key.mac(&[value, &row.0.to_be_bytes()]);
            let entry = IndexEntry { kind: IndexKind::Token, version: key.version(), mac };
            let key = place::token(TENANT, entry.version, &entry.mac);
            mutations.push(Mutation::Put(Family::Index, key, place::encode_row_id(row)));
            let at = self.at(field, row, handle, keyring, Sealed::Token);
            sealed_token = Some(dek.seal(&at, value).map_err(unfit)?);
            indexes.push(entry);
        }
        let entry = ValueRow {
            field,
            version: RowVersion(1),
            token_key: KeyVersion(1),
            check: keys::random().map_err(unfit)?,
            keyring,
            dek_version: DekVersion(1),
            subject: handle,
            salt: keys::random().map_err(unfit)?,
            created: 1_795_000_000_000_000,
            expires: None,
            indexes,
            sealed_token,
            sealed: dek.seal(&self.at(field, row, handle, keyring, Sealed::Value), value).map_err(unfit)?,
        };
        mutations.push(Mutation::Put(Family::Rows, place::row(TENANT, row), entry.encode()));
        mutations.push(Mutation::Put(Family::SubjectRows, place::subject_row(TENANT, handle, row), vec![]));
        Ok(row)
    }

    fn open(&self, ids: &[RowId]) -> Result<(), CliError> {
        let keys = ids.iter().map(|id| place::row(TENANT, *id)).collect();
        let stored = Handle::current().block_on(self.store.multi_get(Family::Rows, keys)).map_err(unfit)?;
        let mut rows = Vec::with_capacity(ids.len());
        for bytes in stored.into_iter().flatten() {
            rows.push(ValueRow::decode(&bytes).map_err(unfit)?);
        }
        let mut handles: Vec<SubjectHandle> = rows.iter().map(|row| row.subject).collect();
        handles.sort_unstable();
        handles.dedup();
        let keys = handles.iter().map(|handle| place::subject(TENANT, *handle)).collect();
        let stored = Handle::current().block_on(self.store.multi_get(Family::Subjects, keys)).map_err(unfit)?;
        let mut records = Vec::with_capacity(handles.len());
        for bytes in stored.into_iter().flatten() {
            records.push(SubjectRecord::decode(&bytes).map_err(unfit)?);
        }
        if rows.len() != ids.len() || records.len() != handles.len() {
            return Err(CliError::unfit("the yardstick does not find what it wrote"));
        }
        for (id, row) in ids.iter().zip(&rows) {
            let record = handles.binary_search(&row.subject).map(|found| &records[found]);
            let record = record.map_err(|_| CliError::unfit("the yardstick lost a subject"))?;
            let dek = self.unwrap(record, row.keyring)?;
            let at = self.at(row.field, *id, row.subject, row.keyring, Sealed::Value);
            drop(dek.open(&at, &row.sealed).map_err(unfit)?);
        }
        Ok(())
    }

    fn unwrap(&self, record: &SubjectRecord, keyring: KeyringNo) -> Result<Arc<Dek>, CliError> {
        let at = self.dek_place(record.handle, keyring);
        if let Some(dek) = self.deks.get(&at) {
            return Ok(dek);
        }
        let wrapped = record.deks.iter().find(|dek| dek.keyring == keyring);
        let wrapped = wrapped.ok_or_else(|| CliError::unfit("the yardstick lost a DEK"))?;
        let kek = self.keystore.kek_version(self.tenant, keyring, wrapped.kek_version).map_err(unfit)?;
        let dek = Arc::new(kek.unwrap(&at, &wrapped.blob).map_err(unfit)?);
        self.deks.insert(at, Arc::clone(&dek));
        Ok(dek)
    }

    fn dek_place(&self, subject: SubjectHandle, keyring: KeyringNo) -> DekPlace {
        DekPlace { tenant: self.tenant, keyring, owner: DekOwner::Subject(subject), version: DekVersion(1) }
    }

    fn at(&self, field: FieldNo, row: RowId, subject: SubjectHandle, keyring: KeyringNo, what: Sealed) -> ValuePlace {
        ValuePlace {
            tenant: self.tenant,
            field,
            row,
            subject,
            owner: DekOwner::Subject(subject),
            keyring,
            dek_version: DekVersion(1),
            row_version: RowVersion(1),
            what,
        }
    }
}

fn keep(subject: &Subject, mutations: &mut Vec<Mutation>) {
    let key = place::subject(TENANT, subject.record.handle);
    mutations.push(Mutation::Put(Family::Subjects, key, subject.record.encode()));
}

fn places(borrowers: usize) -> Arc<Vec<AtomicU64>> {
    Arc::new((0..borrowers * VALUES).map(|_| AtomicU64::new(0)).collect())
}

fn taken(rows: &[AtomicU64]) -> Vec<RowId> {
    rows.iter().map(|row| RowId(row.load(Ordering::Relaxed))).collect()
}

fn unfit(error: impl std::error::Error) -> CliError {
    CliError::unfit(error.to_string())
}

/// Does numbered jobs on `at_once` threads. The latency of a job counts for all requests in it.
async fn drive(
    at_once: usize,
    jobs: usize,
    (requests, items): (usize, usize),
    work: impl Fn(usize) -> Result<(), CliError> + Send + Sync + 'static,
) -> Result<Sample, CliError> {
    let (work, next) = (Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let meter = Meter::start();
    let threads = (0..at_once).map(|_| {
        let (work, next) = (Arc::clone(&work), Arc::clone(&next));
        tokio::task::spawn_blocking(move || {
            let mut latencies = measure::latencies();
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job >= jobs {
                    return Ok::<_, CliError>(latencies);
                }
                let begun = Instant::now();
                work(job)?;
                measure::note(&mut latencies, begun);
            }
        })
    });
    let mut latencies = measure::latencies();
    for thread in threads.collect::<Vec<_>>() {
        let noted = thread.await.map_err(|error| CliError::unfit(format!("the yardstick stopped: {error}")))??;
        // All have the same bounds.
        let _ = latencies.add(&noted);
    }
    Ok(meter.stop((requests as u64, items as u64), latencies, Duration::ZERO))
}
