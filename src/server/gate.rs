//! The gate that every call passes: who is it, is there room, and has it answered in time.
//!
//! All of this is found before a byte of the request's message is read. grpc.health.v1 and reflection stay outside:
//! they need a connection, but neither a principal nor room.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::errors::{self, Refusal};
use crate::identity::{self, DirectorySource, Peer};
use crate::share::{Bounds, Place, Shares, Work};
use crate::{answer, bulk, intake};

/// The package whose services are guarded.
const PACKAGE: &str = "/strongroom.v1.";

/// Methods that take and answer a stream.
const STREAMS: [&str; 2] = ["/strongroom.v1.Vault/TokenizeStream", "/strongroom.v1.Vault/DetokenizeStream"];

/// Methods that answer for long: with the ledger, with how far a job has come, with all values of a data subject, with who
/// read them, and with what is counted over all subjects.
const LONG: [&str; 6] = [
    "/strongroom.v1.Audit/Export",
    "/strongroom.v1.Keys/WatchJob",
    "/strongroom.v1.Subjects/ExportSubject",
    "/strongroom.v1.Subjects/ProcessingReport",
    "/strongroom.v1.Subjects/RetentionReport",
    "/strongroom.v1.Subjects/SubjectReport",
];

/// The method that answers with the ledger as it grows, until its reader goes.
const TAIL: &str = "/strongroom.v1.Audit/Tail";

/// Methods that a sealed vault answers.
const SEALED: [&str; 3] =
    ["/strongroom.v1.System/Status", "/strongroom.v1.System/Seal", "/strongroom.v1.System/Unseal"];

/// How long a call may take, from its headers to its answer, whatever the caller's own deadline.
const CALL: Duration = Duration::from_secs(60);

/// How long nothing of a call's answer, or of an export, may be taken. A caller of bulk streams may be at work itself.
const TAKING: Duration = Duration::from_secs(60);

/// How long a call that found no room waits for that answer. Meanwhile it counts among the calls that its connection may
/// have, so that a crowd that sends more than can be done is slowed down by its own connections, and the processors are
/// left to what can be done: to refuse a call costs a third of what answering it does.
const HELD: Duration = Duration::from_millis(100);

/// Refusals that wait so. What goes beyond is told at once.
const HELD_AT_ONCE: usize = 1_024;

/// Who comes in, and what may be at work at once.
#[derive(Clone)]
pub(crate) struct Gate {
    /// What a path leads to; nothing for what is not guarded.
    work: fn(&str) -> Option<Work>,
    directory: DirectorySource,
    shares: Arc<Shares>,
    held: Arc<Semaphore>,
}

/// What a path of gRPC leads to.
fn work(path: &str) -> Option<Work> {
    if !path.starts_with(PACKAGE) {
        None
    } else if STREAMS.contains(&path) {
        Some(Work::Stream)
    } else if LONG.contains(&path) {
        Some(Work::Export)
    } else if path == TAIL {
        Some(Work::Tail)
    } else {
        Some(Work::Call)
    }
}

impl Gate {
    /// A gate that lets this much in at once.
    pub fn new(directory: DirectorySource, bounds: Bounds) -> Self {
        let held = Arc::new(Semaphore::new(HELD_AT_ONCE));
        Self { work, directory, shares: Arc::new(Shares::new(bounds)), held }
    }

    /// The same gate for what is not gRPC: every path leads to a call.
    pub fn to_calls(&self) -> Self {
        Self { work: |_| Some(Work::Call), ..self.clone() }
    }

    /// Tells a refusal: that there is no room after a while, any other at once.
    fn refuse(&self, status: Status) -> impl Future<Output = Response<Body>> + Send + 'static {
        let no_room = status.code() == Code::Unavailable;
        let wait = no_room.then(|| Arc::clone(&self.held).try_acquire_owned().ok()).flatten();
        async move {
            if let Some(_waiting) = wait {
                tokio::time::sleep(HELD).await;
            }
            status.into_http()
        }
    }

    /// Lets a request in, or says why not.
    fn admit(&self, work: Work, request: &Request<Body>) -> Result<(Place, Peer), Status> {
        let peer = request.extensions().get::<Peer>().ok_or_else(no_peer)?;
        let place = match (self.directory)() {
            Some(directory) => {
                let caller = peer.caller(&directory, identity::now())?;
                self.shares.place(&caller.principal, work)?
            }
            None if SEALED.contains(&request.uri().path()) => self.shares.place(&peer.named(identity::now())?, work)?,
            None => return Err(errors::status(strongroom_vault::Error::Sealed)),
        };
        Ok((place, peer.clone()))
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(work) = (self.gate.work)(request.uri().path()) else {
            return Box::pin(self.inner.call(request));
        };
        let (place, peer) = match self.gate.admit(work, &request) {
            Ok(admitted) => admitted,
            Err(status) => {
                let told = self.gate.refuse(status);
                return Box::pin(async move { Ok(told.await) });
            }
        };
        let (load, arrival, taking) = match work {
            Work::Call => (Some(place.load()), Some(intake::ARRIVAL), TAKING),
            Work::Export | Work::Tail => (None, Some(intake::ARRIVAL), TAKING),
            // The stream itself sees to what it is brought.
            Work::Stream => (None, None, bulk::IDLE),
        };
        let (mut head, body) = request.into_parts();
        if let Some(load) = &load {
            head.extensions.insert(load.clone());
        }
        let body = intake::guarded(body, load.clone(), arrival);
        let answer = self.inner.call(Request::from_parts(head, body));
        Box::pin(async move {
            match tokio::time::timeout(CALL, answer).await {
                Ok(Ok(response)) => Ok(mended(response).map(|body| answer::keeping(body, place, load, &peer, taking))),
                Err(_) => Ok(too_slow().into_http()),
            }
        })
    }
}

/// Gives a refusal that the transport made by itself the form of ours.
fn mended(response: Response<Body>) -> Response<Body> {
    // A service answers an unknown method with a header and nothing else.
    let told = || Status::from_header_map(response.headers());
    match response.extensions().get::<Status>().cloned().or_else(told) {
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => errors::mended(status).into_http(),
        _ => response,
    }
}

fn too_slow() -> Status {
    let message = format!(
        "the call took more than {} s; whether anything was stored is unknown: a retry under the same \
         idempotency key is safe, a retry without one may store twice",
        CALL.as_secs()
    );
    Refusal::new(Code::DeadlineExceeded, "TOO_SLOW", message).into()
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, poll_fn, ready};

    use tonic::codegen::Body as _;
    use tonic::service::AxumBody;
    use tonic_types::StatusExt;

    use super::*;
    use crate::testing::{Authority, directory};

    const APP: &str = "spiffe://bank.example/tenant/retail/app/loan-core";
    const TOKENIZE: &str = "/strongroom.v1.Vault/Tokenize";
    const STREAM: &str = STREAMS[0];
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
        Gate::new(Arc::new(move || Some(Arc::clone(&directory))), Bounds { calls, streams, bytes: 1 << 20 })
    }

    fn request(path: &str, uri: &str) -> Request<Body> {
        let peer = Peer::alone(Authority::new().client(&[uri]).certificate.der(), "127.0.0.1:5".to_owned());
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

    #[tokio::test(start_paused = true)]
    async fn without_room_a_call_waits_a_moment_for_its_refusal_and_any_other_is_told_at_once() {
        let gate = gate(0, 0);
        let begun = tokio::time::Instant::now();
        assert_eq!(reason(&gate, fine, request(TOKENIZE, APP)).await.as_deref(), Some("OVERLOADED"));
        assert!((HELD..HELD * 2).contains(&begun.elapsed()));
        let begun = tokio::time::Instant::now();
        assert!(reason(&gate, fine, request(TOKENIZE, "https://bank.example")).await.is_some());
        let _full = gate.held.clone().try_acquire_many_owned(HELD_AT_ONCE as u32).unwrap();
        assert_eq!(reason(&gate, fine, request(TOKENIZE, APP)).await.as_deref(), Some("OVERLOADED"));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_a_call_may_be_tried_again() {
        let mut full = gate(0, 0).layer(Answers(fine));
        for path in [TOKENIZE, STREAM] {
            let response = full.call(request(path, APP)).await.unwrap();
            let status = response.extensions().get::<Status>().unwrap();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.get_details_retry_info().is_some());
        }
    }

    #[tokio::test]
    async fn calls_and_streams_have_rooms_of_their_own() {
        assert_eq!(reason(&gate(1, 0), fine, request(STREAM, APP)).await.as_deref(), Some("OVERLOADED"));
        assert_eq!(reason(&gate(0, 1), fine, request(STREAM, APP)).await, None);
        assert_eq!(reason(&gate(0, 0), fine, request(LONG[0], APP)).await, None);
        assert_eq!(reason(&gate(0, 0), fine, request(TAIL, APP)).await, None);
    }

    #[tokio::test]
    async fn a_ledger_that_is_followed_for_long_leaves_the_room_of_calls_as_it_was() {
        let gate = gate(4, 0);
        let size = 3 << 20;
        let endless = || Response::new(Body::new(AxumBody::from(vec![0; 3 << 20])));
        let mut tail = gate.layer(Answers(endless)).call(request(TAIL, APP)).await.unwrap().into_body();
        let mut sent = 0;
        while sent < size {
            let frame = poll_fn(|context| Pin::new(&mut tail).poll_frame(context)).await.unwrap().unwrap();
            sent += frame.into_data().unwrap().len();
        }
        // Three times the room went by, and all of its share is left to the principal itself.
        let caller = request(TOKENIZE, APP).extensions().get::<Peer>().unwrap().clone();
        let known = caller.caller(&(gate.directory)().unwrap(), identity::now()).unwrap().principal;
        let place = gate.shares.place(&known, Work::Call).unwrap();
        assert!(place.load().take(1 << 18).is_ok());
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
    async fn an_answer_that_is_not_taken_keeps_its_place() {
        let gate = gate(1, 1);
        let long = || Response::new(Body::new(AxumBody::from(vec![0; 100])));
        for path in [TOKENIZE, STREAM] {
            let answer = gate.layer(Answers(long)).call(request(path, APP)).await.unwrap();
            assert_eq!(reason(&gate, fine, request(path, APP)).await.as_deref(), Some("OVERLOADED"));
            drop(answer);
            assert_eq!(reason(&gate, fine, request(path, APP)).await, None);
        }
    }

    #[tokio::test]
    async fn a_principal_that_only_opens_calls_keeps_nobody_else_out() {
        const OTHER: &str = "spiffe://bank.example/tenant/retail/app/other";
        let gate = gate(4, 4);
        for path in [TOKENIZE, STREAM] {
            let _idle = gate.layer(Answers(fine)).call(request(path, APP));
            assert_eq!(reason(&gate, fine, request(path, APP)).await.as_deref(), Some("OVERLOADED"));
            assert_eq!(reason(&gate, fine, request(path, OTHER)).await, None);
        }
    }

    #[tokio::test]
    async fn an_unknown_method_is_told_with_a_reason() {
        let unknown = || Status::unimplemented("").into_http();
        assert_eq!(reason(&gate(1, 1), unknown, request(TOKENIZE, APP)).await.as_deref(), Some("METHOD_UNKNOWN"));
        let only_a_header = || Response::builder().header("grpc-status", "12").body(Body::empty()).unwrap();
        assert_eq!(reason(&gate(1, 1), only_a_header, request(TOKENIZE, APP)).await.as_deref(), Some("METHOD_UNKNOWN"));
    }
}
