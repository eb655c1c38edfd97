//! What nobody does alone, over the wire and on the command line.

use rcgen::{KeyPair, PublicKeyData, SigningKey};
use strongroom_ids::{TenantId, VaultId};
use strongroom_ledger::approval;
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::keys_client::KeysClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{TestVault, Told, refused};

/// Approves what waits under a name, as an officer with its key.
pub async fn approve(
    access: &mut AccessClient<Channel>,
    (officer, key): (&str, &KeyPair),
    name: &str,
) -> Result<v1::Approval, Status> {
    let listed = access.list_approvals(v1::ListApprovalsRequest {}).await?.into_inner();
    let id = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
    let request = listed.approvals.iter().find(|one| one.name == name).map(|one| one.request.clone());
    let request = request.unwrap_or_default();
    let (vault, tenant) = (VaultId(id(&listed.vault_id)), TenantId(id(&listed.tenant_id)));
    let text = approval::Approval { vault, tenant, name, request: &request, officer }.text();
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
            let mut access = AccessClient::new(vault.channel("officer-2").await);
            let key = std::fs::read_to_string(vault.dir().join("pki/officer-2.key")).unwrap();
            let key = KeyPair::from_pem(&key).unwrap();
            approve(&mut access, ("officer/officer-2", &key), &waiting(&Told::from(status))).await?;
            ask().await
        }
        done => done,
    }
}

/// The same of a command.
pub fn command_with_approval(vault: &TestVault, words: &[&str]) -> String {
    let first = vault.cli(words);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(3), "{words:?}: {said}");
    let at = said.find("approval/").unwrap_or_else(|| panic!("{words:?}: {said}"));
    let name: String = said[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect();
    vault.cli_ok(&["approve", &name, "--as", "officer-2"]);
    vault.cli_ok(words)
}

#[tokio::test]
async fn one_officer_changes_no_policy_and_destroys_no_key_and_two_do() {
    let mut vault = TestVault::start();
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    let destroy = ["keys", "destroy", "kek/1", "1", "--as", "officer-1"];
    let refused = vault.cli(&destroy);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("approval/1 waits for approval (0 of 1)") && said.contains("strongroom approve"), "{said}");
    // Whoever asked can't, and it is listed for who can.
    let own = vault.cli(&["approve", "approval/1", "--as", "officer-1"]);
    assert!(String::from_utf8_lossy(&own.stderr).contains("another officer"), "{own:?}");
    let listed = vault.cli_ok(&["approvals"]);
    assert!(listed.contains("approval/1") && listed.contains("destroy version 1 of key kek/1"), "{listed}");
    assert!(!vault.cli(&["approve", "approval/9"]).status.success());
    // It is still there after a kill, and what was approved then as well.
    vault.kill();
    vault.up();
    let approved = vault.cli_ok(&["approve", "approval/1"]);
    assert!(
        approved.contains("1 of 1") && approved.contains("officer/officer-1 asks for the same again"),
        "{approved}"
    );
    vault.kill();
    vault.up();
    vault.cli_ok(&destroy);
    assert!(vault.cli_ok(&["approvals", "--output", "json"]).contains("\"approvals\": []"));
    // Once only.
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    assert_eq!(vault.cli(&["keys", "destroy", "kek/1", "2", "--as", "officer-1"]).status.code(), Some(3));
    vault.cli_ok(&["reject", "approval/2"]);
    let mut officer = KeysClient::new(vault.channel("officer-1").await);
    let request = v1::DestroyKeyVersionRequest { name: "kek/1".to_owned(), version: 2, dry_run: false };
    let told = crate::harness::refused(officer.destroy_key_version(request).await);
    assert_eq!(waiting(&told), "approval/3", "what was rejected is asked for anew");
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn a_nightly_job_asks_once_and_does_it_when_two_have_agreed() {
    let vault = TestVault::start();
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    let maintain = ["keys", "maintain", "--keep", "0"];
    for _ in 0..2 {
        let night = vault.cli(&maintain);
        let said = String::from_utf8_lossy(&night.stdout).into_owned();
        assert_eq!(night.status.code(), Some(3), "{said}");
        assert!(said.contains("approval/1 waits for approval (0 of 2)"), "{said}");
    }
    let only: serde_json::Value = serde_json::from_str(&vault.cli_ok(&["approvals", "--output", "json"])).unwrap();
    assert_eq!(only["approvals"].as_array().unwrap().len(), 1, "it is reused");
    vault.cli_ok(&["approve", "approval/1", "--as", "officer-1"]);
    assert_eq!(vault.cli(&maintain).status.code(), Some(3));
    vault.cli_ok(&["approve", "approval/1", "--as", "officer-2"]);
    let night = vault.cli_ok(&maintain);
    assert!(night.contains("version 1 of kek/1"), "{night}");
}

#[tokio::test]
async fn services_approve_nothing_and_see_nothing_of_it() {
    let vault = TestVault::start();
    for principal in ["app", "rotator", "auditor", "privacy"] {
        let mut nobody = AccessClient::new(vault.channel(principal).await);
        let key = KeyPair::generate().unwrap();
        let name = format!("{principal}/{principal}");
        let told = refused(nobody.list_approvals(v1::ListApprovalsRequest {}).await);
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
