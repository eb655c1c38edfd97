//! strongroom.v1.Subjects: what the vault knows of data subjects besides their values.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{GetLabels, SetLabels};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::processing;
use crate::subject_access::{self, Pages};

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

    type ProcessingReportStream = processing::Records;

    async fn processing_report(
        &self,
        request: Request<v1::ProcessingReportRequest>,
    ) -> Result<Response<Self::ProcessingReportStream>, Status> {
        processing::report(&self.0, request).await
    }
}
