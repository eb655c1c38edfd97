//! The log as it grows: leaves that are there, and then those that come.

use std::sync::Weak;

use bytes::Bytes;
use strongroom_access::Action;
use strongroom_commit::Committer;
use strongroom_ids::TenantNo;
use strongroom_storage::Store;

use crate::archive::held;
use crate::error::Error;
use crate::leaves;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::vault::Vault;

/// Asks for the leaves from one on, and for all that will come.
pub struct Tail {
    /// Index of the first; the log may not have it yet.
    pub first: u64,
    /// Which log, as for [`crate::Export`].
    pub log: String,
}

impl<S: Store> Attempt<S> for Tail {
    type Answer = TenantNo;
    const ACTION: Action = Action::ExportLedger;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantNo>, Refused> {
        road.decide_vault()?;
        let whose = road.log(&self.log)?;
        held::not_archived(&*road.vault.store, whose, self.first).await?;
        let mut prepared = road.prepare(whose);
        prepared.detail.push(("first", self.first.to_string()));
        prepared.detail.push(("end", "open".to_owned()));
        prepared.detail.extend((whose != road.tenant.number).then(|| ("log", self.log.clone())));
        Ok(prepared)
    }
}

/// A log under way.
pub struct Leaves<S: Store> {
    /// A reader that waits keeps no vault open that is to be sealed.
    store: Weak<S>,
    committer: Committer,
    log: TenantNo,
    /// Index of the leaf that comes next.
    pub next: u64,
}

impl<S: Store> Leaves<S> {
    /// The leaves that have come since, a page at the most; none if there are none.
    pub async fn come(&mut self) -> Result<Vec<Bytes>, Error> {
        let size = self.committer.head(self.log).map_or(0, |head| head.size);
        if size <= self.next {
            return Ok(vec![]);
        }
        let store = self.store.upgrade().ok_or(Error::Sealed)?;
        let page = leaves::page(&*store, self.log, self.next, size).await?;
        self.next += page.len() as u64;
        Ok(page)
    }
}

impl<S: Store> Vault<S> {
    /// Begins to follow a log.
    pub async fn tail(&self, caller: &Caller, request: &Tail) -> Result<Leaves<S>, Error> {
        let log = self.travel(caller, request).await?;
        let store = std::sync::Arc::downgrade(&self.store);
        Ok(Leaves { store, committer: self.committer.clone(), log, next: request.first })
    }

    /// Whether a caller who follows a log may go on: policy may have changed since, and a second factor that it needs
    /// may have ended. Nothing is recorded, or what is read would never end.
    pub async fn may_follow(&self, caller: &Caller) -> Result<(), Error> {
        self.still_admits(caller)?;
        let tail = Tail { first: 0, log: String::new() };
        let tenant = &*self.tenant(caller.principal.tenant)?;
        let road = self.road(tenant, caller, &tail, [0; 16]).await?;
        // Whose second factor has ended is told that, if it is why.
        road.decide_vault().or_else(|denied| road.factor_holds().and(Err(denied)))
    }
}
