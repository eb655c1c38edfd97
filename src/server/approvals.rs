//! The part of strongroom.v1.Access by which officers approve what others ask for.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{Approve, ListedApproval, Reject};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;

pub(crate) async fn list<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ListApprovalsRequest>,
) -> Result<Response<v1::ListApprovalsResponse>, Status> {
    let caller = edge.caller(&request)?;
    let vault = edge.vault()?;
    let (vault_id, tenant_id) = vault.ids(&caller).map_err(status)?;
    let approvals = match request.into_inner().subject.as_str() {
        "" => vault.list_approvals(&caller).await,
        subject => vault.list_approvals_about(&caller, subject).await,
    };
    let approvals = approvals.map_err(status)?;
    let (vault_id, tenant_id) = (vault_id.to_string(), tenant_id.to_string());
    let approvals = approvals.into_iter().map(shown).collect();
    Ok(Response::new(v1::ListApprovalsResponse { approvals, vault_id, tenant_id }))
}

pub(crate) async fn approve<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ApproveRequest>,
) -> Result<Response<v1::Approval>, Status> {
    let caller = edge.caller(&request)?;
    let v1::ApproveRequest { name, public_key, signature } = request.into_inner();
    let approve = Approve { name, public_key: public_key.to_vec(), signature: signature.to_vec() };
    let vault = edge.vault()?;
    let approved = edge.to_its_end(async move { vault.approve(&caller, &approve).await }).await?;
    Ok(Response::new(shown(approved)))
}

pub(crate) async fn reject<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::RejectRequest>,
) -> Result<Response<v1::Approval>, Status> {
    let caller = edge.caller(&request)?;
    let reject = Reject { name: request.into_inner().name };
    let vault = edge.vault()?;
    let rejected = edge.to_its_end(async move { vault.reject(&caller, &reject).await }).await?;
    Ok(Response::new(shown(rejected)))
}

fn shown(listed: ListedApproval) -> v1::Approval {
    let ListedApproval { approval, have } = listed;
    v1::Approval {
        name: approval.name(),
        create_time: Some(instants::to_wire(approval.opened)),
        expire_time: Some(instants::to_wire(approval.expires)),
        need: approval.need.into(),
        have: have.into(),
        approved_by: approval.votes.into_iter().map(|vote| vote.officer).collect(),
        action: approval.action,
        requester: approval.requester,
        request: approval.request,
        summary: approval.summary,
    }
}
