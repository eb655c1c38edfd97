//! The command line: what it prints, how it ends, and what it says to try next.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::approvals::{command_with_approval, named};
use crate::harness::{BINARY, TestVault};
use crate::house::{Authority, House, TRUST_DOMAIN, start, start_and_read};

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
