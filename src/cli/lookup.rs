//! `strongroom lookup`: which tokens of a field stand for this value?

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::{LookupItem, LookupRequest};

use super::client::Context;
use super::output::{CliError, Exit, on_terminal};
use super::value::{ValueArgument, read_value};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "app";

/// Find the tokens of a field that stand for exactly this value.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom lookup borrower.id_card - --purpose kyc_review < id_card.txt
  strongroom lookup borrower.mobile 13812345678 --purpose kyc_review \\
      --output json

The field must be declared with `lookup` in the schema. On a pipe the tokens
are printed one a line, oldest first; none is an answer too (exit code 0). What
is on the command line can be seen by everybody on the machine (`ps`): give
real values as '-'.")]
pub struct Args {
    /// The field, as the schema declares it: borrower.id_card
    pub field: String,

    /// The value. '-' reads standard input, without its last newline; on a terminal it asks, and shows nothing.
    #[arg(allow_hyphen_values = true)]
    pub value: ValueArgument,

    /// Why it is asked: a purpose that the schema declares.
    #[arg(long)]
    pub purpose: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let value = read_value(&args.value, &context.input)?;
    let item = LookupItem { field: args.field.clone(), value: value.into() };
    let request = LookupRequest { items: vec![item], purpose: args.purpose };
    let answer = context.vault().await?.lookup(request).await?.into_inner();
    let Some(found) = answer.results.into_iter().next() else {
        return Err(CliError::unfit("the vault answered nothing"));
    };
    if let Some(problem) = found.problem {
        return Err(CliError::Refused(Box::new((&problem).into())));
    }
    if found.tokens.is_empty() && context.output == super::output::Output::Table && !on_terminal() {
        return Ok(Exit::Done);
    }
    context.output.show(
        || json!({ "field": args.field, "tokens": found.tokens, "more": found.more }),
        || match (on_terminal(), found.tokens.len()) {
            (false, _) => found.tokens.join("\n"),
            (true, 0) => "no token stands for this value".to_owned(),
            (true, count) => {
                let more = if found.more { ", and there are more" } else { "" };
                format!("{}\n({count} found{more})", found.tokens.join("\n"))
            }
        },
    )?;
    Ok(Exit::Done)
}
