//! A syslog collector that the ledger is followed into: RFC 5424 messages over TLS (RFC 5425).
//!
//! Syslog has no acknowledgement, and that of TCP says nothing of the collector. The end of a connection does: so leaves go in
//! turns, and the cursor moves when a connection has ended in order. What the collector has read and then loses nobody here
//! can know.

mod collector;
mod message;
#[cfg(test)]
mod tests;
mod turn;

use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use clap::Args as ClapArgs;
use strongroom_ledger::leaf_hash;

use super::Cursor;
use super::backoff::Backoff;
use super::form::Form;
use super::ledger::{Followed, Leaves, Mark};
use crate::cli::output::{CliError, Exit};
use collector::Collector;
use message::Messages;
use turn::{PIECE, Piece, UnderWay, Went};

/// Which collector, and how it is spoken to.
#[derive(Clone, Debug, ClapArgs)]
pub struct Syslog {
    /// Send to this syslog collector over TLS (RFC 5424, RFC 5425): HOST:PORT. What was sent counts as read when it
    /// closes the connection, so name the collector itself: a proxy or balancer may close in its place, and leaves are lost.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["syslog_ca", "cursor"])]
    pub syslog: Option<String>,

    /// The authority that the collector's certificate must come from, PEM.
    #[arg(long, value_name = "FILE", requires = "syslog")]
    syslog_ca: Option<PathBuf>,

    /// The certificate to show to the collector, PEM, with those between it and an authority.
    #[arg(long, value_name = "FILE", requires_all = ["syslog", "syslog_key"])]
    syslog_cert: Option<PathBuf>,

    /// The private key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "syslog_cert")]
    syslog_key: Option<PathBuf>,

    /// What messages name as HOSTNAME.
    #[arg(long, value_name = "NAME", default_value = "-", requires = "syslog", value_parser = message::hostname)]
    syslog_hostname: String,

    /// The facility of messages, by name or number: auth, audit, local0, ...
    #[arg(long, value_name = "FACILITY", default_value = "audit", requires = "syslog", value_parser = message::facility)]
    syslog_facility: u8,

    /// The most bytes that the collector takes in a message: longer ones go without items, and name the leaf.
    #[arg(long, value_name = "BYTES", requires = "syslog", value_parser = clap::value_parser!(u32).range(2_048..))]
    syslog_max_bytes: Option<u32>,

    /// So long the collector may take to make room, and to read to the end and close: then what was sent is sent again.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "syslog", value_parser = clap::value_parser!(u64).range(1..=3600))]
    syslog_timeout: u64,

    /// Where it stands how far the collector is.
    #[arg(long, value_name = "FILE", requires = "syslog")]
    pub cursor: Option<PathBuf>,
}

/// The collector, and how far it is.
pub struct Sink {
    collector: Collector,
    messages: Messages,
    cursor_path: PathBuf,
    cursor: Cursor,
    under_way: UnderWay,
}

impl Sink {
    /// A collector that leaves go to in a form.
    pub fn new(to: Syslog, form: Form, cursor_path: PathBuf, cursor: Cursor) -> Result<Self, CliError> {
        let collector = Collector::new(&to)?;
        let messages = Messages {
            origin: cursor.origin.clone(),
            form,
            hostname: to.syslog_hostname,
            facility: to.syslog_facility,
            most: to.syslog_max_bytes.map(|most| most as usize),
        };
        Ok(Self { collector, messages, cursor_path, cursor, under_way: UnderWay::new() })
    }

    /// Follows the ledger into it.
    pub async fn follow(mut self, followed: &mut Followed<'_>) -> Result<Exit, CliError> {
        self.cursor.write(&self.cursor_path)?;
        // How far the vault was read: ahead of the cursor by what is under way.
        let mut read = self.cursor.clone();
        loop {
            let mut leaves = followed.begin(&read).await?;
            read.begun(&leaves);
            self.cursor.begun(&leaves);
            self.cursor.write(&self.cursor_path)?;
            self.pass_on(&mut leaves).await?;
            read.go_to(&leaves.mark);
        }
    }

    /// Passes on what comes, until the vault's stream has ended and all of it has arrived.
    async fn pass_on(&mut self, leaves: &mut Leaves) -> Result<(), CliError> {
        let messages = &self.messages;
        let mut more = async || match leaves.page().await? {
            Some(page) => pieces(messages, &page, leaves.mark.next).map(Some),
            None => Ok(None),
        };
        let mut backoff = Backoff::new();
        let mut flows = true;
        while flows || !self.under_way.is_empty() {
            // No connection is held while there is nothing to send.
            if self.under_way.is_empty() {
                let Some(pieces) = more().await? else { return Ok(()) };
                self.under_way.add(pieces);
            }
            let begun = Instant::now();
            let Went { arrived, ended } = match self.collector.connect().await {
                Ok(connection) => {
                    let mut more = async || if flows { more().await } else { Ok(None) };
                    self.under_way.turn(connection, &mut more).await
                }
                Err(error) => Went { arrived: Err(error.to_string()), ended: None },
            };
            let broken = match arrived {
                Ok(mark) => {
                    backoff.reset();
                    self.cursor.go_to(&mark);
                    self.cursor.write(&self.cursor_path)?;
                    None
                }
                Err(why) => Some(why),
            };
            if let Some(ended) = ended {
                // A refusal is told at once, whether or not the collector is there.
                ended?;
                flows = false;
            }
            if let Some(why) = broken {
                eprintln!("waiting for {}: {why}", self.collector.address);
                backoff.ended(begun.elapsed());
                tokio::time::sleep(backoff.wait()).await;
            }
        }
        Ok(())
    }
}

/// The messages of a page of leaves; `next` is the index of the leaf behind it.
fn pieces(messages: &Messages, page: &[Bytes], next: u64) -> Result<Vec<Piece>, CliError> {
    let first = next.saturating_sub(page.len() as u64);
    let mut pieces = Vec::new();
    let mut written = Vec::new();
    for (index, line) in (first + 1..).zip(page) {
        messages.write(line, &mut written)?;
        if written.len() >= PIECE || index == next {
            let mark = Mark { next: index, last: Some(leaf_hash(line)) };
            pieces.push(Piece { messages: std::mem::take(&mut written), mark });
        }
    }
    Ok(pieces)
}
