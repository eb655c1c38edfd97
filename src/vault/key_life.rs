//! The life of keys: what there is, the next version, other states, the end.
//!
//! Keys stand in the keystore and what happened to them in the ledger, and no one write reaches both. So a change is
//! committed as an intent, then made in the keystore, then committed as done. Whoever comes next finishes what was left
//! open: the next change, or the next start. An intent bears its time, and a version that changed later is left as it
//! is: one that somebody puts back changes nothing. A move to another root key takes the same way, but whoever comes next
//! can't make it: it only finds out whether it was made.

mod root;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strongroom_access::Action;
use strongroom_commit::{Change, Fact, Position};
use strongroom_ids::{KeyVersion, KeyringNo, TenantId, TenantNo};
use strongroom_keys::{IndexName, KeyError, KeyName, KeyState, Keystore, Operation};
use strongroom_ledger::leaf::{self, LeafHeader};
use strongroom_storage::keys as place;
use strongroom_storage::{Mutation, Store};

use crate::error::Error;
use crate::key_copies::{Afterlife, Copies};
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::{KeysInUse, Tenant};
use crate::vault::Vault;

pub use root::RootMoveError;

/// When to ask again what depends on a version, while somebody else does.
const COUNT_AGAIN: Duration = Duration::from_secs(5);
/// Versions of an index key that may be alive at once.
const MOST_ALIVE: usize = 4;
/// What is named, and how.
const NAMES: &str = "keys are named as `strongroom keys list` shows them: kek/1, index/subject-id, token";

/// One version of a key, as its owners see it.
pub struct ListedKey {
    /// The key's name: `kek/1`.
    pub name: String,
    /// The version.
    pub version: u32,
    /// Its state.
    pub state: &'static str,
    /// When it was made, in microseconds since 1970.
    pub created: u64,
    /// Since when it is in this state, in microseconds since 1970.
    pub changed: u64,
    /// When it should be rotated, in microseconds since 1970: of the newest version of a KEK or an index key that has a
    /// crypto-period.
    pub next_rotation: Option<u64>,
    /// Listed copies of the keystore that hold this version: what it opens can be opened with them.
    pub copies: Vec<String>,
    /// Since when a destroyed version is dead in every copy, in microseconds since 1970.
    pub dead: Option<u64>,
    /// Class and retention of the values in a KEK's keyring.
    pub values: Option<(&'static str, String)>,
}

/// Asks which keys there are.
pub(crate) struct ListKeys;

impl<S: Store> Attempt<S> for ListKeys {
    type Answer = Vec<ListedKey>;
    const ACTION: Action = Action::ListKeys;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<ListedKey>>, Refused> {
        road.decide_vault()?;
        let keystore = &road.vault.keystore;
        let copied = Copies::load(road.vault).await?;
        let listed = keystore.keys(road.tenant.id).into_iter().map(|key| {
            let keyring = match key.name {
                KeyName::Kek(_, keyring) => Some(keyring),
                _ => None,
            };
            // An index is as old as what leads to the values of its field; ids and tokens are all classes'.
            let period_of = match key.name {
                KeyName::Index(_, IndexName::Field(field)) => road.schema.field_no(field).map(|field| field.keyring),
                KeyName::Index(_, IndexName::SubjectId | IndexName::Token) => Some(KeyringNo(0)),
                _ => keyring,
            };
            let newest = keystore.newest_version(key.name) == Some(key.version);
            let period = period_of.filter(|_| newest).and_then(|keyring| road.schema.crypto_period(keyring));
            let values = keyring.and_then(|keyring| road.schema.values_of(keyring));
            let Afterlife { copies, dead } = copied.afterlife(&key);
            ListedKey {
                copies,
                dead,
                name: key.name.to_string(),
                version: key.version.0,
                state: key.state.as_str(),
                created: key.created,
                changed: key.changed,
                next_rotation: period.map(|period| key.created.saturating_add(period)),
                values: values.map(|(class, retention)| (class.as_str(), retention.to_string())),
            }
        });
        let mut prepared = Prepared::new(listed.collect());
        prepared.guards.extend(road.rules_unchanged());
        Ok(prepared)
    }
}

/// Makes the next version of a key.
pub struct RotateKey {
    /// The key's name.
    pub name: String,
    /// The newest version that the caller knows of; 0: rotate in any case.
    pub from_version: u32,
}

/// What protects now.
pub struct Rotated {
    /// The version.
    pub version: u32,
    /// Whether it is new.
    pub rotated: bool,
}

impl<S: Store> Attempt<S> for RotateKey {
    type Answer = Rotated;
    const ACTION: Action = Action::RotateKey;
    const ALONE: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_vault()?;
        self.newest(road).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Rotated>, Refused> {
        road.decide_vault()?;
        let (name, newest) = self.newest(road)?;
        if self.from_version != 0 && newest.0 != self.from_version {
            let mut prepared = Prepared::new(Rotated { version: newest.0, rotated: false });
            prepared.guards.extend(road.rules_unchanged());
            prepared.detail.push(("key", name.to_string()));
            return Ok(prepared);
        }
        let next = KeyVersion(newest.0.checked_add(1).ok_or(Error::Internal("too many versions of a key"))?);
        road.intend(name, next, KeyState::Enabled, Rotated { version: next.0, rotated: true }).await
    }
}

impl RotateKey {
    fn newest<S: Store>(&self, road: &Road<'_, S>) -> Result<(KeyName, KeyVersion), Error> {
        let (name, newest) = road.key(&self.name)?;
        match name {
            KeyName::Kek(..) | KeyName::Token(_) => {}
            KeyName::Index(_, IndexName::Field(_) | IndexName::SubjectId | IndexName::Token) => {}
            KeyName::Index(_, IndexName::Fingerprint) => {
                let description = "the key of fingerprints is not rotated: what proves the rules in force, the enrolled \
                                   principals and idempotency keys was made with it, and is not made anew; KEKs (kek/N), \
                                   the token key and the other index keys can be rotated";
                return Err(Error::invalid("name", "not_rotated", description));
            }
            KeyName::Ledger(_) => {
                let description = "the ledger key is not rotated: checkpoints that others keep are verified with it; KEKs \
                                   (kek/N), the token key and index keys can be rotated";
                return Err(Error::invalid("name", "not_rotated", description));
            }
        }
        let older = |state: KeyState| state.allows(Operation::Process);
        let info = road.vault.keystore.keys(road.tenant.id);
        let alive = info.iter().filter(|info| info.name == name && older(info.state)).count();
        if matches!(name, KeyName::Index(..)) && alive >= MOST_ALIVE && [0, newest.0].contains(&self.from_version) {
            let message = format!(
                "key {name} has {alive} versions that entries may be under, and each look-up asks all: `strongroom keys \
                 reindex`, then destroy the older ones"
            );
            return Err(Error::KeyState(message));
        }
        // Who may not stop a key may not go around its stop either.
        let disabled = road.vault.keystore.info(name, newest).is_some_and(|info| info.state == KeyState::Disabled);
        if disabled && !road.allows_vault(Action::SetKeyState) {
            let message =
                format!("version {newest} of key {name} is disabled: an officer enables it, or rotates the key");
            return Err(Error::KeyState(message));
        }
        if self.from_version > newest.0 {
            let message = format!("key {name} has no version {} yet: the newest is {newest}", self.from_version);
            return Err(Error::KeyVersionUnknown(message));
        }
        Ok((name, newest))
    }
}

/// Gives a version of a key another state.
pub struct SetKeyState {
    /// The key's name.
    pub name: String,
    /// The version.
    pub version: u32,
    /// The state.
    pub state: String,
}

impl<S: Store> Attempt<S> for SetKeyState {
    type Answer = ();
    const ACTION: Action = Action::SetKeyState;
    const ALONE: bool = true;
    /// It may stop what should not go on.
    const ON_FULL_DISK: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_vault()?;
        self.wanted(road).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        road.decide_vault()?;
        let (name, state) = self.wanted(road)?;
        road.intend(name, KeyVersion(self.version), state, ()).await
    }
}

impl SetKeyState {
    fn wanted<S: Store>(&self, road: &Road<'_, S>) -> Result<(KeyName, KeyState), Error> {
        let (name, _) = road.key(&self.name)?;
        let state: KeyState =
            self.state.parse().map_err(|unknown| Error::invalid("state", "state_unknown", format!("{unknown}")))?;
        if state == KeyState::Destroyed {
            let description = "to destroy a version is a call of its own: `strongroom keys destroy`";
            return Err(Error::invalid("state", "destroyed", description));
        }
        if state == KeyState::Disabled && !matches!(name, KeyName::Kek(..)) {
            let description = "only a KEK can be disabled: without its token, index and ledger keys a vault can't work";
            return Err(Error::invalid("state", "not_disabled", description));
        }
        road.vault.keystore.may_become(name, KeyVersion(self.version), state).map_err(of_state)?;
        Ok((name, state))
    }
}

/// Destroys a version of a key that nothing depends on.
pub struct DestroyKeyVersion {
    /// The key's name.
    pub name: String,
    /// The version.
    pub version: u32,
    /// Change nothing, only count what depends on it.
    pub dry_run: bool,
}

/// Asks whether a version may be destroyed at all, before anything is counted for it.
struct MayDestroy<'r>(&'r DestroyKeyVersion);

impl<S: Store> Attempt<S> for MayDestroy<'_> {
    type Answer = KeyName;
    const ACTION: Action = Action::DestroyKeyVersion;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<KeyName>, Refused> {
        road.decide_vault()?;
        let name = self.0.allowed(road)?;
        let mut prepared = Prepared::new(name);
        prepared.guards.extend(road.rules_unchanged());
        prepared.detail.push(("key", name.to_string()));
        prepared.detail.push(("version", self.0.version.to_string()));
        prepared.detail.push(("stage", if self.0.dry_run { "dry_run" } else { "asked" }.to_owned()));
        Ok(prepared)
    }
}

/// Destroys what so many things depend on.
struct Destroy<'r> {
    request: &'r DestroyKeyVersion,
    dependants: u64,
}

impl<S: Store> Attempt<S> for Destroy<'_> {
    type Answer = ();
    const ACTION: Action = Action::DestroyKeyVersion;
    const ALONE: bool = true;
    const ON_FULL_DISK: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_vault()?;
        let name = self.request.allowed(road)?;
        if self.dependants > 0 {
            let (version, dependants) = (self.request.version, self.dependants);
            return Err(Error::KeyInUse { name: name.to_string(), version, dependants, what: dependants_of(name) });
        }
        Ok(())
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        self.may_have_it_alone(road)?;
        let (name, _) = road.key(&self.request.name)?;
        road.intend(name, KeyVersion(self.request.version), KeyState::Destroyed, ()).await
    }
}

impl DestroyKeyVersion {
    /// Which key it is, if that version can be destroyed. Only what no longer protects can, so what depends on it does
    /// not become more.
    fn allowed<S: Store>(&self, road: &Road<'_, S>) -> Result<KeyName, Error> {
        let (name, _) = road.key(&self.name)?;
        if matches!(name, KeyName::Index(_, IndexName::Fingerprint) | KeyName::Ledger(_)) {
            let description = "only versions of KEKs (kek/N), of the token key and of keys that rotate can be destroyed: \
                               this one does not, and is always in use";
            return Err(Error::invalid("name", "not_destroyed", description));
        }
        road.vault.keystore.may_become(name, KeyVersion(self.version), KeyState::Destroyed).map_err(of_state)?;
        Ok(name)
    }
}

/// What depends on a key that can be destroyed, and what to do about it.
fn dependants_of(name: KeyName) -> &'static str {
    match name {
        KeyName::Kek(..) => "wrapped DEKs need it; `strongroom keys rewrap` brings them to the newest version",
        KeyName::Index(..) => "index entries were made with it; `strongroom keys reindex` makes them with the newest",
        _ => "tokens were made with it, and need it for as long as they are used",
    }
}

/// A refusal of the keystore, in the words of the wire.
fn of_state(error: KeyError) -> Error {
    match error {
        KeyError::MissingVersion { .. } => Error::KeyVersionUnknown(error.to_string()),
        KeyError::Newest { .. } | KeyError::NoWay { .. } => Error::KeyState(error.to_string()),
        other => other.into(),
    }
}

/// The last change of a tenant's keys, as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The number that the keystore had when the last change was done: an older one is a copy.
    keystore: u64,
    /// A change that may not have been made yet.
    open: Option<Intent>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Intent {
    /// The request, in hexadecimal.
    request: String,
    principal: String,
    action: String,
    key: String,
    version: u32,
    state: String,
    /// When it was decided, in microseconds since 1970.
    time: u64,
}

impl Record {
    async fn load<S: Store>(store: &S, tenant: &Tenant) -> Result<Option<Self>, Error> {
        Source::load(store, place::key_change(tenant.number), SourceKind::Keys, &tenant.fingerprints).await
    }

    fn put(&self, tenant: &Tenant) -> Result<Mutation, Error> {
        Source::put(self, place::key_change(tenant.number), SourceKind::Keys, &tenant.fingerprints)
    }

    /// Whether a change of a tenant's keys is decided and may not be made yet.
    async fn is_open<S: Store>(store: &S, tenant: &Tenant) -> Result<bool, Error> {
        Ok(Self::load(store, tenant).await?.is_some_and(|record| record.open.is_some()))
    }
}

impl<S: Store> Road<'_, S> {
    /// A key of the tenant by its name, with its newest version.
    pub fn key(&self, name: &str) -> Result<(KeyName, KeyVersion), Error> {
        let unknown = || Error::invalid("name", "key_unknown", format!("there is no such key: {NAMES}"));
        let name = KeyName::parse(self.tenant.id, name).ok_or_else(unknown)?;
        let newest = self.vault.keystore.newest_version(name).ok_or_else(unknown)?;
        Ok((name, newest))
    }

    /// What commits that a key shall change.
    async fn intend<A>(
        &self,
        name: KeyName,
        version: KeyVersion,
        state: KeyState,
        answer: A,
    ) -> Result<Prepared<A>, Refused> {
        if Record::is_open(&*self.vault.store, self.tenant).await? {
            // Another one came in between: it is finished before this one is tried again.
            return Err(Error::Conflict.into());
        }
        // Later than the version's last change, whatever the clock says: what was decided before that changes nothing.
        let changed = self.vault.keystore.info(name, version).map_or(0, |info| info.changed);
        let intent = Intent {
            request: data_encoding::HEXLOWER.encode(&self.request),
            principal: self.caller.principal.name.to_string(),
            action: self.action.as_str().to_owned(),
            key: name.to_string(),
            version: version.0,
            state: state.as_str().to_owned(),
            time: self.now.max(changed.saturating_add(1)),
        };
        let mut prepared = Prepared::new(answer);
        prepared.guards.extend(self.rules_unchanged());
        prepared.changes.push(Fact::key_states(self.tenant.number));
        prepared.detail.extend(intent.detail("intent"));
        let record = Record { keystore: self.vault.keystore.number(), open: Some(intent) };
        prepared.mutations.push(record.put(self.tenant)?);
        Ok(prepared)
    }
}

impl Intent {
    fn detail(&self, stage: &str) -> Vec<(&'static str, String)> {
        let mut detail = match self.moves_root() {
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
    fn make(&self, tenant: TenantId, keystore: &Keystore, before: u64) -> Result<(), Error> {
        if self.moves_root() {
            return self.root_was_moved(keystore, before);
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
    /// All versions of all keys of the caller's tenant.
    pub async fn list_keys(&self, caller: &Caller) -> Result<Vec<ListedKey>, Error> {
        self.travel(caller, &ListKeys).await
    }

    /// Makes the next version of a key, which protects what is new from then on.
    pub async fn rotate_key(&self, caller: &Caller, request: &RotateKey) -> Result<Rotated, Error> {
        self.change_key(caller, request).await
    }

    /// Gives a version of a key another state.
    pub async fn set_key_state(&self, caller: &Caller, request: &SetKeyState) -> Result<(), Error> {
        self.change_key(caller, request).await
    }

    /// Destroys a version of a key, or says how much depends on it.
    pub async fn destroy_key_version(&self, caller: &Caller, request: &DestroyKeyVersion) -> Result<u64, Error> {
        let name = self.travel(caller, &MayDestroy(request)).await?;
        // All that is stored is looked through: one at a time.
        let _counting = self.counting.try_lock().map_err(|_| Error::Overloaded { retry_after: COUNT_AGAIN })?;
        // Outside of any turn: it may take as long as there is much.
        let dependants = self.dependants(caller.principal.tenant, name, KeyVersion(request.version)).await?;
        if !request.dry_run {
            self.change_key(caller, &Destroy { request, dependants }).await?;
        }
        Ok(dependants)
    }

    async fn change_key<A: Attempt<S>>(&self, caller: &Caller, request: &A) -> Result<A::Answer, Error> {
        let tenant = caller.principal.tenant;
        let answer = match self.travel(caller, request).await {
            // Who may ask for a change may also wait for one that was left open.
            Err(Error::Conflict) => {
                self.finish_key_change(tenant).await?;
                self.travel(caller, request).await?
            }
            answer => answer?,
        };
        self.finish_key_change(tenant).await?;
        Ok(answer)
    }

    /// Finishes every change of keys that was committed and may not have been made.
    pub(crate) async fn finish_key_changes(&self) -> Result<(), Error> {
        for tenant in self.tenants.numbers() {
            match self.finish_key_change(tenant).await {
                // It has failed for good, and is recorded so: no reason not to serve.
                Err(error @ (Error::KeyUnavailable(_) | Error::KeyState(_) | Error::KeyVersionUnknown(_))) => {
                    tracing::error!(%error, tenant = tenant.0, "a change of keys that was cut off could not be made");
                }
                done => done?,
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

    pub(crate) async fn finish_key_change(&self, number: TenantNo) -> Result<(), Error> {
        let tenant = &*self.tenant(number)?;
        let open = async || {
            let record = Record::load(&*self.store, tenant).await?;
            Ok::<_, Error>(record.and_then(|Record { keystore, open }| Some((keystore, open?))))
        };
        // Looked for before anybody is kept waiting for it.
        if open().await?.is_none() {
            return Ok(());
        }
        // Nobody uses a key while it changes.
        let _turn = self.turn.write().await;
        let position = self.committer.position();
        if tenant.has_ended() {
            return Err(Error::TenantDestroyed);
        }
        let Some((before, intent)) = open().await? else { return Ok(()) };
        let made = {
            let (intent, keystore, id) = (intent.clone(), Arc::clone(&self.keystore), tenant.id);
            let made = tokio::task::spawn_blocking(move || intent.make(id, &keystore, before)).await;
            made.unwrap_or(Err(Error::Internal("a change of keys did not end")))
        };
        let made = made.map_err(|error| match error {
            Error::KeyUnavailable(why) => {
                tracing::error!(why, key = intent.key, "a change of keys could not be made");
                Error::KeyUnavailable("the keystore can't be written; the vault's log says why".to_owned())
            }
            other => other,
        });
        if made.is_err() && !self.keystore.is_settled() {
            // Whether the file has it is not known yet: the next change, or start, finds out.
            return made;
        }
        tenant.install_keys(KeysInUse::of(tenant.id, &tenant.rules().schema, &self.keystore)?);
        if intent.state.parse().is_ok_and(|state: KeyState| !state.allows(Operation::Process)) {
            // What the KEK has unwrapped may no longer be used either.
            self.deks.clear();
        }
        self.commit_stage(tenant, position, &intent, "done", made.as_ref().err()).await?;
        made
    }

    /// Commits how far a change has come: `intent`, or `done`, which may be that it failed.
    async fn commit_stage(
        &self,
        tenant: &Tenant,
        position: Position,
        intent: &Intent,
        stage: &str,
        failed: Option<&Error>,
    ) -> Result<(), Error> {
        let open = (stage == "intent").then(|| intent.clone());
        let record = Record { keystore: self.keystore.number(), open };
        let change = Change {
            position,
            guards: vec![],
            changes: vec![Fact::key_states(tenant.number)],
            mutations: vec![record.put(tenant)?],
            leaves: self.change_leaf(tenant, intent, stage, failed)?,
        };
        self.committer.commit(change).await?;
        Ok(())
    }

    fn change_leaf(
        &self,
        tenant: &Tenant,
        intent: &Intent,
        stage: &str,
        failed: Option<&Error>,
    ) -> Result<Vec<(TenantNo, leaf::PreparedLeaf)>, Error> {
        let request = data_encoding::HEXLOWER.decode(intent.request.as_bytes()).ok();
        let request: [u8; 16] =
            request.and_then(|id| id.try_into().ok()).ok_or(Error::DataLoss("the last change of keys"))?;
        let rules = tenant.rules();
        let mut detail = intent.detail(stage);
        detail.push(("keystore", self.keystore.number().to_string()));
        let detail: Vec<(&str, &str)> = detail.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let header = LeafHeader {
            request: &request,
            principal: &intent.principal,
            actor: None,
            action: &intent.action,
            purpose: None,
            decision: if failed.is_some() { "fail" } else { "allow" },
            reason: failed.map(Error::reason),
            policy: tenant.policy_version(),
            schema: rules.schema.version(),
            keys: &rules.keys.versions,
            client: "",
            detail: &detail,
        };
        let leaves = leaf::prepare(&header, std::iter::empty());
        Ok(leaves.into_iter().map(|leaf| (tenant.number, leaf)).collect())
    }
}

/// Whether a change of a tenant's keys is decided and may not be made yet.
pub(crate) async fn is_open<S: Store>(store: &S, tenant: &Tenant) -> Result<bool, Error> {
    Record::is_open(store, tenant).await
}

/// What notes with a tenant, of whose keys no change is open, that the keystore has come as far as it is now.
pub(crate) fn note_keystore<S: Store>(vault: &Vault<S>, tenant: &Tenant) -> Result<Mutation, Error> {
    Record { keystore: vault.keystore.number(), open: None }.put(tenant)
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
