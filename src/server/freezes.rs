//! The part of strongroom.v1.Access that freezes and suspends.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{Freeze, Frozen, InForceFreezes, Since, Suspend, Suspension, Unfreeze, Unsuspend};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;

pub(crate) async fn freeze<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::FreezeRequest>,
) -> Result<Response<v1::FreezeResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::FreezeRequest { field, reads, writes, all_tenants } = request.into_inner();
    let freeze = Freeze { field, reads, writes, all_tenants };
    let vault = edge.vault()?;
    let changed = edge.to_its_end(async move { vault.freeze(&caller, &freeze).await }).await?;
    Ok(Response::new(v1::FreezeResponse { changed }))
}

pub(crate) async fn unfreeze<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::UnfreezeRequest>,
) -> Result<Response<v1::UnfreezeResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::UnfreezeRequest { field, reads, writes, all_tenants } = request.into_inner();
    let unfreeze = Unfreeze { field, reads, writes, all_tenants };
    let vault = edge.vault()?;
    let changed = edge.to_its_end(async move { vault.unfreeze(&caller, &unfreeze).await }).await?;
    Ok(Response::new(v1::UnfreezeResponse { changed }))
}

pub(crate) async fn suspend<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::SuspendRequest>,
) -> Result<Response<v1::SuspendResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::SuspendRequest { principal, reason } = request.into_inner();
    let suspend = Suspend { principal, reason };
    let vault = edge.vault()?;
    let changed = edge.to_its_end(async move { vault.suspend(&caller, &suspend).await }).await?;
    Ok(Response::new(v1::SuspendResponse { changed }))
}

pub(crate) async fn unsuspend<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::UnsuspendRequest>,
) -> Result<Response<v1::UnsuspendResponse>, Status> {
    let caller = edge.caller(&request)?;
    let unsuspend = Unsuspend { principal: request.into_inner().principal };
    let vault = edge.vault()?;
    let changed = edge.to_its_end(async move { vault.unsuspend(&caller, &unsuspend).await }).await?;
    Ok(Response::new(v1::UnsuspendResponse { changed }))
}

pub(crate) async fn list<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ListFreezesRequest>,
) -> Result<Response<v1::ListFreezesResponse>, Status> {
    let caller = edge.caller(&request)?;
    let InForceFreezes { all_tenants, tenant, fields, suspended } =
        edge.vault()?.list_freezes(&caller).await.map_err(status)?;
    let mut freezes = of_scope("", true, &all_tenants);
    freezes.extend(of_scope("", false, &tenant));
    freezes.extend(fields.iter().flat_map(|one| of_scope(&one.field, false, &one.frozen)));
    let suspensions = suspended.into_iter().map(|(principal, why)| suspension(principal, why));
    Ok(Response::new(v1::ListFreezesResponse { freezes, suspensions: suspensions.collect() }))
}

/// Since when and why a principal is suspended.
pub(crate) fn suspension(principal: String, Suspension { since, reason }: Suspension) -> v1::Suspension {
    v1::Suspension { principal, suspend_time: Some(instants::to_wire(since.time)), by: since.by, reason }
}

/// What of one scope is frozen, reads first.
fn of_scope(field: &str, all_tenants: bool, frozen: &Frozen) -> Vec<v1::Freeze> {
    let one = |what: &str, since: &Since| v1::Freeze {
        field: field.to_owned(),
        all_tenants,
        what: what.to_owned(),
        freeze_time: Some(instants::to_wire(since.time)),
        by: since.by.clone(),
    };
    let reads = frozen.reads.as_ref().map(|since| one("reads", since));
    let writes = frozen.writes.as_ref().map(|since| one("writes", since));
    reads.into_iter().chain(writes).collect()
}
