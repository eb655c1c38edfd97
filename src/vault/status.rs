//! Status: what is running, since when, and how it is.

use strongroom_access::Action;
use strongroom_ids::VaultId;
use strongroom_storage::Store;

use crate::clock_watch::ClockJump;
use crate::error::Error;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::vault::Vault;

/// The state of a vault, as one of its callers sees it.
pub struct Status {
    /// The vault's permanent identity.
    pub vault_id: VaultId,
    /// The caller's tenant.
    pub tenant: String,
    /// See [`Vault::health`].
    pub state: &'static str,
    /// The schema in force; 0 for none.
    pub schema_version: u32,
    /// The policy in force.
    pub policy_version: u32,
    /// Leaves in the tenant's log.
    pub ledger_size: u64,
    /// Which replacement of the keystore is loaded.
    pub keystore_number: u64,
    /// The tenant's keys: name, version, state.
    pub keys: Vec<(String, u32, &'static str)>,
    /// When the vault was opened, in microseconds since 1970.
    pub start: u64,
    /// How the clock jumped, if nobody has said since that it is right: nothing is erased by it meanwhile.
    pub clock_jump: Option<ClockJump>,
}

struct GetStatus;

impl<S: Store> Attempt<S> for GetStatus {
    type Answer = Status;
    const ACTION: Action = Action::Status;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Status>, Refused> {
        road.decide_vault()?;
        let vault = road.vault;
        let keys = vault.keystore.keys(road.tenant.id);
        Ok(road.prepare(Status {
            vault_id: vault.id,
            tenant: road.tenant.name.clone(),
            state: vault.health(),
            schema_version: road.schema.version(),
            policy_version: road.tenant.policy_version(),
            ledger_size: vault.committer.head(road.tenant.number).map_or(0, |head| head.size),
            keystore_number: vault.keystore.number(),
            keys: keys.into_iter().map(|key| (key.name.to_string(), key.version.0, key.state.as_str())).collect(),
            start: vault.started,
            clock_jump: vault.clock_jump(),
        }))
    }
}

impl<S: Store> Vault<S> {
    /// The state of the vault.
    pub async fn status(&self, caller: &Caller) -> Result<Status, Error> {
        self.travel(caller, &GetStatus).await
    }
}
