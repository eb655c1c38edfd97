//! What is frozen, and who is suspended: at once, for every request whose leaf comes after, those under way too.
//!
//! It is one row a tenant, in memory with the tenant's other rules, and changed as they are, while no request runs.
//! Every decision stands on the fact of the policy in force, and a change of this changes that fact: so a request that
//! was decided before is turned back and decided anew. The vault's own row holds for all tenants.

use std::sync::Arc;

use strongroom_access::{
    Action, Freezes, Frozen, Role, Scope, Since, SuspendError, Suspension, Touch, parse_principal,
};
use strongroom_commit::Fact;
use strongroom_ids::{FieldNo, TenantId, TenantNo};
use strongroom_keys::{IndexName, Keystore};
use strongroom_ledger::{Timestamp, summary};
use strongroom_schema::{Field, Schema};
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Store, keys as place};

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::road::{Attempt, Caller, Item, Prepared, Refused, Road, Told};
use crate::source::{Source, SourceKind};
use crate::tenant::{Rules, Tenant};
use crate::vault::Vault;

/// What the ledger calls the number of a field.
pub(crate) const FIELD_NUMBER: &str = "field_number";
/// What is damaged, if a row of it can't be read.
const PLACE: &str = "the freezes in force";

/// What a tenant has to obey.
pub(crate) struct Standing {
    /// How often the tenant's own row was changed.
    pub version: u32,
    /// What the tenant has frozen itself, and whom it has suspended.
    pub own: Freezes,
    /// How far everything of all tenants is frozen.
    pub of_all: Frozen,
    /// Whether there is nothing to obey: each request asks this.
    nothing: bool,
}

impl Standing {
    fn new(version: u32, own: Freezes, of_all: Frozen) -> Self {
        let nothing = own.is_empty() && of_all.is_empty();
        Self { version, own, of_all, nothing }
    }

    /// As the store has it. Whether that is what the logs have in force was looked at before.
    pub async fn load<S: Store>(number: TenantNo, id: TenantId, store: &S, keystore: &Keystore) -> Result<Self, Error> {
        let (version, own) = stored(number, id, store, keystore).await?;
        if number == SYSTEM_NO {
            let of_all = own.everything.clone();
            return Ok(Self::new(version, own, of_all));
        }
        let system = store.get(Family::Meta, place::tenant(SYSTEM_NO)).await?;
        let system = TenantRow::decode(&system.ok_or(Error::DataLoss("a tenant's row"))?)?;
        let (_, of_all) = stored(SYSTEM_NO, system.id, store, keystore).await?;
        Ok(Self::new(version, own, of_all.everything))
    }

    /// The same under another freeze of all tenants.
    fn under(&self, of_all: &Frozen) -> Self {
        Self::new(self.version, self.own.clone(), of_all.clone())
    }

    /// Whether a principal, by role and name, is suspended.
    pub fn is_suspended(&self, principal: &str) -> bool {
        !self.nothing && self.own.is_suspended(principal)
    }

    /// Whether everything of the tenant is frozen for this.
    fn is_everything_frozen(&self, touch: Touch) -> bool {
        !self.nothing && (self.of_all.of(touch).is_some() || self.own.everything.of(touch).is_some())
    }

    /// Whether a field is.
    pub(crate) fn is_frozen(&self, field: &Field, touch: Touch) -> bool {
        !self.nothing && (self.of_all.of(touch).is_some() || self.own.is_frozen(field.number, touch))
    }
}

async fn stored<S: Store>(
    number: TenantNo,
    id: TenantId,
    store: &S,
    keystore: &Keystore,
) -> Result<(u32, Freezes), Error> {
    let Some(row) = store.get(Family::Meta, place::freezes(number)).await? else {
        return Ok((0, Freezes::default()));
    };
    let key = keystore.index_key(id, IndexName::Fingerprint)?;
    let source = Source::decode(&row, SourceKind::Freezes, &key)?;
    let freezes = Freezes::from_stored(&source.body).map_err(|_| Error::DataLoss(PLACE))?;
    Ok((source.version, freezes))
}

impl<S: Store> Road<'_, S> {
    /// Sees that a field is not frozen for what the request does to it. Asked last, and of what the caller may have
    /// only: what is frozen is told to nobody else.
    pub fn unfrozen(&self, field: &Field) -> Result<(), Error> {
        if self.rules.freezes.nothing {
            return Ok(());
        }
        let frozen = |touch: &Touch| self.rules.freezes.is_frozen(field, *touch);
        // The same value gets the same token: whoever stores a guess learns as much as who asks whether it matches.
        let tells = (self.action == Action::Tokenize && field.deterministic.is_some()).then_some(Touch::Reads);
        match Touch::of(self.action).into_iter().chain(tells).find(frozen) {
            Some(touch) => Err(Error::Frozen { what: format!("{} of {}", touch.as_str(), field.full_name) }),
            None => Ok(()),
        }
    }

    /// Whether nothing of a field may be changed or removed: what is looked into shall still be there.
    pub fn writes_are_frozen(&self, field: &Field) -> bool {
        self.rules.freezes.is_frozen(field, Touch::Writes)
    }

    /// The same for all fields of a request that is all or nothing.
    pub fn none_frozen(&self, fields: &[Arc<Field>]) -> Result<(), Refused> {
        if self.rules.freezes.nothing {
            return Ok(());
        }
        let mut first = None;
        let mut items = Vec::new();
        for field in fields {
            if let Err(error) = self.unfrozen(field) {
                let field = Some(Arc::clone(&field.full_name));
                items.push(Item { field, outcome: error.reason(), ..Item::default() });
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), |error| Err(Refused { error, items }))
    }

    /// Sees that an action on the vault itself is not stopped: a freeze of all writes also stops what changes or
    /// destroys stored values without touching a field by its name.
    pub fn not_stopped(&self) -> Result<(), Error> {
        let writes = matches!(
            self.action,
            Action::ApplySchema
                | Action::DestroyTenant
                | Action::EraseSubject
                | Action::Expire
                | Action::ExpireAboveCap
        );
        match writes && self.rules.freezes.is_everything_frozen(Touch::Writes) {
            true => Err(Error::Frozen { what: format!("writes, and with them {},", self.action) }),
            false => Ok(()),
        }
    }
}

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
trait ChangeOfFreezes: Send + Sync {
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
struct OfTenant<'r, R>(&'r R);

/// Of all tenants.
struct OfAll<'r, R>(&'r R);

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
fn shown(field: &Field) -> String {
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

/// A change, in its turn.
struct InTurn<C>(C);

/// What is in force then, on its way into memory; `None` if all was so before.
struct NewStanding(Option<Arc<Standing>>);

impl<S: Store, C: ChangeOfFreezes> Attempt<S> for InTurn<C> {
    type Answer = NewStanding;
    const ACTION: Action = C::ACTION;
    const ALONE: bool = true;
    /// It protects.
    const ON_FULL_DISK: bool = true;

    /// What stops something has no text of its own that says what: one for that could be shown for another.
    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        C::ACTION.is_approvable().then(|| Approvable::<S>::asked(self, rules))
    }

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_with_others()?;
        self.0.apply(road, &mut road.rules.freezes.own.clone()).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<NewStanding>, Refused> {
        road.decide_with_others()?;
        let before = &road.rules.freezes;
        let mut own = before.own.clone();
        let told = self.0.apply(road, &mut own)?;
        if own == before.own {
            let mut prepared = road.prepare(NewStanding(None));
            prepared.detail = told;
            prepared.detail.push(("changed", "false".to_owned()));
            return Ok(prepared);
        }
        let given = road.decide_approved(self).await?;
        let version = before.version.checked_add(1).ok_or(Error::Internal("too many changes of freezes"))?;
        let body = own.to_stored().map_err(|_| Error::Internal("freezes that are not text"))?;
        let source = Source::new(version, body)?;
        let of_all = if road.tenant.number == SYSTEM_NO { own.everything.clone() } else { before.of_all.clone() };
        let mut prepared = road.prepare(NewStanding(Some(Arc::new(Standing::new(version, own, of_all)))));
        prepared.changes.push(Fact::policy(road.tenant.number));
        if C::OF_ALL {
            road.tell_all(&told, &mut prepared)?;
        }
        // In the log whose rule this is: those of others have neither version nor hash of it.
        prepared.detail = told;
        road.put_rules(place::freezes(road.tenant.number), SourceKind::Freezes, &source, &mut prepared);
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &NewStanding) {
        let Some(standing) = &answer.0 else { return };
        if C::OF_ALL {
            for other in vault.tenants.all().values().filter(|other| other.number != tenant.number) {
                other.install_freezes(Arc::new(other.rules().freezes.under(&standing.of_all)));
            }
        }
        tenant.install_freezes(Arc::clone(standing));
    }

    fn doubt(&self, vault: &Vault<S>, tenant: &Tenant) {
        tenant.forget_rules();
        if C::OF_ALL {
            vault.tenants.all().values().for_each(|other| other.forget_rules());
        }
    }
}

impl<S: Store, C: ChangeOfFreezes> Approvable<S> for InTurn<C> {
    fn asked(&self, rules: &Rules) -> Asked {
        let (mut summary, ended) = self.0.ends(rules);
        let mut parts = vec![summary.clone().into_bytes()];
        for Since { time, by } in ended {
            parts.extend([time.to_be_bytes().to_vec(), by.clone().into_bytes()]);
            summary.push_str(&summary::since(&by, Timestamp(time)));
        }
        Asked { parts, summary }
    }

    fn is_never_done_alone(&self, rules: &Rules) -> bool {
        self.0.ends_what_a_restore_froze(&rules.freezes.own)
    }

    fn changes_nothing(&self, road: &Road<'_, S>) -> bool {
        let mut own = road.rules.freezes.own.clone();
        self.0.apply(road, &mut own).is_ok_and(|_| own == road.rules.freezes.own)
    }
}

impl<S: Store> Road<'_, S> {
    /// A leaf in every tenant's log, and a fact that turns back what every tenant has under way.
    fn tell_all(&self, told: &Told, prepared: &mut Prepared<NewStanding>) -> Result<(), Error> {
        let vault = self.vault;
        if vault.tenants.is_unsure() {
            // One may have come or gone: that is found out first.
            return Err(Error::Conflict);
        }
        for number in vault.directory().tenants.values().filter(|number| **number != self.tenant.number) {
            prepared.elsewhere.extend(self.leaf_for(*number, told)?);
            prepared.changes.push(Fact::policy(*number));
        }
        Ok(())
    }
}

/// A frozen field.
pub struct FrozenField {
    /// Its name.
    pub field: String,
    /// How far it is frozen.
    pub frozen: Frozen,
}

/// What is frozen, and who is suspended.
pub struct InForceFreezes {
    /// How far everything of all tenants is frozen.
    pub all_tenants: Frozen,
    /// How far everything of the caller's tenant is frozen by its own officers.
    pub tenant: Frozen,
    /// Fields that are frozen by themselves.
    pub fields: Vec<FrozenField>,
    /// Who is suspended, by role and name.
    pub suspended: Vec<(String, Suspension)>,
}

/// Asks what is frozen and who is suspended.
struct ListFreezes;

impl<S: Store> Attempt<S> for ListFreezes {
    type Answer = InForceFreezes;
    const ACTION: Action = Action::ListFreezes;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<InForceFreezes>, Refused> {
        road.decide_vault()?;
        let Standing { own, of_all, .. } = &*road.rules.freezes;
        let fields = own.fields.iter().map(|(number, frozen)| {
            let named = road.schema.field_no(*number).map(|field| shown(field));
            FrozenField { field: named.unwrap_or_else(|| format!("#{}", number.0)), frozen: frozen.clone() }
        });
        let answer = InForceFreezes {
            all_tenants: of_all.clone(),
            tenant: if road.tenant.number == SYSTEM_NO { Frozen::default() } else { own.everything.clone() },
            fields: fields.collect(),
            suspended: own.suspended.iter().map(|(principal, why)| (principal.clone(), why.clone())).collect(),
        };
        Ok(road.prepare(answer))
    }
}

impl<S: Store> Vault<S> {
    /// Whether a caller who was let in before, and is told more and more, still would be: its tenant is there, and it is not
    /// suspended.
    pub fn still_admits(&self, caller: &Caller) -> Result<(), Error> {
        self.tenants.admit(caller.principal.tenant, caller)
    }

    /// Freezes a field, the caller's tenant, or all tenants. When this returns nothing that is frozen is released or
    /// stored any more. The answer is whether it changed anything.
    pub async fn freeze(&self, caller: &Caller, request: &Freeze) -> Result<bool, Error> {
        match request.all_tenants {
            true => self.change_all(caller, OfAll(request)).await,
            false => self.change(caller, &InTurn(OfTenant(request))).await,
        }
    }

    /// Ends a freeze. The answer is whether it changed anything.
    pub async fn unfreeze(&self, caller: &Caller, request: &Unfreeze) -> Result<bool, Error> {
        match request.all_tenants {
            true => self.change_all(caller, OfAll(request)).await,
            false => self.change(caller, &InTurn(OfTenant(request))).await,
        }
    }

    /// Suspends a principal of the caller's tenant. When this returns it is answered nothing any more. The answer is
    /// whether it changed anything.
    pub async fn suspend(&self, caller: &Caller, request: &Suspend) -> Result<bool, Error> {
        self.change(caller, &InTurn(OfTenant(request))).await
    }

    /// Ends a suspension. The answer is whether it changed anything.
    pub async fn unsuspend(&self, caller: &Caller, request: &Unsuspend) -> Result<bool, Error> {
        self.change(caller, &InTurn(OfTenant(request))).await
    }

    /// What is frozen and who is suspended, as it concerns the caller's tenant.
    pub async fn list_freezes(&self, caller: &Caller) -> Result<InForceFreezes, Error> {
        self.travel(caller, &ListFreezes).await
    }

    async fn change<C: ChangeOfFreezes>(&self, caller: &Caller, change: &InTurn<C>) -> Result<bool, Error> {
        self.approved(caller, change).await?;
        Ok(self.travel(caller, change).await?.0.is_some())
    }

    async fn change_all<C: ChangeOfFreezes>(&self, caller: &Caller, change: C) -> Result<bool, Error> {
        let change = InTurn(change);
        match self.change(caller, &change).await {
            // Who may freeze all tenants may also wait until it is known which there are.
            Err(Error::Conflict) => {
                self.wait_for_tenants().await?;
                self.change(caller, &change).await
            }
            changed => changed,
        }
    }
}
