//! `strongroom verify`: proves a whole vault against its ledger.

mod findings;
mod next;
mod opening;

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use strongroom_vault::{Counts, LISTED, Progress, Report, Verification, VerifyError};

use super::config::Config;
use super::layout::Layout;
use super::output::{CliError, Exit, Output, facts, named_table};
use super::own_keys;
use super::root::CredentialArgs;
use opening::{Opened, Places};

/// Prove the whole vault against its ledger, stopped or running, or a copy of it: names what was changed, rolled back, added
/// or removed behind its back.
///
/// Reads every leaf and every row as they are at one moment, opens every value, and shows none. Writes nothing. Takes
/// about 150 bytes of memory for each value, and some 30 MB more for each thread if leaves are as large as they may be.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  strongroom verify --dir /var/lib/strongroom \\
      --passphrase-file /run/credentials/passphrase
  strongroom verify --checkpoint last-month.checkpoint
  strongroom verify --data /mnt/copy/data --keystore /mnt/keys
  nice strongroom verify --threads 1

A vault for development is opened with the passphrase that lies beside it. Beside
a vault that runs, nice and --threads say how much is left to it. A copy of the
data is compared to the head file beside it, not to the one of the vault, and to
no journal; --dir still names the vault whose configuration says where the root
key is.
Who puts back the whole folder, head file included, can't be told from within it:
give --checkpoint with one that `strongroom audit checkpoint` printed and that
you kept elsewhere.

Each finding names the record, the leaf that it should match (LEAF; leaf N is line
N + 1 of `strongroom audit export`) and what to do. What follows from leaves
alone (tiles, the index of leaves) the vault makes anew; all else comes back from
a copy: stop the vault, keep the folder as it is, prove a copy with --data, and
`strongroom restore` from it (deploy/README.md).

Exit code 0: the store is what the ledger says; 1: it is not, or can't be read; 3: it is, as far as can be told: of
a tenant whose own key is away nothing but its log is proved, and without a head file not how far the logs had come.")]
pub struct Args {
    /// A checkpoint of one of the vault's logs, kept apart from it; give it once for each.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,

    /// The data: of a copy, which may be older than the vault and on a medium that can only be read [default: DIR/data].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    /// The keystore that belongs to the data [default: DIR/keystore].
    #[arg(long, value_name = "FOLDER")]
    keystore: Option<PathBuf>,

    /// The head file that belongs to the data [default: `head` beside the data].
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,

    /// Threads that look at leaves and rows [default: one for each processor].
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,

    /// List every finding. Of more than 10,000 the rest is only counted otherwise; all take some 300 bytes of memory each.
    #[arg(long)]
    all_findings: bool,

    /// The configuration [default: DIR/strongroom.toml].
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    credential: CredentialArgs,
}

impl Args {
    fn places(&self, layout: &Layout, config: &Config) -> Places {
        let beside = |data: &PathBuf| match data.file_name() {
            Some(_) => data.with_file_name("head"),
            None => data.join("../head"),
        };
        let head = self.head.clone().or_else(|| self.data.as_ref().map(beside));
        Places {
            data: self.data.clone().unwrap_or_else(|| layout.data()),
            keystore: self.keystore.clone().unwrap_or_else(|| layout.keystore()),
            head: head.unwrap_or_else(|| layout.head()),
            without_head: self.data.is_some() && self.head.is_none(),
            // The vault's own has gone on since a copy was made.
            journal: self.data.is_none().then(|| config.journal.folder(layout)),
        }
    }
}

/// Verifies.
pub async fn run(args: Args, dir: &Path, output: Output) -> Result<Exit, CliError> {
    let layout = Layout::new(dir);
    let config = Config::read(&layout, args.config.as_deref())?;
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| CliError::file(path, error));
    let checkpoints: Vec<String> = args.checkpoint.iter().map(read).collect::<Result<_, _>>()?;
    let opened = args.places(&layout, &config).open(&args.credential, &layout, &config)?;
    let Opened { store, keystore, head_file, journal, running } = opened;
    own_keys::unlock_all(&store, &keystore, &config).await?;
    let threads = args.threads.or_else(|| available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let (store, keystore, head_file) = (&store, &keystore, &head_file);
    let verification = Verification { store, keystore, head_file, checkpoints: &checkpoints, threads };
    let mut bar = Bar::new();
    let most = if args.all_findings { usize::MAX } else { LISTED };
    let mut show = |progress: Progress<'_>| bar.show(progress);
    let report = strongroom_vault::verify_listing(&verification, journal.as_ref(), most, &mut show).await;
    bar.clear();
    let unverified = |error| match error {
        VerifyError::Open(error) => super::start::unfit(&layout, &error),
        other @ VerifyError::Checkpoint { .. } => CliError::unfit(other.to_string()),
    };
    let mut report = report.map_err(unverified)?;
    if let Some(journal) = &journal {
        let found = strongroom_vault::verify_journal(&verification, journal).await.map_err(unverified)?;
        for finding in &found {
            *report.counted.entry((finding.kind, finding.fault)).or_default() += 1;
        }
        report.findings.extend(found);
    }
    output.show(|| document(&report, running), || text(&report, running))?;
    let locked = report.tenants.iter().any(|(_, counts)| counts.locked);
    Ok(match (report.findings.is_empty(), locked || report.without_head) {
        (false, _) => Exit::Failed,
        (true, true) => Exit::Partly,
        (true, false) => Exit::Done,
    })
}

/// What each count of a tenant is called, in tables and documents.
fn counts(counts: &Counts) -> [(&'static str, u64); 9] {
    [
        ("leaves", counts.leaves),
        ("signed_leaves", counts.signed_leaves),
        ("archived_leaves", counts.archived_leaves),
        ("values", counts.values),
        ("subjects", counts.subjects),
        ("deks", counts.deks),
        ("index_entries", counts.index_entries),
        ("holders", counts.holders),
        ("idempotency_keys", counts.idempotency_keys),
    ]
}

fn document(report: &Report, running: bool) -> Value {
    let tenants = report.tenants.iter().map(|(name, of)| {
        let mut tenant = serde_json::Map::from_iter([("tenant".to_owned(), json!(&**name))]);
        tenant.insert("locked".to_owned(), json!(of.locked));
        tenant.extend(counts(of).map(|(name, count)| (name.to_owned(), json!(count.to_string()))));
        Value::Object(tenant)
    });
    let findings = report.findings.iter().map(findings::document);
    json!({
        "verified": report.findings.is_empty(),
        "vault_id": report.vault.to_string(),
        "running": running,
        "head_file": !report.without_head,
        "tenants": tenants.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
        "findings_left_out": report.left_out.to_string(),
        "findings_counted": findings::counted(report),
    })
}

fn text(report: &Report, running: bool) -> String {
    let header = counts(&Counts::default()).map(|(name, _)| name.replace('_', " "));
    let header: Vec<&str> = std::iter::once("tenant").chain(header.iter().map(String::as_str)).collect();
    let rows = report.tenants.iter().map(|(name, of)| {
        std::iter::once(name.to_string()).chain(counts(of).map(|(_, count)| count.to_string())).collect::<Vec<_>>()
    });
    let mut text = vec![named_table(&header, rows)];
    if running {
        let leaves: u64 = report.tenants.iter().map(|(_, of)| of.leaves).sum();
        text.push(format!("The vault runs: this is what it was at one moment, when its logs had {leaves} leaves."));
    }
    if report.without_head {
        text.push("There is no head file: nothing but a checkpoint says how far the logs had come.".to_owned());
    }
    for (name, of) in &report.tenants {
        if of.locked {
            text.push(format!("{name} is locked, for its own key is away: nothing of it is proved but its log."));
        }
        let unsigned = of.leaves.saturating_sub(of.signed_leaves);
        if unsigned > 0 && !report.without_head {
            let when = if running { "of a vault that runs" } else { "before a crash" };
            text.push(format!(
                "The last {unsigned} leaves of {name} came after the head file was signed: the last second {when}, or \
                 somebody appended them.",
            ));
        }
    }
    if report.findings.is_empty() {
        let verified = "every leaf is in its place, and the store is what the ledger says";
        text.push(facts([("verified", verified.to_owned()), ("vault", report.vault.to_string())]));
        return text.join("\n\n");
    }
    text.push(findings::text(report));
    text.join("\n\n")
}

/// The progress of one phase of one tenant after the other, on a terminal only.
struct Bar {
    bar: ProgressBar,
    doing: String,
}

impl Bar {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template(
            "{msg:24} {bar:32} {percent:>3}%  {human_pos} of {human_len}  {per_sec}  {eta} left",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar: bar.with_style(style), doing: String::new() }
    }

    fn show(&mut self, progress: Progress<'_>) {
        let doing = format!("{}: {}", progress.tenant, progress.phase.as_str());
        if doing != self.doing {
            self.bar.reset();
            self.bar.set_message(doing.clone());
            self.doing = doing;
        }
        self.bar.set_length(progress.of);
        self.bar.set_position(progress.done);
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
