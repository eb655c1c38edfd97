//! What restricted after a copy was made, done again in it: for each action that is journalled, how.
//!
//! Each is told in a leaf with the action that it was, by whoever holds the root key; who did it first stands in the detail. What
//! is so already is not done twice. An action that nobody here knows is never passed over: then everything is frozen.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom_access::{Directory, Freezes, Scope, Since, Touch};
use strongroom_ids::{FieldNo, TenantNo};
use strongroom_keys::{self as keys, IndexKey, IndexName, KeyError, Keystore};
use strongroom_ledger::journal::Log;
use strongroom_ledger::leaf::{self, ParsedLeaf, PreparedLeaf};
use strongroom_ledger::{Rules, restricts};
use strongroom_storage::rows::{LaneHead, TenantRow};
use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::subjects::Subjects;
use super::{ROOT, RestoreError};
use crate::error::Error;
use crate::freezes::{self, FIELD_NUMBER};
use crate::officers;
use crate::open::SYSTEM_NO;
use crate::own_leaf::Noted;
use crate::road::Told;
use crate::source::{Source, SourceKind};
use crate::tenant_life::End;
use crate::values::row_hash;

/// What a leaf is damaged in, that can't be written.
const LEDGER: &str = "the journal";
/// What a leaf that freezes in the name of a restore calls why: no officer ends that alone.
const AFTER_RESTORE: &str = "after_restore";
/// Why somebody is suspended who was suspended after the copy was made: the reason stood in a row that is lost.
const NO_REASON: &str = "suspended before the restore; the reason was lost with the newest data";

/// A leaf that restricts and is not in the copy.
pub(super) struct Restricting {
    pub log: Log,
    pub leaf: ParsedLeaf,
}

impl Restricting {
    /// Reads a journalled line.
    pub fn read(log: Log, line: &[u8]) -> Result<Self, Error> {
        Ok(Self { log, leaf: leaf::parse(line).map_err(|_| Error::DataLoss(LEDGER))? })
    }

    pub fn says(&self, name: &str) -> Option<&str> {
        self.leaf.says(name)
    }

    /// Where it stood, and who did it.
    pub fn origin(&self) -> Told {
        vec![
            ("by", self.leaf.principal.clone()),
            ("replayed", self.leaf.index.to_string()),
            ("of_incarnation", self.log.incarnation.to_string()),
        ]
    }

    pub fn unknown(&self) -> Outcome {
        Outcome::Unknown(format!(
            "the journal has leaf {} of tenant {} with action {}, which this version can't do again",
            self.leaf.index, self.log.tenant, self.leaf.action
        ))
    }
}

/// What became of one.
pub(super) enum Outcome {
    /// It holds again.
    Again,
    /// It held anyway.
    Held,
    /// What it is about came after the copy.
    NotHere,
    /// Nobody knows how: why.
    Unknown(String),
}

/// A tenant in the copy, that is not destroyed.
struct Alive {
    row: TenantRow,
    /// Its fingerprint key; `None` if its keys are destroyed, and the copy does not know it yet.
    key: Option<Arc<IndexKey>>,
    freezes: Freezes,
    version: u32,
    rules: Rules,
}

/// What was done again.
pub(super) struct Written {
    /// Its rows.
    pub mutations: Vec<Mutation>,
    /// What the logs say of it.
    pub leaves: Vec<(TenantNo, PreparedLeaf)>,
}

/// What shall be written.
pub(super) struct Plan<'a> {
    keystore: &'a Keystore,
    now: u64,
    alive: BTreeMap<TenantNo, Alive>,
    /// Those that were alive in the copy, and are destroyed.
    ended: BTreeMap<TenantNo, Rules>,
    system: Arc<IndexKey>,
    /// Leaves that the log `system` has in the copy.
    system_size: u64,
    directory: Directory,
    directory_version: u32,
    subjects: Subjects,
    mutations: Vec<Mutation>,
    leaves: Vec<(TenantNo, PreparedLeaf)>,
}

impl<'a> Plan<'a> {
    /// Nothing yet, over a copy with these tenants, logs and principals.
    pub async fn of<S: Store>(
        rows: &[TenantRow],
        lanes: &[(TenantNo, LaneHead)],
        (directory_version, directory): (u32, Directory),
        (store, keystore): (&S, &'a Keystore),
        now: u64,
    ) -> Result<Self, RestoreError> {
        let mut alive = BTreeMap::new();
        let there = rows.iter().zip(lanes).filter(|(row, _)| !directory.destroyed.contains_key(&row.name));
        for (row, (_, lane)) in there {
            let rules = Rules::from_bytes(&lane.rules).map_err(|_| Error::DataLoss("the head of a log"))?;
            let key = match keystore.index_key(row.id, IndexName::Fingerprint) {
                Ok(key) => Some(key),
                Err(KeyError::NotAllowed { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            let (version, freezes) = match &key {
                Some(key) => stored(row.number, key, store).await?,
                None => (0, Freezes::default()),
            };
            alive.insert(row.number, Alive { row: row.clone(), key, freezes, version, rules });
        }
        let system = alive.get(&SYSTEM_NO).and_then(|system| system.key.clone());
        let system = system.ok_or(Error::DataLoss("the vault's own keys"))?;
        let system_size = lanes.iter().find(|(tenant, _)| *tenant == SYSTEM_NO).map_or(0, |(_, lane)| lane.size);
        let (mutations, leaves) = (vec![], vec![]);
        Ok(Self {
            keystore,
            now,
            alive,
            ended: BTreeMap::new(),
            system,
            system_size,
            directory,
            directory_version,
            subjects: Subjects::default(),
            mutations,
            leaves,
        })
    }

    /// When it is done, in microseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether a tenant's log goes on: in the copy it had not ended.
    pub fn goes_on(&self, tenant: TenantNo) -> bool {
        self.alive.contains_key(&tenant) || self.ended.contains_key(&tenant)
    }

    /// Whether a tenant is there, and goes on being.
    pub fn lives_on(&self, tenant: TenantNo) -> bool {
        self.alive.contains_key(&tenant)
    }

    /// What came of it.
    pub fn written(self) -> Result<Written, Error> {
        self.directory.check().map_err(|_| Error::DataLoss("the enrolled officers"))?;
        let mutations = self.mutations.into_iter().chain(self.subjects.written()).collect();
        Ok(Written { mutations, leaves: self.leaves })
    }

    /// The leaf that restore writes without items.
    pub fn leaf(
        &self,
        tenant: TenantNo,
        request: &[u8; 16],
        action: &str,
        told: &Told,
    ) -> Result<Vec<(TenantNo, PreparedLeaf)>, Error> {
        let alive = self.alive.get(&tenant).map(|alive| &alive.rules);
        let rules = alive.or_else(|| self.ended.get(&tenant)).copied().unwrap_or_default();
        let request = data_encoding::HEXLOWER.encode(request);
        let noted = Noted { request: &request, principal: ROOT, action, failed: None, place: LEDGER };
        noted.leaf(tenant, (rules.policy.version, rules.schema.version, &[]), told)
    }

    /// Does one again. Whoever journals another action says here how.
    pub async fn replay<S: Store>(&mut self, one: &Restricting, store: &S) -> Result<Outcome, RestoreError> {
        if !restricts(&one.leaf, one.log.tenant) {
            // The vault journals none such.
            return Ok(one.unknown());
        }
        match one.leaf.action.as_str() {
            "freeze" | "unfreeze" | "freeze_all" | "unfreeze_all" | "suspend" | "unsuspend" => Ok(self.freezes(one)?),
            "set_key_state" | "destroy_key_version" => self.keys(one),
            "destroy_tenant" => Ok(self.destroy(one)?),
            "enrol_officer" | "remove_officer" | "break_glass" => Ok(self.principals(one)?),
            "erase_subject" | "undo_erasure" | "withdraw_consent" | "set_hold" | "lift_hold" => {
                Ok(self.subjects(one, store).await?)
            }
            _ => Ok(one.unknown()),
        }
    }

    /// What is not to come back of data subjects.
    async fn subjects<S: Store>(&mut self, one: &Restricting, store: &S) -> Result<Outcome, Error> {
        let Some(alive) = self.alive.get(&one.log.tenant) else { return Ok(Outcome::NotHere) };
        // Its keys are destroyed: nothing of anybody opens.
        let Some(key) = &alive.key else { return Ok(Outcome::Held) };
        let (outcome, leaves) = self.subjects.replay(one, (key, &alive.rules), store).await?;
        self.leaves.extend(leaves);
        Ok(outcome)
    }

    /// Another freeze or suspension, or the end of one.
    fn freezes(&mut self, one: &Restricting) -> Result<Outcome, Error> {
        let Some(alive) = self.alive.get(&one.log.tenant) else { return Ok(Outcome::NotHere) };
        let mut freezes = alive.freezes.clone();
        let since = Since { time: one.leaf.time.0, by: one.leaf.principal.clone() };
        let touches: Vec<Touch> = match one.says("what") {
            Some(what) => {
                Touch::ALL.into_iter().filter(|touch| what.split(' ').any(|word| word == touch.as_str())).collect()
            }
            None => vec![],
        };
        let scope = match (one.says("field"), one.says(FIELD_NUMBER).map(str::parse)) {
            (None, None) => Scope::Everything,
            (Some(_), Some(Ok(number))) => Scope::Field(FieldNo(number)),
            _ => return Ok(one.unknown()),
        };
        let suspended = one.says("suspended");
        let known = match (one.leaf.action.as_str(), suspended) {
            ("freeze", _) if one.says(AFTER_RESTORE).is_some() => {
                freezes.freeze_after_restore(since.time);
                true
            }
            ("freeze" | "freeze_all", _) if !touches.is_empty() => {
                freezes.freeze(scope, &touches, &since);
                true
            }
            ("unfreeze" | "unfreeze_all", _) if !touches.is_empty() => {
                freezes.unfreeze(scope, &touches);
                true
            }
            ("suspend", Some(principal)) => freezes.suspend(principal, NO_REASON, since).is_ok(),
            ("unsuspend", Some(principal)) => {
                freezes.unsuspend(principal);
                true
            }
            _ => false,
        };
        if !known {
            return Ok(one.unknown());
        }
        if freezes == alive.freezes {
            return Ok(Outcome::Held);
        }
        let named = ["field", FIELD_NUMBER, "what", "suspended", AFTER_RESTORE];
        let mut told: Told = named.into_iter().filter_map(|name| Some((name, one.says(name)?.to_owned()))).collect();
        told.extend(one.origin());
        let of_all = one.leaf.action.ends_with("_all");
        self.put_freezes(one.log.tenant, &one.leaf.action, freezes, told, of_all)?;
        Ok(Outcome::Again)
    }

    fn put_freezes(
        &mut self,
        tenant: TenantNo,
        action: &str,
        freezes: Freezes,
        mut told: Told,
        of_all: bool,
    ) -> Result<(), Error> {
        let request = keys::random::<16>()?;
        if of_all {
            // As when it was done: those of others say it, too, and have neither version nor hash.
            let others: Vec<TenantNo> = self.alive.keys().copied().filter(|other| *other != tenant).collect();
            for other in others {
                let leaf = self.leaf(other, &request, action, &told)?;
                self.leaves.extend(leaf);
            }
        }
        let alive = self.alive.get_mut(&tenant).ok_or(Error::Internal("a tenant that is not there"))?;
        // What of a tenant is stopped whose keys are destroyed nobody can ask any more.
        let Some(key) = &alive.key else { return Ok(()) };
        alive.version = alive.version.checked_add(1).ok_or(Error::Internal("too many changes of freezes"))?;
        alive.freezes = freezes;
        let body = alive.freezes.to_stored().map_err(|_| Error::Internal("freezes that are not text"))?;
        let row = Source::new(alive.version, body)?.encode(SourceKind::Freezes, key);
        told.push(("version", alive.version.to_string()));
        told.push(("sha256", data_encoding::HEXLOWER.encode(&row_hash(&row))));
        self.mutations.push(Mutation::Put(Family::Meta, place::freezes(tenant), row));
        let leaf = self.leaf(tenant, &request, action, &told)?;
        self.leaves.extend(leaf);
        Ok(())
    }

    /// Freezes all that any tenant has, until two of its officers end that.
    pub fn freeze_all_tenants(&mut self, why: &str) -> Result<(), Error> {
        let tenants: Vec<TenantNo> = self.alive.keys().copied().filter(|tenant| *tenant != SYSTEM_NO).collect();
        for tenant in tenants {
            let Some(alive) = self.alive.get(&tenant) else { continue };
            let mut freezes = alive.freezes.clone();
            freezes.freeze_after_restore(self.now);
            let told = vec![("what", "reads writes".to_owned()), (AFTER_RESTORE, why.to_owned())];
            self.put_freezes(tenant, "freeze", freezes, told, false)?;
        }
        Ok(())
    }

    /// A version of a key that may be used less, or no more. The keystore has it, if it is as new as that.
    fn keys(&self, one: &Restricting) -> Result<Outcome, RestoreError> {
        let number = self.keystore.number();
        match one.says("keystore").map(str::parse) {
            Some(Ok(known)) if known <= number => Ok(Outcome::Held),
            Some(Ok(known)) => Err(RestoreError::KeystoreOld { known, number }),
            _ => Ok(one.unknown()),
        }
    }

    /// A tenant that was destroyed.
    fn destroy(&mut self, one: &Restricting) -> Result<Outcome, Error> {
        let (Some(name), Some(id)) = (one.says("tenant"), one.says("tenant_id")) else { return Ok(one.unknown()) };
        if self.directory.destroyed.contains_key(name) {
            return Ok(Outcome::Held);
        }
        let there = self.alive.values().find(|alive| alive.row.name == name && alive.row.id.to_string() == id);
        let Some(row) = there.map(|alive| alive.row.clone()) else { return Ok(Outcome::NotHere) };
        self.end(&row, one.leaf.time.0, one.origin())?;
        Ok(Outcome::Again)
    }

    /// The keystore rules: tenants whose keys are destroyed are destroyed, whether or not the journal says so.
    pub fn destroyed_by_keystore(&mut self) -> Result<(), Error> {
        let gone = self.alive.values().filter(|alive| alive.key.is_none());
        for row in gone.map(|alive| alive.row.clone()).collect::<Vec<_>>() {
            self.end(&row, self.now, vec![])?;
        }
        Ok(())
    }

    fn end(&mut self, row: &TenantRow, decided: u64, by: Told) -> Result<(), Error> {
        let request = keys::random::<16>()?;
        let end = End::again(row, (&request, ROOT), (decided, self.now, self.system_size), self.keystore);
        self.mutations.push(end.put(&self.system)?);
        if let Some(alive) = self.alive.remove(&row.number) {
            self.ended.insert(row.number, alive.rules);
        }
        self.directory.tenants.remove(&row.name);
        self.directory.officers.retain(|(of, _), _| *of != row.number);
        self.directory.destroyed.insert(row.name.clone(), row.number);
        let action = "destroy_tenant";
        let own = vec![("tenant", row.name.clone()), ("tenant_id", row.id.to_string())];
        let last = self.leaf(row.number, &request, action, &[own.clone(), by.clone()].concat())?;
        self.leaves.extend(last);
        let told = |stage: &str| -> Told {
            let of = [("number", row.number.to_string()), ("stage", stage.to_owned())];
            own.iter().cloned().chain(of).chain(by.iter().cloned()).collect()
        };
        self.put_directory(action, &request, told("intent"))?;
        if end.destroyed().is_some() {
            let done = self.leaf(SYSTEM_NO, &request, action, &told("done"))?;
            self.leaves.extend(done);
        }
        Ok(())
    }

    /// Who is an officer, by which key, and which authorities vouch for callers.
    fn principals(&mut self, one: &Restricting) -> Result<Outcome, Error> {
        let change = one.says("change").unwrap_or(&one.leaf.action).to_owned();
        let before = (self.directory.officers.clone(), self.directory.trust_anchors.clone());
        let key = |name: &str| -> Option<[u8; 32]> {
            data_encoding::HEXLOWER.decode(one.says(name)?.as_bytes()).ok()?.try_into().ok()
        };
        let mut known: Told = vec![("change", change.clone())];
        let mut own: Option<(TenantNo, Told)> = None;
        match change.as_str() {
            "enrol_officer" | "remove_officer" => {
                let (Some(tenant), Some(officer)) = (one.says("tenant"), one.says("officer")) else {
                    return Ok(one.unknown());
                };
                let Some(number) = self.directory.tenants.get(tenant).copied() else { return Ok(Outcome::NotHere) };
                let had = self.directory.officer(number, officer).copied();
                let new = if change == "enrol_officer" { key("key") } else { None };
                match new {
                    Some(new) => {
                        // One key is one person: whoever had it before under another name has it no more.
                        let same = |of: &TenantNo, name: &String, known: &[u8; 32]| {
                            *of == number && name != officer && *known == new
                        };
                        self.directory.officers.retain(|(of, name), known| !same(of, name, known));
                        self.directory.officers.insert((number, officer.to_owned()), new);
                    }
                    None if change == "remove_officer" => {
                        self.directory.officers.remove(&(number, officer.to_owned()));
                    }
                    None => return Ok(one.unknown()),
                }
                let told = officers::told(officer, new.as_ref(), had.as_ref());
                known.insert(0, ("tenant", tenant.to_owned()));
                known.extend(told.iter().cloned());
                own = Some((number, [vec![("change", change)], told].concat()));
            }
            "add_anchor" | "remove_anchor" => {
                let Some(anchor) = key("anchor") else { return Ok(one.unknown()) };
                match change == "add_anchor" {
                    true => self.directory.trust_anchors.insert(anchor),
                    false => self.directory.trust_anchors.remove(&anchor),
                };
                known.push(("anchor", data_encoding::HEXLOWER.encode(&anchor)));
            }
            _ => return Ok(one.unknown()),
        }
        if before == (self.directory.officers.clone(), self.directory.trust_anchors.clone()) {
            return Ok(Outcome::Held);
        }
        let request = keys::random::<16>()?;
        if let Some((number, mut told)) = own {
            told.extend(one.origin());
            let leaf = self.leaf(number, &request, "break_glass", &told)?;
            self.leaves.extend(leaf);
        }
        known.extend(one.origin());
        // The leaf of what the root key changes: nobody has approved it a second time.
        self.put_directory("break_glass", &request, known)?;
        Ok(Outcome::Again)
    }

    fn put_directory(&mut self, action: &str, request: &[u8; 16], mut told: Told) -> Result<(), Error> {
        let version = self.directory_version.checked_add(1);
        self.directory_version = version.ok_or(Error::Internal("too many changes of the directory"))?;
        let source = Source::new(self.directory_version, self.directory.to_stored())?;
        let row = source.encode(SourceKind::Principals, &self.system);
        told.push(("principals_version", self.directory_version.to_string()));
        told.push(("principals_sha256", data_encoding::HEXLOWER.encode(&row_hash(&row))));
        self.mutations.push(Mutation::Put(Family::Meta, place::principals(), row));
        let leaf = self.leaf(SYSTEM_NO, request, action, &told)?;
        self.leaves.extend(leaf);
        Ok(())
    }
}

async fn stored<S: Store>(number: TenantNo, key: &IndexKey, store: &S) -> Result<(u32, Freezes), Error> {
    let Some(row) = store.get(Family::Meta, place::freezes(number)).await? else { return Ok((0, Freezes::default())) };
    freezes::read(&row, key)
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::RESTRICTING;

    /// Those whose leaves say enough to be done again here.
    const KNOWN: [&str; 17] = [
        "freeze",
        "unfreeze",
        "freeze_all",
        "unfreeze_all",
        "suspend",
        "unsuspend",
        "set_key_state",
        "destroy_key_version",
        "destroy_tenant",
        "enrol_officer",
        "remove_officer",
        "break_glass",
        "erase_subject",
        "undo_erasure",
        "withdraw_consent",
        "set_hold",
        "lift_hold",
    ];

    #[test]
    fn each_action_that_is_journalled_can_be_done_again() {
        let mut all = KNOWN.to_vec();
        let mut journalled = RESTRICTING.to_vec();
        all.sort_unstable();
        journalled.sort_unstable();
        assert_eq!(all, journalled);
    }
}
