//! The command line: what it prints, how it ends, and what it says to try next.

mod first_steps;
mod help;

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::approvals::command_with_approval;
use crate::harness::{BINARY, TestVault};

const ID_CARD: &str = "11010519491231002X";

fn run(words: &[&str]) -> Output {
    Command::new(BINARY).args(words).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a command that is refused says, as text and as JSON; both must end with the same code.
fn refusal(vault: &TestVault, words: &[&str]) -> (i32, String, Value) {
    let text = vault.cli(words);
    let document = vault.cli(&[words, &["--output", "json"]].concat());
    assert_eq!(code(&text), code(&document), "{words:?}");
    let said = complained(&document);
    let document: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{words:?} said no JSON: {said}"));
    (code(&text), complained(&text), document["error"].clone())
}

#[test]
fn values_go_in_and_come_out_on_a_pipe() {
    let vault = TestVault::start();
    let from_stdin = |words: &[&str], input: &str| {
        let mut command = vault.cli_command(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    // The bare token, and nothing else; one newline at the end of a value is not part of it.
    let output = from_stdin(&["tokenize", "borrower.id_card", "-", "--subject", "c-1"], "11010519491231002X\n");
    assert_eq!((code(&output), complained(&output).as_str()), (0, ""));
    let token = printed(&output).strip_suffix('\n').unwrap().to_owned();
    assert!(token.starts_with("srt1_") && token.len() == 27, "{token}");
    let plain = ["detokenize", &token, "--purpose", "kyc_review", "--view", "plain"];
    assert_eq!(vault.cli_ok(&plain), "11010519491231002X\n");
    assert_eq!(vault.cli_ok(&plain[..4]), "110105********002X\n");
    let name = vault.cli_ok(&["tokenize", "borrower.name", "张三", "--subject", "c-1"]);

    // Several tokens: a table on a pipe is plain.
    let several = from_stdin(&["detokenize", "-", "--purpose", "kyc_review"], &format!("{token}\n\n{name}"));
    let text = printed(&several);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TOKEN", "FIELD", "VALUE"]);
    assert_eq!(rows[1], [&*token, "borrower.id_card", "110105********002X"]);
    assert_eq!(rows[2], [name.trim(), "borrower.name", "张**"]);
    assert!(!text.contains('\u{1b}'), "{text}");

    // A part is refused: 3; everything is: 1.
    let gone = token.replace("srt1_", "srt9_");
    let part = vault.cli(&["detokenize", &token, &gone, "--purpose", "kyc_review"]);
    assert_eq!(code(&part), 3);
    assert!(printed(&part).contains("NOT_FOUND"), "{}", printed(&part));
    assert_eq!(code(&vault.cli(&["detokenize", &gone, "LEGACY-1", "--purpose", "kyc_review"])), 1);
    let one = vault.cli(&["detokenize", &gone, "--purpose", "kyc_review"]);
    assert_eq!((code(&one), printed(&one).as_str()), (1, ""));
    let one = vault.cli(&["detokenize", &gone, "--purpose", "kyc_review", "--output", "json"]);
    let document: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!((code(&one), &document["results"][0]["problem"]["code"]), (1, &"NOT_FOUND".into()));

    // Match: yes 0, no 1, refused 1.
    for (value, said, ended) in [("11010519491231002x", "yes\n", 0), ("440524198801010011", "no\n", 1), ("12", "", 1)] {
        let output = from_stdin(&["match", &token, "-", "--purpose", "kyc_review"], value);
        assert_eq!((printed(&output).as_str(), code(&output)), (said, ended), "{value}");
    }
    let lookup = ["lookup", "borrower.id_card", ID_CARD, "--purpose", "kyc_review"];
    assert_eq!(vault.cli_ok(&lookup), format!("{token}\n"));
    assert_eq!(vault.cli_ok(&["lookup", "borrower.id_card", "440524198801010011", "--purpose", "kyc_review"]), "");

    // The same key, the same token.
    let once = ["tokenize", "borrower.name", "Ann", "--subject", "c-2", "--idempotency-key", "k-1"];
    assert_eq!(vault.cli_ok(&once), vault.cli_ok(&once));
    let (ended, text, error) = refusal(&vault, &[&once[..2], &["Bob"], &once[3..]].concat());
    assert_eq!((ended, &error["reason"]), (1, &"IDEMPOTENCY_KEY_REUSED".into()));
    assert!(text.contains("try: the same command with another --idempotency-key"), "{text}");
}

#[test]
fn every_answer_is_one_json_document_where_that_is_asked_for() {
    let vault = TestVault::start();
    let token = vault.json(&["tokenize", "borrower.id_card", ID_CARD, "--subject", "c-1"])["token"].clone();
    let token = token.as_str().unwrap();
    let read = vault.json(&["detokenize", token, "--purpose", "kyc_review", "--view", "plain"]);
    assert_eq!(
        read["results"][0],
        serde_json::json!({ "token": token, "field": "borrower.id_card", "value": ID_CARD })
    );
    assert_eq!(vault.json(&["match", token, ID_CARD, "--purpose", "kyc_review"])["matched"], true);
    let found = vault.json(&["lookup", "borrower.id_card", ID_CARD, "--purpose", "kyc_review"]);
    assert_eq!(found["tokens"], serde_json::json!([token]));

    let status = vault.json(&["status"]);
    assert_eq!(
        (&status["state"], &status["tenant"], &status["role"]),
        (&"serving".into(), &"system".into(), &"operator".into())
    );
    let status = vault.json(&["status", "--as", "app"]);
    assert_eq!(
        (&status["tenant"], &status["principal"], &status["role"]),
        (&"demo".into(), &"app/app".into(), &"app".into())
    );
    assert_eq!((&status["schema_version"], &status["policy_version"]), (&1.into(), &1.into()));
    assert!(status["keys"].as_array().unwrap().iter().all(|key| key["state"] == "enabled"), "{status}");
    assert!(status["ledger_size"].as_str().unwrap().parse::<u64>().unwrap() > 4, "{status}");

    let key = vault.json(&["audit", "key"])["keys"][0].as_str().unwrap().to_owned();
    let note = vault.json(&["audit", "checkpoint"])["checkpoint"].as_str().unwrap().to_owned();
    assert_eq!(key.split('+').next(), note.lines().next());
    assert_eq!(vault.cli_ok(&["audit", "key"]).trim(), key);
    assert!(vault.cli_ok(&["audit", "checkpoint"]).starts_with(key.split('+').next().unwrap()));
    let ledger = vault.scratch().join("ledger.jsonl");
    let ledger = ledger.to_str().unwrap();
    let exported = vault.json(&["audit", "export", "-o", ledger]);
    let verified = vault.json(&["audit", "verify", ledger]);
    assert_eq!((&verified["verified"], &verified["leaves"]), (&true.into(), &exported["leaves"]));
    assert_eq!(verified["requests"]["match"]["allow"], 1, "{verified}");
    let lines = fs::read_to_string(ledger).unwrap().lines().count();
    assert_eq!(exported["leaves"], lines.to_string().as_str());

    assert_eq!(vault.json(&["schema", "show"])["source"], include_str!("../../deploy/schemas/lending.toml"));
    assert_eq!(vault.json(&["policy", "show"])["source"], include_str!("../../deploy/policies/default.cedar"));
}

#[test]
fn a_refusal_says_what_broke_which_rule_and_what_to_try() {
    let vault = TestVault::start();
    let token = vault.cli_ok(&["tokenize", "borrower.id_card", ID_CARD, "--subject", "c-1"]);
    let token = token.trim();
    for (words, reason, hint) in [
        (&["tokenize", "borrower.nickname", "Ann"][..], "FIELD_UNKNOWN", "`strongroom schema show`"),
        (&["tokenize", "borrower.id_card", "110105194912310021"], "VALUE_INVALID", "mistyped"),
        (&["detokenize", token, "--purpose", "curiosity"], "PURPOSE_INVALID", "try: strongroom schema show"),
        (&["match", token, ID_CARD, "--purpose", "marketing"], "PURPOSE_NOT_ALLOWED", "--purpose"),
        (&["lookup", "borrower.name", "Ann", "--purpose", "kyc_review"], "FIELD_INVALID", "lookup"),
        (&["audit", "key", "--as", "app"], "DENIED", "strongroom policy explain"),
        (&["audit", "export", "--log", "system", "-o", "/dev/null/x"], "DENIED", "--as operator"),
        (&["schema", "show", "--as", "privacy"], "DENIED", "strongroom policy explain"),
    ] {
        let (ended, text, error) = refusal(&vault, words);
        assert_eq!(ended, 1, "{words:?}: {text}");
        assert!(text.starts_with("error: ") && text.contains(hint), "{words:?}: {text}");
        assert!(!text.contains('\u{1b}') && !text.contains("110105194912310021"), "{words:?}: {text}");
        assert_eq!(error["reason"], reason, "{words:?}: {error}");
    }
    let output = vault.cli(&["detokenize", token, "--purpose", "kyc_review", "--view", "whole"]);
    let text = complained(&output);
    assert!(
        text.contains("birth_year, last4, masked, plain") && text.contains("try: the same command with --view"),
        "{text}"
    );
}

#[test]
fn schema_and_policy_are_checked_applied_shown_and_explained() {
    let vault = TestVault::start();
    let root = env!("CARGO_MANIFEST_DIR");
    let schema = format!("{root}/deploy/schemas/lending.toml");
    let policy = format!("{root}/deploy/policies/default.cedar");
    let cases = format!("{root}/deploy/policies/default.tests.toml");
    assert_eq!(vault.cli_ok(&["schema", "show"]), fs::read_to_string(&schema).unwrap());
    assert!(vault.cli_ok(&["schema", "apply", &schema, "--check"]).starts_with("good: 14 fields"));
    assert_eq!(vault.json(&["status", "--as", "app"])["schema_version"], 1);
    assert!(vault.cli_ok(&["schema", "apply", &schema]).contains("version 2 is in force"));
    assert_eq!(vault.json(&["status", "--as", "app"])["schema_version"], 2);
    let broken = vault.scratch().join("broken.toml");
    fs::write(&broken, fs::read_to_string(&schema).unwrap().replace("\"cn_id_card\"", "\"id_card\"")).unwrap();
    let (ended, text, error) = refusal(&vault, &["schema", "apply", broken.to_str().unwrap(), "--check"]);
    assert_eq!((ended, &error["reason"]), (1, &"SOURCE_REFUSED".into()));
    assert!(text.contains("line ") && text.contains("cn_id_card"), "{text}");

    let checked = vault.json(&["policy", "check", &policy, "--tests", &cases]);
    assert_eq!((&checked["version"], &checked["in_force"]), (&2.into(), &false.into()));
    assert!(checked["cases"].as_u64().unwrap() > 80, "{checked}");
    assert_eq!(vault.json(&["status", "--as", "app"])["policy_version"], 1);
    let applied = command_with_approval(&vault, &["policy", "apply", &policy, "--tests", &cases]);
    assert!(applied.contains("version 2 is in force"), "{applied}");
    assert_eq!(vault.cli_ok(&["policy", "show"]), fs::read_to_string(&policy).unwrap());

    let ask = ["policy", "explain", "--role", "app", "--action", "detokenize", "--field", "borrower.id_card"];
    let plain = [&ask[..], &["--view", "plain", "--purpose", "kyc_review"]].concat();
    let text = vault.cli_ok(&plain);
    assert!(text.contains("allowed") && text.contains("app-plain-view"), "{text}");
    let document = vault.json(&plain);
    assert_eq!(document["policies"], serde_json::json!(["app-plain-view"]));
    assert_eq!(document["allowed_views"], serde_json::json!(["birth_year", "last4", "masked", "plain"]));
    let denied =
        vault.cli(&["policy", "explain", "--role", "auditor", "--action", "detokenize", "--field", "borrower.name"]);
    assert_eq!(code(&denied), 1);
    assert!(printed(&denied).contains("denied"), "{denied:?}");
    assert_eq!(code(&vault.cli(&["policy", "explain", "--role", "auditor", "--action", "export_ledger"])), 0);
    // What would be allowed in other circumstances.
    let officer = ["policy", "explain", "--role", "officer", "--action", "apply_policy"];
    let alone = vault.cli(&officer);
    assert_eq!(code(&alone), 1);
    assert!(printed(&alone).contains("allowed with") && printed(&alone).contains("1 approval in all"), "{alone:?}");
    assert_eq!(code(&vault.cli(&[&officer[..], &["--approvals", "1"]].concat())), 0);
    let marketing = [&ask[..6], &["--field", "borrower.name", "--view", "masked", "--purpose", "marketing"]].concat();
    let told = vault.cli(&[&marketing[..], &["--output", "json"]].concat());
    assert_eq!(code(&told), 1);
    let told: Value = serde_json::from_str(&printed(&told)).unwrap();
    assert_eq!((&told["allowed_with_consent"], &told["allowed_approvals"]), (&true.into(), &0.into()));
    assert_eq!((&told["allowed_second_factor"], told["allowed_purposes"].as_array().unwrap().len()), (&"".into(), 4));
    assert_eq!(code(&vault.cli(&[&marketing[..], &["--consent", "standing"]].concat())), 0);
    let (ended, _, error) = refusal(&vault, &[&officer[..], &["--tier", "IV"]].concat());
    assert_eq!((ended, &error["violations"][0]["rule"]), (1, &"name_unknown".into()));
    let (ended, text, error) = refusal(&vault, &["policy", "explain", "--role", "king", "--action", "status"]);
    assert_eq!((ended, &error["violations"][0]["rule"]), (1, &"role_unknown".into()));
    assert!(text.contains("auditor"), "{text}");
}

#[test]
fn the_key_of_a_log_is_not_the_key_of_a_caller() {
    let vault = TestVault::start();
    let path = |name: &str| vault.dir().join("pki").join(name);
    let ledger = vault.scratch().join("ledger.jsonl");
    let ledger = ledger.to_str().unwrap();
    let run = |words: &[&str]| {
        let mut command = vault.cli_command(words);
        command.env("STRONGROOM_CERT", path("auditor.pem")).env("STRONGROOM_KEY", path("auditor.key"));
        command.output().unwrap()
    };
    let exported = run(&["audit", "export", "-o", ledger]);
    assert_eq!(code(&exported), 0, "{exported:?}");
    let verified = run(&["audit", "verify", ledger]);
    assert_eq!(code(&verified), 0, "{verified:?}");
    let verified = run(&["audit", "verify", ledger, "--log-key", &format!("{ledger}.key")]);
    assert_eq!(code(&verified), 0, "{verified:?}");
    // Half a pair asks nobody, but proves as well as a whole one.
    let mut half = vault.cli_command(&["audit", "verify", ledger]);
    assert_eq!(code(&half.env("STRONGROOM_KEY", path("auditor.key")).output().unwrap()), 0);
    let mut half = vault.cli_command(&["audit", "key"]);
    assert_eq!(code(&half.env("STRONGROOM_KEY", path("auditor.key")).output().unwrap()), 2);
    let missing = vault.cli(&["audit", "verify", "nofile"]);
    assert!(complained(&missing).contains("nofile:"), "{missing:?}");
    // What is refused leaves nothing behind.
    let part = vault.scratch().join("system.part");
    let refused = vault.cli(&["audit", "export", "--log", "system", "-o", part.with_extension("").to_str().unwrap()]);
    assert_eq!((code(&refused), part.exists()), (1, false), "{refused:?}");
}
