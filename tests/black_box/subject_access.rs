//! What a data subject is told, on the command line: what is held and who read it, and its values; as tables, JSON and pages.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{TestVault, item, read_one, refused, tokenize};
use crate::second_factor::{App, stepped_up};
use strongroom_proto::v1;
use strongroom_proto::v1::subjects_client::SubjectsClient;

const ID: &str = "cust-<1>";
const NAME: &str = "<script>alert(1)</script> שלום 😀 欧阳";
const CARD: &str = "11010519491231002X";
const SECRET: &str = "$argon2id$v=19$m=64$c2FsdHNhbHQ$kFa9";

/// A vault that holds values of one subject, of which one was read, and the app of its privacy desk.
async fn opened() -> (TestVault, App) {
    let vault = TestVault::start();
    let items = [("borrower.name", NAME), ("borrower.id_card", CARD), ("borrower.password_hash", SECRET)];
    let items = items.map(|(field, value)| item(field, value, ID)).to_vec();
    let tokens = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    read_one(&vault, &tokens[1], "kyc_review", "plain").await.unwrap();
    let (app, _) = stepped_up(&mut vault.access_as("privacy").await).await;
    (vault, app)
}

/// A page is whole by itself, and runs nothing.
fn is_a_page(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Content-Security-Policy"), "{page}");
    for outside in ["<script", "http:", "https:", "src=", "href=", "url(", "@import", "<link", "<b>", "<1>"] {
        assert!(!page.contains(outside), "{outside}: {page}");
    }
    assert!(page.contains("@media print") && page.contains("dir=\"auto\"") && page.contains("charset=\"utf-8\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_whole_for_machines_and_for_people_and_needs_a_second_factor() {
    let (mut vault, app) = opened().await;
    let export = ["subject", "export", ID, "--purpose", "subject_access"];
    let without = vault.cli(&export);
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(without.status.code() == Some(1) && without.stdout.is_empty(), "{without:?}");
    assert!(said.contains("second-factor step-up"), "{said}");
    let mut subjects = SubjectsClient::new(vault.channel("privacy").await);
    let request = v1::ExportSubjectRequest { subject: ID.to_owned(), purpose: "subject_access".to_owned() };
    assert_eq!(refused(subjects.export_subject(request).await).reason, "SECOND_FACTOR_REQUIRED");

    let with = |code: usize| ["--second-factor", app.recovery[code].as_str()];
    let told = vault.json(&[&export[..], &with(0)].concat());
    let values = told["values"].as_array().unwrap();
    let named = |field: &str| values.iter().find(|value| value["field"] == field).unwrap();
    assert_eq!((values.len(), &told["subject"]), (3, &Value::from(ID)));
    assert_eq!((&named("borrower.name")["value"], &named("borrower.name")["view"]), (&NAME.into(), &"plain".into()));
    assert_eq!(named("borrower.id_card")["value"], CARD);
    assert_eq!(named("borrower.password_hash")["withheld"], "class_c3");
    assert!(named("borrower.password_hash").get("value").is_none());

    let (page, out) = (vault.scratch().join("page.html"), vault.scratch().join("out.json"));
    let files = ["--html", page.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let said = vault.cli_ok(&[&export[..], &files, &with(1)].concat());
    assert!(said.contains("3 values in") && !said.contains(CARD), "{said}");
    for file in [&page, &out] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let written: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(written, told);
    let html = std::fs::read_to_string(&page).unwrap();
    is_a_page(&html);
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt; שלום 😀 欧阳") && html.contains(CARD));
    assert!(html.contains("cust-&lt;1&gt;") && !html.contains("argon2id"));
    // What is there is kept, and nothing is asked for that would go into it.
    let before = vault.leaves().await.len();
    let again = vault.cli(&[&export[..], &files, &with(2)].concat());
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&page).unwrap(), html);
    let asked = vault.leaves().await.split_off(before);
    assert!(asked.iter().all(|leaf| leaf["action"] != "export_subject"), "{asked:?}");
    vault.cli_ok(&[&export[..], &files, &with(3), &["--force"]].concat());

    let unknown = vault.cli(&["subject", "export", "nobody", "--purpose", "subject_access", with(4)[0], with(4)[1]]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no data subject"), "{unknown:?}");
    vault.verify_ledger();
    std::fs::remove_file(page).unwrap();
    std::fs::remove_file(out).unwrap();
    vault.kill();
    vault.cli_ok(&["verify"]);
    vault.hides([NAME, CARD, SECRET, ID]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_names_who_read_when_and_for_what_and_holds_no_value() {
    let (vault, app) = opened().await;
    let report = ["subject", "report", ID];
    let with = |code: usize| ["--second-factor", app.recovery[code].as_str()];
    let told = vault.json(&[&report[..], &with(0)].concat());
    let read = &told["reads"][0];
    let said = ["principal", "action", "purpose", "field", "view"].map(|name| read[name].as_str().unwrap());
    assert_eq!(said, ["app/app", "detokenize", "kyc_review", "borrower.id_card", "plain"]);
    assert!(read["time"].as_str().unwrap().ends_with('Z') && told["more_reads"] == false);
    let fields: Vec<_> =
        told["fields"].as_array().unwrap().iter().map(|field| (&field["name"], &field["values"])).collect();
    let one = Value::from("1");
    let names = ["borrower.name", "borrower.id_card", "borrower.password_hash"].map(Value::from);
    assert_eq!(fields, names.iter().map(|name| (name, &one)).collect::<Vec<_>>());
    let bases: Vec<_> = told["purposes"].as_array().unwrap().iter().map(|one| one["basis"].as_str()).collect();
    assert!(bases.contains(&Some("contract")) && bases.contains(&Some("legal_obligation")), "{bases:?}");

    let page = vault.scratch().join("page.html");
    vault.cli_ok(&[&report[..], &["--html", page.to_str().unwrap()], &with(1)].concat());
    let html = std::fs::read_to_string(&page).unwrap();
    is_a_page(&html);
    let table = vault.cli_ok(&[&report[..], &with(2)].concat());
    for text in [&html, &table, &told.to_string()] {
        assert!(text.contains("kyc_review") && text.contains("app/app"));
        for value in ["alert(1)", CARD, "argon2id", "欧阳"] {
            assert!(!text.contains(value), "{value}: {text}");
        }
    }
    let none = vault.json(&[&report[..], &["--to", "2020-01-01"], &with(3)].concat());
    assert_eq!(none["reads"], Value::Array(vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_records_of_processing_say_who_may_and_who_did_and_hold_neither_value_nor_subject() {
    let (vault, _) = opened().await;
    let told = vault.json(&["report", "processing"]);
    let of = told["fields"].as_array().unwrap().iter().find(|field| field["name"] == "borrower.id_card").unwrap();
    assert_eq!((&of["values"], &of["class"], &of["retention"]), (&"1".into(), &"c2".into(), &"10y".into()));
    assert_eq!((&of["reads"][0]["principal"], &of["reads"][0]["values"]), (&"app/app".into(), &"1".into()));
    let plain = Value::from("plain");
    let may = |who: &Value| who["principal"] == "app" && who["views"].as_array().unwrap().contains(&plain);
    assert!(of["recipients"].as_array().unwrap().iter().any(may), "{of}");
    assert_eq!((&told["subjects"], &told["values"]), (&"1".into(), &"3".into()));
    let page = vault.scratch().join("records.html");
    vault.cli_ok(&["report", "processing", "--as", "auditor", "--html", page.to_str().unwrap()]);
    let html = std::fs::read_to_string(&page).unwrap();
    is_a_page(&html);
    let table = vault.cli_ok(&["report", "processing", "--as", "officer-1", "--from", "2020-01-01"]);
    for text in [&html, &table, &told.to_string()] {
        assert!(text.contains("loan_servicing") && text.contains("legal_obligation") && text.contains("app/app"));
        for value in ["alert(1)", CARD, "argon2id", "cust-"] {
            assert!(!text.contains(value), "{value}: {text}");
        }
    }
    let denied = vault.cli(&["report", "processing", "--as", "app"]);
    assert!(denied.status.code() == Some(1) && denied.stdout.is_empty(), "{denied:?}");
}
