//! What principals were told today, counted in the commit that lets them be told it.
//!
//! The committer's thread alone owns the table, so a count never turns anybody back: the changes of a group are
//! counted one after the other, and the rows that they touched join the group's one write. Windows are fixed: the
//! minute and the day (UTC) of the leaf's own time. That time never goes back, so a clock that is set back gives nobody
//! anything.

mod charge;
mod place;
mod quota;
mod step;

use std::collections::{BTreeSet, HashMap};

use strongroom_ids::TenantNo;
use strongroom_storage::keys::{self, Usage};
use strongroom_storage::rows::UsageRow;
use strongroom_storage::{Family, Mutation, Range, Store, StoreError};

use place::{OF_PERSON, Place, What};
use step::Step;

pub use charge::{Behind, Charge, ClassWindows, MeterLimits, Shown, Use, Window};
pub use quota::Quota;

/// In microseconds.
const MINUTE: u64 = 60_000_000;
const DAY: u64 = 86_400_000_000;

/// Rows of a day that the vault keeps in memory, of all tenants: a row takes 65 bytes, and the table's 4 Mi places, of
/// which 7 in 8 may be used, some 270 MB. Beyond it what is metered is refused, and nothing goes uncounted.
const MOST: usize = 3_600_000;
/// One tenant has at most this part of them, so that none takes the room of all others.
const SHARE: usize = 4;
/// People behind services have at most this part of what there is for all: there may be any number of them, and they
/// must not take the room in which services count what they are told themselves.
const PEOPLE: usize = 2;
/// In microseconds: how often a tenant's lack of room is told.
const HOUR: u64 = 3_600_000_000;
/// From this part on, in percent, it is told that there is little room left.
const LITTLE_ROOM: usize = 80;
/// Rows read at once.
const PAGE: usize = 1_000;

/// How many rows there are.
#[derive(Clone, Copy, Default)]
struct Held {
    all: usize,
    /// Of them, those of people behind services.
    of_people: usize,
    /// When it was told last that there is little room left.
    warned: Option<u64>,
}

impl Held {
    fn change(&mut self, place: &Place, change: impl Fn(usize) -> usize) {
        self.all = change(self.all);
        if place.of_person {
            self.of_people = change(self.of_people);
        }
    }

    /// How much of so many rows is used, in percent, by whoever another row would be for.
    fn used(&self, most: usize, of_person: bool) -> usize {
        let part = |rows: usize, most: usize| rows.saturating_mul(100) / most.max(1);
        match of_person {
            true => part(self.all, most).max(part(self.of_people, most / PEOPLE)),
            false => part(self.all, most),
        }
    }
}

/// The counts of the day, of all tenants. They show nothing of themselves.
#[derive(Default)]
pub struct Meters {
    rows: HashMap<Place, UsageRow, foldhash::fast::RandomState>,
    /// What the group in the making has changed.
    touched: BTreeSet<Place>,
    /// The latest time that something was counted at.
    now: u64,
    /// How many rows there may be.
    most: usize,
    /// How many there are.
    held: Held,
    /// How many there are, by tenant.
    of_tenants: HashMap<TenantNo, Held>,
}

impl Meters {
    /// Those of a vault that nobody was told anything of.
    pub fn new() -> Self {
        Self { most: MOST, ..Self::default() }
    }

    /// As the store has them, of the newest day that a leaf bears: of each tenant, when its last leaf came.
    pub async fn load<S: Store>(store: &S, logs: impl Iterator<Item = (TenantNo, u64)>) -> Result<Self, StoreError> {
        let logs: Vec<(TenantNo, u64)> = logs.collect();
        let time = logs.iter().map(|(_, time)| *time).max().unwrap_or(0);
        let mut meters = Self { now: time, most: MOST, ..Self::default() };
        let day = day_of(time);
        for (tenant, _) in logs {
            let (mut from, to) = keys::usage_range(tenant, day, day.saturating_add(1));
            loop {
                let page = store.scan(Family::Meta, Range { from, to: to.clone(), limit: PAGE }).await?;
                for (key, row) in &page {
                    let corrupt = |what: &str| StoreError::Corrupt { place: "counts of reads", what: what.to_owned() };
                    let Usage { meter, what, class, id, field, .. } = keys::decode_usage(key)?;
                    let of_person = what & OF_PERSON != 0;
                    let what = What::ALL.into_iter().find(|known| *known as u8 == what & !OF_PERSON);
                    let what = what.ok_or_else(|| corrupt("a count of an unknown kind"))?;
                    let place = Place { tenant, meter, what, class, id, field, of_person };
                    meters.insert(place, UsageRow::decode(row)?);
                }
                match page.last() {
                    Some((last, _)) if page.len() == PAGE => from = [last, &[0][..]].concat(),
                    _ => break,
                }
            }
        }
        Ok(meters)
    }

    /// Counts all that a change tells, or nothing.
    pub(crate) fn charge(&mut self, charge: &Charge, time: u64) -> Result<(), Quota> {
        self.count(charge, time).map_err(|quota| {
            // Waiting is of no use to what would be refused in a window that nobody has used yet.
            let in_vain = Self { most: self.most, ..Self::default() }.count(charge, self.now).is_err();
            Quota { retry_after: quota.retry_after.filter(|_| !in_vain), ..quota }
        })
    }

    fn count(&mut self, charge: &Charge, time: u64) -> Result<(), Quota> {
        if day_of(time) > day_of(self.now) {
            self.rows.clear();
            self.held = Held::default();
            self.of_tenants.clear();
        }
        self.now = self.now.max(time);
        let behind = charge.behind.as_ref().map(|behind| (behind.meter, &behind.limits, true));
        let mut whose = std::iter::once((charge.meter, &charge.limits, false)).chain(behind);
        let mut before = Vec::new();
        let told = whose.try_for_each(|(meter, limits, behind)| {
            Step { meters: self, charge, meter, limits, behind, before: &mut before }.tell()
        });
        match &told {
            Ok(()) => self.touched.extend(before.into_iter().map(|(place, _)| place)),
            // Backwards, so that the first that was there is what remains.
            Err(_) => before.into_iter().rev().for_each(|(place, row)| match row {
                Some(row) => drop(self.insert(place, row)),
                None => self.remove(&place),
            }),
        }
        told
    }

    /// Puts a row in, and says what was there.
    fn insert(&mut self, place: Place, row: UsageRow) -> Option<UsageRow> {
        let before = self.rows.insert(place, row);
        if before.is_none() {
            self.change(&place, |rows| rows.saturating_add(1));
        }
        before
    }

    fn remove(&mut self, place: &Place) {
        if self.rows.remove(place).is_some() {
            self.change(place, |rows| rows.saturating_sub(1));
        }
    }

    fn change(&mut self, place: &Place, change: impl Fn(usize) -> usize + Copy) {
        self.held.change(place, change);
        self.of_tenants.entry(place.tenant).or_default().change(place, change);
    }

    /// How much of the room for another row like this is used, in percent: 100 if there is none.
    fn used(&self, place: &Place) -> usize {
        let own = self.of_tenants.get(&place.tenant).copied().unwrap_or_default();
        let used = own.used(self.most / SHARE, place.of_person);
        used.max(self.held.used(self.most, place.of_person))
    }

    /// Whether it is to be told that there is little room left: once an hour for each tenant.
    fn alarm(&mut self, place: &Place, used: usize) -> bool {
        let now = self.now;
        let told = &mut self.of_tenants.entry(place.tenant).or_default().warned;
        let due = used >= LITTLE_ROOM && told.is_none_or(|at| now.saturating_sub(at) >= HOUR);
        if due {
            *told = Some(now);
        }
        due
    }

    /// The touched rows join the group's write, each once.
    pub(crate) fn stage(&mut self, batch: &mut Vec<Mutation>) {
        let day = day_of(self.now);
        for place in std::mem::take(&mut self.touched) {
            if let Some(row) = self.rows.get(&place) {
                batch.push(Mutation::Put(Family::Meta, place.key(day), row.encode()));
            }
        }
    }
}

/// Days since 1970.
pub fn day_of(time: u64) -> u32 {
    u32::try_from(time / DAY).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
