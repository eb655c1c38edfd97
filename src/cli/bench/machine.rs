//! Where it was measured, and with which versions.

use std::path::Path;

use serde_json::{Value, json};

/// The machine and the versions.
pub struct Machine {
    facts: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks around, before anything is measured; `folder` is where the vaults are.
    pub fn look(folder: &Path) -> Self {
        let proc = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let unknown = || "unknown".to_owned();
        let memory = after(&proc("meminfo"), "MemTotal");
        let memory = memory.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let kernel = proc("sys/kernel/osrelease").trim().to_owned();
        Self {
            facts: vec![
                ("processor", after(&proc("cpuinfo"), "model name").unwrap_or_else(unknown)),
                ("cores", format!("{cores}, shared by clients and servers")),
                ("memory", memory.map_or_else(unknown, |kib| format!("{:.0} GiB", kib / f64::from(1 << 20)))),
                ("kernel", format!("Linux {kernel}")),
                ("file system", file_system(folder).unwrap_or_else(unknown)),
                ("load before", load_average(&proc("loadavg"))),
                ("date", today()),
                ("strongroom", strongroom(env!("STRONGROOM_COMMIT"))),
                ("RocksDB", locked("librocksdb-sys").and_then(rocksdb).unwrap_or_else(unknown)),
                ("tonic", locked("tonic").unwrap_or_else(unknown)),
                ("rustls", locked("rustls").unwrap_or_else(unknown)),
                ("rustc", env!("STRONGROOM_COMPILER").to_owned()),
            ],
        }
    }

    /// Adds the version of something that was measured beside it.
    pub fn add(&mut self, name: &'static str, version: &str) {
        self.facts.push((name, version.to_owned()));
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let facts = self.facts.iter().map(|(name, fact)| ((*name).replace(' ', "_"), json!(fact)));
        Value::Object(facts.collect())
    }

    /// As a list of Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| | |\n| --- | --- |\n");
        for (name, fact) in &self.facts {
            text.push_str(&format!("| {name} | {fact} |\n"));
        }
        text
    }
}

/// The versions that this binary was built with.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// The version of a crate; of several, the newest.
fn locked(name: &str) -> Option<String> {
    let wanted = format!("name = \"{name}\"");
    let mut lines = LOCK.lines();
    let mut found = None;
    while lines.by_ref().any(|line| line == wanted) {
        let version = lines.next().and_then(|line| line.strip_prefix("version = \""));
        found = version.map(|version| version.trim_end_matches('"').to_owned()).or(found);
    }
    found
}

/// RocksDB's own version stands behind the plus of its binding's.
fn rocksdb(binding: String) -> Option<String> {
    binding.split_once('+').map(|(_, version)| version.to_owned())
}

/// What this binary was built from, as `build.rs` saw it then: the checkout may be another one by now.
fn strongroom(commit: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let built = concat!("built with opt-level ", env!("STRONGROOM_OPTIMISED"));
    match commit.strip_suffix("-dirty") {
        Some(commit) => format!("{version}, commit {commit} and changes that were not committed, {built}"),
        None => format!("{version}, commit {commit}, {built}"),
    }
}

/// The type of the file system of a folder: that of the deepest mount above it.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(place).then(|| (place.len(), kind.to_owned()))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

/// How busy the machine was: what else it did takes from every figure.
fn load_average(text: &str) -> String {
    let mut averages = text.split(' ').map(str::to_owned);
    match (averages.next(), averages.next()) {
        (Some(one), Some(five)) => format!("{one} over a minute, {five} over five"),
        _ => "unknown".to_owned(),
    }
}

fn today() -> String {
    time::OffsetDateTime::now_utc().date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_were_locked() {
        assert!(locked("tonic").unwrap().starts_with("0."));
        assert_eq!(rocksdb("0.19.0+11.8.1".to_owned()).as_deref(), Some("11.8.1"));
        assert_eq!(load_average("0.10 0.20 0.30 1/100 9"), "0.10 over a minute, 0.20 over five");
        assert_eq!(locked("no such crate"), None);
        assert!(rocksdb(locked("librocksdb-sys").unwrap()).is_some());
    }

    #[test]
    fn a_binary_says_which_commit_it_was_built_from_and_whether_that_is_all() {
        assert!(strongroom("0123456789ab-dirty").contains("commit 0123456789ab and changes that were not committed"));
        assert!(strongroom("0123456789ab").contains(", commit 0123456789ab, built with opt-level "));
        let commit = env!("STRONGROOM_COMMIT").trim_end_matches("-dirty");
        assert!(commit == "unknown" || commit.len() >= 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(env!("STRONGROOM_COMPILER").starts_with("rustc "));
    }

    #[test]
    fn every_fact_of_this_machine_is_told() {
        let machine = Machine::look(Path::new("."));
        assert!(machine.facts.iter().all(|(_, fact)| !fact.is_empty()));
        assert!(machine.markdown().contains("| kernel | Linux "));
        assert!(file_system(Path::new("/proc")).is_some());
    }
}
