//! Events of the Open Cybersecurity Schema Framework, version 1.3: what SIEMs and data lakes take without a parser.
//!
//! What is done to values is Datastore Activity (6005), everything else API Activity (6003): one event a leaf, with the
//! attributes that a class requires. What the framework has no place for stands in `unmapped` under the leaf's own names.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use strongroom_ledger::leaf::{self, ParsedLeaf};

use crate::{ExportError, FORM_VERSION, Form};

/// The framework's version.
const VERSION: &str = "1.3.0";
/// Application Activity.
const CATEGORY: u64 = 6;
const API_ACTIVITY: u64 = 6003;
const DATASTORE_ACTIVITY: u64 = 6005;
/// Of either class: what it has no number for.
const OTHER: u64 = 99;

/// Members of a leaf that events have a place for.
const MAPPED: [&str; 9] = ["index", "time", "request", "principal", "actor", "action", "decision", "reason", "client"];

/// One event a line.
pub(crate) struct Ocsf<'o, W> {
    pub out: W,
    /// The log.
    pub origin: &'o str,
}

impl<W: Write> Form for Ocsf<'_, W> {
    fn leaf(&mut self, line: &[u8]) -> Result<(), ExportError> {
        let event = event(&leaf::parse(line)?, line, self.origin);
        self.out.write_all(event.to_string().as_bytes())?;
        Ok(self.out.write_all(b"\n")?)
    }

    fn end(&mut self) -> Result<(), ExportError> {
        Ok(self.out.flush()?)
    }
}

/// The event of a leaf.
pub(crate) fn event(leaf: &ParsedLeaf, line: &[u8], origin: &str) -> Value {
    let (class, activity) = activity(&leaf.action);
    let refused = refused(leaf);
    let (status, severity) = match &*leaf.decision {
        "allow" if refused.is_none() => ((1, "Success"), (1, "Informational")),
        // Some of its items were: no less than if it had been all of them.
        "allow" => ((OTHER, "Refused in part"), (3, "Medium")),
        "deny" => ((2, "Failure"), (3, "Medium")),
        _ => ((2, "Failure"), (2, "Low")),
    };
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    put("category_uid", CATEGORY.into());
    put("category_name", "Application Activity".into());
    put("class_uid", class.into());
    put("class_name", class_name(class).into());
    put("activity_id", activity.into());
    if activity == OTHER {
        put("activity_name", leaf.action.clone().into());
    }
    put("type_uid", (class * 100 + activity).into());
    put("severity_id", severity.0.into());
    put("severity", severity.1.into());
    // Milliseconds; what the leaf has stands in the metadata.
    put("time", (leaf.time.0 / 1_000).into());
    put("status_id", status.0.into());
    put("status", status.1.into());
    if let Some(reason) = &leaf.reason {
        put("status_code", reason.clone().into());
    }
    let detail = refused.filter(|_| leaf.decision == "allow").map(|refused| format!("allow, but refused: {refused}"));
    put("status_detail", detail.unwrap_or_else(|| leaf.decision.clone()).into());
    let product = json!({ "name": "Strongroom", "vendor_name": "Strongroom", "version": FORM_VERSION });
    put(
        "metadata",
        json!({
            "version": VERSION,
            "product": product,
            "event_code": leaf.action,
            // No other log's event has it.
            "uid": format!("{origin}/{}", leaf.index),
            "correlation_uid": data_encoding::HEXLOWER.encode(&leaf.request),
            "log_name": origin,
            "original_time": leaf.time.to_string(),
        }),
    );
    // Where a service calls on behalf of a person, the person is the user and the service the application.
    put(
        "actor",
        match &leaf.actor {
            Some(person) => json!({ "user": { "name": person }, "app_name": leaf.principal }),
            None => json!({ "user": { "name": leaf.principal } }),
        },
    );
    put("src_endpoint", endpoint(&leaf.client));
    if class == API_ACTIVITY {
        put("api", json!({ "operation": leaf.action, "service": { "name": "strongroom.v1" } }));
    } else {
        put("database", json!({ "name": origin, "type_id": OTHER, "type": "Vault" }));
        put("type_id", 1.into());
    }
    put("unmapped", unmapped(line));
    Value::Object(event)
}

/// Why items of it were refused, each reason once; those that are only counted, too. An outcome in capitals is a reason.
fn refused(leaf: &ParsedLeaf) -> Option<String> {
    let listed = leaf.items.iter().map(|item| item.outcome.as_str()).filter(|one| one.starts_with(char::is_uppercase));
    let counted = leaf.detail.iter().filter(|(name, _)| name == "refused").map(|(_, counts)| counts.as_str());
    let reasons: BTreeSet<&str> = listed.chain(counted).collect();
    (!reasons.is_empty()).then(|| reasons.into_iter().collect::<Vec<_>>().join(" "))
}

fn class_name(class: u64) -> &'static str {
    if class == API_ACTIVITY { "API Activity" } else { "Datastore Activity" }
}

/// The class of an action, and the number of the activity within it.
fn activity(action: &str) -> (u64, u64) {
    let on_values = match action {
        "detokenize" => 1,
        "replace" => 2,
        "match" | "lookup" => 4,
        "tokenize" | "import_token" => 6,
        "delete" => 7,
        _ => 0,
    };
    if on_values > 0 {
        return (DATASTORE_ACTIVITY, on_values);
    }
    let begins = |words: &[&str]| words.iter().any(|word| action.starts_with(word));
    let number = if begins(&["create", "enrol", "import", "backup"]) {
        1
    } else if begins(&["get_", "list_", "export_", "explain_", "status", "retention_report"]) {
        2
    } else if begins(&["destroy", "remove", "strike", "reset", "cancel", "expire"]) {
        4
    } else if begins(&["apply", "set_", "rotate", "rewrap", "roll", "reindex", "move", "freeze", "unfreeze"])
        || begins(&["suspend", "unsuspend", "approve", "reject", "confirm", "seal", "unseal", "break_glass"])
    {
        3
    } else {
        OTHER
    };
    (API_ACTIVITY, number)
}

/// Where a request came from: an address with its port, or the name of what has none.
fn endpoint(client: &str) -> Value {
    match client.parse::<SocketAddr>() {
        Ok(address) => json!({ "ip": address.ip().to_string(), "port": address.port() }),
        Err(_) if client.is_empty() => json!({ "name": "strongroom" }),
        Err(_) => json!({ "name": client }),
    }
}

/// What events have no place for, as the leaf has it.
fn unmapped(line: &[u8]) -> Value {
    // It was read before.
    let mut leaf: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    leaf.retain(|name, _| !MAPPED.contains(&name.as_str()));
    Value::Object(leaf)
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{LeafHeader, LeafItem, prepare};

    use super::*;
    use crate::suite::header;

    const ORIGIN: &str = "strongroom/11/22/0/1";

    fn event_of(actor: Option<&str>, decision: &str, detail: &[(&str, &str)], outcomes: &[&'static str]) -> Value {
        let header = LeafHeader { principal: "app/loan-core", actor, decision, detail, ..header() };
        let items = outcomes.iter().map(|outcome| LeafItem { outcome, ..LeafItem::default() });
        let line = prepare(&header, items)[0].finish(7, Timestamp(1_795_000_000_000_000));
        event(&leaf::parse(&line).unwrap(), &line, ORIGIN)
    }

    #[test]
    fn a_request_of_which_some_items_were_refused_is_no_success() {
        let told = |event: &Value| {
            let number = |name: &str| event[name].as_u64().unwrap();
            (number("status_id"), number("severity_id"), event["status_detail"].as_str().unwrap().to_owned())
        };
        assert_eq!(told(&event_of(None, "allow", &[], &["ok", "ok"])), (1, 1, "allow".to_owned()));
        let listed = event_of(None, "allow", &[], &["ok", "NOT_FOUND", "DENIED", "DENIED"]);
        assert_eq!(told(&listed), (99, 3, "allow, but refused: DENIED NOT_FOUND".to_owned()));
        let counted = event_of(None, "allow", &[("refused", "NOT_FOUND=41")], &["ok"]);
        assert_eq!(told(&counted), (99, 3, "allow, but refused: NOT_FOUND=41".to_owned()));
        assert_eq!(told(&event_of(None, "deny", &[], &["DENIED"])), (2, 3, "deny".to_owned()));
        assert_eq!(told(&event_of(None, "fail", &[], &[])), (2, 2, "fail".to_owned()));
    }

    #[test]
    fn an_event_names_the_person_and_the_service_and_has_a_number_of_its_own() {
        let event = event_of(Some("hr/wang.li"), "allow", &[], &["ok"]);
        assert_eq!(event["actor"], json!({ "user": { "name": "hr/wang.li" }, "app_name": "app/loan-core" }));
        assert!(event["unmapped"]["actor"].is_null());
        assert_eq!(event["metadata"]["uid"], format!("{ORIGIN}/7"));
        let event = event_of(None, "allow", &[], &["ok"]);
        assert_eq!(event["actor"], json!({ "user": { "name": "app/loan-core" } }));
    }
}
