//! Proofs from tiles, and what is none.

use proptest::prelude::*;

use super::*;
use crate::checkpoint::tests::{Key, log};
use crate::cover::{Cover, Subtree};
use crate::frontier::Frontier;
use crate::tiles::tests::{Kept, hash_of};

fn tree(size: u64) -> Tree {
    let mut frontier = Frontier::new();
    (0..size).for_each(|leaf| frontier.push_hash(hash_of(leaf)));
    Tree { size, root: frontier.root() }
}

fn prove(question: Question, now: &Tree, kept: &Kept) -> Vec<[u8; 32]> {
    let wanted = question.tiles(now).unwrap();
    question.answer(now, |id| kept.tile(id).filter(|_| wanted.contains(&id))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_leaf_of_every_tree_is_proved_from_the_tiles_of_a_later_one(
        now in 1..1500_u64, size in 0..1500_u64, index in 0..1500_u64, later in 0..600_u64,
    ) {
        let size = 1 + size % now;
        let index = index % size;
        let (then, log) = (tree(size), tree(now));
        let kept = Kept::of(now + later);
        let proof = prove(Question::Inclusion { index, size }, &log, &kept);
        prop_assert_eq!(verify_inclusion(&proof, &then, index, hash_of(index)), Ok(()));
        prop_assert!(verify_inclusion(&proof, &then, index, hash_of(index + 1)).is_err());
        prop_assert!(verify_inclusion(&proof, &then, index + 1, hash_of(index)).is_err());
        if let Some((_, fewer)) = proof.split_last() {
            prop_assert!(verify_inclusion(fewer, &then, index, hash_of(index)).is_err());
        }
        let more = [&proof[..], &[[0; 32]]].concat();
        prop_assert!(verify_inclusion(&more, &then, index, hash_of(index)).is_err());
    }

    #[test]
    fn every_tree_is_proved_to_be_the_beginning_of_every_later_one(
        now in 1..1500_u64, to in 0..1500_u64, from in 0..1500_u64,
    ) {
        let to = 1 + to % now;
        let from = 1 + from % to;
        let (older, newer, log) = (tree(from), tree(to), tree(now));
        let proof = prove(Question::Consistency { from, to }, &log, &Kept::of(now));
        prop_assert_eq!(verify_consistency(&proof, &older, &newer), Ok(()));
        let forged = Tree { root: [7; 32], ..older };
        prop_assert!(verify_consistency(&proof, &forged, &newer).is_err());
        let other = Tree { root: [7; 32], ..newer };
        prop_assert!(verify_consistency(&proof, &older, &other).is_err());
        if from != to {
            prop_assert!(verify_consistency(&proof, &newer, &older).is_err());
        }
    }

    #[test]
    fn a_cover_is_what_the_leaves_themselves_give(now in 1..1500_u64, to in 0..1500_u64, from in 0..1500_u64) {
        let to = to % (now + 1);
        let from = from % (to + 1);
        let hashes = prove(Question::Cover { from, to }, &tree(now), &Kept::of(now));
        let mut cover = Cover::default();
        (from..to).for_each(|leaf| cover.leave_out(Subtree { start: leaf, height: 0, hash: hash_of(leaf) }));
        let places = Subtree::over(from, to).into_iter().zip(hashes);
        let read: Vec<Subtree> = places.map(|((start, height), hash)| Subtree { start, height, hash }).collect();
        prop_assert_eq!(read, cover.take().collect::<Vec<_>>());
    }

    #[test]
    fn any_text_is_read_as_it_would_be_written_or_refused(text in "(c2sp.org/tlog-proof@v1\n)?(index [0-9]{1,3}\n)?\\PC{0,60}\n?\n?\\PC{0,20}") {
        if let Ok(proof) = GrowthProof::from_text(&text) {
            prop_assert_eq!(proof.to_text(), text.clone());
        }
        if let Ok(proof) = LeafProof::from_text(&text) {
            prop_assert_eq!(proof.to_text(), text);
        }
    }

    #[test]
    fn nothing_that_claims_to_be_a_proof_panics(
        proof in prop::collection::vec(any::<[u8; 32]>(), 0..70), size: u64, index: u64, root: [u8; 32],
    ) {
        let tree = Tree { size, root };
        prop_assert!(verify_inclusion(&proof, &tree, index, [1; 32]).is_err());
        let older = Tree { size: index, root: [2; 32] };
        prop_assert!(verify_consistency(&proof, &older, &tree).is_err());
    }
}

/// The proofs that certificate-transparency's reference tests publish, over the inputs that `frontier` is tested with.
#[test]
fn proofs_are_those_of_the_rfc_6962_reference_tests() {
    let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    let mut kept = Kept::default();
    let mut frontier = Frontier::new();
    for input in inputs {
        let leaf = leaf_hash(&bytes(input));
        kept.edge.push(leaf, |_, _| {});
        frontier.push_hash(leaf);
    }
    kept.tiles.extend(kept.edge.tiles().map(|(id, tile)| (id, tile.to_vec())));
    let now = Tree { size: 8, root: frontier.root() };
    let hex = |proof: Vec<[u8; 32]>| proof.iter().map(|hash| data_encoding::HEXLOWER.encode(hash)).collect::<Vec<_>>();
    assert_eq!(
        hex(prove(Question::Inclusion { index: 0, size: 8 }, &now, &kept)),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    assert_eq!(
        hex(prove(Question::Inclusion { index: 5, size: 8 }, &now, &kept)),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(
        hex(prove(Question::Consistency { from: 6, to: 8 }, &now, &kept)),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
}

#[test]
fn a_wrong_tile_proves_nothing() {
    for (size, index) in [(700, 300), (700, 699), (256, 0), (65_536 + 300, 1), (65_536 + 300, 65_536)] {
        let now = tree(size);
        let kept = Kept::of(size);
        for question in [
            Question::Inclusion { index, size },
            Question::Consistency { from: index + 1, to: size },
            Question::Cover { from: index, to: size },
        ] {
            for wrong in question.tiles(&now).unwrap() {
                let mut forged = kept.tile(wrong).unwrap().to_vec();
                forged[5] ^= 1;
                let tile = |id| if id == wrong { Some(&forged[..]) } else { kept.tile(id) };
                assert!(question.answer(&now, tile).is_err(), "{wrong}");
                assert!(question.answer(&now, |id| kept.tile(id).filter(|_| id != wrong)).is_err(), "{wrong}");
            }
        }
    }
}

#[test]
fn what_is_not_within_the_tree_is_not_asked() {
    for question in [
        Question::Inclusion { index: 5, size: 5 },
        Question::Inclusion { index: 0, size: 0 },
        Question::Inclusion { index: 0, size: 9 },
        Question::Consistency { from: 0, to: 5 },
        Question::Consistency { from: 6, to: 5 },
        Question::Consistency { from: 1, to: 9 },
        Question::Cover { from: 6, to: 5 },
        Question::Cover { from: 1, to: 9 },
    ] {
        assert!(!question.fits(8) && question.tiles(&tree(8)).is_err(), "{question:?}");
    }
    assert!(!Question::Inclusion { index: 0, size: 1 }.fits(u64::MAX));
}

#[test]
fn a_leaf_is_proved_by_what_was_written_down() {
    let key = Key::new(3);
    let mut frontier = Frontier::new();
    (0..300).for_each(|leaf| frontier.push_hash(hash_of(leaf)));
    let now = Tree { size: 300, root: frontier.root() };
    let hashes = prove(Question::Inclusion { index: 17, size: 300 }, &now, &Kept::of(300));
    let proof = LeafProof { index: 17, hashes, checkpoint: key.checkpoint(&log(), &frontier) };
    let read = LeafProof::from_text(&proof.to_text()).unwrap();
    assert_eq!(read, proof);
    let vkey = checkpoint::vkey(&log(), &key.public());
    assert_eq!(read.verify(b"leaf 17", &[&vkey]).unwrap().size, 300);
    assert!(read.verify(b"leaf 18", &[&vkey]).is_err());
    assert_eq!(read.verify(b"leaf 17", &[]), Err(LedgerError::Unsigned));
    let moved = LeafProof { index: 18, ..read };
    assert!(moved.verify(b"leaf 17", &[&vkey]).is_err());
}

#[test]
fn a_proof_that_is_not_written_as_specified_is_refused() {
    let good = LeafProof { index: 7, hashes: vec![[1; 32]], checkpoint: "log\n".to_owned() }.to_text();
    assert!(LeafProof::from_text(&good).is_ok());
    for (from, to) in [
        ("@v1", "@v2"),
        ("index 7", "index 07"),
        ("index 7", "index -7"),
        ("index 7", "index 99999999999999999999"),
        ("index 7\n", "extra AAAA\nindex 7\n"),
        ("AQEB", "AQE"),
        ("AQEB", "****"),
        ("\n\n", "\n"),
    ] {
        assert!(LeafProof::from_text(&good.replacen(from, to, 1)).is_err(), "{from} -> {to}");
    }
    let many = LeafProof { index: 7, hashes: vec![[1; 32]; 65], checkpoint: String::new() };
    assert!(LeafProof::from_text(&many.to_text()).is_err());
}

#[test]
fn a_proof_of_growth_is_read_as_it_was_written_and_holds_for_the_older_tree_alone() {
    let (older, newer) = (tree(300), tree(700));
    let hashes = prove(Question::Consistency { from: 300, to: 700 }, &newer, &Kept::of(700));
    let proof = GrowthProof { from: 300, hashes, checkpoint: "a note\n\nand its signatures\n".to_owned() };
    let text = proof.to_text();
    assert!(text.starts_with("old 300\n") && text.ends_with("\n\na note\n\nand its signatures\n"));
    let read = GrowthProof::from_text(&text).unwrap();
    assert_eq!((&read, read.verify(&older, &newer)), (&proof, Ok(())));
    assert!(read.verify(&tree(299), &newer).is_err());
    assert!(read.verify(&older, &tree(701)).is_err());
    let bare = GrowthProof { from: 700, hashes: vec![], ..proof };
    assert_eq!(GrowthProof::from_text(&bare.to_text()), Ok(bare));
    for (from, to) in [("old 300", "old 0300"), ("old 300", "old -1"), ("old ", "index "), ("\n\n", "\n")] {
        assert!(GrowthProof::from_text(&text.replacen(from, to, 1)).is_err(), "{from} -> {to}");
    }
}
