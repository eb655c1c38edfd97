//! What nobody does alone, over the wire and on the command line.

use std::time::Duration;

use rcgen::{KeyPair, PublicKeyData, SigningKey};
use strongroom_ids::{TenantId, VaultId};
use strongroom_ledger::approval;
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::keys_client::KeysClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{TestVault, Told, one_token, refused};
use crate::patience::until;

const DEFAULT: &str = include_str!("../../deploy/policies/default.cedar");
const TWO_PERSONS: &str = include_str!("../../deploy/policies/two-persons.cedar");

/// Approves what waits under a name, as an officer with its key.
pub async fn approve(
    access: &mut AccessClient<Channel>,
    (officer, key): (&str, &KeyPair),
    name: &str,
) -> Result<v1::Approval, Status> {
    let listed = access.list_approvals(v1::ListApprovalsRequest::default()).await?.into_inner();
    let id = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
    let (vault, tenant) = (VaultId(id(&listed.vault_id)), TenantId(id(&listed.tenant_id)));
    let one = listed.approvals.into_iter().find(|one| one.name == name).unwrap_or_default();
    let (request, action, requester, summary) = (&*one.request, &*one.action, &*one.requester, &*one.summary);
    let text = approval::Approval { vault, tenant, name, request, action, requester, summary, officer }.text();
    let signature = key.sign(text.as_bytes()).unwrap().into();
    let public_key = key.subject_public_key_info().into();
    Ok(access.approve(v1::ApproveRequest { name: name.to_owned(), public_key, signature }).await?.into_inner())
}

/// The name of what waits, from its refusal.
pub fn waiting(told: &Told) -> String {
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "APPROVAL_REQUIRED"), "{told:?}");
    told.message.split(' ').next().unwrap().to_owned()
}

/// Asks for what needs another officer's approval, has `officer-2` approve it, and asks again.
pub async fn with_approval<T>(vault: &TestVault, ask: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    match ask().await {
        Err(status) if Told::from(status.clone()).reason == "APPROVAL_REQUIRED" => {
            let mut access = vault.access_as("officer-2").await;
            let key = std::fs::read_to_string(vault.dir().join("pki/officer-2.key")).unwrap();
            let key = KeyPair::from_pem(&key).unwrap();
            approve(&mut access, ("officer/officer-2", &key), &waiting(&Told::from(status))).await?;
            ask().await
        }
        done => done,
    }
}

/// The name in what a command said.
pub fn named(said: &str) -> String {
    let at = said.find("approval/").unwrap_or_else(|| panic!("no approval: {said}"));
    said[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect()
}

/// Runs a command that waits for approval, and returns the name under which it does.
fn command_waits(vault: &TestVault, words: &[&str]) -> String {
    let first = vault.cli(words);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(3), "{words:?}: {said}");
    named(&said)
}

/// The same as [`with_approval`], of a command.
pub fn command_with_approval(vault: &TestVault, words: &[&str]) -> String {
    let name = command_waits(vault, words);
    vault.cli_ok(&["approve", &name, "--as", "officer-2"]);
    vault.cli_ok(words)
}

#[tokio::test]
async fn one_officer_changes_no_policy_and_destroys_no_key_and_two_do() {
    let mut vault = TestVault::start();
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    let destroy = ["keys", "destroy", "kek/1", "1", "--as", "officer-1"];
    let asked = vault.cli(&destroy);
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(said.contains("waits for approval (0 of 1)") && said.contains("strongroom approve"), "{said}");
    let name = command_waits(&vault, &destroy);
    assert_eq!(name, named(&said), "it is reused");
    // Whoever asked can't, and it is listed for who can.
    let own = vault.cli(&["approve", &name, "--as", "officer-1"]);
    assert!(String::from_utf8_lossy(&own.stderr).contains("another officer"), "{own:?}");
    let listed = vault.cli_ok(&["approvals"]);
    assert!(listed.contains(&name) && listed.contains("destroy version 1 of key kek/1"), "{listed}");
    assert!(!vault.cli(&["approve", "approval/999999"]).status.success());
    let approve = vault.cli(&["approve", &name]);
    let (shown, signed) = (String::from_utf8_lossy(&approve.stdout), String::from_utf8_lossy(&approve.stderr));
    assert!(shown.contains("1 of 1") && shown.contains("officer/officer-1 asks for the same again"), "{shown}");
    assert!(signed.contains("summary destroy version 1 of key kek/1\n"), "it shows what it signs: {signed}");
    // A start forgets what waits, approved or not; what was done is done.
    vault.kill();
    vault.up();
    let again = command_waits(&vault, &destroy);
    assert_ne!(again, name);
    vault.cli_ok(&["approve", &again]);
    vault.cli_ok(&destroy);
    vault.kill();
    vault.up();
    assert!(vault.cli_ok(&["approvals", "--output", "json"]).contains("\"approvals\": []"));
    let keys = vault.cli_ok(&["keys", "list", "--output", "json"]);
    assert!(keys.contains("destroyed"), "{keys}");
    // Once only.
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    let next = command_waits(&vault, &["keys", "destroy", "kek/1", "2", "--as", "officer-1"]);
    vault.cli_ok(&["reject", &next]);
    let mut officer = KeysClient::new(vault.channel("officer-1").await);
    let request = v1::DestroyKeyVersionRequest { name: "kek/1".to_owned(), version: 2, dry_run: false };
    let told = refused(officer.destroy_key_version(request).await);
    assert_ne!(waiting(&told), next, "what was rejected is asked for anew");
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn a_nightly_job_asks_once_and_does_it_when_two_have_agreed() {
    let vault = TestVault::start();
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    let maintain = ["keys", "maintain", "--keep", "0"];
    let night = || {
        let night = vault.cli(&maintain);
        let said = String::from_utf8_lossy(&night.stdout).into_owned();
        assert_eq!(night.status.code(), Some(3), "{said}");
        assert!(said.contains("waits for approval ("), "{said}");
        named(&said)
    };
    let name = night();
    assert_eq!(night(), name, "it is reused");
    vault.cli_ok(&["approve", &name, "--as", "officer-1"]);
    assert_eq!(night(), name);
    vault.cli_ok(&["approve", &name, "--as", "officer-2"]);
    let last = vault.cli_ok(&maintain);
    assert!(last.contains("version 1 of kek/1"), "{last}");
}

#[tokio::test]
async fn services_approve_nothing_and_see_nothing_of_it() {
    let vault = TestVault::start();
    for principal in ["app", "rotator", "auditor", "privacy"] {
        let mut nobody = vault.access_as(principal).await;
        let key = KeyPair::generate().unwrap();
        let name = format!("{principal}/{principal}");
        let told = refused(nobody.list_approvals(v1::ListApprovalsRequest::default()).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
        let request = v1::ApproveRequest {
            name: "approval/1".to_owned(),
            public_key: key.subject_public_key_info().into(),
            signature: key.sign(name.as_bytes()).unwrap().into(),
        };
        let told = refused(nobody.approve(request).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
        let told = refused(nobody.reject(v1::RejectRequest { name: "approval/1".to_owned() }).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
    }
}

#[tokio::test]
async fn whoever_has_an_export_sees_that_an_approval_was_forged() {
    let vault = TestVault::start();
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    command_with_approval(&vault, &["keys", "destroy", "kek/1", "1", "--as", "officer-1"]);
    let file = vault.dir().join("ledger.jsonl");
    let out = file.to_str().unwrap();
    // A checkpoint is up to a second old.
    let export = until(Duration::from_secs(10), "the intent", async || {
        vault.cli_ok(&["audit", "export", "-o", out]);
        let export = std::fs::read_to_string(&file).unwrap();
        if export.contains("\"stage\":\"intent\"") { Ok(export) } else { Err(export) }
    })
    .await;
    let proof = vault.cli_ok(&["audit", "verify", out, "--output", "json"]);
    assert!(proof.contains("\"approvals\": \"1\""), "{proof}");
    let lines: Vec<&str> = export.lines().collect();
    let at = lines.iter().position(|line| line.contains("\"action\":\"approve\"")).unwrap();
    // What was approved was another version, as a forger would have it.
    let forged = lines[at].replace("destroy version 1 of", "destroy version 2 of");
    assert_ne!(forged, lines[at]);
    std::fs::write(&file, export.replace(lines[at], &forged)).unwrap();
    let said = vault.cli(&["audit", "verify", out]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(&format!("leaf {at}: the approval by officer/officer-2 does not hold")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_subject_is_erased_and_a_hold_lifted_once_an_officer_has_looked_whose_it_is() {
    let vault = TestVault::start();
    let policies = vault.scratch().join("ours.cedar");
    std::fs::write(&policies, [DEFAULT, TWO_PERSONS].join("\n")).unwrap();
    command_with_approval(&vault, &["policy", "apply", policies.to_str().unwrap(), "--as", "officer-1"]);
    for id in ["customer-4711", "customer-4712"] {
        one_token(&vault, "borrower.id_card", "11010519491231002X", id).await;
    }
    // A hold is set at once, and is not lifted by the officer who set it.
    let hold = ["subject", "hold", "customer-4711", "--reason", "case-7", "--purpose", "collections"];
    vault.cli_ok(&[&hold[..], &["--until", "2037-12-31", "--as", "officer-1"]].concat());
    let lift = ["subject", "lift", "customer-4711", "1", "--as", "officer-1"];
    command_waits(&vault, &lift);
    assert!(vault.cli_ok(&["approvals"]).contains("lift hold 1, set for case-7, on the data subject "));
    assert!(command_with_approval(&vault, &lift).contains("hold 1 is lifted"));

    let receipt = vault.scratch().join("customer-4711.receipt");
    let erase = ["subject", "erase", "customer-4711", "--yes", "--receipt", receipt.to_str().unwrap()];
    let name = command_waits(&vault, &erase);
    assert!(!receipt.exists(), "nothing is erased yet");
    let about = |id: &str| vault.cli_ok(&["approvals", "--subject", id, "--as", "officer-2"]);
    let shown = about("customer-4711");
    assert!(shown.contains(&name) && shown.contains("erase at once the data subject "), "{shown}");
    assert!(!shown.contains("customer-4711") && !about("customer-4712").contains(&name));
    vault.cli_ok(&["approve", &name, "--as", "officer-2"]);
    assert!(vault.cli_ok(&erase).contains("strongroom-erasure/") && receipt.exists());
    let file = vault.scratch().join("ledger.jsonl");
    vault.cli_ok(&["audit", "export", "-o", file.to_str().unwrap()]);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("customer-4711"));
}
