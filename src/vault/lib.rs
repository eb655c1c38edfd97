//! The vault's main job: tokenize, detokenize, match, lookup, replace, delete.
//!
//! ```text
//! request -> road (resolve, decide, transform) -> commit -> answer
//! ```
//!
//! In comes a [`Caller`], known to the edge, and a request; out goes an answer, after its ledger leaf is durable. Every
//! request is an attempt that `road.rs` takes as often as guards break. To follow one, read `tokenize.rs` top to bottom,
//! with `road.rs` beside it. [`verify()`] holds a vault's store, stopped or running, against its ledger; FORMAT.md says how.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod approvals;
mod archive;
mod audit;
mod blocking;
mod break_glass;
mod bundles;
mod case_load;
mod charge;
mod clock_watch;
mod closing;
mod consents;
mod decide;
mod delete;
mod dependants;
mod deterministic;
mod detokenize;
mod erase;
mod error;
mod expire;
mod explain;
mod export;
mod freezes;
mod holders;
mod holds;
mod housekeeping;
mod idempotency;
mod index;
mod jobs;
mod key_copies;
mod key_life;
mod labels;
mod leaf_index;
mod leaves;
mod limits;
mod lock;
mod log_keys;
mod lookup;
mod matching;
mod names;
mod officers;
mod open;
mod own_action;
mod own_leaf;
mod pages;
mod policies;
mod processing;
mod proofs;
mod published;
mod random;
mod reading;
mod refusals;
mod reindex;
mod replace;
mod reseal;
mod resolve;
mod restore;
mod retention_report;
mod rewrap;
mod road;
mod roll;
mod rules;
mod seal;
mod second_factors;
mod source;
mod standing;
mod status;
mod subject_export;
mod subject_report;
mod subjects;
mod tail;
mod tenant;
mod tenant_life;
mod tenants;
#[cfg(test)]
mod tests;
mod throttle;
mod tiers;
mod tiles;
mod tokenize;
mod values;
mod vault;
mod verify;
mod witnesses;

pub use approvals::{Approve, ListedApproval, Reject};
pub use archive::{Archive, ArchivedLeaves, GetArchive};
pub use audit::Checkpoint;
pub use break_glass::{BreakGlass, is_reason};
pub use bundles::ReadBundle;
pub use clock_watch::{ClockJump, ConfirmClock, MachineTime};
pub use consents::{ConsentScope, GrantConsent, ListConsents, ListedConsent, WithdrawConsent};
pub use delete::{Delete, DeleteItem};
pub use detokenize::{Detokenize, ReadItem, Released};
pub use erase::{EraseSubject, ErasurePage, ErasureStatus, GetErasure, Kept, ListErasures, UndoErasure};
pub use error::{Error, Violation};
pub use expire::{Retention, StartExpire};
pub use explain::{Explain, Explanation};
pub use export::{ArchivedReads, Export, ExportPage, ExportPages, LeafFilter, LeftArchived, SignedExport};
pub use freezes::{Freeze, FrozenField, InForceFreezes, Suspend, Unfreeze, Unsuspend};
pub use holds::{LiftHold, ListHolds, ListedHold, SetHold};
pub use jobs::{CancelJob, Count, GetJob, Job, JobPage};
pub use key_copies::{BackupKeystore, KeyCopy, NewKeyCopy, StrikeKeystoreCopy};
pub use key_life::{
    DestroyKeyVersion, ImportOwnKey, ListedKey, MoveOwnKey, ProviderSource, RootMoveError, RotateKey, Rotated,
    SetKeyState,
};
pub use labels::{GetLabels, SetLabels};
pub use limits::Limits;
pub use lock::{Away, Provided, provided_tenants};
pub use lookup::{FoundTokens, Lookup, LookupItem};
pub use matching::{Match, MatchItem};
pub use officers::{EnrolOfficer, ListedOfficer, RemoveOfficer, is_officer_key};
pub use open::{LANE, NewTenant, NewVault, OpenError, Opening, SYSTEM, create, is_tenant_name};
pub use policies::{AppliedPolicy, RollBackPolicy};
pub use processing::{
    EarlierReads, Exporter, FieldReads, ProcessedField, ProcessingRecords, ProcessingReport, Recipient, ReportedField,
    ReportedPurpose,
};
pub use proofs::{Proof, ProveGrowth, ProveLeaf};
pub use reindex::StartReindex;
pub use replace::{NewVersion, Replace};
pub use restore::{RestoreError, Restored, restore};
pub use retention_report::{AHEAD, FieldDue, RetentionDue};
pub use rewrap::StartRewrap;
pub use road::{AnswerRoom, Caller};
pub use roll::StartRoll;
pub use rules::{Applied, ApplyPolicy, ApplySchema, InForce};
pub use second_factors::{ConfirmSecondFactor, Enrolled, ListedFactor, ResetSecondFactor, StepUp, SteppedUp};
pub use status::Status;
pub use strongroom_access::{ClassLimits, Frozen, Rate, Since, Suspension, Tier, TierLimits};
pub use strongroom_commit::take_delivery;
pub use strongroom_keys::{
    ImportPublicKey, OwnKeyInfo, OwnKeyKind, OwnKeyProbe, RootError, RootKind, RootProbe, RootProvider,
    UnwrappedTenantKey,
};
pub use strongroom_ledger::tiles::TileId;
pub use subject_export::{ExportSubject, ExportedPage, ExportedUntil, ExportedValue};
pub use subject_report::{HeldField, ReportedErasure, ReportedSubject, SubjectRead, SubjectReport};
pub use tail::{Leaves, Tail};
pub use tenant_life::{CreateTenant, DestroyTenant, DestroyedTenant, ListedTenant, MadeTenant, TenantState};
pub use throttle::Throttle;
pub use tiers::{ListedPrincipal, ListedPrincipals, SetTier, SetTierLimits};
pub use tokenize::{NewValue, Tokenize};
pub use vault::{Clock, Space, Vault};
pub use verify::{
    Counts, Fault, Finding, HeadFile, JournalFile, Kind, LISTED, LeafRef, Phase, Place, Progress, Report, Verification,
    VerifyError, verify, verify_journal, verify_listing, verify_with,
};
pub use witnesses::{AddCosignature, AddedCosignature, Wanted, Witnesses};
