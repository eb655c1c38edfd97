//! The part of strongroom.v1.Access by which people enrol a second factor and step up to it.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{ConfirmSecondFactor, Enrolled, ResetSecondFactor, StepUp, SteppedUp};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;

pub(crate) async fn enrol<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::EnrolSecondFactorRequest>,
) -> Result<Response<v1::EnrolSecondFactorResponse>, Status> {
    let caller = edge.caller(&request)?;
    let Enrolled { uri, recovery_codes } = edge.vault()?.enrol_second_factor(&caller).await.map_err(status)?;
    // The answer is a message like any other: its memory is wiped when it is freed.
    let recovery_codes = recovery_codes.iter().map(|code| code.to_string()).collect();
    Ok(Response::new(v1::EnrolSecondFactorResponse { uri: uri.to_string(), recovery_codes }))
}

pub(crate) async fn confirm<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ConfirmSecondFactorRequest>,
) -> Result<Response<v1::ConfirmSecondFactorResponse>, Status> {
    let caller = edge.caller(&request)?;
    let confirm = ConfirmSecondFactor { code: request.into_inner().code };
    edge.vault()?.confirm_second_factor(&caller, &confirm).await.map_err(status)?;
    Ok(Response::new(v1::ConfirmSecondFactorResponse {}))
}

pub(crate) async fn step_up<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::StepUpRequest>,
) -> Result<Response<v1::StepUpResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::StepUpRequest { code, request } = request.into_inner();
    let step_up = StepUp { code, request };
    let SteppedUp { assertion, expires, recovery_codes } =
        edge.vault()?.step_up(&caller, &step_up).await.map_err(status)?;
    Ok(Response::new(v1::StepUpResponse {
        assertion,
        expire_time: Some(instants::to_wire(expires)),
        // There are ten at most.
        recovery_codes: recovery_codes as u32,
    }))
}

pub(crate) async fn reset<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ResetSecondFactorRequest>,
) -> Result<Response<v1::ResetSecondFactorResponse>, Status> {
    let caller = edge.caller(&request)?;
    let reset = ResetSecondFactor { principal: request.into_inner().principal };
    edge.vault()?.reset_second_factor(&caller, &reset).await.map_err(status)?;
    Ok(Response::new(v1::ResetSecondFactorResponse {}))
}

pub(crate) async fn list<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ListSecondFactorsRequest>,
) -> Result<Response<v1::ListSecondFactorsResponse>, Status> {
    let caller = edge.caller(&request)?;
    let listed = edge.vault()?.list_second_factors(&caller).await.map_err(status)?;
    let second_factors = listed.into_iter().map(|one| v1::SecondFactor {
        principal: one.principal,
        kind: one.kind.to_owned(),
        enrol_time: Some(instants::to_wire(one.enrolled)),
        confirmed: one.confirmed,
        recovery_codes: one.recovery_codes as u32,
        lock_end_time: one.locked.map(instants::to_wire),
    });
    Ok(Response::new(v1::ListSecondFactorsResponse { second_factors: second_factors.collect() }))
}
