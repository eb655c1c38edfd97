//! A vault over a store in memory that has seen all kinds of requests, and was closed.

use crate::tests::rig::{SECOND, THREADS, key_of_second, with_approval};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use strongroom_access::{DEFAULT_POLICIES, Principal, Role};
use strongroom_ids::{RowId, TenantNo, VaultId};
use strongroom_keys::{ArgonCost, IndexName, Keystore, Passphrase, PassphraseRoot, RootProvider};
use strongroom_ledger::leaf::{self, ParsedItem, ParsedLeaf};
use strongroom_schema::Schema;
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::rows::{SubjectRecord, TenantRow};
use strongroom_storage::{Entry, Family, Mutation, Range, Store, keys as place};

use super::TENANT;
use crate::source::{Source, SourceKind};
use crate::verify::{HeadFile, Report, Verification, VerifyError, verify};
use crate::*;

const LENDING: &str = include_str!("../../../../deploy/schemas/lending.toml");
const START: u64 = 1_795_000_000_000_000;
const HOUR: u64 = 3_600_000_000;

/// A vault that is closed.
pub struct Rig {
    folder: tempfile::TempDir,
    root: PassphraseRoot,
    /// Its store.
    pub store: MemoryStore,
    /// Its store in the middle of the load, closed as well.
    pub before: MemoryStore,
    /// Its head file before it was closed then.
    pub head_before: Vec<u8>,
    /// A checkpoint of the tenant's log at the end.
    pub checkpoint: String,
    /// A row that was deleted, as it was.
    deleted: (RowId, Bytes),
}

/// A value's row.
pub struct Row {
    pub id: RowId,
    pub bytes: Bytes,
}

/// A vault that runs.
struct Running {
    vault: Vault<MemoryStore>,
    clock: Arc<AtomicU64>,
}

fn caller(role: Role, name: &str) -> Caller {
    let name = format!("{}/{name}", role.as_str()).into();
    Caller::new(Arc::new(Principal { tenant: TENANT, name, role }), "10.0.0.1:5")
}

fn item(field: &str, value: &str, subject: &str) -> NewValue {
    NewValue {
        field: field.to_owned(),
        value: value.to_owned().into(),
        subject: subject.to_owned(),
        expires: None,
        token: String::new(),
    }
}

impl Running {
    async fn open(
        store: &MemoryStore,
        folder: &std::path::Path,
        root: &dyn RootProvider,
        clock: &Arc<AtomicU64>,
    ) -> Self {
        let time = Arc::clone(clock);
        let told: Clock = Arc::new(move || time.load(Ordering::SeqCst));
        let opening = Opening {
            store: store.clone(),
            keystore: Keystore::open(&folder.join("keystore"), root).unwrap(),
            head_file: folder.join("head"),
            journal: folder.join("journal"),
            limits: Limits::MOST,
            hot_deks: 100,
            space: Arc::new(|| false),
            machine: MachineTime::of_one(Arc::clone(&told)),
            clock: told,
            retention: Retention::default(),
        };
        Self { vault: Vault::open(opening).await.unwrap(), clock: Arc::clone(clock) }
    }

    async fn tokenize(&self, items: Vec<NewValue>, key: &str) -> Vec<String> {
        let request = Tokenize { items, idempotency_key: key.to_owned() };
        self.vault.tokenize(&caller(Role::App, "app"), &request).await.unwrap()
    }

    async fn replace(&self, token: &str, value: &str) {
        let items = vec![NewVersion { token: token.to_owned(), value: value.to_owned().into(), expires: None }];
        let request = Replace { items, idempotency_key: "replaced".to_owned() + token };
        self.vault.replace(&caller(Role::App, "app"), &request).await.unwrap();
    }

    async fn delete(&self, token: &str, subject: &str) {
        let items = vec![DeleteItem { token: token.to_owned(), subject: subject.to_owned() }];
        let request = Delete { items, idempotency_key: String::new() };
        self.vault.delete(&caller(Role::App, "app"), &request).await.unwrap().remove(0).unwrap();
    }

    async fn read(&self, token: &str, purpose: &str) -> Result<Released, Error> {
        let items = vec![ReadItem { token: token.to_owned(), view: String::new(), subject: String::new() }];
        let request = Detokenize { items, purpose: purpose.to_owned(), view: String::new() };
        self.vault.detokenize(&caller(Role::App, "app"), &request).await.unwrap().remove(0)
    }
}

impl Rig {
    /// All kinds of requests, over two starts.
    pub async fn loaded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::new("of a test".to_owned()).unwrap();
        let keys = folder.path().join("keystore");
        let root = PassphraseRoot::new(passphrase, ArgonCost::LEAST);
        let vault = VaultId(strongroom_keys::random().unwrap());
        let store = MemoryStore::default();
        let clock = Arc::new(AtomicU64::new(START));
        let time = Arc::clone(&clock);
        create(NewVault {
            store: store.clone(),
            keystore: Keystore::create(&keys, vault, &root).unwrap(),
            head_file: folder.path().join("head"),
            journal: folder.path().join("journal"),
            trust_domain: "bank.example".to_owned(),
            trust_anchors: vec![[2; 32]],
            tenants: vec![NewTenant {
                name: "demo".to_owned(),
                officers: vec![("one".to_owned(), [1; 32]), (SECOND.to_owned(), key_of_second())],
            }],
            clock: Arc::new(move || time.load(Ordering::SeqCst)),
        })
        .await
        .unwrap();

        let running = Running::open(&store, folder.path(), &root, &clock).await;
        let tokens = running.first_half().await;
        let head_before = std::fs::read(folder.path().join("head")).unwrap();
        running.vault.close().await;
        let before = copy(&store).await;

        let running = Running::open(&store, folder.path(), &root, &clock).await;
        let deleted = running.second_half(&tokens).await;
        let checkpoint = running.vault.checkpoint(&caller(Role::Auditor, "auditor"), "").await.unwrap().note;
        // An odd number of leaves: see what is done with the last one.
        if entries(&store, Family::Leaves, TENANT).await.len() % 2 == 0 {
            running.read(&tokens[1], "kyc_review").await.unwrap();
        }
        running.vault.close().await;
        let row = before.get(Family::Rows, place::row(TENANT, deleted)).await.unwrap().unwrap();
        Self { folder, root, store, before, head_before, checkpoint, deleted: (deleted, row) }
    }

    /// Where its head file stands.
    pub fn head(&self) -> PathBuf {
        self.folder.path().join("head")
    }

    /// Verifies a store as this vault's.
    pub async fn checked(&self, store: &MemoryStore, checkpoints: &[String]) -> Result<Report, VerifyError> {
        self.checked_by(store, &HeadFile::read(&self.head()), checkpoints, THREADS).await
    }

    /// The same against a head file, by so many threads.
    pub async fn checked_by<S: Store>(
        &self,
        store: &S,
        head_file: &HeadFile,
        checkpoints: &[String],
        threads: NonZeroUsize,
    ) -> Result<Report, VerifyError> {
        let keystore = Keystore::open(&self.folder.path().join("keystore"), &self.root).unwrap();
        let verification = Verification { store, keystore: &keystore, head_file, checkpoints, threads };
        verify(&verification, &mut |progress| assert!(progress.done <= progress.of)).await
    }

    /// The schema in force.
    pub async fn schema(&self) -> Schema {
        let row = self.store.get(Family::Meta, place::schema(TENANT)).await.unwrap().unwrap();
        let keystore = Keystore::open(&self.folder.path().join("keystore"), &self.root).unwrap();
        let tenant = self.store.get(Family::Meta, place::tenant(TENANT)).await.unwrap().unwrap();
        let tenant = TenantRow::decode(&tenant).unwrap().id;
        let key = keystore.index_key(tenant, IndexName::Fingerprint).unwrap();
        Schema::from_stored(Source::decode(&row, SourceKind::Schema, &key).unwrap().body.as_bytes()).unwrap()
    }

    /// The rows of a field that are there, in order.
    pub async fn rows(&self, field: &str) -> Vec<Row> {
        let number = self.schema().await.field(field).unwrap().number;
        let rows = entries(&self.store, Family::Rows, TENANT).await;
        let rows = rows
            .into_iter()
            .filter(|(_, row)| strongroom_storage::rows::ValueRow::decode(row).unwrap().field == number);
        rows.map(|(key, bytes)| Row { id: place::decode_row(&key).unwrap(), bytes }).collect()
    }

    /// The first of them.
    pub async fn row(&self, field: &str) -> Row {
        self.rows(field).await.remove(0)
    }

    /// A row that was replaced in the second half.
    pub async fn replaced(&self, field: &str) -> Row {
        let rows = self.rows(field).await;
        rows.into_iter().find(|row| row.value().version.0 == 2).unwrap()
    }

    /// A row that was deleted, as it was before.
    pub async fn deleted(&self) -> Row {
        Row { id: self.deleted.0, bytes: self.deleted.1.clone() }
    }

    /// The subjects' records, in order.
    pub async fn subjects(&self) -> Vec<SubjectRecord> {
        let records = entries(&self.store, Family::Subjects, TENANT).await;
        records.iter().map(|(_, record)| SubjectRecord::decode(record).unwrap()).collect()
    }

    /// A leaf of an action, in the middle of the log.
    pub async fn leaf_of(&self, action: &str) -> u64 {
        let leaves = entries(&self.store, Family::Leaves, TENANT).await;
        let leaves: Vec<ParsedLeaf> = leaves.iter().map(|(_, line)| leaf::parse(line).unwrap()).collect();
        leaves.iter().find(|leaf| leaf.action == action).unwrap().index
    }
}

impl Running {
    /// Returns a name's, an id card's, a lonely address's, a company number's and an account's token.
    async fn first_half(&self) -> Vec<String> {
        let officer = caller(Role::Officer, "one");
        let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
        self.vault.apply_schema(&officer, &schema).await.unwrap();
        let mut tokens = self
            .tokenize(
                vec![
                    item("borrower.name", "张三", "cust-1"),
                    item("borrower.id_card", "11010519491231002X", "cust-1"),
                    item("borrower.address", "北京市朝阳区", ""),
                    item("company.uscc", "91350100M000100Y43", "cust-1"),
                    item("company.settlement_account", "6222021234567890", "cust-1"),
                    item("borrower.mobile", "13812345678", "cust-1"),
                    item("borrower.bank_card", "4111111111111111", "cust-1"),
                    item("borrower.email", "san@example.com", "cust-1"),
                    item("borrower.account_opened", "2020-01-02", "cust-1"),
                ],
                "first",
            )
            .await;
        // The same again is answered from memory; a second holder, and one who is nobody.
        let items = || vec![item("company.uscc", "91350100M000100Y43", "cust-2")];
        let again = self.tokenize(items(), "second").await;
        assert_eq!(again, self.tokenize(items(), "second").await);
        assert_eq!(again[0], tokens[3]);
        self.tokenize(vec![item("company.uscc", "91350100M000100Y43", "")], "").await;
        self.tokenize(vec![item("company.settlement_account", "6222021234567890", "cust-1")], "").await;
        let expires = Some(self.clock.load(Ordering::SeqCst) + HOUR);
        let short = |field, value, subject| NewValue { expires, ..item(field, value, subject) };
        self.tokenize(
            vec![
                short("company.settlement_account", "11112222", "cust-2"),
                short("company.uscc", "91110000600037341L", "cust-1"),
                short("company.uscc", "91110000600037341L", "cust-2"),
                item("borrower.name", "李四", "cust-2"),
                item("borrower.bank_card", "5500000000000004", "cust-2"),
                item("borrower.mobile", "13900000000", "cust-2"),
            ],
            "",
        )
        .await;
        tokens.truncate(5);
        let many = (0..700).map(|number| item("borrower.name", "王五", &format!("many-{}", number % 60)));
        tokens.extend(self.tokenize(many.collect(), "many").await.into_iter().take(3));
        self.read(&tokens[0], "loan_servicing").await.unwrap();
        tokens
    }

    async fn second_half(&self, tokens: &[String]) -> RowId {
        // Leaves are ordered by time, so it may pass.
        self.clock.fetch_add(2 * HOUR, Ordering::SeqCst);
        let officer = caller(Role::Officer, "one");
        self.read(&tokens[1], "kyc_review").await.unwrap();
        assert!(self.read(&tokens[1], "marketing").await.is_err());
        assert!(self.read("srt1_0000000000000000000000", "kyc_review").await.is_err());
        self.replace(&tokens[1], "110105194912310038").await;
        self.replace(&tokens[2], "上海市浦东新区").await;
        // The nobody lets go of the company's number, then it is cust-1's and cust-2's.
        self.tokenize(vec![item("company.uscc", "91350100M000100Y43", "cust-3")], "").await;
        self.delete(&tokens[3], "cust-1").await;
        self.delete(&tokens[3], "").await;
        self.delete(&tokens[5], "").await;
        // What has expired makes room.
        self.tokenize(
            vec![
                item("company.settlement_account", "11112222", "cust-2"),
                item("company.uscc", "91110000600037341L", "cust-2"),
            ],
            "",
        )
        .await;
        let policy =
            ApplyPolicy { source: format!("// the second\n{DEFAULT_POLICIES}"), tests: String::new(), dry_run: false };
        let apply = async || self.vault.apply_policy(&officer, &policy).await;
        with_approval(&self.vault, officer.principal.tenant, apply).await.unwrap();
        self.vault.apply_policy(&officer, &ApplyPolicy { dry_run: true, ..policy }).await.unwrap();
        let schema = LENDING.replacen("lookup = true\n", "", 1);
        for dry_run in [false, true] {
            let schema = ApplySchema { source: schema.clone(), dry_run };
            self.vault.apply_schema(&officer, &schema).await.unwrap();
        }
        let unknown = Tokenize { items: vec![item("no.such", "x", "")], idempotency_key: String::new() };
        assert!(self.vault.tokenize(&caller(Role::App, "app"), &unknown).await.is_err());
        self.deleted_row().await
    }

    /// The row that the last Delete of a single value removed.
    async fn deleted_row(&self) -> RowId {
        let leaves = entries(&self.vault.store, Family::Leaves, TENANT).await;
        let items = leaves.iter().flat_map(|(_, line)| leaf::parse(line).unwrap().items);
        let deleted = items.filter(|item: &ParsedItem| item.outcome == "deleted");
        deleted.last().unwrap().row.unwrap()
    }
}

/// All of a tenant's entries in a family.
pub async fn entries(store: &MemoryStore, family: Family, tenant: TenantNo) -> Vec<Entry> {
    let from = tenant.0.to_be_bytes().to_vec();
    let to = place::prefix_end(&from);
    store.scan(family, Range { from, to, limit: usize::MAX }).await.unwrap()
}

/// Another store with the same entries.
pub async fn copy(store: &MemoryStore) -> MemoryStore {
    let other = MemoryStore::default();
    for family in Family::ALL {
        let all = store.scan(family, Range { from: vec![], to: vec![], limit: usize::MAX }).await.unwrap();
        let puts = all.into_iter().map(|(key, row)| Mutation::Put(family, key.to_vec(), row.to_vec()));
        other.write(puts.collect()).await.unwrap();
    }
    other
}

/// Writes an entry behind the vault's back.
pub async fn put(store: &MemoryStore, family: Family, key: Vec<u8>, row: Vec<u8>) {
    store.write(vec![Mutation::Put(family, key, row)]).await.unwrap();
}

/// Removes an entry behind the vault's back.
pub async fn remove(store: &MemoryStore, family: Family, key: Vec<u8>) {
    assert!(store.get(family, key.clone()).await.unwrap().is_some(), "there is nothing to remove");
    store.write(vec![Mutation::Delete(family, key)]).await.unwrap();
}
