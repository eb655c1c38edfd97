//! The door: the vault while it is open, and how it is opened and closed while the process goes on.
//!
//! To seal a vault is to close it as a whole: all keys go with it. Calls then find the door closed and are told so, until
//! somebody brings what opens it, and the vault is opened anew from what is on disk, as at any start.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use strongroom_access::Directory;
use strongroom_storage::Store;
use strongroom_vault::{Error, Vault};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::errors::Refusal;

/// How long requests that hold a vault may take after it was sealed. A call takes a minute at most.
const LET_GO: Duration = Duration::from_secs(70);

/// What somebody brought to unseal a vault. It is wiped on drop.
pub enum Brought {
    /// Nothing: the provider of the root key is asked with what the vault was configured with.
    Nothing,
    /// A passphrase, UTF-8.
    Passphrase(Zeroizing<Vec<u8>>),
    /// One share, in the form that it was given out in.
    Share(Zeroizing<Vec<u8>>),
}

/// How far an unsealing has come.
pub enum Unsealing<S: Store> {
    /// The vault is open.
    Open(Arc<Vault<S>>),
    /// So many shares were given, and so many are needed.
    Waiting {
        /// Shares that were given.
        given: u32,
        /// Shares that are needed.
        needed: u32,
    },
}

/// Why a vault was not unsealed. No message holds what was brought.
#[derive(Debug)]
pub enum NotUnsealed {
    /// What was brought is wrong, or it is not what the vault needs.
    Credential(String),
    /// The provider says no.
    Denied(String),
    /// The provider does not answer.
    Unreachable(String),
    /// The vault does not open for another reason; the process's log says more.
    Unfit(String),
}

/// Opens and closes one vault: whoever knows where it is and what keeps its root key.
#[tonic::async_trait]
pub trait Keeper<S: Store>: Send + Sync + 'static {
    /// Who keeps the root key: `file`, `shamir`, `pkcs11`, `aws-kms`, `openbao`.
    fn provider(&self) -> String;

    /// Opens the vault, or keeps what was brought until there is enough. `by` is who brings it.
    async fn unseal(&self, brought: Brought, by: &str) -> Result<Unsealing<S>, NotUnsealed>;

    /// Forgets what was brought and was not enough.
    fn forget(&self);

    /// Closes the vault in good order. It lets go of it, but may not be the last to do so.
    async fn close(&self, vault: Arc<Vault<S>>);
}

/// How a vault is kept sealed, and whether it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    pub sealed: bool,
    pub reason: String,
    pub given: u32,
    pub needed: u32,
}

/// The one way to a vault that may be sealed.
pub struct Door<S: Store> {
    vault: ArcSwapOption<Vault<S>>,
    keeper: Arc<dyn Keeper<S>>,
    seal: Mutex<Seal>,
    /// Held while the door is opened or closed.
    turning: tokio::sync::Mutex<()>,
}

impl<S: Store> Door<S> {
    /// The door of an open vault.
    pub fn open(vault: Arc<Vault<S>>, keeper: Arc<dyn Keeper<S>>) -> Self {
        Self::new(Some(vault), keeper, Seal::default())
    }

    /// The door of a sealed vault, and why it is sealed.
    pub fn sealed(keeper: Arc<dyn Keeper<S>>, reason: impl Into<String>) -> Self {
        Self::new(None, keeper, Seal { sealed: true, reason: reason.into(), ..Seal::default() })
    }

    fn new(vault: Option<Arc<Vault<S>>>, keeper: Arc<dyn Keeper<S>>, seal: Seal) -> Self {
        Self { vault: ArcSwapOption::new(vault), keeper, seal: Mutex::new(seal), turning: tokio::sync::Mutex::new(()) }
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

    /// Who keeps the root key, and how the seal is.
    pub(crate) fn status(&self) -> (String, Seal) {
        (self.keeper.provider(), self.lock().clone())
    }

    /// What is wrong with the provider of an open vault, for operators; empty: nothing.
    pub fn note(&self, reason: impl Into<String>) {
        self.lock().reason = reason.into();
    }

    /// Opens the vault with what was brought.
    pub(crate) async fn unseal(&self, brought: Brought, reset: bool, by: &str) -> Result<Seal, Status> {
        let _turning = self.turning.try_lock().map_err(|_| busy())?;
        if self.vault.load().is_some() {
            return Err(Refusal::new(Code::FailedPrecondition, "NOT_SEALED", "the vault is open").into());
        }
        if reset {
            self.keeper.forget();
            let mut seal = self.lock();
            seal.given = 0;
            if matches!(brought, Brought::Nothing) {
                return Ok(seal.clone());
            }
        }
        self.try_to_unseal(brought, by).await.map_err(|refused| {
            // No ledger can be written yet, so the log is all that tells of somebody who tries.
            tracing::warn!(by, why = %refused, "the vault was not unsealed");
            not_unsealed(&refused)
        })
    }

    /// Opens the vault with what it was configured with, unless somebody is at it or it is open.
    pub async fn unseal_by_itself(&self) -> Result<(), NotUnsealed> {
        let Ok(_turning) = self.turning.try_lock() else { return Ok(()) };
        if self.vault.load().is_some() {
            return Ok(());
        }
        let tried = self.try_to_unseal(Brought::Nothing, "the vault itself").await;
        if let Err(refused) = &tried {
            self.lock().reason = refused.to_string();
        }
        tried.map(drop)
    }

    async fn try_to_unseal(&self, brought: Brought, by: &str) -> Result<Seal, NotUnsealed> {
        match self.keeper.unseal(brought, by).await? {
            Unsealing::Open(vault) => {
                self.vault.store(Some(vault));
                *self.lock() = Seal::default();
                tracing::warn!(by, "the vault is unsealed");
            }
            Unsealing::Waiting { given, needed } => {
                let mut seal = self.lock();
                (seal.given, seal.needed) = (given, needed);
            }
        }
        Ok(self.lock().clone())
    }

    /// Closes the vault, and waits until nobody holds it any more. Returns whether that has come to pass: if not, a
    /// request that does not end still holds keys.
    pub async fn seal(&self, reason: &str) -> bool {
        let _turning = self.turning.lock().await;
        // Nobody who comes from here on finds it.
        let Some(vault) = self.vault.swap(None) else { return true };
        *self.lock() = Seal { sealed: true, reason: reason.to_owned(), ..Seal::default() };
        tracing::warn!(reason, "the vault is sealed");
        let gone = vault.gone();
        self.keeper.close(vault).await;
        let let_go = tokio::time::timeout(LET_GO, gone).await.is_ok();
        if !let_go {
            tracing::error!("the vault is sealed, but a request still holds keys: end the process to be rid of them");
        }
        let_go
    }

    /// Closes the vault for good: the process ends.
    pub async fn shut(&self) {
        let _turning = self.turning.lock().await;
        if let Some(vault) = self.vault.swap(None) {
            self.keeper.close(vault).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seal> {
        self.seal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for NotUnsealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
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
        NotUnsealed::Credential(_) => Refusal::new(Code::InvalidArgument, "CREDENTIAL_INVALID", why),
        NotUnsealed::Denied(_) => Refusal::new(Code::FailedPrecondition, "ROOT_DENIED", why),
        NotUnsealed::Unreachable(_) => Refusal::unavailable("ROOT_UNREACHABLE", why),
        NotUnsealed::Unfit(_) => Refusal::new(Code::FailedPrecondition, "VAULT_UNFIT", why),
    }
    .into()
}
