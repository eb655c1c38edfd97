//! Tenants whose own key is away: nothing of them is read or written until it is back, and others notice nothing.

use std::sync::Arc;

use strongroom_access::{Action, Directory, Role};
use strongroom_ids::{TenantId, TenantNo};
use strongroom_keys::{self as keys, BroughtKey, Keystore, OwnKeyKind, OwnKeyProbe, UnwrappedTenantKey};
use strongroom_ledger::leaf::LeafHeader;
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Mutation, Store, keys as place};

use crate::blocking::blocking;
use crate::error::Error;
use crate::key_life;
use crate::open::{SYSTEM_NO, tenant_rows};
use crate::own_action::OwnAction;
use crate::road::{Caller, refusal};
use crate::source;
use crate::tenant::{Tenant, see_in_force};
use crate::vault::Vault;

/// Why a key that somebody outside keeps is away: a tenant's own, or the root key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Away {
    /// Who keeps it does not let the vault have it any more.
    Denied,
    /// Nobody says any more that the vault may have it.
    Unreachable,
}

impl Away {
    /// The word of the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
        }
    }
}

/// How a tenant's own key comes back.
pub(crate) enum Back {
    /// Its provider has unwrapped the tenant key.
    Unwrapped(UnwrappedTenantKey),
    /// Somebody brought it.
    Brought {
        /// The key.
        key: BroughtKey,
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
    ///
    /// # Errors
    /// As that.
    pub async fn provided_tenants(&self) -> Result<Vec<Provided>, Error> {
        provided_tenants(&*self.store, &self.keystore).await
    }

    /// What the provider of a tenant's own key is asked with; `None` if none keeps it.
    pub fn own_key_probe(&self, tenant: TenantId) -> Option<OwnKeyProbe> {
        self.keystore.own_key_probe(tenant).ok()
    }

    /// Locks a tenant whose own key is away: when this returns, its keys are not in memory and nothing of it is released any
    /// more. Requests that are under way end first. For one that is locked it sees that it stays so. Nothing is done if the own
    /// key has changed since it was asked for, which was at `asked`, in microseconds since 1970.
    ///
    /// # Errors
    /// If the tenant's log can't say so yet. It is locked all the same, and called again its log is told.
    pub async fn lock_tenant(&self, tenant: &Provided, asked: u64, why: Away) -> Result<(), Error> {
        {
            // Nobody uses a key while it goes.
            let _turn = self.turn.write().await;
            let own = self.keystore.own_key(tenant.id);
            if own.is_none_or(|own| own.changed != asked) {
                return Ok(());
            }
            if let Ok(served) = self.tenants.get(tenant.number) {
                self.lock_in_memory(&served);
                self.tenants.owe(tenant.number, why.as_str());
            }
            // Who unlocks it may have come as far as the keystore.
            self.lock_keys(tenant.id).await?;
        }
        self.tell_lock(tenant.number, tenant.id).await
    }

    /// Takes a tenant out of memory, but for what the keystore has. Only while no request runs.
    pub(crate) fn lock_in_memory(&self, tenant: &Tenant) {
        self.tenants.lock(tenant.number);
        self.deks.remove_tenant(tenant.id);
        tracing::warn!(tenant = tenant.name, "a tenant is locked: its own key is away");
    }

    /// Tells a tenant's log that it was locked, if that is owed.
    async fn tell_lock(&self, number: TenantNo, id: TenantId) -> Result<(), Error> {
        let Some(why) = self.tenants.owed(number) else { return Ok(()) };
        {
            let _turn = self.turn.read().await;
            self.still_locked(number)?;
            self.record_lock(number, id, OwnAction::LockTenant, ("why", why), vec![]).await?;
        }
        self.tenants.settled(number);
        Ok(())
    }

    /// Sees that a tenant is locked, and has neither come back nor ended.
    fn still_locked(&self, number: TenantNo) -> Result<(), Error> {
        match self.tenants.get(number) {
            Err(Error::TenantLocked) if !self.tenants.is_unsure() => Ok(()),
            Err(Error::TenantLocked) | Ok(_) => Err(Error::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Unlocks a tenant with what its provider has unwrapped. It serves when this returns. Of one that is not locked it sees
    /// whether its own key is still the same.
    ///
    /// # Errors
    /// [`Error::OwnKey`] if it is another key. A tenant that was locked still is, unless only what its lock had cut off could
    /// not be finished.
    pub async fn unlock_tenant(&self, tenant: &Provided, with: UnwrappedTenantKey) -> Result<(), Error> {
        let (keystore, id) = (Arc::clone(&self.keystore), tenant.id);
        // Nobody waits for this, and least of all for a key that does not fit.
        let with = blocking(move || keystore.fits(id, &with).map(|()| with)).await??;
        match self.tenants.get(tenant.number) {
            Err(Error::TenantLocked) => {}
            there => return there.map(drop),
        }
        self.come_back(tenant.number, Back::Unwrapped(with)).await
    }

    /// Brings a locked tenant back.
    pub(crate) async fn come_back(&self, number: TenantNo, with: Back) -> Result<(), Error> {
        let row = self.row_of(number).await?;
        let (id, brought) = (row.id, matches!(with, Back::Brought { .. }));
        {
            let _changing = self.tenants.changing.lock().await;
            self.see_tenants().await?;
            self.still_locked(number)?;
            self.tell_lock(number, id).await?;
            let _turn = self.turn.write().await;
            self.still_locked(number)?;
            let back = match self.unlock_keys(id, with).await {
                Ok(by) => self.take_back(row, &by, brought).await,
                Err(error) => Err(error),
            };
            if let Err(error) = back {
                // What is not served keeps no keys in memory, and what was brought for nothing is not kept.
                self.lock_keys(id).await?;
                if brought {
                    self.take_away(id).await?;
                }
                return Err(error);
            }
        }
        // What its lock cut off: its jobs, and a change of its keys.
        self.jobs.tell_unlocked();
        match self.finish_key_change(number).await {
            Err(error) if error.is_final() => {
                tracing::error!(%error, tenant = number.0, "a change of keys that was cut off could not be made");
                Ok(())
            }
            done => done,
        }
    }

    /// Unlocks a tenant's keys, and tells who did.
    async fn unlock_keys(&self, tenant: TenantId, with: Back) -> Result<String, Error> {
        // While the store recovers, nothing that this stands on can be read.
        self.serving()?;
        let (keystore, now) = (Arc::clone(&self.keystore), self.now());
        blocking(move || match with {
            Back::Unwrapped(key) => {
                keystore.unlock_tenant(tenant, Some(key))?;
                Ok("vault".to_owned())
            }
            Back::Brought { key, by } => {
                let own = keystore.own_key(tenant).ok_or(Error::Internal("a locked tenant without an own key"))?;
                // Later than its last change, whatever the clock says.
                keystore.bring_key(tenant, key, now.max(own.changed.saturating_add(1)))?;
                Ok(by)
            }
        })
        .await?
    }

    /// Takes the imported key of a locked tenant out of the keystore's file, if it is there.
    pub(crate) async fn take_away(&self, tenant: TenantId) -> Result<(), Error> {
        let (keystore, now) = (Arc::clone(&self.keystore), self.now());
        blocking(move || match keystore.own_key(tenant) {
            Some(own) if own.kind == OwnKeyKind::Imported && !own.removed => {
                keystore.remove_key(tenant, now.max(own.changed.saturating_add(1)))
            }
            _ => Ok(()),
        })
        .await??;
        Ok(())
    }

    /// Takes a tenant into memory whose keys are unlocked, with the proofs that a start asks for.
    async fn take_back(&self, row: TenantRow, by: &str, brought: bool) -> Result<(), Error> {
        self.serving()?;
        let lane = self.committer.head(row.number).ok_or(Error::Internal("a tenant without a log"))?;
        see_in_force(self, row.number, &row.name).await?;
        let tenant = Tenant::load(row, (lane.incarnation, lane.size), &*self.store, &self.keystore).await?;
        self.serving()?;
        if !key_life::keystore_is_new_enough(&*self.store, &tenant, &self.keystore).await? {
            let why = "the keystore is older than the last change of the tenant's keys; put the newest copy back";
            return Err(Error::KeyUnavailable(why.to_owned()));
        }
        let mut noted = Vec::new();
        if brought {
            noted.push(key_life::note_with_system(self).await?);
            // What is open notes the keystore when it is finished.
            if !key_life::is_open(&*self.store, &tenant).await? {
                noted.push(key_life::note_keystore(self, &tenant).await?);
            }
        }
        self.record_lock(tenant.number, tenant.id, OwnAction::UnlockTenant, ("by", by), noted).await?;
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
            return Err(Error::Internal("the vault itself has no own key"));
        }
        let row = self.store.get(Family::Meta, place::tenant(number)).await?.ok_or(Error::TenantNotFound)?;
        Ok(TenantRow::decode(&row)?)
    }

    /// Records in a tenant's own log that it was locked or unlocked, and which key that was; and notes with it what there is
    /// to note.
    async fn record_lock(
        &self,
        number: TenantNo,
        id: TenantId,
        action: OwnAction,
        told: (&str, &str),
        mutations: Vec<Mutation>,
    ) -> Result<(), Error> {
        let own = self.keystore.own_key(id);
        let kind = own.as_ref().map(|own| own.kind.to_string()).unwrap_or_default();
        let mut detail = vec![("own_key", kind.as_str()), told];
        let fingerprint = own.as_ref().and_then(|own| own.fingerprint.as_deref());
        detail.extend(fingerprint.map(|fingerprint| ("fingerprint", fingerprint)));
        self.record_by_itself(number, action, &detail, mutations).await
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
        {
            // No leaf comes after the one that ends a tenant's log.
            let _turn = self.turn.read().await;
            self.still_locked(row.number)?;
            let rules = self.rules_in_force(row.number)?;
            let freezes = source::logged_freezes(&*self.store, row.number, &rules).await?;
            let suspended = freezes.is_suspended(&caller.principal.name).then_some(Error::Suspended);
            let removed = (!self.tenants.is_enrolled(row.number, caller)).then_some(Error::OfficerRemoved);
            let refused = removed.or(suspended);
            self.record_own(caller, action, &[("tenant", "locked")], refused.as_ref()).await?;
            refused.map_or(Ok(()), Err)?;
        }
        Ok(row)
    }

    /// Records what came of an officer's request about the own key of a tenant, which may be locked. Only in a turn.
    pub(crate) async fn record_own(
        &self,
        caller: &Caller,
        action: Action,
        detail: &[(&str, &str)],
        failed: Option<&Error>,
    ) -> Result<(), Error> {
        let number = caller.principal.tenant;
        let (request, rules) = (keys::random::<16>()?, self.rules_in_force(number)?);
        let reason = failed.map(Error::reason);
        let header = LeafHeader {
            request: &request,
            principal: &caller.principal.name,
            actor: None,
            action: action.as_str(),
            purpose: None,
            decision: reason.map_or("allow", refusal),
            reason,
            policy: rules.policy.version,
            schema: rules.schema.version,
            keys: &[],
            client: &caller.client,
            detail,
        };
        self.append(number, &header, vec![]).await
    }

    /// The same of what failed, whether the tenant is locked or not.
    ///
    /// # Errors
    /// Those of the commit; [`Error::TenantDestroyed`] if its log has ended meanwhile.
    pub(crate) async fn record_failed(&self, caller: &Caller, action: Action, error: &Error) -> Result<(), Error> {
        let _turn = self.turn.read().await;
        match self.tenants.get(caller.principal.tenant) {
            Ok(tenant) => tenant.is_there()?,
            Err(Error::TenantLocked) if !self.tenants.is_unsure() => {}
            Err(error) => return Err(error),
        }
        self.record_own(caller, action, &[], Some(error)).await
    }
}
