//! The part of strongroom.v1.Subjects that says what falls due by retention when.

use std::pin::Pin;

use futures_util::stream::{self, Stream};
use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{FieldDue, RetentionDue};
use tonic::{Request, Response, Status};

use crate::bulk;
use crate::edge::Edge;
use crate::errors::status;
use crate::instants::to_wire;
use crate::processing::sealed;

/// The one message of a report.
pub(crate) type Due = Pin<Box<dyn Stream<Item = Result<v1::RetentionReportResponse, Status>> + Send>>;

pub(crate) async fn report<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::RetentionReportRequest>,
) -> Result<Response<Due>, Status> {
    let caller = edge.caller(&request)?;
    let (edge, vault) = (edge.clone(), edge.vault()?);
    let counted = async move {
        let workers = edge.workers.clone();
        let work = async move {
            tokio::select! {
                due = vault.retention_report(&caller) => due.map_err(status),
                gone = sealed(&edge) => Err(gone),
            }
        };
        bulk::apart(&workers, work).await?.map(told)
    };
    Ok(Response::new(Box::pin(stream::once(counted))))
}

fn told(due: RetentionDue) -> v1::RetentionReportResponse {
    v1::RetentionReportResponse {
        time: Some(to_wire(due.time)),
        fields: due.fields.into_iter().map(falls_due).collect(),
        cap: due.cap,
        clock_problem: due.clock_jump.map(|jump| jump.to_string()).unwrap_or_default(),
    }
}

fn falls_due(field: FieldDue) -> v1::FieldRetention {
    let FieldDue { field, retention, values, due, within, later, never, held } = field;
    let [within_7_days, within_30_days, within_90_days, within_a_year] = within;
    v1::FieldRetention {
        field,
        retention,
        values,
        due,
        within_7_days,
        within_30_days,
        within_90_days,
        within_a_year,
        later,
        never,
        held,
    }
}
