//! What a change tells, of whose allowance, and what that allowance is.

use std::sync::Arc;

use strongroom_ids::{FieldNo, RowId, SubjectHandle, TenantNo};

/// How many of something a minute and a day, at most; `None` for any number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Window {
    /// Within a minute of the clock.
    pub minute: Option<u32>,
    /// Within a day, UTC.
    pub day: Option<u32>,
}

impl Window {
    pub(super) fn is_open(self) -> bool {
        self.minute.is_none() && self.day.is_none()
    }

    /// What both allow.
    pub(super) fn stricter(self, other: Self) -> Self {
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
