//! The cache of unwrapped DEKs.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;
use strongroom_ids::TenantId;

use crate::dek::Dek;
use crate::place::DekPlace;

/// Keeps the DEKs that are in use, so that a busy subject's is not unwrapped for every value. Bounded; a DEK that falls
/// out is wiped once its last user is done. Safe to share between threads.
pub struct DekCache(Cache<DekPlace, Arc<Dek>>);

impl DekCache {
    /// A cache for about this many DEKs, at least one.
    pub fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity.max(1)))
    }

    /// The DEK of a place, if it is there.
    pub fn get(&self, place: &DekPlace) -> Option<Arc<Dek>> {
        self.0.get(place)
    }

    /// Keeps a DEK.
    pub fn insert(&self, place: DekPlace, dek: Arc<Dek>) {
        self.0.insert(place, dek);
    }

    /// Forgets a DEK, since its place was erased or rolled.
    pub fn remove(&self, place: &DekPlace) {
        self.0.remove(place);
    }

    /// Forgets those of a tenant, since its own key was taken away or its keys were destroyed.
    pub fn remove_tenant(&self, tenant: TenantId) {
        self.0.retain(|place, _| place.tenant != tenant);
    }

    /// Forgets all, since the vault is sealed or its root key revoked.
    pub fn clear(&self) {
        self.0.clear();
    }
}

impl fmt::Debug for DekCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DekCache({} of {})", self.0.len(), self.0.capacity())
    }
}

#[cfg(test)]
mod tests {
    use strongroom_ids::{DekVersion, KeyringNo, RowId};
    use zeroize::Zeroizing;

    use super::*;
    use crate::place::DekOwner;

    fn place(row: u64) -> DekPlace {
        let owner = DekOwner::Value(RowId(row));
        DekPlace { tenant: TenantId([1; 16]), keyring: KeyringNo(1), owner, version: DekVersion(1) }
    }

    fn dek() -> Arc<Dek> {
        Arc::new(Dek::new(Zeroizing::new([1; 32])))
    }

    #[test]
    fn a_dek_is_found_by_its_place_only() {
        let cache = DekCache::new(10);
        cache.insert(place(1), dek());
        assert!(cache.get(&place(1)).is_some());
        assert!(cache.get(&place(2)).is_none());
    }

    #[test]
    fn a_removed_dek_is_dropped_with_its_last_user() {
        let cache = DekCache::new(10);
        let used = dek();
        let gone = Arc::downgrade(&used);
        cache.insert(place(1), used);
        let user = cache.get(&place(1)).unwrap();
        cache.remove(&place(1));
        assert!(cache.get(&place(1)).is_none());
        assert!(gone.upgrade().is_some());
        drop(user);
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn clearing_drops_every_dek() {
        let cache = DekCache::new(10);
        let deks: Vec<_> = (0..5).map(|_| dek()).collect();
        let gone: Vec<_> = deks.iter().map(Arc::downgrade).collect();
        deks.into_iter().zip(0..).for_each(|(dek, row)| cache.insert(place(row), dek));
        cache.clear();
        assert!(gone.iter().all(|dek| dek.upgrade().is_none()));
    }

    #[test]
    fn removing_a_tenant_drops_its_deks_and_no_others() {
        let cache = DekCache::new(10);
        let (its, anothers) = (dek(), dek());
        let gone = Arc::downgrade(&its);
        let elsewhere = DekPlace { tenant: TenantId([2; 16]), ..place(1) };
        cache.insert(place(1), its);
        cache.insert(elsewhere, anothers);
        cache.remove_tenant(TenantId([1; 16]));
        assert!(gone.upgrade().is_none() && cache.get(&place(1)).is_none());
        assert!(cache.get(&elsewhere).is_some());
    }

    #[test]
    fn what_falls_out_of_a_full_cache_is_dropped() {
        let cache = DekCache::new(16);
        let mut all = vec![];
        for row in 0..1000 {
            let dek = dek();
            all.push(Arc::downgrade(&dek));
            cache.insert(place(row), dek);
        }
        let alive = all.iter().filter(|dek| dek.upgrade().is_some()).count();
        assert!((1..=32).contains(&alive), "{alive} are alive");
    }
}
