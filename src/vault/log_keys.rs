//! The public keys of logs: what others verify with what the vault signed, also what it signed with keys that are gone.
//!
//! The keystore forgets a version that is destroyed. Its public half stands in the log, in the leaf of the rotation that made
//! it, and is noted with the last change of the tenant's keys, so that nobody has to search the log for it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use strongroom_ids::{KeyVersion, TenantId};
use strongroom_keys::{KeyName, KeyState, Keystore};
use strongroom_ledger::checkpoint;
use strongroom_storage::Store;

use crate::audit::Checkpoint;
use crate::error::Error;
use crate::key_life;
use crate::tenant::Tenant;
use crate::vault::Vault;

/// The public half of one version of a log's key, as it is noted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotedKey {
    pub version: u32,
    /// In hexadecimal.
    public: String,
    /// Whether others know the key, or may: it proves nothing any more, also once it is destroyed.
    #[serde(default, skip_serializing_if = "is_sound")]
    compromised: bool,
}

/// Of a reference, as serde asks.
fn is_sound(compromised: &bool) -> bool {
    !compromised
}

impl NotedKey {
    /// The key as it is verified with.
    pub fn public(&self) -> Option<[u8; 32]> {
        read(&self.public)
    }
}

/// A public key from hexadecimal.
pub(crate) fn read(hex: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// What was noted, and what the keystore knows now, from the oldest version to the newest.
pub(crate) fn noted(before: Vec<NotedKey>, keystore: &Keystore, tenant: TenantId) -> Vec<NotedKey> {
    let mut noted = before;
    for public in keystore.ledger_publics(tenant) {
        if !noted.iter().any(|key| key.version == public.version.0) {
            let hex = data_encoding::HEXLOWER.encode(&public.key);
            noted.push(NotedKey { version: public.version.0, public: hex, compromised: false });
        }
    }
    for key in &mut noted {
        let state = keystore.info(KeyName::Ledger(tenant), KeyVersion(key.version)).map(|info| info.state);
        key.compromised |= state == Some(KeyState::Compromised);
    }
    noted.sort_by_key(|key| key.version);
    noted
}

/// The keys that something of the log may be verified with, the newest first.
pub(crate) fn sound(noted: &[NotedKey]) -> Vec<[u8; 32]> {
    noted.iter().rev().filter(|key| !key.compromised).filter_map(NotedKey::public).collect()
}

impl<S: Store> Vault<S> {
    /// The public keys of a tenant's log that are not compromised, the newest first.
    pub(crate) async fn log_keys(&self, tenant: &Tenant) -> Result<Vec<[u8; 32]>, Error> {
        let before = key_life::noted_log_keys(&*self.store, tenant.number, &tenant.fingerprints).await?;
        Ok(sound(&noted(before, &self.keystore, tenant.id)))
    }

    /// The head of a log, signed by all keys that sign now. `keys` are those that verify it.
    pub(crate) fn sign_head(
        &self,
        tenant: TenantId,
        (origin, size, root): (&str, u64, &[u8; 32]),
        keys: &[[u8; 32]],
    ) -> Result<Checkpoint, Error> {
        let signing = self.keystore.ledger_keys(tenant)?;
        let note = checkpoint::sign_all(
            origin,
            size,
            root,
            &signing.all(),
            |key| key.public_key(),
            |key, text| key.sign(text),
        );
        let note = note.map_err(|_| Error::Internal("a checkpoint that can't be signed"))?;
        // Whoever was rotated in since they were read comes first.
        let newest = signing.newest().public_key();
        let mut seen = HashSet::new();
        let keys = std::iter::once(&newest).chain(keys).filter(|key| seen.insert(**key));
        Ok(Checkpoint { note, keys: keys.map(|key| checkpoint::vkey(origin, key)).collect() })
    }
}
