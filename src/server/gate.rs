//! The gate that every call passes: who is it, is there room, and has it answered in time.
//!
//! All of this is found before a byte of the request's message is read. grpc.health.v1 and reflection stay outside:
//! they need a connection, but neither a principal nor room.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::errors::{self, Refusal};
use crate::identity::{self, DirectorySource, Peer};
use crate::intake::{self, Load};

/// The package whose services are guarded.
const PACKAGE: &str = "/strongroom.v1.";

/// Methods that answer with a stream.
const STREAMS: [&str; 3] =
    ["/strongroom.v1.Vault/TokenizeStream", "/strongroom.v1.Vault/DetokenizeStream", "/strongroom.v1.Audit/Export"];

/// How long a call may take, from its headers to its answer, whatever the caller's own deadline.
const CALL: Duration = Duration::from_secs(60);

/// What may be at work at once.
#[derive(Clone)]
pub(crate) struct Gate {
    directory: DirectorySource,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// A stream's place among those at work. Whoever answers the stream keeps it until the end.
#[derive(Clone)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held for its drop")] Arc<OwnedSemaphorePermit>);

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Call,
    Stream,
}

impl Kind {
    fn of(path: &str) -> Self {
        if !path.starts_with(PACKAGE) {
            Self::Open
        } else if STREAMS.contains(&path) {
            Self::Stream
        } else {
            Self::Call
        }
    }
}

impl Gate {
    /// A gate that lets this many calls and streams in at once, and calls with this many bytes together.
    pub fn new(directory: DirectorySource, calls: usize, streams: usize, bytes: usize) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { directory, calls: semaphore(calls), streams: semaphore(streams), bytes: semaphore(bytes) }
    }

    /// Lets a request in, or says why not.
    fn admit(&self, kind: Kind, request: &Request<Body>) -> Result<Slot, Status> {
        let peer = request.extensions().get::<Peer>().ok_or_else(no_peer)?;
        peer.caller(&(self.directory)(), identity::now())?;
        let places = if kind == Kind::Stream { &self.streams } else { &self.calls };
        let place = Arc::clone(places).try_acquire_owned().map_err(|_| {
            let message = "too many requests are at work; nothing was stored: try again after a moment";
            Status::from(Refusal::unavailable("OVERLOADED", message))
        })?;
        Ok(Slot(Arc::new(place)))
    }
}

/// The answer to a request that came without a connection's peer; no such can come over the network.
pub(crate) fn no_peer() -> Status {
    Refusal::new(Code::Internal, "INTERNAL", "the connection has no peer").into()
}

impl<R> Layer<R> for Gate {
    type Service = Gated<R>;

    fn layer(&self, inner: R) -> Gated<R> {
        Gated { gate: self.clone(), inner }
    }
}

/// Services behind the gate.
#[derive(Clone)]
pub(crate) struct Gated<R> {
    gate: Gate,
    inner: R,
}

impl<R> Service<Request<Body>> for Gated<R>
where
    R: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    R::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let kind = Kind::of(request.uri().path());
        if kind == Kind::Open {
            return Box::pin(self.inner.call(request));
        }
        let slot = match self.gate.admit(kind, &request) {
            Ok(slot) => slot,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let load = match kind {
            Kind::Stream => {
                request.extensions_mut().insert(slot.clone());
                None
            }
            _ => Some(Load::on(&self.gate.bytes)),
        };
        let (head, body) = request.into_parts();
        let body = intake::guarded(body, load.clone());
        let answer = self.inner.call(Request::from_parts(head, body));
        Box::pin(async move {
            let _occupied = (slot, load);
            match tokio::time::timeout(CALL, answer).await {
                Ok(Ok(response)) => Ok(mended(response)),
                Err(_) => Ok(too_slow().into_http()),
            }
        })
    }
}

/// Gives a refusal that the transport made by itself the form of ours.
fn mended(response: Response<Body>) -> Response<Body> {
    match response.extensions().get::<Status>() {
        Some(status) if status.details().is_empty() => errors::mended(status.clone()).into_http(),
        _ => response,
    }
}

fn too_slow() -> Status {
    let message = format!(
        "the call took more than {} s; whether anything was stored is unknown: retry with the idempotency key",
        CALL.as_secs()
    );
    Refusal::new(Code::DeadlineExceeded, "TOO_SLOW", message).into()
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use tonic_types::StatusExt;

    use super::*;
    use crate::testing::{Authority, directory};

    const APP: &str = "spiffe://bank.example/tenant/retail/app/loan-core";
    const TOKENIZE: &str = "/strongroom.v1.Vault/Tokenize";
    const EXPORT: &str = "/strongroom.v1.Audit/Export";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";

    /// Answers every call with the status that it was made with.
    #[derive(Clone)]
    struct Answers(fn() -> Response<Body>);

    impl Service<Request<Body>> for Answers {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok((self.0)()))
        }
    }

    fn gate(calls: usize, streams: usize) -> Gate {
        let directory = directory(&[]);
        Gate::new(Arc::new(move || Arc::clone(&directory)), calls, streams, 1 << 20)
    }

    fn request(path: &str, uri: &str) -> Request<Body> {
        let peer = Peer::new(Authority::new().client(&[uri]).certificate.der(), "127.0.0.1:5".to_owned());
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(peer);
        request
    }

    fn fine() -> Response<Body> {
        Response::new(Body::empty())
    }

    async fn reason(gate: &Gate, answers: fn() -> Response<Body>, request: Request<Body>) -> Option<String> {
        let response = gate.layer(Answers(answers)).call(request).await.unwrap();
        Some(response.extensions().get::<Status>()?.get_details_error_info()?.reason)
    }

    #[tokio::test]
    async fn a_principal_passes() {
        assert_eq!(reason(&gate(1, 0), fine, request(TOKENIZE, APP)).await, None);
    }

    #[tokio::test]
    async fn nobody_passes_without_a_principal() {
        let stranger = request(TOKENIZE, "https://bank.example");
        assert_eq!(reason(&gate(1, 1), fine, stranger).await.as_deref(), Some("CERTIFICATE_NOT_ACCEPTED"));
        let tenant = request(TOKENIZE, "spiffe://bank.example/tenant/other/app/x");
        assert_eq!(reason(&gate(1, 1), fine, tenant).await.as_deref(), Some("TENANT_UNKNOWN"));
    }

    #[tokio::test]
    async fn health_needs_neither_principal_nor_room() {
        assert_eq!(reason(&gate(0, 0), fine, request(HEALTH, "https://bank.example")).await, None);
    }

    #[tokio::test]
    async fn without_room_a_call_may_be_tried_again() {
        let mut full = gate(0, 0).layer(Answers(fine));
        for path in [TOKENIZE, EXPORT] {
            let response = full.call(request(path, APP)).await.unwrap();
            let status = response.extensions().get::<Status>().unwrap();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.get_details_retry_info().is_some());
        }
    }

    #[tokio::test]
    async fn calls_and_streams_have_rooms_of_their_own() {
        assert_eq!(reason(&gate(1, 0), fine, request(EXPORT, APP)).await.as_deref(), Some("OVERLOADED"));
        assert_eq!(reason(&gate(0, 1), fine, request(EXPORT, APP)).await, None);
    }

    #[tokio::test]
    async fn a_call_gives_its_place_back() {
        let gate = gate(1, 1);
        for _ in 0..3 {
            assert_eq!(reason(&gate, fine, request(TOKENIZE, APP)).await, None);
        }
        let held = gate.layer(Answers(fine)).call(request(TOKENIZE, APP));
        assert_eq!(reason(&gate, fine, request(TOKENIZE, APP)).await.as_deref(), Some("OVERLOADED"));
        drop(held);
        assert_eq!(reason(&gate, fine, request(TOKENIZE, APP)).await, None);
    }

    #[tokio::test]
    async fn an_unknown_method_is_told_with_a_reason() {
        let unknown = || Status::unimplemented("").into_http();
        assert_eq!(reason(&gate(1, 1), unknown, request(TOKENIZE, APP)).await.as_deref(), Some("METHOD_UNKNOWN"));
    }
}
