//! What the operators say of the backups of the vault's data: the table `[backups]` of the configuration.

use serde::Deserialize;

use super::span;

/// The table `[backups]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backups {
    /// How long a backup is kept before it is deleted: `35d`. The receipt of an erasure says when the last one is gone that may
    /// hold what was erased.
    kept: Option<String>,
}

impl Backups {
    /// For how many days one is kept, as far as that is said.
    pub fn days(&self) -> Result<Option<u32>, String> {
        let Some(kept) = &self.kept else { return Ok(None) };
        let span = span::parse(kept).map_err(|why| format!("[backups] kept: {why}"))?;
        // A day that has begun counts.
        let days = span.as_secs().div_ceil(24 * 3_600);
        u32::try_from(days).map(Some).map_err(|_| "[backups] kept: that is too long".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> Result<Option<u32>, String> {
        toml::from_str::<Backups>(text).map_err(|error| error.to_string())?.days()
    }

    #[test]
    fn how_long_backups_are_kept_is_said_or_unknown() {
        assert_eq!((days(""), days("kept = \"35d\""), days("kept = \"25h\"")), (Ok(None), Ok(Some(35)), Ok(Some(2))));
        assert!(days("kept = \"for ever\"").is_err() && days("keep = \"1d\"").is_err());
    }
}
