//! strongroom.v1.Subjects: what the vault knows of data subjects besides their values.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{GetErasure, GetLabels, LiftHold, ListErasures, ListHolds, SetLabels, StartExpire, UndoErasure};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::keys::told;
use crate::reports::Report;
use crate::subject_access::{self, Pages};
use crate::{consents, erasures, processing, retention};

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

    async fn start_expire(&self, request: Request<v1::StartExpireRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::StartExpireRequest { up_to } = request.into_inner();
        let vault = self.0.vault()?;
        let start = async move { vault.start_expire(&caller, &StartExpire { up_to }).await };
        Ok(Response::new(told(self.0.to_its_end(start).await?)))
    }

    type RetentionReportStream = Report<v1::RetentionReportResponse>;

    async fn retention_report(
        &self,
        request: Request<v1::RetentionReportRequest>,
    ) -> Result<Response<Self::RetentionReportStream>, Status> {
        retention::report(&self.0, request).await
    }

    async fn subject_report(
        &self,
        request: Request<v1::SubjectReportRequest>,
    ) -> Result<Response<v1::SubjectReportResponse>, Status> {
        subject_access::report(&self.0, request).await
    }

    type ExportSubjectStream = Pages;

    async fn export_subject(
        &self,
        request: Request<v1::ExportSubjectRequest>,
    ) -> Result<Response<Self::ExportSubjectStream>, Status> {
        subject_access::export(&self.0, request).await
    }

    type ProcessingReportStream = Report<v1::ProcessingReportResponse>;

    async fn processing_report(
        &self,
        request: Request<v1::ProcessingReportRequest>,
    ) -> Result<Response<Self::ProcessingReportStream>, Status> {
        processing::report(&self.0, request).await
    }

    async fn grant_consent(
        &self,
        request: Request<v1::GrantConsentRequest>,
    ) -> Result<Response<v1::GrantConsentResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = consents::granted(request.into_inner()).map_err(status)?;
        let changed = self.0.vault()?.grant_consent(&caller, &request).await.map_err(status)?;
        Ok(Response::new(v1::GrantConsentResponse { changed }))
    }

    async fn withdraw_consent(
        &self,
        request: Request<v1::WithdrawConsentRequest>,
    ) -> Result<Response<v1::WithdrawConsentResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = consents::withdrawn(request.into_inner());
        let changed = self.0.vault()?.withdraw_consent(&caller, &request).await.map_err(status)?;
        Ok(Response::new(v1::WithdrawConsentResponse { changed }))
    }

    async fn list_consents(
        &self,
        request: Request<v1::ListConsentsRequest>,
    ) -> Result<Response<v1::ListConsentsResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = consents::asked(request.into_inner());
        let listed = self.0.vault()?.list_consents(&caller, &request).await.map_err(status)?;
        Ok(Response::new(v1::ListConsentsResponse { consents: listed.into_iter().map(consents::listed).collect() }))
    }

    async fn erase_subject(
        &self,
        request: Request<v1::EraseSubjectRequest>,
    ) -> Result<Response<v1::ErasureStatus>, Status> {
        let caller = self.0.caller(&request)?;
        let request = erasures::asked(request.into_inner()).map_err(status)?;
        let told = self.0.vault()?.erase_subject(&caller, &request).await.map_err(status)?;
        Ok(Response::new(erasures::status(told)))
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
        Ok(Response::new(erasures::status(told)))
    }

    async fn list_erasures(
        &self,
        request: Request<v1::ListErasuresRequest>,
    ) -> Result<Response<v1::ListErasuresResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ListErasuresRequest { page_size, page_token } = request.into_inner();
        let request = ListErasures { page_size: page_size as usize, page_token };
        let page = self.0.vault()?.list_erasures(&caller, &request).await.map_err(status)?;
        let erasures = page.erasures.into_iter().map(erasures::listed_erasure).collect();
        Ok(Response::new(v1::ListErasuresResponse { erasures, next_page_token: page.next }))
    }

    async fn set_hold(&self, request: Request<v1::SetHoldRequest>) -> Result<Response<v1::SetHoldResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = erasures::hold(request.into_inner()).map_err(status)?;
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
        let holds = holds.into_iter().map(erasures::listed);
        Ok(Response::new(v1::ListHoldsResponse { holds: holds.collect() }))
    }
}
