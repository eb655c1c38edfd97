//! Times of leaves: microseconds in a number, RFC 3339 in UTC on the line.

use std::fmt;
use std::str::FromStr;

use crate::error::LedgerError;

/// A moment, in microseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// It is written as `2026-11-24T02:39:12.123456Z`, always 27 characters (RFC 3339 with six digits). What lies after
/// the year 9999 is written as that year's last microsecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub u64);

/// The last moment with a year of four digits.
const LAST: u64 = 253_402_300_799_999_999;
const MICROS: u64 = 1_000_000;
const SECONDS_A_DAY: u64 = 86_400;

impl Timestamp {
    /// The time as it stands in a leaf. By hand, since every leaf is written while others wait.
    pub(crate) fn to_ascii(self) -> [u8; 27] {
        let micros = self.0.min(LAST);
        let seconds = micros / MICROS;
        let (year, month, day) = civil(seconds / SECONDS_A_DAY);
        let clock = seconds % SECONDS_A_DAY;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |from: usize, digits: usize, mut number: u64| {
            for place in text[from..from + digits].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, clock / 3_600);
        put(14, 2, clock / 60 % 60);
        put(17, 2, clock % 60);
        put(20, 6, micros % MICROS);
        text
    }

    /// Reads what [`Timestamp::to_ascii`] writes and nothing else. By hand, since an auditor reads millions.
    pub(crate) fn from_ascii(text: &[u8; 27]) -> Option<Self> {
        let mut digits_only = true;
        let mut number = |from: usize, digits: usize| {
            text[from..from + digits].iter().fold(0_u64, |number, byte| {
                let digit = byte.wrapping_sub(b'0');
                digits_only &= digit <= 9;
                number * 10 + u64::from(digit)
            })
        };
        let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
        let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
        let micros = number(20, 6);
        let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        let fits = digits_only
            && signs.iter().all(|(place, sign)| text[*place] == *sign)
            && year >= 1970
            && (1..=12).contains(&month)
            && (1..=days_of(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        fits.then(|| {
            let seconds = days(year, month, day) * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second;
            Self(seconds * MICROS + micros)
        })
    }
}

/// How many days a month has.
pub(crate) fn days_of(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

/// The day counted from 1970-01-01: what [`civil`] makes year, month and day of. The date exists, and is no earlier one.
pub(crate) fn days(year: u64, month: u64, day: u64) -> u64 {
    let from_march = (month + 9) % 12;
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day counted from 1970-01-01. The calendar repeats every 146,097 days; counting years
/// from March puts the leap day at the end.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.to_ascii()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Timestamp {
    type Err = LedgerError;

    /// Reads exactly what is written; other ways of writing the same moment are refused.
    fn from_str(text: &str) -> Result<Self, LedgerError> {
        <&[u8; 27]>::try_from(text.as_bytes()).ok().and_then(Self::from_ascii).ok_or(LedgerError::Time)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn as_the_time_crate_writes(micros: u64) -> String {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap();
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            moment.year(),
            u8::from(moment.month()),
            moment.day(),
            moment.hour(),
            moment.minute(),
            moment.second(),
            moment.microsecond()
        )
    }

    #[test]
    fn known_moments_are_written_as_everybody_writes_them() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(951_827_696_000_001).to_string(), "2000-02-29T12:34:56.000001Z");
        assert_eq!(Timestamp(LAST).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_time_beyond_the_year_9999_stays_in_form() {
        assert_eq!(Timestamp(u64::MAX).to_string(), Timestamp(LAST).to_string());
    }

    #[test]
    fn every_day_of_four_hundred_years_agrees_with_the_time_crate() {
        for day in 0..146_097 {
            let micros = day * SECONDS_A_DAY * MICROS;
            assert_eq!(Timestamp(micros).to_string(), as_the_time_crate_writes(micros));
            assert_eq!(Timestamp::from_ascii(&Timestamp(micros).to_ascii()), Some(Timestamp(micros)));
        }
    }

    /// None as well for what is written otherwise than the moment would be.
    fn as_the_time_crate_reads(text: &str) -> Option<Timestamp> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let micros = u64::try_from(moment.unix_timestamp_nanos() / 1_000).ok()?;
        (Timestamp(micros).to_ascii() == text.as_bytes()).then_some(Timestamp(micros))
    }

    /// By hand, and as the time crate reads it.
    fn both(text: &[u8; 27]) -> (Option<Timestamp>, Option<Timestamp>) {
        (Timestamp::from_ascii(text), std::str::from_utf8(text).ok().and_then(as_the_time_crate_reads))
    }

    #[test]
    fn every_date_that_can_be_written_is_read_as_the_time_crate_reads_it() {
        for year in [0, 1, 1969, 1970, 1972, 1999, 2000, 2024, 2026, 2100, 2400, 9999] {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                let text = format!("{year:04}-{month:02}-{day:02}T23:59:59.000001Z");
                let (own, other) = both(text.as_bytes().try_into().unwrap());
                assert_eq!(own, other, "{text}");
            }
        }
        for clock in ["24:00:00", "23:60:00", "23:59:60", "99:99:99", "00:00:00"] {
            let text = format!("2016-12-31T{clock}.999999Z");
            let (own, other) = both(text.as_bytes().try_into().unwrap());
            assert_eq!(own, other, "{text}");
        }
    }

    #[test]
    fn other_ways_of_writing_a_moment_are_refused() {
        for text in [
            "2026-11-24T02:39:12Z",
            "2026-11-24T02:39:12.123Z",
            "2026-11-24T02:39:12.1234567Z",
            "2026-11-24t02:39:12.123456z",
            "2026-11-24T10:39:12.123456+08:00",
            "2026-02-30T02:39:12.123456Z",
            "1969-12-31T23:59:59.999999Z",
            "",
            "now",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(LedgerError::Time), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_is_read_back_as_it_was_written(micros in 0..=LAST) {
            let text = Timestamp(micros).to_string();
            prop_assert_eq!(&text, &as_the_time_crate_writes(micros));
            prop_assert_eq!(text.parse(), Ok(Timestamp(micros)));
            prop_assert_eq!(Timestamp::from_ascii(&Timestamp(micros).to_ascii()), Some(Timestamp(micros)));
        }

        #[test]
        fn what_is_not_quite_a_time_is_read_as_the_time_crate_reads_it(
            micros in 0..=LAST,
            places in prop::collection::vec((0..27_usize, any::<u8>()), 0..3),
        ) {
            let mut text = Timestamp(micros).to_ascii();
            for (place, byte) in places {
                text[place] = byte;
            }
            let (own, other) = both(&text);
            prop_assert_eq!(own, other);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
