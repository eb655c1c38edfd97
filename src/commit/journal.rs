//! The journal on disk: what restricts, at a second place, synced after the commit and before anybody is told.
//!
//! The store is the truth and the journal follows it. So a start, and a recovery, bring it to where the store is before anything
//! else is committed; and a store that has fallen behind it is an older copy, whatever the head file says.

mod check;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_ids::{TenantNo, VaultId};
use strongroom_ledger::Frontier;
use strongroom_ledger::journal::{self, HEADER, JournalEnd, LENGTH, Log, Record};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Store, StoreError};
use thiserror::Error;

use crate::lane::Lane;
use crate::offline::opened;

/// The file's name in its folder.
const NAME: &str = "journal";
/// Bytes that are written at once, about, where much is to be added.
const CHUNK: usize = 4 << 20;
/// A log may grow by so many leaves before it is noted that they were looked at: a start after a crash looks at them again.
#[cfg(not(test))]
pub(crate) const FAR: u64 = 100_000;
#[cfg(test)]
pub(crate) const FAR: u64 = 64;

/// The key of the journal's MACs. It must not lie in the data folder.
pub type JournalMac = Arc<dyn Fn(&[&[u8]]) -> [u8; 32] + Send + Sync>;

/// Where a journal stands, and what proves it.
#[derive(Clone)]
pub struct JournalPlace {
    /// Its folder.
    pub folder: PathBuf,
    /// Whose it is.
    pub vault: VaultId,
    /// Makes its MACs.
    pub mac: JournalMac,
}

/// Why a journal can't be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// There is none.
    #[error("the journal {path} is missing: bring it back, or see that [journal] folder names where it is")]
    Missing {
        /// Where it should stand.
        path: PathBuf,
    },
    /// The file can't be read or written.
    #[error("the journal {path} cannot be used: {source}; see that its folder exists, is writable, and has space")]
    Io {
        /// Where it stands.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It begins as no journal of this vault does.
    #[error("the file {path} is no journal of this vault: bring back the one that belongs to it")]
    Foreign {
        /// Where it stands.
        path: PathBuf,
    },
    /// A record is not what was written.
    #[error(
        "the journal {path} is damaged: record {record}, at byte {at}, is not what was written there; bring back its newest copy"
    )]
    Damaged {
        /// Where it stands.
        path: PathBuf,
        /// Which record, from 0.
        record: u64,
        /// Where it begins.
        at: u64,
    },
    /// It ends before the head file says.
    #[error("the journal {path} has {records} records, and the head file knows of {known}: bring back its newest copy")]
    Behind {
        /// Where it stands.
        path: PathBuf,
        /// How many it has.
        records: u64,
        /// How many it had.
        known: u64,
    },
    /// It has as many records as the head file says, and not the same.
    #[error("the journal {path} is not the one that the head file knows: bring back the one that belongs to it")]
    Other {
        /// Where it stands.
        path: PathBuf,
    },
    /// The store ends before the journal says.
    #[error(
        "the store is behind its journal: the log of tenant {tenant} had {known} leaves, in incarnation {incarnation}, and has \
         {size}; bring back the newest copy of the data folder, or, if there is no newer one: `strongroom restore`"
    )]
    StoreBehind {
        /// Whose log.
        tenant: TenantNo,
        /// In which incarnation.
        incarnation: u16,
        /// How many leaves it had.
        known: u64,
        /// How many it has now.
        size: u64,
    },
    /// The store's log is not the one that the journal speaks of.
    #[error(
        "the log of tenant {tenant} is not the one that its journal knows: with {size} leaves it had another root; the data folder \
         was changed: bring back its newest copy"
    )]
    StoreDifferent {
        /// Whose log.
        tenant: TenantNo,
        /// With how many leaves.
        size: u64,
    },
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl JournalPlace {
    /// Where the file stands.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn io(&self, source: io::Error) -> JournalError {
        match source.kind() {
            io::ErrorKind::NotFound => JournalError::Missing { path: self.path() },
            _ => JournalError::Io { path: self.path(), source },
        }
    }

    /// Reads a journal from its beginning, record by record, up to where it is not sound. `known` is how far the head file says
    /// that it had come. What was read before an error is what the vault wrote.
    pub fn read(&self, known: Option<JournalEnd>, each: impl FnMut(Record)) -> Result<Sound, JournalError> {
        let file = File::open(self.path()).map_err(|error| self.io(error))?;
        let whole = file.metadata().map_err(|error| self.io(error))?.len();
        self.read_from((BufReader::with_capacity(1 << 20, file), whole), known, each)
    }

    /// The same of one that was opened before, as far as it went then.
    pub fn read_opened(
        &self,
        opened: &io::Result<OpenedJournal>,
        known: Option<JournalEnd>,
        each: impl FnMut(Record),
    ) -> Result<Sound, JournalError> {
        let OpenedJournal { file, length } =
            opened.as_ref().map_err(|error| self.io(io::Error::new(error.kind(), error.to_string())))?;
        let from_start = FromStart { file, at: 0 }.take(*length);
        self.read_from((BufReader::with_capacity(1 << 20, from_start), *length), known, each)
    }

    fn read_from(
        &self,
        (mut file, whole): (impl Read, u64),
        known: Option<JournalEnd>,
        mut each: impl FnMut(Record),
    ) -> Result<Sound, JournalError> {
        let mut header = [0; HEADER];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(self.io(error)),
            Ok(()) if header == journal::header(self.vault) => {}
            _ => return Err(JournalError::Foreign { path: self.path() }),
        }
        let mac: journal::Mac<'_> = &|parts| (self.mac)(parts);
        let mut end = JournalEnd::start(self.vault, mac);
        let mut bytes = HEADER as u64;
        let mut met = known.is_none_or(|known| known == end);
        let mut record = vec![];
        let torn = loop {
            let left = whole.saturating_sub(bytes);
            let mut length = [0; LENGTH];
            if left < LENGTH as u64 {
                break true;
            }
            file.read_exact(&mut length).map_err(|error| self.io(error))?;
            let Some(length) = journal::length(length) else {
                // A file that was made longer, and whose bytes did not come any more.
                break length == [0; LENGTH] && only_zeros(&mut file).map_err(|error| self.io(error))?;
            };
            let behind = bytes + (LENGTH + length) as u64;
            if behind > whole {
                break true;
            }
            record.resize(length, 0);
            file.read_exact(&mut record).map_err(|error| self.io(error))?;
            match journal::read(&mut end, &record, mac) {
                Some(record) => each(record),
                None => break behind == whole,
            }
            bytes = behind;
            met |= known.is_some_and(|known| known == end);
        };
        if !torn {
            return Err(JournalError::Damaged { path: self.path(), record: end.records, at: bytes });
        }
        match known {
            Some(known) if !met && known.records > end.records => {
                Err(JournalError::Behind { path: self.path(), records: end.records, known: known.records })
            }
            Some(_) if !met => Err(JournalError::Other { path: self.path() }),
            _ => Ok(Sound { end, bytes }),
        }
    }
}

fn only_zeros(file: &mut impl Read) -> io::Result<bool> {
    let mut page = [0; 4096];
    loop {
        match file.read(&mut page)? {
            0 => return Ok(true),
            read if page[..read].iter().all(|byte| *byte == 0) => {}
            _ => return Ok(false),
        }
    }
}

/// A journal as it was when it was opened, also while a vault appends to it.
#[derive(Debug)]
pub struct OpenedJournal {
    file: File,
    length: u64,
}

impl OpenedJournal {
    /// Opens the one in a folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let file = File::open(folder.join(NAME))?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

/// Reads a file from its beginning, whoever else reads it.
struct FromStart<'f> {
    file: &'f File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What of a journal is sound: all, but for what a write left that was cut off.
pub struct Sound {
    /// Its end.
    pub end: JournalEnd,
    /// How many bytes that are.
    bytes: u64,
}

/// A size of a log, and the root of the tree over so many leaves.
type Root = (u64, [u8; 32]);

/// An open journal.
pub struct Journal {
    place: JournalPlace,
    file: File,
    /// Which file it is: by another one in its place nobody could tell later what was written here.
    identity: (u64, u64),
    end: JournalEnd,
    bytes: u64,
    /// How many leaves of each log it reaches over, by what it says of them.
    reach: HashMap<Log, u64>,
    /// Up to where each log was looked at as a whole, and its root there.
    seen: HashMap<Log, Root>,
    /// Whether nobody knows what stands behind its end.
    doubtful: bool,
    /// Appends that shall fail.
    #[cfg(test)]
    pub(crate) failing: Arc<std::sync::atomic::AtomicUsize>,
}

impl Journal {
    /// Makes a journal in a folder of its own, which is made if it is not there. There must be none.
    pub fn create(place: JournalPlace) -> Result<Self, JournalError> {
        let make = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&place.folder)?;
            let mut file = options().create_new(true).open(place.path())?;
            file.write_all(&journal::header(place.vault))?;
            file.sync_all()?;
            // The name is durable only once the folder is, and the folder's own once the one around it is.
            File::open(&place.folder)?.sync_all()?;
            match place.folder.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                Some(around) => File::open(around)?.sync_all()?,
                None => File::open(".")?.sync_all()?,
            }
            Ok(file)
        };
        let file = make().map_err(|source| JournalError::Io { path: place.path(), source })?;
        let end = JournalEnd::start(place.vault, &|parts| (place.mac)(parts));
        Self::at(place, file, Sound { end, bytes: HEADER as u64 })
    }

    /// Opens a journal that is sound and as long as the head file knows; cuts away what a write left that was cut off.
    pub fn open(place: JournalPlace, known: Option<JournalEnd>) -> Result<Self, JournalError> {
        let (mut reach, mut seen) = (HashMap::new(), HashMap::new());
        let sound = place.read(known, |record| note(&mut reach, &mut seen, &record))?;
        let file = options().open(place.path()).map_err(|error| place.io(error))?;
        let mut journal = Self { reach, seen, ..Self::at(place, file, sound)? };
        journal.settle().map_err(|error| journal.place.io(error))?;
        Ok(journal)
    }

    fn at(place: JournalPlace, file: File, Sound { end, bytes }: Sound) -> Result<Self, JournalError> {
        let identity = identity(&file.metadata().map_err(|error| place.io(error))?);
        Ok(Self {
            place,
            file,
            identity,
            end,
            bytes,
            reach: HashMap::new(),
            seen: HashMap::new(),
            doubtful: true,
            #[cfg(test)]
            failing: Arc::default(),
        })
    }

    /// How far it has come.
    pub fn end(&self) -> JournalEnd {
        self.end
    }

    /// The highest number of a tenant of whose log it knows: in the store, after a restore, there may be none with it.
    pub fn last_tenant(&self) -> TenantNo {
        self.reach.keys().map(|log| log.tenant).max().unwrap_or(TenantNo(0))
    }

    /// Whether the store has all that the journal knows of these logs. One that went on, or ended, in an earlier incarnation has
    /// not. That the newest of these is the vault's the head file says ([`HeadFile::check`](crate::HeadFile::check)).
    pub(crate) fn is_followed(&self, lanes: &HashMap<TenantNo, Lane>) -> Result<(), JournalError> {
        let of_store = lanes.values().map(|lane| lane.incarnation).max().unwrap_or(0);
        for (log, known) in &self.reach {
            let lane = lanes.get(&log.tenant).filter(|lane| lane.incarnation == log.incarnation);
            let size = lane.map_or(0, |lane| lane.frontier.size());
            if size < *known && (lane.is_some() || log.incarnation >= of_store) {
                let Log { tenant, incarnation } = *log;
                return Err(JournalError::StoreBehind { tenant, incarnation, known: *known, size });
            }
        }
        Ok(())
    }

    /// Brings it to where the store is, whose logs these are: what restricts there and does not stand here yet is added.
    pub async fn follow<S: Store>(&mut self, lanes: &[(TenantNo, LaneHead)], store: &S) -> Result<(), JournalError> {
        self.catch_up(&opened(lanes)?, store).await
    }

    /// The same of logs that are open.
    pub(crate) async fn catch_up<S: Store>(
        &mut self,
        lanes: &HashMap<TenantNo, Lane>,
        store: &S,
    ) -> Result<(), JournalError> {
        self.is_followed(lanes)?;
        let mut lanes: Vec<_> = lanes.iter().collect();
        lanes.sort_by_key(|(tenant, _)| **tenant);
        for (tenant, lane) in lanes {
            let log = Log { tenant: *tenant, incarnation: lane.incarnation };
            let size = lane.frontier.size();
            if self.seen_of(log) >= size {
                continue;
            }
            let mut at = self.unseen_from(log, store).await?;
            let (mut found, mut weight) = (vec![], 0);
            while at < size {
                let (next, restricting) = check::restricting(log, at, size, store).await?;
                at = next;
                weight += restricting.iter().map(|(_, line)| line.len()).sum::<usize>();
                found.extend(restricting.into_iter().map(|(index, line)| Record::Leaf { log, index, line }));
                if weight >= CHUNK {
                    self.append(&found).map_err(|error| self.place.io(error))?;
                    (found, weight) = (vec![], 0);
                }
            }
            found.push(seen(log, &lane.frontier));
            self.append(&found).map_err(|error| self.place.io(error))?;
        }
        Ok(())
    }

    /// Up to where a log was looked at as a whole.
    pub(crate) fn seen_of(&self, log: Log) -> u64 {
        self.seen.get(&log).map_or(0, |(size, _)| *size)
    }

    /// Appends records, durably: all of them, or as far as anybody is told none.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if identity(&fs::metadata(self.place.path())?) != self.identity {
            return Err(io::Error::other("another file stands in its place: put the journal back"));
        }
        if self.doubtful {
            // What a failed write left goes first; on the file as it opens now, since of one whose sync failed nobody knows.
            self.file = options().open(self.place.path())?;
            self.settle()?;
        }
        let (mut end, mut bytes) = (self.end, vec![]);
        let mac = Arc::clone(&self.place.mac);
        records.iter().for_each(|record| journal::append(&mut end, record, &|parts| mac(parts), &mut bytes));
        self.doubtful = true;
        self.fails(&bytes)?;
        self.file.write_all_at(&bytes, self.bytes)?;
        self.file.sync_data()?;
        self.doubtful = false;
        (self.end, self.bytes) = (end, self.bytes + bytes.len() as u64);
        records.iter().for_each(|record| note(&mut self.reach, &mut self.seen, record));
        Ok(())
    }

    /// Cuts away what stands behind the end.
    fn settle(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.sync_all()?;
        self.doubtful = false;
        Ok(())
    }

    #[cfg(not(test))]
    fn fails(&self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Fails as a full disk does: with a part of what should be written.
    #[cfg(test)]
    fn fails(&self, bytes: &[u8]) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.failing.load(SeqCst) == 0 {
            return Ok(());
        }
        self.failing.fetch_sub(1, SeqCst);
        self.file.write_all_at(&bytes[..bytes.len() / 2], self.bytes)?;
        Err(io::Error::other("the disk is full"))
    }
}

/// What says that a log was looked at up to here.
pub(crate) fn seen(log: Log, frontier: &Frontier) -> Record {
    Record::Seen { log, size: frontier.size(), root: frontier.root() }
}

fn note(reach: &mut HashMap<Log, u64>, seen: &mut HashMap<Log, Root>, record: &Record) {
    let (log, size) = record.reach();
    let furthest = reach.entry(log).or_default();
    *furthest = size.max(*furthest);
    if let Record::Seen { root, .. } = record {
        let furthest = seen.entry(log).or_default();
        *furthest = (size, *root).max(*furthest);
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Puts a journal that can't be used aside, under another name in its folder; `None` if there is none.
pub fn put_aside(place: &JournalPlace, time: u64) -> io::Result<Option<PathBuf>> {
    let aside = place.folder.join(format!("{NAME}.aside-{time}"));
    match fs::rename(place.path(), &aside) {
        Ok(()) => File::open(&place.folder)?.sync_all().map(|()| Some(aside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
