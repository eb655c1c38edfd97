//! What the vault said instead of an answer, and which command to try then.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_proto::v1::Problem;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What to try where a request is too large.
const FEWER: &str = "fewer at once (import, export: --batch)";

/// One part of a request that broke one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// A path into the request: `items[3].value`.
    pub field: String,
    /// The rule, for machines: `luhn`.
    pub rule: String,
    /// The rule in words.
    pub description: String,
}

/// What the vault said instead of an answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The canonical code.
    pub code: Code,
    /// The stable word for machines; may be empty.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
    /// What broke which rule.
    pub violations: Vec<Broken>,
    /// What a program needs to know besides, by name: of a whole call only.
    pub metadata: Vec<(String, String)>,
    /// When the same is worth trying again, if the vault said so: of a whole call only.
    pub retry_after: Option<Duration>,
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let broken = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let violations = broken.iter().map(|violation| Broken {
            field: violation.field.clone(),
            rule: violation.reason.to_ascii_lowercase(),
            description: violation.description.clone(),
        });
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            violations: violations.collect(),
            metadata: details.error_info().map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl From<&Problem> for Refusal {
    fn from(problem: &Problem) -> Self {
        let violations = problem.violations.iter().map(|violation| Broken {
            field: violation.field.clone(),
            rule: violation.rule.clone(),
            description: violation.description.clone(),
        });
        Self {
            code: Code::from_i32(problem.code),
            reason: problem.reason.clone(),
            message: problem.message.clone(),
            violations: violations.collect(),
            metadata: problem.metadata.clone().into_iter().collect(),
            retry_after: problem.retry_delay.and_then(|delay| Duration::try_from(delay).ok()),
        }
    }
}

impl Refusal {
    /// As a JSON document.
    pub fn document(&self) -> Value {
        let violations = self.violations.iter();
        let violations = violations
            .map(|broken| json!({ "field": broken.field, "rule": broken.rule, "description": broken.description }));
        json!({
            "code": code_name(self.code),
            "reason": self.reason,
            "message": self.message,
            "violations": violations.collect::<Vec<_>>(),
            "try": self.next(),
        })
    }

    /// In one line, for a table.
    pub fn line(&self) -> String {
        let name = if self.reason.is_empty() { code_name(self.code) } else { &self.reason };
        format!("{name}: {}", self.message)
    }

    /// The command to try next; none where the message names one already.
    pub fn next(&self) -> Option<&'static str> {
        if self.message.contains("`strongroom ") {
            return None;
        }
        let unknown = |part: &str| self.violations.iter().any(|broken| broken.rule == format!("{part}_unknown"));
        match (self.reason.as_str(), self.code) {
            ("FIELD_UNKNOWN", _) => Some("strongroom schema show"),
            _ if unknown("field") || unknown("purpose") => Some("strongroom schema show"),
            ("NO_SCHEMA", _) => Some("strongroom schema apply FILE"),
            ("VIEW_NOT_ALLOWED" | "VIEW_UNKNOWN", _) => Some("the same command with --view and one of the views above"),
            ("PURPOSE_NOT_ALLOWED", _) => Some("the same command with --purpose and one of the purposes above"),
            ("CONSENT_REQUIRED", _) => Some("strongroom subject consent list ID, by the privacy desk"),
            ("SUBJECT_HELD", _) => Some("strongroom subject holds ID, by the privacy desk"),
            ("NOTHING_TO_UNDO", _) => Some("strongroom subject report ID"),
            ("LEAVES_ARCHIVED", _) => Some("the same command with --from and a later time; for the rest the archive"),
            ("IDEMPOTENCY_KEY_REUSED", _) => Some("the same command with another --idempotency-key"),
            ("SOURCE_REFUSED", _) => None,
            ("APPROVAL_REQUIRED", _) => Some("strongroom approvals, by another officer"),
            ("APPROVAL_REFUSED", _) => Some("strongroom approvals"),
            ("OFFICER_REFUSED", _) => Some("strongroom officer list"),
            ("TENANT_LOCKED", _) => Some("strongroom own-key show, by an officer of the tenant"),
            ("SUSPENDED", _) => Some("strongroom principal unsuspend NAME, by an officer of the tenant"),
            ("SECOND_FACTOR_WRONG", _) => Some("the same with the next code, or with a recovery code"),
            // No wait makes room for what is larger than the limit by itself.
            ("QUOTA_EXCEEDED", _) if self.message.contains(" at once") => Some(FEWER),
            ("QUOTA_EXCEEDED", _) => Some("the same command again, after the delay"),
            ("TENANT_DESTROYED", _) => Some("strongroom tenant list; strongroom tenant receipt NAME"),
            _ if self.violations.iter().any(|broken| broken.field == "items") => Some(FEWER),
            (_, Code::Unauthenticated) => Some("the same command with --as NAME, or --cert and --key"),
            (_, Code::PermissionDenied) => Some("strongroom policy explain --role ROLE --action ACTION --field FIELD"),
            (_, Code::Unavailable | Code::Aborted) => Some("the same command again, after a moment"),
            (_, Code::DataLoss) => Some("strongroom verify, on the vault's machine"),
            _ => None,
        }
    }
}

/// The canonical name of a code: `NOT_FOUND`.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Code, reason: &str, message: &str) -> Refusal {
        Refusal {
            code,
            reason: reason.into(),
            message: message.into(),
            violations: vec![],
            metadata: vec![],
            retry_after: None,
        }
    }

    #[test]
    fn a_refused_view_names_what_to_try() {
        let message = "this view is not allowed for you; you may ask for: masked";
        assert!(refusal(Code::PermissionDenied, "VIEW_NOT_ALLOWED", message).next().unwrap().contains("--view"));
    }

    #[test]
    fn a_missing_consent_is_no_matter_of_policy_and_damage_none_of_waiting() {
        let consent = refusal(Code::PermissionDenied, "CONSENT_REQUIRED", "there is no consent");
        assert!(consent.next().unwrap().starts_with("strongroom subject consent list"));
        let damage = refusal(Code::DataLoss, "DATA_LOSS", "stored data is damaged (rows)");
        assert!(damage.next().unwrap().starts_with("strongroom verify"));
    }

    #[test]
    fn what_is_refused_of_a_locked_tenant_is_not_just_tried_again() {
        let refusal = refusal(Code::Unavailable, "TENANT_LOCKED", "the tenant is locked");
        assert!(refusal.next().unwrap().contains("own-key show"));
    }

    #[test]
    fn a_wrong_code_is_no_matter_of_policy() {
        let refusal = refusal(Code::PermissionDenied, "SECOND_FACTOR_WRONG", "the code is wrong, or was used already");
        assert_eq!(refusal.next(), Some("the same with the next code, or with a recovery code"));
    }

    #[test]
    fn a_limit_that_is_used_up_is_waited_for_and_one_that_is_too_small_is_not() {
        let next = |message: &str| refusal(Code::ResourceExhausted, "QUOTA_EXCEEDED", message).next();
        let used_up = "your tier allows at most 5 values of class c2 in plain a day: try again after 60 seconds";
        assert!(next(used_up).unwrap().contains("after the delay"));
        let too_small = "your tier allows at most 5 values of class c2 in plain at once";
        assert!(next(too_small).unwrap().contains("--batch"));
    }

    #[test]
    fn a_refusal_knows_when_to_try_again() {
        let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let status = Status::with_error_details(Code::ResourceExhausted, "later", details);
        assert_eq!(Refusal::from(&status).retry_after, Some(Duration::from_secs(7)));
        assert_eq!(Refusal::from(&Status::resource_exhausted("full")).retry_after, None);
    }
}
