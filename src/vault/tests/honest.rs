//! No false alarm: whatever order of requests, key changes, jobs, failed writes, restarts and crashes a vault has seen, its store
//! is what its ledger says.

mod event;

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::erasures::{erase_with, undo};
use super::keys::{TENANT, destroy, rotate};
use super::snapshot::Snapshot;
use super::*;
use crate::{
    ConsentScope, Count, Finding, Freeze, GrantConsent, JobPage, LiftHold, SetHold, SetLabels, SetTier, StartExpire,
    StartRewrap, StartRoll, Suspend, Unfreeze, Unsuspend, WithdrawConsent,
};
use event::{Event, FATES, FIELDS, JOBS, events};
use strongroom_storage::rows::JobKind;

/// How many histories, unless PROPTEST_CASES says otherwise: half of them end in order, and half by a kill. Each half has a test
/// of its own, so that two processors share them.
const HISTORIES: u32 = 1_000;
/// So many histories have something of everything.
const MANY: u32 = 400;
/// What must have come to something in many of them; the rest depends on what was before.
const COMMON: [&str; 23] = [
    "clearing",
    "consent",
    "delete",
    "end of a freeze",
    "erasure",
    "erasure with a time of grace",
    "freeze",
    "hold",
    "job",
    "kill",
    "label",
    "lift",
    "policy",
    "read",
    "replace",
    "restart",
    "rotation",
    "rotation of an index key",
    "schema",
    "store",
    "tier",
    "tiles",
    "withdrawal",
];
const USCCS: [&str; 2] = ["91350100M000100Y43", "91110000600037341L"];
/// What is the last of its values expires after so many seconds.
const SHORT: u64 = 50_000;
const HOUR: u64 = 3_600;
const MICROS: u64 = 1_000_000;

/// A vault that lives through it.
struct World {
    bench: Bench,
    vault: Arc<Tested>,
    /// Tokens that were given, of whatever is there still, and their fields.
    given: Vec<(String, usize)>,
    policies: usize,
}

fn value(field: usize, value: usize) -> String {
    match FIELDS[field] {
        "borrower.email" => format!("ann{value}@mail.example"),
        "borrower.mobile" => format!("138{value:08}"),
        "company.settlement_account" => format!("{value:08}"),
        "company.uscc" => USCCS[value % USCCS.len()].to_owned(),
        _ => format!("value {value}"),
    }
}

/// A data subject's id; none for nobody.
fn subject(number: usize) -> String {
    if number == 0 { String::new() } else { format!("c-{number}") }
}

impl World {
    async fn of(begun: &Snapshot) -> Self {
        let bench = begun.bench().await;
        let vault = bench.open().await;
        Self { bench, vault, given: vec![], policies: 0 }
    }

    fn one(&self, which: usize) -> Option<(String, usize)> {
        self.given.get(which.checked_rem(self.given.len())?).cloned()
    }

    fn now(&self) -> u64 {
        self.bench.now.load(Ordering::Relaxed)
    }

    /// Lets something happen. Answers whether it came to something; it may as well be refused, or fail.
    async fn see(&mut self, event: &Event) -> bool {
        let happened = match *event {
            Event::Restart => self.restart().await,
            Event::Kill => self.kill().await,
            Event::Pass(seconds) => {
                self.bench.pass(seconds);
                true
            }
            Event::Fail(fate) => {
                self.bench.faults.fail_write(FATES[fate]);
                true
            }
            Event::Store { field, value, subject } => self.store(field, value, subject).await,
            Event::Read(which) | Event::Match(which) | Event::Replace(which) | Event::Delete(which) => {
                match self.one(which) {
                    Some((token, field)) => self.touch(event, which, token, field).await,
                    None => false,
                }
            }
            Event::Lookup(which) => {
                let item = LookupItem { field: FIELDS[2].to_owned(), value: value(2, which % 5).into() };
                let request = Lookup { items: vec![item], purpose: "kyc_review".to_owned() };
                self.vault.lookup(&caller(Role::App), &request).await.is_ok()
            }
            Event::Label(_)
            | Event::Consent { .. }
            | Event::Hold { .. }
            | Event::Lift { .. }
            | Event::Erase { .. }
            | Event::UndoErasure(_) => self.treat(event).await,
            Event::Clear(steps) => self.clear(steps).await,
            Event::Rotate(_) | Event::RotateIndex(_) | Event::Destroy(_) => self.change_key(event).await,
            Event::Job { kind, entries } => self.work(JOBS[kind], entries).await,
            Event::Freeze(_) | Event::Suspend(_) | Event::Tier(_) | Event::Policy | Event::Schema(_) => {
                self.rule(event).await
            }
            Event::Tile => self.vault.follow_logs(None, u32::MAX).await.is_ok(),
        };
        recovered(&self.vault).await;
        happened
    }

    async fn store(&mut self, field: usize, number: usize, whose: usize) -> bool {
        let expires = (number == 4).then_some(self.now() + SHORT * MICROS);
        let items = vec![NewValue { expires, ..new_value(FIELDS[field], &value(field, number), &subject(whose)) }];
        let stored = self.vault.tokenize(&caller(Role::App), &tokenize(items, "")).await;
        let Ok(mut tokens) = stored else { return false };
        self.given.push((tokens.remove(0), field));
        true
    }

    /// Something is asked of a value.
    async fn touch(&self, event: &Event, which: usize, token: String, field: usize) -> bool {
        let (vault, app) = (&self.vault, caller(Role::App));
        match event {
            Event::Match(_) => {
                let value = value(field, which).into();
                let item = MatchItem { token, value, subject: String::new() };
                vault.matches(&app, &Match { items: vec![item], purpose: "kyc_review".to_owned() }).await.is_ok()
            }
            Event::Replace(_) => {
                let item = NewVersion { token, value: value(field, which % 7).into(), expires: None };
                vault.replace(&app, &Replace { items: vec![item], idempotency_key: String::new() }).await.is_ok()
            }
            Event::Delete(_) => {
                let items = vec![DeleteItem { token, subject: String::new() }];
                let deleted = vault.delete(&app, &Delete { items, idempotency_key: String::new() }).await;
                deleted.is_ok_and(|mut deleted| deleted.remove(0).is_ok())
            }
            _ => {
                let told = vault.detokenize(&app, &read(&token, "plain")).await;
                told.is_ok_and(|mut told| told.remove(0).is_ok())
            }
        }
    }

    /// Something happens to a data subject.
    async fn treat(&self, event: &Event) -> bool {
        let (vault, officer, app) = (&self.vault, caller(Role::Officer), caller(Role::App));
        let scope = ConsentScope::All;
        match *event {
            Event::Label(whose) => {
                let labels = vec![format!("branch-{}", self.now() % 3)];
                let request = SetLabels { subject: subject(whose), labels };
                vault.set_labels(&caller(Role::Privacy), &request).await.is_ok()
            }
            Event::Consent { subject: whose, grant } => {
                let (subject, purpose) = (subject(whose), "marketing".to_owned());
                if !grant {
                    return vault.withdraw_consent(&app, &WithdrawConsent { subject, purpose, scope }).await.is_ok();
                }
                let (version, channel, expires) = ("en-3".to_owned(), "web".to_owned(), None);
                let text = vec![0xab; 32];
                let request = GrantConsent { subject, purpose, scope, text, version, channel, given: None, expires };
                vault.grant_consent(&app, &request).await.is_ok()
            }
            Event::Hold { subject: whose, field } => {
                let request = SetHold {
                    subject: subject(whose),
                    fields: FIELDS.get(field).map(|field| (*field).to_owned()).into_iter().collect(),
                    reason: "case-2027/118".to_owned(),
                    purpose: "collections".to_owned(),
                    until: self.now() + 30 * HOUR * MICROS,
                };
                with_approval(vault, TENANT, async || vault.set_hold(&officer, &request).await).await.is_ok()
            }
            Event::Lift { subject: whose, number } => {
                let request = LiftHold { subject: subject(whose), number };
                with_approval(vault, TENANT, async || vault.lift_hold(&officer, &request).await).await.is_ok()
            }
            Event::Erase { subject: whose, hours } => {
                let whose = subject(whose);
                with_approval(vault, TENANT, async || erase_with(vault, &whose, hours * HOUR, "").await).await.is_ok()
            }
            Event::UndoErasure(whose) => undo(vault, &subject(whose)).await.is_ok(),
            _ => false,
        }
    }

    /// Goes on with erasures, and stops in the middle if there is more to do.
    async fn clear(&self, steps: usize) -> bool {
        let Ok((open, _)) = self.vault.open_erasures().await else { return false };
        let (mut left, mut done) = (steps, false);
        for (tenant, name) in open {
            while left > 0 {
                left -= 1;
                match self.vault.erasure_step(tenant, &name).await {
                    Ok(more) => {
                        done = true;
                        if !more {
                            break;
                        }
                    }
                    Err(_) => return done,
                }
            }
        }
        done
    }

    async fn change_key(&self, event: &Event) -> bool {
        let Ok(keys) = self.vault.list_keys(&caller(Role::Officer)).await else { return false };
        let index: Vec<_> = keys.iter().filter(|key| key.name.starts_with("index/")).collect();
        match *event {
            Event::Rotate(which) => rotate(&self.vault, &keys[which % keys.len()].name).await.is_ok(),
            Event::RotateIndex(which) => match which.checked_rem(index.len()) {
                Some(which) => rotate(&self.vault, &index[which].name).await.is_ok(),
                None => false,
            },
            Event::Destroy(which) => {
                let key = &keys[which % keys.len()];
                destroy(&self.vault, &key.name, key.version, false).await.is_ok()
            }
            _ => false,
        }
    }

    async fn rule(&mut self, event: &Event) -> bool {
        let (vault, officer) = (Arc::clone(&self.vault), caller(Role::Officer));
        match *event {
            Event::Freeze(on) => {
                let field = FIELDS[3].to_owned();
                if on {
                    let ask = Freeze { field, reads: true, writes: true, all_tenants: false };
                    return vault.freeze(&officer, &ask).await.is_ok();
                }
                let ask = Unfreeze { field, reads: true, writes: true, all_tenants: false };
                with_approval(&vault, TENANT, async || vault.unfreeze(&officer, &ask).await).await.is_ok()
            }
            Event::Suspend(on) => {
                let principal = "app/somebody".to_owned();
                match on {
                    true => vault.suspend(&officer, &Suspend { principal, reason: "a test".to_owned() }).await.is_ok(),
                    false => vault.unsuspend(&officer, &Unsuspend { principal }).await.is_ok(),
                }
            }
            Event::Tier(tier) => {
                let tier = ["I", "II", "III"][tier].to_owned();
                vault.set_tier(&officer, &SetTier { principal: "app/tester".to_owned(), tier }).await.is_ok()
            }
            Event::Policy => {
                self.policies += 1;
                let source = format!("{DEFAULT_POLICIES}\n// {}", self.policies);
                let policy = ApplyPolicy { source, tests: String::new(), dry_run: false };
                with_approval(&vault, TENANT, async || vault.apply_policy(&officer, &policy).await).await.is_ok()
            }
            Event::Schema(lookup) => {
                let source = if lookup { LENDING.to_owned() } else { LENDING.replacen("lookup = true\n", "", 1) };
                vault.apply_schema(&officer, &ApplySchema { source, dry_run: false }).await.is_ok()
            }
            _ => false,
        }
    }

    async fn work(&self, kind: JobKind, entries: usize) -> bool {
        let (vault, rotator) = (&self.vault, caller(Role::Rotator));
        let jobs = vault.running_jobs().await.unwrap_or_default();
        let running = jobs.into_iter().map(|(_, job)| job).find(|job| job.kind == kind);
        let Some(job) = running else {
            return match kind {
                JobKind::Rewrap => vault.start_rewrap(&rotator, &StartRewrap { name: String::new() }).await.is_ok(),
                JobKind::Roll => {
                    let all = StartRoll { name: String::new(), subject: String::new() };
                    vault.start_roll(&rotator, &all).await.is_ok()
                }
                JobKind::Reindex => vault.start_reindex(&rotator).await.is_ok(),
                JobKind::Expire => vault.start_expire(&caller(Role::Privacy), &StartExpire { up_to: 0 }).await.is_ok(),
            };
        };
        let mut count = Count::default();
        let mut more = job.to_count;
        while more {
            match vault.count_for_job(TENANT, kind, &mut count, entries).await {
                Ok(left) => more = left,
                Err(_) => return false,
            }
        }
        let total = job.to_count.then_some(count.due);
        let page = JobPage { kind, number: job.number, entries, total, of: count.of, kept: 0 };
        vault.job_page(TENANT, page).await.is_ok()
    }

    async fn restart(&mut self) -> bool {
        self.bench.faults.heal();
        self.vault.close().await;
        self.vault = self.bench.open().await;
        true
    }

    /// Goes on from what is on the disks. What the killed one would still have done is done to disks of its own.
    async fn kill(&mut self) -> bool {
        let left = self.left_by_a_kill().await;
        self.vault.close().await;
        self.bench = left;
        self.vault = self.bench.open().await;
        true
    }

    async fn left_by_a_kill(&self) -> Bench {
        self.bench.faults.heal();
        Snapshot::of(&self.bench).await.bench().await
    }
}

/// How a history ends.
#[derive(Clone, Copy)]
enum End {
    InOrder,
    Killed,
}

/// A vault in which nothing has happened yet: each history begins with a copy of it.
static BEGUN: OnceLock<Snapshot> = OnceLock::new();

fn block_on<T>(done: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(done)
}

/// Lets a vault live through a history; what verification finds then, and what came to something.
async fn lived(begun: &Snapshot, events: &[Event], end: End) -> (Vec<Finding>, BTreeSet<&'static str>) {
    let mut world = World::of(begun).await;
    let mut happened = BTreeSet::new();
    for event in events {
        if world.see(event).await {
            happened.insert(event.name());
        }
    }
    world.bench.faults.heal();
    let found = match end {
        End::InOrder => {
            world.vault.close().await;
            findings_by_journal(&world.bench).await
        }
        End::Killed => {
            let left = world.left_by_a_kill().await;
            world.vault.close().await;
            findings_by_journal(&left).await
        }
    };
    (found, happened)
}

fn no_alarm(end: End) {
    let begun = BEGUN.get_or_init(|| {
        block_on(async {
            let (bench, vault) = Bench::new().await;
            vault.close().await;
            Snapshot::of(&bench).await
        })
    });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(HISTORIES);
    let cases = u32::div_ceil(cases, 2);
    let config =
        ProptestConfig { cases, max_shrink_iters: 60, source_file: Some(file!()), ..ProptestConfig::default() };
    let all = Mutex::new(BTreeSet::new());
    let mut runner = TestRunner::new(config);
    let run = runner.run(&events(), |events| {
        let (found, happened) = block_on(lived(begun, &events, end));
        prop_assert_eq!(found, []);
        all.lock().unwrap().extend(happened);
        Ok(())
    });
    if let Err(alarm) = run {
        panic!("{alarm}\n{runner}");
    }
    let all = all.into_inner().unwrap();
    if cases >= MANY {
        let never: Vec<_> = COMMON.into_iter().filter(|event| !all.contains(event)).collect();
        assert!(never.is_empty(), "in {cases} histories none of these came to something: {never:?}");
    }
}

#[test]
fn no_honest_history_raises_an_alarm() {
    no_alarm(End::InOrder);
}

#[test]
fn no_honest_history_that_ends_by_a_kill_raises_an_alarm() {
    no_alarm(End::Killed);
}
