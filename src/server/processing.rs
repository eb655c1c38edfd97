//! The part of strongroom.v1.Subjects that draws up the records of processing.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{
    ArchivedReads, EarlierReads, Exporter, FieldReads, ProcessedField, ProcessingRecords, ProcessingReport, Recipient,
    ReportedField, ReportedPurpose,
};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::instants::to_wire;
use crate::reports::{self, Report};
use crate::subject_access::between;

pub(crate) async fn report<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ProcessingReportRequest>,
) -> Result<Response<Report<v1::ProcessingReportResponse>>, Status> {
    let caller = edge.caller(&request)?;
    let v1::ProcessingReportRequest { from_time, to_time } = request.into_inner();
    let (from, to) = between(from_time.as_ref(), to_time.as_ref())?;
    let (vault, request) = (edge.vault()?, ProcessingReport { from, to });
    let drawn = async move { vault.processing_report(&caller, &request).await };
    Ok(reports::streamed(edge, drawn, processed))
}

fn processed(records: ProcessingRecords) -> v1::ProcessingReportResponse {
    let fields = records.fields.into_iter().map(|processed| {
        let ProcessedField { field: of, values, ended, recipients, reads } = processed;
        v1::ProcessedField {
            field: Some(field(of)),
            values,
            ended,
            recipients: recipients.into_iter().map(recipient).collect(),
            reads: reads.into_iter().map(read).collect(),
        }
    });
    let (reads_from_leaf, archived_until_time) = archived(records.archived_reads);
    v1::ProcessingReportResponse {
        time: Some(to_wire(records.time)),
        policy_version: records.policy_version,
        schema_version: records.schema_version,
        ledger_size: records.ledger_size,
        fields: fields.collect(),
        purposes: records.purposes.into_iter().map(purpose).collect(),
        subjects: records.subjects,
        values: records.values,
        values_without_subject: records.values_without_subject,
        more_recipients: records.more_recipients,
        more_reads: records.more_reads,
        earlier_reads: records.earlier_reads.into_iter().map(earlier).collect(),
        exporters: records.exporters.into_iter().map(exporter).collect(),
        reads_from_leaf,
        archived_until_time,
    }
}

/// From which leaf on reads were looked for, and until when those before it were committed; nothing if they were in all.
pub(crate) fn archived(reads: Option<ArchivedReads>) -> (u64, Option<prost_types::Timestamp>) {
    reads.map_or((0, None), |archived| (archived.end, Some(to_wire(archived.until))))
}

fn earlier(earlier: EarlierReads) -> v1::EarlierReads {
    let EarlierReads { field, reads } = earlier;
    v1::EarlierReads { field, reads: reads.into_iter().map(read).collect() }
}

fn exporter(exporter: Exporter) -> v1::Exporter {
    let Exporter { principal, allowed } = exporter;
    v1::Exporter { principal, allowed }
}

pub(crate) fn field(field: ReportedField) -> v1::ReportedField {
    let ReportedField { name, class, retention, purposes, views, retired } = field;
    v1::ReportedField {
        name: name.to_string(),
        class: class.to_owned(),
        retention,
        purposes: purposes.iter().map(|purpose| purpose.to_string()).collect(),
        views: views.iter().map(|view| view.to_string()).collect(),
        retired,
    }
}

pub(crate) fn purpose(purpose: ReportedPurpose) -> v1::ReportedPurpose {
    let ReportedPurpose { name, description, basis } = purpose;
    v1::ReportedPurpose { name: name.to_string(), description, basis: basis.to_owned() }
}

fn recipient(recipient: Recipient) -> v1::Recipient {
    let Recipient { principal, purpose, views, matches, lookups } = recipient;
    let views = views.iter().map(|view| view.to_string()).collect();
    v1::Recipient { principal, purpose: purpose.to_string(), views, r#match: matches, lookup: lookups }
}

fn read(reads: FieldReads) -> v1::FieldReads {
    let FieldReads { principal, purpose, values, last } = reads;
    v1::FieldReads { principal, purpose, values, last_time: Some(to_wire(last)) }
}
