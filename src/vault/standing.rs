//! What of a value's subject a decision stands on: whose case it is, and whether its consent to the purpose stands.
//!
//! Both stand in the subject's record, which is read anyway. Who reads for a purpose that does not rest on consent pays for a
//! branch: nobody looks at consents, and nothing is guarded.

use strongroom_access::{CaseLoad, Consent};
use strongroom_commit::{Fact, Guard};
use strongroom_ledger::Timestamp;
use strongroom_schema::Purpose;
use strongroom_storage::Store;
use strongroom_storage::rows::SubjectState;

use crate::consents::stands_until;
use crate::holders::Named;
use crate::resolve::Found;
use crate::road::Road;

/// How a value's subject stands to a request. Policy is told of it, so decisions are remembered by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Relation {
    /// Whose case it is.
    pub load: CaseLoad,
    /// Whether it consents to the purpose that the request names.
    pub consent: Consent,
}

/// Whoever reads nothing needs no consent.
impl From<CaseLoad> for Relation {
    fn from(load: CaseLoad) -> Self {
        Self { load, consent: Consent::NotNeeded }
    }
}

impl Relation {
    /// The same of a subject that consents.
    pub fn consenting(self) -> Self {
        Self { consent: Consent::Standing, ..self }
    }
}

impl<S: Store> Road<'_, S> {
    /// How the subject of a value stands to the request: of one that subjects share, the one that is meant. Guards what the
    /// answer stands on, whether consent was found or not.
    pub fn relation(
        &self,
        purpose: &Purpose,
        found: &Found,
        subject: &str,
        named: Option<&Named<'_>>,
        guards: &mut Vec<Guard>,
    ) -> Relation {
        let consent = match purpose.consent {
            true => self.heard(purpose, found, subject, named, guards),
            false => Consent::NotNeeded,
        };
        Relation { load: self.case_load(found, subject, named), consent }
    }

    /// Whether the subject consents. Nobody does where a value has no subject, or where it is not said which is meant.
    fn heard(
        &self,
        purpose: &Purpose,
        found: &Found,
        subject: &str,
        named: Option<&Named<'_>>,
        guards: &mut Vec<Guard>,
    ) -> Consent {
        let record = match found.is_shared() {
            true => named.and_then(|named| named.record(found, subject)),
            false => found.subject.as_deref(),
        };
        let Some(record) = record.filter(|record| record.state == SubjectState::Open) else { return Consent::Absent };
        guards.push(Guard::Unchanged(Fact::subject_consents(self.tenant.number, record.handle)));
        match stands_until(&record.consents, purpose, &found.field, self.now) {
            None => Consent::Absent,
            Some(u64::MAX) => Consent::Standing,
            Some(ends) => {
                guards.push(Guard::Before(Timestamp(ends)));
                Consent::Standing
            }
        }
    }

    /// What policy is told of consent to a purpose: only to that of the request is it known.
    pub fn consent_to(&self, purpose: Option<&str>, relation: Relation) -> Consent {
        match purpose {
            Some(name) if self.rests_on_consent(name) => match self.purpose == purpose {
                true if relation.consent == Consent::Standing => Consent::Standing,
                _ => Consent::Absent,
            },
            _ => Consent::NotNeeded,
        }
    }

    /// Whether a purpose stands on what each subject allowed.
    pub fn rests_on_consent(&self, purpose: &str) -> bool {
        self.schema.purpose(purpose).is_some_and(|purpose| purpose.consent)
    }
}
