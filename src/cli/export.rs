//! `strongroom export`: a file with tokens in, the same file with values out, where policy allows.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::detokenize_result::Result as Found;
use strongroom_proto::v1::vault_client::VaultClient;
use strongroom_proto::v1::{DetokenizeItem, DetokenizeRequest, DetokenizeResult, Problem};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::batches::{Answer, Exchange, Item};
use super::cells::JsonStyle;
use super::client::{Context, Wire};
use super::mapping::{Form, Mapping, once_each};
use super::output::{CliError, Exit};
use super::step_up;
use super::transfer::{Job, Transfer, report};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "app";

/// The way back: a file with tokens in, the same file with values out, where policy allows.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom export customers.tokens.csv --map name=borrower.name \\
      --map id_no=borrower.id_card --purpose kyc_review -o customers.csv
  strongroom export customers.tokens.jsonl --map mobile=borrower.mobile \\
      --purpose loan_servicing --view masked -o masked.jsonl

A file that `strongroom import` made comes back byte by byte (with --view
plain); in JSONL, use --number for columns that held numbers and --ascii if the
file had characters as \\uXXXX.

Every read is in the ledger before its answer leaves. Records of which a value
may not be read go to OUT.rejects.csv with line, column and reason; the others
go on, and the exit code is 3.

OUT holds personal data: only you can read it. Remove it when it has served its
purpose. It may be interrupted at any moment: the same command goes on where it
stopped; also where a second factor is needed, which lasts five minutes. If the
limits of your tier are used up, it waits up to a minute for them.")]
pub struct Args {
    /// The file with tokens. Its name tells the form: .csv, .tsv, .jsonl, .ndjson
    pub file: PathBuf,

    /// Read this column's tokens; their values must belong to this field. Give it once for each column.
    #[arg(long, required = true, value_name = "COLUMN=FIELD")]
    pub map: Vec<Mapping>,

    /// Why the values are read: a purpose that the schema declares.
    #[arg(long)]
    pub purpose: String,

    /// Which view of the values.
    #[arg(long, default_value = "plain")]
    pub view: String,

    /// The column that names whose values a record holds; needed for tokens that several subjects share.
    #[arg(long, value_name = "COLUMN")]
    pub subject: Option<String>,

    /// Where the file with values goes. It must not exist yet; only you can read it.
    #[arg(short, long, value_name = "OUT")]
    pub out: PathBuf,

    #[command(flatten)]
    pub form: Form,

    /// JSONL: write this column's values as numbers where they are numbers.
    #[arg(long, value_name = "COLUMN")]
    pub number: Vec<String>,

    /// JSONL: write characters outside ASCII as \uXXXX.
    #[arg(long)]
    pub ascii: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let format = args.form.of(&args.file)?;
    let mapped: Vec<String> = args.map.iter().map(|mapping| mapping.column.clone()).collect();
    once_each(&mapped)?;
    if let Some(subject) = &args.subject
        && mapped.contains(subject)
    {
        return Err(CliError::Usage(format!("--subject {subject}: a column of tokens does not name a subject")));
    }
    let pairs: Vec<_> = args.map.iter().map(|mapping| json!([mapping.column, mapping.field])).collect();
    let options = json!({
        "command": "export",
        "format": format!("{format:?}"),
        "map": pairs,
        "batch": args.form.batch,
        "purpose": args.purpose,
        "view": args.view,
        "subject": args.subject,
        "number": args.number,
        "ascii": args.ascii,
        "address": context.connect.endpoint,
    });
    let job = Job {
        input: args.file,
        out: args.out,
        format,
        mapped,
        subject: args.subject,
        subject_needed: false,
        numbers: args.number,
        style: JsonStyle { ascii: args.ascii },
        batch: usize::from(args.form.batch),
        options: options.to_string(),
    };
    let client = context.vault().await?;
    let fields = args.map.into_iter().map(|mapping| mapping.field).collect();
    let detokenizer = Detokenizer { client, fields, purpose: args.purpose, view: args.view };
    let progress = match Transfer::begin(&job)? {
        Ok(transfer) => transfer.run(&detokenizer).await?,
        Err(finished) => finished,
    };
    report(&progress, &job.out, context.output)
}

struct Detokenizer {
    client: VaultClient<Wire>,
    fields: Vec<String>,
    purpose: String,
    view: String,
}

impl Detokenizer {
    async fn read(&self, items: &[&Item]) -> Result<Vec<Answer>, Status> {
        let asked = items.iter().map(|item| DetokenizeItem {
            // What is no text is no token; the vault says so of the item.
            token: String::from_utf8_lossy(&item.value).into_owned(),
            view: String::new(),
            subject: item.subject.to_string(),
        });
        let request =
            DetokenizeRequest { items: asked.collect(), purpose: self.purpose.clone(), view: self.view.clone() };
        let results = self.client.clone().detokenize(request).await?.into_inner().results;
        // A record that lacks nothing but a second factor is no reject: it is asked again with one.
        if let Some(status) = results.iter().find_map(wants_second_factor) {
            return Err(status);
        }
        Ok(results.into_iter().zip(items).map(|(result, item)| self.answer(result, item)).collect())
    }

    fn answer(&self, result: DetokenizeResult, item: &Item) -> Answer {
        match result.result {
            Some(Found::Value(value)) if self.fields.get(item.place.column) == Some(&result.field) => Ok(value),
            Some(Found::Value(_)) => Err("other_field".to_owned()),
            Some(Found::Problem(problem)) => Err(problem.reason.to_ascii_lowercase()),
            None => Err("no_answer".to_owned()),
        }
    }
}

impl Exchange for Detokenizer {
    async fn send(&self, items: &[&Item], _key: &str) -> Result<Vec<Answer>, Status> {
        let mut answers = Vec::with_capacity(items.len());
        let mut open = vec![items];
        while let Some(part) = open.pop() {
            match self.read(part).await {
                Ok(read) => answers.extend(read),
                Err(status) if part.len() > 1 && is_too_large(&status) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    open.extend([second, first]);
                }
                Err(status) => return Err(status),
            }
        }
        Ok(answers)
    }
}

/// The refusal of the whole that is due where one of its values wants a second factor.
fn wants_second_factor(result: &DetokenizeResult) -> Option<Status> {
    match &result.result {
        Some(Found::Problem(Problem { code, reason, message, .. })) if step_up::is_required(reason) => {
            let details = ErrorDetails::with_error_info(reason, "strongroom", HashMap::new());
            Some(Status::with_error_details(Code::from_i32(*code), message, details))
        }
        _ => None,
    }
}

/// The values would not fit into one answer.
fn is_too_large(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
        && status.get_details_error_info().is_some_and(|info| info.reason == "ANSWER_TOO_LARGE")
}
