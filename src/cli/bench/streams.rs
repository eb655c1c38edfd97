//! A load over a bulk stream: messages go out ahead of their answers, which come in order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Instant;

use strongroom_proto::v1::vault_client::VaultClient;
use strongroom_proto::v1::{
    DetokenizeStreamResponse, Problem, TokenizeStreamResponse, detokenize_stream_response, tokenize_stream_response,
};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::noted::Noted;
use super::pace::Numbers;
use super::workload::{self, Answer, Kind, Source};
use crate::cli::client::Wire;
use crate::cli::output::{CliError, Refusal};

/// Messages under way on one stream: as many as the vault works at.
const AHEAD: usize = 4;

/// Sends until the load ends. What the first kind of the source says is what the stream does.
pub async fn run(
    mut client: VaultClient<Wire>,
    source: &Source,
    numbers: &Numbers,
    noted: &RefCell<Noted>,
) -> Result<(), CliError> {
    match source.kinds.first() {
        Some(Kind::Tokenize) => {
            let (sink, messages) = mpsc::channel(AHEAD);
            let answers = client.tokenize_stream(ReceiverStream::new(messages)).await?.into_inner();
            exchange(sink, |number| source.tokenize(number), answers, tokenized, source.shape.items, numbers, noted)
                .await
        }
        Some(Kind::Detokenize) => {
            let (sink, messages) = mpsc::channel(AHEAD);
            let answers = client.detokenize_stream(ReceiverStream::new(messages)).await?.into_inner();
            let message = |number| source.detokenize(number);
            exchange(sink, message, answers, detokenized, source.shape.items, numbers, noted).await
        }
        _ => Err(CliError::Usage("there are bulk streams of tokenize and of detokenize".into())),
    }
}

async fn exchange<M, R>(
    sink: Sender<M>,
    message: impl Fn(u64) -> M,
    mut answers: Streaming<R>,
    read: impl Fn(R) -> Result<(usize, Vec<String>), CliError>,
    items: usize,
    numbers: &Numbers,
    noted: &RefCell<Noted>,
) -> Result<(), CliError> {
    let mut sink = Some(sink);
    let mut under_way: VecDeque<(u64, Instant)> = VecDeque::new();
    loop {
        while let Some(open) = sink.as_ref().filter(|_| under_way.len() < AHEAD) {
            match numbers.next() {
                Some(number) => {
                    let message = message(number);
                    under_way.push_back((number, Instant::now()));
                    open.send(message).await.map_err(|_| ended())?;
                }
                None => sink = None,
            }
        }
        let Some((number, begun)) = under_way.pop_front() else { return Ok(()) };
        let answer = answers.message().await?.ok_or_else(ended)?;
        let (answered, tokens) = read(answer)?;
        workload::whole(items, answered)?;
        noted.borrow_mut().note(number, begun, items, Answer::Done(tokens));
    }
}

fn tokenized(answer: TokenizeStreamResponse) -> Result<(usize, Vec<String>), CliError> {
    match answer.result {
        Some(tokenize_stream_response::Result::Response(response)) => Ok(workload::made(response)),
        Some(tokenize_stream_response::Result::Problem(problem)) => Err(refused(&problem)),
        None => Err(ended()),
    }
}

fn detokenized(answer: DetokenizeStreamResponse) -> Result<(usize, Vec<String>), CliError> {
    match answer.result {
        Some(detokenize_stream_response::Result::Response(response)) => Ok(workload::read(&response)),
        Some(detokenize_stream_response::Result::Problem(problem)) => Err(refused(&problem)),
        None => Err(ended()),
    }
}

fn refused(problem: &Problem) -> CliError {
    let refusal = Refusal::from(problem);
    match refusal.code {
        Code::Unavailable => CliError::unfit("the server had no room for a message of a stream"),
        _ => CliError::Refused(Box::new(refusal)),
    }
}

fn ended() -> CliError {
    CliError::unfit("a stream ended before its answers were there")
}
