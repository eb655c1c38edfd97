//! What anybody may read over HTTPS of the logs that are published (C2SP tlog-tiles): a log's checkpoint and the hash tiles
//! of its tree. Everything else is not found.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode, Uri};
use strongroom_storage::Store;
use strongroom_vault::{Error, TileId};
use tokio::net::TcpListener;

use crate::door::Door;

/// What is published, and where.
pub struct Published {
    /// The socket, already listening.
    pub listener: TcpListener,
    /// Whose logs: the tenant's name by the name that stands in the path.
    pub logs: Logs,
}

/// Tenants by the names that their logs have in paths.
pub type Logs = BTreeMap<String, String>;

/// What somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// The checkpoint of a tenant's log.
    Head(String),
    /// So many hashes of a tile of it.
    Tile(String, TileId, usize),
}

/// What is found.
pub(crate) enum Found {
    /// A checkpoint.
    Head(String),
    /// Hashes.
    Tile(Bytes),
}

/// Looks for what is asked.
pub(crate) type Finder = Arc<dyn Fn(Asked) -> BoxFuture<'static, Result<Found, StatusCode>> + Send + Sync>;

/// What a request asks for, or why it gets nothing.
pub(crate) fn asked(logs: &Logs, method: &Method, uri: &Uri) -> Result<Asked, StatusCode> {
    if method != Method::GET && method != Method::HEAD {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    match uri.query() {
        None => by_path(logs, uri.path()).ok_or(StatusCode::NOT_FOUND),
        Some(_) => Err(StatusCode::NOT_FOUND),
    }
}

/// Nothing is decoded or resolved: what is not a path letter by letter is none.
fn by_path(logs: &Logs, path: &str) -> Option<Asked> {
    let (log, what) = path.strip_prefix('/')?.split_once('/')?;
    let tenant = logs.get(log)?.clone();
    if what == "checkpoint" {
        return Some(Asked::Head(tenant));
    }
    let (id, width) = TileId::from_path(what)?;
    Some(Asked::Tile(tenant, id, width))
}

/// Looks in the vault behind a door.
pub(crate) fn finder<S: Store>(door: Arc<Door<S>>) -> Finder {
    Arc::new(move |asked| {
        let door = Arc::clone(&door);
        Box::pin(async move {
            let vault = door.vault().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
            let found = match asked {
                Asked::Head(tenant) => vault.published_head(&tenant).await.map(|head| head.map(Found::Head)),
                Asked::Tile(tenant, id, width) => {
                    vault.published_tile(&tenant, id, width).await.map(|tile| tile.map(Found::Tile))
                }
            };
            found.map_err(|error| unable(&error))?.ok_or(StatusCode::NOT_FOUND)
        })
    })
}

/// The vault has logged it where that is of use: strangers must not fill its log.
fn unable(error: &Error) -> StatusCode {
    match error {
        Error::DataLoss(_) | Error::LeafChanged(_) | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The answer to somebody. It repeats nothing of what was asked.
pub(crate) fn answer(found: Result<Found, StatusCode>) -> Response<Full<Bytes>> {
    let (status, kind, keep, body) = match found {
        Ok(Found::Head(note)) => (StatusCode::OK, TEXT, "no-cache", Bytes::from(note)),
        // The width stands in the path, so what is there never changes.
        Ok(Found::Tile(hashes)) => (StatusCode::OK, "application/octet-stream", FOR_EVER, hashes),
        // A tile that is not there yet will be.
        Err(status) => (status, TEXT, "no-store", Bytes::from_static(reason(status).as_bytes())),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let mut header = |name: HeaderName, value: &'static str| {
        drop(response.headers_mut().insert(name, HeaderValue::from_static(value)))
    };
    header(CONTENT_TYPE, kind);
    header(CACHE_CONTROL, keep);
    header(X_CONTENT_TYPE_OPTIONS, "nosniff");
    if status == StatusCode::METHOD_NOT_ALLOWED {
        header(ALLOW, "GET, HEAD");
    }
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not found\n",
        StatusCode::METHOD_NOT_ALLOWED => "only GET and HEAD\n",
        StatusCode::SERVICE_UNAVAILABLE => "not now: try again later\n",
        _ => "something is wrong here\n",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn logs() -> Logs {
        [("lending", "lending"), ("l1", "retail")].map(|(name, tenant)| (name.to_owned(), tenant.to_owned())).into()
    }

    fn asks(method: Method, target: &str) -> Result<Asked, StatusCode> {
        asked(&logs(), &method, &target.parse().unwrap())
    }

    #[test]
    fn a_checkpoint_and_tiles_are_found_under_the_name_that_a_log_has_in_paths() {
        let tile =
            |tenant: &str, level, index, width| Ok(Asked::Tile(tenant.to_owned(), TileId { level, index }, width));
        assert_eq!(asks(Method::GET, "/lending/checkpoint"), Ok(Asked::Head("lending".to_owned())));
        assert_eq!(asks(Method::HEAD, "/l1/checkpoint"), Ok(Asked::Head("retail".to_owned())));
        assert_eq!(asks(Method::GET, "https://vault.example:7444/l1/checkpoint"), Ok(Asked::Head("retail".to_owned())));
        assert_eq!(asks(Method::GET, "/lending/tile/0/000"), tile("lending", 0, 0, 256));
        assert_eq!(asks(Method::GET, "/l1/tile/0/x001/x234/067"), tile("retail", 0, 1_234_067, 256));
        assert_eq!(asks(Method::HEAD, "/l1/tile/1/067.p/8"), tile("retail", 1, 67, 8));
    }

    #[test]
    fn everything_else_is_not_found() {
        for target in [
            "/",
            "/lending",
            "/lending/",
            "/retail/checkpoint",
            "/system/checkpoint",
            "//checkpoint",
            "//lending/checkpoint",
            "/Lending/checkpoint",
            "/lending/checkpoint/",
            "/lending/checkpoint?",
            "/lending/checkpoint?log=retail",
            "/lending/Checkpoint",
            "/lending//checkpoint",
            "/lending/./checkpoint",
            "/retail/../lending/checkpoint",
            "/lending/%63heckpoint",
            "/lending%2fcheckpoint",
            "/lending/key",
            "/lending/tile",
            "/lending/tile/",
            "/lending/tile/0",
            "/lending/tile/0/",
            "/lending/tile/0/0",
            "/lending/tile/0/000?x",
            "/lending/tile/0/000/",
            "/lending/tile/64/000",
            "/lending/tile/0/000.p/0",
            "/lending/tile/0/000.p/256",
            "/lending/tile/entries/000",
            "/lending/tile/entries/000.p/7",
            "/lending/tile/data/000",
            "/lending/tile/8/0/000",
            "/lending/tile/0/../../../etc/passwd",
            "/lending/tile/0/%2e%2e/000",
            "*",
        ] {
            assert_eq!(asks(Method::GET, target), Err(StatusCode::NOT_FOUND), "{target}");
        }
    }

    #[test]
    fn other_methods_are_refused_whatever_they_ask_for() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE, Method::PATCH] {
            for target in ["/lending/checkpoint", "/lending/tile/0/000", "/nothing"] {
                assert_eq!(asks(method.clone(), target), Err(StatusCode::METHOD_NOT_ALLOWED), "{method} {target}");
            }
        }
        assert_eq!(answer(Err(StatusCode::METHOD_NOT_ALLOWED)).headers()[ALLOW], "GET, HEAD");
    }

    #[test]
    fn what_never_changes_may_be_kept_and_nothing_else() {
        let kept = |found| answer(found).headers()[CACHE_CONTROL].to_str().unwrap().to_owned();
        assert!(kept(Ok(Found::Tile(Bytes::from_static(&[7; 32])))).contains("immutable"));
        assert_eq!(kept(Ok(Found::Head("origin\n".to_owned()))), "no-cache");
        for status in [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE, StatusCode::INTERNAL_SERVER_ERROR] {
            assert_eq!(kept(Err(status)), "no-store");
        }
    }

    proptest! {
        /// Any path at all, and what is almost one.
        #[test]
        fn no_path_leads_to_a_log_that_is_not_published_or_to_another_spelling(
            any in "/.*",
            close in "/(lending|l1|retail|\\.\\.)/(checkpoint|tile/[0-9]{1,2}/(x[0-9]{3}/){0,3}[0-9x./]{1,5}(\\.p/[0-9]{1,3})?)",
        ) {
            for path in [any, close] {
                match by_path(&logs(), &path) {
                    None => {}
                    Some(Asked::Head(tenant)) => {
                        let name = if tenant == "retail" { "l1" } else { "lending" };
                        prop_assert_eq!(path, format!("/{name}/checkpoint"));
                    }
                    Some(Asked::Tile(tenant, id, width)) => {
                        let name = if tenant == "retail" { "l1" } else { "lending" };
                        prop_assert_eq!(path, format!("/{name}/{}", id.path(width)));
                    }
                }
            }
        }
    }
}
