//! A change of freezes in its turn: decided, written with its leaves, and put in force.

use std::sync::Arc;

use strongroom_access::{Action, Since};
use strongroom_commit::Fact;
use strongroom_ledger::{Timestamp, summary};
use strongroom_storage::{Store, keys as place};

use super::Standing;
use super::change::ChangeOfFreezes;
use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::road::{Attempt, Prepared, Refused, Road, Told};
use crate::source::{Source, SourceKind};
use crate::tenant::{Rules, Tenant};
use crate::vault::Vault;

/// A change, in its turn.
pub(super) struct InTurn<C>(pub(super) C);

/// What is in force then, on its way into memory; `None` if all was so before.
pub(super) struct NewStanding(pub(super) Option<Arc<Standing>>);

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
