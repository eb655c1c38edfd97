//! Tenants whose own key is away: nothing of them is read or written until it is back, and others notice nothing.

use std::sync::Arc;

use strongroom_access::{Action, Directory, Role};
use strongroom_commit::{Change, CommitterState};
use strongroom_ids::{TenantId, TenantNo};
use strongroom_keys::{self as keys, Keystore, OwnKeyKind, OwnKeyProbe, UnwrappedTenantKey};
use strongroom_ledger::leaf::{self, LeafHeader};
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Store, keys as place};

use crate::error::Error;
use crate::key_life;
use crate::open::{SYSTEM_NO, tenant_rows};
use crate::road::{Caller, refusal};
use crate::source;
use crate::tenant::{Tenant, see_in_force};
use crate::vault::Vault;

/// Why a tenant's own key is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Away {
    /// Who keeps it does not let the vault have it any more.
    Denied,
    /// Nobody says any more that the vault may have it.
    Unreachable,
}

impl Away {
    /// The word of the ledger.
    fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
        }
    }
}

/// How a tenant's own key comes back.
pub enum Back {
    /// Its provider has unwrapped the tenant key.
    Unwrapped(UnwrappedTenantKey),
    /// Somebody brought it, wrapped to the tenant's import key.
    Brought {
        /// What was wrapped.
        wrapped: Vec<u8>,
        /// Who brought it, as the ledger names principals.
        by: String,
    },
}

/// A tenant whose own key a provider keeps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Provided {
    /// Its number.
    pub number: TenantNo,
    /// Its permanent identity.
    pub id: TenantId,
    /// Its name, by which the configuration knows the provider.
    pub name: String,
}

/// Whether a tenant has a key of its own, and that is away.
pub(crate) fn is_locked(keystore: &Keystore, tenant: TenantId) -> bool {
    keystore.own_key(tenant).is_some_and(|own| own.locked)
}

/// Does what may take long, or wait for the disk, on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Internal("work on the keystore did not end"))
}

/// The tenants whose own keys providers keep, locked or not.
///
/// # Errors
/// [`Error::DataLoss`]; [`Error::Recovering`].
pub async fn provided_tenants<S: Store>(store: &S, keystore: &Keystore) -> Result<Vec<Provided>, Error> {
    let own = keystore.own_keys().into_iter();
    let with = own.filter(|own| matches!(own.kind, OwnKeyKind::Provider(_))).map(|own| own.tenant);
    let with: Vec<TenantId> = with.collect();
    if with.is_empty() {
        return Ok(vec![]);
    }
    let rows = tenant_rows(store).await.map_err(|_| Error::DataLoss("a tenant's row"))?;
    let provided = rows.into_iter().filter(|row| with.contains(&row.id));
    Ok(provided.map(|TenantRow { number, id, name, .. }| Provided { number, id, name }).collect())
}

impl<S: Store> Vault<S> {
    /// See [`provided_tenants`].
    pub async fn provided_tenants(&self) -> Result<Vec<Provided>, Error> {
        provided_tenants(&*self.store, &self.keystore).await
    }

    /// What the provider of a tenant's own key is asked with; `None` if none keeps it.
    pub fn own_key_probe(&self, tenant: TenantId) -> Option<OwnKeyProbe> {
        self.keystore.own_key_probe(tenant).ok()
    }

    /// Locks a tenant whose own key is away: when this returns, its keys are not in memory and nothing of it is released any
    /// more. Requests that are under way end first. For one that is locked it sees that it stays so.
    ///
    /// # Errors
    /// [`Error::OwnKey`] if the tenant has no key of its own. If its log can't say so, the tenant is locked all the same.
    pub async fn lock_tenant(&self, number: TenantNo, why: Away) -> Result<(), Error> {
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
            return Err(Error::OwnKey("the tenant has no key of its own that could be away".to_owned()));
        }
        // First, and at once: whoever is cut off below leaves a tenant that is not served.
        self.lock_in_memory(&tenant);
        self.lock_keys(id).await?;
        self.record_lock(&tenant, "lock_tenant", ("why", why.as_str()), false).await
    }

    /// Takes a tenant out of memory, but for what the keystore has. Only while no request runs.
    pub(crate) fn lock_in_memory(&self, tenant: &Tenant) {
        self.tenants.lock(tenant.number);
        self.deks.remove_tenant(tenant.id);
        tracing::warn!(tenant = tenant.name, "a tenant is locked: its own key is away");
    }

    /// Unlocks a tenant. It serves when this returns. Of one that is not locked it sees whether its own key is still the same.
    ///
    /// # Errors
    /// [`Error::OwnKey`] if it is another key. A tenant that was locked still is, unless only what its lock had cut off could
    /// not be finished.
    pub async fn unlock_tenant(&self, number: TenantNo, with: Back) -> Result<(), Error> {
        let row = self.row_of(number).await?;
        let id = row.id;
        let with = match (self.tenants.get(number), with) {
            (Ok(_), Back::Unwrapped(key)) => {
                // Nobody waits for this.
                let keystore = Arc::clone(&self.keystore);
                return Ok(blocking(move || keystore.unlock_tenant(id, Some(key))).await??);
            }
            (Ok(_), Back::Brought { .. }) => return Err(Error::Conflict),
            (Err(Error::TenantLocked), with) => with,
            (Err(error), _) => return Err(error),
        };
        {
            let _changing = self.tenants.changing.lock().await;
            self.see_tenants().await?;
            match self.tenants.get(number) {
                Err(Error::TenantLocked) => {}
                there => return there.map(drop),
            }
            let _turn = self.turn.write().await;
            let back = match self.unlock_keys(id, with).await {
                Ok((by, changed)) => self.take_back(row, &by, changed).await,
                Err(error) => Err(error),
            };
            if let Err(error) = back {
                // What is not served keeps no keys in memory.
                self.lock_keys(id).await?;
                return Err(error);
            }
        }
        // What its lock cut off: its jobs, and a change of its keys.
        self.jobs.tell_unlocked();
        match self.finish_key_change(number).await {
            Err(
                error
                @ (Error::KeyUnavailable(_) | Error::KeyState(_) | Error::KeyVersionUnknown(_) | Error::OwnKey(_)),
            ) => {
                tracing::error!(%error, tenant = number.0, "a change of keys that was cut off could not be made");
                Ok(())
            }
            done => done,
        }
    }

    /// Unlocks a tenant's keys, and tells who did and whether the keystore's file changed.
    async fn unlock_keys(&self, tenant: TenantId, with: Back) -> Result<(String, bool), Error> {
        let (keystore, now) = (Arc::clone(&self.keystore), self.now());
        blocking(move || match with {
            Back::Unwrapped(key) => {
                keystore.unlock_tenant(tenant, Some(key))?;
                Ok(("vault".to_owned(), false))
            }
            Back::Brought { wrapped, by } => {
                // Later than its last change, whatever the clock says.
                let changed = keystore.own_key(tenant).map_or(0, |own| own.changed);
                keystore.bring_key(tenant, &wrapped, now.max(changed.saturating_add(1)))?;
                Ok((by, true))
            }
        })
        .await?
    }

    /// Takes a tenant into memory whose keys are unlocked, with the proofs that a start asks for.
    async fn take_back(&self, row: TenantRow, by: &str, changed: bool) -> Result<(), Error> {
        // While the store recovers, its readers may still see what a reopening will change.
        let serving = || match self.committer.state() {
            CommitterState::Serving => Ok(()),
            _ => Err(Error::Recovering),
        };
        serving()?;
        let lane = self.committer.head(row.number).ok_or(Error::Internal("a tenant without a log"))?;
        see_in_force(self, row.number, &row.name).await?;
        let tenant = Tenant::load(row, lane.incarnation, &*self.store, &self.keystore).await?;
        serving()?;
        if !key_life::keystore_is_new_enough(&*self.store, &tenant, &self.keystore).await? {
            let why = "the keystore is older than the last change of the tenant's keys; put the newest copy back";
            return Err(Error::KeyUnavailable(why.to_owned()));
        }
        // What is open notes the keystore when it is finished.
        let noted = changed && !key_life::is_open(&*self.store, &tenant).await?;
        self.record_lock(&tenant, "unlock_tenant", ("by", by), noted).await?;
        tracing::info!(tenant = tenant.name, "a tenant is unlocked: its own key is there again");
        self.tenants.begin(tenant, Directory::clone(&self.directory()));
        Ok(())
    }

    /// Wipes a tenant's keys from the keystore's memory. It may wait for somebody who writes the file.
    async fn lock_keys(&self, tenant: TenantId) -> Result<(), Error> {
        let keystore = Arc::clone(&self.keystore);
        Ok(blocking(move || keystore.lock_tenant(tenant)).await??)
    }

    /// The row of a tenant that may be locked.
    async fn row_of(&self, number: TenantNo) -> Result<TenantRow, Error> {
        if number == SYSTEM_NO {
            return Err(Error::OwnKey("the vault itself has no own key but its root key".to_owned()));
        }
        let row = self.store.get(Family::Meta, place::tenant(number)).await?.ok_or(Error::TenantNotFound)?;
        Ok(TenantRow::decode(&row)?)
    }

    /// Records in a tenant's own log that it was locked or unlocked, and which key that was; and notes with it how far the
    /// keystore has come, if that is to be.
    async fn record_lock(
        &self,
        tenant: &Tenant,
        action: &str,
        told: (&str, &str),
        note_keystore: bool,
    ) -> Result<(), Error> {
        let own = self.keystore.own_key(tenant.id);
        let kind = own.as_ref().map(|own| own.kind.to_string()).unwrap_or_default();
        let mut detail = vec![("own_key", kind.as_str()), told];
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
        let mutations = match note_keystore {
            true => vec![key_life::note_keystore(self, tenant)?],
            false => vec![],
        };
        let leaves = leaf::prepare(&header, std::iter::empty());
        let leaves = leaves.into_iter().map(|leaf| (tenant.number, leaf)).collect();
        let position = self.committer.position();
        self.committer.commit(Change { position, guards: vec![], changes: vec![], mutations, leaves }).await?;
        Ok(())
    }

    /// Lets an officer of a locked tenant see to its own key. The tenant's rules can't be read meanwhile, so none are asked:
    /// an officer is whose key the directory has, and who is not suspended by what the log has in force. It is recorded
    /// before anything is done.
    ///
    /// # Errors
    /// [`Error::TenantLocked`] for everybody else; [`Error::Suspended`].
    pub(crate) async fn admit_officer(&self, caller: &Caller, action: Action) -> Result<TenantRow, Error> {
        if caller.principal.role != Role::Officer {
            return Err(Error::TenantLocked);
        }
        let row = self.row_of(caller.principal.tenant).await?;
        let lane = self.committer.head(row.number).ok_or(Error::Internal("a tenant without a log"))?;
        let freezes = source::logged_freezes(&*self.store, row.number, &lane.rules).await?;
        if freezes.is_suspended(&caller.principal.name) {
            self.record_officer(caller, action, Some(&Error::Suspended)).await?;
            return Err(Error::Suspended);
        }
        self.record_officer(caller, action, None).await?;
        Ok(row)
    }

    /// Records what an officer of a locked tenant asks for, or why nothing came of it.
    pub(crate) async fn record_officer(
        &self,
        caller: &Caller,
        action: Action,
        failed: Option<&Error>,
    ) -> Result<(), Error> {
        // No leaf comes after the one that ends a tenant's log.
        let _turn = self.turn.read().await;
        let number = caller.principal.tenant;
        if !matches!(self.tenants.get(number), Err(Error::TenantLocked)) {
            // It has come back or ended meanwhile.
            return Err(Error::Conflict);
        }
        let lane = self.committer.head(number).ok_or(Error::Internal("a tenant without a log"))?;
        let request = keys::random::<16>()?;
        let reason = failed.map(Error::reason);
        let header = LeafHeader {
            request: &request,
            principal: &caller.principal.name,
            actor: None,
            action: action.as_str(),
            purpose: None,
            decision: reason.map_or("allow", refusal),
            reason,
            policy: lane.rules.policy.version,
            schema: lane.rules.schema.version,
            keys: &[],
            client: &caller.client,
            detail: &[("tenant", "locked")],
        };
        self.append(number, &header).await
    }
}
