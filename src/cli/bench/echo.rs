//! The first yardstick: tonic and rustls as they come.
//!
//! It decodes a request and answers as many bytes as the vault would. What the vault takes beyond it is the vault's own
//! work.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use strongroom_proto::v1;
use tonic::{Request, Response, Status, Streaming};

use super::population::{self, FIELDS};

/// As long as one of the vault's opaque tokens.
const TOKEN: &str = "srt1_0123456789abcdefghijkl";
/// As long as every value.
const VALUE: &[u8; population::VALUE] = b"0123456789abcdefghijklmnopqrstuv";

/// Answers at once, with as many bytes as the vault would.
pub struct Echo;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::vault_server::Vault for Echo {
    type TokenizeStreamStream = Answers<v1::TokenizeStreamResponse>;
    type DetokenizeStreamStream = Answers<v1::DetokenizeStreamResponse>;

    async fn tokenize(&self, request: Request<v1::TokenizeRequest>) -> Result<Response<v1::TokenizeResponse>, Status> {
        Ok(Response::new(tokenized(&request.into_inner())))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        Ok(Response::new(detokenized(&request.into_inner())))
    }

    async fn r#match(&self, request: Request<v1::MatchRequest>) -> Result<Response<v1::MatchResponse>, Status> {
        let result = |_: &_| v1::MatchResult { result: Some(v1::match_result::Result::Matched(true)) };
        Ok(Response::new(v1::MatchResponse { results: request.into_inner().items.iter().map(result).collect() }))
    }

    async fn lookup(&self, _: Request<v1::LookupRequest>) -> Result<Response<v1::LookupResponse>, Status> {
        Err(not_measured())
    }

    async fn replace(&self, _: Request<v1::ReplaceRequest>) -> Result<Response<v1::ReplaceResponse>, Status> {
        Err(not_measured())
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        Err(not_measured())
    }

    async fn tokenize_stream(
        &self,
        messages: Request<Streaming<v1::TokenizeRequest>>,
    ) -> Result<Response<Self::TokenizeStreamStream>, Status> {
        let answer = |message: Result<v1::TokenizeRequest, Status>| {
            let response = v1::tokenize_stream_response::Result::Response(tokenized(&message?));
            Ok(v1::TokenizeStreamResponse { result: Some(response) })
        };
        Ok(Response::new(Box::pin(messages.into_inner().map(answer))))
    }

    async fn detokenize_stream(
        &self,
        messages: Request<Streaming<v1::DetokenizeRequest>>,
    ) -> Result<Response<Self::DetokenizeStreamStream>, Status> {
        let answer = |message: Result<v1::DetokenizeRequest, Status>| {
            let response = v1::detokenize_stream_response::Result::Response(detokenized(&message?));
            Ok(v1::DetokenizeStreamResponse { result: Some(response) })
        };
        Ok(Response::new(Box::pin(messages.into_inner().map(answer))))
    }
}

fn tokenized(request: &v1::TokenizeRequest) -> v1::TokenizeResponse {
    v1::TokenizeResponse { tokens: request.items.iter().map(|_| TOKEN.to_owned()).collect() }
}

fn detokenized(request: &v1::DetokenizeRequest) -> v1::DetokenizeResponse {
    let result = |_: &_| v1::DetokenizeResult {
        field: FIELDS[0].field.to_owned(),
        result: Some(v1::detokenize_result::Result::Value(Bytes::from_static(VALUE))),
    };
    v1::DetokenizeResponse { results: request.items.iter().map(result).collect() }
}

fn not_measured() -> Status {
    Status::unimplemented("the echo answers Tokenize, Detokenize and Match")
}
