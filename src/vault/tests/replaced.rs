//! Replace, and what its receipt is worth: who holds which copy can still open the value from before, and until when.

use std::collections::HashMap;

use strongroom_ids::{KeyringNo, RowId};
use strongroom_keys::{Dek, DekOwner, DekPlace, KeyError, Sealed};
use strongroom_storage::Family;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{JobKind, RowDek, SubjectRecord, ValueRow, WrappedDek};

use super::keys::{TENANT, destroy, rotate, to_its_end};
use super::rolls::{all, proven, roll};
use super::*;
use crate::StartRewrap;
use crate::values::value_place;

/// All that a copy of the data holds of values, and of the keys that open them.
struct Backup {
    rows: HashMap<RowId, ValueRow>,
    subjects: Vec<SubjectRecord>,
    own: HashMap<RowId, RowDek>,
}

impl Backup {
    async fn of(bench: &Bench) -> Self {
        let rows = all(bench, Family::Rows).await;
        let rows = rows.iter().map(|(key, row)| (place::decode_row(key).unwrap(), ValueRow::decode(row).unwrap()));
        let subjects = all(bench, Family::Subjects).await;
        let own = all(bench, Family::RowDeks).await;
        let own = own.iter().map(|(key, dek)| (place::decode_row(key).unwrap(), RowDek::decode(dek).unwrap()));
        Self {
            rows: rows.collect(),
            subjects: subjects.iter().map(|(_, row)| SubjectRecord::decode(row).unwrap()).collect(),
            own: own.collect(),
        }
    }

    /// The only row.
    fn row(&self) -> (RowId, &ValueRow) {
        assert_eq!(self.rows.len(), 1);
        let (id, row) = self.rows.iter().next().unwrap();
        (*id, row)
    }

    /// Every DEK that this copy has for the owner of a row, with what it takes to unwrap it.
    fn deks(&self, id: RowId, row: &ValueRow) -> (DekOwner, Vec<WrappedDek>) {
        match row.subject.is_some() {
            true => {
                let record = self.subjects.iter().find(|record| record.handle == row.subject).unwrap();
                let deks = record.deks.iter().filter(|dek| dek.keyring == row.keyring).cloned().collect();
                (DekOwner::Subject(row.subject), deks)
            }
            false => {
                let RowDek { keyring, version, kek_version, blob } = self.own[&id].clone();
                (DekOwner::Value(id), vec![WrappedDek { keyring, version, kek_version, blob }])
            }
        }
    }

    /// What a row of another copy holds, opened by the keys of this one and by the keystore as it is now; the reason if its KEK
    /// is gone, and nothing if no key of this copy opens it.
    fn open(&self, vault: &Tested, id: RowId, row: &ValueRow) -> Result<Option<Vec<u8>>, KeyError> {
        let tenant = vault.tenant(TENANT).unwrap().id;
        let (owner, wrapped) = self.deks(id, row);
        for dek in wrapped {
            let at = DekPlace { tenant, keyring: dek.keyring, owner, version: dek.version };
            let dek: Arc<Dek> =
                vault.keystore.kek_version(tenant, dek.keyring, dek.kek_version)?.unwrap(&at, &dek.blob)?;
            if let Ok(value) = dek.open(&value_place(tenant, id, row, Sealed::Value), &row.sealed) {
                return Ok(Some(value.as_bytes().to_vec()));
            }
        }
        Ok(None)
    }
}

async fn replace(vault: &Tested, token: &str, value: &str) -> u32 {
    let items = vec![NewVersion { token: token.to_owned(), value: value.to_owned().into(), expires: None }];
    let request = Replace { items, idempotency_key: String::new() };
    vault.replace(&caller(Role::App), &request).await.unwrap().remove(0)
}

/// Brings all DEKs under a new version of the KEK, and destroys the one before.
async fn rotate_and_destroy(vault: &Tested, keyring: KeyringNo) {
    let kek = format!("kek/{keyring}");
    let version = rotate(vault, &kek).await.unwrap().version;
    vault.start_rewrap(&caller(Role::Rotator), &StartRewrap { name: kek.clone() }).await.unwrap();
    to_its_end(vault, JobKind::Rewrap, 100).await;
    destroy(vault, &kek, version - 1, false).await.unwrap();
}

#[tokio::test]
async fn the_token_stays_its_version_grows_and_the_old_value_is_unreadable_at_once() {
    for subject in ["c-1", ""] {
        let (bench, vault) = Bench::new().await;
        let token = store_one(&vault, "borrower.mobile", "13800000001", subject).await;
        let lookup = async |value: &str| {
            let items = vec![LookupItem { field: "borrower.mobile".to_owned(), value: value.to_owned().into() }];
            let request = Lookup { items, purpose: "kyc_review".to_owned() };
            vault.lookup(&caller(Role::App), &request).await.unwrap().remove(0).unwrap().tokens
        };
        for (version, value) in [(2, "13800000002"), (3, "13800000003")] {
            assert_eq!(replace(&vault, &token, value).await, version);
            assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), value.as_bytes());
        }
        assert!(lookup("13800000001").await.is_empty() && lookup("13800000002").await.is_empty());
        assert_eq!(lookup("13800000003").await, [token.as_str()]);
        assert_eq!(all(&bench, Family::Rows).await.len(), 1, "no older version is kept");
        proven(&bench, vault).await;
    }
}

#[tokio::test]
async fn after_a_roll_todays_keys_open_no_older_version_wherever_its_bytes_are() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.address", "before", "c-1").await;
    let old = Backup::of(&bench).await;
    let (id, row) = old.row();
    replace(&vault, &token, "after").await;
    let today = Backup::of(&bench).await;
    // The DEK lives on: until it is rolled, who has the old bytes and today's keys has the old value.
    assert_eq!(today.open(&vault, id, row).unwrap().unwrap(), b"before");
    assert_eq!(roll(&vault, 10).await.done, 1);
    let today = Backup::of(&bench).await;
    assert_eq!(today.open(&vault, id, row).unwrap(), None);
    let (id, row) = today.row();
    assert_eq!(today.open(&vault, id, row).unwrap().unwrap(), b"after");
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), b"after");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_whole_copy_from_before_dies_with_the_version_of_its_kek() {
    for subject in ["c-1", ""] {
        let (bench, vault) = Bench::new().await;
        let token = store_one(&vault, "borrower.address", "before", subject).await;
        let old = Backup::of(&bench).await;
        let (id, row) = old.row();
        replace(&vault, &token, "after").await;
        roll(&vault, 10).await;
        // It has the old DEK beside the old value, and the keystore still opens that.
        assert_eq!(old.open(&vault, id, row).unwrap().unwrap(), b"before");
        rotate_and_destroy(&vault, row.keyring).await;
        assert!(old.open(&vault, id, row).is_err(), "nothing unwraps its DEK any more");
        assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), b"after");
        proven(&bench, vault).await;
    }
}

#[tokio::test]
async fn a_value_without_subject_needs_no_roll() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.address", "before", "").await;
    let old = Backup::of(&bench).await;
    let (id, row) = old.row();
    replace(&vault, &token, "after").await;
    assert_eq!(Backup::of(&bench).await.open(&vault, id, row).unwrap(), None, "its DEK went with it");
    assert_eq!(roll(&vault, 10).await.total, 0);
    proven(&bench, vault).await;
}
