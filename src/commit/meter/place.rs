//! What a row counts, and where it is.

use strongroom_ids::TenantNo;
use strongroom_storage::keys::{self, Usage};

/// What stands in a row's key beside the kind of count, if it is that of a person.
pub(super) const OF_PERSON: u8 = 0x80;

/// What a row counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub(super) enum What {
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
    pub(super) const ALL: [Self; 9] = [
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
pub(super) struct Place {
    pub(super) tenant: TenantNo,
    pub(super) meter: [u8; 16],
    pub(super) what: What,
    pub(super) class: u8,
    pub(super) id: u64,
    pub(super) field: u32,
    /// Whether it counts for a person behind a service.
    pub(super) of_person: bool,
}

impl Place {
    pub(super) fn key(&self, day: u32) -> Vec<u8> {
        let Self { tenant, meter, what, class, id, field, of_person } = *self;
        let what = what as u8 | if of_person { OF_PERSON } else { 0 };
        keys::usage(tenant, &Usage { day, meter, what, class, id, field })
    }
}
