//! In which form leaves go out.

use std::borrow::Cow;

use clap::ValueEnum;
use strongroom_export::{Format, convert};

use crate::cli::output::CliError;

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A leaf, byte by byte as it is in the ledger.
    #[default]
    Jsonl,
    /// An OCSF 1.3 event, as in audit export.
    Ocsf,
}

impl Form {
    /// A leaf of a log in this form, without a newline.
    pub fn line<'l>(self, origin: &str, leaf: &'l [u8]) -> Result<Cow<'l, [u8]>, CliError> {
        if self == Self::Jsonl {
            return Ok(leaf.into());
        }
        let mut event = Vec::new();
        convert(Format::Ocsf, origin, leaf, &mut event, |_| ()).map_err(|error| no_leaf(&error))?;
        event.pop_if(|last| *last == b'\n');
        Ok(event.into())
    }
}

/// What came is not what the vault writes.
pub fn no_leaf(why: &impl std::fmt::Display) -> CliError {
    CliError::unfit(format!("the vault sent what is no leaf: {why}"))
}
