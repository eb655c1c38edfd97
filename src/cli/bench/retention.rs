//! Retention: what it takes to erase subjects whose values are due, alone and while callers read.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use strongroom_proto::v1::vault_client::VaultClient;
use strongroom_proto::v1::{StartExpireRequest, TokenizeItem, TokenizeRequest};

use super::bars::Bars;
use super::child::Child;
use super::growth;
use super::latency::{self, Pacing};
use super::measure::Middle;
use super::rewrap::{PART, SINGLES, Seen, ended, under_way};
use super::rig::{Filling, Values};
use super::served;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded};
use crate::cli::client::{Context, Wire};
use crate::cli::dev;
use crate::cli::keys;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;

/// The field of the values that fall due, and how many a request stores.
const FIELD: &str = "borrower.address";
const BATCH: u64 = 1_000;
/// How long a value lives: long enough to come to be stored.
const LIVES: Duration = Duration::from_secs(10);
/// All that is due goes, and only when it is asked for: that is what is measured.
const CONFIG: &str = "\n[retention]\nevery_hours = 0\ncap_percent = 100\n";

/// Erasing by retention, measured.
pub struct Retention {
    /// Subjects that went while nobody else was there, with one value each.
    subjects: u64,
    /// Seconds, and processor seconds of the vault.
    alone: (f64, Option<f64>),
    /// Requests a second that callers asked for then.
    rate: f64,
    /// What callers saw: without the job, and with it.
    without: Vec<Seen>,
    with: Vec<Seen>,
    /// Subjects a second that went in company.
    beside: f64,
}

impl Retention {
    /// Bars' steps that it takes.
    pub fn steps(pacing: Pacing) -> u64 {
        2 + latency::steps_of_most(pacing.runs) + 2 * u64::from(pacing.runs)
    }

    /// Makes a vault in a folder, and measures it.
    pub async fn measure(folder: &Path, subjects: u64, pacing: Pacing, bars: &Bars) -> Result<Self, CliError> {
        let layout = Layout::new(folder.join("erased"));
        dev::make(&layout).await?;
        let config = layout.config();
        let opened = std::fs::OpenOptions::new().append(true).open(&config);
        let added = opened.and_then(|mut file| file.write_all(CONFIG.as_bytes()));
        added.map_err(|error| CliError::file(&config, error))?;
        let vault = Child::start(&layout).await?;
        let target = vault.target();
        let endpoint = target.context.connect.endpoint.clone();
        let officer = served::context(&endpoint, &layout, "officer-1");
        served::apply_schema(&officer).await?;
        let mut values = Values::default();
        Filling { target: &target, bars }.singles(SINGLES, &mut values).await?;

        let app = served::context(&endpoint, &layout, "app");
        let mut due = Due { app, stored: 0 };
        due.store(subjects).await?;
        growth::settled(&vault).await;
        let bar = bars.begin("retention");
        let (began, before) = (Instant::now(), vault.process().cpu());
        let name = start(&officer).await?;
        let job = keys::watch(name, &officer).await?;
        let cpu = vault.process().cpu().zip(before).map(|(after, before)| (after - before).as_secs_f64());
        let alone = (began.elapsed().as_secs_f64(), cpu);
        bars.end(&bar);

        let rate = latency::most(&target, &values, pacing, bars).await?.median * PART;
        let mut keys = officer.keys().await?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let (mut erased, mut time) = (0, Duration::ZERO);
        for _ in 0..pacing.runs {
            due.store(subjects).await?;
            growth::settled(&vault).await;
            let calm = latency::at(&target, &values, pacing, rate, false, bars).await?;
            let name = start(&officer).await?;
            let before = under_way(&mut keys, &name).await?;
            let began = Instant::now();
            let busy = latency::at(&target, &values, pacing, rate, false, bars).await?;
            let job = ended(&mut keys, &name).await?;
            time += began.elapsed();
            erased += job.done - before;
            without.push(Seen::of(&calm));
            with.push(Seen::of(&busy));
        }
        vault.end().await?;
        std::fs::remove_dir_all(layout.dir()).map_err(|error| CliError::file(layout.dir(), error))?;
        let beside = erased as f64 / time.as_secs_f64();
        Ok(Self { subjects: job.done, alone, rate, without, with, beside })
    }

    /// p99 while subjects go, over the runs, and without, the best of them.
    pub fn p99(&self) -> (Middle, f64) {
        Seen::p99(&self.with, &self.without)
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let (with, without) = self.p99();
        json!({
            "subjects": self.subjects,
            "seconds": rounded(self.alone.0),
            "cpu_seconds": self.alone.1.map(rounded),
            "subjects_per_second": rounded(self.subjects as f64 / self.alone.0),
            "callers_requests_per_second": rounded(self.rate),
            "p99_ms_without": rounded(without),
            "p99_ms_with": rounded(with.median),
            "p99_ms_with_ends": ends(with),
            "shed_share_with": rounded(Seen::shed(&self.with)),
            "subjects_per_second_beside_callers": rounded(self.beside),
        })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let cpu = self.alone.1.map_or_else(String::new, |cpu| format!(" and {} s of processor time", figure(cpu, 1)));
        Sheet {
            title: "Retention",
            header: Seen::HEADER.to_vec(),
            rows: vec![Seen::row("without the job", &self.without), Seen::row("while subjects are erased", &self.with)],
            below: format!(
                "Alone, {} subjects whose only value was due were erased in {} s{cpu}, counted beforehand, from the call until \
                 it was told as done: {} subjects/s. Callers: {} requests/s, {:.0} % of saturation, as in \"Latency against \
                 load\", one run without and one with the job in turn. It makes way for them: {} subjects/s. {SPREAD}",
                figure(self.subjects as f64, 0),
                figure(self.alone.0, 1),
                figure(self.subjects as f64 / self.alone.0, 0),
                figure(self.rate, 0),
                PART * 100.0,
                figure(self.beside, 0),
            ),
        }
    }
}

/// Subjects whose only value is due.
struct Due {
    app: Context,
    stored: u64,
}

impl Due {
    /// Stores so many more, and waits until they are due.
    async fn store(&mut self, subjects: u64) -> Result<(), CliError> {
        let mut vault: VaultClient<Wire> = self.app.vault().await?;
        let end = self.stored + subjects;
        while self.stored < end {
            let batch = self.stored..end.min(self.stored + BATCH);
            self.stored = batch.end;
            let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + LIVES;
            let seconds = soon.as_secs().try_into().unwrap_or(i64::MAX);
            let expire_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
            let item = |number: u64| TokenizeItem {
                field: FIELD.to_owned(),
                value: format!("No. {number:028}").into(),
                subject: format!("due-{number}"),
                expire_time,
                token: String::new(),
            };
            let request = TokenizeRequest { items: batch.map(item).collect(), idempotency_key: String::new() };
            vault.tokenize(request).await?;
        }
        tokio::time::sleep(LIVES).await;
        Ok(())
    }
}

async fn start(officer: &Context) -> Result<String, CliError> {
    let request = StartExpireRequest { up_to: 0 };
    Ok(officer.subjects().await?.start_expire(request).await?.into_inner().name)
}
