//! Opening a vault's folder and serving it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use strongroom_keys::{Keystore, RootError, RootProvider};
use strongroom_rocksdb::{Background, RocksOptions, RocksStore};
use strongroom_server::{Actors, Door, Options, Published, Reload, RootWatch, TlsMaterial, Vouching};
use strongroom_storage::StoreError;
use strongroom_vault::{Clock, MachineTime, Opening, Space, Vault};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use zeroize::Zeroizing;

use super::config::Config;
use super::keeper::FolderKeeper;
use super::layout::Layout;
use super::output::CliError;

/// The vault as this binary runs it.
pub type RocksVault = Vault<RocksStore>;

/// The machine's clock, microseconds since 1970, as long as it does not jump: see [`Anchor`].
pub fn clock() -> Clock {
    let anchor = Mutex::new(Anchor { time: system_time(), running: running_time(), jumped: false });
    Arc::new(move || {
        // Whoever panicked left an anchor that holds.
        let mut anchor = anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let before = anchor.jumped;
        let time = anchor.tell(system_time(), running_time());
        if anchor.jumped && !before {
            tracing::error!(
                "the machine's clock jumped; the vault keeps its own time: restart it to accept the new one"
            );
        }
        time
    })
}

fn system_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds that the machine has run, those in which it slept included. Nobody can set this clock.
fn running_time() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1_000;
    u64::try_from(micros).unwrap_or_default()
}

/// A jump of the machine's clock that is not followed, in microseconds: one hour.
const JUMP: u64 = 3_600 * 1_000_000;

/// When it was which time. Values expire and keys are forgotten by the clock, so a clock that is set years ahead, by
/// mistake or by hand, must not be believed: small corrections are followed, of a jump the time before it goes on.
struct Anchor {
    /// The time that was told last by the machine's clock, in microseconds since 1970.
    time: u64,
    /// Microseconds that the machine had run then.
    running: u64,
    /// Whether the machine's clock is somewhere else.
    jumped: bool,
}

impl Anchor {
    /// The time, in microseconds since 1970.
    fn tell(&mut self, system: u64, running: u64) -> u64 {
        let expected = self.time.saturating_add(running.saturating_sub(self.running));
        if system.abs_diff(expected) >= JUMP {
            self.jumped = true;
            return expected;
        }
        *self = Self { time: system, running, jumped: false };
        system
    }
}

/// Whether the disk under a folder has less free than the reserve. What can't be asked counts as full: a write would
/// tell no better.
fn space(folder: PathBuf, reserve_mib: u64) -> Space {
    Arc::new(move || match rustix::fs::statvfs(&folder) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) < reserve_mib.saturating_mul(1 << 20),
        Err(_) => true,
    })
}

/// An open vault, and the certificates that it is served with.
pub struct Opened {
    /// The vault.
    pub vault: Arc<RocksVault>,
    /// What its store does in the background, for who measures it.
    pub background: Background,
    /// Read once: its authorities are the ones that the vault was asked about.
    tls: TlsMaterial,
    /// The provider of its root key, if that is outside of the process and is to be asked again.
    outside: Option<Arc<dyn RootProvider>>,
}

/// How long a provider outside of the process may take.
const ANSWER: Duration = Duration::from_secs(60);

/// How a vault that is served begins.
pub enum Begun {
    /// Open.
    Open(Opened),
    /// Sealed, until somebody unseals it.
    Sealed,
    /// Its root key, which is outside of the process, can't be had now; it opens by itself once it can.
    Waiting {
        /// What keeps the root key.
        root: Arc<dyn RootProvider>,
        /// Why it can't.
        why: RootError,
    },
}

/// Why a vault does not open.
pub enum Closed {
    /// Its keys can't be had.
    Root(RootError),
    /// Anything else.
    Unfit(CliError),
}

impl Closed {
    /// In words for whoever starts it.
    pub fn into_error(self, layout: &Layout) -> CliError {
        match self {
            Self::Root(error) => unfit(layout, &error),
            Self::Unfit(error) => error,
        }
    }
}

/// Opens the vault in a folder.
pub async fn open(layout: &Layout, config: &Config, root: Arc<dyn RootProvider>) -> Result<Opened, CliError> {
    try_open(layout, config, &root).await.map_err(|closed| closed.into_error(layout))
}

/// Opens the vault in a folder, or says that its root key can't be had now though it may be later, by itself.
pub async fn begin(layout: &Layout, config: &Config, root: Arc<dyn RootProvider>) -> Result<Begun, CliError> {
    match try_open(layout, config, &root).await {
        Ok(opened) => Ok(Begun::Open(opened)),
        Err(Closed::Root(why)) if root.kind().is_outside() && why.may_pass() => Ok(Begun::Waiting { root, why }),
        Err(closed) => Err(closed.into_error(layout)),
    }
}

async fn try_open(layout: &Layout, config: &Config, root: &Arc<dyn RootProvider>) -> Result<Opened, Closed> {
    let tls = tls(layout, config).map_err(Closed::Unfit)?;
    let authorities = authorities(&tls).map_err(Closed::Unfit)?;
    let (vault, background) = open_vault(layout, config, &authorities, root).await?;
    // What people brought must not outlive the opening.
    let outside = root.kind().is_outside().then(|| Arc::clone(root));
    Ok(Opened { vault, background, tls, outside })
}

/// Opens the vault in a folder, if these authorities may vouch for its callers.
pub async fn open_vault(
    layout: &Layout,
    config: &Config,
    authorities: &[[u8; 32]],
    root: &Arc<dyn RootProvider>,
) -> Result<(Arc<RocksVault>, Background), Closed> {
    // The store first: its lock keeps a second process away from the keystore as well.
    let options = RocksOptions { block_cache: config.capacity.block_cache_mib << 20, ..RocksOptions::default() };
    let store = RocksStore::open(&layout.data(), options).map_err(|error| Closed::Unfit(closed(layout, &error)))?;
    let background = store.background();
    let keystore = unlock(layout.keystore(), Arc::clone(root)).await?;
    let opening = opening(layout, config, store, keystore).map_err(Closed::Unfit)?;
    // Looked at before anything is opened.
    let witnesses = config.ledger.witnesses().map_err(|why| Closed::Unfit(CliError::unfit(why)))?;
    let backups = config.backups.days().map_err(|why| Closed::Unfit(CliError::unfit(why)))?;
    let vault = Vault::open(opening).await.map_err(|error| Closed::Unfit(unfit(layout, &error)))?;
    witnesses.into_iter().for_each(|witnesses| vault.want_witnesses(witnesses));
    config.ledger.kept().into_iter().for_each(|kept| vault.keep_leaves(kept));
    backups.into_iter().for_each(|days| vault.keep_backups(days));
    if let Err(error) = vault.check_trust_anchors(authorities) {
        vault.close().await;
        return Err(Closed::Unfit(CliError::Unfit {
            message: format!("the vault in {} does not serve: {error}", layout.dir().display()),
            next: format!(
                "[tls] client_ca of {} with the file that was given to init; or enrol the other one: strongroom break-glass anchor add FILE",
                layout.config().display()
            ),
        }));
    }
    Ok((Arc::new(vault), background))
}

/// What the vault in a folder is opened from.
pub fn opening(
    layout: &Layout,
    config: &Config,
    store: RocksStore,
    keystore: Keystore,
) -> Result<Opening<RocksStore>, CliError> {
    Ok(Opening {
        store,
        keystore,
        head_file: layout.head(),
        journal: config.journal.folder(layout),
        limits: config.limits()?,
        hot_deks: config.capacity.hot_deks,
        space: space(layout.data(), config.capacity.disk_reserve_mib),
        clock: clock(),
        machine: MachineTime { wall: Arc::new(system_time), running: Arc::new(running_time) },
        retention: config.retention.of_vault(),
    })
}

/// Opens the keystore on a thread of its own: what raw keys leave on a stack goes with it.
pub async fn unlock(folder: PathBuf, root: Arc<dyn RootProvider>) -> Result<Keystore, Closed> {
    let (provider, outside) = (root.kind(), root.kind().is_outside());
    let (done, opened) = oneshot::channel();
    let open = move || {
        // Nobody waits any more if the process ends.
        drop(done.send(Keystore::open(&folder, &*root)));
    };
    let failed = |error: &dyn std::fmt::Display| Closed::Unfit(CliError::unfit(format!("no thread: {error}")));
    std::thread::Builder::new().name("unseal".to_owned()).spawn(open).map_err(|error| failed(&error))?;
    let opened = match outside {
        false => opened.await,
        // Nobody waits longer for a file system or a network; the thread drops what it still gets.
        true => tokio::time::timeout(ANSWER, opened).await.map_err(|_| {
            Closed::Root(provider.unreachable(format!("there was no answer in {} seconds", ANSWER.as_secs())))
        })?,
    };
    opened.map_err(|error| failed(&error))?.map_err(Closed::Root)
}

/// Reads the certificates of a vault, and sees that they can be used.
pub fn tls(layout: &Layout, config: &Config) -> Result<TlsMaterial, CliError> {
    let tls = read_tls(layout, config)?;
    tls.check().map_err(|error| CliError::unfit(error.to_string()))?;
    Ok(tls)
}

fn read_tls(layout: &Layout, config: &Config) -> Result<TlsMaterial, CliError> {
    let read = |path: &PathBuf| {
        let path = layout.dir().join(path);
        std::fs::read(&path).map_err(|error| CliError::Unfit {
            message: format!("{}: {error}", path.display()),
            next: format!("the vault's certificates where [tls] of {} says", layout.config().display()),
        })
    };
    Ok(TlsMaterial {
        certificate_pem: read(&config.tls.certificate)?,
        key_pem: Zeroizing::new(read(&config.tls.key)?),
        client_ca_pem: read(&config.tls.client_ca)?,
        crls: config.tls.crl.iter().map(read).collect::<Result<_, _>>()?,
        require_crl: config.tls.require_crl,
    })
}

/// Where a vault answers: sockets that are bound before it is opened.
pub struct Sockets {
    calls: TcpListener,
    /// Where callers read their ledger over plain HTTPS, if they do.
    entries: Option<TcpListener>,
    /// What is published, if anything is.
    published: Option<Published>,
}

impl From<TcpListener> for Sockets {
    fn from(calls: TcpListener) -> Self {
        Self { calls, entries: None, published: None }
    }
}

impl Sockets {
    /// Binds what a configuration names, and `listen` in the place of its own address.
    pub async fn bind(listen: &str, config: &Config) -> Result<Self, CliError> {
        let calls = bind(listen).await?;
        let entries = match &config.entries {
            None => None,
            Some(entries) => Some(TcpListener::bind(&entries.listen).await.map_err(|error| CliError::Unfit {
                message: format!("the ledger can't be served on {}: {error}", entries.listen),
                next: "another address in [entries] listen, or stop what uses this one".into(),
            })?),
        };
        let published = match &config.tiles {
            None => None,
            Some(tiles) => {
                let listener = TcpListener::bind(&tiles.listen).await.map_err(|error| CliError::Unfit {
                    message: format!("what is published can't be served on {}: {error}", tiles.listen),
                    next: "another address in [tiles] listen, or stop what uses this one".into(),
                })?;
                Some(Published { listener, logs: tiles.logs().map_err(CliError::unfit)? })
            }
        };
        Ok(Self { calls, entries, published })
    }

    /// Says where, in lines of which the last is about calls.
    pub fn told(&self) -> Result<(SocketAddr, String), CliError> {
        let address = |socket: &TcpListener| socket.local_addr().map_err(|error| CliError::unfit(error.to_string()));
        let calls = address(&self.calls)?;
        let mut told = String::new();
        if let Some(entries) = &self.entries {
            told.push_str(&format!("entries on https://{}\n", address(entries)?));
        }
        if let Some(published) = &self.published {
            told.push_str(&format!("tiles on https://{}\n", address(&published.listener)?));
        }
        Ok((calls, format!("{told}serving on https://{calls}\n")))
    }
}

/// Binds the socket that a vault will answer on.
pub async fn bind(address: &str) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| CliError::Unfit {
        message: format!("the vault can't listen on {address}: {error}"),
        next: "another address with --listen, or stop what uses this one".into(),
    })
}

/// Serves a vault until `stop` comes, then closes it.
pub async fn serve(
    begun: Begun,
    layout: &Layout,
    sockets: impl Into<Sockets>,
    config: &Config,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), CliError> {
    let keeper = |tls: &TlsMaterial, outside| {
        let vouching = Vouching::new(authorities(tls)?);
        let keeper = FolderKeeper::new(layout.clone(), config.clone(), vouching.clone(), outside);
        Ok::<_, CliError>((Arc::new(keeper), vouching))
    };
    let (door, tls, vouching) = match begun {
        Begun::Open(Opened { vault, tls, outside, .. }) => {
            let (keeper, vouching) = keeper(&tls, outside)?;
            keeper.begin(&vault);
            (Door::open(vault, keeper), tls, vouching)
        }
        Begun::Sealed => {
            let tls = tls(layout, config)?;
            let (keeper, vouching) = keeper(&tls, None)?;
            (Door::sealed(keeper, "it was started sealed and waits for what opens it"), tls, vouching)
        }
        Begun::Waiting { root, why } => {
            let tls = tls(layout, config)?;
            let (keeper, vouching) = keeper(&tls, Some(root))?;
            (Door::waiting(keeper, why.to_string()), tls, vouching)
        }
    };
    let reload = reload(layout, config);
    let actors = config.actors.issuers(layout).map_err(CliError::unfit)?;
    serve_door(door, (tls, vouching, actors), reload, sockets.into(), config, stop).await
}

fn authorities(tls: &TlsMaterial) -> Result<Vec<[u8; 32]>, CliError> {
    tls.client_authorities().map_err(|error| CliError::unfit(error.to_string()))
}

/// How certificates are looked for while the vault runs: again and again, and at once on SIGHUP.
fn reload(layout: &Layout, config: &Config) -> Reload {
    let now = Arc::new(Notify::new());
    // Without the signal they are still looked for, only later.
    if let Ok(mut hangup) = signal(SignalKind::hangup()) {
        let told = Arc::downgrade(&now);
        tokio::spawn(async move {
            while hangup.recv().await.is_some()
                && let Some(now) = told.upgrade()
            {
                now.notify_one();
            }
        });
    }
    let every = Duration::from_secs(config.tls.reload_seconds);
    let (layout, config) = (layout.clone(), config.clone());
    let read = move || read_tls(&layout, &config).map_err(|error| error.to_string());
    Reload { read: Arc::new(read), every, now }
}

async fn serve_door(
    door: Door<RocksStore>,
    (tls, vouching, actors): (TlsMaterial, Vouching, Actors),
    reload: Reload,
    Sockets { calls, entries, published }: Sockets,
    config: &Config,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), CliError> {
    let options = Options {
        max_connections: config.capacity.connections,
        max_requests_in_flight: config.capacity.requests,
        names: config.tls.names().map_err(CliError::unfit)?,
        reload: Some(reload),
        vouching,
        actors,
        entries,
        published,
        ..Options::new(calls, tls, env!("CARGO_PKG_VERSION"))
    };
    let door = Arc::new(door);
    let watch = watch(config);
    let (ended, end) = oneshot::channel::<()>();
    let watching = tokio::spawn(strongroom_server::watch_root(Arc::clone(&door), watch, async { drop(end.await) }));
    let mut watching = std::pin::pin!(watching);
    let served = tokio::select! {
        served = strongroom_server::serve(Arc::clone(&door), options, stop) => {
            drop(ended);
            // A panic has been reported by the runtime.
            drop(watching.await);
            served.map_err(|error| CliError::unfit(error.to_string()))
        }
        // Nobody would hear any more that the root key was taken away.
        _ = &mut watching => Err(CliError::unfit("the watch over the root key has ended; the log says why")),
    };
    door.shut().await;
    served
}

/// How those are watched who keep keys outside of the process.
pub fn watch(config: &Config) -> RootWatch {
    RootWatch {
        every: Duration::from_secs(config.root.check_seconds),
        patience: Duration::from_secs(config.root.unreachable_seconds),
    }
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

/// Why a store does not open.
fn closed(layout: &Layout, error: &StoreError) -> CliError {
    match is_locked(error) {
        true => CliError::Unfit {
            message: format!("another process has this vault open: {}", layout.dir().display()),
            next: "end that one first, or another folder with --dir".into(),
        },
        false => unfit(layout, error),
    }
}

/// Whether a store does not open because another process has it open.
pub fn is_locked(error: &StoreError) -> bool {
    // RocksDB keeps a second process out by a lock on the file LOCK.
    matches!(error, StoreError::Io { what, .. } if what.contains("LOCK") || what.contains("lock"))
}

/// Why a vault does not open, in words for whoever starts it.
pub fn unfit(layout: &Layout, error: &dyn std::error::Error) -> CliError {
    CliError::Unfit {
        message: format!("the vault in {} does not open: {error}", layout.dir().display()),
        next: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const START: u64 = 1_800_000_000 * SECOND;

    #[test]
    fn small_corrections_of_the_clock_are_followed() {
        let mut anchor = Anchor { time: START, running: 5, jumped: false };
        assert_eq!(anchor.tell(START + 10 * SECOND, 5 + 10 * SECOND), START + 10 * SECOND);
        // Set ahead and back by half an hour.
        assert_eq!(anchor.tell(START + 1_811 * SECOND, 5 + 11 * SECOND), START + 1_811 * SECOND);
        assert_eq!(anchor.tell(START + 12 * SECOND, 5 + 12 * SECOND), START + 12 * SECOND);
        assert!(!anchor.jumped);
    }

    #[test]
    fn a_jump_of_the_clock_is_not_followed_until_it_is_undone() {
        for wrong in [START + 365 * 86_400 * SECOND, START - 86_400 * SECOND, START + JUMP + 30 * SECOND, 0, u64::MAX] {
            let mut anchor = Anchor { time: START, running: 0, jumped: false };
            assert_eq!(anchor.tell(wrong, 30 * SECOND), START + 30 * SECOND, "{wrong}");
            assert!(anchor.jumped);
            let later = wrong.saturating_add(60 * SECOND);
            assert_eq!(anchor.tell(later, 90 * SECOND), START + 90 * SECOND, "{wrong}");
            assert_eq!(anchor.tell(START + 101 * SECOND, 100 * SECOND), START + 101 * SECOND);
            assert!(!anchor.jumped);
        }
    }

    #[test]
    fn a_machine_that_slept_did_not_jump() {
        let mut anchor = Anchor { time: START, running: 0, jumped: false };
        let morning = 8 * 3_600 * SECOND;
        assert_eq!(anchor.tell(START + morning, morning), START + morning);
        assert!(!anchor.jumped);
    }
}
