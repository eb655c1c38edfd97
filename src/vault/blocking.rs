//! Work that may take long or wait for the disk, apart from the threads that requests are on.

use crate::error::Error;

/// Does it on a thread of its own, and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Internal("work on the keystore did not end"))
}
