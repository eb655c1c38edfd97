//! `strongroom freeze` and `unfreeze`: stop reads or writes of a field, a tenant or all tenants at once, and let them
//! go on.

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::{FreezeRequest, UnfreezeRequest};

use super::client::Context;
use super::output::{CliError, Exit};

/// Stop reads and writes of a field or of your whole tenant, at once and for everybody.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom freeze borrower.id_card --reads      nobody reads or matches it
  strongroom freeze --writes                      nothing is stored, changed or deleted
  strongroom freeze                               both, of all that your tenant has
  strongroom freeze --all-tenants                 of all tenants, by an operator

When it has returned nothing that is frozen is released or stored any more, and
streams that were under way have been cut off. It outlives a restart. Ledger,
status, keys and policies go on.
Next: strongroom freezes")]
pub struct FreezeArgs {
    #[command(flatten)]
    what: What,
}

/// End a freeze, just this one: a field that was frozen by itself stays so.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom unfreeze borrower.id_card --reads
  strongroom unfreeze                             that of your tenant
  strongroom unfreeze --all-tenants               that of all tenants, by an operator

The policies that ship want the approval of another officer: strongroom approvals")]
pub struct UnfreezeArgs {
    #[command(flatten)]
    what: What,
}

#[derive(Clone, Debug, ClapArgs)]
struct What {
    /// The field: borrower.id_card. Without it, all that your tenant has.
    #[arg(conflicts_with = "all_tenants")]
    field: Option<String>,

    /// Only what tells something of a value: detokenize, match, lookup.
    #[arg(long)]
    reads: bool,

    /// Only what stores, changes or deletes one: tokenize, import, replace, delete.
    #[arg(long)]
    writes: bool,

    /// All tenants, those too that are made later: for the vault's operators.
    #[arg(long)]
    all_tenants: bool,
}

impl FreezeArgs {
    /// Who asks unless the caller says otherwise.
    pub fn principal(&self) -> &'static str {
        self.what.principal()
    }
}

impl UnfreezeArgs {
    /// Who asks unless the caller says otherwise.
    pub fn principal(&self) -> &'static str {
        self.what.principal()
    }
}

impl What {
    fn principal(&self) -> &'static str {
        if self.all_tenants { "operator" } else { "officer-1" }
    }

    /// Reads, writes: both where nothing is said.
    fn touches(&self) -> (bool, bool) {
        (self.reads || !self.writes, self.writes || !self.reads)
    }

    /// In words: `reads and writes of borrower.id_card`.
    fn words(&self) -> String {
        let what = match self.touches() {
            (true, true) => "reads and writes",
            (true, false) => "reads",
            _ => "writes",
        };
        let of = match (&self.field, self.all_tenants) {
            (Some(field), _) => field.as_str(),
            (None, true) => "all tenants",
            (None, false) => "your tenant",
        };
        format!("{what} of {of}")
    }
}

/// Freezes.
pub async fn freeze(FreezeArgs { what }: FreezeArgs, context: &Context) -> Result<Exit, CliError> {
    let (reads, writes) = what.touches();
    let field = what.field.clone().unwrap_or_default();
    let request = FreezeRequest { field, reads, writes, all_tenants: what.all_tenants };
    let changed = context.access().await?.freeze(request).await?.into_inner().changed;
    show(&what, true, changed, context)
}

/// Ends a freeze.
pub async fn unfreeze(UnfreezeArgs { what }: UnfreezeArgs, context: &Context) -> Result<Exit, CliError> {
    let (reads, writes) = what.touches();
    let field = what.field.clone().unwrap_or_default();
    let request = UnfreezeRequest { field, reads, writes, all_tenants: what.all_tenants };
    let changed = context.access().await?.unfreeze(request).await?.into_inner().changed;
    show(&what, false, changed, context)
}

fn show(what: &What, frozen: bool, changed: bool, context: &Context) -> Result<Exit, CliError> {
    let (reads, writes) = what.touches();
    context.output.show(
        || {
            json!({
                "field": what.field,
                "all_tenants": what.all_tenants,
                "reads": reads,
                "writes": writes,
                "frozen": frozen,
                "changed": changed,
            })
        },
        || match (frozen, changed) {
            (true, true) => format!("{} are frozen; end it with `strongroom unfreeze`", what.words()),
            (true, false) => format!("{} were frozen already: `strongroom freezes` shows since when", what.words()),
            (false, true) => {
                format!("the freeze of {} has ended; `strongroom freezes` shows what else is frozen", what.words())
            }
            (false, false) => format!("{} were not frozen by themselves: nothing has changed", what.words()),
        },
    )?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_meant_where_nothing_is_said() {
        let what = |reads, writes| What { field: None, reads, writes, all_tenants: false };
        assert_eq!(what(false, false).touches(), (true, true));
        assert_eq!(what(true, false).touches(), (true, false));
        assert_eq!(what(false, true).touches(), (false, true));
        assert_eq!(what(true, true).touches(), (true, true));
    }
}
