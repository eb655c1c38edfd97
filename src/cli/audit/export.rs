//! `strongroom audit export`: the ledger, or the leaves of it that are asked for, in a form of the reader's.
//!
//! The whole ledger as it is needs its checkpoint and nothing else to be proven; the hashes of its leaves lie beside
//! it, to find the place of what does not hold. For anything less, and for other forms, there are a manifest and hashes
//! of what is left out too (`excerpt.rs`).

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;
use strongroom_export::Format;
use strongroom_ledger::cover::{HEADER, Piece};
use strongroom_ledger::leaf_hash;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{ExportRequest, LeafFilter};

use super::growing::Growing;
use super::options::{Between, Of};
use super::{beside, excerpt, newest, witnessed, write_keys};
use crate::cli::client::{Context, Wire};
use crate::cli::expiry::to_wire;
use crate::cli::files::{rename, replace};
use crate::cli::output::{CliError, Exit, facts};
use crate::cli::shell::quoted;

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit export -o ledger.jsonl
  strongroom audit verify ledger.jsonl --checkpoint ledger.jsonl.checkpoint \\
      --log-key ledger.jsonl.key
  strongroom audit export --from 2026-11-01 --to 2026-12-01 --format csv -o november.csv
  strongroom audit export --subject cust-1 --action detokenize -o reads.jsonl
  strongroom audit verify --excerpt reads.jsonl

Writes OUT (one leaf a line), OUT.checkpoint (the signed head that OUT leads
to), OUT.key (the public keys) and OUT.proofs (what proves each line). With a
filter or another form also OUT.manifest (signed by the vault: what was asked
for, and how many lines were sent) and, in another form, OUT.leaves (the lines
it was made of). All replace what was there, once they are whole.

A leaf fits if all that is asked fits; --field, --class, --view, --subject and
--token (or --handle and --row) must fit one and the same of its items. What you
ask for is recorded in the ledger.";

/// What is exported, and where it goes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Export {
    /// Where it goes.
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,

    #[command(flatten)]
    of: Of,

    /// The form of the export.
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,

    #[command(flatten)]
    filter: Filter,
}

/// Which leaves are asked for.
#[derive(Clone, Debug, ClapArgs)]
struct Filter {
    #[command(flatten)]
    between: Between,

    /// Only what this principal asked for: ROLE/NAME, as leaves have it.
    // Under another id than that of --as, which would not be known here otherwise.
    #[arg(id = "of_principal", long = "principal", value_name = "ROLE/NAME")]
    principal: Option<String>,

    /// Only what concerns this data subject, by the id that the services know it by.
    #[arg(long, value_name = "ID")]
    subject: Option<String>,

    /// Only what concerns the value behind this token.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Only what concerns the data subject of this handle, as leaves have it: its id may lead nowhere any more.
    #[arg(long, value_name = "NUMBER", conflicts_with = "subject")]
    handle: Option<u64>,

    /// Only what concerns the value of this row, as leaves have it: it may have been deleted.
    #[arg(long, value_name = "NUMBER", conflicts_with = "token")]
    row: Option<u64>,

    /// Only what was asked for with this purpose.
    #[arg(long, value_name = "PURPOSE")]
    purpose: Option<String>,

    /// Only what concerns this field: COLLECTION.FIELD.
    #[arg(long, value_name = "FIELD")]
    field: Option<String>,

    /// Only this action, as leaves have it: detokenize, apply_policy, ...
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,

    /// Only what was decided so, as a whole: a request of which some items were refused was allowed, so `deny` leaves it out.
    #[arg(long, value_parser = ["allow", "deny", "fail"])]
    decision: Option<String>,

    /// Only requests that were denied, as a whole or in some of their items.
    #[arg(long)]
    denied: bool,

    /// The same of what was refused for this reason, as leaves have it: DENIED, NOT_FOUND, ...
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,

    /// The same of what was refused for whatever reason.
    #[arg(long)]
    refused: bool,

    /// Only what was asked for on behalf of this person, as leaves have it.
    #[arg(long, value_name = "ISSUER/NAME")]
    actor: Option<String>,

    /// Only what concerns fields of this data class, by the schema in force then.
    #[arg(long, value_parser = ["c1", "c2", "c3"])]
    class: Option<String>,

    /// Only what was shown in this view: plain, masked, ...
    #[arg(long, value_name = "VIEW")]
    view: Option<String>,

    /// Only what tells a caller something of values: detokenize, match, lookup, get_labels, list_consents,
    /// subject_report, export_subject.
    #[arg(long)]
    reads: bool,

    /// Only changes of what is in force, and approvals, as audit changes shows them.
    #[arg(long)]
    changes: bool,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// One leaf a line, byte by byte as it is in the ledger.
    #[default]
    Jsonl,
    /// A table with a row for each item; no cell is taken for a formula.
    Csv,
    /// The same table in columns, for data lakes.
    Parquet,
    /// OCSF 1.3 events, one a line, for SIEMs: API Activity and Datastore Activity.
    Ocsf,
}

impl Export {
    /// Which ledger.
    pub fn log(&self) -> &str {
        &self.of.log
    }
}

impl Filter {
    /// What is asked; nothing if all is.
    fn asked(self) -> Option<LeafFilter> {
        let Between { from, to } = self.between;
        let asked = LeafFilter {
            from_time: from.map(to_wire),
            to_time: to.map(to_wire),
            principal: self.principal.unwrap_or_default(),
            subject: self.subject.unwrap_or_default(),
            token: self.token.unwrap_or_default(),
            field: self.field.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            decision: self.decision.unwrap_or_default(),
            actor: self.actor.unwrap_or_default(),
            class: self.class.unwrap_or_default(),
            view: self.view.unwrap_or_default(),
            reads: self.reads,
            changes: self.changes,
            denied: self.denied,
            reason: self.reason.unwrap_or_default(),
            refused: self.refused,
            handle: self.handle,
            row: self.row,
            purpose: self.purpose.unwrap_or_default(),
        };
        (asked != LeafFilter::default()).then_some(asked)
    }
}

/// Exports.
pub async fn run(asked: Export, context: &Context) -> Result<Exit, CliError> {
    let Export { out, of: Of { log }, format, filter } = asked;
    match (format, filter.asked()) {
        (ExportFormat::Jsonl, None) => whole(&out, log, context).await,
        (format, filter) => {
            excerpt::export(
                &out,
                ExportRequest { log, filter, proofs: true, ..Default::default() },
                format.into(),
                context,
            )
            .await
        }
    }
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Jsonl => Self::Jsonl,
            ExportFormat::Csv => Self::Csv,
            ExportFormat::Parquet => Self::Parquet,
            ExportFormat::Ocsf => Self::Ocsf,
        }
    }
}

/// Fetches the head first and then exactly the leaves that it signs, while the ledger grows on.
async fn whole(out: &Path, log: String, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.audit().await?;
    let (signed, head) = newest::signed_head(&mut client, &log).await?;

    let (part, hashes) = (beside(out, ".part"), beside(out, ".proofs.part"));
    if let Err(error) = fetch(&mut client, log, signed.size, &part, &hashes).await {
        // Half a ledger proves nothing; the first error is the one to report.
        [&part, &hashes].into_iter().for_each(|part| drop(std::fs::remove_file(part)));
        return Err(error);
    }

    excerpt::forget(out)?;
    let (note, key, proofs) = (beside(out, ".checkpoint"), beside(out, ".key"), beside(out, ".proofs"));
    replace(&note, head.checkpoint.as_bytes())?;
    write_keys(&key, &head.keys)?;
    rename(&hashes, &proofs)?;
    // Last: while it is there the others may be of another export than OUT, and `audit verify` says so.
    rename(&part, out)?;
    context.output.show(
        || {
            json!({
                "out": out.display().to_string(),
                "proofs": proofs.display().to_string(),
                "checkpoint": note.display().to_string(),
                "key": key.display().to_string(),
                "origin": signed.origin,
                "leaves": signed.size.to_string(),
                "witnesses": head.witnesses,
                "witnesses_needed": head.witnesses_needed,
            })
        },
        || {
            let try_next = format!("strongroom audit verify {}", quoted(&out.display().to_string()));
            let mut pairs = vec![
                ("written", out.display().to_string()),
                ("leaves", signed.size.to_string()),
                ("origin", signed.origin.clone()),
                ("proofs", proofs.display().to_string()),
                ("checkpoint", note.display().to_string()),
                ("key", key.display().to_string()),
            ];
            pairs.extend(witnessed(head.witnesses, head.witnesses_needed));
            pairs.push(("try", try_next));
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// Writes the first leaves of a ledger, `size` of them, to a file, and their hashes to another: by these the place is
/// found of what somebody changes.
async fn fetch(
    client: &mut AuditClient<Wire>,
    log: String,
    size: u64,
    part: &Path,
    hashes: &Path,
) -> Result<(), CliError> {
    let (mut file, mut proofs, mut index) = (Growing::new(part)?, Growing::new(hashes)?, 0..);
    proofs.line(HEADER.as_bytes())?;
    let leaves = newest::leaves(client, log, size, |leaf| {
        let piece = index.next().map(|index| Piece::Leaf { index, hash: leaf_hash(leaf) });
        piece.iter().try_for_each(|piece| proofs.line(piece.to_text().as_bytes()))?;
        file.line(leaf)
    });
    let leaves = leaves.await?;
    if leaves != size {
        return Err(CliError::Unfit {
            message: format!("the vault sent {leaves} leaves and its checkpoint signs {size}"),
            next: "the same command again".into(),
        });
    }
    proofs.finish()?;
    file.finish()
}
