//! What a value takes on disk, and in which kinds of entries.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_proto::v1;
use strongroom_rocksdb::{Background, RocksOptions, RocksStore};
use strongroom_storage::{Family, Range, Store};

use super::direct::Leaf;
use super::population::{Owner, Shape};
use super::work::unfit;
use crate::cli::client::Context;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;

/// Entries of one page of a scan.
const PAGE: usize = 4_096;

/// What one family of a store holds.
pub struct Held {
    /// Which.
    pub family: Family,
    /// Its entries.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Bytes of its files, after everything was written to files and compacted.
    pub files: u64,
}

/// Bytes of the files of every family, in the order of their numbers.
pub type Files = [u64; Family::ALL.len()];

/// Writes everything to files, compacts them, and says how large they are.
pub async fn files(store: &Background) -> Result<Files, CliError> {
    store.compact().await.map_err(unfit)?;
    let mut files = Files::default();
    for (family, bytes) in Family::ALL.iter().zip(&mut files) {
        *bytes = store.files(*family).map_err(unfit)?;
    }
    Ok(files)
}

/// Compacts the store of a vault that is closed, and counts what is in it.
pub async fn contents(layout: &Layout, options: RocksOptions) -> Result<Vec<Held>, CliError> {
    let store = RocksStore::open(&layout.data(), options).map_err(unfit)?;
    let files = files(&store.background()).await?;
    let mut families = Vec::with_capacity(Family::ALL.len());
    for (family, files) in Family::ALL.into_iter().zip(files) {
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
        families.push(Held { family, entries, bytes, files });
    }
    Ok(families)
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

impl Leaves {
    /// Those of a request of this shape.
    pub fn of(&self, reads: bool, shape: Shape) -> &Leaf {
        match (reads, shape.owner) {
            (false, Owner::Nobody) => &self.tokenize_unary,
            (false, Owner::Borrower) => &self.tokenize_batch,
            (true, Owner::Nobody) => &self.detokenize_unary,
            (true, Owner::Borrower) => &self.detokenize_batch,
        }
    }
}

/// The shortest and the longest request of one action.
#[derive(Default)]
struct Extremes {
    least: Vec<Vec<u8>>,
    most: Vec<Vec<u8>>,
}

impl Extremes {
    fn look_at(&mut self, parts: &[Vec<u8>]) {
        let size = |parts: &[Vec<u8>]| parts.iter().map(Vec::len).sum::<usize>();
        if self.least.is_empty() || size(parts) < size(&self.least) {
            self.least = parts.to_vec();
        }
        if size(parts) > size(&self.most) {
            self.most = parts.to_vec();
        }
    }
}

/// Reads the tenant's ledger, which must hold one request of each kind at least.
pub async fn leaves(auditor: &Context) -> Result<Leaves, CliError> {
    let request = v1::ExportRequest::default();
    let mut pages = auditor.audit().await?.export(request).await?.into_inner();
    let mut seen: HashMap<String, Extremes> = HashMap::new();
    // Parts of one request stand behind each other.
    let (mut last, mut action, mut parts) = (String::new(), String::new(), Vec::new());
    while let Some(page) = pages.message().await? {
        for line in page.leaves {
            let leaf: HashMap<String, serde_json::Value> =
                serde_json::from_slice(&line).map_err(|_| CliError::unfit("a leaf is not JSON"))?;
            let member = |name: &str| leaf.get(name).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
            if member("request") != last {
                seen.entry(std::mem::replace(&mut action, member("action"))).or_default().look_at(&parts);
                last = member("request");
                parts.clear();
            }
            parts.push(line.to_vec());
        }
    }
    seen.entry(action).or_default().look_at(&parts);
    let mut of = |action: &str| match seen.remove(action) {
        Some(Extremes { least, most }) => Ok((Arc::new(least), Arc::new(most))),
        None => Err(CliError::unfit(format!("the ledger lacks a {action} that was made"))),
    };
    let (tokenize_unary, tokenize_batch) = of("tokenize")?;
    let (detokenize_unary, detokenize_batch) = of("detokenize")?;
    Ok(Leaves { tokenize_unary, tokenize_batch, detokenize_unary, detokenize_batch })
}
