//! `strongroom subject hold`: legal holds, that keep what somebody wants gone.

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use strongroom_proto::v1::{Hold, LiftHoldRequest, ListHoldsRequest, SetHoldRequest};
use time::OffsetDateTime;

use crate::cli::client::Context;
use crate::cli::expiry::{parse_time, to_wire};
use crate::cli::output::{CliError, Exit, instant, table};

/// Set a legal hold on a data subject: nothing deletes, replaces, expires or erases what it keeps.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom subject hold customer-4711 --reason case-2027/118 --purpose collections --until 2031-12-31
  strongroom subject hold customer-4711 --field borrower.id_card --reason 7-O-12 --purpose collections --until 2031-12-31")]
pub struct Args {
    /// The subject's id, as values were stored with.
    id: String,

    /// A field that is held; several may be named. Without any, all are.
    #[arg(long = "field", value_name = "FIELD")]
    fields: Vec<String>,

    /// The reference of a case: 1 to 64 of A-Z a-z 0-9 . - _ / , and nothing that is personal.
    #[arg(long)]
    reason: String,

    /// What is held is read for this purpose alone, once the rest is erased.
    #[arg(long)]
    purpose: String,

    /// When it ends by itself: a date, or a time as in RFC 3339.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    until: OffsetDateTime,
}

/// End a legal hold. What was erased but for it is erased then.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Example:
  strongroom subject lift customer-4711 1

Exit code 3: policy wants the approval of another officer, after which the same command
ends it (`strongroom approvals`).")]
pub struct LiftArgs {
    /// The subject's id, as values were stored with.
    id: String,

    /// The hold's number, as `subject holds` lists it.
    number: u32,
}

/// List the legal holds on a data subject.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Example:
  strongroom subject holds customer-4711")]
pub struct ListArgs {
    /// The subject's id, as values were stored with.
    id: String,
}

/// Sets one.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let request = SetHoldRequest {
        subject: args.id,
        fields: args.fields,
        reason: args.reason,
        purpose: args.purpose,
        until_time: Some(to_wire(args.until)),
    };
    let number = context.subjects().await?.set_hold(request).await?.into_inner().number;
    context.output.show(
        || json!({ "number": number }),
        || format!("hold {number} is set: nothing removes what it keeps from now on"),
    )?;
    Ok(Exit::Done)
}

/// Ends one.
pub async fn lift(args: LiftArgs, context: &Context) -> Result<Exit, CliError> {
    let LiftArgs { id, number } = args;
    context.subjects().await?.lift_hold(LiftHoldRequest { subject: id, number }).await?;
    context.output.show(|| json!({ "lifted": number }), || format!("hold {number} is lifted"))?;
    Ok(Exit::Done)
}

/// Lists them.
pub async fn list(args: ListArgs, context: &Context) -> Result<Exit, CliError> {
    let request = ListHoldsRequest { subject: args.id };
    let holds = context.subjects().await?.list_holds(request).await?.into_inner().holds;
    context.output.show(
        || json!({ "holds": holds.iter().map(document).collect::<Vec<_>>() }),
        || match holds.is_empty() {
            true => "there are no holds on it".to_owned(),
            false => {
                let rows = holds.iter().map(|hold| {
                    vec![
                        hold.number.to_string(),
                        if hold.stands { "stands".to_owned() } else { "ended".to_owned() },
                        if hold.fields.is_empty() { "all".to_owned() } else { hold.fields.join(" ") },
                        hold.purpose.clone(),
                        hold.reason.clone(),
                        instant(hold.set_time.as_ref()),
                        instant(hold.until_time.as_ref()),
                    ]
                });
                table(&["HOLD", "STATE", "FIELDS", "PURPOSE", "REASON", "SET", "UNTIL"], rows)
            }
        },
    )?;
    Ok(Exit::Done)
}

/// A hold as JSON.
pub(super) fn document(hold: &Hold) -> Value {
    json!({
        "number": hold.number,
        "stands": hold.stands,
        "fields": hold.fields,
        "purpose": hold.purpose,
        "reason": hold.reason,
        "set_time": instant(hold.set_time.as_ref()),
        "until_time": instant(hold.until_time.as_ref()),
    })
}
