//! Options that several commands share: which ledger is asked for, and of when.

use clap::Args as ClapArgs;
use time::OffsetDateTime;

use crate::cli::expiry::parse_time;

/// Which ledger is asked for.
#[derive(Clone, Debug, ClapArgs)]
pub struct Of {
    /// Which ledger: nothing for the tenant's; for operators `system`, the vault's own, or the name of a destroyed tenant.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub log: String,
}

/// From one time to another, which is not in it.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub struct Between {
    /// Only what was committed at this time or later: 2026-11-01, or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<OffsetDateTime>,

    /// Only what was committed before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to: Option<OffsetDateTime>,
}
