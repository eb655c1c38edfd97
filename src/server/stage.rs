//! How far serving has come: streams and connections follow it to their end.

use tokio::sync::watch;

/// How far serving has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Connections and calls are taken.
    Open,
    /// None are taken; what has begun is finished.
    Closing,
    /// The time for that is over: connections break.
    Ended,
}

/// Returns when a stage is reached, or passed, or nobody is left who could tell.
pub(crate) async fn reached(mut stage: watch::Receiver<Stage>, wanted: Stage) {
    // An error means that serving has returned.
    let _ = stage.wait_for(|now| *now >= wanted).await;
}
