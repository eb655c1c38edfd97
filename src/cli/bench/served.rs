//! The two servers that the clients call: a vault, and the echo that it is held against. Both are started in one way, on
//! threads of the same kind.

use std::future::Future;
use std::path::Path;

use strongroom_proto::v1::ApplySchemaRequest;
use strongroom_proto::v1::vault_server::VaultServer;
use strongroom_rocksdb::Background;
use strongroom_server::{Cores, Sockets};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use zeroize::Zeroizing;

use super::echo::Echo;
use super::load::Target;
use super::population::SCHEMA;
use super::process::Process;
use super::work::unfit;
use crate::cli::client::{Connect, Context, Shown};
use crate::cli::dev;
use crate::cli::input::Input;
use crate::cli::layout::Layout;
use crate::cli::output::{CliError, Output};
use crate::cli::start::{self, Begun};

/// As the vault has them.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const STREAMS_OF_A_CONNECTION: u32 = 256;
const MESSAGE: usize = 20 << 20;

/// A server in this process, on a port of its own.
pub struct Served {
    address: String,
    store: Option<Background>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), CliError>>,
}

impl Served {
    /// Serves the vault in a folder.
    pub async fn vault(layout: &Layout) -> Result<Self, CliError> {
        let (opened, config) = dev::open(layout).await?;
        let (store, layout) = (opened.background.clone(), layout.clone());
        let served = Self::on_a_port(|listener, stopped| async move {
            start::serve(Begun::Open(opened), &layout, listener, &config, async { drop(stopped.await) }).await
        })
        .await?;
        Ok(Self { store: Some(store), ..served })
    }

    /// Serves the echo, with the certificates of the vault in a folder.
    pub async fn echo(layout: &Layout) -> Result<Self, CliError> {
        let pki = layout.pki();
        let identity = Identity::from_pem(read(&pki.join("server.pem"))?, read(&pki.join("server.key"))?);
        let authority = Certificate::from_pem(read(&pki.join("ca.pem"))?);
        let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority);
        let server = Server::builder()
            .tls_config(tls)
            .map_err(|error| CliError::unfit(format!("the echo can't be served: {error}")))?
            .max_concurrent_streams(STREAMS_OF_A_CONNECTION)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let service = VaultServer::new(Echo).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE);
        Self::on_a_port(|listener, stopped| async move {
            // As the vault is served: a thread a processor, and connections dealt out to them.
            let cores = Cores::start(None).map_err(unfit)?;
            let (dealer, sockets) = cores.dealer();
            let serve = |sockets: Sockets| {
                let serving = server.clone().add_service(service.clone()).serve_with_incoming(sockets.stream());
                // Why it ended is told by the clients, which find no server.
                async move {
                    drop(serving.await);
                    Ok::<_, JoinError>(())
                }
            };
            tokio::select! {
                _ = cores.run(sockets.into_iter().map(serve)) => {}
                () = dealer.deal(listener) => {}
                _ = stopped => {}
            }
            cores.end().await;
            Ok(())
        })
        .await
    }

    /// How both are started: a task of this process, over a listener of its own.
    async fn on_a_port<F>(serve: impl FnOnce(TcpListener, oneshot::Receiver<()>) -> F) -> Result<Self, CliError>
    where
        F: Future<Output = Result<(), CliError>> + Send + 'static,
    {
        let listener = start::bind("127.0.0.1:0").await?;
        let address = listener.local_addr().map_err(unfit)?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, stopped));
        Ok(Self { address: format!("https://{address}"), store: None, stop, task })
    }

    /// What the clients call.
    pub fn target(&self, layout: &Layout) -> Target {
        Target { context: self.context(layout, "app"), process: Process::Own, store: self.store.clone() }
    }

    /// How one of the vault's principals reaches it.
    pub fn context(&self, layout: &Layout, principal: &str) -> Context {
        context(&self.address, layout, principal)
    }

    /// What the store does in the background, if it is a vault.
    pub fn store(&self) -> Option<&Background> {
        self.store.as_ref()
    }

    /// Stops it and waits until it has ended.
    pub async fn end(self) -> Result<(), CliError> {
        drop(self.stop);
        self.task.await.map_err(|error| CliError::unfit(format!("a server stopped: {error}")))?
    }
}

/// How a principal of a vault for development reaches a server with that vault's certificates.
pub fn context(address: &str, layout: &Layout, principal: &str) -> Context {
    let pki = layout.pki();
    let connect = Connect {
        endpoint: address.to_owned(),
        ca: pki.join("ca.pem"),
        cert: pki.join(format!("{principal}.pem")),
        key: pki.join(format!("{principal}.key")),
        domain: "localhost".to_owned(),
    };
    let (shown, input) = (Shown::default(), Input::default());
    Context { output: Output::Table, connect, shown, stepped_up: false, input, actor_token: None }
}

/// Puts the lending schema with the measured fields beside it in force, as an officer would.
pub async fn apply_schema(officer: &Context) -> Result<(), CliError> {
    let request = ApplySchemaRequest { source: format!("{}\n{SCHEMA}", dev::LENDING), dry_run: false };
    officer.access().await?.apply_schema(request).await?;
    Ok(())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| CliError::file(path, error))
}
