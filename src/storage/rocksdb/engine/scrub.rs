//! Scrubbing: what was removed or overwritten gets out of the files.
//!
//! It stands in the log, in tables that overlap its key, and for whoever looks at an earlier moment. So the memtables are flushed, those
//! tables rewritten, and it is waited until every file that may have had it is gone. Of the tables that are none any more nobody knows
//! the keys: what others have replaced, before this or while it waited for them, is waited for whatever it held.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use strongroom_storage::{Family, KeyRange, StoreError};

use super::{Engine, SETTLE, failed};
use crate::{folder, options};

/// How often it is looked whether files are gone.
const LOOK: Duration = Duration::from_millis(10);
/// The sequence number of the oldest snapshot; zero if there is none.
const OLDEST_SNAPSHOT: &str = "rocksdb.oldest-snapshot-sequence";

/// The keys between two, the second exclusive; empty for the end of the family.
type Stretch<'r> = (&'r [u8], &'r [u8]);
/// A table: its first key, its last one, and its file.
type Table = (Vec<u8>, Vec<u8>, PathBuf);

impl Engine {
    /// Rewrites what holds these ranges: the files that overlap them, and the log. What was removed or overwritten is in neither then.
    pub fn scrub(&self, ranges: Vec<KeyRange>) -> Result<(), StoreError> {
        if ranges.is_empty() {
            return Ok(());
        }
        let (errors, since) = (self.background_errors(), self.db.latest_sequence_number());
        let logs = self.logs()?;
        // All families: a log file goes only when every memtable that it protects is flushed.
        self.flush("scrub")?;
        // The newest goes on; if it was there before, nothing was in it.
        let newest = self.logs()?.pop();
        let mut old: Vec<PathBuf> = logs.into_iter().filter(|log| Some(log) != newest.as_ref()).collect();
        // What an earlier moment still sees is written into new tables, too.
        let oldest = self.db.property_int_value(OLDEST_SNAPSHOT).map_err(|error| failed("scrub", error))?;
        if oldest.is_some_and(|oldest| oldest != 0 && oldest < since) {
            return Err(not_yet("somebody still reads as it was before"));
        }
        for family in Family::ALL {
            let own = ranges.iter().filter(|range| range.family == family);
            let own: Vec<Stretch<'_>> = own.map(|range| (range.from.as_slice(), range.to.as_slice())).collect();
            if own.is_empty() {
                continue;
            }
            let (stretches, overlapping) = together(own, &self.tables(family)?);
            for (from, to) in stretches {
                let end = (!to.is_empty()).then_some(to);
                self.db.compact_range_cf_opt(self.family(family)?, Some(from), end, &options::thorough());
            }
            old.extend(overlapping);
        }
        self.no_new_errors("scrub", errors)?;
        let replaced = self.table_files()?;
        are_gone(old, replaced, SETTLE, || self.live())
    }

    /// The files of tables that are on disk, whether they are still tables or not.
    fn table_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.db.path();
        let names = folder::names(dir)?.into_iter().filter(|name| folder::is_table(name));
        Ok(names.map(|name| dir.join(name)).collect())
    }

    /// The files of all tables that there are now.
    fn live(&self) -> Result<BTreeSet<PathBuf>, StoreError> {
        let live = self.db.live_files().map_err(|error| failed("scrub", error))?;
        Ok(live.iter().map(|file| self.path_of(file)).collect())
    }

    fn path_of(&self, file: &rocksdb::LiveFile) -> PathBuf {
        self.db.path().join(file.name.trim_start_matches('/'))
    }

    /// The files of the log, the oldest first.
    fn logs(&self) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.db.path();
        let names = folder::names(dir)?.into_iter().filter(|name| folder::is_log(name));
        let mut logs: Vec<(Option<u64>, PathBuf)> = names.map(|name| (number(&name), dir.join(name))).collect();
        logs.sort_unstable();
        Ok(logs.into_iter().map(|(_, log)| log).collect())
    }

    /// The tables of a family.
    fn tables(&self, family: Family) -> Result<Vec<Table>, StoreError> {
        let live = self.db.live_files().map_err(|error| failed("scrub", error))?;
        let own = live.into_iter().filter(|file| file.column_family_name == family.name());
        let table = |file: rocksdb::LiveFile| {
            let path = self.path_of(&file);
            (file.start_key.unwrap_or_default(), file.end_key.unwrap_or_default(), path)
        };
        Ok(own.map(table).collect())
    }
}

/// The number in the name of a file of the log.
fn number(name: &std::ffi::OsStr) -> Option<u64> {
    Path::new(name).file_stem()?.to_str()?.parse().ok()
}

/// The ranges that are to be rewritten, those as one that meet in a table, so that none is rewritten once for each; and all tables that
/// overlap one.
fn together<'r>(mut ranges: Vec<Stretch<'r>>, tables: &[Table]) -> (Vec<Stretch<'r>>, Vec<PathBuf>) {
    ranges.retain(|(from, to)| to.is_empty() || from < to);
    ranges.sort_unstable();
    let mut old: Vec<&Table> = Vec::new();
    let mut stretches: Vec<Stretch<'r>> = Vec::new();
    // The last key of the tables that the last stretch has.
    let mut reach: &[u8] = &[];
    for (from, to) in ranges {
        let overlapping = tables
            .iter()
            .filter(|(first, last, _)| last.as_slice() >= from && (to.is_empty() || first.as_slice() < to));
        let overlapping: Vec<&Table> = overlapping.collect();
        let Some(furthest) = overlapping.iter().map(|(_, last, _)| last.as_slice()).max() else { continue };
        old.extend(overlapping);
        match stretches.last_mut() {
            Some((_, end)) if from <= reach || end.is_empty() => {
                if !end.is_empty() && (to.is_empty() || *end < to) {
                    *end = to;
                }
                reach = reach.max(furthest);
            }
            _ => {
                stretches.push((from, to));
                reach = furthest;
            }
        }
    }
    let mut old: Vec<PathBuf> = old.into_iter().map(|(.., path)| path.clone()).collect();
    old.sort_unstable();
    old.dedup();
    (stretches, old)
}

/// Waits until old files are gone, and of the others those that are no tables: a job deletes those that it made needless as its last
/// step, and those that somebody reads go when that ends. One that a job still writes is a table in the end, or gone as well.
fn are_gone(
    mut old: Vec<PathBuf>,
    mut others: Vec<PathBuf>,
    within: Duration,
    live: impl Fn() -> Result<BTreeSet<PathBuf>, StoreError>,
) -> Result<(), StoreError> {
    let began = Instant::now();
    // One of which nobody can tell is there.
    let is_there = |file: &PathBuf| file.try_exists().unwrap_or(true);
    loop {
        old.retain(is_there);
        if !others.is_empty() {
            let live = live()?;
            others.retain(|file| !live.contains(file) && is_there(file));
        }
        if old.is_empty() && others.is_empty() {
            return Ok(());
        }
        if began.elapsed() >= within {
            return Err(not_yet("files are still there that were replaced"));
        }
        thread::sleep(LOOK);
    }
}

fn not_yet(why: &str) -> StoreError {
    StoreError::StillInFiles { what: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(first: u8, last: u8) -> Table {
        (vec![first], vec![last], PathBuf::from(format!("{first}-{last}")))
    }

    #[test]
    fn ranges_that_meet_in_a_table_are_rewritten_as_one() {
        let tables = [table(0, 9), table(20, 29), table(25, 60), table(90, 99)];
        let ranges: [Stretch<'_>; 6] =
            [(&[40], &[41]), (&[3], &[4]), (&[7], &[8]), (&[12], &[13]), (&[21], &[22]), (&[26], &[27])];
        let (stretches, old) = together(ranges.to_vec(), &tables);
        let expected: [Stretch<'_>; 2] = [(&[3], &[8]), (&[21], &[41])];
        assert_eq!(stretches, expected);
        assert_eq!(old, ["0-9", "20-29", "25-60"].map(PathBuf::from));
    }

    #[test]
    fn a_range_without_an_end_takes_what_comes_behind_it_and_an_empty_one_nothing() {
        let tables = [table(0, 9), table(20, 29), table(90, 99)];
        let ranges: [Stretch<'_>; 4] = [(&[5], &[]), (&[95], &[96]), (&[7], &[7]), (&[8], &[2])];
        let (stretches, old) = together(ranges.to_vec(), &tables);
        let expected: [Stretch<'_>; 1] = [(&[5], &[])];
        assert_eq!((stretches.as_slice(), old.len()), (&expected[..], 3));
        let outside: [Stretch<'_>; 1] = [(&[12], &[13])];
        assert_eq!(together(outside.to_vec(), &tables), (vec![], vec![]));
    }

    #[test]
    fn a_file_that_stays_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("000007.sst");
        std::fs::write(&file, b"a wrapped key").unwrap();
        let none = || Ok(BTreeSet::new());
        let gone = |old, others| are_gone(old, others, Duration::ZERO, none);
        assert!(gone(vec![file.clone()], vec![]).is_err() && gone(vec![], vec![file.clone()]).is_err());
        std::fs::remove_file(&file).unwrap();
        gone(vec![file.clone()], vec![]).unwrap();
        gone(vec![], vec![file]).unwrap();
    }

    #[test]
    fn of_the_other_files_those_are_waited_for_that_are_no_tables() {
        let dir = tempfile::tempdir().unwrap();
        let [table, written, replaced] = ["000007.sst", "000008.sst", "000009.sst"].map(|name| dir.path().join(name));
        for file in [&table, &written, &replaced] {
            std::fs::write(file, b"a wrapped key").unwrap();
        }
        let looked = std::cell::Cell::new(0);
        let live = || {
            looked.set(looked.get() + 1);
            // A job has written its table, and somebody has let go of what another one replaced.
            if looked.get() == 3 {
                std::fs::remove_file(&replaced).unwrap();
                return Ok(BTreeSet::from([table.clone(), written.clone()]));
            }
            Ok(BTreeSet::from([table.clone()]))
        };
        are_gone(vec![], vec![table.clone(), written.clone(), replaced.clone()], SETTLE, live).unwrap();
        assert_eq!(looked.get(), 3);
        assert!(are_gone(vec![table.clone()], vec![], Duration::ZERO, || Ok(BTreeSet::from([table.clone()]))).is_err());
    }
}
