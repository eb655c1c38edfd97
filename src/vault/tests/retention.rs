//! What is due by retention: unreadable at once, erased with all that leads to it, and never by a clock that jumped.

use strongroom_ids::{FieldNo, SubjectHandle};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{Consent, Hold, JobKind, JobRow, Scope, SubjectRecord, ValueRow};
use strongroom_storage::{Family, Mutation, Store};

use super::keys::{TENANT, all_read, filled, running, step, to_its_end, to_its_end_by_chance};
use super::rolls::{all, proven, roll};
use super::tenants::{NUMBER, SAVINGS, make};
use super::*;
use crate::{CancelJob, ConfirmClock, Count, Delete, DeleteItem, Freeze, GetJob, Job, JobPage, StartExpire, StartRoll};

const KIND: JobKind = JobKind::Expire;
const DAY: u64 = 24 * 3_600;
const YEAR: u64 = 366 * DAY;
/// Seconds after which what is stored for a short time expires.
const SHORT: u64 = 60;
const USCC: &str = "91350100M000100Y43";

fn privacy() -> Caller {
    caller(Role::Privacy)
}

fn operator() -> Caller {
    Caller::new(Arc::new(Principal::new(TenantNo(0), Role::Operator, "sre-1")), "test")
}

fn now(bench: &Bench) -> u64 {
    bench.now.load(Ordering::Relaxed)
}

/// Stores values of a field that expire soon, one of each subject.
async fn store_short(bench: &Bench, vault: &Tested, field: &str, values: &[(&str, &str)]) -> Vec<String> {
    let expires = Some(now(bench) + SHORT * 1_000_000);
    let items = values.iter().map(|(value, subject)| NewValue { expires, ..new_value(field, value, subject) });
    vault.tokenize(&caller(Role::App), &tokenize(items.collect(), "")).await.unwrap()
}

async fn read_back(vault: &Tested, token: &str) -> Result<Vec<u8>, Error> {
    let request = Detokenize { purpose: "loan_servicing".to_owned(), ..read(token, "plain") };
    let mut results = vault.detokenize(&caller(Role::App), &request).await?;
    results.remove(0).map(|released| released.value.as_bytes().to_vec())
}

async fn start(vault: &Tested, up_to: u64) -> Result<Job, Error> {
    vault.start_expire(&privacy(), &StartExpire { up_to }).await
}

/// Erases what is due, in pages of so many entries.
async fn expire(vault: &Tested, entries: usize) -> Job {
    start(vault, 0).await.unwrap();
    to_its_end(vault, KIND, entries).await
}

/// How many entries the tenant has in each family that holds something of values or subjects.
async fn sizes(bench: &Bench) -> Vec<usize> {
    let mut sizes = Vec::new();
    let families =
        [Family::Rows, Family::RowDeks, Family::Subjects, Family::SubjectRows, Family::Holders, Family::Index];
    for family in families {
        sizes.push(all(bench, family).await.len());
    }
    sizes
}

async fn marks(bench: &Bench) -> usize {
    let entries = all(bench, Family::Meta).await;
    entries.iter().filter(|(key, _)| place::decode_dek_mark(key).is_ok()).count()
}

async fn confirm(bench: &Bench, vault: &Tested) -> Result<u64, Error> {
    vault.confirm_clock(&operator(), &ConfirmClock { time: now(bench) }).await
}

/// Changes the record of the subject of a token's row behind the vault's back: what keeps a subject has no calls here.
async fn with_record(bench: &Bench, subject: SubjectHandle, change: impl Fn(&mut SubjectRecord)) {
    let key = place::subject(TENANT, subject);
    let mut record =
        SubjectRecord::decode(&bench.disk.get(Family::Subjects, key.clone()).await.unwrap().unwrap()).unwrap();
    change(&mut record);
    bench.disk.write(vec![Mutation::Put(Family::Subjects, key, record.encode())]).await.unwrap();
}

async fn rows(bench: &Bench) -> Vec<ValueRow> {
    all(bench, Family::Rows).await.iter().map(|(_, row)| ValueRow::decode(row).unwrap()).collect()
}

fn hold(fields: Vec<FieldNo>, until: u64) -> Hold {
    let (reason, purpose) = ("case-1".to_owned(), "kyc_review".to_owned());
    Hold { number: 1, reason, purpose, fields, set: 1, until }
}

#[tokio::test]
async fn what_is_due_goes_page_by_page_with_all_that_leads_to_it_and_the_rest_stays() {
    for entries in [1, 7, 1_000] {
        let (bench, vault) = Bench::new().await;
        let left = filled(&vault).await;
        let before = sizes(&bench).await;
        let mut due = Vec::new();
        let each = [("borrower.address", "x street"), ("borrower.email", "x@mail.example")];
        for (field, value) in each {
            due.extend(store_short(&bench, &vault, field, &[(value, "c-1"), (value, "c-2"), (value, "")]).await);
        }
        due.extend(store_short(&bench, &vault, "borrower.mobile", &[("13812345678", "c-3")]).await);
        due.extend(store_short(&bench, &vault, "company.settlement_account", &[("account-x", "c-5")]).await);
        due.extend(store_short(&bench, &vault, "company.uscc", &[(USCC, "c-6")]).await);
        for token in &due {
            assert!(read_back(&vault, token).await.is_ok(), "{token}");
        }
        bench.pass(2 * SHORT);
        for token in &due {
            assert!(matches!(read_back(&vault, token).await, Err(Error::NotFound)), "unreadable at once");
        }
        let mut vault = vault;
        start(&vault, 0).await.unwrap();
        let mut job = running(&vault, KIND).await;
        let mut steps = 0;
        while job.is_running() {
            job = step(&vault, &job, entries).await;
            if steps % 60 == 0 {
                vault = proven(&bench, vault).await;
            }
            steps += 1;
        }
        let count = due.len() as u64;
        assert_eq!((job.state, job.total, job.done, job.skipped), ("done", count, count, 0));
        assert_eq!(sizes(&bench).await, before, "nothing of it is left, and all else is there");
        assert!(marks(&bench).await >= 4, "what it shares its DEKs with lives on");
        all_read(&vault, &left).await;
        let items: Vec<_> = leaves(&vault).await.into_iter().filter(|leaf| leaf["action"] == "expire").collect();
        let outcomes = items.iter().filter_map(|leaf| leaf["items"].as_array()).flatten();
        assert_eq!(outcomes.filter(|item| item["outcome"] == "expired_removed").count(), due.len());
        assert_eq!(roll(&vault, 10).await.skipped, 0);
        all_read(&vault, &left).await;
        let vault = proven(&bench, vault).await;
        let again = expire(&vault, entries).await;
        assert_eq!((again.name.as_str(), again.state, again.total), ("expire/2", "done", 0));
    }
}

#[tokio::test]
async fn a_subject_goes_with_its_last_value_and_comes_back_as_another() {
    for entries in [1, 1_000] {
        let (bench, vault) = Bench::new().await;
        let empty = sizes(&bench).await;
        let lasting = store_one(&vault, "borrower.address", "lasting", "stays").await;
        let before = sizes(&bench).await;
        let goes = [("a", "goes"), ("b", "goes"), ("c", "goes"), ("d", "stays")];
        store_short(&bench, &vault, "borrower.address", &goes).await;
        store_short(&bench, &vault, "borrower.email", &[("a@mail.example", "goes")]).await;
        // One that others share, with a holder who has nothing else.
        store_short(&bench, &vault, "company.uscc", &[(USCC, "goes"), (USCC, "holds"), (USCC, "")]).await;
        bench.pass(2 * SHORT);
        let job = expire(&vault, entries).await;
        assert_eq!((job.state, job.done), ("done", 6));
        assert_eq!(sizes(&bench).await, before);
        assert_eq!(marks(&bench).await, 1, "only who stays has a DEK to be rolled");
        let erased = leaves(&vault).await;
        let erased = erased.iter().filter_map(|leaf| leaf["items"].as_array()).flatten();
        assert_eq!(erased.filter(|item| item["outcome"] == "subject_erased").count(), 2);
        let vault = proven(&bench, vault).await;
        assert_eq!(read_one(&vault, &lasting, "plain").await.unwrap(), b"lasting");
        store_one(&vault, "borrower.address", "anew", "goes").await;
        assert!(sizes(&bench).await[2] > before[2] && before[2] > empty[2]);
        proven(&bench, vault).await;
    }
}

#[tokio::test]
async fn a_legal_hold_keeps_what_it_is_about_until_it_ends() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("held", "c-1")]).await;
    store_short(&bench, &vault, "borrower.email", &[("a@mail.example", "c-1")]).await;
    let stored = rows(&bench).await;
    let (subject, field) = (stored[0].subject, stored[0].field);
    let until = now(&bench) + 200 * 1_000_000;
    with_record(&bench, subject, |record| record.holds = vec![hold(vec![field], until)]).await;
    bench.pass(2 * SHORT);
    let report = vault.retention_report(&privacy()).await.unwrap();
    let of = |name: &str| report.fields.iter().find(|field| field.field == name).unwrap();
    assert_eq!((of("borrower.address").held, of("borrower.address").due), (1, 0));
    assert_eq!((of("borrower.email").held, of("borrower.email").due), (0, 1));
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.total, job.done, job.skipped), ("done", 2, 1, 1));
    let left = rows(&bench).await;
    assert_eq!(left.iter().map(|row| row.field).collect::<Vec<_>>(), [field]);
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.done, job.skipped), (1, 0));
    assert_eq!(all(&bench, Family::Subjects).await.len(), 0, "it goes with its last value");
}

#[tokio::test]
async fn a_hold_on_one_holder_keeps_a_shared_value_for_all() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "company.uscc", &[(USCC, "c-1"), (USCC, "c-2")]).await;
    let holders = all(&bench, Family::Holders).await;
    let second = place::decode_holder(&holders[1].0).unwrap();
    let until = now(&bench) + YEAR * 1_000_000;
    with_record(&bench, second, |record| record.holds = vec![hold(vec![], until)]).await;
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 0, 1));
    assert_eq!(all(&bench, Family::Holders).await.len(), 2);
}

#[tokio::test]
async fn a_standing_consent_keeps_the_subject_and_one_that_ended_does_not() {
    let soon = 100 * 1_000_000;
    for (expires, withdrawn, stays) in
        [(None, None, true), (Some(soon), None, false), (None, Some(1), false), (Some(1_000 * soon), None, true)]
    {
        let (bench, vault) = Bench::new().await;
        store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
        let subject = rows(&bench).await[0].subject;
        let expires = expires.map(|after| now(&bench) + after);
        with_record(&bench, subject, |record| {
            let (purpose, version, channel) = ("marketing".to_owned(), "1".to_owned(), "web".to_owned());
            let consent = Consent {
                purpose,
                scope: Scope::All,
                granted: 1,
                given: None,
                expires,
                withdrawn,
                text: [0; 32],
                version,
                channel,
            };
            record.consents = vec![consent];
        })
        .await;
        bench.pass(2 * SHORT);
        assert_eq!(expire(&vault, 10).await.done, 1);
        assert_eq!(all(&bench, Family::Subjects).await.len(), usize::from(stays));
        assert_eq!(marks(&bench).await, usize::from(stays), "who stays has a DEK to be rolled");
    }
}

#[tokio::test]
async fn who_is_kept_by_a_hold_alone_goes_when_that_ends() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.address", "stays", "c-2").await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    let both = rows(&bench).await;
    let end = now(&bench) + 200 * 1_000_000;
    for subject in [both[0].subject, both[1].subject] {
        with_record(&bench, subject, |record| record.holds = vec![hold(vec![FieldNo(999)], end)]).await;
    }
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 1).await.done, 1);
    assert_eq!((all(&bench, Family::Subjects).await.len(), marks(&bench).await), (2, 1));
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 1).await.done, 0);
    assert_eq!((all(&bench, Family::Subjects).await.len(), marks(&bench).await), (1, 0), "who has a value stays");
}

#[tokio::test]
async fn whose_last_value_went_by_a_request_goes_as_well() {
    for entries in [1, 1_000] {
        let (bench, vault) = Bench::new().await;
        let empty = sizes(&bench).await;
        // Released when somebody else stores it anew, since it has expired.
        store_short(&bench, &vault, "company.uscc", &[(USCC, "released")]).await;
        let delete = async |subject: &str| {
            let token = store_one(&vault, "borrower.address", "a", subject).await;
            let items = vec![DeleteItem { token, subject: String::new() }];
            let subject = rows(&bench).await.last().unwrap().subject;
            let request = Delete { items, idempotency_key: String::new() };
            vault.delete(&caller(Role::App), &request).await.unwrap().remove(0).unwrap();
            subject
        };
        delete("deleted").await;
        let allows = delete("allows").await;
        with_record(&bench, allows, |record| {
            let (purpose, version, channel) = ("marketing".to_owned(), "1".to_owned(), "web".to_owned());
            let (scope, text) = (Scope::All, [0; 32]);
            let consent = Consent {
                purpose,
                scope,
                granted: 1,
                given: None,
                expires: None,
                withdrawn: None,
                text,
                version,
                channel,
            };
            record.consents = vec![consent];
        })
        .await;
        bench.pass(2 * SHORT);
        store_one(&vault, "company.uscc", USCC, "stays").await;
        // One with more values than others, between those that have none.
        let many = (0..600).map(|number| new_value("borrower.address", &number.to_string(), "many")).collect();
        vault.tokenize(&caller(Role::App), &tokenize(many, "")).await.unwrap();
        delete("last").await;
        assert_eq!(all(&bench, Family::Subjects).await.len(), 6);
        assert_eq!(expire(&vault, entries).await.state, "done");
        assert_eq!(
            all(&bench, Family::Subjects).await.len(),
            empty[2] + 3,
            "who has a value, and who allows something"
        );
    }
}

#[tokio::test]
async fn a_page_ends_where_it_has_so_many_holders_as_a_commit_may() {
    let (bench, vault) = Bench::new().await;
    let subjects: Vec<String> = (0..700).map(|number| format!("c-{number}")).collect();
    for value in [USCC, "91110000600037341L"] {
        let values: Vec<(&str, &str)> = subjects.iter().map(|subject| (value, subject.as_str())).collect();
        store_short(&bench, &vault, "company.uscc", &values).await;
    }
    bench.pass(3 * SHORT);
    start(&vault, 0).await.unwrap();
    let job = step(&vault, &running(&vault, KIND).await, 1_000).await;
    assert_eq!((job.total, job.done, all(&bench, Family::Holders).await.len()), (2, 1, 700));
    assert_eq!(all(&bench, Family::Subjects).await.len(), 700, "each has a value yet");
    let job = to_its_end(&vault, KIND, 1_000).await;
    assert_eq!((job.state, job.done), ("done", 2));
    assert_eq!(all(&bench, Family::Subjects).await.len(), 0);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn what_a_destroyed_dek_has_sealed_is_written_away() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.address", "lasting", "stays").await;
    let left = async || vault.tenants_with_leftovers().await.unwrap();
    store_short(&bench, &vault, "borrower.address", &[("a", "stays")]).await;
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 10).await.done, 1);
    assert!(left().await.is_empty(), "a roll ends what its DEK has sealed");
    for subject in ["goes", ""] {
        store_short(&bench, &vault, "borrower.address", &[("a", subject)]).await;
        bench.pass(2 * SHORT);
        assert_eq!(expire(&vault, 10).await.done, 1);
        assert_eq!(left().await, [TENANT], "{subject}");
        vault.scrub_leftovers(TENANT).await.unwrap();
        assert!(left().await.is_empty());
    }
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_damaged_record_of_a_holder_keeps_its_value_and_nothing_else() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "company.uscc", &[(USCC, "c-1"), (USCC, "c-2")]).await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-3")]).await;
    let holders = all(&bench, Family::Holders).await;
    let damaged = place::subject(TENANT, place::decode_holder(&holders[1].0).unwrap());
    bench.disk.write(vec![Mutation::Put(Family::Subjects, damaged, vec![0xff])]).await.unwrap();
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 1, 1));
    assert_eq!(all(&bench, Family::Holders).await.len(), 2);
}

#[tokio::test]
async fn what_is_held_or_frozen_does_not_count_against_the_cap() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let vault = bench.open_keeping(Retention { cap_values: 1, cap_percent: 0, ..Retention::default() }).await;
    store_short(&bench, &vault, "borrower.address", &[("held", "c-1"), ("a", "c-2")]).await;
    store_short(&bench, &vault, "borrower.email", &[("a@mail.example", "c-2")]).await;
    let subject = rows(&bench).await[0].subject;
    let until = now(&bench) + YEAR * 1_000_000;
    with_record(&bench, subject, |record| record.holds = vec![hold(vec![], until)]).await;
    let freeze = Freeze { field: "borrower.email".to_owned(), reads: false, writes: true, all_tenants: false };
    vault.freeze(&caller(Role::Officer), &freeze).await.unwrap();
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 1, 2));
    store_short(&bench, &vault, "borrower.address", &[("b", "c-3"), ("b", "c-4")]).await;
    bench.pass(2 * SHORT);
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.total, job.done), ("waiting", 2, 0), "so many as there is to do");
    assert!(job.waits_for.contains("retention run --up-to 2"), "{}", job.waits_for);
}

#[tokio::test]
async fn what_is_frozen_stays_and_is_not_even_asked_for_while_all_is() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    bench.pass(2 * SHORT);
    let freeze = |field: &str| Freeze { field: field.to_owned(), reads: false, writes: true, all_tenants: false };
    vault.freeze(&caller(Role::Officer), &freeze("borrower.address")).await.unwrap();
    let job = expire(&vault, 10).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", 0, 1));
    vault.freeze(&caller(Role::Officer), &freeze("")).await.unwrap();
    assert!(matches!(start(&vault, 0).await, Err(Error::Frozen { .. })));
}

#[tokio::test]
async fn a_job_that_is_cut_off_or_cancelled_is_gone_on_with_and_erases_each_value_once() {
    for seed in 0..6 {
        let (bench, vault) = Bench::new().await;
        let left = filled(&vault).await;
        let subjects: Vec<String> = (0..40).map(|number| format!("d-{}", number % 17)).collect();
        let values: Vec<(&str, &str)> = subjects.iter().map(|subject| (subject.as_str(), subject.as_str())).collect();
        store_short(&bench, &vault, "borrower.address", &values).await;
        store_short(&bench, &vault, "company.uscc", &[(USCC, "d-1"), (USCC, "d-2")]).await;
        bench.pass(2 * SHORT);
        start(&vault, 0).await.unwrap();
        let job = step(&vault, &running(&vault, KIND).await, 20).await;
        let cancel = CancelJob { name: "expire".to_owned() };
        assert_eq!(vault.cancel_job(&caller(Role::Officer), &cancel).await.unwrap().state, "cancelled");
        let vault = proven(&bench, vault).await;
        let total = 41 - job.done;
        start(&vault, 0).await.unwrap();
        to_its_end_by_chance(&bench, &vault, running(&vault, KIND).await, total, seed).await;
        let job = vault.get_job(&privacy(), &GetJob { name: "expire".to_owned() }).await.unwrap();
        assert_eq!((job.state, job.total, job.done), ("done", total, total));
        all_read(&vault, &left).await;
        let vault = proven(&bench, vault).await;
        assert_eq!(expire(&vault, 1_000).await.total, 0);
    }
}

#[tokio::test]
async fn more_than_the_cap_waits_for_an_approval_of_just_so_many() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let keep = Retention { cap_values: 3, cap_percent: 0, ..Retention::default() };
    let vault = bench.open_keeping(keep).await;
    let values = |from: usize, to: usize| (from..to).map(|number| format!("c-{number}")).collect::<Vec<_>>();
    let store = async |subjects: Vec<String>| {
        let values: Vec<(&str, &str)> = subjects.iter().map(|subject| ("a", subject.as_str())).collect();
        store_short(&bench, &vault, "borrower.address", &values).await;
        bench.pass(2 * SHORT);
    };
    store(values(0, 3)).await;
    assert_eq!(expire(&vault, 2).await.done, 3, "within the cap nobody is asked");

    store(values(10, 15)).await;
    let job = expire(&vault, 2).await;
    assert_eq!((job.state, job.total, job.done), ("waiting", 5, 0));
    assert!(job.waits_for.contains("retention run --up-to 5"), "{}", job.waits_for);
    assert_eq!(rows(&bench).await.len(), 5, "nothing is erased");
    assert!(vault.running_jobs().await.unwrap().is_empty());

    let Err(Error::ApprovalRequired { name, .. }) = start(&vault, 5).await else { panic!("nobody was asked") };
    approve_as(&vault, &second(TENANT), &name).await.unwrap();
    // Another number is another request.
    assert!(matches!(start(&vault, 6).await, Err(Error::ApprovalRequired { .. })));
    store(values(20, 22)).await;
    assert!(start(&vault, 5).await.unwrap().is_running());
    let job = to_its_end(&vault, KIND, 2).await;
    assert_eq!((job.state, job.total, job.done), ("waiting", 7, 0), "more is due than was approved");

    with_approval(&vault, TENANT, async || start(&vault, 7).await).await.unwrap();
    let job = to_its_end(&vault, KIND, 2).await;
    assert_eq!((job.state, job.done), ("done", 7));
    assert_eq!(sizes(&bench).await[0], 0);
    assert!(matches!(start(&vault, 7).await, Err(Error::ApprovalRequired { .. })), "it was used up");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_job_that_waits_can_be_cancelled() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let vault = bench.open_keeping(Retention { cap_values: 0, cap_percent: 0, ..Retention::default() }).await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 10).await.state, "waiting");
    let cancel = CancelJob { name: "expire".to_owned() };
    assert_eq!(vault.cancel_job(&caller(Role::Officer), &cancel).await.unwrap().state, "cancelled");
}

#[tokio::test]
async fn a_part_of_all_values_is_a_cap_as_well() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let vault = bench.open_keeping(Retention { cap_values: 0, cap_percent: 10, ..Retention::default() }).await;
    let lasting = (0..18).map(|number| new_value("borrower.address", "a", &format!("c-{number}"))).collect();
    vault.tokenize(&caller(Role::App), &tokenize(lasting, "")).await.unwrap();
    store_short(&bench, &vault, "borrower.address", &[("a", "d-1"), ("a", "d-2")]).await;
    bench.pass(2 * SHORT);
    assert_eq!(vault.retention_report(&privacy()).await.unwrap().cap, 2);
    assert_eq!(expire(&vault, 10).await.done, 2, "2 of 20");
    store_short(&bench, &vault, "borrower.address", &[("a", "d-1"), ("a", "d-2")]).await;
    bench.pass(2 * SHORT);
    store_short(&bench, &vault, "borrower.address", &[("a", "d-3")]).await;
    bench.pass(2 * SHORT);
    assert_eq!(expire(&vault, 10).await.state, "waiting", "3 of 21");
}

#[tokio::test]
async fn after_a_jump_of_the_clock_nothing_is_erased_until_an_operator_says_that_it_is_right() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1"), ("a", "c-2")]).await;
    let far = Some(now(&bench) + 30 * DAY * 1_000_000);
    let item = NewValue { expires: far, ..new_value("borrower.address", "b", "c-3") };
    vault.tokenize(&caller(Role::App), &tokenize(vec![item], "")).await.unwrap();
    bench.pass(2 * SHORT);
    start(&vault, 0).await.unwrap();
    let job = step(&vault, &running(&vault, KIND).await, 1).await;
    assert_eq!(job.done, 1);

    let right = now(&bench);
    bench.set_clock(right + YEAR * 1_000_000);
    let page = JobPage { kind: KIND, number: job.number, entries: 10, total: None, of: 0, kept: 0 };
    assert!(matches!(vault.job_page(TENANT, page).await, Err(Error::ClockJumped)));
    let counted = vault.count_for_job(TENANT, KIND, &mut Count::default(), 10).await;
    assert!(matches!(counted, Err(Error::ClockJumped)), "nor is it looked through for that");
    vault.look_at_clock().await.unwrap();
    let told = vault.get_job(&privacy(), &GetJob { name: "expire".to_owned() }).await.unwrap();
    assert!(told.is_running() && told.waits_for.contains("confirm-clock"), "{}", told.waits_for);
    assert!(vault.status(&operator()).await.unwrap().clock_jump.is_some());
    assert!(vault.retention_report(&privacy()).await.unwrap().clock_jump.is_some());

    // It is set right again, and the vault restarted: somebody has to look at it all the same.
    bench.set_clock(right);
    let vault = proven(&bench, vault).await;
    assert!(matches!(vault.job_page(TENANT, page).await, Err(Error::ClockJumped)));
    let claimed = ConfirmClock { time: right + DAY * 1_000_000 };
    assert!(matches!(vault.confirm_clock(&operator(), &claimed).await, Err(Error::Invalid(_))), "another time");
    for who in [caller(Role::Officer), privacy(), caller(Role::App)] {
        let refused = vault.confirm_clock(&who, &ConfirmClock { time: now(&bench) }).await;
        assert!(matches!(refused, Err(Error::Denied { .. })));
    }
    confirm(&bench, &vault).await.unwrap();
    assert_eq!(to_its_end(&vault, KIND, 10).await.done, 2);
    let vault = proven(&bench, vault).await;
    assert!(vault.clock_jump().is_none(), "the ledger is ahead, and that is known");

    // The ledger's time is a year ahead: what is due by that, and not by the clock, can't be read, and is not erased.
    assert_eq!(expire(&vault, 10).await.total, 0);
    assert_eq!(rows(&bench).await.len(), 1);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn who_stores_a_shared_value_anew_removes_what_has_expired_by_a_clock_that_is_believed_alone() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "company.uscc", &[(USCC, "c-1")]).await;
    let again =
        async || vault.tokenize(&caller(Role::App), &tokenize(vec![new_value("company.uscc", USCC, "c-1")], "")).await;
    let right = now(&bench);
    bench.set_clock(right + YEAR * 1_000_000);
    assert!(matches!(again().await, Err(Error::ClockJumped)));
    // That somebody asked takes the ledger's time along.
    leaves(&vault).await;
    bench.set_clock(right);
    vault.look_at_clock().await.unwrap();
    confirm(&bench, &vault).await.unwrap();
    assert!(matches!(again().await, Err(Error::ClockJumped)), "by the ledger's time it has expired");
    assert_eq!(rows(&bench).await[0].version.0, 1);
    bench.pass(2 * SHORT);
    again().await.unwrap();
    assert_eq!(rows(&bench).await.len(), 1);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_is_a_jump_as_well() {
    let (bench, vault) = Bench::new().await;
    bench.set_clock(now(&bench) - DAY * 1_000_000);
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)));
    vault.close().await;
    let vault = bench.open().await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)), "before the newest leaf");
    confirm(&bench, &vault).await.unwrap();
    assert_eq!(expire(&vault, 10).await.state, "done");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn where_the_ledger_is_ahead_a_vault_that_ran_until_now_may_be_started_anew() {
    let (bench, vault) = Bench::new().await;
    let right = now(&bench);
    bench.set_clock(right + YEAR * 1_000_000);
    leaves(&vault).await;
    bench.set_clock(right);
    vault.look_at_clock().await.unwrap();
    confirm(&bench, &vault).await.unwrap();
    for _ in 0..20 {
        bench.pass(DAY);
        vault.look_at_clock().await.unwrap();
    }
    let vault = proven(&bench, vault).await;
    assert!(vault.clock_jump().is_none());
    vault.close().await;
    bench.pass(8 * DAY);
    let vault = bench.open().await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)), "it was stopped for long");
}

#[tokio::test]
async fn a_start_after_a_long_stop_is_a_jump_and_one_after_some_days_is_none() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    bench.pass(6 * DAY);
    let vault = bench.open().await;
    assert!(vault.clock_jump().is_none());
    vault.status(&caller(Role::App)).await.unwrap();
    vault.close().await;
    bench.pass(8 * DAY);
    let vault = bench.open().await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)));
    // What is said by a leaf is not forgotten because there are newer leaves.
    let vault = proven(&bench, vault).await;
    assert!(matches!(start(&vault, 0).await, Err(Error::ClockJumped)));
    confirm(&bench, &vault).await.unwrap();
    assert!(start(&vault, 0).await.is_ok());
}

#[tokio::test]
async fn what_is_due_is_erased_by_itself_once_a_day_and_not_by_a_clock_that_jumped() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    bench.pass(2 * SHORT);
    vault.start_due_expiries().await.unwrap();
    assert!(vault.running_jobs().await.unwrap().is_empty(), "the tenant is not a day old");
    bench.pass(DAY);
    vault.start_due_expiries().await.unwrap();
    let job = running(&vault, KIND).await;
    assert_eq!((job.number, job.principal.as_str()), (1, "vault"));
    assert_eq!(to_its_end(&vault, KIND, 10).await.done, 1);
    bench.pass(DAY / 2);
    vault.start_due_expiries().await.unwrap();
    assert!(vault.running_jobs().await.unwrap().is_empty());
    bench.set_clock(now(&bench) + DAY * 1_000_000);
    vault.start_due_expiries().await.unwrap();
    assert!(vault.running_jobs().await.unwrap().is_empty(), "it jumped");
    vault.look_at_clock().await.unwrap();
    confirm(&bench, &vault).await.unwrap();
    vault.start_due_expiries().await.unwrap();
    assert_eq!(running(&vault, KIND).await.number, 2);
    to_its_end(&vault, KIND, 10).await;
    proven(&bench, vault).await;
}

#[tokio::test]
async fn what_is_wrong_with_one_tenant_keeps_no_other_waiting() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    start(&vault, 0).await.unwrap();
    to_its_end(&vault, KIND, 10).await;
    let last = bench.disk.get(Family::Meta, place::job(TENANT, KIND)).await.unwrap().unwrap();
    let no_more = JobRow { number: u32::MAX, ..JobRow::decode(&last).unwrap() };
    bench.disk.write(vec![Mutation::Put(Family::Meta, place::job(TENANT, KIND), no_more.encode())]).await.unwrap();
    bench.pass(2 * DAY);
    assert!(matches!(vault.start_due_expiries().await, Err(Error::Internal(_))));
    let running: Vec<_> = vault.running_jobs().await.unwrap().into_iter().map(|(tenant, _)| tenant).collect();
    assert_eq!(running, [NUMBER]);
}

#[tokio::test]
async fn the_report_counts_each_value_once_and_leaves_one_leaf() {
    let (bench, vault) = Bench::new().await;
    store_short(&bench, &vault, "borrower.address", &[("a", "c-1")]).await;
    bench.pass(2 * SHORT);
    for days in [3, 20, 60, 200, 500] {
        let expires = Some(now(&bench) + days * DAY * 1_000_000);
        let item = NewValue { expires, ..new_value("borrower.address", "b", "c-2") };
        vault.tokenize(&caller(Role::App), &tokenize(vec![item], "")).await.unwrap();
    }
    let before = leaves(&vault).await.len();
    let report = vault.retention_report(&caller(Role::Auditor)).await.unwrap();
    // Its own, and those of the two questions for leaves.
    assert_eq!(leaves(&vault).await.len(), before + 2);
    let field = report.fields.iter().find(|field| field.field == "borrower.address").unwrap();
    assert_eq!((field.values, field.due, field.within, field.later), (6, 1, [1, 1, 1, 1], 1));
    assert!(report.fields.iter().filter(|field| field.field != "borrower.address").all(|field| field.values == 0));
    assert_eq!(report.cap, 1_000);
    let denied = vault.retention_report(&caller(Role::App)).await;
    assert!(matches!(denied, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn what_is_damaged_does_not_keep_the_rest_from_being_reported() {
    let (bench, vault) = Bench::new().await;
    for subject in ["c-1", "c-2", "c-3"] {
        store_one(&vault, "borrower.address", "a", subject).await;
    }
    let (rows, subject) = (all(&bench, Family::Rows).await, rows(&bench).await[1].subject);
    let damage = |family, key: Vec<u8>| Mutation::Put(family, key, vec![0xff]);
    let damaged =
        vec![damage(Family::Rows, rows[0].0.to_vec()), damage(Family::Subjects, place::subject(TENANT, subject))];
    bench.disk.write(damaged).await.unwrap();
    let report = vault.retention_report(&privacy()).await.unwrap();
    assert_eq!(report.fields.iter().map(|field| field.values).sum::<u64>(), 2);
}

#[tokio::test]
async fn a_roll_and_an_expire_side_by_side_leave_nothing_that_opens() {
    let (bench, vault) = Bench::new().await;
    let left = filled(&vault).await;
    let values: Vec<String> = (0..30).map(|number| format!("street {number}")).collect();
    let values: Vec<(&str, &str)> = values.iter().map(|value| (value.as_str(), "c-1")).collect();
    store_short(&bench, &vault, "borrower.address", &values).await;
    bench.pass(2 * SHORT);
    let named = StartRoll { name: String::new(), subject: "c-1".to_owned() };
    vault.start_roll(&caller(Role::Rotator), &named).await.unwrap();
    start(&vault, 0).await.unwrap();
    let (mut rolling, mut expiring) = (running(&vault, JobKind::Roll).await, running(&vault, KIND).await);
    while rolling.is_running() || expiring.is_running() {
        if rolling.is_running() {
            rolling = step(&vault, &rolling, 4).await;
        }
        if expiring.is_running() {
            expiring = step(&vault, &expiring, 4).await;
        }
    }
    assert_eq!(expiring.done, 30);
    roll(&vault, 100).await;
    assert_eq!(marks(&bench).await, 0);
    all_read(&vault, &left).await;
    proven(&bench, vault).await;
}
