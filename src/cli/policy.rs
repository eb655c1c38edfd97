//! `strongroom policy`: put Cedar policies in force, check them, show them, and ask them why.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use strongroom_proto::v1::{
    ApplyPolicyRequest, ExplainPolicyRequest, ExplainPolicyResponse, GetPolicyRequest, ListPoliciesRequest,
    RollBackPolicyRequest,
};

use super::client::Context;
use super::output::{CliError, Exit, Refusal, facts, instant, table};
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
    /// Print the policies in force, or an older version, as they were applied.
    #[command(after_help = "Examples:
  strongroom policy show
  strongroom policy show --version 3")]
    Show {
        /// An older version: `strongroom policy history` shows which are kept.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        version: u32,
    },
    /// Show which versions there are, when each was applied, and by whom. The last 50 are kept.
    #[command(after_help = "Next: strongroom policy show --version N, strongroom policy rollback N")]
    History,
    /// Put an older version in force again, under a new version.
    #[command(after_help = "Examples:
  strongroom policy rollback 3 --dry-run
  strongroom policy rollback 3

It is checked and approved as if its text was applied: strongroom policy apply.")]
    Rollback {
        /// Which version.
        version: u32,

        /// Check only.
        #[arg(long)]
        dry_run: bool,
    },
    /// Say which policy allows or denies a request, and what would be allowed instead.
    #[command(after_help = "Examples:
  strongroom policy explain --role app --action detokenize \\
      --field borrower.id_card --view plain --purpose kyc_review
  strongroom policy explain --role auditor --action export_ledger
  strongroom policy explain --role officer --action apply_policy --approvals 1
  strongroom policy explain --role app --action detokenize \\
      --field borrower.name --view masked --purpose marketing --consent standing

Exit code 0: allowed; 1: denied.")]
    Explain(Box<Explain>),
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

    /// The caller's tier: I, II or III; without it the one that --name has.
    #[arg(long, default_value = "", hide_default_value = true)]
    tier: String,

    /// The role of the person on whose behalf it would be asked.
    #[arg(long, value_name = "ROLE", default_value = "", hide_default_value = true)]
    actor_role: String,

    /// Whose case the data subject is, as seen from that person: none, own or other.
    #[arg(long, value_name = "LOAD", default_value = "", hide_default_value = true)]
    case_load: String,

    /// How fresh the second factor would be: absent, fresh or bound.
    #[arg(long, value_name = "FACTOR", default_value = "", hide_default_value = true)]
    second_factor: String,

    /// What the data subject allowed: not_needed, standing or absent; absent without it where the purpose rests on consent.
    #[arg(long, default_value = "", hide_default_value = true)]
    consent: String,

    /// The hour of the day, 0 to 23, UTC; this one without it.
    #[arg(long)]
    hour: Option<u32>,

    /// How many others would have approved.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    approvals: u32,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Apply { file, tests } => apply(file, tests, false, context).await,
        Command::Check { file, tests } => apply(file, tests, true, context).await,
        Command::Show { version } => show(version, context).await,
        Command::History => history(context).await,
        Command::Rollback { version, dry_run } => roll_back(version, dry_run, context).await,
        Command::Explain(question) => explain(*question, context).await,
    }
}

async fn apply(file: PathBuf, tests: Option<PathBuf>, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let source = read_source(&file)?;
    let tests = tests.as_ref().map(read_source).transpose()?.unwrap_or_default();
    let request = ApplyPolicyRequest { source, tests, dry_run };
    let applied = context.access().await?.apply_policy(request).await?.into_inner();
    context.output.show(
        || json!({ "version": applied.version, "cases": applied.cases, "in_force": !dry_run, "notes": applied.notes }),
        || {
            let cases = if applied.cases == 0 { String::new() } else { format!(", {} cases hold", applied.cases) };
            let done = match dry_run {
                true => format!("good{cases}; it would be version {}", applied.version),
                false => format!("policy version {} is in force{cases}", applied.version),
            };
            with_notes(done, &applied.notes)
        },
    )?;
    Ok(Exit::Done)
}

/// What was done, and below it what may not be what was meant.
pub fn with_notes(done: String, notes: &[String]) -> String {
    notes.iter().fold(done, |said, note| format!("{said}\nnote: {note}"))
}

async fn history(context: &Context) -> Result<Exit, CliError> {
    let policies = context.access().await?.list_policies(ListPoliciesRequest {}).await?.into_inner().policies;
    let rolled_back = |to: u32| if to == 0 { String::new() } else { format!("rolled back to {to}") };
    context.output.show(
        || {
            let policies = policies.iter().map(|one| {
                json!({
                    "version": one.version,
                    "sha256": one.sha256,
                    "apply_time": instant(one.apply_time.as_ref()),
                    "by": one.by,
                    "rolled_back_to": (one.rolled_back_to > 0).then_some(one.rolled_back_to),
                })
            });
            json!({ "policies": policies.collect::<Vec<_>>() })
        },
        || {
            let rows = policies.iter().map(|one| {
                vec![
                    one.version.to_string(),
                    instant(one.apply_time.as_ref()),
                    one.by.clone(),
                    one.sha256.clone(),
                    rolled_back(one.rolled_back_to),
                ]
            });
            table(&["VERSION", "APPLIED", "BY", "SHA-256", ""], rows)
        },
    )?;
    Ok(Exit::Done)
}

async fn roll_back(version: u32, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let request = RollBackPolicyRequest { version, dry_run };
    let applied = context.access().await?.roll_back_policy(request).await?.into_inner();
    context.output.show(
        || {
            json!({
                "version": applied.version,
                "rolled_back_to": version,
                "in_force": !dry_run,
                "notes": applied.notes,
            })
        },
        || {
            let done = match dry_run {
                true => format!("good; version {version} would be version {}", applied.version),
                false => format!("policy version {} is in force, with the text of version {version}", applied.version),
            };
            with_notes(done, &applied.notes)
        },
    )?;
    Ok(Exit::Done)
}

async fn show(version: u32, context: &Context) -> Result<Exit, CliError> {
    let policy = context.access().await?.get_policy(GetPolicyRequest { version }).await?.into_inner();
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
    let Explain { role, name, action, field, view, purpose, hour, approvals, .. } = question;
    let Explain { tier, actor_role, case_load, second_factor, consent, .. } = question;
    let request = ExplainPolicyRequest {
        role,
        name,
        action,
        field,
        view,
        purpose,
        tier,
        actor_role,
        case_load,
        second_factor,
        consent,
        hour,
        approvals,
    };
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
                "allowed_approvals": answer.allowed_approvals,
                "allowed_second_factor": answer.allowed_second_factor,
                "allowed_with_consent": answer.allowed_with_consent,
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
    let mut people = Vec::new();
    if !answer.allowed_second_factor.is_empty() {
        people.push(format!("a {} second factor", answer.allowed_second_factor));
    }
    if answer.allowed_approvals > 0 {
        let approvals = if answer.allowed_approvals == 1 { "approval" } else { "approvals" };
        people.push(format!("{} {approvals} in all", answer.allowed_approvals));
    }
    let mut instead: Vec<String> = (!people.is_empty()).then(|| people.join(" and ")).into_iter().collect();
    if answer.allowed_with_consent {
        instead.push("the data subject's consent".to_owned());
    }
    if !instead.is_empty() {
        pairs.push(("allowed with", instead.join(", or with ")));
    }
    facts(pairs)
}
