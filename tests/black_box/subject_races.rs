//! Withdrawals, grants, erasures, holds, tokenizations and reads of the same few subjects at once: in the order of the ledger each
//! stands on what came before it, and everybody was told so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::consents::consent;
use crate::harness::{TestVault, detokenize, item, tokenize, value};
use crate::patience::until;

const SUBJECTS: usize = 3;
/// Erasures of each of two desks; all the rest goes on until they are done.
const ERASURES: usize = 15;
/// Values that are read at once at the end.
const BATCH: usize = 500;
/// In which the background has done what it does by itself.
const SOON: Duration = Duration::from_secs(120);
/// What is held.
const CARD: &str = "borrower.id_card";
/// For what that is read then.
const OF_THE_HOLD: &str = "collections";

/// A field, a value of it, and what it is read for: by consent, without one, and as what is held; and at the end.
struct Kind {
    field: &'static str,
    value: &'static str,
    purpose: &'static str,
    view: &'static str,
    at_the_end: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        field: "borrower.name",
        value: "欧阳志远",
        purpose: "marketing",
        view: "masked",
        at_the_end: "loan_servicing",
    },
    Kind {
        field: "borrower.address",
        value: "北京市东城区",
        purpose: "loan_servicing",
        view: "plain",
        at_the_end: "loan_servicing",
    },
    Kind { field: CARD, value: "11010519491231002X", purpose: OF_THE_HOLD, view: "plain", at_the_end: "kyc_review" },
];

/// A value that was acknowledged.
#[derive(Clone)]
struct Given {
    token: String,
    subject: usize,
    kind: usize,
    sent: u64,
    answered: u64,
}

/// An erasure that was acknowledged.
struct Erased {
    subject: usize,
    sent: u64,
    answered: u64,
}

/// What its clients were told.
#[derive(Default)]
struct Race {
    given: Mutex<Vec<Given>>,
    erased: Mutex<Vec<Erased>>,
    /// Values that were shown.
    shown: AtomicUsize,
    /// Tells what was answered before something else was sent.
    time: AtomicU64,
    over: AtomicBool,
}

impl Race {
    fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }
}

fn id(subject: usize) -> String {
    format!("raced-{}", subject % SUBJECTS)
}

/// Refused for what somebody else did meanwhile, and for nothing else.
fn is_one_of(status: &Status, codes: &[Code]) {
    assert!(codes.contains(&status.code()), "{status:?}");
}

async fn subjects(vault: &TestVault, principal: &str) -> SubjectsClient<Channel> {
    SubjectsClient::new(vault.channel(principal).await)
}

/// Stores a value of every kind of every subject, one a request.
async fn write_round(vault: &TestVault, race: &Race, first: usize) {
    let mut client = vault.vault().await;
    for number in 0..SUBJECTS * KINDS.len() {
        let (subject, kind) = ((first + number) % SUBJECTS, number / SUBJECTS);
        let new = item(KINDS[kind].field, KINDS[kind].value, &id(subject));
        let sent = race.now();
        match client.tokenize(tokenize(vec![new])).await {
            Ok(answer) => {
                let token = answer.into_inner().tokens.remove(0);
                let answered = race.now();
                race.given.lock().unwrap().push(Given { token, subject, kind, sent, answered });
            }
            Err(status) => is_one_of(&status, &[Code::Aborted, Code::FailedPrecondition]),
        }
    }
}

async fn write(vault: &TestVault, race: &Race, writer: usize) {
    while race.goes_on() {
        write_round(vault, race, writer).await;
    }
}

async fn read(vault: &TestVault, race: &Race, reader: usize) {
    let mut client = vault.vault().await;
    let mut number = reader;
    while race.goes_on() {
        number += 1;
        let one = {
            let given = race.given.lock().unwrap();
            given.len().checked_sub(1 + number % 9).map(|place| given[place].clone())
        };
        let Some(one) = one else {
            tokio::task::yield_now().await;
            continue;
        };
        let Kind { purpose, view, .. } = KINDS[one.kind];
        match client.detokenize(detokenize(&[&one.token], purpose, view)).await {
            Ok(answer) => match value(answer.into_inner().results.remove(0)) {
                Ok(_) => _ = race.shown.fetch_add(1, Ordering::Relaxed),
                Err(told) => assert!(told.code == Code::NotFound || told.reason == "CONSENT_REQUIRED", "{told:?}"),
            },
            Err(status) => is_one_of(&status, &[Code::Aborted]),
        }
    }
}

/// Grants, and withdraws what was granted before.
async fn change_consents(vault: &TestVault, race: &Race, number: usize) {
    let mut client = subjects(vault, "app").await;
    for turn in (0..).take_while(|_| race.goes_on()) {
        let subject = id(number + turn);
        let answer = if turn % 2 == 0 {
            client.grant_consent(consent(&subject)).await.map(drop)
        } else {
            let request = v1::WithdrawConsentRequest { subject, purpose: "marketing".to_owned(), scope: None };
            client.withdraw_consent(request).await.map(drop)
        };
        if let Err(status) = answer {
            is_one_of(&status, &[Code::Aborted, Code::FailedPrecondition, Code::NotFound]);
        }
    }
}

async fn erase(vault: &TestVault, race: &Race, eraser: usize) {
    let mut desk = subjects(vault, "privacy").await;
    for number in 0..ERASURES {
        let subject = (eraser + number) % SUBJECTS;
        let request = v1::EraseSubjectRequest { subject: id(subject), ..Default::default() };
        let sent = race.now();
        match desk.erase_subject(request).await {
            Ok(answer) => {
                let state = answer.into_inner().state;
                assert!(["erased", "held", "clearing"].contains(&state.as_str()), "{state}");
                let answered = race.now();
                race.erased.lock().unwrap().push(Erased { subject, sent, answered });
            }
            Err(status) => is_one_of(&status, &[Code::Aborted, Code::NotFound]),
        }
    }
}

/// Sets a hold, and lifts the one before.
async fn change_holds(vault: &TestVault, race: &Race, holder: usize) {
    let mut officer = subjects(vault, "officer-1").await;
    let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 24 * 3_600;
    let mut before: Option<(String, u32)> = None;
    for turn in (0..).take_while(|_| race.goes_on()) {
        let subject = id(holder + turn);
        let request = v1::SetHoldRequest {
            subject: subject.clone(),
            fields: vec![CARD.to_owned()],
            reason: "case-7".to_owned(),
            purpose: OF_THE_HOLD.to_owned(),
            until_time: Some(prost_types::Timestamp { seconds: i64::try_from(tomorrow).unwrap(), nanos: 0 }),
        };
        let set = match officer.set_hold(request).await {
            Ok(answer) => Some((subject, answer.into_inner().number)),
            Err(status) => {
                is_one_of(&status, &[Code::Aborted, Code::NotFound, Code::InvalidArgument]);
                None
            }
        };
        if let Some((subject, number)) = std::mem::replace(&mut before, set) {
            lift(&mut officer, subject, number).await;
        }
    }
}

async fn lift(officer: &mut SubjectsClient<Channel>, subject: String, number: u32) {
    if let Err(status) = officer.lift_hold(v1::LiftHoldRequest { subject, number }).await {
        is_one_of(&status, &[Code::Aborted, Code::NotFound]);
    }
}

/// Lifts every hold, and waits until nothing is left to do of any erasure.
async fn settle(vault: &TestVault) {
    let (mut officer, mut desk) = (subjects(vault, "officer-1").await, subjects(vault, "privacy").await);
    until(SOON, "the end of all erasures", async || {
        for subject in 0..SUBJECTS {
            let holds = match desk.list_holds(v1::ListHoldsRequest { subject: id(subject) }).await {
                Ok(answer) => answer.into_inner().holds,
                Err(status) => {
                    is_one_of(&status, &[Code::Aborted, Code::NotFound]);
                    continue;
                }
            };
            for hold in holds.into_iter().filter(|hold| hold.stands) {
                lift(&mut officer, id(subject), hold.number).await;
            }
        }
        let request = v1::ListErasuresRequest { page_size: 1_000, page_token: String::new() };
        let listed = desk.list_erasures(request).await.unwrap().into_inner().erasures;
        let open: Vec<String> = listed.into_iter().map(|one| one.state).filter(|state| state != "erased").collect();
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
}

/// Which of the values open in the end.
async fn open(vault: &TestVault, given: &[Given]) -> Vec<bool> {
    let mut client = vault.vault().await;
    let mut opens = vec![false; given.len()];
    for (kind, Kind { value: stored, at_the_end, .. }) in KINDS.iter().enumerate() {
        let own: Vec<usize> = (0..given.len()).filter(|at| given[*at].kind == kind).collect();
        for batch in own.chunks(BATCH) {
            let tokens: Vec<&str> = batch.iter().map(|at| given[*at].token.as_str()).collect();
            let answer = client.detokenize(detokenize(&tokens, at_the_end, "plain")).await.unwrap().into_inner();
            assert_eq!(answer.results.len(), batch.len());
            for (at, result) in batch.iter().zip(answer.results) {
                match value(result) {
                    Ok(value) => assert_eq!(value, stored.as_bytes()),
                    Err(told) => {
                        assert_eq!(told.code, Code::NotFound, "{told:?}");
                        continue;
                    }
                }
                opens[*at] = true;
            }
        }
    }
    opens
}

/// What the ledger says of a subject so far.
#[derive(Default, PartialEq)]
enum State {
    #[default]
    Open,
    /// Erased but for what is held.
    Held,
    Closed,
}

#[derive(Default)]
struct Subject {
    state: State,
    consents: bool,
}

/// What the ledger says of all of them.
#[derive(Default)]
struct Followed {
    subjects: BTreeMap<String, Subject>,
    /// Rows that were stored, with their subjects.
    stored: Vec<(String, String)>,
    /// Rows that went with an erasure.
    deleted: BTreeSet<String>,
    /// How often consents were granted, and taken back.
    changes: [usize; 2],
    /// Values that were shown: by consent, and in all.
    shown: [usize; 2],
}

/// Sees that each leaf stands on what came before it.
fn follow(leaves: &[Value]) -> Followed {
    let mut followed = Followed::default();
    let mut last = None;
    for leaf in leaves {
        let index: u64 = leaf["index"].as_str().unwrap().parse().unwrap();
        assert!(last.replace(index).is_none_or(|last| last < index));
        for item in leaf["items"].as_array().into_iter().flatten() {
            if item["subject"].is_null() {
                continue;
            }
            let (handle, row) = (item["subject"].to_string(), item["row"].to_string());
            let subject = followed.subjects.entry(handle.clone()).or_default();
            match (leaf["action"].as_str().unwrap(), item["outcome"].as_str().unwrap()) {
                ("grant_consent", "consent_granted") => {
                    assert!(subject.state == State::Open, "{leaf}");
                    subject.consents = true;
                    followed.changes[0] += 1;
                }
                ("withdraw_consent", "consent_withdrawn") => {
                    subject.consents = false;
                    followed.changes[1] += 1;
                }
                ("erase_subject", "subject_held") => *subject = Subject { state: State::Held, consents: false },
                ("erase_subject", "subject_closed" | "subject_erased") => {
                    *subject = Subject { state: State::Closed, consents: false };
                }
                ("erase_subject", "deleted") => {
                    assert!(followed.deleted.insert(row), "it goes twice: {leaf}");
                }
                ("tokenize", "ok") => {
                    assert!(subject.state == State::Open, "sealed under a destroyed DEK: {leaf}");
                    followed.stored.push((row, handle));
                }
                ("detokenize", "ok") => {
                    let of_the_hold = leaf["purpose"] == OF_THE_HOLD && item["field"] == CARD;
                    let by_consent = leaf["purpose"] == "marketing";
                    assert!(subject.state != State::Closed, "it is read after its erasure: {leaf}");
                    assert!(subject.state == State::Open || of_the_hold, "it is read for another purpose: {leaf}");
                    assert!(!by_consent || subject.consents, "it is read after the withdrawal: {leaf}");
                    followed.shown[0] += usize::from(by_consent);
                    followed.shown[1] += 1;
                }
                _ => {}
            }
        }
    }
    followed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_at_once_nothing_is_read_after_a_withdrawal_or_an_erasure_and_nothing_acknowledged_is_lost() {
    let mut vault = TestVault::start();
    let race = Race::default();
    write_round(&vault, &race, 0).await;
    let erasures = async {
        join_all((0..2).map(|eraser| erase(&vault, &race, eraser))).await;
        race.over.store(true, Ordering::Relaxed);
    };
    tokio::join!(
        erasures,
        join_all((0..2).map(|writer| write(&vault, &race, writer))),
        join_all((0..2).map(|reader| read(&vault, &race, reader))),
        join_all((0..2).map(|number| change_consents(&vault, &race, number))),
        join_all((0..2).map(|holder| change_holds(&vault, &race, holder))),
    );
    settle(&vault).await;
    // Whoever comes back after all of it is somebody new.
    write_round(&vault, &race, 0).await;

    let (given, erased) = (race.given.into_inner().unwrap(), race.erased.into_inner().unwrap());
    let opens = open(&vault, &given).await;
    let opened = opens.iter().filter(|opens| **opens).count();
    // What its caller knows for certain to have come before an erasure, or after all of them.
    for (one, opens) in given.iter().zip(opens) {
        let mut own = erased.iter().filter(|erasure| erasure.subject == one.subject);
        let after_all = own.clone().all(|erasure| erasure.answered < one.sent);
        assert!(!own.any(|erasure| one.answered < erasure.sent) || !opens, "it opens after its erasure");
        assert!(!after_all || opens, "it came after every erasure, and is lost");
    }

    let followed = follow(&vault.leaves().await);
    let shown = race.shown.into_inner();
    assert_eq!(followed.shown[1], shown + opened, "each value that was shown has its leaf");
    assert!(followed.shown[0] > 0 && followed.changes.iter().all(|changes| *changes > 0), "{:?}", followed.changes);
    // What was acknowledged was stored; of that all went which was a closed subject's, and nothing else.
    assert_eq!(followed.stored.len(), given.len());
    assert_eq!(opened, given.len() - followed.deleted.len());
    for (row, handle) in &followed.stored {
        let is_closed = followed.subjects[handle].state == State::Closed;
        assert_eq!(followed.deleted.contains(row), is_closed, "row {row} of {handle}");
    }
    let closed = followed.subjects.values().filter(|subject| subject.state == State::Closed).count();
    assert!(closed >= SUBJECTS, "{closed} were erased");
    assert!(followed.subjects.values().all(|subject| subject.state != State::Held));
    vault.verify_ledger();
    assert!(vault.stop().success());
    vault.cli_ok(&["verify"]);
    vault.hides((0..SUBJECTS).map(id));
}
