//! The providers that keep tenants' own keys, as the configuration names them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_keys::{Keystore, RootError, RootKind, RootProvider};
use strongroom_storage::Store;

use super::config::{Config, OwnKeys};
use super::output::CliError;
use super::root;

/// Those providers, each made once: it knows what failed before.
pub struct Providers {
    named: OwnKeys,
    made: Mutex<HashMap<(String, RootKind), Arc<dyn RootProvider>>>,
}

impl Providers {
    /// As a configuration names them.
    pub fn new(named: OwnKeys) -> Self {
        Self { named, made: Mutex::default() }
    }

    /// The provider of a kind for a tenant.
    pub fn get(&self, tenant: &str, kind: RootKind) -> Result<Arc<dyn RootProvider>, RootError> {
        let key = (tenant.to_owned(), kind);
        // A panic elsewhere leaves it whole.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = made.get(&key) {
            return Ok(Arc::clone(there));
        }
        let missing = || kind.settings(format!("there is no table [own_keys.{tenant}.{kind}], which says where it is"));
        let provider = root::outside(kind, self.named.get(tenant).ok_or_else(missing)?, missing)?;
        made.insert(key, Arc::clone(&provider));
        Ok(provider)
    }
}

/// Unlocks the tenants whose providers let their keys be had. Those whose do not stay locked, and it is said why.
pub async fn unlock_all<S: Store>(store: &S, keystore: &Keystore, config: &Config) -> Result<(), CliError> {
    let providers = Providers::new(config.own_keys.clone());
    let tenants = strongroom_vault::provided_tenants(store, keystore).await;
    for tenant in tenants.map_err(|error| CliError::unfit(error.to_string()))? {
        let unlocked = keystore.own_key_probe(tenant.id).map_err(RootError::from).and_then(|probe| {
            let provider = providers.get(&tenant.name, probe.kind())?;
            keystore.unlock_tenant(tenant.id, Some(probe.ask(&*provider)?))
        });
        if let Err(error) = unlocked {
            tracing::warn!(tenant = tenant.name, %error, "a tenant stays locked");
        }
    }
    Ok(())
}
