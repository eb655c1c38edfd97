//! Whose case a data subject is: what its labels and those of the person behind a service have in common.
//!
//! Who has no actor pays for a branch: labels stand in the record that is read anyway, and nobody looks at them.

use strongroom_access::{CaseLoad, SUBJECT_LABELS, is_label};
use strongroom_commit::{Fact, Guard};
use strongroom_ids::SubjectHandle;
use strongroom_ledger::Timestamp;
use strongroom_storage::Store;

use crate::error::Error;
use crate::holders::Named;
use crate::resolve::Found;
use crate::road::Road;

impl<S: Store> Road<'_, S> {
    /// Sees that the person on whose behalf the caller asks is still vouched for.
    pub fn actor_holds(&self) -> Result<(), Error> {
        match &self.caller.actor {
            Some(actor) if actor.expires() <= self.now => Err(Error::ActorTokenRefused { check: "exp" }),
            _ => Ok(()),
        }
    }

    /// Whoever calls on somebody's behalf does so no longer than that one is vouched for.
    pub fn actor_guard(&self, guards: &mut Vec<Guard>) {
        if let Some(actor) = &self.caller.actor {
            guards.push(Guard::Before(Timestamp(actor.expires())));
        }
    }

    /// The case loads that a subject may be in, for this caller: what none of them allows need not be looked at.
    pub fn case_loads(&self) -> &'static [CaseLoad] {
        match self.caller.actor {
            None => &[CaseLoad::None],
            Some(_) => &CaseLoad::ALL,
        }
    }

    /// Whose case a subject with these labels is.
    pub fn case_load_of(&self, labels: &[String]) -> CaseLoad {
        self.caller.actor.as_ref().map_or(CaseLoad::None, |actor| actor.case_load(labels))
    }

    /// Whose case a value is, of those of its holders whom an item means. A value that subjects share, and of which none
    /// is named, is nobody's own: else whoever leaves the name out would see what belongs to others.
    pub fn case_load(&self, found: &Found, subject: &str, named: Option<&Named<'_>>) -> CaseLoad {
        if self.caller.actor.is_none() {
            return CaseLoad::None;
        }
        if !found.is_shared() {
            return self.case_load_of(found.subject.as_ref().map_or(&[], |record| &record.labels));
        }
        let record = named.and_then(|named| named.record(found, subject));
        record.map_or(CaseLoad::Other, |record| self.case_load_of(&record.labels))
    }

    /// What a request that was decided by a subject's labels stands on besides.
    pub fn guard_case_load(&self, subject: SubjectHandle, guards: &mut Vec<Guard>) {
        if self.caller.actor.is_some() && subject.is_some() {
            guards.push(Guard::Unchanged(Fact::subject_labels(self.tenant.number, subject)));
        }
    }
}

/// Labels as a record has them: in order, each once. Refused are those that are none, and more than a subject may have.
pub(crate) fn as_kept(labels: &[String]) -> Result<Vec<String>, Error> {
    if labels.len() > SUBJECT_LABELS {
        let description = format!("a subject has at most {SUBJECT_LABELS} labels");
        return Err(Error::invalid("labels", "too_many", description));
    }
    if let Some(index) = labels.iter().position(|label| !is_label(label)) {
        // It is not repeated: it may be something that must not stand anywhere.
        let description = "a label is 1 to 32 of a-z 0-9 . - _ and begins with a letter or digit; it must say nothing that is \
                           personal";
        return Err(Error::invalid(format!("labels[{index}]"), "label_malformed", description));
    }
    let mut kept = labels.to_vec();
    kept.sort_unstable();
    kept.dedup();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(labels: &[&str]) -> Result<Vec<String>, Error> {
        as_kept(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn labels_are_kept_in_order_and_once() {
        assert_eq!(kept(&["b", "a", "b"]).unwrap(), ["a", "b"]);
        assert!(kept(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_label_and_more_than_eight_are_refused_and_not_repeated() {
        let error = kept(&["branch", "Li Na"]).unwrap_err();
        assert!(error.to_string().starts_with("labels[1]") && !error.to_string().contains("Li Na"), "{error}");
        assert!(kept(&["1", "2", "3", "4", "5", "6", "7", "8"]).is_ok());
        assert!(kept(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]).unwrap_err().to_string().contains("at most 8"));
    }
}
