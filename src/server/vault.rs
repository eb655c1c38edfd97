//! strongroom.v1.Vault: values in, tokens out, and back.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::Stream;
use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{
    Delete, DeleteItem, Detokenize, Error, Lookup, LookupItem, Match, MatchItem, NewValue, NewVersion, ReadItem,
    Released, Replace, Tokenize,
};
use tonic::{Request, Response, Status};

use crate::bulk;
use crate::edge::Edge;
use crate::errors::{problem, status};
use crate::instants;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(crate) struct VaultService<S: Store>(pub Edge<S>);

#[tonic::async_trait]
impl<S: Store> v1::vault_server::Vault for VaultService<S> {
    type TokenizeStreamStream = Answers<v1::TokenizeStreamResponse>;
    type DetokenizeStreamStream = Answers<v1::DetokenizeStreamResponse>;

    async fn tokenize(&self, request: Request<v1::TokenizeRequest>) -> Result<Response<v1::TokenizeResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = tokenize(request.into_inner()).map_err(status)?;
        let (vault, items) = (self.0.vault()?, request.items.len());
        let work = async move { vault.tokenize(&caller, &request).await };
        let tokens = self.0.work(items, work).await?.map_err(status)?;
        Ok(Response::new(v1::TokenizeResponse { tokens }))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = detokenize(request.into_inner());
        let (vault, items) = (self.0.vault()?, request.items.len());
        let work = async move { vault.detokenize(&caller, &request).await };
        let answers = self.0.work(items, work).await?.map_err(status)?;
        Ok(Response::new(detokenized(answers)))
    }

    async fn r#match(&self, request: Request<v1::MatchRequest>) -> Result<Response<v1::MatchResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::MatchRequest { items, purpose } = request.into_inner();
        let items =
            items.into_iter().map(|v1::MatchItem { token, value, subject }| MatchItem { token, value, subject });
        let request = Match { items: items.collect(), purpose };
        let (vault, items) = (self.0.vault()?, request.items.len());
        let work = async move { vault.matches(&caller, &request).await };
        let answers = self.0.work(items, work).await?.map_err(status)?;
        let results = answers.into_iter().map(|answer| {
            let result = match answer {
                Ok(matched) => v1::match_result::Result::Matched(matched),
                Err(error) => v1::match_result::Result::Problem(problem(&error)),
            };
            v1::MatchResult { result: Some(result) }
        });
        Ok(Response::new(v1::MatchResponse { results: results.collect() }))
    }

    async fn lookup(&self, request: Request<v1::LookupRequest>) -> Result<Response<v1::LookupResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::LookupRequest { items, purpose } = request.into_inner();
        let items = items.into_iter().map(|v1::LookupItem { field, value }| LookupItem { field, value });
        let request = Lookup { items: items.collect(), purpose };
        let (vault, items) = (self.0.vault()?, request.items.len());
        let work = async move { vault.lookup(&caller, &request).await };
        let answers = self.0.work(items, work).await?.map_err(status)?;
        let results = answers.into_iter().map(|answer| match answer {
            Ok(found) => v1::LookupResult { tokens: found.tokens, more: found.more, problem: None },
            Err(error) => v1::LookupResult { problem: Some(problem(&error)), ..Default::default() },
        });
        Ok(Response::new(v1::LookupResponse { results: results.collect() }))
    }

    async fn replace(&self, request: Request<v1::ReplaceRequest>) -> Result<Response<v1::ReplaceResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = replace(request.into_inner()).map_err(status)?;
        let (vault, items) = (self.0.vault()?, request.items.len());
        let work = async move { vault.replace(&caller, &request).await };
        let versions = self.0.work(items, work).await?.map_err(status)?;
        Ok(Response::new(v1::ReplaceResponse { versions }))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::DeleteRequest { items, idempotency_key } = request.into_inner();
        let items = items.into_iter().map(|v1::DeleteItem { token, subject }| DeleteItem { token, subject });
        let request = Delete { items: items.collect(), idempotency_key };
        let (vault, items) = (self.0.vault()?, request.items.len());
        let work = async move { vault.delete(&caller, &request).await };
        let answers = self.0.work(items, work).await?.map_err(status)?;
        let results =
            answers.into_iter().map(|answer| v1::DeleteResult { problem: answer.err().as_ref().map(problem) });
        Ok(Response::new(v1::DeleteResponse { results: results.collect() }))
    }

    async fn tokenize_stream(
        &self,
        request: Request<tonic::Streaming<v1::TokenizeRequest>>,
    ) -> Result<Response<Self::TokenizeStreamStream>, Status> {
        use v1::tokenize_stream_response::Result as Outcome;
        let (edge, shown) = (self.0.clone(), self.0.begun(&request)?);
        let stage = edge.stage.clone();
        let answers = bulk::answers(request.into_inner(), stage, edge.workers.clone(), move |message| {
            let (edge, shown) = (edge.clone(), shown.clone());
            async move {
                let caller = edge.again(&shown)?;
                let answer = match tokenize(message) {
                    Ok(request) => edge.vault()?.tokenize(&caller, &request).await,
                    Err(error) => Err(error),
                };
                let result = match answer {
                    Ok(tokens) => Outcome::Response(v1::TokenizeResponse { tokens }),
                    Err(error) => Outcome::Problem(problem(&error)),
                };
                Ok(v1::TokenizeStreamResponse { result: Some(result) })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn detokenize_stream(
        &self,
        request: Request<tonic::Streaming<v1::DetokenizeRequest>>,
    ) -> Result<Response<Self::DetokenizeStreamStream>, Status> {
        use v1::detokenize_stream_response::Result as Outcome;
        let (edge, shown) = (self.0.clone(), self.0.begun(&request)?);
        let stage = edge.stage.clone();
        let answers = bulk::answers(request.into_inner(), stage, edge.workers.clone(), move |message| {
            let (edge, shown) = (edge.clone(), shown.clone());
            async move {
                let caller = edge.again(&shown)?;
                let result = match edge.vault()?.detokenize(&caller, &detokenize(message)).await {
                    Ok(answers) => Outcome::Response(detokenized(answers)),
                    Err(error) => Outcome::Problem(problem(&error)),
                };
                Ok(v1::DetokenizeStreamResponse { result: Some(result) })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn tokenize(request: v1::TokenizeRequest) -> Result<Tokenize, Error> {
    let v1::TokenizeRequest { items, idempotency_key } = request;
    let mut wrong = Vec::new();
    let items = items.into_iter().enumerate().map(|(index, item)| {
        let v1::TokenizeItem { field, value, subject, expire_time, token } = item;
        let expires = instants::from_wire(expire_time.as_ref(), || expire_path(index), &mut wrong);
        NewValue { field, value, subject, expires, token }
    });
    let items = items.collect();
    if wrong.is_empty() { Ok(Tokenize { items, idempotency_key }) } else { Err(Error::Invalid(wrong)) }
}

fn replace(request: v1::ReplaceRequest) -> Result<Replace, Error> {
    let v1::ReplaceRequest { items, idempotency_key } = request;
    let mut wrong = Vec::new();
    let items = items.into_iter().enumerate().map(|(index, item)| {
        let v1::ReplaceItem { token, value, expire_time } = item;
        let expires = instants::from_wire(expire_time.as_ref(), || expire_path(index), &mut wrong);
        NewVersion { token, value, expires }
    });
    let items = items.collect();
    if wrong.is_empty() { Ok(Replace { items, idempotency_key }) } else { Err(Error::Invalid(wrong)) }
}

fn expire_path(index: usize) -> String {
    format!("items[{index}].expire_time")
}

fn detokenize(request: v1::DetokenizeRequest) -> Detokenize {
    let v1::DetokenizeRequest { items, purpose, view } = request;
    let items = items.into_iter().map(|v1::DetokenizeItem { token, view, subject }| ReadItem { token, view, subject });
    Detokenize { items: items.collect(), purpose, view }
}

fn detokenized(answers: Vec<Result<Released, Error>>) -> v1::DetokenizeResponse {
    use v1::detokenize_result::Result as Outcome;
    let results = answers.into_iter().map(|answer| match answer {
        Ok(released) => v1::DetokenizeResult {
            field: released.field.to_string(),
            // The bytes keep the plaintext and drop it when they are sent, so that it is wiped.
            result: Some(Outcome::Value(Bytes::from_owner(released.value))),
        },
        Err(error) => v1::DetokenizeResult { field: String::new(), result: Some(Outcome::Problem(problem(&error))) },
    });
    v1::DetokenizeResponse { results: results.collect() }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn item(expire_time: Option<Timestamp>) -> v1::TokenizeItem {
        v1::TokenizeItem { field: "borrower.name".to_owned(), expire_time, ..Default::default() }
    }

    #[test]
    fn every_bad_expiry_is_named() {
        let bad = Timestamp { seconds: i64::MAX, nanos: 0 };
        let request =
            v1::TokenizeRequest { items: vec![item(Some(bad)), item(None), item(Some(bad))], ..Default::default() };
        let Err(Error::Invalid(wrong)) = tokenize(request) else { panic!("refused") };
        let paths: Vec<&str> = wrong.iter().map(|broken| broken.path.as_str()).collect();
        assert_eq!(paths, ["items[0].expire_time", "items[2].expire_time"]);
    }

    #[test]
    fn a_request_keeps_its_items_and_their_order() {
        let at = Timestamp { seconds: 2, nanos: 3_000 };
        let items = vec![item(Some(at)), v1::TokenizeItem { token: "t".to_owned(), ..item(None) }];
        let request = tokenize(v1::TokenizeRequest { items, idempotency_key: "k".to_owned() }).unwrap();
        assert_eq!(request.idempotency_key, "k");
        assert_eq!(request.items[0].expires, Some(2_000_003));
        assert_eq!((request.items[1].expires, request.items[1].token.as_str()), (None, "t"));
    }

    #[test]
    fn a_refused_item_answers_with_its_problem() {
        let answer = detokenized(vec![Err(Error::NotFound)]);
        let Some(v1::detokenize_result::Result::Problem(problem)) = &answer.results[0].result else {
            panic!("problem")
        };
        assert_eq!((problem.code, problem.reason.as_str()), (5, "NOT_FOUND"));
    }
}
