//! `strongroom detokenize`: tokens in, values or views of them out.

use std::io::Read as _;

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use strongroom_proto::v1::detokenize_result::Result as Answer;
use strongroom_proto::v1::{DetokenizeItem, DetokenizeRequest, DetokenizeResult};

use super::client::Context;
use super::input::Input;
use super::output::{CliError, Exit, Refusal, on_terminal, say, table, value_document};
use super::step_up;

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "app";

/// Turn tokens back into values, or into views of them.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom detokenize srt1_… --purpose loan_servicing
  strongroom detokenize srt1_… --purpose loan_servicing --view plain
  strongroom detokenize - --purpose kyc_review --output json < tokens.txt

Every read is in the ledger before its answer leaves. With one token on a pipe
the bare value is printed.
Exit code 3: some tokens were refused; 1: all were. If one needs a second
factor, all are read again once it is shown, and none is printed before.")]
pub struct Args {
    /// The tokens; '-' reads them from standard input, one a line.
    #[arg(required = true)]
    pub token: Vec<String>,

    /// Why the values are read: a purpose that the schema declares.
    #[arg(long)]
    pub purpose: String,

    /// Which view of the values, as the schema names them for the field. Without it: masked.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub view: String,

    /// For a token that several subjects share: which of them is meant.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub subject: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let tokens = read_tokens(args.token, &context.input)?;
    let items = tokens.iter().map(|token| DetokenizeItem {
        token: token.clone(),
        view: String::new(),
        subject: args.subject.clone(),
    });
    let request = DetokenizeRequest { items: items.collect(), purpose: args.purpose, view: args.view };
    let results = context.vault().await?.detokenize(request).await?.into_inner().results;
    if results.len() != tokens.len() {
        return Err(CliError::unfit("the vault answered with another number of values than there are tokens"));
    }
    let answers: Vec<_> = results.into_iter().map(read).collect();
    step_up::whole(context, answers.iter().filter_map(|answer| answer.as_ref().err()))?;
    if let [only] = answers.as_slice()
        && context.output == super::output::Output::Table
    {
        // One token: its value alone on a pipe, its refusal as any other.
        match only {
            Ok((_, value)) if !on_terminal() => return say(value).map(|()| Exit::Done),
            Err(refusal) => return Err(CliError::Refused(Box::new(refusal.clone()))),
            Ok(_) => {}
        }
    }
    context.output.show(
        || json!({ "results": tokens.iter().zip(&answers).map(document).collect::<Vec<_>>() }),
        || table(&["TOKEN", "FIELD", "VALUE"], tokens.iter().zip(&answers).map(row)),
    )?;
    Ok(match answers.iter().filter(|answer| answer.is_err()).count() {
        0 => Exit::Done,
        refused if refused == answers.len() => Exit::Failed,
        _ => Exit::Partly,
    })
}

type Read = Result<(String, bytes::Bytes), Refusal>;

fn read(result: DetokenizeResult) -> Read {
    match result.result {
        Some(Answer::Value(value)) => Ok((result.field, value)),
        Some(Answer::Problem(problem)) => Err(Refusal::from(&problem)),
        None => Err(Refusal {
            code: tonic::Code::Internal,
            reason: String::new(),
            message: "the vault answered neither a value nor a problem".into(),
            violations: vec![],
            metadata: vec![],
            retry_after: None,
        }),
    }
}

fn document((token, answer): (&String, &Read)) -> Value {
    match answer {
        Ok((field, value)) => {
            let (name, value) = value_document(value);
            json!({ "token": token, "field": field, name: value })
        }
        Err(refusal) => json!({ "token": token, "problem": refusal.document() }),
    }
}

fn row((token, answer): (&String, &Read)) -> Vec<String> {
    match answer {
        Ok((field, value)) => vec![token.clone(), field.clone(), String::from_utf8_lossy(value).into_owned()],
        Err(refusal) => vec![token.clone(), String::new(), format!("({})", refusal.line())],
    }
}

/// The tokens of the arguments: themselves, or for '-' the lines of standard input.
fn read_tokens(arguments: Vec<String>, input: &Input) -> Result<Vec<String>, CliError> {
    if arguments != ["-"] {
        return Ok(arguments);
    }
    let lines = input.once(|| {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.map(|_| text.into_bytes()).map_err(|error| CliError::file("standard input", error))
    })?;
    let lines = String::from_utf8_lossy(&lines);
    let tokens: Vec<_> = lines.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    match tokens.is_empty() {
        true => Err(CliError::Usage("standard input holds no token".into())
            .advise("tokens on standard input, one a line, or as arguments instead of '-'")),
        false => Ok(tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_becomes_a_document_with_its_field() {
        let token = "srt1_x".to_owned();
        let answer = Ok(("borrower.name".to_owned(), bytes::Bytes::from_static("张**".as_bytes())));
        assert_eq!(
            document((&token, &answer)),
            json!({ "token": "srt1_x", "field": "borrower.name", "value": "张**" })
        );
    }
}
