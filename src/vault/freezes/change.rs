//! What changes a freeze or a suspension: who may, what it comes to, and what it ends.

use strongroom_access::{Action, Freezes, Role, Scope, Since, SuspendError, Touch, parse_principal};
use strongroom_ids::FieldNo;
use strongroom_ledger::summary;
use strongroom_schema::{Field, Schema};
use strongroom_storage::Store;

use super::FIELD_NUMBER;
use crate::error::Error;
use crate::road::{Road, Told};
use crate::tenant::Rules;

/// Freezes a field, a tenant, or all tenants. What is frozen stays so since then.
pub struct Freeze {
    /// The field; empty for everything.
    pub field: String,
    /// Whether nothing of it shall be told any more.
    pub reads: bool,
    /// Whether nothing of it shall be stored, changed or deleted any more.
    pub writes: bool,
    /// Whether it is about all tenants: for the vault's operators.
    pub all_tenants: bool,
}

/// Ends a freeze, of just this: a field that was frozen by itself stays frozen when that of everything ends.
pub struct Unfreeze {
    /// The field; empty for the freeze of everything.
    pub field: String,
    /// Whether it may be read again.
    pub reads: bool,
    /// Whether it may be written again.
    pub writes: bool,
    /// Whether it is about all tenants: for the vault's operators.
    pub all_tenants: bool,
}

/// Suspends a principal: everything that it asks is refused.
pub struct Suspend {
    /// Role and name: `app/loan-core`.
    pub principal: String,
    /// Why.
    pub reason: String,
}

/// Ends a suspension.
pub struct Unsuspend {
    /// Role and name.
    pub principal: String,
}

/// A change of what is frozen or who is suspended.
pub(super) trait ChangeOfFreezes: Send + Sync {
    /// The action that policy decides on.
    const ACTION: Action;
    /// Whether it holds for all tenants.
    const OF_ALL: bool = false;

    /// Makes the change, if it can be made.
    fn apply<S: Store>(&self, road: &Road<'_, S>, freezes: &mut Freezes) -> Result<Told, Error>;

    /// Whether it ends what a restore froze: nobody does that alone.
    fn ends_what_a_restore_froze(&self, _own: &Freezes) -> bool {
        false
    }

    /// What it ends, in words and since when and by whom; nothing of what protects, which waits for nobody's approval. Who
    /// approves an end approves that of just this freeze, and not of one that a colleague makes later.
    fn ends(&self, _rules: &Rules) -> (String, Vec<Since>) {
        (String::new(), vec![])
    }
}

/// Of the caller's tenant.
pub(super) struct OfTenant<'r, R>(pub(super) &'r R);

/// Of all tenants.
pub(super) struct OfAll<'r, R>(pub(super) &'r R);

impl ChangeOfFreezes for OfTenant<'_, Freeze> {
    const ACTION: Action = Action::Freeze;

    fn apply<S: Store>(&self, road: &Road<'_, S>, freezes: &mut Freezes) -> Result<Told, Error> {
        let Freeze { field, reads, writes, all_tenants: _ } = self.0;
        let (scope, told) = scope(&road.schema, field)?;
        let touches = touches(*reads, *writes)?;
        freezes.freeze(scope, &touches, &since(road));
        Ok(tell(told, &touches))
    }
}

impl ChangeOfFreezes for OfTenant<'_, Unfreeze> {
    const ACTION: Action = Action::Unfreeze;

    fn apply<S: Store>(&self, road: &Road<'_, S>, freezes: &mut Freezes) -> Result<Told, Error> {
        road.only_officers()?;
        let Unfreeze { field, reads, writes, all_tenants: _ } = self.0;
        let (scope, told) = scope(&road.schema, field)?;
        let touches = touches(*reads, *writes)?;
        freezes.unfreeze(scope, &touches);
        Ok(tell(told, &touches))
    }

    fn ends_what_a_restore_froze(&self, own: &Freezes) -> bool {
        let Unfreeze { field, reads, writes, all_tenants: _ } = self.0;
        let mut touches = touches(*reads, *writes).unwrap_or_default().into_iter();
        field.is_empty() && touches.any(|touch| own.everything.is_by_restore(touch))
    }

    fn ends(&self, rules: &Rules) -> (String, Vec<Since>) {
        let Unfreeze { field, reads, writes, all_tenants: _ } = self.0;
        let own = &rules.freezes.own;
        // Named as in the leaf of what is done then.
        let (frozen, named) = match scope(&rules.schema, field) {
            Ok((Scope::Field(number), told)) => {
                let name = told.first().map_or(field.as_str(), |(_, name)| name.as_str());
                (own.fields.get(&number), summary::frozen_field(name, number.0))
            }
            _ => (Some(&own.everything), "everything".to_owned()),
        };
        let touches = touches(*reads, *writes).unwrap_or_default();
        let ended = touches.iter().filter_map(|touch| Some((*touch, frozen?.of(*touch)?)));
        let (ended, since): (Vec<&str>, Vec<Since>) =
            ended.map(|(touch, since)| (touch.as_str(), since.clone())).unzip();
        (summary::unfreeze(&ended.join(" and "), &named), since)
    }
}

impl ChangeOfFreezes for OfAll<'_, Freeze> {
    const ACTION: Action = Action::FreezeAll;
    const OF_ALL: bool = true;

    fn apply<S: Store>(&self, road: &Road<'_, S>, freezes: &mut Freezes) -> Result<Told, Error> {
        no_field(&self.0.field)?;
        let touches = touches(self.0.reads, self.0.writes)?;
        freezes.freeze(Scope::Everything, &touches, &since(road));
        Ok(tell(vec![], &touches))
    }
}

impl ChangeOfFreezes for OfAll<'_, Unfreeze> {
    const ACTION: Action = Action::UnfreezeAll;
    const OF_ALL: bool = true;

    fn apply<S: Store>(&self, _road: &Road<'_, S>, freezes: &mut Freezes) -> Result<Told, Error> {
        no_field(&self.0.field)?;
        let touches = touches(self.0.reads, self.0.writes)?;
        freezes.unfreeze(Scope::Everything, &touches);
        Ok(tell(vec![], &touches))
    }
}

impl ChangeOfFreezes for OfTenant<'_, Suspend> {
    const ACTION: Action = Action::Suspend;

    fn apply<S: Store>(&self, road: &Road<'_, S>, freezes: &mut Freezes) -> Result<Told, Error> {
        road.only_officers()?;
        let Suspend { principal, reason } = self.0;
        let caller = &road.caller.principal;
        let Some((role, name)) = parse_principal(principal) else {
            return Err(Error::invalid("principal", "principal_name", SuspendError::Name.to_string()));
        };
        if **principal == *caller.name {
            // As only an officer suspends an officer, this also leaves each tenant one who can end suspensions.
            let why = "nobody suspends itself: another officer does, and so one is always left";
            return Err(Error::SuspensionRefused(why.to_owned()));
        }
        if role == Role::Officer {
            let unknown = || Error::invalid("principal", "officer_unknown", "the tenant has no officer of this name");
            road.vault.directory().officer(road.tenant.number, name).ok_or_else(unknown)?;
        }
        freezes.suspend(principal, reason, since(road)).map_err(|error| match error {
            SuspendError::Name => Error::invalid("principal", "principal_name", error.to_string()),
            SuspendError::Reason => Error::invalid("reason", "reason", error.to_string()),
            SuspendError::Full => Error::SuspensionRefused(error.to_string()),
        })?;
        // The reason stays in the row, whose hash stands in the log: somebody may write in it what no log should keep.
        Ok(vec![("suspended", principal.clone())])
    }
}

impl ChangeOfFreezes for OfTenant<'_, Unsuspend> {
    const ACTION: Action = Action::Unsuspend;

    fn apply<S: Store>(&self, road: &Road<'_, S>, freezes: &mut Freezes) -> Result<Told, Error> {
        road.only_officers()?;
        if parse_principal(&self.0.principal).is_none() {
            return Err(Error::invalid("principal", "principal_name", SuspendError::Name.to_string()));
        }
        freezes.unsuspend(&self.0.principal);
        Ok(vec![("suspended", self.0.principal.clone())])
    }

    fn ends(&self, rules: &Rules) -> (String, Vec<Since>) {
        let principal = &self.0.principal;
        let suspension = rules.freezes.own.suspended.get(principal);
        let since = suspension.map(|suspension| suspension.since.clone());
        (summary::unsuspend(principal), since.into_iter().collect())
    }
}

fn since<S: Store>(road: &Road<'_, S>) -> Since {
    Since { time: road.now, by: road.caller.principal.name.to_string() }
}

fn scope(schema: &Schema, field: &str) -> Result<(Scope, Told), Error> {
    if field.is_empty() {
        return Ok((Scope::Everything, vec![]));
    }
    let unknown = || Error::invalid("field", "field_unknown", "no such field in the schema");
    // One that was retired has no name any more, and may still have values.
    let numbered = |number: &str| schema.field_no(FieldNo(number.parse().ok()?));
    let field = match field.strip_prefix('#') {
        Some(number) => numbered(number),
        None => schema.field(field),
    };
    let field = field.ok_or_else(unknown)?;
    // The number, too: by the name alone nobody could freeze it again in an older copy, in which it may have another.
    let told = vec![("field", shown(field)), (FIELD_NUMBER, field.number.0.to_string())];
    Ok((Scope::Field(field.number), told))
}

/// How a field is called: one that was retired by its number, since another may have its name.
pub(super) fn shown(field: &Field) -> String {
    match field.retired {
        true => format!("#{}", field.number.0),
        false => field.full_name.to_string(),
    }
}

fn no_field(field: &str) -> Result<(), Error> {
    match field.is_empty() {
        true => Ok(()),
        false => {
            Err(Error::invalid("field", "not_of_all", "a field is its tenant's own: leave it out for all tenants"))
        }
    }
}

fn touches(reads: bool, writes: bool) -> Result<Vec<Touch>, Error> {
    match (reads, writes) {
        (false, false) => Err(Error::invalid("reads", "nothing", "say what is meant: reads, writes, or both")),
        (true, false) => Ok(vec![Touch::Reads]),
        (false, true) => Ok(vec![Touch::Writes]),
        (true, true) => Ok(Touch::ALL.to_vec()),
    }
}

fn tell(mut told: Told, touches: &[Touch]) -> Told {
    let touches: Vec<&str> = touches.iter().map(|touch| touch.as_str()).collect();
    told.push(("what", touches.join(" ")));
    told
}
