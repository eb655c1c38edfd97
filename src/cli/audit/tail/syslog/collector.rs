//! Connections to a syslog collector, and how one ends: whether the collector has read all that it was sent.
//!
//! An acknowledgement of TCP says that the collector's kernel has the bytes. A collector that has read up to our end
//! ends its own side in order, and a kernel whose process goes away with something unread resets the connection. What
//! ends TCP need not be the collector: RFC 5425 (4.4) has it answer close_notify, but as a receiver rsyslog with GnuTLS
//! does not, nor did syslog-ng, so that is not asked for, and nothing may stand between.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Syslog;
use crate::cli::output::CliError;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Some collectors do not look at close_notify: after so long without an answer our side of TCP is ended as well. Not
/// at once, since our kernel tells nothing of a reset behind that.
const NOTICED: Duration = Duration::from_secs(2);
/// So long after the collector's end a reset is waited for, at the least. One that is stopped with something unread, or
/// to which something is still on its way, may end its side of TCP in order: the reset comes behind, a round trip later
/// at the most.
const RESET: Duration = Duration::from_millis(250);
/// As many times as long as the connection took, if that is longer: it takes a round trip, but was made before there
/// was load.
const TRIPS: u32 = 3;

/// Where the collector is, and how it is known.
pub struct Collector {
    /// HOST:PORT.
    pub address: String,
    name: ServerName<'static>,
    tls: TlsConnector,
    patience: Duration,
}

impl Collector {
    /// The collector that was asked for.
    pub fn new(to: &Syslog) -> Result<Self, CliError> {
        let (Some(address), Some(ca)) = (&to.syslog, &to.syslog_ca) else {
            return Err(CliError::Usage("--syslog needs --syslog-ca".into()));
        };
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned());
        let name =
            name.map_err(|_| CliError::Usage("--syslog takes HOST:PORT, such as siem.bank.example:6514".into()))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(ca)? {
            roots.add(authority).map_err(|_| none_in(ca))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unfit = |error: rustls::Error| CliError::unfit(format!("the certificates can't be used: {error}"));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_root_certificates(roots);
        let config = match (&to.syslog_cert, &to.syslog_key) {
            (Some(cert), Some(key)) => {
                let own = PrivateKeyDer::from_pem_file(key)
                    .map_err(|_| CliError::unfit(format!("{} holds no private key in PEM", key.display())))?;
                config.with_client_auth_cert(certificates(cert)?, own).map_err(unfit)?
            }
            _ => config.with_no_client_auth(),
        };
        let patience = Duration::from_secs(to.syslog_timeout);
        Ok(Self { address: address.clone(), name, tls: TlsConnector::from(Arc::new(config)), patience })
    }

    /// Connects.
    pub async fn connect(&self) -> io::Result<Connection> {
        let begun = Instant::now();
        let connected = async {
            let socket = TcpStream::connect(&self.address).await?;
            let reset = RESET.max(begun.elapsed() * TRIPS);
            Ok((self.tls.connect(self.name.clone(), socket).await?, reset))
        };
        let (tls, reset) = within(CONNECT, "no connection", connected).await?;
        Ok(Connection { tls, patience: self.patience, reset })
    }
}

/// The certificates in a file, of which there is one at the least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.ok().filter(|read| !read.is_empty()).ok_or_else(|| none_in(path))
}

fn none_in(path: &Path) -> CliError {
    CliError::unfit(format!("{} holds no certificates in PEM", path.display()))
}

/// A connection, until it is ended or broken.
pub struct Connection {
    tls: TlsStream<TcpStream>,
    patience: Duration,
    /// How long a reset is waited for at the end.
    reset: Duration,
}

impl Connection {
    /// Sends some messages.
    pub async fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        let sent = async {
            self.tls.write_all(messages).await?;
            self.tls.flush().await
        };
        within(self.patience, "it takes nothing", sent).await
    }

    /// Waits until the collector hangs up, and says how. Whoever stops waiting misses nothing.
    pub async fn broken(&mut self) -> io::Error {
        let mut heard = [0; 64];
        loop {
            match self.tls.read(&mut heard).await {
                Ok(0) => return io::Error::other("it closed the connection"),
                // A collector has nothing to say.
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    /// Ends our side, and waits until the collector has ended its own: then it has read all.
    pub async fn end(self) -> io::Result<()> {
        let Self { mut tls, patience, reset } = self;
        let ended = async {
            tls.get_mut().1.send_close_notify();
            tls.flush().await?;
            match tokio::time::timeout(NOTICED, closed(&mut tls)).await {
                Ok(closed) => closed?,
                Err(_) => {
                    tls.shutdown().await?;
                    closed(&mut tls).await?;
                }
            }
            tokio::time::sleep(reset).await;
            tls.get_ref().0.take_error()?.map_or(Ok(()), Err)
        };
        let late = "it did not close the connection when all was sent, so it is not known to have read it";
        within(patience, late, ended).await
    }
}

/// Waits until the collector has closed. Whoever stops waiting may wait again.
async fn closed(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let mut heard = [0; 64];
    loop {
        match tls.read(&mut heard).await {
            Ok(0) => break,
            Ok(_) => {}
            // Some collectors end TCP alone, rsyslog among them.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    // One that is stopped says close_notify whatever it has read: only the end of TCP tells.
    let (socket, _) = tls.get_mut();
    while socket.read(&mut heard).await? > 0 {}
    Ok(())
}

/// What is done in time.
async fn within<T>(patience: Duration, why: &str, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, why));
    tokio::time::timeout(patience, done).await.unwrap_or_else(late)
}
