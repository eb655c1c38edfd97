//! When values stop being readable, and other points in time, as people write them and as the vault is told them.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// A point in time: RFC 3339, or a date, which means its first instant in UTC.
pub fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map(|date| date.midnight().assume_utc())
        .map_err(|_| "write a date, 2031-12-31, or a time as in RFC 3339, 2031-12-31T23:59:59Z".to_owned())
}

/// A time as the vault is told it.
pub fn to_wire(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_means_its_first_instant() {
        assert_eq!(parse_time("2031-12-31").unwrap(), parse_time("2031-12-31T00:00:00Z").unwrap());
        assert_eq!(parse_time("2031-12-31T08:00:00+08:00").unwrap(), parse_time("2031-12-31").unwrap());
        assert!(parse_time("31.12.2031").is_err());
    }
}
