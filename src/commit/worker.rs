//! The committer's thread: gathers what waits, stores it in one write, and recovers when a write fails.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use strongroom_ids::TenantNo;
use strongroom_ledger::Frontier;
use strongroom_ledger::journal::{Log, Record};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Store, StoreError};
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;

use crate::change::{Change, CommitError, Position};
use crate::committer::{CommitterState, Job, Shared};
use crate::delivery::{Answer, Reply, deliver};
use crate::group::{Group, Lanes};
use crate::head_check::follow;
use crate::head_file::{End, HeadKeeper};
use crate::journal::{FAR, Journal, JournalError, seen};
use crate::lane::Lane;
use crate::meter::Meters;
use crate::table::ConflictTable;

/// A group is closed at this many changes, or at these many bytes, whichever comes first: a write that takes long
/// makes all its members wait.
const GROUP_CHANGES: usize = 1024;
const GROUP_BYTES: usize = 8 << 20;

/// Groups of this many changes follow each other no faster than this. A sync costs some 90 microseconds of processor
/// time however much it carries, so where many wait it pays to let a few more come; who is nearly alone never waits, and
/// nor does a whole group.
const BUSY: usize = 16;
const PACE: Duration = Duration::from_millis(2);

/// Between attempts to open the store again: doubled each time, from the first to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// After how long it is tried again to note how far the journal has come: each attempt may cost what opening a file does.
const NOTE_AGAIN: Duration = Duration::from_secs(60);

/// A change that waits for its turn.
struct Waiting {
    change: Change,
    reply: Reply,
}

/// The state of the one thread that writes.
pub(crate) struct Worker<S> {
    store: Arc<S>,
    queue: mpsc::Receiver<Job>,
    /// A job that was taken from the queue while a group was gathered and is no member of it.
    put_back: Option<Job>,
    shared: Arc<Shared>,
    lanes: Lanes,
    table: ConflictTable,
    meters: Meters,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    heads: Option<HeadKeeper>,
    journal: Option<Journal>,
    /// When how far the journal has come could not be noted last.
    unnoted: Option<Instant>,
    /// The number of the last group, stored or not.
    last: u64,
    /// The time of the last group.
    time: u64,
    /// When the last group was begun, if it was a large one.
    busy: Option<Instant>,
}

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Goes {
    On,
    Out,
}

impl<S: Store> Worker<S> {
    pub fn new(
        store: Arc<S>,
        queue: mpsc::Receiver<Job>,
        shared: Arc<Shared>,
        start: (Lanes, Arc<dyn Fn() -> u64 + Send + Sync>, usize, Meters),
        (heads, journal): (Option<HeadKeeper>, Option<Journal>),
    ) -> Self {
        let (lanes, clock, entries, meters) = start;
        let time = lanes.values().map(|lane| lane.time).max().unwrap_or(0);
        let table = ConflictTable::new(entries, 0);
        let (last, put_back, busy, unnoted) = (0, None, None, None);
        Self { store, queue, put_back, shared, lanes, table, meters, clock, heads, journal, unnoted, last, time, busy }
    }

    /// Starts the thread. A durable write runs on the calling thread, so it has a runtime of its own and blocks nobody.
    /// `done` is dropped when all is over.
    pub fn spawn(self, done: watch::Sender<()>) -> std::io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let work = move || {
            runtime.block_on(self.run());
            drop(done);
        };
        thread::Builder::new().name("committer".to_owned()).spawn(work).map(drop)
    }

    async fn run(mut self) {
        let mut goes = Goes::On;
        while let Some(job) = self.next().await {
            goes = match job {
                Job::Commit { change, bytes, reply } => {
                    self.shared.taken(bytes);
                    self.keep_pace();
                    let members = self.gather(Waiting { change, reply }, bytes);
                    self.commit(members).await
                }
                Job::BeginLog { tenant, head, change, bytes, reply } => {
                    self.shared.taken(bytes);
                    self.begin_log(tenant, &head, Waiting { change, reply }).await
                }
                Job::Shutdown => {
                    // What was sent before is still brought, and then the end of the queue.
                    self.queue.close();
                    Goes::On
                }
            };
            if goes == Goes::Out {
                break;
            }
        }
        self.queue.close();
        while let Some(job) = self.next_waiting() {
            self.turn_away(job);
        }
        if goes == Goes::On {
            // The next start looks at nothing that was looked at.
            self.note_seen(1);
        }
        if let Some(heads) = self.heads.take() {
            // Who gives up while the store does not open can't say what it holds.
            heads.stop(if goes == Goes::On { End::InOrder } else { End::InDoubt });
        }
        self.shared.set_state(CommitterState::Stopped);
    }

    async fn next(&mut self) -> Option<Job> {
        match self.put_back.take() {
            Some(job) => Some(job),
            None => self.queue.recv().await,
        }
    }

    fn next_waiting(&mut self) -> Option<Job> {
        self.put_back.take().or_else(|| self.queue.try_recv().ok())
    }

    /// Lets more come while many do. The thread is the committer's own, so nobody else is kept waiting.
    fn keep_pace(&self) {
        if let Some(begun) = self.busy
            && self.queue.len() + 1 < GROUP_CHANGES
        {
            thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
    }

    /// All that waits and fits joins the first.
    fn gather(&mut self, first: Waiting, mut weight: usize) -> Vec<Waiting> {
        let mut members = vec![first];
        while members.len() < GROUP_CHANGES && weight < GROUP_BYTES {
            match self.next_waiting() {
                Some(Job::Commit { change, bytes, reply }) => {
                    self.shared.taken(bytes);
                    weight = weight.saturating_add(bytes);
                    members.push(Waiting { change, reply });
                }
                other => {
                    self.put_back = other;
                    break;
                }
            }
        }
        members
    }

    async fn commit(&mut self, members: Vec<Waiting>) -> Goes {
        self.busy = (members.len() >= BUSY).then(Instant::now);
        let number = self.last + 1;
        let time = (self.clock)().max(self.time);
        let mut group = Group::new(&mut self.table, &self.lanes, number, time).metered(&mut self.meters);
        let answers: Vec<(Reply, Answer)> =
            members.into_iter().map(|member| (member.reply, group.add(member.change))).collect();
        let staged = group.stage();
        if staged.members > 0 {
            (self.last, self.time) = (number, time);
            if !staged.batch.is_empty()
                && let Err(error) = self.store.write(staged.batch).await
            {
                tracing::error!(%error, "a write failed; the store is opened again");
                return self.fail(answers).await;
            }
            // It is durable; but of what restricts nobody is told who could not rely on it after a restore as well.
            if let Err(error) = self.write_down(&staged.lanes, staged.restricting) {
                tracing::error!(%error, "the journal can't be written; nothing is committed until it can");
                return self.fail(answers).await;
            }
            let far = self.is_far(&staged.lanes);
            self.advance(staged.lanes);
            if far && self.unnoted.is_none_or(|since| since.elapsed() >= NOTE_AGAIN) {
                self.note_seen(FAR);
            }
        }
        // Those that were turned back wait as well: earlier they would read what this group has just replaced.
        deliver(answers);
        if staged.members > 0
            && let Some(heads) = &self.heads
        {
            heads.changed();
        }
        Goes::On
    }

    /// What was written is durable and seen: now it may be known.
    fn advance(&mut self, lanes: Lanes) {
        let mut published = self.shared.lanes();
        for (tenant, lane) in lanes {
            published.insert(tenant, lane.clone());
            self.lanes.insert(tenant, lane);
        }
        drop(published);
        self.shared.publish(Position(self.last), self.time);
    }

    /// Journals what restricts of a group, whose logs are so after it.
    fn write_down(&mut self, lanes: &Lanes, mut restricting: Vec<Record>) -> io::Result<()> {
        let Some(journal) = self.journal.as_mut().filter(|_| !restricting.is_empty()) else { return Ok(()) };
        for (tenant, lane) in lanes {
            let log = log_of(*tenant, lane);
            if restricting.iter().any(|record| record.reach().0 == log) {
                restricting.push(seen(log, &lane.frontier));
            }
        }
        journal.append(&restricting)?;
        self.shared.set_journal(journal.end());
        Ok(())
    }

    /// Whether the journal says nothing of many leaves of one of these logs.
    fn is_far(&self, lanes: &Lanes) -> bool {
        let Some(journal) = &self.journal else { return false };
        lanes.iter().any(|(tenant, lane)| grown_since_seen(journal, *tenant, lane) >= FAR)
    }

    /// Notes in the journal how far the logs were looked at that have grown by so many leaves since. Without it the next start
    /// looks at them once more, and that is all.
    fn note_seen(&mut self, grown: u64) {
        let Some(journal) = &self.journal else { return };
        let far = |(tenant, lane): &(&TenantNo, &Lane)| grown_since_seen(journal, **tenant, lane) >= grown;
        let mut far: Vec<_> = self.lanes.iter().filter(far).collect();
        far.sort_by_key(|(tenant, _)| **tenant);
        let records: Vec<Record> =
            far.iter().map(|(tenant, lane)| seen(log_of(**tenant, lane), &lane.frontier)).collect();
        self.note(&records);
    }

    /// Appends what says how far logs were looked at. Nothing depends on it but how much the next start looks at, and restores.
    fn note(&mut self, records: &[Record]) {
        let Some(journal) = self.journal.as_mut() else { return };
        match journal.append(records) {
            Ok(()) => {
                self.unnoted = None;
                self.shared.set_journal(journal.end());
            }
            Err(error) => {
                self.unnoted = Some(Instant::now());
                tracing::warn!(%error, "how far the journal has come could not be noted");
            }
        }
    }

    async fn fail(&mut self, answers: Vec<(Reply, Answer)>) -> Goes {
        self.shared.set_state(CommitterState::Recovering);
        deliver(answers.into_iter().map(|(reply, answer)| (reply, answer.and(Err(CommitError::Unknown)))));
        self.recover().await
    }

    /// Opens the store again until it opens, and goes on from what is really there.
    async fn recover(&mut self) -> Goes {
        let mut wait = FIRST_BACKOFF;
        let (lanes, meters) = loop {
            match self.reload().await {
                Ok(reloaded) => break reloaded,
                Err(error) => tracing::error!(%error, "the store cannot be opened again, or the journal written, yet"),
            }
            if self.pause(wait).await == Goes::Out {
                return Goes::Out;
            }
            wait = (wait * 2).min(LAST_BACKOFF);
        };
        // Nobody knows which facts the failed write changed. Whoever read before now must read again.
        self.table.forget(self.last);
        self.meters = meters;
        self.advance(lanes);
        self.shared.set_state(CommitterState::Serving);
        tracing::info!("the store is open again");
        Goes::On
    }

    async fn reload(&mut self) -> Result<(Lanes, Meters), JournalError> {
        self.store.reopen().await?;
        let mut lanes = Lanes::new();
        for (tenant, known) in &self.lanes {
            let stored = match self.store.get(Family::Meta, Lane::key(*tenant)).await? {
                Some(bytes) => Lane::open(&LaneHead::decode(&bytes)?)?,
                None => Lane { frontier: Frontier::new(), ..known.clone() },
            };
            let (has, had) = (stored.frontier.size(), known.frontier.size());
            // What was acknowledged must be there. To go on without it would write its indexes a second time.
            let corrupt = |what| StoreError::Corrupt { place: "the head of a ledger lane", what };
            if has < had {
                let what = format!("tenant {tenant} had {had} leaves that were acknowledged, and now {has}");
                return Err(corrupt(what).into());
            }
            // And the rules in force are those that its leaves say: a head that somebody else wrote meanwhile might
            // bring older ones back.
            let from = (known.frontier.clone(), known.rules);
            follow(*tenant, from, &stored, &*self.store).await.map_err(|error| corrupt(error.to_string()))?;
            lanes.insert(*tenant, stored);
        }
        let meters = Meters::load(&*self.store, lanes.iter().map(|(tenant, lane)| (*tenant, lane.time))).await?;
        if let Some(journal) = self.journal.as_mut() {
            // What was written and nobody was told of may restrict.
            journal.catch_up(&lanes, &*self.store).await?;
            self.shared.set_journal(journal.end());
        }
        Ok((lanes, meters))
    }

    /// Waits between two attempts, and turns away who asks meanwhile.
    async fn pause(&mut self, wait: Duration) -> Goes {
        let until = tokio::time::Instant::now() + wait;
        loop {
            match timeout_at(until, self.next()).await {
                Err(_) => return Goes::On,
                Ok(Some(Job::Shutdown) | None) => return Goes::Out,
                Ok(Some(job)) => self.turn_away(job),
            }
        }
    }

    fn turn_away(&self, job: Job) {
        match job {
            Job::Commit { bytes, reply, .. } | Job::BeginLog { bytes, reply, .. } => {
                self.shared.taken(bytes);
                reply.send(Err(CommitError::Closed));
            }
            Job::Shutdown => {}
        }
    }

    /// Commits a change with the first leaves of a log, alone in its group. If it was not stored there is no such log.
    async fn begin_log(&mut self, tenant: TenantNo, head: &LaneHead, first: Waiting) -> Goes {
        if !self.lanes.contains_key(&tenant) {
            match self.new_lane(tenant, head).await {
                Ok(lane) => {
                    self.time = self.time.max(lane.time);
                    self.lanes.insert(tenant, lane);
                }
                Err(error) => {
                    tracing::error!(%error, tenant = tenant.0, "the log cannot be opened");
                    first.reply.send(Err(CommitError::Closed));
                    return Goes::On;
                }
            }
        }
        let goes = self.commit(vec![first]).await;
        if self.lanes.get(&tenant).is_some_and(|lane| lane.frontier.size() == 0) {
            self.lanes.remove(&tenant);
            self.shared.lanes().remove(&tenant);
        } else if goes == Goes::On
            && let Some(lane) = self.lanes.get(&tenant)
        {
            // By this a restore knows a copy of the log from before anything of it restricts.
            self.note(&[seen(log_of(tenant, lane), &lane.frontier)]);
        }
        goes
    }

    /// A log that the store has already is continued where it ends.
    async fn new_lane(&self, tenant: TenantNo, head: &LaneHead) -> Result<Lane, StoreError> {
        match self.store.get(Family::Meta, Lane::key(tenant)).await? {
            Some(bytes) => Lane::open(&LaneHead::decode(&bytes)?),
            None => Lane::open(head),
        }
    }
}

fn log_of(tenant: TenantNo, lane: &Lane) -> Log {
    Log { tenant, incarnation: lane.incarnation }
}

/// By how many leaves a log has grown since the journal noted how far it was looked at.
fn grown_since_seen(journal: &Journal, tenant: TenantNo, lane: &Lane) -> u64 {
    lane.frontier.size().saturating_sub(journal.seen_of(log_of(tenant, lane)))
}
