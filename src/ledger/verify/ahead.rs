//! Reads an export in pieces, whose lines are looked at ahead of the way through them, by as many threads as there are.
//!
//! ```text
//! lines -> a piece -> one of the threads: is each line a leaf? its hash -> the pieces in their order -> the walk
//! ```
//!
//! What can be said of a line by itself, and its hash, are most of the work and need no order. What does need one, the
//! walk does, on the thread that reads. Whatever is found is told in the order of the lines, so it is the same for any
//! number of threads. Memory is bounded by pieces and threads, whatever the export has.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::Fault;
use super::outline::Seen;
use crate::error::LedgerError;
use crate::frontier::leaf_hash;
use crate::leaf::MAX_LINE;

/// A piece ends with the line that brings it to so many bytes.
pub(super) const PIECE: usize = 256 << 10;
/// What a line counts for beside its bytes: lines of nothing must not fill the memory.
const LINE: usize = 128;
/// Pieces that one thread has, at most: one that it looks at, and one that waits for it or for the walk.
const QUEUED: usize = 2;
/// More threads have nothing to do, since the walk can't follow them.
const MOST: usize = 16;

/// Where a walk gets its lines.
pub(super) trait Source {
    /// Goes to the next line, if there is one.
    fn advance(&mut self) -> Result<bool, Fault>;

    /// Which line it is, from 1.
    fn number(&self) -> u64;

    /// The line, without its newline.
    fn text(&self) -> &[u8];

    /// Whether the line ended with a newline.
    fn whole(&self) -> bool;

    /// What was seen of the line.
    fn looked(&self) -> &Looked;

    /// Looks for a leaf in the lines that follow, and says in which line it stands. What else is wrong with them does
    /// not matter any more.
    fn find(&mut self, index: u64) -> Option<u64> {
        let start = format!("{{\"index\":\"{index}\",");
        while self.advance().ok()? {
            if self.text().starts_with(start.as_bytes()) {
                return Some(self.number());
            }
        }
        None
    }
}

/// What can be said of a line by itself.
#[derive(Debug)]
pub(super) struct Looked {
    /// The leaf that it is, if it is one.
    pub seen: Result<Seen, LedgerError>,
    /// Its hash in the tree.
    pub hash: [u8; 32],
}

impl Looked {
    /// Looks at a line.
    pub fn at(line: &[u8]) -> Self {
        Self { seen: Seen::look(line), hash: leaf_hash(line) }
    }
}

/// Some lines that stand one after the other.
#[derive(Default)]
struct Piece {
    /// Without newlines.
    text: Vec<u8>,
    /// Where each line ends in it, and whether it ended with a newline.
    ends: Vec<(usize, bool)>,
    looked: Vec<Looked>,
    /// What is wrong behind these lines.
    fault: Option<Fault>,
}

impl Piece {
    fn line(&self, place: usize) -> &[u8] {
        let end = |place: usize| self.ends.get(place).map_or(0, |(end, _)| *end);
        let start = place.checked_sub(1).map_or(0, end);
        self.text.get(start..end(place)).unwrap_or_default()
    }

    fn look(&mut self) {
        let mut looked = std::mem::take(&mut self.looked);
        looked.extend((0..self.ends.len()).map(|place| Looked::at(self.line(place))));
        self.looked = looked;
    }

    /// The same memory, for other lines.
    fn cleared(mut self) -> Self {
        self.text.clear();
        self.ends.clear();
        self.looked.clear();
        Self { fault: None, ..self }
    }
}

/// A thread that looks at pieces.
struct Looker {
    give: SyncSender<Piece>,
    take: Receiver<Piece>,
}

impl Looker {
    /// Starts one; none if the system has no more threads.
    fn start<'s>(scope: &'s thread::Scope<'s, '_>) -> Option<Self> {
        // Neither of them ever has more than a thread may have, so nobody waits in vain.
        let (give, given) = sync_channel::<Piece>(QUEUED);
        let (done, take) = sync_channel(QUEUED);
        let work = move || {
            for mut piece in given {
                piece.look();
                if done.send(piece).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("verifier".to_owned()).spawn_scoped(scope, work).ok()?;
        Some(Self { give, take })
    }
}

/// The lines of an export, each looked at before it is its turn.
pub(super) struct Ahead<R> {
    from: R,
    /// Bytes that make a piece.
    size: usize,
    /// Lines that were read.
    read: u64,
    /// Whether there is nothing more to be read.
    ended: bool,
    /// The first piece, until it is its turn.
    first: Option<Piece>,
    lookers: Vec<Looker>,
    /// Pieces that were given to threads, and taken back; both in turn, so the order stays.
    given: usize,
    taken: usize,
    /// Memory of pieces that are done.
    spare: Vec<Piece>,
    piece: Piece,
    /// Which line of the piece comes next.
    next: usize,
    number: u64,
}

/// Walks through lines that so many threads look at, in pieces of so many bytes; with one thread, all is done on the
/// caller's.
pub(super) fn walked<R: BufRead, T>(
    from: R,
    (threads, piece): (usize, usize),
    walk: impl FnOnce(&mut Ahead<R>) -> T,
) -> T {
    let mut ahead = Ahead::new(from, piece);
    // What is no larger than this is not worth a thread.
    let first = ahead.read();
    let threads = if ahead.ended || threads < 2 { 0 } else { threads.min(MOST) };
    ahead.first = Some(first);
    thread::scope(|scope| {
        // The threads end when it is dropped, which is before the scope waits for them.
        let mut ahead = ahead;
        ahead.lookers = (0..threads).map_while(|_| Looker::start(scope)).collect();
        walk(&mut ahead)
    })
}

impl<R: BufRead> Ahead<R> {
    fn new(from: R, size: usize) -> Self {
        Self {
            from,
            size,
            read: 0,
            ended: false,
            first: None,
            lookers: vec![],
            given: 0,
            taken: 0,
            spare: vec![],
            piece: Piece::default(),
            next: 0,
            number: 0,
        }
    }

    /// Reads the next piece. It is the last one when nothing follows, or nothing that can be read.
    fn read(&mut self) -> Piece {
        let mut piece = self.spare.pop().unwrap_or_default();
        while piece.text.len() + piece.ends.len() * LINE < self.size && !self.ended {
            let (start, line) = (piece.text.len(), self.read + 1);
            let mut bounded = (&mut self.from).take(MAX_LINE as u64 + 1);
            match bounded.read_until(b'\n', &mut piece.text) {
                Ok(0) => self.ended = true,
                Ok(_) => {
                    self.read = line;
                    let whole = piece.text.pop_if(|last| *last == b'\n').is_some();
                    if piece.text.len() - start > MAX_LINE {
                        piece.fault = Some(Fault::TooLong { line });
                        self.ended = true;
                    } else {
                        piece.ends.push((piece.text.len(), whole));
                    }
                }
                Err(error) => {
                    piece.fault = Some(Fault::Read { line, error });
                    self.ended = true;
                }
            }
        }
        piece
    }

    /// The next piece that nobody has looked at.
    fn unseen(&mut self) -> Option<Piece> {
        match self.first.take() {
            Some(first) => Some(first),
            None if self.ended => None,
            None => Some(self.read()),
        }
    }

    /// Goes on to the next piece, if there is one.
    fn turn(&mut self) -> Result<bool, Fault> {
        let done = std::mem::take(&mut self.piece).cleared();
        self.spare.push(done);
        self.next = 0;
        if self.lookers.is_empty() {
            let Some(mut piece) = self.unseen() else { return Ok(false) };
            piece.look();
            self.piece = piece;
            return Ok(true);
        }
        let threads = self.lookers.len();
        while self.given - self.taken < threads * QUEUED {
            let Some(piece) = self.unseen() else { break };
            if self.lookers[self.given % threads].give.send(piece).is_err() {
                return Err(self.gone());
            }
            self.given += 1;
        }
        if self.taken == self.given {
            return Ok(false);
        }
        match self.lookers[self.taken % threads].take.recv() {
            Ok(piece) => self.piece = piece,
            Err(_) => return Err(self.gone()),
        }
        self.taken += 1;
        Ok(true)
    }
}

impl<R> Ahead<R> {
    /// A thread has ended, which none does before its time.
    fn gone(&self) -> Fault {
        Fault::Read { line: self.number + 1, error: io::Error::other("a thread that verifies has ended") }
    }
}

impl<R: BufRead> Source for Ahead<R> {
    fn advance(&mut self) -> Result<bool, Fault> {
        while self.next >= self.piece.ends.len() {
            if let Some(fault) = self.piece.fault.take() {
                return Err(fault);
            }
            if !self.turn()? {
                return Ok(false);
            }
        }
        self.next += 1;
        self.number += 1;
        Ok(true)
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn text(&self) -> &[u8] {
        self.piece.line(self.next.saturating_sub(1))
    }

    fn whole(&self) -> bool {
        self.piece.ends.get(self.next.saturating_sub(1)).is_none_or(|(_, whole)| *whole)
    }

    fn looked(&self) -> &Looked {
        // Whoever asks has advanced, and each line of a piece that it is the turn of was looked at.
        &self.piece.looked[self.next - 1]
    }
}
