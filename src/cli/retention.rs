//! `strongroom retention`: what falls due when, and erasing what is due.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use strongroom_proto::v1::{
    ConfirmClockRequest, FieldRetention, RetentionReportRequest, RetentionReportResponse, StartExpireRequest,
};
use time::OffsetDateTime;

use super::client::Context;
use super::expiry::to_wire;
use super::keys::How;
use super::output::{CliError, Exit, facts, instant, table};

/// See what falls due by retention when, and have erased what is due.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show how many values of each field fall due when.
    #[command(after_help = "Examples:
  strongroom retention report
  strongroom retention report --as auditor --output json

Each value is counted in one column. What is due can't be read any more, whether or not it is erased yet. HELD is what a
legal hold of its subject keeps, whenever it falls due.

Exit code 3: the clock jumped, and nothing is erased until the vault's operator confirms it.")]
    Report,

    /// Erase, in the background, what is due, and watch it. The vault does so by itself once a day.
    #[command(after_help = "Examples:
  strongroom retention run
  strongroom retention run --up-to 120000    more than the vault erases without asking: with an officer's approval
  strongroom retention run --status
  strongroom retention run --cancel --as officer-1

What shares its DEK with other values of its subject leaves the DEK marked: `strongroom keys roll` ends what it sealed. With
its last value a subject goes, with its DEKs.

Exit code 3: values were skipped, since a legal hold or a freeze keeps them, somebody else cancelled the job, or it waits.")]
    Run {
        /// Erase up to so many values, where more are due than are erased without approval.
        #[arg(long, value_name = "VALUES", conflicts_with_all = ["status", "watch", "cancel"])]
        up_to: Option<u64>,

        #[command(flatten)]
        how: How,
    },

    /// Say that the vault's clock is right, after it jumped: from then on what is due by it is erased again.
    #[command(after_help = "Examples:
  strongroom retention confirm-clock

Look at the clocks first: `strongroom status` says how it jumped. This machine's clock is held against the vault's, and must be
right as well.")]
    ConfirmClock,
}

impl Args {
    /// Who asks unless the caller says otherwise.
    pub fn principal(&self) -> &'static str {
        match self.command {
            Command::ConfirmClock => "operator",
            Command::Report | Command::Run { .. } => "privacy",
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Report => report(context).await,
        Command::Run { up_to, how } => {
            let job = match how.with_newest("expire", context).await? {
                Some(job) => job,
                None => {
                    let request = StartExpireRequest { up_to: up_to.unwrap_or_default() };
                    let started = context.subjects().await?.start_expire(request).await?.into_inner();
                    how.after(started, context).await?
                }
            };
            how.show(&job, context)
        }
        Command::ConfirmClock => {
            let time = Some(to_wire(OffsetDateTime::now_utc()));
            let confirmed = context.system().await?.confirm_clock(ConfirmClockRequest { time }).await?.into_inner();
            let time = instant(confirmed.time.as_ref());
            context.output.show(
                || json!({ "time": time }),
                || format!("the clock is confirmed, {time}: what is due by it is erased again"),
            )?;
            Ok(Exit::Done)
        }
    }
}

async fn report(context: &Context) -> Result<Exit, CliError> {
    let mut answer = context.subjects().await?.retention_report(RetentionReportRequest {}).await?.into_inner();
    let report = answer.message().await?.ok_or_else(|| CliError::unfit("the vault answered without a report"))?;
    context.output.show(|| document(&report), || text(&report))?;
    Ok(if report.clock_problem.is_empty() { Exit::Done } else { Exit::Partly })
}

/// The numbers of a field, in the order of the columns.
fn numbers(field: &FieldRetention) -> [(&'static str, u64); 9] {
    [
        ("values", field.values),
        ("due", field.due),
        ("within_7_days", field.within_7_days),
        ("within_30_days", field.within_30_days),
        ("within_90_days", field.within_90_days),
        ("within_a_year", field.within_a_year),
        ("later", field.later),
        ("never", field.never),
        ("held", field.held),
    ]
}

fn document(report: &RetentionReportResponse) -> Value {
    let fields = report.fields.iter().map(|field| {
        let mut row = json!({ "field": field.field, "retention": field.retention });
        for (name, number) in numbers(field) {
            row[name] = number.to_string().into();
        }
        row
    });
    json!({
        "time": instant(report.time.as_ref()),
        "fields": fields.collect::<Vec<_>>(),
        "cap": report.cap.to_string(),
        "clock_problem": report.clock_problem,
    })
}

fn text(report: &RetentionReportResponse) -> String {
    const HEADER: [&str; 11] =
        ["FIELD", "RETENTION", "VALUES", "DUE", "7 DAYS", "30 DAYS", "90 DAYS", "A YEAR", "LATER", "NEVER", "HELD"];
    let rows = report.fields.iter().map(|field| {
        let numbers = numbers(field).map(|(_, number)| number.to_string());
        [field.field.clone(), field.retention.clone()].into_iter().chain(numbers).collect()
    });
    let mut pairs = vec![
        ("as of", instant(report.time.as_ref())),
        ("without approval", format!("up to {} values in one job", report.cap)),
    ];
    if !report.clock_problem.is_empty() {
        pairs.push(("stopped", report.clock_problem.clone()));
    }
    format!("{}\n\n{}", table(&HEADER, rows), facts(pairs))
}
