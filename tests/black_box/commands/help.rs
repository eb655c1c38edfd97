//! What the command line says of itself, of bad usage, and where there is no vault.

use std::fs;
use std::process::Command;

use super::{code, complained, printed, run};
use crate::approvals::named;
use crate::harness::{BINARY, TestVault};

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is indented more continues the line above.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_explains_itself() {
    let mut open: Vec<Vec<String>> = vec![vec![]];
    let mut seen = Vec::new();
    while let Some(command) = open.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let output = run(&words);
        let help = printed(&output);
        assert_eq!((code(&output), complained(&output).as_str()), (0, ""), "{words:?}");
        assert!(help.contains(format!("Usage: strongroom {}", command.join(" ")).trim_end()), "{words:?}: {help}");
        assert!(!help.contains('\u{1b}') && !help.starts_with("Usage"), "{words:?}: {help}");
        open.extend(listed(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));
        seen.push(command.join(" "));
    }
    for command in [
        "dev",
        "demo",
        "init",
        "serve",
        "status",
        "tokenize",
        "detokenize",
        "match",
        "lookup",
        "import",
        "export",
        "schema apply",
        "schema show",
        "subject label",
        "subject labels",
        "subject consent grant",
        "subject consent withdraw",
        "subject consent list",
        "subject erase",
        "subject undo-erasure",
        "subject erasure",
        "subject erasures",
        "subject verify-receipt",
        "subject report",
        "subject export",
        "report processing",
        "subject hold",
        "subject lift",
        "subject holds",
        "policy apply",
        "policy check",
        "policy show",
        "policy history",
        "policy rollback",
        "policy explain",
        "freeze",
        "unfreeze",
        "freezes",
        "principal suspend",
        "principal unsuspend",
        "principal tier",
        "principal limits",
        "principal list",
        "officer list",
        "officer enrol",
        "officer remove",
        "break-glass officer",
        "break-glass anchor add",
        "break-glass anchor remove",
        "break-glass policy",
        "second-factor enrol",
        "second-factor confirm",
        "second-factor step-up",
        "second-factor reset",
        "second-factor list",
        "approvals",
        "approve",
        "reject",
        "retention report",
        "retention run",
        "retention confirm-clock",
        "own-key show",
        "own-key import-key",
        "own-key bring",
        "own-key move",
        "own-key remove",
        "audit export",
        "audit subject",
        "audit reads",
        "audit denied",
        "audit changes",
        "audit checkpoint",
        "audit key",
        "audit verify",
        "verify",
        "restore",
        "bench",
    ] {
        assert!(seen.iter().any(|known| known == command), "{command} is not among {seen:?}");
    }
    let top = printed(&run(&["--help"]));
    assert!(top.contains("Exit codes: 0 done, 1 refused or failed, 2 bad usage, 3 done in part"), "{top}");
    assert!(printed(&run(&["--version"])).starts_with("strongroom "));
}

#[test]
fn bad_usage_ends_with_2_and_says_what_is_right() {
    for (words, hint) in [
        (&[][..], "Usage: strongroom"),
        (&["detokenise"], "detokenize"),
        (&["tokenize"], "<FIELD>"),
        (&["tokenize", "borrower.name", "Ann", "--expires", "tomorrow"], "2031-12-31"),
        (&["detokenize", "srt1_x"], "--purpose"),
        (&["import", "x.csv", "--map", "name", "--subject", "id", "-o", "y"], "COLUMN=FIELD"),
        (&["status", "--output", "xml"], "json"),
        (&["status", "--cert", "x.pem"], "--key"),
        (&["status", "--key", "x.key"], "--cert"),
        (&["status", "--address", "http://127.0.0.1:1"], "https://"),
        (&["detokenize", "-", "--purpose", "kyc_review"], "one a line"),
        (&["freeze", "borrower.name", "--all-tenants"], "--all-tenants"),
        (&["principal", "suspend", "app/app"], "--reason"),
    ] {
        // Certificates come before the address, so there must be some.
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pki")).unwrap();
        for name in ["ca.pem", "operator.pem", "operator.key"] {
            fs::write(dir.path().join("pki").join(name), "").unwrap();
        }
        let output = Command::new(BINARY).args(words).env("STRONGROOM_DIR", dir.path()).output().unwrap();
        assert_eq!(code(&output), 2, "{words:?}: {}", complained(&output));
        assert!(complained(&output).contains(hint), "{words:?}: {}", complained(&output));
        assert_eq!(printed(&output), "", "{words:?}");
    }
}

#[test]
fn without_a_vault_a_command_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().to_str().unwrap();
    let output = run(&["status", "--dir", nowhere]);
    assert_eq!(code(&output), 1);
    assert!(complained(&output).contains("strongroom dev"), "{}", complained(&output));
    // There was one, and it does not run.
    let mut vault = TestVault::start();
    let url = vault.url();
    vault.kill();
    let output = vault.cli(&["status", "--address", &url]);
    assert_eq!(code(&output), 1);
    assert!(complained(&output).contains("start one with: strongroom dev"), "{}", complained(&output));
    let output = vault.cli(&["status", "--address", &url, "--as", "nobody"]);
    assert!(complained(&output).contains("nobody.pem") && complained(&output).contains("--as"), "{output:?}");
}

/// The commands that a help text gives as examples, each as its words.
fn examples(help: &str) -> Vec<Vec<String>> {
    let lines =
        help.lines().skip_while(|line| !line.starts_with("Example")).skip(1).take_while(|line| !line.is_empty());
    let mut commands: Vec<Vec<String>> = Vec::new();
    for line in lines {
        let words = line.split_whitespace().filter(|word| *word != "\\").map(str::to_owned);
        match (line.starts_with("  strongroom "), commands.last_mut()) {
            (false, Some(last)) => last.extend(words),
            _ => commands.push(words.skip(1).collect()),
        }
    }
    commands
}

#[test]
fn the_examples_of_the_help_texts_work() {
    let vault = TestVault::start();
    let mut run_so_far = 0;
    for command in [&["policy", "explain"][..], &["policy", "apply"], &["schema", "apply"], &["status"]] {
        let help = printed(&run(&[command, &["--help"]].concat()));
        for words in examples(&help) {
            let words: Vec<&str> = words.iter().map(String::as_str).take_while(|word| *word != "|").collect();
            let run = || vault.cli_command(&words).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
            let mut output = run();
            if code(&output) == 3 {
                // It waits for somebody else, who agrees.
                vault.cli_ok(&["approve", &named(&complained(&output))]);
                output = run();
            }
            assert_eq!(code(&output), 0, "{words:?}: {}", complained(&output));
            run_so_far += 1;
        }
    }
    assert!(run_so_far >= 8, "{run_so_far}");
}
