//! Everything that somebody may do to the files of a stopped vault, without its keys, is named.

mod log;
mod meta;
mod rig;
mod subjects;
mod values;

use rig::{Rig, Row, copy, entries, put, remove};
use strongroom_ids::TenantNo;
use strongroom_ledger::{leaf, leaf_hash};
use strongroom_storage::Family;
use strongroom_storage::keys as place;
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::rows::{IndexEntry, ValueRow};

use super::HeadFile;
use super::finding::{Fault, Kind, Place};
use super::state::{self, State};
use crate::values::entry_key;

const TENANT: TenantNo = TenantNo(1);
const SYSTEM: TenantNo = TenantNo(0);

type Said = (Kind, Fault, Place);

#[tokio::test]
async fn a_vault_that_nobody_touched_verifies_after_all_kinds_of_requests() {
    let rig = Rig::loaded().await;
    let report = rig.report(&rig.store).await;
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let (_, counts) = report.tenants.iter().find(|(name, _)| &**name == "demo").unwrap();
    let rows = entries(&rig.store, Family::Rows, TENANT).await.len() as u64;
    assert_eq!(counts.values, rows);
    assert_eq!(counts.signed_leaves, counts.leaves);
    assert_eq!(counts.index_entries, entries(&rig.store, Family::Index, TENANT).await.len() as u64);
    let holders = entries(&rig.store, Family::Holders, TENANT).await.len();
    assert_eq!(holders, 3, "the load has shared values");
    assert_eq!(counts.holders, (holders + entries(&rig.store, Family::SubjectRows, TENANT).await.len()) as u64);
    assert!(counts.idempotency_keys > 0 && counts.deks > 0 && counts.subjects > 1);
    assert_eq!(report.tenants.len(), 2);
}

#[tokio::test]
async fn a_state_that_was_written_goes_on_as_the_leaves_would() {
    let rig = Rig::loaded().await;
    for tenant in [TENANT, SYSTEM] {
        let (mut whole, mut again) = (State::default(), State::default());
        for (_, line) in entries(&rig.store, Family::Leaves, tenant).await {
            let parsed = leaf::parse(&line).unwrap();
            let hash = leaf_hash(&line);
            assert!(whole.take(&parsed, hash).is_empty() && again.take(&parsed, hash).is_empty());
            let written = state::tests::lines(&again);
            assert_eq!(written, state::tests::lines(&whole), "after leaf {}", parsed.index);
            again = state::tests::read(&written).unwrap();
        }
        let kinds = ["policy ", "older_policy ", "schema ", "subject ", "value ", "holder "];
        let written = state::tests::lines(&whole);
        let has = |kind: &&str| written.iter().any(|line| line.starts_with(*kind));
        assert!(tenant == SYSTEM || kinds.iter().all(has), "{written:#?}");
    }
}

#[tokio::test]
async fn any_number_of_threads_finds_and_counts_the_same_in_the_same_order() {
    let rig = Rig::loaded().await;
    let damaged = copy(&rig.store).await;
    for (family, each) in
        [(Family::Rows, 7), (Family::Subjects, 5), (Family::Index, 3), (Family::RowDeks, 2), (Family::SubjectRows, 11)]
    {
        let all = entries(&rig.store, family, TENANT).await;
        for (place, (key, row)) in all.iter().enumerate().filter(|(place, _)| place % each == 1) {
            match row.split_last().filter(|_| place % 2 == 0) {
                Some((last, rest)) => {
                    put(&damaged, family, key.to_vec(), [rest, &[last ^ 1]].concat()).await;
                }
                None => remove(&damaged, family, key.to_vec()).await,
            }
        }
    }
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let broken = copy(&damaged).await;
    put(&broken, Family::Leaves, leaves[3].0.to_vec(), [&leaves[3].1[..], b" "].concat()).await;
    remove(&broken, Family::Leaves, place::leaf(TENANT, 5)).await;
    let head = HeadFile::read(&rig.head());
    let rows = [Kind::Value, Kind::Subject, Kind::IndexEntry, Kind::SubjectRow];
    for (store, kinds) in [(&rig.store, &[][..]), (&damaged, &rows), (&broken, &[Kind::Leaf])] {
        let by = async |threads| {
            let threads = std::num::NonZeroUsize::new(threads).unwrap();
            rig.checked_by(store, &head, &[], threads).await.unwrap()
        };
        let one = by(1).await;
        assert_eq!(one.findings.is_empty(), kinds.is_empty());
        for kind in kinds {
            assert!(one.findings.iter().any(|finding| finding.kind == *kind), "no {}", kind.as_str());
        }
        for threads in [2, 3, 4, 9] {
            let other = by(threads).await;
            assert_eq!(other.findings, one.findings, "by {threads}");
            assert_eq!(format!("{:?}", other.tenants), format!("{:?}", one.tenants), "by {threads}");
        }
    }
}

#[tokio::test]
async fn the_page_says_of_every_family_how_it_is_proven() {
    let page = include_str!("../FORMAT.md");
    for family in Family::ALL {
        assert!(page.contains(&format!("`{}`", family.name())), "{}", family.name());
    }
}

impl Row {
    fn key(&self) -> Vec<u8> {
        place::row(TENANT, self.id)
    }

    fn value(&self) -> ValueRow {
        ValueRow::decode(&self.bytes).unwrap()
    }

    /// The keys of the index entries that lead to it.
    async fn entries(&self, rig: &Rig) -> Vec<Vec<u8>> {
        let value = self.value();
        let schema = rig.schema().await;
        let field = schema.field_no(value.field).unwrap();
        let key = |entry: &IndexEntry| entry_key(TENANT, field, entry, value.subject, self.id);
        value.indexes.iter().map(key).collect()
    }
}

impl Rig {
    /// What verification says of a store, beside the keystore and head file of this vault.
    async fn finds(&self, store: &MemoryStore) -> Vec<Said> {
        let report = self.report(store).await;
        report.findings.into_iter().map(|finding| (finding.kind, finding.fault, finding.place)).collect()
    }

    async fn report(&self, store: &MemoryStore) -> super::Report {
        self.checked(store, &[]).await.unwrap()
    }
}
