//! The leaves as they are.

use std::io::Write;

use crate::{ExportError, Form};

/// One leaf a line.
pub(crate) struct Jsonl<W>(pub W);

impl<W: Write> Form for Jsonl<W> {
    fn leaf(&mut self, line: &[u8]) -> Result<(), ExportError> {
        self.0.write_all(line)?;
        Ok(self.0.write_all(b"\n")?)
    }

    fn end(&mut self) -> Result<(), ExportError> {
        Ok(self.0.flush()?)
    }
}
