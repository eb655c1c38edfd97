//! The ledger that is followed: each leaf is the one after the last, and after an interruption it still is the same ledger.
//!
//! A vault that was put back to an older copy would otherwise be waited for until it has as many leaves again, and what it
//! wrote up to there would come to nobody. So whenever a stream begins the vault shows that its ledger has all that was
//! followed, that it only grew since the last checkpoint, and that the last leaf is the one that was followed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom_ledger::checkpoint::{self, Checkpoint};
use strongroom_ledger::log_keys::Trust;
use strongroom_ledger::{LedgerError, leaf_hash};
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{GetCheckpointResponse, TailRequest, TailResponse};
use tonic::{Code, Streaming};

use super::Cursor;
use super::backoff::Backoff;
use crate::cli::audit::proofs::continues;
use crate::cli::audit::{learn, newest};
use crate::cli::client::{Context, Wire};
use crate::cli::output::CliError;

/// A signed head is a second old at the most: so often, and at these intervals, a newer one is asked for.
const HEADS: u32 = 4;
const NEXT_HEAD: Duration = Duration::from_millis(500);

/// Between two leaves: which one comes next, and the hash of the one before it, if that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    pub next: u64,
    pub last: Option<[u8; 32]>,
}

impl Mark {
    /// Which leaf to ask for first: the last one again, if it is known, so that it is seen to be the same.
    fn first(&self) -> u64 {
        self.next.saturating_sub(u64::from(self.last.is_some()))
    }

    /// Goes on by a leaf, if it is the next one.
    fn step(&mut self, line: &[u8]) -> Result<(), CliError> {
        // Not all of it is read: a vault that is newer than this program may have more to say.
        if !line.starts_with(format!("{{\"index\":\"{}\",", self.next).as_bytes()) {
            return Err(other(format!("leaf {} comes next, and the vault sent something else", self.next)));
        }
        self.next = self.next.saturating_add(1);
        self.last = Some(leaf_hash(line));
        Ok(())
    }

    /// Takes a page of leaves; the first of all is the last one again, if that is awaited. Answers those that are new.
    fn take(&mut self, again: &mut Option<[u8; 32]>, leaves: Vec<Bytes>) -> Result<Vec<Bytes>, CliError> {
        let mut leaves = leaves.into_iter();
        if let Some(last) = *again
            && let Some(line) = leaves.next()
        {
            if leaf_hash(&line) != last {
                return Err(other(format!("its leaf {} is another one", self.next.saturating_sub(1))));
            }
            *again = None;
        }
        let new: Vec<Bytes> = leaves.collect();
        new.iter().try_for_each(|line| self.step(line))?;
        Ok(new)
    }
}

/// The vault whose ledger is followed.
pub struct Followed<'a> {
    context: &'a Context,
    log: String,
    /// The keys that somebody keeps; without them the vault's word about its keys is taken.
    given: Option<Vec<String>>,
    backoff: Backoff,
    /// When the last stream was begun, and with which leaf.
    begun: Option<(Instant, u64)>,
}

impl<'a> Followed<'a> {
    pub fn new(context: &'a Context, log: String, given: Option<Vec<String>>) -> Self {
        Self { context, log, given, backoff: Backoff::new(), begun: None }
    }

    /// What the signed head says when all begins. `going_on`: a cursor is kept, so a vault that is away was there before, and is
    /// waited for; otherwise it may be the command line that is wrong.
    pub async fn first_head(&mut self, going_on: bool) -> Result<Checkpoint, CliError> {
        loop {
            let head = match self.context.audit().await {
                Ok(mut client) => self.head(&mut client).await,
                Err(error) => Err(error),
            };
            match head {
                Err(error) if is_away(&error) && (going_on || error.refusal().is_some()) => {
                    self.wait(&error.to_string()).await;
                }
                head => return head.map(|(head, _)| head),
            }
        }
    }

    async fn head(&self, client: &mut AuditClient<Wire>) -> Result<(Checkpoint, GetCheckpointResponse), CliError> {
        newest::signed_head(client, &self.log).await
    }

    /// The leaves that follow a cursor. Waits for a vault that is away, or that has cut off what was begun before: each
    /// stream is a request, which the ledger keeps.
    pub async fn begin(&mut self, cursor: &Cursor) -> Result<Leaves, CliError> {
        if let Some((begun, next)) = self.begun.take() {
            match cursor.next > next {
                true => self.backoff.reset(),
                false => self.backoff.ended(begun.elapsed()),
            }
            self.wait("the stream of leaves has ended").await;
        }
        loop {
            match self.try_begin(cursor).await {
                Err(error) if is_away(&error) => self.wait(&error.to_string()).await,
                Err(error) => return Err(error),
                Ok(leaves) => {
                    self.begun = Some((Instant::now(), cursor.next));
                    return Ok(leaves);
                }
            }
        }
    }

    async fn wait(&mut self, why: &str) {
        eprintln!("waiting for the vault: {why}");
        tokio::time::sleep(self.backoff.wait()).await;
    }

    async fn try_begin(&self, cursor: &Cursor) -> Result<Leaves, CliError> {
        let mut client = self.context.audit().await?;
        let (mut head, mut signed) = self.head(&mut client).await?;
        for _ in 1..HEADS {
            if head.size >= cursor.next {
                break;
            }
            tokio::time::sleep(NEXT_HEAD).await;
            (head, signed) = self.head(&mut client).await?;
        }
        let GetCheckpointResponse { checkpoint, keys, .. } = signed;
        has_all(cursor, &head)?;
        let older = cursor.checkpoint.as_deref().map(|kept| kept_before(kept, &keys)).transpose()?;
        let log_keys = self.see_keys(&mut client, cursor, older.as_ref(), (&head, &checkpoint)).await?;
        if let Some(older) = older {
            continues(&mut client, self.log.clone(), &older, &head, other).await?;
        }
        let mark = cursor.mark();
        let asked = TailRequest { first: mark.first(), log: self.log.clone() };
        let stream = client.tail(asked).await?.into_inner();
        Ok(Leaves { stream, mark, again: mark.last, checkpoint, log_keys })
    }

    /// Sees that a key which was given, or was learnt before, has signed the head. Answers the keys that are learnt by now.
    async fn see_keys(
        &self,
        client: &mut AuditClient<Wire>,
        cursor: &Cursor,
        older: Option<&Checkpoint>,
        (head, note): (&Checkpoint, &str),
    ) -> Result<Vec<String>, CliError> {
        let Some(given) = &self.given else { return Ok(vec![]) };
        let mut trust = Trust::new(&head.origin, given.iter().chain(&cursor.log_keys).map(String::as_str));
        let by_known = |note: &str, seen: &Checkpoint| trust.prove(note, seen.size).is_ok();
        let kept = older.zip(cursor.checkpoint.as_deref()).filter(|(seen, note)| by_known(note, seen));
        let kept = kept.map(|(seen, _)| seen);
        let signers = learn::signers(client, &self.log, (note, head), kept, &mut trust).await?;
        if checkpoint::signatures(note, &head.origin) > signers.len() {
            learn::learn_new(client, &self.log, head, &mut trust).await;
        }
        let learned = trust.trusted().into_iter().filter(|key| key.compromised.is_none() && !given.contains(&key.key));
        Ok(learned.map(|key| key.key).collect())
    }
}

/// The last checkpoint that was seen. It was proven then, and what signed it may be compromised since: what the vault names
/// no more proves nothing new, but that the ledger still continues this one is shown all the same.
fn kept_before(kept: &str, keys: &[String]) -> Result<Checkpoint, CliError> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    match checkpoint::verify(kept, &keys) {
        Err(LedgerError::Unsigned) => checkpoint::claimed(kept),
        read => read,
    }
    .map_err(|error| other(format!("the last checkpoint of it does not hold for its keys: {error}")))
}

/// Whether a ledger is the one that a cursor is of, and has as many leaves.
fn has_all(cursor: &Cursor, head: &Checkpoint) -> Result<(), CliError> {
    if head.origin != cursor.origin {
        return Err(other(format!("it was {}, and is {}", cursor.origin, head.origin)));
    }
    match head.size >= cursor.next {
        true => Ok(()),
        false => Err(other(format!("leaf {} comes next, and it has {} leaves", cursor.next, head.size))),
    }
}

fn other(why: String) -> CliError {
    CliError::Unfit {
        message: format!("the vault's ledger is not the one that was followed: {why}"),
        next: "see whether the vault was put back to an older copy, and keep what was followed; what it has now comes with \
               --from INDEX and another -o or --cursor"
            .into(),
    }
}

/// Leaves of a ledger, as they come.
pub struct Leaves {
    stream: Streaming<TailResponse>,
    /// How far they have come.
    pub mark: Mark,
    /// The hash of the last leaf that was followed before, while it is awaited again.
    again: Option<[u8; 32]>,
    /// The signed head when they began: whoever goes on later sees that it only grew since.
    pub checkpoint: String,
    /// The keys of the ledger that were learnt from it.
    pub log_keys: Vec<String>,
}

impl Leaves {
    /// The next leaves; none when the stream has ended and another is to be begun. Whoever stops waiting loses none.
    pub async fn page(&mut self) -> Result<Option<Vec<Bytes>>, CliError> {
        loop {
            let page = match self.stream.message().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(None),
                Err(status) if passes(status.code()) => return Ok(None),
                Err(status) => return Err(status.into()),
            };
            let new = self.mark.take(&mut self.again, page.leaves)?;
            if !new.is_empty() {
                return Ok(Some(new));
            }
        }
    }
}

/// Whether to try again what did not succeed at the vault: it can't be reached, or is asked for too much at the moment.
fn is_away(error: &CliError) -> bool {
    match error {
        CliError::Refused(refusal) => passes(refusal.code),
        CliError::NotReached { .. } => true,
        _ => false,
    }
}

/// Whether what was refused so may go through later. Connections that break have some of these codes as well.
fn passes(code: Code) -> bool {
    use Code::{Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    matches!(code, Aborted | Cancelled | DeadlineExceeded | Internal | ResourceExhausted | Unavailable | Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(indexes: impl IntoIterator<Item = u64>, what: &str) -> Vec<Bytes> {
        indexes.into_iter().map(|index| format!("{{\"index\":\"{index}\",\"what\":\"{what}\"}}").into()).collect()
    }

    #[test]
    fn leaves_come_one_after_the_other_or_not_at_all() {
        for wrong in [vec![0, 1, 3], vec![0, 1, 1], vec![1], vec![0, 2], vec![10]] {
            let mut mark = Mark { next: 0, last: None };
            assert!(mark.take(&mut None, lines(wrong.clone(), "a")).is_err(), "{wrong:?}");
        }
        let mut mark = Mark { next: 7, last: None };
        assert_eq!(mark.take(&mut None, lines([7, 8, 9], "a")).unwrap(), lines([7, 8, 9], "a"));
        assert_eq!(mark, Mark { next: 10, last: Some(leaf_hash(&lines([9], "a")[0])) });
    }

    #[test]
    fn the_last_leaf_comes_again_and_must_be_the_same() {
        let mut mark = Mark { next: 0, last: None };
        assert_eq!(mark.first(), 0);
        mark.take(&mut None, lines([0, 1], "a")).unwrap();
        assert_eq!(mark.first(), 1);
        let mut again = mark.last;
        assert!(mark.take(&mut again, vec![]).unwrap().is_empty() && again.is_some());
        let (mut other, mut awaited) = (mark, again);
        assert!(other.take(&mut awaited, lines([1, 2], "b")).is_err());
        assert_eq!(mark.take(&mut again, lines([1, 2], "a")).unwrap(), lines([2], "a"));
        assert_eq!((again, mark.next), (None, 3));
    }

    #[test]
    fn what_may_go_through_later_is_tried_again_and_what_never_will_is_told() {
        let refused = |code| is_away(&tonic::Status::new(code, "no").into());
        let later = [Code::Aborted, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Unavailable];
        let never = [Code::PermissionDenied, Code::InvalidArgument, Code::DataLoss, Code::Unauthenticated];
        assert!(later.into_iter().all(refused) && !never.into_iter().any(refused));
        assert!(!refused(Code::FailedPrecondition), "its leaves are archived");
        assert!(is_away(&CliError::NotReached { message: String::new(), next: String::new() }));
        assert!(!is_away(&CliError::unfit("another ledger")));
    }

    #[test]
    fn a_ledger_that_is_shorter_or_another_is_named() {
        let origin = || "log".to_owned();
        let cursor = |next| Cursor {
            origin: origin(),
            next,
            length: 0,
            rotates: false,
            last: None,
            checkpoint: None,
            log_keys: vec![],
        };
        let head = |origin: &str, size| Checkpoint { origin: origin.to_owned(), size, root: [0; 32] };
        assert!(has_all(&cursor(5), &head("log", 5)).is_ok() && has_all(&cursor(5), &head("log", 6)).is_ok());
        assert!(has_all(&cursor(5), &head("log", 4)).unwrap_err().to_string().contains("leaf 5 comes next"));
        assert!(has_all(&cursor(5), &head("other", 6)).unwrap_err().to_string().contains("it was log"));
    }
}
