//! `strongroom audit tail`: the ledger as it grows, to the terminal, to a file, or to a syslog collector.
//!
//! A file and a collector get every leaf: how far they are is on disk, and what was not known to have arrived is sent
//! again. So an outage of either side loses nothing, and a leaf may come twice: its index tells.

mod backoff;
mod file;
mod syslog;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};
use strongroom_ledger::checkpoint;
use strongroom_proto::v1::{GetCheckpointRequest, TailRequest, TailResponse};
use tonic::{Code, Status, Streaming};

use super::beside;
use crate::cli::client::Context;
use crate::cli::files::replace;
use crate::cli::output::{CliError, Exit};
use backoff::Backoff;

/// What is followed, and where it goes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Tail {
    /// Index of the first leaf [default: where the cursor is, and else the next one that is written].
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,

    /// Write to this file instead of the terminal; how far it is stands in OUT.cursor.
    #[arg(short, long, value_name = "OUT", conflicts_with = "syslog")]
    out: Option<PathBuf>,

    /// Begin the file anew when it has so many mebibytes: OUT becomes OUT.1, that becomes OUT.2, and so on.
    #[arg(long, value_name = "MIB", default_value_t = 100, requires = "out", value_parser = clap::value_parser!(u64).range(1..))]
    rotate_mib: u64,

    /// How many older files are kept. Give enough for who collects them: what is older is removed.
    #[arg(long, value_name = "COUNT", default_value_t = 10, requires = "out", value_parser = clap::value_parser!(u32).range(1..=1000))]
    keep: u32,

    /// Send to this syslog collector over TLS (RFC 5424, RFC 5425): HOST:PORT.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["syslog_ca", "cursor"])]
    syslog: Option<String>,

    /// The authority that the collector's certificate must come from, PEM.
    #[arg(long, value_name = "FILE")]
    syslog_ca: Option<PathBuf>,

    /// Where it stands how far the collector is.
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,

    /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
    #[arg(long, default_value = "", hide_default_value = true)]
    log: String,
}

impl Tail {
    /// Which ledger.
    pub fn log(&self) -> &str {
        &self.log
    }
}

/// How far something is, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// Of which ledger.
    origin: String,
    /// Index of the leaf that comes next.
    next: u64,
    /// Bytes of the file that these leaves take.
    length: u64,
}

impl Cursor {
    /// What was kept of a ledger; none if nothing was.
    fn read(path: &Path, origin: &str) -> Result<Option<Self>, CliError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::file(path, error)),
        };
        let unfit = |message: String| CliError::Unfit {
            message,
            next: "another -o or --cursor, or remove it to begin anew".into(),
        };
        let cursor: Self = serde_json::from_str(&text)
            .map_err(|_| unfit(format!("{} is not what audit tail wrote", path.display())))?;
        match cursor.origin == origin {
            true => Ok(Some(cursor)),
            false => Err(unfit(format!("{} is of another ledger: {}", path.display(), cursor.origin))),
        }
    }

    /// Where to go on: at what was kept, or where the caller said, if nothing was.
    fn going_on(path: &Path, begin: Self, from: Option<u64>) -> Result<Self, CliError> {
        match (Self::read(path, &begin.origin)?, from) {
            (Some(_), Some(_)) => Err(CliError::Unfit {
                message: format!("{} says where to go on", path.display()),
                next: "the same without --from; or, to begin anew, another -o or --cursor".into(),
            }),
            (kept, _) => Ok(kept.unwrap_or(begin)),
        }
    }

    fn write(&self, path: &Path) -> Result<(), CliError> {
        let text = serde_json::to_vec(self).map_err(|error| CliError::unfit(error.to_string()))?;
        replace(path, &text)
    }
}

/// Follows, until it is stopped or refused.
pub async fn run(args: Tail, context: &Context) -> Result<Exit, CliError> {
    let head =
        context.audit().await?.get_checkpoint(GetCheckpointRequest { log: args.log.clone() }).await?.into_inner();
    let keys: Vec<&str> = head.keys.iter().map(String::as_str).collect();
    let signed = checkpoint::verify(&head.checkpoint, &keys)
        .map_err(|error| CliError::unfit(format!("the vault's own checkpoint does not hold: {error}")))?;
    let begin = Cursor { origin: signed.origin, next: args.from.unwrap_or(signed.size), length: 0 };
    let mut followed = Followed::new(context, args.log);
    match (args.out, args.syslog) {
        (Some(out), _) => {
            let cursor = beside(&out, ".cursor");
            let begin = Cursor::going_on(&cursor, begin, args.from)?;
            let file = file::Sink::open(out, cursor, begin, args.rotate_mib << 20, args.keep)?;
            file.follow(&mut followed).await
        }
        (None, Some(collector)) => {
            let (Some(ca), Some(cursor)) = (args.syslog_ca, args.cursor) else {
                return Err(CliError::Usage("--syslog needs --syslog-ca and --cursor".into()));
            };
            let begin = Cursor::going_on(&cursor, begin, args.from)?;
            let sink = syslog::Sink::new(&collector, &ca, cursor, begin)?;
            sink.follow(&mut followed).await
        }
        (None, None) => {
            let mut next = begin.next;
            loop {
                let mut stream = followed.stream(next).await?;
                while let Some(page) = followed.page(&mut stream).await? {
                    match print(&page) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
                        printed => printed.map_err(|error| CliError::file("standard output", error))?,
                    }
                    next = page.next;
                }
            }
        }
    }
}

fn print(page: &TailResponse) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for leaf in &page.leaves {
        out.write_all(leaf)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// The vault that is followed. Each stream that is begun is a request, which the ledger keeps: so it is waited before
/// another one, longer each time, until something has come.
struct Followed<'a> {
    context: &'a Context,
    log: String,
    backoff: Backoff,
    /// When the last stream was begun.
    begun: Instant,
    /// Why it was cut off.
    cut_off: Option<String>,
}

impl<'a> Followed<'a> {
    fn new(context: &'a Context, log: String) -> Self {
        Self { context, log, backoff: Backoff::new(), begun: Instant::now(), cut_off: None }
    }

    /// Leaves from one on. Waits for a vault that is away, or that has just cut a stream off.
    async fn stream(&mut self, first: u64) -> Result<Streaming<TailResponse>, CliError> {
        if let Some(why) = self.cut_off.take() {
            self.wait(&why).await;
        }
        loop {
            let asked = async {
                let mut client = self.context.audit().await?;
                client.tail(TailRequest { first, log: self.log.clone() }).await.map_err(CliError::from)
            };
            match asked.await {
                Ok(stream) => {
                    self.begun = Instant::now();
                    return Ok(stream.into_inner());
                }
                Err(error) if is_away(&error) => self.wait(&error.to_string()).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// The next page; none when the stream has ended and another is to be begun.
    async fn page(&mut self, stream: &mut Streaming<TailResponse>) -> Result<Option<TailResponse>, CliError> {
        let why = match stream.message().await {
            Ok(Some(page)) => {
                self.backoff.reset();
                return Ok(Some(page));
            }
            Ok(None) => "it ended the stream".to_owned(),
            Err(status) if is_cut_off(&status) => status.message().to_owned(),
            Err(status) => return Err(status.into()),
        };
        self.backoff.ended(self.begun.elapsed());
        self.cut_off = Some(why);
        Ok(None)
    }

    async fn wait(&mut self, why: &str) {
        eprintln!("waiting for the vault: {why}");
        tokio::time::sleep(self.backoff.wait()).await;
    }
}

/// Whether a vault that can't be reached now may come back.
fn is_away(error: &CliError) -> bool {
    match error {
        CliError::Refused(refusal) => refusal.code == Code::Unavailable,
        CliError::NotReached { .. } => true,
        _ => false,
    }
}

fn is_cut_off(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}
