//! The stage of the attacks: a vault that was stopped twice in the middle of a story, and copies of its folder to be attacked.
//!
//! The story has two halves, so that each thing that can be put back has an older form: a value that is replaced, one that is
//! deleted, labels, policy, schema, freezes, tiers.

use std::path::{Path, PathBuf};

use strongroom_ids::{FieldNo, RowId, TenantNo};
use strongroom_proto::v1;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::rows::{SubjectRecord, ValueRow};
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};
use tokio::runtime;

use crate::approvals::with_approval;
use crate::files::{copy, path, put};
use crate::harness::{TestVault, detokenize, grow, item, tokenize};

/// The tenant whose vault it is.
pub const TENANT: TenantNo = TenantNo(1);

/// Fields of the lending schema, by their permanent numbers.
pub const NAME: FieldNo = FieldNo(1);
pub const ID_CARD: FieldNo = FieldNo(2);
pub const MOBILE: FieldNo = FieldNo(3);

/// What no text of any command may show.
pub const SECRETS: [&str; 4] = ["11010519491231002X", "110105194912310038", "13812345678", "cust-1"];

/// All that a tenant has in a store.
pub struct Rows(Vec<(Family, Vec<u8>, Vec<u8>)>);

impl Rows {
    async fn of(vault: &Path) -> Self {
        let store = open(vault);
        let (mut rows, from) = (Vec::new(), TENANT.0.to_be_bytes().to_vec());
        for family in Family::ALL {
            let range = Range { from: from.clone(), to: place::prefix_end(&from), limit: 1_000_000 };
            let page = store.scan(family, range).await.unwrap();
            rows.extend(page.into_iter().map(|(key, row)| (family, key.to_vec(), row.to_vec())));
        }
        Self(rows)
    }

    /// Keys and rows of a family, in order.
    fn all(&self, family: Family) -> impl Iterator<Item = (&[u8], &[u8])> {
        let of_it = self.0.iter().filter(move |(of, ..)| *of == family);
        of_it.map(|(_, key, row)| (key.as_slice(), row.as_slice()))
    }

    /// The row under a key, which must be there.
    pub fn get(&self, family: Family, key: &[u8]) -> Vec<u8> {
        let found = self.all(family).find(|(at, _)| *at == key);
        found.unwrap_or_else(|| panic!("nothing in {} under {key:?}", family.name())).1.to_vec()
    }

    /// The values of a field, in order.
    pub fn values(&self, field: FieldNo) -> Vec<(RowId, ValueRow)> {
        let rows =
            self.all(Family::Rows).map(|(key, row)| (place::decode_row(key).unwrap(), ValueRow::decode(row).unwrap()));
        rows.filter(|(_, row)| row.field == field).collect()
    }

    /// The records of the subject that has labels, and of another one.
    pub fn subjects(&self) -> [SubjectRecord; 2] {
        let mut records: Vec<_> =
            self.all(Family::Subjects).map(|(_, record)| SubjectRecord::decode(record).unwrap()).collect();
        records.sort_by_key(|record| record.labels.is_empty());
        records.truncate(2);
        records.try_into().ok().unwrap()
    }

    /// The key of an entry by which a shared value has a holder, and the value.
    pub fn holder(&self) -> (Vec<u8>, RowId) {
        let (key, _) = self.all(Family::Holders).next().unwrap();
        (key.to_vec(), RowId(u64::from_be_bytes(key[4..12].try_into().unwrap())))
    }

    /// The leaves of the log.
    pub fn leaves(&self) -> Vec<Vec<u8>> {
        self.all(Family::Leaves).map(|(_, line)| line.to_vec()).collect()
    }
}

/// A stopped vault, and what is needed to attack copies of it.
pub struct Stage {
    vault: TestVault,
    /// Its folder in the middle of the story, stopped in order as well.
    pub older: PathBuf,
    /// The folder of a vault that went another way from there, and further.
    pub fork: PathBuf,
    /// A checkpoint of the end that was kept elsewhere.
    pub kept: PathBuf,
    /// What is in its store, and what was in the middle.
    pub now: Rows,
    pub before: Rows,
}

impl Stage {
    pub fn new() -> Self {
        // Of several threads: a server that is stopped waits for its connections, whose other ends must hear of it.
        runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(Self::told())
    }

    async fn told() -> Self {
        let mut vault = TestVault::start();
        let tokens = first_half(&vault).await;
        assert!(vault.stop().success());
        let older = vault.scratch().join("older");
        copy(&vault.dir(), &older);
        vault.up();
        second_half(&vault, &tokens).await;
        let kept = vault.scratch().join("kept.checkpoint");
        std::fs::write(&kept, vault.cli_ok(&["audit", "checkpoint"])).unwrap();
        assert!(vault.stop().success());

        let fork = vault.scratch().join("fork");
        let mut other = TestVault::start();
        assert!(other.stop().success());
        put(&older, &other.dir());
        other.up();
        grow(&other, "Eve", 320).await;
        assert!(other.stop().success());
        copy(&other.dir(), &fork);

        // Read from copies: to open a store is to write to it.
        let read = vault.scratch().join("read");
        copy(&vault.dir(), &read);
        let now = Rows::of(&read).await;
        put(&older, &read);
        let before = Rows::of(&read).await;
        assert!(before.leaves().len() < now.leaves().len());
        Self { vault, older, fork, kept, now, before }
    }

    /// A copy to be attacked.
    pub fn copy(&self, name: &str) -> PathBuf {
        let dir = self.vault.scratch().join(name);
        copy(&self.vault.dir(), &dir);
        dir
    }
}

async fn first_half(vault: &TestVault) -> Vec<String> {
    let items = vec![
        item("borrower.name", "张三", "cust-1"),
        item("borrower.id_card", SECRETS[0], "cust-1"),
        item("borrower.mobile", SECRETS[2], "cust-1"),
        item("borrower.name", "李四", "cust-2"),
        item("company.uscc", "91350100M000100Y43", "cust-1"),
        item("company.uscc", "91350100M000100Y43", "cust-2"),
    ];
    let tokens = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    vault.cli_ok(&["subject", "label", "cust-1", "branch-12"]);
    vault.cli_ok(&["freeze", "company.settlement_account", "--writes"]);
    vault.cli_ok(&["principal", "tier", "app/desk", "III"]);
    tokens
}

async fn second_half(vault: &TestVault, tokens: &[String]) {
    let mut client = vault.vault().await;
    let new = v1::ReplaceItem { token: tokens[1].clone(), value: SECRETS[1].to_owned().into(), expire_time: None };
    client.replace(v1::ReplaceRequest { items: vec![new], idempotency_key: String::new() }).await.unwrap();
    let gone = v1::DeleteItem { token: tokens[2].clone(), subject: String::new() };
    let deleted = client.delete(v1::DeleteRequest { items: vec![gone], idempotency_key: String::new() }).await.unwrap();
    assert!(deleted.into_inner().results.iter().all(|result| result.problem.is_none()));
    vault.cli_ok(&["subject", "label", "cust-1", "branch-99"]);
    vault.cli_ok(&["freeze", "company.contact_mobile", "--reads"]);
    vault.cli_ok(&["principal", "tier", "app/desk", "II"]);
    let source = concat!("// stricter\n", include_str!("../../../deploy/policies/default.cedar")).to_owned();
    let policy = v1::ApplyPolicyRequest { source, tests: String::new(), dry_run: false };
    with_approval(vault, async || vault.access().await.apply_policy(policy.clone()).await).await.unwrap();
    // A field with an index of its own, and one that is kept apart: both need new keys.
    let source = include_str!("../../../deploy/schemas/lending.toml").to_owned()
        + "\n[field.borrower.passport]\nnumber = 40\ntype = \"passport\"\nclass = \"c2\"\nretention = \"2y\"\n\
           lookup = true\npurposes = [\"kyc_review\"]\nviews = { plain = \"plain\" }\n";
    vault.access().await.apply_schema(v1::ApplySchemaRequest { source, dry_run: false }).await.unwrap();
    client.detokenize(detokenize(&[&tokens[0]], "kyc_review", "")).await.unwrap();
    // Proofs are made of tiles, which are there then; one that is complete is held against the one above it.
    grow(vault, "Ann", 260).await;
    vault.cli_ok(&["audit", "prove", "0", "-o", path(&vault.scratch().join("0.tlog-proof"))]);
}

fn open(vault: &Path) -> RocksStore {
    RocksStore::open(&vault.join("data"), RocksOptions::default()).unwrap()
}

/// Writes to the store of a stopped vault, behind its back.
pub fn write(vault: &Path, mutations: Vec<Mutation>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { open(vault).write(mutations).await.unwrap() });
}
