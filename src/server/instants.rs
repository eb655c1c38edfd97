//! Instants between the wire's form and the vault's: microseconds since 1970.

use prost_types::Timestamp;
use strongroom_vault::Violation;

const MICROS: u64 = 1_000_000;

/// 9999-12-31T23:59:59Z, the last second that `google.protobuf.Timestamp` allows.
const LAST_SECOND: i64 = 253_402_300_799;
/// 0001-01-01T00:00:00Z, the first.
const FIRST_SECOND: i64 = -62_135_596_800;

/// What the wire said, or nothing and one violation more. An instant before 1970 is told as 0: it is as much in the past.
pub(crate) fn from_wire(
    at: Option<&Timestamp>,
    path: impl FnOnce() -> String,
    wrong: &mut Vec<Violation>,
) -> Option<u64> {
    let at = at?;
    let Ok(nanos) = u64::try_from(at.nanos) else {
        wrong.push(out_of_range(path()));
        return None;
    };
    if nanos > 999_999_999 || !(FIRST_SECOND..=LAST_SECOND).contains(&at.seconds) {
        wrong.push(out_of_range(path()));
        return None;
    }
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    let nanos = if at.seconds < 0 { 0 } else { nanos };
    Some(seconds * MICROS + nanos / 1_000)
}

/// The wire's form of an instant.
pub(crate) fn to_wire(micros: u64) -> Timestamp {
    let seconds = i64::try_from(micros / MICROS).unwrap_or(i64::MAX).min(LAST_SECOND);
    let nanos = i32::try_from(micros % MICROS * 1_000).unwrap_or(0);
    Timestamp { seconds, nanos }
}

fn out_of_range(path: String) -> Violation {
    let description = "a timestamp lies in the years 1 to 9999 and has 0 to 999999999 nanoseconds";
    Violation::new(path, "timestamp_range", description)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(at: Timestamp) -> Result<u64, Vec<Violation>> {
        let mut wrong = Vec::new();
        match from_wire(Some(&at), || "items[0].expire_time".to_owned(), &mut wrong) {
            Some(micros) if wrong.is_empty() => Ok(micros),
            _ => Err(wrong),
        }
    }

    #[test]
    fn an_absent_instant_stays_absent() {
        let mut wrong = Vec::new();
        assert_eq!(from_wire(None, String::new, &mut wrong), None);
        assert!(wrong.is_empty());
    }

    #[test]
    fn an_instant_before_1970_is_the_past() {
        assert_eq!(read(Timestamp { seconds: -1, nanos: 999_999_999 }), Ok(0));
        assert_eq!(read(Timestamp { seconds: FIRST_SECOND, nanos: 0 }), Ok(0));
    }

    #[test]
    fn instants_out_of_range_are_violations() {
        for (seconds, nanos) in [
            (i64::MAX, 0),
            (i64::MIN, 0),
            (LAST_SECOND + 1, 0),
            (FIRST_SECOND - 1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (0, i32::MIN),
        ] {
            let wrong = read(Timestamp { seconds, nanos }).unwrap_err();
            assert_eq!(wrong.len(), 1);
            assert_eq!((wrong[0].path.as_str(), wrong[0].rule), ("items[0].expire_time", "timestamp_range"));
        }
    }

    proptest! {
        #[test]
        fn no_instant_panics(seconds: i64, nanos: i32) {
            let _ = read(Timestamp { seconds, nanos });
        }

        #[test]
        fn any_number_has_a_form_on_the_wire(micros: u64) {
            let at = to_wire(micros);
            prop_assert!(at.seconds <= LAST_SECOND && (0..1_000_000_000).contains(&at.nanos));
        }

        #[test]
        fn instants_come_back_to_the_microsecond(micros in 0..=(LAST_SECOND as u64 * MICROS)) {
            prop_assert_eq!(read(to_wire(micros)), Ok(micros));
        }
    }
}
