//! A syslog collector that the ledger is followed into: RFC 5424 messages over TLS (RFC 5425).
//!
//! Syslog has no acknowledgement; TCP has. The kernel breaks a connection over which nothing was acknowledged for a while,
//! so a leaf counts as arrived at the collector's machine when the connection still stands well after that time; what was
//! sent before it broke is sent again. What the collector does with it nobody here can know.

use std::collections::VecDeque;
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

use super::Cursor;
use super::backoff::Backoff;
use super::ledger::{Followed, Mark};
use crate::cli::output::{CliError, Exit};

/// So long what was sent may be without an acknowledgement, or the collector without room for more, before the kernel breaks
/// the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// So long after it was sent a message counts as arrived, if the connection stands.
const ARRIVED: Duration = Duration::from_secs(15);
/// Bytes that the kernel may keep for the collector (it takes twice that): what was written longer ago than `ARRIVED` is
/// acknowledged then, unless the way there moves less than some 20 kB a second.
const KEPT: usize = 128 << 10;
/// So long writing may take: one who takes so slowly has the rest sent again.
const WRITING: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Facility 13 (log audit), severities 5 (notice: refused) and 6 (informational): RFC 5424 section 6.2.1.
const REFUSED: u8 = 13 * 8 + 5;
const DONE: u8 = 13 * 8 + 6;
/// The number for documentation (RFC 5612): whoever has one of its own maps it at the collector.
const ENTERPRISE: u32 = 32473;

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
            let socket = dial(&self.address).await?;
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
        let mut leaves = followed.begin(&self.cursor).await?;
        self.cursor.begun(&leaves);
        self.cursor.write(&self.cursor_path)?;
        let mut under_way: VecDeque<(Instant, Mark)> = VecDeque::new();
        let mut tick = tokio::time::interval(ARRIVED / 15);
        let mut heard = [0; 64];
        loop {
            tokio::select! {
                // First whether the connection still stands: what was sent counts only then.
                biased;
                read = collector.read(&mut heard) => match read {
                    // A collector has nothing to say.
                    Ok(0) => return Ok(Sent::CollectorGone("it closed the connection".to_owned())),
                    Ok(_) => {}
                    Err(error) => return Ok(Sent::CollectorGone(error.to_string())),
                },
                _ = tick.tick() => {
                    let mut arrived = None;
                    while under_way.front().is_some_and(|(sent, _)| sent.elapsed() >= ARRIVED) {
                        arrived = under_way.pop_front().map(|(_, mark)| mark);
                    }
                    if let Some(mark) = arrived {
                        self.cursor.go_to(&mark);
                        self.cursor.write(&self.cursor_path)?;
                    }
                }
                page = leaves.page() => {
                    let Some(page) = page? else { return Ok(Sent::VaultGone) };
                    let mut messages = Vec::new();
                    for line in &page {
                        message(&self.cursor.origin, line, &mut messages)?;
                    }
                    let written = async {
                        collector.write_all(&messages).await?;
                        collector.flush().await
                    };
                    match tokio::time::timeout(WRITING, written).await {
                        Ok(Ok(())) => under_way.push_back((Instant::now(), leaves.mark)),
                        Ok(Err(error)) => return Ok(Sent::CollectorGone(error.to_string())),
                        Err(_) => return Ok(Sent::CollectorGone("it takes nothing".to_owned())),
                    }
                }
            }
        }
    }
}

/// Connects, over a connection that breaks when the other machine has vanished.
async fn dial(address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    let options = socket2::SockRef::from(&socket);
    options.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    options.set_send_buffer_size(KEPT)?;
    Ok(socket)
}

enum Sent {
    CollectorGone(String),
    VaultGone,
}

/// Writes a leaf as a message behind its length (RFC 5425 section 4.3): the leaf's own time, the action as MSGID, whose leaf
/// it is and which, and the line as it is.
fn message(origin: &str, line: &[u8], into: &mut Vec<u8>) -> Result<(), CliError> {
    let read =
        leaf::parse(line).map_err(|error| CliError::unfit(format!("the vault sent what is no leaf: {error}")))?;
    let priority = if read.decision == "allow" { DONE } else { REFUSED };
    let (time, action, origin, index) = (read.time, &read.action, value(origin), read.index);
    let head = format!(
        "<{priority}>1 {time} - strongroom - {action} [strongroom@{ENTERPRISE} origin=\"{origin}\" index=\"{index}\"] "
    );
    into.extend_from_slice(format!("{} {head}", head.len() + line.len()).as_bytes());
    into.extend_from_slice(line);
    Ok(())
}

/// A value of structured data (RFC 5424 section 6.3.3).
fn value(text: &str) -> String {
    let escaped = |c| matches!(c, '"' | '\\' | ']').then_some('\\');
    text.chars().flat_map(|c| escaped(c).into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{LeafHeader, prepare, sample::header};

    use super::*;

    fn line(decision: &str) -> Vec<u8> {
        let header = LeafHeader {
            request: &[1; 16],
            principal: "app/loan-core",
            action: "detokenize",
            decision,
            reason: (decision == "deny").then_some("DENIED"),
            policy: 1,
            schema: 1,
            client: "",
            ..header()
        };
        prepare(&header, std::iter::empty()).remove(0).finish(7, Timestamp(1_795_000_000_000_000))
    }

    #[test]
    fn a_leaf_is_a_message_with_its_length_before_it() {
        for (decision, priority) in [("allow", 110), ("deny", 109)] {
            let mut sent = Vec::new();
            message("strongroom/1/2/0/1", &line(decision), &mut sent).unwrap();
            let text = String::from_utf8(sent).unwrap();
            let (length, rest) = text.split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), rest.len());
            let (head, leaf) = rest.split_at(rest.find('{').unwrap());
            assert_eq!(leaf.as_bytes(), line(decision));
            let whose = r#"[strongroom@32473 origin="strongroom/1/2/0/1" index="7"]"#;
            let expected = format!("<{priority}>1 2026-11-18T11:06:40.000000Z - strongroom - detokenize {whose} ");
            assert_eq!(head, expected);
        }
        assert!(message("log", b"no leaf", &mut Vec::new()).is_err());
    }

    #[test]
    fn no_origin_breaks_out_of_its_value() {
        assert_eq!(value(r#"a"b\c]d"#), r#"a\"b\\c\]d"#);
    }

    #[tokio::test]
    async fn a_collector_that_vanishes_breaks_the_connection_before_anything_counts_as_arrived() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = dial(&listener.local_addr().unwrap().to_string()).await.unwrap();
        let options = socket2::SockRef::from(&socket);
        let timeout = options.tcp_user_timeout().unwrap();
        assert!(options.send_buffer_size().unwrap() <= 2 * KEPT);
        assert!(timeout.is_some_and(|timeout| timeout * 2 <= ARRIVED), "{timeout:?}");
    }
}
