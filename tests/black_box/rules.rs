//! Schema and policy: what is refused, what changes at once, and what callers are told.

use strongroom_proto::v1;
use tokio::task::JoinSet;
use tonic::Code;

use crate::approvals::with_approval;
use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, refused, tokenize, value};

const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");
const POLICY: &str = include_str!("../../deploy/policies/default.cedar");
const ID_CARD: &str = "11010519491231002X";

async fn apply_schema(vault: &TestVault, source: &str, dry_run: bool) -> Result<(u32, u32), Told> {
    let request = v1::ApplySchemaRequest { source: source.to_owned(), dry_run };
    let applied = vault.access().await.apply_schema(request).await?.into_inner();
    Ok((applied.version, applied.fields))
}

async fn apply_policy(vault: &TestVault, source: &str, tests: &str, dry_run: bool) -> Result<(u32, u32), Told> {
    let request = v1::ApplyPolicyRequest { source: source.to_owned(), tests: tests.to_owned(), dry_run };
    let apply = async || vault.access().await.apply_policy(request.clone()).await;
    let applied = with_approval(vault, apply).await?.into_inner();
    Ok((applied.version, applied.cases))
}

/// The versions of schema and policy in force.
async fn in_force(vault: &TestVault) -> (u32, u32) {
    let mut access = vault.access().await;
    let schema = access.get_schema(v1::GetSchemaRequest {}).await.unwrap().into_inner();
    (schema.version, access.get_policy(v1::GetPolicyRequest::default()).await.unwrap().into_inner().version)
}

/// The lending schema without one field.
fn without(field: &str) -> String {
    let from = LENDING.find(&format!("[field.{field}]")).unwrap();
    let length = LENDING[from..].find("\n\n").unwrap();
    format!("{}{}", &LENDING[..from], &LENDING[from + length..])
}

/// The lending schema with other words in the declaration of one field.
fn changed(field: &str, from: &str, to: &str) -> String {
    let at = LENDING.find(&format!("[field.{field}]")).unwrap();
    let (before, rest) = LENDING.split_at(at);
    assert!(rest.find(from).unwrap() < rest.find("\n\n").unwrap(), "{field} has no {from}");
    format!("{before}{}", rest.replacen(from, to, 1))
}

/// The policies that ship, with other words.
fn policy(from: &str, to: &str) -> String {
    assert!(POLICY.contains(from), "{from}");
    POLICY.replace(from, to)
}

#[tokio::test]
async fn a_schema_that_would_strand_values_is_refused_with_line_and_rule() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.mobile", "13812345678", "cust-1").await;
    let line = 1 + LENDING.lines().position(|line| line == "[field.borrower.mobile]").unwrap();
    for (source, hint) in [
        (changed("borrower.mobile", "\"cn_mobile\"", "\"phone\""), "(permanent)"),
        (changed("borrower.mobile", "\"c2\"", "\"c1\""), "(permanent)"),
        (changed("borrower.mobile", "10y", "11y"), "(permanent)"),
        (changed("borrower.mobile", "retention", "token = \"digits\"\nretention"), "(permanent)"),
        (changed("borrower.mobile", "retention", "deterministic = \"tenant\"\nretention"), "(permanent)"),
        (changed("borrower.mobile", "number = 3", "number = 2"), "(number_taken)"),
        (changed("borrower.mobile", "\"kyc_review\"", "\"curiosity\""), "(purpose_unknown)"),
        (changed("borrower.mobile", "plain = \"plain\"", "whole = \"plain\""), "(plain)"),
        (changed("borrower.mobile", "\"cn_mobile\"", "\"mobile\""), "unknown variant"),
        (changed("borrower.mobile", "type", "kind"), "kind"),
    ] {
        for dry_run in [true, false] {
            let told = apply_schema(&vault, &source, dry_run).await.unwrap_err();
            assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "SOURCE_REFUSED"), "{told:?}");
            assert!(told.message.contains(hint), "{hint}: {}", told.message);
            let named: usize = told.message.strip_prefix("line ").unwrap().split(':').next().unwrap().parse().unwrap();
            assert!((line - 1..line + 8).contains(&named) || hint == "(number_taken)", "{hint}: {}", told.message);
        }
    }
    // Lookup can't be switched on for what is stored already.
    let told = apply_schema(&vault, &changed("borrower.name", "retention", "lookup = true\nretention"), false).await;
    assert!(told.unwrap_err().message.contains("(permanent)"));
    for nonsense in ["", "[field", "[field.a.b]\nnumber = 1", "\u{0}"] {
        let told = apply_schema(&vault, nonsense, false).await.unwrap_err();
        assert_eq!(told.reason, "SOURCE_REFUSED", "{nonsense:?}");
    }
    let told = apply_schema(&vault, &"#".repeat((1 << 20) + 1), false).await.unwrap_err();
    assert_eq!(told.violations, [("source".to_owned(), "too_long".to_owned())]);
    assert_eq!(in_force(&vault).await, (1, 1));
    assert_eq!(read_one(&vault, &token, "kyc_review", "last4").await.as_deref(), Ok("*******5678"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_changes_names_and_views_without_touching_values() {
    let mut vault = TestVault::start();
    let token = one_token(&vault, "borrower.mobile", "13812345678", "cust-1").await;
    let name = one_token(&vault, "borrower.name", "Ann", "cust-1").await;

    // A check changes nothing.
    let renamed = LENDING.replace("field.borrower.mobile", "field.borrower.cell");
    assert_eq!(apply_schema(&vault, &renamed, true).await.unwrap(), (2, 14));
    assert_eq!(in_force(&vault).await, (1, 1));
    one_token(&vault, "borrower.mobile", "13812345679", "cust-1").await;

    // A field has another name, and the same values.
    assert_eq!(apply_schema(&vault, &renamed, false).await.unwrap(), (2, 14));
    let results = vault.vault().await.detokenize(detokenize(&[&token], "kyc_review", "plain")).await.unwrap();
    let result = results.into_inner().results.remove(0);
    assert_eq!((result.field.as_str(), value(result.clone()).unwrap()), ("borrower.cell", b"13812345678".to_vec()));
    let told = refused(vault.vault().await.tokenize(tokenize(vec![item("borrower.mobile", "13812345678", "")])).await);
    assert_eq!(told.reason, "FIELD_UNKNOWN");

    // A field that is gone shows nothing, and its number is nobody else's.
    assert_eq!(apply_schema(&vault, &without("borrower.mobile"), false).await.unwrap(), (3, 13));
    assert_eq!(read_one(&vault, &token, "kyc_review", "masked").await.unwrap_err().code, Code::NotFound);
    let other = without("borrower.mobile")
        + "\n[field.borrower.fax]\nnumber = 3\ntype = \"cn_mobile\"\nclass = \"c2\"\nretention = \"10y\"\npurposes = [\"kyc_review\"]\n";
    let told = apply_schema(&vault, &other, false).await.unwrap_err();
    assert!(told.message.contains("(number_retired)"), "{}", told.message);
    assert_eq!(read_one(&vault, &name, "kyc_review", "plain").await.as_deref(), Ok("Ann"));

    // It may come back as what it was, under the name that it had last; here also after a restart.
    vault.kill();
    vault.up();
    assert_eq!(in_force(&vault).await, (3, 1));
    assert_eq!(apply_schema(&vault, &renamed, false).await.unwrap(), (4, 14));
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.as_deref(), Ok("13812345678"));

    // A view that is withdrawn is gone at once, a purpose too.
    let narrower =
        renamed.replace("views = { last4 = { last = 4 }, plain = \"plain\" }", "views = { last4 = { last = 4 } }");
    assert_ne!(narrower, renamed);
    apply_schema(&vault, &narrower, false).await.unwrap();
    let told = read_one(&vault, &token, "kyc_review", "plain").await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "VIEW_UNKNOWN"));
    assert!(told.message.ends_with("you may ask for: last4, masked"), "{}", told.message);
    vault.verify_ledger();
}

#[tokio::test]
async fn a_policy_that_does_not_hold_is_refused_with_its_line_and_the_old_one_stays() {
    let vault = TestVault::start();
    let line_of = |text: &str| 1 + POLICY.lines().position(|line| line.contains(text)).unwrap();
    for (source, line, hint) in [
        (
            policy(
                "action in [Action::\"export_ledger\", Action::\"get_checkpoint\"",
                "action in [Action::\"steal\", Action::\"get_checkpoint\"",
            ),
            line_of("action in [Action::\"export_ledger\", Action::\"get_checkpoint\""),
            "steal",
        ),
        (
            policy("resource.class == Class::\"c3\"", "resource.class == Class::\"c4\""),
            line_of("Class::\"c3\" ||"),
            "c4",
        ),
        (policy("@id(\"app-find\")", "@id(\"app-change\")"), line_of("@id(\"app-change\")"), "app-change"),
        (policy("@id(\"app-find\")\n", ""), line_of("@id(\"app-find\")"), "@id"),
        (
            policy("unless { context has purpose };", "unless { context has };"),
            line_of("unless { context has purpose };"),
            "",
        ),
    ] {
        for dry_run in [true, false] {
            let told = apply_policy(&vault, &source, "", dry_run).await.unwrap_err();
            assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "SOURCE_REFUSED"), "{told:?}");
            assert!(told.message.contains(hint), "{hint}: {}", told.message);
            let named: usize = told.message.strip_prefix("line ").unwrap().split(':').next().unwrap().parse().unwrap();
            assert!(named.abs_diff(line) <= 3, "line {line} was meant: {}", told.message);
        }
    }
    // Nobody locks the door behind them.
    let officers_only = "@id(\"all\") permit (principal in Role::\"app\", action, resource);";
    for source in ["", officers_only] {
        let told = apply_policy(&vault, source, "", false).await.unwrap_err();
        assert!(told.message.contains("could not apply any policy again"), "{}", told.message);
    }
    // A table of cases is part of the question.
    let cases = include_str!("../../deploy/policies/default.tests.toml");
    let wider = policy("\"masked\", \"last4\", \"bin\"", "\"masked\", \"last4\", \"plain\", \"bin\"");
    let told = apply_policy(&vault, &wider, cases, false).await.unwrap_err();
    assert!(told.message.contains("case ") && told.message.contains("expected deny"), "{}", told.message);
    assert_eq!(in_force(&vault).await, (1, 1));
    let (version, count) = apply_policy(&vault, POLICY, cases, true).await.unwrap();
    assert!(version == 2 && count > 80, "{version} {count}");
    assert_eq!(in_force(&vault).await, (1, 1));
    assert_eq!(apply_policy(&vault, POLICY, cases, false).await.unwrap(), (2, count));
    assert_eq!(in_force(&vault).await, (1, 2));
}

#[tokio::test]
async fn a_permission_that_is_withdrawn_is_gone_at_once_and_comes_back_at_once() {
    let mut vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let narrower = policy(
        "[\"loan_origination\", \"loan_servicing\", \"kyc_review\", \"collections\"].contains(context.purpose)",
        "context.purpose == \"loan_origination\"",
    );
    let mut reader = vault.vault().await;
    for round in 0..5 {
        let read = reader.detokenize(detokenize(&[&token], "kyc_review", "plain")).await.unwrap().into_inner();
        assert!(value(read.results.into_iter().next().unwrap()).is_ok());
        // A check changes nothing.
        apply_policy(&vault, &narrower, "", true).await.unwrap();
        let read = reader.detokenize(detokenize(&[&token], "kyc_review", "plain")).await.unwrap().into_inner();
        assert!(value(read.results.into_iter().next().unwrap()).is_ok());
        assert_eq!(apply_policy(&vault, &narrower, "", false).await.unwrap().0, 2 + 2 * round);
        // On a connection that is open already, without a moment's delay.
        let read = reader.detokenize(detokenize(&[&token], "kyc_review", "plain")).await.unwrap().into_inner();
        let told = value(read.results.into_iter().next().unwrap()).unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "VIEW_NOT_ALLOWED"));
        assert!(told.message.ends_with("you may ask for: birth_year, last4, masked"), "{}", told.message);
        let read = reader.detokenize(detokenize(&[&token], "loan_origination", "plain")).await.unwrap().into_inner();
        assert!(value(read.results.into_iter().next().unwrap()).is_ok());
        apply_policy(&vault, POLICY, "", false).await.unwrap();
    }
    // It is the policy that is in force after a crash.
    apply_policy(&vault, &narrower, "", false).await.unwrap();
    vault.kill();
    vault.up();
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap_err().reason, "VIEW_NOT_ALLOWED");
    assert_eq!(in_force(&vault).await, (1, 12));
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_does_not_outlive_the_permission_that_it_began_with() {
    let vault = TestVault::start();
    // More pages, of 256 leaves and some 700 KB each, than wait between the vault and its reader.
    let client = vault.vault().await;
    for _ in 0..30 {
        let mut at_once = JoinSet::new();
        for round in 0..60 {
            let items = (0..20).map(|number| item("borrower.name", &format!("{round} {number}"), "")).collect();
            let mut client = client.clone();
            at_once.spawn(async move { client.tokenize(tokenize(items)).await.unwrap() });
        }
        at_once.join_all().await;
    }
    let mut client = vault.audit_in_a_small_window().await;
    let mut stream = client.export(v1::ExportRequest::default()).await.unwrap().into_inner();
    assert!(!stream.message().await.unwrap().unwrap().leaves.is_empty());
    let nobody =
        "@id(\"nobody-exports\") @why(\"A test.\")\nforbid (principal, action == Action::\"export_ledger\", resource);";
    apply_policy(&vault, &format!("{POLICY}\n{nobody}\n"), "", false).await.unwrap();
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("all of it was sent"),
            Err(error) => break error,
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn who_may_see_something_is_told_what_and_who_may_see_nothing_is_not_told_that_it_exists() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let ask = async |principal: &str, token: &str, purpose: &str, view: &str| -> Result<Vec<u8>, Told> {
        let request = detokenize(&[token], purpose, view);
        value(vault.vault_as(principal).await.detokenize(request).await.unwrap().into_inner().results.remove(0))
    };
    let unknown = ask("app", "srt1_0000000000000000000000", "kyc_review", "masked").await.unwrap_err();
    assert_eq!((unknown.code, unknown.reason.as_str()), (Code::NotFound, "NOT_FOUND"));

    assert!(ask("privacy", &token, "kyc_review", "").await.is_ok());
    let told = ask("privacy", &token, "kyc_review", "plain").await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "VIEW_NOT_ALLOWED"));
    assert!(told.message.ends_with("you may ask for: masked"), "{}", told.message);
    let told = ask("privacy", &token, "kyc_review", "whole").await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "VIEW_UNKNOWN"));
    assert!(told.message.ends_with("you may ask for: masked"), "{}", told.message);
    let told = ask("app", &token, "marketing", "masked").await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "PURPOSE_NOT_ALLOWED"));
    assert!(told.message.contains("kyc_review") && !told.message.contains("marketing"), "{}", told.message);
    // A purpose that rests on consent, and nobody has given any.
    let mobile = one_token(&vault, "borrower.mobile", "13812345678", "cust-1").await;
    let told = ask("app", &mobile, "marketing", "masked").await.unwrap_err();
    assert_eq!(told.code, Code::PermissionDenied, "{told:?}");

    for nobody in ["auditor", "officer-1", "rotator"] {
        for view in ["", "plain", "whole"] {
            assert_eq!(ask(nobody, &token, "kyc_review", view).await.as_ref(), Err(&unknown), "{nobody} {view:?}");
        }
        let mut client = vault.vault_as(nobody).await;
        let item = v1::MatchItem { token: token.clone(), value: ID_CARD.into(), subject: String::new() };
        let request = v1::MatchRequest { items: vec![item], purpose: "kyc_review".to_owned() };
        let result = client.r#match(request).await.unwrap().into_inner().results.remove(0);
        let Some(v1::match_result::Result::Problem(problem)) = result.result else { panic!("{nobody} may match") };
        assert_eq!(Told::from(problem), unknown);
        let item = v1::DeleteItem { token: token.clone(), subject: String::new() };
        let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
        let result = client.delete(request).await.unwrap().into_inner().results.remove(0);
        assert_eq!(Told::from(result.problem.unwrap()), unknown);
        // What a field is called is no secret, so storing and looking up are denied in so many words.
        let told = refused(client.tokenize(tokenize(vec![crate::harness::item("borrower.name", "Ann", "")])).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
    }
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.as_deref(), Ok(ID_CARD));
    // The ledger knows the true reason.
    let leaves = vault.leaves().await;
    let outcomes: Vec<_> = leaves
        .iter()
        .filter(|leaf| leaf["principal"] == "auditor/auditor" && leaf["action"] == "detokenize")
        .map(|leaf| (leaf["decision"].as_str().unwrap(), leaf["items"][0]["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(outcomes, [("deny", "DENIED"); 3]);
}

#[tokio::test]
async fn an_explanation_says_what_a_request_would_meet() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let explain = async |role: &str, action: &str, field: &str, view: &str, purpose: &str| {
        let request = v1::ExplainPolicyRequest {
            role: role.to_owned(),
            name: String::new(),
            action: action.to_owned(),
            field: field.to_owned(),
            view: view.to_owned(),
            purpose: purpose.to_owned(),
            ..Default::default()
        };
        vault.access().await.explain_policy(request).await.unwrap().into_inner()
    };
    // The same question, asked and done. The second field does not list all purposes.
    let email = one_token(&vault, "borrower.email", "a@example.com", "cust-1").await;
    let principals = [("app", "app"), ("privacy", "privacy"), ("auditor", "auditor"), ("officer", "officer-1")];
    let fields = [
        ("borrower.id_card", &token, &["masked", "last4", "plain"][..]),
        ("borrower.email", &email, &["masked", "plain"]),
    ];
    for (role, principal) in principals {
        let mut client = vault.vault_as(principal).await;
        for (field, token, views) in fields {
            for purpose in ["loan_origination", "kyc_review", "collections", "marketing"] {
                for view in views {
                    let answer = explain(role, "detokenize", field, view, purpose).await;
                    let results =
                        client.detokenize(detokenize(&[token], purpose, view)).await.unwrap().into_inner().results;
                    let is_read = value(results.into_iter().next().unwrap()).is_ok();
                    let question = format!("{role} {field} {view} {purpose}: {}", answer.explanation);
                    assert_eq!(answer.allowed, is_read, "{question}");
                    assert_eq!(answer.allowed_views.iter().any(|allowed| allowed == view), is_read, "{question}");
                    assert!(!answer.explanation.is_empty() && answer.problem.is_none(), "{question}");
                }
            }
        }
    }
    let answer = explain("app", "detokenize", "borrower.id_card", "plain", "kyc_review").await;
    assert_eq!(answer.policies, ["app-plain-view"]);
    assert!(
        answer.explanation.contains("Services see whole values for the purposes of lending."),
        "{}",
        answer.explanation
    );
    assert_eq!(answer.allowed_purposes, ["loan_origination", "loan_servicing", "kyc_review", "collections"]);
    let answer = explain("app", "detokenize", "borrower.mobile", "masked", "marketing").await;
    assert_eq!((answer.allowed, answer.policies), (false, vec!["forbid-without-consent".to_owned()]));
    assert!(explain("app", "tokenize", "borrower.id_card", "", "").await.allowed);
    assert!(!explain("app", "import_token", "borrower.id_card", "", "").await.allowed);
    assert!(explain("auditor", "export_ledger", "", "", "").await.allowed);
    for (role, action, field, rule) in [
        ("king", "status", "", "role_unknown"),
        ("app", "steal", "", "action_unknown"),
        ("app", "tokenize", "borrower.nickname", "field_unknown"),
    ] {
        let problem = Told::from(explain(role, action, field, "", "").await.problem.unwrap());
        assert_eq!(problem.violations[0].1, rule);
    }
    // Who may not ask is not answered.
    let mut app = vault.access_as("app").await;
    assert_eq!(refused(app.explain_policy(v1::ExplainPolicyRequest::default()).await).reason, "DENIED");
    assert_eq!(refused(app.get_policy(v1::GetPolicyRequest::default()).await).reason, "DENIED");
    let apply = v1::ApplyPolicyRequest { source: POLICY.to_owned(), tests: String::new(), dry_run: true };
    assert_eq!(refused(app.apply_policy(apply).await).code, Code::PermissionDenied);
}
