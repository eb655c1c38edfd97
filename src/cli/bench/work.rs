//! Work in this process beside its connections.

use crate::cli::output::CliError;

/// Does it on a thread where it may keep others waiting.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work).await.map_err(unfit)?
}

/// What hinders a measurement.
pub fn unfit(error: impl std::error::Error) -> CliError {
    CliError::unfit(error.to_string())
}
