//! Leaves that the vault writes by itself: what they say stands on nothing that was read and changes nothing.

use strongroom_commit::Change;
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf::{self, LeafHeader};
use strongroom_storage::Store;

use crate::error::Error;
use crate::vault::Vault;

impl<S: Store> Vault<S> {
    /// Appends a leaf without items to a tenant's log.
    pub(crate) async fn append(&self, tenant: TenantNo, header: &LeafHeader<'_>) -> Result<(), Error> {
        let leaves = leaf::prepare(header, std::iter::empty());
        let change = Change {
            position: self.committer.position(),
            guards: vec![],
            changes: vec![],
            mutations: vec![],
            leaves: leaves.into_iter().map(|leaf| (tenant, leaf)).collect(),
        };
        self.committer.commit(change).await?;
        Ok(())
    }
}
