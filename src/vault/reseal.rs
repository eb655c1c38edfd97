//! Sealing anew: the same value and token in the next version of a row, under another DEK or with other index entries.

use std::sync::Arc;

use strongroom_commit::{Fact, Guard};
use strongroom_ids::{RowId, RowVersion};
use strongroom_keys::{Dek, Plaintext, Sealed};
use strongroom_storage::keys as place;
use strongroom_storage::rows::ValueRow;
use strongroom_storage::{Family, Mutation, Store};

use crate::error::Error;
use crate::random::Dice;
use crate::road::{Item, Prepared, Road};
use crate::values::{row_hash, value_place};

/// What a row holds, opened.
pub(crate) struct Opened {
    pub value: Plaintext,
    /// Its token, if that is not an opaque one.
    pub token: Option<Plaintext>,
}

impl<S: Store> Road<'_, S> {
    /// Opens all that a row holds.
    pub fn open_row(&self, id: RowId, row: &ValueRow, dek: &Dek) -> Result<Opened, Error> {
        let open = |what, sealed: &[u8]| dek.open(&value_place(self.tenant.id, id, row, what), sealed);
        let token = row.sealed_token.as_deref().map(|sealed| open(Sealed::Token, sealed)).transpose()?;
        Ok(Opened { value: open(Sealed::Value, &row.sealed)?, token })
    }

    /// The next version of a row that holds the same. `row` is the version before, but for what changes in it.
    pub fn seal_next(
        &self,
        id: RowId,
        row: ValueRow,
        held: &Opened,
        dek: &Dek,
        dice: &mut Dice,
    ) -> Result<ValueRow, Error> {
        let version = row.version.0.checked_add(1).ok_or(Error::Internal("a row with too many versions"))?;
        let mut next = ValueRow { version: RowVersion(version), salt: dice.roll()?, ..row };
        let at = |row: &ValueRow, what| value_place(self.tenant.id, id, row, what);
        next.sealed = dek.seal(&at(&next, Sealed::Value), held.value.as_bytes())?;
        next.sealed_token = match &held.token {
            Some(token) => Some(dek.seal(&at(&next, Sealed::Token), token.as_bytes())?),
            None => None,
        };
        Ok(next)
    }

    /// What the commit of a row that was sealed anew guards, changes, writes and records.
    pub fn write_resealed<A>(&self, id: RowId, row: &ValueRow, prepared: &mut Prepared<A>) {
        let fact = Fact::row(self.tenant.number, id);
        // Who reads it meanwhile has the same value of a version that is no more, and reads again.
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        let bytes = row.encode();
        prepared.items.push(Item {
            field: self.schema.field_no(row.field).map(|field| Arc::clone(&field.full_name)),
            row: Some(id),
            outcome: "resealed",
            subject: Some(row.subject),
            version: Some(row.version),
            hash: Some(row_hash(&bytes)),
            ..Item::default()
        });
        prepared.mutations.push(Mutation::Put(Family::Rows, place::row(self.tenant.number, id), bytes));
    }
}
