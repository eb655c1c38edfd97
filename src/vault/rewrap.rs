//! Rewrap: DEKs that an older version of their KEK wraps are wrapped by the newest. No value is touched.
//!
//! The job goes through the subjects' records, then through the DEKs beside values without subject.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, KeyVersion, KeyringNo, SubjectHandle, TenantNo};
use strongroom_keys::{DekOwner, DekPlace, Kek, KeyError, KeyName};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{JobKind, JobRow, JobState, RowDek, SubjectRecord};
use strongroom_storage::{Entry, Family, Mutation, Store};

use crate::error::Error;
use crate::jobs::{self, Count, EMPTY_PAGES, JobPage, PageDone};
use crate::road::{Attempt, Prepared, Refused, Road};
use crate::tenant::Tenant;
use crate::vault::Vault;

/// What kind of job it is.
const KIND: JobKind = JobKind::Rewrap;

/// The families that it goes through.
const STAGES: [Family; 2] = [Family::Subjects, Family::RowDeks];

/// Starts a rewrap.
pub struct StartRewrap {
    /// The KEK whose DEKs it is about, `kek/1`; empty for all.
    pub name: String,
}

impl<S: Store> Attempt<S> for StartRewrap {
    type Answer = JobRow;
    const ACTION: Action = Action::Rewrap;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        road.decide_vault()?;
        let keyring = jobs::keyring(road, &self.name)?;
        let mut prepared = jobs::prepare(road, KIND, jobs::next(road, KIND, keyring).await?);
        prepared.guards.extend(road.rules_unchanged());
        prepared.detail.push(("key", if self.name.is_empty() { "all".to_owned() } else { self.name.clone() }));
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell_started(tenant.number, KIND, answer);
    }
}

/// The next page of a rewrap.
pub(crate) struct RewrapPage(pub JobPage);

/// An entry with DEKs that an older version may wrap.
enum Holder {
    Subject(SubjectRecord),
    Row(strongroom_ids::RowId, RowDek),
}

/// A DEK that is wrapped: its keyring, its version, that of its KEK, and the blob.
type Wrapped<'w> = (KeyringNo, DekVersion, &'w mut KeyVersion, &'w mut Vec<u8>);

impl Holder {
    fn decode(family: Family, (key, row): &Entry) -> Result<Self, Error> {
        Ok(match family {
            Family::Subjects => Self::Subject(SubjectRecord::decode(row)?),
            _ => Self::Row(place::decode_row(key)?, RowDek::decode(row)?),
        })
    }

    fn owner(&self) -> DekOwner {
        match self {
            Self::Subject(record) => DekOwner::Subject(record.handle),
            Self::Row(row, _) => DekOwner::Value(*row),
        }
    }

    /// The keyrings of the DEKs that are to be wrapped anew.
    fn due<S: Store>(&self, newest: &Newest<'_, S>) -> Vec<KeyringNo> {
        let due = |keyring: KeyringNo, kek: KeyVersion| newest.is_due(keyring, kek).then_some(keyring);
        match self {
            Self::Subject(record) => record.deks.iter().filter_map(|dek| due(dek.keyring, dek.kek_version)).collect(),
            Self::Row(_, dek) => due(dek.keyring, dek.kek_version).into_iter().collect(),
        }
    }

    fn deks(&mut self) -> Vec<Wrapped<'_>> {
        match self {
            Self::Subject(record) => {
                let deks = record.deks.iter_mut();
                deks.map(|dek| (dek.keyring, dek.version, &mut dek.kek_version, &mut dek.blob)).collect()
            }
            Self::Row(_, dek) => vec![(dek.keyring, dek.version, &mut dek.kek_version, &mut dek.blob)],
        }
    }

    /// What its commit guards, changes and writes.
    fn write<A>(&self, tenant: TenantNo, prepared: &mut Prepared<A>) {
        match self {
            Self::Subject(record) => {
                let of = |fact: fn(TenantNo, SubjectHandle) -> Fact| fact(tenant, record.handle);
                // The record is written as a whole, so nothing of it may have changed.
                let facts = [of(Fact::subject_state), of(Fact::subject_keys), of(Fact::subject_consents)];
                prepared.guards.extend(facts.map(Guard::Unchanged));
                prepared.changes.push(of(Fact::subject_keys));
                let key = place::subject(tenant, record.handle);
                prepared.mutations.push(Mutation::Put(Family::Subjects, key, record.encode()));
            }
            Self::Row(row, dek) => {
                // Whoever reads the value meanwhile has a DEK that opens it all the same, so nothing changes for them.
                prepared.guards.push(Guard::Unchanged(Fact::row(tenant, *row)));
                let key = place::row_dek(tenant, *row);
                prepared.mutations.push(Mutation::Put(Family::RowDeks, key, dek.encode()));
            }
        }
    }
}

/// The newest KEK of each keyring that a job is about; none where it may not wrap.
struct Newest<'a, S: Store> {
    vault: &'a Vault<S>,
    tenant: &'a Tenant,
    only: Option<KeyringNo>,
    known: HashMap<KeyringNo, Option<Arc<Kek>>>,
}

impl<'a, S: Store> Newest<'a, S> {
    fn new(vault: &'a Vault<S>, tenant: &'a Tenant, only: Option<KeyringNo>) -> Self {
        Self { vault, tenant, only, known: HashMap::new() }
    }

    /// Whether a DEK is to be wrapped anew: it is the job's, and its KEK's version is not the newest.
    fn is_due(&self, keyring: KeyringNo, version: KeyVersion) -> bool {
        let name = KeyName::Kek(self.tenant.id, keyring);
        self.only.is_none_or(|only| only == keyring)
            && self.vault.keystore.newest_version(name).is_some_and(|newest| newest != version)
    }

    fn kek(&mut self, keyring: KeyringNo) -> Option<Arc<Kek>> {
        let find = || self.vault.keystore.kek(self.tenant.id, keyring).ok();
        self.known.entry(keyring).or_insert_with(find).clone()
    }
}

impl<S: Store> Attempt<S> for RewrapPage {
    type Answer = JobRow;
    const ACTION: Action = Action::Rewrap;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        let mut row = jobs::running(road, KIND, self.0.number).await?;
        let mut newest = Newest::new(road.vault, road.tenant, row.keyring);
        let holders = self.next_due(road, &mut row, &newest).await?;
        let due = holders.iter().map(|(_, due)| due.len() as u64).sum::<u64>();
        jobs::allow_seals(road, holders.iter().flat_map(|(_, due)| due.iter().copied())).await?;
        let mut written = Vec::with_capacity(holders.len());
        let mut deks = 0;
        for (mut holder, _) in holders {
            let wrapped = rewrap(road, &mut holder, &mut newest)?;
            if wrapped > 0 {
                deks += wrapped;
                written.push(holder);
            }
        }
        let done = PageDone { done: deks, skipped: due - deks, moved: deks > 0 };
        let mut prepared = jobs::prepare_page(road, &self.0, row, done);
        for holder in &written {
            holder.write(road.tenant.number, &mut prepared);
        }
        prepared.detail.push(("deks", deks.to_string()));
        Ok(jobs::tell_how_far(KIND, prepared))
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell(tenant.number, KIND, answer);
    }
}

impl RewrapPage {
    /// The holders of a page that have DEKs to be wrapped anew, and the keyrings of those. Moves the job on behind them,
    /// and to its end if nothing is left.
    async fn next_due<S: Store>(
        &self,
        road: &Road<'_, S>,
        row: &mut JobRow,
        newest: &Newest<'_, S>,
    ) -> Result<Vec<(Holder, Vec<KeyringNo>)>, Error> {
        for _ in 0..EMPTY_PAGES {
            let place = (&mut row.stage, &mut row.cursor);
            let Some((family, page)) =
                jobs::next_page(road.vault, road.tenant.number, &STAGES, place, self.0.entries).await?
            else {
                row.state = JobState::Done;
                return Ok(vec![]);
            };
            let mut due = Vec::new();
            for entry in &page {
                let Ok(holder) = Holder::decode(family, entry) else {
                    // The others shall not wait for what can't be read.
                    road.vault.damaged("a wrapped DEK");
                    continue;
                };
                let keyrings = holder.due(newest);
                if !keyrings.is_empty() {
                    due.push((holder, keyrings));
                }
            }
            if !due.is_empty() {
                return Ok(due);
            }
        }
        Ok(vec![])
    }
}

/// Wraps anew what can be, and says how many that are. A version that is disabled or destroyed opens nothing.
fn rewrap<S: Store>(road: &Road<'_, S>, holder: &mut Holder, newest: &mut Newest<'_, S>) -> Result<u64, Error> {
    let (tenant, owner) = (road.tenant.id, holder.owner());
    let mut wrapped = 0;
    for (keyring, version, kek_version, blob) in holder.deks() {
        if !newest.is_due(keyring, *kek_version) {
            continue;
        }
        let Some(kek) = newest.kek(keyring) else { continue };
        let older = match road.vault.keystore.kek_version(tenant, keyring, *kek_version) {
            Ok(older) => older,
            Err(KeyError::NotAllowed { .. } | KeyError::MissingVersion { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        match kek.rewrap(&older, &DekPlace { tenant, keyring, owner, version }, blob) {
            Ok(anew) => *blob = anew,
            // It opens nothing any more: the others shall not wait for it.
            Err(KeyError::CannotOpen) => {
                road.vault.damaged("a wrapped DEK");
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        *kek_version = kek.version();
        wrapped += 1;
    }
    Ok(wrapped)
}

/// Counts, in the next so many entries, the DEKs that a rewrap has to wrap anew. `false`: all are counted.
pub(crate) async fn count<S: Store>(
    vault: &Vault<S>,
    tenant: TenantNo,
    so_far: &mut Count,
    entries: usize,
) -> Result<bool, Error> {
    let only = jobs::load(&*vault.store, tenant, KIND).await?.and_then(|row| row.keyring);
    let its = vault.tenant(tenant)?;
    let newest = Newest::new(vault, &its, only);
    let place = (&mut so_far.stage, &mut so_far.cursor);
    let Some((family, page)) = jobs::next_page(vault, tenant, &STAGES, place, entries).await? else { return Ok(false) };
    for entry in &page {
        let Ok(holder) = Holder::decode(family, entry) else { continue };
        so_far.due += holder.due(&newest).len() as u64;
    }
    Ok(true)
}
