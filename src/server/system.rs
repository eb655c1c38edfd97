//! strongroom.v1.System: the state of the vault, for operators.

use strongroom_proto::v1;
use strongroom_storage::Store;
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;

/// The service.
pub(crate) struct SystemService<S: Store> {
    pub edge: Edge<S>,
    /// The version of the software.
    pub version: &'static str,
}

#[tonic::async_trait]
impl<S: Store> v1::system_server::System for SystemService<S> {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let caller = self.edge.caller(&request)?;
        let now = self.edge.vault.status(&caller).await.map_err(status)?;
        let keys =
            now.keys.into_iter().map(|(name, version, state)| v1::KeyStatus { name, version, state: state.to_owned() });
        Ok(Response::new(v1::StatusResponse {
            version: self.version.to_owned(),
            vault_id: now.vault_id.to_string(),
            tenant: now.tenant,
            principal: caller.principal.name.to_string(),
            role: caller.principal.role.as_str().to_owned(),
            start_time: Some(instants::to_wire(now.start)),
            state: now.state.to_owned(),
            schema_version: now.schema_version,
            policy_version: now.policy_version,
            ledger_size: now.ledger_size,
            keystore_number: now.keystore_number,
            keys: keys.collect(),
        }))
    }
}
