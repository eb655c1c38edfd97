//! Exports of some leaves: what the vault sends and signs verifies, whatever was asked for.

use proptest::prelude::*;
use strongroom_access::Role;
use strongroom_ledger::cover::{HEADER, Piece};
use strongroom_ledger::verify::verify_excerpt;
use strongroom_ledger::{leaf, leaf_hash};

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
async fn what_is_not_within_the_signed_head_is_not_exported_with_proofs() {
    let (_bench, vault) = Bench::new().await;
    let request = Export { end: 1_000_000, proofs: true, ..Export::default() };
    assert!(matches!(export(&vault, &request).await, Err(Error::Invalid(_))));
    let pages = vault.export(&caller(Role::Auditor), &Export::default()).await.unwrap();
    assert!(vault.sign_export(&pages).unwrap().is_none(), "nobody asked for proofs");
}
