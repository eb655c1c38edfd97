//! The tenants of a running vault, and the directory that certificates are held against. Both are replaced as a whole when a
//! tenant comes or goes, so that nobody waits to look one up.

use std::collections::{HashMap, HashSet, btree_map};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use strongroom_access::Directory;
use strongroom_ids::TenantNo;
use tokio::sync::{Mutex, Notify};

use crate::error::Error;
use crate::freezes::Standing;
use crate::road::Caller;
use crate::tenant::Tenant;

/// The tenants that can be asked, by number.
type ByNumber = HashMap<TenantNo, Arc<Tenant>>;

/// The tenants of a running vault. One that is in the directory and can't be asked is locked.
pub(crate) struct Tenants {
    by_number: ArcSwap<ByNumber>,
    directory: ArcSwap<Directory>,
    /// Whether a tenant may have come or gone on disk and not here.
    unsure: AtomicBool,
    /// Why tenants were locked whose logs could not be told yet.
    owed: std::sync::Mutex<HashMap<TenantNo, &'static str>>,
    /// Tenants for whose own key something is done that takes long: one thing at a time.
    busy: std::sync::Mutex<HashSet<TenantNo>>,
    /// Held while a tenant is made or destroyed.
    pub changing: Mutex<()>,
    /// Woken when something is left to do of a tenant's making or end.
    pub left: Notify,
}

impl Tenants {
    /// These tenants, and all that certificates are held against.
    pub fn new(tenants: impl Iterator<Item = Tenant>, directory: Directory) -> Self {
        let by_number: ByNumber = tenants.map(|tenant| (tenant.number, Arc::new(tenant))).collect();
        Self {
            by_number: ArcSwap::from_pointee(by_number),
            directory: ArcSwap::from_pointee(directory),
            unsure: AtomicBool::new(false),
            owed: std::sync::Mutex::default(),
            busy: std::sync::Mutex::default(),
            changing: Mutex::new(()),
            left: Notify::new(),
        }
    }

    /// One tenant.
    pub fn get(&self, number: TenantNo) -> Result<Arc<Tenant>, Error> {
        let tenant = self.by_number.load().get(&number).cloned();
        tenant.ok_or_else(|| {
            let directory = self.directory.load();
            let is_among = |mut numbers: btree_map::Values<'_, String, TenantNo>| numbers.any(|known| *known == number);
            match (is_among(directory.destroyed.values()), is_among(directory.tenants.values())) {
                (true, _) => Error::TenantDestroyed,
                (false, true) => Error::TenantLocked,
                (false, false) => Error::Internal("a principal of an unknown tenant"),
            }
        })
    }

    /// Whether a caller would still be let in: its tenant is there, it is not suspended, and an officer still is one.
    pub fn admit(&self, number: TenantNo, caller: &Caller) -> Result<(), Error> {
        let tenant = self.get(number)?;
        tenant.is_there()?;
        self.admit_under(&tenant.rules().freezes, number, caller)
    }

    /// The same of a tenant that is there, under these suspensions.
    pub fn admit_under(&self, freezes: &Standing, number: TenantNo, caller: &Caller) -> Result<(), Error> {
        if !self.is_enrolled(number, caller) {
            return Err(Error::OfficerRemoved);
        }
        match freezes.is_suspended(&caller.principal.name) {
            true => Err(Error::Suspended),
            false => Ok(()),
        }
    }

    /// All tenants.
    pub fn all(&self) -> Arc<ByNumber> {
        self.by_number.load_full()
    }

    /// All tenants' numbers, in order.
    pub fn numbers(&self) -> Vec<TenantNo> {
        let mut numbers: Vec<TenantNo> = self.by_number.load().keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// What certificates are held against.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    /// A tenant is about to come or go on disk: until one of [`Tenants::begin`], [`Tenants::end`] and
    /// [`Tenants::settle`] says what came of it, nobody relies on what is here.
    pub fn doubt(&self) {
        self.unsure.store(true, Ordering::Release);
    }

    /// Whether a tenant may have come or gone on disk and not here.
    pub fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::Acquire)
    }

    /// What is here is what is on disk.
    pub fn settle(&self) {
        self.unsure.store(false, Ordering::Release);
    }

    /// A tenant is there: it serves from now on. Only while no other one comes or goes.
    pub fn begin(&self, tenant: Tenant, directory: Directory) {
        let mut all = HashMap::clone(&self.by_number.load());
        all.insert(tenant.number, Arc::new(tenant));
        self.by_number.store(Arc::new(all));
        self.directory.store(Arc::new(directory));
        self.settle();
    }

    /// Others may act for the tenants that there are. Only while no tenant comes or goes.
    pub fn enrol(&self, directory: Directory) {
        self.directory.store(Arc::new(directory));
    }

    /// Whether a caller is none of the officers, or one who is enrolled by the key of the certificate that it showed: a name may
    /// have got another key since its request began.
    pub fn is_enrolled(&self, number: TenantNo, caller: &Caller) -> bool {
        let Some(name) = caller.principal.name.strip_prefix("officer/") else { return true };
        let directory = self.directory.load();
        let pinned = directory.officer(number, name);
        pinned.is_some_and(|pinned| caller.certificate.is_none_or(|shown| shown == *pinned))
    }

    /// A tenant's own key is away: nothing more is done with it, also by who has found it already, until another
    /// [`Tenants::begin`]. Only while no request runs.
    pub fn lock(&self, number: TenantNo) {
        let mut all = HashMap::clone(&self.by_number.load());
        if let Some(tenant) = all.remove(&number) {
            tenant.lock();
        }
        self.by_number.store(Arc::new(all));
    }

    /// A tenant's log is to be told that it was locked, and why.
    pub fn owe(&self, number: TenantNo, why: &'static str) {
        unpoisoned(&self.owed).insert(number, why);
    }

    /// Why a tenant was locked, if its log was not told yet.
    pub fn owed(&self, number: TenantNo) -> Option<&'static str> {
        unpoisoned(&self.owed).get(&number).copied()
    }

    /// A tenant's log was told.
    pub fn settled(&self, number: TenantNo) {
        unpoisoned(&self.owed).remove(&number);
    }

    /// Begins something for a tenant's own key that takes long; `None` if something is done already.
    pub fn begin_long(self: &Arc<Self>, number: TenantNo) -> Option<Busy> {
        let begun = unpoisoned(&self.busy).insert(number);
        begun.then(|| Busy { tenants: Arc::clone(self), number })
    }

    /// A tenant is gone: nothing more is done with it, also by who has found it already. Only while no request runs.
    pub fn end(&self, number: TenantNo, directory: Directory) {
        self.directory.store(Arc::new(directory));
        let mut all = HashMap::clone(&self.by_number.load());
        if let Some(tenant) = all.remove(&number) {
            tenant.end();
        }
        self.by_number.store(Arc::new(all));
        self.settle();
    }
}

/// While it is held, something is done for a tenant's own key.
pub(crate) struct Busy {
    tenants: Arc<Tenants>,
    number: TenantNo,
}

impl Drop for Busy {
    fn drop(&mut self) {
        unpoisoned(&self.tenants.busy).remove(&self.number);
    }
}

/// A panic elsewhere leaves what is behind these locks whole.
fn unpoisoned<T>(behind: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    behind.lock().unwrap_or_else(PoisonError::into_inner)
}
