//! The life of a key: new versions, and changes of state (SP 800-57 part 1, section 7).

use std::sync::{Arc, PoisonError};

use strongroom_ids::{KeyVersion, TenantId};

use super::{Entry, KeyInfo, Keystore};
use crate::error::KeyError;
use crate::name::{KeyName, KeyState};

/// Versions of one key, those that were destroyed too: the file keeps all of them.
const MOST_VERSIONS: u32 = 4_096;

impl Keystore {
    /// The newest version of a key, whatever its state; `None` if there is no such key.
    pub fn newest_version(&self, name: KeyName) -> Option<KeyVersion> {
        let table = self.table.load();
        table.keys.get(&name).and_then(|versions| versions.last()).map(|entry| entry.record.version)
    }

    /// What there is to know of a version of a key, if there is such a version.
    pub fn info(&self, name: KeyName, version: KeyVersion) -> Option<KeyInfo> {
        let table = self.table.load();
        let versions = table.keys.get(&name)?;
        versions.iter().find(|entry| entry.record.version == version).map(Entry::info)
    }

    /// Whether it is known what the file holds. It is not after a replacement that may or may not survive a crash: the
    /// next change finds out.
    pub fn is_settled(&self) -> bool {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Sees that a key has a certain version, random and enabled. The versions that protected until then only process
    /// from then on. `made` is when that is, in microseconds since 1970. The file is replaced durably before the new
    /// version can be used; if the version is there already nothing happens, so that a call that a crash cut off can be
    /// made again.
    ///
    /// # Errors
    /// [`KeyError::Missing`]; [`KeyError::MissingVersion`] if a version between is missing; [`KeyError::OwnKeyAway`] if the
    /// tenant is locked; else as [`Keystore::ensure`].
    pub fn rotate_to(&self, name: KeyName, version: KeyVersion, made: u64) -> Result<(), KeyError> {
        self.change(|keys, own| {
            let versions = keys.get_mut(&name).ok_or(KeyError::Missing { name })?;
            let newest = versions.last().map_or(0, |entry| entry.record.version.0);
            if version.0 <= newest {
                return Ok(false);
            }
            if version.0 > MOST_VERSIONS {
                return Err(KeyError::Exhausted("a key has at most 4,096 versions"));
            }
            if version.0 - 1 != newest {
                return Err(KeyError::MissingVersion { name, version: KeyVersion(version.0 - 1) });
            }
            for entry in versions.iter_mut().filter(|entry| entry.record.state == KeyState::Enabled) {
                entry.become_(KeyState::DecryptOnly, made, own)?;
            }
            versions.push(Entry::make(name, version, made, own)?);
            Ok(true)
        })
    }

    /// Whether a version of a key may get another state. A state that it has already is allowed.
    ///
    /// # Errors
    /// [`KeyError::Missing`]; [`KeyError::MissingVersion`]; [`KeyError::Newest`] if the version is the newest, which
    /// can only be enabled or disabled; [`KeyError::NoWay`] if no way leads from its state to the other.
    pub fn may_become(&self, name: KeyName, version: KeyVersion, state: KeyState) -> Result<(), KeyError> {
        let table = self.table.load();
        let versions = table.keys.get(&name).ok_or(KeyError::Missing { name })?;
        may_become(versions, name, version, state).map(drop)
    }

    /// Gives a version of a key another state, durably. A destroyed version's key is gone from the file and from
    /// memory; its name, version and dates are kept. `decided` is when that was decided, in microseconds since 1970: a
    /// version that changed then or later is left as it is, so that a call that a crash cut off can be made again and an
    /// old one changes nothing. The keys of a locked tenant change their states, and are destroyed, like all others.
    ///
    /// # Errors
    /// As [`Keystore::may_become`] and [`Keystore::ensure`].
    pub fn set_state(&self, name: KeyName, version: KeyVersion, state: KeyState, decided: u64) -> Result<(), KeyError> {
        self.change(|keys, own| {
            let versions = keys.get_mut(&name).ok_or(KeyError::Missing { name })?;
            if versions.iter().any(|entry| entry.record.version == version && entry.record.changed >= decided) {
                return Ok(false);
            }
            let at = may_become(versions, name, version, state)?;
            let Some(entry) = versions.get_mut(at).filter(|entry| entry.record.state != state) else {
                return Ok(false);
            };
            entry.become_(state, decided, own)?;
            Ok(true)
        })
    }

    /// Destroys every version of every key of a tenant, the newest ones too, in one durable replacement, with what is kept
    /// of a key of its own: that may be away. Names, versions and dates are kept. `decided` is when that was decided, in microseconds since 1970. If all are destroyed already
    /// nothing happens, so that a call that a crash cut off can be made again.
    ///
    /// # Errors
    /// As [`Keystore::ensure`].
    pub fn destroy_tenant(&self, tenant: TenantId, decided: u64) -> Result<(), KeyError> {
        let mut unsettled = self.settled()?;
        let table = self.table.load_full();
        let (mut tenants, mut keys) = (table.tenants.clone(), table.keys.clone());
        let mut changed = tenants.forget(tenant);
        let own_keys = keys.iter_mut().filter(|(name, _)| name.tenant() == tenant);
        for entry in own_keys.flat_map(|(_, versions)| versions) {
            if entry.record.state != KeyState::Destroyed {
                entry.become_(KeyState::Destroyed, decided, &table.wraps())?;
                changed = true;
            }
        }
        match changed {
            true => self.replace(&table, Arc::clone(&table.sealing), tenants, keys, &mut unsettled),
            false => Ok(()),
        }
    }
}

/// Finds the version, and sees that it may get the state.
fn may_become(versions: &[Entry], name: KeyName, version: KeyVersion, state: KeyState) -> Result<usize, KeyError> {
    let at = versions
        .iter()
        .position(|entry| entry.record.version == version)
        .ok_or(KeyError::MissingVersion { name, version })?;
    let is = versions.get(at).map_or(KeyState::Destroyed, |entry| entry.record.state);
    if is == state {
        return Ok(at);
    }
    let newest = at + 1 == versions.len();
    if newest && !matches!(state, KeyState::Enabled | KeyState::Disabled) {
        return Err(KeyError::Newest { name, version, state });
    }
    // One version protects: an older one comes back to process only.
    if !is.may_become(state) || (state == KeyState::Enabled && !newest) {
        return Err(KeyError::NoWay { name, version, is, state });
    }
    Ok(at)
}
