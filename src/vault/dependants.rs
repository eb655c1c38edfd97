//! What depends on a version of a key: counted before it may be destroyed.

use strongroom_commit::CommitterState;
use strongroom_ids::{KeyVersion, TenantNo};
use strongroom_keys::{IndexName, KeyName};
use strongroom_storage::rows::{IndexEntry, RowDek, SubjectRecord, ValueRow};
use strongroom_storage::{Family, Store, StoreError};

use crate::error::Error;
use crate::pages::Pages;
use crate::reindex::index_of;
use crate::vault::Vault;

impl<S: Store> Vault<S> {
    /// How many things depend on a version of a key. Exact for a version that no longer protects; other requests go on
    /// meanwhile.
    pub(crate) async fn dependants(&self, tenant: TenantNo, name: KeyName, version: KeyVersion) -> Result<u64, Error> {
        match name {
            KeyName::Kek(_, keyring) => {
                let here = |of, by| u64::from(of == keyring && by == version);
                let subjects = self.count(Family::Subjects, tenant, |row| {
                    let record = SubjectRecord::decode(row)?;
                    Ok(record.deks.iter().map(|dek| here(dek.keyring, dek.kek_version)).sum())
                });
                let rows = self.count(Family::RowDeks, tenant, |row| {
                    let dek = RowDek::decode(row)?;
                    Ok(here(dek.keyring, dek.kek_version))
                });
                Ok(subjects.await? + rows.await?)
            }
            KeyName::Token(_) => {
                let opaque = self.count(Family::Rows, tenant, |row| {
                    let row = ValueRow::decode(row)?;
                    Ok(u64::from(row.sealed_token.is_none() && row.token_key == version))
                });
                opaque.await
            }
            KeyName::Index(_, IndexName::SubjectId) => {
                let subjects = self.count(Family::Subjects, tenant, |row| {
                    let record = SubjectRecord::decode(row)?;
                    Ok(u64::from(record.id_index.version == version))
                });
                subjects.await
            }
            KeyName::Index(_, index @ (IndexName::Field(_) | IndexName::Token)) => {
                let values = self.count(Family::Rows, tenant, |row| {
                    let row = ValueRow::decode(row)?;
                    let here =
                        |entry: &&IndexEntry| entry.version == version && index_of(row.field, entry.kind) == index;
                    Ok(row.indexes.iter().filter(here).count() as u64)
                });
                values.await
            }
            // What was signed is verified with the public half, which stays.
            KeyName::Ledger(_) => Ok(0),
            // It can't be destroyed.
            KeyName::Index(_, IndexName::Fingerprint) => Ok(u64::MAX),
        }
    }

    /// The sum over all entries that a tenant has in a family.
    pub(crate) async fn count(
        &self,
        family: Family,
        tenant: TenantNo,
        dependants: impl Fn(&[u8]) -> Result<u64, StoreError>,
    ) -> Result<u64, Error> {
        let mut pages = Pages::of_tenant(family, tenant);
        let mut count = 0;
        while let Some(page) = pages.next(&*self.store).await? {
            for (_, row) in &page {
                count += dependants(row)?;
            }
            // Nobody waits for it any more.
            if self.committer.state() == CommitterState::Stopped {
                return Err(Error::Sealed);
            }
            tokio::task::yield_now().await;
        }
        Ok(count)
    }
}
