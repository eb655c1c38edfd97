//! `strongroom report processing`: the records of processing, as a table, JSON or a page.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_proto::v1::{
    EarlierReads, FieldReads, ProcessedField, ProcessingReportRequest, ProcessingReportResponse, Recipient,
    ReportedField, ReportedPurpose,
};

use crate::cli::audit::options::Between;
use crate::cli::client::Context;
use crate::cli::expiry::to_wire;
use crate::cli::output::{CliError, Exit, facts, instant, instant_if_any, instant_or, named_table};
use crate::cli::page::{self, PageArgs};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom report processing
  strongroom report processing --from 2026-01-01 --to 2027-01-01 --html records-2026.html --about bank.toml
  strongroom report processing --as auditor --output json > records.json

Drawn from the schema, the policies and the ledger: no value and no data subject.
Recipients are who may read under the policies in force: a role stands for all of
its principals, and names stand there that are allowed something else. --from and
--to are about who did read. That you ask is recorded.

What the vault can't know comes from the file of --about, in TOML, each a text:
controller, contact, representative, data_protection_officer, subjects (their
categories), third_parties, transfers (to which countries, by which safeguards),
measures, impact_assessment.";

/// Of when, and where it goes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    between: Between,

    /// A file that says who answers for the processing, and what else the vault can't know.
    #[arg(long, value_name = "FILE")]
    about: Option<PathBuf>,

    #[command(flatten)]
    page: PageArgs,
}

/// What belongs into records of processing (GDPR Article 30(1), PIPL Articles 55 and 56) and is nowhere in the vault.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Controller {
    controller: Option<String>,
    contact: Option<String>,
    representative: Option<String>,
    data_protection_officer: Option<String>,
    subjects: Option<String>,
    third_parties: Option<String>,
    transfers: Option<String>,
    measures: Option<String>,
    impact_assessment: Option<String>,
}

impl Controller {
    fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
        toml::from_str(&text).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("controller", &self.controller),
            ("contact", &self.contact),
            ("representative", &self.representative),
            ("data protection officer", &self.data_protection_officer),
            ("categories of data subjects", &self.subjects),
            ("third parties", &self.third_parties),
            ("transfers", &self.transfers),
            ("measures", &self.measures),
            ("impact assessment", &self.impact_assessment),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect()
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    args.page.check()?;
    let controller = args.about.as_deref().map(Controller::read).transpose()?.unwrap_or_default();
    let Between { from, to } = args.between;
    let request = ProcessingReportRequest { from_time: from.map(to_wire), to_time: to.map(to_wire) };
    let mut answer = context.subjects().await?.processing_report(request).await?.into_inner();
    let records = answer.message().await?.ok_or_else(|| CliError::unfit("the vault answered without a report"))?;
    let said = args.page.write(|| to_page(&controller, &request, &records))?;
    let text = || said.unwrap_or_else(|| text(&controller, &records));
    context.output.show(|| document(&controller, &request, &records), text)?;
    Ok(Exit::Done)
}

fn field(processed: &ProcessedField) -> ReportedField {
    processed.field.clone().unwrap_or_default()
}

/// What the schema says of a field, as JSON.
pub fn field_document(field: &ReportedField) -> Value {
    json!({
        "name": field.name,
        "class": field.class,
        "retention": field.retention,
        "purposes": field.purposes,
        "views": field.views,
        "retired": field.retired,
    })
}

/// The same of a purpose.
pub fn purpose_document(purpose: &ReportedPurpose) -> Value {
    json!({ "name": purpose.name, "description": purpose.description, "basis": basis_of(purpose) })
}

/// Why it is lawful, if the schema says so.
fn basis_of(purpose: &ReportedPurpose) -> Option<&str> {
    Some(purpose.basis.as_str()).filter(|basis| !basis.is_empty())
}

/// A purpose as people read it.
pub fn purpose_row(purpose: &ReportedPurpose) -> Vec<String> {
    let basis = basis_of(purpose).unwrap_or("not said").to_owned();
    vec![purpose.name.clone(), purpose.description.clone(), basis]
}

fn document(controller: &Controller, asked: &ProcessingReportRequest, records: &ProcessingReportResponse) -> Value {
    let fields = records.fields.iter().map(|processed| {
        let mut document = field_document(&field(processed));
        document["values"] = processed.values.to_string().into();
        document["ended"] = processed.ended.to_string().into();
        let recipient = |one: &Recipient| {
            json!({
                "principal": one.principal,
                "purpose": one.purpose,
                "views": one.views,
                "match": one.r#match,
                "lookup": one.lookup,
            })
        };
        document["recipients"] = processed.recipients.iter().map(recipient).collect();
        document["reads"] = processed.reads.iter().map(reads_document).collect();
        document
    });
    let earlier = |earlier: &EarlierReads| {
        let reads = earlier.reads.iter().map(reads_document).collect::<Vec<_>>();
        json!({ "field": earlier.field, "reads": reads })
    };
    let exporters = records.exporters.iter().map(|one| json!({ "principal": one.principal, "allowed": one.allowed }));
    let given = |time: Option<&prost_types::Timestamp>| time.map(|time| instant(Some(time)));
    json!({
        "time": instant(records.time.as_ref()),
        "about": controller,
        "policy_version": records.policy_version,
        "schema_version": records.schema_version,
        "ledger_size": records.ledger_size.to_string(),
        "from_time": instant_if_any(asked.from_time),
        "to_time": instant_if_any(asked.to_time),
        "subjects": records.subjects.to_string(),
        "values": records.values.to_string(),
        "values_without_subject": records.values_without_subject.to_string(),
        "purposes": records.purposes.iter().map(purpose_document).collect::<Vec<_>>(),
        "fields": fields.collect::<Vec<_>>(),
        "earlier_reads": records.earlier_reads.iter().map(earlier).collect::<Vec<_>>(),
        "exporters": exporters.collect::<Vec<_>>(),
        "more_recipients": records.more_recipients,
        "more_reads": records.more_reads,
        "reads_from_leaf": records.reads_from_leaf.to_string(),
        "archived_until_time": given(records.archived_until_time.as_ref()),
    })
}

fn reads_document(reads: &FieldReads) -> Value {
    json!({
        "principal": reads.principal,
        "purpose": reads.purpose,
        "values": reads.values.to_string(),
        "last_time": instant(reads.last_time.as_ref()),
    })
}

/// Says that older entries were not looked at, if that is so.
pub fn archived(from_leaf: u64, until: Option<&prost_types::Timestamp>) -> Option<String> {
    (from_leaf > 0).then(|| {
        let until = instant(until);
        format!(
            "Older entries of the ledger are archived, and were not looked at: those before leaf {from_leaf}, until {until}."
        )
    })
}

/// The whole in a few words.
fn about(records: &ProcessingReportResponse) -> Vec<(&'static str, String)> {
    vec![
        ("drawn up", instant(records.time.as_ref())),
        ("data subjects", records.subjects.to_string()),
        ("values", format!("{}, of which {} belong to nobody", records.values, records.values_without_subject)),
        ("schema", format!("version {}", records.schema_version)),
        ("policies", format!("version {}", records.policy_version)),
        ("ledger", format!("{} leaves", records.ledger_size)),
    ]
}

fn field_row(processed: &ProcessedField) -> Vec<String> {
    let field = field(processed);
    let name = if field.retired { format!("{} (retired)", field.name) } else { field.name };
    vec![name, field.class, field.retention, processed.values.to_string(), field.purposes.join(", ")]
}

fn recipient_rows(records: &ProcessingReportResponse) -> impl Iterator<Item = Vec<String>> {
    let all = records.fields.iter().flat_map(|processed| {
        processed.recipients.iter().map(|one| {
            let mut may: Vec<&str> = one.views.iter().map(String::as_str).collect();
            may.extend(one.r#match.then_some("match"));
            may.extend(one.lookup.then_some("lookup"));
            let may = if may.is_empty() { "nothing".to_owned() } else { may.join(", ") };
            vec![field(processed).name, one.purpose.clone(), one.principal.clone(), may]
        })
    });
    let exporters = records.exporters.iter().map(|one| {
        let may = if one.allowed { "export, whole" } else { "nothing" };
        vec!["all of a data subject".to_owned(), "any".to_owned(), one.principal.clone(), may.to_owned()]
    });
    all.chain(exporters).collect::<Vec<_>>().into_iter()
}

fn read_rows(records: &ProcessingReportResponse) -> impl Iterator<Item = Vec<String>> {
    let now = records.fields.iter().map(|processed| (field(processed).name, &processed.reads));
    let earlier = records.earlier_reads.iter().map(|one| (format!("{} (earlier)", one.field), &one.reads));
    let all = now.chain(earlier).flat_map(|(name, reads)| {
        reads.iter().map(move |one| {
            let (values, last) = (one.values.to_string(), instant(one.last_time.as_ref()));
            vec![name.clone(), one.purpose.clone(), one.principal.clone(), values, last]
        })
    });
    all.collect::<Vec<_>>().into_iter()
}

/// What recipients are, and are not.
const ABOUT_RECIPIENTS: &str = "Who may read under the policies in force, as of now: at this hour, with a second factor where \
    that is needed, and for nobody behind a service. A role stands for all of its principals but those that are named.";

/// What the lists do not hold, if they are not whole.
fn cut(records: &ProcessingReportResponse) -> Vec<String> {
    let recipients = records.more_recipients.then_some("More is allowed to more principals than is listed.");
    let reads = records.more_reads.then_some("More was read than is counted: ask for a shorter time.");
    let archived = archived(records.reads_from_leaf, records.archived_until_time.as_ref());
    recipients.into_iter().chain(reads).map(str::to_owned).chain(archived).collect()
}

const FIELDS: [&str; 5] = ["Field", "Class", "Kept", "Values", "Purposes"];
const PURPOSES: [&str; 3] = ["Purpose", "What it is", "Basis"];
const RECIPIENTS: [&str; 4] = ["Field", "Purpose", "Who may", "In which views"];
const READS: [&str; 5] = ["Field", "Purpose", "Who did", "Values", "Last"];

fn text(controller: &Controller, records: &ProcessingReportResponse) -> String {
    let mut parts = vec![
        facts(controller.rows().into_iter().chain(about(records))),
        named_table(&PURPOSES, records.purposes.iter().map(purpose_row)),
        named_table(&FIELDS, records.fields.iter().map(field_row)),
        named_table(&RECIPIENTS, recipient_rows(records)),
        ABOUT_RECIPIENTS.to_owned(),
        named_table(&READS, read_rows(records)),
    ];
    parts.extend(cut(records));
    parts.join("\n\n")
}

fn to_page(controller: &Controller, asked: &ProcessingReportRequest, records: &ProcessingReportResponse) -> String {
    let from = instant_or(asked.from_time, "the beginning");
    let to = instant_or(asked.to_time, "now");
    let whole = controller.rows().into_iter().chain(about(records)).map(|(name, value)| vec![name.to_owned(), value]);
    let body = html! {
        (page::section("The whole", "", &["", ""], whole, ""))
        (page::section("Purposes", "", &PURPOSES, records.purposes.iter().map(purpose_row), "There are none."))
        (page::section("Fields", "", &FIELDS, records.fields.iter().map(field_row), "There are none."))
        (page::section(
            "Recipients",
            ABOUT_RECIPIENTS,
            &RECIPIENTS,
            recipient_rows(records),
            "Nobody may read anything.",
        ))
        (page::section("Reads", &format!("From {from} to {to}."), &READS, read_rows(records), "Nothing was read."))
        @for more in cut(records) { p.note { (more) } }
    };
    page::page("Records of processing", &body)
}

#[cfg(test)]
mod tests {
    use strongroom_proto::v1::Exporter;

    use super::*;

    fn records() -> ProcessingReportResponse {
        let of = ReportedField {
            name: "borrower.name".to_owned(),
            class: "c2".to_owned(),
            retention: "10y".to_owned(),
            purposes: vec!["kyc_review".to_owned()],
            ..Default::default()
        };
        let who = |principal: &str, views: &[&str]| Recipient {
            principal: principal.to_owned(),
            purpose: "kyc_review".to_owned(),
            views: views.iter().map(|view| (*view).to_owned()).collect(),
            r#match: false,
            lookup: principal == "app",
        };
        let read = FieldReads { principal: "app/<core>".to_owned(), values: 7, ..Default::default() };
        ProcessingReportResponse {
            purposes: vec![ReportedPurpose { name: "kyc_review".to_owned(), ..Default::default() }],
            fields: vec![ProcessedField {
                field: Some(of),
                values: 3,
                ended: 0,
                recipients: vec![who("app", &["masked", "plain"]), who("app/away", &[])],
                reads: vec![read.clone()],
            }],
            earlier_reads: vec![EarlierReads { field: "borrower.title".to_owned(), reads: vec![read.clone()] }],
            exporters: vec![Exporter { principal: "privacy".to_owned(), allowed: true }],
            more_reads: true,
            ..Default::default()
        }
    }

    #[test]
    fn each_form_says_who_may_and_who_did() {
        let (asked, records) = (ProcessingReportRequest::default(), records());
        let of = |text: &str| toml::from_str::<Controller>(text);
        let controller = of("controller = 'Bank <A>'\ntransfers = 'none'").unwrap();
        assert!(of("owner = 'Bank'").is_err());
        let document = document(&controller, &asked, &records);
        assert_eq!(document["about"]["controller"], "Bank <A>");
        let field = &document["fields"][0];
        assert_eq!((&field["values"], &field["reads"][0]["values"]), (&json!("3"), &json!("7")));
        assert_eq!(field["recipients"][1]["views"], json!([]));
        assert_eq!(document["purposes"][0]["basis"], Value::Null);
        let text = text(&controller, &records);
        assert!(text.contains("Bank <A>") && text.contains("transfers"));
        assert!(
            text.contains("masked, plain, lookup")
                && text.contains("nothing")
                && text.contains("ask for a shorter time")
        );
        assert!(text.contains("export, whole") && text.contains("borrower.title (earlier)"));
        assert!(text.contains("nobody behind a service") && !text.contains("archived"));
        assert_eq!(document["earlier_reads"][0]["reads"][0]["values"], json!("7"));
        let page = to_page(&controller, &asked, &records);
        assert!(page.contains("Bank &lt;A&gt;"));
        assert!(page.contains("app/&lt;core&gt;") && page.contains("From the beginning to now."));
    }
}
