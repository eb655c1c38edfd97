//! The peers: other products that are measured in turn with the vault, by executables that stand in one folder.
//!
//! Each takes four verbs: `install`, `start STATE`, `measure STATE --seconds N`, which prints one JSON document, and
//! `stop STATE`. What was started is stopped whatever happens.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use super::measure::Middle;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, short, spread};
use crate::cli::anew::make_anew;
use crate::cli::output::CliError;

/// The executables, each with the name that the report uses.
const PEERS: [(&str, &str); 2] = [("openbao", "OpenBao"), ("postgres", "PostgreSQL")];

/// What a peer prints of one run.
#[derive(Clone, Debug, Deserialize)]
pub struct Measurement {
    /// Its name.
    pub peer: String,
    /// Its version.
    pub version: String,
    /// Its loads.
    pub loads: Vec<PeerLoad>,
}

/// One load of a peer.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerLoad {
    /// `transit_encrypt`.
    pub load: String,
    /// Connections, each with one request under way.
    pub connections: u64,
    /// Values of a request.
    pub items_per_request: u64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Values a second.
    pub items_per_second: f64,
    /// Microseconds of processor time of the peer for a request.
    pub server_cpu_us_per_request: f64,
    /// Requests a second of its processor time.
    pub requests_per_server_cpu_second: f64,
    /// Values a second of its processor time.
    pub items_per_server_cpu_second: f64,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
}

/// Peers that run. They are stopped when this is dropped.
pub struct Peers {
    running: Vec<Peer>,
    /// What they told, run after run.
    told: Vec<Measurement>,
}

struct Peer {
    name: &'static str,
    program: PathBuf,
    state: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Whoever stops has no use for an error; what is left is said by the peer itself.
        let _ = command(&self.program, "stop", &self.state).stdin(Stdio::null()).stdout(Stdio::null()).status();
    }
}

impl Peers {
    /// None.
    pub fn none() -> Self {
        Self { running: vec![], told: vec![] }
    }

    /// Installs and starts those whose executables are in a folder, with all their state in another one, which is made
    /// anew.
    pub async fn start(folder: &Path, state: &Path) -> Result<Self, CliError> {
        let mut found = Vec::new();
        for (file, name) in PEERS {
            let program = folder.join(file);
            if program.is_file() {
                let program = program.canonicalize().map_err(|error| CliError::file(&program, error))?;
                found.push(Peer { name, program, state: state.join(file) });
            }
        }
        if found.is_empty() {
            let folder = folder.display();
            return Err(CliError::Usage(format!("--peers {folder}: it holds no executable openbao or postgres")));
        }
        // What an earlier run left behind, if it was killed, still runs in there.
        for peer in found.iter().filter(|peer| peer.state.exists()) {
            run(peer.name, &mut command(&peer.program, "stop", &peer.state)).await?;
        }
        make_anew(state, "bench")?;
        // PostgreSQL runs as a user of its own where root starts it, and passes through; each peer guards its own folder.
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(state, passable).map_err(|error| CliError::file(state, error))?;
        let mut peers = Self::none();
        for peer in found {
            run(peer.name, &mut command(&peer.program, "install", Path::new(""))).await?;
            let mut start = command(&peer.program, "start", &peer.state);
            let name = peer.name;
            // Before its start: what is half started is stopped too.
            peers.running.push(peer);
            run(name, &mut start).await?;
        }
        Ok(peers)
    }

    /// Stops them; what they told stays.
    pub fn stop(&mut self) {
        self.running.clear();
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.running.len() as u64
    }

    /// Measures one of them once.
    pub async fn measure(&mut self, number: usize, seconds: f64) -> Result<(), CliError> {
        let Some(peer) = self.running.get(number) else { return Ok(()) };
        let mut command = command(&peer.program, "measure", &peer.state);
        command.args(["--seconds", &format!("{}", seconds.ceil().max(1.0))]);
        let printed = run(peer.name, &mut command).await?;
        let told = serde_json::from_slice(&printed)
            .map_err(|error| CliError::unfit(format!("{} printed no measurement: {error}", peer.program.display())))?;
        self.told.push(told);
        Ok(())
    }

    /// The name of one of them.
    pub fn name(&self, number: usize) -> &'static str {
        self.running.get(number).map_or("", |peer| peer.name)
    }

    /// A figure of a load over the runs; nothing if it was not measured.
    pub fn figure(&self, load: &str, figure: impl Fn(&PeerLoad) -> f64) -> Option<Middle> {
        Middle::of(self.told.iter().flat_map(|told| &told.loads).filter(|one| one.load == load).map(figure)).told()
    }

    /// Each peer's version.
    pub fn versions(&self) -> Vec<(&'static str, String)> {
        let version = |file: &str| self.told.iter().find(|told| told.peer.eq_ignore_ascii_case(file));
        let all = PEERS.iter().filter_map(|(file, name)| Some((*name, version(file)?.version.clone())));
        all.collect()
    }

    /// Whether none was measured.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Every load once, with the peer's name.
    fn loads(&self) -> Vec<(&str, &PeerLoad)> {
        let mut loads: Vec<(&str, &PeerLoad)> = Vec::new();
        for told in &self.told {
            for load in &told.loads {
                if !loads.iter().any(|(_, seen)| seen.load == load.load) {
                    loads.push((&told.peer, load));
                }
            }
        }
        loads
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let loads = self.loads().into_iter().map(|(peer, load)| {
            let all = |figure: fn(&PeerLoad) -> f64| self.figure(&load.load, figure);
            let of = |figure: fn(&PeerLoad) -> f64| all(figure).map(|middle| rounded(middle.median));
            json!({
                "peer": peer,
                "load": load.load,
                "connections": load.connections,
                "items_per_request": load.items_per_request,
                "requests_per_second": of(|load| load.requests_per_second),
                "items_per_second": of(|load| load.items_per_second),
                "server_cpu_us_per_request": of(|load| load.server_cpu_us_per_request),
                "requests_per_server_cpu_second": of(|load| load.requests_per_server_cpu_second),
                "items_per_server_cpu_second": of(|load| load.items_per_server_cpu_second),
                "p50_ms": of(|load| load.p50_ms),
                "p99_ms": of(|load| load.p99_ms),
                "items_per_second_ends": all(|load| load.items_per_second).map(ends),
                "items_per_server_cpu_second_ends": all(|load| load.items_per_server_cpu_second).map(ends),
            })
        });
        loads.collect()
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        let rows = self.loads().into_iter().map(|(peer, load)| {
            let of = |of: fn(&PeerLoad) -> f64, written: fn(f64) -> String| {
                self.figure(&load.load, of).map_or_else(String::new, |middle| spread(middle, written))
            };
            let (whole, millis) = (|number: f64| figure(number, 0), |number: f64| figure(number, 2));
            vec![
                format!("{peer}: {}", load.load.replace('_', " ")),
                load.connections.to_string(),
                load.items_per_request.to_string(),
                of(|load| load.items_per_second, whole),
                of(|load| load.requests_per_second, whole),
                of(|load| load.p50_ms, millis),
                of(|load| load.p99_ms, millis),
                of(|load| load.server_cpu_us_per_request, short),
                of(|load| load.items_per_server_cpu_second, whole),
            ]
        });
        Sheet {
            title: "Peers",
            header: vec![
                "load",
                "connections",
                "values a request",
                "values/s",
                "requests/s",
                "p50 ms",
                "p99 ms",
                "CPU us/request",
                "values/CPU second",
            ],
            rows: rows.collect(),
            below: format!(
                "Measured in turn with the vault, run for run. {SPREAD} CPU is that of all their processes while the load \
                 runs: what they leave to be written back later is not in it, which is to their advantage."
            ),
        }
    }
}

/// A peer's executable with a verb and, unless that is empty, a folder. This process lets nobody else read what it writes,
/// which is not what installing a package needs: so the usual file modes come back, and each peer guards its own state.
fn command(program: &Path, verb: &str, state: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"umask 022; exec "$0" "$@""#]).arg(program).arg(verb);
    if !state.as_os_str().is_empty() {
        command.arg(state);
    }
    command
}

/// Runs a peer's executable on a thread that may wait; brings what it printed. What it says on standard error is shown.
async fn run(name: &'static str, command: &mut Command) -> Result<Vec<u8>, CliError> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| CliError::unfit(format!("{name} can't be run: {error}")))?;
    let verb = command.get_args().nth(3).unwrap_or_default().to_string_lossy().into_owned();
    let output = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut printed = Vec::new();
        let read = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut printed));
        read.and_then(|_| child.wait()).map(|status| (status, printed))
    });
    match output.await {
        Ok(Ok((status, printed))) if status.success() => Ok(printed),
        Ok(Ok((status, _))) => Err(CliError::unfit(format!("{name}: `{verb}` ended with {status}"))),
        Ok(Err(error)) => Err(CliError::unfit(format!("{name}: `{verb}` can't be waited for: {error}"))),
        Err(error) => Err(CliError::unfit(format!("{name}: `{verb}` stopped: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that notes what it was told to do.
    const FAKE: &str = r#"#!/bin/sh
echo "$1" >> "$(dirname "$0")/log"
case "$1" in
    measure) cat <<'END'
{"peer":"openbao","version":"1.2","loads":[{"load":"kv_put","connections":64,"items_per_request":1,
"requests_per_second":1200.5,"items_per_second":1200.5,"server_cpu_us_per_request":800.0,
"requests_per_server_cpu_second":1250.0,"items_per_server_cpu_second":1250.0,"p50_ms":40.0,"p99_ms":90.0}]}
END
    ;;
    start) test ! -e "$(dirname "$0")/broken" ;;
esac
"#;

    fn fake() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("openbao");
        std::fs::write(&program, FAKE).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn log(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("log")).unwrap().replace('\n', " ")
    }

    #[tokio::test]
    async fn a_peer_is_measured_and_stopped() {
        let folder = fake();
        let mut peers = Peers::start(folder.path(), &folder.path().join("state")).await.unwrap();
        assert_eq!((peers.len(), peers.name(0)), (1, "OpenBao"));
        peers.measure(0, 1.0).await.unwrap();
        assert_eq!(peers.figure("kv_put", |load| load.requests_per_second), Some(1200.5.into()));
        assert_eq!(peers.figure("transit_encrypt", |load| load.requests_per_second), None);
        assert_eq!(peers.versions(), [("OpenBao", "1.2".to_owned())]);
        drop(peers);
        assert_eq!(log(folder.path()), "install start measure stop ");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_start_is_stopped_too() {
        let folder = fake();
        std::fs::write(folder.path().join("broken"), "").unwrap();
        let started = Peers::start(folder.path(), &folder.path().join("state")).await;
        assert!(started.is_err_and(|error| error.to_string().contains("`start` ended")));
        assert_eq!(log(folder.path()), "install start stop ");
        let empty = tempfile::tempdir().unwrap();
        assert!(Peers::start(empty.path(), empty.path()).await.is_err());
    }
}
