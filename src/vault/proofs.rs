//! Proofs of a log: that it has a leaf, and that it only grew.

use strongroom_access::Action;
use strongroom_ids::TenantNo;
use strongroom_ledger::proof::{Question, Tree};
use strongroom_storage::Store;

use crate::audit::Checkpoint;
use crate::error::Error;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::vault::Vault;

/// Asks for the proof that a log has a leaf.
pub struct ProveLeaf {
    /// Index of the leaf.
    pub index: u64,
    /// In the log as it was with so many leaves; 0 for the checkpoint that comes with the proof.
    pub size: u64,
    /// Which log, as for [`crate::Export`].
    pub log: String,
}

/// Asks for the proof that a log only grew.
pub struct ProveGrowth {
    /// From so many leaves; at least one.
    pub from: u64,
    /// To so many; 0 for the checkpoint that comes with the proof.
    pub to: u64,
    /// Which log.
    pub log: String,
}

/// A proof (RFC 6962 section 2.1).
pub struct Proof {
    /// Its hashes.
    pub hashes: Vec<[u8; 32]>,
    /// The leaves of the tree that it is about.
    pub size: u64,
    /// The log's head, signed now or a moment ago.
    pub checkpoint: Checkpoint,
}

/// Either, on the road: the road decides and records, and the tree is looked at afterwards.
pub(crate) struct GetProof<'r> {
    pub log: &'r str,
    pub detail: Vec<(&'static str, String)>,
}

impl<S: Store> Attempt<S> for GetProof<'_> {
    type Answer = TenantNo;
    const ACTION: Action = Action::GetProof;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantNo>, Refused> {
        road.decide_vault()?;
        let whose = road.log(self.log)?;
        let mut prepared = road.prepare(whose);
        prepared.detail.extend(self.detail.iter().cloned());
        prepared.detail.extend((whose != road.tenant.number).then(|| ("log", self.log.to_owned())));
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Proves that a log has a leaf.
    pub async fn prove_leaf(&self, caller: &Caller, request: &ProveLeaf) -> Result<Proof, Error> {
        let ProveLeaf { index, size, log } = request;
        let detail = vec![("index", index.to_string()), ("size", size.to_string())];
        let asked = |size| Question::Inclusion { index: *index, size };
        self.proof(caller, &GetProof { log, detail }, *size, asked, "index").await
    }

    /// Proves that a log only grew.
    pub async fn prove_growth(&self, caller: &Caller, request: &ProveGrowth) -> Result<Proof, Error> {
        let ProveGrowth { from, to, log } = request;
        let detail = vec![("from", from.to_string()), ("to", to.to_string())];
        let asked = |to| Question::Consistency { from: *from, to };
        self.proof(caller, &GetProof { log, detail }, *to, asked, "from").await
    }

    async fn proof(
        &self,
        caller: &Caller,
        request: &GetProof<'_>,
        size: u64,
        asked: impl FnOnce(u64) -> Question,
        path: &str,
    ) -> Result<Proof, Error> {
        let whose = self.travel(caller, request).await?;
        let (checkpoint, tree): (Checkpoint, Tree) = self.checkpoint_of(caller, whose).await?;
        let size = if size == 0 { tree.size } else { size };
        let question = asked(size);
        if !question.fits(tree.size) {
            let description = format!(
                "the log has {} leaves: a tree has at most so many, a leaf's index is below that of its tree, and an older \
                 tree has one leaf at the least and no more than the newer one",
                tree.size
            );
            return Err(Error::invalid(path, "out_of_range", description));
        }
        let hashes = self.prove(whose, &tree, &question).await?;
        let own = whose == caller.principal.tenant;
        let checkpoint = if own { self.with_cosignatures(whose, checkpoint, &tree).await } else { checkpoint };
        Ok(Proof { hashes, size, checkpoint })
    }
}
