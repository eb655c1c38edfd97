//! What a subject's consents come to: of what was said of a field, the newest counts.
//!
//! A consent is about all of a purpose, a class, or a field. One to all does not reach classes for which the schema asks for
//! separate consent. Whoever takes something narrower back than was given keeps the rest: the record then says of the
//! narrower that it was withdrawn, and a wider consent from before does not reach it any more, not even when the narrower is
//! given again and ends.

use strongroom_ids::FieldNo;
use strongroom_schema::{Field, Purpose, Schema};
use strongroom_storage::rows::{Consent, Scope};

use crate::error::Error;

/// Consents that a subject may have.
pub(super) const MOST: usize = 100;

/// What of the schema a scope is read by.
pub(crate) trait Classes {
    /// The number of a field's class.
    fn class(&self, field: FieldNo) -> Option<u8>;
    /// Whether a purpose asks for separate consent to a class.
    fn is_separate(&self, purpose: &str, class: u8) -> bool;
}

impl Classes for Schema {
    fn class(&self, field: FieldNo) -> Option<u8> {
        self.field_no(field).map(|field| field.class.number())
    }

    fn is_separate(&self, purpose: &str, class: u8) -> bool {
        self.purpose(purpose).is_some_and(|purpose| purpose.separate_consent.iter().any(|one| one.number() == class))
    }
}

/// Of one field alone, for who has it at hand.
struct Just<'f>(&'f Purpose, &'f Field);

impl Classes for Just<'_> {
    fn class(&self, _: FieldNo) -> Option<u8> {
        Some(self.1.class.number())
    }

    fn is_separate(&self, _: &str, class: u8) -> bool {
        self.0.separate_consent.iter().any(|one| one.number() == class)
    }
}

/// Until when a field may be read for a purpose by what its subject allowed, in microseconds since 1970; [`u64::MAX`] where
/// that has no end. None: its consent does not stand.
pub(crate) fn stands_until(consents: &[Consent], purpose: &Purpose, field: &Field, now: u64) -> Option<u64> {
    let target = Scope::Field(field.number);
    let given = consents.iter().filter(|one| *one.purpose == *purpose.name && !one.is_withdrawn());
    let reaching = given.filter(|one| reaches(consents, one, target, &Just(purpose, field)));
    reaching.map(|one| one.expires.unwrap_or(u64::MAX)).filter(|ends| *ends > now).max()
}

/// Puts a consent with the others, in the place of the one to the same before it. `false`: just that stands already.
pub(super) fn keep(consents: &mut Vec<Consent>, mut consent: Consent) -> Result<bool, Error> {
    // After all that was taken back before, also while the vault's time stands still.
    let of_purpose = || consents.iter().filter(|one| one.purpose == consent.purpose);
    let withdrawn = of_purpose().filter_map(|one| one.withdrawn).max();
    if consent.given.is_some_and(|given| withdrawn >= Some(given)) {
        let description =
            "the subject took back what it allowed for this purpose after that: what counts was said later";
        return Err(Error::invalid("given_time", "withdrawn_since", description));
    }
    let wider = of_purpose().any(|one| one.scope < consent.scope && !one.is_withdrawn());
    consent.granted = consent.granted.max(withdrawn.map_or(0, |at| at.saturating_add(1)));
    match place(consents, &consent.purpose, consent.scope) {
        Ok(at) => {
            let before = &consents[at];
            consent.withdrawn = before.withdrawn.filter(|_| wider);
            // Given again after something narrower was taken back, it reaches that again.
            let as_before = withdrawn < Some(before.granted);
            if as_before && *before == (Consent { granted: before.granted, ..consent.clone() }) {
                return Ok(false);
            }
            consents[at] = consent;
        }
        Err(_) if consents.len() >= MOST => {
            let description = format!("a subject has at most {MOST} consents, of all purposes and scopes together");
            return Err(Error::invalid("consents", "too_many", description));
        }
        Err(at) => consents.insert(at, consent),
    }
    Ok(true)
}

/// Takes back all that was allowed of a scope: nothing of it may be read for the purpose any more, and all else as before.
/// Returns what is withdrawn now and was not before.
pub(crate) fn withdraw(
    consents: &mut Vec<Consent>,
    purpose: &str,
    scope: Scope,
    classes: &impl Classes,
    now: u64,
) -> Vec<Scope> {
    // Never before it was given, also while the vault's time stands still.
    let granted = consents.iter().filter(|one| one.purpose == purpose).map(|one| one.granted).max();
    let at = Some(now.max(granted.unwrap_or(0)));
    let wider = consents.iter().filter(|one| one.purpose == purpose && !one.is_withdrawn() && one.scope != scope);
    let wider = wider.filter(|one| reaches(consents, one, scope, classes)).max_by_key(|one| one.granted).cloned();
    let mut taken = Vec::new();
    for one in consents.iter_mut().filter(|one| one.purpose == purpose && !one.is_withdrawn()) {
        if includes(scope, one.scope, classes) {
            one.withdrawn = at;
            taken.push(one.scope);
        }
    }
    let Some(wider) = wider else { return taken };
    match place(consents, purpose, scope) {
        Ok(place) => consents[place].withdrawn = at,
        Err(place) if consents.len() < MOST => {
            // By the same text as the wider one, and no more.
            consents.insert(place, Consent { scope, withdrawn: at, ..wider });
        }
        // No room to keep the rest: better too much is withdrawn than too little.
        Err(_) => {
            for one in consents.iter_mut().filter(|one| one.purpose == purpose && !one.is_withdrawn()) {
                if includes(one.scope, scope, classes) {
                    one.withdrawn = at;
                    taken.push(one.scope);
                }
            }
            return taken;
        }
    }
    if !taken.contains(&scope) {
        taken.push(scope);
    }
    taken
}

/// Where a consent stands, or would.
fn place(consents: &[Consent], purpose: &str, scope: Scope) -> Result<usize, usize> {
    consents.binary_search_by(|one| (one.purpose.as_str(), one.scope).cmp(&(purpose, scope)))
}

/// Whether a consent is about all of a scope, and nothing that was said since takes that out of it.
fn reaches(consents: &[Consent], one: &Consent, target: Scope, classes: &impl Classes) -> bool {
    let class = match target {
        Scope::All => None,
        Scope::Class(class) => Some(class),
        Scope::Field(field) => classes.class(field),
    };
    if one.scope == Scope::All && class.is_some_and(|class| classes.is_separate(&one.purpose, class)) {
        return false;
    }
    let taken_out = |other: &Consent| {
        let narrower = other.purpose == one.purpose && other.scope > one.scope;
        narrower && other.withdrawn >= Some(one.granted) && includes(other.scope, target, classes)
    };
    includes(one.scope, target, classes) && !consents.iter().any(taken_out)
}

/// Whether a consent to the one says anything of the other: all that is of one of them is of the other as well.
pub(super) fn concerns(one: Scope, other: Scope, classes: &impl Classes) -> bool {
    includes(one, other, classes) || includes(other, one, classes)
}

/// Whether all that is of `narrow` is of `wide`.
fn includes(wide: Scope, narrow: Scope, classes: &impl Classes) -> bool {
    match (wide, narrow) {
        (Scope::All, _) => true,
        (Scope::Class(class), Scope::Field(field)) => classes.class(field) == Some(class),
        (wide, narrow) => wide == narrow,
    }
}

#[cfg(test)]
mod tests;
