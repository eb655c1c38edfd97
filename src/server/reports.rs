//! Reports, which take long: drawn up apart, and given up when the vault is sealed meanwhile.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use strongroom_storage::Store;
use strongroom_vault::Error;
use tonic::{Response, Status};

use crate::bulk;
use crate::edge::Edge;
use crate::errors::status;

/// How soon a vault that is sealed meanwhile is let go.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The one message of a report.
pub(crate) type Report<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// Draws up a report.
pub(crate) async fn drawn<S: Store, R: Send + 'static>(
    edge: &Edge<S>,
    report: impl Future<Output = Result<R, Error>> + Send + 'static,
) -> Result<R, Status> {
    let own = edge.clone();
    let work = async move {
        tokio::select! {
            report = report => report.map_err(status),
            gone = sealed(&own) => Err(gone),
        }
    };
    bulk::apart(&edge.workers, work).await?
}

/// The same as a stream of one message, which may begin long before it is there.
pub(crate) fn streamed<S: Store, R: Send + 'static, M: 'static>(
    edge: &Edge<S>,
    report: impl Future<Output = Result<R, Error>> + Send + 'static,
    told: fn(R) -> M,
) -> Response<Report<M>> {
    let edge = edge.clone();
    Response::new(Box::pin(stream::once(async move { drawn(&edge, report).await.map(told) })))
}

/// Returns when the vault is sealed: what takes long must not keep its keys.
async fn sealed<S: Store>(edge: &Edge<S>) -> Status {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(gone) = edge.vault() {
            return gone;
        }
    }
}
