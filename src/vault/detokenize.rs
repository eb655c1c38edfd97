//! Detokenize: tokens in, views of their values out. Answers item by item.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use strongroom_access::Action;
use strongroom_commit::Shown;
use strongroom_ids::{FieldNo, SubjectHandle};
use strongroom_keys::{Plaintext, Sealed};
use strongroom_schema::Purpose;
use strongroom_storage::Store;

use crate::charge::read_of;
use crate::error::{Error, Violation};
use crate::holders::Named;
use crate::reading::{Denials, Refusal, lists, malformed};
use crate::resolve::{Found, Resolved};
use crate::road::{Attempt, Item, OK, Prepared, Refused, Road, make_way};
use crate::standing::Relation;

/// The view of who asks for none.
const DEFAULT_VIEW: &str = "masked";

/// An answer of fewer bytes is counted when it is there.
const SMALL: usize = 64 << 10;
/// When a request that found no memory for its answer should try again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A value to be read.
pub struct ReadItem {
    /// Its token.
    pub token: String,
    /// The view that is wanted; empty for the request's.
    pub view: String,
    /// Whose value is meant, if several subjects share it; may be empty.
    pub subject: String,
}

/// A Detokenize request.
pub struct Detokenize {
    /// What to read.
    pub items: Vec<ReadItem>,
    /// Why.
    pub purpose: String,
    /// The view for items that name none; empty for the masked one.
    pub view: String,
}

/// A view of a value, wiped when it has been sent.
pub struct Released {
    /// The view.
    pub value: Plaintext,
    /// The name of the value's field.
    pub field: Arc<str>,
}

/// How policy decides on a field's view, once for all items of a request that ask alike.
struct Decisions<'r> {
    purpose: &'r Purpose,
    allowed: HashMap<(FieldNo, &'r str, Relation), bool>,
    /// How much a view shows, where that is counted.
    shown: HashMap<(FieldNo, &'r str), Shown>,
    denials: Denials,
}

impl<S: Store> Attempt<S> for Detokenize {
    type Answer = Vec<Result<Released, Error>>;
    const ACTION: Action = Action::Detokenize;

    fn purpose(&self) -> Option<&str> {
        Some(&self.purpose)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.vault.limits.items(self.items.len())?;
        let purpose = road.purpose_declared(&self.purpose)?;
        let mut prepared = road.prepare(Vec::with_capacity(self.items.len()));
        prepared.items.reserve(self.items.len());
        let named = self.items.iter().map(|item| (item.token.as_str(), item.subject.as_str()));
        let (resolved, named) = road.resolve_named(named, false, &mut prepared.guards).await?;

        let mut charge = road.charge();
        let (allowed, shown, denials) = Default::default();
        let mut decisions = Decisions { purpose, allowed, shown, denials };
        let (mut size, mut sealed) = (0_usize, 0_usize);
        for (index, resolved) in resolved.iter().enumerate() {
            make_way(index).await;
            let answer = match self.decide(road, index, resolved, &named, &mut decisions, &mut prepared) {
                Ok((found, view, holder)) => {
                    sealed = sealed.saturating_add(found.row.sealed.len());
                    reserve_room(road, sealed)?;
                    if let Some(charge) = &mut charge
                        && let Some(declared) = found.field.view(view)
                    {
                        let shown = decisions.shown.entry((found.field.number, view));
                        let shown = *shown.or_insert_with(|| road.shown(declared));
                        charge.uses.push(read_of(found, shown, holder));
                    }
                    let released = release(road, found, view)?;
                    size = size.saturating_add(released.value.len());
                    let limit = road.vault.limits.message;
                    if size > limit {
                        return Err(Refused { error: Error::AnswerTooLarge { size, limit }, items: prepared.items });
                    }
                    found.guards(road.tenant.number, &mut prepared.guards);
                    road.guard_case_load(holder, &mut prepared.guards);
                    let view = found.field.views().find(|(name, _)| &***name == view).map(|(name, _)| Arc::clone(name));
                    prepared.items.push(Item { view, subject: Some(holder), ..found.item(OK) });
                    Ok(released)
                }
                Err(refusal) => {
                    resolved.guards_if_unwrapped(road.tenant.number, &mut prepared.guards);
                    prepared.items.push(refusal.item);
                    Err(refusal.error)
                }
            };
            prepared.answer.push(answer);
        }
        prepared.charge = charge;
        Ok(prepared)
    }
}

impl Detokenize {
    /// Which value an item reads, in which view and of which holder; or why it doesn't.
    fn decide<'r, S: Store>(
        &'r self,
        road: &Road<'_, S>,
        index: usize,
        resolved: &'r Resolved,
        named: &Named<'_>,
        decisions: &mut Decisions<'r>,
        prepared: &mut Prepared<Vec<Result<Released, Error>>>,
    ) -> Result<(&'r Found, &'r str, SubjectHandle), Box<Refusal>> {
        let item = &self.items[index];
        let mut wrong: Vec<Violation> = malformed(&road.vault.limits, index, &item.token).into_iter().collect();
        road.vault.limits.subject(index, &item.subject, &mut wrong);
        if !wrong.is_empty() {
            let error = Error::Invalid(wrong);
            let sent = Some(road.fingerprint(item.token.as_bytes()));
            return Err(Box::new(Refusal { item: Item { outcome: error.reason(), sent, ..Item::default() }, error }));
        }
        let Resolved::Value(found) = resolved else {
            return Err(Box::new(decisions.denials.not_found(road, &item.token, resolved)));
        };
        let view = [&item.view, &self.view].into_iter().find(|name| !name.is_empty()).map_or(DEFAULT_VIEW, |name| name);
        let relation = road.relation(decisions.purpose, found, &item.subject, Some(named), &mut prepared.guards);
        let mut may = |relation: Relation| {
            *decisions.allowed.entry((found.field.number, view, relation)).or_insert_with(|| {
                lists(&found.field, &self.purpose)
                    && found.field.view(view).is_some()
                    && road.decide(&found.field, Some(view), relation).allowed
            })
        };
        if !may(relation) {
            let unmeant = named.unmeant(found, &item.subject, relation, || may(relation.consenting()));
            let refusal = decisions.denials.refuse_read(road, &item.token, found, Some(view), relation, unmeant);
            return Err(Box::new(refusal));
        }
        let Some(holder) = road.holder(found, &item.subject, named, &mut prepared.guards) else {
            return Err(Box::new(decisions.denials.not_a_holder(road, &item.token, found)));
        };
        match road.unfrozen_value(found).and_then(|()| named.not_leaving(holder)) {
            Ok(()) => Ok((found, view, holder)),
            Err(error) => Err(Box::new(Refusal { item: found.item(error.reason()), error })),
        }
    }
}

/// Sees that there is memory for a value before it is opened: one value may be asked for often, so that a small request
/// has a large answer. Only what is released counts, so that nothing is told of the rest.
pub(crate) fn reserve_room<S: Store>(road: &Road<'_, S>, bytes: usize) -> Result<(), Error> {
    if bytes < SMALL {
        return Ok(());
    }
    // In steps, so that it is not asked for each value. A larger answer is refused once it is known to be one.
    let bytes = bytes.next_multiple_of(SMALL).min(road.vault.limits.message);
    match road.caller.room.as_ref().is_none_or(|room| room.reserve(bytes)) {
        true => Ok(()),
        false => Err(Error::Overloaded { retry_after: RETRY_AFTER }),
    }
}

/// Transform: opens a value and cuts the view from it.
pub(crate) fn release<S: Store>(road: &Road<'_, S>, found: &Found, view: &str) -> Result<Released, Error> {
    let value = road.open(found, Sealed::Value)?;
    let view = found.field.view(view).ok_or(Error::Internal("a view vanished"))?;
    let mut shown =
        view.apply(value.as_bytes()).map_err(|_| Error::DataLoss("a value that its own view can't show"))?;
    Ok(Released { value: Plaintext::new(std::mem::take(&mut *shown)), field: Arc::clone(&found.field.full_name) })
}
