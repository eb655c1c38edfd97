//! strongroom.v1.Access: schema, policy, freezes, tiers, approvals, officers and second factors, for security officers.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{ApplyPolicy, ApplySchema};
use tonic::{Request, Response, Status};

use crate::approvals;
use crate::edge::Edge;
use crate::errors::status;
use crate::explain;
use crate::freezes;
use crate::officers;
use crate::policies;
use crate::second_factors;
use crate::tiers;

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
        Ok(Response::new(v1::ApplySchemaResponse {
            version: applied.version,
            fields: applied.count,
            notes: applied.notes,
        }))
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
        Ok(Response::new(v1::ApplyPolicyResponse {
            version: applied.version,
            cases: applied.count,
            notes: applied.notes,
        }))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        policies::get(&self.0, request).await
    }

    async fn list_policies(
        &self,
        request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        policies::list(&self.0, request).await
    }

    async fn roll_back_policy(
        &self,
        request: Request<v1::RollBackPolicyRequest>,
    ) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
        policies::roll_back(&self.0, request).await
    }

    async fn explain_policy(
        &self,
        request: Request<v1::ExplainPolicyRequest>,
    ) -> Result<Response<v1::ExplainPolicyResponse>, Status> {
        let caller = self.0.caller(&request)?;
        explain::explain(self.0.vault()?.as_ref(), &caller, request.into_inner()).await
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

    async fn set_tier(&self, request: Request<v1::SetTierRequest>) -> Result<Response<v1::SetTierResponse>, Status> {
        tiers::set(&self.0, request).await
    }

    async fn set_tier_limits(
        &self,
        request: Request<v1::SetTierLimitsRequest>,
    ) -> Result<Response<v1::SetTierLimitsResponse>, Status> {
        tiers::set_limits(&self.0, request).await
    }

    async fn list_principals(
        &self,
        request: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        tiers::list(&self.0, request).await
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

    async fn enrol_officer(
        &self,
        request: Request<v1::EnrolOfficerRequest>,
    ) -> Result<Response<v1::EnrolOfficerResponse>, Status> {
        officers::enrol(&self.0, request).await
    }

    async fn remove_officer(
        &self,
        request: Request<v1::RemoveOfficerRequest>,
    ) -> Result<Response<v1::RemoveOfficerResponse>, Status> {
        officers::remove(&self.0, request).await
    }

    async fn list_officers(
        &self,
        request: Request<v1::ListOfficersRequest>,
    ) -> Result<Response<v1::ListOfficersResponse>, Status> {
        officers::list(&self.0, request).await
    }

    async fn enrol_second_factor(
        &self,
        request: Request<v1::EnrolSecondFactorRequest>,
    ) -> Result<Response<v1::EnrolSecondFactorResponse>, Status> {
        second_factors::enrol(&self.0, request).await
    }

    async fn confirm_second_factor(
        &self,
        request: Request<v1::ConfirmSecondFactorRequest>,
    ) -> Result<Response<v1::ConfirmSecondFactorResponse>, Status> {
        second_factors::confirm(&self.0, request).await
    }

    async fn step_up(&self, request: Request<v1::StepUpRequest>) -> Result<Response<v1::StepUpResponse>, Status> {
        second_factors::step_up(&self.0, request).await
    }

    async fn reset_second_factor(
        &self,
        request: Request<v1::ResetSecondFactorRequest>,
    ) -> Result<Response<v1::ResetSecondFactorResponse>, Status> {
        second_factors::reset(&self.0, request).await
    }

    async fn list_second_factors(
        &self,
        request: Request<v1::ListSecondFactorsRequest>,
    ) -> Result<Response<v1::ListSecondFactorsResponse>, Status> {
        second_factors::list(&self.0, request).await
    }
}
