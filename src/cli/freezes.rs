//! `strongroom freezes`: what is frozen, and who is suspended.

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::{Freeze, ListFreezesRequest};

use super::client::Context;
use super::output::{CliError, Exit, instant, table};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

/// Show what is frozen and who is suspended: since when, by whom, and why.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom freezes
  strongroom freezes --as auditor --output json
  strongroom freezes --as operator                what is frozen of all tenants")]
pub struct Args {}

/// Runs the command.
pub async fn run(Args {}: Args, context: &Context) -> Result<Exit, CliError> {
    let listed = context.access().await?.list_freezes(ListFreezesRequest {}).await?.into_inner();
    context.output.show(
        || {
            let freezes = listed.freezes.iter().map(|freeze| {
                json!({
                    "scope": scope(freeze),
                    "field": (!freeze.field.is_empty()).then_some(&freeze.field),
                    "what": freeze.what,
                    "freeze_time": instant(freeze.freeze_time.as_ref()),
                    "by": freeze.by,
                })
            });
            let suspensions = listed.suspensions.iter().map(|one| {
                json!({
                    "principal": one.principal,
                    "suspend_time": instant(one.suspend_time.as_ref()),
                    "by": one.by,
                    "reason": one.reason,
                })
            });
            json!({
                "freezes": freezes.collect::<Vec<_>>(),
                "suspensions": suspensions.collect::<Vec<_>>(),
            })
        },
        || {
            if listed.freezes.is_empty() && listed.suspensions.is_empty() {
                return "nothing is frozen, and nobody is suspended".to_owned();
            }
            let freezes = listed.freezes.iter().map(|freeze| {
                let of = if freeze.field.is_empty() { scope(freeze) } else { freeze.field.as_str() };
                let since = instant(freeze.freeze_time.as_ref());
                vec![of.to_owned(), freeze.what.clone(), since, freeze.by.clone(), String::new()]
            });
            let suspensions = listed.suspensions.iter().map(|one| {
                let since = instant(one.suspend_time.as_ref());
                vec![one.principal.clone(), "suspended".to_owned(), since, one.by.clone(), one.reason.clone()]
            });
            table(&["OF", "WHAT", "SINCE", "BY", "REASON"], freezes.chain(suspensions))
        },
    )?;
    Ok(Exit::Done)
}

/// How wide a freeze is.
fn scope(freeze: &Freeze) -> &'static str {
    match (freeze.all_tenants, freeze.field.is_empty()) {
        (true, _) => "all tenants",
        (false, true) => "tenant",
        (false, false) => "field",
    }
}
