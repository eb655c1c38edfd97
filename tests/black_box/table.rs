//! Tables that a person wrote, row by row: read, and asked of a real server.

use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::keys_client::KeysClient;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use strongroom_proto::v1::system_client::SystemClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{Told, detokenize, item, tokenize, value, vault_client};
use crate::second_factor::showing;

const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub caller: &'static str,
    pub action: &'static str,
    pub field: &'static str,
    pub view: &'static str,
    pub purpose: &'static str,
    pub tier: &'static str,
    pub factor: &'static str,
    pub expect: &'static str,
}

pub fn rows(table: &'static str) -> Vec<Row> {
    let mut lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("caller,action,field,view,purpose,tier,factor,expect"));
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split(',').collect();
        let [caller, action, field, view, purpose, tier, factor, expect] = cells[..] else { panic!("{line}") };
        Row { caller, action, field, view, purpose, tier, factor, expect }
    };
    lines.map(row).collect()
}

/// A value that the field takes.
pub fn example(field: &str) -> &'static str {
    match field {
        "borrower.name" | "company.legal_representative" => "欧阳志远",
        "borrower.id_card" => "11010519491231002X",
        "borrower.mobile" => "13800138000",
        "borrower.bank_card" => "6222021234567890128",
        "borrower.email" => "zhiyuan@mail.example",
        "borrower.address" => "北京市东城区长安街1号",
        "borrower.monthly_income" => "12345.67",
        "borrower.password_hash" => "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA",
        "borrower.account_opened" => "2020-01-02",
        "company.uscc" => "91350100M000100Y43",
        _ => panic!("no example of {field}"),
    }
}

/// What the requests of a table are about, as far as its rows don't say.
pub struct About {
    /// What is put in force, with a line of the row's own.
    pub policies: String,
    /// What is frozen and no longer frozen.
    pub frozen: v1::FreezeRequest,
    /// With which an officer is enrolled (DER).
    pub certificate: Vec<u8>,
}

/// What a row is asked with.
pub struct Asked<'a> {
    pub row: Row,
    pub about: &'a About,
    /// Of the row's caller.
    pub channel: Channel,
    /// A token of the row's field, if it asks for one.
    pub token: &'a str,
    /// Tells it from other rows.
    pub number: usize,
    /// What is shown of a second factor.
    pub shown: Option<&'a str>,
}

/// What became of it: `allow`, `nothing`, or why not, as far as the server says.
pub type Outcome = Result<&'static str, Status>;

impl Asked<'_> {
    /// The request, with what is shown.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        match self.shown {
            Some(assertion) => showing(message, assertion),
            None => tonic::Request::new(message),
        }
    }

    pub async fn ask(&self) -> Outcome {
        let done = match self.row.action {
            "tokenize" | "import_token" | "detokenize" | "match" | "lookup" | "replace" | "delete" => {
                return self.on_field().await;
            }
            "status" | "seal" | "list_tenants" | "create_tenant" | "destroy_tenant" | "confirm_clock" => {
                self.of_system().await
            }
            "export_ledger" | "archive_ledger" | "get_proof" | "get_checkpoint" | "add_cosignature" => {
                self.of_ledger().await
            }
            "set_labels" | "get_labels" | "grant_consent" | "withdraw_consent" | "list_consents" | "expire"
            | "expire_above_cap" | "erase_subject" | "undo_erasure" | "get_erasure" | "list_erasures" | "set_hold"
            | "lift_hold" | "list_holds" | "retention_report" | "subject_report" | "export_subject"
            | "processing_report" => self.of_subjects().await,
            "list_keys"
            | "rotate_key"
            | "set_key_state"
            | "destroy_key_version"
            | "rewrap"
            | "roll"
            | "reindex"
            | "get_job"
            | "cancel_job"
            | "get_own_key"
            | "create_import_key"
            | "import_own_key"
            | "move_own_key"
            | "remove_own_key"
            | "backup_keystore"
            | "list_keystore_copies"
            | "strike_keystore_copy" => self.of_keys().await,
            _ => self.of_access().await,
        };
        done.map(|()| "allow")
    }

    async fn on_field(&self) -> Outcome {
        let Row { field, purpose, view, .. } = self.row;
        let (mut vault, text, purpose_sent) = (vault_client(self.channel.clone()), example(field), purpose.to_owned());
        let told = |problem: v1::Problem| Err(Status::unknown(problem.reason));
        match self.row.action {
            "tokenize" => {
                vault.tokenize(self.request(tokenize(vec![item(field, text, "new")]))).await?;
            }
            "import_token" => {
                let token = format!("LEGACY-{}", self.number);
                let brought = v1::TokenizeItem { token, ..item(field, text, "new") };
                vault.tokenize(self.request(tokenize(vec![brought]))).await?;
            }
            "detokenize" => {
                let request = self.request(detokenize(&[self.token], purpose, view));
                let shown = value(vault.detokenize(request).await?.into_inner().results.remove(0));
                let shown = shown.map_err(|told| Status::unknown(told.reason))?;
                // Only the view `plain` shows it whole.
                assert_eq!(shown == text.as_bytes(), view == "plain", "{:?}", self.row);
            }
            "match" => {
                let item = v1::MatchItem { token: self.token.to_owned(), value: text.into(), subject: String::new() };
                let request = v1::MatchRequest { items: vec![item], purpose: purpose_sent };
                match vault.r#match(self.request(request)).await?.into_inner().results.remove(0).result.unwrap() {
                    v1::match_result::Result::Matched(matched) => assert!(matched, "{:?}", self.row),
                    v1::match_result::Result::Problem(problem) => return told(problem),
                }
            }
            "lookup" => {
                let item = v1::LookupItem { field: field.to_owned(), value: text.into() };
                let request = v1::LookupRequest { items: vec![item], purpose: purpose_sent };
                let found = vault.lookup(self.request(request)).await?.into_inner().results.remove(0);
                match found.problem {
                    Some(problem) => return told(problem),
                    None if found.tokens.is_empty() => return Ok("nothing"),
                    None => {}
                }
            }
            "replace" => {
                let item = v1::ReplaceItem { token: self.token.to_owned(), value: text.into(), expire_time: None };
                let request = v1::ReplaceRequest { items: vec![item], idempotency_key: String::new() };
                vault.replace(self.request(request)).await?;
            }
            _ => {
                let item = v1::DeleteItem { token: self.token.to_owned(), subject: String::new() };
                let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
                let deleted = vault.delete(self.request(request)).await?.into_inner().results.remove(0);
                if let Some(problem) = deleted.problem {
                    return told(problem);
                }
            }
        }
        Ok("allow")
    }

    async fn of_system(&self) -> Result<(), Status> {
        let mut system = SystemClient::new(self.channel.clone());
        match self.row.action {
            "status" => system.status(self.request(v1::StatusRequest {})).await.map(drop),
            "seal" => system.seal(self.request(v1::SealRequest {})).await.map(drop),
            "confirm_clock" => {
                let time = Some(prost_types::Timestamp::from(std::time::SystemTime::now()));
                system.confirm_clock(self.request(v1::ConfirmClockRequest { time })).await.map(drop)
            }
            "list_tenants" => system.list_tenants(self.request(v1::ListTenantsRequest {})).await.map(drop),
            "create_tenant" => {
                let request = v1::CreateTenantRequest { name: "No Name".to_owned(), officer_certificates: vec![] };
                system.create_tenant(self.request(request)).await.map(drop)
            }
            _ => {
                let request = v1::DestroyTenantRequest { name: "nobody".to_owned(), dry_run: true };
                system.destroy_tenant(self.request(request)).await.map(drop)
            }
        }
    }

    async fn of_ledger(&self) -> Result<(), Status> {
        let mut audit = AuditClient::new(self.channel.clone());
        match self.row.action {
            "get_checkpoint" => audit.get_checkpoint(self.request(v1::GetCheckpointRequest::default())).await.map(drop),
            "add_cosignature" => {
                audit.add_cosignature(self.request(v1::AddCosignatureRequest::default())).await.map(drop)
            }
            "archive_ledger" => audit.archive(self.request(v1::ArchiveRequest::default())).await.map(drop),
            "get_proof" => {
                let request = v1::GetInclusionProofRequest { index: 0, size: 0, log: String::new() };
                audit.get_inclusion_proof(self.request(request)).await.map(drop)
            }
            _ => {
                let request = v1::ExportRequest { end: 1, ..Default::default() };
                audit.export(self.request(request)).await?.into_inner().message().await.map(drop)
            }
        }
    }

    async fn of_subjects(&self) -> Result<(), Status> {
        let (mut subjects, subject) = (SubjectsClient::new(self.channel.clone()), "cust-1".to_owned());
        let purpose = || "marketing".to_owned();
        match self.row.action {
            "expire" | "expire_above_cap" => {
                let up_to = if self.row.action == "expire" { 0 } else { 7 };
                subjects.start_expire(self.request(v1::StartExpireRequest { up_to })).await.map(drop)
            }
            "retention_report" => {
                let request = self.request(v1::RetentionReportRequest {});
                subjects.retention_report(request).await?.into_inner().message().await.map(drop)
            }
            "subject_report" => {
                let request = v1::SubjectReportRequest { subject, ..Default::default() };
                subjects.subject_report(self.request(request)).await.map(drop)
            }
            "export_subject" => {
                let request = v1::ExportSubjectRequest { subject, purpose: "subject_access".to_owned() };
                subjects.export_subject(self.request(request)).await?.into_inner().message().await.map(drop)
            }
            "processing_report" => {
                let request = v1::ProcessingReportRequest::default();
                subjects.processing_report(self.request(request)).await?.into_inner().message().await.map(drop)
            }
            "erase_subject" => {
                let request = v1::EraseSubjectRequest { subject: "nobody".to_owned(), ..Default::default() };
                subjects.erase_subject(self.request(request)).await.map(drop)
            }
            "undo_erasure" => subjects.undo_erasure(self.request(v1::UndoErasureRequest { subject })).await.map(drop),
            "get_erasure" => {
                let request = v1::GetErasureRequest { erasure: "0".repeat(32) };
                subjects.get_erasure(self.request(request)).await.map(drop)
            }
            "list_erasures" => subjects.list_erasures(self.request(v1::ListErasuresRequest::default())).await.map(drop),
            "set_hold" => {
                let until = prost_types::Timestamp { seconds: 2_200_000_000, nanos: 0 };
                let request = v1::SetHoldRequest {
                    subject,
                    fields: vec!["borrower.bank_card".to_owned()],
                    reason: "case-1".to_owned(),
                    purpose: "collections".to_owned(),
                    until_time: Some(until),
                };
                subjects.set_hold(self.request(request)).await.map(drop)
            }
            "lift_hold" => subjects.lift_hold(self.request(v1::LiftHoldRequest { subject, number: 1 })).await.map(drop),
            "list_holds" => subjects.list_holds(self.request(v1::ListHoldsRequest { subject })).await.map(drop),
            "get_labels" => subjects.get_labels(self.request(v1::GetLabelsRequest { subject })).await.map(drop),
            "set_labels" => {
                let request = v1::SetLabelsRequest { subject, labels: vec!["branch-12".to_owned()] };
                subjects.set_labels(self.request(request)).await.map(drop)
            }
            "grant_consent" => subjects.grant_consent(self.request(crate::consents::consent(&subject))).await.map(drop),
            "withdraw_consent" => {
                let request = v1::WithdrawConsentRequest { subject, purpose: purpose(), scope: None };
                subjects.withdraw_consent(self.request(request)).await.map(drop)
            }
            _ => {
                let request = v1::ListConsentsRequest { subject, purpose: purpose(), scope: None };
                subjects.list_consents(self.request(request)).await.map(drop)
            }
        }
    }

    async fn of_keys(&self) -> Result<(), Status> {
        let mut keys = KeysClient::new(self.channel.clone());
        let name = || "kek/1".to_owned();
        match self.row.action {
            "list_keys" => keys.list_keys(self.request(v1::ListKeysRequest {})).await.map(drop),
            "rotate_key" => {
                let request = v1::RotateKeyRequest { name: name(), from_version: 0 };
                keys.rotate_key(self.request(request)).await.map(drop)
            }
            "set_key_state" => {
                let request = v1::SetKeyStateRequest { name: name(), version: 1, state: "disabled".to_owned() };
                keys.set_key_state(self.request(request)).await?;
                let request = v1::SetKeyStateRequest { name: name(), version: 1, state: "decrypt-only".to_owned() };
                keys.set_key_state(self.request(request)).await.map(drop)
            }
            // What only is counted needs nobody's approval.
            "destroy_key_version" => {
                let request = v1::DestroyKeyVersionRequest { name: name(), version: 1, dry_run: true };
                keys.destroy_key_version(self.request(request)).await.map(drop)
            }
            "rewrap" => {
                let request = v1::StartRewrapRequest { name: String::new() };
                keys.start_rewrap(self.request(request)).await.map(drop)
            }
            "roll" => {
                let request = v1::StartRollRequest { name: String::new(), subject: String::new() };
                keys.start_roll(self.request(request)).await.map(drop)
            }
            "reindex" => keys.start_reindex(self.request(v1::StartReindexRequest {})).await.map(drop),
            "get_job" => {
                let request = v1::GetJobRequest { name: "rewrap/1".to_owned() };
                keys.get_job(self.request(request)).await.map(drop)
            }
            "cancel_job" => {
                let request = v1::CancelJobRequest { name: "rewrap/1".to_owned() };
                match keys.cancel_job(self.request(request)).await {
                    // It was done before.
                    Err(status) if Told::from(status.clone()).reason == "JOB_ENDED" => Ok(()),
                    answer => answer.map(drop),
                }
            }
            "get_own_key" => keys.get_own_key(self.request(v1::GetOwnKeyRequest {})).await.map(drop),
            "create_import_key" => keys.create_import_key(self.request(v1::CreateImportKeyRequest {})).await.map(drop),
            "import_own_key" => {
                let request = v1::ImportOwnKeyRequest { wrapped: vec![1; 8].into(), replace: false };
                keys.import_own_key(self.request(request)).await.map(drop)
            }
            "move_own_key" => {
                let request = v1::MoveOwnKeyRequest { to: "none".to_owned() };
                keys.move_own_key(self.request(request)).await.map(drop)
            }
            "remove_own_key" => keys.remove_own_key(self.request(v1::RemoveOwnKeyRequest {})).await.map(drop),
            "backup_keystore" => {
                let request = v1::BackupKeystoreRequest { label: "a test's".to_owned() };
                keys.backup_keystore(self.request(request)).await.map(drop)
            }
            "list_keystore_copies" => {
                keys.list_keystore_copies(self.request(v1::ListKeystoreCopiesRequest {})).await.map(drop)
            }
            _ => {
                let request = v1::StrikeKeystoreCopyRequest { name: "copy/99".to_owned() };
                keys.strike_keystore_copy(self.request(request)).await.map(drop)
            }
        }
    }

    async fn of_access(&self) -> Result<(), Status> {
        let mut access = AccessClient::new(self.channel.clone());
        let nobody = "app/nobody".to_owned();
        let v1::FreezeRequest { field, reads, writes, .. } = self.about.frozen.clone();
        let all_tenants = self.row.action.ends_with("_all");
        match self.row.action {
            "get_schema" => access.get_schema(self.request(v1::GetSchemaRequest {})).await.map(drop),
            "get_policy" => access.get_policy(self.request(v1::GetPolicyRequest::default())).await.map(drop),
            "explain_policy" => {
                let (role, action) = ("app".to_owned(), "status".to_owned());
                let request = v1::ExplainPolicyRequest { role, action, ..Default::default() };
                access.explain_policy(self.request(request)).await.map(drop)
            }
            "apply_policy" => {
                let source = format!("// {}\n{}", self.number, self.about.policies);
                let request = v1::ApplyPolicyRequest { source, ..Default::default() };
                access.apply_policy(self.request(request)).await.map(drop)
            }
            "apply_schema" => {
                let request = v1::ApplySchemaRequest { source: LENDING.to_owned(), dry_run: true };
                access.apply_schema(self.request(request)).await.map(drop)
            }
            "freeze" | "freeze_all" => {
                let request = v1::FreezeRequest { field, reads, writes, all_tenants };
                access.freeze(self.request(request)).await.map(drop)
            }
            "unfreeze" | "unfreeze_all" => {
                let request = v1::UnfreezeRequest { field, reads, writes, all_tenants };
                access.unfreeze(self.request(request)).await.map(drop)
            }
            "list_freezes" => access.list_freezes(self.request(v1::ListFreezesRequest {})).await.map(drop),
            "suspend" => {
                let request = v1::SuspendRequest { principal: nobody, reason: "a test".to_owned() };
                access.suspend(self.request(request)).await.map(drop)
            }
            "unsuspend" => access.unsuspend(self.request(v1::UnsuspendRequest { principal: nobody })).await.map(drop),
            "set_tier" => {
                let request = v1::SetTierRequest { principal: nobody, tier: "II".to_owned() };
                access.set_tier(self.request(request)).await.map(drop)
            }
            "set_tier_limits" => {
                let request = v1::SetTierLimitsRequest { tier: "I".to_owned(), limits: Some(Default::default()) };
                access.set_tier_limits(self.request(request)).await.map(drop)
            }
            "list_principals" => access.list_principals(self.request(v1::ListPrincipalsRequest {})).await.map(drop),
            "list_approvals" => {
                access.list_approvals(self.request(v1::ListApprovalsRequest::default())).await.map(drop)
            }
            "approve" => {
                let request = v1::ApproveRequest { name: "approval/999".to_owned(), ..Default::default() };
                access.approve(self.request(request)).await.map(drop)
            }
            "reject" => {
                let request = v1::RejectRequest { name: "approval/999".to_owned() };
                access.reject(self.request(request)).await.map(drop)
            }
            "enrol_officer" => {
                let certificate = self.about.certificate.clone().into();
                let request = v1::EnrolOfficerRequest { name: "officer-2".to_owned(), certificate };
                access.enrol_officer(self.request(request)).await.map(drop)
            }
            "remove_officer" => {
                let request = v1::RemoveOfficerRequest { name: "officer-2".to_owned() };
                access.remove_officer(self.request(request)).await.map(drop)
            }
            "list_officers" => access.list_officers(self.request(v1::ListOfficersRequest {})).await.map(drop),
            "enrol_second_factor" => {
                access.enrol_second_factor(self.request(v1::EnrolSecondFactorRequest {})).await.map(drop)
            }
            "confirm_second_factor" => {
                let request = v1::ConfirmSecondFactorRequest { code: "123456".to_owned() };
                access.confirm_second_factor(self.request(request)).await.map(drop)
            }
            "step_up" => {
                let request = v1::StepUpRequest { code: "123456".to_owned(), request: String::new() };
                access.step_up(self.request(request)).await.map(drop)
            }
            "reset_second_factor" => {
                let request = v1::ResetSecondFactorRequest { principal: "officer/nobody".to_owned() };
                access.reset_second_factor(self.request(request)).await.map(drop)
            }
            "list_second_factors" => {
                access.list_second_factors(self.request(v1::ListSecondFactorsRequest {})).await.map(drop)
            }
            other => panic!("no way to ask for {other}"),
        }
    }
}

/// The reason of an outcome.
pub fn reason(outcome: &Outcome) -> String {
    match outcome {
        Ok(done) => (*done).to_owned(),
        Err(status) if status.details().is_empty() => status.message().to_owned(),
        Err(status) => Told::from(status.clone()).reason,
    }
}
