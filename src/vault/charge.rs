//! What a request tells of its caller's allowance. The committer counts it, in the commit of the request's own leaf.

use std::sync::Arc;

use strongroom_commit::{Behind, Charge, Shown, Use, day_of};
use strongroom_ids::SubjectHandle;
use strongroom_schema::{Class, View};
use strongroom_storage::{Family, Range, Store, keys as place};

use crate::error::Error;
use crate::resolve::Found;
use crate::road::Road;
use crate::vault::Vault;

impl<S: Store> Road<'_, S> {
    /// Where it is counted what a request tells; `None` if neither the caller's tier has limits nor that of the person
    /// behind it.
    pub fn charge(&self) -> Option<Box<Charge>> {
        let principal = &self.caller.principal.name;
        let own = self.rules.tiers.limits(principal);
        let behind = self.caller.actor.as_ref().and_then(|actor| {
            let limits = Arc::clone(self.rules.tiers.limits_of_actors(principal)?);
            Some(Behind {
                meter: self.meter(&[b"meter of actor", principal.as_bytes(), actor.name().as_bytes()]),
                limits,
            })
        });
        if own.is_none() && behind.is_none() {
            return None;
        }
        let (meter, limits) = (self.meter(&[b"meter", principal.as_bytes()]), own.cloned().unwrap_or_default());
        Some(Box::new(Charge { tenant: self.tenant.number, meter, limits, behind, uses: vec![] }))
    }

    /// Whoever reads the store learns from its keys neither who reads how much nor of whom.
    fn meter(&self, of: &[&[u8]]) -> [u8; 16] {
        let mac = self.tenant.fingerprints.mac(of);
        let mut meter = [0; 16];
        meter.copy_from_slice(&mac[..16]);
        meter
    }

    /// How much of a value a view shows.
    pub fn shown(&self, view: &View) -> Shown {
        if view.is_plain() { Shown::Plain } else { Shown::Part(self.part(view)) }
    }

    /// The number of what a view shows: views that are declared alike show the same.
    fn part(&self, view: &View) -> u64 {
        let mac = self.tenant.fingerprints.mac(&[b"part", format!("{view:?}").as_bytes()]);
        let mut first = [0; 8];
        first.copy_from_slice(&mac[..8]);
        u64::from_be_bytes(first)
    }
}

/// What is counted of a value of which so much is shown.
pub(crate) fn read_of(found: &Found, shown: Shown, subject: SubjectHandle) -> Use {
    let class = match found.field.class {
        Class::C1 => 0,
        Class::C2 => 1,
        Class::C3 => 2,
    };
    Use::Read { class, row: found.id, subject, field: found.field.number, shown }
}

impl<S: Store> Vault<S> {
    /// Removes the counts of days that are over.
    pub(crate) async fn forget_old_counts(&self) -> Result<(), Error> {
        // The day of the newest leaf: no later one bears an earlier day.
        let today = day_of(self.committer.time().0);
        for tenant in self.tenants.numbers() {
            let (from, to) = place::usage_range(tenant, 0, today);
            let one = Range { from: from.clone(), to: to.clone(), limit: 1 };
            if !self.store.scan(Family::Meta, one).await?.is_empty() {
                self.store.purge(Family::Meta, from, to).await?;
            }
        }
        Ok(())
    }
}
