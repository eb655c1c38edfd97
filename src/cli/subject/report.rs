//! `strongroom subject report`: what is held of a data subject, why, and who read it. No value.

use clap::Args as ClapArgs;
use data_encoding::HEXLOWER;
use maud::html;
use serde_json::{Value, json};
use strongroom_proto::v1::{
    Consent, HeldField, Hold, ReportedErasure, SubjectRead, SubjectReportRequest, SubjectReportResponse,
};

use super::{consent, hold};
use crate::cli::audit::options::Between;
use crate::cli::client::Context;
use crate::cli::expiry::to_wire;
use crate::cli::output::{CliError, Exit, facts, instant_if_any, instant_or, named_table};
use crate::cli::page::{self, PageArgs};
use crate::cli::report::{archived, field_document, purpose_document, purpose_row};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom subject report customer-4711
  strongroom subject report customer-4711 --html customer-4711.html --to-hand-out
  strongroom subject report customer-4711 --from 2026-01-01 --output json

No value: strongroom subject export shows those. --from and --to are about who
read it; the newest 1,000 reads are listed. Whoever a service read for stands there
by name, and so do labels and legal holds with their case: --to-hand-out leaves
these out. A value that subjects share may have been read by who named none of
them: that is not listed. A second factor is needed, and that you ask is recorded.";

/// Of whom, and where it goes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The subject's id, as values were stored with.
    id: String,

    #[command(flatten)]
    between: Between,

    /// Leave out what the person is not told: legal holds, labels, and the people that services read for.
    #[arg(long)]
    to_hand_out: bool,

    #[command(flatten)]
    page: PageArgs,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    args.page.check()?;
    let Between { from, to } = args.between;
    let request =
        SubjectReportRequest { subject: args.id.clone(), from_time: from.map(to_wire), to_time: to.map(to_wire) };
    let mut report = context.subjects().await?.subject_report(request).await?.into_inner();
    if args.to_hand_out {
        leave_out(&mut report);
    }
    let said = args.page.write(|| to_page(&args.id, &report))?;
    context.output.show(|| document(&args.id, &report), || said.unwrap_or_else(|| text(&report)))?;
    Ok(Exit::Done)
}

/// A hold must not be told to whom it is about, nor by the state of an erasure; labels and colleagues' names are the bank's.
fn leave_out(report: &mut SubjectReportResponse) {
    report.holds.clear();
    report.labels.clear();
    report.erasures.retain(|erasure| erasure.state != "held");
    report.reads.iter_mut().for_each(|read| read.actor.clear());
}

fn document(id: &str, report: &SubjectReportResponse) -> Value {
    let field = |held: &HeldField| {
        let mut document = field_document(&held.field.clone().unwrap_or_default());
        document["values"] = held.values.to_string().into();
        document["ended"] = held.ended.to_string().into();
        document["first_store_time"] = instant_if_any(held.first_store_time).into();
        document["last_store_time"] = instant_if_any(held.last_store_time).into();
        document["first_expire_time"] = instant_if_any(held.first_expire_time).into();
        document["last_expire_time"] = instant_if_any(held.last_expire_time).into();
        document
    };
    let erasure = |erasure: &ReportedErasure| {
        json!({
            "ask_time": instant_if_any(erasure.ask_time),
            "due_time": instant_if_any(erasure.due_time),
            "state": erasure.state,
        })
    };
    let read = |read: &SubjectRead| {
        json!({
            "time": instant_if_any(read.time),
            "principal": read.principal,
            "actor": Some(&read.actor).filter(|actor| !actor.is_empty()),
            "action": read.action,
            "purpose": Some(&read.purpose).filter(|purpose| !purpose.is_empty()),
            "field": Some(&read.field).filter(|field| !field.is_empty()),
            "view": Some(&read.view).filter(|view| !view.is_empty()),
            "leaf": read.leaf.to_string(),
        })
    };
    json!({
        "subject": id,
        "time": instant_if_any(report.time),
        "policy_version": report.policy_version,
        "schema_version": report.schema_version,
        "ledger_size": report.ledger_size.to_string(),
        "create_time": instant_if_any(report.create_time),
        "fields": report.fields.iter().map(field).collect::<Vec<_>>(),
        "more_values": report.more_values,
        "purposes": report.purposes.iter().map(purpose_document).collect::<Vec<_>>(),
        "consents": report.consents.iter().map(consent::document).collect::<Vec<_>>(),
        "holds": report.holds.iter().map(hold::document).collect::<Vec<_>>(),
        "labels": report.labels,
        "erasures": report.erasures.iter().map(erasure).collect::<Vec<_>>(),
        "reads": report.reads.iter().map(read).collect::<Vec<_>>(),
        "more_reads": report.more_reads,
        "reads_from_leaf": report.reads_from_leaf.to_string(),
        "archived_until_time": instant_if_any(report.archived_until_time),
    })
}

const FIELDS: [&str; 6] = ["Field", "Class", "Values", "Stored", "Kept until", "Purposes"];
const PURPOSES: [&str; 3] = ["Purpose", "What it is", "Basis"];
const CONSENTS: [&str; 7] = ["Purpose", "Of", "State", "Given", "Until", "Withdrawn", "By"];
const HOLDS: [&str; 4] = ["Case", "Purpose", "Fields", "Until"];
const ERASURES: [&str; 3] = ["Asked for", "Done", "State"];
const READS: [&str; 7] = ["When", "Who", "On behalf of", "Did", "What for", "Field", "View"];

fn field_row(held: &HeldField) -> Vec<String> {
    let field = held.field.clone().unwrap_or_default();
    let span = |first: String, last: String| if first == last { first } else { format!("{first} to {last}") };
    let values = match held.ended {
        0 => held.values.to_string(),
        ended => format!("{}, and {ended} that have ended", held.values),
    };
    let stored = span(instant_or(held.first_store_time, ""), instant_or(held.last_store_time, ""));
    let until = match held.values {
        0 => "ended".to_owned(),
        _ => span(instant_or(held.first_expire_time, "never"), instant_or(held.last_expire_time, "never")),
    };
    let name = if field.retired { format!("{} (retired)", field.name) } else { field.name };
    vec![name, field.class, values, stored, until, field.purposes.join(", ")]
}

fn consent_row(consent: &Consent) -> Vec<String> {
    let hash = HEXLOWER.encode(&consent.text_sha256);
    let by = format!("{}, text {}, SHA-256 {hash}", consent.channel, consent.text_version);
    let (until, withdrawn) =
        (instant_or(consent.expire_time, "it is withdrawn"), instant_or(consent.withdraw_time, "no"));
    let given = instant_or(consent.given_time.or(consent.grant_time), "");
    let (purpose, state) = (consent.purpose.clone(), consent.state.clone());
    vec![purpose, consent::of(consent), state, given, until, withdrawn, by]
}

fn hold_row(hold: &Hold) -> Vec<String> {
    let fields = if hold.fields.is_empty() { "all".to_owned() } else { hold.fields.join(", ") };
    vec![hold.reason.clone(), hold.purpose.clone(), fields, instant_or(hold.until_time, "")]
}

fn erasure_row(erasure: &ReportedErasure) -> Vec<String> {
    let state = match erasure.state.as_str() {
        "waiting" => "it can be undone until then",
        "held" => "done, but for what is held",
        other => other,
    };
    vec![instant_or(erasure.ask_time, ""), instant_or(erasure.due_time, ""), state.to_owned()]
}

fn read_row(read: &SubjectRead) -> Vec<String> {
    let text = [&read.principal, &read.actor, &read.action, &read.purpose, &read.field, &read.view];
    std::iter::once(instant_or(read.time, "")).chain(text.into_iter().cloned()).collect()
}

/// The whole in a few words.
fn about(report: &SubjectReportResponse) -> Vec<(&'static str, String)> {
    let mut about = vec![
        ("drawn up", instant_or(report.time, "")),
        ("known since", instant_or(report.create_time, "")),
        ("schema", format!("version {}", report.schema_version)),
        ("policies", format!("version {}", report.policy_version)),
        ("ledger", format!("{} leaves", report.ledger_size)),
    ];
    if !report.labels.is_empty() {
        about.push(("labels", report.labels.join(", ")));
    }
    about
}

/// What the lists do not hold, if they are not whole.
fn cut(report: &SubjectReportResponse) -> Vec<String> {
    let values = report.more_values.then(|| "There are more values than are counted.".to_owned());
    let reads = report.more_reads.then(|| "There are older reads.".to_owned());
    let archived = archived(report.reads_from_leaf, report.archived_until_time.as_ref());
    values.into_iter().chain(reads).chain(archived).collect()
}

fn text(report: &SubjectReportResponse) -> String {
    let mut parts = vec![facts(about(report))];
    let mut part = |header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            parts.push(named_table(header, rows));
        }
    };
    part(&FIELDS, report.fields.iter().map(field_row).collect());
    part(&PURPOSES, report.purposes.iter().map(purpose_row).collect());
    part(&CONSENTS, report.consents.iter().map(consent_row).collect());
    part(&HOLDS, report.holds.iter().map(hold_row).collect());
    part(&ERASURES, report.erasures.iter().map(erasure_row).collect());
    part(&READS, report.reads.iter().map(read_row).collect());
    parts.extend(cut(report));
    parts.join("\n\n")
}

fn to_page(id: &str, report: &SubjectReportResponse) -> String {
    let whole = about(report).into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    let body = html! {
        (page::section("The whole", "", &["", ""], whole, ""))
        (page::section("What is held", "", &FIELDS, report.fields.iter().map(field_row), "Nothing."))
        (page::section("Why", "", &PURPOSES, report.purposes.iter().map(purpose_row), "Nothing is held."))
        (page::section("Consents", "", &CONSENTS, report.consents.iter().map(consent_row), "None was given."))
        @if !report.holds.is_empty() {
            (page::section("Legal holds", "", &HOLDS, report.holds.iter().map(hold_row), ""))
        }
        (page::section("Erasure", "", &ERASURES, report.erasures.iter().map(erasure_row), "None was asked for."))
        (page::section("Who read it", "", &READS, report.reads.iter().map(read_row), "Nobody in this time."))
        @for more in cut(report) { p.note { (more) } }
    };
    page::page(&format!("What is held of {id}"), &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_and_what_has_ended_is_said_so() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let held =
            HeldField { values: 2, ended: 1, first_store_time: at(0), last_store_time: at(0), ..Default::default() };
        let row = field_row(&held);
        assert_eq!((row[2].as_str(), row[3].as_str()), ("2, and 1 that have ended", "1970-01-01T00:00:00Z"));
        assert_eq!(row[4], "never");
        let some_end = HeldField { first_expire_time: at(60), ..held.clone() };
        assert_eq!(field_row(&some_end)[4], "1970-01-01T00:01:00Z to never");
        assert_eq!(field_row(&HeldField { values: 0, ..held })[4], "ended");
    }

    #[test]
    fn what_the_person_is_not_told_is_in_no_form_that_is_handed_out() {
        let mut report = SubjectReportResponse {
            labels: vec!["branch-12".to_owned()],
            holds: vec![Hold { reason: "case-17".to_owned(), ..Default::default() }],
            erasures: vec![ReportedErasure { state: "held".to_owned(), ..Default::default() }],
            reads: vec![SubjectRead { actor: "hr/li".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let all = |report: &SubjectReportResponse| {
            [document("c", report).to_string(), text(report), to_page("c", report)].join("\n")
        };
        let kept = ["branch-12", "case-17", "but for what is held", "hr/li"];
        assert!(kept.iter().all(|secret| all(&report).contains(secret)));
        leave_out(&mut report);
        for secret in kept.iter().chain(&["Legal holds"]) {
            assert!(!all(&report).contains(secret), "{secret}");
        }
    }

    #[test]
    fn a_page_names_who_read_and_says_that_there_are_more() {
        let read = SubjectRead {
            principal: "app/core".to_owned(),
            actor: "hr/<i>li</i>".to_owned(),
            action: "detokenize".to_owned(),
            purpose: "kyc_review".to_owned(),
            ..Default::default()
        };
        let report = SubjectReportResponse { reads: vec![read], more_reads: true, ..Default::default() };
        let page = to_page("cust-1", &report);
        assert!(page.contains("app/core") && page.contains("hr/&lt;i&gt;li&lt;/i&gt;") && page.contains("kyc_review"));
        assert!(page.contains("There are older reads.") && text(&report).contains("There are older reads."));
        assert!(!page.contains("archived"));
        let archived_until_time = Some(prost_types::Timestamp { seconds: 60, nanos: 0 });
        let report = SubjectReportResponse { reads_from_leaf: 256, archived_until_time, ..report };
        let told = "Older entries of the ledger are archived, and were not looked at: those before leaf 256, until \
                    1970-01-01T00:01:00Z.";
        assert!(to_page("cust-1", &report).contains(told) && text(&report).contains(told));
        assert_eq!(document("cust-1", &report)["reads"][0]["field"], Value::Null);
    }
}
