//! The ledger over plain HTTPS (C2SP tlog-tiles), for callers: a log's checkpoint, the hash tiles of its tree, and its leaves in
//! bundles. Everything else is not found.
//!
//! Whoever asks is a principal, as in a call, and each request takes the road: policy decides, and a leaf records what was read.
//! So nothing of it may be kept by anybody on the way.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use strongroom_storage::Store;
use strongroom_vault::{ReadBundle, SYSTEM, TileId, Wanted, is_tenant_name};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::Service;

use crate::edge::Edge;
use crate::errors::{self, Refusal};

/// What a request leads to.
type Read = dyn Fn(Request<Body>) -> BoxFuture<'static, Result<Found, Status>> + Send + Sync;

/// The service, which refuses as a service of gRPC does: see [`told`].
#[derive(Clone)]
pub(crate) struct Entries(Arc<Read>);

/// What somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    /// The checkpoint.
    Head,
    /// So many hashes of a tile.
    Tile(TileId, usize),
    /// So many of the leaves under a tile.
    Bundle(TileId, usize),
}

/// What is found.
enum Found {
    /// A checkpoint.
    Head(String),
    /// Hashes, or leaves.
    Bytes(Bytes),
}

impl Entries {
    /// Reads in the vault behind an edge.
    pub fn new<S: Store>(edge: Edge<S>) -> Self {
        Self(Arc::new(move |request| {
            let edge = edge.clone();
            Box::pin(async move { read(&edge, request).await })
        }))
    }
}

impl Service<Request<Body>> for Entries {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let found = (self.0)(request);
        Box::pin(async move { Ok(found.await.map_or_else(Status::into_http, page)) })
    }
}

async fn read<S: Store>(edge: &Edge<S>, request: Request<Body>) -> Result<Found, Status> {
    let (log, asked) = asked(request.method(), request.uri())?;
    let caller = edge.reader(&tonic::Request::from_http(request))?;
    let vault = edge.vault()?;
    let found = match asked {
        Asked::Head => {
            let head = vault.checkpoint_wanted(&caller, &log, Wanted::Published).await;
            head.map(|checkpoint| Found::Head(checkpoint.note))
        }
        Asked::Tile(id, width) => vault.read_tile(&caller, &log, id, width).await.map(Found::Bytes),
        Asked::Bundle(TileId { index, .. }, width) => {
            vault.read_bundle(&caller, &ReadBundle { log, index, width }).await.map(Found::Bytes)
        }
    };
    found.map_err(errors::status)
}

/// Whose log a request is about, and what it asks for.
fn asked(method: &Method, uri: &Uri) -> Result<(String, Asked), Status> {
    if method != Method::GET {
        return Err(Refusal::new(Code::Unimplemented, "METHOD_UNKNOWN", "only GET").into());
    }
    let found = if uri.query().is_none() { by_path(uri.path()) } else { None };
    found.ok_or_else(|| {
        let message = "there are /LOG/checkpoint, /LOG/tile/L/N and /LOG/tile/entries/N as C2SP tlog-tiles has them, with N in \
                       groups of three digits (x001/234) and .p/W behind what is not complete; LOG is the name of your tenant";
        Refusal::new(Code::NotFound, "PATH_UNKNOWN", message).into()
    })
}

/// Nothing is decoded or resolved: what is not a path letter by letter is none.
fn by_path(path: &str) -> Option<(String, Asked)> {
    let (log, what) = path.strip_prefix('/')?.split_once('/')?;
    if log != SYSTEM && !is_tenant_name(log) {
        return None;
    }
    let bundle = || TileId::from_entries_path(what).map(|(id, width)| Asked::Bundle(id, width));
    let tile = || TileId::from_path(what).map(|(id, width)| Asked::Tile(id, width));
    let asked = if what == "checkpoint" { Some(Asked::Head) } else { bundle().or_else(tile) };
    Some((log.to_owned(), asked?))
}

fn page(found: Found) -> Response<Body> {
    match found {
        Found::Head(note) => with(StatusCode::OK, TEXT, note.into()),
        Found::Bytes(bytes) => with(StatusCode::OK, "application/octet-stream", bytes),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn with(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let length = body.len();
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The same answer, with what was refused in the form of gRPC told as plain HTTP has it: a status, and a line that says the
/// stable word and what would be right.
pub(crate) fn told(answer: Response<Body>) -> Response<Body> {
    let Some(refused) = answer.extensions().get::<Status>() else { return answer };
    let reason = refused.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let line = format!("{reason}: {}\n", refused.message());
    let status = status(refused.code());
    let mut response = with(status, TEXT, line.into());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    if let Some(delay) = refused.get_details_retry_info().and_then(|info| info.retry_delay) {
        response.headers_mut().insert(RETRY_AFTER, delay.as_secs().max(1).into());
    }
    response
}

/// Whoever is not known gets no challenge: there is nothing to be shown but another certificate.
fn status(code: Code) -> StatusCode {
    match code {
        Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => StatusCode::FORBIDDEN,
        // All that a request says is where it leads.
        Code::NotFound | Code::InvalidArgument => StatusCode::NOT_FOUND,
        Code::Unimplemented => StatusCode::METHOD_NOT_ALLOWED,
        Code::Unavailable | Code::Aborted | Code::ResourceExhausted => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use strongroom_vault::Error;

    use super::*;

    fn asks(method: Method, target: &str) -> Result<(String, Asked), StatusCode> {
        asked(&method, &target.parse().unwrap()).map_err(|refused| status(refused.code()))
    }

    #[test]
    fn a_checkpoint_tiles_and_bundles_are_found_under_the_name_of_the_tenant() {
        let id = |level, index| TileId { level, index };
        for (target, wanted) in [
            ("/lending/checkpoint", Asked::Head),
            ("https://vault.example:7445/lending/checkpoint", Asked::Head),
            ("/lending/tile/0/x001/x234/067", Asked::Tile(id(0, 1_234_067), 256)),
            ("/lending/tile/1/067.p/8", Asked::Tile(id(1, 67), 8)),
            ("/lending/tile/entries/x001/x234/067", Asked::Bundle(id(0, 1_234_067), 256)),
            ("/lending/tile/entries/273.p/112", Asked::Bundle(id(0, 273), 112)),
        ] {
            assert_eq!(asks(Method::GET, target), Ok(("lending".to_owned(), wanted)), "{target}");
        }
        assert_eq!(asks(Method::GET, "/system/checkpoint"), Ok(("system".to_owned(), Asked::Head)));
    }

    #[test]
    fn everything_else_is_not_found() {
        for target in [
            "/",
            "/lending",
            "/lending/",
            "/checkpoint",
            "//checkpoint",
            "//lending/checkpoint",
            "/Lending/checkpoint",
            "/lending/checkpoint/",
            "/lending/checkpoint?",
            "/lending/checkpoint?log=retail",
            "/retail/../lending/checkpoint",
            "/lending/%63heckpoint",
            "/lending%2fcheckpoint",
            "/lending/key",
            "/lending/tile/",
            "/lending/tile/entries",
            "/lending/tile/entries/",
            "/lending/tile/entries/0",
            "/lending/tile/entries/0/000",
            "/lending/tile/entries/x000",
            "/lending/tile/entries/000.p/0",
            "/lending/tile/entries/000.p/256",
            "/lending/tile/entries/000.p/-1",
            "/lending/tile/entries/../000",
            "/lending/tile/entries/x999/x999/x999/x999/x999/x999/x999/999",
            "/lending/tile/data/000",
            "/lending/tile/64/000",
            "/strongroom.v1.Audit/GetCheckpoint",
            "/strongroom.v1.System/Status",
            "*",
        ] {
            assert_eq!(asks(Method::GET, target), Err(StatusCode::NOT_FOUND), "{target}");
        }
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            for target in ["/lending/checkpoint", "/lending/tile/entries/000", "/nothing"] {
                assert_eq!(asks(method.clone(), target), Err(StatusCode::METHOD_NOT_ALLOWED), "{method} {target}");
            }
        }
    }

    #[test]
    fn a_refusal_has_a_status_a_word_and_a_sentence_and_nobody_keeps_an_answer() {
        let refused = |error: Error| told(errors::status(error).into_http());
        for (error, expected) in [
            (Error::Denied { action: "export_ledger" }, 403),
            (Error::Suspended, 403),
            (Error::invalid("path", "out_of_range", "the signed head has 7 leaves"), 404),
            (Error::Sealed, 503),
            (Error::Overloaded { retry_after: Duration::from_millis(250) }, 503),
            (Error::LeafChanged(7), 500),
        ] {
            let answer = refused(error.clone());
            assert_eq!(answer.status().as_u16(), expected, "{error}");
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), expected == 503, "{error}");
            assert_eq!(answer.headers()[CONTENT_TYPE], TEXT);
            assert!(answer.extensions().get::<Status>().is_none() && !answer.headers().contains_key("grpc-status"));
        }
        let only_get = asked(&Method::POST, &Uri::from_static("/")).unwrap_err();
        assert_eq!(told(only_get.into_http()).headers()[ALLOW], "GET");
        let found = told(page(Found::Bytes(Bytes::from_static(b"leaf"))));
        assert_eq!(
            (&found.headers()[CACHE_CONTROL], &found.headers()[CONTENT_LENGTH]),
            (&"no-store".parse().unwrap(), &4.into())
        );
    }

    proptest! {
        /// Any path at all, and what is almost one.
        #[test]
        fn no_path_leads_anywhere_by_another_spelling(
            any in "/.*",
            close in "/(lending|system|\\.\\.|)/(checkpoint|tile/(entries|[0-9]{1,2})/(x[0-9]{3}/){0,3}[0-9x./]{1,5}(\\.p/[0-9]{1,3})?)",
        ) {
            for path in [any, close] {
                match by_path(&path) {
                    None => {}
                    Some((log, Asked::Head)) => prop_assert_eq!(path, format!("/{log}/checkpoint")),
                    Some((log, Asked::Tile(id, width))) => prop_assert_eq!(path, format!("/{log}/{}", id.path(width))),
                    Some((log, Asked::Bundle(id, width))) => {
                        prop_assert_eq!(path, format!("/{log}/{}", id.entries_path(width)));
                    }
                }
            }
        }
    }
}
