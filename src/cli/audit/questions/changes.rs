//! `strongroom audit changes`: every change of what is in force, and who approved it.

use std::collections::HashMap;

use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};
use strongroom_ledger::leaf::ParsedLeaf;
use strongroom_proto::v1::LeafFilter;
use time::{Duration, OffsetDateTime};

use super::lines::{Column, Printer, document};
use super::{Leaves, Window};
use crate::cli::audit::options::Of;
use crate::cli::client::Context;
use crate::cli::expiry::to_wire;
use crate::cli::output::{CliError, Exit};

/// What is said below the options.
pub const HELP: &str = "Examples:
  strongroom audit changes
  strongroom audit changes --month 2026-11 --output json
  strongroom audit changes --log system --as operator   # tenants, root key

One line for each request that changed policies, the schema, keys, officers,
tiers, freezes or second factors, or would have; and for each approval. A change
that needed others names who approved it and where in the ledger. A restore is
one too: it puts the policy and schema of an older copy in force.";

/// How long an approval waits at most, and a day: so far back approvals of what was done then may stand.
const APPROVED_BEFORE: Duration = Duration::days(8);

const COLUMNS: &[Column] = &[
    ("time", 27),
    ("principal", 20),
    ("action", 16),
    ("decision", 8),
    ("reason", 17),
    ("approval", 12),
    ("approved by", 24),
    ("leaf", 6),
    ("what", 4),
];

/// Members that a table has no room for: hashes, signatures, and what has a column of its own.
const LEFT_OUT: [&str; 6] = ["approval", "request", "signature", "public_key", "key_before", "number"];

/// Of when.
#[derive(Clone, Debug, ClapArgs)]
pub struct Changes {
    #[command(flatten)]
    window: Window,

    #[command(flatten)]
    of: Of,
}

impl Changes {
    /// Which ledger.
    pub fn log(&self) -> &str {
        &self.of.log
    }
}

/// Who approved what, so far. Approvals are a matter of people: they are few.
#[derive(Default)]
struct Approvals(HashMap<String, Vec<Approved>>);

struct Approved {
    by: String,
    leaf: u64,
}

impl Approvals {
    /// Notes an approval.
    fn note(&mut self, leaf: &ParsedLeaf) {
        if let (true, "allow", Some(name)) =
            (leaf.action == "approve", leaf.decision.as_str(), detail(leaf, "approval"))
        {
            let approved = Approved { by: leaf.principal.clone(), leaf: leaf.index };
            self.0.entry(name.to_owned()).or_default().push(approved);
        }
    }

    /// The approvals of what a leaf says was done; an approval itself has none.
    fn of(&self, leaf: &ParsedLeaf) -> &[Approved] {
        let name = detail(leaf, "approval").filter(|_| !matches!(leaf.action.as_str(), "approve" | "reject"));
        name.and_then(|name| self.0.get(name)).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Asks, and shows what comes.
pub async fn run(asked: Changes, context: &Context) -> Result<Exit, CliError> {
    let Changes { window, of } = asked;
    let mut request = window.asks(of.log, LeafFilter { changes: true, ..Default::default() });
    let begin = window.since();
    if let Some(filter) = &mut request.filter {
        filter.from_time = begin.map(|from| to_wire(from.checked_sub(APPROVED_BEFORE).unwrap_or(from)));
    }
    // Of what was approved before what is archived only the archive says by whom.
    let mut leaves = Leaves::ask(request, begin, context).await?;
    let begin = begin.map(OffsetDateTime::unix_timestamp_nanos);
    let mut printer = Printer::new(context.output, COLUMNS, leaves.archived.as_ref());
    let mut approvals = Approvals::default();
    while let Some(page) = leaves.page().await? {
        for leaf in &page {
            approvals.note(leaf);
            if begin.is_some_and(|begin| i128::from(leaf.time.0) * 1_000 < begin) {
                continue;
            }
            let approved = approvals.of(leaf);
            printer.line(|| cells(leaf, approved), || with_approvals(leaf, approved));
        }
        if !printer.flush()? {
            return Ok(Exit::Done);
        }
    }
    let words = match printer.lines() {
        1 => "1 line".to_owned(),
        lines => format!("{lines} lines"),
    };
    printer.end(Map::new(), &words)?;
    Ok(Exit::Done)
}

fn detail<'l>(leaf: &'l ParsedLeaf, name: &str) -> Option<&'l str> {
    leaf.detail.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn cells(leaf: &ParsedLeaf, approved: &[Approved]) -> Vec<String> {
    let by = approved.iter().map(|one| format!("{} ({})", one.by, one.leaf)).collect::<Vec<_>>().join(", ");
    let shown = |name: &str| !LEFT_OUT.contains(&name) && !name.ends_with("sha256");
    let what = leaf.detail.iter().filter(|(name, _)| shown(name)).map(|(name, value)| format!("{name} {value}"));
    vec![
        leaf.time.to_string(),
        leaf.principal.clone(),
        leaf.action.clone(),
        leaf.decision.clone(),
        leaf.reason.clone().unwrap_or_default(),
        detail(leaf, "approval").unwrap_or_default().to_owned(),
        by,
        leaf.index.to_string(),
        what.collect::<Vec<_>>().join(", "),
    ]
}

fn with_approvals(leaf: &ParsedLeaf, approved: &[Approved]) -> Value {
    let mut document = document(leaf, None);
    let by = approved.iter().map(|one| json!({ "by": one.by, "leaf": one.leaf.to_string() }));
    if let Value::Object(members) = &mut document {
        members.insert("approvals".to_owned(), Value::Array(by.collect()));
    }
    document
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{self, LeafHeader, sample::header};

    use super::*;

    fn parsed(index: u64, principal: &str, action: &str, decision: &str, detail: &[(&str, &str)]) -> ParsedLeaf {
        let header = LeafHeader {
            request: &[7; 16],
            principal,
            action,
            decision,
            policy: 1,
            schema: 1,
            client: "",
            detail,
            ..header()
        };
        leaf::parse(&leaf::prepare(&header, std::iter::empty())[0].finish(index, Timestamp(1))).unwrap()
    }

    #[test]
    fn a_change_names_who_approved_it_and_an_approval_nobody() {
        let mut approvals = Approvals::default();
        let approve = parsed(41, "officer/bob", "approve", "allow", &[("approval", "approval/40")]);
        for leaf in [
            &approve,
            &parsed(42, "officer/carol", "approve", "deny", &[("approval", "approval/40")]),
            &parsed(43, "officer/dave", "reject", "allow", &[("approval", "approval/40")]),
            &parsed(44, "officer/dave", "approve", "allow", &[("approval", "approval/39")]),
        ] {
            approvals.note(leaf);
        }
        let change =
            parsed(45, "officer/alice", "apply_policy", "allow", &[("approval", "approval/40"), ("version", "2")]);
        let cells = cells(&change, approvals.of(&change));
        assert_eq!(cells[5..], ["approval/40", "officer/bob (41)", "45", "version 2"]);
        assert_eq!(
            with_approvals(&change, approvals.of(&change))["approvals"],
            json!([{ "by": "officer/bob", "leaf": "41" }])
        );
        assert!(approvals.of(&approve).is_empty());
    }
}
