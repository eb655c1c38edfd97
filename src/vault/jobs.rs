//! Jobs: what is done in the background, how far it has come, and how it is ended.
//!
//! A tenant has one job of a kind at a time. It goes through the store a page a commit; how far it has come is written in
//! the same commit, so that it goes on after a crash where it was, and its figures are exact. Each page takes the road
//! like any request, as the vault itself, and nothing is released to it. What a page is, `rewrap.rs`, `roll.rs`, `reindex.rs` and
//! `expire.rs` say.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_access::{Action, Principal, Role};
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{KeyringNo, TenantNo};
use strongroom_keys::KeyName;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{JobKind, JobRow, JobState};
use strongroom_storage::{Entry, Family, Mutation, Store};
use tokio::sync::{Notify, watch};

use crate::error::Error;
use crate::expire::{self, ExpirePage};
use crate::pages::Pages;
use crate::reindex::{self, ReindexPage, StartReindex};
use crate::rewrap::{self, RewrapPage, StartRewrap};
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::roll::{self, RollPage, StartRoll};
use crate::tenant::Tenant;
use crate::vault::Vault;

/// Pages with nothing to do that are passed over before the next commit.
pub(crate) const EMPTY_PAGES: usize = 16;

/// How far a job has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it does.
    pub kind: JobKind,
    /// Which one of its kind it is, from 1.
    pub number: u32,
    /// `rewrap/7`, `roll/7`, `reindex/7`, `expire/7`.
    pub name: String,
    /// `running`, `done`, `cancelled`, or `waiting` where there is more to do than it may: another one goes on.
    pub state: &'static str,
    /// Who started it.
    pub principal: String,
    /// When, in microseconds since 1970.
    pub started: u64,
    /// When it last came further, or ended.
    pub updated: u64,
    /// When a job of its kind last found something to do; 0: never.
    pub moved: u64,
    /// DEKs, index entries or values that there were to do when they were counted, or are known to be by now; 0 until they are
    /// counted.
    pub total: u64,
    /// How many of them are done.
    pub done: u64,
    /// How many it had to leave as they are.
    pub skipped: u64,
    /// The KEK that it was asked for; empty for all.
    pub key: String,
    /// Whether it shall be counted before the next page what there is to do.
    pub to_count: bool,
    /// What somebody has to do before it goes on; empty if nobody has to do anything.
    pub waits_for: String,
}

impl Job {
    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    pub(crate) fn of(kind: JobKind, row: &JobRow) -> Self {
        Self {
            kind,
            number: row.number,
            name: name(kind, row.number),
            state: match row.state {
                JobState::Running => "running",
                JobState::Done => "done",
                JobState::Cancelled => "cancelled",
                JobState::Waiting => "waiting",
            },
            principal: row.principal.clone(),
            started: row.started,
            updated: row.updated,
            moved: row.moved,
            total: row.total,
            done: row.done,
            skipped: row.skipped,
            key: row.keyring.map_or_else(String::new, |keyring| format!("kek/{keyring}")),
            to_count: match kind {
                JobKind::Rewrap | JobKind::Reindex | JobKind::Expire => row.stage == 0 && row.cursor.is_empty(),
                JobKind::Roll => roll::is_to_be_counted(row),
            },
            waits_for: match row.state {
                JobState::Waiting => expire::waits_for(row),
                _ => String::new(),
            },
        }
    }
}

fn name(kind: JobKind, number: u32) -> String {
    format!("{}/{number}", kind.as_str())
}

/// Tells those who watch a job how far it has come.
type Teller = watch::Sender<Option<Job>>;

/// The jobs of a vault that runs, for who does them and who watches them.
#[derive(Default)]
pub(crate) struct Jobs {
    rows: Mutex<HashMap<(TenantNo, JobKind), Teller>>,
    /// Woken when a job was started.
    started: Notify,
}

impl Jobs {
    fn sender(&self, tenant: TenantNo, kind: JobKind) -> Teller {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry((tenant, kind)).or_insert_with(|| watch::Sender::new(None)).clone()
    }

    /// Tells how far a job has come.
    pub fn tell(&self, tenant: TenantNo, kind: JobKind, row: &JobRow) {
        self.sender(tenant, kind).send_replace(Some(Job::of(kind, row)));
    }

    /// Tells that a tenant was unlocked, whose jobs go on.
    pub fn tell_unlocked(&self) {
        self.started.notify_one();
    }

    /// Tells that a job was started.
    pub fn tell_started(&self, tenant: TenantNo, kind: JobKind, row: &JobRow) {
        self.tell(tenant, kind, row);
        self.started.notify_one();
    }
}

/// The newest job of a kind.
pub(crate) async fn load<S: Store>(store: &S, tenant: TenantNo, kind: JobKind) -> Result<Option<JobRow>, Error> {
    let row = store.get(Family::Meta, place::job(tenant, kind)).await?;
    Ok(row.as_deref().map(JobRow::decode).transpose()?)
}

/// The job whose next page is to be done; another one's page is not.
pub(crate) async fn running<S: Store>(road: &Road<'_, S>, kind: JobKind, number: u32) -> Result<JobRow, Error> {
    let row = load(&*road.vault.store, road.tenant.number, kind).await?;
    let running = row.filter(|row| row.state == JobState::Running && row.number == number);
    running.ok_or_else(|| Error::JobEnded(name(kind, number)))
}

/// The next job of a kind, if none runs.
pub(crate) async fn next<S: Store>(
    road: &Road<'_, S>,
    kind: JobKind,
    keyring: Option<KeyringNo>,
) -> Result<JobRow, Error> {
    let before = load(&*road.vault.store, road.tenant.number, kind).await?;
    if let Some(running) = before.as_ref().filter(|row| row.state == JobState::Running) {
        return Err(Error::JobRunning { kind: kind.as_str(), number: running.number });
    }
    let (number, moved) = before.map_or((0, 0), |row| (row.number, row.moved));
    Ok(JobRow {
        number: number.checked_add(1).ok_or(Error::Internal("too many jobs"))?,
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
        limit: None,
    })
}

/// The keyring of the KEK that a job is asked for; none for all.
pub(crate) fn keyring<S: Store>(road: &Road<'_, S>, name: &str) -> Result<Option<KeyringNo>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    match road.key(name)? {
        (KeyName::Kek(_, keyring), _) => Ok(Some(keyring)),
        _ => Err(Error::invalid("name", "no_kek", "only KEKs wrap DEKs: kek/1")),
    }
}

/// The next entries of a job that goes through families and is at a stage and a cursor, and moves it on behind them; none
/// at its end.
pub(crate) async fn next_page<S: Store>(
    vault: &Vault<S>,
    tenant: TenantNo,
    stages: &[Family],
    (stage, cursor): (&mut u8, &mut Vec<u8>),
    entries: usize,
) -> Result<Option<(Family, Vec<Entry>)>, Error> {
    let Some(family) = stages.get(usize::from(*stage)).copied() else { return Ok(None) };
    let mut pages = Pages::of_tenant(family, tenant).of(entries).going_on(cursor);
    let page = pages.next(&*vault.store).await?;
    match &page {
        Some(_) => *cursor = pages.cursor(),
        None => (*stage, *cursor) = (*stage + 1, vec![]),
    }
    Ok(Some((family, page.unwrap_or_default())))
}

/// What commits that a job has come to this point.
pub(crate) fn prepare<S: Store>(road: &Road<'_, S>, kind: JobKind, row: JobRow) -> Prepared<JobRow> {
    let fact = Fact::job(road.tenant.number, kind.number());
    let key = place::job(road.tenant.number, kind);
    let mutation = Mutation::Put(Family::Meta, key, row.encode());
    let mut prepared = Prepared::new(row);
    prepared.guards.push(Guard::Unchanged(fact));
    prepared.changes.push(fact);
    prepared.mutations.push(mutation);
    prepared.detail.push(("job", name(kind, prepared.answer.number)));
    prepared
}

/// What a page of a job has come to.
pub(crate) struct PageDone {
    /// What it did.
    pub done: u64,
    /// What it had to leave as it is.
    pub skipped: u64,
    /// Whether it found something to do at all.
    pub moved: bool,
}

/// What commits that a page was done, and how far the job has come by it. The states of the keys that it stood on hold.
pub(crate) fn prepare_page<S: Store>(
    road: &Road<'_, S>,
    page: &JobPage,
    mut row: JobRow,
    PageDone { done, skipped, moved }: PageDone,
) -> Prepared<JobRow> {
    row.done += done;
    row.skipped += skipped;
    // Where a key rotates, or a DEK is marked, meanwhile, there is more to do than was counted.
    row.total = page.total.unwrap_or(row.total).max(row.done.saturating_add(row.skipped));
    row.updated = road.now;
    row.moved = if moved { road.now } else { row.moved };
    let mut prepared = prepare(road, page.kind, row);
    prepared.guards.push(Guard::Unchanged(Fact::key_states(road.tenant.number)));
    prepared
}

/// Says in the leaf of a page, last, how far its job has come.
pub(crate) fn tell_how_far(kind: JobKind, mut prepared: Prepared<JobRow>) -> Prepared<JobRow> {
    let Job { done, state, .. } = Job::of(kind, &prepared.answer);
    prepared.detail.push(("done", done.to_string()));
    prepared.detail.push(("job_state", state.to_owned()));
    prepared
}

/// Counts what the newest KEKs of these keyrings are about to seal, once for each mention.
pub(crate) async fn allow_seals<S: Store>(
    road: &Road<'_, S>,
    keyrings: impl Iterator<Item = KeyringNo>,
) -> Result<(), Error> {
    let mut seals: HashMap<KeyringNo, usize> = HashMap::new();
    for keyring in keyrings {
        *seals.entry(keyring).or_insert(0) += 1;
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

/// The job that a name means.
async fn named<S: Store>(road: &Road<'_, S>, asked: &str) -> Result<(JobKind, JobRow), Error> {
    let (word, number) = asked.split_once('/').map_or((asked, None), |(word, number)| (word, Some(number)));
    let unknown = |name: &str| Error::JobUnknown(name.to_owned());
    // What a caller sent is not repeated unless it could be a job's name.
    let kind = JobKind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| unknown("of that name"))?;
    let canonical = |number: &str| number.parse().is_ok_and(|number| asked == name(kind, number));
    if number.is_some_and(|number| !canonical(number)) {
        return Err(unknown("of that name"));
    }
    let row = load(&*road.vault.store, road.tenant.number, kind).await?;
    let meant = row.filter(|row| number.is_none() || asked == name(kind, row.number));
    meant.map(|row| (kind, row)).ok_or_else(|| unknown(asked))
}

/// Asks how far a job has come.
pub struct GetJob {
    /// `rewrap/7`, `roll/7`, or `rewrap`, `roll` for the newest of the kind.
    pub name: String,
}

impl<S: Store> Attempt<S> for GetJob {
    type Answer = Job;
    const ACTION: Action = Action::GetJob;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Job>, Refused> {
        road.decide_vault()?;
        let (kind, row) = named(road, &self.name).await?;
        let mut prepared = road.prepare(Job::of(kind, &row));
        prepared.detail.push(("job", name(kind, row.number)));
        Ok(prepared)
    }
}

/// Ends a job.
pub struct CancelJob {
    /// As in [`GetJob`].
    pub name: String,
}

impl<S: Store> Attempt<S> for CancelJob {
    type Answer = (JobKind, JobRow);
    const ACTION: Action = Action::CancelJob;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<(JobKind, JobRow)>, Refused> {
        road.decide_vault()?;
        let (kind, row) = named(road, &self.name).await?;
        if !matches!(row.state, JobState::Running | JobState::Waiting) {
            return Err(Error::JobEnded(name(kind, row.number)).into());
        }
        let mut prepared = prepare(road, kind, JobRow { state: JobState::Cancelled, updated: road.now, ..row });
        prepared.guards.extend(road.rules_unchanged());
        Ok(prepared.answering(|row| (kind, row)))
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, (kind, row): &(JobKind, JobRow)) {
        vault.jobs.tell(tenant.number, *kind, row);
    }
}

/// The next page of a job.
#[derive(Clone, Copy, Debug)]
pub struct JobPage {
    /// What the job does.
    pub kind: JobKind,
    /// The job's number: another one's page is not done.
    pub number: u32,
    /// Entries that a page has at most.
    pub entries: usize,
    /// What there is to do, once it is counted.
    pub total: Option<u64>,
    /// Among how many that was counted.
    pub of: u64,
    /// How much of it stays, as far as that is known by then.
    pub kept: u64,
}

/// The vault itself, as a tenant's principal: nobody else has its name.
pub(crate) fn itself(tenant: TenantNo) -> Caller {
    Caller::new(Arc::new(Principal { tenant, name: "vault".into(), role: Role::Operator }), "")
}

/// How much of what there is to do was counted.
#[derive(Default)]
pub struct Count {
    /// DEKs, index entries or values that there are to do.
    pub due: u64,
    /// Among how many, where that matters.
    pub of: u64,
    /// How much of it stays, as far as that is cheap to know: it is frozen, or under a legal hold of its subject.
    pub kept: u64,
    pub(crate) stage: u8,
    pub(crate) cursor: Vec<u8>,
}

impl<S: Store> Vault<S> {
    /// Starts a rewrap.
    pub async fn start_rewrap(&self, caller: &Caller, request: &StartRewrap) -> Result<Job, Error> {
        Ok(Job::of(JobKind::Rewrap, &self.travel(caller, request).await?))
    }

    /// Starts a DEK roll.
    pub async fn start_roll(&self, caller: &Caller, request: &StartRoll) -> Result<Job, Error> {
        Ok(Job::of(JobKind::Roll, &self.travel(caller, request).await?))
    }

    /// Starts a reindex.
    pub async fn start_reindex(&self, caller: &Caller) -> Result<Job, Error> {
        Ok(Job::of(JobKind::Reindex, &self.travel(caller, &StartReindex).await?))
    }

    /// How far a job has come.
    pub async fn get_job(&self, caller: &Caller, request: &GetJob) -> Result<Job, Error> {
        let job = self.travel(caller, request).await?;
        Ok(match job.kind == JobKind::Expire && job.is_running() && self.clock_jump().is_some() {
            true => Job { waits_for: expire::CLOCK.to_owned(), ..job },
            false => job,
        })
    }

    /// The same, with what comes after: it is told whenever the job comes further.
    pub async fn watch_job(
        &self,
        caller: &Caller,
        request: &GetJob,
    ) -> Result<(Job, watch::Receiver<Option<Job>>), Error> {
        // Listened to first, so that nothing is missed.
        let after = JobKind::ALL.map(|kind| (kind, self.jobs.sender(caller.principal.tenant, kind).subscribe()));
        let job = self.get_job(caller, request).await?;
        let after = after.into_iter().find(|(kind, _)| *kind == job.kind);
        let (_, after) = after.ok_or(Error::Internal("a job of no kind"))?;
        Ok((job, after))
    }

    /// Ends a job.
    pub async fn cancel_job(&self, caller: &Caller, request: &CancelJob) -> Result<Job, Error> {
        let (kind, row) = self.travel(caller, request).await?;
        Ok(Job::of(kind, &row))
    }

    /// The jobs that are to go on, by tenant.
    pub async fn running_jobs(&self) -> Result<Vec<(TenantNo, Job)>, Error> {
        let mut running = Vec::new();
        for tenant in self.tenants.numbers() {
            for kind in JobKind::ALL {
                let row = match load(&*self.store, tenant, kind).await {
                    // The others shall not wait for it.
                    Err(Error::DataLoss(place)) => {
                        self.damaged(place);
                        continue;
                    }
                    row => row?.filter(|row| row.state == JobState::Running),
                };
                running.extend(row.map(|row| (tenant, Job::of(kind, &row))));
            }
        }
        running.sort_unstable_by_key(|(tenant, job)| (*tenant, job.kind));
        Ok(running)
    }

    /// Waits until a job was started.
    pub async fn job_started(&self) {
        self.jobs.started.notified().await;
    }

    /// Counts, in the next so many entries, what a tenant's job has to do. `false`: all is counted.
    pub async fn count_for_job(
        &self,
        tenant: TenantNo,
        kind: JobKind,
        so_far: &mut Count,
        entries: usize,
    ) -> Result<bool, Error> {
        match kind {
            JobKind::Rewrap => rewrap::count(self, tenant, so_far, entries).await,
            JobKind::Roll => roll::count(self, tenant, so_far, entries).await,
            JobKind::Reindex => {
                let its = self.tenant(tenant)?;
                reindex::count(self, &its, so_far, entries).await
            }
            JobKind::Expire => {
                let its = self.tenant(tenant)?;
                expire::count(self, &its, so_far, entries).await
            }
        }
    }

    /// Does the next page of a tenant's job.
    pub async fn job_page(&self, tenant: TenantNo, page: JobPage) -> Result<Job, Error> {
        let caller = itself(tenant);
        let row = match page.kind {
            JobKind::Rewrap => self.travel(&caller, &RewrapPage(page)).await?,
            JobKind::Roll => {
                self.has_room_to_roll(tenant).await?;
                self.travel(&caller, &RollPage(page)).await?
            }
            JobKind::Reindex => self.travel(&caller, &ReindexPage(page)).await?,
            JobKind::Expire => {
                // Before the road, which would record each time that it is refused.
                self.erasing_time()?;
                self.travel(&caller, &ExpirePage(page)).await?
            }
        };
        Ok(Job::of(page.kind, &row))
    }

    /// A roll of a whole KEK may rewrite all that a tenant has, which a nearly full disk has no room for. One of what is marked goes on.
    async fn has_room_to_roll(&self, tenant: TenantNo) -> Result<(), Error> {
        if !self.nearly_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let row = load(&*self.store, tenant, JobKind::Roll).await?;
        if row.is_some_and(|row| row.keyring.is_some()) { Err(Error::DiskFull) } else { Ok(()) }
    }

    /// How many groups were committed since the start: whoever sees it move faster than by its own work has company.
    pub fn commits(&self) -> u64 {
        self.committer.position().number()
    }
}
