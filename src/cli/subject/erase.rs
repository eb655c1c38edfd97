//! `strongroom subject erase`: erases a data subject, and verifies the receipt.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use strongroom_ledger::erasure::{self, day_text};
use strongroom_proto::v1::{
    EraseSubjectRequest, ErasureStatus, GetErasureRequest, ListErasuresRequest, ListedErasure, UndoErasureRequest,
};

use crate::cli::audit::{read, read_keys};
use crate::cli::client::Context;
use crate::cli::files::replace;
use crate::cli::output::{CliError, Exit, Output, facts, instant, instant_if_any, instant_or, table};
use crate::cli::span;

/// Erase a data subject: its keys and what leads from its id to it at once, its values then. Without --grace it can't be undone.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom subject erase customer-4711 --receipt customer-4711.receipt
  strongroom subject erase customer-4711 --grace 30d     only frozen until then; undo-erasure takes it back

Export first what the person asked for: a subject that is frozen or erased can't be
exported. What a legal hold keeps stays until the hold ends: an officer sets it before, with
`strongroom subject hold`. The receipt says what was erased and when backups die
that hold it: keep it with the person's request, and apart from the ledger.
Exit code 3: legal holds keep some of it, or values are still being cleared, after
which `strongroom subject erasure NAME --receipt OUT` has the receipt; or policy wants
the approval of officers, after which the same command erases (`strongroom approvals`).")]
pub struct Args {
    /// The subject's id, as values were stored with.
    id: String,

    /// How long the subject is only frozen first, and this can be undone.
    #[arg(long, value_parser = span::parse, value_name = "SPAN")]
    grace: Option<Duration>,

    /// Do not ask.
    #[arg(long)]
    yes: bool,

    /// Write the signed receipt here, too.
    #[arg(long, value_name = "OUT", conflicts_with = "grace")]
    receipt: Option<PathBuf>,

    /// Makes a retry safe: it gets the same erasure, and its receipt. One is drawn, and printed, if none is given.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Undo the erasure of a data subject whose time of grace runs.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Example:
  strongroom subject undo-erasure customer-4711")]
pub struct UndoArgs {
    /// The subject's id, as values were stored with.
    id: String,
}

/// Show how far an erasure has come, for 90 days after its end.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Example:
  strongroom subject erasure 5f0c2a7be1d94c3a8b6e0f1d2c3b4a59 --receipt customer-4711.receipt

Exit code 3: legal holds keep some of it, values are still being cleared, or there
is no receipt yet to be written.")]
pub struct GetArgs {
    /// Its name, as `subject erase` gave it.
    name: String,

    /// Write the signed receipt here, too.
    #[arg(long, value_name = "OUT")]
    receipt: Option<PathBuf>,
}

/// List the erasures that are not done, and those that ended in the last 90 days: by name, and no data subject.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Next: strongroom subject erasure NAME --receipt OUT")]
pub struct ListArgs {}

/// Verify the receipt of an erasure offline.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Example:
  strongroom audit key > ledger.key                       once, and kept elsewhere
  strongroom subject verify-receipt customer-4711.receipt --log-key ledger.key
  strongroom subject verify-receipt customer-4711.receipt --log-key ledger.key \\
      --subject customer-4711 --salt SALT                 also whose it is")]
pub struct VerifyArgs {
    /// The receipt.
    receipt: PathBuf,

    /// The public keys of the tenant's ledger, one a line.
    #[arg(long, value_name = "FILE")]
    log_key: PathBuf,

    /// Whose receipt it has to be: the id that was erased.
    #[arg(long, value_name = "ID", requires = "salt")]
    subject: Option<String>,

    /// The salt that was told when the subject was erased.
    #[arg(long, value_name = "SALT", requires = "subject", value_parser = read_salt)]
    salt: Option<Salt>,
}

/// 32 bytes, in hexadecimal.
type Salt = [u8; 32];

fn read_salt(text: &str) -> Result<Salt, &'static str> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or("64 hexadecimal digits, as `subject erase` told them")
}

/// Erases.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if !args.yes {
        agreed(&args.id, args.grace.is_some())?;
    }
    let idempotency_key = args.idempotency_key.map_or_else(|| new_key(context.output), Ok)?;
    let request = EraseSubjectRequest {
        subject: args.id,
        grace: args.grace.map(|grace| prost_types::Duration {
            seconds: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        idempotency_key,
    };
    let told = context.subjects().await?.erase_subject(request).await?.into_inner();
    show(&told, args.receipt.as_deref(), context)
}

/// A key under which it can be asked again what became of this. It is told before: the answer may be lost.
fn new_key(output: Output) -> Result<String, CliError> {
    let key = strongroom_keys::random::<16>().map_err(|error| CliError::unfit(error.to_string()))?;
    let key = HEXLOWER.encode(&key);
    let told = match output {
        Output::Json => json!({ "idempotency_key": key }).to_string(),
        Output::Table => format!("If no answer comes, ask again with --idempotency-key {key}"),
    };
    writeln!(std::io::stderr(), "{told}").map_err(|error| CliError::file("standard error", error))?;
    Ok(key)
}

/// Undoes.
pub async fn undo(args: UndoArgs, context: &Context) -> Result<Exit, CliError> {
    context.subjects().await?.undo_erasure(UndoErasureRequest { subject: args.id }).await?;
    context
        .output
        .show(|| json!({ "undone": true }), || "the erasure is undone: the subject is as it was before".to_owned())?;
    Ok(Exit::Done)
}

/// Shows one.
pub async fn get(args: GetArgs, context: &Context) -> Result<Exit, CliError> {
    let told = context.subjects().await?.get_erasure(GetErasureRequest { erasure: args.name }).await?.into_inner();
    show(&told, args.receipt.as_deref(), context)
}

/// Lists all.
pub async fn list(_args: ListArgs, context: &Context) -> Result<Exit, CliError> {
    let mut subjects = context.subjects().await?;
    let (mut erasures, mut request) = (Vec::new(), ListErasuresRequest { page_size: 1_000, ..Default::default() });
    loop {
        let page = subjects.list_erasures(request.clone()).await?.into_inner();
        erasures.extend(page.erasures);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let listed = |one: &ListedErasure| {
        json!({
            "erasure": one.erasure,
            "state": one.state,
            "due_time": instant_if_any(one.due_time),
            "has_receipt": one.has_receipt,
        })
    };
    context.output.show(
        || json!({ "erasures": erasures.iter().map(listed).collect::<Vec<_>>() }),
        || match erasures.is_empty() {
            true => "there are no erasures".to_owned(),
            false => {
                let rows = erasures.iter().map(|one| {
                    let receipt = if one.has_receipt { "there" } else { "none yet" };
                    vec![one.erasure.clone(), one.state.clone(), instant_or(one.due_time, "-"), receipt.to_owned()]
                });
                table(&["ERASURE", "STATE", "DUE", "RECEIPT"], rows)
            }
        },
    )?;
    Ok(Exit::Done)
}

/// What was done is told first: it can't be done again.
fn show(told: &ErasureStatus, out: Option<&Path>, context: &Context) -> Result<Exit, CliError> {
    let there = !told.receipt.is_empty();
    let written = out.filter(|_| there).map_or(Ok(()), |out| replace(out, told.receipt.as_bytes()));
    context.output.show(|| document(told), || text(told))?;
    written.map_err(|error| CliError::Unfit {
        message: format!("the receipt could not be written: {error}"),
        next: format!("strongroom subject erasure {} --receipt OUT", told.erasure),
    })?;
    let whole = match told.state.as_str() {
        "erased" => true,
        // As it was asked for, unless it was for the receipt.
        "waiting" => out.is_none(),
        _ => false,
    };
    Ok(if whole { Exit::Done } else { Exit::Partly })
}

fn document(told: &ErasureStatus) -> Value {
    let kept = told.kept.iter().map(|kept| {
        json!({
            "hold": kept.hold,
            "fields": kept.fields,
            "purpose": kept.purpose,
            "until_time": instant(kept.until_time.as_ref()),
        })
    });
    json!({
        "erasure": told.erasure,
        "state": told.state,
        "due_time": instant_if_any(told.due_time),
        "kept": kept.collect::<Vec<_>>(),
        "receipt": told.receipt,
        "salt": HEXLOWER.encode(&told.salt),
    })
}

fn text(told: &ErasureStatus) -> String {
    let state = match told.state.as_str() {
        "waiting" => {
            let due = instant(told.due_time.as_ref());
            format!("frozen, and erased after {due}; until then strongroom subject undo-erasure ID undoes it")
        }
        "clearing" => "closed: nothing of it opens any more; its values are being cleared".to_owned(),
        "held" => "erased but for what legal holds keep".to_owned(),
        "undone" => "undone: nothing was erased".to_owned(),
        _ => "erased".to_owned(),
    };
    let mut text = facts([("erasure", told.erasure.clone()), ("state", state)]);
    for kept in &told.kept {
        let fields = if kept.fields.is_empty() { "all".to_owned() } else { kept.fields.join(" ") };
        let until = instant(kept.until_time.as_ref());
        text.push_str(&format!("\nhold {} keeps {fields} until {until}, for {}", kept.hold, kept.purpose));
    }
    match told.receipt.as_str() {
        "" => text.push_str(&format!(
            "\nreceipt  none yet: strongroom subject erasure {} --receipt OUT, once it is erased",
            told.erasure
        )),
        receipt => text.push_str(&format!("\n\n{receipt}")),
    }
    if !told.salt.is_empty() {
        let salt = HEXLOWER.encode(&told.salt);
        let told = "with the id it proves whose receipt this is: keep it with that";
        text.push_str(&format!("\nsalt {salt}\n{told}"));
    }
    text
}

/// Has the id typed again by somebody who was told what is done.
fn agreed(id: &str, grace: bool) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::Usage("nobody can be asked here: add --yes if this is meant".to_owned()));
    }
    let mut told = std::io::stderr();
    let what = match grace {
        true => "The data subject is frozen, and erased when the time of grace ends",
        false => "All that is stored of this data subject is erased, but for what legal holds keep. It can't be undone",
    };
    let asked = write!(told, "{what}. Type its id: ");
    let mut typed = String::new();
    let heard = asked.and_then(|()| told.flush()).and_then(|()| stdin.lock().read_line(&mut typed));
    heard.map_err(|error| CliError::file("the terminal", error))?;
    match typed.trim_end_matches(['\r', '\n']) == id {
        true => Ok(()),
        false => Err(CliError::unfit("that is not its id; nothing was erased".to_owned())),
    }
}

/// Verifies a receipt.
pub fn verify(args: &VerifyArgs, output: Output) -> Result<Exit, CliError> {
    let (note, keys) = (read(&args.receipt)?, read_keys(&args.log_key)?);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let told = erasure::verify(&note, &keys).map_err(|error| CliError::Unfit {
        message: format!("{} does not hold: {error}", args.receipt.display()),
        next: "strongroom audit key, of the tenant whose desk got the receipt".into(),
    })?;
    if let Some((subject, salt)) = args.subject.as_ref().zip(args.salt)
        && told.subject != Some(erasure::commitment(&salt, subject))
    {
        return Err(CliError::unfit(format!(
            "{} is not of that data subject, or the salt is another's",
            args.receipt.display()
        )));
    }
    let keks: Vec<String> =
        told.keks.iter().map(|(key, version, state)| format!("{key} version {version} ({state})")).collect();
    let backups = told.backups.map(day_text);
    output.show(
        || {
            json!({
                "verified": true,
                "held": told.held.to_string(),
                "subject": told.subject.map(|subject| HEXLOWER.encode(&subject)),
                "subject_verified": args.subject.is_some(),
                "day": day_text(told.day),
                // Numbers of 64 bits are strings, as in the ledger.
                "values": told.values.to_string(),
                "shares": told.shares.to_string(),
                "entries": told.entries.to_string(),
                "consents": told.consents.to_string(),
                "deks": told.deks.to_string(),
                "unread": told.unread.to_string(),
                "unrolled": told.unrolled.to_string(),
                "keks": told.keks.iter().map(|(key, version, state)| json!({ "name": key, "version": version, "state": state })).collect::<Vec<_>>(),
                "copies": told.copies,
                "backups": backups,
            })
        },
        || {
            let erased = match told.held {
                0 => "all".to_owned(),
                held => format!("all but {held} values that legal holds keep"),
            };
            let whose = match args.subject {
                Some(_) => "of the data subject of that id",
                None => "not looked at: --subject and --salt",
            };
            let backups = match &backups {
                Some(day) => format!("deleted by {day}"),
                None => "kept for an unknown time".to_owned(),
            };
            facts([
                ("verified", "signed by the key of the tenant's ledger, and unchanged".to_owned()),
                ("erased", erased),
                ("whose", whose.to_owned()),
                ("day", day_text(told.day)),
                ("values", told.values.to_string()),
                ("shared values given up", told.shares.to_string()),
                ("index entries", told.entries.to_string()),
                ("consents", told.consents.to_string()),
                ("DEKs", told.deks.to_string()),
                ("values that could not be read", told.unread.to_string()),
                ("DEKs to be rolled", told.unrolled.to_string()),
                ("wrapped by", if keks.is_empty() { "no KEK".to_owned() } else { keks.join(", ") }),
                ("keystore copies", if told.copies.is_empty() { "none".to_owned() } else { told.copies.join(" ") }),
                ("backups", backups),
            ])
        },
    )?;
    Ok(Exit::Done)
}
