//! Match: says whether a token stands for a value, without showing it. Answers item by item.

use std::collections::HashMap;

use strongroom_access::Action;
use strongroom_commit::{Guard, Use};
use strongroom_ids::FieldNo;
use strongroom_keys::Sealed;
use strongroom_schema::Purpose;
use strongroom_storage::Store;
use subtle::ConstantTimeEq;

use crate::error::{Error, Violation};
use crate::holders::Named;
use crate::reading::{Denials, Refusal, lists, malformed};
use crate::resolve::{Found, Resolved};
use crate::road::{Attempt, Item, Prepared, Refused, Road};
use crate::standing::Relation;

/// A value to be compared.
pub struct MatchItem {
    /// The token.
    pub token: String,
    /// What it may stand for.
    pub value: bytes::Bytes,
    /// Whose value is meant, if several subjects share it; may be empty.
    pub subject: String,
}

/// A Match request.
pub struct Match {
    /// What to compare.
    pub items: Vec<MatchItem>,
    /// Why.
    pub purpose: String,
}

/// How policy decides on a field, once for all items of a request that ask alike.
struct Decisions<'r> {
    purpose: &'r Purpose,
    allowed: HashMap<(FieldNo, Relation), bool>,
    denials: Denials,
}

impl<S: Store> Attempt<S> for Match {
    type Answer = Vec<Result<bool, Error>>;
    const ACTION: Action = Action::Match;

    fn purpose(&self) -> Option<&str> {
        Some(&self.purpose)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        let limits = &road.vault.limits;
        limits.items(self.items.len())?;
        limits.message(self.items.iter().map(|item| item.value.len()).sum())?;
        let purpose = road.purpose_declared(&self.purpose)?;
        let mut prepared = road.prepare(Vec::with_capacity(self.items.len()));
        let named = self.items.iter().map(|item| (item.token.as_str(), item.subject.as_str()));
        let (resolved, named) = road.resolve_named(named, false, &mut prepared.guards).await?;

        let mut charge = road.charge();
        let (allowed, denials) = Default::default();
        let mut decisions = Decisions { purpose, allowed, denials };
        for (index, (item, resolved)) in self.items.iter().zip(&resolved).enumerate() {
            let guards = &mut prepared.guards;
            let (answer, leaf) = match self.decide(road, index, resolved, &named, &mut decisions, guards) {
                Err(refusal) => {
                    resolved.guards_if_unwrapped(road.tenant.number, &mut prepared.guards);
                    (Err(refusal.error), refusal.item)
                }
                Ok(found) => {
                    let holder = road.holder(found, &item.subject, &named, &mut prepared.guards);
                    let free = road.unfrozen_value(found);
                    let free = free.and_then(|()| holder.map_or(Ok(()), |holder| named.not_leaving(holder)));
                    match (holder, free) {
                        (None, _) => {
                            let refusal = decisions.denials.not_a_holder(road, &item.token, found);
                            (Err(refusal.error), refusal.item)
                        }
                        (Some(_), Err(frozen)) => {
                            resolved.guards_if_unwrapped(road.tenant.number, &mut prepared.guards);
                            let leaf = found.item(frozen.reason());
                            (Err(frozen), leaf)
                        }
                        (Some(holder), Ok(())) => {
                            found.guards(road.tenant.number, &mut prepared.guards);
                            road.guard_case_load(holder, &mut prepared.guards);
                            let matched = compare(road, index, found, &item.value)?;
                            if let (Some(charge), Ok(matched)) = (&mut charge, &matched) {
                                charge.uses.push(Use::Asked { row: Some(found.id), missed: !matched });
                            }
                            let outcome = match &matched {
                                Ok(true) => "matched",
                                Ok(false) => "not_matched",
                                Err(error) => error.reason(),
                            };
                            (matched, Item { subject: Some(holder), ..found.item(outcome) })
                        }
                    }
                }
            };
            prepared.answer.push(answer);
            prepared.items.push(leaf);
        }
        prepared.charge = charge;
        Ok(prepared)
    }
}

impl Match {
    fn decide<'r, S: Store>(
        &self,
        road: &Road<'_, S>,
        index: usize,
        resolved: &'r Resolved,
        named: &Named<'_>,
        decisions: &mut Decisions<'_>,
        guards: &mut Vec<Guard>,
    ) -> Result<&'r Found, Box<Refusal>> {
        let item = &self.items[index];
        let mut wrong: Vec<Violation> = malformed(&road.vault.limits, index, &item.token).into_iter().collect();
        road.vault.limits.value(index, &item.value, &mut wrong);
        road.vault.limits.subject(index, &item.subject, &mut wrong);
        if !wrong.is_empty() {
            let error = Error::Invalid(wrong);
            let sent = Some(road.fingerprint(item.token.as_bytes()));
            return Err(Box::new(Refusal { item: Item { outcome: error.reason(), sent, ..Item::default() }, error }));
        }
        let Resolved::Value(found) = resolved else {
            return Err(Box::new(decisions.denials.not_found(road, &item.token, resolved)));
        };
        let relation = road.relation(decisions.purpose, found, &item.subject, Some(named), guards);
        let mut may = |relation: Relation| {
            *decisions.allowed.entry((found.field.number, relation)).or_insert_with(|| {
                lists(&found.field, &self.purpose) && road.decide(&found.field, None, relation).allowed
            })
        };
        if may(relation) {
            return Ok(found);
        }
        let unmeant = named.unmeant(found, &item.subject, relation, || may(relation.consenting()));
        Err(Box::new(decisions.denials.refuse_read(road, &item.token, found, None, relation, unmeant)))
    }
}

/// Transform: compares normal forms, in a time that does not depend on where they differ.
fn compare<S: Store>(
    road: &Road<'_, S>,
    index: usize,
    found: &Found,
    value: &[u8],
) -> Result<Result<bool, Error>, Error> {
    let asked = match found.field.normalise(value) {
        Ok(normal) => normal,
        Err(broken) => return Ok(Err(Error::invalid(format!("items[{index}].value"), broken.rule, broken.message))),
    };
    let stored = road.open(found, Sealed::Value)?;
    let stored =
        found.field.normalise(stored.as_bytes()).map_err(|_| Error::DataLoss("a value without a normal form"))?;
    Ok(Ok(bool::from(asked.ct_eq(&stored))))
}
