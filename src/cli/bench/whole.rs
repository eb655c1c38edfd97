//! All that was measured: as a JSON document, as tables, and as BENCHMARKS.md with the goals on top.

use std::path::Path;

use serde_json::{Map, Value};

use super::decide::Decide;
use super::goals::{self, Bound, Goal, Other};
use super::growth::Growth;
use super::latency::Latency;
use super::ledger::Ledger;
use super::ledger_speed::{self, LedgerSpeed};
use super::machine::Machine;
use super::measure::{Middle, Sample};
use super::overload::Overload;
use super::peers::{PeerLoad, Peers};
use super::questions::{self, Questions};
use super::report::{Lines, Measured};
use super::retention::Retention;
use super::rewrap::Rewrap;
use super::sheet::{Sheet, figure, wrapped};
use super::stored::Footprint;

/// What was measured; what was not is missing.
pub struct Whole {
    /// Where, and with which versions.
    pub machine: Machine,
    /// How it was measured.
    pub setting: Value,
    /// The loads.
    pub lines: Lines,
    /// What a value takes on disk.
    pub footprint: Option<Footprint>,
    /// What the ledger takes on disk.
    pub ledger: Option<Ledger>,
    /// How fast the ledger is.
    pub ledger_speed: Option<LedgerSpeed>,
    /// What a decision costs.
    pub decide: Option<Decide>,
    /// Latency against load.
    pub latency: Option<Latency>,
    /// Overload.
    pub overload: Option<Overload>,
    /// Growth.
    pub growth: Option<Growth>,
    /// Rewrap.
    pub rewrap: Option<Rewrap>,
    /// Retention.
    pub retention: Option<Retention>,
    /// Questions of auditors.
    pub questions: Option<Questions>,
    /// The peers.
    pub peers: Peers,
    /// What to keep in mind, if anything.
    pub notes: Vec<&'static str>,
}

impl Whole {
    /// The goals, each with its figures.
    pub fn goals(&self) -> Vec<Goal> {
        use Bound::{AtLeast, AtMost};
        let of = |load: &str, measured, figure: fn(&Sample) -> f64| self.lines.figure(load, measured, figure);
        let vault = |load: &str, figure| of(load, Measured::Vault, figure);
        let echo = |what, load: &str| {
            let cpu: fn(&Sample) -> f64 = Sample::server_cpu_per_request;
            Goal::against(what, "CPU us/request", AtMost(2.0), vault(load, cpu), of(load, Measured::Echo, cpu))
        };
        let bare = |what, load: &str| {
            let items: fn(&Sample) -> f64 = Sample::items_per_server_cpu_second;
            Goal::against(what, "values/CPU s", AtLeast(0.5), vault(load, items), of(load, Measured::Direct, items))
        };
        // For a second of the server's processor time, and for one of the clock: the goal is on one of them.
        let peer = |what, on: On, times, load: &str, its: &str| {
            let by = |on: On| (vault(load, on.of_vault()), self.peers.figure(its, on.of_peer()));
            let ((figure, yardstick), (other, others)) = (by(on), by(on.other()));
            let other = Other { unit: on.other().unit(), ratio: goals::ratio(other, others) };
            Goal { other: Some(other), ..Goal::against(what, on.unit(), AtLeast(times), figure, yardstick) }
        };
        let growth = self.growth.as_ref();
        let speeds = growth.map(Growth::speeds);
        let starts = growth.map(Growth::starts);
        let usual = self.latency.as_ref().map(Latency::usual);
        let p99 = self.rewrap.as_ref().map(Rewrap::p99);
        let erased = self.retention.as_ref().map(Retention::p99);
        let mut goals = vec![
            echo("Tokenize of one value, against (a) echo", "tokenize_unary"),
            echo("Detokenize of one token, against (a) echo", "detokenize_unary"),
            bare("Tokenize of 1,000 values, against (b) the bare work", "tokenize_batch"),
            bare("Detokenize of 1,000 tokens, against (b) the bare work", "detokenize_batch"),
            peer(
                "Tokenize of one value, against OpenBao's transit encrypt, 16 connections",
                On::Processor,
                10.0,
                "tokenize_unary_over_16",
                "transit_encrypt",
            ),
            peer(
                "Tokenize of 100 values, against OpenBao's transit encrypt of 100, 16 connections",
                On::Processor,
                5.0,
                "tokenize_batch_100_over_16",
                "transit_encrypt_batch",
            ),
            peer(
                "Tokenize of one value, against OpenBao's kv put, 64 connections",
                On::Clock,
                15.0,
                "tokenize_unary_over_64",
                "kv_put",
            ),
            peer(
                "Tokenize of one value, against PostgreSQL's insert with pgp_sym_encrypt, 16 clients",
                On::Clock,
                5.0,
                "tokenize_unary_over_16",
                "insert_pgp_sym_encrypt",
            ),
            peer(
                "Tokenize of 1,000 values, against the same of 1,000 rows",
                On::Clock,
                15.0,
                "tokenize_batch_over_16",
                "insert_pgp_sym_encrypt_batch",
            ),
            peer(
                "Tokenize of one value, against PostgreSQL's insert with raw encrypt(), 16 clients",
                On::Clock,
                2.0,
                "tokenize_unary_over_16",
                "insert_raw_encrypt",
            ),
            peer(
                "Tokenize of 1,000 values, against the same of 1,000 rows with raw encrypt()",
                On::Clock,
                1.0,
                "tokenize_batch_over_16",
                "insert_raw_encrypt_batch",
            ),
            Goal::against(
                "Detokenize with many tokens (Growth), against 100,000 of them",
                "requests/s",
                AtLeast(0.8),
                speeds.map(|(many, _)| many),
                speeds.map(|(_, few)| few),
            ),
            Goal::number(
                "Start after a clean stop, with many tokens",
                "s",
                AtMost(3.0),
                starts.map(|(clean, _)| clean.into()),
            ),
            Goal::number(
                "Start after kill -9, with many tokens",
                "s",
                AtMost(3.0),
                starts.map(|(_, killed)| killed.into()),
            ),
            Goal::number(
                "Stored for a value of 32 bytes, with its share of indexes and subject",
                "bytes",
                AtMost(220.0),
                self.footprint.as_ref().map(|footprint| footprint.stored().into()),
            ),
            Goal::number(
                "Ledger for a request of one value, compressed",
                "bytes",
                AtMost(250.0),
                self.ledger.as_ref().map(|ledger| ledger.unary().into()),
            ),
            Goal::number(
                "Ledger for a further value of a request, compressed",
                "bytes",
                AtMost(64.0),
                self.ledger.as_ref().map(|ledger| ledger.further().into()),
            ),
            Goal::number(
                "A decision under 200 policies, remembered",
                "us",
                AtMost(2.0),
                self.decide.as_ref().map(|decide| decide.cached),
            ),
            Goal {
                shed: usual.map(|(_, shed)| shed.median),
                ..Goal::number(
                    "p99 at 70 % of saturation, in units of p50",
                    "",
                    AtMost(5.0),
                    usual.map(|(ratio, _)| ratio),
                )
            },
            Goal::number(
                "Answered while 3 times saturation is due, in units of the most",
                "",
                AtLeast(0.8),
                self.overload.as_ref().map(Overload::goodput_ratio),
            ),
            Goal::number(
                "Well again after 3 times saturation, from its last request on",
                "s",
                AtMost(1.0),
                self.overload.as_ref().map(Overload::recovery),
            ),
            Goal::number(
                "Rewrap of 1,000,000 DEKs",
                "CPU s",
                AtMost(10.0),
                self.rewrap.as_ref().and_then(Rewrap::seconds_a_million).map(Middle::from),
            ),
            Goal::against(
                "p99 of callers while a rewrap runs (median), against without (the best run)",
                "ms",
                AtMost(1.3),
                p99.map(|(with, _)| with),
                p99.map(|(_, without)| without.into()),
            ),
            Goal::against(
                "p99 of callers while retention erases subjects (median), against without (the best run)",
                "ms",
                AtMost(1.3),
                erased.map(|(with, _)| with),
                erased.map(|(_, without)| without.into()),
            ),
        ];
        goals.push(questions::goal(self.questions.as_ref()));
        goals.extend(ledger_speed::goals(self.ledger_speed.as_ref()));
        goals
    }

    fn sheets(&self) -> Vec<Sheet> {
        let lines = (!self.lines.is_empty()).then(|| self.lines.sheet());
        let peers = (!self.peers.is_empty()).then(|| self.peers.sheet());
        let stored =
            [lines, peers, self.footprint.as_ref().map(Footprint::sheet), self.ledger.as_ref().map(Ledger::sheet)];
        let ledger_speed = self.ledger_speed.iter().flat_map(LedgerSpeed::sheets);
        let others = [
            self.decide.as_ref().map(Decide::sheet),
            self.latency.as_ref().map(Latency::sheet),
            self.overload.as_ref().map(Overload::sheet),
            self.growth.as_ref().map(Growth::sheet),
            self.rewrap.as_ref().map(Rewrap::sheet),
            self.retention.as_ref().map(Retention::sheet),
            self.questions.as_ref().map(Questions::sheet),
        ];
        stored.into_iter().flatten().chain(ledger_speed).chain(others.into_iter().flatten()).collect()
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let parts = [
            ("peers", (!self.peers.is_empty()).then(|| self.peers.document())),
            ("disk", self.footprint.as_ref().map(Footprint::document)),
            ("ledger", self.ledger.as_ref().map(Ledger::document)),
            ("ledger_speed", self.ledger_speed.as_ref().map(LedgerSpeed::document)),
            ("decide", self.decide.as_ref().map(Decide::document)),
            ("latency", self.latency.as_ref().map(Latency::document)),
            ("overload", self.overload.as_ref().map(Overload::document)),
            ("growth", self.growth.as_ref().map(Growth::document)),
            ("rewrap", self.rewrap.as_ref().map(Rewrap::document)),
            ("retention", self.retention.as_ref().map(Retention::document)),
            ("questions", self.questions.as_ref().map(Questions::document)),
        ];
        let mut document = Map::new();
        document.insert("machine".to_owned(), self.machine.document());
        document.insert("setting".to_owned(), self.setting.clone());
        document.insert("loads".to_owned(), self.lines.document());
        for (name, part) in parts {
            document.insert(name.to_owned(), part.unwrap_or(Value::Null));
        }
        document.insert("goals".to_owned(), goals::document(&self.goals()));
        document.insert("note".to_owned(), (!self.notes.is_empty()).then(|| self.notes.join("; ")).into());
        Value::Object(document)
    }

    /// As tables. Of the goals, those that were measured.
    pub fn text(&self) -> String {
        let mut measured = self.goals();
        let all = measured.len();
        measured.retain(|goal| goal.verdict() != goals::Verdict::NotMeasured);
        let mut goals = goals::sheet(&measured);
        if measured.len() < all {
            goals.below.push_str(&format!(
                " {} more goals were not measured: `strongroom bench --all`, with --peers for those against other products.",
                all - measured.len()
            ));
        }
        let mut texts: Vec<String> = self.sheets().iter().chain([&goals]).map(Sheet::text).collect();
        texts.extend(self.notes.iter().map(|note| format!("NOTE: {note}")));
        texts.join("\n\n")
    }

    /// How it was measured, in words.
    fn how(&self) -> String {
        let number = |name: &str| self.setting.get(name).and_then(Value::as_f64);
        let of = |name: &str| figure(number(name).unwrap_or(f64::NAN), 0);
        let lasted = match number("seconds") {
            Some(seconds) => format!("goes on for {seconds} s"),
            None => format!("has {} requests of one value, or {} batches", of("unary_requests"), of("batches")),
        };
        let runs = match of("runs").as_str() {
            "1" => "Each load was measured once".to_owned(),
            runs => format!("Each load was measured {runs} times, and medians are shown with the least and the most"),
        };
        format!(
            "{runs}. A run of a load {lasted}, after {} s of warm-up. Requests of one value: {} under way over {} connections. \
             Batches of 1,000: {} under way; of 10 and 100: up to four times as many; on a stream: four messages a connection. \
             A load `over 16` has 16 connections with one request under way on each, as the peers' clients have. Latency against load, overload, growth, rewrap and retention have runs of {} s. {} values of borrowers are stored \
             beforehand, for batches to read, and {} that are nobody's, for requests of one value. The export of the ledger that is verified \
             and converted has {} leaves.",
            number("warm_up_seconds").unwrap_or_default(),
            of("unary_in_flight"),
            of("connections"),
            of("batches_in_flight"),
            number("part_seconds").unwrap_or_default(),
            of("stored_values"),
            of("stored_single_values"),
            of("leaves"),
        )
    }

    /// As BENCHMARKS.md. `command` is how it was made, `picture` where the plot is, `profile` what is kept by hand.
    pub fn markdown(&self, command: &str, picture: Option<&Path>, profile: &str) -> String {
        let note: String = self.notes.iter().map(|note| format!("\n**{note}**\n")).collect();
        let sheets: Vec<String> = self.sheets().iter().map(Sheet::markdown).collect();
        let goals = goals::sheet(&self.goals()).markdown();
        let picture = picture.filter(|_| self.latency.is_some());
        let picture =
            picture.map(|file| format!("\n![Latency against load]({})\n", file.display())).unwrap_or_default();
        format!(
            "# Benchmarks\n\nWhat this vault does on a given machine, and what it is held against, measured in turn in one run:\n\n    \
             {command}\n\n{}\n\n{}\n{note}\n{goals}\n## Machine and versions\n\n{}\n## The workload\n\n{}\n\n{}\n{picture}\n{}\n",
            wrapped(FORMS, 120),
            wrapped(&self.how(), 120),
            self.machine.markdown(),
            wrapped(WORKLOAD, 120),
            sheets.join("\n"),
            profile.trim_end(),
        )
    }
}

const FORMS: &str = "\
`deploy/bench/run` makes this file: it builds, installs the peers, and measures for about twenty minutes. `strongroom bench` alone \
takes about half a minute and shows the first tables; `strongroom bench --help` names the parts, and the load generator's \
options for a vault that is running.";

/// The workload in words, for the report.
const WORKLOAD: &str = "\
**Values.** Every value has exactly 32 bytes. The lending schema is in force, and beside its own fields the six of a borrower \
as texts of that length (`src/cli/bench/measured.toml`): two keyrings, two of the six with equality lookup, opaque tokens. A \
new borrower costs 3 DEKs, 7 AES-256-GCM sealings and 16 entries beside the ledger's. One value a request: values without \
subject, each with a DEK of its own. Batches: whole borrowers, and of the last one what still fits.\n\
\n\
**Reads** ask for plain values of a fixed set that was stored before: uniformly, or by Zipf's law with exponent 0.99. A batch \
reads whole borrowers, each once. Half of the values that Match compares are the stored ones.\n\
\n\
**Road.** gRPC over mutual TLS 1.3 on the loopback. Every write is synced before it is answered, and every request, reads too, \
has its entry in the ledger. Clients, vault and yardsticks share the machine's processors; a load is measured in turn, run for \
run, on the vault and on the yardsticks whose lines stand below its own.\n\
\n\
**Yardsticks.** (a) *echo*: tonic and rustls as they come, with the same messages, certificates, HTTP/2 windows and runtime; it \
decodes a request and answers with as many values of the same length. (b) *seals + entries*: the same DEKs, sealings, blind-index MACs and store entries, \
with a ledger-sized entry for each request, written durably in one process: no connection, validation, policy, guards or \
committer. Reads: the rows, subjects and keys fetched, decoded, opened, and a ledger-sized entry written; and again *without \
ledger*, nothing written. Peers, on the loopback without TLS: OpenBao with raft storage and its audit file, which it does not \
sync; PostgreSQL with pgcrypto, without audit.\n\
\n\
**The ledger** by itself, in the same process and without a vault: leaves of made-up requests of one value, half in and half out, \
one in sixteen refused, by the preparation that the vault uses. They are *appended* by a committer of their own, to a store of its \
own, with group commit, sync and head file; its yardstick writes the entries of the same groups raw. An export of such leaves is \
*verified* as `audit verify` does it, all checks included; its yardstick only reads the lines and hashes them into the tree. And it \
is *converted* to Parquet, by a process of its own that measures its memory; its yardstick copies the lines.\n\
\n\
**Processor time** is that of a server's whole process without the threads that play its clients, until memtables are written \
to files and compactions have ended, for vault and bare work alike; it is the figure to compare. A vault in a process of its \
own, in the later tables, and the peers are measured while the load runs, in ticks of 10 ms.\n\
\n\
**Turned away** is what the vault refused for want of room, with UNAVAILABLE. It has no latency, so it is in no percentile: \
where a load may be turned away, its share has a column of its own, and elsewhere one such request ends the measurement.";

/// By which measure a goal compares the vault with another product.
#[derive(Clone, Copy)]
enum On {
    /// For a second of the server's processor time.
    Processor,
    /// For a second of the clock.
    Clock,
}

impl On {
    fn other(self) -> Self {
        match self {
            Self::Processor => Self::Clock,
            Self::Clock => Self::Processor,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Processor => "values/CPU s",
            Self::Clock => "values/s",
        }
    }

    fn of_vault(self) -> fn(&Sample) -> f64 {
        match self {
            Self::Processor => Sample::items_per_server_cpu_second,
            Self::Clock => Sample::items_per_second,
        }
    }

    fn of_peer(self) -> fn(&PeerLoad) -> f64 {
        match self {
            Self::Processor => |load| load.items_per_server_cpu_second,
            Self::Clock => |load| load.items_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::bench::goals::Verdict;

    fn empty() -> Whole {
        Whole {
            machine: Machine::look(Path::new(".")),
            setting: json!({}),
            lines: Lines::default(),
            footprint: None,
            ledger: None,
            ledger_speed: None,
            decide: None,
            latency: None,
            overload: None,
            growth: None,
            rewrap: None,
            retention: None,
            questions: None,
            peers: Peers::none(),
            notes: vec![],
        }
    }

    #[test]
    fn every_goal_stands_in_the_report_though_nothing_was_measured() {
        let whole = empty();
        assert_eq!(whole.goals().len(), 28);
        assert!(whole.goals().iter().all(|goal| goal.verdict() == Verdict::NotMeasured));
        let report = whole.markdown("deploy/bench/run", None, "## What is left, by the profile\n\nNothing.\n");
        assert_eq!(report.matches("| not measured |").count(), 28);
        assert!(report.ends_with("## What is left, by the profile\n\nNothing.\n"));
        assert!(report.lines().filter(|line| !line.starts_with('|')).all(|line| line.len() <= 125), "{report}");
        assert_eq!(whole.document()["growth"], Value::Null);
        assert!(whole.text().contains("28 more goals were not measured"));
    }

    #[test]
    fn the_vault_is_held_against_the_echo_of_the_same_load() {
        let mut whole = empty();
        for (measured, micros) in [(Measured::Vault, 30), (Measured::Echo, 12)] {
            let sample = Sample {
                requests: 1_000,
                items: 1_000,
                wall: std::time::Duration::from_secs(1),
                server_cpu: Some(std::time::Duration::from_micros(1_000 * micros)),
                client_cpu: std::time::Duration::ZERO,
                written: None,
                latencies: crate::cli::bench::measure::latencies(),
            };
            whole.lines.add("tokenize_unary", measured, sample);
        }
        let goal = &whole.goals()[0];
        assert_eq!((goal.ratio(), goal.verdict()), (Some(2.5), Verdict::NotMet));
        assert_eq!(whole.goals()[1].verdict(), Verdict::NotMeasured);
    }
}
