//! The part of strongroom.v1.Access by which officers change who they are.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{EnrolOfficer, Error, RemoveOfficer};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::identity;

pub(crate) async fn enrol<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::EnrolOfficerRequest>,
) -> Result<Response<v1::EnrolOfficerResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::EnrolOfficerRequest { name, certificate } = request.into_inner();
    let vault = edge.vault()?;
    let tenant = vault.tenant_name(&caller).map_err(status)?;
    let key =
        identity::officer_key(&certificate, &vault.directory().trust_domain, &tenant, &name).ok_or_else(|| {
            let description = "it must be a certificate (DER or PEM) with one URI name, \
                           spiffe://TRUST-DOMAIN/tenant/TENANT/officer/NAME, of this officer of your tenant, and a key that \
                           officers can approve with: ECDSA on P-256 or P-384, or Ed25519";
            status(Error::invalid("certificate", "officer", description))
        })?;
    let enrol = EnrolOfficer { name, key };
    edge.to_its_end(async move { vault.enrol_officer(&caller, &enrol).await }).await?;
    Ok(Response::new(v1::EnrolOfficerResponse {}))
}

pub(crate) async fn remove<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::RemoveOfficerRequest>,
) -> Result<Response<v1::RemoveOfficerResponse>, Status> {
    let caller = edge.caller(&request)?;
    let remove = RemoveOfficer { name: request.into_inner().name };
    let vault = edge.vault()?;
    edge.to_its_end(async move { vault.remove_officer(&caller, &remove).await }).await?;
    Ok(Response::new(v1::RemoveOfficerResponse {}))
}

pub(crate) async fn list<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ListOfficersRequest>,
) -> Result<Response<v1::ListOfficersResponse>, Status> {
    let caller = edge.caller(&request)?;
    let officers = edge.vault()?.list_officers(&caller).await.map_err(status)?;
    let shown = officers.into_iter().map(|officer| v1::Officer {
        name: officer.name,
        key: officer.key,
        suspended: officer.suspended,
    });
    Ok(Response::new(v1::ListOfficersResponse { officers: shown.collect() }))
}
