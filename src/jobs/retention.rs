//! Retention: the clock is looked at, and what is due begins to be erased when it is time for that.

use std::future::Future;
use std::time::Duration;

use strongroom_storage::Store;
use strongroom_vault::Vault;

use crate::pause;

/// How often it is looked: a jump of the clock shall be seen before much is done by it.
const EVERY: Duration = Duration::from_secs(60);

/// Looks again and again until `stop` completes.
pub(crate) async fn run<S: Store>(vault: &Vault<S>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        let look = async {
            vault.look_at_clock().await?;
            vault.start_due_expiries().await
        };
        let wait = async {
            match look.await {
                Ok(()) => tokio::time::sleep(EVERY).await,
                Err(error) => pause(&error, "retention").await,
            }
        };
        tokio::select! {
            () = &mut stop => return,
            () = wait => {}
        }
    }
}
