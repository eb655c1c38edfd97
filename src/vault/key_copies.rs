//! The copies of the keystore that are kept elsewhere: each is listed, and a destroyed key is dead only when no copy on
//! the list holds it.
//!
//! A keystore holds the keys of all tenants, so its copies are the business of the vault's own operators.

use std::sync::Arc;

use ring::digest;
use serde::{Deserialize, Serialize};
use strongroom_access::Action;
use strongroom_keys::{KeyInfo, KeyState};
use strongroom_storage::keys as place;
use strongroom_storage::{Mutation, Store};

use crate::blocking::blocking;
use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::vault::Vault;

/// Copies that may be on the list, and that are remembered with those that were struck off: the oldest of these are
/// forgotten then.
const MOST: usize = 1_000;
const REMEMBERED: usize = 5_000;
/// Bytes of a copy: more than an answer holds is not listed.
const BYTES: usize = 16 << 20;
/// Characters of a label.
const LABEL: usize = 128;

/// One copy on the list.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCopy {
    /// Its number; `copy/7`.
    number: u32,
    /// What its maker wrote on it.
    pub label: String,
    /// Who made it.
    pub principal: String,
    /// When, in microseconds since 1970.
    pub time: u64,
    /// The number of the keystore that it is a copy of.
    pub keystore: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// When it was struck off the list, in microseconds since 1970.
    pub struck: Option<u64>,
}

impl KeyCopy {
    /// `copy/7`.
    pub fn name(&self) -> String {
        format!("copy/{}", self.number)
    }
}

/// A copy that was just made.
pub struct NewKeyCopy {
    /// How the list has it.
    pub listed: KeyCopy,
    /// The file.
    pub bytes: Vec<u8>,
}

/// The list, oldest first.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Copies(Vec<KeyCopy>);

/// How a destroyed version lives on.
pub(crate) struct Afterlife {
    /// The copies that hold it.
    pub copies: Vec<String>,
    /// Since when it is dead, in microseconds since 1970.
    pub dead: Option<u64>,
}

impl Copies {
    pub async fn load<S: Store>(vault: &Vault<S>) -> Result<Self, Error> {
        let system = vault.tenant(SYSTEM_NO)?;
        let (at, key) = (place::keystore_copies(), &system.fingerprints);
        let listed = Source::load(&*vault.store, at, SourceKind::Copies, key).await?;
        Ok(listed.unwrap_or_default())
    }

    fn put<S: Store>(&self, vault: &Vault<S>) -> Result<Mutation, Error> {
        Source::put(self, place::keystore_copies(), SourceKind::Copies, &vault.tenant(SYSTEM_NO)?.fingerprints)
    }

    /// When the newest one was made, in microseconds since 1970; zero if there is none.
    pub fn newest(&self) -> u64 {
        self.0.iter().map(|copy| copy.time).max().unwrap_or_default()
    }

    /// Whether a copy that is not struck off holds a version of a key.
    pub fn holds(&self, key: &KeyInfo) -> bool {
        !self.afterlife(key).copies.is_empty()
    }

    /// How a version of a key lives on in copies, and when it died.
    pub fn afterlife(&self, key: &KeyInfo) -> Afterlife {
        let destroyed = key.state == KeyState::Destroyed;
        let end = if destroyed { key.changed } else { u64::MAX };
        let holds = |copy: &&KeyCopy| key.created <= copy.time && copy.time <= end;
        let (mut copies, mut dead) = (Vec::new(), key.changed);
        for copy in self.0.iter().filter(holds) {
            match copy.struck {
                None => copies.push(copy.name()),
                Some(struck) => dead = dead.max(struck),
            }
        }
        let dead = (destroyed && copies.is_empty()).then_some(dead);
        Afterlife { copies, dead }
    }
}

/// Makes a copy of the keystore.
pub struct BackupKeystore {
    /// What shall be written on it: where it will lie. Up to 128 printable ASCII characters.
    pub label: String,
}

impl<S: Store> Attempt<S> for BackupKeystore {
    type Answer = NewKeyCopy;
    const ACTION: Action = Action::BackupKeystore;
    /// No key may change between the copy and its listing.
    const ALONE: bool = true;
    /// What protects is worth the space.
    const ON_FULL_DISK: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_vault()?;
        let printable = self.label.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        if self.label.len() > LABEL || !printable {
            let description = format!("up to {LABEL} printable ASCII characters");
            return Err(Error::invalid("label", "label", description));
        }
        Ok(())
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<NewKeyCopy>, Refused> {
        self.may_have_it_alone(road)?;
        let mut copies = Copies::load(road.vault).await?;
        if copies.0.iter().filter(|copy| copy.struck.is_none()).count() >= MOST {
            let description =
                format!("{MOST} copies are on the list: strike those off that are gone, then make another");
            return Err(Error::invalid("copies", "list_full", description).into());
        }
        // A change that is decided and not made yet would be later than this copy, and bear an earlier date.
        if road.vault.has_open_key_change().await? {
            return Err(Error::Conflict.into());
        }
        let keystore = Arc::clone(&road.vault.keystore);
        let copy = blocking(move || keystore.copy()).await?.map_err(|error| {
            tracing::error!(%error, "the keystore can't be copied");
            Error::KeyUnavailable("the keystore can't be copied; the vault's log says why".to_owned())
        })?;
        if copy.bytes.len() > BYTES {
            return Err(Error::AnswerTooLarge { size: copy.bytes.len(), limit: BYTES }.into());
        }
        let listed = KeyCopy {
            number: copies.0.last().map_or(1, |last| last.number.saturating_add(1)),
            label: self.label.clone(),
            principal: road.caller.principal.name.to_string(),
            time: road.now,
            keystore: copy.number,
            sha256: data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, &copy.bytes).as_ref()),
            struck: None,
        };
        copies.0.push(listed.clone());
        while copies.0.len() > REMEMBERED
            && let Some(oldest) = copies.0.iter().position(|copy| copy.struck.is_some())
        {
            copies.0.remove(oldest);
        }
        let detail =
            [("copy", listed.name()), ("keystore", listed.keystore.to_string()), ("sha256", listed.sha256.clone())];
        let mut prepared = road.prepare(NewKeyCopy { listed, bytes: copy.bytes });
        prepared.mutations.push(copies.put(road.vault)?);
        prepared.detail.extend(detail);
        Ok(prepared)
    }
}

/// Asks which copies there are.
struct ListCopies;

impl<S: Store> Attempt<S> for ListCopies {
    type Answer = Vec<KeyCopy>;
    const ACTION: Action = Action::ListKeystoreCopies;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<KeyCopy>>, Refused> {
        road.decide_vault()?;
        Ok(road.prepare(Copies::load(road.vault).await?.0))
    }
}

/// Strikes a copy off the list: it was destroyed, or nothing can open it any more.
pub struct StrikeKeystoreCopy {
    /// `copy/7`.
    pub name: String,
}

impl<S: Store> Attempt<S> for StrikeKeystoreCopy {
    type Answer = KeyCopy;
    const ACTION: Action = Action::StrikeKeystoreCopy;
    /// The list is read and written as a whole.
    const ALONE: bool = true;
    const ON_FULL_DISK: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_vault()
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<KeyCopy>, Refused> {
        road.decide_vault()?;
        let mut copies = Copies::load(road.vault).await?;
        let Some(copy) = copies.0.iter_mut().find(|copy| copy.name() == self.name) else {
            let description = "there is no such copy: `strongroom keys copies` lists them";
            return Err(Error::invalid("name", "copy_unknown", description).into());
        };
        // Struck off once is struck off.
        copy.struck.get_or_insert(road.now);
        let copy = copy.clone();
        let mut prepared = road.prepare(copy.clone());
        prepared.mutations.push(copies.put(road.vault)?);
        prepared.detail.push(("copy", copy.name()));
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Makes a copy of the keystore, to be kept elsewhere, and lists it.
    pub async fn backup_keystore(&self, caller: &Caller, request: &BackupKeystore) -> Result<NewKeyCopy, Error> {
        match self.travel(caller, request).await {
            // Who may ask for a copy may also wait for a change of keys that was left open.
            Err(Error::Conflict) => {
                self.finish_key_changes().await?;
                self.finish_tenant_changes().await?;
                self.travel(caller, request).await
            }
            made => made,
        }
    }

    /// All copies of the keystore that were made, oldest first.
    pub async fn list_keystore_copies(&self, caller: &Caller) -> Result<Vec<KeyCopy>, Error> {
        self.travel(caller, &ListCopies).await
    }

    /// Strikes a copy of the keystore off the list.
    pub async fn strike_keystore_copy(&self, caller: &Caller, request: &StrikeKeystoreCopy) -> Result<KeyCopy, Error> {
        self.travel(caller, request).await
    }
}
