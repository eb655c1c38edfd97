//! Archives of a log: what is kept elsewhere leaves the store, and everything that is left still verifies.

use strongroom_ledger::proof::{Tree, verify_inclusion};
use strongroom_ledger::{checkpoint, leaf, leaf_hash};
use strongroom_storage::rows::{ArchiveIntent, ArchiveRow};
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::exports::export;
use super::*;
use crate::{
    Archive, ArchivedLeaves, ArchivedReads, Export, Fault, GetArchive, Kind, LeafFilter, LeftArchived,
    ProcessingReport, ProveLeaf, Suspend, Tail,
};

const TENANT: TenantNo = TenantNo(1);
/// More than leaves are kept for.
const YEARS: u64 = 4 * 366 * 24 * 3_600;

/// A vault whose log has more than 300 leaves, years ago; a checkpoint of the first hundred, and all its lines.
struct Aged {
    bench: Bench,
    vault: Arc<Tested>,
    older: String,
    lines: Vec<String>,
    token: String,
}

async fn aged() -> Aged {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    store_many(&vault, "Ann", 100).await;
    let older = vault.checkpoint(&caller(Role::Auditor), "").await.unwrap().note;
    store_many(&vault, "Bob", 200).await;
    let lines = of_family(&bench, Family::Leaves).await.into_iter();
    let lines = lines.map(|(_, line)| String::from_utf8(line).unwrap()).collect();
    years_later(&bench, &vault);
    Aged { bench, vault, older, lines, token }
}

async fn store_many(vault: &Tested, name: &str, count: usize) {
    for number in 0..count {
        store_one(vault, "borrower.name", &format!("{name} {number}"), &format!("c-{}", number % 7)).await;
    }
}

fn years_later(bench: &Bench, vault: &Tested) {
    bench.pass(YEARS);
    // What was signed a moment ago is still shown otherwise.
    vault.sign_anew(TENANT);
}

async fn archived(vault: &Tested) -> ArchivedLeaves {
    vault.get_archive(&caller(Role::Auditor), &GetArchive::default()).await.unwrap()
}

/// The manifest of an export of a range.
async fn manifest(vault: &Tested, first: u64, end: u64) -> String {
    let request = Export { first, end, proofs: true, ..Export::default() };
    export(vault, &request).await.unwrap().signed.manifest
}

async fn decide(vault: &Tested, manifest: String) -> Result<(), Error> {
    let request = Archive { manifest, place: "vault-archive/1".to_owned() };
    with_approval(vault, TENANT, async || vault.archive(&caller(Role::Auditor), &request).await).await
}

/// Archives all that is old enough.
async fn archive(vault: &Tested) {
    let there = archived(vault).await;
    assert!(there.could_end > there.end, "{there:?}");
    decide(vault, manifest(vault, there.end, there.could_end).await).await.unwrap();
    vault.finish_archives().await.unwrap();
}

async fn of_family(bench: &Bench, family: Family) -> Vec<(Vec<u8>, Vec<u8>)> {
    let from = TENANT.0.to_be_bytes().to_vec();
    let range = Range { to: place::prefix_end(&from), from, limit: usize::MAX };
    let page = bench.disk.scan(family, range).await.unwrap();
    page.into_iter().map(|(key, row)| (key.to_vec(), row.to_vec())).collect()
}

async fn write(bench: &Bench, mutation: Mutation) {
    bench.disk.write(vec![mutation]).await.unwrap();
}

async fn said(bench: &Bench) -> Vec<(Kind, Fault)> {
    findings(bench, &[]).await.iter().map(|one| (one.kind, one.fault)).collect()
}

async fn prove(vault: &Tested, index: u64, line: &str) {
    let request = ProveLeaf { index, size: 0, log: String::new() };
    let proof = vault.prove_leaf(&caller(Role::Auditor), &request).await.unwrap();
    let keys: Vec<&str> = proof.checkpoint.keys.iter().map(String::as_str).collect();
    let signed = checkpoint::verify(&proof.checkpoint.note, &keys).unwrap();
    let tree = Tree { size: signed.size, root: signed.root };
    verify_inclusion(&proof.hashes, &tree, index, leaf_hash(line.as_bytes())).unwrap();
}

#[tokio::test]
async fn who_asks_for_what_is_left_is_told_what_is_not() {
    let Aged { bench: _bench, vault, lines, .. } = aged().await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    archive(&vault).await;
    let there = archived(&vault).await;
    let of_app = |from| LeafFilter { from, principal: "app/tester".to_owned(), ..LeafFilter::default() };
    let left = Some(LeftArchived { end: 256, until: there.time, place: "vault-archive/1".to_owned() });
    let ask = async |request: Export| {
        let mut pages = vault.export(&caller(Role::Auditor), &request).await.unwrap();
        let first = pages.next().await.unwrap().unwrap();
        let mut sent = first.leaves;
        while let Some(page) = pages.next().await.unwrap() {
            assert_eq!(page.archived, None, "it is said once");
            sent.extend(page.leaves);
        }
        (first.archived, sent)
    };
    let whole = Export { without_archived: true, end: lines.len() as u64, ..Export::default() };
    for (from, told) in [(None, &left), (Some(there.time), &left), (Some(there.time + 1), &None)] {
        let asked = Export { filter: of_app(from), without_archived: true, end: whole.end, ..Export::default() };
        let (archived, sent) = ask(asked).await;
        assert_eq!(archived, *told);
        let fits = |line: &&String| line.contains("\"principal\":\"app/tester\"");
        assert_eq!(sent, lines[256..].iter().filter(fits).cloned().collect::<Vec<_>>());
    }
    let (archived, sent) = ask(whole).await;
    assert_eq!((archived, sent.len()), (left.clone(), lines.len() - 256));
    // Of which nothing is left.
    assert_eq!(ask(Export { without_archived: true, end: 100, ..Export::default() }).await, (left, vec![]));
    let signed = Export { without_archived: true, proofs: true, ..Export::default() };
    let written = export(&vault, &signed).await.unwrap();
    assert!(written.signed.manifest.contains("\nrange 256 "), "{}", written.signed.manifest);
}

#[tokio::test]
async fn archived_leaves_are_gone_are_named_and_are_still_proven() {
    let Aged { bench, vault, older, lines, token } = aged().await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    archive(&vault).await;
    let there = archived(&vault).await;
    assert_eq!((there.end, there.could_end, there.removing, there.decided), (256, 256, false, None));
    assert_eq!(there.place, "vault-archive/1");
    let first = of_family(&bench, Family::Leaves).await.remove(0).0;
    assert_eq!(place::decode_leaf(&first).unwrap(), 256);
    let rows = of_family(&bench, Family::LeafIndex).await;
    assert!(rows.iter().all(|(key, _)| place::decode_leaf_index(key).unwrap().is_none_or(|(_, first)| first >= 256)));

    // Whoever asks for them is told where they are, and is never given less.
    let auditor = caller(Role::Auditor);
    let of_app = || LeafFilter { principal: "app/tester".to_owned(), ..LeafFilter::default() };
    for request in [
        Export::default(),
        Export { first: 255, ..Export::default() },
        Export { proofs: true, ..Export::default() },
        Export { filter: of_app(), ..Export::default() },
        Export { filter: LeafFilter { from: Some(there.time), ..of_app() }, ..Export::default() },
    ] {
        match vault.export(&auditor, &request).await.map(drop).unwrap_err() {
            Error::LeavesArchived { end: 256, place, .. } => assert_eq!(place, "vault-archive/1"),
            other => panic!("{other}"),
        }
    }
    let tail = vault.tail(&auditor, &Tail { first: 0, log: String::new() }).await.map(drop);
    assert!(matches!(tail, Err(Error::LeavesArchived { .. })));
    vault.tail(&auditor, &Tail { first: 256, log: String::new() }).await.unwrap();

    // What came after them is all there, with or without proofs.
    let later = || LeafFilter { from: Some(there.time + 1), ..LeafFilter::default() };
    let written = export(&vault, &Export { filter: later(), proofs: true, ..Export::default() }).await.unwrap();
    assert!(written.lines.starts_with(&format!("{}\n", lines[256])), "{}", written.lines);
    let (note, keys) = (&written.signed.checkpoint.note, &written.signed.checkpoint.keys);
    let (held, proofs) = (written.lines.as_bytes(), written.proofs.as_bytes());
    strongroom_ledger::verify::verify_excerpt(held, proofs, &written.signed.manifest, note, keys).unwrap();
    let mut pages = vault.export(&auditor, &Export { first: 256, ..Export::default() }).await.unwrap();
    assert_eq!(pages.next().await.unwrap().unwrap().leaves[0], lines[256].as_bytes());

    // An archived leaf is proven against the newest head.
    vault.sign_anew(TENANT);
    for index in [0, 7, 255] {
        prove(&vault, index, &lines[usize::try_from(index).unwrap()]).await;
    }
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
    store_many(&vault, "Eve", 20).await;
    vault.close().await;
    assert_eq!(findings(&bench, &[older]).await, []);
    let vault = bench.open().await;
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn one_archive_follows_the_other() {
    let Aged { bench, vault, older, .. } = aged().await;
    archive(&vault).await;
    store_many(&vault, "Eve", 400).await;
    vault.close().await;
    let vault = bench.open().await;
    years_later(&bench, &vault);
    archive(&vault).await;
    let there = archived(&vault).await;
    assert_eq!((there.end, there.removing), (512, false));
    let states = of_family(&bench, Family::Archived).await;
    assert!(
        states
            .iter()
            .all(|(key, _)| { place::decode_state_page(key).unwrap().is_none_or(|(leaves, _)| leaves == 512) })
    );
    store_many(&vault, "Mia", 5).await;
    vault.close().await;
    assert_eq!(findings(&bench, &[older]).await, []);
}

#[tokio::test]
async fn what_the_journal_says_is_held_against_the_tiles_over_archived_leaves() {
    let (bench, vault) = Bench::new().await;
    let request = Suspend { principal: "app/other".to_owned(), reason: "its key was found".to_owned() };
    vault.suspend(&caller(Role::Officer), &request).await.unwrap();
    store_many(&vault, "Ann", 300).await;
    years_later(&bench, &vault);
    archive(&vault).await;
    assert_eq!(archived(&vault).await.end, 256);
    vault.close().await;
    assert_eq!(journal_findings(&bench).await, []);

    let key = place::tile(TENANT, 0, 0);
    write(&bench, Mutation::Put(Family::Tiles, key, vec![0; 256 * 32])).await;
    let found = journal_findings(&bench).await;
    assert_eq!(found.iter().map(|one| (one.kind, one.fault)).collect::<Vec<_>>(), [(Kind::Journal, Fault::Changed)]);
}

#[tokio::test]
async fn damage_is_named_though_the_leaf_that_tells_is_archived() {
    let Aged { bench, vault, token, .. } = aged().await;
    archive(&vault).await;
    vault
        .delete(
            &caller(Role::Privacy),
            &Delete { items: vec![DeleteItem { token, subject: String::new() }], idempotency_key: String::new() },
        )
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    vault.close().await;
    assert_eq!(said(&bench).await, []);

    // A value that was recorded by a leaf which is archived.
    let (key, row) = of_family(&bench, Family::Rows).await.remove(3);
    let mut changed = row.clone();
    *changed.last_mut().unwrap() ^= 1;
    write(&bench, Mutation::Put(Family::Rows, key.clone(), changed)).await;
    assert_eq!(said(&bench).await, [(Kind::Value, Fault::Changed)]);
    write(&bench, Mutation::Put(Family::Rows, key, row)).await;

    // The state by which that is known.
    let pages = of_family(&bench, Family::Archived).await;
    let (key, page) = pages.iter().find(|(key, _)| place::decode_state_page(key).unwrap().is_some()).unwrap().clone();
    let text = String::from_utf8(page.clone()).unwrap();
    let changed = text.replacen("\nlast ", "\nlast 1", 1);
    assert_ne!(text, changed);
    write(&bench, Mutation::Put(Family::Archived, key.clone(), changed.into_bytes())).await;
    assert!(said(&bench).await.contains(&(Kind::State, Fault::Changed)));
    // A page that is gone, or can't be read, ends what can be said of the tenant, which is said.
    for other in
        [Mutation::Delete(Family::Archived, key.clone()), Mutation::Put(Family::Archived, key.clone(), vec![b'x'])]
    {
        write(&bench, other).await;
        assert!(said(&bench).await.contains(&(Kind::Unknown, Fault::Unreadable)));
    }
    write(&bench, Mutation::Put(Family::Archived, key, page)).await;
    assert_eq!(said(&bench).await, []);

    // The row of what is archived: one that says less, more or nothing.
    let at = place::archived(TENANT);
    let row = bench.disk.get(Family::Archived, at.clone()).await.unwrap().unwrap();
    let read = ArchiveRow::decode(&row).unwrap();
    let other_root = ArchiveRow { root: [9; 32], ..read.clone() };
    write(&bench, Mutation::Put(Family::Archived, at.clone(), other_root.encode())).await;
    assert_eq!(said(&bench).await, [(Kind::State, Fault::Changed)]);
    let less = ArchiveRow { end: 0, ..read };
    write(&bench, Mutation::Put(Family::Archived, at.clone(), less.encode())).await;
    assert!(said(&bench).await.contains(&(Kind::Leaf, Fault::Missing)));
    write(&bench, Mutation::Put(Family::Archived, at, row.to_vec())).await;

    // A leaf that is put back.
    write(&bench, Mutation::Put(Family::Leaves, place::leaf(TENANT, 5), b"{}".to_vec())).await;
    assert_eq!(said(&bench).await, [(Kind::Leaf, Fault::Added)]);
    write(&bench, Mutation::Delete(Family::Leaves, place::leaf(TENANT, 5))).await;
    // One that is gone and not archived.
    write(&bench, Mutation::Delete(Family::Leaves, place::leaf(TENANT, 256))).await;
    assert!(said(&bench).await.contains(&(Kind::Leaf, Fault::Missing)));
}

#[tokio::test]
async fn nothing_goes_but_what_is_old_enough_and_was_sent_whole() {
    let (bench, vault) = grown().await;
    assert_eq!(archived(&vault).await, ArchivedLeaves::default());
    let young = decide(&vault, manifest(&vault, 0, 256).await).await;
    assert!(matches!(young, Err(Error::ArchiveRefused(_))), "{young:?}");
    years_later(&bench, &vault);
    let size = vault.committer.head(TENANT).unwrap().size;
    let filtered = LeafFilter { decision: "allow".to_owned(), ..LeafFilter::default() };
    let filtered = Export { end: 256, filter: filtered, proofs: true, ..Export::default() };
    let filtered = export(&vault, &filtered).await.unwrap().signed.manifest;
    let good = manifest(&vault, 0, 256).await;
    for wrong in [
        filtered,
        manifest(&vault, 0, 255).await,
        manifest(&vault, 1, 256).await,
        manifest(&vault, 0, 0).await,
        manifest(&vault, 0, size).await,
        good.replacen("range 0 256", "range 0 512", 1),
        String::new(),
    ] {
        let refused = decide(&vault, wrong.clone()).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{wrong}: {refused:?}");
    }
    let nowhere = Archive { manifest: good.clone(), place: "a\nb".to_owned() };
    assert!(matches!(vault.archive(&caller(Role::Auditor), &nowhere).await, Err(Error::Invalid(_))));
    for role in [Role::App, Role::Officer, Role::Privacy, Role::Rotator] {
        let request = Archive { manifest: good.clone(), place: "x".to_owned() };
        assert!(matches!(vault.archive(&caller(role), &request).await, Err(Error::Denied { .. })), "{role:?}");
    }
    // Nobody alone.
    let request = Archive { manifest: good.clone(), place: "x".to_owned() };
    let alone = vault.archive(&caller(Role::Auditor), &request).await;
    assert!(matches!(alone, Err(Error::ApprovalRequired { need: 1, .. })), "{alone:?}");
    vault.finish_archives().await.unwrap();
    assert_eq!(archived(&vault).await.end, 0);
    assert_eq!(of_family(&bench, Family::Leaves).await.len() as u64, vault.committer.head(TENANT).unwrap().size);
    // What is done once is not done again, and needs nobody's approval to be asked for again.
    decide(&vault, good.clone()).await.unwrap();
    for _ in 0..2 {
        vault.finish_archives().await.unwrap();
        vault
            .archive(&caller(Role::Auditor), &Archive { manifest: good.clone(), place: "x".to_owned() })
            .await
            .unwrap();
    }
    let done = |leaf: &&serde_json::Value| leaf["action"] == "archive_ledger" && leaf["detail"]["stage"] == "done";
    let later = LeafFilter { from: Some(archived(&vault).await.time + 1), ..LeafFilter::default() };
    let mut pages = vault.export(&caller(Role::Auditor), &Export { filter: later, ..Export::default() }).await.unwrap();
    let mut leaves = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        leaves.extend(page.leaves.iter().map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()));
    }
    let done: Vec<&serde_json::Value> = leaves.iter().filter(done).collect();
    let [done] = done[..] else { panic!("{done:#?}") };
    assert_eq!((&done["detail"]["end"], &done["principal"]), (&"256".into(), &"auditor/tester".into()));
}

#[tokio::test]
async fn an_archive_that_is_cut_off_anywhere_goes_on() {
    // There are fewer writes than that.
    for (writes, fate) in (0..9).flat_map(|writes| [(writes, Fate::Lost), (writes, Fate::Stored)]) {
        let Aged { bench, mut vault, lines, .. } = aged().await;
        decide(&vault, manifest(&vault, 0, 256).await).await.unwrap();
        bench.faults.fail_writes_after(writes, fate);
        let failed = vault.finish_archives().await.is_err();
        recovered(&vault).await;
        bench.faults.heal();
        vault.close().await;
        assert_eq!(said(&bench).await, [], "after {writes} writes");
        vault = bench.open().await;
        vault.finish_archives().await.unwrap();
        let there = archived(&vault).await;
        assert_eq!((there.end, there.removing), (256, false), "after {writes} writes");
        prove(&vault, 7, &lines[7]).await;
        vault.close().await;
        assert_eq!(said(&bench).await, [], "after {writes} writes");
        if !failed {
            assert!(writes > 2, "no write fails");
            return;
        }
    }
    panic!("it never ended");
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left() {
    let Aged { bench, vault, .. } = aged().await;
    let leaves = of_family(&bench, Family::Leaves).await;
    archive(&vault).await;
    vault.close().await;
    // As if it had ended after the leaf that says so, and before anything was removed.
    let at = place::archived(TENANT);
    let row = ArchiveRow::decode(&bench.disk.get(Family::Archived, at.clone()).await.unwrap().unwrap()).unwrap();
    write(&bench, Mutation::Put(Family::Archived, at, ArchiveRow { removed: false, ..row }.encode())).await;
    for (key, line) in leaves.into_iter().take(256) {
        write(&bench, Mutation::Put(Family::Leaves, key, line)).await;
    }
    assert_eq!(said(&bench).await, []);
    let vault = bench.open().await;
    assert!(archived(&vault).await.removing);
    vault.finish_archives().await.unwrap();
    assert!(!archived(&vault).await.removing);
    assert!(bench.disk.get(Family::Leaves, place::leaf(TENANT, 255)).await.unwrap().is_none());
    vault.close().await;
    assert_eq!(said(&bench).await, []);
}

#[tokio::test]
async fn tiles_are_made_anew_without_the_archived_leaves() {
    let Aged { bench, vault, lines, .. } = aged().await;
    archive(&vault).await;
    let whole = of_family(&bench, Family::Tiles).await;
    let first = place::tile(TENANT, 0, 0);
    for (key, tile) in whole.iter().filter(|(key, _)| *key != first) {
        let mut changed = tile.clone();
        changed[0] ^= 1;
        write(&bench, Mutation::Put(Family::Tiles, key.clone(), changed)).await;
        vault.sign_anew(TENANT);
        prove(&vault, 7, &lines[7]).await;
        prove(&vault, 255, &lines[255]).await;
    }
    // Of the archived leaves themselves there is nothing to make one of; and it is not thrown away in trying.
    write(&bench, Mutation::Put(Family::Tiles, first.clone(), vec![0; 256 * 32])).await;
    let request = ProveLeaf { index: 7, size: 0, log: String::new() };
    let refused = vault.prove_leaf(&caller(Role::Auditor), &request).await.map(drop);
    assert!(matches!(refused, Err(Error::DataLoss(_))), "{refused:?}");
    assert_eq!(bench.disk.get(Family::Tiles, first).await.unwrap().unwrap().len(), 256 * 32);
}

#[tokio::test]
async fn leaves_that_were_changed_since_they_were_exported_are_not_archived() {
    let Aged { bench, vault, .. } = aged().await;
    decide(&vault, manifest(&vault, 0, 256).await).await.unwrap();
    let at = place::leaf(TENANT, 9);
    let line = bench.disk.get(Family::Leaves, at.clone()).await.unwrap().unwrap().to_vec();
    let text = String::from_utf8(line.clone()).unwrap().replacen("app/tester", "app/testor", 1);
    write(&bench, Mutation::Put(Family::Leaves, at.clone(), text.into_bytes())).await;
    vault.finish_archives().await.unwrap();
    let there = archived(&vault).await;
    assert_eq!((there.end, there.decided), (0, None));
    assert_eq!(of_family(&bench, Family::Leaves).await.len() as u64, vault.committer.head(TENANT).unwrap().size);
    let last = of_family(&bench, Family::Leaves).await;
    let failed = last.iter().rev().filter_map(|(_, line)| leaf::parse(line).ok());
    let mut failed = failed.filter(|leaf| leaf.action == "archive_ledger" && leaf.decision == "fail");
    assert_eq!(failed.next().unwrap().reason.as_deref(), Some("DATA_LOSS"));
    write(&bench, Mutation::Put(Family::Leaves, at, line)).await;
    vault.close().await;
    assert_eq!(said(&bench).await, []);
}

#[tokio::test]
async fn a_report_says_which_reads_it_does_not_know_since_they_are_archived() {
    let Aged { bench: _bench, vault, .. } = aged().await;
    let told = async |from| {
        let request = ProcessingReport { from, to: None };
        vault.processing_report(&caller(Role::Auditor), &request).await.unwrap().archived_reads
    };
    assert_eq!(told(None).await, None);
    archive(&vault).await;
    let there = archived(&vault).await;
    assert_eq!(told(None).await, Some(ArchivedReads { end: there.end, until: there.time }));
    assert_eq!(told(Some(there.time + 1)).await, None, "of that time nothing is archived");
}

#[tokio::test]
async fn no_leaf_goes_by_a_row_that_the_vault_did_not_write_or_that_no_leaf_confirms() {
    let Aged { bench, vault, .. } = aged().await;
    let all = of_family(&bench, Family::Leaves).await.len();
    let mut lines = ring::digest::Context::new(&ring::digest::SHA256);
    for (_, line) in of_family(&bench, Family::Leaves).await.iter().take(256) {
        lines.update(line);
        lines.update(b"\n");
    }
    let intent = ArchiveIntent {
        end: 256,
        said_from: 0,
        request: [9; 16],
        principal: "auditor/tester".to_owned(),
        place: "nowhere".to_owned(),
        manifest: [9; 32],
        lines: lines.finish().as_ref().try_into().unwrap(),
    };
    let decided = ArchiveRow { intent: Some(intent), ..ArchiveRow::default() };
    let done = ArchiveRow { end: 256, ..ArchiveRow::default() };
    let key = Arc::clone(&vault.tenant(TENANT).unwrap().fingerprints);
    for row in [decided, done] {
        let mac = key.mac(&[b"archive", &TENANT.0.to_be_bytes(), &row.proven()]);
        for mac in [[0; 32], mac] {
            let row = ArchiveRow { mac, ..row.clone() };
            write(&bench, Mutation::Put(Family::Archived, place::archived(TENANT), row.encode())).await;
            vault.finish_archives().await.unwrap();
            assert!(of_family(&bench, Family::Leaves).await.len() >= all, "{row:?}");
            let first = of_family(&bench, Family::Leaves).await.remove(0).0;
            assert_eq!(place::decode_leaf(&first).unwrap(), 0, "{row:?}");
        }
    }
    write(&bench, Mutation::Put(Family::Archived, place::archived(TENANT), ArchiveRow::default().encode())).await;
    vault.close().await;
    assert_eq!(said(&bench).await, [(Kind::State, Fault::Changed)]);
}

#[tokio::test]
async fn an_older_copy_of_a_vault_that_has_archived_is_restored() {
    let (mut bench, vault) = Bench::new().await;
    let suspend = |principal: &str| Suspend { principal: principal.to_owned(), reason: "its key was found".to_owned() };
    vault.suspend(&caller(Role::Officer), &suspend("app/one")).await.unwrap();
    store_many(&vault, "Ann", 300).await;
    years_later(&bench, &vault);
    archive(&vault).await;
    assert_eq!(archived(&vault).await.end, 256);
    vault.close().await;
    drop(vault);
    let older = super::restores::copy(&bench.disk).await;
    let vault = bench.open().await;
    vault.suspend(&caller(Role::Officer), &suspend("app/two")).await.unwrap();
    vault.close().await;
    drop(vault);

    // A state that no leaf says, of an incarnation that never was.
    bench.disk = super::restores::copy(&older).await;
    let pages = of_family(&bench, Family::Archived).await;
    let (key, page) = pages.iter().find(|(key, _)| place::decode_state_page(key).unwrap().is_some()).unwrap();
    let text = String::from_utf8(page.clone()).unwrap().replacen("\nended -", "\nended -\nrestored 9 1 2", 1);
    write(&bench, Mutation::Put(Family::Archived, key.clone(), text.into_bytes())).await;
    let refused = crate::restore(bench.opening(&root(), Limits::MOST), None).await;
    assert!(refused.unwrap_err().to_string().contains("state of archived leaves"));

    bench.disk = older;
    let restored = crate::restore(bench.opening(&root(), Limits::MOST), None).await.unwrap();
    assert_eq!((restored.incarnation, restored.replayed, restored.frozen), (2, 1, None));
    let vault = bench.open().await;
    assert_eq!(vault.list_freezes(&caller(Role::Auditor)).await.unwrap().suspended.len(), 2);
    vault.close().await;
    assert_eq!(said(&bench).await, []);
    assert_eq!(journal_findings(&bench).await, []);
}

#[tokio::test]
async fn a_manifest_that_lay_about_for_long_archives_nothing() {
    let Aged { bench, vault, .. } = aged().await;
    let signed = manifest(&vault, 0, 256).await;
    bench.pass(8 * 24 * 3_600);
    let late = decide(&vault, signed).await;
    assert!(matches!(late, Err(Error::ArchiveRefused(_))), "{late:?}");
    decide(&vault, manifest(&vault, 0, 256).await).await.unwrap();
}
