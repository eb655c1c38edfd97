//! The old part of a ledger leaves the vault: the folder holds it and proves it, and everything that is left goes on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use strongroom_ledger::proof::{Tree, verify_inclusion};
use strongroom_ledger::{checkpoint, leaf_hash};
use strongroom_proto::v1;
use tonic::Code;

use crate::approvals::{command_with_approval, with_approval};
use crate::files::path;
use crate::harness::{TestVault, grow, one_token, read_one, refused};
use crate::patience::until;

/// A vault with more than 300 leaves that keeps none for longer than it must.
async fn vault() -> TestVault {
    let mut vault = TestVault::start();
    vault.stop();
    vault.configure("[ledger]\nkeep_days = 0\n");
    vault.up();
    grow(&vault, "Ann", 300).await;
    vault
}

async fn archived(vault: &TestVault) -> v1::GetArchiveResponse {
    vault.audit().await.get_archive(v1::GetArchiveRequest::default()).await.unwrap().into_inner()
}

/// The lines of an archive.
fn lines(folder: &Path) -> Vec<String> {
    fs::read_to_string(folder.join("leaves.parquet.leaves")).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn an_archive_holds_what_the_vault_gave_away_and_both_verify() {
    let mut vault = vault().await;
    let token = one_token(&vault, "borrower.id_card", "11010519491231002X", "cust-1").await;
    let scratch = |name: &str| vault.scratch().join(name);
    let (folder, key, kept) = (scratch("archive"), scratch("kept.key"), scratch("kept.checkpoint"));
    let (rest, note, whole) = (scratch("rest.jsonl"), scratch("rest.jsonl.checkpoint"), scratch("whole.jsonl"));
    fs::write(&key, vault.cli_ok(&["audit", "key"])).unwrap();
    fs::write(&kept, vault.cli_ok(&["audit", "checkpoint"])).unwrap();

    // It waits for an approval; the vault dies meanwhile, and keeps everything.
    let words = ["audit", "archive", "-o", path(&folder), "--place", "vault-archive/1"];
    assert_eq!(vault.cli(&words).status.code(), Some(3));
    vault.kill();
    vault.up();
    assert_eq!((archived(&vault).await.end, archived(&vault).await.decided), (0, 0));
    let said = command_with_approval(&vault, &words);
    assert!(said.contains("leaves 0 to 255, gone from the vault"), "{said}");
    let there = archived(&vault).await;
    assert_eq!((there.end, there.removing, there.place.as_str()), (256, false, "vault-archive/1"));

    // Who asks for all is told where the rest is; later leaves are there.
    let all = vault.cli(&["audit", "export", "-o", path(&whole)]);
    let said = String::from_utf8_lossy(&all.stderr);
    assert!(all.status.code() == Some(1) && said.contains("before 256") && said.contains("vault-archive/1"), "{said}");
    let told = refused(vault.audit().await.tail(v1::TailRequest::default()).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "LEAVES_ARCHIVED"));
    let first = v1::ExportRequest { first: 256, end: 257, ..Default::default() };
    let page = vault.audit().await.export(first).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let leaf: serde_json::Value = serde_json::from_slice(&page.leaves[0]).unwrap();
    vault.cli_ok(&["audit", "export", "--from", leaf["time"].as_str().unwrap(), "-o", path(&rest)]);
    vault.cli_ok(&["audit", "verify", "--excerpt", path(&rest), "--log-key", path(&key)]);

    // An archived leaf against the newest head, by the hashes that stayed; and the log only grew since before.
    let asked = v1::GetInclusionProofRequest { index: 7, ..Default::default() };
    let proof = vault.audit().await.get_inclusion_proof(asked).await.unwrap().into_inner();
    let keys: Vec<&str> = proof.keys.iter().map(String::as_str).collect();
    let signed = checkpoint::verify(&proof.checkpoint, &keys).unwrap();
    let hashes: Vec<[u8; 32]> = proof.hashes.iter().map(|hash| hash[..].try_into().unwrap()).collect();
    let tree = Tree { size: signed.size, root: signed.root };
    assert!(signed.size > 256);
    verify_inclusion(&hashes, &tree, 7, leaf_hash(lines(&folder)[7].as_bytes())).unwrap();
    vault.cli_ok(&["audit", "grown", path(&kept), "--log-key", path(&key)]);
    let seven = vault.scratch().join("7.tlog-proof");
    assert_eq!(vault.cli(&["audit", "prove", "7", "-o", path(&seven)]).status.code(), Some(1));
    vault.cli_ok(&["audit", "prove", "7", "-o", path(&seven), "--archive", path(&folder)]);
    let checked = vault.json(&["audit", "check", path(&seven), "--log-key", path(&key)]);
    assert_eq!((&checked["verified"], &checked["index"]), (&true.into(), &"7".into()));
    assert!(checked["leaves"].as_str().unwrap().parse::<u64>().unwrap() >= signed.size);
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), "11010519491231002X");

    // Without the vault: the archive by itself, and with what came after it.
    vault.stop();
    let out = folder.join("leaves.parquet");
    let proven = vault.json(&["audit", "verify", "--excerpt", path(&out), "--log-key", path(&key)]);
    assert_eq!((&proven["leaves"], &proven["end"]), (&"256".into(), &"256".into()));
    fs::write(&whole, lines(&folder).join("\n") + "\n" + &fs::read_to_string(&rest).unwrap()).unwrap();
    vault.cli_ok(&["audit", "verify", path(&whole), "--checkpoint", path(&note), "--log-key", path(&key)]);
    let tile = fs::read(folder.join("tile/0/000")).unwrap();
    assert_eq!(tile[7 * 32..8 * 32], leaf_hash(lines(&folder)[7].as_bytes()));
    let report = vault.json(&["verify", "--checkpoint", path(&kept)]);
    let demo = report["tenants"].as_array().unwrap().iter().find(|tenant| tenant["tenant"] == "demo").unwrap();
    assert_eq!(demo["archived_leaves"], "256");

    // An archive of which a byte was changed does not hold.
    let text = fs::read_to_string(folder.join("leaves.parquet.leaves")).unwrap();
    fs::write(folder.join("leaves.parquet.leaves"), text.replacen("allow", "deny", 1)).unwrap();
    assert_eq!(vault.cli(&["audit", "verify", "--excerpt", path(&out)]).status.code(), Some(1));
}

#[tokio::test]
async fn a_vault_that_dies_between_the_decision_and_the_removal_goes_on() {
    let mut vault = vault().await;
    let folder = vault.scratch().join("archive");
    let words = ["audit", "archive", "-o", path(&folder), "--place", "x"];
    assert_eq!(vault.cli(&words).status.code(), Some(3));
    let frame = fs::read_to_string(folder.join("leaves.parquet.manifest")).unwrap();
    let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
    let manifest = frame["signed"].as_str().unwrap();
    let request = || v1::ArchiveRequest { manifest: manifest.to_owned(), place: "x".to_owned() };
    let mut audit = vault.audit().await;
    with_approval(&vault, async || audit.clone().archive(request()).await).await.unwrap();
    vault.kill();
    vault.up();
    audit = vault.audit().await;
    until(Duration::from_secs(60), "the end of the removal", async || {
        let there = audit.clone().get_archive(v1::GetArchiveRequest::default()).await.unwrap().into_inner();
        if there.end == 256 && !there.removing {
            Ok(())
        } else {
            Err(format!("{} are archived, removing: {}", there.end, there.removing))
        }
    })
    .await;
    // The same command, for whoever does not know how it ended.
    vault.cli_ok(&words);
    vault.stop();
    vault.cli_ok(&["verify"]);
}
