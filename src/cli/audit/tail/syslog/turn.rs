//! Turns: leaves go to the collector a connection after the other, and count when a connection has ended in order.
//!
//! Until then they are kept here, some mebibytes at the most, and are sent again over the next connection. So what becomes of
//! the vault's stream meanwhile takes nothing away from what is under way.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::collector::Connection;
use crate::cli::audit::tail::ledger::Mark;
use crate::cli::output::CliError;

/// Bytes behind which another piece begins.
pub const PIECE: usize = 64 << 10;
/// Bytes that one turn may have.
const MOST: usize = 4 << 20;
/// How long a turn lasts, and how long it waits for more.
const TURN: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(3);

/// Messages that go together, and how far the leaves have come behind them.
pub struct Piece {
    /// As they are sent.
    pub messages: Vec<u8>,
    /// Which leaf comes next.
    pub mark: Mark,
}

/// What is not known to have arrived.
pub struct UnderWay {
    queue: VecDeque<Piece>,
    /// Bytes that the next turn may have: fewer for a collector that did not read all of the last one in time.
    room: usize,
}

/// How a turn went.
pub struct Went {
    /// How far the leaves have arrived; or why none of this turn has.
    pub arrived: Result<Mark, String>,
    /// Set if there are no more leaves to come: the stream has ended, or was refused.
    pub ended: Option<Result<(), CliError>>,
}

impl UnderWay {
    pub fn new() -> Self {
        Self { queue: VecDeque::new(), room: MOST }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn add(&mut self, pieces: Vec<Piece>) {
        self.queue.extend(pieces);
    }

    /// Sends what is kept, and what comes meanwhile, over a connection, and sees whether it was read. There is something to
    /// send, and `more` may be dropped while it waits.
    pub async fn turn(
        &mut self,
        mut connection: Connection,
        more: &mut impl AsyncFnMut() -> Result<Option<Vec<Piece>>, CliError>,
    ) -> Went {
        let (mut pieces, mut bytes, mut ended) = (0, 0, None);
        let end = Instant::now() + TURN;
        let sent = async {
            while bytes < self.room && ended.is_none() {
                if let Some(piece) = self.queue.get(pieces) {
                    connection.send(&piece.messages).await?;
                    pieces += 1;
                    bytes += piece.messages.len();
                    continue;
                }
                let wait = end.min(Instant::now() + IDLE);
                tokio::select! {
                    biased;
                    broken = connection.broken() => return Err(broken),
                    () = tokio::time::sleep_until(wait) => break,
                    came = more() => match came {
                        Ok(Some(came)) => self.queue.extend(came),
                        Ok(None) => ended = Some(Ok(())),
                        Err(error) => ended = Some(Err(error)),
                    }
                }
            }
            connection.end().await
        }
        .await;
        let arrived = sent.map_err(|error| error.to_string()).and_then(|()| {
            let last = self.queue.drain(..pieces).next_back().map(|piece| piece.mark);
            last.ok_or_else(|| "nothing was sent".to_owned())
        });
        self.room = match arrived {
            Ok(_) => self.room.saturating_mul(2).min(MOST),
            // One that reads slowly would never come to the end of as much again.
            Err(_) => (bytes / 2).max(PIECE),
        };
        Went { arrived, ended }
    }
}
