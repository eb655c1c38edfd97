//! Status: what is running, since when, and how it is.

use std::path::PathBuf;
use std::sync::Arc;

use strongroom_access::{Action, Freezes, Role, Touch};
use strongroom_ids::VaultId;
use strongroom_storage::Store;

use crate::clock_watch::ClockJump;
use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenant::Tenant;
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
    /// Where the journal stands and how many records it has. It names the machine's files: for operators and officers.
    pub journal: Option<(PathBuf, u64)>,
    /// What somebody has to do something about, in words; for the same.
    pub notice: String,
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
        let told = matches!(road.caller.principal.role, Role::Operator | Role::Officer);
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
            journal: vault.committer.journal().filter(|_| told).map(|end| (vault.journal.clone(), end.records)),
            notice: if told { notice(road) } else { String::new() },
            clock_jump: vault.clock_jump(),
        }))
    }
}

/// Which tenants a restore has frozen: the caller's own, or, for the vault's own, any.
fn notice<S: Store>(road: &Road<'_, S>) -> String {
    let frozen = |freezes: &Freezes| Touch::ALL.iter().any(|touch| freezes.everything.is_by_restore(*touch));
    let tenants = road.vault.tenants.all();
    let of_caller = |tenant: &&Arc<Tenant>| road.tenant.number == SYSTEM_NO || tenant.number == road.tenant.number;
    let mut named: Vec<String> = tenants
        .values()
        .filter(of_caller)
        .filter(|tenant| frozen(&tenant.rules().freezes.own))
        .map(|tenant| tenant.name.clone())
        .collect();
    if named.is_empty() {
        return String::new();
    }
    named.sort();
    format!(
        "an older copy of the data was put in place, and the journal did not reach far enough: all of {} is frozen; once two of its          officers know what was stopped since, they end that: strongroom unfreeze, and the approval of the other",
        named.join(", ")
    )
}

impl<S: Store> Vault<S> {
    /// The state of the vault.
    pub async fn status(&self, caller: &Caller) -> Result<Status, Error> {
        self.travel(caller, &GetStatus).await
    }
}
