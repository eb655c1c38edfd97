//! Whose cosignatures the vault wants of its ledgers, and for how long it keeps their leaves: the table `[ledger]` of the
//! configuration.

use serde::Deserialize;
use strongroom_vault::Witnesses;

/// The table `[ledger]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The witnesses' verifier keys, as `witness init` writes them.
    #[serde(default)]
    witnesses: Vec<String>,
    /// How many of them a checkpoint needs.
    witnesses_needed: Option<usize>,
    /// For how many days leaves are kept in the vault at the least, before they may be archived.
    keep_days: Option<u64>,
}

/// Six months: what laws ask for at the least wherever they ask for logs at all.
const LEAST_DAYS: u64 = 183;
const DAY: u64 = 24 * 3_600 * 1_000_000;

impl Ledger {
    /// For how long leaves are kept at the least, in microseconds, if it says so.
    pub fn kept(&self) -> Option<u64> {
        let days = self.keep_days?;
        if days < LEAST_DAYS {
            tracing::warn!(days, "[ledger] keep_days is less than the half year that laws ask logs to be kept for");
        }
        Some(days.saturating_mul(DAY))
    }

    /// The witnesses, if there are any, or what is wrong with them.
    pub fn witnesses(&self) -> Result<Option<Witnesses>, String> {
        match (self.witnesses.as_slice(), self.witnesses_needed) {
            ([], None) => Ok(None),
            (_, None) => Err("[ledger] witnesses: say how many of them are needed, with witnesses_needed".to_owned()),
            (keys, Some(needed)) => {
                let keys = keys.iter().map(|key| key.trim().to_owned()).collect();
                Witnesses::new(keys, needed).map(Some).map_err(|why| format!("[ledger] witnesses: {why}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::cosignature;

    use super::*;

    fn read(text: &str) -> Result<Option<Witnesses>, String> {
        toml::from_str::<Ledger>(text).map_err(|error| error.to_string())?.witnesses()
    }

    #[test]
    fn leaves_are_kept_for_as_long_as_it_says() {
        let kept = |text: &str| toml::from_str::<Ledger>(text).unwrap().kept();
        assert_eq!(kept(""), None);
        assert_eq!(kept("keep_days = 3650"), Some(3_650 * DAY));
        assert_eq!(kept("keep_days = 0"), Some(0));
        assert!(toml::from_str::<Ledger>("keep_days = -1").is_err());
    }

    #[test]
    fn witnesses_are_wanted_only_with_how_many_and_never_more_than_there_are() {
        let [one, two] = [1, 2].map(|seed| cosignature::vkey("w.example/1", &[seed; 32]));
        assert!(read("").unwrap().is_none());
        assert!(read(&format!("witnesses = [\"{one}\", \"{two}\"]\nwitnesses_needed = 2")).unwrap().is_some());
        for wrong in [
            "witnesses_needed = 1".to_owned(),
            format!("witnesses = [\"{one}\"]"),
            format!("witnesses = [\"{one}\"]\nwitnesses_needed = 0"),
            format!("witnesses = [\"{one}\", \"{one}\"]\nwitnesses_needed = 2"),
            "witnesses = [\"no key\"]\nwitnesses_needed = 1".to_owned(),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
