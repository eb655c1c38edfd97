//! This binary once more, in a process of its own.

use std::io;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::cli::output::CliError;

/// How often it is asked for what is waited for.
pub const ASK: Duration = Duration::from_millis(5);

/// A command of this binary: nothing comes in, and what it prints comes here.
pub fn command() -> Result<Command, CliError> {
    let own = std::env::current_exe().map_err(|error| CliError::unfit(format!("where is this binary? {error}")))?;
    let mut command = Command::new(own);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// A process. It is killed when this is dropped.
pub struct Own(Child);

impl Own {
    /// Starts it.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// What it prints, for whoever asks first.
    pub fn prints(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            match self.0.try_wait()? {
                Some(status) => return Ok(status),
                None => tokio::time::sleep(ASK).await,
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
