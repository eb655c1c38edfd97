//! Checkpoints that need witnesses: two come, one after the other, while the ledger grows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strongroom_proto::v1;
use tonic::Code;

use crate::approvals::command_with_approval;
use crate::files::path;
use crate::harness::{TestVault, grow, refused};
use crate::tiles_https::Stranger;

/// A vault that needs two of two witnesses and publishes its tenant's log, and the witnesses' folders.
async fn vault() -> (TestVault, [PathBuf; 2]) {
    let mut vault = TestVault::start();
    let states = ["one", "two"].map(|name| vault.scratch().join(name));
    let keys = states.each_ref().map(|state| {
        let name = state.file_name().unwrap().to_str().unwrap();
        vault.cli_ok(&["witness", "init", &format!("{name}.example/w"), "--state", path(state)]);
        fs::read_to_string(state.join("witness.vkey")).unwrap().trim().to_owned()
    });
    vault.stop();
    let [one, two] = &keys;
    vault.configure(&format!(
        "[ledger]\nwitnesses = [\"{one}\", \"{two}\"]\nwitnesses_needed = 2\n\n\
         [tiles]\nlisten = \"127.0.0.1:0\"\nlogs = [\"demo\"]\n"
    ));
    vault.up();
    fs::write(vault.scratch().join("witnesses"), keys.join("\n")).unwrap();
    fs::write(vault.scratch().join("log.key"), vault.cli_ok(&["audit", "key"])).unwrap();
    (vault, states)
}

/// Cosigns, brings it back, and says how many leaves it was of.
fn cosign(vault: &TestVault, state: &Path, more: &[&str]) -> u64 {
    let (log_key, out) = (vault.scratch().join("log.key"), vault.scratch().join("cosigned"));
    let words =
        ["witness", "cosign", "--to-vault", "--state", path(state), "--log-key", path(&log_key), "-o", path(&out)];
    vault.cli_ok(&[&words[..], more].concat());
    fs::read_to_string(out).unwrap().lines().nth(1).unwrap().parse().unwrap()
}

async fn witnessed(vault: &TestVault) -> Result<String, tonic::Status> {
    let request = v1::GetCheckpointRequest { witnessed: true, ..Default::default() };
    Ok(vault.audit().await.get_checkpoint(request).await?.into_inner().checkpoint)
}

#[tokio::test]
async fn what_two_witnesses_cosigned_is_what_the_vault_gives_out_and_publishes() {
    let (mut vault, [one, two]) = vault().await;
    let told = refused(witnessed(&vault).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "WITNESSES_MISSING"));
    assert_eq!(Stranger::of(&vault).get("/demo/checkpoint").status, 503);
    grow(&vault, "Ann", 5).await;
    let begun = cosign(&vault, &one, &["--first"]);
    grow(&vault, "Bob", 5).await;
    assert!(witnessed(&vault).await.is_err(), "one is not enough");
    // The second comes to what the first has cosigned, though the ledger has grown.
    assert_eq!(cosign(&vault, &two, &["--first"]), begun);
    let note = witnessed(&vault).await.unwrap();
    assert_eq!(note.lines().nth(1).unwrap(), begun.to_string());
    let output = vault.cli(&["audit", "checkpoint", "--witnessed"]);
    assert_eq!((String::from_utf8(output.stdout).unwrap().trim(), &output.stderr[..]), (note.trim(), &b""[..]));
    // One is signed at most once a second: until then the newest is that which both have cosigned.
    let begun_at = Instant::now();
    loop {
        let newest = String::from_utf8(vault.cli(&["audit", "checkpoint"]).stderr).unwrap();
        if newest.contains("not witnessed yet: 0 of 2") {
            break;
        }
        assert!(begun_at.elapsed() < Duration::from_secs(30), "{newest}");
    }
    for words in [&["audit", "export"][..], &["audit", "export", "--action", "tokenize"]] {
        let out = vault.scratch().join("exported.jsonl");
        let said = vault.cli_ok(&[words, &["-o", path(&out)]].concat());
        assert!(said.contains("not witnessed yet: 0 of 2"), "{said}");
    }
    assert_eq!(Stranger::of(&vault).get("/demo/checkpoint").body, note.as_bytes());

    // It outlives the process, and goes on.
    vault.kill();
    vault.up();
    assert_eq!(witnessed(&vault).await.unwrap(), note);
    let next = cosign(&vault, &two, &[]);
    assert!(next > begun);
    assert_eq!(cosign(&vault, &one, &[]), next);
    assert_eq!(witnessed(&vault).await.unwrap().lines().nth(1).unwrap(), next.to_string());
    // Whoever verifies counts for themselves.
    let (ledger, kept) = (vault.scratch().join("ledger.jsonl"), vault.scratch().join("kept"));
    vault.cli_ok(&["audit", "export", "-o", path(&ledger)]);
    fs::write(&kept, witnessed(&vault).await.unwrap()).unwrap();
    let keys = vault.scratch().join("witnesses");
    vault.cli_ok(&[
        "audit",
        "verify",
        path(&ledger),
        "--older",
        path(&kept),
        "--witness-keys",
        path(&keys),
        "--witnesses",
        "2",
        "--witnessed-at-least",
        &next.to_string(),
    ]);
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn witnesses_who_bring_what_they_cosigned_learn_a_rotated_key() {
    let (vault, [one, two]) = vault().await;
    grow(&vault, "Ann", 5).await;
    let begun = cosign(&vault, &one, &["--first"]);
    vault.cli_ok(&["keys", "rotate", "ledger"]);
    grow(&vault, "Bob", 5).await;
    // What waits is by the old key alone; what follows by both.
    assert_eq!(cosign(&vault, &two, &["--first"]), begun);
    let both = cosign(&vault, &one, &[]);
    assert!(both > begun);
    assert_eq!(cosign(&vault, &two, &[]), both);
    // Then only the new one signs, which nobody gave to them.
    command_with_approval(&vault, &["keys", "destroy", "ledger", "1", "--as", "officer-1"]);
    grow(&vault, "Eve", 5).await;
    let last = cosign(&vault, &one, &[]);
    assert!(last > both);
    assert_eq!(cosign(&vault, &two, &[]), last);
    let note = witnessed(&vault).await.unwrap();
    assert_eq!(note.lines().nth(1).unwrap(), last.to_string());
    assert_eq!(note.split_once("\n\n").unwrap().1.lines().count(), 3, "the new key's line, and the witnesses': {note}");
    assert_eq!(Stranger::of(&vault).get("/demo/checkpoint").body, note.as_bytes());
}

#[tokio::test]
async fn only_cosignatures_by_configured_witnesses_count() {
    let (vault, [one, _]) = vault().await;
    let stranger = vault.scratch().join("stranger");
    vault.cli_ok(&["witness", "init", "stranger.example/w", "--state", path(&stranger)]);
    let (log_key, out) = (vault.scratch().join("log.key"), vault.scratch().join("cosigned"));
    let words = ["witness", "cosign", "--to-vault", "--first", "--state", path(&stranger), "--log-key", path(&log_key)];
    let output = vault.cli(&[&words[..], &["-o", path(&out)]].concat());
    assert!(!output.status.success());
    cosign(&vault, &one, &["--first"]);
    assert!(witnessed(&vault).await.is_err());
    // An application brings nothing.
    let checkpoint = fs::read_to_string(out).unwrap();
    let request = v1::AddCosignatureRequest { checkpoint, log: String::new() };
    let mut app = vault.audit_as("app").await;
    assert_eq!(refused(app.add_cosignature(request).await).code, Code::PermissionDenied);
}
