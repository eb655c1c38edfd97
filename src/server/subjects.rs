//! strongroom.v1.Subjects: what the vault knows of data subjects besides their values.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{
    EraseSubject, ErasureStatus, Error, GetErasure, GetLabels, LiftHold, ListHolds, SetHold, SetLabels, UndoErasure,
    Violation,
};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;

/// The service.
pub(crate) struct SubjectsService<S: Store>(pub Edge<S>);

#[tonic::async_trait]
impl<S: Store> v1::subjects_server::Subjects for SubjectsService<S> {
    async fn set_labels(
        &self,
        request: Request<v1::SetLabelsRequest>,
    ) -> Result<Response<v1::SetLabelsResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::SetLabelsRequest { subject, labels } = request.into_inner();
        let changed = self.0.vault()?.set_labels(&caller, &SetLabels { subject, labels }).await.map_err(status)?;
        Ok(Response::new(v1::SetLabelsResponse { changed }))
    }

    async fn get_labels(
        &self,
        request: Request<v1::GetLabelsRequest>,
    ) -> Result<Response<v1::GetLabelsResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::GetLabelsRequest { subject } = request.into_inner();
        let labels = self.0.vault()?.get_labels(&caller, &GetLabels { subject }).await.map_err(status)?;
        Ok(Response::new(v1::GetLabelsResponse { labels }))
    }

    async fn erase_subject(
        &self,
        request: Request<v1::EraseSubjectRequest>,
    ) -> Result<Response<v1::ErasureStatus>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::EraseSubjectRequest { subject, grace, idempotency_key } = request.into_inner();
        let grace = grace.map_or(Ok(0), |grace| micros(&grace)).map_err(status)?;
        let request = EraseSubject { subject, grace, idempotency_key };
        let told = self.0.vault()?.erase_subject(&caller, &request).await.map_err(status)?;
        Ok(Response::new(erasure(told)))
    }

    async fn undo_erasure(
        &self,
        request: Request<v1::UndoErasureRequest>,
    ) -> Result<Response<v1::UndoErasureResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::UndoErasureRequest { subject } = request.into_inner();
        self.0.vault()?.undo_erasure(&caller, &UndoErasure { subject }).await.map_err(status)?;
        Ok(Response::new(v1::UndoErasureResponse {}))
    }

    async fn get_erasure(
        &self,
        request: Request<v1::GetErasureRequest>,
    ) -> Result<Response<v1::ErasureStatus>, Status> {
        let caller = self.0.caller(&request)?;
        let request = GetErasure { erasure: request.into_inner().erasure };
        let told = self.0.vault()?.get_erasure(&caller, &request).await.map_err(status)?;
        Ok(Response::new(erasure(told)))
    }

    async fn set_hold(&self, request: Request<v1::SetHoldRequest>) -> Result<Response<v1::SetHoldResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::SetHoldRequest { subject, fields, reason, purpose, until } = request.into_inner();
        let mut wrong = Vec::new();
        let until = instants::from_wire(until.as_ref(), || "until".to_owned(), &mut wrong);
        if !wrong.is_empty() {
            return Err(status(Error::Invalid(wrong)));
        }
        // Without an end it ends in the past, which is refused where all of it is looked at.
        let request = SetHold { subject, fields, reason, purpose, until: until.unwrap_or(0) };
        let number = self.0.vault()?.set_hold(&caller, &request).await.map_err(status)?;
        Ok(Response::new(v1::SetHoldResponse { number }))
    }

    async fn lift_hold(&self, request: Request<v1::LiftHoldRequest>) -> Result<Response<v1::LiftHoldResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::LiftHoldRequest { subject, number } = request.into_inner();
        self.0.vault()?.lift_hold(&caller, &LiftHold { subject, number }).await.map_err(status)?;
        Ok(Response::new(v1::LiftHoldResponse {}))
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ListHoldsRequest { subject } = request.into_inner();
        let holds = self.0.vault()?.list_holds(&caller, &ListHolds { subject }).await.map_err(status)?;
        let holds = holds.into_iter().map(|hold| v1::Hold {
            number: hold.number,
            reason: hold.reason,
            purpose: hold.purpose,
            fields: hold.fields,
            set_time: Some(instants::to_wire(hold.set)),
            until: Some(instants::to_wire(hold.until)),
            stands: hold.stands,
        });
        Ok(Response::new(v1::ListHoldsResponse { holds: holds.collect() }))
    }
}

/// A span of time in microseconds.
fn micros(span: &prost_types::Duration) -> Result<u64, Error> {
    let (seconds, nanos) = (u64::try_from(span.seconds).ok(), u64::try_from(span.nanos).ok());
    let span =
        seconds.zip(nanos).and_then(|(seconds, nanos)| seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000));
    let description = "a time of grace is not negative";
    span.ok_or_else(|| Error::Invalid(vec![Violation::new("grace", "negative", description)]))
}

fn erasure(told: ErasureStatus) -> v1::ErasureStatus {
    let kept = told.kept.into_iter().map(|kept| v1::KeptByHold {
        hold: kept.hold,
        fields: kept.fields,
        purpose: kept.purpose,
        until: Some(instants::to_wire(kept.until)),
    });
    v1::ErasureStatus {
        erasure: told.erasure,
        state: told.state.to_owned(),
        due_time: told.due.map(instants::to_wire),
        receipt: told.receipt,
        kept: kept.collect(),
    }
}
