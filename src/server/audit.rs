//! strongroom.v1.Audit: the ledger, for auditors.

use std::pin::Pin;

use futures_util::stream::{self, Stream};
use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::Export;
use tonic::{Request, Response, Status};

use crate::edge::{self, Edge};
use crate::errors::status;

/// The service.
pub(crate) struct AuditService<S: Store>(pub Edge<S>);

#[tonic::async_trait]
impl<S: Store> v1::audit_server::Audit for AuditService<S> {
    type ExportStream = Pin<Box<dyn Stream<Item = Result<v1::ExportResponse, Status>> + Send>>;

    async fn export(&self, request: Request<v1::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let caller = self.0.caller(&request)?;
        let peer = edge::peer(&request)?;
        let v1::ExportRequest { first, end, log } = request.into_inner();
        let pages = self.0.vault()?.export(&caller, &Export { first, end, log }).await.map_err(status)?;
        let edge = self.0.clone();
        let answers = stream::try_unfold(pages, move |mut pages| {
            // A long export does not outlive the certificate that it began with.
            let known = edge.identify(&peer);
            async move {
                known?;
                let Some(leaves) = pages.next().await.map_err(status)? else { return Ok(None) };
                let answer = v1::ExportResponse { leaves, total: pages.total };
                Ok(Some((answer, pages)))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let checkpoint = self.0.vault()?.checkpoint(&caller, &request.into_inner().log).await.map_err(status)?;
        Ok(Response::new(v1::GetCheckpointResponse { checkpoint: checkpoint.note, keys: checkpoint.keys }))
    }
}
