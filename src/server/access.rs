//! strongroom.v1.Access: schema, policy, freezes and approvals, for security officers.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{ApplyPolicy, ApplySchema, Error, Explain};
use tonic::{Request, Response, Status};

use crate::approvals;
use crate::edge::Edge;
use crate::errors::{problem, status};
use crate::freezes;

/// The service.
pub(crate) struct AccessService<S: Store>(pub Edge<S>);

#[tonic::async_trait]
impl<S: Store> v1::access_server::Access for AccessService<S> {
    async fn apply_schema(
        &self,
        request: Request<v1::ApplySchemaRequest>,
    ) -> Result<Response<v1::ApplySchemaResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ApplySchemaRequest { source, dry_run } = request.into_inner();
        let vault = self.0.vault()?;
        let applied = self
            .0
            .to_its_end(async move { vault.apply_schema(&caller, &ApplySchema { source, dry_run }).await })
            .await?;
        Ok(Response::new(v1::ApplySchemaResponse { version: applied.version, fields: applied.count }))
    }

    async fn get_schema(
        &self,
        request: Request<v1::GetSchemaRequest>,
    ) -> Result<Response<v1::GetSchemaResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let in_force = self.0.vault()?.get_schema(&caller).await.map_err(status)?;
        Ok(Response::new(v1::GetSchemaResponse { version: in_force.version, source: in_force.source }))
    }

    async fn apply_policy(
        &self,
        request: Request<v1::ApplyPolicyRequest>,
    ) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ApplyPolicyRequest { source, tests, dry_run } = request.into_inner();
        let vault = self.0.vault()?;
        let applied = self
            .0
            .to_its_end(async move { vault.apply_policy(&caller, &ApplyPolicy { source, tests, dry_run }).await })
            .await?;
        Ok(Response::new(v1::ApplyPolicyResponse { version: applied.version, cases: applied.count }))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let in_force = self.0.vault()?.get_policy(&caller).await.map_err(status)?;
        Ok(Response::new(v1::GetPolicyResponse { version: in_force.version, source: in_force.source }))
    }

    async fn explain_policy(
        &self,
        request: Request<v1::ExplainPolicyRequest>,
    ) -> Result<Response<v1::ExplainPolicyResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ExplainPolicyRequest { role, name, action, field, view, purpose } = request.into_inner();
        let question = Explain { role, name, action, field, view, purpose };
        let answer = match self.0.vault()?.explain_policy(&caller, &question).await {
            Ok(explained) => v1::ExplainPolicyResponse {
                allowed: explained.allowed,
                policies: explained.policies,
                explanation: explained.text,
                allowed_views: explained.allowed_views,
                allowed_purposes: explained.allowed_purposes,
                problem: None,
            },
            // A name that nobody knows is part of the answer: the question itself was in order.
            Err(error @ Error::Invalid(_)) => {
                v1::ExplainPolicyResponse { problem: Some(problem(&error)), ..Default::default() }
            }
            Err(error) => return Err(status(error)),
        };
        Ok(Response::new(answer))
    }

    async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Result<Response<v1::FreezeResponse>, Status> {
        freezes::freeze(&self.0, request).await
    }

    async fn unfreeze(&self, request: Request<v1::UnfreezeRequest>) -> Result<Response<v1::UnfreezeResponse>, Status> {
        freezes::unfreeze(&self.0, request).await
    }

    async fn suspend(&self, request: Request<v1::SuspendRequest>) -> Result<Response<v1::SuspendResponse>, Status> {
        freezes::suspend(&self.0, request).await
    }

    async fn unsuspend(
        &self,
        request: Request<v1::UnsuspendRequest>,
    ) -> Result<Response<v1::UnsuspendResponse>, Status> {
        freezes::unsuspend(&self.0, request).await
    }

    async fn list_freezes(
        &self,
        request: Request<v1::ListFreezesRequest>,
    ) -> Result<Response<v1::ListFreezesResponse>, Status> {
        freezes::list(&self.0, request).await
    }

    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        approvals::list(&self.0, request).await
    }

    async fn approve(&self, request: Request<v1::ApproveRequest>) -> Result<Response<v1::Approval>, Status> {
        approvals::approve(&self.0, request).await
    }

    async fn reject(&self, request: Request<v1::RejectRequest>) -> Result<Response<v1::Approval>, Status> {
        approvals::reject(&self.0, request).await
    }
}
