//! What a data subject is told: its values, and what is held of it, why, and who read it.

use strongroom_ledger::filter::Filter;
use strongroom_storage::rows::{Consent, Erasure, Hold, Scope, SubjectRecord, SubjectState};
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::*;
use crate::processing::read_actions;
use crate::{
    ClassLimits, ExportSubject, ExportedValue, Freeze, Rate, SetTier, SetTierLimits, SubjectRead, SubjectReport,
    TierLimits,
};

const TENANT: TenantNo = TenantNo(1);
const USCC: &str = "91350100M000100Y43";
const SECRET: &str = "$argon2id$v=19$m=64$c2FsdHNhbHQ$kFa9";
/// A second factor is the policies' business, and tested where there is one.
const WITHOUT_FACTOR: &str = r#"
@id("without-factor") @why("Tests have no authenticator app.")
permit (principal in Role::"privacy", action in [Action::"subject_report", Action::"export_subject"], resource);
"#;

/// A vault in which the privacy desk needs no second factor.
async fn opened() -> (Bench, Arc<Tested>) {
    let (bench, vault) = Bench::new().await;
    put_in_force(&vault, &caller(Role::Officer), format!("{DEFAULT_POLICIES}\n{WITHOUT_FACTOR}")).await;
    (bench, vault)
}

fn of(subject: &str) -> ExportSubject {
    ExportSubject { subject: subject.to_owned(), purpose: "subject_access".to_owned() }
}

/// All values of a subject, and in how many pages they came.
async fn exported(vault: &Tested, subject: &str) -> Result<(Vec<ExportedValue>, usize), Error> {
    let (mut values, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = vault.export_subject(&caller(Role::Privacy), &of(subject), after).await?;
        values.extend(page.values);
        pages += 1;
        after = page.next;
        if after.is_none() {
            return Ok((values, pages));
        }
    }
}

/// Field, view and what is shown.
fn shown(value: &ExportedValue) -> (&str, &str, &[u8]) {
    let (view, bytes) = value.shown.as_ref().map_or(("", &[][..]), |(view, bytes)| (&**view, bytes.as_bytes()));
    (&value.field, view, bytes)
}

fn report_of(subject: &str) -> SubjectReport {
    SubjectReport { subject: subject.to_owned(), from: None, to: None }
}

/// The subjects' records, in the order of their handles.
async fn records(bench: &Bench) -> Vec<SubjectRecord> {
    let from = TENANT.0.to_be_bytes().to_vec();
    let range = Range { to: place::prefix_end(&from), from, limit: usize::MAX };
    let page = bench.disk.scan(Family::Subjects, range).await.unwrap();
    page.iter().map(|(_, record)| SubjectRecord::decode(record).unwrap()).collect()
}

async fn put(bench: &Bench, record: &SubjectRecord) {
    let at = place::subject(TENANT, record.handle);
    bench.disk.write(vec![Mutation::Put(Family::Subjects, at, record.encode())]).await.unwrap();
}

/// Has the id of the first subject lead to all of them.
async fn merge(bench: &Bench) {
    let records = records(bench).await;
    let handles: Vec<_> = records.iter().map(|record| record.handle).collect();
    let index = &records[0].id_index;
    let at = place::subject_id(TENANT, index.version, &index.mac);
    let entry = Mutation::Put(Family::Index, at, place::encode_handles(&handles));
    bench.disk.write(vec![entry]).await.unwrap();
}

/// The leaves of an action.
async fn leaves_of(vault: &Tested, action: &str) -> Vec<serde_json::Value> {
    leaves(vault).await.into_iter().filter(|leaf| leaf["action"] == action).collect()
}

#[tokio::test]
async fn an_export_tells_all_that_may_be_shown_and_says_what_is_not() {
    let (bench, vault) = opened().await;
    let ends = bench.now.load(Ordering::Relaxed) + 60_000_000;
    let ending = NewValue { expires: Some(ends), ..new_value("borrower.email", "ann@mail.example", "c-1") };
    let items = vec![
        new_value("borrower.name", "<script>alert(1)</script> שלום 😀", "c-1"),
        new_value("borrower.password_hash", SECRET, "c-1"),
        new_value("company.uscc", USCC, "c-1"),
        ending,
        new_value("borrower.name", "Somebody Else", "c-2"),
        new_value("company.uscc", USCC, "c-2"),
    ];
    let tokens = vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap();
    bench.pass(3_600);
    let (values, pages) = exported(&vault, "c-1").await.unwrap();
    let told: Vec<_> = values.iter().map(shown).collect();
    let name = "<script>alert(1)</script> שלום 😀";
    assert_eq!(
        told,
        [
            ("borrower.name", "plain", name.as_bytes()),
            ("borrower.password_hash", "", &[][..]),
            ("company.uscc", "plain", USCC.as_bytes()),
        ],
        "the email has ended"
    );
    let withheld: Vec<&str> = values.iter().map(|value| value.withheld).collect();
    assert_eq!((pages, withheld), (1, vec!["", "class_c3", ""]));
    let own: Vec<&str> = values.iter().map(|value| value.token.as_str()).collect();
    assert_eq!(own, tokens[..3].iter().map(String::as_str).collect::<Vec<_>>());
    assert!(values.iter().all(|value| value.stored < ends && value.expires.is_some_and(|at| at > ends)));
    // The leaf names what a read's does, and no value.
    let leaf = leaves_of(&vault, "export_subject").await.remove(0);
    assert_eq!((&leaf["purpose"], &leaf["decision"]), (&"subject_access".into(), &"allow".into()));
    let items = leaf["items"].as_array().unwrap();
    let handle = records(&bench).await[0].handle.0.to_string();
    let named = |item: usize| ["field", "view", "outcome"].map(|name| items[item][name].as_str());
    assert_eq!(named(0), [Some("borrower.name"), Some("plain"), Some("ok")]);
    assert_eq!(named(1), [Some("borrower.password_hash"), None, Some("withheld")]);
    assert_eq!(named(2), [Some("company.uscc"), Some("plain"), Some("ok")]);
    assert!(items.iter().all(|item| item["subject"] == handle.as_str() && item["row"].is_string()));
    let text = leaf.to_string();
    assert!(!text.contains(USCC) && !text.contains("alert") && !text.contains("c-1"));
    vault.close().await;
    assert!(findings(&bench, &[]).await.is_empty());
}

#[tokio::test]
async fn a_field_without_the_view_plain_is_shown_in_part_and_a_retired_one_not_at_all() {
    let (_bench, vault) = opened().await;
    store_one(&vault, "borrower.name", "Ann Lee", "c-1").await;
    store_one(&vault, "borrower.email", "ann@mail.example", "c-1").await;
    let without_plain = LENDING.replacen("views = { plain = \"plain\" }", "", 1);
    let from = without_plain.find("[field.borrower.email]").unwrap();
    let to = without_plain.find("[field.borrower.address]").unwrap();
    let source = format!("{}{}", &without_plain[..from], &without_plain[to..]);
    vault.apply_schema(&caller(Role::Officer), &ApplySchema { source, dry_run: false }).await.unwrap();
    let (values, _) = exported(&vault, "c-1").await.unwrap();
    let (name, email) = (&values[0], &values[1]);
    assert_eq!((shown(name).1, name.withheld), ("masked", "no_plain_view"));
    assert_ne!(shown(name).2, b"Ann Lee");
    assert_eq!((email.shown.is_none(), email.withheld), (true, "field_retired"));
    let report = vault.subject_report(&caller(Role::Privacy), &report_of("c-1")).await.unwrap();
    assert!(report.fields.iter().any(|held| held.field.retired && &*held.field.name == "borrower.email"));
}

#[tokio::test]
async fn merged_subjects_are_told_all_of_theirs_and_what_they_share_once() {
    let (bench, vault) = opened().await;
    for (field, value, subject) in [
        ("borrower.name", "Ann", "c-1"),
        ("company.uscc", USCC, "c-1"),
        ("company.uscc", USCC, "c-2"),
        ("borrower.name", "Anne", "c-2"),
    ] {
        store_one(&vault, field, value, subject).await;
    }
    merge(&bench).await;
    let (values, _) = exported(&vault, "c-1").await.unwrap();
    let told: Vec<&[u8]> = values.iter().map(|value| shown(value).2).collect();
    assert_eq!(told, [b"Ann".as_slice(), USCC.as_bytes(), b"Anne"]);
    assert_eq!(exported(&vault, "c-2").await.unwrap().0.len(), 2);
    let report = vault.subject_report(&caller(Role::Privacy), &report_of("c-1")).await.unwrap();
    let held: Vec<(&str, u64)> = report.fields.iter().map(|held| (&*held.field.name, held.values)).collect();
    assert_eq!(held, [("borrower.name", 2), ("company.uscc", 1)]);
    // Of whom one is leaving, the other is told its own.
    let records = records(&bench).await;
    put(&bench, &SubjectRecord { state: SubjectState::Leaving, ..records[0].clone() }).await;
    let (values, _) = exported(&vault, "c-1").await.unwrap();
    assert_eq!(values.iter().map(|value| shown(value).2).collect::<Vec<_>>(), [USCC.as_bytes(), b"Anne"]);
}

#[tokio::test]
async fn each_page_takes_the_road_and_together_they_are_whole() {
    let (bench, vault) = opened().await;
    let items = (0..7).map(|number| new_value("borrower.name", &format!("Ann {number}"), "c-1")).collect();
    vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap();
    store_one(&vault, "borrower.name", "Ben", "c-2").await;
    merge(&bench).await;
    vault.close().await;
    drop(vault);
    // Two of the longest values fit an answer.
    let vault = bench.open_within(Limits { message: 128 << 10, ..Limits::MOST }).await;
    let (values, pages) = exported(&vault, "c-1").await.unwrap();
    let told: Vec<String> = values.iter().map(|value| String::from_utf8(shown(value).2.to_vec()).unwrap()).collect();
    assert_eq!(told, ["Ann 0", "Ann 1", "Ann 2", "Ann 3", "Ann 4", "Ann 5", "Ann 6", "Ben"]);
    assert_eq!(pages, 4);
    let leaves = leaves_of(&vault, "export_subject").await;
    assert!(leaves.len() == 4 && leaves.iter().all(|leaf| leaf["items"].as_array().unwrap().len() == 2));
}

#[tokio::test]
async fn an_export_counts_as_reads_do_and_beyond_that_tells_nothing() {
    let (_bench, vault) = opened().await;
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    store_one(&vault, "borrower.name", "Ann", "c-1").await;
    store_one(&vault, "borrower.password_hash", SECRET, "c-1").await;
    let officer = caller(Role::Officer);
    let limit = async |limit: u32| {
        let plain = Rate { per_minute: None, per_day: Some(limit) };
        let c2 = ClassLimits { plain, ..ClassLimits::default() };
        let limits = TierLimits { c2, misses: Rate { per_minute: None, per_day: Some(1) }, ..TierLimits::default() };
        vault.set_tier_limits(&officer, &SetTierLimits { tier: "II".to_owned(), limits }).await.unwrap();
    };
    limit(1).await;
    let request = SetTier { principal: "privacy/tester".to_owned(), tier: "II".to_owned() };
    vault.set_tier(&officer, &request).await.unwrap();
    assert!(matches!(exported(&vault, "c-1").await, Err(Error::QuotaExceeded { .. })));
    let refused = leaves_of(&vault, "export_subject").await.remove(0);
    assert_eq!((&refused["decision"], &refused["reason"]), (&"deny".into(), &"QUOTA_EXCEEDED".into()));
    // What is never shown counts for nothing.
    limit(2).await;
    assert_eq!(exported(&vault, "c-1").await.unwrap().0.len(), 3);
    // Nor is it found out by guessing whom the vault knows.
    assert!(matches!(exported(&vault, "c-9").await, Err(Error::NotFoundAt(_))));
    assert!(matches!(exported(&vault, "c-1").await, Err(Error::QuotaExceeded { .. })));
}

#[tokio::test]
async fn freezes_purposes_and_a_missing_second_factor_hold_exports_back() {
    let (_bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "Ann", "c-1").await;
    let needed = exported(&vault, "c-1").await;
    assert!(matches!(needed, Err(Error::SecondFactorRequired { request: None })));
    let needed = vault.subject_report(&caller(Role::Privacy), &report_of("c-1")).await;
    assert!(matches!(needed, Err(Error::SecondFactorRequired { request: None })));
    put_in_force(&vault, &caller(Role::Officer), format!("{DEFAULT_POLICIES}\n{WITHOUT_FACTOR}")).await;
    for purpose in ["", "nonsense", "marketing"] {
        let request = ExportSubject { purpose: purpose.to_owned(), ..of("c-1") };
        let refused = vault.export_subject(&caller(Role::Privacy), &request, None).await;
        assert!(matches!(refused, Err(Error::Invalid(wrong)) if wrong[0].path == "purpose"), "{purpose}");
    }
    for subject in ["", &"x".repeat(129)] {
        assert!(matches!(exported(&vault, subject).await, Err(Error::Invalid(_))));
    }
    let freeze = |field: &str| Freeze { field: field.to_owned(), reads: true, writes: false, all_tenants: false };
    vault.freeze(&caller(Role::Officer), &freeze("borrower.email")).await.unwrap();
    assert_eq!(exported(&vault, "c-1").await.unwrap().0.len(), 1, "it has no email");
    vault.freeze(&caller(Role::Officer), &freeze("borrower.name")).await.unwrap();
    assert!(matches!(exported(&vault, "c-1").await, Err(Error::Frozen { .. })));
    vault.subject_report(&caller(Role::Privacy), &report_of("c-1")).await.unwrap();
}

#[tokio::test]
async fn a_report_says_what_is_held_why_and_who_read_it_for_what() {
    let (bench, vault) = opened().await;
    let ends = bench.now.load(Ordering::Relaxed) + 60_000_000;
    let ending = NewValue { expires: Some(ends), ..new_value("borrower.name", "Old Ann", "c-1") };
    let items = vec![new_value("borrower.id_card", ID_CARD, "c-1"), ending, new_value("borrower.name", "Ann", "c-1")];
    let tokens = vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap();
    let other = store_one(&vault, "borrower.name", "Ben", "c-2").await;
    bench.pass(3_600);
    let asked = vault.committer.head(TENANT).unwrap().size;
    read_one(&vault, &tokens[0], "plain").await.unwrap();
    read_one(&vault, &other, "plain").await.unwrap();
    drop(vault.detokenize(&caller(Role::Auditor), &read(&tokens[0], "plain")).await);
    exported(&vault, "c-1").await.unwrap();
    let privacy = caller(Role::Privacy);
    let report = vault.subject_report(&privacy, &report_of("c-1")).await.unwrap();
    let held: Vec<_> =
        report.fields.iter().map(|held| (&*held.field.name, held.field.class, held.values, held.ended)).collect();
    assert_eq!(held, [("borrower.name", "c2", 1, 1), ("borrower.id_card", "c2", 1, 0)]);
    let bases: Vec<_> = report.purposes.iter().map(|purpose| (&*purpose.name, purpose.basis)).collect();
    assert!(bases.contains(&("kyc_review", "legal_obligation")) && bases.contains(&("marketing", "consent")));
    assert!(!bases.iter().any(|(name, _)| *name == "subject_access"), "no field lists it");
    let reads: Vec<_> = report
        .reads
        .iter()
        .map(|read| {
            [Some(&read.principal), Some(&read.action), read.purpose.as_ref(), read.field.as_ref(), read.view.as_ref()]
        })
        .map(|told| told.map(|text| text.map_or("", String::as_str)))
        .collect();
    assert_eq!(
        reads,
        [
            ["app/tester", "detokenize", "kyc_review", "borrower.id_card", "plain"],
            ["privacy/tester", "export_subject", "subject_access", "borrower.id_card", "plain"],
            ["privacy/tester", "export_subject", "subject_access", "borrower.name", "plain"],
        ],
        "not what was refused, and not of somebody else"
    );
    assert_eq!((report.reads[0].leaf, report.more_reads), (asked, false));
    assert_eq!(report.reads[1].leaf + 1, report.ledger_size, "its own question is not among them");
    // Of a time.
    let from = report.reads[1].time;
    let later = SubjectReport { from: Some(from), ..report_of("c-1") };
    let later = vault.subject_report(&privacy, &later).await.unwrap();
    assert_eq!(
        later.reads.iter().map(|read| &*read.action).collect::<Vec<_>>(),
        ["export_subject", "export_subject", "subject_report"]
    );
    let earlier = SubjectReport { to: Some(from), ..report_of("c-1") };
    assert_eq!(vault.subject_report(&privacy, &earlier).await.unwrap().reads.len(), 1);
    // By an index or without, it is the same.
    vault.index_logs(None, u32::MAX).await.unwrap();
    assert_eq!(vault.subject_report(&privacy, &earlier).await.unwrap().reads.len(), 1);
    let leaf = leaves_of(&vault, "subject_report").await.pop().unwrap();
    assert_eq!(leaf["items"][0]["outcome"], "reported");
    assert_eq!(leaf["detail"]["to"], strongroom_ledger::Timestamp(from).to_string());
    assert!(matches!(vault.subject_report(&privacy, &report_of("c-9")).await, Err(Error::NotFoundAt(_))));
}

#[tokio::test]
async fn only_the_newest_reads_are_listed_and_it_is_said_that_there_are_more() {
    let (_bench, vault) = opened().await;
    let token = store_one(&vault, "borrower.name", "Ann", "c-1").await;
    let item = || ReadItem { token: token.clone(), view: String::new(), subject: String::new() };
    let many = |count: usize| Detokenize { items: (0..count).map(|_| item()).collect(), ..read("", "masked") };
    vault.detokenize(&caller(Role::App), &many(3)).await.unwrap();
    vault.detokenize(&caller(Role::App), &Detokenize { view: "plain".to_owned(), ..many(1_000) }).await.unwrap();
    let report = vault.subject_report(&caller(Role::Privacy), &report_of("c-1")).await.unwrap();
    assert_eq!((report.reads.len(), report.more_reads), (1_000, true));
    assert!(report.reads.iter().all(|read| read.view.as_deref() == Some("plain")));
}

#[tokio::test]
async fn reads_are_the_same_in_whatever_steps_the_ledger_is_gone_back_through() {
    let (bench, vault) = opened().await;
    let token = store_one(&vault, "borrower.name", "Ann", "c-1").await;
    for number in 0..40 {
        read_one(&vault, &token, if number % 3 == 0 { "plain" } else { "masked" }).await.unwrap();
        store_one(&vault, "borrower.name", "Bob", "c-2").await;
    }
    let report = vault.subject_report(&caller(Role::Privacy), &report_of("c-1")).await.unwrap();
    let of = |reads: &[SubjectRead]| reads.iter().map(|read| (read.leaf, read.view.clone())).collect::<Vec<_>>();
    assert_eq!((report.reads.len(), report.archived_reads), (40, None));
    let filter = Filter {
        subjects: Some(vec![records(&bench).await[0].handle]),
        actions: Some(read_actions()),
        decision: Some("allow".to_owned()),
        ..Filter::default()
    };
    for window in [1, 7, 64, 1_000_000] {
        let range = (0, report.ledger_size);
        let (reads, more) = vault.newest_reads(&caller(Role::Privacy), range, &filter, window).await.unwrap();
        assert_eq!((of(&reads), more), (of(&report.reads), false), "{window}");
    }
}

#[tokio::test]
async fn rights_of_a_subject_and_an_erasure_that_waits_are_reported() {
    let (bench, vault) = opened().await;
    store_one(&vault, "borrower.name", "Ann", "c-1").await;
    let record = records(&bench).await.remove(0);
    let name = strongroom_ids::FieldNo(1);
    let consent = |scope| Consent {
        purpose: "marketing".to_owned(),
        scope,
        granted: 1,
        given: None,
        expires: Some(9),
        withdrawn: Some(5),
        text: [7; 32],
        version: "v1".to_owned(),
        channel: "web".to_owned(),
    };
    let hold = Hold {
        number: 1,
        reason: "case-17".to_owned(),
        purpose: "kyc_review".to_owned(),
        fields: vec![name],
        set: 2,
        until: 8,
    };
    let leaving = SubjectRecord {
        state: SubjectState::Leaving,
        labels: vec!["branch-12".to_owned()],
        consents: vec![consent(Scope::All), consent(Scope::Class(2)), consent(Scope::Field(name))],
        holds: vec![hold],
        erasure: Some(Erasure { asked: 3, due: 4 }),
        ..record
    };
    put(&bench, &leaving).await;
    let report = vault.subject_report(&caller(Role::Privacy), &report_of("c-1")).await.unwrap();
    let scopes: Vec<_> = report.consents.iter().map(|one| (one.class, one.field.as_deref())).collect();
    assert_eq!(scopes, [(None, None), (Some("c2"), None), (None, Some("borrower.name"))]);
    assert_eq!((report.consents[0].text, report.consents[0].state), ([7; 32], "withdrawn"));
    assert_eq!(
        (&*report.holds[0].reason, &*report.holds[0].fields),
        ("case-17", ["borrower.name".to_owned()].as_slice())
    );
    assert_eq!(report.labels, ["branch-12"]);
    let erasure = &report.erasures[0];
    assert_eq!((erasure.asked, erasure.due, erasure.state), (3, 4, "waiting"));
    assert_eq!(report.fields[0].values, 1, "it is still held");
    // And nothing of it is shown.
    let refused = exported(&vault, "c-1").await;
    assert!(matches!(refused, Err(Error::NotFoundAt(why)) if why[0].rule == "subject_leaving"));
    let leaf = leaves_of(&vault, "export_subject").await.remove(0);
    assert_eq!(leaf["items"][0]["outcome"], "leaving");
}
