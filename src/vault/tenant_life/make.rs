//! Making a tenant while the vault runs: its keys, its first rows, its log. It serves at once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strongroom_access::{Action, DEFAULT_POLICIES, Directory};
use strongroom_commit::{Change, Fact, Guard};
use strongroom_ids::{TenantId, TenantNo};
use strongroom_keys::{self as keys, IndexName, Keystore};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{LaneHead, TenantRow};
use strongroom_storage::{Family, Mutation, Store};

use super::{NewDirectory, named, noted_id, rules_of, stored_directory, told};
use crate::blocking::blocking;
use crate::error::Error;
use crate::officers;
use crate::open::{MOST_TENANTS, SYSTEM_NO, first_keys, whose_log};
use crate::own_leaf::Noted;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::vault::Vault;

/// What is damaged, if what is noted of one can't be read.
const PLACE: &str = "the tenant in the making";
/// Officers that a tenant begins with, at most.
const OFFICERS: usize = 64;

/// Makes a tenant.
pub struct CreateTenant {
    /// Its name, as certificates will carry it.
    pub name: String,
    /// Its first officers: name, and SHA-256 of the public key (SPKI) of the certificate. At least one.
    pub officers: Vec<(String, [u8; 32])>,
}

/// A tenant that was made.
#[derive(Clone, Debug)]
pub struct MadeTenant {
    /// Its number.
    pub number: TenantNo,
    /// Its permanent identity.
    pub id: TenantId,
    /// When it was made, in microseconds since 1970.
    pub created: u64,
}

/// A tenant in the making, as it is stored: all that its making takes, so that whoever comes next can finish it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Making {
    /// The request, in hexadecimal.
    request: String,
    principal: String,
    name: String,
    number: u32,
    /// In hexadecimal.
    id: String,
    /// Names, and the hashes of their keys in hexadecimal.
    officers: Vec<(String, String)>,
    /// When it was decided, in microseconds since 1970.
    time: u64,
}

impl Making {
    pub async fn load<S: Store>(vault: &Vault<S>) -> Result<Option<Self>, Error> {
        let system = vault.tenant(SYSTEM_NO)?;
        Source::load(&*vault.store, place::tenant_in_making(), SourceKind::Making, &system.fingerprints).await
    }

    fn id(&self) -> Result<TenantId, Error> {
        noted_id(&self.id, PLACE)
    }

    fn about(&self, failed: Option<&'static str>) -> Noted<'_> {
        let action = Action::CreateTenant.as_str();
        Noted { request: &self.request, principal: &self.principal, action, failed, place: PLACE }
    }

    /// What the log `system` says of it.
    fn detail(&self, stage: &str) -> Vec<(&'static str, String)> {
        told(&self.name, self.number, &self.id, stage)
    }

    /// The directory with it.
    fn enrolled(&self, directory: &Directory) -> Result<Directory, Error> {
        let number = TenantNo(self.number);
        let mut directory = directory.clone();
        directory.tenants.insert(self.name.clone(), number);
        for (name, key) in &self.officers {
            let key = data_encoding::HEXLOWER.decode(key.as_bytes()).ok().and_then(|key| key.try_into().ok());
            directory.officers.insert((number, name.clone()), key.ok_or(Error::DataLoss(PLACE))?);
        }
        directory.check().map_err(|_| Error::invalid("officers", "officer", "no certificate can carry such a name"))?;
        Ok(directory)
    }
}

impl<S: Store> Attempt<S> for CreateTenant {
    type Answer = MadeTenant;
    const ACTION: Action = Action::CreateTenant;
    const ALONE: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_vault()?;
        self.wanted(road.vault, &road.caller.principal.name, road.request, road.now).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<MadeTenant>, Refused> {
        road.decide_vault()?;
        let vault = road.vault;
        if vault.tenants.is_unsure() || Making::load(vault).await?.is_some() {
            // Another one came in between: it is finished before this one is tried again.
            return Err(Error::Conflict.into());
        }
        let making = self.wanted(vault, &road.caller.principal.name, road.request, road.now)?;
        let made = MadeTenant { number: TenantNo(making.number), id: making.id()?, created: making.time };
        let mut prepared = road.prepare(made);
        prepared.guards.push(Guard::Unchanged(Fact::principals()));
        prepared.detail.extend(making.detail("intent"));
        let key = &road.tenant.fingerprints;
        prepared.mutations.push(Source::put(&making, place::tenant_in_making(), SourceKind::Making, key)?);
        Ok(prepared)
    }
}

impl CreateTenant {
    /// What is to be made, if it can be.
    fn wanted<S: Store>(&self, vault: &Vault<S>, by: &str, request: [u8; 16], now: u64) -> Result<Making, Error> {
        let name = named(&self.name)?;
        if !(1..=OFFICERS).contains(&self.officers.len()) {
            let description = format!("a tenant begins with 1 to {OFFICERS} officers");
            return Err(Error::invalid("officers", "officer", description));
        }
        if let Some((at, what)) = officers::repeated(&self.officers) {
            return Err(Error::invalid(format!("officers[{at}]"), "officer", what));
        }
        let directory = vault.tenants.directory();
        if directory.tenants.contains_key(name) || directory.destroyed.contains_key(name) {
            return Err(Error::TenantExists);
        }
        // The vault itself is none.
        let most = vault.limits.tenants;
        if directory.tenants.len().saturating_sub(1) >= most {
            return Err(Error::TenantLimit(most));
        }
        if directory.tenants.len() + directory.destroyed.len() >= MOST_TENANTS {
            return Err(Error::TenantsUsedUp(MOST_TENANTS));
        }
        // What is journalled of one that a restore has lost must not be another one's.
        let last = directory.tenants.values().chain(directory.destroyed.values()).max();
        let last = last.max(Some(&vault.last_tenant));
        let number = last.and_then(|last| last.0.checked_add(1)).ok_or(Error::Internal("too many tenants"))?;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let making = Making {
            request: hex(&request),
            principal: by.to_owned(),
            name: name.to_owned(),
            number,
            id: TenantId(keys::random()?).to_string(),
            officers: self.officers.iter().map(|(name, key)| (name.clone(), hex(key))).collect(),
            time: now,
        };
        making.enrolled(&directory)?;
        Ok(making)
    }
}

impl<S: Store> Vault<S> {
    /// Makes a tenant. It serves when this returns.
    pub async fn create_tenant(&self, caller: &Caller, request: &CreateTenant) -> Result<MadeTenant, Error> {
        let made = match self.travel(caller, request).await {
            // Who may make a tenant may also wait for one that was left open.
            Err(Error::Conflict) => {
                self.finish_tenant_changes().await?;
                self.travel(caller, request).await?
            }
            made => made?,
        };
        let finished = self.finish_tenant_changes().await;
        if finished.is_err() {
            self.tenants.left.notify_one();
        }
        finished?;
        // Somebody else may have had to take it back.
        match self.tenants.get(made.number).is_ok_and(|tenant| tenant.id == made.id) {
            true => Ok(made),
            false => {
                Err(Error::KeyUnavailable("the tenant's keys could not be made; the vault's log says why".to_owned()))
            }
        }
    }

    /// Finishes the making of a tenant that was begun, or takes it back. Called by one at a time.
    pub(super) async fn finish_making(&self) -> Result<(), Error> {
        // Looked for before anybody is kept waiting for it.
        if Making::load(self).await?.is_none() {
            return Ok(());
        }
        // No copy of the keystore is made meanwhile.
        let _turn = self.turn.write().await;
        let system = self.tenant(SYSTEM_NO)?;
        let position = self.committer.position();
        let Some(making) = Making::load(self).await? else { return Ok(()) };
        let (id, number) = (making.id()?, TenantNo(making.number));
        let forget = Mutation::Delete(Family::Meta, place::tenant_in_making());
        if let Err(error) = self.make_keys(id, making.time).await {
            tracing::error!(%error, tenant = making.name, "a tenant's keys could not be made");
            let why = Error::KeyUnavailable("the keystore can't be written; the vault's log says why".to_owned());
            if self.keystore.is_settled() {
                // Keys of a tenant that never was harm nobody.
                let leaves =
                    making.about(Some(why.reason())).leaf(SYSTEM_NO, rules_of(&system), &making.detail("done"))?;
                let (guards, changes) = (vec![], vec![]);
                self.committer
                    .commit(Change { position, guards, changes, mutations: vec![forget], leaves, charge: None })
                    .await?;
            }
            return Err(why);
        }

        let (stored, known) = stored_directory(&*self.store, &system.fingerprints).await?;
        if known.tenants.values().chain(known.destroyed.values()).any(|taken| *taken == number) {
            return Err(Error::Internal("the number of a new tenant is another one's"));
        }
        let directory = making.enrolled(&known)?;
        let enrolled = NewDirectory::after(&stored, &directory, &system.fingerprints)?;
        let fingerprints = self.keystore.index_key(id, IndexName::Fingerprint)?;
        let policy = Source::new(1, DEFAULT_POLICIES.to_owned())?.encode(SourceKind::Policy, &fingerprints);
        let mut detail = making.detail("done");
        detail.extend(enrolled.detail());
        let mut leaves = making.about(None).leaf(SYSTEM_NO, rules_of(&system), &detail)?;
        let row = TenantRow { number, id, name: making.name.clone(), created: making.time };
        leaves.extend(making.first_leaf(self, &row, &directory, &policy)?);
        let mutations = vec![
            forget,
            enrolled.mutation,
            Mutation::Put(Family::Meta, place::policy(number), policy),
            Mutation::Put(Family::Meta, place::tenant(number), row.encode()),
        ];
        let change = Change {
            position,
            guards: vec![Guard::Unchanged(Fact::principals())],
            changes: vec![Fact::principals()],
            mutations,
            leaves,
            charge: None,
        };
        let incarnation = self.committer.head(SYSTEM_NO).map_or(1, |head| head.incarnation);
        let head = LaneHead { incarnation, size: 0, time: 0, frontier: vec![], rules: vec![] };
        self.tenants.doubt();
        self.committer.begin_log(number, head, change).await?;
        self.begin_tenant(number, directory).await?;
        tracing::info!(tenant = making.name, number = making.number, "a tenant was made");
        Ok(())
    }

    async fn make_keys(&self, tenant: TenantId, time: u64) -> Result<(), Error> {
        let keystore: Arc<Keystore> = Arc::clone(&self.keystore);
        blocking(move || keystore.ensure(&first_keys(tenant), time)).await??;
        Ok(())
    }
}

impl Making {
    /// The first leaf of its own log: who made it, who its officers are, and the rows that it begins with.
    fn first_leaf<S: Store>(
        &self,
        vault: &Vault<S>,
        row: &TenantRow,
        directory: &Directory,
        policy: &[u8],
    ) -> Result<Vec<(TenantNo, strongroom_ledger::leaf::PreparedLeaf)>, Error> {
        let mut detail = whose_log(vault.id, row, directory, policy);
        detail.extend(self.officers.iter().map(|(name, key)| (format!("officer/{name}"), key.clone())));
        let detail: Vec<(&str, String)> = detail.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        self.about(None).leaf(TenantNo(self.number), (1, 0, &[]), &detail)
    }
}
