//! What is frozen and who is suspended, for who asks.

use strongroom_access::{Action, Frozen, Suspension};
use strongroom_storage::Store;

use super::Standing;
use super::change::shown;
use crate::open::SYSTEM_NO;
use crate::road::{Attempt, Prepared, Refused, Road};

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
pub(super) struct ListFreezes;

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
