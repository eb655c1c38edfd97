//! Freezes and suspensions hold whatever goes wrong: full disks, lost answers, locked tenants, rows that are put back.

use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::*;
use crate::CreateTenant;
use crate::tests::tenants::{NUMBER, SAVINGS, fill, log, make, read_of};

#[tokio::test]
async fn freezes_and_suspensions_are_made_on_a_full_disk_too() {
    let (bench, vault) = Bench::new().await;
    let data = Data::of(&vault).await;
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    freeze(&vault, "", What::Reads).await;
    suspend(&vault, &caller(Role::Officer), "app/other").await.unwrap();
    assert_eq!(listed(&vault).await.suspended.len(), 1);
    bench.full.store(false, Ordering::Relaxed);
    vault.look_at_space();
    assert!(data.reads_are_frozen(&vault).await);
}

#[tokio::test]
async fn a_freeze_of_unknown_outcome_is_read_again_before_anybody_is_answered() {
    for fate in [Fate::Lost, Fate::Stored, Fate::StoredAfterReopen] {
        let (bench, vault) = Bench::new().await;
        let data = Data::of(&vault).await;
        make(&vault, SAVINGS).await.unwrap();
        let tokens = fill(&vault, NUMBER).await;
        let held = fate != Fate::Lost;
        // One tenant's, then all tenants'.
        bench.faults.fail_write(fate);
        assert!(vault.freeze(&caller(Role::Officer), &freezing("", What::Reads)).await.is_err());
        recovered(&vault).await;
        assert_eq!(data.reads_are_frozen(&vault).await, held, "{fate:?}");
        assert_eq!(freeze(&vault, "", What::Reads).await, !held, "a retry is safe");
        assert!(unfreeze(&vault, "", What::Reads).await);

        bench.faults.fail_write(fate);
        assert!(freeze_all(&vault, What::Reads).await.is_err());
        recovered(&vault).await;
        assert_eq!(is_frozen(&read_of(&vault, NUMBER, &tokens[0]).await), held, "{fate:?}");
        assert_eq!(data.reads_are_frozen(&vault).await, held, "{fate:?}");
        assert_eq!(freeze_all(&vault, What::Reads).await.unwrap(), !held);
        assert!(data.reads_are_frozen(&vault).await);
        vault.close().await;
        assert_eq!(findings(&bench, &[]).await, [], "{fate:?}");
    }
}

#[tokio::test]
async fn freezes_that_are_put_back_changed_or_removed_are_found() {
    let (bench, vault) = Bench::new().await;
    let data = Data::of(&vault).await;
    freeze(&vault, "", What::Reads).await;
    freeze_all(&vault, What::Writes).await.unwrap();
    vault.close().await;
    let keys = [place::freezes(DEMO), place::freezes(TenantNo(0))];
    let mut first = Vec::new();
    for key in &keys {
        first.push(bench.disk.get(Family::Meta, key.clone()).await.unwrap().unwrap().to_vec());
    }
    let vault = bench.open().await;
    // By an honest way the tenant's freeze ends and comes again, so that an older row says something else.
    unfreeze(&vault, "", What::Reads).await;
    freeze(&vault, "", What::Both).await;
    freeze_all(&vault, What::Reads).await.unwrap();
    vault.close().await;
    for ((key, older), tenant) in keys.into_iter().zip(first).zip(["demo", "system"]) {
        let newest = bench.disk.get(Family::Meta, key.clone()).await.unwrap().unwrap().to_vec();
        let mut changed = newest.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (row, fault) in [(Some(older), "rolled_back"), (Some(changed), "changed"), (None, "missing")] {
            let mutation = match row {
                Some(row) => Mutation::Put(Family::Meta, key.clone(), row),
                None => Mutation::Delete(Family::Meta, key.clone()),
            };
            bench.disk.write(vec![mutation]).await.unwrap();
            let why = refused(&bench).await;
            assert!(why.contains("its list of freezes is"), "{tenant} {fault}: {why}");
            let found = findings(&bench, &[]).await;
            let told: Vec<_> = found.iter().map(|one| (&*one.tenant, one.kind.as_str(), one.fault.as_str())).collect();
            assert_eq!(told, [(tenant, "freezes", fault)]);
        }
        bench.disk.write(vec![Mutation::Put(Family::Meta, key, newest)]).await.unwrap();
    }
    let vault = bench.open().await;
    assert!(data.reads_are_frozen(&vault).await);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn a_locked_tenant_comes_back_frozen_and_its_suspended_officer_does_not_bring_it_back() {
    let (_bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    let officer = of(NUMBER, Role::Officer);
    let key: [u8; 32] = [0x0c; 32];
    let wrap = |public: &crate::ImportPublicKey| strongroom_key_import::wrap(&public.der, &key).unwrap();
    let public = vault.create_import_key(&officer).await.unwrap();
    let bring = crate::ImportOwnKey { wrapped: wrap(&public), replace: false };
    vault.import_own_key(&officer, &bring).await.unwrap();
    vault.remove_own_key(&officer).await.unwrap();
    // All are frozen while it is locked: its log says so, and it obeys once it is there again.
    freeze_all(&vault, What::Reads).await.unwrap();
    let public = vault.create_import_key(&officer).await.unwrap();
    let bring = crate::ImportOwnKey { wrapped: wrap(&public), replace: false };
    vault.import_own_key(&officer, &bring).await.unwrap();
    assert!(is_frozen(&read_of(&vault, NUMBER, &tokens[0]).await));
    let log = log(&vault, &of(NUMBER, Role::Auditor), "").await;
    assert!(log.iter().any(|leaf| leaf["action"] == "freeze_all"));
    unfreeze_all(&vault, What::Reads).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());

    let officers = vec![("carol".to_owned(), [3; 32]), ("dave".to_owned(), [4; 32])];
    vault.create_tenant(&operator(), &CreateTenant { name: "third".to_owned(), officers }).await.unwrap();
    let third = TenantNo(3);
    let dave = Caller { principal: Arc::new(Principal::new(third, Role::Officer, "dave")), ..officer.clone() };
    let carol = of(third, Role::Officer);
    let public = vault.create_import_key(&carol).await.unwrap();
    let bring = crate::ImportOwnKey { wrapped: wrap(&public), replace: false };
    vault.import_own_key(&carol, &bring).await.unwrap();
    suspend(&vault, &carol, "officer/dave").await.unwrap();
    vault.remove_own_key(&carol).await.unwrap();
    assert!(is_suspended(&vault.get_own_key(&dave).await));
    assert!(is_suspended(&vault.create_import_key(&dave).await));
    assert!(vault.get_own_key(&carol).await.unwrap().unwrap().locked);
}
