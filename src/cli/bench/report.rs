//! A load on each measured server: medians over the runs, and the vault in units of the others.

use serde_json::{Map, Value, json};

use super::measure::{Middle, Sample};
use super::sheet::{SPREAD, Sheet, figure, rounded, short, spread};

/// Who was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// Its name in the JSON document.
    pub fn name(self) -> &'static str {
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
const FIGURES: [(&str, Figure); 10] = [
    ("items_per_second", Sample::items_per_second),
    ("requests_per_second", Sample::requests_per_second),
    ("p50_us", |sample| sample.latency(0.5)),
    ("p99_us", |sample| sample.latency(0.99)),
    ("p999_us", |sample| sample.latency(0.999)),
    ("server_cpu_us_per_request", Sample::server_cpu_per_request),
    ("server_cpu_us_per_item", Sample::server_cpu_per_item),
    ("items_per_server_cpu_second", Sample::items_per_server_cpu_second),
    ("client_cpu_us_per_request", Sample::client_cpu_per_request),
    ("written_bytes_per_item", Sample::written_per_item),
];

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
    /// A figure over the runs.
    pub fn middle(&self, figure: impl Fn(&Sample) -> f64) -> Middle {
        Middle::of(self.samples.iter().map(figure))
    }

    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        self.middle(figure).median
    }

    fn document(&self, vault: Option<&Self>) -> Value {
        let figures = |of: &dyn Fn(Figure) -> f64| -> Map<String, Value> {
            FIGURES.iter().map(|(name, figure)| ((*name).to_owned(), rounded(of(*figure)))).collect()
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
            Measured::Vault => self.load.replace('_', " "),
            other => other.title().to_owned(),
        };
        let over_the_wire = matches!(self.measured, Measured::Vault | Measured::Echo);
        let shown = |of: Figure, digits: usize| spread(self.middle(of), |number| figure(number, digits));
        let about = |of: Figure| spread(self.middle(of), short);
        let (speed, cpu) = match vault.filter(|_| self.measured != Measured::Vault) {
            Some(vault) => {
                let (speed, cpu) = self.ratios(vault);
                (figure(speed, 3), figure(cpu, 2))
            }
            None => (String::new(), String::new()),
        };
        vec![
            name,
            shown(Sample::items_per_second, 0),
            shown(Sample::requests_per_second, 0),
            shown(|sample| sample.latency(0.5) / 1_000.0, 2),
            shown(|sample| sample.latency(0.99) / 1_000.0, 2),
            about(Sample::server_cpu_per_request),
            about(Sample::server_cpu_per_item),
            if over_the_wire { about(Sample::client_cpu_per_request) } else { String::new() },
            about(Sample::written_per_item),
            speed,
            cpu,
        ]
    }
}

/// All loads on all servers.
#[derive(Default)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// Notes one run of a load.
    pub fn add(&mut self, load: &'static str, measured: Measured, sample: Sample) {
        match self.0.iter_mut().find(|line| line.load == load && line.measured == measured) {
            Some(line) => line.samples.push(sample),
            None => self.0.push(Line { load, measured, samples: vec![sample] }),
        }
    }

    /// A figure of a load on a server over the runs; nothing if that was not measured.
    pub fn figure(&self, load: &str, measured: Measured, figure: impl Fn(&Sample) -> f64) -> Option<Middle> {
        let line = self.0.iter().find(|line| line.load == load && line.measured == measured)?;
        line.middle(figure).told()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn vault(&self, load: &str) -> Option<&Line> {
        self.0.iter().find(|line| line.load == load && line.measured == Measured::Vault)
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        self.0.iter().map(|line| line.document(self.vault(line.load))).collect()
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let header = vec![
            "load",
            "values/s",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU us/request",
            "CPU us/value",
            "client CPU us/request",
            "written B/value",
            "vault: speed",
            "vault: CPU",
        ];
        Sheet {
            title: "Loads",
            header,
            rows: self.0.iter().map(|line| line.row(self.vault(line.load))).collect(),
            below: format!(
                "{SPREAD} CPU is processor time of the whole process, all threads, without the clients' own threads, until \
                 memtables were written and compactions had ended. Written are bytes that the process sent to its disk until \
                 then (write_bytes in /proc): log, files, compactions. The last two columns: the vault's median values/s and \
                 CPU a value, in units of that line's. Latencies of (b) are those of a whole group of requests. A load of \
                 which a request was turned away ends the measurement, so none is missing from these figures."
            ),
        }
    }
}
