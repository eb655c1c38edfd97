//! grpc.health.v1, which follows the vault's own health.

use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The names under which the health of the vault is asked: the whole, and each service of this package.
const NAMES: [&str; 7] = [
    "",
    "strongroom.v1.Vault",
    "strongroom.v1.Audit",
    "strongroom.v1.Access",
    "strongroom.v1.Subjects",
    "strongroom.v1.Keys",
    "strongroom.v1.System",
];

/// The name under which the root key's health is asked: SERVING while the vault has it and nothing says that it may not.
const ROOT_KEY: &str = "strongroom.root_key";

/// How a vault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// See [`Vault::health`](strongroom_vault::Vault::health), and `sealed`.
    pub vault: &'static str,
    /// Whether it has its root key, and nothing says that it may not.
    pub root_key_holds: bool,
}

/// How often the vault is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What a vault says of itself that can't serve until its process is started again.
const STOPPED: &str = "stopped";

/// Tells what `health` says, from now on; returns when the vault has stopped by itself.
pub(crate) async fn follow(health: impl Fn() -> Health, reporter: HealthReporter) {
    let mut told = None;
    loop {
        let now = health();
        if told != Some(now) {
            tell(now, &reporter).await;
            if let Some(before) = told {
                tracing::warn!(?before, ?now, "health changed");
            }
            told = Some(now);
        }
        if now.vault == STOPPED {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Says that nothing is served any more, so that balancers send their callers elsewhere, and ends the streams of those
/// who watch: they would keep their connections open.
pub(crate) async fn closing(reporter: &HealthReporter) {
    tell(Health { vault: "closing", root_key_holds: false }, reporter).await;
    let mut reporter = reporter.clone();
    for name in NAMES.into_iter().chain([ROOT_KEY]) {
        reporter.clear_service_status(name).await;
    }
}

/// Tells what the vault's health is.
pub(crate) async fn tell(health: Health, reporter: &HealthReporter) {
    let told = |serves: bool| if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in NAMES {
        reporter.set_service_status(name, told(health.vault == "serving")).await;
    }
    reporter.set_service_status(ROOT_KEY, told(health.root_key_holds)).await;
}
