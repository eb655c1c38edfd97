//! What policies decide by tier and second factor, and of every action there is: held against a table that a person wrote, row
//! by row, by the real server.

use std::collections::HashMap;

use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::keys_client::KeysClient;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use strongroom_proto::v1::system_client::SystemClient;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::approvals::with_approval;
use crate::harness::{TestVault, Told, detokenize, item, one_token, tokenize, value, vault_client};
use crate::second_factor::{App, POLICIES, access, enrol, showing, step_up};

const TABLE: &str = include_str!("people.csv");
const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");
const NARROW: &str = r#"
@id("narrow-tier")
@why("In tier III nobody sees anything whole.")
forbid (principal, action == Action::"detokenize", resource)
when { context.tier == 3 && context has view && context.view == "plain" };
"#;
/// What every row reads.
const VALUES: [(&str, &str); 3] = [
    ("borrower.id_card", "11010519491231002X"),
    ("borrower.name", "欧阳志远"),
    ("borrower.email", "zhiyuan@mail.example"),
];

/// One row.
#[derive(Clone, Copy, Debug)]
struct Row {
    caller: &'static str,
    action: &'static str,
    field: &'static str,
    view: &'static str,
    purpose: &'static str,
    tier: &'static str,
    factor: &'static str,
    expect: &'static str,
}

fn rows() -> Vec<Row> {
    let mut lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("caller,action,field,view,purpose,tier,factor,expect"));
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split(',').collect();
        let [caller, action, field, view, purpose, tier, factor, expect] = cells[..] else { panic!("{line}") };
        Row { caller, action, field, view, purpose, tier, factor, expect }
    };
    lines.map(row).collect()
}

/// What a row is asked with.
struct Asked<'a> {
    vault: &'a TestVault,
    row: Row,
    channel: Channel,
    token: &'a str,
    shown: Option<&'a str>,
}

/// Why not, as far as the server says.
type Outcome = Result<(), Status>;

impl Asked<'_> {
    /// The request, with what is shown.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        match self.shown {
            Some(assertion) => showing(message, assertion),
            None => tonic::Request::new(message),
        }
    }

    async fn ask(&self) -> Outcome {
        match self.row.action {
            "tokenize" | "import_token" | "detokenize" | "match" | "lookup" | "delete" => self.on_field().await,
            "status" | "seal" | "list_tenants" | "create_tenant" | "destroy_tenant" => self.of_system().await,
            "export_ledger" | "get_proof" => self.of_ledger().await,
            "set_labels" | "get_labels" => self.of_subjects().await,
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
        }
    }

    async fn on_field(&self) -> Outcome {
        let Row { field, purpose, view, .. } = self.row;
        let (mut vault, text) = (vault_client(self.channel.clone()), text(field));
        let problem = |problem: Option<v1::Problem>| match problem {
            None => Ok(()),
            Some(problem) => Err(Status::unknown(problem.reason)),
        };
        match self.row.action {
            "tokenize" => vault.tokenize(self.request(tokenize(vec![item(field, text, "new")]))).await.map(drop),
            "import_token" => {
                let brought = v1::TokenizeItem { token: "LEGACY-1".to_owned(), ..item(field, text, "new") };
                vault.tokenize(self.request(tokenize(vec![brought]))).await.map(drop)
            }
            "detokenize" => {
                let request = self.request(detokenize(&[self.token], purpose, view));
                let shown = value(vault.detokenize(request).await?.into_inner().results.remove(0));
                match shown {
                    Ok(shown) => {
                        assert_eq!(shown == text.as_bytes(), view == "plain", "{:?}", self.row);
                        Ok(())
                    }
                    Err(told) => Err(Status::unknown(told.reason)),
                }
            }
            "match" => {
                let item = v1::MatchItem { token: self.token.to_owned(), value: text.into(), subject: String::new() };
                let request = v1::MatchRequest { items: vec![item], purpose: purpose.to_owned() };
                match vault.r#match(self.request(request)).await?.into_inner().results.remove(0).result.unwrap() {
                    v1::match_result::Result::Matched(matched) => {
                        assert!(matched, "{:?}", self.row);
                        Ok(())
                    }
                    v1::match_result::Result::Problem(told) => problem(Some(told)),
                }
            }
            "lookup" => {
                let item = v1::LookupItem { field: field.to_owned(), value: text.into() };
                let request = v1::LookupRequest { items: vec![item], purpose: purpose.to_owned() };
                problem(vault.lookup(self.request(request)).await?.into_inner().results.remove(0).problem)
            }
            _ => {
                let item = v1::DeleteItem { token: self.token.to_owned(), subject: String::new() };
                let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
                problem(vault.delete(self.request(request)).await?.into_inner().results.remove(0).problem)
            }
        }
    }

    async fn of_system(&self) -> Outcome {
        let mut system = SystemClient::new(self.channel.clone());
        match self.row.action {
            "status" => system.status(self.request(v1::StatusRequest {})).await.map(drop),
            "seal" => system.seal(self.request(v1::SealRequest {})).await.map(drop),
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

    async fn of_ledger(&self) -> Outcome {
        let mut audit = AuditClient::new(self.channel.clone());
        if self.row.action == "get_proof" {
            let request = v1::GetInclusionProofRequest { index: 0, size: 0, log: String::new() };
            return audit.get_inclusion_proof(self.request(request)).await.map(drop);
        }
        let request = v1::ExportRequest { end: 1, ..Default::default() };
        audit.export(self.request(request)).await?.into_inner().message().await.map(drop)
    }

    async fn of_subjects(&self) -> Outcome {
        let (mut subjects, subject) = (SubjectsClient::new(self.channel.clone()), "cust-1".to_owned());
        if self.row.action == "get_labels" {
            return subjects.get_labels(self.request(v1::GetLabelsRequest { subject })).await.map(drop);
        }
        let request = v1::SetLabelsRequest { subject, labels: vec!["branch-12".to_owned()] };
        subjects.set_labels(self.request(request)).await.map(drop)
    }

    async fn of_keys(&self) -> Outcome {
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

    async fn of_access(&self) -> Outcome {
        let mut access = AccessClient::new(self.channel.clone());
        let (nobody, all_tenants) = ("app/nobody".to_owned(), self.row.action.ends_with("_all"));
        match self.row.action {
            "get_schema" => access.get_schema(self.request(v1::GetSchemaRequest {})).await.map(drop),
            "get_policy" => access.get_policy(self.request(v1::GetPolicyRequest::default())).await.map(drop),
            "explain_policy" => {
                let (role, action) = ("app".to_owned(), "status".to_owned());
                let request = v1::ExplainPolicyRequest { role, action, ..Default::default() };
                access.explain_policy(self.request(request)).await.map(drop)
            }
            "apply_policy" => {
                let source = format!("{}\n// again", POLICIES.join("\n"));
                access
                    .apply_policy(self.request(v1::ApplyPolicyRequest { source, ..Default::default() }))
                    .await
                    .map(drop)
            }
            "apply_schema" => {
                let request = v1::ApplySchemaRequest { source: LENDING.to_owned(), dry_run: true };
                access.apply_schema(self.request(request)).await.map(drop)
            }
            "freeze" | "freeze_all" => {
                let field = String::new();
                let request = v1::FreezeRequest { field, reads: false, writes: true, all_tenants };
                access.freeze(self.request(request)).await.map(drop)
            }
            "unfreeze" | "unfreeze_all" => {
                let field = String::new();
                let request = v1::UnfreezeRequest { field, reads: false, writes: true, all_tenants };
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
            "list_approvals" => access.list_approvals(self.request(v1::ListApprovalsRequest {})).await.map(drop),
            "approve" => {
                let request = v1::ApproveRequest { name: "approval/999".to_owned(), ..Default::default() };
                access.approve(self.request(request)).await.map(drop)
            }
            "reject" => {
                let request = v1::RejectRequest { name: "approval/999".to_owned() };
                access.reject(self.request(request)).await.map(drop)
            }
            "enrol_officer" => {
                let certificate = std::fs::read(self.vault.dir().join("pki/officer-2.pem")).unwrap();
                let (_, certificate) = x509_parser::pem::parse_x509_pem(&certificate).unwrap();
                let name = "officer-2".to_owned();
                let request = v1::EnrolOfficerRequest { name, certificate: certificate.contents.into() };
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

/// The value of a field.
fn text(field: &str) -> &'static str {
    VALUES.iter().find(|(known, _)| *known == field).unwrap().1
}

/// The reason of an outcome.
fn reason(outcome: &Outcome) -> String {
    match outcome {
        Ok(()) => "allow".to_owned(),
        Err(status) if status.details().is_empty() => status.message().to_owned(),
        Err(status) => Told::from(status.clone()).reason,
    }
}

/// A person's recovery codes, and what it shows for any request.
struct Person {
    app: App,
    fresh: String,
    used: usize,
}

impl Person {
    async fn enrolled(vault: &TestVault, name: &str) -> Self {
        let mut client = access(vault, name).await;
        let (app, next) = enrol(&mut client).await;
        let fresh = step_up(&mut client, &next, "").await.unwrap();
        Self { app, fresh, used: 0 }
    }

    /// An assertion for one request.
    async fn bound(&mut self, vault: &TestVault, name: &str, request: &str) -> String {
        self.used += 1;
        let code = &self.app.recovery[self.used - 1];
        step_up(&mut access(vault, name).await, code, request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_and_second_factors_decide_as_a_person_reads_the_policies() {
    let (vault, rows) = (TestVault::start(), rows());
    let mut people = HashMap::new();
    for name in ["officer-1", "officer-2", "privacy"] {
        people.insert(name, Person::enrolled(&vault, name).await);
    }
    let officer = access(&vault, "officer-1").await;
    let source = format!("{}\n{NARROW}", POLICIES.join("\n"));
    let policy = || v1::ApplyPolicyRequest { source: source.clone(), ..Default::default() };
    let shown = people["officer-1"].fresh.clone();
    with_approval(&vault, async || officer.clone().apply_policy(showing(policy(), &shown)).await).await.unwrap();
    let mut tokens = HashMap::new();
    for (field, text) in VALUES {
        tokens.insert(field, one_token(&vault, field, text, "cust-1").await);
    }
    let mut others = HashMap::new();
    for name in ["officer-1", "officer-2", "privacy"] {
        let person = people.get_mut(name).unwrap();
        others.insert(name, person.bound(&vault, name, &"0".repeat(64)).await);
    }
    let mut tiers: HashMap<&str, &str> = HashMap::new();
    let mut wrong = Vec::new();
    for row in rows.iter().copied() {
        if *tiers.get(row.caller).unwrap_or(&"I") != row.tier {
            let principal = format!("{0}/{0}", row.caller);
            let request = v1::SetTierRequest { principal, tier: row.tier.to_owned() };
            let fresh = &people["officer-2"].fresh;
            access(&vault, "officer-2").await.set_tier(showing(request, fresh)).await.unwrap();
            tiers.insert(row.caller, row.tier);
        }
        let (channel, token) = (vault.channel(row.caller).await, tokens.get(row.field).map_or("", String::as_str));
        let asked = async |shown: Option<&str>| {
            Asked { vault: &vault, row, channel: channel.clone(), token, shown }.ask().await
        };
        let outcome = match row.factor {
            "absent" => asked(None).await,
            "fresh" => asked(Some(&people[row.caller].fresh)).await,
            "other" => asked(Some(&others[row.caller])).await,
            "bound" => {
                let status = asked(None).await.unwrap_err();
                let metadata = status.get_details_error_info().unwrap().metadata;
                let person = people.get_mut(row.caller).unwrap();
                let bound = person.bound(&vault, row.caller, &metadata["request"]).await;
                asked(Some(&bound)).await
            }
            other => panic!("{other}"),
        };
        if reason(&outcome) != row.expect {
            wrong.push(format!("{row:?} is {}", reason(&outcome)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn every_action_has_a_row_in_one_of_the_tables() {
    let other = include_str!("decisions.csv");
    let asked: Vec<&str> =
        [TABLE, other].iter().flat_map(|table| table.lines()).filter_map(|line| line.split(',').nth(1)).collect();
    for action in strongroom_access::Action::ALL {
        assert!(asked.contains(&action.as_str()), "{action}");
    }
}
