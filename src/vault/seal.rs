//! Sealing: that it is wanted is decided and recorded like any request; whoever holds the vault then closes it.

use std::future::Future;

use strongroom_access::Action;
use strongroom_keys::{RootKind, RootProbe};
use strongroom_storage::Store;

use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::own_action::OwnAction;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::vault::Vault;

/// Asks whether the vault may be sealed.
struct Seal;

impl<S: Store> Attempt<S> for Seal {
    type Answer = ();
    const ACTION: Action = Action::Seal;
    /// It protects, and needs no space.
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        road.decide_vault()?;
        Ok(road.prepare(()))
    }
}

impl<S: Store> Vault<S> {
    /// Decides and records that the vault is sealed. To do it is to close the vault and let go of it: [`Vault::gone`].
    pub async fn seal(&self, caller: &Caller) -> Result<(), Error> {
        self.travel(caller, &Seal).await
    }

    /// Records in the vault's own log that it was unsealed: what keeps its root key, and who brought what that needed.
    /// Nobody is a name that the vault vouches for: while it was sealed it knew nobody.
    pub async fn record_unsealed(&self, provider: &str, by: &[String]) -> Result<(), Error> {
        self.record_by_itself(SYSTEM_NO, OwnAction::Unseal, &[("provider", provider), ("by", &by.join(" "))], vec![])
            .await
    }

    /// Records in the vault's own log that it seals itself: what keeps its root key, and why it may not have it any more.
    pub async fn record_sealed(&self, provider: &str, why: &str) -> Result<(), Error> {
        self.record_by_itself(SYSTEM_NO, OwnAction::Seal, &[("provider", provider), ("why", why)], vec![]).await
    }

    /// Who keeps the root key.
    pub fn root_kind(&self) -> RootKind {
        self.keystore.root()
    }

    /// What the provider of the root key is asked with whether this vault may still have it.
    pub fn root_probe(&self) -> RootProbe {
        self.keystore.probe()
    }

    /// Completes when nobody holds the vault any more: its keys are wiped then, and its store is closed.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + 'static + use<S> {
        let mut alive = self.alive.subscribe();
        async move { while alive.changed().await.is_ok() {} }
    }
}
