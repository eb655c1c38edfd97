//! Secrecy: what was entrusted to the vault stands in no file that it writes, and in nothing that it says.
//!
//! Everything is searched byte by byte for each known value, in every form.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::BASE64;
use strongroom_proto::v1;
use strongroom_proto::v1::grant_consent_request;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use tonic::Status;

use crate::consents::consent;
use crate::deterministic::uscc;
use crate::harness::{BINARY, TestVault, detokenize, item, tokenize};
use crate::needles::{Needles, files, stored_files};

const TRACE: (&str, &str) = ("STRONGROOM_LOG", "trace");

/// The passphrase and the private keys of a vault for development.
fn keys(vault: &Path) -> Needles {
    let mut needles = Needles::new();
    let passphrase = std::fs::read_to_string(vault.join("dev-passphrase")).unwrap();
    needles.text(passphrase.trim());
    let mut found = 0;
    for file in files(&vault.join("pki")).into_iter().filter(|file| file.extension().is_some_and(|end| end == "key")) {
        let pem = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----") && !line.is_empty()).collect();
        let name = file.display().to_string();
        for line in &lines {
            needles.bytes(&name, line.as_bytes());
        }
        let key = BASE64.decode(lines.concat().as_bytes()).unwrap();
        needles.bytes(&name, &key);
        // RFC 5958 and RFC 8410: the secret itself is an octet string of 32 bytes, the first; random bytes come after it.
        let at = key.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
        needles.bytes(&name, &key[at..at + 32]);
        found += 1;
    }
    assert!(found >= 7, "only {found} keys");
    needles
}

/// Values, subjects and keys of a load; each occurs nowhere else.
struct Load {
    needles: Needles,
    values: Vec<v1::TokenizeItem>,
}

const SUBJECTS: [&str; 3] = ["subject-Aurelia-7731", "主体-欧阳-8842", "subject-Cassius-9953"];
const IDEMPOTENCY: &str = "idem-Domitia-6624";
/// Sent where it has no business: in place of tokens, names and purposes, by a caller that mixed up its columns.
const STRAY: &str = "330106198807159988";

impl Load {
    fn new() -> Self {
        let values = vec![
            item("borrower.name", "欧阳志远之名", SUBJECTS[0]),
            item("borrower.id_card", "11010519491231002x", SUBJECTS[0]),
            item("borrower.mobile", "+86 138-7654-3219", SUBJECTS[0]),
            item("borrower.bank_card", "6222024871930562848", SUBJECTS[1]),
            item("borrower.email", "aurelia.vipsania@mail.example", SUBJECTS[1]),
            item("borrower.address", "北京市朝阳区建国路七十七号", SUBJECTS[1]),
            item("borrower.monthly_income", "98765432.1875", SUBJECTS[1]),
            item("borrower.password_hash", "$argon2id$v=19$m=64$c2FsdHNhbHQ$kFa9", SUBJECTS[2]),
            item("borrower.account_opened", "1987-11-29", SUBJECTS[2]),
            item("company.name", "Claudius Trading Company", ""),
            item("company.uscc", &uscc(73_519_846), SUBJECTS[2]),
            item("company.settlement_account", "acct-73519846-22", SUBJECTS[2]),
            item("company.contact_mobile", "13912348765", ""),
        ];
        let mut needles = Needles::new();
        for item in &values {
            needles.text(std::str::from_utf8(&item.value).unwrap());
        }
        // Normal forms, under which values are indexed.
        for normal in ["11010519491231002X", "13876543219", "replaced-Name", "wrong-but-close", STRAY, IDEMPOTENCY] {
            needles.text(normal);
        }
        for subject in SUBJECTS {
            needles.text(subject);
        }
        Self { needles, values }
    }

    /// All that a service does with values.
    async fn run(&self, vault: &TestVault) {
        let mut client = vault.vault().await;
        let request = v1::TokenizeRequest { items: self.values.clone(), idempotency_key: IDEMPOTENCY.to_owned() };
        let tokens = client.tokenize(request.clone()).await.unwrap().into_inner().tokens;
        assert_eq!(client.tokenize(request).await.unwrap().into_inner().tokens, tokens);
        for token in &tokens {
            assert!(self.needles.found(token.as_bytes()).is_empty(), "{token}");
        }
        let known: Vec<&str> = tokens.iter().map(String::as_str).collect();
        for view in ["plain", "masked", "last4"] {
            for purpose in ["loan_servicing", "kyc_review", "marketing"] {
                client.detokenize(detokenize(&known, purpose, view)).await.unwrap();
            }
        }
        let mut named = detokenize(&known, "kyc_review", "plain");
        for (item, value) in named.items.iter_mut().zip(&self.values) {
            item.subject = value.subject.clone();
        }
        client.detokenize(named).await.unwrap();

        let pair = |(token, value): (&String, &v1::TokenizeItem)| v1::MatchItem {
            token: token.clone(),
            value: value.value.clone(),
            subject: value.subject.clone(),
        };
        let mut items: Vec<v1::MatchItem> = tokens.iter().zip(&self.values).map(pair).collect();
        items.push(v1::MatchItem { value: "wrong-but-close".into(), ..items[0].clone() });
        client.r#match(v1::MatchRequest { items, purpose: "loan_servicing".to_owned() }).await.unwrap();
        let wanted = |item: &v1::TokenizeItem| v1::LookupItem { field: item.field.clone(), value: item.value.clone() };
        let mut items: Vec<v1::LookupItem> = self.values.iter().map(wanted).collect();
        items.push(v1::LookupItem { field: "borrower.id_card".to_owned(), value: STRAY.into() });
        client.lookup(v1::LookupRequest { items, purpose: "loan_servicing".to_owned() }).await.unwrap();

        let item = v1::ReplaceItem { token: tokens[0].clone(), value: "replaced-Name".into(), expire_time: None };
        let request = v1::ReplaceRequest { items: vec![item], idempotency_key: IDEMPOTENCY.to_owned() };
        client.replace(request).await.unwrap();
        let item = v1::DeleteItem { token: tokens[2].clone(), subject: SUBJECTS[0].to_owned() };
        let request = v1::DeleteRequest { items: vec![item], idempotency_key: IDEMPOTENCY.to_owned() };
        client.delete(request).await.unwrap();

        let mut subjects = SubjectsClient::new(vault.channel("privacy").await);
        for subject in SUBJECTS {
            subjects.grant_consent(consent(subject)).await.unwrap();
            client.detokenize(detokenize(&known, "marketing", "masked")).await.unwrap();
            let request = v1::ListConsentsRequest { subject: subject.to_owned(), purpose: String::new(), scope: None };
            subjects.list_consents(request).await.unwrap();
        }

        // Through the command line, whose own words are no matter here.
        vault.cli_ok(&["tokenize", "borrower.name", "欧阳志远之名", "--subject", SUBJECTS[0]]);
        vault.cli_ok(&["detokenize", &tokens[1], "--purpose", "kyc_review", "--view", "plain"]);
    }

    /// All that goes wrong, with a value in each place where one may end by mistake.
    async fn fail(&self, vault: &TestVault, token: &str) {
        let mut client = vault.vault().await;
        let refused = |what: &str, status: Option<Status>| {
            self.needles.absent_from_refusal(&status.unwrap_or_else(|| panic!("{what} was let in")), what);
        };
        let name = || item("borrower.name", "欧阳志远之名", SUBJECTS[0]);
        let bad_items = [
            ("a value", item("borrower.mobile", STRAY, SUBJECTS[0])),
            ("a value of a card", item("borrower.id_card", STRAY, SUBJECTS[0])),
            ("a field", item(STRAY, "欧阳志远之名", SUBJECTS[0])),
            ("a subject", item("borrower.name", "欧阳志远之名", &STRAY.repeat(8))),
            ("a token", v1::TokenizeItem { token: STRAY.to_owned(), ..name() }),
            ("a missing subject", item("company.settlement_account", "acct-73519846-22", "")),
        ];
        for (what, bad) in bad_items {
            refused(what, client.tokenize(tokenize(vec![bad.clone()])).await.err());
            let mut answers =
                client.tokenize_stream(tokio_stream::iter([tokenize(vec![bad])])).await.unwrap().into_inner();
            let Some(v1::tokenize_stream_response::Result::Problem(problem)) =
                answers.message().await.unwrap().unwrap().result
            else {
                panic!("{what} was let in")
            };
            let said = format!(
                "{} {:?}",
                problem.message,
                problem.violations.iter().map(|one| &one.description).collect::<Vec<_>>()
            );
            assert!(self.needles.found(said.as_bytes()).is_empty(), "{what}: {said}");
        }
        let reused = v1::TokenizeRequest { items: vec![name()], idempotency_key: IDEMPOTENCY.to_owned() };
        refused("a key that was used", client.tokenize(reused).await.err());
        let long = v1::TokenizeRequest { items: vec![name()], idempotency_key: STRAY.repeat(8) };
        refused("a long key", client.tokenize(long).await.err());

        refused("a purpose", client.detokenize(detokenize(&[token], STRAY, "plain")).await.err());
        let mut astray = detokenize(&[STRAY, token, token, "欧阳志远之名"], "kyc_review", "plain");
        astray.items[1].view = STRAY.to_owned();
        astray.items[2].subject = STRAY.to_owned();
        for result in client.detokenize(astray).await.unwrap().into_inner().results {
            let Some(v1::detokenize_result::Result::Problem(problem)) = result.result else { panic!("it was let in") };
            assert!(self.needles.found(problem.message.as_bytes()).is_empty(), "{}", problem.message);
        }
        let item = |token: &str, value: &str| v1::MatchItem {
            token: token.to_owned(),
            value: value.to_owned().into(),
            subject: STRAY.to_owned(),
        };
        let items = vec![item(STRAY, "欧阳志远之名"), item(token, STRAY)];
        client.r#match(v1::MatchRequest { items: items.clone(), purpose: "kyc_review".to_owned() }).await.unwrap();
        refused("a purpose", client.r#match(v1::MatchRequest { items, purpose: STRAY.to_owned() }).await.err());
        let items = vec![
            v1::LookupItem { field: STRAY.to_owned(), value: STRAY.into() },
            v1::LookupItem { field: "borrower.mobile".to_owned(), value: STRAY.into() },
        ];
        client.lookup(v1::LookupRequest { items: items.clone(), purpose: "kyc_review".to_owned() }).await.unwrap();
        refused("a purpose", client.lookup(v1::LookupRequest { items, purpose: STRAY.to_owned() }).await.err());
        for (token, value) in [(STRAY, "replaced-Name"), (token, STRAY)] {
            let item = v1::ReplaceItem { token: token.to_owned(), value: value.to_owned().into(), expire_time: None };
            let request = v1::ReplaceRequest { items: vec![item], idempotency_key: STRAY.to_owned() };
            refused("a replacement", client.replace(request).await.err());
        }
        let item = v1::DeleteItem { token: STRAY.to_owned(), subject: STRAY.to_owned() };
        client.delete(v1::DeleteRequest { items: vec![item], idempotency_key: STRAY.to_owned() }).await.unwrap();

        let mut subjects = SubjectsClient::new(vault.channel("privacy").await);
        let stray = || STRAY.to_owned();
        for scope in [grant_consent_request::Scope::Field(stray()), grant_consent_request::Scope::Class(stray())] {
            let request = v1::GrantConsentRequest { scope: Some(scope), ..consent(SUBJECTS[0]) };
            refused("a scope", subjects.grant_consent(request).await.err());
        }
        for (subject, purpose) in [(SUBJECTS[0], STRAY), (STRAY, "marketing")] {
            let (subject, purpose) = (subject.to_owned(), purpose.to_owned());
            let request = v1::WithdrawConsentRequest { subject, purpose, scope: None };
            refused("a withdrawal", subjects.withdraw_consent(request).await.err());
        }

        // Callers who may do none of this.
        let mut auditor = vault.vault_as("auditor").await;
        refused("an auditor's value", auditor.tokenize(tokenize(vec![name()])).await.err());
        auditor.detokenize(detokenize(&[token, STRAY], "kyc_review", "plain")).await.unwrap();
        let mut officer = vault.access().await;
        let request = v1::ExplainPolicyRequest {
            role: STRAY.to_owned(),
            name: STRAY.to_owned(),
            action: STRAY.to_owned(),
            field: STRAY.to_owned(),
            view: STRAY.to_owned(),
            purpose: STRAY.to_owned(),
            ..Default::default()
        };
        let known =
            v1::ExplainPolicyRequest { role: "app".to_owned(), action: "status".to_owned(), ..Default::default() };
        for request in [
            request.clone(),
            v1::ExplainPolicyRequest { tier: stray(), ..known.clone() },
            v1::ExplainPolicyRequest { case_load: stray(), ..known.clone() },
            v1::ExplainPolicyRequest { second_factor: stray(), ..known.clone() },
            v1::ExplainPolicyRequest { consent: stray(), ..known },
        ] {
            let said = officer.explain_policy(request).await.unwrap().into_inner();
            assert!(self.needles.found(said.problem.unwrap().message.as_bytes()).is_empty());
        }
        let request = v1::ExplainPolicyRequest {
            role: "app".to_owned(),
            action: "detokenize".to_owned(),
            field: "borrower.name".to_owned(),
            ..request
        };
        officer.explain_policy(request).await.unwrap();
        let request = v1::ExportRequest { log: STRAY.to_owned(), ..Default::default() };
        refused("a log", vault.audit().await.export(request).await.err());
        // What an officer gets wrong in a file is shown to the officer, and nowhere else.
        for source in [format!("[field.borrower.{STRAY}]"), format!("permit (principal == \"{STRAY}\");")] {
            let schema = v1::ApplySchemaRequest { source: source.clone(), dry_run: false };
            assert!(officer.apply_schema(schema).await.is_err());
            let policy = v1::ApplyPolicyRequest { source, tests: STRAY.to_owned(), dry_run: false };
            assert!(officer.apply_policy(policy).await.is_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_and_no_log_holds_a_value_a_subject_or_a_key() {
    let load = Load::new();
    let mut vault = TestVault::start_with(&[TRACE]);
    load.run(&vault).await;
    let token = crate::harness::one_token(&vault, "borrower.id_card", "11010519491231002x", SUBJECTS[0]).await;
    load.fail(&vault, &token).await;
    let keys = keys(&vault.dir());
    let ledger = vault.scratch().join("ledger.jsonl");
    vault.verify_ledger();

    // The search finds what is there: the ledger's lines stand in the data, before a flush compresses them.
    let mut control = Needles::new();
    control.text("subject_created");
    let data = files(&vault.dir().join("data"));
    assert!(data.iter().any(|file| !control.found(&std::fs::read(file).unwrap()).is_empty()));

    // As it runs, all is in the write-ahead log, uncompressed; a start after a crash reads it, and the end flushes it.
    for when in ["as it runs", "after a kill and a start", "after its end"] {
        match when {
            "as it runs" => {}
            "after its end" => assert!(vault.stop().success()),
            _ => {
                vault.kill();
                vault.up();
            }
        }
        let stored = stored_files(&vault.dir());
        load.needles.absent_from(&stored, when);
        keys.absent_from(&stored, when);
        let said = [vault.log_path(), ledger.clone()];
        load.needles.absent_from(&said, when);
        keys.absent_from(&said, when);
    }

    assert!(vault.read_log().contains("TRACE"), "the log was not at its finest");
}

#[test]
fn the_demo_leaves_no_value_in_its_vault_ledger_or_log() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    let output = Command::new(BINARY).args(["demo", "--folder"]).arg(&demo).env(TRACE.0, TRACE.1).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let mut reader = csv::Reader::from_path(demo.join("borrowers.csv")).unwrap();
    let columns = reader.headers().unwrap().clone();
    let mut cells = BTreeSet::new();
    let mut borrowers = 0;
    for record in reader.records() {
        let record = record.unwrap();
        let personal = columns.iter().zip(&record).filter(|(column, _)| *column != "product");
        cells.extend(personal.map(|(_, cell)| cell.to_owned()));
        borrowers += 1;
    }
    assert_eq!(borrowers, 1_000);
    let mut needles = Needles::new();
    for cell in &cells {
        needles.text(cell);
    }
    let vault = demo.join("vault");
    let mut searched = stored_files(&vault);
    searched.extend(files(&demo).into_iter().filter(|file| file.display().to_string().contains("ledger.jsonl")));
    needles.absent_from(&searched, "after the demo");
    let keys = keys(&vault);
    searched.push(demo.join("borrowers.tokens.csv"));
    keys.absent_from(&searched, "after the demo");
    assert!(said.contains("TRACE"), "the log was not at its finest");
    assert!(keys.found(&output.stderr).is_empty() && keys.found(&output.stdout).is_empty());
    let found = needles.found(&output.stderr);
    assert!(found.is_empty(), "the log says {found:?}");
}

#[test]
fn the_process_can_leave_no_core_dump() {
    let vault = TestVault::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", vault.pid())).unwrap();
    let core: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");

    // proc(5): the files of a process that may not be dumped belong to root, whoever runs it. So somebody else must.
    let folder = tempfile::tempdir().unwrap();
    let me = std::fs::metadata(folder.path()).unwrap().uid();
    let mut command = Command::new(BINARY);
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    if me == 0 {
        const NOBODY: u32 = 65_534;
        let binary = folder.path().join("strongroom");
        std::fs::copy(BINARY, &binary).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        command = Command::new(binary);
        command.uid(NOBODY).gid(NOBODY);
    }
    command.arg("dev").arg("--dir").arg(home.join("vault")).args(["--listen", "127.0.0.1:0"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    while !line.starts_with("serving on") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut lines, &mut line).unwrap(), 0, "it ended");
    }
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let owner = std::fs::metadata(process.join("environ")).unwrap().uid();
    child.kill().unwrap();
    child.wait().unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(user.split_whitespace().all(|id| id != "0"), "the check says nothing of root's processes: {user}");
    assert_eq!(owner, 0, "the process may be dumped");
}
