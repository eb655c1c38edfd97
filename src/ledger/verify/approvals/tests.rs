//! Approvals that hold, and every way in which one does not.

use rcgen::{KeyPair, PublicKeyData, SigningKey};

use super::super::outline::Seen;
use super::super::{Report, VerifyError, verify_export};
use super::*;
use crate::Timestamp;
use crate::checkpoint;
use crate::checkpoint::tests::{Key, log};
use crate::frontier::Frontier;
use crate::leaf::sample::header;
use crate::leaf::{LeafHeader, prepare};

impl Approvals {
    /// All that it remembers, to the eye.
    fn state(&self) -> String {
        let waiting = self.waiting.iter().map(|(name, one)| format!("{name} {:?} {:?}", one.votes, one.since));
        let waiting: Vec<String> = waiting.collect();
        format!("{:?} {:?} {:?} {waiting:?}", self.is_system, self.officers, self.suspended)
    }
}

/// The SHA-256 of the policies' text, to the eye.
const TEXT: &str = "ab12";

/// A log in which officers ask, approve and act.
struct Log {
    lines: Vec<String>,
    keys: BTreeMap<&'static str, KeyPair>,
}

impl Log {
    /// Which enrols alice, bob and carol.
    fn new() -> Self {
        Self::of("demo")
    }

    /// That of a tenant.
    fn of(tenant: &str) -> Self {
        let keys = ["alice", "bob", "carol"].map(|name| (name, KeyPair::generate().unwrap()));
        let mut log = Self { lines: vec![], keys: keys.into() };
        let officers = ["alice", "bob", "carol"].map(|name| (format!("officer/{name}"), log.hash(name)));
        let mut detail = vec![("tenant", tenant)];
        detail.extend(officers.iter().map(|(name, key)| (&**name, &**key)));
        log.push("vault", "create_vault", ("allow", None), &detail);
        log
    }

    fn hash(&self, name: &str) -> String {
        let key = self.keys[name].subject_public_key_info();
        HEXLOWER.encode(digest::digest(&digest::SHA256, &key).as_ref())
    }

    fn push(&mut self, who: &str, action: &str, (decision, reason): (&str, Option<&str>), detail: &[(&str, &str)]) {
        let index = self.lines.len() as u64;
        let header =
            LeafHeader { request: &[index as u8; 16], principal: who, action, decision, reason, detail, ..header() };
        let line = prepare(&header, std::iter::empty()).remove(0).finish(index, Timestamp(1_000_000 * (index + 1)));
        self.lines.push(String::from_utf8(line).unwrap());
    }

    /// Alice asks for policies, which needs so many.
    fn ask(&mut self, name: &str, need: &str) {
        self.ask_for(name, need, "apply_policy", &summary::apply_policy(TEXT, None));
    }

    /// Alice asks for something.
    fn ask_for(&mut self, name: &str, need: &str, action: &str, summary: &str) {
        let detail =
            [("stage", "pending"), ("approval", name), ("request", "0a"), ("summary", summary), ("need", need)];
        self.push("officer/alice", action, ("deny", Some("APPROVAL_REQUIRED")), &detail);
    }

    /// Somebody approves her policies, by somebody's key.
    fn approve(&mut self, name: &str, who: &str, by: &str) {
        self.approve_that(name, (who, by), "apply_policy", &summary::apply_policy(TEXT, None));
    }

    /// Somebody approves what she asked for, by somebody's key.
    fn approve_that(&mut self, name: &str, (who, by): (&str, &str), action: &str, summary: &str) {
        let (vault, tenant) = whose(&log()).unwrap();
        let officer = format!("officer/{who}");
        let (request, requester) = ("0a", "officer/alice");
        let text = Approval { vault, tenant, name, request, action, requester, summary, officer: &officer }.text();
        let key = BASE64.encode(&self.keys[by].subject_public_key_info());
        let signature = BASE64.encode(&self.keys[by].sign(text.as_bytes()).unwrap());
        let detail = [
            ("approval", name),
            ("asked", action),
            ("requester", requester),
            ("request", request),
            ("summary", summary),
            ("public_key", &key),
            ("signature", &signature),
        ];
        self.push(&officer, "approve", ("allow", None), &detail);
    }

    fn done(&mut self, name: &str) {
        let detail = [("version", "2"), ("text_sha256", TEXT), ("approval", name)];
        self.push("officer/alice", "apply_policy", ("allow", None), &detail);
    }

    fn verify(&self) -> Result<Report, VerifyError> {
        let key = Key::new(1);
        let mut tree = Frontier::new();
        self.lines.iter().for_each(|line| tree.push(line.as_bytes()));
        let export: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let keys = [checkpoint::vkey(&log(), &key.public())];
        verify_export(export.as_bytes(), &key.checkpoint(&log(), &tree), &keys)
    }

    /// What is wrong, and in which leaf.
    fn fault(&self) -> (u64, ApprovalError) {
        match self.verify().unwrap_err().fault {
            Fault::Approval { line, index, error } => {
                assert_eq!(line, index + 1);
                (index, error)
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_was_approved_by_as_many_as_it_needs_holds() {
    let mut log = Log::new();
    log.ask("approval/1", "2");
    log.approve("approval/1", "bob", "bob");
    log.ask("approval/1", "2");
    log.approve("approval/1", "carol", "carol");
    log.done("approval/1");
    assert_eq!(log.verify().unwrap().approvals, 2);
    // Once only.
    log.done("approval/1");
    assert_eq!(log.fault(), (6, ApprovalError::Unasked("approval/1".to_owned())));
}

#[test]
fn a_signature_that_was_changed_is_named_by_its_leaf() {
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.approve("approval/1", "bob", "bob");
    log.done("approval/1");
    let other = BASE64.encode(&log.keys["bob"].sign(b"something else").unwrap());
    let at = log.lines[2].find("\"signature\":\"").unwrap() + 13;
    let end = at + log.lines[2][at..].find('"').unwrap();
    log.lines[2].replace_range(at..end, &other);
    let error = SignatureError::Signature;
    assert_eq!(log.fault(), (2, ApprovalError::Signature { officer: "officer/bob".to_owned(), error }));
    // So is a text that was changed after it was signed, also by whoever has the key of the log.
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.approve("approval/1", "bob", "bob");
    log.lines[2] = log.lines[2].replace(TEXT, "cd34");
    assert_eq!(log.fault(), (2, ApprovalError::Signature { officer: "officer/bob".to_owned(), error }));
}

#[test]
fn what_was_approved_by_too_few_by_itself_or_by_a_stranger_is_named() {
    let mut log = Log::new();
    log.ask("approval/1", "2");
    log.approve("approval/1", "bob", "bob");
    log.done("approval/1");
    let name = "approval/1".to_owned();
    assert_eq!(log.fault(), (3, ApprovalError::TooFew { name: name.clone(), have: 1, need: 2 }));
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.approve("approval/1", "alice", "alice");
    assert_eq!(log.fault(), (2, ApprovalError::Requester("officer/alice".to_owned())));
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.approve("approval/1", "bob", "carol");
    assert_eq!(log.fault(), (2, ApprovalError::Officer("officer/bob".to_owned())));
    let mut log = Log::new();
    log.approve("approval/1", "bob", "bob");
    assert_eq!(log.fault(), (1, ApprovalError::Unasked(name.clone())));
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.push("officer/bob", "approve", ("allow", None), &[("approval", "approval/1")]);
    assert_eq!(log.fault(), (2, ApprovalError::Lacks("request")));
    // What was rejected is used no more.
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.approve("approval/1", "bob", "bob");
    log.push("officer/carol", "reject", ("allow", None), &[("approval", "approval/1")]);
    log.done("approval/1");
    assert_eq!(log.fault(), (4, ApprovalError::Unasked(name)));
}

#[test]
fn officers_come_and_go() {
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.approve("approval/1", "bob", "bob");
    let removed = [("change", "remove_officer"), ("officer", "bob")];
    log.push("root", "break_glass", ("allow", None), &removed);
    log.done("approval/1");
    let (name, need) = ("approval/1".to_owned(), 1);
    assert_eq!(log.fault(), (4, ApprovalError::TooFew { name, have: 0, need }), "who left counts no more");
    let mut log = Log::new();
    log.keys.insert("dave", KeyPair::generate().unwrap());
    log.ask("approval/1", "1");
    let key = log.hash("dave");
    let dave = [("officer", "dave"), ("key", key.as_str())];
    log.push("officer/alice", "enrol_officer", ("deny", Some("DENIED")), &dave);
    log.push("officer/alice", "list_officers", ("allow", None), &[]);
    log.push("root", "break_glass", ("allow", None), &dave);
    log.approve("approval/1", "dave", "dave");
    log.done("approval/1");
    assert_eq!(log.verify().unwrap().approvals, 1);
    log.lines.remove(4);
    log.lines.iter_mut().enumerate().for_each(|(index, line)| {
        let end = line.find("\",\"time\"").unwrap();
        line.replace_range(..end, &format!("{{\"index\":\"{index}"));
    });
    assert_eq!(log.fault(), (4, ApprovalError::Officer("officer/dave".to_owned())));
}

#[test]
fn an_approval_does_for_what_was_approved_and_nothing_else() {
    let enrols = |key: &str| summary::enrol_officer("dave", key);
    let limits = summary::set_tier_limits("I", "much");
    let tier = summary::set_tier("app/a", "II");
    let back = summary::apply_policy(TEXT, Some(&3));
    let key = summary::destroy_key_version("kek/1", 2);
    let archive = summary::archive_ledger("0", "256", TEXT, "box 1");
    type Detail<'a> = &'a [(&'a str, &'a str)];
    let due = summary::expire_above_cap(7);
    let gone = summary::erase_subject("after 30d", "281474976710657");
    let lifted = summary::lift_hold(1, "case-7", "281474976710657");
    let cases: [(&str, &str, Detail<'_>, Detail<'_>); 12] = [
        ("enrol_officer", &enrols("0a"), &[("officer", "dave"), ("key", "0a")], &[("officer", "dave"), ("key", "0b")]),
        ("remove_officer", "remove officer bob", &[("officer", "bob")], &[("officer", "carol")]),
        ("apply_policy", &back, &[("text_sha256", TEXT), ("rolled_back_to", "3")], &[("text_sha256", TEXT)]),
        ("apply_schema", &summary::apply_schema(TEXT), &[("text_sha256", TEXT)], &[("text_sha256", "cd34")]),
        ("set_tier", &tier, &[("assigned", "app/a"), ("tier", "II")], &[("assigned", "app/b"), ("tier", "II")]),
        ("set_tier_limits", &limits, &[("tier", "I"), ("limits", "much")], &[("tier", "I"), ("limits", "more")]),
        (
            "reset_second_factor",
            "reset the second factor of officer/bob",
            &[("factor", "officer/bob")],
            &[("factor", "x")],
        ),
        ("destroy_key_version", &key, &[("key", "kek/1"), ("version", "2")], &[("key", "kek/1"), ("version", "3")]),
        (
            "archive_ledger",
            &archive,
            &[("first", "0"), ("end", "256"), ("manifest", TEXT), ("place", "box 1")],
            &[("first", "0"), ("end", "512"), ("manifest", TEXT), ("place", "box 1")],
        ),
        ("expire_above_cap", &due, &[("up_to", "7")], &[("up_to", "70")]),
        (
            "erase_subject",
            &gone,
            &[("when", "after 30d"), ("subjects", "281474976710657")],
            &[("when", "at once"), ("subjects", "281474976710657")],
        ),
        (
            "lift_hold",
            &lifted,
            &[("hold", "1"), ("reason", "case-7"), ("subjects", "281474976710657")],
            &[("hold", "1"), ("reason", "case-7"), ("subjects", "281474976710658")],
        ),
    ];
    for (action, asked, right, wrong) in cases {
        let with = |detail: &[(&str, &str)]| {
            let mut log = Log::new();
            log.ask_for("approval/1", "1", action, asked);
            log.approve_that("approval/1", ("carol", "carol"), action, asked);
            log.push("officer/alice", action, ("allow", None), &[detail, &[("approval", "approval/1")]].concat());
            log
        };
        assert_eq!(with(right).verify().unwrap().approvals, 1, "{action}");
        let (at, error) = with(wrong).fault();
        assert!(at == 3 && matches!(error, ApprovalError::Another { .. }), "{action}: {error}");
        let (at, error) = with(&[]).fault();
        assert!(at == 3 && matches!(error, ApprovalError::Lacks(_)), "{action}: {error}");
    }
}

#[test]
fn what_needed_approval_needed_one_at_least() {
    let mut log = Log::new();
    let asked = "remove officer bob";
    log.ask_for("approval/1", "0", "remove_officer", asked);
    let detail = [("officer", "bob"), ("approval", "approval/1")];
    log.push("officer/alice", "remove_officer", ("allow", None), &detail);
    let (name, have, need) = ("approval/1".to_owned(), 0, 1);
    assert_eq!(log.fault(), (2, ApprovalError::TooFew { name, have, need }));
}

#[test]
fn a_log_is_begun_once() {
    for action in ["create_vault", "create_tenant"] {
        let mut log = Log::new();
        log.keys.insert("mallory", KeyPair::generate().unwrap());
        let key = log.hash("mallory");
        log.push("vault", action, ("allow", None), &[("officer/mallory", &key), ("officer/bob", &key)]);
        log.ask("approval/1", "1");
        log.approve("approval/1", "mallory", "mallory");
        assert_eq!(log.fault(), (3, ApprovalError::Officer("officer/mallory".to_owned())), "{action}");
        log.lines.pop();
        log.approve("approval/1", "bob", "bob");
        assert_eq!(log.verify().unwrap().approvals, 1, "{action}");
    }
}

#[test]
fn neither_a_stage_nor_a_tenant_stands_for_an_approval() {
    let stage = [("stage", "approved"), ("approval", "approval/1")];
    let mut log = Log::new();
    log.push("officer/alice", "apply_policy", ("allow", None), &[&stage[..], &[("version", "2")]].concat());
    assert_eq!(log.fault(), (1, ApprovalError::Unasked("approval/1".to_owned())));
    for action in ["enrol_officer", "remove_officer"] {
        let who = [("officer", "bob"), ("key", "0a")];
        let mut log = Log::new();
        log.push("officer/alice", action, ("allow", None), &[&stage[..], &who].concat());
        assert_eq!(log.fault(), (1, ApprovalError::Unasked("approval/1".to_owned())), "{action}");
        let of_tenant = [&who[..], &[("tenant", "demo")]].concat();
        let mut log = Log::new();
        log.push("officer/alice", action, ("allow", None), &of_tenant);
        assert_eq!(log.fault(), (1, ApprovalError::Lacks("approval")), "{action}");
        // Of the log `system` it is told, and what made it right is elsewhere.
        let mut log = Log::of("system");
        log.push("officer/alice", action, ("allow", None), &of_tenant);
        assert!(log.verify().is_ok(), "{action}");
    }
}

#[test]
fn who_is_removed_gets_no_other_key_by_that() {
    let mut log = Log::new();
    let asked = "remove officer bob";
    log.ask_for("approval/1", "1", "remove_officer", asked);
    log.approve_that("approval/1", ("carol", "carol"), "remove_officer", asked);
    log.keys.insert("mallory", KeyPair::generate().unwrap());
    let key = log.hash("mallory");
    let detail = [("officer", "bob"), ("key", key.as_str()), ("approval", "approval/1")];
    log.push("officer/alice", "remove_officer", ("allow", None), &detail);
    log.ask("approval/2", "1");
    log.approve("approval/2", "bob", "mallory");
    assert_eq!(log.fault(), (5, ApprovalError::Officer("officer/bob".to_owned())));
}

#[test]
fn an_authority_that_comes_or_goes_is_in_the_log_and_changes_no_officer() {
    let mut log = Log::new();
    for change in ["add_anchor", "remove_anchor"] {
        log.push("root", "break_glass", ("allow", None), &[("change", change), ("anchor", "05"), ("reason", "x")]);
    }
    log.ask("approval/1", "1");
    log.approve("approval/1", "bob", "bob");
    log.done("approval/1");
    assert_eq!(log.verify().unwrap().approvals, 1);
}

#[test]
fn a_leaf_of_which_an_outline_is_enough_has_nothing_to_do_with_approvals() {
    let mut log = Log::new();
    log.ask("approval/1", "1");
    log.approve("approval/1", "bob", "bob");
    for (decision, reason) in [("allow", None), ("deny", Some("APPROVAL_REQUIRED")), ("fail", None)] {
        for action in ["tokenize", "import_token", "detokenize", "match", "lookup", "replace", "delete"] {
            for detail in [&[][..], &[("request", "0a"), ("refused", "DENIED=1"), ("tenant", "system")]] {
                log.push("officer/alice", action, (decision, reason), detail);
            }
        }
    }
    log.done("approval/1");
    let mut approvals = Approvals::of(&crate::checkpoint::tests::log());
    let mut outlined = 0;
    for (line, text) in (1..).zip(&log.lines) {
        let leaf = crate::leaf::parse(text.as_bytes()).unwrap();
        if Seen::look(text.as_bytes()).unwrap().leaf().is_none() {
            let before = approvals.state();
            assert_eq!((approvals.step(&leaf, line).unwrap(), approvals.state()), (false, before), "{text}");
            outlined += 1;
        } else {
            approvals.step(&leaf, line).unwrap();
        }
    }
    assert_eq!(outlined, 3 * 7 * 2);
}

#[test]
fn nobody_enrols_or_removes_an_officer_alone() {
    for action in ["enrol_officer", "remove_officer"] {
        let mut log = Log::new();
        // That it has all that it needs: nothing is done by this.
        log.push("officer/alice", action, ("allow", None), &[("stage", "approved"), ("approval", "approval/1")]);
        assert!(log.verify().is_ok(), "{action}");
        log.push("officer/alice", action, ("allow", None), &[("officer", "dave")]);
        assert_eq!(log.fault(), (2, ApprovalError::Lacks("approval")), "{action}");
    }
}
#[test]
fn the_end_of_a_suspension_or_a_freeze_is_of_just_that_one() {
    let since = summary::since("officer/bob", "2026-11-29T10:00:00.000000Z");
    let field = |touches: &str| summary::unfreeze(touches, &summary::frozen_field("borrower.name", 12)) + &since;
    let everything = summary::unfreeze("reads", "everything") + &since;
    let suspension = summary::unsuspend("app/a") + &since;
    type Detail<'a> = &'a [(&'a str, &'a str)];
    let (name, other) = (("field", "borrower.name"), ("field", "borrower.nam"));
    let cases: [(&str, &str, Detail<'_>, bool); 12] = [
        ("unsuspend", &suspension, &[("suspended", "app/a")], true),
        ("unsuspend", "end the suspension of app/a", &[("suspended", "app/a")], true),
        ("unsuspend", &suspension, &[("suspended", "app/b")], false),
        ("unsuspend", "end the suspension of app/ab", &[("suspended", "app/a")], false),
        ("unfreeze", &field("reads and writes"), &[name, ("what", "reads writes")], true),
        // What is not frozen is not named.
        ("unfreeze", &field("writes"), &[name, ("what", "reads writes")], true),
        ("unfreeze", &field("reads and writes"), &[name, ("what", "reads")], false),
        ("unfreeze", &field("reads"), &[name, ("what", "writes")], false),
        ("unfreeze", &field("reads"), &[other, ("what", "reads")], false),
        ("unfreeze", &field("reads"), &[("what", "reads")], false),
        ("unfreeze", &everything, &[("what", "reads")], true),
        ("unfreeze", &everything, &[name, ("what", "reads")], false),
    ];
    for (action, asked, detail, fits) in cases {
        let mut log = Log::new();
        log.ask_for("approval/1", "1", action, asked);
        log.approve_that("approval/1", ("carol", "carol"), action, asked);
        log.push("officer/alice", action, ("allow", None), &[detail, &[("approval", "approval/1")]].concat());
        match fits {
            true => assert_eq!(log.verify().unwrap().approvals, 1, "{asked} {detail:?}"),
            false => {
                let (at, error) = log.fault();
                assert!(at == 3 && matches!(error, ApprovalError::Another { .. }), "{asked} {detail:?}: {error}");
            }
        }
    }
}

#[test]
fn who_is_suspended_has_no_say_until_that_ends() {
    for ended in [false, true] {
        let mut log = Log::new();
        log.ask("approval/1", "1");
        log.approve("approval/1", "bob", "bob");
        log.push("officer/carol", "suspend", ("allow", None), &[("suspended", "app/bob")]);
        log.push("officer/carol", "suspend", ("deny", Some("DENIED")), &[("suspended", "officer/bob")]);
        log.push("officer/carol", "suspend", ("allow", None), &[("suspended", "officer/bob")]);
        if ended {
            log.push("officer/carol", "unsuspend", ("allow", None), &[("suspended", "officer/bob")]);
        }
        log.done("approval/1");
        if ended {
            assert_eq!(log.verify().unwrap().approvals, 1);
        } else {
            let name = "approval/1".to_owned();
            assert_eq!(log.fault(), (6, ApprovalError::TooFew { name, have: 0, need: 1 }));
        }
    }
}

#[test]
fn no_log_has_more_than_a_vault_has_or_writes() {
    let mut log = Log::new();
    log.ask(&"x".repeat(NAME + 1), "1");
    assert_eq!(log.fault(), (1, ApprovalError::TooMuch("approval")));
    let mut log = Log::new();
    for number in 3..=OFFICERS {
        let name = format!("o{number}");
        log.push("root", "break_glass", ("allow", None), &[("officer", &name), ("key", "0a")]);
    }
    // The first leaf enrols three, and the last one is one too many.
    assert_eq!(log.fault(), ((OFFICERS - 2) as u64, ApprovalError::TooMuch("officers")));
    log.lines.pop();
    assert!(log.verify().is_ok());
    // One that is there gets another key.
    log.push("root", "break_glass", ("allow", None), &[("officer", "bob"), ("key", "0b")]);
    assert!(log.verify().is_ok());
}

#[test]
fn what_waits_is_forgotten_by_age_and_never_grows_beyond_its_bound() {
    let mut approvals = Approvals::of(&log());
    let mut leaf = |index: u64, time: u64| {
        let mut log = Log { lines: vec![], keys: BTreeMap::new() };
        log.ask(&format!("approval/{index}"), "1");
        let mut leaf = crate::leaf::parse(log.lines[0].as_bytes()).unwrap();
        (leaf.index, leaf.time) = (index, Timestamp(time));
        approvals.step(&leaf, index + 1).unwrap();
        let names = (approvals.waiting.contains_key("approval/1"), approvals.waiting.len());
        assert_eq!(approvals.waiting.len(), approvals.oldest.len());
        names
    };
    for index in 1..=MOST as u64 {
        leaf(index, 5);
    }
    assert_eq!(leaf(MOST as u64 + 1, 5), (false, MOST), "the oldest goes");
    assert_eq!(leaf(MOST as u64 + 2, 5 + LIFE), (false, 1), "all of them, when their time is over");
}
