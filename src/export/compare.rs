//! Whether a file was made of these leaves: it is made anew, and held against what is there.

use std::io::{self, BufRead, Read, Write};

use thiserror::Error;

use crate::{ExportError, Format, convert};

/// Where a file is not what the leaves give.
#[derive(Debug, Error)]
pub enum Difference {
    /// Something else stands there.
    #[error("from byte {byte} on, in line {line}, it is not what the leaves give")]
    At {
        /// Which byte, from 1.
        byte: u64,
        /// In which line, from 1.
        line: u64,
    },
    /// It ends too early.
    #[error("it ends after {0} bytes, before all leaves are in it")]
    Short(u64),
    /// There is more.
    #[error("more follows after the last leaf, from byte {0} on")]
    Long(u64),
    /// It can't be made anew, or read.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Compares a file with what leaves give in its form.
pub fn compare(
    format: Format,
    origin: &str,
    lines: impl BufRead,
    file: impl Read + Send,
    done: impl FnMut(u64),
) -> Result<(), Difference> {
    let mut held = Held { file, there: vec![], bytes: 0, line: 1, found: None };
    let converted = convert(format, origin, lines, &mut held, done);
    // Whoever writes is told that it can't, so that nothing more is made.
    if let Some(found) = held.found {
        return Err(found);
    }
    converted?;
    match held.file.read(&mut [0]).map_err(ExportError::from)? {
        0 => Ok(()),
        _ => Err(Difference::Long(held.bytes + 1)),
    }
}

/// Takes what would be written, and holds it against a file.
struct Held<R> {
    file: R,
    there: Vec<u8>,
    bytes: u64,
    line: u64,
    found: Option<Difference>,
}

impl<R: Read> Write for Held<R> {
    fn write(&mut self, made: &[u8]) -> io::Result<usize> {
        // Writers try once more when they are dropped.
        if self.found.is_some() {
            return Err(io::Error::other("it differs"));
        }
        self.there.clear();
        (&mut self.file).take(made.len() as u64).read_to_end(&mut self.there)?;
        let same = made.iter().zip(&self.there).take_while(|(one, other)| one == other).count();
        self.line += made[..same].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.bytes += same as u64;
        if same == made.len() {
            return Ok(same);
        }
        self.found = Some(match same == self.there.len() {
            true => Difference::Short(self.bytes),
            false => Difference::At { byte: self.bytes + 1, line: self.line },
        });
        Err(io::Error::other("it differs"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
