//! Opening a vault's folder and serving it.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use strongroom_keys::{Keystore, Passphrase, root_key};
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_server::{Options, TlsMaterial};
use strongroom_vault::{Clock, OpenError, Opening, Space, Vault};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

use super::config::Config;
use super::layout::Layout;
use super::output::CliError;

/// The vault as this binary runs it.
pub type RocksVault = Vault<RocksStore>;

/// The machine's clock: microseconds since 1970.
pub fn clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// Whether the disk under a folder has less free than the reserve. What can't be asked counts as full: a write would
/// tell no better.
fn space(folder: PathBuf, reserve_mib: u64) -> Space {
    Arc::new(move || match rustix::fs::statvfs(&folder) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) < reserve_mib.saturating_mul(1 << 20),
        Err(_) => true,
    })
}

/// Opens the vault in a folder.
pub async fn open(layout: &Layout, config: &Config, passphrase: &Passphrase) -> Result<Arc<RocksVault>, CliError> {
    // The store first: its lock keeps a second process away from the keystore as well.
    let options = RocksOptions { block_cache: config.capacity.block_cache_mib << 20, ..RocksOptions::default() };
    let store = RocksStore::open(&layout.data(), options).map_err(|error| unfit(layout, &error))?;
    let root = root_key::open(&layout.keystore(), passphrase).map_err(|error| unfit(layout, &error))?;
    let keystore = Keystore::open(&layout.keystore(), &root).map_err(|error| unfit(layout, &error))?;
    let opening = Opening {
        store,
        keystore,
        head_file: layout.head(),
        limits: config.limits.limits()?,
        hot_deks: config.capacity.hot_deks,
        space: space(layout.data(), config.capacity.disk_reserve_mib),
        clock: clock(),
    };
    Ok(Arc::new(Vault::open(opening).await.map_err(|error| refused(layout, &error))?))
}

/// Binds the socket that a vault will answer on.
pub async fn bind(address: &str) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| CliError::Unfit {
        message: format!("the vault can't listen on {address}: {error}"),
        next: "another address with --listen, or stop what uses this one".into(),
    })
}

/// Serves an open vault until `stop` comes, then closes it.
pub async fn serve(
    vault: Arc<RocksVault>,
    listener: TcpListener,
    config: &Config,
    layout: &Layout,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), CliError> {
    let read = |path: &PathBuf| {
        let path = layout.dir().join(path);
        std::fs::read(&path).map_err(|error| CliError::file(path, error))
    };
    let tls = TlsMaterial {
        certificate_pem: read(&config.tls.certificate)?,
        key_pem: Zeroizing::new(read(&config.tls.key)?),
        client_ca_pem: read(&config.tls.client_ca)?,
    };
    let options = Options {
        max_connections: config.capacity.connections,
        max_requests_in_flight: config.capacity.requests,
        ..Options::new(listener, tls, env!("CARGO_PKG_VERSION"))
    };
    let (stopped, stopping) = tokio::sync::watch::channel(());
    let house = tokio::spawn({
        let vault = Arc::clone(&vault);
        let mut stopping = stopping.clone();
        async move {
            // An error means that the sender is gone, which is the end as well.
            vault.keep_house(async move { drop(stopping.changed().await) }).await;
        }
    });
    let served = strongroom_server::serve(Arc::clone(&vault), options, stop).await;
    drop(stopped);
    // A panic of the housekeeping has been reported by the runtime; the vault is closed all the same.
    drop(house.await);
    vault.close().await;
    served.map_err(|error| CliError::unfit(error.to_string()))
}

/// Completes when the process is asked to end.
///
/// Signals are caught from the call on, not from the first wait: who reads that the vault serves may end it in order.
pub fn asked_to_end() -> impl Future<Output = ()> + Send + 'static {
    let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let wait = async |signals: std::io::Result<Signal>| match signals {
        Ok(mut signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    };
    async move {
        tokio::select! {
            () = wait(interrupt) => {}
            () = wait(terminate) => {}
        }
    }
}

fn unfit(layout: &Layout, error: &dyn std::error::Error) -> CliError {
    CliError::Unfit {
        message: format!("the vault in {} does not open: {error}", layout.dir().display()),
        next: String::new(),
    }
}

/// Why a vault does not open, in words for whoever starts it.
pub fn refused(layout: &Layout, error: &OpenError) -> CliError {
    unfit(layout, error)
}
