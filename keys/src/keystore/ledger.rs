//! The keys of logs: which versions sign, and the public halves of those that are there.

use std::sync::Arc;

use strongroom_ids::{KeyVersion, TenantId};

use super::{Entry, Key, Keystore};
use crate::error::KeyError;
use crate::ledger_key::{LedgerKey, LedgerKeys};
use crate::name::{KeyName, KeyState, Operation};

/// The public half of one version of a log's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerPublic {
    /// The version.
    pub version: KeyVersion,
    /// Its state.
    pub state: KeyState,
    /// The public key, as RFC 8032 encodes it.
    pub key: [u8; 32],
}

impl Keystore {
    /// The newest version of the key of a tenant's log.
    ///
    /// # Errors
    /// As [`Keystore::kek`].
    pub fn ledger_key(&self, tenant: TenantId) -> Result<Arc<LedgerKey>, KeyError> {
        Ok(Arc::clone(self.ledger_keys(tenant)?.newest()))
    }

    /// The versions of the key of a tenant's log that sign: the newest, and those that it replaced and that nobody has
    /// destroyed or called compromised.
    ///
    /// # Errors
    /// As [`Keystore::kek`].
    pub fn ledger_keys(&self, tenant: TenantId) -> Result<LedgerKeys, KeyError> {
        let name = KeyName::Ledger(tenant);
        let table = self.table.load();
        let versions = table.keys.get(&name).map(Vec::as_slice).unwrap_or_default();
        let (last, before) = versions.split_last().ok_or(KeyError::Missing { name })?;
        if !last.record.state.allows(Operation::Protect) {
            return Err(last.not_allowed());
        }
        let newest = last.ledger().ok_or_else(|| table.not_there(last))?;
        let older = before.iter().rev().filter(|entry| entry.record.state == KeyState::DecryptOnly);
        Ok(LedgerKeys::new(newest, older.filter_map(Entry::ledger).collect()))
    }

    /// The public halves of all versions of the key of a tenant's log that are in memory, from the oldest to the newest: not
    /// of those that are disabled or destroyed.
    pub fn ledger_publics(&self, tenant: TenantId) -> Vec<LedgerPublic> {
        let table = self.table.load();
        let versions = table.keys.get(&KeyName::Ledger(tenant)).into_iter().flatten();
        let public = |entry: &Entry| {
            let (version, state) = (entry.record.version, entry.record.state);
            Some(LedgerPublic { version, state, key: entry.ledger()?.public_key() })
        };
        versions.filter_map(public).collect()
    }
}

impl Entry {
    fn ledger(&self) -> Option<Arc<LedgerKey>> {
        match &self.key {
            Some(Key::Ledger(key)) => Some(Arc::clone(key)),
            _ => None,
        }
    }
}
