//! A file of lines as it is read: leaves, or OCSF events.

use std::io::{BufRead, BufReader, Read};

use serde_json::Value;
use strongroom_ledger::leaf::ParsedLeaf;

use super::{Difference, LONGEST, There};
use crate::{ExportError, ocsf};

/// The lines, one at a time.
pub(super) struct Lined<'o, R> {
    file: BufReader<R>,
    /// The log, if the lines are events.
    origin: Option<&'o str>,
    line: Vec<u8>,
    rows: u64,
}

impl<'o, R: Read> Lined<'o, R> {
    pub fn new(file: R, origin: Option<&'o str>) -> Self {
        Self { file: BufReader::new(file), origin, line: Vec::new(), rows: 0 }
    }

    fn next(&mut self) -> Result<bool, Difference> {
        self.line.clear();
        let mut bounded = (&mut self.file).take(LONGEST as u64);
        if bounded.read_until(b'\n', &mut self.line).map_err(ExportError::from)? == 0 {
            return Ok(false);
        }
        match self.line.pop_if(|last| *last == b'\n') {
            Some(_) => Ok(true),
            None => Err(self.unreadable("it breaks off, or is longer than lines can be")),
        }
    }

    fn unreadable(&self, why: &'static str) -> Difference {
        Difference::Unreadable { row: self.rows + 1, why }
    }

    /// In which member an event is not the one that is expected.
    fn differs(&self, expected: &Value) -> Result<Option<String>, Difference> {
        let text = expected.to_string();
        if self.line == text.as_bytes() {
            return Ok(None);
        }
        let there: Value = serde_json::from_slice(&self.line).map_err(|_| self.unreadable("it is no JSON"))?;
        let (Value::Object(expected), Value::Object(there)) = (expected, &there) else {
            return Err(self.unreadable("it is no event"));
        };
        if let Some((name, _)) = expected.iter().find(|(name, value)| there.get(*name) != Some(value)) {
            return Ok(Some(name.clone()));
        }
        // No JSON of the same members is shorter. In what is longer a member may stand twice, of which others take the other.
        Ok((self.line.len() != text.len()).then(|| "members that no event has, or has once".to_owned()))
    }
}

impl<R: Read> There for Lined<'_, R> {
    fn leaf(&mut self, leaf: &ParsedLeaf, line: &[u8]) -> Result<(), Difference> {
        if !self.next()? {
            return Err(Difference::Short(self.rows));
        }
        let differs = match self.origin {
            Some(origin) => self.differs(&ocsf::event(leaf, line, origin))?,
            None => (self.line != line).then(|| "the line".to_owned()),
        };
        self.rows += 1;
        match differs {
            Some(column) => Err(Difference::Cell { row: self.rows, leaf: leaf.index, column }),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Difference> {
        if self.next()? { Err(Difference::Long(self.rows + 1)) } else { Ok(()) }
    }
}
