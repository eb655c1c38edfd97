//! Turns, against collectors that read all, a part, or nothing.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Syslog;
use super::collector::Collector;
use super::turn::{Piece, UnderWay, Went};
use crate::cli::audit::tail::ledger::Mark;
use crate::cli::output::CliError;

/// A collector's side, and how to reach it.
struct Far {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    near: Collector,
}

impl Far {
    /// One that may take so many seconds, and that asks for a certificate or not.
    async fn new(seconds: u64, asks: bool) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let issued = || {
            let own = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            (params.signed_by(&own, &issuer).unwrap(), own)
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let (certificate, own) = issued();
        let config =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let config = match asks {
            true => config.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
            ),
            false => config.with_no_client_auth(),
        };
        let config = config
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der())),
            )
            .unwrap();
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, pem: String| {
            std::fs::write(folder.path().join(name), pem).unwrap();
            Some(folder.path().join(name))
        };
        let (certificate, own) = issued();
        let near = Syslog {
            syslog: Some(format!("localhost:{}", listener.local_addr().unwrap().port())),
            syslog_ca: file("ca", authority.pem()),
            syslog_cert: file("cert", certificate.pem()).filter(|_| asks),
            syslog_key: file("key", own.serialize_pem()).filter(|_| asks),
            syslog_hostname: "-".to_owned(),
            syslog_facility: 13,
            syslog_max_bytes: None,
            syslog_timeout: seconds,
            cursor: None,
        };
        let near = Collector::new(&near).unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), near }
    }

    /// Makes a turn with three pieces, and what the collector does with its side meanwhile.
    async fn turn<T>(&self, under_way: &mut UnderWay, does: impl AsyncFnOnce(TlsStream<TcpStream>) -> T) -> (Went, T) {
        let near = async {
            let connection = self.near.connect().await.unwrap();
            // The stream of leaves ends behind them.
            under_way.turn(connection, &mut async || Ok::<_, CliError>(None)).await
        };
        let far = async {
            let (socket, _) = self.listener.accept().await.unwrap();
            does(self.acceptor.accept(socket).await.unwrap()).await
        };
        tokio::join!(near, far)
    }
}

/// What a collector sees that reads all: more than TLS reads ahead, and less than a kernel keeps.
fn all() -> String {
    [1, 2, 3].map(messages).concat()
}

fn messages(next: u64) -> String {
    format!("leaf {next};").repeat(2_000)
}

fn three() -> UnderWay {
    let mut under_way = UnderWay::new();
    let piece = |next| Piece { messages: messages(next).into_bytes(), mark: Mark { next, last: None } };
    under_way.add([1, 2, 3].map(piece).into());
    under_way
}

/// Reads up to the end.
async fn read(io: &mut TlsStream<TcpStream>) -> String {
    let mut text = String::new();
    io.read_to_string(&mut text).await.unwrap();
    text
}

/// How a collector closes that has read all.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Closes {
    InOrder,
    TcpAlone,
    WhenTcpHasEnded,
}

#[tokio::test]
async fn what_was_sent_has_arrived_when_the_collector_has_closed_though_the_stream_of_leaves_was_cut_off() {
    let far = Far::new(60, false).await;
    for closes in [Closes::InOrder, Closes::TcpAlone, Closes::WhenTcpHasEnded] {
        let mut under_way = three();
        let (went, text) = far
            .turn(&mut under_way, async |mut io| {
                let text = read(&mut io).await;
                match closes {
                    Closes::InOrder => io.shutdown().await.unwrap(),
                    Closes::TcpAlone => {}
                    Closes::WhenTcpHasEnded => assert_eq!(io.get_mut().0.read(&mut [0]).await.unwrap(), 0),
                }
                text
            })
            .await;
        assert_eq!(went.arrived, Ok(Mark { next: 3, last: None }), "{closes:?}");
        assert!(text == all() && under_way.is_empty() && matches!(went.ended, Some(Ok(()))));
    }
}

#[tokio::test]
async fn what_a_collector_did_not_read_is_kept_and_sent_again() {
    let far = Far::new(60, false).await;
    for in_order in [false, true] {
        let mut under_way = three();
        // It is stopped with something unread.
        let (went, ()) = far
            .turn(&mut under_way, async |mut io| {
                io.read_exact(&mut [0]).await.unwrap();
                if in_order {
                    io.shutdown().await.unwrap();
                }
            })
            .await;
        assert!(went.arrived.is_err() && !under_way.is_empty(), "{in_order}");
        let mut seen = String::new();
        while !under_way.is_empty() {
            let (went, text) = far.turn(&mut under_way, async |mut io| read(&mut io).await).await;
            assert!(went.arrived.is_ok());
            seen += &text;
        }
        assert!(seen == all());
    }
}

#[tokio::test]
async fn a_collector_that_stalls_or_never_closes_has_nothing() {
    let far = Far::new(1, false).await;
    for reads in [false, true] {
        let mut under_way = three();
        let (went, _held) = far
            .turn(&mut under_way, async |mut io| {
                if reads {
                    assert!(read(&mut io).await == all());
                }
                io
            })
            .await;
        assert!(went.arrived.unwrap_err().contains("did not close"));
        assert!(!under_way.is_empty());
    }
}

#[tokio::test]
async fn a_collector_that_asks_for_a_certificate_gets_one() {
    let far = Far::new(60, true).await;
    let (went, ()) = far
        .turn(&mut three(), async |mut io| {
            assert!(io.get_ref().1.peer_certificates().is_some());
            read(&mut io).await;
        })
        .await;
    assert!(went.arrived.is_ok());
}
