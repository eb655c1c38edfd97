//! `strongroom subject consent`: what a data subject allows, and takes back.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Value, json};
use strongroom_proto::v1::{
    Consent, GrantConsentRequest, ListConsentsRequest, WithdrawConsentRequest, consent, grant_consent_request,
    list_consents_request, withdraw_consent_request,
};
use time::OffsetDateTime;

use crate::cli::client::Context;
use crate::cli::expiry::{parse_time, to_wire};
use crate::cli::output::{CliError, Exit, instant, instant_if_any, table};
use crate::cli::pki::sha256;

/// Record what a data subject allows, and takes back.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Record that a data subject consents to a purpose.
    #[command(after_help = "Examples:
  strongroom subject consent grant customer-4711 --purpose marketing \\
      --text consent-en-3.txt --text-version en-3 --channel web
  strongroom subject consent grant customer-4711 --purpose marketing \\
      --field borrower.mobile --text-hash HEX --text-version en-3 \\
      --channel branch --expires 2031-12-31

Without --field and --class it is a consent to all of the purpose, but for
classes for which the schema asks for separate consent. The text itself stays
with you: the vault keeps its SHA-256. Version and channel stand in the ledger
in clear and must say nothing that is personal.

A consent stands from when it is recorded. Of one that was given before, on
paper say, --given keeps when.")]
    Grant(Grant),
    /// Record that a data subject takes its consent back: from then on nothing is read by it.
    #[command(after_help = "Examples:
  strongroom subject consent withdraw customer-4711 --purpose marketing
  strongroom subject consent withdraw customer-4711 --purpose marketing --field borrower.mobile

With --field or --class all else that was allowed stays so.")]
    Withdraw(Withdraw),
    /// Show what a data subject allowed and took back, with the evidence.
    #[command(after_help = "Examples:
  strongroom subject consent list customer-4711
  strongroom subject consent list customer-4711 --purpose marketing --output json
  strongroom subject consent list customer-4711 --field borrower.mobile")]
    List(List),
}

#[derive(Clone, Debug, ClapArgs)]
struct About {
    /// The subject's id, as values are stored with.
    id: String,

    /// The purpose: one that rests on consent.
    #[arg(long, value_name = "PURPOSE")]
    purpose: String,

    /// Only this field: COLLECTION.FIELD.
    #[arg(long, value_name = "FIELD", conflicts_with = "class")]
    field: Option<String>,

    /// Only fields of this data class.
    #[arg(long, value_parser = ["c1", "c2", "c3"])]
    class: Option<String>,
}

#[derive(Clone, Debug, ClapArgs)]
struct Grant {
    #[command(flatten)]
    about: About,

    /// A file with the text that was shown, byte by byte.
    #[arg(long, value_name = "FILE", required_unless_present = "text_hash", conflicts_with = "text_hash")]
    text: Option<PathBuf>,

    /// Its SHA-256, instead of the text.
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    text_hash: Option<[u8; 32]>,

    /// Which version of the text that is: 1 to 32 of a-z A-Z 0-9 . - _
    #[arg(long, value_name = "VERSION")]
    text_version: String,

    /// By which way the consent was given: web, branch, phone.
    #[arg(long, value_name = "CHANNEL")]
    channel: String,

    /// When the subject gave it, if it is recorded later: a date, or a time as in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    given: Option<OffsetDateTime>,

    /// When it ends by itself: likewise.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<OffsetDateTime>,
}

#[derive(Clone, Debug, ClapArgs)]
struct Withdraw {
    #[command(flatten)]
    about: About,
}

#[derive(Clone, Debug, ClapArgs)]
struct List {
    /// The subject's id, as values are stored with.
    id: String,

    /// Only consents to this purpose.
    #[arg(long, value_name = "PURPOSE")]
    purpose: Option<String>,

    /// Only consents that say something of this field: COLLECTION.FIELD.
    #[arg(long, value_name = "FIELD", conflicts_with = "class")]
    field: Option<String>,

    /// Only consents that say something of this data class.
    #[arg(long, value_parser = ["c1", "c2", "c3"])]
    class: Option<String>,
}

fn parse_hash(text: &str) -> Result<[u8; 32], String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "write the 64 hexadecimal digits that `sha256sum FILE` prints".to_owned())
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Grant(grant) => give(grant, context).await,
        Command::Withdraw(withdraw) => take(withdraw.about, context).await,
        Command::List(list) => show(list, context).await,
    }
}

async fn give(grant: Grant, context: &Context) -> Result<Exit, CliError> {
    use grant_consent_request::Scope;
    let Grant { about: About { id, purpose, field, class }, text, text_hash, text_version, channel, given, expires } =
        grant;
    let hash = match (text, text_hash) {
        (Some(path), _) => sha256(&std::fs::read(&path).map_err(|error| CliError::file(&path, error))?),
        (None, Some(hash)) => hash,
        (None, None) => return Err(CliError::Usage("add --text FILE or --text-hash HEX".into())),
    };
    let request = GrantConsentRequest {
        subject: id,
        purpose: purpose.clone(),
        scope: field.map(Scope::Field).or(class.map(Scope::Class)),
        text_sha256: hash.to_vec().into(),
        text_version,
        channel,
        given_time: given.map(to_wire),
        expire_time: expires.map(to_wire),
    };
    let changed = context.subjects().await?.grant_consent(request).await?.into_inner().changed;
    context.output.show(
        || json!({ "changed": changed, "text_sha256": HEXLOWER.encode(&hash) }),
        || match changed {
            true => format!("the consent to {purpose} stands from now on"),
            false => "just this consent stood already: nothing has changed".to_owned(),
        },
    )?;
    Ok(Exit::Done)
}

async fn take(About { id, purpose, field, class }: About, context: &Context) -> Result<Exit, CliError> {
    use withdraw_consent_request::Scope;
    let scope = field.map(Scope::Field).or(class.map(Scope::Class));
    let request = WithdrawConsentRequest { subject: id, purpose: purpose.clone(), scope };
    let changed = context.subjects().await?.withdraw_consent(request).await?.into_inner().changed;
    context.output.show(
        || json!({ "changed": changed }),
        || match changed {
            true => format!("withdrawn: nothing of it is read for {purpose} any more"),
            false => "no such consent stood: nothing has changed".to_owned(),
        },
    )?;
    Ok(Exit::Done)
}

async fn show(list: List, context: &Context) -> Result<Exit, CliError> {
    use list_consents_request::Scope;
    let List { id, purpose, field, class } = list;
    let scope = field.map(Scope::Field).or(class.map(Scope::Class));
    let request = ListConsentsRequest { subject: id, purpose: purpose.unwrap_or_default(), scope };
    let consents = context.subjects().await?.list_consents(request).await?.into_inner().consents;
    context.output.show(
        || json!({ "consents": consents.iter().map(document).collect::<Vec<_>>() }),
        || match consents.is_empty() {
            true => "there is no consent".to_owned(),
            false => table(
                &[
                    "PURPOSE",
                    "OF",
                    "STATE",
                    "RECORDED",
                    "GIVEN",
                    "ENDS",
                    "WITHDRAWN",
                    "TEXT",
                    "CHANNEL",
                    "SHA-256 OF THE TEXT",
                ],
                consents.iter().map(row),
            ),
        },
    )?;
    Ok(Exit::Done)
}

/// A consent as JSON.
pub(super) fn document(one: &Consent) -> Value {
    let (field, class) = match &one.scope {
        Some(consent::Scope::Field(field)) => (Some(field), None),
        Some(consent::Scope::Class(class)) => (None, Some(class)),
        None => (None, None),
    };
    json!({
        "purpose": one.purpose,
        "field": field,
        "class": class,
        "state": one.state,
        "grant_time": instant(one.grant_time.as_ref()),
        "given_time": instant_if_any(one.given_time),
        "expire_time": instant_if_any(one.expire_time),
        "withdraw_time": instant_if_any(one.withdraw_time),
        "text_sha256": HEXLOWER.encode(&one.text_sha256),
        "text_version": one.text_version,
        "channel": one.channel,
    })
}

/// What it is about, in a word.
pub(super) fn of(one: &Consent) -> String {
    match &one.scope {
        Some(consent::Scope::Field(field)) => field.clone(),
        Some(consent::Scope::Class(class)) => format!("class {class}"),
        None => "all".to_owned(),
    }
}

fn row(one: &Consent) -> Vec<String> {
    vec![
        one.purpose.clone(),
        of(one),
        one.state.clone(),
        instant(one.grant_time.as_ref()),
        instant(one.given_time.as_ref()),
        instant(one.expire_time.as_ref()),
        instant(one.withdraw_time.as_ref()),
        one.text_version.clone(),
        one.channel.clone(),
        HEXLOWER.encode(&one.text_sha256),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_hexadecimal_digits_of_either_case() {
        assert_eq!(parse_hash(&"aB".repeat(32)), Ok([0xab; 32]));
        for wrong in ["", "ab", &"ab".repeat(33), &"xy".repeat(32)] {
            assert!(parse_hash(wrong).unwrap_err().contains("sha256sum"), "{wrong}");
        }
    }
}
