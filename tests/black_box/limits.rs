//! Where the room ends: answers that are too large, limits that the configuration lowers, a disk that is nearly full.

use std::time::{Duration, Instant};

use strongroom_proto::v1;
use tonic::Code;

use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, refused, tokenize, value};
use crate::raw;

const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");
const NOTE: &str = "\n[field.borrower.note]\nnumber = 90\ntype = \"text\"\nclass = \"c2\"\nretention = \"10y\"\n\
                    purposes = [\"loan_servicing\"]\nviews = { plain = \"plain\" }\n";
const ID_CARD: &str = "11010519491231002X";

/// A vault whose schema has a field for texts of any length.
async fn with_notes() -> TestVault {
    let vault = TestVault::start();
    let schema = v1::ApplySchemaRequest { source: format!("{LENDING}{NOTE}"), dry_run: false };
    vault.access().await.apply_schema(schema).await.unwrap();
    vault
}

/// What a call was refused with, as code, reason and the rules that were broken.
fn words<T>(answer: Result<T, tonic::Status>) -> (Code, String, Vec<(String, String)>) {
    let Told { code, reason, violations, .. } = refused(answer);
    (code, reason, violations)
}

fn broken(reason: &str, path: &str, rule: &str) -> (Code, String, Vec<(String, String)>) {
    (Code::InvalidArgument, reason.to_owned(), vec![(path.to_owned(), rule.to_owned())])
}

#[tokio::test]
async fn an_answer_of_more_than_16_mib_is_refused_whole_and_releases_nothing() {
    let vault = with_notes().await;
    let longest = "n".repeat(64 << 10);
    let token = one_token(&vault, "borrower.note", &longest, "cust-1").await;
    let mut client = vault.vault().await;
    // 256 values of 64 KiB are 16 MiB.
    let fits = client.detokenize(detokenize(&vec![token.as_str(); 256], "loan_servicing", "plain")).await.unwrap();
    for result in fits.into_inner().results {
        assert_eq!(value(result).unwrap(), longest.as_bytes());
    }
    let before = vault.leaves().await.len();
    let one_too_many = || detokenize(&vec![token.as_str(); 257], "loan_servicing", "plain");
    let told = refused(client.detokenize(one_too_many()).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::ResourceExhausted, "ANSWER_TOO_LARGE"));
    assert!(told.message.contains("16777216"), "{}", told.message);
    let messages = tokio_stream::iter([one_too_many(), detokenize(&[&token], "loan_servicing", "plain")]);
    let mut answers = client.detokenize_stream(messages).await.unwrap().into_inner();
    use v1::detokenize_stream_response::Result as Outcome;
    let Outcome::Problem(problem) = answers.message().await.unwrap().unwrap().result.unwrap() else {
        panic!("it was answered")
    };
    assert_eq!(Told::from(problem).reason, "ANSWER_TOO_LARGE");
    let Outcome::Response(next) = answers.message().await.unwrap().unwrap().result.unwrap() else {
        panic!("the stream does not go on")
    };
    assert_eq!(value(next.results.into_iter().next().unwrap()).unwrap(), longest.as_bytes());

    let leaves = vault.leaves().await.split_off(before);
    let reads = leaves.iter().filter(|leaf| leaf["action"] == "detokenize");
    let mut told: Vec<_> = reads.map(|leaf| (leaf["decision"].as_str(), leaf["reason"].as_str())).collect();
    // The messages of a stream are at work together, so their leaves have no order of their own.
    told.sort_unstable();
    let too_large = (Some("fail"), Some("ANSWER_TOO_LARGE"));
    assert_eq!(told, [(Some("allow"), None), too_large, too_large]);
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_lowered_hold() {
    let mut vault = with_notes().await;
    assert!(vault.stop().success());
    vault.configure(
        "[limits]\nvalue = 40\ntoken = 30\nsubject = 10\nidempotency_key = 8\nitems = 3\nmessage = 100\nfound = 2\n",
    );
    vault.up();
    let mut client = vault.vault().await;
    let note = |bytes: usize| item("borrower.note", &"n".repeat(bytes), "cust-1");
    let tokens = client.tokenize(tokenize(vec![note(40), note(40), note(20)])).await.unwrap().into_inner().tokens;

    let items = words(client.tokenize(tokenize(vec![note(1); 4])).await);
    assert_eq!(items, broken("ITEMS_INVALID", "items", "too_many"));
    let message = words(client.tokenize(tokenize(vec![note(40), note(40), note(21)])).await);
    assert_eq!(message, broken("ITEMS_INVALID", "items", "too_long"));
    let longer = words(client.tokenize(tokenize(vec![note(1), note(41)])).await);
    assert_eq!(longer, broken("VALUE_INVALID", "items[1].value", "too_long"));
    let subject = words(client.tokenize(tokenize(vec![item("borrower.note", "n", "customer-01")])).await);
    assert_eq!(subject, broken("SUBJECT_INVALID", "items[0].subject", "too_long"));
    let keyed = |key: &str| v1::TokenizeRequest { items: vec![note(1)], idempotency_key: key.to_owned() };
    let key = words(client.tokenize(keyed("key-00001")).await);
    assert_eq!(key, broken("IDEMPOTENCY_KEY_INVALID", "idempotency_key", "too_long"));
    client.tokenize(keyed("key-0001")).await.unwrap();
    let own = |bytes: usize| v1::TokenizeItem { token: "t".repeat(bytes), ..note(1) };
    let own_token = words(client.tokenize(tokenize(vec![own(31)])).await);
    assert_eq!(own_token, broken("TOKEN_INVALID", "items[0].token", "too_long"));
    let sent = read_one(&vault, &"t".repeat(31), "loan_servicing", "plain").await.unwrap_err();
    assert_eq!(sent.violations, [("items[0].token".to_owned(), "too_long".to_owned())]);

    // An answer has as much room as a request.
    let known = [tokens[0].as_str(), &tokens[1], &tokens[2]];
    client.detokenize(detokenize(&known, "loan_servicing", "plain")).await.unwrap();
    let answer = words(client.detokenize(detokenize(&[known[0]; 3], "loan_servicing", "plain")).await);
    assert_eq!(answer, (Code::ResourceExhausted, "ANSWER_TOO_LARGE".to_owned(), vec![]));

    let three = (0..3).map(|_| item("borrower.id_card", ID_CARD, "cust-1")).collect();
    let stored = client.tokenize(tokenize(three)).await.unwrap().into_inner().tokens;
    let wanted = v1::LookupItem { field: "borrower.id_card".to_owned(), value: ID_CARD.into() };
    let request = v1::LookupRequest { items: vec![wanted], purpose: "kyc_review".to_owned() };
    let found = client.lookup(request).await.unwrap().into_inner().results.remove(0);
    assert_eq!((&found.tokens[..], found.more), (&stored[..2], true));
    vault.verify_ledger();
}

#[test]
fn a_limit_is_not_raised_and_a_slip_is_named() {
    let mut vault = TestVault::start();
    assert!(vault.stop().success());
    let config = std::fs::read_to_string(vault.dir().join("strongroom.toml")).unwrap();
    for (limits, hint) in [
        ("items = 10001", "[limits] items = 10001: write 1 to 10000"),
        ("value = 65537", "[limits] value = 65537: write 1 to 65536"),
        ("idempotency_key = 129", "[limits] idempotency_key = 129: write 1 to 128"),
        ("message = 0", "[limits] message = 0: write 1 to 16777216"),
        ("itmes = 5", "[limits] itmes = 5: there is no such limit; there are value, token, subject"),
        ("items = -1", "items = -1"),
    ] {
        vault.configure(&format!("[limits]\n{limits}\n"));
        let said = vault.refuses_to_start();
        assert!(said.contains(hint), "{limits}: {said}");
        std::fs::write(vault.dir().join("strongroom.toml"), &config).unwrap();
    }
    vault.up();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_its_reserve_takes_only_what_frees_space() {
    let mut vault = TestVault::start();
    let kept = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let freed = one_token(&vault, "borrower.name", "欧阳志远", "cust-1").await;
    assert!(vault.stop().success());
    let config = std::fs::read_to_string(vault.dir().join("strongroom.toml")).unwrap();
    // An exbibyte.
    vault.configure("[capacity]\ndisk_reserve_mib = 1_099_511_627_776\n");
    vault.up();
    becomes(&vault, "full").await;

    let mut client = vault.vault().await;
    let full = (Code::ResourceExhausted, "DISK_FULL".to_owned(), vec![]);
    assert_eq!(words(client.tokenize(tokenize(vec![item("borrower.name", "王伟", "")])).await), full);
    // A read is recorded, and for that there is no room either.
    assert_eq!(words(client.detokenize(detokenize(&[&kept], "kyc_review", "plain")).await), full);
    let item = v1::DeleteItem { token: freed.clone(), subject: String::new() };
    let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
    assert!(client.delete(request).await.unwrap().into_inner().results[0].problem.is_none());

    assert!(vault.stop().success());
    std::fs::write(vault.dir().join("strongroom.toml"), config).unwrap();
    vault.up();
    becomes(&vault, "serving").await;
    assert_eq!(read_one(&vault, &kept, "kyc_review", "plain").await.unwrap(), ID_CARD);
    assert_eq!(read_one(&vault, &freed, "kyc_review", "plain").await.unwrap_err().code, Code::NotFound);
    vault.verify_ledger();
}

/// Waits until the vault is in a state, and health says so to those who ask for no more.
async fn becomes(vault: &TestVault, state: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    // HealthCheckResponse { status: SERVING } or { status: NOT_SERVING }
    let health = [0x08, if state == "serving" { 1 } else { 2 }];
    let channel = vault.channel("operator").await;
    loop {
        let now = vault.system().await.status(v1::StatusRequest {}).await.unwrap().into_inner().state;
        let told = raw::call(&channel, "/grpc.health.v1.Health/Check", &[]).await.unwrap();
        if now == state && told == health {
            return;
        }
        assert!(Instant::now() < deadline, "it is {now}, not {state}; health says {told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
