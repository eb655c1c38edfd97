//! What is due by retention: unreadable at once, erased with all that leads to it, and never by a clock that jumped.

mod cap;
mod clock;
mod kept;
mod meanwhile;

use strongroom_ids::{FieldNo, SubjectHandle};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{Consent, Hold, JobKind, Scope, SubjectRecord, ValueRow};
use strongroom_storage::{Family, Mutation, Store};

use super::keys::{TENANT, all_read, filled, running, step, to_its_end, to_its_end_by_chance};
use super::rolls::{all, proven, roll};
use super::*;
use crate::{CancelJob, ConfirmClock, Delete, DeleteItem, GetJob, Job, StartExpire, StartRoll};

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
