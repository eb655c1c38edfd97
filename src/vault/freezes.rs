//! What is frozen, and who is suspended: at once, for every request whose leaf comes after, those under way too.
//!
//! It is one row a tenant, in memory with the tenant's other rules, and changed as they are, while no request runs.
//! Every decision stands on the fact of the policy in force, and a change of this changes that fact: so a request that
//! was decided before is turned back and decided anew. The vault's own row holds for all tenants.

mod change;
mod list;
mod turn;

use std::sync::Arc;

use strongroom_access::{Action, Freezes, Frozen, Touch};
use strongroom_ids::{TenantId, TenantNo};
use strongroom_keys::{IndexKey, IndexName, Keystore};
use strongroom_schema::Field;
use strongroom_storage::rows::TenantRow;
use strongroom_storage::{Family, Store, keys as place};

use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::road::{Caller, Item, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::vault::Vault;
use change::{ChangeOfFreezes, OfAll, OfTenant};
use list::ListFreezes;
use turn::InTurn;

pub use change::{Freeze, Suspend, Unfreeze, Unsuspend};
pub use list::{FrozenField, InForceFreezes};

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
    read(&row, &key)
}

/// How often a row of freezes was changed, and what it says.
pub(crate) fn read(row: &[u8], key: &IndexKey) -> Result<(u32, Freezes), Error> {
    let source = Source::decode(row, SourceKind::Freezes, key)?;
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
