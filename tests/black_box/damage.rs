//! Damage on the disk: what was changed there is told as lost, and never taken for what was written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strongroom_proto::v1;
use tonic::Code;

use crate::harness::{TestVault, Told, detokenize, item, one_token, tokenize, value};
use crate::raw;

/// Enough that the first and the last of them stand in different blocks, of 4 KiB each.
const VALUES: usize = 200;

/// The files that hold the rows of values. RocksDB writes the family's name into the properties of each.
fn row_files(data: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|ending| ending == "sst"));
    let named = b"namerows";
    let found = tables.filter(|path| fs::read(path).unwrap().windows(named.len()).any(|part| part == named));
    found.collect()
}

async fn read(vault: &TestVault, token: &str) -> Result<String, Told> {
    let answer = vault.vault().await.detokenize(detokenize(&[token], "kyc_review", "plain")).await?;
    value(answer.into_inner().results.remove(0)).map(|bytes| String::from_utf8(bytes).unwrap())
}

async fn state(vault: &TestVault) -> String {
    vault.system().await.status(v1::StatusRequest {}).await.unwrap().into_inner().state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_loses_what_it_held_and_health_says_so() {
    let mut vault = TestVault::start();
    let name = |n: usize| format!("Vipsania Agrippina the {n}th of her name");
    let items = (0..VALUES).map(|n| item("borrower.name", &name(n), "cust-1")).collect();
    let tokens = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    // A start writes what it finds in the log to files, and the end leaves them.
    vault.kill();
    vault.up();
    assert!(vault.stop().success());
    let files = row_files(&vault.dir().join("data"));
    let [file] = files.as_slice() else { panic!("rows are in {files:?}") };
    let whole = fs::read(file).unwrap();
    let mut damaged = whole.clone();
    // In the first block.
    damaged[200] ^= 1;
    fs::write(file, &damaged).unwrap();

    vault.up();
    assert_eq!(read(&vault, &tokens[VALUES - 1]).await.unwrap(), name(VALUES - 1));
    assert_eq!(state(&vault).await, "serving", "nobody has met the damage yet");
    let told = read(&vault, &tokens[0]).await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::DataLoss, "DATA_LOSS"));
    assert!(!told.message.contains("Vipsania"), "{}", told.message);
    assert_eq!(state(&vault).await, "damaged");
    let channel = vault.channel("operator").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    // HealthCheckResponse { status: NOT_SERVING }
    while raw::call(&channel, "/grpc.health.v1.Health/Check", &[]).await.unwrap() != [0x08, 0x02] {
        assert!(Instant::now() < deadline, "health does not say so");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // All else goes on: what is whole is read, and what is new is stored.
    assert_eq!(read(&vault, &tokens[VALUES - 1]).await.unwrap(), name(VALUES - 1));
    let new = one_token(&vault, "borrower.name", "Agrippa", "cust-2").await;
    assert_eq!(read(&vault, &new).await.unwrap(), "Agrippa");
    assert_eq!(read(&vault, &tokens[0]).await.unwrap_err().code, Code::DataLoss);
    let refusals = vault.leaves().await.into_iter().filter(|leaf| leaf["reason"] == "DATA_LOSS").count();
    assert_eq!(refusals, 2);
    vault.verify_ledger();

    assert!(vault.stop().success());
    let verified = vault.cli(&["verify"]);
    let said = String::from_utf8_lossy(&verified.stderr);
    assert_eq!(verified.status.code(), Some(1), "{said}");
    // Put back as it was, nothing is lost.
    assert!(file.exists(), "the damaged file was compacted away");
    fs::write(file, whole).unwrap();
    vault.up();
    assert_eq!(read(&vault, &tokens[0]).await.unwrap(), name(0));
    assert_eq!(state(&vault).await, "serving");
}
