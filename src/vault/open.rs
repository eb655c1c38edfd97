//! Making a vault, and opening one: what must fit together before the first request is taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use strongroom_access::{DEFAULT_POLICIES, Directory, DirectoryError};
use strongroom_commit::{
    Change, CommitError, Committer, HeadError, HeadFile, HeadKey, Journal, JournalError, JournalPlace, Meters, Start,
    StartError,
};
use strongroom_ids::{KeyringNo, TenantId, TenantNo, VaultId};
use strongroom_keys::{self as keys, DekCache, IndexName, KeyError, KeyName, Keystore};
use strongroom_ledger::leaf::{self, LeafHeader};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{LaneHead, TenantRow, VaultRow};
use strongroom_storage::{Family, Mutation, Range, Store, StoreError};
use thiserror::Error;
use tokio::sync::{Mutex, Notify, RwLock, watch};

use crate::clock_watch::{ClockWatch, MachineTime};
use crate::error::Error;
use crate::expire::Retention;
use crate::jobs::Jobs;
use crate::key_life;
use crate::limits::Limits;
use crate::lock;
use crate::officers::repeated;
use crate::own_action::OwnAction;
use crate::refusals::Refusals;
use crate::restore;
use crate::source::{self, Source, SourceKind};
use crate::tenant::Tenant;
use crate::tenants::Tenants;
use crate::tiles::Tiling;
use crate::values::row_hash;
use crate::vault::{Clock, Space, Vault};

/// The only lane of an embedded vault's logs.
pub const LANE: u16 = 0;
/// The name of the tenant and the log that concern the vault itself.
pub const SYSTEM: &str = "system";

pub(crate) const SYSTEM_NO: TenantNo = TenantNo(0);
pub(crate) const FORMAT: u16 = 1;
/// Tenants that a vault ever has, those that were destroyed too: their names and numbers stay taken.
pub(crate) const MOST_TENANTS: usize = 10_000;
/// Changes that may wait for the committer.
const QUEUE: usize = 4_096;
/// Facts that the committer remembers.
const FACTS: usize = 1 << 20;

/// Why a vault can't be made or opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store holds no vault.
    #[error(
        "the data folder holds no finished vault: remove it and make one with `strongroom init`, or restore a backup"
    )]
    NoVault,
    /// The store was written by a newer version.
    #[error(
        "the data folder has format {0}, which this version does not know: use the version that wrote it, or a newer one"
    )]
    UnknownFormat(u16),
    /// Store and keystore belong to two vaults.
    #[error(
        "the data folder belongs to vault {data} and the keystore to vault {keystore}: put the two together that belong together"
    )]
    TwoVaults {
        /// The store's vault.
        data: VaultId,
        /// The keystore's vault.
        keystore: VaultId,
    },
    /// The keystore lacks keys that the data needs.
    #[error(
        "the keystore does not hold the keys that the data needs ({0}): it is older than the data; put the newest copy back"
    )]
    KeystoreBehind(Error),
    /// The keystore is a copy that was made before keys changed.
    #[error(
        "the keystore is older than the last change of keys of tenant `{tenant}`: keys that were destroyed since would come \
         back; put the newest copy back"
    )]
    KeystoreOld {
        /// Whose keys changed.
        tenant: String,
    },
    /// The store is behind its head file, or another.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The journal can't be used, or knows of more than the store has.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A leaf that restricts, and is not journalled yet, says what does not hold.
    #[error(
        "leaf {index} of the log of tenant {tenant} is not journalled, and what it says ({action}) does not hold in the rest of the \
         data: somebody wrote to the data folder, or head file and journal are older copies; bring back the newest of all three"
    )]
    Unconfirmed {
        /// Whose log.
        tenant: TenantNo,
        /// Which leaf.
        index: u64,
        /// What it says was done.
        action: String,
    },
    /// The committer could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keystore refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The first commit failed.
    #[error("the vault could not be written: {0}")]
    Commit(#[from] CommitError),
    /// The trust domain, a tenant or an officer has a name that no certificate could carry.
    #[error(transparent)]
    Names(#[from] DirectoryError),
    /// The rules in the store are not those that the log has in force.
    #[error(
        "the rules in force of tenant `{tenant}` are not those that its log records: its {what} is {stored}, and the log \
         has version {recorded} in force; the data folder was put back in part, or changed: bring back its newest copy \
         as a whole"
    )]
    Rules {
        /// Whose.
        tenant: String,
        /// `policy`, `schema`, `list of freezes` or `list of officers and authorities`.
        what: &'static str,
        /// What stands in the store, in words.
        stored: String,
        /// What should.
        recorded: u32,
    },
    /// Stored rules or rows can't be used.
    #[error("{0}")]
    Vault(#[from] Error),
    /// The authorities of callers are not those that were enrolled.
    #[error(
        "the configured authorities of client certificates are not those that were enrolled: {0}; put the enrolled ones \
         back, or have those who hold the root key enrol another one, while the vault is stopped: `strongroom break-glass \
         anchor add FILE`"
    )]
    TrustAnchors(String),
    /// The tenants' rows and the directory of principals do not fit together.
    #[error(
        "tenant `{tenant}` {what}: the data folder was put back in part, or changed; bring back its newest copy as a whole"
    )]
    Tenants {
        /// Whose.
        tenant: String,
        /// What does not fit.
        what: &'static str,
    },
    /// An officer of a tenant to be made is there twice.
    #[error("officer `{officer}` of tenant `{tenant}`: {what}")]
    Officer {
        /// Whose.
        tenant: String,
        /// Its name.
        officer: String,
        /// What is there twice.
        what: &'static str,
    },
    /// A tenant's name is not usable.
    #[error("tenant names are 1 to 64 lower-case letters, digits and hyphens, each used once, and not `system`")]
    TenantName,
}

/// A tenant to be made.
pub struct NewTenant {
    /// Its name, as certificates carry it.
    pub name: String,
    /// Its first officers: name, and SHA-256 of the public key (SPKI) of the certificate.
    pub officers: Vec<(String, [u8; 32])>,
}

/// A vault to be made, over an empty store and a new keystore.
pub struct NewVault<S> {
    /// The store.
    pub store: S,
    /// The keystore; its vault id becomes the vault's.
    pub keystore: Keystore,
    /// Where the head file will stand.
    pub head_file: PathBuf,
    /// The folder of the journal, which is made.
    pub journal: PathBuf,
    /// The trust domain of its certificates.
    pub trust_domain: String,
    /// SHA-256 of each certificate (DER) that may vouch for callers.
    pub trust_anchors: Vec<[u8; 32]>,
    /// Its tenants, beside `system`.
    pub tenants: Vec<NewTenant>,
    /// Tells the time.
    pub clock: Clock,
}

/// Makes a vault: its keys, its first rows, and the first leaf of each log, which says who its officers are.
pub async fn create<S: Store>(new: NewVault<S>) -> Result<(), OpenError> {
    let directory = directory(&new)?;
    let now = (new.clock)();
    let mut tenants = vec![(tenant_row(SYSTEM_NO, SYSTEM, now)?, vec![])];
    for tenant in new.tenants {
        let number = directory.tenants.get(&tenant.name).copied().ok_or(OpenError::TenantName)?;
        tenants.push((tenant_row(number, &tenant.name, now)?, tenant.officers));
    }
    let names: Vec<KeyName> = tenants.iter().flat_map(|(tenant, _)| first_keys(tenant.id)).collect();
    new.keystore.ensure(&names, now)?;

    let vault = new.keystore.vault_id();
    let put = |key, row| Mutation::Put(Family::Meta, key, row);
    let system = tenants.first().map(|(tenant, _)| tenant.id).ok_or(OpenError::TenantName)?;
    let fingerprints = |tenant| new.keystore.index_key(tenant, IndexName::Fingerprint);
    let principals = Source::new(1, directory.to_stored())?.encode(SourceKind::Principals, &*fingerprints(system)?);
    let principals_sha256 = row_hash(&principals);
    let mut mutations = vec![
        put(place::vault(), VaultRow { format: FORMAT, vault, created: now }.encode()),
        put(place::principals(), principals),
    ];
    let mut leaves = Vec::new();
    for (tenant, officers) in &tenants {
        let policy =
            Source::new(1, DEFAULT_POLICIES.to_owned())?.encode(SourceKind::Policy, &*fingerprints(tenant.id)?);
        // The vault's own log answers for what belongs to no tenant.
        let principals = (tenant.number == SYSTEM_NO).then_some(&principals_sha256);
        leaves.extend(first_leaf(vault, tenant, officers, &directory, &policy, principals)?);
        mutations.push(put(place::policy(tenant.number), policy));
        mutations.push(put(place::tenant(tenant.number), tenant.encode()));
    }
    let lanes = tenants.iter().map(|(tenant, _)| {
        (tenant.number, LaneHead { incarnation: 1, size: 0, time: 0, frontier: vec![], rules: vec![] })
    });
    let keystore = Arc::new(new.keystore);
    let journal = Journal::create(journal_place(new.journal, vault, system, &keystore)?)?;
    let start = Start {
        lanes: lanes.collect(),
        head: Some(head_file(new.head_file, vault, system, &keystore)),
        journal: Some(journal),
        clock: new.clock,
        queue: QUEUE,
        table: FACTS,
        meters: Meters::new(),
    };
    let committer = Committer::start(Arc::new(new.store), start)?;
    let position = committer.position();
    let change = Change { position, guards: vec![], changes: vec![], mutations, leaves, charge: None };
    let committed = committer.commit(change).await;
    committer.shutdown().await;
    committed?;
    Ok(())
}

/// Whether a tenant can be called so.
pub fn is_tenant_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(fits) && name != SYSTEM
}

fn directory<S>(new: &NewVault<S>) -> Result<Directory, OpenError> {
    let mut tenants = BTreeMap::from([(SYSTEM.to_owned(), SYSTEM_NO)]);
    let mut officers = BTreeMap::new();
    for (number, tenant) in (1..).zip(&new.tenants) {
        if !is_tenant_name(&tenant.name) || tenants.insert(tenant.name.clone(), TenantNo(number)).is_some() {
            return Err(OpenError::TenantName);
        }
        if let Some((at, what)) = repeated(&tenant.officers) {
            let officer = tenant.officers.get(at).map(|(name, _)| name.clone()).unwrap_or_default();
            return Err(OpenError::Officer { tenant: tenant.name.clone(), officer, what });
        }
        for (name, key) in &tenant.officers {
            officers.insert((TenantNo(number), name.clone()), *key);
        }
    }
    let trust_anchors = new.trust_anchors.iter().copied().collect();
    let (trust_domain, destroyed) = (new.trust_domain.clone(), BTreeMap::new());
    let directory = Directory { trust_domain, tenants, destroyed, officers, trust_anchors };
    directory.check()?;
    Ok(directory)
}

fn tenant_row(number: TenantNo, name: &str, created: u64) -> Result<TenantRow, OpenError> {
    Ok(TenantRow { number, id: TenantId(keys::random()?), name: name.to_owned(), created })
}

/// The keys that every tenant has from the start.
pub(crate) fn first_keys(tenant: TenantId) -> [KeyName; 6] {
    [
        KeyName::Kek(tenant, KeyringNo(0)),
        KeyName::Index(tenant, IndexName::SubjectId),
        KeyName::Index(tenant, IndexName::Token),
        KeyName::Index(tenant, IndexName::Fingerprint),
        KeyName::Token(tenant),
        KeyName::Ledger(tenant),
    ]
}

/// What the first leaf of every log begins with: whose it is, and by which rules.
pub(crate) fn whose_log(
    vault: VaultId,
    tenant: &TenantRow,
    directory: &Directory,
    policy: &[u8],
) -> Vec<(String, String)> {
    vec![
        ("vault".to_owned(), vault.to_string()),
        ("tenant".to_owned(), tenant.name.clone()),
        ("tenant_id".to_owned(), tenant.id.to_string()),
        ("trust_domain".to_owned(), directory.trust_domain.clone()),
        ("policy_sha256".to_owned(), data_encoding::HEXLOWER.encode(&row_hash(policy))),
    ]
}

/// The first leaf of a log says whose it is and who its officers are, and records the rows that it begins with.
fn first_leaf(
    vault: VaultId,
    tenant: &TenantRow,
    officers: &[(String, [u8; 32])],
    directory: &Directory,
    policy: &[u8],
    principals: Option<&[u8; 32]>,
) -> Result<Vec<(TenantNo, leaf::PreparedLeaf)>, OpenError> {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let mut detail = whose_log(vault, tenant, directory, policy);
    detail.extend(principals.map(|hash| ("principals_sha256".to_owned(), hex(hash))));
    detail.extend(officers.iter().map(|(name, key)| (format!("officer/{name}"), hex(key))));
    let detail: Vec<(&str, &str)> = detail.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let header = LeafHeader {
        request: &keys::random()?,
        principal: "vault",
        actor: None,
        action: OwnAction::CreateVault.as_str(),
        purpose: None,
        decision: "allow",
        reason: None,
        policy: 1,
        schema: 0,
        keys: &[],
        client: "",
        detail: &detail,
    };
    Ok(leaf::prepare(&header, std::iter::empty()).into_iter().map(|leaf| (tenant.number, leaf)).collect())
}

/// The head file, signed by the key of the log `system` that is the newest each time.
fn head_file(path: PathBuf, vault: VaultId, system: TenantId, keystore: &Arc<Keystore>) -> HeadFile {
    let keystore = Arc::clone(keystore);
    let newest = move || {
        let key = keystore.ledger_key(system).ok()?;
        Some(HeadKey { public: key.public_key(), sign: Arc::new(move |text| key.sign(text)) })
    };
    HeadFile::new(path, vault, Arc::new(newest))
}

/// The journal in a folder, proved by a key that is never rotated and that no copy of the data contains.
pub(crate) fn journal_place(
    folder: PathBuf,
    vault: VaultId,
    system: TenantId,
    keystore: &Keystore,
) -> Result<JournalPlace, KeyError> {
    let key = keystore.index_key(system, IndexName::Fingerprint)?;
    Ok(JournalPlace { folder, vault, mac: Arc::new(move |parts| key.mac(parts)) })
}

/// Every tenant's log, and where it ends in the store.
pub(crate) async fn stored_lanes<S: Store>(
    store: &S,
    rows: &[TenantRow],
) -> Result<Vec<(TenantNo, LaneHead)>, OpenError> {
    let mut lanes = Vec::with_capacity(rows.len());
    for tenant in rows {
        let bytes = store.get(Family::Meta, place::lane(tenant.number, LANE)).await?;
        lanes.push((tenant.number, LaneHead::decode(&bytes.ok_or(Error::DataLoss("the head of a log"))?)?));
    }
    Ok(lanes)
}

/// The vault's row, if store and keystore are this vault's.
pub(crate) async fn vault_row<S: Store>(store: &S, keystore: &Keystore) -> Result<VaultRow, OpenError> {
    let row = store.get(Family::Meta, place::vault()).await?.ok_or(OpenError::NoVault)?;
    let row = VaultRow::decode(&row)?;
    if row.format != FORMAT {
        return Err(OpenError::UnknownFormat(row.format));
    }
    match row.vault == keystore.vault_id() {
        true => Ok(row),
        false => Err(OpenError::TwoVaults { data: row.vault, keystore: keystore.vault_id() }),
    }
}

/// What a vault is opened from.
pub struct Opening<S> {
    /// The store.
    pub store: S,
    /// The keystore, unsealed.
    pub keystore: Keystore,
    /// Where the head file stands.
    pub head_file: PathBuf,
    /// The journal's folder.
    pub journal: PathBuf,
    /// The sizes that requests may have.
    pub limits: Limits,
    /// How many DEKs stay in memory.
    pub hot_deks: usize,
    /// Looks at the disk.
    pub space: Space,
    /// Tells the time.
    pub clock: Clock,
    /// The machine's clocks as they are, by which a jump shows.
    pub machine: MachineTime,
    /// What is erased by itself, and how much without asking.
    pub retention: Retention,
}

impl<S: Store> Vault<S> {
    /// Opens a vault, if all of it fits together.
    pub async fn open(opening: Opening<S>) -> Result<Self, OpenError> {
        let Opening { store, keystore, head_file: head, journal, limits, hot_deks, space, clock, machine, retention } =
            opening;
        let row = vault_row(&store, &keystore).await?;
        let rows = tenant_rows(&store).await?;
        let system = rows.iter().find(|tenant| tenant.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
        let lanes = stored_lanes(&store, &rows).await?;
        // A start that follows a rotation which was cut off finds the file by the version before; none by one that is
        // compromised.
        let publics: Vec<[u8; 32]> = keystore.ledger_keys(system)?.all().iter().map(|key| key.public_key()).collect();
        let signed = HeadFile::check(&head, row.vault, &publics, &lanes, &store).await?;
        let place = journal_place(journal, row.vault, system, &keystore)?;
        let journal_at = place.path();
        let mut journal = Journal::open(place, signed.journal)?;
        journal.knows(&lanes, &signed, &store).await?;

        let fingerprints = keystore.index_key(system, IndexName::Fingerprint)?;
        let bytes = store.get(Family::Meta, place::principals()).await?.ok_or(OpenError::NoVault)?;
        let directory = Directory::from_stored(&Source::decode(&bytes, SourceKind::Principals, &fingerprints)?.body)
            .map_err(|_| Error::DataLoss("the enrolled officers"))?;
        all_enrolled(&rows, &directory)?;
        for (tenant, number) in &directory.destroyed {
            // By this its keys are destroyed, its rows are cleared, and its log is proven.
            if store.get(Family::Meta, place::tenant_end(*number)).await?.is_none() {
                return Err(OpenError::Tenants {
                    tenant: tenant.clone(),
                    what: "was destroyed, and the row that says so is gone",
                });
            }
        }
        let mut tenants = Vec::with_capacity(rows.len());
        // Of a tenant that was destroyed there is only its log.
        let gone = |tenant: &TenantRow| directory.destroyed.contains_key(&tenant.name);
        for (tenant, (_, lane)) in rows.iter().zip(&lanes).filter(|(tenant, _)| !gone(tenant)) {
            source::as_recorded(&store, tenant, lane).await?;
            if lock::is_locked(&keystore, tenant.id) {
                // No reason not to serve the others.
                tracing::warn!(tenant = tenant.name, "a tenant is locked: its own key is away");
                continue;
            }
            let tenant = Tenant::load(tenant.clone(), (lane.incarnation, lane.size), &store, &keystore).await.map_err(
                |error| match error {
                    Error::KeyUnavailable(_) => OpenError::KeystoreBehind(error),
                    other => OpenError::Vault(other),
                },
            )?;
            if !key_life::keystore_is_new_enough(&store, &tenant, &keystore).await? {
                return Err(OpenError::KeystoreOld { tenant: tenant.name });
            }
            tenants.push(tenant);
        }
        let unproven = journal.lacks(&lanes, &store).await?;
        if !unproven.is_empty() {
            restore::confirm(&unproven, (&rows, &lanes), &directory, (&store, &keystore)).await?;
        }
        // Before anything else is committed, and after all that may refuse the start.
        journal.follow(&lanes, &store).await?;
        let last_tenant = journal.last_tenant();
        let store = Arc::new(store);
        let keystore = Arc::new(keystore);
        let newest = lanes.iter().map(|(_, head)| head.time).max().unwrap_or_default();
        let meters = Meters::load(&*store, lanes.iter().map(|(tenant, head)| (*tenant, head.time))).await?;
        let start = Start {
            lanes,
            head: Some(head_file(head, row.vault, system, &keystore)),
            journal: Some(journal),
            clock: Arc::clone(&clock),
            queue: QUEUE,
            table: FACTS,
            meters,
        };
        let committer = Committer::start(Arc::clone(&store), start)?;
        let vault = Self {
            store,
            committer,
            keystore,
            deks: Arc::new(DekCache::new(hot_deks)),
            turn: RwLock::new(()),
            limits,
            refusals: Refusals::default(),
            started: clock(),
            clock,
            clock_watch: ClockWatch::new(machine),
            retention,
            tenants: Arc::new(Tenants::new(tenants.into_iter(), directory)),
            notes: Default::default(),
            id: row.vault,
            journal: journal_at,
            last_tenant,
            damaged: AtomicBool::new(false),
            space,
            nearly_full: AtomicBool::new(false),
            jobs: Jobs::default(),
            counting: Mutex::new(()),
            erasing: Default::default(),
            erasures_left: Notify::new(),
            backups_kept: OnceLock::new(),
            importing: Mutex::new(()),
            tiling: Tiling::default(),
            shown: crate::published::Shown::default(),
            witnesses: OnceLock::new(),
            waiting: Default::default(),
            kept: OnceLock::new(),
            archiving: Default::default(),
            indexing: Arc::default(),
            alive: watch::Sender::new(()),
        };
        vault.look_at_space();
        let finished = async {
            // Before there are new leaves.
            vault.look_at_clock_at_start(newest).await?;
            vault.finish_key_changes().await?;
            vault.roll_owed_keks(restore::ROOT).await?;
            vault.finish_tenants_at_start().await
        };
        if let Err(error) = finished.await {
            // Whoever tries again in this process must not meet this one's committer.
            vault.close().await;
            return Err(error.into());
        }
        Ok(vault)
    }

    /// Whether every authority that shall vouch for callers is enrolled: whoever controls the files must not be able to
    /// put an authority of their own in place. `anchors` are SHA-256 of certificates (DER).
    pub fn check_trust_anchors(&self, anchors: &[[u8; 32]]) -> Result<(), OpenError> {
        let directory = self.directory();
        let enrolled = |anchor: &[u8; 32]| directory.trust_anchors.contains(anchor);
        if anchors.is_empty() {
            return Err(OpenError::TrustAnchors("there is none".to_owned()));
        }
        match anchors.iter().find(|anchor| !enrolled(anchor)) {
            None => Ok(()),
            Some(anchor) => Err(OpenError::TrustAnchors(format!(
                "the one with SHA-256 {} is not among them",
                data_encoding::HEXLOWER.encode(anchor)
            ))),
        }
    }
}

/// Whether the tenants' rows and the directory name the same tenants: a part of the store may have been put back.
pub(crate) fn all_enrolled(rows: &[TenantRow], directory: &Directory) -> Result<(), OpenError> {
    let enrolled = || directory.tenants.iter().chain(&directory.destroyed);
    let is_enrolled = |row: &TenantRow| enrolled().any(|(name, number)| (name, number) == (&row.name, &row.number));
    if let Some(row) = rows.iter().find(|row| !is_enrolled(row)) {
        return Err(OpenError::Tenants { tenant: row.name.clone(), what: "has a row, and is not in the directory" });
    }
    match enrolled().find(|(_, number)| !rows.iter().any(|row| row.number == **number)) {
        Some((name, _)) => {
            Err(OpenError::Tenants { tenant: name.clone(), what: "is in the directory, and its row is gone" })
        }
        None => Ok(()),
    }
}

/// All tenants of a vault, those that were destroyed too.
pub(crate) async fn tenant_rows<S: Store>(store: &S) -> Result<Vec<TenantRow>, OpenError> {
    let (from, to) = place::tenants_range();
    let page = store.scan(Family::Meta, Range { from, to, limit: MOST_TENANTS }).await?;
    Ok(page.iter().map(|(_, row)| TenantRow::decode(row)).collect::<Result<_, _>>()?)
}
