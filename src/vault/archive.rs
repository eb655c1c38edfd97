//! Archives: leaves that are old enough leave the store, once somebody has them elsewhere.
//!
//! ```text
//! an export with proofs of [archived, end) -> a manifest that this vault signed -> Archive: an intent
//! intent -> leaves are summed up to a state (`finish.rs`) -> a leaf that says the state's digest -> leaves go
//! ```
//!
//! The vault sends leaves and signs what it sent; the caller writes them down, reads them back, and brings the manifest. So
//! nothing goes but what was sent whole. The hashes over the leaves stay, as tiles: an archived leaf is proven by them against
//! every later head. And the state stays, by which verification goes on without the leaves (`verify/state.rs`).

mod finish;
pub(crate) mod held;

use data_encoding::HEXLOWER;
use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::TenantNo;
use strongroom_keys::IndexKey;
use strongroom_ledger::filter::time_of;
use strongroom_ledger::leaf::ParsedLeaf;
use strongroom_ledger::{Timestamp, manifest, summary};
use strongroom_storage::rows::{ArchiveIntent, ArchiveRow, BLOCK};
use strongroom_storage::{Family, Mutation, Store};

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::leaves;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenant::Rules;
use crate::values::sha256;
use crate::vault::Vault;
use crate::verify::state::StateDigest;
pub(crate) use finish::Archiving;

/// A day, in microseconds.
const DAY: u64 = 24 * 3_600 * 1_000_000;
/// For how long leaves are kept at the least unless whoever opened the vault says otherwise, in microseconds: three years, and a
/// day for a leap year.
const KEPT: u64 = (3 * 365 + 1) * DAY;
/// How old a manifest may be, in days: what somebody exported long ago may be lost since.
const MANIFEST_DAYS: u64 = 7;
/// Bytes of the words for where an archive is.
const PLACE: usize = 256;
/// What is damaged, if a leaf can't be read.
const UNREADABLE: Error = Error::DataLoss("the ledger: a leaf can't be read");

/// Has leaves leave the store that somebody has.
pub struct Archive {
    /// What the vault signed of an export of just these leaves.
    pub manifest: String,
    /// Where they are, in the caller's words.
    pub place: String,
}

/// Asks what is archived of a log, and how much could be.
#[derive(Default)]
pub struct GetArchive {
    /// Only leaves that were committed before this, in microseconds since 1970; none for all that are old enough.
    pub before: Option<u64>,
    /// Which log, as for [`crate::Export`].
    pub log: String,
}

/// What is archived of a log.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ArchivedLeaves {
    /// Leaves before this one are archived.
    pub end: u64,
    /// When the last of them was committed, in microseconds since 1970; 0 if there are none.
    pub time: u64,
    /// Where the newest archive is, as its caller said.
    pub place: String,
    /// SHA-256 of its manifest; none if nothing is archived.
    pub manifest: Option<[u8; 32]>,
    /// Up to which leaf an archive is decided that is not yet made; none if none is.
    pub decided: Option<u64>,
    /// Whether archived leaves are still to be removed.
    pub removing: bool,
    /// Leaves before this one could be archived.
    pub could_end: u64,
}

/// The state that a leaf says the log has with so many leaves, if it says that they are archived.
pub(crate) fn said_state(leaf: &ParsedLeaf, end: u64) -> Option<StateDigest> {
    let is_said = leaf.action == Action::ArchiveLedger.as_str()
        && leaf.decision == "allow"
        && leaf.says("stage") == Some("done")
        && leaf.says("end") == Some(end.to_string().as_str());
    let sha256 = HEXLOWER.decode(leaf.says("state_sha256").filter(|_| is_said)?.as_bytes()).ok()?;
    Some(StateDigest { lines: leaf.says("state_lines")?.parse().ok()?, sha256: sha256.try_into().ok()? })
}

/// Whether a leaf says that this archive is decided.
fn is_decided_by(leaf: &ParsedLeaf, intent: &ArchiveIntent) -> bool {
    let says = |name, value: &str| leaf.says(name) == Some(value);
    leaf.action == Action::ArchiveLedger.as_str()
        && leaf.decision == "allow"
        && leaf.request == intent.request
        && says("stage", "intent")
        && says("end", &intent.end.to_string())
        && says("manifest", &HEXLOWER.encode(&intent.manifest))
}

/// Puts the row of what is archived, with what nobody without keys can say of it: by this row leaves go.
fn put(log: TenantNo, row: &ArchiveRow, key: &IndexKey) -> Mutation {
    let row = ArchiveRow { mac: held::mac(log, row, key), ..row.clone() };
    Mutation::Put(Family::Archived, strongroom_storage::keys::archived(log), row.encode())
}

fn refused(why: impl Into<String>) -> Error {
    Error::ArchiveRefused(why.into())
}

/// An archive that a caller brings the manifest of.
struct Plan {
    first: u64,
    end: u64,
    manifest: [u8; 32],
    lines: [u8; 32],
    /// Whether it is decided already, or done.
    decided: bool,
}

/// Asks whether an archive may be made at all, before others are asked to approve it.
struct MayArchive<'r>(&'r Archive);

impl<S: Store> Attempt<S> for MayArchive<'_> {
    type Answer = Plan;
    const ACTION: Action = Action::ArchiveLedger;
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        let claimed = manifest::claimed(&self.0.manifest).ok()?;
        Some(asked(self.0, claimed.first, claimed.end))
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Plan>, Refused> {
        road.decide_with_others()?;
        let plan = road.plan(self.0).await?;
        let mut prepared = road.prepare(());
        prepared.detail.push(("stage", "asked".to_owned()));
        prepared.detail.extend(told(self.0, &plan));
        Ok(prepared.answering(|()| plan))
    }
}

/// Decides it.
struct Decide<'r> {
    request: &'r Archive,
    plan: Plan,
}

impl<S: Store> Attempt<S> for Decide<'_> {
    type Answer = ();
    const ACTION: Action = Action::ArchiveLedger;
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules))
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        road.decide_with_others()?;
        let plan = road.plan(self.request).await?;
        let given = road.decide_approved(self).await?;
        let mut prepared = road.prepare(());
        prepared.detail.push(("stage", "intent".to_owned()));
        prepared.detail.extend(told(self.request, &plan));
        if !plan.decided {
            let (store, log) = (&*road.vault.store, road.tenant.number);
            let mut row = held::proven(store, log, &road.tenant.fingerprints).await?.unwrap_or_default();
            row.intent = Some(ArchiveIntent {
                end: plan.end,
                said_from: road.vault.committer.head(log).map_or(0, |head| head.size),
                request: road.request,
                principal: road.caller.principal.name.to_string(),
                place: self.request.place.clone(),
                manifest: plan.manifest,
                lines: plan.lines,
            });
            let fact = Fact::archive(log);
            prepared.guards.push(Guard::Unchanged(fact));
            prepared.changes.push(fact);
            prepared.mutations.push(put(log, &row, &road.tenant.fingerprints));
        }
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }
}

impl<S: Store> Approvable<S> for Decide<'_> {
    fn asked(&self, _rules: &Rules) -> Asked {
        asked(self.request, self.plan.first, self.plan.end)
    }
}

fn asked(request: &Archive, first: u64, end: u64) -> Asked {
    let manifest = HEXLOWER.encode(&sha256(request.manifest.as_bytes()));
    let parts = vec![request.manifest.clone().into_bytes(), request.place.clone().into_bytes()];
    let summary = summary::archive_ledger(&first.to_string(), &end.to_string(), &manifest, &request.place);
    Asked { parts, summary }
}

fn told(request: &Archive, plan: &Plan) -> Vec<(&'static str, String)> {
    vec![
        ("first", plan.first.to_string()),
        ("end", plan.end.to_string()),
        ("manifest", HEXLOWER.encode(&plan.manifest)),
        ("place", request.place.clone()),
    ]
}

/// Whether it says in a line where something is.
fn is_place(place: &str) -> bool {
    (1..=PLACE).contains(&place.len()) && place.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

impl<S: Store> Road<'_, S> {
    /// What a manifest is of, if the leaves that it names may go.
    async fn plan(&self, request: &Archive) -> Result<Plan, Error> {
        if !is_place(&request.place) {
            let description = "say in 1 to 256 printable ASCII characters where the archive is";
            return Err(Error::invalid("place", "place", description));
        }
        let log = self.tenant.number;
        let (head, tree) = self.vault.signed_head(log).await?;
        let keys: Vec<&str> = head.keys.iter().map(String::as_str).collect();
        let said = manifest::verify(&request.manifest, &keys).map_err(|error| {
            Error::invalid("manifest", "not_signed", format!("it is not one that this ledger's key signed: {error}"))
        })?;
        let origin = head.verify(&head.note).map_err(|_| Error::Internal("a head that does not hold"))?.origin;
        let row = held::row(&*self.vault.store, log).await?.unwrap_or_default();
        let manifest = sha256(request.manifest.as_bytes());
        let plan = |decided| Plan { first: said.first, end: said.end, manifest, lines: said.sha256, decided };
        let is_decided = row.intent.as_ref().is_some_and(|intent| intent.manifest == manifest);
        if is_decided || (row.end > 0 && row.manifest == manifest) {
            return Ok(plan(true));
        }
        let wrong = |what: String| Err(Error::invalid("manifest", "not_archivable", what));
        let (first, end) = (row.end, said.end);
        if said.log.origin != origin || !said.filter.is_empty() || said.lines != said.end.saturating_sub(said.first) {
            return wrong("it must be of all leaves of a range of this tenant's ledger, without a filter".to_owned());
        }
        if said.first != first || end <= first || !end.is_multiple_of(BLOCK) || end >= tree.size {
            return wrong(format!(
                "it is of the leaves from {} to {end}: an archive begins at leaf {first}, and ends at a multiple of {BLOCK} \
                 before the end of the ledger",
                said.first
            ));
        }
        if self.now.saturating_sub(said.time.0) > MANIFEST_DAYS * DAY {
            return Err(refused(format!(
                "the manifest is of {}: an archive is decided within {MANIFEST_DAYS} days after it was made; export the leaves again",
                said.time
            )));
        }
        if row.intent.is_some() || (row.end > 0 && !row.removed) {
            return Err(refused("another archive is being made: wait until its leaves are removed, then try again"));
        }
        let could_end = self.vault.archivable(log, first, None).await?;
        if end > could_end {
            let days = self.vault.kept_for() / DAY;
            return Err(refused(format!(
                "leaves are kept for {days} days ([ledger] keep_days): those from {could_end} on are younger, or were \
                 committed with one that is"
            )));
        }
        Ok(plan(false))
    }
}

/// What is archived of a log, on the road.
struct SeeArchive<'r>(&'r GetArchive);

impl<S: Store> Attempt<S> for SeeArchive<'_> {
    type Answer = TenantNo;
    const ACTION: Action = Action::ExportLedger;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantNo>, Refused> {
        road.decide_vault()?;
        let log = road.log(&self.0.log)?;
        let mut prepared = road.prepare(log);
        prepared.detail.push(("asked", "archive".to_owned()));
        prepared.detail.extend((log != road.tenant.number).then(|| ("log", self.0.log.clone())));
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Says for how long leaves are kept at the least before they may be archived, in microseconds. Once.
    pub fn keep_leaves(&self, microseconds: u64) {
        // Whoever opens a vault says it before it serves, and nobody else does.
        let _ = self.kept.set(microseconds);
    }

    fn kept_for(&self) -> u64 {
        self.kept.get().copied().unwrap_or(KEPT)
    }

    /// Decides that leaves which the caller has leave the store. They do so in the background. What was decided already is not
    /// decided again.
    pub async fn archive(&self, caller: &Caller, request: &Archive) -> Result<(), Error> {
        let plan = self.travel(caller, &MayArchive(request)).await?;
        if !plan.decided {
            let decide = Decide { request, plan };
            self.approved(caller, &decide).await?;
            self.travel(caller, &decide).await?;
        }
        self.archiving.due.notify_one();
        Ok(())
    }

    /// What is archived of a log, and how much could be.
    pub async fn get_archive(&self, caller: &Caller, request: &GetArchive) -> Result<ArchivedLeaves, Error> {
        let log = self.travel(caller, &SeeArchive(request)).await?;
        let row = held::row(&*self.store, log).await?.unwrap_or_default();
        let could_end = self.archivable(log, row.end, request.before.map(Timestamp)).await?;
        Ok(ArchivedLeaves {
            end: row.end,
            time: row.time,
            manifest: (row.end > 0).then_some(row.manifest),
            decided: row.intent.as_ref().map(|intent| intent.end),
            removing: row.end > 0 && !row.removed,
            place: row.place,
            could_end,
        })
    }

    /// Up to where leaves from `first` on are old enough to be archived, and were committed before a time: whole blocks, and
    /// all that was committed at one time together, so that no request's parts come apart.
    async fn archivable(&self, log: TenantNo, first: u64, before: Option<Timestamp>) -> Result<u64, Error> {
        let size = self.committer.head(log).map_or(0, |head| head.size);
        let old = Timestamp(self.now().saturating_sub(self.kept_for()));
        let before = before.map_or(old, |before| before.min(old));
        let end = self.first_since(log, (first, size), before).await?;
        let mut end = end - end % BLOCK;
        while end > first && (end == size || self.time_at(log, end - 1).await? == self.time_at(log, end).await?) {
            end -= BLOCK;
        }
        Ok(end.max(first))
    }

    async fn time_at(&self, log: TenantNo, index: u64) -> Result<Timestamp, Error> {
        time_of(&leaves::one(&*self.store, log, index).await?).ok_or(UNREADABLE)
    }
}
