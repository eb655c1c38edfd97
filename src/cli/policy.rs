//! `strongroom policy`: put Cedar policies in force, check them, show them, and ask them why.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_proto::v1::{ApplyPolicyRequest, ExplainPolicyRequest, ExplainPolicyResponse, GetPolicyRequest};

use super::client::Context;
use super::output::{CliError, Exit, Refusal, facts};
use super::schema::read_source;

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

/// Put Cedar policies in force, check them, show them, or ask them why.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Put a set of policies in force. A set that does not validate is refused, and the old one stays.
    #[command(after_help = "Examples:
  strongroom policy apply deploy/policies/default.cedar \\
      --tests deploy/policies/default.tests.toml

Every read whose ledger entry comes after is decided by the new set.")]
    Apply {
        /// The policies, in Cedar.
        file: PathBuf,

        /// A table of cases that the policies must decide as it says, TOML.
        #[arg(long, value_name = "FILE")]
        tests: Option<PathBuf>,
    },
    /// Validate a set of policies against the schema in force; change nothing.
    Check {
        /// The policies, in Cedar.
        file: PathBuf,

        /// A table of cases that the policies must decide as it says, TOML.
        #[arg(long, value_name = "FILE")]
        tests: Option<PathBuf>,
    },
    /// Print the policies in force, as they were applied.
    Show,
    /// Say which policy allows or denies a request, and what would be allowed instead.
    #[command(after_help = "Examples:
  strongroom policy explain --role app --action detokenize \\
      --field borrower.id_card --view plain --purpose kyc_review
  strongroom policy explain --role auditor --action export_ledger

Exit code 0: allowed; 1: denied.")]
    Explain(Explain),
}

#[derive(Clone, Debug, ClapArgs)]
struct Explain {
    /// Who would ask: app, auditor, officer, …
    #[arg(long)]
    role: String,

    /// One principal of that role, where policies name principals.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,

    /// What would be asked: tokenize, detokenize, match, lookup, …
    #[arg(long)]
    action: String,

    /// The field, for actions on values.
    #[arg(long, default_value = "", hide_default_value = true)]
    field: String,

    /// The view of the value.
    #[arg(long, default_value = "", hide_default_value = true)]
    view: String,

    /// Why it would be read.
    #[arg(long, default_value = "", hide_default_value = true)]
    purpose: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Apply { file, tests } => apply(file, tests, false, context).await,
        Command::Check { file, tests } => apply(file, tests, true, context).await,
        Command::Show => show(context).await,
        Command::Explain(question) => explain(question, context).await,
    }
}

async fn apply(file: PathBuf, tests: Option<PathBuf>, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let source = read_source(&file)?;
    let tests = tests.as_ref().map(read_source).transpose()?.unwrap_or_default();
    let request = ApplyPolicyRequest { source, tests, dry_run };
    let applied = context.access().await?.apply_policy(request).await?.into_inner();
    context.output.show(
        || json!({ "version": applied.version, "cases": applied.cases, "in_force": !dry_run }),
        || {
            let cases = if applied.cases == 0 { String::new() } else { format!(", {} cases hold", applied.cases) };
            match dry_run {
                true => format!("good{cases}; it would be version {}", applied.version),
                false => format!("policy version {} is in force{cases}", applied.version),
            }
        },
    )?;
    Ok(Exit::Done)
}

async fn show(context: &Context) -> Result<Exit, CliError> {
    let policy = context.access().await?.get_policy(GetPolicyRequest {}).await?.into_inner();
    if policy.version == 0 {
        return Err(CliError::Unfit {
            message: "no policy is in force yet: everything is denied".into(),
            next: "strongroom policy apply FILE".into(),
        });
    }
    context.output.show(|| json!({ "version": policy.version, "source": policy.source }), || policy.source.clone())?;
    Ok(Exit::Done)
}

async fn explain(question: Explain, context: &Context) -> Result<Exit, CliError> {
    let Explain { role, name, action, field, view, purpose } = question;
    let request = ExplainPolicyRequest { role, name, action, field, view, purpose };
    let answer = context.access().await?.explain_policy(request).await?.into_inner();
    if let Some(problem) = &answer.problem {
        return Err(CliError::Refused(Box::new(Refusal::from(problem))));
    }
    context.output.show(
        || {
            json!({
                "allowed": answer.allowed,
                "policies": answer.policies,
                "explanation": answer.explanation,
                "allowed_views": answer.allowed_views,
                "allowed_purposes": answer.allowed_purposes,
            })
        },
        || in_words(&answer),
    )?;
    Ok(if answer.allowed { Exit::Done } else { Exit::Failed })
}

fn in_words(answer: &ExplainPolicyResponse) -> String {
    let mut pairs = vec![
        ("decision", if answer.allowed { "allowed".to_owned() } else { "denied".to_owned() }),
        ("because", answer.explanation.clone()),
    ];
    let lists = [
        ("policies", &answer.policies),
        ("allowed views", &answer.allowed_views),
        ("allowed purposes", &answer.allowed_purposes),
    ];
    pairs.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, list.join(", "))));
    facts(pairs)
}
