//! Replace: a new value under an old token. All or nothing.

use std::collections::HashSet;

use strongroom_access::{Action, CaseLoad};
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, RowVersion};
use strongroom_keys::{DekOwner, DekPlace};
use strongroom_storage::Store;

use crate::error::{Error, Violation};
use crate::idempotency::{Earlier, Key};
use crate::limits;
use crate::random::Dice;
use crate::reading::{Denials, malformed};
use crate::resolve::{Found, Resolved};
use crate::road::{Attempt, Item, Prepared, Refused, Road};
use crate::subjects::NamedDek;
use crate::values::Place;

/// A value that takes another's place.
pub struct NewVersion {
    /// The token, which stays.
    pub token: String,
    /// The new value.
    pub value: bytes::Bytes,
    /// When it stops being readable, in microseconds since 1970.
    pub expires: Option<u64>,
}

/// A Replace request.
pub struct Replace {
    /// What to replace.
    pub items: Vec<NewVersion>,
    /// Makes a retry safe; may be empty.
    pub idempotency_key: String,
}

impl<S: Store> Attempt<S> for Replace {
    type Answer = Vec<u32>;
    const ACTION: Action = Action::Replace;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<u32>>, Refused> {
        self.within_limits(road)?;
        let mut prepared = road.prepare(Vec::with_capacity(self.items.len()));
        let key = self.idempotency(road);
        if let Earlier::Rows(rows, versions) = road.earlier(key.as_ref(), &mut prepared.guards).await? {
            for (resolved, version) in road.resolve_rows(&rows).await?.into_iter().zip(versions) {
                let Resolved::Value(found) = resolved else { return Err(Error::NotFound.into()) };
                road.guard_case_load(found.row.subject, &mut prepared.guards);
                if !road.decide(&found.field, None, road.case_load(&found, "", None)).allowed {
                    return Err(Refused {
                        error: Error::Denied { action: Action::Replace.as_str() },
                        items: vec![found.item("DENIED")],
                    });
                }
                not_frozen(road, &found)?;
                found.guards(road.tenant.number, &mut prepared.guards);
                // The one that this request made, whatever came after it.
                prepared.answer.push(version.0);
                prepared.items.push(found.item("repeated"));
            }
            return Ok(prepared);
        }

        let tokens: Vec<&str> = self.items.iter().map(|item| item.token.as_str()).collect();
        let resolved = road.resolve(&tokens).await?;
        limits::none(repeats(&resolved))?;
        let found = self.decide(road, &resolved)?;
        found.iter().try_for_each(|found| not_frozen(road, found))?;
        found.iter().try_for_each(|found| not_held(road, found, &mut prepared))?;
        found.iter().for_each(|found| road.guard_case_load(found.row.subject, &mut prepared.guards));
        self.validate(road, &found)?;
        for found in found.iter().filter(|found| found.subject.is_none()) {
            road.tenant.allow_seals(road.vault, found.row.keyring, 1).await?;
        }
        let mut dice = Dice::default();
        for (item, found) in self.items.iter().zip(&found) {
            let leaf = write(road, item, found, &mut dice, &mut prepared)?;
            prepared.answer.push(leaf.version.map_or(0, |version| version.0));
            prepared.items.push(leaf);
        }
        if let Some(key) = key {
            let rows = found.iter().map(|found| found.id).collect();
            let versions = prepared.answer.iter().map(|version| RowVersion(*version)).collect();
            road.remember(key, rows, versions, &mut prepared);
        }
        Ok(prepared)
    }
}

impl Replace {
    fn within_limits<S: Store>(&self, road: &Road<'_, S>) -> Result<(), Error> {
        let limits = &road.vault.limits;
        limits.items(self.items.len())?;
        limits.message(self.items.iter().map(|item| item.value.len()).sum())?;
        limits.idempotency_key(&self.idempotency_key)?;
        let mut wrong = Vec::new();
        let mut seen = HashSet::new();
        for (index, item) in self.items.iter().enumerate() {
            wrong.extend(malformed(limits, index, &item.token));
            limits.value(index, &item.value, &mut wrong);
            if !seen.insert(item.token.as_str()) {
                wrong.push(repeated(index));
            }
        }
        limits::none(wrong)
    }

    fn idempotency<S: Store>(&self, road: &Road<'_, S>) -> Option<Key> {
        let expiries: Vec<[u8; 8]> =
            self.items.iter().map(|item| item.expires.unwrap_or_default().to_be_bytes()).collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(self.items.len() * 3);
        for (item, expires) in self.items.iter().zip(&expiries) {
            parts.extend([item.token.as_bytes(), &item.value, expires]);
        }
        road.idempotency(&self.idempotency_key, &parts)
    }

    /// Every token must lead to a value that the caller may replace.
    fn decide<'r, S: Store>(&self, road: &Road<'_, S>, resolved: &'r [Resolved]) -> Result<Vec<&'r Found>, Refused> {
        let mut values = Vec::with_capacity(resolved.len());
        let mut missing = Vec::new();
        let mut denied = false;
        let mut denials = Denials::default();
        let mut items = Vec::new();
        for (index, (item, resolved)) in self.items.iter().zip(resolved).enumerate() {
            let load = match resolved {
                Resolved::Value(found) => road.case_load(found, "", None),
                _ => CaseLoad::None,
            };
            let refusal = match resolved {
                Resolved::Value(found) if road.decide(&found.field, None, load).allowed => {
                    values.push(&**found);
                    continue;
                }
                Resolved::Value(found) => denials.refuse(road, &item.token, found, None, load),
                other => denials.not_found(road, &item.token, other),
            };
            match refusal.error {
                Error::Denied { .. } => denied = true,
                _ => missing.push(not_found_at(index)),
            }
            items.push(refusal.item);
        }
        if denied {
            return Err(Refused { error: Error::Denied { action: Action::Replace.as_str() }, items });
        }
        if !missing.is_empty() {
            return Err(Refused { error: Error::NotFoundAt(missing), items });
        }
        Ok(values)
    }

    fn validate<S: Store>(&self, road: &Road<'_, S>, found: &[&Found]) -> Result<(), Refused> {
        let mut wrong = Vec::new();
        let mut items = Vec::new();
        for (index, (item, found)) in self.items.iter().zip(found).enumerate() {
            let before = wrong.len();
            if found.field.deterministic.is_some() {
                let description = "a deterministic field gives a new value a new token: tokenize the value instead";
                wrong.push(Violation::new(format!("items[{index}].token"), "replace_not_allowed", description));
            } else if let Err(broken) = found.field.validate(&item.value) {
                wrong.push(Violation::new(format!("items[{index}].value"), broken.rule, broken.message));
            }
            if item.expires.is_some_and(|at| at <= road.now) {
                let description = "the expiry lies in the past";
                wrong.push(Violation::new(format!("items[{index}].expire_time"), "expired", description));
            }
            if wrong.len() > before {
                items.push(found.item(Error::Invalid(vec![]).reason()));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Refused { error: Error::Invalid(wrong), items }) }
    }
}

/// Transform: the row gets its next version. The old value's ciphertext goes; its DEK is rolled or replaced.
fn write<S: Store>(
    road: &Road<'_, S>,
    item: &NewVersion,
    found: &Found,
    dice: &mut Dice,
    prepared: &mut Prepared<Vec<u32>>,
) -> Result<Item, Error> {
    let tenant = road.tenant.number;
    let version = found.row.version.0.checked_add(1).ok_or(Error::Internal("a row with too many versions"))?;
    let shaped = match found.row.sealed_token {
        Some(_) => Some(road.token_of(found)?),
        None => None,
    };
    let named = match &found.subject {
        Some(record) => {
            prepared.guards.push(Guard::Unchanged(Fact::subject_keys(tenant, record.handle)));
            road.newest_dek(record, found.row.keyring)?
        }
        None => {
            let next = DekVersion(found.row.dek_version.0.saturating_add(1));
            let (named, wrapped) = road.new_dek(DekOwner::Value(found.id), found.row.keyring, next)?;
            road.write_own_dek(found.id, wrapped, prepared);
            prepared.forget.push(DekPlace {
                tenant: road.tenant.id,
                keyring: found.row.keyring,
                owner: DekOwner::Value(found.id),
                version: found.row.dek_version,
            });
            named
        }
    };
    found.guards(tenant, &mut prepared.guards);
    road.remove_entries(found, prepared);
    road.mark_dek(found, prepared);
    let at = Place {
        id: found.id,
        version: RowVersion(version),
        token_key: found.row.token_key,
        check: found.row.check,
        salt: dice.roll()?,
        subject: found.row.subject,
        created: road.now,
        expires: item.expires,
        shaped,
    };
    road.write_value(&found.field, &item.value, at, &named, prepared)
}

impl<S: Store> Road<'_, S> {
    /// A subject's newest DEK of a keyring, which holds a value already.
    fn newest_dek(
        &self,
        record: &strongroom_storage::rows::SubjectRecord,
        keyring: strongroom_ids::KeyringNo,
    ) -> Result<NamedDek, Error> {
        let wrapped = record.newest_dek(keyring).ok_or(Error::DataLoss("a subject without the DEK of its value"))?;
        let owner = DekOwner::Subject(record.handle);
        let dek = self.unwrap_dek(owner, keyring, wrapped.version, wrapped.kek_version, &wrapped.blob)?;
        Ok(NamedDek { dek, owner, keyring, version: wrapped.version })
    }
}

/// Refuses a request that would change a frozen value.
fn not_frozen<S: Store>(road: &Road<'_, S>, found: &Found) -> Result<(), Refused> {
    road.unfrozen_value(found).map_err(|error| Refused { items: vec![found.item(error.reason())], error })
}

/// The same of one that a legal hold keeps.
fn not_held<S: Store>(road: &Road<'_, S>, found: &Found, prepared: &mut Prepared<Vec<u32>>) -> Result<(), Refused> {
    road.not_held(found, prepared).map_err(|error| Refused { items: vec![found.item(error.reason())], error })
}

/// Two items with one token: which of them would win is not to be guessed.
pub(crate) fn repeated(index: usize) -> Violation {
    Violation::new(format!("items[{index}].token"), "repeated", "each token may stand in a call once")
}

/// The same where two spellings of a token, in upper and lower case, lead to one value.
pub(crate) fn repeats(resolved: &[Resolved]) -> Vec<Violation> {
    let mut seen = HashSet::new();
    let again = |resolved: &Resolved| match resolved {
        Resolved::Value(found) | Resolved::Expired(found) => !seen.insert(found.id),
        Resolved::Nothing => false,
    };
    let again: Vec<bool> = resolved.iter().map(again).collect();
    (0..).zip(again).filter(|(_, again)| *again).map(|(index, _)| repeated(index)).collect()
}

fn not_found_at(index: usize) -> Violation {
    Violation::new(
        format!("items[{index}].token"),
        "not_found",
        "no value that you may know of stands behind this token",
    )
}
