//! `strongroom match`: does a token stand for this value?

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::match_result::Result as Answer;
use strongroom_proto::v1::{MatchItem, MatchRequest};

use super::client::Context;
use super::output::{CliError, Exit};
use super::value::{ValueArgument, read_value};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "app";

/// Ask whether a token stands for a value, without showing it.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom match srt1_… - --purpose kyc_review < id_card.txt
  strongroom match srt1_… 11010519491231002x \\
      --purpose kyc_review && echo the same

Values are compared in the field's normal form. Exit code 0: yes; 1: no, or
refused. What is on the command line can be seen by everybody on the machine
(`ps`): give real values as '-'.")]
pub struct Args {
    /// The token.
    pub token: String,

    /// The value. '-' reads standard input, without its last newline; on a terminal it asks, and shows nothing.
    #[arg(allow_hyphen_values = true)]
    pub value: ValueArgument,

    /// Why it is asked: a purpose that the schema declares.
    #[arg(long)]
    pub purpose: String,

    /// For a token that several subjects share: which of them is meant.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub subject: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let value = read_value(&args.value, &context.input)?;
    let item = MatchItem { token: args.token.clone(), value: value.into(), subject: args.subject };
    let request = MatchRequest { items: vec![item], purpose: args.purpose };
    let answer = context.vault().await?.r#match(request).await?.into_inner();
    let matched = match answer.results.into_iter().next().and_then(|result| result.result) {
        Some(Answer::Matched(matched)) => matched,
        Some(Answer::Problem(problem)) => return Err(CliError::Refused(Box::new((&problem).into()))),
        None => return Err(CliError::unfit("the vault answered neither yes nor no")),
    };
    context.output.show(
        || json!({ "token": args.token, "matched": matched }),
        || if matched { "yes".to_owned() } else { "no".to_owned() },
    )?;
    Ok(if matched { Exit::Done } else { Exit::Failed })
}
