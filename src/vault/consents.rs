//! Consents of data subjects: given, taken back, and seen, with the evidence of each.
//!
//! They stand in the subject's record, so a change is recorded and proved as the record is. It has a fact of its own, which
//! guards every decision that stood on a subject's consents, on those that it found as on those that it missed: so what was
//! decided before a withdrawal and is committed after it is turned back. The leaf of a change says all that it takes to
//! repeat it.

mod kept;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::FieldNo;
use strongroom_ledger::Timestamp;
use strongroom_ledger::leaf::MAX_STRING;
use strongroom_schema::{Class, Schema};
use strongroom_storage::Store;
use strongroom_storage::rows::{Consent, Scope, SubjectRecord, SubjectState};

use crate::error::{Error, Violation};
use crate::limits;
use crate::reading::lists;
use crate::road::{Attempt, Caller, Item, OK, Prepared, Refused, Road, Told};
use crate::subjects::{may_be_written, unknown};
use crate::vault::Vault;

pub(crate) use kept::{stands_until, withdraw};

/// Bytes of the version of a text, and of a channel.
const NAME: usize = 32;

/// What of a subject a consent, or its withdrawal, is about.
pub enum ConsentScope {
    /// All of the purpose.
    All,
    /// Fields of a class, by its name.
    Class(String),
    /// One field, by its name.
    Field(String),
}

/// Gives a data subject's consent to a purpose.
pub struct GrantConsent {
    /// The caller's own id of the subject.
    pub subject: String,
    /// The purpose.
    pub purpose: String,
    /// What of the subject may be read for it.
    pub scope: ConsentScope,
    /// SHA-256 of the text that was shown.
    pub text: Vec<u8>,
    /// Which version of the text that was.
    pub version: String,
    /// By which way the consent was given.
    pub channel: String,
    /// When the subject gave it, in microseconds since 1970, if that was before it is recorded.
    pub given: Option<u64>,
    /// When it ends by itself, likewise.
    pub expires: Option<u64>,
}

/// Takes a data subject's consent back.
pub struct WithdrawConsent {
    /// The caller's own id of the subject.
    pub subject: String,
    /// The purpose.
    pub purpose: String,
    /// What of the subject shall not be read for it any more.
    pub scope: ConsentScope,
}

/// Asks for the consents of a data subject.
pub struct ListConsents {
    /// The caller's own id of the subject.
    pub subject: String,
    /// Only those to this purpose; empty for all.
    pub purpose: String,
    /// Only those that are about this too: a field, its class, or all.
    pub scope: ConsentScope,
}

/// A consent as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedConsent {
    /// The purpose.
    pub purpose: String,
    /// Its field, if it is about one.
    pub field: Option<String>,
    /// Its class, if it is about one.
    pub class: Option<&'static str>,
    /// When it was recorded, in microseconds since 1970.
    pub granted: u64,
    /// When the subject gave it, if that was said to be before.
    pub given: Option<u64>,
    /// When it ends by itself.
    pub expires: Option<u64>,
    /// When it was taken back.
    pub withdrawn: Option<u64>,
    /// SHA-256 of the text that was shown.
    pub text: [u8; 32],
    /// Which version of the text that was.
    pub version: String,
    /// By which way it was given.
    pub channel: String,
    /// `standing`, `withdrawn` or `expired`.
    pub state: &'static str,
}

impl ListedConsent {
    /// As it is shown by a schema, at a time.
    pub(crate) fn of(consent: Consent, schema: &Schema, now: u64) -> Self {
        let withdrawn = consent.withdrawn.filter(|_| consent.is_withdrawn());
        let state = match (withdrawn, consent.expires) {
            (Some(_), _) => "withdrawn",
            (None, Some(ends)) if ends <= now => "expired",
            _ => "standing",
        };
        let Consent { purpose, scope, granted, given, expires, withdrawn: _, text, version, channel } = consent;
        let (class, field) = match scope {
            Scope::All => (None, None),
            Scope::Class(class) => (Class::numbered(class).map(Class::as_str), None),
            Scope::Field(number) => (None, schema.field_no(number).map(|field| field.full_name.to_string())),
        };
        Self { purpose, class, field, granted, given, expires, withdrawn, text, version, channel, state }
    }
}

/// A scope as leaves name it: by numbers and classes, which are for ever.
fn said(scope: Scope) -> String {
    match scope {
        Scope::All => "all".to_owned(),
        Scope::Class(class) => format!("class {}", Class::numbered(class).map_or("unknown", Class::as_str)),
        Scope::Field(field) => format!("field {field}"),
    }
}

/// Reads a scope as leaves name it.
pub(crate) fn scope_said(said: &str) -> Option<Scope> {
    let (kind, which) = said.split_once(' ').unwrap_or((said, ""));
    match kind {
        "all" if which.is_empty() => Some(Scope::All),
        "class" => Class::named(which).map(|class| Scope::Class(class.number())),
        "field" => which.parse().ok().map(|number| Scope::Field(FieldNo(number))),
        _ => None,
    }
}

/// Scopes as leaves name them, in their order: fields by their numbers alone, since there may be a hundred.
fn all_said(scopes: &[Scope]) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut fields = String::new();
    for scope in scopes {
        match scope {
            Scope::Field(field) => fields.push_str(&format!(" {field}")),
            wider => all.push(said(*wider)),
        }
    }
    if !fields.is_empty() {
        all.push(format!("fields{fields}"));
    }
    all.join(", ")
}

/// Reads scopes as leaves name them.
pub(crate) fn scopes_said(all: &str) -> Option<Vec<Scope>> {
    let mut scopes = Vec::new();
    for said in all.split(", ") {
        match said.strip_prefix("fields ") {
            Some(numbers) => {
                for number in numbers.split(' ') {
                    scopes.push(Scope::Field(FieldNo(number.parse().ok()?)));
                }
            }
            None => scopes.push(scope_said(said)?),
        }
    }
    Some(scopes)
}

/// What stands in the leaf of any change.
fn detail(purpose: &str, scope: Scope, schema: &Schema) -> Told {
    let mut detail = vec![("purpose", purpose.to_owned()), ("scope", said(scope))];
    if let Scope::Field(number) = scope {
        detail.extend(schema.field_no(number).map(|field| ("field", field.full_name.to_string())));
    }
    detail
}

/// Why a purpose can't be consented to.
fn no_purpose(name: &str, schema: &Schema) -> Violation {
    let (rule, what) = match (name.is_empty(), schema.purpose(name)) {
        (true, _) => ("required", "a consent is to a purpose"),
        (false, None) => ("purpose_unknown", "the schema declares no such purpose"),
        (false, Some(_)) => {
            ("consent_not_needed", "this purpose does not rest on consent: there is nothing to consent to")
        }
    };
    let resting: Vec<&str> =
        schema.purposes().filter(|purpose| purpose.consent).map(|purpose| &*purpose.name).collect();
    let resting = if resting.is_empty() { "none".to_owned() } else { resting.join(", ") };
    Violation::new("purpose", rule, format!("{what}; those that rest on consent are: {resting}"))
}

/// A class by its name.
fn class(name: &str) -> Result<Scope, Violation> {
    let class = Class::named(name).map(|class| Scope::Class(class.number()));
    class.ok_or_else(|| Violation::new("class", "name_unknown", "a class is c1, c2 or c3"))
}

/// A field that the schema declares, or did once: it is not repeated, it may be something that must not stand anywhere.
fn no_field() -> Violation {
    Violation::new("field", "field_unknown", "the schema declares no such field")
}

/// What is wrong with the version of a text, or a channel.
fn name(path: &'static str, text: &str) -> Option<Violation> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (1..=NAME).contains(&text.len()) && text.bytes().all(good) {
        return None;
    }
    let description = format!("it has 1 to {NAME} of a-z A-Z 0-9 . - _ and says nothing that is personal");
    Some(Violation::new(path, "name", description))
}

impl GrantConsent {
    /// The consent as it is kept, if all of it is as it must be.
    fn checked<S: Store>(&self, road: &Road<'_, S>) -> Result<Consent, Error> {
        if road.schema.version() == 0 {
            return Err(Error::NoSchema);
        }
        let mut wrong = Vec::new();
        if !road.rests_on_consent(&self.purpose) {
            wrong.push(no_purpose(&self.purpose, &road.schema));
        }
        let scope = match &self.scope {
            ConsentScope::All => Ok(Scope::All),
            ConsentScope::Class(name) => class(name),
            ConsentScope::Field(name) => match road.schema.field(name) {
                None => Err(no_field()),
                Some(field) if wrong.is_empty() && !lists(field, &self.purpose) => {
                    let description = "the schema does not list this purpose for the field";
                    Err(Violation::new("field", "purpose_not_listed", description))
                }
                Some(field) => Ok(Scope::Field(field.number)),
            },
        };
        let scope = scope.unwrap_or_else(|broken| {
            wrong.push(broken);
            Scope::All
        });
        let text = <[u8; 32]>::try_from(self.text.as_slice()).unwrap_or_else(|_| {
            let description = "the SHA-256 of the text that was shown has 32 bytes";
            wrong.push(Violation::new("text_sha256", "length", description));
            [0; 32]
        });
        wrong.extend(name("text_version", &self.version));
        wrong.extend(name("channel", &self.channel));
        if self.expires.is_some_and(|at| at <= road.now) {
            wrong.push(Violation::new("expire_time", "expired", "the expiry lies in the past"));
        }
        if self.given.is_some_and(|at| at > road.now) {
            wrong.push(Violation::new("given_time", "future", "a consent is recorded once it was given"));
        }
        limits::none(wrong)?;
        let (purpose, version, channel) = (self.purpose.clone(), self.version.clone(), self.channel.clone());
        let (granted, given, expires) = (road.now, self.given, self.expires);
        Ok(Consent { purpose, scope, granted, given, expires, withdrawn: None, text, version, channel })
    }
}

impl<S: Store> Attempt<S> for GrantConsent {
    /// Whether it changed anything; none if nothing is kept of the subject any more.
    type Answer = Option<bool>;
    const ACTION: Action = Action::GrantConsent;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Option<bool>>, Refused> {
        road.decide_vault()?;
        let consent = self.checked(road)?;
        let mut prepared: Prepared<Option<bool>> = road.prepare(None);
        let tenant = road.tenant.number;
        let mut told = detail(&consent.purpose, consent.scope, &road.schema);
        // Not the hash of the text: one that names the person could be guessed, and tell whose the handle was after an erasure.
        // The record's salted hash is over it.
        told.extend([("text_version", consent.version.clone()), ("channel", consent.channel.clone())]);
        told.extend(consent.given.map(|at| ("given", Timestamp(at).to_string())));
        told.extend(consent.expires.map(|at| ("expires", Timestamp(at).to_string())));
        let records = road.records_of(&self.subject, &mut prepared.guards).await?;
        if records.is_empty() {
            // Whoever signs up consents before anything is stored.
            let mut subjects = road.subjects(std::iter::once(self.subject.as_str())).await?;
            let given = subjects.give(&self.subject, consent).ok_or(Error::Internal("a subject that is nobody"))?;
            subjects.write(tenant, &mut prepared);
            prepared.changes.push(Fact::subject_consents(tenant, given.0));
            let (subject, hash) = (Some(given.0), Some(given.1));
            prepared.items.push(Item { outcome: "consent_granted", subject, hash, ..Item::default() });
            prepared.answer = Some(true);
            prepared.detail = told;
            return Ok(prepared);
        }
        for mut record in records {
            may_be_written(&record)?;
            let handle = record.handle;
            let changed = prepared.answer.get_or_insert(false);
            if !kept::keep(&mut record.consents, consent.clone())? {
                prepared.items.push(Item { outcome: "unchanged", subject: Some(handle), ..Item::default() });
                continue;
            }
            *changed = true;
            road.write_changed(record, Fact::subject_consents(tenant, handle), "consent_granted", &mut prepared)?;
        }
        if prepared.answer.is_some() {
            prepared.detail = told;
        }
        if prepared.answer != Some(true) {
            // Nothing was done, so all that it gives is the answer.
            road.asked_about(&self.subject, prepared.answer.is_some(), &mut prepared);
        }
        Ok(prepared)
    }
}

/// Whether consents of a subject are listed and taken back: while its time of grace runs, too, since that can be undone.
fn may_be_asked(record: &SubjectRecord) -> bool {
    matches!(record.state, SubjectState::Open | SubjectState::Leaving)
}

impl ConsentScope {
    /// What it is about, in a schema that may have changed since.
    fn once(&self, schema: &Schema) -> Result<Scope, Error> {
        let named = |name: &str| {
            let once = || schema.all_fields().find(|field| *field.full_name == *name);
            schema.field(name).or_else(once).map(|field| Scope::Field(field.number))
        };
        let scope = match self {
            Self::All => Ok(Scope::All),
            Self::Class(name) => class(name),
            Self::Field(name) => named(name).ok_or_else(no_field),
        };
        scope.map_err(|broken| Error::Invalid(vec![broken]))
    }
}

impl<S: Store> Attempt<S> for WithdrawConsent {
    /// Whether it changed anything; none if the vault does not know the subject. Or what is wrong with the purpose.
    type Answer = Result<Option<bool>, Violation>;
    const ACTION: Action = Action::WithdrawConsent;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_vault()?;
        let mut prepared: Prepared<Option<bool>> = road.prepare(None);
        let tenant = road.tenant.number;
        let mut records = road.records_of(&self.subject, &mut prepared.guards).await?;
        records.retain(may_be_asked);
        // What was given once is taken back whatever the schema says of its purpose now.
        let given = |record: &SubjectRecord| record.consents.iter().any(|one| one.purpose == self.purpose);
        if !road.rests_on_consent(&self.purpose) && !records.iter().any(given) {
            // Told and counted as any answer is: it says that the subject never gave such a consent.
            let subjects = records.iter().map(|record| Some(record.handle));
            let unchanged = subjects.map(|subject| Item { outcome: "unchanged", subject, ..Item::default() });
            prepared.items.extend(unchanged);
            road.asked_about(&self.subject, !records.is_empty(), &mut prepared);
            prepared.denied = Some("INVALID");
            return Ok(prepared.answering(|_| Err(no_purpose(&self.purpose, &road.schema))));
        }
        let mut scope = self.scope.once(&road.schema)?;
        let would_take = |scope| {
            let mut taken: Vec<Scope> = Vec::new();
            for record in &records {
                let mut consents = record.consents.clone();
                taken.extend(withdraw(&mut consents, &self.purpose, scope, &*road.schema, road.now));
            }
            taken.sort_unstable();
            taken.dedup();
            taken
        };
        let mut taken = all_said(&would_take(scope));
        if taken.len() > MAX_STRING {
            // More than a leaf can say, so nobody could take it back again in an older copy. Better too much is withdrawn than
            // too little: all of the purpose, for which nothing has to be listed.
            scope = Scope::All;
            taken = said(scope);
        }
        for mut record in records {
            let handle = record.handle;
            let changed = prepared.answer.get_or_insert(false);
            let now = withdraw(&mut record.consents, &self.purpose, scope, &*road.schema, road.now);
            if now.is_empty() {
                prepared.items.push(Item { outcome: "unchanged", subject: Some(handle), ..Item::default() });
                continue;
            }
            *changed = true;
            road.write_changed(record, Fact::subject_consents(tenant, handle), "consent_withdrawn", &mut prepared)?;
        }
        if prepared.answer.is_some() {
            prepared.detail = detail(&self.purpose, scope, &road.schema);
        }
        if prepared.answer == Some(true) {
            prepared.detail.push(("withdrawn", taken));
        } else {
            // Only what takes nothing back is counted: no allowance stops a withdrawal.
            road.asked_about(&self.subject, prepared.answer.is_some(), &mut prepared);
        }
        Ok(prepared.answering(Ok))
    }
}

impl<S: Store> Attempt<S> for ListConsents {
    /// None if the vault does not know the subject.
    type Answer = Option<Vec<ListedConsent>>;
    const ACTION: Action = Action::ListConsents;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Option<Vec<ListedConsent>>>, Refused> {
        road.decide_vault()?;
        let scope = self.scope.once(&road.schema)?;
        let mut prepared: Prepared<Option<Vec<ListedConsent>>> = road.prepare(None);
        let records = road.records_of(&self.subject, &mut prepared.guards).await?;
        for record in records.into_iter().filter(may_be_asked) {
            let fact = Fact::subject_consents(road.tenant.number, record.handle);
            prepared.guards.push(Guard::Unchanged(fact));
            prepared.items.push(Item { outcome: OK, subject: Some(record.handle), ..Item::default() });
            let of_purpose = |one: &Consent| self.purpose.is_empty() || one.purpose == self.purpose;
            let asked = |one: &Consent| of_purpose(one) && kept::concerns(one.scope, scope, &*road.schema);
            let listed = record.consents.into_iter().filter(asked);
            let listed = listed.map(|one| ListedConsent::of(one, &road.schema, road.now));
            prepared.answer.get_or_insert_default().extend(listed);
        }
        if let Some(listed) = &mut prepared.answer {
            // Those of subjects that were merged are mostly the same.
            listed.sort_unstable();
            listed.dedup();
        }
        road.asked_about(&self.subject, prepared.answer.is_some(), &mut prepared);
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Gives a data subject's consent, and makes the subject if the vault does not know it. When this returns every decision
    /// stands on it. The answer is whether it changed anything.
    pub async fn grant_consent(&self, caller: &Caller, request: &GrantConsent) -> Result<bool, Error> {
        self.travel(caller, request).await?.ok_or_else(unknown)
    }

    /// Takes a data subject's consent back. When this returns nothing is read by it any more. The answer is whether it
    /// changed anything.
    pub async fn withdraw_consent(&self, caller: &Caller, request: &WithdrawConsent) -> Result<bool, Error> {
        let withdrawn = self.travel(caller, request).await?;
        withdrawn.map_err(|broken| Error::Invalid(vec![broken]))?.ok_or_else(unknown)
    }

    /// The consents of a data subject, withdrawn ones too, by purpose.
    pub async fn list_consents(&self, caller: &Caller, request: &ListConsents) -> Result<Vec<ListedConsent>, Error> {
        self.travel(caller, request).await?.ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_leaves_name_it_and_not_otherwise() {
        for scope in [Scope::All, Scope::Class(1), Scope::Class(2), Scope::Class(3), Scope::Field(FieldNo(7))] {
            assert_eq!(scope_said(&said(scope)), Some(scope));
        }
        for other in ["", "all 1", "class", "class c9", "class unknown", "field", "field x", "field 1 2"] {
            assert_eq!(scope_said(other), None, "{other}");
        }
    }

    #[test]
    fn a_hundred_scopes_fit_into_a_leaf_and_are_read_as_they_were_named() {
        let mut scopes = vec![Scope::All, Scope::Class(3)];
        scopes.extend((0..98).map(|number| Scope::Field(FieldNo(60_000 + number))));
        let said = all_said(&scopes);
        assert!(said.starts_with("all, class c3, fields 60000 60001 ") && said.len() <= MAX_STRING, "{said}");
        assert_eq!(scopes_said(&said), Some(scopes));
        for one in [Scope::All, Scope::Class(1), Scope::Field(FieldNo(7))] {
            assert_eq!(scopes_said(&all_said(&[one])), Some(vec![one]));
        }
        for other in ["", "fields", "fields ", "fields 1  2", "fields 1, x", "all,"] {
            assert_eq!(scopes_said(other), None, "{other}");
        }
    }
}
