//! What may be at work at once: in all, and for one principal.
//!
//! One principal gets at most a quarter of anything, so that none can keep the others out. What it holds counts until
//! the last of it is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use strongroom_access::Principal;
use strongroom_vault::AnswerRoom;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::errors::Refusal;

/// The part of everything that one principal may have: one in so many.
const PART: usize = 4;
/// Exports of the ledger at once. Each has a page of the log at work, and none keeps bulk work out.
const EXPORTS: usize = 16;
/// Readers that follow a ledger at once, in all and of one principal. They stay for as long as they like, so they take no
/// place from exports, and one principal gets less of them.
const TAILS: usize = 64;
const OWN_TAILS: usize = 4;

/// A kind of work, each with places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One message, one answer.
    Call,
    /// A bulk stream.
    Stream,
    /// An export of the ledger.
    Export,
    /// A ledger that is followed as it grows.
    Tail,
}

/// So many of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub calls: usize,
    pub streams: usize,
    /// Bytes of the messages and answers of all calls.
    pub bytes: usize,
}

/// What is free of everything that all share, or that one principal has.
struct Free {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Free {
    fn new(Bounds { calls, streams, bytes }: Bounds, exports: usize, tails: usize) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            calls: semaphore(calls),
            streams: semaphore(streams),
            exports: semaphore(exports),
            tails: semaphore(tails),
            bytes: semaphore(bytes),
        }
    }

    fn place(&self, work: Work) -> Option<OwnedSemaphorePermit> {
        let places = match work {
            Work::Call => &self.calls,
            Work::Stream => &self.streams,
            Work::Export => &self.exports,
            Work::Tail => &self.tails,
        };
        Arc::clone(places).try_acquire_owned().ok()
    }

    fn bytes(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()
    }

    /// As many of these bytes as are free.
    fn bytes_up_to(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        self.bytes(u32::try_from(self.bytes.available_permits()).map_or(bytes, |free| free.min(bytes)))
    }
}

/// A principal: its tenant and its name.
type Holder = (u32, Arc<str>);

/// Everything that there is, and who holds a share of it.
pub(crate) struct Shares {
    all: Arc<Free>,
    bounds: Bounds,
    /// For as long as a principal holds anything.
    held: Mutex<HashMap<Holder, Weak<Free>>>,
}

impl Shares {
    /// So much in all.
    pub fn new(bounds: Bounds) -> Self {
        Self { all: Arc::new(Free::new(bounds, EXPORTS, TAILS)), bounds, held: Mutex::default() }
    }

    /// A place for a principal's work, or why there is none.
    pub fn place(&self, principal: &Principal, work: Work) -> Result<Place, Status> {
        let share = self.of(principal);
        let own = share.place(work).ok_or_else(|| {
            overloaded("you have as many requests at work as one principal may: wait for an answer, then try again")
        })?;
        let one = self
            .all
            .place(work)
            .ok_or_else(|| overloaded("too many requests are at work; nothing was stored: try again after a moment"))?;
        Ok(Place { all: Arc::clone(&self.all), share, _permits: [own, one] })
    }

    fn of(&self, principal: &Principal) -> Arc<Free> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (principal.tenant.0, Arc::clone(&principal.name));
        if let Some(share) = held.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        held.retain(|_, share| share.strong_count() > 0);
        let part = |whole: usize| whole.div_ceil(PART);
        let Bounds { calls, streams, bytes } = self.bounds;
        let bounds = Bounds { calls: part(calls), streams: part(streams), bytes: part(bytes) };
        let share = Arc::new(Free::new(bounds, part(EXPORTS), OWN_TAILS));
        held.insert(key, Arc::downgrade(&share));
        share
    }
}

/// A request's place among those at work.
pub(crate) struct Place {
    all: Arc<Free>,
    /// Holding it keeps it known: a second share of one principal must not come to be.
    share: Arc<Free>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Place {
    /// What the request's bytes occupy: nothing yet.
    pub fn load(&self) -> Load {
        let (all, share) = (Arc::clone(&self.all), Arc::clone(&self.share));
        Load(Arc::new(Occupied { all, share, taken: Mutex::default() }))
    }
}

/// What one call occupies of the bytes that calls share. Clones are one load; the last gives it back.
#[derive(Clone)]
pub(crate) struct Load(Arc<Occupied>);

struct Occupied {
    all: Arc<Free>,
    share: Arc<Free>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    own: Option<OwnedSemaphorePermit>,
    all: Option<OwnedSemaphorePermit>,
    /// Bytes of the answer that were occupied before it came to be.
    ahead: usize,
}

impl Taken {
    /// One permit each, however many pieces an answer comes in.
    fn add(&mut self, own: OwnedSemaphorePermit, all: OwnedSemaphorePermit) {
        for (kept, more) in [(&mut self.own, own), (&mut self.all, all)] {
            match kept {
                Some(kept) => kept.merge(more),
                None => *kept = Some(more),
            }
        }
    }
}

impl Load {
    /// Occupies the bytes of a message, or says why not.
    pub fn take(&self, bytes: u32) -> Result<(), Status> {
        if bytes == 0 {
            return Ok(());
        }
        let own = self.0.share.bytes(bytes).ok_or_else(|| {
            overloaded("your requests at work, and answers not yet taken, are too large together: try again later")
        })?;
        let one = self.0.all.bytes(bytes).ok_or_else(|| {
            overloaded("the requests at work are too large together; nothing was stored: try again after a moment")
        })?;
        self.0.taken().add(own, one);
        Ok(())
    }

    /// Occupies the bytes of an answer beyond what was occupied ahead, or what is left of the principal's room: the answer
    /// is there already, and what it says is done. The principal's next requests find no room; those of others do.
    pub fn take_answer(&self, bytes: usize) {
        let mut taken = self.0.taken();
        let more = bytes.saturating_sub(taken.ahead);
        taken.ahead = taken.ahead.saturating_sub(bytes);
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let Some(own) = self.0.share.bytes_up_to(more) else { return };
            let granted = u32::try_from(own.num_permits()).unwrap_or(u32::MAX);
            if let Some(one) = self.0.all.bytes_up_to(granted) {
                taken.add(own, one);
            }
        }
    }

    /// The load as the vault sees it.
    pub fn room(&self) -> Arc<dyn AnswerRoom> {
        Arc::clone(&self.0) as Arc<dyn AnswerRoom>
    }
}

impl Occupied {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnswerRoom for Occupied {
    fn reserve(&self, bytes: usize) -> bool {
        let mut taken = self.taken();
        let more = bytes.saturating_sub(taken.ahead);
        if more == 0 {
            return true;
        }
        let Ok(count) = u32::try_from(more) else { return false };
        let (Some(own), Some(one)) = (self.share.bytes(count), self.all.bytes(count)) else { return false };
        taken.add(own, one);
        taken.ahead += more;
        true
    }
}

fn overloaded(message: &'static str) -> Status {
    Refusal::unavailable("OVERLOADED", message).into()
}

#[cfg(test)]
mod tests {
    use strongroom_access::Role;
    use strongroom_ids::TenantNo;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;

    fn shares(calls: usize, streams: usize, bytes: usize) -> Shares {
        Shares::new(Bounds { calls, streams, bytes })
    }

    fn app(tenant: u32, name: &str) -> Principal {
        Principal::new(TenantNo(tenant), Role::App, name)
    }

    fn as_many_as_fit(shares: &Shares, principal: &Principal, work: Work) -> Vec<Place> {
        std::iter::from_fn(|| shares.place(principal, work).ok()).collect()
    }

    #[test]
    fn one_principal_cannot_keep_the_others_out() {
        let shares = shares(16, 32, 0);
        for (work, most) in [(Work::Call, 4), (Work::Stream, 8), (Work::Export, 4), (Work::Tail, 4)] {
            let greedy = as_many_as_fit(&shares, &app(1, "greedy"), work);
            assert_eq!(greedy.len(), most);
            // The same name in another tenant is another principal.
            for other in [app(1, "modest"), app(2, "greedy")] {
                assert!(shares.place(&other, work).is_ok());
            }
        }
    }

    #[test]
    fn streams_and_exports_have_places_of_their_own() {
        let shares = shares(16, 32, 0);
        let _streams: Vec<_> =
            (0..4).flat_map(|n| as_many_as_fit(&shares, &app(1, &n.to_string()), Work::Stream)).collect();
        let app = app(1, "auditor");
        let status = shares.place(&app, Work::Stream).err().unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().is_some());
        assert!(shares.place(&app, Work::Export).is_ok());
    }

    #[test]
    fn so_many_follow_a_ledger_and_keep_no_export_out() {
        let shares = shares(0, 0, 0);
        let names: Vec<Principal> = (0..=TAILS / OWN_TAILS).map(|n| app(1, &n.to_string())).collect();
        let tails: Vec<_> = names.iter().flat_map(|name| as_many_as_fit(&shares, name, Work::Tail)).collect();
        assert_eq!(tails.len(), TAILS);
        assert!(names.iter().all(|name| shares.place(name, Work::Export).is_ok()));
    }

    #[test]
    fn a_share_is_one_for_as_long_as_anything_of_it_is_held() {
        let shares = shares(4, 0, 400);
        let principal = app(1, "a");
        let place = shares.place(&principal, Work::Call).unwrap();
        let load = place.load();
        load.take(100).unwrap();
        drop(place);
        let place = shares.place(&principal, Work::Call).unwrap();
        assert!(place.load().take(1).is_err());
        drop(load);
        assert!(place.load().take(100).is_ok());
    }

    #[test]
    fn who_holds_nothing_is_forgotten() {
        let shares = shares(4, 0, 0);
        for n in 0..100 {
            drop(shares.place(&app(1, &n.to_string()), Work::Call));
        }
        assert_eq!(shares.held.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_last_clone_of_a_load_gives_its_bytes_back() {
        let shares = shares(8, 0, 400);
        let place = shares.place(&app(1, "a"), Work::Call).unwrap();
        let load = place.load();
        let other = load.clone();
        load.take(60).unwrap();
        let status = place.load().take(50).unwrap_err();
        assert_eq!(status.get_details_error_info().unwrap().reason, "OVERLOADED");
        drop(load);
        assert!(place.load().take(50).is_err());
        drop(other);
        assert!(place.load().take(50).is_ok());
    }

    #[test]
    fn an_answer_is_counted_once_whether_ahead_or_not() {
        let shares = shares(8, 0, 400);
        let place = shares.place(&app(1, "a"), Work::Call).unwrap();
        let load = place.load();
        // An attempt that is made again needs no more than before.
        assert!(load.room().reserve(50) && load.room().reserve(60));
        assert!(!load.room().reserve(101), "its share is 100");
        load.take_answer(30);
        load.take_answer(35);
        assert!(place.load().take(36).is_err());
        assert!(place.load().take(35).is_ok());
        drop(load);
        assert!(place.load().take(100).is_ok());
    }

    #[test]
    fn an_answer_takes_what_is_left_and_no_more() {
        let shares = shares(8, 0, 400);
        let place = shares.place(&app(1, "a"), Work::Call).unwrap();
        let load = place.load();
        load.take(60).unwrap();
        load.take_answer(70);
        assert!(place.load().take(1).is_err());
        drop(load);
        assert!(place.load().take(100).is_ok());
    }

    #[test]
    fn an_answer_beyond_its_principals_share_takes_nothing_of_others() {
        let shares = shares(8, 0, 400);
        let place = shares.place(&app(1, "a"), Work::Call).unwrap();
        let load = place.load();
        // However many pieces it comes in.
        (0..1_000).for_each(|_| load.take_answer(10));
        assert!(place.load().take(1).is_err());
        let others: Vec<Place> = ["b", "c", "d"].map(|name| shares.place(&app(1, name), Work::Call).unwrap()).into();
        let loads: Vec<Load> = others.iter().map(Place::load).collect();
        assert!(loads.iter().all(|load| load.take(100).is_ok()));
        drop(load);
        assert!(place.load().take(100).is_ok());
    }
}
