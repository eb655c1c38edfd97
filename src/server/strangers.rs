//! Connections of whoever reads what is published: HTTP/1.1 over TLS, without a certificate of theirs.
//!
//! Strangers can't fill the vault: they have one thread of their own, on which they are accepted as well, so many connections
//! at once, of which those from whoever has the most give way (`crowd.rs`), and each connection so much time and so few bytes
//! of headers. Who has very many addresses can still keep others off for a while. What is logged of them are numbers.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::ServeError;
use crate::certificates::Certificates;
use crate::cores::{Cores, refused_by_system};
use crate::crowd::Crowd;
use crate::published::{Finder, Logs, Published, answer, asked};
use crate::stage::{self, Stage};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may stand without a request, and how long the headers of one may take.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a connection may last, however much is asked on it.
const LIFE: Duration = Duration::from_secs(60);
/// How long the answer may take that is under way at its end.
const LAST: Duration = Duration::from_secs(5);
/// Headers of a request, and their bytes with its first line.
const MOST_HEADERS: usize = 32;
const HEADER_BYTES: usize = 4 << 10;
/// Bytes that a connection may have under way: the least that the HTTP library takes.
const BUFFER: usize = 8 << 10;
/// How often it is told how much was read.
const TELL: Duration = Duration::from_secs(60);

/// What every connection needs.
pub(crate) struct Host {
    logs: Logs,
    finder: Finder,
    certificates: Arc<Certificates>,
    stage: watch::Receiver<Stage>,
    counts: Counts,
}

/// How much was read since it was told last.
#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    /// Requests for what is not there, or may not be.
    refused: AtomicU64,
    /// Requests that could not be answered at that moment.
    failed: AtomicU64,
    /// Connections that gave way to others.
    dropped: AtomicU64,
}

/// Serves what is published until that ends.
pub(crate) async fn serve(
    published: Published,
    finder: Finder,
    certificates: Arc<Certificates>,
    stage: watch::Receiver<Stage>,
) -> Result<(), ServeError> {
    let Published { listener, logs } = published;
    let host = Arc::new(Host { logs, finder, certificates, stage: stage.clone(), counts: Counts::default() });
    let cores = Cores::one("strangers")?;
    // From the runtime of whoever bound it to that of the thread.
    let listener = listener.into_std()?;
    let attending = async move {
        host.attend_all(TcpListener::from_std(listener)?).await;
        Ok::<_, ServeError>(())
    };
    let ended = cores.run([attending]).await;
    cores.end().await;
    ended
}

impl Host {
    /// Returns when serving ends and the last connection has ended.
    async fn attend_all(self: Arc<Self>, listener: TcpListener) {
        let (mut connections, mut crowd) = (JoinSet::new(), Crowd::default());
        let mut telling = interval(TELL);
        telling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing = pin!(stage::reached(self.stage.clone(), Stage::Closing));
        loop {
            tokio::select! {
                () = closing.as_mut() => break,
                accepted = listener.accept() => match accepted {
                    Ok((socket, from)) => {
                        if crowd.make_room(from.ip()) {
                            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                        }
                        // Answers are small and awaited; one that can't be sent so has ended already.
                        drop(socket.set_nodelay(true));
                        let shaken = Arc::new(AtomicBool::new(false));
                        let connection = connections.spawn(Arc::clone(&self).attend(socket, Arc::clone(&shaken)));
                        crowd.add(from.ip(), shaken, connection);
                    }
                    Err(error) => refused_by_system(&error).await,
                },
                // A connection that panicked has been reported.
                Some(_) = connections.join_next() => {}
                _ = telling.tick() => self.counts.tell(),
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        self.counts.tell();
    }

    /// One connection, from its handshake to its end.
    async fn attend(
        self: Arc<Self>,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        shaken: Arc<AtomicBool>,
    ) {
        let acceptor = TlsAcceptor::from(self.certificates.public_server());
        let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(socket)).await else { return };
        shaken.store(true, Ordering::Relaxed);
        let host = Arc::clone(&self);
        let service = service_fn(move |request: Request<Incoming>| {
            let host = Arc::clone(&host);
            async move { Ok::<_, Infallible>(host.answer(&request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
        http.max_headers(MOST_HEADERS).max_header_size(HEADER_BYTES).max_buf_size(BUFFER);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // How it ended is the stranger's affair.
            _ = connection.as_mut() => return,
            () = sleep(LIFE) => {}
            () = stage::reached(self.stage.clone(), Stage::Closing) => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(timeout(LAST, connection).await);
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let found = match asked(&self.logs, request.method(), request.uri()) {
            Ok(asked) => (self.finder)(asked).await,
            Err(status) => Err(status),
        };
        let count = match &found {
            Ok(_) => &self.counts.answered,
            Err(status) if status.is_client_error() => &self.counts.refused,
            Err(_) => &self.counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        answer(found)
    }
}

impl Counts {
    fn tell(&self) {
        let [answered, refused, failed, dropped] =
            [&self.answered, &self.refused, &self.failed, &self.dropped].map(|count| count.swap(0, Ordering::Relaxed));
        if answered + refused + failed + dropped > 0 {
            tracing::info!(answered, refused, failed, dropped, "what is published was read over HTTPS");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use hyper::StatusCode;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpStream;
    use tokio::time::Instant;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::*;
    use crate::crowd::FROM_ONE;
    use crate::published::Found;
    use crate::testing::Authority;

    const HEAD: &str = "strongroom/1\n1\nroot\n";

    struct House {
        authority: Authority,
        host: Arc<Host>,
        stages: watch::Sender<Stage>,
    }

    impl House {
        fn new() -> Self {
            let authority = Authority::new();
            let (stages, stage) = watch::channel(Stage::Open);
            let logs = [("lending".to_owned(), "lending".to_owned())].into();
            let finder: Finder = Arc::new(|_| Box::pin(async { Ok(Found::Head(HEAD.to_owned())) }));
            let certificates = Certificates::of(authority.server_material());
            let host = Arc::new(Host { logs, finder, certificates, stage, counts: Counts::default() });
            Self { authority, host, stages }
        }

        /// A connection that the host attends to.
        fn socket(&self) -> DuplexStream {
            let (ours, theirs) = duplex(64 << 10);
            drop(tokio::spawn(Arc::clone(&self.host).attend(theirs, Arc::default())));
            ours
        }

        async fn connect(&self, alpn: &[u8]) -> io::Result<TlsStream<DuplexStream>> {
            let config = self.authority.client_config(None, alpn);
            let name = ServerName::try_from("localhost").unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, self.socket()).await
        }

        /// All that is answered to these bytes until the connection ends.
        async fn says(&self, sent: &str) -> String {
            let mut stream = self.connect(b"http/1.1").await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            rest(&mut stream).await
        }
    }

    async fn rest(stream: &mut TlsStream<DuplexStream>) -> String {
        let mut answer = Vec::new();
        // A peer that breaks off has said what it had to say.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }

    fn status(answer: &str) -> u16 {
        answer.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{answer:?}"))[..3].parse().unwrap()
    }

    #[tokio::test]
    async fn who_has_no_certificate_gets_what_is_published() {
        let house = House::new();
        let answer = house.says("GET /lending/checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert_eq!(status(&answer), 200);
        assert!(answer.ends_with(&format!("\r\n\r\n{HEAD}")), "{answer}");
        let answer = house.says("HEAD /lending/checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains(&format!("content-length: {}\r\n", HEAD.len())) && answer.ends_with("\r\n\r\n"));
        // Two on one connection, and one of a client that says no protocol.
        let two = "GET /lending/checkpoint HTTP/1.1\r\nhost: x\r\n\r\nGET /no HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = house.says(two).await;
        assert!(answer.contains("HTTP/1.1 200") && answer.contains("HTTP/1.1 404"), "{answer}");
        assert!(house.connect(b"").await.is_ok());
        let counts = &house.host.counts;
        let counted = [&counts.answered, &counts.refused, &counts.failed].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counted, [3, 1, 0]);
    }

    #[tokio::test]
    async fn a_client_of_http_2_alone_is_not_served_as_if_it_were_a_caller() {
        assert!(House::new().connect(b"h2").await.is_err());
    }

    #[tokio::test]
    async fn what_is_too_large_or_no_request_is_refused_and_nothing_of_it_is_repeated() {
        let house = House::new();
        let many: String = (0..=MOST_HEADERS).map(|number| format!("x-{number}: secret\r\n")).collect();
        let long = "s".repeat(HEADER_BYTES);
        for (sent, expected) in [
            (format!("GET /lending/checkpoint HTTP/1.1\r\n{many}\r\n"), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            (format!("GET /x HTTP/1.1\r\nx-secret: {long}\r\n\r\n"), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            ("secret\r\n\r\n".to_owned(), StatusCode::BAD_REQUEST),
            ("GET /x HTTP/1.1\r\nse cret: 1\r\n\r\n".to_owned(), StatusCode::BAD_REQUEST),
        ] {
            let answer = house.says(&sent).await;
            assert_eq!(status(&answer), expected.as_u16(), "{answer}");
            assert!(!answer.contains("secret"), "{answer}");
        }
        let path = format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!([414, 431].contains(&status(&house.says(&path).await)));
        let asked = "GET /secret?secret HTTP/1.1\r\nhost: secret\r\nconnection: close\r\n\r\n";
        let answer = house.says(asked).await;
        assert!(status(&answer) == 404 && !answer.contains("secret"), "{answer}");
    }

    /// Time is the test's: it passes at once when nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_never_ends_is_left() {
        let house = House::new();
        let begun = Instant::now();
        let mut silent = house.socket();
        assert!(!matches!(silent.read(&mut [0; 1]).await, Ok(1..)));
        assert!((HANDSHAKE..2 * HANDSHAKE).contains(&begun.elapsed()));
        for half in ["", "GET /lending/checkpoint HTTP/1.1\r\nhost: x\r\n"] {
            let begun = Instant::now();
            let mut stream = house.connect(b"http/1.1").await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(!answer.contains(HEAD), "{answer}");
            assert!(begun.elapsed() < LIFE, "{half:?}");
        }
        // A request now and then keeps a connection for its life and no longer.
        let begun = Instant::now();
        let mut stream = house.connect(b"http/1.1").await.unwrap();
        while stream.write_all(b"GET /no HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {
            if !matches!(stream.read(&mut [0; 4_096]).await, Ok(1..)) {
                break;
            }
            assert!(begun.elapsed() < 2 * LIFE);
            sleep(HEADERS / 2).await;
        }
        assert!(begun.elapsed() >= LIFE - HEADERS);
    }

    #[tokio::test]
    async fn a_crowd_from_one_address_is_cut_off_and_counted_and_all_ends_with_serving() {
        let House { host, stages, .. } = House::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let attending = tokio::spawn(Arc::clone(&host).attend_all(listener));
        let mut sockets = Vec::new();
        for _ in 0..=FROM_ONE {
            sockets.push(TcpStream::connect(address).await.unwrap());
        }
        // The first has said nothing, and is the oldest.
        assert!(!matches!(sockets[0].read(&mut [0; 1]).await, Ok(1..)));
        assert_eq!(host.counts.dropped.load(Ordering::Relaxed), 1);
        drop(sockets);
        stages.send_replace(Stage::Closing);
        attending.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn who_has_shaken_hands_is_known() {
        let house = House::new();
        let (ours, theirs) = duplex(64 << 10);
        let shaken = Arc::new(AtomicBool::new(false));
        drop(tokio::spawn(Arc::clone(&house.host).attend(theirs, Arc::clone(&shaken))));
        let config = house.authority.client_config(None, b"http/1.1");
        let name = ServerName::try_from("localhost").unwrap();
        assert!(!shaken.load(Ordering::Relaxed));
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, ours).await.unwrap();
        stream.write_all(b"GET /lending/checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.contains(HEAD) && shaken.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_connection_ends_with_serving() {
        let house = House::new();
        let mut stream = house.connect(b"http/1.1").await.unwrap();
        let (answer, _) = tokio::join!(rest(&mut stream), async { house.stages.send_replace(Stage::Closing) });
        assert_eq!(answer, "");
    }
}
