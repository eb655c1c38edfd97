//! `strongroom status`: what is running, since when, and how it is.

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::{StatusRequest, StatusResponse};

use super::actors;
use super::certificates;
use super::client::Context;
use super::output::{CliError, Exit, facts, instant, table};
use super::unseal;

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "operator";

/// Show what is running, since when, and how it is.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom status
  strongroom status --as app
  strongroom status --output json | jq -r .state

Exit code 1 unless the vault is serving.")]
pub struct Args {}

/// Runs the command.
pub async fn run(_args: Args, context: &Context) -> Result<Exit, CliError> {
    let status = context.system().await?.status(StatusRequest {}).await?.into_inner();
    let started = instant(status.start_time.as_ref());
    context.output.show(|| document(&status, &started), || text(&status, &started))?;
    Ok(if status.state == "serving" { Exit::Done } else { Exit::Failed })
}

fn document(status: &StatusResponse, started: &str) -> serde_json::Value {
    let keys = status.keys.iter();
    let keys = keys.map(|key| json!({ "name": key.name, "version": key.version, "state": key.state }));
    json!({
        "version": status.version,
        "vault_id": status.vault_id,
        "tenant": status.tenant,
        "principal": status.principal,
        "role": status.role,
        "start_time": started,
        "state": status.state,
        "schema_version": status.schema_version,
        "policy_version": status.policy_version,
        // Numbers of 64 bits are strings, as in the ledger: JSON readers lose digits above 2^53.
        "ledger_size": status.ledger_size.to_string(),
        "keystore_number": status.keystore_number.to_string(),
        "keys": keys.collect::<Vec<_>>(),
        "seal": status.seal.as_ref().map(unseal::document),
        "certificates": status.certificates.as_ref().map(certificates::document),
        "actor_issuers": actors::documents(status),
        "journal": status.journal.as_ref().map(|journal| {
            json!({ "path": journal.path, "records": journal.records.to_string() })
        }),
        "notice": status.notice,
        "clock_problem": status.clock_problem,
    })
}

fn text(status: &StatusResponse, started: &str) -> String {
    let seal = status.seal.clone().unwrap_or_default();
    if seal.sealed {
        let shares = format!("{} of {} are given", seal.shares_given, seal.shares_needed);
        let shares = if seal.shares_needed == 0 { String::new() } else { shares };
        let how = match seal.opens_by_itself {
            true => "it opens by itself once it may have its root key",
            false => "strongroom unseal opens it",
        };
        let known = [
            ("state", format!("sealed: {how}")),
            ("why", seal.reason),
            ("root key", seal.provider),
            ("shares", shares),
            ("version", status.version.clone()),
            ("you are", format!("{} ({}), as your certificate says", status.principal, status.role)),
        ];
        let known = known.into_iter().chain(certificates::facts(status)).chain(actors::facts(status));
        return facts(known.filter(|(_, value)| !value.is_empty()));
    }
    let version = |number: u32| if number == 0 { "none yet".to_owned() } else { format!("version {number}") };
    let mut text = facts(
        [
            ("state", status.state.clone()),
            ("version", status.version.clone()),
            ("vault", status.vault_id.clone()),
            ("tenant", status.tenant.clone()),
            ("you are", format!("{} ({})", status.principal, status.role)),
            ("since", started.to_owned()),
            ("schema", version(status.schema_version)),
            ("policy", version(status.policy_version)),
            ("ledger", format!("{} leaves", status.ledger_size)),
            ("keystore", format!("number {}", status.keystore_number)),
            (
                "root key",
                if seal.reason.is_empty() { seal.provider } else { format!("{}: {}", seal.provider, seal.reason) },
            ),
        ]
        .into_iter()
        .chain(status.journal.as_ref().map(|of| ("journal", format!("{}, {} records", of.path, of.records))))
        .chain(certificates::facts(status))
        .chain(actors::facts(status))
        .chain((!status.clock_problem.is_empty()).then(|| ("clock", status.clock_problem.clone()))),
    );
    if !status.notice.is_empty() {
        text = format!("FROZEN: {}\n\n{text}", status.notice);
    }
    if !status.keys.is_empty() {
        let rows = status.keys.iter().map(|key| vec![key.name.clone(), key.version.to_string(), key.state.clone()]);
        text.push_str("\n\n");
        text.push_str(&table(&["KEY", "VERSION", "STATE"], rows));
    }
    text
}
