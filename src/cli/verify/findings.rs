//! How findings are shown: as a table with what to do about them, or as a document.

use serde_json::{Map, Value, json};
use strongroom_vault::{Finding, Place, Report};

use super::next::next;
use crate::cli::output::table;

/// A finding as a document.
pub fn document(finding: &Finding) -> Value {
    let Finding { tenant, kind, fault, place, leaf, elsewhere, what } = finding;
    let mut document = Map::new();
    let mut put = |name: &str, value: Value| drop(document.insert(name.to_owned(), value));
    put("tenant", json!(&**tenant));
    put("kind", json!(kind.as_str()));
    put("fault", json!(fault.as_str()));
    if let Some(leaf) = leaf {
        put("leaf", json!(leaf.index.to_string()));
        put("log", json!(&*leaf.log));
    }
    if let Place::Leaf(_) = place {
        put("log", json!(&**tenant));
    }
    if !place.name().is_empty() {
        put(place.name(), json!(place.number()));
    }
    if let Some(elsewhere) = elsewhere {
        put("elsewhere", json!({ elsewhere.name(): elsewhere.number() }));
    }
    put("message", json!(what));
    put("next", json!(next(*kind, *fault)));
    Value::Object(document)
}

/// How many there are of each kind and fault.
pub fn counted(report: &Report) -> Vec<Value> {
    let counted = report.counted.iter();
    let one = counted.map(
        |((kind, fault), count)| json!({ "kind": kind.as_str(), "fault": fault.as_str(), "count": count.to_string() }),
    );
    one.collect()
}

/// All that is listed, what to do about it, and how to have the rest listed.
pub fn text(report: &Report) -> String {
    let rows = report.findings.iter().map(|finding| {
        let Finding { tenant, kind, fault, place, leaf, elsewhere: _, what } = finding;
        let leaf = leaf.as_ref().map(|leaf| match leaf.log == *tenant {
            true => leaf.index.to_string(),
            false => format!("{} of {}", leaf.index, leaf.log),
        });
        vec![
            tenant.to_string(),
            named(kind.as_str(), fault.as_str()),
            place.to_string(),
            leaf.unwrap_or_default(),
            what.clone(),
        ]
    });
    let mut text = vec![table(&["TENANT", "FINDING", "WHERE", "LEAF", "WHAT"], rows)];
    text.push(format!("What to do next:\n{}", advice(report).join("\n")));
    let (listed, left_out) = (report.findings.len(), report.left_out);
    if left_out > 0 {
        let counts = report.counted.iter();
        let counts = counts.map(|((kind, fault), count)| format!("{} {count}", named(kind.as_str(), fault.as_str())));
        text.push(format!(
            "{listed} are listed, and {left_out} more were counted: {}. --all-findings lists all of them.",
            counts.collect::<Vec<_>>().join(", ")
        ));
    }
    let all = left_out.saturating_add(listed as u64);
    let findings = if all == 1 { "finding" } else { "findings" };
    text.push(format!(
        "NOT verified: {all} {findings}. Keep the folder as it is, and a copy, before anything else is done with it."
    ));
    text.join("\n\n")
}

fn named(kind: &str, fault: &str) -> String {
    format!("{kind} {fault}").replace('_', " ")
}

/// Once for all findings that ask for the same.
fn advice(report: &Report) -> Vec<String> {
    let mut advice: Vec<(&str, Vec<String>)> = Vec::new();
    for (kind, fault) in report.counted.keys() {
        let (what, name) = (next(*kind, *fault), named(kind.as_str(), fault.as_str()));
        match advice.iter_mut().find(|(known, _)| *known == what) {
            Some((_, names)) => names.push(name),
            None => advice.push((what, vec![name])),
        }
    }
    advice.into_iter().map(|(what, names)| format!("- {}: {what}", names.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use strongroom_ids::{RowId, VaultId};
    use strongroom_vault::{Fault, Kind, LeafRef};

    use super::*;

    fn report() -> Report {
        let finding = |kind, fault, place| Finding {
            tenant: "demo".into(),
            kind,
            fault,
            place,
            leaf: Some(LeafRef { log: "demo".into(), index: 17 }),
            elsewhere: None,
            what: "said".to_owned(),
        };
        let moved = finding(Kind::Value, Fault::Moved, Place::Row(RowId(5)));
        let log: Arc<str> = "system".into();
        let findings = vec![
            Finding { elsewhere: Some(Place::Row(RowId(6))), ..moved },
            Finding { leaf: None, ..finding(Kind::Leaf, Fault::Changed, Place::Leaf(3)) },
            Finding { leaf: Some(LeafRef { log, index: 4 }), ..finding(Kind::Tenant, Fault::RolledBack, Place::Only) },
        ];
        let counted = [
            ((Kind::Leaf, Fault::Changed), 1),
            ((Kind::Value, Fault::Moved), 41),
            ((Kind::Tenant, Fault::RolledBack), 1),
        ];
        let counted = BTreeMap::from(counted);
        Report { vault: VaultId([1; 16]), without_head: false, tenants: vec![], findings, left_out: 40, counted }
    }

    #[test]
    fn a_document_has_the_leaf_and_its_log_as_members_of_their_own() {
        let report = report();
        let documents: Vec<Value> = report.findings.iter().map(document).collect();
        let [moved, leaf, tenant] = &documents[..] else { panic!("{documents:?}") };
        assert_eq!((&moved["row"], &moved["leaf"], &moved["log"]), (&json!("5"), &json!("17"), &json!("demo")));
        assert_eq!(moved["elsewhere"], json!({ "row": "6" }));
        assert_eq!((&leaf["leaf"], &leaf["log"]), (&json!("3"), &json!("demo")));
        assert_eq!((&tenant["leaf"], &tenant["log"]), (&json!("4"), &json!("system")));
        assert!(moved["next"].as_str().unwrap().contains("restore"));
    }

    #[test]
    fn a_table_says_what_to_do_and_how_all_are_listed() {
        let said = text(&report());
        for words in [
            "What to do next:",
            "- value moved: The leaf says who",
            "4 of system",
            "3 are listed, and 40 more were counted",
            "value moved 41",
            "--all-findings",
            "NOT verified: 43 findings",
        ] {
            assert!(said.contains(words), "{words} is not in: {said}");
        }
    }
}
