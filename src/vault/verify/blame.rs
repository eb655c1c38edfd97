//! Which leaf says so: each finding of a row is given the leaf that records it, or that removed it.
//!
//! Only what is there now is in memory. What was removed since, and older versions, the leaves are asked for: they are read
//! once more, and only if there is a finding that needs it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use strongroom_ids::{RowId, SubjectHandle};
use strongroom_ledger::leaf::{self, ParsedItem};
use strongroom_storage::{Entry, Family, Store, StoreError};

use super::finding::{Fault, Finding, Kind, LeafRef, Place};
use super::history::{ERASED, History, REMOVED};
use super::{Check, ahead};
use crate::pages::Pages;

/// What leaves are asked for.
struct Wanted<'w> {
    rows: HashSet<RowId>,
    subjects: HashSet<SubjectHandle>,
    hashes: &'w HashMap<[u8; 32], (Kind, Place)>,
}

/// What a leaf says of that.
enum Said {
    /// A value or subject is gone, in these words.
    Gone(Place, &'static str),
    /// It wrote the row with this hash, which was a place's.
    Wrote([u8; 32], Place),
}

impl Wanted<'_> {
    fn of(&self, item: &ParsedItem) -> Option<Said> {
        let (row, subject) = (item.row, item.subject);
        if let Some((hash, (kind, _))) = item.hash.and_then(|hash| self.hashes.get_key_value(&hash)) {
            let place = if *kind == Kind::Subject { subject.map(Place::Subject) } else { row.map(Place::Row) };
            return place.map(|place| Said::Wrote(*hash, place));
        }
        if item.outcome == ERASED {
            let gone = subject.filter(|subject| self.subjects.contains(subject))?;
            return Some(Said::Gone(Place::Subject(gone), "erased it"));
        }
        let gone = row.filter(|row| REMOVED.contains(&item.outcome.as_str()) && self.rows.contains(row))?;
        Some(Said::Gone(Place::Row(gone), "removed it"))
    }
}

impl<S: Store> Check<'_, S> {
    /// Gives findings of rows and subjects their leaf. All of them must have been made.
    pub(super) async fn blame(&mut self, history: &History) -> Result<(), StoreError> {
        let name = Arc::clone(&self.name);
        let strange = std::mem::take(&mut self.strange);
        let mut wanted = Wanted { rows: HashSet::new(), subjects: HashSet::new(), hashes: &strange };
        for finding in self.findings.kept.iter_mut().filter(|finding| finding.leaf.is_none()) {
            let leaf = match &finding.place {
                Place::Row(row) => {
                    let value = history.values.get(row).map(|value| value.leaf);
                    wanted.rows.extend(value.is_none().then_some(*row));
                    value
                }
                Place::Subject(handle) => {
                    let subject = history.subjects.get(handle).map(|subject| subject.leaf);
                    wanted.subjects.extend(subject.is_none().then_some(*handle));
                    subject
                }
                _ => None,
            };
            finding.leaf = leaf.map(|index| LeafRef { log: Arc::clone(&name), index });
        }
        if wanted.rows.is_empty() && wanted.subjects.is_empty() && strange.is_empty() {
            return Ok(());
        }
        let (mut gone, mut wrote) = (HashMap::new(), HashMap::new());
        let asked = &wanted;
        let look = async |page: Vec<Entry>| {
            let leaves = page.iter().filter_map(|(_, line)| leaf::parse(line).ok());
            let leaves = leaves.filter(|leaf| leaf.decision == "allow");
            let said = leaves.flat_map(|leaf| {
                let index = leaf.index;
                leaf.items.into_iter().filter_map(move |item| Some((index, asked.of(&item)?)))
            });
            Ok::<_, StoreError>(said.collect::<Vec<_>>())
        };
        let take = |said: Vec<(u64, Said)>| {
            for (leaf, said) in said {
                match said {
                    Said::Gone(place, how) => drop(gone.insert(place, (leaf, how))),
                    Said::Wrote(hash, place) => drop(wrote.insert(hash, (leaf, place))),
                }
            }
        };
        let pages = Pages::of_tenant(Family::Leaves, self.number).of(ahead::PAGE);
        ahead::pages((self.store, pages, self.threads), look, take).await?;
        let archived = self.archived.end;
        for finding in self.findings.kept.iter_mut().filter(|finding| finding.leaf.is_none()) {
            say_gone(finding, &gone, archived);
        }
        let wrote: HashMap<&(Kind, Place), (u64, Place)> =
            wrote.into_iter().filter_map(|(hash, wrote)| Some((strange.get(&hash)?, wrote))).collect();
        for at in 0..self.findings.kept.len() {
            let Some(finding) = self.findings.kept.get_mut(at) else { continue };
            let Some((leaf, place)) = wrote.get(&(finding.kind, finding.place.clone())) else { continue };
            let whose = if *place == finding.place { String::new() } else { format!(" for {place}") };
            finding.what = format!("{}; leaf {leaf} wrote what stands here{whose}", finding.what);
            if *place != finding.place {
                finding.elsewhere.get_or_insert_with(|| place.clone());
            } else if finding.fault == Fault::Changed {
                self.findings.mend(at, Fault::RolledBack);
            }
        }
        Ok(())
    }
}

/// Adds which leaf removed what is there again, or is led to.
fn say_gone(finding: &mut Finding, gone: &HashMap<Place, (u64, &'static str)>, archived: u64) {
    if let Some((leaf, how)) = gone.get(&finding.place) {
        finding.leaf = Some(LeafRef { log: Arc::clone(&finding.tenant), index: *leaf });
        finding.what = format!("{}; leaf {leaf} {how}", finding.what);
    } else if archived > 0 && matches!(finding.place, Place::Row(_) | Place::Subject(_)) {
        finding.what =
            format!("{}; no leaf from {archived} on removed it, and those before are archived", finding.what);
    }
}
