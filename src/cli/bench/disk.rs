//! What a value takes on disk, and in which kinds of entries.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_proto::v1;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::{Family, Range, Store, StoreError};

use super::direct::Leaf;
use crate::cli::client::Context;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;

/// Entries of one page of a scan.
const PAGE: usize = 4_096;

/// What the store of a vault holds.
pub struct Contents {
    /// Bytes of all files, after everything was written to files and compacted.
    pub on_disk: u64,
    /// Entries and bytes of their keys and values, for each family.
    pub families: Vec<(Family, u64, u64)>,
}

/// Compacts the store of a vault that is closed, and counts what is in it.
pub async fn contents(layout: &Layout, options: RocksOptions) -> Result<Contents, CliError> {
    let unfit = |error: StoreError| CliError::unfit(error.to_string());
    let store = RocksStore::open(&layout.data(), options).map_err(unfit)?;
    store.flush_and_compact().await.map_err(unfit)?;
    let mut families = Vec::with_capacity(Family::ALL.len());
    for family in Family::ALL {
        let (mut entries, mut bytes, mut from) = (0, 0, vec![]);
        loop {
            let range = Range { from: std::mem::take(&mut from), to: vec![], limit: PAGE };
            let page = store.scan(family, range).await.map_err(unfit)?;
            entries += page.len() as u64;
            bytes += page.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
            match page.last() {
                Some((last, _)) if page.len() == PAGE => {
                    from = last.to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        families.push((family, entries, bytes));
    }
    Ok(Contents { on_disk: store.disk_usage(), families })
}

/// Leaves as the vault wrote them, for the yardstick to write as many bytes: an action's shortest is of one value, its
/// longest of a batch.
pub struct Leaves {
    /// Of a Tokenize with one value.
    pub tokenize_unary: Leaf,
    /// Of a Tokenize with a batch.
    pub tokenize_batch: Leaf,
    /// Of a Detokenize of one token.
    pub detokenize_unary: Leaf,
    /// Of a Detokenize of a batch.
    pub detokenize_batch: Leaf,
}

/// Reads the tenant's ledger, which must hold one request of each kind at least.
pub async fn leaves(auditor: &Context) -> Result<Leaves, CliError> {
    let request = v1::ExportRequest { first: 0, end: 0, log: String::new() };
    let mut pages = auditor.audit().await?.export(request).await?.into_inner();
    // Parts of one request stand behind each other.
    let mut requests: Vec<(String, String, Vec<Vec<u8>>)> = Vec::new();
    while let Some(page) = pages.message().await? {
        for line in page.leaves {
            let leaf: HashMap<String, serde_json::Value> =
                serde_json::from_slice(&line).map_err(|_| CliError::unfit("a leaf is not JSON"))?;
            let member = |name: &str| leaf.get(name).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
            let (id, action) = (member("request"), member("action"));
            match requests.last_mut() {
                Some((last, _, parts)) if *last == id => parts.push(line.to_vec()),
                _ => requests.push((id, action, vec![line.to_vec()])),
            }
        }
    }
    let missing = || CliError::unfit("the ledger lacks a request that was made");
    let sorted = |wanted: &str| {
        let mut of: Vec<&Vec<Vec<u8>>> =
            requests.iter().filter(|(_, action, _)| action == wanted).map(|(_, _, parts)| parts).collect();
        of.sort_by_key(|parts| parts.iter().map(Vec::len).sum::<usize>());
        of
    };
    let least = |action| sorted(action).first().map(|parts| Arc::new((*parts).clone())).ok_or_else(missing);
    let most = |action| sorted(action).last().map(|parts| Arc::new((*parts).clone())).ok_or_else(missing);
    Ok(Leaves {
        tokenize_unary: least("tokenize")?,
        tokenize_batch: most("tokenize")?,
        detokenize_unary: least("detokenize")?,
        detokenize_batch: most("detokenize")?,
    })
}
