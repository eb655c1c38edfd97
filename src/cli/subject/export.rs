//! `strongroom subject export`: the values of a data subject, for it to take along.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use maud::html;
use serde_json::{Map, Value, json};
use strongroom_proto::v1::{ExportSubjectRequest, ExportedValue};
use time::OffsetDateTime;

use crate::cli::client::Context;
use crate::cli::expiry::to_wire;
use crate::cli::files;
use crate::cli::output::{CliError, Exit, instant, instant_if_any, instant_or, table, value_document};
use crate::cli::page::{self, PageArgs};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom subject export customer-4711 --purpose subject_access -o customer-4711.json
  strongroom subject export customer-4711 --purpose subject_access --html customer-4711.html

All values that may be shown: whole where the field has the view plain, else
masked. Those of class c3 are listed and never shown. A second factor is needed,
and every page of values is in the ledger before it leaves.
OUT and the page hold personal data: only you can read them. Remove them when
they have served their purpose.";

/// Whose values, and where they go.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The subject's id, as values were stored with.
    id: String,

    /// Why the values are read: a purpose that the schema declares and that does not rest on consent.
    #[arg(long)]
    purpose: String,

    /// Where the values go, as JSON. Only you can read the file.
    #[arg(short, long, value_name = "OUT")]
    out: Option<PathBuf>,

    #[command(flatten)]
    page: PageArgs,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    args.page.check()?;
    if let Some(out) = &args.out {
        let is_page = |page: &PathBuf| std::path::absolute(page).ok() == std::path::absolute(out).ok();
        if args.page.html.as_ref().is_some_and(is_page) {
            return Err(CliError::unfit("the values and the page can't go into one file: give each a name of its own"));
        }
        files::may_write(out, args.page.force)?;
    }
    let request = ExportSubjectRequest { subject: args.id.clone(), purpose: args.purpose.clone() };
    let mut pages = context.subjects().await?.export_subject(request).await?.into_inner();
    let mut values = Vec::new();
    // All of them or none: half an export would pass for a whole one.
    while let Some(page) = pages.message().await? {
        values.extend(page.values);
    }
    let mut said = Vec::new();
    if let Some(out) = &args.out {
        files::write(out, format!("{:#}\n", document(&args, &values)).as_bytes(), args.page.force)?;
        said.push(format!("{} in {}", counted(values.len()), out.display()));
    }
    said.extend(args.page.write(|| to_page(&args, &values))?);
    let is_elsewhere = !said.is_empty();
    context.output.show(
        || match is_elsewhere {
            true => json!({ "subject": args.id, "count": values.len().to_string() }),
            false => document(&args, &values),
        },
        || if is_elsewhere { said.join("\n") } else { table(&["FIELD", "STORED", "VIEW", "VALUE"], rows(&values)) },
    )?;
    Ok(Exit::Done)
}

fn counted(values: usize) -> String {
    if values == 1 { "1 value".to_owned() } else { format!("{values} values") }
}

fn document(args: &Args, values: &[ExportedValue]) -> Value {
    let values = values.iter().map(|value| {
        let mut document = Map::new();
        document.insert("field".to_owned(), value.field.as_str().into());
        document.insert("class".to_owned(), value.class.as_str().into());
        document.insert("token".to_owned(), value.token.as_str().into());
        document.insert("store_time".to_owned(), instant(value.store_time.as_ref()).into());
        document.insert("expire_time".to_owned(), instant_if_any(value.expire_time).into());
        if let Some(bytes) = &value.value {
            let (name, shown) = value_document(bytes);
            document.insert("view".to_owned(), value.view.as_str().into());
            document.insert(name.to_owned(), shown);
        }
        if !value.withheld.is_empty() {
            document.insert("withheld".to_owned(), value.withheld.as_str().into());
        }
        Value::Object(document)
    });
    json!({ "subject": args.id, "purpose": args.purpose, "values": values.collect::<Vec<_>>() })
}

/// Why a value is not shown, or not whole, for people.
fn why(value: &ExportedValue) -> &str {
    match value.withheld.as_str() {
        "class_c3" => "held, and never shown to anybody: it is compared only",
        "field_retired" => "held, and not shown: the field is no longer in use",
        "no_plain_view" => "shown in part",
        other => other,
    }
}

/// A value as people read it.
fn text(value: &ExportedValue) -> String {
    match &value.value {
        None => format!("({})", why(value)),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("(base 64) {}", data_encoding::BASE64.encode(bytes)),
        },
    }
}

fn rows(values: &[ExportedValue]) -> impl Iterator<Item = Vec<String>> {
    let row = |value: &ExportedValue| {
        vec![value.field.clone(), instant(value.store_time.as_ref()), value.view.clone(), text(value)]
    };
    values.iter().map(row)
}

fn to_page(args: &Args, values: &[ExportedValue]) -> String {
    let rows = values.iter().map(|value| {
        let ends = instant_or(value.expire_time, "never");
        let note = if value.value.is_some() { why(value) } else { "" };
        vec![value.field.clone(), text(value), note.to_owned(), instant(value.store_time.as_ref()), ends]
    });
    let now = to_wire(OffsetDateTime::now_utc());
    let body = html! {
        p dir="auto" { "Exported on " (instant(Some(&now))) " for the purpose " (args.purpose) "." }
        (page::section(
            "Values",
            "All values that are held. One that is shown in part has no view that shows it whole.",
            &["Field", "Value", "Note", "Stored", "Kept until"],
            rows,
            "Nothing is held.",
        ))
    };
    page::page(&format!("Personal data of {}", args.id), &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: Option<&[u8]>, view: &str, withheld: &str) -> ExportedValue {
        ExportedValue {
            field: "borrower.name".to_owned(),
            value: bytes.map(|bytes| bytes.to_vec().into()),
            view: view.to_owned(),
            withheld: withheld.to_owned(),
            ..Default::default()
        }
    }

    fn args() -> Args {
        let page = PageArgs { html: None, force: false };
        Args { id: "<b>cust</b>".to_owned(), purpose: "subject_access".to_owned(), out: None, page }
    }

    #[test]
    fn what_is_not_shown_is_said_to_be_held() {
        let values = [value(Some(b"Ann"), "plain", ""), value(None, "", "class_c3")];
        let document = document(&args(), &values);
        assert_eq!((&document["values"][0]["value"], &document["values"][0]["view"]), (&json!("Ann"), &json!("plain")));
        assert_eq!(document["values"][1]["withheld"], "class_c3");
        assert!(document["values"][1].get("value").is_none() && document["values"][0].get("withheld").is_none());
    }

    #[test]
    fn a_page_shows_values_of_every_kind_as_text() {
        let values = [value(Some(b"<script>alert(1)</script>"), "plain", ""), value(Some(b"\xff"), "plain", "")];
        let page = to_page(&args(), &values);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script") && !page.contains("<b>"));
        assert!(page.contains("(base 64) /w=="));
    }
}
