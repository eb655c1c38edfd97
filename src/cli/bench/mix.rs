//! What stands in a lender's log: made-up requests of many services, about many subjects, by the ledger's own preparation.
//!
//! A request is a number, so that tens of millions of them need no memory, and every run has the same.

use strongroom_ids::{RowId, RowVersion, SubjectHandle};
use strongroom_ledger::leaf::{LeafHeader, LeafItem, PreparedLeaf, prepare};
use strongroom_ledger::refused::REFUSED;

use super::leaves::{mixed, random};

/// Services, of which the first are the busiest.
pub const SERVICES: u64 = 40;
/// People behind them, in one request of four.
pub const PEOPLE: u64 = 500;
/// Requests about a subject, on average.
pub const OF_A_SUBJECT: u64 = 20;
/// One request in so many is denied.
pub const DENIED: u64 = 500;
/// One read of several values in so many is denied in part: of half of them the leaf only counts what was denied.
pub const PARTLY: u64 = 100;
/// One request in so many brings values in bulk, and how many: they fit a leaf.
pub const BULK: u64 = 2_000;
pub const IN_BULK: usize = 300;
/// One read in so many shows values in plain.
pub const PLAIN: u64 = 20;
/// One change of policy, keys, schema or tiers in so many requests, and what approves it.
pub const CHANGE: u64 = 10_000;

/// Numbers of rows and hashes that each request has for itself.
const OWN: u64 = 512;
/// Handles and rows that no vault with so little in it gives out.
const FIRST: u64 = (1 << 48) + (1 << 32);
/// Fields of class c2, of which a new borrower has all.
const FIELDS: [&str; 6] = [
    "borrower.name",
    "borrower.id_card",
    "borrower.mobile",
    "borrower.bank_card",
    "borrower.email",
    "borrower.address",
];
const PURPOSES: [&str; 4] = ["loan_servicing", "loan_origination", "collections", "kyc_review"];

/// Made-up requests.
pub struct Mix {
    keys: Vec<(String, u32)>,
    services: Vec<String>,
    people: Vec<String>,
    subjects: u64,
    /// The first of the subjects, whom a vault knows.
    known: Vec<SubjectHandle>,
}

/// Numbers that look drawn, and are the same for the same beginning.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = mixed(self.0);
        self.0 % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        // None of the lists is empty.
        &all[self.below(all.len() as u64) as usize]
    }
}

/// What a request does to its values.
struct Kind {
    action: &'static str,
    view: Option<&'static str>,
    outcome: &'static str,
    items: usize,
}

impl Kind {
    fn drawn(draw: &mut Draw) -> Self {
        let one = |action, outcome| Self { action, view: None, outcome, items: 1 };
        if draw.one_in(BULK) {
            return Self { items: IN_BULK, ..one("tokenize", "ok") };
        }
        match draw.below(100) {
            0..25 => Self { items: if draw.one_in(8) { FIELDS.len() } else { 1 }, ..one("tokenize", "ok") },
            25..87 => {
                let view = if draw.one_in(PLAIN) { "plain" } else { "masked" };
                Self { view: Some(view), items: if draw.one_in(4) { 3 } else { 1 }, ..one("detokenize", "ok") }
            }
            87..97 => one("match", if draw.one_in(2) { "matched" } else { "not_matched" }),
            _ => one("lookup", "ok"),
        }
    }
}

impl Mix {
    /// Of so many requests; the first subjects are these.
    pub fn new(requests: u64, known: Vec<SubjectHandle>) -> Self {
        let keys = ["token", "kek/0", "kek/1", "kek/2"].map(|name| (name.to_owned(), 1)).into();
        let services = (0..SERVICES).map(service).collect();
        let people = (0..PEOPLE).map(|number| format!("hr/person-{number}")).collect();
        let subjects = (requests / OF_A_SUBJECT).max(known.len() as u64 + 1);
        Self { keys, services, people, subjects, known }
    }

    /// What the log has of a request.
    pub fn leaves(&self, number: u64) -> Vec<PreparedLeaf> {
        match number % CHANGE {
            5_000 => self.approval(number),
            5_001 => self.change(number),
            _ => self.request(number),
        }
    }

    fn header<'a>(&'a self, request: &'a [u8; 16], principal: &'a str, action: &'a str) -> LeafHeader<'a> {
        LeafHeader {
            request,
            principal,
            actor: None,
            action,
            purpose: None,
            decision: "allow",
            reason: None,
            policy: 1,
            schema: 1,
            keys: &self.keys,
            client: "10.20.30.40",
            detail: &[],
        }
    }

    fn approval(&self, number: u64) -> Vec<PreparedLeaf> {
        let (request, approval) = (random(number), approval(number));
        let header = self.header(&request, "officer/bob", "approve");
        prepare(&LeafHeader { detail: &[("approval", &approval)], ..header }, std::iter::empty())
    }

    /// A change that was approved just before. It names no hash: a leaf that did would have to have its row.
    fn change(&self, number: u64) -> Vec<PreparedLeaf> {
        let (request, approval, version) = (random(number), approval(number), (number / CHANGE + 2).to_string());
        let (action, what) = [
            ("apply_policy", ("version", version.as_str())),
            ("rotate_key", ("key", "kek/1")),
            ("set_tier", ("principal", "app/service-7")),
            ("apply_schema", ("version", version.as_str())),
        ][(number / CHANGE % 4) as usize];
        let header = self.header(&request, "officer/alice", action);
        prepare(&LeafHeader { detail: &[("approval", &approval), what], ..header }, std::iter::empty())
    }

    fn subject(&self, number: u64) -> SubjectHandle {
        let number = number % self.subjects;
        self.known.get(number as usize).copied().unwrap_or(SubjectHandle(FIRST + number))
    }

    fn request(&self, number: u64) -> Vec<PreparedLeaf> {
        let draw = &mut Draw(number);
        let service = draw.below(SERVICES).min(draw.below(SERVICES));
        let denied = draw.one_in(DENIED);
        let kind = Kind::drawn(draw);
        let writes = kind.action == "tokenize";
        let partly = !denied && !writes && kind.items > 1 && draw.one_in(PARTLY);
        let counted = partly && draw.one_in(2);
        let request = random(number);
        let actor = draw.one_in(4).then(|| draw.of(&self.people).as_str());
        let header = LeafHeader {
            actor,
            purpose: (!writes).then(|| *draw.of(&PURPOSES)),
            decision: if denied { "deny" } else { "allow" },
            reason: denied.then_some("DENIED"),
            detail: if counted { &[(REFUSED, "DENIED=40")] } else { &[] },
            ..self.header(&request, &self.services[service as usize], kind.action)
        };
        let subject = draw.below(self.subjects);
        let field = draw.below(FIELDS.len() as u64) as usize;
        let stored = writes && !denied;
        let hashes: Vec<[u8; 32]> = (0..kind.items as u64).map(|item| random(!(number * OWN + item))).collect();
        let items = hashes.iter().enumerate().map(|(place, hash)| {
            let is_denied = denied || (partly && !counted && place + 1 == kind.items);
            LeafItem {
                field: Some(FIELDS[(field + place) % FIELDS.len()]),
                row: (!writes || stored).then_some(RowId(FIRST + number * OWN + place as u64)),
                view: kind.view,
                outcome: if is_denied { "DENIED" } else { kind.outcome },
                // In bulk a few values of each of many.
                subject: (!writes || stored).then_some(self.subject(subject + (place / FIELDS.len()) as u64)),
                version: stored.then_some(RowVersion(1)),
                hash: stored.then_some(hash),
                sent: None,
            }
        });
        prepare(&header, items)
    }
}

/// A service by its number, as leaves name it.
pub fn service(number: u64) -> String {
    format!("app/service-{number}")
}

/// What an approval and the change that it is of have in common.
fn approval(number: u64) -> String {
    format!("approval/{}", number / CHANGE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use strongroom_ids::TenantNo;
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{ParsedItem, ParsedLeaf, parse};

    use super::*;

    #[test]
    fn a_log_has_some_of_everything_and_nothing_that_restricts() {
        let requests = 40_000;
        let known = vec![SubjectHandle(7), SubjectHandle(8)];
        let mix = Mix::new(requests, known.clone());
        let prepared: Vec<PreparedLeaf> = (0..requests).flat_map(|number| mix.leaves(number)).collect();
        assert_eq!(prepared.len() as u64, requests, "each is one leaf");
        // What did would have to hold in the rest of the data.
        assert!(prepared.iter().all(|leaf| !leaf.restricts(TenantNo(1)) && leaf.new_rule().is_none()));
        let leaves: Vec<ParsedLeaf> = (0..).zip(&prepared).map(|(at, leaf)| parsed(leaf, at)).collect();
        let count = |fits: &dyn Fn(&ParsedLeaf) -> bool| leaves.iter().filter(|leaf| fits(leaf)).count() as u64;
        let about = |count: u64, of: u64| assert!((of / 2..of * 2).contains(&count), "{count}, not about {of}");
        about(count(&|leaf| leaf.decision == "deny"), requests / DENIED);
        let is_denied = |item: &ParsedItem| item.outcome == "DENIED";
        let partly = requests * 62 / 400 / PARTLY;
        about(count(&|leaf| leaf.decision == "allow" && leaf.items.iter().any(is_denied)), partly / 2);
        about(count(&|leaf| leaf.decision == "allow" && leaf.says(REFUSED).is_some()), partly / 2);
        about(count(&|leaf| leaf.items.len() == IN_BULK), requests / BULK);
        about(
            count(&|leaf| leaf.items.iter().any(|item| item.view.as_deref() == Some("plain"))),
            requests * 62 / 2_000,
        );
        about(count(&|leaf| leaf.items.iter().any(|item| item.subject == Some(known[1]))), OF_A_SUBJECT);
        about(count(&|leaf| leaf.actor.is_some()), requests / 4);
        let mut services: BTreeMap<&str, u64> = BTreeMap::new();
        leaves.iter().for_each(|leaf| *services.entry(&leaf.principal).or_default() += 1);
        assert_eq!(services.len() as u64, SERVICES + 2, "and two officers");
        assert!(services["app/service-0"] > 10 * services["app/service-39"]);
        let approvals = |action: &str| {
            let of = leaves.iter().filter(|leaf| leaf.action == action);
            of.map(|leaf| leaf.says("approval").unwrap().to_owned()).collect::<Vec<String>>()
        };
        let changes =
            ["apply_policy", "rotate_key", "set_tier", "apply_schema"].map(|action| approvals(action).remove(0));
        assert_eq!(changes[..], approvals("approve")[..]);
    }

    fn parsed(leaf: &PreparedLeaf, index: u64) -> ParsedLeaf {
        parse(&leaf.finish(index, Timestamp(1))).unwrap()
    }
}
