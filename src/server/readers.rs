//! Connections of callers who read their ledger over plain HTTPS: HTTP/1.1 or HTTP/2, with a client certificate always.
//!
//! They are callers like others: their handshakes are those of calls, they share the seats of all connections, and what they ask
//! passes the same gate. Only their work has one thread of its own, so that whoever reads a whole ledger keeps no call waiting.

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::Service;

use crate::cores::{Cores, Sockets};
use crate::entries::{self, Entries};
use crate::gate::Gated;
use crate::listener::{Connection, Listener};
use crate::stage::{self, Stage};
use crate::{CALL_WINDOW, CONNECTION_WINDOW, HEADERS, KEEPALIVE, KEEPALIVE_ANSWER, ServeError};

/// Requests of one connection at once.
const STREAMS: u32 = 32;
/// Headers of a request.
const MOST_HEADERS: usize = 64;
/// How long a connection of HTTP/1.1 may stand without a request, and how long the headers of one may take.
const IDLE: Duration = Duration::from_secs(60);

/// Serves readers until serving ends.
pub(crate) async fn serve(
    socket: TcpListener,
    listen: impl Fn(Sockets) -> Listener,
    entries: Gated<Entries>,
    stage: watch::Receiver<Stage>,
) -> Result<(), ServeError> {
    let cores = Cores::one("readers")?;
    let (dealer, sockets) = cores.dealer();
    let host = Arc::new(Host { entries, stage: stage.clone() });
    let attending = sockets.into_iter().map(|sockets| {
        let (host, listener) = (Arc::clone(&host), listen(sockets).with_older_http());
        async move {
            host.attend_all(listener).await;
            Ok::<_, ServeError>(())
        }
    });
    let dealing = async {
        tokio::select! {
            () = dealer.deal(socket) => {}
            () = stage::reached(stage, Stage::Closing) => {}
        }
        Ok(())
    };
    let ended = tokio::try_join!(cores.run(attending), dealing).map(drop);
    cores.end().await;
    ended
}

/// What every connection needs.
struct Host {
    entries: Gated<Entries>,
    stage: watch::Receiver<Stage>,
}

impl Host {
    /// Returns when no more can come and the last connection has ended.
    async fn attend_all(self: Arc<Self>, mut listener: Listener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                next = listener.next() => match next {
                    Some(connection) => drop(connections.spawn(Arc::clone(&self).attend(connection))),
                    None => break,
                },
                // A connection that panicked has been reported.
                Some(_) = connections.join_next() => {}
            }
        }
        while connections.join_next().await.is_some() {}
    }

    /// One connection, to its end.
    async fn attend(self: Arc<Self>, connection: Connection) {
        let (peer, is_http2) = (connection.connect_info(), connection.is_http2());
        let entries = self.entries.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            let answer = entries.clone().call(request);
            async move { answer.await.map(entries::told) }
        });
        let http = Builder::new(TokioExecutor::new());
        let mut http = if is_http2 { http.http2_only() } else { http.http1_only() };
        let mut older = http.http1();
        older
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_headers(MOST_HEADERS)
            .max_buf_size(HEADERS as usize);
        let mut newer = http.http2();
        newer.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEADERS);
        newer.initial_stream_window_size(CALL_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        newer.keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE_ANSWER);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(connection), service));
        tokio::select! {
            // How it ended is the caller's affair.
            _ = connection.as_mut() => return,
            () = stage::reached(self.stage.clone(), Stage::Closing) => {}
        }
        connection.as_mut().graceful_shutdown();
        // What was asked is answered, until connections break because serving has ended.
        drop(connection.await);
    }
}
