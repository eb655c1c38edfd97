//! What a value takes on disk, by kinds of entries.

use serde_json::{Value, json};
use strongroom_storage::Family;

use super::disk::{Files, Held};
use super::population::VALUE;
use super::sheet::{Sheet, figure, rounded};

/// What borrowers' values take.
pub struct Footprint {
    /// What was there after the fill.
    pub held: Vec<Held>,
    /// Bytes of the families' files before it.
    pub before: Files,
    /// Values that were stored.
    pub values: u64,
}

impl Footprint {
    fn a_value(&self, bytes: u64) -> f64 {
        bytes as f64 / self.values as f64
    }

    fn files(&self, of: impl Fn(Family) -> bool) -> f64 {
        let of_family = |(held, before): (&Held, &u64)| held.files.saturating_sub(*before);
        let families = self.held.iter().zip(&self.before).filter(|(held, _)| of(held.family));
        self.a_value(families.map(of_family).sum())
    }

    /// Bytes on disk for a value, its share of indexes and of its subject's record included, without the ledger.
    pub fn stored(&self) -> f64 {
        self.files(|family| family != Family::Leaves)
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let families = self.held.iter().zip(&self.before).map(|(held, before)| {
            json!({
                "family": held.family.name(),
                "entries_per_value": self.a_value(held.entries),
                "bytes_per_value": self.a_value(held.bytes),
                "disk_bytes_per_value": self.a_value(held.files.saturating_sub(*before)),
            })
        });
        json!({
            "values": self.values,
            "plain_bytes_per_value": VALUE,
            "disk_bytes_per_value": rounded(self.files(|_| true)),
            "stored_bytes_per_value": rounded(self.stored()),
            "families": families.collect::<Vec<_>>(),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let rows = self.held.iter().zip(&self.before).filter(|(held, _)| held.entries > 0).map(|(held, before)| {
            vec![
                held.family.name().to_owned(),
                figure(self.a_value(held.entries), 3),
                figure(self.a_value(held.bytes), 1),
                figure(self.a_value(held.files.saturating_sub(*before)), 1),
            ]
        });
        Sheet {
            title: "On disk",
            header: vec!["family", "entries a value", "bytes a value, uncompressed", "on disk"],
            rows: rows.collect(),
            below: format!(
                "{} values of {VALUE} bytes, tokenized in batches of whole borrowers, after compaction: {} bytes a value, \
                 and {} with the ledger.",
                figure(self.values as f64, 0),
                figure(self.stored(), 0),
                figure(self.files(|_| true), 0),
            ),
        }
    }
}
