//! Deterministic fields: the same value gets the same token, found through its blind-index entry and guarded by it.
//!
//! The token itself is as random as any other; only the entry ties it to the value.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use strongroom_commit::{Fact, Guard};
use strongroom_ids::{RowId, RowVersion, SubjectHandle};
use strongroom_keys::{DekOwner, Sealed};
use strongroom_schema::Field;
use strongroom_storage::Store;
use strongroom_storage::keys as place;
use strongroom_storage::rows::ValueRow;

use crate::error::Error;
use crate::index::Places;
use crate::random::Dice;
use crate::resolve::{Found, Resolved, expiry};
use crate::road::{Item, Prepared, Road};
use crate::subjects::NamedDek;
use crate::values::{Place, entry_key};

/// The retention of a shared value begins anew at most so often, in microseconds: an hour. Spans are of days, and who asks
/// for a popular value shall not turn everybody else back.
const RENEWED_AFTER: u64 = 3_600_000_000;

/// What an item of a Tokenize needs: a new token always, or one for each distinct value.
pub(crate) enum Wanted {
    /// Every value gets a token of its own.
    New,
    /// The same value gets the same token.
    Once(Once),
}

pub(crate) struct Once {
    /// Where the index entry stands that the value has or will have.
    places: Places,
    /// Items of one request with the same entry share a number.
    number: usize,
    /// Whether this is the first item with its entry, the one that stores the value.
    first: bool,
    /// Whether the value is stored already.
    stored: bool,
}

/// A value that has its token already, stored earlier or by an item before this one.
#[derive(Clone)]
pub(crate) struct Existing {
    pub row: RowId,
    pub token: String,
    /// What was stored earlier; none for a value of this request.
    found: Option<Arc<Found>>,
    /// Whether its time is over, and it is there only because it is held.
    is_over: bool,
}

/// The values that a request wants once, by their number.
pub(crate) struct Known(Vec<Option<Existing>>);

impl Wanted {
    /// For a field that is not deterministic.
    pub fn always_new() -> Self {
        Self::New
    }

    /// For a deterministic field; `within` is the subject of a per-subject field.
    pub fn once<S: Store>(
        road: &Road<'_, S>,
        field: &Arc<Field>,
        value: &[u8],
        within: SubjectHandle,
    ) -> Result<Self, Error> {
        let mut keys = road.value_indexes(field, value)?.into_iter();
        let mut next = || keys.next().map(|entry| entry_key(road.tenant.number, field, &entry, within, RowId(0)));
        let newest = next().ok_or(Error::Internal("a deterministic field without an index"))?;
        let places = Places::new(newest, std::iter::from_fn(next).collect());
        Ok(Self::Once(Once { places, number: 0, first: true, stored: false }))
    }

    /// Gives items with the same entry the same number.
    pub fn number(wanted: &mut [Self]) {
        let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
        for item in wanted {
            if let Self::Once(once) = item {
                let next = numbers.len();
                let number = *numbers.entry(once.places.newest.clone()).or_insert(next);
                once.number = number;
                once.first = number == next;
            }
        }
    }

    /// Whether this item will be stored as a new row.
    pub fn is_new(&self) -> bool {
        match self {
            Self::New => true,
            Self::Once(once) => once.first && !once.stored,
        }
    }

    /// Which value of the request it is, if it may be several items'.
    pub fn value(&self) -> Option<usize> {
        match self {
            Self::New => None,
            Self::Once(once) => Some(once.number),
        }
    }

    /// The value's token, if it has one by now.
    pub fn known<'k>(&self, known: &'k Known) -> Option<&'k Existing> {
        match self {
            Self::New => None,
            Self::Once(once) => known.0.get(once.number)?.as_ref(),
        }
    }

    /// Remembers the token that the value was given, for later items of the request.
    pub fn remember(&self, known: &mut Known, row: RowId, token: &str) {
        if let Self::Once(once) = self
            && let Some(slot) = known.0.get_mut(once.number)
        {
            *slot = Some(Existing { row, token: token.to_owned(), found: None, is_over: false });
        }
    }
}

impl Existing {
    /// The expiry that a value which was stored earlier was given.
    pub fn expires(&self) -> Option<u64> {
        self.found.as_ref().and_then(|found| found.row.expires)
    }

    /// The ledger's line about an item that got a token which stood already.
    pub fn item(&self, field: &Field, subject: SubjectHandle) -> Item {
        Item {
            field: Some(Arc::clone(&field.full_name)),
            row: Some(self.row),
            outcome: "existing",
            subject: Some(subject),
            ..Item::default()
        }
    }
}

impl<S: Store> Road<'_, S> {
    /// Looks which of the wanted values are stored, and guards that this stays so.
    pub async fn known_values<A>(&self, wanted: &mut [Wanted], prepared: &mut Prepared<A>) -> Result<Known, Error> {
        let mut places: Vec<&Places> = Vec::new();
        for item in wanted.iter() {
            if let Wanted::Once(once) = item
                && once.first
            {
                once.places.guard(self.tenant.number, &mut prepared.guards);
                places.push(&once.places);
            }
        }
        let mut known = Known(vec![None; places.len()]);
        if places.is_empty() {
            return Ok(known);
        }
        let stored = self.look_up(&places).await?;
        let mut numbers = Vec::new();
        let mut rows = Vec::new();
        for (number, bytes) in stored.iter().enumerate() {
            if let Some(bytes) = bytes {
                numbers.push(number);
                rows.push(place::decode_row_id(bytes)?);
            }
        }
        for (number, resolved) in numbers.into_iter().zip(self.resolve_rows(&rows).await?) {
            match resolved {
                Resolved::Value(found) => {
                    found.guards(self.tenant.number, &mut prepared.guards);
                    let token = self.token_of(&found)?;
                    known.0[number] = Some(Existing { row: found.id, token, found: Some(found), is_over: false });
                }
                // An expired value makes room for a new one: what is left of it goes now, and the ledger says so. One that is
                // held for others can't: it gets one more holder, and its time begins anew.
                Resolved::Expired(found) => {
                    // Requests go by the ledger's time, which may be ahead: what goes for good goes by a clock that is believed.
                    let now = self.vault.erasing_time()?;
                    if found.expires.is_none_or(|end| end > now) {
                        return Err(Error::ClockJumped);
                    }
                    let holders = match self.last_holders(&found, prepared).await {
                        Err(Error::LegalHold) if found.is_shared() => {
                            let row = ValueRow { expires: None, ..found.row.clone() };
                            let found = Arc::new(Found { row, expires: None, ..(*found).clone() });
                            found.guards(self.tenant.number, &mut prepared.guards);
                            let token = self.token_of(&found)?;
                            known.0[number] =
                                Some(Existing { row: found.id, token, found: Some(found), is_over: true });
                            continue;
                        }
                        holders => holders?,
                    };
                    for holder in holders {
                        self.remove_holding(&found, holder, prepared);
                    }
                    self.remove_value(&found, prepared);
                    self.mark_dek(&found, prepared);
                    let version = Some(found.row.version);
                    prepared.items.push(Item { version, ..found.item("expired_removed") });
                }
                Resolved::Nothing => {}
            }
        }
        for item in wanted {
            if let Wanted::Once(once) = item {
                once.stored = known.0.get(once.number).is_some_and(Option::is_some);
            }
        }
        Ok(known)
    }

    /// Lets the retention of shared values begin anew with each holder that they get: a value is kept as long for the
    /// last who stored it as for the first. `holders` are those of the items.
    pub async fn renew<A>(
        &self,
        wanted: &[Wanted],
        known: &Known,
        holders: impl Iterator<Item = SubjectHandle>,
        dice: &mut Dice,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        let due = wanted.iter().zip(holders).filter_map(|(item, holder)| {
            let existing = item.known(known)?;
            let found = existing.found.as_ref()?;
            let due = existing.is_over || (found.is_shared() && self.is_due(found));
            due.then_some((found, holder, existing.is_over))
        });
        let due: Vec<_> = due.collect();
        let held = self.held(due.iter().map(|(found, holder, _)| (found.id, *holder)).collect()).await?;
        let mut renewed = HashSet::new();
        for (found, holder, is_over) in due {
            if !is_over && held.contains(&(found.id, holder)) {
                prepared.guards.push(Guard::Unchanged(Fact::holders(self.tenant.number, found.id)));
            } else if renewed.insert(found.id) {
                self.write_renewed(found, dice, prepared)?;
            }
        }
        Ok(())
    }

    /// Whether a value would be kept longer if its retention began now.
    fn is_due(&self, found: &Found) -> bool {
        let age = self.now.saturating_sub(found.row.created);
        age >= RENEWED_AFTER && expiry(&found.field, self.now, found.row.expires) > found.expires
    }

    /// The same value under the same DEK, in a version of its row that was made now.
    fn write_renewed<A>(&self, found: &Found, dice: &mut Dice, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let row = &found.row;
        let version = row.version.0.checked_add(1).ok_or(Error::Internal("a row with too many versions"))?;
        let named = NamedDek {
            dek: self.dek(found)?,
            owner: DekOwner::Value(found.id),
            keyring: row.keyring,
            version: row.dek_version,
        };
        let at = Place {
            id: found.id,
            version: RowVersion(version),
            token_key: row.token_key,
            check: row.check,
            salt: dice.roll()?,
            subject: row.subject,
            created: self.now,
            expires: row.expires,
            shaped: row.sealed_token.as_ref().map(|_| self.token_of(found)).transpose()?,
        };
        let value = self.open(found, Sealed::Value)?;
        self.remove_entries(found, prepared);
        let item = self.write_value(&found.field, value.as_bytes(), at, &named, prepared)?;
        prepared.items.push(Item { outcome: "renewed", ..item });
        Ok(())
    }
}
