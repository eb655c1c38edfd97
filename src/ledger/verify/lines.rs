//! Reads an export line by line, in bounded memory.

use std::io::{BufRead, Read};

use super::Fault;
use crate::leaf::MAX_LINE;

/// The lines of an export, one at a time.
pub(super) struct Lines<R> {
    from: R,
    /// Which line `text` is, from 1.
    pub number: u64,
    /// The line, without its newline.
    pub text: Vec<u8>,
    /// Whether the line ended with a newline.
    pub whole: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(from: R) -> Self {
        Self { from, number: 0, text: Vec::new(), whole: true }
    }

    /// Goes to the next line, if there is one.
    pub fn advance(&mut self) -> Result<bool, Fault> {
        self.text.clear();
        let line = self.number + 1;
        let mut bounded = (&mut self.from).take(MAX_LINE as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.text).map_err(|error| Fault::Read { line, error })?;
        if read == 0 {
            return Ok(false);
        }
        self.number = line;
        self.whole = self.text.pop_if(|last| *last == b'\n').is_some();
        if self.text.len() > MAX_LINE { Err(Fault::TooLong { line }) } else { Ok(true) }
    }

    /// Looks for a leaf in the lines that follow, and says in which line it stands. What else is wrong with them does
    /// not matter any more.
    pub fn find(&mut self, index: u64) -> Option<u64> {
        let start = format!("{{\"index\":\"{index}\",");
        while self.advance().ok()? {
            if self.text.starts_with(start.as_bytes()) {
                return Some(self.number);
            }
        }
        None
    }
}
