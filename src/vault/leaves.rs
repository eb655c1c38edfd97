//! Leaves as they lie in the store: a log's, in their order and without a gap. Those that are archived are named.

use bytes::Bytes;
use strongroom_ids::TenantNo;
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Range, Store};

use crate::archive::held;
use crate::error::Error;
use crate::pages::PAGE;

/// Why a leaf is not there which the log has: it is archived, or lost.
async fn missing<S: Store>(store: &S, log: TenantNo, index: u64) -> Error {
    match held::not_archived(store, log, index).await {
        Ok(()) => Error::DataLoss("the ledger: a leaf is missing"),
        Err(error) => error,
    }
}

/// The leaves from `first` on and before `end`, which the log has: one at least and a page at most.
pub(crate) async fn page<S: Store>(store: &S, log: TenantNo, first: u64, end: u64) -> Result<Vec<Bytes>, Error> {
    let (from, to) = place::leaves_range(log, first, end);
    let page = store.scan(Family::Leaves, Range { from, to, limit: PAGE }).await?;
    if page.is_empty() {
        return Err(missing(store, log, first).await);
    }
    let mut leaves = Vec::with_capacity(page.len());
    for (index, (key, line)) in (first..).zip(page) {
        if place::decode_leaf(&key)? != index {
            return Err(missing(store, log, index).await);
        }
        leaves.push(line);
    }
    Ok(leaves)
}

/// Some leaves, which the log has.
pub(crate) async fn these<S: Store>(store: &S, log: TenantNo, indexes: &[u64]) -> Result<Vec<Bytes>, Error> {
    let keys = indexes.iter().map(|index| place::leaf(log, *index)).collect();
    let lines = store.multi_get(Family::Leaves, keys).await?;
    let mut leaves = Vec::with_capacity(lines.len());
    for (line, index) in lines.into_iter().zip(indexes) {
        match line {
            Some(line) => leaves.push(line),
            None => return Err(missing(store, log, *index).await),
        }
    }
    Ok(leaves)
}

/// One leaf, which the log has.
pub(crate) async fn one<S: Store>(store: &S, log: TenantNo, index: u64) -> Result<Bytes, Error> {
    match store.get(Family::Leaves, place::leaf(log, index)).await? {
        Some(line) => Ok(line),
        None => Err(missing(store, log, index).await),
    }
}
