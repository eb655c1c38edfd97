//! What a principal can want to do, and what is so of each action whatever policy says.

use std::fmt;
use std::str::FromStr;

use crate::query::UnknownName;

macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident = $name:literal on $resource:ident),+ $(,)?) => {
        /// What a principal wants to do.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Action {
            $($(#[$doc])* $action,)+
        }

        impl Action {
            /// All actions.
            pub const ALL: &'static [Self] = &[$(Self::$action),+];

            /// The name in policies and the ledger.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$action => $name,)+
                }
            }

            /// Whether it is done to a field; otherwise it is done to the vault.
            pub fn is_on_field(self) -> bool {
                match self {
                    $(Self::$action => actions!(@field $resource),)+
                }
            }
        }

        impl FromStr for Action {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                const KNOWN: &str = concat!("", $($name, " "),+);
                match name {
                    $($name => Ok(Self::$action),)+
                    _ => Err(UnknownName { kind: "action", known: KNOWN.trim_ascii_end() }),
                }
            }
        }
    };
    (@field field) => { true };
    (@field vault) => { false };
}

actions! {
    /// Stores a value and gives a token.
    Tokenize = "tokenize" on field,
    /// Stores a value under a token that was made elsewhere.
    ImportToken = "import_token" on field,
    /// Turns a token into a view of its value.
    Detokenize = "detokenize" on field,
    /// Says whether a token stands for a given value.
    Match = "match" on field,
    /// Finds the tokens of a value.
    Lookup = "lookup" on field,
    /// Puts another value under a token.
    Replace = "replace" on field,
    /// Deletes a value.
    Delete = "delete" on field,
    /// Reads the ledger.
    ExportLedger = "export_ledger" on vault,
    /// Has leaves of the ledger leave the vault, once they are archived elsewhere.
    ArchiveLedger = "archive_ledger" on vault,
    /// Gets the ledger's signed head.
    GetCheckpoint = "get_checkpoint" on vault,
    /// Gets proofs of what the ledger holds.
    GetProof = "get_proof" on vault,
    /// Brings a witness's cosignature of the ledger's signed head.
    AddCosignature = "add_cosignature" on vault,
    /// Puts a schema in force.
    ApplySchema = "apply_schema" on vault,
    /// Reads the schema.
    GetSchema = "get_schema" on vault,
    /// Puts policies in force.
    ApplyPolicy = "apply_policy" on vault,
    /// Reads the policies.
    GetPolicy = "get_policy" on vault,
    /// Asks what policy would decide.
    ExplainPolicy = "explain_policy" on vault,
    /// Sees which keys there are.
    ListKeys = "list_keys" on vault,
    /// Makes the next version of a key.
    RotateKey = "rotate_key" on vault,
    /// Gives a version of a key another state.
    SetKeyState = "set_key_state" on vault,
    /// Destroys a version of a key.
    DestroyKeyVersion = "destroy_key_version" on vault,
    /// Wraps DEKs anew.
    Rewrap = "rewrap" on vault,
    /// Gives DEKs a new version, and seals their values anew.
    Roll = "roll" on vault,
    /// Makes index entries anew under the newest version of their key.
    Reindex = "reindex" on vault,
    /// Erases values that are due by retention.
    Expire = "expire" on vault,
    /// The same for more values than are erased without approval.
    ExpireAboveCap = "expire_above_cap" on vault,
    /// Sees how many values fall due when.
    RetentionReport = "retention_report" on vault,
    /// Says that the clock is right after it jumped.
    ConfirmClock = "confirm_clock" on vault,
    /// Sees which key the tenant has of its own.
    GetOwnKey = "get_own_key" on vault,
    /// Makes the key that the tenant wraps its own key to.
    CreateImportKey = "create_import_key" on vault,
    /// Brings the tenant's own key.
    ImportOwnKey = "import_own_key" on vault,
    /// Moves the tenant to another own key, or to none.
    MoveOwnKey = "move_own_key" on vault,
    /// Takes the tenant's own key away.
    RemoveOwnKey = "remove_own_key" on vault,
    /// Makes a copy of the keystore.
    BackupKeystore = "backup_keystore" on vault,
    /// Sees which copies of the keystore there are.
    ListKeystoreCopies = "list_keystore_copies" on vault,
    /// Strikes a copy of the keystore off the list.
    StrikeKeystoreCopy = "strike_keystore_copy" on vault,
    /// Sees how far a job has come.
    GetJob = "get_job" on vault,
    /// Ends a job.
    CancelJob = "cancel_job" on vault,
    /// Approves what somebody else asks for.
    Approve = "approve" on vault,
    /// Rejects it.
    Reject = "reject" on vault,
    /// Sees what waits for approval.
    ListApprovals = "list_approvals" on vault,
    /// Wipes the vault's keys from memory.
    Seal = "seal" on vault,
    /// Makes a tenant.
    CreateTenant = "create_tenant" on vault,
    /// Sees which tenants there are.
    ListTenants = "list_tenants" on vault,
    /// Destroys a tenant with all its keys.
    DestroyTenant = "destroy_tenant" on vault,
    /// Freezes a field, or all that the tenant has.
    Freeze = "freeze" on vault,
    /// Ends such a freeze.
    Unfreeze = "unfreeze" on vault,
    /// Freezes all that all tenants have.
    FreezeAll = "freeze_all" on vault,
    /// Ends such a freeze.
    UnfreezeAll = "unfreeze_all" on vault,
    /// Suspends a principal.
    Suspend = "suspend" on vault,
    /// Ends a suspension.
    Unsuspend = "unsuspend" on vault,
    /// Sees what is frozen and who is suspended.
    ListFreezes = "list_freezes" on vault,
    /// Puts a principal into a tier.
    SetTier = "set_tier" on vault,
    /// Sets how much may be read in a tier.
    SetTierLimits = "set_tier_limits" on vault,
    /// Sees who is in which tier or suspended.
    ListPrincipals = "list_principals" on vault,
    /// Enrols a second factor of one's own.
    EnrolSecondFactor = "enrol_second_factor" on vault,
    /// Confirms it by its first code.
    ConfirmSecondFactor = "confirm_second_factor" on vault,
    /// Turns a code of it into an assertion.
    StepUp = "step_up" on vault,
    /// Takes somebody's second factor away.
    ResetSecondFactor = "reset_second_factor" on vault,
    /// Sees who has a second factor.
    ListSecondFactors = "list_second_factors" on vault,
    /// Sets the labels of a data subject, by which it is in somebody's case load.
    SetLabels = "set_labels" on vault,
    /// Sees them.
    GetLabels = "get_labels" on vault,
    /// Reports what is held of a data subject, why, and who read it.
    SubjectReport = "subject_report" on vault,
    /// Exports the values of a data subject.
    ExportSubject = "export_subject" on vault,
    /// Draws up the records of processing.
    ProcessingReport = "processing_report" on vault,
    /// Gives a data subject's consent to a purpose.
    GrantConsent = "grant_consent" on vault,
    /// Takes it back.
    WithdrawConsent = "withdraw_consent" on vault,
    /// Sees what a data subject allowed.
    ListConsents = "list_consents" on vault,
    /// Erases a data subject, or lets its time of grace begin.
    EraseSubject = "erase_subject" on vault,
    /// Undoes an erasure whose time of grace runs.
    UndoErasure = "undo_erasure" on vault,
    /// Sees how far an erasure has come, and its receipt.
    GetErasure = "get_erasure" on vault,
    /// Sees which erasures there are.
    ListErasures = "list_erasures" on vault,
    /// Sets a legal hold on a data subject.
    SetHold = "set_hold" on vault,
    /// Ends one.
    LiftHold = "lift_hold" on vault,
    /// Sees them.
    ListHolds = "list_holds" on vault,
    /// Enrols an officer, or gives one another key.
    EnrolOfficer = "enrol_officer" on vault,
    /// Takes an officer off the list.
    RemoveOfficer = "remove_officer" on vault,
    /// Sees who the officers are.
    ListOfficers = "list_officers" on vault,
    /// Asks how the vault is.
    Status = "status" on vault,
}

impl Action {
    /// Whether a request for it can wait for the approval of others: of any other action policy sees none. What keeps things as
    /// they are never waits: a legal hold or an erasure that is undone would come too late.
    pub fn is_approvable(self) -> bool {
        matches!(
            self,
            Self::DestroyKeyVersion
                | Self::ApplyPolicy
                | Self::ApplySchema
                | Self::Unfreeze
                | Self::Unsuspend
                | Self::SetTier
                | Self::SetTierLimits
                | Self::ResetSecondFactor
                | Self::ArchiveLedger
                | Self::ExpireAboveCap
                | Self::EraseSubject
                | Self::LiftHold
        ) || self.is_never_done_alone()
    }

    /// Whether it changes what is in force, or is what officers say of such a change: policies, the schema, keys and their
    /// copies, officers, tiers, freezes, legal holds, second factors, tenants, the clock, and what of the ledger is in the vault.
    pub fn is_change(self) -> bool {
        // Each by its name, so that nobody forgets a new one.
        match self {
            Self::ApplySchema
            | Self::ApplyPolicy
            | Self::RotateKey
            | Self::SetKeyState
            | Self::DestroyKeyVersion
            | Self::CreateImportKey
            | Self::ImportOwnKey
            | Self::MoveOwnKey
            | Self::RemoveOwnKey
            | Self::BackupKeystore
            | Self::StrikeKeystoreCopy
            | Self::Approve
            | Self::Reject
            | Self::CreateTenant
            | Self::DestroyTenant
            | Self::Freeze
            | Self::Unfreeze
            | Self::FreezeAll
            | Self::UnfreezeAll
            | Self::Suspend
            | Self::Unsuspend
            | Self::SetHold
            | Self::LiftHold
            | Self::SetTier
            | Self::SetTierLimits
            | Self::EnrolSecondFactor
            | Self::ConfirmSecondFactor
            | Self::ResetSecondFactor
            | Self::EnrolOfficer
            | Self::RemoveOfficer
            | Self::ArchiveLedger
            | Self::ConfirmClock => true,
            Self::Tokenize
            | Self::ImportToken
            | Self::Detokenize
            | Self::Match
            | Self::Lookup
            | Self::Replace
            | Self::Delete
            | Self::ExportLedger
            | Self::GetCheckpoint
            | Self::AddCosignature
            | Self::GetProof
            | Self::GetSchema
            | Self::GetPolicy
            | Self::ExplainPolicy
            | Self::ListKeys
            | Self::Rewrap
            | Self::Roll
            | Self::Reindex
            | Self::Expire
            | Self::ExpireAboveCap
            | Self::RetentionReport
            | Self::GetOwnKey
            | Self::ListKeystoreCopies
            | Self::GetJob
            | Self::CancelJob
            | Self::ListApprovals
            | Self::Seal
            | Self::ListTenants
            | Self::ListFreezes
            | Self::ListPrincipals
            | Self::StepUp
            | Self::ListSecondFactors
            | Self::SetLabels
            | Self::GetLabels
            | Self::SubjectReport
            | Self::ExportSubject
            | Self::ProcessingReport
            | Self::GrantConsent
            | Self::WithdrawConsent
            | Self::ListConsents
            | Self::EraseSubject
            | Self::UndoErasure
            | Self::GetErasure
            | Self::ListErasures
            | Self::ListHolds
            | Self::ListOfficers
            | Self::Status => false,
        }
    }

    /// Whether it tells a caller something of values or of their subjects.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::Detokenize
                | Self::Match
                | Self::Lookup
                | Self::GetLabels
                | Self::ListConsents
                | Self::ListHolds
                | Self::SubjectReport
                | Self::ExportSubject
        )
    }

    /// Whether only officers do it, and none without the approval of another one, whatever policy permits: else one of
    /// them could make the others whose approval it needs.
    pub fn is_never_done_alone(self) -> bool {
        matches!(self, Self::EnrolOfficer | Self::RemoveOfficer)
    }

    /// Whether it concerns all tenants, so that no tenant's own policy can allow it: only that of the vault itself.
    pub fn is_the_vaults_own(self) -> bool {
        matches!(
            self,
            Self::Seal
                | Self::BackupKeystore
                | Self::ListKeystoreCopies
                | Self::StrikeKeystoreCopy
                | Self::CreateTenant
                | Self::ListTenants
                | Self::DestroyTenant
                | Self::FreezeAll
                | Self::UnfreezeAll
                | Self::ConfirmClock
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_reads_back_from_its_name() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse::<Action>().unwrap(), *action);
        }
        let error = "read".parse::<Action>().unwrap_err().to_string();
        assert!(error.contains("tokenize") && error.ends_with("status"), "{error}");
    }
}
