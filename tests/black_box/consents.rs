//! Consents of data subjects: what a withdrawal races with, whose ids they are, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use strongroom_proto::v1::vault_client::VaultClient;
use strongroom_proto::v1::{grant_consent_request, withdraw_consent_request};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, refused, tokenize, value};

/// A consent of a subject to all of marketing.
pub fn consent(subject: &str) -> v1::GrantConsentRequest {
    v1::GrantConsentRequest {
        subject: subject.to_owned(),
        purpose: "marketing".to_owned(),
        scope: None,
        text_sha256: vec![0xab; 32].into(),
        text_version: "en-3".to_owned(),
        channel: "web".to_owned(),
        given_time: None,
        expire_time: None,
    }
}

fn withdrawal(subject: &str) -> v1::WithdrawConsentRequest {
    v1::WithdrawConsentRequest { subject: subject.to_owned(), purpose: "marketing".to_owned(), scope: None }
}

async fn subjects(vault: &TestVault, principal: &str) -> SubjectsClient<Channel> {
    SubjectsClient::new(vault.channel(principal).await)
}

async fn grant(client: &mut SubjectsClient<Channel>, subject: &str) -> bool {
    client.grant_consent(consent(subject)).await.unwrap().into_inner().changed
}

async fn withdraw(client: &mut SubjectsClient<Channel>, subject: &str) -> bool {
    client.withdraw_consent(withdrawal(subject)).await.unwrap().into_inner().changed
}

/// A read for marketing; false if consent is missing.
async fn reads(client: &mut VaultClient<Channel>, token: &str) -> bool {
    let answer = client.detokenize(detokenize(&[token], "marketing", "masked")).await.unwrap().into_inner();
    match value(answer.results.into_iter().next().unwrap()) {
        Ok(_) => true,
        Err(told) => {
            assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "CONSENT_REQUIRED"), "{told:?}");
            false
        }
    }
}

/// The ledger says at every read for marketing whether the one subject that there is consents then. Returns how many were
/// allowed, and how many were refused, after the first change.
fn reads_follow_consent(leaves: &[Value]) -> (usize, usize) {
    let (mut stands, mut allowed, mut denied) = (false, 0, 0);
    let mut last = None;
    for leaf in leaves {
        let index: u64 = leaf["index"].as_str().unwrap().parse().unwrap();
        assert!(last.replace(index).is_none_or(|last| last < index));
        for item in leaf["items"].as_array().into_iter().flatten() {
            match (leaf["action"].as_str().unwrap(), item["outcome"].as_str().unwrap()) {
                ("grant_consent", "consent_granted") => stands = true,
                ("withdraw_consent", "consent_withdrawn") => stands = false,
                ("detokenize", "ok") if leaf["purpose"] == "marketing" => {
                    assert!(stands, "it is read after the withdrawal: {leaf}");
                    allowed += 1;
                }
                ("detokenize", "CONSENT_REQUIRED") => {
                    assert!(!stands, "it is refused after the consent: {leaf}");
                    denied += 1;
                }
                _ => {}
            }
        }
    }
    (allowed, denied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_with_a_leaf_after_that_of_a_withdrawal_is_allowed() {
    const READERS: usize = 6;
    const ROUNDS: usize = 8;
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.name", "欧阳志远", "cust-1").await;
    let mut idle: Vec<_> = join_all((0..4).map(|_| vault.vault())).await;
    let mut changing = [subjects(&vault, "app").await, subjects(&vault, "privacy").await];
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut readers = JoinSet::new();
    for mut client in join_all((0..READERS).map(|_| vault.vault())).await {
        let (token, stop, tell) = (token.clone(), Arc::clone(&stop), tell.clone());
        readers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if reads(&mut client, &token).await {
                    let _ = tell.send(());
                }
            }
        });
    }
    for round in 0..ROUNDS {
        assert!(grant(&mut changing[round % 2], "cust-1").await);
        for client in &mut idle {
            assert!(reads(client, &token).await, "the very next request on every connection");
        }
        while told.try_recv().is_ok() {}
        for _ in 0..2 * READERS {
            told.recv().await.unwrap();
        }
        assert!(withdraw(&mut changing[(round + 1) % 2], "cust-1").await);
        for client in &mut idle {
            assert!(!reads(client, &token).await, "the very next request on every connection");
        }
    }
    // Several who change it at once, each over a connection of its own.
    let mut changes = JoinSet::new();
    for number in 0..3 {
        let mut client = subjects(&vault, "app").await;
        changes.spawn(async move {
            for turn in 0..12 {
                match (number + turn) % 2 {
                    0 => grant(&mut client, "cust-1").await,
                    _ => withdraw(&mut client, "cust-1").await,
                };
            }
        });
    }
    changes.join_all().await;
    stop.store(true, Ordering::Relaxed);
    readers.join_all().await;
    let (allowed, denied) = reads_follow_consent(&vault.leaves().await);
    assert!(allowed >= ROUNDS * 2 * READERS && denied >= ROUNDS, "{allowed} {denied}");
    vault.verify_ledger();
    vault.hides(["欧阳志远", "cust-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_may_have_any_id_of_up_to_128_bytes() {
    let mut vault = TestVault::start();
    let (longest, widest) = ("c".repeat(128), format!("{}ab", "客".repeat(42)));
    assert_eq!(widest.len(), 128);
    let ids = [
        "x",
        " ",
        "\u{0}",
        "a\u{0}b",
        "a\nb",
        "\u{1b}[2J",
        "👩‍👩‍👧‍👦-家",
        "שלום-עולם",
        "\u{202e}txt.exe",
        "مرحبا",
        "e\u{301}",
        "\u{e9}",
        "ﬁ",
        "fi",
        "'; DROP TABLE subjects; --",
        "../../etc/passwd",
        &longest,
        &widest,
    ];
    let (mut client, mut desk) = (subjects(&vault, "app").await, subjects(&vault, "privacy").await);
    let mut app = vault.vault().await;
    let mut tokens = Vec::new();
    for id in ids {
        let request = tokenize(vec![item("borrower.name", "欧阳志远", id)]);
        tokens.push(app.tokenize(request).await.unwrap().into_inner().tokens.remove(0));
    }
    // One after the other: nobody's consent is that of another, however alike they look.
    for (id, token) in ids.iter().zip(&tokens) {
        assert!(!reads(&mut app, token).await, "{id:?}");
        assert!(grant(&mut client, id).await, "{id:?}");
        assert!(reads(&mut app, token).await, "{id:?}");
        let request = v1::ListConsentsRequest { subject: (*id).to_owned(), purpose: String::new(), scope: None };
        let consents = desk.list_consents(request).await.unwrap().into_inner().consents;
        assert!(consents.len() == 1 && consents[0].state == "standing", "{id:?}");
    }
    // A restart keeps them.
    assert!(vault.stop().success());
    vault.up();
    let mut client = subjects(&vault, "app").await;
    let mut app = vault.vault().await;
    for (id, token) in ids.iter().zip(&tokens) {
        assert!(reads(&mut app, token).await, "{id:?}");
        // No operating system passes a NUL in an argument.
        if id.contains('\0') {
            assert!(withdraw(&mut client, id).await, "{id:?}");
        } else {
            let told = vault.json(&["subject", "consent", "withdraw", id, "--purpose", "marketing"]);
            assert_eq!(told["changed"], true, "{id:?}");
        }
        assert!(!reads(&mut app, token).await, "{id:?}");
    }
    for bad in ["", &"c".repeat(129), &"客".repeat(43)] {
        let told = refused(client.grant_consent(consent(bad)).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "SUBJECT_INVALID"));
        assert_eq!(refused(client.withdraw_consent(withdrawal(bad)).await).reason, "SUBJECT_INVALID");
    }
    vault.verify_ledger();
    vault.hides([longest.as_str(), &widest, "שלום-עולם", "DROP TABLE subjects"]);
}

#[tokio::test]
async fn what_is_no_consent_is_refused_with_what_would_be_right() {
    let vault = TestVault::start();
    let mut client = subjects(&vault, "app").await;
    let good = || consent("cust-1");
    let of_field = |name: &str| Some(grant_consent_request::Scope::Field(name.to_owned()));
    let of_class = |name: &str| Some(grant_consent_request::Scope::Class(name.to_owned()));
    let past = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let nowhere = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let bad = [
        (v1::GrantConsentRequest { purpose: "curiosity".to_owned(), ..good() }, "PURPOSE_INVALID", "purpose_unknown"),
        (
            v1::GrantConsentRequest { purpose: "kyc_review".to_owned(), ..good() },
            "PURPOSE_INVALID",
            "consent_not_needed",
        ),
        (v1::GrantConsentRequest { scope: of_field("borrower.nickname"), ..good() }, "FIELD_UNKNOWN", "field_unknown"),
        (
            v1::GrantConsentRequest { scope: of_field("borrower.id_card"), ..good() },
            "FIELD_INVALID",
            "purpose_not_listed",
        ),
        (v1::GrantConsentRequest { scope: of_class("c4"), ..good() }, "CLASS_INVALID", "name_unknown"),
        (v1::GrantConsentRequest { text_sha256: vec![1; 20].into(), ..good() }, "EVIDENCE_INVALID", "length"),
        (v1::GrantConsentRequest { text_version: "version 3".to_owned(), ..good() }, "EVIDENCE_INVALID", "name"),
        (v1::GrantConsentRequest { channel: "13800138000 called".to_owned(), ..good() }, "EVIDENCE_INVALID", "name"),
        (v1::GrantConsentRequest { expire_time: past, ..good() }, "EXPIRE_TIME_INVALID", "expired"),
        (v1::GrantConsentRequest { expire_time: nowhere, ..good() }, "EXPIRE_TIME_INVALID", "timestamp_range"),
    ];
    for (request, reason, rule) in bad {
        let told = refused(client.grant_consent(request).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, reason), "{told:?}");
        assert_eq!(told.violations.len(), 1);
        assert_eq!(told.violations[0].1, rule, "{told:?}");
        if reason == "PURPOSE_INVALID" {
            assert!(told.message.ends_with("those that rest on consent are: marketing"), "{told:?}");
        }
        assert!(!told.message.contains("13800138000"));
    }
    // Nothing of it has made a subject.
    let told = refused(client.withdraw_consent(withdrawal("cust-1")).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    assert_eq!(told.violations, [("subject".to_owned(), "subject_unknown".to_owned())]);
    for purpose in ["curiosity", "kyc_review", ""] {
        let request = v1::WithdrawConsentRequest { purpose: purpose.to_owned(), ..withdrawal("cust-1") };
        let told = refused(client.withdraw_consent(request).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "PURPOSE_INVALID"), "{purpose}");
    }
    grant(&mut client, "cust-1").await;
    let request = v1::ListConsentsRequest { subject: "cust-1".to_owned(), purpose: String::new(), scope: None };
    let told = refused(client.list_consents(request).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
    // A field that is withdrawn from a consent to all, and the wire's form of both.
    let scope = Some(withdraw_consent_request::Scope::Field("borrower.mobile".to_owned()));
    let request = v1::WithdrawConsentRequest { scope, ..withdrawal("cust-1") };
    assert!(client.withdraw_consent(request).await.unwrap().into_inner().changed);
    let request =
        v1::ListConsentsRequest { subject: "cust-1".to_owned(), purpose: "marketing".to_owned(), scope: None };
    let listed = subjects(&vault, "auditor").await.list_consents(request).await.unwrap().into_inner().consents;
    let [all, mobile] = &listed[..] else { panic!("{} consents", listed.len()) };
    assert!(all.scope.is_none() && all.state == "standing" && all.withdraw_time.is_none());
    assert!(mobile.scope == Some(v1::consent::Scope::Field("borrower.mobile".to_owned())));
    assert!(mobile.state == "withdrawn" && mobile.withdraw_time.is_some() && mobile.grant_time == all.grant_time);
    assert_eq!((all.text_sha256.to_vec(), all.text_version.as_str()), (vec![0xab; 32], "en-3"));
}

#[tokio::test]
async fn the_command_line_records_consents_and_shows_them() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.mobile", "13800138000", "cust-1").await;
    let marketing = async || read_one(&vault, &token, "marketing", "masked").await.map_err(|told: Told| told.reason);
    let text = vault.scratch().join("consent.txt");
    std::fs::write(&text, "We may send you offers.").unwrap();
    let text = text.to_str().unwrap();
    let about = ["subject", "consent", "grant", "cust-1", "--purpose", "marketing"];
    let evidence = ["--text-version", "en-3", "--channel", "branch"];
    let with = |more: &[&'static str]| [&about[..], &evidence, more].concat();
    let given = vault.json(&[&with(&["--field", "borrower.mobile"])[..], &["--text", text]].concat());
    // As sha256sum has it.
    let hash = "7815aaef4dc10d69a1676fddf567ee2d5aab4483a79297d67a387197179edd6b";
    assert_eq!((&given["changed"], &given["text_sha256"]), (&true.into(), &hash.into()));
    assert!(marketing().await.is_ok());
    let shown = vault.cli_ok(&["subject", "consent", "list", "cust-1"]);
    for word in ["marketing", "borrower.mobile", "standing", "en-3", "branch", hash] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let again = [&about[..], &evidence, &["--text-hash", hash, "--field", "borrower.mobile"]].concat();
    assert!(vault.cli_ok(&again).contains("nothing has changed"));
    let until = [&about[..], &evidence, &["--text-hash", hash, "--class", "c2", "--expires", "2041-12-31"]].concat();
    assert!(vault.cli_ok(&until).contains("stands from now on"));
    let listed = vault.json(&["subject", "consent", "list", "cust-1", "--purpose", "marketing"]);
    let listed = listed["consents"].as_array().unwrap();
    assert_eq!((&listed[0]["class"], &listed[0]["expire_time"]), (&"c2".into(), &"2041-12-31T00:00:00Z".into()));
    assert_eq!((&listed[1]["field"], &listed[1]["expire_time"]), (&"borrower.mobile".into(), &Value::Null));

    let withdraw = ["subject", "consent", "withdraw", "cust-1", "--purpose", "marketing"];
    assert!(vault.cli_ok(&withdraw).contains("nothing of it is read for marketing any more"));
    assert!(vault.cli_ok(&withdraw).contains("nothing has changed"));
    assert_eq!(marketing().await, Err("CONSENT_REQUIRED".to_owned()));
    let refused = vault.cli(&["subject", "consent", "withdraw", "cust-1", "--purpose", "kyc_review"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("rest on consent are: marketing"), "{said}");
    for wrong in [&["--text-hash", "abc"][..], &[], &["--text-hash", hash, "--class", "c9"]] {
        let words = [&about[..], &evidence, wrong].concat();
        assert_eq!(vault.cli(&words).status.code(), Some(2), "{words:?}");
    }
    vault.hides(["cust-1", "We may send you offers.", "13800138000"]);
}
