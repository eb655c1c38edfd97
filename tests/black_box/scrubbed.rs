//! Index entries that went are in no table, however its blocks are packed: each table says in clear how many entries it has, those that
//! were removed and what removes them among them. A search for bytes might miss one in a block that is compressed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use strongroom_proto::v1;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::{Family, Range, Store};
use tonic::Code;

use crate::harness::{TestVault, item, read_one, tokenize};
use crate::needles::files;
use crate::patience::until;

/// So many that blocks of their index entries are compressed.
const VALUES: u64 = 300;
/// In which the background has done what it does by itself.
const SOON: Duration = Duration::from_secs(60);

/// What a table says of itself.
const FAMILY: &[u8] = b"rocksdb.column.family.name";
const ENTRIES: &[u8] = b"rocksdb.num.entries";
const COMPRESSION: &[u8] = b"rocksdb.compression";

/// The next number, in 7 bits a byte, the lowest first.
fn number(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The next entry of a block and where it ends: how much its key shares with the last one, the lengths of the rest and of the value,
/// and these two.
fn entry(bytes: &[u8], mut at: usize, last: &[u8]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let mut length = || usize::try_from(number(bytes, &mut at)?).ok();
    let (shared, rest, value) = (length()?, length()?, length()?);
    let middle = at.checked_add(rest)?;
    let end = middle.checked_add(value)?;
    let key = [last.get(..shared)?, bytes.get(at..middle)?].concat();
    Some((key, bytes.get(middle..end)?.to_vec(), end))
}

/// What a table says of itself, by name; none if it is not written to its end yet. That block is never compressed.
fn properties(table: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let block = |mut at: usize| {
        let (mut all, mut last) = (BTreeMap::new(), Vec::new());
        while let Some((name, value, end)) = entry(table, at, &last)
            && name > last
        {
            (at, last) = (end, name.clone());
            all.insert(name, value);
        }
        all
    };
    // The first one shares nothing, and its lengths have a byte each.
    let begins = |at: &usize| table[*at] == 0 && table[at + 3..].starts_with(b"rocksdb.");
    let mut blocks = (0..table.len().saturating_sub(3)).filter(begins).map(block);
    blocks.find(|all| [FAMILY, ENTRIES, COMPRESSION].iter().all(|name| all.contains_key(*name)))
}

/// How many entries the tables of the index have, and whether one of them is compressed; none while a file is half written.
fn in_tables(data: &Path) -> Option<(u64, bool)> {
    let (mut entries, mut packed) = (0, false);
    for file in files(data).into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "sst")) {
        // A running vault removes files that it has compacted.
        let Ok(bytes) = std::fs::read(file) else { continue };
        let said = properties(&bytes)?;
        if said[FAMILY] == Family::Index.name().as_bytes() {
            entries += number(&said[ENTRIES], &mut 0)?;
            // The kinds that were used, LZ4 and Zstandard.
            packed |= said[COMPRESSION].windows(2).any(|kind| kind == b"04" || kind == b"07");
        }
    }
    Some((entries, packed))
}

/// How many index entries there are, of a vault that is stopped. All are in tables then.
async fn there_are(data: &Path) -> u64 {
    let store = RocksStore::open(data, RocksOptions::default()).unwrap();
    let all = Range { from: vec![], to: vec![], limit: 1_000_000 };
    let entries = u64::try_from(store.scan(Family::Index, all).await.unwrap().len()).unwrap();
    drop(store);
    assert_eq!(in_tables(data).map(|(entries, _)| entries), Some(entries), "what tables say is what is there");
    entries
}

async fn store(vault: &TestVault, subject: &str, expire_time: Option<prost_types::Timestamp>) -> Vec<String> {
    let email = |number: u64| item("borrower.email", &format!("m{number}{subject}@mail.example"), subject);
    let items = (0..VALUES).map(|number| v1::TokenizeItem { expire_time, ..email(number) });
    vault.vault().await.tokenize(tokenize(items.collect())).await.unwrap().into_inner().tokens
}

/// A vault with a subject's values, and others that came later, each in tables of their own; how many index entries the first has,
/// and the tokens of the others.
async fn filled(subject: &str, expires: Option<Duration>) -> (TestVault, u64, Vec<String>) {
    let mut vault = TestVault::start();
    let data = vault.dir().join("data");
    store(&vault, "stays", None).await;
    assert!(vault.stop().success());
    let stays = there_are(&data).await;
    vault.up();
    let expire_time = expires.map(|after| prost_types::Timestamp::from(SystemTime::now() + after));
    let tokens = store(&vault, subject, expire_time).await;
    assert!(vault.stop().success());
    assert!(there_are(&data).await >= stays + VALUES);
    assert!(in_tables(&data).unwrap().1, "no block is compressed");
    vault.up();
    (vault, stays, tokens)
}

/// Waits until the tables have these entries and no others.
async fn only_these_are_left(mut vault: TestVault, entries: u64) {
    let data = vault.dir().join("data");
    until(SOON, "the end of what was left", async || match in_tables(&data) {
        Some((left, _)) if left == entries => Ok(()),
        left => Err(format!("{left:?} instead of {entries}")),
    })
    .await;
    assert!(vault.stop().success());
    assert_eq!(there_are(&data).await, entries);
    vault.cli_ok(&["verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_table_has_index_entries_of_an_erased_subject() {
    let (vault, stays, _) = filled("gone", None).await;
    let mut desk = SubjectsClient::new(vault.channel("privacy").await);
    let request = v1::EraseSubjectRequest { subject: "gone".to_owned(), ..Default::default() };
    assert_eq!(desk.erase_subject(request).await.unwrap().into_inner().state, "erased");
    only_these_are_left(vault, stays).await;
}

/// What leads from an id to its subject is written away with the receipt, and its neighbours in the same table with it; of what belongs to
/// nobody only the background's rewriting gets the index entries out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_table_has_index_entries_of_values_of_nobody_that_have_expired() {
    let (vault, stays, tokens) = filled("", Some(Duration::from_secs(3))).await;
    until(SOON, "the expiry", async || match read_one(&vault, &tokens[0], "loan_servicing", "plain").await {
        Err(told) if told.code == Code::NotFound => Ok(()),
        _ => Err("it is still read"),
    })
    .await;
    let job = vault.json(&["retention", "run"]);
    assert_eq!((&job["state"], &job["done"]), (&"done".into(), &VALUES.to_string().into()), "{job}");
    only_these_are_left(vault, stays).await;
}
