//! Waiting for what comes by itself.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Looks until something is there, for so long at the most. A look that does not find it says how it is instead.
pub async fn until<T, W: Display>(within: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, W>) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) => assert!(begun.elapsed() < within, "{what} did not come: {instead}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a file has so many lines.
pub async fn lines(within: Duration, file: &Path, least: usize) {
    until(within, "every line", async || {
        let count = fs::read_to_string(file).unwrap_or_default().lines().count();
        if count < least { Err(format!("{count} of {least}")) } else { Ok(()) }
    })
    .await;
}
