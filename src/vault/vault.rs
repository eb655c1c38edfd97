//! The vault: what all requests share, and one method for each of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use strongroom_access::Directory;
use strongroom_commit::{Committer, CommitterState};
use strongroom_ids::{TenantNo, VaultId};
use strongroom_keys::{DekCache, Keystore};
use strongroom_storage::Store;
use tokio::sync::{Mutex, Notify, RwLock, watch};

use crate::archive::Archiving;
use crate::audit::Notes;
use crate::clock_watch::ClockWatch;
use crate::delete::Delete;
use crate::detokenize::{Detokenize, Released};
use crate::erase::Erasing;
use crate::error::Error;
use crate::expire::Retention;
use crate::explain::{Explain, Explanation};
use crate::jobs::Jobs;
use crate::leaf_index::Indexing;
use crate::limits::Limits;
use crate::lookup::{FoundTokens, Lookup};
use crate::matching::Match;
use crate::published::Shown;
use crate::refusals::Refusals;
use crate::replace::Replace;
use crate::road::Caller;
use crate::rules::{Applied, ApplyPolicy, ApplySchema, GetSchema, InForce, PolicyInTurn, SchemaInTurn};
use crate::tenant::Tenant;
use crate::tenants::Tenants;
use crate::tiles::Tiling;
use crate::tokenize::Tokenize;
use crate::witnesses::{Waiting, Witnesses};

/// Tells the time: microseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Tells whether less space is left on the vault's disk than is set aside for what frees or protects.
pub type Space = Arc<dyn Fn() -> bool + Send + Sync>;

/// A vault that is open.
pub struct Vault<S: Store> {
    pub(crate) store: Arc<S>,
    pub(crate) committer: Committer,
    pub(crate) keystore: Arc<Keystore>,
    /// Shared with commits that destroy DEKs, which outlive their callers.
    pub(crate) deks: Arc<DekCache>,
    /// Requests share it; a change of rules, and a request that was turned back too often, have it alone.
    pub(crate) turn: RwLock<()>,
    pub(crate) limits: Limits,
    pub(crate) refusals: Refusals,
    pub(crate) clock: Clock,
    /// Whether what is due by that may be erased.
    pub(crate) clock_watch: ClockWatch,
    pub(crate) retention: Retention,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) notes: Notes,
    pub(crate) id: VaultId,
    /// Where the journal stands.
    pub(crate) journal: PathBuf,
    /// The highest number of a tenant that the journal knew at the start.
    pub(crate) last_tenant: TenantNo,
    pub(crate) started: u64,
    pub(crate) damaged: AtomicBool,
    pub(crate) space: Space,
    pub(crate) nearly_full: AtomicBool,
    pub(crate) jobs: Jobs,
    /// Held while it is counted what depends on a key.
    pub(crate) counting: Mutex<()>,
    /// Held, of each tenant its own, while a step of an erasure is taken.
    pub(crate) erasing: std::sync::Mutex<HashMap<TenantNo, Arc<Mutex<Erasing>>>>,
    /// Woken when something may be left to do of one.
    pub(crate) erasures_left: Notify,
    /// For how many days backups are kept; unknown unless whoever opened the vault says so.
    pub(crate) backups_kept: OnceLock<u32>,
    /// Held while an import key is made: first come, first served.
    pub(crate) importing: Mutex<()>,
    pub(crate) tiling: Tiling,
    pub(crate) shown: Shown,
    /// Whose cosignatures are wanted; nobody's unless whoever opened the vault says so.
    pub(crate) witnesses: OnceLock<Witnesses>,
    pub(crate) waiting: Waiting,
    /// For how long leaves are kept at the least, in microseconds, if whoever opened the vault says it.
    pub(crate) kept: OnceLock<u64>,
    pub(crate) archiving: Archiving,
    /// Shared with exports.
    pub(crate) indexing: Arc<Indexing>,
    /// Last, so that it goes after all else: whoever waits for the vault's end waits for this.
    pub(crate) alive: watch::Sender<()>,
}

impl<S: Store> Vault<S> {
    /// Stores values and returns a token for each, in order.
    pub async fn tokenize(&self, caller: &Caller, request: &Tokenize) -> Result<Vec<String>, Error> {
        self.travel(caller, request).await
    }

    /// Returns views of the values behind tokens, item by item.
    pub async fn detokenize(
        &self,
        caller: &Caller,
        request: &Detokenize,
    ) -> Result<Vec<Result<Released, Error>>, Error> {
        self.travel(caller, request).await
    }

    /// Says item by item whether a token stands for a value.
    pub async fn matches(&self, caller: &Caller, request: &Match) -> Result<Vec<Result<bool, Error>>, Error> {
        self.travel(caller, request).await
    }

    /// Finds tokens by exact value, item by item.
    pub async fn lookup(&self, caller: &Caller, request: &Lookup) -> Result<Vec<Result<FoundTokens, Error>>, Error> {
        self.travel(caller, request).await
    }

    /// Puts new values under old tokens and returns the version of each.
    pub async fn replace(&self, caller: &Caller, request: &Replace) -> Result<Vec<u32>, Error> {
        self.travel(caller, request).await
    }

    /// Removes values, item by item.
    pub async fn delete(&self, caller: &Caller, request: &Delete) -> Result<Vec<Result<(), Error>>, Error> {
        self.travel(caller, request).await
    }

    /// Puts a schema in force.
    pub async fn apply_schema(&self, caller: &Caller, request: &ApplySchema) -> Result<Applied, Error> {
        let in_turn = SchemaInTurn::new(request);
        if !request.dry_run {
            self.approved(caller, &in_turn).await?;
        }
        Ok(self.travel(caller, &in_turn).await?.applied)
    }

    /// The schema in force.
    pub async fn get_schema(&self, caller: &Caller) -> Result<InForce, Error> {
        self.travel(caller, &GetSchema).await
    }

    /// Puts policies in force.
    pub async fn apply_policy(&self, caller: &Caller, request: &ApplyPolicy) -> Result<Applied, Error> {
        let in_turn = PolicyInTurn::new(request);
        if !request.dry_run {
            self.approved(caller, &in_turn).await?;
        }
        Ok(self.travel(caller, &in_turn).await?.applied)
    }

    /// Sees that the store is not recovering: its readers may still see then what a reopening will change.
    pub(crate) fn serving(&self) -> Result<(), Error> {
        match self.committer.state() {
            CommitterState::Serving => Ok(()),
            _ => Err(Error::Recovering),
        }
    }

    /// The name of the caller's tenant.
    pub fn tenant_name(&self, caller: &Caller) -> Result<String, Error> {
        Ok(self.tenant(caller.principal.tenant)?.name.clone())
    }

    /// How policy would decide, and why.
    pub async fn explain_policy(&self, caller: &Caller, request: &Explain) -> Result<Explanation, Error> {
        self.travel(caller, request).await
    }

    /// Tenants, and the officers' enrolled keys: what a certificate is held against.
    pub fn directory(&self) -> Arc<Directory> {
        self.tenants.directory()
    }

    /// The sizes that requests may have.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// `serving`, `recovering` (the store is being reopened after a failed write), `full` (too little space is left on
    /// the disk), `damaged` (a read met bytes that are not what was written) or `stopped` (nothing can be written until
    /// the process is started again).
    pub fn health(&self) -> &'static str {
        match self.committer.state() {
            CommitterState::Stopped => "stopped",
            _ if self.damaged.load(Ordering::Relaxed) => "damaged",
            CommitterState::Serving if self.nearly_full.load(Ordering::Relaxed) => "full",
            CommitterState::Serving => "serving",
            CommitterState::Recovering => "recovering",
        }
    }

    /// The time, as requests have it: in microseconds since 1970.
    pub fn time(&self) -> u64 {
        self.now()
    }

    /// The time of a request that begins now, in microseconds since 1970: the clock's, but never before the ledger's.
    pub(crate) fn now(&self) -> u64 {
        (self.clock)().max(self.committer.time().0)
    }

    /// Looks how much space is left.
    pub(crate) fn look_at_space(&self) {
        let full = (self.space)();
        if full != self.nearly_full.swap(full, Ordering::Relaxed) {
            match full {
                true => tracing::error!("too little space is left on the disk: only what frees space is done"),
                false => tracing::warn!("there is space on the disk again"),
            }
        }
    }

    /// Remembers that stored data is damaged, for health.
    pub(crate) fn damaged(&self, place: &'static str) {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            tracing::error!(place, "a read met damaged data; requests that need it answer DATA_LOSS");
        }
    }

    /// A tenant, for as long as somebody holds it: whether it was destroyed meanwhile, the road asks.
    pub(crate) fn tenant(&self, number: TenantNo) -> Result<Arc<Tenant>, Error> {
        self.tenants.get(number)
    }

    /// Finishes what was begun, writes the head file and closes.
    pub async fn close(&self) {
        self.write_counted_refusals().await;
        self.committer.shutdown().await;
        self.deks.clear();
    }
}
