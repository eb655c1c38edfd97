//! Tenants that come and go while the vault runs, and what a crash may cut off of that.

use strongroom_ledger::receipt;
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::*;
use crate::{
    BackupKeystore, CreateTenant, DestroyTenant, DestroyedTenant, Export, LeafFilter, ListedTenant, MadeTenant,
    RotateKey, StrikeKeystoreCopy, TenantState,
};

pub const SAVINGS: &str = "savings";
pub const NUMBER: TenantNo = TenantNo(2);

pub fn operator() -> Caller {
    let principal = Principal::new(TenantNo(0), Role::Operator, "sre-1");
    Caller::new(Arc::new(principal), "test")
}

pub fn of(tenant: TenantNo, role: Role) -> Caller {
    let name = if role == Role::Officer { "carol" } else { "tester" };
    Caller::new(Arc::new(Principal::new(tenant, role, name)), "test")
}

pub async fn make(vault: &Tested, name: &str) -> Result<MadeTenant, Error> {
    let officers = vec![("carol".to_owned(), [3; 32]), (SECOND.to_owned(), key_of_second())];
    vault.create_tenant(&operator(), &CreateTenant { name: name.to_owned(), officers }).await
}

async fn end(vault: &Tested, name: &str, dry_run: bool) -> Result<DestroyedTenant, Error> {
    vault.destroy_tenant(&operator(), &DestroyTenant { name: name.to_owned(), dry_run }).await
}

pub async fn listed(vault: &Tested, name: &str) -> Option<ListedTenant> {
    vault.list_tenants(&operator()).await.unwrap().into_iter().find(|tenant| tenant.name == name)
}

/// Applies the schema and stores a value of a subject and one of nobody; their tokens.
pub async fn fill(vault: &Tested, tenant: TenantNo) -> Vec<String> {
    let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
    vault.apply_schema(&of(tenant, Role::Officer), &schema).await.unwrap();
    let items = vec![new_value("borrower.id_card", ID_CARD, "c-1"), new_value("borrower.email", "a@mail.example", "")];
    vault.tokenize(&of(tenant, Role::App), &tokenize(items, "first")).await.unwrap()
}

pub async fn read_of(vault: &Tested, tenant: TenantNo, token: &str) -> Result<Vec<u8>, Error> {
    let mut results = vault.detokenize(&of(tenant, Role::App), &read(token, "plain")).await?;
    results.remove(0).map(|released| released.value.as_bytes().to_vec())
}

pub async fn log(vault: &Tested, caller: &Caller, log: &str) -> Vec<serde_json::Value> {
    let request = Export { log: log.to_owned(), ..Export::default() };
    let mut pages = vault.export(caller, &request).await.unwrap();
    let mut leaves = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        leaves.extend(page.leaves.iter().map(|line| serde_json::from_slice(line).unwrap()));
    }
    leaves
}

async fn clear(vault: &Tested) {
    for tenant in vault.tenants_to_clear().await.unwrap() {
        for family in Family::ALL {
            vault.clear_rows(tenant, family).await.unwrap();
        }
        vault.record_cleared(tenant).await.unwrap();
    }
}

/// All that a tenant has in the store but its log.
async fn rows(bench: &Bench, tenant: TenantNo) -> Vec<(Family, Vec<u8>)> {
    let mut all = Vec::new();
    let from = tenant.0.to_be_bytes().to_vec();
    let log = [Family::Leaves, Family::Tiles, Family::LeafIndex, Family::Archived];
    for family in Family::ALL.into_iter().filter(|family| !log.contains(family)) {
        let range = Range { from: from.clone(), to: place::prefix_end(&from), limit: usize::MAX };
        all.extend(bench.disk.scan(family, range).await.unwrap().into_iter().map(|(key, _)| (family, key.to_vec())));
    }
    all
}

async fn proven(bench: &Bench, vault: &Tested) {
    vault.close().await;
    assert_eq!(findings(bench, &[]).await, []);
}

/// Wrapped keys in the keystore: blobs of 62 bytes of format 3.
fn wrapped(bench: &Bench) -> Vec<Vec<u8>> {
    let file = std::fs::read(bench.folder.path().join("keys")).unwrap();
    file.windows(63).filter(|at| at[..3] == [62, 3, 1]).map(|at| at[1..].to_vec()).collect()
}

#[tokio::test]
async fn a_new_tenant_serves_at_once_and_has_everything_of_its_own() {
    let (bench, vault) = Bench::new().await;
    let theirs = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let before = vault.directory();
    let made = make(&vault, SAVINGS).await.unwrap();
    assert_eq!(made.number, NUMBER);
    let directory = vault.directory();
    assert!(!Arc::ptr_eq(&before, &directory), "who is connected is looked up anew");
    assert_eq!(directory.tenants.get(SAVINGS), Some(&NUMBER));
    assert_eq!(directory.officers.get(&(NUMBER, "carol".to_owned())), Some(&[3; 32]));
    let own = fill(&vault, NUMBER).await;
    assert_eq!(read_of(&vault, NUMBER, &own[0]).await.unwrap(), ID_CARD.as_bytes());
    assert!(matches!(read_of(&vault, NUMBER, &theirs).await, Err(Error::NotFound)));
    assert!(matches!(read_one(&vault, &own[0], "plain").await, Err(Error::NotFound)));
    let leaves = log(&vault, &of(NUMBER, Role::Auditor), "").await;
    assert_eq!((&leaves[0]["action"], &leaves[0]["principal"]), (&"create_tenant".into(), &"operator/sre-1".into()));
    assert_eq!(leaves[0]["detail"]["officer/carol"], "03".repeat(32));
    let stages: Vec<_> =
        log(&vault, &operator(), "").await.into_iter().filter(|leaf| leaf["action"] == "create_tenant").collect();
    assert_eq!(
        stages.iter().map(|leaf| leaf["detail"]["stage"].as_str().unwrap()).collect::<Vec<_>>(),
        ["intent", "done"]
    );
    assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Serving);
    vault.close().await;
    let vault = bench.open().await;
    assert_eq!(read_of(&vault, NUMBER, &own[0]).await.unwrap(), ID_CARD.as_bytes());
    assert_eq!(read_one(&vault, &theirs, "plain").await.unwrap(), ID_CARD.as_bytes());
    proven(&bench, &vault).await;
}

#[tokio::test]
async fn what_cannot_be_made_or_destroyed_is_refused_and_nothing_changes() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let keystore = vault.keystore.number();
    let directory = vault.directory();
    assert!(matches!(make(&vault, SAVINGS).await, Err(Error::TenantExists)));
    assert!(matches!(make(&vault, "demo").await, Err(Error::TenantExists)));
    for name in ["", "system", "Savings", "a/b", "a b", "名", &"x".repeat(65), "a\n"] {
        assert!(matches!(make(&vault, name).await, Err(Error::Invalid(_))), "{name}");
        assert!(matches!(end(&vault, name, false).await, Err(Error::Invalid(_))), "{name}");
    }
    let with = async |officers: Vec<(String, [u8; 32])>| {
        vault.create_tenant(&operator(), &CreateTenant { name: "other".to_owned(), officers }).await
    };
    let named = |name: &str| (name.to_owned(), [5 + name.len() as u8; 32]);
    let twice = with(vec![("a".to_owned(), [5; 32]), ("b".to_owned(), [6; 32]), ("c".to_owned(), [5; 32])]).await;
    let Err(Error::Invalid(problems)) = twice else { panic!("one key is one person") };
    assert!(format!("{problems:?}").contains("officers[2]"), "{problems:?}");
    assert!(matches!(with(vec![]).await, Err(Error::Invalid(_))));
    assert!(matches!(with(vec![named("a"), named("bb"), named("a")]).await, Err(Error::Invalid(_))));
    assert!(matches!(with(vec![named("a/b")]).await, Err(Error::Invalid(_))));
    assert!(matches!(with((0..65).map(|n| named(&n.to_string())).collect()).await, Err(Error::Invalid(_))));
    assert!(matches!(end(&vault, "nobody", true).await, Err(Error::TenantNotFound)));
    for role in Role::ALL {
        let caller = caller(role);
        let request = CreateTenant { name: "other".to_owned(), officers: vec![named("a")] };
        assert!(matches!(vault.create_tenant(&caller, &request).await, Err(Error::Denied { .. })), "{role}");
        let request = DestroyTenant { name: SAVINGS.to_owned(), dry_run: true };
        assert!(matches!(vault.destroy_tenant(&caller, &request).await, Err(Error::Denied { .. })), "{role}");
        assert!(matches!(vault.list_tenants(&caller).await, Err(Error::Denied { .. })), "{role}");
    }
    assert_eq!(vault.keystore.number(), keystore);
    assert!(Arc::ptr_eq(&vault.directory(), &directory));
    vault.close().await;
    let limits = Limits { tenants: 2, ..Limits::MOST };
    let vault = bench.open_within(limits).await;
    assert!(matches!(make(&vault, "third").await, Err(Error::TenantLimit(2))));
    // One that is gone makes room, but neither its name nor its number come back.
    end(&vault, SAVINGS, false).await.unwrap();
    assert!(matches!(make(&vault, SAVINGS).await, Err(Error::TenantExists)));
    assert!(matches!(end(&vault, SAVINGS, false).await, Err(Error::TenantDestroyed)));
    assert!(matches!(end(&vault, SAVINGS, true).await, Err(Error::TenantDestroyed)));
    assert_eq!(make(&vault, "third").await.unwrap().number, TenantNo(3));
    proven(&bench, &vault).await;
}

#[tokio::test]
async fn a_tenants_own_policy_allows_nothing_that_is_the_vaults() {
    let (_bench, vault) = Bench::new().await;
    let all = "@id(\"all\") @why(\"All.\") permit (principal, action, resource);";
    put_in_force(&vault, &caller(Role::Officer), all).await;
    let officer = caller(Role::Officer);
    assert!(vault.list_keys(&officer).await.is_ok());
    assert!(matches!(vault.list_tenants(&officer).await, Err(Error::Denied { .. })));
    let create = CreateTenant { name: "other".to_owned(), officers: vec![("a".to_owned(), [1; 32])] };
    assert!(matches!(vault.create_tenant(&officer, &create).await, Err(Error::Denied { .. })));
    let destroy = DestroyTenant { name: "demo".to_owned(), dry_run: false };
    assert!(matches!(vault.destroy_tenant(&officer, &destroy).await, Err(Error::Denied { .. })));
    assert!(matches!(vault.seal(&officer).await, Err(Error::Denied { .. })));
    let backup = BackupKeystore { label: String::new() };
    assert!(matches!(vault.backup_keystore(&officer, &backup).await, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn a_destroyed_tenant_is_gone_at_once_and_nobody_else_is() {
    let (bench, vault) = Bench::new().await;
    let theirs = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let others = wrapped(&bench);
    make(&vault, SAVINGS).await.unwrap();
    let own = fill(&vault, NUMBER).await;
    read_of(&vault, NUMBER, &own[0]).await.unwrap();
    let held = vault.tenant(NUMBER).unwrap();
    let checkpoint = vault.checkpoint(&of(NUMBER, Role::Auditor), "").await.unwrap();
    bench.pass(60);
    let copy = vault.backup_keystore(&operator(), &BackupKeystore { label: "safe".to_owned() }).await.unwrap();
    bench.pass(60);

    let dry = end(&vault, SAVINGS, true).await.unwrap();
    assert_eq!((dry.values, dry.subjects, dry.copies.as_slice()), (2, 1, &["copy/1".to_owned()][..]));
    assert!(dry.key_versions > 6 && dry.receipt.is_empty());
    assert!(read_of(&vault, NUMBER, &own[0]).await.is_ok(), "a dry run changes nothing");

    let loss = end(&vault, SAVINGS, false).await.unwrap();
    assert_eq!((loss.values, loss.subjects, loss.key_versions), (2, 1, dry.key_versions));
    for token in &own {
        assert!(matches!(read_of(&vault, NUMBER, token).await, Err(Error::TenantDestroyed)));
    }
    let request = tokenize(vec![new_value("borrower.email", "b@mail.example", "")], "");
    assert!(matches!(vault.tokenize(&of(NUMBER, Role::App), &request).await, Err(Error::TenantDestroyed)));
    assert!(matches!(vault.status(&of(NUMBER, Role::App)).await, Err(Error::TenantDestroyed)));
    // Also for who had found it before.
    let app = of(NUMBER, Role::App);
    let late = vault.road(&held, &app, &request, [0; 16]).await;
    assert!(matches!(late.err(), Some(Error::TenantDestroyed)));
    assert!(vault.keystore.keys(held.id).iter().all(|key| key.state.as_str() == "destroyed"));
    assert_eq!(wrapped(&bench), others, "what is left of wrapped keys is the others'");
    assert_eq!(read_one(&vault, &theirs, "plain").await.unwrap(), ID_CARD.as_bytes());

    // Its log ends with that, and can still be had and proven.
    let ended = log(&vault, &operator(), SAVINGS).await;
    assert_eq!(ended.last().unwrap()["action"], "destroy_tenant");
    let last = vault.checkpoint(&operator(), SAVINGS).await.unwrap();
    let keys: Vec<&str> = last.keys.iter().map(String::as_str).collect();
    let signed = strongroom_ledger::checkpoint::verify(&last.note, &keys).unwrap();
    assert_eq!((signed.size, last.keys.as_slice()), (ended.len() as u64, checkpoint.keys.as_slice()));
    // Nothing more is signed of it, and nobody knows any more whom a subject's id meant.
    let whole = Export { log: SAVINGS.to_owned(), proofs: true, ..Export::default() };
    let filter = LeafFilter { subject: "c-1".to_owned(), ..LeafFilter::default() };
    let of_subject = Export { log: SAVINGS.to_owned(), filter, ..Export::default() };
    for request in [whole, of_subject] {
        assert!(matches!(vault.export(&operator(), &request).await, Err(Error::Invalid(_))));
    }
    // What leaves name can be asked for.
    let mut items = ended.iter().flat_map(|leaf| leaf["items"].as_array().into_iter().flatten());
    let handle = items.find_map(|item| item["subject"].as_str()).unwrap().parse().unwrap();
    let filter = LeafFilter { handle: Some(handle), ..LeafFilter::default() };
    let request = Export { log: SAVINGS.to_owned(), filter, ..Export::default() };
    let mut pages = vault.export(&operator(), &request).await.unwrap();
    assert!(!pages.next().await.unwrap().unwrap().leaves.is_empty());

    // The receipt says so, and in which copy the keys live on.
    let system = vault.checkpoint(&operator(), "").await.unwrap();
    let told = receipt::verify(&loss.receipt, &[&system.keys[0]]).unwrap();
    assert_eq!((told.name.as_str(), told.tenant, told.id), (SAVINGS, NUMBER, held.id));
    assert_eq!(told.copies, ["copy/1"]);
    assert_eq!(told.ended.size, signed.size);
    assert_eq!(told.keys.iter().map(|(_, versions)| u64::from(*versions)).sum::<u64>(), loss.key_versions);
    let leaf = &log(&vault, &operator(), "").await[told.leaf as usize];
    assert_eq!((&leaf["action"], &leaf["detail"]["stage"]), (&"destroy_tenant".into(), &"done".into()));
    assert_eq!(leaf["time"], told.time.to_string());
    let listed_now = listed(&vault, SAVINGS).await.unwrap();
    assert_eq!((listed_now.state, listed_now.dead), (TenantState::Destroyed, None));
    assert_eq!(listed_now.receipt, loss.receipt);
    bench.pass(60);
    vault.strike_keystore_copy(&operator(), &StrikeKeystoreCopy { name: copy.listed.name() }).await.unwrap();
    let listed_now = listed(&vault, SAVINGS).await.unwrap();
    assert!(listed_now.copies.is_empty() && listed_now.dead.is_some(), "no copy holds its keys any more");

    clear(&vault).await;
    assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Cleared);
    assert_eq!(rows(&bench, NUMBER).await, [(Family::Meta, place::lane(NUMBER, 0))]);
    vault.close().await;
    assert_eq!(findings(&bench, &[checkpoint.note.clone(), last.note]).await, []);
    let vault = bench.open().await;
    assert!(matches!(read_of(&vault, NUMBER, &own[0]).await, Err(Error::TenantDestroyed)));
    assert_eq!(read_one(&vault, &theirs, "plain").await.unwrap(), ID_CARD.as_bytes());
    vault.close().await;
}

#[tokio::test]
async fn an_older_keystore_does_not_bring_a_tenant_back() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let older = std::fs::read(bench.folder.path().join("keys")).unwrap();
    end(&vault, SAVINGS, false).await.unwrap();
    vault.close().await;
    std::fs::write(bench.folder.path().join("keys"), older).unwrap();
    assert!(matches!(bench.try_open().await.err(), Some(OpenError::KeystoreOld { .. })));
    let found = findings(&bench, &[]).await;
    assert!(found.iter().any(|one| (&*one.tenant, one.fault.as_str()) == (SAVINGS, "rolled_back")), "{found:?}");
}

#[tokio::test]
async fn the_end_of_a_tenant_cannot_be_taken_away() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    end(&vault, SAVINGS, false).await.unwrap();
    vault.close().await;
    bench.disk.write(vec![Mutation::Delete(Family::Meta, place::tenant_end(NUMBER))]).await.unwrap();
    assert!(matches!(bench.try_open().await.err(), Some(OpenError::Tenants { .. })));
    let found = findings(&bench, &[]).await;
    assert!(found.iter().any(|one| (&*one.tenant, one.fault.as_str()) == (SAVINGS, "missing")), "{found:?}");
}

#[tokio::test]
async fn a_directory_that_was_put_back_is_noticed() {
    let (bench, vault) = Bench::new().await;
    let row = async || bench.disk.get(Family::Meta, place::principals()).await.unwrap().unwrap();
    let first = row().await;
    make(&vault, SAVINGS).await.unwrap();
    let second = row().await;
    end(&vault, SAVINGS, false).await.unwrap();
    clear(&vault).await;
    vault.close().await;
    let newest = row().await;
    let put = async |row: &[u8]| {
        let put = Mutation::Put(Family::Meta, place::principals(), row.to_vec());
        bench.disk.write(vec![put]).await.unwrap();
    };
    for older in [&first, &second] {
        put(older).await;
        assert!(bench.try_open().await.is_err());
        assert!(!findings(&bench, &[]).await.is_empty());
    }
    put(&newest).await;
    assert_eq!(findings(&bench, &[]).await, []);
    // A row of a tenant that was cleared is one that somebody brought back.
    let key = place::row(NUMBER, strongroom_ids::RowId(1));
    bench.disk.write(vec![Mutation::Put(Family::Rows, key, vec![1])]).await.unwrap();
    let found = findings(&bench, &[]).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].tenant, found[0].fault.as_str()), (SAVINGS, "added"));
}

#[tokio::test]
async fn a_making_whose_writes_fail_is_finished_or_never_was() {
    for fate in [Fate::Lost, Fate::Stored, Fate::StoredAfterReopen] {
        for (restart, spared) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
            let (bench, vault) = Bench::new().await;
            bench.faults.fail_writes_after(spared, fate);
            assert!(make(&vault, SAVINGS).await.is_err(), "{fate:?} {spared}");
            recovered(&vault).await;
            let vault = if restart {
                vault.close().await;
                bench.open().await
            } else {
                vault.finish_tenant_changes().await.unwrap();
                vault
            };
            // Lost with its intent it never was; otherwise it is there, whole.
            let was_decided = spared > 0 || fate != Fate::Lost;
            assert_eq!(listed(&vault, SAVINGS).await.is_some(), was_decided, "{fate:?} {spared} {restart}");
            if !was_decided {
                assert_eq!(make(&vault, SAVINGS).await.unwrap().number, NUMBER);
            }
            assert!(matches!(make(&vault, SAVINGS).await, Err(Error::TenantExists)));
            let own = fill(&vault, NUMBER).await;
            assert_eq!(read_of(&vault, NUMBER, &own[0]).await.unwrap(), ID_CARD.as_bytes());
            proven(&bench, &vault).await;
        }
    }
}

#[tokio::test]
async fn an_end_whose_writes_fail_is_finished_or_never_was() {
    // Asked, ended, last checkpoint, keys destroyed, receipt.
    for spared in 0..5 {
        for fate in [Fate::Lost, Fate::Stored, Fate::StoredAfterReopen] {
            for restart in [true, false] {
                let (bench, vault) = Bench::new().await;
                let theirs = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
                make(&vault, SAVINGS).await.unwrap();
                let own = fill(&vault, NUMBER).await;
                bench.faults.fail_writes_after(spared, fate);
                assert!(end(&vault, SAVINGS, false).await.is_err(), "{fate:?} {spared}");
                recovered(&vault).await;
                let was_ended = spared > 1 || (spared == 1 && fate != Fate::Lost);
                let read = read_of(&vault, NUMBER, &own[0]).await;
                assert_eq!(read.is_err(), was_ended, "{fate:?} {spared}: what is on disk holds at once");
                let vault = if restart {
                    vault.close().await;
                    bench.open().await
                } else {
                    vault.finish_tenant_changes().await.unwrap();
                    vault
                };
                assert_eq!(read_of(&vault, NUMBER, &own[0]).await.is_err(), was_ended, "{fate:?} {spared} {restart}");
                if !was_ended {
                    end(&vault, SAVINGS, false).await.unwrap();
                }
                let gone = listed(&vault, SAVINGS).await.unwrap();
                assert_eq!(gone.state, TenantState::Destroyed, "{fate:?} {spared} {restart}");
                let system = vault.checkpoint(&operator(), "").await.unwrap();
                assert_eq!(receipt::verify(&gone.receipt, &[&system.keys[0]]).unwrap().name, SAVINGS);
                assert_eq!(log(&vault, &operator(), SAVINGS).await.last().unwrap()["action"], "destroy_tenant");
                clear(&vault).await;
                assert_eq!(read_one(&vault, &theirs, "plain").await.unwrap(), ID_CARD.as_bytes());
                proven(&bench, &vault).await;
            }
        }
    }
}

#[tokio::test]
async fn what_the_keystore_does_not_take_now_is_done_when_it_does() {
    for restart in [false, true] {
        let (bench, vault) = Bench::new().await;
        let in_the_way = bench.folder.path().join("keys.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(matches!(make(&vault, SAVINGS).await, Err(Error::KeyUnavailable(_))));
        assert!(listed(&vault, SAVINGS).await.is_none());
        assert!(vault.has_open_tenant_change().await.unwrap());
        let vault = reopened(&bench, vault, restart).await;
        assert!(listed(&vault, SAVINGS).await.is_none(), "a start serves the others");
        std::fs::remove_dir(&in_the_way).unwrap();
        vault.finish_tenant_changes().await.unwrap();
        let own = fill(&vault, NUMBER).await;

        std::fs::create_dir(&in_the_way).unwrap();
        assert!(matches!(end(&vault, SAVINGS, false).await, Err(Error::KeyUnavailable(_))));
        assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Ending);
        assert!(
            matches!(read_of(&vault, NUMBER, &own[0]).await, Err(Error::TenantDestroyed)),
            "it is gone all the same"
        );
        assert!(vault.tenants_to_clear().await.unwrap().is_empty());
        assert!(vault.clear_rows(NUMBER, Family::Rows).await.is_err());
        // No copy is made of a keystore that holds what is to be destroyed.
        assert!(vault.backup_keystore(&operator(), &BackupKeystore { label: String::new() }).await.is_err());
        let vault = reopened(&bench, vault, restart).await;
        assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Ending);
        assert!(store_one(&vault, "borrower.name", "张三", "c-0").await.starts_with("srt1_"));
        std::fs::remove_dir(&in_the_way).unwrap();
        vault.finish_tenant_changes().await.unwrap();
        assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Destroyed);
        assert_eq!(make(&vault, "third").await.unwrap().number, TenantNo(3));
        proven(&bench, &vault).await;
    }
}

async fn reopened(bench: &Bench, vault: Arc<Tested>, restart: bool) -> Arc<Tested> {
    if restart {
        vault.close().await;
        return bench.open().await;
    }
    vault
}

#[tokio::test]
async fn a_change_of_keys_that_was_left_open_comes_before_its_tenants_end() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let in_the_way = bench.folder.path().join("keys.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let rotate = RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    // Unsettled: whether the file has it is not known.
    let _ = vault.rotate_key(&of(NUMBER, Role::Officer), &rotate).await;
    std::fs::remove_dir(&in_the_way).unwrap();
    end(&vault, SAVINGS, false).await.unwrap();
    assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Destroyed);
    proven(&bench, &vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_released_after_the_last_leaf() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let own = fill(&vault, NUMBER).await;
    let (began, mut running) = tokio::sync::mpsc::unbounded_channel();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (vault, token, began) = (Arc::clone(&vault), own[0].clone(), began.clone());
            tokio::spawn(async move {
                let mut released = 0_usize;
                loop {
                    match read_of(&vault, NUMBER, &token).await {
                        Ok(_) => released += 1,
                        Err(Error::TenantDestroyed) => return released,
                        Err(error) => panic!("{error}"),
                    }
                    // Whoever waits for them has seen enough.
                    let _ = began.send(());
                }
            })
        })
        .collect();
    for _ in 0..50 {
        running.recv().await.unwrap();
    }
    end(&vault, SAVINGS, false).await.unwrap();
    let mut released = 0;
    for reader in readers {
        released += reader.await.unwrap();
    }
    // Refusals that were only counted are not written behind it either.
    vault.write_counted_refusals().await;
    let leaves = log(&vault, &operator(), SAVINGS).await;
    let reads = leaves.iter().filter(|leaf| leaf["action"] == "detokenize" && leaf["decision"] == "allow").count();
    assert_eq!(reads, released, "each release has its leaf, and each leaf comes before the last");
    assert_eq!(leaves.last().unwrap()["action"], "destroy_tenant");
    assert!(format!("{:?}", vault.deks).starts_with("DekCache(0 "), "no DEK of it is in memory: {:?}", vault.deks);
    proven(&bench, &vault).await;
}
