//! The receipt of a destroyed tenant: signed by the key of the log `system`, under a name of its own.

use strongroom_ids::TenantNo;
use strongroom_ledger::receipt::{self, LogHead, Receipt};
use strongroom_ledger::{Timestamp, checkpoint, leaf};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Store};

use super::end::End;
use crate::error::Error;
use crate::open::{LANE, SYSTEM_NO};
use crate::pages::Pages;
use crate::vault::Vault;

impl<S: Store> Vault<S> {
    /// Signs what has become of a tenant.
    pub(super) async fn sign_receipt(&self, end: &End) -> Result<String, Error> {
        let done = end.done.as_ref().ok_or(Error::Internal("a receipt before its time"))?;
        let (leaf, time) = self.leaf_of(end).await?;
        let system = self.tenant(SYSTEM_NO)?;
        // After the leaf, so that it is among these.
        let log = self.head_of(SYSTEM_NO, system.id)?;
        let (tenant, id) = (TenantNo(end.number), end.id()?);
        let receipt = Receipt {
            tenant,
            id,
            name: end.name.clone(),
            time,
            leaf,
            log,
            ended: self.head_of(tenant, id)?,
            keys: done.keys.clone(),
            copies: done.copies.clone(),
        };
        let key = self.keystore.ledger_key(system.id)?;
        receipt::sign(&receipt, self.id, &key.public_key(), |text| key.sign(text))
            .map_err(|_| Error::Internal("a receipt that can't be signed"))
    }

    fn head_of(&self, tenant: TenantNo, id: strongroom_ids::TenantId) -> Result<LogHead, Error> {
        let head = self.committer.head(tenant).ok_or(Error::Internal("a tenant without a log"))?;
        let origin = checkpoint::origin(self.id, id, LANE, head.incarnation);
        Ok(LogHead { origin, size: head.size, root: head.root })
    }

    /// The leaf that says that the keys are destroyed, and its time.
    async fn leaf_of(&self, end: &End) -> Result<(u64, Timestamp), Error> {
        let (from, to) = place::leaves_range(SYSTEM_NO, end.from, u64::MAX);
        let mut pages = Pages::new(Family::Leaves, from, to);
        let request = data_encoding::HEXLOWER.decode(end.request.as_bytes()).unwrap_or_default();
        while let Some(page) = pages.next(&*self.store).await? {
            for (_, line) in &page {
                let leaf = leaf::parse(line).map_err(|_| Error::DataLoss("the ledger"))?;
                let done = || leaf.detail.iter().any(|(name, value)| name == "stage" && value == "done");
                if leaf.request[..] == request[..] && leaf.decision == "allow" && done() {
                    return Ok((leaf.index, leaf.time));
                }
            }
        }
        Err(Error::DataLoss("the ledger: the leaf of a tenant's end is missing"))
    }
}
