//! The policies that ship, held against a table that a person wrote: row by row, by the real server, with real
//! certificates. What the table says was read from the policies and the schema, and not asked of the code.

use std::collections::HashMap;

use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::keys_client::KeysClient;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::vault_client::VaultClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::harness::{Told, detokenize, item, tokenize, value};
use crate::house::House;
use crate::tenants::operator;

const TABLE: &str = include_str!("decisions.csv");
const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");
const POLICIES: &str = include_str!("../../deploy/policies/default.cedar");
/// The field that is retired before the rows are asked.
const RETIRED: &str = "company.legal_representative";
/// What is frozen by who may: no other row needs it.
const FROZEN: &str = "company.contact_mobile";

/// One row.
#[derive(Debug)]
struct Row {
    caller: &'static str,
    action: &'static str,
    field: &'static str,
    view: &'static str,
    purpose: &'static str,
    expect: &'static str,
}

fn rows() -> Vec<Row> {
    let mut lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("caller,action,field,view,purpose,tier,factor,expect"));
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split(',').collect();
        let [caller, action, field, view, purpose, tier, factor, expect] = cells[..] else { panic!("{line}") };
        // Those of tiers and second factors are in people.csv: under policies that look at them.
        assert_eq!((tier, factor), ("I", "absent"), "{line}");
        Row { caller, action, field, view, purpose, expect }
    };
    lines.map(row).collect()
}

/// A value that the field takes.
fn example(field: &str) -> &'static str {
    match field {
        "borrower.name" | RETIRED => "欧阳志远",
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

/// What a row is asked with.
struct Asked<'a> {
    row: &'a Row,
    /// A token of its own, if it asks for one.
    token: &'a str,
    number: usize,
}

/// What became of it: `allow`, `nothing`, or why not.
type Outcome = Result<&'static str, String>;

fn outcome<T>(answer: Result<Response<T>, Status>, of: impl FnOnce(T) -> Outcome) -> Outcome {
    of(answer.map_err(|status| Told::from(status).reason)?.into_inner())
}

fn done<T>(answer: Result<Response<T>, Status>) -> Outcome {
    outcome(answer, |_| Ok("allow"))
}

fn told(problem: v1::Problem) -> Outcome {
    Err(Told::from(problem).reason)
}

async fn ask(channel: Channel, asked: Asked<'_>) -> Outcome {
    let Asked { row, token, number } = asked;
    match row.action {
        "tokenize" | "import_token" | "detokenize" | "match" | "lookup" | "replace" | "delete" => {
            on_field(VaultClient::new(channel), row, token, number).await
        }
        "status" => done(SystemClient::new(channel).status(v1::StatusRequest {}).await),
        "seal" => done(SystemClient::new(channel).seal(v1::SealRequest {}).await),
        "list_tenants" => done(SystemClient::new(channel).list_tenants(v1::ListTenantsRequest {}).await),
        "list_keys" => done(KeysClient::new(channel).list_keys(v1::ListKeysRequest {}).await),
        "get_checkpoint" => done(AuditClient::new(channel).get_checkpoint(v1::GetCheckpointRequest::default()).await),
        "add_cosignature" => {
            done(AuditClient::new(channel).add_cosignature(v1::AddCosignatureRequest::default()).await)
        }
        "export_ledger" => {
            let request = v1::ExportRequest { end: 1, ..Default::default() };
            match AuditClient::new(channel).export(request).await {
                Ok(pages) => done(pages.into_inner().message().await.map(Response::new)),
                refused => done(refused),
            }
        }
        _ => on_rules(AccessClient::new(channel), row, number).await,
    }
}

async fn on_field(mut vault: VaultClient<Channel>, row: &Row, token: &str, number: usize) -> Outcome {
    let (purpose, text) = (row.purpose.to_owned(), example(row.field));
    match row.action {
        "tokenize" => done(vault.tokenize(tokenize(vec![item(row.field, text, "new")])).await),
        "import_token" => {
            let brought = v1::TokenizeItem { token: format!("LEGACY-{number}"), ..item(row.field, text, "new") };
            done(vault.tokenize(tokenize(vec![brought])).await)
        }
        "detokenize" => {
            outcome(vault.detokenize(detokenize(&[token], row.purpose, row.view)).await, |mut answer| {
                let shown = value(answer.results.remove(0)).map_err(|told| told.reason)?;
                // Only the view `plain` shows it whole.
                assert_eq!(shown == text.as_bytes(), row.view == "plain", "{row:?}");
                Ok("allow")
            })
        }
        "match" => {
            let item = v1::MatchItem { token: token.to_owned(), value: text.into(), subject: String::new() };
            outcome(vault.r#match(v1::MatchRequest { items: vec![item], purpose }).await, |mut answer| {
                match answer.results.remove(0).result.unwrap() {
                    v1::match_result::Result::Matched(matched) => {
                        assert!(matched, "{row:?}");
                        Ok("allow")
                    }
                    v1::match_result::Result::Problem(problem) => told(problem),
                }
            })
        }
        "lookup" => {
            let item = v1::LookupItem { field: row.field.to_owned(), value: text.into() };
            outcome(vault.lookup(v1::LookupRequest { items: vec![item], purpose }).await, |mut answer| {
                let found = answer.results.remove(0);
                match found.problem {
                    Some(problem) => told(problem),
                    None if found.tokens.is_empty() => Ok("nothing"),
                    None => Ok("allow"),
                }
            })
        }
        "replace" => {
            let item = v1::ReplaceItem { token: token.to_owned(), value: text.into(), expire_time: None };
            done(vault.replace(v1::ReplaceRequest { items: vec![item], idempotency_key: String::new() }).await)
        }
        _ => {
            let item = v1::DeleteItem { token: token.to_owned(), subject: String::new() };
            let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
            outcome(vault.delete(request).await, |mut answer| {
                answer.results.remove(0).problem.map_or(Ok("allow"), told)
            })
        }
    }
}

async fn on_rules(mut access: AccessClient<Channel>, row: &Row, number: usize) -> Outcome {
    let (field, all_tenants) = (FROZEN.to_owned(), false);
    match row.action {
        "get_schema" => done(access.get_schema(v1::GetSchemaRequest {}).await),
        "get_policy" => done(access.get_policy(v1::GetPolicyRequest::default()).await),
        "explain_policy" => {
            let (role, action) = ("app".to_owned(), "status".to_owned());
            done(access.explain_policy(v1::ExplainPolicyRequest { role, action, ..Default::default() }).await)
        }
        "apply_policy" => {
            let source = format!("// {number}\n{POLICIES}");
            done(access.apply_policy(v1::ApplyPolicyRequest { source, ..Default::default() }).await)
        }
        "list_freezes" => done(access.list_freezes(v1::ListFreezesRequest {}).await),
        "list_approvals" => done(access.list_approvals(v1::ListApprovalsRequest {}).await),
        "freeze" => done(access.freeze(v1::FreezeRequest { field, reads: true, writes: false, all_tenants }).await),
        "unfreeze" => {
            done(access.unfreeze(v1::UnfreezeRequest { field, reads: true, writes: false, all_tenants }).await)
        }
        other => panic!("no way to ask for {other}"),
    }
}

/// A token of its own for each row that asks for one, as the service that stores everything got it.
async fn tokens(house: &House, rows: &[Row]) -> Vec<String> {
    let stored = |row: &&Row| matches!(row.action, "detokenize" | "match" | "lookup" | "replace" | "delete");
    let items = rows.iter().filter(stored).enumerate();
    let items = items.map(|(number, row)| item(row.field, example(row.field), &format!("s-{number}"))).collect();
    let stored_tokens = house.vault("lending", "core").await.tokenize(tokenize(items)).await.unwrap();
    let mut stored_tokens = stored_tokens.into_inner().tokens.into_iter();
    rows.iter().map(|row| if stored(&row) { stored_tokens.next().unwrap() } else { String::new() }).collect()
}

/// A connection as a row's caller.
async fn connect(house: &House, caller: &str) -> Channel {
    let parts: Vec<&str> = caller.split('/').collect();
    match parts[..] {
        ["system", "operator", _] => house.connect(&operator(house)).await,
        [tenant, "officer", "alice"] => house.connect(house.officer(tenant)).await,
        [tenant, role, name] => house.channel(tenant, role, name).await,
        _ => panic!("{caller}"),
    }
}

/// The lending schema without the field that is retired.
fn without_retired() -> String {
    let from = LENDING.find(&format!("[field.{RETIRED}]")).unwrap();
    let end = from + 1 + LENDING[from + 1..].find("\n[field.").unwrap();
    format!("{}{}", &LENDING[..from], &LENDING[end..])
}

#[tokio::test]
async fn the_server_decides_as_a_person_reads_the_policies() {
    let rows = rows();
    assert!(rows.len() >= 200, "{} rows", rows.len());
    let house = House::lending(&["lending", "savings"]).await;
    let tokens = tokens(&house, &rows).await;
    let request = v1::ApplySchemaRequest { source: without_retired(), dry_run: false };
    let mut officer = AccessClient::new(house.connect(house.officer("lending")).await);
    officer.apply_schema(request).await.unwrap();

    // One connection for each principal.
    let mut channels: HashMap<&str, Channel> = HashMap::new();
    let mut wrong = Vec::new();
    for (number, (row, token)) in rows.iter().zip(&tokens).enumerate() {
        let channel = match channels.get(row.caller) {
            Some(channel) => channel.clone(),
            None => {
                let channel = connect(&house, row.caller).await;
                channels.insert(row.caller, channel.clone());
                channel
            }
        };
        let outcome = ask(channel, Asked { row, token, number }).await;
        let outcome = outcome.map_or_else(|reason| reason, str::to_owned);
        if outcome != row.expect {
            wrong.push(format!("{row:?} is {outcome}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let allowed = rows.iter().filter(|row| row.expect == "allow").count();
    assert!(allowed * 4 > rows.len() && allowed * 4 < rows.len() * 3, "{allowed} of {} are allowed", rows.len());
}
