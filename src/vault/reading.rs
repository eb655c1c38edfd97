//! What reading requests share: which token may be known to whom, and in which words the others are refused.
//!
//! A value that the caller may not know of answers like one that does not exist. Who may see some view of it, or see
//! it for another purpose, is told which.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use strongroom_access::{Action, CaseLoad, Consent};
use strongroom_ids::FieldNo;
use strongroom_schema::{Field, Purpose};
use strongroom_storage::Store;

use crate::error::{Error, Violation};
use crate::holders::Unmeant;
use crate::limits::Limits;
use crate::resolve::{Found, Resolved};
use crate::road::{Item, Road};
use crate::standing::Relation;

/// Why a request's items are refused, decided once for all that are refused alike: ten thousand items that policy denies
/// cost no more than one.
///
/// An item that leads to nothing takes the same steps as one that the caller may not know of, so that the time of an
/// answer does not tell them apart.
#[derive(Default)]
pub(crate) struct Denials(HashMap<(FieldNo, Option<Arc<str>>, Relation), Error>);

impl Denials {
    /// A value that the caller may not use as it asked: told why, if it may know of it, and otherwise that there is none.
    pub fn refuse<S: Store>(
        &mut self,
        road: &Road<'_, S>,
        token: &str,
        found: &Found,
        view: Option<&str>,
        relation: impl Into<Relation>,
    ) -> Refusal {
        let error = self.why(road, &found.field, view, relation);
        black_box(road.fingerprint(token.as_bytes()));
        let outcome = if matches!(error, Error::NotFound) { "DENIED" } else { error.reason() };
        Refusal { error, item: found.item(outcome) }
    }

    /// The same of a read, in which perhaps nobody was meant who could have consented.
    pub fn refuse_read<S: Store>(
        &mut self,
        road: &Road<'_, S>,
        token: &str,
        found: &Found,
        view: Option<&str>,
        relation: Relation,
        unmeant: Option<Unmeant>,
    ) -> Refusal {
        match unmeant {
            None => self.refuse(road, token, found, view, relation),
            Some(Unmeant::NoHolder) => self.not_a_holder(road, token, found),
            Some(Unmeant::Nobody) => {
                let error = Error::SubjectRequired;
                Refusal { item: found.item(error.reason()), error }
            }
        }
    }

    /// A token that led nowhere, or to what may no longer be read.
    pub fn not_found<S: Store>(&mut self, road: &Road<'_, S>, token: &str, resolved: &Resolved) -> Refusal {
        let sent = self.as_if_denied(road, token);
        let item = match resolved {
            Resolved::Expired(found) => found.item("EXPIRED"),
            _ => Item { outcome: Error::NotFound.reason(), sent: Some(sent), ..Item::default() },
        };
        Refusal { error: Error::NotFound, item }
    }

    /// A subject that does not hold the value that is meant to be its own.
    pub fn not_a_holder<S: Store>(&mut self, road: &Road<'_, S>, token: &str, found: &Found) -> Refusal {
        black_box(self.as_if_denied(road, token));
        Refusal { error: Error::NotFound, item: found.item("NOT_A_HOLDER") }
    }

    /// Why the caller may not do this to a field.
    pub fn why<S: Store>(
        &mut self,
        road: &Road<'_, S>,
        field: &Field,
        view: Option<&str>,
        relation: impl Into<Relation>,
    ) -> Error {
        let relation = relation.into();
        // Names that the field does not have are refused alike, however many they are.
        let view = view.and_then(|asked| field.views().find(|(name, _)| ***name == *asked)).map(|(name, _)| name);
        let why = self.0.entry((field.number, view.cloned(), relation));
        why.or_insert_with(|| road.why_not(field, view.map(|name| &**name), relation)).clone()
    }

    /// The work of a denial of some field.
    fn as_if_denied<S: Store>(&mut self, road: &Road<'_, S>, token: &str) -> [u8; 32] {
        if let Some(field) = road.schema.fields().next() {
            black_box(self.why(road, field, None, CaseLoad::None));
        }
        road.fingerprint(token.as_bytes())
    }

    #[cfg(test)]
    pub fn decided(&self) -> usize {
        self.0.len()
    }
}

/// One item's refusal: what the caller is told, and what the ledger keeps.
pub(crate) struct Refusal {
    pub error: Error,
    pub item: Item,
}

impl<S: Store> Road<'_, S> {
    /// The purpose of a read. Refused is none, and one that the schema does not declare.
    pub fn purpose_declared(&self, purpose: &str) -> Result<&Purpose, Error> {
        if self.schema.version() == 0 {
            return Err(Error::NoSchema);
        }
        if let Some(purpose) = self.schema.purpose(purpose) {
            return Ok(purpose);
        }
        let (rule, what) = match purpose.is_empty() {
            true => ("required", "a read names its purpose"),
            false => ("purpose_unknown", "the schema declares no such purpose"),
        };
        let declared: Vec<&str> = self.schema.purposes().map(|purpose| &*purpose.name).collect();
        Err(Error::invalid("purpose", rule, format!("{what}; declared are: {}", declared.join(", "))))
    }

    /// The views of a field that the caller may ask for under a purpose.
    fn allowed_views(&self, field: &Field, purpose: &str, relation: Relation) -> Vec<String> {
        if !lists(field, purpose) {
            return vec![];
        }
        field
            .views()
            .filter(|(name, _)| {
                self.decide_action(Action::Detokenize, field, Some(name), Some(purpose), relation).allowed
            })
            .map(|(name, _)| name.to_string())
            .collect()
    }

    /// The purposes under which the caller may do this to a field, in some view if the action has views.
    fn allowed_purposes(&self, action: Action, field: &Field, relation: Relation) -> Vec<String> {
        let may = |purpose: &str| match action {
            Action::Detokenize => !self.allowed_views(field, purpose, relation).is_empty(),
            _ => self.decide_action(action, field, None, Some(purpose), relation).allowed,
        };
        field.purposes.iter().filter(|purpose| may(purpose)).map(|purpose| purpose.to_string()).collect()
    }

    /// Whether the caller may know that a field's value exists: it may see a view of it or match it, for any purpose.
    fn may_know(&self, field: &Field, relation: Relation) -> bool {
        !self.allowed_purposes(Action::Detokenize, field, relation).is_empty()
            || !self.allowed_purposes(Action::Match, field, relation).is_empty()
    }

    /// Why the caller may not do this to a field, in a view that the field has; none for one that it has not.
    fn why_not(&self, field: &Field, view: Option<&str>, relation: Relation) -> Error {
        let denied = Error::Denied { action: self.action.as_str() };
        match self.action {
            Action::Delete | Action::Replace if self.may_know(field, relation) => return denied,
            Action::Delete | Action::Replace => return Error::NotFound,
            _ => {}
        }
        let purpose = self.purpose.unwrap_or_default();
        if lists(field, purpose) && self.second_factor_would_do(field, view, relation) {
            return Error::SecondFactorRequired { request: None };
        }
        if self.action == Action::Detokenize {
            let allowed = self.allowed_views(field, purpose, relation);
            match view {
                _ if allowed.is_empty() => {}
                Some(_) => return Error::ViewNotAllowed { allowed },
                None => return Error::ViewUnknown { allowed },
            }
        }
        let purposes = self.allowed_purposes(self.action, field, relation);
        if self.action == Action::Lookup {
            // Fields are no secret: the schema lists them.
            return match purposes.is_empty() || purposes.iter().any(|allowed| allowed == purpose) {
                true => denied,
                false => Error::PurposeNotAllowed { allowed: purposes },
            };
        }
        if purposes.is_empty() {
            Error::NotFound
        } else if lists(field, purpose) && self.consent_to(Some(purpose), relation) == Consent::Absent {
            Error::ConsentRequired { allowed: purposes }
        } else if purposes.iter().any(|allowed| allowed == purpose) {
            denied
        } else {
            Error::PurposeNotAllowed { allowed: purposes }
        }
    }
}

/// Whether a field is read for a purpose at all.
pub(crate) fn lists(field: &Field, purpose: &str) -> bool {
    field.purposes.iter().any(|listed| **listed == *purpose)
}

/// What is wrong with a token before anybody looks for it.
pub(crate) fn malformed(limits: &Limits, index: usize, token: &str) -> Option<Violation> {
    let mut wrong = Vec::new();
    limits.token(index, token, &mut wrong);
    if wrong.is_empty() && strongroom_schema::token::Token::parse(token).is_err() {
        let path = format!("items[{index}].token");
        wrong.push(Violation::new(
            path,
            "token_malformed",
            "this has not the form of a token: look for missing or changed characters",
        ));
    }
    wrong.pop()
}
