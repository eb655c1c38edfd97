//! The newest signed head of a ledger, and the leaves that it signs, from the vault.

use strongroom_ledger::LedgerError;
use strongroom_ledger::checkpoint::{self, Checkpoint};
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{ExportRequest, GetCheckpointRequest, GetCheckpointResponse};

use super::bar;
use crate::cli::client::Wire;
use crate::cli::output::CliError;

/// The signed head of a ledger as it is now, and the keys that the vault names.
pub async fn head(client: &mut AuditClient<Wire>, log: &str) -> Result<GetCheckpointResponse, CliError> {
    let asked = GetCheckpointRequest { log: log.to_owned(), ..Default::default() };
    Ok(client.get_checkpoint(asked).await?.into_inner())
}

/// The same, and what it says: one of these keys has signed it.
pub async fn signed_head(
    client: &mut AuditClient<Wire>,
    log: &str,
) -> Result<(Checkpoint, GetCheckpointResponse), CliError> {
    let head = head(client, log).await?;
    Ok((signed(&head).map_err(does_not_hold)?, head))
}

/// What a head says, if one of the keys that came with it has signed it.
pub fn signed(head: &GetCheckpointResponse) -> Result<Checkpoint, LedgerError> {
    let keys: Vec<&str> = head.keys.iter().map(String::as_str).collect();
    checkpoint::verify(&head.checkpoint, &keys)
}

/// A head by which the vault itself is refuted.
pub fn does_not_hold(error: LedgerError) -> CliError {
    CliError::unfit(format!("the vault's own checkpoint does not hold: {error}"))
}

/// Gives each of the first leaves of a ledger, `size` of them, and shows how far that is. Answers how many came.
pub async fn leaves(
    client: &mut AuditClient<Wire>,
    log: String,
    size: u64,
    mut give: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<u64, CliError> {
    let bar = bar(size);
    let mut leaves = 0u64;
    // An end of 0 means the end of the ledger, so an empty one is not asked for.
    if size > 0 {
        let mut stream = client.export(ExportRequest { end: size, log, ..Default::default() }).await?.into_inner();
        while let Some(page) = stream.message().await? {
            page.leaves.iter().try_for_each(|leaf| give(leaf))?;
            leaves += page.leaves.len() as u64;
            bar.set_position(leaves);
        }
    }
    bar.finish_and_clear();
    Ok(leaves)
}
