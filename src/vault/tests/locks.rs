//! Tenants whose own key is away, while others are served; and their coming back.

use strongroom_keys::{ArgonCost, OwnKey, Passphrase, PassphraseRoot, ProvidedKey};

use super::tenants::{NUMBER, SAVINGS, fill, listed, log, make, of, operator, read_of};
use super::*;
use crate::{Away, DestroyTenant, Export, Provided, RotateKey, StartRewrap, TenantState, verify};

/// A key that one tenant keeps.
fn own(passphrase: &str) -> Arc<dyn RootProvider> {
    Arc::new(PassphraseRoot::new(Passphrase::new(passphrase.to_owned()).unwrap(), ArgonCost::LEAST))
}

fn theirs() -> Arc<dyn RootProvider> {
    own("what only the savings tenant knows")
}

/// Gives the tenant a key of its own.
fn give(vault: &Tested) {
    let id = vault.tenant(NUMBER).unwrap().id;
    let key = ProvidedKey::ask(vault.id, id, &*theirs()).unwrap();
    vault.keystore.move_key(id, Some(OwnKey::Provided(key)), vault.now()).unwrap();
}

/// A vault with a tenant that has a key of its own, and the tokens of what that tenant has stored.
async fn with_own_key() -> (Bench, Arc<Tested>, Vec<String>) {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    give(&vault);
    (bench, vault, tokens)
}

/// Locks the tenant as one whose provider says no.
async fn lock(vault: &Tested) {
    let [tenant] = &vault.provided_tenants().await.unwrap()[..] else { panic!("one tenant has a provider") };
    let asked = vault.own_key_probe(tenant.id).unwrap().changed();
    vault.lock_tenant(tenant, asked, Away::Denied).await.unwrap();
}

/// Unlocks the tenant by what its provider unwraps.
async fn unlock(vault: &Tested) -> Result<(), Error> {
    let [tenant] = &vault.provided_tenants().await?[..] else { panic!("one tenant has a provider") };
    let key = vault.own_key_probe(tenant.id).unwrap().ask(&*theirs())?;
    vault.unlock_tenant(tenant, key).await
}

fn is_locked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::TenantLocked))
}

#[tokio::test]
async fn nothing_of_a_locked_tenant_is_read_or_written_and_others_notice_nothing() {
    let (bench, vault) = Bench::new().await;
    let others = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    give(&vault);
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    let held = vault.tenant(NUMBER).unwrap();

    lock(&vault).await;
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    let request = tokenize(vec![new_value("borrower.email", "b@mail.example", "")], "");
    assert!(is_locked(vault.tokenize(&of(NUMBER, Role::App), &request).await));
    assert!(is_locked(vault.status(&of(NUMBER, Role::App)).await));
    let export = Export::default();
    assert!(is_locked(vault.export(&of(NUMBER, Role::Auditor), &export).await));
    let rotate = RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    assert!(is_locked(vault.rotate_key(&of(NUMBER, Role::Officer), &rotate).await));
    // Also for who had found it before.
    let app = of(NUMBER, Role::App);
    assert!(is_locked(vault.road(&held, &app, &request, [0; 16]).await));
    assert!(vault.keystore.kek(held.id, strongroom_ids::KeyringNo(0)).is_err(), "its keys are gone from memory");
    assert!(vault.directory().tenants.contains_key(SAVINGS));
    assert_eq!(read_one(&vault, &others, "plain").await.unwrap(), ID_CARD.as_bytes());
    make(&vault, "loans").await.unwrap();
    lock(&vault).await;

    unlock(&vault).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    vault.tokenize(&of(NUMBER, Role::App), &request).await.unwrap();
    assert!(is_locked(vault.road(&held, &app, &request, [0; 16]).await), "who was turned away finds it anew");
    let leaves = log(&vault, &of(NUMBER, Role::Auditor), "").await;
    let of_locks: Vec<_> = leaves.iter().filter(|leaf| leaf["principal"] == "vault").collect();
    let actions: Vec<_> = of_locks.iter().map(|leaf| leaf["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["lock_tenant", "unlock_tenant"]);
    assert_eq!(of_locks[0]["detail"]["own_key"], "file");
    let id = held.id;
    vault.close().await;

    let closed = Closed::of(&bench);
    let key = closed.keystore.own_key_probe(id).unwrap().ask(&*theirs()).unwrap();
    closed.keystore.unlock_tenant(id, Some(key)).unwrap();
    assert_eq!(verify(&closed.against(&[]), &mut |_| {}).await.unwrap().findings, []);
}

#[tokio::test]
async fn a_start_leaves_a_tenant_locked_until_its_own_key_and_no_other_unlocks_it() {
    let (bench, vault) = Bench::new().await;
    let others = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    give(&vault);
    vault.close().await;

    let closed = Closed::of(&bench);
    let report = verify(&closed.against(&[]), &mut |_| {}).await.unwrap();
    assert_eq!(report.findings, []);
    let (locked, served): (Vec<_>, Vec<_>) = report.tenants.iter().partition(|(_, counts)| counts.locked);
    let [(name, only_the_log)] = &locked[..] else { panic!("one is locked") };
    assert!(**name == *SAVINGS && only_the_log.leaves > 0 && only_the_log.values == 0);
    assert_eq!(served.iter().map(|(_, counts)| counts.values).sum::<u64>(), 1);
    drop(closed);

    let vault = bench.open().await;
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    assert_eq!(read_one(&vault, &others, "plain").await.unwrap(), ID_CARD.as_bytes());
    let [tenant] = &vault.provided_tenants().await.unwrap()[..] else { panic!("one tenant has a provider") };
    assert!(vault.own_key_probe(tenant.id).unwrap().ask(&*own("what anybody might guess")).is_err());
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    unlock(&vault).await.unwrap();
    unlock(&vault).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn jobs_of_a_locked_tenant_wait_and_go_on() {
    let (_bench, vault, _) = with_own_key().await;
    let officer = of(NUMBER, Role::Officer);
    let rotate = RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    vault.rotate_key(&officer, &rotate).await.unwrap();
    vault.start_rewrap(&officer, &StartRewrap { name: String::new() }).await.unwrap();
    vault.job_started().await;
    assert_eq!(vault.running_jobs().await.unwrap().len(), 1);
    lock(&vault).await;
    assert!(vault.running_jobs().await.unwrap().is_empty());
    unlock(&vault).await.unwrap();
    vault.job_started().await;
    assert_eq!(vault.running_jobs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_has_no_key_of_its_own_is_not_locked_and_the_vault_itself_never() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    assert_eq!(vault.provided_tenants().await.unwrap(), []);
    for number in [TenantNo(0), TenantNo(1)] {
        let id = vault.tenant(number).unwrap().id;
        let one = Provided { number, id, name: "whoever".to_owned() };
        vault.lock_tenant(&one, 0, Away::Denied).await.unwrap();
        vault.tenant(number).unwrap().is_there().unwrap();
    }
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn a_locked_tenant_can_be_destroyed() {
    let (bench, vault, _) = with_own_key().await;
    lock(&vault).await;
    let id = vault.provided_tenants().await.unwrap()[0].id;
    assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Locked);
    let dry = vault.destroy_tenant(&operator(), &DestroyTenant { name: SAVINGS.to_owned(), dry_run: true }).await;
    assert!(dry.unwrap().values > 0);
    assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Locked);
    let gone = vault.destroy_tenant(&operator(), &DestroyTenant { name: SAVINGS.to_owned(), dry_run: false }).await;
    assert!(gone.unwrap().receipt.contains(SAVINGS));
    assert!(vault.keystore.own_key(id).is_none() && vault.provided_tenants().await.unwrap().is_empty());
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn what_is_heard_of_an_own_key_that_has_changed_since_locks_nobody() {
    let (_bench, vault, tokens) = with_own_key().await;
    let tenant = vault.provided_tenants().await.unwrap().remove(0);
    let before = vault.own_key_probe(tenant.id).unwrap();
    let asked = before.changed();
    let late = before.ask(&*theirs()).unwrap();
    give(&vault);
    vault.lock_tenant(&tenant, asked, Away::Denied).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    assert!(matches!(vault.unlock_tenant(&tenant, late).await, Err(Error::OwnKey(_))));
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn an_older_keystore_is_refused_though_its_tenant_is_locked_in_it() {
    let (bench, vault, _) = with_own_key().await;
    let file = bench.folder.path().join("keys");
    let before = std::fs::read(&file).unwrap();
    let rotate = RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    vault.rotate_key(&of(NUMBER, Role::Officer), &rotate).await.unwrap();
    vault.close().await;
    std::fs::write(&file, before).unwrap();
    assert!(bench.try_open().await.is_err());
}
