//! Proofs of leaves and of growth over the wire, and the folder in which other tools find the ledger.

use std::fs;
use std::path::Path;
use std::time::Duration;

use strongroom_proto::v1;
use tlog_tiles::{Checkpoint, Hash, HashReader, Tile, TileHashReader, TileReader};
use tonic::Code;

use crate::files::path;
use crate::harness::{TestVault, grow, refused};
use crate::patience::until;

/// A folder of C2SP tlog-tiles, as a verifier of others reads it.
struct Folder<'a>(&'a Path);

impl TileReader for Folder<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let path = |tile: &Tile| self.0.join(tile.path().replacen("tile/8/", "tile/", 1));
        tiles.iter().map(|tile| fs::read(path(tile)).map_err(|_| tlog_tiles::Error::InvalidTile)).collect()
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// What a checkpoint says, which one of the log's keys must have signed.
pub fn head(note: &[u8], key: &str) -> Checkpoint {
    let note = signed_note::Note::from_bytes(note).unwrap();
    let verifier = signed_note::StandardVerifier::new(key.trim()).unwrap();
    note.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)])).unwrap();
    Checkpoint::from_bytes(note.text()).unwrap()
}

/// The leaves of a bundle, each behind its length.
pub fn bundled(mut bundle: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while !bundle.is_empty() {
        let (length, after) = bundle.split_first_chunk::<2>().unwrap();
        let (line, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
        lines.push(line);
        bundle = after;
    }
    lines
}

async fn with_leaves(leaves: usize) -> TestVault {
    let vault = TestVault::start();
    grow(&vault, "Ann", leaves).await;
    vault
}

#[tokio::test]
async fn a_leaf_is_proved_to_whoever_has_the_files_and_nothing_else() {
    let mut vault = with_leaves(3).await;
    let proof = vault.scratch().join("2.tlog-proof");
    vault.cli_ok(&["audit", "prove", "2", "-o", path(&proof)]);
    let key = vault.scratch().join("kept.key");
    fs::write(&key, vault.cli_ok(&["audit", "key"])).unwrap();
    // The vault is gone.
    vault.stop();
    let said = vault.json(&["audit", "check", path(&proof), "--log-key", path(&key)]);
    assert_eq!((&said["verified"], &said["index"], &said["key_given"]), (&true.into(), &"2".into(), &true.into()));

    let beside = |ending: &str| vault.scratch().join(format!("2.tlog-proof{ending}"));
    let leaf = fs::read_to_string(beside(".leaf")).unwrap();
    let text = fs::read_to_string(&proof).unwrap();
    let refuses = |file: &Path, good: &str, wrong: String| {
        assert_ne!(good, wrong);
        fs::write(file, wrong).unwrap();
        let output = vault.cli(&["audit", "check", path(&proof)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("does not hold"));
        fs::write(file, good).unwrap();
    };
    refuses(&beside(".leaf"), &leaf, leaf.replacen("allow", "deny", 1));
    refuses(&proof, &text, text.replacen("index 2", "index 1", 1));
    refuses(&proof, &text, text.replacen("tlog-proof@v1", "tlog-proof@v2", 1));
    let (hashes, note) = text.split_once("\n\n").unwrap();
    let fewer = hashes.rsplit_once('\n').unwrap().0;
    refuses(&proof, &text, format!("{fewer}\n\n{note}"));
    vault.cli_ok(&["audit", "check", path(&proof)]);
}

#[tokio::test]
async fn a_kept_checkpoint_proves_that_the_ledger_only_grew() {
    let vault = with_leaves(2).await;
    let kept = vault.scratch().join("kept.checkpoint");
    fs::write(&kept, vault.cli_ok(&["audit", "checkpoint"])).unwrap();
    grow(&vault, "Bob", 300).await;
    let said = vault.json(&["audit", "grown", path(&kept)]);
    let count = |member: &str| said[member].as_str().unwrap().parse::<u64>().unwrap();
    assert!(said["verified"] == true && count("to") >= count("from"), "{said}");
    // Who gave no key is told whose word it rests on.
    let key = vault.scratch().join("kept.key");
    fs::write(&key, vault.cli_ok(&["audit", "key"])).unwrap();
    assert!(vault.cli_ok(&["audit", "grown", path(&kept)]).contains("the vault itself named the key"));
    let by_key = vault.cli_ok(&["audit", "grown", path(&kept), "--log-key", path(&key)]);
    assert!(by_key.contains("verified") && !by_key.contains("note"), "{by_key}");

    // The checkpoint of another vault, whose log is another.
    let other = with_leaves(1).await;
    let foreign = vault.scratch().join("foreign.checkpoint");
    fs::write(&foreign, other.cli_ok(&["audit", "checkpoint"])).unwrap();
    let output = vault.cli(&["audit", "grown", path(&foreign)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test]
async fn other_tools_read_the_ledger_from_its_folder() {
    // More than a tile, and some.
    let vault = with_leaves(290).await;
    let folder = vault.scratch().join("ledger");
    vault.cli_ok(&["audit", "tiles", "-o", path(&folder)]);
    let note = fs::read(folder.join("checkpoint")).unwrap();
    let key = fs::read_to_string(folder.join("key")).unwrap();
    let head = head(&note, &key);
    assert!(head.size() > 256);

    // The bundles hold the leaves, each behind its length; the tiles hold their hashes, up to the root.
    let mut bundles = fs::read(folder.join("tile/entries/000")).unwrap();
    bundles.extend(fs::read(folder.join(format!("tile/entries/001.p/{}", head.size() - 256))).unwrap());
    let lines = bundled(&bundles);
    assert_eq!(lines.len() as u64, head.size());
    let tiles = Folder(&folder);
    let nodes = TileHashReader::new(head.size(), *head.hash(), &tiles);
    for (index, line) in (0..).zip(lines) {
        let hash: Hash = tlog_tiles::record_hash(line);
        let read = nodes.read_hashes(&[tlog_tiles::stored_hash_index(0, index)]).unwrap();
        assert!(read[0] == hash, "leaf {index}");
    }
    assert!(tlog_tiles::tree_hash(head.size(), &nodes).unwrap() == *head.hash());
}

#[tokio::test]
async fn a_folder_proves_what_is_in_it_without_the_vault_and_every_change_of_it_is_named() {
    let mut vault = with_leaves(3).await;
    let scratch = |name: &str| vault.scratch().join(name);
    let (kept, key, folder) = (scratch("kept.checkpoint"), scratch("kept.key"), scratch("ledger"));
    let (growth, proof) = (scratch("since.growth"), scratch("2.tlog-proof"));
    fs::write(&kept, vault.cli_ok(&["audit", "checkpoint"])).unwrap();
    fs::write(&key, vault.cli_ok(&["audit", "key"])).unwrap();
    grow(&vault, "Bob", 600).await;
    // A checkpoint is up to a second old.
    let head = until(Duration::from_secs(10), "two complete tiles", async || {
        vault.cli_ok(&["audit", "tiles", "-o", path(&folder)]);
        let key = fs::read_to_string(folder.join("key")).unwrap();
        let head = head(&fs::read(folder.join("checkpoint")).unwrap(), &key);
        if head.size() > 512 { Ok(head) } else { Err(head.size()) }
    })
    .await;
    vault.cli_ok(&["audit", "grown", path(&kept), "--log-key", path(&key), "-o", path(&growth)]);
    // The vault is gone.
    vault.stop();

    // A proof that it grew, which the vault or the folder gave.
    let check = ["audit", "check", path(&growth), "--older", path(&kept), "--log-key", path(&key)];
    let said = vault.json(&check);
    assert_eq!((&said["verified"], &said["key_given"]), (&true.into(), &true.into()));
    let text = fs::read_to_string(&growth).unwrap();
    let forged = text.replacen("old ", "old 1", 1);
    fs::write(&growth, forged).unwrap();
    assert_eq!(vault.cli(&check).status.code(), Some(1));
    fs::remove_file(&growth).unwrap();
    let of_folder =
        ["audit", "grown", path(&kept), "--tiles", path(&folder), "--log-key", path(&key), "-o", path(&growth)];
    assert_eq!(vault.json(&of_folder)["verified"], true);
    assert_eq!(vault.json(&check)["verified"], true);

    // A proof of a leaf.
    vault.cli_ok(&["audit", "prove", "2", "-o", path(&proof), "--tiles", path(&folder), "--log-key", path(&key)]);
    assert_eq!(vault.json(&["audit", "check", path(&proof), "--log-key", path(&key)])["index"], "2");
    let far = vault.cli(&["audit", "prove", "99999", "-o", path(&proof), "--tiles", path(&folder)]);
    assert_eq!(far.status.code(), Some(1));

    // All of it.
    let words = ["audit", "verify", path(&folder), "--log-key", path(&key), "--older", path(&kept)];
    let said = vault.json(&words);
    assert_eq!((&said["whole"], &said["verified"]), (&true.into(), &true.into()));
    let changed = |file: &str, at: usize, hint: &str| {
        let file = folder.join(file);
        let good = fs::read(&file).unwrap();
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let output = vault.cli(&words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(hint), "{hint}: {said}");
        fs::write(&file, good).unwrap();
    };
    let bundle = fs::read(folder.join("tile/entries/001")).unwrap();
    // The 256 leaves of the second bundle, and the third of them.
    let before: usize = bundled(&bundle).iter().take(2).map(|line| line.len() + 2).sum();
    changed("tile/entries/001", before + 2 + 40, "leaf 258, was changed");
    changed("tile/0/001", 5 * 32, "tile/0/001 has not the hashes");
    let top = format!("tile/1/000.p/{}", head.size() / 256);
    changed(&top, 0, &format!("{top} has not the hashes"));
    // The root, behind the origin and the size.
    let note = fs::read_to_string(folder.join("checkpoint")).unwrap();
    let root: usize = note.lines().take(2).map(|line| line.len() + 1).sum();
    changed("checkpoint", root, "does not verify");
    fs::remove_file(folder.join("tile/entries/001")).unwrap();
    let said = String::from_utf8(vault.cli(&words).stderr).unwrap();
    assert!(said.contains("tile/entries/001"), "{said}");
}

#[tokio::test]
async fn a_proof_over_the_wire_is_of_the_callers_own_log_and_within_it() {
    let vault = with_leaves(3).await;
    let ask = async |principal: &str, index: u64, size: u64, log: &str| {
        let mut client = vault.audit_as(principal).await;
        let request = v1::GetInclusionProofRequest { index, size, log: log.to_owned() };
        client.get_inclusion_proof(request).await
    };
    assert!(ask("auditor", 0, 2, "").await.unwrap().into_inner().hashes.len() == 1);
    assert!(ask("operator", 0, 0, "system").await.is_ok());
    assert_eq!(refused(ask("auditor", 0, 0, "system").await).code, Code::PermissionDenied);
    assert_eq!(refused(ask("app", 0, 0, "").await).code, Code::PermissionDenied);
    assert_eq!(refused(ask("auditor", 99, 3, "").await).violations[0].1, "out_of_range");
    let mut auditor = vault.audit().await;
    let growth = v1::GetConsistencyProofRequest { from: 0, to: 0, log: String::new() };
    assert_eq!(refused(auditor.get_consistency_proof(growth).await).violations[0].1, "out_of_range");
}
