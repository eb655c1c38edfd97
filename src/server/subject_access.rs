//! The part of strongroom.v1.Subjects that tells a data subject what is held of it: the report, and its values.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{
    Error, ExportSubject, ExportedPage, ExportedUntil, ExportedValue, HeldField, ReportedSubject, SubjectRead,
    SubjectReport,
};
use tonic::{Request, Response, Status};

use crate::bulk;
use crate::edge::{Edge, Shown};
use crate::errors::status;
use crate::instants::{self, to_wire};
use crate::{consents, erasures, processing, reports};

/// Pages of values.
pub(crate) type Pages = Pin<Box<dyn Stream<Item = Result<v1::ExportSubjectResponse, Status>> + Send>>;

pub(crate) async fn report<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::SubjectReportRequest>,
) -> Result<Response<v1::SubjectReportResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::SubjectReportRequest { subject, from_time, to_time } = request.into_inner();
    let (from, to) = between(from_time.as_ref(), to_time.as_ref())?;
    let (vault, request) = (edge.vault()?, SubjectReport { subject, from, to });
    // It looks at many rows and leaves.
    let drawn = async move { vault.subject_report(&caller, &request).await };
    Ok(Response::new(reported(reports::drawn(edge, drawn).await?)))
}

/// From and to, as the vault takes them.
pub(crate) fn between(
    from: Option<&prost_types::Timestamp>,
    to: Option<&prost_types::Timestamp>,
) -> Result<(Option<u64>, Option<u64>), Status> {
    let mut wrong = Vec::new();
    let from = instants::from_wire(from, || "from_time".to_owned(), &mut wrong);
    let to = instants::from_wire(to, || "to_time".to_owned(), &mut wrong);
    if wrong.is_empty() { Ok((from, to)) } else { Err(status(Error::Invalid(wrong))) }
}

pub(crate) async fn export<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ExportSubjectRequest>,
) -> Result<Response<Pages>, Status> {
    let shown = edge.begun(&request)?;
    let v1::ExportSubjectRequest { subject, purpose } = request.into_inner();
    // The first page comes before the answer begins, so that a refusal is one of the call.
    let request = ExportSubject { subject, purpose };
    let (first, request) = page(edge, &shown, request, None).await?;
    let (edge, first) = (edge.clone(), Some((first, request)));
    let pages = stream::try_unfold((first, None), move |(first, after)| {
        let (edge, shown) = (edge.clone(), shown.clone());
        async move {
            let (page, request) = match (first, after) {
                (Some(first), _) => first,
                (None, Some((request, after))) => page(&edge, &shown, request, Some(after)).await?,
                (None, None) => return Ok(None),
            };
            let after = page.next.map(|next| (request, next));
            Ok(Some((exported(page), (None, after))))
        }
    });
    Ok(Response::new(Box::pin(pages)))
}

/// One page, asked for by whoever the caller is at this moment. It is made apart: to open many values takes long.
async fn page<S: Store>(
    edge: &Edge<S>,
    shown: &Shown,
    request: ExportSubject,
    after: Option<ExportedUntil>,
) -> Result<(ExportedPage, ExportSubject), Status> {
    let (vault, caller) = (edge.vault()?, edge.again(shown)?);
    let work = async move { (vault.export_subject(&caller, &request, after).await, request) };
    let (page, request) = bulk::apart(&edge.workers, work).await?;
    Ok((page.map_err(status)?, request))
}

fn exported(page: ExportedPage) -> v1::ExportSubjectResponse {
    let values = page.values.into_iter().map(|value| {
        let ExportedValue { field, class, token, stored, expires, shown, withheld } = value;
        let (view, value) = shown.map_or((String::new(), None), |(view, value)| {
            // The bytes keep the plaintext and drop it when they are sent, so that it is wiped.
            (view.to_string(), Some(Bytes::from_owner(value)))
        });
        v1::ExportedValue {
            field: field.to_string(),
            class: class.to_owned(),
            token,
            store_time: Some(to_wire(stored)),
            expire_time: expires.map(to_wire),
            value,
            view,
            withheld: withheld.to_owned(),
        }
    });
    v1::ExportSubjectResponse { values: values.collect() }
}

fn reported(report: ReportedSubject) -> v1::SubjectReportResponse {
    let erasures = report.erasures.into_iter().map(|erasure| v1::ReportedErasure {
        ask_time: Some(to_wire(erasure.asked)),
        due_time: Some(to_wire(erasure.due)),
        state: erasure.state.to_owned(),
    });
    let (reads_from_leaf, archived_until_time) = processing::archived(report.archived_reads);
    v1::SubjectReportResponse {
        time: Some(to_wire(report.time)),
        policy_version: report.policy_version,
        schema_version: report.schema_version,
        ledger_size: report.ledger_size,
        create_time: Some(to_wire(report.created)),
        fields: report.fields.into_iter().map(held).collect(),
        more_values: report.more_values,
        purposes: report.purposes.into_iter().map(processing::purpose).collect(),
        consents: report.consents.into_iter().map(consents::listed).collect(),
        holds: report.holds.into_iter().map(erasures::listed).collect(),
        labels: report.labels,
        erasures: erasures.collect(),
        reads: report.reads.into_iter().map(read).collect(),
        more_reads: report.more_reads,
        reads_from_leaf,
        archived_until_time,
    }
}

fn held(held: HeldField) -> v1::HeldField {
    let HeldField { field, values, ended, stored, expires } = held;
    v1::HeldField {
        field: Some(processing::field(field)),
        values,
        ended,
        first_store_time: Some(to_wire(stored.0)),
        last_store_time: Some(to_wire(stored.1)),
        first_expire_time: expires.0.map(to_wire),
        last_expire_time: expires.1.map(to_wire),
    }
}

fn read(read: SubjectRead) -> v1::SubjectRead {
    let SubjectRead { time, principal, actor, action, purpose, field, view, leaf } = read;
    v1::SubjectRead {
        time: Some(to_wire(time)),
        principal,
        actor: actor.unwrap_or_default(),
        action,
        purpose: purpose.unwrap_or_default(),
        field: field.unwrap_or_default(),
        view: view.unwrap_or_default(),
        leaf,
    }
}
