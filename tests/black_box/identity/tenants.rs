//! The wall between tenants: what one stores, no other finds, reads, changes or sees recorded.

use strongroom_proto::v1;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::system_client::SystemClient;
use tonic::Code;

use super::ID_CARD;
use crate::approvals::{approve, waiting};
use crate::harness::{Told, detokenize, item, tokenize, value};
use crate::house::{House, TRUST_DOMAIN};

const CARD: &str = "4111111111111111";
const USCC: &str = "91350100M000100Y43";

/// All that one tenant can try with tokens: what it was told, in the order of the calls.
async fn tries(house: &House, tenant: &str, tokens: &[String]) -> Vec<Told> {
    let mut client = house.vault(tenant, "core").await;
    let mut told = Vec::new();
    for token in tokens {
        let read = client.detokenize(detokenize(&[token], "loan_servicing", "plain")).await.unwrap().into_inner();
        told.extend(read.results.into_iter().map(|result| value(result).unwrap_err()));
        let asked = v1::MatchItem { token: token.clone(), value: ID_CARD.into(), subject: "cust-1".to_owned() };
        let request = v1::MatchRequest { items: vec![asked], purpose: "loan_servicing".to_owned() };
        for result in client.r#match(request).await.unwrap().into_inner().results {
            let Some(v1::match_result::Result::Problem(problem)) = result.result else { panic!("it was compared") };
            told.push(problem.into());
        }
        let changed = v1::ReplaceItem { token: token.clone(), value: ID_CARD.into(), expire_time: None };
        let request = v1::ReplaceRequest { items: vec![changed], idempotency_key: String::new() };
        let Err(status) = client.replace(request).await else { panic!("it was replaced") };
        told.push(status.into());
        for subject in ["", "cust-1"] {
            let gone = v1::DeleteItem { token: token.clone(), subject: subject.to_owned() };
            let request = v1::DeleteRequest { items: vec![gone], idempotency_key: String::new() };
            let results = client.delete(request).await.unwrap().into_inner().results;
            told.extend(results.into_iter().map(|result| Told::from(result.problem.expect("it was deleted"))));
        }
    }
    told
}

#[tokio::test]
async fn another_tenants_tokens_answer_like_tokens_that_nobody_made() {
    let house = House::lending(&["lending", "savings"]).await;
    let request = || v1::TokenizeRequest {
        items: vec![
            item("borrower.id_card", ID_CARD, "cust-1"),
            item("borrower.bank_card", CARD, "cust-1"),
            item("company.uscc", USCC, "cust-1"),
            item("borrower.email", "li@bank.example", ""),
        ],
        idempotency_key: "the same key".to_owned(),
    };
    let mut lending = house.vault("lending", "core").await;
    let mut savings = house.vault("savings", "core").await;
    let theirs = lending.tokenize(request()).await.unwrap().into_inner().tokens;
    let find = |field: &str, text: &str| v1::LookupRequest {
        items: vec![v1::LookupItem { field: field.to_owned(), value: text.to_owned().into() }],
        purpose: "loan_servicing".to_owned(),
    };
    for (field, text) in [("borrower.id_card", ID_CARD), ("company.uscc", USCC)] {
        let found = savings.lookup(find(field, text)).await.unwrap().into_inner().results.remove(0);
        assert!(found.problem.is_none() && found.tokens.is_empty(), "{field}");
    }
    let told = tries(&house, "savings", &theirs).await;
    let never: Vec<String> = [
        format!("srt1_{}", "0".repeat(22)),
        "4111110000001111".into(),
        "srt1_".to_owned() + &"1".repeat(22),
        "x@token.invalid".into(),
    ]
    .into();
    assert_eq!(told, tries(&house, "savings", &never).await);
    assert!(told.iter().all(|told| told.code == Code::NotFound), "{told:?}");

    // The same values, subjects and keys are others here.
    let own = savings.tokenize(request()).await.unwrap().into_inner().tokens;
    assert!(own.iter().all(|token| !theirs.contains(token)));
    assert!(tries(&house, "lending", &own).await.iter().all(|told| told.code == Code::NotFound));
    for (client, tokens) in [(&mut lending, &theirs), (&mut savings, &own)] {
        let tokens: Vec<&str> = tokens[..3].iter().map(String::as_str).collect();
        let read = client.detokenize(detokenize(&tokens, "loan_servicing", "plain")).await.unwrap().into_inner();
        let values: Vec<_> = read.results.into_iter().map(|result| value(result).unwrap()).collect();
        assert_eq!(values, [ID_CARD.as_bytes(), CARD.as_bytes(), USCC.as_bytes()]);
        let found = client.lookup(find("company.uscc", USCC)).await.unwrap().into_inner().results.remove(0);
        assert_eq!(found.tokens, tokens[2..]);
    }
}

#[tokio::test]
async fn each_tenant_has_rules_and_a_ledger_of_its_own() {
    let house = House::lending(&["lending", "savings"]).await;
    let source = "[purpose.audit]\ndescription = \"-\"\n".to_owned();
    let channel = house.connect(house.officer("savings")).await;
    let mut officer = v1::access_client::AccessClient::new(channel);
    let refused = officer.apply_schema(v1::ApplySchemaRequest { source: "nonsense".into(), dry_run: false }).await;
    assert_eq!(Told::from(refused.err().unwrap()).reason, "SOURCE_REFUSED");
    drop(officer.apply_schema(v1::ApplySchemaRequest { source, dry_run: true }).await);
    let policy = "@id(\"nothing\") @why(\"Closed.\") forbid (principal, action == Action::\"tokenize\", resource);";
    let closed = include_str!("../../../deploy/policies/default.cedar").to_owned() + policy;
    let request = v1::ApplyPolicyRequest { source: closed, tests: String::new(), dry_run: false };
    let told = crate::harness::refused(officer.apply_policy(request.clone()).await);
    let bob = house.second("savings");
    let mut second = v1::access_client::AccessClient::new(house.connect(bob).await);
    approve(&mut second, ("officer/bob", &bob.key), &waiting(&told)).await.unwrap();
    officer.apply_policy(request).await.unwrap();

    let stores = |tenant| {
        let house = &house;
        async move { house.vault(tenant, "core").await.tokenize(tokenize(vec![item("borrower.name", "Li", "")])).await }
    };
    assert!(stores("lending").await.is_ok());
    assert_eq!(Told::from(stores("savings").await.err().unwrap()).code, Code::PermissionDenied);
    assert_eq!((house.status("lending").await.policy_version, house.status("savings").await.policy_version), (1, 2));

    let (lending, savings) = (house.ledger("lending").await, house.ledger("savings").await);
    assert!(savings.iter().any(|leaf| leaf.contains("apply_policy")));
    assert!(!lending.iter().any(|leaf| leaf.contains("apply_policy")));
    assert!(lending[0].contains("\"tenant\":\"lending\"") && !lending[0].contains("savings"), "{}", lending[0]);
    for tenant in ["lending", "savings"] {
        let mut auditor = AuditClient::new(house.channel(tenant, "auditor", "eve").await);
        let mut elsewhere = ["system", "lending", "savings", "1", "2"].to_vec();
        elsewhere.retain(|log| *log != tenant);
        for log in elsewhere {
            let request = v1::ExportRequest { log: log.to_owned(), ..Default::default() };
            let Err(refused) = auditor.export(request).await else { panic!("{tenant} opened {log}") };
            assert!([Code::PermissionDenied, Code::InvalidArgument].contains(&refused.code()), "{tenant} {log}");
            let request = v1::GetCheckpointRequest { log: log.to_owned(), ..Default::default() };
            assert!(auditor.get_checkpoint(request).await.is_err(), "{tenant} {log}");
        }
    }
    // A tenant can't make operators of the vault: only the vault's own name leads there.
    let operator = |path: &str| house.authority.client(&[&format!("spiffe://{TRUST_DOMAIN}/{path}")]);
    let status =
        async |path: &str| SystemClient::new(house.connect(&operator(path)).await).status(v1::StatusRequest {}).await;
    assert_eq!(Told::from(status("tenant/lending/operator/mallory").await.err().unwrap()).reason, "DENIED");
    assert_eq!(status("system/operator/olga").await.unwrap().into_inner().tenant, "system");
    // Nor may anybody but operators come in as the vault itself.
    for path in ["tenant/system/app/core", "tenant/system/operator/mallory", "tenant/system/auditor/eve"] {
        let told = Told::from(status(path).await.err().unwrap());
        assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "TENANT_UNKNOWN"), "{path}");
    }
}
