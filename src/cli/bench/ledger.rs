//! What the ledger takes on disk, compressed: the family of leaves, measured apart from all else.

use serde_json::{Value, json};

use super::sheet::{Sheet, rounded, short};

/// Bytes of leaves on disk that requests of one kind brought.
#[derive(Clone, Copy, Debug)]
pub struct Leaves {
    /// A request of one value.
    pub unary: f64,
    /// A batch.
    pub batch: f64,
    /// Values of that batch.
    pub items: f64,
}

impl Leaves {
    /// Bytes for each value of a batch beyond its first.
    pub fn further(&self) -> f64 {
        (self.batch - self.unary) / (self.items - 1.0)
    }
}

/// The ledger's share of the disk.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    /// Of values in.
    pub tokenize: Leaves,
    /// Of values out.
    pub detokenize: Leaves,
}

impl Ledger {
    /// Bytes of a request of one value, of the kind that takes more.
    pub fn unary(&self) -> f64 {
        self.tokenize.unary.max(self.detokenize.unary)
    }

    /// Bytes of a further value, of the kind that takes more.
    pub fn further(&self) -> f64 {
        self.tokenize.further().max(self.detokenize.further())
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let one = |leaves: &Leaves| {
            json!({
                "bytes_per_unary_request": rounded(leaves.unary),
                "bytes_per_further_item": rounded(leaves.further()),
                "bytes_per_batch": rounded(leaves.batch),
                "batch_items": leaves.items,
            })
        };
        json!({ "tokenize": one(&self.tokenize), "detokenize": one(&self.detokenize) })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let row = |name: &str, leaves: &Leaves| {
            vec![name.to_owned(), short(leaves.unary), short(leaves.further()), short(leaves.batch)]
        };
        Sheet {
            title: "The ledger on disk",
            header: vec!["requests", "bytes a request of one value", "bytes a further value", "bytes a batch"],
            rows: vec![row("Tokenize", &self.tokenize), row("Detokenize", &self.detokenize)],
            below: format!(
                "Files of the leaves alone, after compaction with compression. A batch has {:.0} values of whole \
                 borrowers; a Tokenize of them also records each new borrower.",
                self.tokenize.items
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_value_is_what_a_batch_takes_beyond_its_first() {
        let tokenize = Leaves { unary: 200.0, batch: 200.0 + 99.0 * 50.0, items: 100.0 };
        let detokenize = Leaves { unary: 220.0, batch: 220.0 + 99.0 * 40.0, items: 100.0 };
        let ledger = Ledger { tokenize, detokenize };
        assert_eq!((ledger.unary(), ledger.further()), (220.0, 50.0));
    }
}
