//! The two servers that the clients call: a vault, and the echo that it is held against.
//!
//! The echo is tonic and rustls as they come, with the vault's messages, certificates and HTTP/2 windows: it decodes a
//! request and answers as many bytes as the vault would. What the vault takes beyond it is the vault's own work.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::Stream;
use strongroom_proto::v1;
use strongroom_proto::v1::vault_server::VaultServer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use crate::cli::client::{Connect, Context};
use crate::cli::layout::Layout;
use crate::cli::output::{CliError, Output};
use crate::cli::{dev, start};

/// As the vault has them.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const STREAMS_OF_A_CONNECTION: u32 = 256;
const MESSAGE: usize = 20 << 20;

/// As long as one of the vault's opaque tokens.
const TOKEN: &str = "srt1_0123456789abcdefghijkl";
/// About as long as the values of a borrower are on average.
const VALUE: &[u8] = b"0123456789abcdefghijklmn";
const FIELD: &str = "borrower.id_card";

/// A server in this process, on a port of its own.
pub struct Served {
    address: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), CliError>>,
}

impl Served {
    /// Serves the vault in a folder.
    pub async fn vault(layout: &Layout) -> Result<Self, CliError> {
        let (vault, config) = dev::open(layout).await?;
        let layout = layout.clone();
        Self::on_a_port(|listener, stopped| async move {
            start::serve(vault, listener, &config, &layout, async { drop(stopped.await) }).await
        })
        .await
    }

    /// Serves the echo, with the certificates of the vault in a folder.
    pub async fn echo(layout: &Layout) -> Result<Self, CliError> {
        let pki = layout.pki();
        let identity = Identity::from_pem(read(&pki.join("server.pem"))?, read(&pki.join("server.key"))?);
        let authority = Certificate::from_pem(read(&pki.join("ca.pem"))?);
        let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority);
        let unfit = |error: tonic::transport::Error| CliError::unfit(format!("the echo can't be served: {error}"));
        let mut server = Server::builder()
            .tls_config(tls)
            .map_err(unfit)?
            .max_concurrent_streams(STREAMS_OF_A_CONNECTION)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let service = VaultServer::new(Echo).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE);
        Self::on_a_port(|listener, stopped| async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let stopped = async { drop(stopped.await) };
            server.add_service(service).serve_with_incoming_shutdown(incoming, stopped).await.map_err(unfit)
        })
        .await
    }

    async fn on_a_port<F>(serve: impl FnOnce(TcpListener, oneshot::Receiver<()>) -> F) -> Result<Self, CliError>
    where
        F: Future<Output = Result<(), CliError>> + Send + 'static,
    {
        let listener = start::bind("127.0.0.1:0").await?;
        let address = listener.local_addr().map_err(|error| CliError::unfit(error.to_string()))?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, stopped));
        Ok(Self { address: format!("https://{address}"), stop, task })
    }

    /// How one of the vault's principals reaches it.
    pub fn context(&self, layout: &Layout, principal: &str) -> Context {
        let pki = layout.pki();
        let connect = Connect {
            endpoint: self.address.clone(),
            ca: pki.join("ca.pem"),
            cert: pki.join(format!("{principal}.pem")),
            key: pki.join(format!("{principal}.key")),
            domain: "localhost".to_owned(),
        };
        Context { output: Output::Table, connect }
    }

    /// Stops it and waits until it has ended.
    pub async fn end(self) -> Result<(), CliError> {
        drop(self.stop);
        self.task.await.map_err(|error| CliError::unfit(format!("a server stopped: {error}")))?
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| CliError::file(path, error))
}

/// Answers at once, with as many bytes as the vault would.
struct Echo;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::vault_server::Vault for Echo {
    type TokenizeStreamStream = Answers<v1::TokenizeStreamResponse>;
    type DetokenizeStreamStream = Answers<v1::DetokenizeStreamResponse>;

    async fn tokenize(&self, request: Request<v1::TokenizeRequest>) -> Result<Response<v1::TokenizeResponse>, Status> {
        let items = request.into_inner().items;
        Ok(Response::new(v1::TokenizeResponse { tokens: items.iter().map(|_| TOKEN.to_owned()).collect() }))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        let result = |_: &_| v1::DetokenizeResult {
            field: FIELD.to_owned(),
            result: Some(v1::detokenize_result::Result::Value(Bytes::from_static(VALUE))),
        };
        let results = request.into_inner().items.iter().map(result).collect();
        Ok(Response::new(v1::DetokenizeResponse { results }))
    }

    async fn r#match(&self, _: Request<v1::MatchRequest>) -> Result<Response<v1::MatchResponse>, Status> {
        Err(not_measured())
    }

    async fn lookup(&self, _: Request<v1::LookupRequest>) -> Result<Response<v1::LookupResponse>, Status> {
        Err(not_measured())
    }

    async fn replace(&self, _: Request<v1::ReplaceRequest>) -> Result<Response<v1::ReplaceResponse>, Status> {
        Err(not_measured())
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        Err(not_measured())
    }

    async fn tokenize_stream(
        &self,
        _: Request<Streaming<v1::TokenizeRequest>>,
    ) -> Result<Response<Self::TokenizeStreamStream>, Status> {
        Err(not_measured())
    }

    async fn detokenize_stream(
        &self,
        _: Request<Streaming<v1::DetokenizeRequest>>,
    ) -> Result<Response<Self::DetokenizeStreamStream>, Status> {
        Err(not_measured())
    }
}

fn not_measured() -> Status {
    Status::unimplemented("the echo answers Tokenize and Detokenize")
}
