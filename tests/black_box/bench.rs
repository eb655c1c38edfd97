//! `strongroom bench`: a short run, and the file of made-up borrowers.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::BINARY;

fn bench(folder: &Path, words: &[&str]) -> Output {
    Command::new(BINARY).arg("bench").args(words).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_short_run_measures_every_load_beside_its_yardsticks_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["--quick", "--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = Vec::new();
    for line in report["loads"].as_array().unwrap() {
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        seen.push(format!("{} {}", text("load"), text("measured")));
        for figure in ["items_per_second", "requests_per_second", "p50_us", "p99_us", "server_cpu_us_per_request"] {
            assert!(line["median"][figure].as_f64().unwrap() > 0.0, "{figure} of {seen:?}");
        }
        let ratio = &line["vault_to_this"]["server_cpu_per_item"];
        assert_eq!(ratio.is_null(), text("measured") == "vault", "{seen:?}");
    }
    let expected = [
        "tokenize_unary vault",
        "tokenize_unary echo",
        "tokenize_unary direct",
        "detokenize_unary vault",
        "detokenize_unary echo",
        "detokenize_unary direct",
        "detokenize_unary direct_without_ledger",
        "tokenize_batch vault",
        "tokenize_batch echo",
        "tokenize_batch direct",
        "detokenize_batch vault",
        "detokenize_batch echo",
        "detokenize_batch direct",
        "detokenize_batch direct_without_ledger",
    ];
    assert_eq!(seen, expected);

    // Of six values two are looked up and two have shaped tokens; one more index entry leads to their subject.
    let disk = &report["disk"];
    let entries = |family: &str| {
        let families = disk["families"].as_array().unwrap();
        families.iter().find(|one| one["family"] == family).unwrap()["entries_per_value"].as_f64().unwrap()
    };
    assert_eq!((entries("rows"), entries("subject_rows")), (1.0, 1.0));
    assert!((entries("index") - 5.0 / 6.0).abs() < 1e-9);
    assert!((entries("subjects") - 1.0 / 6.0).abs() < 1e-9);
    assert!(disk["disk_bytes_per_value"].as_f64().unwrap() > disk["plain_bytes_per_value"].as_f64().unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_of_somebody_elses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("mine");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("file"), "x").unwrap();
    let output = bench(folder.path(), &["--quick", "--folder", "mine"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was not made by `strongroom bench`"));
    assert!(kept.join("file").exists());
}

#[test]
fn the_made_up_borrowers_are_the_same_on_every_run() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["one.csv", "two.csv"] {
        assert!(bench(folder.path(), &["--make-csv", "20", file]).status.success());
    }
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
    let (one, two) = (read("one.csv"), read("two.csv"));
    assert_eq!(one.lines().count(), 21);
    assert!(one.starts_with("customer,name,id_card,mobile,bank_card,email,address,product\n"));
    assert_eq!(one, two);
}
