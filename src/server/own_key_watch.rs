//! The watch over tenants whose own keys providers keep, who may take them away.
//!
//! Each of these providers is asked as the root key's is, and what it says concerns its tenant alone: denied, the tenant is
//! locked at once; not answered, after the same patience; and it is unlocked when the vault may have the key again, first of
//! all after a start. No provider that hangs holds another one up, or keeps keys in memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_storage::Store;
use strongroom_vault::{Error, OwnKeyProbe, Provided, RootError, RootKind, RootProvider, UnwrappedTenantKey, Vault};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::door::Heard;
use crate::root_watch::{ANSWER, RootWatch, Verdict, Watched};

/// Finds the provider of a kind that is configured for a tenant. The same each time: it knows what failed before.
pub type OwnKeyProviders = dyn Fn(&str, RootKind) -> Result<Arc<dyn RootProvider>, RootError> + Send + Sync;

/// Watches over the own keys of an open vault's tenants until `stop` comes. It does not wait for an answer then.
pub async fn watch_own_keys<S: Store>(
    vault: &Arc<Vault<S>>,
    providers: Arc<OwnKeyProviders>,
    watch: RootWatch,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let watched: Arc<Mutex<HashSet<Provided>>> = Arc::default();
    // All end with this.
    let mut watches = JoinSet::new();
    loop {
        match vault.provided_tenants().await {
            Ok(tenants) => {
                for tenant in tenants {
                    if lock(&watched).insert(tenant.clone()) {
                        let (vault, providers, watched) =
                            (Arc::clone(vault), Arc::clone(&providers), Arc::clone(&watched));
                        watches.spawn(async move {
                            let watching = Watching { tenant, watched };
                            watch_one(&vault, &watching.tenant, &*providers, watch).await;
                        });
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "it is not known yet whose own keys are to be watched over"),
        }
        tokio::select! {
            () = tokio::time::sleep(watch.every) => {}
            () = &mut stop => return,
        }
        while watches.try_join_next().is_some() {}
    }
}

/// A watch that goes on. However it ends, the next round may begin another.
struct Watching {
    tenant: Provided,
    watched: Arc<Mutex<HashSet<Provided>>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        lock(&self.watched).remove(&self.tenant);
    }
}

/// Watches over one tenant's own key until no provider keeps it any more.
async fn watch_one<S: Store>(vault: &Vault<S>, tenant: &Provided, providers: &OwnKeyProviders, watch: RootWatch) {
    let mut watched = Watched::new(watch, Instant::now());
    while let Some(probe) = vault.own_key_probe(tenant.id) {
        let asked = probe.changed();
        let (heard, key) = ask(providers(&tenant.name, probe.kind()), probe).await;
        let (heard, failed) = match key {
            None => (heard, None),
            Some(key) => match vault.unlock_tenant(tenant, key).await {
                Ok(()) => (heard, None),
                // It is another key. One that has moved while it was asked for is not locked below.
                Err(Error::OwnKey(why)) => (Heard::Denied(why), None),
                Err(error) => (heard, Some(error)),
            },
        };
        let locked = match watched.hears(heard, Instant::now()) {
            Verdict::GoOn(note) => {
                if !note.is_empty() {
                    tracing::warn!(tenant = tenant.name, note, "a tenant's own key is not confirmed");
                }
                Ok(())
            }
            Verdict::GiveUp(why, reason) => {
                tracing::warn!(tenant = tenant.name, reason, "a tenant's own key is away");
                vault.lock_tenant(tenant, asked, why).await
            }
        };
        for error in failed.into_iter().chain(locked.err()) {
            // It is tried again; a tenant that is locked stays so.
            tracing::error!(%error, tenant = tenant.name, "a tenant was not locked or unlocked in good order");
        }
        tokio::time::sleep(watched.pause(Instant::now())).await;
    }
}

/// Asks a provider for a tenant key.
async fn ask(
    provider: Result<Arc<dyn RootProvider>, RootError>,
    probe: OwnKeyProbe,
) -> (Heard, Option<UnwrappedTenantKey>) {
    let provider = match provider {
        Ok(provider) => provider,
        Err(error) => return (Heard::Nothing(error.to_string()), None),
    };
    let asked = tokio::task::spawn_blocking(move || probe.ask(&*provider));
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(Ok(key))) => (Heard::Holds, Some(key)),
        Ok(Ok(Err(error))) if error.is_refusal() => (Heard::Denied(error.to_string()), None),
        Ok(Ok(Err(error))) => (Heard::Nothing(error.to_string()), None),
        Ok(Err(_)) => (Heard::Nothing("asking for it did not end".to_owned()), None),
        Err(_) => (Heard::Nothing(format!("there was no answer in {} s", ANSWER.as_secs())), None),
    }
}

fn lock<T>(behind: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere leaves it whole.
    behind.lock().unwrap_or_else(PoisonError::into_inner)
}
