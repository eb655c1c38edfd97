//! Moving the keystore to another root key, with two leaves in the log `system`: what is intended, and what became of it.

use std::sync::Arc;

use strongroom_keys::{Keystore, RootError, RootProvider, random};
use strongroom_storage::Store;
use thiserror::Error;

use super::change::{Intent, Record};
use crate::blocking::blocking;
use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::own_action::OwnAction;
use crate::vault::Vault;

/// What the leaves call it.
const ACTION: &str = OwnAction::MoveRootKey.as_str();

/// Why the keystore was not moved to another root key, or is not known to be.
#[derive(Debug, Error)]
pub enum RootMoveError {
    /// The new root key's provider, or the keystore, refused: the old root key is in use.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The ledger could not be written.
    #[error(transparent)]
    Vault(#[from] Error),
    /// The keystore may have been replaced, or not.
    #[error(
        "whether the keystore was moved is unknown ({0}): open the vault with the new root key, and if that does not open \
         it, with the old one"
    )]
    Unknown(RootError),
}

impl<S: Store> Vault<S> {
    /// Moves the keystore to another root key. Whoever can open the vault and has the new root key may: no policy is asked,
    /// and the ledger says that it was done on the machine itself. Everybody waits meanwhile.
    ///
    /// A crash leaves the old root key in use or the new one; the next start says in the ledger which.
    pub async fn move_root(&self, to: Arc<dyn RootProvider>) -> Result<(), RootMoveError> {
        let tenant = &*self.tenant(SYSTEM_NO)?;
        let _turn = self.turn.write().await;
        let position = self.committer.position();
        if Record::is_open(&*self.store, tenant).await? {
            // A start finishes what it finds; this one has come into being since.
            return Err(Error::Conflict.into());
        }
        let request: [u8; 16] = random().map_err(Error::from)?;
        let intent = Intent {
            request: data_encoding::HEXLOWER.encode(&request),
            principal: "vault".to_owned(),
            action: ACTION.to_owned(),
            key: self.keystore.root().to_string(),
            version: 0,
            state: to.kind().to_string(),
            time: self.now(),
        };
        self.commit_stage(tenant, position, &intent, "intent", None).await?;
        let keystore = Arc::clone(&self.keystore);
        let moved = blocking(move || keystore.move_root(&*to)).await?;
        match moved {
            Err(error) if !self.keystore.is_settled() => return Err(RootMoveError::Unknown(error)),
            _ => {}
        }
        let failed = moved.as_ref().err().map(|error| Error::KeyUnavailable(error.to_string()));
        self.commit_stage(tenant, self.committer.position(), &intent, "done", failed.as_ref()).await?;
        Ok(moved?)
    }
}

impl Intent {
    /// Whether it is a move to another root key. `key` is then the provider before, and `state` the one after.
    pub(super) fn moves_root(&self) -> bool {
        self.action == ACTION
    }

    /// Whether a move that was cut off was made. Nothing else writes the keystore between the intent and its end, so its
    /// number says it.
    pub(super) fn root_was_moved(&self, keystore: &Keystore, before: u64) -> Result<(), Error> {
        match keystore.number() > before {
            true => Ok(()),
            false => Err(Error::KeyState(format!(
                "the move of the root key from {} to {} was cut off before it was made: the old one is in use; move again",
                self.key, self.state
            ))),
        }
    }
}
