//! Lookup: finds the tokens of a field that stand for exactly this value, through the field's blind index.

use strongroom_access::Action;
use strongroom_commit::Guard;
use strongroom_ids::RowId;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind};
use strongroom_storage::{Family, Range, Store};

use crate::error::{Error, Violation};
use crate::reading::{Refusal, lists};
use crate::resolve::Resolved;
use crate::road::{Attempt, Item, Prepared, Refused, Road};
use crate::values::{lookup_fact, lookup_prefix};

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
    /// There are more than an answer carries.
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
        road.purpose_declared(&self.purpose)?;
        let mut prepared = Prepared::new(Vec::with_capacity(self.items.len()));
        prepared.guards.extend(road.rules_unchanged());
        let mut size = 0_usize;
        for index in 0..self.items.len() {
            let found = match self.entry(road, index) {
                Ok(entry) => self.find(road, index, &entry, &mut prepared).await?,
                Err(refusal) => {
                    prepared.items.push(refusal.item);
                    Err(refusal.error)
                }
            };
            if let Ok(found) = &found {
                size = found.tokens.iter().fold(size, |size, token| size.saturating_add(token.len()));
            }
            let limit = limits.message;
            if size > limit {
                return Err(Refused { error: Error::AnswerTooLarge { size, limit }, items: prepared.items });
            }
            prepared.answer.push(found);
        }
        Ok(prepared)
    }
}

impl Lookup {
    /// Resolve, decide and validate one item: the index entry that the value would have.
    fn entry<S: Store>(&self, road: &Road<'_, S>, index: usize) -> Result<IndexEntry, Box<Refusal>> {
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
        if !lists(field, &self.purpose) || !road.decide(field, None).allowed {
            let allowed = road.allowed_purposes(Action::Lookup, field);
            let elsewhere = !allowed.is_empty() && !allowed.contains(&self.purpose);
            return Err(refuse(match elsewhere {
                true => Error::PurposeNotAllowed { allowed },
                false => Error::Denied { action: Action::Lookup.as_str() },
            }));
        }
        if !field.lookup {
            let description = "the schema declares this field without `lookup`";
            return Err(refuse(Error::invalid(format!("items[{index}].field"), "lookup_not_declared", description)));
        }
        let mut wrong: Vec<Violation> = Vec::new();
        road.vault.limits.value(index, &item.value, &mut wrong);
        if !wrong.is_empty() {
            return Err(refuse(Error::Invalid(wrong)));
        }
        match road.value_index(field, &item.value) {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(refuse(Error::Internal("a field with lookup but without an index"))),
            Err(Error::Invalid(broken)) => {
                let path = format!("items[{index}].value");
                let at = |one: Violation| Violation { path: path.clone(), ..one };
                Err(refuse(Error::Invalid(broken.into_iter().map(at).collect())))
            }
            Err(error) => Err(refuse(error)),
        }
    }

    async fn find<S: Store>(
        &self,
        road: &Road<'_, S>,
        index: usize,
        entry: &IndexEntry,
        prepared: &mut Prepared<Answer>,
    ) -> Result<Result<FoundTokens, Error>, Error> {
        let tenant = road.tenant.number;
        let field = road.schema.field(&self.items[index].field).ok_or(Error::Internal("a field vanished"))?;
        let most = road.vault.limits.found;
        prepared.guards.push(Guard::Unchanged(lookup_fact(tenant, field, entry)));
        let prefix = lookup_prefix(tenant, field, entry);
        let range = Range { to: place::prefix_end(&prefix), from: prefix, limit: most + 1 };
        let entries = road.vault.store.scan(Family::Index, range).await?;
        let more = entries.len() > most;
        let mut rows: Vec<RowId> = Vec::with_capacity(entries.len());
        for (key, leads_to) in entries.iter().take(most) {
            rows.push(match entry.kind {
                IndexKind::Value => place::decode_value_index(key)?,
                _ => place::decode_row_id(leads_to)?,
            });
        }
        rows.sort_unstable();
        let mut found = FoundTokens { tokens: Vec::with_capacity(rows.len()), more };
        for resolved in road.resolve_rows(&rows).await? {
            if let Resolved::Value(value) = resolved {
                value.guards(tenant, &mut prepared.guards);
                found.tokens.push(road.token_of(&value)?);
                prepared.items.push(value.item("found"));
            }
        }
        if found.tokens.is_empty() {
            prepared.items.push(Item { field: Some(field.full_name.clone()), outcome: "none", ..Item::default() });
        }
        Ok(Ok(found))
    }
}
