//! Spans of time, as people write them: 30d.

use std::time::Duration;

/// A whole number of days, hours, minutes or seconds: `30d`, `12h`, `90m`, `45s`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let unit = |unit| match unit {
        'd' => Some(24 * 3_600),
        'h' => Some(3_600),
        'm' => Some(60),
        's' => Some(1),
        _ => None,
    };
    let seconds = text.chars().next_back().and_then(unit).and_then(|unit: u64| {
        let number = text.get(..text.len() - 1)?;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(unit)
    });
    seconds.map(Duration::from_secs).ok_or_else(|| "write a span of time: 30d, 12h, 90m or 45s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_numbers_of_a_unit() {
        let seconds = |text| parse(text).map(|span| span.as_secs());
        assert_eq!((seconds("30d"), seconds("2h")), (Ok(30 * 24 * 3_600), Ok(7_200)));
        assert_eq!((seconds("90m"), seconds("0s")), (Ok(5_400), Ok(0)));
        for text in ["", "d", "3", "3w", "-3d", "+3d", "1.5h", "3 d", "天", "99999999999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
