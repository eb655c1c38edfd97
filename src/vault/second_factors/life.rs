//! The life of a second factor: enrolled, confirmed, stepped up to, reset and listed.

use std::time::Duration;

use data_encoding::HEXLOWER;
use strongroom_access::{
    ASSERTION_LIFE, Action, Assertion, Enrolment, Factor, FactorHolder, FactorKind, FactorShown, Outcome,
    RECOVERY_CODES, SecondFactor, SuspendError, parse_principal,
};
use strongroom_keys::{self as keys, TotpPlace, TotpSecret};
use strongroom_storage::{Family, Mutation, Store, keys as place};
use zeroize::Zeroizing;

use super::{PLACE, is_person, load};
use crate::approvals::{Approvable, Asked, request_hash};
use crate::error::Error;
use crate::pages::Pages;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::Rules;
use crate::vault::Vault;

/// Longest code that is looked at, in bytes.
const CODE: usize = 64;

impl<S: Store> Road<'_, S> {
    /// The step of time that a code of an enrolment belongs to.
    fn step_of(&self, enrolment: &Enrolment, code: &str) -> Result<Option<u64>, Error> {
        const DAMAGED: Error = Error::DataLoss(PLACE);
        let (id, sealed) = (enrolment.id().ok_or(DAMAGED)?, enrolment.sealed().ok_or(DAMAGED)?);
        let secret = TotpSecret::open(&self.tenant.fingerprints, &self.totp_place(&id), &sealed)?;
        Ok(secret.step_of(code, self.now / 1_000_000)?)
    }

    fn totp_place<'p>(&'p self, enrolment: &'p [u8; 16]) -> TotpPlace<'p> {
        TotpPlace { tenant: self.tenant.id, principal: &self.caller.principal.name, enrolment }
    }

    /// The keyed hash of a recovery code of the caller's.
    fn recovery_hash(&self, enrolment: &str, code: &str) -> String {
        let name = self.caller.principal.name.as_bytes();
        let parts: [&[u8]; 4] = [b"second factor: recovery code", name, enrolment.as_bytes(), code.as_bytes()];
        HEXLOWER.encode(&self.tenant.fingerprints.mac(&parts))
    }

    /// What somebody typed: six digits, or a recovery code, with or without its dashes.
    fn factor_shown(&self, enrolment: &Enrolment, code: &str) -> Result<FactorShown, Error> {
        let typed = typed(code)?;
        match typed.len() == 16 && !typed.bytes().all(|byte| byte.is_ascii_digit()) {
            true => Ok(FactorShown::Recovery(self.recovery_hash(&enrolment.id, &typed))),
            false => Ok(FactorShown::Step(self.step_of(enrolment, &typed)?)),
        }
    }
}

/// A code without what people put between its parts.
fn typed(code: &str) -> Result<Zeroizing<String>, Error> {
    if code.is_empty() || code.len() > CODE {
        let description = "a code has six digits, a recovery code sixteen letters and digits";
        return Err(Error::invalid("code", "code", description));
    }
    let kept = code.chars().filter(|c| !matches!(c, ' ' | '-'));
    Ok(Zeroizing::new(kept.map(|c| c.to_ascii_uppercase()).collect()))
}

/// Sees that policy lets the caller see to a factor of its own, and that it is a person, whatever policy permits.
fn own_factor<S: Store>(road: &Road<'_, S>) -> Result<(), Error> {
    road.decide_vault()?;
    match is_person(road.caller) {
        true => Ok(()),
        false => Err(Error::Denied { action: road.action.as_str() }),
    }
}

/// Refuses every code, right ones too, while a factor is locked.
fn unlocked(factor: &Factor, now: u64) -> Result<(), Error> {
    let wait = |until: u64| Duration::from_micros(until.saturating_sub(now));
    factor.locked(now).map_or(Ok(()), |until| Err(Error::SecondFactorLocked { retry_after: wait(until) }))
}

fn refused(why: &str) -> Error {
    Error::SecondFactorRefused(why.to_owned())
}

/// Enrols an authenticator app for the caller.
struct EnrolSecondFactor;

/// What is shown once.
pub struct Enrolled {
    /// What the app reads, with the secret in it.
    pub uri: Zeroizing<String>,
    /// For the day on which the app is lost.
    pub recovery_codes: Vec<Zeroizing<String>>,
}

/// What the old factor is shown for, when another one is enrolled.
fn anew() -> Asked {
    Asked { parts: vec![], summary: "enrol another second factor".to_owned() }
}

impl<S: Store> Attempt<S> for EnrolSecondFactor {
    type Answer = Enrolled;
    const ACTION: Action = Action::EnrolSecondFactor;

    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        Some(anew())
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Enrolled>, Refused> {
        own_factor(road)?;
        let name = &*road.caller.principal.name;
        let mut factor = load(road.vault, road.tenant, name).await?.unwrap_or_else(|| Factor::new(name));
        // Else whoever has the certificate alone, or gets hold of an assertion, would get a factor, too.
        if factor.confirmed.is_some() && road.showing.seen() != SecondFactor::Bound {
            let hash = request_hash(road.tenant, road.caller, road.action, &anew());
            return Err(Error::SecondFactorRequired { request: Some(HEXLOWER.encode(&hash)) }.into());
        }
        let secret = TotpSecret::new()?;
        let id = keys::random::<16>()?;
        let sealed = secret.seal(&road.tenant.fingerprints, &road.totp_place(&id))?;
        let mut enrolment = Enrolment {
            kind: FactorKind::Totp,
            id: HEXLOWER.encode(&id),
            sealed: HEXLOWER.encode(&sealed),
            enrolled: road.now,
            recovery: Vec::with_capacity(RECOVERY_CODES),
        };
        let mut recovery_codes = Vec::with_capacity(RECOVERY_CODES);
        for _ in 0..RECOVERY_CODES {
            let code = keys::recovery_code()?;
            enrolment.recovery.push(road.recovery_hash(&enrolment.id, &typed(&code)?));
            recovery_codes.push(code);
        }
        factor.pending = Some(enrolment);
        let uri = secret.uri(&format!("Strongroom {}", road.tenant.name), name);
        let mut prepared = road.prepare(Enrolled { uri, recovery_codes });
        road.put_factor(&factor, &mut prepared)?;
        prepared.detail.push(("kind", FactorKind::Totp.as_str().to_owned()));
        Ok(prepared)
    }
}

/// Confirms the caller's enrolment by the first code of its app.
pub struct ConfirmSecondFactor {
    /// Six digits.
    pub code: String,
}

impl<S: Store> Attempt<S> for ConfirmSecondFactor {
    /// A wrong code is written down before it is refused.
    type Answer = Result<(), Error>;
    const ACTION: Action = Action::ConfirmSecondFactor;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Result<(), Error>>, Refused> {
        own_factor(road)?;
        let code = typed(&self.code)?;
        let none = || refused("no enrolment waits for its first code: `strongroom second-factor enrol`");
        let mut factor = load(road.vault, road.tenant, &road.caller.principal.name).await?.ok_or_else(none)?;
        unlocked(&factor, road.now)?;
        let pending = factor.pending.as_ref().ok_or_else(none)?;
        let step = road.step_of(pending, &code)?;
        let right = factor.confirm(step, road.now) == Outcome::Right;
        let mut prepared = road.prepare(if right { Ok(()) } else { Err(Error::SecondFactorWrong) });
        prepared.denied = (!right).then_some(Error::SecondFactorWrong.reason());
        road.put_factor(&factor, &mut prepared)?;
        Ok(prepared)
    }
}

/// Turns a code into an assertion.
pub struct StepUp {
    /// Six digits, or a recovery code.
    pub code: String,
    /// The keyed hash of the one request that it shall be for, as its refusal named it; may be empty.
    pub request: String,
}

/// What a right code gives.
pub struct SteppedUp {
    /// To be shown with requests.
    pub assertion: String,
    /// Until when, in microseconds since 1970.
    pub expires: u64,
    /// How many recovery codes are left.
    pub recovery_codes: usize,
}

impl<S: Store> Attempt<S> for StepUp {
    /// As of [`ConfirmSecondFactor`].
    type Answer = Result<SteppedUp, Error>;
    const ACTION: Action = Action::StepUp;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Result<SteppedUp, Error>>, Refused> {
        own_factor(road)?;
        let request = match self.request.is_empty() {
            true => None,
            false => Some(hash(&self.request)?),
        };
        let certificate = road.caller.certificate.ok_or(Error::Internal("a caller without certificate"))?;
        let none = || refused("you have no second factor yet: `strongroom second-factor enrol`");
        let name = &*road.caller.principal.name;
        let mut factor = load(road.vault, road.tenant, name).await?.ok_or_else(none)?;
        let confirmed = factor.confirmed.as_ref().ok_or_else(none)?;
        let enrolment = confirmed.id().ok_or(Error::DataLoss(PLACE))?;
        unlocked(&factor, road.now)?;
        let shown = road.factor_shown(confirmed, &self.code)?;
        let right = factor.use_code(&shown, road.now) == Outcome::Right;
        let answer = match right {
            true => {
                let expires = road.now.saturating_add(ASSERTION_LIFE);
                let mut assertion = Assertion { expires, enrolment, request, mac: [0; 32] };
                let holder = FactorHolder { tenant: &road.tenant.id.0, principal: name, certificate: &certificate };
                assertion.mac = assertion.authenticated(&holder, |parts| road.tenant.fingerprints.mac(parts));
                let recovery_codes = factor.confirmed.as_ref().map_or(0, |one| one.recovery.len());
                Ok(SteppedUp { assertion: assertion.to_text(), expires, recovery_codes })
            }
            false => Err(Error::SecondFactorWrong),
        };
        let mut prepared = road.prepare(answer);
        prepared.denied = (!right).then_some(Error::SecondFactorWrong.reason());
        road.put_factor(&factor, &mut prepared)?;
        let by = if matches!(shown, FactorShown::Recovery(_)) { "recovery code" } else { "code" };
        prepared.detail.push(("by", by.to_owned()));
        if let Some(request) = request {
            prepared.detail.push(("request", HEXLOWER.encode(&request)));
        }
        Ok(prepared)
    }
}

fn hash(hex: &str) -> Result<[u8; 32], Error> {
    let hash = HEXLOWER.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let description = "it is the 64 hexadecimal digits that SECOND_FACTOR_REQUIRED names, or left out";
    hash.ok_or_else(|| Error::invalid("request", "request_hash", description))
}

/// Takes somebody's second factor away, which ends its assertions: it can enrol another.
pub struct ResetSecondFactor {
    /// Role and name: `officer/bob`.
    pub principal: String,
}

impl ResetSecondFactor {
    /// Sees that the caller is another officer, whatever policy permits.
    fn allowed<S: Store>(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.only_officers()?;
        if parse_principal(&self.principal).is_none() {
            return Err(Error::invalid("principal", "principal_name", SuspendError::Name.to_string()));
        }
        match *self.principal == *road.caller.principal.name {
            true => Err(refused(
                "nobody resets its own second factor: another officer does; with the old one at hand, enrol anew",
            )),
            false => Ok(()),
        }
    }
}

impl<S: Store> Attempt<S> for ResetSecondFactor {
    type Answer = ();
    const ACTION: Action = Action::ResetSecondFactor;
    /// It protects.
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules))
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        road.decide_with_others()?;
        self.allowed(road)?;
        let given = road.decide_approved(self).await?;
        // One that is damaged is taken away as well.
        let at = place::second_factor(road.tenant.number, &self.principal);
        if road.vault.store.get(Family::Meta, at.clone()).await?.is_none() {
            return Err(refused("it has no second factor: `strongroom second-factor list`").into());
        }
        let mut prepared = road.prepare(());
        road.changes_factor(&self.principal, &mut prepared);
        prepared.mutations.push(Mutation::Delete(Family::Meta, at));
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }
}

impl<S: Store> Approvable<S> for ResetSecondFactor {
    fn asked(&self, _rules: &Rules) -> Asked {
        let summary = strongroom_ledger::summary::reset_second_factor(&self.principal);
        Asked { parts: vec![self.principal.clone().into_bytes()], summary }
    }

    fn would_be_done(&self, road: &Road<'_, S>) -> Result<(), Error> {
        self.allowed(road)
    }
}

/// A second factor, as officers and auditors see it.
pub struct ListedFactor {
    /// Whose it is, by role and name.
    pub principal: String,
    /// What kind it is: `totp`.
    pub kind: &'static str,
    /// When it was enrolled, in microseconds since 1970.
    pub enrolled: u64,
    /// Whether it counts; else it waits for its first code.
    pub confirmed: bool,
    /// How many recovery codes are left.
    pub recovery_codes: usize,
    /// Until when every code is refused, in microseconds since 1970, if it is locked.
    pub locked: Option<u64>,
}

/// Asks who has one.
struct ListSecondFactors;

impl<S: Store> Attempt<S> for ListSecondFactors {
    type Answer = Vec<ListedFactor>;
    const ACTION: Action = Action::ListSecondFactors;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<ListedFactor>>, Refused> {
        road.decide_vault()?;
        let mut listed = Vec::new();
        let (from, to) = place::second_factors_range(road.tenant.number);
        let mut pages = Pages::new(Family::Meta, from, to);
        while let Some(page) = pages.next(&*road.vault.store).await? {
            for (_, row) in &page {
                let source = Source::decode(row, SourceKind::SecondFactor, &road.tenant.fingerprints)?;
                let factor: Factor = serde_json::from_str(&source.body).map_err(|_| Error::DataLoss(PLACE))?;
                let locked = factor.locked(road.now);
                let one = factor.confirmed.as_ref().or(factor.pending.as_ref()).ok_or(Error::DataLoss(PLACE))?;
                listed.push(ListedFactor {
                    kind: one.kind.as_str(),
                    enrolled: one.enrolled,
                    confirmed: factor.confirmed.is_some(),
                    recovery_codes: one.recovery.len(),
                    locked,
                    principal: factor.principal,
                });
            }
        }
        Ok(road.prepare(listed))
    }
}

impl<S: Store> Vault<S> {
    /// Enrols an authenticator app for the caller; it counts once it is confirmed.
    pub async fn enrol_second_factor(&self, caller: &Caller) -> Result<Enrolled, Error> {
        self.travel(caller, &EnrolSecondFactor).await
    }

    /// Confirms the caller's enrolment by its first code.
    pub async fn confirm_second_factor(&self, caller: &Caller, request: &ConfirmSecondFactor) -> Result<(), Error> {
        self.travel(caller, request).await?
    }

    /// Turns a code of the caller's into an assertion for five minutes.
    pub async fn step_up(&self, caller: &Caller, request: &StepUp) -> Result<SteppedUp, Error> {
        self.travel(caller, request).await?
    }

    /// Takes somebody's second factor away.
    pub async fn reset_second_factor(&self, caller: &Caller, request: &ResetSecondFactor) -> Result<(), Error> {
        self.approved(caller, request).await?;
        self.travel(caller, request).await
    }

    /// Who has a second factor.
    pub async fn list_second_factors(&self, caller: &Caller) -> Result<Vec<ListedFactor>, Error> {
        self.travel(caller, &ListSecondFactors).await
    }
}
