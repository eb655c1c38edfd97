//! `strongroom tokenize`: one value in, its token out.

use std::convert::Infallible;
use std::fmt;
use std::io::{IsTerminal, Read};
use std::str::FromStr;

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::{TokenizeItem, TokenizeRequest};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::client::Context;
use super::output::{CliError, Exit, facts, on_terminal};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "app";

/// Store a value and print its token.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom tokenize borrower.name 张三 --subject c-1001
  printf %s 11010519491231002X | strongroom tokenize borrower.id_card - \\
      --subject c-1001
  TOKEN=$(strongroom tokenize borrower.mobile - --subject c-1001 < mobile.txt)

What is on the command line can be seen by everybody on the machine (`ps`) and
stays in the shell's history: give real values as '-'.")]
pub struct Args {
    /// The field, as the schema declares it: borrower.id_card
    pub field: String,

    /// The value. '-' reads standard input, without its last newline; on a terminal it asks, and shows nothing.
    #[arg(allow_hyphen_values = true)]
    pub value: ValueArgument,

    /// Whose value it is: your own id of the person or company.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub subject: String,

    /// When it stops being readable: 2031-12-31 or 2031-12-31T23:59:59Z. Without it, as the field's retention says.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub expires: Option<OffsetDateTime>,

    /// Makes a retry safe: the same key with the same request returns the same token and stores nothing twice.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub idempotency_key: String,
}

/// A value on the command line. It has no text of its own in logs.
#[derive(Clone)]
pub struct ValueArgument(Zeroizing<String>);

impl FromStr for ValueArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for ValueArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ValueArgument(..)")
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let value = read_value(&args.value)?;
    let item = new_item(&args.field, value, &args.subject, args.expires);
    let request = TokenizeRequest { items: vec![item], idempotency_key: args.idempotency_key };
    let answer = context.vault().await?.tokenize(request).await.map_err(refused)?.into_inner();
    let [token] = answer.tokens.as_slice() else {
        return Err(CliError::unfit("the vault answered with another number of tokens than there are values"));
    };
    context.output.show(
        || json!({ "field": args.field, "token": token }),
        || match on_terminal() {
            true => facts([("token", token.as_str()), ("field", &args.field)]),
            false => token.clone(),
        },
    )?;
    Ok(Exit::Done)
}

/// Why a value was not stored; or whether it was is not known.
fn refused(status: Status) -> CliError {
    let unknown = [Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Cancelled, Code::Aborted];
    match CliError::from(status) {
        CliError::Refused(refusal) if refusal.reason == "OUTCOME_UNKNOWN" || unknown.contains(&refusal.code) => {
            CliError::Refused(refusal)
                .advise("retry with the same --idempotency-key; without one the value may be stored twice")
        }
        error => error,
    }
}

/// A value to be stored.
pub fn new_item(
    field: &str,
    value: impl Into<bytes::Bytes>,
    subject: &str,
    expires: Option<OffsetDateTime>,
) -> TokenizeItem {
    let mut item = TokenizeItem {
        field: field.to_owned(),
        value: value.into(),
        subject: subject.to_owned(),
        expire_time: None,
        token: String::new(),
    };
    if let Some(at) = expires {
        let stamp = item.expire_time.get_or_insert_default();
        stamp.seconds = at.unix_timestamp();
        stamp.nanos = at.nanosecond() as i32;
    }
    item
}

/// The value of an argument: itself, or for '-' what stands on standard input.
pub fn read_value(argument: &ValueArgument) -> Result<Vec<u8>, CliError> {
    if *argument.0 != "-" {
        return Ok(argument.0.as_bytes().to_vec());
    }
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        drop(input);
        let typed = rpassword::prompt_password("value: ").map_err(|error| CliError::file("the terminal", error))?;
        return Ok(typed.into_bytes());
    }
    let mut value = Vec::new();
    // A value has at most 64 KiB; the vault says so of anything longer, without all of it being read.
    input.by_ref().take(1 << 20).read_to_end(&mut value).map_err(|error| CliError::file("standard input", error))?;
    without_last_newline(&mut value);
    Ok(value)
}

fn without_last_newline(value: &mut Vec<u8>) {
    if value.pop_if(|byte| *byte == b'\n').is_some() {
        value.pop_if(|byte| *byte == b'\r');
    }
}

/// A point in time: RFC 3339, or a date, which means its first instant in UTC.
pub fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map(|date| date.midnight().assume_utc())
        .map_err(|_| "write a date, 2031-12-31, or a time as in RFC 3339, 2031-12-31T23:59:59Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_means_its_first_instant() {
        assert_eq!(parse_time("2031-12-31").unwrap(), parse_time("2031-12-31T00:00:00Z").unwrap());
        assert_eq!(parse_time("2031-12-31T08:00:00+08:00").unwrap(), parse_time("2031-12-31").unwrap());
        assert!(parse_time("31.12.2031").is_err());
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_value() {
        for (given, wanted) in [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("a\r", "a\r")] {
            let mut value = given.as_bytes().to_vec();
            without_last_newline(&mut value);
            assert_eq!(value, wanted.as_bytes());
        }
    }

    #[test]
    fn the_expiry_of_an_item_is_in_seconds_since_1970() {
        let item = new_item("a.b", vec![1u8], "", Some(parse_time("1970-01-02").unwrap()));
        assert_eq!(item.expire_time.unwrap().seconds, 86_400);
    }
}
