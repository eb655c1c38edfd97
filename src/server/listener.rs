//! From accepted sockets to connections whose peer is known, on one thread.
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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::certificates::Certificates;
use crate::cores::Sockets;
use crate::identity::{self, DirectorySource, Peer};
use crate::seats::{Full, Seat, Seats};
use crate::stage::{self, Stage};
use crate::tls::ALPN;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once, over all threads.
const HANDSHAKES: usize = 512;

/// The sockets of a thread and all that a connection needs.
pub(crate) struct Listener {
    sockets: Sockets,
    handshaker: Handshaker,
    waiting: JoinSet<Option<Connection>>,
    /// The handshakes, oldest first. May still hold some that are over.
    ages: VecDeque<AbortHandle>,
    most_waiting: usize,
}

#[derive(Clone)]
struct Handshaker {
    certificates: Arc<Certificates>,
    seats: Arc<Seats>,
    directory: DirectorySource,
    stage: watch::Receiver<Stage>,
    /// Whether HTTP/1.1 will do as well.
    older_http: bool,
}

impl Listener {
    /// A listener on one of so many threads, whose connections share these seats.
    pub fn new(
        (sockets, threads): (Sockets, usize),
        certificates: Arc<Certificates>,
        seats: Arc<Seats>,
        directory: DirectorySource,
        stage: watch::Receiver<Stage>,
    ) -> Self {
        let handshaker = Handshaker { certificates, seats, directory, stage, older_http: false };
        Self {
            sockets,
            handshaker,
            waiting: JoinSet::new(),
            ages: VecDeque::new(),
            most_waiting: HANDSHAKES.div_ceil(threads.max(1)),
        }
    }

    /// The same for clients of HTTP/1.1 as well, which need not say so.
    pub fn with_older_http(mut self) -> Self {
        self.handshaker.older_http = true;
        self
    }

    /// The connections, as their handshakes end.
    pub fn connections(self) -> impl Stream<Item = Result<Connection, Infallible>> {
        stream::unfold(self, |mut listener| async move { Some((Ok(listener.next().await?), listener)) })
    }

    /// The next connection; `None` when no more can come. Whoever stops waiting loses none.
    pub async fn next(&mut self) -> Option<Connection> {
        loop {
            tokio::select! {
                Some((socket, address)) = self.sockets.next() => self.begin(socket, address),
                Some(ended) = self.waiting.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return Some(connection);
                    }
                }
                else => return None,
            }
        }
    }

    fn begin(&mut self, socket: TcpStream, address: SocketAddr) {
        while self.ages.front().is_some_and(AbortHandle::is_finished) {
            self.ages.pop_front();
        }
        if self.ages.len() >= self.most_waiting {
            self.ages.retain(|handshake| !handshake.is_finished());
        }
        if self.ages.len() >= self.most_waiting
            && let Some(oldest) = self.ages.pop_front()
        {
            tracing::warn!(most = self.most_waiting, "too many handshakes wait: the oldest is dropped");
            oldest.abort();
        }
        let handshaker = self.handshaker.clone();
        self.ages.push_back(self.waiting.spawn(handshaker.shake(socket, address)));
    }
}

impl Handshaker {
    async fn shake(self, socket: TcpStream, address: SocketAddr) -> Option<Connection> {
        let config = match self.older_http {
            false => self.certificates.server(),
            true => self.certificates.server_with_older_http(),
        };
        let acceptor = TlsAcceptor::from(config);
        let io = match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
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
        if !self.older_http && session.alpn_protocol() != Some(ALPN) {
            tracing::info!(client = %address, "handshake refused: the client does not offer HTTP/2 by ALPN");
            return None;
        }
        let peer = Peer::new(session.peer_certificates()?, address.to_string(), self.certificates)?;
        let seat = match self.seats.seat(peer.holder()) {
            Ok(seat) => seat,
            Err(Full::All) => {
                tracing::warn!(client = %address, "connection closed: there are as many as configured");
                return None;
            }
            Err(Full::Own) => {
                tracing::warn!(client = %address, "connection closed: this client has as many as one may have");
                return None;
            }
        };
        // Only for the log: every request asks again, and is told.
        let _ = (self.directory)().map(|directory| peer.caller(&directory, identity::now()));
        let ended = Box::pin({
            let peer = peer.clone();
            async move {
                tokio::select! {
                    () = stage::reached(self.stage, Stage::Ended) => {}
                    () = peer.answers().broken() => {}
                }
            }
        });
        Some(Connection { io, peer, ended, over: false, _seat: seat })
    }
}

/// A connection whose peer is known.
pub(crate) struct Connection {
    io: TlsStream<TcpStream>,
    peer: Peer,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
    _seat: Seat,
}

impl Connection {
    /// Whether the client chose HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.io.get_ref().1.alpn_protocol() == Some(ALPN)
    }

    /// The stream, unless serving has ended or the connection is broken off.
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::cores::Cores;
    use crate::testing::{Authority, Issued, directory};
    use crate::tls::PUBLIC_ALPN;

    const APP: &str = "spiffe://bank.example/tenant/retail/app/loan-core";

    /// A listener for clients of one authority, its address, and its stage.
    async fn listener(authority: &Authority, most: usize) -> (Listener, SocketAddr, watch::Sender<Stage>) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (dealer, mut sockets) = Cores::start(Some(1)).unwrap().dealer();
        drop(tokio::spawn(dealer.deal(socket)));
        let (stages, stage) = watch::channel(Stage::Open);
        let known = directory(&[]);
        let tls = Certificates::of(authority.server_material());
        let directory = Arc::new(move || Some(Arc::clone(&known)));
        (Listener::new((sockets.remove(0), 1), tls, Seats::new(most), directory, stage), address, stages)
    }

    type Client = tokio_rustls::client::TlsStream<TcpStream>;

    /// The client's side. In TLS 1.3 it ends before the server has judged the client's certificate.
    async fn connect(
        server: &Authority,
        address: SocketAddr,
        client: Option<&Issued>,
        alpn: &[u8],
    ) -> io::Result<Client> {
        let config = server.client_config(client, alpn);
        let socket = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), socket).await
    }

    /// Whether the server closes the connection, or never lets it begin.
    async fn is_closed(client: io::Result<Client>) -> bool {
        match client {
            Ok(mut client) => !matches!(client.read(&mut [0; 1]).await, Ok(1..)),
            Err(_) => true,
        }
    }

    #[tokio::test]
    async fn a_client_with_a_certificate_is_connected() {
        let authority = Authority::new();
        let app = authority.client(&[APP]);
        let (listener, address, _stages) = listener(&authority, 1).await;
        let mut connections = Box::pin(listener.connections());
        let (client, connection) = tokio::join!(connect(&authority, address, Some(&app), ALPN), connections.next());
        let (mut client, Ok(mut connection)) = (client.unwrap(), connection.unwrap());
        client.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        connection.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
        let caller = connection.connect_info().caller(&directory(&[]), identity::now()).unwrap();
        assert_eq!(&*caller.principal.name, "app/loan-core");
        assert_eq!(*caller.client, *client.get_ref().0.local_addr().unwrap().to_string());
    }

    #[tokio::test]
    async fn where_older_http_will_do_a_certificate_is_wanted_all_the_same() {
        let authority = Authority::new();
        let (listener, address, _stages) = listener(&authority, 9).await;
        let mut listener = listener.with_older_http();
        let app = authority.client(&[APP]);
        let known: [(&[u8], bool); 3] = [(ALPN, true), (PUBLIC_ALPN, false), (b"", false)];
        for (alpn, is_http2) in known {
            let (client, connection) = tokio::join!(connect(&authority, address, Some(&app), alpn), listener.next());
            assert!(client.is_ok());
            assert_eq!(connection.unwrap().is_http2(), is_http2, "{alpn:?}");
        }
        let foreign = Authority::new().client(&[APP]);
        let strangers: [(Option<&Issued>, &[u8]); 4] =
            [(None, PUBLIC_ALPN), (Some(&foreign), PUBLIC_ALPN), (None, ALPN), (Some(&app), b"spdy")];
        for (client, alpn) in strangers {
            let attempt = async { is_closed(connect(&authority, address, client, alpn).await).await };
            tokio::select! {
                closed = attempt => assert!(closed, "{alpn:?}"),
                Some(_) = listener.next() => panic!("connected"),
            }
        }
    }

    #[tokio::test]
    async fn nobody_else_is_connected() {
        let authority = Authority::new();
        let (mut listener, address, _stages) = listener(&authority, 9).await;
        let app = authority.client(&[APP]);
        let foreign = Authority::new().client(&[APP]);
        let expired = authority.expired_client(APP);
        let attempts: [(&str, Option<&Issued>, &[u8]); 5] = [
            ("no certificate", None, ALPN),
            ("a certificate of another authority", Some(&foreign), ALPN),
            ("an expired certificate", Some(&expired), ALPN),
            ("no HTTP/2", Some(&app), b"http/1.1"),
            ("no protocol at all", Some(&app), b""),
        ];
        for (what, client, alpn) in attempts {
            let attempt = async { is_closed(connect(&authority, address, client, alpn).await).await };
            tokio::select! {
                closed = attempt => assert!(closed, "{what}"),
                Some(_) = listener.next() => panic!("connected with {what}"),
            }
        }
    }

    #[tokio::test]
    async fn more_connections_than_configured_are_closed() {
        let authority = Authority::new();
        let app = authority.client(&[APP]);
        let (mut listener, address, _stages) = listener(&authority, 1).await;
        let (_first_client, first) = tokio::join!(connect(&authority, address, Some(&app), ALPN), listener.next());
        let attempt = async { is_closed(connect(&authority, address, Some(&app), ALPN).await).await };
        tokio::select! {
            closed = attempt => assert!(closed),
            Some(_) = listener.next() => panic!("a second connection"),
        }
        drop(first);
        let (again, _second) = tokio::join!(connect(&authority, address, Some(&app), ALPN), listener.next());
        assert!(again.is_ok());
    }

    #[tokio::test]
    async fn one_client_cannot_keep_the_others_out_with_idle_connections() {
        let authority = Authority::new();
        let app = authority.client(&[APP]);
        let (mut listener, address, _stages) = listener(&authority, 4).await;
        let (_idle, _held) = tokio::join!(connect(&authority, address, Some(&app), ALPN), listener.next());
        let attempt = async { is_closed(connect(&authority, address, Some(&app), ALPN).await).await };
        tokio::select! {
            closed = attempt => assert!(closed),
            Some(_) = listener.next() => panic!("more than its share"),
        }
        let other = authority.client(&["spiffe://bank.example/tenant/retail/app/other"]);
        let (client, _connection) = tokio::join!(connect(&authority, address, Some(&other), ALPN), listener.next());
        assert!(client.is_ok());
    }

    #[tokio::test]
    async fn the_oldest_of_too_many_handshakes_gives_way() {
        let authority = Authority::new();
        let app = authority.client(&[APP]);
        let (mut listener, address, _stages) = listener(&authority, 9).await;
        listener.most_waiting = 1;
        // A stranger that connects and says nothing.
        let mut silent = TcpStream::connect(address).await.unwrap();
        let (client, _connection) = tokio::join!(connect(&authority, address, Some(&app), ALPN), listener.next());
        assert!(client.is_ok());
        assert!(!matches!(silent.read(&mut [0; 1]).await, Ok(1..)));
    }

    #[tokio::test]
    async fn a_connection_breaks_when_serving_has_ended() {
        let authority = Authority::new();
        let app = authority.client(&[APP]);
        let (mut listener, address, stages) = listener(&authority, 1).await;
        let (_client, connection) = tokio::join!(connect(&authority, address, Some(&app), ALPN), listener.next());
        let mut connection = connection.unwrap();
        let mut byte = [0];
        let (read, _) = tokio::join!(connection.read(&mut byte), async { stages.send_replace(Stage::Ended) });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
