//! What reading requests share: which token may be known to whom, and in which words the others are refused.
//!
//! A value that the caller may not know of answers like one that does not exist. Who may see some view of it, or see
//! it for another purpose, is told which.

use strongroom_access::Action;
use strongroom_schema::Field;
use strongroom_storage::Store;

use crate::error::{Error, Violation};
use crate::limits::Limits;
use crate::resolve::{Found, Resolved};
use crate::road::{Item, Road};

/// One item's refusal: what the caller is told, and what the ledger keeps.
pub(crate) struct Refusal {
    pub error: Error,
    pub item: Item,
}

impl<S: Store> Road<'_, S> {
    /// Refuses a read that names no purpose, or one that the schema does not declare.
    pub fn purpose_declared(&self, purpose: &str) -> Result<(), Error> {
        if self.schema.version() == 0 {
            return Err(Error::NoSchema);
        }
        if self.schema.purpose(purpose).is_some() {
            return Ok(());
        }
        let (rule, what) = match purpose.is_empty() {
            true => ("required", "a read names its purpose"),
            false => ("purpose_unknown", "the schema declares no such purpose"),
        };
        let declared: Vec<&str> = self.schema.purposes().map(|purpose| &*purpose.name).collect();
        Err(Error::invalid("purpose", rule, format!("{what}; declared are: {}", declared.join(", "))))
    }

    /// The views of a field that the caller may ask for under a purpose.
    pub fn allowed_views(&self, field: &Field, purpose: &str) -> Vec<String> {
        if !lists(field, purpose) {
            return vec![];
        }
        field
            .views()
            .filter(|(name, _)| self.decide_action(Action::Detokenize, field, Some(name), Some(purpose)).allowed)
            .map(|(name, _)| name.to_string())
            .collect()
    }

    /// The purposes under which the caller may do this to a field, in some view if the action has views.
    pub fn allowed_purposes(&self, action: Action, field: &Field) -> Vec<String> {
        let may = |purpose: &str| match action {
            Action::Detokenize => !self.allowed_views(field, purpose).is_empty(),
            _ => self.decide_action(action, field, None, Some(purpose)).allowed,
        };
        field.purposes.iter().filter(|purpose| may(purpose)).map(|purpose| purpose.to_string()).collect()
    }

    /// Whether the caller may know that a field's value exists: it may see a view of it or match it, for any purpose.
    pub fn may_know(&self, field: &Field) -> bool {
        !self.allowed_purposes(Action::Detokenize, field).is_empty()
            || !self.allowed_purposes(Action::Match, field).is_empty()
    }

    /// A token that led nowhere, or to what may no longer be read.
    pub fn not_found(&self, token: &str, resolved: &Resolved) -> Result<Refusal, Error> {
        let item = match resolved {
            Resolved::Expired(found) => found.item("EXPIRED"),
            _ => Item {
                outcome: Error::NotFound.reason(),
                sent: Some(self.fingerprint(token.as_bytes())),
                ..Item::default()
            },
        };
        Ok(Refusal { error: Error::NotFound, item })
    }

    /// A value that the caller may not read like this: told why if it may do so for another purpose, and otherwise that
    /// there is none.
    pub fn refuse_read(&self, action: Action, found: &Found, purpose: &str) -> Refusal {
        let purposes = self.allowed_purposes(action, &found.field);
        match purposes.is_empty() {
            true => Refusal { error: Error::NotFound, item: found.item("DENIED") },
            false => {
                let error = if lists(&found.field, purpose) && self.rests_on_consent(purpose) {
                    Error::ConsentRequired { allowed: purposes }
                } else if purposes.iter().any(|allowed| allowed == purpose) {
                    Error::Denied { action: action.as_str() }
                } else {
                    Error::PurposeNotAllowed { allowed: purposes }
                };
                let item = found.item(error.reason());
                Refusal { error, item }
            }
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
