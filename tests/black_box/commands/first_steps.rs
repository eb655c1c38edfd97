//! The commands that make a vault: `init`, `dev` and `demo`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{ID_CARD, code, complained, printed, run};
use crate::harness::BINARY;
use crate::house::{Authority, House, TRUST_DOMAIN, start, start_and_read};

#[test]
fn init_takes_an_empty_folder_and_certificates_that_say_who_they_are_of() {
    let house = House::new(&["lending"]);
    let beside = |name: &str| house.dir().with_file_name(name);
    let empty = tempfile::tempdir().unwrap();
    let init = |dir: &Path, officer: &str| {
        let mut command = Command::new(BINARY);
        command.arg("init").arg("--dir").arg(dir).args(["--trust-domain", TRUST_DOMAIN, "--tenant", "lending"]);
        command.arg("--officer").arg(format!("lending/{officer}={}", beside("lending-alice.pem").display()));
        command.arg("--client-ca").arg(beside("authorities.pem"));
        command.arg("--passphrase-file").arg(beside("passphrase"));
        command.output().unwrap()
    };
    let entries = |dir: &Path| fs::read_dir(dir).unwrap().count();
    let output = init(empty.path(), "bob");
    assert_eq!(code(&output), 2, "{output:?}");
    let said = complained(&output);
    assert!(said.contains("lending/officer/bob; it has spiffe://bank.example/tenant/lending/officer/alice"), "{said}");
    assert_eq!(entries(empty.path()), 0);
    assert_eq!(code(&init(empty.path(), "alice")), 0);
    assert!(entries(empty.path()) >= 4);
    let again = init(empty.path(), "alice");
    assert!(code(&again) == 1 && complained(&again).contains("exists already"), "{again:?}");

    // The configuration comes last: without it a vault is not whole.
    let serve = |dir: &Path| {
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--dir").arg(dir).args(["--listen", "127.0.0.1:0"]);
        command.arg("--passphrase-file").arg(beside("passphrase"));
        start(&mut command)
    };
    let Err(ended) = serve(empty.path()) else { panic!("it serves without certificates") };
    assert!(ended.said.contains("pki/server.pem") && ended.said.contains("[tls]"), "{}", ended.said);
    fs::remove_file(empty.path().join("strongroom.toml")).unwrap();
    let Err(ended) = serve(empty.path()) else { panic!("it serves half-made") };
    assert!(ended.said.contains("unfinished"), "{}", ended.said);

    // Nor does one serve callers of another authority than it was made for.
    let authorities = house.dir().join("pki/ca.pem");
    let enrolled = fs::read_to_string(&authorities).unwrap();
    for other in [Authority::new("another").pem(), enrolled.clone() + &Authority::new("another").pem()] {
        fs::write(&authorities, other).unwrap();
        let Err(ended) = serve(&house.dir()) else { panic!("it serves under another authority") };
        assert!(ended.said.contains("enrolled") && ended.said.contains("client_ca"), "{}", ended.said);
    }
    fs::write(&authorities, enrolled).unwrap();
    drop(serve(&house.dir()).unwrap());
}

#[test]
fn dev_takes_an_empty_folder_and_keeps_others_away() {
    let folder = tempfile::tempdir().unwrap();
    let dev = || {
        let mut command = Command::new(BINARY);
        command.arg("dev").arg("--dir").arg(folder.path()).args(["--listen", "127.0.0.1:0"]);
        start(&mut command)
    };
    let running = dev().unwrap();
    let Err(ended) = dev() else { panic!("two vaults run over one folder") };
    assert!(ended.said.contains("another process has this vault open"), "{}", ended.said);
    drop(running);
}

#[test]
fn what_dev_prints_can_be_pasted_as_it_is() {
    // Neither a blank nor a quote in a path gets in the way.
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("Ann's first vault $HOME");
    let mut command = Command::new(BINARY);
    command.arg("dev").arg("--dir").arg(&dir).args(["--listen", "127.0.0.1:0"]);
    let (_running, told) = start_and_read(&mut command, "Stop with Ctrl-C");
    let pasted: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(pasted.len(), 8, "{told}");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-u", "-c", &pasted.join("\n")]).current_dir(folder.path()).stdin(Stdio::null());
    let output = shell.output().unwrap();
    let (printed, complained) = (printed(&output), complained(&output));
    assert_eq!((code(&output), complained.as_str()), (0, ""), "{told}\n{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..3], ["110105********002X", ID_CARD, "yes"], "{printed}");
    assert!(lines[3].starts_with("srt1_"), "{printed}");
    assert!(printed.contains("every leaf is there") && printed.contains("[field.borrower.id_card]"), "{printed}");
}

/// Where a text stands first, after another.
fn after(told: &str, before: usize, text: &str) -> usize {
    before + told[before..].find(text).unwrap_or_else(|| panic!("{text:?} is not told in its place: {told}"))
}

#[test]
fn the_demo_tells_its_story_to_the_end_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    let words = ["demo", "--folder", demo.to_str().unwrap()];
    for _ in 0..2 {
        let output = run(&words);
        let (told, complained) = (printed(&output), complained(&output));
        assert_eq!(code(&output), 0, "{told}\n{complained}");
        assert!(!told.contains('\u{1b}'), "{told}");
        let mut at = 0;
        for step in [
            "$ strongroom import",
            "1,000",
            "6,000",
            "$ strongroom detokenize",
            "--view last4",
            "--view plain",
            "$ strongroom match",
            "yes",
            "$ strongroom lookup borrower.id_card",
            "srt1_",
            "--purpose marketing",
            "--as auditor",
            "$ strongroom tokenize",
            "$ strongroom export",
            "1,000",
            "6,000",
            "The two files are the same.",
            "$ strongroom audit export",
            "$ strongroom audit verify",
            "every leaf is there",
        ] {
            at = after(&told, at, step);
        }
        assert!(!told[at..].contains("$ strongroom"), "something comes after the proof: {told}");
        // The three refusals, each with what would be right.
        let mut at = 0;
        for refusal in [
            "error: this purpose rests on the data subject's consent, and there is none; without it you may ask for: ",
            "error: no value that you may know of stands behind this token",
            "error: items[0].value: the last character of an identity number",
        ] {
            at = after(&complained, at, refusal);
        }
        assert_eq!(complained.matches("error: ").count(), 3, "{complained}");
        assert!(!complained.contains("110105194912310021"), "{complained}");
    }
    let file = |name: &str| fs::read(demo.join(name)).unwrap();
    let whole = file("borrowers.csv");
    assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 1_001);
    assert_eq!(file("borrowers.back.csv"), whole);

    // What was verified is all that happened: the way back and the refusals as well.
    let ledger = demo.join("ledger.jsonl");
    let proof = run(&["audit", "verify", ledger.to_str().unwrap(), "--output", "json"]);
    assert_eq!(code(&proof), 0, "{}", complained(&proof));
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in String::from_utf8(file("ledger.jsonl")).unwrap().lines() {
        let leaf: Value = serde_json::from_str(line).unwrap();
        for item in leaf["items"].as_array().into_iter().flatten() {
            let word = |word: &Value| word.as_str().unwrap().to_owned();
            *counts.entry((word(&leaf["action"]), word(&item["outcome"]))).or_default() += 1;
        }
    }
    let count = |action: &str, outcome: &str| counts.get(&(action.to_owned(), outcome.to_owned())).copied();
    assert_eq!(count("tokenize", "ok"), Some(6_000), "{counts:?}");
    // Three masked, two by their last four, two plain, and the file.
    assert_eq!(count("detokenize", "ok"), Some(6_007), "{counts:?}");

    // A folder that it did not make stays as it is.
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("file"), "kept").unwrap();
    let output = run(&["demo", "--folder", mine.to_str().unwrap()]);
    assert_eq!((code(&output), fs::read_dir(&mine).unwrap().count()), (1, 1), "{}", complained(&output));
}
