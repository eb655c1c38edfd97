//! Rewrap: DEKs that an older version of their KEK wraps are wrapped by the newest. No value is touched.
//!
//! The job goes through the subjects' records, then through the DEKs beside values without subject, a page a commit. How
//! far it has come is written in the same commit, so that it goes on after a crash where it was, and its figures are
//! exact. Each page takes the road like any request, as the vault itself, and nothing is released to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_access::{Action, Principal, Role};
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, KeyVersion, KeyringNo, SubjectHandle, TenantNo};
use strongroom_keys::{DekOwner, DekPlace, Kek, KeyError, KeyName};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{JobKind, JobRow, JobState, RowDek, SubjectRecord};
use strongroom_storage::{Entry, Family, Mutation, Store};
use tokio::sync::{Notify, watch};

use crate::error::Error;
use crate::pages::Pages;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenant::Tenant;
use crate::vault::Vault;

/// What the job is called, before its number.
const NAME: &str = "rewrap";
/// The families that it goes through.
const STAGES: [Family; 2] = [Family::Subjects, Family::RowDeks];
/// Pages with nothing to do that are passed over before the next commit.
const EMPTY_PAGES: usize = 16;

/// How far a job has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// `rewrap/7`.
    pub name: String,
    /// `running`, `done` or `cancelled`.
    pub state: &'static str,
    /// Who started it.
    pub principal: String,
    /// When, in microseconds since 1970.
    pub started: u64,
    /// When it last came further, or ended.
    pub updated: u64,
    /// When a rewrap last found a DEK to wrap anew; 0: never.
    pub moved: u64,
    /// DEKs that an older version wrapped when it began; 0 until they are counted.
    pub total: u64,
    /// DEKs that it has wrapped anew.
    pub done: u64,
    /// DEKs that it had to leave as they are.
    pub skipped: u64,
    /// The KEK that it is about; empty for all.
    pub key: String,
}

impl Job {
    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    fn of(row: &JobRow) -> Self {
        Self {
            name: name(row.number),
            state: match row.state {
                JobState::Running => "running",
                JobState::Done => "done",
                JobState::Cancelled => "cancelled",
            },
            principal: row.principal.clone(),
            started: row.started,
            updated: row.updated,
            moved: row.moved,
            total: row.total,
            done: row.done,
            skipped: row.skipped,
            key: row.keyring.map_or_else(String::new, |keyring| format!("kek/{keyring}")),
        }
    }
}

fn name(number: u32) -> String {
    format!("{NAME}/{number}")
}

/// The jobs of a vault that runs, for who does them and who watches them.
#[derive(Default)]
pub(crate) struct Jobs {
    rows: Mutex<HashMap<TenantNo, watch::Sender<Option<Job>>>>,
    /// Woken when a job was started.
    started: Notify,
}

impl Jobs {
    fn sender(&self, tenant: TenantNo) -> watch::Sender<Option<Job>> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry(tenant).or_insert_with(|| watch::Sender::new(None)).clone()
    }

    /// Tells how far a job has come.
    fn tell(&self, tenant: TenantNo, row: &JobRow) {
        self.sender(tenant).send_replace(Some(Job::of(row)));
    }
}

async fn load<S: Store>(store: &S, tenant: TenantNo) -> Result<Option<JobRow>, Error> {
    let row = store.get(Family::Meta, place::job(tenant, JobKind::Rewrap)).await?;
    Ok(row.as_deref().map(JobRow::decode).transpose()?)
}

/// What commits that a job has come to this point.
fn prepare<S: Store>(road: &Road<'_, S>, row: JobRow) -> Prepared<JobRow> {
    let fact = Fact::job(road.tenant.number, JobKind::Rewrap.number());
    let key = place::job(road.tenant.number, JobKind::Rewrap);
    let mutation = Mutation::Put(Family::Meta, key, row.encode());
    let mut prepared = Prepared::new(row);
    prepared.guards.push(Guard::Unchanged(fact));
    prepared.changes.push(fact);
    prepared.mutations.push(mutation);
    prepared.detail.push(("job", name(prepared.answer.number)));
    prepared
}

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
        let keyring = match self.name.is_empty() {
            true => None,
            false => match road.key(&self.name)? {
                (KeyName::Kek(_, keyring), _) => Some(keyring),
                _ => return Err(Error::invalid("name", "no_kek", "only KEKs wrap DEKs: kek/1").into()),
            },
        };
        let before = load(&*road.vault.store, road.tenant.number).await?;
        if let Some(running) = before.as_ref().filter(|row| row.state == JobState::Running) {
            return Err(Error::JobRunning(name(running.number)).into());
        }
        let (number, moved) = before.map_or((0, 0), |row| (row.number, row.moved));
        let number = number.checked_add(1).ok_or(Error::Internal("too many jobs"))?;
        let mut prepared = prepare(
            road,
            JobRow {
                number,
                state: JobState::Running,
                keyring,
                principal: road.caller.principal.name.to_string(),
                started: road.now,
                updated: road.now,
                moved,
                total: 0,
                done: 0,
                skipped: 0,
                stage: 0,
                cursor: vec![],
            },
        );
        prepared.guards.extend(road.rules_unchanged());
        prepared.detail.push(("key", if self.name.is_empty() { "all".to_owned() } else { self.name.clone() }));
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell(tenant.number, answer);
        vault.jobs.started.notify_one();
    }
}

/// The job that a name means.
async fn named<S: Store>(road: &Road<'_, S>, name: &str) -> Result<JobRow, Error> {
    let row = load(&*road.vault.store, road.tenant.number).await?;
    let meant = row.filter(|row| name == NAME || name == self::name(row.number));
    // What a caller sent is not repeated unless it could be a job's name.
    let could_be = name
        .strip_prefix("rewrap/")
        .and_then(|number| number.parse().ok())
        .is_some_and(|number| name == self::name(number));
    meant.ok_or_else(|| Error::JobUnknown(if could_be { name } else { "of that name" }.to_owned()))
}

/// Asks how far a job has come.
pub struct GetJob {
    /// `rewrap/7`, or `rewrap` for the newest.
    pub name: String,
}

impl<S: Store> Attempt<S> for GetJob {
    type Answer = Job;
    const ACTION: Action = Action::GetJob;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Job>, Refused> {
        road.decide_vault()?;
        let row = named(road, &self.name).await?;
        let mut prepared = Prepared::new(Job::of(&row));
        prepared.guards.extend(road.rules_unchanged());
        prepared.detail.push(("job", name(row.number)));
        Ok(prepared)
    }
}

/// Ends a job.
pub struct CancelJob {
    /// `rewrap/7`, or `rewrap` for the newest.
    pub name: String,
}

impl<S: Store> Attempt<S> for CancelJob {
    type Answer = JobRow;
    const ACTION: Action = Action::CancelJob;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        road.decide_vault()?;
        let row = named(road, &self.name).await?;
        if row.state != JobState::Running {
            return Err(Error::JobEnded(name(row.number)).into());
        }
        let mut prepared = prepare(road, JobRow { state: JobState::Cancelled, updated: road.now, ..row });
        prepared.guards.extend(road.rules_unchanged());
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell(tenant.number, answer);
    }
}

/// The next page of a rewrap.
pub struct RewrapPage {
    /// The job's number: another one's page is not done.
    pub number: u32,
    /// Entries that a page has at most.
    pub entries: usize,
    /// What there is to do, once it is counted.
    pub total: Option<u64>,
}

/// How much of what there is to do was counted.
#[derive(Default)]
pub struct Count {
    /// DEKs to be wrapped anew.
    pub deks: u64,
    stage: u8,
    cursor: Vec<u8>,
}

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
        let running = load(&*road.vault.store, road.tenant.number).await?;
        let running = running.filter(|row| row.state == JobState::Running && row.number == self.number);
        let mut row = running.ok_or_else(|| Error::JobEnded(name(self.number)))?;
        let mut newest = Newest::new(road.vault, road.tenant, row.keyring);
        let holders = self.next_due(road, &mut row, &newest).await?;
        let due = holders.iter().map(|(_, due)| due.len() as u64).sum::<u64>();
        allow_seals(road, holders.iter().flat_map(|(_, due)| due)).await?;
        let mut written = Vec::with_capacity(holders.len());
        let mut deks = 0;
        for (mut holder, _) in holders {
            let wrapped = rewrap(road, &mut holder, &mut newest)?;
            if wrapped > 0 {
                deks += wrapped;
                written.push(holder);
            }
        }
        row.done += deks;
        row.skipped += due - deks;
        row.total = self.total.unwrap_or(row.total);
        row.updated = road.now;
        row.moved = if deks > 0 { road.now } else { row.moved };
        let mut prepared = prepare(road, row);
        for holder in &written {
            holder.write(road.tenant.number, &mut prepared);
        }
        prepared.guards.push(Guard::Unchanged(Fact::key_states(road.tenant.number)));
        prepared.detail.push(("deks", deks.to_string()));
        prepared.detail.push(("done", prepared.answer.done.to_string()));
        prepared.detail.push(("job_state", Job::of(&prepared.answer).state.to_owned()));
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell(tenant.number, answer);
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
            let Some((family, page)) = next_page(road.vault, road.tenant.number, place, self.entries).await? else {
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

/// The next entries of a job that is at a stage and a cursor, and moves it on behind them; none at its end.
async fn next_page<S: Store>(
    vault: &Vault<S>,
    tenant: TenantNo,
    (stage, cursor): (&mut u8, &mut Vec<u8>),
    entries: usize,
) -> Result<Option<(Family, Vec<Entry>)>, Error> {
    let Some(family) = STAGES.get(usize::from(*stage)).copied() else { return Ok(None) };
    let mut pages = Pages::of_tenant(family, tenant).of(entries).going_on(cursor);
    let page = pages.next(&*vault.store).await?;
    match &page {
        Some(_) => *cursor = pages.cursor(),
        None => (*stage, *cursor) = (*stage + 1, vec![]),
    }
    Ok(Some((family, page.unwrap_or_default())))
}

/// Counts what the newest KEKs of these keyrings are about to seal, once for each mention.
async fn allow_seals<S: Store>(road: &Road<'_, S>, keyrings: impl Iterator<Item = &KeyringNo>) -> Result<(), Error> {
    let mut seals: HashMap<KeyringNo, usize> = HashMap::new();
    for keyring in keyrings {
        *seals.entry(*keyring).or_insert(0) += 1;
    }
    for (keyring, count) in seals {
        match road.tenant.allow_seals(road.vault, keyring, count).await {
            // A keyring whose newest KEK is disabled is left as it is.
            Ok(()) | Err(Error::KeyUnavailable(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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

impl<S: Store> Vault<S> {
    /// Starts a rewrap.
    pub async fn start_rewrap(&self, caller: &Caller, request: &StartRewrap) -> Result<Job, Error> {
        Ok(Job::of(&self.travel(caller, request).await?))
    }

    /// How far a job has come.
    pub async fn get_job(&self, caller: &Caller, request: &GetJob) -> Result<Job, Error> {
        self.travel(caller, request).await
    }

    /// The same, with what comes after: it is told whenever the job comes further.
    pub async fn watch_job(
        &self,
        caller: &Caller,
        request: &GetJob,
    ) -> Result<(Job, watch::Receiver<Option<Job>>), Error> {
        // Listened to first, so that nothing is missed.
        let after = self.jobs.sender(caller.principal.tenant).subscribe();
        Ok((self.get_job(caller, request).await?, after))
    }

    /// Ends a job.
    pub async fn cancel_job(&self, caller: &Caller, request: &CancelJob) -> Result<Job, Error> {
        Ok(Job::of(&self.travel(caller, request).await?))
    }

    /// The rewraps that are to go on, by tenant: their number, and whether it was counted what there is to do.
    pub async fn running_rewraps(&self) -> Result<Vec<(TenantNo, u32, bool)>, Error> {
        let mut running = Vec::new();
        for tenant in self.tenants.numbers() {
            let row = load(&*self.store, tenant).await?.filter(|row| row.state == JobState::Running);
            running.extend(row.map(|row| (tenant, row.number, row.stage > 0 || !row.cursor.is_empty())));
        }
        running.sort_unstable();
        Ok(running)
    }

    /// Waits until a job was started.
    pub async fn job_started(&self) {
        self.jobs.started.notified().await;
    }

    /// Counts, in the next so many entries, the DEKs that a tenant's rewrap has to wrap anew. `false`: all are counted.
    pub async fn count_for_rewrap(&self, number: TenantNo, so_far: &mut Count, entries: usize) -> Result<bool, Error> {
        let only = load(&*self.store, number).await?.and_then(|row| row.keyring);
        let tenant = self.tenant(number)?;
        let newest = Newest::new(self, &tenant, only);
        let place = (&mut so_far.stage, &mut so_far.cursor);
        let Some((family, page)) = next_page(self, number, place, entries).await? else { return Ok(false) };
        for entry in &page {
            let Ok(holder) = Holder::decode(family, entry) else { continue };
            so_far.deks += holder.due(&newest).len() as u64;
        }
        Ok(true)
    }

    /// Does the next page of a tenant's rewrap.
    pub async fn rewrap_page(&self, tenant: TenantNo, page: &RewrapPage) -> Result<Job, Error> {
        let itself = Principal { tenant, name: "vault".into(), role: Role::Operator };
        let caller = Caller { principal: Arc::new(itself), client: "".into(), room: None };
        Ok(Job::of(&self.travel(&caller, page).await?))
    }

    /// How many groups were committed since the start: whoever sees it move faster than by its own work has company.
    pub fn commits(&self) -> u64 {
        self.committer.position().number()
    }
}
