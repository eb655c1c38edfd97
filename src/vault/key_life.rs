//! The life of keys: what there is, the next version, other states, the end. How a change is made, `change` says.

mod change;
mod own;
mod root;

use std::time::Duration;

use strongroom_access::Action;
use strongroom_ids::{KeyVersion, KeyringNo};
use strongroom_keys::{IndexName, KeyError, KeyName, KeyState, Operation};
use strongroom_ledger::summary;
use strongroom_storage::Store;

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::key_copies::{Afterlife, Copies};
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenant::Rules;
use crate::vault::Vault;

pub(crate) use change::{is_open, keystore_is_new_enough, note_keystore, note_with_system, noted_log_keys, owe_roll};
#[cfg(test)]
pub(crate) use own::RemoveOwnKey;
pub use own::{ImportOwnKey, MoveOwnKey, ProviderSource};
pub use root::RootMoveError;

/// When to ask again what depends on a version, while somebody else does.
const COUNT_AGAIN: Duration = Duration::from_secs(5);
/// Versions of an index key that may be alive at once, and of a ledger key that may sign.
const MOST_ALIVE: usize = 4;
/// What is named, and how.
const NAMES: &str = "keys are named as `strongroom keys list` shows them: kek/1, index/subject-id, token, ledger";

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
        Ok(road.prepare(listed.collect()))
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
            let mut prepared = road.prepare(Rotated { version: newest.0, rotated: false });
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
            KeyName::Kek(..) | KeyName::Token(_) | KeyName::Ledger(_) => {}
            KeyName::Index(_, IndexName::Field(_) | IndexName::SubjectId | IndexName::Token) => {}
            KeyName::Index(_, IndexName::Fingerprint) => {
                let description = "the key of fingerprints is not rotated: what proves the rules in force, the enrolled \
                                   principals and idempotency keys was made with it, and is not made anew; KEKs (kek/N), \
                                   the token key, the ledger key and the other index keys can be rotated";
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
        let signing = |state: KeyState| matches!(state, KeyState::Enabled | KeyState::DecryptOnly);
        let signing = info.iter().filter(|info| info.name == name && signing(info.state)).count();
        if matches!(name, KeyName::Ledger(_)) && signing >= MOST_ALIVE && [0, newest.0].contains(&self.from_version) {
            let message = format!(
                "key {name} has {signing} versions that sign every checkpoint: destroy the oldest ones, once all who verify \
                 know a newer one"
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

    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        Some(self.0.asked())
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<KeyName>, Refused> {
        road.decide_with_others()?;
        let name = self.0.allowed(road)?;
        let mut prepared = road.prepare(name);
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

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules))
    }

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_with_others()?;
        let name = self.request.allowed(road)?;
        if self.dependants > 0 {
            let (version, dependants) = (self.request.version, self.dependants);
            return Err(Error::KeyInUse { name: name.to_string(), version, dependants, what: dependants_of(name) });
        }
        Ok(())
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        self.may_have_it_alone(road)?;
        let given = road.decide_approved(self).await?;
        let (name, _) = road.key(&self.request.name)?;
        let mut prepared = road.intend(name, KeyVersion(self.request.version), KeyState::Destroyed, ()).await?;
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }
}

impl<S: Store> Approvable<S> for Destroy<'_> {
    fn asked(&self, _rules: &Rules) -> Asked {
        self.request.asked()
    }
}

impl DestroyKeyVersion {
    fn asked(&self) -> Asked {
        let Self { name, version, .. } = self;
        let parts = vec![name.clone().into_bytes(), version.to_be_bytes().to_vec()];
        Asked { parts, summary: summary::destroy_key_version(name, version) }
    }

    /// Which key it is, if that version can be destroyed. Only what no longer protects can, so what depends on it does
    /// not become more.
    fn allowed<S: Store>(&self, road: &Road<'_, S>) -> Result<KeyName, Error> {
        let (name, _) = road.key(&self.name)?;
        if matches!(name, KeyName::Index(_, IndexName::Fingerprint)) {
            let description =
                "only versions of keys that rotate can be destroyed: this one does not, and is always in use";
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

impl<S: Store> Road<'_, S> {
    /// A key of the tenant by its name, with its newest version.
    pub fn key(&self, name: &str) -> Result<(KeyName, KeyVersion), Error> {
        let unknown = || Error::invalid("name", "key_unknown", format!("there is no such key: {NAMES}"));
        let name = KeyName::parse(self.tenant.id, name).ok_or_else(unknown)?;
        let newest = self.vault.keystore.newest_version(name).ok_or_else(unknown)?;
        Ok((name, newest))
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
            let destroy = Destroy { request, dependants };
            // What was approved and cut off is not asked for again.
            self.finish_key_change(caller.principal.tenant).await?;
            self.approved(caller, &destroy).await?;
            self.change_key(caller, &destroy).await?;
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
}
