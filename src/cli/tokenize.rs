//! `strongroom tokenize`: one value in, its token out.

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::TokenizeRequest;
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::client::Context;
use super::expiry::parse_time;
use super::output::{CliError, Exit, facts, on_terminal};
use super::value::{ValueArgument, new_item, read_value};

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

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let value = read_value(&args.value, &context.input)?;
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
