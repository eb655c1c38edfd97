//! Calls with bytes in the place of messages: what no honest client sends, and services that have no client here.

use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Messages as they come.
struct Bytewise;

impl Codec for Bytewise {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytewise {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(into, &message);
        Ok(())
    }
}

impl Decoder for Bytewise {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut message);
        Ok(Some(message))
    }
}

/// One message, one answer.
pub async fn call(channel: &Channel, path: &'static str, message: &[u8]) -> Result<Vec<u8>, Status> {
    call_with(channel, path, Request::new(message.to_vec())).await
}

/// The same, with headers.
pub async fn call_with(channel: &Channel, path: &'static str, request: Request<Vec<u8>>) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc.unary(request, PathAndQuery::from_static(path), Bytewise).await?.into_inner())
}

/// Messages, and their answers until the stream ends; then how it ended.
pub async fn stream(channel: &Channel, path: &'static str, messages: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Option<Status>) {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let messages = Request::new(tokio_stream::iter(messages));
    let mut answers = Vec::new();
    let mut stream = match grpc.streaming(messages, PathAndQuery::from_static(path), Bytewise).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (answers, Some(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(answer)) => answers.push(answer),
            Ok(None) => return (answers, None),
            Err(status) => return (answers, Some(status)),
        }
    }
}

/// A protobuf field of bytes, or of a string or a message: tag, length, content.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(number < 16 && content.len() < 128, "one byte each");
    [&[number << 3 | 2, content.len() as u8], content].concat()
}
