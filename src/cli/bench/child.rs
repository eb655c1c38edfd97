//! A vault in a process of its own: the same binary, as an operator starts it, until health says that it serves.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::load::Target;
use super::own::{self, ASK, Own};
use super::process::Process;
use super::served;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A vault for development, served by another process. It is killed when this is dropped.
pub struct Child {
    process: Own,
    address: String,
    layout: Layout,
    /// From the start of the process until health answered SERVING.
    pub started_in: Duration,
}

impl Child {
    /// Starts it on a vault's folder.
    pub async fn start(layout: &Layout) -> Result<Self, CliError> {
        let mut command = own::command()?;
        let began = Instant::now();
        let mut process = Own::start(command.arg("--dir").arg(layout.dir()).args(["dev", "--listen", "127.0.0.1:0"]))
            .map_err(|error| CliError::unfit(format!("another process can't start: {error}")))?;
        let said = process.prints();
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
        match self.process.ended().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(CliError::unfit(format!("the vault ended badly: {status}"))),
            Err(error) => Err(CliError::unfit(format!("the vault can't be waited for: {error}"))),
        }
    }

    /// Kills it at once, as kill -9 does: what it has not written is lost, what the system has taken from it is not.
    pub fn kill(self) {
        drop(self.process);
    }
}
