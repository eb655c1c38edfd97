//! A batch of records on its way to the vault and back.
//!
//! Which records make a batch, and under which idempotency key it travels, is decided by the input and by what the vault
//! refused, by nothing else: so a batch that is formed again after an interruption is the same request.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::{Code, Status};

use super::columns::{Columns, Place, Reject};
use super::output::{CliError, Refusal};
use super::records::{self, Record};

/// How often a batch is sent again when the vault is busy or away.
const ATTEMPTS: u32 = 12;
/// The shortest wait between two attempts, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a batch waits for limits that are used up: others, who are counted as the same principal, may be faster.
const TURNS: u32 = 60;
/// How soon limits must end to be waited for.
const SOON: Duration = Duration::from_secs(60);

/// One value on its way.
pub struct Item {
    /// Where it stands.
    pub place: Place,
    /// The value, or the token.
    pub value: Bytes,
    /// Whose it is; empty if no column says so.
    pub subject: Arc<str>,
}

/// What stands in an item's place afterwards, or the rule by which it has no answer.
pub type Answer = Result<Bytes, String>;

/// What is done with values.
pub trait Exchange {
    /// Sends items, at least one, under an idempotency key; one answer an item, in their order.
    fn send(&self, items: &[&Item], key: &str) -> impl Future<Output = Result<Vec<Answer>, Status>>;
}

/// One record and what becomes of it.
pub struct Entry {
    /// The record as it stands in the file.
    pub record: Record,
    /// Its values, in the order of the wanted columns.
    pub items: Vec<Item>,
    /// What takes their places, once it is known.
    pub answers: Vec<Bytes>,
    /// Why it is left out; empty: it is not.
    pub rejects: Vec<Reject>,
}

/// Some records that travel together.
pub struct Batch {
    /// Which batch of the run, from 0.
    pub number: u64,
    /// The records, in the input's order.
    pub entries: Vec<Entry>,
    /// Where the next batch begins.
    pub end: records::Place,
}

/// Which of the wanted columns names the subject, and whether it must.
#[derive(Clone, Copy)]
pub struct SubjectColumn {
    /// Its place among the wanted columns; none: no column names a subject.
    pub index: Option<usize>,
    /// How many of the wanted columns are replaced; they come first.
    pub mapped: usize,
    /// Whether a record with values and without subject is left out.
    pub needed: bool,
}

impl SubjectColumn {
    /// A record with the values that are to be replaced, or the reason why it can't be used.
    pub fn entry(self, columns: &Columns, record: Record) -> Entry {
        let mut entry = Entry { record, items: vec![], answers: vec![], rejects: vec![] };
        if entry.record.is_blank() {
            return entry;
        }
        let found = match columns.find(&entry.record) {
            Ok(found) => found,
            Err(reject) => {
                entry.rejects.push(reject);
                return entry;
            }
        };
        let subject = found.iter().find(|found| Some(found.column) == self.index);
        let subject: Arc<str> = match subject.map(|found| std::str::from_utf8(&found.value)) {
            Some(Ok(subject)) => subject.into(),
            Some(Err(_)) => {
                entry.rejects.push(Reject { column: self.index, rule: "utf8".into() });
                return entry;
            }
            None => "".into(),
        };
        let mapped = found.into_iter().filter(|found| found.column < self.mapped);
        let items = mapped.map(|found| Item {
            place: Place { column: found.column, at: found.at, quoted: found.quoted },
            value: found.value.into(),
            subject: subject.clone(),
        });
        entry.items.extend(items);
        if self.needed && subject.is_empty() && !entry.items.is_empty() {
            entry.items.clear();
            entry.rejects.push(Reject { column: self.index, rule: "subject_empty".into() });
        }
        entry
    }
}

/// Sends a batch until every record has its answers or is rejected: what the vault refuses is left out, and the rest
/// goes again. `waits` is told when limits are waited for, how long, and what the vault said.
pub async fn settle(
    exchange: &impl Exchange,
    run: &str,
    subject: SubjectColumn,
    mut batch: Batch,
    waits: &impl Fn(Duration, &str),
) -> Result<Batch, CliError> {
    loop {
        let open = |entry: &&Entry| entry.rejects.is_empty() && !entry.items.is_empty();
        let key = key(run, &batch);
        let items: Vec<&Item> = batch.entries.iter().filter(open).flat_map(|entry| &entry.items).collect();
        if items.is_empty() {
            return Ok(batch);
        }
        let status = match patiently(async || exchange.send(&items, &key).await, waits).await {
            Ok(answers) if answers.len() == items.len() => {
                accept(&mut batch, answers);
                return Ok(batch);
            }
            Ok(_) => return Err(CliError::unfit("the vault answered with another number of items than it was sent")),
            Err(status) => status,
        };
        let refusal = Refusal::from(&status);
        if refusal.code != Code::InvalidArgument || !reject(&mut batch, &refusal, subject) {
            return Err(status.into());
        }
    }
}

/// Names a batch for the vault. A batch from which records were dropped is another request, so it has another name;
/// which one, only the dropped records decide.
fn key(run: &str, batch: &Batch) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut dropped = false;
    for (index, _) in batch.entries.iter().enumerate().filter(|(_, entry)| !entry.rejects.is_empty()) {
        dropped = true;
        digest.update(&(index as u64).to_be_bytes());
    }
    match dropped {
        false => format!("{run}-{}", batch.number),
        true => {
            let hash = data_encoding::HEXLOWER.encode(digest.finish().as_ref());
            format!("{run}-{}-r{}", batch.number, hash.get(..16).unwrap_or_default())
        }
    }
}

/// Gives every open record its answers; one that lacks any is rejected.
fn accept(batch: &mut Batch, answers: Vec<Answer>) {
    let mut answers = answers.into_iter();
    for entry in batch.entries.iter_mut().filter(|entry| entry.rejects.is_empty()) {
        for (item, answer) in entry.items.iter().zip(answers.by_ref().take(entry.items.len())) {
            match answer {
                Ok(value) => entry.answers.push(value),
                Err(rule) => entry.rejects.push(Reject { column: Some(item.place.column), rule }),
            }
        }
    }
}

/// Rejects the records that the vault named. False if it named none.
fn reject(batch: &mut Batch, refusal: &Refusal, subject: SubjectColumn) -> bool {
    let open = batch.entries.iter().enumerate().filter(|(_, entry)| entry.rejects.is_empty());
    let owners: Vec<(usize, usize)> =
        open.flat_map(|(at, entry)| entry.items.iter().map(move |item| (at, item.place.column))).collect();
    let mut any = false;
    for broken in &refusal.violations {
        let Some((index, part)) = item_path(&broken.field) else { continue };
        let Some((at, column)) = owners.get(index).copied() else { continue };
        let column = match part {
            "value" | "token" => Some(column),
            "subject" => subject.index,
            // A wrong field or view is wrong for all records: that is for the person who gave the command.
            _ => continue,
        };
        let rule = if broken.rule.is_empty() { "invalid".to_owned() } else { broken.rule.clone() };
        let reject = Reject { column, rule };
        if let Some(entry) = batch.entries.get_mut(at)
            && !entry.rejects.contains(&reject)
        {
            entry.rejects.push(reject);
        }
        any = true;
    }
    any
}

/// `items[3].value` as 3 and `value`.
fn item_path(path: &str) -> Option<(usize, &str)> {
    let (index, part) = path.strip_prefix("items[")?.split_once("].")?;
    Some((index.parse().ok()?, part))
}

/// Sends, and sends again when the vault is busy or away, or when limits end that are used up, and says so of those. Both
/// kinds of request may be repeated: those that store carry an idempotency key.
async fn patiently<T>(send: impl AsyncFn() -> Result<T, Status>, waits: &impl Fn(Duration, &str)) -> Result<T, Status> {
    let mut wait = FIRST_WAIT;
    let (mut attempts, mut turns) = (1, 0);
    loop {
        let status = match send().await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        let refusal = Refusal::from(&status);
        match until_limits_end(&refusal) {
            Some(pause) if turns < TURNS => {
                waits(pause, &refusal.message);
                tokio::time::sleep(pause).await;
                turns += 1;
            }
            None if is_busy(refusal.code) && attempts < ATTEMPTS => {
                let asked = refusal.retry_after.unwrap_or_default();
                tokio::time::sleep(wait.max(asked).min(LONGEST_WAIT)).await;
                wait = (wait * 2).min(LONGEST_WAIT);
                attempts += 1;
            }
            _ => return Err(status),
        }
    }
}

/// Whether it is worth trying again: the vault is busy or away, or limits end soon.
pub fn is_passing(refusal: &Refusal) -> bool {
    is_busy(refusal.code) || until_limits_end(refusal).is_some()
}

fn is_busy(code: Code) -> bool {
    // UNKNOWN and CANCELLED come from a connection that broke, never from the vault.
    matches!(code, Code::Unavailable | Code::Aborted | Code::Unknown | Code::Cancelled)
}

/// How long it takes until limits that are used up end, if it is worth waiting for: a minute's are, a day's are not.
fn until_limits_end(refusal: &Refusal) -> Option<Duration> {
    let delay = refusal.retry_after.filter(|_| refusal.code == Code::ResourceExhausted)?;
    (delay <= SOON).then_some(delay.max(FIRST_WAIT))
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn refusal(code: Code, seconds: Option<u64>) -> Refusal {
        let details = match seconds {
            Some(seconds) => ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds))),
            None => ErrorDetails::new(),
        };
        Refusal::from(&Status::with_error_details(code, "no", details))
    }

    #[test]
    fn limits_of_a_minute_are_waited_for_and_longer_ones_are_not() {
        for (code, seconds, pause) in [
            (Code::ResourceExhausted, Some(0), Some(FIRST_WAIT)),
            (Code::ResourceExhausted, Some(37), Some(Duration::from_secs(37))),
            (Code::ResourceExhausted, Some(60), Some(SOON)),
            (Code::ResourceExhausted, Some(61), None),
            (Code::ResourceExhausted, Some(86_400), None),
            // An answer that is too large, or a request that alone is beyond its limit.
            (Code::ResourceExhausted, None, None),
            (Code::PermissionDenied, Some(1), None),
        ] {
            let refusal = refusal(code, seconds);
            assert_eq!(until_limits_end(&refusal), pause, "{code:?} {seconds:?}");
            assert_eq!(is_passing(&refusal), pause.is_some(), "{code:?} {seconds:?}");
        }
        assert!(is_passing(&refusal(Code::Unavailable, None)));
    }
}
