//! The ledger, as auditors get it: whose log it is, and its signed head.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strongroom_access::Action;
use strongroom_ids::TenantNo;
use strongroom_ledger::proof::Tree;
use strongroom_ledger::{LedgerError, checkpoint};
use strongroom_storage::Store;

use crate::error::Error;
use crate::open::{LANE, SYSTEM_NO};
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::tenant_life::End;
use crate::vault::Vault;
use crate::witnesses::Wanted;

/// A log's checkpoint is signed at most once in this time. Not by the vault's time, which stands still while the clock is
/// behind it: the head would, too.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// The last checkpoint of each log.
pub(crate) type Notes = Mutex<HashMap<TenantNo, Signed>>;

pub(crate) struct Signed {
    at: Instant,
    checkpoint: Checkpoint,
    tree: Tree,
}

/// A signed head.
#[derive(Clone)]
pub struct Checkpoint {
    /// The C2SP signed note.
    pub note: String,
    /// The log's public keys, as C2SP vkeys: of all versions that are not compromised, the newest first. Those of versions
    /// that sign no more verify what they signed before.
    pub keys: Vec<String>,
}

impl Checkpoint {
    /// What a checkpoint says, this one or another, if one of these keys has signed it.
    pub(crate) fn verify(&self, note: &str) -> Result<checkpoint::Checkpoint, LedgerError> {
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        checkpoint::verify(note, &keys)
    }
}

/// Asks for the signed head.
struct GetCheckpoint<'r> {
    log: &'r str,
}

impl<S: Store> Attempt<S> for GetCheckpoint<'_> {
    type Answer = TenantNo;
    const ACTION: Action = Action::GetCheckpoint;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantNo>, Refused> {
        road.decide_vault()?;
        let whose = road.log(self.log)?;
        let mut prepared = road.prepare(whose);
        prepared.detail.extend((whose != road.tenant.number).then(|| ("log", self.log.to_owned())));
        Ok(prepared)
    }
}

impl<S: Store> Road<'_, S> {
    /// A caller reads the log of its own tenant only. The vault's operators belong to the tenant `system`; they also read the
    /// logs of tenants that were destroyed, which have no auditors any more.
    pub(crate) fn log(&self, log: &str) -> Result<TenantNo, Error> {
        let directory = self.vault.directory();
        if let Some(gone) = directory.destroyed.get(log).filter(|_| self.tenant.number == SYSTEM_NO) {
            return Ok(*gone);
        }
        match log {
            "" => Ok(self.tenant.number),
            own if own == self.tenant.name => Ok(self.tenant.number),
            "system" => Err(Error::Denied { action: self.action.as_str() }),
            _ => Err(Error::invalid(
                "log",
                "log_unknown",
                "your own tenant's name, or none; for operators `system`, or a destroyed tenant's name",
            )),
        }
    }
}

impl<S: Store> Vault<S> {
    /// The signed head of a log. What is returned is at most a second old.
    pub async fn checkpoint(&self, caller: &Caller, log: &str) -> Result<Checkpoint, Error> {
        self.checkpoint_wanted(caller, log, Wanted::Newest).await
    }

    /// The same, or one that has to do with witnesses.
    pub async fn checkpoint_wanted(&self, caller: &Caller, log: &str, wanted: Wanted) -> Result<Checkpoint, Error> {
        let whose = self.travel(caller, &GetCheckpoint { log }).await?;
        let own = whose == caller.principal.tenant;
        let awaited = match wanted {
            Wanted::Published if own && self.has_witnesses() => return self.witnessed(whose).await,
            Wanted::Newest | Wanted::Published => None,
            // Nobody brings anything of a log that has ended.
            Wanted::Awaited if !own => None,
            Wanted::Witnessed if !own => return Err(Error::TenantDestroyed),
            Wanted::Witnessed => return self.witnessed(whose).await,
            Wanted::Awaited => self.awaited(whose).await?,
        };
        if let Some(awaited) = awaited {
            return Ok(awaited);
        }
        let (newest, tree) = self.checkpoint_of(caller, whose).await?;
        Ok(if own { self.with_cosignatures(whose, newest, &tree).await } else { newest })
    }

    /// The signed head of a log that the caller may see, and the tree that it signs.
    pub(crate) async fn checkpoint_of(&self, caller: &Caller, whose: TenantNo) -> Result<(Checkpoint, Tree), Error> {
        if whose != caller.principal.tenant {
            let end = End::load(self, whose).await?.ok_or(Error::TenantNotFound)?;
            let kept = self.kept_checkpoint(&end)?;
            let signed = kept.verify(&kept.note).map_err(|_| Error::DataLoss("the end of a tenant"))?;
            return Ok((kept, signed.tree()));
        }
        self.signed_head(whose).await
    }

    /// The signed head of a log that is there, whoever asks, and the tree that it signs.
    pub(crate) async fn signed_head(&self, whose: TenantNo) -> Result<(Checkpoint, Tree), Error> {
        let tenant = self.tenant(whose)?;
        if let Some(fresh) = self.fresh_checkpoint(&self.signed_notes(), whose) {
            return Ok(fresh);
        }
        let keys = self.log_keys(&tenant).await?;
        let mut notes = self.signed_notes();
        // Somebody else may have signed it meanwhile.
        if let Some(fresh) = self.fresh_checkpoint(&notes, whose) {
            return Ok(fresh);
        }
        let head = self.committer.head(tenant.number).ok_or(Error::Internal("a tenant without a log"))?;
        let origin = checkpoint::origin(self.id, tenant.id, LANE, head.incarnation);
        let checkpoint = self.sign_head(tenant.id, (&origin, head.size, &head.root), &keys)?;
        let tree = Tree { size: head.size, root: head.root };
        notes.insert(tenant.number, Signed { at: Instant::now(), checkpoint: checkpoint.clone(), tree });
        Ok((checkpoint, tree))
    }

    fn signed_notes(&self) -> MutexGuard<'_, HashMap<TenantNo, Signed>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_checkpoint(&self, notes: &HashMap<TenantNo, Signed>, log: TenantNo) -> Option<(Checkpoint, Tree)> {
        let signed = notes.get(&log).filter(|signed| signed.at.elapsed() < SIGN_EVERY)?;
        Some((signed.checkpoint.clone(), signed.tree))
    }

    /// The keys of a log have changed: what was signed with those before is not shown any more.
    pub(crate) fn sign_anew(&self, log: TenantNo) {
        self.signed_notes().remove(&log);
    }
}
