//! Tokenize: values in, tokens out. All or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_access::{Action, CaseLoad};
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, KeyringNo, RowId, RowVersion, SubjectHandle};
use strongroom_keys::DekOwner;
use strongroom_schema::token::{ParsedToken, Token};
use strongroom_schema::{Field, Scope};
use strongroom_storage::Store;

use crate::deterministic::{Known, Wanted};
use crate::error::{Error, Violation};
use crate::idempotency::{Earlier, Key};
use crate::limits;
use crate::random::Dice;
use crate::resolve::Resolved;
use crate::road::{Attempt, Item, Prepared, Refused, Road, make_way};
use crate::subjects::Subjects;
use crate::values::Place;

/// How often a shaped token is drawn again when it is taken.
const DRAWS: usize = 16;

/// Whether policy lets the caller store a value of a field, under a token of its own perhaps.
fn may<S: Store>(road: &Road<'_, S>, field: &Field, foreign: bool, load: CaseLoad) -> bool {
    road.decide(field, None, load).allowed && (!foreign || road.decide_import(field, load).allowed)
}

/// A value to be stored.
pub struct NewValue {
    /// The field's name: `borrower.id_card`.
    pub field: String,
    /// The value.
    pub value: bytes::Bytes,
    /// Whose it is; empty for nobody's.
    pub subject: String,
    /// When it stops being readable, in microseconds since 1970.
    pub expires: Option<u64>,
    /// A token made elsewhere; empty for one of the vault's own.
    pub token: String,
}

/// A Tokenize request.
pub struct Tokenize {
    /// What to store.
    pub items: Vec<NewValue>,
    /// Makes a retry safe; may be empty.
    pub idempotency_key: String,
}

impl<S: Store> Attempt<S> for Tokenize {
    type Answer = Vec<String>;
    const ACTION: Action = Action::Tokenize;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<String>>, Refused> {
        self.within_limits(road)?;
        let fields = self.fields(road)?;
        self.decide(road, &fields, |_| None)?;
        road.none_frozen(&fields)?;
        self.validate(road, &fields)?;

        let mut prepared = road.prepare(Vec::with_capacity(self.items.len()));
        let key = self.idempotency(road);
        match road.earlier(key.as_ref(), &mut prepared.guards).await? {
            Earlier::Rows(rows, _) => return self.again(road, &fields, &rows, prepared).await,
            Earlier::Nothing => {}
        }

        let mut subjects = road.subjects(self.items.iter().map(|item| item.subject.as_str())).await?;
        self.decide_by_case(road, &fields, |index| road.case_load_of(subjects.labels(&self.items[index].subject)))?;
        let mut wanted = self.wanted(road, &fields, &subjects)?;
        let mut known = road.known_values(&mut wanted, &mut prepared).await?;
        self.one_expiry_each(&wanted, &known)?;
        let new = wanted.iter().filter(|item| item.is_new()).count();
        let mut ids = road.tenant.row_ids(road.vault, new).await?;
        self.allow_seals(road, &fields, &wanted, &subjects).await?;
        let mut dice = Dice::default();
        let holders = self.items.iter().map(|item| subjects.handle(&item.subject));
        road.renew(&wanted, &known, holders, &mut dice, &mut prepared).await?;
        let mut shaped = self.shaped_tokens(road, &fields, &wanted, &mut dice, &mut prepared).await?;

        let mut rows = Vec::with_capacity(self.items.len());
        for (index, item) in self.items.iter().enumerate() {
            make_way(index).await;
            let field = &fields[index];
            let subject = subjects.handle(&item.subject);
            let (row, token, leaf) = match wanted[index].known(&known) {
                Some(existing) => {
                    if field.deterministic == Some(Scope::Tenant) {
                        road.write_holding(field, existing.row, subject, &mut prepared);
                    }
                    (existing.row, existing.token.clone(), existing.item(field, subject))
                }
                None => {
                    let id = RowId(ids.next().ok_or(Error::Internal("fewer row ids than asked for"))?);
                    let (token, leaf) = self.store(
                        road,
                        index,
                        field,
                        id,
                        &mut subjects,
                        shaped.remove(&index),
                        &mut dice,
                        &mut prepared,
                    )?;
                    wanted[index].remember(&mut known, id, &token);
                    (id, token, leaf)
                }
            };
            rows.push(row);
            prepared.answer.push(token);
            prepared.items.push(leaf);
        }
        subjects.write(road.tenant.number, &mut prepared);
        if let Some(key) = key {
            road.remember(key, rows, vec![], &mut prepared);
        }
        Ok(prepared)
    }
}

impl Tokenize {
    fn within_limits<S: Store>(&self, road: &Road<'_, S>) -> Result<(), Error> {
        let limits = &road.vault.limits;
        limits.items(self.items.len())?;
        limits.message(self.items.iter().map(|item| item.value.len()).sum())?;
        limits.idempotency_key(&self.idempotency_key)?;
        let mut wrong = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            limits.value(index, &item.value, &mut wrong);
            limits.subject(index, &item.subject, &mut wrong);
            if !item.token.is_empty() {
                limits.token(index, &item.token, &mut wrong);
            }
        }
        limits::none(wrong)
    }

    fn idempotency<S: Store>(&self, road: &Road<'_, S>) -> Option<Key> {
        let expiries: Vec<[u8; 8]> =
            self.items.iter().map(|item| item.expires.unwrap_or_default().to_be_bytes()).collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(self.items.len() * 5);
        for (item, expires) in self.items.iter().zip(&expiries) {
            parts.extend([item.field.as_bytes(), &item.value, item.subject.as_bytes(), expires, item.token.as_bytes()]);
        }
        road.idempotency(&self.idempotency_key, &parts)
    }

    /// Resolve: names become fields.
    fn fields<S: Store>(&self, road: &Road<'_, S>) -> Result<Vec<Arc<Field>>, Error> {
        if road.schema.version() == 0 {
            return Err(Error::NoSchema);
        }
        let mut fields = Vec::with_capacity(self.items.len());
        let mut wrong = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            match road.schema.field(&item.field) {
                Some(field) => fields.push(Arc::clone(field)),
                None => wrong.push(unknown_field(index)),
            }
        }
        limits::none(wrong)?;
        Ok(fields)
    }

    /// Decide, once for each distinct field and case load; one that is not known yet may turn out to be any.
    fn decide<S: Store>(
        &self,
        road: &Road<'_, S>,
        fields: &[Arc<Field>],
        load: impl Fn(usize) -> Option<CaseLoad>,
    ) -> Result<(), Refused> {
        let mut decided: HashMap<(u32, bool, Option<CaseLoad>), bool> = HashMap::new();
        let mut items = Vec::new();
        for (index, (item, field)) in self.items.iter().zip(fields).enumerate() {
            let (foreign, load) = (!item.token.is_empty(), load(index));
            let loads = load.as_ref().map_or(road.case_loads(), std::slice::from_ref);
            let allowed = decided.entry((field.number.0, foreign, load));
            if !*allowed.or_insert_with(|| loads.iter().any(|load| may(road, field, foreign, *load))) {
                items.push(Item { field: Some(Arc::clone(&field.full_name)), outcome: "DENIED", ..Item::default() });
            }
        }
        match items.is_empty() {
            true => Ok(()),
            false => Err(Refused { error: Error::Denied { action: Action::Tokenize.as_str() }, items }),
        }
    }

    /// The same once it is known whose case each subject is, if somebody is behind the caller.
    fn decide_by_case<S: Store>(
        &self,
        road: &Road<'_, S>,
        fields: &[Arc<Field>],
        load: impl Fn(usize) -> CaseLoad,
    ) -> Result<(), Refused> {
        match road.caller.actor {
            None => Ok(()),
            Some(_) => self.decide(road, fields, |index| Some(load(index))),
        }
    }

    /// Validates every item, so that the caller learns of all that is wrong at once.
    fn validate<S: Store>(&self, road: &Road<'_, S>, fields: &[Arc<Field>]) -> Result<(), Refused> {
        let mut wrong = Vec::new();
        let mut items = Vec::new();
        let mut tokens = std::collections::HashSet::new();
        for (index, (item, field)) in self.items.iter().zip(fields).enumerate() {
            let before = wrong.len();
            if let Err(broken) = field.validate(&item.value) {
                wrong.push(Violation::new(format!("items[{index}].value"), broken.rule, broken.message));
            }
            if item.subject.is_empty() && field.deterministic == Some(Scope::PerSubject) {
                let description = "this field gives one token per subject and value, so it needs a subject";
                wrong.push(Violation::new(format!("items[{index}].subject"), "subject_required", description));
            }
            if item.expires.is_some_and(|at| at <= road.now) {
                let description = "the expiry lies in the past";
                wrong.push(Violation::new(format!("items[{index}].expire_time"), "expired", description));
            }
            if !item.token.is_empty()
                && let Some((rule, description)) = bad_foreign_token(field, &item.token, &mut tokens)
            {
                wrong.push(Violation::new(format!("items[{index}].token"), rule, description));
            }
            if let Some(first) = wrong.get(before) {
                items.push(Item { field: Some(Arc::clone(&field.full_name)), outcome: first.rule, ..Item::default() });
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Refused { error: Error::Invalid(wrong), items }) }
    }

    /// The same request under the same key: the same tokens, and nothing stored.
    async fn again<S: Store>(
        &self,
        road: &Road<'_, S>,
        fields: &[Arc<Field>],
        rows: &[RowId],
        mut prepared: Prepared<Vec<String>>,
    ) -> Result<Prepared<Vec<String>>, Refused> {
        let resolved = road.resolve_rows(rows).await?;
        let holders = self.items.iter().map(|item| item.subject.as_str()).zip(&resolved);
        let named = road.named(holders, true, &mut prepared.guards).await?;
        self.decide_by_case(road, fields, |index| match &resolved[index] {
            // As the first time: without a subject it is nobody's case, and who sends the value and the key again knows it.
            Resolved::Value(_) if self.items[index].subject.is_empty() => CaseLoad::None,
            Resolved::Value(found) => road.case_load(found, &self.items[index].subject, Some(&named)),
            _ => CaseLoad::None,
        })?;
        for (item, resolved) in self.items.iter().zip(&resolved) {
            // What was erased or has expired since stays so, and so does a hold on a shared value that has ended.
            let Resolved::Value(found) = resolved else { return Err(Error::NotFound.into()) };
            let holder = road.holder(found, &item.subject, &named, &mut prepared.guards);
            if !holder.is_some_and(|holder| named.holds(found, holder)) {
                return Err(Error::NotFound.into());
            }
            let holder = holder.unwrap_or(SubjectHandle::NONE);
            road.unfrozen_value(found).and_then(|()| named.not_leaving(holder))?;
            road.guard_case_load(holder, &mut prepared.guards);
            if found.is_shared() {
                prepared.guards.push(Guard::Unchanged(Fact::holders(road.tenant.number, found.id)));
            }
            found.guards(road.tenant.number, &mut prepared.guards);
            prepared.answer.push(road.token_of(found)?);
            prepared.items.push(found.item("repeated"));
        }
        Ok(prepared)
    }

    /// Which items may already have a token, since their field gives the same token for the same value.
    fn wanted<S: Store>(
        &self,
        road: &Road<'_, S>,
        fields: &[Arc<Field>],
        subjects: &Subjects,
    ) -> Result<Vec<Wanted>, Error> {
        let mut wanted = Vec::with_capacity(self.items.len());
        for (item, field) in self.items.iter().zip(fields) {
            wanted.push(match field.deterministic {
                None => Wanted::always_new(),
                Some(scope) => {
                    let handle = subjects.handle(&item.subject);
                    let within = if scope == Scope::Tenant { SubjectHandle::NONE } else { handle };
                    Wanted::once(road, field, &item.value, within)?
                }
            });
        }
        Wanted::number(&mut wanted);
        Ok(wanted)
    }

    /// A deterministic value is stored once, so it has one expiry: neither caller's is silently dropped. Nothing is
    /// reserved before that is known.
    fn one_expiry_each(&self, wanted: &[Wanted], known: &Known) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let mut first: HashMap<usize, Option<u64>> = HashMap::new();
        for (index, (item, wanted)) in self.items.iter().zip(wanted).enumerate() {
            let Some(number) = wanted.value() else { continue };
            let stored = wanted.known(known).map(|existing| existing.expires());
            if stored.unwrap_or_else(|| *first.entry(number).or_insert(item.expires)) != item.expires {
                let description = "this value is stored already, with another expiry or with none, and a deterministic \
                                   value has one: send the same";
                wrong.push(Violation::new(format!("items[{index}].expire_time"), "differs", description));
            }
        }
        limits::none(wrong)
    }

    /// Reserves what the DEKs that will be made cost their KEKs.
    async fn allow_seals<S: Store>(
        &self,
        road: &Road<'_, S>,
        fields: &[Arc<Field>],
        wanted: &[Wanted],
        subjects: &Subjects,
    ) -> Result<(), Error> {
        let new = || self.items.iter().zip(fields).zip(wanted).filter(|(_, wanted)| wanted.is_new());
        let of_subjects = new()
            .filter(|((item, field), _)| has_subject(item, field))
            .map(|((item, field), _)| (item.subject.as_str(), field.keyring));
        let mut seals: HashMap<KeyringNo, usize> = subjects.missing_deks(of_subjects);
        for ((item, field), _) in new() {
            if !has_subject(item, field) {
                *seals.entry(field.keyring).or_insert(0) += 1;
            }
        }
        for (keyring, count) in seals {
            road.tenant.allow_seals(road.vault, keyring, count).await?;
        }
        Ok(())
    }

    /// Draws the tokens that aren't opaque, and sees that nobody has them.
    async fn shaped_tokens<S: Store>(
        &self,
        road: &Road<'_, S>,
        fields: &[Arc<Field>],
        wanted: &[Wanted],
        dice: &mut Dice,
        prepared: &mut Prepared<Vec<String>>,
    ) -> Result<HashMap<usize, String>, Error> {
        let mut tokens: HashMap<usize, String> = HashMap::new();
        let mut open: Vec<usize> = (0..self.items.len())
            .filter(|index| wanted[*index].is_new())
            .filter(|index| !fields[*index].token.is_opaque() || !self.items[*index].token.is_empty())
            .collect();
        let mut taken = std::collections::HashSet::new();
        for _ in 0..DRAWS {
            if open.is_empty() {
                return Ok(tokens);
            }
            let mut places = Vec::with_capacity(open.len());
            for index in &open {
                let item = &self.items[*index];
                let token = match item.token.is_empty() {
                    true => fields[*index].shape_token(&item.value, &dice.roll::<32>()?).map_err(|broken| {
                        Error::invalid(format!("items[{index}].value"), broken.rule, broken.message)
                    })?,
                    false => item.token.clone(),
                };
                places.push(road.shaped_token_places(token.as_bytes())?);
                tokens.insert(*index, token);
            }
            let stored = road.look_up(&places.iter().collect::<Vec<_>>()).await?;
            let mut again = Vec::new();
            for ((index, places), stored) in open.iter().zip(places).zip(stored) {
                if stored.is_none() && taken.insert(places.newest.clone()) {
                    places.guard(road.tenant.number, &mut prepared.guards);
                } else if !self.items[*index].token.is_empty() {
                    let description = "another value has this token already";
                    return Err(Error::invalid(format!("items[{index}].token"), "token_taken", description));
                } else {
                    again.push(*index);
                }
            }
            open = again;
        }
        if open.is_empty() { Ok(tokens) } else { Err(Error::TokensExhausted) }
    }

    /// Transform: one new value becomes a row.
    #[allow(clippy::too_many_arguments)]
    fn store<S: Store>(
        &self,
        road: &Road<'_, S>,
        index: usize,
        field: &Arc<Field>,
        id: RowId,
        subjects: &mut Subjects,
        shaped: Option<String>,
        dice: &mut Dice,
        prepared: &mut Prepared<Vec<String>>,
    ) -> Result<(String, Item), Error> {
        let item = &self.items[index];
        let of_subject =
            if has_subject(item, field) { road.dek_of(subjects, &item.subject, field.keyring)? } else { None };
        let named = match of_subject {
            Some(named) => named,
            None => {
                let (named, wrapped) = road.new_dek(DekOwner::Value(id), field.keyring, DekVersion(1))?;
                road.write_own_dek(id, wrapped, prepared);
                named
            }
        };
        let subject = subjects.handle(&item.subject);
        let at = Place {
            id,
            version: RowVersion(1),
            token_key: road.rules.keys.token.version(),
            check: dice.roll()?,
            salt: dice.roll()?,
            subject: if has_subject(item, field) { subject } else { SubjectHandle::NONE },
            created: road.now,
            expires: item.expires,
            shaped,
        };
        let token = match &at.shaped {
            Some(token) => token.clone(),
            None => road.new_opaque_token(field, id, at.check),
        };
        road.write_holding(field, id, subject, prepared);
        let mut leaf = road.write_value(field, &item.value, at, &named, prepared)?;
        leaf.subject = Some(subject);
        Ok((token, leaf))
    }
}

/// Whether the value is sealed under its subject's DEK: a value that several subjects may share is not.
fn has_subject(item: &NewValue, field: &Field) -> bool {
    !item.subject.is_empty() && field.deterministic != Some(Scope::Tenant)
}

pub(crate) fn unknown_field(index: usize) -> Violation {
    let description = "no such field in the schema; `strongroom schema show` lists the fields";
    Violation::new(format!("items[{index}].field"), "field_unknown", description)
}

fn bad_foreign_token(
    field: &Field,
    token: &str,
    seen: &mut std::collections::HashSet<String>,
) -> Option<(&'static str, &'static str)> {
    if field.deterministic.is_some() {
        return Some(("token_not_allowed", "a deterministic field makes its own tokens"));
    }
    match Token::parse(token) {
        Ok(ParsedToken::Shaped(_)) if seen.insert(token.to_owned()) => None,
        Ok(ParsedToken::Shaped(_)) => Some(("token_taken", "two items of the request bring the same token")),
        Ok(ParsedToken::Opaque { .. }) => {
            Some(("token_opaque", "a token of the vault's own form can't be brought from elsewhere"))
        }
        Err(_) => Some(("token_malformed", "a token is 1 to 256 printable characters")),
    }
}
