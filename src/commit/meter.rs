//! What principals were told today, counted in the commit that lets them be told it.
//!
//! The committer's thread alone owns the table, so a count never turns anybody back: the changes of a group are
//! counted one after the other, and the rows that they touched join the group's one write. Windows are fixed: the
//! minute and the day (UTC) of the leaf's own time. That time never goes back, so a clock that is set back gives nobody
//! anything.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use strongroom_ids::{FieldNo, RowId, SubjectHandle, TenantNo};
use strongroom_storage::keys::{self, Usage};
use strongroom_storage::rows::UsageRow;
use strongroom_storage::{Family, Mutation, Range, Store, StoreError};

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
/// What stands in a row's key beside the kind of count, if it is that of a person.
const OF_PERSON: u8 = 0x80;
/// In microseconds: how often a tenant's lack of room is told.
const HOUR: u64 = 3_600_000_000;
/// From this part on, in percent, it is told that there is little room left.
const LITTLE_ROOM: usize = 80;
/// Rows read at once.
const PAGE: usize = 1_000;

/// Data classes, in the order of their names.
const CLASSES: [&str; 3] = ["c1", "c2", "c3"];

/// How many of something a minute and a day, at most; `None` for any number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Window {
    /// Within a minute of the clock.
    pub minute: Option<u32>,
    /// Within a day, UTC.
    pub day: Option<u32>,
}

impl Window {
    fn is_open(self) -> bool {
        self.minute.is_none() && self.day.is_none()
    }

    /// What both allow.
    fn stricter(self, other: Self) -> Self {
        let least = |one: Option<u32>, other| one.into_iter().chain(other).min();
        Self { minute: least(self.minute, other.minute), day: least(self.day, other.day) }
    }
}

/// The limits of a data class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClassWindows {
    /// Values in plain.
    pub plain: Window,
    /// Parts of values.
    pub masked: Window,
    /// Distinct subjects.
    pub subjects: Window,
}

/// The limits of one principal.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MeterLimits {
    /// By class: c1, c2, c3.
    pub classes: [ClassWindows; 3],
    /// Comparisons and look-ups that found nothing.
    pub misses: Window,
    /// Comparisons with one token that did not match, of all who have such a limit.
    pub token_misses: Window,
}

impl MeterLimits {
    /// Whether there are none.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// How much of a value is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// All of it.
    Plain,
    /// A part; views that show the same part have the same number.
    Part(u64),
}

/// One thing that is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// A value is shown.
    Read {
        /// Its class: 0 for c1 to 2 for c3.
        class: u8,
        /// Its row.
        row: RowId,
        /// Whose it is; a value without subject counts as a subject of its own.
        subject: SubjectHandle,
        /// Of which field: two parts of a subject's value are the value, whichever tokens led to them.
        field: FieldNo,
        /// How much of it.
        shown: Shown,
    },
    /// It is told whether a value is the one that was sent.
    Asked {
        /// Of which token, if it is about one.
        row: Option<RowId>,
        /// Whether it was not.
        missed: bool,
    },
}

/// What a change tells, of whose allowance.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Whose principal it is.
    pub tenant: TenantNo,
    /// Who it is, as a keyed hash: rows name nobody.
    pub meter: [u8; 16],
    /// What may be told; no limits, if only the person behind it has some.
    pub limits: Arc<MeterLimits>,
    /// The person behind it, for whom all is counted once more.
    pub behind: Option<Behind>,
    /// What is told, all or nothing.
    pub uses: Vec<Use>,
}

/// A person behind a service, with limits of its own.
#[derive(Clone, Debug)]
pub struct Behind {
    /// The service and the person, as a keyed hash.
    pub meter: [u8; 16],
    /// What that person may be told.
    pub limits: Arc<MeterLimits>,
}

/// Why something is not told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    what: What,
    class: u8,
    limit: u32,
    span: Span,
    /// Whether it is the person behind the caller who may be told no more.
    behind: bool,
    /// When the window ends; none if a whole window would not be enough for what was asked at once.
    pub retry_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Span {
    Minute,
    Day,
    /// The table is full, until the day ends.
    Memory,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = CLASSES.get(usize::from(self.class)).copied().unwrap_or_default();
        let span = match self.span {
            Span::Minute => "a minute",
            Span::Day => "a day",
            Span::Memory => return f.write_str("the vault can count no more reads today"),
        };
        let limit = self.limit;
        if self.behind {
            f.write_str("one person ")?;
        }
        match self.what {
            What::Plain => write!(f, "at most {limit} values of class {class} in plain {span}"),
            What::Masked => write!(f, "at most {limit} masked values of class {class} {span}"),
            What::TokenMisses => write!(f, "at most {limit} comparisons with one token that do not match {span}"),
            What::Misses => write!(f, "at most {limit} comparisons and look-ups that find nothing {span}"),
            _ => write!(f, "at most {limit} subjects with values of class {class} {span}"),
        }
    }
}

/// What a row counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
enum What {
    Plain = 1,
    Masked = 2,
    Subjects = 3,
    Misses = 4,
    TokenMisses = 5,
    /// That a subject was among them.
    Subject = 6,
    /// The same of a value without subject.
    Alone = 7,
    /// The part of a subject's values of a field that was shown first.
    Part = 8,
    /// The same of a value without subject.
    LonePart = 9,
}

impl What {
    const ALL: [Self; 9] = [
        Self::Plain,
        Self::Masked,
        Self::Subjects,
        Self::Misses,
        Self::TokenMisses,
        Self::Subject,
        Self::Alone,
        Self::Part,
        Self::LonePart,
    ];
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Place {
    tenant: TenantNo,
    meter: [u8; 16],
    what: What,
    class: u8,
    id: u64,
    field: u32,
    /// Whether it counts for a person behind a service.
    of_person: bool,
}

impl Place {
    fn key(&self, day: u32) -> Vec<u8> {
        let Self { tenant, meter, what, class, id, field, of_person } = *self;
        let what = what as u8 | if of_person { OF_PERSON } else { 0 };
        keys::usage(tenant, &Usage { day, meter, what, class, id, field })
    }
}

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

/// One change, as it is counted for one of those whose allowance it takes.
struct Step<'a> {
    meters: &'a mut Meters,
    charge: &'a Charge,
    /// Whose rows it counts in, and within which limits.
    meter: [u8; 16],
    limits: &'a MeterLimits,
    /// Whether they are those of the person behind the caller.
    behind: bool,
    /// What the change has overwritten so far.
    before: &'a mut Vec<(Place, Option<UsageRow>)>,
}

impl Step<'_> {
    fn tell(&mut self) -> Result<(), Quota> {
        let charge = self.charge;
        self.see_room_for_misses()?;
        for told in &charge.uses {
            match *told {
                Use::Read { class, row, subject, field, shown } => self.read(class, row, (subject, field), shown)?,
                Use::Asked { row, missed: true } => {
                    self.add(What::Misses, 0, 0, self.limits.misses, (1, 1))?;
                    if let Some(row) = row {
                        self.add(What::TokenMisses, 0, row.0, self.token_misses(), (1, 1))?;
                    }
                }
                Use::Asked { missed: false, .. } => {}
            }
        }
        Ok(())
    }

    /// A change that asks must have room for as many misses as it asks, whatever it would be told: a refusal that came
    /// only of misses would tell of them.
    fn see_room_for_misses(&self) -> Result<(), Quota> {
        let (misses, token_misses) = (self.limits.misses, self.token_misses());
        if misses.is_open() && token_misses.is_open() {
            return Ok(());
        }
        let mut asked = 0_u32;
        let mut of_tokens: HashMap<u64, u32> = HashMap::new();
        for told in &self.charge.uses {
            if let Use::Asked { row, .. } = told {
                asked = asked.saturating_add(1);
                if let Some(row) = row {
                    *of_tokens.entry(row.0).or_default() += 1;
                }
            }
        }
        if asked > 0 {
            self.room(What::Misses, 0, 0, misses, (asked, asked))?;
        }
        for (row, asked) in of_tokens {
            self.room(What::TokenMisses, 0, row, token_misses, (asked, asked))?;
        }
        Ok(())
    }

    /// What misses on one token are held against: the stricter of the caller's limit and that of the person behind it. The
    /// token's count is one for all, so it is counted once, with the caller's.
    fn token_misses(&self) -> Window {
        let own = self.charge.limits.token_misses;
        match &self.charge.behind {
            _ if self.behind => Window::default(),
            Some(behind) => own.stricter(behind.limits.token_misses),
            None => own,
        }
    }

    /// What counts is what is known afterwards: a second part of a value may complete the first.
    fn read(
        &mut self,
        class: u8,
        row: RowId,
        (subject, field): (SubjectHandle, FieldNo),
        shown: Shown,
    ) -> Result<(), Quota> {
        let Some(limits) = self.limits.classes.get(usize::from(class)) else { return Ok(()) };
        if !limits.subjects.is_open() {
            let (what, id) = if subject.is_some() { (What::Subject, subject.0) } else { (What::Alone, row.0) };
            let seen = self.get(self.place(what, class, id));
            let of_day = u32::from(seen.is_none());
            let of_minute = u32::from(seen.is_none_or(|seen| seen.minute != self.minute()));
            if of_minute > 0 {
                self.add(What::Subjects, class, 0, limits.subjects, (of_minute, of_day))?;
                self.put(self.place(what, class, id), UsageRow { minute: self.minute(), ..UsageRow::default() })?;
            }
        }
        if limits.plain.is_open() && limits.masked.is_open() {
            return Ok(());
        }
        let plain = match shown {
            Shown::Plain => true,
            Shown::Part(part) => {
                // A subject may have the same value twice, under two tokens.
                let place = match subject.is_some() {
                    true => Place { field: field.0, ..self.place(What::Part, 0, subject.0) },
                    false => self.place(What::LonePart, 0, row.0),
                };
                match self.get(place) {
                    Some(first) => first.mark != part,
                    None => {
                        self.put(place, UsageRow { mark: part, ..UsageRow::default() })?;
                        false
                    }
                }
            }
        };
        match plain {
            true => self.add(What::Plain, class, 0, limits.plain, (1, 1)),
            false => self.add(What::Masked, class, 0, limits.masked, (1, 1)),
        }
    }

    /// Adds to a minute's and a day's count, as far as there are limits.
    fn add(&mut self, what: What, class: u8, id: u64, limit: Window, more: (u32, u32)) -> Result<(), Quota> {
        if limit.is_open() {
            return Ok(());
        }
        let row = self.room(what, class, id, limit, more)?;
        self.put(self.place(what, class, id), row)
    }

    /// What the counts would be, if the limits allow it.
    fn room(
        &self,
        what: What,
        class: u8,
        id: u64,
        limit: Window,
        (of_minute, of_day): (u32, u32),
    ) -> Result<UsageRow, Quota> {
        let minute = self.minute();
        let before = self.get(self.place(what, class, id)).unwrap_or_default();
        let counted = if before.minute == minute { before.in_minute } else { 0 };
        let in_minute = counted.saturating_add(of_minute);
        let in_day = before.in_day.saturating_add(of_day);
        // The longer one first: who waits for a minute shall not be told to wait for a day then.
        for (count, limit, span) in [(in_day, limit.day, Span::Day), (in_minute, limit.minute, Span::Minute)] {
            if let Some(limit) = limit.filter(|limit| count > *limit) {
                return Err(self.refusal(what, class, limit, span));
            }
        }
        Ok(UsageRow { minute, in_minute, in_day, mark: 0 })
    }

    fn refusal(&self, what: What, class: u8, limit: u32, span: Span) -> Quota {
        let length = if span == Span::Minute { MINUTE } else { DAY };
        let retry_after = Duration::from_micros(length - self.meters.now % length);
        Quota { what, class, limit, span, behind: self.behind, retry_after: Some(retry_after) }
    }

    fn place(&self, what: What, class: u8, id: u64) -> Place {
        // A token's misses are the token's, whoever they are by: else two services would guess twice as often.
        let (meter, of_person) = if what == What::TokenMisses { ([0; 16], false) } else { (self.meter, self.behind) };
        Place { tenant: self.charge.tenant, meter, what, class, id, field: 0, of_person }
    }

    fn get(&self, place: Place) -> Option<UsageRow> {
        self.meters.rows.get(&place).copied()
    }

    fn put(&mut self, place: Place, row: UsageRow) -> Result<(), Quota> {
        if !self.meters.rows.contains_key(&place) {
            let used = self.meters.used(&place);
            if self.meters.alarm(&place, used) {
                let (tenant, of_person) = (place.tenant.0, place.of_person);
                tracing::warn!(
                    tenant,
                    of_person,
                    percent = used,
                    "the memory for counts of reads is nearly used up for today: beyond it reads with limits are refused"
                );
            }
            if used >= 100 {
                return Err(self.refusal(place.what, place.class, 0, Span::Memory));
            }
        }
        let before = self.meters.insert(place, row);
        self.before.push((place, before));
        Ok(())
    }

    /// Minutes since 1970.
    fn minute(&self) -> u32 {
        u32::try_from(self.meters.now / MINUTE).unwrap_or(u32::MAX)
    }
}

/// Days since 1970.
pub fn day_of(time: u64) -> u32 {
    u32::try_from(time / DAY).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
