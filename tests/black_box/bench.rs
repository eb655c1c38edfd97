//! `strongroom bench`: a short run, and the file of made-up borrowers.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{BINARY, TestVault};

/// Little is stored, and printed for programs.
const SMALL: [&str; 6] = ["--warm-up", "0", "--stored", "5000", "--output", "json"];

/// The one run of a load.
fn only_run(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["runs"].as_array().unwrap().len(), 1);
    report["runs"][0].clone()
}

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

    // Of six values two are looked up; one more index entry leads to their subject.
    let disk = &report["disk"];
    let entries = |family: &str| {
        let families = disk["families"].as_array().unwrap();
        families.iter().find(|one| one["family"] == family).unwrap()["entries_per_value"].as_f64().unwrap()
    };
    assert_eq!((entries("rows"), entries("subject_rows")), (1.0, 1.0));
    assert!((entries("index") - 3.0 / 6.0).abs() < 1e-9);
    assert!((entries("subjects") - 1.0 / 6.0).abs() < 1e-9);
    let bytes = |of: &Value, name: &str| of[name].as_f64().unwrap();
    assert!(bytes(disk, "disk_bytes_per_value") > bytes(disk, "stored_bytes_per_value"));
    assert!(bytes(disk, "stored_bytes_per_value") > bytes(disk, "plain_bytes_per_value"));
    for kind in ["tokenize", "detokenize"] {
        let leaves = &report["ledger"][kind];
        assert!(bytes(leaves, "bytes_per_unary_request") > bytes(leaves, "bytes_per_further_item"), "{leaves}");
        assert!(bytes(leaves, "bytes_per_further_item") > 0.0);
    }
    let goals = report["goals"].as_array().unwrap();
    let verdict = |start: &str| {
        let goal = goals.iter().find(|goal| goal["goal"].as_str().unwrap().starts_with(start)).unwrap();
        goal["verdict"].as_str().unwrap().to_owned()
    };
    assert_ne!(verdict("Tokenize of one value, against (a) echo"), "not measured");
    assert_ne!(verdict("A decision under 200 policies"), "not measured");
    assert!(bytes(&report["decide"]["cold_micros"], "median") > bytes(&report["decide"]["cached_micros"], "median"));
    assert_eq!(verdict("Detokenize with many tokens"), "not measured");
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

#[test]
fn a_load_of_ones_own_starts_as_often_as_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--mix", "tokenize=1,detokenize=1,match=1", "--rate", "200", "--seconds", "1", "--runs", "1"];
    let output = bench(folder.path(), &[&words[..], &SMALL].concat());
    let run = only_run(&output);
    assert!((120.0..=220.0).contains(&run["requests_per_second"].as_f64().unwrap()), "{run}");
    assert!(run["server_cpu_us_per_request"].as_f64().unwrap() > 0.0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_vault_that_is_running_is_measured_with_its_callers_certificate() {
    let vault = TestVault::start();
    let (dir, url) = (vault.dir(), vault.url());
    let words = ["--endpoint", &url, "--dir", dir.to_str().unwrap(), "--mix", "detokenize", "--batch", "100"];
    let words = [&words[..], &["--seconds", "1", "--runs", "1"], &SMALL].concat();

    // It lacks the measured fields, and is told how it gets them.
    let output = bench(vault.scratch(), &words);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--print-schema"));

    let schema = vault.scratch().join("schema.toml");
    let measured = vault.cli_ok(&["bench", "--print-schema"]);
    std::fs::write(&schema, vault.cli_ok(&["schema", "show"]) + &measured).unwrap();
    vault.cli_ok(&["schema", "apply", schema.to_str().unwrap()]);
    for streams in [&[][..], &["--streams"]] {
        let run = only_run(&bench(vault.scratch(), &[&words[..], streams].concat()));
        assert!(run["requests_per_second"].as_f64().unwrap() > 0.0, "{run}");
        // Its processor time is its own affair.
        assert!(run["server_cpu_us_per_request"].is_null());
    }
}

#[test]
fn latency_overload_growth_rewrap_and_retention_are_measured_on_a_vault_in_a_process_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--quick", "--parts", "latency,overload,growth,rewrap,retention", "--output", "json"];
    let files = ["--plot", "latency.svg", "--report", "report.md"];
    let output = bench(folder.path(), &[&words[..], &files].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["latency"]["steps"].as_array().unwrap().len(), 8);
    // All that were turned away heard when to try again.
    assert_eq!(report["overload"]["shed_with_retry_delay_share"], 1.0);
    assert!(report["overload"]["peak_memory"].as_u64().unwrap() > 1 << 20);
    assert_eq!(report["overload"]["recovery_seconds_runs"].as_array().unwrap().len(), 1);
    for start in ["start_seconds_after_clean_stop", "start_seconds_after_kill"] {
        assert!(report["growth"][start].as_f64().unwrap() > 0.0);
    }
    assert!(report["rewrap"]["deks"].as_u64().unwrap() >= 10_000);
    assert!(report["rewrap"]["p99_ms_with"].as_f64().unwrap() > 0.0);
    assert!(report["retention"]["subjects"].as_u64().unwrap() >= 10_000);
    assert!(report["retention"]["subjects_per_second"].as_f64().unwrap() > 0.0);
    assert!(report["retention"]["p99_ms_with"].as_f64().unwrap() > 0.0);
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
    assert!(read("latency.svg").starts_with("<svg"));
    let text = read("report.md");
    assert!(text.contains("## Goals") && text.contains("](latency.svg)") && text.contains("| not measured |"));
    // Figures of a short run are not taken for others, and a binary names what it was built from.
    assert!(text.contains("(--quick): its figures mean little"));
    assert!(text.contains(env!("STRONGROOM_COMMIT").trim_end_matches("-dirty")));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_ledger_and_a_decision_are_measured_alone_without_a_vault() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["--quick", "--parts", "ledger,decide", "--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["loads"].as_array().unwrap().len(), &report["disk"]), (0, &Value::Null));
    let speed = &report["ledger_speed"];
    for (part, way, figure) in [
        ("append", "committer", "leaves_per_second"),
        ("append", "raw", "leaves_per_second"),
        ("verify", "one_thread", "leaves_per_second"),
        ("verify", "all_processors", "leaves_per_second_a_processor"),
        ("verify", "hashed_only", "leaves_per_second"),
        ("export", "parquet", "megabytes_per_second"),
        ("export", "parquet", "peak_memory"),
        ("export", "jsonl", "megabytes_per_second"),
    ] {
        assert!(speed[part][way][figure].as_f64().unwrap() > 0.0, "{part} {way} {figure}: {speed}");
    }
    // The copy has every byte.
    assert_eq!(speed["export"]["jsonl"]["bytes"].as_f64(), speed["export"]["bytes"].as_f64());
    let measured = report["goals"].as_array().unwrap().iter().filter(|goal| goal["verdict"] != "not measured");
    assert_eq!(measured.count(), 4);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn questions_of_auditors_are_asked_of_a_log_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["--quick", "--parts", "questions", "--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let asked = &report["questions"];
    for question in ["subject", "principal", "plain", "denied", "changes"] {
        let answer = &asked["questions"][question];
        assert!(answer["seconds"].as_f64().unwrap() > 0.0 && answer["leaves"].as_f64().unwrap() > 0.0, "{asked}");
    }
    for figure in ["appended_per_second", "indexed_per_second", "index_bytes_per_leaf", "memory_bytes_at_most"] {
        assert!(asked[figure].as_f64().unwrap() > 0.0, "{figure}: {asked}");
    }
    let mut goals = report["goals"].as_array().unwrap().iter();
    assert_eq!(goals.find(|goal| goal["verdict"] != "not measured").unwrap()["unit"], "s");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_option_that_would_be_ignored_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for (words, right) in [
        (&["--growth", "200000"][..], "add --parts growth, or --all"),
        (&["--mix", "tokenize", "--report", "report.md"], "cannot be used with"),
    ] {
        let output = bench(folder.path(), words);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(right), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn another_machine_is_measured_only_if_that_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["--endpoint", "https://192.0.2.1:7443"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--allow-remote"), "{said}");
}
