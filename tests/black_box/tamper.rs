//! What somebody may do to the files of a stopped vault, or to what it gave out, without its keys: attack by attack, who names it
//! and in which words. [`ATTACKS`] is the table of those on the vault's folder. Those on what left it have tests of their own:
//!
//! | attack | who names it | words |
//! | --- | --- | --- |
//! | a byte of an export is changed | `audit verify` (`exported.rs`) | do not give the signed root; line N was changed |
//! | lines of it are dropped | | line N, leaf N is expected, was removed; ends after N leaves |
//! | two lines are swapped, or one is there twice | | line N, leaf N, lines were moved; already |
//! | the checkpoint is forged, or another log's | | the checkpoint does not verify |
//! | everything is put back, or another history is told | a witness (`forks.rs`) | refused: it had; only grew |

mod exported;
mod forks;
mod log;
mod stage;
mod store;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::house::{Ended, start};
use crate::startup::dev;
use crate::verify::verify;
use stage::{SECRETS, Stage};

/// What the number of a finding's place is called, and the number; none where there is only one of a kind, or many places.
type Place = Option<(&'static str, String)>;

/// Attacks a copy of the stage's vault; answers where that must be found.
type Attack = fn(&Stage, &Path) -> Place;

/// Who names an attack.
enum Named {
    /// `strongroom verify`, as a kind and a fault.
    Verify(&'static str, &'static str),
    /// The same with a checkpoint that was kept elsewhere, and without it nobody.
    Kept(&'static str, &'static str),
    /// A start, which is refused in these words.
    Start(&'static [&'static str]),
}
use Named::{Kept, Start, Verify};

const LOST: Named = Start(&["behind its head file", "acknowledged writes are lost", "newest copy of the data folder"]);

#[rustfmt::skip]
const ATTACKS: &[(&str, Attack, &[Named])] = &[
    // Values, and what leads to them.
    ("a value's row is changed", store::value_changed, &[Verify("value", "changed")]),
    ("a value is put back to an older version", store::value_put_back_to_an_older_version, &[Verify("value", "rolled_back")]),
    ("a value is removed, and what leads to it", store::value_removed_with_all_that_leads_to_it, &[Verify("value", "missing")]),
    ("a value is copied to another row", store::value_copied_to_another_row, &[Verify("value", "added")]),
    ("a value is moved to another row", store::value_moved_to_another_row, &[Verify("value", "moved")]),
    ("two values are swapped", store::values_swapped, &[Verify("value", "moved")]),
    ("a value is moved to another subject", store::value_moved_to_another_subject, &[Verify("value", "changed")]),
    ("a value is moved to another field", store::value_moved_to_another_field, &[Verify("value", "changed")]),
    ("a value is copied to another tenant", store::value_copied_to_another_tenant, &[Verify("value", "added")]),
    ("a deleted value is put back, and what led to it", store::deleted_value_put_back, &[Verify("value", "added")]),
    ("an index entry is removed", store::index_entry_removed, &[Verify("index_entry", "missing")]),
    ("an index entry is added", store::index_entry_added, &[Verify("index_entry", "added")]),
    ("the holder of a shared value is removed", store::holder_removed, &[Verify("holder", "missing")]),
    // Subjects and keys.
    ("a subject's id leads to another subject", store::subjects_id_leads_to_another, &[Verify("index_entry", "changed")]),
    ("a subject is put back to older labels", store::subject_put_back_to_older_labels, &[Verify("subject", "rolled_back")]),
    ("a subject gets the wrapped DEK of another", store::wrapped_dek_of_another_subject, &[Verify("dek", "changed")]),
    ("the keystore is put back", log::keystore_put_back, &[Start(&["keystore", "older than the data", "newest copy"])]),
    // Rules.
    ("the policy is put back", store::policy_put_back, &[Verify("policy", "rolled_back"),
        Start(&["tenant `demo`", "its policy is version 1", "version 2 in force", "bring back its newest copy"])]),
    ("the schema is put back", store::schema_put_back, &[Verify("schema", "rolled_back"), Start(&["its schema is version 1"])]),
    ("the schema is changed", store::schema_changed, &[Verify("schema", "changed"), Start(&["schema"])]),
    ("the freezes are put back", store::freezes_put_back, &[Verify("freezes", "rolled_back"), Start(&["its list of freezes is version"])]),
    ("the freezes are removed", store::freezes_removed, &[Verify("freezes", "missing"), Start(&["its list of freezes is missing"])]),
    ("the tiers are put back", store::tiers_put_back, &[Verify("tiers", "rolled_back"), Start(&["its list of tiers is version"])]),
    // The log.
    ("a leaf is changed", log::leaf_changed, &[Verify("leaf", "changed")]),
    ("a leaf is changed in good form", log::leaf_changed_in_good_form, &[Verify("leaf", "changed")]),
    ("a leaf is changed in good form, and the tile over it", log::leaf_changed_and_the_tile_over_it, &[Verify("log", "changed"),
        Verify("tile", "changed")]),
    ("a leaf is removed", log::leaf_removed, &[Verify("leaf", "missing")]),
    ("two leaves are swapped", log::leaves_swapped, &[Verify("leaf", "changed")]),
    ("the last leaf is dropped, and the head adjusted", log::last_leaf_dropped_with_the_head_adjusted, &[Verify("log", "rolled_back"), LOST]),
    ("a leaf is appended, and the head adjusted", log::leaf_appended_with_the_head_adjusted, &[Verify("leaf", "added"),
        Start(&["stopped in order", "`strongroom verify`"])]),
    ("a tile is changed", log::tile_changed, &[Verify("tile", "changed")]),
    // Copies.
    ("the store is put back", log::store_put_back, &[Verify("log", "rolled_back"), LOST]),
    ("store and keystore are put back", log::store_and_keystore_put_back, &[LOST]),
    ("the head file is put back", log::head_file_put_back, &[Verify("leaf", "added"), Start(&["stopped in order", "an older copy"])]),
    ("everything is put back", log::all_put_back, &[Kept("log", "rolled_back")]),
    ("the store is that of a fork", log::store_of_a_fork, &[Start(&["not the one that the head file speaks of"])]),
    ("everything is a fork's", log::all_of_a_fork, &[Kept("log", "changed")]),
];

/// Cases at once: each is a process or two that compute a key from a passphrase.
const AT_ONCE: usize = 4;

#[test]
fn every_attack_on_the_files_of_a_stopped_vault_is_named() {
    let stage = Stage::new();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((what, attack, named_by)) = ATTACKS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let vault = stage.copy(&what.replace(' ', "-"));
                    let place = attack(&stage, &vault);
                    let missed = named_by.iter().filter_map(|named| named.missed(&stage, &vault, &place).err());
                    let missed: Vec<String> = missed.map(|why| format!("{what}: {why}")).collect();
                    failed.lock().unwrap().extend(missed);
                    std::fs::remove_dir_all(vault).unwrap();
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} attacks: {failed:#?}", failed.len(), ATTACKS.len());

    // And what nobody touched is called whole by all of them.
    let vault = stage.copy("untouched");
    for more in [&[][..], &["--checkpoint", stage.kept.to_str().unwrap()]] {
        let (holds, document) = verify(&vault, more);
        assert!(holds && document["findings"].as_array().unwrap().is_empty(), "{document:#}");
    }
    drop(start(&mut dev(&vault)).unwrap());
}

impl Named {
    /// Nothing if an attack is named, or what is said instead.
    fn missed(&self, stage: &Stage, vault: &Path, place: &Place) -> Result<(), String> {
        let verified = |more: &[&str], kind: &str, fault: &str| {
            let (holds, document) = verify(vault, more);
            let found = document["findings"].as_array().unwrap().iter().any(|one| {
                let there = place.as_ref().is_none_or(|(name, number)| one[*name] == **number);
                let says_more = one["next"].is_string() && names_its_leaf(one);
                one["kind"] == *kind && one["fault"] == *fault && there && says_more
            });
            match !holds && found && !shows_a_secret(&document.to_string()) {
                true => Ok(()),
                false => {
                    Err(format!("verify does not find {kind} {fault} at {place:?}, or shows a secret: {document:#}"))
                }
            }
        };
        match self {
            Verify(kind, fault) => verified(&[], kind, fault),
            Kept(kind, fault) => {
                let (holds, document) = verify(vault, &[]);
                if !holds {
                    return Err(format!("from within nobody can tell: {document:#}"));
                }
                verified(&["--checkpoint", stage.kept.to_str().unwrap()], kind, fault)
            }
            Start(words) => match start(&mut dev(vault)) {
                Err(Ended { code: Some(1), said })
                    if words.iter().all(|word| said.contains(word)) && !shows_a_secret(&said) =>
                {
                    Ok(())
                }
                Err(Ended { code, said }) => Err(format!("it ended with {code:?}, and not with {words:?}: {said}")),
                Ok(_) => Err("it starts".to_owned()),
            },
        }
    }
}

/// Whether a finding of a row or subject that a log of the vault knows names the leaf that it should match.
fn names_its_leaf(finding: &Value) -> bool {
    let of_row = finding["row"].is_string() || finding["subject"].is_string();
    // The log `system` has no values.
    !of_row || finding["tenant"] == "system" || (finding["leaf"].is_string() && finding["log"] == finding["tenant"])
}

fn shows_a_secret(said: &str) -> bool {
    SECRETS.iter().any(|secret| said.contains(secret)) || said.contains("panicked")
}
