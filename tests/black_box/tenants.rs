//! Tenants that come and go while the vault serves: over the wire, on the command line, and under kills.

use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::system_client::SystemClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Told, detokenize, item, refused, tokenize, value, vault_client};
use crate::house::{House, Issued, TRUST_DOMAIN, spiffe};
use crate::needles::stored_files;
use crate::shell::Shell;

const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

/// The vault's operator.
pub fn operator(house: &House) -> Issued {
    house.authority.client(&[&format!("spiffe://{TRUST_DOMAIN}/system/operator/olga")])
}

/// The state, as the operator.
pub async fn system(house: &House) -> SystemClient<Channel> {
    SystemClient::new(house.connect(&operator(house)).await)
}

fn create(name: &str, officers: &[&Issued]) -> v1::CreateTenantRequest {
    let officer_certificates = officers.iter().map(|one| one.certificate.der().to_vec().into()).collect();
    v1::CreateTenantRequest { name: name.to_owned(), officer_certificates }
}

fn destroy(name: &str, dry_run: bool) -> v1::DestroyTenantRequest {
    v1::DestroyTenantRequest { name: name.to_owned(), dry_run }
}

/// Makes a tenant with the officer `alice`, with the schema in force.
pub async fn make(house: &House, name: &str) -> Issued {
    let alice = house.authority.client(&[&spiffe(name, "officer", "alice")]);
    system(house).await.create_tenant(create(name, &[&alice])).await.unwrap();
    let request = v1::ApplySchemaRequest { source: LENDING.to_owned(), dry_run: false };
    AccessClient::new(house.connect(&alice).await).apply_schema(request).await.unwrap();
    alice
}

/// Stores so many values of a tenant; the first is `TENANT 0`.
pub async fn store(house: &House, tenant: &str, count: usize) -> Vec<String> {
    let items = (0..count).map(|n| item("borrower.address", &format!("{tenant} {n}"), &format!("s-{}", n % 50)));
    house.vault(tenant, "core").await.tokenize(tokenize(items.collect())).await.unwrap().into_inner().tokens
}

/// Reads one of them.
pub async fn reads(house: &House, tenant: &str, token: &str) -> Result<Vec<u8>, Told> {
    let request = detokenize(&[token], "loan_servicing", "plain");
    let answer = house.vault(tenant, "core").await.detokenize(request).await.map_err(Told::from)?;
    value(answer.into_inner().results.remove(0))
}

/// What the vault calls the state of a tenant.
pub async fn state(house: &House, name: &str) -> String {
    let tenants = system(house).await.list_tenants(v1::ListTenantsRequest {}).await.unwrap().into_inner().tenants;
    tenants.into_iter().find(|tenant| tenant.name == name).map(|tenant| tenant.state).unwrap_or_default()
}

/// The wrapped keys in the keystore: blobs of 62 bytes of format 3.
fn wrapped(house: &House) -> Vec<Vec<u8>> {
    let file = std::fs::read(house.dir().join("keystore/keys")).unwrap();
    file.windows(63).filter(|at| at[..3] == [62, 3, 1]).map(|at| at[1..].to_vec()).collect()
}

/// `strongroom verify` finds nothing.
pub fn proven(house: &House) {
    let verified = house.command("verify").output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn a_tenant_is_made_used_and_destroyed_on_the_command_line_without_a_restart() {
    let mut house = House::lending(&["lending"]).await;
    let theirs = store(&house, "lending", 1).await;
    let shell = Shell::of(&house, &operator(&house));
    // Somebody of the tenant is connected before there is one.
    let early = house.channel("savings", "app", "core").await;
    let told = refused(vault_client(early.clone()).tokenize(tokenize(vec![item("borrower.name", "Li", "")])).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "TENANT_UNKNOWN"));

    let others = wrapped(&house);
    let carol = house.authority.client(&[&spiffe("savings", "officer", "carol")]);
    std::fs::write(shell.path("carol.pem"), carol.certificate.pem()).unwrap();
    let made = shell.json(&["tenant", "create", "savings", "--officer", shell.path("carol.pem").to_str().unwrap()]);
    assert_eq!((&made["name"], &made["number"], &made["state"]), (&"savings".into(), &2.into(), &"serving".into()));
    let request = v1::ApplySchemaRequest { source: LENDING.to_owned(), dry_run: false };
    AccessClient::new(house.connect(&carol).await).apply_schema(request).await.unwrap();
    let request = tokenize(vec![item("borrower.address", "savings 0", "s-0")]);
    let own = vault_client(early.clone()).tokenize(request).await.unwrap().into_inner().tokens;
    assert_eq!(reads(&house, "savings", &own[0]).await.unwrap(), b"savings 0");
    assert_eq!(reads(&house, "lending", &own[0]).await.unwrap_err().code, Code::NotFound);
    let ledger = house.ledger("savings").await;
    assert!(ledger[0].contains("create_tenant") && ledger[0].contains("operator/olga"), "{}", ledger[0]);

    let its_own: Vec<Vec<u8>> = wrapped(&house).into_iter().filter(|key| !others.contains(key)).collect();
    assert!(its_own.len() > 6);

    let dry = shell.json(&["tenant", "destroy", "savings", "--dry-run"]);
    assert_eq!((&dry["values"], &dry["subjects"], &dry["destroyed"]), (&"1".into(), &"1".into(), &false.into()));
    // Nobody is there to type its name again.
    assert_eq!(shell.run(&["tenant", "destroy", "savings"]).status.code(), Some(2));
    assert!(reads(&house, "savings", &own[0]).await.is_ok());
    let file = shell.path("savings.receipt");
    let file = file.to_str().unwrap();
    let gone = shell.json(&["tenant", "destroy", "savings", "--yes", "--receipt", file]);
    assert_eq!(gone["destroyed"], true);
    let told = refused(vault_client(early).tokenize(tokenize(vec![item("borrower.name", "Li", "")])).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "TENANT_UNKNOWN"));
    assert!(shell.ok(&["tenant", "list"]).contains("savings"));

    std::fs::write(shell.path("system.key"), shell.ok(&["audit", "key", "--log", "system"])).unwrap();
    let key = shell.path("system.key");
    let verified = shell.json(&["tenant", "verify", file, "--log-key", key.to_str().unwrap()]);
    assert_eq!((&verified["verified"], &verified["tenant"]), (&true.into(), &"savings".into()));
    assert_eq!(std::fs::read_to_string(file).unwrap(), shell.ok(&["tenant", "receipt", "savings"]));
    std::fs::write(file, std::fs::read_to_string(file).unwrap().replace("savings", "lending")).unwrap();
    assert_eq!(shell.run(&["tenant", "verify", file, "--log-key", key.to_str().unwrap()]).status.code(), Some(1));

    // Its ledger can still be had and proven.
    let out = shell.path("ledger.jsonl");
    let out = out.to_str().unwrap();
    shell.ok(&["audit", "export", "-o", out, "--log", "savings"]);
    shell.ok(&["audit", "verify", out]);
    assert!(std::fs::read_to_string(out).unwrap().trim_end().lines().last().unwrap().contains("destroy_tenant"));

    while state(&house, "savings").await != "cleared" {
        tokio::task::yield_now().await;
    }
    // Sealed and opened again it is as it was.
    let mut olga = system(&house).await;
    olga.seal(v1::SealRequest {}).await.unwrap();
    let credential = v1::unseal_request::Credential::Passphrase(crate::house::PASSPHRASE.into());
    olga.unseal(v1::UnsealRequest { credential: Some(credential), reset: false }).await.unwrap();
    assert_eq!(state(&house, "savings").await, "cleared");
    assert_eq!(reads(&house, "lending", &theirs[0]).await.unwrap(), b"lending 0");
    house.kill();
    assert_eq!(wrapped(&house), others);
    for path in stored_files(&house.dir()) {
        let bytes = std::fs::read(&path).unwrap();
        let held = its_own.iter().any(|key| bytes.windows(key.len()).any(|window| window == key.as_slice()));
        assert!(!held, "{} holds a key of it", path.display());
    }
    proven(&house);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_reason() {
    let house = House::open(&["lending"]);
    let mut olga = system(&house).await;
    let officer = |tenant: &str| house.authority.client(&[&spiffe(tenant, "officer", "alice")]);
    let (savings, lending) = (officer("savings"), officer("lending"));
    let app = house.authority.client(&[&spiffe("savings", "app", "alice")]);
    for (request, code, reason) in [
        (create("lending", &[&lending]), Code::AlreadyExists, "TENANT_EXISTS"),
        (create("system", &[&savings]), Code::InvalidArgument, "TENANT_INVALID"),
        (create("Savings", &[&savings]), Code::InvalidArgument, "TENANT_INVALID"),
        (create("", &[&savings]), Code::InvalidArgument, "TENANT_INVALID"),
        (create("savings", &[]), Code::InvalidArgument, "OFFICER_INVALID"),
        (create("savings", &[&lending]), Code::InvalidArgument, "OFFICER_INVALID"),
        (create("savings", &[&app]), Code::InvalidArgument, "OFFICER_INVALID"),
        (create("savings", &[&savings, &savings]), Code::InvalidArgument, "OFFICER_INVALID"),
    ] {
        let told = refused(olga.create_tenant(request).await);
        assert_eq!((told.code, told.reason.as_str()), (code, reason), "{}", told.message);
    }
    for (name, code, reason) in
        [("system", Code::InvalidArgument, "TENANT_INVALID"), ("nobody", Code::NotFound, "TENANT_NOT_FOUND")]
    {
        for dry_run in [true, false] {
            let told = refused(olga.destroy_tenant(destroy(name, dry_run)).await);
            assert_eq!((told.code, told.reason.as_str()), (code, reason));
        }
    }
    olga.create_tenant(create("savings", &[&savings])).await.unwrap();
    olga.destroy_tenant(destroy("savings", false)).await.unwrap();
    let told = refused(olga.destroy_tenant(destroy("savings", false)).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "TENANT_DESTROYED"));
    let told = refused(olga.create_tenant(create("savings", &[&savings])).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::AlreadyExists, "TENANT_EXISTS"));
    let mut nobody = SystemClient::new(house.connect(house.officer("lending")).await);
    for told in [
        refused(nobody.create_tenant(create("other", &[&officer("other")])).await),
        refused(nobody.list_tenants(v1::ListTenantsRequest {}).await),
        refused(nobody.destroy_tenant(destroy("lending", false)).await),
    ] {
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
    }
    let mut auditor = AuditClient::new(house.channel("lending", "auditor", "eve").await);
    let request = v1::GetCheckpointRequest { log: "savings".to_owned(), ..Default::default() };
    assert!(auditor.get_checkpoint(request).await.is_err(), "another's log stays another's when it has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destruction_that_is_killed_is_finished_by_the_next_start() {
    let mut house = House::lending(&["lending"]).await;
    let theirs = store(&house, "lending", 10).await;
    let mut finished = 0;
    for round in 0..6 {
        let name = format!("tenant-{round}");
        make(&house, &name).await;
        let own = store(&house, &name, 1_000).await;
        let mut olga = system(&house).await;
        let call = tokio::spawn({
            let request = destroy(&name, false);
            async move { olga.destroy_tenant(request).await }
        });
        // Killed when it has just been asked, when the tenant has just gone, or when all was answered.
        match round % 3 {
            0 => tokio::task::yield_now().await,
            1 => while reads(&house, &name, &own[0]).await.is_ok() {},
            _ => drop(call.await.unwrap().unwrap()),
        }
        house.kill();
        house.up();
        match state(&house, &name).await.as_str() {
            // It was not decided yet.
            "serving" => {
                assert_eq!(round % 3, 0, "what was gone stays gone");
                assert!(reads(&house, &name, &own[0]).await.is_ok());
                system(&house).await.destroy_tenant(destroy(&name, false)).await.unwrap();
            }
            "destroyed" | "cleared" => finished += 1,
            other => panic!("{other}"),
        }
        let told = reads(&house, &name, &own[0]).await.unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "TENANT_UNKNOWN"));
        assert_eq!(reads(&house, "lending", &theirs[0]).await.unwrap(), b"lending 0");
    }
    assert!(finished >= 4);
    for round in 0..6 {
        while state(&house, &format!("tenant-{round}")).await != "cleared" {
            tokio::task::yield_now().await;
        }
    }
    house.kill();
    proven(&house);
}
