//! The records of processing: who may, by the policies in force; who did, by the ledger; and how much there is.

use super::*;
use crate::{Exporter, ProcessingRecords, ProcessingReport, Suspend};

async fn drawn(vault: &Tested) -> ProcessingRecords {
    vault.processing_report(&caller(Role::Auditor), &ProcessingReport::default()).await.unwrap()
}

/// Who may read a field for a purpose, in which views, and whether it may compare.
fn may<'r>(records: &'r ProcessingRecords, field: &str, purpose: &str) -> Vec<(&'r str, Vec<&'r str>, bool)> {
    let field = records.fields.iter().find(|one| &*one.field.name == field).unwrap();
    let of = field.recipients.iter().filter(|one| &*one.purpose == purpose);
    of.map(|one| (&*one.principal, one.views.iter().map(|view| &**view).collect(), one.matches)).collect()
}

#[tokio::test]
async fn volumes_are_counted_as_they_are() {
    let (bench, vault) = Bench::new().await;
    let ends = bench.now.load(Ordering::Relaxed) + 60_000_000;
    let ending = NewValue { expires: Some(ends), ..new_value("borrower.name", "Old Ann", "c-1") };
    let mut items: Vec<NewValue> =
        (0..300).map(|number| new_value("borrower.name", &format!("Ann {number}"), "c-1")).collect();
    items.extend([ending, new_value("company.uscc", "91350100M000100Y43", "c-1")]);
    items.extend([new_value("company.uscc", "91350100M000100Y43", "c-2"), new_value("company.name", "Nobody's", "")]);
    vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap();
    bench.pass(3_600);
    let records = drawn(&vault).await;
    assert_eq!((records.values, records.subjects, records.values_without_subject), (303, 2, 1));
    let of = |name: &str| {
        let field = records.fields.iter().find(|one| &*one.field.name == name).unwrap();
        (field.values, field.ended)
    };
    assert_eq!((of("borrower.name"), of("company.uscc"), of("borrower.mobile")), ((301, 1), (1, 0), (0, 0)));
    assert_eq!(records.fields.len(), 14);
    assert_eq!(records.schema_version, 1);
    let leaf = leaves(&vault).await.into_iter().find(|leaf| leaf["action"] == "processing_report").unwrap();
    assert_eq!(leaf["index"], records.ledger_size.to_string());
}

#[tokio::test]
async fn recipients_are_roles_and_those_who_are_allowed_something_else() {
    let (_bench, vault) = Bench::new().await;
    let records = drawn(&vault).await;
    let card = may(&records, "borrower.id_card", "kyc_review");
    let app = ("app", vec!["birth_year", "last4", "masked", "plain"], true);
    assert_eq!(card, [app.clone(), ("privacy", vec!["masked"], true)]);
    let marketing = may(&records, "borrower.mobile", "marketing");
    assert_eq!(marketing, [("app", vec!["last4", "masked"], false), ("privacy", vec!["masked"], true)]);
    assert!(may(&records, "borrower.id_card", "marketing").is_empty(), "the field does not list it");
    // Never shown, and compared.
    let secret = may(&records, "borrower.password_hash", "loan_servicing");
    assert_eq!(secret, [("app", vec![], true), ("privacy", vec![], true)]);
    let more = r#"
        @id("eve") @why("One auditor sees names in part.")
        permit (principal == Principal::"auditor/eve", action == Action::"detokenize", resource == Field::"borrower.name")
        when { context has view && context.view == "masked" };
        @id("narrow") @why("One service sees nothing whole.")
        forbid (principal in Role::"app", action == Action::"detokenize", resource)
        when { principal.name == "narrow" && context has view && context.view == "plain" };
    "#;
    put_in_force(&vault, &caller(Role::Officer), format!("{DEFAULT_POLICIES}\n{more}")).await;
    let suspend = Suspend { principal: "app/away".to_owned(), reason: "a test".to_owned() };
    vault.suspend(&caller(Role::Officer), &suspend).await.unwrap();
    let names = may(&drawn(&vault).await, "borrower.name", "kyc_review")
        .into_iter()
        .map(|(who, views, matches)| (who.to_owned(), views.join(" "), matches))
        .collect::<Vec<_>>();
    let expected = [
        ("app", "masked plain", true),
        ("privacy", "masked", true),
        ("app/away", "", false),
        ("app/narrow", "masked", true),
        ("auditor/eve", "masked", false),
    ];
    assert_eq!(names, expected.map(|(who, views, matches)| (who.to_owned(), views.to_owned(), matches)));
}

#[tokio::test]
async fn reads_are_counted_by_field_principal_and_purpose_within_a_time() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    read_one(&vault, &token, "plain").await.unwrap();
    bench.pass(3_600);
    let from = bench.now.load(Ordering::Relaxed);
    for _ in 0..2 {
        read_one(&vault, &token, "masked").await.unwrap();
    }
    let other = Detokenize { purpose: "loan_servicing".to_owned(), ..read(&token, "masked") };
    vault.detokenize(&caller(Role::Privacy), &other).await.unwrap().remove(0).map(drop).unwrap();
    drop(vault.detokenize(&caller(Role::Auditor), &read(&token, "plain")).await);
    let counts = |records: ProcessingRecords| {
        let of = records.fields.into_iter().find(|one| &*one.field.name == "borrower.id_card").unwrap();
        of.reads.into_iter().map(|one| (one.principal, one.purpose, one.values)).collect::<Vec<_>>()
    };
    let told = |principal: &str, purpose: &str, values| (principal.to_owned(), purpose.to_owned(), values);
    let privacy = told("privacy/tester", "loan_servicing", 1);
    assert_eq!(counts(drawn(&vault).await), [told("app/tester", "kyc_review", 3), privacy.clone()]);
    let since = ProcessingReport { from: Some(from), to: None };
    let records = vault.processing_report(&caller(Role::Officer), &since).await.unwrap();
    assert!(!records.more_reads && !records.more_recipients);
    assert_eq!(counts(records), [told("app/tester", "kyc_review", 2), privacy]);
    let before = ProcessingReport { from: None, to: Some(from) };
    let records = vault.processing_report(&caller(Role::Privacy), &before).await.unwrap();
    assert_eq!(counts(records), [told("app/tester", "kyc_review", 1)]);
    assert!(matches!(
        vault.processing_report(&caller(Role::App), &ProcessingReport::default()).await,
        Err(Error::Denied { .. })
    ));
}

#[tokio::test]
async fn reads_of_a_field_that_was_renamed_are_listed_under_its_earlier_name() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    read_one(&vault, &token, "masked").await.unwrap();
    let source = LENDING.replace("field.borrower.id_card", "field.borrower.card");
    vault.apply_schema(&caller(Role::Officer), &ApplySchema { source, dry_run: false }).await.unwrap();
    for _ in 0..2 {
        read_one(&vault, &token, "masked").await.unwrap();
    }
    let records = drawn(&vault).await;
    let now = records.fields.iter().find(|one| &*one.field.name == "borrower.card").unwrap();
    assert_eq!(now.reads.iter().map(|one| one.values).collect::<Vec<_>>(), [2]);
    let earlier = records.earlier_reads.iter().map(|one| (one.field.as_str(), one.reads[0].values));
    assert_eq!(earlier.collect::<Vec<_>>(), [("borrower.id_card", 1)]);
}

#[tokio::test]
async fn who_looks_for_what_is_not_there_has_read_nothing() {
    let (_bench, vault) = Bench::new().await;
    store_one(&vault, "company.uscc", "91350100M000100Y43", "c-1").await;
    assert!(look_up(&vault, "company.uscc", "91110000600037341L", "kyc_review").await.tokens.is_empty());
    let reads = async || {
        let records = drawn(&vault).await;
        records.fields.into_iter().flat_map(|one| one.reads).map(|one| one.values).collect::<Vec<_>>()
    };
    assert!(reads().await.is_empty());
    assert_eq!(look_up(&vault, "company.uscc", "91350100M000100Y43", "kyc_review").await.tokens.len(), 1);
    assert_eq!(reads().await, [1]);
}

#[tokio::test]
async fn who_may_look_up_and_who_may_export_stands_there() {
    let (_bench, vault) = Bench::new().await;
    let more = r#"
        @id("no-lookup") @why("One service looks up nothing.")
        forbid (principal == Principal::"app/blind", action == Action::"lookup", resource);
        @id("no-export") @why("One of the desk exports nothing.")
        forbid (principal == Principal::"privacy/new", action == Action::"export_subject", resource);
    "#;
    put_in_force(&vault, &caller(Role::Officer), format!("{DEFAULT_POLICIES}\n{more}")).await;
    let records = drawn(&vault).await;
    let of = |name: &str| {
        let field = records.fields.iter().find(|one| &*one.field.name == name).unwrap();
        let of = field.recipients.iter().filter(|one| &*one.purpose == "kyc_review");
        of.map(|one| (one.principal.as_str(), one.lookups)).collect::<Vec<_>>()
    };
    assert_eq!(of("borrower.id_card"), [("app", true), ("privacy", true), ("app/blind", false)]);
    assert_eq!(of("borrower.address"), [("app", false), ("privacy", false)], "it is declared without lookup");
    let exporter = |principal: &str, allowed| Exporter { principal: principal.to_owned(), allowed };
    assert_eq!(records.exporters, [exporter("privacy", true), exporter("privacy/new", false)]);
}
