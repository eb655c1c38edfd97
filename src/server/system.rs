//! strongroom.v1.System: the state of the vault, its seal and its tenants, for operators.

use std::sync::Arc;

use strongroom_access::{Directory, Principal, Role};
use strongroom_proto::v1;
use strongroom_proto::v1::unseal_request::Credential;
use strongroom_storage::Store;
use strongroom_vault::{ConfirmClock, Error, Violation};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::certificates::Certificates;
use crate::door::Brought;
use crate::edge::{self, Edge};
use crate::errors::status;
use crate::identity;
use crate::instants;
use crate::tenants;

/// The service.
pub(crate) struct SystemService<S: Store> {
    pub edge: Edge<S>,
    /// The version of the software.
    pub version: &'static str,
    /// The certificates that it is served with.
    pub certificates: Arc<Certificates>,
}

impl<S: Store> SystemService<S> {
    /// What the vault tells of itself, open or sealed. What is wrong is for those who can do something: it names machines,
    /// files and keys.
    fn of_itself(&self, principal: &Principal) -> v1::StatusResponse {
        let with_problem = matches!(principal.role, Role::Operator | Role::Officer);
        let mut seal = self.edge.door.status();
        if !with_problem {
            seal.reason.clear();
        }
        v1::StatusResponse {
            version: self.version.to_owned(),
            principal: principal.name.to_string(),
            role: principal.role.as_str().to_owned(),
            state: self.edge.door.health().to_owned(),
            seal: Some(seal),
            certificates: Some(self.certificates.status(with_problem)),
            actor_issuers: self.edge.actors.status(with_problem),
            ..Default::default()
        }
    }
}

#[tonic::async_trait]
impl<S: Store> v1::system_server::System for SystemService<S> {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let Ok(vault) = self.edge.vault() else {
            return Ok(Response::new(self.of_itself(&edge::peer(&request)?.named(identity::now())?)));
        };
        let caller = self.edge.caller(&request)?;
        let now = vault.status(&caller).await.map_err(status)?;
        let keys =
            now.keys.into_iter().map(|(name, version, state)| v1::KeyStatus { name, version, state: state.to_owned() });
        Ok(Response::new(v1::StatusResponse {
            vault_id: now.vault_id.to_string(),
            tenant: now.tenant,
            start_time: Some(instants::to_wire(now.start)),
            state: now.state.to_owned(),
            schema_version: now.schema_version,
            policy_version: now.policy_version,
            ledger_size: now.ledger_size,
            keystore_number: now.keystore_number,
            keys: keys.collect(),
            journal: now.journal.map(|(path, records)| v1::JournalStatus { path: path.display().to_string(), records }),
            notice: now.notice,
            clock_problem: now.clock_jump.map(|jump| jump.to_string()).unwrap_or_default(),
            ..self.of_itself(&caller.principal)
        }))
    }

    async fn seal(&self, request: Request<v1::SealRequest>) -> Result<Response<v1::SealResponse>, Status> {
        if self.edge.door.waits() {
            // It knows nobody, as when it is unsealed.
            let principal = officer_or_operator(&request, "seal")?;
            if self.edge.door.stay_sealed(&format!("{} sealed it", principal.name)).await {
                return Ok(Response::new(v1::SealResponse {}));
            }
        }
        let caller = self.edge.caller(&request)?;
        let (vault, door) = (self.edge.vault()?, self.edge.door.clone());
        let seal = async move {
            vault.seal(&caller).await?;
            // Whoever holds it holds its keys.
            drop(vault);
            match door.seal(&format!("{} sealed it", caller.principal.name)).await {
                true => Ok(()),
                false => Err(Error::Internal("a request still holds keys; end the process to be rid of them")),
            }
        };
        self.edge.to_its_end(seal).await?;
        Ok(Response::new(v1::SealResponse {}))
    }

    async fn unseal(&self, request: Request<v1::UnsealRequest>) -> Result<Response<v1::UnsealResponse>, Status> {
        let principal = officer_or_operator(&request, "unseal")?;
        let peer = edge::peer(&request)?;
        let v1::UnsealRequest { credential, reset } = request.into_inner();
        let brought = match credential {
            None => Brought::Nothing,
            Some(Credential::Passphrase(bytes)) => Brought::Passphrase(Zeroizing::new(bytes.into())),
            Some(Credential::Share(bytes)) => Brought::Share(Zeroizing::new(bytes.into())),
        };
        let door = self.edge.door.clone();
        let by = principal.name;
        let admits = move |directory: &Arc<Directory>| match peer.caller(directory, identity::now()) {
            Ok(caller) => matches!(caller.principal.role, Role::Operator | Role::Officer),
            Err(_) => false,
        };
        // To its end: what was half opened would have to be closed again.
        let unsealed = self.edge.workers.spawn(async move { door.unseal(brought, reset, &by, &admits).await });
        unsealed.await.map_err(|_| status(Error::Internal("an unsealing did not end")))??;
        Ok(Response::new(v1::UnsealResponse { seal: Some(self.edge.door.status()) }))
    }

    async fn confirm_clock(
        &self,
        request: Request<v1::ConfirmClockRequest>,
    ) -> Result<Response<v1::ConfirmClockResponse>, Status> {
        let caller = self.edge.caller(&request)?;
        let v1::ConfirmClockRequest { time } = request.into_inner();
        let mut wrong = Vec::new();
        let time = instants::from_wire(time.as_ref(), || "time".to_owned(), &mut wrong);
        let absent = || Violation::new("time", "required", "what your own clock says, to be held against the vault's");
        wrong.extend((time.is_none() && wrong.is_empty()).then(absent));
        let (Some(time), true) = (time, wrong.is_empty()) else { return Err(status(Error::Invalid(wrong))) };
        let vault = self.edge.vault()?;
        let confirm = async move { vault.confirm_clock(&caller, &ConfirmClock { time }).await };
        let clock = self.edge.to_its_end(confirm).await?;
        Ok(Response::new(v1::ConfirmClockResponse { time: Some(instants::to_wire(clock)) }))
    }

    async fn create_tenant(&self, request: Request<v1::CreateTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        tenants::create(&self.edge, request).await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        tenants::list(&self.edge, request).await
    }

    async fn destroy_tenant(
        &self,
        request: Request<v1::DestroyTenantRequest>,
    ) -> Result<Response<v1::DestroyTenantResponse>, Status> {
        tenants::destroy(&self.edge, request).await
    }
}

/// Who may turn the key of a vault that is sealed, and so knows nobody: whoever an accepted certificate calls so.
fn officer_or_operator<T>(request: &Request<T>, action: &'static str) -> Result<Principal, Status> {
    let principal = edge::peer(request)?.named(identity::now())?;
    match principal.role {
        Role::Operator | Role::Officer => Ok(principal),
        _ => Err(status(Error::Denied { action })),
    }
}
