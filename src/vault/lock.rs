//! Tenants whose own key is away: nothing of them is read or written until it is back, and others notice nothing.

use std::sync::Arc;

use strongroom_access::Directory;
use strongroom_commit::CommitterState;
use strongroom_ids::{TenantId, TenantNo};
use strongroom_keys::{self as keys, Keystore, RootError, RootProvider};
use strongroom_ledger::leaf::LeafHeader;
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Store, keys as place};

use crate::error::Error;
use crate::key_life;
use crate::open::SYSTEM_NO;
use crate::source;
use crate::tenant::Tenant;
use crate::vault::Vault;

/// Whether a tenant has a key of its own, and that is away.
pub(crate) fn is_locked(keystore: &Keystore, tenant: TenantId) -> bool {
    keystore.own_key(tenant).is_some_and(|own| own.locked)
}

impl<S: Store> Vault<S> {
    /// Locks a tenant that has a key of its own: when this returns, its keys are not in memory and nothing of it is
    /// released any more. Requests that are under way end first. For one that is locked it sees that it stays so.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`] if the tenant has no key of its own. If its log can't say so, the tenant is locked all
    /// the same.
    pub async fn lock_tenant(&self, number: TenantNo) -> Result<(), Error> {
        let id = self.row_of(number).await?.id;
        // Their leaves name the rules in force, which can't be read later.
        self.write_counted_refusals().await;
        let _changing = self.tenants.changing.lock().await;
        self.see_tenants().await?;
        let tenant = match self.tenants.get(number) {
            // Who unlocks it may have come as far as the keystore.
            Err(Error::TenantLocked) => return self.lock_keys(id).await,
            tenant => tenant?,
        };
        // Nobody uses a key while it goes.
        let _turn = self.turn.write().await;
        if self.keystore.own_key(id).is_none() {
            return Err(Error::KeyUnavailable("the tenant has no key of its own that could be away".to_owned()));
        }
        // First, and at once: whoever is cut off below leaves a tenant that is not served.
        self.tenants.lock(number);
        self.deks.remove_tenant(id);
        self.lock_keys(id).await?;
        tracing::warn!(tenant = tenant.name, "a tenant is locked: its own key is away");
        self.record_lock(&tenant, "lock_tenant").await
    }

    /// Unlocks a tenant with the provider of its own key, or with an imported key that is in the keystore. It serves
    /// when this returns. It may take as long as the provider does.
    ///
    /// # Errors
    /// [`Error::TenantLocked`] if its key is still away; [`Error::KeyUnavailable`] says what the provider said. A tenant
    /// that was locked still is, unless only what its lock had cut off could not be finished.
    pub async fn unlock_tenant(&self, number: TenantNo, with: Option<Arc<dyn RootProvider>>) -> Result<(), Error> {
        let row = self.row_of(number).await?;
        match self.tenants.get(number) {
            Err(Error::TenantLocked) => {}
            there => drop(there?),
        }
        // Nobody waits for the provider meanwhile, least of all who locks a tenant.
        let (keystore, id) = (Arc::clone(&self.keystore), row.id);
        let unlocked = tokio::task::spawn_blocking(move || keystore.unlock_tenant(id, with.as_deref())).await;
        unlocked.map_err(|_| Error::Internal("the unlocking of a tenant did not end"))?.map_err(refused)?;
        {
            let _changing = self.tenants.changing.lock().await;
            self.see_tenants().await?;
            match self.tenants.get(number) {
                Err(Error::TenantLocked) => {}
                there => return there.map(drop),
            }
            let _turn = self.turn.write().await;
            if let Err(error) = self.take_back(row).await {
                // What is not served keeps no keys in memory.
                self.lock_keys(id).await?;
                return Err(error);
            }
        }
        // What its lock cut off: its jobs, and a change of its keys.
        self.jobs.tell_unlocked();
        match self.finish_key_change(number).await {
            Err(error @ (Error::KeyUnavailable(_) | Error::KeyState(_) | Error::KeyVersionUnknown(_))) => {
                tracing::error!(%error, tenant = number.0, "a change of keys that was cut off could not be made");
                Ok(())
            }
            done => done,
        }
    }

    /// Takes a tenant into memory whose keys are unlocked, with the proofs that a start asks for.
    async fn take_back(&self, row: TenantRow) -> Result<(), Error> {
        // While the store recovers, its readers may still see what a reopening will change.
        let serving = || match self.committer.state() {
            CommitterState::Serving => Ok(()),
            _ => Err(Error::Recovering),
        };
        serving()?;
        let lane = self.committer.head(row.number).ok_or(Error::Internal("a tenant without a log"))?;
        source::in_force(&*self.store, (row.number, &row.name), &lane.rules)
            .await
            .map_err(|_| Error::DataLoss("the rules in force"))?;
        let tenant = Tenant::load(row, lane.incarnation, &*self.store, &self.keystore).await?;
        serving()?;
        if !key_life::keystore_is_new_enough(&*self.store, &tenant, &self.keystore).await? {
            let why = "the keystore is older than the last change of the tenant's keys; put the newest copy back";
            return Err(Error::KeyUnavailable(why.to_owned()));
        }
        self.record_lock(&tenant, "unlock_tenant").await?;
        tracing::info!(tenant = tenant.name, "a tenant is unlocked: its own key is there again");
        self.tenants.begin(tenant, Directory::clone(&self.directory()));
        Ok(())
    }

    /// Wipes a tenant's keys from the keystore's memory. It may wait for somebody who writes the file.
    async fn lock_keys(&self, tenant: TenantId) -> Result<(), Error> {
        let keystore = Arc::clone(&self.keystore);
        let locked = tokio::task::spawn_blocking(move || keystore.lock_tenant(tenant)).await;
        Ok(locked.map_err(|_| Error::Internal("the locking of a tenant did not end"))??)
    }

    /// The row of a tenant that may be locked.
    async fn row_of(&self, number: TenantNo) -> Result<TenantRow, Error> {
        if number == SYSTEM_NO {
            return Err(Error::KeyUnavailable("the vault itself has no key of its own but its root key".to_owned()));
        }
        let row = self.store.get(Family::Meta, place::tenant(number)).await?.ok_or(Error::TenantNotFound)?;
        Ok(TenantRow::decode(&row)?)
    }

    /// Records in a tenant's own log that it was locked or unlocked, and which key that was.
    async fn record_lock(&self, tenant: &Tenant, action: &str) -> Result<(), Error> {
        let own = self.keystore.own_key(tenant.id);
        let kind = own.as_ref().map(|own| own.kind.to_string()).unwrap_or_default();
        let mut detail = vec![("own_key", kind.as_str())];
        let fingerprint = own.as_ref().and_then(|own| own.fingerprint.as_deref());
        detail.extend(fingerprint.map(|fingerprint| ("fingerprint", fingerprint)));
        let request = keys::random::<16>()?;
        let header = LeafHeader {
            request: &request,
            principal: "vault",
            actor: None,
            action,
            purpose: None,
            decision: "allow",
            reason: None,
            policy: tenant.policy_version(),
            schema: tenant.rules().schema.version(),
            keys: &[],
            client: "",
            detail: &detail,
        };
        self.append(tenant.number, &header).await
    }
}

fn refused(error: RootError) -> Error {
    match error {
        RootError::Key(error) => error.into(),
        other => Error::KeyUnavailable(other.to_string()),
    }
}
