//! Certificates that are replaced while the vault runs: its own, its callers' authorities, and what these revoke.

use std::time::Duration;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, KeyIdMethod, KeyPair,
    RevokedCertParams, date_time_ymd,
};
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::vault_client::VaultClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Told, detokenize, item, refused, tokenize, value, vault_client};
use crate::house::{Authority, House, Issued, PASSPHRASE, spiffe};
use crate::officers::broken;
use crate::patience;
use crate::tenants::system;

const ID_CARD: &str = "11010519491231002X";
/// Until when a change on disk must have been seen: it takes about a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Puts a file in place as a whole.
fn place(house: &House, name: &str, content: &[u8]) {
    let (new, old) = (house.dir().join("pki").join(format!("{name}.new")), house.dir().join("pki").join(name));
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, &old).unwrap();
}

/// Adds to the vault's table `[tls]`.
fn configure(house: &House, more: &str) {
    let path = house.dir().join("strongroom.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = "client_ca = \"pki/ca.pem\"\n";
    assert!(text.contains(line));
    std::fs::write(&path, text.replacen(line, &format!("{line}{more}\n"), 1)).unwrap();
}

/// What the vault says of its certificates.
async fn certificates(house: &House) -> v1::CertificateStatus {
    let status = system(house).await.status(v1::StatusRequest {}).await.unwrap().into_inner();
    status.certificates.unwrap()
}

/// Asks the same again until the vault says what is expected.
async fn until(house: &House, what: &str, expected: impl Fn(&v1::CertificateStatus) -> bool) -> v1::CertificateStatus {
    let mut client = system(house).await;
    patience::until(PATIENCE, what, async || {
        let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner().certificates.unwrap();
        if expected(&status) { Ok(status) } else { Err(status.problem) }
    })
    .await
}

fn numbered(house: &House, serial: u64, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
    house.authority.issue(KeyPair::generate().unwrap(), uris, |params| {
        params.serial_number = Some(serial.into());
        change(params);
    })
}

/// The list (PEM) of what an authority has revoked.
fn list(authority: &Authority, serials: &[u64]) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: (*serial).into(),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2060, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    authority.list(&params).pem().unwrap()
}

async fn stores(client: &mut VaultClient<Channel>, subject: &str) -> Result<String, Told> {
    let request = tokenize(vec![item("borrower.address", "1 Bank Street", subject)]);
    Ok(client.tokenize(request).await.map_err(Told::from)?.into_inner().tokens.remove(0))
}

/// Whether a connection can be made that gets an answer.
async fn is_let_in(house: &House, client: &Issued) -> bool {
    let Ok(channel) = house.try_connect(client).await else { return false };
    SystemClient::new(channel).status(v1::StatusRequest {}).await.is_ok()
}

/// The certificate that the vault shows to a new connection.
fn shown(house: &House) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(house.authority.der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut socket = std::net::TcpStream::connect(house.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while client.peer_certificates().is_none() {
        client.complete_io(&mut socket).unwrap();
    }
    client.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let house = House::lending(&["lending"]).await;
    let mut standing = house.vault("lending", "core").await;
    stores(&mut standing, "cust-1").await.unwrap();
    let before = shown(&house);
    let new = house.authority.server();

    // Half of a pair is on disk for a while.
    place(&house, "server.pem", new.certificate.pem().as_bytes());
    let half = until(&house, "half a pair", |status| !status.problem.is_empty()).await;
    assert!(half.problem.contains("server certificate and key"), "{}", half.problem);
    assert!(half.reload_time.is_none());
    assert_eq!(shown(&house), before);
    stores(&mut standing, "cust-2").await.unwrap();

    place(&house, "server.key", new.key.serialize_pem().as_bytes());
    let whole = until(&house, "the new pair", |status| status.problem.is_empty()).await;
    assert!(whole.reload_time.is_some());
    assert_eq!(shown(&house), new.certificate.der().to_vec());
    stores(&mut standing, "cust-3").await.unwrap();
    stores(&mut house.vault("lending", "core").await, "cust-4").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_is_cut_off_also_in_its_stream_and_others_go_on() {
    let mut house = House::new(&["lending"]);
    configure(&house, "crl = [\"pki/ca.crl\"]");
    place(&house, "ca.crl", list(&house.authority, &[]).as_bytes());
    house.up();
    house.apply_lending().await;
    let app = spiffe("lending", "app", "core");
    let (lost, kept) = (numbered(&house, 7_001, &[&app], |_| {}), numbered(&house, 7_002, &[&app], |_| {}));
    let mut lost_client = vault_client(house.connect(&lost).await);
    let mut kept_client = vault_client(house.connect(&kept).await);
    let token = stores(&mut lost_client, "cust-1").await.unwrap();
    let (send, messages) = mpsc::channel(1);
    let read = || detokenize(&[&token], "loan_servicing", "plain");
    send.send(read()).await.unwrap();
    let mut stream = lost_client.detokenize_stream(ReceiverStream::new(messages)).await.unwrap().into_inner();
    match stream.message().await.unwrap().unwrap().result.unwrap() {
        v1::detokenize_stream_response::Result::Response(mut answer) => {
            assert_eq!(value(answer.results.remove(0)).unwrap(), b"1 Bank Street");
        }
        v1::detokenize_stream_response::Result::Problem(problem) => panic!("{:?}", Told::from(problem)),
    }

    place(&house, "ca.crl", list(&house.authority, &[7_001]).as_bytes());
    until(&house, "the new list", |status| status.reload_time.is_some()).await;
    let told = stores(&mut lost_client, "cust-2").await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "CERTIFICATE_REVOKED"));
    send.send(read()).await.unwrap();
    // Who is nobody is told so, and the stream ends.
    let told = Told::from(stream.message().await.err().unwrap());
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "CERTIFICATE_REVOKED"));
    assert!(!is_let_in(&house, &lost).await);
    stores(&mut kept_client, "cust-3").await.unwrap();
    assert!(is_let_in(&house, &kept).await);
    assert_eq!(certificates(&house).await.crl_next_update.unwrap().seconds, 2_840_140_800);

    // A list that can't be read changes nothing.
    place(&house, "ca.crl", b"-----BEGIN X509 CRL-----\nAAAA");
    until(&house, "half a list", |status| status.problem.contains("revocation list")).await;
    assert!(!is_let_in(&house, &lost).await);
    stores(&mut kept_client, "cust-4").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_not_enrolled_is_refused_while_the_vault_runs_and_its_officers_with_it() {
    let mut house = House::lending(&["lending"]).await;
    let mut standing = house.vault("lending", "core").await;
    let strange = Authority::new("another house");
    let officer = strange.client(&[&spiffe("lending", "officer", "alice")]);
    for file in [strange.pem(), house.authority.pem() + &strange.pem()] {
        place(&house, "ca.pem", file.as_bytes());
        let status = until(&house, "another authority", |status| !status.problem.is_empty()).await;
        assert!(
            status.problem.contains("not enrolled") && status.problem.contains("break-glass anchor add"),
            "{}",
            status.problem
        );
        assert!(status.reload_time.is_none());
        assert!(!is_let_in(&house, &officer).await);
        stores(&mut standing, "cust-1").await.unwrap();
        assert!(is_let_in(&house, house.officer("lending")).await);
        place(&house, "ca.pem", house.authority.pem().as_bytes());
        until(&house, "the enrolled authority", |status| status.problem.is_empty()).await;
    }
    // Nor does the vault start with it.
    place(&house, "ca.pem", strange.pem().as_bytes());
    house.kill();
    let ended = crate::house::start(&mut house.serve()).err().unwrap();
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains("enrolled"), "{}", ended.said);
    place(&house, "ca.pem", house.authority.pem().as_bytes());
    house.up();

    // Nor does the right authority make an officer of somebody else.
    let forged = house.authority.client(&[&spiffe("lending", "officer", "alice")]);
    let freezes = v1::ListFreezesRequest {};
    let told = refused(AccessClient::new(house.connect(&forged).await).list_freezes(freezes).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "OFFICER_NOT_ENROLLED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_common_name_is_somebody_only_by_a_rule_and_never_an_officer() {
    let mut house = House::new(&["lending"]);
    let rule = |uri: &str| format!("[[tls.names]]\ncn = \"legacy-batch\"\nspiffe = \"{uri}\"");
    let path = house.dir().join("strongroom.toml");
    let plain = std::fs::read_to_string(&path).unwrap();
    configure(&house, &rule(&spiffe("lending", "officer", "alice")));
    let ended = crate::house::start(&mut house.serve()).err().unwrap();
    assert!(ended.said.contains("legacy-batch") && ended.said.contains("services only"), "{}", ended.said);
    std::fs::write(&path, plain).unwrap();
    configure(&house, &rule(&spiffe("lending", "app", "batch")));
    house.up();
    house.apply_lending().await;
    let named = |name: &str, uris: &[&str]| {
        numbered(&house, 9, uris, |params| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
        })
    };
    let batch = house.connect(&named("legacy-batch", &[])).await;
    let status = SystemClient::new(batch.clone()).status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.principal.as_str(), status.role.as_str()), ("app/batch", "app"));
    let request = tokenize(vec![item("borrower.id_card", ID_CARD, "cust-1")]);
    assert_eq!(vault_client(batch).tokenize(request).await.unwrap().into_inner().tokens.len(), 1);
    for stranger in [named("legacy-batch2", &[]), named("legacy-batch", &["https://bank.example/batch"])] {
        let mut client = vault_client(house.connect(&stranger).await);
        let told = stores(&mut client, "cust-2").await.unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "CERTIFICATE_NOT_ACCEPTED"));
    }
}

/// Changes which authorities are enrolled, by the root key, of a sealed vault whose process goes on.
fn glass(house: &House, change: &str, file: &std::path::Path) {
    broken(house, &["anchor", change, file.to_str().unwrap()]);
}

async fn seal(house: &House) {
    system(house).await.seal(v1::SealRequest {}).await.unwrap();
}

async fn unseal(house: &House) -> Result<(), tonic::Status> {
    let credential = Some(v1::unseal_request::Credential::Passphrase(PASSPHRASE.into()));
    system(house).await.unseal(v1::UnsealRequest { credential, reset: false }).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_is_unsealed_with_the_authorities_in_force_and_with_none_that_was_removed_meanwhile() {
    let mut house = House::lending(&["lending"]).await;
    let other = Authority::new("the other house");
    let (one, both) = (house.authority.pem(), house.authority.pem() + &other.pem());
    let file = house.dir().with_file_name("other.pem");
    std::fs::write(&file, other.pem()).unwrap();
    let app = other.client(&[&spiffe("lending", "app", "core")]);
    // It started with the one; the other comes while it runs.
    seal(&house).await;
    glass(&house, "add", &file);
    unseal(&house).await.unwrap();
    place(&house, "ca.pem", both.as_bytes());
    until(&house, "both authorities", |status| status.reload_time.is_some()).await;
    assert!(is_let_in(&house, &app).await);

    seal(&house).await;
    glass(&house, "remove", &file);
    let told = refused(unseal(&house).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "VAULT_UNFIT"));
    // Out of the file, which is taken while it is sealed, and it opens.
    place(&house, "ca.pem", one.as_bytes());
    patience::until(PATIENCE, "that it opens", async || unseal(&house).await).await;
    assert!(!is_let_in(&house, &app).await);
    stores(&mut house.vault("lending", "core").await, "cust-1").await.unwrap();

    // The other way round: it starts with both, and the file has only the one when the other is removed.
    house.kill();
    glass(&house, "add", &file);
    place(&house, "ca.pem", both.as_bytes());
    house.up();
    assert!(is_let_in(&house, &app).await);
    place(&house, "ca.pem", one.as_bytes());
    until(&house, "one authority", |status| status.reload_time.is_some()).await;
    seal(&house).await;
    glass(&house, "remove", &file);
    unseal(&house).await.unwrap();
    stores(&mut house.vault("lending", "core").await, "cust-2").await.unwrap();
}
