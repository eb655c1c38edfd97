//! Destroying a tenant: it is gone at once, then its keys are destroyed, then its rows are cleared. Its log stays.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strongroom_access::{Action, Directory};
use strongroom_commit::{Change, Fact, Guard};
use strongroom_ids::{TenantId, TenantNo};
use strongroom_keys::{IndexKey, KeyState, Keystore};
use strongroom_ledger::checkpoint;
use strongroom_storage::keys as place;
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Mutation, Range, Store, StoreError};

use super::{NewDirectory, TenantState, lives_on, named, noted_id, rules_of, stored_directory, told};
use crate::blocking::blocking;
use crate::error::Error;
use crate::key_copies::Copies;
use crate::key_life;
use crate::log_keys;
use crate::open::{LANE, MOST_TENANTS, SYSTEM_NO};
use crate::own_leaf::{Noted, Rules};
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::Tenant;
use crate::vault::Vault;

/// What is damaged, if an end can't be read.
const PLACE: &str = "the end of a tenant";
/// When to ask again what would be lost, while somebody else does.
const COUNT_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Destroys a tenant with all its keys.
pub struct DestroyTenant {
    /// Its name.
    pub name: String,
    /// Change nothing, only say what would become unreadable.
    pub dry_run: bool,
}

/// What becomes unreadable, or has become so.
pub struct DestroyedTenant {
    /// Its number.
    pub number: TenantNo,
    /// Values that were stored.
    pub values: u64,
    /// Data subjects that were known.
    pub subjects: u64,
    /// Versions of its keys.
    pub key_versions: u64,
    /// Listed copies of the keystore that hold some of them.
    pub copies: Vec<String>,
    /// The receipt, a signed note; empty if nothing was destroyed.
    pub receipt: String,
}

/// The end of a tenant, as it is stored: how far it has come, and what is known of it afterwards.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// The request, in hexadecimal.
    pub(super) request: String,
    principal: String,
    pub(super) name: String,
    pub(super) number: u32,
    /// In hexadecimal.
    id: String,
    /// When it was decided, in microseconds since 1970.
    time: u64,
    /// Leaves of the log `system` at that time: what is said of it comes after them.
    pub(super) from: u64,
    /// The public key of its log, in hexadecimal: the other half is destroyed.
    public: String,
    /// Those that signed it before, the newest first, but for those that were compromised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    older_publics: Vec<String>,
    /// The last checkpoint of its log, signed by its own keys.
    checkpoint: Option<String>,
    /// What was destroyed, once it is.
    pub(super) done: Option<Done>,
    /// What was signed then.
    pub receipt: Option<String>,
    /// Whether nothing is left of it but its log.
    cleared: bool,
}

/// What was destroyed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// When, in microseconds since 1970.
    time: u64,
    /// Keys by name, and how many versions each had.
    pub keys: Vec<(String, u32)>,
    /// Listed copies of the keystore that held some of them then.
    pub copies: Vec<String>,
}

/// The public keys of the log of a tenant that was destroyed, as its end names them, the newest first.
pub(crate) fn public_keys(row: &[u8], system: &IndexKey) -> Vec<[u8; 32]> {
    End::decode(row, system).and_then(|end| end.publics()).unwrap_or_default()
}

impl End {
    /// A stored one. `system` is the fingerprint key of the vault's own tenant.
    fn decode(row: &[u8], system: &IndexKey) -> Result<Self, Error> {
        let source = Source::decode(row, SourceKind::End, system)?;
        serde_json::from_str(&source.body).map_err(|_| Error::DataLoss(PLACE))
    }

    /// The end of a tenant that an older copy of the data still has: it was decided after that. `from` is the size of the log
    /// `system` before what is said of it now. Where the keys are gone already nothing is left to prove its log with, and the
    /// receipt was given then.
    pub fn again(
        row: &TenantRow,
        (request, principal): (&[u8; 16], &str),
        (decided, now, from): (u64, u64, u64),
        keystore: &Keystore,
    ) -> Self {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let public = keystore.ledger_key(row.id).map(|key| key.public_key()).ok();
        let gone = public.is_none();
        Self {
            request: hex(request),
            principal: principal.to_owned(),
            name: row.name.clone(),
            number: row.number.0,
            id: row.id.to_string(),
            time: decided,
            from,
            public: hex(&public.unwrap_or_default()),
            older_publics: vec![],
            checkpoint: None,
            done: gone.then(|| Done { time: now, keys: vec![], copies: vec![] }),
            receipt: gone.then(String::new),
            cleared: false,
        }
    }

    /// The row that keeps it. `system` is the fingerprint key of the vault's own tenant.
    pub fn put(&self, system: &IndexKey) -> Result<Mutation, Error> {
        Source::put(self, place::tenant_end(TenantNo(self.number)), SourceKind::End, system)
    }

    pub async fn load<S: Store>(vault: &Vault<S>, number: TenantNo) -> Result<Option<Self>, Error> {
        let system = vault.tenant(SYSTEM_NO)?;
        let at = place::tenant_end(number);
        let end: Option<Self> = Source::load(&*vault.store, at, SourceKind::End, &system.fingerprints).await?;
        match end.as_ref().is_none_or(|end| end.number == number.0) {
            true => Ok(end),
            false => Err(Error::DataLoss(PLACE)),
        }
    }

    pub fn state(&self) -> TenantState {
        match &self.done {
            None => TenantState::Ending,
            Some(_) if self.cleared => TenantState::Cleared,
            Some(_) => TenantState::Destroyed,
        }
    }

    /// When its keys were destroyed, in microseconds since 1970.
    pub fn destroyed(&self) -> Option<u64> {
        self.done.as_ref().map(|done| done.time)
    }

    pub(super) fn id(&self) -> Result<TenantId, Error> {
        noted_id(&self.id, PLACE)
    }

    fn publics(&self) -> Result<Vec<[u8; 32]>, Error> {
        let publics = std::iter::once(&self.public).chain(&self.older_publics);
        publics.map(|hex| log_keys::read(hex).ok_or(Error::DataLoss(PLACE))).collect()
    }

    fn about(&self) -> Noted<'_> {
        let action = Action::DestroyTenant.as_str();
        Noted { request: &self.request, principal: &self.principal, action, failed: None, place: PLACE }
    }

    /// What the log `system` says of it.
    fn detail(&self, stage: &str) -> Vec<(&'static str, String)> {
        told(&self.name, self.number, &self.id, stage)
    }
}

/// The number of the tenant that is meant, if it can be destroyed.
fn meant<S: Store>(vault: &Vault<S>, name: &str) -> Result<TenantNo, Error> {
    let name = named(name)?;
    let directory = vault.tenants.directory();
    if directory.destroyed.contains_key(name) {
        return Err(Error::TenantDestroyed);
    }
    directory.tenants.get(name).copied().ok_or(Error::TenantNotFound)
}

/// A tenant that is to be destroyed.
struct Meant {
    row: TenantRow,
    /// `None` if it is locked: its keys are destroyed all the same.
    tenant: Option<Arc<Tenant>>,
}

impl Meant {
    async fn load<S: Store>(vault: &Vault<S>, name: &str) -> Result<Self, Error> {
        let number = meant(vault, name)?;
        let tenant = match vault.tenants.get(number) {
            Err(Error::TenantLocked) => None,
            tenant => Some(tenant?),
        };
        let row = vault.store.get(Family::Meta, place::tenant(number)).await?;
        Ok(Self { row: TenantRow::decode(&row.ok_or(Error::DataLoss("a tenant's row"))?)?, tenant })
    }

    /// The versions of its rules.
    fn rules<S: Store>(&self, vault: &Vault<S>) -> Rules<'static> {
        let lane = || vault.committer.head(self.row.number).map(|head| head.rules).unwrap_or_default();
        match &self.tenant {
            Some(tenant) => rules_of(tenant),
            None => (lane().policy.version, lane().schema.version, &[]),
        }
    }
}

/// Asks whether a tenant may be destroyed at all, before anything is counted for it.
struct MayDestroy<'r>(&'r DestroyTenant);

impl<S: Store> Attempt<S> for MayDestroy<'_> {
    type Answer = (TenantNo, TenantId);
    const ACTION: Action = Action::DestroyTenant;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_vault()?;
        let TenantRow { number, id, name, .. } = Meant::load(road.vault, &self.0.name).await?.row;
        let detail = [
            ("tenant", name),
            ("number", number.to_string()),
            ("stage", if self.0.dry_run { "dry_run" } else { "asked" }.to_owned()),
        ];
        let mut prepared = road.prepare((number, id));
        prepared.detail.extend(detail);
        Ok(prepared)
    }
}

/// Ends a tenant.
struct Ending<'r> {
    request: &'r DestroyTenant,
    loss: &'r DestroyedTenant,
}

impl<S: Store> Attempt<S> for Ending<'_> {
    type Answer = (TenantNo, Directory);
    const ACTION: Action = Action::DestroyTenant;
    const ALONE: bool = true;
    /// It frees space.
    const ON_FULL_DISK: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_vault()?;
        meant(road.vault, &self.request.name).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_vault()?;
        let vault = road.vault;
        if vault.tenants.is_unsure() || vault.has_open_tenant_change().await? {
            return Err(Error::Conflict.into());
        }
        let meant = Meant::load(vault, &self.request.name).await?;
        if let Some(tenant) = &meant.tenant
            && key_life::is_open(&*vault.store, tenant).await?
        {
            // It is finished before this is tried again: what is decided of a key comes before its tenant's end.
            return Err(Error::Conflict.into());
        }
        let rules = meant.rules(vault);
        let Meant { row: TenantRow { number, id, name, .. }, tenant } = meant;
        let (stored, mut directory) = stored_directory(&*vault.store, &road.tenant.fingerprints).await?;
        directory.tenants.remove(&name);
        directory.officers.retain(|(of, _), _| *of != number);
        directory.destroyed.insert(name.clone(), number);
        let known = NewDirectory::after(&stored, &directory, &road.tenant.fingerprints)?;
        let public = vault.keystore.ledger_key(id)?.public_key();
        let older_publics = match &tenant {
            Some(tenant) => vault.log_keys(tenant).await?,
            // Its own notes are locked with it: what is destroyed already stands in the leaves only.
            None => log_keys::sound(&log_keys::noted(vec![], &vault.keystore, id)),
        };
        let hex = |key: &[u8; 32]| data_encoding::HEXLOWER.encode(key);
        let end = End {
            request: data_encoding::HEXLOWER.encode(&road.request),
            principal: road.caller.principal.name.to_string(),
            name,
            number: number.0,
            id: id.to_string(),
            time: road.now,
            from: vault.committer.head(SYSTEM_NO).map_or(0, |head| head.size),
            public: hex(&public),
            older_publics: older_publics.iter().filter(|key| **key != public).map(hex).collect(),
            checkpoint: None,
            done: None,
            receipt: None,
            cleared: false,
        };
        let mut prepared = road.prepare((number, directory));
        prepared.guards.push(Guard::Unchanged(Fact::principals()));
        // All that anybody's request of this tenant may stand on.
        prepared.changes.extend([
            Fact::principals(),
            Fact::policy(number),
            Fact::schema(number),
            Fact::key_states(number),
        ]);
        let recorded = known.detail();
        prepared.mutations.push(known.mutation);
        let at = place::tenant_end(number);
        prepared.mutations.push(Source::put(&end, at, SourceKind::End, &road.tenant.fingerprints)?);
        prepared.detail.extend(end.detail("intent"));
        prepared.detail.extend(recorded);
        prepared.detail.push(("values", self.loss.values.to_string()));
        prepared.detail.push(("subjects", self.loss.subjects.to_string()));
        prepared.detail.push(("key_versions", self.loss.key_versions.to_string()));
        let last = [("tenant", end.name.clone()), ("tenant_id", end.id.clone())];
        prepared.elsewhere = end.about().leaf(number, rules, &last)?;
        // Should nobody know what becomes of this, nobody relies on the tenant's being there.
        if let Some(tenant) = tenant {
            tenant.forget_rules();
        }
        vault.tenants.doubt();
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, _tenant: &Tenant, (number, directory): &Self::Answer) {
        vault.tenants.end(*number, directory.clone());
        vault.deks.clear();
    }
}

impl<S: Store> Vault<S> {
    /// Destroys a tenant, or says what would become unreadable. When this returns its keys are destroyed; its rows are
    /// cleared by a job.
    pub async fn destroy_tenant(&self, caller: &Caller, request: &DestroyTenant) -> Result<DestroyedTenant, Error> {
        let (number, id) = self.travel(caller, &MayDestroy(request)).await?;
        let mut loss = {
            // All that it stores is looked through: one at a time.
            let _counting = self.counting.try_lock().map_err(|_| Error::Overloaded { retry_after: COUNT_AGAIN })?;
            self.loss_of(number, id).await?
        };
        if request.dry_run {
            return Ok(loss);
        }
        let ending = Ending { request, loss: &loss };
        let ended = match self.travel(caller, &ending).await {
            // Who may destroy a tenant may also wait for what was left open.
            Err(Error::Conflict) => {
                self.finish_tenant_changes().await?;
                match self.finish_key_change(loss.number).await {
                    // What is open of a locked tenant goes with it.
                    Err(Error::TenantLocked) => {}
                    finished => finished?,
                }
                self.travel(caller, &ending).await
            }
            ended => ended,
        };
        let finished = match ended {
            Ok(_) => self.finish_tenant_changes().await,
            Err(error) => Err(error),
        };
        // Whatever is left, the jobs finish.
        self.tenants.left.notify_one();
        finished?;
        let end = End::load(self, loss.number).await?.ok_or(Error::Internal("a tenant's end is gone"))?;
        loss.copies = end.done.map(|done| done.copies).unwrap_or_default();
        loss.receipt = end.receipt.unwrap_or_default();
        Ok(loss)
    }

    /// What becomes unreadable with a tenant.
    async fn loss_of(&self, number: TenantNo, id: TenantId) -> Result<DestroyedTenant, Error> {
        let values = self.count(Family::Rows, number, |_| Ok::<_, StoreError>(1)).await?;
        let subjects = self.count(Family::Subjects, number, |_| Ok::<_, StoreError>(1)).await?;
        let mut keys = self.keystore.keys(id);
        keys.retain(|key| key.state != KeyState::Destroyed);
        let (copies, _) = lives_on(&Copies::load(self).await?, &keys);
        let key_versions = keys.len() as u64;
        Ok(DestroyedTenant { number, values, subjects, key_versions, copies, receipt: String::new() })
    }

    /// The ends that tenants have come to.
    async fn ends(&self) -> Result<Vec<End>, Error> {
        let system = self.tenant(SYSTEM_NO)?;
        let (from, to) = place::tenant_ends_range();
        let rows = self.store.scan(Family::Meta, Range { from, to, limit: MOST_TENANTS }).await?;
        rows.iter().map(|(_, row)| End::decode(row, &system.fingerprints)).collect()
    }

    /// Tenants that were ended and whose receipt is not signed yet.
    pub(super) async fn open_ends(&self) -> Result<Vec<TenantNo>, Error> {
        let ends = self.ends().await?.into_iter();
        Ok(ends.filter(|end| end.receipt.is_none()).map(|end| TenantNo(end.number)).collect())
    }

    /// Destroyed tenants whose rows are to be cleared.
    pub async fn tenants_to_clear(&self) -> Result<Vec<TenantNo>, Error> {
        let ends = self.ends().await?.into_iter();
        Ok(ends.filter(|end| end.receipt.is_some() && !end.cleared).map(|end| TenantNo(end.number)).collect())
    }

    /// Destroys the keys of a tenant that was ended, up to the receipt. Called by one at a time.
    pub(super) async fn finish_end(&self, number: TenantNo) -> Result<(), Error> {
        // A change of the vault's own keys that is open would be lost in what is noted below.
        self.finish_key_change(SYSTEM_NO).await?;
        // Nobody uses a key while it changes, and no copy of the keystore is made meanwhile.
        let turn = self.turn.write().await;
        if key_life::is_open(&*self.store, &*self.tenant(SYSTEM_NO)?).await? {
            // One that was begun meanwhile.
            return Err(Error::Conflict);
        }
        let Some(mut end) = End::load(self, number).await? else { return Ok(()) };
        let (id, at) = (end.id()?, || place::tenant_end(number));
        if end.checkpoint.is_none() && end.done.is_none() {
            // Before its key goes: with this its log proves itself for ever.
            end.checkpoint = Some(self.last_checkpoint(&end)?);
            self.note(&end, at(), SourceKind::End).await?;
        }
        if end.done.is_none() {
            let (keystore, time): (Arc<Keystore>, u64) = (Arc::clone(&self.keystore), end.time);
            blocking(move || keystore.destroy_tenant(id, time)).await?.map_err(|error| {
                tracing::error!(%error, tenant = end.name, "a tenant's keys could not be destroyed yet");
                Error::KeyUnavailable("the keystore can't be written; the vault's log says why".to_owned())
            })?;
            self.commit_destroyed(&mut end).await?;
        }
        drop(turn);
        if end.receipt.is_none() {
            end.receipt = Some(self.sign_receipt(&end).await?);
            self.note(&end, at(), SourceKind::End).await?;
        }
        Ok(())
    }

    /// Commits that a tenant's keys are destroyed.
    async fn commit_destroyed(&self, end: &mut End) -> Result<(), Error> {
        let system = self.tenant(SYSTEM_NO)?;
        let position = self.committer.position();
        let versions = self.keystore.keys(end.id()?);
        let mut keys: Vec<(String, u32)> = Vec::new();
        for version in &versions {
            match keys.last_mut() {
                Some((name, count)) if *name == version.name.to_string() => *count += 1,
                _ => keys.push((version.name.to_string(), 1)),
            }
        }
        let (copies, _) = lives_on(&Copies::load(self).await?, &versions);
        let mut detail = end.detail("done");
        detail.push(("key_versions", versions.len().to_string()));
        detail.push(("copies", copies.len().to_string()));
        detail.push(("keystore", self.keystore.number().to_string()));
        end.done = Some(Done { time: self.now(), keys, copies });
        let mutations = vec![
            Source::put(end, place::tenant_end(TenantNo(end.number)), SourceKind::End, &system.fingerprints)?,
            // An older keystore would bring the keys back.
            key_life::note_keystore(self, &system).await?,
        ];
        let leaves = end.about().leaf(SYSTEM_NO, rules_of(&system), &detail)?;
        let changes = vec![Fact::key_states(SYSTEM_NO)];
        self.committer.commit(Change { position, guards: vec![], changes, mutations, leaves, charge: None }).await?;
        tracing::warn!(tenant = end.name, number = end.number, "a tenant was destroyed");
        Ok(())
    }

    /// The last checkpoint of a tenant's log, by its own keys.
    fn last_checkpoint(&self, end: &End) -> Result<String, Error> {
        let head = self.committer.head(TenantNo(end.number)).ok_or(Error::Internal("a tenant without a log"))?;
        let id = end.id()?;
        let origin = checkpoint::origin(self.id, id, LANE, head.incarnation);
        Ok(self.sign_head(id, (&origin, head.size, &head.root), &[])?.note)
    }

    /// The last checkpoint of the log of a destroyed tenant, and its verifier keys.
    pub(crate) fn kept_checkpoint(&self, end: &End) -> Result<crate::Checkpoint, Error> {
        let head = self.committer.head(TenantNo(end.number)).ok_or(Error::Internal("a tenant without a log"))?;
        let origin = checkpoint::origin(self.id, end.id()?, LANE, head.incarnation);
        // It is signed before anything else becomes of it; of one that was destroyed before an older copy of the data came back
        // nothing can be signed any more.
        let note = end.checkpoint.clone().ok_or(match end.done {
            Some(_) => Error::TenantDestroyed,
            None => Error::Conflict,
        })?;
        let keys = end.publics()?.iter().map(|key| checkpoint::vkey(&origin, key)).collect();
        Ok(crate::Checkpoint { note, keys })
    }

    /// Clears the rows that a destroyed tenant has in a family out of the store and its files, all but its log. Done again it
    /// does no harm.
    pub async fn clear_rows(&self, number: TenantNo, family: Family) -> Result<(), Error> {
        if End::load(self, number).await?.is_none_or(|end| end.done.is_none()) {
            return Err(Error::Internal("rows are cleared of a tenant that was not destroyed"));
        }
        let own = number.0.to_be_bytes().to_vec();
        let (from, to) = match family {
            Family::Leaves | Family::Tiles | Family::LeafIndex | Family::Archived => return Ok(()),
            Family::Meta => place::all_but_lanes_range(number),
            _ => (own.clone(), place::prefix_end(&own)),
        };
        Ok(self.store.purge(family, from, to).await?)
    }

    /// Records that all rows of a destroyed tenant are cleared.
    pub async fn record_cleared(&self, number: TenantNo) -> Result<(), Error> {
        let _changing = self.tenants.changing.lock().await;
        let system = self.tenant(SYSTEM_NO)?;
        let position = self.committer.position();
        let Some(end) = End::load(self, number).await?.filter(|end| end.done.is_some() && !end.cleared) else {
            return Ok(());
        };
        let end = End { cleared: true, ..end };
        let mutations = vec![Source::put(&end, place::tenant_end(number), SourceKind::End, &system.fingerprints)?];
        let leaves = end.about().leaf(SYSTEM_NO, rules_of(&system), &end.detail("cleared"))?;
        self.committer
            .commit(Change { position, guards: vec![], changes: vec![], mutations, leaves, charge: None })
            .await?;
        Ok(())
    }
}
