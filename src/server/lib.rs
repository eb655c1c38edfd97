//! The edge: mTLS, identity and the gRPC services.
//!
//! What comes in: TCP connections. What goes out: calls of [`strongroom_vault::Vault`], and their answers.
//!
//! ```text
//! cores      a thread a processor, and connections dealt out to them
//! listener   a socket becomes a TLS 1.3 connection with a verified client certificate   (tls, identity, seats)
//! actors     the people behind services, and who vouches for them
//! certificates  those in force, and their files while the vault runs                    (vetting, names)
//! door       the vault while it is open: sealed and unsealed while the process goes on
//! root_watch whether an open vault may still have its root key
//! own_key_watch  the same of tenants' own keys
//! gate       a call gets a principal and a place, or is refused                         (share, intake, errors)
//! answer     an answer keeps its place until its caller has taken it                      (patience)
//! services   a message becomes a call of the vault, its answer a message                (vault, audit, access, keys, system)
//! bulk       a message of a stream is a call of its own
//! readers    connections of callers who read their ledger over plain HTTPS              (entries)
//! strangers  connections without a certificate, for what is published of ledgers        (published, crowd)
//! ```
//!
//! What must hold: no call reaches the vault without a principal, and the tenant comes from the certificate only; what
//! strangers read is what is configured to be published, and hashes and checkpoints alone;
//! nothing that a caller sends, or does not take, makes the edge keep more than [`Options`] allow, and no principal gets
//! more than a quarter of that; every refusal carries a stable reason
//! and never a value; a session is never resumed, so each connection has proved its identity itself.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod actors;
mod answer;
mod approvals;
mod audit;
mod bulk;
mod certificates;
mod consents;
mod cores;
mod crowd;
mod door;
mod edge;
mod entries;
mod erasures;
mod errors;
mod explain;
mod freezes;
mod gate;
mod health;
mod identity;
mod instants;
mod intake;
mod keys;
mod listener;
mod names;
mod officers;
mod own_key_watch;
mod patience;
mod policies;
mod processing;
mod published;
mod readers;
mod reports;
mod retention;
mod root_watch;
mod seats;
mod second_factors;
mod share;
mod stage;
mod strangers;
mod subject_access;
mod subjects;
mod system;
mod tail;
mod tenants;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tiers;
mod tls;
mod vault;
mod vetting;

use std::sync::Arc;
use std::time::Duration;

use strongroom_proto::v1;
use strongroom_storage::Store;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Layer;

pub use actors::{Actors, IssuerRules, KEYS_BYTES, ReadKeys};
pub use certificates::{Reload, Vouching};
pub use cores::{Cores, Dealer, Sockets};
pub use door::{Admits, Brought, Door, Heard, Keeper, NotUnsealed, Wants};
pub use errors::DOMAIN;
pub use identity::officer_key;
pub use names::NameRules;
pub use own_key_watch::{OwnKeyProviders, watch_own_keys};
pub use published::{Logs, Published};
pub use root_watch::{RootWatch, watch_root};
pub use tls::{TlsError, TlsMaterial, authorities};

use certificates::Certificates;
use edge::Edge;
use entries::Entries;
use gate::Gate;
use health::Health;
use identity::DirectorySource;
use listener::Listener;
use seats::Seats;
use share::Bounds;
use stage::Stage;

/// Calls of one connection at once.
const STREAMS_OF_A_CONNECTION: u32 = 256;
/// Bytes of one call's headers.
const HEADERS: u32 = 16 << 10;
/// Bytes that a call, and a connection, may have under way.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How often a connection that says nothing is asked whether it is there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);
/// Bytes of a message to health and reflection, which need no principal.
const OPEN_MESSAGE: usize = 16 << 10;
/// How long a start waits for the keys of issuers.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How long calls that have begun may take after the shutdown.
const GRACE: Duration = Duration::from_secs(30);
/// How long broken connections may take to go.
const BREAK: Duration = Duration::from_secs(5);

/// What to serve on, and how much at once.
pub struct Options {
    /// The socket, already listening.
    pub listener: TcpListener,
    /// The vault's certificate and the authorities of its callers.
    pub tls: TlsMaterial,
    /// Where they are looked for from then on; nowhere, if they never change.
    pub reload: Option<Reload>,
    /// Is told which authorities vouch for callers at each moment.
    pub vouching: Vouching,
    /// Who those are whose certificates carry no URI.
    pub names: NameRules,
    /// Who vouches for the people behind services. Their keys are looked for as often as certificates are.
    pub actors: Actors,
    /// The socket, already listening, on which callers read their ledger over plain HTTPS; none, unless it is configured.
    pub entries: Option<TcpListener>,
    /// What anybody may read, and where; nothing, unless it is configured.
    pub published: Option<Published>,
    /// The version of the software, as `Status` tells it.
    pub version: &'static str,
    /// Threads that serve; as many as there are processors, if none are named.
    pub threads: Option<usize>,
    /// Connections at once, and a quarter of them for the holder of one certificate; more are closed after their
    /// handshake.
    pub max_connections: usize,
    /// Calls at once, of all connections together; more answer UNAVAILABLE. A call lasts until its answer is taken. One
    /// principal has at most a quarter of these, and of what follows.
    pub max_requests_in_flight: usize,
    /// Bytes of the messages of those calls and of their answers together; more answer UNAVAILABLE. What is at work when
    /// the room ends may still answer, with at most 20 MiB each.
    pub max_request_bytes: usize,
    /// Bulk streams at once; more answer UNAVAILABLE. Each has up to five messages of at most 20 MiB at work.
    pub max_streams: usize,
}

impl Options {
    /// Options for a machine of ordinary size: a thousand connections, half a gigabyte of requests.
    pub fn new(listener: TcpListener, tls: TlsMaterial, version: &'static str) -> Self {
        Self {
            listener,
            tls,
            reload: None,
            vouching: Vouching::default(),
            names: NameRules::default(),
            actors: Actors::default(),
            entries: None,
            published: None,
            version,
            threads: None,
            max_connections: 1_000,
            max_requests_in_flight: 1_024,
            max_request_bytes: 512 << 20,
            max_streams: 32,
        }
    }
}

/// Why serving could not begin, or ended by itself.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The TLS material is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The compiled descriptions of the services do not fit together.
    #[error("reflection can't be offered: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The thread that writes has ended, so nothing can be stored or recorded any more.
    #[error("the committer has stopped by itself; the log says why: start the vault again")]
    Stopped,
    /// The transport failed.
    #[error("the transport failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The operating system gave no thread.
    #[error("the threads that serve can't start: {0}; see that the process may make threads")]
    Threads(#[from] std::io::Error),
    /// A thread that serves has failed.
    #[error("a thread that serves has failed: {0}; the log says why: start the vault again")]
    Failed(#[from] tokio::task::JoinError),
}

/// Serves what is behind a door until `shutdown` comes, and then as long as calls that have begun take, at most half a
/// minute.
pub async fn serve<S: Store>(
    door: Arc<Door<S>>,
    mut options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (names, vouching) = (std::mem::take(&mut options.names), options.vouching.clone());
    let certificates = Arc::new(Certificates::new(&options.tls, names, vouching)?);
    let following = options.reload.take();
    let actors = Arc::new(std::mem::take(&mut options.actors));
    // Whoever comes at once shall find the keys; one whose file does not answer has none yet.
    let looks = futures_util::future::join_all(actors.look_apart(identity::now()));
    let _ = tokio::time::timeout(FIRST_LOOK, looks).await;
    let (reporter, health) = reporter();
    let (stages, stage) = watch::channel(Stage::Open);
    let directory: DirectorySource = {
        let door = Arc::clone(&door);
        Arc::new(move || door.directory())
    };
    let actors_of_edge = Arc::clone(&actors);
    let edge = Edge { door: Arc::clone(&door), stage, workers: Handle::current(), actors: actors_of_edge };
    let entries = options.entries.take().map(|socket| (socket, Entries::new(edge.clone())));
    let services = services(edge, options.version, Arc::clone(&certificates));
    // Before anybody can ask: a service that health does not know yet would be told as NOT_FOUND.
    let health_now = || Health { vault: door.health(), root_key_holds: door.root_key_holds() };
    health::tell(health_now(), &reporter).await;
    let published = options.published.take();
    let published = {
        let (finder, certificates) = (published::finder(Arc::clone(&door)), Arc::clone(&certificates));
        let stage = stages.subscribe();
        async move {
            match published {
                Some(published) => strangers::serve(published, finder, certificates, stage).await,
                None => Ok(()),
            }
        }
    };
    let following = certificates::follow((Arc::clone(&certificates), actors), Arc::clone(&directory), following);
    let served = Served { routes: with_open_services(services, health)?, entries };
    let serving = async {
        let ended = serve_routes(served, (directory, certificates), options, &stages, &reporter, shutdown).await;
        // However that was: strangers are not served alone.
        stages.send_replace(Stage::Ended);
        ended
    };
    let serving = async { tokio::try_join!(serving, published).map(drop) };
    tokio::select! {
        ended = serving => ended,
        () = health::follow(health_now, reporter.clone()) => Err(ServeError::Stopped),
        () = following => Err(ServeError::Stopped),
    }
}

/// The services that are guarded.
fn services<S: Store>(edge: Edge<S>, version: &'static str, certificates: Arc<Certificates>) -> RoutesBuilder {
    let mut routes = RoutesBuilder::default();
    macro_rules! add {
        ($server:ty, $service:expr) => {
            routes.add_service(
                <$server>::new($service)
                    .max_decoding_message_size(intake::MESSAGE_BYTES)
                    .max_encoding_message_size(intake::MESSAGE_BYTES),
            );
        };
    }
    add!(v1::vault_server::VaultServer<_>, vault::VaultService(edge.clone()));
    add!(v1::audit_server::AuditServer<_>, audit::AuditService(edge.clone()));
    add!(v1::access_server::AccessServer<_>, access::AccessService(edge.clone()));
    add!(v1::subjects_server::SubjectsServer<_>, subjects::SubjectsService(edge.clone()));
    add!(v1::keys_server::KeysServer<_>, keys::KeysService(edge.clone()));
    add!(v1::system_server::SystemServer<_>, system::SystemService { edge, version, certificates });
    routes
}

/// Adds health and reflection, which need a connection but no principal.
fn with_open_services(mut routes: RoutesBuilder, health: HealthServer<HealthService>) -> Result<Routes, ServeError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(strongroom_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    routes.add_service(health.max_decoding_message_size(OPEN_MESSAGE));
    routes.add_service(reflection.max_decoding_message_size(OPEN_MESSAGE));
    Ok(routes.routes())
}

/// Health, and whoever tells it.
fn reporter() -> (HealthReporter, HealthServer<HealthService>) {
    let reporter = HealthReporter::new();
    let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    (reporter, health)
}

/// What callers are served.
struct Served {
    /// By gRPC.
    routes: Routes,
    /// By plain HTTPS, and on which socket.
    entries: Option<(TcpListener, Entries)>,
}

/// Serves it behind TLS and the gate.
async fn serve_routes(
    Served { routes, entries }: Served,
    (directory, certificates): (DirectorySource, Arc<Certificates>),
    options: Options,
    stages: &watch::Sender<Stage>,
    reporter: &HealthReporter,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let bounds = Bounds {
        calls: options.max_requests_in_flight,
        streams: options.max_streams,
        bytes: options.max_request_bytes,
    };
    let gate = Gate::new(Arc::clone(&directory), bounds);
    let seats = Seats::new(options.max_connections);
    let cores = Cores::start(options.threads)?;
    let (dealer, sockets) = cores.dealer();
    let threads = sockets.len();
    let listen = |sockets, threads| {
        let (certificates, seats, directory) = (Arc::clone(&certificates), Arc::clone(&seats), Arc::clone(&directory));
        Listener::new((sockets, threads), certificates, seats, directory, stages.subscribe())
    };
    let serve = |sockets| {
        let listener = listen(sockets, threads);
        let serving = Server::builder()
            .max_concurrent_streams(STREAMS_OF_A_CONNECTION)
            .http2_max_header_list_size(HEADERS)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
            .layer(gate.clone())
            .add_routes(routes.clone())
            .serve_with_incoming_shutdown(listener.connections(), stage::reached(stages.subscribe(), Stage::Closing));
        async move { Ok::<_, ServeError>(serving.await?) }
    };
    let dealing = async {
        tokio::select! {
            () = dealer.deal(options.listener) => {}
            () = stage::reached(stages.subscribe(), Stage::Closing) => {}
        }
    };
    let serving = async {
        let serving = cores.run(sockets.into_iter().map(serve));
        let dealing = async {
            dealing.await;
            Ok(())
        };
        let reading = async {
            let Some((socket, entries)) = entries else { return Ok(()) };
            let entries = gate.to_calls().layer(entries);
            readers::serve(socket, |sockets| listen(sockets, 1), entries, stages.subscribe()).await
        };
        tokio::try_join!(serving, dealing, reading).map(drop)
    };
    let ended = until_closed(serving, stages, reporter, shutdown).await;
    cores.end().await;
    ended
}

/// Waits for the shutdown, and then as long as calls that have begun take.
async fn until_closed(
    serving: impl Future<Output = Result<(), ServeError>>,
    stages: &watch::Sender<Stage>,
    reporter: &HealthReporter,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut serving = std::pin::pin!(serving);
    let stopping = async {
        shutdown.await;
        tracing::info!("shutting down: no more calls are taken");
        health::closing(reporter).await;
        stages.send_replace(Stage::Closing);
        tokio::time::sleep(GRACE).await;
    };
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = stopping => None,
    };
    match ended {
        Some(ended) => ended,
        None => {
            tracing::warn!(
                seconds = GRACE.as_secs(),
                "calls are still at work after the grace: their connections are broken"
            );
            stages.send_replace(Stage::Ended);
            // A connection that does not even break ends with its thread.
            tokio::time::timeout(BREAK, serving).await.unwrap_or(Ok(()))
        }
    }
}
