//! Exports of some leaves: what the vault sends and signs verifies, whatever was asked for.

use proptest::prelude::*;
use strongroom_access::Role;
use strongroom_ids::TenantNo;
use strongroom_ledger::cover::{HEADER, Piece};
use strongroom_ledger::verify::verify_excerpt;
use strongroom_ledger::{Timestamp, leaf, leaf_hash};
use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::rig::{Bench, Tested, caller, new_value, tokenize};
use crate::{Error, Export, LeafFilter, SignedExport};

/// An export with proofs, as a client writes it down.
pub struct Written {
    pub lines: String,
    pub proofs: String,
    pub signed: SignedExport,
}

pub async fn export(vault: &Tested, request: &Export) -> Result<Written, Error> {
    let mut pages = vault.export(&caller(Role::Auditor), request).await?;
    let mut pieces = Vec::new();
    let mut lines = String::new();
    assert!(pages.total == 0 || vault.sign_export(&pages).unwrap().is_none(), "it has not ended");
    let mut looked = 0;
    while let Some(page) = pages.next().await? {
        assert!(page.looked >= looked);
        looked = page.looked;
        pieces.extend(page.left_out.into_iter().map(Piece::Tree));
        for line in page.leaves {
            pieces.push(Piece::Leaf { index: leaf::parse(&line).unwrap().index, hash: leaf_hash(&line) });
            lines.push_str(std::str::from_utf8(&line).unwrap());
            lines.push('\n');
        }
    }
    assert_eq!(looked, pages.total);
    pieces.sort_by_key(|piece| piece.subtree().start);
    let proofs = [HEADER.to_owned()].into_iter().chain(pieces.iter().map(Piece::to_text));
    let proofs = proofs.map(|line| line + "\n").collect();
    Ok(Written { lines, proofs, signed: vault.sign_export(&pages)?.unwrap() })
}

fn verified(written: &Written) -> strongroom_ledger::verify::Excerpt {
    let (manifest, checkpoint) = (&written.signed.manifest, &written.signed.checkpoint);
    let (lines, proofs) = (written.lines.as_bytes(), written.proofs.as_bytes());
    verify_excerpt(lines, proofs, manifest, &checkpoint.note, &checkpoint.keys).unwrap()
}

#[test]
fn what_is_sent_and_signed_verifies_and_is_what_a_naive_filter_takes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (bench, vault) = runtime.block_on(Bench::new());
    runtime.block_on(async {
        for number in 0..900 {
            let field = ["borrower.name", "borrower.email"][number % 2];
            let value = ["Ann", "a@mail.example"][number % 2];
            let request = tokenize(vec![new_value(field, value, &format!("c-{}", number % 7))], "");
            vault.tokenize(&caller(Role::App), &request).await.unwrap();
            bench.pass(1);
        }
        // Signed anew from here on.
        bench.pass(2);
    });
    let all: Vec<serde_json::Value> = runtime.block_on(super::rig::leaves(&vault));
    let times: Vec<u64> = all
        .iter()
        .map(|one| one["time"].as_str().unwrap().parse::<strongroom_ledger::Timestamp>().unwrap().0)
        .collect();
    let size = all.len() as u64;
    let asked = (0..size, 0..size, prop::option::of(0..all.len()), prop::option::of(0..all.len()), 0..9_u8, 0..3_u8);
    proptest!(ProptestConfig::with_cases(48), |((one, other, from, to, subject, field) in asked)| {
        let (first, end) = (one.min(other), one.max(other));
        let filter = LeafFilter {
            from: from.map(|at| times[at]),
            to: to.map(|at| times[at]),
            // Of nobody, of seven, of one that is not known.
            subject: if subject == 0 { String::new() } else { format!("c-{}", subject - 1) },
            field: ["", "borrower.name", "borrower.email"][usize::from(field)].to_owned(),
            ..LeafFilter::default()
        };
        let handle = (1..8).contains(&subject).then(|| {
            let first = all.iter().filter(|leaf| leaf["action"] == "tokenize").nth(usize::from(subject - 1)).unwrap();
            first["items"][0]["subject"].clone()
        });
        let naive = all.iter().zip(&times).zip(0..).filter(|((leaf, time), index)| {
            let item = leaf["items"].as_array().into_iter().flatten().any(|item| {
                (subject == 0 || handle.as_ref() == Some(&item["subject"]))
                    && (field == 0 || item["field"] == filter.field.as_str())
            });
            (first..if end == 0 { size } else { end }).contains(index)
                && filter.from.is_none_or(|from| **time >= from)
                && filter.to.is_none_or(|to| **time < to)
                && (item || (subject == 0 && field == 0))
        });
        let naive: Vec<String> = naive.map(|((leaf, _), _)| leaf["index"].as_str().unwrap().to_owned()).collect();
        let whole = end == 0;
        let request = Export { first, end, filter, proofs: true, ..Export::default() };
        let written = runtime.block_on(export(&vault, &request)).unwrap();
        let excerpt = verified(&written);
        let brought: Vec<String> = written
            .lines
            .lines()
            .map(|line| leaf::parse(line.as_bytes()).unwrap().index)
            .filter(|index| !whole || *index < size)
            .map(|index| index.to_string())
            .collect();
        prop_assert_eq!(brought, naive);
        prop_assert_eq!(excerpt.manifest.first, first);
    });
    let nothing = runtime.block_on(export(&vault, &Export { first: 5, end: 5, proofs: true, ..Export::default() }));
    assert_eq!(verified(&nothing.unwrap()).manifest.lines, 0);
    let whole = runtime.block_on(export(&vault, &Export { proofs: true, ..Export::default() })).unwrap();
    assert_eq!(whole.proofs.lines().count(), whole.lines.lines().count() + 1, "nothing is left out");
    assert_eq!(verified(&whole).manifest.lines, verified(&whole).manifest.log.size);
}

#[tokio::test]
async fn what_lies_before_a_range_that_begins_with_a_tile_is_told_in_the_hashes_of_tiles() {
    let (bench, vault) = Bench::new().await;
    for _ in 0..520 {
        vault.tokenize(&caller(Role::App), &tokenize(vec![new_value("borrower.name", "Ann", "")], "")).await.unwrap();
    }
    bench.pass(2);
    for (first, before) in [(512, vec!["tree 0 8 ", "tree 256 8 "]), (256, vec!["tree 0 8 "]), (511, vec!["tree 0 8 "])]
    {
        let written =
            export(&vault, &Export { first, end: first + 2, proofs: true, ..Export::default() }).await.unwrap();
        verified(&written);
        for (line, begins) in written.proofs.lines().skip(1).zip(before) {
            assert!(line.starts_with(begins), "{line}");
        }
    }
}

#[tokio::test]
async fn what_is_not_within_the_signed_head_is_not_exported_with_proofs() {
    let (_bench, vault) = Bench::new().await;
    let request = Export { end: 1_000_000, proofs: true, ..Export::default() };
    assert!(matches!(export(&vault, &request).await, Err(Error::Invalid(_))));
    let pages = vault.export(&caller(Role::Auditor), &Export::default()).await.unwrap();
    assert!(vault.sign_export(&pages).unwrap().is_none(), "nobody asked for proofs");
}

/// A vault whose log has more than two tiles, and a leaf in the first of them.
async fn grown() -> (Bench, std::sync::Arc<Tested>, u64, Vec<u8>) {
    let (bench, vault) = Bench::new().await;
    for number in 0..600 {
        let request = tokenize(vec![new_value("borrower.name", "Ann", &format!("c-{number}"))], "");
        vault.tokenize(&caller(Role::App), &request).await.unwrap();
        bench.pass(1);
    }
    vault.follow_logs(None, u32::MAX).await.unwrap();
    let line = bench.disk.get(Family::Leaves, place::leaf(TenantNo(1), 100)).await.unwrap().unwrap().to_vec();
    (bench, vault, 100, line)
}

async fn put_leaf(bench: &Bench, index: u64, line: Vec<u8>) {
    bench.disk.write(vec![Mutation::Put(Family::Leaves, place::leaf(TenantNo(1), index), line)]).await.unwrap();
}

/// Another line that can be read as well.
fn changed(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(line.to_vec()).unwrap().replace("app/tester", "app/nobody");
    assert_ne!(text.as_bytes(), line);
    text.into_bytes()
}

#[tokio::test]
async fn nothing_is_signed_over_a_leaf_that_was_changed_on_the_disk_and_it_is_named() {
    let (bench, vault, index, line) = grown().await;
    put_leaf(&bench, index, changed(&line)).await;
    let by = |principal: &str| LeafFilter { principal: principal.to_owned(), ..LeafFilter::default() };
    // One that it fits, one that it does not fit any more, and none at all.
    for filter in [by("app/nobody"), by("app/tester"), LeafFilter::default()] {
        let refused = export(&vault, &Export { filter, proofs: true, ..Export::default() }).await;
        assert!(matches!(refused, Err(Error::LeafChanged(100))), "{:?}", refused.err());
    }
    // Of what is beside it, the tiles say enough.
    let beside = Export { first: index + 1, filter: by("app/tester"), proofs: true, ..Export::default() };
    assert!(verified(&export(&vault, &beside).await.unwrap()).manifest.lines > 400);
    // Where its tile was changed as well nobody can say which leaf it is; the root is not that of the head.
    let tile = place::tile(TenantNo(1), 0, 0);
    bench.disk.write(vec![Mutation::Put(Family::Tiles, tile, vec![7; 256 * 32])]).await.unwrap();
    let refused = export(&vault, &Export { filter: by("app/tester"), proofs: true, ..Export::default() }).await;
    assert!(matches!(refused, Err(Error::DataLoss(_))), "{:?}", refused.err());
    put_leaf(&bench, index, line).await;
    let whole = export(&vault, &Export { proofs: true, ..Export::default() }).await.unwrap();
    assert!(verified(&whole).manifest.lines > 600, "a tile that was changed is in nobody's way");
}

#[tokio::test]
async fn a_changed_time_moves_no_end_of_a_range_of_time() {
    let (bench, vault, _, _) = grown().await;
    let size = vault.committer.head(TenantNo(1)).unwrap().size;
    let mut times = Vec::new();
    for index in 0..size {
        let line = bench.disk.get(Family::Leaves, place::leaf(TenantNo(1), index)).await.unwrap().unwrap();
        times.push((leaf::parse(&line).unwrap().time, line.to_vec()));
    }
    // Whatever is looked at first: the search is led past the beginning by a leaf that seems older, and past the end.
    let middle = size / 2;
    for (at, other, filter) in [
        (middle, Timestamp(1), LeafFilter { from: Some(times[100].0.0), ..LeafFilter::default() }),
        (middle, Timestamp(u64::MAX >> 12), LeafFilter { to: Some(times[500].0.0), ..LeafFilter::default() }),
    ] {
        let (time, line) = &times[at as usize];
        let text = String::from_utf8(line.clone()).unwrap().replace(&time.to_string(), &other.to_string());
        put_leaf(&bench, at, text.into_bytes()).await;
        for proofs in [true, false] {
            let filter = LeafFilter { from: filter.from, to: filter.to, ..LeafFilter::default() };
            let request = Export { end: size, filter, proofs, ..Export::default() };
            let refused = vault.export(&caller(Role::Auditor), &request).await.err();
            assert!(matches!(refused, Some(Error::LeafChanged(named)) if named == at), "{refused:?}");
        }
        put_leaf(&bench, at, line.clone()).await;
        let filter = LeafFilter { from: filter.from, to: filter.to, ..LeafFilter::default() };
        export(&vault, &Export { end: size, filter, proofs: true, ..Export::default() }).await.unwrap();
    }
}
