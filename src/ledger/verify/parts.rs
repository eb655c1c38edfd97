//! Parts of large requests: one after the other, all of them, of the same request.

use super::Fault;
use super::outline::Outline;
use crate::leaf::Part;

/// The request whose parts are being read.
#[derive(Default)]
pub(super) struct Parts {
    open: Option<([u8; 16], Part)>,
}

impl Parts {
    /// Takes the next leaf.
    pub fn step(&mut self, leaf: &Outline<'_>, line: u64) -> Result<(), Fault> {
        let follows = match (self.open, leaf.part) {
            (None, None) => true,
            (None, Some(part)) => part.which == 1 && part.of > 1,
            (Some(_), None) => false,
            (Some((request, last)), Some(part)) => {
                part.of == last.of && part.which.checked_sub(1) == Some(last.which) && leaf.request == request
            }
        };
        if !follows {
            return Err(Fault::Part { line, index: leaf.index, begun: self.open.is_some() });
        }
        self.open = leaf.part.filter(|part| part.which < part.of).map(|part| (leaf.request, part));
        Ok(())
    }

    /// The log ends here, after `size` leaves.
    pub fn end(&self, size: u64) -> Result<(), Fault> {
        if self.open.is_some() { Err(Fault::PartsMissing { size }) } else { Ok(()) }
    }
}
