//! The one place where refusals become gRPC: a code, a stable reason, and what the caller can do about it.
//!
//! A refusal is told in two forms with the same content: as a status, with google.rpc details, when a whole call is
//! refused; as a `Problem` in an answer when one item or one message of a stream is.

use std::time::Duration;

use strongroom_proto::v1;
use strongroom_vault::{Error, Violation};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` of this service.
pub const DOMAIN: &str = "strongroom";

/// Violations that are told; the rest is counted. Many callers take at most 8 KiB of trailers, in which the details
/// stand in base 64 and the message percent-encoded.
const VIOLATIONS: usize = 20;
/// Bytes of all violations that are told.
const VIOLATION_BYTES: usize = 1_800;
/// Bytes of one path, or one description.
const PART_BYTES: usize = 300;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 1_000;

/// When to try again what names no delay of its own.
const SOON: Duration = Duration::from_secs(1);
/// When to try again what waits for a person or a provider.
const LATER: Duration = Duration::from_secs(60);

/// A refusal in the words of the wire.
pub(crate) struct Refusal {
    code: Code,
    reason: &'static str,
    message: String,
    violations: Vec<Violation>,
    retry: Option<Duration>,
    /// The quota that is used up.
    quota: Option<String>,
    /// What a program needs to know besides, by name.
    metadata: Vec<(&'static str, String)>,
}

impl Refusal {
    /// A refusal with nothing but a reason and a sentence.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), violations: vec![], retry: None, quota: None, metadata: vec![] }
    }

    /// A refusal that may be tried again as it is.
    pub fn unavailable(reason: &'static str, message: impl Into<String>) -> Self {
        Self { retry: Some(SOON), ..Self::new(Code::Unavailable, reason, message) }
    }

    /// What is told, and a word on what is not.
    fn bounded(mut self) -> Self {
        let all = self.violations.len();
        let mut bytes = 0;
        let mut told = 0;
        for violation in &mut self.violations {
            cut(&mut violation.path, PART_BYTES);
            cut(&mut violation.description, PART_BYTES);
            // The path, both forms of the rule, the description and their framing.
            bytes += violation.path.len() + 2 * violation.rule.len() + violation.description.len() + 12;
            if told == VIOLATIONS || bytes > VIOLATION_BYTES {
                break;
            }
            told += 1;
        }
        self.violations.truncate(told);
        cut(&mut self.message, MESSAGE_BYTES);
        if told < all {
            self.message.push_str(&format!("; {told} of {all} violations are listed"));
        }
        self
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let (violations, reason) = match error {
            Error::Invalid(violations) => (violations.clone(), finer(violations)),
            Error::NotFoundAt(violations) => (violations.clone(), error.reason()),
            _ => (vec![], error.reason()),
        };
        let retry = match error {
            Error::Overloaded { retry_after } => Some(*retry_after),
            Error::QuotaExceeded { retry_after, .. } => *retry_after,
            Error::Unknown | Error::Recovering | Error::Sealed => Some(SOON),
            Error::TenantLocked => Some(LATER),
            Error::SecondFactorLocked { retry_after } => Some(*retry_after),
            _ => None,
        };
        let quota = match error {
            Error::QuotaExceeded { what, .. } => Some(what.clone()),
            _ => None,
        };
        let metadata = match error {
            Error::ActorTokenRefused { check } => vec![("check", (*check).to_owned())],
            Error::SecondFactorRequired { request: None } => vec![("kind", "fresh".to_owned())],
            Error::SecondFactorRequired { request: Some(request) } => {
                vec![("kind", "bound".to_owned()), ("request", request.clone())]
            }
            _ => vec![],
        };
        Self { code: code(error), reason, message: error.to_string(), violations, retry, quota, metadata }.bounded()
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let refusal = refusal.bounded();
        let mut details = ErrorDetails::new();
        let metadata = refusal.metadata.into_iter().map(|(name, value)| (name.to_owned(), value));
        details.set_error_info(refusal.reason, DOMAIN, metadata.collect::<std::collections::HashMap<_, _>>());
        if !refusal.violations.is_empty() {
            details.set_bad_request(refusal.violations.into_iter().map(field_violation).collect::<Vec<_>>());
        }
        if let Some(what) = refusal.quota {
            // Whoever it is knows who it is.
            details.add_quota_failure_violation("principal", what);
        }
        if let Some(delay) = refusal.retry {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(refusal.code, refusal.message, details)
    }
}

impl From<Refusal> for v1::Problem {
    fn from(refusal: Refusal) -> Self {
        let refusal = refusal.bounded();
        Self {
            code: refusal.code.into(),
            reason: refusal.reason.to_owned(),
            message: refusal.message,
            violations: refusal
                .violations
                .into_iter()
                .map(|broken| v1::Violation {
                    field: broken.path,
                    rule: broken.rule.to_owned(),
                    description: broken.description,
                })
                .collect(),
            // No delay is longer than a day.
            retry_delay: refusal.retry.and_then(|delay| delay.try_into().ok()),
            metadata: refusal.metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

/// A refused call.
pub(crate) fn status(error: Error) -> Status {
    Refusal::from(&error).into()
}

/// A refused item, or message of a stream.
pub(crate) fn problem(error: &Error) -> v1::Problem {
    Refusal::from(error).into()
}

/// Gives a status that the transport made by itself the form of ours.
pub(crate) fn mended(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    let refusal = match status.code() {
        Code::Ok | Code::Cancelled => return status,
        // Only of an encoding the transport says more than the code.
        Code::Unimplemented if !status.message().is_empty() => Refusal::new(
            Code::Unimplemented,
            "COMPRESSION_UNSUPPORTED",
            "messages are taken uncompressed only: leave out grpc-encoding, or set it to identity",
        ),
        Code::Unimplemented => {
            Refusal::new(Code::Unimplemented, "METHOD_UNKNOWN", "no such method: ask reflection, or see strongroom.v1")
        }
        Code::InvalidArgument => Refusal::new(Code::InvalidArgument, "MESSAGE_MALFORMED", status.message()),
        // The transport says INTERNAL for what a caller framed wrongly.
        Code::Internal => Refusal::new(
            Code::InvalidArgument,
            "MESSAGE_MALFORMED",
            "the call is not one well-formed, uncompressed gRPC message of this method",
        ),
        Code::OutOfRange => Refusal::new(
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
            "the message is larger than this method takes or may answer: ask for fewer items at once",
        ),
        _ => return status,
    };
    refusal.into()
}

fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) | Error::ViewUnknown { .. } | Error::SubjectRequired | Error::SourceRefused(_) => {
            Code::InvalidArgument
        }
        Error::NotFound
        | Error::NotFoundAt(_)
        | Error::KeyVersionUnknown(_)
        | Error::JobUnknown(_)
        | Error::TenantNotFound => Code::NotFound,
        Error::TenantExists => Code::AlreadyExists,
        Error::Denied { .. }
        | Error::ViewNotAllowed { .. }
        | Error::PurposeNotAllowed { .. }
        | Error::ConsentRequired { .. }
        | Error::OfficerRemoved
        | Error::Suspended
        | Error::SecondFactorRequired { .. }
        | Error::SecondFactorWrong => Code::PermissionDenied,
        Error::SecondFactorNotAccepted | Error::ActorTokenRefused { .. } => Code::Unauthenticated,
        Error::IdempotencyKeyReused
        | Error::NoSchema
        | Error::KeyUnavailable(_)
        | Error::KeyState(_)
        | Error::KeyInUse { .. }
        | Error::JobRunning { .. }
        | Error::JobEnded(_)
        | Error::ClockJumped
        | Error::TenantDestroyed
        | Error::Frozen { .. }
        | Error::SubjectLeaving { .. }
        | Error::SubjectHeld
        | Error::LegalHold
        | Error::NothingToUndo
        | Error::SuspensionRefused(_)
        | Error::TierRefused(_)
        | Error::ApprovalRequired { .. }
        | Error::ApprovalRefused(_)
        | Error::OfficerRefused(_)
        | Error::SecondFactorRefused(_)
        | Error::WitnessesMissing(_)
        | Error::LeavesArchived { .. }
        | Error::ArchiveRefused(_)
        | Error::OwnKey(_) => Code::FailedPrecondition,
        Error::AnswerTooLarge { .. }
        | Error::QuotaExceeded { .. }
        | Error::TokensExhausted
        | Error::KeyExhausted { .. }
        | Error::TenantLimit(_)
        | Error::TenantsUsedUp(_)
        | Error::SecondFactorLocked { .. }
        | Error::DiskFull => Code::ResourceExhausted,
        Error::Conflict => Code::Aborted,
        Error::Overloaded { .. } | Error::Unknown | Error::Recovering | Error::Sealed | Error::TenantLocked => {
            Code::Unavailable
        }
        Error::DataLoss(_) | Error::LeafChanged(_) => Code::DataLoss,
        Error::Internal(_) => Code::Internal,
    }
}

/// What the violations have in common, if anything; a request may break rules of several kinds at once.
fn finer(violations: &[Violation]) -> &'static str {
    let mut reasons = violations.iter().map(|broken| match (broken.path.rsplit('.').next(), broken.rule) {
        (_, "field_unknown") => "FIELD_UNKNOWN",
        (Some("field"), _) => "FIELD_INVALID",
        (Some("value"), _) => "VALUE_INVALID",
        (Some("token"), _) => "TOKEN_INVALID",
        (Some("subject"), _) => "SUBJECT_INVALID",
        (Some("expire_time"), _) => "EXPIRE_TIME_INVALID",
        (Some("purpose"), _) => "PURPOSE_INVALID",
        (Some("view"), _) => "VIEW_INVALID",
        (Some("items"), _) => "ITEMS_INVALID",
        (Some("name"), "key_unknown" | "not_rotated" | "not_destroyed" | "no_kek") => "KEY_INVALID",
        (Some("name"), "copy_unknown") => "COPY_UNKNOWN",
        (Some("name"), "tenant_name" | "tenant_system") => "TENANT_INVALID",
        (_, "officer_unknown") => "PRINCIPAL_INVALID",
        (_, "officer") => "OFFICER_INVALID",
        (Some("label"), _) | (_, "label_malformed") => "LABEL_INVALID",
        (Some("labels"), _) => "LABEL_INVALID",
        (Some("principal"), _) => "PRINCIPAL_INVALID",
        (Some("tier" | "limits"), _) => "TIER_INVALID",
        (Some("reason"), _) => "REASON_INVALID",
        (Some("class"), _) => "CLASS_INVALID",
        (Some("text_sha256" | "text_version" | "channel"), _) => "EVIDENCE_INVALID",
        (Some("fields"), _) => "FIELD_INVALID",
        (Some("until_time" | "given_time" | "grace"), _) => "TIME_INVALID",
        (Some("copies" | "consents"), _) => "LIST_FULL",
        (Some("wrapped" | "to"), _) => "OWN_KEY_INVALID",
        (Some("manifest" | "place"), _) => "ARCHIVE_INVALID",
        (Some("public_key" | "signature"), _) => "SIGNATURE_INVALID",
        (Some("code" | "request"), _) => "SECOND_FACTOR_INVALID",
        (Some("state"), _) => "STATE_INVALID",
        (Some("time"), _) => "CLOCK_INVALID",
        (Some("idempotency_key"), _) => "IDEMPOTENCY_KEY_INVALID",
        _ => "INVALID",
    });
    match reasons.next() {
        Some(first) if reasons.all(|reason| reason == first) => first,
        _ => "INVALID",
    }
}

fn field_violation(broken: Violation) -> FieldViolation {
    let mut violation = FieldViolation::new(broken.path, broken.description);
    // google.rpc asks for upper case here.
    violation.reason = broken.rule.to_ascii_uppercase();
    violation
}

/// Shortens a text to at most `most` bytes, at a character's border.
fn cut(text: &mut String, most: usize) {
    const MARK: &str = "...";
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(MARK.len())));
        text.push_str(MARK);
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    fn every_error() -> Vec<Error> {
        let allowed = || vec!["masked".to_owned(), "last4".to_owned()];
        vec![
            Error::invalid("items[3].value", "luhn", "the check digit does not fit"),
            Error::NotFound,
            Error::NotFoundAt(vec![Violation::new("items[0].token", "not_found", "no such value")]),
            Error::Denied { action: "tokenize" },
            Error::ViewNotAllowed { allowed: allowed() },
            Error::ViewUnknown { allowed: allowed() },
            Error::PurposeNotAllowed { allowed: allowed() },
            Error::SubjectRequired,
            Error::IdempotencyKeyReused,
            Error::NoSchema,
            Error::SourceRefused("line 3: no such type".to_owned()),
            Error::AnswerTooLarge { size: 2, limit: 1 },
            Error::SubjectLeaving { due: 1 },
            Error::SubjectHeld,
            Error::LegalHold,
            Error::NothingToUndo,
            Error::TokensExhausted,
            Error::KeyExhausted { keyring: 1 },
            Error::KeyUnavailable("disabled".to_owned()),
            Error::TenantExists,
            Error::TenantNotFound,
            Error::TenantDestroyed,
            Error::TenantLocked,
            Error::OwnKey("it is with a provider".to_owned()),
            Error::ApprovalRequired { name: "approval/7".to_owned(), have: 0, need: 1, expires: 1 },
            Error::ApprovalRefused("you have approved it already".to_owned()),
            Error::OfficerRefused("it is enrolled already".to_owned()),
            Error::OfficerRemoved,
            Error::SecondFactorRequired { request: None },
            Error::SecondFactorRequired { request: Some("ab".repeat(32)) },
            Error::SecondFactorNotAccepted,
            Error::ActorTokenRefused { check: "exp" },
            Error::SecondFactorWrong,
            Error::SecondFactorLocked { retry_after: Duration::from_secs(900) },
            Error::SecondFactorRefused("you have none".to_owned()),
            Error::Frozen { what: "reads of borrower.id_card".to_owned() },
            Error::QuotaExceeded { what: "at most 3 a day".to_owned(), retry_after: Some(Duration::from_secs(60)) },
            Error::TierRefused("10,000 principals have a tier".to_owned()),
            Error::WitnessesMissing("none yet"),
            Error::LeavesArchived {
                end: 512,
                until: "2026-11-18T11:06:40.000000Z".to_owned(),
                place: "vault-archive/1".to_owned(),
            },
            Error::ArchiveRefused("they are younger".to_owned()),
            Error::Suspended,
            Error::SuspensionRefused("nobody suspends itself".to_owned()),
            Error::TenantLimit(1_000),
            Error::Conflict,
            Error::Overloaded { retry_after: Duration::from_millis(250) },
            Error::Unknown,
            Error::Recovering,
            Error::Sealed,
            Error::DataLoss("rows"),
            Error::LeafChanged(u64::MAX),
            Error::Internal("nothing"),
        ]
    }

    fn trailer_bytes(status: &Status) -> usize {
        let mut headers = MetadataMap::new().into_headers();
        status.add_header(&mut headers).unwrap();
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    #[test]
    fn every_error_carries_its_reason_and_domain() {
        for error in every_error() {
            let reason = match &error {
                Error::Invalid(_) => "VALUE_INVALID",
                other => other.reason(),
            };
            let status = status(error.clone());
            let details = status.check_error_details().unwrap();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
            assert_eq!(status.message(), error.to_string());
            assert_ne!(status.code(), Code::Unknown);
        }
    }

    #[test]
    fn a_problem_has_the_content_of_the_status() {
        for error in every_error() {
            let (status, problem) = (status(error.clone()), problem(&error));
            let details = status.get_error_details();
            assert_eq!(problem.code, i32::from(status.code()));
            assert_eq!(problem.message, status.message());
            assert_eq!(problem.reason, details.error_info().unwrap().reason);
            let listed = details.bad_request().map_or(0, |request| request.field_violations.len());
            assert_eq!(problem.violations.len(), listed);
            let delay = problem.retry_delay.map(|delay| delay.try_into().unwrap());
            assert_eq!(delay, details.retry_info().and_then(|info| info.retry_delay));
            assert_eq!(problem.metadata, details.error_info().unwrap().metadata);
        }
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        for error in every_error() {
            let quota = matches!(error, Error::QuotaExceeded { .. });
            let locked = matches!(error, Error::SecondFactorLocked { .. });
            let status = status(error);
            let says_when = status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some());
            assert_eq!(says_when, quota || locked || status.code() == Code::Unavailable);
            let counted = status.get_details_quota_failure().is_some_and(|failure| failure.violations.len() == 1);
            assert_eq!(counted, quota);
        }
    }

    #[test]
    fn a_program_is_told_which_second_factor_is_wanted() {
        let told = |request: Option<&str>| {
            let status = status(Error::SecondFactorRequired { request: request.map(str::to_owned) });
            let metadata = status.get_details_error_info().unwrap().metadata;
            (metadata.get("kind").cloned(), metadata.get("request").cloned())
        };
        assert_eq!(told(None), (Some("fresh".to_owned()), None));
        assert_eq!(told(Some("ab")), (Some("bound".to_owned()), Some("ab".to_owned())));
    }

    #[test]
    fn a_violation_names_field_and_rule() {
        let status = status(Error::invalid("items[3].value", "luhn", "the check digit does not fit"));
        let request = status.get_details_bad_request().unwrap();
        let [violation] = &request.field_violations[..] else { panic!("one violation") };
        assert_eq!(violation.field, "items[3].value");
        assert_eq!(violation.reason, "LUHN");
        assert_eq!(violation.description, "the check digit does not fit");
    }

    #[test]
    fn violations_of_one_kind_share_a_finer_reason() {
        let unknown = Violation::new("items[0].field", "field_unknown", "no such field");
        let value = Violation::new("items[1].value", "utf8", "not UTF-8");
        let other_value = Violation::new("items[2].value", "luhn", "a digit is wrong");
        assert_eq!(finer(&[value.clone(), other_value]), "VALUE_INVALID");
        assert_eq!(finer(&[unknown.clone(), unknown.clone()]), "FIELD_UNKNOWN");
        assert_eq!(finer(&[unknown, value]), "INVALID");
        assert_eq!(finer(&[]), "INVALID");
        let time = |path: &str| Violation::new(path, "range", "out of range");
        assert_eq!(finer(&[time("until_time"), time("grace")]), "TIME_INVALID");
    }

    #[test]
    fn many_long_violations_still_fit_into_trailers() {
        let long = "字".repeat(5_000);
        let violations = (0..10_000).map(|n| Violation::new(format!("items[{n}].value"), "too_long", long.clone()));
        for error in [Error::Invalid(violations.collect()), Error::SourceRefused(long)] {
            let status = status(error);
            assert!(trailer_bytes(&status) < 8 << 10, "{} bytes", trailer_bytes(&status));
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let violations = (0..100).map(|n| Violation::new(format!("items[{n}].value"), "luhn", "wrong")).collect();
        let problem = problem(&Error::Invalid(violations));
        assert_eq!(problem.violations.len(), VIOLATIONS);
        assert!(problem.message.ends_with("20 of 100 violations are listed"), "{}", problem.message);
    }

    #[test]
    fn a_cut_keeps_whole_characters() {
        for most in 3..12 {
            let mut text = "a字b字c字".to_owned();
            cut(&mut text, most);
            assert!(text.len() <= most);
        }
    }

    #[test]
    fn statuses_of_the_transport_get_a_reason() {
        for (from, code, reason) in [
            (Status::out_of_range("too large"), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            (Status::internal("Unexpected EOF"), Code::InvalidArgument, "MESSAGE_MALFORMED"),
            (Status::invalid_argument("not a message"), Code::InvalidArgument, "MESSAGE_MALFORMED"),
            (Status::unimplemented(""), Code::Unimplemented, "METHOD_UNKNOWN"),
            (Status::unimplemented("Content is compressed"), Code::Unimplemented, "COMPRESSION_UNSUPPORTED"),
        ] {
            let status = mended(from);
            assert_eq!(status.code(), code);
            assert_eq!(status.get_details_error_info().unwrap().reason, reason);
        }
        let ours = status(Error::Internal("a"));
        assert_eq!(mended(ours).code(), Code::Internal);
    }
}
