//! What depends on a version of a key: counted before it may be destroyed.

use strongroom_ids::{KeyVersion, TenantNo};
use strongroom_keys::KeyName;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{RowDek, SubjectRecord, ValueRow};
use strongroom_storage::{Entry, Family, Range, Store, StoreError};

use crate::error::Error;
use crate::vault::Vault;

/// Entries looked at in one step.
const PAGE: usize = 2_000;

impl<S: Store> Vault<S> {
    /// How many things depend on a version of a key. Exact for a version that no longer protects; other requests go on
    /// meanwhile.
    pub(crate) async fn dependants(&self, tenant: TenantNo, name: KeyName, version: KeyVersion) -> Result<u64, Error> {
        match name {
            KeyName::Kek(_, keyring) => {
                let here = |of, by| u64::from(of == keyring && by == version);
                let subjects = self.count(Family::Subjects, place::subjects_range(tenant), |(_, row)| {
                    let record = SubjectRecord::decode(row)?;
                    Ok(record.deks.iter().map(|dek| here(dek.keyring, dek.kek_version)).sum())
                });
                let rows = self.count(Family::RowDeks, place::row_deks_range(tenant), |(_, row)| {
                    let dek = RowDek::decode(row)?;
                    Ok(here(dek.keyring, dek.kek_version))
                });
                Ok(subjects.await? + rows.await?)
            }
            KeyName::Token(_) => {
                let opaque = self.count(Family::Rows, place::rows_range(tenant), |(_, row)| {
                    let row = ValueRow::decode(row)?;
                    Ok(u64::from(row.sealed_token.is_none() && row.token_key == version))
                });
                opaque.await
            }
            // Nothing of these can be destroyed.
            KeyName::Index(..) | KeyName::Ledger(_) => Ok(u64::MAX),
        }
    }

    async fn count(
        &self,
        family: Family,
        (mut from, to): (Vec<u8>, Vec<u8>),
        dependants: impl Fn(&Entry) -> Result<u64, StoreError>,
    ) -> Result<u64, Error> {
        let mut count = 0;
        loop {
            let page = self.store.scan(family, Range { from: from.clone(), to: to.clone(), limit: PAGE }).await?;
            let Some((last, _)) = page.last() else { return Ok(count) };
            from = after(last);
            for entry in &page {
                count += dependants(entry)?;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The first key behind another.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
