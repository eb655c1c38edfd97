//! No false alarm: whatever order of requests, key changes, jobs, failed writes and restarts a vault has seen, its store is
//! what its ledger says.

use proptest::prelude::*;
use strongroom_storage::rows::JobKind;

use super::keys::{TENANT, destroy, rotate};
use super::*;
use crate::{Count, Freeze, JobPage, SetTier, StartExpire, StartRewrap, StartRoll, Suspend, Unfreeze, Unsuspend};

/// How many histories, unless PROPTEST_CASES says otherwise.
const HISTORIES: u32 = 60;
/// Fields of all kinds: with and without index, shaped, deterministic for a subject and for the tenant.
const FIELDS: [&str; 6] = [
    "borrower.address",
    "borrower.email",
    "borrower.mobile",
    "borrower.name",
    "company.settlement_account",
    "company.uscc",
];
const USCCS: [&str; 2] = ["91350100M000100Y43", "91110000600037341L"];
const JOBS: [JobKind; 4] = JobKind::ALL;
/// What is the last of its values expires after so many seconds.
const SHORT: u64 = 50_000;
const FATES: [Fate; 2] = [Fate::Lost, Fate::Stored];

/// One thing that happens. What it is about is counted round among what there is.
#[derive(Clone, Debug)]
enum Event {
    Store {
        field: usize,
        value: usize,
        subject: usize,
    },
    Read(usize),
    Match(usize),
    Lookup(usize),
    Replace(usize),
    Delete(usize),
    Rotate(usize),
    Destroy(usize),
    /// Begins a job, or goes on with it by a page.
    Job {
        kind: usize,
        entries: usize,
    },
    Freeze(bool),
    Suspend(bool),
    Tier(usize),
    Policy,
    Schema(bool),
    Pass(u64),
    /// The next write fails.
    Fail(usize),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let store = (0..FIELDS.len(), 0..5_usize, 0..4_usize);
    let event = prop_oneof![
        10 => store.prop_map(|(field, value, subject)| Event::Store { field, value, subject }),
        3 => any::<usize>().prop_map(Event::Read),
        1 => any::<usize>().prop_map(Event::Match),
        1 => any::<usize>().prop_map(Event::Lookup),
        3 => any::<usize>().prop_map(Event::Replace),
        3 => any::<usize>().prop_map(Event::Delete),
        3 => any::<usize>().prop_map(Event::Rotate),
        2 => any::<usize>().prop_map(Event::Destroy),
        6 => (0..JOBS.len(), 1..9_usize).prop_map(|(kind, entries)| Event::Job { kind, entries }),
        1 => any::<bool>().prop_map(Event::Freeze),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => (0..3_usize).prop_map(Event::Tier),
        1 => Just(Event::Policy),
        1 => any::<bool>().prop_map(Event::Schema),
        1 => (1..200_000_u64).prop_map(Event::Pass),
        2 => (0..FATES.len()).prop_map(Event::Fail),
        1 => Just(Event::Restart),
    ];
    proptest::collection::vec(event, 5..50)
}

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

impl World {
    async fn new() -> Self {
        let (bench, vault) = Bench::new().await;
        Self { bench, vault, given: vec![], policies: 0 }
    }

    fn one(&self, which: usize) -> Option<&(String, usize)> {
        self.given.get(which.checked_rem(self.given.len())?)
    }

    /// Lets something happen. Whether it is refused or fails is all the same here.
    async fn see(&mut self, event: Event) {
        let (vault, officer, app) = (Arc::clone(&self.vault), caller(Role::Officer), caller(Role::App));
        match event {
            Event::Store { field, value: number, subject } => {
                let subject = if subject == 0 { String::new() } else { format!("c-{subject}") };
                let soon = self.bench.now.load(Ordering::Relaxed) + SHORT * 1_000_000;
                let expires = (number == 4).then_some(soon);
                let items = vec![NewValue { expires, ..new_value(FIELDS[field], &value(field, number), &subject) }];
                if let Ok(mut tokens) = vault.tokenize(&app, &tokenize(items, "")).await {
                    self.given.push((tokens.remove(0), field));
                }
            }
            Event::Read(which) => {
                let Some((token, _)) = self.one(which) else { return };
                let _ = vault.detokenize(&app, &read(token, "plain")).await;
            }
            Event::Match(which) => {
                let Some((token, field)) = self.one(which) else { return };
                let value = value(*field, which).into();
                let item = MatchItem { token: token.clone(), value, subject: String::new() };
                let _ = vault.matches(&app, &Match { items: vec![item], purpose: "kyc_review".to_owned() }).await;
            }
            Event::Lookup(which) => {
                let item = LookupItem { field: FIELDS[2].to_owned(), value: value(2, which % 5).into() };
                let _ = vault.lookup(&app, &Lookup { items: vec![item], purpose: "kyc_review".to_owned() }).await;
            }
            Event::Replace(which) => {
                let Some((token, field)) = self.one(which) else { return };
                let item = NewVersion { token: token.clone(), value: value(*field, which % 7).into(), expires: None };
                let _ = vault.replace(&app, &Replace { items: vec![item], idempotency_key: String::new() }).await;
            }
            Event::Delete(which) => {
                let Some((token, _)) = self.one(which) else { return };
                let items = vec![DeleteItem { token: token.clone(), subject: String::new() }];
                let _ = vault.delete(&app, &Delete { items, idempotency_key: String::new() }).await;
            }
            Event::Rotate(which) => {
                let Ok(keys) = vault.list_keys(&officer).await else { return };
                let _ = rotate(&vault, &keys[which % keys.len()].name).await;
            }
            Event::Destroy(which) => {
                let Ok(keys) = vault.list_keys(&officer).await else { return };
                let key = &keys[which % keys.len()];
                let _ = destroy(&vault, &key.name, key.version, false).await;
            }
            Event::Job { kind, entries } => self.work(JOBS[kind], entries).await,
            Event::Freeze(on) => {
                let field = FIELDS[3].to_owned();
                if on {
                    let _ =
                        vault.freeze(&officer, &Freeze { field, reads: true, writes: true, all_tenants: false }).await;
                } else {
                    let ask = Unfreeze { field, reads: true, writes: true, all_tenants: false };
                    let _ = with_approval(&vault, TENANT, async || vault.unfreeze(&officer, &ask).await).await;
                }
            }
            Event::Suspend(on) => {
                let principal = "app/somebody".to_owned();
                let _ = match on {
                    true => vault.suspend(&officer, &Suspend { principal, reason: "a test".to_owned() }).await,
                    false => vault.unsuspend(&officer, &Unsuspend { principal }).await,
                };
            }
            Event::Tier(tier) => {
                let tier = ["I", "II", "III"][tier].to_owned();
                let _ = vault.set_tier(&officer, &SetTier { principal: "app/tester".to_owned(), tier }).await;
            }
            Event::Policy => {
                self.policies += 1;
                let source = format!("{DEFAULT_POLICIES}\n// {}", self.policies);
                let policy = ApplyPolicy { source, tests: String::new(), dry_run: false };
                let _ = with_approval(&vault, TENANT, async || vault.apply_policy(&officer, &policy).await).await;
            }
            Event::Schema(lookup) => {
                let source = if lookup { LENDING.to_owned() } else { LENDING.replacen("lookup = true\n", "", 1) };
                let _ = vault.apply_schema(&officer, &ApplySchema { source, dry_run: false }).await;
            }
            Event::Pass(seconds) => self.bench.pass(seconds),
            Event::Fail(fate) => self.bench.faults.fail_write(FATES[fate]),
            Event::Restart => self.restart().await,
        }
        recovered(&self.vault).await;
    }

    async fn work(&self, kind: JobKind, entries: usize) {
        let (vault, rotator) = (&self.vault, caller(Role::Rotator));
        let jobs = vault.running_jobs().await.unwrap_or_default();
        let running = jobs.into_iter().map(|(_, job)| job).find(|job| job.kind == kind);
        let Some(job) = running else {
            let _ = match kind {
                JobKind::Rewrap => vault.start_rewrap(&rotator, &StartRewrap { name: String::new() }).await,
                JobKind::Roll => {
                    vault.start_roll(&rotator, &StartRoll { name: String::new(), subject: String::new() }).await
                }
                JobKind::Reindex => vault.start_reindex(&rotator).await,
                JobKind::Expire => vault.start_expire(&caller(Role::Privacy), &StartExpire { up_to: 0 }).await,
            };
            return;
        };
        let mut count = Count::default();
        let mut more = job.to_count;
        while more {
            match vault.count_for_job(TENANT, kind, &mut count, entries).await {
                Ok(left) => more = left,
                Err(_) => return,
            }
        }
        let total = job.to_count.then_some(count.due);
        let _ =
            vault.job_page(TENANT, JobPage { kind, number: job.number, entries, total, of: count.of, kept: 0 }).await;
    }

    async fn restart(&mut self) {
        self.bench.faults.heal();
        self.vault.close().await;
        self.vault = self.bench.open().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(HISTORIES),
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_honest_history_raises_an_alarm(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for event in events {
                world.see(event).await;
            }
            world.bench.faults.heal();
            world.vault.close().await;
            assert_eq!(findings(&world.bench, &[]).await, []);
        });
    }
}
