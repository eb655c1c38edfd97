//! How a change of keys is made.
//!
//! Keys stand in the keystore and what happened to them in the ledger, and no one write reaches both. So a change is
//! committed as an intent, then made in the keystore, then committed as done. Whoever comes next finishes what was left
//! open: the next change, or the next start. An intent bears its time, and a version that changed later is left as it
//! is: one that somebody puts back changes nothing. A move to another root key, or of a tenant to another own key, takes the
//! same way, but whoever comes next can't make it: it only finds out whether it was made.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strongroom_access::Action;
use strongroom_commit::{Change, Fact, Position};
use strongroom_ids::{KeyVersion, TenantId, TenantNo};
use strongroom_keys::{IndexKey, KeyInfo, KeyName, KeyState, Keystore, Operation, OwnKey, random};
use strongroom_ledger::{checkpoint, leaf, log_keys};
use strongroom_storage::keys as place;
use strongroom_storage::{Mutation, Store};

use super::of_state;
use crate::blocking::blocking;
use crate::error::Error;
use crate::key_copies::Copies;
use crate::lock;
use crate::log_keys::{NotedKey, noted};
use crate::open::{LANE, SYSTEM_NO};
use crate::own_leaf::Noted;
use crate::road::{Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::{KeysInUse, Tenant};
use crate::vault::Vault;

/// The last change of a tenant's keys, as it is stored.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The number that the keystore had when the last change was done: an older one is a copy.
    pub keystore: u64,
    /// A change that may not have been made yet.
    pub open: Option<Intent>,
    /// The public keys of the tenant's log, once one was changed: the keystore forgets those of destroyed versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_keys: Vec<NotedKey>,
    /// Whether its KEKs are to have new versions before it is served: a restore has lost count of the uses of those it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub roll: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Intent {
    /// The request, in hexadecimal.
    pub request: String,
    pub principal: String,
    pub action: String,
    pub key: String,
    pub version: u32,
    pub state: String,
    /// When it was decided, in microseconds since 1970.
    pub time: u64,
}

impl Record {
    pub async fn load<S: Store>(store: &S, tenant: &Tenant) -> Result<Option<Self>, Error> {
        Source::load(store, place::key_change(tenant.number), SourceKind::Keys, &tenant.fingerprints).await
    }

    pub fn put(&self, tenant: &Tenant) -> Result<Mutation, Error> {
        Source::put(self, place::key_change(tenant.number), SourceKind::Keys, &tenant.fingerprints)
    }

    /// Whether a change of a tenant's keys is decided and may not be made yet.
    pub async fn is_open<S: Store>(store: &S, tenant: &Tenant) -> Result<bool, Error> {
        Ok(Self::load(store, tenant).await?.is_some_and(|record| record.open.is_some()))
    }
}

impl<S: Store> Road<'_, S> {
    /// What commits that a key shall change.
    pub(super) async fn intend<A>(
        &self,
        name: KeyName,
        version: KeyVersion,
        state: KeyState,
        answer: A,
    ) -> Result<Prepared<A>, Refused> {
        let changed = self.vault.keystore.info(name, version).map_or(0, |info| info.changed);
        self.propose((name.to_string(), version.0, state.to_string()), changed, |_| answer).await
    }

    /// What commits that something of the tenant's keys shall change: a key's name, its version and its next state, or what
    /// is moved from where and to where. `changed` is when it last changed; the answer learns when this is decided, both in
    /// microseconds since 1970.
    pub(super) async fn propose<A>(
        &self,
        (key, version, state): (String, u32, String),
        changed: u64,
        answer: impl FnOnce(u64) -> A,
    ) -> Result<Prepared<A>, Refused> {
        let before = Record::load(&*self.vault.store, self.tenant).await?.unwrap_or_default();
        if before.open.is_some() {
            // Another one came in between: it is finished before this one is tried again.
            return Err(Error::Conflict.into());
        }
        let (request, principal) =
            (data_encoding::HEXLOWER.encode(&self.request), self.caller.principal.name.to_string());
        // Later than the last change, whatever the clock says: what was decided before that changes nothing.
        let time = self.now.max(changed.saturating_add(1));
        let intent = Intent { request, principal, action: self.action.as_str().to_owned(), key, version, state, time };
        let mut prepared = self.prepare(answer(time));
        prepared.changes.push(Fact::key_states(self.tenant.number));
        prepared.detail.extend(intent.detail("intent"));
        let log_keys = intent.noted(before.log_keys, &self.vault.keystore, self.tenant.id);
        let (keystore, roll) = (self.vault.keystore.number(), before.roll);
        let record = Record { keystore, open: Some(intent), log_keys, roll };
        prepared.mutations.push(record.put(self.tenant)?);
        Ok(prepared)
    }
}

impl Intent {
    /// Whether it is about the key of the tenant's log.
    fn is_of_log_key(&self) -> bool {
        self.key == log_keys::NAME && !self.moves_root() && !self.is_of_own_key()
    }

    /// The public keys of the log, as they are noted along: before the first change of one of them there is no need to.
    fn noted(&self, before: Vec<NotedKey>, keystore: &Keystore, tenant: TenantId) -> Vec<NotedKey> {
        match self.is_of_log_key() || !before.is_empty() {
            true => noted(before, keystore, tenant),
            false => before,
        }
    }

    /// What the leaf says of the log's own keys, so that who knows one of them learns of the others.
    fn named_keys(&self, origin: &str, noted: &[NotedKey]) -> Vec<(&'static str, String)> {
        let vkey = |version: u32| {
            let public = noted.iter().find(|key| key.version == version)?.public()?;
            Some(checkpoint::vkey(origin, &public))
        };
        let before =
            (self.action == Action::RotateKey.as_str()).then(|| vkey(self.version.saturating_sub(1))).flatten();
        let named = [(log_keys::KEY, vkey(self.version)), (log_keys::BEFORE, before)];
        named.into_iter().filter_map(|(name, key)| Some((name, key?))).collect()
    }

    fn detail(&self, stage: &str) -> Vec<(&'static str, String)> {
        let mut detail = match self.moves_root() || self.is_of_own_key() {
            true => vec![("from", self.key.clone()), ("to", self.state.clone())],
            false => {
                vec![("key", self.key.clone()), ("version", self.version.to_string()), ("state", self.state.clone())]
            }
        };
        detail.push(("stage", stage.to_owned()));
        detail
    }

    /// Makes the change, if it is not made yet, and sees that it is. `before` is the keystore's number when it was
    /// decided.
    fn make(&self, tenant: TenantId, keystore: &Keystore, before: u64, brought: Option<OwnKey>) -> Result<(), Error> {
        if self.moves_root() {
            return self.root_was_moved(keystore, before);
        }
        if self.is_of_own_key() {
            return self.change_own_key(tenant, keystore, brought);
        }
        let (Some(name), Ok(state)) = (KeyName::parse(tenant, &self.key), self.state.parse::<KeyState>()) else {
            return Err(Error::DataLoss("the last change of keys"));
        };
        let version = KeyVersion(self.version);
        match self.action == Action::RotateKey.as_str() {
            true => keystore.rotate_to(name, version, self.time)?,
            false => keystore.set_state(name, version, state, self.time).map_err(of_state)?,
        }
        // A version that was made may have gone on from there.
        let made = keystore.info(name, version);
        match made.is_some_and(|info| self.action == Action::RotateKey.as_str() || info.state == state) {
            true => Ok(()),
            false => Err(Error::KeyState(format!("version {version} of key {name} has changed since"))),
        }
    }
}

impl<S: Store> Vault<S> {
    /// Finishes every change of keys that was committed and may not have been made.
    pub(crate) async fn finish_key_changes(&self) -> Result<(), Error> {
        for tenant in self.tenants.numbers() {
            match self.finish_key_change(tenant).await {
                // It has failed for good, and is recorded so: no reason not to serve.
                Err(error) if error.is_final() => {
                    tracing::error!(%error, tenant = tenant.0, "a change of keys that was cut off could not be made");
                }
                // It was locked meanwhile: what is open is finished when it is unlocked.
                Err(Error::TenantLocked) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Makes the next version of each of a tenant's KEKs that protects, by whoever holds the root key: of the uses of those
    /// before, an older copy of the data has lost count. How many these are.
    pub(crate) async fn roll_keks(&self, number: TenantNo, principal: &str) -> Result<u32, Error> {
        self.finish_key_change(number).await?;
        let tenant = &*self.tenant(number)?;
        let enabled = |key: &KeyInfo| matches!(key.name, KeyName::Kek(..)) && key.state == KeyState::Enabled;
        let mut rolled = 0;
        for key in self.keystore.keys(tenant.id).into_iter().filter(enabled) {
            let next = key.version.0.checked_add(1).ok_or(Error::Internal("too many versions of a key"))?;
            let intent = Intent {
                request: data_encoding::HEXLOWER.encode(&random::<16>()?),
                principal: principal.to_owned(),
                action: Action::RotateKey.as_str().to_owned(),
                key: key.name.to_string(),
                version: next,
                state: KeyState::Enabled.to_string(),
                time: self.now().max(key.changed.saturating_add(1)),
            };
            let turn = self.turn.write().await;
            self.commit_stage(tenant, self.committer.position(), &intent, "intent", None).await?;
            drop(turn);
            self.finish_key_change(number).await?;
            rolled += 1;
        }
        Ok(rolled)
    }

    /// Rolls the KEKs that a restore owes, in the name of whoever holds the root key; it may have been cut off before it did.
    pub(crate) async fn roll_owed_keks(&self, principal: &str) -> Result<(), Error> {
        for number in self.tenants.numbers() {
            let tenant = &*match self.tenant(number) {
                // A restore has none that is.
                Err(Error::TenantLocked) => continue,
                tenant => tenant?,
            };
            if Record::load(&*self.store, tenant).await?.is_some_and(|record| record.roll) {
                self.roll_keks(number, principal).await?;
                let record = Record::load(&*self.store, tenant).await?.unwrap_or_default();
                self.commit_unguarded(vec![Record { roll: false, ..record }.put(tenant)?], vec![]).await?;
            }
        }
        Ok(())
    }

    /// Whether a change of any tenant's keys, or of all of them at once, is decided and may not be made yet.
    pub(crate) async fn has_open_key_change(&self) -> Result<bool, Error> {
        if self.has_open_tenant_change().await? {
            return Ok(true);
        }
        for tenant in self.tenants.all().values() {
            if Record::is_open(&*self.store, tenant).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finishes a change of a tenant's keys that is open, if one is.
    pub(crate) async fn finish_key_change(&self, number: TenantNo) -> Result<(), Error> {
        self.make_key_change(number, None).await
    }

    /// The same, with what was brought for it.
    pub(super) async fn make_key_change(&self, number: TenantNo, brought: Option<OwnKey>) -> Result<(), Error> {
        let tenant = &*self.tenant(number)?;
        let open = async || {
            let record = Record::load(&*self.store, tenant).await?;
            Ok::<_, Error>(record.and_then(|Record { keystore, open, .. }| Some((keystore, open?))))
        };
        // Looked for before anybody is kept waiting for it.
        if open().await?.is_none() {
            return Ok(());
        }
        // Nobody uses a key while it changes.
        let _turn = self.turn.write().await;
        let position = self.committer.position();
        tenant.is_there()?;
        let Some((before, mut intent)) = open().await? else { return Ok(()) };
        if intent.state.parse() == Ok(KeyState::Destroyed) {
            // What was copied while nobody could finish this holds the version.
            intent.time = intent.time.max(Copies::load(self).await?.newest().saturating_add(1));
        }
        let made = {
            let (intent, keystore, id) = (intent.clone(), Arc::clone(&self.keystore), tenant.id);
            blocking(move || intent.make(id, &keystore, before, brought)).await.and_then(|made| made)
        };
        let made = made.map_err(|error| match error {
            Error::KeyUnavailable(why) => {
                tracing::error!(why, key = intent.key, "a change of keys could not be made");
                Error::KeyUnavailable("the keystore can't be written; the vault's log says why".to_owned())
            }
            other => other,
        });
        let locked = lock::is_locked(&self.keystore, tenant.id);
        if locked {
            // Its own key was taken away: nothing more is done with it, whatever becomes of the file.
            self.lock_in_memory(tenant);
        }
        let still_there = intent.removes_own_key() && matches!(made, Err(Error::KeyUnavailable(_)));
        if still_there || (made.is_err() && !self.keystore.is_settled()) {
            // Whether the file has it is not known yet, or it has what is to be gone: the next change, or start, goes on.
            return made;
        }
        if intent.is_of_log_key() {
            self.sign_anew(number);
            if number == SYSTEM_NO && made.is_ok() {
                // The version before may go once this is done: by then no start needs it for the head file.
                self.renew_head_file().await?;
            }
        }
        if !locked {
            tenant.install_keys(KeysInUse::of(tenant.id, &tenant.rules().schema, &self.keystore)?);
        }
        if intent.state.parse().is_ok_and(|state: KeyState| !state.allows(Operation::Process)) {
            // What the KEK has unwrapped may no longer be used either.
            self.deks.clear();
        }
        self.commit_stage(tenant, position, &intent, "done", made.as_ref().err()).await?;
        made
    }

    /// Commits how far a change has come: `intent`, or `done`, which may be that it failed.
    pub(super) async fn commit_stage(
        &self,
        tenant: &Tenant,
        position: Position,
        intent: &Intent,
        stage: &str,
        failed: Option<&Error>,
    ) -> Result<(), Error> {
        let open = (stage == "intent").then(|| intent.clone());
        let before = Record::load(&*self.store, tenant).await?.unwrap_or_default();
        let log_keys = intent.noted(before.log_keys, &self.keystore, tenant.id);
        let leaves = self.change_leaf(tenant, intent, (stage, failed), &log_keys)?;
        let record = Record { keystore: self.keystore.number(), open, log_keys, roll: before.roll };
        let mut mutations = vec![record.put(tenant)?];
        if stage == "done" && tenant.number != SYSTEM_NO {
            mutations.push(note_with_system(self).await?);
        }
        let change = Change {
            position,
            guards: vec![],
            changes: vec![Fact::key_states(tenant.number)],
            mutations,
            leaves,
            charge: None,
        };
        self.committer.commit(change).await?;
        Ok(())
    }

    /// Has the head file signed by the newest key of the log `system`, and waits for that.
    pub(crate) async fn renew_head_file(&self) -> Result<(), Error> {
        let renewal = self.committer.head_renewal();
        match blocking(move || renewal.wait()).await? {
            true => Ok(()),
            false => Err(Error::Internal("the head file can't be written")),
        }
    }

    fn change_leaf(
        &self,
        tenant: &Tenant,
        intent: &Intent,
        (stage, failed): (&str, Option<&Error>),
        noted: &[NotedKey],
    ) -> Result<Vec<(TenantNo, leaf::PreparedLeaf)>, Error> {
        let about = Noted {
            request: &intent.request,
            principal: &intent.principal,
            action: &intent.action,
            failed: failed.map(Error::reason),
            place: "the last change of keys",
        };
        let rules = tenant.rules();
        let mut detail = intent.detail(stage);
        if intent.is_of_own_key() {
            let own = self.keystore.own_key(tenant.id);
            detail.extend(own.and_then(|own| own.fingerprint).map(|fingerprint| ("fingerprint", fingerprint)));
        }
        detail.push(("keystore", self.keystore.number().to_string()));
        if intent.is_of_log_key() && stage == "done" && failed.is_none() {
            let head = self.committer.head(tenant.number).ok_or(Error::Internal("a tenant without a log"))?;
            let origin = checkpoint::origin(self.id, tenant.id, LANE, head.incarnation);
            detail.extend(intent.named_keys(&origin, noted));
        }
        about.leaf(tenant.number, (tenant.policy_version(), rules.schema.version(), &rules.keys.versions), &detail)
    }
}

/// Whether a change of a tenant's keys is decided and may not be made yet.
pub(crate) async fn is_open<S: Store>(store: &S, tenant: &Tenant) -> Result<bool, Error> {
    Record::is_open(store, tenant).await
}

/// What notes with a tenant, of whose keys no change is open, that the keystore has come as far as it is now.
pub(crate) async fn note_keystore<S: Store>(vault: &Vault<S>, tenant: &Tenant) -> Result<Mutation, Error> {
    let before = Record::load(&*vault.store, tenant).await?.unwrap_or_default();
    Record { keystore: vault.keystore.number(), open: None, ..before }.put(tenant)
}

/// What notes with the vault itself that the keystore has come as far as it is now, since a tenant may be locked when an older
/// one is put back. Only while no request runs.
pub(crate) async fn note_with_system<S: Store>(vault: &Vault<S>) -> Result<Mutation, Error> {
    let system = vault.tenant(SYSTEM_NO)?;
    let before = Record::load(&*vault.store, &system).await?.unwrap_or_default();
    Record { keystore: vault.keystore.number(), ..before }.put(&system)
}

/// The public keys of a tenant's log, as they are noted; none before the first change of one of them. `fingerprints` is the
/// tenant's key of fingerprints.
pub(crate) async fn noted_log_keys<S: Store>(
    store: &S,
    tenant: TenantNo,
    fingerprints: &IndexKey,
) -> Result<Vec<NotedKey>, Error> {
    let record: Option<Record> = Source::load(store, place::key_change(tenant), SourceKind::Keys, fingerprints).await?;
    Ok(record.unwrap_or_default().log_keys)
}

/// What has a tenant's KEKs rolled at the next start, or the number that the keystore should have at the least.
pub(crate) async fn owe_roll<S: Store>(
    store: &S,
    tenant: TenantNo,
    fingerprints: &IndexKey,
    keystore: &Keystore,
) -> Result<Result<Mutation, u64>, Error> {
    let at = place::key_change(tenant);
    let before: Option<Record> = Source::load(store, at.clone(), SourceKind::Keys, fingerprints).await?;
    let before = before.unwrap_or_default();
    if before.keystore > keystore.number() {
        return Ok(Err(before.keystore));
    }
    Source::put(&Record { roll: true, ..before }, at, SourceKind::Keys, fingerprints).map(Ok)
}

/// Whether a keystore is as new as the last change of a tenant's keys says: an older copy would bring destroyed keys
/// back.
pub(crate) async fn keystore_is_new_enough<S: Store>(
    store: &S,
    tenant: &Tenant,
    keystore: &Keystore,
) -> Result<bool, Error> {
    let recorded = Record::load(store, tenant).await?.map_or(0, |record| record.keystore);
    Ok(keystore.number() >= recorded)
}
