//! `strongroom seal`: wipes every key from a vault's memory.

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::SealRequest;

use super::client::Context;
use super::output::{CliError, Exit};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "operator";

/// Wipe every key from the vault's memory: from then on it answers nothing but `status` and `unseal`.
///
/// What has begun is finished first. The command returns when no key is left. A vault that sealed itself, and would open by
/// itself, stays sealed.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom seal
  strongroom seal && strongroom status")]
pub struct Args {}

/// Runs the command.
pub async fn run(_args: Args, context: &Context) -> Result<Exit, CliError> {
    context.system().await?.seal(SealRequest {}).await?;
    context.output.show(|| json!({ "sealed": true }), || "sealed: strongroom unseal opens it".to_owned())?;
    Ok(Exit::Done)
}
