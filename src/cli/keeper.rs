//! Opens and closes the vault of a folder while the process goes on: what the server's door needs to seal and unseal.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strongroom_keys::{KeyError, Passphrase};
use strongroom_rocksdb::RocksStore;
use strongroom_server::{Brought, Keeper, NotUnsealed, Unsealing};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::config::Config;
use super::layout::Layout;
use super::output::CliError;
use super::start::{self, Closed, RocksVault};

/// The keeper of one folder's vault.
pub struct FolderKeeper {
    layout: Layout,
    config: Config,
    /// SHA-256 of the authorities that connections are accepted from: they were read once, with the server's certificate.
    authorities: Vec<[u8; 32]>,
    household: Mutex<Option<Household>>,
}

/// What an open vault does by itself.
struct Household {
    /// Dropped when it is to end.
    stop: watch::Sender<()>,
    tasks: [JoinHandle<()>; 2],
}

impl FolderKeeper {
    /// The keeper of the vault in a folder, which is served to clients of these authorities.
    pub fn new(layout: Layout, config: Config, authorities: Vec<[u8; 32]>) -> Self {
        Self { layout, config, authorities, household: Mutex::new(None) }
    }

    /// Has an open vault keep its house and do its jobs.
    pub fn begin(&self, vault: &Arc<RocksVault>) {
        let (stop, stopping) = watch::channel(());
        // An error means that the sender is gone, which is the end as well.
        let stopped = |mut stopping: watch::Receiver<()>| async move { drop(stopping.changed().await) };
        let house = tokio::spawn(apart(Arc::clone(vault), stopped(stopping.clone()), async |vault, stop| {
            vault.keep_house(stop).await;
        }));
        let jobs = tokio::spawn(apart(Arc::clone(vault), stopped(stopping), async |vault, stop| {
            strongroom_jobs::run(&vault, stop).await;
        }));
        *self.household() = Some(Household { stop, tasks: [house, jobs] });
    }

    fn household(&self) -> MutexGuard<'_, Option<Household>> {
        self.household.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn apart<Stop: Future<Output = ()>>(
    vault: Arc<RocksVault>,
    stop: Stop,
    work: impl AsyncFnOnce(Arc<RocksVault>, Stop),
) {
    work(vault, stop).await;
}

#[tonic::async_trait]
impl Keeper<RocksStore> for FolderKeeper {
    fn provider(&self) -> String {
        "file".to_owned()
    }

    async fn unseal(&self, brought: Brought, by: &str) -> Result<Unsealing<RocksStore>, NotUnsealed> {
        let passphrase = match brought {
            Brought::Passphrase(bytes) => passphrase(&bytes)?,
            Brought::Share(_) => {
                return Err(NotUnsealed::Credential("this vault needs a passphrase, not shares".to_owned()));
            }
            Brought::Nothing => {
                return Err(NotUnsealed::Credential("this vault needs its passphrase: bring it".to_owned()));
            }
        };
        let passphrase = Arc::new(passphrase);
        // First of all: who guesses must not have the store opened each time.
        drop(start::unlock(self.layout.keystore(), Arc::clone(&passphrase)).await.map_err(not_unsealed)?);
        let opened = start::open_vault(&self.layout, &self.config, &self.authorities, &passphrase).await;
        let (vault, _) = opened.map_err(not_unsealed)?;
        if let Err(error) = vault.record_unsealed(&self.provider(), &[by.to_owned()]).await {
            vault.close().await;
            return Err(NotUnsealed::Unfit(format!("that it is unsealed could not be recorded: {error}")));
        }
        self.begin(&vault);
        Ok(Unsealing::Open(vault))
    }

    fn forget(&self) {}

    async fn close(&self, vault: Arc<RocksVault>) {
        let household = self.household().take();
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
        Closed::Root(error @ KeyError::WrongPassphrase) => NotUnsealed::Credential(error.to_string()),
        // Paths are for who reads the log.
        closed => {
            tracing::error!(error = %CliError::from(closed), "the vault can't be unsealed");
            NotUnsealed::Unfit("the vault does not open; its log says why".to_owned())
        }
    }
}

fn passphrase(bytes: &Zeroizing<Vec<u8>>) -> Result<Passphrase, NotUnsealed> {
    let text = std::str::from_utf8(bytes).map_err(|_| NotUnsealed::Credential("a passphrase is UTF-8".to_owned()))?;
    Passphrase::new(text.to_owned()).map_err(|error| NotUnsealed::Credential(error.to_string()))
}
