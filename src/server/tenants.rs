//! The tenants' part of strongroom.v1.System.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{CreateTenant, DestroyTenant, Error, ListedTenant, TenantState};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::identity;
use crate::instants;

pub(crate) async fn create<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::CreateTenantRequest>,
) -> Result<Response<v1::Tenant>, Status> {
    let caller = edge.caller(&request)?;
    let v1::CreateTenantRequest { name, officer_certificates } = request.into_inner();
    let vault = edge.vault()?;
    let trust_domain = vault.directory().trust_domain.clone();
    let mut officers = Vec::with_capacity(officer_certificates.len());
    for (at, certificate) in officer_certificates.iter().enumerate() {
        let officer = identity::officer(certificate, &trust_domain, &name).ok_or_else(|| {
            let path = format!("officer_certificates[{at}]");
            let description = "it must be a certificate (DER) with one URI name, \
                               spiffe://TRUST-DOMAIN/tenant/NAME/officer/OFFICER, of this vault and tenant, and a key \
                               that officers can approve with: ECDSA on P-256 or P-384, or Ed25519";
            status(Error::invalid(path, "officer", description))
        });
        // A name that no tenant can have is the vault's to refuse.
        if strongroom_vault::is_tenant_name(&name) {
            officers.push(officer?);
        }
    }
    let create = CreateTenant { name: name.clone(), officers };
    let made = edge.to_its_end(async move { vault.create_tenant(&caller, &create).await }).await?;
    Ok(Response::new(v1::Tenant {
        name,
        number: made.number.0,
        id: made.id.to_string(),
        state: TenantState::Serving.as_str().to_owned(),
        create_time: Some(instants::to_wire(made.created)),
        ..Default::default()
    }))
}

pub(crate) async fn list<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ListTenantsRequest>,
) -> Result<Response<v1::ListTenantsResponse>, Status> {
    let caller = edge.caller(&request)?;
    let tenants = edge.vault()?.list_tenants(&caller).await.map_err(status)?;
    Ok(Response::new(v1::ListTenantsResponse { tenants: tenants.into_iter().map(listed).collect() }))
}

pub(crate) async fn destroy<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::DestroyTenantRequest>,
) -> Result<Response<v1::DestroyTenantResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::DestroyTenantRequest { name, dry_run } = request.into_inner();
    let vault = edge.vault()?;
    let request = DestroyTenant { name, dry_run };
    let change = async move { vault.destroy_tenant(&caller, &request).await };
    // Who only counts stops when nobody waits any more.
    let loss = if dry_run { change.await.map_err(status)? } else { edge.to_its_end(change).await? };
    Ok(Response::new(v1::DestroyTenantResponse {
        values: loss.values,
        subjects: loss.subjects,
        key_versions: loss.key_versions,
        copies: loss.copies,
        receipt: loss.receipt,
    }))
}

fn listed(tenant: ListedTenant) -> v1::Tenant {
    v1::Tenant {
        name: tenant.name,
        number: tenant.number.0,
        id: tenant.id.to_string(),
        state: tenant.state.as_str().to_owned(),
        create_time: Some(instants::to_wire(tenant.created)),
        destroy_time: tenant.destroyed.map(instants::to_wire),
        copies: tenant.copies,
        death_time: tenant.dead.map(instants::to_wire),
        receipt: tenant.receipt,
    }
}
