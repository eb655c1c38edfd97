//! Bulk streams: each message is a call of its own, answered in order; a few are at work at once.

use futures_util::stream::{self, Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};
use tonic::{Code, Status, Streaming};

use crate::errors::{self, Refusal};
use crate::stage::{self, Stage};

/// Messages of one stream that are at work at once.
const AT_ONCE: usize = 4;

/// How long a stream may bring nothing, or take nothing. A stream keeps a place that others may want.
pub(crate) const IDLE: Duration = Duration::from_secs(300);

/// Answers each message of a stream with what `answer` makes of it, on `workers`: a stream has one connection, and the
/// thread of that alone would be slow, and slow for the others it serves.
///
/// A message that is refused is answered with its problem, which is `answer`'s business; a status from `answer`, a
/// message that can't be decoded, or the end of serving end the stream. What was sent after the last answer was not
/// looked at, and can be sent again. Dropping the answers drops what is at work.
pub(crate) fn answers<Message, Answer, Work>(
    messages: Streaming<Message>,
    stage: watch::Receiver<Stage>,
    workers: Handle,
    answer: impl Fn(Message) -> Work + Send + 'static,
) -> impl Stream<Item = Result<Answer, Status>> + Send
where
    Message: Send + 'static,
    Answer: Send + 'static,
    Work: Future<Output = Result<Answer, Status>> + Send + 'static,
{
    incoming(messages, stage, IDLE)
        .map(move |message| {
            let work = message.map(&answer);
            let workers = workers.clone();
            async move { apart(&workers, work?).await? }
        })
        .buffered(AT_ONCE)
}

/// The messages, ended by a status if they end early.
fn incoming<Message: Send + 'static>(
    messages: impl Stream<Item = Result<Message, Status>> + Send + Unpin + 'static,
    stage: watch::Receiver<Stage>,
    patience: Duration,
) -> impl Stream<Item = Result<Message, Status>> + Send {
    let state = Some((messages, Box::pin(stage::reached(stage, Stage::Closing))));
    stream::unfold(state, move |state| async move {
        let (mut messages, mut closing) = state?;
        let next = tokio::select! {
            biased;
            () = &mut closing => Err(shutting_down()),
            next = timeout(patience, messages.next()) => match next {
                Ok(Some(Ok(message))) => Ok(message),
                Ok(Some(Err(status))) => Err(errors::mended(status)),
                Ok(None) => return None,
                Err(_) => Err(idle(patience)),
            },
        };
        let state = next.is_ok().then_some((messages, closing));
        Some((next, state))
    })
}

/// Does work on `workers` instead of the thread of its connection.
pub(crate) async fn apart<T: Send + 'static>(
    workers: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Status> {
    let mut work = AtWork(workers.spawn(work));
    (&mut work.0).await.map_err(|_| failed())
}

/// Work that is done apart. It ends with whoever waits for it.
struct AtWork<T>(JoinHandle<T>);

impl<T> Drop for AtWork<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed() -> Status {
    Refusal::new(Code::Internal, "INTERNAL", "the vault failed at this request; its log says why").into()
}

fn shutting_down() -> Status {
    Refusal::unavailable(
        "SHUTTING_DOWN",
        "the vault is shutting down: send what was not answered again, over a new connection",
    )
    .into()
}

fn idle(patience: Duration) -> Status {
    let message = format!("no message came for {} s: open a new stream when there is more", patience.as_secs());
    Refusal::new(Code::DeadlineExceeded, "STREAM_IDLE", message).into()
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    #[tokio::test]
    async fn a_stream_that_ends_by_itself_ends_without_a_status() {
        let (_open, stage) = watch::channel(Stage::Open);
        let messages = stream::iter([Ok(1), Ok(2)]);
        let all: Vec<_> = incoming(messages, stage, IDLE).collect().await;
        assert!(matches!(all[..], [Ok(1), Ok(2)]));
    }

    #[tokio::test]
    async fn nothing_is_read_after_a_message_that_cannot_be_decoded() {
        let (_open, stage) = watch::channel(Stage::Open);
        let messages = stream::iter([Ok(1), Err(Status::invalid_argument("not a message")), Ok(2)]);
        let all: Vec<_> = incoming(messages, stage, IDLE).collect().await;
        let [Ok(1), Err(status)] = &all[..] else { panic!("one message and one status") };
        assert_eq!(reason(status), "MESSAGE_MALFORMED");
    }

    #[tokio::test]
    async fn the_end_of_serving_ends_a_stream_that_goes_on() {
        let (closing, stage) = watch::channel(Stage::Open);
        let mut messages = Box::pin(incoming(stream::iter([Ok(1)]).chain(stream::pending()), stage, IDLE));
        assert!(matches!(messages.next().await, Some(Ok(1))));
        closing.send(Stage::Closing).unwrap();
        let Some(Err(status)) = messages.next().await else { panic!("a status") };
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_brings_nothing_is_ended() {
        let (_open, stage) = watch::channel(Stage::Open);
        let mut messages = Box::pin(incoming(stream::pending::<Result<u8, Status>>(), stage, Duration::ZERO));
        let Some(Err(status)) = messages.next().await else { panic!("a status") };
        assert_eq!(reason(&status), "STREAM_IDLE");
    }
}
