//! One call of KMS: on a thread of its own, bounded in time, and unseen by the log.

use std::thread;
use std::time::Duration;

use aws_config::Region;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, SharedHttpClient};
use aws_sdk_kms::{Client, Config};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use strongroom_keys::RootError;
use tracing::subscriber::{NoSubscriber, with_default};

use crate::settings::Settings;
use crate::{KIND, credentials};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);
/// From the look-up of the credentials to the last byte.
const LIMIT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 3;

/// Runs work with a client of its own.
///
/// # Errors
/// [`RootError::Credential`] if there are no credentials; [`RootError::Unreachable`] if it takes too long; what the work
/// says.
pub(crate) fn call<T: Send>(
    settings: &Settings,
    work: impl AsyncFnOnce(Client) -> Result<T, RootError> + Send,
) -> Result<T, RootError> {
    let run = || -> Result<T, RootError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| KIND.unreachable(format!("no runtime can be started: {error}")))?;
        let result = runtime.block_on(async {
            let limited = tokio::time::timeout(LIMIT, async { work(client(settings).await?).await });
            limited
                .await
                .unwrap_or_else(|_| Err(KIND.unreachable(format!("no answer within {} seconds", LIMIT.as_secs()))))
        });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        result
    };
    // A runtime can't be entered from another one's thread. And the SDK traces its requests, with session tokens in their headers.
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("aws-kms".to_owned())
            .spawn_scoped(scope, || with_default(NoSubscriber::default(), run))
            .map_err(|error| KIND.unreachable(format!("no thread can be started: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(KIND.unreachable("the AWS SDK has panicked")))
    })
}

/// A client for one call: no connection outlives the runtime that drives it, and no credentials the call.
async fn client(settings: &Settings) -> Result<Client, RootError> {
    let region = Region::new(settings.region().unwrap_or_default().to_owned());
    let http: SharedHttpClient = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(ATTEMPT_LIMIT)
        .operation_timeout(LIMIT)
        .build();
    let credentials = credentials::find(settings, region.clone(), http.clone()).await?;
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region)
        .http_client(http)
        .credentials_provider(credentials)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(config.build()))
}
