//! Floods: each principal has a budget of leaves for refusals, and each person behind a service one of its own; beyond it,
//! one leaf per reason and second counts them.
//!
//! Without it, whoever holds a certificate could fill the disk with refusals. Were it the service's alone, one person could
//! use it up and hide what others are refused.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use strongroom_access::Action;
use strongroom_ids::TenantNo;

use crate::road::Caller;

/// Leaves that a principal's refusals may take at once.
const BURST: u64 = 200;
/// Leaves that its refusals may take a second after that.
const PER_SECOND: u64 = 20;
/// Refused items that cost as much as a leaf of their own: about as many fit one.
const ITEMS_A_LEAF: u64 = 400;
/// Principals and people that are remembered; beyond them refusals are counted, not written one by one.
const CALLERS: usize = 10_000;
/// People behind services among them, so that services by themselves are always remembered. So many at the most are counted
/// apart in a second, too.
const PEOPLE: usize = CALLERS / 2;

const SECOND: u64 = 1_000_000;

/// The budgets, and what went beyond them.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    budgets: HashMap<Who, Budget>,
    counted: HashMap<Counted, u64>,
}

/// Whose refusals are counted together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Who {
    pub tenant: TenantNo,
    pub principal: String,
    /// The person behind it, as leaves name it.
    pub actor: Option<String>,
}

impl Who {
    fn of(caller: &Caller) -> Self {
        let actor = caller.actor.as_ref().map(|actor| actor.name().to_owned());
        Self { tenant: caller.principal.tenant, principal: caller.principal.name.to_string(), actor }
    }
}

struct Budget {
    /// Leaves left, in millionths.
    left: u64,
    at: u64,
}

/// What is counted together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Counted {
    pub who: Who,
    pub action: &'static str,
    pub reason: &'static str,
}

/// How large a refusal is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Leaves that it would take.
    pub leaves: usize,
    /// Items that were refused.
    pub items: usize,
}

impl Refusals {
    /// Whether a refusal gets leaves of its own; if not, its items are counted.
    pub fn may_record(&self, caller: &Caller, action: Action, reason: &'static str, size: Size, now: u64) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.spend(caller, (size.leaves as u64).saturating_mul(SECOND), now) {
            return true;
        }
        let mut counted = Counted { who: Who::of(caller), action: action.as_str(), reason };
        if inner.counted.len() >= PEOPLE && !inner.counted.contains_key(&counted) {
            // Too many to be told apart: the service answers for them.
            counted.who.actor = None;
        }
        *inner.counted.entry(counted).or_default() += size.items.max(1) as u64;
        false
    }

    /// Whether so many refused items may stand in the leaf of a request of which other items were allowed. That leaf
    /// counts them if they may not.
    pub fn may_list(&self, caller: &Caller, items: usize, now: u64) -> bool {
        let price = (items as u64).saturating_mul(SECOND / ITEMS_A_LEAF);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spend(caller, price, now)
    }

    /// Takes what was counted since the last call, and forgets budgets that are full again.
    pub fn take(&self, now: u64) -> Vec<(Counted, u64)> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.budgets.retain(|_, budget| {
            let earned = now.saturating_sub(budget.at).saturating_mul(PER_SECOND);
            budget.left.saturating_add(earned) < BURST * SECOND
        });
        inner.counted.drain().collect()
    }

    /// Puts back what could not be written.
    pub fn put_back(&self, counted: Vec<(Counted, u64)>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, count) in counted {
            *inner.counted.entry(what).or_default() += count;
        }
    }
}

impl Inner {
    /// Takes a price, in millionths of a leaf, out of the caller's budget, if that has it.
    fn spend(&mut self, caller: &Caller, price: u64, now: u64) -> bool {
        let who = Who::of(caller);
        let most = if who.actor.is_some() { PEOPLE } else { CALLERS };
        if self.budgets.len() >= most && !self.budgets.contains_key(&who) {
            return false;
        }
        let budget = self.budgets.entry(who).or_insert(Budget { left: BURST * SECOND, at: now });
        let earned = now.saturating_sub(budget.at).saturating_mul(PER_SECOND);
        budget.left = budget.left.saturating_add(earned).min(BURST * SECOND);
        budget.at = budget.at.max(now);
        match budget.left.checked_sub(price) {
            Some(left) => {
                budget.left = left;
                true
            }
            None => false,
        }
    }
}
