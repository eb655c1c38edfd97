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

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom_ledger::leaf_hash;

use super::Cursor;
use super::backoff::Backoff;
use super::ledger::{Followed, Leaves, Mark};
use crate::cli::output::{CliError, Exit};
use collector::Collector;
use message::message;
use turn::{Piece, UnderWay, Went};

/// Bytes behind which another piece begins.
const PIECE: usize = 64 << 10;

/// The collector, and how far it is.
pub struct Sink {
    collector: Collector,
    cursor_path: PathBuf,
    cursor: Cursor,
    under_way: UnderWay,
}

impl Sink {
    /// A collector at HOST:PORT, whose certificate must come from an authority, and who may take so long to read a turn.
    pub fn new(
        address: &str,
        ca: &Path,
        patience: Duration,
        cursor_path: PathBuf,
        cursor: Cursor,
    ) -> Result<Self, CliError> {
        let collector = Collector::new(address, ca, patience)?;
        Ok(Self { collector, cursor_path, cursor, under_way: UnderWay::new() })
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
        let origin = self.cursor.origin.clone();
        let mut more = async || match leaves.page().await? {
            Some(page) => pieces(&origin, &page, leaves.mark.next).map(Some),
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
fn pieces(origin: &str, page: &[Bytes], next: u64) -> Result<Vec<Piece>, CliError> {
    let first = next.saturating_sub(page.len() as u64);
    let mut pieces = Vec::new();
    let mut messages = Vec::new();
    for (index, line) in (first + 1..).zip(page) {
        message(origin, line, &mut messages)?;
        if messages.len() >= PIECE || index == next {
            let mark = Mark { next: index, last: Some(leaf_hash(line)) };
            pieces.push(Piece { messages: std::mem::take(&mut messages), mark });
        }
    }
    Ok(pieces)
}
