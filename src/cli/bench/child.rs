//! A vault in a process of its own: the same binary, as an operator starts it, until health says that it serves.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::load::Target;
use super::process::Process;
use super::served;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;

/// How often health is asked.
const ASK: Duration = Duration::from_millis(5);
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A vault for development, served by another process. It is killed when this is dropped.
pub struct Child {
    process: std::process::Child,
    address: String,
    layout: Layout,
    /// From the start of the process until health answered SERVING.
    pub started_in: Duration,
}

impl Child {
    /// Starts it on a vault's folder.
    pub async fn start(layout: &Layout) -> Result<Self, CliError> {
        let own = std::env::current_exe().map_err(|error| CliError::unfit(format!("where is this binary? {error}")))?;
        let began = Instant::now();
        let mut process = Command::new(own)
            .arg("--dir")
            .arg(layout.dir())
            .args(["dev", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| CliError::unfit(format!("another process can't start: {error}")))?;
        let said = process.stdout.take();
        let mut child = Self { process, address: String::new(), layout: layout.clone(), started_in: Duration::ZERO };
        child.address = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            said.map(|said| BufReader::new(said).read_line(&mut line));
            line.trim().strip_prefix("serving on ").map(str::to_owned)
        })
        .await
        .ok()
        .flatten()
        .ok_or_else(|| CliError::unfit("the vault in a process of its own did not say where it serves"))?;
        child.healthy(began).await?;
        child.started_in = began.elapsed();
        Ok(child)
    }

    async fn healthy(&self, began: Instant) -> Result<(), CliError> {
        let connect = served::context(&self.address, &self.layout, "app").connect;
        loop {
            if let Ok(channel) = connect.channel().await {
                let asked = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
                if asked.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving) {
                    return Ok(());
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(CliError::unfit("the vault in a process of its own does not become healthy"));
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// What clients call.
    pub fn target(&self) -> Target {
        let context = served::context(&self.address, &self.layout, "app");
        Target { context, process: self.process(), store: None }
    }

    /// The process.
    pub fn process(&self) -> Process {
        Process::Other(self.process.id())
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(mut self) -> Result<(), CliError> {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)
                .map_err(|error| CliError::unfit(format!("the vault can't be ended: {error}")))?;
        }
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(CliError::unfit(format!("the vault ended badly: {status}"))),
                Ok(None) => tokio::time::sleep(ASK).await,
                Err(error) => return Err(CliError::unfit(format!("the vault can't be waited for: {error}"))),
            }
        }
    }

    /// Kills it at once, as kill -9 does: what it has not written is lost, what the system has taken from it is not.
    pub fn kill(mut self) {
        self.strike();
    }

    fn strike(&mut self) {
        // It may have ended by itself, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.strike();
    }
}
