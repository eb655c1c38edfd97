//! How fast leaves are appended: through the committer, and beside it the same bytes in the same batches, written raw.

use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use strongroom_commit::{Change, CommitError, Committer, HeadFile, HeadKey, Meters, SignHead, Start, take_delivery};
use strongroom_ids::TenantNo;
use strongroom_ledger::leaf::PreparedLeaf;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Entry, Family, KeyRange, Mutation, Range, Store, StoreError, keys};
use tokio::runtime::{Builder, Handle, Runtime};

use super::bars::Bars;
use super::leaves::{Requests, Signer, VAULT};
use super::measure::{self, Meter, Middle, Sample};
use super::process::Process;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, short, spread};
use super::work::{blocking, unfit};
use crate::cli::output::CliError;

const TENANT: TenantNo = TenantNo(1);
/// Requests under way at once: a group takes half of them, and the next one waits meanwhile.
const IN_FLIGHT: usize = 2_048;
/// As many as a vault lets wait, and as many facts as it takes to keep none.
const QUEUE: usize = 4_096;
const FACTS: usize = 1 << 10;
/// Entries of one page of a scan.
const PAGE: usize = 4_096;

/// Leaves appended, measured some times in turn.
pub struct Append {
    /// Through the committer.
    committer: Vec<Sample>,
    /// Written raw.
    raw: Vec<Sample>,
    /// Leaves of a batch, over the runs.
    batch: Middle,
    /// Bytes of a leaf.
    bytes: f64,
}

impl Append {
    /// Bars' steps that a run takes.
    pub const STEPS: u64 = 2;

    /// Appends so many leaves a run, in a folder.
    pub async fn measure(folder: &Path, leaves: u64, runs: u16, bars: &Bars) -> Result<Self, CliError> {
        let (mut committer, mut raw, mut batches, mut bytes) = (vec![], vec![], vec![], 0.0);
        for _ in 0..runs {
            let bar = bars.begin("append leaves, vault");
            let at = folder.join("appended");
            let (sample, written) = blocking(move || appended(&at, leaves)).await?;
            bars.end(&bar);
            committer.push(sample);
            batches.push(leaves as f64 / written.len() as f64);
            bytes = written.iter().flatten().map(leaf_bytes).sum::<u64>() as f64 / leaves as f64;
            let bar = bars.begin("append leaves, raw");
            let at = folder.join("raw");
            raw.push(blocking(move || replayed(&at, written, leaves)).await?);
            bars.end(&bar);
        }
        Ok(Self { committer, raw, batch: Middle::of(batches), bytes })
    }

    /// Leaves a second, by the committer and raw.
    pub fn speeds(&self) -> (Middle, Middle) {
        self.both(Sample::items_per_second)
    }

    /// Leaves for a second of processor time, by the committer and raw.
    pub fn by_processor(&self) -> (Middle, Middle) {
        self.both(Sample::items_per_server_cpu_second)
    }

    fn both(&self, figure: fn(&Sample) -> f64) -> (Middle, Middle) {
        (Middle::of(self.committer.iter().map(figure)), Middle::of(self.raw.iter().map(figure)))
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let ((committer, raw), (committer_cpu, raw_cpu)) = (self.speeds(), self.by_processor());
        let one = |speed: Middle, cpu: Middle| {
            json!({
                "leaves_per_second": rounded(speed.median),
                "leaves_per_second_ends": ends(speed),
                "leaves_per_cpu_second": rounded(cpu.median),
            })
        };
        json!({
            "leaves": self.committer.first().map(|sample| sample.items),
            "bytes_per_leaf": rounded(self.bytes),
            "leaves_per_batch": rounded(self.batch.median),
            "committer": one(committer, committer_cpu),
            "raw": one(raw, raw_cpu),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let row = |what: &str, samples: &[Sample]| {
            let middle = |of: fn(&Sample) -> f64| spread(Middle::of(samples.iter().map(of)), short);
            vec![
                what.to_owned(),
                middle(Sample::items_per_second),
                middle(Sample::items_per_server_cpu_second),
                middle(Sample::written_per_item),
            ]
        };
        Sheet {
            title: "Leaves appended",
            header: vec!["by", "leaves/s", "leaves/CPU s", "written B/leaf"],
            rows: vec![row("vault: the committer", &self.committer), row("  raw RocksDB writes", &self.raw)],
            below: format!(
                "{} leaves a run, of {:.0} bytes, of requests of one value; {IN_FLIGHT} under way, {} in a batch. The committer \
                 numbers, hashes and chains them, keeps the head file and answers each request once its group is synced. Raw: \
                 the same entries in the same batches, made before and written one after the other, each synced. CPU is \
                 without the threads that ask. {SPREAD}",
                self.committer.first().map_or_else(String::new, |sample| figure(sample.items as f64, 0)),
                self.bytes,
                spread(self.batch, short),
            ),
        }
    }
}

/// What one batch wrote.
type Batch = Vec<Mutation>;

/// Appends leaves through a committer of its own in a folder; brings the batches that it wrote.
fn appended(folder: &Path, leaves: u64) -> Result<(Sample, Vec<Batch>), CliError> {
    std::fs::create_dir(folder).map_err(|error| CliError::file(folder, error))?;
    let store = RocksStore::create(&folder.join("data"), RocksOptions::default()).map_err(unfit)?;
    let (background, store) = (store.background(), Arc::new(Noting { store, groups: Mutex::default() }));
    let signer = Signer::new()?;
    let public = signer.public();
    let sign: SignHead = Arc::new(move |text| signer.sign(text));
    let key = move || Some(HeadKey { public, sign: Arc::clone(&sign) });
    let head = HeadFile::new(folder.join("head"), VAULT, Arc::new(key));
    let empty = LaneHead { incarnation: 1, size: 0, time: 0, frontier: vec![], rules: vec![] };
    let start = Start {
        lanes: vec![(TENANT, empty)],
        head: Some(head),
        journal: None,
        clock: Arc::new(now),
        queue: QUEUE,
        table: FACTS,
        meters: Meters::new(),
    };
    let committer = Committer::start(Arc::clone(&store), start).map_err(unfit)?;

    let requests = Requests::new();
    let mut shares: Vec<Vec<PreparedLeaf>> = (0..IN_FLIGHT).map(|_| vec![]).collect();
    for number in 0..leaves {
        shares[number as usize % IN_FLIGHT].extend(requests.leaves(number));
    }
    // As the vault has it: a runtime a processor, each of which takes the answers to its own requests.
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut askers: Vec<(Runtime, Vec<Vec<PreparedLeaf>>)> = Vec::with_capacity(threads);
    for _ in 0..threads {
        askers.push((Builder::new_current_thread().build().map_err(unfit)?, vec![]));
    }
    for (number, share) in shares.into_iter().enumerate() {
        askers[number % threads].1.push(share);
    }
    let (asking, ready) = (&committer, &Barrier::new(threads + 1));
    let (meter, asked) = thread::scope(|scope| {
        let askers =
            askers.into_iter().map(|(runtime, shares)| scope.spawn(move || ask(&runtime, asking, shares, ready)));
        let askers: Vec<_> = askers.collect();
        ready.wait();
        let meter = Meter::start(Process::Own);
        let asked: Vec<_> = askers.into_iter().map(|asker| asker.join()).collect();
        (meter, asked)
    });
    let wall = meter.elapsed();
    let mut client_cpu = Duration::ZERO;
    for cpu in asked {
        client_cpu += cpu.map_err(|_| CliError::unfit("a thread that asks stopped"))?.map_err(unfit)?;
    }
    let handle = Handle::current();
    handle.block_on(background.drain()).map_err(unfit)?;
    let sample = meter.stop(wall, (leaves, leaves), measure::latencies(), client_cpu);
    handle.block_on(committer.shutdown());
    let written = handle.block_on(store.written(leaves))?;
    drop((committer, store));
    std::fs::remove_dir_all(folder).map_err(|error| CliError::file(folder, error))?;
    Ok((sample, written))
}

/// Asks for all shares at once, for the leaves of a share one after the other. The answer is the thread's processor time.
fn ask(
    runtime: &Runtime,
    committer: &Committer,
    shares: Vec<Vec<PreparedLeaf>>,
    ready: &Barrier,
) -> Result<Duration, CommitError> {
    runtime.block_on(async {
        let delivery = tokio::spawn(take_delivery());
        tokio::task::yield_now().await;
        ready.wait();
        let before = measure::thread_cpu();
        let asks: Vec<_> = shares.into_iter().map(|share| tokio::spawn(one_by_one(committer.clone(), share))).collect();
        for ask in asks {
            // One that was cut off has no answer.
            ask.await.unwrap_or(Err(CommitError::Unknown))?;
        }
        delivery.abort();
        Ok(measure::thread_cpu() - before)
    })
}

async fn one_by_one(committer: Committer, share: Vec<PreparedLeaf>) -> Result<(), CommitError> {
    for leaf in share {
        let change = Change {
            position: committer.position(),
            guards: vec![],
            changes: vec![],
            mutations: vec![],
            leaves: vec![(TENANT, leaf)],
            charge: None,
        };
        committer.commit(change).await?;
    }
    Ok(())
}

/// Writes batches as they are to a store of its own in a folder.
fn replayed(folder: &Path, batches: Vec<Batch>, leaves: u64) -> Result<Sample, CliError> {
    let store = RocksStore::create(folder, RocksOptions::default()).map_err(unfit)?;
    let handle = Handle::current();
    let meter = Meter::start(Process::Own);
    for batch in batches {
        handle.block_on(store.write(batch)).map_err(unfit)?;
    }
    let wall = meter.elapsed();
    handle.block_on(store.background().drain()).map_err(unfit)?;
    let sample = meter.stop(wall, (leaves, leaves), measure::latencies(), Duration::ZERO);
    drop(store);
    std::fs::remove_dir_all(folder).map_err(|error| CliError::file(folder, error))?;
    Ok(sample)
}

/// A store that notes how it was written.
struct Noting {
    store: RocksStore,
    groups: Mutex<Vec<Noted>>,
}

/// What is noted of a write: its leaves are in the store, what else it had may have been written over.
struct Noted {
    leaves: usize,
    others: Vec<Mutation>,
}

impl Noting {
    /// The batches that were written, anew.
    async fn written(&self, leaves: u64) -> Result<Vec<Batch>, CliError> {
        let groups = std::mem::take(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut from, to) = keys::leaves_range(TENANT, 0, leaves);
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let page =
                self.store.scan(Family::Leaves, Range { from, to: to.clone(), limit: PAGE }).await.map_err(unfit)?;
            let last = page.last().filter(|_| page.len() == PAGE).map(|(key, _)| key.to_vec());
            entries.extend(page);
            match last {
                Some(last) => from = [&last[..], &[0]].concat(),
                None => break,
            }
        }
        if entries.len() as u64 != leaves || groups.iter().map(|group| group.leaves).sum::<usize>() != entries.len() {
            return Err(CliError::unfit("the committer did not write each leaf once"));
        }
        let mut entries = entries.into_iter();
        let batch = |group: Noted| -> Batch {
            let put = |(key, line): Entry| Mutation::Put(Family::Leaves, key.to_vec(), line.to_vec());
            entries.by_ref().take(group.leaves).map(put).chain(group.others).collect()
        };
        Ok(groups.into_iter().map(batch).collect())
    }
}

impl Store for Noting {
    type Snapshot = <RocksStore as Store>::Snapshot;

    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        self.store.get(family, key).await
    }

    async fn multi_get(&self, family: Family, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.store.multi_get(family, keys).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        self.store.scan(family, range).await
    }

    async fn snapshot(&self) -> Result<Self::Snapshot, StoreError> {
        self.store.snapshot().await
    }

    async fn scrub(&self, ranges: Vec<KeyRange>) -> Result<(), StoreError> {
        self.store.scrub(ranges).await
    }

    async fn purge(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> Result<(), StoreError> {
        self.store.purge(family, from, to).await
    }

    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        let others: Vec<Mutation> = batch.iter().filter(|one| !is_leaf(one)).cloned().collect();
        let leaves = batch.len() - others.len();
        self.store.write(batch).await?;
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).push(Noted { leaves, others });
        Ok(())
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen().await
    }
}

fn is_leaf(mutation: &Mutation) -> bool {
    matches!(mutation, Mutation::Put(Family::Leaves, ..))
}

/// Bytes of a leaf; none of what is no leaf.
fn leaf_bytes(mutation: &Mutation) -> u64 {
    match mutation {
        Mutation::Put(Family::Leaves, _, line) => line.len() as u64,
        _ => 0,
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_written_raw_is_what_the_committer_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("appended");
        let (sample, batches) = blocking(move || appended(&at, 5_000)).await.unwrap();
        assert_eq!(sample.items, 5_000);
        let lines: Vec<&Vec<u8>> = batches
            .iter()
            .flatten()
            .filter_map(|one| match one {
                Mutation::Put(Family::Leaves, _, line) => Some(line),
                _ => None,
            })
            .collect();
        assert_eq!(lines.len(), 5_000);
        for (index, line) in lines.iter().enumerate() {
            assert!(line.starts_with(format!("{{\"index\":\"{index}\",").as_bytes()));
        }
        // Each group ends with the head of its log.
        assert!(batches.iter().all(|batch| matches!(batch.last(), Some(Mutation::Put(Family::Meta, ..)))));
        assert!(batches.len() < 5_000, "they were written in groups");
        let at = folder.path().join("raw");
        let sample = blocking(move || replayed(&at, batches, 5_000)).await.unwrap();
        assert_eq!(sample.items, 5_000);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_ways_are_measured_in_each_run() {
        let folder = tempfile::tempdir().unwrap();
        let append = Append::measure(folder.path(), 2_000, 2, &Bars::new(4)).await.unwrap();
        assert_eq!((append.committer.len(), append.raw.len()), (2, 2));
        let document = append.document();
        for who in ["committer", "raw"] {
            assert!(document[who]["leaves_per_second"].as_f64().unwrap() > 0.0, "{document}");
        }
        assert!((200.0..600.0).contains(&document["bytes_per_leaf"].as_f64().unwrap()), "{document}");
        let sheet = append.sheet();
        assert!(sheet.rows.iter().all(|row| row.len() == sheet.header.len()));
    }
}
