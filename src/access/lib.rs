//! Who may: principals, policy and decisions.
//!
//! What comes in: the names in a client certificate, Cedar policies, and one question at a time. What goes out: a
//! [`Principal`] and a [`Decision`]. Nothing here reads a clock, a file or a socket.
//!
//! ```text
//! URI SAN, key hash ──identify──▶ Principal ─┐
//! action, field, purpose, view, consent ─────┴─▶ Query ──Access::decide──▶ Decision
//!                                                         │ cache inside the state that holds the policies
//! Cedar source ──Policies::compile──▶ Policies ──install──┘
//! ```
//!
//! What must hold:
//! - What no policy permits is denied, and so is what any policy cannot evaluate.
//! - A decision of policies that were replaced is never found again: the cache goes with them.
//! - Tenants with the same text may share its compiled policies, and no decision.
//! - A freeze only takes away, and its end ends no other.
//! - No code of a second factor is used twice.
//! - The same question gets the same answer with the cache and without it.
//! - Policies that do not pass the strict validator never come into force.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod action;
mod actor;
mod approvals;
mod cache;
mod check;
mod directory;
mod freezes;
mod mentions;
mod policies;
mod principal;
mod query;
mod request;
mod second_factor;
mod shared;
mod source;
mod spiffe;
mod tiers;

pub use action::Action;
pub use actor::{ACTOR_LABELS, Actor, ActorError, SUBJECT_LABELS, is_label};
pub use approvals::{Approval, Approvals, ApproveError, Vote};
pub use cache::Access;
pub use check::{CheckError, DEFAULT_TESTS, check};
pub use directory::{Directory, DirectoryError, identify};
pub use freezes::{
    Freezes, FreezesError, Frozen, RESTORE, Scope, Since, SuspendError, Suspension, Touch, parse_principal,
};
pub use mentions::{Mention, Named};
pub use policies::{DEFAULT_POLICIES, Decision, Explanation, Missing, Policies, PolicyError};
pub use principal::{Principal, Role};
pub use query::{CaseLoad, Consent, Context, MAX_APPROVALS, Query, Resource, SecondFactor, Tier, UnknownName};
pub use request::CEDAR_SCHEMA;
pub use second_factor::{
    ASSERTION_LIFE, Assertion, Enrolment, Factor, FactorKind, Holder as FactorHolder, Outcome, RECOVERY_CODES,
    Shown as FactorShown,
};
pub use spiffe::{IdentityError, SpiffeId, is_name};
pub use tiers::{ClassLimits, HIGHEST_LIMIT, Rate, TierError, TierLimits, Tiers, TiersError};
