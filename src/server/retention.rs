//! The part of strongroom.v1.Subjects that says what falls due by retention when.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{FieldDue, RetentionDue};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::instants::to_wire;
use crate::reports::{self, Report};

pub(crate) async fn report<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::RetentionReportRequest>,
) -> Result<Response<Report<v1::RetentionReportResponse>>, Status> {
    let (caller, vault) = (edge.caller(&request)?, edge.vault()?);
    let counted = async move { vault.retention_report(&caller).await };
    Ok(reports::streamed(edge, counted, told))
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
