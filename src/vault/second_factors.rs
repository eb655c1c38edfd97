//! Second factors of people: enrolled, confirmed, stepped up to, shown with requests, and reset.
//!
//! A factor is one row, read and changed under its own fact: of two requests with one code the second is turned back, and
//! finds the code used. A right code gives an assertion, good for five minutes, for the certificate that asked and perhaps
//! for one request. Whoever shows one has its factor's row looked at, and is guarded by its fact: so a reset ends it at once.

mod life;

use data_encoding::HEXLOWER;
use strongroom_access::{ASSERTION_LIFE, Assertion, Factor, FactorHolder, Role, SecondFactor};
use strongroom_commit::{Fact, Guard};
use strongroom_ledger::Timestamp;
use strongroom_schema::Field;
use strongroom_storage::{Family, Mutation, Store, keys as place};

use crate::approvals::request_hash;
use crate::error::Error;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::standing::Relation;
use crate::tenant::Tenant;
use crate::values::row_hash;
use crate::vault::Vault;

pub use life::{ConfirmSecondFactor, Enrolled, ListedFactor, ResetSecondFactor, StepUp, SteppedUp};

/// What is damaged, if a row of it can't be read.
const PLACE: &str = "a second factor";
/// How far an assertion may lie in the future beyond its life, in microseconds: a clock may be set back a little.
const SLACK: u64 = 30_000_000;

/// What a request shows of a second factor.
#[derive(Clone, Copy)]
pub(crate) enum Showing {
    /// Nothing.
    Nothing,
    /// An assertion that holds until then, in microseconds since 1970.
    Holds { seen: SecondFactor, expires: u64 },
    /// One that does not.
    Refused,
}

impl Showing {
    /// How policy sees it.
    pub fn seen(self) -> SecondFactor {
        match self {
            Self::Holds { seen, .. } => seen,
            Self::Nothing | Self::Refused => SecondFactor::Absent,
        }
    }
}

/// Whether an assertion is one that the vault gave to this caller, and its time is not over.
fn is_given(tenant: &Tenant, caller: &Caller, assertion: &Assertion, now: u64) -> bool {
    let Some(certificate) = &caller.certificate else { return false };
    let holder = FactorHolder { tenant: &tenant.id.0, principal: &caller.principal.name, certificate };
    let mac = assertion.authenticated(&holder, |parts| tenant.fingerprints.mac(parts));
    // One that would last for longer than any was given while the clock was ahead.
    let lasts = now < assertion.expires && assertion.expires - now <= ASSERTION_LIFE + SLACK;
    bool::from(subtle::ConstantTimeEq::ct_eq(&mac[..], &assertion.mac[..])) && lasts
}

/// How policy would see what a caller shows, before its factor's row is looked at.
pub(crate) fn claimed(tenant: &Tenant, caller: &Caller, request: impl FnOnce() -> [u8; 32], now: u64) -> SecondFactor {
    match &caller.second_factor {
        Some(shown) if is_given(tenant, caller, shown, now) => shown.seen(Some(&request())),
        _ => SecondFactor::Absent,
    }
}

impl<S: Store> Vault<S> {
    /// Whether what a caller shows holds now. `request` is the keyed hash of what is asked, if it has one.
    pub(crate) async fn showing(
        &self,
        tenant: &Tenant,
        caller: &Caller,
        shown: &Assertion,
        request: Option<[u8; 32]>,
        now: u64,
    ) -> Result<Showing, Error> {
        // The vault's time stands still while the clock is behind it: nothing shown lives on for so long.
        let behind = shown.expires.saturating_sub((self.clock)()) > ASSERTION_LIFE + SLACK;
        if behind || !is_given(tenant, caller, shown, now) {
            return Ok(Showing::Refused);
        }
        self.of_factor(tenant, caller, shown, shown.seen(request.as_ref())).await
    }

    /// What a caller shows with a request that goes on: that was `seen` when it began, and stays as it was though its
    /// time ends meanwhile, unless the factor is reset.
    pub(crate) async fn still_showing(
        &self,
        tenant: &Tenant,
        caller: &Caller,
        seen: SecondFactor,
    ) -> Result<Showing, Error> {
        match &caller.second_factor {
            None => Ok(Showing::Nothing),
            Some(shown) => self.of_factor(tenant, caller, shown, seen).await,
        }
    }

    /// What an assertion that the vault gave to a caller is, if its factor is still the same.
    async fn of_factor(
        &self,
        tenant: &Tenant,
        caller: &Caller,
        shown: &Assertion,
        seen: SecondFactor,
    ) -> Result<Showing, Error> {
        let factor = load(self, tenant, &caller.principal.name).await?;
        let enrolment = factor.and_then(|factor| factor.confirmed).and_then(|one| one.id());
        match enrolment == Some(shown.enrolment) {
            true => Ok(Showing::Holds { seen, expires: shown.expires }),
            false => Ok(Showing::Refused),
        }
    }
}

impl<S: Store> Road<'_, S> {
    /// Sees that what the caller shows holds: a wrong one is never taken for none.
    pub fn factor_holds(&self) -> Result<(), Error> {
        match self.showing {
            Showing::Refused => Err(Error::SecondFactorNotAccepted),
            Showing::Nothing | Showing::Holds { .. } => Ok(()),
        }
    }

    /// What a request that shows an assertion stands on besides: that it has not ended, and its factor is the same.
    pub fn factor_guards(&self, guards: &mut Vec<Guard>) {
        if let Showing::Holds { expires, .. } = self.showing {
            guards.push(Guard::Before(Timestamp(expires)));
            guards.push(Guard::Unchanged(self.factor_fact(&self.caller.principal.name)));
        }
    }

    /// Tells who is denied that a second factor would do.
    pub fn or_second_factor<A: Attempt<S>>(&self, request: &A, mut refused: Refused) -> Refused {
        let people = is_person(self.caller) && !self.action.is_on_field() && !self.action.is_the_vaults_own();
        if !people || !matches!(refused.error, Error::Denied { .. }) {
            return refused;
        }
        // Else it is denied for something else.
        let missing = self.tenant.access.missing(&self.query_on_vault(self.action));
        match missing.and_then(|missing| missing.second_factor) {
            Some(SecondFactor::Bound) => {
                if let Some(asked) = request.bound_to(&self.rules) {
                    let hash = request_hash(self.tenant, self.caller, self.action, &asked);
                    refused.error = Error::SecondFactorRequired { request: Some(HEXLOWER.encode(&hash)) };
                }
            }
            Some(_) => refused.error = Error::SecondFactorRequired { request: None },
            None => {}
        }
        refused
    }

    /// Whether a second factor is all that is missing for this on a field.
    pub fn second_factor_would_do(&self, field: &Field, view: Option<&str>, relation: Relation) -> bool {
        is_person(self.caller) && self.showing.seen() == SecondFactor::Absent && {
            self.decide_showing(SecondFactor::Fresh, self.action, field, view, self.purpose, relation).allowed
        }
    }

    fn factor_fact(&self, principal: &str) -> Fact {
        Fact::second_factor(self.tenant.number, principal.as_bytes())
    }

    /// Commits a factor, if nobody else changes it meanwhile; the log names its row.
    fn put_factor<A>(&self, factor: &Factor, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let body = serde_json::to_string(factor).map_err(|_| Error::Internal("a row that is not text"))?;
        let row = Source::new(1, body)?.encode(SourceKind::SecondFactor, &self.tenant.fingerprints);
        self.changes_factor(&factor.principal, prepared);
        prepared.detail.push(("sha256", HEXLOWER.encode(&row_hash(&row))));
        let at = place::second_factor(self.tenant.number, &factor.principal);
        prepared.mutations.push(Mutation::Put(Family::Meta, at, row));
        Ok(())
    }

    fn changes_factor<A>(&self, principal: &str, prepared: &mut Prepared<A>) {
        let fact = self.factor_fact(principal);
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        prepared.detail.push(("factor", principal.to_owned()));
    }
}

/// The factor of a principal, if it has one.
async fn load<S: Store>(vault: &Vault<S>, tenant: &Tenant, principal: &str) -> Result<Option<Factor>, Error> {
    let (at, key) = (place::second_factor(tenant.number, principal), &tenant.fingerprints);
    let stored: Option<Factor> = Source::load(&*vault.store, at, SourceKind::SecondFactor, key).await?;
    match stored {
        Some(factor) if !factor.is_sound(principal) => Err(Error::DataLoss(PLACE)),
        stored => Ok(stored),
    }
}

/// Whether a caller is a person: services authenticate by their certificate alone.
fn is_person(caller: &Caller) -> bool {
    matches!(caller.principal.role, Role::Officer | Role::Privacy)
}
