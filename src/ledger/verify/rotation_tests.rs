//! Exports of logs whose key was rotated: what each key that somebody keeps proves.

use super::*;
use crate::checkpoint::tests::{Key, log};
use crate::log_keys::tests::{compromised, line, rotated, vkey};

/// A log of so many leaves, in which the key is rotated from 1 to 2 by leaf 5, and from 2 to 3 by leaf 10.
fn lines(leaves: u64) -> Vec<String> {
    let leaf = |index| match index {
        5 => rotated(5, 1, 2),
        10 => rotated(10, 2, 3),
        _ => line(index, "lookup", "allow", &[]),
    };
    (0..leaves).map(leaf).collect()
}

/// The head of the first leaves, by these keys.
fn signed(lines: &[String], leaves: usize, keys: &[u8]) -> String {
    let mut tree = Frontier::new();
    lines[..leaves].iter().for_each(|line| tree.push(line.as_bytes()));
    let keys: Vec<Key> = keys.iter().map(|seed| Key::new(*seed)).collect();
    checkpoint::sign_all(&log(), tree.size(), &tree.root(), &keys, Key::public, |key, text| key.sign(text)).unwrap()
}

fn verified(lines: &[String], newest: &str, older: &[String], key: u8) -> Result<Report, Fault> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    verify_export_since(text.as_bytes(), newest, older, &[vkey(key)]).map_err(|error| error.fault)
}

fn learned(report: &Report) -> Vec<(String, Option<u64>)> {
    report.keys.iter().map(|key| (key.key.clone(), key.leaf)).collect()
}

#[test]
fn each_key_leads_to_the_next_by_a_checkpoint_that_it_signed_along() {
    let lines = lines(15);
    let newest = signed(&lines, 15, &[3]);
    let (first, second) = (signed(&lines, 8, &[2, 1]), signed(&lines, 12, &[3, 2]));
    let all = [(vkey(1), None), (vkey(2), Some(5)), (vkey(3), Some(10))];
    for older in [[first.clone(), second.clone()], [second.clone(), first.clone()]] {
        let report = verified(&lines, &newest, &older, 1).unwrap();
        assert_eq!(learned(&report), all);
        let by: Vec<_> = report.proofs.iter().map(|proof| (proof.size, proof.by.clone())).collect();
        assert_eq!(by, [(8, vec![vkey(1)]), (12, vec![vkey(2)]), (15, vec![vkey(3)])]);
    }
    // A link is missing: it is named.
    let broken = |older: &[String]| verified(&lines, &newest, older, 1).unwrap_err();
    for (older, at) in [(vec![first], 10), (vec![signed(&lines, 4, &[1])], 5)] {
        let fault = broken(&older);
        let missing = LedgerError::UnsignedSince { leaf: at };
        assert!(matches!(&fault, Fault::Checkpoint { older: None, error } if *error == missing), "{fault}");
    }
    // The other way round, from the newest to the oldest.
    let report = verified(&lines, &newest, &[signed(&lines, 8, &[2]), signed(&lines, 4, &[1])], 3).unwrap();
    assert_eq!(report.proofs.len(), 3);
}

#[test]
fn a_leaf_that_nobody_vouches_for_names_no_key() {
    let mut forged = lines(15);
    let honest = signed(&forged, 8, &[2, 1]);
    // Whoever forges the end of the log names a key of its own there.
    forged[12] = rotated(12, 1, 9);
    let fault = verified(&forged, &signed(&forged, 15, &[9]), &[honest], 1).unwrap_err();
    assert!(matches!(fault, Fault::Checkpoint { older: None, error: LedgerError::UnsignedSince { .. } }), "{fault}");
    let fault = verified(&forged, &signed(&forged, 15, &[9]), &[], 1).unwrap_err();
    assert!(matches!(fault, Fault::Checkpoint { older: None, error: LedgerError::Unsigned }), "{fault}");
}

#[test]
fn a_strangers_checkpoint_does_not_speak_against_the_log_and_a_learnt_keys_does() {
    let lines = lines(15);
    let newest = signed(&lines, 15, &[2, 1]);
    let mut other = lines.clone();
    other[3] = line(3, "lookup", "deny", &[]);
    let fault = verified(&lines, &newest, &[signed(&other, 8, &[9])], 1).unwrap_err();
    assert!(matches!(fault, Fault::Checkpoint { older: Some(1), error: LedgerError::Unsigned }), "{fault}");
    let fault = verified(&lines, &newest, &[signed(&lines, 2, &[1]), signed(&other, 8, &[2])], 1).unwrap_err();
    assert!(matches!(fault, Fault::Root { from: 2, to: 8 }), "{fault}");
}

#[test]
fn what_only_a_compromised_key_signed_after_the_leaf_that_says_so_is_refused() {
    let mut lines = lines(10);
    lines[7] = compromised(7, 1);
    let first = signed(&lines, 6, &[2, 1]);
    assert!(verified(&lines, &signed(&lines, 10, &[1]), &[], 1).is_err());
    assert!(verified(&lines, &signed(&lines, 10, &[1]), std::slice::from_ref(&first), 1).is_err());
    let report = verified(&lines, &signed(&lines, 10, &[2]), &[first], 1).unwrap();
    assert_eq!(report.keys[0].compromised, Some(7));
    assert!(verified(&lines[..7], &signed(&lines, 7, &[1]), &[], 1).is_ok(), "before that it was right");
}
