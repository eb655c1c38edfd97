//! Opens and closes the vault of a folder while the process goes on: what the server's door needs to seal and unseal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strongroom_keys::root::shamir::{ShamirCollector, ShareSet};
use strongroom_keys::{
    ArgonCost, Envelope, KeyError, Keystore, Passphrase, PassphraseRoot, RootError, RootKind, RootProvider,
};
use strongroom_rocksdb::RocksStore;
use strongroom_server::{Admits, Brought, Heard, Keeper, NotUnsealed, OwnKeyProviders, Vouching, Wants};
use strongroom_vault::RootProbe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::config::Config;
use super::layout::Layout;
use super::own_keys::Providers;
use super::root;
use super::start::{self, Closed, RocksVault};

/// How long recording that the vault seals itself may take: its keys wait for that.
const RECORD: Duration = Duration::from_secs(2);

/// The keeper of one folder's vault.
pub struct FolderKeeper {
    layout: Layout,
    config: Config,
    /// The authorities that vouch for callers at the moment: a vault that is unsealed is asked about these.
    vouching: Vouching,
    /// What keeps the root key, if it is outside of the process. The same for all calls: it knows what failed before.
    outside: Mutex<Option<Arc<dyn RootProvider>>>,
    /// What keeps tenants' own keys.
    own_keys: Arc<Providers>,
    collected: Mutex<Option<Collected>>,
    household: Mutex<Option<Household>>,
}

/// Shares that were brought.
struct Collected {
    /// What they open: another one, if the root key was moved meanwhile.
    envelope: Envelope,
    shares: ShamirCollector,
    /// By whom, in turn.
    by: Vec<String>,
}

/// What an open vault does by itself.
struct Household {
    /// Dropped when it is to end.
    stop: watch::Sender<()>,
    tasks: [JoinHandle<()>; 3],
}

/// A root key that was brought, and by whom.
type BroughtRoot = (Arc<dyn RootProvider>, Vec<String>);

impl FolderKeeper {
    /// The keeper of the vault in a folder, which is served to whom these authorities vouch for.
    pub fn new(layout: Layout, config: Config, vouching: Vouching, outside: Option<Arc<dyn RootProvider>>) -> Self {
        let (collected, household) = (Mutex::default(), Mutex::default());
        let own_keys = Arc::new(Providers::new(config.own_keys.clone()));
        Self { layout, config, vouching, outside: Mutex::new(outside), own_keys, collected, household }
    }

    /// Has an open vault keep its house and do its jobs.
    pub fn begin(&self, vault: &Arc<RocksVault>) {
        let (stop, stopping) = watch::channel(());
        // An error means that the sender is gone, which is the end as well.
        let stopped = |mut stopping: watch::Receiver<()>| async move { drop(stopping.changed().await) };
        let house = tokio::spawn({
            let (vault, stop) = (Arc::clone(vault), stopped(stopping.clone()));
            async move { vault.keep_house(stop).await }
        });
        let jobs = tokio::spawn({
            let (vault, stop) = (Arc::clone(vault), stopped(stopping.clone()));
            async move { strongroom_jobs::run(&vault, stop).await }
        });
        let own_keys = tokio::spawn({
            let (vault, stop) = (Arc::clone(vault), stopped(stopping));
            let (providers, watch) = (Arc::clone(&self.own_keys), start::watch(&self.config));
            let providers: Arc<OwnKeyProviders> = Arc::new(move |tenant, kind| providers.get(tenant, kind));
            async move { strongroom_server::watch_own_keys(&vault, providers, watch, stop).await }
        });
        *lock(&self.household) = Some(Household { stop, tasks: [house, jobs, own_keys] });
    }

    /// What the keystore is wrapped under. Read anew each time: the root key of a sealed vault may be moved.
    fn envelope(&self) -> Result<Envelope, KeyError> {
        Ok(Keystore::header_of(&self.layout.keystore())?.envelope)
    }

    /// The root key that was brought; `None` while more shares are needed.
    fn root(&self, envelope: &Envelope, brought: Brought, by: &str) -> Result<Option<BroughtRoot>, NotUnsealed> {
        match (envelope.kind, brought) {
            (RootKind::Passphrase, Brought::Passphrase(bytes)) => {
                let root = PassphraseRoot::new(passphrase(&bytes)?, ArgonCost::DEFAULT);
                Ok(Some((Arc::new(root), vec![by.to_owned()])))
            }
            (RootKind::Shamir, Brought::Share(bytes)) => self.collect(envelope, Some(&bytes), by),
            (RootKind::Shamir, Brought::Nothing) => self.collect(envelope, None, by),
            (RootKind::Passphrase, _) => Err(NotUnsealed::Credential("this vault needs its passphrase".to_owned())),
            (RootKind::Shamir, _) => Err(NotUnsealed::Credential("this vault needs shares of its root key".to_owned())),
            (kind, Brought::Nothing) => Ok(Some((self.outside(kind).map_err(not_had)?, vec![by.to_owned()]))),
            (kind, _) => {
                Err(NotUnsealed::Credential(format!("this vault asks {kind} for its root key: bring nothing")))
            }
        }
    }

    /// The provider outside that keeps the root key.
    fn outside(&self, kind: RootKind) -> Result<Arc<dyn RootProvider>, RootError> {
        let mut outside = lock(&self.outside);
        if let Some(root) = outside.as_ref().filter(|root| root.kind() == kind) {
            return Ok(Arc::clone(root));
        }
        let root = root::root_provider(kind, &self.config.root)?;
        *outside = Some(Arc::clone(&root));
        Ok(root)
    }

    /// Adds a share to those that were brought before.
    fn collect(&self, envelope: &Envelope, share: Option<&[u8]>, by: &str) -> Result<Option<BroughtRoot>, NotUnsealed> {
        let mut collected = lock(&self.collected);
        if collected.as_ref().is_none_or(|collected| collected.envelope != *envelope) {
            let shares = ShamirCollector::new(envelope).map_err(not_had)?;
            *collected = Some(Collected { envelope: envelope.clone(), shares, by: vec![] });
        }
        let Some(all) = collected.as_mut() else { return Ok(None) };
        if let Some(share) = share {
            let share = std::str::from_utf8(share);
            let share = share.map_err(|_| NotUnsealed::Credential("a share is text".to_owned()))?;
            all.shares.add(share.trim()).map_err(not_had)?;
            all.by.push(by.to_owned());
        }
        if !all.shares.progress().is_enough() {
            return Ok(None);
        }
        // They are kept until the vault is open: what else may keep it from opening is not their holders' business.
        Ok(Some((all.shares.root().map_err(not_had)?, all.by.clone())))
    }
}

#[tonic::async_trait]
impl Keeper<RocksStore> for FolderKeeper {
    fn wants(&self) -> Wants {
        let given = lock(&self.collected).as_ref().map_or(0, |collected| collected.shares.progress().have);
        let Ok(envelope) = self.envelope() else {
            return Wants { provider: "unknown", shares_given: given.into(), shares_needed: 0 };
        };
        let needed = ShareSet::of(&envelope).map_or(0, |set| set.threshold());
        Wants { provider: envelope.kind.as_str(), shares_given: given.into(), shares_needed: needed.into() }
    }

    async fn unseal(
        &self,
        brought: Brought,
        by: &str,
        admits: &Admits,
    ) -> Result<Option<Arc<RocksVault>>, NotUnsealed> {
        let envelope = self.envelope().map_err(|error| unfit(&error))?;
        let Some((root, by)) = self.root(&envelope, brought, by)? else { return Ok(None) };
        // First of all: who guesses must not have the store opened each time.
        drop(start::unlock(self.layout.keystore(), Arc::clone(&root)).await.map_err(not_unsealed)?);
        let opened = start::open_vault(&self.layout, &self.config, &self.vouching.now(), &root).await;
        let (vault, _) = opened.map_err(not_unsealed)?;
        // Now it knows who is who.
        if !admits(&vault.directory()) {
            vault.close().await;
            return Err(NotUnsealed::Stranger);
        }
        if let Err(error) = vault.record_unsealed(envelope.kind.as_str(), &by).await {
            vault.close().await;
            return Err(NotUnsealed::Unfit(format!("that it is unsealed could not be recorded: {error}")));
        }
        self.forget();
        self.begin(&vault);
        Ok(Some(vault))
    }

    fn own_key_provider(&self, tenant: &str, kind: RootKind) -> Result<Arc<dyn RootProvider>, RootError> {
        self.own_keys.get(tenant, kind)
    }

    async fn ask(&self, probe: RootProbe) -> Heard {
        let kind = probe.kind();
        if !kind.is_outside() {
            return Heard::Holds;
        }
        let root = match self.outside(kind) {
            Ok(root) => root,
            Err(error) => return Heard::Nothing(error.to_string()),
        };
        match tokio::task::spawn_blocking(move || probe.ask(&*root)).await {
            Ok(Ok(())) => Heard::Holds,
            Ok(Err(error)) if error.is_refusal() => Heard::Denied(error.to_string()),
            Ok(Err(error)) => Heard::Nothing(error.to_string()),
            Err(_) => Heard::Nothing(format!("asking {kind} did not end")),
        }
    }

    async fn record_sealed(&self, vault: &Arc<RocksVault>, why: &'static str) {
        let provider = vault.root_kind().as_str();
        let recorded = tokio::time::timeout(RECORD, vault.record_sealed(provider, why)).await;
        if !matches!(recorded, Ok(Ok(()))) {
            tracing::error!(why, "that the vault sealed itself could not be recorded in its log");
        }
    }

    fn forget(&self) {
        *lock(&self.collected) = None;
    }

    async fn close(&self, vault: Arc<RocksVault>) {
        let household = lock(&self.household).take();
        if let Some(Household { stop, tasks }) = household {
            drop(stop);
            for task in tasks {
                // A panic of the housekeeping or a job has been reported by the runtime; the vault is closed all the same.
                drop(task.await);
            }
        }
        vault.close().await;
    }
}

fn not_unsealed(closed: Closed) -> NotUnsealed {
    match closed {
        Closed::Root(error) => not_had(error),
        Closed::Unfit(error) => unfit(&error),
    }
}

/// Why a root key was not had.
fn not_had(error: RootError) -> NotUnsealed {
    match error {
        RootError::Credential { why, .. } => NotUnsealed::Credential(why),
        RootError::Unreachable { .. } => NotUnsealed::Unreachable(error.to_string()),
        RootError::OtherKey { provider, .. } if !provider.is_outside() => unfit(&error),
        error if error.is_refusal() => NotUnsealed::Denied(error.to_string()),
        error => unfit(&error),
    }
}

/// Paths are for who reads the log.
fn unfit(error: &dyn std::error::Error) -> NotUnsealed {
    tracing::error!(%error, "the vault can't be unsealed");
    NotUnsealed::Unfit("the vault does not open; its log says why".to_owned())
}

fn passphrase(bytes: &Zeroizing<Vec<u8>>) -> Result<Passphrase, NotUnsealed> {
    let text = std::str::from_utf8(bytes).map_err(|_| NotUnsealed::Credential("a passphrase is UTF-8".to_owned()))?;
    Passphrase::new(text.to_owned()).map_err(|error| NotUnsealed::Credential(error.to_string()))
}

/// A panic elsewhere leaves what is behind these locks whole.
fn lock<T>(behind: &Mutex<T>) -> MutexGuard<'_, T> {
    behind.lock().unwrap_or_else(PoisonError::into_inner)
}
