//! Versions of the policies, on the command line: history, an older text, and the way back.

use strongroom_proto::v1;
use tonic::Code;

use crate::approvals::command_with_approval;
use crate::harness::{TestVault, refused};

const DEFAULT: &str = include_str!("../../deploy/policies/default.cedar");

#[tokio::test]
async fn an_older_version_is_shown_and_put_in_force_again_by_two() {
    let mut vault = TestVault::start();
    let file = vault.dir().join("closed.cedar");
    let closed = &DEFAULT[DEFAULT.find("// ---- officer").unwrap()..];
    std::fs::write(&file, closed).unwrap();
    let asks = ["policy", "explain", "--role", "app", "--action", "tokenize", "--field", "borrower.name"];
    assert_eq!(vault.cli(&asks).status.code(), Some(0));
    let before = vault.cli_ok(&["policy", "history"]);
    assert_eq!(before.lines().count(), 2, "one version, and the heading: {before}");
    let applied = command_with_approval(&vault, &["policy", "apply", file.to_str().unwrap()]);
    assert!(applied.contains("version 2"), "{applied}");
    assert_eq!(vault.cli(&asks).status.code(), Some(1));
    assert_eq!(vault.cli_ok(&["policy", "show", "--version", "1"]), DEFAULT);
    assert_eq!(vault.cli_ok(&["policy", "show"]), closed);

    let dry = vault.cli_ok(&["policy", "rollback", "1", "--dry-run"]);
    assert!(dry.contains("version 1 would be version 3"), "{dry}");
    let back = command_with_approval(&vault, &["policy", "rollback", "1"]);
    assert!(back.contains("version 3 is in force, with the text of version 1"), "{back}");
    assert_eq!(vault.cli(&asks).status.code(), Some(0));
    let history = vault.json(&["policy", "history"]);
    let listed = history["policies"].as_array().unwrap();
    let versions: Vec<u64> = listed.iter().map(|one| one["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [3, 2, 1]);
    assert_eq!((&listed[0]["by"], &listed[0]["rolled_back_to"]), (&"officer/officer-1".into(), &1.into()));
    assert_eq!((&listed[2]["by"], &listed[2]["apply_time"]), (&"".into(), &"".into()));
    assert_eq!(listed[0]["sha256"], listed[2]["sha256"]);

    // What is in force, what there never was, and who may not.
    for (version, why) in [("3", "is in force"), ("9", "is not kept")] {
        let said = vault.cli(&["policy", "rollback", version]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains(why), "{said}");
    }
    let unknown = vault.cli(&["policy", "show", "--version", "9"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("the last 50"), "{unknown:?}");
    let mut app = vault.access_as("app").await;
    let told = refused(app.roll_back_policy(v1::RollBackPolicyRequest { version: 1, dry_run: true }).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
    let told = refused(app.list_policies(v1::ListPoliciesRequest {}).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));

    vault.kill();
    vault.up();
    assert_eq!(vault.cli_ok(&["policy", "show", "--version", "2"]), closed);
    vault.stop();
    vault.cli_ok(&["verify"]);
}
