//! Idempotency: a retry of a write finds what the first try made.
//!
//! A key is scoped to tenant, principal and method. Its row holds a keyed fingerprint of the request and the rows that
//! it made, in the same commit as they. A refused request does not consume its key.

use strongroom_commit::{Fact, Guard};
use strongroom_ids::{RowId, RowVersion};
use strongroom_storage::keys as place;
use strongroom_storage::rows::IdempotencyRow;
use strongroom_storage::{Family, Mutation, Store};

use crate::error::Error;
use crate::road::{Prepared, Road};

/// How long a key is remembered: 7 days, in microseconds.
const LIFETIME: u64 = 7 * 24 * 3600 * 1_000_000;

/// An idempotency key, as it is stored, and the request that it stands for.
pub(crate) struct Key {
    place: Vec<u8>,
    fingerprint: [u8; 32],
}

/// What stands under a key.
pub(crate) enum Earlier {
    /// Nothing: the request is new.
    Nothing,
    /// The same request, and the rows that it made, in the order of its items, with the version of each if it has
    /// several.
    Rows(Vec<RowId>, Vec<RowVersion>),
}

impl<S: Store> Road<'_, S> {
    /// The stored form of a caller's key; `parts` are all that makes this request another than the next. No key, no
    /// memory.
    pub fn idempotency(&self, key: &str, parts: &[&[u8]]) -> Option<Key> {
        if key.is_empty() {
            return None;
        }
        let keyed = &self.tenant.fingerprints;
        let principal = self.caller.principal.name.as_bytes();
        let mac = keyed.mac(&[b"idempotency", principal, self.action.as_str().as_bytes(), key.as_bytes()]);
        let mut all: Vec<&[u8]> = Vec::with_capacity(parts.len() + 1);
        all.push(b"request");
        all.extend_from_slice(parts);
        Some(Key { place: place::idempotency(self.tenant.number, &mac), fingerprint: keyed.mac(&all) })
    }

    /// What the same key did before; another request under the key is refused.
    pub async fn earlier(&self, key: Option<&Key>, guards: &mut Vec<Guard>) -> Result<Earlier, Error> {
        let Some(key) = key else { return Ok(Earlier::Nothing) };
        guards.push(Guard::Unchanged(Fact::idempotency(self.tenant.number, &key.place)));
        let Some(bytes) = self.vault.store.get(Family::Idempotency, key.place.clone()).await? else {
            return Ok(Earlier::Nothing);
        };
        let row = IdempotencyRow::decode(&bytes)?;
        if row.expires <= self.now {
            return Ok(Earlier::Nothing);
        }
        // Both are keyed hashes of the caller's own requests: nothing is learnt from the time of the comparison.
        match row.fingerprint == key.fingerprint {
            true => Ok(Earlier::Rows(row.rows, row.versions)),
            false => Err(Error::IdempotencyKeyReused),
        }
    }

    /// Remembers what the request made, in its own commit.
    pub fn remember<A>(&self, key: Key, rows: Vec<RowId>, versions: Vec<RowVersion>, prepared: &mut Prepared<A>) {
        let expires = self.now.saturating_add(LIFETIME);
        let row = IdempotencyRow { expires, fingerprint: key.fingerprint, rows, versions };
        prepared.changes.push(Fact::idempotency(self.tenant.number, &key.place));
        prepared.mutations.push(Mutation::Put(Family::Idempotency, key.place, row.encode()));
    }
}
