//! A client in Python, made from proto/ by the usual tools: what the wire promises holds for others too.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::TestVault;

/// The interpreter that has the packages of tests/python/requirements.txt.
fn python() -> Command {
    let python = std::env::var_os("STRONGROOM_TEST_PYTHON");
    Command::new(
        python.expect("STRONGROOM_TEST_PYTHON names no Python with tests/python/requirements.txt: run ./run test"),
    )
}

fn succeeded(output: &Output) -> &[u8] {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    &output.stdout
}

/// Compiles proto/ as a caller would, and nothing else.
fn stubs(into: &Path) {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(proto.join("strongroom/v1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    assert!(files.len() >= 4, "{files:?}");
    let mut command = python();
    command.args(["-m", "grpc_tools.protoc"]).arg(format!("--proto_path={}", proto.display()));
    command.arg(format!("--python_out={}", into.display())).arg(format!("--grpc_python_out={}", into.display()));
    succeeded(&command.args(files).output().unwrap());
}

#[tokio::test]
async fn a_python_client_stores_reads_and_is_refused_and_proves_the_ledger_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    stubs(folder.path());
    let vault = TestVault::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let mut command = python();
    command.arg(script).arg(folder.path()).arg(vault.url().trim_start_matches("https://"));
    let output = command.arg(vault.dir().join("pki")).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(succeeded(&output)).unwrap();
    assert!(said["leaves"].as_u64().unwrap() > 10, "{said}");
    let reads = vault.leaves().await.into_iter().filter(|leaf| leaf["action"] == "detokenize");
    assert!(reads.count() >= 8, "its reads are in the ledger");
    vault.verify_ledger();
}
