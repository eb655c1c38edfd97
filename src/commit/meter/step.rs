//! How a change is counted: everything that it tells, or nothing.

use std::collections::HashMap;
use std::time::Duration;

use strongroom_ids::{FieldNo, RowId, SubjectHandle};
use strongroom_storage::rows::UsageRow;

use super::charge::{Charge, MeterLimits, Shown, Use, Window};
use super::place::{Place, What};
use super::quota::{Quota, Span};
use super::{DAY, MINUTE, Meters};

/// One change, as it is counted for one of those whose allowance it takes.
pub(super) struct Step<'a> {
    pub(super) meters: &'a mut Meters,
    pub(super) charge: &'a Charge,
    /// Whose rows it counts in, and within which limits.
    pub(super) meter: [u8; 16],
    pub(super) limits: &'a MeterLimits,
    /// Whether they are those of the person behind the caller.
    pub(super) behind: bool,
    /// What the change has overwritten so far.
    pub(super) before: &'a mut Vec<(Place, Option<UsageRow>)>,
}

impl Step<'_> {
    pub(super) fn tell(&mut self) -> Result<(), Quota> {
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
