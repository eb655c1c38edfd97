//! Freezes and suspensions from outside: streams under way, a crash after the answer, all tenants, the command line.

use std::process::Output;

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::detokenize_stream_response::Result as Outcome;
use strongroom_proto::v1::vault_client::VaultClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::approvals::command_with_approval;
use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, refused, tokenize, value};
use crate::house::House;
use crate::tenants::{make, operator, proven, reads, store};

const FIELD: &str = "borrower.id_card";
const ID_CARD: &str = "11010519491231002X";

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A stream of reads of one token.
struct Reads {
    send: mpsc::Sender<v1::DetokenizeRequest>,
    answers: Streaming<v1::DetokenizeStreamResponse>,
    token: String,
    /// Keeps the connection.
    _client: VaultClient<Channel>,
}

impl Reads {
    async fn begin(vault: &TestVault, token: &str) -> Self {
        let (send, messages) = mpsc::channel(1);
        let mut client = vault.vault().await;
        // The answer comes with the first message.
        let token = token.to_owned();
        send.send(detokenize(&[&token], "kyc_review", "plain")).await.unwrap();
        let answers = client.detokenize_stream(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let mut reads = Self { send, answers, token, _client: client };
        assert_eq!(reads.answer().await.unwrap(), ID_CARD.as_bytes());
        reads
    }

    async fn answer(&mut self) -> Result<Vec<u8>, Told> {
        match self.answers.message().await.unwrap().unwrap().result.unwrap() {
            Outcome::Response(response) => value(response.results.into_iter().next().unwrap()),
            Outcome::Problem(problem) => Err(problem.into()),
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>, Told> {
        self.send.send(detokenize(&[&self.token], "kyc_review", "plain")).await.unwrap();
        self.answer().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_under_way_is_told_nothing_more_once_it_is_frozen_or_its_caller_suspended() {
    let vault = TestVault::start();
    let token = one_token(&vault, FIELD, ID_CARD, "cust-1").await;
    let mut stream = Reads::begin(&vault, &token).await;
    assert!(vault.cli_ok(&["freeze", FIELD, "--reads"]).contains("reads of borrower.id_card are frozen"));
    let told = stream.next().await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "FROZEN"));
    assert!(told.message.contains("reads of borrower.id_card") && told.message.contains("strongroom freezes"));
    one_token(&vault, FIELD, "110105194912310038", "cust-2").await;
    command_with_approval(&vault, &["unfreeze", FIELD, "--reads"]);
    assert_eq!(stream.next().await.unwrap(), ID_CARD.as_bytes());

    vault.cli_ok(&["principal", "suspend", "app/app", "--reason", "its key was found on a laptop"]);
    let told = stream.next().await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "SUSPENDED"));
    let told = refused(vault.vault().await.tokenize(tokenize(vec![item(FIELD, ID_CARD, "cust-3")])).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "SUSPENDED"));
    let refused = vault.cli(&["detokenize", &token, "--purpose", "kyc_review"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(complained(&refused).contains("strongroom principal unsuspend"), "{}", complained(&refused));
    vault.cli_ok(&["principal", "unsuspend", "app/app"]);
    assert_eq!(stream.next().await.unwrap(), ID_CARD.as_bytes());
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_as_frozen_is_frozen_after_a_crash() {
    let mut vault = TestVault::start();
    let token = one_token(&vault, FIELD, ID_CARD, "cust-1").await;
    let mut access = vault.access().await;
    let everything = v1::FreezeRequest { field: String::new(), reads: true, writes: true, all_tenants: false };
    assert!(access.freeze(everything.clone()).await.unwrap().into_inner().changed);
    vault.kill();
    vault.up();
    let told = read_one(&vault, &token, "kyc_review", "plain").await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "FROZEN"));
    let told = refused(vault.vault().await.tokenize(tokenize(vec![item(FIELD, ID_CARD, "cust-2")])).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "FROZEN"));
    // What shows and what protects goes on.
    let mut access = vault.access().await;
    assert!(!access.freeze(everything).await.unwrap().into_inner().changed);
    assert!(!vault.leaves().await.is_empty());
    vault.cli_ok(&["status"]);
    vault.cli_ok(&["keys", "list"]);
    let reason = "its key was found on a laptop".to_owned();
    let suspend = v1::SuspendRequest { principal: "app/app".to_owned(), reason };
    assert!(access.suspend(suspend).await.unwrap().into_inner().changed);
    vault.kill();
    vault.up();
    let told = refused(vault.vault().await.detokenize(detokenize(&[&token], "kyc_review", "plain")).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "SUSPENDED"));
    vault.cli_ok(&["principal", "unsuspend", "app/app"]);
    command_with_approval(&vault, &["unfreeze"]);
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.as_deref(), Ok(ID_CARD));
    vault.verify_ledger();
    vault.kill();
    vault.cli_ok(&["verify"]);
    vault.hides([ID_CARD]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_freezes_all_tenants_and_none_ends_that_by_itself() {
    let mut house = House::lending(&["lending"]).await;
    let alice = make(&house, "savings").await;
    let theirs = store(&house, "lending", 1).await.remove(0);
    let own = store(&house, "savings", 1).await.remove(0);
    let all = v1::FreezeRequest { field: String::new(), reads: true, writes: false, all_tenants: true };
    let mut officer = AccessClient::new(house.connect(&alice).await);
    assert_eq!(refused(officer.freeze(all.clone()).await).reason, "DENIED");
    let mut ops = AccessClient::new(house.connect(&operator(&house)).await);
    assert!(ops.freeze(all).await.unwrap().into_inner().changed);
    for (tenant, token) in [("lending", &theirs), ("savings", &own)] {
        assert_eq!(reads(&house, tenant, token).await.unwrap_err().reason, "FROZEN", "{tenant}");
        store(&house, tenant, 1).await;
        let ledger = house.ledger(tenant).await;
        assert!(ledger.iter().any(|leaf| leaf.contains("\"freeze_all\"")), "{tenant}");
    }
    let mine = v1::UnfreezeRequest { field: String::new(), reads: true, writes: true, all_tenants: false };
    assert!(!officer.unfreeze(mine.clone()).await.unwrap().into_inner().changed);
    let listed = officer.list_freezes(v1::ListFreezesRequest {}).await.unwrap().into_inner();
    let [freeze] = &listed.freezes[..] else { panic!("{} freezes", listed.freezes.len()) };
    assert_eq!((freeze.all_tenants, freeze.what.as_str(), freeze.by.as_str()), (true, "reads", "operator/olga"));
    house.kill();
    proven(&house);
    house.up();
    assert_eq!(reads(&house, "savings", &own).await.unwrap_err().reason, "FROZEN");
    let mut ops = AccessClient::new(house.connect(&operator(&house)).await);
    let all = v1::UnfreezeRequest { writes: false, all_tenants: true, ..mine };
    assert!(ops.unfreeze(all).await.unwrap().into_inner().changed);
    assert!(reads(&house, "savings", &own).await.is_ok() && reads(&house, "lending", &theirs).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_freezes_lists_and_says_what_to_do() {
    let vault = TestVault::start();
    assert!(vault.cli_ok(&["freezes"]).contains("nothing is frozen"));
    let frozen = vault.json(&["freeze", FIELD, "--writes"]);
    assert_eq!((&frozen["field"], &frozen["reads"], &frozen["writes"]), (&FIELD.into(), &false.into(), &true.into()));
    assert_eq!((&frozen["frozen"], &frozen["changed"]), (&true.into(), &true.into()));
    assert_eq!(vault.json(&["freeze", FIELD, "--writes"])["changed"], false);
    let refused = vault.cli(&["tokenize", FIELD, ID_CARD]);
    assert_eq!(refused.status.code(), Some(1));
    let said = complained(&refused);
    assert!(said.contains("writes of borrower.id_card are frozen") && !said.contains(ID_CARD), "{said}");
    vault.cli_ok(&["freeze", "--all-tenants", "--reads"]);
    vault.cli_ok(&["principal", "suspend", "officer/officer-2", "--reason", "left the bank"]);
    let listed = vault.json(&["freezes", "--as", "auditor"]);
    let word = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    let freezes = listed["freezes"].as_array().unwrap().iter();
    let scopes: Vec<String> = freezes.map(|one| word(one, "scope") + " " + &word(one, "what")).collect();
    assert_eq!(scopes, ["all tenants reads", "field writes"]);
    assert_eq!(listed["freezes"][1]["by"], "officer/officer-1");
    assert_eq!(listed["suspensions"][0]["principal"], "officer/officer-2");
    assert_eq!(listed["suspensions"][0]["reason"], "left the bank");
    let table = vault.cli_ok(&["freezes"]);
    assert!(table.contains("all tenants") && table.contains("left the bank"), "{table}");
    for words in [
        &["principal", "suspend", "officer/officer-1", "--reason", "why"][..],
        &["principal", "suspend", "nobody", "--reason", "why"],
        &["principal", "suspend", "app/app", "--reason", ""],
        &["freeze", "borrower.nickname"],
        &["freeze", "--as", "app"],
        &["freeze", "--as", "officer-2"],
        &["unfreeze", "--all-tenants", "--as", "officer-1"],
    ] {
        let refused = vault.cli(words);
        assert_eq!(refused.status.code(), Some(1), "{words:?}: {}", complained(&refused));
        assert!(complained(&refused).starts_with("error: "), "{words:?}: {}", complained(&refused));
    }
    vault.cli_ok(&["unfreeze", "--all-tenants"]);
    vault.cli_ok(&["principal", "unsuspend", "officer/officer-2"]);
    assert!(command_with_approval(&vault, &["unfreeze", FIELD]).contains("has ended"));
    assert!(vault.cli_ok(&["unfreeze", FIELD]).contains("nothing has changed"));
    assert!(vault.cli_ok(&["freezes", "--as", "officer-2"]).contains("nothing is frozen"));
}
