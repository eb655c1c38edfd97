//! A syslog collector that the ledger is followed into: RFC 5424 messages over TLS (RFC 5425).
//!
//! Syslog has no acknowledgement. So a leaf counts as arrived when the connection still stands a while after it was sent;
//! what was sent shortly before it broke is sent again.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use strongroom_ledger::leaf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::backoff::Backoff;
use super::{Cursor, Followed};
use crate::cli::output::{CliError, Exit};

/// So long after it was sent a message counts as arrived, if the connection stands.
const ARRIVED: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Facility 13 (log audit), severities 5 (notice: refused) and 6 (informational): RFC 5424 section 6.2.1.
const REFUSED: u8 = 13 * 8 + 5;
const DONE: u8 = 13 * 8 + 6;

/// The collector, and how far it is.
pub struct Sink {
    address: String,
    name: ServerName<'static>,
    tls: TlsConnector,
    cursor_path: PathBuf,
    cursor: Cursor,
}

impl Sink {
    /// A collector at HOST:PORT, whose certificate must come from an authority.
    pub fn new(address: &str, ca: &Path, cursor_path: PathBuf, cursor: Cursor) -> Result<Self, CliError> {
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned());
        let name =
            name.map_err(|_| CliError::Usage("--syslog takes HOST:PORT, such as siem.bank.example:6514".into()))?;
        let mut roots = RootCertStore::empty();
        let unfit = || CliError::unfit(format!("{} holds no certificates in PEM", ca.display()));
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|_| unfit())? {
            roots.add(certificate.map_err(|_| unfit())?).map_err(|_| unfit())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| CliError::unfit(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address: address.to_owned(), name, tls: TlsConnector::from(Arc::new(config)), cursor_path, cursor })
    }

    /// Follows the ledger into it.
    pub async fn follow(mut self, followed: &mut Followed<'_>) -> Result<Exit, CliError> {
        self.cursor.write(&self.cursor_path)?;
        let mut backoff = Backoff::new();
        loop {
            let broken = match self.connect().await {
                Ok(mut collector) => {
                    let (before, begun) = (self.cursor.next, Instant::now());
                    let sent = self.send(&mut collector, followed).await?;
                    if self.cursor.next > before {
                        backoff.reset();
                    }
                    backoff.ended(begun.elapsed());
                    match sent {
                        Sent::CollectorGone(why) => why,
                        // What is under way to the collector may not have arrived: it is sent again.
                        Sent::VaultGone => continue,
                    }
                }
                Err(error) => error.to_string(),
            };
            eprintln!("waiting for {}: {broken}", self.address);
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let connected = async {
            let socket = TcpStream::connect(&self.address).await?;
            self.tls.connect(self.name.clone(), socket).await
        };
        tokio::time::timeout(CONNECT, connected)
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }

    async fn send(
        &mut self,
        collector: &mut TlsStream<TcpStream>,
        followed: &mut Followed<'_>,
    ) -> Result<Sent, CliError> {
        let mut stream = followed.stream(self.cursor.next).await?;
        let mut under_way: VecDeque<(Instant, u64)> = VecDeque::new();
        let mut tick = tokio::time::interval(ARRIVED / 4);
        let mut heard = [0; 64];
        loop {
            tokio::select! {
                page = followed.page(&mut stream) => {
                    let Some(page) = page? else { return Ok(Sent::VaultGone) };
                    let mut messages = Vec::new();
                    for line in &page.leaves {
                        message(line, &mut messages)?;
                    }
                    let written = async {
                        collector.write_all(&messages).await?;
                        collector.flush().await
                    };
                    if let Err(error) = written.await {
                        return Ok(Sent::CollectorGone(error.to_string()));
                    }
                    under_way.push_back((Instant::now(), page.next));
                }
                read = collector.read(&mut heard) => match read {
                    // A collector has nothing to say.
                    Ok(0) => return Ok(Sent::CollectorGone("it closed the connection".to_owned())),
                    Ok(_) => {}
                    Err(error) => return Ok(Sent::CollectorGone(error.to_string())),
                },
                _ = tick.tick() => {
                    let mut arrived = None;
                    while under_way.front().is_some_and(|(sent, _)| sent.elapsed() >= ARRIVED) {
                        arrived = under_way.pop_front().map(|(_, next)| next);
                    }
                    if let Some(next) = arrived {
                        self.cursor.next = next;
                        self.cursor.write(&self.cursor_path)?;
                    }
                }
            }
        }
    }
}

enum Sent {
    CollectorGone(String),
    VaultGone,
}

/// Writes a leaf as a message behind its length (RFC 5425 section 4.3): the leaf's own time, the action as MSGID, and the
/// line as it is.
fn message(line: &[u8], into: &mut Vec<u8>) -> Result<(), CliError> {
    let read =
        leaf::parse(line).map_err(|error| CliError::unfit(format!("the vault sent what is no leaf: {error}")))?;
    let priority = if read.decision == "allow" { DONE } else { REFUSED };
    let mut head = String::new();
    // Writing into a string does not fail.
    let _ = write!(head, "<{priority}>1 {} - strongroom - {} - ", read.time, read.action);
    into.extend_from_slice(format!("{} {head}", head.len() + line.len()).as_bytes());
    into.extend_from_slice(line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{LeafHeader, prepare};

    use super::*;

    fn line(decision: &str) -> Vec<u8> {
        let header = LeafHeader {
            request: &[1; 16],
            principal: "app/loan-core",
            actor: None,
            action: "detokenize",
            purpose: None,
            decision,
            reason: (decision == "deny").then_some("DENIED"),
            policy: 1,
            schema: 1,
            keys: &[],
            client: "",
            detail: &[],
        };
        prepare(&header, std::iter::empty()).remove(0).finish(7, Timestamp(1_795_000_000_000_000))
    }

    #[test]
    fn a_leaf_is_a_message_with_its_length_before_it() {
        for (decision, priority) in [("allow", 110), ("deny", 109)] {
            let mut sent = Vec::new();
            message(&line(decision), &mut sent).unwrap();
            let text = String::from_utf8(sent).unwrap();
            let (length, rest) = text.split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), rest.len());
            let (head, leaf) = rest.split_at(rest.find('{').unwrap());
            assert_eq!(leaf.as_bytes(), line(decision));
            assert_eq!(head, format!("<{priority}>1 2026-11-18T11:06:40.000000Z - strongroom - detokenize - "));
        }
        assert!(message(b"no leaf", &mut Vec::new()).is_err());
    }
}
