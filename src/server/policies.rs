//! The part of strongroom.v1.Access that shows versions of the policies, and goes back to one.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{AppliedPolicy, RollBackPolicy};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;

pub(crate) async fn get<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::GetPolicyRequest>,
) -> Result<Response<v1::GetPolicyResponse>, Status> {
    let caller = edge.caller(&request)?;
    let version = request.into_inner().version;
    let policy = edge.vault()?.get_policy(&caller, version).await.map_err(status)?;
    Ok(Response::new(v1::GetPolicyResponse { version: policy.version, source: policy.source }))
}

pub(crate) async fn list<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ListPoliciesRequest>,
) -> Result<Response<v1::ListPoliciesResponse>, Status> {
    let caller = edge.caller(&request)?;
    let policies = edge.vault()?.list_policies(&caller).await.map_err(status)?;
    Ok(Response::new(v1::ListPoliciesResponse { policies: policies.into_iter().map(shown).collect() }))
}

pub(crate) async fn roll_back<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::RollBackPolicyRequest>,
) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::RollBackPolicyRequest { version, dry_run } = request.into_inner();
    let vault = edge.vault()?;
    let request = RollBackPolicy { version, dry_run };
    let applied = edge.to_its_end(async move { vault.roll_back_policy(&caller, &request).await }).await?;
    Ok(Response::new(v1::ApplyPolicyResponse { version: applied.version, cases: applied.count, notes: applied.notes }))
}

fn shown(policy: AppliedPolicy) -> v1::PolicyVersion {
    let AppliedPolicy { version, sha256, time, by, of } = policy;
    let apply_time = (time > 0).then(|| instants::to_wire(time));
    v1::PolicyVersion { version, sha256, apply_time, by, rolled_back_to: of.unwrap_or_default() }
}
