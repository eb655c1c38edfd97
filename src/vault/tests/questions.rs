//! Questions of auditors: an index answers them as a look at every leaf does, whatever becomes of the index.

use std::time::Duration;

use proptest::prelude::*;
use strongroom_ledger::filter::Filter;
use strongroom_ledger::leaf;
use strongroom_storage::rows::BlockRow;
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::*;
use crate::housekeeping::{Following, Pace};
use crate::own_action::OwnAction;
use crate::{Export, Fault, Kind, LeafFilter};

const TENANT: TenantNo = TenantNo(1);

/// A vault whose log has some of everything, `rounds` times.
async fn grown(rounds: usize) -> (Bench, Arc<Tested>) {
    let (bench, vault) = Bench::new().await;
    for number in 0..rounds {
        let (field, value) = [("borrower.id_card", ID_CARD), ("borrower.name", "Ann")][number % 2];
        let token = store_one(&vault, field, value, &format!("c-{}", number % 7)).await;
        read_one(&vault, &token, ["plain", "masked"][number / 2 % 2]).await.unwrap_or_default();
        if number % 3 == 0 {
            drop(vault.detokenize(&caller(Role::Auditor), &read(&token, "plain")).await);
        }
        bench.pass(1);
    }
    (bench, vault)
}

pub fn size(vault: &Tested) -> u64 {
    vault.committer.head(TENANT).unwrap().size
}

/// The leaves before `end` that fit, and the filter as the vault took it.
pub async fn found(vault: &Tested, filter: LeafFilter, end: u64, every_leaf: bool) -> (Vec<u64>, Option<Filter>) {
    let request = Export { end, filter, every_leaf, ..Export::default() };
    let mut pages = vault.export(&caller(Role::Auditor), &request).await.unwrap();
    let (mut indices, mut resolved, mut looked) = (Vec::new(), None, 0);
    while let Some(page) = pages.next().await.unwrap() {
        assert!(page.looked > looked || pages.total == 0, "it goes on");
        looked = page.looked;
        resolved = page.filter.and_then(|filter| Filter::from_json(&filter)).or(resolved);
        indices.extend(page.leaves.iter().map(|line| leaf::parse(line).unwrap().index));
    }
    assert_eq!(looked, pages.total);
    (indices, resolved)
}

fn of_subject(id: &str) -> LeafFilter {
    LeafFilter { subject: id.to_owned(), ..LeafFilter::default() }
}

/// The rows of the index, without how far it is.
async fn rows(bench: &Bench) -> Vec<(Vec<u8>, Vec<u8>)> {
    let from = TENANT.0.to_be_bytes().to_vec();
    let range = Range { to: place::prefix_end(&from), from, limit: usize::MAX };
    let page = bench.disk.scan(Family::LeafIndex, range).await.unwrap();
    let rows = page.into_iter().map(|(key, row)| (key.to_vec(), row.to_vec()));
    rows.filter(|(key, _)| place::decode_leaf_index(key).unwrap().is_some()).collect()
}

/// Those that lead to subjects.
async fn rows_of_subjects(bench: &Bench) -> Vec<(Vec<u8>, Vec<u8>)> {
    rows(bench).await.into_iter().filter(|(key, _)| key[4] == 1).collect()
}

async fn write(bench: &Bench, mutation: Mutation) {
    bench.disk.write(vec![mutation]).await.unwrap();
}

async fn said(bench: &Bench) -> Vec<(Kind, Fault)> {
    findings(bench, &[]).await.iter().map(|one| (one.kind, one.fault)).collect()
}

#[test]
fn an_index_answers_as_a_look_at_every_leaf() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_bench, vault) = runtime.block_on(grown(300));
    let lines: Vec<Vec<u8>> = runtime.block_on(async {
        let mut pages = vault.export(&caller(Role::Auditor), &Export::default()).await.unwrap();
        let mut lines = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            lines.extend(page.leaves.iter().map(|line| line.to_vec()));
        }
        vault.index_logs(None, u32::MAX).await.unwrap();
        lines
    });
    let end = lines.len() as u64;
    assert!(end > 512, "{end}");
    let times: Vec<u64> = lines.iter().map(|line| leaf::parse(line).unwrap().time.0).collect();
    let word = |words: &[&'static str]| prop::sample::select(words.to_vec());
    let names = (
        word(&["", "", "app/tester", "auditor/tester", "officer/alice", "nobody"]),
        word(&["", "", "detokenize", "tokenize", "apply_schema"]),
        word(&["", "", "allow", "deny", "fail"]),
    );
    let shown = (word(&["", "c1", "c2", "c3"]), word(&["", "plain", "masked"]));
    let within = (prop::option::of(0..times.len()), prop::option::of(0..times.len()));
    let asked = (names, 0..9_u8, shown, any::<(bool, bool)>(), within);
    proptest!(ProptestConfig::with_cases(96), |((names, subject, shown, only, within) in asked)| {
        let filter = || LeafFilter {
            from: within.0.map(|at| times[at]),
            to: within.1.map(|at| times[at]),
            principal: names.0.to_owned(),
            action: names.1.to_owned(),
            decision: names.2.to_owned(),
            // Of nobody, of seven, of one that is not known.
            subject: if subject == 0 { String::new() } else { format!("c-{}", subject - 1) },
            class: shown.0.to_owned(),
            view: shown.1.to_owned(),
            changes: only.0 && subject == 0,
            reads: only.1,
            ..LeafFilter::default()
        };
        let (by_index, resolved) = runtime.block_on(found(&vault, filter(), end, false));
        let (one_and_all, _) = runtime.block_on(found(&vault, filter(), end, true));
        prop_assert_eq!(&by_index, &one_and_all);
        // Who asks for nothing in particular is told nothing.
        let resolved = resolved.unwrap_or_default();
        let fitting = (0..).zip(&lines).filter(|(_, line)| resolved.fits(line) == Ok(true)).map(|(index, _)| index);
        prop_assert_eq!(by_index, fitting.collect::<Vec<u64>>());
    });
    assert!(vault.indexing.suspects().is_empty(), "every leaf was found by the index, too");
}

#[tokio::test]
async fn what_is_asked_is_what_is_found() {
    let (_bench, vault) = grown(100).await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    let all = leaves(&vault).await;
    let end = all.len() as u64;
    let indices = |fits: &dyn Fn(&serde_json::Value) -> bool| {
        let fitting = all.iter().filter(|leaf| fits(leaf)).map(|leaf| leaf["index"].as_str().unwrap().parse().unwrap());
        fitting.collect::<Vec<u64>>()
    };
    let items = |leaf: &serde_json::Value| leaf["items"].as_array().cloned().unwrap_or_default();
    let plain = LeafFilter { class: "c2".to_owned(), view: "plain".to_owned(), ..LeafFilter::default() };
    let (read, resolved) = found(&vault, plain, end, false).await;
    assert!(resolved.unwrap().fields.unwrap().iter().any(|field| field.name == "borrower.id_card"));
    let is_plain = |item: &serde_json::Value| item["view"] == "plain" && item["outcome"] == "ok";
    let naive = indices(&|leaf| items(leaf).iter().any(is_plain));
    assert!(!naive.is_empty());
    assert_eq!(read, naive);
    let changes = LeafFilter { changes: true, ..LeafFilter::default() };
    let (changes, _) = found(&vault, changes, end, false).await;
    let naive =
        indices(&|leaf| matches!(leaf["action"].as_str(), Some("create_vault" | "create_tenant" | "apply_schema")));
    assert_eq!(changes, naive);
    // Whoever adds something that the vault does by itself says whether it is a change, and says so here as well.
    let changes = LeafFilter { changes: true, ..LeafFilter::default() };
    let asked = found(&vault, changes, end, false).await.1.unwrap().actions.unwrap();
    let own = OwnAction::ALL.iter().map(|own| own.as_str());
    let (are, are_not): (Vec<&str>, Vec<&str>) = own.partition(|own| asked.iter().any(|action| action == own));
    assert_eq!(are_not, ["seal", "unseal"]);
    let known =
        ["create_vault", "break_glass", "move_root_key", "restored", "lock_tenant", "unlock_tenant", "clock_jumped"];
    assert_eq!(are, known);
    let secrets = LeafFilter { class: "c3".to_owned(), view: "plain".to_owned(), ..LeafFilter::default() };
    assert_eq!(found(&vault, secrets, end, false).await.0, [0_u64; 0]);
    // Also who asks of a time from which there is nothing is told what was understood.
    let early = LeafFilter { to: Some(1), decision: "deny".to_owned(), ..LeafFilter::default() };
    let (none, resolved) = found(&vault, early, end, false).await;
    assert_eq!((none.len(), resolved.unwrap().decision.as_deref()), (0, Some("deny")));
    // What was asked for is recorded.
    let asked: Vec<_> = leaves(&vault).await.into_iter().filter(|leaf| leaf["action"] == "export_ledger").collect();
    assert!(asked.iter().any(|leaf| leaf["detail"]["class"] == "c2" && leaf["detail"]["view"] == "plain"));
    assert!(asked.iter().any(|leaf| leaf["detail"]["changes"] == "true"));
    let wrong = LeafFilter { class: "c4".to_owned(), ..LeafFilter::default() };
    let refused = vault.export(&caller(Role::Auditor), &Export { filter: wrong, ..Export::default() }).await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_step_that_is_not_written_is_made_again_and_one_that_is_written_twice_is_the_same() {
    for fate in [Fate::Lost, Fate::Stored] {
        let (bench, vault) = grown(200).await;
        bench.faults.fail_write(fate);
        assert!(vault.index_logs(None, u32::MAX).await.is_err());
        recovered(&vault).await;
        let before = rows(&bench).await;
        assert_eq!(before.is_empty(), matches!(fate, Fate::Lost));
        vault.close().await;
        assert_eq!(said(&bench).await, []);
        let vault = bench.open().await;
        vault.index_logs(None, u32::MAX).await.unwrap();
        let after = rows(&bench).await;
        assert!(!after.is_empty() && (before.is_empty() || before == after));
        // As if how far it is had been lost.
        write(&bench, Mutation::Delete(Family::LeafIndex, place::indexed(TENANT))).await;
        vault.index_logs(None, u32::MAX).await.unwrap();
        assert_eq!(rows(&bench).await, after);
        vault.close().await;
        assert_eq!(said(&bench).await, []);
    }
}

#[tokio::test]
async fn a_block_of_large_requests_is_written_in_parts_and_is_there_with_the_last() {
    let (bench, vault) = Bench::new().await;
    for number in 0..256 {
        let items = (0..40).map(|item| new_value("borrower.name", "Ann", &format!("c-{number}-{item}"))).collect();
        vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap();
    }
    bench.faults.fail_writes_after(1, Fate::Lost);
    assert!(vault.index_logs(None, u32::MAX).await.is_err());
    recovered(&vault).await;
    assert!(!rows(&bench).await.is_empty(), "a part was written");
    let (by_index, _) = found(&vault, of_subject("c-0-0"), size(&vault), false).await;
    assert_eq!(by_index.len(), 1, "and is not asked");
    vault.close().await;
    assert_eq!(said(&bench).await, []);
    let vault = bench.open().await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    assert!(rows(&bench).await.len() > 8_192);
    assert_eq!(found(&vault, of_subject("c-9-9"), size(&vault), false).await.0.len(), 1);
    vault.close().await;
    assert_eq!(said(&bench).await, []);
}

#[tokio::test]
async fn rows_that_somebody_removed_or_changed_are_named_and_made_anew() {
    let (bench, vault) = grown(300).await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    let end = size(&vault);
    let (whole, _) = found(&vault, of_subject("c-1"), end, false).await;
    vault.close().await;
    let good = rows(&bench).await;
    let subjects = rows_of_subjects(&bench).await;
    for fault in [Fault::Missing, Fault::Changed] {
        for (key, row) in &subjects {
            let mut other = BlockRow::decode(row).unwrap();
            other.add((0..=u8::MAX).find(|at| !other.places().any(|place| place == *at)).unwrap());
            write(
                &bench,
                match fault {
                    Fault::Missing => Mutation::Delete(Family::LeafIndex, key.clone()),
                    _ => Mutation::Put(Family::LeafIndex, key.clone(), other.encode()),
                },
            )
            .await;
        }
        assert_eq!(said(&bench).await, vec![(Kind::LeafIndex, fault); subjects.len()]);
        let vault = bench.open().await;
        let (by_index, _) = found(&vault, of_subject("c-1"), end, false).await;
        // One that names a leaf too many costs a look at it.
        assert_eq!(by_index == whole, fault == Fault::Changed);
        assert_eq!(found(&vault, of_subject("c-1"), end, true).await.0, whole, "a look at every leaf finds them");
        vault.mend_indexes().await.unwrap();
        assert_eq!(found(&vault, of_subject("c-1"), end, false).await.0, whole);
        assert_eq!(rows(&bench).await[..], good, "made anew");
        vault.close().await;
        assert_eq!(said(&bench).await, []);
    }
}

#[tokio::test]
async fn whoever_looks_at_every_leaf_finds_out_what_the_index_hides() {
    let (bench, vault) = grown(200).await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    for (key, _) in rows_of_subjects(&bench).await {
        write(&bench, Mutation::Delete(Family::LeafIndex, key)).await;
    }
    let end = size(&vault);
    found(&vault, of_subject("c-1"), end, false).await;
    assert!(vault.indexing.suspects().is_empty(), "who asks the index can't tell");
    let request = Export { filter: of_subject("c-1"), proofs: true, ..Export::default() };
    let mut pages = vault.export(&caller(Role::Auditor), &request).await.unwrap();
    while pages.next().await.unwrap().is_some() {}
    assert!(vault.indexing.suspects().contains(&(TENANT, 0)));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_has_every_leaf_looked_at_and_one_too_many_is_named() {
    let (bench, vault) = grown(200).await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    let end = size(&vault);
    let (whole, _) = found(&vault, of_subject("c-1"), end, false).await;
    let subjects = rows_of_subjects(&bench).await;
    for (key, _) in &subjects {
        write(&bench, Mutation::Put(Family::LeafIndex, key.clone(), vec![9])).await;
    }
    assert_eq!(found(&vault, of_subject("c-1"), end, false).await.0, whole);
    vault.mend_indexes().await.unwrap();
    let nobody = place::leaf_index(TENANT, &[1, 9, 9, 9, 9, 9, 9, 9, 9], 0);
    vault.close().await;
    for row in [[3].into_iter().collect::<BlockRow>().encode(), vec![9]] {
        write(&bench, Mutation::Put(Family::LeafIndex, nobody.clone(), row)).await;
        assert_eq!(said(&bench).await, [(Kind::LeafIndex, Fault::Added)]);
    }
    let late = place::leaf_index(TENANT, &[1, 9, 9, 9, 9, 9, 9, 9, 9], 1 << 20);
    write(&bench, Mutation::Put(Family::LeafIndex, late, vec![9])).await;
    assert_eq!(said(&bench).await, [(Kind::LeafIndex, Fault::Added); 2]);
    write(&bench, Mutation::Put(Family::LeafIndex, place::indexed(TENANT), place::encode_indexed(1 << 30))).await;
    assert_eq!(said(&bench).await, [(Kind::LeafIndex, Fault::Changed)]);
}

#[tokio::test]
async fn no_row_is_made_on_a_disk_that_is_nearly_full() {
    let (bench, vault) = grown(200).await;
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    assert_eq!(vault.index_logs(None, u32::MAX).await.unwrap(), None);
    assert!(rows(&bench).await.is_empty());
    bench.full.store(false, Ordering::Relaxed);
    vault.look_at_space();
    assert_eq!(vault.index_logs(None, 1).await.unwrap(), Some(TENANT), "there may be more to do");
    assert!(!rows(&bench).await.is_empty());
}

#[tokio::test]
async fn a_vault_that_is_alone_takes_more_steps_in_a_round() {
    // Of more blocks than one step has.
    let (_bench, vault) = grown(800).await;
    let end = size(&vault) / 256 * 256;
    let pace = |alone| Pace { steps: 1, alone };
    let left = vault.catch_up(Following::Index, pace(Duration::ZERO), None).await.unwrap();
    let indexed = vault.indexed_leaves(TENANT).await.unwrap();
    assert!(left.is_some() && indexed < end, "{indexed} of {end}");
    assert_eq!(vault.catch_up(Following::Index, pace(Duration::MAX), left).await.unwrap(), None);
    assert_eq!(vault.indexed_leaves(TENANT).await.unwrap(), end);
}

#[tokio::test]
async fn a_block_of_large_requests_takes_as_many_steps_as_it_has_rows() {
    let (bench, vault) = Bench::new().await;
    for request in 0..12 {
        let value = |number| new_value("borrower.name", &format!("Ann {number}"), &format!("c-{request}"));
        vault.tokenize(&caller(Role::App), &tokenize((0..400).map(value).collect(), "")).await.unwrap();
    }
    for number in 0..256 {
        store_one(&vault, "borrower.name", &format!("Bob {number}"), "c-1").await;
    }
    let mut written = Vec::new();
    while vault.index_logs(None, 1).await.unwrap().is_some() {
        written.push((rows(&bench).await.len(), vault.indexed_leaves(TENANT).await.unwrap()));
    }
    assert_eq!(written[..2], [(2_048, 0), (4_096, 0)], "{written:?}");
    assert!(written.len() > 2 && written[2..].iter().all(|(_, indexed)| *indexed == 256), "{written:?}");
    vault.close().await;
    assert_eq!(said(&bench).await, []);
}

#[tokio::test]
async fn the_vault_makes_the_index_by_itself() {
    let (bench, vault) = grown(200).await;
    let made = async {
        while rows(&bench).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // It is done every ten seconds.
    tokio::time::timeout(Duration::from_secs(120), vault.keep_house(made)).await.unwrap();
}

#[tokio::test]
async fn whom_an_auditor_asked_about_is_recorded_if_the_log_knows_them() {
    let (bench, vault) = Bench::new().await;
    let ends = bench.now.load(Ordering::Relaxed) + 3_600_000_000;
    let actor = strongroom_access::Actor::new("hr", "wang.li", "clerk", std::iter::empty(), ends).unwrap();
    let service = Caller { actor: Some(Arc::new(actor)), ..caller(Role::App) };
    for number in 0..300 {
        let request = tokenize(vec![new_value("borrower.name", "Ann", &format!("c-{number}"))], "");
        vault.tokenize(&service, &request).await.unwrap();
    }
    vault.index_logs(None, u32::MAX).await.unwrap();
    let end = size(&vault);
    let ask = async |principal: &str, actor: &str| {
        let filter = LeafFilter { principal: principal.to_owned(), actor: actor.to_owned(), ..LeafFilter::default() };
        found(&vault, filter, end, true).await;
        leaves(&vault).await.into_iter().rfind(|leaf| leaf["detail"]["every_leaf"] == "true").unwrap()["detail"].clone()
    };
    let known = ask("app/tester", "hr/wang.li").await;
    assert_eq!((&known["principal"], &known["actor"]), (&"app/tester".into(), &"hr/wang.li".into()));
    assert!(known["principal_sent"].is_null() && known["actor_sent"].is_null());
    // An officer who has done nothing yet is in the directory.
    assert_eq!(ask(&format!("officer/{SECOND}"), "").await["principal"], format!("officer/{SECOND}"));
    for (principal, actor) in
        [("app/PeterPan", "hr/PeterPan"), ("app/tester x", "hr/wang.li x"), ("tester", "app/tester")]
    {
        let unknown = ask(principal, actor).await;
        assert_eq!(unknown["principal_sent"].as_str().unwrap().len(), 64, "{unknown}");
        assert_eq!(unknown["actor_sent"].as_str().unwrap().len(), 64, "{unknown}");
        assert!(unknown["principal"].is_null() && unknown["actor"].is_null());
    }
    let request = Export { proofs: true, ..Export::default() };
    vault.export(&caller(Role::Auditor), &request).await.map(drop).unwrap();
    assert!(leaves(&vault).await.iter().any(|leaf| leaf["detail"]["proofs"] == "true"));
}
