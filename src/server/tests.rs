//! Serving over a real connection, without a vault behind it: what the edge answers by itself.

use std::net::SocketAddr;
use std::sync::Arc;

use strongroom_proto::v1;
use strongroom_proto::v1::vault_client::VaultClient;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::service::RoutesBuilder;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::certificates::Certificates;
use crate::identity::DirectorySource;
use crate::stage::Stage;
use crate::testing::{Authority, Issued, directory};
use crate::{Options, ServeError, Served, health, reporter, serve_routes, with_open_services};

const APP: &str = "spiffe://bank.example/tenant/retail/app/loan-core";

/// A server with health and reflection only.
struct Server {
    authority: Authority,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    async fn start(health: &'static str) -> Self {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificates = Certificates::of(authority.server_material());
        let options = Options::new(listener, authority.server_material(), "test");
        let (stop, stopped) = oneshot::channel::<()>();
        let (reporter, service) = reporter();
        let routes = with_open_services(RoutesBuilder::default(), service).unwrap();
        let known = directory(&[]);
        let ended = tokio::spawn(async move {
            let (stages, _) = watch::channel(Stage::Open);
            let stopped = async { drop(stopped.await) };
            let known: DirectorySource = Arc::new(move || Some(Arc::clone(&known)));
            let served = Served { routes, entries: None };
            let serving = serve_routes(served, (known, certificates), options, &stages, &reporter, stopped);
            tokio::select! {
                ended = serving => ended,
                () = health::follow(|| health::Health { vault: health, root_key_holds: true }, reporter.clone()) => Ok(()),
            }
        });
        Self { authority, address, stop, ended }
    }

    async fn connect(&self, client: &Issued) -> Channel {
        let tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .identity(Identity::from_pem(client.certificate.pem(), client.key.serialize_pem()));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }
}

async fn tokenize(channel: Channel) -> Status {
    VaultClient::new(channel).tokenize(v1::TokenizeRequest::default()).await.err().unwrap()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn health_follows_the_vault_and_needs_no_principal() {
    for (state, expected) in [("serving", ServingStatus::Serving), ("recovering", ServingStatus::NotServing)] {
        let server = Server::start(state).await;
        let nobody = server.authority.client(&["https://bank.example"]);
        let mut health = HealthClient::new(server.connect(&nobody).await);
        for name in ["", "strongroom.v1.Vault"] {
            let answer = health.check(HealthCheckRequest { service: name.to_owned() }).await.unwrap();
            assert_eq!(answer.into_inner().status(), expected);
        }
    }
}

#[tokio::test]
async fn a_certificate_without_a_principal_is_told_why() {
    let server = Server::start("serving").await;
    for (uri, expected) in [
        ("https://bank.example", "CERTIFICATE_NOT_ACCEPTED"),
        ("spiffe://bank.example/tenant/other/app/loan-core", "TENANT_UNKNOWN"),
        ("spiffe://bank.example/tenant/retail/officer/officer-1", "OFFICER_NOT_ENROLLED"),
    ] {
        let client = server.authority.client(&[uri]);
        let status = tokenize(server.connect(&client).await).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, expected));
    }
}

#[tokio::test]
async fn a_principal_passes_the_gate() {
    let server = Server::start("serving").await;
    let app = server.authority.client(&[APP]);
    // Behind the gate of this server there is no vault.
    let status = tokenize(server.connect(&app).await).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"));
}

#[tokio::test]
async fn a_shutdown_ends_those_who_watch_health() {
    let server = Server::start("serving").await;
    let app = server.authority.client(&[APP]);
    let mut health = HealthClient::new(server.connect(&app).await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.stop.send(()).unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    server.ended.await.unwrap().unwrap();
}
