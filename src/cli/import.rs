//! `strongroom import`: a CSV or JSONL file in, the same file with tokens out.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::TokenizeRequest;
use strongroom_proto::v1::vault_client::VaultClient;
use time::OffsetDateTime;
use tonic::Status;

use super::batches::{Answer, Exchange, Item};
use super::cells::JsonStyle;
use super::client::{Context, Wire};
use super::expiry::parse_time;
use super::mapping::{Form, Mapping, once_each};
use super::output::{CliError, Exit};
use super::transfer::{Job, Transfer, report};
use super::value::new_item;

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "app";

/// Take a CSV or JSONL file in: the same file comes out with tokens in the mapped columns.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom import customers.csv --map name=borrower.name \\
      --map id_no=borrower.id_card --subject customer_id \\
      -o customers.tokens.csv
  strongroom import customers.jsonl --map mobile=borrower.mobile --subject id \\
      -o customers.tokens.jsonl

All other columns are copied byte by byte: `strongroom export` brings the same
file back. In CSV quotes stay where they were, needed or not. In JSONL, escapes
in mapped strings that JSON does not need come back as plain characters.

Empty cells stay empty. Records that can't be stored go to OUT.rejects.csv with
line, column and rule, never the value; the others go on, and the exit code is
3.

It may be interrupted at any moment: the same command goes on where it stopped,
and within 7 days makes no token twice. If the limits of your tier are used up,
it waits up to a minute for them. Memory is constant, whatever the size of the
file.")]
pub struct Args {
    /// The file. Its name tells the form: .csv, .tsv, .jsonl, .ndjson
    pub file: PathBuf,

    /// Tokenize this column as this field of the schema; give it once for each column.
    #[arg(long, required = true, value_name = "COLUMN=FIELD")]
    pub map: Vec<Mapping>,

    /// The column that names whose values a record holds: your own id of the person or company.
    #[arg(long, value_name = "COLUMN")]
    pub subject: String,

    /// Where the file with tokens goes. It must not exist yet; only you can read it.
    #[arg(short, long, value_name = "OUT")]
    pub out: PathBuf,

    #[command(flatten)]
    pub form: Form,

    /// When the values stop being readable: 2031-12-31 or 2031-12-31T23:59:59Z. Without it, as the retention says.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub expires: Option<OffsetDateTime>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let format = args.form.of(&args.file)?;
    let mapped: Vec<String> = args.map.iter().map(|mapping| mapping.column.clone()).collect();
    once_each(&mapped)?;
    let pairs: Vec<_> = args.map.iter().map(|mapping| json!([mapping.column, mapping.field])).collect();
    let options = json!({
        "command": "import",
        "format": format!("{format:?}"),
        "map": pairs,
        "batch": args.form.batch,
        "subject": args.subject,
        "expires": args.expires.map(|time| time.unix_timestamp()),
        // An idempotency key belongs to who uses it, and to one vault.
        "principal": context.connect.cert.display().to_string(),
        "address": context.connect.endpoint,
    });
    let job = Job {
        input: args.file,
        out: args.out,
        format,
        mapped,
        subject: Some(args.subject),
        subject_needed: true,
        numbers: vec![],
        style: JsonStyle::default(),
        batch: usize::from(args.form.batch),
        options: options.to_string(),
    };
    let client = context.vault().await?;
    let fields = args.map.into_iter().map(|mapping| mapping.field).collect();
    let tokenizer = Tokenizer { client, fields, expires: args.expires };
    let progress = match Transfer::begin(&job)? {
        Ok(transfer) => transfer.run(&tokenizer).await?,
        Err(finished) => finished,
    };
    report(&progress, &job.out, context.output)
}

struct Tokenizer {
    client: VaultClient<Wire>,
    fields: Vec<String>,
    expires: Option<OffsetDateTime>,
}

impl Exchange for Tokenizer {
    async fn send(&self, items: &[&Item], key: &str) -> Result<Vec<Answer>, Status> {
        let field = |item: &Item| self.fields.get(item.place.column).map_or("", String::as_str);
        let items = items.iter().map(|item| new_item(field(item), item.value.clone(), &item.subject, self.expires));
        let request = TokenizeRequest { items: items.collect(), idempotency_key: key.to_owned() };
        let tokens = self.client.clone().tokenize(request).await?.into_inner().tokens;
        Ok(tokens.into_iter().map(|token| Ok(Bytes::from(token))).collect())
    }
}
