//! Shares as their holders bring them: enough, too few, changed, twice, of another set.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::root::suite;

const VAULT: VaultId = VaultId([9; 16]);

/// A root key, its shares as texts, and what it sealed.
fn sealed(count: u8, threshold: u8) -> (Vec<Zeroizing<String>>, Envelope, KeystoreKey) {
    let (root, shares) = split(count, threshold).unwrap();
    let key = KeystoreKey::random().unwrap();
    let envelope = root.wrap(VAULT, &key).unwrap();
    (shares.iter().map(Share::text).collect(), envelope, key)
}

/// Why a share was refused; it must have been, as a credential.
fn why(refused: Result<Progress, RootError>) -> String {
    match refused.unwrap_err() {
        RootError::Credential { provider: RootKind::Shamir, why } => why,
        other => panic!("{other}"),
    }
}

#[test]
fn the_suite_of_providers_holds() {
    suite::holds(&split(5, 3).unwrap().0, &split(5, 3).unwrap().0);
    // As it comes out of the shares.
    let (texts, envelope, _) = sealed(3, 2);
    let mut collector = ShamirCollector::new(&envelope).unwrap();
    texts.iter().for_each(|text| drop(collector.add(text)));
    suite::holds(&*collector.root().unwrap(), &split(3, 2).unwrap().0);
}

#[test]
fn every_choice_of_enough_shares_opens_and_none_of_fewer_does() {
    let (texts, envelope, key) = sealed(5, 3);
    for chosen in 0..1_u32 << 5 {
        let mut collector = ShamirCollector::new(&envelope).unwrap();
        let mut have = 0;
        for (place, text) in texts.iter().enumerate().filter(|(place, _)| chosen & (1 << place) != 0) {
            have += 1;
            assert_eq!(collector.add(text).unwrap(), Progress { have, need: 3 }, "share {place}");
        }
        match collector.root() {
            Ok(root) => {
                assert!(have >= 3);
                assert_eq!(root.unwrap(VAULT, &envelope).unwrap().expose(), key.expose());
            }
            Err(error) => {
                assert!(have < 3);
                let numbers = format!("{have} of the 3 that are needed; {} more", 3 - have);
                assert!(error.to_string().contains(&numbers), "{error}");
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_share_is_told_apart_and_the_others_stay() {
    let (texts, envelope, key) = sealed(5, 3);
    let (foreign, ..) = sealed(5, 3);
    let mut collector = ShamirCollector::new(&envelope).unwrap();
    let first = Progress { have: 1, need: 3 };
    assert_eq!(collector.add(&texts[4]).unwrap(), first);
    for not_a_share in ["", " ", "hunter2", "srs2-aaaa", "srs", &texts[0][5..], &"srs1-".repeat(1_000)[1..]] {
        assert!(why(collector.add(not_a_share)).contains("not a share"), "{not_a_share}");
    }
    for (changed, says) in [
        (texts[0][..60].to_owned(), "55 letters"),
        (format!("{}aa", &*texts[0]), "74 letters"),
        (format!("{}1", &texts[0][..76]), "letters a to z and the digits 2 to 7"),
        (format!("{}\u{e9}", &texts[0][..75]), "a sign that no share has"),
        (" ".repeat(2_000), "not a share"),
        (format!("{}{}", &*texts[0], " ".repeat(2_000)), "not a share"),
    ] {
        assert!(why(collector.add(&changed)).contains(says), "{changed}: {}", why(collector.add(&changed)));
    }
    assert!(why(collector.add(&foreign[0])).contains("another vault"));
    assert_eq!(why(collector.add(&texts[4])), "share 5 was given already: bring another one");
    assert_eq!(collector.progress(), first);
    collector.add(&texts[0]).unwrap();
    collector.add(&texts[2]).unwrap();
    assert_eq!(collector.root().unwrap().unwrap(VAULT, &envelope).unwrap().expose(), key.expose());
}

#[test]
fn a_share_that_was_changed_with_a_checksum_that_matches_is_told_as_changed() {
    let (_, shares) = split(3, 2).unwrap();
    let (texts, envelope, _) = sealed(3, 2);
    let mut collector = ShamirCollector::new(&envelope).unwrap();
    let of_this_set = Share::parse(&texts[0]).unwrap().set;
    let changes: [fn(&mut Share); 4] =
        [|_| {}, |share| share.number = 0, |share| share.number = 4, |share| share.threshold = 1];
    for change in changes {
        let mut forged = Share::parse(&shares[0].text()).unwrap();
        forged.set = of_this_set;
        change(&mut forged);
        assert!(why(collector.add(&forged.text())).contains("the share was changed: it says that it is share"));
    }
    let mut another = Share::parse(&texts[0]).unwrap();
    another.number = 2;
    assert!(why(collector.add(&another.text())).contains("changed"), "a share does not pass for another");
    assert_eq!(collector.progress().have, 0);
}

#[test]
fn a_cleared_collector_begins_anew() {
    let (texts, envelope, _) = sealed(3, 2);
    let mut collector = ShamirCollector::new(&envelope).unwrap();
    collector.add(&texts[0]).unwrap();
    assert!(collector.add(&texts[1]).unwrap().is_enough());
    collector.clear();
    assert_eq!(collector.progress(), Progress { have: 0, need: 2 });
    assert!(collector.root().is_err());
    assert!(!collector.add(&texts[0]).unwrap().is_enough());
}

#[test]
fn people_may_type_a_share_in_capitals_and_in_groups() {
    let (texts, envelope, _) = sealed(3, 2);
    let mut collector = ShamirCollector::new(&envelope).unwrap();
    assert_eq!(texts[0].len(), 77);
    assert!(texts[0].chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    let groups: Vec<&str> = texts[0].as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap()).collect();
    let typed = format!("  {}\r\n", groups.join(" - ").to_uppercase());
    assert_eq!(collector.add(&typed).unwrap().have, 1);
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    for (count, threshold) in [(0, 0), (1, 1), (5, 0), (5, 1), (2, 3), (17, 2), (255, 255)] {
        let refused = split(count, threshold).unwrap_err();
        assert!(matches!(refused, RootError::Settings { provider: RootKind::Shamir, .. }), "{refused}");
    }
    for (count, threshold) in [(2, 2), (16, 2), (16, 16)] {
        let (root, shares) = split(count, threshold).unwrap();
        assert_eq!((root.set().count(), root.set().threshold(), shares.len()), (count, threshold, count.into()));
        assert!(root.set().encode().len() <= 255, "it is one part of the authenticated data");
    }
}

#[test]
fn no_type_shows_what_it_holds() {
    let (root, shares) = split(3, 2).unwrap();
    let key = KeystoreKey::random().unwrap();
    let mut collector = ShamirCollector::new(&root.wrap(VAULT, &key).unwrap()).unwrap();
    collector.add(&shares[0].text()).unwrap();
    assert_eq!(format!("{:?}", shares[0]), "Share(1)");
    let said = format!("{root:?} {collector:?}");
    let list = |bytes: &[u8]| format!("{:?}", &bytes[..8]).trim_matches(['[', ']']).to_owned();
    assert!(!said.contains(&list(root.root.as_slice())) && !said.contains(&list(&shares[0].point()[1..])), "{said}");
}

/// A bias of the coefficients has leaked secrets from more than one implementation: every value of a byte comes about as
/// often as the others, in every share.
#[test]
fn the_bytes_of_shares_are_uniform() {
    let mut counts = vec![[0_u32; 256]; 3];
    let rounds: u32 = 2_000;
    for _ in 0..rounds {
        let (_, shares) = split(3, 3).unwrap();
        for (count, share) in counts.iter_mut().zip(&shares) {
            share.point()[1..].iter().for_each(|byte| count[usize::from(*byte)] += 1);
        }
    }
    // 250 of each are expected, with a deviation of 16: eight times that is out of all chance.
    let expected = rounds * 32 / 256;
    for count in counts.iter().flatten() {
        assert!(count.abs_diff(expected) < 128, "{count} instead of about {expected}");
    }
}

#[test]
fn no_two_sets_and_no_two_shares_are_the_same() {
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let (root, shares) = split(4, 2).unwrap();
        assert!(seen.insert(root.set().id()));
        assert!(shares.iter().all(|share| seen.insert(share.text().to_string())));
    }
}

proptest! {
    #[test]
    fn a_share_survives_its_text(set: [u8; SET], number: u8, threshold: u8, y: [u8; 32]) {
        let share = Share::from_point(set, threshold, &[&[number][..], &y].concat()).unwrap();
        let again = Share::parse(&share.text()).unwrap();
        prop_assert_eq!((again.set, again.number, again.threshold), (set, number, threshold));
        prop_assert_eq!(again.point(), share.point());
        prop_assert_eq!(again.fingerprint(), share.fingerprint());
    }

    #[test]
    fn one_letter_mistyped_is_noticed(at in 5..77_usize, letter in "[a-z2-7]") {
        let (texts, envelope, _) = sealed(3, 2);
        let mut typed = texts[0].to_string();
        typed.replace_range(at..=at, &letter);
        let added = ShamirCollector::new(&envelope).unwrap().add(&typed);
        prop_assert_eq!(added.is_ok(), typed == *texts[0]);
    }

    #[test]
    fn arbitrary_texts_and_parameters_never_panic(text: String, letters in "srs1-[a-z2-7]{72}", bytes in vec(any::<u8>(), 0..200)) {
        let (_, mut envelope, _) = sealed(3, 2);
        let mut collector = ShamirCollector::new(&envelope).unwrap();
        prop_assert!(collector.add(&text).is_err());
        prop_assert!(collector.add(&letters).is_err());
        if let Some(set) = ShareSet::decode(&bytes) {
            prop_assert_eq!(set.encode(), bytes.clone());
        }
        envelope.parameters = bytes;
        let _ = ShareSet::of(&envelope);
    }
}
