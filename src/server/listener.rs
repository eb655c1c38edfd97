//! From a listening socket to connections whose peer is known.
//!
//! Strangers can't fill the vault: handshakes run apart from connections, each has ten seconds, and when too many
//! wait, the oldest gives way. An honest handshake takes milliseconds, so it is never the oldest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::identity::{self, DirectorySource, Peer};
use crate::stage::{self, Stage};
use crate::tls::ALPN;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES: usize = 512;
/// How long to wait after the system had no socket to give.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// The listening socket and all that a connection needs.
pub(crate) struct Listener {
    socket: TcpListener,
    handshaker: Handshaker,
    waiting: JoinSet<Option<Connection>>,
    /// The handshakes, oldest first. May still hold some that are over.
    ages: VecDeque<AbortHandle>,
}

#[derive(Clone)]
struct Handshaker {
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    directory: DirectorySource,
    stage: watch::Receiver<Stage>,
}

impl Listener {
    /// A listener that has at most `most` connections at once.
    pub fn new(
        socket: TcpListener,
        tls: Arc<ServerConfig>,
        most: usize,
        directory: DirectorySource,
        stage: watch::Receiver<Stage>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let handshaker = Handshaker { tls: tls.into(), places, directory, stage };
        Self { socket, handshaker, waiting: JoinSet::new(), ages: VecDeque::new() }
    }

    /// The connections, as their handshakes end.
    pub fn connections(self) -> impl Stream<Item = Result<Connection, Infallible>> {
        stream::unfold(self, |mut listener| async move { Some((Ok(listener.next().await), listener)) })
    }

    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((socket, address)) => self.begin(socket, address),
                    Err(error) => refused_by_system(&error).await,
                },
                Some(ended) = self.waiting.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
            }
        }
    }

    fn begin(&mut self, socket: TcpStream, address: SocketAddr) {
        while self.ages.front().is_some_and(AbortHandle::is_finished) {
            self.ages.pop_front();
        }
        if self.ages.len() >= HANDSHAKES {
            self.ages.retain(|handshake| !handshake.is_finished());
        }
        if self.ages.len() >= HANDSHAKES
            && let Some(oldest) = self.ages.pop_front()
        {
            tracing::warn!(most = HANDSHAKES, "too many handshakes wait: the oldest is dropped");
            oldest.abort();
        }
        let handshaker = self.handshaker.clone();
        self.ages.push_back(self.waiting.spawn(handshaker.shake(socket, address)));
    }
}

/// A connection that broke before it was accepted costs nothing; a lack of sockets needs a pause, or the loop spins.
async fn refused_by_system(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "no connection could be accepted");
        tokio::time::sleep(EXHAUSTED).await;
    }
}

impl Handshaker {
    async fn shake(self, socket: TcpStream, address: SocketAddr) -> Option<Connection> {
        // Answers are small and awaited: none may wait for the acknowledgement of the one before.
        socket.set_nodelay(true).ok()?;
        let io = match tokio::time::timeout(HANDSHAKE, self.tls.accept(socket)).await {
            Ok(Ok(io)) => io,
            // The reason may quote the stranger's certificate, so it is escaped.
            Ok(Err(error)) => {
                tracing::info!(client = %address, why = ?error.to_string(), "handshake refused");
                return None;
            }
            Err(_) => {
                tracing::info!(client = %address, "handshake took too long");
                return None;
            }
        };
        let session = io.get_ref().1;
        if session.alpn_protocol() != Some(ALPN) {
            tracing::info!(client = %address, "handshake refused: the client does not offer HTTP/2 by ALPN");
            return None;
        }
        let peer = Peer::new(session.peer_certificates()?.first()?, address.to_string());
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!(client = %address, "connection closed: there are as many as configured");
            return None;
        };
        // Only for the log: every request asks again, and is told.
        let _ = peer.caller(&(self.directory)(), identity::now());
        let ended = Box::pin(stage::reached(self.stage, Stage::Ended));
        Some(Connection { io, peer, ended, over: false, _place: place })
    }
}

/// A connection whose peer is known.
pub(crate) struct Connection {
    io: TlsStream<TcpStream>,
    peer: Peer,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// The stream, unless serving has ended.
    fn io(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut TlsStream<TcpStream>>> {
        self.over = self.over || self.ended.as_mut().poll(context).is_ready();
        if self.over {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(Pin::new(&mut self.io))
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io(context)?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io(context)?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(context)?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io(context)?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
