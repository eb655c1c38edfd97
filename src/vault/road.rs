//! The road that every request takes: resolve, decide, transform, commit, release.
//!
//! A request is an [`Attempt`] at the first three steps: it reads, decides and works in memory, and brings back what
//! shall be committed, under which guards, and the answer. The road commits, and only then lets the answer go. A
//! broken guard sends the request back; after a few times it gets a turn of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_access::{Action, Actor, Assertion, Principal};
use strongroom_commit::{Change, Charge, CommitError, Committed, Fact, Guard, Position};
use strongroom_ids::{RowId, RowVersion, SubjectHandle, TenantNo};
use strongroom_keys::{self as keys, DekCache, DekPlace};
use strongroom_ledger::Timestamp;
use strongroom_ledger::leaf::{self, LeafHeader, LeafItem};
use strongroom_ledger::refused::{REFUSED, is_reason};
use strongroom_schema::Schema;
use strongroom_storage::{Mutation, Store};
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};

use crate::approvals::{Asked, request_hash};
use crate::error::Error;
use crate::refusals::Size;
use crate::second_factors::Showing;
use crate::tenant::{Rules, Tenant};
use crate::vault::Vault;

/// How often a request goes back to resolve before it gets a turn of its own.
const SHARED_TURNS: usize = 4;
/// In microseconds.
const HOUR: u64 = 3_600_000_000;

/// Who asks, as the edge found out.
#[derive(Clone)]
pub struct Caller {
    /// The principal of the client certificate.
    pub principal: Arc<Principal>,
    /// The address that the request came from.
    pub client: Arc<str>,
    /// Where the bytes of a large answer are counted before they come to be; nothing where the edge has bounds of its
    /// own.
    pub room: Option<Arc<dyn AnswerRoom>>,
    /// SHA-256 of the public key of the client certificate. Whoever comes over a connection has one ([`Caller::certified`]); none
    /// has only the process itself.
    pub certificate: Option<[u8; 32]>,
    /// What it shows as its second factor.
    pub second_factor: Option<Arc<Assertion>>,
    /// The person on whose behalf it calls.
    pub actor: Option<Arc<Actor>>,
}

impl Caller {
    /// A principal that came from an address and showed a certificate with this key, by its SHA-256.
    pub fn certified(principal: Arc<Principal>, client: impl Into<Arc<str>>, certificate: [u8; 32]) -> Self {
        Self { certificate: Some(certificate), ..Self::new(principal, client) }
    }

    /// A principal without a certificate, for what the process does by itself. Where an officer's key is asked for, it has
    /// none to be held against: nobody on the wire may be let in so.
    pub fn new(principal: Arc<Principal>, client: impl Into<Arc<str>>) -> Self {
        Self { principal, client: client.into(), room: None, certificate: None, second_factor: None, actor: None }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Caller");
        shown.field("principal", &self.principal).field("client", &self.client).field("actor", &self.actor).finish()
    }
}

/// The memory that answers share.
pub trait AnswerRoom: Send + Sync {
    /// Sees that the request occupies so many bytes until its answer has been taken. `false`: there is no room now.
    fn reserve(&self, bytes: usize) -> bool;
}

/// One request, as it is tried.
pub(crate) trait Attempt<S: Store>: Send + Sync {
    /// What is released once the commit is durable.
    type Answer: Send;
    /// The action that policy decides on and the ledger names.
    const ACTION: Action;

    /// Whether no other request may run meanwhile: what changes the rules that all others stand on.
    const ALONE: bool = false;

    /// Whether it frees space or shows nothing but the vault's own state, so that it is done on a disk that is nearly
    /// full.
    const ON_FULL_DISK: bool = false;

    /// The purpose that the caller named.
    fn purpose(&self) -> Option<&str> {
        None
    }

    /// What a second factor for just this request is bound to; none if it can't be bound.
    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        None
    }

    /// Whether an attempt is worth stopping all others for: the caller may make it, and all is right that can be told
    /// and done while the others go on.
    fn may_have_it_alone(&self, _road: &Road<'_, S>) -> Result<(), Error> {
        Ok(())
    }

    /// Nobody knows whether what it changes is durable: makes who comes next look again before it relies on what is in
    /// memory. Of one that has it alone, before its turn ends.
    fn doubt(&self, _vault: &Vault<S>, tenant: &Tenant) {
        tenant.forget_rules();
    }

    /// Takes what is durable now into memory, before the turn ends.
    fn install(&self, _vault: &Vault<S>, _tenant: &Tenant, _answer: &Self::Answer) {}

    /// Resolves, decides and transforms.
    fn attempt(&self, road: &Road<'_, S>) -> impl Future<Output = Result<Prepared<Self::Answer>, Refused>> + Send;
}

/// What the ledger says of a request beside its items, by name.
pub(crate) type Told = Vec<(&'static str, String)>;

/// What a request wants committed, and what it answers then.
pub(crate) struct Prepared<A> {
    pub guards: Vec<Guard>,
    pub changes: Vec<Fact>,
    pub mutations: Vec<Mutation>,
    pub items: Vec<Item>,
    pub detail: Told,
    /// DEKs that are no more once this is committed.
    pub forget: Vec<DekPlace>,
    /// Leaves for the logs of others.
    pub elsewhere: Vec<(TenantNo, leaf::PreparedLeaf)>,
    /// Why the request is refused, though something of it is committed.
    pub denied: Option<&'static str>,
    /// What it tells of the caller's allowance, if that is counted.
    pub charge: Option<Box<Charge>>,
    pub answer: A,
}

impl<A> Prepared<A> {
    /// Nothing but an answer.
    pub fn new(answer: A) -> Self {
        let (guards, changes, mutations) = (vec![], vec![], vec![]);
        let (items, detail, forget, elsewhere, denied) = (vec![], vec![], vec![], vec![], None);
        Self { guards, changes, mutations, items, detail, forget, elsewhere, denied, charge: None, answer }
    }

    /// The same with another answer.
    pub fn answering<B>(self, answer: impl FnOnce(A) -> B) -> Prepared<B> {
        let Self { guards, changes, mutations, elsewhere, denied, items, detail, forget, charge, answer: before } =
            self;
        Prepared {
            guards,
            changes,
            mutations,
            elsewhere,
            denied,
            items,
            detail,
            forget,
            charge,
            answer: answer(before),
        }
    }
}

/// A request that is refused as a whole, with what the ledger shall say of its items.
pub(crate) struct Refused {
    pub error: Error,
    pub items: Vec<Item>,
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self { error: error.into(), items: vec![] }
    }
}

/// What the ledger says of one item. Only names that resolved enter; what the caller sent and the vault does not know
/// goes in as a keyed hash.
#[derive(Default)]
pub(crate) struct Item {
    pub field: Option<Arc<str>>,
    pub row: Option<RowId>,
    pub view: Option<Arc<str>>,
    pub outcome: &'static str,
    pub subject: Option<SubjectHandle>,
    pub version: Option<RowVersion>,
    pub hash: Option<[u8; 32]>,
    pub sent: Option<[u8; 32]>,
}

/// The outcome of an item that went as asked.
pub(crate) const OK: &str = "ok";

/// One attempt's view of the vault: the tenant, its rules and the point of history from which everything is read.
pub(crate) struct Road<'a, S: Store> {
    pub vault: &'a Vault<S>,
    pub tenant: &'a Tenant,
    pub caller: &'a Caller,
    pub action: Action,
    pub purpose: Option<&'a str>,
    pub rules: Arc<Rules>,
    pub schema: Arc<Schema>,
    pub position: Position,
    pub request: [u8; 16],
    /// Microseconds since 1970, read once for the attempt.
    pub now: u64,
    /// Whether nobody else is on the road.
    pub alone: bool,
    /// What the caller shows as its second factor.
    pub showing: Showing,
    /// DEKs that this attempt put into the cache.
    pub unwrapped: Unwrapped<'a>,
}

/// DEKs that go out of the cache again unless what was read with them is committed: a Delete or a roll may have destroyed
/// them between the reading of a row and the unwrapping of its DEK, and have found nothing in the cache to forget.
pub(crate) struct Unwrapped<'a> {
    deks: &'a DekCache,
    places: Mutex<Vec<DekPlace>>,
}

impl Unwrapped<'_> {
    /// Notes what was put into the cache.
    pub fn note(&self, place: DekPlace) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }

    /// They were there when the attempt was committed, and whoever destroys them later finds them.
    fn keep(&self) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Unwrapped<'_> {
    fn drop(&mut self) {
        let places = self.places.get_mut().unwrap_or_else(PoisonError::into_inner);
        places.iter().for_each(|place| self.deks.remove(place));
    }
}

/// Whether an attempt shares the road or has it alone.
enum Turn<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()> },
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

impl<S: Store> Vault<S> {
    /// Takes a request down the road.
    pub(crate) async fn travel<A: Attempt<S>>(&self, caller: &Caller, request: &A) -> Result<A::Answer, Error> {
        let tenant = &*self.tenant(caller.principal.tenant)?;
        if !A::ON_FULL_DISK && self.nearly_full.load(Ordering::Relaxed) {
            return Err(Error::DiskFull);
        }
        let id = keys::random::<16>()?;
        if A::ALONE {
            let _turn = self.turn.read().await;
            let road = self.road(tenant, caller, request, id).await?;
            if let Err(error) = road.admit().and_then(|()| request.may_have_it_alone(&road)) {
                return Err(road.record_refusal(road.or_second_factor(request, error.into())).await);
            }
        }
        for round in 0..=SHARED_TURNS {
            let alone = round == SHARED_TURNS || A::ALONE;
            let _turn = match alone {
                false => Turn::Shared { _guard: self.turn.read().await },
                true => Turn::Alone { _guard: self.turn.write().await },
            };
            let road = Road { alone, ..self.road(tenant, caller, request, id).await? };
            if let Err(error) = road.admit() {
                return Err(road.record_refusal(error.into()).await);
            }
            match request.attempt(&road).await {
                Ok(prepared) => match road.commit(prepared).await {
                    Ok(answer) => {
                        request.install(self, tenant, &answer);
                        return Ok(answer);
                    }
                    Err(CommitError::Conflict(_) | CommitError::Expired | CommitError::TooOld) => {}
                    Err(error @ CommitError::Quota(_)) => {
                        return Err(road.record_refusal(Error::from(error).into()).await);
                    }
                    Err(error) => {
                        if A::ALONE {
                            // The new rules may be on disk or not: read them again before anybody relies on the old.
                            request.doubt(self, tenant);
                        }
                        return Err(Error::from(error));
                    }
                },
                Err(refused) => {
                    if let Error::DataLoss(place) = refused.error {
                        // What a commit changed between two reads does not fit together either: only who has the
                        // vault alone knows damage from that.
                        if round < SHARED_TURNS {
                            continue;
                        }
                        self.damaged(place);
                    }
                    return Err(road.record_refusal(road.or_second_factor(request, refused)).await);
                }
            }
        }
        // Decided each time, and each time too late: that too is recorded.
        let _turn = self.turn.read().await;
        let road = self.road(tenant, caller, request, id).await?;
        Err(road.record_refusal(Error::Conflict.into()).await)
    }

    /// The road as it lies now.
    pub(crate) async fn road<'a, A: Attempt<S>>(
        &'a self,
        tenant: &'a Tenant,
        caller: &'a Caller,
        request: &'a A,
        id: [u8; 16],
    ) -> Result<Road<'a, S>, Error> {
        tenant.refresh(self).await?;
        // The position comes before everything that is read at it.
        let position = self.committer.position();
        let rules = tenant.rules();
        let now = self.now();
        let showing = match &caller.second_factor {
            None => Showing::Nothing,
            Some(shown) => {
                let asked = request.bound_to(&rules).map(|asked| request_hash(tenant, caller, A::ACTION, &asked));
                self.showing(tenant, caller, shown, asked, now).await?
            }
        };
        Ok(Road {
            vault: self,
            tenant,
            caller,
            action: A::ACTION,
            purpose: request.purpose(),
            position,
            schema: Arc::clone(&rules.schema),
            rules,
            request: id,
            now,
            alone: false,
            showing,
            unwrapped: Unwrapped { deks: &self.deks, places: Mutex::default() },
        })
    }
}

impl<S: Store> Road<'_, S> {
    /// What a request commits at the least: its answer, which stands on the rules that it was decided by.
    pub fn prepare<A>(&self, answer: A) -> Prepared<A> {
        let mut prepared = Prepared::new(answer);
        prepared.guards.extend(self.rules_unchanged());
        prepared
    }

    /// The guards that every decision stands on: the rules, and the hour that policy was told.
    pub fn rules_unchanged(&self) -> [Guard; 3] {
        let next_hour = (self.now / HOUR + 1).saturating_mul(HOUR);
        [
            Guard::Unchanged(Fact::policy(self.tenant.number)),
            Guard::Unchanged(Fact::schema(self.tenant.number)),
            Guard::Before(Timestamp(next_hour)),
        ]
    }

    /// A keyed hash of what the caller sent and the vault does not know, for the ledger.
    pub fn fingerprint(&self, sent: &[u8]) -> [u8; 32] {
        self.tenant.fingerprints.mac(&[b"sent", sent])
    }

    async fn commit<A>(&self, prepared: Prepared<A>) -> Result<A, CommitError> {
        let (answer, is_committed) = self.try_commit(self.position, prepared).await?;
        if is_committed {
            self.unwrapped.keep();
        }
        Ok(answer)
    }

    /// Commits what was read at a position.
    pub async fn commit_at<A>(&self, position: Position, prepared: Prepared<A>) -> Result<A, CommitError> {
        Ok(self.try_commit(position, prepared).await?.0)
    }

    /// The same. Says whether it was: a refusal that gets no leaf is not, and nothing that it stands on was held against what
    /// others did meanwhile.
    async fn try_commit<A>(&self, position: Position, mut prepared: Prepared<A>) -> Result<(A, bool), CommitError> {
        let (decision, reason) = verdict(&prepared.items);
        if reason.is_none() {
            self.list_refused(&mut prepared);
        }
        let mut leaves = match prepared.denied {
            None => self.leaves(decision, reason, &prepared.items, &prepared.detail),
            Some(denied) => self.leaves(refusal(denied), Some(denied), &prepared.items, &prepared.detail),
        };
        leaves.append(&mut prepared.elsewhere);
        self.factor_guards(&mut prepared.guards);
        self.actor_guard(&mut prepared.guards);
        if let Some(reason) = reason
            && !self.may_record(reason, leaves.len(), prepared.items.len())
        {
            return Ok((prepared.answer, false));
        }
        let change = Change {
            position,
            guards: prepared.guards,
            changes: prepared.changes,
            mutations: prepared.mutations,
            leaves,
            charge: prepared.charge,
        };
        match prepared.forget.is_empty() {
            true => self.vault.committer.commit(change).await?,
            false => self.commit_and_forget(change, prepared.forget).await?,
        };
        Ok((prepared.answer, true))
    }

    /// Commits what destroys DEKs, and takes them out of memory, to the end even if the caller hangs up meanwhile:
    /// nothing stops a change that was sent to the committer.
    async fn commit_and_forget(&self, change: Change, forget: Vec<DekPlace>) -> Result<Committed, CommitError> {
        let (committer, deks) = (self.vault.committer.clone(), Arc::clone(&self.vault.deks));
        let committed = tokio::spawn(async move {
            let committed = committer.commit(change).await;
            // Whatever came of it: one that lives on is unwrapped again.
            forget.iter().for_each(|place| deks.remove(place));
            committed
        });
        committed.await.unwrap_or(Err(CommitError::Unknown))
    }

    /// Writes the refusal to the ledger, within the caller's budget, and returns what the caller is told.
    async fn record_refusal(&self, refused: Refused) -> Error {
        let reason = refused.error.reason();
        if matches!(refused.error, Error::Recovering | Error::Overloaded { .. } | Error::Unknown) {
            // The vault could not answer: that is shed, not decided.
            return refused.error;
        }
        let leaves = self.leaves(refusal(reason), Some(reason), &refused.items, &[]);
        if !self.may_record(reason, leaves.len(), refused.items.len()) {
            return refused.error;
        }
        let change = Change {
            position: self.position,
            guards: vec![],
            changes: vec![],
            mutations: vec![],
            leaves,
            charge: None,
        };
        match self.vault.committer.commit(change).await {
            Ok(_) => refused.error,
            Err(error) => Error::from(error),
        }
    }

    /// Keeps the refused items of a request of which others were allowed, if the caller's budget for refusals has room
    /// for them; otherwise the leaf counts them by their outcomes.
    fn list_refused<A>(&self, prepared: &mut Prepared<A>) {
        let refused = prepared.items.iter().filter(|item| is_refused(item)).count();
        let full = self.vault.nearly_full.load(Ordering::Relaxed);
        if refused == 0 || (!full && self.vault.refusals.may_list(self.caller, refused, self.now)) {
            return;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        prepared.items.retain(|item| {
            let refused = is_refused(item);
            if refused {
                *counts.entry(item.outcome).or_default() += 1;
            }
            !refused
        });
        let counts: Vec<String> = counts.iter().map(|(outcome, count)| format!("{outcome}={count}")).collect();
        prepared.detail.push((REFUSED, counts.join(" ")));
    }

    /// Whether a refusal gets leaves of its own. On a disk that is nearly full it is only counted.
    fn may_record(&self, reason: &'static str, leaves: usize, items: usize) -> bool {
        let leaves = if self.vault.nearly_full.load(Ordering::Relaxed) { usize::MAX } else { leaves };
        self.vault.refusals.may_record(self.caller, self.action, reason, Size { leaves, items }, self.now)
    }

    fn leaves(
        &self,
        decision: &str,
        reason: Option<&str>,
        items: &[Item],
        detail: &[(&'static str, String)],
    ) -> Vec<(TenantNo, leaf::PreparedLeaf)> {
        let detail: Vec<(&str, &str)> = detail.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let header = LeafHeader {
            request: &self.request,
            principal: &self.caller.principal.name,
            actor: self.caller.actor.as_ref().map(|actor| actor.name()),
            action: self.action.as_str(),
            purpose: self.purpose.filter(|name| self.schema.purpose(name).is_some()),
            decision,
            reason,
            policy: self.tenant.policy_version(),
            schema: self.schema.version(),
            keys: &self.rules.keys.versions,
            client: &self.caller.client,
            detail: &detail,
        };
        let items = items.iter().map(|item| LeafItem {
            field: item.field.as_deref(),
            row: item.row,
            view: item.view.as_deref(),
            outcome: item.outcome,
            subject: item.subject.filter(|handle| handle.is_some()),
            version: item.version,
            hash: item.hash.as_ref(),
            sent: item.sent.as_ref(),
        });
        leaf::prepare(&header, items).into_iter().map(|part| (self.tenant.number, part)).collect()
    }
}

/// Lets the thread's other requests go on between the items of a large one, every half millisecond or so.
pub(crate) async fn make_way(item: usize) {
    const ITEMS: usize = 64;
    if item > 0 && item.is_multiple_of(ITEMS) {
        tokio::task::yield_now().await;
    }
}

/// What the ledger says of a request whose items were answered one by one: it is allowed when any item was, and denied
/// when none was and any was denied.
fn verdict(items: &[Item]) -> (&'static str, Option<&'static str>) {
    if items.is_empty() || !items.iter().all(is_refused) {
        return ("allow", None);
    }
    let denied = items.iter().find(|item| refusal(item.outcome) == "deny");
    let reason = denied.unwrap_or(&items[0]).outcome;
    (refusal(reason), Some(reason))
}

/// Whether an item was not done as asked: its outcome is a reason then.
fn is_refused(item: &Item) -> bool {
    is_reason(item.outcome)
}

/// The reasons of what is denied; with any other reason it fails.
pub(crate) const DENIALS: [&str; 18] = [
    "DENIED",
    "VIEW_NOT_ALLOWED",
    "PURPOSE_NOT_ALLOWED",
    "CONSENT_REQUIRED",
    "SUBJECT_REQUIRED",
    "FROZEN",
    "SUBJECT_LEAVING",
    "LEGAL_HOLD",
    "SUBJECT_HELD",
    "APPROVAL_REQUIRED",
    "OFFICER_NOT_ENROLLED",
    "QUOTA_EXCEEDED",
    "SECOND_FACTOR_REQUIRED",
    "SECOND_FACTOR_WRONG",
    "SECOND_FACTOR_NOT_ACCEPTED",
    "SECOND_FACTOR_LOCKED",
    "ACTOR_TOKEN_REFUSED",
    "SUSPENDED",
];

/// The decision that stands beside a refusal's reason in the ledger.
pub(crate) fn refusal(reason: &str) -> &'static str {
    if DENIALS.contains(&reason) { "deny" } else { "fail" }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) | CommitError::Expired | CommitError::TooOld => Self::Conflict,
            CommitError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            CommitError::Quota(quota) => {
                Self::QuotaExceeded { what: quota.to_string(), retry_after: quota.retry_after }
            }
            CommitError::Unknown => Self::Unknown,
            CommitError::Closed => Self::Recovering,
        }
    }
}
