//! Who may come in, as whom, and what each may do: from the TLS handshake to the wall between tenants.

mod tenants;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::system_client::SystemClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{TestVault, Told, detokenize, item, one_token, tokenize, value, vault_client};
use crate::house::{Authority, House, Issued, TRUST_DOMAIN, spiffe};
use crate::raw;

const ID_CARD: &str = "11010519491231002X";
const STATUS: &str = "/strongroom.v1.System/Status";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// How an HTTP/2 client begins: the preface, and an empty SETTINGS frame (RFC 9113 section 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a SETTINGS frame, in a frame's fourth byte.
const SETTINGS: u8 = 4;

/// A client's TLS, as the test wants it.
struct Shake<'a> {
    client: Option<&'a Issued>,
    /// What it shows as the issuer of its certificate.
    issuer: Option<&'a Issued>,
    version: &'static SupportedProtocolVersion,
    alpn: &'static [&'static [u8]],
}

impl<'a> Shake<'a> {
    /// As an honest client does it.
    fn with(client: &'a Issued) -> Self {
        Self { client: Some(client), issuer: None, version: &rustls::version::TLS13, alpn: &[b"h2"] }
    }

    /// Shakes hands, says hello, and brings the first bytes that the vault answers with.
    fn hello(self, house: &House) -> std::io::Result<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        roots.add(house.authority.der()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.client {
            None => config.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
                let chain = [Some(issued), self.issuer].into_iter().flatten();
                let chain = chain.map(|issued| issued.certificate.der().clone()).collect();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = connected(house);
        let mut stream = rustls::Stream::new(&mut client, &mut socket);
        // In TLS 1.3 the client is done before the vault has judged its certificate, so only the answer counts.
        stream.write_all(HELLO)?;
        let mut answer = vec![0; 9];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Expects that the handshake ends with an alert.
    #[track_caller]
    fn gets_alert(self, house: &House, alert: AlertDescription) {
        let error = self.hello(house).expect_err("the vault has answered");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        assert_eq!(inner, Some(&rustls::Error::AlertReceived(alert)), "{error:?}");
    }
}

fn connected(house: &House) -> TcpStream {
    let socket = TcpStream::connect(house.address()).unwrap();
    // Against a test that would hang; nothing waits for it when all is well.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

#[tokio::test]
async fn only_a_certificate_of_the_right_authority_gets_a_connection() {
    let house = House::open(&["lending"]);
    let app = spiffe("lending", "app", "core");
    let new_key = || KeyPair::generate().unwrap();
    let good = house.authority.client(&[&app]);
    assert_eq!(Shake::with(&good).hello(&house).unwrap()[3], SETTINGS);

    let nobody = Shake { client: None, ..Shake::with(&good) };
    nobody.gets_alert(&house, AlertDescription::CertificateRequired);
    let foreign = Authority::new("another house").client(&[&app]);
    Shake::with(&foreign).gets_alert(&house, AlertDescription::UnknownCA);
    let namesake = Authority::new("the house").client(&[&app]);
    Shake::with(&namesake).gets_alert(&house, AlertDescription::DecryptError);
    // A client is no authority, so what it issues is worth nothing.
    let params = || rcgen::CertificateParams::new(vec![]).unwrap();
    let by_a_client = rcgen::Issuer::new(params(), KeyPair::from_pem(&good.key.serialize_pem()).unwrap());
    let mut named = params();
    named.subject_alt_names = vec![SanType::URI(app.as_str().try_into().unwrap())];
    named.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = new_key();
    let issued = Issued { certificate: named.signed_by(&key, &by_a_client).unwrap(), key };
    let shown = Shake { issuer: Some(&good), ..Shake::with(&issued) };
    shown.gets_alert(&house, AlertDescription::CertificateUnknown);

    let expired = house.authority.issue(new_key(), &[&app], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    });
    Shake::with(&expired).gets_alert(&house, AlertDescription::CertificateExpired);
    let early = house.authority.issue(new_key(), &[&app], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2101, 1, 1), date_time_ymd(2102, 1, 1));
    });
    Shake::with(&early).gets_alert(&house, AlertDescription::CertificateExpired);
    let server = house.authority.issue(new_key(), &[&app], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    Shake::with(&server).gets_alert(&house, AlertDescription::UnsupportedCertificate);

    let status = house.status("lending").await;
    assert_eq!(
        (status.tenant.as_str(), status.principal.as_str(), status.role.as_str()),
        ("lending", "app/core", "app")
    );
    assert_eq!(house.ledger("lending").await.iter().filter(|leaf| leaf.contains("app/core")).count(), 1);
}

#[test]
fn only_tls_1_3_with_http_2_is_spoken() {
    let house = House::open(&["lending"]);
    let good = house.authority.client(&[&spiffe("lending", "app", "core")]);
    let honest = || Shake::with(&good);
    assert_eq!(honest().hello(&house).unwrap()[3], SETTINGS);
    let old = Shake { version: &rustls::version::TLS12, ..honest() };
    old.gets_alert(&house, AlertDescription::ProtocolVersion);
    let http_1 = Shake { alpn: &[b"http/1.1"], ..honest() };
    http_1.gets_alert(&house, AlertDescription::NoApplicationProtocol);
    let error = Shake { alpn: &[], ..honest() }.hello(&house).expect_err("the vault has answered");
    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the connection stays open");

    for plain in [HELLO, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut socket = connected(&house);
        socket.write_all(plain).unwrap();
        let mut answer = Vec::new();
        // A reset is an end too.
        drop(socket.read_to_end(&mut answer));
        // At most an alert: record type 21 (RFC 8446 section 5.1).
        assert!(answer.is_empty() || (answer[0] == 21 && answer.len() == 7), "{answer:?}");
    }
    assert_eq!(honest().hello(&house).unwrap()[3], SETTINGS);
}

#[tokio::test]
async fn a_certificate_that_names_nobody_is_told_so_and_leaves_no_trace_in_the_ledger() {
    let house = House::open(&["lending", "savings"]);
    let before = house.ledger("lending").await.len();
    let name = |uris: &[&str]| house.authority.client(uris);
    let new_key = || KeyPair::generate().unwrap();
    let app = spiffe("lending", "app", "core");
    let other_domain = app.replace(TRUST_DOMAIN, "elsewhere.example");
    let under_domain = app.replace(TRUST_DOMAIN, "sub.bank.example");
    let only_cn = house.authority.issue(new_key(), &[], |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "app/core");
    });
    let dns = house.authority.issue(new_key(), &[], |params| {
        params.subject_alt_names = vec![SanType::DnsName("core.lending.bank.example".try_into().unwrap())];
    });
    let key_of = |tenant: &str| KeyPair::from_pem(&house.officer(tenant).key.serialize_pem()).unwrap();
    let alice = spiffe("lending", "officer", "alice");
    let not_accepted = [
        only_cn,
        dns,
        name(&[]),
        name(&[&app, &app]),
        name(&[&app, &spiffe("savings", "app", "core")]),
        name(&[&app, "https://bank.example/core"]),
        name(&["https://bank.example/tenant/lending/app/core"]),
        name(&[&other_domain]),
        name(&[&under_domain]),
        name(&[&app.replace("spiffe", "SPIFFE")]),
        name(&[&format!("{app}/more")]),
        name(&[&format!("{app}?tenant=savings")]),
        name(&[&spiffe("lending", "root", "core")]),
        name(&[&spiffe("lending", "app", "")]),
        name(&[&spiffe("lending", "app", "..")]),
        name(&[&spiffe("lending", "app", "%2e%2e")]),
        name(&[&format!("spiffe://{TRUST_DOMAIN}/system/officer/alice")]),
    ];
    let unknown_tenant = [
        name(&[&spiffe("insurance", "app", "core")]),
        name(&[&spiffe("Lending", "app", "core")]),
        name(&[&spiffe("insurance", "officer", "alice")]),
    ];
    let not_enrolled = [
        // Alice's name and another key; her tenant's other namesake; a name that nobody enrolled, with Alice's key.
        name(&[&alice]),
        house.authority.issue(key_of("savings"), &[&alice], |_| {}),
        house.authority.issue(key_of("lending"), &[&spiffe("lending", "officer", "mallory")], |_| {}),
        name(&[&spiffe("lending", "officer", "mallory")]),
    ];
    for (strangers, reason) in [
        (&not_accepted[..], "CERTIFICATE_NOT_ACCEPTED"),
        (&unknown_tenant[..], "TENANT_UNKNOWN"),
        (&not_enrolled[..], "OFFICER_NOT_ENROLLED"),
    ] {
        for (which, stranger) in strangers.iter().enumerate() {
            let channel = house.connect(stranger).await;
            for path in [STATUS, "/strongroom.v1.Vault/Tokenize", "/strongroom.v1.Vault/Nothing"] {
                let told = Told::from(raw::call(&channel, path, &[]).await.unwrap_err());
                assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, reason), "{which} {path}");
            }
            let (_, end) = raw::stream(&channel, "/strongroom.v1.Vault/DetokenizeStream", vec![vec![]]).await;
            assert_eq!(Told::from(end.unwrap()).reason, reason, "{which}");
        }
    }
    // Alice renews her certificate and keeps her key.
    let renewed = house.authority.issue(key_of("lending"), &[&alice], |_| {});
    let status = SystemClient::new(house.connect(&renewed).await).status(v1::StatusRequest {}).await.unwrap();
    assert_eq!(status.into_inner().principal, "officer/alice");
    // Two exports and the status.
    assert_eq!(house.ledger("lending").await.len(), before + 2);
}

#[tokio::test]
async fn a_live_connection_does_not_outlive_its_certificate() {
    let house = House::open(&["lending"]);
    let app = spiffe("lending", "app", "core");
    // Certificates tell whole seconds.
    let end = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::from_secs(4);
    let short = house.authority.issue(KeyPair::generate().unwrap(), &[&app], |params| params.not_after = end);
    let channel = house.connect(&short).await;
    let (send, messages) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut answers = vault_client(channel.clone()).detokenize_stream(messages).await.unwrap().into_inner();
    let message = || detokenize(&["nobody-made-this"], "kyc_review", "plain");
    send.send(message()).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());

    let deadline = Instant::now() + Duration::from_secs(30);
    let mut answered = 0;
    let refused = loop {
        match raw::call(&channel, STATUS, &[]).await {
            Ok(_) => answered += 1,
            Err(status) => break status,
        }
        assert!(Instant::now() < deadline, "the certificate is taken after its end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(time::OffsetDateTime::now_utc() > end && answered > 0, "refused after {answered} answers");
    assert_refused::<()>(Err(refused), Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    // So is every other call on the connection, and what a stream brings that had begun; the ledger tells of none.
    let ledger = house.ledger("lending").await.len();
    let again = raw::call(&channel, "/strongroom.v1.Vault/Tokenize", &[]).await;
    assert_refused(again, Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    send.send(message()).await.unwrap();
    assert_refused(answers.message().await, Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    assert_eq!(house.ledger("lending").await.len(), ledger + 1);
    // A new connection under it does not come to be, and one under a renewed certificate does.
    Shake::with(&short).gets_alert(&house, AlertDescription::CertificateExpired);
    let renewed = KeyPair::from_pem(&short.key.serialize_pem()).unwrap();
    let renewed = house.authority.issue(renewed, &[&app], |_| {});
    raw::call(&house.connect(&renewed).await, STATUS, &[]).await.unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer_whoever_has_a_certificate() {
    let house = House::open(&["lending"]);
    let channel = house.connect(&house.authority.client(&["https://bank.example/prober"])).await;
    // HealthCheckResponse { status: SERVING }
    assert_eq!(raw::call(&channel, HEALTH, &[]).await.unwrap(), [0x08, 0x01]);
    for service in [
        "strongroom.v1.Vault",
        "strongroom.v1.Audit",
        "strongroom.v1.Access",
        "strongroom.v1.Subjects",
        "strongroom.v1.System",
    ] {
        let asked = raw::field(1, service.as_bytes());
        assert_eq!(raw::call(&channel, HEALTH, &asked).await.unwrap(), [0x08, 0x01], "{service}");
    }
    let unknown = raw::call(&channel, HEALTH, &raw::field(1, b"bank.Teller")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // ServerReflectionRequest { list_services } and { file_containing_symbol }
    let asked = vec![raw::field(7, b""), raw::field(4, b"strongroom.v1.Vault")];
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let (answers, end) = raw::stream(&channel, path, asked).await;
    assert!(end.is_none(), "{end:?}");
    let [services, file] = answers.as_slice() else { panic!("{} answers", answers.len()) };
    for (answer, expected) in [
        (services, "strongroom.v1.Vault"),
        (services, "strongroom.v1.Access"),
        (services, "grpc.health.v1.Health"),
        (file, "idempotency_key"),
    ] {
        assert!(answer.windows(expected.len()).any(|part| part == expected.as_bytes()), "{expected}");
    }
    assert_eq!(raw::call(&channel, STATUS, &[]).await.unwrap_err().code(), Code::Unauthenticated);
}

/// What was refused, and with which code and reason.
#[track_caller]
fn assert_refused<T>(answer: Result<T, Status>, code: Code, reason: &str) {
    let Err(status) = answer else { panic!("it was not refused") };
    let told = Told::from(status);
    assert_eq!((told.code, told.reason.as_str()), (code, reason), "{told:?}");
}

/// Tries what belongs to officers and to auditors.
async fn governs_nothing(channel: &Channel) {
    let mut access = AccessClient::new(channel.clone());
    let source = || "permit (principal, action, resource);".to_owned();
    let schema = v1::ApplySchemaRequest { source: source(), dry_run: false };
    assert_refused(access.apply_schema(schema).await, Code::PermissionDenied, "DENIED");
    for dry_run in [false, true] {
        let policy = v1::ApplyPolicyRequest { source: source(), tests: String::new(), dry_run };
        assert_refused(access.apply_policy(policy).await, Code::PermissionDenied, "DENIED");
    }
}

async fn sees_no_ledger(channel: &Channel) {
    let mut audit = AuditClient::new(channel.clone());
    for log in ["", "system"] {
        let request = v1::ExportRequest { log: log.to_owned(), ..Default::default() };
        assert!(audit.export(request).await.is_err_and(|status| status.code() != Code::Unauthenticated));
    }
    let request = v1::ExportRequest::default();
    assert_refused(audit.export(request).await, Code::PermissionDenied, "DENIED");
}

async fn reads_and_changes_nothing(channel: &Channel, token: &str) {
    let mut client = vault_client(channel.clone());
    assert_refused(
        client.tokenize(tokenize(vec![item("borrower.id_card", ID_CARD, "cust-1")])).await,
        Code::PermissionDenied,
        "DENIED",
    );
    for view in ["", "masked", "last4", "plain"] {
        let results = client.detokenize(detokenize(&[token], "kyc_review", view)).await.unwrap().into_inner().results;
        let told = results.into_iter().map(|result| value(result).unwrap_err()).collect::<Vec<_>>();
        assert_eq!((told[0].code, told[0].reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    }
    let purpose = || "kyc_review".to_owned();
    let asked = v1::MatchItem { token: token.to_owned(), value: ID_CARD.into(), subject: String::new() };
    let matched = client.r#match(v1::MatchRequest { items: vec![asked], purpose: purpose() }).await.unwrap();
    let Some(v1::match_result::Result::Problem(problem)) = matched.into_inner().results.remove(0).result else {
        panic!("it was compared")
    };
    assert_eq!(Told::from(problem).code, Code::NotFound);
    let asked = v1::LookupItem { field: "borrower.id_card".to_owned(), value: ID_CARD.into() };
    let found = client.lookup(v1::LookupRequest { items: vec![asked], purpose: purpose() }).await.unwrap();
    let found = found.into_inner().results.remove(0);
    assert!(found.tokens.is_empty());
    assert_eq!(Told::from(found.problem.unwrap()).reason, "DENIED");
    let changed = v1::ReplaceItem { token: token.to_owned(), value: ID_CARD.into(), expire_time: None };
    let replaced = client.replace(v1::ReplaceRequest { items: vec![changed], idempotency_key: String::new() }).await;
    assert_refused(replaced, Code::NotFound, "NOT_FOUND");
    let gone = v1::DeleteItem { token: token.to_owned(), subject: String::new() };
    let deleted = client.delete(v1::DeleteRequest { items: vec![gone], idempotency_key: String::new() }).await.unwrap();
    let problem = deleted.into_inner().results.remove(0).problem.unwrap();
    assert_eq!(Told::from(problem).code, Code::NotFound);
}

#[tokio::test]
async fn each_role_does_its_own_work_and_no_other() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    for name in ["app", "rotator", "auditor", "privacy", "operator"] {
        governs_nothing(&vault.channel(name).await).await;
    }
    for name in ["app", "rotator", "officer-1", "privacy"] {
        sees_no_ledger(&vault.channel(name).await).await;
    }
    for name in ["rotator", "auditor", "officer-1", "officer-2"] {
        reads_and_changes_nothing(&vault.channel(name).await, &token).await;
    }
    // The privacy desk sees masks, so it is told which.
    let mut privacy = vault.vault_as("privacy").await;
    let refused = privacy.detokenize(detokenize(&[&token], "kyc_review", "plain")).await.unwrap().into_inner();
    let told = value(refused.results.into_iter().next().unwrap()).unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "VIEW_NOT_ALLOWED"));
    assert!(told.message.ends_with("masked"), "{}", told.message);
    // An operator belongs to the vault itself, where there are no values.
    let status = vault.system().await.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.tenant.as_str(), status.role.as_str()), ("system", "operator"));
    let mut operator = vault.vault_as("operator").await;
    let results = operator.detokenize(detokenize(&[&token], "kyc_review", "")).await;
    assert_refused(results, Code::FailedPrecondition, "NO_SCHEMA");

    let leaves = vault.leaves().await;
    for (principal, action) in [
        ("app/app", "apply_schema"),
        ("app/app", "apply_policy"),
        ("app/app", "export_ledger"),
        ("auditor/auditor", "tokenize"),
        ("auditor/auditor", "detokenize"),
        ("auditor/auditor", "match"),
        ("auditor/auditor", "lookup"),
        ("auditor/auditor", "replace"),
        ("auditor/auditor", "delete"),
        ("officer/officer-1", "detokenize"),
        ("privacy/privacy", "detokenize"),
    ] {
        let of = |leaf: &&serde_json::Value| leaf["principal"] == principal && leaf["action"] == action;
        let (mut tried, mut allowed) = (0, 0);
        for leaf in leaves.iter().filter(of) {
            tried += 1;
            allowed += usize::from(leaf["decision"] == "allow");
        }
        assert!(tried > 0 && allowed == 0, "{principal} {action}: {tried} tried, {allowed} allowed");
    }
    assert_eq!(crate::harness::read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    vault.verify_ledger();
}
