//! Streams of reads that are open when a data subject takes its consent back or is erased: the very next message is refused.

use strongroom_proto::v1;
use strongroom_proto::v1::detokenize_stream_response::Result as Outcome;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use strongroom_proto::v1::vault_client::VaultClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::consents::consent;
use crate::harness::{TestVault, Told, detokenize, one_token, value};

const NAME: &str = "欧阳志远";

/// A stream of reads for one purpose.
struct Reads {
    send: mpsc::Sender<v1::DetokenizeRequest>,
    answers: Streaming<v1::DetokenizeStreamResponse>,
    purpose: &'static str,
    view: &'static str,
    /// Keeps the connection.
    _client: VaultClient<Channel>,
}

impl Reads {
    /// Begins one with a read that is answered.
    async fn begin(vault: &TestVault, token: &str, purpose: &'static str, view: &'static str) -> Self {
        let (send, messages) = mpsc::channel(1);
        let mut client = vault.vault().await;
        // The answer comes with the first message.
        send.send(detokenize(&[token], purpose, view)).await.unwrap();
        let answers = client.detokenize_stream(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let mut reads = Self { send, answers, purpose, view, _client: client };
        assert!(reads.answer().await.is_ok());
        reads
    }

    async fn answer(&mut self) -> Result<Vec<u8>, Told> {
        match self.answers.message().await.unwrap().unwrap().result.unwrap() {
            Outcome::Response(response) => value(response.results.into_iter().next().unwrap()),
            Outcome::Problem(problem) => Err(problem.into()),
        }
    }

    async fn next(&mut self, token: &str) -> Result<Vec<u8>, Told> {
        self.send.send(detokenize(&[token], self.purpose, self.view)).await.unwrap();
        self.answer().await
    }

    async fn is_refused(&mut self, token: &str, code: Code, reason: &str) {
        let told = self.next(token).await.unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (code, reason), "{}: {told:?}", self.purpose);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_message_of_an_open_stream_is_refused_after_a_withdrawal_and_after_an_erasure() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.name", NAME, "cust-1").await;
    let other = one_token(&vault, "borrower.name", NAME, "cust-2").await;
    let mut service = SubjectsClient::new(vault.channel("app").await);
    let mut desk = SubjectsClient::new(vault.channel("privacy").await);
    for subject in ["cust-1", "cust-2"] {
        assert!(service.grant_consent(consent(subject)).await.unwrap().into_inner().changed);
    }
    let mut by_consent = Reads::begin(&vault, &token, "marketing", "masked").await;
    let mut by_contract = Reads::begin(&vault, &token, "loan_servicing", "plain").await;

    let withdrawal =
        v1::WithdrawConsentRequest { subject: "cust-1".to_owned(), purpose: "marketing".to_owned(), scope: None };
    assert!(service.withdraw_consent(withdrawal).await.unwrap().into_inner().changed);
    by_consent.is_refused(&token, Code::PermissionDenied, "CONSENT_REQUIRED").await;
    assert_eq!(by_contract.next(&token).await.unwrap(), NAME.as_bytes());
    // The stream goes on, for others and once there is consent again.
    assert!(by_consent.next(&other).await.is_ok());
    assert!(service.grant_consent(consent("cust-1")).await.unwrap().into_inner().changed);
    assert!(by_consent.next(&token).await.is_ok());

    let grace = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let erasure = |grace| v1::EraseSubjectRequest { subject: "cust-1".to_owned(), grace, ..Default::default() };
    assert_eq!(desk.erase_subject(erasure(grace)).await.unwrap().into_inner().state, "waiting");
    // No consent of a subject that goes stands.
    by_consent.is_refused(&token, Code::PermissionDenied, "CONSENT_REQUIRED").await;
    by_contract.is_refused(&token, Code::FailedPrecondition, "SUBJECT_LEAVING").await;
    desk.undo_erasure(v1::UndoErasureRequest { subject: "cust-1".to_owned() }).await.unwrap();
    assert_eq!(by_contract.next(&token).await.unwrap(), NAME.as_bytes());

    assert_eq!(desk.erase_subject(erasure(None)).await.unwrap().into_inner().state, "erased");
    for stream in [&mut by_consent, &mut by_contract] {
        stream.is_refused(&token, Code::NotFound, "NOT_FOUND").await;
        assert!(stream.next(&other).await.is_ok());
    }
    vault.verify_ledger();
}
