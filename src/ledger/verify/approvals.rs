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
        let stage = leaf.says("stage");
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
            "enrol_officer" | "remove_officer" | "break_glass" if self.is_system && leaf.says("tenant").is_some() => {}
            "enrol_officer" | "remove_officer" => {
                said(leaf, "approval")?;
                self.used(leaf)?;
                self.change(leaf)?;
            }
            "break_glass" if leaf.says("officer").is_some() => self.change(leaf)?,
            "approve" => return self.approve(leaf).map(|()| true),
            "reject" => drop(leaf.says("approval").and_then(|name| self.end(name))),
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
        self.is_system = leaf.says("tenant") == Some("system");
        let mut officers = leaf.detail.iter().filter_map(|(name, key)| Some((name.strip_prefix(OFFICER)?, key)));
        officers.try_for_each(|(name, key)| self.enrol(name, key))
    }

    /// One is enrolled by a key, or removed.
    fn change(&mut self, leaf: &ParsedLeaf) -> Result<(), ApprovalError> {
        let name = said(leaf, "officer")?;
        match leaf.says("key").filter(|_| leaf.action != "remove_officer") {
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
        let Some(name) = leaf.says("approval") else { return Ok(()) };
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

fn said<'l>(leaf: &'l ParsedLeaf, name: &'static str) -> Result<&'l str, ApprovalError> {
    leaf.says(name).ok_or(ApprovalError::Lacks(name))
}

/// Vault and tenant of an origin.
fn whose(origin: &str) -> Option<(VaultId, TenantId)> {
    let mut parts = origin.strip_prefix("strongroom/")?.split('/');
    let mut id = || HEXLOWER.decode(parts.next()?.as_bytes()).ok()?.try_into().ok();
    Some((VaultId(id()?), TenantId(id()?)))
}

#[cfg(test)]
mod tests;
