//! Delete: removes values for good. Answers item by item.

use std::collections::HashSet;

use strongroom_access::Action;
use strongroom_ids::{DekVersion, RowId};
use strongroom_keys::{DekOwner, DekPlace};
use strongroom_schema::Field;
use strongroom_storage::Store;

use crate::error::Error;
use crate::holders::Named;
use crate::idempotency::{Earlier, Key};
use crate::limits;
use crate::reading::{Denials, Refusal, malformed};
use crate::replace::{repeated, repeats};
use crate::resolve::{Found, Resolved};
use crate::road::{Attempt, Item, Prepared, Refused, Road};

/// A value to be removed.
pub struct DeleteItem {
    /// Its token.
    pub token: String,
    /// Whose hold on it ends, if several subjects share it; may be empty.
    pub subject: String,
}

/// A Delete request.
pub struct Delete {
    /// What to remove.
    pub items: Vec<DeleteItem>,
    /// Makes a retry safe; may be empty.
    pub idempotency_key: String,
}

type Answer = Vec<Result<(), Error>>;

impl<S: Store> Attempt<S> for Delete {
    type Answer = Answer;
    const ACTION: Action = Action::Delete;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Answer>, Refused> {
        self.within_limits(road)?;
        let mut prepared = road.prepare(Vec::with_capacity(self.items.len()));
        let key = self.idempotency(road);
        if let Earlier::Rows(rows, _) = road.earlier(key.as_ref(), &mut prepared.guards).await? {
            // The rows are gone, and with them their fields: who may delete nothing any more is not answered.
            let may = |field: &Field| road.case_loads().iter().any(|load| road.decide(field, None, *load).allowed);
            if !road.schema.fields().any(|field| may(field)) {
                return Err(Error::Denied { action: Action::Delete.as_str() }.into());
            }
            for row in rows {
                let gone = row != RowId(0);
                prepared.answer.push(if gone { Ok(()) } else { Err(Error::NotFound) });
                let row = gone.then_some(row);
                prepared.items.push(Item {
                    row,
                    outcome: if gone { "repeated" } else { "NOT_FOUND" },
                    ..Item::default()
                });
            }
            return Ok(prepared);
        }

        let named = self.items.iter().map(|item| (item.token.as_str(), item.subject.as_str()));
        let (resolved, named) = road.resolve_named(named, true, &mut prepared.guards).await?;
        limits::none(repeats(&resolved))?;
        let mut denials = Denials::default();
        let mut rows = Vec::with_capacity(self.items.len());
        for (item, resolved) in self.items.iter().zip(&resolved) {
            let result = match decide(road, item, resolved, &named, &mut denials) {
                Ok(found) => remove(road, item, found, &named, &mut denials, &mut prepared).await?,
                Err(refusal) => Err(*refusal),
            };
            let (row, result, leaf) = match result {
                Ok((row, leaf)) => (row, Ok(()), leaf),
                Err(refusal) => (RowId(0), Err(refusal.error), refusal.item),
            };
            rows.push(row);
            prepared.answer.push(result);
            prepared.items.push(leaf);
        }
        // A request of which nothing was done does not consume its key.
        if let Some(key) = key
            && rows.iter().any(|row| *row != RowId(0))
        {
            road.remember(key, rows, vec![], &mut prepared);
        }
        Ok(prepared)
    }
}

impl Delete {
    fn within_limits<S: Store>(&self, road: &Road<'_, S>) -> Result<(), Error> {
        let limits = &road.vault.limits;
        limits.items(self.items.len())?;
        limits.idempotency_key(&self.idempotency_key)?;
        let mut wrong = Vec::new();
        let mut seen = HashSet::new();
        for (index, item) in self.items.iter().enumerate() {
            wrong.extend(malformed(limits, index, &item.token));
            limits.subject(index, &item.subject, &mut wrong);
            if !seen.insert(item.token.as_str()) {
                wrong.push(repeated(index));
            }
        }
        limits::none(wrong)
    }

    fn idempotency<S: Store>(&self, road: &Road<'_, S>) -> Option<Key> {
        let parts: Vec<&[u8]> =
            self.items.iter().flat_map(|item| [item.token.as_bytes(), item.subject.as_bytes()]).collect();
        road.idempotency(&self.idempotency_key, &parts)
    }
}

fn decide<'r, S: Store>(
    road: &Road<'_, S>,
    item: &DeleteItem,
    resolved: &'r Resolved,
    named: &Named<'_>,
    denials: &mut Denials,
) -> Result<&'r Found, Box<Refusal>> {
    // What has expired may still be deleted: that is less than what was stored, and nothing is read.
    let (Resolved::Value(found) | Resolved::Expired(found)) = resolved else {
        return Err(Box::new(denials.not_found(road, &item.token, resolved)));
    };
    let load = road.case_load(found, &item.subject, Some(named));
    match road.decide(&found.field, None, load).allowed {
        true => Ok(found),
        false => Err(Box::new(denials.refuse(road, &item.token, found, None, load))),
    }
}

/// Transform: a value goes with its last holder.
async fn remove<S: Store>(
    road: &Road<'_, S>,
    item: &DeleteItem,
    found: &Found,
    named: &Named<'_>,
    denials: &mut Denials,
    prepared: &mut Prepared<Answer>,
) -> Result<Result<(RowId, Item), Refusal>, Error> {
    let Some(holder) = road.holder(found, &item.subject, named, &mut prepared.guards) else {
        return Ok(Err(denials.not_a_holder(road, &item.token, found)));
    };
    prepared
        .guards
        .push(strongroom_commit::Guard::Unchanged(strongroom_commit::Fact::row(road.tenant.number, found.id)));
    road.guard_case_load(holder, &mut prepared.guards);
    let mut free = road.unfrozen_value(found).and_then(|()| named.not_leaving(holder));
    if free.is_ok() {
        free = road.not_held_by_any(found, &[holder], prepared).await;
    }
    if let Err(error) = free {
        if !matches!(error, Error::Frozen { .. } | Error::SubjectLeaving { .. } | Error::LegalHold) {
            return Err(error);
        }
        return Ok(Err(Refusal { item: found.item(error.reason()), error }));
    }
    let last = road.has_one_holder(found, prepared).await?;
    if !named.holds(found, holder) {
        // Subjects hold it, and nobody was named: whose hold should end?
        let error = Error::SubjectRequired;
        return Ok(Err(Refusal { item: found.item(error.reason()), error }));
    }
    road.remove_holding(found, holder, prepared);
    let mut outcome = "released";
    if last {
        outcome = "deleted";
        road.remove_value(found, prepared);
        road.mark_dek(found, prepared);
        if found.subject.is_none() {
            prepared.forget.push(DekPlace {
                tenant: road.tenant.id,
                keyring: found.row.keyring,
                owner: DekOwner::Value(found.id),
                version: DekVersion(found.row.dek_version.0),
            });
        }
    }
    Ok(Ok((found.id, Item { subject: Some(holder), version: Some(found.row.version), ..found.item(outcome) })))
}
