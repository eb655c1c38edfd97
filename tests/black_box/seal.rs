//! Sealing: a vault that runs gives up its keys, answers nothing but how it is, and comes back with all that it had.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use strongroom_proto::v1;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::unseal_request::Credential;
use tonic::Code;

use crate::approvals::command_with_approval;
use crate::harness::{BINARY, TestVault, detokenize, item, one_token, read_one, refused, tokenize, value};
use crate::{house, raw};

fn passphrase(vault: &TestVault) -> String {
    vault.dir().join("dev-passphrase").to_str().unwrap().to_owned()
}

fn unseal(passphrase: &str) -> v1::UnsealRequest {
    v1::UnsealRequest { credential: Some(Credential::Passphrase(passphrase.to_owned().into())), reset: false }
}

/// Waits until health says that the vault serves, or does not.
async fn health_says(vault: &TestVault, serves: bool) {
    let channel = vault.channel("app").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while raw::call(&channel, "/grpc.health.v1.Health/Check", &[]).await.unwrap() != [0x08, if serves { 1 } else { 2 }]
    {
        assert!(Instant::now() < deadline, "health does not say so");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_sealed_vault_tells_how_it_is_and_nothing_else_until_it_is_unsealed() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.address", "1 Main Street", "c-1").await;
    // A connection from before the sealing is no way around it.
    let mut before = vault.vault().await;
    vault.cli_ok(&["seal"]);
    for told in [
        refused(before.detokenize(detokenize(&[&token], "loan_servicing", "plain")).await),
        refused(before.tokenize(tokenize(vec![item("borrower.address", "2 Main Street", "c-1")])).await),
        refused(vault.access().await.get_schema(v1::GetSchemaRequest {}).await),
        refused(vault.audit().await.get_checkpoint(v1::GetCheckpointRequest::default()).await),
        refused(vault.system().await.seal(v1::SealRequest {}).await),
    ] {
        assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "SEALED"));
        assert!(told.message.contains("strongroom unseal"), "{}", told.message);
    }
    health_says(&vault, false).await;
    let shown = vault.cli(&["status"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(1));
    assert!(text.contains("operator/operator sealed it"), "{text}");
    assert!(!text.contains(&vault.dir().display().to_string()) && !text.contains("demo"), "{text}");

    vault.cli_ok(&["unseal", "--file", &passphrase(&vault)]);
    assert_eq!(read_one(&vault, &token, "loan_servicing", "plain").await.unwrap(), "1 Main Street");
    health_says(&vault, true).await;
    assert!(vault.cli(&["status"]).status.success());
    let log = vault.scratch().join("system.jsonl");
    vault.cli_ok(&["audit", "export", "--log", "system", "--as", "operator", "-o", log.to_str().unwrap()]);
    let log = std::fs::read_to_string(log).unwrap();
    let leaves: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |action: &str| leaves.iter().find(|leaf| leaf["action"] == action).unwrap_or_else(|| panic!("no {action}"));
    assert_eq!(of("seal")["principal"], "operator/operator");
    let by = of("unseal")["detail"]["by"].as_str().unwrap();
    assert!(by.ends_with("/system/operator/operator"), "{by}");
    vault.verify_ledger();
}

#[tokio::test]
async fn jobs_rest_while_a_vault_is_sealed_and_go_on_when_it_is_unsealed() {
    let mut vault = TestVault::start();
    let mut client = vault.vault().await;
    let account = |number: usize| item("company.settlement_account", &format!("account-{number:06}"), "big");
    let mut tokens = Vec::new();
    for batch in 0..3 {
        let items = (batch * 1_000..(batch + 1) * 1_000).map(account).collect();
        tokens.extend(client.tokenize(tokenize(items)).await.unwrap().into_inner().tokens);
    }
    let items = vec![v1::DeleteItem { token: tokens.pop().unwrap(), subject: String::new() }];
    client.delete(v1::DeleteRequest { items, idempotency_key: String::new() }).await.unwrap();
    vault.cli_ok(&["keys", "rotate", "index/field/14"]);
    for job in ["roll", "reindex"] {
        vault.cli_ok(&["keys", job, "--detach"]);
    }
    vault.cli_ok(&["seal"]);
    vault.cli_ok(&["unseal", "--file", &passphrase(&vault)]);
    for (job, due) in [("roll", "1"), ("reindex", "2999")] {
        let job = vault.cli_ok(&["keys", job, "--watch", "--output", "json"]);
        let job: serde_json::Value = serde_json::from_str(&job).unwrap();
        assert_eq!((&job["state"], &job["done"], &job["total"]), (&"done".into(), &due.into(), &due.into()));
    }
    command_with_approval(&vault, &["keys", "destroy", "index/field/14", "1", "--as", "officer-1"]);
    let again = vault.vault().await.tokenize(tokenize((0..1_000).map(account).collect())).await.unwrap();
    assert_eq!(again.into_inner().tokens, tokens[..1_000]);
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn only_operators_seal_and_only_the_passphrase_unseals() {
    let vault = TestVault::start();
    for principal in ["app", "rotator", "auditor", "privacy", "officer-1"] {
        let told = refused(SystemClient::new(vault.channel(principal).await).seal(v1::SealRequest {}).await);
        assert_eq!(told.code, Code::PermissionDenied, "{principal}");
    }
    let told = refused(vault.system().await.unseal(unseal("anything")).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "NOT_SEALED"));
    vault.system().await.seal(v1::SealRequest {}).await.unwrap();

    let right = std::fs::read_to_string(passphrase(&vault)).unwrap();
    for principal in ["app", "rotator", "auditor", "privacy"] {
        let told = refused(SystemClient::new(vault.channel(principal).await).unseal(unseal(right.trim())).await);
        assert_eq!(told.code, Code::PermissionDenied, "{principal}");
    }
    let wrong = "correct horse battery staple";
    let request = |credential| v1::UnsealRequest { credential, reset: false };
    for request in [
        unseal(wrong),
        unseal(""),
        request(None),
        request(Some(Credential::Passphrase(vec![0xff, 0xfe].into()))),
        request(Some(Credential::Share("srs1-aaaa".into()))),
    ] {
        let told = refused(vault.system().await.unseal(request).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "CREDENTIAL_INVALID"));
        assert!(!told.message.contains(wrong));
    }
    // Two at once: one opens it, the other is told so.
    let (mut one, mut other) = (vault.system().await, vault.system().await);
    let both = tokio::join!(one.unseal(unseal(right.trim())), other.unseal(unseal(right.trim())));
    let answers = [both.0.map(drop), both.1.map(drop)];
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let told = refused(answers.into_iter().find(Result::is_err).unwrap());
    assert!(["UNSEALING", "NOT_SEALED"].contains(&told.reason.as_str()), "{told:?}");
    assert!(vault.cli(&["status"]).status.success());
}

#[tokio::test]
async fn what_was_acknowledged_under_load_is_there_after_every_sealing() {
    let vault = Arc::new(TestVault::start());
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (vault, stop) = (Arc::clone(&vault), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut client = vault.vault().await;
                let mut stored = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let text = format!("address {writer}-{number}");
                    let subject = format!("c-{writer}-{}", number % 7);
                    match client.tokenize(tokenize(vec![item("borrower.address", &text, &subject)])).await {
                        Ok(answer) => stored.push((answer.into_inner().tokens.remove(0), text)),
                        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                    }
                }
                stored
            })
        })
        .collect();
    let right = std::fs::read_to_string(passphrase(&vault)).unwrap();
    let mut system = vault.system().await;
    for _ in 0..3 {
        let enough = vault.vault().await.tokenize(tokenize(vec![item("borrower.address", "between", "c-0")])).await;
        enough.unwrap();
        system.seal(v1::SealRequest {}).await.unwrap();
        system.unseal(unseal(right.trim())).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut client = vault.vault().await;
    let mut count = 0;
    for writer in writers {
        for page in writer.await.unwrap().chunks(500) {
            let tokens: Vec<&str> = page.iter().map(|(token, _)| token.as_str()).collect();
            let answer = client.detokenize(detokenize(&tokens, "loan_servicing", "plain")).await.unwrap().into_inner();
            for (result, (_, expected)) in answer.results.into_iter().zip(page) {
                assert_eq!(value(result).unwrap(), expected.as_bytes());
                count += 1;
            }
        }
    }
    assert!(count > 0);
    vault.verify_ledger();
}

#[tokio::test]
async fn neither_a_stream_nor_a_slow_reader_keeps_a_vault_from_being_sealed() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    // More leaves than fit into what a connection carries ahead of its reader.
    let stored = futures_util::stream::iter(0..8_000).map(|number| {
        let mut client = client.clone();
        async move { client.tokenize(tokenize(vec![item("borrower.address", &format!("{number}"), "")])).await }
    });
    assert!(stored.buffer_unordered(64).all(|answer| async move { answer.is_ok() }).await);
    let (messages, stream) = tokio::sync::mpsc::channel(4);
    messages.send(tokenize(vec![item("borrower.address", "before", "c-1")])).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut answers = client.tokenize_stream(stream).await.unwrap().into_inner();
    assert!(answers.next().await.unwrap().is_ok());
    let mut audit = vault.audit().await;
    let request = v1::ExportRequest::default();
    let mut pages = audit.export(request).await.unwrap().into_inner();
    assert!(pages.message().await.unwrap().is_some());

    let begun = Instant::now();
    vault.system().await.seal(v1::SealRequest {}).await.unwrap();
    assert!(begun.elapsed().as_secs() < 30, "it took {:?}", begun.elapsed());
    messages.send(tokenize(vec![item("borrower.address", "after", "c-1")])).await.unwrap();
    let told = refused(answers.next().await.unwrap());
    assert_eq!(told.reason, "SEALED");
    let ended = loop {
        match pages.message().await {
            // What was on its way still comes.
            Ok(Some(_)) => {}
            Ok(None) => panic!("the export looks whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused::<()>(Err(ended)).reason, "SEALED");
}

#[tokio::test]
async fn a_vault_that_is_started_sealed_asks_for_nothing_and_is_unsealed_over_the_wire() {
    let mut vault = TestVault::start();
    let token = one_token(&vault, "borrower.address", "1 Main Street", "c-1").await;
    assert!(vault.stop().success());
    let mut command = Command::new(BINARY);
    command.args(["serve", "--sealed", "--listen", "127.0.0.1:0", "--dir"]).arg(vault.dir());
    let (running, said) = house::start_and_read(&mut command, "The vault is sealed");
    assert!(said.contains("strongroom unseal"), "{said}");
    let address = format!("https://{}", running.address);
    let run = |words: &[&str]| vault.cli(&[words, &["--address", &address]].concat());
    assert_eq!(run(&["status"]).status.code(), Some(1));
    let read = ["detokenize", &token, "--purpose", "loan_servicing", "--view", "plain"];
    let refused = run(&read);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sealed"), "{refused:?}");
    assert!(run(&["unseal", "--as", "officer-1", "--file", &passphrase(&vault)]).status.success());
    assert_eq!(String::from_utf8_lossy(&run(&read).stdout).trim(), "1 Main Street");
}
