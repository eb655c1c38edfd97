//! Lookup: finds the tokens of a field that stand for exactly this value, through the field's blind index.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use strongroom_access::{Action, CaseLoad, Consent};
use strongroom_commit::{Guard, Use};
use strongroom_ids::RowId;
use strongroom_schema::{Field, Purpose};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind};
use strongroom_storage::{Family, Range, Store};

use crate::error::{Error, Violation};
use crate::holders::Named;
use crate::limits;
use crate::reading::{Denials, Refusal, lists};
use crate::resolve::Resolved;
use crate::road::{Attempt, Item, Prepared, Refused, Road};
use crate::standing::Relation;
use crate::values::{lookup_fact, lookup_prefix};

/// Tokens that a call answers, over all its items.
const FOUND_IN_ALL: usize = 10_000;
/// Rows that a call looks at where they are told apart by their subjects, over all its items: for a person behind a service, and
/// for a purpose that rests on consent.
const LOOKED_AT: usize = 10_000;
/// Rows of a value that are found at the least, however many items a call has.
const OF_EACH: usize = 100;
/// The outcome of a value of which nothing was found: nobody was told of a value that is stored.
pub(crate) const FOUND_NONE: &str = "none";

/// A value to look for.
pub struct LookupItem {
    /// The field's name.
    pub field: String,
    /// The value.
    pub value: bytes::Bytes,
}

/// A Lookup request.
pub struct Lookup {
    /// What to look for.
    pub items: Vec<LookupItem>,
    /// Why.
    pub purpose: String,
}

/// The tokens that stand for a value.
#[derive(Debug, Default)]
pub struct FoundTokens {
    /// The tokens, oldest first.
    pub tokens: Vec<String>,
    /// There are more than an answer carries. For a person behind a service, and for a purpose that rests on consent: more that
    /// may be seen, among the first 10,000 rows of a call.
    pub more: bool,
}

type Answer = Vec<Result<FoundTokens, Error>>;

impl<S: Store> Attempt<S> for Lookup {
    type Answer = Answer;
    const ACTION: Action = Action::Lookup;

    fn purpose(&self) -> Option<&str> {
        Some(&self.purpose)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Answer>, Refused> {
        let limits = &road.vault.limits;
        limits.items(self.items.len())?;
        limits.message(self.items.iter().map(|item| item.value.len()).sum())?;
        let purpose = road.purpose_declared(&self.purpose)?;
        // Rows of a value are told apart by their subjects.
        let selective = road.caller.actor.is_some() || purpose.consent;
        self.repeated(self.items.iter().map(|item| Some((item.field.as_str(), &item.value))))?;
        let mut denials = Denials::default();
        let entries: Vec<_> =
            (0..self.items.len()).map(|index| self.entry(road, purpose, index, &mut denials)).collect();
        // The same where two spellings are one value.
        self.repeated(entries.iter().map(|entry| entry.as_ref().ok().map(|one| (one.field.number, one.mac()))))?;

        let mut prepared = road.prepare(Vec::with_capacity(self.items.len()));
        let mut left = FOUND_IN_ALL;
        let looks = match selective {
            false => limits.found + 1,
            true => (LOOKED_AT / self.items.len().max(1)).max(OF_EACH),
        };
        let mut searched = Vec::with_capacity(entries.len());
        for entry in entries {
            searched.push(match entry {
                Ok(wanted) => Ok(self.search(road, wanted, selective, looks, &mut left, &mut prepared).await?),
                Err(refusal) => Err(refusal),
            });
        }
        if selective {
            let most = share(searched.iter().flatten().map(|found| found.rows.len()).collect());
            searched.iter_mut().flatten().for_each(|found| found.rows.truncate(most));
        }
        let mut charge = road.charge();
        let mut size = 0_usize;
        for searched in searched {
            let found = match searched {
                Ok(searched) => Ok(read(road, purpose, searched, selective, &mut left, &mut prepared).await?),
                Err(refusal) => {
                    prepared.items.push(refusal.item);
                    Err(refusal.error)
                }
            };
            if let Ok(found) = &found {
                if let Some(charge) = &mut charge {
                    charge.uses.push(Use::Asked { row: None, missed: found.tokens.is_empty() });
                }
                size = found.tokens.iter().fold(size, |size, token| size.saturating_add(token.len()));
            }
            let limit = limits.message;
            if size > limit {
                return Err(Refused { error: Error::AnswerTooLarge { size, limit }, items: prepared.items });
            }
            prepared.answer.push(found);
        }
        prepared.charge = charge;
        Ok(prepared)
    }
}

/// A value that may be looked for, and the index entries that it may have: one for each version of the index key.
struct Wanted {
    field: Arc<Field>,
    entries: Vec<IndexEntry>,
}

impl Wanted {
    /// By which two spellings of one value are known.
    fn mac(&self) -> Option<[u8; 32]> {
        self.entries.first().map(|entry| entry.mac)
    }
}

/// The rows that an index has of a value, oldest first.
struct Searched {
    field: Arc<Field>,
    rows: Vec<RowId>,
    more: bool,
}

impl Lookup {
    /// Refuses a call that asks the same twice: a small request would have a large answer, and a larger leaf.
    fn repeated<K: Eq + Hash>(&self, asked: impl Iterator<Item = Option<K>>) -> Result<(), Error> {
        let mut seen = HashSet::with_capacity(self.items.len());
        let again = |asked: Option<K>| asked.is_some_and(|asked| !seen.insert(asked));
        let again: Vec<bool> = asked.map(again).collect();
        let repeated = (0..).zip(again).filter(|(_, again)| *again).map(|(index, _): (usize, _)| {
            let description = "each value of a field may stand in a call once";
            Violation::new(format!("items[{index}].value"), "repeated", description)
        });
        limits::none(repeated.collect())
    }

    /// Resolve, decide and validate one item: the index entries that the value may have.
    fn entry<S: Store>(
        &self,
        road: &Road<'_, S>,
        purpose: &Purpose,
        index: usize,
        denials: &mut Denials,
    ) -> Result<Wanted, Box<Refusal>> {
        let item = &self.items[index];
        let Some(field) = road.schema.field(&item.field) else {
            let error = Error::Invalid(vec![crate::tokenize::unknown_field(index)]);
            let sent = Some(road.fingerprint(item.field.as_bytes()));
            let item = Item { outcome: "FIELD_UNKNOWN", sent, ..Item::default() };
            return Err(Box::new(Refusal { error, item }));
        };
        let refuse = |error: Error| {
            let item = Item { field: Some(field.full_name.clone()), outcome: error.reason(), ..Item::default() };
            Box::new(Refusal { error, item })
        };
        // Whose case what is found will be, and whether that one consents, shows when it is found.
        let any = |load: CaseLoad| match purpose.consent {
            true => Relation::from(load).consenting(),
            false => load.into(),
        };
        let may = || road.case_loads().iter().any(|load| road.decide(field, None, any(*load)).allowed);
        if !lists(field, &self.purpose) || !may() {
            return Err(refuse(denials.why(road, field, None, any(CaseLoad::None))));
        }
        road.unfrozen(field).map_err(refuse)?;
        if !field.lookup {
            let description = "the schema declares this field without `lookup`";
            return Err(refuse(Error::invalid(format!("items[{index}].field"), "lookup_not_declared", description)));
        }
        let mut wrong: Vec<Violation> = Vec::new();
        road.vault.limits.value(index, &item.value, &mut wrong);
        if !wrong.is_empty() {
            return Err(refuse(Error::Invalid(wrong)));
        }
        match road.value_indexes(field, &item.value) {
            Ok(entries) if entries.is_empty() => {
                Err(refuse(Error::Internal("a field with lookup but without an index")))
            }
            Ok(entries) => Ok(Wanted { field: Arc::clone(field), entries }),
            Err(Error::Invalid(broken)) => {
                let path = format!("items[{index}].value");
                let at = |one: Violation| Violation { path: path.clone(), ..one };
                Err(refuse(Error::Invalid(broken.into_iter().map(at).collect())))
            }
            Err(error) => Err(refuse(error)),
        }
    }

    /// Looks up the rows of a value, so many at the most: keys only, so that what would be too much is refused before a row is
    /// read. Where rows are told apart by their subjects that is not known before: of those that are left out nothing is told,
    /// not even that there are too many.
    async fn search<S: Store>(
        &self,
        road: &Road<'_, S>,
        Wanted { field, entries }: Wanted,
        selective: bool,
        looks: usize,
        left: &mut usize,
        prepared: &mut Prepared<Answer>,
    ) -> Result<Searched, Error> {
        let tenant = road.tenant.number;
        let most = road.vault.limits.found;
        let mut rows: Vec<RowId> = Vec::new();
        for entry in &entries {
            prepared.guards.push(Guard::Unchanged(lookup_fact(tenant, &field, entry)));
            let prefix = lookup_prefix(tenant, &field, entry);
            let range = Range { to: place::prefix_end(&prefix), from: prefix, limit: looks };
            for (key, leads_to) in road.vault.store.scan(Family::Index, range).await? {
                rows.push(match entry.kind {
                    IndexKind::Value => place::decode_value_index(&key)?,
                    _ => place::decode_row_id(&leads_to)?,
                });
            }
        }
        rows.sort_unstable();
        if selective {
            rows.truncate(looks);
            return Ok(Searched { field, rows, more: false });
        }
        let more = rows.len() > most;
        rows.truncate(most);
        take(left, rows.len())?;
        Ok(Searched { field, rows, more })
    }
}

/// How many rows of each value are looked at, so that they are not too many together: all, where there are few.
fn share(mut found: Vec<usize>) -> usize {
    found.sort_unstable();
    let mut left = LOOKED_AT;
    for (before, rows) in found.iter().enumerate() {
        let share = left / (found.len() - before);
        if *rows > share {
            return share;
        }
        left -= rows;
    }
    LOOKED_AT
}

/// Takes tokens out of what a call may still answer.
fn take(left: &mut usize, found: usize) -> Result<(), Error> {
    *left = left.checked_sub(found).ok_or_else(|| {
        let description = format!(
            "more than {FOUND_IN_ALL} tokens stand for these values, and a call answers at most as many: ask for \
             fewer items at once"
        );
        Error::invalid("items", "too_many_found", description)
    })?;
    Ok(())
}

/// Reads the rows of a value, and makes their tokens.
async fn read<S: Store>(
    road: &Road<'_, S>,
    purpose: &Purpose,
    Searched { field, rows, more }: Searched,
    selective: bool,
    left: &mut usize,
    prepared: &mut Prepared<Answer>,
) -> Result<FoundTokens, Error> {
    let limits = &road.vault.limits;
    let most = limits.found;
    // In pages that are never too large for memory: a refusal would tell of what is left out.
    let page = match selective {
        false => rows.len(),
        true => limits.message / limits.value.max(1),
    };
    let mut found = FoundTokens { tokens: Vec::with_capacity(rows.len().min(most)), more };
    'pages: for page in rows.chunks(page.max(1)) {
        let mut page = road.resolve_rows(page).await?;
        let nobody = std::iter::repeat("");
        road.by_holders(nobody.zip(&mut page), &Named::default(), &mut prepared.guards).await?;
        for resolved in page {
            let Resolved::Value(value) = resolved else { continue };
            value.guards(road.tenant.number, &mut prepared.guards);
            road.guard_case_load(value.row.subject, &mut prepared.guards);
            if selective {
                let relation = road.relation(purpose, &value, "", None, &mut prepared.guards);
                if !road.decide(&field, None, relation).allowed {
                    // Somebody else's case, or nobody who consents: to this caller there is none.
                    let withheld = relation.consent == Consent::Absent;
                    prepared.items.push(value.item(if withheld { "CONSENT_REQUIRED" } else { "DENIED" }));
                    continue;
                }
            }
            if let Err(error) = road.unfrozen_value(&value) {
                // Its subject is leaving: it is not told of.
                prepared.items.push(value.item(error.reason()));
                continue;
            }
            if found.tokens.len() == most {
                found.more = true;
                break 'pages;
            }
            found.tokens.push(road.token_of(&value)?);
            prepared.items.push(value.item("found"));
        }
    }
    if selective {
        take(left, found.tokens.len())?;
    }
    if found.tokens.is_empty() {
        found.more = false;
        prepared.items.push(Item { field: Some(Arc::clone(&field.full_name)), outcome: FOUND_NONE, ..Item::default() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_looked_at_are_shared_out_and_values_with_few_have_all_of_theirs() {
        assert_eq!(share(vec![]), LOOKED_AT);
        assert_eq!(share(vec![10_000]), 10_000);
        assert_eq!(share(vec![9_000, 3]), LOOKED_AT);
        let found = vec![9_000, 3, 9_000, 97];
        let most = share(found.clone());
        assert_eq!(most, 4_950);
        assert_eq!(found.iter().map(|rows| rows.min(&most)).sum::<usize>(), LOOKED_AT);
        assert_eq!(share(vec![100; 10_000]), 1);
    }
}
