//! Why a request, or one item of it, was refused. The edge maps these to codes; the ledger keeps their reason.

use std::time::Duration;

use strongroom_commit::AllocateError;
use strongroom_keys::{KeyError, RootError};
use strongroom_storage::StoreError;
use thiserror::Error;

/// One part of a request that broke one rule. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A path into the request: `items[3].value`.
    pub path: String,
    /// The rule, stable, for machines: `luhn`.
    pub rule: &'static str,
    /// The rule in words.
    pub description: String,
}

impl Violation {
    /// A violation at a path.
    pub fn new(path: impl Into<String>, rule: &'static str, description: impl Into<String>) -> Self {
        Self { path: path.into(), rule, description: description.into() }
    }
}

/// Why the vault refused.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The request, or an item, is not well formed or not valid.
    #[error("{}", summary(.0))]
    Invalid(Vec<Violation>),
    /// No such value, or none that the caller may know of.
    #[error("no value that you may know of stands behind this token")]
    NotFound,
    /// The same for items of a request that is all or nothing.
    #[error("{}", summary(.0))]
    NotFoundAt(Vec<Violation>),
    /// No policy allows the action.
    #[error("policy does not allow {action} here: ask a security officer, or try `strongroom policy explain`")]
    Denied {
        /// The action that was refused.
        action: &'static str,
    },
    /// The caller may see this value, but not in this view.
    #[error("this view is not allowed for you; you may ask for: {}", list(.allowed))]
    ViewNotAllowed {
        /// The views that the caller may ask for under the same purpose.
        allowed: Vec<String>,
    },
    /// The field has no view of that name.
    #[error("the field has no such view; you may ask for: {}", list(.allowed))]
    ViewUnknown {
        /// The views that the caller may ask for under the same purpose.
        allowed: Vec<String>,
    },
    /// The purpose rests on the subject's consent, and there is none.
    #[error("this purpose rests on the data subject's consent, and there is none; without it you may ask for: {}", list(.allowed))]
    ConsentRequired {
        /// The purposes that the field lists and the caller may name.
        allowed: Vec<String>,
    },
    /// The field is not read for this purpose, or not by this caller.
    #[error("this purpose is not allowed for you on this field; allowed are: {}", list(.allowed))]
    PurposeNotAllowed {
        /// The purposes that the field lists and the caller may name.
        allowed: Vec<String>,
    },
    /// A value that several subjects share is deleted, or read for a purpose that rests on consent, and nobody was
    /// named.
    #[error("several subjects share this token: name the subject that is meant")]
    SubjectRequired,
    /// Something that the caller may do is frozen.
    #[error(
        "{what} are frozen, for everybody, until the freeze is ended: `strongroom freezes` shows an officer since when \
         and by whom"
    )]
    Frozen {
        /// What is frozen: `reads of borrower.id_card`.
        what: String,
    },
    /// The subject's erasure waits out its time of grace.
    #[error(
        "the data subject is frozen: its erasure was asked for and is done after {}; until then the privacy desk can undo it, \
         `strongroom subject undo-erasure`",
        strongroom_ledger::Timestamp(*.due)
    )]
    SubjectLeaving {
        /// When it is erased, in microseconds since 1970.
        due: u64,
    },
    /// The subject is erased but for what legal holds keep.
    #[error(
        "the data subject is erased but for what a legal hold keeps until it ends: store what is new under another id"
    )]
    SubjectHeld,
    /// A legal hold keeps the value.
    #[error("a legal hold keeps this value as it is: `strongroom subject holds` shows the privacy desk until when")]
    LegalHold,
    /// No time of grace runs.
    #[error("no time of grace of an erasure of this subject runs: there is nothing to undo")]
    NothingToUndo,
    /// The caller's tier allows no more now.
    #[error(
        "your tier allows {what}: nothing was done; {}, or ask a security officer of your tenant for another tier",
        .retry_after.map_or_else(
            || "ask for less at once: waiting is of no use".to_owned(),
            |delay| format!("try again after {} seconds", delay.as_secs() + 1)
        )
    )]
    QuotaExceeded {
        /// What it allows: `at most 100 values of class c2 in plain a day`.
        what: String,
        /// When the window ends; none if a whole one has no room for what was asked at once.
        retry_after: Option<Duration>,
    },
    /// A principal can't be given a tier.
    #[error("{0}")]
    TierRefused(String),
    /// The caller is suspended.
    #[error("you are suspended: nothing that you ask is done until a security officer of your tenant ends that")]
    Suspended,
    /// A principal can't be suspended.
    #[error("{0}")]
    SuspensionRefused(String),
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used with another request within its lifetime: use a new key for a new request")]
    IdempotencyKeyReused,
    /// The tenant has no schema yet.
    #[error("no schema is in force: an officer applies one with `strongroom schema apply FILE`")]
    NoSchema,
    /// A schema or policy was refused.
    #[error("{0}")]
    SourceRefused(String),
    /// The answer would be larger than a message may be.
    #[error("the answer would take {size} bytes and at most {limit} fit: ask for fewer items at once")]
    AnswerTooLarge {
        /// Bytes that the values would take.
        size: usize,
        /// Bytes that fit.
        limit: usize,
    },
    /// All shaped tokens that were tried are taken.
    #[error("no free token of this shape was found: the field's token format has too few possibilities left")]
    TokensExhausted,
    /// A key has reached its bound and must be rotated first.
    #[error(
        "the key kek/{keyring} has sealed as often as it may: tell an officer, `strongroom keys rotate kek/{keyring}`"
    )]
    KeyExhausted {
        /// The keyring.
        keyring: u16,
    },
    /// A key that is needed is disabled, destroyed or missing.
    #[error("a key that this needs can't be used: {0}")]
    KeyUnavailable(String),
    /// A key has no such version.
    #[error("{0}")]
    KeyVersionUnknown(String),
    /// A version of a key cannot get the state that it shall get.
    #[error("{0}")]
    KeyState(String),
    /// A version of a key is needed to read what is stored.
    #[error("version {version} of key {name} is in use: {dependants} {what}")]
    KeyInUse {
        /// The key.
        name: String,
        /// The version.
        version: u32,
        /// How many things depend on it.
        dependants: u64,
        /// What they are.
        what: &'static str,
    },
    /// There is no such job.
    #[error(
        "there is no job {0}: only the newest of a kind is kept; `strongroom keys rewrap --status`, `strongroom keys roll \
         --status`, `strongroom keys reindex --status` and `strongroom retention run --status` show them"
    )]
    JobUnknown(String),
    /// A job of the kind runs already.
    #[error(
        "{kind}/{number} runs already: wait for it with `strongroom {} --watch`, or end it with `--cancel`", command(.kind)
    )]
    JobRunning {
        /// What it does.
        kind: &'static str,
        /// Which one of its kind it is.
        number: u32,
    },
    /// The job has ended.
    #[error("{0} has ended: there is nothing to cancel")]
    JobEnded(String),
    /// The clock jumped, and nobody has said since that it is right.
    #[error(
        "the clock jumped, so nothing is erased by it: set it right where it is wrong, and have the vault's operator say that \
         it is right: `strongroom retention confirm-clock`"
    )]
    ClockJumped,
    /// The name of a tenant is in use, or was.
    #[error("a tenant is called so, or was: names are used once; choose another")]
    TenantExists,
    /// There is no such tenant.
    #[error("there is no tenant of that name: `strongroom tenant list` shows them")]
    TenantNotFound,
    /// The tenant was destroyed.
    #[error("the tenant was destroyed: nothing of it can be read or written any more")]
    TenantDestroyed,
    /// The tenant's own key is not there.
    #[error(
        "the tenant is locked, for its own key is not there: `strongroom own-key show`, by an officer of it, says how it comes back"
    )]
    TenantLocked,
    /// Policy wants the approval of others.
    #[error(
        "{name} waits for approval ({have} of {need}): another officer runs `strongroom approve {name}`; then ask for the same again"
    )]
    ApprovalRequired {
        /// What waits: `approval/7`.
        name: String,
        /// How many have approved.
        have: u8,
        /// How many are needed.
        need: u8,
        /// Until when it waits, in microseconds since 1970.
        expires: u64,
    },
    /// Policy wants a second factor.
    #[error("{}", second_factor_required(.request.as_deref()))]
    SecondFactorRequired {
        /// The keyed hash of the request that it must be for; none: it must be fresh.
        request: Option<String>,
    },
    /// What was shown as a second factor is none.
    #[error(
        "the second factor that you showed is not accepted: it has ended, or was not given to you and this certificate; \
         `strongroom second-factor step-up` gives another"
    )]
    SecondFactorNotAccepted,
    /// The person on whose behalf a service calls is not the one that it says, or not any more.
    #[error("the actor token is refused ({check}): {}", actor_token_refused(.check))]
    ActorTokenRefused {
        /// What of it is wrong, stable, for programs: `exp`.
        check: &'static str,
    },
    /// A code is wrong.
    #[error(
        "the code is wrong, or was used already: wait for the next one of your app, and see that its clock is right; \
         five wrong ones lock your second factor"
    )]
    SecondFactorWrong,
    /// Too many codes were wrong.
    #[error(
        "too many codes were wrong: none is taken for {} minutes; another officer may end that with `strongroom \
         second-factor reset`",
        .retry_after.as_secs().div_ceil(60)
    )]
    SecondFactorLocked {
        /// When to try again.
        retry_after: Duration,
    },
    /// A second factor can't be enrolled, used or reset.
    #[error("{0}")]
    SecondFactorRefused(String),
    /// An approval is not given, or can't be asked for.
    #[error("{0}")]
    ApprovalRefused(String),
    /// An officer is not enrolled or removed.
    #[error("{0}")]
    OfficerRefused(String),
    /// Who asks was an officer when it connected.
    #[error("you are no officer of this tenant any more: `strongroom officer list`, by another one, shows who is")]
    OfficerRemoved,
    /// The tenant's own key is left as it is.
    #[error("{0}")]
    OwnKey(String),
    /// There are as many tenants as there may be.
    #[error("the vault has {0} tenants, as many as it may: destroy one, or make another vault")]
    TenantLimit(usize),
    /// There were as many tenants as there may ever be.
    #[error("a vault has {0} tenants in its life at most, and their names are not used again: make another vault")]
    TenantsUsedUp(usize),
    /// Concurrent requests changed what this one read, again and again. Nothing was stored.
    #[error("other requests changed the same data again and again; nothing was stored: try again")]
    Conflict,
    /// The queue is full. Nothing was stored.
    #[error("too much work is waiting; nothing was stored: try again after a moment")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The write failed; whether it was stored is unknown.
    #[error(
        "the write failed and whether it was stored is unknown; nothing was released: a retry under the same idempotency \
         key is safe, a retry without one may store twice"
    )]
    Unknown,
    /// Leaves that are asked for are archived.
    #[error(
        "the leaves of the ledger before {end}, the last of {until}, are archived and not in the vault any more: ask for what \
         was committed after that time, or look into the archive; the newest one is in {place}"
    )]
    LeavesArchived {
        /// Leaves before this one.
        end: u64,
        /// When the last of them was committed.
        until: String,
        /// Where the newest archive is, in the words of who made it.
        place: String,
    },
    /// Leaves are not archived.
    #[error("{0}")]
    ArchiveRefused(String),
    /// There is no checkpoint that enough witnesses have cosigned, or there are no witnesses.
    #[error("{0}")]
    WitnessesMissing(&'static str),
    /// Too little space is left for anything but what frees or protects.
    #[error("too little space is left on the vault's disk; only what frees space is done: make room, then try again")]
    DiskFull,
    /// The store is being reopened after a failed write.
    #[error("the store is recovering from a failed write: try again after a moment")]
    Recovering,
    /// The vault is sealed.
    #[error("the vault is sealed: an operator opens it with `strongroom unseal`")]
    Sealed,
    /// Bytes on disk are not what was written.
    #[error("stored data is damaged ({0}): put the newest copy of its data back (deploy/README.md)")]
    DataLoss(&'static str),
    /// A leaf on disk is not the one that was committed.
    #[error(
        "leaf {0} of the ledger was changed on the disk: keep the files, and put the newest copy of its data back \
         (deploy/README.md)"
    )]
    LeafChanged(u64),
    /// Something that should not happen; the log says more.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl Error {
    /// One violation at one path.
    pub fn invalid(path: impl Into<String>, rule: &'static str, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::new(path, rule, description)])
    }

    /// Whether a change of keys that ended so has failed for good, and is recorded so.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::KeyUnavailable(_) | Self::KeyState(_) | Self::KeyVersionUnknown(_) | Self::OwnKey(_))
    }

    /// The stable word for the refusal, as the ledger keeps it. The wire says more finely what is invalid.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID",
            Self::NotFound | Self::NotFoundAt(_) => "NOT_FOUND",
            Self::Denied { .. } => "DENIED",
            Self::ViewNotAllowed { .. } => "VIEW_NOT_ALLOWED",
            Self::ViewUnknown { .. } => "VIEW_UNKNOWN",
            Self::ConsentRequired { .. } => "CONSENT_REQUIRED",
            Self::PurposeNotAllowed { .. } => "PURPOSE_NOT_ALLOWED",
            Self::SubjectRequired => "SUBJECT_REQUIRED",
            Self::Frozen { .. } => "FROZEN",
            Self::SubjectLeaving { .. } => "SUBJECT_LEAVING",
            Self::SubjectHeld => "SUBJECT_HELD",
            Self::LegalHold => "LEGAL_HOLD",
            Self::NothingToUndo => "NOTHING_TO_UNDO",
            Self::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Self::TierRefused(_) => "TIER_REFUSED",
            Self::Suspended => "SUSPENDED",
            Self::SuspensionRefused(_) => "SUSPENSION_REFUSED",
            Self::IdempotencyKeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::NoSchema => "NO_SCHEMA",
            Self::SourceRefused(_) => "SOURCE_REFUSED",
            Self::AnswerTooLarge { .. } => "ANSWER_TOO_LARGE",
            Self::TokensExhausted => "TOKENS_EXHAUSTED",
            Self::KeyExhausted { .. } => "KEY_EXHAUSTED",
            Self::KeyUnavailable(_) => "KEY_UNAVAILABLE",
            Self::KeyVersionUnknown(_) => "KEY_VERSION_UNKNOWN",
            Self::KeyState(_) => "KEY_STATE",
            Self::KeyInUse { .. } => "KEY_IN_USE",
            Self::JobUnknown(_) => "JOB_UNKNOWN",
            Self::JobRunning { .. } => "JOB_RUNNING",
            Self::JobEnded(_) => "JOB_ENDED",
            Self::ClockJumped => "CLOCK_JUMPED",
            Self::TenantExists => "TENANT_EXISTS",
            Self::TenantNotFound => "TENANT_NOT_FOUND",
            Self::TenantDestroyed => "TENANT_DESTROYED",
            Self::TenantLocked => "TENANT_LOCKED",
            Self::OwnKey(_) => "OWN_KEY",
            Self::ApprovalRequired { .. } => "APPROVAL_REQUIRED",
            Self::ApprovalRefused(_) => "APPROVAL_REFUSED",
            Self::OfficerRefused(_) => "OFFICER_REFUSED",
            Self::OfficerRemoved => "OFFICER_NOT_ENROLLED",
            Self::LeavesArchived { .. } => "LEAVES_ARCHIVED",
            Self::ArchiveRefused(_) => "ARCHIVE_REFUSED",
            Self::SecondFactorRequired { .. } => "SECOND_FACTOR_REQUIRED",
            Self::SecondFactorNotAccepted => "SECOND_FACTOR_NOT_ACCEPTED",
            Self::ActorTokenRefused { .. } => "ACTOR_TOKEN_REFUSED",
            Self::SecondFactorWrong => "SECOND_FACTOR_WRONG",
            Self::SecondFactorLocked { .. } => "SECOND_FACTOR_LOCKED",
            Self::SecondFactorRefused(_) => "SECOND_FACTOR_REFUSED",
            Self::TenantLimit(_) | Self::TenantsUsedUp(_) => "TENANT_LIMIT",
            Self::Conflict => "CONFLICT",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::Unknown => "OUTCOME_UNKNOWN",
            Self::WitnessesMissing(_) => "WITNESSES_MISSING",
            Self::DiskFull => "DISK_FULL",
            Self::Recovering => "RECOVERING",
            Self::Sealed => "SEALED",
            Self::DataLoss(_) | Self::LeafChanged(_) => "DATA_LOSS",
            Self::Internal(_) => "INTERNAL",
        }
    }
}

fn second_factor_required(request: Option<&str>) -> String {
    match request {
        None => {
            "this needs a fresh second factor: `strongroom second-factor step-up`, or the same with --second-factor \
                 and a code; then ask again"
                .to_owned()
        }
        Some(request) => format!(
            "this needs a second factor for just this request: `strongroom second-factor step-up --request {request}`, \
             or the same with --second-factor and a code; then ask again"
        ),
    }
}

fn actor_token_refused(check: &str) -> &'static str {
    match check {
        "caller" => "only services, principals of the role app, call on behalf of somebody",
        "issuer" => "the vault trusts no issuer of that name: see [[actors.issuers]] in its configuration",
        "tenant" => "its issuer does not speak for people of your tenant, or it is of another tenant's person",
        "size" => "it is longer than 8,192 bytes, or there are several",
        "form" => "it is not a JSON Web Token in the compact form",
        "key" => "its issuer has no key of that `kid`: it may have been rotated away",
        "algorithm" => "it is signed in a way that its issuer's key and the vault's configuration do not allow",
        "signature" => "its signature is not right",
        "audience" => "it was not made for this vault",
        "exp" => "it has ended, or does not say when it ends: get a new one",
        "iat" => "it does not say when it was issued (`iat`)",
        "audit" => "nobody reads the ledger on somebody's behalf: leave the token out",
        "nbf" => "it does not hold yet: look at the clocks",
        "lifetime" => "it lives longer than the vault takes from this issuer",
        "sub" => "`sub` must be a name: 1 to 64 of A-Z a-z 0-9 . - _",
        "role" => "its role must be a name: 1 to 64 of A-Z a-z 0-9 . - _, and not `none`",
        "labels" => "it may have 16 labels, each 1 to 32 of a-z 0-9 . - _",
        _ => "see SECURITY.md",
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn summary(violations: &[Violation]) -> String {
    match violations {
        [] => "the request is not valid".to_owned(),
        [one] => format!("{}: {}", one.path, one.description),
        [first, rest @ ..] => format!("{}: {} (and {} more)", first.path, first.description, rest.len()),
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { place, what } => {
                tracing::error!(place, what, "stored data is damaged");
                Self::DataLoss(place)
            }
            StoreError::Io { doing, what } => {
                tracing::error!(doing, what, "the store failed");
                Self::Recovering
            }
            StoreError::StillInFiles { what } => {
                tracing::warn!(what, "what was removed may still be in files; it is looked to again");
                Self::Recovering
            }
            StoreError::Closed => Self::Recovering,
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::CannotOpen => Self::DataLoss("a sealed blob"),
            KeyError::OwnKeyAway { .. } => Self::TenantLocked,
            KeyError::OwnKey { .. } | KeyError::OtherOwnKey { .. } => Self::OwnKey(error.to_string()),
            other => Self::KeyUnavailable(other.to_string()),
        }
    }
}

/// What somebody said who keeps a tenant's own key.
impl From<RootError> for Error {
    fn from(error: RootError) -> Self {
        match error {
            RootError::Key(error) => error.into(),
            other if other.is_refusal() => Self::OwnKey(other.to_string()),
            other => Self::KeyUnavailable(other.to_string()),
        }
    }
}

impl From<AllocateError> for Error {
    fn from(error: AllocateError) -> Self {
        match error {
            AllocateError::Commit(error) => error.into(),
            AllocateError::Store(error) => error.into(),
            AllocateError::Exhausted { .. } => Self::Internal("no numbers are left"),
        }
    }
}

/// The command that starts a job of a kind.
fn command(kind: &str) -> String {
    if kind == "expire" { "retention run".to_owned() } else { format!("keys {kind}") }
}
