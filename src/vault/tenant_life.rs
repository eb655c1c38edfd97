//! The life of tenants: making one, destroying one, and what there are.
//!
//! As with keys, no one write reaches both keystore and ledger. So a tenant that is made is committed as an intent, its keys
//! are made, and then all that makes it a tenant is committed at once: its rows, its place in the directory, the first leaf
//! of its own log and a leaf in the log `system`. One that is destroyed is gone with the first commit, which ends its log;
//! then its keys are destroyed, then that is committed, and its rows are cleared. Whoever comes next finishes what a crash
//! cut off: the next start, or the jobs.

mod end;
mod make;
mod receipt;

use serde::Serialize;
use strongroom_access::{Action, Directory};
use strongroom_commit::Change;
use strongroom_ids::{TenantId, TenantNo};
use strongroom_keys::{IndexKey, KeyInfo};
use strongroom_storage::keys as place;
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Mutation, Store};

use crate::error::Error;
use crate::key_copies::Copies;
use crate::open::{SYSTEM, SYSTEM_NO, is_tenant_name};
use crate::own_leaf::Rules;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::{Tenant, see_in_force};
use crate::values::row_hash;
use crate::vault::Vault;

pub use end::{DestroyTenant, DestroyedTenant};
pub(crate) use end::{End, public_keys};
use make::Making;
pub use make::{CreateTenant, MadeTenant};

/// How far a tenant's life has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TenantState {
    /// It serves.
    Serving,
    /// It would, but its own key is away.
    Locked,
    /// It is gone, and its keys are not destroyed yet.
    Ending,
    /// Its keys are destroyed, and its rows are not cleared yet.
    Destroyed,
    /// Nothing is left of it but its log.
    Cleared,
}

impl TenantState {
    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Locked => "locked",
            Self::Ending => "ending",
            Self::Destroyed => "destroyed",
            Self::Cleared => "cleared",
        }
    }
}

/// A tenant, as the vault's operators see it.
pub struct ListedTenant {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: TenantNo,
    /// Its permanent identity.
    pub id: TenantId,
    /// When it was made, in microseconds since 1970.
    pub created: u64,
    /// How far its life has come.
    pub state: TenantState,
    /// When its keys were destroyed, in microseconds since 1970; none while they are not.
    pub destroyed: Option<u64>,
    /// Of a destroyed tenant: listed copies of the keystore that still hold its keys.
    pub copies: Vec<String>,
    /// Since when a destroyed tenant's keys are dead in every copy, in microseconds since 1970.
    pub dead: Option<u64>,
    /// What was signed when it was destroyed; empty before.
    pub receipt: String,
}

/// Asks which tenants there are, and were.
struct ListTenants;

impl<S: Store> Attempt<S> for ListTenants {
    type Answer = Vec<ListedTenant>;
    const ACTION: Action = Action::ListTenants;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<ListedTenant>>, Refused> {
        road.decide_vault()?;
        let vault = road.vault;
        let copies = Copies::load(vault).await?;
        let rows = crate::open::tenant_rows(&*vault.store).await.map_err(|_| Error::DataLoss("a tenant's row"))?;
        let mut listed = Vec::with_capacity(rows.len());
        for TenantRow { number, id, name, created } in rows.into_iter().filter(|row| row.number != SYSTEM_NO) {
            let end = End::load(vault, number).await?;
            let alive = || match vault.tenants.get(number) {
                Err(Error::TenantLocked) => TenantState::Locked,
                _ => TenantState::Serving,
            };
            let state = end.as_ref().map_or_else(alive, End::state);
            let done = end.as_ref().filter(|_| state != TenantState::Ending);
            let (copies, dead) = match done {
                Some(_) => lives_on(&copies, &vault.keystore.keys(id)),
                None => (vec![], None),
            };
            let destroyed = done.and_then(|end| end.destroyed());
            // They were alive until then, in whatever copies they were not.
            let dead = dead.zip(destroyed).map(|(dead, destroyed)| dead.max(destroyed));
            let receipt = done.and_then(|end| end.receipt.clone()).unwrap_or_default();
            listed.push(ListedTenant { name, number, id, created, state, destroyed, copies, dead, receipt });
        }
        Ok(road.prepare(listed))
    }
}

/// The listed copies that hold any of these destroyed keys, and since when they are dead in all of them.
pub(crate) fn lives_on(copies: &Copies, keys: &[KeyInfo]) -> (Vec<String>, Option<u64>) {
    let mut holding: Vec<String> = Vec::new();
    let mut dead = Some(0);
    for key in keys {
        let afterlife = copies.afterlife(key);
        for copy in afterlife.copies {
            if !holding.contains(&copy) {
                holding.push(copy);
            }
        }
        dead = dead.zip(afterlife.dead).map(|(all, one)| all.max(one));
    }
    // In the order in which they were made.
    holding.sort_by_key(|copy| copy.strip_prefix("copy/").and_then(|number| number.parse::<u32>().ok()));
    (holding, dead.filter(|_| !keys.is_empty()))
}

/// The versions of a tenant's rules.
pub(crate) fn rules_of(tenant: &Tenant) -> Rules<'static> {
    (tenant.policy_version(), tenant.rules().schema.version(), &[])
}

/// What the log `system` says of a tenant whose life has come so far.
fn told(name: &str, number: u32, id: &str, stage: &str) -> Vec<(&'static str, String)> {
    vec![
        ("tenant", name.to_owned()),
        ("number", number.to_string()),
        ("tenant_id", id.to_owned()),
        ("stage", stage.to_owned()),
    ]
}

/// An id as it is noted, in hexadecimal.
fn noted_id(hex: &str, noted: &'static str) -> Result<TenantId, Error> {
    let id = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().and_then(|id| id.try_into().ok());
    id.map(TenantId).ok_or(Error::DataLoss(noted))
}

/// The row of the directory, and what a leaf says of it.
pub(crate) struct NewDirectory {
    pub mutation: Mutation,
    version: u32,
    sha256: String,
}

impl NewDirectory {
    /// The row that follows the one in the store. `key` is the fingerprint key of the vault's own tenant.
    pub fn after(stored: &Source, directory: &Directory, key: &IndexKey) -> Result<Self, Error> {
        let version = stored.version.checked_add(1).ok_or(Error::Internal("too many changes of the directory"))?;
        let row = Source::new(version, directory.to_stored())?.encode(SourceKind::Principals, key);
        let sha256 = data_encoding::HEXLOWER.encode(&row_hash(&row));
        Ok(Self { mutation: Mutation::Put(Family::Meta, place::principals(), row), version, sha256 })
    }

    /// What the log `system` says of it: by that it is in force.
    pub fn detail(&self) -> [(&'static str, String); 2] {
        [("principals_version", self.version.to_string()), ("principals_sha256", self.sha256.clone())]
    }
}

/// The directory as it is stored. `key` is the fingerprint key of the vault's own tenant.
pub(crate) async fn stored_directory<S: Store>(store: &S, key: &IndexKey) -> Result<(Source, Directory), Error> {
    const PLACE: &str = "the enrolled officers";
    let row = store.get(Family::Meta, place::principals()).await?.ok_or(Error::DataLoss(PLACE))?;
    let source = Source::decode(&row, SourceKind::Principals, key)?;
    let directory = Directory::from_stored(&source.body).map_err(|_| Error::DataLoss(PLACE))?;
    Ok((source, directory))
}

/// A name that a caller sent, if a tenant can be called so.
fn named(name: &str) -> Result<&str, Error> {
    match name {
        SYSTEM => {
            Err(Error::invalid("name", "tenant_system", "the vault itself is no tenant: it is not made or destroyed"))
        }
        name if is_tenant_name(name) => Ok(name),
        _ => {
            let description = "a tenant's name is 1 to 64 lower-case letters, digits and hyphens";
            Err(Error::invalid("name", "tenant_name", description))
        }
    }
}

impl<S: Store> Vault<S> {
    /// All tenants but the vault itself, those that were destroyed too, in the order of their numbers.
    pub async fn list_tenants(&self, caller: &Caller) -> Result<Vec<ListedTenant>, Error> {
        self.travel(caller, &ListTenants).await
    }

    /// Waits until something may be left to do of a tenant's making or end.
    pub async fn tenant_work(&self) {
        self.tenants.left.notified().await;
    }

    /// Finishes what was begun of making and destroying tenants, but for clearing rows. It may take as long as the keystore
    /// does.
    pub async fn finish_tenant_changes(&self) -> Result<(), Error> {
        let _changing = self.tenants.changing.lock().await;
        self.see_tenants().await?;
        self.finish_making().await?;
        for number in self.open_ends().await? {
            self.finish_end(number).await?;
        }
        self.see_tenants().await
    }

    /// The same at a start: what a person must put right keeps no other tenant from being served.
    pub(crate) async fn finish_tenants_at_start(&self) -> Result<(), Error> {
        match self.finish_tenant_changes().await {
            Err(error @ Error::KeyUnavailable(_)) => {
                tracing::error!(%error, "what was begun of making or destroying a tenant could not be finished");
                self.tenants.left.notify_one();
                Ok(())
            }
            done => done,
        }
    }

    /// Whether a tenant is being made, or its keys are about to be destroyed.
    pub(crate) async fn has_open_tenant_change(&self) -> Result<bool, Error> {
        Ok(Making::load(self).await?.is_some() || !self.open_ends().await?.is_empty())
    }

    /// Brings what is in memory to what is on disk, after a write whose outcome was unknown.
    pub(crate) async fn see_tenants(&self) -> Result<(), Error> {
        if !self.tenants.is_unsure() {
            return Ok(());
        }
        let system = self.tenant(SYSTEM_NO)?;
        let _turn = self.turn.write().await;
        self.serving()?;
        // What the log has in force, and nothing that somebody put back while the store was closed.
        see_in_force(self, SYSTEM_NO, SYSTEM).await?;
        let (_, directory) = stored_directory(&*self.store, &system.fingerprints).await?;
        self.serving()?;
        for number in directory.destroyed.values() {
            // One that was locked is known by the directory alone.
            if !self.directory().destroyed.values().any(|known| known == number) {
                self.tenants.end(*number, directory.clone());
                self.deks.clear();
            }
        }
        for number in directory.tenants.values() {
            // One that is known and can't be asked is locked.
            let known = self.directory().tenants.values().any(|known| known == number);
            if !known {
                self.begin_tenant(*number, directory.clone()).await?;
            }
        }
        self.tenants.enrol(directory);
        self.tenants.settle();
        Ok(())
    }

    /// Waits until it is known which tenants there are.
    pub(crate) async fn wait_for_tenants(&self) -> Result<(), Error> {
        let _changing = self.tenants.changing.lock().await;
        self.see_tenants().await
    }

    /// Takes a tenant into memory as it is on disk.
    async fn begin_tenant(&self, number: TenantNo, directory: Directory) -> Result<(), Error> {
        let row = self.store.get(Family::Meta, place::tenant(number)).await?;
        let row = TenantRow::decode(&row.ok_or(Error::DataLoss("a tenant's row"))?)?;
        let head = self.committer.head(number).ok_or(Error::Internal("a tenant without a log"))?;
        // Made while all tenants are frozen, it is frozen too.
        see_in_force(self, number, &row.name).await?;
        let tenant = Tenant::load(row, (head.incarnation, head.size), &*self.store, &self.keystore).await?;
        self.tenants.begin(tenant, directory);
        Ok(())
    }

    /// Commits what is noted of a tenant, and nothing else.
    async fn note<T: Serialize>(&self, held: &T, at: Vec<u8>, kind: SourceKind) -> Result<(), Error> {
        let system = self.tenant(SYSTEM_NO)?;
        let mutations = vec![Source::put(held, at, kind, &system.fingerprints)?];
        let position = self.committer.position();
        self.committer
            .commit(Change { position, guards: vec![], changes: vec![], mutations, leaves: vec![], charge: None })
            .await?;
        Ok(())
    }
}
