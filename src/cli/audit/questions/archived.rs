//! What of a question's time the vault has no more, since it is archived: said before anything else, or refused.

use serde_json::{Value, json};
use strongroom_ledger::Timestamp;
use strongroom_proto::v1::LeftArchived;
use time::OffsetDateTime;

use crate::cli::audit::answered::instant;
use crate::cli::expiry::to_wire;
use crate::cli::output::{CliError, printable};

/// Leaves that are left out.
pub struct Archived {
    /// The first that is not.
    end: u64,
    /// When the last of them was committed.
    until: Timestamp,
    /// Where the newest archive is.
    place: String,
}

impl From<&LeftArchived> for Archived {
    fn from(left: &LeftArchived) -> Self {
        let until = left.end_time.as_ref().map_or(Timestamp(0), instant);
        Self { end: left.end, until, place: printable(&left.place) }
    }
}

impl Archived {
    /// Refuses a question from a time on of which leaves are archived: whoever names a time wants all since.
    pub fn allows(&self, since: Option<OffsetDateTime>) -> Result<(), CliError> {
        if since.is_none_or(|since| instant(&to_wire(since)) > self.until) {
            return Ok(());
        }
        let Self { end, until, place } = self;
        let next = Timestamp(until.0.saturating_add(1));
        Err(CliError::Unfit {
            message: format!(
                "the leaves before {end}, the last of {until}, are archived and not in the vault any more; the newest archive is \
                 in {place}"
            ),
            next: format!("--from {next}, or no time at all for what the vault still has; for the rest the archive"),
        })
    }

    /// In a line.
    pub fn words(&self) -> String {
        let Self { end, until, place } = self;
        format!(
            "Not shown: leaves before {end}, the last of {until}. They are archived; the newest archive is in {place}."
        )
    }

    /// As JSON.
    pub fn document(&self) -> Value {
        json!({ "end": self.end.to_string(), "until": self.until.to_string(), "place": self.place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::expiry::parse_time;

    #[test]
    fn what_is_advised_is_not_refused_again() {
        let until = instant(&to_wire(parse_time("2026-11-01T10:00:00.000007Z").unwrap()));
        let archived = Archived { end: 256, until, place: "vault-archive/1".to_owned() };
        assert!(archived.allows(None).is_ok());
        for early in ["2026-11-01", "2026-11-01T10:00:00.000007Z", "2026-11-01T10:00:00.0000079Z"] {
            let Err(CliError::Unfit { message, next }) = archived.allows(Some(parse_time(early).unwrap())) else {
                panic!("{early}")
            };
            assert!(message.contains("before 256") && message.contains("vault-archive/1"), "{message}");
            let advised = next.split_whitespace().nth(1).unwrap().trim_end_matches(',');
            assert_eq!(advised, "2026-11-01T10:00:00.000008Z");
            assert!(archived.allows(Some(parse_time(advised).unwrap())).is_ok());
        }
    }
}
