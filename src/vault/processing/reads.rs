//! Reads: who read which field for what, and how often, as the ledger says.

use std::collections::{BTreeMap, BTreeSet};

use strongroom_ledger::filter::Filter;
use strongroom_ledger::{Timestamp, leaf};
use strongroom_storage::Store;

use super::{ProcessingReport, UNREADABLE, is_told, read_actions};
use crate::error::Error;
use crate::export::ArchivedReads;
use crate::road::Caller;
use crate::vault::Vault;

/// Values of which reads are counted, at most: some minutes' work. What is told apart bounds the memory.
const COUNTED: u64 = 100_000_000;
/// Fields, principals and purposes that are told apart, at most.
const TOLD_APART: usize = 10_000;

/// How often somebody read a field for a purpose.
pub struct FieldReads {
    /// Role and name.
    pub principal: String,
    /// Why.
    pub purpose: String,
    /// How many values.
    pub values: u64,
    /// When the last time, in microseconds since 1970.
    pub last: u64,
}

/// Who read what is listed under no field now: it was called otherwise then, or nothing of it is left.
pub struct EarlierReads {
    /// What it was called.
    pub field: String,
    /// Who read it.
    pub reads: Vec<FieldReads>,
}

/// Who read for what: how many values, and when the last time.
type OfField = BTreeMap<(String, String), (u64, u64)>;

/// What was read of a tenant.
#[derive(Default)]
pub(super) struct Reads {
    fields: BTreeMap<String, OfField>,
    told_apart: usize,
    counted: u64,
    /// Whether there is more than was counted.
    pub more: bool,
    /// Older leaves in which they were not counted, since these are archived.
    pub archived: Option<ArchivedReads>,
}

impl Reads {
    /// Who has read anything.
    pub fn principals(&self) -> BTreeSet<String> {
        self.fields.values().flat_map(|reads| reads.keys().map(|(principal, _)| principal.clone())).collect()
    }

    /// Takes out who has read a field.
    pub fn of(&mut self, field: &str) -> Vec<FieldReads> {
        listed(self.fields.remove(field).unwrap_or_default())
    }

    /// The rest, by names that no field has now which was taken out: leaves say what a field was called.
    pub fn rest(self) -> Vec<EarlierReads> {
        let rest = self.fields.into_iter();
        rest.map(|(field, reads)| EarlierReads { field, reads: listed(reads) }).collect()
    }

    fn add(&mut self, field: &str, principal: &str, purpose: &str, time: Timestamp) {
        self.counted += 1;
        let of = (principal.to_owned(), purpose.to_owned());
        let known = self.fields.get(field).is_some_and(|reads| reads.contains_key(&of));
        if !known && self.told_apart == TOLD_APART {
            self.more = true;
            return;
        }
        self.told_apart += usize::from(!known);
        let reads = self.fields.entry(field.to_owned()).or_default();
        let (values, last) = reads.entry(of).or_default();
        *values += 1;
        *last = time.0;
    }
}

fn listed(reads: OfField) -> Vec<FieldReads> {
    let reads = reads.into_iter();
    reads.map(|((principal, purpose), (values, last))| FieldReads { principal, purpose, values, last }).collect()
}

impl<S: Store> Vault<S> {
    /// Counts what was read of the caller's tenant, before `end`.
    pub(super) async fn reads(&self, caller: &Caller, asked: &ProcessingReport, end: u64) -> Result<Reads, Error> {
        let filter = Filter {
            from: asked.from.map(Timestamp),
            to: asked.to.map(Timestamp),
            actions: Some(read_actions()),
            decision: Some("allow".to_owned()),
            ..Filter::default()
        };
        let (range, archived) = self.where_to_look(caller, end, &filter).await?;
        let mut reads = Reads { archived, ..Reads::default() };
        let mut pages = self.leaves_that_fit(caller, range, Filter { from: None, to: None, ..filter }).await?;
        while let Some(page) = pages.next().await? {
            for line in &page.leaves {
                let leaf = leaf::parse(line).map_err(|_| UNREADABLE)?;
                let purpose = leaf.purpose.as_deref().unwrap_or_default();
                for item in leaf.items.iter().filter(|item| is_told(item)) {
                    if let Some(field) = &item.field {
                        reads.add(field, &leaf.principal, purpose, leaf.time);
                    }
                }
                if reads.counted >= COUNTED {
                    reads.more = true;
                    return Ok(reads);
                }
            }
        }
        Ok(reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_apart_has_an_end_and_what_is_known_goes_on_being_counted() {
        let mut reads = Reads::default();
        for number in 0..TOLD_APART {
            reads.add("a.b", &format!("app/{number}"), "kyc", Timestamp(1));
        }
        assert!(!reads.more);
        reads.add("a.b", "app/more", "kyc", Timestamp(2));
        reads.add("a.b", "app/7", "kyc", Timestamp(3));
        assert!(reads.more && reads.principals().len() == TOLD_APART);
        let of = reads.of("a.b");
        let seven = of.iter().find(|one| one.principal == "app/7").unwrap();
        assert_eq!((of.len(), seven.values, seven.last), (TOLD_APART, 2, 3));
        assert!(reads.rest().is_empty());
    }
}
