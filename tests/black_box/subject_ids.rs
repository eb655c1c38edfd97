//! Ids of data subjects in any script and of any length that is allowed: each is its own in every right that a subject has, and
//! neither the ledger nor the server's log says one.

use std::time::{SystemTime, UNIX_EPOCH};

use strongroom_proto::v1;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::consents::consent;
use crate::harness::{TestVault, Told, item, read_one, tokenize};
use crate::needles::{Needles, stored_files};
use crate::second_factor::{showing, stepped_up};

/// Of 1 byte, in several scripts, that look alike, and that mean something elsewhere. What is searched for has 6 bytes at the least.
const IDS: [&str; 16] = [
    "x",
    " ",
    "\u{0}",
    "Łódź-Ångström-7",
    "客户-零零七",
    "عميل-رقم-سبعة",
    "ग्राहक-सात",
    "לקוח-שבע",
    "👩‍👩‍👧‍👦-🏠",
    "cafe\u{301}-cre\u{301}me",
    "caf\u{e9}-cr\u{e9}me",
    "nul\u{0}inside",
    "line\nbreak\r\n",
    "\u{202e}txt.exe\u{200b}",
    "'; DROP TABLE subjects; --",
    "../../etc/passwd",
];

/// The shortest text that can be told from chance.
const TOLD_FROM_CHANCE: usize = 6;

/// All who see to the rights of subjects.
struct Rights {
    service: SubjectsClient<Channel>,
    desk: SubjectsClient<Channel>,
    officer: SubjectsClient<Channel>,
    /// The desk's second factor.
    assertion: String,
}

impl Rights {
    async fn of(vault: &TestVault) -> Self {
        let (_, assertion) = stepped_up(&mut vault.access_as("privacy").await).await;
        let [service, desk, officer] = [vault.channel("app"), vault.channel("privacy"), vault.channel("officer-1")];
        Self {
            service: SubjectsClient::new(service.await),
            desk: SubjectsClient::new(desk.await),
            officer: SubjectsClient::new(officer.await),
            assertion,
        }
    }

    async fn grant(&mut self, id: &str) -> Result<bool, Status> {
        Ok(self.service.grant_consent(consent(id)).await?.into_inner().changed)
    }

    async fn withdraw(&mut self, id: &str) -> Result<bool, Status> {
        let (subject, purpose) = (id.to_owned(), "marketing".to_owned());
        let request = v1::WithdrawConsentRequest { subject, purpose, scope: None };
        Ok(self.service.withdraw_consent(request).await?.into_inner().changed)
    }

    /// The states of its consents.
    async fn consents(&mut self, id: &str) -> Result<Vec<String>, Status> {
        let request = v1::ListConsentsRequest { subject: id.to_owned(), purpose: String::new(), scope: None };
        let consents = self.desk.list_consents(request).await?.into_inner().consents;
        Ok(consents.into_iter().map(|consent| consent.state).collect())
    }

    async fn hold(&mut self, id: &str) -> Result<u32, Status> {
        let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 24 * 3_600;
        let request = v1::SetHoldRequest {
            subject: id.to_owned(),
            fields: vec![],
            reason: "case-7".to_owned(),
            purpose: "collections".to_owned(),
            until_time: Some(prost_types::Timestamp { seconds: i64::try_from(tomorrow).unwrap(), nanos: 0 }),
        };
        Ok(self.officer.set_hold(request).await?.into_inner().number)
    }

    async fn lift(&mut self, id: &str) -> Result<(), Status> {
        self.officer.lift_hold(v1::LiftHoldRequest { subject: id.to_owned(), number: 1 }).await.map(drop)
    }

    /// Whether each of its holds stands.
    async fn holds(&mut self, id: &str) -> Result<Vec<bool>, Status> {
        let holds = self.desk.list_holds(v1::ListHoldsRequest { subject: id.to_owned() }).await?.into_inner().holds;
        Ok(holds.into_iter().map(|hold| hold.stands).collect())
    }

    /// Of how many values, consents and holds its report tells.
    async fn report(&mut self, id: &str) -> Result<[usize; 3], Status> {
        let request = v1::SubjectReportRequest { subject: id.to_owned(), ..Default::default() };
        let told = self.desk.subject_report(showing(request, &self.assertion)).await?.into_inner();
        let values: u64 = told.fields.iter().map(|field| field.values).sum();
        Ok([usize::try_from(values).unwrap(), told.consents.len(), told.holds.len()])
    }

    /// Its values.
    async fn export(&mut self, id: &str) -> Result<Vec<String>, Status> {
        let request = v1::ExportSubjectRequest { subject: id.to_owned(), purpose: "subject_access".to_owned() };
        let mut pages = self.desk.export_subject(showing(request, &self.assertion)).await?.into_inner();
        let mut values = Vec::new();
        while let Some(page) = pages.message().await? {
            let own = page.values.into_iter().map(|one| String::from_utf8(one.value.unwrap().to_vec()).unwrap());
            values.extend(own);
        }
        Ok(values)
    }

    /// What becomes of it.
    async fn erase(&mut self, id: &str) -> Result<String, Status> {
        let request = v1::EraseSubjectRequest { subject: id.to_owned(), ..Default::default() };
        Ok(self.desk.erase_subject(request).await?.into_inner().state)
    }

    /// What each call about a subject answers, the one last that makes a subject of an id.
    async fn refusals(&mut self, id: &str) -> [(&'static str, Result<(), Status>); 9] {
        [
            ("WithdrawConsent", self.withdraw(id).await.map(drop)),
            ("ListConsents", self.consents(id).await.map(drop)),
            ("SetHold", self.hold(id).await.map(drop)),
            ("LiftHold", self.lift(id).await),
            ("ListHolds", self.holds(id).await.map(drop)),
            ("SubjectReport", self.report(id).await.map(drop)),
            ("ExportSubject", self.export(id).await.map(drop)),
            ("EraseSubject", self.erase(id).await.map(drop)),
            ("GrantConsent", self.grant(id).await.map(drop)),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_in_any_script_has_every_right_and_is_said_nowhere() {
    let mut vault = TestVault::start_with(&[("STRONGROOM_LOG", "trace")]);
    let (longest, widest) = ("c".repeat(128), format!("{}ab", "客".repeat(42)));
    assert_eq!(widest.len(), 128);
    let ids: Vec<&str> = IDS.into_iter().chain([longest.as_str(), widest.as_str()]).collect();
    let mut app = vault.vault().await;
    let mut tokens = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let request = tokenize(vec![item("borrower.name", &format!("name {number}"), id)]);
        tokens.push(app.tokenize(request).await.unwrap().into_inner().tokens.remove(0));
    }
    let mut rights = Rights::of(&vault).await;
    // One after the other: nobody's consent, hold, report or erasure is that of another, however alike they look.
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(rights.consents(id).await.unwrap(), [""; 0], "{id:?}");
        assert!(rights.grant(id).await.unwrap(), "{id:?}");
        assert_eq!(rights.consents(id).await.unwrap(), ["standing"], "{id:?}");
        assert_eq!(rights.holds(id).await.unwrap(), [false; 0], "{id:?}");
        assert_eq!(rights.hold(id).await.unwrap(), 1, "{id:?}");
        assert_eq!(rights.holds(id).await.unwrap(), [true], "{id:?}");
        assert_eq!(rights.report(id).await.unwrap(), [1, 1, 1], "{id:?}");
        assert_eq!(rights.export(id).await.unwrap(), [format!("name {number}")], "{id:?}");
        assert!(rights.withdraw(id).await.unwrap(), "{id:?}");
        assert_eq!(rights.consents(id).await.unwrap(), ["withdrawn"], "{id:?}");
        rights.lift(id).await.unwrap();
        assert_eq!(rights.holds(id).await.unwrap(), [false], "{id:?}");
    }
    for (id, token) in ids.iter().zip(&tokens) {
        assert!(read_one(&vault, token, "kyc_review", "plain").await.is_ok(), "{id:?} went with another");
        assert_eq!(rights.erase(id).await.unwrap(), "erased", "{id:?}");
        assert_eq!(read_one(&vault, token, "kyc_review", "plain").await.unwrap_err().code, Code::NotFound, "{id:?}");
        for (call, answer) in rights.refusals(id).await {
            match answer {
                Ok(()) => assert_eq!(call, "GrantConsent", "{id:?}"),
                Err(status) => assert_eq!(status.code(), Code::NotFound, "{call} of {id:?}"),
            }
        }
    }
    for bad in ["", &"c".repeat(129), &"客".repeat(43)] {
        for (call, answer) in rights.refusals(bad).await {
            let told = Told::from(answer.expect_err(call));
            assert_eq!(
                (told.code, told.reason.as_str()),
                (Code::InvalidArgument, "SUBJECT_INVALID"),
                "{call}: {told:?}"
            );
        }
    }

    let mut needles = Needles::new();
    for id in ids.iter().filter(|id| id.len() >= TOLD_FROM_CHANCE) {
        needles.text(id);
        // As a log would have it.
        needles.bytes(id, id.escape_debug().to_string().as_bytes());
    }
    for leaf in vault.leaves().await {
        assert_eq!(needles.found(leaf.to_string().as_bytes()), [""; 0], "{leaf}");
    }
    vault.verify_ledger();
    assert!(vault.stop().success());
    assert!(vault.read_log().contains("TRACE"), "the log was not at its finest");
    let mut written = stored_files(&vault.dir());
    written.extend([vault.log_path(), vault.scratch().join("ledger.jsonl")]);
    needles.absent_from(&written, "at the end");
    vault.cli_ok(&["verify"]);
}
