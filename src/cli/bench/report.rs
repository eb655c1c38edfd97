//! What the benchmark says: a line for each load and measured server, medians over the runs, and ratios.

use serde_json::{Map, Value, json};

use super::disk::Contents;
use super::measure::{Sample, median};
use crate::cli::output::table;

/// Who was measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// The vault, over mutual TLS.
    Vault,
    /// The echo, over mutual TLS.
    Echo,
    /// Seals and entries, in the process.
    Direct,
    /// The same without an entry for the ledger: reads only.
    WithoutLedger,
}

impl Measured {
    fn name(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Echo => "echo",
            Self::Direct => "direct",
            Self::WithoutLedger => "direct_without_ledger",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Echo => "  (a) echo, mTLS",
            Self::Direct => "  (b) seals + entries",
            Self::WithoutLedger => "  (b) without ledger",
        }
    }
}

/// What is said of a sample.
type Figure = fn(&Sample) -> f64;

/// The figures of the JSON document, by their names there.
const FIGURES: [(&str, Figure); 7] = [
    ("items_per_second", Sample::items_per_second),
    ("requests_per_second", Sample::requests_per_second),
    ("p50_us", |sample| sample.latency(0.5)),
    ("p99_us", |sample| sample.latency(0.99)),
    ("server_cpu_us_per_request", Sample::server_cpu_per_request),
    ("server_cpu_us_per_item", Sample::server_cpu_per_item),
    ("client_cpu_us_per_request", Sample::client_cpu_per_request),
];

fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

/// One load on one server, over all runs.
pub struct Line {
    /// `tokenize_unary`.
    pub load: &'static str,
    /// Who answered it.
    pub measured: Measured,
    /// The runs.
    pub samples: Vec<Sample>,
}

impl Line {
    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }

    fn document(&self, vault: Option<&Self>) -> Value {
        let figures = |of: &dyn Fn(Figure) -> f64| -> Map<String, Value> {
            FIGURES.iter().map(|(name, figure)| ((*name).to_owned(), json!(rounded(of(*figure))))).collect()
        };
        let runs: Vec<_> = self.samples.iter().map(|sample| figures(&|figure| figure(sample))).collect();
        let ratios = vault.filter(|_| self.measured != Measured::Vault).map(|vault| {
            let (speed, cpu) = self.ratios(vault);
            json!({ "items_per_second": rounded(speed), "server_cpu_per_item": rounded(cpu) })
        });
        json!({
            "load": self.load,
            "measured": self.measured.name(),
            "requests": self.samples.first().map(|sample| sample.requests),
            "items": self.samples.first().map(|sample| sample.items),
            "median": figures(&|figure| self.median(figure)),
            "vault_to_this": ratios,
            "runs": runs,
        })
    }

    /// How fast the vault is, and how much processor time it takes, in units of this line.
    fn ratios(&self, vault: &Self) -> (f64, f64) {
        (
            vault.median(Sample::items_per_second) / self.median(Sample::items_per_second),
            vault.median(Sample::server_cpu_per_item) / self.median(Sample::server_cpu_per_item),
        )
    }

    fn row(&self, vault: Option<&Self>) -> Vec<String> {
        let name = match self.measured {
            Measured::Vault => self.load.replace('_', ", "),
            other => other.title().to_owned(),
        };
        let over_the_wire = matches!(self.measured, Measured::Vault | Measured::Echo);
        let millis = |quantile| format!("{:.2}", self.median(|sample| sample.latency(quantile)) / 1_000.0);
        let (speed, cpu) = match vault.filter(|_| self.measured != Measured::Vault) {
            Some(vault) => {
                let (speed, cpu) = self.ratios(vault);
                (format!("{speed:.3}"), format!("{cpu:.2}"))
            }
            None => (String::new(), String::new()),
        };
        vec![
            name,
            format!("{:.0}", self.median(Sample::items_per_second)),
            format!("{:.0}", self.median(Sample::requests_per_second)),
            millis(0.5),
            millis(0.99),
            format!("{:.1}", self.median(Sample::server_cpu_per_request)),
            format!("{:.2}", self.median(Sample::server_cpu_per_item)),
            if over_the_wire { format!("{:.1}", self.median(Sample::client_cpu_per_request)) } else { String::new() },
            speed,
            cpu,
        ]
    }
}

/// What a value takes on disk.
pub struct Disk {
    /// What was there after the fill.
    pub contents: Contents,
    /// Bytes on disk before it.
    pub before: u64,
    /// Values that were stored.
    pub values: u64,
    /// Bytes of those values in the clear.
    pub plain: u64,
}

impl Disk {
    fn a_value(&self, bytes: u64) -> f64 {
        bytes as f64 / self.values as f64
    }

    fn on_disk(&self) -> f64 {
        self.a_value(self.contents.on_disk.saturating_sub(self.before))
    }

    fn document(&self) -> Value {
        let families = self.contents.families.iter().map(|(family, entries, bytes)| {
            json!({
                "family": family.name(),
                "entries_per_value": self.a_value(*entries),
                "bytes_per_value": self.a_value(*bytes),
            })
        });
        json!({
            "values": self.values,
            "plain_bytes_per_value": self.a_value(self.plain),
            "disk_bytes_per_value": self.on_disk(),
            "families": families.collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let rows =
            self.contents.families.iter().filter(|(_, entries, _)| *entries > 0).map(|(family, entries, bytes)| {
                vec![
                    family.name().to_owned(),
                    format!("{:.3}", self.a_value(*entries)),
                    format!("{:.1}", self.a_value(*bytes)),
                ]
            });
        let families = table(&["family", "entries a value", "bytes a value, uncompressed"], rows);
        format!(
            "{families}\n\nOn disk, compacted: {:.0} bytes a value ({} values of {:.0} bytes, tokenized in batches).",
            self.on_disk(),
            self.values,
            self.a_value(self.plain)
        )
    }
}

/// All that was measured.
pub struct Report {
    /// How it was measured.
    pub setting: Value,
    /// What.
    pub lines: Vec<Line>,
    /// What it takes on disk.
    pub disk: Disk,
    /// What to keep in mind, if anything.
    pub note: Option<&'static str>,
}

impl Report {
    /// Notes one run of a load.
    pub fn add(lines: &mut Vec<Line>, load: &'static str, measured: Measured, sample: Sample) {
        match lines.iter_mut().find(|line| line.load == load && line.measured == measured) {
            Some(line) => line.samples.push(sample),
            None => lines.push(Line { load, measured, samples: vec![sample] }),
        }
    }

    fn vault(&self, load: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.load == load && line.measured == Measured::Vault)
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(|line| line.document(self.vault(line.load))).collect();
        json!({ "setting": self.setting, "loads": lines, "disk": self.disk.document(), "note": self.note })
    }

    /// As tables.
    pub fn text(&self) -> String {
        let header = [
            "load",
            "values/s",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU us/request",
            "CPU us/value",
            "client CPU us/request",
            "vault: speed",
            "vault: CPU",
        ];
        let loads = table(&header, self.lines.iter().map(|line| line.row(self.vault(line.load))));
        let note = self.note.map(|note| format!("\n\nNOTE: {note}")).unwrap_or_default();
        format!(
            "{loads}\n\nMedians over the runs. CPU is processor time of the whole process, all threads, without the \
             clients' own threads.\nThe last two columns: the vault's values/s and CPU a value, in units of that line.\n\n{}{note}",
            self.disk.text()
        )
    }
}
