//! Every kind of tampering is noticed, and named as closely as the export allows.

use strongroom_ids::RowId;

use super::*;
use crate::checkpoint::tests::{Key, log};
use crate::leaf::sample::header;
use crate::leaf::{LeafHeader, LeafItem, prepare};

/// A log of its leaves, as it would be exported.
struct Log {
    lines: Vec<String>,
    key: Key,
}

impl Log {
    /// A log with so many requests of one leaf each.
    fn new(requests: u64) -> Self {
        let mut log = Self { lines: vec![], key: Key::new(1) };
        (0..requests).for_each(|number| log.request(number, 1));
        log
    }

    fn request(&mut self, number: u64, items: u64) {
        let request = std::array::from_fn(|at| if at == 0 { number as u8 } else { 0x5a });
        let header = LeafHeader {
            request: &request,
            action: if number.is_multiple_of(2) { "tokenize" } else { "detokenize" },
            decision: if number.is_multiple_of(3) { "deny" } else { "allow" },
            policy: 1,
            ..header()
        };
        let item = |row| LeafItem { row: Some(RowId(row)), outcome: "ok", ..LeafItem::default() };
        for leaf in prepare(&header, (0..items).map(item)) {
            let index = self.lines.len() as u64;
            let line = leaf.finish(index, Timestamp(1_795_487_952_123_456 + number * 1_000));
            self.lines.push(String::from_utf8(line).unwrap());
        }
    }

    fn export(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn tree(&self, size: usize) -> Frontier {
        let mut tree = Frontier::new();
        self.lines[..size].iter().for_each(|line| tree.push(line.as_bytes()));
        tree
    }

    fn checkpoint(&self, size: usize) -> String {
        self.key.checkpoint(&log(), &self.tree(size))
    }

    fn keys(&self) -> Vec<String> {
        vec![checkpoint::vkey(&log(), &self.key.public())]
    }

    /// Verifies an export against what this log signed.
    fn verify(&self, export: &str) -> Result<Report, VerifyError> {
        verify_export(export.as_bytes(), &self.checkpoint(self.lines.len()), &self.keys())
    }

    fn verify_since(&self, export: &str, older: &[usize]) -> Result<Report, VerifyError> {
        let older: Vec<String> = older.iter().map(|size| self.checkpoint(*size)).collect();
        verify_export_since(export.as_bytes(), &self.checkpoint(self.lines.len()), &older, &self.keys())
    }
}

/// The export after something was done to its lines.
fn tampered(log: &Log, tamper: impl FnOnce(&mut Vec<String>)) -> String {
    let mut lines = log.lines.clone();
    tamper(&mut lines);
    Log { lines, key: Key::new(1) }.export()
}

#[test]
fn an_untouched_export_verifies() {
    let log = Log::new(10);
    let report = log.verify(&log.export()).unwrap();
    assert_eq!((report.leaves, report.root), (10, log.tree(10).root()));
    assert_eq!(report.origin, super::tests::log());
    assert_eq!(report.first_time, Some(Timestamp(1_795_487_952_123_456)));
    assert_eq!(report.last_time, Some(Timestamp(1_795_487_952_132_456)));
    let count =
        |action: &str, decision: &str| report.counts.get(action).and_then(|counts| counts.get(decision)).copied();
    assert_eq!([count("tokenize", "allow"), count("tokenize", "deny")], [Some(3), Some(2)]);
    assert_eq!([count("detokenize", "allow"), count("detokenize", "deny")], [Some(3), Some(2)]);
}

#[test]
fn an_empty_log_verifies() {
    let log = Log::new(0);
    let report = log.verify("").unwrap();
    assert_eq!((report.leaves, report.first_time, report.last_time), (0, None, None));
}

#[test]
fn a_missing_last_newline_is_no_change_of_a_leaf() {
    let log = Log::new(3);
    assert!(log.verify(log.export().trim_end()).is_ok());
}

#[test]
fn older_checkpoints_hold_in_any_order() {
    let log = Log::new(10);
    assert!(log.verify_since(&log.export(), &[7, 0, 3, 10, 3]).is_ok());
}

#[test]
fn a_changed_byte_that_breaks_the_form_is_named_by_its_line() {
    let log = Log::new(10);
    let export = tampered(&log, |lines| lines[4] = lines[4].replace("\"policy\":1", "\"policy\": 1"));
    let error = log.verify(&export).unwrap_err();
    assert!(matches!(error.fault, Fault::NotCanonical { line: 5, index: 4, .. }), "{error}");
}

#[test]
fn changed_content_in_good_form_does_not_give_the_signed_root() {
    let log = Log::new(10);
    let export = tampered(&log, |lines| lines[4] = lines[4].replace("loan-core", "loan-c0re"));
    let error = log.verify(&export).unwrap_err();
    assert!(matches!(error.fault, Fault::Root { from: 0, to: 10 }), "{error}");
}

#[test]
fn older_checkpoints_narrow_the_place_of_changed_content() {
    let log = Log::new(10);
    let export = tampered(&log, |lines| lines[4] = lines[4].replace("loan-core", "loan-c0re"));
    let error = log.verify_since(&export, &[9, 2, 6, 4]).unwrap_err();
    assert!(matches!(error, VerifyError { proven: 4, fault: Fault::Root { from: 4, to: 6 } }), "{error}");
    assert!(error.to_string().ends_with("; leaves 0 to 3 are as a checkpoint has them"), "{error}");
}

#[test]
fn a_removed_leaf_is_named() {
    let log = Log::new(10);
    let error = log.verify(&tampered(&log, |lines| drop(lines.remove(4)))).unwrap_err();
    assert!(matches!(error.fault, Fault::Missing { line: 5, expected: 4, got: 5 }), "{error}");
    assert!(error.to_string().ends_with("it was removed"), "{error}");
    let error = log.verify(&tampered(&log, |lines| drop(lines.drain(4..7)))).unwrap_err();
    assert!(error.to_string().ends_with("leaves 4 to 6 were removed"), "{error}");
}

#[test]
fn a_repeated_leaf_is_named() {
    let log = Log::new(10);
    let error = log.verify(&tampered(&log, |lines| lines.insert(5, lines[4].clone()))).unwrap_err();
    assert!(matches!(error.fault, Fault::Repeated { line: 6, expected: 5, got: 4 }), "{error}");
    assert!(error.to_string().contains("stands in line 5 already"), "{error}");
}

#[test]
fn swapped_leaves_are_named() {
    let log = Log::new(10);
    let error = log.verify(&tampered(&log, |lines| lines.swap(4, 8))).unwrap_err();
    assert!(matches!(error.fault, Fault::Moved { line: 5, expected: 4, got: 8, at: 9 }), "{error}");
    let error = log.verify(&tampered(&log, |lines| lines.swap(0, 1))).unwrap_err();
    assert!(matches!(error.fault, Fault::Moved { line: 1, expected: 0, got: 1, at: 2 }), "{error}");
}

#[test]
fn swapped_leaves_that_were_numbered_anew_run_backwards_in_time() {
    let log = Log::new(10);
    let export = tampered(&log, |lines| {
        let (one, next) = (
            lines[4].replace("\"index\":\"4\"", "\"index\":\"5\""),
            lines[5].replace("\"index\":\"5\"", "\"index\":\"4\""),
        );
        (lines[4], lines[5]) = (next, one);
    });
    let error = log.verify(&export).unwrap_err();
    assert!(matches!(error.fault, Fault::TimeBackwards { line: 6, .. }), "{error}");
}

#[test]
fn a_removed_end_is_named() {
    let log = Log::new(10);
    let error = log.verify_since(&tampered(&log, |lines| lines.truncate(7)), &[5]).unwrap_err();
    assert!(matches!(error, VerifyError { proven: 5, fault: Fault::TooFew { size: 7, newest: 10 } }), "{error}");
    let error = log.verify("").unwrap_err();
    assert!(matches!(error.fault, Fault::TooFew { size: 0, newest: 10 }), "{error}");
}

#[test]
fn an_export_that_breaks_off_within_a_line_is_named() {
    let log = Log::new(10);
    let export = log.export();
    let error = log.verify(&export[..export.len() - 30]).unwrap_err();
    assert!(matches!(error.fault, Fault::Truncated { line: 10, index: 9 }), "{error}");
}

#[test]
fn an_appended_leaf_is_named_and_the_signed_ones_hold() {
    let mut log = Log::new(10);
    let signed = log.checkpoint(10);
    log.request(10, 1);
    let error = verify_export(log.export().as_bytes(), &signed, &log.keys()).unwrap_err();
    assert!(matches!(error, VerifyError { proven: 10, fault: Fault::TooMany { line: 11, size: 10 } }), "{error}");
}

#[test]
fn an_appended_leaf_does_not_hide_changed_content() {
    let mut log = Log::new(10);
    let signed = log.checkpoint(10);
    log.request(10, 1);
    let export = tampered(&log, |lines| lines[4] = lines[4].replace("loan-core", "loan-c0re"));
    let error = verify_export(export.as_bytes(), &signed, &log.keys()).unwrap_err();
    assert!(matches!(error.fault, Fault::Root { from: 0, to: 10 }), "{error}");
}

#[test]
fn an_export_from_the_middle_cannot_be_verified() {
    let log = Log::new(10);
    let error = log.verify(&tampered(&log, |lines| drop(lines.drain(..4)))).unwrap_err();
    assert!(matches!(error.fault, Fault::StartsLate { got: 4 }), "{error}");
}

#[test]
fn converted_line_ends_are_recognised() {
    let log = Log::new(3);
    let error = log.verify(&log.export().replace('\n', "\r\n")).unwrap_err();
    assert!(matches!(error.fault, Fault::Converted { line: 1 }), "{error}");
}

#[test]
fn an_endless_line_is_refused_without_being_read() {
    let log = Log::new(1);
    let endless = std::io::BufReader::new(std::io::repeat(b'x'));
    let error = verify_export(endless, &log.checkpoint(1), &log.keys()).unwrap_err();
    assert!(matches!(error.fault, Fault::TooLong { line: 1 }), "{error}");
}

#[test]
fn a_checkpoint_by_another_key_proves_nothing() {
    let log = Log::new(3);
    let forged = Key::new(2).checkpoint(&super::tests::log(), &log.tree(3));
    let error = verify_export(log.export().as_bytes(), &forged, &log.keys()).unwrap_err();
    assert!(matches!(error.fault, Fault::Checkpoint { older: None, error: LedgerError::Unsigned }), "{error}");
}

#[test]
fn older_checkpoints_must_be_of_the_same_log_and_older() {
    let log = Log::new(5);
    let (newest, keys) = (log.checkpoint(3), log.keys());
    let other = Key::new(1).checkpoint("strongroom/other", &log.tree(2));
    let known = [keys.clone(), vec![checkpoint::vkey("strongroom/other", &Key::new(1).public())]].concat();
    let error = verify_export_since(&b""[..], &newest, &[log.checkpoint(1), other], &known).unwrap_err();
    assert!(matches!(error.fault, Fault::OtherLog { older: 2, .. }), "{error}");
    let error = verify_export_since(&b""[..], &newest, &[log.checkpoint(5)], &keys).unwrap_err();
    assert!(matches!(error.fault, Fault::NotOlder { older: 1, size: 5, newest: 3 }), "{error}");
}

#[test]
fn two_checkpoints_that_contradict_each_other_are_a_fork() {
    let log = Log::new(3);
    let mut other = Frontier::new();
    (0..3).for_each(|_| other.push(b"another history"));
    let other = log.key.checkpoint(&super::tests::log(), &other);
    let error = verify_export_since(log.export().as_bytes(), &log.checkpoint(3), &[other], &log.keys()).unwrap_err();
    assert!(matches!(error.fault, Fault::Fork { size: 3 }), "{error}");
}

#[test]
fn parts_of_a_request_stand_together_and_count_once() {
    let mut log = Log::new(2);
    log.request(2, 5_000);
    log.request(3, 1);
    assert!(log.lines.len() > 5);
    let report = log.verify(&log.export()).unwrap();
    assert_eq!(report.leaves, log.lines.len() as u64);
    assert_eq!(report.counts.values().flat_map(BTreeMap::values).sum::<u64>(), 4);
}

#[test]
fn a_signed_log_with_broken_parts_is_noticed() {
    let mut whole = Log::new(2);
    whole.request(2, 5_000);
    let parts = whole.lines.len() - 2;
    let renumber = |log: &mut Log| {
        for (index, line) in log.lines.iter_mut().enumerate() {
            let (_, rest) = line.split_once(',').unwrap();
            *line = format!("{{\"index\":\"{index}\",{rest}");
        }
    };
    // The first part, one from the middle, and the last are left out when the log is signed.
    for (removed, expected) in [(2, "those before it"), (3, "next part"), (1 + parts, "before all parts")] {
        let mut log = Log { lines: whole.lines.clone(), key: Key::new(1) };
        log.lines.remove(removed);
        renumber(&mut log);
        let error = log.verify(&log.export()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_forged_export_cannot_make_the_report_grow_without_bound() {
    let mut counts = BTreeMap::<String, u64>::new();
    (0..10_000).for_each(|number| at(&mut counts, &number.to_string(), |count| *count += 1));
    assert_eq!(counts.len(), MAX_COUNTED + 1);
    assert_eq!(counts.values().sum::<u64>(), 10_000);
    at(&mut counts, "7", |count| *count += 1);
    assert_eq!((counts["7"], counts[OTHERS]), (2, 10_000 - MAX_COUNTED as u64));
}
