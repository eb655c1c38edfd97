//! The vault's certificates, as `strongroom status` shows them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use strongroom_proto::v1::{CertificateStatus, StatusResponse};

use super::output::instant;

/// As JSON.
pub fn document(status: &CertificateStatus) -> serde_json::Value {
    let at = |time: &Option<_>| time.as_ref().map(|time| instant(Some(time)));
    json!({
        "not_after": at(&status.not_after),
        "crl_next_update": at(&status.crl_next_update),
        "reload_time": at(&status.reload_time),
        "problem": status.problem,
    })
}

/// As rows of a table.
pub fn facts(status: &StatusResponse) -> Vec<(&'static str, String)> {
    let Some(status) = &status.certificates else { return Vec::new() };
    let mut rows = Vec::new();
    if let Some(end) = &status.not_after {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let days = (end.seconds - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(86_400);
        let left = if days < 0 { "it has ended".to_owned() } else { format!("{days} days left") };
        rows.push(("certificate", format!("until {}: {left}", instant(Some(end)))));
    }
    if let Some(next) = &status.crl_next_update {
        rows.push(("revocations", format!("the next list is due {}", instant(Some(next)))));
    }
    if let Some(at) = &status.reload_time {
        rows.push(("replaced", instant(Some(at))));
    }
    if !status.problem.is_empty() {
        rows.push(("not taken", status.problem.clone()));
    }
    rows
}
