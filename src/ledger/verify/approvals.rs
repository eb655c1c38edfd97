//! Approvals in a log: each signature holds, is by an officer whom the log itself has enrolled, and what needed some had them.
//!
//! Which requests need approval the policies say, and they are not looked at here: what is checked is each approval that the
//! log says was given, and each request that the log says was done because of one: that it is what was asked for, as far as
//! its leaf says that.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{BASE64, HEXLOWER};
use ring::digest;
use strongroom_ids::{TenantId, VaultId};
use thiserror::Error;

use super::Fault;
use crate::approval::{Approval, SignatureError};
use crate::leaf::ParsedLeaf;
use crate::summary;

/// How long what waits is remembered, in microseconds: a day longer than it may wait.
const LIFE: u64 = 8 * 24 * 3_600 * 1_000_000;
/// So many requests that wait are remembered, the newest; a forged export must not fill the memory. At once a hundred wait
/// in a vault, which forgets them when it starts.
const MOST: usize = 10_000;
/// Officers of a tenant, and so those who approve one request.
const OFFICERS: usize = 64;
/// Officers who are suspended at once: as many as all principals that may be.
const SUSPENDED: usize = 1_000;
/// Bytes of a name: of an approval, an action, a request, a key's hash.
const NAME: usize = 128;
/// Bytes of a principal's name, with its role.
const PRINCIPAL: usize = 256;
/// By this an officer's name begins, as a principal and in the leaves that enrol one.
const OFFICER: &str = "officer/";
/// All that a leaf has in its `detail` which only says that a request has the approvals that it needs.
const APPROVED: [&str; 5] = ["stage", "approval", "request", "summary", "need"];

/// Why an approval, or what was done because of some, does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ApprovalError {
    /// The leaf does not say all that an approval has.
    #[error("the approval lacks its `{0}`")]
    Lacks(&'static str),
    /// There is more of it than any vault has or writes.
    #[error("no vault has so many, or writes such a long one: {0}")]
    TooMuch(&'static str),
    /// Nobody asked for it, as far as the log says.
    #[error("{0} is approved or used, and the log does not say that it waits")]
    Unasked(String),
    /// It is another one than the one that waits under the name.
    #[error("{0} is not what waits under that name: another request, action, requester or summary")]
    Other(String),
    /// Something else was done than what was approved.
    #[error("{name} was given for this: {asked}; and it was used for another thing: {done}")]
    Another {
        /// Its name.
        name: String,
        /// What officers approved, in words.
        asked: String,
        /// What was done, in the same words.
        done: String,
    },
    /// The log does not enrol that officer with that key.
    #[error("{0} is not enrolled with the key that signed")]
    Officer(String),
    /// The requester itself approved.
    #[error("{0} approved what it asked for itself")]
    Requester(String),
    /// The signature does not hold.
    #[error("the approval by {officer} does not hold: {error}")]
    Signature {
        /// Who would have signed.
        officer: String,
        /// Why.
        error: SignatureError,
    },
    /// It was done with too few.
    #[error("{name} was used with {have} approvals that hold, and it needs {need}")]
    TooFew {
        /// Its name.
        name: String,
        /// How many hold.
        have: usize,
        /// How many it needs.
        need: usize,
    },
}

/// A request that waits.
struct Waiting {
    action: String,
    requester: String,
    request: String,
    summary: String,
    need: usize,
    /// Officers who approved, and the SHA-256 of the key that signed, in hexadecimal.
    votes: BTreeMap<String, String>,
    /// When, in microseconds since 1970, and in which leaf it was asked for.
    since: (u64, u64),
}

/// The approvals of one log, as far as it was read.
#[derive(Default)]
pub(super) struct Approvals {
    /// Whose log it is: part of what is signed.
    of: Option<(VaultId, TenantId)>,
    /// Whether it is the log `system`, which also tells of what tenants' own logs have.
    is_system: bool,
    /// SHA-256 of each officer's public key in hexadecimal, by the name under the role.
    officers: BTreeMap<String, String>,
    /// Officers who are suspended, by role and name.
    suspended: BTreeSet<String>,
    waiting: BTreeMap<String, Waiting>,
    /// Their names, the oldest first.
    oldest: BTreeMap<(u64, u64), String>,
}

impl Approvals {
    /// Of the log with this origin.
    pub fn of(origin: &str) -> Self {
        Self { of: whose(origin), ..Self::default() }
    }

    /// Takes the next leaf. The answer is whether it is an approval, which holds.
    pub fn step(&mut self, leaf: &ParsedLeaf, line: u64) -> Result<bool, Fault> {
        // Once a request: its first part says it.
        if leaf.part.is_some_and(|part| part.which > 1) {
            return Ok(false);
        }
        self.take(leaf).map_err(|error| Fault::Approval { line, index: leaf.index, error })
    }

    fn take(&mut self, leaf: &ParsedLeaf) -> Result<bool, ApprovalError> {
        let stage = detail(leaf, "stage");
        if stage == Some("pending") && leaf.reason.as_deref() == Some("APPROVAL_REQUIRED") {
            return self.open(leaf).map(|()| false);
        }
        if leaf.decision != "allow" {
            return Ok(false);
        }
        match leaf.action.as_str() {
            // A later one enrols nobody: it tells of another log, which begins with its own.
            "create_vault" | "create_tenant" if leaf.index == 0 => self.first(leaf)?,
            // Only says that it has all that it needs, and is done in a leaf of its own.
            _ if stage == Some("approved") && leaf.detail.iter().all(|(name, _)| APPROVED.contains(&name.as_str())) => {
            }
            // The log `system` says of each tenant who its officers are; what made that right is in the tenant's own.
            "enrol_officer" | "remove_officer" | "break_glass"
                if self.is_system && detail(leaf, "tenant").is_some() => {}
            "enrol_officer" | "remove_officer" => {
                said(leaf, "approval")?;
                self.used(leaf)?;
                self.change(leaf)?;
            }
            "break_glass" if detail(leaf, "officer").is_some() => self.change(leaf)?,
            "approve" => return self.approve(leaf).map(|()| true),
            "reject" => drop(detail(leaf, "approval").and_then(|name| self.end(name))),
            "suspend" => self.suspend(said(leaf, "suspended")?)?,
            "unsuspend" => {
                self.used(leaf)?;
                self.suspended.remove(said(leaf, "suspended")?);
            }
            _ => self.used(leaf)?,
        }
        Ok(false)
    }

    fn open(&mut self, leaf: &ParsedLeaf) -> Result<(), ApprovalError> {
        let name = said(leaf, "approval")?;
        // One that waits already is asked for again, and keeps what it has.
        if self.waiting.contains_key(name) {
            return Ok(());
        }
        let now = leaf.time.0;
        // Time never goes back in a log.
        while let Some(oldest) = self.oldest.first_entry() {
            if oldest.key().0.saturating_add(LIFE) > now && self.waiting.len() < MOST {
                break;
            }
            self.waiting.remove(&oldest.remove());
        }
        let since = (now, leaf.index);
        let waiting = Waiting {
            action: short(&leaf.action, NAME, "action")?,
            requester: short(&leaf.principal, PRINCIPAL, "requester")?,
            request: short(said(leaf, "request")?, NAME, "request")?,
            // No string of a leaf is longer than a kilobyte.
            summary: said(leaf, "summary")?.to_owned(),
            need: said(leaf, "need")?.parse().map_err(|_| ApprovalError::Lacks("need"))?,
            votes: BTreeMap::new(),
            since,
        };
        let name = short(name, NAME, "approval")?;
        self.oldest.insert(since, name.clone());
        self.waiting.insert(name, waiting);
        Ok(())
    }

    /// Takes out what was used, rejected or forgotten.
    fn end(&mut self, name: &str) -> Option<Waiting> {
        let ended = self.waiting.remove(name)?;
        self.oldest.remove(&ended.since);
        Some(ended)
    }

    fn suspend(&mut self, principal: &str) -> Result<(), ApprovalError> {
        // Nobody else approves.
        if principal.starts_with(OFFICER) && !self.suspended.contains(principal) {
            if self.suspended.len() >= SUSPENDED {
                return Err(ApprovalError::TooMuch("suspended"));
            }
            self.suspended.insert(short(principal, PRINCIPAL, "suspended")?);
        }
        Ok(())
    }

    /// Whose log it is, and the officers whom it begins with.
    fn first(&mut self, leaf: &ParsedLeaf) -> Result<(), ApprovalError> {
        self.is_system = detail(leaf, "tenant") == Some("system");
        let mut officers = leaf.detail.iter().filter_map(|(name, key)| Some((name.strip_prefix(OFFICER)?, key)));
        officers.try_for_each(|(name, key)| self.enrol(name, key))
    }

    /// One is enrolled by a key, or removed.
    fn change(&mut self, leaf: &ParsedLeaf) -> Result<(), ApprovalError> {
        let name = said(leaf, "officer")?;
        match detail(leaf, "key").filter(|_| leaf.action != "remove_officer") {
            Some(key) => self.enrol(name, key)?,
            None => drop(self.officers.remove(name)),
        }
        Ok(())
    }

    fn enrol(&mut self, name: &str, key: &str) -> Result<(), ApprovalError> {
        if self.officers.len() >= OFFICERS && !self.officers.contains_key(name) {
            return Err(ApprovalError::TooMuch("officers"));
        }
        self.officers.insert(short(name, PRINCIPAL, "officer")?, short(key, NAME, "key")?);
        Ok(())
    }

    fn approve(&mut self, leaf: &ParsedLeaf) -> Result<(), ApprovalError> {
        let [name, request, asked, requester, summary] =
            ["approval", "request", "asked", "requester", "summary"].map(|name| said(leaf, name));
        let (name, request, action, requester, summary) = (name?, request?, asked?, requester?, summary?);
        let bytes = |name| BASE64.decode(said(leaf, name)?.as_bytes()).map_err(|_| ApprovalError::Lacks(name));
        let (public_key, signature) = (bytes("public_key")?, bytes("signature")?);
        let officer = &leaf.principal;
        let key = HEXLOWER.encode(digest::digest(&digest::SHA256, &public_key).as_ref());
        if self.enrolled(officer) != Some(&key) {
            return Err(ApprovalError::Officer(officer.clone()));
        }
        let (vault, tenant) = self.of.ok_or_else(|| ApprovalError::Unasked(name.to_owned()))?;
        let signed = Approval { vault, tenant, name, request, action, requester, summary, officer };
        let wrong = |error| ApprovalError::Signature { officer: officer.clone(), error };
        signed.verify(&public_key, &signature).map_err(wrong)?;
        let Some(waiting) = self.waiting.get_mut(name) else {
            return Err(ApprovalError::Unasked(name.to_owned()));
        };
        let asked_for = [&*waiting.request, &*waiting.action, &*waiting.requester, &*waiting.summary];
        if asked_for != [request, action, requester, summary] {
            return Err(ApprovalError::Other(name.to_owned()));
        }
        if waiting.requester == *officer {
            return Err(ApprovalError::Requester(officer.clone()));
        }
        if waiting.votes.len() >= OFFICERS && !waiting.votes.contains_key(officer) {
            return Err(ApprovalError::TooMuch("votes"));
        }
        waiting.votes.insert(officer.clone(), key);
        Ok(())
    }

    /// What was done because it was approved: just that, and by so many as it needs, each by another key, none by the
    /// requester's.
    fn used(&mut self, leaf: &ParsedLeaf) -> Result<(), ApprovalError> {
        let Some(name) = detail(leaf, "approval") else { return Ok(()) };
        let Some(waiting) = self.end(name) else {
            return Err(ApprovalError::Unasked(name.to_owned()));
        };
        if waiting.action != leaf.action || waiting.requester != leaf.principal {
            return Err(ApprovalError::Other(name.to_owned()));
        }
        if let Some(done) = summary::differs(leaf, &waiting.summary).map_err(ApprovalError::Lacks)? {
            return Err(ApprovalError::Another { name: name.to_owned(), asked: waiting.summary, done });
        }
        // What used one needed one, whatever is written of it.
        let need = waiting.need.max(1);
        let own = self.enrolled(&waiting.requester);
        // Who is suspended has no say, also by what it said before.
        let counts = |(officer, key): &(&String, &String)| {
            self.enrolled(officer) == Some(*key) && own != Some(*key) && !self.suspended.contains(*officer)
        };
        let keys: BTreeSet<&String> = waiting.votes.iter().filter(counts).map(|(_, key)| key).collect();
        match keys.len() >= need {
            true => Ok(()),
            false => Err(ApprovalError::TooFew { name: name.to_owned(), have: keys.len(), need }),
        }
    }

    /// The key of an officer, by role and name.
    fn enrolled(&self, officer: &str) -> Option<&String> {
        self.officers.get(officer.strip_prefix(OFFICER)?)
    }
}

/// What is kept, if it is no longer than such a thing is.
fn short(text: &str, most: usize, what: &'static str) -> Result<String, ApprovalError> {
    match text.len() > most {
        true => Err(ApprovalError::TooMuch(what)),
        false => Ok(text.to_owned()),
    }
}

fn detail<'l>(leaf: &'l ParsedLeaf, name: &str) -> Option<&'l str> {
    leaf.detail.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn said<'l>(leaf: &'l ParsedLeaf, name: &'static str) -> Result<&'l str, ApprovalError> {
    detail(leaf, name).ok_or(ApprovalError::Lacks(name))
}

/// Vault and tenant of an origin.
fn whose(origin: &str) -> Option<(VaultId, TenantId)> {
    let mut parts = origin.strip_prefix("strongroom/")?.split('/');
    let mut id = || HEXLOWER.decode(parts.next()?.as_bytes()).ok()?.try_into().ok();
    Some((VaultId(id()?), TenantId(id()?)))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData, SigningKey};

    use super::super::outline::Seen;
    use super::super::{Report, VerifyError, verify_export};
    use super::*;
    use crate::Timestamp;
    use crate::checkpoint;
    use crate::checkpoint::tests::{Key, log};
    use crate::frontier::Frontier;
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
            let header = LeafHeader {
                request: &[index as u8; 16],
                principal: who,
                actor: None,
                action,
                purpose: None,
                decision,
                reason,
                policy: 1,
                schema: 1,
                keys: &[],
                client: "",
                detail,
            };
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
        type Detail<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, &str, Detail<'_>, Detail<'_>); 8] = [
            (
                "enrol_officer",
                &enrols("0a"),
                &[("officer", "dave"), ("key", "0a")],
                &[("officer", "dave"), ("key", "0b")],
            ),
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
}
