//! The door: the vault while it is open, and how it is opened and closed while the process goes on.
//!
//! To seal a vault is to close it as a whole: all keys go with it. Calls then find the door closed and are told so, until
//! somebody brings what opens it, and the vault is opened anew from what is on disk, as at any start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use strongroom_access::Directory;
use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{Error, RootError, RootKind, RootProbe, RootProvider, Vault};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::errors::Refusal;

/// How long requests that hold a vault may take after it was sealed, so that who asked for it hears whether they let go:
/// a call of theirs ends after a minute.
const LET_GO: Duration = Duration::from_secs(45);

/// How long an unsealing waits for the ones before it.
const TURN: Duration = Duration::from_secs(20);

/// How long who brought something wrong, and whoever comes next, waits: nobody shall try many.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// The seal of an open vault that has its root key.
const OPEN: Seal = Seal::Open(String::new());

/// Who opens a vault that waited for its root key, as its log names them.
const BY_ITSELF: &str = "vault";

/// What somebody brought to unseal a vault. It is wiped on drop.
pub enum Brought {
    /// Nothing: what was brought before may be enough.
    Nothing,
    /// A passphrase, UTF-8.
    Passphrase(Zeroizing<Vec<u8>>),
    /// One share, in the form that it was given out in.
    Share(Zeroizing<Vec<u8>>),
}

/// Why a vault was not unsealed. No message holds what was brought.
#[derive(Debug)]
pub enum NotUnsealed {
    /// What was brought is wrong, or it is not what the vault needs.
    Credential(String),
    /// The vault that was opened does not know who opened it, or not as somebody who may; it was closed again.
    Stranger,
    /// Who keeps the root key does not let the vault have it.
    Denied(String),
    /// Who keeps the root key can't be reached.
    Unreachable(String),
    /// The vault does not open for another reason; the process's log says more.
    Unfit(String),
}

/// What it takes to open a vault.
pub struct Wants {
    /// Who keeps the root key: `file`, `shamir`, `pkcs11`, `aws-kms`, `openbao`.
    pub provider: &'static str,
    /// Shares that were brought; zero where there are none.
    pub shares_given: u32,
    /// Shares that are needed; zero where there are none.
    pub shares_needed: u32,
}

/// What was heard from who keeps the root key of an open vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It holds, or there is nobody to ask.
    Holds,
    /// Nothing that could be believed: no answer, or not to these credentials.
    Nothing(String),
    /// The vault may not have it any more.
    Denied(String),
}

/// Whether somebody may open the vault with this directory.
pub type Admits = dyn Fn(&Arc<Directory>) -> bool + Send + Sync;

/// Opens and closes one vault: whoever knows where it is and what keeps its root key.
#[tonic::async_trait]
pub trait Keeper<S: Store>: Send + Sync + 'static {
    /// What it takes to open the vault, and how far that has come.
    fn wants(&self) -> Wants;

    /// Opens the vault. `None` if more must be brought: what was is kept. `by` is who brings it, and `admits` says of the
    /// directory of the vault whether that may be.
    async fn unseal(&self, brought: Brought, by: &str, admits: &Admits) -> Result<Option<Arc<Vault<S>>>, NotUnsealed>;

    /// The provider of a kind that is configured for a tenant's own key.
    fn own_key_provider(&self, tenant: &str, kind: RootKind) -> Result<Arc<dyn RootProvider>, RootError>;

    /// Asks whether an open vault may still have its root key.
    async fn ask(&self, probe: RootProbe) -> Heard;

    /// Records in an open vault's log that it seals itself, and why: in a word of ours, since what was heard is not.
    async fn record_sealed(&self, vault: &Arc<Vault<S>>, why: &'static str);

    /// Forgets what was brought and was not enough.
    fn forget(&self);

    /// Closes the vault in good order. It lets go of it, but may not be the last to do so.
    async fn close(&self, vault: Arc<Vault<S>>);
}

/// How a vault's seal is. Why, always in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// It is open. What is wrong with its root key; empty if nothing is.
    Open(String),
    /// Somebody sealed it, or started it so.
    Sealed(String),
    /// It sealed itself, or could not have its root key when it was started: it opens by itself once it may.
    Waiting(String),
}

/// The one way to a vault that may be sealed.
pub struct Door<S: Store> {
    vault: ArcSwapOption<Vault<S>>,
    keeper: Arc<dyn Keeper<S>>,
    seal: Mutex<Seal>,
    /// Whether a request that does not end still holds the keys of a vault that was sealed.
    held: Arc<AtomicBool>,
    /// How often it was opened: what was heard of a vault is not held against the next.
    openings: AtomicU64,
    /// Held while the door is opened or closed. Whether it is shut for good.
    turning: tokio::sync::Mutex<bool>,
}

impl<S: Store> Door<S> {
    /// The door of an open vault.
    pub fn open(vault: Arc<Vault<S>>, keeper: Arc<dyn Keeper<S>>) -> Self {
        Self::new(Some(vault), keeper, OPEN)
    }

    /// The door of a sealed vault, and why it is sealed.
    pub fn sealed(keeper: Arc<dyn Keeper<S>>, reason: impl Into<String>) -> Self {
        Self::new(None, keeper, Seal::Sealed(reason.into()))
    }

    /// The door of a vault that could not have its root key, and why. It opens by itself once it can.
    pub fn waiting(keeper: Arc<dyn Keeper<S>>, reason: impl Into<String>) -> Self {
        Self::new(None, keeper, Seal::Waiting(reason.into()))
    }

    fn new(vault: Option<Arc<Vault<S>>>, keeper: Arc<dyn Keeper<S>>, seal: Seal) -> Self {
        let (vault, seal) = (ArcSwapOption::new(vault), Mutex::new(seal));
        let (openings, turning) = (AtomicU64::new(0), tokio::sync::Mutex::new(false));
        Self { vault, keeper, seal, held: Arc::default(), openings, turning }
    }

    /// The vault, if it is open. Who holds it keeps its keys in memory: not for longer than a call takes.
    pub(crate) fn vault(&self) -> Result<Arc<Vault<S>>, Status> {
        self.vault.load_full().ok_or_else(|| crate::errors::status(Error::Sealed))
    }

    /// What certificates are held against; nothing while the vault is sealed.
    pub(crate) fn directory(&self) -> Option<Arc<Directory>> {
        self.vault.load().as_ref().map(|vault| vault.directory())
    }

    /// See [`Vault::health`]; `sealed` if it is.
    pub(crate) fn health(&self) -> &'static str {
        self.vault.load().as_ref().map_or("sealed", |vault| vault.health())
    }

    /// Whether the vault waits for its root key, to open by itself.
    pub(crate) fn waits(&self) -> bool {
        matches!(*self.lock(), Seal::Waiting(_))
    }

    /// Whether the vault has its root key, and nothing is known that says otherwise.
    pub(crate) fn root_key_holds(&self) -> bool {
        *self.lock() == OPEN
    }

    /// How the vault is kept sealed, and whether it is.
    pub(crate) fn status(&self) -> v1::SealStatus {
        let (sealed, opens_by_itself, mut reason) = match self.lock().clone() {
            Seal::Open(note) => (false, false, note),
            Seal::Sealed(reason) => (true, false, reason),
            Seal::Waiting(reason) => (true, true, reason),
        };
        if sealed && self.held.load(Ordering::Relaxed) {
            reason.push_str("; a request still holds keys");
        }
        let Wants { provider, shares_given, shares_needed } = self.keeper.wants();
        let provider = provider.to_owned();
        v1::SealStatus { provider, sealed, reason, shares_given, shares_needed, opens_by_itself }
    }

    /// Opens the vault with what was brought, or keeps it until there is enough.
    pub(crate) async fn unseal(&self, brought: Brought, reset: bool, by: &str, admits: &Admits) -> Result<(), Status> {
        let shut = tokio::time::timeout(TURN, self.turning.lock()).await.map_err(|_| busy())?;
        if *shut {
            return Err(busy());
        }
        if self.vault.load().is_some() {
            return Err(Refusal::new(Code::FailedPrecondition, "NOT_SEALED", "the vault is open").into());
        }
        // No ledger can be written yet, so the log is all that tells of who tries.
        if reset {
            tracing::warn!(by, "shares that were given are forgotten");
            self.keeper.forget();
            if matches!(brought, Brought::Nothing) {
                return Ok(());
            }
        }
        match self.keeper.unseal(brought, by, admits).await {
            Ok(Some(vault)) => {
                self.opened(vault, by);
                Ok(())
            }
            Ok(None) => {
                let Wants { shares_given: given, shares_needed: needed, .. } = self.keeper.wants();
                tracing::warn!(by, given, needed, "a share was given");
                Ok(())
            }
            Err(refused) => {
                tracing::warn!(by, why = %refused, "the vault was not unsealed");
                // The next one waits for its turn as well.
                tokio::time::sleep(AFTER_A_FAILURE).await;
                Err(not_unsealed(&refused))
            }
        }
    }

    /// Opens a vault that waits for its root key, if it can have it now. What else is sealed stays so.
    pub(crate) async fn unseal_by_itself(&self) -> Result<(), NotUnsealed> {
        let shut = self.turning.lock().await;
        if *shut || !self.waits() {
            return Ok(());
        }
        match self.keeper.unseal(Brought::Nothing, BY_ITSELF, &|_| true).await {
            Ok(Some(vault)) => {
                self.opened(vault, BY_ITSELF);
                Ok(())
            }
            // Its root key was moved to shares, which people must bring.
            Ok(None) => Ok(()),
            Err(refused) => {
                *self.lock() = Seal::Waiting(refused.to_string());
                Err(refused)
            }
        }
    }

    fn opened(&self, vault: Arc<Vault<S>>, by: &str) {
        self.openings.fetch_add(1, Ordering::Relaxed);
        self.vault.store(Some(vault));
        *self.lock() = OPEN;
        tracing::warn!(by, "the vault is unsealed");
    }

    /// The provider of a kind that is configured for a tenant's own key.
    pub(crate) fn own_key_provider(&self, tenant: &str, kind: RootKind) -> Result<Arc<dyn RootProvider>, RootError> {
        self.keeper.own_key_provider(tenant, kind)
    }

    /// How often it was opened.
    pub(crate) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// Asks whether the open vault may still have its root key. `None` if it is sealed. Keeps no vault from being closed.
    pub(crate) async fn ask(&self) -> Option<Heard> {
        let probe = self.vault.load().as_ref().map(|vault| vault.root_probe())?;
        Some(self.keeper.ask(probe).await)
    }

    /// Says in the status of an open vault what is wrong with its root key; nothing, if nothing is.
    pub(crate) fn note(&self, note: String) {
        if let Seal::Open(told) = &mut *self.lock() {
            *told = note;
        }
    }

    /// Keeps a vault sealed that waits to open by itself. `false` if it does not wait.
    pub(crate) async fn stay_sealed(&self, reason: &str) -> bool {
        let _turning = self.turning.lock().await;
        self.stay(reason)
    }

    fn stay(&self, reason: &str) -> bool {
        let mut seal = self.lock();
        let waits = matches!(*seal, Seal::Waiting(_));
        if waits {
            tracing::warn!(reason, "the vault stays sealed");
            *seal = Seal::Sealed(reason.to_owned());
        }
        waits
    }

    /// Closes the vault on somebody's order, and waits until nobody holds it any more. Returns whether that has come to
    /// pass: if not, a request that does not end still holds keys.
    pub(crate) async fn seal(&self, reason: &str) -> bool {
        self.close(self.turning.lock().await, Seal::Sealed(reason.to_owned()), None).await
    }

    /// Closes the vault of an opening because it may not have its root key any more, or nobody says that it may; which of
    /// these in a word, and in a sentence.
    pub(crate) async fn seal_by_itself(&self, opening: u64, why: &'static str, reason: &str) {
        let turning = self.turning.lock().await;
        if self.openings() == opening {
            self.close(turning, Seal::Waiting(reason.to_owned()), Some(why)).await;
        }
    }

    async fn close(
        &self,
        _turning: tokio::sync::MutexGuard<'_, bool>,
        seal: Seal,
        by_itself: Option<&'static str>,
    ) -> bool {
        // Nobody who comes from here on finds it.
        let Some(vault) = self.vault.swap(None) else {
            if let Seal::Sealed(reason) = &seal {
                self.stay(reason);
            }
            return !self.held.load(Ordering::Relaxed);
        };
        tracing::warn!(?seal, "the vault is sealed");
        *self.lock() = seal;
        if let Some(why) = by_itself {
            self.keeper.record_sealed(&vault, why).await;
        }
        let gone = vault.gone();
        self.held.store(true, Ordering::Relaxed);
        let held = Arc::clone(&self.held);
        let let_go = tokio::spawn(async move {
            gone.await;
            held.store(false, Ordering::Relaxed);
        });
        self.keeper.close(vault).await;
        let let_go = tokio::time::timeout(LET_GO, let_go).await.is_ok();
        if !let_go {
            tracing::error!("the vault is sealed, but a request still holds keys: end the process to be rid of them");
        }
        let_go
    }

    /// Closes the vault for good: the process ends.
    pub async fn shut(&self) {
        *self.turning.lock().await = true;
        if let Some(vault) = self.vault.swap(None) {
            self.keeper.close(vault).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seal> {
        // A panic elsewhere leaves it whole.
        self.seal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for NotUnsealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stranger => f.write_str("the vault does not know who opened it, so it was closed again"),
            Self::Credential(why) | Self::Denied(why) | Self::Unreachable(why) | Self::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NotUnsealed {}

fn busy() -> Status {
    Refusal::unavailable("UNSEALING", "somebody else seals or unseals the vault at this moment: try again").into()
}

fn not_unsealed(refused: &NotUnsealed) -> Status {
    let why = refused.to_string();
    match refused {
        NotUnsealed::Stranger => return crate::errors::status(Error::Denied { action: "unseal" }),
        NotUnsealed::Credential(_) => Refusal::new(Code::InvalidArgument, "CREDENTIAL_INVALID", why),
        NotUnsealed::Denied(_) => Refusal::new(Code::FailedPrecondition, "ROOT_KEY_DENIED", why),
        NotUnsealed::Unreachable(_) => Refusal::unavailable("ROOT_KEY_UNREACHABLE", why),
        NotUnsealed::Unfit(_) => Refusal::new(Code::FailedPrecondition, "VAULT_UNFIT", why),
    }
    .into()
}
