//! `strongroom audit tail`: the ledger as it grows, to the terminal, to a file, or to a syslog collector.
//!
//! A file and a collector get every leaf: how far they are is on disk, and what was not known to have arrived is sent
//! again. So a leaf may come twice: its index tells. What can be known of a collector is that it, or what stands in its
//! place, has closed in order behind a leaf, and not what it does with it.

mod backoff;
mod file;
mod form;
mod ledger;
mod syslog;

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::options::Of;
use super::{beside, read_keys};
use crate::cli::client::Context;
use crate::cli::files::{read_if_there, replace};
use crate::cli::output::{CliError, Exit, print};
use form::Form;
use ledger::{Followed, Leaves, Mark};

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

    /// How many older files are kept, or `all` (0). What is older is removed, also if nobody has collected it.
    #[arg(long, value_name = "COUNT", default_value = "10", requires = "out")]
    keep: file::Keep,

    #[command(flatten)]
    collector: syslog::Syslog,

    /// What a line or a message is.
    #[arg(long, value_enum, default_value_t)]
    format: Form,

    /// The ledger's public keys, one a line: each head must be signed by one of them, or by one that the ledger named since
    /// [default: those that the vault names].
    #[arg(long, value_name = "FILE")]
    log_key: Option<PathBuf>,

    #[command(flatten)]
    of: Of,
}

impl Tail {
    /// Which ledger.
    pub fn log(&self) -> &str {
        &self.of.log
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
    /// Whether the file is about to be renamed, since it is long, or was, and nothing is in the next one.
    #[serde(default, skip_serializing_if = "is_false")]
    rotates: bool,
    /// The hash of the leaf before, in hexadecimal, once there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    /// The last checkpoint that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<String>,
    /// Keys of the ledger that were learnt from it, if keys were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log_keys: Vec<String>,
}

fn is_false(of: &bool) -> bool {
    !of
}

impl Cursor {
    /// What was kept of a ledger; none if nothing was.
    fn read(path: &Path, origin: &str) -> Result<Option<Self>, CliError> {
        let Some(text) = read_if_there(path)? else { return Ok(None) };
        let unfit = |message: String| CliError::Unfit {
            message,
            next: "another -o or --cursor, or remove it to begin anew".into(),
        };
        let cursor: Option<Self> = serde_json::from_str(&text).ok();
        let cursor = cursor.filter(|cursor| cursor.mark().last.is_some() == cursor.last.is_some());
        let cursor = cursor.ok_or_else(|| unfit(format!("{} is not what audit tail wrote", path.display())))?;
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

    /// Where it is among the leaves.
    fn mark(&self) -> Mark {
        let last = self.last.as_ref().and_then(|hash| HEXLOWER.decode(hash.as_bytes()).ok());
        Mark { next: self.next, last: last.and_then(|hash| hash.try_into().ok()) }
    }

    /// Leaves begin to come.
    fn begun(&mut self, leaves: &Leaves) {
        self.checkpoint = Some(leaves.checkpoint.clone());
        self.log_keys.clone_from(&leaves.log_keys);
    }

    /// Goes there.
    fn go_to(&mut self, mark: &Mark) {
        self.next = mark.next;
        self.last = mark.last.map(|hash| HEXLOWER.encode(&hash));
    }

    fn write(&self, path: &Path) -> Result<(), CliError> {
        let text = serde_json::to_vec(self).map_err(|error| CliError::unfit(error.to_string()))?;
        replace(path, &text)
    }
}

/// Follows, until it is stopped or refused, or the ledger is not the one that was followed.
pub async fn run(args: Tail, context: &Context) -> Result<Exit, CliError> {
    let given = args.log_key.as_deref().map(read_keys).transpose()?;
    let mut followed = Followed::new(context, args.of.log, given);
    let (to, form) = (args.collector, args.format);
    let cursor = args.out.as_deref().map(|out| beside(out, ".cursor")).or_else(|| to.cursor.clone());
    let head = followed.first_head(cursor.as_deref().is_some_and(Path::exists)).await?;
    let next = args.from.unwrap_or(head.size);
    let mut begin =
        Cursor { origin: head.origin, next, length: 0, rotates: false, last: None, checkpoint: None, log_keys: vec![] };
    let Some(cursor) = cursor else {
        loop {
            let mut leaves = followed.begin(&begin).await?;
            begin.begun(&leaves);
            while let Some(page) = leaves.page().await? {
                let lines = page.iter().map(|leaf| form.line(&begin.origin, leaf)).collect::<Result<Vec<_>, _>>()?;
                if !print(lines.iter().flat_map(|line| [&line[..], b"\n"]))? {
                    return Ok(Exit::Done);
                }
                begin.go_to(&leaves.mark);
            }
        }
    };
    let begin = Cursor::going_on(&cursor, begin, args.from)?;
    match args.out {
        Some(out) => {
            let file = file::Sink::open(out, cursor, begin, args.rotate_mib << 20, args.keep, form)?;
            file.follow(&mut followed).await
        }
        None => syslog::Sink::new(to, form, cursor, begin)?.follow(&mut followed).await,
    }
}
