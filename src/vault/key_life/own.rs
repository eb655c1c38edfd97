//! A tenant's own key, as its officers see to it: what there is, the import key, bringing it, moving it, taking it away.
//!
//! A change of it takes the way of all changes of keys. While it is away the tenant is locked, and its rules can't be read;
//! then an officer, whose key the directory has, may still ask what there is, bring it back, or take it away again.

use std::sync::Arc;
use std::time::Duration;

use strongroom_access::Action;
use strongroom_ids::{TenantId, VaultId};
use strongroom_keys::{
    BroughtKey, ImportPublicKey, Keystore, NewImportKey, OwnKey, OwnKeyInfo, OwnKeyKind, ProvidedKey, RootError,
    RootProvider,
};
use strongroom_storage::Store;

use super::change::Intent;
use crate::blocking::blocking;
use crate::error::Error;
use crate::lock::Back;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenants::Busy;
use crate::vault::Vault;

/// Bytes of a key that was wrapped to an import key: those of its modulus.
const MODULUS: usize = 512;
/// When to ask again for what takes long, while the same tenant does something of that kind.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a tenant's provider may take. What is asked goes on, and keeps its tenant from asking more.
const ANSWER: Duration = Duration::from_secs(60);
/// Where a tenant's own key is that has none.
const NONE: &str = "none";
/// What a tenant hears that has none.
const HAS_NONE: &str = "the tenant has no key of its own: `strongroom own-key show`";
/// Where one is that was taken away.
const REMOVED: &str = "removed";

/// Asks which key the tenant has of its own.
struct GetOwnKey;

impl<S: Store> Attempt<S> for GetOwnKey {
    type Answer = Option<OwnKeyInfo>;
    const ACTION: Action = Action::GetOwnKey;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_vault()?;
        Ok(road.prepare(road.own_key()))
    }
}

/// Asks for an import key.
struct CreateImportKey;

impl<S: Store> Attempt<S> for CreateImportKey {
    type Answer = TenantId;
    const ACTION: Action = Action::CreateImportKey;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantId>, Refused> {
        road.may_change_own_key()?;
        Ok(road.prepare(road.tenant.id))
    }
}

/// Brings a tenant's own key.
pub struct ImportOwnKey {
    /// The key, wrapped to the tenant's import key.
    pub wrapped: Vec<u8>,
    /// Whether it takes the place of another own key.
    pub replace: bool,
}

/// Asks whether an own key may be brought at all, before it is opened.
struct MayImport<'r>(&'r ImportOwnKey);

impl<S: Store> Attempt<S> for MayImport<'_> {
    type Answer = TenantId;
    const ACTION: Action = Action::ImportOwnKey;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantId>, Refused> {
        self.0.may_have_it_alone(road)?;
        let mut prepared = road.prepare(road.tenant.id);
        prepared.detail.push(("stage", "asked".to_owned()));
        Ok(prepared)
    }
}

impl<S: Store> Attempt<S> for ImportOwnKey {
    type Answer = u64;
    const ACTION: Action = Action::ImportOwnKey;
    const ALONE: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.may_change_own_key()?;
        self.has_its_length()?;
        match road.own_key().filter(|_| !self.replace) {
            None => Ok(()),
            Some(own) => Err(Error::OwnKey(format!(
                "the tenant has an own key already ({}): say that this one takes its place (`strongroom own-key bring \
                 --replace`)",
                own.kind
            ))),
        }
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<u64>, Refused> {
        self.may_have_it_alone(road)?;
        road.propose_own(&OwnKeyKind::Imported.to_string()).await
    }
}

impl ImportOwnKey {
    fn has_its_length(&self) -> Result<(), Error> {
        let description = || format!("an own key that was wrapped to an import key has {MODULUS} bytes");
        match self.wrapped.len() == MODULUS {
            true => Ok(()),
            false => Err(Error::invalid("wrapped", "length", description())),
        }
    }
}

/// Moves a tenant to the provider that is configured for it, or to no own key.
pub struct MoveOwnKey {
    /// `none`, or a kind of provider.
    pub to: String,
    /// Finds that provider; `None` if there is no such kind. It may read files, and is not asked before the caller is known
    /// to be allowed.
    pub provider: Option<ProviderSource>,
}

/// Finds the provider that is configured for a tenant.
pub type ProviderSource = Arc<dyn Fn() -> Result<Arc<dyn RootProvider>, RootError> + Send + Sync>;

/// Asks whether a tenant may be moved at all, before its provider is asked for anything.
struct MayMove<'r>(&'r MoveOwnKey);

impl<S: Store> Attempt<S> for MayMove<'_> {
    type Answer = TenantId;
    const ACTION: Action = Action::MoveOwnKey;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantId>, Refused> {
        self.0.allowed(road)?;
        let mut prepared = road.prepare(road.tenant.id);
        prepared.detail.push(("to", self.0.to.clone()));
        prepared.detail.push(("stage", "asked".to_owned()));
        Ok(prepared)
    }
}

impl<S: Store> Attempt<S> for MoveOwnKey {
    type Answer = u64;
    const ACTION: Action = Action::MoveOwnKey;
    const ALONE: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        self.allowed(road)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<u64>, Refused> {
        self.allowed(road)?;
        road.propose_own(&self.to).await
    }
}

impl MoveOwnKey {
    fn allowed<S: Store>(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.may_change_own_key()?;
        match (self.to.as_str(), &self.provider) {
            (NONE, _) if road.own_key().is_none() => Err(Error::OwnKey(HAS_NONE.to_owned())),
            (NONE, _) | (_, Some(_)) => Ok(()),
            (_, None) => {
                let description = "an own key is moved to none, pkcs11, aws-kms or openbao";
                Err(Error::invalid("to", "place_unknown", description))
            }
        }
    }
}

/// Whether such a key can be taken away here.
fn is_removable(kind: OwnKeyKind) -> Result<(), Error> {
    match kind {
        OwnKeyKind::Imported => Ok(()),
        OwnKeyKind::Provider(kind) => Err(Error::OwnKey(format!(
            "the tenant's own key is with a provider ({kind}): take it away there, and the vault follows"
        ))),
    }
}

/// Takes a tenant's imported key away.
pub(crate) struct RemoveOwnKey;

impl<S: Store> Attempt<S> for RemoveOwnKey {
    type Answer = u64;
    const ACTION: Action = Action::RemoveOwnKey;
    const ALONE: bool = true;
    /// It protects.
    const ON_FULL_DISK: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.may_change_own_key()?;
        match road.own_key().map(|own| own.kind) {
            Some(kind) => is_removable(kind),
            None => Err(Error::OwnKey(HAS_NONE.to_owned())),
        }
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<u64>, Refused> {
        self.may_have_it_alone(road)?;
        road.propose_own(REMOVED).await
    }
}

impl<S: Store> Road<'_, S> {
    fn own_key(&self) -> Option<OwnKeyInfo> {
        self.vault.keystore.own_key(self.tenant.id)
    }

    /// Whether the caller may change the own key: policy permits it, and it is an officer all the same, as it must be while
    /// the tenant is locked.
    fn may_change_own_key(&self) -> Result<(), Error> {
        self.decide_vault()?;
        self.only_officers()
    }

    /// What commits that the own key shall be elsewhere. The answer is when that was decided.
    async fn propose_own(&self, to: &str) -> Result<Prepared<u64>, Refused> {
        let own = self.own_key();
        let from = own.as_ref().map_or_else(|| NONE.to_owned(), |own| own.kind.to_string());
        self.propose((from, 0, to.to_owned()), own.map_or(0, |own| own.changed), |time| time).await
    }
}

impl Intent {
    /// Whether it changes the tenant's own key. `key` is then where that was before, and `state` where it is after.
    pub(super) fn is_of_own_key(&self) -> bool {
        [Action::ImportOwnKey, Action::MoveOwnKey, Action::RemoveOwnKey].iter().any(|own| own.as_str() == self.action)
    }

    /// Whether it takes the tenant's own key away.
    pub(super) fn removes_own_key(&self) -> bool {
        self.is_of_own_key() && self.state == REMOVED
    }

    /// Makes the change with what was brought for it. Whoever comes later brings nothing: then only a removal, or a move to
    /// none, can still be made, and of all else it is found out whether it was.
    pub(super) fn change_own_key(
        &self,
        tenant: TenantId,
        keystore: &Keystore,
        brought: Option<OwnKey>,
    ) -> Result<(), Error> {
        match (self.state.as_str(), brought) {
            (REMOVED, _) => keystore.remove_key(tenant, self.time)?,
            (NONE, _) => keystore.move_key(tenant, None, self.time)?,
            (_, Some(key)) => keystore.move_key(tenant, Some(key), self.time)?,
            (_, None) => {}
        }
        let own = keystore.own_key(tenant);
        let made = match self.state.as_str() {
            NONE => own.is_none(),
            // One that was brought again since is there: what was cut off may not have been made.
            REMOVED => own.is_some_and(|own| own.removed),
            _ => own.is_some_and(|own| own.changed >= self.time),
        };
        match made {
            true => Ok(()),
            false if self.state == REMOVED => Err(Error::OwnKey(
                "the removal of the own key was cut off, and the key has been brought since: remove it again if that is meant"
                    .to_owned(),
            )),
            false => Err(Error::OwnKey(format!(
                "the move of the own key from {} to {} was cut off before it was made: make it again",
                self.key, self.state
            ))),
        }
    }
}

impl<S: Store> Vault<S> {
    /// What there is to know of the key that the caller's tenant has of its own.
    pub async fn get_own_key(&self, caller: &Caller) -> Result<Option<OwnKeyInfo>, Error> {
        match self.travel(caller, &GetOwnKey).await {
            Err(Error::TenantLocked) => {
                let row = self.admit_officer(caller, Action::GetOwnKey).await?;
                Ok(self.keystore.own_key(row.id))
            }
            answer => answer,
        }
    }

    /// Makes the key that the caller's tenant wraps its own key to.
    pub async fn create_import_key(&self, caller: &Caller) -> Result<ImportPublicKey, Error> {
        const ACTION: Action = Action::CreateImportKey;
        let tenant = match self.travel(caller, &CreateImportKey).await {
            Err(Error::TenantLocked) => self.admit_officer(caller, ACTION).await?.id,
            tenant => tenant?,
        };
        let busy = self.begin_long(caller)?;
        self.or_tell(caller, ACTION, self.make_import_key(caller, tenant, busy).await).await
    }

    async fn make_import_key(&self, caller: &Caller, tenant: TenantId, busy: Busy) -> Result<ImportPublicKey, Error> {
        let key = {
            // It takes long: one tenant at a time.
            let _making = self.importing.lock().await;
            blocking(move || (NewImportKey::make(tenant), busy)).await?.0?
        };
        // A change of keys that is under way finds out by the keystore's number what became of it.
        let _turn = self.turn.read().await;
        match self.still_admits(caller) {
            Err(Error::TenantLocked) => {}
            admitted => admitted?,
        }
        let (keystore, now) = (Arc::clone(&self.keystore), self.now());
        let public = blocking(move || keystore.keep_import_key(&key, now)).await??;
        let told = [("stage", "done"), ("sha256", &public.fingerprint())];
        self.record_own(caller, Action::CreateImportKey, &told, None).await?;
        Ok(public)
    }

    /// Brings the own key of the caller's tenant: a new one, or the one that was taken away.
    pub async fn import_own_key(&self, caller: &Caller, request: &ImportOwnKey) -> Result<Option<OwnKeyInfo>, Error> {
        const ACTION: Action = Action::ImportOwnKey;
        let (tenant, locked) = match self.travel(caller, &MayImport(request)).await {
            Err(Error::TenantLocked) => (self.admit_officer(caller, ACTION).await?.id, true),
            tenant => (tenant?, false),
        };
        let busy = self.begin_long(caller)?;
        let brought = self.or_tell(caller, ACTION, self.open_brought(request, tenant, busy).await).await?;
        if !locked {
            return self.change_own_key(caller, request, Some(OwnKey::Imported(brought))).await;
        }
        let back = Back::Brought { key: brought, by: caller.principal.name.to_string() };
        self.or_tell(caller, ACTION, self.come_back(caller.principal.tenant, back).await).await?;
        Ok(self.keystore.own_key(tenant))
    }

    /// Opens what was brought, while others go on.
    async fn open_brought(&self, request: &ImportOwnKey, tenant: TenantId, busy: Busy) -> Result<BroughtKey, Error> {
        request.has_its_length()?;
        let (keystore, wrapped, now) = (Arc::clone(&self.keystore), request.wrapped.clone(), self.now());
        Ok(blocking(move || (keystore.open_brought(tenant, &wrapped, now), busy)).await?.0?)
    }

    /// Moves the caller's tenant to the provider that is configured for it, or to no own key.
    pub async fn move_own_key(&self, caller: &Caller, request: MoveOwnKey) -> Result<Option<OwnKeyInfo>, Error> {
        let tenant = self.travel(caller, &MayMove(&request)).await?;
        let brought = match &request.provider {
            None => None,
            Some(provider) => {
                let busy = self.begin_long(caller)?;
                let asked = ask(self.id, tenant, Arc::clone(provider), busy).await;
                Some(OwnKey::Provided(self.or_tell(caller, Action::MoveOwnKey, asked).await?))
            }
        };
        self.change_own_key(caller, &request, brought).await
    }

    /// Takes the imported own key of the caller's tenant away. When this returns nothing of the tenant is released any more.
    /// Asked again it sees that the key is gone.
    pub async fn remove_own_key(&self, caller: &Caller) -> Result<Option<OwnKeyInfo>, Error> {
        match self.change_own_key(caller, &RemoveOwnKey, None).await {
            // Another call took it away, or this one locked the tenant and could not write the keystore.
            Err(Error::TenantLocked) => {
                let row = self.admit_officer(caller, Action::RemoveOwnKey).await?;
                let gone = {
                    let _turn = self.turn.write().await;
                    match (self.tenants.get(row.number), self.keystore.own_key(row.id)) {
                        (Err(Error::TenantLocked), Some(own)) => match is_removable(own.kind) {
                            Ok(()) => self.take_away(row.id).await,
                            refused => refused,
                        },
                        _ => Err(Error::Conflict),
                    }
                };
                self.or_tell(caller, Action::RemoveOwnKey, gone).await?;
                Ok(self.keystore.own_key(row.id))
            }
            removed => removed,
        }
    }

    /// Begins what takes long, for the tenant of a caller.
    fn begin_long(&self, caller: &Caller) -> Result<Busy, Error> {
        self.tenants.begin_long(caller.principal.tenant).ok_or(Error::Overloaded { retry_after: AGAIN })
    }

    /// What was allowed and failed is told to the log as well.
    async fn or_tell<T>(&self, caller: &Caller, action: Action, done: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &done {
            self.record_failed(caller, action, error).await?;
        }
        done
    }

    async fn change_own_key<A: Attempt<S, Answer = u64>>(
        &self,
        caller: &Caller,
        request: &A,
        brought: Option<OwnKey>,
    ) -> Result<Option<OwnKeyInfo>, Error> {
        let number = caller.principal.tenant;
        let tenant = self.tenant(number)?.id;
        let to_none = A::ACTION == Action::MoveOwnKey && brought.is_none();
        let decided = match self.travel(caller, request).await {
            // Who may ask for a change may also wait for one that was left open.
            Err(Error::Conflict) => {
                self.finish_key_change(number).await?;
                self.travel(caller, request).await?
            }
            decided => decided?,
        };
        self.make_key_change(number, brought).await?;
        match self.keystore.own_key(tenant) {
            None if to_none => Ok(None),
            Some(own) if own.changed == decided => Ok(Some(own)),
            // Somebody finished it who had nothing to make it with, or changed it again.
            _ => Err(Error::Conflict),
        }
    }
}

/// Asks a tenant's provider for a new tenant key. Nobody else waits for it, and no keys are held for it.
async fn ask(vault: VaultId, tenant: TenantId, provider: ProviderSource, busy: Busy) -> Result<ProvidedKey, Error> {
    let asked = blocking(move || {
        let _busy = busy;
        // Where it is not known, the vault's configuration does not name it.
        let provider = provider().map_err(|error| Error::OwnKey(error.to_string()))?;
        Ok(ProvidedKey::ask(vault, tenant, &*provider)?)
    });
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answered) => answered?,
        Err(_) => Err(Error::KeyUnavailable(format!(
            "the provider of the own key did not answer in {} seconds",
            ANSWER.as_secs()
        ))),
    }
}
