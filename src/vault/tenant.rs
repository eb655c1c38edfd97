//! One tenant while the vault runs: its rules in force, the keys that every request needs, its numbers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use strongroom_access::{Access, Policies};
use strongroom_commit::{AllocateError, Allocator, Numbers};
use strongroom_ids::{KeyVersion, KeyringNo, TenantId, TenantNo};
use strongroom_keys::{IndexKey, IndexName, KEK_SEAL_LIMIT, KeyError, KeyName, Keystore, TokenKey};
use strongroom_schema::Schema;
use strongroom_storage::keys::{self as place, Counter};
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Store};

use crate::error::Error;
use crate::freezes::Standing;
use crate::open::{SYSTEM, SYSTEM_NO};
use crate::source::{self, Source, SourceKind};
use crate::tenant_life::stored_directory;
use crate::tiers::TiersInForce;
use crate::vault::Vault;

/// Row ids, and subject handles, that are reserved at once.
const BLOCK: u64 = 65_536;
/// Seals of a KEK that are reserved at once. A restart skips to the next block, so 2^32 seals last for 65,536 starts
/// at the least.
const SEALS: u64 = 65_536;

/// A tenant of a running vault.
pub(crate) struct Tenant {
    pub number: TenantNo,
    pub id: TenantId,
    pub name: String,
    pub access: Access,
    pub fingerprints: Arc<IndexKey>,
    rules: ArcSwap<Rules>,
    /// Whether the rules in memory may not be the ones on disk.
    stale: AtomicBool,
    /// Whether it was destroyed: whoever still holds it does nothing more with it.
    ended: AtomicBool,
    /// Whether its own key went away: the same.
    locked: AtomicBool,
    rows: Allocator,
    subjects: Allocator,
    seals: Mutex<HashMap<(KeyringNo, KeyVersion), Arc<Allocator>>>,
    /// How many leaves its log had when it was taken into memory.
    pub leaves_at_start: u64,
}

/// The rules in force, replaced as a whole.
#[derive(Clone)]
pub(crate) struct Rules {
    pub schema: Arc<Schema>,
    pub policy: Source,
    pub keys: KeysInUse,
    /// What is frozen, and who is suspended.
    pub freezes: Arc<Standing>,
    /// Who is in which tier, and what that allows.
    pub tiers: Arc<TiersInForce>,
}

/// The keys that a writing request uses now.
#[derive(Clone)]
pub(crate) struct KeysInUse {
    /// The key of new tokens.
    pub token: Arc<TokenKey>,
    /// The token key's version and that of each keyring's KEK, as leaves name them.
    pub versions: Vec<(String, u32)>,
}

impl KeysInUse {
    /// The newest versions in a keystore. A KEK that is disabled is named all the same: its keyring takes nothing new.
    pub fn of(tenant: TenantId, schema: &Schema, keystore: &Keystore) -> Result<Self, Error> {
        let token = keystore.token_key(tenant)?;
        let mut versions = vec![("token".to_owned(), token.version().0)];
        for keyring in std::iter::once(KeyringNo(0)).chain(schema.keyrings()) {
            let name = KeyName::Kek(tenant, keyring);
            let newest = keystore.newest_version(name).ok_or(KeyError::Missing { name })?;
            versions.push((name.to_string(), newest.0));
        }
        Ok(Self { token, versions })
    }
}

impl Tenant {
    /// A tenant as the store holds it.
    pub async fn load<S: Store>(
        row: TenantRow,
        (incarnation, leaves): (u16, u64),
        store: &S,
        keystore: &Keystore,
    ) -> Result<Self, Error> {
        let (rules, policies) = load_rules(row.number, row.id, store, keystore).await?;
        let ids = |counter| Allocator::new(place::counter(row.number, counter), Some(incarnation), BLOCK, u64::MAX);
        Ok(Self {
            number: row.number,
            id: row.id,
            name: row.name,
            access: Access::new(policies, rules.policy.version),
            fingerprints: keystore.index_key(row.id, IndexName::Fingerprint)?,
            rules: ArcSwap::from_pointee(rules),
            stale: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            rows: ids(Counter::RowIds),
            subjects: ids(Counter::SubjectHandles),
            seals: Mutex::new(HashMap::new()),
            leaves_at_start: leaves,
        })
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// The number of the policy in force.
    pub fn policy_version(&self) -> u32 {
        self.access.version()
    }

    /// Puts another schema in force. Only while no request runs.
    pub fn install_schema(&self, schema: Arc<Schema>, keys: KeysInUse) {
        self.replace_rules(|rules| Rules { schema, keys, ..rules });
    }

    /// Puts another policy in force. Only while no request runs.
    pub fn install_policy(&self, policies: Arc<Policies>, policy: Source) {
        self.access.install(policies, policy.version);
        self.replace_rules(|rules| Rules { policy, ..rules });
    }

    /// Puts other freezes and suspensions in force. Only while no request runs.
    pub fn install_freezes(&self, freezes: Arc<Standing>) {
        self.replace_rules(|rules| Rules { freezes, ..rules });
    }

    /// Puts other tiers in force. Only while no request runs.
    pub fn install_tiers(&self, tiers: Arc<TiersInForce>) {
        self.replace_rules(|rules| Rules { tiers, ..rules });
    }

    /// Uses other keys for what is new. Only while no request runs.
    pub fn install_keys(&self, keys: KeysInUse) {
        self.replace_rules(|rules| Rules { keys, ..rules });
    }

    fn replace_rules(&self, next: impl FnOnce(Rules) -> Rules) {
        self.rules.store(Arc::new(next(Rules::clone(&self.rules()))));
    }

    /// It was destroyed. Only while no request runs.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Its own key is away. Only while no request runs.
    pub fn lock(&self) {
        self.locked.store(true, Ordering::Release);
    }

    /// Sees that it was neither destroyed nor locked since it was found.
    pub fn is_there(&self) -> Result<(), Error> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::TenantDestroyed);
        }
        match self.locked.load(Ordering::Acquire) {
            true => Err(Error::TenantLocked),
            false => Ok(()),
        }
    }

    /// Makes the next request read the rules again: nobody knows whether new ones are on disk.
    pub fn forget_rules(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Reads the rules again if they may have changed on disk.
    pub async fn refresh<S: Store>(&self, vault: &Vault<S>) -> Result<(), Error> {
        self.is_there()?;
        if !self.stale.load(Ordering::Acquire) {
            return Ok(());
        }
        vault.serving()?;
        if vault.store.get(Family::Meta, place::tenant_end(self.number)).await?.is_some() {
            self.end();
            return Err(Error::TenantDestroyed);
        }
        // What the log has in force, and nothing that somebody put back while the store was closed.
        see_in_force(vault, self.number, &self.name).await?;
        let (rules, policies) = load_rules(self.number, self.id, &*vault.store, &vault.keystore).await?;
        let (_, directory) = stored_directory(&*vault.store, &vault.tenant(SYSTEM_NO)?.fingerprints).await?;
        vault.serving()?;
        let known = vault.directory();
        // A tenant that came or went is taken into memory elsewhere.
        if (&directory.tenants, &directory.destroyed) == (&known.tenants, &known.destroyed) && directory != *known {
            vault.tenants.enrol(directory);
        }
        self.access.install(policies, rules.policy.version);
        self.rules.store(Arc::new(rules));
        self.stale.store(false, Ordering::Release);
        Ok(())
    }

    /// Row ids that nobody had and nobody will have.
    pub async fn row_ids<S: Store>(&self, vault: &Vault<S>, count: usize) -> Result<Numbers, Error> {
        Ok(self.rows.take(&vault.committer, &*vault.store, count).await?)
    }

    /// Subject handles that nobody had and nobody will have.
    pub async fn subject_handles<S: Store>(&self, vault: &Vault<S>, count: usize) -> Result<Numbers, Error> {
        Ok(self.subjects.take(&vault.committer, &*vault.store, count).await?)
    }

    /// Counts what a keyring's KEK is about to seal, durably and ahead.
    pub async fn allow_seals<S: Store>(&self, vault: &Vault<S>, keyring: KeyringNo, count: usize) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        let version = vault.keystore.kek(self.id, keyring)?.version();
        let budget = {
            let mut seals = self.seals.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let key = place::counter(self.number, Counter::Seals(keyring, version));
                Arc::new(Allocator::new(key, None, SEALS, KEK_SEAL_LIMIT))
            };
            Arc::clone(seals.entry((keyring, version)).or_insert_with(new))
        };
        match budget.take(&vault.committer, &*vault.store, count).await {
            Ok(_) => Ok(()),
            Err(AllocateError::Exhausted { .. }) => Err(Error::KeyExhausted { keyring: keyring.0 }),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sees that the rules in the store are what the logs of a vault that runs have in force: those of a tenant, and those
/// of the vault itself, which freeze it too.
pub(crate) async fn see_in_force<S: Store>(vault: &Vault<S>, number: TenantNo, name: &str) -> Result<(), Error> {
    let own = (number, name);
    for of in std::iter::once(own).chain((number != SYSTEM_NO).then_some((SYSTEM_NO, SYSTEM))) {
        let lane = vault.committer.head(of.0).ok_or(Error::Internal("a tenant without a log"))?;
        let proven = source::in_force(&*vault.store, of, &lane.rules).await;
        proven.map_err(|_| Error::DataLoss("the rules in force"))?;
    }
    Ok(())
}

async fn load_rules<S: Store>(
    number: TenantNo,
    id: TenantId,
    store: &S,
    keystore: &Keystore,
) -> Result<(Rules, Arc<Policies>), Error> {
    let fingerprints = keystore.index_key(id, IndexName::Fingerprint)?;
    let schema = match store.get(Family::Meta, place::schema(number)).await? {
        Some(bytes) => {
            let stored = Source::decode(&bytes, SourceKind::Schema, &fingerprints)?;
            Schema::from_stored(stored.body.as_bytes()).map_err(|_| Error::DataLoss("a schema"))?
        }
        None => Schema::empty(),
    };
    // Every key that the schema stands on: one that is missing means a keystore older than the data.
    for field in schema.fields().filter(|field| field.lookup || field.deterministic.is_some()) {
        keystore.index_key(id, IndexName::Field(field.number))?;
    }
    let keys = KeysInUse::of(id, &schema, keystore)?;
    let bytes =
        store.get(Family::Meta, place::policy(number)).await?.ok_or(Error::DataLoss("a tenant without policy"))?;
    let policy = Source::decode(&bytes, SourceKind::Policy, &fingerprints)?;
    let policies = Policies::shared(&policy.body).map_err(|_| Error::DataLoss("a policy"))?;
    let freezes = Arc::new(Standing::load(number, id, store, keystore).await?);
    let tiers = Arc::new(TiersInForce::load(number, store, &fingerprints).await?);
    Ok((Rules { schema: Arc::new(schema), policy, keys, freezes, tiers }, policies))
}
