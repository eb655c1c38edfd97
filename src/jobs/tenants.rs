//! Tenants: what was begun of making or destroying one is finished, and the rows of destroyed ones are cleared.

use std::collections::HashSet;
use std::future::Future;

use futures_util::FutureExt;
use strongroom_ids::TenantNo;
use strongroom_storage::{Family, Store};
use strongroom_vault::{Error, Vault};

use crate::pause;

/// Finishes and clears until `stop` completes. What has begun on a family's files is not cut off: a store is at work on it,
/// and must be let go of before it can be opened again.
pub(crate) async fn run<S: Store>(vault: &Vault<S>, stop: impl Future<Output = ()> + Clone) {
    // What is clear is not cleared again, if the next family's turn fails.
    let mut clear = HashSet::new();
    while stop.clone().now_or_never().is_none() {
        match work(vault, &mut clear, stop.clone()).await {
            // What is left by now has left its mark: this returns at once then.
            Ok(()) => tokio::select! {
                () = stop.clone() => {}
                () = vault.tenant_work() => {}
            },
            Err(error) => tokio::select! {
                () = stop.clone() => {}
                () = pause(&error, "tenants") => {}
            },
        }
    }
}

/// All that there is to do now.
async fn work<S: Store>(
    vault: &Vault<S>,
    clear: &mut HashSet<(TenantNo, Family)>,
    stop: impl Future<Output = ()> + Clone,
) -> Result<(), Error> {
    vault.finish_tenant_changes().await?;
    for tenant in vault.tenants_to_clear().await? {
        for family in Family::ALL {
            if stop.clone().now_or_never().is_some() {
                return Ok(());
            }
            if !clear.contains(&(tenant, family)) {
                vault.clear_rows(tenant, family).await?;
                clear.insert((tenant, family));
            }
        }
        vault.record_cleared(tenant).await?;
        clear.retain(|(of, _)| *of != tenant);
        tracing::info!(tenant = tenant.0, "the rows of a destroyed tenant are cleared");
    }
    Ok(())
}
