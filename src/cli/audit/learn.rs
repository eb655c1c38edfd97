//! Keys of a ledger that its own leaves name: asked of the vault, and proven against a checkpoint that is trusted already.

use bytes::Bytes;
use strongroom_ledger::LedgerError;
use strongroom_ledger::checkpoint::{self, Checkpoint};
use strongroom_ledger::cover::Piece;
use strongroom_ledger::log_keys::Trust;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{ExportRequest, GetArchiveRequest, LeafFilter};

use super::excerpt::pieces;
use super::proofs::{continues, tree};
use crate::cli::client::Wire;
use crate::cli::output::CliError;

/// What leaves that speak of keys tell.
const ACTIONS: [&str; 2] = ["rotate_key", "set_key_state"];
/// So many leaves about all keys of a tenant are taken at the most, and what lies beside so many: a vault that never ends
/// must not fill the memory.
const MOST: usize = 100_000;
const MOST_PIECES: usize = 40 * MOST;

/// Learns what the leaves of a checkpoint say of the log's keys; a key that is trusted has signed it.
pub async fn learn(
    client: &mut AuditClient<Wire>,
    log: &str,
    anchor: &Checkpoint,
    trust: &mut Trust,
) -> Result<(), CliError> {
    if anchor.size == 0 {
        return Ok(());
    }
    let mut archived = 0;
    for action in ACTIONS {
        let told = Told::fetch(client, log, anchor.size, action).await?;
        // The proofs lead to the vault's newest head. Who signed that is of no matter: it is the anchor, and what came since.
        let head = checkpoint::claimed(&told.checkpoint).map_err(|error| misfit(&error.to_string()))?;
        archived = archived.max(told.archived);
        let forked = |why: String| misfit(&format!("its head is not that of the same ledger: {why}"));
        continues(client, log.to_owned(), anchor, &head, forked).await?;
        trust.hear_proven(&told.lines, &told.pieces, &tree(&head)).map_err(|error| misfit(&error.to_string()))?;
    }
    trust.believe(anchor.size);
    if archived > 0 {
        eprintln!("what the leaves before {archived} say of the ledger's keys was not heard: they are archived");
    }
    Ok(())
}

/// The trusted keys that have signed a head. If none has, what was seen of the log before, and a trusted key signed, may have
/// the leaf that names one.
pub async fn signers(
    client: &mut AuditClient<Wire>,
    log: &str,
    (note, head): (&str, &Checkpoint),
    before: Option<&Checkpoint>,
    trust: &mut Trust,
) -> Result<Vec<String>, CliError> {
    let mut proven = trust.prove(note, head.size);
    if proven == Err(LedgerError::Unsigned)
        && let Some(before) = before
    {
        learn(client, log, before, trust).await?;
        proven = trust.prove(note, head.size);
    }
    proven.map_err(does_not_hold)
}

/// Learns of keys that were not known, from a head that a trusted one has signed: while it signs along is the time. Whether
/// that could be done; it is no loss yet if not, and is said.
pub async fn learn_new(client: &mut AuditClient<Wire>, log: &str, head: &Checkpoint, trust: &mut Trust) -> bool {
    match learn(client, log, head, trust).await {
        Ok(()) => true,
        Err(error) => {
            eprintln!("the ledger's keys have changed, and the new ones can't be learnt yet: {error}");
            false
        }
    }
}

/// A head that no trusted key vouches for.
pub fn does_not_hold(error: LedgerError) -> CliError {
    CliError::unfit(format!("the vault's checkpoint does not hold: {error}"))
}

/// Leaves of one action, with what proves them.
struct Told {
    lines: Vec<Bytes>,
    pieces: Vec<Piece>,
    checkpoint: String,
    /// Leaves before this one were not asked for: they are archived.
    archived: u64,
}

impl Told {
    async fn fetch(client: &mut AuditClient<Wire>, log: &str, end: u64, action: &str) -> Result<Self, CliError> {
        let filter = LeafFilter { action: action.to_owned(), ..Default::default() };
        let mut asked =
            ExportRequest { end, log: log.to_owned(), filter: Some(filter), proofs: true, ..Default::default() };
        let mut answer = client.export(asked.clone()).await.map_err(CliError::from);
        if let Err(error) = &answer
            && error.refusal().is_some_and(|refusal| refusal.reason == "LEAVES_ARCHIVED")
        {
            let about = GetArchiveRequest { log: log.to_owned(), ..Default::default() };
            asked.first = client.get_archive(about).await?.into_inner().end;
            if asked.first < end {
                answer = client.export(asked.clone()).await.map_err(CliError::from);
            }
        }
        let mut stream = answer?.into_inner();
        let (mut lines, mut all) = (Vec::new(), Vec::new());
        while let Some(page) = stream.message().await? {
            if let Some(signed) = page.signed {
                return Ok(Self { lines, pieces: all, checkpoint: signed.checkpoint, archived: asked.first });
            }
            all.extend(pieces(&page)?);
            lines.extend(page.leaves);
            if lines.len() > MOST || all.len() > MOST_PIECES {
                return Err(misfit("there are too many of them"));
            }
        }
        Err(misfit("they ended before they were proven"))
    }
}

fn misfit(why: &str) -> CliError {
    CliError::Unfit {
        message: format!("what the vault sends of the ledger's keys does not hold: {why}"),
        next: "keep what you have, and ask the ledger's owner for the newer key".into(),
    }
}
