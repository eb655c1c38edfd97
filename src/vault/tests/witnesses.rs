//! Checkpoints that need witnesses.

use ring::signature::{Ed25519KeyPair, KeyPair};
use strongroom_ledger::{checkpoint, cosignature};

use super::keys::{TENANT, rotate, set_state};
use super::*;
use crate::{AddCosignature, AddedCosignature, Checkpoint, Wanted, Witnesses};

/// Somebody who cosigns whatever it is given.
struct Witness {
    name: String,
    key: Ed25519KeyPair,
}

impl Witness {
    fn new(seed: u8) -> Self {
        Self { name: format!("w.example/{seed}"), key: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    fn public(&self) -> [u8; 32] {
        self.key.public_key().as_ref().try_into().unwrap()
    }

    fn vkey(&self) -> String {
        cosignature::vkey(&self.name, &self.public())
    }

    fn cosign(&self, note: &str) -> String {
        let sign = |text: &[u8]| self.key.sign(text).as_ref().try_into().unwrap();
        cosignature::cosign(note, &self.name, &self.public(), 1_800_000_000, sign).unwrap()
    }
}

/// Two of three are needed.
fn three() -> ([Witness; 3], Witnesses) {
    let witnesses = [Witness::new(1), Witness::new(2), Witness::new(3)];
    let wanted = Witnesses::new(witnesses.iter().map(Witness::vkey).collect(), 2).unwrap();
    (witnesses, wanted)
}

/// A checkpoint that is signed now, and not one of the last second.
async fn get(vault: &Tested, wanted: Wanted) -> Result<Checkpoint, Error> {
    vault.sign_anew(TENANT);
    vault.checkpoint_wanted(&caller(Role::Auditor), "", wanted).await
}

async fn newest(vault: &Tested) -> String {
    get(vault, Wanted::Newest).await.unwrap().note
}

async fn bring(vault: &Tested, note: String) -> Result<AddedCosignature, Error> {
    let request = AddCosignature { checkpoint: note, log: String::new() };
    vault.add_cosignature(&caller(Role::Auditor), &request).await
}

fn rule(refused: Result<AddedCosignature, Error>) -> &'static str {
    match refused {
        Err(Error::Invalid(violations)) => violations[0].rule,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_checkpoint_that_enough_witnesses_cosigned_is_given_out_and_outlives_a_restart() {
    let (bench, vault) = Bench::new().await;
    let ([one, two, three], wanted) = three();
    let vkeys = [one.vkey(), two.vkey(), three.vkey()];
    let vkeys: Vec<&str> = vkeys.iter().map(String::as_str).collect();
    vault.want_witnesses(wanted.clone());
    assert!(matches!(get(&vault, Wanted::Witnessed).await, Err(Error::WitnessesMissing(_))));
    let note = newest(&vault).await;
    assert_eq!(bring(&vault, one.cosign(&note)).await.unwrap().witnesses, 1);
    // The same witness again is no second one.
    assert_eq!(bring(&vault, one.cosign(&note)).await.unwrap().witnesses, 1);
    assert!(matches!(get(&vault, Wanted::Witnessed).await, Err(Error::WitnessesMissing(_))));
    store_one(&vault, "borrower.name", "Ann", "").await;
    let added = bring(&vault, two.cosign(&note)).await.unwrap();
    assert_eq!((added.witnesses, added.needed), (2, 2));
    let witnessed = get(&vault, Wanted::Witnessed).await.unwrap();
    assert_eq!(cosignature::witnesses(&witnessed.note, &vkeys), Ok(2));
    let signed = checkpoint::verify(&witnessed.note, &[witnessed.keys[0].as_str()]).unwrap();
    assert_eq!(signed.size, added.leaves);
    assert_eq!(vault.published_head("demo").await.unwrap().unwrap(), witnessed.note);

    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
    let vault = bench.open().await;
    vault.want_witnesses(wanted);
    assert_eq!(get(&vault, Wanted::Witnessed).await.unwrap().note, witnessed.note);
    // A third one is added to it, and a newer one takes its place.
    assert_eq!(bring(&vault, three.cosign(&note)).await.unwrap().witnesses, 3);
    assert_eq!(cosignature::witnesses(&get(&vault, Wanted::Witnessed).await.unwrap().note, &vkeys), Ok(3));
    let newer = newest(&vault).await;
    bring(&vault, two.cosign(&three.cosign(&newer))).await.unwrap();
    let witnessed = get(&vault, Wanted::Witnessed).await.unwrap().note;
    assert_eq!(checkpoint::claimed_size(&witnessed), checkpoint::claimed_size(&newer));
    // An older one does not.
    bring(&vault, two.cosign(&one.cosign(&note))).await.unwrap();
    assert_eq!(get(&vault, Wanted::Witnessed).await.unwrap().note, witnessed);
    vault.close().await;
    // Whoever wants more, or others, does not take what it has.
    let vault = bench.open().await;
    let others = vec![one.vkey(), two.vkey()];
    vault.want_witnesses(Witnesses::new(others, 2).unwrap());
    assert!(matches!(get(&vault, Wanted::Witnessed).await, Err(Error::WitnessesMissing(_))));
}

#[tokio::test]
async fn what_is_shown_by_https_is_cosigned_and_every_other_head_carries_what_it_has() {
    let (_bench, vault) = Bench::new().await;
    assert!(get(&vault, Wanted::Published).await.is_ok() && vault.cosigned_by(&newest(&vault).await).is_none());
    let ([one, two, _], wanted) = three();
    vault.want_witnesses(wanted);
    assert!(matches!(get(&vault, Wanted::Published).await, Err(Error::WitnessesMissing(_))));
    let head = get(&vault, Wanted::Newest).await.unwrap();
    assert_eq!(vault.cosigned_by(&head.note), Some((0, 2)));
    let tree = head.verify(&head.note).unwrap().tree();
    let now = async || vault.with_cosignatures(TENANT, head.clone(), &tree).await.note;
    assert_eq!(now().await, head.note);
    bring(&vault, one.cosign(&head.note)).await.unwrap();
    assert_eq!(vault.cosigned_by(&now().await), Some((1, 2)));
    assert!(matches!(get(&vault, Wanted::Published).await, Err(Error::WitnessesMissing(_))));
    bring(&vault, two.cosign(&head.note)).await.unwrap();
    assert_eq!(vault.cosigned_by(&now().await), Some((2, 2)));
    assert_eq!(get(&vault, Wanted::Published).await.unwrap().note, get(&vault, Wanted::Witnessed).await.unwrap().note);
    // Another tree has none of them.
    assert_eq!(vault.cosigned_by(&newest(&vault).await), Some((0, 2)));
}

#[tokio::test]
async fn witnesses_come_together_on_what_waits() {
    let (_bench, vault) = Bench::new().await;
    let ([one, two, _], wanted) = three();
    vault.want_witnesses(wanted);
    let begun = get(&vault, Wanted::Awaited).await.unwrap().note;
    bring(&vault, one.cosign(&begun)).await.unwrap();
    for number in 0..5 {
        store_one(&vault, "borrower.name", &format!("Ann {number}"), "").await;
    }
    let awaited = get(&vault, Wanted::Awaited).await.unwrap().note;
    assert_eq!(checkpoint::claimed_size(&awaited), checkpoint::claimed_size(&begun));
    assert_eq!(bring(&vault, two.cosign(&awaited)).await.unwrap().witnesses, 2);
    // Nothing waits any more.
    let next = get(&vault, Wanted::Awaited).await.unwrap().note;
    assert!(checkpoint::claimed_size(&next).unwrap() > checkpoint::claimed_size(&begun).unwrap());
    // What waits is bounded.
    for number in 0..40 {
        store_one(&vault, "borrower.name", &format!("Bob {number}"), "").await;
        bring(&vault, one.cosign(&newest(&vault).await)).await.unwrap();
    }
    assert!(vault.waiting.lock().await.values().all(|waiting| waiting.len() <= 16));
}

#[tokio::test]
async fn a_rotation_of_the_logs_key_takes_no_cosignature_away() {
    let (_bench, vault) = Bench::new().await;
    let ([one, two, three], wanted) = three();
    vault.want_witnesses(wanted);
    let by_old = newest(&vault).await;
    bring(&vault, one.cosign(&by_old)).await.unwrap();
    rotate(&vault, "ledger").await.unwrap();
    // What waits is by the old key alone, and waits on.
    let awaited = get(&vault, Wanted::Awaited).await.unwrap();
    assert_eq!(checkpoint::claimed_size(&awaited.note), checkpoint::claimed_size(&by_old));
    assert_eq!(bring(&vault, two.cosign(&awaited.note)).await.unwrap().witnesses, 2);
    let witnessed = get(&vault, Wanted::Witnessed).await.unwrap();
    let holds = |key: usize| checkpoint::verify(&witnessed.note, &[witnessed.keys[key].as_str()]).is_ok();
    assert_eq!((witnessed.keys.len(), holds(0), holds(1)), (2, false, true));
    // The next one is by both, and both are kept.
    bring(&vault, two.cosign(&three.cosign(&newest(&vault).await))).await.unwrap();
    let by_both = get(&vault, Wanted::Witnessed).await.unwrap();
    for key in &by_both.keys {
        checkpoint::verify(&by_both.note, &[key.as_str()]).unwrap();
    }
    assert_eq!(vault.published_head("demo").await.unwrap().unwrap(), by_both.note);
    // It holds by the new one when the old one is nobody's word any more.
    set_state(&vault, "ledger", 1, "compromised").await.unwrap();
    assert_eq!(get(&vault, Wanted::Witnessed).await.unwrap().note, by_both.note);
}

#[tokio::test]
async fn what_only_a_compromised_key_has_signed_is_neither_given_out_nor_awaited() {
    let (_bench, vault) = Bench::new().await;
    let ([one, two, _], wanted) = three();
    vault.want_witnesses(wanted);
    bring(&vault, two.cosign(&one.cosign(&newest(&vault).await))).await.unwrap();
    store_one(&vault, "borrower.name", "Ann", "").await;
    let waits = newest(&vault).await;
    bring(&vault, one.cosign(&waits)).await.unwrap();
    rotate(&vault, "ledger").await.unwrap();
    set_state(&vault, "ledger", 1, "compromised").await.unwrap();
    assert!(matches!(get(&vault, Wanted::Witnessed).await, Err(Error::WitnessesMissing(_))));
    let next = get(&vault, Wanted::Awaited).await.unwrap().note;
    assert!(checkpoint::claimed_size(&next).unwrap() > checkpoint::claimed_size(&waits).unwrap());
    assert_eq!(rule(bring(&vault, two.cosign(&waits)).await), "not_of_this_log");
    bring(&vault, two.cosign(&one.cosign(&next))).await.unwrap();
    let witnessed = get(&vault, Wanted::Witnessed).await.unwrap().note;
    assert_eq!(checkpoint::claimed_size(&witnessed), checkpoint::claimed_size(&next));
}

#[tokio::test]
async fn what_is_not_of_this_log_or_by_no_witness_is_not_taken() {
    let (_bench, vault) = Bench::new().await;
    let (_other_bench, other) = Bench::new().await;
    let ([one, ..], wanted) = three();
    let refused = bring(&vault, one.cosign(&newest(&vault).await)).await;
    assert!(matches!(refused, Err(Error::WitnessesMissing(_))), "{refused:?}");
    vault.want_witnesses(wanted);
    let note = newest(&vault).await;
    assert_eq!(rule(bring(&vault, note.clone()).await), "no_witness");
    assert_eq!(rule(bring(&vault, Witness::new(9).cosign(&note)).await), "no_witness");
    assert_eq!(rule(bring(&vault, one.cosign(&newest(&other).await)).await), "not_of_this_log");
    assert_eq!(rule(bring(&vault, String::new()).await), "not_of_this_log");
    assert_eq!(rule(bring(&vault, "x".repeat(40_000)).await), "too_long");
    // By the name and number of one, and not by its key.
    let good = one.cosign(&note);
    let (rest, line) = good.trim_end().rsplit_once(' ').unwrap();
    let mut bytes = data_encoding::BASE64.decode(line.as_bytes()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let wrong = format!("{rest} {}\n", data_encoding::BASE64.encode(&bytes));
    assert_eq!(rule(bring(&vault, wrong).await), "cosignature");
    assert!(matches!(get(&vault, Wanted::Witnessed).await, Err(Error::WitnessesMissing(_))));
    for role in [Role::App, Role::Privacy, Role::Officer, Role::Rotator] {
        let request = AddCosignature { checkpoint: good.clone(), log: String::new() };
        let refused = vault.add_cosignature(&caller(role), &request).await;
        assert!(matches!(refused, Err(Error::Denied { .. })), "{role}");
    }
}

#[tokio::test]
async fn a_checkpoint_of_another_history_of_this_log_is_told_from_its_own() {
    let (_bench, vault) = Bench::new().await;
    let ([one, ..], wanted) = three();
    vault.want_witnesses(wanted);
    store_one(&vault, "borrower.name", "Ann", "").await;
    let note = newest(&vault).await;
    let size = checkpoint::claimed_size(&note).unwrap();
    // What this vault would have signed had another leaf been the last.
    let tenant = vault.tenant(TenantNo(1)).unwrap();
    let key = vault.keystore.ledger_key(tenant.id).unwrap();
    let origin = note.lines().next().unwrap();
    let forked = checkpoint::sign(origin, size, &[7; 32], &key.public_key(), |text| key.sign(text)).unwrap();
    store_one(&vault, "borrower.name", "Bob", "").await;
    vault.sign_anew(TENANT);
    assert_eq!(rule(bring(&vault, one.cosign(&forked)).await), "another_history");
    let beyond = checkpoint::sign(origin, size + 1_000, &[7; 32], &key.public_key(), |text| key.sign(text)).unwrap();
    assert_eq!(rule(bring(&vault, one.cosign(&beyond)).await), "another_history");
    assert_eq!(bring(&vault, one.cosign(&note)).await.unwrap().witnesses, 1);
}

#[tokio::test]
async fn one_witness_that_brings_ever_newer_checkpoints_keeps_no_others_from_coming_together() {
    let (_bench, vault) = Bench::new().await;
    let ([bad, two, three], wanted) = three();
    vault.want_witnesses(wanted);
    let begun = newest(&vault).await;
    bring(&vault, two.cosign(&begun)).await.unwrap();
    let size = |note: &str| checkpoint::claimed_size(note).unwrap();
    for number in 0..40 {
        store_one(&vault, "borrower.name", &format!("Ann {number}"), "").await;
        bring(&vault, bad.cosign(&newest(&vault).await)).await.unwrap();
        let awaited = get(&vault, Wanted::Awaited).await.unwrap().note;
        assert_eq!(size(&awaited), size(&begun), "the older of those that one has cosigned");
    }
    let awaited = get(&vault, Wanted::Awaited).await.unwrap().note;
    assert_eq!(bring(&vault, three.cosign(&awaited)).await.unwrap().witnesses, 2);
    assert_eq!(size(&get(&vault, Wanted::Witnessed).await.unwrap().note), size(&begun));
}

#[tokio::test]
async fn what_more_witnesses_have_cosigned_is_awaited_before_what_is_older() {
    let (_bench, vault) = Bench::new().await;
    let witnesses = [Witness::new(1), Witness::new(2), Witness::new(3)];
    vault.want_witnesses(Witnesses::new(witnesses.iter().map(Witness::vkey).collect(), 3).unwrap());
    let [one, two, _] = &witnesses;
    bring(&vault, one.cosign(&newest(&vault).await)).await.unwrap();
    store_one(&vault, "borrower.name", "Ann", "").await;
    let newer = newest(&vault).await;
    bring(&vault, one.cosign(&two.cosign(&newer))).await.unwrap();
    let awaited = get(&vault, Wanted::Awaited).await.unwrap().note;
    assert_eq!(checkpoint::claimed_size(&awaited), checkpoint::claimed_size(&newer));
}

#[tokio::test]
async fn strangers_are_shown_no_tile_beyond_what_witnesses_have_seen() {
    let (_bench, vault) = Bench::new().await;
    let ([one, two, _], wanted) = three();
    vault.want_witnesses(wanted);
    let tile = |width| vault.published_tile("demo", strongroom_ledger::tiles::TileId { level: 0, index: 0 }, width);
    assert!(matches!(tile(1).await, Err(Error::WitnessesMissing(_))));
    let note = newest(&vault).await;
    let size = checkpoint::claimed_size(&note).unwrap() as usize;
    for number in 0..20 {
        store_one(&vault, "borrower.name", &format!("Ann {number}"), "").await;
    }
    vault.sign_anew(TENANT);
    vault.follow_logs(None, u32::MAX).await.unwrap();
    assert!(matches!(tile(1).await, Err(Error::WitnessesMissing(_))));
    bring(&vault, one.cosign(&two.cosign(&note))).await.unwrap();
    assert!(tile(size).await.unwrap().is_some());
    assert!(tile(size + 1).await.unwrap().is_none(), "there are more leaves, and nobody has seen them");
    let newer = newest(&vault).await;
    bring(&vault, one.cosign(&two.cosign(&newer))).await.unwrap();
    assert!(tile(size + 1).await.unwrap().is_some());
}
